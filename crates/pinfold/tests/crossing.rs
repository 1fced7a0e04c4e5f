//! Groups of several hierarchies that cross: each limit is kept, divided by demand. Only where the v2 tree has controllers.

use std::collections::BTreeSet;
use std::mem::MaybeUninit;
use std::path::Path;
use std::process::Child;
use std::time::Instant;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use crate::daemon::{self, Daemon, Sleeper, eventually, in_guest, text};
use crate::notifying::Ear;

/// A daemon that serves memory, pids and cpu in hierarchies of their own, at `m`, `p` and `c`.
pub(crate) fn apart(arguments: &[&str]) -> Option<Daemon> {
    let mut daemon = Daemon::new()?;
    serve(&mut daemon, &[("memory", "m"), ("pids", "p"), ("cpu,cpuacct", "c")], arguments);
    Some(daemon)
}

/// The same of memory, which is served at `m`, and another controller.
fn beside_memory(controller: &str, dir: &str) -> Option<Daemon> {
    let mut daemon = Daemon::new()?;
    serve(&mut daemon, &[("memory", "m"), (controller, dir)], &[]);
    Some(daemon)
}

pub(crate) fn serve(daemon: &mut Daemon, mounts: &[(&str, &str)], arguments: &[&str]) {
    let mount =
        |(options, dir): &(&str, &str)| format!("--mount={options}:{}", daemon.dir.join(dir).display());
    let arguments = arguments.iter().map(ToString::to_string);
    let all: Vec<String> = mounts.iter().map(mount).chain(arguments).collect();
    if let Err(output) = daemon.try_serve(&all) {
        panic!("the daemon did not start: {}", text(&output.stderr));
    }
}

/// Kills whoever is in these groups, waits for the commands that it was started by, and ends the daemon.
pub(crate) fn end(mut daemon: Daemon, groups: &[&str], children: impl IntoIterator<Item = Child>) {
    for group in groups {
        daemon.ok(&["kill", group]);
    }
    for mut child in children {
        child.wait().expect("timeout is our child");
    }
    daemon.down();
}

/// How a limit is enforced of what processes may leave behind, in a group that has two directories.
pub(crate) const CHARGED: &str =
    "shared over 2 v2 directories; what processes leave behind counts for as long as theirs is there";

/// Longer than any of these tests takes: who ends of itself is one less.
const LONG: std::time::Duration = std::time::Duration::from_secs(1800);

/// Runs a script in groups, entered one after the other.
pub(crate) fn start(daemon: &Daemon, groups: &[&str], script: &str) -> Child {
    let mut command = daemon.command_within(LONG, daemon::BINARY);
    for (at, group) in groups.iter().enumerate() {
        if at > 0 {
            command.arg(daemon::BINARY);
        }
        command.args(["exec", "-g", group, "--"]);
    }
    command.args(["bash", "-c", script]).stderr(std::process::Stdio::null()).spawn().expect("timeout runs")
}

pub(crate) fn enforced(daemon: &Daemon, group: &str, key: &str) -> String {
    let status: serde_json::Value =
        serde_json::from_str(&daemon.ok(&["status", group, "--json"])).expect("JSON");
    let found = status.as_array().expect("a list").iter().find(|setting| setting["key"] == key);
    found.expect("listed")["enforced"].as_str().expect("a word").to_owned()
}

pub(crate) fn number(text: &str) -> u64 {
    text.trim().parse().expect("a number")
}

/// Tries for ever to have more children; bash tries a failed fork again by itself.
const FORKS: &str = "trap : CHLD; while :; do sleep 600 & done 2>/dev/null";

