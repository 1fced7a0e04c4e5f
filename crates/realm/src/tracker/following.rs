//! The table with what keeps it true: a source of events, a thread that reads it, and the record on disk.
//!
//! The thread takes events as they come. Whoever asks or changes something first takes in what has happened up to then, so
//! that a child that was born before the question is in the answer, whoever of the two was faster. One lock holds
//! everything; system calls that do not wait are made under it, and no other lock of the realm is taken.
//!
//! Beside a v2 tree there is no source: the thread compares the table with the tree. A step of both is carried out under the lock.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pinfold_events::{Event, Feeder, Joined, LONGEST_GAP, Source, SourceError};
use pinfold_kernel::process::{self, State, Vitals};
use pinfold_kernel::{
    Event as Told, Events, Membership, MembershipError, ReadError, Step, StepError, Tree, Where,
};
use pinfold_model::{CellId, Dir, HostPid};
use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::io::Errno;

use super::deeds::Refused;
use super::ledger::Ledger;
use super::table::{Files, Table};
use super::{Tracked, deeds};
use crate::REST;

/// How long births and ends may be on no disk.
const WRITING: Duration = Duration::from_millis(100);

/// How often those are looked at that user space holds: who is stopped or bound to CPUs, or whose time is counted. Not if that would take
/// more than a quarter of the time: whoever is held may have any number of threads.
const LOOKING: Duration = Duration::from_millis(250);

/// How often those are compared with a v2 tree, beside one, who may be born above a limit. Not if that would take more than a quarter of
/// the time.
const COMPARING: Duration = Duration::from_millis(50);

/// How often /proc is read if the source that there was has failed.
const POLLING: Duration = Duration::from_millis(100);

/// How often a source is read in one turn.
const MOST_READS: usize = 64;

/// How long the first list of all processes may take to come.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long it may take until somebody tells of a process that is there, also of one that was born in a gap.
const TELLING: Duration = Duration::from_secs(2);
const _: () = assert!(TELLING.as_millis() > LONGEST_GAP.as_millis());

/// How long nobody may end of those who were killed.
const DYING: Duration = Duration::from_secs(2);
const _: () = assert!(DYING.as_millis() > LONGEST_GAP.as_millis());

/// How long killing may take where children are born faster than they are told of.
const KILLING: Duration = Duration::from_secs(30);

/// What epoll says of the wish to stop or to look at the times again, and of the source.
const WAKE: u64 = 0;
const SOURCE: u64 = 1;

/// Follows processes until it is dropped.
#[derive(Debug)]
pub(crate) struct Following {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    core: Mutex<Core>,
    /// Something is to be told by [`Following::next`].
    told: Condvar,
    /// Something has happened, if somebody waits for that.
    heard: Condvar,
    epoll: OwnedFd,
    wake: OwnedFd,
}

#[derive(Debug)]
struct Core {
    table: Table,
    ledger: Ledger,
    /// `None`, beside a tree.
    source: Option<Source>,
    registered: Option<Joined>,
    events: Vec<Event>,
    /// Services that are told what the table is told: the kernel is asked to tell once.
    feeders: Vec<Feeder>,
    /// How many wait for what happens next.
    awaiting: usize,
    /// Nothing is told any more; nothing is followed any more.
    is_stopped: bool,
    is_over: bool,
    /// When the thread wakes up by itself.
    sleeps_until: Option<Instant>,
    /// What has failed for good, for whoever asks how it is going.
    trouble: Option<String>,
    /// When the record on disk became older than the table.
    dirty_since: Option<Instant>,
    /// When the next look may be.
    looks: Instant,
    /// When the next comparison may be.
    compares: Instant,
}

impl Following {
    /// Follows the source, beginning from what an earlier daemon has left in the state directory.
    pub(crate) fn open(source: Source, state: &Path) -> io::Result<Self> {
        let (ledger, dirs, listing) = Ledger::open(state)?;
        let mut table = Table::recovered(dirs, listing);
        if !table.dirs.contains_key(&Dir::REALM) {
            table.add_dir(Dir::REALM, Files::default());
        }
        Self::start(table, ledger, Some(source))
    }

