//! What shares, weights and soft limits do, not what their files say: measured for a while, and on one kernel. Only where the v2 tree has controllers.

use std::process::Child;

use crate::crossing::{self, enforced, number, serve};
use crate::daemon::{self, Daemon, eventually, in_guest};
use crate::effects::start;

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
        ratio(1_000_000_000, used);
        let ratio = ratio(3_000_000_000, used);
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

/// A disk that answers one request at a time, after 2 ms, and that BFQ never leaves to somebody else while a group has its turn.
const SLOW_DISK: &str = "modprobe -a bfq null_blk && modprobe -r null_blk \
     && modprobe null_blk queue_mode=2 irqmode=2 completion_nsec=2000000 hw_queue_depth=1 submit_queues=1 gb=1 && cd /sys/block/nullb0/queue \
     && echo bfq > scheduler && echo 64 > nr_requests && echo 0 > iosched/low_latency && echo 1 > iosched/strict_guarantees";

#[test]
fn two_groups_that_read_a_disk_of_bfq_share_it_by_their_weights() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::new() else { return };
    // First, as the kernel has the files from then on.
    assert!(daemon.script(SLOW_DISK).status.success(), "the guest's kernel has BFQ and null_blk");
    daemon.serve("blkio:cg");
    for (group, weight) in [("/a", 500), ("/b", 100)] {
        daemon.ok(&["create", group]);
        daemon.ok(&["set", group, &format!("blkio.bfq.weight={weight}")]);
    }
    // More at once than the disk answers, each somewhere else, so that BFQ always has some of both to choose from.
    let reads = "for n in 1 2 3 4; do dd if=/dev/nullb0 of=/dev/null iflag=direct bs=4k skip=$((n * 10000)) & done; wait";
    let readers = ["/a", "/b"].map(|group| crossing::start(&daemon, &[group], reads));
    let device = std::fs::read_to_string("/sys/block/nullb0/dev").expect("the disk is there");
    let total = format!("{} Read ", device.trim());
    let used = || {
        ["a", "b"].map(|group| {
            let text = daemon.read(&format!("cg/{group}/blkio.throttle.io_serviced"));
            text.lines().find_map(|line| line.strip_prefix(&total)).map_or(0, number)
        })
    };
    eventually("both read", || used().iter().all(|used| *used > 50));
    let ratio = ratio(1500, used);
    eprintln!("a weight of 500 reads {ratio:.2} times as much as 100");
    assert!((2.5..10.0).contains(&ratio), "{ratio}");
    let said = enforced(&daemon, "/a", "blkio.bfq.weight");
    assert!(said.starts_with("native, but only at disks whose scheduler is BFQ"), "{said}");
    for group in ["/a", "/b"] {
        daemon.ok(&["kill", group]);
    }
    for mut child in readers {
        child.wait().expect("timeout is our child");
    }
    daemon.down();
    eventually("nobody has it open", || daemon.script("modprobe -r null_blk").status.success());
}

#[test]
fn a_soft_limit_keeps_memory_from_a_sibling_while_the_group_above_meets_its_limit() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("memory:cg") else { return };
    let device = "modprobe zram && echo 1 > /sys/block/zram0/reset && echo 256M > /sys/block/zram0/disksize";
    assert!(daemon.script(device).status.success(), "the guest's kernel has zram");
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
