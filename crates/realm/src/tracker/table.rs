//! The tree in memory: directories, who is in which leaf, and what holds where.
//!
//! Events and steps change it; each change leads at once to the deeds that follow from it ([`super::deeds`]): a process
//! that comes where things are frozen is stopped, one that comes where CPUs are given gets those.
//!
//! It can stand beside a tree of the kernel's ([`super::beside`]): then it has the same directories, who is in them that tree says,
//! and of files it has those that the tree lacks.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use pinfold_events::{Event, Process, Started, Time, What};
use pinfold_kernel::Tree;
use pinfold_kernel::process::{self, Vitals};
use pinfold_model::{CellId, Dir, HostPid, Roster};

use super::accounts::{Ended, Usage};
use super::deeds::{self, Refused};

/// How many processes that ended are remembered, for children whose birth was not seen.
const MOST_DEPARTED: usize = 4096;

/// How much later than a process's start its fork may be told, in nanoseconds.
const SOON: u64 = 1_000_000_000;

/// Everything that is known of members. One lock holds it; nothing here waits.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// The kernel's tree that it stands beside, if it does.
    pub(super) tree: Option<Arc<Tree>>,
    /// Beside a tree: when everybody was looked at, in ticks as start times are. Who started later was born since.
    pub(super) compared: u64,
    /// Beside a tree: the CPUs that there are. Whoever may run on all of them is held to nothing.
    all_cpus: Vec<usize>,
    pub(super) roster: Roster,
    pub(super) lives: HashMap<HostPid, Life>,
    pub(super) dirs: BTreeMap<Dir, Files>,
    pub(super) leaves: HashMap<CellId, Dir>,
    /// Members that were gone before their number could be asked for, by their start: their children are members.
    nameless: HashMap<Started, CellId>,
    /// Those who may be a member's children or come from some: their parents were gone when they were found.
    pub(super) strays: HashSet<HostPid>,
    departed: HashMap<HostPid, CellId>,
    departures: VecDeque<HostPid>,
    /// Processes that ended, and whose CPU time their parents have not yet taken over.
    pub(super) ended: Vec<Ended>,
    pub(super) is_counting: bool,
    /// Leaves that became empty and were not told yet.
    pub(super) emptied: VecDeque<CellId>,
    /// Those born where things are frozen, who are to be stopped and are not yet.
    pub(super) unheld: Vec<HostPid>,
    /// Whether the record on disk is behind.
    pub(super) is_dirty: bool,
    /// Those who were born since it was written.
    pub(super) fresh: Vec<HostPid>,
    /// While all processes are being listed: those that were, and, after a start, who was where before.
    listing: Option<Listing>,
    pub(super) adopted: u64,
    pub(super) gaps: u64,
    /// Whoever was born by then is known; of who was born later, some may not have been told of.
    pub(super) known_until: Time,
    /// Whether something was lost and not made up for yet.
    is_behind: bool,
}

/// A list of everybody, under way.
#[derive(Debug)]
pub(super) struct Listing {
    listed: HashSet<HostPid>,
    /// The members that the last daemon wrote down.
    pub(super) kept: HashMap<HostPid, Kept>,
    known: Known,
}

/// Of whom it was known before where he is: whoever else may have been born since, to a member.
#[derive(Debug)]
enum Known {
    /// Of whoever started in an earlier tick than this: /proc says no more of a start than its tick.
    Until(Time),
    /// Of these.
    These(HashMap<HostPid, Started>),
}

/// A member that was written down.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Kept {
    pub(super) cell: CellId,
    pub(super) life: Life,
}

/// What is kept of a member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Life {
    /// When it started, as /proc says it if it could be asked: its number may be used again.
    pub(super) started: Started,
    /// Who bore it, as far as known.
    pub(super) parent: Option<HostPid>,
    /// What it had used when it came.
    pub(super) since: Usage,
    /// What it had used at the last look.
    pub(super) seen: Usage,
    pub(super) hold: Hold,
}

/// Whether a process runs, as far as we had a hand in it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) enum Hold {
    /// We have not stopped it.
    #[default]
    Free,
    /// We have stopped it.
    Ours,
    /// We would have, but it was stopped already, and is to be so afterwards.
    Before,
}

