//! Groups whose open descriptors are limited: their limit is divided over the processes, each of which the kernel limits by
//! itself (RLIMIT_NOFILE).
//!
//! A process has its own limit again when no group limits it any more, so what that is gets kept before it is first given
//! less: the next daemon knows it too (I8). While any process is limited, the thread that looks after divided limits looks here
//! as well, for children, who have a copy of their parent's part until then, and for who has used up its part. Events of
//! forks would tell of children sooner, but not soon enough either: a child opens files before anybody is told of it.

mod giving;
mod recovering;

use std::collections::{BTreeSet, HashMap, HashSet};

use pinfold_files::{Assignment, Carry};
use pinfold_kernel as kernel;
use pinfold_kernel::descriptors;
use pinfold_kernel::process::{self, ProcessError, Vitals};
use pinfold_model::{
    Comes, Count, DescriptorLimit, DescriptorParts, Dir, Family, Forest, GroupId, HostPid, Narrowed, Seat,
};

use crate::Realm;
use crate::read::leaves_below;
use crate::realm::{Changes, surroundings};

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

    /// What a process has open, as nearly as is told at once: others wait for the end of the look. One that has ended has nothing.
    /// `None`: it cannot be counted.
    fn count(&mut self, process: HostPid) -> Option<u64> {
        let open = match descriptors::open_about(process) {
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

/// The limit on descriptors that a group has itself.
fn most_of(forest: &Forest, group: GroupId) -> Option<u64> {
    let bound = surroundings(forest, group)?.bound;
    let settings = forest.group(group)?.settings();
    pinfold_files::settings(bound).find_map(|setting| match setting.carry {
        Carry::Descriptors { most } => most(settings),
        _ => None,
    })
}
