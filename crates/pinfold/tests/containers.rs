//! One daemon for containers at any depth: what they are given they divide as they like; nobody gets out of it.

use std::ffi::OsString;
use std::fs::{DirEntry, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, waitid};

use crate::cgmanager::{daemon_for_cgmanager, ready, shows};
use crate::container::{FIRST, Shell};
use crate::daemon::{self, BINARY, Daemon, kernel_tells};
use crate::descriptors::Gate;

/// A user of the host's.
const BOB: u32 = 54_321;

/// A realm with a group for a container, and one like it for another container of the same users.
fn realm_with_two_containers() -> Option<Daemon> {
    let mut daemon = Daemon::new()?;
    daemon.serve("all:cg");
    let owner = format!("{FIRST}:{FIRST}");
    for group in ["/c", "/d"] {
        daemon.ok(&["create", group]);
        daemon.ok(&["chown", &owner, group]);
    }
    Some(daemon)
}

#[test]
fn a_container_divides_what_it_was_given() {
    let Some(mut daemon) = realm_with_two_containers() else { return };
    let mut root = Shell::of_container(&daemon, "/c");
    root.ok("create web");
    root.ok("create -p web/a/b");
    assert_eq!(daemon.ok(&["tree"]).lines().filter(|line| line.contains("web")).count(), 1);
    // Its own numbers of processes and of users, and names from its own group.
    root.run("sleep 600 & sleeper=$!; echo $sleeper");
    root.ok("move $! web");
    assert_eq!(root.ok("tasks web"), root.run("echo $!").text);
    assert!(
        root.ok("proc cgroup $!").lines().all(|line| line.ends_with(":web")),
        "it sees where its process is"
    );
    root.ok("chown 7:7 web/a");
    assert!(root.ok("ls -l web").contains("7     7 a/"), "{}", root.ok("ls -l web"));
    assert!(daemon.ok(&["ls", "-l", "/c/web"]).contains("100007 100007 a/"));
    // Limits of what it made are its own to set.
    root.ok("set web notify_on_release=1");
    root.ok("freeze web");
    root.ok("thaw web");
    // A user in the container, with what root in the container gave him.
    root.enter("setpriv --reuid 7 --regid 7 --clear-groups");
    root.refused("create web/x", "EACCES");
    root.ok("create web/a/mine");
    root.run("sleep 600 & echo");
    root.ok("move $! web/a/mine");
    root.refused("move 1 web/a/mine", "EACCES");
    root.refused("set web/a notify_on_release=1", "EPERM");
    root.leave();
    root.ok("kill web");
    root.run("wait");
    root.ok("rm -r web");
    assert!(daemon.ok(&["ls", "/c"]).lines().all(|line| !line.contains("web")));
    drop(root);
    daemon.ok(&["rm", "-r", "/c"]);
    daemon.down();
}

#[test]
fn a_container_in_a_container_needs_no_proxy() {
    let Some(mut daemon) = realm_with_two_containers() else { return };
    let mut shell = Shell::of_container(&daemon, "/c");
    // The socket's directory, where a container looks for it: nothing else of the daemon is there.
    let public = format!("{}.public", daemon.state().display());
    for command in [
        "mount -t tmpfs tmpfs /run",
        "mkdir -p /run/pinfold/default.public",
        &format!("mount --bind {public} /run/pinfold/default.public"),
        "unset PINFOLD_STATE",
    ] {
        let said = shell.run(command);
        assert_eq!(said.status, 0, "{command}: {}", said.text);
    }
    shell.ok("create inner");
    shell.ok("chown 7:7 inner");
    // Nobody of the inner container is in the host's range but user 7 of the outer one.
    shell.run("sh -c 'sleep 600' & echo");
    shell.ok("exec -g inner -- true");
    let unshare = "unshare --user --map-root-user --pid --fork --kill-child --mount-proc";
    shell.enter(&format!("$pinfold exec -g inner -- setpriv --reuid 7 --regid 7 --clear-groups {unshare}"));
    assert_eq!(shell.run("id -u").text, "0\n");
    assert!(shell.ok("proc cgroup").lines().all(|line| line.ends_with(":.")), "it is in its own group");
    shell.ok("create job");
    shell.run("sleep 600 & echo");
    shell.ok("move $! job");
    assert_eq!(shell.ok("tasks job"), shell.run("echo $!").text);
    shell.ok("set job notify_on_release=1");
    shell.refused("set . notify_on_release=1", "EPERM");
    shell.refused("freeze .", "EPERM");
    shell.refused("create ../x", "usage");
    shell.refused("create /c/x", "EPERM");
    shell.refused("chown 1 job", "EPERM");
    assert_eq!(daemon.ok(&["tasks", "/c/inner/job"]).lines().count(), 1);
    shell.ok("rm -r job");
    shell.leave();
    drop(shell);
    daemon.ok(&["rm", "-r", "/c"]);
    daemon.down();
}

