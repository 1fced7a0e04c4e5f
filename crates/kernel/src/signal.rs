//! Signals, through pidfds only: a reused number is never hit.

pub use rustix::process::Signal;

use crate::process::{Pinned, ProcessError};

/// Sends a signal to a process that is held.
pub fn send(process: &Pinned, signal: Signal) -> Result<(), ProcessError> {
    rustix::process::pidfd_send_signal(process.pidfd(), signal).map_err(|errno| match errno {
        rustix::io::Errno::SRCH => ProcessError::Gone(process.process()),
        errno => ProcessError::System { process: process.process(), file: "pidfd", errno },
    })
}