    /// Follows those whom a v2 tree names.
    pub(super) fn beside(tree: &Arc<Tree>, state: &Path) -> io::Result<Self> {
        let (ledger, dirs, _) = Ledger::open(state)?;
        Self::start(Table::beside(tree, dirs), ledger, None)
    }

    fn start(table: Table, ledger: Ledger, source: Option<Source>) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
        let core = Core {
            table,
            ledger,
            source,
            registered: None,
            events: Vec::new(),
            feeders: Vec::new(),
            awaiting: 0,
            is_stopped: false,
            is_over: false,
            sleeps_until: None,
            trouble: None,
            dirty_since: None,
            looks: Instant::now(),
            compares: Instant::now(),
        };
        let shared = Arc::new(Shared {
            core: Mutex::new(core),
            told: Condvar::new(),
            heard: Condvar::new(),
            epoll,
            wake,
        });
        shared.lock().list_all(&shared.epoll)?;
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("tracker".to_owned());
        let thread = thread.spawn(move || for_thread.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Knowing what has happened up to now.
    fn now(&self) -> MutexGuard<'_, Core> {
        let asked = Instant::now();
        let mut core = self.shared.lock();
        core.take_in(Some(asked));
        self.shared.tell(&mut core);
        core
    }

    /// Has a service told what the table is told, from the list of all processes on.
    pub(crate) fn feed(&self, feeder: Feeder) {
        let mut core = self.now();
        let mut all = Vec::new();
        let Some(source) = &core.source else { return };
        source.list(&mut all);
        if feeder.feed(&all, source.counters()) {
            core.feeders.push(feeder);
            self.shared.tell(&mut core);
        }
    }

    /// Takes in what has happened up to now.
    pub(crate) fn take_in(&self) {
        drop(self.now());
    }

    pub(crate) fn report(&self) -> Tracked {
        let core = self.shared.lock();
        let mut source = core.source.as_ref().map_or("a v2 tree", Source::name).to_owned();
        if !core.is_told() {
            source += ", away";
        }
        source.extend(core.trouble.iter().flat_map(|trouble| ["; ", trouble]));
        let counters = core.source.as_ref().map(Source::counters).unwrap_or_default();
        Tracked {
            source,
            processes: core.table.lives.len(),
            gaps: core.table.gaps,
            scans: counters.scans,
            rejected: counters.rejected,
            adopted: core.table.adopted,
        }
    }

    /// Whether CPU time is counted.
    pub(crate) fn account(&self, is_wanted: bool) {
        self.shared.lock().table.count_time(is_wanted);
        self.shared.ring();
    }

    /// Nobody stays stopped who was when the last daemon was killed, and whose group is not frozen.
    pub(crate) fn recovered(&self) {
        let mut core = self.now();
        let members: Vec<HostPid> = core.table.lives.keys().copied().collect();
        let Core { table, ledger, .. } = &mut *core;
        for process in members {
            if let Err(refused) = table.hold_or_tell(process, ledger) {
                tracing::warn!("process {process} goes on: {refused}");
            }
        }
        core.write();
    }

    pub(crate) fn carry_out(&self, steps: &[Step]) -> Result<(), StepError> {
        let mut core = self.now();
        let Core { table, ledger, .. } = &mut *core;
        let outcome = table.carry_out(steps, ledger);
        // Who was born while this was done did not have it all.
        core.take_in(Some(Instant::now()));
        self.shared.tell(&mut core);
        outcome
    }

