//! From what the kernel tells of tasks, in whatever order it arrives, to a stream of processes that keeps its promises.
//!
//! Pure: changes and snapshots come in as values, events go out. The promises (I9):
//!
//! - a process is told of by a fork (or, if that was not seen, as found) before anything else of it;
//! - its exit is told once, when its last thread ended, and nothing of it after that;
//! - what was lost is a gap, and then exactly the difference that it made.
//!
//! Changes are collected until the source says that nothing earlier is under way, and sorted by time: CPUs share a
//! clock, so a cause is earlier than what it causes. What then still waits for another change (an exit for its
//! fork, a fork for its parent's, the next process of a number for the exit of the last) is held. What is held too
//! long has lost what it waits for.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};

use crate::change::{Change, Kind};
use crate::event::{Comm, Event, Ids, Pid, Process, Started, Status, Time, What};
use crate::proc::{Life, Seen, Snapshot};

/// How many changes are collected at most; half of them, the earlier, are then told.
const WINDOW: usize = 4096;
/// How many changes are held at most.
const MOST_HELD: usize = 16 * 1024;
/// How long a change is held at most.
const HOLD: u64 = 500_000_000;
/// How many ended processes are remembered, so that what comes late is known for what it is.
const MOST_ENDED: usize = 4096;

/// The state machine.
#[derive(Debug)]
pub struct Order {
    window: Vec<Change>,
    processes: HashMap<Pid, Known>,
    held: HashMap<Pid, Vec<Change>>,
    held_changes: usize,
    holds_too_much: bool,
    ended: Ended,
    latest: Started,
    newest: Time,
    /// When the last snapshot was begun and ended.
    scan: (Time, Time),
    phase: Phase,
    /// Nobody outside can work out what it makes of a number.
    key: RandomState,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// No snapshot yet.
    Starting,
    /// Every change is known.
    Complete,
    /// Something was lost.
    Lost,
}

/// A living process.
#[derive(Clone, Debug)]
struct Known {
    started: Started,
    /// Whose child it is, as it was told.
    parent: Option<Process>,
    /// The time of its fork event; `None` if it was found in a snapshot.
    forked: Option<Time>,
    comm: Comm,
    uid: Option<Ids>,
    gid: Option<Ids>,
    has_first: bool,
    /// The threads but the first. A user decides how many there are.
    others: BTreeSet<Pid>,
    executed: Time,
}

impl Default for Order {
    fn default() -> Self {
        Self::new()
    }
}

impl Order {
    /// Knows nothing, and wants a snapshot.
    pub fn new() -> Self {
        Self::with_key(RandomState::new())
    }

    /// [`Self::new`], but start times that are drawn are those that another one with this key draws.
    pub fn with_key(key: RandomState) -> Self {
        Self {
            window: Vec::new(),
            processes: HashMap::new(),
            held: HashMap::new(),
            held_changes: 0,
            holds_too_much: false,
            ended: Ended::default(),
            latest: Started(0),
            newest: Time(0),
            scan: (Time(0), Time(0)),
            phase: Phase::Starting,
            key,
        }
    }

    /// Whether a snapshot has to be taken, of /proc as it is after all changes that were fed.
    pub fn wants_snapshot(&self) -> bool {
        self.phase != Phase::Complete
    }

    /// Whether there was a snapshot.
    pub fn has_begun(&self) -> bool {
        self.phase != Phase::Starting
    }

    /// When the last snapshot was begun: it has what happened before.
    pub const fn scanned(&self) -> Time {
        self.scan.0
    }

    /// Whether changes wait for others, so that [`Self::drained`] has to be called again even if nothing comes.
    pub const fn is_waiting(&self) -> bool {
        self.held_changes > 0
    }

    /// Whether a process, by its start time in ticks of `/proc/PID/stat`, was told of and lives.
    pub fn knows(&self, pid: Pid, ticks: u64) -> bool {
        self.processes.get(&pid).is_some_and(|known| known.started.may_be(ticks))
    }

