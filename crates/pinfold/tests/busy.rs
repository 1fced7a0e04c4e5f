//! A directory of a mount that somebody keeps busy: he lists it into memory whose page he serves himself, and does not. The kernel
//! drops no name in it until then.

use std::io::Read;
use std::process::{Child, Command, Stdio};

use pinfold_dbus::{Client, GroupName};
use rustix::process::Signal;

use crate::daemon::{self, Daemon, PYTHON, eventually};

/// What keeps a directory busy, and who runs it.
const BUSY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/busy.py");

/// Somebody who does, until his input ends.
struct Busy(Child);

impl Busy {
    fn with(daemon: &Daemon, listed: &str) -> Self {
        let own = daemon.dir.join("own");
        std::fs::create_dir(&own).expect("the directory is ours");
        let mut command = Command::new("nsenter");
        command.arg(daemon.mount_namespace()).args(["--", "unshare", "--mount", "--propagation", "private"]);
        command.args([PYTHON, BUSY]).arg(own).arg(daemon.dir.join(listed));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("nsenter runs");
        let mut said = [0; 5];
        child.stdout.as_mut().expect("a pipe").read_exact(&mut said).expect("it talks");
        assert_eq!(&said, b"held\n");
        Self(child)
    }

    fn end(mut self) {
        drop(self.0.stdin.take());
        daemon::wait(self.0).expect("it ends with its input");
    }
}

fn group(name: &str) -> GroupName {
    name.parse().expect("a name")
}

#[test]
fn every_name_that_changed_meanwhile_is_dropped_in_the_end() {
    /// More than half of those that wait.
    const CHANGES: usize = 2100;
    if !daemon::has_python() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("none,name=x:cg") else { return };
    daemon.ok(&["create", "-p", "/a/gone"]);
    daemon.ok(&["create", "/gone"]);
    let shown = || ["cg/a/gone", "cg/gone"].map(|group| daemon.path(group).exists());
    assert_eq!(shown(), [true, true]);
    let busy = Busy::with(&daemon, "cg/a");
    let client = Client::connect(&daemon.state().join("socket")).expect("it runs");
    for _ in 0..CHANGES {
        client.create(&group("/a/b")).expect("it may");
        client.delete(&group("/a/b")).expect("it may");
    }
    client.chmod(&group("/"), None, 0o711).expect("it may");
    let mode =
        || std::fs::metadata(daemon.path("cg")).map(|root| std::os::unix::fs::MetadataExt::mode(&root));
    eventually("the mode is shown nevertheless", || mode().is_ok_and(|mode| mode & 0o777 == 0o711));
    client.delete(&group("/a/gone")).expect("it may");
    client.delete(&group("/gone")).expect("it may");
    busy.end();
    eventually("the names have gone", || shown() == [false, false]);
    daemon.down();
}

/// The thread that waits for whoever keeps it busy has the device open, so the kernel takes the mount for served.
#[test]
fn a_busy_directory_keeps_no_daemon_from_coming_back_after_kill_9() {
    if !daemon::has_python() {
        return;
    }
    let Some(mut daemon) = Daemon::new() else { return };
    let mount = format!("none,name=x:{}/cg", daemon.dir.display());
    let arguments = ["--mount".to_owned(), mount];
    daemon.try_serve(&arguments).expect("it starts");
    daemon.ok(&["create", "/a"]);
    let busy = Busy::with(&daemon, "cg/a");
    daemon.ok(&["create", "/a/b"]);
    daemon.signal(Signal::KILL);
    eventually("another daemon has the realm and its mount", || daemon.try_serve(&arguments).is_ok());
    assert!(daemon.path("cg/a/b").exists());
    busy.end();
    daemon.down();
}
