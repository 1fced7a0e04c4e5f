//! devices, enforced by programs that the kernel below asks: wherever they can be attached, in guests and on the host.

mod daemon;

use std::process::Output;

use daemon::{Daemon, text};

/// A daemon with the controllers named, where the machine lets programs be attached.
fn serving(mount: &str) -> Option<Daemon> {
    if let Err(errno) = pinfold_kernel::inspect::programs() {
        assert_ne!(std::env::var_os("PINFOLD_TEST_VM"), Some("1".into()), "the guest's kernel can: {errno}");
        eprintln!("skipped: no BPF programs: {errno}");
        return None;
    }
    Daemon::serving(mount)
}

/// What a shell in a group says to opening devices: nothing, or that it may not.
fn open(daemon: &Daemon, group: &str, redirection: &str) -> Result<(), String> {
    let script = format!("(: {redirection})");
    let output = daemon.pinfold(&["exec", "-g", group, "--", "sh", "-c", &script]);
    judge(&output)
}

fn judge(output: &Output) -> Result<(), String> {
    let said = text(&output.stderr);
    match output.status.success() {
        true => Ok(()),
        false if said.contains("Operation not permitted") => Err("EPERM".to_owned()),
        false => Err(said),
    }
}

const EPERM: Result<(), String> = Err(String::new());

#[track_caller]
fn assert_denied(answer: Result<(), String>) {
    assert_eq!(answer.map_err(|said| if said == "EPERM" { String::new() } else { said }), EPERM);
}

#[test]
fn a_denied_device_does_not_open_and_a_group_below_cannot_regain_it() {
    // With and without a controller that gives its groups directories of their own.
    for mount in ["devices:cg", "devices,freezer:cg", "all:cg"] {
        let Some(mut daemon) = serving(mount) else { return };
        daemon.ok(&["create", "-p", "/a/b"]);
        let sleeper = daemon.sleeper();
        daemon.ok(&["move", &sleeper.pid().to_string(), "/a/b"]);
        assert_eq!(open(&daemon, "/a/b", "</dev/zero"), Ok(()));
        daemon.ok(&["set", "/a", "devices.deny=c 1:5 r"]);
        assert_denied(open(&daemon, "/a", "</dev/zero"));
        assert_denied(open(&daemon, "/a/b", "</dev/zero"));
        assert_eq!(open(&daemon, "/a/b", ">/dev/zero"), Ok(()));
        assert_eq!(open(&daemon, "/a/b", "</dev/null"), Ok(()));
        daemon.refused(&["set", "/a/b", "devices.allow=c 1:5 r"]);
        daemon.refused(&["set", "/a/b", "devices.allow=c *:* rwm"]);
        daemon.ok(&["set", "/a/b", "devices.allow=a"]);
        assert_denied(open(&daemon, "/a/b", "</dev/zero"));
        daemon.ok(&["set", "/a", "devices.allow=c 1:5 r"]);
        assert_eq!(open(&daemon, "/a", "</dev/zero"), Ok(()));
        assert_denied(open(&daemon, "/a/b", "</dev/zero"));
        daemon.ok(&["set", "/a/b", "devices.allow=c 1:5 r"]);
        assert_eq!(open(&daemon, "/a/b", "</dev/zero"), Ok(()));
        daemon.down();
    }
}

#[test]
fn a_whitelist_is_what_it_says_and_status_says_who_keeps_it() {
    let Some(mut daemon) = serving("devices:cg") else { return };
    daemon.ok(&["create", "/a"]);
    daemon.ok(&["set", "/a", "devices.deny=a"]);
    daemon.ok(&["set", "/a", "devices.allow=c 1:3 rw"]);
    assert_eq!(open(&daemon, "/a", "</dev/null"), Ok(()));
    assert_denied(open(&daemon, "/a", "</dev/zero"));
    let output =
        daemon.pinfold(&["exec", "-g", "/a", "--", "mknod", "/tmp/pinfold-no-such-node", "c", "1", "3"]);
    assert_denied(judge(&output));
    assert_eq!(daemon.read("cg/a/devices.list"), "c 1:3 rw\n");
    let status: serde_json::Value = serde_json::from_str(&daemon.ok(&["status", "/a", "--json"])).unwrap();
    let list = status.as_array().unwrap().iter().find(|setting| setting["key"] == "devices.list").unwrap();
    assert_eq!((&list["value"], &list["enforced"]), (&"c 1:3 rw".into(), &"native".into()));
    let status = daemon.ok(&["status", "/", "--json"]);
    assert!(status.contains("binds the groups below it only"), "{status}");
    daemon.down();
}

#[test]
fn rules_hold_while_no_daemon_runs_and_change_under_the_next_one() {
    let Some(mut daemon) = serving("devices:cg") else { return };
    daemon.ok(&["create", "/a"]);
    let sleeper = daemon.sleeper();
    daemon.ok(&["move", &sleeper.pid().to_string(), "/a"]);
    daemon.ok(&["set", "/a", "devices.deny=c 1:5 r"]);
    daemon.kill();
    // A process that goes where the sleeper is, with nobody to ask.
    let leaf = daemon.base.path().parent().unwrap().join(sleeper.v2_path().trim_start_matches('/'));
    let script = r#"echo 0 >"$0/cgroup.procs" && (: </dev/zero)"#;
    let output = daemon.command("sh").args(["-c", script]).arg(leaf).output().unwrap();
    assert_denied(judge(&output));
    daemon.serve("devices:cg");
    assert_denied(open(&daemon, "/a", "</dev/zero"));
    daemon.ok(&["set", "/a", "devices.allow=c 1:5 r"]);
    assert_eq!(open(&daemon, "/a", "</dev/zero"), Ok(()));
    daemon.down();
}
