//! Why a write is refused, and the parsers that several controllers share.

use pinfold_model::Errno;

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
    /// The file is not written.
    #[error("{file} is read-only")]
    ReadOnly {
        /// The file's full name.
        file: String,
    },
}

impl WriteError {
    /// The errno Linux gives: kstrtoll() for the number's form, each controller's write function for its range.
    pub const fn errno(&self) -> Errno {
        match self {
            Self::Syntax { .. } | Self::OutOfRange { .. } | Self::ReadOnly { .. } => Errno::EINVAL,
            Self::Overflow { .. } => Errno::ERANGE,
        }
    }
}
