//! A directory of one test's own in the machine's v2 tree, and processes of its own. Both go when they are dropped,
//! also when the test fails. The bench stands here, too.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pinfold_kernel::{Tree, V2Mount};
use pinfold_model::{Dir, HostPid};

/// Nothing that a test waits for takes this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Ground {
    pub mount: V2Mount,
    pub base: PathBuf,
}

impl Ground {
    /// A fresh directory of the v2 tree, in a guest with `pids`; `None`, and the reason printed, where there is none to write
    /// to.
    pub(crate) fn new() -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let mount = match Tree::discover() {
            Ok(mount) => mount,
            Err(error) => return skip(&error.to_string()),
        };
        if in_guest() {
            fs::write(mount.point.join("cgroup.subtree_control"), "+pids").unwrap();
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let base = mount.point.join(format!("pinfold-k-test-{}-{number}", std::process::id()));
        match fs::create_dir(&base) {
            Ok(()) => Some(Self { mount, base }),
            Err(error) => skip(&format!("{}: {error}", base.display())),
        }
    }

    pub(crate) fn open(&self, realm: &str, wanted: &[&str]) -> Tree {
        Tree::open(&self.mount, Some(&self.base), realm, wanted).unwrap()
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        // Only processes that a test put here are in it: whatever a failed test left is killed with the directory.
        let _ = fs::write(self.base.join("cgroup.kill"), "1");
        let mut found = Vec::new();
        list(&self.base, &mut found);
        let started = Instant::now();
        for path in found.iter().rev().chain([&self.base]) {
            while fs::remove_dir(path).is_err() && path.exists() && started.elapsed() < PATIENCE {
                thread::yield_now();
            }
        }
    }
}

/// Adds the directories below one, each before what is in it.
pub(super) fn list(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.push(entry.path());
            list(&entry.path(), found);
        }
    }
}

/// Whether this is a guest of `cargo xtask vm-test`: nobody else uses its v2 tree.
pub(crate) fn in_guest() -> bool {
    std::env::var_os("PINFOLD_TEST_VM").is_some()
}

/// Says why a test does not run, which in a guest none may, past the test harness, which keeps what a passing test prints.
pub(crate) fn skip<T>(reason: &str) -> Option<T> {
    assert!(!in_guest(), "{reason}");
    let test = thread::current();
    let line = format!("skipped: {}: {reason}\n", test.name().unwrap_or("?"));
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    None
}

/// A child of the test, killed and reaped in the end.
pub(crate) struct Process(pub(super) Child);

impl Process {
    pub(crate) fn sleep() -> Self {
        Self::run("sleep", &["600"])
    }

    pub(crate) fn run(program: &str, arguments: &[&str]) -> Self {
        Self(
            Command::new(program)
                .args(arguments)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap(),
        )
    }

    pub(crate) fn pid(&self) -> HostPid {
        HostPid::new(self.0.id()).unwrap()
    }

    pub(super) fn finish(&mut self) {
        // std knows whether it was reaped: an unreaped child's number is nobody else's.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.finish();
    }
}

pub(crate) fn dir(path: &str) -> Dir {
    Dir::parse(path.as_bytes()).unwrap()
}
