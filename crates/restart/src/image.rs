//! The capture file: everything that is kept of a process tree, as JSON.
//!
//! `docs/capture.schema.json` is its schema, and docs/restart.md has that in words. A file says its version; a reader refuses
//! versions that it does not know, and fields that it does not know, since leaving one out would rebuild something else
//! than was captured.
//!
//! Out of scope: memory, open files, sockets, timers, the contents of mount namespaces. Programs start anew.

mod check;
mod text;
pub(crate) mod users;

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

pub(crate) use check::{NAMESPACES, USER};
pub use text::Text;
pub use users::{Range, UserNamespace};

use crate::tree::{ChildrenIn, PidNamespace, Process, Tree};

/// What [`Image::format`] says.
pub const FORMAT: &str = "pinfold-capture";
/// The version that this crate writes and reads.
pub const VERSION: u32 = 2;

/// A capture file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// `pinfold-capture`.
    pub format: String,
    /// The version of this form.
    pub version: u32,
    /// The kernel's release when it was captured.
    pub kernel: String,
    /// For each pid namespace, the index of the one it is nested in; `null` for the first, the capturer's own.
    pub pid_namespaces: Vec<Option<usize>>,
    /// The user namespaces beside the capturer's own: number `n` of a process is entry `n - 1`. Outer ones first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub user_namespaces: Vec<UserNamespace>,
    /// For each other kind, which user namespace owns number 1, 2, ...; a kind that is missing is the capturer's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub owners: BTreeMap<String, Vec<usize>>,
    /// The processes.
    pub processes: Vec<Captured>,
    /// The control groups, as whoever knows them describes them. Not read by this crate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
}

/// A control group that captured processes are in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Its name: `CONTROLLERS:PATH`.
    pub name: String,
    /// Its owner: user, group of users.
    pub owner: (u32, u32),
    /// The permission bits of its directory.
    pub mode: u16,
    /// Its settings: files, and what is written to each, in this order.
    pub settings: Vec<(String, String)>,
    /// Its processes: indices into [`Image::processes`].
    pub processes: Vec<usize>,
}

/// One process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Captured {
    /// Its numbers, from the oldest known pid namespace to its own.
    pub pids: Vec<u32>,
    /// Its pid namespace: an index into [`Image::pid_namespaces`].
    pub pid_namespace: usize,
    /// The pid namespace of its children, if it is not its own.
    #[serde(default, skip_serializing_if = "Nursery::is_own")]
    pub children_in: Nursery,
    /// Its parent: an index into [`Image::processes`]; `null`: outside.
    #[serde(deserialize_with = "said")]
    pub parent: Option<usize>,
    /// The numbers of its session; empty: outside.
    pub session: Vec<u32>,
    /// The numbers of its process group; empty: outside.
    pub group: Vec<u32>,
    /// The kernel's start time, in clock ticks since boot.
    pub started: u64,
    /// What only a living process has; `null` for a zombie.
    #[serde(deserialize_with = "said")]
    pub living: Option<Living>,
}

/// [`ChildrenIn`] in a file: `"own"`, `"fresh"`, or `{"namespace": 1}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Nursery {
    /// Its own.
    #[default]
    Own,
    /// Another.
    Namespace(usize),
    /// One without a process yet.
    Fresh,
}

impl Nursery {
    fn is_own(&self) -> bool {
        *self == Self::Own
    }
}

/// What a living process has beside its relations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Living {
    /// The file that it executes, seen from its own root.
    pub executable: Text,
    /// Its arguments, the zeroth included.
    pub arguments: Vec<Text>,
    /// Its environment, each entry as it is.
    pub environment: Vec<Text>,
    /// Its working directory, seen from its own root.
    pub directory: Text,
    /// Its root directory.
    pub root: Text,
    /// Its file mode mask.
    pub umask: u32,
    /// Who it is and what it may.
    pub credentials: Credentials,
    /// Its resource limits by the kernel's names (`nofile`): soft, hard; `null`: unlimited.
    pub limits: BTreeMap<String, (Option<u64>, Option<u64>)>,
    /// Its nice value.
    pub nice: i32,
    /// `oom_score_adj`.
    pub oom_score_adj: i32,
    /// The device number of its controlling terminal, if it has one.
    #[serde(deserialize_with = "said")]
    pub terminal: Option<u64>,
    /// Whether its process group is in the foreground of that terminal.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub foreground: bool,
    /// Whether it was stopped by a signal.
    pub stopped: bool,
    /// Its other namespaces by kind (`uts`, `ipc`, `net`, `mnt`, `cgroup`, `user`): equal numbers are shared; 0: the
    /// capturer's own.
    pub namespaces: BTreeMap<String, usize>,
    /// Its cgroup v2 path.
    pub cgroup: Text,
}

