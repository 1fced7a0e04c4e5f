//! Limits that several directories share: who has which part, and who wants more.
//!
//! A group that crosses groups of another hierarchy has no v2 directory of its own. Its limit is divided over its carriers so
//! that the parts never sum to more (I5). Nothing is looked at while no limit is divided; while one is, a thread looks
//! at what each directory uses, and gives those who meet their part some of what others do not use. It looks when the kernel
//! tells that a part is met (`pids.events`), and [`PAUSE`] after its last look, since of some it does not (`cpu.stat`,
//! `io.pressure`), and of memory it tells all the time that somebody is slowed down. Where a look leaves in doubt whether
//! somebody has begun to want more, there is one more, [`HURRY`] after it.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pinfold_files::{Amount, Pressed};
use pinfold_kernel::{Cause, ReadError, Step, StepError, Where};
use pinfold_model::{
    Allowed, Claimant, Dir, GroupId, LimitKind, Look, Reading, are_worth_writing, divide_sparing,
    divide_with_least, greatest, keep_what_others_had, settle,
};

use crate::carry::{Carrying, Divided};
use crate::guards::Attempt;
use crate::realm::Changes;
use crate::{EffectError, Realm};

/// How long after a look the next one comes, if nothing tells that it should sooner: pressure is answered within 100 ms.
const PAUSE: Duration = Duration::from_millis(50);

/// How long after a look the next one comes at least, if somebody got more by it: the kernel tells of a file once in so long.
/// If nobody did, there is nothing to give, and no hurry. Also at most, if there is a doubt.
const HURRY: Duration = Duration::from_millis(10);

/// How many times as long as a look took there is none at least: looks take a quarter of the time at most, however much there is to look
/// at. After one that gave somebody more there is none for as long as it took. What counts of a look at divided limits is the CPU time
/// that it took: where others want the CPU, too, they are looked at no later for that.
pub const REST: u32 = 3;

/// With less than this part of a limit left, it is nearly met: then what can be reclaimed is.
const NEARLY: u64 = 16;

/// A guard is this part of the share of whoever uses most below it, and so much at most as long as that is more than half of that
/// part: a lone consumer has nine tenths of the limit.
const GUARD_OF_GREATEST: (u64, u64) = (16, 2 << 20);

/// And this of the others' shares, which may not kill: the kernel slows down by how far somebody is above it.
const GUARD_OF_OTHERS: u64 = 8;

/// And so much at least, if that leaves half of it: the kernel charges in batches of 256 KiB, and lets each task have two before it
/// slows down.
const LEAST_GUARD: u64 = 1 << 20;

/// The parts of every divided limit, as they are in force or about to be. Those that nobody changes are there once, however often they
/// are cloned.
#[derive(Clone, Default, Debug)]
pub(crate) struct Shares {
    parts: HashMap<(GroupId, &'static str), Arc<Parts>>,
}

/// Who has which part of one limit.
type Parts = HashMap<Dir, Part>;

/// What one directory has of one limit.
#[derive(Clone, Debug)]
struct Part {
    dir: Dir,
    amounts: Vec<Amount>,
    /// Whether its guard was used to reclaim: then it has to be written again.
    is_guard_off: bool,
    /// The file that has how often it was met. `None`: the kernel does not count that, or the guard is met again and again,
    /// which is no reason to hurry: it is there to slow down.
    pressed_by: Option<&'static str>,
    /// Where that file is.
    told_in: Vec<Dir>,
    /// The file of its guard.
    guarded_by: Option<&'static str>,
    /// The value of the guard, if it has one now.
    guard: Option<u64>,
    /// For each amount.
    last: Vec<Look>,
}

impl Part {
    /// What is used of the first amount.
    fn used(&self) -> u64 {
        self.claimant().used
    }

    /// What it has of an amount.
    fn amount(&self, of: &str) -> Option<u64> {
        self.amounts.iter().find(|amount| amount.of == of).map(|amount| amount.most)
    }

