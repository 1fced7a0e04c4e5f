//! What one step of a script gave: lines for the transcript, or an errno by its name.

use rustix::io::Errno;
use std::io;

/// What an operation gave.
pub(super) type Outcome = Result<Vec<String>, Failure>;

/// Why an operation gave no lines.
#[derive(Debug)]
pub(super) enum Failure {
    /// The kernel's (or pinfold's) answer: part of the transcript.
    Errno(Errno),
    /// The errno of an open that was not what the step is about: part of the transcript, and told apart there.
    Open(Errno),
    /// The script or the machine is wrong: the run ends.
    Script(String),
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(errno) => Self::Errno(errno),
            None => Self::Script(error.to_string()),
        }
    }
}

/// The line of an operation that has nothing to show.
pub(super) fn done() -> Outcome {
    Ok(vec!["ok".to_owned()])
}

/// A failure of the script itself.
pub(super) fn wrong<T>(message: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::Script(message.into()))
}

/// The transcript's lines for an outcome; a wrong script has none.
pub(super) fn lines(outcome: Outcome) -> Result<Vec<String>, String> {
    match outcome {
        Ok(lines) => Ok(lines),
        Err(Failure::Errno(errno)) => Ok(vec![name(errno)]),
        Err(Failure::Open(errno)) => Ok(vec![format!("open: {}", name(errno))]),
        Err(Failure::Script(message)) => Err(message),
    }
}

/// The errno's name as in errno(3), or its number if it has none here.
pub(super) fn name(errno: Errno) -> String {
    match NAMES.iter().find(|(known, _)| *known == errno) {
        Some((_, name)) => (*name).to_owned(),
        None => format!("errno {}", errno.raw_os_error()),
    }
}

/// The first errno that a message names, as a word (`EBUSY`) or as Rust prints it (`os error 16`).
pub(super) fn named_in(message: &str) -> Option<Errno> {
    let number =
        message.split("os error ").nth(1).map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
    if let Some(Ok(raw)) = number.flatten().map(str::parse) {
        return Some(Errno::from_raw_os_error(raw));
    }
    let mut words = message.split(|c: char| !c.is_ascii_alphanumeric());
    words.find_map(|word| NAMES.iter().find(|(_, name)| *name == word)).map(|(errno, _)| *errno)
}

macro_rules! names {
    ($($long:ident = $short:literal),* $(,)?) => { &[$((Errno::$long, $short)),*] };
}

const NAMES: &[(Errno, &str)] = names![
    PERM = "EPERM",
    NOENT = "ENOENT",
    SRCH = "ESRCH",
    INTR = "EINTR",
    IO = "EIO",
    NXIO = "ENXIO",
    TOOBIG = "E2BIG",
    BADF = "EBADF",
    AGAIN = "EAGAIN",
    NOMEM = "ENOMEM",
    ACCESS = "EACCES",
    FAULT = "EFAULT",
    BUSY = "EBUSY",
    EXIST = "EEXIST",
    XDEV = "EXDEV",
    NODEV = "ENODEV",
    NOTDIR = "ENOTDIR",
    ISDIR = "EISDIR",
    INVAL = "EINVAL",
    MFILE = "EMFILE",
    NOTTY = "ENOTTY",
    FBIG = "EFBIG",
    NOSPC = "ENOSPC",
    SPIPE = "ESPIPE",
    ROFS = "EROFS",
    MLINK = "EMLINK",
    PIPE = "EPIPE",
    RANGE = "ERANGE",
    NAMETOOLONG = "ENAMETOOLONG",
    NOSYS = "ENOSYS",
    NOTEMPTY = "ENOTEMPTY",
    LOOP = "ELOOP",
    NODATA = "ENODATA",
    OVERFLOW = "EOVERFLOW",
    OPNOTSUPP = "EOPNOTSUPP",
    NOTCONN = "ENOTCONN",
    STALE = "ESTALE",
    TIMEDOUT = "ETIMEDOUT",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errno_is_found_in_a_message_by_name_and_by_number() {
        for (message, errno) in [
            ("pinfold: cannot mount pids: Device or resource busy (os error 16)", Some(Errno::BUSY)),
            ("pinfold: pids is bound elsewhere (EBUSY)", Some(Errno::BUSY)),
            ("pinfold: no daemon", None),
        ] {
            assert_eq!(named_in(message), errno, "{message}");
        }
    }
}