/// Everything that must not change, as the host's root sees it.
fn everything(daemon: &Daemon) -> String {
    let mut all = daemon.ok(&["tree", "--json"]);
    for group in ["/", "/c", "/c/web", "/d"] {
        all += &daemon.ok(&["ls", "-l", group]);
        all += &daemon.ok(&["get", group, "notify_on_release", "cgroup.clone_children"]);
    }
    for group in ["/c", "/c/web", "/d"] {
        all += &daemon.ok(&["get", group, "freezer.state"]);
    }
    all + &daemon.ok(&["tasks", "/c/web"]) + &daemon.ok(&["tasks", "/d"])
}

/// Begins to listen in a container; `events` there has what is told.
fn listens(shell: &mut Shell, scope: &str) {
    let listen = format!("timeout 60 $pinfold events --json {scope} >$events 2>&1 & listener=$!");
    shell.run(&format!(
        "events=$(mktemp); {listen}; until grep -q synced $events; do [ -e /proc/$! ] || break; done"
    ));
}

/// Ends to listen once this was told; everything that was.
fn heard(shell: &mut Shell, last: &str) -> Vec<String> {
    shell.run(&format!("until grep -q '{last}' $events; do [ -e /proc/$listener ] || break; done; kill $listener; wait $listener"));
    let lines: Vec<String> = shell.run("cat $events; rm $events").text.lines().map(str::to_owned).collect();
    assert!(lines.iter().any(|line| line.contains(last)), "no {last}: {lines:#?}");
    lines
}

/// Of what is told in a container: events with their numbers.
fn in_short(lines: &[String]) -> Vec<String> {
    let field = |line: &str, name: &str| {
        let rest = line.split_once(&format!("\"{name}\":"))?.1;
        Some(rest.split([',', '}']).next()?.trim_matches('"').to_owned())
    };
    let short = |line: &String| {
        let words = ["event", "pid", "parent", "signal", "found"].map(|name| field(line, name));
        words.into_iter().flatten().collect::<Vec<_>>().join(" ")
    };
    lines.iter().map(short).collect()
}

