//! The state directory: what a realm remembers, as a plain tree that `ls` and `cat` can read.
//!
//! ```text
//! STATE/lock                                one daemon per realm
//!       realm                               what the rest belongs to: the base, who leads; the sign that this is ours
//!       hierarchies/LABEL/a/b/              a directory per group, with the group's owner and mode
//!       hierarchies/LABEL/a/b/settings      what differs from the default, one `key=value` a line
//!       cells/17                            which groups cell 17 is of, and where its processes came from
//!       spines/4                            which groups spine directory 4 holds nothing but cells of
//!       folds/17                            counters of cell 17 on their way into its groups, and which those are then
//!       descriptors/4711                    how many descriptors process 4711 may have when no group limits it
//!       members                             without a v2 tree: which processes are in which cell (tracker::ledger)
//!       tmp/                                what is not in place yet; emptied at start
//! ```
//!
//! Every change is one atomic step: mkdir, rmdir or rename. A group that could be mistaken for the settings file (its
//! name is `settings`, perhaps with tildes after it) has one tilde more here.
//!
//! Out of scope: what a line means; that is [`crate::record`]'s.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use pinfold_model::{Errno, Moment, Name, Ownership, Uid};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};

const SETTINGS: &str = "settings";
/// How long a path may be: PATH_MAX without the byte that ends it.
const LONGEST: usize = 4095;
const DIR_FLAGS: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

/// What a state directory has in it. Nothing else is ever touched.
const OURS: [&str; 8] =
    ["hierarchies", "cells", "spines", "folds", "descriptors", "tmp", crate::tracker::LEDGER, MARK];
/// The file that tells a state directory from any other.
const MARK: &str = "realm";

/// The state directory would not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A system call failed.
    #[error("cannot {operation} {}: {errno}", path.display())]
    System {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        errno: rustix::io::Errno,
    },
    /// The names on the way to a group make a path that the kernel does not take.
    #[error("the way to a group is too long: with {:?} its names have {bytes} bytes, of {LONGEST} that can be kept",
        name.display())]
    TooLong {
        /// The group's name.
        name: OsString,
        /// What the names come to in the state directory.
        bytes: usize,
    },
    /// The directory has something in it, and no sign that it is a state directory.
    #[error("{} is not empty and no state directory: pinfold will not use it\nname a directory that is not there yet", .0.display())]
    NotOurs(PathBuf),
    /// Somebody else can write there, or could have.
    #[error("{} must belong to the daemon's user and be closed to all others (mode 0700)", .0.display())]
    NotPrivate(PathBuf),
}

impl StateError {
    /// What the caller gets: a full disk is a full disk, a path that is too long is too long, all else is EIO.
    pub fn errno(&self) -> Errno {
        match self {
            Self::System { errno: rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT, .. } => Errno::ENOSPC,
            Self::System { errno: rustix::io::Errno::NAMETOOLONG, .. } | Self::TooLong { .. } => {
                Errno::ENAMETOOLONG
            }
            Self::System { errno: rustix::io::Errno::NOMEM, .. } => Errno::ENOMEM,
            Self::System { .. } | Self::NotOurs(_) | Self::NotPrivate(_) => Errno::EIO,
        }
    }

    /// Whether the lock is somebody else's.
    pub(crate) fn is_locked(&self) -> bool {
        matches!(self, Self::System { errno: rustix::io::Errno::WOULDBLOCK, .. })
    }
}

/// A group's directory below `hierarchies/`: the hierarchy's label, then names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct GroupPath(PathBuf);

impl GroupPath {
    pub(crate) fn root(label: &str) -> Self {
        Self(Path::new("hierarchies").join(label))
    }

    pub(crate) fn child(&self, name: &Name) -> Self {
        Self(self.0.join(to_disk(name.as_os_str())))
    }

    /// How many bytes a child's name makes a path longer.
    pub(crate) fn step(name: &Name) -> usize {
        1 + to_disk(name.as_os_str()).len()
    }

    /// Whether what is kept of a group can be, with a way of so many bytes below this one. One whose settings could not be kept would
    /// not come back.
    fn check_length(&self, below: usize) -> Result<(), StateError> {
        let bytes = self.settings().as_os_str().len() + below;
        if bytes <= LONGEST {
            return Ok(());
        }
        Err(StateError::TooLong { name: from_disk(self.0.file_name().unwrap_or_default()), bytes })
    }

    /// The path within the state directory.
    pub(crate) fn as_path(&self) -> &Path {
        &self.0
    }

    fn settings(&self) -> PathBuf {
        self.0.join(SETTINGS)
    }
}

