//! From the numbers that system calls give to the ones that the model knows.

use pinfold_model::Errno;
use rustix::io::Errno as Raw;

/// The errno of this number, if the model knows it; EIO otherwise.
pub(crate) fn to_model(raw: Raw) -> Errno {
    match raw {
        Raw::PERM => Errno::EPERM,
        Raw::NOENT => Errno::ENOENT,
        Raw::SRCH => Errno::ESRCH,
        Raw::INTR => Errno::EINTR,
        Raw::TOOBIG => Errno::E2BIG,
        Raw::BADF => Errno::EBADF,
        Raw::AGAIN => Errno::EAGAIN,
        Raw::NOMEM => Errno::ENOMEM,
        Raw::ACCESS => Errno::EACCES,
        Raw::BUSY => Errno::EBUSY,
        Raw::EXIST => Errno::EEXIST,
        Raw::NODEV => Errno::ENODEV,
        Raw::NOTDIR => Errno::ENOTDIR,
        Raw::ISDIR => Errno::EISDIR,
        Raw::INVAL => Errno::EINVAL,
        Raw::NOSPC => Errno::ENOSPC,
        Raw::RANGE => Errno::ERANGE,
        Raw::NAMETOOLONG => Errno::ENAMETOOLONG,
        Raw::NODATA => Errno::ENODATA,
        Raw::OVERFLOW => Errno::EOVERFLOW,
        Raw::OPNOTSUPP => Errno::EOPNOTSUPP,
        _ => Errno::EIO,
    }
}
