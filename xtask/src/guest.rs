//! Guests: virtual machines started by `vm/run-in-vm` that see this machine's files.

use crate::workspace;
use anyhow::{Context, Result, anyhow, bail};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The exit status by which `run-in-vm` says that there was no guest to run in.
const NO_GUEST: i32 = 125;
/// The exit status by which it says that the time was up, or that the guest died on the way.
const NOT_ENDED: i32 = 124;

/// What a guest is to be, and to do.
#[derive(Clone, Debug)]
pub struct Guest {
    /// The suite that it belongs to.
    pub suite: String,
    /// What it is called among the suite's.
    pub name: String,
    /// The cgroup versions it has: `v1`, `v2` or `hybrid`.
    pub cgroup: &'static str,
    /// Its kernel's release.
    pub kernel: &'static str,
    /// How many processors it has. With one, QEMU need not order what several do to memory, and the guest's kernel wakes nobody up
    /// on another: a process starts in a fifth of the time.
    pub processors: u32,
    /// How many seconds the command may take.
    pub seconds: u32,
    /// For how many of them it may print nothing; 0: for all.
    pub silence: u32,
    /// How often it is run at most, until it has not died. Without KVM a guest with two CPUs dies now and then, once in some
    /// hundred: its kernel panics, or stands still.
    pub tries: u32,
    /// The size of the empty disk that it has as /dev/vda, in MiB; 0: none.
    pub disk: u32,
    /// More parameters of its kernel.
    pub parameters: &'static str,
    /// Directories in which what the guest writes is kept.
    pub kept: Vec<PathBuf>,
    /// What it runs, as root, in the root of the workspace.
    pub command: Vec<OsString>,
}

/// How a command in a guest ended.
#[derive(Debug)]
pub enum Ended {
    /// With status 0.
    Well,
    /// With another status.
    Badly(String),
    /// Not: time was up, or it had printed nothing for long, or the guest's kernel panicked.
    Died,
    /// Not at all: no guest could be started.
    NoGuest,
}

/// What came of a guest.
#[derive(Debug)]
pub struct Ran {
    /// The suite that it belongs to.
    pub suite: String,
    /// What it is called among the suite's.
    pub name: String,
    /// How its command ended.
    pub ended: Result<Ended>,
    /// From before it was booted.
    pub took: Duration,
    /// The parts of its command that said how long they took, in seconds.
    pub parts: Vec<(String, f32)>,
}

