//! Why a tree was not rebuilt.

use rustix::io::Errno;

use crate::schedule::ScheduleError;

/// What a process could not do: the kernel's answer, and the same in words.
pub(super) type Failure = (Errno, String);

/// Why a tree was not rebuilt; nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The relations cannot be made.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// The image needs what this program does not rebuild.
    #[error("{}{what}", of(*pid))]
    Unsupported {
        /// Of whom: its number in the oldest known namespace; 0: of no process.
        pid: u32,
        /// What it is.
        what: &'static str,
    },
    /// The caller has more than one thread.
    #[error("a tree can only be rebuilt by a process with one thread")]
    Threads,
    /// The place itself could not be prepared.
    #[error("cannot {what}: {errno}")]
    Prepare {
        /// What failed.
        what: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
    /// A process could not do its step.
    #[error(transparent)]
    Step(#[from] StepError),
    /// The flag of [`Options::interrupted`](super::Options::interrupted) was set.
    #[error("interrupted")]
    Interrupted,
    /// What [`Options::at`](super::Options::at) said.
    #[error("{0}")]
    Declined(String),
    /// Nothing happened for a long time.
    #[error("process {pid} did not do its step: {step}")]
    Stuck {
        /// Of whom.
        pid: u32,
        /// What it should have done.
        step: String,
    },
}

fn of(pid: u32) -> String {
    if pid == 0 { String::new() } else { format!("process {pid}: ") }
}

/// A failed step.
#[derive(Debug, thiserror::Error)]
#[error("process {pid}: {step}: {reason}")]
pub struct StepError {
    /// Who failed: its number in the oldest known namespace; 0: the builder or a helper.
    pub pid: u32,
    /// What it was doing.
    pub step: String,
    /// Why it failed.
    pub reason: String,
    /// As a number.
    pub errno: Errno,
}

impl RebuildError {
    /// The errno of the step that failed, or of why there was none.
    pub const fn errno(&self) -> Errno {
        match self {
            Self::Schedule(error) => error.errno(),
            Self::Unsupported { .. } => Errno::OPNOTSUPP,
            Self::Threads => Errno::DEADLK,
            Self::Prepare { errno, .. } => *errno,
            Self::Step(error) => error.errno,
            Self::Interrupted => Errno::INTR,
            Self::Declined(_) => Errno::CANCELED,
            Self::Stuck { .. } => Errno::TIMEDOUT,
        }
    }
}
