//! Attaching the only process of a cell without moving it: the cell has other groups from then on.
//!
//! A child that is born between the look at who is in the leaf and the commit goes along, as one that is born a moment later
//! does: the kernel gives such a child either place, too.

use pinfold_kernel::Step;
use pinfold_kernel::process::Pinned;
use pinfold_model::{CellId, Dir, Forest, GroupId, HierarchyId, Seat, ShiftPlan};

use crate::carry::{Carrying, Extent};
use crate::realm::Changes;
use crate::record::{self, Fate, FoldRecord};
use crate::release::asks_for_release;
use crate::retire::{Place, claims_after};
use crate::shares::Shares;
use crate::state::Records;
use crate::write::set_values;
use crate::{AttachError, EffectError, Realm};

/// What a shift comes to outside the forest.
struct Deeds {
    /// The values that hold in the directories then and do not now.
    steps: Vec<Step>,
    /// The values that held.
    back: Vec<Step>,
    /// The cell's record.
    record: String,
}

impl Realm {
    /// Attaches a process where it is. False: it is there already, or has to be moved.
    pub(crate) fn shift(
        &self,
        change: &mut Changes,
        cell: CellId,
        group: GroupId,
        process: &Pinned,
    ) -> Result<bool, AttachError> {
        let (plan, leaf) = {
            let mut forest = self.lock_forest();
            let Some(plan) = forest.plan_shift(cell, group) else { return Ok(false) };
            if let Err(refused) = self.may_enter(&forest, group) {
                forest.abort_shift(plan);
                return Err(refused.into());
            }
            (plan, forest.leaf(cell).expect("the plan holds the cell"))
        };
        let deeds = match self.is_alone(process, &leaf) {
            true => self.deeds(change, &plan, &leaf),
            false => None,
        };
        let done = match &deeds {
            Some(deeds) => self.carry_out_shift(change, &plan, deeds, process, &leaf),
            None => Ok(None),
        };
        let Ok(Some(mut fold)) = done else {
            self.lock_forest().abort_shift(plan);
            return Ok(done.map(|_| false)?);
        };
        // Nothing below may fail: the record says that the cell has its groups.
        let left = plan.left();
        let is_displaced = !plan.folds().is_empty();
        let folds = plan.folds().to_vec();
        self.keep_fold(change, cell, &mut fold);
        {
            let mut forest = self.lock_forest();
            for (group, values) in std::mem::take(&mut fold.values) {
                set_values(&mut forest, group, values);
            }
            forest.commit_shift(plan);
        }
        self.resets.forget(&folds);
        left.into_iter().for_each(|group| self.release_if_idle(group));
        // Once it is told: until then the fold's record names it.
        self.finish_record(cell, &fold);
        self.descriptors_attached(change, process.process(), group);
        if is_displaced {
            self.notices.displaced();
        }
        Ok(true)
    }

    /// Whether a leaf has this process and no other.
    fn is_alone(&self, process: &Pinned, leaf: &Dir) -> bool {
        let is_one = self.tracker.processes(leaf).is_ok_and(|members| members == [process.process()]);
        is_one && process.verify().is_ok()
    }

    /// What has to be done. `None`: limits would have to be divided, a strict realm refuses the place, or limits would be
    /// written where something may be above them.
    fn deeds(&self, change: &mut Changes, plan: &ShiftPlan, leaf: &Dir) -> Option<Deeds> {
        self.keep_what_was_not(change);
        if !change.unkept.is_empty() {
            return None; // of this cell, perhaps: there is one record of it
        }
        let mut forest = self.lock_forest();
        let hierarchy = plan.hierarchy();
        let groups: Vec<GroupId> = plan.folds().iter().map(|fold| fold.group).collect();
        let changed = plan.folds().iter().flat_map(|fold| fold.lost.iter().chain(&fold.gained));
        let mut dirs: Vec<&Dir> = changed.chain([leaf]).collect();
        dirs.sort_unstable();
        dirs.dedup();
        let mut before = values(&forest, &change.shares, &dirs, hierarchy);
        let (mut after, is_refused, record) = forest.as_if_shifted(plan, |forest| {
            let carrying = Carrying { forest, shares: &change.shares, assigned: &[] };
            let cell = forest.cell(plan.cell()).expect("the plan holds the cell");
            let is_refused = !carrying.divided(groups.iter().copied()).is_empty()
                || self.refuse_place(forest, plan.cell()).is_err();
            (values(forest, &change.shares, &dirs, hierarchy), is_refused, record::cell_text(forest, cell))
        });
        let limits = forest.placing().limiting;
        let is_limiting = forest
            .hierarchy(hierarchy)
            .is_some_and(|found| !found.controllers().intersection(limits).is_empty());
        drop(forest);
        add_programs_that_go(&before, &mut after);
        add_programs_that_go(&after, &mut before);
        let apart = |these: &[Step], those: &[Step]| -> Vec<Step> {
            let new = these.iter().filter(|step| !those.contains(step) && self.has_file_of(step));
            new.cloned().collect()
        };
        let (steps, back) = (apart(&after, &before), apart(&before, &after));
        let is_barred = is_refused
            || groups.iter().any(|group| change.shares.has(*group))
            || is_limiting && !steps.is_empty()
            || steps.iter().chain(&back).any(empties);
        (!is_barred).then_some(Deeds { steps, back, record })
    }