/// How many guests run side by side: as many as there are processors, as without KVM each keeps one busy. With one more, tests that
/// wait for what burns CPU time took so much longer that nothing was won.
pub fn lanes() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Runs guests, in this order, as many side by side as [`lanes`] says. What one prints is shown when it has ended; at once if it
/// is the only one.
pub fn run_all(guests: Vec<Guest>) -> Vec<Ran> {
    let lanes = lanes().min(guests.len());
    let is_alone = guests.len() == 1;
    let waiting = Mutex::new(VecDeque::from(guests));
    // Held while a guest's output is shown, so that no two mix.
    let ran = Mutex::new(Vec::new());
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let again = |guest: Guest| waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back(guest);
    let lane = || {
        while let Some(guest) = next() {
            let start = Instant::now();
            let mut printed = Vec::new();
            let mut ended = guest.run(|line| {
                if is_alone {
                    println!("{line}");
                }
                printed.push(line);
            });
            let mut ran = ran.lock().unwrap_or_else(PoisonError::into_inner);
            if !is_alone {
                let after = start.elapsed().as_secs();
                println!("-- {}, {}, after {after} s\n{}", guest.suite, guest.name, printed.join("\n"));
            }
            let parts = printed.iter().filter_map(|line| part(line)).collect();
            if matches!(ended, Ok(Ended::Died)) && guest.tries > 1 {
                println!("-- {}, {}: died; what it has not ended is run again", guest.suite, guest.name);
                again(Guest { tries: guest.tries - 1, ..guest.clone() });
                ended = Ok(Ended::Well);
            }
            ran.push(Ran { suite: guest.suite, name: guest.name, ended, took: start.elapsed(), parts });
        }
    };
    std::thread::scope(|scope| (0..lanes).for_each(|_| drop(scope.spawn(lane))));
    ran.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// What a line says, if it is of the form `NAME: ... in SECONDS s`, indented: how long a part of the command took.
fn part(line: &str) -> Option<(String, f32)> {
    let (said, seconds) = line.strip_prefix("  ")?.strip_suffix(" s")?.rsplit_once(" in ")?;
    let (name, _) = said.rsplit_once(": ")?;
    Some((name.to_owned(), seconds.parse().ok()?))
}

impl Guest {
    /// Boots the guest and runs the command in it; `show` gets what it prints line by line.
    fn run(&self, mut show: impl FnMut(String)) -> Result<Ended> {
        let mut run = Command::new(workspace::root().join("vm/run-in-vm"));
        run.current_dir(workspace::root());
        run.args(["--cgroup", self.cgroup, "--kernel", self.kernel, "--timeout", &self.seconds.to_string()]);
        run.args(["--cpus", &self.processors.to_string(), "--disk", &self.disk.to_string()]);
        run.args(["--silence", &self.silence.to_string()]);
        run.args(["--append", self.parameters]);
        for directory in &self.kept {
            run.arg("--rw").arg(directory);
        }
        run.arg("--").args(&self.command);
        let (output, input) = std::io::pipe().context("a pipe")?;
        run.stdout(input.try_clone().context("a pipe")?).stderr(input);
        let mut child = run.spawn().context("cannot run vm/run-in-vm")?;
        // Its ends of the pipe: without them the output ends with the guest.
        drop(run);
        for line in BufReader::new(output).split(b'\n') {
            show(String::from_utf8_lossy(&line.context("what the guest prints")?).into_owned());
        }
        let status = child.wait().context("vm/run-in-vm")?;
        Ok(match status.code() {
            Some(0) => Ended::Well,
            Some(NO_GUEST) => Ended::NoGuest,
            Some(NOT_ENDED) => Ended::Died,
            Some(code) => Ended::Badly(format!("exit status {code}")),
            None => bail!("vm/run-in-vm: {status}"),
        })
    }
}

/// Whether all guests could be started; an error if one did not end well.
pub fn all_well<'a>(ran: impl IntoIterator<Item = &'a Ran>) -> Result<bool> {
    let (mut complaints, mut not_started, mut count) = (Vec::new(), Vec::new(), 0);
    for Ran { name, ended, .. } in ran {
        match ended {
            Ok(Ended::Well) => {}
            Ok(Ended::NoGuest) => not_started.push(name),
            Ok(Ended::Died) => complaints.push(format!("{name}: not ended in time, or died on the way")),
            Ok(Ended::Badly(how)) => complaints.push(format!("{name}: {how}")),
            Err(error) => complaints.push(format!("{name}: {error:#}")),
        }
        count += 1;
    }
    // Where there is one, there are all.
    if not_started.len() < count {
        complaints.extend(not_started.iter().map(|name| format!("{name}: no guest could be started")));
    }
    if complaints.is_empty() { Ok(not_started.is_empty()) } else { Err(anyhow!(complaints.join(", "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_says_how_long_it_took() {
        for (line, expected) in [
            ("  kernel v1, cpuset: played in 3.2 s", Some(("kernel v1, cpuset", 3.2))),
            ("  capturing: ended in 168 s", Some(("capturing", 168.0))),
            ("capturing: ended in 168 s", None),
            ("  the disk answered in time: 5 s", None),
            ("  kernel v1, cpuset: no directory in /tmp", None),
        ] {
            assert_eq!(part(line), expected.map(|(name, seconds)| (name.to_owned(), seconds)), "{line}");
        }
    }
}
