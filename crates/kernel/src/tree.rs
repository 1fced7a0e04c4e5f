//! What a realm holds of the v2 tree.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::held::Held;
use crate::leaves::Leaves;
use crate::programs::Programs;
use crate::switches::Switches;
use crate::{DiscoverError, V2Mount, Where, mounts};
use pinfold_model::Dir;

/// The directory for the processes that a delegated base held itself.
pub(crate) const REST: &str = "pinfold.rest";

/// A realm's part of the v2 tree, held through descriptors of the mount and of the base.
///
/// The realm directory is named below the base at each use: should another program remove it while it is empty, the
/// next directory that is made below it makes it again.
#[derive(Debug)]
pub struct Tree {
    pub(crate) mount: OwnedFd,
    pub(crate) base: OwnedFd,
    /// The mount point, for messages.
    pub(crate) point: PathBuf,
    /// The base below the mount point; empty if it is the mount point.
    pub(crate) base_path: PathBuf,
    /// What the mount shows of the tree, without a slash at the end: what to take off a path of `/proc/PID/cgroup`.
    pub(crate) mount_root: OsString,
    /// The options that the tree is mounted with, separated by commas.
    pub(crate) options: String,
    /// The realm directory as `/proc/PID/cgroup` prints it.
    pub(crate) shown: OsString,
    /// The realm directory's name in the base.
    pub(crate) realm: String,
    pub(crate) kind: BaseKind,
    pub(crate) scope: Scope,
    pub(crate) rest: RestPlace,
    pub(crate) available: BTreeSet<String>,
    pub(crate) refused: Vec<Refused>,
    /// What this realm switched on in the base, now or in an earlier life.
    pub(crate) switched_on: BTreeSet<String>,
    pub(crate) held: Held,
    pub(crate) leaves: Leaves,
    pub(crate) programs: Programs,
    pub(crate) switches: Switches,
}

/// A controller that is there but could not be switched on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// The controller.
    pub controller: String,
    /// The kernel's answer.
    pub errno: Errno,
}

/// Which rules the kernel applies to the base.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BaseKind {
    /// The root of the whole tree: may hold processes beside enabled controllers.
    Root,
    /// Any other directory: may not.
    Inner,
}

/// How the processes of the scope are found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scope {
    /// All of them are in the v2 tree at or below the base.
    Subtree,
    /// Some may be out of sight there (a cgroup namespace): ask proc.
    Proc,
}

/// Where the processes are that are in the scope and in no cell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RestPlace {
    Base,
    Directory,
}

impl Tree {
    /// Finds the cgroup v2 tree of this mount namespace.
    pub fn discover() -> Result<V2Mount, DiscoverError> {
        mounts::discover()
    }

    /// The controllers usable below the realm directory.
    pub fn available(&self) -> &BTreeSet<String> {
        &self.available
    }

    /// The wanted controllers that the base has and the kernel would not switch on, with its answer.
    pub fn refused(&self) -> &[Refused] {
        &self.refused
    }

    /// Whether the tree is mounted with an option.
    pub fn has_option(&self, option: &str) -> bool {
        self.options.split(',').any(|word| word == option)
    }

    /// The base directory, for messages and reports.
    pub fn base(&self) -> PathBuf {
        self.point.join(&self.base_path)
    }

    /// A directory of the realm below the base.
    pub(crate) fn below_base(&self, dir: &Dir) -> PathBuf {
        let realm = PathBuf::from(&self.realm);
        if *dir == Dir::REALM { realm } else { realm.join(dir.to_string()) }
    }

    /// A place to read from, below the base.
    pub(crate) fn path_of(&self, at: Where<'_>) -> PathBuf {
        match at {
            Where::Base => PathBuf::new(),
            Where::Dir(dir) => self.below_base(dir),
        }
    }

    /// A path below the base, as messages show it.
    pub(crate) fn display(&self, below_base: impl AsRef<Path>) -> PathBuf {
        self.base().join(below_base)
    }

    /// The part of a path of `/proc/PID/cgroup` that is below the mount; `None` if it lies outside.
    pub(crate) fn below_mount<'a>(&self, shown: &'a OsStr) -> Option<&'a Path> {
        let below = shown.as_bytes().strip_prefix(self.mount_root.as_bytes())?;
        let path = match below.split_first() {
            None => Path::new(""),
            Some((b'/', path)) => Path::new(OsStr::from_bytes(path)),
            Some(_) => return None,
        };
        // What is above the cgroup namespace is shown as `/..`.
        if path.starts_with("..") { None } else { Some(path) }
    }
}

/// Words separated by blanks, as in `cgroup.controllers`.
pub(crate) fn words(content: &[u8]) -> BTreeSet<String> {
    String::from_utf8_lossy(content).split_ascii_whitespace().map(str::to_owned).collect()
}
