//! files: the descriptors of a group, bounded from user space by the limits of its processes.

use crate::daemon::{self, Daemon, eventually, readable, skip, text};
use crate::tracked::Place;
use pinfold_model::HostPid;

/// A realm that serves controller files, where a limit of another process can be set and raised again.
fn serving() -> Option<Daemon> {
    if can_limit() { Daemon::serving("files:cg") } else { None }
}

fn can_limit() -> bool {
    let can = pinfold_kernel::inspect::resource_limits();
    if !can {
        skip("needs the guest");
    }
    can
}

/// The soft and the hard limit on descriptors of a process.
fn limits(pid: u32) -> (u64, u64) {
    let text = std::fs::read_to_string(format!("/proc/{pid}/limits")).expect("the process lives");
    let line = text.lines().find(|line| line.starts_with("Max open files")).expect("a line of it");
    let mut numbers = line.split_ascii_whitespace().skip(3).map(|word| word.parse().expect("a number"));
    (numbers.next().expect("soft"), numbers.next().expect("hard"))
}

fn status(daemon: &Daemon, group: &str) -> String {
    let status: serde_json::Value =
        serde_json::from_str(&daemon.ok(&["status", group, "--json"])).expect("JSON");
    let limit = status.as_array().expect("a list").iter().find(|setting| setting["key"] == "files.max");
    limit.expect("a row")["enforced"].as_str().expect("words").to_owned()
}

/// Opens files up to number 39, and one more.
const OPEN_ALL: &str =
    "for i in {3..39}; do eval \"exec $i</dev/null\" || exit; done; echo all; : </dev/null && echo more";

/// Opens as many files as no part allows at first, and tries again until they are open. By itself: where `python3` is a script that
/// starts others, these have parts as well.
const OPEN_MANY: &str =
    "exec 2>/dev/null; fd=0; while ((fd < 150)); do exec {fd}</dev/null; done; echo done; exec sleep 600";

#[test]
fn a_process_opens_no_more_than_its_group_may_have() {
    let Some(mut daemon) = serving() else { return };
    daemon.ok(&["create", "/a"]);
    daemon.ok(&["set", "/a", "files.limit=40"]);
    assert_eq!(daemon.read("cg/a/files.max"), "40\n");
    let in_group = |script: &str| daemon.pinfold(&["exec", "-g", "/a", "--", "bash", "-c", script]);
    let opened = in_group(OPEN_ALL);
    assert_eq!(text(&opened.stdout), "all\n", "{}", text(&opened.stderr));
    assert!(text(&opened.stderr).contains("Too many open files"), "{}", text(&opened.stderr));
    // The program that is executed has the same limit, and cannot raise it without a capability that root has.
    let raise = "setpriv --bounding-set -sys_resource bash -c 'ulimit -n 41; ulimit -n; exec 3<&0 50<&3'";
    let raised = in_group(&format!("exec {raise}"));
    assert_eq!(text(&raised.stdout), "40\n");
    assert!(text(&raised.stderr).contains("Operation not permitted"), "{}", text(&raised.stderr));
    assert!(text(&raised.stderr).contains("Bad file descriptor"), "number 50: {}", text(&raised.stderr));
    daemon.write("cg/a/files.max", "max").unwrap();
    let free = text(&in_group("ulimit -n").stdout);
    assert_ne!(free, "40\n");
    assert_eq!(daemon.read("cg/a/files.current"), "0\n");
    daemon.down();
}

#[test]
fn one_who_needs_more_gets_what_others_do_not_use() {
    let Some(mut daemon) = serving() else { return };
    daemon.ok(&["create", "-p", "/a/b"]);
    daemon.ok(&["set", "/a", "files.limit=200"]);
    daemon.ok(&["set", "/a/b", "files.max=30"]);
    let sleepers = [daemon.sleeper(), daemon.sleeper()];
    let [idle, below] = [sleepers[0].pid(), sleepers[1].pid()];
    daemon.ok(&["move", &idle.to_string(), "/a"]);
    daemon.ok(&["move", &below.to_string(), "/a/b"]);
    assert_eq!(limits(below), (30, 30), "what is below is bounded by both");
    assert_eq!(status(&daemon, "/a"), "user space, over 2 processes");
    let mut command = daemon.command(daemon::BINARY);
    command.args(["exec", "-g", "/a", "--", "bash", "-c", OPEN_MANY]).stdout(std::process::Stdio::piped());
    let mut hungry = command.spawn().expect("timeout runs");
    assert!(readable(hungry.stdout.take().expect("a pipe")), "nobody gave way: {}", daemon.log());
    let found = daemon.numbers("cg/a/tasks");
    assert_eq!(found.len(), 2, "one that sleeps and one that has opened files");
    let pid = found.into_iter().find(|pid| *pid != idle).expect("the other one");
    let open: u64 = daemon.read("cg/a/files.current").trim().parse().unwrap();
    assert!((140..=200).contains(&open), "{open}");
    // Each alone may change between two looks; their sum does not rise.
    eventually("the parts do not sum to more than the limit", || {
        limits(pid).0 + limits(idle).0 + limits(below).0 <= 200
    });
    assert!(limits(pid).0 >= 150, "{:?}", limits(pid));
    daemon.ok(&["kill", "/a"]);
    hungry.wait().expect("it is our child");
    daemon.down();
}