/// A process and a group, as somebody in a container calls them; `group` is the same as the host calls it.
fn streams_have_a_containers_own(daemon: &Daemon, shell: &mut Shell, group: &str) {
    let mut born = || {
        shell.run("sleep 600 & sleeper=$!");
        shell.run("echo $sleeper").text.trim().to_owned()
    };
    let (first, second) = (born(), born());
    let own = shell.run("echo $$").text.trim().to_owned();
    shell.ok("create web");
    // One process, whoever its parent is.
    listens(shell, &format!("--pid {first}"));
    shell.run(&format!("kill {second}; kill {first}"));
    let lines = heard(shell, "\"exit\"");
    let parent = format!("found {first} {own}");
    assert_eq!(in_short(&lines), [parent, "synced 1".to_owned(), format!("exit {first} 15")], "{lines:#?}");
    // Oneself is 0 nowhere but over D-Bus; and who is not there in one's own numbers is nobody.
    let host = std::process::id().to_string();
    for nobody in ["4000000", &host] {
        let said = shell.run(&format!("timeout 60 $pinfold events --pid {nobody}"));
        assert_eq!((said.status, said.text), (1, format!("pinfold: no process {nobody} (ESRCH)\n")));
    }
    // A group below one's own, and in it only who can be seen from here.
    shell.run("sleep 600 & sleeper=$!");
    let third = shell.run("echo $sleeper").text.trim().to_owned();
    shell.ok(&format!("move {third} web"));
    let unseen = daemon.sleeper();
    daemon.ok(&["move", &unseen.pid().to_string(), &format!("{group}/web")]);
    listens(shell, "--group web");
    unseen.end();
    shell.run(&format!("kill {third}"));
    let lines = heard(shell, "\"exit\"");
    let found = format!("found {third} {own}");
    assert_eq!(in_short(&lines), [found, "synced 1".to_owned(), format!("exit {third} 15")], "{lines:#?}");
    // Whoever is moved out by the host is not told of there any more; one's own group is called `.`.
    shell.run("sleep 600 & sleeper=$!");
    let fourth = shell.run("echo $sleeper").text.trim().to_owned();
    shell.ok(&format!("move {fourth} web"));
    listens(shell, "--group .");
    let outside = daemon.ok(&["tasks", &format!("{group}/web")]);
    daemon.ok(&["move", outside.trim(), "/d"]);
    let lines = heard(shell, "\"left\"");
    assert!(in_short(&lines).contains(&format!("left {fourth}")), "{lines:#?}");
    listens(shell, "--group .");
    shell.run(&format!("kill {fourth}; wait {fourth}"));
    let lines = heard(shell, "\"code\":0");
    assert!(!lines.iter().any(|line| line.contains(&format!("\"pid\":{fourth},"))), "{lines:#?}");
    // What is not below is not there, whether it is or not.
    for elsewhere in ["/d", "/nowhere", "/"] {
        let said = shell.run(&format!("timeout 60 $pinfold events --group {elsewhere}"));
        assert!(said.status == 1 && said.text.contains("(EPERM)"), "{elsewhere}: {said:?}");
        let same = shell.run("timeout 60 $pinfold events --group /nowhere").text;
        assert_eq!(said.text, same.replace("/nowhere", elsewhere));
    }
    shell.refused("events --group nowhere", "ENOENT");
    shell.refused("events --group ../d", "usage");
    shell.ok("rm web");
}

#[test]
fn a_stream_in_a_container_is_of_its_own_processes_and_groups_one_and_two_deep() {
    if !kernel_tells() {
        return;
    }
    let Some(mut daemon) = realm_with_two_containers() else { return };
    let mut shell = Shell::of_container(&daemon, "/c");
    streams_have_a_containers_own(&daemon, &mut shell, "/c");
    shell.ok("create inner");
    shell.ok("chown 7:7 inner");
    let unshare = "unshare --user --map-root-user --pid --fork --kill-child --mount-proc";
    shell.enter(&format!("$pinfold exec -g inner -- setpriv --reuid 7 --regid 7 --clear-groups {unshare}"));
    streams_have_a_containers_own(&daemon, &mut shell, "/c/inner");
    shell.leave();
    drop(shell);
    daemon.down();
}

