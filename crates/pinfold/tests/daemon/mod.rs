//! A real daemon with a base directory, a state directory and a mount namespace of its own, and nothing left behind.
//!
//! The daemon runs in a mount namespace that a process of the test holds open, as the host's would be if the daemon is
//! killed and started again; tests reach its mounts through /proc/PID/root of that process.
//! Processes that tests start are put below the base first: nothing outside it can be moved.

mod base;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use base::Base;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_pinfold");

/// How long anything may take: long enough for a guest without KVM.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A realm of this test's own, with or without a running daemon.
pub(crate) struct Daemon {
    /// A private directory: the state is `state` in it, and tests mount and write below it.
    pub dir: PathBuf,
    pub base: Base,
    running: Option<Child>,
    namespace: Namespace,
}

/// A process that keeps a private mount namespace open.
struct Namespace(Child);

impl Namespace {
    fn new() -> Self {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "--", "sh", "-c", "echo && exec sleep 3600"]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("unshare runs");
        // The line comes when it is there.
        assert!(readable(child.stdout.take().expect("a pipe")), "no mount namespace");
        Self(child)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        pidfd_send_signal(pidfd(&self.0), Signal::KILL).ok();
        self.0.wait().expect("it is our child");
    }
}

/// Why a test does not run here. A guest has all that tests need; in CI only its absence is a reason.
pub(crate) fn skip(reason: &str) {
    let test = std::thread::current();
    let line = format!("skipped: {}: {reason}\n", test.name().unwrap_or("?"));
    // Not by eprintln, of which nothing is seen when the test passes.
    std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).expect("stderr");
    let in_ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(!in_ci || reason == "needs the guest", "skipped in CI: {reason}");
    assert!(!is_guest(), "skipped in the guest: {reason}");
}

/// Whether the tests run in a guest.
fn is_guest() -> bool {
    std::env::var_os("PINFOLD_TEST_VM").is_some_and(|value| value == "1")
}

/// What runs test programs in Python: of Debian's python3-minimal.
pub(crate) const PYTHON: &str = "/usr/bin/python3";

/// Whether it is there; if not, the test says that it is skipped.
pub(crate) fn has_python() -> bool {
    let is_there = Path::new(PYTHON).exists();
    if !is_there {
        skip("needs python3");
    }
    is_there
}

/// Whether this is the guest: root, nothing but cgroup v2, every controller.
pub(crate) fn in_guest() -> bool {
    if !is_guest() {
        skip("needs the guest");
    }
    is_guest()
}

/// Whether the kernel tells of events here: in a container it does not.
pub(crate) fn kernel_tells() -> bool {
    let opened = pinfold_events::Source::connector();
    opened.inspect_err(|error| skip(&format!("the kernel tells of no processes: {error}"))).is_ok()
}

/// Copies a program. Another process does: what one of our threads has open for writing, children of others have too until they
/// execute, and nobody can execute it then (ETXTBSY).
pub(crate) fn copy_program(from: impl AsRef<Path>, to: impl AsRef<Path>) {
    let copied = Command::new("cp").arg(from.as_ref()).arg(to.as_ref()).status();
    assert!(copied.expect("cp runs").success(), "{} is not copied", from.as_ref().display());
}

/// Whether a daemon can serve mounts here; if not, the reason is printed.
pub(crate) fn can_serve() -> bool {
    if !rustix::process::geteuid().is_root() {
        skip("needs root");
        return false;
    }
    let opened = std::fs::File::options().read(true).write(true).open("/dev/fuse");
    opened.inspect_err(|error| skip(&format!("needs /dev/fuse: {error}"))).is_ok()
}

/// Whether the machine lets programs be attached; if not, the test says that it is skipped.
pub(crate) fn has_programs() -> bool {
    let may = pinfold_kernel::inspect::programs();
    may.inspect_err(|errno| skip(&format!("no BPF programs: {errno}"))).is_ok()
}

