//! A directory of one test's own in the machine's v2 tree, and processes of its own. Both go when they are dropped,
//! also when the test fails.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use pinfold_kernel::{Event, Tree, V2Mount, Watch};
use pinfold_model::{CellId, Dir, GroupId, HostPid};

/// Nothing that a test waits for takes this long.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Ground {
    pub mount: V2Mount,
    pub base: PathBuf,
}

impl Ground {
    /// A fresh directory of the v2 tree; `None`, and the reason printed, where there is none to write to.
    pub fn new() -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let mount = match Tree::discover() {
            Ok(mount) => mount,
            Err(error) => return skip(&error.to_string()),
        };
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let base = mount.point.join(format!("pinfold-k-test-{}-{number}", std::process::id()));
        match fs::create_dir(&base) {
            Ok(()) => Some(Self { mount, base }),
            Err(error) => skip(&format!("{}: {error}", base.display())),
        }
    }

    pub fn open(&self, realm: &str, wanted: &[&str]) -> Tree {
        Tree::open(&self.mount, Some(&self.base), realm, wanted).unwrap()
    }

    /// Runs one test of this program again, in what `script` prepares: it gets the base as `$0` and ends in `"$@"`.
    pub fn again(&self, test: &str, script: &str) {
        let output = Command::new("sh")
            .args(["-c", script, self.base.to_str().unwrap()])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(INSIDE, &self.base)
            .output()
            .unwrap();
        let told =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && told.contains("1 passed"), "{told}");
    }

    /// The base's name as `/proc/PID/cgroup` shows it.
    pub fn shown(&self) -> String {
        let below = self.base.strip_prefix(&self.mount.point).unwrap();
        format!("/{}", below.display())
    }

    /// All directories below the base, in order.
    pub fn listing(&self) -> Vec<String> {
        let mut found = Vec::new();
        list(&self.base, &mut found);
        let mut names: Vec<_> =
            found.iter().map(|path| path.strip_prefix(&self.base).unwrap().display().to_string()).collect();
        names.sort();
        names
    }

    pub fn content(&self, file: &str) -> String {
        fs::read_to_string(self.base.join(file)).unwrap()
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

fn list(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.push(entry.path());
            list(&entry.path(), found);
        }
    }
}

/// Set in a test's second life.
const INSIDE: &str = "PINFOLD_TEST_INSIDE";

/// Whether this is the second life that [`Ground::again`] started.
pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Says why a test does not run, past the test harness, which keeps what a passing test prints.
pub fn skip<T>(reason: &str) -> Option<T> {
    let test = thread::current();
    let line = format!("skipped: {}: {reason}\n", test.name().unwrap_or("?"));
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    None
}

/// A child of the test, killed and reaped in the end.
pub struct Process(Child);

impl Process {
    pub fn sleep() -> Self {
        Self::run("sleep", &["600"])
    }

    pub fn run(program: &str, arguments: &[&str]) -> Self {
        Self(
            Command::new(program)
                .args(arguments)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap(),
        )
    }

    pub fn pid(&self) -> HostPid {
        HostPid::new(self.0.id()).unwrap()
    }

    /// The next line that it prints, as a number.
    pub fn number(&mut self) -> HostPid {
        self.line().parse().ok().and_then(HostPid::new).unwrap()
    }

    pub fn line(&mut self) -> String {
        let mut line = String::new();
        let mut reader = BufReader::with_capacity(1, self.0.stdout.as_mut().unwrap());
        reader.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// Lets one `read` of a shell go on.
    pub fn go(&mut self) {
        writeln!(self.0.stdin.as_mut().unwrap(), "go").unwrap();
    }

    pub fn end(mut self) {
        self.finish();
    }

    pub fn wait(&mut self) -> std::process::ExitStatus {
        self.0.wait().unwrap()
    }

    fn finish(&mut self) {
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

pub fn cell(number: u32) -> CellId {
    CellId::new(number).unwrap()
}

pub fn group(number: u32) -> GroupId {
    GroupId::new(number).unwrap()
}

pub fn dir(path: &str) -> Dir {
    Dir::parse(path.as_bytes()).unwrap()
}

/// The next event, or a failed test.
pub fn next(watch: &Watch) -> Event {
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| sender.send(watch.next().unwrap()));
        receiver.recv_timeout(PATIENCE).unwrap_or_else(|_| {
            watch.stopper().stop();
            panic!("no event came")
        })
    })
}

/// Takes events of a cell until its leaf is as wanted.
pub fn until(tree: &Tree, watch: &Watch, leaf: &Dir, wanted: impl Fn(pinfold_kernel::Events) -> bool) {
    let started = Instant::now();
    while !wanted(tree.events(leaf).unwrap()) {
        assert!(started.elapsed() < PATIENCE, "events came, but never the wanted state");
        assert_eq!(next(watch), Event::Changed(leaf.leaf().unwrap()));
    }
}