#[test]
fn a_process_gets_its_own_limit_back_whatever_happens_to_the_daemon() {
    let Some(mut daemon) = serving() else { return };
    let sleeper = daemon.sleeper();
    let (pid, own) = (sleeper.pid(), limits(sleeper.pid()));
    let name = pid.to_string();
    daemon.ok(&["create", "-p", "/a/b"]);
    daemon.ok(&["move", &name, "/a/b"]);
    daemon.ok(&["set", "/a", "files.max=50"]);
    assert_eq!((limits(pid), status(&daemon, "/a").as_str()), ((50, 50), "user space, over 1 processes"));
    daemon.ok(&["move", &name, "/"]);
    assert_eq!(limits(pid), own, "it has left the group");
    daemon.ok(&["move", &name, "/a"]);
    daemon.ok(&["set", "/a", "files.max=max"]);
    assert_eq!(limits(pid), own, "the limit is lifted");
    daemon.ok(&["set", "/a", "files.max=60"]);
    daemon.kill();
    assert_eq!(limits(pid), (60, 60), "nobody needs to run for it to hold");
    daemon.serve("files:cg");
    assert_eq!((limits(pid), daemon.read("cg/a/files.max").as_str()), ((60, 60), "60\n"));
    assert_eq!(status(&daemon, "/a"), "user space, over 1 processes");
    daemon.ok(&["set", "/a", "files.max=70"]);
    assert_eq!(limits(pid), (70, 70));
    daemon.down();
    assert_eq!(limits(pid), own, "the realm has ended");
}

#[test]
fn children_have_a_part_and_their_parents_own_limit() {
    let Some(mut daemon) = serving() else { return };
    daemon.ok(&["create", "/a"]);
    daemon.ok(&["set", "/a", "files.max=90"]);
    let script = "ulimit -n 1000; echo $$ > cg/a/tasks; for i in 1 2; do (ulimit -Sn 20; exec sleep 600) & done; sleep 600 & wait";
    let parent = daemon.sleeper_by(&format!("cd '{}' && {script}", daemon.path("").display()));
    eventually("everybody is there", || daemon.numbers("cg/a/tasks").len() == 4);
    let members = || daemon.numbers("cg/a/tasks");
    eventually("everybody has a part", || status(&daemon, "/a") == "user space, over 4 processes");
    eventually("the parts do not sum to more than the limit", || {
        members().into_iter().map(|pid| limits(pid).1).sum::<u64>() <= 90
    });
    daemon.write("cg/a/files.max", "max").unwrap();
    let mut after: Vec<_> = members().into_iter().map(limits).collect();
    after.sort_unstable();
    assert_eq!(after, [(20, 1000), (20, 1000), (1000, 1000), (1000, 1000)], "two have set one themselves");
    daemon.ok(&["kill", "/a"]);
    drop(parent);
    daemon.down();
}

#[test]
fn a_child_that_is_moved_at_once_has_its_parents_own_limit() {
    let Some(mut daemon) = serving() else { return };
    daemon.ok(&["create", "/a"]);
    daemon.ok(&["create", "/free"]);
    daemon.ok(&["create", "/bound"]);
    daemon.ok(&["set", "/a", "files.max=400"]);
    daemon.ok(&["set", "/bound", "files.max=200"]);
    // Each child attaches itself, as launchers do, before the next look can have found it. Many, as a look may be due.
    let child = |group: &str| format!("(echo 0 > cg/{group}/tasks; exec sleep 600) &");
    let script = format!(
        "ulimit -n 1000; echo $$ > cg/a/tasks; for i in 1 2 3; do {} {} done; sleep 600 & wait",
        child("free"),
        child("bound")
    );
    let parent = daemon.sleeper_by(&format!("cd '{}' && {script}", daemon.path("").display()));
    let members = |group: &str| daemon.numbers(&format!("cg/{group}/tasks"));
    let limits_in = |group: &str| members(group).into_iter().map(limits).collect::<Vec<_>>();
    eventually("everybody is there", || members("free").len() == 3 && members("bound").len() == 3);
    eventually("all that left have their own limit", || limits_in("free") == [(1000, 1000); 3]);
    eventually("the others have parts", || {
        limits_in("bound").iter().map(|limit| limit.1).sum::<u64>() <= 200
    });
    daemon.write("cg/bound/files.max", "max").unwrap();
    assert_eq!(limits_in("bound"), [(1000, 1000); 3]);
    for group in ["/a", "/free", "/bound"] {
        daemon.ok(&["kill", group]);
    }
    drop(parent);
    daemon.down();
}

