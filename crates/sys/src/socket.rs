//! Socket options that rustix does not have.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::io::{Errno, Result};

/// A descriptor of the process that is at the other end of a Unix socket: who called connect(2), whatever number it had.
///
/// Errors: ENOPROTOOPT: a kernel before 6.5. ENODATA: there is no such process. ESRCH, EINVAL: it has been reaped.
/// Source: unix(7), `SO_PEERPIDFD`. Why unsafe: the kernel answers with a bare descriptor number, in memory that it is
/// given the address of.
pub fn peer_pidfd(socket: impl AsFd) -> Result<OwnedFd> {
    let mut fd: libc::c_int = -1;
    let mut length = libc::socklen_t::try_from(size_of_val(&fd)).map_err(|_| Errno::INVAL)?;
    // SAFETY: the socket is borrowed, so it stays open; `fd` and `length` live until the call returns, and `length` says
    // how much the kernel may write to `fd`.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERPIDFD,
            (&raw mut fd).cast(),
            &raw mut length,
        )
    };
    if answer < 0 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    if fd < 0 {
        return Err(Errno::BADF);
    }
    // SAFETY: the call succeeded, so `fd` is a new open descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
