//! cgroup.event_control, for real: an eventfd of this process is woken by what happens in a group.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Child, Stdio};

use crate::daemon::{self, Daemon, PATIENCE, copy_program, eventually, in_guest};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

/// An eventfd of this process.
pub(crate) struct Ear(OwnedFd);

impl Ear {
    fn new() -> Self {
        Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).expect("an eventfd"))
    }

    /// Registers it for a control file of a group, which need not stay open.
    fn listen(&self, daemon: &Daemon, group: &str, file: &str, argument: &str) -> std::io::Result<()> {
        let control = File::open(daemon.path(&format!("{group}/{file}")))?;
        let text = format!("{} {} {argument}", self.0.as_raw_fd(), control.as_raw_fd());
        daemon.write(&format!("{group}/cgroup.event_control"), &text)
    }

    pub(crate) fn listening(daemon: &Daemon, group: &str, file: &str, argument: &str) -> Self {
        let ear = Self::new();
        ear.listen(daemon, group, file, argument).expect("root may listen");
        ear
    }

    /// Waits until it is woken, and gives how often it was.
    pub(crate) fn wakes(&self) -> u64 {
        let patience = Timespec { tv_sec: PATIENCE.as_secs().try_into().expect("a minute"), tv_nsec: 0 };
        let woken = poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&patience)).expect("poll");
        assert_eq!(woken, 1, "nobody woke it");
        self.woken()
    }

    /// How often it was woken up to now.
    fn woken(&self) -> u64 {
        let mut count = [0; 8];
        match rustix::io::read(&self.0, &mut count) {
            Ok(_) => u64::from_ne_bytes(count),
            Err(rustix::io::Errno::AGAIN) => 0,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Listens ten times, says so, and ends when its standard input does.
const LISTENING: &str = r"
import os, sys
control = os.open(sys.argv[1] + '/memory.oom_control', os.O_RDONLY)
ears = [os.eventfd(0) for _ in range(10)]
for ear in ears:
    open(sys.argv[1] + '/cgroup.event_control', 'w').write(f'{ear} {control}')
print(flush=True)
sys.stdin.read()
";

/// Asks in every way, and says what comes of it.
const ASKING: &str = r"
import errno, os, sys
os.chdir(sys.argv[1])
ear = os.eventfd(0)
def control(path, flags=os.O_RDONLY):
    return os.open(path, flags)
def register(*words):
    to = os.open('cgroup.event_control', os.O_WRONLY)
    try:
        os.write(to, ' '.join(map(str, words)).encode())
        return 'ok'
    except OSError as error:
        return errno.errorcode[error.errno]
    finally:
        os.close(to)
usage, oom, pressure = map(control, ['memory.usage_in_bytes', 'memory.oom_control', 'memory.pressure_level'])
print(register(ear, usage, '1M'), register(ear, oom), register(ear, pressure, 'low'))
print(register(ear, control('memory.limit_in_bytes'), '1M'), register(ear, control('/dev/null'), '1M'))
print(register(ear, control('.'), '1M'), register(ear, control(sys.argv[2] + '/memory.usage_in_bytes'), '1M'))
print(register(ear, 999, '1M'), register(999, usage, '1M'), register(usage, usage, '1M'))
print(register(ear, control('memory.usage_in_bytes', os.O_PATH), '1M'), register(ear, usage, 'low'))
os.chmod('memory.usage_in_bytes', 0o600)
os.setresuid(1000, 1000, 1000)
print(register(ear, usage, '1M'), register(ear, oom))
";

fn number(text: &str) -> u64 {
    text.trim().parse().expect("a number")
}

/// A process of a group that has 48 MiB and waits.
fn holder(daemon: &Daemon, group: &str) -> Child {
    let script = "dd if=/dev/zero bs=48M count=1 | sleep 600";
    let command = ["exec", "-g", group, "--", "sh", "-c", script];
    daemon.command(daemon::BINARY).args(command).spawn().expect("timeout runs")
}

/// How many eventfds the daemon has. Of other descriptors it may have more or fewer at any time: for who is connected.
fn eventfds(daemon: &Daemon) -> usize {
    let entries = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("the daemon runs");
    let links = entries.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
    links.filter(|link| link.as_os_str() == "anon_inode:[eventfd]").count()
}

#[test]
fn a_threshold_wakes_its_eventfd_when_usage_crosses_it_either_way() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("memory:cg") else { return };
    daemon.ok(&["create", "/a"]);
    let usage = "memory.usage_in_bytes";
    let low = Ear::listening(&daemon, "cg/a", usage, "16M");
    let both = Ear::listening(&daemon, "cg/a", "memory.memsw.usage_in_bytes", "24M");
    let high = Ear::listening(&daemon, "cg/a", usage, "512M");
    let nothing = Ear::listening(&daemon, "cg/a", usage, "");
    let mut holder = holder(&daemon, "/a");
    assert_eq!((low.wakes(), both.wakes()), (1, 1));
    eventually("dd has its buffer", || number(&daemon.read("cg/a/memory.usage_in_bytes")) > 48 << 20);
    daemon.ok(&["kill", "/a"]);
    assert_eq!((low.wakes(), both.wakes()), (1, 1));
    holder.wait().expect("timeout is our child");
    assert_eq!((high.woken(), nothing.woken()), (0, 0), "what was not crossed");
    // A group that goes tells all of them, and then nobody.
    eventually("the group is empty", || daemon.read("cg/a/tasks").is_empty());
    daemon.ok(&["rm", "/a"]);
    for ear in [low, both, high, nothing] {
        assert_eq!(ear.wakes(), 1);
    }
    daemon.down();
}

#[test]
fn a_limit_that_is_met_wakes_those_who_listen_in_the_group_and_below() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("memory:cg") else { return };
    daemon.ok(&["create", "-p", "/a/b"]);
    daemon.ok(&["create", "/c"]);
    daemon.ok(&["set", "/a", "memory.limit_in_bytes=16M"]);
    let oom = "memory.oom_control";
    let [own, below] = ["cg/a", "cg/a/b"].map(|group| Ear::listening(&daemon, group, oom, ""));
    let [root, beside] = ["cg", "cg/c"].map(|group| Ear::listening(&daemon, group, oom, "ignored"));
    for group in ["/a", "/a/b"] {
        daemon.overstep_memory(group);
        // The kernel counts once for each try to charge: the one who is killed may try again.
        assert!(own.wakes() > 0 && below.wakes() > 0, "{group}");
        eventually("the group is empty", || daemon.read(&format!("cg{group}/tasks")).is_empty());
        own.woken();
        below.woken();
    }
    assert_eq!((root.woken(), beside.woken()), (0, 0));
    daemon.down();
    // The realm's groups are gone, as after an unmount.
    assert!(own.wakes() > 0 && root.wakes() > 0);
}