#[test]
fn every_way_out_of_a_container_is_shut() {
    let Some(mut daemon) = realm_with_two_containers() else { return };
    let foreign = daemon.sleeper();
    daemon.ok(&["move", &foreign.pid().to_string(), "/d"]);
    let mut root = Shell::of_container(&daemon, "/c");
    root.ok("create web");
    root.run("sleep 600 & echo");
    let before = everything(&daemon);
    let foreign_pid = foreign.pid().to_string();
    // Paths, as no client of ours would send them.
    for (call, errno) in [
        ("ListKeys string:..", "EINVAL"),
        ("ListKeys string:../d", "EINVAL"),
        ("Delete string:../d", "EINVAL"),
        ("Delete string:web/../../d", "EINVAL"),
        ("Kill string:..", "EINVAL"),
        ("Kill string:./../d", "EINVAL"),
        ("Freeze string:web/../..", "EINVAL"),
        ("Status string:/d", "EPERM"),
        ("Kill string://d", "EPERM"),
        ("Kill string:d", "ENOENT"),
    ] {
        let (method, argument) = call.split_once(' ').expect("there is one");
        let object = "/org/pinfold/Manager org.pinfold.Manager1";
        let said = root.run(&format!(
            "dbus-send --peer=unix:path=$PINFOLD_STATE.public/socket --print-reply {object}.{method} {argument}"
        ));
        if said.status == 127 {
            daemon::skip("needs dbus-send");
            break;
        }
        assert!(said.text.contains(&format!("org.pinfold.Error.{errno}")), "{call}: {}", said.text);
    }
    for (what, errno) in [
        // Paths, as ours does not send them.
        ("create ..", "usage"),
        ("create ../d/x", "usage"),
        ("create web/../../x", "usage"),
        ("create ./x", "usage"),
        ("create /d/x", "EPERM"),
        ("create //d/x", "EPERM"),
        ("create 'web/tasks'", "EEXIST"),
        ("ls /", "EPERM"),
        ("ls /d", "EPERM"),
        ("tasks /", "EPERM"),
        ("tasks d", "ENOENT"),
        ("status /d", "EPERM"),
        ("get /d tasks", "EPERM"),
        ("rm -r /d", "EPERM"),
        ("rm -r .", "EBUSY"),
        ("rm .", "EPERM"),
        // Limits of the own group, and whatever else is set from above.
        ("set . notify_on_release=1", "EPERM"),
        ("set . cgroup.clone_children=1", "EPERM"),
        ("set . freezer.state=FROZEN", "EPERM"),
        ("set . cpuacct.usage=0", "EPERM"),
        ("freeze .", "EPERM"),
        ("thaw .", "EPERM"),
        ("set / release_agent=/bin/sh", "EPERM"),
        ("set . release_agent=/bin/sh", "ENOENT"),
        // Foreign groups.
        ("chown 0 /d", "EPERM"),
        ("kill /d", "EPERM"),
        ("kill /", "EPERM"),
        ("freeze /d", "EPERM"),
        // Foreign processes: they have no number here. 0x1 and 010 are no decimal numbers, which all pids are.
        (&format!("move {foreign_pid} web"), "ESRCH"),
        (&format!("set web cgroup.procs={foreign_pid}"), "ESRCH"),
        ("set web tasks=999999999", "ESRCH"),
        ("set web tasks=-1", "EINVAL"),
        ("move 1 /d", "EPERM"),
        ("move 1 /", "EPERM"),
        ("set /d tasks=1", "EPERM"),
        // Users that are not the container's.
        ("chown 1000 web", "EPERM"),
        ("chown 100000 web", "EPERM"),
        ("chown :5000 web", "EPERM"),
        // The daemon.
        ("down", "EPERM"),
    ] {
        root.refused(what, errno);
    }
    assert_eq!(everything(&daemon), before, "nothing has changed");
    drop(root);
    daemon.ok(&["rm", "-r", "/c"]);
    daemon.down();
}

#[test]
fn a_users_processes_come_only_from_below() {
    let Some(mut daemon) = realm_with_two_containers() else { return };
    daemon.ok(&["create", "-p", "/alice/x"]);
    daemon.ok(&["chown", "54321:54321", "/alice"]);
    daemon.ok(&["chown", "54321:54321", "/alice/x"]);
    let mut outside = Shell::of_user(&daemon, 54321, "/");
    let mut inside = Shell::of_user(&daemon, 54321, "/alice");
    let mut deeper = Shell::of_user(&daemon, 54321, "/alice/x");
    let pid_of = |shell: &mut Shell| shell.run("echo $$").text.trim_end().to_owned();
    let (out, deep) = (pid_of(&mut outside), pid_of(&mut deeper));
    let mut others = Shell::of_user(&daemon, 54322, "/alice/x");
    let other = pid_of(&mut others);
    // His own process, in a group that is not below his; somebody else's, below.
    inside.refused(&format!("move {out} ."), "EPERM");
    inside.refused(&format!("move {other} ."), "EACCES");
    inside.ok(&format!("move {deep} ."));
    // Who is deeper does not come up again, and cannot bring anybody from above.
    let mut deeper = Shell::of_user(&daemon, 54321, "/alice/x");
    let up = pid_of(&mut inside);
    deeper.refused(&format!("move {up} ."), "EPERM");
    deeper.refused("move $$ /alice", "EPERM");
    deeper.refused("move $$ ..", "usage");
    // In the root group nothing is his: he neither makes groups nor moves anybody there.
    outside.refused("create x", "EACCES");
    outside.refused("move $$ .", "EPERM");
    outside.refused("move $$ alice/y", "ENOENT");
    outside.refused("set . notify_on_release=1", "EPERM");
    outside.refused("set alice notify_on_release=1", "EPERM");
    // What root gave him was the group, not its settings; what is below is his to set.
    inside.refused("set . notify_on_release=1", "EPERM");
    inside.ok("set x notify_on_release=1");
    inside.ok("create y");
    inside.ok("set y notify_on_release=1");
    drop((outside, inside, deeper, others));
    daemon.ok(&["rm", "-r", "/alice"]);
    daemon.down();
}

