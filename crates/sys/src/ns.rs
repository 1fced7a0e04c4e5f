//! Questions to a namespace descriptor (ioctl_nsfs(2)).

use std::num::NonZeroU32;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::io::{Errno, Result};

use crate::last_errno;

/// The parent of a pid or user namespace.
///
/// Errors: EPERM: it lies outside the caller's own namespace, or there is none.
/// Source: ioctl_nsfs(2), `NS_GET_PARENT`, Linux 4.9. Unsafe because the kernel answers with a bare descriptor number.
pub fn parent(namespace: impl AsFd) -> Result<OwnedFd> {
    // SAFETY: the descriptor is borrowed, so it stays open; NS_GET_PARENT takes no argument and touches no memory.
    let answer = unsafe { libc::ioctl(namespace.as_fd().as_raw_fd(), libc::NS_GET_PARENT) };
    let fd = checked(answer)?;
    // SAFETY: the call succeeded, so `fd` is a new open descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The number that a task has in the caller's pid namespace, given its number in `namespace`.
///
/// Errors: ESRCH: no such task, or it is not visible to the caller. ENOTTY: a kernel before 6.11.
/// Source: fs/nsfs.c, `NS_GET_PID_FROM_PIDNS`.
pub fn pid_from(namespace: impl AsFd, pid: NonZeroU32) -> Result<NonZeroU32> {
    translate(namespace, libc::NS_GET_PID_FROM_PIDNS, pid)
}

/// The number that a task has in `namespace`, given its number in the caller's pid namespace.
///
/// Errors: ESRCH: no such task, or it is not visible in `namespace`. ENOTTY: a kernel before 6.11.
/// Source: fs/nsfs.c, `NS_GET_PID_IN_PIDNS`.
pub fn pid_in(namespace: impl AsFd, pid: NonZeroU32) -> Result<NonZeroU32> {
    translate(namespace, libc::NS_GET_PID_IN_PIDNS, pid)
}

/// The user namespace that owns a namespace.
///
/// Errors: EPERM: it lies outside the caller's own user namespace.
/// Source: ioctl_nsfs(2), `NS_GET_USERNS`, Linux 4.9. Unsafe because the kernel answers with a bare descriptor number.
pub fn owner(namespace: impl AsFd) -> Result<OwnedFd> {
    // SAFETY: the descriptor is borrowed, so it stays open; NS_GET_USERNS takes no argument and touches no memory.
    let answer = unsafe { libc::ioctl(namespace.as_fd().as_raw_fd(), libc::NS_GET_USERNS) };
    let fd = checked(answer)?;
    // SAFETY: the call succeeded, so `fd` is a new open descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The user who made a user namespace, by the caller's numbers; 65534 if the caller has none for it.
///
/// Errors: EINVAL: it is no user namespace.
/// Source: ioctl_nsfs(2), `NS_GET_OWNER_UID`, Linux 4.11. Why unsafe: the kernel writes into memory that it is given the
/// address of.
pub fn maker(namespace: impl AsFd) -> Result<u32> {
    let mut uid: libc::uid_t = 0;
    let fd = namespace.as_fd().as_raw_fd();
    // SAFETY: the descriptor is borrowed, so it stays open; the kernel writes one uid_t to `uid`, which lives until the
    // call returns.
    let answer = unsafe { libc::ioctl(fd, libc::NS_GET_OWNER_UID, &raw mut uid) };
    checked(answer).map(|_| uid)
}

/// Moves the calling process into new namespaces; of a new pid namespace only its children are.
///
/// Errors: EINVAL: a flag that makes no namespace. EPERM, ENOSPC, EUSERS: the kernel's.
/// Source: unshare(2). Why unsafe: with other flags (files) the call could take descriptors from under other threads.
pub fn unshare(namespaces: u32) -> Result<()> {
    if namespaces & !crate::clone::NEW_NAMESPACES != 0 {
        return Err(Errno::INVAL);
    }
    let flags = i32::try_from(namespaces).map_err(|_| Errno::INVAL)?;
    // SAFETY: the flags are those of namespaces, so the call touches neither memory nor descriptors.
    checked(unsafe { libc::unshare(flags) }).map(|_| ())
}

fn translate(namespace: impl AsFd, request: libc::Ioctl, pid: NonZeroU32) -> Result<NonZeroU32> {
    let fd = namespace.as_fd().as_raw_fd();
    // SAFETY: the descriptor is borrowed, so it stays open; both requests take the number by value and touch no memory.
    let answer = unsafe { libc::ioctl(fd, request, libc::c_ulong::from(pid.get())) };
    u32::try_from(checked(answer)?).ok().and_then(NonZeroU32::new).ok_or(Errno::SRCH)
}

fn checked(answer: libc::c_int) -> Result<libc::c_int> {
    if answer >= 0 {
        return Ok(answer);
    }
    Err(last_errno())
}