#[test]
fn pressure_wakes_by_level_and_mode() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("memory:cg") else { return };
    daemon.ok(&["create", "-p", "/a"]);
    daemon.ok(&["set", "/a", "memory.limit_in_bytes=16M"]);
    let listen =
        |group: &str, argument: &str| Ear::listening(&daemon, group, "memory.pressure_level", argument);
    let heard =
        ["low", "low,local", "critical", "critical,hierarchy"].map(|argument| listen("cg/a", argument));
    let (above, not_above) = (listen("cg", "low,hierarchy"), listen("cg", "low"));
    daemon.overstep_memory("/a");
    // What is scanned for nothing before somebody is killed is pressure of the worst kind.
    for ear in &heard {
        assert!(ear.wakes() > 0);
    }
    assert!(above.wakes() > 0);
    assert_eq!(not_above.woken(), 0, "somebody below was told");
    daemon.down();
}

#[test]
fn a_closed_eventfd_is_let_go_of() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("memory:cg") else { return };
    daemon.ok(&["create", "/a"]);
    let before = eventfds(&daemon);
    let ears: Vec<Ear> =
        (0..10).map(|_| Ear::listening(&daemon, "cg/a", "memory.usage_in_bytes", "1G")).collect();
    assert!(eventfds(&daemon) >= before + 10);
    drop(ears);
    eventually("the daemon has closed them too", || eventfds(&daemon) < before + 5);
    daemon.down();
}

#[test]
fn an_eventfd_of_a_process_that_ends_is_let_go_of_without_a_look() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("memory:cg") else { return };
    daemon.ok(&["create", "/a"]);
    let before = eventfds(&daemon);
    let mut child = daemon
        .command("python3")
        .args(["-c", LISTENING])
        .arg(daemon.path("cg/a"))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("python3 runs");
    assert!(daemon::readable(child.stdout.as_ref().expect("a pipe").as_fd()), "it registers");
    assert!(eventfds(&daemon) >= before + 10);
    drop(child.stdin.take());
    assert!(child.wait().expect("it is our child").success());
    eventually("the daemon has closed them too", || eventfds(&daemon) < before + 5);
    daemon.down();
}

