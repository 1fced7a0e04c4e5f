//! kill -9 at any moment, start again: everything is as it was (I8).

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::daemon::{self, Daemon};

/// Everything a user can see of the realm, but for the numbers that go on counting.
fn seen(daemon: &Daemon) -> BTreeMap<String, String> {
    let mut seen = BTreeMap::new();
    let mut stack = vec!["cg".to_owned()];
    while let Some(dir) = stack.pop() {
        for entry in std::fs::read_dir(daemon.path(&dir)).expect("the mount").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = format!("{dir}/{name}");
            let metadata = entry.metadata().expect("an entry");
            use std::os::unix::fs::MetadataExt;
            let owner = format!("{:o} {} {}", metadata.mode(), metadata.uid(), metadata.gid());
            seen.insert(format!("{path} owner"), owner);
            if metadata.is_dir() {
                stack.push(path);
            } else if !name.starts_with("cpuacct") && dir != "cg" {
                seen.insert(path.clone(), std::fs::read_to_string(entry.path()).unwrap_or_default());
            }
        }
    }
    seen
}

#[test]
fn groups_owners_settings_and_members_are_as_they_were() {
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    let (one, other) = (daemon.sleeper(), daemon.sleeper());
    daemon.ok(&["create", "-p", "/a/b"]);
    daemon.ok(&["create", "/c"]);
    daemon.ok(&["set", "/a", "notify_on_release=1"]);
    daemon.ok(&["set", "/", "release_agent=/no/such/agent"]);
    daemon.ok(&["chown", "65534:1", "/c"]);
    daemon.ok(&["move", &one.pid().to_string(), "/a/b"]);
    daemon.ok(&["move", &other.pid().to_string(), "/c"]);
    daemon.ok(&["freeze", "/c"]);
    daemon::eventually("the process stands still", || daemon.read("cg/c/freezer.state") == "FROZEN\n");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o640);
    std::fs::set_permissions(daemon.path("cg/a/b/tasks"), mode).unwrap();
    let before = seen(&daemon);
    let hierarchies = daemon.ok(&["hierarchies", "--json"]);
    let agent = daemon.read("cg/release_agent");
    daemon.kill();
    daemon.serve("all:cg");
    assert_eq!(seen(&daemon), before);
    assert_eq!(daemon.ok(&["hierarchies", "--json"]), hierarchies);
    assert_eq!(daemon.read("cg/release_agent"), agent);
    // And it goes on from there.
    daemon.ok(&["thaw", "/c"]);
    daemon.ok(&["move", &one.pid().to_string(), "/c"]);
    assert_eq!(daemon.numbers("cg/a/b/tasks"), Vec::<u32>::new());
    daemon.ok(&["rm", "-r", "/a"]);
    daemon.down();
}

/// As docs/running.md says of containers: a directory above the mounts is bound, with the propagation `slave`.
#[test]
fn a_container_that_takes_over_mounts_sees_the_next_daemons() {
    let Some(mut daemon) = Daemon::new() else { return };
    let made = daemon.script("mkdir v1 && mount --bind v1 v1 && mount --make-shared v1");
    assert!(made.status.success(), "{}", daemon::text(&made.stderr));
    daemon.serve("all:v1/cg");
    daemon.ok(&["create", "/a"]);
    let mut container = Command::new("nsenter");
    container.arg(daemon.mount_namespace()).args(["unshare", "--mount", "--propagation", "slave"]);
    container.args(["sh", "-c", "echo; exec sleep 600"]).stdout(Stdio::piped());
    let mut container = container.spawn().expect("nsenter runs");
    let said = BufReader::new(container.stdout.take().expect("a pipe")).lines().next();
    assert!(said.is_some_and(|line| line.is_ok()), "it has a mount namespace of its own");
    let own = daemon.dir.strip_prefix("/").expect("an absolute path");
    let tasks = format!("/proc/{}/root/{}/v1/cg/a/tasks", container.id(), own.display());
    assert_eq!(std::fs::read_to_string(&tasks).expect("served"), "");
    daemon.kill();
    let dead = std::fs::read_to_string(&tasks).expect_err("nobody answers");
    assert_eq!(dead.kind(), std::io::ErrorKind::NotConnected);
    daemon.serve("all:v1/cg");
    assert_eq!(std::fs::read_to_string(&tasks).expect("served again"), "");
    container.kill().and_then(|()| container.wait()).expect("our child");
    daemon.down();
}

#[test]
fn usage_does_not_go_backwards() {
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    daemon.ok(&["create", "/a"]);
    // Half of it by a process that has gone, half by one that is there.
    let burn = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done";
    daemon.ok(&["exec", "-g", "/a", "--", "sh", "-c", burn]);
    let sleeper = daemon.sleeper();
    daemon.ok(&["move", &sleeper.pid().to_string(), "/a"]);
    daemon.ok(&["exec", "-g", "/a", "--", "sh", "-c", burn]);
    let usage = |daemon: &Daemon| daemon.read("cg/a/cpuacct.usage").trim().parse::<u64>().expect("a number");
    let before = usage(&daemon);
    assert!(before > 0);
    daemon.kill();
    daemon.serve("all:cg");
    assert!(usage(&daemon) >= before, "{} < {before}", usage(&daemon));
    sleeper.end();
    assert!(usage(&daemon) >= before, "{} < {before}", usage(&daemon));
    daemon.down();
}