    /// What is claimed of the first amount.
    fn claimant(&self) -> Claimant {
        self.last.first().map_or(Claimant { used: 0, hungry: false }, Look::claimant)
    }
}

impl Shares {
    /// Whether nothing is divided.
    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Whether a limit of the group was divided when its parts were last made.
    pub(crate) fn has(&self, group: GroupId) -> bool {
        self.parts.keys().any(|(id, _)| *id == group)
    }

    /// The groups with divided limits.
    pub(crate) fn groups(&self) -> Vec<GroupId> {
        let mut groups: Vec<GroupId> = self.parts.keys().map(|(id, _)| *id).collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    /// What a directory has of a limit.
    pub(crate) fn part(&self, group: GroupId, file: &'static str, dir: &Dir) -> Option<Vec<Amount>> {
        self.find(group, file, dir).map(|part| part.amounts.clone())
    }

    /// The least value that this file has as a guard of parts of the group's limits in a directory.
    pub(crate) fn least_guard(&self, group: GroupId, guard: &'static str, dir: &Dir) -> Option<u64> {
        let of = self.parts.iter().filter(|((id, _), _)| *id == group);
        let parts = of.filter_map(|(_, parts)| parts.get(dir));
        parts.filter(|part| part.guarded_by == Some(guard)).filter_map(|part| part.guard).min()
    }

    /// Keeps the parts of a limit as they were: only what was seen is new.
    fn stay_as(&mut self, before: &Self, group: GroupId, file: &'static str) {
        for (dir, part) in self.parts.get_mut(&(group, file)).map(Arc::make_mut).into_iter().flatten() {
            if let Some(old) = before.find(group, file, dir) {
                let (last, told_in) = (std::mem::take(&mut part.last), std::mem::take(&mut part.told_in));
                *part = Part { last, told_in, ..old.clone() };
            }
        }
    }

    /// The files that tell when a part is met. Source: those of which cgroup_file_notify() tells are called so.
    fn pressed(&self) -> HashSet<(Dir, &'static str)> {
        let parts = self.parts.values().flat_map(|parts| parts.values());
        let told =
            parts.filter_map(|part| Some((part, part.pressed_by.filter(|file| file.ends_with(".events"))?)));
        told.flat_map(|(part, file)| part.told_in.iter().map(move |dir| (dir.clone(), file))).collect()
    }

    /// Whether the same directories have parts of the same limits, and the same tell of them.
    fn have_the_dirs_of(&self, other: &Self) -> bool {
        let has_all = |(limit, parts): (&(GroupId, &'static str), &Arc<Parts>)| {
            let others = other.parts.get(limit).filter(|others| others.len() == parts.len());
            if others.is_some_and(|others| Arc::ptr_eq(others, parts)) {
                return true;
            }
            let is_in = |others: &Parts, part: &Part| {
                others.get(&part.dir).is_some_and(|other| other.told_in == part.told_in)
            };
            others.is_some_and(|others| parts.values().all(|part| is_in(others, part)))
        };
        self.parts.len() == other.parts.len() && self.parts.iter().all(has_all)
    }

    /// Whether somebody has begun of whom the last look could not tell whether its part is enough.
    fn is_doubtful(&self) -> bool {
        let parts = self.parts.values().flat_map(|parts| parts.values());
        parts.flat_map(|part| &part.last).any(Look::is_doubtful)
    }

    /// Forgets the parts of these groups.
    fn forget(&mut self, groups: &[GroupId]) {
        self.parts.retain(|(group, _), _| !groups.contains(group));
    }

    fn find(&self, group: GroupId, file: &'static str, dir: &Dir) -> Option<&Part> {
        self.parts.get(&(group, file))?.get(dir)
    }
}

/// Wakes the thread that looks after divided limits.
#[derive(Debug)]
pub(crate) struct Sharing {
    /// Looks are dated from here.
    began: Instant,
    /// How often something was divided by turns.
    turn: AtomicUsize,
    state: Mutex<Due>,
    changed: Condvar,
}

#[derive(Default, Debug)]
struct Due {
    wanted: Wanted,
    /// Whether a part was met since the last look began.
    is_pressed: bool,
}

/// What came of a look.
#[derive(Clone, Copy, Default, Debug)]
struct Looked {
    /// Other changes had to wait for so long.
    took: Duration,
    /// The CPU time that it took.
    cost: Duration,
    /// Whether it was taken because a part was met.
    is_pressed: bool,
    outcome: Outcome,
}

/// What a look has found.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
enum Outcome {
    /// Nobody gets more by it.
    #[default]
    Nothing,
    /// Nobody does, but somebody has begun who may want more than there is: another look soon tells.
    Doubt,
    /// Somebody got more.
    Fed,
}

impl Looked {
    /// How long after it the next look comes: at least, whatever happens, and at most.
    fn pauses(self) -> (Duration, Duration) {
        let rest = if self.outcome == Outcome::Fed { self.cost } else { self.cost * REST };
        let rest = rest.max(self.took);
        let most = if self.outcome == Outcome::Doubt { HURRY } else { PAUSE }.max(rest);
        let in_vain = self.is_pressed && self.outcome != Outcome::Fed;
        (if in_vain { most } else { HURRY.max(rest) }, most)
    }
}

#[derive(Default, Clone, Copy, PartialEq, Eq, Debug)]
enum Wanted {
    /// Nothing is divided.
    #[default]
    Rest,
    Looks,
    End,
}

impl Default for Sharing {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            turn: AtomicUsize::new(0),
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }
}

impl Sharing {
    fn lock(&self) -> MutexGuard<'_, Due> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner) // two words: always whole
    }

