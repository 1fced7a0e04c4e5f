//! As many groups as somebody can make, by calls and through a mount, where the daemon has the limits that it has unless told
//! otherwise: where that ends, what it costs the daemon, and that all of them go again.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::bus::wire;
use crate::container::inside;
use crate::container::{FIRST, Shell};
use crate::daemon::{BINARY, Daemon, text};

/// A user of the host's.
const BOB: u32 = 54_370;

/// What docs/manager.md says of these limits.
const DEPTH: usize = 64;
const OF_USER: usize = 10_000;
const BELOW: usize = 20_000;

/// What the daemon may have for each group, with the longest of these names: so much docs/manager.md says.
const BYTES_OF_GROUP: usize = 2048;

/// A name that makes the paths of all groups too long for one answer: as many as may lie in each other have just room in a path.
const STEP: &str = "a-name-as-long-as-those-which-container-managers-give-to-groups";

/// Not a test, but what root of a container does in one: it makes groups below its own, each in the one before, until that is refused,
/// and then begins anew, until it may not even begin.
#[test]
fn fills() {
    if inside::told_to().is_none() {
        return;
    }
    let mut socket = inside::state().into_os_string();
    socket.push(".public/socket");
    let mut stream = wire::greeted(UnixStream::connect(&socket).expect("the door is open"), 0);
    let mut create = |name: &str| {
        stream.write_all(&wire::call_to_create(name)).expect("the daemon talks");
        let (is_refused, message) = wire::answer(&mut stream);
        let message = text(&message);
        assert!(!is_refused || message.contains("org.pinfold.Error.EAGAIN"), "{message}");
        !is_refused
    };
    let (mut made, mut deepest) = (0, 0);
    loop {
        let mut name = made.to_string();
        let mut depth = 0;
        while create(&name) {
            made += 1;
            depth += 1;
            name = format!("{name}/{STEP}");
        }
        deepest = deepest.max(depth);
        if depth == 0 {
            break;
        }
    }
    inside::says(&format!("{made} groups, {deepest} deep"));
}

/// The memory that the daemon has, in bytes.
fn memory(daemon: &Daemon) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has some");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
}

const REFUSED: &str = "Resource temporarily unavailable";

/// Has a shell, where it is, make one directory in the other, and then so many beside each other as it may have, and one more.
fn fills_by_mkdir(shell: &mut Shell, room: usize) {
    let said = shell.run("mkdir -p $(printf 'd/%.0s' $(seq 70))");
    assert!(said.text.contains(REFUSED), "{}", said.text);
    let deep: usize = shell.run("find d -type d | wc -l").text.trim().parse().expect("a number");
    let said = shell.run(&format!("seq {} | xargs mkdir", room - deep + 1));
    assert_eq!(said.text.matches(REFUSED).count(), 1, "{}", said.text);
    assert_eq!(said.text.lines().count(), 1, "{}", said.text);
}

#[test]
fn a_million_groups_end_at_the_limits_that_the_daemon_has_and_all_go_again() {
    let Some(mut daemon) = Daemon::serving("none,name=x:cg") else { return };
    daemon.ok(&["create", "/c"]);
    daemon.ok(&["chown", &format!("{FIRST}:{FIRST}"), "/c"]);
    let before = memory(&daemon);
    // Root of a container by calls; through a mount it has no room then.
    let mut root = Shell::of_container_at_mounts(&daemon, "/c");
    root.run(&format!("cd {}/cg/c", daemon.dir.display()));
    root.ok("create bob");
    let said = inside::act(&mut root, "filling::fills", "all");
    assert_eq!(said, [format!("{} groups, {} deep", OF_USER - 1, DEPTH - 1)]);
    assert!(root.run("mkdir more").text.contains(REFUSED));
    // A user of the host's, whose group lies in there, through the mount; by calls he has no room then.
    daemon.ok(&["chown", &format!("{BOB}:{BOB}"), "/c/bob"]);
    let mut bob = Shell::of_user_at_mounts(&daemon, BOB, "/c/bob");
    bob.run(&format!("cd {}/cg/c/bob", daemon.dir.display()));
    fills_by_mkdir(&mut bob, OF_USER);
    bob.refused("create more", "EAGAIN");
    // Now there are as many below as may be: a user of the container who has none has no room either.
    root.ok("chown 8:8 0");
    root.enter("setpriv --reuid 8 --regid 8 --clear-groups");
    root.refused("create 0/more", "EAGAIN");
    assert!(root.run("mkdir 0/more").text.contains(REFUSED));
    root.leave();
    let gained = memory(&daemon) - before;
    assert!(gained <= BELOW * BYTES_OF_GROUP, "{gained} bytes");
    // They are too many to be named, and not too many to be looked at or removed.
    assert!(daemon.refused(&["tree"]).contains("E2BIG"));
    let tasks = daemon.ok(&["tasks", "-r", "/c"]);
    assert!(tasks.lines().count() > daemon.ok(&["tasks", "/c"]).lines().count(), "{tasks}");
    drop((root, bob));
    daemon.kill();
    daemon.serve("");
    let mut removing = daemon.command_within(Duration::from_secs(600), BINARY);
    assert!(removing.args(["rm", "-r", "/c"]).status().expect("timeout runs").success(), "{}", daemon.log());
    assert_eq!(daemon.ok(&["tree"]), "name=x:/\n");
    daemon.down();
}
