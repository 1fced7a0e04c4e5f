//! What bursts, idle groups, shares, soft limits, reclaim on request and writes a second do, not what their files say. Only where the v2 tree has
//! controllers.

use std::process::Child;
use std::time::Instant;

use crate::crossing::{enforced, serve};
use crate::daemon::{self, Daemon, eventually, in_guest};

fn number(text: &str) -> u64 {
    text.trim().parse().expect("a number")
}

fn stat(daemon: &Daemon, file: &str, field: &str) -> u64 {
    let text = daemon.read(file);
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(' '));
    number(value.expect("a line for each"))
}

/// What a script does in a group, on one processor, until it is killed.
fn start(daemon: &Daemon, group: &str, script: &str) -> Child {
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

/// How many times as much of something one has been given as the other, while it got so much more.
fn ratio(most: u64, used: impl Fn() -> [u64; 2]) -> f64 {
    let before = used();
    eventually("they go on", || used()[0] > before[0] + most);
    let after = used();
    (after[0] - before[0]) as f64 / (after[1] - before[1]).max(1) as f64
}

#[test]
fn two_busy_groups_share_a_cpu_by_their_shares_where_nobody_parts_them() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::new() else { return };
    serve(&mut daemon, &[("memory", "m"), ("cpu,cpuacct", "c")], &[]);
    for group in ["cpu:/c", "cpu:/d", "memory:/a", "memory:/b"] {
        daemon.ok(&["create", group]);
    }
    daemon.ok(&["set", "cpu:/c", "cpu.shares=2048"]);
    let used = || ["c", "d"].map(|group| number(&daemon.read(&format!("c/{group}/cpuacct.usage"))));
    // A move to another group gives a process back all CPUs, on older kernels.
    let burns = "exec taskset -c 0 sh -c \"while :; do :; done\"";
    let measured = |all: Vec<Child>| {
        eventually("both burn", || used().iter().all(|used| *used > 200_000_000));
        // Whoever starts waits for its disk, and leaves the CPU to the other.
        ratio(2_000_000_000, used);
        let ratio = ratio(6_000_000_000, used);
        eprintln!("2048 shares have {ratio:.2} times as much CPU time as 1024");
        for group in ["cpu:/c", "cpu:/d"] {
            daemon.ok(&["kill", group]);
        }
        for mut child in all {
            child.wait().expect("timeout is our child");
        }
        ratio
    };
    let together = ["cpu:/c", "cpu:/d"].map(|group| start(&daemon, group, burns));
    eventually("both are there", || {
        ["c/c", "c/d"].iter().all(|group| !daemon.numbers(&format!("{group}/tasks")).is_empty())
    });
    assert_eq!(enforced(&daemon, "cpu:/c", "cpu.shares"), "native");
    let ratio = measured(together.into());
    assert!((1.4..2.4).contains(&ratio), "{ratio}");
    // Below groups of another hierarchy, it is those that are weighed against each other.
    let enter = |memory: &str, cpu: &str| {
        let burn = format!("exec {} exec -g {cpu} -- sh -c '{burns}'", daemon::BINARY);
        start(&daemon, memory, &burn)
    };
    let apart = vec![enter("memory:/a", "cpu:/c"), enter("memory:/b", "cpu:/d")];
    eventually("both are there", || {
        ["c/c", "c/d", "m/a", "m/b"].iter().all(|group| !daemon.numbers(&format!("{group}/tasks")).is_empty())
    });
    let said = enforced(&daemon, "cpu:/c", "cpu.shares");
    assert!(said.starts_with("native, but weighed only against those"), "{said}");
    let ratio = measured(apart);
    assert!((0.7..1.4).contains(&ratio), "{ratio}");
    daemon.down();
}

#[test]
fn a_soft_limit_keeps_memory_from_a_sibling_while_the_group_above_meets_its_limit() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("memory:cg") else { return };
    assert!(daemon.script("modprobe zram && echo 256M > /sys/block/zram0/disksize").status.success());
    for group in ["/p", "/p/x", "/p/y"] {
        daemon.ok(&["create", group]);
    }
    daemon.ok(&["set", "/p", "memory.limit_in_bytes=96M"]);
    let used = |group: &str| number(&daemon.read(&format!("cg/p/{group}/memory.usage_in_bytes")));
    // What x has read is in the page cache, and y reads more than there is room for. What x keeps of it:
    let kept = || {
        let mut x = start(
            &daemon,
            "/p/x",
            "exec 3</dev/zram0; dd bs=1M count=48 <&3 >/dev/null 2>&1; exec sleep 600",
        );
        eventually("x has read", || used("x") > 48 << 20);
        // Much more than both have, twice, and none of what x has read.
        let reads =
            "for n in 1 2; do dd if=/dev/zram0 bs=1M skip=48 count=208 of=/dev/null; done 2>/dev/null";
        let mut y = start(&daemon, "/p/y", reads);
        assert!(y.wait().expect("timeout is our child").success());
        let kept = used("x");
        daemon.ok(&["kill", "/p/x"]);
        x.wait().expect("timeout is our child");
        kept
    };
    let without = kept();
    daemon.ok(&["set", "/p/x", "memory.soft_limit_in_bytes=64M"]);
    let with = kept();
    eprintln!("of 48 MiB, {} MiB are kept with a soft limit and {} without", with >> 20, without >> 20);
    assert!(with > 44 << 20, "{with}");
    assert!(without < 36 << 20, "{without}");
    eventually("nobody has it open", || daemon.script("echo 1 > /sys/block/zram0/reset").status.success());
    daemon.down();
}
