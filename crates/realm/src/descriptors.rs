//! Groups whose open descriptors are limited: their limit is divided over the processes, each of which the kernel limits by
//! itself (RLIMIT_NOFILE).
//!
//! A process has its own limit again when no group limits it any more, so what that is gets kept before it is first given
//! less: the next daemon knows it too (I8). While any process is limited, the thread that looks after divided limits looks here
//! as well, for children, who have a copy of their parent's part until then, and for who has used up its part. Events of
//! forks would tell of children sooner, but not soon enough either: a child opens files before anybody is told of it.

use std::collections::{BTreeSet, HashMap, HashSet};

use pinfold_files::{Assignment, Carry};
use pinfold_kernel::descriptors;
use pinfold_kernel::process::{self, ProcessError, Vitals};
use pinfold_kernel::{self as kernel, inspect};
use pinfold_model::{
    DescriptorLimit, Dir, Forest, GroupId, Holder, HostPid, Narrowed, Seat, Settings, descriptor_parts,
};

use crate::read::leaves_below;
use crate::realm::{Changes, surroundings};
use crate::record::{self, DescriptorRecord};
use crate::state::Records;
use crate::{EffectError, Realm, StateError};

/// How often a leaf is looked at again because processes forked while they got their own limits back.
const ROUNDS: usize = 100;

/// The groups with a limit, and the processes that it is divided over.
#[derive(Default)]
pub(crate) struct Descriptors {
    /// The groups that have a limit.
    limited: BTreeSet<GroupId>,
    parts: HashMap<GroupId, Parts>,
    held: HashMap<HostPid, Held>,
}

/// The parts of one limit.
#[derive(Default)]
struct Parts {
    limit: u64,
    of: HashMap<HostPid, u64>,
}

/// A process that is in a group with a limit.
struct Held {
    /// With its number, it is this process and no other.
    started: u64,
    leaf: Dir,
    limit: Narrowed,
    /// What the state directory keeps as its own limit.
    kept: Option<DescriptorLimit>,
    /// Whether it could not be limited: that is told once.
    is_loose: bool,
}

/// A limit as it is looked at.
struct Limited {
    group: GroupId,
    most: u64,
    leaves: Vec<Dir>,
}

impl Descriptors {
    /// Whether there are processes to look at.
    pub(crate) fn holds_any(&self) -> bool {
        !self.held.is_empty()
    }

    /// How many processes have a part of a group's limit.
    pub(crate) fn processes_of(&self, group: GroupId) -> usize {
        let is_limited = |process: &HostPid| self.held.get(process).is_some_and(|held| !held.is_loose);
        self.parts
            .get(&group)
            .map_or(0, |parts| parts.of.keys().filter(|process| is_limited(process)).count())
    }

    /// No group has a limit any more.
    pub(crate) fn lift_all(&mut self) {
        self.limited.clear();
    }

    fn is_idle(&self) -> bool {
        self.limited.is_empty() && self.held.is_empty()
    }

    /// The limits of its parents, of whom one that is known is the one, or of those who might be.
    fn parents_of(&self, parent: Option<HostPid>, leaf: &Dir) -> Vec<Narrowed> {
        match parent.and_then(|parent| self.held.get(&parent)) {
            Some(parent) => vec![parent.limit],
            None => self.held.values().filter(|held| held.leaf == *leaf).map(|held| held.limit).collect(),
        }
    }

    /// Divides a limit over these processes, if it is to be.
    fn divide(&mut self, group: GroupId, most: u64, processes: &[HostPid], open: &HashMap<HostPid, u64>) {
        let parts = self.parts.entry(group).or_default();
        if parts.limit != most {
            *parts = Parts { limit: most, of: HashMap::new() };
        }
        let there: HashSet<&HostPid> = processes.iter().collect();
        parts.of.retain(|process, _| there.contains(process));
        let holder = |process: &HostPid| {
            let open = open.get(process).copied().unwrap_or(0);
            Holder { part: parts.of.get(process).copied(), open, end: open }
        };
        let mut holders: Vec<Holder> = processes.iter().map(holder).collect();
        if descriptor_parts(most, &holders).is_none() {
            return;
        }
        for (holder, process) in holders.iter_mut().zip(processes) {
            holder.end = descriptors::end(*process).unwrap_or(0);
        }
        if let Some(next) = descriptor_parts(most, &holders) {
            parts.of = processes.iter().copied().zip(next).collect();
        }
    }

