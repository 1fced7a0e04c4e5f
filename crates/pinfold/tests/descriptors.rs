//! Processes named by descriptors: by pidfds, and by sockets over which credentials come. From a container too, and by those who
//! have a descriptor and no right.

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use crate::bus::wire;
use crate::container::inside::{self, client, group, result, state};
use crate::container::{FIRST, Shell};
use crate::daemon::{self, BINARY, Daemon, PATIENCE, PYTHON};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, UCred};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

/// Not a test, but what others have done in a container: the program that they run there is this one.
#[test]
fn acts() {
    let Some(act) = inside::told_to() else { return };
    let words: Vec<_> = act.split(' ').collect();
    let said = match words[..] {
        ["pidfd", pid, group] => moved(pidfd(number(pid)), group),
        ["credentials", pid, group] => by_credentials(number(pid), |socket| moved(socket, group)),
        ["file", path, group] => moved(std::fs::File::open(path).unwrap(), group),
        ["closed", group] => {
            let (socket, other_end) = UnixStream::pair().unwrap();
            drop(other_end);
            moved(socket, group)
        }
        ["handed", group] => moved(handed(), group),
        ["where", pid] => is_in(pidfd(number(pid))),
        ["where-by-credentials", pid] => by_credentials(number(pid), is_in),
        ["reused", group] => reused(group),
        _ => panic!("{act:?} is no act"),
    };
    inside::says(&said);
}

/// Has a shell run this program; what it says of its act.
fn act(shell: &mut Shell, what: &str) -> String {
    inside::act(shell, "descriptors::acts", what).swap_remove(0)
}

fn number(text: &str) -> Pid {
    Pid::from_raw(text.parse().expect("a number")).expect("not 0")
}

fn pidfd(pid: Pid) -> OwnedFd {
    pidfd_open(pid, PidfdFlags::empty()).expect("it is there")
}

fn moved(process: impl AsFd, to: &str) -> String {
    result(client().move_by_fd(process, &group(to)))
}

fn is_in(process: impl AsFd) -> String {
    match client().group_of_fd(process) {
        Ok(groups) => groups.into_iter().map(|group| group.path).collect(),
        refused => result(refused),
    }
}

/// Does something with a socket at whose other end the credentials of a process are sent when the daemon asks; what became
/// of that, or why the kernel does not let them be sent.
fn by_credentials(pid: Pid, act: impl FnOnce(UnixStream) -> String) -> String {
    let (mut ours, theirs) = UnixStream::pair().expect("two sockets");
    let answering = std::thread::spawn(move || {
        ours.read_exact(&mut [0]).expect("the daemon asks");
        let uid = rustix::process::geteuid();
        let gid = rustix::process::getegid();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmCredentials(UCred { pid, uid, gid })));
        rustix::net::sendmsg(&ours, &[IoSlice::new(b"x")], &mut control, SendFlags::empty())
    });
    let said = act(theirs);
    match answering.join().expect("it answers") {
        Ok(_) => said,
        Err(errno) => format!("kernel: errno {}, daemon: {said}", errno.raw_os_error()),
    }
}

/// A descriptor that whoever is outside hands to who asks for it.
fn handed() -> OwnedFd {
    let socket = UnixStream::connect(state().with_file_name("fds")).expect("somebody hands it out");
    wire::received(&socket)
}

/// Hands this to who asks first.
fn hand_out(daemon: &Daemon, what: OwnedFd) -> JoinHandle<()> {
    let path = daemon.dir.join("fds");
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).expect("the directory is ours");
    rustix::fs::chmod(&path, rustix::fs::Mode::from_raw_mode(0o666)).expect("the socket is ours");
    std::thread::spawn(move || {
        let (socket, _) = listener.accept().expect("somebody asks");
        let fds = [what.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        rustix::net::sendmsg(&socket, &[IoSlice::new(b"x")], &mut control, SendFlags::empty())
            .expect("it is handed over");
    })
}

/// A process of a user of the container, with the number that is asked for if that is free.
fn sleeping(uid: u32, number: Option<u32>) -> Child {
    if let Some(number) = number {
        std::fs::write("/proc/sys/kernel/ns_last_pid", (number - 1).to_string()).expect("root may");
    }
    let mut command = Command::new("sleep");
    command.arg("600").uid(uid).gid(uid).stdin(Stdio::null()).stdout(Stdio::null());
    command.spawn().expect("sleep runs")
}