    /// Tells of all processes that are known, as of ones that are found, parents first; and that these are all, if they are.
    pub fn list(&self, now: Time, out: &mut Vec<Event>) {
        let mut known: Vec<(Pid, &Known)> = self.processes.iter().map(|(pid, known)| (*pid, known)).collect();
        known.sort_by_key(|(_, known)| known.started);
        let lives = |parent: &Process| {
            let known = parent.pid.and_then(|pid| self.processes.get(&pid));
            known.is_some_and(|known| known.started == parent.started)
        };
        for (pid, known) in &known {
            let Known { comm, uid, gid, .. } = **known;
            let (process, parent) = (known.process(*pid), known.parent.filter(lives));
            out.push(Event { time: now, what: What::Found { process, parent, comm, uid, gid } });
        }
        if self.phase == Phase::Complete {
            let found = u32::try_from(known.len()).unwrap_or(u32::MAX);
            out.push(Event { time: now, what: What::Synced { found, gone: 0, changed: 0 } });
        }
    }

    /// How many processes live.
    pub fn len(&self) -> usize {
        self.processes.len()
    }

    /// Whether no process is known.
    pub fn is_empty(&self) -> bool {
        self.processes.is_empty()
    }

    /// Takes a change.
    pub fn feed(&mut self, change: Change, out: &mut Vec<Event>) {
        self.window.push(change);
        if self.window.len() >= WINDOW {
            self.window.sort_by_key(|change| change.time);
            let rest = self.window.split_off(WINDOW / 2);
            let earlier = std::mem::replace(&mut self.window, rest);
            earlier.into_iter().for_each(|change| self.take(change, out));
        }
    }

    /// Nothing that happened before `now` is under way any more: tells what was collected.
    pub fn drained(&mut self, now: Time, out: &mut Vec<Event>) {
        self.window.sort_by_key(|change| change.time);
        let mut window = std::mem::take(&mut self.window);
        window.drain(..).for_each(|change| self.take(change, out));
        self.window = window;
        self.newest = self.newest.max(now);
        if self.phase != Phase::Complete {
            return;
        }
        self.forget_exits();
        if self.holds_too_much || self.is_overdue() {
            self.lose(now, out);
        }
    }

    /// Changes were lost: tells what was collected, and the gap.
    pub fn lost(&mut self, now: Time, out: &mut Vec<Event>) {
        self.drained(now, out);
        self.lose(now, out);
    }

    /// Takes a snapshot that was begun after everything that was fed had happened: tells the difference, and, if
    /// a snapshot was wanted, that all is known.
    pub fn resync(&mut self, snapshot: &Snapshot, out: &mut Vec<Event>) {
        self.drained(snapshot.began, out);
        self.scan = (snapshot.began, snapshot.ended);
        self.newest = self.newest.max(snapshot.ended);
        let before = out.len();
        self.end_missing(snapshot, out);
        self.find_new(snapshot, out);
        if self.phase != Phase::Complete {
            let difference = count(&out[before..]);
            out.push(Event { time: snapshot.ended, what: difference });
        }
        self.phase = Phase::Complete;
        let held = std::mem::take(&mut self.held);
        (self.held_changes, self.holds_too_much) = (0, false);
        let mut held: Vec<Change> = held.into_values().flatten().collect();
        held.sort_by_key(|change| change.time);
        held.into_iter().for_each(|change| self.take(change, out));
    }

    fn lose(&mut self, now: Time, out: &mut Vec<Event>) {
        if self.phase == Phase::Complete {
            self.phase = Phase::Lost;
            out.push(Event { time: now, what: What::Gap });
        }
    }

    fn is_overdue(&self) -> bool {
        let oldest = self.held.values().flatten().map(|change| change.time).min();
        oldest.is_some_and(|oldest| oldest.0 + HOLD < self.newest.0)
    }

