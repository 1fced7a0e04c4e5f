//! cpuset, enforced by the kernel below: only in the guest.

mod daemon;

use daemon::{Daemon, in_guest, text};

/// The CPUs that a process may run on, as the kernel says it.
const ALLOWED: &str = "sed -n 's/^Cpus_allowed_list:\\t//p' /proc/self/status";

#[test]
fn a_process_runs_on_its_groups_cpus_and_no_others() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("cpuset:cg") else { return };
    assert_eq!(daemon.read("cg/cpuset.cpus"), "0-1\n");
    let made = daemon.script("mkdir cg/a cg/a/b && echo $$ > cg/a/tasks");
    assert!(text(&made.stderr).contains("No space left on device"), "{}", text(&made.stderr));
    let shown = daemon.script(&format!(
        "echo 1 > cg/a/cpuset.cpus && echo 0 > cg/a/cpuset.mems && echo $$ > cg/a/tasks && {ALLOWED} && \
         taskset -p $$ && echo 0-1 > cg/a/cpuset.cpus && {ALLOWED} && echo 0 > cg/a/cpuset.cpus && {ALLOWED} && \
         taskset -p 3 $$ && {ALLOWED}"
    ));
    let shown = (text(&shown.stdout), text(&shown.stderr));
    let masks: Vec<_> = shown.0.lines().filter(|line| !line.starts_with("pid")).collect();
    assert_eq!(masks, ["1", "0-1", "0", "0"], "{shown:?}");
    assert!(shown.0.contains("affinity mask: 2\n"), "{shown:?}");
    // A group below has a part of it; it can have no more.
    let shown = daemon.script(&format!(
        "echo 0-1 > cg/a/cpuset.cpus && echo 1 > cg/a/b/cpuset.cpus && echo 0 > cg/a/b/cpuset.mems && \
         echo $$ > cg/a/b/cgroup.procs && {ALLOWED} && echo 0 > cg/a/cpuset.cpus"
    ));
    assert_eq!(text(&shown.stdout), "1\n");
    assert!(text(&shown.stderr).contains("Device or resource busy"), "{}", text(&shown.stderr));
    // What the manager makes can be used at once.
    let command = ["exec", "-g", "cpuset:/c", "--", "sh", "-c", ALLOWED];
    daemon.ok(&["create", "cpuset:/c"]);
    assert_eq!(daemon.ok(&command), "0-1\n");
    daemon.ok(&["set", "cpuset:/c", "cpuset.cpus=0"]);
    assert_eq!(daemon.ok(&command), "0\n");
    assert!(
        daemon.refused(&["set", "cpuset:/c", "cpuset.cpus=7"]).contains("above 1, the last there could be")
    );
    daemon.down();
}

/// The lists are held where another hierarchy decides where the process is in the v2 tree.
#[test]
fn cpus_hold_beside_a_hierarchy_with_limits_and_after_a_new_start() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("pids:limits") else { return };
    std::fs::create_dir(daemon.path("cg")).unwrap();
    let made = daemon.script(&format!("'{}' mount -o cpuset,clone_children cg", daemon::BINARY));
    assert!(made.status.success(), "{}", text(&made.stderr));
    daemon.ok(&["create", "pids:/x"]);
    let sleeper = daemon.sleeper();
    let pid = sleeper.pid().to_string();
    let written = daemon.script("mkdir cg/a && echo 1 > cg/a/cpuset.cpus");
    assert!(written.status.success(), "{}", text(&written.stderr));
    assert_eq!(daemon.read("cg/a/cpuset.mems"), "0\n");
    let allowed = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:\t"));
        line.expect("every process has it").to_owned()
    };
    assert_eq!(allowed(), "0-1");
    daemon.ok(&["move", &pid, "pids:/x"]);
    daemon.ok(&["move", &pid, "cpuset:/a"]);
    assert_eq!(allowed(), "1");
    daemon.ok(&["set", "cpuset:/a", "cpuset.cpus=0"]);
    assert_eq!(allowed(), "0");
    daemon.kill();
    daemon.serve("");
    daemon.ok(&["set", "cpuset:/a", "cpuset.cpus=1"]);
    assert_eq!(allowed(), "1");
    daemon.ok(&["move", &pid, "cpuset:/"]);
    assert_eq!(allowed(), "0-1");
    drop(sleeper);
    daemon.down();
}
