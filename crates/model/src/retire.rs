//! An empty cell's leaf goes, and the spine directories that nothing else needs; their counters stay (I6).
//!
//! A directory that a group waited for may be its alone then. The group claims it: from then on it is carried there and not
//! by the directories below, which have counted less (not what had gone before) or the same.

use std::collections::BTreeSet;

use crate::{CellId, Dir, Forest, GroupId, SpineId};

/// A group whose carriers change: the counters of those it loses are added to what it keeps, and those of a
/// directory it gains, which has counted before, taken off.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fold {
    /// The group.
    pub group: GroupId,
    /// The carriers it loses, whether they go or only carry it no more.
    pub lost: Vec<Dir>,
    /// The carriers it gains.
    pub gained: Vec<Dir>,
}

impl Fold {
    /// What changes for a group from these directories to those. `None`: nothing.
    pub(crate) fn between(group: GroupId, before: &BTreeSet<Dir>, after: &BTreeSet<Dir>) -> Option<Self> {
        let apart = |these: &BTreeSet<Dir>, those: &BTreeSet<Dir>| these.difference(those).cloned().collect();
        (before != after).then(|| Self { group, lost: apart(before, after), gained: apart(after, before) })
    }
}

/// A group that claims a spine directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim {
    /// The directory.
    pub spine: SpineId,
    /// The group.
    pub group: GroupId,
}

/// An empty cell that will go. Holds its groups.
#[must_use]
#[derive(Debug)]
pub struct RetirePlan {
    cell: CellId,
    groups: Vec<GroupId>,
    leaf: Dir,
    spines: Vec<SpineId>,
    dirs: Vec<Dir>,
    claims: Vec<Claim>,
    folds: Vec<Fold>,
    own_folds: Vec<Fold>,
}

impl RetirePlan {
    /// The leaf.
    pub fn leaf(&self) -> &Dir {
        &self.leaf
    }

    /// The directories to remove, leaf first.
    pub fn dirs(&self) -> &[Dir] {
        &self.dirs
    }

    /// The spine directories among them, innermost first.
    pub fn spines(&self) -> &[SpineId] {
        &self.spines
    }

    /// The groups whose cell it was: they keep what only leaves count.
    pub fn groups(&self) -> &[GroupId] {
        &self.groups
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
    /// Plans to take away a cell that has no processes any more. `None` if it is unknown or a plan needs it.
    pub fn plan_retire(&mut self, cell: CellId) -> Option<RetirePlan> {
        self.plan_retire_if(cell, |_| true)
    }

    /// [`Self::plan_retire`] with those claims alone that are wanted: who waits for another directory goes on waiting, until the next cell
    /// leaves that.
    pub fn plan_retire_if(&mut self, cell: CellId, is_wanted: impl Fn(&Claim) -> bool) -> Option<RetirePlan> {
        let found = self.cells.get(&cell)?;
        if found.pins > 0 {
            return None;
        }
        let groups = found.coordinates.groups.to_vec();
        let chain = self.chain(found.home);
        let leaf = self.leaf(cell).expect("the cell exists");
        let spines: Vec<SpineId> =
            chain.iter().rev().copied().take_while(|spine| self.spines[spine].cells == 1).collect();
        let going = spines.iter().map(|spine| self.spine_dir(Some(*spine)));
        let dirs: Vec<Dir> = std::iter::once(leaf.clone()).chain(going).collect();
        let mut claims = self.claims_after(&chain, &spines, &groups);
        claims.retain(is_wanted);
        let mut folds = self.folds_of_removal(cell, &groups, &dirs);
        for claim in &claims {
            self.folds_of_claim(*claim, &claims, Some(cell), &mut folds);
        }
        let own_folds = self.own_folds_of_removal(cell, &leaf, &groups, &claims, &folds);
        self.cells.get_mut(&cell).expect("seen above").pins += 1;
        let held = groups.iter().chain(claims.iter().map(|claim| &claim.group));
        held.for_each(|group| self.pin_group(*group));
        Some(RetirePlan { cell, groups, leaf, spines, dirs, claims, folds, own_folds })
    }

    /// The directories have gone. Returns the cell's groups, any of which may be idle now.
    pub fn commit_retire(&mut self, plan: RetirePlan) -> Vec<GroupId> {
        self.cells.get_mut(&plan.cell).expect("the plan held the cell").occupied = false;
        self.set_kept(plan.cell, false);
        let claims = plan.claims.clone();
        let groups = self.end_retire(plan);
        for Claim { spine, group } in claims {
            self.claim(spine, group);
        }
        groups
    }

    /// What a plan takes from groups that have no other directory: what is charged there is theirs no more when it is carried
    /// out.
    pub fn last_carriers<'a>(&'a self, plan: &'a RetirePlan) -> impl Iterator<Item = (GroupId, &'a Dir)> {
        // Who claims a directory instead loses none: its charge is in that.
        let goes = |fold: &&Fold| fold.gained.is_empty() && self.groups[&fold.group].below == 1;
        let of_last = plan.folds.iter().filter(goes);
        of_last.flat_map(|fold| fold.lost.iter().map(|dir| (fold.group, dir)))
    }