    /// Carries steps out where a tree has a part in it.
    pub(super) fn carry_out_beside(
        &self,
        tree: &Tree,
        steps: &[Step],
        is_ours: impl Fn(&str) -> bool,
    ) -> Result<(), StepError> {
        let mut core = self.now();
        let Core { table, ledger, .. } = &mut *core;
        let outcome = table.carry_out_beside(tree, steps, is_ours, ledger);
        self.shared.tell(&mut core);
        outcome
    }

    pub(crate) fn dirs(&self) -> Vec<Dir> {
        let mut dirs: Vec<Dir> = self.shared.lock().table.dirs.keys().cloned().collect();
        dirs.retain(|dir| *dir != Dir::REALM);
        dirs.sort_by(|a, b| b.depth().cmp(&a.depth()).then_with(|| a.cmp(b)));
        dirs
    }

    pub(crate) fn read(&self, at: Where<'_>, file: &'static str) -> Result<String, ReadError> {
        let mut core = self.now();
        let Core { table, ledger, .. } = &mut *core;
        if let Where::Dir(dir) = at
            && table.tree.is_some()
            && table.is_holding()
        {
            table.compare(dir, ledger);
        }
        let text = table.text(at, file, ledger);
        self.shared.tell(&mut core);
        text
    }

    pub(crate) fn events(&self, dir: &Dir) -> Result<Events, ReadError> {
        let mut core = self.now();
        let Core { table, ledger, .. } = &mut *core;
        table.events(dir, ledger)
    }

    pub(crate) fn processes(&self, dir: &Dir) -> Result<Vec<HostPid>, ReadError> {
        let core = self.now();
        core.table.files(dir)?;
        Ok(core.table.below(dir))
    }

    /// The processes of the daemon's pid namespace that are in no cell, ascending.
    pub(crate) fn others(&self) -> Result<Vec<HostPid>, ReadError> {
        // Not under the lock, but before: of whoever is listed, what has happened is known then.
        let all = process::all().map_err(|error| {
            let errno = Errno::from_raw_os_error(error.errno().code());
            ReadError::System { path: "/proc".into(), errno }
        })?;
        let core = self.now();
        Ok(all.into_iter().filter(|process| core.table.roster.cell_of(*process).is_none()).collect())
    }

    pub(crate) fn membership(&self, task: HostPid) -> Result<Membership, MembershipError> {
        let gone = |_| MembershipError::NoProcess(task);
        let process = process::Identity::of(task).map_err(gone)?.process;
        let vitals = Vitals::of(process).map_err(gone)?;
        if vitals.state == State::Dead && !process::has_running_tasks(process) {
            // It waits to be reaped, and is in the root as in /proc/PID/cgroup of v1.
            return Ok(Membership::Outside("/".into()));
        }
        let core = self.knowing(process, &vitals);
        if let Origin::Member(cell) = core.origin(process, &vitals)
            && let Some(leaf) = core.table.leaf(cell)
        {
            return Ok(Membership::Inside(cell, leaf.clone()));
        }
        Ok(Membership::Outside("/".into()))
    }

    /// Whether it is certain where a process is: one of which nobody has told, or not whose child it is, may be a member's.
    pub(crate) fn is_sure_of(&self, process: HostPid) -> bool {
        let vitals = Vitals::of(process);
        vitals.is_ok_and(|vitals| self.shared.lock().origin(process, &vitals) != Origin::Untold)
    }