    fn want(&self, wanted: Wanted) {
        let mut due = self.lock();
        if due.wanted != Wanted::End && due.wanted != wanted {
            due.wanted = wanted;
            self.changed.notify_all();
        }
    }

    /// A part was met.
    pub(crate) fn press(&self) {
        self.lock().is_pressed = true;
        self.changed.notify_all();
    }

    /// Waits until a look is due, and says whether because a part was met; `None`: there will be none any more.
    fn wait(&self, last: Looked) -> Option<bool> {
        let (least, most) = last.pauses();
        let wait = |due, time, until: fn(&Due) -> bool| {
            let waited = self.changed.wait_timeout_while(due, time, |due| !until(due));
            waited.unwrap_or_else(PoisonError::into_inner).0
        };
        let due = self.changed.wait_while(self.lock(), |due| due.wanted == Wanted::Rest);
        let due = due.unwrap_or_else(PoisonError::into_inner);
        let due = wait(due, least, |due| due.wanted == Wanted::End);
        let mut due = wait(due, most - least, |due| due.wanted == Wanted::End || due.is_pressed);
        let is_pressed = std::mem::take(&mut due.is_pressed);
        (due.wanted != Wanted::End).then_some(is_pressed)
    }

    /// Ends [`Realm::look_after_shares`].
    pub(crate) fn end(&self) {
        self.want(Wanted::End);
    }
}

impl Realm {
    /// Gives the hungry of each divided limit what others do not use, until [`Realm::stop`].
    pub(crate) fn look_after_shares(&self) {
        let mut due = Instant::now();
        let mut last = Looked::default();
        while let Some(is_pressed) = self.sharing.wait(last) {
            let mut change = self.lock_change();
            if change.closed {
                return;
            }
            let (began, used) = (Instant::now(), cpu_time());
            let outcome = self.rebalance(&mut change).unwrap_or_else(|error| {
                tracing::warn!("a divided limit stays as it is: {}", crate::error::chain(&error));
                Outcome::Nothing
            });
            // One look more, not more and more: others may begin in the meantime.
            let outcome =
                if outcome == last.outcome && outcome == Outcome::Doubt { Outcome::Nothing } else { outcome };
            let (took, cost) = (began.elapsed(), cpu_time().saturating_sub(used));
            last = Looked { took, cost, is_pressed, outcome };
            let began = Instant::now();
            if began >= due {
                self.look_after_descriptors(&mut change);
                due = Instant::now() + began.elapsed() * REST;
            }
        }
    }