    /// Nobody is in the cell, but its directories stay: something is charged to them that counts for its groups. Whoever
    /// comes to it comes to them. Returns its groups, any of which may be idle now; none, if it was so before.
    pub fn keep_empty(&mut self, plan: RetirePlan) -> Vec<GroupId> {
        let cell = self.cells.get_mut(&plan.cell).expect("the plan held the cell");
        let was_kept = cell.kept;
        (cell.occupied, cell.kept) = (false, true);
        let groups = self.end_retire(plan);
        if was_kept { Vec::new() } else { groups }
    }

    /// The cell stays: somebody put a process into it.
    pub fn abort_retire(&mut self, plan: RetirePlan) {
        self.end_retire(plan);
    }

    fn end_retire(&mut self, plan: RetirePlan) -> Vec<GroupId> {
        self.unpin_cell(plan.cell);
        let held = plan.groups.iter().chain(plan.claims.iter().map(|claim| &claim.group));
        held.for_each(|group| self.unpin_group(*group));
        plan.groups
    }

    /// The groups that can claim a directory once a cell with these groups has left the chain.
    fn claims_after(&self, chain: &[SpineId], going: &[SpineId], groups: &[GroupId]) -> Vec<Claim> {
        let mut claims: Vec<Claim> = Vec::new();
        let mut make = |spine: SpineId, group: GroupId, foreign: u32| {
            let has_other = self.groups[&group].spine.is_some_and(|spine| !going.contains(&spine));
            let made = claims.iter().any(|claim| {
                claim.group == group
                    || claim.spine == spine
                        && self.groups[&claim.group].hierarchy == self.groups[&group].hierarchy
            });
            if foreign == 0
                && !has_other
                && !made
                && self.is_unclaimed_by(spine, self.groups[&group].hierarchy)
            {
                claims.push(Claim { spine, group });
            }
        };
        for spine in chain.iter().filter(|spine| !going.contains(spine)) {
            for waiting in &self.spines[spine].waiting {
                let outside = !groups.iter().any(|group| self.is_within(*group, waiting.group));
                make(*spine, waiting.group, waiting.foreign - u32::from(outside));
            }
        }
        // Who loses the directory that it has may wait for another one elsewhere.
        for group in going.iter().flat_map(|spine| &self.spines[spine].claims) {
            for (spine, foreign) in self.awaited(*group) {
                if !chain.contains(&spine) {
                    make(spine, *group, foreign);
                }
            }
        }
        claims
    }

    /// The spine directories that a group waits for, outermost first, and how many foreign cells are there.
    fn awaited(&self, group: GroupId) -> Vec<(SpineId, u32)> {
        let waits = |spine: &SpineId| {
            let waiting = self.spines[spine].waiting.iter().find(|waiting| waiting.group == group);
            waiting.map(|waiting| (*spine, waiting.foreign))
        };
        self.groups[&group].awaited.iter().filter_map(waits).collect()
    }