/// What a directory keeps, as the v2 files of these names.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Files {
    pub(super) freeze: bool,
    /// Empty: what is above holds.
    pub(super) cpus: Vec<usize>,
    pub(super) mems: String,
    pub(super) most: Option<u64>,
    /// Processes here and below.
    pub(super) processes: u64,
    pub(super) peak: u64,
    /// Births that the limit here or above undid, of parents right here.
    pub(super) failed: u64,
    /// CPU time of those who left or ended.
    pub(super) used: Usage,
    /// The most that was ever told of CPU time: it never goes backwards.
    pub(super) told: Usage,
}

impl Listing {
    /// After a start: these were members, and whoever was born by then was known.
    pub(super) fn after(kept: HashMap<HostPid, Kept>, known_until: Time) -> Self {
        Self { listed: HashSet::new(), kept, known: Known::Until(known_until) }
    }

    pub(super) fn known_until(&self) -> Option<Time> {
        match self.known {
            Known::Until(until) => Some(until),
            Known::These(_) => None,
        }
    }

    fn knew(&self, process: Process) -> bool {
        let ticks = process.started.ticks();
        match &self.known {
            Known::Until(until) => ticks < Started(until.0).ticks(),
            Known::These(all) => {
                let known = number(process).and_then(|pid| all.get(&pid));
                known.is_some_and(|known| known.may_be(ticks))
            }
        }
    }
}

impl Default for Listing {
    fn default() -> Self {
        Self::after(HashMap::new(), Time(0))
    }
}

impl Life {
    pub(super) fn new(started: Started, parent: Option<HostPid>, used: Usage) -> Self {
        Self { started, parent, since: used, seen: used, hold: Hold::Free }
    }

    /// Whether an event is about this process and not about another of the same number. The event may know the start from the
    /// fork, which a busy machine tells of late; numbers are given in turn, so none is used again that soon.
    fn is(&self, process: Process) -> bool {
        self.started.0.abs_diff(process.started.0) < SOON
    }
}

impl Table {
    /// Knows these directories and members from before.
    pub(super) fn recovered(dirs: BTreeMap<Dir, Files>, listing: Listing) -> Self {
        let known_until = listing.known_until().unwrap_or_default();
        let mut table = Self { listing: Some(listing), known_until, ..Self::default() };
        dirs.into_iter().for_each(|(dir, files)| table.add_dir(dir, files));
        table
    }

    /// Beside a tree, of whose directories it is known what they counted before.
    pub(super) fn beside(tree: &Arc<Tree>, mut before: BTreeMap<Dir, Files>) -> Self {
        let mut table = Self {
            tree: Some(Arc::clone(tree)),
            compared: super::beside::ticks(),
            all_cpus: process::own_affinity(),
            ..Self::default()
        };
        for dir in tree.dirs().into_iter().chain([Dir::REALM]) {
            let files = before.remove(&dir).unwrap_or_default();
            table.add_dir(dir, files);
        }
        table
    }

    pub(super) fn add_dir(&mut self, dir: Dir, files: Files) {
        if let Some(cell) = dir.leaf() {
            self.leaves.insert(cell, dir.clone());
        }
        self.dirs.insert(dir, files);
        self.is_dirty = true;
    }

    /// Removes a directory that nobody is in; what it counted goes on counting above.
    pub(super) fn remove_dir(&mut self, dir: &Dir) -> Option<Files> {
        if let Some(cell) = dir.leaf() {
            self.leaves.remove(&cell);
        }
        let files = self.dirs.remove(dir)?;
        if let Some(above) = dir.parent().and_then(|above| self.dirs.get_mut(&above)) {
            above.used += files.used;
        }
        self.is_dirty = true;
        Some(files)
    }

    pub(super) fn leaf(&self, cell: CellId) -> Option<&Dir> {
        self.leaves.get(&cell)
    }

    /// Whether a directory lies right or further below another.
    pub(super) fn is_occupied(&self, dir: &Dir) -> bool {
        self.dirs.get(dir).is_some_and(|files| files.processes > 0)
            || self.dirs.keys().any(|other| other.parent().as_ref() == Some(dir))
    }

    /// The processes in a directory and all below it, ascending.
    pub(super) fn below(&self, dir: &Dir) -> Vec<HostPid> {
        let leaves = self.leaves.iter().filter(|(_, leaf)| up(leaf).any(|above| above == *dir));
        let mut found: Vec<HostPid> = leaves.flat_map(|(cell, _)| self.roster.members(*cell)).collect();
        found.sort_unstable();
        found
    }

