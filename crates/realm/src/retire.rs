//! Empty cells: their leaf goes, what it counted stays with its groups (I6), and release agents are told.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use pinfold_files::{Counter, Figure, Source, Texts};
use pinfold_kernel::{Event, Step};
use pinfold_model::{CellId, Claim, Dir, Fold, Forest, GroupId, HierarchyId, RetirePlan, SpineId};

use crate::carry::{Carrying, Extent, Limit, charged_limits};
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
            match self.tracker.next() {
                Ok(Event::Changed(cell)) => self.retire_or_log(&mut self.lock_change(), cell),
                Ok(Event::Pressed) => self.sharing.press(),
                Ok(Event::Lost) => {
                    self.sharing.press();
                    self.look_at_every_cell();
                }
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

    /// Takes a cell away if it has no processes. A cell that is unknown or has some stays as it is. Of one with a charge that
    /// counts for a limit ([`Realm::holds_charge`]) the directories stay, until that is gone or the group is.
    pub(crate) fn retire(&self, change: &mut Changes, cell: CellId) -> Result<(), EffectError> {
        self.retire_with(change, cell, Charge::Counts).map(drop)
    }

    /// True if the cell has processes.
    fn retire_with(&self, change: &mut Changes, cell: CellId, charge: Charge) -> Result<bool, EffectError> {
        if change.closed {
            return Ok(false);
        }
        let Some(leaf) = self.lock_forest().leaf(cell) else { return Ok(false) };
        match self.tracker.events(&leaf) {
            Ok(events) if events.populated => return Ok(true),
            Ok(_) => {}
            Err(error @ pinfold_kernel::ReadError::Gone { .. }) => {
                tracing::warn!(
                    "another program removed a leaf of this realm, its counters are lost: {error}"
                );
            }
            Err(error) => return Err(error.into()),
        }
        self.keep_what_was_not(change);
        let Some(plan) = self.plan_retire(cell)? else { return Ok(false) };
        let stays = match charge {
            Charge::Counts => self.holds_charge(&plan, None),
            Charge::Goes => Ok(false),
        };
        match stays {
            Ok(false) => {}
            Ok(true) => {
                let groups = self.lock_forest().keep_empty(plan);
                groups.into_iter().for_each(|group| self.release_if_idle(group));
                return Ok(false);
            }
            Err(error) => {
                self.lock_forest().abort_retire(plan);
                return Err(error);
            }
        }
        let fold = match self.carry_out_retire(change, cell, &plan) {
            Ok(fold) => fold,
            Err(error) => {
                self.is_removing.store(false, Ordering::Release);
                self.lock_forest().abort_retire(plan);
                return Err(error);
            }
        };
        let (moved, lost) = (groups_of(&plan), lost_by_claims(&self.lock_forest(), &plan));
        let (removed, folds) = (plan.dirs().to_vec(), plan.folds().to_vec());
        let groups = {
            let mut forest = self.lock_forest();
            for (group, values) in fold.values {
                set_values(&mut forest, group, values);
            }
            forest.commit_retire(plan)
        };
        self.is_removing.store(false, Ordering::Release);
        self.resets.forget(&folds);
        self.carry_on(change, &moved, &lost);
        if !lost.is_empty() {
            self.notices.displaced();
        }
        groups.into_iter().for_each(|group| self.release_if_idle(group));
        self.forget_cell(cell);
        self.forget_home(&removed);
        if fold.kept {
            self.forget_fold(cell);
        }
        Ok(false)
    }

    /// Plans to take a cell away. No group with a limit is to have a directory in which too much is charged that is not its own:
    /// that would count for its limit from then on, which it is over at once, and the kernel kills.
    fn plan_retire(&self, cell: CellId) -> Result<Option<RetirePlan>, EffectError> {
        let Some(plan) = self.lock_forest().plan_retire(cell) else { return Ok(None) };
        let unwanted = self.claims_of_what_others_left(&plan);
        if unwanted.as_ref().is_ok_and(Vec::is_empty) {
            return Ok(Some(plan));
        }
        let mut forest = self.lock_forest();
        forest.abort_retire(plan);
        let unwanted = unwanted?;
        Ok(forest.plan_retire_if(cell, |claim| !unwanted.contains(claim)))
    }

    /// The claims of a plan by which a group with a limit would come to a directory with a charge that is none of its own.
    fn claims_of_what_others_left(&self, plan: &RetirePlan) -> Result<Vec<Claim>, EffectError> {
        /// What part of a limit that may be.
        const LEAST: u64 = 16;
        if plan.claims().is_empty() || self.tracker.is_user_space() {
            return Ok(Vec::new());
        }
        let limits: Vec<(Fold, Limit)> = {
            let forest = self.lock_forest();
            let claiming = plan.folds().iter().filter(|fold| !fold.gained.is_empty());
            let of_each = claiming.map(|fold| (fold, charged_limits(&forest, fold.group)));
            of_each.flat_map(|(fold, limits)| limits.into_iter().map(|it| (fold.clone(), it))).collect()
        };
        let mut over: HashSet<Dir> = HashSet::new();
        for (Fold { lost, gained, .. }, limit) in limits {
            let figure = limit.used.figure();
            let charged = |dirs: &[Dir]| {
                let all = dirs.iter().map(|dir| self.charged(dir, figure));
                all.sum::<Result<u64, EffectError>>()
            };
            let foreign = charged(&gained)?.saturating_sub(charged(&lost)?);
            if limit.amounts.iter().any(|amount| foreign > amount.most / LEAST) {
                over.extend(gained);
            }
        }
        let forest = self.lock_forest();
        let is_over = |claim: &&Claim| over.contains(&forest.spine_dir(Some(claim.spine)));
        Ok(plan.claims().iter().filter(is_over).copied().collect())
    }

    /// Whether a group with a limit would lose its last directory and with it what its processes have left behind, as files in
    /// a tmpfs or in huge pages are: the kernel gives a charge to the directory above, where it is the group's no more. One group
    /// may be left out.
    fn holds_charge(&self, plan: &RetirePlan, without: Option<GroupId>) -> Result<bool, EffectError> {
        if self.tracker.is_user_space() {
            return Ok(false);
        }
        let charges: Vec<(Dir, Figure)> = {
            let forest = self.lock_forest();
            let charges = |(group, dir): (GroupId, &Dir)| {
                let limits = charged_limits(&forest, group).into_iter();
                limits.map(|limit| (dir.clone(), limit.used.figure())).collect::<Vec<_>>()
            };
            let last = forest.last_carriers(plan).filter(|(group, _)| Some(*group) != without);
            last.flat_map(charges).collect()
        };
        for (dir, figure) in charges {
            if self.charged(&dir, figure)? > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// How much is charged to a directory, by a figure; nothing, if it has gone.
    fn charged(&self, dir: &Dir, figure: Figure) -> Result<u64, EffectError> {
        let text = self.text_of(dir, figure.file)?;
        Ok(text.and_then(|text| (figure.value)(&text, "")).unwrap_or(0))
    }

    /// Puts the limits of groups in force whose carriers have changed: what the retired cell had of them is for others, and
    /// a directory that is claimed now has what those below it had.
    fn carry_on(&self, change: &mut Changes, groups: &[GroupId], lost: &[(HierarchyId, Dir)]) {
        let shared = groups.iter().any(|group| change.shares.has(*group));
        if !shared && lost.is_empty() {
            return;
        }
        let divided = {
            let forest = self.lock_forest();
            Carrying { forest: &forest, shares: &change.shares, assigned: &[] }
                .divided(groups.iter().copied())
        };
        let prepared = self.prepare(&divided, |attempt| {
            let shares = self.divide_again(change, groups, &divided, attempt)?;
            let forest = self.lock_forest();
            let carrying = Carrying { forest: &forest, shares: &shares, assigned: &[] };
            let kept = groups.iter().flat_map(|group| carrying.steps_of_all(*group));
            let reset = |(hierarchy, dir): &(HierarchyId, Dir)| {
                carrying.steps_for_dir(dir, Some(*hierarchy), Extent::All)
            };
            let steps = kept.chain(lost.iter().flat_map(reset)).collect();
            drop(forest);
            Ok((shares, steps))
        });
        let (shares, steps) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                self.take_guards_back(change, groups, &divided);
                return tracing::warn!("a divided limit stays as it is: {}", crate::error::chain(&error));
            }
        };
        // One by one: a directory that another program removed must not keep the others from their values.
        for step in steps.iter().filter(|step| self.has_file_of(step)) {
            if let Err(error) = self.tracker.carry_out(std::slice::from_ref(step)) {
                tracing::warn!("a value is not in force: {error}");
            }
        }
        self.keep_shares(change, shares);
    }

    /// Tries again to write down counters that a full state directory has kept in memory. Their records would put old values
    /// back at the next start once newer ones are kept, so this comes before any change of a counter.
    pub(crate) fn keep_what_was_not(&self, change: &mut Changes) {
        let unkept = std::mem::take(&mut change.unkept);
        for (cell, group) in &unkept {
            if self.keep(*group, &[]).and_then(|()| self.keep_claims(*group)).is_err() {
                change.unkept.push((*cell, *group)); // it was told when it happened
            }
        }
        for (cell, _) in unkept {
            if !change.unkept.iter().any(|(other, _)| *other == cell) {
                self.forget_fold(cell);
            }
        }
    }

    /// Writes down who claims the spine directory that a group claims.
    fn keep_claims(&self, group: GroupId) -> Result<(), EffectError> {
        let claims = {
            let forest = self.lock_forest();
            let spine = forest.group(group).and_then(|found| found.spine());
            spine.map(|spine| (spine, record::spine_text(forest.claims(spine))))
        };
        let Some((spine, text)) = claims else { return Ok(()) };
        Ok(self.state.keep(Records::Spines, spine.get(), Some(&text))?)
    }

    /// Whether somebody is in a group. Its cells whose processes have ended are retired, though we were not told yet, up to the first in
    /// which somebody is: the others make no difference, and are told of by their own events.
    pub(crate) fn is_occupied(&self, change: &mut Changes, group: GroupId) -> Result<bool, EffectError> {
        let cells: Vec<_> =
            self.lock_forest().group(group).into_iter().flat_map(|found| found.cells()).collect();
        for cell in cells {
            if self.retire_with(change, cell, Charge::Counts)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Retires cells that are kept for a charge, where a new cell has given a group of theirs another directory: it goes no further than
    /// that.
    pub(crate) fn retire_kept_around(&self, change: &mut Changes, cell: CellId) {
        let kept = self.lock_forest().kept_around(cell);
        kept.into_iter().for_each(|cell| self.retire_or_log(change, cell));
    }

    /// Retires what [`Realm::is_occupied`] has left of a group, if nobody and no group is in it: it is to be removed, and
    /// the kernel's v1 gives its charge to the group above then, too. Where that has no other directory, another cell is made there.
    pub(crate) fn retire_what_is_charged(
        &self,
        change: &mut Changes,
        group: GroupId,
    ) -> Result<(), EffectError> {
        let cells: Vec<CellId> = {
            let forest = self.lock_forest();
            let found = forest.group(group).filter(|_| forest.is_idle(group));
            found.into_iter().flat_map(|found| found.cells()).collect()
        };
        for cell in cells {
            let Some(plan) = self.plan_retire(cell)? else { continue };
            let is_others = self.holds_charge(&plan, Some(group));
            self.lock_forest().abort_retire(plan);
            let above = match is_others? {
                true => self.make_cell_above(change, cell, group),
                false => Ok(None),
            };
            let above = above.unwrap_or_else(|error| {
                let why = crate::error::chain(&error);
                tracing::warn!("what is charged to group {group} does not go to the one above: {why}");
                None
            });
            self.retire_with(change, cell, Charge::Goes)?;
            above.into_iter().for_each(|above| self.retire_or_log(change, above));
        }
        Ok(())
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
        self.leave_out_what_stays(change, &mut fold);
        if let Err(error) = self.state.keep(Records::Folds, cell.get(), Some(&record::fold_text(&fold))) {
            // A full disk must not keep groups busy: without the record only a crash in the next moments loses counts.
            tracing::warn!("counters of cell {cell} are on their way without a record: {error}");
        }
        let (leaf, spine) = fold.dirs.split_first().expect("a cell has a leaf");
        self.is_removing.store(true, Ordering::Release);
        if let Err(error) = self.tracker.carry_out(&[Step::Remove(leaf.clone())]) {
            self.forget_fold(cell);
            return Err(error.into());
        }
        for dir in spine {
            if let Err(error) = self.tracker.carry_out(&[Step::Remove(dir.clone())]) {
                tracing::warn!("{dir} stays, somebody else uses it: {error}");
            }
        }
        // Nothing below may fail: the directories are gone.
        self.keep_fold(change, cell, &mut fold);
        Ok(fold)
    }

    /// Has the groups keep what a record says. If the state directory is full, the record stays in it and does the same at the
    /// next start.
    pub(crate) fn keep_fold(&self, change: &mut Changes, cell: CellId, fold: &mut FoldRecord) {
        for (spine, claims) in &fold.claims {
            if let Err(error) =
                self.state.keep(Records::Spines, spine.get(), Some(&record::spine_text(claims)))
            {
                tracing::error!("who claims spine directory {spine} is kept in memory only: {error}");
                fold.kept = false;
                change.unkept.extend(claims.iter().map(|group| (cell, *group)));
            }
        }
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
    }

    fn fold(&self, plan: &RetirePlan) -> Result<FoldRecord, EffectError> {
        let claims = claims_after(&self.lock_forest(), plan.claims());
        let mut record = FoldRecord { dirs: plan.dirs().to_vec(), claims, ..FoldRecord::default() };
        let leaf = std::slice::from_ref(plan.leaf());
        for group in plan.groups() {
            self.fold_counters(&mut record, Place::Leaves, *group, leaf, &[])?;
        }
        for Fold { group, lost, gained } in plan.own_folds() {
            self.fold_counters(&mut record, Place::Own, *group, lost, gained)?;
        }
        for Fold { group, lost, gained } in plan.folds() {
            self.fold_counters(&mut record, Place::Carriers, *group, lost, gained)?;
        }
        Ok(record)
    }

    /// Leaves out of a record what the groups keep already, and have written down.
    pub(crate) fn leave_out_what_stays(&self, change: &Changes, fold: &mut FoldRecord) {
        let forest = self.lock_forest();
        let is_unkept = |group: &GroupId| change.unkept.iter().any(|(_, other)| other == group);
        for (group, values) in fold.values.iter_mut().filter(|(group, _)| !is_unkept(group)) {
            let Some(found) = forest.group(*group) else { continue };
            values.retain(|(key, value)| found.settings().get(*key) != value.as_ref());
        }
        fold.values.retain(|(_, values)| !values.is_empty());
    }

    /// Adds what a group keeps when its counters are not read any more in directories that it loses, and are in some that it
    /// gains.
    pub(crate) fn fold_counters(
        &self,
        record: &mut FoldRecord,
        place: Place,
        group: GroupId,
        lost: &[Dir],
        gained: &[Dir],
    ) -> Result<(), EffectError> {
        let counters = counters_of(&self.lock_forest(), group, place);
        // What grows in between is counted twice rather than never.
        let first = self.texts_in(group, gained, &counters)?;
        let last = self.texts_in(group, lost, &counters)?;
        let values = kept_after(&self.lock_forest(), group, &counters, &last, &first);
        add(&mut record.values, group, values);
        Ok(())
    }

    /// What directories say. One that somebody removed says nothing.
    fn texts_in(&self, group: GroupId, dirs: &[Dir], counters: &[&Counter]) -> Result<Texts, EffectError> {
        let mut texts = Texts::default();
        if dirs.is_empty() {
            return Ok(texts);
        }
        for source in pinfold_files::sources(counters.iter().copied()) {
            for dir in dirs {
                match self.texts(&[(source, vec![At::of(source, group, dir.clone())])], Settled::Yes) {
                    Ok(found) => found.of(source).for_each(|text| texts.push(source, text.to_owned())),
                    Err(pinfold_kernel::ReadError::Gone { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(texts)
    }

    /// Forgets spine directories that are gone.
    pub(crate) fn forget_home(&self, dirs: &[Dir]) {
        for spine in dirs.iter().filter(|dir| dir.leaf().is_none()).filter_map(|dir| dir.spines().last()) {
            if let Err(error) = self.state.keep(Records::Spines, spine.get(), None) {
                tracing::warn!("the record of a spine directory that is gone stays: {error}");
            }
        }
    }

    fn forget_cell(&self, cell: CellId) {
        self.tracker.unwatch(cell);
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

/// What becomes of an empty cell that something is charged to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Charge {
    /// It stays: what is charged counts for the group's limit.
    Counts,
    /// It goes, with its group.
    Goes,
}

/// Which of a group's directories a counter is read in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Leaves,
    Own,
    Carriers,
}

/// Who claims spine directories once these claims are made.
pub(crate) fn claims_after(forest: &Forest, made: &[Claim]) -> Vec<(SpineId, Vec<GroupId>)> {
    let mut all: Vec<(SpineId, Vec<GroupId>)> = Vec::new();
    for claim in made {
        match all.iter_mut().find(|(spine, _)| *spine == claim.spine) {
            Some((_, claims)) => claims.push(claim.group),
            None => {
                let claims = forest.claims(claim.spine).iter().copied().chain([claim.group]);
                all.push((claim.spine, claims.collect()));
            }
        }
    }
    all
}

fn counters_of(forest: &Forest, group: GroupId, place: Place) -> Vec<&'static Counter> {
    let bound = surroundings(forest, group).map(|around| around.bound);
    let counters = bound.into_iter().flat_map(pinfold_files::counters);
    let is_there = |counter: &&Counter| match counter.source {
        Source::Carriers(_) | Source::Measured => place == Place::Carriers,
        Source::Nowhere => false,
        Source::Own(_) => place == Place::Own,
        Source::OwnLeaves(_)
        | Source::Root(_)
        | Source::Realm(_)
        | Source::Beside(..)
        | Source::Since(_)
        | Source::Machine(_)
        | Source::Descriptors => place == Place::Leaves,
    };
    counters.filter(is_there).collect()
}

fn kept_after(forest: &Forest, group: GroupId, counters: &[&Counter], last: &Texts, first: &Texts) -> Kept {
    let Some(found) = forest.group(group) else { return Vec::new() };
    counters.iter().map(|counter| (counter.key, counter.keep(found.settings(), last, first))).collect()
}

fn add(all: &mut Vec<(GroupId, Kept)>, group: GroupId, values: Kept) {
    match all.iter_mut().find(|(seen, _)| *seen == group) {
        Some((_, seen)) => seen.extend(values),
        None if values.is_empty() => {}
        None => all.push((group, values)),
    }
}

/// The groups whose carriers a plan changes.
fn groups_of(plan: &RetirePlan) -> Vec<GroupId> {
    plan.folds().iter().map(|fold| fold.group).collect()
}

/// The directories that carry a group of the hierarchy no more because a claim of another one does, and that stay.
fn lost_by_claims(forest: &Forest, plan: &RetirePlan) -> Vec<(HierarchyId, Dir)> {
    let claimed = plan.folds().iter().filter(|fold| !fold.gained.is_empty());
    let lost = claimed.filter_map(|fold| Some((forest.group(fold.group)?.hierarchy(), &fold.lost)));
    let lost = lost.flat_map(|(hierarchy, dirs)| dirs.iter().map(move |dir| (hierarchy, dir.clone())));
    lost.filter(|(_, dir)| !plan.dirs().contains(dir)).collect()
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};
    use std::sync::{Arc, Mutex, Weak};
    use std::time::{Duration, Instant};

    use pinfold_files::named;
    use pinfold_model::Errno;
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber};

    use super::*;
    use crate::fixture::Fixture;

    const PAUSE: Duration = Duration::from_millis(10);

    /// Whether directories are being removed, each time the realm tells of something.
    #[derive(Clone, Default)]
    struct Listener {
        realm: Weak<Realm>,
        seen: Arc<Mutex<Vec<bool>>>,
    }

    impl Subscriber for Listener {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, event: &Event<'_>) {
            if event.metadata().target() == module_path!().trim_end_matches("::tests")
                && let Some(realm) = self.realm.upgrade()
            {
                let is_removing = realm.is_removing.load(Ordering::Acquire);
                self.seen.lock().expect("nobody panics").push(is_removing);
            }
        }
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    /// A process in these groups.
    fn sleeper(it: &Fixture, groups: &[GroupId]) -> Child {
        let child = Command::new("sleep").arg("600").spawn().expect("sleep is there");
        let tasks = named("tasks").expect("it is there");
        let opener = it.realm.opener(&it.caller, tasks, true);
        for group in groups {
            let pid = child.id().to_string();
            it.realm.write(&it.caller, opener, *group, tasks, pid.as_bytes()).expect("ours");
        }
        child
    }

    fn end(mut child: Child) {
        child.kill().expect("ours");
        child.wait().expect("ours");
    }

    #[test]
    fn a_group_is_looked_through_up_to_the_first_who_is_there() {
        let it = Fixture::new("occupied", PAUSE);
        let (root, other) = (it.mount("cpuset"), it.mount("none,name=other"));
        let group = it.group(root, "a");
        let sleepers = ["1", "2", "3"].map(|name| sleeper(&it, &[group, it.group(other, name)]));
        let cells = || {
            let forest = it.realm.lock_forest();
            forest.group(group).into_iter().flat_map(|found| found.cells()).collect::<Vec<_>>()
        };
        let remove = || it.realm.remove(&it.caller, root, "a".as_ref());
        let write = |file: &str, text: &str| {
            let file = named(file).expect("it is there");
            it.realm.write(&it.caller, it.realm.opener(&it.caller, file, true), group, file, text.as_bytes())
        };
        let until_empty = |cell: CellId| {
            let leaf = it.realm.lock_forest().leaf(cell).expect("it is still there");
            let deadline = Instant::now() + Duration::from_secs(60);
            while it.realm.tracker.events(&leaf).expect("it is still there").populated {
                assert!(Instant::now() < deadline, "its end is never seen");
                it.realm.take_in();
                std::thread::yield_now();
            }
        };
        let [one, two, three] = cells()[..] else { panic!("{:?}", cells()) };
        let [first, second, third] = sleepers;
        end(first);
        end(third);
        until_empty(one);
        until_empty(three);
        assert_eq!(remove().expect_err("one is there").errno(), Errno::EBUSY);
        assert_eq!(write("cpuset.cpus", "\n").expect_err("one is there").errno(), Errno::ENOSPC);
        write("notify_on_release", "1").expect("a flag");
        write("tasks", &second.id().to_string()).expect("it is there already");
        assert_eq!(cells(), [two, three], "whether anybody is in the last makes no difference");
        end(second);
        until_empty(two);
        remove().expect("nobody is there");
        it.close();
    }

    /// The state directory is full: that is told before the leaf goes, and again when the group is to keep what was counted.
    #[test]
    fn directories_are_being_removed_from_before_they_go_until_their_groups_have_what_was_counted() {
        let it = Fixture::new("retiring", PAUSE);
        let group = it.group(it.mount("pids"), "a");
        end(sleeper(&it, &[group]));
        let (realm, state) = (&it.realm, &it.state);
        let listener = Listener { realm: Arc::downgrade(realm), seen: Arc::default() };
        let seen = Arc::clone(&listener.seen);
        std::fs::remove_dir(state.join("tmp")).expect("nothing is under way");
        let deadline = Instant::now() + Duration::from_secs(60);
        tracing::subscriber::with_default(listener, || {
            while realm.lock_forest().cells().next().is_some() {
                assert!(Instant::now() < deadline, "its end is never seen");
                realm.retire_every_empty_cell(&mut realm.lock_change());
                std::thread::yield_now();
            }
        });
        std::fs::create_dir(state.join("tmp")).expect("ours");
        assert_eq!(*seen.lock().expect("nobody panics"), [false, true]);
        assert!(!realm.is_removing.load(Ordering::Acquire));
        it.close();
    }
}
