//! pids, enforced by the kernel below: only where the v2 tree has the controller. And every key, as far as this one's controllers go.

use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::PermissionsExt;

use crate::daemon::{self, Daemon, eventually, in_guest, text};
use pinfold_dbus::{Client, GroupName};
use pinfold_files::keys::{KEYS, Setter};
use rustix::event::{PollFd, PollFlags};

#[test]
fn a_fork_above_the_limit_fails() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    daemon.ok(&["create", "/a"]);
    daemon.ok(&["set", "/a", "pids.max=3"]);
    // The shell and two more; then fork fails with EAGAIN. (bash would try again and again.)
    let script = "for i in one two three; do sleep 600 >/dev/null 2>&1 & echo $i; done";
    let output = daemon.pinfold(&["exec", "-g", "/a", "--", "sh", "-c", script]);
    assert_eq!(text(&output.stdout), "one\ntwo\n");
    assert!(text(&output.stderr).contains("fork"), "{}", text(&output.stderr));
    assert_ne!(daemon.ok(&["get", "/a", "pids.events"]), "max 0\n");
    let status: serde_json::Value = serde_json::from_str(&daemon.ok(&["status", "/a", "--json"])).unwrap();
    let limit = status.as_array().unwrap().iter().find(|setting| setting["key"] == "pids.max").unwrap();
    assert_eq!((&limit["value"], &limit["enforced"]), (&"3".into(), &"native".into()));
    daemon.ok(&["kill", "/a"]);
    daemon.down();
}

/// Whether poll(2) says within this time that the file has changed.
fn is_changed(file: &std::fs::File, within: std::time::Duration) -> bool {
    let mut wanted = [PollFd::new(file, PollFlags::PRI)];
    let within = within.try_into().expect("a short time");
    rustix::event::poll(&mut wanted, Some(&within)).expect("poll");
    wanted[0].revents().contains(PollFlags::PRI)
}

#[test]
fn who_polls_the_events_of_a_group_is_told_of_a_fork_that_fails() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("pids:cg") else { return };
    daemon.ok(&["create", "/a"]);
    daemon.ok(&["set", "/a", "pids.max=1"]);
    let mut file = std::fs::File::open(daemon.path("cg/a/pids.events")).unwrap();
    let mut text = String::new();
    let now = std::time::Duration::ZERO;
    assert!(is_changed(&file, now), "it was never read");
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "max 0\n");
    assert!(!is_changed(&file, now));
    std::thread::scope(|scope| {
        let told = scope.spawn(|| is_changed(&file, daemon::PATIENCE));
        daemon.pinfold(&["exec", "-g", "/a", "--", "sh", "-c", "(exit 0)"]);
        assert!(told.join().unwrap(), "a fork failed: {}", daemon.read("cg/a/pids.events"));
    });
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_string(&mut text).unwrap();
    assert!(!is_changed(&file, now), "what is read is old");
    drop(file);
    daemon.down();
}

/// v1 limits memory and swap together, v2 swap alone: what may be swapped is the difference.
#[test]
fn memory_and_swap_together_are_limited() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("memory:cg") else { return };
    let swap =
        "modprobe zram && echo 128M > /sys/block/zram0/disksize && mkswap -q /dev/zram0 && swapon /dev/zram0";
    assert!(daemon.script(swap).status.success(), "the guest's kernel has zram");
    daemon.ok(&["create", "/a"]);
    daemon.ok(&["set", "/a", "memory.limit_in_bytes=32M", "memory.memsw.limit_in_bytes=64M"]);
    let holds = |size: &str| {
        let size = format!("bs={size}");
        let asks = ["exec", "-g", "/a", "--", "dd", "if=/dev/zero", "of=/dev/null", &size, "count=1"];
        daemon.pinfold(&asks).status.success()
    };
    let number =
        |file: &str| -> u64 { daemon.read(&format!("cg/a/{file}")).trim().parse().expect("a number") };
    assert!(holds("48M"), "more than the memory, less than both");
    assert!(number("memory.memsw.max_usage_in_bytes") >= 32 << 20);
    assert_eq!(number("memory.memsw.failcnt"), 0);
    assert!(!holds("96M"), "more than both");
    assert_ne!(daemon.read("cg/a/memory.oom_control").lines().last(), Some("oom_kill 0"));
    // Neither may be less than the other allows; without a difference there is no swap.
    for (file, value) in [("memory.memsw.limit_in_bytes", "16M"), ("memory.limit_in_bytes", "65M")] {
        let refused = daemon.write(&format!("cg/a/{file}"), value).expect_err("memory is part of both");
        assert_eq!(refused.raw_os_error(), Some(rustix::io::Errno::INVAL.raw_os_error()), "{file}");
    }
    daemon.write("cg/a/memory.memsw.limit_in_bytes", "32M").expect("nobody is there");
    assert!(!holds("48M"), "no swap is left");
    daemon.write("cg/a/memory.memsw.limit_in_bytes", "-1").expect("no limit");
    assert!(holds("48M"), "as much swap as there is");
    assert!(daemon.script("swapoff /dev/zram0 && echo 1 > /sys/block/zram0/reset").status.success());
    daemon.down();
}

