//! Somebody comes to a group that is below one with processes of its own and, until now, none below. What that one counts of
//! its own was read where all of it is read, and is read in the leaves of its cells from then on.

use pinfold_model::{CellId, Forest, GroupId};

use crate::realm::Changes;
use crate::record::{self, Fate, FoldRecord, Kept};
use crate::retire::Place;
use crate::state::Records;
use crate::write::set_values;
use crate::{EffectError, Realm};

/// What such a group keeps, before somebody comes and then.
pub(crate) struct Displaced {
    group: GroupId,
    before: Kept,
    then: Kept,
}

impl Displaced {
    /// In the same moment as the plan that makes the cell: who reads sees both or neither.
    pub(crate) fn take_effect(&self, forest: &mut Forest) {
        set_values(forest, self.group, self.then.clone());
    }

    /// In the same moment as the plan is aborted.
    pub(crate) fn take_back(&self, forest: &mut Forest) {
        set_values(forest, self.group, self.before.clone());
    }

    fn record(&self, cell: Fate) -> FoldRecord {
        FoldRecord { cell, values: vec![(self.group, self.then.clone())], ..FoldRecord::default() }
    }
}

impl Realm {
    /// Who is displaced when somebody comes to a group, if anybody is and counts.
    pub(crate) fn displaced_by(
        &self,
        change: &mut Changes,
        group: GroupId,
    ) -> Result<Option<Displaced>, EffectError> {
        let Some(fold) = self.lock_forest().own_fold_of_entry(group) else { return Ok(None) };
        self.keep_what_was_not(change);
        let mut record = FoldRecord::default();
        self.fold_counters(&mut record, Place::Own, fold.group, &fold.lost, &fold.gained)?;
        let forest = self.lock_forest();
        let displaced = record.values.pop().zip(forest.group(fold.group)).map(|((group, then), found)| {
            let kept = then.iter().map(|(key, _)| (*key, found.settings().get(*key).cloned()));
            Displaced { group, before: kept.collect(), then }
        });
        Ok(displaced)
    }

    /// Writes down what is kept once the cell's leaf is there: without one the next daemon forgets the cell, and this.
    pub(crate) fn record_displaced(&self, cell: CellId, displaced: &Displaced) -> Result<(), EffectError> {
        let text = record::fold_text(&displaced.record(Fate::Comes));
        Ok(self.state.keep(Records::Folds, cell.get(), Some(&text))?)
    }

    /// The cell is there: the group's own file says so, too.
    pub(crate) fn keep_displaced(&self, change: &mut Changes, cell: CellId, displaced: &Displaced) {
        let mut fold = displaced.record(Fate::Comes);
        self.keep_fold(change, cell, &mut fold);
        if fold.kept {
            self.forget_fold(cell);
        }
    }
}