#[test]
fn tasks_of_crossing_groups_are_limited_together_and_a_lone_busy_cell_gets_nearly_all() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = apart(&[]) else { return };
    for group in ["memory:/a", "memory:/b", "pids:/c", "pids:/d"] {
        daemon.ok(&["create", group]);
    }
    daemon.ok(&["set", "memory:/a", "memory.limit_in_bytes=64M"]);
    daemon.ok(&["set", "pids:/c", "pids.max=40"]);
    let idle: Vec<Child> = [["memory:/a", "pids:/c"], ["memory:/b", "pids:/c"], ["memory:/b", "pids:/d"]]
        .iter()
        .map(|groups| start(&daemon, groups, "exec sleep 600"))
        .collect();
    eventually("they are there", || daemon.read("p/c/pids.current") == "2\n");
    eventually("who asks has left", || {
        enforced(&daemon, "pids:/c", "pids.max") == "shared over 2 v2 directories"
    });
    assert_eq!(enforced(&daemon, "memory:/a", "memory.limit_in_bytes"), "native");
    let is_full = |group: &str, most: u64| {
        let now = number(&daemon.read(&format!("p/{group}/pids.current")));
        assert!(now <= most, "{now} tasks of {most}");
        now + most / 10 >= most
    };
    let mut busy = vec![start(&daemon, &["memory:/a", "pids:/c"], FORKS)];
    eventually("a lone one has nearly all", || is_full("c", 40));
    // Every combination, and all four limits met.
    daemon.ok(&["set", "pids:/d", "pids.max=20"]);
    daemon.ok(&["set", "memory:/b", "memory.limit_in_bytes=64M"]);
    for groups in [["memory:/b", "pids:/c"], ["memory:/b", "pids:/d"], ["memory:/a", "pids:/d"]] {
        busy.push(start(&daemon, &groups, FORKS));
    }
    eventually("both groups have nearly all", || is_full("c", 40) & is_full("d", 20));
    for group in ["memory:/a", "memory:/b"] {
        daemon.overstep_memory(group);
    }
    assert!(is_full("c", 40) & is_full("d", 20));
    // The same after a daemon that was killed.
    daemon.kill();
    serve(&mut daemon, &[("memory", "m"), ("pids", "p"), ("cpu,cpuacct", "c")], &[]);
    assert_eq!(enforced(&daemon, "pids:/c", "pids.max"), "shared over 2 v2 directories");
    assert!(number(&daemon.read("p/c/pids.current")) <= 40);
    daemon.ok(&["kill", "memory:/a"]);
    daemon.ok(&["kill", "memory:/b"]);
    for mut child in idle.into_iter().chain(busy) {
        child.wait().expect("timeout is our child");
    }
    daemon.down();
}

/// One of a small limit is too few for both to be away from their part.
#[test]
fn nothing_is_written_for_who_is_near_a_part_and_wants_no_more() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = apart(&[]) else { return };
    for group in ["memory:/a", "memory:/b", "pids:/c", "pids:/d"] {
        daemon.ok(&["create", group]);
    }
    let (one, two) = (daemon.sleeper(), daemon.sleeper());
    for (process, groups) in [(&one, ["memory:/a", "pids:/c"]), (&two, ["memory:/b", "pids:/c"])] {
        for group in groups {
            daemon.ok(&["move", &process.pid().to_string(), group]);
        }
    }
    daemon.ok(&["set", "pids:/d", "pids.max=10"]);
    let beside: Vec<Child> =
        ["memory:/a", "memory:/b"].iter().map(|group| start(&daemon, &[group, "pids:/d"], FORKS)).collect();
    // Only looks have the others reach their limit, so there were some when they have.
    let look = |most: &str| {
        daemon.ok(&["set", "pids:/d", &format!("pids.max={most}")]);
        let most = number(most);
        eventually("they have nearly all", || number(&daemon.read("p/d/pids.current")) + most / 10 >= most);
    };
    daemon.ok(&["set", "pids:/c", "pids.max=3"]);
    look("20");
    assert_eq!(enforced(&daemon, "pids:/c", "pids.max"), "shared over 2 v2 directories");
    let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).expect("a descriptor");
    for process in [&one, &two] {
        let file = format!("/sys/fs/cgroup{}/pids.max", process.v2_path());
        inotify::add_watch(&watch, file, WatchFlags::MODIFY).expect("it is there");
    }
    let is_written = || {
        let mut buffer = [MaybeUninit::uninit(); 512];
        inotify::Reader::new(&watch, &mut buffer).next().is_ok()
    };
    for most in ["40", "60", "80"] {
        look(most);
        assert!(!is_written(), "though nothing has changed");
    }
    daemon.ok(&["set", "pids:/c", "pids.max=5"]);
    assert!(is_written(), "a change is seen so");
    for group in ["memory:/a", "memory:/b"] {
        daemon.ok(&["kill", group]);
    }
    for mut child in beside {
        child.wait().expect("timeout is our child");
    }
    drop((one, two));
    daemon.down();
}

