//! `run` and `exec`: commands in groups, and their exit statuses.

use std::io::Read;
use std::process::Stdio;

use crate::daemon::{BINARY, Daemon, readable, text, wait};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

fn status(daemon: &Daemon, arguments: &[&str]) -> Option<i32> {
    daemon.pinfold(arguments).status.code()
}

#[test]
fn the_commands_exit_status_is_passed_on() {
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    daemon.ok(&["create", "/a"]);
    for (command, expected) in [
        (vec!["true"], 0),
        (vec!["sh", "-c", "exit 7"], 7),
        (vec!["sh", "-c", "exit 125"], 125),
        (vec!["no-such-command-anywhere"], 127),
        (vec!["/etc/passwd"], 126),
    ] {
        assert_eq!(
            status(&daemon, &[&["run", "--"], &command[..]].concat()),
            Some(expected),
            "run {command:?}"
        );
        let exec = [&["exec", "-g", "/a", "--"], &command[..]].concat();
        assert_eq!(status(&daemon, &exec), Some(expected), "exec {command:?}");
    }
    assert_eq!(status(&daemon, &["run", "--", "sh", "-c", "kill -TERM $$"]), Some(128 + 15));
    assert_eq!(status(&daemon, &["exec", "-g", "/no", "--", "true"]), Some(125));
    assert_eq!(status(&daemon, &["run", "no.such=1", "--", "true"]), Some(125));
    assert_eq!(daemon.ok(&["tree"]).lines().count(), 2, "no group but /a stays");
    daemon.down();
}

#[test]
fn exec_becomes_the_command_inside_the_group() {
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    daemon.ok(&["create", "/a"]);
    let said = daemon.ok(&[
        "exec",
        "-g",
        "/a",
        "--",
        "sh",
        "-c",
        &format!("{BINARY} proc cgroup; echo $$; {BINARY} tasks /a"),
    ]);
    let mut lines = said.lines();
    assert!(lines.next().unwrap().ends_with(":/a"), "{said}");
    let shell = lines.next().unwrap();
    assert!(lines.any(|line| line == shell), "{said}");
    assert_eq!(daemon.ok(&["tasks", "/a"]), "");
    daemon.down();
}

#[test]
fn run_makes_a_group_sets_its_values_and_removes_it() {
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    let script = format!("{BINARY} proc cgroup; {BINARY} tree");
    let said = daemon.ok(&["run", "notify_on_release=1", "cpuacct.usage=0", "--", "sh", "-c", &script]);
    let (_, path) = said.lines().next().unwrap().rsplit_once(':').unwrap();
    assert!(path.starts_with("/pinfold-run."), "{said}");
    assert!(said.contains(&format!("└── {}\n", &path[1..])), "{said}");
    assert_eq!(daemon.ok(&["tree"]).lines().count(), 1);
    // A value that is refused: no command runs, no group stays.
    let output = daemon.pinfold(&[
        "run",
        "freezer.state=MELTED",
        "--",
        "touch",
        daemon.dir.join("ran").to_str().unwrap(),
    ]);
    assert_eq!(output.status.code(), Some(125));
    assert!(text(&output.stderr).contains("freezer.state of"), "{}", text(&output.stderr));
    assert!(!daemon.dir.join("ran").exists());
    assert_eq!(daemon.ok(&["tree"]).lines().count(), 1);
    daemon.down();
}

#[test]
fn a_signal_is_passed_on_and_the_group_goes() {
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let number = signal.as_raw();
        let expected = 40 + number;
        let mut command = daemon.command("setsid");
        // Without a terminal, so that nothing of it is said to have come from one.
        command.args([
            BINARY,
            "run",
            "--",
            "sh",
            "-c",
            &format!("trap 'exit {expected}' {number}; echo; read x <> \"$0\""),
        ]);
        let fifo = daemon.dir.join(format!("fifo{number}"));
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let mut child = command.arg(&fifo).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = child.stdout.take().unwrap();
        assert!(readable(&said), "the command runs");
        said.read_exact(&mut [0]).unwrap();
        let run = running(&daemon);
        pidfd_send_signal(&run, signal).unwrap();
        let status = wait(child).expect("run ends");
        assert_eq!(status.code(), Some(expected), "{signal:?}");
        assert_eq!(daemon.ok(&["tree"]).lines().count(), 1, "{signal:?}: the group went");
    }
    daemon.down();
}

/// The `pinfold run` whose group there is: the group's name says which process made it.
fn running(daemon: &Daemon) -> std::os::fd::OwnedFd {
    let tree = daemon.ok(&["tree"]);
    let (_, pid) = tree.trim().rsplit_once("pinfold-run.").expect("a group");
    let pid = Pid::from_raw(pid.parse().expect("its maker")).expect("not 0");
    pidfd_open(pid, PidfdFlags::empty()).expect("run is alive")
}

#[test]
fn what_a_command_leaves_behind_goes_to_the_root_group() {
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    let said = daemon.ok(&["run", "--", "sh", "-c", "sleep 600 >/dev/null 2>&1 & echo $!"]);
    let left = said.trim();
    assert_eq!(daemon.ok(&["tree"]).lines().count(), 1);
    assert!(daemon.ok(&["tasks", "/"]).lines().any(|line| line == left), "{left} lives on in the root group");
    daemon.down();
}
