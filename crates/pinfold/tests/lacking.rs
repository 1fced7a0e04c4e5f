//! A kernel that lacks what most have: booted without PSI, with controllers disabled, and with no swap (xtask/src/vm_test.rs has its
//! parameters). What each row says of that is what happens, and `status`, `doctor` and the log tell of it.

use std::path::Path;

use crate::crossing::{enforced, number, serve, start};
use crate::daemon::{Daemon, eventually, in_guest, text};
use crate::notifying::Ear;
use pinfold_dbus::{Client, ClientError};

/// Whether this is the guest with that kernel.
fn in_lacking_guest() -> bool {
    in_guest() && {
        let parameters = std::fs::read_to_string("/proc/cmdline").expect("every kernel has one");
        for wanted in ["psi=0", "cgroup_disable=hugetlb,pids"] {
            assert!(parameters.split(' ').any(|word| word == wanted), "run-in-vm --append lacks {wanted}");
        }
        true
    }
}

/// The lines of what `doctor` says of something.
fn doctor_says(daemon: &Daemon, what: &str) -> String {
    let said = daemon.ok(&["doctor", "--base", &daemon.base.path().display().to_string()]);
    let mut lines = said.lines().skip_while(|line| !line.contains(what));
    format!("{}\n{}\n", lines.next().unwrap_or_default(), lines.next().unwrap_or_default())
}

#[test]
fn a_disabled_controller_that_only_the_kernel_can_do_is_refused_at_mount_and_left_out_of_all() {
    if !in_lacking_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    let names = std::fs::read_dir(daemon.path("cg")).expect("mounted").map(|entry| entry.expect("a file"));
    let names: Vec<String> = names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    assert!(names.iter().any(|name| name.starts_with("memory.")), "{names:?}");
    assert!(!names.iter().any(|name| name.starts_with("hugetlb.")), "{names:?}");
    let why = format!(
        "hugetlb is not in cgroup.controllers of {}, and nobody but the kernel can charge huge pages",
        daemon.base.path().display()
    );
    let client = Client::connect(&daemon.state().join("socket")).expect("the door is open");
    for options in ["hugetlb", "memory,hugetlb"] {
        // As Linux 6.1 answers, whatever else is asked for.
        match client.mount(options) {
            Err(ClientError::Refused(refusal)) => {
                assert_eq!(refusal.errno(), "EINVAL", "{options}");
                assert!(refusal.to_string().contains(&why), "{refusal}");
            }
            other => panic!("{options}: {other:?}"),
        }
        let told = format!("{options} is not mounted: controller hugetlb is not available here: {why}");
        assert!(daemon.log().contains(&told), "{}", daemon.log());
    }
    let shown = daemon.ok(&["controllers"]);
    let line = shown.lines().find(|line| line.starts_with("hugetlb")).expect("a line for each");
    assert!(line.contains("not usable here: hugetlb is not in cgroup.controllers of"), "{shown}");
    let said = doctor_says(&daemon, "controller hugetlb");
    assert!(said.contains("cannot be mounted: the v2 tree does not offer it, and nobody but"), "{said}");
    daemon.down();
}

#[test]
fn a_disabled_controller_that_user_space_can_do_limits_all_the_same() {
    if !in_lacking_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("pids,memory:cg") else { return };
    daemon.ok(&["create", "/a"]);
    daemon.ok(&["set", "/a", "pids.max=2", "memory.limit_in_bytes=64M"]);
    let script = "sleep 600 >&- 2>&- & sleep 600 >&- 2>&- & wait $!; echo $?";
    let output = daemon.pinfold(&["exec", "-g", "/a", "--", "sh", "-c", script]);
    assert_eq!(text(&output.stdout), "137\n", "killed where fork would have failed: {}", daemon.log());
    assert_eq!(daemon.read("cg/a/pids.events"), "max 1\n");
    assert_eq!(enforced(&daemon, "/a", "pids.max"), "user space, as the v2 tree does not offer pids");
    assert_eq!(enforced(&daemon, "/a", "memory.limit_in_bytes"), "native");
    let why = "controller pids is done from user space: pids is not in cgroup.controllers of";
    assert!(daemon.log().contains(why), "{}", daemon.log());
    let said = doctor_says(&daemon, "controller pids");
    assert!(said.contains("from user space, as the v2 tree does not offer it: a process that is"), "{said}");
    daemon.ok(&["kill", "/a"]);
    daemon.down();
}