#[test]
fn run_limits_what_it_runs() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    let script = "(exit 0) && echo one; ((exit 0); echo two); echo three";
    let output = daemon.pinfold(&["run", "pids.max=2", "--", "sh", "-c", script]);
    assert_eq!(text(&output.stdout), "one\nthree\n", "{}", text(&output.stderr));
    let output = daemon.pinfold(&["run", "pids.max=nonsense", "--", "true"]);
    assert_eq!(output.status.code(), Some(125));
    daemon.down();
}

/// zbus starts a thread for a connection that outlives a call: there is none to be had.
#[test]
fn a_client_works_in_a_group_that_is_full() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    daemon.ok(&["create", "/a"]);
    daemon.ok(&["set", "/a", "pids.max=1"]);
    let get = [daemon::BINARY, "get", "/a", "pids.current", "pids.max"];
    let said = daemon.ok(&[&["exec", "-g", "/a", "--"], &get[..]].concat());
    assert_eq!(said, "pids.current: 1\npids.max: 1\n");
    daemon.down();
}

#[test]
fn a_limit_survives_the_daemon() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    let sleeper = daemon.sleeper();
    daemon.ok(&["create", "-p", "/a/b"]);
    daemon.ok(&["set", "/a", "pids.max=5"]);
    daemon.ok(&["move", &sleeper.pid().to_string(), "/a/b"]);
    daemon.kill();
    daemon.serve("all:cg");
    assert_eq!(daemon.read("cg/a/pids.max"), "5\n");
    assert_eq!(daemon.read("cg/a/pids.current"), "1\n");
    for (junk, errno) in [("-1", 22), ("MAX", 22), ("4194305", 22), ("99999999999999999999", 34)] {
        assert_eq!(daemon.write("cg/a/pids.max", junk).unwrap_err().raw_os_error(), Some(errno), "{junk}");
    }
    daemon.write("cg/a/pids.max", "0x10\n").unwrap();
    assert_eq!(daemon.read("cg/a/pids.max"), "16\n");
    daemon.down();
}

fn number(text: &str) -> u64 {
    text.trim().parse().expect("a number")
}

#[test]
fn a_process_above_the_memory_limit_is_killed_and_counted() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("memory:cg") else { return };
    daemon.ok(&["create", "/a"]);
    daemon.ok(&["set", "/a", "memory.limit_in_bytes=16M"]);
    daemon.overstep_memory("/a");
    eventually("the group is empty", || daemon.read("cg/a/tasks").is_empty());
    assert_eq!(daemon.read("cg/a/memory.oom_control"), "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n");
    assert!(number(&daemon.read("cg/a/memory.failcnt")) > 0);
    let most = number(&daemon.read("cg/a/memory.max_usage_in_bytes"));
    assert!((12 << 20..=16 << 20).contains(&most), "{most}");
    daemon.write("cg/a/memory.failcnt", "0").unwrap();
    assert_eq!(daemon.read("cg/a/memory.failcnt"), "0\n");
    daemon.write("cg/a/memory.max_usage_in_bytes", "0").unwrap();
    assert!(number(&daemon.read("cg/a/memory.max_usage_in_bytes")) < most);
    daemon.down();
}