impl Daemon {
    /// A realm without a daemon yet. `None`, with the reason printed, if this machine cannot have one.
    pub(crate) fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !can_serve() {
            return None;
        }
        let name = format!("pinfold-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let base = match Base::make(&name) {
            Ok(base) => base,
            Err(error) => {
                skip(&format!("needs a writable cgroup v2 tree: {error}"));
                return None;
            }
        };
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir(&dir).expect("a private directory");
        Some(Self { dir, base, running: None, namespace: Namespace::new() })
    }

    /// A realm that serves `MOUNT` (as `all:cg`, the directory below `dir`).
    pub(crate) fn serving(mount: &str) -> Option<Self> {
        let mut daemon = Self::new()?;
        daemon.serve(mount);
        Some(daemon)
    }

    /// The same, where the machine lets programs be attached.
    pub(crate) fn serving_with_programs(mount: &str) -> Option<Self> {
        if has_programs() { Self::serving(mount) } else { None }
    }

    /// Starts the daemon and waits until it says that it is ready. No mount if `mount` is empty.
    pub(crate) fn serve(&mut self, mount: &str) {
        if let Err(output) = self.try_serve(&self.mount_arguments(mount)) {
            panic!("the daemon did not start: {}\n{}", output.status, text(&output.stderr));
        }
    }

    fn mount_arguments(&self, mount: &str) -> Vec<String> {
        let Some((options, dir)) = mount.split_once(':') else { return Vec::new() };
        vec!["--mount".to_owned(), format!("{options}:{}", self.dir.join(dir).display())]
    }

    /// Starts the daemon; its output if it ends instead.
    pub(crate) fn try_serve(&mut self, arguments: &[String]) -> Result<(), Output> {
        self.try_serve_through(&[], arguments)
    }

    /// The same, of a daemon that another program becomes: with fewer rights, say.
    pub(crate) fn try_serve_through(&mut self, through: &[&str], arguments: &[String]) -> Result<(), Output> {
        let notify = self.dir.join("notify");
        let _ = std::fs::remove_file(&notify);
        let socket = UnixDatagram::bind(&notify).expect("a socket for the readiness message");
        let mut command = Command::new("nsenter");
        command.arg(self.mount_namespace()).arg("--").args(through).args([BINARY, "serve", "--base"]);
        command.arg(self.base.seen()).args(arguments);
        command.env("NOTIFY_SOCKET", &notify).env("PINFOLD_STATE", self.state());
        command.env_remove("PINFOLD_REALM").env_remove("RUST_LOG");
        let log = std::fs::File::options().create(true).append(true).open(self.dir.join("log"));
        let log = log.expect("a log file");
        let mut child = command.stdin(Stdio::null()).stderr(log).spawn().expect("unshare runs");
        // Ready or over: whichever comes first.
        let pidfd = pidfd(&child);
        let mut events = [PollFd::new(&socket, PollFlags::IN), PollFd::new(&pidfd, PollFlags::IN)];
        poll(&mut events, Some(&timespec(PATIENCE))).expect("poll");
        if events[0].revents().contains(PollFlags::IN) {
            self.running = Some(child);
            return Ok(());
        }
        pidfd_send_signal(&pidfd, Signal::KILL).ok();
        let status = child.wait().expect("the daemon is our child");
        Err(Output { status, stdout: Vec::new(), stderr: self.log().into_bytes() })
    }

    /// nsenter(1)'s argument for the mount namespace that the daemon mounts in.
    pub(crate) fn mount_namespace(&self) -> String {
        format!("--mount=/proc/{}/ns/mnt", self.namespace.0.id())
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Everything the daemons of this realm have logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.running.as_ref().expect("the daemon runs").id()
    }

    /// A file below the private directory, as the daemon's mount namespace has it.
    pub(crate) fn path(&self, below: &str) -> PathBuf {
        let dir = self.dir.strip_prefix("/").expect("an absolute path");
        Path::new("/proc").join(self.namespace.0.id().to_string()).join("root").join(dir).join(below)
    }

    pub(crate) fn read(&self, below: &str) -> String {
        std::fs::read_to_string(self.path(below)).unwrap_or_else(|error| panic!("{below}: {error}"))
    }

    /// Numbers of a file of them, as `tasks` is.
    pub(crate) fn numbers(&self, below: &str) -> Vec<u32> {
        self.read(below).lines().map(|line| line.parse().expect("a number")).collect()
    }

    /// One write(2).
    pub(crate) fn write(&self, below: &str, text: &str) -> std::io::Result<()> {
        let file = std::fs::File::options().write(true).open(self.path(below))?;
        rustix::io::write(&file, text.as_bytes())?;
        Ok(())
    }

    /// A command below the base, with a time limit, in the daemon's realm.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.command_within(PATIENCE, program)
    }

    /// The same with a time limit of its own.
    pub(crate) fn command_within(&self, patience: Duration, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", &patience.as_secs().to_string()]);
        self.inside(&mut command, program.as_ref());
        command
    }

    /// Makes a command enter the base before it becomes `program`.
    pub(crate) fn inside(&self, command: &mut Command, program: &OsStr) {
        let enter = "echo $$ > \"$0/cgroup.procs\" && exec \"$@\"";
        command.args(["sh", "-c", enter]).arg(self.base.outside()).arg(program);
        command.env("PINFOLD_STATE", self.state()).env_remove("PINFOLD_REALM").env_remove("RUST_LOG");
        command.stdin(Stdio::null());
    }

    /// Runs a client.
    pub(crate) fn pinfold(&self, arguments: &[&str]) -> Output {
        self.command(BINARY).args(arguments).output().expect("timeout runs")
    }

    /// Has a process of a group ask for 64 MiB at once, more than the group may have: it must fail.
    pub(crate) fn overstep_memory(&self, group: &str) {
        let asks = ["exec", "-g", group, "--", "dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1"];
        assert!(!self.pinfold(&asks).status.success());
    }

    /// Runs a client that must succeed and gives what it printed.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.pinfold(arguments);
        assert!(
            output.status.success(),
            "pinfold {arguments:?}: {}\n{}{}",
            output.status,
            text(&output.stderr),
            self.log()
        );
        text(&output.stdout)
    }

    /// Runs a client that must fail, and gives what it said.
    pub(crate) fn refused(&self, arguments: &[&str]) -> String {
        let output = self.pinfold(arguments);
        assert_eq!(output.status.code(), Some(1), "pinfold {arguments:?}: {}", text(&output.stderr));
        text(&output.stderr)
    }

    /// Runs a shell script in the daemon's mount namespace, in the private directory.
    pub(crate) fn script(&self, script: &str) -> Output {
        self.script_within(PATIENCE, script)
    }

    /// The same with a time limit of its own.
    pub(crate) fn script_within(&self, patience: Duration, script: &str) -> Output {
        let mut command = self.command_within(patience, "nsenter");
        command.arg(self.mount_namespace()).args(["--", "bash", "-c"]);
        command.arg(format!("cd '{}' && {script}", self.dir.display()));
        command.output().expect("timeout runs")
    }

    /// A process below the base that does nothing.
    pub(crate) fn sleeper(&self) -> Sleeper {
        let mut command = Command::new("env");
        self.inside(&mut command, "sh".as_ref());
        command.args(["-c", "echo && exec sleep 600"]).stdout(Stdio::piped());
        let mut child = command.spawn().expect("env runs");
        // The line comes when it is in the base.
        let said = child.stdout.take().expect("a pipe");
        assert!(readable(&said), "a shell did not get into the base");
        Sleeper(child)
    }

    /// A process below the base that becomes what a shell script says.
    pub(crate) fn sleeper_by(&self, script: &str) -> Sleeper {
        let mut command = Command::new("env");
        self.inside(&mut command, "sh".as_ref());
        Sleeper(command.args(["-c", script]).stdout(Stdio::null()).spawn().expect("env runs"))
    }

    /// As [`Self::numbers`]; none if there is no such file.
    pub(crate) fn numbers_or_none(&self, below: &str) -> Vec<u32> {
        let text = std::fs::read_to_string(self.path(below)).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        let mut child = self.running.take().expect("the daemon runs");
        pidfd_send_signal(pidfd(&child), Signal::KILL).expect("the daemon is our child");
        child.wait().expect("the daemon is our child");
    }

    /// Sends the daemon a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pidfd = pidfd(self.running.as_ref().expect("the daemon runs"));
        pidfd_send_signal(pidfd, signal).expect("the daemon is our child");
    }

    /// What kills the daemon, from any thread.
    pub(crate) fn killer(&self) -> impl FnOnce() + Send + use<> {
        let pidfd = pidfd(self.running.as_ref().expect("the daemon runs"));
        move || pidfd_send_signal(pidfd, Signal::KILL).expect("the daemon is our child")
    }

    /// Whether the daemon, which is about to be killed, is.
    pub(crate) fn ended_by_kill(&mut self) -> bool {
        self.ended().signal() == Some(Signal::KILL.as_raw())
    }

    /// Sends a signal and gives what the daemon ended with.
    pub(crate) fn end(&mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        self.ended()
    }

    /// What the daemon, which is about to end, ends with.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let child = self.running.take().expect("the daemon runs");
        wait(child).unwrap_or_else(|| panic!("the daemon does not end\n{}", self.log()))
    }

    /// `pinfold down`, after which nothing may be left.
    pub(crate) fn down(&mut self) {
        self.ok(&["down"]);
        assert_eq!(self.ended().code(), Some(0), "{}", self.log());
        self.assert_gone();
    }

    /// Nothing of the realm is left in the v2 tree, the state directory is gone.
    pub(crate) fn assert_gone(&self) {
        assert_eq!(self.base.children(), Vec::<String>::new(), "{}", self.log());
        assert!(!self.state().exists(), "the state directory stays");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.log());
        }
        if self.running.is_some() {
            self.kill();
        }
        self.base.remove();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A process that sleeps until the test is over.