    /// An exit of somebody of whom nobody tells a birth is no loss. The kernel tells of it after others may have waited for the process
    /// (exit_notify() comes before proc_exit_connector()): it was gone when /proc was read, or has executed another program and ended.
    fn forget_exits(&mut self) {
        let newest = self.newest;
        let is_nobodys = |held: &Change| {
            matches!(held.what, Kind::Exit { .. })
                && held.time.0 + HOLD < newest.0
                && !self.processes.contains_key(&held.process)
        };
        self.held.retain(|_, waiting| {
            waiting.retain(|held| !is_nobodys(held));
            !waiting.is_empty()
        });
        self.held_changes = self.held.values().map(Vec::len).sum();
    }

    /// Tells a change and everything that waited for it.
    fn take(&mut self, change: Change, out: &mut Vec<Event>) {
        if self.phase == Phase::Complete && change.time < self.scan.0 {
            // The snapshot has it, and what came and went before belongs to the gap.
            return;
        }
        self.newest = self.newest.max(change.time);
        let mut work = VecDeque::from([change]);
        while let Some(change) = work.pop_front() {
            let Some(freed) = self.step(change, out) else { continue };
            let Some(waited) = self.held.remove(&freed) else { continue };
            self.held_changes -= waited.len();
            waited.into_iter().rev().for_each(|change| work.push_front(change));
        }
    }

    /// Tells one change, or holds it. Answers whose held changes may go on now.
    fn step(&mut self, change: Change, out: &mut Vec<Event>) -> Option<Pid> {
        let Change { time, process: pid, what } = change;
        match what {
            Kind::Fork { parent } => self.fork(change, parent, out),
            Kind::Exit { task, status } => self.exit(change, task, status, out),
            _ => {
                if !self.processes.contains_key(&pid) || self.belongs_to_next(pid, time) {
                    self.wait(change, pid);
                    return None;
                }
                self.tell(change, out);
                None
            }
        }
    }

    /// Whether the next process of the number is known to have been born before, though the exit of the last one is not.
    fn belongs_to_next(&self, pid: Pid, time: Time) -> bool {
        let held = self.held.get(&pid).into_iter().flatten();
        held.filter(|held| held.process == pid && held.time <= time)
            .any(|held| matches!(held.what, Kind::Fork { .. }))
    }

    fn fork(&mut self, change: Change, parent: Option<Pid>, out: &mut Vec<Event>) -> Option<Pid> {
        let Change { time, process: pid, .. } = change;
        if let Some(known) = self.processes.get(&pid) {
            if !known.is_born_at(time) && time > known.born() {
                // Its number was free, so the last one ended: its exit, told after the number was freed, is on its way.
                self.hold(pid, change);
            }
            return None;
        }
        let (parent, comm, uid, gid) = match parent.map(|parent| self.find_parent(parent, time)) {
            None => (None, Comm::default(), None, None),
            Some(Parent::Missing(parent)) => {
                self.hold(parent, change);
                return None;
            }
            Some(Parent::Is(parent, known)) => (parent, known.comm, known.uid, known.gid),
        };
        self.latest = Started(time.0.max(self.latest.0 + 1));
        let process = Process { pid: Some(pid), started: self.latest };
        let known = Known { parent, comm, uid, gid, ..Known::new(self.latest, Some(time)) };
        self.processes.insert(pid, known);
        self.ended.forget(pid);
        out.push(Event { time, what: What::Fork { process, parent, comm, uid, gid } });
        Some(pid)
    }

    fn find_parent(&self, parent: Pid, time: Time) -> Parent {
        // Born later, it is another one of that number.
        if let Some(known) = self.processes.get(&parent).filter(|known| known.born() <= time) {
            let process = Process { pid: Some(parent), started: known.started };
            return Parent::Is(Some(process), Inherited { comm: known.comm, uid: known.uid, gid: known.gid });
        }
        let nobody = Inherited { comm: Comm::default(), uid: None, gid: None };
        match self.ended.get(parent).filter(|started| started.ticks() <= Started(time.0).ticks()) {
            Some(started) => Parent::Is(Some(Process { pid: Some(parent), started }), nobody),
            None if self.phase == Phase::Complete && time <= self.scan.1 => Parent::Is(None, nobody),
            None => Parent::Missing(parent),
        }
    }