    /// Knowing what has happened up to now, and of this process, unless nobody tells of it soon.
    fn knowing(&self, process: HostPid, vitals: &Vitals) -> MutexGuard<'_, Core> {
        let until = Instant::now() + TELLING;
        let mut core = self.now();
        while !core.knows(process, vitals.started) && core.is_told() {
            let patience = until.saturating_duration_since(Instant::now());
            if patience.is_zero() {
                break;
            }
            core = self.shared.hear(core, patience);
        }
        core
    }

    /// Kills every process in a directory and all below it until nobody is left: one that was killed may have had a child
    /// of which is told later, or in a gap. Fails, when all others are gone, if one does not let us; or if a gap does not end.
    pub(crate) fn kill(&self, dir: &Dir) -> Result<(), ReadError> {
        let (mut killed, mut refused) = (HashMap::new(), BTreeMap::new());
        let (mut left, mut until) = (usize::MAX, Instant::now());
        let latest = until + KILLING;
        let mut core = self.now();
        let answer = loop {
            if let Err(gone) = core.table.files(dir) {
                break Err(gone);
            }
            let mut below = core.table.below(dir);
            for process in &below {
                let Some(life) = core.table.lives.get(process) else { continue };
                if killed.insert(*process, life.started) == Some(life.started) {
                    continue;
                }
                left = usize::MAX;
                if let Err(Refused::Process { errno, .. }) = deeds::kill(*process, life) {
                    refused.insert(*process, errno);
                }
            }
            below.retain(|process| !refused.contains_key(process));
            let is_known = core.table.is_complete() || !core.is_told();
            if below.is_empty() && is_known {
                break Ok(());
            }
            if below.len() < left {
                (left, until) = (below.len(), Instant::now() + DYING);
            }
            let patience = until.min(latest).saturating_duration_since(Instant::now());
            if patience.is_zero() && below.is_empty() {
                tracing::warn!("{dir}: whoever was born in a gap may live: it does not end");
                break Err(ReadError::System { path: "/proc".into(), errno: Errno::AGAIN });
            }
            if patience.is_zero() {
                tracing::warn!("{dir}: {left} processes were killed and do not end");
                break Ok(());
            }
            core = self.shared.hear(core, patience);
        };
        self.shared.tell(&mut core);
        match refused.pop_first() {
            Some((process, errno)) if answer.is_ok() => {
                Err(ReadError::System { path: format!("/proc/{process}").into(), errno })
            }
            _ => answer,
        }
    }

    /// Waits for a leaf that became empty.
    pub(crate) fn next(&self) -> Told {
        let mut core = self.shared.lock();
        loop {
            if core.is_stopped {
                return Told::Stopped;
            }
            if let Some(cell) = core.table.emptied.pop_front() {
                return Told::Changed(cell);
            }
            core = self.shared.told.wait(core).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(crate) fn stop(&self) {
        self.shared.lock().is_stopped = true;
        self.shared.told.notify_all();
    }

    /// Everything has been taken away.
    pub(crate) fn close(&self) {
        self.shared.lock().is_over = true;
        self.shared.ring();
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that follows processes panicked");
        }
    }
}

impl Shared {
    /// What a panic leaves behind is no worse than what it found: one process less looked at.
    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, core: &mut Core) {
        if core.table.is_dirty && core.dirty_since.is_none() {
            core.dirty_since = Some(Instant::now());
        }
        if !core.table.emptied.is_empty() {
            self.told.notify_all();
        }
        if core.awaiting > 0 {
            self.heard.notify_all();
        }
        // What was taken in may have to be done before the thread would wake up.
        let due = core.patience().map(|patience| Instant::now() + patience);
        if due.is_some_and(|due| core.sleeps_until.is_none_or(|until| due < until)) {
            core.sleeps_until = due;
            self.ring();
        }
    }

    /// Waits until something has happened, not longer than that, and knows all that has then.
    fn hear<'a>(&self, mut core: MutexGuard<'a, Core>, patience: Duration) -> MutexGuard<'a, Core> {
        core.awaiting += 1;
        let waited = self.heard.wait_timeout(core, patience.min(POLLING));
        core = waited.unwrap_or_else(PoisonError::into_inner).0;
        core.awaiting -= 1;
        core.take_in(Some(Instant::now()));
        core
    }

    /// Has the thread look at what is due.
    fn ring(&self) {
        // It can only fail because it is ringing already.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// The thread.
    fn run(&self) {
        let mut happened = Vec::with_capacity(4);
        let mut core = self.lock();
        while !core.is_over {
            core.join(&self.epoll);
            let patience = core.patience();
            core.sleeps_until = patience.map(|patience| Instant::now() + patience);
            drop(core);
            happened.clear();
            let patience = patience.and_then(|patience| Timespec::try_from(patience).ok());
            let waited = epoll::wait(&self.epoll, spare_capacity(&mut happened), patience.as_ref());
            if let Err(errno) = waited
                && errno != Errno::INTR
            {
                return self
                    .lock()
                    .worry(format!("only those who ask have processes followed: epoll: {errno}"));
            }
            if happened.iter().any(|event| event.data.u64() == WAKE) {
                let _ = rustix::io::read(&self.wake, &mut [0; 8]);
            }
            core = self.lock();
            core.take_in(None);
            core.do_what_is_due();
            self.tell(&mut core);
        }
    }
}

