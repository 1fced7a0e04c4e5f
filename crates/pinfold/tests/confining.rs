//! cpuset, blkio and hugetlb, enforced by the kernel below: only in the guest.

use std::process::Command;
use std::time::Instant;

use crate::daemon::{self, Daemon, eventually, in_guest, text};

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

/// v1 forgets what a task chose only when it is moved in the hierarchy of cpuset; before Linux 6.2, v2 does in all.
#[test]
fn a_task_keeps_the_cpus_that_it_chose_when_it_is_moved_elsewhere() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::new() else { return };
    let mounts = ["memory", "pids", "cpuset,clone_children"].map(|options| {
        let dir = options.split(',').next().expect("the first");
        format!("--mount={options}:{}", daemon.dir.join(dir).display())
    });
    daemon.try_serve(&mounts).expect("it starts");
    let shown = daemon.script(&format!(
        "mkdir memory/a pids/a && taskset -cp 1 $$ >&2 && \
         for group in memory/a pids/a memory; do echo $$ > $group/tasks; {ALLOWED}; done"
    ));
    assert_eq!(text(&shown.stdout), "1\n1\n1\n", "{}", text(&shown.stderr));
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

/// A disk gives a group what it may have in a second, and no more; v1's figures say what was done.
#[test]
fn a_disk_is_read_at_the_rate_that_is_set() {
    const RATE: u64 = 1 << 20;
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("blkio:cg") else { return };
    let disk = std::fs::read_to_string("/sys/block/vda/dev").expect("the guest has a disk");
    let disk = disk.trim();
    daemon.script("mkdir cg/a cg/a/b");
    let limit = format!("{disk} {RATE}");
    let file = "cg/a/blkio.throttle.read_bps_device";
    assert_eq!(daemon.write(file, "250:7 1024").unwrap_err().raw_os_error(), Some(19), "no such disk");
    assert_eq!(daemon.write(file, &format!("{disk} abc")).unwrap_err().raw_os_error(), Some(22));
    daemon.write(file, &limit).unwrap();
    daemon.write("cg/a/blkio.throttle.write_iops_device", &format!("{disk} 99999999999")).unwrap();
    assert_eq!(daemon.read(file), format!("{limit}\n"));
    assert_eq!(daemon.read("cg/a/blkio.throttle.write_iops_device"), format!("{disk} 1215752191\n"));
    // A group below is bound as well.
    let begun = Instant::now();
    let read = daemon.script(
        "echo $$ > cg/a/b/tasks && dd if=/dev/vda of=/dev/null iflag=direct bs=128k count=24 2>/dev/null; echo $?",
    );
    let took = begun.elapsed().as_secs_f64();
    assert_eq!(text(&read.stdout), "0\n", "{}", text(&read.stderr));
    // 3 MiB at 1 MiB a second; a slice of time is given in advance.
    assert!(took > 2.0, "{took} s");
    eventually("dd has left", || daemon.read("cg/a/b/tasks").is_empty());
    let own = daemon.read("cg/a/b/blkio.throttle.io_service_bytes");
    assert!(own.contains(&format!("{disk} Read {}\n", 3 << 20)), "{own}");
    assert!(daemon.read("cg/a/b/blkio.throttle.io_serviced").contains(&format!("{disk} Read 24\n")));
    assert_eq!(daemon.read("cg/a/blkio.throttle.io_service_bytes"), "Total 0\n");
    let all = daemon.read("cg/a/blkio.throttle.io_service_bytes_recursive");
    assert!(all.contains(&format!("{disk} Total {}\nTotal {}\n", 3 << 20, 3 << 20)), "{all}");
    daemon.write("cg/a/b/blkio.reset_stats", "1").unwrap();
    assert!(daemon.read("cg/a/b/blkio.throttle.io_serviced").ends_with("Total 0\n"));
    // 0 lifts it, below too.
    daemon.write(file, &format!("{disk} 0")).unwrap();
    daemon.kill();
    daemon.serve("");
    let sleeper = daemon.sleeper();
    daemon.ok(&["move", &sleeper.pid().to_string(), "blkio:/a"]);
    let v2 = daemon.base.path().parent().expect("the root").join(&sleeper.v2_path()[1..]).join("../io.max");
    assert_eq!(
        std::fs::read_to_string(v2).expect("the group's directory"),
        format!("{disk} rbps=max wbps=max riops=max wiops=1215752191\n")
    );
    drop(sleeper);
    daemon.down();
}