    fn exit(&mut self, change: Change, task: Pid, status: u32, out: &mut Vec<Event>) -> Option<Pid> {
        let Change { time, process: pid, .. } = change;
        let Some(known) = self.processes.get_mut(&pid) else {
            if !self.ended.expects(change, task) {
                self.wait(change, pid);
            }
            return None;
        };
        if time < known.born() || time < known.executed {
            // Of an earlier process of the number, or of a first thread that another one replaced by executing.
            return None;
        }
        if self.phase != Phase::Complete {
            // The birth of another thread may be what was lost: the snapshot will tell.
            self.hold(pid, change);
            return None;
        }
        if task == pid {
            known.has_first = false;
        } else {
            known.others.remove(&task);
        }
        if known.has_first || !known.others.is_empty() {
            return None;
        }
        let (process, comm) = (known.process(pid), known.comm);
        self.end(pid, End::Told(time));
        out.push(Event { time, what: What::Exit { process, comm, status: Some(Status::from_wait(status)) } });
        Some(pid)
    }

    /// Tells what happened to a process that is known.
    fn tell(&mut self, change: Change, out: &mut Vec<Event>) {
        let Change { time, process: pid, what } = change;
        let Some(known) = self.processes.get_mut(&pid) else { return };
        if time < known.born() {
            return;
        }
        let process = known.process(pid);
        let what = match what {
            Kind::Exec { comm } => {
                (known.has_first, known.executed) = (true, time);
                known.others.clear();
                known.comm = comm.unwrap_or_default();
                What::Exec { process, comm: known.comm }
            }
            Kind::Thread { task } => {
                known.others.insert(task);
                return;
            }
            Kind::Uid(ids) if known.uid.replace(ids) != Some(ids) => What::Uid { process, ids },
            Kind::Gid(ids) if known.gid.replace(ids) != Some(ids) => What::Gid { process, ids },
            Kind::Sid => What::Sid { process },
            Kind::Comm(comm) if std::mem::replace(&mut known.comm, comm) != comm => {
                What::Comm { process, comm }
            }
            Kind::Uid(_) | Kind::Gid(_) | Kind::Comm(_) | Kind::Fork { .. } | Kind::Exit { .. } => return,
        };
        out.push(Event { time, what });
    }

    /// A change of a process that is not there: it comes before its fork, or is of the time before the snapshot.
    fn wait(&mut self, change: Change, pid: Pid) {
        let is_settled = self.phase == Phase::Complete && change.time <= self.scan.1;
        if !is_settled {
            self.hold(pid, change);
        }
    }

    fn hold(&mut self, waits_for: Pid, change: Change) {
        if self.held_changes < MOST_HELD {
            self.held_changes += 1;
            self.held.entry(waits_for).or_default().push(change);
        } else {
            self.holds_too_much = true;
        }
    }

    fn end(&mut self, pid: Pid, end: End) {
        if let Some(known) = self.processes.remove(&pid) {
            self.ended.remember(pid, known.started, end);
        }
    }

    /// Ends the processes that the snapshot does not have.
    fn end_missing(&mut self, snapshot: &Snapshot, out: &mut Vec<Event>) {
        let seen: HashMap<Pid, &Seen> = snapshot.processes.iter().map(|seen| (seen.pid, seen)).collect();
        let mut missing = Vec::new();
        for (pid, known) in self.processes.iter().filter(|(_, known)| known.born() < snapshot.began) {
            let status = match seen.get(pid) {
                Some(Seen { ticks, life: Life::Ended(status), .. }) if known.started.may_be(*ticks) => {
                    *status
                }
                Some(Seen { ticks, .. }) if known.started.may_be(*ticks) => continue,
                _ => self.held_status(*pid),
            };
            missing.push((known.started, *pid, known.comm, status));
        }
        // Children before their parents, as processes mostly end.
        missing.sort_by_key(|(started, ..)| Reverse(*started));
        for (started, pid, comm, status) in missing {
            self.end(pid, End::Seen(snapshot.ended));
            let process = Process { pid: Some(pid), started };
            out.push(Event { time: snapshot.ended, what: What::Exit { process, comm, status } });
        }
    }

