//! Signals of groups: who is told of what.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::bus::wire::{call, call_of_bus, connected, read_until};
use crate::bus::{ALICE, BOB, realm_at_a_bus};
use crate::container::Shell;
use crate::daemon::{self, BINARY, Daemon, readable};

/// A program that runs and prints what signals it is told.
struct Monitor {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Monitor {
    /// Starts one that is the daemon's owner's client. `None`, with the reason printed, if there is none.
    fn start(daemon: &Daemon) -> Option<Self> {
        Self::running(daemon, Command::new("dbus-monitor").arg("type=signal"))
    }

    fn running(daemon: &Daemon, command: &mut Command) -> Option<Self> {
        let address = format!("unix:path={}/socket", daemon.state().display());
        command.args(["--address", &address]).stdout(Stdio::piped()).stderr(Stdio::null());
        let Ok(mut child) = command.spawn() else {
            daemon::skip(&format!("needs {}", command.get_program().display()));
            return None;
        };
        let lines = BufReader::new(child.stdout.take().expect("a pipe"));
        Some(Self { child, lines })
    }

    /// The next signal: its name and its argument.
    fn next(&mut self) -> String {
        let member = self.line_with("member=");
        let member = member.split("member=").nth(1).expect("the line has it").trim().to_owned();
        let argument = self.line_with("string ");
        format!("{member} {}", argument.trim().trim_start_matches("string ").trim_matches('"'))
    }

    fn line_with(&mut self, part: &str) -> String {
        loop {
            if self.lines.buffer().is_empty() {
                assert!(readable(self.lines.get_ref()), "no signal comes");
            }
            let mut line = String::new();
            assert_ne!(self.lines.read_line(&mut line).expect("text"), 0, "the monitor has ended");
            if line.contains(part) {
                return line;
            }
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }
}

#[test]
fn whoever_makes_or_removes_a_group_its_watchers_are_told() {
    let Some(mut daemon) = Daemon::serving("none,name=x:cg") else { return };
    let Some(mut monitor) = Monitor::start(&daemon) else { return };
    // It tells nobody when it has begun to watch.
    daemon::eventually("it watches", || {
        daemon.ok(&["create", "/first"]);
        daemon.ok(&["rm", "/first"]);
        !monitor.lines.buffer().is_empty() || has_come(monitor.lines.get_ref())
    });
    daemon.ok(&["create", "-p", "/a/b"]);
    while monitor.next() != "GroupCreated name=x:/a" {}
    assert_eq!(monitor.next(), "GroupCreated name=x:/a/b");
    assert!(daemon.script("mkdir cg/c && mv cg/c cg/d && rmdir cg/d").status.success());
    for told in [
        "GroupCreated name=x:/c",
        "GroupRemoved name=x:/c",
        "GroupCreated name=x:/d",
        "GroupRemoved name=x:/d",
    ] {
        assert_eq!(monitor.next(), told);
    }
    daemon.ok(&["rm", "-r", "/a"]);
    while monitor.next() != "GroupRemoved name=x:/a" {}
    drop(monitor);
    daemon.down();
}

/// It asks a bus who has the name, and for the signals of that one; here the daemon is both.
#[test]
fn a_monitor_that_knows_only_buses_is_told() {
    let Some(mut daemon) = Daemon::serving("none,name=x:cg") else { return };
    let Some(mut monitor) =
        Monitor::running(&daemon, Command::new("gdbus").args(["monitor", "--dest", "org.pinfold"]))
    else {
        return;
    };
    monitor.line_with("The name org.pinfold is owned by");
    daemon::eventually("it watches", || {
        daemon.ok(&["create", "/first"]);
        daemon.ok(&["rm", "/first"]);
        !monitor.lines.buffer().is_empty() || has_come(monitor.lines.get_ref())
    });
    daemon.ok(&["create", "/a"]);
    daemon.ok(&["rm", "/a"]);
    for signal in ["GroupCreated", "GroupRemoved"] {
        let told = monitor.line_with("name=x:/a'");
        assert_eq!(told, format!("/org/pinfold/Manager: org.pinfold.Manager1.{signal} ('name=x:/a',)\n"));
    }
    drop(monitor);
    daemon.down();
}

/// Whether there is something to read now.
fn has_come(fd: impl std::os::fd::AsFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&at_once)).expect("poll") == 1
}

