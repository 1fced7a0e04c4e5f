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
    Comes, DescriptorLimit, Dir, Forest, GroupId, Holder, HostPid, Narrowed, Seat, Settings, descriptor_parts,
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

    /// Whether processes born in a leaf may have a part of a limit: whoever is held there may be their parent.
    fn holds_in(&self, leaf: &Dir) -> bool {
        self.held.values().any(|held| held.leaf == *leaf)
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
        let is_limited = !all.limited.is_empty() && {
            let forest = self.lock_forest();
            let mut groups = std::iter::once(group).chain(forest.ancestors(group));
            groups.any(|group| all.limited.contains(&group))
        };
        if is_limited || is_held {
            self.look_at_descriptors(change, Some(process).filter(|_| !is_held));
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

    /// `outsider`: a process that was attached just now, from where nobody is limited.
    fn look_at_descriptors(&self, change: &mut Changes, outsider: Option<HostPid>) {
        if change.descriptors.is_idle() {
            return;
        }
        if let Err(error) = self.divide_descriptors(&mut change.descriptors, outsider) {
            tracing::warn!("limits on descriptors stay as they are: {error}");
        }
        self.want_looks(change);
    }

    fn divide_descriptors(
        &self,
        all: &mut Descriptors,
        outsider: Option<HostPid>,
    ) -> Result<(), kernel::ReadError> {
        let limits = self.limits_on_descriptors(&mut all.limited);
        let mut by_leaf: HashMap<&Dir, Vec<HostPid>> = HashMap::new();
        for leaf in limits.iter().flat_map(|limit| &limit.leaves) {
            if !by_leaf.contains_key(leaf) {
                by_leaf.insert(leaf, self.processes_of_leaf(leaf)?);
            }
        }
        let there: HashMap<HostPid, &Dir> =
            by_leaf.iter().flat_map(|(leaf, all)| all.iter().map(|process| (*process, *leaf))).collect();
        let has_left = |process: &HostPid, held: &mut Held| match there.get(process) {
            Some(leaf) if !is_another(*process, held) => {
                held.leaf = (*leaf).clone();
                false
            }
            _ => true,
        };
        let left: Vec<(HostPid, Held)> = all.held.extract_if(has_left).collect();
        for (leaf, processes) in &by_leaf {
            let is_new = |process: &&HostPid| !all.held.contains_key(process);
            let new: Vec<HostPid> = processes.iter().filter(is_new).copied().collect();
            self.take_up(all, new, leaf, outsider, &left);
        }
        self.let_go(all, left, &by_leaf.keys().copied().collect::<Vec<_>>());
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
            if let Some(held) = all.held.get_mut(&process) {
                self.give(process, held, part);
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
                let parent = vitals.parent.and_then(|parent| Some((parent, all.held.get(&parent)?.limit)));
                family.newborn(parent.or_else(|| family.member(vitals.parent)), now)
            };
            family.add(process, limit);
            let held =
                Held { started: vitals.started, leaf: leaf.clone(), limit, kept: None, is_loose: false };
            all.held.insert(process, held);
        }
    }

    /// Gives a process its part. Of one that has ended, the next look finds out.
    fn give(&self, process: HostPid, held: &mut Held, part: u64) {
        let Ok(now) = descriptors::limit(process) else { return };
        held.limit.found_with(now);
        let given = self.try_give(process, held, part);
        if let Err(error) = &given
            && !held.is_loose
        {
            tracing::warn!("process {process} has no part of a limit: {}", crate::error::chain(error));
        }
        held.is_loose = given.is_err();
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
    fn let_go(&self, all: &mut Descriptors, left: Vec<(HostPid, Held)>, limited: &[&Dir]) {
        let mut family = Family::default();
        let mut lifted: Vec<Dir> = Vec::new();
        let mut entered: Vec<Dir> = Vec::new();
        for (process, held) in left {
            family.add(process, held.limit);
            let is_limited = limited.contains(&&held.leaf);
            let leaf = held.leaf.clone();
            if !self.give_back(all, process, held) {
                continue;
            }
            if let Some(Seat::Cell(cell)) = self.seat_of(process) {
                let is_elsewhere = |now: &Dir| *now != leaf && !limited.contains(&now);
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
                if family.limits.contains_key(&process) || all.held.contains_key(&process) {
                    continue;
                }
                let (Ok(vitals), Ok(now)) = (Vitals::of(process), descriptors::limit(process)) else {
                    continue;
                };
                let parent = family.member(vitals.parent);
                // Where somebody went, there are others, who are no children of his.
                if at >= of_lifted && parent.is_none() {
                    continue;
                }
                are_new = true;
                let limit = family.newborn(parent, now);
                family.add(process, limit);
                let held = Held { started: vitals.started, leaf, limit, kept: None, is_loose: false };
                self.give_back(all, process, held);
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
        Ok(Some((process, Held { started, leaf, limit, kept: Some(record.own), is_loose: false })))
    }
}

/// Who may be the parents of newborn processes, and their limits.
#[derive(Default)]
struct Family {
    limits: HashMap<HostPid, Narrowed>,
}

impl Family {
    fn add(&mut self, process: HostPid, limit: Narrowed) {
        self.limits.insert(process, limit);
    }

    fn member(&self, process: Option<HostPid>) -> Option<(HostPid, Narrowed)> {
        process.and_then(|process| Some((process, *self.limits.get(&process)?)))
    }

    /// The limit of a process that was born to one of them. `parent`: who is its parent now.
    fn newborn(&self, parent: Option<(HostPid, Narrowed)>, now: DescriptorLimit) -> Narrowed {
        let may_be = |(process, limit): &(&HostPid, &Narrowed)| match parent {
            // A parent that ended was a descendant of whoever is in its place. That is asked only where it matters.
            Some((parent, of_parent)) => {
                **process != parent
                    && (limit.own().hard >= of_parent.own().hard || may_descend(**process, parent))
            }
            None => true,
        };
        let others: Vec<Narrowed> = self.limits.iter().filter(may_be).map(|(_, limit)| *limit).collect();
        Narrowed::newcomer(now, Comes::Born { parent: parent.map(|(_, limit)| limit), others: &others })
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
