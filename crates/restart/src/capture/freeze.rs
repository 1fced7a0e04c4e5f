//! Stopping processes while they are looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::CaptureError;
use crate::look::Look;

/// How long a process may take to stop: one that waits for a disk does not hear signals.
const PATIENCE: Duration = Duration::from_secs(5);

/// Processes that were stopped, and go on when this is dropped: in the opposite order, so that a parent finds no child
/// stopped when it runs again.
#[derive(Default)]
pub(super) struct Frozen {
    stopped: Vec<OwnedFd>,
    numbers: BTreeSet<u32>,
    looked_at: BTreeMap<u32, u64>,
}

impl Frozen {
    /// Stops those that were not stopped before. Whether there were any: they may have had children meanwhile.
    pub(super) fn stop(&mut self, pids: &[u32]) -> Result<bool, CaptureError> {
        let mut any = false;
        for &pid in pids {
            let Some(look) = Look::at(pid) else { continue };
            if self.looked_at.insert(pid, look.started) == Some(look.started) {
                continue;
            }
            any = true;
            if !look.has_ended() && !look.is_stopped() {
                self.stop_one(pid, look.started)?;
            }
        }
        Ok(any)
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
        self.stopped.push(pidfd);
        self.numbers.insert(pid);
        let deadline = Instant::now() + PATIENCE;
        while Look::at(pid).is_some_and(|look| !look.is_stopped() && !look.has_ended()) {
            if Instant::now() > deadline {
                return Err(failed(Errno::TIMEDOUT));
            }
            // The kernel tells nobody but the parent when a process has stopped.
            std::thread::yield_now();
        }
        Ok(())
    }

    /// Whether a process is stopped because of us.
    pub(super) fn has_stopped(&self, pid: u32) -> bool {
        self.numbers.contains(&pid)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for pidfd in self.stopped.iter().rev() {
            // ESRCH: somebody has killed it.
            let _ = pidfd_send_signal(pidfd, Signal::CONT);
        }
    }
}