/// A connection of a user at the public door, who has called `Watch`.
fn watching(daemon: &Daemon, uid: u32) -> UnixStream {
    let mut stream = connected(format!("{}.public/socket", daemon.state().display()), uid);
    stream.write_all(&call("", "Watch")).expect("the daemon talks");
    read_until(&mut stream, b"l\x02");
    stream
}

#[test]
fn nobody_is_told_of_groups_that_are_not_below_his_own() {
    let Some(mut daemon) = Daemon::serving("none,name=x:cg") else { return };
    for (uid, group) in [(ALICE, "/alice"), (BOB, "/bob")] {
        daemon.ok(&["create", group]);
        daemon.ok(&["chown", &format!("{uid}:{uid}"), group]);
    }
    let mut alice = Shell::of_user(&daemon, ALICE, "/alice");
    let address = format!("unix:path={}.public/socket", daemon.state().display());
    let out = daemon.dir.join("told");
    std::fs::File::create(&out).expect("the directory is ours");
    rustix::fs::chmod(&out, rustix::fs::Mode::from_raw_mode(0o666)).expect("the file is ours");
    let told = || std::fs::read_to_string(daemon.dir.join("told")).expect("the file is ours");
    alice
        .run(&format!("dbus-monitor --address {address} type=signal > {} 2>/dev/null & echo", out.display()));
    daemon::eventually("she is told", || {
        alice.ok("create own");
        alice.ok("rm own");
        told().contains("string \"name=x:own\"")
    });
    daemon.ok(&["create", "/bob/secret"]);
    daemon.ok(&["create", "/other"]);
    daemon.ok(&["create", "/alice/last"]);
    daemon::eventually("the last has come", || told().contains("string \"name=x:last\""));
    let all = told();
    assert!(!all.contains("secret") && !all.contains("bob") && !all.contains("other"), "{all}");
    assert!(!all.contains("/alice"), "names begin at her own group: {all}");
    alice.run("kill $!; wait");
    drop(alice);
    daemon.ok(&["rm", "-r", "/alice"]);
    daemon.down();
}

/// Its own group is the root, and below that are those of all others.
#[test]
fn a_container_that_is_in_no_group_is_told_of_none() {
    let Some(mut daemon) = Daemon::serving("none,name=x:cg") else { return };
    let address = format!("unix:path={}.public/socket", daemon.state().display());
    let mount = |name: &str| {
        let said = daemon.script(&format!("mkdir {name} && {BINARY} mount -o none,name={name} {name}"));
        assert!(said.status.success(), "{name}: {}", daemon::text(&said.stderr));
    };
    let umount = |name: &str| {
        assert!(daemon.script(&format!("{BINARY} umount {name} && rmdir {name}")).status.success())
    };
    for mut root in [Shell::of_container(&daemon, "/"), Shell::of_container_of_host(&daemon, "/")] {
        let out = daemon.dir.join("told");
        std::fs::File::create(&out).expect("the directory is ours");
        rustix::fs::chmod(&out, rustix::fs::Mode::from_raw_mode(0o666)).expect("the file is ours");
        let told = || std::fs::read_to_string(&out).expect("the file is ours");
        let said = root.run(&format!(
            "dbus-monitor --address {address} type=signal > {} 2>/dev/null & echo",
            out.display()
        ));
        assert_eq!(said.status, 0, "{}", said.text);
        // Hierarchies are told to everybody.
        daemon::eventually("it watches", || {
            mount("first");
            umount("first");
            told().contains("string \"name=first\"")
        });
        // Not in the other hierarchy, which may be about to go.
        daemon.ok(&["create", "-p", "name=x:/secret/inner"]);
        daemon.ok(&["rm", "-r", "name=x:/secret"]);
        mount("last");
        daemon::eventually("the last has come", || told().contains("string \"name=last\""));
        assert!(!told().contains("Group"), "{}", told());
        root.run("kill $!; wait");
        umount("last");
    }
    daemon.down();
}

