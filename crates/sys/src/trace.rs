//! ptrace(2), as far as it takes to hold a process at the first instruction of the program that it executes.

use std::ffi::{c_int, c_long, c_ulong};
use std::ptr;

use rustix::io::Result;
use rustix::process::Pid;

use crate::last_errno;

/// How a tracee reports that it has executed a program: what `waitid(2)` gives as the signal that trapped it.
/// Source: ptrace(2), `PTRACE_O_TRACEEXEC`.
pub const EXECUTED: i32 = libc::SIGTRAP | (libc::PTRACE_EVENT_EXEC << 8);

/// Makes the caller the tracer of a process, which goes on, and stops when it has executed a program. It is let go when
/// the caller ends.
///
/// Errors: EPERM: the caller may not, or somebody else traces it. ESRCH. Source: ptrace(2), `PTRACE_SEIZE`.
/// Why unsafe: other requests of the same call write memory; this one is given numbers only.
pub fn seize(process: Pid) -> Result<()> {
    // SAFETY: PTRACE_SEIZE takes a null address and a mask of options, and touches no memory of the caller's.
    checked(unsafe {
        libc::ptrace(
            libc::PTRACE_SEIZE,
            process.as_raw_pid(),
            ptr::null_mut::<u8>(),
            c_ulong::from(libc::PTRACE_O_TRACEEXEC.unsigned_abs()),
        )
    })
}

/// Lets a stopped tracee go on, with the signal that it stopped for (0: none).
///
/// Errors: ESRCH: it is no tracee of the caller's that has stopped. Source: ptrace(2), `PTRACE_CONT`. Why unsafe: as [`seize`].
pub fn go_on(tracee: Pid, signal: c_int) -> Result<()> {
    // SAFETY: PTRACE_CONT ignores its address, takes a signal's number, and touches no memory of the caller's.
    checked(unsafe {
        libc::ptrace(
            libc::PTRACE_CONT,
            tracee.as_raw_pid(),
            ptr::null_mut::<u8>(),
            c_ulong::from(signal.unsigned_abs()),
        )
    })
}

/// Traces a stopped tracee no more: it goes on, and first to any signal that waits for it.
///
/// Errors: ESRCH, as [`go_on`]. Source: ptrace(2), `PTRACE_DETACH`. Why unsafe: as [`seize`].
pub fn let_go(tracee: Pid) -> Result<()> {
    // SAFETY: PTRACE_DETACH ignores its address, takes a signal's number (0: none), and touches no memory of the caller's.
    checked(unsafe {
        libc::ptrace(libc::PTRACE_DETACH, tracee.as_raw_pid(), ptr::null_mut::<u8>(), c_ulong::from(0_u8))
    })
}

fn checked(answer: c_long) -> Result<()> {
    if answer >= 0 {
        return Ok(());
    }
    Err(last_errno())
}