    /// The parts as they are to be, of limits that are divided or no longer are.
    pub(crate) fn divide_again(
        &self,
        change: &Changes,
        groups: &[GroupId],
        divided: &[Divided],
        attempt: &mut Attempt,
    ) -> Result<Shares, EffectError> {
        let mut shares = change.shares.clone();
        shares.forget(groups);
        let none = Parts::new();
        for one in divided {
            let before =
                change.shares.parts.get(&(one.group, one.limit.file)).map_or(&none, |parts| &**parts);
            // Those who wait at their limit are looked after by themselves.
            let waits = divided
                .iter()
                .any(|other| other.group == one.group && Some(other.limit.file) == one.limit.guard);
            let parts = self.parts_of(one, before, attempt, waits)?;
            let parts = parts.into_iter().map(|part| (part.dir.clone(), part)).collect();
            shares.parts.insert((one.group, one.limit.file), Arc::new(parts));
        }
        Ok(shares)
    }

    /// Refuses limits that are divided, if the realm is strict.
    pub(crate) fn refuse_divided<'a>(
        &self,
        mut divided: impl Iterator<Item = &'a Divided>,
    ) -> Result<(), EffectError> {
        match divided.next().filter(|_| self.config.strict) {
            Some(Divided { group, limit, dirs }) => {
                Err(EffectError::Divided { file: limit.file, group: *group, directories: dirs.len() })
            }
            None => Ok(()),
        }
    }

    /// From now on these are the parts.
    pub(crate) fn keep_shares(&self, change: &mut Changes, shares: Shares) {
        if !shares.have_the_dirs_of(&change.shares) {
            self.tracker.set_pressed(&shares.pressed());
        }
        change.shares = shares;
        self.want_looks(change);
    }

    /// Has the next look taken, if there is anything to look at.
    pub(crate) fn want_looks(&self, change: &Changes) {
        let is_idle = change.shares.is_empty() && !change.descriptors.holds_any();
        self.sharing.want(if is_idle { Wanted::Rest } else { Wanted::Looks });
    }