/// `ListHierarchies` tells everybody what there is, so everybody who watches is told what comes and goes.
#[test]
fn whatever_hierarchy_comes_or_goes_everybody_who_watches_is_told() {
    let Some(mut daemon) = Daemon::serving("none,name=x:cg") else { return };
    let mut bob = watching(&daemon, BOB);
    let pinfold = |line: &str| {
        let said = daemon.script(&format!("mkdir -p y && {BINARY} {line} y"));
        assert!(said.status.success(), "{line}: {}", daemon::text(&said.stderr));
    };
    // The signals that have come when the last of them has.
    let mut told = |last: &str| {
        let came = read_until(&mut bob, format!("{last}\0").as_bytes());
        let came = daemon::text(&came);
        came.split("Hierarchy").skip(1).map(|signal| signal[..7].to_owned()).collect::<Vec<_>>()
    };
    pinfold("mount -o none,name=y");
    assert_eq!(told("name=y"), ["Mounted"]);
    pinfold("mount -o remount,freezer,name=y");
    assert_eq!(told("freezer,name=y"), ["Removed", "Mounted"]);
    pinfold("umount");
    assert_eq!(told("freezer,name=y"), ["Removed"]);
    // A mount of what is there already makes nothing: the next signal is of a group.
    pinfold("mount -o none,name=x");
    pinfold("umount");
    daemon.ok(&["create", "/new"]);
    let signal = read_until(&mut bob, b"GroupCreated");
    assert!(!daemon::text(&signal).contains("Hierarchy"), "{}", daemon::text(&signal));
    drop(bob);
    daemon.ok(&["rm", "/new"]);
    daemon.down();
}

#[test]
fn who_reads_no_signals_delays_nobody_and_hears_that_some_are_lost() {
    let Some(mut daemon) = Daemon::serving("none,name=x:cg") else { return };
    let mut slow = watching(&daemon, BOB);
    // More than its line and its socket hold.
    for number in 0..1500 {
        let group = daemon.path(&format!("cg/{number}"));
        std::fs::create_dir(&group).expect("who makes groups does not wait for who is told");
        std::fs::remove_dir(&group).expect("nor who removes them");
    }
    let told = read_until(&mut slow, b"SignalsLost");
    assert!(told.windows(12).any(|part| part == b"GroupCreated"));
    drop(slow);
    daemon.down();
}

#[test]
fn who_unwatches_is_told_nothing_until_it_watches_again() {
    let Some(mut daemon) = Daemon::serving("none,name=x:cg") else { return };
    let mut bob = watching(&daemon, BOB);
    daemon.ok(&["create", "/before"]);
    read_until(&mut bob, b"name=x:before");
    for member in ["Unwatch", "Watch"] {
        bob.write_all(&call("", member)).expect("the daemon talks");
        // An answer, and nothing else than that.
        assert!(read_until(&mut bob, b"l\x02").starts_with(b"l\x02"), "{member}");
        daemon.ok(&["create", &format!("/after-{member}")]);
    }
    let told = read_until(&mut bob, b"after-Watch");
    assert!(!told.windows(13).any(|part| part == b"after-Unwatch"), "{}", daemon::text(&told));
    drop(bob);
    daemon.down();
}

#[test]
fn at_a_bus_signals_go_to_who_watches_and_to_nobody_else() {
    let Some((mut daemon, bus)) = realm_at_a_bus() else { return };
    let ((mut root, _), (mut eve, _)) = (bus.connected(0), bus.connected(BOB));
    // Every signal that is not addressed.
    eve.write_all(&call_of_bus("AddMatch", &["type='signal'"])).expect("the bus talks");
    root.write_all(&call("org.pinfold", "Watch")).expect("the bus talks");
    // The answer: no message but that begins so.
    read_until(&mut root, b"l\x02");
    daemon.ok(&["create", "/new"]);
    read_until(&mut root, b"GroupCreated");
    eve.write_all(&call_of_bus("GetId", &[])).expect("the bus talks");
    // 32 digits, as a string.
    let told = read_until(&mut eve, b"\x20\0\0\0");
    assert!(!told.windows(5).any(|part| part == b"Group"), "{}", daemon::text(&told));
    drop((root, eve));
    daemon.down();
}
