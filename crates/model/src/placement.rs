//! Where a cell's leaf hangs in the v2 tree, and which v2 directories carry a group's limits.
//!
//! Only hierarchies whose controllers the kernel enforces along the v2 tree take part in the choice. Of a new cell's
//! groups in these, each is a *guide*: the way from the root to it, one spine directory a group. A directory of another
//! cell is shared as long as the cell is in every group that claims it (see [`crate::spine`]); the rest of the way is new.
//! The guide is taken whose way has the most of the cell's groups on it: so the same path in every hierarchy, or one
//! hierarchy going on where another ends, puts every group in a directory of its own.
//!
//! The carriers of a group are the outermost directories that hold nothing but its cells, and together all of them: its
//! claimed directory, those of groups below it, and single leaves.

use std::collections::{BTreeSet, HashSet};

use crate::retire::Claim;
use crate::spine::Home;
use crate::{CellId, ControllerSet, Dir, Forest, GroupId, SpineId};

/// The controllers that decide where leaves hang.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Placing {
    /// Those whose limits the kernel enforces along the v2 tree.
    pub limiting: ControllerSet,
    /// Of these, those whose limit kills when it is met: their groups come first, since a part of such a limit is
    /// worse than a part of another.
    pub first: ControllerSet,
}

/// The v2 directories that together hold exactly the processes of a group and of those below it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Carriers {
    /// The base: the root group, and processes that pinfold never moved.
    Scope,
    /// Directories of the realm. None while the group is empty; with one, the kernel enforces its limits alone.
    Dirs(Vec<Dir>),
}

impl Carriers {
    /// The directories of the realm among them.
    pub fn into_dirs(self) -> Vec<Dir> {
        match self {
            Self::Scope => Vec::new(),
            Self::Dirs(dirs) => dirs,
        }
    }
}

impl Forest {
    /// The leaf of a cell.
    pub fn leaf(&self, id: CellId) -> Option<Dir> {
        Some(self.spine_dir(self.cells.get(&id)?.home).cell(id))
    }

    /// The directories that carry a group. `None` if the group is gone.
    pub fn carriers(&self, id: GroupId) -> Option<Carriers> {
        let group = self.groups.get(&id)?;
        if group.parent.is_none() {
            return Some(Carriers::Scope);
        }
        if let Some(spine) = group.spine.filter(|spine| self.spines[spine].cells == group.below) {
            return Some(Carriers::Dirs(vec![self.spine_dir(Some(spine))]));
        }
        Some(Carriers::Dirs(self.outermost(id, usize::MAX)))
    }

    /// The outermost directories that hold nothing but cells of a group, and no more of them once there are enough.
    fn outermost(&self, id: GroupId, enough: usize) -> Vec<Dir> {
        let mut spines: HashSet<SpineId> = HashSet::new();
        let mut dirs = Vec::new();
        for id in self.inhabited(id) {
            if dirs.len() >= enough {
                break;
            }
            let within =
                |spines: &HashSet<SpineId>, home| self.chain(home).iter().any(|id| spines.contains(id));
            let group = &self.groups[&id];
            if let Some(spine) = group.spine.filter(|spine| !within(&spines, Some(*spine))) {
                spines.insert(spine);
                dirs.push(self.spine_dir(Some(spine)));
            }
            let apart = group.cells.iter().filter(|cell| !within(&spines, self.cells[cell].home));
            let missing = enough.saturating_sub(dirs.len());
            dirs.extend(apart.filter_map(|cell| self.leaf(*cell)).take(missing));
        }
        dirs
    }

