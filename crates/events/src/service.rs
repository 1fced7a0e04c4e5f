//! A source, a hub, and the sockets of the subscribers, served by one thread. A source that somebody else reads already is not
//! opened again: who reads it passes its events on ([`Feeder`]).
//!
//! The thread sleeps until the source or a socket has something; in a rush of events also a little after it has read some, so
//! that not each wakes it. It never waits for a subscriber. The lock on the hub is held
//! while events are passed on and while somebody subscribes, also across what that asks of the system (a number in
//! another namespace, a send that does not wait); nobody takes another lock under it. The lock on `reads` is a leaf.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll, eventfd, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, Shutdown, SocketFlags, SocketType, send, shutdown, socketpair};

use crate::connector::Counters;
use crate::event::{Event, Pid, What};
use crate::hub::{Audience, Hub, QUEUE, REMEMBERED, Scope, SubscriberId};
use crate::namespace::{IdMap, Machine, NamespaceError};
use crate::proc::now;
use crate::rush::Rush;
use crate::source::{Fed, Joined, Source, SourceError};

/// Why the service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The source.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The own namespaces.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The system.
    #[error("process events: {0}")]
    System(#[source] io::Error),
}

/// Why somebody cannot subscribe.
#[derive(Debug, thiserror::Error)]
pub enum SubscribeError {
    /// The subscriber's namespaces are not known.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The system.
    #[error("subscription: {0}")]
    System(#[from] Errno),
    /// This user or container has as many subscriptions as one may have.
    #[error("there are {most} subscriptions of that user or container already")]
    TooMany {
        /// How many there may be.
        most: usize,
    },
    /// All users together have as many as they may.
    #[error("users other than the host's root have {most} subscriptions already")]
    Full {
        /// How many there may be.
        most: usize,
    },
    /// The service has ended: its source failed, or nobody was subscribed any more.
    #[error("the service has ended")]
    Over,
}

/// Who subscribes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reader {
    /// Its process, in the daemon's numbers. The caller makes sure that the number is still that process's (by a pidfd).
    pub process: Pid,
    /// Whose subscriptions it counts among, by any number; `None`: it is not counted.
    pub account: Option<u64>,
}

impl From<Pid> for Reader {
    /// A process of whoever is not counted.
    fn from(process: Pid) -> Self {
        Self { process, account: None }
    }
}

/// How many subscriptions a user or container may have, so that nobody takes all descriptors and memory: each holds a
/// queue of [`QUEUE`] bytes, a socket, and what a reader that does not read was told of [`REMEMBERED`] processes at most.
pub const MOST_OF_ONE: usize = 64;

/// How many all may have that are counted.
const MOST_OF_ALL: usize = 512;

/// One subscription.
#[derive(Debug)]
pub struct Subscription {
    /// Names it.
    pub id: SubscriberId,
    /// The reader's end of the socket. Closing it (and all its copies) ends the subscription.
    pub socket: OwnedFd,
}

/// Serves the events of one source to any number of subscribers, until it is dropped.
#[derive(Debug)]
pub struct Service {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// By this, whoever reads a source has a service tell of it too.
#[derive(Debug)]
pub struct Feeder(Weak<Shared>);

impl Feeder {
    /// Passes events on, and what the source has counted: first [`Source::list`], then all that is read from then on. Answers whether
    /// there is anybody to be told.
    pub fn feed(&self, events: &[Event], counters: Counters) -> bool {
        self.0.upgrade().is_some_and(|shared| shared.pass_on(events, counters))
    }

    /// Whether there is anybody to be told.
    pub fn is_wanted(&self) -> bool {
        self.0.upgrade().is_some_and(|shared| shared.lock().end != End::Over)
    }

    /// Nothing more comes: all streams end.
    pub fn fail(self, reason: impl fmt::Display) {
        if let Some(shared) = self.0.upgrade() {
            let mut core = shared.lock();
            core.fail(reason);
            shared.leave(core);
        }
    }
}

#[derive(Debug)]
struct Shared {
    core: Mutex<Core>,
    epoll: OwnedFd,
    stop: OwnedFd,
    wake: OwnedFd,
    reads: Mutex<Reads>,
    was_read: Condvar,
    after_gaps: OnceLock<AfterGaps>,
}

/// What is done when all is known again.
struct AfterGaps(Box<dyn Fn() + Send + Sync>);

impl fmt::Debug for AfterGaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AfterGaps")
    }
}

/// Who waits until the thread has read everything that has happened up to now.
#[derive(Default, Debug)]
struct Reads {
    wanted: u64,
    done: u64,
    /// When the last of them asked.
    asked: Option<Instant>,
}

