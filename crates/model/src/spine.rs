//! Spine directories: where leaves hang, and which groups each may carry.
//!
//! A spine directory is *claimed* by at most one group of each hierarchy. The claim means: every cell at or below it is in
//! that group or below it. It is never broken: a cell that does not fit hangs from elsewhere. So a group whose claimed
//! directory holds all of its cells is carried by it alone, and to see that is one comparison.
//!
//! A group may come to a directory that holds other cells already (the same path in a second hierarchy, entered
//! later). Then it *waits*, with the number of cells there that are not its own, and claims the directory when
//! the last of them goes.

use crate::forest::{NoNumber, next};
use crate::{Dir, Forest, GroupId, HierarchyId, SpineId};

/// A v2 directory from which leaves and other spine directories hang.
#[derive(Debug)]
pub(crate) struct Spine {
    /// The spine directory above; `None`: the realm's own.
    pub(crate) parent: Option<SpineId>,
    /// How many cells hang at or below it. Never 0 but while it is made.
    pub(crate) cells: u32,
    /// The groups that all those cells are in. Never empty, at most one of each hierarchy.
    pub(crate) claims: Vec<GroupId>,
    /// Groups of the same path that would claim it.
    pub(crate) waiting: Vec<Waiting>,
}

/// A group some of whose cells hang at or below a spine directory that holds others, too.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) group: GroupId,
    /// How many cells there are not the group's.
    pub(crate) foreign: u32,
}

/// Where a new cell's leaf will hang.
#[derive(Default, Debug)]
pub(crate) struct Home {
    /// The spine directory that is there already; `None`: the realm's own.
    pub(crate) at: Option<SpineId>,
    /// The groups that claim each spine directory to be made below it, outermost first.
    pub(crate) make: Vec<Vec<GroupId>>,
}

impl Forest {
    /// The groups that a spine directory holds nothing but cells of. Empty if there is no such directory.
    pub fn claims(&self, id: SpineId) -> &[GroupId] {
        self.spines.get(&id).map_or(&[], |spine| &spine.claims)
    }

    /// Every spine directory, in no order.
    pub fn spines(&self) -> impl Iterator<Item = SpineId> {
        self.spines.keys().copied()
    }

    /// The directory of a spine; the realm's own for `None`.
    pub fn spine_dir(&self, id: Option<SpineId>) -> Dir {
        self.chain(id).into_iter().fold(Dir::REALM, |dir, id| dir.spine(id))
    }

    /// The spine directories from the top down to this one.
    pub(crate) fn chain(&self, id: Option<SpineId>) -> Vec<SpineId> {
        let mut chain: Vec<_> = std::iter::successors(id, |id| self.spines[id].parent).collect();
        chain.reverse();
        chain
    }

    /// Whether a cell with these groups may hang below a spine directory: it is in every group that claims it.
    pub(crate) fn admits(&self, spine: SpineId, groups: &[GroupId]) -> bool {
        self.spines[&spine]
            .claims
            .iter()
            .all(|claim| groups.iter().any(|group| self.is_within(*group, *claim)))
    }

    /// Whether a group is another, or below it.
    pub(crate) fn is_within(&self, group: GroupId, above: GroupId) -> bool {
        std::iter::once(group).chain(self.ancestors(group)).any(|id| id == above)
    }

    /// Whether a group of a hierarchy other than those that have claimed it can claim a spine directory.
    pub(crate) fn is_unclaimed_by(&self, spine: SpineId, hierarchy: HierarchyId) -> bool {
        self.spines[&spine].claims.iter().all(|claim| self.groups[claim].hierarchy != hierarchy)
    }

    /// Makes a row of spine directories below one another.
    pub(crate) fn make_spines(
        &mut self,
        mut at: Option<SpineId>,
        make: Vec<Vec<GroupId>>,
    ) -> Result<Vec<SpineId>, NoNumber> {
        let numbers = make.iter().map(|_| next(&mut self.last_spine)).collect::<Result<Vec<_>, _>>()?;
        let mut made = Vec::with_capacity(numbers.len());
        for (number, claims) in numbers.into_iter().zip(make) {
            let id = SpineId::new(number).ok_or(NoNumber)?;
            self.insert_spine(id, at, claims);
            made.push(id);
            at = Some(id);
        }
        Ok(made)
    }

    pub(crate) fn insert_spine(&mut self, id: SpineId, parent: Option<SpineId>, claims: Vec<GroupId>) {
        for claim in &claims {
            self.groups.get_mut(claim).expect("who claims exists").spine = Some(id);
        }
        self.spines.insert(id, Spine { parent, cells: 0, claims, waiting: Vec::new() });
    }