    /// The group itself and those below it that have cells, or groups with cells below them: parents before children. No other is
    /// looked at.
    pub fn inhabited(&self, id: GroupId) -> impl Iterator<Item = GroupId> + '_ {
        let mut stack = vec![id];
        std::iter::from_fn(move || {
            let next = stack.pop()?;
            stack.extend(self.groups.get(&next).into_iter().flat_map(|group| &group.inhabited));
            Some(next)
        })
    }

    /// The carrier of a group that holds one of its cells: the outermost directory on the way to the leaf that
    /// belongs to the group or to one between it and the cell; else the leaf.
    pub fn carrier_of(&self, group: GroupId, cell: CellId) -> Option<Dir> {
        let found = self.cells.get(&cell)?;
        let hierarchy = self.groups.get(&group)?.hierarchy;
        let own = found.coordinates.groups.iter().find(|id| self.groups[id].hierarchy == hierarchy)?;
        let way: Vec<GroupId> = self.way_to(*own).into_iter().skip_while(|id| *id != group).collect();
        if way.is_empty() {
            return None;
        }
        let claimed = |spine: &SpineId| self.spines[spine].claims.iter().any(|claim| way.contains(claim));
        match self.chain(found.home).into_iter().find(claimed) {
            Some(spine) => Some(self.spine_dir(Some(spine))),
            None => self.leaf(cell),
        }
    }

    /// The groups that a directory is a carrier of, outermost first in each hierarchy.
    pub fn carried(&self, dir: &Dir) -> Vec<GroupId> {
        let (inner, home) = match dir.leaf() {
            Some(cell) => match self.cells.get(&cell) {
                Some(found) => (found.coordinates.groups.to_vec(), found.home),
                None => return Vec::new(),
            },
            None => match dir.spines().last().and_then(|id| self.spines.get(id)) {
                Some(spine) => (spine.claims.clone(), spine.parent),
                None => return Vec::new(),
            },
        };
        let above = self.chain(home);
        let is_further_out =
            |group: &GroupId| self.groups[group].spine.is_some_and(|spine| above.contains(&spine));
        // A group whose directory is further out is carried there, and so is all above it.
        let carried = |group: GroupId| {
            let up = std::iter::once(group).chain(self.ancestors(group));
            let up = up.filter(|id| self.groups[id].parent.is_some());
            let mut found: Vec<GroupId> = up.take_while(|group| !is_further_out(group)).collect();
            found.reverse();
            found
        };
        inner.into_iter().flat_map(carried).collect()
    }

    /// The groups that a directory lies in: its cell's or those that claim it, and all above them but roots.
    pub fn held(&self, dir: &Dir) -> Vec<GroupId> {
        let inner = match dir.leaf() {
            Some(cell) => self.cells.get(&cell).map(|found| found.coordinates.groups.to_vec()),
            None => dir.spines().last().map(|spine| self.claims(*spine).to_vec()),
        };
        inner.into_iter().flatten().flat_map(|group| self.way_to(group)).collect()
    }

    /// Whether one directory carries a group: then the kernel enforces its limits alone.
    pub fn is_alone(&self, id: GroupId) -> bool {
        let Some(group) = self.groups.get(&id).filter(|group| group.parent.is_some()) else { return false };
        let is_whole = |spine: SpineId| self.spines[&spine].cells == group.below;
        group.below == 1
            || group.spine.is_some_and(is_whole)
            || group.below > 1 && self.outermost(id, 2).len() == 1
    }

    /// The v2 directories that together hold exactly the processes of a group itself, not those of groups below it: its
    /// carriers while there are none below, else the leaves of its cells.
    pub fn own_carriers(&self, id: GroupId) -> Vec<Dir> {
        let Some(group) = self.groups.get(&id) else { return Vec::new() };
        match group.spine {
            Some(spine) if group.has_none_below() && self.spines[&spine].cells == group.below => {
                vec![self.spine_dir(Some(spine))]
            }
            _ => self.own_carriers_once(id, &[], None).into_iter().collect(),
        }
    }

    /// [`Self::own_carriers`] once these claims are made, and a cell of the group or of one below it has left.
    pub(crate) fn own_carriers_once(
        &self,
        id: GroupId,
        claims: &[Claim],
        leaving: Option<CellId>,
    ) -> BTreeSet<Dir> {
        let group = &self.groups[&id];
        let cells: Vec<CellId> = group.cells.iter().copied().filter(|cell| Some(*cell) != leaving).collect();
        let within = group.below as usize - usize::from(leaving.is_some());
        let claimed = claims.iter().find(|claim| claim.group == id).map(|claim| claim.spine);
        let spine = claimed.or(group.spine).filter(|_| cells.len() == within);
        let carrier = |cell: CellId| match spine {
            Some(spine) if self.chain(self.cells[&cell].home).contains(&spine) => {
                Some(self.spine_dir(Some(spine)))
            }
            _ => self.leaf(cell),
        };
        cells.into_iter().filter_map(carrier).collect()
    }

    /// The leaves of the cells that are exactly in a group, not below it.
    pub fn own_leaves(&self, id: GroupId) -> Vec<Dir> {
        let cells = self.groups.get(&id).into_iter().flat_map(|group| group.cells.iter());
        cells.filter_map(|cell| self.leaf(*cell)).collect()
    }

    /// The leaves of a group's cells, and of the cells of groups below it, that are in a carrier of the group's.
    pub fn leaves_in(&self, id: GroupId, carrier: &Dir) -> Vec<Dir> {
        let leaves = self.inhabited(id).flat_map(|id| self.own_leaves(id));
        match carrier.leaf() {
            Some(_) => vec![carrier.clone()],
            None => leaves.filter(|leaf| leaf.spines().starts_with(carrier.spines())).collect(),
        }
    }

    /// Those of a cell's groups whose hierarchy takes part in the choice of its place.
    pub(crate) fn placed<'a>(&'a self, groups: &'a [GroupId]) -> impl Iterator<Item = GroupId> + 'a {
        groups.iter().copied().filter(|id| self.has_any(*id, self.placing.limiting))
    }

    fn has_any(&self, group: GroupId, controllers: ControllerSet) -> bool {
        let bound = self.hierarchies[&self.groups[&group].hierarchy].controllers;
        !bound.intersection(controllers).is_empty()
    }

    /// Where the leaf of a new cell with these groups hangs.
    pub(crate) fn home(&self, groups: &[GroupId]) -> Home {
        let placed: Vec<GroupId> = self.placed(groups).collect();
        let ways = placed.iter().map(|guide| self.way(*guide, &placed, groups));
        // Of equal ways the oldest hierarchy's.
        let best = ways.reduce(|best, way| if way.worth > best.worth { way } else { best });
        best.map_or_else(Home::default, |way| way.home)
    }

    /// The way that a guide leads, as far as it can be gone.
    fn way(&self, guide: GroupId, placed: &[GroupId], groups: &[GroupId]) -> Way {
        let mut home = Home::default();
        let mut depth = 0;
        for group in self.way_to(guide) {
            let others = placed.iter().filter_map(|other| self.ancestor_at(*other, depth));
            let here: Vec<GroupId> = others.filter(|other| self.have_one_path(*other, group)).collect();
            match self.next_on_way(&home, group, &here, groups) {
                Next::There(spine) => home.at = Some(spine),
                Next::New => {
                    let free = here.into_iter().filter(|id| *id != group && self.groups[id].spine.is_none());
                    home.make.push(std::iter::once(group).chain(free).collect());
                }
                Next::Barred => break,
            }
            depth += 1;
        }
        let reached = |group: &&GroupId| {
            let way = self.way_to(**group);
            let last = |depth: usize| self.ancestor_at(guide, depth);
            way.len() <= depth && last(way.len() - 1).is_some_and(|id| self.have_one_path(id, **group))
        };
        let covered: Vec<GroupId> = placed.iter().filter(reached).copied().collect();
        let first = covered.iter().any(|id| self.has_any(*id, self.placing.first));
        Way { worth: (first, covered.len(), depth), home }
    }

    fn next_on_way(&self, home: &Home, group: GroupId, here: &[GroupId], groups: &[GroupId]) -> Next {
        let follows = |spine: &SpineId| {
            home.make.is_empty() && self.spines[spine].parent == home.at && self.admits(*spine, groups)
        };
        if let Some(spine) = self.groups[&group].spine {
            return if follows(&spine) { Next::There(spine) } else { Next::Barred };
        }
        let hierarchy = self.groups[&group].hierarchy;
        let shared = here.iter().filter_map(|other| self.groups[other].spine);
        let shared = shared.filter(follows).find(|spine| self.is_unclaimed_by(*spine, hierarchy));
        shared.map_or(Next::New, Next::There)
    }
}

/// A guide's way, and what it is worth: whether a group that comes first is on it, how many groups, how deep.
struct Way {
    worth: (bool, usize, usize),
    home: Home,
}

/// The next spine directory on a way.
enum Next {
    There(SpineId),
    New,
    /// The group's own directory is elsewhere, or has no place for the cell.
    Barred,
}