#[derive(Debug)]
struct Core {
    hub: Hub,
    machine: Machine,
    sockets: HashMap<SubscriberId, Socket>,
    counters: Counters,
    failure: Option<String>,
    end: End,
    /// When it ends if nobody subscribes before.
    ends_at: Option<Instant>,
}

/// When the service ends by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// Not before its source does.
    Never,
    /// [`LINGERING`] after the last subscriber has left.
    WithTheLast,
    /// It has.
    Over,
}

#[derive(Debug)]
struct Socket {
    descriptor: OwnedFd,
    account: Option<u64>,
    is_full: bool,
}

/// How long a service goes on that nobody is subscribed to. To begin is a look at all of /proc, and to be asked from another pid namespace
/// is one at every process that was not asked about: whoever subscribes again and again has that done once.
const LINGERING: Duration = Duration::from_secs(3);

/// What epoll says of the source and of the wish to stop; subscribers have their numbers.
const SOURCE: u64 = u64::MAX;
const STOP: u64 = u64::MAX - 1;
const WAKE: u64 = u64::MAX - 2;

/// How often the source is read before others get their turn. Then all that was there at the first time is read.
const MOST_READS: usize = 64;

impl Service {
    /// Takes the first look around, then serves in a thread of its own.
    pub fn start(source: Source) -> Result<Self, StartError> {
        Self::start_until(source, End::Never)
    }

    /// [`Self::start`], until the last subscriber has left, and a moment longer: then nothing is left that could wake up, and whoever comes next
    /// is told [`SubscribeError::Over`] and starts another.
    pub fn start_while_wanted(source: Source) -> Result<Self, StartError> {
        Self::start_until(source, End::WithTheLast)
    }

    /// [`Self::start_while_wanted`] for the events of a source that somebody else in this process reads, and passes on by the feeder. `ask` has it passed on what
    /// has happened up to now; it is called by the service's thread, under no lock.
    pub fn start_fed(ask: impl Fn() + Send + 'static) -> Result<(Self, Feeder), StartError> {
        let service = Self::start_until(Source::Fed(Fed::new(ask)), End::WithTheLast)?;
        let feeder = Feeder(Arc::downgrade(&service.shared));
        Ok((service, feeder))
    }

    fn start_until(mut source: Source, end: End) -> Result<Self, StartError> {
        let system = |errno: Errno| StartError::System(errno.into());
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(system)?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(system)?;
        epoll::add(&epoll, &stop, epoll::EventData::new_u64(STOP), epoll::EventFlags::IN).map_err(system)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(system)?;
        epoll::add(&epoll, &wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN).map_err(system)?;
        let core = Core {
            hub: Hub::new(),
            machine: Machine::new()?,
            sockets: HashMap::new(),
            counters: Counters::default(),
            failure: None,
            end,
            ends_at: None,
        };
        let shared = Arc::new(Shared {
            core: Mutex::new(core),
            epoll,
            stop,
            wake,
            reads: Mutex::default(),
            was_read: Condvar::new(),
            after_gaps: OnceLock::new(),
        });
        let mut events = Vec::new();
        source.read(&mut events)?;
        shared.pass_on(&events, source.counters());
        let for_thread = Arc::clone(&shared);
        let builder = std::thread::Builder::new().name("events".into());
        let rush = Rush::new(Instant::now());
        let pump = Pump { shared: for_thread, source, registered: None, events, read: 0, rush };
        let thread = builder.spawn(move || pump.run());
        Ok(Self { shared, thread: Some(thread.map_err(StartError::System)?) })
    }

    /// Subscribes for a process: it is told, in the numbers of its own namespaces, what it can see of the scope, and nothing
    /// else: whatever the scope says, a reader is told of no process that it could not see in its own /proc. The scope's
    /// numbers are the daemon's. A service that ends with its last subscriber ends with one that is refused, too, where nobody else is
    /// subscribed.
    pub fn subscribe(
        &self,
        reader: impl Into<Reader>,
        scope: &Scope,
    ) -> Result<Subscription, SubscribeError> {
        let subscribed = self.try_subscribe(reader.into(), scope);
        if subscribed.is_err() {
            let mut core = self.shared.lock();
            core.end_if_unwanted();
            self.shared.leave(core);
        }
        subscribed
    }

