//! The table with what keeps it true: a source of events, a thread that reads it, and the record on disk.
//!
//! The thread takes events as they come. Whoever asks or changes something first takes in what has happened up to then, so
//! that a child that was born before the question is in the answer, whoever of the two was faster. One lock holds
//! everything; system calls that do not wait are made under it, and no other lock of the realm is taken.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pinfold_events::{Event, Joined, Source, SourceError, Started};
use pinfold_kernel::process::{self, Vitals};
use pinfold_kernel::{Event as Told, Events, Membership, MembershipError, ReadError, Step, StepError, Where};
use pinfold_model::{CellId, Dir, HostPid};
use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::io::Errno;

use super::deeds::Refused;
use super::ledger::Ledger;
use super::table::{Files, Table};
use super::{Tracked, deeds};

/// How long births and ends may be on no disk.
const WRITING: Duration = Duration::from_millis(100);

/// How often those are looked at that user space holds: who is stopped or bound to CPUs, or whose time is counted.
const LOOKING: Duration = Duration::from_millis(250);

/// How often /proc is read if the source that there was has failed.
const POLLING: Duration = Duration::from_millis(100);

/// How often a source is read in one turn.
const MOST_READS: usize = 64;

/// How long the first list of all processes may take to come.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long it may take until somebody tells of a process that is there.
const TELLING: Duration = Duration::from_secs(1);

/// How long nobody may end of those who were killed.
const DYING: Duration = Duration::from_secs(2);

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
    source: Source,
    registered: Option<Joined>,
    events: Vec<Event>,
    /// How many wait for what happens next.
    awaiting: usize,
    /// Nothing is told any more; nothing is followed any more.
    is_stopped: bool,
    is_over: bool,
    /// When the record on disk became older than the table.
    dirty_since: Option<Instant>,
    looked: Instant,
}