/// BFQ of the kernel below weighs the group at a disk as v1 says; what all disks have goes before what one has, after a restart too.
#[test]
fn a_disk_weighs_a_group_as_it_is_told() {
    const SCHEDULER: &str = "/sys/block/vda/queue/scheduler";
    if !in_guest() {
        return;
    }
    let loaded = Command::new("modprobe").arg("bfq").status().expect("modprobe runs");
    assert!(loaded.success(), "the guest's kernel has BFQ");
    std::fs::write(SCHEDULER, "none").expect("the guest has a disk");
    let Some(mut daemon) = Daemon::serving("blkio:cg") else { return };
    let disk = std::fs::read_to_string("/sys/block/vda/dev").expect("the guest has a disk");
    let disk = disk.trim();
    daemon.script("mkdir cg/a");
    let file = "cg/a/blkio.bfq.weight_device";
    let refusal = |text: String| daemon.write(file, &text).unwrap_err().raw_os_error();
    assert_eq!(refusal(format!("{disk} 200")), Some(95), "not its scheduler");
    std::fs::write(SCHEDULER, "bfq").expect("the kernel has BFQ");
    assert_eq!(refusal("250:7 200".to_owned()), Some(19), "no such disk");
    assert_eq!(refusal(format!("{disk} 1001")), Some(34));
    let sleeper = daemon.sleeper();
    daemon.ok(&["move", &sleeper.pid().to_string(), "blkio:/a"]);
    let root = daemon.base.path().parent().expect("the root").to_owned();
    let v2 = |daemon_is: &str| {
        let file = root.join(&sleeper.v2_path()[1..]).join("../io.bfq.weight");
        let text = std::fs::read_to_string(file).expect("the group's directory");
        assert_eq!(text, daemon_is, "v2 is told what v1 shows");
    };
    daemon.write(file, &format!("{disk} 200")).unwrap();
    assert_eq!(daemon.read(file), format!("default 100\n{disk} 200\n"));
    v2(&daemon.read(file));
    daemon.write("cg/a/blkio.bfq.weight", "300").unwrap();
    assert_eq!(daemon.read(file), "default 300\n");
    v2(&daemon.read(file));
    daemon.write(file, &format!("{disk} 50")).unwrap();
    daemon.kill();
    daemon.serve("blkio:cg");
    assert_eq!(daemon.read(file), format!("default 300\n{disk} 50\n"));
    v2(&daemon.read(file));
    daemon.write(file, &format!("{disk} default")).unwrap();
    v2("default 300\n");
    std::fs::write(SCHEDULER, "none").expect("every kernel has none");
    drop(sleeper);
    daemon.down();
}

/// v1 forgets the shares of a group that becomes idle: two values of one write, both of which outlive the daemon (I8).
#[test]
fn values_that_change_together_are_kept_together() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("cpu:cg") else { return };
    daemon.script("mkdir cg/a && echo 500 > cg/a/cpu.shares && echo 1 > cg/a/cpu.idle");
    daemon.kill();
    daemon.serve("cpu:cg");
    assert_eq!(daemon.read("cg/a/cpu.idle"), "1\n");
    daemon.write("cg/a/cpu.idle", "0").unwrap();
    assert_eq!(daemon.read("cg/a/cpu.shares"), "1024\n");
    daemon.down();
}

