//! Empty cells: their leaf goes, what it counted stays with its groups (I6), and release agents are told.

use pinfold_files::{Counter, Source, Texts};
use pinfold_kernel::{Event, Step};
use pinfold_model::{CellId, Fold, Forest, GroupId, RetirePlan};

use crate::read::{At, Settled};
use crate::realm::{Changes, surroundings};
use crate::record::{self, FoldRecord, Kept};
use crate::state::Records;
use crate::write::set_values;
use crate::{EffectError, Realm};

impl Realm {
    /// Does what the v2 tree's events ask for, until [`Realm::stop`].
    pub(crate) fn follow_events(&self) {
        loop {
            match self.watch.next() {
                Ok(Event::Changed(cell)) => self.retire_or_log(&mut self.lock_change(), cell),
                Ok(Event::Lost) => self.look_at_every_cell(),
                Ok(Event::Stopped) => return,
                Err(error) => {
                    tracing::error!("the v2 tree is no longer watched, empty cells stay until used: {error}");
                    return;
                }
            }
        }
    }

    pub(crate) fn look_at_every_cell(&self) {
        let cells: Vec<CellId> = self.lock_forest().cells().map(|(id, _)| id).collect();
        cells.into_iter().for_each(|cell| self.retire_or_log(&mut self.lock_change(), cell));
    }

    /// As [`Realm::look_at_every_cell`], for who makes a change already.
    pub(crate) fn retire_every_empty_cell(&self, change: &mut Changes) {
        let cells: Vec<CellId> = self.lock_forest().cells().map(|(id, _)| id).collect();
        cells.into_iter().for_each(|cell| self.retire_or_log(change, cell));
    }

    fn retire_or_log(&self, change: &mut Changes, cell: CellId) {
        if let Err(error) = self.retire(change, cell) {
            tracing::warn!("cell {cell} stays although it is empty: {}", crate::error::chain(&error));
        }
    }

    /// Takes a cell away if it has no processes. A cell that is unknown or has some stays as it is.
    pub(crate) fn retire(&self, change: &mut Changes, cell: CellId) -> Result<(), EffectError> {
        if change.closed {
            return Ok(());
        }
        let Some(leaf) = self.lock_forest().leaf(cell) else { return Ok(()) };
        match self.tree.events(&leaf) {
            Ok(events) if events.populated => return Ok(()),
            Ok(_) => {}
            Err(error @ pinfold_kernel::ReadError::Gone { .. }) => {
                tracing::warn!(
                    "another program removed a leaf of this realm, its counters are lost: {error}"
                );
            }
            Err(error) => return Err(error.into()),
        }
        self.keep_what_was_not(change);
        let Some(plan) = self.lock_forest().plan_retire(cell) else { return Ok(()) };
        match self.carry_out_retire(change, cell, &plan) {
            Ok(fold) => {
                let groups = {
                    let mut forest = self.lock_forest();
                    for (group, values) in fold.values {
                        set_values(&mut forest, group, values);
                    }
                    forest.commit_retire(plan)
                };
                groups.into_iter().for_each(|group| self.release_if_idle(group));
                self.forget_cell(cell);
                if fold.kept {
                    self.forget_fold(cell);
                }
                Ok(())
            }
            Err(error) => {
                self.lock_forest().abort_retire(plan);
                Err(error)
            }
        }
    }

    /// Tries again to write down counters that a full state directory has kept in memory. Their records would put old values
    /// back at the next start once newer ones are kept, so this comes before any change of a counter.
    pub(crate) fn keep_what_was_not(&self, change: &mut Changes) {
        let unkept = std::mem::take(&mut change.unkept);
        for (cell, group) in &unkept {
            if self.keep(*group, &[]).is_err() {
                change.unkept.push((*cell, *group)); // it was told when it happened
            }
        }
        for (cell, _) in unkept {
            if !change.unkept.iter().any(|(other, _)| *other == cell) {
                self.forget_fold(cell);
            }
        }
    }

    /// Retires those of a group's cells whose processes have ended, though we were not told yet.
    pub(crate) fn retire_what_is_empty(
        &self,
        change: &mut Changes,
        group: GroupId,
    ) -> Result<(), EffectError> {
        let cells: Vec<_> =
            self.lock_forest().group(group).into_iter().flat_map(|found| found.cells()).collect();
        cells.into_iter().try_for_each(|cell| self.retire(change, cell))
    }

