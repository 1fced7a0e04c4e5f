//! A picture of running processes: everything that [`crate::image`] keeps, read from /proc.
//!
//! Processes are stopped one after another until no new one appears ([`Stopped`]), so that the picture is of one moment; they go
//! on afterwards, children before parents. Or somebody else has frozen them, as a control group, and they are captured as they are
//! ([`while_frozen`]). Others may let them go on meanwhile: there is no picture then.
//!
//! Reads /proc, which must be that of the caller's own pid namespace. Refuses what it could not describe.

mod freeze;
mod proc;
mod relations;
mod spaces;
mod still;

use std::collections::{BTreeSet, HashMap};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::image::{Captured, FORMAT, Image, VERSION};
pub use freeze::{Stopped, Terms, refuse_needed};
use proc::Seen;
use still::Marks;

/// Why there is no capture.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// No such process, or it ended meanwhile.
    #[error("no process {0}")]
    NoSuchProcess(u32),
    /// A file of /proc could not be read.
    #[error("cannot read /proc/{pid}/{file}: {errno}")]
    Read {
        /// Of whom.
        pid: u32,
        /// Which file.
        file: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
    /// A file of /proc did not read as documented.
    #[error("cannot make sense of /proc/{pid}/{file}")]
    Unknown {
        /// Of whom.
        pid: u32,
        /// Which file.
        file: &'static str,
    },
    /// /proc shows another pid namespace than the caller's.
    #[error("/proc belongs to another pid namespace")]
    ForeignProc,
    /// Something that a capture cannot represent.
    #[error("process {pid} cannot be captured: {reason}")]
    Unrepresentable {
        /// Of whom.
        pid: u32,
        /// Why.
        reason: &'static str,
    },
    /// A process could not be stopped.
    #[error("cannot stop process {pid}: {errno}")]
    Stop {
        /// Which.
        pid: u32,
        /// The kernel's answer.
        errno: Errno,
    },
    /// Somebody let it go on.
    #[error("process {0} ran while it was captured: somebody let it go on\nhint: try again")]
    Ran(u32),
    /// Somebody does not answer whom it takes to read it.
    #[error(
        "process {pid} cannot be captured: its {file} was not read within {seconds} seconds\n\
             hint: it is on a file system that does not answer, or somebody keeps its memory locked who waits for one"
    )]
    Unanswered {
        /// Which.
        pid: u32,
        /// What was read: a file of /proc.
        file: &'static str,
        /// How long all was waited for.
        seconds: u64,
    },
    /// It has not stopped in time.
    #[error(
        "process {pid} did not stop within {seconds} seconds\n\
             hint: its group is frozen (pinfold thaw GROUP), or it waits in the kernel, for a disk perhaps"
    )]
    StillRuns {
        /// Which.
        pid: u32,
        /// How long was waited.
        seconds: u64,
    },
    /// There is nobody who reads in the caller's stead.
    #[error("no process that reads what may not answer can be started: {0}")]
    NoReader(Errno),
    /// The flag of [`Terms::interrupted`] was set.
    #[error("interrupted")]
    Interrupted,
}

impl CaptureError {
    /// The errno of what failed; EOPNOTSUPP for what is not represented.
    pub const fn errno(&self) -> Errno {
        match self {
            Self::NoSuchProcess(_) => Errno::SRCH,
            Self::Read { errno, .. } | Self::Stop { errno, .. } | Self::NoReader(errno) => *errno,
            Self::Unknown { .. } => Errno::IO,
            Self::StillRuns { .. } | Self::Unanswered { .. } => Errno::TIMEDOUT,
            Self::Ran(_) => Errno::AGAIN,
            Self::ForeignProc => Errno::NOTSUP,
            Self::Unrepresentable { .. } => Errno::OPNOTSUPP,
            Self::Interrupted => Errno::INTR,
        }
    }
}

/// Captures a process and everything below it. They are stopped meanwhile.
pub fn capture_below(root: u32) -> Result<Image, CaptureError> {
    Stopped::below(root, Terms::default())?.picture()
}

/// Captures the given processes, which do not run meanwhile: somebody has frozen them. Zombies of theirs come with them.
pub fn capture_frozen(pids: &[u32]) -> Result<Image, CaptureError> {
    while_frozen(|| Ok(pids.to_vec()), Terms::default(), Ok)
}

/// How often somebody who runs, or is woken, is captured again: for so long.
const AGAIN: Duration = Duration::from_secs(10);

/// Captures the processes that `list` names, whom somebody has frozen, and has `complete` add to the picture what else is to be of the
/// moment. All of it is done again if one of them was let go on meanwhile, or sent a signal, and refused when that has happened for ten
/// seconds.
pub fn while_frozen<T, E: From<CaptureError>>(
    mut list: impl FnMut() -> Result<Vec<u32>, E>,
    terms: Terms<'_>,
    mut complete: impl FnMut(Image) -> Result<T, E>,
) -> Result<T, E> {
    proc::check_own()?;
    let deadline = Instant::now() + AGAIN;
    loop {
        let pids = list()?;
        let marks = Marks::of(&pids)?;
        let image = picture(&proc::with_zombies(&pids)?, &BTreeSet::new(), &terms)?;
        let completed = match marks.check() {
            Ok(()) => Ok(complete(image)?),
            Err(error) => Err(error),
        };
        match completed.and_then(|completed| marks.check().map(|()| completed)) {
            Err(CaptureError::Ran(_)) if Instant::now() < deadline => terms.go_on()?,
            completed => return Ok(completed?),
        }
        // Nobody tells when a thread that was woken has gone to sleep again.
        std::thread::yield_now();
    }
}

/// `stopped_by_us`: who was not stopped before.
fn picture(pids: &[u32], stopped_by_us: &BTreeSet<u32>, terms: &Terms<'_>) -> Result<Image, CaptureError> {
    let mut strings = proc::Strings::new(pids.len(), terms)?;
    let mut seen = pids.iter().map(|&pid| Seen::of(pid)).collect::<Result<Vec<_>, _>>()?;
    for process in &mut seen {
        process.stopped &= !stopped_by_us.contains(&process.pid);
    }
    let spaces = relations::PidNamespaces::of(&seen)?;
    let index: HashMap<u32, usize> =
        seen.iter().enumerate().map(|(index, process)| (process.pid, index)).collect();
    let leaders = relations::Leaders::of(&seen, &index)?;
    let mut others = spaces::Spaces::new()?;
    let mut processes = Vec::with_capacity(seen.len());
    for process in &seen {
        processes.push(Captured {
            pids: process.pids.clone(),
            pid_namespace: spaces.place(process)?,
            children_in: spaces.children_in(process)?,
            parent: index.get(&process.parent).copied(),
            session: leaders.session(process),
            group: leaders.group(process),
            started: process.started,
            living: if process.zombie {
                None
            } else {
                Some(proc::living(process, &mut others, &mut strings)?)
            },
        });
    }
    let (user_namespaces, owners) = others.described();
    Ok(Image {
        format: FORMAT.to_owned(),
        version: VERSION,
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        pid_namespaces: spaces.parents(),
        user_namespaces,
        owners,
        processes,
        groups: Vec::new(),
    })
}

/// A namespace of a process, by its link in `/proc/PID/ns`.
fn open_namespace(pid: &str, link: &str) -> Result<OwnedFd, Errno> {
    rustix::fs::open(format!("/proc/{pid}/ns/{link}"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// The inode number of what a descriptor refers to: the identity of a namespace.
fn inode(fd: impl AsFd) -> Option<u64> {
    rustix::fs::fstat(fd).ok().map(|stat| stat.st_ino)
}
