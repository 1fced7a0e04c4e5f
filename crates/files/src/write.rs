//! What a write asks for, why it is refused, and the parsers that several controllers share.

use pinfold_model::{Errno, Limit, Pid};

use crate::lookup::{FileId, file, full_name};
use crate::notice::{Registration, parse_registration};
use crate::number::{NumberError, c_string, kstrtoint, kstrtoll, kstrtoull, strstrip};
use crate::sight::Sight;
use crate::table::{Change, Ids, Write};

/// Why a write to a control file is refused. Nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WriteError {
    /// The text is not in the file's grammar.
    #[error("{text:?} is not {expected}")]
    Syntax {
        /// What was written, shortened.
        text: String,
        /// What the file takes.
        expected: &'static str,
    },
    /// A number that no 64 bits hold.
    #[error("{text:?} does not fit in 64 bits")]
    Overflow {
        /// What was written, shortened.
        text: String,
    },
    /// A number outside the file's range.
    #[error("{value} is not within {range}")]
    OutOfRange {
        /// What was written.
        value: i128,
        /// What the file takes.
        range: &'static str,
    },
    /// A number outside the file's range, which is ERANGE for this file.
    #[error("{value} is not within {least} to {most}")]
    Outside {
        /// What was written.
        value: u64,
        /// The least it takes.
        least: u64,
        /// The most it takes.
        most: u64,
    },
    /// The root group has no limit to set.
    #[error("the root group's {0} is not written")]
    Root(&'static str),
    /// cgroup v2 has nothing to do it with.
    #[error("cgroup v2 cannot {0}")]
    Impossible(&'static str),
    /// Only a group without child groups takes it.
    #[error("{0} in a group without child groups only")]
    HasChildren(&'static str),
    /// A group's parent does not have what it asks for.
    #[error("the group above does not allow it")]
    BeyondParent,
    /// No network interface has this name.
    #[error("no network interface is called {0:?}")]
    NoInterface(String),
    /// The file is not written.
    #[error("{file} is read-only")]
    ReadOnly {
        /// The file's full name.
        file: String,
    },
    /// A number that no 32 bits hold.
    #[error("{text:?} has a number that does not fit in 32 bits")]
    Overflow32 {
        /// What was written, shortened.
        text: String,
    },
    /// A number that is none of those there could be.
    #[error("{text:?} has a number above {most}, the last there could be")]
    Beyond {
        /// What was written, shortened.
        text: String,
        /// The highest number.
        most: u32,
    },
    /// It does not go together with what other groups have.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// More than the file takes in one write.
    #[error("{length} bytes are too many: {file} takes at most {longest} in one write")]
    TooLong {
        /// The file's full name.
        file: String,
        /// How much was written.
        length: usize,
        /// How much it takes.
        longest: usize,
    },
}

impl WriteError {
    /// The errno Linux gives: kstrtoll() for the number's form, each controller's write function for its range,
    /// kernfs_fop_write_iter() for the length, cgroup_file_write() for a file that is not written.
    pub const fn errno(&self) -> Errno {
        match self {
            Self::Syntax { .. }
            | Self::OutOfRange { .. }
            | Self::Root(_)
            | Self::HasChildren(_)
            | Self::ReadOnly { .. } => Errno::EINVAL,
            Self::BeyondParent => Errno::EPERM,
            Self::NoInterface(_) => Errno::ENODEV,
            Self::Impossible(_) => Errno::EOPNOTSUPP,
            Self::Overflow { .. } | Self::Beyond { .. } | Self::Outside { .. } => Errno::ERANGE,
            Self::Overflow32 { .. } => Errno::EOVERFLOW,
            Self::Conflict(conflict) => conflict.errno(),
            Self::TooLong { .. } => Errno::E2BIG,
        }
    }

    pub(crate) fn syntax(text: &[u8], expected: &'static str) -> Self {
        Self::Syntax { text: shortened(text), expected }
    }

    pub(crate) fn overflow_u32(text: &[u8]) -> Self {
        Self::Overflow32 { text: shortened(text) }
    }

    /// A number is not below `size`.
    pub(crate) fn beyond(text: &[u8], size: u32) -> Self {
        Self::Beyond { text: shortened(text), most: size.saturating_sub(1) }
    }

    fn number(text: &[u8], expected: &'static str, error: NumberError) -> Self {
        match error {
            NumberError::Form => Self::syntax(text, expected),
            NumberError::Overflow => Self::Overflow { text: shortened(text) },
        }
    }
}

/// Why a value does not go together with what other groups have, or with the group's processes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Conflict {
    /// The root's is the machine's.
    #[error("the root group has what the machine has")]
    Root,
    /// The group above has less.
    #[error("the group above has not all of it")]
    Above,
    /// A group below has more.
    #[error("a group below has more")]
    Below,
    /// Another group below the same one has it too, and one of both is exclusive.
    #[error("a neighbour has some of it, and one of both is exclusive")]
    Beside,
    /// There are processes that need it.
    #[error("the group, or one below it, has processes")]
    Occupied,
}

impl Conflict {
    /// The errno Linux gives: update_cpumask(), update_nodemask(), validate_change().
    pub const fn errno(self) -> Errno {
        match self {
            Self::Root | Self::Above => Errno::EACCES,
            Self::Below => Errno::EBUSY,
            Self::Beside => Errno::EINVAL,
            Self::Occupied => Errno::ENOSPC,
        }
    }
}

/// Why a controller does not let a process into a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AttachRefusal {
    /// The process would have nothing to run on, or no memory.
    #[error("{0} of the group is empty\nwrite it first")]
    Empty(&'static str),
}

impl AttachRefusal {
    /// The errno Linux gives: cpuset_can_attach().
    pub const fn errno(self) -> Errno {
        match self {
            Self::Empty(_) => Errno::ENOSPC,
        }
    }
}

/// What a write means, parsed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// Attach a task or a process.
    Attach(Ids, AttachTarget),
    /// Tell somebody of something.
    Register(Registration),
    /// Change what the group keeps.
    Change(Change),
}

