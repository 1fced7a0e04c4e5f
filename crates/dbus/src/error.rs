//! A refused call: `org.pinfold.Error.EBUSY` and its kin, with the realm's message.

use pinfold_model::Errno;
use pinfold_realm::{Requester, chain};
use zbus::message::{Header, Message};
use zbus::names::ErrorName;

/// What every error's name starts with.
const PREFIX: &str = "org.pinfold.Error.";

/// Why a call was refused: the name of an errno, and what was wrong with what.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The D-Bus error name: the prefix and the errno's name (`EBUSY`).
    name: String,
    /// What was wrong with what.
    message: String,
}

impl Refusal {
    /// The refusal that goes by an errno's name, for the reason given.
    pub fn new(errno: impl std::fmt::Debug, message: impl std::fmt::Display) -> Self {
        Self { name: format!("{PREFIX}{errno:?}"), message: message.to_string() }
    }

    /// The refusal of what a requester asked for. The host's root is told every cause; others are not told how the daemon does things,
    /// nor on what: paths and numbers of the host, names of groups above their own. For them the causes are in the log.
    pub(crate) fn because(
        requester: &Requester,
        errno: Errno,
        what: impl std::fmt::Display,
        error: &dyn std::error::Error,
    ) -> Self {
        let whole = format!("{what}: {}", chain(error));
        if requester.is_host_root() {
            return Self::new(errno, whole);
        }
        match errno {
            Errno::EIO => tracing::warn!("refused: {errno:?}: {whole}"),
            _ => tracing::debug!("refused: {errno:?}: {whole}"),
        }
        Self::new(errno, format!("{what}: {error}"))
    }

    /// The refusal that a D-Bus error of this name stands for; `None` if it is not one of pinfold's.
    pub(crate) fn from_wire(name: &str, message: &str) -> Option<Self> {
        name.starts_with(PREFIX).then(|| Self { name: name.to_owned(), message: message.to_owned() })
    }

    /// What was wrong with what.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// The errno's name, as in errno.h.
    pub fn errno(&self) -> &str {
        &self.name[PREFIX.len()..]
    }
}

impl std::fmt::Display for Refusal {
    /// The message, with the errno's name at the end of its first line; hints follow below.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (first, hint) = self.message.split_at(self.message.find('\n').unwrap_or(self.message.len()));
        write!(f, "{first} ({}){hint}", self.errno())
    }
}

impl std::error::Error for Refusal {}

impl zbus::DBusError for Refusal {
    fn create_reply(&self, call: &Header<'_>) -> zbus::Result<Message> {
        Message::error(call, self.name()).build(&self.message)
    }

    fn name(&self) -> ErrorName<'_> {
        ErrorName::from_str_unchecked(&self.name)
    }

    fn description(&self) -> Option<&str> {
        Some(&self.message)
    }
}
