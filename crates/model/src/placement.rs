//! Where a cell's leaf hangs in the v2 tree, and which v2 directories carry a group's limits.
//!
//! The spine mirrors the *leading* hierarchy: the one that has a controller whose limits the kernel enforces along the
//! tree. A leaf hangs from the spine directory of its cell's group there; without a leading hierarchy, from the
//! realm's own directory. Hence every limit is native: the directory of a limited group holds exactly the group's
//! processes. Two hierarchies with such controllers are a matter of the next step (design.md section 5).

use crate::{CellId, Dir, Forest, GroupId, HierarchyId};

/// The v2 directories that together hold exactly the processes of a group and of those below it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Carriers {
    /// The base: the root group, and processes that pinfold never moved.
    Scope,
    /// One spine directory: the kernel enforces the group's limits alone.
    Spine(Dir),
    /// The leaves of the cells in the group and below. None while the group is empty.
    Leaves(Vec<Dir>),
}

impl Forest {
    /// The hierarchy that the spine mirrors.
    pub fn leading(&self) -> Option<HierarchyId> {
        self.limiting.iter().find_map(|controller| self.bound_to(controller))
    }

    /// The group whose spine directory holds the leaf of a cell with these groups; `None`: the realm's directory.
    pub(crate) fn home(&self, groups: &[GroupId]) -> Option<GroupId> {
        let leading = self.leading()?;
        groups.iter().copied().find(|id| self.groups[id].hierarchy == leading)
    }

    /// The leaf of a cell.
    pub fn leaf(&self, id: CellId) -> Option<Dir> {
        let cell = self.cells.get(&id)?;
        let home = self.home(&cell.coordinates.groups);
        Some(home.map_or(Dir::REALM, |home| self.spine(home)).cell(id))
    }

    /// The spine directory of a group of the leading hierarchy; the realm's own for the root.
    pub fn spine(&self, id: GroupId) -> Dir {
        let mut spine: Vec<GroupId> = std::iter::once(id)
            .chain(self.ancestors(id))
            .filter(|id| self.groups[id].parent.is_some())
            .collect();
        spine.reverse();
        spine.into_iter().fold(Dir::REALM, |dir, id| dir.group(id))
    }

    /// The directories that carry a group. `None` if the group is gone.
    pub fn carriers(&self, id: GroupId) -> Option<Carriers> {
        let group = self.groups.get(&id)?;
        if group.parent.is_none() {
            return Some(Carriers::Scope);
        }
        if self.leading() == Some(group.hierarchy) {
            let dir = group.has_spine().then(|| Carriers::Spine(self.spine(id)));
            return Some(dir.unwrap_or(Carriers::Leaves(Vec::new())));
        }
        let below = self.subtree(id).flat_map(|id| self.groups[&id].cells.iter());
        Some(Carriers::Leaves(below.filter_map(|cell| self.leaf(*cell)).collect()))
    }

    /// The leaves of the cells that are exactly in a group, not below it.
    pub fn own_leaves(&self, id: GroupId) -> Vec<Dir> {
        let cells = self.groups.get(&id).into_iter().flat_map(|group| group.cells.iter());
        cells.filter_map(|cell| self.leaf(*cell)).collect()
    }
}
