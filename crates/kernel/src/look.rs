//! Looking at the tree: files, members, what is there.

use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use pinfold_model::{CellId, Dir, Errno, HostPid};
use rustix::fs::OFlags;
use rustix::io::Errno as Raw;

use crate::held::Item;
use crate::process::Pinned;
use crate::{Tree, beneath, errors, proc, scope};

/// A directory to read from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Where<'a> {
    /// The base.
    Base,
    /// One of the realm's.
    Dir(&'a Dir),
}

impl<'a> From<&'a Dir> for Where<'a> {
    fn from(dir: &'a Dir) -> Self {
        Self::Dir(dir)
    }
}

/// Why something of a directory could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The directory is not there any more.
    #[error("{} was removed", path.display())]
    Gone {
        /// The directory.
        path: PathBuf,
    },
    /// The directory has no such file: the controller is not on there, or the kernel is older than the file.
    #[error("there is no {}", path.display())]
    NoFile {
        /// The file.
        path: PathBuf,
    },
    /// The kernel refused for another reason.
    #[error("{} cannot be read: {errno}", path.display())]
    System {
        /// The file or directory.
        path: PathBuf,
        /// The kernel's answer.
        errno: Raw,
    },
}

impl ReadError {
    /// The errno that Linux gives for the same on v1: kernfs_get_active() for a removed group.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Gone { .. } => Errno::ENODEV,
            Self::NoFile { .. } => Errno::ENOENT,
            Self::System { errno, .. } => errors::to_model(*errno),
        }
    }
}

/// Where a process is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Membership {
    /// In a cell: in its leaf, or in a directory that somebody made below the leaf.
    Inside(CellId, Dir),
    /// In no cell; the v2 path as `/proc/PID/cgroup` prints it.
    Outside(OsString),
}

/// Why a process's place is not known.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// There is no such process or task.
    #[error("no process {0}")]
    NoProcess(HostPid),
    /// The kernel refused for another reason.
    #[error("/proc/{process}/cgroup cannot be read: {errno}")]
    System {
        /// The process.
        process: HostPid,
        /// The kernel's answer.
        errno: Raw,
    },
}

impl MembershipError {
    /// The errno that says the same.
    pub fn errno(&self) -> Errno {
        match self {
            Self::NoProcess(_) => Errno::ESRCH,
            Self::System { errno, .. } => errors::to_model(*errno),
        }
    }
}

/// What `cgroup.events` says of a directory and all below it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Events {
    /// Whether there is a process that has not exited.
    pub populated: bool,
    /// Whether all processes are frozen, those of other directories below included.
    pub frozen: bool,
}

