//! What `stat` shows, in the form of the FUSE protocol.

use std::time::SystemTime;

use fuse_backend_rs::abi::fuse_abi::Attr;
use pinfold_realm::{Attributes, Node};

/// kernfs's: PAGE_SIZE.
pub(crate) const BLOCK_SIZE: u32 = 4096;

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;

/// The attributes of a node with this inode number. A control file has size 0: nobody knows it before reading.
pub(crate) fn attributes(number: u64, node: Node, of: &Attributes) -> Attr {
    let (kind, nlink) = match node {
        Node::Group(_) => (DIRECTORY, of.children.saturating_add(2)),
        Node::File(..) => (REGULAR, 1),
    };
    // Before 1970 there were no groups.
    let changed = of.changed.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (seconds, nanoseconds) = (changed.as_secs(), changed.subsec_nanos());
    Attr {
        ino: number,
        size: 0,
        blocks: 0,
        atime: seconds,
        mtime: seconds,
        ctime: seconds,
        atimensec: nanoseconds,
        mtimensec: nanoseconds,
        ctimensec: nanoseconds,
        mode: kind | u32::from(of.ownership.mode & 0o7777),
        nlink,
        uid: of.ownership.uid.0,
        gid: of.ownership.gid.0,
        rdev: 0,
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pinfold_model::{Gid, GroupId, Ownership, Uid};
    use std::time::Duration;

    #[test]
    fn a_group_is_a_directory_with_a_link_for_each_child_and_a_file_is_empty() {
        let of = Attributes {
            ownership: Ownership { uid: Uid(7), gid: Gid(8), mode: 0o755 },
            children: 3,
            changed: SystemTime::UNIX_EPOCH + Duration::new(9, 10),
        };
        let group = GroupId::new(5).unwrap();
        let file = pinfold_files::files().next().unwrap();

        let shown = attributes(5 << 12, Node::Group(group), &of);
        assert_eq!((shown.mode, shown.nlink, shown.uid, shown.gid), (0o40755, 5, 7, 8));
        assert_eq!((shown.mtime, shown.mtimensec, shown.size), (9, 10, 0));
        let shown = attributes(5 << 12 | 1, Node::File(group, file), &of);
        assert_eq!((shown.mode, shown.nlink, shown.size), (0o100755, 1, 0));
    }
}