    /// What each process may have, by all groups that it is in or below: those that get less first.
    fn wanted(&self) -> Vec<(HostPid, u64)> {
        let part = |process: &HostPid| self.parts.values().filter_map(|parts| parts.of.get(process)).min();
        let mut wanted: Vec<(HostPid, u64)> =
            self.held.keys().filter_map(|process| Some((*process, *part(process)?))).collect();
        let gets_more = |(process, part): &(HostPid, u64)| {
            self.held.get(process).is_some_and(|held| held.limit.given().hard < *part)
        };
        wanted.sort_by_key(|one| (gets_more(one), one.0));
        wanted
    }
}

impl Realm {
    /// Takes note of groups that have a limit now, or none any more, and has it hold.
    pub(crate) fn descriptors_assigned(&self, change: &mut Changes, assignments: &[Assignment]) {
        let is_one = |a: &&Assignment| matches!(a.setting.carry, Carry::Descriptors { .. });
        let groups: Vec<GroupId> = assignments.iter().filter(is_one).map(|a| a.group).collect();
        if groups.is_empty() {
            return;
        }
        for group in groups {
            match most_of(&self.lock_forest(), group) {
                Some(_) => _ = change.descriptors.limited.insert(group),
                None => _ = change.descriptors.limited.remove(&group),
            }
        }
        self.look_after_descriptors(change);
    }

    /// A process was attached to a group, or taken out of all.
    pub(crate) fn descriptors_attached(&self, change: &mut Changes, process: HostPid, group: GroupId) {
        let all = &change.descriptors;
        let is_limited = !all.limited.is_empty() && {
            let forest = self.lock_forest();
            let mut groups = std::iter::once(group).chain(forest.ancestors(group));
            groups.any(|group| all.limited.contains(&group))
        };
        if is_limited || all.held.contains_key(&process) {
            self.look_at_descriptors(change, Some(process));
        }
    }

    /// Refuses limits that are divided over processes, if the realm is strict.
    pub(crate) fn refuse_over_processes(&self, assignments: &[Assignment]) -> Result<(), EffectError> {
        let is_limit = |a: &&Assignment| {
            let mut settings = Settings::NONE;
            settings.replace(a.setting.key, Some(a.value.clone()));
            matches!(a.setting.carry, Carry::Descriptors { most } if most(&settings).is_some())
        };
        match assignments.iter().find(is_limit).filter(|_| self.config.strict) {
            Some(a) => Err(EffectError::OverProcesses { file: a.setting.key.0, group: a.group }),
            None => Ok(()),
        }
    }

    /// How many descriptors the processes of a leaf have open.
    pub(crate) fn open_descriptors(&self, leaf: &Dir) -> Result<u64, kernel::ReadError> {
        let processes = self.tracker.processes(leaf)?;
        Ok(processes.into_iter().filter_map(|process| descriptors::open(process).ok()).sum())
    }

    /// Gives each process its part of its groups' limits, and those that are in no such group their own limit back.
    pub(crate) fn look_after_descriptors(&self, change: &mut Changes) {
        self.look_at_descriptors(change, None);
    }

    /// `newcomer`: a process that was attached just now, and so has its own limit.
    fn look_at_descriptors(&self, change: &mut Changes, newcomer: Option<HostPid>) {
        if change.descriptors.is_idle() {
            return;
        }
        if let Err(error) = self.divide_descriptors(&mut change.descriptors, newcomer) {
            tracing::warn!("limits on descriptors stay as they are: {error}");
        }
        self.want_looks(change);
    }

    fn divide_descriptors(
        &self,
        all: &mut Descriptors,
        newcomer: Option<HostPid>,
    ) -> Result<(), kernel::ReadError> {
        let limits = self.limits_on_descriptors(&mut all.limited);
        let mut by_leaf: HashMap<&Dir, Vec<HostPid>> = HashMap::new();
        for leaf in limits.iter().flat_map(|limit| &limit.leaves) {
            if !by_leaf.contains_key(leaf) {
                by_leaf.insert(leaf, self.processes_of_leaf(leaf)?);
            }
        }
        for (leaf, processes) in &by_leaf {
            processes.iter().for_each(|process| self.take_up(all, *process, leaf, newcomer));
        }
        let there: HashSet<HostPid> = by_leaf.values().flatten().copied().collect();
        let left: Vec<(HostPid, Held)> = all.held.extract_if(|process, _| !there.contains(process)).collect();
        self.let_go(left, &by_leaf.keys().copied().collect::<Vec<_>>());
        let open: HashMap<HostPid, u64> =
            all.held.keys().map(|process| (*process, descriptors::open(*process).unwrap_or(0))).collect();
        all.parts.retain(|group, _| limits.iter().any(|limit| limit.group == *group));
        for Limited { group, most, leaves } in &limits {
            let processes = leaves.iter().filter_map(|leaf| by_leaf.get(leaf)).flatten();
            let mut processes: Vec<HostPid> =
                processes.copied().filter(|process| all.held.contains_key(process)).collect();
            processes.sort_unstable();
            processes.dedup();
            all.divide(*group, *most, &processes, &open);
        }
        for (process, part) in all.wanted() {
            let is_gone = all.held.get_mut(&process).is_some_and(|held| !self.give(process, held, part));
            if is_gone && all.held.remove(&process).is_some_and(|held| held.kept.is_some()) {
                self.forget_own(process);
            }
        }
        Ok(())
    }

