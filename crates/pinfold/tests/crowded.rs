//! Memory of a group that has several directories: how it is limited there, and when nearly all of it is used: nobody is killed whom the
//! kernel's v1 would not kill. Only where the v2 tree has controllers.

use std::process::Child;

use crate::crossing::{enforced, number, serve, start};
use crate::daemon::{self, Daemon, eventually, in_guest};

const MOUNTS: &[(&str, &str)] = &[("memory", "m"), ("pids", "p"), ("cpu,cpuacct", "c")];

/// How often somebody was killed for memory, in every group.
fn kills() -> u64 {
    let text = std::fs::read_to_string("/proc/vmstat").expect("proc is there");
    number(text.lines().find_map(|line| line.strip_prefix("oom_kill ")).expect("a line"))
}

fn end(mut daemon: Daemon, children: Vec<Child>) {
    daemon.ok(&["kill", "memory:/c"]);
    for mut child in children {
        child.wait().expect("timeout is our child");
    }
    daemon.down();
}

/// What processes use stays charged where they were. When the last of them has come to the group, all that is charged to their
/// directory is that of the group's path: it must not be taken for the group's.
#[test]
fn processes_that_come_one_by_one_to_a_limit_below_what_they_use_are_not_killed() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::new() else { return };
    serve(&mut daemon, MOUNTS, &[]);
    for group in ["memory:/c", "pids:/c"] {
        daemon.ok(&["create", group]);
    }
    daemon.ok(&["set", "memory:/c", "memory.limit_in_bytes=32M"]);
    let sleeper = daemon.sleeper();
    daemon.ok(&["move", &sleeper.pid().to_string(), "pids:/c"]);
    let held = daemon.dir.join("held").display().to_string();
    let hold = format!(
        "exec python3 -c 'import time; all = bytearray(48 << 20); open(\"{held}\", \"w\"); time.sleep(600)'"
    );
    let holder = start(&daemon, &["pids:/c"], &hold);
    eventually("it holds 48 MiB", || std::path::Path::new(&held).exists());
    let before = kills();
    let all = daemon.numbers("p/c/tasks");
    for task in &all {
        daemon.ok(&["move", &task.to_string(), "memory:/c"]);
    }
    assert_eq!(daemon.numbers("m/c/tasks"), all);
    let dirs = "find /sys/fs/cgroup -name 'cell.*' | wc -l";
    eventually("where they came from has gone", || daemon::text(&daemon.script(dirs).stdout).trim() == "1");
    // Whatever is written then is: another change is made after it.
    daemon.ok(&["create", "memory:/c/d"]);
    assert_eq!(daemon.numbers("p/c/tasks"), all);
    assert_eq!(kills(), before);
    assert!(number(&daemon.read("m/c/memory.usage_in_bytes")) < 32 << 20, "what came before is not its own");
    assert_eq!(enforced(&daemon, "memory:/c", "memory.limit_in_bytes"), "native");
    // What they use from now on is limited.
    daemon.overstep_memory("memory:/c");
    drop(sleeper);
    end(daemon, vec![holder]);
}