#[test]
fn cpu_time_of_crossing_groups_is_limited_together_and_a_lone_busy_cell_gets_nearly_all() {
    if !in_guest() {
        return;
    }
    let Some(daemon) = apart(&[]) else { return };
    for group in ["memory:/a", "memory:/b", "cpu:/c", "cpu:/d"] {
        daemon.ok(&["create", group]);
    }
    let limits = [("c", 0.4), ("d", 0.3)];
    daemon.ok(&["set", "cpu:/c", "cpu.cfs_quota_us=40000"]);
    daemon.ok(&["set", "cpu:/d", "cpu.cfs_quota_us=30000"]);
    let burns = |groups: [&str; 2]| start(&daemon, &groups, "while :; do :; done");
    let mut all: Vec<Child> =
        ["memory:/a", "memory:/b"].iter().flat_map(|a| ["cpu:/c", "cpu:/d"].map(|c| burns([a, c]))).collect();
    eventually("all four burn", || {
        ["m/a", "m/b", "c/c", "c/d"].iter().all(|group| daemon.numbers(&format!("{group}/tasks")).len() == 2)
    });
    for group in ["cpu:/c", "cpu:/d"] {
        assert_eq!(enforced(&daemon, group, "cpu.cfs_quota_us"), "shared over 2 v2 directories");
    }
    // The part of one CPU that each group uses while it is held back some more times; bounds as wide as a guest's clock.
    let figures = |group: &str| {
        let text = daemon.read(&format!("c/{group}/cpu.stat"));
        let line = text.lines().find_map(|line| line.strip_prefix("nr_throttled "));
        (number(line.expect("a line for each")), number(&daemon.read(&format!("c/{group}/cpuacct.usage"))))
    };
    let used = || {
        let (start, before) = (Instant::now(), limits.map(|(group, _)| figures(group)));
        let is_held = |(group, (held, _)): (&str, (u64, u64))| figures(group).0 >= held + 40;
        eventually("both are held back", || {
            limits.iter().zip(before).all(|((group, _), before)| is_held((group, before)))
        });
        let passed = start.elapsed().as_nanos() as f64;
        let mut before = before.into_iter();
        limits.map(|(group, _)| (figures(group).1 - before.next().expect("one of each").1) as f64 / passed)
    };
    for (used, (group, limit)) in used().iter().zip(limits) {
        assert!(*used < limit * 1.25, "two burners of {group} use {used:.2} of a CPU, of {limit}");
    }
    daemon.ok(&["kill", "memory:/b"]);
    eventually("one of each is left", || {
        ["c/c", "c/d"].iter().all(|group| daemon.numbers(&format!("{group}/tasks")).len() == 1)
    });
    eventually("a lone one of each uses nearly all", || {
        used().iter().zip(limits).all(|(used, (group, limit))| {
            assert!(*used < limit * 1.25, "a lone one of {group} uses {used:.2} of a CPU, of {limit}");
            *used > limit * 0.85
        })
    });
    // One that comes late to what another has to itself gets its part, and both together no more than the limit.
    all.push(burns(["memory:/b", "cpu:/c"]));
    eventually("it is there", || {
        daemon.numbers("m/b/tasks").len() == 1 && daemon.numbers("c/c/tasks").len() == 2
    });
    let late = daemon.numbers("m/b/tasks")[0];
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{late}/stat")).expect("it burns");
        let fields: Vec<&str> = stat.rsplit_once(") ").expect("a name").1.split(' ').collect();
        number(fields[11]) + number(fields[12])
    };
    used(); // it has come to have its part
    let (before, began) = (ticks(), Instant::now());
    let both = used()[0];
    let own = (ticks() - before) as f64 / 100.0 / began.elapsed().as_secs_f64();
    assert!(both < 0.4 * 1.25, "both use {both:.2} of a CPU, of 0.40");
    assert!(own > both / 4.0, "the late one has {own:.2} of {both:.2}");
    end(daemon, &["memory:/a", "memory:/b"], all);
}

#[test]
fn memory_of_a_group_that_has_two_directories_is_given_to_who_needs_it_and_limited_together() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = apart(&[]) else { return };
    for group in ["memory:/c", "pids:/c", "cpu:/c"] {
        daemon.ok(&["create", group]);
    }
    daemon.ok(&["set", "memory:/c", "memory.limit_in_bytes=96M"]);
    let mut inside = start(&daemon, &["memory:/c", "pids:/c", "cpu:/c"], "exec sleep 600");
    eventually("it is in all three", || daemon.numbers("c/c/tasks").len() == 1);
    let ear = Ear::listening(&daemon, "m/c", "memory.usage_in_bytes", &(48 << 20).to_string());
    // Not in pids:/c, so not in the directory of the others.
    let holds = "dd if=/dev/zero bs=86M count=1 2>/dev/null | sleep 600";
    let mut holder = start(&daemon, &["memory:/c"], holds);
    eventually("it has nearly all of the limit", || {
        number(&daemon.read("m/c/memory.usage_in_bytes")) > 86 << 20
    });
    // The sum of two directories is above the threshold: once at least, as some is reclaimed on the way.
    assert!(ear.wakes() > 0);
    assert_eq!(enforced(&daemon, "memory:/c", "memory.limit_in_bytes"), CHARGED);
    assert_eq!(daemon.read("m/c/memory.oom_control").lines().last(), Some("oom_kill 0"));
    let too_much = "dd if=/dev/zero of=/dev/null bs=128M count=1";
    let mut glutton = start(&daemon, &["memory:/c"], too_much);
    assert!(!glutton.wait().expect("timeout is our child").success());
    assert!(number(&daemon.read("m/c/memory.usage_in_bytes")) <= 96 << 20);
    daemon.ok(&["kill", "memory:/c"]);
    for child in [&mut inside, &mut holder] {
        child.wait().expect("timeout is our child");
    }
    daemon.down();
}

/// Opens 60 descriptors as it is let, without a gap between their numbers: it is those that a process's limit bounds.
/// It says that it is there, and begins when it is told to.
const PATIENT: &str = r"
import os, sys, time
os.mknod(sys.argv[1])
while not os.path.exists(sys.argv[2]):
    time.sleep(0.01)
