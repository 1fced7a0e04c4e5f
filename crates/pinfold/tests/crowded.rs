//! Memory of a group that has several directories: how it is limited there, and when nearly all of it is used: nobody is killed whom the
//! kernel's v1 would not kill. Only where the v2 tree has controllers.

use std::process::Child;

use crate::crossing::{self, CHARGED, apart, enforced, number, start};
use crate::daemon::{self, Daemon, eventually, in_guest};
use crate::notifying::asking;

/// A daemon with a group of memory, `m/c`, that has 64 MiB, and in it a process that keeps a directory from those who are in no other
/// group: it does what a script says.
fn crowded(script: &str) -> Option<(Daemon, Child)> {
    let daemon = apart(&[])?;
    for group in ["memory:/c", "pids:/c", "cpu:/c", "pids:/d"] {
        daemon.ok(&["create", group]);
    }
    daemon.ok(&["set", "memory:/c", "memory.limit_in_bytes=64M"]);
    let first = start(&daemon, &["memory:/c", "pids:/c", "cpu:/c"], script);
    eventually("it is in all three", || !daemon.numbers("c/c/tasks").is_empty());
    Some((daemon, first))
}

/// A device whose pages are read into the page cache, and stay there while it is open: 128 MiB of zeros.
fn make_zeros(daemon: &Daemon) {
    let make = "modprobe zram && echo 1 > /sys/block/zram0/reset && echo 128M > /sys/block/zram0/disksize";
    eventually("nobody has it open", || daemon.script(make).status.success());
}

/// Reads more than the group may have.
const READS: &str = "exec 3</dev/zram0; cat <&3 >/dev/null; exec sleep 600";

fn used(daemon: &Daemon) -> u64 {
    let used = number(&daemon.read("m/c/memory.usage_in_bytes"));
    assert!(used <= 65 << 20, "{used} of 64 MiB");
    used
}

/// How often somebody was killed for memory, in every group.
fn kills() -> u64 {
    let text = std::fs::read_to_string("/proc/vmstat").expect("proc is there");
    number(text.lines().find_map(|line| line.strip_prefix("oom_kill ")).expect("a line"))
}

fn end(daemon: Daemon, children: Vec<Child>) {
    crossing::end(daemon, &["memory:/c"], children);
}

#[test]
fn who_comes_to_a_group_that_is_full_of_page_cache_gets_what_it_needs() {
    if !in_guest() {
        return;
    }
    let Some((daemon, first)) = crowded("exec sleep 600") else { return };
    make_zeros(&daemon);
    let reader = start(&daemon, &["memory:/c"], READS);
    eventually("it has nearly all of the limit", || used(&daemon) > 55 << 20);
    assert_eq!(enforced(&daemon, "memory:/c", "memory.limit_in_bytes"), CHARGED);
    let before = kills();
    for round in 0..5 {
        // In a directory of its own each time, since nobody else is in both.
        let needs = "dd if=/dev/zero of=/dev/null bs=12M count=1";
        let mut newcomer = start(&daemon, &["pids:/d", "memory:/c"], needs);
        let status = newcomer.wait().expect("timeout is our child");
        assert!(status.success(), "{status} in round {round}: {}", daemon.log());
    }
    assert_eq!(kills(), before);
    end(daemon, vec![first, reader]);
}

/// Waits for a file, uses 12 MiB and says so.
fn waits(daemon: &Daemon) -> (String, String, String) {
    let [go, done] = ["go", "done"].map(|name| daemon.dir.join(name).display().to_string());
    let script = format!(
        "until [ -e {go} ]; do sleep 0.2; done; dd if=/dev/zero of=/dev/null bs=12M count=1 && touch {done}; exec sleep 600"
    );
    (script, go, done)
}

#[test]
fn who_was_idle_while_others_read_gets_what_it_needs() {
    if !in_guest() {
        return;
    }
    let Some((daemon, first)) = crowded("exec sleep 600") else { return };
    make_zeros(&daemon);
    let (script, go, done) = waits(&daemon);
    let idle = start(&daemon, &["pids:/d", "memory:/c"], &script);
    eventually("it is there", || !daemon.numbers("p/d/tasks").is_empty());
    let reader = start(&daemon, &["memory:/c"], READS);
    eventually("it has nearly all of the limit", || used(&daemon) > 55 << 20);
    let before = kills();
    std::fs::write(go, "").expect("a file");
    eventually("it has what it needs", || std::path::Path::new(&done).exists());
    assert_eq!(kills(), before);
    end(daemon, vec![first, idle, reader]);
}