    /// The leaf that a process is in.
    pub(super) fn leaf_of(&self, process: HostPid) -> Option<&Dir> {
        self.leaf(self.roster.cell_of(process)?)
    }

    /// The cell of a process that started then.
    pub(super) fn member_since(&self, process: HostPid, started: u64) -> Option<CellId> {
        let is_it = self.lives.get(&process).is_some_and(|life| life.started.may_be(started));
        self.roster.cell_of(process).filter(|_| is_it)
    }

    /// Whether what is in a directory has to stand still.
    pub(super) fn is_frozen(&self, dir: &Dir) -> bool {
        up(dir).any(|dir| self.dirs.get(&dir).is_some_and(|files| files.freeze))
    }

    /// Whether a directory keeps anything that somebody may have to be held to again and again.
    pub(super) fn holds(&self, files: &Files) -> bool {
        let has_all =
            || !self.all_cpus.is_empty() && self.all_cpus.iter().all(|cpu| files.cpus.contains(cpu));
        files.freeze || !files.cpus.is_empty() && !has_all()
    }

    /// The CPUs that hold in a directory; `None`: any.
    pub(super) fn cpus(&self, dir: &Dir) -> Option<Vec<usize>> {
        let lists = up(dir).filter_map(|dir| self.dirs.get(&dir).map(|files| &files.cpus));
        let lists = lists.filter(|cpus| !cpus.is_empty());
        lists.fold(None, |held, cpus| match held {
            None => Some(cpus.clone()),
            // v2 keeps what is below, unless nothing of it is left above.
            Some(held) => {
                let both: Vec<usize> = held.iter().copied().filter(|cpu| cpus.contains(cpu)).collect();
                Some(if both.is_empty() { cpus.clone() } else { both })
            }
        })
    }

    /// Seats a process somewhere else, or nowhere. What it used so far stays where it was.
    pub(super) fn seat_anew(&mut self, process: HostPid, vitals: &Vitals, to: Option<CellId>, life: Life) {
        let used = Usage::of(vitals);
        self.bank(process, used);
        self.leave(process);
        self.strays.remove(&process);
        if let Some(cell) = to {
            self.seat(process, cell, Life { since: used, seen: used, ..life });
        }
    }

    pub(super) fn held_in(&self, cell: Option<CellId>) -> deeds::Held {
        let dir = cell.and_then(|cell| self.leaf(cell));
        deeds::Held {
            frozen: dir.is_some_and(|dir| self.is_frozen(dir)),
            cpus: dir.and_then(|dir| self.cpus(dir)),
        }
    }

    /// Takes a process in.
    pub(super) fn seat(&mut self, process: HostPid, cell: CellId, life: Life) {
        self.roster.place(process, Some(cell));
        self.lives.insert(process, life);
        self.count_in(cell);
    }

    fn count_in(&mut self, cell: CellId) {
        self.count(cell, |files| {
            files.processes += 1;
            files.peak = files.peak.max(files.processes);
        });
        self.is_dirty = true;
    }

    /// Takes a process out. Its leaf is told to be empty if it is.
    fn leave(&mut self, process: HostPid) {
        let Some(cell) = self.roster.cell_of(process) else { return };
        self.lives.remove(&process);
        self.roster.exit(process);
        self.count_out(cell);
    }

    /// One process less in a leaf, which is told to be empty if it is.
    fn count_out(&mut self, cell: CellId) {
        self.count(cell, |files| files.processes = files.processes.saturating_sub(1));
        let files = self.leaf(cell).and_then(|leaf| self.dirs.get(leaf));
        if self.tree.is_none() && files.is_some_and(|files| files.processes == 0) {
            self.emptied.push_back(cell);
        }
        self.is_dirty = true;
    }

    fn count(&mut self, cell: CellId, change: impl Fn(&mut Files)) {
        let Some(leaf) = self.leaf(cell).cloned() else { return };
        for dir in up(&leaf) {
            self.dirs.get_mut(&dir).into_iter().for_each(&change);
        }
    }

    /// A member is no more: what it used stays.
    pub(super) fn strike(&mut self, process: HostPid) {
        let Some(cell) = self.roster.cell_of(process) else { return };
        self.settle_account(process);
        self.leave(process);
        if self.departed.insert(process, cell).is_none() {
            self.departures.push_back(process);
        }
        if self.departures.len() > MOST_DEPARTED
            && let Some(oldest) = self.departures.pop_front()
        {
            self.departed.remove(&oldest);
        }
    }