    fn rebalance(&self, change: &mut Changes) -> Result<Outcome, EffectError> {
        let groups = change.shares.groups();
        let divided = {
            let forest = self.lock_forest();
            Carrying { forest: &forest, shares: &change.shares, assigned: &[] }
                .divided(groups.iter().copied())
        };
        let prepared = self.prepare(&divided, |attempt| {
            attempt.is_look = true;
            let mut next = self.divide_again(change, &groups, &divided, attempt)?;
            let is_fed = |one: &&Divided| attempt.before > 0 || feeds_somebody(one, &change.shares, &next);
            let (fed, content): (Vec<&Divided>, Vec<&Divided>) = divided.iter().partition(is_fed);
            for one in content {
                next.stay_as(&change.shares, one.group, one.limit.file);
            }
            let mut seen: Vec<GroupId> = fed.iter().map(|one| one.group).collect();
            seen.dedup();
            let forest = self.lock_forest();
            let carrying = Carrying { forest: &forest, shares: &next, assigned: &[] };
            let steps = seen.into_iter().flat_map(|group| carrying.steps_of_parts(group, &fed));
            let steps = steps.filter(|step| is_of_a_part(step, &fed)).collect();
            drop(forest);
            Ok((next, steps))
        });
        let (next, steps) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                self.take_guards_back(change, &groups, &divided);
                return Err(error);
            }
        };
        // One by one: a directory that another program removed must not keep the others from their parts.
        self.carry_out_each(steps.iter().filter(|step| self.has_file_of(step)))?;
        let outcome = match steps.is_empty() {
            false => Outcome::Fed,
            true if next.is_doubtful() => Outcome::Doubt,
            true => Outcome::Nothing,
        };
        self.keep_shares(change, next);
        Ok(outcome)
    }

    /// Carries a step out, unless its directory has gone: nobody is in it.
    pub(crate) fn carry_out_if_there(&self, step: &Step) -> Result<(), StepError> {
        match self.tracker.carry_out(std::slice::from_ref(step)) {
            Err(error) if matches!(error.cause, Cause::Gone { .. }) => Ok(()),
            answer => answer,
        }
    }

    /// Carries several steps out, one after the other, but those whose directory has gone.
    pub(crate) fn carry_out_each<'a>(
        &self,
        steps: impl IntoIterator<Item = &'a Step>,
    ) -> Result<(), EffectError> {
        steps.into_iter().try_for_each(|step| Ok(self.carry_out_if_there(step)?))
    }

    /// Whether the kernel below has the file that a step writes: a value of another was never in force.
    pub(crate) fn has_file_of(&self, step: &Step) -> bool {
        match step {
            Step::Write { file, .. } | Step::Entry { file, .. } => self.facts.v2_files.contains(*file),
            Step::Make(_) | Step::Move { .. } | Step::Remove(_) | Step::Program { .. } => true,
        }
    }

    /// Divides one limit by what is used of it.
    fn parts_of(
        &self,
        one: &Divided,
        before: &Parts,
        attempt: &mut Attempt,
        waits: bool,
    ) -> Result<Vec<Part>, EffectError> {
        let mut parts = self.looked_at(one, before)?;
        let is_made_free = self.make_free(one, before, &parts)?;
        if is_made_free {
            parts = self.looked_at(one, before)?;
        }
        let staying = self.staying(one, attempt)?;
        // What is too little to be divided goes round where nothing tells who needs it.
        let turn = match one.limit.pressed {
            None => self.sharing.turn.fetch_add(1, Ordering::Relaxed),
            Some(_) => 0,
        };
        let (kind, kills) = (one.limit.used.kind(), one.limit.guard.is_some());
        for (at, whole) in one.limit.amounts.iter().enumerate() {
            let shares = |claimants: &[Claimant]| match kills {
                true => divide_sparing(whole.most, claimants, &staying).expect("looked at before"),
                false => divide_with_least(kind, whole.most, claimants, one.limit.least),
            };
            let mut looks: Vec<Look> = parts.iter().map(|part| part.last[at]).collect();
            if kind == LimitKind::Amount {
                settle(&mut looks, shares);
            }
            let mut claimants: Vec<Claimant> = looks.iter().map(Look::claimant).collect();
            let turn = turn % claimants.len().max(1);
            claimants.rotate_left(turn);
            let mut shares = shares(&claimants);
            shares.rotate_right(turn);
            if !kills {
                claimants.rotate_right(turn);
                let had: Vec<Option<u64>> =
                    parts.iter().map(|part| before.get(&part.dir)?.amount(&whole.of)).collect();
                keep_what_others_had(kind, whole.most, &claimants, &had, &mut shares);
            }
            for ((part, most), look) in parts.iter_mut().zip(shares).zip(looks) {
                part.last[at] = look;
                part.amounts.push(Amount { of: whole.of.clone(), most });
            }
        }
        parts.iter_mut().for_each(|part| part.is_guard_off = is_made_free);
        if kills {
            if is_made_free && attempt.is_look && !waits {
                kill_for_the_starved(one, &mut parts, attempt);
            }
            set_guards(one, &mut parts, waits);
        }
        Ok(parts)
    }

    /// The parts that are not to be lowered, for each directory of a limit. EBUSY if they come to more than that.
    fn staying(&self, one: &Divided, attempt: &Attempt) -> Result<Vec<Option<u64>>, EffectError> {
        let most = Amount::one(&one.limit.amounts).unwrap_or(0);
        let part = |dir: &Dir| {
            if !attempt.stays(dir, one.limit.file) {
                return Ok(None);
            }
            // One that is not limited yet may use all.
            let now = self.text_of(dir, one.limit.file)?;
            Ok(Some(now.and_then(|text| text.trim().parse().ok()).unwrap_or(most)))
        };
        let staying = one.dirs.iter().map(part).collect::<Result<Vec<Option<u64>>, EffectError>>()?;
        let used = staying.iter().flatten().fold(0_u64, |sum, part| sum.saturating_add(*part));
        if used > most { Err(EffectError::InUse { used, most }) } else { Ok(staying) }
    }

    /// What each directory uses.
    fn looked_at(&self, one: &Divided, before: &Parts) -> Result<Vec<Part>, EffectError> {
        let look = |dir: &Dir| {
            let told_in = self.told_in(one, dir);
            let last = self.looks(one, dir, &told_in, before.get(dir))?;
            Ok(Part {
                dir: dir.clone(),
                told_in,
                amounts: Vec::new(),
                is_guard_off: false,
                pressed_by: one
                    .limit
                    .pressed
                    .filter(|_| one.limit.guard.is_none())
                    .map(|told| told.figure().file),
                guarded_by: one.limit.guard,
                guard: None,
                last,
            })
        };
        one.dirs.iter().map(look).collect()
    }

    /// Where a part that is too small kills, and all of the limit is used though somebody needs a part: has those who use it
    /// give up what can be reclaimed, as they would in one directory. True if that was tried.
    fn make_free(&self, one: &Divided, before: &Parts, parts: &[Part]) -> Result<bool, EffectError> {
        let Some(guard) = one.limit.guard else { return Ok(false) };
        let whole = Amount::one(&one.limit.amounts).unwrap_or(0);
        let sum = parts.iter().map(Part::used).fold(0, u64::saturating_add);
        let needs = |part: &Part| {
            let is_new = !before.contains_key(&part.dir);
            is_new || part.last.iter().any(|look| look.claimant().hungry) && part.used() < whole / 2
        };
        if sum <= whole - whole / NEARLY || !parts.iter().any(needs) {
            return Ok(false);
        }
        // Those who use little are not slowed down for those who use much.
        let greatest = greatest(&parts.iter().map(Part::claimant).collect::<Vec<_>>());
        let is_great = |part: &Part| part.used() >= whole / parts.len() as u64;
        let giving = parts.iter().enumerate().filter(|(at, part)| Some(*at) == greatest || is_great(part));
        for (_, part) in giving {
            let most = part.used() - part.used() / NEARLY;
            let text = most.to_string();
            self.carry_out_if_there(&Step::Write { dir: part.dir.clone(), file: guard, text })?;
        }
        Ok(true)
    }

    /// Where the kernel tells that a directory's part was met.
    fn told_in(&self, one: &Divided, dir: &Dir) -> Vec<Dir> {
        match one.limit.pressed {
            Some(Pressed::MetInLeaf(_, file)) if !self.facts.v2_files.contains(file) => {
                self.lock_forest().leaves_in(one.group, dir)
            }
            _ => vec![dir.clone()],
        }
    }

    /// What a directory uses of each amount. One that is not there yet uses nothing.
    fn looks(
        &self,
        one: &Divided,
        dir: &Dir,
        told_in: &[Dir],
        known: Option<&Part>,
    ) -> Result<Vec<Look>, EffectError> {
        let used = one.limit.used.figure();
        let used_text = self.text_of(dir, used.file)?;
        // A kernel that is told not to look after pressure has no such file, or one that cannot be read.
        let text = |told_in: &Dir, told: Pressed| match told.figure().file == used.file && told_in == dir {
            true => used_text.clone(),
            false => self.text_of(told_in, told.figure().file).ok().flatten(),
        };
        let told = one.limit.pressed.map(|told| {
            let texts: Vec<String> = told_in.iter().filter_map(|dir| text(dir, told)).collect();
            (told, texts)
        });
        let all = one.limit.pressed.zip(used_text.as_deref()).map_or(0, |(told, text)| told.all(text));
        let at = self.sharing.began.elapsed();
        let was = |amount: &Amount| {
            let known = known?;
            let was = known.amounts.iter().position(|seen| seen.of == amount.of)?;
            let part = known.amounts[was].most;
            let period = one.limit.periods.map(|periods| periods.of(part));
            Some((known.last.get(was)?, Allowed { part, period }))
        };
        let figure = |amount: &Amount| {
            used_text.as_deref().and_then(|text| (used.value)(text, &amount.of)).unwrap_or(0)
        };
        let look = |amount: &Amount| {
            let pressure = told.as_ref().and_then(|(told, texts)| told.read(texts, &amount.of));
            let reading = Reading { at, figure: figure(amount), pressure, all };
            let (before, allowed) = was(amount).unzip();
            Look::new(one.limit.used.kind(), reading, before, allowed)
        };
        Ok(one.limit.amounts.iter().map(look).collect())
    }

    /// What a v2 file says. `None`: it is not there, or not yet.
    pub(crate) fn text_of(&self, dir: &Dir, file: &'static str) -> Result<Option<String>, EffectError> {
        match self.tracker.read(Where::Dir(dir), file) {
            Ok(text) => Ok(Some(text)),
            Err(ReadError::NoFile { .. } | ReadError::Gone { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// The CPU time that this thread has used.
fn cpu_time() -> Duration {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    // Neither is negative.
    Duration::new(used.tv_sec.unsigned_abs(), used.tv_nsec.unsigned_abs().try_into().unwrap_or(0))
}

/// All of a limit is used, none of it can be reclaimed, and somebody waits at its part who does not use most of it. In one directory
/// the kernel would kill, and whoever uses most: so the part of that one is lowered.
fn kill_for_the_starved(one: &Divided, parts: &mut [Part], attempt: &mut Attempt) {
    let most = |part: &Part| part.amounts.first().map_or(0, |amount| amount.most);
    let whole = Amount::one(&one.limit.amounts).unwrap_or(0);
    let Some(greatest) = greatest(&parts.iter().map(Part::claimant).collect::<Vec<_>>()) else { return };
    let used: u64 = parts.iter().map(Part::used).fold(0, u64::saturating_add);
    if whole.saturating_sub(used) >= (2 * LEAST_GUARD).min(whole / 32) {
        return;
    }
    let is_told = |part: &Part| part.last.first().is_some_and(Look::is_told);
    let starved = parts.iter().enumerate().position(|(at, part)| at != greatest && is_told(part));
    let Some(starved) = starved else { return };
    let taken = LEAST_GUARD.min(most(&parts[greatest]) / 2);
    tracing::debug!(
        "all of {} of group {} is used, and {} waits: the kernel kills in {}",
        one.limit.file,
        one.group,
        parts[starved].dir,
        parts[greatest].dir
    );
    parts[greatest].amounts[0].most -= taken;
    parts[starved].amounts[0].most += taken;
    attempt.let_be_met(parts[greatest].dir.clone(), one.limit.file);
}

/// Guards of parts: where somebody is slowed down before it meets its part and is killed. `waits`: nobody is killed, but waits.
fn set_guards(one: &Divided, parts: &mut [Part], waits: bool) {
    let used: u64 = parts.iter().map(Part::used).fold(0, u64::saturating_add);
    let whole = Amount::one(&one.limit.amounts).unwrap_or(0);
    // With next to nothing left, the limit itself has to be met, as it would be in one directory: by who uses most of it.
    let is_nearly_met = whole.saturating_sub(used) <= whole / NEARLY;
    let greatest = greatest(&parts.iter().map(Part::claimant).collect::<Vec<_>>());
    for (at, part) in parts.iter_mut().enumerate() {
        let is_guarded = !is_nearly_met || !waits && Some(at) != greatest;
        let most = Amount::one(&part.amounts).filter(|_| is_guarded);
        part.guard = most.map(|most| match Some(at) == greatest {
            true => {
                let (part, enough) = GUARD_OF_GREATEST;
                most - (most / part).min(enough.max(most / part / 2))
            }
            false => most - (most / GUARD_OF_OTHERS).max(LEAST_GUARD.min(most / 2)),
        });
    }
}

/// Whether a step writes a part of one of these limits, or a guard of one, and not what else there is of the groups.
fn is_of_a_part(step: &Step, limits: &[&Divided]) -> bool {
    let (Step::Write { file, .. } | Step::Entry { file, .. }) = step else { return false };
    limits.iter().any(|one| one.limit.file == *file || one.limit.guard == Some(file))
}

/// Whether somebody who wants more gets noticeably more, or a directory has a part for the first time.
fn feeds_somebody(one: &Divided, old: &Shares, new: &Shares) -> bool {
    let Some(parts) = new.parts.get(&(one.group, one.limit.file)) else { return false };
    let befores: Option<Vec<&Part>> =
        parts.values().map(|part| old.find(one.group, one.limit.file, &part.dir)).collect();
    let Some(befores) = befores.filter(|_| parts.values().all(|part| !part.is_guard_off)) else {
        return true;
    };
    one.limit.amounts.iter().enumerate().any(|(at, whole)| {
        let most = |part: &Part| part.amounts.get(at).map_or(0, |amount| amount.most);
        let looks: Vec<Look> = parts.values().filter_map(|part| part.last.get(at).copied()).collect();
        let had: Vec<u64> = befores.iter().map(|part| most(part)).collect();
        let gets: Vec<u64> = parts.values().map(most).collect();
        are_worth_writing(one.limit.used.kind(), whole.most, &looks, &had, &gets)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_writes_parts_and_their_guards_and_nothing_else_of_a_group() {
        let dir = Dir::REALM.cell(pinfold_model::CellId::new(1).expect("not 0"));
        let figure = pinfold_files::Figure { file: "memory.current", value: |text, _| text.parse().ok() };
        let limit = crate::carry::Limit {
            file: "memory.max",
            amounts: Amount::only(Some(100)),
            used: pinfold_files::Used::Now(figure),
            pressed: None,
            guard: Some("memory.high"),
            least: 0,
            periods: None,
        };
        let one = Divided { group: GroupId::new(1).expect("not 0"), limit, dirs: vec![dir.clone()] };
        let is_written =
            |file| is_of_a_part(&Step::Write { dir: dir.clone(), file, text: "7".to_owned() }, &[&one]);
        let files = ["memory.max", "memory.high", "memory.low", "memory.swap.max"];
        assert_eq!(files.map(is_written), [true, true, false, false]);
    }

    #[test]
    fn looks_hurry_while_somebody_gets_more_by_them_and_take_a_quarter_of_a_cpu_otherwise() {
        let millis = Duration::from_millis;
        for (took, cost, is_pressed, outcome, least, most) in [
            (0, 0, false, Outcome::Nothing, 10, 50),
            (0, 0, true, Outcome::Fed, 10, 50),
            (0, 0, true, Outcome::Nothing, 50, 50),
            (0, 0, false, Outcome::Doubt, 10, 10),
            (0, 0, true, Outcome::Doubt, 10, 10),
            (5, 5, false, Outcome::Nothing, 15, 50),
            (5, 5, false, Outcome::Doubt, 15, 15),
            (5, 5, true, Outcome::Fed, 10, 50),
            (20, 20, false, Outcome::Nothing, 60, 60), // about a thousand directories
            (20, 20, true, Outcome::Nothing, 60, 60),
            (20, 20, false, Outcome::Doubt, 60, 60),
            (20, 20, true, Outcome::Fed, 20, 50),
            (60, 60, false, Outcome::Fed, 60, 60),
            (40, 5, false, Outcome::Nothing, 40, 50), // others wanted the CPU
            (60, 5, false, Outcome::Nothing, 60, 60),
        ] {
            let pauses = Looked { took: millis(took), cost: millis(cost), is_pressed, outcome }.pauses();
            let expected = (millis(least), millis(most));
            assert_eq!(pauses, expected, "{took} ms, {cost} of a CPU, pressed: {is_pressed}, {outcome:?}");
        }
    }
}