/// v1 kills whoever uses most, and not who asks for the last page.
#[test]
fn who_holds_nearly_all_of_a_limit_is_killed_for_who_needs_some() {
    if !in_guest() {
        return;
    }
    let Some((daemon, first)) = crowded("exec sleep 600") else { return };
    let (script, go, done) = waits(&daemon);
    let idle = start(&daemon, &["pids:/d", "memory:/c"], &script);
    eventually("it is there", || !daemon.numbers("p/d/tasks").is_empty());
    let holds = "dd if=/dev/zero bs=52M count=1 2>/dev/null | sleep 600";
    let holder = start(&daemon, &["memory:/c"], holds);
    eventually("it has nearly all of the limit", || used(&daemon) > 53 << 20);
    let before = kills();
    std::fs::write(go, "").expect("a file");
    eventually("it has what it needs", || std::path::Path::new(&done).exists());
    // The kernel may kill another in that directory before the first one has given back its memory.
    assert!(kills() > before, "{}", daemon.log());
    assert!(used(&daemon) < 32 << 20);
    assert!(!daemon.numbers("p/d/tasks").is_empty(), "it goes on");
    end(daemon, vec![first, idle, holder]);
}

/// What processes use stays charged where they were. When the last of them has come to the group, all that is charged to their
/// directory is that of the group's path: it must not be taken for the group's.
#[test]
fn processes_that_come_one_by_one_to_a_limit_below_what_they_use_are_not_killed() {
    if !in_guest() {
        return;
    }
    let Some(daemon) = apart(&[]) else { return };
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

#[test]
fn processes_wait_for_memory_in_each_directory_of_their_group_if_they_are_told_to() {
    if !in_guest() {
        return;
    }
    let Some((daemon, first)) = crowded("exec sleep 600") else { return };
    daemon.ok(&["set", "memory:/c", "memory.limit_in_bytes=32M"]);
    daemon.write("m/c/memory.oom_control", "1").expect("a flag");
    let before = kills();
    let mut hungry = start(&daemon, &["memory:/c"], &asking(&daemon, 48));
    let control = |under: u8| format!("oom_kill_disable 1\nunder_oom {under}\noom_kill 0\n");
    eventually("they wait", || daemon.read("m/c/memory.oom_control") == control(1));
    assert_eq!(enforced(&daemon, "memory:/c", "memory.oom_control"), "user space");
    // Whoever is in the other directory waits, too.
    let sleeper = daemon.numbers("c/c/tasks")[0];
    let place = std::fs::read_to_string(format!("/proc/{sleeper}/cgroup")).expect("it lives");
    let leaf = place.lines().find_map(|line| line.strip_prefix("0::")).expect("v2 only").to_owned();
    let events =
        || std::fs::read_to_string(format!("/sys/fs/cgroup{leaf}/cgroup.events")).expect("a v2 file");
    eventually("it stands still", || events().contains("frozen 1"));
    daemon.write("m/c/memory.limit_in_bytes", "128M").expect("more");
    assert!(hungry.wait().expect("timeout is our child").success(), "it got its memory");
    eventually("nobody waits", || daemon.read("m/c/memory.oom_control") == control(0));
    assert!(events().contains("frozen 0"));
    assert_eq!(kills(), before);
    end(daemon, vec![first]);
}

#[test]
fn memory_and_swap_of_a_group_that_has_two_directories_are_limited_together() {
    if !in_guest() {
        return;
    }
    let Some((daemon, first)) = crowded("exec sleep 600") else { return };
    let swap =
        "modprobe zram && echo 256M > /sys/block/zram0/disksize && mkswap -q /dev/zram0 && swapon /dev/zram0";
    assert!(daemon.script(swap).status.success(), "the guest's kernel has zram");
    daemon.ok(&["set", "memory:/c", "memory.limit_in_bytes=32M", "memory.memsw.limit_in_bytes=80M"]);
    let both = || {
        let used = number(&daemon.read("m/c/memory.memsw.usage_in_bytes"));
        assert!(used <= 81 << 20, "{used} of 80 MiB");
        used
    };
    // Two directories have more than the memory, and less than both limits allow.
    let holds = |mib: u32| format!("dd if=/dev/zero bs={mib}M count=1 2>/dev/null | sleep 600");
    let one = start(&daemon, &["memory:/c"], &holds(30));
    eventually("it has its memory", || both() > 30 << 20);
    assert_eq!(enforced(&daemon, "memory:/c", "memory.memsw.limit_in_bytes"), CHARGED);
    let before = kills();
    let two = start(&daemon, &["pids:/c", "cpu:/c", "memory:/c"], &holds(30));
    eventually("both have theirs", || both() > 60 << 20);
    assert!(number(&daemon.read("m/c/memory.usage_in_bytes")) <= 33 << 20);
    assert_eq!(kills(), before);
    let mut glutton = start(&daemon, &["memory:/c"], "dd if=/dev/zero of=/dev/null bs=96M count=1");
    eventually("somebody is killed", || {
        both();
        kills() > before
    });
    glutton.wait().expect("timeout is our child");
    daemon.ok(&["kill", "memory:/c"]);
    let off = "swapoff /dev/zram0 && echo 1 > /sys/block/zram0/reset";
    assert!(daemon.script(off).status.success());
    end(daemon, vec![first, one, two]);
}