/// A value that may be `null`, but not missing: nobody becomes a zombie for want of a field.
fn said<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    Option::deserialize(deserializer)
}

/// Identities and capabilities.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// Real, effective, saved user id.
    pub uids: [u32; 3],
    /// Real, effective, saved group id.
    pub gids: [u32; 3],
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Capabilities.
    pub capabilities: Capabilities,
    /// Whether it can gain no privilege by executing.
    pub no_new_privs: bool,
}

/// Capability sets as masks: bit n is capability n of linux/capability.h.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capabilities {
    /// `CapInh`.
    pub inheritable: u64,
    /// `CapPrm`.
    pub permitted: u64,
    /// `CapEff`.
    pub effective: u64,
    /// `CapBnd`.
    pub bounding: u64,
    /// `CapAmb`.
    pub ambient: u64,
}

/// Why a file is no capture.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Not JSON of this form.
    #[error("not a capture file")]
    Form(#[from] serde_json::Error),
    /// Another format or version.
    #[error(
        "a capture file of format {format:?}, version {version}: this program knows {FORMAT:?}, version {VERSION}"
    )]
    Version {
        /// What it says it is.
        format: String,
        /// Which version.
        version: u32,
    },
    /// Of this form, but not to be used.
    #[error("not a capture: {what}")]
    Content {
        /// What is wrong where.
        what: String,
    },
}

impl ImageError {
    /// EINVAL: nothing was done with it.
    pub const fn errno(&self) -> rustix::io::Errno {
        match self {
            Self::Form(_) | Self::Version { .. } | Self::Content { .. } => rustix::io::Errno::INVAL,
        }
    }
}

impl Image {
    /// Reads a capture file.
    pub fn from_json(text: &[u8]) -> Result<Self, ImageError> {
        #[derive(Deserialize)]
        struct Head {
            format: String,
            version: u32,
        }
        let head: Head = serde_json::from_slice(text)?;
        if head.format != FORMAT || head.version != VERSION {
            return Err(ImageError::Version { format: head.format, version: head.version });
        }
        let image = serde_json::from_slice(text)?;
        check::check(&image)?;
        Ok(image)
    }

    /// Writes a capture file, one field a line.
    pub fn to_json(&self) -> Result<String, ImageError> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    /// A user namespace by its number; `None`: the capturer's own, or one that is not in the file.
    pub(crate) fn user_namespace(&self, number: usize) -> Option<&UserNamespace> {
        number.checked_sub(1).and_then(|place| self.user_namespaces.get(place))
    }

    /// Which user namespace owns another namespace.
    pub(crate) fn owner(&self, kind: &str, number: usize) -> usize {
        let listed = number.checked_sub(1).and_then(|place| self.owners.get(kind)?.get(place));
        listed.copied().unwrap_or(0)
    }

    /// Whether a user namespace is somewhere around another one.
    pub(crate) fn is_around(&self, outer: usize, inner: usize) -> bool {
        let around = |&number: &usize| self.user_namespace(number).map(|space| space.parent);
        std::iter::successors(Some(inner), around).skip(1).any(|number| number == outer)
    }

    /// The relations alone.
    pub fn tree(&self) -> Tree {
        let children_in = |captured: &Captured| match captured.children_in {
            Nursery::Own => ChildrenIn::Own,
            Nursery::Namespace(namespace) => ChildrenIn::Namespace(namespace),
            Nursery::Fresh => ChildrenIn::Fresh,
        };
        let process = |captured: &Captured| Process {
            pids: captured.pids.clone(),
            namespace: captured.pid_namespace,
            parent: captured.parent,
            session: captured.session.clone(),
            group: captured.group.clone(),
            children_in: children_in(captured),
            zombie: captured.living.is_none(),
        };
        Tree {
            namespaces: self.pid_namespaces.iter().map(|&parent| PidNamespace { parent }).collect(),
            processes: self.processes.iter().map(process).collect(),
        }
    }
}
