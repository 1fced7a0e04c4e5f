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
    Comes, Count, DescriptorLimit, DescriptorParts, Dir, Family, Forest, GroupId, HostPid, Narrowed, Seat,
    Settings,
};

use crate::read::leaves_below;
use crate::realm::{Changes, surroundings};
use crate::record::{self, DescriptorRecord};
use crate::state::Records;
use crate::{EffectError, Realm, StateError};

/// How often a leaf is looked at again because processes forked while they got their own limits back.
const ROUNDS: usize = 100;

/// How often a process is given its limit again because it has set one itself just before.
const TRIES: usize = 10;

/// The groups with a limit, and the processes that it is divided over.
#[derive(Default)]
pub(crate) struct Descriptors {
    /// The groups that have a limit.
    limited: BTreeSet<GroupId>,
    parts: HashMap<GroupId, DescriptorParts>,
    held: HashMap<HostPid, Held>,
    /// Whether the last look failed: that is told once.
    has_failed: bool,
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
    /// Whether it could not be counted: that is told once.
    is_uncounted: bool,
}

impl Held {
    fn new(started: u64, leaf: Dir, limit: Narrowed) -> Self {
        Self { started, leaf, limit, kept: None, is_loose: false, is_uncounted: false }
    }
}

/// A limit as it is looked at.
struct Limited {
    group: GroupId,
    most: u64,
    leaves: Vec<Dir>,
}

/// A process that was attached: only the limits that hold where it came from and where it is are looked at.
struct Attached {
    process: HostPid,
    /// Its group and those above it.
    groups: Vec<GroupId>,
    /// Whether it came from where nobody is limited.
    from_outside: bool,
}

impl Descriptors {
    /// Whether there are processes to look at.
    pub(crate) fn holds_any(&self) -> bool {
        !self.held.is_empty()
    }

    /// How many processes have a part of a group's limit, and how many should have and could not be given it.
    pub(crate) fn processes_of(&self, group: GroupId) -> (usize, usize) {
        let all = self.parts.get(&group).into_iter().flat_map(DescriptorParts::processes);
        let (loose, limited): (Vec<&Held>, Vec<&Held>) =
            all.filter_map(|process| self.held.get(&process)).partition(|held| held.is_loose);
        (limited.len(), loose.len())
    }

    /// No group has a limit any more.
    pub(crate) fn lift_all(&mut self) {
        self.limited.clear();
    }

    fn is_idle(&self) -> bool {
        self.limited.is_empty() && self.held.is_empty()
    }

    /// Whether processes born in a leaf may have a part of a limit: whoever is held there may be their parent.
    fn holds_in(&self, leaf: &Dir) -> bool {
        self.held.values().any(|held| held.leaf == *leaf)
    }

    /// Divides a limit over these processes, if it is to be.
    fn divide(&mut self, limit: &Limited, processes: &[HostPid], open: &HashMap<HostPid, Option<u64>>) {
        let parts = self.parts.entry(limit.group).or_default();
        parts.look(limit.most, processes);
        let open = |process: &HostPid| open.get(process).copied().flatten();
        let count = |process: &HostPid| (*process, open(process).map(|open| Count { open, end: open }));
        let mut counts: Vec<(HostPid, Option<Count>)> = processes.iter().map(count).collect();
        if !parts.is_due(&counts) {
            return;
        }
        for (process, count) in &mut counts {
            *count = count.and_then(|count| match descriptors::end(*process) {
                Ok(end) => Some(Count { end, ..count }),
                Err(ProcessError::Gone(_)) => Some(count),
                Err(_) => None,
            });
        }
        parts.divide(&counts);
    }

    /// What a process has open; one that has ended has nothing. `None`: it cannot be counted.
    fn count(&mut self, process: HostPid) -> Option<u64> {
        let open = match descriptors::open(process) {
            Err(ProcessError::Gone(_)) => Ok(0),
            answer => answer,
        };
        if let Some(held) = self.held.get_mut(&process) {
            if let Err(error) = &open
                && !held.is_uncounted
            {
                tracing::warn!(
                    "process {process} keeps its part of a limit, as it cannot be counted: {error}"
                );
            }
            held.is_uncounted = open.is_err();
        }
        open.ok()
    }

