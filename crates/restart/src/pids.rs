//! `clone_with_pids`: a child with chosen numbers in every pid namespace that it is in.
//!
//! The interface is that of the 2009 proposals (`clone_with_pids()`, later `eclone()`): numbers go from the oldest known
//! namespace to the youngest, and 0 means that the kernel chooses. Today's kernel has clone3(2) with `set_tid`, which
//! wants the youngest first, knows no 0, and answers EEXIST where the proposal said EBUSY. This module translates, and
//! finds out what the kernel's errno meant: by asking again in ways that cannot succeed, never by guessing.
//!
//! Out of scope: threads (`CLONE_THREAD`), shared memory (`CLONE_VM`).

mod diagnose;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::os::fd::BorrowedFd;

use pinfold_sys::clone::{self, Side};
use rustix::io::Errno;

pub use pinfold_sys::clone::Side as Cloned;

/// `CLONE_NEWPID` of linux/sched.h: the child is the first process of a new pid namespace.
pub const NEW_PID_NAMESPACE: u32 = 0x2000_0000;

/// How deep pid namespaces nest, the initial one included. Source: linux/pid_namespace.h, `MAX_PID_NS_LEVEL`.
pub const MOST_LEVELS: usize = 32;

/// How often free numbers are tried for the zeros of a request before it fails as [`CloneError::Taken`].
pub const MOST_ATTEMPTS: usize = 128;

/// Numbers below are for the system's first processes; the kernel does not reuse them either (`RESERVED_PIDS`).
const FIRST_CHOSEN: u32 = 300;

/// What child is wanted.
#[derive(Clone, Copy, Default)]
pub struct Request<'a> {
    /// The child's numbers, from the oldest known namespace to the youngest; 0: the kernel chooses. Fewer numbers than
    /// levels are for the youngest levels; none: a plain clone.
    pub pids: &'a [i32],
    /// `CLONE_NEW*` flags. With [`NEW_PID_NAMESPACE`] the youngest number is the one in the new namespace: 1 or 0.
    pub namespaces: u32,
    /// The cgroup v2 directory that the child is born in.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Numbers that must not be chosen for a 0, given how far from the youngest level it is. With this, no 0 is left to
    /// the kernel.
    pub reserved: Option<&'a dyn Fn(usize, u32) -> bool>,
}

/// Why there is no child.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CloneError {
    /// clone3 copies one thread of many.
    #[error("the caller has more than one thread")]
    Threads,
    /// The count is below 0.
    #[error("{0} is not a number of pids")]
    NegativeCount(i32),
    /// The count is above what is there.
    #[error("{count} pids announced, {given} given")]
    CountAbovePids {
        /// What was announced.
        count: i32,
        /// How many there are.
        given: usize,
    },
    /// A number below 0.
    #[error("{0} is not a pid")]
    NegativePid(i32),
    /// More numbers than namespaces.
    #[error("{count} pids for a process in {levels} pid namespaces")]
    TooMany {
        /// How many numbers were given.
        count: usize,
        /// How many namespaces the child is in.
        levels: usize,
    },
    /// The first process of a namespace is process 1.
    #[error("pid {0} for the first process of a pid namespace, which is 1")]
    NotFirst(i32),
    /// A number that the kernel would never give.
    #[error("pid {pid} is above what pid_max allows: {limit} is the limit")]
    AbovePidMax {
        /// The number.
        pid: i32,
        /// `kernel.pid_max`: numbers are below it.
        limit: u32,
    },
    /// [`Self::AbovePidMax`], by the limit of a namespace further out, which cannot be read from here (each has its own since Linux 6.14).
    #[error(
        "pid {pid} is above what pid_max allows in the pid namespace {levels_up} above the child's own\n\
             hint: `sysctl kernel.pid_max` there says how much"
    )]
    AboveFurtherOut {
        /// The number.
        pid: i32,
        /// 1: the parent of the child's own namespace; and so on.
        levels_up: usize,
    },
    /// A number is in use, or no free one was found for a 0.
    #[error("{}", taken(.0))]
    Taken(Vec<i32>),
    /// No right to choose numbers in a namespace.
    #[error(
        "no right to choose a pid in the pid namespace {levels_up} above the child's own\n\
             hint: CAP_CHECKPOINT_RESTORE in the user namespace that owns it is enough"
    )]
    Refused {
        /// 0: the child's own namespace; 1: its parent; and so on.
        levels_up: usize,
    },
    /// A seccomp filter, or a kernel before 5.5.
    #[error("clone3 does not reach the kernel ({0})\nhint: a seccomp filter of this container may forbid it")]
    Filtered(Errno),
    /// Everything else: no memory, a full pids limit, a group that is gone.
    #[error("clone3 failed: {0}")]
    System(Errno),
}

fn taken(pids: &[i32]) -> String {
    match pids {
        [pid] => format!("pid {pid} is taken"),
        pids => format!("one of the pids {pids:?} is taken"),
    }
}