/// As with `docker run --pid=host --cap-drop=ALL`: but for what it may do, nothing tells it from the host's root.
#[test]
fn root_without_privilege_is_no_root_of_the_host() {
    let Some(mut daemon) = realm_with_two_containers() else { return };
    let foreign = daemon.sleeper();
    daemon.ok(&["move", &foreign.pid().to_string(), "/d"]);
    let mut root = Shell::of_container_without_privilege(&daemon, "/c");
    assert_eq!(root.run("id -u; grep CapEff /proc/self/status").text, "0\nCapEff:\t0000000000000000\n");
    for (what, errno) in [
        ("move $$ /", "EPERM"),
        ("kill /d", "EPERM"),
        ("kill d", "ENOENT"),
        ("freeze .", "EPERM"),
        ("set . notify_on_release=1", "EPERM"),
        (&format!("move {} .", foreign.pid()), "EPERM"),
        ("down", "EPERM"),
    ] {
        root.refused(what, errno);
    }
    root.ok("create web");
    root.ok("move $$ web");
    root.leave();
    // With its privileges it is that.
    root.ok("ls /d");
    root.ok("move $$ /");
    assert_eq!(daemon.numbers("cg/d/tasks"), [foreign.pid()]);
    drop((root, foreign));
    daemon.ok(&["rm", "-r", "/c"]);
    daemon.down();
}

#[test]
fn nobody_kills_who_is_not_his() {
    let Some(mut daemon) = realm_with_two_containers() else { return };
    let mut root = Shell::of_container(&daemon, "/c");
    root.ok("create -p web/inner");
    root.run("sleep 600 & echo");
    root.ok("move $! web");
    // The host has a helper in there, as a container manager's is.
    let helper = daemon.sleeper();
    daemon.ok(&["move", &helper.pid().to_string(), "/c/web/inner"]);
    root.refused("kill web", "EPERM");
    assert_eq!(daemon.numbers("cg/c/web/inner/tasks"), [helper.pid()]);
    assert_eq!(daemon.numbers("cg/c/web/tasks").len(), 1, "nobody is killed, if not all are");
    daemon.ok(&["move", &helper.pid().to_string(), "/"]);
    root.ok("kill web");
    root.run("wait");
    assert!(daemon.numbers("cg/c/web/tasks").is_empty());
    drop(root);
    daemon.ok(&["rm", "-r", "/c"]);
    daemon.down();
}

/// As something that cleans up empty v2 directories does. A call that waited then for changes to be over would wait for itself.
#[test]
fn a_kill_does_not_wait_for_a_directory_that_another_program_has_removed() {
    let Some(mut daemon) = realm_with_two_containers() else { return };
    let mut root = Shell::of_container(&daemon, "/c");
    root.ok("create web");
    for _ in 0..10 {
        let sleeper = daemon.sleeper();
        daemon.ok(&["move", &sleeper.pid().to_string(), "/c/web"]);
        let leaf = sleeper.v2_path();
        let leaf = leaf.strip_prefix(&daemon.base.v2_path()).expect("below the base").trim_matches('/');
        let leaf = daemon.base.path().join(leaf);
        daemon.signal(Signal::STOP);
        sleeper.end();
        root.run("timeout 20 $pinfold kill web >&- 2>&- & echo");
        daemon::eventually("nobody is there", || std::fs::remove_dir(&leaf).is_ok());
        daemon.signal(Signal::CONT);
        assert_eq!(root.run("wait $!").status, 0);
    }
    drop(root);
    daemon.ok(&["rm", "-r", "/c"]);
    daemon.down();
}

/// The threads of the daemon that wait for another's lock.
fn waiting(daemon: &Daemon) -> Vec<OsString> {
    let threads = std::fs::read_dir(format!("/proc/{}/task", daemon.pid())).expect("it runs").flatten();
    let waits = |thread: &DirEntry| {
        let read = |file| std::fs::read_to_string(thread.path().join(file)).unwrap_or_default();
        read("comm").starts_with("dbus") && read("wchan").contains("futex")
    };
    threads.filter(waits).map(|thread| thread.file_name()).collect()
}

