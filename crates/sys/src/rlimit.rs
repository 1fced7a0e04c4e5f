//! Resource limits of other processes (prlimit(2)): asking only. Setting is rustix's.

use std::mem::MaybeUninit;

use rustix::io::Result;
use rustix::process::Pid;

use crate::last_errno;

/// The soft and the hard limit on open descriptors of a process (RLIMIT_NOFILE).
///
/// Errors: ESRCH: there is no such process. EPERM: it is another user's, and the caller lacks CAP_SYS_RESOURCE.
/// Source: kernel/sys.c, prlimit64(). Why unsafe: the kernel writes into memory that it is given the address of.
pub fn descriptors(process: Pid) -> Result<(u64, u64)> {
    let mut found = MaybeUninit::<libc::rlimit64>::zeroed();
    let pid = process.as_raw_nonzero().get();
    // SAFETY: without a new limit nothing is read from this process; `found` has room for the old one, of which the kernel
    // writes no more than that, and lives until the call returns.
    let answer = unsafe { libc::prlimit64(pid, libc::RLIMIT_NOFILE, std::ptr::null(), found.as_mut_ptr()) };
    if answer < 0 {
        return Err(last_errno());
    }
    // SAFETY: the struct is made of integers, for which zero is a value, and the kernel has filled it in.
    let found = unsafe { found.assume_init() };
    Ok((found.rlim_cur, found.rlim_max))
}
