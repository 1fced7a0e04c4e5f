//! The daemon that is measured: `pinfold serve`, with a base and a state directory of its own, and nothing left of it.

use std::collections::HashMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pinfold_dbus::{Client, wire};
use pinfold_events::Pid;

/// A running daemon, ended by `pinfold down`.
pub(crate) struct Daemon {
    dir: PathBuf,
    base: PathBuf,
    child: Child,
}

impl Daemon {
    /// Starts it and waits until it is ready.
    pub(crate) fn start() -> Self {
        let name = format!("pinfold-storm-{}", std::process::id());
        let root = Path::new("/sys/fs/cgroup");
        let unified = root.join("unified");
        let root = if unified.join("cgroup.procs").exists() { unified } else { root.to_owned() };
        let (dir, base) = (std::env::temp_dir().join(&name), root.join(&name));
        fs::create_dir(&dir).unwrap();
        fs::create_dir(&base).unwrap();
        let ready = UnixDatagram::bind(dir.join("ready")).unwrap();
        ready.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut serve = Command::new(env!("CARGO_BIN_EXE_pinfold"));
        serve.args(["serve", "--base"]).arg(&base).arg("--state").arg(dir.join("state"));
        serve.env("NOTIFY_SOCKET", dir.join("ready")).stdin(Stdio::null()).stderr(Stdio::null());
        let daemon = Self { child: serve.spawn().unwrap(), dir, base };
        ready.recv(&mut [0; 256]).expect("the daemon gets ready");
        daemon
    }

    fn client(&self) -> Client {
        Client::connect(&self.dir.join("state").join(wire::SOCKET)).unwrap()
    }

    /// A subscription to everything.
    pub(crate) fn subscribe(&self) -> OwnedFd {
        self.client().subscribe().unwrap()
    }

    /// A subscription to a process and its descendants.
    pub(crate) fn subscribe_to(&self, root: Pid) -> OwnedFd {
        self.client().subscribe_to_subtree(root.get()).unwrap()
    }

    /// What each of its threads has taken of the CPUs so far, in nanoseconds.
    pub(crate) fn cpu_times(&self) -> HashMap<PathBuf, u64> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let tasks = tasks.map(|task| task.unwrap().path());
        let time = |task: PathBuf| {
            let text = fs::read_to_string(task.join("schedstat")).ok()?;
            let time = text.split(' ').next()?.parse().ok()?;
            Some((task, time))
        };
        tasks.filter_map(time).collect()
    }

    /// What all of them have taken since then.
    pub(crate) fn cpu_time_since(&self, before: &HashMap<PathBuf, u64>) -> u64 {
        let since = |(task, time): (&PathBuf, &u64)| time - before.get(task).copied().unwrap_or(0);
        self.cpu_times().iter().map(since).sum()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.client().down().is_err() {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
        let _ = fs::remove_dir(&self.base);
        let _ = fs::remove_dir_all(&self.dir);
    }
}
