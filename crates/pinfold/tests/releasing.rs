//! Release agents: run once, when nothing is left, with the kernel's argument and environment.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;

use crate::daemon::{Daemon, readable};

/// An agent that tells what it was given through a pipe.
fn agent(daemon: &Daemon) -> File {
    let fifo = daemon.dir.join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("a pipe");
    let agent = daemon.dir.join("agent");
    let script = format!(
        "#!/bin/sh\n{{ echo \"$# $1 $(pwd)\"; env | grep -v -e ^PWD= -e ^_= -e ^SHLVL= | sort; echo .; }} > {}\n",
        fifo.display()
    );
    std::fs::write(&agent, script).expect("the agent");
    std::fs::set_permissions(&agent, std::fs::Permissions::from_mode(0o755)).expect("its mode");
    daemon.ok(&["set", "/", &format!("release_agent={}", agent.display())]);
    // Both ends, so that it is never at its end.
    File::options().read(true).write(true).open(&fifo).expect("the pipe")
}

/// What one run of the agent told.
fn told(pipe: &mut File) -> String {
    let mut told = String::new();
    while !told.ends_with(".\n") {
        assert!(readable(&*pipe), "the agent was not run: {told:?}");
        let mut bytes = [0; 4096];
        let length = pipe.read(&mut bytes).expect("the pipe");
        told.push_str(std::str::from_utf8(&bytes[..length]).expect("text"));
    }
    told
}

const ENVIRONMENT: &str = "HOME=/\nPATH=/sbin:/bin:/usr/sbin:/usr/bin\n.\n";

#[test]
fn the_agent_runs_when_the_last_process_has_gone() {
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    let mut pipe = agent(&daemon);
    daemon.ok(&["create", "-p", "/a/b"]);
    daemon.ok(&["set", "/a/b", "notify_on_release=1"]);
    let (one, other) = (daemon.sleeper(), daemon.sleeper());
    for sleeper in [&one, &other] {
        daemon.ok(&["move", &sleeper.pid().to_string(), "/a/b"]);
    }
    one.end();
    // A process is left: the next thing the agent tells is of the last one's end.
    other.end();
    assert_eq!(told(&mut pipe), format!("1 /a/b /\n{ENVIRONMENT}"));
    daemon.down();
}

#[test]
fn the_agent_runs_when_the_last_process_has_moved_or_the_last_child_is_removed() {
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    let mut pipe = agent(&daemon);
    let sleeper = daemon.sleeper();
    daemon.ok(&["create", "/a"]);
    daemon.ok(&["set", "/a", "notify_on_release=1"]);
    daemon.ok(&["move", &sleeper.pid().to_string(), "/a"]);
    daemon.ok(&["move", &sleeper.pid().to_string(), "/"]);
    assert_eq!(told(&mut pipe), format!("1 /a /\n{ENVIRONMENT}"));
    daemon.ok(&["create", "/a/b"]);
    daemon.ok(&["set", "/a/b", "notify_on_release=0"]);
    daemon.ok(&["rm", "/a/b"]);
    assert_eq!(told(&mut pipe), format!("1 /a /\n{ENVIRONMENT}"));
    daemon.down();
}
