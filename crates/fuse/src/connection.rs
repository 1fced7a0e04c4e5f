//! Taking mounts away: where a superblock is mounted, lazy unmounting, ending a connection, and what a daemon that was
//! killed left behind.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

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
        let (_, minor) = device_number(pinned)?;
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
        Ok(Self(
            opened.inspect_err(|error| tracing::debug!("connection {minor} cannot be aborted: {error}")).ok(),
        ))
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
    while is_dead(dir) && is_ours(dir)? {
        unmount(dir)?;
        removed = true;
    }
    Ok(removed)
}

fn is_dead(dir: &Path) -> bool {
    // Any mask at all makes the kernel ask the server, unless the attributes are cached: then it is the flag that does.
    let stat =
        rustix::fs::statx(CWD, dir, AtFlags::STATX_FORCE_SYNC | AtFlags::SYMLINK_NOFOLLOW, StatxFlags::MODE);
    stat.err() == Some(Errno::NOTCONN)
}

fn is_ours(dir: &Path) -> Result<bool, UnmountError> {
    let lines = mountinfo::read().map_err(UnmountError::Mountinfo)?;
    let Some(point) = resolved(dir) else { return Ok(false) };
    let kind = format!("fuse.{SUBTYPE}");
    Ok(lines.iter().any(|line| line.point == point && line.kind == kind && !line.is_covered_in(&lines)))
}

/// The path without symbolic links, of which the last component cannot be asked.
fn resolved(dir: &Path) -> Option<PathBuf> {
    let dir = std::path::absolute(dir).ok()?;
    let parent = std::fs::canonicalize(dir.parent()?).ok()?;
    Some(parent.join(dir.file_name()?))
}
