//! Attaching the only process of a cell: the cell shifts along one coordinate, and the process stays in its leaf.
//!
//! A runtime attaches a process to one hierarchy after the other. Were it moved each time, each attach but the last would make
//! a leaf that the next one takes away again. So a cell whose leaf would hang where it hangs now takes the new coordinates
//! itself. What the leaf has counted so far stays with the groups that it leaves, and is taken off what it counts for those
//! that it comes to, as when an empty cell goes (see [`crate::retire`]).
//!
//! The kernel's charges and limits stay with a directory. So in a hierarchy that takes part in the choice of a leaf's place,
//! a cell only comes from the root, and only to a group that claims a spine directory then: its processes would have come
//! there by a move, too, and with all that was charged before.
//!
//! Out of scope: whether the process is the only one. That is for who looks at the leaf.

use std::collections::BTreeSet;

use crate::forest::Coordinates;
use crate::retire::{Claim, Fold};
use crate::spine::{Home, Waiting};
use crate::{CellId, Dir, Forest, GroupId, HierarchyId, Seat, SpineId};

/// A cell that may take other coordinates. Holds it, and the group that it comes to.
#[must_use]
#[derive(Debug)]
pub struct ShiftPlan {
    cell: CellId,
    hierarchy: HierarchyId,
    group: GroupId,
    left: Option<GroupId>,
    entered: Option<GroupId>,
    from: Coordinates,
    to: Coordinates,
    claims: Vec<Claim>,
    folds: Vec<Fold>,
    own_folds: Vec<Fold>,
}

impl ShiftPlan {
    /// The cell.
    pub fn cell(&self) -> CellId {
        self.cell
    }

    /// The hierarchy in which its group changes.
    pub fn hierarchy(&self) -> HierarchyId {
        self.hierarchy
    }

    /// The group that it leaves. `None`: the root.
    pub fn left(&self) -> Option<GroupId> {
        self.left
    }

    /// The group that it comes to. `None`: the root.
    pub fn entered(&self) -> Option<GroupId> {
        self.entered
    }

    /// The groups whose carriers change, each once.
    pub fn folds(&self) -> &[Fold] {
        &self.folds
    }

    /// The groups whose own carriers change ([`Forest::own_carriers`]), each once.
    pub fn own_folds(&self) -> &[Fold] {
        &self.own_folds
    }

    /// The claims that commit makes.
    pub fn claims(&self) -> &[Claim] {
        &self.claims
    }
}

impl Forest {
    /// Plans to put the only process of a cell into a group. `None`: it has to be moved ([`Forest::plan_attach`]), or is there
    /// already.
    pub fn plan_shift(&mut self, cell: CellId, group: GroupId) -> Option<ShiftPlan> {
        self.live_group(group).ok()?;
        let (_, coordinates) = self.moved(&Seat::Cell(cell), group).ok()?;
        let to = coordinates.filter(|to| !to.groups.is_empty() && !self.interned.contains_key(to))?;
        let found = self.cells.get(&cell).filter(|found| found.occupied && found.pins == 0)?;
        let (from, here) = (found.coordinates.clone(), found.home);
        let Home { at, make } = self.home(&to.groups);
        if at != here || !make.is_empty() {
            return None;
        }
        let hierarchy = self.groups[&group].hierarchy;
        let left = from.groups.iter().copied().find(|id| self.groups[id].hierarchy == hierarchy);
        let is_placed = self.placed(&[group]).next().is_some();
        if is_placed && left.is_some() {
            return None;
        }
        let entered = self.groups[&group].parent.map(|_| group);
        let (claims, folds, own_folds) = (Vec::new(), Vec::new(), Vec::new());
        let mut plan =
            ShiftPlan { cell, hierarchy, group, left, entered, from, to, claims, folds, own_folds };
        self.foresee(&mut plan);
        if is_placed && plan.folds.iter().flat_map(|fold| &fold.gained).any(|dir| dir.leaf().is_some()) {
            return None;
        }
        self.cells.get_mut(&cell).expect("seen above").pins += 1;
        self.pin_group(group);
        Some(plan)
    }

    /// What `look` sees of the forest as it will be.
    pub fn as_if_shifted<T>(&mut self, plan: &ShiftPlan, look: impl FnOnce(&Self) -> T) -> T {
        self.shift(plan);
        let seen = look(self);
        self.shift_back(plan);
        seen
    }

    /// The process is in its group.
    pub fn commit_shift(&mut self, plan: ShiftPlan) {
        self.shift(&plan);
        self.generation += 1;
        self.end_shift(&plan);
    }

    /// The process stays in the group that it was in.
    pub fn abort_shift(&mut self, plan: ShiftPlan) {
        self.end_shift(&plan);
    }

    fn end_shift(&mut self, plan: &ShiftPlan) {
        self.unpin_cell(plan.cell);
        self.unpin_group(plan.group);
    }

