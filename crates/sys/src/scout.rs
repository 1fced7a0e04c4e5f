//! A child that goes into a user namespace and waits there, so that what /proc says of a process in it can be read.

use std::ffi::c_int;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use rustix::io::{Errno, Result};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, WaitIdStatus, pidfd_open, waitid};

/// A process in a user namespace: a child that does nothing, and ends when this is dropped, or with the caller.
#[derive(Debug)]
pub struct Scout {
    pid: Pid,
    pidfd: OwnedFd,
    /// It ends when nobody has this any more.
    leash: Option<OwnedFd>,
}

impl Scout {
    /// Sends one. The caller may have any number of threads.
    ///
    /// Errors: EPERM: no CAP_SYS_ADMIN in that namespace. EINVAL: it is the caller's own, or no user namespace. Else those of
    /// fork(2) and pipe(2).
    /// Source: setns(2). Why unsafe: fork(2) copies one thread of maybe many.
    pub fn send(user_namespace: impl AsFd) -> Result<Self> {
        let (there, arrived) = pipe_with(PipeFlags::CLOEXEC)?;
        let (held, leash) = pipe_with(PipeFlags::CLOEXEC)?;
        let namespace = user_namespace.as_fd().as_raw_fd();
        let (reports, waits_on, not_its) = (arrived.as_raw_fd(), held.as_raw_fd(), leash.as_raw_fd());
        // SAFETY: the child makes system calls only, so no lock that another thread held when it was copied matters; it
        // ends without returning.
        let answer = unsafe { libc::fork() };
        match answer {
            0 => wait_there(namespace, reports, waits_on, not_its),
            -1 => return Err(last_errno()),
            _ => {}
        }
        drop((arrived, held));
        let pid = Pid::from_raw(answer).ok_or(Errno::CHILD)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        let scout = Self { pid, pidfd, leash: Some(leash) };
        match rustix::io::retry_on_intr(|| rustix::io::read(&there, &mut [0_u8; 1]))? {
            0 => Err(scout.why()),
            _ => Ok(scout),
        }
    }

    /// Its number in the caller's pid namespace.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Why it has not arrived.
    fn why(mut self) -> Errno {
        let status = self.end(WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        let status = status.ok().flatten().and_then(|status| status.exit_status());
        status.filter(|&status| status != 0).map_or(Errno::CHILD, Errno::from_raw_os_error)
    }

    fn end(&mut self, options: WaitIdOptions) -> Result<Option<WaitIdStatus>> {
        self.leash = None;
        rustix::io::retry_on_intr(|| waitid(WaitId::PidFd(self.pidfd.as_fd()), options))
    }
}

impl Drop for Scout {
    fn drop(&mut self) {
        // ECHILD: somebody else has reaped it.
        let _ = self.end(WaitIdOptions::EXITED);
    }
}

/// What the child does; its exit status is the errno of what failed.
fn wait_there(namespace: RawFd, reports: RawFd, waits_on: RawFd, not_its: RawFd) -> ! {
    let failed = || c_int::from(u8::try_from(last_errno().raw_os_error()).unwrap_or(u8::MAX));
    // SAFETY: its own copy of a descriptor, which nothing in this process uses.
    unsafe { libc::close(not_its) };
    // SAFETY: takes a descriptor and a flag.
    let status = if unsafe { libc::setns(namespace, libc::CLONE_NEWUSER) } == 0 { 0 } else { failed() };
    let mut byte = [0_u8; 1];
    if status == 0 {
        // SAFETY: one byte of `byte` is read, which is one byte long.
        unsafe { libc::write(reports, byte.as_ptr().cast(), 1) };
        // SAFETY: one byte at most is written to `byte`, which is one byte long.
        unsafe { libc::read(waits_on, byte.as_mut_ptr().cast(), 1) };
    }
    // SAFETY: _exit(2) takes a number and does not return.
    unsafe { libc::_exit(status) }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