/// A file in a tmpfs is charged to whose process wrote it, for as long as the file and the group are there.
#[test]
fn what_processes_leave_in_memory_counts_until_their_group_goes() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    assert!(daemon.script("mkdir shm && mount -t tmpfs none shm").status.success());
    daemon.ok(&["create", "-p", "/a/b"]);
    daemon.ok(&["set", "/a", "memory.limit_in_bytes=32M"]);
    let writes = |daemon: &Daemon, group: &str, file: &str| {
        let dd = format!("echo $$ > cg{group}/tasks && exec dd if=/dev/zero of={file} bs=1M count=20");
        let output = daemon.script(&dd);
        eventually("the group is empty", || daemon.read(&format!("cg{group}/tasks")).is_empty());
        output.status.success()
    };
    let usage = |daemon: &Daemon| number(&daemon.read("cg/a/memory.usage_in_bytes"));
    assert!(writes(&daemon, "/a/b", "shm/one"));
    assert!(usage(&daemon) >= 20 << 20, "{}", usage(&daemon));
    assert!(!writes(&daemon, "/a/b", "shm/two"), "both are more than the limit");
    assert!(!writes(&daemon, "/a", "shm/three"), "wherever the writer is");
    let status: serde_json::Value = serde_json::from_str(&daemon.ok(&["status", "/a", "--json"])).unwrap();
    let limit = status.as_array().unwrap().iter().find(|setting| setting["key"] == "memory.limit_in_bytes");
    assert_eq!(limit.unwrap()["enforced"], "native");
    assert!(daemon.script("rm -f shm/two shm/three").status.success());
    daemon.kill();
    daemon.serve("all:cg");
    assert!(usage(&daemon) >= 20 << 20, "{}", usage(&daemon));
    assert!(!daemon.script("rmdir cg/a").status.success(), "it has a child");
    assert!(usage(&daemon) >= 20 << 20, "a refused removal changes nothing: {}", usage(&daemon));
    assert!(!writes(&daemon, "/a", "shm/four"));
    assert!(daemon.script("rmdir cg/a/b").status.success(), "nobody is there");
    assert!(usage(&daemon) >= 20 << 20, "it is the group's above: {}", usage(&daemon));
    assert!(!writes(&daemon, "/a", "shm/five"));
    assert!(daemon.script("rmdir cg/a").status.success());
    assert!(daemon.script("mkdir cg/a").status.success());
    assert_eq!(usage(&daemon), 0, "another group");
    daemon.down();
}

#[test]
fn the_most_memory_that_was_used_starts_again() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("memory:cg") else { return };
    daemon.ok(&["create", "/a"]);
    let sleeper = daemon.sleeper(); // without it the directory would go, and its peak would be known
    daemon.ok(&["move", &sleeper.pid().to_string(), "/a"]);
    let peak = format!("/sys/fs/cgroup{}/memory.peak", sleeper.v2_path());
    let is_private = std::fs::metadata(&peak).expect("since Linux 5.19").permissions().mode() & 0o200 != 0;
    let needs = |daemon: &Daemon, size: &str| {
        let size = format!("bs={size}");
        daemon.ok(&["exec", "-g", "/a", "--", "dd", "if=/dev/zero", "of=/dev/null", &size, "count=1"]);
        number(&daemon.read("cg/a/memory.max_usage_in_bytes"))
    };
    assert!(needs(&daemon, "24M") >= 24 << 20);
    daemon.write("cg/a/memory.max_usage_in_bytes", "0").expect("any text");
    assert!(number(&daemon.read("cg/a/memory.max_usage_in_bytes")) < 8 << 20);
    let (less, more) = (needs(&daemon, "8M"), needs(&daemon, "12M"));
    assert!(less < 24 << 20 && more < 24 << 20, "{less}, {more}");
    if is_private {
        assert!(less >= 8 << 20 && more >= 12 << 20, "{less}, {more}");
    }
    assert!(number(&daemon.read("cg/a/memory.memsw.max_usage_in_bytes")) >= 24 << 20, "it has its own");
    // A daemon that is killed takes along what it knew since the reset; the next one knows what comes.
    daemon.kill();
    daemon.serve("memory:cg");
    let less = needs(&daemon, "10M");
    assert!(less < 24 << 20, "{less}");
    if is_private {
        assert!(less >= 10 << 20, "{less}");
    }
    assert!(needs(&daemon, "32M") >= 32 << 20, "what is passed is known of any kernel");
    sleeper.end();
    daemon.down();
}