/// Where a process is, as far as that is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Origin {
    Member(CellId),
    Outside,
    /// Nobody has told of it, or not whose child it is.
    Untold,
}

impl Core {
    fn knows(&self, process: HostPid, started: u64) -> bool {
        let pid = pinfold_events::Pid::new(process.get());
        self.table.member_since(process, started).is_some()
            || pid.zip(self.source.as_ref()).is_some_and(|(pid, source)| source.knows(pid, started))
    }

    /// Whether there is a source and it tells.
    fn is_told(&self) -> bool {
        self.source.as_ref().is_some_and(Source::is_there)
    }

    /// Has an epoll wait for the source.
    fn join(&mut self, epoll: &OwnedFd) {
        let source = self.source.as_ref();
        self.registered = source.and_then(|source| source.join(epoll, SOURCE, self.registered));
    }

    /// Where a process is; if nobody has told of it, where its parent is, which bore it unless that one has ended: then the
    /// parent is another, whose session is another too.
    fn origin(&self, process: HostPid, vitals: &Vitals) -> Origin {
        let (mut at, mut of_it, mut is_sure) = (process, *vitals, true);
        let outside = loop {
            if let Some(cell) = self.table.member_since(at, of_it.started) {
                return Origin::Member(cell);
            }
            if self.knows(at, of_it.started) {
                break is_sure && !self.table.strays.contains(&at);
            }
            let Some(parent) = of_it.parent else { break is_sure };
            match Vitals::of(parent) {
                Ok(above) if above.started <= of_it.started => {
                    is_sure &= above.session == of_it.session;
                    (at, of_it) = (parent, above);
                }
                _ => break false,
            }
        };
        if outside {
            return Origin::Outside;
        }
        let is_it = |now: &Vitals| now.started == vitals.started;
        self.table.adopter(process, is_it).map_or(Origin::Untold, Origin::Member)
    }

    /// Takes in the first list of all processes.
    fn list_all(&mut self, epoll: &OwnedFd) -> io::Result<()> {
        let until = Instant::now() + PATIENCE;
        self.take_in(Some(Instant::now()));
        while !self.table.is_complete() {
            if Instant::now() >= until {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no list of processes comes"));
            }
            self.join(epoll);
            let patience = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
            let mut happened = Vec::with_capacity(4);
            epoll::wait(epoll, spare_capacity(&mut happened), Some(&patience))?;
            self.take_in(Some(Instant::now()));
        }
        self.write();
        Ok(())
    }