impl Tree {
    /// A file's content. `file` is a name, not a path.
    pub fn read<'a>(&self, at: impl Into<Where<'a>>, file: &'static str) -> Result<String, ReadError> {
        let at = at.into();
        match self.read_held(at, file) {
            Ok(content) => Ok(String::from_utf8(content)
                .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())),
            Err(errno) => Err(self.read_error(&self.path_of(at), file, errno)),
        }
    }

    /// A directory's `cgroup.events`.
    pub fn events(&self, dir: &Dir) -> Result<Events, ReadError> {
        self.read(dir, "cgroup.events").map(|content| parse_events(&content))
    }

    /// The processes in a directory and all below it, in ascending order. Zombies are not among them.
    pub fn processes(&self, dir: &Dir) -> Result<Vec<HostPid>, ReadError> {
        self.members(dir, "cgroup.procs")
    }

    /// The tasks in a directory and all below it, in ascending order. Dead ones are not among them.
    pub fn threads(&self, dir: &Dir) -> Result<Vec<HostPid>, ReadError> {
        self.members(dir, "cgroup.threads")
    }

    /// Where a process or task is.
    pub fn membership(&self, task: HostPid) -> Result<Membership, MembershipError> {
        self.membership_in(task, shown_path(task))
    }

    /// Where a process is that is held, and whose number nobody has told.
    pub(crate) fn membership_of_held(&self, process: &Pinned) -> Result<Membership, MembershipError> {
        let path = process.cgroup().and_then(|content| parse_cgroup(&content).ok_or(Raw::NODATA));
        self.membership_in(process.process(), path)
    }

    fn membership_in(
        &self,
        task: HostPid,
        path: Result<OsString, Raw>,
    ) -> Result<Membership, MembershipError> {
        match path {
            Ok(path) => Ok(self.interpret(path)),
            Err(Raw::NOENT | Raw::SRCH) => Err(MembershipError::NoProcess(task)),
            Err(errno) => Err(MembershipError::System { process: task, errno }),
        }
    }

    /// The names of the files that the realm directory has, and so every directory of the realm.
    pub fn files(&self) -> Vec<String> {
        let names = beneath::files(&self.base, &self.realm).unwrap_or_default();
        names.into_iter().filter_map(|name| name.into_string().ok()).collect()
    }

    /// The realm's directories below the realm directory, each after those below it. What others made is not among
    /// them. Directories that cannot be listed count as empty.
    pub fn dirs(&self) -> Vec<Dir> {
        let mut found = Vec::new();
        let mut waiting = vec![Dir::REALM];
        while let Some(dir) = waiting.pop() {
            for name in beneath::subdirectories(&self.base, self.below_base(&dir)).unwrap_or_default() {
                let Some(below) = dir.child(name.as_bytes()) else { continue };
                if below.leaf().is_none() {
                    waiting.push(below.clone());
                }
                found.push(below);
            }
        }
        found.sort_by(|a, b| b.depth().cmp(&a.depth()).then_with(|| a.cmp(b)));
        found
    }

    /// Kills every process in a directory and all below it, those that are being forked included.
    #[doc(alias = "cgroup.kill")]
    pub fn kill(&self, dir: &Dir) -> Result<(), ReadError> {
        let path = self.below_base(dir);
        beneath::write(&self.base, path.join("cgroup.kill"), b"1")
            .map_err(|errno| self.read_error(&path, "cgroup.kill", errno))
    }

    fn members(&self, dir: &Dir, file: &'static str) -> Result<Vec<HostPid>, ReadError> {
        let mut found = Vec::new();
        scope::add_members(self.read_held(dir.into(), file), &mut found)
            .and_then(|()| self.add_members_below(dir, file, &mut found))
            .map_err(|errno| self.read_error(&self.below_base(dir), file, errno))?;
        Ok(scope::sorted(found))
    }

    /// Adds the members of the directories that others made below one of the realm's.
    fn add_members_below(&self, dir: &Dir, file: &str, found: &mut Vec<HostPid>) -> Result<(), Raw> {
        if self.with_held(dir.into(), Item::Itself, beneath::is_flat)? {
            return Ok(());
        }
        let top = self.below_base(dir);
        beneath::walk(self.base.as_fd(), top.clone(), &mut |path| {
            if path != top {
                scope::collect(self.base.as_fd(), path, file, found)?;
            }
            Ok(beneath::Below::Enter)
        })
    }

    /// Tells a directory that is gone from one that lacks a file. A directory that is being removed loses its files before
    /// it goes itself (cgroup_destroy_locked()): one that lacks what all have is going.
    pub(crate) fn read_error(&self, dir: &Path, file: &str, errno: Raw) -> ReadError {
        let is_there = || beneath::open(&self.base, dir, OFlags::PATH).is_ok();
        match errno {
            Raw::NOENT if !OF_EVERY_DIRECTORY.contains(&file) && is_there() => {
                ReadError::NoFile { path: self.display(dir.join(file)) }
            }
            errno if beneath::is_gone(errno) => ReadError::Gone { path: self.display(dir) },
            errno => ReadError::System { path: self.display(dir.join(file)), errno },
        }
    }

    /// Reads a path of `/proc/PID/cgroup`.
    fn interpret(&self, shown: OsString) -> Membership {
        let below = shown.as_bytes().strip_prefix(self.shown.as_bytes());
        let Some(path) = below.and_then(|below| below.strip_prefix(b"/")) else {
            return Membership::Outside(shown);
        };
        // A zombie outlives its leaf: proc_cgroup_show() marks the path.
        let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
        let (dir, _) = Dir::longest(path);
        match dir.leaf() {
            Some(cell) => Membership::Inside(cell, dir),
            None => Membership::Outside(shown),
        }
    }

    /// Whether a path below the base leads into the realm's own directories to its end.
    pub(crate) fn is_own(&self, below_base: &Path) -> bool {
        below_base.strip_prefix(&self.realm).is_ok_and(|path| Dir::longest(path.as_os_str().as_bytes()).1)
    }
}

/// Files that no kernel leaves out of a directory below the root (`cgroup_base_files`).
const OF_EVERY_DIRECTORY: &[&str] = &["cgroup.procs", "cgroup.threads", "cgroup.events"];

/// The v2 path of a process or task, as proc prints it.
pub(crate) fn shown_path(task: HostPid) -> Result<OsString, Raw> {
    parse_cgroup(&proc::read_of(task, "cgroup")?).ok_or(Raw::NODATA)
}

/// Finds the line of the v2 tree in `/proc/PID/cgroup`: `0::PATH`.
fn parse_cgroup(content: &[u8]) -> Option<OsString> {
    let mut lines = content.split(|byte| *byte == b'\n');
    lines.find_map(|line| line.strip_prefix(b"0::")).map(|path| OsStr::from_bytes(path).to_os_string())
}

fn parse_events(content: &str) -> Events {
    let is_set = |key: &str| content.lines().any(|line| line.split_once(' ') == Some((key, "1")));
    Events { populated: is_set("populated"), frozen: is_set("frozen") }
}
