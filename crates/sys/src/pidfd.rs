//! Questions to a process descriptor (ioctl on a pidfd).

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::{Errno, Result};

use crate::last_errno;

/// What the kernel says of a process. Users are those of the caller's user namespace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Info {
    /// The real user.
    pub real: u32,
    /// The effective user.
    pub effective: u32,
    /// The saved user.
    pub saved: u32,
    /// Its cgroup in the v2 tree: what stat(2) gives as the directory's inode number on 64-bit machines.
    pub cgroup: Option<u64>,
}

const _: () = assert!(size_of::<libc::pidfd_info>() == libc::PIDFD_INFO_SIZE_VER0 as usize);

/// Whose a process is, and where.
///
/// Errors: ESRCH: it was reaped. EREMOTE, ESRCH: it is not visible in the caller's pid namespace. ENOTTY or EINVAL: a
/// kernel before 6.13.
/// Source: fs/pidfs.c, `PIDFD_GET_INFO`. Why unsafe: the kernel writes into memory that it is given the address of.
pub fn info(pidfd: impl AsFd) -> Result<Info> {
    let mut info = MaybeUninit::<libc::pidfd_info>::zeroed();
    // SAFETY: the struct is made of integers, for which zero is a value.
    let asked = unsafe { info.assume_init_mut() };
    asked.mask = u64::from(libc::PIDFD_INFO_CREDS | libc::PIDFD_INFO_CGROUPID);
    let fd = pidfd.as_fd().as_raw_fd();
    // SAFETY: the descriptor is borrowed, so it stays open; the request's number holds the size of the struct, and the
    // kernel writes no more than that into `asked`, which lives until the call returns.
    let answer = unsafe { libc::ioctl(fd, libc::PIDFD_GET_INFO, &raw mut *asked) };
    if answer < 0 {
        return Err(last_errno());
    }
    let says = |what: libc::c_uint| asked.mask & u64::from(what) != 0;
    if !says(libc::PIDFD_INFO_CREDS) {
        return Err(Errno::SRCH); // only what is left of a reaped process
    }
    Ok(Info {
        real: asked.ruid,
        effective: asked.euid,
        saved: asked.suid,
        cgroup: says(libc::PIDFD_INFO_CGROUPID).then_some(asked.cgroupid),
    })
}