    /// Takes in what the source has, and at least what has happened until then.
    fn take_in(&mut self, until: Option<Instant>) {
        for _ in 0..MOST_READS {
            let Some(source) = &mut self.source else { break };
            self.events.clear();
            let outcome = match until {
                Some(until) => source.catch_up(until, &mut self.events),
                None => source.read(&mut self.events),
            };
            let gaps = self.table.gaps;
            let told_until = source.told_until();
            self.events.iter().for_each(|event| self.table.take(event));
            self.table.hold_newborn(&mut self.ledger);
            if self.table.is_complete() {
                self.table.known_until = told_until;
            }
            // After the table: whoever compares with its members when all is known has them.
            let (events, counters) = (&self.events, source.counters());
            self.feeders.retain(|feeder| match events.is_empty() {
                true => feeder.is_wanted(),
                false => feeder.feed(events, counters),
            });
            if self.table.gaps > gaps {
                tracing::warn!("process events were lost: /proc is read and compared");
            }
            match outcome {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) => return self.change_source(&error),
            }
        }
    }

    /// The source has failed: /proc is what is left.
    fn change_source(&mut self, error: &SourceError) {
        match Source::polling(POLLING) {
            Ok(polling) => {
                self.worry(error.to_string());
                // It gives other start times: who subscribes again has its list.
                self.feeders.drain(..).for_each(|feeder| feeder.fail(error));
                let mut known = Vec::new();
                self.source.iter().for_each(|last| last.list(&mut known));
                self.source = Some(polling);
                self.registered = None;
                self.table.gaps += 1;
                // Whom it did not get to tell of is none of those.
                self.table.list_again(&known);
            }
            Err(worse) => self.worry(format!("processes are no longer followed: {error}; {worse}")),
        }
    }

    /// Something has failed for good: told in the log once, and to whoever asks.
    fn worry(&mut self, trouble: String) {
        if self.trouble.as_ref() != Some(&trouble) {
            tracing::error!("{trouble}");
            self.trouble = Some(trouble);
        }
    }

    /// After what time there is something to do.
    fn patience(&self) -> Option<Duration> {
        let now = Instant::now();
        let has_readers = !self.table.lives.is_empty() || !self.feeders.is_empty();
        let source = self.source.as_ref();
        // /proc is not read for nobody: whoever asks has it read.
        let source = source.filter(|source| has_readers || !matches!(source, Source::Polling(_)));
        let source = source.and_then(Source::patience);
        let writing = self.dirty_since.map(|since| (since + WRITING).saturating_duration_since(now));
        let looking = self.wants_a_look().then(|| self.looks.saturating_duration_since(now));
        let comparing = self.wants_a_comparison().then(|| self.compares.saturating_duration_since(now));
        [source, writing, looking, comparing].into_iter().flatten().min()
    }

    fn wants_a_look(&self) -> bool {
        let table = &self.table;
        let is_held = || table.dirs.values().any(|files| table.holds(files));
        !table.lives.is_empty() && (table.is_counting || is_held())
    }

    /// Whether nobody else tells of who is born above a limit.
    fn wants_a_comparison(&self) -> bool {
        let is_limited = || self.table.dirs.values().any(|files| files.most.is_some());
        self.table.tree.is_some() && !self.table.lives.is_empty() && is_limited()
    }

    fn do_what_is_due(&mut self) {
        let now = Instant::now();
        if self.dirty_since.is_some_and(|since| since + WRITING <= now) {
            self.write();
        }
        if self.wants_a_look() && self.looks <= now {
            self.look();
        } else if self.wants_a_comparison() && self.compares <= now {
            self.compare();
        }
    }

    fn compare(&mut self) {
        let began = Instant::now();
        self.table.compare_all(&mut self.ledger);
        self.compares = again(began, COMPARING);
    }

    fn look(&mut self) {
        let began = Instant::now();
        if self.table.tree.is_some() {
            self.compare();
        }
        if self.table.is_counting {
            self.table.look_at_all();
        }
        self.table.look(&mut self.ledger);
        self.looks = again(began, LOOKING);
    }

    fn write(&mut self) {
        if !self.is_over {
            // That it cannot be written is in the log; it is tried again.
            let _ = self.ledger.write(&mut self.table);
        }
        self.dirty_since = self.table.is_dirty.then(Instant::now);
    }
}

/// When what was begun then, and is done so often, is done again: it takes a quarter of the time at most.
fn again(began: Instant, often: Duration) -> Instant {
    began + often.max(began.elapsed() * (REST + 1))
}

#[cfg(test)]
mod tests;