pub(crate) struct Sleeper(Child);

impl Sleeper {
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Its v2 path, as /proc/PID/cgroup has it.
    pub(crate) fn v2_path(&self) -> String {
        let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", self.pid())).expect("it lives");
        let path = groups.lines().find_map(|line| line.strip_prefix("0::"));
        path.expect("every process is somewhere in the v2 tree").to_owned()
    }

    /// Ends it and waits until it is gone.
    pub(crate) fn end(self) {
        drop(self);
    }

    /// What it ends with, killed by somebody else.
    pub(crate) fn killed_by(mut self) -> Option<i32> {
        let mut gone = Command::new("true").spawn().expect("true runs");
        std::mem::swap(&mut gone, &mut self.0);
        wait(gone).expect("the sleeper is killed").signal()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        pidfd_send_signal(pidfd(&self.0), Signal::KILL).ok();
        self.0.wait().expect("the sleeper is our child");
    }
}

/// Waits for a child, but not for ever; `None` (and it is killed) if it does not end.
pub(crate) fn wait(mut child: Child) -> Option<ExitStatus> {
    let pidfd = pidfd(&child);
    let ended = readable(&pidfd);
    if !ended {
        pidfd_send_signal(&pidfd, Signal::KILL).ok();
    }
    let status = child.wait().expect("it is our child");
    ended.then_some(status)
}

/// Waits until something can be read, or a process has ended.
pub(crate) fn readable(fd: impl std::os::fd::AsFd) -> bool {
    let mut events = [PollFd::new(&fd, PollFlags::IN)];
    poll(&mut events, Some(&timespec(PATIENCE))).expect("poll") == 1
}

/// Waits until something has come about that nobody tells of, but not for ever.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !is_so() {
        assert!(std::time::Instant::now() < deadline, "never: {what}");
        std::thread::yield_now();
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec::try_from(duration).expect("a short time")
}

fn pidfd(child: &Child) -> std::os::fd::OwnedFd {
    pidfd_open(Pid::from_child(child), PidfdFlags::empty()).expect("a child that was not waited for")
}

pub(crate) fn text(bytes: &[u8]) -> String {
    OsStr::from_bytes(bytes).to_string_lossy().into_owned()
}