/// Calls that wait until the host has moved whoever makes them out of the group that their names begin at.
#[test]
fn who_is_moved_away_while_a_call_waits_has_it_refused() {
    const MOUNT: &str = "none,name=x:cg";
    const CALLS: [(&str, &str); 7] = [
        ("move $$ x", "ENOENT"),
        ("create x/new", "ENOENT"),
        ("rm x/old", "EPERM"),
        ("set x notify_on_release=1", "ENOENT"),
        ("chmod 700 x", "ENOENT"),
        ("chown 54321:54321 x", "ENOENT"),
        ("kill x", "ENOENT"),
    ];
    if !daemon::has_python() {
        return;
    }
    let Some(mut daemon) = Daemon::serving(MOUNT) else { return };
    for group in ["/bob", "/bob/x", "/bob/x/old"] {
        daemon.ok(&["create", group]);
        daemon.ok(&["chown", &format!("{BOB}:{BOB}"), group]);
    }
    daemon.ok(&["create", "/bob/jail"]);
    // Each has a v2 directory of its own, where the next daemon has nothing open.
    let jail = |number: usize| format!("/bob/jail/{number}");
    let keep = |number| {
        let keeper = daemon.sleeper();
        daemon.ok(&["create", &jail(number)]);
        daemon.ok(&["move", &keeper.pid().to_string(), &jail(number)]);
        keeper
    };
    let keepers: Vec<_> = (0..CALLS.len()).map(keep).collect();
    daemon.kill();
    daemon.serve(MOUNT);
    let tree = daemon.base.path().parent().expect("a base is below").to_owned();
    for (number, ((call, errno), keeper)) in CALLS.iter().zip(&keepers).enumerate() {
        let mut calling = Command::new("env");
        daemon.inside(&mut calling, "sh".as_ref());
        let user = format!("setpriv --reuid {BOB} --regid {BOB} --clear-groups");
        calling.arg("-c").arg(format!("read go; exec {user} {BINARY} {call}")).current_dir("/");
        let said = daemon.dir.join("said");
        let log = File::create(&said).expect("the directory is ours");
        let mut calling = calling.stdin(Stdio::piped()).stderr(log).spawn().expect("env runs");
        let pid = calling.id().to_string();
        daemon.ok(&["move", &pid, "/bob"]);
        let mut gate = Gate::at(&tree.join(&keeper.v2_path()[1..]).join("cgroup.procs"), 0);
        let mut moving = daemon.command(BINARY);
        let moving = moving.args(["move", &pid, &jail(number)]).spawn().expect("timeout runs");
        assert!(gate.holds_before(&moving), "{call}: it is moved without a look");
        let before = waiting(&daemon);
        writeln!(calling.stdin.take().expect("a pipe"), "go").expect("it reads");
        // It does not wait if somebody else opened the file first, and is held in the stead of the one who moves it.
        let caller = WaitId::Pid(Pid::from_child(&calling));
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let is_answered = || waitid(caller.clone(), options).is_ok_and(|ended| ended.is_some());
        let waits = || waiting(&daemon).iter().any(|thread| !before.contains(thread));
        daemon::eventually("the call waits", || waits() || is_answered());
        gate.opens();
        assert!(daemon::wait(moving).is_some_and(|status| status.success()), "{call}: it is moved");
        let status = daemon::wait(calling).expect("it is answered");
        let said = std::fs::read_to_string(said).expect("it was written");
        assert!(status.code() == Some(1) && said.contains(&format!("({errno})")), "{call}: {status}, {said}");
    }
    drop(keepers);
    daemon.ok(&["rm", "-r", "/bob"]);
    daemon.down();
}