#[test]
fn a_process_that_has_the_number_of_another_is_left_alone() {
    let Some(mut daemon) = serving() else { return };
    let started =
        |pid| pinfold_kernel::process::start_time(HostPid::new(pid).expect("a number")).expect("it lives");
    let limited = daemon.sleeper();
    // Starts are told apart by the clock's tick.
    let is_later = |other: &daemon::Sleeper| started(other.pid()) != started(limited.pid());
    let stranger = std::iter::repeat_with(|| daemon.sleeper()).find(is_later).expect("time goes by");
    daemon.ok(&["create", "/a"]);
    daemon.ok(&["set", "/a", "files.max=50"]);
    daemon.ok(&["move", &limited.pid().to_string(), "/a"]);
    let own = limits(stranger.pid());
    daemon.kill();
    // As if the limited process had ended, and a new one had its number.
    let records = daemon.state().join("descriptors");
    let record = std::fs::read_to_string(records.join(limited.pid().to_string())).unwrap();
    let of_stranger = records.join(stranger.pid().to_string());
    std::fs::write(&of_stranger, record.replace("soft=", "soft=1").replace("hard=", "hard=1")).unwrap();
    limited.end();
    daemon.serve("files:cg");
    assert_eq!(limits(stranger.pid()), own);
    assert_eq!(std::fs::read_dir(&records).unwrap().count(), 0, "nobody is limited");
    daemon.down();
    assert_eq!(limits(stranger.pid()), own);
}

#[test]
fn it_is_refused_where_it_could_not_hold() {
    let Some(mut daemon) = Daemon::new() else { return };
    let mount =
        |daemon: &Daemon| vec!["--mount".to_owned(), format!("files:{}", daemon.dir.join("cg").display())];
    let without = ["setpriv", "--bounding-set", "-sys_resource", "--"];
    let arguments = mount(&daemon);
    let refused = daemon.try_serve_through(&without, &arguments).unwrap_err();
    assert!(text(&refused.stderr).contains("CAP_SYS_RESOURCE"), "{}", text(&refused.stderr));
    if !pinfold_kernel::inspect::resource_limits() {
        return;
    }
    let strict = [vec!["--strict".to_owned()], arguments].concat();
    daemon.try_serve(&strict).expect("with every right, it is served");
    daemon.ok(&["create", "/a"]);
    assert_eq!(daemon.write("cg/a/files.max", "5").unwrap_err().raw_os_error(), Some(16));
    assert!(daemon.refused(&["set", "/a", "files.max=5"]).contains("strict"));
    daemon.ok(&["set", "/a", "files.max=max"]);
    daemon.kill();
    daemon.try_serve_through(&without, &[]).expect("what there is stays");
    assert!(status(&daemon, "/a").contains("CAP_SYS_RESOURCE"), "{}", status(&daemon, "/a"));
    daemon.down();
}

#[test]
fn without_a_v2_tree_descriptors_are_limited_in_the_same_way() {
    if !can_limit() {
        return;
    }
    let Some(mut place) = Place::nest() else { return };
    place.serve("files", &[]);
    let limits = "grep '^Max open files' /proc/$(cat one)/limits | xargs | cut -d ' ' -f 4,5";
    place.ok("mkdir cg/a; sleep 600 > /dev/null 2>&1 & echo $! > one; cat one > cg/a/tasks");
    let own = place.ok(limits);
    place.ok("echo 20 > cg/a/files.max");
    assert_eq!(place.ok(limits), "20 20\n");
    assert_eq!(place.ok("cat cg/a/files.current"), "3\n");
    assert!(place.ok("$PINFOLD status /a").contains("user space, over 1 processes"));
    let opened = place.script(&format!("echo $$ > cg/a/tasks; {OPEN_ALL}"));
    let said = text(&opened.stderr);
    assert!(!opened.status.success() && said.contains("Too many open files"), "{said}");
    place.until("[ $(wc -l < cg/a/tasks) = 1 ]");
    // A child has a copy of its parent's part until it is seen.
    place.ok("sh -c 'echo $$ > cg/a/tasks; sleep 601 & exec sleep 602' > /dev/null 2>&1 &");
    let parts = "for p in $(cat cg/a/tasks); do grep '^Max open files' /proc/$p/limits; done";
    place.until(&format!("[ \"$({parts} | awk '{{ all += $5 }} END {{ print all, NR }}')\" = '20 3' ]"));
    place.kill_daemon();
    place.serve("files", &[]);
    assert_eq!(place.ok("cat cg/a/files.max"), "20\n");
    place.ok("cat one > cg/tasks");
    assert_eq!(place.ok(limits), own);
    place.down();
}

#[test]
fn a_user_without_rights_has_no_limits_on_descriptors_and_is_told_why() {
    let Some(mut place) = Place::nest() else { return };
    if !std::path::Path::new("/usr/bin/fusermount3").exists() {
        return skip("needs fusermount3 (package fuse3)");
    }
    place.becomes("nobody");
    place.serve("none,name=mine", &[]);
    place.ok("mkdir other");
    let refused = place.script("$PINFOLD mount -o files other");
    let said = text(&refused.stderr);
    assert!(!refused.status.success() && said.contains("takes CAP_SYS_RESOURCE"), "{said}");
    assert!(place.ok("$PINFOLD controllers").contains("takes CAP_SYS_RESOURCE"));
    place.down();
}