#[test]
fn without_pressure_the_parts_of_a_rate_follow_what_is_used() {
    const RATE: u64 = 4 << 20;
    if !in_lacking_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::new() else { return };
    serve(&mut daemon, &[("memory", "m"), ("blkio", "b")], &[]);
    for group in ["memory:/a", "memory:/b", "blkio:/c"] {
        daemon.ok(&["create", group]);
    }
    let disk = std::fs::read_to_string("/sys/block/vda/dev").expect("the guest has a disk");
    let file = "blkio.throttle.write_bps_device";
    daemon.write(&format!("b/c/{file}"), &format!("{} {RATE}", disk.trim())).expect("a limit");
    let writes = "while :; do dd if=/dev/zero of=/dev/vda oflag=direct bs=64k count=32; done; exec sleep 600";
    let idle = start(&daemon, &["memory:/b", "blkio:/c"], "sleep 600; :");
    let busy = start(&daemon, &["memory:/a", "blkio:/c"], writes);
    let members = |group: &str| daemon.numbers(&format!("m/{group}/tasks"));
    eventually("both are there", || members("a").len() >= 2 && members("b").len() >= 2);
    assert_eq!(
        enforced(&daemon, "blkio:/c", file),
        "shared over 2 v2 directories by rates alone, which takes longer: the kernel below has no io.pressure"
    );
    let said = doctor_says(&daemon, "I/O pressure");
    assert!(said.contains("not told by the kernel") && said.contains("psi=1"), "{said}");
    assert!(!Path::new("/proc/pressure").exists(), "the kernel has no PSI");
    // The part of a member's directory.
    let part = |group: &str| {
        let member = *members(group).first()?;
        let place = std::fs::read_to_string(format!("/proc/{member}/cgroup")).ok()?;
        let dir = place.lines().find_map(|line| line.strip_prefix("0::"))?;
        let text = std::fs::read_to_string(format!("/sys/fs/cgroup{dir}/io.max")).ok()?;
        text.split_ascii_whitespace().find_map(|word| word.strip_prefix("wbps=")?.parse::<u64>().ok())
    };
    eventually(
        "who writes has nearly all",
        || matches!((part("a"), part("b")), (Some(busy), Some(idle)) if busy > RATE / 10 * 9 && idle < RATE / 10),
    );
    for (group, mut child) in [("memory:/a", busy), ("memory:/b", idle)] {
        daemon.ok(&["kill", group]);
        child.wait().expect("timeout is our child");
    }
    daemon.down();
}

#[test]
fn without_pressure_who_listens_for_it_is_told_by_what_reclaim_finds() {
    if !in_lacking_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("memory:cg") else { return };
    daemon.ok(&["create", "/a"]);
    daemon.ok(&["set", "/a", "memory.limit_in_bytes=16M"]);
    let heard = Ear::listening(&daemon, "cg/a", "memory.pressure_level", "critical");
    daemon.overstep_memory("/a");
    assert!(heard.wakes() > 0);
    daemon.down();
}

#[test]
fn without_swap_a_limit_of_both_is_one_of_memory() {
    if !in_lacking_guest() {
        return;
    }
    let swaps = std::fs::read_to_string("/proc/swaps").expect("the kernel can swap");
    assert_eq!(swaps.lines().count(), 1, "nothing but the heading: {swaps}");
    let Some(mut daemon) = Daemon::serving("memory:cg") else { return };
    daemon.ok(&["create", "/a"]);
    daemon.ok(&["set", "/a", "memory.limit_in_bytes=32M", "memory.memsw.limit_in_bytes=256M"]);
    assert_eq!(enforced(&daemon, "/a", "memory.memsw.limit_in_bytes"), "native");
    daemon.overstep_memory("/a");
    let most = ["memory.max_usage_in_bytes", "memory.memsw.max_usage_in_bytes"]
        .map(|file| number(&daemon.read(&format!("cg/a/{file}"))));
    assert!(most[0] <= 32 << 20 && most[0] == most[1], "{most:?}");
    assert!(number(&daemon.read("cg/a/memory.failcnt")) > 0);
    assert_eq!(daemon.read("cg/a/memory.memsw.failcnt"), "0\n");
    assert!(daemon.read("cg/a/memory.stat").contains("\nswap 0\n"));
    daemon.down();
}