fn end(mut child: Child) {
    child.kill().expect("it is our child");
    child.wait().expect("it is our child");
}

/// A pidfd of a process that has ended, when another has its number.
fn reused(to: &str) -> String {
    for _ in 0..100 {
        let first = sleeping(0, None);
        let number = first.id();
        let held = pidfd(Pid::from_child(&first));
        end(first);
        let second = sleeping(0, Some(number));
        let is_the_same = second.id() == number;
        let said = moved(&held, to);
        let tasks = client().list_tasks(&group(to), false).expect("it is there");
        end(second);
        if is_the_same {
            return format!("{said}, {} moved", tasks.len());
        }
    }
    "no number came again".to_owned()
}

/// A realm with one hierarchy and a group for a container.
fn realm() -> Option<Daemon> {
    let daemon = Daemon::serving("none,name=x:cg")?;
    daemon.ok(&["create", "/c"]);
    daemon.ok(&["chown", &format!("{FIRST}:{FIRST}"), "/c"]);
    daemon.ok(&["create", "/d"]);
    Some(daemon)
}

#[test]
fn a_container_names_its_processes_by_descriptors() {
    let Some(mut daemon) = realm() else { return };
    let mut root = Shell::of_container(&daemon, "/c");
    root.ok("create web");
    root.ok("create db");
    root.run("sleep 600 >/dev/null & echo");
    assert_eq!(act(&mut root, "pidfd $! web"), "ok");
    assert_eq!(root.ok("tasks web"), root.run("echo $!").text);
    assert_eq!(act(&mut root, "where $!"), "web");
    assert_eq!(act(&mut root, "credentials $! db"), "ok");
    assert_eq!(root.ok("tasks db"), root.run("echo $!").text);
    assert_eq!(act(&mut root, "where-by-credentials $!"), "db");
    assert_eq!(act(&mut root, "where 1"), ".");
    drop(root);
    daemon.ok(&["rm", "-r", "/c"]);
    daemon.down();
}

#[test]
fn a_descriptor_opens_no_way_out_of_a_container() {
    let Some(mut daemon) = realm() else { return };
    let foreign = daemon.sleeper();
    daemon.ok(&["move", &foreign.pid().to_string(), "/d"]);
    let mut root = Shell::of_container(&daemon, "/c");
    root.ok("create web");
    root.ok("create mine");
    root.ok("chown 7:7 mine");
    root.run("sleep 600 >/dev/null & echo");
    let foreign_pid = Pid::from_raw(i32::try_from(foreign.pid()).unwrap()).unwrap();
    let handing = hand_out(&daemon, pidfd(foreign_pid));
    for (what, said) in [
        // A process that it does not see, by a descriptor that somebody gave it.
        ("handed web", "ESRCH"),
        // Out of its group.
        ("pidfd $! /d", "EPERM"),
        ("credentials $! /d", "EPERM"),
        // What is no process.
        ("file /dev/null web", "EBADF"),
        ("file /proc/self/ns/pid web", "EBADF"),
        ("file / web", "EBADF"),
        ("closed web", "EINVAL"),
        // A number that another has by now.
        ("reused web", "ESRCH, 0 moved"),
        // A process that is not there: the kernel does not send its credentials.
        ("credentials 4000000 web", "kernel: errno 3, daemon: EINVAL"),
    ] {
        assert_eq!(act(&mut root, what), said, "{what}");
    }
    handing.join().unwrap();
    // Nor does a user have the credentials of others.
    root.enter("setpriv --reuid 7 --regid 7 --clear-groups");
    assert_eq!(act(&mut root, "credentials 1 mine"), "kernel: errno 1, daemon: EINVAL");
    assert_eq!(act(&mut root, "pidfd 1 mine"), "EACCES");
    root.leave();
    assert_eq!(root.ok("tasks web") + &root.ok("tasks mine"), "");
    assert_eq!(daemon.ok(&["tasks", "/d"]), format!("{}\n", foreign.pid()));
    drop((root, foreign));
    daemon.ok(&["rm", "-r", "/c"]);
    daemon.down();
}