    fn try_subscribe(&self, reader: Reader, scope: &Scope) -> Result<Subscription, SubscribeError> {
        let Reader { process: reader, account } = reader;
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        // Whatever a reader sends is refused by the kernel.
        shutdown(&ours, Shutdown::Read)?;
        let (users, groups) = IdMap::of(reader)?;
        let mut core = self.shared.lock_knowing(scope.named());
        core.admits(account)?;
        let namespace = core.machine.enter(reader)?;
        // Who is not counted may have what it takes.
        let remembered = if account.is_some() { REMEMBERED } else { usize::MAX - 1 };
        let audience = Audience { namespace, users, groups, queue: QUEUE, remembered };
        let Core { hub, machine, sockets, .. } = &mut *core;
        let id = hub.subscribe(audience, scope, now(), machine);
        let flags = epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        let token = epoll::EventData::new_u64(u64::from(id.get()));
        let added = epoll::add(&self.shared.epoll, &ours, token, flags);
        sockets.insert(id, Socket { descriptor: ours, account, is_full: false });
        core.ends_at = None;
        if let Err(errno) = added {
            core.remove(id);
            return Err(errno.into());
        }
        core.flush();
        Ok(Subscription { id, socket: theirs })
    }

    /// A process (a number of the daemon's) is about to be admitted. Waits for nothing. See [`Hub::expect`].
    pub fn expect(&self, pid: Pid) {
        let mut core = self.shared.lock();
        let Core { hub, machine, .. } = &mut *core;
        hub.expect(pid, machine);
    }

    /// Takes processes (numbers of the daemon's) into the scope of a subscription to chosen ones. Answers whether any was new there. See
    /// [`Hub::admit`].
    pub fn admit(&self, subscription: SubscriberId, pids: &[Pid]) -> bool {
        let core = self.shared.lock_knowing(pids);
        self.choose(core, |hub, machine| {
            pids.iter().filter(|pid| hub.admit(subscription, **pid, now(), machine)).count() > 0
        })
    }

    /// Takes a process (a number of the daemon's) out of the scope of a subscription to chosen ones. See [`Hub::dismiss`].
    pub fn dismiss(&self, subscription: SubscriberId, pid: Pid) -> bool {
        self.choose(self.shared.lock(), |hub, _| hub.dismiss(subscription, pid, now()))
    }

    /// The process that is expected, which may have ended since, goes out of the scopes of some subscriptions to chosen ones, and into
    /// those of others. What has happened to it is read once for all of them. See [`Hub::admit_expected`].
    pub fn moved(&self, pid: Pid, out_of: &[SubscriberId], into: &[SubscriberId]) {
        let core = if into.is_empty() { self.shared.lock() } else { self.shared.lock_knowing(&[pid]) };
        self.choose(core, |hub, machine| {
            out_of.iter().for_each(|id| _ = hub.dismiss(*id, pid, now()));
            into.iter().for_each(|id| _ = hub.admit_expected(*id, pid, now(), machine));
        });
    }

    /// Changes who belongs to choices, and tells of it.
    fn choose<T>(
        &self,
        mut core: MutexGuard<'_, Core>,
        chooses: impl FnOnce(&mut Hub, &mut Machine) -> T,
    ) -> T {
        let Core { hub, machine, .. } = &mut *core;
        let chosen = chooses(hub, machine);
        core.flush();
        self.shared.leave(core);
        chosen
    }

    /// Has something done whenever what was lost is known: whoever was born meanwhile to a parent that is gone, and belongs to a
    /// scope by choice, is in it by nothing else. Done by the service's thread, under no lock; only the first call counts. Those who
    /// subscribe to chosen ones are told that all is known after [`Self::compare`] only.
    pub fn after_gaps(&self, then: impl Fn() + Send + Sync + 'static) {
        self.shared.lock().hub.compare_choices();
        let _ = self.shared.after_gaps.set(AfterGaps(Box::new(then)));
    }

    /// Has the processes that a subscription is told of, in the daemon's numbers, compared with those that it is to be told of, under
    /// no lock: admit and dismiss what differs. Answers whether there is such a subscription.
    pub fn compare(&self, subscription: SubscriberId, compare: impl FnOnce(Vec<Pid>)) -> bool {
        let mut core = self.shared.lock();
        if !core.sockets.contains_key(&subscription) {
            return false;
        }
        let told = core.hub.begin_comparison(subscription);
        drop(core);
        compare(told);
        let mut core = self.shared.lock();
        core.hub.end_comparison(subscription);
        core.flush();
        self.shared.leave(core);
        true
    }

    /// Whether it has ended by itself.
    pub fn is_over(&self) -> bool {
        self.shared.lock().end == End::Over
    }