had = 0
while had < 60:
    try:
        os.dup(0)
        had += 1
    except OSError:
        time.sleep(0.01)
time.sleep(600)
";

/// Each of four cells has a directory of its own, and what holds in a group holds in two of them.
#[test]
fn masks_states_and_devices_hold_in_both_directories_of_each_of_two_groups_that_cross_two() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = beside_memory("freezer,devices,cpuset,files", "f") else { return };
    for group in ["memory:/a", "memory:/b", "files:/c", "files:/d"] {
        daemon.ok(&["create", group]);
    }
    let cells = [
        ["memory:/a", "files:/c"],
        ["memory:/b", "files:/c"],
        ["memory:/a", "files:/d"],
        ["memory:/b", "files:/d"],
    ];
    let sleepers = cells.map(|groups| {
        let sleeper = daemon.sleeper();
        groups.iter().for_each(|group| _ = daemon.ok(&["move", &sleeper.pid().to_string(), group]));
        sleeper
    });
    let paths: BTreeSet<String> = sleepers.iter().map(Sleeper::v2_path).collect();
    assert_eq!(paths.len(), 4, "{paths:?}");
    daemon.ok(&["set", "files:/c", "freezer.state=FROZEN"]);
    eventually("both stand still", || daemon.read("f/c/freezer.state") == "FROZEN\n");
    let stands_still = |sleeper: &Sleeper| {
        let events = std::fs::read_to_string(format!("/sys/fs/cgroup{}/cgroup.events", sleeper.v2_path()));
        events.expect("a v2 file").contains("frozen 1")
    };
    assert_eq!(sleepers.each_ref().map(stands_still), [true, true, false, false]);
    daemon.ok(&["set", "files:/c", "freezer.state=THAWED"]);
    daemon.ok(&["set", "files:/c", "cpuset.cpus=1"]);
    daemon.ok(&["set", "files:/d", "cpuset.cpus=0"]);
    let allowed = sleepers.each_ref().map(|sleeper| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", sleeper.pid())).expect("it sleeps");
        let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:\t"));
        line.expect("every process has it").to_owned()
    });
    assert_eq!(allowed, ["1", "1", "0", "0"]);
    let succeeds = |script: &str| {
        cells.map(|groups| start(&daemon, &groups, script).wait().expect("timeout is our child").success())
    };
    daemon.ok(&["set", "files:/c", "devices.deny=c 1:5 r"]);
    assert_eq!(succeeds("exec 3</dev/zero"), [false, false, true, true]);
    // One process has most of what both cells of a group may have open.
    let [ready, go] = ["ready", "go"].map(|name| daemon.dir.join(name));
    let script = format!("exec python3 -c '{PATIENT}' {} {}", ready.display(), go.display());
    let mut holder = start(&daemon, &cells[0], &script);
    eventually("it is there", || ready.exists());
    daemon.ok(&["set", "files:/c", "files.max=100"]);
    std::fs::write(go, "").expect("the test's own directory");
    eventually("it has opened them", || number(&daemon.read("f/c/files.current")) > 60);
    assert_eq!(
        succeeds("exec python3 -c 'import os\nfor _ in range(60): os.dup(0)'"),
        [false, false, true, true]
    );
    daemon.ok(&["kill", "files:/c"]);
    holder.wait().expect("timeout is our child");
    drop(sleepers);
    daemon.down();
}

/// v2 weighs a directory against those beside it, and protects it as far as those above are protected.
#[test]
fn the_status_says_of_weights_and_protection_what_v2_makes_of_them() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = apart(&[]) else { return };
    for group in ["memory:/a", "memory:/b", "cpu:/c", "cpu:/d"] {
        daemon.ok(&["create", group]);
    }
    daemon.ok(&["set", "cpu:/c", "cpu.shares=2048"]);
    daemon.ok(&["set", "memory:/a", "memory.soft_limit_in_bytes=64M"]);
    let (one, two) = (daemon.sleeper(), daemon.sleeper());
    daemon.ok(&["move", &one.pid().to_string(), "cpu:/c"]);
    daemon.ok(&["move", &two.pid().to_string(), "cpu:/d"]);
    assert_eq!(enforced(&daemon, "cpu:/c", "cpu.shares"), "native");
    assert_eq!((v2(&one, "cpu.weight"), v2(&two, "cpu.weight")), (174, 100));
    drop((one, two));
    let (one, two) = (daemon.sleeper(), daemon.sleeper());
    for (process, groups) in [(&one, ["memory:/a", "cpu:/c"]), (&two, ["memory:/b", "cpu:/d"])] {
        for group in groups {
            daemon.ok(&["move", &process.pid().to_string(), group]);
        }
    }
    let said = enforced(&daemon, "cpu:/c", "cpu.shares");
    assert!(said.starts_with("native, but weighed only against those"), "{said}");
    let said = enforced(&daemon, "memory:/a", "memory.soft_limit_in_bytes");
    assert!(said.starts_with("native, but only where a group above"), "{said}");
    daemon.ok(&["set", "memory:/", "memory.soft_limit_in_bytes=1G"]);
    let said = enforced(&daemon, "memory:/", "memory.soft_limit_in_bytes");
    assert_eq!(said, "stored only: a root has no v2 directory of its own");
    drop((one, two));
    daemon.down();
}