/// Its own group is then the root, and everything is below that.
#[test]
fn a_container_that_is_in_no_group_has_none_below() {
    let Some(mut daemon) = realm_with_two_containers() else { return };
    let sleeper = daemon.sleeper();
    daemon.ok(&["move", &sleeper.pid().to_string(), "/c"]);
    let all = || daemon.ok(&["tree", "--json"]) + &daemon.ok(&["ls", "-l", "/"]);
    let before = all();
    for mut root in [Shell::of_container(&daemon, "/"), Shell::of_container_of_host(&daemon, "/")] {
        for act in [
            "kill c",
            "freeze c",
            "thaw c",
            "chown 7:7 c",
            "chmod 777 c",
            "create c/x",
            "create c/x/y",
            "rm c",
            "rm -r c",
            "rm gone",
            "set c notify_on_release=1",
            "move 1 c",
            "tasks c",
            "ls c",
        ] {
            root.refused(act, "ENOENT");
        }
        // Nor does it make any there, whether or not there is one of that name.
        for act in ["create x", "create c", "create x notify_on_release=1"] {
            root.refused(act, "EACCES");
        }
        assert!(!root.ok("ls .").contains("c/"), "{}", root.ok("ls ."));
    }
    assert_eq!(all(), before);
    assert_eq!(daemon.numbers("cg/c/tasks"), [sleeper.pid()]);
    drop(sleeper);
    daemon.down();
}

/// The same for clients of cgmanager.
#[test]
fn for_cgmanagers_clients_too_a_container_that_is_in_no_group_makes_none_and_learns_of_none() {
    if !daemon::has_python() {
        return;
    }
    let Some(mut daemon) = daemon_for_cgmanager() else { return };
    daemon.ok(&["create", "/c"]);
    for shell in [Shell::of_container(&daemon, "/"), Shell::of_container_of_host(&daemon, "/")] {
        let mut root = ready(&daemon, shell);
        for path in ["c", "c/new", "new"] {
            shows(&mut root, &format!("$scm CreateScm freezer {path}"), "0");
        }
        let mut removed = |path| root.run(&format!("timeout 60 $scm RemoveScm freezer {path} i:1")).text;
        assert_eq!(removed("c"), removed("gone"));
    }
    assert!(!daemon.ok(&["tree"]).contains("new"));
    daemon.ok(&["rm", "/c"]);
    daemon.down();
}

#[test]
fn a_mode_is_changed_in_every_hierarchy_or_in_none() {
    let Some(mut daemon) = Daemon::serving("none,name=x:x") else { return };
    // Where the daemon's own mounts are, so that it goes with them.
    assert!(daemon.script(&format!("mkdir y && {BINARY} mount -o none,name=y y")).status.success());
    daemon.ok(&["create", "/bob"]);
    daemon.ok(&["create", "/bob/given"]);
    // In the first hierarchy it is his, in the second it is not.
    let mut bob = Shell::of_user(&daemon, BOB, "/bob");
    let chown = format!("chown {BOB}:{BOB} x/bob/given x/bob/given/notify_on_release");
    assert!(daemon.script(&chown).status.success());
    let modes = || ["x", "y"].map(|name| daemon.ok(&["ls", "-l", &format!("name={name}:/bob/given")]));
    let before = (modes(), daemon.ok(&["ls", "-l", "/bob"]));
    bob.refused("chmod 600 given notify_on_release", "EPERM");
    bob.refused("chmod 700 given", "EPERM");
    assert_eq!((modes(), daemon.ok(&["ls", "-l", "/bob"])), before);
    bob.ok("chmod 600 name=x:given notify_on_release");
    bob.ok("chmod 700 name=x:given");
    assert_ne!(modes()[0], before.0[0]);
    assert_eq!(modes()[1], before.0[1]);
    drop(bob);
    daemon.ok(&["rm", "-r", "/bob"]);
    daemon.down();
}