    /// Whether there is such a subscription.
    pub fn has(&self, subscription: SubscriberId) -> bool {
        self.shared.lock().sockets.contains_key(&subscription)
    }

    /// How many subscriptions there are.
    pub fn subscribers(&self) -> usize {
        self.shared.lock().hub.subscribers()
    }

    /// What the source has counted.
    pub fn counters(&self) -> Counters {
        self.shared.lock().counters
    }

    /// Why the source gave up, if it did. All streams have ended then.
    pub fn failure(&self) -> Option<String> {
        self.shared.lock().failure.clone()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = rustix::io::write(&self.shared.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// A panic of another thread leaves nothing half-done that serving on would make worse.
    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks after what has happened to these processes was read: somebody may ask for a process that was born just now.
    fn lock_knowing(&self, pids: &[Pid]) -> MutexGuard<'_, Core> {
        let core = self.lock();
        if pids.iter().all(|pid| core.hub.knows(*pid)) {
            return core;
        }
        drop(core);
        let mut reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        reads.wanted += 1;
        reads.asked = Some(Instant::now());
        let mine = reads.wanted;
        if rustix::io::write(&self.wake, &1u64.to_ne_bytes()).is_ok() {
            let is_due = |reads: &mut Reads| reads.done < mine;
            drop(self.was_read.wait_while(reads, is_due).unwrap_or_else(PoisonError::into_inner));
        }
        self.lock()
    }

    /// Passes events on to whom they concern; answers whether there is anybody.
    fn pass_on(&self, events: &[Event], counters: Counters) -> bool {
        let mut core = self.lock();
        core.pass_on(events, counters);
        if core.end == End::Over {
            self.leave(core);
            return false;
        }
        drop(core);
        if events.iter().any(|event| matches!(event.what, What::Synced { .. }))
            && let Some(AfterGaps(then)) = self.after_gaps.get()
        {
            then();
        }
        true
    }

    /// Unlocks; has the thread know if it ends, or will.
    fn leave(&self, core: MutexGuard<'_, Core>) {
        let told = match (core.end, core.ends_at) {
            (End::Over, _) => &self.stop,
            (_, Some(_)) => &self.wake,
            (_, None) => return,
        };
        let _ = rustix::io::write(told, &1u64.to_ne_bytes());
    }

    /// What is wanted now, and since when, if it was not had yet.
    fn wanted(&self) -> (u64, Option<Instant>) {
        let reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        (reads.wanted, reads.asked.filter(|_| reads.done < reads.wanted))
    }

    fn have_read(&self, wanted: u64) {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner).done = wanted;
        self.was_read.notify_all();
    }
}

impl Core {
    /// Whether there is room for one more of an account's.
    fn admits(&self, account: Option<u64>) -> Result<(), SubscribeError> {
        if self.end == End::Over {
            return Err(SubscribeError::Over);
        }
        let Some(account) = account else { return Ok(()) };
        let counted = || self.sockets.values().filter_map(|socket| socket.account);
        if counted().filter(|other| *other == account).count() >= MOST_OF_ONE {
            return Err(SubscribeError::TooMany { most: MOST_OF_ONE });
        }
        if counted().count() >= MOST_OF_ALL {
            return Err(SubscribeError::Full { most: MOST_OF_ALL });
        }
        Ok(())
    }

    fn pass_on(&mut self, events: &[Event], counters: Counters) {
        self.counters = counters;
        events.iter().for_each(|event| self.hub.deliver(event, &mut self.machine));
        self.flush();
    }

    /// Sends what is ready.
    fn flush(&mut self) {
        for id in self.hub.take_ready() {
            if self.sockets.get(&id).is_some_and(|socket| !socket.is_full) {
                self.send(id);
            }
        }
        self.end_given_up();
    }

    fn end_given_up(&mut self) {
        self.hub.take_given_up().into_iter().for_each(|id| self.remove(id));
    }