/// What a v2 file says, of the directory of a group of which this process is the only one.
fn v2(process: &daemon::Sleeper, file: &str) -> u64 {
    let leaf = std::path::PathBuf::from("/sys/fs/cgroup").join(process.v2_path().trim_start_matches('/'));
    let dir = leaf.parent().expect("a leaf hangs below its group's directory");
    number(&std::fs::read_to_string(dir.join(file)).expect("a v2 file"))
}

#[test]
fn a_strict_realm_refuses_what_it_would_have_to_divide() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = apart(&["--strict"]) else { return };
    daemon.script("mkdir m/a m/b p/c c/c c/d");
    let (one, two) = (daemon.sleeper(), daemon.sleeper());
    daemon.ok(&["move", &one.pid().to_string(), "memory:/a"]);
    daemon.ok(&["move", &two.pid().to_string(), "memory:/b"]);
    daemon.ok(&["move", &one.pid().to_string(), "pids:/c"]);
    daemon.ok(&["set", "pids:/c", "pids.max=40"]);
    let said = daemon.refused(&["move", &two.pid().to_string(), "pids:/c"]);
    assert!(said.contains("would be divided over 2 v2 directories"), "{said}");
    let refused = daemon.write("p/c/tasks", &two.pid().to_string()).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(16), "{refused}");
    daemon.ok(&["set", "pids:/c", "pids.max=max"]);
    daemon.ok(&["move", &two.pid().to_string(), "pids:/c"]);
    let said = daemon.refused(&["set", "pids:/c", "pids.max=40"]);
    assert!(said.contains("would be divided over 2 v2 directories"), "{said}");
    // Nor does it keep what nobody enforces.
    let said = daemon.refused(&["set", "memory:/a", "memory.kmem.tcp.limit_in_bytes=4096"]);
    assert!(said.contains("would be stored only"), "{said}");
    let is_refused = |file: &str, value: &str| {
        let refused = daemon.write(file, value).expect_err(file);
        assert_eq!(refused.raw_os_error(), Some(16), "{file}: {refused}");
    };
    is_refused("m/a/memory.swappiness", "10");
    daemon.write("m/a/memory.swappiness", "60").unwrap();
    // Nor what the kernel would enforce otherwise than v1 does.
    is_refused("m/a/memory.soft_limit_in_bytes", "64M");
    is_refused("m/memory.soft_limit_in_bytes", "64M");
    is_refused("m/a/memory.oom_control", "1");
    daemon.write("c/c/cpu.shares", "2048").unwrap();
    daemon.write("c/c/tasks", &one.pid().to_string()).unwrap();
    assert_eq!(enforced(&daemon, "cpu:/c", "cpu.shares"), "native");
    is_refused("c/d/tasks", &two.pid().to_string()); // c and d would be apart, below a and b
    assert_eq!(daemon.read("c/d/tasks"), "");
    daemon.write("c/c/cpu.shares", "1024").unwrap();
    daemon.write("c/d/tasks", &two.pid().to_string()).unwrap();
    is_refused("c/c/cpu.shares", "2048");
    // What a realm had that was not strict stays, is told of, and is in nobody's way.
    const MOUNTS: &[(&str, &str)] = &[("memory", "m"), ("pids", "p"), ("cpu,cpuacct", "c")];
    daemon.kill();
    serve(&mut daemon, MOUNTS, &[]);
    daemon.ok(&["set", "pids:/c", "pids.max=40"]);
    daemon.kill();
    serve(&mut daemon, MOUNTS, &["--strict"]);
    let log = daemon.log();
    assert!(
        log.contains("/c: kept from before, though the realm is strict: pids.max would be divided"),
        "{log}"
    );
    daemon.write("p/c/notify_on_release", "1").unwrap();
    let refused = daemon.write("p/c/pids.max", "50").expect_err("divided");
    assert_eq!(refused.raw_os_error(), Some(16), "{refused}");
    daemon.write("p/c/pids.max", "max").unwrap();
    drop((one, two));
    daemon.down();
}