/// The rules through a mount and over D-Bus, for who is root of a user namespace in a user namespace, neither of which
/// took a privilege to make. To the host it is a plain user.
#[test]
fn through_a_mount_root_of_an_unprivileged_namespace_may_what_its_user_may() {
    let Some(mut daemon) = Daemon::serving("none,name=x:cg") else { return };
    for (user, group) in [(BOB, "/bob"), (BOB + 1, "/other")] {
        daemon.ok(&["create", group]);
        daemon.ok(&["chown", &format!("{user}:{user}"), group]);
    }
    let foreign = daemon.sleeper();
    daemon.ok(&["move", &foreign.pid().to_string(), "/other"]);
    let mut root = Shell::of_user_at_mounts(&daemon, BOB, "/bob");
    root.run(&format!("cd {}", daemon.dir.display()));
    for _ in 0..2 {
        root.enter("unshare --user --map-root-user --pid --fork --kill-child --mount-proc");
    }
    assert_eq!(root.run("id -u").text, "0\n");
    root.run("sleep 600 >/dev/null & echo");
    for (command, is) in [
        // To make a group needs write access to the one above; the new one is its maker's.
        ("mkdir cg/bob/web", true),
        ("mkdir cg/other/x", false),
        ("mkdir cg/x", false),
        // Limits of a group are set by the owner of the one above, never from inside.
        ("echo 1 > cg/bob/notify_on_release", false),
        ("echo 1 > cg/notify_on_release", false),
        ("echo 1 > cg/bob/web/notify_on_release", true),
        // To move needs both, by the numbers of the own namespace.
        ("echo $! > cg/bob/web/tasks", true),
        ("echo $! > cg/other/tasks", false),
        ("echo $! > cg/tasks", false),
        (&format!("echo {} > cg/bob/web/tasks", foreign.pid()), false),
        // Privileged over a group is its owner. Nobody is given what has no number here.
        ("chmod 750 cg/bob/web", true),
        ("chmod 777 cg/other", false),
        ("chown 7 cg/bob/web", false),
        ("chown 0 cg/other", false),
        ("rmdir cg/other", false),
        ("rmdir cg/bob", false),
    ] {
        let said = root.run(command);
        assert_eq!(said.status == 0, is, "{command}: {}", said.text);
    }
    let web = std::fs::metadata(daemon.path("cg/bob/web")).expect("it was made");
    assert_eq!((web.uid(), daemon.numbers("cg/bob/web/tasks").len()), (BOB, 1));
    assert_eq!(daemon.numbers("cg/other/tasks"), [foreign.pid()]);
    // The same over D-Bus.
    root.ok("create job");
    root.ok("set job notify_on_release=1");
    root.ok("move $! job");
    root.ok("chmod 750 job");
    for (what, errno) in [
        ("create /other/x", "EPERM"),
        ("set . notify_on_release=1", "EPERM"),
        ("move $! /", "EPERM"),
        (&format!("move {} job", foreign.pid()), "ESRCH"),
        ("chown 7 job", "EPERM"),
        ("rm .", "EPERM"),
    ] {
        root.refused(what, errno);
    }
    root.leave();
    root.leave();
    drop((root, foreign));
    daemon.ok(&["rm", "-r", "/bob"]);
    daemon.down();
}

/// As the kernel lets it for v1's files (differential/users.script): with privilege in a user namespace that has their owners.
#[test]
fn through_a_mount_root_of_a_container_gives_what_its_users_have_to_its_users() {
    let Some(mut daemon) = realm_with_two_containers() else { return };
    let mut root = Shell::of_container_at_mounts(&daemon, "/c");
    root.run(&format!("cd {}/cg/c", daemon.dir.display()));
    for (command, is) in [
        ("mkdir web", true),
        ("chown 7:8 web web/tasks web/notify_on_release", true),
        ("chmod 711 web", true),
        ("chmod 600 web/tasks", true),
        ("chown 9 web", true),
        // The host's, and another container's.
        ("chown 0 notify_on_release", false),
        ("chmod 666 notify_on_release", false),
        ("chown 0 ..", false),
        ("chmod 777 ..", false),
        // Nobody in here.
        ("chown 1000 web", false),
        // Without the privilege it is a user like others.
        ("setpriv --inh-caps=-all --bounding-set=-chown,-fowner chown 7 web", false),
        ("setpriv --inh-caps=-all --bounding-set=-chown,-fowner chmod 777 web", false),
    ] {
        let said = root.run(command);
        assert_eq!(said.status == 0, is, "{command}: {}", said.text);
    }
    let owner = |file: &str| {
        let found = std::fs::metadata(daemon.path(file)).expect("it was made");
        (found.uid(), found.gid(), found.mode() & 0o7777)
    };
    assert_eq!(owner("cg/c/web"), (FIRST + 9, FIRST + 8, 0o711));
    assert_eq!(owner("cg/c/web/tasks"), (FIRST + 7, FIRST + 8, 0o600));
    drop(root);
    daemon.ok(&["rm", "-r", "/c"]);
    daemon.down();
}
