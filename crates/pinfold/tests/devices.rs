//! devices, enforced by programs that the kernel below asks: wherever they can be attached, in guests and on the host.

use std::path::Path;

use crate::daemon::{Daemon, Sleeper, text};

/// Makes groups, with a process in the last.
fn groups(daemon: &Daemon, paths: &[&str]) -> Sleeper {
    for path in paths {
        std::fs::create_dir(daemon.path(path)).expect(path);
    }
    let sleeper = daemon.sleeper();
    let last = paths.last().expect("a group");
    daemon.write(&format!("{last}/tasks"), &sleeper.pid().to_string()).expect(last);
    sleeper
}

/// What comes of opening devices, by a shell that has written itself into a list of tasks: an `EPERM` or `ok` each.
fn outcomes(daemon: &Daemon, tasks: &Path, opens: &[&str]) -> String {
    let enter = "echo 0 >\"$0\" || exit";
    let script =
        opens.iter().fold(enter.to_owned(), |script, open| format!("{script}; (: {open}) 2>&1; echo $?"));
    let output = daemon.command("sh").args(["-c", &script]).arg(tasks).output().expect("timeout runs");
    let said = text(&output.stdout);
    let lines = said.lines().filter_map(|line| match line {
        "0" => Some("ok"),
        line if line.contains("Operation not permitted") => Some("EPERM"),
        line if line.parse::<u8>().is_ok() => None,
        line => panic!("{line}"),
    });
    lines.collect::<Vec<_>>().join(" ")
}

const OPENS: [&str; 3] = ["</dev/zero", ">/dev/zero", "</dev/null"];

fn check(daemon: &Daemon, group: &str, expected: &str) {
    assert_eq!(outcomes(daemon, &daemon.path(&format!("{group}/tasks")), &OPENS), expected, "in {group}");
}

fn errno(answer: std::io::Result<()>) -> Option<i32> {
    answer.err().and_then(|error| error.raw_os_error())
}

#[test]
fn a_denied_device_does_not_open_and_a_group_below_cannot_regain_it() {
    // Without and with controllers whose groups have v2 directories of their own.
    // (Not all of them: a new group of cpuset's takes nobody.)
    let in_guest = std::env::var_os("PINFOLD_TEST_VM").is_some();
    for mount in ["devices:cg", if in_guest { "devices,pids:cg" } else { "devices,freezer:cg" }] {
        let Some(mut daemon) = Daemon::serving_with_programs(mount) else { return };
        let _sleeper = groups(&daemon, &["cg/a", "cg/a/b"]);
        check(&daemon, "cg/a/b", "ok ok ok");
        daemon.write("cg/a/devices.deny", "c 1:5 r").unwrap();
        check(&daemon, "cg/a", "EPERM ok ok");
        check(&daemon, "cg/a/b", "EPERM ok ok");
        for rule in ["c 1:5 r", "c *:* rwm"] {
            assert_eq!(errno(daemon.write("cg/a/b/devices.allow", rule)), Some(1), "{rule}");
        }
        daemon.write("cg/a/b/devices.allow", "a").unwrap();
        check(&daemon, "cg/a/b", "EPERM ok ok");
        daemon.write("cg/a/devices.allow", "c 1:5 r").unwrap();
        check(&daemon, "cg/a", "ok ok ok");
        check(&daemon, "cg/a/b", "EPERM ok ok");
        daemon.write("cg/a/b/devices.allow", "c 1:5 r").unwrap();
        check(&daemon, "cg/a/b", "ok ok ok");
        daemon.down();
    }
}

#[test]
fn a_whitelist_is_what_it_says_and_status_says_who_keeps_it() {
    let Some(mut daemon) = Daemon::serving_with_programs("devices:cg") else { return };
    let _sleeper = groups(&daemon, &["cg/a"]);
    daemon.ok(&["set", "/a", "devices.deny=a"]);
    daemon.write("cg/a/devices.allow", "c 1:5 w").unwrap();
    check(&daemon, "cg/a", "EPERM ok EPERM");
    assert_eq!(daemon.read("cg/a/devices.list"), "c 1:5 w\n");
    let status: serde_json::Value = serde_json::from_str(&daemon.ok(&["status", "/a", "--json"])).unwrap();
    let list = status.as_array().unwrap().iter().find(|setting| setting["key"] == "devices.list").unwrap();
    assert_eq!((&list["value"], &list["enforced"]), (&"c 1:5 w".into(), &"native".into()));
    let status = daemon.ok(&["status", "/", "--json"]);
    assert!(status.contains("binds the groups below it only"), "{status}");
    daemon.down();
}

#[test]
fn a_daemon_that_may_attach_no_programs_leaves_those_there_are_and_says_so() {
    let Some(mut daemon) = Daemon::serving_with_programs("devices:cg") else { return };
    let sleeper = groups(&daemon, &["cg/a"]);
    daemon.write("cg/a/devices.deny", "c 1:5 r").expect("root may");
    daemon.kill();
    let fewer = ["setpriv", "--bounding-set=-sys_admin,-bpf", "--inh-caps=-sys_admin,-bpf"];
    if let Err(output) = daemon.try_serve_through(&fewer, &[]) {
        panic!("the daemon did not start: {}", text(&output.stderr));
    }
    let said = daemon.ok(&["controllers", "--json"]);
    let controllers: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    let devices = controllers.as_array().expect("a list").iter().find(|one| one["name"] == "devices");
    let unusable = devices.expect("it is known")["unusable"].to_string();
    assert!(unusable.contains("BPF program") && unusable.contains("not permitted"), "{unusable}");
    let status = daemon.ok(&["status", "devices:/a"]);
    assert!(status.contains("stored only"), "{status}");
    assert!(daemon.refused(&["set", "devices:/a", "devices.allow=c 1:5 r"]).contains("pinfold_devices"));
    let leaf =
        daemon.base.path().parent().expect("a base is below").join(sleeper.v2_path().trim_start_matches('/'));
    assert_eq!(outcomes(&daemon, &leaf.join("cgroup.procs"), &OPENS), "EPERM ok ok");
    daemon.down();
}

#[test]
fn rules_hold_while_no_daemon_runs_and_change_under_the_next_one() {
    let Some(mut daemon) = Daemon::serving_with_programs("devices:cg") else { return };
    let sleeper = groups(&daemon, &["cg/a"]);
    daemon.write("cg/a/devices.deny", "c 1:5 r").unwrap();
    daemon.kill();
    // With nobody to ask, into the directory where the sleeper is.
    let leaf = daemon.base.path().parent().unwrap().join(sleeper.v2_path().trim_start_matches('/'));
    assert_eq!(outcomes(&daemon, &leaf.join("cgroup.procs"), &OPENS), "EPERM ok ok");
    daemon.serve("devices:cg");
    check(&daemon, "cg/a", "EPERM ok ok");
    daemon.write("cg/a/devices.allow", "c 1:5 r").unwrap();
    check(&daemon, "cg/a", "ok ok ok");
    daemon.down();
}