#[test]
fn a_disk_is_written_by_crossing_groups_at_one_rate_and_a_lone_busy_cell_gets_nearly_all() {
    const RATE: u64 = 1 << 20;
    if !in_guest() {
        return;
    }
    let Some(daemon) = beside_memory("blkio", "b") else { return };
    for group in ["memory:/a", "memory:/b", "blkio:/c", "blkio:/d"] {
        daemon.ok(&["create", group]);
    }
    let disk = std::fs::read_to_string("/sys/block/vda/dev").expect("the guest has a disk");
    let limit = |group: &str, rate: u64| {
        let file = format!("b/{group}/blkio.throttle.write_bps_device");
        daemon.write(&file, &format!("{} {rate}", disk.trim())).expect("a limit");
    };
    limit("c", RATE);
    limit("d", RATE / 2);
    let flag = |name: &str| daemon.dir.join(name).display().to_string();
    let (stop, go, done) = (flag("stop"), flag("go"), flag("done"));
    let writes = format!(
        "until [ -e {stop} ]; do dd if=/dev/zero of=/dev/vda oflag=direct bs=64k count=32; done; exec sleep 600"
    );
    let mut all: Vec<Child> = ["memory:/a", "memory:/b"]
        .iter()
        .flat_map(|a| ["blkio:/c", "blkio:/d"].map(|c| start(&daemon, &[a, c], &writes)))
        .collect();
    let bytes = |text: &str| {
        text.lines().find_map(|line| line.split_once(" Write ")).map_or(0, |(_, bytes)| number(bytes))
    };
    let written = |group: &str| bytes(&daemon.read(&format!("b/{group}/blkio.throttle.io_service_bytes")));
    eventually("all four write", || {
        written("c") > RATE
            && written("d") > RATE / 2
            && ["m/a", "m/b", "b/c", "b/d"]
                .iter()
                .all(|group| daemon.numbers(&format!("{group}/tasks")).len() >= 2)
    });
    for group in ["blkio:/c", "blkio:/d"] {
        assert_eq!(
            enforced(&daemon, group, "blkio.throttle.write_bps_device"),
            "shared over 2 v2 directories"
        );
    }
    // Bytes a second of each group while the first writes this many more, by its limit; bounds as wide as a guest's clock.
    let rates = |bytes: u64| {
        let (start, first) = (Instant::now(), ["c", "d"].map(written));
        eventually("more is written", || written("c") >= first[0] + bytes);
        let passed = start.elapsed().as_secs_f64();
        let rate =
            |at: usize, limit: u64| (written(["c", "d"][at]) - first[at]) as f64 / passed / limit as f64;
        [rate(0, RATE), rate(1, RATE / 2)]
    };
    for rate in rates(3 << 20) {
        assert!(rate < 1.25, "two write at {rate:.2} of the rate");
    }
    daemon.ok(&["kill", "memory:/b"]);
    eventually("one of each is left", || daemon.read("m/b/tasks").is_empty());
    eventually("a lone one of each writes at nearly the whole rate", || {
        rates(4 << 20).iter().all(|rate| {
            assert!(*rate < 1.25, "a lone one writes at {rate:.2} of the rate");
            *rate > 0.85
        })
    });
    // One that comes late to what another has to itself gets its part, and both together no more than the limit.
    all.push(start(&daemon, &["memory:/b", "blkio:/c"], &writes));
    eventually("it is there", || daemon.numbers("m/b/tasks").len() >= 2);
    let shell = daemon.numbers("m/b/tasks")[0];
    let place = std::fs::read_to_string(format!("/proc/{shell}/cgroup")).expect("it writes");
    let leaf = place.lines().find_map(|line| line.strip_prefix("0::")).expect("v2 only").to_owned();
    let own = || {
        let text = std::fs::read_to_string(format!("/sys/fs/cgroup{leaf}/io.stat")).unwrap_or_default();
        let words = text.split_ascii_whitespace();
        words.filter_map(|word| word.strip_prefix("wbytes=")).map(number).sum::<u64>()
    };
    rates(2 << 20); // it has come to have its part
    let (before, all_before) = (own(), written("c"));
    let rate = rates(4 << 20)[0];
    let (own, both) = (own() - before, written("c") - all_before);
    assert!(rate < 1.25, "both write at {rate:.2} of the rate");
    assert!(own * 4 > both, "the late one has written {own} of {both}");
    daemon.ok(&["kill", "memory:/b"]);
    eventually("one of each is left", || daemon.read("m/b/tasks").is_empty());
    // One who comes while the other has nearly all, and wants its first megabyte when that has stopped.
    let last = format!(
        "until [ -e {go} ]; do sleep 0.1; done; dd if=/dev/zero of=/dev/vda oflag=direct bs=1M count=1 && touch {done}"
    );
    all.push(start(&daemon, &["memory:/b", "blkio:/c"], &format!("{last}; exec sleep 600")));
    eventually("it is there", || !daemon.read("m/b/tasks").is_empty());
    std::fs::write(&stop, "").expect("a file");
    let sleeps = |task: &u32| {
        std::fs::read_to_string(format!("/proc/{task}/comm")).is_ok_and(|comm| comm == "sleep\n")
    };
    eventually("the others have stopped", || {
        let tasks = daemon.numbers("m/a/tasks");
        tasks.len() == 2 && tasks.iter().all(sleeps)
    });
    std::fs::write(&go, "").expect("a file");
    let shell = daemon.numbers("m/b/tasks")[0];
    eventually("it has most of the rate", || rate_of(shell) > Some(RATE / 2));
    eventually("it is written", || Path::new(&done).exists());
    end(daemon, &["blkio:/c", "blkio:/d"], all);
}