#[test]
fn a_users_descriptor_gives_no_right_over_its_process() {
    let Some(mut daemon) = realm() else { return };
    daemon.ok(&["create", "/alice"]);
    daemon.ok(&["chown", "54321:54321", "/alice"]);
    let mut alice = Shell::of_user(&daemon, 54321, "/alice");
    alice.ok("create x");
    // Root's, below her group and outside of it.
    for group in ["/alice", "/d"] {
        let sleeper = daemon.sleeper();
        daemon.ok(&["move", &sleeper.pid().to_string(), group]);
        let pid = Pid::from_raw(i32::try_from(sleeper.pid()).unwrap()).unwrap();
        let handing = hand_out(&daemon, pidfd(pid));
        let said = act(&mut alice, "handed x");
        assert!(["EACCES", "EPERM"].contains(&said.as_str()), "{group}: {said}");
        handing.join().unwrap();
        assert!(daemon.numbers(&format!("cg{group}/tasks")).contains(&sleeper.pid()));
    }
    drop(alice);
    daemon.ok(&["rm", "-r", "/alice"]);
    daemon.down();
}

/// What makes the daemon find no descriptors of processes, as before Linux 6.5, and who runs it.
const BEFORE_6_5: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/descriptors/before-6.5.py");

/// Whether whoever is connected is hung up on when it greets.
fn is_turned_away(mut stream: UnixStream) -> bool {
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let said = stream.write_all(b"\0AUTH EXTERNAL 30\r\n").and_then(|()| stream.read(&mut [0; 64]));
    !said.is_ok_and(|length| length > 0)
}

#[test]
fn without_descriptors_of_callers_they_are_held_when_they_are_accepted() {
    if !daemon::has_python() {
        return;
    }
    let Some(mut daemon) = Daemon::new() else { return };
    let mount = format!("none,name=x:{}/cg", daemon.dir.display());
    let started = daemon.try_serve_through(&[PYTHON, BEFORE_6_5], &["--mount".to_owned(), mount]);
    assert!(started.is_ok(), "{}", daemon.log());
    daemon.ok(&["create", "/c"]);
    daemon.ok(&["chown", &format!("{FIRST}:{FIRST}"), "/c"]);
    let mut root = Shell::of_container(&daemon, "/c");
    root.ok("create web");
    root.ok("create db");
    root.run("sleep 600 >/dev/null & echo");
    root.ok("move $! web");
    assert_eq!(root.ok("tasks web"), root.run("echo $!").text);
    assert_eq!(act(&mut root, "pidfd $! db"), "ok");
    assert_eq!(act(&mut root, "credentials $! web"), "ok");
    assert_eq!(act(&mut root, "where-by-credentials $!"), "web");
    root.refused("create /x", "EPERM");
    drop(root);
    let mut door = daemon.state().into_os_string();
    door.push(".public/socket");
    // Who had a number when it connected, and who has it when it is accepted: another user's process is not that one.
    let to = door.clone();
    let connecting = std::thread::spawn(move || {
        rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(54_321)).expect("root becomes anybody");
        UnixStream::connect(to).expect("the door is open")
    });
    assert!(is_turned_away(connecting.join().expect("it connects")));
    // And nobody is.
    daemon.signal(Signal::STOP);
    let flags = rustix::net::SocketFlags::CLOEXEC;
    let (family, kind) = (rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM);
    let stream = UnixStream::from(rustix::net::socket_with(family, kind, flags, None).expect("a socket"));
    let script = "import socket, sys\nsocket.socket(fileno=0).connect(sys.argv[1])";
    let mut connecting = Command::new("timeout");
    connecting.args(["60", PYTHON, "-c", script]).arg(&door);
    let kept = OwnedFd::from(stream.try_clone().expect("a socket"));
    assert!(connecting.stdin(Stdio::from(kept)).status().expect("timeout runs").success());
    daemon.signal(Signal::CONT);
    assert!(is_turned_away(stream));
    daemon.ok(&["rm", "-r", "/c"]);
    daemon.down();
}

/// What holds whoever opens a file.
const GATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/descriptors/gate.py");

pub(crate) struct Gate(Child);

