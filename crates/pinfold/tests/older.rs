//! A kernel that lacks what came after the oldest that pinfold works on: memory.reclaim and memory.peak (Linux 5.19), which
//! vm/run-in-vm takes out of a newer one. What is done instead is what each row says, and `status` tells of it.

use crate::crossing::{CHARGED, enforced, number, serve, start};
use crate::daemon::{self, Daemon, eventually, in_guest};
use crate::reclaiming::{FULL, LOWERED, Swapping};

/// Whether this is the guest with that kernel.
fn in_older_guest() -> bool {
    in_guest() && {
        let parameters = std::fs::read_to_string("/proc/cmdline").expect("every kernel has one");
        let wanted = "without=reclaim,peak";
        assert!(parameters.split(' ').any(|word| word == wanted), "run-in-vm --append lacks {wanted}");
        true
    }
}

const THROTTLED: &str = "native; room for a lower limit is made by memory.high alone, which slows the group down meanwhile: the \
                         kernel below has no memory.reclaim";

#[test]
fn without_reclaim_a_limit_is_lowered_by_the_throttle_as_far_as_there_is_swap() {
    if !in_older_guest() {
        return;
    }
    let Some(swapping) = Swapping::new() else { return };
    let daemon = &swapping.0;
    for file in ["memory.reclaim", "memory.peak"] {
        assert!(!daemon.base.outside().join(file).exists(), "the kernel has {file}");
    }
    for file in ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"] {
        assert_eq!(enforced(daemon, "/a", file), THROTTLED);
    }
    let mut holder = swapping.holder(FULL);
    daemon.write("cg/a/memory.limit_in_bytes", &LOWERED.to_string()).expect("the rest can be swapped");
    assert!(swapping.used() <= LOWERED, "{}", swapping.used());
    assert_eq!(swapping.throttles(), Vec::<String>::new());
    // What the kernel has for somebody does not go to swap.
    assert!(swapping.refuses("memory.limit_in_bytes", "4096"));
    assert_eq!(swapping.number("memory.limit_in_bytes"), LOWERED);
    assert_eq!(swapping.throttles(), Vec::<String>::new());
    assert!(holder.try_wait().expect("timeout is our child").is_none(), "nobody is killed");
    // Nor does more go there than the limit of both leaves.
    assert!(swapping.refuses("memory.memsw.limit_in_bytes", &(FULL / 2).to_string()));
    daemon.write("cg/a/memory.memsw.limit_in_bytes", &(FULL * 2).to_string()).expect("more than is used");
    daemon.ok(&["kill", "/a"]);
    holder.wait().expect("timeout is our child");
    swapping.down();
}

#[test]
fn without_reclaim_a_divided_limit_is_lowered_as_well() {
    if !in_older_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::new() else { return };
    serve(&mut daemon, &[("memory", "cg"), ("pids", "p"), ("cpu,cpuacct", "c")], &[]);
    let groups = ["memory:/a", "pids:/a", "cpu:/a"];
    groups.iter().for_each(|group| _ = daemon.ok(&["create", group]));
    let swapping = Swapping::with(daemon);
    let daemon = &swapping.0;
    daemon.write("cg/a/memory.limit_in_bytes", &FULL.to_string()).expect("nobody uses any");
    let idle = start(daemon, &groups, "exec sleep 600");
    eventually("it is in all three", || daemon.numbers("c/a/tasks").len() == 1);
    // Not in the others' groups, so not in the directory of the first.
    let mut holder = start(daemon, &groups[..1], "dd if=/dev/zero bs=80M count=1 2>/dev/null | sleep 600");
    eventually("dd has its buffer", || swapping.used() > 80 << 20);
    let told = enforced(daemon, "memory:/a", "memory.limit_in_bytes");
    assert_eq!(told, format!("{CHARGED}{}", THROTTLED.strip_prefix("native").expect("so it begins")));
    daemon.write("cg/a/memory.limit_in_bytes", &LOWERED.to_string()).expect("the rest can be swapped");
    assert!(swapping.used() <= LOWERED, "{}", swapping.used());
    assert!(swapping.refuses("memory.limit_in_bytes", "4096"));
    assert_eq!(swapping.number("memory.limit_in_bytes"), LOWERED);
    assert!(holder.try_wait().expect("timeout is our child").is_none(), "nobody is killed");
    assert!(daemon.read("cg/a/memory.oom_control").ends_with("\noom_kill 0\n"));
    daemon.ok(&["kill", "memory:/a"]);
    for mut child in [idle, holder] {
        child.wait().expect("timeout is our child");
    }
    swapping.down();
}

