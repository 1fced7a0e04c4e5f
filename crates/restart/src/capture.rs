//! A picture of running processes: everything that [`crate::image`] keeps, read from /proc.
//!
//! Processes are stopped one after another until no new one appears ([`Stopped`]), so that the picture is of one moment; they go
//! on afterwards, children before parents. Or somebody else has frozen them, as a control group, and they are captured as they are.
//!
//! Reads /proc, which must be that of the caller's own pid namespace. Refuses what it could not describe.

mod freeze;
mod proc;
mod relations;
mod spaces;

use std::collections::{BTreeSet, HashMap};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::image::{Captured, FORMAT, Image, VERSION};
pub use freeze::{Stopped, Terms, refuse_needed};
use proc::Seen;

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
    /// The flag of [`Terms::interrupted`] was set.
    #[error("interrupted")]
    Interrupted,
}

impl CaptureError {
    /// The errno of what failed; EOPNOTSUPP for what is not represented.
    pub const fn errno(&self) -> Errno {
        match self {
            Self::NoSuchProcess(_) => Errno::SRCH,
            Self::Read { errno, .. } | Self::Stop { errno, .. } => *errno,
            Self::Unknown { .. } => Errno::IO,
            Self::StillRuns { .. } => Errno::TIMEDOUT,
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
    proc::check_own()?;
    picture(&proc::with_zombies(pids)?, &BTreeSet::new())
}

/// `stopped_by_us`: who was not stopped before.
fn picture(pids: &[u32], stopped_by_us: &BTreeSet<u32>) -> Result<Image, CaptureError> {
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
            living: if process.zombie { None } else { Some(proc::living(process, &mut others)?) },
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