#[test]
fn huge_pages_end_at_the_limit() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("hugetlb:cg") else { return };
    std::fs::write("/proc/sys/vm/nr_hugepages", "8").expect("the guest has huge pages");
    daemon.script("mkdir cg/a");
    daemon.write("cg/a/hugetlb.2MB.limit_in_bytes", "7M").unwrap();
    assert_eq!(daemon.read("cg/a/hugetlb.2MB.limit_in_bytes"), "6291456\n");
    // A file in huge pages is charged to who makes it.
    let made = daemon.script(
        "mkdir huge && mount -t hugetlbfs none huge && echo $$ > cg/a/tasks && fallocate -l 4M huge/one && \
         cat cg/a/hugetlb.2MB.usage_in_bytes && ! fallocate -l 4M huge/two && cat cg/a/hugetlb.2MB.usage_in_bytes && \
         ! echo 2M > cg/a/hugetlb.2MB.limit_in_bytes",
    );
    let (said, complaints) = (text(&made.stdout), text(&made.stderr));
    assert!(made.status.success(), "{said}{complaints}");
    assert_eq!(said.lines().next(), Some("4194304"), "{complaints}");
    assert!(complaints.contains("No space left on device"), "{complaints}");
    assert!(complaints.contains("Device or resource busy"), "{complaints}");
    assert_ne!(daemon.read("cg/a/hugetlb.2MB.failcnt"), "0\n");
    let keys = daemon.ok(&["get", "/a", "hugetlb_limit", "hugetlb_usage"]);
    // The shell has ended, and its files count on: all of the first, and half of the second.
    assert_eq!(keys, "hugetlb_limit: 2MB 6291456\nhugetlb_usage: 2MB 6291456\n");
    let usage = || daemon.read("cg/a/hugetlb.2MB.usage_in_bytes");
    let makes = |file| {
        let made = daemon.script(&format!("echo $$ > cg/a/tasks && exec fallocate -l 4M huge/{file}"));
        eventually("the group is empty", || daemon.read("cg/a/tasks").is_empty());
        made.status.success()
    };
    daemon.script("rm -f huge/two");
    assert_eq!(usage(), "4194304\n");
    assert!(!makes("two"), "4M of 6M are used");
    daemon.script("rm -f huge/*");
    assert_eq!(usage(), "0\n");
    assert!(makes("three"));
    assert_eq!(usage(), "4194304\n");
    // Once nothing is charged, whoever ends last leaves no directory.
    daemon.script("rm -f huge/*; echo $$ > cg/a/tasks");
    let find = format!("find {} -type d", daemon.base.path().display());
    let dirs = || text(&daemon.script(&find).stdout).lines().count();
    let busy = daemon.sleeper();
    daemon.ok(&["move", &busy.pid().to_string(), "/a"]);
    let with_sleeper = dirs();
    busy.end();
    eventually("no directory is left", || dirs() < with_sleeper);
    daemon.ok(&["set", "/a", "hugetlb_limit=2MB max", "hugetlb_failcnt=2MB 0"]);
    assert!(daemon.ok(&["get", "/a", "hugetlb_limit"]).contains("2MB max"));
    assert!(daemon.refused(&["set", "/a", "hugetlb_limit=3MB 0"]).contains("no size \"3MB\""));
    assert_eq!(daemon.read("cg/a/hugetlb.2MB.failcnt"), "0\n");
    daemon.script("rm huge/*; umount huge; rmdir huge");
    std::fs::write("/proc/sys/vm/nr_hugepages", "0").expect("the guest has huge pages");
    daemon.down();
}

/// What the machine has none of: there is nothing to limit, and what is not there is refused as the kernel does.
#[test]
fn devices_and_resources_that_are_not_there_are_refused() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("rdma,misc,perf_event:cg") else { return };
    daemon.script("mkdir cg/a");
    let refused = |file: &str, text| daemon.write(file, text).unwrap_err().raw_os_error();
    assert_eq!(refused("cg/a/rdma.max", "mlx4_0 hca_handle=2"), Some(19));
    assert_eq!(refused("cg/a/rdma.max", "mlx4_0 hca_other=2"), Some(22));
    assert_eq!(refused("cg/a/misc.max", "sev 5"), Some(22));
    assert_eq!(daemon.read("cg/a/rdma.max"), "");
    assert_eq!(daemon.read("cg/a/misc.max"), "");
    let status = daemon.ok(&["status", "rdma:/a"]);
    assert!(status.contains("rdma.max") && status.contains("native"), "{status}");
    daemon.down();
}