/// Each request is one, however small.
#[test]
fn a_disk_is_written_by_crossing_groups_as_often_as_both_may_and_a_lone_busy_cell_gets_nearly_all() {
    if !in_guest() {
        return;
    }
    let Some(daemon) = beside_memory("blkio", "b") else { return };
    for group in ["memory:/a", "memory:/b", "blkio:/c", "blkio:/d"] {
        daemon.ok(&["create", group]);
    }
    let disk = std::fs::read_to_string("/sys/block/vda/dev").expect("the guest has a disk");
    let limits = [("c", 60), ("d", 30)];
    for (group, rate) in limits {
        let file = format!("b/{group}/blkio.throttle.write_iops_device");
        daemon.write(&file, &format!("{} {rate}", disk.trim())).expect("a limit");
    }
    let writes = "while :; do dd if=/dev/zero of=/dev/vda oflag=direct bs=4k count=400; done";
    let all: Vec<Child> = ["memory:/a", "memory:/b"]
        .iter()
        .flat_map(|a| ["blkio:/c", "blkio:/d"].map(|c| start(&daemon, &[a, c], writes)))
        .collect();
    let written = |(group, _): (&str, u64)| {
        let text = daemon.read(&format!("b/{group}/blkio.throttle.io_serviced"));
        text.lines().find_map(|line| line.split_once(" Write ")).map_or(0, |(_, times)| number(times))
    };
    let groups = ["m/a", "m/b", "b/c", "b/d"];
    eventually("all four write", || {
        let are_there = groups.iter().all(|group| daemon.numbers(&format!("{group}/tasks")).len() >= 2);
        are_there && limits.iter().all(|limit| written(*limit) > limit.1)
    });
    for group in ["blkio:/c", "blkio:/d"] {
        let said = enforced(&daemon, group, "blkio.throttle.write_iops_device");
        assert_eq!(said, "shared over 2 v2 directories");
    }
    // Of its rate, what each group writes while the first writes for some seconds by its own; bounds as wide as a guest's clock.
    let rates = || {
        let (start, first) = (Instant::now(), limits.map(written));
        eventually("more is written", || written(limits[0]) >= first[0] + 4 * limits[0].1);
        let passed = start.elapsed().as_secs_f64();
        let of = |at: usize| (written(limits[at]) - first[at]) as f64 / passed / limits[at].1 as f64;
        [of(0), of(1)]
    };
    for rate in rates() {
        assert!(rate < 1.25, "two write at {rate:.2} of the rate");
    }
    daemon.ok(&["kill", "memory:/b"]);
    eventually("one of each is left", || daemon.read("m/b/tasks").is_empty());
    eventually("a lone one of each writes at nearly the whole rate", || {
        rates().iter().all(|rate| {
            assert!(*rate < 1.25, "a lone one writes at {rate:.2} of the rate");
            *rate > 0.85
        })
    });
    end(daemon, &["memory:/a"], all);
}

/// v2 takes no quota below a millisecond a second, so a directory for each group that crosses has more together.
#[test]
fn parts_that_may_come_to_more_than_a_limit_are_told() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = apart(&[]) else { return };
    for group in ["memory:/a", "memory:/b", "memory:/e", "cpu:/c"] {
        daemon.ok(&["create", group]);
    }
    let sleepers = ["memory:/a", "memory:/b", "memory:/e"].map(|group| {
        let sleeper = daemon.sleeper();
        [group, "cpu:/c"]
            .iter()
            .for_each(|group| _ = daemon.ok(&["move", &sleeper.pid().to_string(), group]));
        sleeper
    });
    daemon.ok(&["set", "cpu:/c", "cpu.cfs_period_us=1000000"]);
    // The quota of each directory, in microseconds a second.
    let parts = || {
        sleepers.iter().map(|sleeper| {
            let max = std::fs::read_to_string(format!("/sys/fs/cgroup{}/cpu.max", sleeper.v2_path()));
            let max = max.expect("a v2 file");
            let (quota, period) = max.trim().split_once(' ').expect("two numbers");
            number(quota) * 1_000_000 / number(period)
        })
    };
    for (quota, sum, said) in [
        ("4000", 4000, "shared over 3 v2 directories"),
        ("3000", 3000, "shared over 3 v2 directories"),
        (
            "1500",
            3500,
            "shared over 3 v2 directories, which may have more than the limit together: each has the least that v2 takes",
        ),
    ] {
        daemon.ok(&["set", "cpu:/c", &format!("cpu.cfs_quota_us={quota}")]);
        assert_eq!(enforced(&daemon, "cpu:/c", "cpu.cfs_quota_us"), said, "{quota}");
        assert!(parts().sum::<u64>() <= sum, "{:?} of {quota}", parts().collect::<Vec<_>>());
    }
    assert!(parts().sum::<u64>() > 1500, "what is told is so");
    drop(sleepers);
    daemon.down();
}

