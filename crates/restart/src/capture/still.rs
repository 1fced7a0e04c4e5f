//! Whether processes ran between two looks, though they stood still at both.
//!
//! What a process executes may change in between, and who it is with that: of a program of root's and of another one a picture would
//! make one process. So how often each thread has left a CPU is remembered before anything is looked at, and compared afterwards: it is
//! one more time before it stands still again. A frozen thread leaves one also when it is sent a signal, without having run any of its
//! program.

use std::collections::BTreeMap;

use super::{CaptureError, proc};
use crate::look::Look;

/// Of each process that had not ended, its threads.
#[derive(Default, PartialEq, Eq, Debug)]
pub(super) struct Marks(BTreeMap<u32, BTreeMap<u32, Mark>>);

/// What tells of one thread that it ran.
#[derive(PartialEq, Eq, Debug)]
struct Mark {
    started: u64,
    /// How often it has left a CPU.
    switches: u64,
}

impl Marks {
    /// As it is now. Of the caller nothing is remembered: it runs, and knows what it does.
    pub(super) fn of(pids: &[u32]) -> Result<Self, CaptureError> {
        let own = std::process::id();
        let others = pids.iter().filter(|pid| **pid != own);
        let marks = others.map(|&pid| Ok((pid, threads(pid)?))).collect::<Result<BTreeMap<_, _>, _>>()?;
        Ok(Self(marks.into_iter().filter(|(_, threads)| !threads.is_empty()).collect()))
    }

    /// Refuses if one of them ran since, or runs.
    pub(super) fn check(&self) -> Result<(), CaptureError> {
        for (&pid, before) in &self.0 {
            // First this: who stands still, and has run, was counted by then.
            let runs = Look::at_threads(pid).iter().any(Look::runs);
            let now = threads(pid)?;
            if now.is_empty() {
                return Err(CaptureError::NoSuchProcess(pid));
            }
            if runs || now != *before {
                return Err(CaptureError::Ran(pid));
            }
        }
        Ok(())
    }
}

/// The threads of a process that have not ended.
fn threads(pid: u32) -> Result<BTreeMap<u32, Mark>, CaptureError> {
    let living = Look::at_threads(pid).into_iter().filter(|thread| !thread.has_ended());
    let mark = |thread: Look| {
        let switches = proc::switches(pid, thread.id).transpose()?;
        Some(switches.map(|switches| (thread.id, Mark { started: thread.started, switches })))
    };
    living.filter_map(mark).collect()
}