/// What is found in a group's directory at start.
pub(crate) struct KeptDir {
    pub(crate) ownership: Ownership,
    pub(crate) changed: Moment,
    pub(crate) settings: String,
    pub(crate) children: Vec<Name>,
}

/// An open state directory, locked for this process.
pub(crate) struct State {
    path: PathBuf,
    root: OwnedFd,
    _lock: OwnedFd,
    serial: AtomicU64,
    /// What the process's umask takes off a new directory's mode.
    umask: u16,
}

impl State {
    /// Opens and locks it, making it if it is not there, and throws away what was not in place.
    pub(crate) fn open(path: &Path) -> Result<Self, StateError> {
        make_private_dirs(path)?;
        let failed = |operation| move |errno| StateError::System { operation, path: path.to_owned(), errno };
        let root = rustix::fs::open(path, DIR_FLAGS, Mode::empty()).map_err(failed("open"))?;
        let stat = rustix::fs::fstat(&root).map_err(failed("stat"))?;
        if stat.st_uid != rustix::process::geteuid().as_raw() || stat.st_mode & 0o077 != 0 {
            return Err(StateError::NotPrivate(path.to_owned()));
        }
        if !is_ours(&root, path)? {
            return Err(StateError::NotOurs(path.to_owned()));
        }
        let state = Self {
            path: path.to_owned(),
            _lock: lock(&root, path)?,
            root,
            serial: AtomicU64::new(0),
            umask: umask(),
        };
        for dir in ["tmp", "hierarchies", "cells", "spines", "folds", "descriptors"] {
            state.ensure_dir(Path::new(dir))?;
        }
        state.empty_temporary()?;
        if state.mark()?.is_none() {
            state.set_mark("")?;
        }
        Ok(state)
    }

    /// What the state directory belongs to, as [`State::set_mark`] wrote it. `None`: it is being made.
    pub(crate) fn mark(&self) -> Result<Option<String>, StateError> {
        let text = self.read(Path::new(MARK))?;
        Ok(text.map(|text| text.split_once('\n').map_or(String::new(), |(_, rest)| rest.to_owned())))
    }