/// Which task or process a write to `tasks` or `cgroup.procs` names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AttachTarget {
    /// Whoever writes: it wrote 0.
    Writer,
    /// The one with this id in the writer's pid namespace.
    Id(Pid),
}

/// Checks the length of a write. The kernel does so before anything else, the writer's rights included.
pub fn check_length(id: FileId, length: usize) -> Result<(), WriteError> {
    let longest = file(id).1.longest;
    if length > longest {
        return Err(WriteError::TooLong { file: full_name(id, false).into_owned(), length, longest });
    }
    Ok(())
}

/// What one write to a file means. An empty write means nothing: the kernel does not even look at it.
pub fn parse_write(id: FileId, sight: &Sight<'_>, data: &[u8]) -> Result<Request, WriteError> {
    check_length(id, data.len())?;
    if data.is_empty() {
        return Ok(Request::Change(Change::Nothing));
    }
    match file(id).1.write {
        Write::Refused => Err(WriteError::ReadOnly { file: full_name(id, false).into_owned() }),
        Write::Attach(ids) => Ok(Request::Attach(ids, parse_attach(ids, data)?)),
        Write::Register => Ok(Request::Register(parse_registration(data)?)),
        Write::Parsed(parse) => Ok(Request::Change(parse(sight, data)?)),
    }
}

/// Which task or process is meant: cgroup_procs_write_start(). Unlike elsewhere, a number too large is EINVAL too.
pub fn parse_attach(ids: Ids, data: &[u8]) -> Result<AttachTarget, WriteError> {
    let expected = match ids {
        Ids::Tasks => "the id of a task",
        Ids::Processes => "the id of a process",
    };
    let text = strstrip(c_string(data));
    let refused = |_| WriteError::syntax(text, expected);
    let number = kstrtoint(text).map_err(refused)?;
    let number = u32::try_from(number).map_err(|_| WriteError::syntax(text, expected))?;
    Ok(Pid::new(number).map_or(AttachTarget::Writer, AttachTarget::Id))
}

/// A number as cgroup_file_write() reads it for files with a `write_u64` function: no white space but one newline.
pub(crate) fn parse_u64(data: &[u8]) -> Result<u64, WriteError> {
    parse_bare_u64(c_string(data))
}

/// A number that kstrtou64() reads out of a text.
pub(crate) fn parse_bare_u64(text: &[u8]) -> Result<u64, WriteError> {
    kstrtoull(text).map_err(|error| WriteError::number(text, "a number without sign", error))
}

/// On for any number but 0.
pub(crate) fn parse_flag(data: &[u8]) -> Result<bool, WriteError> {
    parse_u64(data).map(|number| number != 0)
}

/// Refuses a write to a file of a root group.
pub(crate) fn below_root(sight: &Sight<'_>, file: &'static str) -> Result<(), WriteError> {
    if sight.is_root() { Err(WriteError::Root(file)) } else { Ok(()) }
}

/// The text that a `write` function sees after strstrip().
pub(crate) fn stripped(data: &[u8]) -> &[u8] {
    strstrip(c_string(data))
}

/// A number as a `write` function reads it that calls kstrtoll() after strstrip().
pub(crate) fn parse_i64(text: &[u8], expected: &'static str) -> Result<i64, WriteError> {
    kstrtoll(text).map_err(|error| WriteError::number(text, expected, error))
}

/// `max`, or a number from 0 to the most that there may be.
pub(crate) fn parse_max(
    text: &[u8],
    expected: &'static str,
    most: i64,
    range: &'static str,
) -> Result<Limit, WriteError> {
    if text == b"max" {
        return Ok(Limit::Max);
    }
    match parse_i64(text, expected)? {
        value if (0..=most).contains(&value) => Ok(Limit::At(value.unsigned_abs())),
        value => Err(WriteError::OutOfRange { value: value.into(), range }),
    }
}

/// The start of a text, for a message.
fn shortened(text: &[u8]) -> String {
    const MOST: usize = 40;
    let start = String::from_utf8_lossy(&text[..text.len().min(MOST)]);
    if text.len() > MOST { format!("{start}...") } else { start.into_owned() }
}