    /// Writes down what the groups will keep, removes the directories, and has the groups keep it.
    ///
    /// The record comes first and has final values, not differences: killed at any point, doing the rest again (or
    /// none of it, if the leaf is still in use) gives the same.
    fn carry_out_retire(
        &self,
        change: &mut Changes,
        cell: CellId,
        plan: &RetirePlan,
    ) -> Result<FoldRecord, EffectError> {
        let mut fold = self.fold(plan)?;
        if let Err(error) = self.state.keep(Records::Folds, cell.get(), Some(&record::fold_text(&fold))) {
            // A full disk must not keep groups busy: without the record only a crash in the next moments loses counts.
            tracing::warn!("counters of cell {cell} are on their way without a record: {error}");
        }
        let (leaf, spine) = fold.dirs.split_first().expect("a cell has a leaf");
        if let Err(error) = self.tree.carry_out(&[Step::Remove(leaf.clone())]) {
            self.forget_fold(cell);
            return Err(error.into());
        }
        for dir in spine {
            if let Err(error) = self.tree.carry_out(&[Step::Remove(dir.clone())]) {
                tracing::warn!("{dir} stays, somebody else uses it: {error}");
            }
        }
        // Nothing below may fail: the directories are gone. If the state directory is full, the record stays in it and
        // does the same at the next start.
        for (group, values) in &fold.values {
            if let Err(error) = self.keep(*group, values) {
                tracing::error!(
                    "counters of group {group} are kept in memory only: {}",
                    crate::error::chain(&error)
                );
                fold.kept = false;
                change.unkept.push((cell, *group));
            }
        }
        Ok(fold)
    }

    fn fold(&self, plan: &RetirePlan) -> Result<FoldRecord, EffectError> {
        let mut record = FoldRecord::default();
        for fold in plan.folds() {
            record.dirs.push(fold.dir.clone());
            let wanted = counters_of(&self.lock_forest(), fold);
            for (group, counters) in wanted {
                let last = self.last_texts(fold, &counters)?;
                let values = kept_after(&self.lock_forest(), group, &counters, &last);
                match record.values.iter_mut().find(|(seen, _)| *seen == group) {
                    Some((_, seen)) => seen.extend(values),
                    None => record.values.push((group, values)),
                }
            }
        }
        Ok(record)
    }

    /// What the directory says last. If somebody removed it, nothing.
    fn last_texts(&self, fold: &Fold, counters: &[&Counter]) -> Result<Texts, EffectError> {
        let sources = pinfold_files::sources(counters.iter().copied());
        let dirs: Vec<_> =
            sources.into_iter().map(|source| (source, vec![At::Dir(fold.dir.clone())])).collect();
        match self.texts(&dirs, Settled::Yes) {
            Err(pinfold_kernel::ReadError::Gone { .. }) => Ok(Texts::default()),
            result => Ok(result?),
        }
    }

    fn forget_cell(&self, cell: CellId) {
        self.watch.remove(cell);
        if let Err(error) = self.state.keep(Records::Cells, cell.get(), None) {
            tracing::warn!("the record of a cell that is gone stays: {error}");
        }
    }

    pub(crate) fn forget_fold(&self, cell: CellId) {
        if let Err(error) = self.state.keep(Records::Folds, cell.get(), None) {
            tracing::warn!("the record of counters that were folded stays: {error}");
        }
    }
}

/// The counters that a directory leaves to each group.
fn counters_of(forest: &Forest, fold: &Fold) -> Vec<(GroupId, Vec<&'static Counter>)> {
    let carried = fold.carried.iter().map(|group| (*group, true));
    let own = fold.own.iter().map(|group| (*group, false));
    let mut wanted: Vec<(GroupId, Vec<&'static Counter>)> = Vec::new();
    for (group, as_carrier) in carried.chain(own) {
        let Some(around) = surroundings(forest, group) else { continue };
        let counters = pinfold_files::counters(around.bound)
            .filter(|counter| matches!(counter.source, Source::Carriers(_)) == as_carrier);
        let counters: Vec<_> = counters.collect();
        match wanted.iter_mut().find(|(seen, _)| *seen == group) {
            Some((_, seen)) => seen.extend(counters),
            None if counters.is_empty() => {}
            None => wanted.push((group, counters)),
        }
    }
    wanted
}

fn kept_after(forest: &Forest, group: GroupId, counters: &[&Counter], last: &Texts) -> Kept {
    let Some(found) = forest.group(group) else { return Vec::new() };
    counters.iter().map(|counter| (counter.key, counter.keep(found.settings(), last))).collect()
}