    /// Writes down what the state directory belongs to.
    pub(crate) fn set_mark(&self, text: &str) -> Result<(), StateError> {
        self.replace(Path::new(MARK), &format!("# state of a pinfold realm\n{text}"))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a group's directory, with its settings: one step.
    pub(crate) fn make_group(
        &self,
        at: &GroupPath,
        owner: Ownership,
        settings: &str,
    ) -> Result<(), StateError> {
        at.check_length(0)?;
        let new = self.temporary();
        let is_born_so = self.owns_as(owner) && self.makes_with(owner.mode);
        let first = if is_born_so { mode(owner) } else { Mode::RWXU };
        self.op("mkdir", &new, rustix::fs::mkdirat(&self.root, &new, first))?;
        let fill = || {
            self.create(&new.join(SETTINGS), settings)?;
            if is_born_so { Ok(()) } else { self.own(&new, owner) }
        };
        let filled = fill().and_then(|()| self.rename(&new, &at.0));
        if filled.is_err() {
            self.remove_tree(&new).unwrap_or_else(|error| tracing::warn!("left behind: {error}"));
        }
        filled
    }

    /// Removes a group's directory: one step, what is in it goes with it.
    pub(crate) fn remove_group(&self, at: &GroupPath) -> Result<(), StateError> {
        let gone = self.temporary();
        self.rename(&at.0, &gone)?;
        // It is gone for good: what stays in tmp/ goes at the next start. Mostly there is nothing in it but settings.
        rustix::fs::unlinkat(&self.root, gone.join(SETTINGS), AtFlags::empty()).ok();
        if rustix::fs::unlinkat(&self.root, &gone, AtFlags::REMOVEDIR).is_err() {
            self.remove_tree(&gone).unwrap_or_else(|error| tracing::warn!("left behind: {error}"));
        }
        Ok(())
    }

    /// Moves a group's directory, and all below it, to which the longest way has `below` bytes: one step.
    pub(crate) fn rename_group(
        &self,
        from: &GroupPath,
        to: &GroupPath,
        below: usize,
    ) -> Result<(), StateError> {
        to.check_length(below)?;
        self.rename(&from.0, &to.0)
    }

    /// Gives a group's directory another owner and mode.
    pub(crate) fn set_ownership(&self, at: &GroupPath, owner: Ownership) -> Result<(), StateError> {
        self.own(&at.0, owner)
    }

    /// Replaces a group's settings file; an empty one is removed.
    pub(crate) fn write_settings(&self, at: &GroupPath, settings: &str) -> Result<(), StateError> {
        self.replace(&at.settings(), settings)
    }

    /// Everything in a group's directory.
    pub(crate) fn read_group(&self, at: &GroupPath) -> Result<KeptDir, StateError> {
        let dir = self.op("open", &at.0, rustix::fs::openat(&self.root, &at.0, DIR_FLAGS, Mode::empty()))?;
        let stat = self.op("stat", &at.0, rustix::fs::fstat(&dir))?;
        let mut children = Vec::new();
        for (name, kind) in self.entries(&at.0)? {
            match (kind, Name::new(&from_disk(&name))) {
                (FileType::Directory, Ok(name)) => children.push(name),
                _ if name == SETTINGS => {}
                _ => {
                    tracing::warn!("{}: not a group, left alone", self.path.join(&at.0).join(&name).display())
                }
            }
        }
        Ok(KeptDir {
            ownership: Ownership {
                uid: Uid(stat.st_uid),
                gid: pinfold_model::Gid(stat.st_gid),
                mode: (stat.st_mode & 0o7777) as u16,
            },
            changed: Moment {
                seconds: stat.st_mtime,
                nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
            },
            settings: self.read(&at.settings())?.unwrap_or_default(),
            children,
        })
    }

    /// The labels of the hierarchies that are kept.
    pub(crate) fn hierarchies(&self) -> Result<Vec<String>, StateError> {
        let entries = self.entries(Path::new("hierarchies"))?;
        Ok(entries.into_iter().filter_map(|(name, _)| name.into_string().ok()).collect())
    }

    /// Keeps a record of one cell, or of a fold, or forgets it (`None`).
    pub(crate) fn keep(&self, kind: Records, number: u32, text: Option<&str>) -> Result<(), StateError> {
        self.replace(&kind.dir().join(number.to_string()), text.unwrap_or_default())
    }

    /// Every record of a kind, by number.
    pub(crate) fn records(&self, kind: Records) -> Result<Vec<(u32, String)>, StateError> {
        let mut records = Vec::new();
        for (name, _) in self.entries(kind.dir())? {
            let Some(number) = name.to_str().and_then(|name| name.parse().ok()) else {
                tracing::warn!(
                    "{}: not a record, left alone",
                    self.path.join(kind.dir()).join(&name).display()
                );
                continue;
            };
            if let Some(text) = self.read(&kind.dir().join(&name))? {
                records.push((number, text));
            }
        }
        records.sort_unstable();
        Ok(records)
    }

    /// Removes all that is ours, hierarchies first and in one step, so that no start in between finds half of them. The
    /// directory itself goes if nobody else has put anything into it. The lock is held to the end.
    pub(crate) fn destroy(&self) -> Result<(), StateError> {
        self.rename(Path::new("hierarchies"), &self.temporary())?;
        self.empty_temporary()?;
        for name in OURS {
            let path = Path::new(name);
            if let Some(kind) = self.kind_of(path)? {
                self.remove(path, kind)?;
            }
        }
        self.op("unlink", Path::new("lock"), rustix::fs::unlinkat(&self.root, "lock", AtFlags::empty()))?;
        match rustix::fs::rmdir(&self.path) {
            Err(rustix::io::Errno::NOTEMPTY | rustix::io::Errno::EXIST) => Ok(()),
            result => self.op("rmdir", Path::new(""), result),
        }
    }

    /// Removes what an earlier daemon did not put in place. New names in tmp/ come after those that it has left.
    fn empty_temporary(&self) -> Result<(), StateError> {
        let tmp = Path::new("tmp");
        let left = self.entries(tmp)?;
        let last = left.iter().filter_map(|(name, _)| name.to_str()?.parse::<u64>().ok()).max();
        self.serial.store(last.map_or(0, |last| last.saturating_add(1)), Ordering::Relaxed);
        for (name, kind) in left {
            self.remove(&tmp.join(name), kind)?;
        }
        Ok(())
    }

    fn kind_of(&self, path: &Path) -> Result<Option<FileType>, StateError> {
        match rustix::fs::statat(&self.root, path, AtFlags::SYMLINK_NOFOLLOW) {
            Err(rustix::io::Errno::NOENT) => Ok(None),
            result => Ok(Some(FileType::from_raw_mode(self.op("stat", path, result)?.st_mode))),
        }
    }

    /// Whether a new directory has just this mode, and can be filled: mkdir(2) leaves out what the umask has, and more than the bits
    /// for users but the sticky one.
    fn makes_with(&self, mode: u16) -> bool {
        mode & (self.umask | 0o6000) == 0 && mode & 0o700 == 0o700
    }

    fn owns_as(&self, owner: Ownership) -> bool {
        owner.uid.0 == rustix::process::geteuid().as_raw()
            && owner.gid.0 == rustix::process::getegid().as_raw()
    }

    fn own(&self, path: &Path, owner: Ownership) -> Result<(), StateError> {
        let uid = rustix::fs::Uid::from_raw(owner.uid.0);
        let gid = rustix::fs::Gid::from_raw(owner.gid.0);
        self.op(
            "chown",
            path,
            rustix::fs::chownat(&self.root, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW),
        )?;
        // Who is not root needs the bits of the mode to come back to what is in there.
        let own = if rustix::process::geteuid().is_root() { Mode::empty() } else { Mode::RWXU };
        self.op("chmod", path, rustix::fs::chmodat(&self.root, path, mode(owner) | own, AtFlags::empty()))
    }

    /// Puts a file in place in one step; an empty text removes it.
    fn replace(&self, path: &Path, text: &str) -> Result<(), StateError> {
        if text.is_empty() {
            return match rustix::fs::unlinkat(&self.root, path, AtFlags::empty()) {
                Err(rustix::io::Errno::NOENT) => Ok(()),
                result => self.op("unlink", path, result),
            };
        }
        let new = self.temporary();
        let placed = self.create(&new, text).and_then(|()| self.rename(&new, path));
        if placed.is_err() {
            // It may never have been made; what is left in tmp/ goes at the next start.
            rustix::fs::unlinkat(&self.root, &new, AtFlags::empty()).ok();
        }
        placed
    }

    fn create(&self, path: &Path, text: &str) -> Result<(), StateError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd =
            self.op("create", path, rustix::fs::openat(&self.root, path, flags, Mode::RUSR | Mode::WUSR))?;
        self.io("write", path, std::fs::File::from(fd).write_all(text.as_bytes()))
    }

