//! Inode numbers: computed from what they name, so that no table of inodes is kept.

use pinfold_files::FileId;
use pinfold_model::GroupId;
use pinfold_realm::Node;

/// How many low bits name a group's file; 0 there is the group itself. There are fewer than 4096 rows.
pub(crate) const FILE_BITS: u32 = 12;

/// What the kernel calls the root of a mount (FUSE_ROOT_ID). No other node has it: groups are counted from 1.
const ROOT: u64 = 1;

/// The inode numbers of one mount.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Numbering {
    root: GroupId,
}

impl Numbering {
    /// The numbers of a mount whose root shows this group.
    pub(crate) fn new(root: GroupId) -> Self {
        Self { root }
    }

    /// The group that the mount's root shows.
    pub(crate) fn root(self) -> GroupId {
        self.root
    }

    /// The inode number of a node.
    pub(crate) fn number(self, node: Node) -> u64 {
        let group = u64::from(node.group().get()) << FILE_BITS;
        match node {
            Node::Group(id) if id == self.root => ROOT,
            Node::Group(_) => group,
            Node::File(_, file) => group | u64::from(file.get()),
        }
    }

    /// The node with this inode number; `None` if there can be none.
    pub(crate) fn node(self, number: u64) -> Option<Node> {
        if number == ROOT {
            return Some(Node::Group(self.root));
        }
        let group = GroupId::new(u32::try_from(number >> FILE_BITS).ok()?)?;
        match u16::try_from(number & ((1 << FILE_BITS) - 1)).ok()? {
            0 if group == self.root => None,
            0 => Some(Node::Group(group)),
            file => Some(Node::File(group, FileId::new(file)?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(number: u32) -> GroupId {
        GroupId::new(number).unwrap()
    }

    #[test]
    fn every_node_has_a_number_of_its_own_and_back() {
        for root in [1, 2, u32::MAX] {
            let numbering = Numbering::new(group(root));
            let groups = [1, 2, 3, 4095, 4096, u32::MAX].map(group);
            let files = pinfold_files::files().flat_map(|file| groups.map(|group| Node::File(group, file)));
            let nodes: Vec<Node> = groups.map(Node::Group).into_iter().chain(files).collect();
            let mut numbers: Vec<u64> = nodes.iter().map(|node| numbering.number(*node)).collect();
            for (node, number) in nodes.iter().zip(&numbers) {
                assert_eq!(numbering.node(*number), Some(*node));
            }
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers.len(), nodes.len());
        }
    }

    #[test]
    fn the_kernels_root_is_the_mounts_root_group_and_has_no_other_number() {
        let numbering = Numbering::new(group(7));
        assert_eq!(numbering.number(Node::Group(group(7))), 1);
        assert_eq!(numbering.node(1), Some(Node::Group(group(7))));
        assert_eq!(numbering.node(7 << 12), None);
    }

    #[test]
    fn numbers_that_nobody_got_name_nothing() {
        let numbering = Numbering::new(group(1));
        for number in [0, 2, 4095, 1 << 44, u64::MAX, (2 << 12) | 4095] {
            assert_eq!(numbering.node(number), None, "{number:#x}");
        }
    }
}
