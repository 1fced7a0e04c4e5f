//! Where cgmanager's clients look for it.

use std::path::{Path, PathBuf};

use rustix::fs::{StatVfsMountFlags, statfs, statvfs};

/// The sockets that a client tries, in this order.
pub const DEFAULT_SOCKETS: [&str; 2] = ["/sys/fs/cgroup/cgmanager/sock", "/run/cgmanager/sock"];

/// The file system type of tmpfs.
///
/// Source: statfs(2), `TMPFS_MAGIC`.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// Where the daemon listens if nobody says where: cgmanager's own place, which is where the kernel's hierarchies would be
/// mounted; where a directory cannot be made there, the other.
pub fn default_socket() -> PathBuf {
    let [first, second] = DEFAULT_SOCKETS;
    let takes_directories = |dir| {
        let is_tmpfs = statfs(dir).is_ok_and(|found| u64::try_from(found.f_type) == Ok(TMPFS_MAGIC));
        is_tmpfs && statvfs(dir).is_ok_and(|found| !found.f_flag.contains(StatVfsMountFlags::RDONLY))
    };
    // The directory that the socket's own is made in.
    let above = Path::new(first).ancestors().nth(2);
    PathBuf::from(if above.is_some_and(takes_directories) { first } else { second })
}