/// As a user listens until that is refused, and says how often it could. Then root listens while the other still does.
const CROWDING: &str = r"
import errno, os, sys
def listen():
    ear = os.eventfd(0)
    control = os.open(sys.argv[1] + '/memory.usage_in_bytes', os.O_RDONLY)
    try:
        door = os.open(sys.argv[1] + '/cgroup.event_control', os.O_WRONLY)
        os.write(door, f'{ear} {control} 1M'.encode())
        os.close(door)
        return None
    except OSError as error:
        return errno.errorcode[error.errno]
    finally:
        os.close(control)
said, says = os.pipe()
held, holds = os.pipe()
if os.fork() == 0:
    os.close(holds)
    os.setgid(1001)
    os.setuid(1001)
    count = 0
    while not (refused := listen()):
        count += 1
    os.write(says, f'{count} {refused}'.encode())
    os.read(held, 1)
    os._exit(0)
os.close(says)
print(os.read(said, 100).decode(), listen() or 'ok')
";

#[test]
fn one_user_does_not_take_every_place_to_listen_from() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::new() else { return };
    let mount = format!("--mount=memory:{}", daemon.dir.join("cg").display());
    // A quarter of these may be listeners, and an eighth of those a user's.
    daemon.try_serve_through(&["prlimit", "--nofile=1024:1024"], &[mount]).expect("it starts");
    daemon.ok(&["create", "/a"]);
    let script = daemon.dir.join("crowding.py");
    std::fs::write(&script, CROWDING).expect("the directory is ours");
    let output = daemon.script("python3 crowding.py cg/a");
    assert_eq!(daemon::text(&output.stdout), "32 ENOMEM ok\n", "{}", daemon::text(&output.stderr));
    daemon.down();
}

#[test]
fn who_may_not_read_a_control_file_is_told_nothing_of_it() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("memory:cg") else { return };
    daemon.ok(&["create", "/a"]);
    daemon.ok(&["create", "/b"]);
    let output = daemon
        .command("python3")
        .args(["-c", ASKING])
        .arg(daemon.path("cg/a"))
        .arg(daemon.path("cg/b"))
        .output()
        .expect("python3 runs");
    let text = daemon::text(&output.stdout);
    // As Linux 6.1 answers.
    let expected = "ok ok ok\nEINVAL EINVAL\nEINVAL EINVAL\nEBADF EBADF EINVAL\nEBADF EINVAL\nEACCES ok\n";
    assert_eq!(text, expected, "{}", daemon::text(&output.stderr));
    daemon.down();
}

/// Uses 64 MiB, a page after the other, and ends.
/// Asks for so much memory, piece by piece.
const HUNGRY: &str = "BEGIN { while (had < mib * 64) kept[had++] = sprintf(\"%16384s\", \"\") }";

/// A command that asks for so many MiB.
///
/// Its program is in memory: one whose pages can be read again from a slow disk goes on at a crawl, since the kernel kills,
/// or slows it down, only where it can reclaim nothing.
pub(crate) fn asking(daemon: &Daemon, mib: u32) -> String {
    let (awk, script) = (daemon.dir.join("awk"), daemon.dir.join("hungry.awk"));
    copy_program("/bin/busybox", &awk);
    std::fs::write(&script, HUNGRY).expect("a script");
    format!("exec {} -v mib={mib} -f {}", awk.display(), script.display())
}

fn hungry(daemon: &Daemon, group: &str) -> Child {
    let asks = asking(daemon, 64);
    let mut command = daemon.command(daemon::BINARY);
    command.args(["exec", "-g", group, "--", "sh", "-c", &asks]).spawn().expect("timeout runs")
}

const WAITING: &str = "oom_kill_disable 1\nunder_oom 1\noom_kill 0\n";

/// Its processes wait, or do so again: what the kernel has reclaimed meanwhile lets them go on for a moment.
fn waits(daemon: &Daemon, group: &str) {
    eventually("it waits", || daemon.read(&format!("{group}/memory.oom_control")) == WAITING);
}

