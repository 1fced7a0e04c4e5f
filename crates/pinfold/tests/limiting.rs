//! pids, enforced by the kernel below: only where the v2 tree has the controller.

mod daemon;

use daemon::{Daemon, in_guest, text};

#[test]
fn a_fork_above_the_limit_fails() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    daemon.ok(&["create", "/a"]);
    daemon.ok(&["set", "/a", "pids.max=3"]);
    // The shell and two more; then fork fails with EAGAIN. (bash would try again and again.)
    let script = "for i in one two three; do sleep 600 >/dev/null 2>&1 & echo $i; done";
    let output = daemon.pinfold(&["exec", "-g", "/a", "--", "sh", "-c", script]);
    assert_eq!(text(&output.stdout), "one\ntwo\n");
    assert!(text(&output.stderr).contains("fork"), "{}", text(&output.stderr));
    assert_ne!(daemon.ok(&["get", "/a", "pids.events"]), "max 0\n");
    let status: serde_json::Value = serde_json::from_str(&daemon.ok(&["status", "/a", "--json"])).unwrap();
    let limit = status.as_array().unwrap().iter().find(|setting| setting["key"] == "pids.max").unwrap();
    assert_eq!((&limit["value"], &limit["enforced"]), (&"3".into(), &"native".into()));
    daemon.ok(&["kill", "/a"]);
    daemon.down();
}

#[test]
fn run_limits_what_it_runs() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    let script = "(exit 0) && echo one; ((exit 0); echo two); echo three";
    let output = daemon.pinfold(&["run", "pids.max=2", "--", "sh", "-c", script]);
    assert_eq!(text(&output.stdout), "one\nthree\n", "{}", text(&output.stderr));
    let output = daemon.pinfold(&["run", "pids.max=nonsense", "--", "true"]);
    assert_eq!(output.status.code(), Some(125));
    daemon.down();
}

#[test]
fn a_limit_survives_the_daemon() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    let sleeper = daemon.sleeper();
    daemon.ok(&["create", "-p", "/a/b"]);
    daemon.ok(&["set", "/a", "pids.max=5"]);
    daemon.ok(&["move", &sleeper.pid().to_string(), "/a/b"]);
    daemon.kill();
    daemon.serve("all:cg");
    assert_eq!(daemon.read("cg/a/pids.max"), "5\n");
    assert_eq!(daemon.read("cg/a/pids.current"), "1\n");
    for (junk, errno) in [("-1", 22), ("MAX", 22), ("4194305", 22), ("99999999999999999999", 34)] {
        assert_eq!(daemon.write("cg/a/pids.max", junk).unwrap_err().raw_os_error(), Some(errno), "{junk}");
    }
    daemon.write("cg/a/pids.max", "0x10\n").unwrap();
    assert_eq!(daemon.read("cg/a/pids.max"), "16\n");
    daemon.down();
}
