//! The name of a group within its parent.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

use crate::Errno;

/// The longest name, in bytes: what every file system that may hold the state directory accepts.
pub const NAME_MAX: usize = 255;

/// A group's name: bytes, not empty, no `/`, no newline, not `.` or `..`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<[u8]>);

/// Why bytes are not a group's name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NameError {
    /// An empty name, `.` or `..`, or one with a slash or a null byte: no path component.
    #[error("not the name of a group: empty, `.`, `..`, or with a slash in it")]
    NotAComponent,
    /// A newline would make `/proc/PID/cgroup` unparsable.
    #[error("a group's name may not contain a newline")]
    Newline,
    /// Longer than [`NAME_MAX`].
    #[error("a group's name has at most {NAME_MAX} bytes")]
    TooLong,
}

impl NameError {
    /// The errno Linux gives: cgroup_mkdir() for the newline, the path walk for the others.
    pub const fn errno(self) -> Errno {
        match self {
            Self::NotAComponent | Self::Newline => Errno::EINVAL,
            Self::TooLong => Errno::ENAMETOOLONG,
        }
    }
}

impl Name {
    /// Checks a name once, so that it can be trusted from here on.
    pub fn new(name: &OsStr) -> Result<Self, NameError> {
        let bytes = name.as_bytes();
        if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.iter().any(|b| matches!(b, b'/' | 0))
        {
            return Err(NameError::NotAComponent);
        }
        if bytes.contains(&b'\n') {
            return Err(NameError::Newline);
        }
        if bytes.len() > NAME_MAX {
            return Err(NameError::TooLong);
        }
        Ok(Self(bytes.into()))
    }

    /// The name as a path component.
    pub fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(&self.0)
    }
}

impl std::borrow::Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.escape_ascii().fmt(f)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({self})")
    }
}