#[test]
fn memory_is_counted_by_node_and_what_of_it_is_the_kernels_and_of_sockets() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("memory:cg") else { return };
    daemon.ok(&["create", "/a"]);
    let figure = |file: &str| number(&daemon.read(&format!("cg/a/{file}")));
    assert_eq!((figure("memory.kmem.usage_in_bytes"), figure("memory.kmem.tcp.usage_in_bytes")), (0, 0));
    // Nobody reads what was sent.
    let script = "
import socket, time
server = socket.create_server((\"127.0.0.1\", 0))
client = socket.create_connection(server.getsockname())
peer = server.accept()[0]
client.setblocking(False)
try:
    while True: client.send(bytes(65536))
except BlockingIOError: pass
held = bytearray(b\"x\") * (16 << 20)
time.sleep(600)";
    // Where it takes its time to start.
    let mut holder = daemon.command_within(daemon::PATIENCE * 4, daemon::BINARY);
    holder.args(["exec", "-g", "/a", "--", "python3", "-c", script]);
    let mut holder = holder.spawn().expect("timeout runs");
    let of_nodes = |line: &str| {
        let text = daemon.read("cg/a/memory.numa_stat");
        let line = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix('='));
        let mut words = line.expect("a line for each").split(' ');
        let sum = number(words.next().expect("the sum"));
        let nodes = words.map(|word| number(word.split_once('=').expect("a node").1)).sum::<u64>();
        assert_eq!(nodes, sum, "{text}");
        sum
    };
    eventually("it begins", || !daemon.numbers("cg/a/tasks").is_empty());
    // The kernel takes its time with the figures of memory.stat.
    eventually("sockets have something", || figure("memory.kmem.tcp.usage_in_bytes") >= 65536);
    eventually("it has its memory", || of_nodes("hierarchical_anon") * 4096 >= 16 << 20);
    assert!(of_nodes("hierarchical_total") >= of_nodes("anon"));
    let kernel = figure("memory.kmem.usage_in_bytes");
    assert!(kernel > 0 && kernel < figure("memory.usage_in_bytes"), "{kernel}");
    daemon.ok(&["kill", "/a"]);
    holder.wait().expect("timeout is our child");
    daemon.down();
}

/// Its own figures are read in its directory while nobody is below, in its leaves otherwise.
#[test]
fn a_group_counts_its_own_whoever_comes_and_goes_below_it() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::new() else { return };
    let serve = |daemon: &mut Daemon| {
        let mount = |options: &str| format!("--mount={options}:{}", daemon.dir.join(options).display());
        let mounts = ["memory", "pids"].map(mount);
        daemon.try_serve(&mounts).expect("it starts");
    };
    serve(&mut daemon);
    assert!(daemon.script("echo never > /sys/kernel/mm/transparent_hugepage/enabled").status.success());
    for group in ["memory:/a", "memory:/a/b", "pids:/a", "pids:/a/one", "pids:/a/two"] {
        daemon.ok(&["create", group]);
    }
    let (one, two, below) = (daemon.sleeper(), daemon.sleeper(), daemon.sleeper());
    for (sleeper, pids) in [(&one, "pids:/a/one"), (&two, "pids:/a/two")] {
        for group in ["memory:/a", pids] {
            daemon.ok(&["move", &sleeper.pid().to_string(), group]);
        }
    }
    let faults = |daemon: &Daemon, field: &str| {
        let text = daemon.read("memory/a/memory.stat");
        let figure = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(' ').map(number));
        figure.expect("a line for each")
    };
    let own = |daemon: &Daemon| faults(daemon, "pgfault");
    // 2048 pages and what a program needs by itself, which is less.
    let has_faults = |daemon: &Daemon, group: &str| {
        daemon.ok(&["exec", "-g", group, "--", "dd", "if=/dev/zero", "of=/dev/null", "bs=8M", "count=1"]);
    };
    has_faults(&daemon, "memory:/a");
    eventually("they are its own", || own(&daemon) >= 2048);
    assert_eq!(own(&daemon), faults(&daemon, "total_pgfault"), "nobody is below");
    let mut last = own(&daemon);
    let mut grows = |daemon: &Daemon, least: u64, what: &str| {
        eventually(what, || own(daemon) >= last + least);
        let now = own(daemon);
        assert!(now < last + least + 1024, "{what}: {now} after {last}");
        last = now;
    };
    has_faults(&daemon, "memory:/a/b");
    grows(&daemon, 0, "another's are not");
    assert!(faults(&daemon, "total_pgfault") >= own(&daemon) + 2048);
    daemon.ok(&["move", &below.pid().to_string(), "memory:/a/b"]);
    grows(&daemon, 0, "it is read elsewhere");
    has_faults(&daemon, "memory:/a");
    grows(&daemon, 2048, "its own are beside those below");
    daemon.kill();
    serve(&mut daemon);
    grows(&daemon, 0, "the next daemon knows");
    below.end();
    eventually("it is alone", || daemon.read("memory/a/b/tasks").is_empty());
    grows(&daemon, 0, "it is alone again");
    daemon.kill();
    serve(&mut daemon);
    grows(&daemon, 0, "the next daemon knows that, too");
    one.end();
    two.end();
    daemon.down();
}