    /// The groups that lose a carrier because it goes.
    fn folds_of_removal(&self, cell: CellId, groups: &[GroupId], dirs: &[Dir]) -> Vec<Fold> {
        let all = groups.iter().flat_map(|group| self.way_to(*group));
        let lost = |group: GroupId| {
            let carrier = self.carrier_of(group, cell).filter(|carrier| dirs.contains(carrier))?;
            Some(Fold { group, lost: vec![carrier], gained: Vec::new() })
        };
        all.filter_map(lost).collect()
    }

    /// The groups whose own carriers change when a cell goes: its own, and those that have nobody below them without it.
    fn own_folds_of_removal(
        &self,
        cell: CellId,
        leaf: &Dir,
        groups: &[GroupId],
        claims: &[Claim],
        folds: &[Fold],
    ) -> Vec<Fold> {
        let of_leaf = groups.iter().filter(|group| !self.groups[group].has_none_below());
        let of_leaf =
            of_leaf.map(|group| Fold { group: *group, lost: vec![leaf.clone()], gained: Vec::new() });
        let alone_then = |id: &GroupId| {
            let group = &self.groups[id];
            !group.cells.is_empty() && group.cells.len() + 1 == group.below as usize
        };
        let above = groups.iter().flat_map(|group| self.ancestors(*group)).filter(alone_then);
        let above = above.filter_map(|id| {
            let before = self.own_leaves(id).into_iter().collect();
            Fold::between(id, &before, &self.own_carriers_once(id, claims, Some(cell)))
        });
        // Where nobody is below, what carries the group carries its own.
        let alone = folds.iter().filter(|fold| self.groups[&fold.group].has_none_below()).cloned();
        of_leaf.chain(above).chain(alone).collect()
    }

    /// What becomes of own carriers when somebody comes to a group: of the one above it, if there is one, that has processes
    /// itself and nobody below yet. What is made for who comes is not told.
    pub fn own_fold_of_entry(&self, group: GroupId) -> Option<Fold> {
        let is_alone = |id: &GroupId| {
            let found = &self.groups[id];
            !found.cells.is_empty() && found.has_none_below()
        };
        let above = self.ancestors(group).find(is_alone)?;
        let after = self.own_leaves(above).into_iter().collect();
        Fold::between(above, &self.own_carriers_once(above, &[], None), &after)
    }

    /// The groups that a claimed directory carries from now on: the one that claims it, and those above it that are not
    /// carried further out.
    pub(crate) fn folds_of_claim(
        &self,
        claim: Claim,
        claims: &[Claim],
        leaving: Option<CellId>,
        folds: &mut Vec<Fold>,
    ) {
        let Claim { spine, group } = claim;
        let above = self.chain(self.spines[&spine].parent);
        let up = std::iter::once(group).chain(self.ancestors(group));
        let up = up.filter(|id| self.groups[id].parent.is_some());
        let inside: Vec<CellId> = self
            .inhabited(group)
            .flat_map(|id| self.groups[&id].cells.iter().copied())
            .filter(|cell| Some(*cell) != leaving && self.chain(self.cells[cell].home).contains(&spine))
            .collect();
        for group in up {
            let claimed = claims.iter().find(|claim| claim.group == group).map(|claim| claim.spine);
            if claimed.or(self.groups[&group].spine).is_some_and(|spine| above.contains(&spine)) {
                break;
            }
            let lost: BTreeSet<Dir> =
                inside.iter().filter_map(|cell| self.carrier_of(group, *cell)).collect();
            let gained = self.spine_dir(Some(spine));
            let position = folds.iter().position(|fold| fold.group == group).unwrap_or_else(|| {
                folds.push(Fold { group, lost: Vec::new(), gained: Vec::new() });
                folds.len() - 1
            });
            folds[position].lost.extend(lost);
            folds[position].gained.push(gained);
        }
    }
}
