//! kill -9 at any moment, start again: everything is as it was (I8).

mod daemon;

use std::collections::BTreeMap;

use daemon::Daemon;

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

/// Kills the daemon somewhere in a series of changes, again and again. What was answered is done; what was under way
/// is done or not; nothing else changed.
#[test]
fn a_kill_in_the_middle_loses_nothing_that_was_answered() {
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    let sleeper = daemon.sleeper();
    let pid = sleeper.pid().to_string();
    let mut rounds = 0;
    for round in 0..12_u32 {
        let group = format!("/r{round}");
        let killer = {
            // After as many answers as the round has it; the one that follows is under way.
            let steps = round % 4;
            let pidfd = rustix::process::pidfd_open(
                rustix::process::Pid::from_raw(daemon.pid().try_into().unwrap()).unwrap(),
                rustix::process::PidfdFlags::empty(),
            )
            .unwrap();
            move |done: u32| {
                (done == steps).then(|| {
                    rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL).unwrap();
                })
            }
        };
        let changes: [&[&str]; 4] = [
            &["create", &group],
            &["move", &pid, &group],
            &["set", &group, "notify_on_release=1"],
            &["rm", "-r", &group],
        ];
        let mut answered = 0;
        for (done, change) in changes.into_iter().enumerate() {
            let under_way = std::thread::scope(|scope| {
                let client = scope.spawn(|| daemon.pinfold(change));
                killer(u32::try_from(done).unwrap());
                client.join().unwrap()
            });
            if !under_way.status.success() {
                break;
            }
            answered += 1;
        }
        rounds += usize::from(answered < changes.len());
        if answered < changes.len() || round % 4 < 4 {
            assert!(daemon.ended_by_kill(), "{}", daemon.log());
            daemon.serve("all:cg");
        }
        let there = daemon.path(&format!("cg{group}")).exists();
        let inside = there && daemon.numbers(&format!("cg{group}/tasks")) == [sleeper.pid()];
        let set = there && daemon.read(&format!("cg{group}/notify_on_release")) == "1\n";
        // (group, process inside, value) after so many answers; or after one more.
        let states = [(false, false, false), (true, false, false), (true, true, false), (true, true, true)];
        let now = (there, inside, set);
        let possible = [states[answered.min(3)], *states.get(answered + 1).unwrap_or(&states[0])];
        let possible = if answered == 4 { [states[0]; 2] } else { possible };
        assert!(
            possible.contains(&now) || (answered == 3 && !set),
            "round {round}: {now:?} after {answered} answers\n{}",
            daemon.log()
        );
        let members = daemon.numbers("cg/tasks").contains(&sleeper.pid());
        assert_ne!(members, inside, "round {round}: the process is in one group");
        if there {
            daemon.ok(&["rm", "-r", &group]);
        }
    }
    assert!(rounds > 0, "some kills came in the middle");
    daemon.down();
}