    /// How a process ended, if its last exit came while something was lost.
    fn held_status(&self, pid: Pid) -> Option<Status> {
        let held = self.held.get(&pid).into_iter().flatten().filter(|held| held.process == pid);
        held.rev().find_map(|held| match held.what {
            Kind::Exit { status, .. } => Some(Status::from_wait(status)),
            _ => None,
        })
    }

    /// Tells the processes that only the snapshot has, parents first, and what differs in the others.
    fn find_new(&mut self, snapshot: &Snapshot, out: &mut Vec<Event>) {
        let mut seen: Vec<&Seen> = snapshot.processes.iter().collect();
        seen.sort_by_key(|seen| (seen.ticks, seen.pid));
        let mut used: HashSet<Started> = self.processes.values().map(|known| known.started).collect();
        used.extend(self.ended.order.iter().map(|(_, started)| *started));
        let mut found = Vec::new();
        for seen in seen {
            if let Life::Ended(_) = seen.life {
                self.ended.remember(seen.pid, Started::at_tick(seen.ticks), End::Seen(snapshot.ended));
                continue;
            }
            if let Some(known) = self.processes.get_mut(&seen.pid) {
                known.compare(seen, snapshot.ended, out);
                continue;
            }
            let mut started = self.draw_start(seen, snapshot.began);
            while !used.insert(started) {
                started.0 += 1;
            }
            self.latest = self.latest.max(started);
            let known = Known { comm: seen.comm, uid: seen.uid, gid: seen.gid, ..Known::new(started, None) };
            let (has_first, others) = (seen.life == Life::Whole, seen.others.clone());
            self.processes.insert(seen.pid, Known { has_first, others, ..known });
            self.ended.forget(seen.pid);
            found.push((started, seen));
        }
        self.tell_found(found, snapshot.ended, out);
    }

    /// A time within the tick that a process started in, before the snapshot and after its parent's. It is drawn: numbered one after
    /// the other, start times would tell of those who started in the same tick, visible or not.
    fn draw_start(&self, seen: &Seen, began: Time) -> Started {
        let tick = Started::at_tick(seen.ticks).0;
        let room = (Started::at_tick(1).0 / 2).min(began.0.saturating_sub(tick)).max(1);
        let drawn = self.key.hash_one((seen.pid, seen.ticks));
        let started = Started(tick + drawn % room);
        let parent = seen.parent.and_then(|parent| self.processes.get(&parent)).map(|known| known.started);
        match parent.filter(|parent| *parent >= started && parent.ticks() == seen.ticks) {
            Some(parent) => Started(parent.0 + 1 + drawn % 1000),
            None => started,
        }
    }

    /// Numbers wrap, so within a tick a parent may come after its child: walks up first.
    fn tell_found(&mut self, found: Vec<(Started, &Seen)>, time: Time, out: &mut Vec<Event>) {
        let by_pid: HashMap<Pid, (Started, &Seen)> =
            found.iter().map(|(started, seen)| (seen.pid, (*started, *seen))).collect();
        let mut told = HashSet::new();
        for (_, seen) in found {
            let mut line = Vec::new();
            let mut next = Some(seen.pid);
            while let Some((started, seen)) = next.and_then(|pid| by_pid.get(&pid)) {
                if !told.insert(seen.pid) {
                    break;
                }
                line.push((*started, *seen));
                next = seen.parent;
            }
            for (started, seen) in line.into_iter().rev() {
                let process = Process { pid: Some(seen.pid), started };
                let parent = seen.parent.and_then(|pid| Some(self.processes.get(&pid)?.process(pid)));
                if let Some(known) = self.processes.get_mut(&seen.pid) {
                    known.parent = parent;
                }
                let (comm, uid, gid) = (seen.comm, seen.uid, seen.gid);
                out.push(Event { time, what: What::Found { process, parent, comm, uid, gid } });
            }
        }
    }
}

