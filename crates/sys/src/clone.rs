//! Making a process with clone3(2): with chosen numbers, in new namespaces, in a control group from the start.

use std::ffi::c_int;
use std::mem::size_of_val;
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use rustix::io::{Errno, Result};

use crate::last_errno;

/// What clone3(2) is asked for. Memory, files and signal handlers are copied, as by fork(2).
#[derive(Clone, Copy, Default)]
pub struct Request<'a> {
    /// `CLONE_NEW*` flags; other flags are refused with EINVAL.
    pub namespaces: u32,
    /// `set_tid`: the numbers of the child, from its own (youngest) pid namespace outwards. Empty: the kernel chooses.
    pub set_tid: &'a [i32],
    /// The directory of the cgroup v2 group that the child is born in.
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// Which side of the call this is.
#[derive(Debug)]
pub enum Side {
    /// The new process.
    Child,
    /// The caller.
    Parent {
        /// The child's number in the caller's pid namespace.
        pid: NonZeroU32,
        /// The child. Closes when the caller executes a program.
        pidfd: OwnedFd,
    },
}

/// All flags that make a namespace.
pub const NEW_NAMESPACES: u32 = (libc::CLONE_NEWPID
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP) as u32;

/// `CLONE_INTO_CGROUP` of linux/sched.h (Linux 5.7). The libc crate truncates it to an int.
const INTO_CGROUP: u64 = 0x2_0000_0000;

/// clone3(2) for a caller with one thread: returns twice, as fork(2).
///
/// Errors: EDEADLK: the caller has other threads, of which the child would have no copy but all their locks. EINVAL: a flag
/// that makes no namespace. Everything else is the kernel's.
/// Source: clone3(2); kernel/fork.c, kernel/pid.c `alloc_pid()`.
/// Why unsafe: the kernel reads a structure of addresses; the child continues on a copy of this stack.
pub fn clone3(request: &Request<'_>) -> Result<Side> {
    if request.namespaces & !NEW_NAMESPACES != 0 {
        return Err(Errno::INVAL);
    }
    if !is_single_threaded() {
        return Err(Errno::DEADLK);
    }
    let mut pidfd: c_int = -1;
    let args = libc::clone_args {
        flags: u64::from(request.namespaces)
            | libc::CLONE_PIDFD as u64
            | request.cgroup.map_or(0, |_| INTO_CGROUP),
        pidfd: (&raw mut pidfd).expose_provenance() as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: libc::SIGCHLD as u64,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: if request.set_tid.is_empty() {
            0
        } else {
            request.set_tid.as_ptr().expose_provenance() as u64
        },
        set_tid_size: request.set_tid.len() as u64,
        cgroup: request.cgroup.map_or(0, |fd| u64::try_from(fd.as_raw_fd()).unwrap_or(u64::MAX)),
    };
    // SAFETY: `args` is a live `clone_args` and `size_of_val` is its length; `set_tid` points at as many numbers as
    // `set_tid_size` says, borrowed until the call returns; `pidfd` is live and may be written; the cgroup descriptor is
    // borrowed. Without CLONE_VM the child has its own copy of this stack, and as the caller has one thread, no lock in
    // the copy is held by anybody who is not there.
    let answer = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) };
    if answer < 0 {
        return Err(last_errno());
    }
    let Some(pid) = u32::try_from(answer).ok().and_then(NonZeroU32::new) else {
        return Ok(Side::Child);
    };
    // SAFETY: the call succeeded with CLONE_PIDFD, so the kernel has stored a new open descriptor that nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Side::Parent { pid, pidfd })
}

/// Whether clone3(2) gets to the kernel: asks for something that it always refuses, and gives back what the refusal is.
///
/// EINVAL is the kernel's own answer to a structure without a length; ENOSYS is an old kernel, and any other is a filter's.
/// Source: kernel/fork.c `copy_clone_args_from_user()`. Why unsafe: a bare system call.
pub fn refusal() -> Errno {
    // SAFETY: a length of 0 is below the first version's, which is checked before the (null) address is used.
    let answer = unsafe { libc::syscall(libc::SYS_clone3, ptr::null::<libc::clone_args>(), 0_usize) };
    if answer < 0 { last_errno() } else { Errno::IO }
}

/// Whether the calling process has one thread and shares its memory with nobody.
///
/// Source: unshare(2), `CLONE_THREAD`: no effect in a process with a single thread, EINVAL in others; kernel/fork.c
/// `check_unshare_flags()`. Why unsafe: a bare system call.
pub fn is_single_threaded() -> bool {
    // SAFETY: with these flags the call checks, and changes nothing.
    unsafe { libc::unshare(libc::CLONE_THREAD | libc::CLONE_VM) == 0 }
}

/// Ends the calling process at once: no destructor, no exit handler, no flush of what a parent will flush itself.
pub fn exit_now(status: u8) -> ! {
    // SAFETY: _exit(2) takes a number and does not return.
    unsafe { libc::_exit(c_int::from(status)) }
}