/// Not even a strict realm refuses it: the kernel enforces the limit as ever.
#[test]
fn without_reclaim_and_swap_a_limit_is_lowered_as_far_as_files_can_go_and_nobody_is_killed() {
    if !in_older_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::new() else { return };
    serve(&mut daemon, &[("memory", "cg")], &["--strict"]);
    daemon.ok(&["create", "/a"]);
    // 12 MiB that can be read again, as long as somebody has the disk open, and then 48 that cannot.
    let script = "exec 3</dev/vda; dd bs=1M count=12 <&3 >/dev/null 2>&1; dd if=/dev/zero bs=48M count=1 2>/dev/null | sleep 600";
    let mut holder = daemon.command(daemon::BINARY);
    let mut holder =
        holder.args(["exec", "-g", "/a", "--", "sh", "-c", script]).spawn().expect("timeout runs");
    let figure = |file: &str| number(&daemon.read(&format!("cg/a/memory.{file}")));
    eventually("both are there", || figure("usage_in_bytes") > 60 << 20);
    let errno = |text: &str| {
        daemon.write("cg/a/memory.limit_in_bytes", text).err().and_then(|error| error.raw_os_error())
    };
    assert_eq!(errno("32M"), Some(rustix::io::Errno::BUSY.raw_os_error()));
    assert_eq!(daemon.read("cg/a/memory.limit_in_bytes"), "9223372036854771712\n");
    assert!(daemon.read("cg/a/memory.oom_control").ends_with("\noom_kill 0\n"));
    assert!(holder.try_wait().expect("timeout is our child").is_none(), "nobody is killed");
    assert_eq!(errno("56M"), None);
    assert!(figure("usage_in_bytes") <= 56 << 20);
    assert_eq!(enforced(&daemon, "/a", "memory.limit_in_bytes"), THROTTLED);
    daemon.ok(&["kill", "/a"]);
    holder.wait().expect("timeout is our child");
    daemon.down();
}

#[test]
fn without_reclaim_a_group_is_emptied_by_the_throttle_and_without_a_peak_reads_find_the_most() {
    if !in_older_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("memory:cg") else { return };
    daemon.ok(&["create", "/a"]);
    let mut holder = daemon.command(daemon::BINARY);
    let script = "exec 3</dev/vda; dd bs=1M count=12 <&3 >/dev/null 2>&1; exec sleep 600";
    let mut holder =
        holder.args(["exec", "-g", "/a", "--", "sh", "-c", script]).spawn().expect("timeout runs");
    let figure = |file: &str| number(&daemon.read(&format!("cg/a/memory.{file}")));
    eventually("the disk is read", || figure("max_usage_in_bytes") > 12 << 20);
    daemon.write("cg/a/memory.force_empty", "0").expect("what was read can go");
    let (now, most) = (figure("usage_in_bytes"), figure("max_usage_in_bytes"));
    assert!(now < 6 << 20 && most > 12 << 20, "{now} of {most}");
    let find = format!("find {}/*/ -name memory.high -exec cat {{}} +", daemon.base.path().display());
    let throttles = daemon::text(&daemon.script(&find).stdout);
    assert!(!throttles.is_empty() && throttles.lines().all(|most| most == "max"), "{throttles}");
    assert_eq!(
        enforced(&daemon, "/a", "memory.force_empty"),
        "memory.high is 0 for a moment, which slows the group down meanwhile: the kernel below has no memory.reclaim"
    );
    for file in ["memory.max_usage_in_bytes", "memory.memsw.max_usage_in_bytes"] {
        assert_eq!(
            enforced(&daemon, "/a", file),
            "it is the most that any read of this file has found since the last write: the kernel below has no memory.peak"
        );
    }
    let status = daemon.ok(&["status", "/a"]);
    let line = status.lines().find(|line| line.contains(" memory.max_usage_in_bytes "));
    assert!(line.is_some_and(|line| line.contains(&most.to_string())), "{status}");
    // The root's limits and figures are the machine's.
    assert!(!daemon.ok(&["status", "/"]).contains("the kernel below has no"));
    daemon.ok(&["kill", "/a"]);
    holder.wait().expect("timeout is our child");
    daemon.down();
}