    fn read(&self, path: &Path) -> Result<Option<String>, StateError> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = match rustix::fs::openat(&self.root, path, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            result => self.op("open", path, result)?,
        };
        let mut bytes = Vec::new();
        self.io("read", path, std::fs::File::from(fd).read_to_end(&mut bytes))?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), StateError> {
        self.op("rename to", to, rustix::fs::renameat(&self.root, from, &self.root, to))
    }

    fn ensure_dir(&self, path: &Path) -> Result<(), StateError> {
        match rustix::fs::mkdirat(&self.root, path, Mode::RWXU) {
            Err(rustix::io::Errno::EXIST) => Ok(()),
            result => self.op("mkdir", path, result),
        }
    }

    fn remove(&self, path: &Path, kind: FileType) -> Result<(), StateError> {
        match kind {
            FileType::Directory => self.remove_tree(path),
            _ => self.op("unlink", path, rustix::fs::unlinkat(&self.root, path, AtFlags::empty())),
        }
    }

    /// Removes a directory and all in it. Directories in it are first moved to tmp/: however deep they lie, no path gets too long, and
    /// what is left if the daemon is killed goes at the next start.
    fn remove_tree(&self, dir: &Path) -> Result<(), StateError> {
        let mut left = vec![dir.to_owned()];
        while let Some(dir) = left.pop() {
            for (name, kind) in self.entries(&dir)? {
                let path = dir.join(name);
                match kind {
                    FileType::Directory => {
                        let out = self.temporary();
                        self.rename(&path, &out)?;
                        left.push(out);
                    }
                    kind => self.remove(&path, kind)?,
                }
            }
            self.op("rmdir", &dir, rustix::fs::unlinkat(&self.root, &dir, AtFlags::REMOVEDIR))?;
        }
        Ok(())
    }

    fn entries(&self, dir: &Path) -> Result<Vec<(OsString, FileType)>, StateError> {
        let here = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        let fd = self.op("open", dir, rustix::fs::openat(&self.root, here, DIR_FLAGS, Mode::empty()))?;
        let mut entries = Vec::new();
        for entry in self.op("list", dir, rustix::fs::Dir::new(fd))? {
            let entry = self.op("list", dir, entry)?;
            let name = OsString::from_vec(entry.file_name().to_bytes().to_vec());
            if name != "." && name != ".." {
                let kind = match entry.file_type() {
                    FileType::Unknown => {
                        let stat = rustix::fs::statat(&self.root, dir.join(&name), AtFlags::SYMLINK_NOFOLLOW);
                        FileType::from_raw_mode(self.op("stat", dir, stat)?.st_mode)
                    }
                    known => known,
                };
                entries.push((name, kind));
            }
        }
        Ok(entries)
    }

    fn temporary(&self) -> PathBuf {
        Path::new("tmp").join(self.serial.fetch_add(1, Ordering::Relaxed).to_string())
    }

    fn op<T>(
        &self,
        operation: &'static str,
        path: &Path,
        result: rustix::io::Result<T>,
    ) -> Result<T, StateError> {
        result.map_err(|errno| StateError::System { operation, path: self.path.join(path), errno })
    }

    fn io<T>(
        &self,
        operation: &'static str,
        path: &Path,
        result: std::io::Result<T>,
    ) -> Result<T, StateError> {
        let errno =
            |error: std::io::Error| rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO);
        self.op(operation, path, result.map_err(errno))
    }
}

