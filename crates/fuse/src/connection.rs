//! Taking mounts away: where a superblock is mounted, lazy unmounting, ending a connection, and what a daemon that was
//! killed left behind.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, UnmountFlags};

use crate::fusermount::{self, HelperError};
use crate::mountinfo::{self, MountLine};
use crate::superblock::{SUBTYPE, device_number};

/// The kernel's name for a FUSE superblock as long as it exists: the minor device number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Connection(u32);

/// Why a mount stays.
#[derive(Debug, thiserror::Error)]
pub enum UnmountError {
    /// The list of mounts cannot be read.
    #[error("/proc/self/mountinfo cannot be read")]
    Mountinfo(#[source] io::Error),
    /// The kernel refuses.
    #[error("{} cannot be unmounted", dir.display())]
    Refused {
        /// The place.
        dir: PathBuf,
        /// The kernel's answer.
        source: Errno,
    },
    /// The helper refuses.
    #[error("{} cannot be unmounted", dir.display())]
    Helper {
        /// The place.
        dir: PathBuf,
        /// What became of it.
        source: HelperError,
    },
}

impl Connection {
    /// The connection of the superblock that this descriptor is in.
    pub(crate) fn of(fd: BorrowedFd<'_>) -> rustix::io::Result<Self> {
        device_number(fd).map(|(_, minor)| Self(minor))
    }

    /// Whether this is the device number of what is in the superblock.
    pub(crate) fn is(self, device: (u32, u32)) -> bool {
        device == (0, self.0)
    }

    /// Where the superblock is mounted, in the daemon's mount namespace.
    pub fn places(self) -> Result<Vec<PathBuf>, UnmountError> {
        let lines = mountinfo::read().map_err(UnmountError::Mountinfo)?;
        Ok(self.reachable(&lines).map(|line| line.point.clone()).collect())
    }

    /// Takes it away from every place in the daemon's mount namespace. Those who use it keep it until they leave.
    pub fn detach(self) -> Result<(), UnmountError> {
        self.places()?.iter().try_for_each(|dir| unmount(dir))
    }

    /// The mounts of this superblock that their path leads to: on top of anything else mounted there.
    fn reachable(self, lines: &[MountLine]) -> impl Iterator<Item = &MountLine> {
        lines.iter().filter(move |line| self.is(line.device) && !line.is_covered_in(lines))
    }
}

/// How a connection is ended for everybody: its file in the control file system, opened while the superblock could not
/// go. The number alone would not do: when a superblock is gone, the next one gets its number.
#[derive(Debug)]
pub struct Abort(Option<OwnedFd>);

impl Abort {
    /// Opens the file of the superblock that `pinned`, a descriptor in it, keeps from going. The daemon may not be
    /// allowed to, as without root where /sys/fs/fuse/connections is not mounted.
    pub(crate) fn of(pinned: BorrowedFd<'_>) -> rustix::io::Result<Self> {
        device_number(pinned).map(|(_, minor)| Self::numbered(minor))
    }

    /// The file of the superblock that has this number now.
    fn numbered(minor: u32) -> Self {
        let name = PathBuf::from(minor.to_string()).join("abort");
        // A mount of its own first: an open file would keep the usual place from being unmounted.
        let opened = mount_control()
            .and_then(|control| {
                rustix::fs::openat(&control, &name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
            })
            .or_else(|_| {
                let listed = Path::new("/sys/fs/fuse/connections").join(&name);
                rustix::fs::open(&listed, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
            });
        Self(
            opened.inspect_err(|error| tracing::debug!("connection {minor} cannot be aborted: {error}")).ok(),
        )
    }

    /// Ends the connection: waiting requests fail, the serving threads read ENODEV. True if it is gone now. Nothing
    /// happens if it was gone before.
    pub fn abort(&self) -> bool {
        self.0.as_ref().is_some_and(|file| rustix::io::write(file, b"1").is_ok())
    }
}

/// A private mount of the control file system: the usual place may not have it.
fn mount_control() -> rustix::io::Result<OwnedFd> {
    let context = rustix::mount::fsopen("fusectl", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(&context)?;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

/// Takes the topmost mount at `dir` away, lazily.
pub(crate) fn unmount(dir: &Path) -> Result<(), UnmountError> {
    match rustix::mount::unmount(dir, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(Errno::PERM) => {
            fusermount::unmount(dir).map_err(|source| UnmountError::Helper { dir: dir.to_owned(), source })
        }
        Err(source) => Err(UnmountError::Refused { dir: dir.to_owned(), source }),
    }
}

/// Takes away what a killed daemon left at `dir`: mounts of this file system that nobody serves (every use says
/// ENOTCONN). True if there was one. Anything else at `dir` stays.
pub fn remove_dead(dir: &Path) -> Result<bool, UnmountError> {
    let mut removed = false;
    while remove_one(dir)? {
        removed = true;
    }
    Ok(removed)
}

fn remove_one(dir: &Path) -> Result<bool, UnmountError> {
    let is_left = is_dead(dir) && topmost(dir)?.is_some();
    if is_left {
        unmount(dir)?;
    }
    Ok(is_left)
}

/// [`remove_dead`], where all mounts with these sources are of daemons that were killed. One of them may have left a thread that waits for
/// somebody and keeps the device open, so that requests are not answered at all: its connection is ended first.
pub fn remove_left(dir: &Path, is_left: impl Fn(&str) -> bool) -> Result<bool, UnmountError> {
    let mut removed = false;
    loop {
        let top = topmost(dir)?.filter(|line| is_left(&line.source));
        if let Some(line) = top
            && !answers(dir)
        {
            tracing::info!("{}: nobody answers, and nobody is to", dir.display());
            Abort::numbered(line.device.1).abort();
        }
        if !remove_one(dir)? {
            return Ok(removed);
        }
        removed = true;
    }
}

/// How long a mount may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether there is any answer to a question about a mount. The thread that asks may wait for it as long as the mount is there.
fn answers(dir: &Path) -> bool {
    let (asked, dir) = (mpsc::channel(), dir.to_owned());
    let (answered, answer) = asked;
    let asking = std::thread::Builder::new().name("fuse-left".to_owned());
    let asking = asking.spawn(move || answered.send(is_dead(&dir)));
    asking.is_err() || answer.recv_timeout(PATIENCE).is_ok()
}

fn is_dead(dir: &Path) -> bool {
    // Any mask at all makes the kernel ask the server, unless the attributes are cached: then it is the flag that does.
    let stat =
        rustix::fs::statx(CWD, dir, AtFlags::STATX_FORCE_SYNC | AtFlags::SYMLINK_NOFOLLOW, StatxFlags::MODE);
    stat.err() == Some(Errno::NOTCONN)
}

/// The mount of this file system at `dir`, if nothing lies on it.
fn topmost(dir: &Path) -> Result<Option<MountLine>, UnmountError> {
    let lines = mountinfo::read().map_err(UnmountError::Mountinfo)?;
    let Some(point) = resolved(dir) else { return Ok(None) };
    let kind = format!("fuse.{SUBTYPE}");
    let is_it = |line: &&MountLine| line.point == point && line.kind == kind && !line.is_covered_in(&lines);
    Ok(lines.iter().find(is_it).cloned())
}

/// The path without symbolic links, of which the last component cannot be asked.
fn resolved(dir: &Path) -> Option<PathBuf> {
    let dir = std::path::absolute(dir).ok()?;
    let parent = std::fs::canonicalize(dir.parent()?).ok()?;
    Some(parent.join(dir.file_name()?))
}