    /// What some processes may have, by all groups that they are in or below: those that are to have more, or those that are not.
    fn wanted<'a>(
        &self,
        processes: impl Iterator<Item = &'a HostPid>,
        have_more: bool,
    ) -> Vec<(HostPid, u64)> {
        let part = |process: &HostPid| self.parts.values().filter_map(|parts| parts.of(*process)).min();
        let wanted = processes.filter_map(|process| {
            let (given, part) = (self.held.get(process)?.limit.given(), part(process)?);
            ((given.hard < part) == have_more).then_some((*process, part))
        });
        let mut wanted: Vec<(HostPid, u64)> = wanted.collect();
        wanted.sort_unstable();
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

    /// A process is about to be attached elsewhere. A child that nobody has seen yet has a copy of its parent's part, and is taken
    /// up here, where it is known who its parents may be.
    pub(crate) fn descriptors_leaving(&self, change: &mut Changes, process: HostPid, from: &Seat) {
        let all = &mut change.descriptors;
        if all.held.get(&process).is_some_and(|held| is_another(process, held)) {
            all.held.remove(&process);
            self.forget_own(process);
        }
        let Seat::Cell(cell) = from else { return };
        if all.held.is_empty() || all.held.contains_key(&process) {
            return;
        }
        let leaf = self.lock_forest().leaf(*cell);
        if let Some(leaf) = leaf.filter(|leaf| all.holds_in(leaf)) {
            self.take_up(all, vec![process], &leaf, None, &[]);
        }
    }

    /// A process was attached to a group, or taken out of all.
    pub(crate) fn descriptors_attached(&self, change: &mut Changes, process: HostPid, group: GroupId) {
        let all = &change.descriptors;
        let is_held = all.held.contains_key(&process);
        let groups: Vec<GroupId> = match all.limited.is_empty() {
            true => Vec::new(),
            false => {
                let forest = self.lock_forest();
                std::iter::once(group).chain(forest.ancestors(group)).collect()
            }
        };
        if is_held || groups.iter().any(|group| all.limited.contains(group)) {
            self.look_at_descriptors(change, Some(Attached { process, groups, from_outside: !is_held }));
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

    /// How many descriptors the processes of a leaf have open. EIO: one of them cannot be counted.
    pub(crate) fn open_descriptors(&self, leaf: &Dir) -> Result<u64, kernel::ReadError> {
        let count = |process: HostPid| match descriptors::open(process) {
            Err(ProcessError::Gone(_)) => Ok(0),
            Err(_) => Err(kernel::ReadError::System {
                path: format!("/proc/{process}/fd").into(),
                errno: rustix::io::Errno::IO,
            }),
            Ok(open) => Ok(open),
        };
        self.tracker.processes(leaf)?.into_iter().map(count).sum()
    }

    /// Gives each process its part of its groups' limits, and those that are in no such group their own limit back.
    pub(crate) fn look_after_descriptors(&self, change: &mut Changes) {
        self.look_at_descriptors(change, None);
    }

    /// Looks at all limits, or at those that a process is concerned with that was attached just now.
    fn look_at_descriptors(&self, change: &mut Changes, attached: Option<Attached>) {
        let all = &mut change.descriptors;
        if all.is_idle() {
            return;
        }
        let outcome = self.divide_descriptors(all, attached.as_ref());
        if let Err(error) = &outcome
            && !all.has_failed
        {
            tracing::warn!("limits on descriptors stay as they are: {error}");
        }
        all.has_failed = outcome.is_err();
        self.want_looks(change);
    }

    fn divide_descriptors(
        &self,
        all: &mut Descriptors,
        attached: Option<&Attached>,
    ) -> Result<(), kernel::ReadError> {
        let limits = self.limits_on_descriptors(&mut all.limited);
        all.parts.retain(|group, _| limits.iter().any(|limit| limit.group == *group));
        let from =
            attached.and_then(|attached| all.held.get(&attached.process)).map(|held| held.leaf.clone());
        let concerns = |limit: &&Limited| match attached {
            Some(Attached { groups, .. }) => {
                groups.contains(&limit.group) || from.as_ref().is_some_and(|from| limit.leaves.contains(from))
            }
            None => true,
        };
        let looked_at: Vec<&Limited> = limits.iter().filter(concerns).collect();
        let mut by_leaf: HashMap<&Dir, Vec<HostPid>> = HashMap::new();
        for leaf in looked_at.iter().flat_map(|limit| &limit.leaves) {
            if !by_leaf.contains_key(leaf) {
                by_leaf.insert(leaf, self.processes_of_leaf(leaf)?);
            }
        }
        let limited: HashSet<&Dir> = limits.iter().flat_map(|limit| &limit.leaves).collect();
        self.take_note(all, &by_leaf, attached, &limited);
        let there: BTreeSet<HostPid> =
            by_leaf.values().flatten().filter(|process| all.held.contains_key(process)).copied().collect();
        let open: HashMap<HostPid, Option<u64>> =
            there.iter().map(|process| (*process, all.count(*process))).collect();
        for limit in &looked_at {
            let processes = limit.leaves.iter().filter_map(|leaf| by_leaf.get(leaf)).flatten();
            let processes: BTreeSet<HostPid> =
                processes.filter(|process| all.held.contains_key(process)).copied().collect();
            all.divide(limit, &Vec::from_iter(processes), &open);
        }
        // Less for some before there is more for others; and what they opened before they had less is not there for others.
        let mut ends: HashMap<HostPid, u64> = HashMap::new();
        for (process, part) in all.wanted(there.iter(), false) {
            if let Some(held) = all.held.get_mut(&process)
                && self.give(process, held, part)
            {
                ends.insert(process, descriptors::end(process).unwrap_or(0));
            }
        }
        for limit in &looked_at {
            all.parts.entry(limit.group).or_default().recount(&ends);
        }
        for (process, part) in all.wanted(there.iter(), true) {
            if let Some(held) = all.held.get_mut(&process) {
                self.give(process, held, part);
            }
        }
        Ok(())
    }

    /// Takes note of who is in the leaves that are looked at: of newcomers, and of who has left or ended. `limited`: all leaves whose
    /// processes have parts.
    fn take_note(
        &self,
        all: &mut Descriptors,
        by_leaf: &HashMap<&Dir, Vec<HostPid>>,
        attached: Option<&Attached>,
        limited: &HashSet<&Dir>,
    ) {
        let there: HashMap<HostPid, &Dir> =
            by_leaf.iter().flat_map(|(leaf, all)| all.iter().map(|process| (*process, *leaf))).collect();
        let has_left = |process: &HostPid, held: &mut Held| match there.get(process) {
            Some(leaf) if !is_another(*process, held) => {
                held.leaf = (*leaf).clone();
                false
            }
            Some(_) => true,
            None => attached
                .is_none_or(|attached| attached.process == *process || by_leaf.contains_key(&held.leaf)),
        };
        let left: Vec<(HostPid, Held)> = all.held.extract_if(has_left).collect();
        let outsider = attached.filter(|attached| attached.from_outside).map(|attached| attached.process);
        for (leaf, processes) in by_leaf {
            let is_new = |process: &&HostPid| !all.held.contains_key(process);
            let new: Vec<HostPid> = processes.iter().filter(is_new).copied().collect();
            self.take_up(all, new, leaf, outsider, &left);
        }
        self.let_go(all, left, limited);
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

    /// Takes up processes that are seen in a leaf for the first time. `left`: those who are held no more.
    fn take_up(
        &self,
        all: &mut Descriptors,
        new: Vec<HostPid>,
        leaf: &Dir,
        outsider: Option<HostPid>,
        left: &[(HostPid, Held)],
    ) {
        if new.is_empty() {
            return;
        }
        let before = all.held.iter().chain(left.iter().map(|(process, held)| (process, held)));
        let mut family = Family::default();
        let is_limited_yet = before.clone().any(|(_, held)| held.leaf == *leaf);
        for (process, held) in before.filter(|(_, held)| held.leaf == *leaf) {
            family.add(*process, held.limit);
        }
        // They may have ended since.
        let seen = new.into_iter().filter_map(|process| Some((process, Vitals::of(process).ok()?)));
        let mut seen: Vec<(HostPid, Vitals)> = seen.collect();
        seen.sort_by_key(|(process, vitals)| (vitals.started, *process)); // parents before their children
        for (process, vitals) in seen {
            let Ok(now) = descriptors::limit(process) else { continue };
            let limit = if outsider == Some(process) || !is_limited_yet {
                Narrowed::newcomer(now, Comes::FromOutside)
            } else {
                let limit_of =
                    |parent| all.held.get(&parent).map(|held| held.limit).or_else(|| family.limit_of(parent));
                let parent = vitals.parent.and_then(|parent| Some((parent, limit_of(parent)?)));
                family.newborn(now, parent, may_descend)
            };
            family.add(process, limit);
            all.held.insert(process, Held::new(vitals.started, leaf.clone(), limit));
        }
    }

    /// Gives a process its part; true: that is less than it had. Of one that has ended, the next look finds out.
    fn give(&self, process: HostPid, held: &mut Held, part: u64) -> bool {
        let Ok(now) = descriptors::limit(process) else { return false };
        held.limit.found_with(now);
        let given = self.try_give(process, held, part);
        if let Err(error) = &given
            && !held.is_loose
        {
            tracing::warn!("process {process} has no part of a limit: {}", crate::error::chain(error));
        }
        held.is_loose = given.is_err();
        held.limit.given().hard < now.hard
    }

    /// What the process sets itself meanwhile is what it has in the end, as far as its part allows.
    fn try_give(&self, process: HostPid, held: &mut Held, part: u64) -> Result<(), EffectError> {
        for _ in 0..TRIES {
            let next = held.limit.with_part(part);
            if next.is_some() || held.kept.is_some() {
                self.keep_own(process, held)?;
            }
            let Some(next) = next else { return Ok(()) };
            match descriptors::set_limit(process, held.started, next) {
                Ok(had) => held.limit.replaced(had, next),
                Err(ProcessError::Gone(_)) => return Ok(()),
                Err(error) => return Err(EffectError::Limit(error)),
            }
        }
        Ok(())
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
    fn let_go(&self, all: &mut Descriptors, left: Vec<(HostPid, Held)>, limited: &HashSet<&Dir>) {
        let mut family = Family::default();
        let mut lifted: Vec<Dir> = Vec::new();
        let mut entered: Vec<Dir> = Vec::new();
        for (process, held) in left {
            family.add(process, held.limit);
            let is_limited = limited.contains(&held.leaf);
            let leaf = held.leaf.clone();
            if !self.give_back(all, process, held) {
                continue;
            }
            if let Some(Seat::Cell(cell)) = self.seat_of(process) {
                let is_elsewhere = |now: &Dir| *now != leaf && !limited.contains(now);
                entered.extend(self.lock_forest().leaf(cell).filter(is_elsewhere));
            }
            if !is_limited {
                lifted.push(leaf);
            }
        }
        for leaves in [&mut lifted, &mut entered] {
            leaves.sort_unstable();
            leaves.dedup();
        }
        for _ in 0..ROUNDS {
            let seen = |leaf: &Dir| {
                let processes = self.processes_of_leaf(leaf).unwrap_or_default();
                processes.into_iter().map(|process| (process, leaf.clone())).collect::<Vec<_>>()
            };
            let mut found: Vec<(HostPid, Dir)> = lifted.iter().flat_map(seen).collect();
            let of_lifted = found.len();
            found.extend(entered.iter().flat_map(seen));
            let mut are_new = false;
            for (at, (process, leaf)) in found.into_iter().enumerate() {
                if family.limit_of(process).is_some() || all.held.contains_key(&process) {
                    continue;
                }
                let (Ok(vitals), Ok(now)) = (Vitals::of(process), descriptors::limit(process)) else {
                    continue;
                };
                let parent = vitals.parent.and_then(|parent| Some((parent, family.limit_of(parent)?)));
                // Where somebody went, there are others, who are no children of his.
                if at >= of_lifted && parent.is_none() {
                    continue;
                }
                are_new = true;
                let limit = family.newborn(now, parent, may_descend);
                family.add(process, limit);
                self.give_back(all, process, Held::new(vitals.started, leaf, limit));
            }
            if !are_new {
                return;
            }
        }
        tracing::warn!("some processes keep a part of a limit that they are in no more: they fork too often");
    }

    /// Gives a process its own limit back; false: it has ended. One that the kernel does not let have it stays held, and is tried
    /// again at the next look.
    fn give_back(&self, all: &mut Descriptors, process: HostPid, mut held: Held) -> bool {
        let given = give_own(process, &mut held);
        if let Err(error) = given {
            if !held.is_loose {
                tracing::warn!(
                    "process {process} does not get its own limit on descriptors back yet: {error}"
                );
            }
            held.is_loose = true;
            all.held.insert(process, held);
            return true;
        }
        if held.kept.is_some() {
            self.forget_own(process);
        }
        given.unwrap_or(false)
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
                Ok(Some((process, held))) => _ = change.descriptors.held.insert(process, held),
                Ok(None) => self.state.keep(Records::Descriptors, number, None)?,
                Err(error) => tracing::warn!("process {number} keeps its part of a limit for now: {error}"),
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

    /// The process of a record, unless it has ended; whoever has its number then is another one. An error says that this is not
    /// known: the next daemon may ask again.
    fn known_again(&self, number: u32, text: &str) -> Result<Option<(HostPid, Held)>, ProcessError> {
        let record = record::parse_descriptors(text)
            .inspect_err(|line| tracing::warn!("record of the limit of process {number}: {line}"));
        let (Ok(record), Some(process)) = (record, HostPid::new(number)) else { return Ok(None) };
        let found = process::start_time(process).and_then(|now| Ok((now, descriptors::limit(process)?)));
        let (started, now) = match found {
            Err(ProcessError::Gone(_)) => return Ok(None),
            found => found?,
        };
        if started != record.started || process::numbering() != record.numbering {
            return Ok(None);
        }
        // Where it is, the first look finds. What it has set itself meanwhile cannot be told from what it was given.
        let leaf = match self.seat_of(process) {
            Some(Seat::Cell(cell)) => self.lock_forest().leaf(cell),
            Some(Seat::Outside(_)) | None => None,
        };
        let (leaf, limit) = (leaf.unwrap_or(Dir::REALM), Narrowed::back(record.own, now));
        Ok(Some((process, Held { kept: Some(record.own), ..Held::new(started, leaf, limit) })))
    }
}

/// Whether a process is, or may have been, a descendant of another.
fn may_descend(process: HostPid, ancestor: HostPid) -> bool {
    let mut at = process;
    loop {
        match Vitals::of(at) {
            Ok(Vitals { parent: Some(parent), .. }) if parent == ancestor => return true,
            Ok(Vitals { parent: Some(parent), .. }) => at = parent,
            Ok(Vitals { parent: None, .. }) => return false,
            Err(_) => return true, // it has ended
        }
    }
}

/// Whether the number of a process that is held is another's now, or nobody's.
fn is_another(process: HostPid, held: &Held) -> bool {
    match process::start_time(process) {
        Ok(started) => started != held.started,
        Err(error) => matches!(error, ProcessError::Gone(_)),
    }
}

/// Gives a process its own limit again; false: it has ended. What it sets itself meanwhile is its own.
fn give_own(process: HostPid, held: &mut Held) -> Result<bool, ProcessError> {
    if is_another(process, held) {
        return Ok(false);
    }
    let set = |held: &mut Held| -> Result<(), ProcessError> {
        held.limit.found_with(descriptors::limit(process)?);
        for _ in 0..TRIES {
            let own = held.limit.own();
            if held.limit.given() == own {
                break;
            }
            held.limit.replaced(descriptors::set_limit(process, held.started, own)?, own);
        }
        Ok(())
    };
    match set(held) {
        Ok(()) => Ok(true),
        Err(ProcessError::Gone(_)) => Ok(false),
        Err(error) => Err(error),
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