#[test]
fn a_memory_limit_below_what_is_used_is_refused_and_kills_nobody() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("memory,pids:cg") else { return };
    daemon.ok(&["create", "/a"]);
    // dd has all of its buffer, and waits for somebody to read it.
    let holder = ["exec", "-g", "/a", "--", "sh", "-c", "dd if=/dev/zero bs=48M count=1 | sleep 600"];
    let mut holder = daemon.command(daemon::BINARY).args(holder).spawn().expect("timeout runs");
    eventually("dd has its buffer", || number(&daemon.read("cg/a/memory.usage_in_bytes")) > 48 << 20);
    let tasks = daemon.numbers("cg/a/tasks");
    let refused = daemon.write("cg/a/memory.limit_in_bytes", "16M").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(16), "{refused}");
    assert!(
        daemon
            .refused(&["set", "/a", "memory.limit_in_bytes=16M"])
            .contains("cannot be brought below 16777216")
    );
    assert_eq!(daemon.numbers("cg/a/tasks"), tasks);
    assert_eq!(daemon.read("cg/a/memory.limit_in_bytes"), "9223372036854771712\n");
    daemon.write("cg/a/memory.limit_in_bytes", "128M").unwrap();
    daemon.write("cg/a/memory.force_empty", "0").unwrap();
    assert_eq!(daemon.numbers("cg/a/tasks"), tasks);
    assert!(daemon.read("cg/a/memory.stat").contains("\nhierarchical_memory_limit 134217728\n"));
    daemon.ok(&["kill", "/a"]);
    holder.wait().expect("timeout is our child");
    daemon.down();
}

#[test]
fn a_quota_of_a_fifth_of_a_cpu_is_kept() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("cpu,cpuacct:cg") else { return };
    daemon.ok(&["create", "/a"]);
    daemon.ok(&["set", "/a", "cpu.cfs_quota_us=20000"]);
    let burner = ["exec", "-g", "/a", "--", "sh", "-c", "while :; do :; done"];
    let mut burner = daemon.command(daemon::BINARY).args(burner).spawn().expect("timeout runs");
    let stat = |field: &str| {
        let text = daemon.read("cg/a/cpu.stat");
        let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(' '));
        number(value.expect("a line for each"))
    };
    eventually("it was held back for two seconds", || stat("nr_throttled") >= 20);
    // Usage first: periods that end between the two reads make the bound wider, not narrower.
    let used = number(&daemon.read("cg/a/cpuacct.usage"));
    let most = (stat("nr_periods") + 1) * 20_000_000;
    assert!(used <= most * 5 / 4 && used >= most / 4, "{used} of {most}");
    assert!(stat("throttled_time") > 0);
    // Since Linux 6.6, and nowhere before.
    let local = "cg/a/cpu.stat.local";
    assert_eq!(daemon.path(local).exists(), std::path::Path::new("/sys/fs/cgroup/cpu.stat.local").exists());
    if daemon.path(local).exists() {
        let text = daemon.read(local);
        assert!(text.strip_prefix("throttled_time ").is_some_and(|time| number(time) > 0), "{text}");
    }
    let refused = |file: &str, text| daemon.write(file, text).unwrap_err().raw_os_error();
    daemon.ok(&["create", "/a/b"]);
    assert_eq!(refused("cg/a/b/cpu.cfs_quota_us", "20001"), Some(22));
    // An idle group is idle below, and back to 1024 shares after that.
    daemon.write("cg/a/cpu.shares", "512").unwrap();
    daemon.write("cg/a/cpu.idle", "1").unwrap();
    assert_eq!(refused("cg/a/cpu.shares", "512"), Some(22));
    daemon.write("cg/a/cpu.idle", "0").unwrap();
    daemon.write("cg/a/cpu.shares", "2048").unwrap();
    assert_eq!(daemon.read("cg/a/cpu.shares"), "2048\n");
    daemon.ok(&["kill", "/a"]);
    burner.wait().expect("timeout is our child");
    daemon.down();
}