/// Which kind of numbered record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Records {
    /// Cells.
    Cells,
    /// Spine directories.
    Spines,
    /// Counters on their way from a cell that goes into its groups.
    Folds,
    /// Limits on descriptors that processes have by themselves, by process.
    Descriptors,
}

impl Records {
    fn dir(self) -> &'static Path {
        Path::new(match self {
            Self::Cells => "cells",
            Self::Spines => "spines",
            Self::Folds => "folds",
            Self::Descriptors => "descriptors",
        })
    }
}

fn mode(owner: Ownership) -> Mode {
    Mode::from_raw_mode(u32::from(owner.mode))
}

/// A group's name as a directory's: one tilde more if it could be taken for the settings file.
fn to_disk(name: &OsStr) -> OsString {
    let mut disk = name.to_owned();
    if looks_like_settings(name) {
        disk.push("~");
    }
    disk
}

fn from_disk(disk: &OsStr) -> OsString {
    match disk.as_bytes().strip_suffix(b"~") {
        Some(name) if looks_like_settings(OsStr::from_bytes(name)) => OsStr::from_bytes(name).to_owned(),
        _ => disk.to_owned(),
    }
}

fn looks_like_settings(name: &OsStr) -> bool {
    name.as_bytes().strip_prefix(SETTINGS.as_bytes()).is_some_and(|rest| rest.iter().all(|b| *b == b'~'))
}

/// Whether a directory is a state directory, or empty and so can become one.
fn is_ours(root: &OwnedFd, path: &Path) -> Result<bool, StateError> {
    let failed = |errno| StateError::System { operation: "list", path: path.to_owned(), errno };
    let mut empty = true;
    for entry in rustix::fs::Dir::read_from(root).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        match entry.file_name().to_bytes() {
            b"." | b".." => {}
            name if name == MARK.as_bytes() => return Ok(true),
            b"lock" => {} // a daemon was killed before it made anything else
            _ => empty = false,
        }
    }
    Ok(empty)
}

/// Takes the lock. The file may be removed by a daemon that leaves between its opening and its locking: then it is no
/// lock any more.
fn lock(root: &OwnedFd, path: &Path) -> Result<OwnedFd, StateError> {
    let failed = |operation| move |errno| StateError::System { operation, path: path.to_owned(), errno };
    loop {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let lock = rustix::fs::openat(root, "lock", flags, Mode::RUSR | Mode::WUSR)
            .map_err(failed("open the lock in"))?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            .map_err(failed("lock"))?;
        let held = rustix::fs::fstat(&lock).map_err(failed("stat the lock in"))?;
        match rustix::fs::statat(root, "lock", AtFlags::SYMLINK_NOFOLLOW) {
            Ok(named) if named.st_ino == held.st_ino => return Ok(lock),
            Ok(_) | Err(rustix::io::Errno::NOENT) => {}
            Err(errno) => return Err(failed("stat the lock in")(errno)),
        }
    }
}

/// The process's umask. It is read, not set and set back as umask(2) would have it: other threads may make files meanwhile, and who does
/// the same beside takes the mask between for his own. If it is not told, it may take off everything.
fn umask() -> u16 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    mask.and_then(|mask| u16::from_str_radix(mask.trim(), 8).ok()).unwrap_or(0o777)
}

/// Makes the state directory, mode 0700, and those above it.
fn make_private_dirs(path: &Path) -> Result<(), StateError> {
    use std::os::unix::fs::DirBuilderExt;
    let failed = |error: std::io::Error| StateError::System {
        operation: "make",
        path: path.to_owned(),
        errno: rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO),
    };
    if let Some(above) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(above).map_err(failed)?;
    }
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        result => result.map_err(failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_called_settings_is_not_the_settings_file() {
        for name in ["settings", "settings~", "settings~~", "settingsx", "a~", "~", "setting"] {
            let disk = to_disk(OsStr::new(name));
            assert_ne!(disk, SETTINGS);
            assert_eq!(from_disk(&disk), name);
        }
    }
}