    /// A cell with these groups hangs from `home` now.
    pub(crate) fn enter_spines(&mut self, home: Option<SpineId>, groups: &[GroupId]) {
        for (depth, id) in self.chain(home).into_iter().enumerate() {
            let new = self.who_waits(id, depth, groups);
            let outside: Vec<bool> = self.outside(id, groups);
            let spine = self.spines.get_mut(&id).expect("a home and those above it exist");
            for (waiting, outside) in spine.waiting.iter_mut().zip(outside) {
                waiting.foreign += u32::from(outside);
            }
            let foreign = spine.cells;
            spine.waiting.extend(new.iter().map(|group| Waiting { group: *group, foreign }));
            spine.cells += 1;
            for group in new {
                self.groups.get_mut(&group).expect("a cell's groups exist").awaited.insert(id);
            }
        }
    }

    /// A cell with these groups does not hang from `home` any more. Directories without cells go, and so do their claims.
    pub(crate) fn leave_spines(&mut self, home: Option<SpineId>, groups: &[GroupId]) {
        for id in self.chain(home).into_iter().rev() {
            let outside: Vec<bool> = self.outside(id, groups);
            let spine = self.spines.get_mut(&id).expect("a home and those above it exist");
            spine.cells -= 1;
            let left = spine.cells;
            for (waiting, outside) in spine.waiting.iter_mut().zip(outside) {
                waiting.foreign -= u32::from(outside);
            }
            // One none of whose cells are left there does not wait any more.
            for gone in spine.waiting.extract_if(.., |waiting| waiting.foreign >= left) {
                self.groups.get_mut(&gone.group).expect("who waits exists").awaited.remove(&id);
            }
            if left == 0 {
                let spine = self.spines.remove(&id).expect("just seen");
                for claim in spine.claims {
                    self.groups.get_mut(&claim).expect("who claims exists").spine = None;
                }
            }
        }
    }

    /// A group that waited claims a spine directory.
    pub(crate) fn claim(&mut self, spine: SpineId, group: GroupId) {
        let found = self.spines.get_mut(&spine).expect("the plan saw it");
        found.waiting.retain(|waiting| waiting.group != group);
        found.claims.push(group);
        let group = self.groups.get_mut(&group).expect("the plan held it");
        group.awaited.remove(&spine);
        group.spine = Some(spine);
    }

    /// A group that claimed a spine directory waits for it: the opposite of [`Forest::claim`].
    pub(crate) fn wait_again(&mut self, spine: SpineId, group: GroupId) {
        let found = self.spines.get_mut(&spine).expect("who claims it keeps it");
        found.claims.retain(|claim| *claim != group);
        found.waiting.push(Waiting { group, foreign: 0 });
        let group = self.groups.get_mut(&group).expect("the plan held it");
        group.awaited.insert(spine);
        group.spine = None;
    }

    /// For each group that waits at a spine directory, whether a cell with these groups is not in it.
    fn outside(&self, spine: SpineId, groups: &[GroupId]) -> Vec<bool> {
        let within = |waiting: &Waiting| groups.iter().any(|group| self.is_within(*group, waiting.group));
        self.spines[&spine].waiting.iter().map(|waiting| !within(waiting)).collect()
    }

    /// The groups of a new cell that have the path of the spine directory at this depth and neither claim it nor wait yet.
    fn who_waits(&self, spine: SpineId, depth: usize, groups: &[GroupId]) -> Vec<GroupId> {
        let found = &self.spines[&spine];
        let path = found.claims[0];
        let at_depth = self.placed(groups).filter_map(|group| self.ancestor_at(group, depth));
        at_depth
            .filter(|group| self.is_unclaimed_by(spine, self.groups[group].hierarchy))
            .filter(|group| found.waiting.iter().all(|waiting| waiting.group != *group))
            .filter(|group| self.have_one_path(*group, path))
            .collect()
    }

    /// The group so far below the root (0: right below it) on the way to this one.
    pub(crate) fn ancestor_at(&self, group: GroupId, depth: usize) -> Option<GroupId> {
        let way: Vec<GroupId> = self.way_to(group);
        way.get(depth).copied()
    }

    /// The groups from below the root down to this one.
    pub(crate) fn way_to(&self, group: GroupId) -> Vec<GroupId> {
        let up = std::iter::once(group).chain(self.ancestors(group));
        let mut way: Vec<GroupId> = up.filter(|id| self.groups[id].parent.is_some()).collect();
        way.reverse();
        way
    }

    /// Whether two groups have the same names from the root down.
    pub(crate) fn have_one_path(&self, one: GroupId, other: GroupId) -> bool {
        one == other || self.path(one) == self.path(other)
    }
}
