//! A daemon without a v2 tree, in a place of its own: a private mount namespace and, for tests that signal, a private pid
//! namespace too. What a place has started ends with it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::daemon::{BINARY, can_serve, eventually, readable, text};

/// Where a daemon, its clients and their processes live.
pub(crate) struct Place {
    /// A private directory; mounts are at `cg` below it.
    pub dir: PathBuf,
    keeper: Child,
    /// The keeper's process in the namespaces.
    inside: u32,
    /// The namespaces that are its own besides that of mounts, as options of unshare(1) and nsenter(1).
    own: &'static [&'static str],
    user: Option<&'static str>,
    daemons: Vec<Child>,
}

impl Place {
    /// With the pid namespace of the test: the kernel tells of events. Nothing may be signalled here.
    pub(crate) fn open() -> Option<Self> {
        Self::with(&[])
    }

    /// With a pid namespace of its own: the kernel does not tell of events.
    pub(crate) fn nest() -> Option<Self> {
        Self::with(&["--pid"])
    }

    /// The same where the clocks since boot are a day ahead.
    pub(crate) fn nest_in_another_time() -> Option<Self> {
        Self::with(&["--pid", "--time"])
    }

    fn with(own: &'static [&'static str]) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !can_serve() {
            return None;
        }
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("pinfold-tracked-{}-{number}", std::process::id()));
        std::fs::create_dir(&dir).expect("a private directory");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private"]).args(own);
        let has_pids = !own.is_empty();
        if has_pids {
            command.args(["--fork", "--kill-child", "--mount-proc"]);
        }
        if own.contains(&"--time") {
            command.args(["--boottime", "86400", "--monotonic", "86400"]);
        }
        // As the first of a pid namespace the shell waits for orphans; elsewhere nothing may outlive the process that we know.
        let stay = if has_pids { "sleep 3600; :" } else { "exec sleep 3600" };
        command.args(["sh", "-c", &format!("echo $(readlink /proc/self/ns/mnt); {stay}")]);
        let mut keeper = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("unshare runs");
        assert!(readable(keeper.stdout.take().expect("a pipe")), "no namespaces");
        let inside = if has_pids { child_of(keeper.id()) } else { keeper.id() };
        Some(Self { dir, keeper, inside, own, user: None, daemons: Vec::new() })
    }

    /// From now on everything runs as this user, to whom the directory is given.
    pub(crate) fn becomes(&mut self, user: &'static str) {
        let ids = format!("{user}:{}", if user == "nobody" { "nogroup" } else { user });
        self.ok(&format!(
            "chown {ids} . && mknod fuse c 10 229 && chmod 666 fuse && mount --bind fuse /dev/fuse"
        ));
        self.user = Some(user);
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.inside.to_string(), "--mount"]).args(self.own).arg("--");
        if let Some(user) = self.user {
            command.args(["runuser", "-u", user, "--"]);
        }
        command.arg(program).stdin(Stdio::null()).current_dir(&self.dir);
        command.env("PINFOLD_STATE", self.state()).env("PINFOLD", BINARY);
        command.env_remove("PINFOLD_REALM").env_remove("RUST_LOG").env_remove("NOTIFY_SOCKET");
        command
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Runs a script in the private directory, not for ever.
    pub(crate) fn script(&self, script: &str) -> Output {
        let mut command = self.command("timeout");
        command.args(["60", "bash", "-c", &format!("cd '{}' || exit\n{script}", self.dir.display())]);
        command.output().expect("nsenter runs")
    }

    /// Runs a script that must succeed and gives what it printed.
    pub(crate) fn ok(&self, script: &str) -> String {
        let output = self.script(script);
        let said = text(&output.stderr);
        assert!(output.status.success(), "{script}: {}\n{said}\n{}", output.status, self.log());
        text(&output.stdout)
    }

    /// Starts a daemon without a v2 tree that serves `options` at `cg`, and waits until it is ready.
    pub(crate) fn serve(&mut self, options: &str, arguments: &[&str]) {
        let mount = format!("{options}:{}", self.dir.join("cg").display());
        let serve = ["--tracker", "events", "--mount", &mount];
        self.start(&[&serve, arguments].concat());
    }

    /// Starts a daemon, and waits until it is ready.
    pub(crate) fn start(&mut self, arguments: &[&str]) {
        let ready = self.dir.join("ready");
        let socket = std::os::unix::net::UnixDatagram::bind(&ready).expect("a socket");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(&ready, mode).expect("it is ours");
        let log = std::fs::File::options().create(true).append(true).open(self.dir.join("log"));
        let mut command = self.command(BINARY);
        command.arg("serve").args(arguments).env("NOTIFY_SOCKET", &ready);
        let mut daemon = command.stderr(log.expect("a log")).spawn().expect("nsenter runs");
        let pidfd = pidfd(&daemon);
        let mut events = [
            rustix::event::PollFd::new(&socket, rustix::event::PollFlags::IN),
            rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN),
        ];
        let patience = rustix::event::Timespec { tv_sec: 60, tv_nsec: 0 };
        rustix::event::poll(&mut events, Some(&patience)).expect("poll");
        let is_ready = events[0].revents().contains(rustix::event::PollFlags::IN);
        std::fs::remove_file(&ready).expect("it is ours");
        if !is_ready {
            let _ = daemon.kill();
            panic!("the daemon is not ready: {:?}\n{}", daemon.wait(), self.log());
        }
        self.daemons.push(daemon);
    }

    /// kill -9 for the daemon that was started last, in the namespace where it runs.
    pub(crate) fn kill_daemon(&mut self) {
        self.signal_daemon(Signal::KILL);
        self.daemons.pop().expect("a daemon runs").wait().expect("our child");
    }

    /// The number of the daemon that was started last, where the test is.
    pub(crate) fn daemon(&self) -> u32 {
        let starter = self.daemons.last().expect("a daemon runs").id();
        descendants(starter).pop().unwrap_or(starter)
    }

    /// Sends a signal to the daemon that was started last.
    pub(crate) fn signal_daemon(&self, signal: Signal) {
        let pid = i32::try_from(self.daemon()).ok().and_then(Pid::from_raw).expect("a process");
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).expect("it is below our child");
        pidfd_send_signal(&pidfd, signal).expect("it is below our child");
    }

    /// Ends the daemon that was started last as it should be, after which nothing of the realm may be left.
    pub(crate) fn down(&mut self) {
        self.ok("$PINFOLD down");
        let mut daemon = self.daemons.pop().expect("a daemon runs");
        assert!(readable(pidfd(&daemon)), "the daemon does not end\n{}", self.log());
        daemon.wait().expect("our child");
        assert!(!self.state().exists(), "the state directory stays\n{}", self.log());
    }

    /// Waits until a script succeeds.
    pub(crate) fn until(&self, script: &str) {
        eventually(&format!("{script}\n{}", self.log()), || self.script(script).status.success());
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the log:\n{}", self.log());
        }
        while !self.daemons.is_empty() {
            self.kill_daemon();
        }
        let end = pidfd(&self.keeper);
        pidfd_send_signal(end, Signal::KILL).ok();
        self.keeper.wait().expect("our child");
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn pidfd(child: &Child) -> std::os::fd::OwnedFd {
    pidfd_open(Pid::from_child(child), PidfdFlags::empty()).expect("a child that was not waited for")
}

fn children(process: u32) -> Vec<u32> {
    let path = Path::new("/proc").join(process.to_string()).join(format!("task/{process}/children"));
    let list = std::fs::read_to_string(path).unwrap_or_default();
    list.split_ascii_whitespace().filter_map(|number| number.parse().ok()).collect()
}

fn child_of(process: u32) -> u32 {
    let mut found = None;
    eventually("a child", || {
        found = children(process).first().copied();
        found.is_some()
    });
    found.expect("just found")
}

/// A process's only child, that one's, and so on.
fn descendants(process: u32) -> Vec<u32> {
    std::iter::successors(children(process).first().copied(), |below| children(*below).first().copied())
        .collect()
}