impl Following {
    /// Follows the source, beginning from what an earlier daemon has left in the state directory.
    pub(crate) fn open(source: Source, state: &Path) -> io::Result<Self> {
        let (ledger, dirs, listing) = Ledger::open(state)?;
        let mut table = Table::recovered(dirs, listing);
        if !table.dirs.contains_key(&Dir::REALM) {
            table.add_dir(Dir::REALM, Files::default());
        }
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
        let core = Core {
            table,
            ledger,
            source,
            registered: None,
            events: Vec::new(),
            awaiting: 0,
            is_stopped: false,
            is_over: false,
            dirty_since: None,
            looked: Instant::now(),
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
        let mut core = self.shared.lock();
        core.take_in(Source::catch_up);
        self.shared.tell(&core);
        core
    }

    pub(crate) fn report(&self) -> Tracked {
        let core = self.shared.lock();
        Tracked {
            source: core.source.name(),
            processes: core.table.lives.len(),
            gaps: core.table.gaps,
            scans: core.source.counters().scans,
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
        core.take_in(Source::catch_up);
        self.shared.tell(&core);
        self.shared.ring();
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
        table.text(at, file, ledger)
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
        let core = self.now();
        let all = process::all().map_err(|error| {
            let errno = Errno::from_raw_os_error(error.errno().code());
            ReadError::System { path: "/proc".into(), errno }
        })?;
        Ok(all.into_iter().filter(|process| core.table.roster.cell_of(*process).is_none()).collect())
    }

    pub(crate) fn membership(&self, task: HostPid) -> Result<Membership, MembershipError> {
        let gone = |_| MembershipError::NoProcess(task);
        let process = process::Identity::of(task).map_err(gone)?.process;
        let vitals = Vitals::of(process).map_err(gone)?;
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
        while !core.knows(process, vitals.started) && core.source.is_there() {
            let patience = until.saturating_duration_since(Instant::now());
            if patience.is_zero() {
                break;
            }
            core = self.shared.hear(core, patience);
        }
        core
    }

    /// Kills every process in a directory and all below it until nobody is left: one that was killed may have had a child
    /// of which is told later. Fails, when all others are gone, if one does not let us.
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
            if below.is_empty() {
                break Ok(());
            }
            if below.len() < left {
                (left, until) = (below.len(), Instant::now() + DYING);
            }
            let patience = until.min(latest).saturating_duration_since(Instant::now());
            if patience.is_zero() {
                tracing::warn!("{dir}: {left} processes were killed and do not end");
                break Ok(());
            }
            core = self.shared.hear(core, patience);
        };
        self.shared.tell(&core);
        self.shared.ring();
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

    fn tell(&self, core: &Core) {
        if !core.table.emptied.is_empty() {
            self.told.notify_all();
        }
        if core.awaiting > 0 {
            self.heard.notify_all();
        }
    }

    /// Waits until something has happened, not longer than that, and knows all that has then.
    fn hear<'a>(&self, mut core: MutexGuard<'a, Core>, patience: Duration) -> MutexGuard<'a, Core> {
        core.awaiting += 1;
        let waited = self.heard.wait_timeout(core, patience.min(POLLING));
        core = waited.unwrap_or_else(PoisonError::into_inner).0;
        core.awaiting -= 1;
        core.take_in(Source::catch_up);
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
            core.registered = core.source.join(&self.epoll, SOURCE, core.registered);
            let patience = core.patience().and_then(|patience| Timespec::try_from(patience).ok());
            drop(core);
            happened.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut happened), patience.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return tracing::error!("processes are no longer followed: {errno}"),
            }
            if happened.iter().any(|event| event.data.u64() == WAKE) {
                let _ = rustix::io::read(&self.wake, &mut [0; 8]);
            }
            core = self.lock();
            core.take_in(Source::read);
            core.do_what_is_due();
            self.tell(&core);
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
            || pid.is_some_and(|pid| self.source.knows(pid, started))
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
        match self.table.adopter(process) {
            _ if outside => Origin::Outside,
            Some(cell) => Origin::Member(cell),
            None => Origin::Untold,
        }
    }

    /// Takes in the first list of all processes.
    fn list_all(&mut self, epoll: &OwnedFd) -> io::Result<()> {
        let until = Instant::now() + PATIENCE;
        self.take_in(Source::catch_up);
        while !self.table.is_complete() {
            if Instant::now() >= until {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no list of processes comes"));
            }
            self.registered = self.source.join(epoll, SOURCE, self.registered);
            let patience = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
            let mut happened = Vec::with_capacity(4);
            epoll::wait(epoll, spare_capacity(&mut happened), Some(&patience))?;
            self.take_in(Source::catch_up);
        }
        self.write();
        Ok(())
    }

    /// Takes in what the source has.
    fn take_in(&mut self, read: fn(&mut Source, &mut Vec<Event>) -> Result<bool, SourceError>) {
        let mut read = read;
        for _ in 0..MOST_READS {
            self.events.clear();
            let outcome = read(&mut self.source, &mut self.events);
            let gaps = self.table.gaps;
            self.events.iter().for_each(|event| self.table.take(event));
            self.table.hold_newborn(&mut self.ledger);
            if self.table.gaps > gaps {
                tracing::warn!("process events were lost: /proc is read and compared");
            }
            match outcome {
                Ok(true) => break,
                Ok(false) => read = Source::read,
                Err(error) => return self.change_source(&error),
            }
        }
        if self.table.is_dirty && self.dirty_since.is_none() {
            self.dirty_since = Some(Instant::now());
        }
    }

    /// The source has failed: /proc is what is left.
    fn change_source(&mut self, error: &SourceError) {
        match Source::polling(POLLING) {
            Ok(polling) => {
                tracing::error!("processes are followed by reading /proc from now on: {error}");
                self.source = polling;
                self.registered = None;
                self.table.gaps += 1;
                self.table.begin_list(Started(pinfold_events::proc::now().0));
            }
            Err(worse) => tracing::error!("processes are no longer followed: {error}; {worse}"),
        }
    }

    /// After what time there is something to do.
    fn patience(&self) -> Option<Duration> {
        let now = Instant::now();
        let is_polling = self.registered.is_none() && self.table.lives.is_empty();
        let source = self.source.patience().filter(|_| !is_polling);
        let writing = self.dirty_since.map(|since| (since + WRITING).saturating_duration_since(now));
        let looking = self.wants_a_look().then(|| (self.looked + LOOKING).saturating_duration_since(now));
        [source, writing, looking].into_iter().flatten().min()
    }

    fn wants_a_look(&self) -> bool {
        let table = &self.table;
        let is_held = || table.dirs.values().any(|files| files.freeze || !files.cpus.is_empty());
        !table.lives.is_empty() && (table.is_counting || is_held())
    }

    fn do_what_is_due(&mut self) {
        let now = Instant::now();
        if self.dirty_since.is_some_and(|since| since + WRITING <= now) {
            self.write();
        }
        if self.wants_a_look() && self.looked + LOOKING <= now {
            self.looked = now;
            self.look();
        }
    }

    fn look(&mut self) {
        if self.table.is_counting {
            self.table.look_at_all();
        }
        self.table.look(&mut self.ledger);
    }

    fn write(&mut self) {
        if !self.is_over {
            // That it cannot be written is in the log; it is tried again.
            let _ = self.ledger.write(&mut self.table);
        }
        self.dirty_since = self.table.is_dirty.then(Instant::now);
    }
}