enum Parent {
    Is(Option<Process>, Inherited),
    Missing(Pid),
}

struct Inherited {
    comm: Comm,
    uid: Option<Ids>,
    gid: Option<Ids>,
}

impl Known {
    fn new(started: Started, forked: Option<Time>) -> Self {
        Self {
            started,
            parent: None,
            forked,
            comm: Comm::default(),
            uid: None,
            gid: None,
            has_first: true,
            others: BTreeSet::new(),
            executed: Time(0),
        }
    }

    const fn process(&self, pid: Pid) -> Process {
        Process { pid: Some(pid), started: self.started }
    }

    /// When it was told to be born, or a little before it was.
    fn born(&self) -> Time {
        self.forked.unwrap_or(Time(Started::at_tick(self.started.ticks()).0))
    }

    /// Whether a fork of the same number at this time is its own.
    fn is_born_at(&self, time: Time) -> bool {
        self.forked
            .map_or_else(|| Started(time.0).is_soon_after(self.started.ticks()), |forked| forked == time)
    }

    /// Takes over what the snapshot says of the same process, and tells what differs.
    fn compare(&mut self, seen: &Seen, time: Time, out: &mut Vec<Event>) {
        let process = self.process(seen.pid);
        self.has_first = seen.life == Life::Whole;
        self.others.clone_from(&seen.others);
        let mut tell = |what| out.push(Event { time, what });
        if let Some(ids) = seen.uid.filter(|ids| self.uid.replace(*ids) != Some(*ids)) {
            tell(What::Uid { process, ids });
        }
        if let Some(ids) = seen.gid.filter(|ids| self.gid.replace(*ids) != Some(*ids)) {
            tell(What::Gid { process, ids });
        }
        if std::mem::replace(&mut self.comm, seen.comm) != seen.comm {
            tell(What::Comm { process, comm: seen.comm });
        }
    }
}

/// What a difference consists of.
fn count(difference: &[Event]) -> What {
    let (mut found, mut gone, mut changed) = (0, 0, 0);
    for event in difference {
        match event.what {
            What::Found { .. } | What::Fork { .. } => found += 1,
            What::Exit { .. } | What::Left { .. } => gone += 1,
            _ => changed += 1,
        }
    }
    What::Synced { found, gone, changed }
}

/// How the end of a process became known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// By its exit.
    Told(Time),
    /// From a snapshot: its exit may still be on its way.
    Seen(Time),
}

/// The last processes that ended.
#[derive(Default, Debug)]
struct Ended {
    by_pid: HashMap<Pid, (Started, End)>,
    order: VecDeque<(Pid, Started)>,
}

impl Ended {
    fn remember(&mut self, pid: Pid, started: Started, end: End) {
        self.by_pid.insert(pid, (started, end));
        self.order.push_back((pid, started));
        if self.order.len() > MOST_ENDED {
            let Some((pid, started)) = self.order.pop_front() else { return };
            if self.get(pid) == Some(started) {
                self.by_pid.remove(&pid);
            }
        }
    }

    fn forget(&mut self, pid: Pid) {
        self.by_pid.remove(&pid);
    }

    fn get(&self, pid: Pid) -> Option<Started> {
        self.by_pid.get(&pid).map(|(started, _)| *started)
    }

    /// Whether an exit is of a process that has ended already, and not of the next one with its number.
    fn expects(&self, exit: Change, task: Pid) -> bool {
        let soon = |time: Time| exit.time.0 < time.0.saturating_add(HOLD);
        match self.by_pid.get(&exit.process) {
            // Only the threads that executing another program ended can come after the last.
            Some((_, End::Told(time))) => task != exit.process && soon(*time),
            Some((_, End::Seen(time))) => soon(*time),
            None => false,
        }
    }
}
