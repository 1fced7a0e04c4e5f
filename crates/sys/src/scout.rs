//! A child that goes into a user namespace and waits there, so that what /proc says of a process in it can be read.
//!
//! Whoever is root in that namespace may look at it, stop it, and end it. So it has nothing that could be taken from it: no open
//! file, and memory that only the kernel's own root may read; and nothing of it is waited for without an end.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, Result};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;

use crate::child::Child;
use crate::last_errno;

/// How long it may take to arrive.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// A process in a user namespace: a child that does nothing, and ends when this is dropped, or with the caller.
#[derive(Debug)]
pub struct Scout {
    child: Child,
    /// It ends when nobody has this any more: also if the caller is killed.
    _leash: OwnedFd,
}

impl Scout {
    /// Sends one. The caller may have any number of threads.
    ///
    /// Errors: EPERM: no CAP_SYS_ADMIN in that namespace. EINVAL: it is the caller's own, or no user namespace. ETIMEDOUT: somebody
    /// holds it up. Else those of clone(2) and pipe(2).
    /// Source: setns(2).
    pub fn send(user_namespace: impl AsFd) -> Result<Self> {
        let (there, arrived) = pipe_with(PipeFlags::CLOEXEC)?;
        let (held, leash) = pipe_with(PipeFlags::CLOEXEC)?;
        let namespace = user_namespace.as_fd().as_raw_fd();
        let (reports, waits_on) = (arrived.as_raw_fd(), held.as_raw_fd());
        let errand = || wait_there(namespace, reports, waits_on);
        let child = Child::start([namespace, reports, waits_on], errand)?;
        drop((arrived, held));
        let scout = Self { child, _leash: leash };
        let mut report = [0_u8; 1];
        if poll(&mut [PollFd::new(&there, PollFlags::IN)], Some(&PATIENCE))? == 0 {
            return Err(Errno::TIMEDOUT);
        }
        match rustix::io::read(&there, &mut report)? {
            1 if report[0] == 0 => Ok(scout),
            1 => Err(Errno::from_raw_os_error(i32::from(report[0]))),
            _ => Err(Errno::CHILD),
        }
    }

    /// Its number in the caller's pid namespace.
    pub fn pid(&self) -> Pid {
        self.child.pid()
    }
}

impl Drop for Scout {
    fn drop(&mut self) {
        // Somebody may have stopped it, so it is not left to end by itself.
        self.child.kill();
        self.child.wait();
    }
}

/// What the child does: reports 0 or the errno of what failed, and waits until nobody has its leash.
fn wait_there(namespace: RawFd, reports: RawFd, waits_on: RawFd) {
    keep_to_itself();
    // SAFETY: takes a descriptor and a flag.
    let answer = unsafe { libc::setns(namespace, libc::CLONE_NEWUSER) };
    let errno = if answer == 0 { 0 } else { last_errno().raw_os_error() };
    // A change of credentials may set it anew (fs.suid_dumpable).
    keep_to_itself();
    let mut byte = [u8::try_from(errno).unwrap_or(u8::MAX)];
    // SAFETY: one byte of `byte` is read, which is one byte long.
    unsafe { libc::write(reports, byte.as_ptr().cast(), 1) };
    if errno == 0 {
        // SAFETY: one byte at most is written to `byte`, which is one byte long.
        unsafe { libc::read(waits_on, byte.as_mut_ptr().cast(), 1) };
    }
}

/// From then on, looking into the process takes rights in the user namespace that its memory comes from.
///
/// Source: prctl(2) `PR_SET_DUMPABLE`; kernel/ptrace.c `__ptrace_may_access()`.
fn keep_to_itself() {
    // SAFETY: takes numbers only.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
}
