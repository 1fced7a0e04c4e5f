//! `--tracker events`: groups without a v2 tree, kept together by forks and exits.

use rustix::process::Signal;

use crate::daemon::{self, PYTHON, kernel_tells};
use crate::tracked::Place;

/// Attaches itself, bears children in every way that there is, and ends.
const BROOD: &str = "sh -c 'echo $$ > cg/a/tasks
    (setsid sh -c \"sleep 60.1 & (sleep 60.2 &) & exit\" &)
    (sleep 60.3 &)
    sh -c \"sh -c \\\"sleep 60.4 &\\\" & exit\"
    exit' > /dev/null 2>&1";

/// A daemon in a pid namespace of its own with the hierarchy `mine`, which has its events from one outside. Both places, the outer one
/// first.
fn below_an_outer_daemon() -> Option<(Place, Place)> {
    if !kernel_tells() {
        return None;
    }
    serve_in(Place::nest()?)
}

fn serve_in(mut place: Place) -> Option<(Place, Place)> {
    let mut outer = Place::open()?;
    outer.start(&["--events-only"]);
    let public = format!("{}.public", outer.state().display());
    place.serve("none,name=mine", &["--outer", &public]);
    Some((outer, place))
}

#[test]
fn nobody_leaves_a_group_by_being_born_to_a_parent_that_is_gone() {
    if !kernel_tells() {
        return;
    }
    let Some(mut place) = Place::open() else { return };
    place.serve("none,name=mine", &[]);
    place.ok("mkdir cg/a");
    place.ok(BROOD);
    // Exactly the sleepers, once each of them sleeps; nobody else of the machine.
    place.until(
        "[ \"$(for p in $(cat cg/a/tasks); do tr '\\0' ' ' < /proc/$p/cmdline; done | grep -o '[0-9.]*' | sort | xargs)\" = '60.1 60.2 60.3 60.4' ]",
    );
    assert!(place.ok("$PINFOLD status /a").contains("4 processes in groups, 0 gaps, 1 scans"));
    assert!(!place.script("rmdir cg/a").status.success(), "a group with processes is busy");
    place.ok("$PINFOLD kill /a");
    place.until("[ -z \"$(cat cg/a/tasks)\" ] && rmdir cg/a");
    place.down();
}

/// It was asked twice: for the table of groups, and for whoever listens.
#[test]
fn the_kernel_is_asked_once_for_the_groups_and_for_all_who_listen() {
    if !kernel_tells() {
        return;
    }
    let Some(mut place) = Place::open() else { return };
    place.serve("none,name=mine", &[]);
    place.ok("mkdir cg/a");
    // Sockets of the family's protocol 11, NETLINK_CONNECTOR, among the daemon's descriptors.
    let connectors = format!(
        "readlink /proc/{}/fd/* | tr -dc '0-9\\n' | sort -u > fds
         awk '$2 == 11 {{ print $NF }}' /proc/net/netlink | sort -u | comm -12 fds - | wc -l",
        place.daemon()
    );
    assert_eq!(place.ok(&connectors).trim(), "1");
    place.ok("timeout 60 $PINFOLD events --group /a > group 2>&1 &
        timeout 60 $PINFOLD events > all 2>&1 &
        timeout 60 $PINFOLD events > more 2>&1 &");
    place.until("grep -q synced group && grep -q synced all && grep -q synced more");
    place.ok("mkfifo go; (sh -c 'echo $$ > cg/a/tasks; read -r _ < go; exec sleep 0' &) > /dev/null 2>&1");
    place.until("grep -qv synced group");
    place.ok("echo > go");
    place.until("grep -q 'exit .*sleep' group && grep -q 'exit .*sleep' all && grep -q 'exit .*sleep' more");
    assert_eq!(place.ok(&connectors).trim(), "1");
    let status = place.ok("$PINFOLD status /a");
    assert!(status.contains("0 gaps, 1 scans"), "{status}");
    place.down();
}

#[test]
fn datagrams_that_are_not_the_kernels_are_told_of() {
    if !kernel_tells() {
        return;
    }
    let Some(mut place) = Place::open() else { return };
    place.serve("none,name=mine", &[]);
    place.ok("mkdir cg/a");
    assert!(!place.ok("$PINFOLD status /a").contains("datagrams"));
    // The port of the daemon's socket of protocol 11, NETLINK_CONNECTOR.
    let port = format!(
        "readlink /proc/{}/fd/* | tr -dc '0-9\\n' | sort -u > fds
         awk '$2 == 11 {{ print $NF, $3 }}' /proc/net/netlink | sort | join fds - | cut -d ' ' -f 2",
        place.daemon()
    );
    let port = place.ok(&port);
    let forge = "import socket, sys
s = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 11)
s.bind((0, 0))
for text in (b'rubbish', b'x' * 76, b'y' * 300): s.sendto(text, (int(sys.argv[1]), 0))";
    place.ok(&format!("{PYTHON} -c \"{forge}\" {}", port.trim()));
    place.until("$PINFOLD status /a | grep -q ' 0 gaps, .*, 3 datagrams of others than the kernel'");
    assert_eq!(place.log().matches("not believed").count(), 1, "{}", place.log());
    place.down();
}

/// Who was there before the daemon, who came after it, and who was there as another program.
fn rules_move_processes(mut place: Place, arguments: &[&str]) {
    place.ok("cp /bin/sleep ruled; printf '[[rule]]\nexe = \"%s\"\ngroup = \"/here\"\n' \"$PWD/ruled\" > rules.toml");
    let rules = place.dir.join("rules.toml").display().to_string();
    place.ok("(exec ./ruled 60) > /dev/null 2>&1 & echo $! > first");
    place.serve("none,name=mine", &[arguments, &["--rules", &rules]].concat());
    place.ok("(exec ./ruled 60) > /dev/null 2>&1 & echo $! > second");
    place.ok("mkfifo go; sh -c 'read -r _ < go; exec ./ruled 60' > /dev/null 2>&1 & echo $! > third
        timeout 60 $PINFOLD events --pid $(cat third) > heard 2>&1 &");
    place.until("grep -q ' found .*sh' heard");
    place.ok("echo > go");
    place.until("sort -n first second third | cmp - cg/here/tasks");
    place.ok("$PINFOLD kill /here");
    place.until("[ -z \"$(cat cg/here/tasks)\" ]");
    place.down();
}

#[test]
fn rules_move_processes_without_a_v2_tree() {
    if kernel_tells() {
        Place::open().into_iter().for_each(|place| rules_move_processes(place, &[]));
    }
}

#[test]
fn rules_move_processes_that_an_outer_daemon_tells_of() {
    if !kernel_tells() {
        return;
    }
    let (Some(place), Some(mut outer)) = (Place::nest(), Place::open()) else { return };
    outer.start(&["--events-only"]);
    rules_move_processes(place, &["--outer", &format!("{}.public", outer.state().display())]);
}

#[test]
fn rules_move_processes_that_are_found_in_proc() {
    Place::nest().into_iter().for_each(|place| rules_move_processes(place, &[]));
}

#[test]
fn a_storm_of_double_forkers_loses_nobody_in_a_pid_namespace_with_an_outer_daemon() {
    let Some((_outer, mut place)) = below_an_outer_daemon() else { return };
    place.ok("mkdir cg/a cg/b");
    let storm = "for i in $(seq 100); do (setsid sh -c \"sleep 700 &\" &); done";
    place.ok(&format!(
        "(for i in 1 2 3 4; do sh -c 'echo $$ > cg/a/tasks; {storm}' & done; sleep 700 &) > /dev/null 2>&1"
    ));
    // All but one, who was not born in the group.
    place.until("[ $(grep -lzx '[7]00' /proc/[0-9]*/cmdline | wc -l) = 401 ]");
    place.until("[ $(wc -l < cg/a/tasks) = 400 ]");
    place.ok("$PINFOLD kill /a");
    place.until("[ $(grep -lzx '[7]00' /proc/[0-9]*/cmdline | wc -l) = 1 ] && [ -z \"$(cat cg/a/tasks)\" ]");
    place.down();
}

#[test]
fn what_happens_while_the_outer_daemon_is_gone_is_a_gap_and_then_known() {
    let Some((mut outer, mut place)) = below_an_outer_daemon() else { return };
    place.ok("mkdir cg/a && mkfifo go; sh -c 'echo $$ > cg/a/tasks; read x < go; sleep 700 & sleep 700' > /dev/null 2>&1 &");
    place.until("[ $(wc -l < cg/a/tasks) = 1 ]");
    outer.kill_daemon();
    place.ok("echo > go");
    place.until("[ $(grep -lzx '[7]00' /proc/[0-9]*/cmdline | wc -l) = 2 ]");
    outer.start(&["--events-only"]);
    place.until("[ $(wc -l < cg/a/tasks) = 3 ]");
    assert!(place.ok("$PINFOLD status /a").contains("events (outer pinfold): 3 processes in groups, 1 gaps"));
    place.down();
}

/// The kernel tells start times by the clock of whoever reads them: nobody was the process that the outer daemon had told of.
#[test]
fn groups_in_a_time_namespace_hold_who_the_outer_daemon_tells_of() {
    if !kernel_tells() {
        return;
    }
    let Some((_outer, mut place)) = Place::nest_in_another_time().and_then(serve_in) else { return };
    let uptime = place.ok("cut -d. -f1 /proc/uptime").trim().parse::<u64>().expect("seconds");
    assert!(uptime > 86_400, "it is another time");
    place.ok("mkdir cg/a");
    place.ok(BROOD);
    let sleepers = "for p in $(cat cg/a/tasks); do tr '\\0' ' ' < /proc/$p/cmdline; done | grep -o '[0-9.]*' | sort | xargs";
    place.until(&format!("[ \"$({sleepers})\" = '60.1 60.2 60.3 60.4' ]"));
    place.ok("timeout 60 $PINFOLD events --group /a > group 2>&1 &");
    place.until("grep -q 'synced found=4' group");
    let status = place.ok("$PINFOLD status /a");
    assert!(status.contains("4 processes in groups, 0 gaps"), "{status}");
    place.ok("$PINFOLD kill /a");
    place.until("[ -z \"$(cat cg/a/tasks)\" ] && [ $(grep -c ' exit .*signal=9' group) = 4 ] && rmdir cg/a");
    place.down();
}

#[test]
fn a_child_of_which_nothing_was_told_yet_is_where_its_parent_is() {
    let Some((outer, mut place)) = below_an_outer_daemon() else { return };
    place.ok("mkdir -p cg/a other && $PINFOLD mount -o none,name=other other && mkdir other/b && mkfifo go
        sh -c 'echo $$ > cg/a/tasks; read x < go; sh -c \"echo \\$\\$ > other/b/tasks; exec sleep 700\" & exec sleep 701' > /dev/null 2>&1 &");
    place.until("[ $(wc -l < cg/a/tasks) = 1 ]");
    outer.signal_daemon(Signal::STOP);
    place.ok("echo > go");
    place.until("[ -n \"$(cat other/b/tasks)\" ]");
    outer.signal_daemon(Signal::CONT);
    place.until("[ $(wc -l < cg/a/tasks) = 2 ]");
    place.down();
}

#[test]
fn nobody_has_the_rights_of_the_root_before_it_is_told_of() {
    let Some((outer, mut place)) = below_an_outer_daemon() else { return };
    place.ok("mkdir -p cg/a/mine cg/theirs && mkfifo go && chmod 777 . go");
    place.ok("runuser -u nobody -- sh -c 'echo $$ > in; read x < go
        $PINFOLD ls . > child 2>&1
        (setsid sh -c \"$PINFOLD ls . > all 2>&1; mv all orphan\" &)
        sleep 700' > /dev/null 2>&1 &");
    place.until("[ -s in ]");
    place.ok("cat in > cg/a/tasks");
    outer.signal_daemon(Signal::STOP);
    place.ok("echo > go");
    place.until("[ -s child ] && [ -s orphan ]");
    assert_eq!(place.ok("grep / child"), "mine/\n");
    let orphan = place.ok("cat orphan");
    assert!(orphan.contains("nobody has told"), "{orphan}");
    // Those who were known before are served.
    outer.signal_daemon(Signal::CONT);
    place.until("[ $(runuser -u nobody -- $PINFOLD ls . | grep -c /) = 2 ]");
    place.down();
}

#[test]
fn an_orphan_that_was_found_and_may_be_a_members_has_no_rights_of_the_root() {
    let Some(mut place) = Place::nest() else { return };
    place.serve("none,name=mine", &[]);
    place.ok("mkdir -p cg/a/mine cg/theirs && chmod 777 .");
    place.ok("sh -c 'echo $$ > cg/a/tasks
        (setsid runuser -u nobody -- sh -c \"$PINFOLD ls . > all 2>&1; mv all orphan\" &)
        sleep 700' > /dev/null 2>&1 &");
    place.until("[ -s orphan ]");
    let orphan = place.ok("cat orphan");
    // Where it was seen before its parent was gone, it is known to be in the group.
    assert!(orphan.contains("nobody has told") || orphan.contains("mine/"), "{orphan}");
    place.ok("runuser -u nobody -- $PINFOLD ls . | grep -qx theirs/");
    place.down();
}

#[test]
fn killing_goes_on_until_a_child_is_gone_of_which_is_told_late() {
    let Some((outer, mut place)) = below_an_outer_daemon() else { return };
    place.ok("mkdir cg/a && mkfifo go; sh -c 'echo $$ > cg/a/tasks; read x < go; sleep 700 & exec sleep 701' > /dev/null 2>&1 &");
    place.until("[ $(wc -l < cg/a/tasks) = 1 ]");
    outer.signal_daemon(Signal::STOP);
    place.ok("echo > go");
    place.until("[ $(grep -lzx '70[01]' /proc/[0-9]*/cmdline | wc -l) = 2 ]");
    place.ok("$PINFOLD kill /a > killed 2>&1 &");
    place.until("! grep -qzx '[7]01' /proc/[0-9]*/cmdline");
    outer.signal_daemon(Signal::CONT);
    place.until("! grep -qzx '[7]00' /proc/[0-9]*/cmdline");
    place.down();
}

#[test]
fn a_user_without_rights_has_groups_of_its_own() {
    if !kernel_tells() {
        return;
    }
    let Some(mut place) = Place::open() else { return };
    if !std::path::Path::new("/usr/bin/fusermount3").exists() {
        return daemon::skip("needs fusermount3 (package fuse3)");
    }
    place.becomes("nobody");
    place.serve("none,name=mine", &[]);
    place.ok("mkdir cg/a");
    place.ok(BROOD);
    place.until("[ $(wc -l < cg/a/tasks) = 4 ]");
    let refused = place.script("echo 1 > cg/a/tasks");
    assert!(daemon::text(&refused.stderr).contains("Permission denied"), "not its own process");
    let refused = place.script("$PINFOLD mount -o memory cg");
    assert!(!refused.status.success());
    place.ok("$PINFOLD kill /a");
    place.until("[ -z \"$(cat cg/a/tasks)\" ] && rmdir cg/a");
    place.down();
}

/// In user, pid and mount namespaces that a user made, by what another user's daemon tells.
#[test]
fn a_users_container_has_groups_of_its_own() {
    let Some(mut place) = Place::open().filter(|_| kernel_tells()) else { return };
    place.start(&["--events-only"]);
    let outer = format!("{}.public", place.state().display());
    place.becomes("nobody");
    let container = "unshare --user --map-root-user --pid --fork --kill-child --mount-proc";
    if !place.script(&format!("{container} true")).status.success() {
        return daemon::skip("unprivileged users may not make namespaces here");
    }
    let script = format!(
        "export PINFOLD_STATE=$PWD/inner
        mkdir cg
        $PINFOLD serve --tracker events --outer {outer} --mount none,name=mine:$PWD/cg > inner.log 2>&1 &
        until [ -e cg/tasks ]; do :; done
        set -e
        mkdir cg/a
        {BROOD}
        until [ $(wc -l < cg/a/tasks) = 4 ]; do :; done
        $PINFOLD status /a
        $PINFOLD kill /a
        until [ -z \"$(cat cg/a/tasks)\" ]; do :; done
        rmdir cg/a
        $PINFOLD down"
    );
    std::fs::write(place.dir.join("inside"), script).expect("the directory is ours");
    let said = place.ok(&format!("{container} bash inside || {{ cat inner.log; exit 1; }}"));
    assert!(said.contains("events (outer pinfold): 4 processes in groups, 0 gaps"), "{said}");
}

#[test]
fn polling_finds_children_by_their_parents_and_orphans_by_their_session() {
    let Some(mut place) = Place::nest() else { return };
    place.serve("none,name=mine", &[]);
    // The leader of a session stays; an intermediate child goes before anybody looks.
    place.ok("mkdir cg/a; setsid sh -c 'echo $$ > cg/a/tasks; sleep 700 & (sleep 700 &) ; sleep 700' > /dev/null 2>&1 &");
    place.until("[ $(wc -l < cg/a/tasks) = 4 ]");
    let status = place.ok("$PINFOLD status /a");
    assert!(status.contains("events (/proc, polled): 4 processes in groups, 0 gaps"), "{status}");
    assert!(status.contains(" 1 adopted"), "{status}");
    place.down();
}

/// Such a process was in no group's stream.
#[test]
fn whoever_is_younger_than_the_last_look_at_proc_is_followed_at_once() {
    let Some(mut place) = Place::nest() else { return };
    place.serve("none,name=mine", &[]);
    place.ok("mkdir cg/a; timeout 60 $PINFOLD events --group /a > group 2>&1 &");
    place.until("grep -q 'synced found=0' group");
    place.ok("for n in $(seq 30); do sleep 60 > /dev/null 2>&1 & echo $! > cg/a/tasks; done");
    place.until("[ $(grep -c ' found ' group) = 30 ]");
    place.ok("$PINFOLD kill /a");
    place.until("[ $(grep -c ' exit ' group) = 30 ] && [ -z \"$(cat cg/a/tasks)\" ]");
    place.down();
}

/// It lives between two looks at /proc, and is in the group's stream all the same: the attach has it looked at.
#[test]
fn who_is_killed_right_after_its_attach_is_told_of_where_proc_is_polled_too() {
    let Some(mut place) = Place::nest() else { return };
    place.serve("none,name=mine", &[]);
    place.ok("mkdir cg/a; timeout 60 $PINFOLD events --group /a > group 2>&1 &");
    place.until("grep -q 'synced found=0' group");
    place.ok("for n in $(seq 30); do sleep 60 > /dev/null 2>&1 & echo $! > cg/a/tasks; kill -9 $!; echo $! >> killed; done");
    let told = |word: &str| {
        format!("for p in $(cat killed); do [ $(grep -c \" {word} $p \" group) = 1 ] || exit 1; done")
    };
    place.until(&told("exit"));
    place.ok(&told("found"));
    place.down();
}

#[test]
fn a_daemon_after_one_that_was_killed_knows_who_is_where() {
    let Some(mut place) = Place::nest() else { return };
    place.serve("none,name=mine", &[]);
    place.ok("mkdir -p cg/a/b && mkfifo go
        sh -c 'sleep 701 & sleep 702 & echo $$ > cg/a/b/tasks; read x < go; sleep 703 & kill -9 $!; sleep 704 & wait' > /dev/null 2>&1 &");
    place.until("[ $(wc -l < cg/a/b/tasks) = 1 ]");
    place.kill_daemon();
    place.ok("echo > go");
    place.until("grep -qzx '70[4]' /proc/[0-9]*/cmdline");
    place.serve("none,name=mine", &[]);
    let lines = place.ok("for p in $(cat cg/a/b/tasks); do tr '\\0' ' ' < /proc/$p/cmdline | cut -c1-9; echo; done | grep -v ^$");
    assert_eq!(lines, "sh -c sle\nsleep 704\n", "701 and 702 were born before, 703 has ended");
    place.down();
}

#[test]
fn what_user_space_cannot_do_is_refused_with_the_reason() {
    let Some(mut place) = Place::nest() else { return };
    place.serve("none,name=mine", &[]);
    place.ok("mkdir other");
    let refused = place.script("$PINFOLD mount -o memory,cpu other");
    let said = daemon::text(&refused.stderr);
    assert!(said.contains("controller memory is not available here: there is no v2 tree"), "{said}");
    assert!(place.log().contains("nobody but the kernel can charge memory to a group"), "{}", place.log());
    assert!(place.ok("$PINFOLD controllers").contains("user space cannot share a CPU out"));
    place.down();
}

#[test]
fn what_user_space_puts_in_force_says_so() {
    let Some([_outer, mut place]) = controlled() else { return };
    place.ok("echo 5 > cg/a/pids.max && echo 0 > cg/a/cpuset.cpus && echo FROZEN > cg/a/freezer.state");
    let status = place.ok("$PINFOLD status /a");
    for key in ["pids.max", "cpuset.cpus", "freezer.state"] {
        let of = status.lines().find(|line| line.contains(&format!(" {key} "))).unwrap_or_default();
        assert!(of.trim_end().ends_with("user space"), "{key}: {status}");
    }
    assert!(status.contains("tracker: events"), "{status}");
    place.down();
}

/// A realm in a place of its own that is told of everything, with the controllers that user space has, and a group that
/// has CPUs and memory nodes. The first place has the outer daemon.
fn controlled() -> Option<[Place; 2]> {
    if !kernel_tells() {
        return None;
    }
    let (mut outer, mut place) = (Place::open()?, Place::nest()?);
    outer.start(&["--events-only"]);
    serve_below(&outer, &mut place);
    place.ok("mkdir cg/a && cat cg/cpuset.cpus > cg/a/cpuset.cpus && cat cg/cpuset.mems > cg/a/cpuset.mems");
    Some([outer, place])
}

fn serve_below(outer: &Place, place: &mut Place) {
    place.serve("all", &["--outer", &format!("{}.public", outer.state().display())]);
}

/// A shell's words for the states of a group's members, each once.
const STATES: &str =
    "for p in $(cat cg/a/tasks); do sed 's/.*) \\(.\\).*/\\1/' /proc/$p/stat; done | sort -u";

#[test]
fn a_frozen_group_stands_still_with_whoever_comes_or_is_born_until_it_is_thawed() {
    let Some([outer, mut place]) = controlled() else { return };
    // One bears children all the time, one was stopped before.
    place.ok(
        "sh -c 'echo $$ > cg/a/tasks; sleep 70 & kill -STOP $!; while :; do (:); done' > /dev/null 2>&1 &",
    );
    place.until("[ $(wc -l < cg/a/tasks) -ge 2 ]");
    place.ok("echo FROZEN > cg/a/freezer.state");
    place.until("[ $(cat cg/a/freezer.state) = FROZEN ]");
    assert_eq!(place.ok(STATES), "T\n");
    // Somebody else lets one go on: not for long.
    place.ok("kill -CONT $(head -1 cg/a/tasks)");
    place.until("[ $(cat cg/a/freezer.state) = FROZEN ]");
    assert_eq!(place.ok(STATES), "T\n");
    // Who comes stops, who leaves goes on.
    place.ok("sleep 71 > /dev/null 2>&1 & echo $! > one; cat one > cg/a/tasks");
    place.until("[ $(cat cg/a/freezer.state) = FROZEN ]");
    assert_eq!(place.ok(STATES), "T\n");
    place.ok("cat one > cg/tasks");
    place.until("grep -q '^State:.S' /proc/$(cat one)/status");
    let before = place.ok("cat cg/a/tasks");
    place.kill_daemon();
    serve_below(&outer, &mut place);
    assert_eq!(place.ok("cat cg/a/freezer.state cg/a/tasks"), format!("FROZEN\n{before}"));
    place.ok("echo THAWED > cg/a/freezer.state");
    assert_eq!(place.ok("cat cg/a/freezer.state"), "THAWED\n");
    place.until("[ $(for p in $(cat cg/a/tasks); do grep '^State:.T' /proc/$p/status; done | wc -l) = 1 ]");
    place.ok("echo FROZEN > cg/a/freezer.state; cat one > cg/a/tasks");
    place.until("grep -q '^State:.T' /proc/$(cat one)/status");
    place.down();
    place.until("grep -q '^State:.S' /proc/$(cat one)/status");
}

#[test]
fn a_parent_that_waits_for_its_child_to_execute_does_not_keep_its_group_from_being_frozen() {
    let Some([_outer, mut place]) = controlled() else { return };
    // By vfork, in effect: until the child has opened the pipe and executed, its parent waits.
    place.ok(
        r#"mkfifo go; /usr/bin/python3 -c '
import os
open("cg/a/tasks", "w").write(str(os.getpid()))
os.posix_spawn("/bin/sleep", ["sleep", "70"], {}, file_actions=[(os.POSIX_SPAWN_OPEN, 0, "go", os.O_RDONLY, 0)])
os.execv("/bin/sleep", ["sleep", "71"])' > /dev/null 2>&1 &"#,
    );
    place.until("[ \"$(for p in $(cat cg/a/tasks); do grep '^State:.[DS]' /proc/$p/status; done | sort | xargs)\" = 'State: D (disk sleep) State: S (sleeping)' ]");
    place.ok("echo FROZEN > cg/a/freezer.state");
    place.until("[ $(cat cg/a/freezer.state) = FROZEN ]");
    place.ok("(echo > go) > /dev/null 2>&1 &");
    place.ok("echo THAWED > cg/a/freezer.state");
    place.until("[ $(grep -lzx '7[01]' $(sed 's,.*,/proc/&/cmdline,' cg/a/tasks) | wc -l) = 2 ]");
    place.down();
}

/// A process in `cg/a` whose first thread has ended while another goes on; its number is in `one`.
const HEADLESS: &str = r#"/usr/bin/python3 -c '
import ctypes, os, threading, time
threading.Thread(target=time.sleep, args=(3600,)).start()
for file in "cg/a/tasks", "one": open(file, "w").write(str(os.getpid()))
ctypes.CDLL(None).pthread_exit(None)' > /dev/null 2>&1 &"#;

#[test]
fn a_process_whose_first_thread_has_ended_is_frozen_moved_and_killed_like_any_other() {
    let Some([_outer, mut place]) = controlled() else { return };
    place.ok(HEADLESS);
    place.until("[ -s one ] && grep -q ') Z' /proc/$(cat one)/stat");
    let states = "cat /proc/$(cat one)/task/*/stat | sed 's/.*) \\(.\\).*/\\1/' | sort | xargs";
    place.until(&format!("[ \"$({states})\" = 'S Z' ]"));
    place.ok("echo FROZEN > cg/a/freezer.state");
    place.until("[ $(cat cg/a/freezer.state) = FROZEN ]");
    assert_eq!(place.ok(states), "T Z\n");
    place.ok("cat one > cg/tasks");
    place.until(&format!("[ \"$({states})\" = 'S Z' ]"));
    place.ok("cat one > cg/a/tasks");
    place.until("[ $(cat cg/a/freezer.state) = FROZEN ]");
    assert_eq!(place.ok(states), "T Z\n");
    place.ok("$PINFOLD kill /a");
    place.until("[ -z \"$(cat cg/a/cgroup.procs)\" ] && ! [ -e /proc/$(cat one) ]");
    place.down();
}

#[test]
fn one_that_cannot_be_stopped_keeps_nobody_else_from_it() {
    if !kernel_tells() {
        return;
    }
    let Some(mut place) = Place::open() else { return };
    if !std::path::Path::new("/usr/bin/fusermount3").exists() {
        return daemon::skip("needs fusermount3 (package fuse3)");
    }
    place.ok("cp $(command -v setpriv) lift && chmod u+s lift");
    place.becomes("nobody");
    place.serve("freezer", &[]);
    place.ok("mkdir cg/a; for i in 1 2 3; do sleep 70 > /dev/null 2>&1 & echo $! > cg/a/tasks; done");
    place.ok(
        "sh -c 'echo $$ > cg/a/tasks; exec ./lift --reuid root sleep 71' > /dev/null 2>&1 & echo $! > one",
    );
    place.ok("for i in 1 2 3; do sleep 70 > /dev/null 2>&1 & echo $! > cg/a/tasks; done");
    place.until("grep -q '^Uid:.0.0.0' /proc/$(cat one)/status");
    place.ok("echo FROZEN > cg/a/freezer.state");
    place.until("[ $(for p in $(cat cg/a/tasks); do grep '^State:.T' /proc/$p/status; done | wc -l) = 6 ]");
    assert_eq!(place.ok("cat cg/a/freezer.state"), "FREEZING\n");
    assert!(place.log().contains("cannot be stopped"), "{}", place.log());
    place.ok("echo THAWED > cg/a/freezer.state; cat cg/a/freezer.state | grep -qx THAWED");
    place.until("[ $(for p in $(cat cg/a/tasks); do grep '^State:.S' /proc/$p/status; done | wc -l) = 7 ]");
    assert!(!place.script("$PINFOLD kill /a").status.success(), "one cannot be killed");
    place.until("[ \"$(cat cg/a/tasks)\" = \"$(cat one)\" ]");
    place.down();
}

#[test]
fn a_narrower_choice_of_cpus_is_a_members_own() {
    let Some([_outer, mut place]) = controlled() else { return };
    if !place.script("taskset -c 0,1 true").status.success() {
        return daemon::skip("needs two CPUs");
    }
    let allowed =
        |who: &str| place.ok(&format!("grep Cpus_allowed_list /proc/$(cat {who})/status | cut -f2"));
    place.ok("mkdir cg/b && echo 0 > cg/b/cpuset.cpus && cat cg/cpuset.mems > cg/b/cpuset.mems");
    place.ok("echo 0-1 > cg/a/cpuset.cpus");
    place.ok("sleep 70 > /dev/null 2>&1 & echo $! > wide; sleep 71 > /dev/null 2>&1 & echo $! > strayed
        cat wide > cg/a/tasks; cat strayed > cg/b/tasks; taskset -pc 1 $(cat wide); taskset -pc 1 $(cat strayed)");
    // A look has been since.
    place.until("grep -qP 'allowed_list:\\t0$' /proc/$(cat strayed)/status");
    assert_eq!(allowed("wide"), "1\n", "it is still within its group's");
    place.ok("sh -c 'echo $$ > cg/a/tasks; taskset -pc 1 $$; sleep 72 & echo $! > born' > /dev/null 2>&1");
    place.ok("taskset -pc 1 $(cat strayed)");
    place.until("grep -qP 'allowed_list:\\t0$' /proc/$(cat strayed)/status");
    assert_eq!(allowed("born"), "1\n", "inherited");
    place.ok("echo 0 > cg/a/cpuset.cpus; echo 0-1 > cg/a/cpuset.cpus");
    assert_eq!(allowed("wide"), "0-1\n", "another choice of the group's is for everybody");
    place.down();
}

#[test]
fn a_group_has_its_cpus_for_those_who_come_and_those_who_are_born() {
    let Some([_outer, mut place]) = controlled() else { return };
    let allowed = "grep Cpus_allowed_list /proc/$(cat one)/status | cut -f2";
    place.ok("sh -c 'echo $$ > cg/a/tasks; echo $$ > one; while :; do (:); done' > /dev/null 2>&1 &");
    place.until("[ -s one ]");
    let all = place.ok(allowed);
    place.ok("echo 0 > cg/a/cpuset.cpus");
    assert_eq!(place.ok(allowed), "0\n");
    place.ok(
        "sleep 70 > /dev/null 2>&1 & echo $! > cg/a/tasks; grep -qP 'allowed_list:\\t0$' /proc/$!/status",
    );
    if all != "0\n" {
        // It has itself bound elsewhere: not for long.
        place.ok("taskset -pc 1 $(cat one)");
        place.until(&format!("[ $({allowed}) = 0 ]"));
    }
    let status = place.ok("$PINFOLD status /a");
    let of = |key: &str| status.lines().find(|line| line.contains(key)).unwrap_or_default().trim_end();
    assert!(of(" cpuset.cpus ").ends_with("user space"), "{status}");
    assert!(of(" cpuset.mems ").contains("stored only"), "{status}");
    place.ok("cat one > cg/tasks");
    assert_eq!(place.ok(allowed), all);
    place.down();
}

#[test]
fn cpu_time_is_counted_also_of_children_that_came_and_went() {
    let Some([outer, mut place]) = controlled() else { return };
    let burn = "i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done";
    // What the shell and its children have used, in ticks: fields 14 to 17 of its stat.
    let used = "set -- $(sed \"s/.*) //\" /proc/$$/stat); echo $((${12} + ${13} + ${14} + ${15})) > used";
    place.ok(&format!(
        "burn='{burn}' sh -c 'echo $$ > cg/a/tasks; for n in 1 2 3 4 5 6; do sh -c \"$burn\"; done; {used}; exec sleep 70' > /dev/null 2>&1 &"
    ));
    place.until("[ -s used ]");
    let number = |script: &str| place.ok(script).trim().parse::<u64>().expect("a number");
    let (used, usage) = (number("cat used"), number("cat cg/a/cpuacct.usage"));
    let ticks = usage / 10_000_000;
    // What it used to say so comes on top.
    assert!(used > 5 && ticks + 2 >= used && ticks <= used + 10, "{ticks} ticks, the shell says {used}");
    // It stays when nobody is left, and when the daemon was killed.
    place.ok("$PINFOLD kill /a");
    place.until("[ -z \"$(ls state/cells)\" ]");
    assert!(number("cat cg/a/cpuacct.usage") >= usage);
    place.kill_daemon();
    serve_below(&outer, &mut place);
    assert!(place.ok("cat cg/a/cpuacct.usage").trim().parse::<u64>().expect("a number") >= usage);
    place.ok("echo 0 > cg/a/cpuacct.usage");
    assert_eq!(place.ok("cat cg/a/cpuacct.usage"), "0\n");
    place.down();
}

#[test]
fn cpu_time_that_was_told_is_not_lost_with_the_daemon() {
    let Some([outer, mut place]) = controlled() else { return };
    place.ok("sh -c 'echo $$ > cg/a/tasks; while :; do (:); done' > /dev/null 2>&1 & echo $! > one");
    place.until("[ $(cat cg/a/cpuacct.usage) -gt 300000000 ]");
    let number = |place: &Place| place.ok("cat cg/a/cpuacct.usage").trim().parse::<u64>().expect("a number");
    let told = number(&place);
    place.kill_daemon();
    place.ok("kill -9 $(cat one)");
    place.until("! [ -e /proc/$(cat one) ]");
    serve_below(&outer, &mut place);
    let now = number(&place);
    assert!(now >= told, "{now} after {told}");
    place.down();
}

#[test]
fn whoever_is_born_above_the_limit_of_pids_is_killed_and_counted() {
    let Some([_outer, mut place]) = controlled() else { return };
    place.ok("echo 3 > cg/a/pids.max");
    place.ok(
        "sh -c 'echo $$ > cg/a/tasks; sleep 70 & sleep 71 & sleep 72 & wait $!; echo $? > status; exec sleep 73' > /dev/null 2>&1 &",
    );
    place.until("[ -s status ]");
    assert_eq!(place.ok("cat status"), "137\n", "killed where fork would have failed");
    assert_eq!(place.ok("cat cg/a/pids.events cg/a/pids.current"), "max 1\n3\n");
    // A process that comes may bring the group above its limit.
    place.ok("sleep 74 > /dev/null 2>&1 & echo $! > cg/a/tasks");
    assert_eq!(place.ok("cat cg/a/pids.current"), "4\n");
    place.down();
}

/// The kernel's v2 tree has no directory for the groups that a process could be born in.
#[test]
fn restarted_processes_are_in_their_groups_when_they_begin_to_run() {
    let Some(mut place) = Place::nest() else { return };
    place.serve("none,name=mine", &[]);
    place.ok("mkdir cg/a cg/a/b
        (setsid sleep 700 & echo $! > one; setsid sleep 700 & echo $! > two; sleep 700 & echo $! > three) > /dev/null 2>&1
        cat one > cg/a/tasks; cat two > cg/a/tasks; cat three > cg/a/b/tasks");
    let facts = "for pid in $(cat one two three); do $PINFOLD proc cgroup $pid; grep -E '^(NSpid|NSsid)' /proc/$pid/status; done";
    let before = place.ok(facts);
    assert_eq!(before.matches(":/a/b").count(), 1, "{before}");
    place.ok("$PINFOLD capture /a -o file && $PINFOLD kill /a");
    place.until("[ -z \"$(cat cg/a/tasks cg/a/b/tasks)\" ]");
    let born = "$PINFOLD proc cgroup $$ > born.$$; exec sleep 700";
    place.ok(&format!("$PINFOLD restart file --detach -- sh -c '{born}' > /dev/null 2>&1"));
    place.until("[ -s born.$(cat one) ] && [ -s born.$(cat two) ] && [ -s born.$(cat three) ]");
    assert_eq!(place.ok("cat born.$(cat one) born.$(cat three)").matches(":/a").count(), 2);
    assert_eq!(
        place.ok("for pid in $(cat one two three); do cat born.$pid; done"),
        place.ok("for pid in $(cat one two three); do $PINFOLD proc cgroup $pid; done")
    );
    assert_eq!(place.ok(facts), before);
    place.ok("$PINFOLD kill /a");
    place.until("rmdir cg/a/b && rmdir cg/a");
    place.down();
}
