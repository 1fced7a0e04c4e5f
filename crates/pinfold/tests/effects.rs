//! What bursts, idle groups, reclaim on request and writes a second do, not what their files say. Only where the v2 tree has
//! controllers.

use std::process::Child;
use std::time::Instant;

use crate::crossing::number;
use crate::daemon::{self, Daemon, eventually, in_guest};

fn stat(daemon: &Daemon, file: &str, field: &str) -> u64 {
    let text = daemon.read(file);
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(' '));
    number(value.expect("a line for each"))
}

/// What a script does in a group, on one processor, until it is killed.
pub(crate) fn start(daemon: &Daemon, group: &str, script: &str) -> Child {
    let mut command = daemon.command("taskset");
    command.args(["-c", "0", daemon::BINARY, "exec", "-g", group, "--", "sh", "-c", script]);
    command.spawn().expect("timeout runs")
}

#[test]
fn what_was_not_used_of_a_quota_may_be_used_in_a_burst() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("cpu:cg") else { return };
    daemon.ok(&["create", "/a"]);
    daemon.ok(&["set", "/a", "cpu.cfs_quota_us=50000"]);
    // Whoever stays keeps the directory, and what is left over in it.
    let sleeper = daemon.sleeper();
    daemon.ok(&["move", &sleeper.pid().to_string(), "/a"]);
    // More CPU time at a stretch than the quota of a period, and less than that and what may be left over. Nobody else needs the
    // processor meanwhile.
    let script = "exec python3 -c '
import time
for _ in range(10):
    began = time.process_time()
    while time.process_time() - began < 0.08: pass
    time.sleep(0.3)'";
    let work = || {
        let status = start(&daemon, "/a", script).wait().expect("timeout is our child");
        assert!(status.success(), "{status}");
    };
    let file = "cg/a/cpu.stat";
    work();
    assert!(stat(&daemon, file, "nr_throttled") >= 5, "it was held back: {}", daemon.read(file));
    assert_eq!((stat(&daemon, file, "nr_bursts"), stat(&daemon, file, "burst_time")), (0, 0));
    daemon.write("cg/a/cpu.cfs_burst_us", "50000").expect("no more than the quota");
    work();
    assert!(stat(&daemon, file, "nr_bursts") >= 2, "it has used what was left over: {}", daemon.read(file));
    assert!(stat(&daemon, file, "burst_time") > 0);
    sleeper.end();
    daemon.down();
}

#[test]
fn an_idle_group_leaves_the_cpu_to_others() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("cpu,cpuacct:cg") else { return };
    for group in ["/idle", "/busy"] {
        daemon.ok(&["create", group]);
    }
    daemon.write("cg/idle/cpu.idle", "1").expect("below the root");
    let used = |group: &str| number(&daemon.read(&format!("cg/{group}/cpuacct.usage")));
    let burns = "while :; do :; done";
    let mut idle = start(&daemon, "/idle", burns);
    eventually("alone it runs", || used("idle") > 100_000_000);
    let mut busy = start(&daemon, "/busy", burns);
    // A program that is loaded waits for its disk, and leaves the CPU to whoever wants it.
    eventually("both burn", || used("busy") > 1_000_000_000);
    let before = (used("idle"), used("busy"));
    eventually("one of them runs", || used("busy") > before.1 + 1_000_000_000);
    let (idle_used, busy_used) = (used("idle") - before.0, used("busy") - before.1);
    assert!(idle_used < busy_used / 10, "{idle_used} of the idle, {busy_used} of the other");
    for group in ["/idle", "/busy"] {
        daemon.ok(&["kill", group]);
    }
    for child in [&mut idle, &mut busy] {
        child.wait().expect("timeout is our child");
    }
    daemon.down();
}

#[test]
fn what_gone_processes_left_in_memory_is_reclaimed_on_request() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("memory:cg") else { return };
    daemon.ok(&["create", "/a"]);
    let disk = std::fs::File::open("/dev/vda").expect("the guest has a disk"); // its last close would empty the cache
    let usage = || number(&daemon.read("cg/a/memory.usage_in_bytes"));
    // Without a process there is no directory, and nothing is charged to the group.
    let sleeper = daemon.sleeper();
    daemon.ok(&["move", &sleeper.pid().to_string(), "/a"]);
    daemon.ok(&["exec", "-g", "/a", "--", "dd", "if=/dev/vda", "of=/dev/null", "bs=1M"]);
    assert!(usage() > 7 << 20, "{}", usage());
    assert!(stat(&daemon, "cg/a/memory.stat", "cache") > 7 << 20, "{}", daemon.read("cg/a/memory.stat"));
    daemon.write("cg/a/memory.force_empty", "0").expect("below the root");
    assert!(usage() < 2 << 20, "{}", usage());
    assert_eq!(daemon.numbers("cg/a/tasks"), [sleeper.pid()]);
    drop(disk);
    sleeper.end();
    daemon.down();
}

#[test]
fn a_disk_is_written_as_often_as_a_group_may() {
    const RATE: u64 = 20;
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("blkio:cg") else { return };
    daemon.ok(&["create", "/a"]);
    let disk = std::fs::read_to_string("/sys/block/vda/dev").expect("the guest has a disk");
    let limit = format!("{} {RATE}", disk.trim());
    daemon.write("cg/a/blkio.throttle.write_iops_device", &limit).expect("a limit");
    let writes = "while :; do dd if=/dev/zero of=/dev/vda oflag=direct bs=4k count=1000; done 2>/dev/null";
    let mut writer = start(&daemon, "/a", writes);
    let written = || {
        let text = daemon.read("cg/a/blkio.throttle.io_serviced");
        text.lines().find_map(|line| line.split_once(" Write ")).map_or(0, |(_, times)| number(times))
    };
    eventually("it writes", || written() > RATE);
    let (start, first) = (Instant::now(), written());
    eventually("it goes on", || written() >= first + 2 * RATE);
    let rate = (written() - first) as f64 / start.elapsed().as_secs_f64() / RATE as f64;
    assert!(rate > 0.2 && rate < 1.25, "it writes at {rate:.2} of the rate");
    daemon.ok(&["kill", "/a"]);
    writer.wait().expect("timeout is our child");
    daemon.down();
}
