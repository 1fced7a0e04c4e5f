//! A filter of system calls, as a container has one: seccomp(2). For tests of what is said when a call is not let through.

use std::ptr;

use rustix::io::{Errno, Result};

use crate::last_errno;

/// From now on a system call of this process, and of its children, fails with `errno`. There is no way back.
///
/// Errors: EACCES: no CAP_SYS_ADMIN, and privileges could be gained by executing. Source: seccomp(2),
/// `SECCOMP_SET_MODE_FILTER`. Why unsafe: the kernel is given the address of a program. Numbers are those of the machine's own
/// calls; what calls it by another architecture's is filtered by the same numbers.
pub fn forbid(call: u32, errno: Errno) -> Result<()> {
    const SET_MODE_FILTER: libc::c_uint = 1;
    const ERRNO: u32 = 0x0005_0000;
    const ALLOW: u32 = 0x7fff_0000;
    let instruction = |code, jt, k| libc::sock_filter { code, jt, jf: u8::from(code == 0x15), k };
    let mut code = [
        instruction(0x20, 0, 0), // the number of the call
        instruction(0x15, 0, call),
        instruction(0x06, 0, ERRNO | errno.raw_os_error().unsigned_abs()),
        instruction(0x06, 0, ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: code.as_mut_ptr() };
    // SAFETY: `program` is live and says where its four instructions are, which are borrowed until the call returns; the kernel
    // copies them.
    match unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, 0, ptr::from_ref(&program)) } {
        0 => Ok(()),
        _ => Err(last_errno()),
    }
}