#[test]
fn processes_wait_for_memory_if_they_are_told_to_and_go_on_when_there_is_some() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("memory,freezer:cg") else { return };
    daemon.ok(&["create", "/a"]);
    daemon.ok(&["set", "/a", "memory.limit_in_bytes=32M"]);
    daemon.write("cg/a/memory.oom_control", "1").unwrap();
    daemon.ok(&["create", "/a/b"]);
    let ear = Ear::listening(&daemon, "cg/a", "memory.oom_control", "");
    let mut child = hungry(&daemon, "/a");
    assert_eq!(ear.wakes(), 1);
    waits(&daemon, "cg/a");
    // A child inherits, and waits with the one above.
    waits(&daemon, "cg/a/b");
    let late = Ear::listening(&daemon, "cg/a/b", "memory.oom_control", "");
    assert_eq!(late.wakes(), 1, "at once");
    let used = number(&daemon.read("cg/a/memory.usage_in_bytes"));
    assert!((31 << 20..48 << 20).contains(&used), "{used}");
    eventually("its status says so too", || {
        let status = daemon.ok(&["status", "/a"]);
        let line = status.lines().find(|line| line.contains("memory.oom_control")).expect("a setting");
        assert!(line.ends_with("user space"), "{status}");
        line.contains("oom_kill_disable 1, under_oom 1, oom_kill 0")
    });
    // The limit held nobody off at once, so it may rise to less than what is used by now.
    daemon.write("cg/a/memory.limit_in_bytes", &((32 << 20) + 4096).to_string()).unwrap();
    waits(&daemon, "cg/a");
    // Who thaws the group with the freezer finds it frozen again: there still is no room.
    daemon.write("cg/a/freezer.state", "THAWED").unwrap();
    let frozen = format!("{}/cgroup.freeze", directory(&daemon));
    eventually("it is frozen again", || {
        std::fs::read_to_string(&frozen).is_ok_and(|text| text.trim() == "1")
    });
    // A daemon that is killed leaves them waiting, and the next one knows.
    daemon.kill();
    daemon.serve("memory,freezer:cg");
    waits(&daemon, "cg/a");
    assert!(child.try_wait().expect("it is our child").is_none());
    // Raised again and again, also while it is looked at: it waits at the last limit, and is throttled by no other.
    for most in 48..60 {
        daemon.write("cg/a/memory.limit_in_bytes", &format!("{most}M")).unwrap();
    }
    eventually("it waits at the last limit", || {
        let used = number(&daemon.read("cg/a/memory.usage_in_bytes"));
        used > 59 << 20 && daemon.read("cg/a/memory.oom_control") == WAITING
    });
    let throttle = std::fs::read_to_string(format!("{}/memory.high", directory(&daemon)));
    assert_eq!(number(&throttle.expect("a v2 file")), 59 << 20);
    daemon.write("cg/a/memory.limit_in_bytes", "128M").unwrap();
    assert!(child.wait().expect("it is our child").success(), "it got its memory");
    assert_eq!(daemon.read("cg/a/memory.oom_control"), "oom_kill_disable 1\nunder_oom 0\noom_kill 0\n");
    daemon.down();
}

/// The v2 directory of the one group that has processes.
fn directory(daemon: &Daemon) -> String {
    let out = daemon.script("find /sys/fs/cgroup -name 'spine.*' -maxdepth 4");
    let text = daemon::text(&out.stdout);
    text.lines().next().expect("a directory").to_owned()
}

#[test]
fn a_group_that_has_another_directory_than_before_still_waits_at_its_limit() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::new() else { return };
    let mounts = [("memory", "m"), ("pids", "p")];
    let mounts = mounts.map(|(options, dir)| format!("--mount={options}:{}", daemon.dir.join(dir).display()));
    daemon.try_serve(&mounts).expect("it starts");
    daemon.ok(&["create", "memory:/a"]);
    daemon.ok(&["create", "pids:/a"]);
    daemon.ok(&["set", "memory:/a", "memory.limit_in_bytes=32M"]);
    daemon.write("m/a/memory.oom_control", "1").expect("a flag");
    // It is in the directory of pids:/a, which memory:/a has for itself once it has gone.
    let stranger = daemon.sleeper();
    daemon.ok(&["move", &stranger.pid().to_string(), "pids:/a"]);
    let script = format!("read -r _ && {}", asking(&daemon, 64));
    let enter =
        ["exec", "-g", "pids:/a", "--", daemon::BINARY, "exec", "-g", "memory:/a", "--", "sh", "-c", &script];
    let mut command = daemon.command(daemon::BINARY);
    let mut hungry = command.args(enter).stdin(Stdio::piped()).spawn().expect("timeout runs");
    eventually("it is in both", || daemon.numbers("m/a/tasks").len() == 1);
    let ear = Ear::listening(&daemon, "m/a", "memory.oom_control", "");
    stranger.end();
    let limits = "find /sys/fs/cgroup -path '*cell*' -name memory.high | xargs cat | grep -c 33554432";
    eventually("the limit is one directory further up", || {
        daemon::text(&daemon.script(limits).stdout).trim() == "0"
    });
    hungry.stdin.take().expect("a pipe").write_all(b"\n").expect("it reads");
    assert_eq!(ear.wakes(), 1);
    waits(&daemon, "m/a");
    daemon.write("m/a/memory.limit_in_bytes", "128M").expect("more");
    assert!(hungry.wait().expect("it is our child").success(), "it got its memory");
    daemon.down();
}

