//! An empty cell's leaf goes, and the spine directories that nothing else needs; their counters stay (I6).

use crate::{CellId, Dir, Forest, GroupId};

/// A v2 directory that will go, and the groups that keep its last figures.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fold {
    /// The directory.
    pub dir: Dir,
    /// The groups it was a carrier of.
    pub carried: Vec<GroupId>,
    /// The groups whose cell it was the leaf of; none for a spine directory.
    pub own: Vec<GroupId>,
}

/// An empty cell that will go. Holds its groups.
#[must_use]
#[derive(Debug)]
pub struct RetirePlan {
    cell: CellId,
    groups: Vec<GroupId>,
    folds: Vec<Fold>,
}

impl RetirePlan {
    /// The directories to remove, leaf first, each with the groups that its counters are added to.
    pub fn folds(&self) -> &[Fold] {
        &self.folds
    }
}

impl Forest {
    /// Plans to take away a cell that has no processes any more. `None` if it is unknown or a plan needs it.
    pub fn plan_retire(&mut self, cell: CellId) -> Option<RetirePlan> {
        if self.cells.get(&cell)?.pins > 0 {
            return None;
        }
        let groups = self.cells[&cell].coordinates.groups.to_vec();
        let leaf = self.leaf(cell).expect("the cell exists");
        let mut folds = vec![Fold { dir: leaf, carried: self.carried_by_leaf(&groups), own: groups.clone() }];
        if let Some(home) = self.home(&groups) {
            let lonely = std::iter::once(home).chain(self.ancestors(home));
            folds.extend(lonely.take_while(|id| self.groups[id].homed == 1).map(|id| Fold {
                dir: self.spine(id),
                carried: vec![id],
                own: Vec::new(),
            }));
        }
        self.cells.get_mut(&cell).expect("seen above").pins += 1;
        for group in &groups {
            self.pin_group(*group);
        }
        Some(RetirePlan { cell, groups, folds })
    }

    /// The directories have gone. Returns the cell's groups, any of which may be idle now.
    pub fn commit_retire(&mut self, plan: RetirePlan) -> Vec<GroupId> {
        self.cells.get_mut(&plan.cell).expect("the plan held the cell").occupied = false;
        self.end_retire(plan)
    }

    /// The cell stays: somebody put a process into it.
    pub fn abort_retire(&mut self, plan: RetirePlan) {
        self.end_retire(plan);
    }

    fn end_retire(&mut self, plan: RetirePlan) -> Vec<GroupId> {
        self.unpin_cell(plan.cell);
        for group in &plan.groups {
            self.unpin_group(*group);
        }
        plan.groups
    }

    /// The groups whose carrier a leaf is: those of every hierarchy but the leading one, with all above them but
    /// the root, whose carrier is the base.
    fn carried_by_leaf(&self, groups: &[GroupId]) -> Vec<GroupId> {
        let leading = self.leading();
        groups
            .iter()
            .filter(|id| Some(self.groups[id].hierarchy) != leading)
            .flat_map(|id| std::iter::once(*id).chain(self.ancestors(*id)))
            .filter(|id| self.groups[id].parent.is_some())
            .collect()
    }
}