    /// The limits there are; groups that are gone are forgotten.
    fn limits_on_descriptors(&self, limited: &mut BTreeSet<GroupId>) -> Vec<Limited> {
        let forest = self.lock_forest();
        limited.retain(|group| most_of(&forest, *group).is_some());
        let limit = |group: &GroupId| {
            Some(Limited {
                group: *group,
                most: most_of(&forest, *group)?,
                leaves: leaves_below(&forest, *group),
            })
        };
        limited.iter().filter_map(limit).collect()
    }

    /// The processes of a leaf; none if it is gone.
    fn processes_of_leaf(&self, leaf: &Dir) -> Result<Vec<HostPid>, kernel::ReadError> {
        match self.tracker.processes(leaf) {
            Err(kernel::ReadError::Gone { .. } | kernel::ReadError::NoFile { .. }) => Ok(Vec::new()),
            answer => answer,
        }
    }

    /// Takes up a process that is seen in a leaf of a limited group, if it is a new one.
    fn take_up(&self, all: &mut Descriptors, process: HostPid, leaf: &Dir, newcomer: Option<HostPid>) {
        if let Some(held) = all.held.get_mut(&process) {
            held.leaf = leaf.clone();
            return;
        }
        // It may have ended since.
        let (Ok(vitals), Ok(now)) = (Vitals::of(process), descriptors::limit(process)) else { return };
        let limit = match newcomer == Some(process) {
            true => Narrowed::new(now),
            false => Narrowed::born_to(&all.parents_of(vitals.parent, leaf), now),
        };
        all.held.insert(
            process,
            Held { started: vitals.started, leaf: leaf.clone(), limit, kept: None, is_loose: false },
        );
    }

    /// Gives a process its part. False: it has ended, and whoever has its number now is taken up by the next look.
    fn give(&self, process: HostPid, held: &mut Held, part: u64) -> bool {
        let Ok(now) = descriptors::limit(process) else { return false };
        held.limit.found_with(now);
        let next = held.limit.with_part(part);
        if next.is_none() && held.kept.is_none_or(|kept| kept == held.limit.own()) {
            return true;
        }
        let given = self.keep_own(process, held).map_err(EffectError::from).and_then(|()| match next {
            Some(next) => match descriptors::set_limit(process, held.started, next) {
                Ok(()) => {
                    held.limit.gave(next);
                    Ok(())
                }
                Err(error) => Err(EffectError::Limit(error)),
            },
            None => Ok(()),
        });
        if matches!(given, Err(EffectError::Limit(ProcessError::Gone(_)))) {
            return false;
        }
        if let Err(error) = &given
            && !held.is_loose
        {
            tracing::warn!("process {process} has no part of a limit: {}", crate::error::chain(error));
        }
        held.is_loose = given.is_err();
        true
    }

    /// Writes down what limit a process has by itself, before it is given less.
    fn keep_own(&self, process: HostPid, held: &mut Held) -> Result<(), StateError> {
        let own = held.limit.own();
        if held.kept != Some(own) {
            let record = DescriptorRecord { numbering: process::numbering(), started: held.started, own };
            self.state.keep(Records::Descriptors, process.get(), Some(&record::descriptor_text(&record)))?;
            held.kept = Some(own);
        }
        Ok(())
    }

