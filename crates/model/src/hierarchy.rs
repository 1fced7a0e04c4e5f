//! A hierarchy: a tree of groups with a fixed set of controllers bound to it.

use std::fmt;

use crate::{ControllerSet, Errno, GroupId};

/// The name of a hierarchy (`name=systemd`): 1 to 63 letters, digits, dots, hyphens and underscores.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct HierarchyName(Box<str>);

/// A text that cannot name a hierarchy. EINVAL: cgroup1_parse_param().
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} cannot name a hierarchy: 1 to 63 letters, digits, '.', '-' and '_'")]
pub struct HierarchyNameError(String);

impl HierarchyNameError {
    /// The errno Linux gives.
    pub const fn errno(&self) -> Errno {
        Errno::EINVAL
    }
}

impl HierarchyName {
    /// Checks a name once.
    pub fn new(name: &str) -> Result<Self, HierarchyNameError> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        if (1..=63).contains(&name.len()) && name.bytes().all(legal) {
            Ok(Self(name.into()))
        } else {
            Err(HierarchyNameError(name.chars().take(80).collect()))
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HierarchyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a hierarchy was mounted with, besides controllers and name. Fixed while it lives.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct HierarchyFlags {
    /// Control files of cpuset have no `cpuset.` before their name.
    pub noprefix: bool,
    /// `cpuset_v2_mode`.
    pub cpuset_v2_mode: bool,
    /// `xattr`: only shown in the mount options; extended attributes always work, as in the kernel.
    pub xattr: bool,
}

/// A tree of groups and the controllers bound to it.
#[doc(alias = "cgroup_root")]
#[derive(Debug)]
pub struct Hierarchy {
    pub(crate) controllers: ControllerSet,
    pub(crate) name: Option<HierarchyName>,
    pub(crate) flags: HierarchyFlags,
    pub(crate) root: GroupId,
    /// Mounts that hold it; without any, and without child groups, it goes.
    pub(crate) mounts: u32,
    pub(crate) groups: u32,
}

impl Hierarchy {
    /// The controllers bound to it.
    pub fn controllers(&self) -> ControllerSet {
        self.controllers
    }

    /// Its name, if it has one.
    pub fn name(&self) -> Option<&HierarchyName> {
        self.name.as_ref()
    }

    /// What it was mounted with.
    pub fn flags(&self) -> HierarchyFlags {
        self.flags
    }

    /// Its root group.
    pub fn root(&self) -> GroupId {
        self.root
    }

    /// How many mounts hold it.
    pub fn mounts(&self) -> u32 {
        self.mounts
    }

    /// How many groups it has, the root included (`num_cgroups` of /proc/cgroups).
    pub fn groups(&self) -> u32 {
        self.groups
    }
}