#[test]
fn processes_that_come_and_go_meanwhile_are_seen() {
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    let (stays, goes) = (daemon.sleeper(), daemon.sleeper());
    daemon.ok(&["create", "/a"]);
    daemon.ok(&["create", "/b"]);
    daemon.ok(&["move", &stays.pid().to_string(), "/a"]);
    daemon.ok(&["move", &goes.pid().to_string(), "/b"]);
    daemon.kill();
    goes.end();
    daemon.serve("all:cg");
    assert_eq!(daemon.numbers("cg/a/tasks"), [stays.pid()]);
    assert_eq!(daemon.numbers("cg/b/tasks"), Vec::<u32>::new());
    daemon.ok(&["rm", "/b"]);
    daemon.down();
}

/// The five steps in the life of a group, over and over, and how many of them were answered.
fn live_and_die(daemon: &Daemon, pid: u32, first: u32, answered: &AtomicU32) -> std::io::Result<()> {
    for number in first.. {
        let group = format!("cg/g{number}");
        let steps: [&dyn Fn() -> std::io::Result<()>; STEPS] = [
            &|| std::fs::create_dir(daemon.path(&group)),
            &|| daemon.write(&format!("{group}/tasks"), &pid.to_string()),
            &|| daemon.write(&format!("{group}/notify_on_release"), "1"),
            &|| daemon.write("cg/tasks", &pid.to_string()),
            &|| std::fs::remove_dir(daemon.path(&group)),
        ];
        for step in steps {
            step()?;
            answered.fetch_add(1, Ordering::SeqCst);
        }
    }
    Ok(())
}

const STEPS: usize = 5;

/// What is seen after so many of a group's steps: (it is there, the process is in it, the value is set).
const SEEN: [(bool, bool, bool); STEPS + 1] = [
    (false, false, false),
    (true, false, false),
    (true, true, false),
    (true, true, true),
    (true, false, true),
    (false, false, false),
];

/// Kills the daemon at a moment of its own in each round. What was answered is done; what was under way is done or not;
/// nothing else has changed.
#[test]
fn a_kill_at_any_moment_loses_nothing_that_was_answered() {
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    let sleeper = daemon.sleeper();
    let (mut kills_inside, mut first) = (0, 0);
    // In a guest each round takes seconds: there, the moments that the host's kernel does not have are enough.
    let rounds = if std::env::var_os("PINFOLD_TEST_VM").is_some() { 8 } else { 33 };
    for round in 0..rounds {
        let answered = AtomicU32::new(0);
        // After so many answers, and a little later.
        let (answers, later) = (round * 3 % 11, Duration::from_micros(u64::from(round * 797 % 1009)));
        let (killer, daemon_ref) = (daemon.killer(), &daemon);
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| live_and_die(daemon_ref, sleeper.pid(), first, &answered));
            while answered.load(Ordering::SeqCst) < answers && !worker.is_finished() {
                std::thread::yield_now();
            }
            let start = Instant::now();
            while start.elapsed() < later {
                std::hint::spin_loop();
            }
            killer();
            assert!(worker.join().unwrap().is_err(), "the daemon lives on");
        });
        assert!(daemon.ended_by_kill(), "{}", daemon.log());
        daemon.serve("all:cg");
        let answered = answered.load(Ordering::SeqCst);
        let (number, steps) = (first + answered / 5, (answered % 5) as usize);
        kills_inside += usize::from(steps > 0);
        let group = format!("cg/g{number}");
        let there = daemon.path(&group).exists();
        let now = (
            there,
            there && daemon.numbers(&format!("{group}/tasks")) == [sleeper.pid()],
            there && daemon.read(&format!("{group}/notify_on_release")) == "1\n",
        );
        let said = format!("round {round}: {now:?} of {group} after {steps} answers");
        assert!([SEEN[steps], SEEN[steps + 1]].contains(&now), "{said}\n{}", daemon.log());
        let in_root = daemon.numbers("cg/tasks").contains(&sleeper.pid());
        assert_ne!(in_root, now.1, "{said}: the process is in one group");
        let groups = daemon.ok(&["tree"]).lines().count() - 1;
        assert_eq!(groups, usize::from(there), "{said}: no other group is there");
        if there {
            daemon.ok(&["rm", "-r", &format!("/g{number}")]);
        }
        first = number + 1;
    }
    assert!(kills_inside > 0, "some kills came in the middle of a group's life");
    daemon.down();
    assert!(!daemon.dir.join("cg").exists(), "the mount point that the first daemon made is gone");
}