    /// Gives processes their own limits back that are in no limited group any more, and those of their children whom nobody
    /// has seen: once their parents have theirs, no more of them are born. `limited`: leaves whose processes have parts.
    fn let_go(&self, left: Vec<(HostPid, Held)>, limited: &[&Dir]) {
        let mut freed: HashMap<HostPid, Narrowed> = HashMap::new();
        let mut leaves: Vec<Dir> = Vec::new();
        for (process, mut held) in left {
            if let Ok(now) = descriptors::limit(process) {
                held.limit.found_with(now);
            }
            let is_there = self.give_back(process, held.started, &held.limit);
            if held.kept.is_some() {
                self.forget_own(process);
            }
            if is_there && !limited.contains(&&held.leaf) && !leaves.contains(&held.leaf) {
                leaves.push(held.leaf);
            }
            freed.insert(process, held.limit);
        }
        for _ in 0..ROUNDS {
            let found: Vec<HostPid> =
                leaves.iter().filter_map(|leaf| self.processes_of_leaf(leaf).ok()).flatten().collect();
            let new: Vec<HostPid> =
                found.into_iter().filter(|process| !freed.contains_key(process)).collect();
            if new.is_empty() {
                return;
            }
            for process in new {
                let (Ok(vitals), Ok(now)) = (Vitals::of(process), descriptors::limit(process)) else {
                    continue;
                };
                let parent = vitals.parent.and_then(|parent| freed.get(&parent));
                let parents =
                    parent.map_or_else(|| freed.values().copied().collect(), |parent| vec![*parent]);
                let limit = Narrowed::born_to(&parents, now);
                self.give_back(process, vitals.started, &limit);
                freed.insert(process, limit);
            }
        }
    }

    /// Gives a process its own limit back; false: it has ended.
    fn give_back(&self, process: HostPid, started: u64, limit: &Narrowed) -> bool {
        if limit.given() == limit.own() {
            return process::start_time(process).is_ok_and(|now| now == started);
        }
        match descriptors::set_limit(process, started, limit.own()) {
            Ok(()) => true,
            Err(ProcessError::Gone(_)) => false,
            Err(error) => {
                tracing::warn!("process {process} does not get its own limit on descriptors back: {error}");
                true
            }
        }
    }

    fn forget_own(&self, process: HostPid) {
        if let Err(error) = self.state.keep(Records::Descriptors, process.get(), None) {
            tracing::warn!("the record of a process that is limited no more stays: {error}");
        }
    }

    /// Finds the limits again, and the processes that had less than their own when the last daemon ended.
    pub(crate) fn recover_descriptors(&self, change: &mut Changes) -> Result<(), StateError> {
        let kept = self.state.records(Records::Descriptors)?;
        {
            let forest = self.lock_forest();
            let roots = forest.hierarchies().map(|(_, found)| found.root());
            let groups = roots.flat_map(|root| forest.subtree(root));
            change.descriptors.limited = groups.filter(|group| most_of(&forest, *group).is_some()).collect();
        }
        for (number, text) in kept {
            match self.known_again(number, &text) {
                Some((process, held)) => _ = change.descriptors.held.insert(process, held),
                None => self.state.keep(Records::Descriptors, number, None)?,
            }
        }
        if inspect::resource_limits() {
            self.look_after_descriptors(change);
        } else if !change.descriptors.is_idle() {
            tracing::warn!("limits on descriptors stay as they are: this takes CAP_SYS_RESOURCE");
            change.descriptors = Descriptors::default();
        }
        Ok(())
    }

    /// The process of a record, unless it has ended; whoever has its number then is another one.
    fn known_again(&self, number: u32, text: &str) -> Option<(HostPid, Held)> {
        let record = record::parse_descriptors(text)
            .inspect_err(|line| tracing::warn!("record of the limit of process {number}: {line}"))
            .ok()?;
        let process = HostPid::new(number)?;
        let started = process::start_time(process).ok()?;
        if started != record.started || process::numbering() != record.numbering {
            return None;
        }
        // What it has set itself meanwhile cannot be told from what it was given.
        let limit = Narrowed::back(record.own, descriptors::limit(process).ok()?);
        let leaf = match self.seat_of(process)? {
            Seat::Cell(cell) => self.lock_forest().leaf(cell)?,
            Seat::Outside(_) => Dir::REALM,
        };
        Some((process, Held { started, leaf, limit, kept: Some(record.own), is_loose: false }))
    }
}

/// The limit on descriptors that a group has itself.
fn most_of(forest: &Forest, group: GroupId) -> Option<u64> {
    let bound = surroundings(forest, group)?.bound;
    let settings = forest.group(group)?.settings();
    pinfold_files::settings(bound).find_map(|setting| match setting.carry {
        Carry::Descriptors { most } => most(settings),
        _ => None,
    })
}
