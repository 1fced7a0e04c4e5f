//! A child that goes into a user namespace and waits there, so that what /proc says of a process in it can be read.
//!
//! Whoever is root in that namespace may look at it, stop it, and end it. So it has nothing that could be taken from it: no open
//! file, and memory that only the kernel's own root may read; and nothing of it is waited for without an end.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, Result};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};

use crate::last_errno;

/// How long it may take to arrive.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// A process in a user namespace: a child that does nothing, and ends when this is dropped, or with the caller.
#[derive(Debug)]
pub struct Scout {
    pid: Pid,
    pidfd: OwnedFd,
    /// It ends when nobody has this any more: also if the caller is killed.
    _leash: OwnedFd,
}

impl Scout {
    /// Sends one. The caller may have any number of threads.
    ///
    /// Errors: EPERM: no CAP_SYS_ADMIN in that namespace. EINVAL: it is the caller's own, or no user namespace. ETIMEDOUT: somebody
    /// holds it up. Else those of fork(2) and pipe(2).
    /// Source: setns(2). Why unsafe: fork(2) copies one thread of maybe many.
    pub fn send(user_namespace: impl AsFd) -> Result<Self> {
        let (there, arrived) = pipe_with(PipeFlags::CLOEXEC)?;
        let (held, leash) = pipe_with(PipeFlags::CLOEXEC)?;
        let namespace = user_namespace.as_fd().as_raw_fd();
        let (reports, waits_on) = (arrived.as_raw_fd(), held.as_raw_fd());
        // SAFETY: the child makes system calls only, so no lock that another thread held when it was copied matters; it
        // ends without returning.
        let answer = unsafe { libc::fork() };
        match answer {
            0 => wait_there(namespace, reports, waits_on),
            -1 => return Err(last_errno()),
            _ => {}
        }
        drop((arrived, held));
        let pid = Pid::from_raw(answer).ok_or(Errno::CHILD)?;
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(errno) => {
                drop(leash);
                // Not reaped yet, so the number is still this child's; without the leash it ends.
                let _ = rustix::io::retry_on_intr(|| waitid(WaitId::Pid(pid), WaitIdOptions::EXITED));
                return Err(errno);
            }
        };
        let scout = Self { pid, pidfd, _leash: leash };
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
        self.pid
    }
}

impl Drop for Scout {
    fn drop(&mut self) {
        // ESRCH: it has ended already. Somebody may have stopped it, so it is not left to end by itself.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        // ECHILD: somebody else has reaped it.
        let id = || WaitId::PidFd(self.pidfd.as_fd());
        let _ = rustix::io::retry_on_intr(|| waitid(id(), WaitIdOptions::EXITED));
    }
}

/// What the child does: reports 0 or the errno of what failed, and waits until nobody has its leash.
fn wait_there(namespace: RawFd, reports: RawFd, waits_on: RawFd) -> ! {
    keep_to_itself();
    close_all_but([namespace, reports, waits_on]);
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
    // SAFETY: _exit(2) takes a number and does not return.
    unsafe { libc::_exit(0) }
}

/// From then on, looking into the process takes rights in the user namespace that its memory comes from.
///
/// Source: prctl(2) `PR_SET_DUMPABLE`; kernel/ptrace.c `__ptrace_may_access()`.
fn keep_to_itself() {
    // SAFETY: takes numbers only.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
}

/// Closes every descriptor of the caller's table but these.
pub(crate) fn close_all_but<const N: usize>(mut kept: [RawFd; N]) {
    kept.sort_unstable();
    let mut first: u32 = 0;
    for kept in kept.map(RawFd::cast_unsigned) {
        if first < kept {
            // SAFETY: the table is a copy, of which nobody uses another descriptor any more.
            unsafe { libc::syscall(libc::SYS_close_range, first, kept - 1, 0) };
        }
        first = kept + 1;
    }
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
}