    /// All that can fail, up to the record that says it is done; that is told. `None`: somebody else was born in the leaf.
    fn carry_out_shift(
        &self,
        change: &mut Changes,
        plan: &ShiftPlan,
        deeds: &Deeds,
        process: &Pinned,
        leaf: &Dir,
    ) -> Result<Option<FoldRecord>, EffectError> {
        self.keep_numbers(change, plan.entered().as_slice())?;
        self.descriptors_leaving(change, process.process(), &Seat::Cell(plan.cell()));
        self.tracker.carry_out(&deeds.steps)?;
        let kept = self.fold_of_shift(plan, deeds, leaf).and_then(|mut fold| {
            self.leave_out_what_stays(change, &mut fold);
            self.name_who_is_left(plan, &mut fold);
            if !self.is_alone(process, leaf) {
                return Ok(None);
            }
            // One rename says it all. Where more has to be said than the cell's groups, its own record follows.
            let number = plan.cell().get();
            if fold.values.is_empty() && fold.claims.is_empty() {
                self.state.keep(Records::Cells, number, Some(&deeds.record))?;
                fold.cell = Fate::Goes; // no record of a fold
            } else {
                self.state.keep(Records::Folds, number, Some(&record::fold_text(&fold)))?;
            }
            Ok(Some(fold))
        });
        if !matches!(kept, Ok(Some(_)))
            && let Err(stuck) = self.tracker.carry_out(&deeds.back)
        {
            tracing::error!("a value is in force that is another group's: {stuck}");
        }
        kept
    }

    fn fold_of_shift(&self, plan: &ShiftPlan, deeds: &Deeds, leaf: &Dir) -> Result<FoldRecord, EffectError> {
        let claims = claims_after(&self.lock_forest(), plan.claims());
        let mut fold =
            FoldRecord { cell: Fate::Shifts(deeds.record.clone()), claims, ..FoldRecord::default() };
        let leaf = std::slice::from_ref(leaf);
        if let Some(left) = plan.left() {
            self.fold_counters(&mut fold, Place::Leaves, left, leaf, &[])?;
        }
        if let Some(entered) = plan.entered() {
            self.fold_counters(&mut fold, Place::Leaves, entered, &[], leaf)?;
        }
        for change in plan.own_folds() {
            self.fold_counters(&mut fold, Place::Own, change.group, &change.lost, &change.gained)?;
        }
        for change in plan.folds() {
            self.fold_counters(&mut fold, Place::Carriers, change.group, &change.lost, &change.gained)?;
        }
        Ok(fold)
    }

    /// Has a fold's record name the group that is left if somebody waits for that to be empty, though nothing is counted for it: the
    /// next daemon tells of it then.
    fn name_who_is_left(&self, plan: &ShiftPlan, fold: &mut FoldRecord) {
        let Some(left) = plan.left() else { return };
        let is_named = fold.values.iter().any(|(group, _)| *group == left);
        if !is_named && self.lock_forest().group(left).is_some_and(asks_for_release) {
            fold.values.push((left, Vec::new()));
        }
    }

    /// The cell's own record says what the fold's says: that goes, once all is kept.
    fn finish_record(&self, cell: CellId, fold: &FoldRecord) {
        let Fate::Shifts(text) = &fold.cell else { return };
        match self.state.keep(Records::Cells, cell.get(), Some(text)) {
            Ok(()) if fold.kept => self.forget_fold(cell),
            Ok(()) => {}
            Err(error) => {
                tracing::error!("the groups of cell {cell} are kept in its fold's record only: {error}")
            }
        }
    }
}

/// All values of a hierarchy that hold in these directories.
fn values(forest: &Forest, shares: &Shares, dirs: &[&Dir], hierarchy: HierarchyId) -> Vec<Step> {
    let carrying = Carrying { forest, shares, assigned: &[] };
    dirs.iter().flat_map(|dir| carrying.steps_for_dir(dir, Some(hierarchy), Extent::All)).collect()
}

/// Whether a step takes all of a list away, which not every kernel lets one do to a directory with processes (validate_change() of
/// kernel/cgroup/cpuset.c).
fn empties(step: &Step) -> bool {
    matches!(step, Step::Write { text, .. } if text.trim_ascii().is_empty())
}

/// In a root no program is asked for, and none is told to go: it goes if there is one on the other side.
fn add_programs_that_go(these: &[Step], those: &mut Vec<Step>) {
    for step in these {
        let Step::Program { dir, slot, .. } = step else { continue };
        let is_same =
            |step: &Step| matches!(step, Step::Program { dir: d, slot: s, .. } if (d, s) == (dir, slot));
        if !those.iter().any(is_same) {
            those.push(Step::Program { dir: dir.clone(), slot: *slot, code: None });
        }
    }
}