/// Locks a file from here on, says so, and ends when its standard input does.
const LOCKING: &str = r"
import mmap, sys
file, at = open(sys.argv[1], 'rb'), int(sys.argv[2])
MAP_LOCKED = 0x2000
held = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_SHARED | MAP_LOCKED, prot=mmap.PROT_READ, offset=at)
print(flush=True)
sys.stdin.read()
";

/// What was locked or being read when they began to wait is not dropped by those who are frozen.
#[test]
fn those_who_wait_go_on_when_what_they_use_can_be_reclaimed() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("memory:cg") else { return };
    daemon.ok(&["create", "/a"]);
    daemon.write("cg/a/memory.oom_control", "1").unwrap();
    daemon.ok(&["set", "/a", "memory.limit_in_bytes=32M"]);
    // The end of the program is what nobody else reads, unless an earlier test did.
    std::fs::write("/proc/sys/vm/drop_caches", "1").expect("a guest's own");
    let from = (std::fs::metadata(daemon::BINARY).expect("a program").len() - (24 << 20)) & !0xfff;
    let reads = format!("tail -c +{} {} >/dev/null", from + 1, daemon::BINARY);
    let script = format!("{reads} && echo && read -r _ && {}", asking(&daemon, 20));
    let mut enters = daemon.command(daemon::BINARY);
    let enters = enters.args(["exec", "-g", "/a", "--", "sh", "-c", &script]);
    let mut child = enters.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("timeout runs");
    child.stdout.as_mut().expect("a pipe").read_exact(&mut [0]).expect("it has read");
    let mut locks = daemon.command("python3");
    let locks = locks.args(["-c", LOCKING, daemon::BINARY, &from.to_string()]);
    let mut locking = locks.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("timeout runs");
    locking.stdout.as_mut().expect("a pipe").read_exact(&mut [0]).expect("it has locked");
    let ear = Ear::listening(&daemon, "cg/a", "memory.oom_control", "");
    child.stdin.take().expect("a pipe").write_all(b"\n").expect("it reads");
    assert_eq!(ear.wakes(), 1);
    waits(&daemon, "cg/a");
    drop(locking.stdin.take());
    assert!(locking.wait().expect("it is our child").success());
    assert!(child.wait().expect("it is our child").success(), "it got its memory");
    eventually("nobody waits", || {
        daemon.read("cg/a/memory.oom_control") == "oom_kill_disable 1\nunder_oom 0\noom_kill 0\n"
    });
    daemon.down();
}

#[test]
fn those_who_wait_are_killed_when_that_is_wanted_after_all() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("memory:cg") else { return };
    daemon.ok(&["create", "/a"]);
    daemon.write("cg/a/memory.oom_control", "1").unwrap();
    daemon.ok(&["set", "/a", "memory.limit_in_bytes=32M"]);
    let ear = Ear::listening(&daemon, "cg/a", "memory.oom_control", "");
    let mut child = hungry(&daemon, "/a");
    assert_eq!(ear.wakes(), 1);
    daemon.write("cg/a/memory.oom_control", "0").unwrap();
    assert!(!child.wait().expect("it is our child").success());
    eventually("nobody waits", || {
        daemon.read("cg/a/memory.oom_control") == "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"
    });
    // What can be reclaimed makes nobody wait.
    daemon.write("cg/a/memory.oom_control", "1").unwrap();
    let program = format!("if={}", daemon::BINARY);
    daemon.ok(&["exec", "-g", "/a", "--", "dd", &program, "of=/dev/null", "bs=1M"]);
    assert_eq!(daemon.read("cg/a/memory.oom_control"), "oom_kill_disable 1\nunder_oom 0\noom_kill 1\n");
    daemon.down();
}
