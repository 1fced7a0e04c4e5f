//! Who is asked for in whose name, with users of real namespaces.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use pinfold_model::{Errno, Gid, HostPid, Uid};
use pinfold_realm::Peer;

use crate::support::{fixture, skip};

/// The host's number of the user that all processes here run as.
const SOMEBODY: u32 = 100_000;

/// A process of [`SOMEBODY`]'s, or another's, in a user namespace of its own, killed in the end.
struct Inside {
    child: Child,
    uid: u32,
}

impl Inside {
    fn new(map: &str) -> Self {
        Self::of(SOMEBODY, map)
    }

    fn of(uid: u32, map: &str) -> Self {
        let somebody = uid.to_string();
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &somebody, "--regid", &somebody, "--clear-groups"]);
        command.args(["unshare", "--user", "sh", "-c", "echo ready; exec sleep 600"]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("setpriv runs");
        let mut line = String::new();
        let stdout = child.stdout.as_mut().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("it is text");
        let inside = Self { child, uid };
        assert_eq!(line, "ready\n", "no user namespace");
        for file in ["uid_map", "gid_map"] {
            fs::write(format!("/proc/{}/{file}", inside.child.id()), map).expect(file);
        }
        inside
    }

    fn peer(&self) -> Peer {
        Peer {
            uid: Uid(self.uid),
            gid: Gid(self.uid),
            process: HostPid::new(self.child.id()),
            pidfd: None,
            through_state: false,
        }
    }

    /// What it says of itself if it takes another user.
    fn peer_as(&self, uid: u32) -> Peer {
        Peer { uid: Uid(uid), gid: Gid(uid), ..self.peer() }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }
}

/// With credentials, as the kernel lets it: before Linux 6.5 the number comes without a descriptor, and may be another's by now.
#[test]
fn root_asks_as_any_of_its_users_and_with_nobody_elses_process() {
    const HIS: u32 = SOMEBODY + 7;
    if !rustix::process::geteuid().is_root() {
        return skip("needs root, to map users").unwrap_or(());
    }
    let Some(f) = fixture() else { return };
    let root = Inside::new(&format!("0 {SOMEBODY} 1000\n"));
    let alone = Inside::new(&format!("7 {SOMEBODY} 1\n"));
    let elsewhere = Inside::of(2 * SOMEBODY, &format!("0 {} 1000\n", 2 * SOMEBODY));
    let asks = |connected: &Inside, other: Peer| {
        let connected = Arc::new(f.realm().requester(connected.peer()).expect("it is there"));
        f.realm().on_behalf(&connected, other).map_err(|refused| refused.errno())
    };
    let asked = asks(&root, root.peer_as(HIS)).expect("it is its user");
    assert_eq!(asked.caller().uid, Uid(HIS));
    for (connected, other, errno) in [
        (&root, root.peer_as(5), Errno::EPERM),
        (&alone, alone.peer_as(HIS), Errno::EPERM),
        (&root, elsewhere.peer_as(HIS), Errno::ESRCH),
        (&root, elsewhere.peer(), Errno::EPERM),
    ] {
        assert_eq!(asks(connected, other).map(|asked| asked.caller().uid), Err(errno));
    }
}

/// The same number on the host is root of a thousand users in one namespace, and nobody's in another.
#[test]
fn the_same_user_elsewhere_is_not_asked_for_with_rights_that_it_has_there_alone() {
    if !rustix::process::geteuid().is_root() {
        return skip("needs root, to map users").unwrap_or(());
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
