//! The controlling terminal, where rustix has no call for it.

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Result;

use crate::last_errno;

/// Leaves the controlling terminal, which `terminal` is; other processes keep it, unless the caller leads the session.
///
/// Errors: ENOTTY: it is not the caller's. Source: ioctl_tty(2), `TIOCNOTTY`; drivers/tty/tty_jobctrl.c `no_tty()`.
/// Why unsafe: a bare ioctl(2), which with other requests writes memory.
pub fn leave(terminal: impl AsFd) -> Result<()> {
    // SAFETY: the descriptor is borrowed, so it stays open; TIOCNOTTY takes no argument and touches no memory.
    let answer = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCNOTTY) };
    if answer >= 0 {
        return Ok(());
    }
    Err(last_errno())
}
