//! Who is asked for in whose name, with users of real namespaces.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use pinfold_model::{Errno, Gid, HostPid, Uid};
use pinfold_realm::Peer;

use crate::support::fixture;

/// The host's number of the user that all processes here run as.
const SOMEBODY: u32 = 100_000;

/// A process of [`SOMEBODY`]'s in a user namespace of its own, killed in the end.
struct Inside(Child);

impl Inside {
    fn new(map: &str) -> Self {
        let somebody = SOMEBODY.to_string();
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &somebody, "--regid", &somebody, "--clear-groups"]);
        command.args(["unshare", "--user", "sh", "-c", "echo ready; exec sleep 600"]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("setpriv runs");
        let mut line = String::new();
        let stdout = child.stdout.as_mut().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("it is text");
        let inside = Self(child);
        assert_eq!(line, "ready\n", "no user namespace");
        for file in ["uid_map", "gid_map"] {
            fs::write(format!("/proc/{}/{file}", inside.0.id()), map).expect(file);
        }
        inside
    }

    fn peer(&self) -> Peer {
        Peer {
            uid: Uid(SOMEBODY),
            gid: Gid(SOMEBODY),
            process: HostPid::new(self.0.id()),
            pidfd: None,
            through_state: false,
        }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.kill().expect("it is our child");
        self.0.wait().expect("it is our child");
    }
}

/// The same number on the host is root of a thousand users in one namespace, and nobody's in another.
#[test]
fn the_same_user_elsewhere_is_not_asked_for_with_rights_that_it_has_there_alone() {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "cannot run in CI: needs root");
        eprintln!("skipped: needs root, to map users");
        return;
    }
    let Some(f) = fixture() else { return };
    let (nobody, root) =
        (Inside::new(&format!("7 {SOMEBODY} 1\n")), Inside::new(&format!("0 {SOMEBODY} 1000\n")));
    let asks = |inside: &Inside| Arc::new(f.realm().requester(inside.peer()).expect("it is there"));
    let refused = f.realm().on_behalf(&asks(&nobody), root.peer()).expect_err("it would gain rights");
    assert_eq!(refused.errno(), Errno::EPERM);
    for (connected, other) in [(&root, &nobody), (&root, &root), (&nobody, &nobody)] {
        f.realm().on_behalf(&asks(connected), other.peer()).expect("no rights but its own");
    }
}

/// It went elsewhere after it was listed.
#[test]
fn who_has_left_a_group_is_not_moved_with_those_that_are_in_there() {
    let Some(mut f) = fixture() else { return };
    let hierarchy = f.mount("freezer");
    let [emptied, refuge, elsewhere] =
        ["/emptied", "/refuge", "/elsewhere"].map(|path| f.group(hierarchy, path));
    let pid = f.sleeper();
    f.write(emptied, "cgroup.procs", &pid.to_string()).expect("an own child is attached");
    let own = Peer {
        uid: Uid(rustix::process::geteuid().as_raw()),
        gid: Gid(rustix::process::getegid().as_raw()),
        process: HostPid::new(std::process::id()),
        pidfd: None,
        through_state: true,
    };
    let asks = f.realm().requester(own).expect("this process is there");
    let process = f.realm().named(&asks, pid).expect("it is there");
    f.write(elsewhere, "cgroup.procs", &pid.to_string()).expect("attached");
    f.realm().evict_for(&asks, emptied, refuge, &process).expect("it is not there any more");
    assert_eq!(f.read(elsewhere, "cgroup.procs"), format!("{pid}\n"));
    f.realm().evict_for(&asks, elsewhere, refuge, &process).expect("it is there");
    assert_eq!(f.read(refuge, "cgroup.procs"), format!("{pid}\n"));
}