impl CloneError {
    /// The errno of the proposal: Documentation/eclone.txt as posted in 2009, and clone3(2) for what came later.
    pub const fn errno(&self) -> Errno {
        match self {
            Self::Threads => Errno::DEADLK,
            Self::NegativeCount(_)
            | Self::CountAbovePids { .. }
            | Self::NegativePid(_)
            | Self::TooMany { .. }
            | Self::NotFirst(_)
            | Self::AbovePidMax { .. }
            | Self::AboveFurtherOut { .. } => Errno::INVAL,
            Self::Taken(_) => Errno::BUSY,
            Self::Refused { .. } => Errno::PERM,
            Self::Filtered(errno) | Self::System(errno) => *errno,
        }
    }
}

impl<'a> Request<'a> {
    /// A request as the proposal's system call takes it: a count and numbers.
    pub fn counted(count: i32, pids: &'a [i32]) -> Result<Self, CloneError> {
        let wanted = usize::try_from(count).map_err(|_| CloneError::NegativeCount(count))?;
        let pids = pids.get(..wanted).ok_or(CloneError::CountAbovePids { count, given: pids.len() })?;
        Ok(Self { pids, ..Self::default() })
    }
}

/// Makes a child with chosen numbers; returns twice, as fork(2). The caller must have one thread.
///
/// Errors: those of [`CloneError`]; nothing is left behind by any of them.
/// Source: "clone_with_pids" (Sukadev Bhattiprolu, linux-kernel 2009); clone3(2); kernel/pid.c `alloc_pid()`.
/// Differs: the proposal needed CAP_SYS_ADMIN; CAP_CHECKPOINT_RESTORE in each namespace is enough now.
pub fn clone_with_pids(request: &Request<'_>) -> Result<Cloned, CloneError> {
    check(request)?;
    let mut set_tid: Vec<i32> = request.pids.iter().rev().copied().collect();
    if request.reserved.is_none() {
        set_tid.truncate(set_tid.iter().rposition(|&pid| pid != 0).map_or(0, |last| last + 1));
    }
    if set_tid.len() < request.pids.len() {
        diagnose::check_count(request)?;
    }
    if let Some(youngest) = set_tid.first_mut()
        && *youngest == 0
        && diagnose::child_is_first(request)
    {
        *youngest = 1;
    }
    let zeros: Vec<usize> = (0..set_tid.len()).filter(|&level| set_tid[level] == 0).collect();
    if zeros.is_empty() {
        return ask(request, &set_tid).map_err(|errno| diagnose::explain(request, &set_tid, errno));
    }
    search(request, set_tid, &zeros)
}

/// What can be told without the kernel.
fn check(request: &Request<'_>) -> Result<(), CloneError> {
    if let Some(&pid) = request.pids.iter().find(|&&pid| pid < 0) {
        return Err(CloneError::NegativePid(pid));
    }
    match request.pids.last() {
        Some(&pid) if pid > 1 && request.namespaces & NEW_PID_NAMESPACE != 0 => {
            Err(CloneError::NotFirst(pid))
        }
        _ => Ok(()),
    }
}

fn ask(request: &Request<'_>, set_tid: &[i32]) -> Result<Side, Errno> {
    clone::clone3(&clone::Request { namespaces: request.namespaces, set_tid, cgroup: request.cgroup })
}

/// Tries numbers for the zeros until the kernel takes all of them.
fn search(request: &Request<'_>, mut set_tid: Vec<i32>, zeros: &[usize]) -> Result<Cloned, CloneError> {
    let mut limit = diagnose::pid_max();
    let is_reserved = |level, pid| request.reserved.is_some_and(|reserved| reserved(level, pid));
    let mut numbers = Numbers::new(limit);
    for _ in 0..MOST_ATTEMPTS {
        for &level in zeros {
            let free = (0..limit).map(|_| numbers.next()).find(|&pid| !is_reserved(level, pid));
            set_tid[level] = free.and_then(|pid| i32::try_from(pid).ok()).ok_or_else(|| fixed(request))?;
        }
        match ask(request, &set_tid) {
            Err(Errno::EXIST) => {}
            // Since Linux 6.14 a namespace further out may have a lower limit, which cannot be asked for from here.
            Err(Errno::INVAL) if limit > 2 * FIRST_CHOSEN => {
                limit /= 2;
                numbers = Numbers::new(limit);
            }
            Err(errno) => return Err(diagnose::explain(request, &set_tid, errno)),
            Ok(side) => return Ok(side),
        }
    }
    Err(fixed(request))
}

/// The error for a search in vain: names what was not ours to choose.
fn fixed(request: &Request<'_>) -> CloneError {
    CloneError::Taken(request.pids.iter().copied().filter(|&pid| pid != 0).collect())
}

/// Numbers that are probably free: upwards from a random start, as the kernel's own go upwards from the last one given.
struct Numbers {
    next: u32,
    limit: u32,
}

impl Numbers {
    fn new(limit: u32) -> Self {
        let random = RandomState::new().build_hasher().finish();
        let span = u64::from(limit.saturating_sub(FIRST_CHOSEN).max(1));
        Self { next: FIRST_CHOSEN + u32::try_from(random % span).unwrap_or(0), limit }
    }

    fn next(&mut self) -> u32 {
        let number = self.next;
        // A step that is prime to most limits: neighbours of a taken number are likely to be taken too.
        self.next = self.next.saturating_add(37);
        if self.next >= self.limit {
            self.next = FIRST_CHOSEN.min(self.limit - 1) + self.next % 37;
        }
        number
    }
}
