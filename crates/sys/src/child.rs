//! A child for one errand, of a program with any number of threads: it makes system calls only, and has nothing open that it does not
//! need.

use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, Result, retry_on_intr};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use crate::clone::exit_now;
use crate::last_errno;
use crate::signals::Blocked;

/// The child. It goes on when this is dropped: whoever has it decides how to end it, and how long to wait for that.
#[derive(Debug)]
pub(crate) struct Child {
    pid: Pid,
    pidfd: OwnedFd,
}

impl Child {
    /// Starts one that has these descriptors and no others, does what it is told, and ends.
    ///
    /// It takes no signal but those that nobody can block. `errand` must make system calls only: it runs on a copy of memory in which other threads may hold any lock.
    ///
    /// Errors: those of clone(2).
    /// Source: clone(2), `CLONE_PIDFD`. Why unsafe: one thread of maybe many is copied.
    pub(crate) fn start<const N: usize>(kept: [RawFd; N], errand: impl FnOnce()) -> Result<Self> {
        let _as_its_handlers_are_the_callers = Blocked::all();
        let mut pidfd: libc::c_int = -1;
        let flags = libc::CLONE_PIDFD | libc::SIGCHLD;
        let none = 0_usize;
        // SAFETY: `pidfd` is live and may be written. Without CLONE_VM the child goes on with a copy of this stack; it makes
        // system calls only, so no lock that another thread held when it was copied matters, and it ends without returning.
        let answer = unsafe { libc::syscall(libc::SYS_clone, flags, none, &raw mut pidfd, none, none) };
        match answer {
            0 => {
                close_all_but(kept);
                errand();
                exit_now(0)
            }
            -1 => return Err(last_errno()),
            _ => {}
        }
        // SAFETY: the call succeeded with CLONE_PIDFD, so the kernel has stored a new open descriptor that nobody else owns.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        let pid = i32::try_from(answer).ok().and_then(Pid::from_raw).ok_or(Errno::CHILD)?;
        Ok(Self { pid, pidfd })
    }

    /// Its number in the caller's pid namespace.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    pub(crate) fn kill(&self) {
        // ESRCH: it has ended already.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// Waits until it has ended, and leaves nothing of it.
    pub(crate) fn wait(&self) {
        self.reap(WaitIdOptions::empty());
    }

    /// Whether it has ended. Then nothing is left of it.
    pub(crate) fn has_ended(&self) -> bool {
        self.reap(WaitIdOptions::NOHANG)
    }

    /// Whether it has ended after so long at most. Then nothing is left of it.
    pub(crate) fn ends_within(&self, patience: Timespec) -> bool {
        let mut over = [PollFd::new(&self.pidfd, PollFlags::IN)];
        matches!(retry_on_intr(|| poll(&mut over, Some(&patience))), Ok(1)) && self.has_ended()
    }

    fn reap(&self, how: WaitIdOptions) -> bool {
        let id = || WaitId::PidFd(self.pidfd.as_fd());
        match retry_on_intr(|| waitid(id(), WaitIdOptions::EXITED | how)) {
            Ok(status) => status.is_some(),
            // ECHILD: it was reaped before, by us or by somebody else.
            Err(_) => true,
        }
    }
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

#[cfg(test)]
mod tests {
    use std::mem::MaybeUninit;
    use std::os::fd::AsRawFd;

    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;

    #[test]
    fn it_has_what_it_was_given_and_nothing_is_left_of_it() {
        let (reads, writes) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let (holds, held) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let (own, closed) = (writes.as_raw_fd(), held.as_raw_fd());
        let child = Child::start([own], || {
            // SAFETY: takes numbers.
            let is_open = |fd| unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0;
            let mut mask = MaybeUninit::uninit();
            // SAFETY: `mask` is live and is written.
            unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), mask.as_mut_ptr()) };
            // SAFETY: the call has filled it.
            let is_blocked = unsafe { libc::sigismember(mask.as_ptr(), libc::SIGHUP) } == 1;
            let said = [u8::from(is_open(own)), u8::from(is_open(closed)), u8::from(is_blocked)];
            // SAFETY: `said` is as long as is said.
            unsafe { libc::write(own, said.as_ptr().cast(), said.len()) };
        })
        .unwrap();
        drop(writes);
        let mut said = [7; 4];
        assert_eq!(rustix::io::read(&reads, &mut said), Ok(3));
        assert_eq!(said, [1, 0, 1, 7]);
        // Who has nothing open is no reason for this to stay open.
        drop(held);
        assert_eq!(rustix::io::read(&holds, &mut said), Ok(0));
        child.wait();
        assert!(child.has_ended());
    }

    #[test]
    fn one_that_does_not_end_is_killed() {
        // SAFETY: takes no address.
        let child = Child::start([], || while unsafe { libc::pause() } != 0 {}).unwrap();
        pidfd_send_signal(&child.pidfd, Signal::TERM).unwrap();
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        assert!(!child.has_ended());
        assert!(!child.ends_within(at_once));
        child.kill();
        child.wait();
        assert!(child.ends_within(at_once));
    }
}