    /// Finds out what the plan will change.
    fn foresee(&mut self, plan: &mut ShiftPlan) {
        let ends = plan.left.into_iter().chain(plan.entered);
        let mut groups: Vec<GroupId> = ends.flat_map(|end| self.way_to(end)).collect();
        groups.sort_unstable();
        groups.dedup();
        let carriers = |forest: &Self| -> Vec<Option<Dir>> {
            groups.iter().map(|group| forest.carrier_of(*group, plan.cell)).collect()
        };
        let before = carriers(self);
        let alone_before = self.who_is_alone(&groups);
        self.set_coordinates(plan.cell, plan.to.clone());
        let after = carriers(self);
        let alone_after = self.who_is_alone(&groups);
        let claims = self.claims_now(self.cells[&plan.cell].home, plan.hierarchy);
        let changes = groups.iter().zip(before.into_iter().zip(after));
        let mut folds: Vec<Fold> = changes
            .filter(|(_, (before, after))| before != after)
            .map(|(group, (before, after))| Fold {
                group: *group,
                lost: before.into_iter().collect(),
                gained: after.into_iter().collect(),
            })
            .collect();
        for claim in &claims {
            self.folds_of_claim(*claim, &claims, None, &mut folds);
        }
        // Of the others, it is the cell's leaf that goes or comes.
        let is_claimed = |group: &GroupId| claims.iter().any(|claim| claim.group == *group);
        let changed = |group: &GroupId| {
            is_claimed(group) || alone_before.contains(group) != alone_after.contains(group)
        };
        groups.retain(|group| changed(group) || Some(*group) == plan.left || Some(*group) == plan.entered);
        let own = |forest: &Self, claims: &[Claim], end: Option<GroupId>| -> Vec<BTreeSet<Dir>> {
            let leaf = |group: &GroupId| forest.leaf(plan.cell).filter(|_| Some(*group) == end);
            let dirs = |group: &GroupId| match changed(group) {
                true => forest.own_carriers_once(*group, claims, None),
                false => leaf(group).into_iter().collect(),
            };
            groups.iter().map(dirs).collect()
        };
        let own_after = own(self, &claims, plan.entered);
        self.set_coordinates(plan.cell, plan.from.clone());
        let own_before = own(self, &[], plan.left);
        let own = groups.iter().zip(own_before.iter().zip(&own_after));
        let own_folds =
            own.filter_map(|(group, (before, after))| Fold::between(*group, before, after)).collect();
        for Fold { lost, gained, .. } in &mut folds {
            // What carries a group until it claims more has not carried it yet.
            let both: Vec<Dir> = lost.iter().filter(|dir| gained.contains(dir)).cloned().collect();
            lost.retain(|dir| !both.contains(dir));
            gained.retain(|dir| !both.contains(dir));
        }
        folds.retain(|fold| !fold.lost.is_empty() || !fold.gained.is_empty());
        (plan.claims, plan.folds, plan.own_folds) = (claims, folds, own_folds);
    }

    /// Those that have cells of their own and none below.
    fn who_is_alone(&self, groups: &[GroupId]) -> BTreeSet<GroupId> {
        let is_alone = |id: &&GroupId| !self.groups[id].cells.is_empty() && self.groups[id].has_none_below();
        groups.iter().filter(is_alone).copied().collect()
    }

    /// The groups of a hierarchy that wait for one of the directories down to this one and have it to themselves now.
    fn claims_now(&self, home: Option<SpineId>, hierarchy: HierarchyId) -> Vec<Claim> {
        let mut claims: Vec<Claim> = Vec::new();
        for spine in self.chain(home).into_iter().filter(|spine| self.is_unclaimed_by(*spine, hierarchy)) {
            let may = |waiting: &&Waiting| {
                let found = &self.groups[&waiting.group];
                waiting.foreign == 0 && found.hierarchy == hierarchy && found.spine.is_none()
            };
            let first = self.spines[&spine].waiting.iter().find(may);
            claims.extend(first.map(|waiting| Claim { spine, group: waiting.group }));
        }
        claims
    }

    fn shift(&mut self, plan: &ShiftPlan) {
        self.set_coordinates(plan.cell, plan.to.clone());
        for Claim { spine, group } in &plan.claims {
            self.claim(*spine, *group);
        }
    }

    fn shift_back(&mut self, plan: &ShiftPlan) {
        for Claim { spine, group } in &plan.claims {
            self.wait_again(*spine, *group);
        }
        self.set_coordinates(plan.cell, plan.from.clone());
    }

    /// A cell has other coordinates, and hangs from where it hung.
    fn set_coordinates(&mut self, id: CellId, to: Coordinates) {
        let cell = self.cells.get_mut(&id).expect("the plan holds the cell");
        let home = cell.home;
        let from = std::mem::replace(&mut cell.coordinates, to.clone());
        self.interned.remove(&from);
        for group in &from.groups {
            self.groups.get_mut(group).expect("a cell's groups exist").cells.remove(&id);
        }
        for group in &to.groups {
            self.groups.get_mut(group).expect("a cell's groups exist").cells.insert(id);
        }
        self.count_below(&to.groups, |below| below + 1);
        self.count_below(&from.groups, |below| below - 1);
        // In this order: a directory without cells would go, and those who wait for it forget it.
        self.enter_spines(home, &to.groups);
        self.leave_spines(home, &from.groups);
        self.interned.insert(to, id);
    }
}
