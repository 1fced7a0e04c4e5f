//! Processes that were stopped are stopped again, before the first instruction of their programs.
//!
//! A process that has stopped does not execute, and one that has executed runs. So the builder traces it over the execve(2),
//! where it waits for its tracer, and lets it go with a SIGSTOP that it finds at once.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use pinfold_sys::trace;
use rustix::io::Errno;
use rustix::process::{self, Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};

use crate::look::Look;

/// How long a process may take to stop.
const PATIENCE: Duration = Duration::from_secs(5);

/// A process that the builder traces.
#[derive(Debug)]
pub(super) struct Held {
    pid: Pid,
    pidfd: OwnedFd,
}

impl Held {
    /// Begins to trace a process that waits for its turn, so that its number is no other's.
    pub(super) fn seize(pid: Pid) -> Result<Self, Errno> {
        let pidfd = process::pidfd_open(pid, PidfdFlags::empty())?;
        trace::seize(pid)?;
        Ok(Self { pid, pidfd })
    }

    /// Waits until it has executed its program, and leaves it stopped there. ECHILD: it has ended instead. EINTR: a signal came,
    /// and `interrupted`.
    pub(super) fn stop(&self, interrupted: impl Fn() -> bool) -> Result<(), Errno> {
        // A look: an end is for its parent to reap.
        let options = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        loop {
            let status = match process::waitid(WaitId::Pid(self.pid), options) {
                Err(Errno::INTR) if !interrupted() => continue,
                answer => answer?.ok_or(Errno::CHILD)?,
            };
            let trap = status.trapping_signal().ok_or(Errno::CHILD)?;
            if trap == trace::EXECUTED {
                process::pidfd_send_signal(&self.pidfd, Signal::STOP)?;
                trace::let_go(self.pid)?;
                return self.wait_until_stopped();
            }
            // A signal on its way to it; or, above the byte of the signal, another event, which brings none.
            trace::go_on(self.pid, if trap >> 8 == 0 { trap } else { 0 })?;
        }
    }

    /// It stops on its way back to the program, and the kernel tells nobody but its parent.
    fn wait_until_stopped(&self) -> Result<(), Errno> {
        let deadline = Instant::now() + PATIENCE;
        let number = self.pid.as_raw_pid().unsigned_abs();
        while Look::at(number).is_some_and(|look| !look.is_stopped_by_signal() && !look.has_ended()) {
            if Instant::now() > deadline {
                return Err(Errno::TIMEDOUT);
            }
            std::thread::yield_now();
        }
        Ok(())
    }
}
