//! Making the kernel's side of a mount: a FUSE superblock whose requests arrive at one device file.
//!
//! The daemon makes the superblock itself, so that the ids of callers arrive in the daemon's own namespaces. The mount
//! starts *detached*: whoever holds its file descriptor may put it at a place with [`attach`], in a mount namespace the
//! daemon need not see; if nobody does and the descriptor goes, so does the mount. Without the privilege to mount,
//! fusermount3 does it, at a place that must then be known at once.
//!
//! Out of scope: serving ([`crate::serve`]) and taking a mount away ([`crate::connection`]).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags};

use crate::connection::{Abort, Connection};
use crate::fusermount;

const DEVICE: &str = "/dev/fuse";

/// The part of the file system's type after `fuse.`: old software that looks for `cgroup` in the type finds it.
pub(crate) const SUBTYPE: &str = "cgroup";

/// A FUSE superblock that waits to be served.
#[derive(Debug)]
pub struct Superblock {
    /// Where its requests arrive and its answers go.
    pub device: File,
    /// The kernel's name for it.
    pub connection: Connection,
    /// How it is ended for those who use it.
    pub abort: Abort,
}

/// Why nothing was mounted.
#[derive(Debug, thiserror::Error)]
pub enum SuperblockError {
    /// Without the device nothing can be served.
    #[error("{DEVICE} cannot be opened")]
    Device(#[source] io::Error),
    /// The kernel refuses the superblock.
    #[error("the kernel does not make a FUSE superblock: {step}")]
    Refused {
        /// Which system call, with which parameter.
        step: &'static str,
        /// Its answer.
        source: Errno,
    },
    /// The mount cannot be put at the place.
    #[error("nothing can be mounted at {}", dir.display())]
    Attach {
        /// The place.
        dir: PathBuf,
        /// The kernel's answer.
        source: Errno,
    },
    /// The helper for users without the privilege to mount.
    #[error("fusermount3 does not mount at {}", dir.display())]
    Helper {
        /// The place.
        dir: PathBuf,
        /// What became of it.
        source: fusermount::HelperError,
    },
}

impl Superblock {
    /// Makes a superblock and a detached mount of it. `source` is what the first column of /proc/mounts shows.
    ///
    /// Needs CAP_SYS_ADMIN in the user namespace of the daemon's mount namespace: EPERM without.
    pub fn detached(source: &str) -> Result<(Self, OwnedFd), SuperblockError> {
        let device = open_device().map_err(SuperblockError::Device)?;
        let mount = configure(&device, source)?;
        let connection = Connection::of(mount.as_fd()).map_err(refused("statx"))?;
        let abort = Abort::of(mount.as_fd()).map_err(refused("statx"))?;
        Ok((Self { device, connection, abort }, mount))
    }

    /// Makes a superblock and mounts it at `dir`, both by fusermount3, which may do so where the daemon may not.
    pub fn by_helper(source: &str, dir: &Path) -> Result<Self, SuperblockError> {
        let failed = |source| SuperblockError::Helper { dir: dir.to_owned(), source };
        let device = fusermount::mount(source, dir).map_err(failed)?;
        let at_dir = |source| SuperblockError::Attach { dir: dir.to_owned(), source };
        let place = rustix::fs::open(dir, rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC, 0.into());
        let place = place.map_err(at_dir)?;
        let connection = Connection::of(place.as_fd()).map_err(at_dir)?;
        let abort = Abort::of(place.as_fd()).map_err(at_dir)?;
        Ok(Self { device, connection, abort })
    }
}

/// Puts a detached mount at a directory.
pub fn attach(mount: OwnedFd, dir: &Path) -> Result<(), SuperblockError> {
    rustix::mount::move_mount(&mount, "", CWD, dir, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(|source| SuperblockError::Attach { dir: dir.to_owned(), source })
}

fn open_device() -> io::Result<File> {
    File::options().read(true).write(true).open(DEVICE)
}

fn refused(step: &'static str) -> impl FnOnce(Errno) -> SuperblockError {
    move |source| SuperblockError::Refused { step, source }
}

/// fsopen(2), fsconfig(2), fsmount(2). The context's descriptor is closed on return: it would keep the superblock alive.
fn configure(device: &File, source: &str) -> Result<OwnedFd, SuperblockError> {
    let context =
        rustix::mount::fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC).map_err(refused("fsopen fuse"))?;
    let user = rustix::process::geteuid().as_raw().to_string();
    let group = rustix::process::getegid().as_raw().to_string();
    // As text: before Linux 6.10 the parameter `fd` takes no descriptor.
    let device = device.as_raw_fd().to_string();
    let settings: [(&'static str, &str); 6] = [
        ("source", source),
        ("subtype", SUBTYPE),
        ("fd", &device),
        ("rootmode", "040755"),
        ("user_id", &user),
        ("group_id", &group),
    ];
    for (key, value) in settings {
        rustix::mount::fsconfig_set_string(&context, key, value).map_err(refused(key))?;
    }
    for flag in ["default_permissions", "allow_other"] {
        rustix::mount::fsconfig_set_flag(&context, flag).map_err(refused(flag))?;
    }
    rustix::mount::fsconfig_create(&context).map_err(refused("fsconfig create"))?;
    let flags = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC
        | MountAttrFlags::MOUNT_ATTR_RELATIME;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags).map_err(refused("fsmount"))
}

/// The device number that everything in the superblock has. Asks the kernel only: no request reaches the server, which
/// may not be running yet or may be the one that asks.
pub(crate) fn device_number(of: impl AsFd) -> rustix::io::Result<(u32, u32)> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let stat = rustix::fs::statx(of, "", flags, StatxFlags::empty())?;
    Ok((stat.stx_dev_major, stat.stx_dev_minor))
}