impl Gate {
    /// Lets a file be opened so often, and then holds who opens it.
    pub(crate) fn at(file: &std::path::Path, opened: u32) -> Self {
        let mut command = Command::new(PYTHON);
        command.arg(GATE).arg(file).arg(opened.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut gate = Self(command.spawn().expect("it runs"));
        assert_eq!(gate.line(), "ready");
        gate
    }

    fn line(&mut self) -> String {
        let mut line = Vec::new();
        let said = self.0.stdout.as_mut().expect("a pipe");
        while !line.ends_with(b"\n") {
            let mut byte = [0];
            said.read_exact(&mut byte).expect("it talks");
            line.extend(byte);
        }
        String::from_utf8_lossy(&line).trim_end().to_owned()
    }

    /// Whether somebody is held before these have ended by themselves.
    pub(crate) fn holds_before(&mut self, moving: &Child) -> bool {
        let ended = pidfd(Pid::from_child(moving));
        let said = self.0.stdout.as_ref().expect("a pipe");
        let mut events = [PollFd::new(said, PollFlags::IN), PollFd::new(&ended, PollFlags::IN)];
        let patience = Timespec::try_from(PATIENCE).expect("a minute");
        assert_ne!(poll(&mut events, Some(&patience)), Ok(0), "nothing happens");
        let is_held = events[0].revents().contains(PollFlags::IN);
        is_held && self.line() == "held"
    }

    pub(crate) fn opens(mut self) {
        self.0.stdin.as_mut().expect("a pipe").write_all(b"\n").expect("it reads");
        drop(self.0.stdin.take());
        daemon::wait(self.0).expect("it ends with its input");
    }
}

/// What the test of numbers says to itself, in the namespace where they are its own to choose.
const NUMBERS: &str = "PINFOLD_TEST_NUMBERS";

/// The process that a caller named ends when the daemon has looked at it and is about to move its number, which another has
/// by then: that one is moved, and goes back.
#[test]
fn who_gets_a_number_between_the_look_and_the_move_is_moved_back() {
    if !daemon::has_python() || !daemon::can_serve() {
        return;
    }
    if std::env::var_os(NUMBERS).is_some() {
        return numbers_change_hands();
    }
    // The test's directories are named after its number.
    let numbered = "echo $0 > /proc/sys/kernel/ns_last_pid && \"$@\"";
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "300", "unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.args(["sh", "-c", numbered, &std::process::id().to_string()]);
    command.arg(std::env::current_exe().expect("this program has a file"));
    let name = "descriptors::who_gets_a_number_between_the_look_and_the_move_is_moved_back";
    command.args(["--exact", name, "--nocapture"]).env(NUMBERS, "1").stdin(Stdio::null());
    let output = command.output().expect("timeout runs");
    assert!(output.status.success(), "{}{}", daemon::text(&output.stdout), daemon::text(&output.stderr));
}

fn numbers_change_hands() {
    const TOLD: &str = "its number was used again";
    const MOUNT: &str = "none,name=x:cg";
    let Some(mut daemon) = Daemon::serving(MOUNT) else { return };
    daemon.ok(&["create", "/a"]);
    // The group has a v2 directory while somebody is in it.
    let keeper = daemon.sleeper();
    daemon.ok(&["move", &keeper.pid().to_string(), "/a"]);
    let v2 = daemon.base.path().parent().expect("a base is below").join(&keeper.v2_path()[1..]);
    let mut opened = 0;
    while !daemon.log().contains(TOLD) {
        assert!(opened < 20, "it is never opened for a move: {}", daemon.log());
        // One that has moved somebody there has the file open.
        daemon.kill();
        daemon.serve(MOUNT);
        let mut gate = Gate::at(&v2.join("cgroup.procs"), opened);
        let first = daemon.sleeper();
        let number = first.pid();
        let mut moving = daemon.command(BINARY);
        moving.args(["move", &number.to_string(), "/a"]).stderr(Stdio::null());
        let moving = moving.spawn().expect("timeout runs");
        if !gate.holds_before(&moving) {
            daemon::wait(moving).expect("it has ended");
            gate.opens();
            break;
        }
        first.end();
        let second = sleeping(0, Some(number));
        gate.opens();
        daemon::wait(moving).expect("it moves");
        assert!(!daemon.numbers("cg/a/tasks").contains(&second.id()), "another's process was moved");
        // Or somebody else had the number before.
        opened += u32::from(second.id() == number);
        end(second);
    }
    assert!(daemon.log().contains(TOLD), "{}", daemon.log());
    assert_eq!(daemon.numbers("cg/a/tasks"), [keeper.pid()]);
    drop(keeper);
    daemon.down();
}