    /// A list of everybody begins anew, by another source: whoever is not in it is gone. Those whom the last one knew, which tells of them
    /// as found, are where they are.
    pub(super) fn list_again(&mut self, last: &[Event]) {
        if let Some(listing) = &mut self.listing {
            // The last one had not told of everybody: who was known before it is.
            listing.listed.clear();
            return;
        }
        let known = last.iter().filter_map(|event| event.what.process());
        let known = known.filter_map(|process| Some((number(process)?, process.started))).collect();
        self.listing = Some(Listing { known: Known::These(known), ..Listing::default() });
    }

    /// Whether everybody was listed, also since something was lost.
    pub(super) const fn is_complete(&self) -> bool {
        self.listing.is_none() && !self.is_behind
    }

    /// Takes an event.
    pub(super) fn take(&mut self, event: &Event) {
        match event.what {
            What::Fork { process, parent, .. } => self.fork(process, parent),
            What::Found { process, parent, .. } => self.find(process, parent),
            What::Exit { process, .. } | What::Left { process } => {
                let Some(pid) = number(process) else {
                    if let Some(cell) = self.nameless.remove(&process.started) {
                        self.count_out(cell);
                    }
                    return;
                };
                self.strays.remove(&pid);
                if self.lives.get(&pid).is_some_and(|life| life.is(process)) {
                    self.strike(pid);
                }
            }
            What::Gap => {
                self.gaps += 1;
                self.is_behind = true;
            }
            What::Synced { .. } => {
                self.is_behind = false;
                // Whoever was lost sight of with no number is told of by its children, if at all.
                let nameless = std::mem::take(&mut self.nameless);
                nameless.into_values().for_each(|cell| self.count_out(cell));
                self.end_list();
            }
            What::Exec { .. }
            | What::Uid { .. }
            | What::Gid { .. }
            | What::Sid { .. }
            | What::Comm { .. } => {}
        }
    }

    fn fork(&mut self, child: Process, parent: Option<Process>) {
        let number = number(child);
        if let Some(pid) = number {
            self.forget_namesake(pid, child);
        }
        let is_stray = parent.and_then(self::number).is_some_and(|parent| self.strays.contains(&parent));
        self.strays.extend(number.filter(|_| is_stray));
        let Some((parent, cell)) = parent.and_then(|parent| self.member(parent)) else { return };
        match number {
            Some(pid) => self.bear(pid, child, parent, cell),
            None if self.nameless.insert(child.started, cell).is_none() => self.count_in(cell),
            None => {}
        }
    }

    /// A number that a member had is another's now.
    fn forget_namesake(&mut self, pid: HostPid, process: Process) {
        if self.lives.get(&pid).is_some_and(|life| !life.is(process)) {
            self.strike(pid);
        }
        self.departed.remove(&pid);
        self.strays.remove(&pid);
    }

    /// The number, if it has one, and the cell of a member.
    fn member(&self, process: Process) -> Option<(Option<HostPid>, CellId)> {
        let Some(pid) = number(process) else {
            return Some((None, *self.nameless.get(&process.started)?));
        };
        let cell = self.roster.cell_of(pid)?;
        self.lives.get(&pid).is_some_and(|life| life.is(process)).then_some((Some(pid), cell))
    }

    /// A process is born in a cell.
    fn bear(&mut self, pid: HostPid, process: Process, parent: Option<HostPid>, cell: CellId) {
        if self.lives.contains_key(&pid) {
            return;
        }
        // Who has the number now and started before the fork was told is this process.
        let started = Vitals::of(pid).map(|vitals| Started::at_tick(vitals.started));
        let started = started.ok().filter(|started| *started <= process.started);
        self.be_born(pid, Life::new(started.unwrap_or(process.started), parent, Usage::default()), cell);
    }

