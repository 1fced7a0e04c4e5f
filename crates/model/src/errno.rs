//! The error numbers that a v1 interface gives. Only an error's `errno()` names one.

/// An error number of the kernel's user interface (errno.h).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u16)]
#[expect(missing_docs, reason = "the names are errno.h's")]
pub enum Errno {
    EPERM = 1,
    ENOENT = 2,
    ESRCH = 3,
    EINTR = 4,
    EIO = 5,
    E2BIG = 7,
    EBADF = 9,
    EAGAIN = 11,
    ENOMEM = 12,
    EACCES = 13,
    EBUSY = 16,
    EEXIST = 17,
    ENODEV = 19,
    ENOTDIR = 20,
    EISDIR = 21,
    EINVAL = 22,
    ENOSPC = 28,
    ERANGE = 34,
    ENAMETOOLONG = 36,
    ENODATA = 61,
    EOVERFLOW = 75,
    EOPNOTSUPP = 95,
    EDQUOT = 122,
}

impl Errno {
    /// The number, as a system call reports it (positive).
    pub const fn code(self) -> i32 {
        self as i32
    }
}