    /// Sends a subscriber what its socket takes.
    fn send(&mut self, id: SubscriberId) {
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        socket.is_full = false;
        while let Some(packet) = self.hub.front(id) {
            match send(&socket.descriptor, packet, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(_) => self.hub.sent(id),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN | Errno::NOBUFS) => {
                    socket.is_full = true;
                    return;
                }
                Err(_) => {
                    self.remove(id);
                    return;
                }
            }
        }
    }

    fn remove(&mut self, id: SubscriberId) {
        // Closing it takes it out of epoll, too.
        self.sockets.remove(&id);
        if let Some(namespace) = self.hub.unsubscribe(id) {
            self.machine.forget(namespace);
        }
        self.end_if_unwanted();
    }

    /// Ends some time after the last subscriber, if it is to.
    fn end_if_unwanted(&mut self) {
        if self.end == End::WithTheLast && self.sockets.is_empty() {
            self.ends_at.get_or_insert_with(|| Instant::now() + LINGERING);
        }
    }

    /// Whether nobody has come in that time.
    fn has_ended(&mut self) -> bool {
        let is_due = self.ends_at.is_some_and(|at| at <= Instant::now());
        if is_due {
            self.finish();
        }
        is_due
    }

    /// The source gives nothing more.
    fn fail(&mut self, reason: impl fmt::Display) {
        self.failure = Some(reason.to_string());
        self.finish();
    }

    /// Nothing comes any more. All streams end.
    fn finish(&mut self) {
        self.end = End::Over;
        self.sockets.clear();
        self.hub = Hub::new();
    }
}

/// What the thread leaves behind, however it ends: no stream that is silent for ever, and nobody who waits for what will not come.
struct Last(Arc<Shared>);

impl Drop for Last {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().fail("the thread that serves process events panicked");
        }
        self.0.have_read(u64::MAX);
    }
}

/// The thread.
struct Pump {
    shared: Arc<Shared>,
    source: Source,
    registered: Option<Joined>,
    events: Vec<Event>,
    /// How many events the last turn had.
    read: usize,
    rush: Rush,
}

impl Pump {
    fn run(mut self) {
        let _last = Last(Arc::clone(&self.shared));
        self.serve();
    }

    fn serve(&mut self) {
        let mut happened = Vec::with_capacity(64);
        loop {
            self.registered = self.source.join(&self.shared.epoll, SOURCE, self.registered);
            happened.clear();
            let ends_at = self.shared.lock().ends_at;
            let ends_in = ends_at.map(|at| at.saturating_duration_since(Instant::now()));
            let patience = [self.source.patience(), ends_in].into_iter().flatten().min();
            let patience = patience.and_then(|patience| Timespec::try_from(patience).ok());
            match epoll::wait(&self.shared.epoll, spare_capacity(&mut happened), patience.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return self.shared.lock().fail(error),
            }
            if self.shared.lock().has_ended() {
                return;
            }
            let mut is_due = happened.is_empty();
            let (wanted, asked) = self.shared.wanted();
            for event in &happened {
                match event.data.u64() {
                    STOP => return,
                    SOURCE => is_due = true,
                    WAKE => {
                        let _ = rustix::io::read(&self.shared.wake, &mut [0; 8]);
                        is_due = true;
                    }
                    number => self.attend(number, event.flags),
                }
            }
            if is_due {
                if !self.read(asked) {
                    return;
                }
                self.shared.have_read(wanted);
                if let Some(lull) = self.rush.saw(self.read, Instant::now()) {
                    self.rest(lull);
                }
            }
        }
    }

    /// Waits for nothing but to be called. What ends it early is seen on the next turn.
    fn rest(&self, lull: Duration) {
        let called = [&self.shared.stop, &self.shared.wake];
        let mut called = called.map(|descriptor| PollFd::new(descriptor, PollFlags::IN));
        let _ = poll(&mut called, Timespec::try_from(lull).ok().as_ref());
    }

    /// A subscriber's socket has room again, or its reader is gone.
    fn attend(&self, number: u64, flags: epoll::EventFlags) {
        let Ok(number) = u32::try_from(number) else { return };
        let id = SubscriberId::new(number);
        let mut core = self.shared.lock();
        if flags.intersects(epoll::EventFlags::HUP | epoll::EventFlags::ERR) {
            core.remove(id);
        } else {
            core.send(id);
            core.end_given_up();
        }
        // What is written there is read on the next turn.
        self.shared.leave(core);
    }

    /// Passes on what the source has, and for who asked, what has happened until then; answers whether it goes on.
    fn read(&mut self, asked: Option<Instant>) -> bool {
        self.read = 0;
        for _ in 0..MOST_READS {
            self.events.clear();
            let read = match asked {
                Some(asked) => self.source.read_up_to(asked, &mut self.events),
                None => self.source.read(&mut self.events),
            };
            self.read += self.events.len();
            // Who is fed has counted elsewhere.
            let counters = match self.source {
                Source::Fed(_) => self.shared.lock().counters,
                _ => self.source.counters(),
            };
            if !self.shared.pass_on(&self.events, counters) {
                return false;
            }
            match read {
                Ok(true) => return true,
                Ok(false) => {}
                Err(error) => {
                    self.shared.lock().fail(error);
                    return false;
                }
            }
        }
        true
    }
}
