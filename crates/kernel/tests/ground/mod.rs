//! What tests stand on, and how they look at it.

mod base;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use base::list;
pub(crate) use base::{Ground, PATIENCE, Process, dir, in_guest, skip};
use pinfold_kernel::{Event, Tree, Watch};
use pinfold_model::{CellId, Dir, HostPid};

impl Ground {
    /// Runs one test of this program again, in what `script` prepares: it gets the base as `$0` and ends in `"$@"`.
    pub(crate) fn again(&self, test: &str, script: &str) {
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
    pub(crate) fn shown(&self) -> String {
        let below = self.base.strip_prefix(&self.mount.point).unwrap();
        format!("/{}", below.display())
    }

    /// All directories below the base, in order.
    pub(crate) fn listing(&self) -> Vec<String> {
        let mut found = Vec::new();
        list(&self.base, &mut found);
        let mut names: Vec<_> =
            found.iter().map(|path| path.strip_prefix(&self.base).unwrap().display().to_string()).collect();
        names.sort();
        names
    }

    pub(crate) fn content(&self, file: &str) -> String {
        fs::read_to_string(self.base.join(file)).unwrap()
    }
}

/// Set in a test's second life.
const INSIDE: &str = "PINFOLD_TEST_INSIDE";

/// Whether this is the second life that [`Ground::again`] started.
pub(crate) fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

impl Process {
    /// The next line that it prints, as a number.
    pub(crate) fn number(&mut self) -> HostPid {
        self.line().parse().ok().and_then(HostPid::new).unwrap()
    }

    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        let mut reader = BufReader::with_capacity(1, self.0.stdout.as_mut().unwrap());
        reader.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// Lets one `read` of a shell go on.
    pub(crate) fn go(&mut self) {
        writeln!(self.0.stdin.as_mut().unwrap(), "go").unwrap();
    }

    pub(crate) fn end(mut self) {
        self.finish();
    }

    pub(crate) fn wait(&mut self) -> std::process::ExitStatus {
        self.0.wait().unwrap()
    }
}

pub(crate) fn cell(number: u32) -> CellId {
    CellId::new(number).unwrap()
}

/// The next event, or a failed test.
pub(crate) fn next(watch: &Watch) -> Event {
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
pub(crate) fn until(tree: &Tree, watch: &Watch, leaf: &Dir, wanted: impl Fn(pinfold_kernel::Events) -> bool) {
    let started = Instant::now();
    while !wanted(tree.events(leaf).unwrap()) {
        assert!(started.elapsed() < PATIENCE, "events came, but never the wanted state");
        assert_eq!(next(watch), Event::Changed(leaf.leaf().unwrap()));
    }
}