    /// A process is born in a cell, of which all is known.
    pub(super) fn be_born(&mut self, pid: HostPid, life: Life, cell: CellId) {
        let held = self.held_in(Some(cell));
        let tell = |what: &str, refused: &Refused| {
            tracing::warn!("process {pid} was born into a group and cannot be {what}: {refused}");
        };
        if let Some(cpus) = &held.cpus {
            // It has its parent's, unless those were changed while it was born.
            let _ = deeds::confine(pid, &life, cpus).inspect_err(|refused| tell("bound to CPUs", refused));
        }
        if held.frozen {
            self.unheld.push(pid);
        }
        let full = self.leaf(cell).is_some_and(|leaf| self.is_full(leaf));
        if full && self.is_there(pid, cell) {
            let _ = deeds::kill(pid, &life).inspect_err(|refused| tell("killed", refused));
            if let Some(files) = self.leaf(cell).cloned().and_then(|leaf| self.dirs.get_mut(&leaf)) {
                files.failed += 1;
            }
        }
        // Also one that is killed: until it has gone, it counts.
        self.seat(pid, cell, life);
        self.fresh.push(pid);
    }

    /// Whether one more process is too many.
    fn is_full(&self, leaf: &Dir) -> bool {
        up(leaf).any(|dir| {
            self.dirs.get(&dir).is_some_and(|files| files.most.is_some_and(|most| files.processes >= most))
        })
    }

    /// A process is there whose birth was not seen.
    fn find(&mut self, process: Process, parent: Option<Process>) {
        let Some(pid) = number(process) else { return };
        self.forget_namesake(pid, process);
        let kept = match &mut self.listing {
            Some(listing) => {
                listing.listed.insert(pid);
                listing.kept.get(&pid).filter(|kept| kept.life.is(process)).cloned()
            }
            None => None,
        };
        if let Some(Kept { cell, life }) = kept {
            // Its list may have been begun anew.
            if self.leaf(cell).is_some() && !self.lives.contains_key(&pid) {
                self.seat(pid, cell, life);
            }
            return;
        }
        let is_known = self.listing.as_ref().is_some_and(|listing| listing.knew(process));
        if is_known || self.lives.contains_key(&pid) {
            return;
        }
        if let Some((parent, cell)) = parent.and_then(|parent| self.member(parent)) {
            self.bear(pid, process, parent, cell);
        } else if let Some(cell) = self.adopter(pid, |now| process.started.may_be(now.started)) {
            self.adopted += 1;
            self.bear(pid, process, None, cell);
        } else {
            let of_stray = parent.and_then(number).is_some_and(|parent| self.strays.contains(&parent));
            let had_members = !self.lives.is_empty() || !self.departed.is_empty();
            let had_members = had_members || self.listing.as_ref().is_some_and(|it| !it.kept.is_empty());
            if of_stray || had_members && Vitals::of(pid).is_ok_and(|vitals| has_another_parent(&vitals)) {
                self.strays.insert(pid);
            }
        }
    }

    /// The cell of a process whose parent was gone before it was found: that of its session's or process group's leader.
    /// `is_it` says whether that who has its number now is it; a number that names a session or group is nobody else's.
    pub(super) fn adopter(&self, pid: HostPid, is_it: impl Fn(&Vitals) -> bool) -> Option<CellId> {
        let vitals = Vitals::of(pid).ok().filter(|now| is_it(now) && has_another_parent(now))?;
        let kept = |leader: &HostPid| Some(self.listing.as_ref()?.kept.get(leader)?.cell);
        let leaders = [vitals.group, vitals.session].into_iter().flatten();
        let mut cells = leaders.filter(|leader| *leader != pid).filter_map(|leader| {
            let known = self.roster.cell_of(leader).or_else(|| self.departed.get(&leader).copied());
            known.or_else(|| kept(&leader))
        });
        cells.find(|cell| self.leaf(*cell).is_some())
    }

    fn end_list(&mut self) {
        let Some(listing) = self.listing.take() else { return };
        let gone = |process: &HostPid| !listing.listed.contains(process);
        let gone: Vec<HostPid> = self.lives.keys().copied().filter(gone).collect();
        gone.into_iter().for_each(|process| self.strike(process));
        self.strays.retain(|process| listing.listed.contains(process));
        self.make_up();
        self.is_dirty = true;
    }
}

/// Whether the parent of a process may not have borne it: one of the same session did. None came from outside the pid namespace.
fn has_another_parent(vitals: &Vitals) -> bool {
    let Some(parent) = vitals.parent else { return false };
    Vitals::of(parent).map_or(true, |parent| parent.session != vitals.session)
}

/// A directory and all above it, from the inside out.
pub(super) fn up(dir: &Dir) -> impl Iterator<Item = Dir> + use<> {
    std::iter::successors(Some(dir.clone()), Dir::parent)
}

fn number(process: Process) -> Option<HostPid> {
    HostPid::new(process.pid?.get())
}
