//! Stopping processes while they are looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::{CaptureError, Marks, picture, proc};
use crate::image::Image;
use crate::look::Look;

/// How long a process may take to stop: one that waits for a disk does not hear signals.
const PATIENCE: Duration = Duration::from_secs(5);

/// Processes that were stopped, and go on when this is dropped: in the opposite order, so that a parent finds no child
/// stopped when it runs again.
#[derive(Debug)]
pub struct Stopped<'a> {
    pidfds: Vec<OwnedFd>,
    numbers: BTreeSet<u32>,
    looked_at: BTreeMap<u32, u64>,
    gone: BTreeSet<u32>,
    /// Who was listed last.
    pids: Vec<u32>,
    /// As they stood still.
    marks: Marks,
    terms: Terms<'a>,
}

/// What holds while processes are stopped.
#[derive(Clone, Copy, Default, Debug)]
pub struct Terms<'a> {
    /// Who has to run meanwhile, beside the caller: a daemon that is asked. A list with one of them is refused.
    pub needed: &'a [u32],
    /// Give up, and let everybody go on, when this is set.
    pub interrupted: Option<&'a AtomicBool>,
}

impl Terms<'_> {
    pub(super) fn go_on(&self) -> Result<(), CaptureError> {
        if self.is_interrupted() { Err(CaptureError::Interrupted) } else { Ok(()) }
    }

    /// Whether something is waited for still.
    pub(super) fn waits_until(&self, until: Instant) -> bool {
        !self.is_interrupted() && Instant::now() < until
    }

    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupted.is_some_and(|flag| flag.load(Ordering::Acquire))
    }
}

impl<'a> Stopped<'a> {
    /// Stops a process and everything below it.
    pub fn below(root: u32, terms: Terms<'a>) -> Result<Self, CaptureError> {
        Self::listed(|| proc::below(root), terms)
    }

    /// Stops the processes that `list` names, again and again until there is no new one.
    pub fn listed<E: From<CaptureError>>(
        mut list: impl FnMut() -> Result<Vec<u32>, E>,
        terms: Terms<'a>,
    ) -> Result<Self, E> {
        proc::check_own()?;
        let mut stopped = Self {
            pidfds: Vec::new(),
            numbers: BTreeSet::new(),
            looked_at: BTreeMap::new(),
            gone: BTreeSet::new(),
            pids: Vec::new(),
            marks: Marks::default(),
            terms,
        };
        loop {
            stopped.pids = list()?;
            if !stopped.stop()? {
                stopped.marks = Marks::of(&stopped.pids)?;
                stopped.check_still()?;
                return Ok(stopped);
            }
        }
    }

    /// What they are. Zombies of theirs come with them.
    pub fn picture(&self) -> Result<Image, CaptureError> {
        let image = picture(&proc::with_zombies(&self.pids)?, &self.numbers, &self.terms)?;
        self.check_still()?;
        Ok(image)
    }

    /// Stops those that were not stopped before. Whether there were any: they may have had children meanwhile, or gone.
    fn stop(&mut self) -> Result<bool, CaptureError> {
        let pids = std::mem::take(&mut self.pids);
        refuse_needed(&pids, self.terms.needed)?;
        let mut any = false;
        for &pid in &pids {
            self.terms.go_on()?;
            let Some(look) = Look::at(pid) else {
                any |= self.gone.insert(pid);
                continue;
            };
            if self.looked_at.insert(pid, look.started) == Some(look.started) {
                continue;
            }
            any = true;
            proc::refuse_unstoppable(pid)?;
            if !stands_still(pid) {
                self.stop_one(pid, look.started)?;
            }
        }
        self.pids = pids;
        Ok(any)
    }

    /// Refuses if somebody runs after all, or has run since all of them were stopped: it was not stopped by us, or not only. For who has
    /// added something to the picture that is to be of the same moment.
    pub fn check_still(&self) -> Result<(), CaptureError> {
        match self.pids.iter().find(|pid| !stands_still(**pid)) {
            Some(&pid) => Err(CaptureError::Ran(pid)),
            None => self.marks.check(),
        }
    }

    fn stop_one(&mut self, pid: u32, started: u64) -> Result<(), CaptureError> {
        let failed = |errno| CaptureError::Stop { pid, errno };
        let number = Pid::from_raw(pid.cast_signed()).ok_or(CaptureError::NoSuchProcess(pid))?;
        let pidfd = match pidfd_open(number, PidfdFlags::empty()) {
            Err(Errno::SRCH) => return Ok(()),
            answer => answer.map_err(failed)?,
        };
        // The descriptor may be another process's than the one looked at: the start time tells.
        if Look::at(pid).is_none_or(|look| look.started != started) {
            return Ok(());
        }
        match pidfd_send_signal(&pidfd, Signal::STOP) {
            Err(Errno::SRCH) => return Ok(()),
            answer => answer.map_err(failed)?,
        }
        self.pidfds.push(pidfd);
        self.numbers.insert(pid);
        let deadline = Instant::now() + PATIENCE;
        while !stands_still(pid) {
            self.terms.go_on()?;
            if Instant::now() > deadline {
                return Err(CaptureError::StillRuns { pid, seconds: PATIENCE.as_secs() });
            }
            // The kernel tells nobody but the parent when a process has stopped.
            std::thread::yield_now();
        }
        Ok(())
    }
}

/// Refuses a list with who has to run: the caller, and `needed`.
pub fn refuse_needed(pids: &[u32], needed: &[u32]) -> Result<(), CaptureError> {
    let own = std::process::id();
    match pids.iter().find(|pid| **pid == own || needed.contains(pid)) {
        Some(&pid) => Err(CaptureError::Unrepresentable {
            pid,
            reason: "it takes part in the capture, which would stop it",
        }),
        None => Ok(()),
    }
}

/// Whether no thread of a process runs: a leader stops, and ends, before the others do.
fn stands_still(pid: u32) -> bool {
    Look::at_threads(pid).iter().all(|thread| thread.is_stopped() || thread.has_ended())
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        for pidfd in self.pidfds.iter().rev() {
            // ESRCH: somebody has killed it.
            let _ = pidfd_send_signal(pidfd, Signal::CONT);
        }
    }
}