/// How many bytes a second a process may write to a disk: by the next directory of v2 above it that has a limit.
fn rate_of(process: u32) -> Option<u64> {
    let groups = std::fs::read_to_string(format!("/proc/{process}/cgroup")).expect("it lives");
    let path = groups.lines().find_map(|line| line.strip_prefix("0::")).expect("v2 only");
    let limit = |dir: &Path| {
        let limits = std::fs::read_to_string(format!("/sys/fs/cgroup{}/io.max", dir.display())).ok()?;
        limits.split_ascii_whitespace().find_map(|word| word.strip_prefix("wbps=")?.parse().ok())
    };
    Path::new(path).ancestors().find_map(limit)
}

/// Pages of hugetlbfs belong to who has them made.
#[test]
fn huge_pages_of_crossing_groups_are_limited_together_and_a_lone_busy_cell_gets_nearly_all() {
    const PAGES: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = beside_memory("hugetlb", "h") else { return };
    std::fs::write(PAGES, "15").expect("the guest's kernel has huge pages");
    for group in ["memory:/a", "memory:/b", "hugetlb:/c", "hugetlb:/d"] {
        daemon.ok(&["create", group]);
    }
    daemon.ok(&["set", "hugetlb:/c", "hugetlb.2MB.limit_in_bytes=20M"]);
    daemon.ok(&["set", "hugetlb:/d", "hugetlb.2MB.limit_in_bytes=8M"]);
    daemon.script("mkdir huge && mount -t hugetlbfs none huge");
    // Each takes page after page, and tries again when it is refused.
    let takes = |groups: [&str; 2], most: u32| {
        let file = daemon.path("huge").join(format!("{most}{}", groups.concat().replace([':', '/'], "")));
        let file = file.display();
        let script = format!(
            "n=0; while [ $n -lt {most} ]; do fallocate -o ${{n}}MiB -l 2MiB {file} && n=$((n + 2)); done; sleep 600"
        );
        start(&daemon, &groups, &script)
    };
    let used = |group: &str, most: u64| {
        let used = number(&daemon.read(&format!("h/{group}/hugetlb.2MB.usage_in_bytes"))) >> 20;
        assert!(used <= most, "{used} MiB of {most}");
        used
    };
    let mut all = vec![takes(["memory:/b", "hugetlb:/c"], 2), takes(["memory:/a", "hugetlb:/d"], 2)];
    eventually("each has its page", || used("c", 20) == 2 && used("d", 8) == 2);
    all.push(takes(["memory:/a", "hugetlb:/c"], 12));
    all.push(takes(["memory:/b", "hugetlb:/d"], 24));
    eventually("one has what it wants, the other all there is", || used("c", 20) == 14 && used("d", 8) == 8);
    for group in ["hugetlb:/c", "hugetlb:/d"] {
        assert_eq!(enforced(&daemon, group, "hugetlb.2MB.limit_in_bytes"), CHARGED);
    }
    // One that comes late gets all that is left.
    all.push(takes(["memory:/b", "hugetlb:/c"], 24));
    eventually("all is used, and no more than all", || used("c", 20) == 20 && used("d", 8) == 8);
    for group in ["hugetlb:/c", "hugetlb:/d"] {
        daemon.ok(&["kill", group]);
    }
    for mut child in all {
        child.wait().expect("timeout is our child");
    }
    daemon.script("umount huge");
    std::fs::write(PAGES, "0").expect("nobody uses them");
    daemon.down();
}

/// Each group on the way to one with processes is a v2 directory, and an administrator may bound how deep they are. A path of
/// more than 4095 bytes (ENAMETOOLONG, 400 directories or so) is refused in the same way.
#[test]
fn a_group_that_is_too_deep_for_the_v2_tree_gets_no_process_and_leaves_nothing() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = beside_memory("pids", "p") else { return };
    let sleeper = daemon.sleeper();
    daemon.script("mkdir -p p/1/2/3/4/5/6/7/8");
    let attach = |group: &str| daemon.write(&format!("p/{group}/tasks"), &sleeper.pid().to_string());
    let bound = daemon.base.path().join("cgroup.max.depth");
    std::fs::write(&bound, "8").expect("an own directory");
    let refused = attach("1/2/3/4/5/6/7/8").expect_err("the realm's directory and the leaf make 10");
    assert_eq!(refused.raw_os_error(), Some(11), "EAGAIN: cgroup_check_hierarchy_limits()");
    let realm = daemon.base.path().join("pinfold.default");
    let made = std::fs::read_dir(realm).expect("an own directory").flatten();
    assert_eq!(made.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).count(), 0);
    attach("1/2/3/4/5/6").expect("8 deep");
    drop(sleeper);
    daemon.down();
}