/// What each key that can be set is set to, and what it reads then; nothing if that is for the machine to say.
#[rustfmt::skip] // a table
const SET: &[(&str, &str, &str)] = &[
    ("memory.limit",           "67108864",     "67108864"),
    ("memory.soft_limit",      "33554432",     "33554432"),
    ("memory.max_usage",       "0",            ""),
    ("memory.failcnt",         "0",            "0"),
    ("swap.limit",             "4194304",      "4194304"),
    ("swap.max_usage",         "0",            ""),
    ("swap.failcnt",           "0",            "0"),
    ("cpus_allowed",           "0",            "0"),
    ("mems_allowed",           "0",            "0"),
    ("cpu_share_percent",      "50",           "50"),
    ("cpu_quota_percent",      "50",           "50"),
    ("cpus_number",            "0.25",         "0.25"),
    ("cpus_fraction",          "0.5",          "0.5"),
    ("cpuacct_usage",          "0",            "0"),
    ("pids.limit",             "9",            "9"),
    ("files.limit",            "100",          "100"),
    ("devices_blacklist",      "c 1:3 rwm",    ""),
    ("devices_whitelist",      "c 1:3 rwm",    ""),
    ("hugetlb_limit",          "2MB 4194304",  ""),
    ("hugetlb_max_usage",      "2MB 0",        ""),
    ("hugetlb_failcnt",        "2MB 0",        ""),
    ("frozen",                 "1",            "1"),
    ("thawed",                 "1",            "1"),
    ("blkio_weight",           "500",          "500"),
    ("blkio_weight_device",    "default 300",  ""),
    ("blkio_throttle_read",    "7:0 1048576",  ""),
    ("blkio_throttle_write",   "7:0 1048576",  ""),
    ("net_classid",            "1048577",      "1048577"),
    ("net_prio_interface_map", "lo 3",         ""),
];

#[test]
fn every_key_that_a_group_has_is_read_and_set_over_dbus() {
    for key in KEYS.iter().filter(|key| key.setter() != Setter::Nobody) {
        assert!(SET.iter().any(|(name, ..)| *name == key.name), "{} is set to nothing", key.name);
    }
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    daemon.ok(&["create", "/a"]);
    let client = Client::connect(&daemon.state().join("socket")).expect("the door is open");
    let group: GroupName = "/a".parse().expect("a name");
    let listed = client.list_named_keys(&group).expect("it is there");
    let mut refused = Vec::new();
    for key in KEYS.iter().filter(|key| listed.iter().any(|named| named.name == key.name)) {
        if key.is_read()
            && let Err(error) = client.get_value(&group, key.name)
        {
            refused.push(format!("{}: {error}", key.name));
        }
        let Some((name, value, reads)) = SET.iter().find(|(name, ..)| *name == key.name) else { continue };
        match client.set_value(&group, name, value) {
            Ok(()) if reads.is_empty() => {}
            Ok(()) => assert_eq!(client.get_value(&group, name).expect(name), *reads, "{name}"),
            // That the machine has such a disk, a scheduler that weighs, such pages, nobody has said.
            Err(_) if name.starts_with("blkio_") || name.starts_with("hugetlb_") => {}
            Err(error) => refused.push(format!("{name}={value}: {error}")),
        }
    }
    assert!(refused.is_empty(), "{refused:?}");
    drop(client);
    daemon.down();
}
