//! Replacing a freshly forked child by a program, to the letter.

use std::ffi::{CString, c_char};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;

use rustix::fs::Mode;
use rustix::process::Resource;

use crate::last_errno;

/// What execve(2) is given.
pub struct Image {
    /// The file to execute; never searched for.
    pub file: CString,
    /// All arguments, the zeroth included.
    pub arguments: Vec<CString>,
    /// The whole environment.
    pub environment: Vec<CString>,
}

/// How many arguments, and how many variables, an [`Image`] may have.
pub const MOST_STRINGS: usize = 15;

/// The soft limit on descriptors that [`exactly`] gives, which programs that use select(2) need to be that low.
///
/// Source: include/uapi/linux/fs.h, INR_OPEN_CUR: what the kernel gives to what it starts.
const SOFT_LIMIT: u64 = 1024;

/// Makes `command`'s child a session leader with this file mode mask and that limit, and execve(2) exactly `image` with descriptors 0
/// to 2 only, after `command` has arranged these and the directory. The standard library alone would search `PATH`,
/// hand a file without an interpreter line to the shell, and pass on what the caller inherited.
///
/// Errors: `InvalidInput`: more than [`MOST_STRINGS`] arguments or variables. What execve(2) answers comes from
/// [`Command::spawn`].
/// Why unsafe: code between fork and exec runs in a copy of one thread of many.
pub fn exactly(command: &mut Command, umask: Mode, image: Image) -> io::Result<()> {
    if image.arguments.len() > MOST_STRINGS || image.environment.len() > MOST_STRINGS {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let in_child = move || {
        rustix::process::setsid()?;
        rustix::process::umask(umask);
        let mut limit = rustix::process::getrlimit(Resource::Nofile);
        limit.current = Some(limit.current.unwrap_or(SOFT_LIMIT).min(SOFT_LIMIT));
        rustix::process::setrlimit(Resource::Nofile, limit)?;
        seal_descriptors()?;
        Err(replace(&image))
    };
    // SAFETY: the closure only makes system calls (setsid, umask, prlimit64, close_range,
    // execve) and reads memory that was filled before the
    // fork: it allocates nothing and takes no lock, which another thread may have held at the fork.
    unsafe { command.pre_exec(in_child) };
    Ok(())
}

/// Makes the calling process execute exactly `image`, of any length, with descriptors 0 to 2 only, and with the default
/// action for SIGPIPE, which the standard library has taken away. `last` is called when nothing needs memory any more.
/// Returns only to say why it failed.
///
/// Errors: what `last` gives; those of close_range(2) and execve(2). Why unsafe: the kernel is given arrays of addresses,
/// and a disposition of a signal.
pub fn become_image(image: &Image, last: impl FnOnce() -> rustix::io::Result<()>) -> rustix::io::Errno {
    let end = [ptr::null::<c_char>()];
    let arguments: Vec<_> = image.arguments.iter().map(|string| string.as_ptr()).chain(end).collect();
    let environment: Vec<_> = image.environment.iter().map(|string| string.as_ptr()).chain(end).collect();
    if let Err(errno) = seal_descriptors().and_then(|()| last()) {
        return errno;
    }
    // SAFETY: the default disposition runs no code of this process.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    // SAFETY: `file` and every string end in a null byte and outlive the call (`image` is borrowed); both arrays end in a
    // null pointer.
    unsafe { libc::execve(image.file.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    last_errno()
}

/// Gives SIGCHLD its default action, which a program that ignores it hands on to those that it executes.
///
/// Why unsafe: a disposition of a signal. Source: wait(2), "SIGCHLD"; kernel/signal.c `do_notify_parent()`.
pub fn default_child_signal() {
    // SAFETY: the default disposition runs no code of this process.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// Lets descriptors from 3 on close when the child executes. close_range(2), Linux 5.11.
fn seal_descriptors() -> rustix::io::Result<()> {
    let flags = libc::CLOSE_RANGE_CLOEXEC as libc::c_int;
    // SAFETY: the call touches no memory, and with this flag it closes nothing now: no owner loses its descriptor.
    match unsafe { libc::close_range(3, libc::c_uint::MAX, flags) } {
        0 => Ok(()),
        _ => Err(last_errno()),
    }
}

/// execve(2); returns only if it failed. Runs between fork and exec: no allocation, no lock.
fn replace(image: &Image) -> io::Error {
    let mut arguments = [ptr::null::<c_char>(); MOST_STRINGS + 1];
    let mut environment = [ptr::null::<c_char>(); MOST_STRINGS + 1];
    for (place, string) in arguments.iter_mut().zip(&image.arguments) {
        *place = string.as_ptr();
    }
    for (place, string) in environment.iter_mut().zip(&image.environment) {
        *place = string.as_ptr();
    }
    // SAFETY: `file` and every string end in a null byte and outlive the call (`image` is borrowed); both arrays end
    // in a null pointer, since they are one longer than the most strings there can be.
    unsafe { libc::execve(image.file.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}
