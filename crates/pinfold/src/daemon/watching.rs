//! Process events for subscribers: where they come from, when the service runs, and what a group is.
//!
//! The service runs while somebody is subscribed. The first subscriber has it started, soon after the last it ends: an idle daemon
//! has no source that wakes it up. Where the realm's tracker is told of processes, it has that passed on: the kernel, or the outer
//! pinfold, is asked to tell once, however many listen.
//!
//! `events` knows no groups. So a subscription to a group is one to chosen processes: those in the group when it begins; their
//! children come by birth, and whoever is attached is let in, or out, by the attach itself. After every attach, and every gap, the
//! choice is compared with the group's members: a child that was born within the attach may have been taken along, or not.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError, Weak};
use std::time::{Duration, Instant};

use pinfold_dbus::{Client, Events, Refusal, Scope, wire};
use pinfold_events::proc::{HIDDEN, hides_processes};
use pinfold_events::{
    Pid, Reader, Scope as Choice, Service, Source, SourceError, StartError, SubscribeError, SubscriberId,
    Subscription,
};
use pinfold_kernel::pids::PidMap;
use pinfold_kernel::process::Identity;
use pinfold_model::{Errno, GroupId, HostPid};
use pinfold_realm::{Account, Attach, Caller, REST, Realm};

/// How often /proc is read where there is nothing better, while somebody is subscribed.
pub(crate) const POLLING: Duration = Duration::from_millis(100);

/// Where process events come from.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    /// The kernel; polling where it does not answer.
    Machine,
    /// The pinfold around this one.
    Outer(Arc<Outside>),
}

/// The pinfold whose socket is in a directory. One thread at a time asks it, however many begin and end meanwhile: while it hangs, each
/// that asked would stay.
#[derive(Debug)]
pub(crate) struct Outside {
    dir: PathBuf,
    asking: Mutex<()>,
}

impl Outside {
    fn subscribe(&self) -> std::io::Result<OwnedFd> {
        let _asking = match self.asking.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(std::io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Ok(asking) => asking,
        };
        let client = Client::connect(&self.dir.join(wire::SOCKET)).map_err(std::io::Error::other)?;
        client.subscribe().map_err(std::io::Error::other)
    }
}

impl Origin {
    /// The pinfold whose socket is in this directory.
    pub(crate) fn outer(dir: PathBuf) -> Self {
        Self::Outer(Arc::new(Outside { dir, asking: Mutex::default() }))
    }

    /// Begins to be told.
    pub(crate) fn source(&self) -> Result<Source, SourceError> {
        if matches!(self, Self::Machine) && hides_processes(Path::new("/proc")) {
            tracing::warn!("{HIDDEN}");
        }
        match self {
            Self::Outer(outside) => {
                let outside = Arc::clone(outside);
                Source::outer(move || outside.subscribe())
            }
            Self::Machine => match Source::connector() {
                Ok(source) => Ok(source),
                Err(error) => {
                    tracing::warn!(
                        "process events are found by reading /proc, which misses short lives: {error}"
                    );
                    Ok(Source::polling(POLLING)?)
                }
            },
        }
    }
}

/// Serves process events to whoever subscribes.
#[derive(Debug)]
pub(crate) struct Watching {
    origin: Origin,
    /// Held while choices are compared, so that no two comparisons mix. Before `current`; `forest` and the service's are taken
    /// under it.
    comparing: Mutex<()>,
    /// Those who follow a group. Held for a look only: the realm tells of an attach under its own lock.
    followers: Mutex<Vec<Arc<Follower>>>,
    /// Wakes the thread that compares; none if there are no groups.
    look: OnceLock<SyncSender<()>>,
    /// The realm, if its tracker is told of processes: then it passes that on.
    told: OnceLock<Weak<Realm>>,
    /// The service that runs, or ran last. Held while one is started or subscribed to.
    current: Mutex<Option<Arc<Service>>>,
}

/// Whose subscriptions one counts among; the host's root's are not counted.
fn counted(account: Account) -> Option<u64> {
    match account {
        Account::Host => None,
        Account::User(uid) => Some(u64::from(uid.0)),
        // Behind all users.
        Account::Container(number) => Some(number | 1 << 63),
    }
}

/// What an attach means to those who follow groups by one service.
struct Move {
    service: Arc<Service>,
    out_of: Vec<SubscriberId>,
    into: Vec<SubscriberId>,
}

/// A subscription to groups.
#[derive(Debug)]
struct Follower {
    service: Weak<Service>,
    id: SubscriberId,
    groups: Vec<GroupId>,
}

impl Watching {
    /// Nothing runs yet.
    pub(crate) fn new(origin: Origin) -> Arc<Self> {
        Arc::new(Self {
            origin,
            comparing: Mutex::default(),
            followers: Mutex::default(),
            look: OnceLock::new(),
            told: OnceLock::new(),
            current: Mutex::default(),
        })
    }

    /// What the D-Bus front end needs.
    pub(crate) fn events(self: &Arc<Self>, realm: &Arc<Realm>) -> std::io::Result<Events> {
        self.follow_attaches(realm)?;
        if realm.tracked().is_some() {
            let _ = self.told.set(Arc::downgrade(realm));
        }
        let (watching, realm) = (Arc::clone(self), Arc::clone(realm));
        let subscribe = move |caller: &Caller, account: Account, scope: &Scope| {
            watching.subscribe(Some(&realm), caller, account, scope)
        };
        Ok(Events { subscribe: Box::new(subscribe) })
    }

    /// What the D-Bus front end needs where there is no realm.
    pub(crate) fn events_alone(self: Arc<Self>) -> Events {
        let subscribe = move |caller: &Caller, account: Account, scope: &Scope| {
            self.subscribe(None, caller, account, scope)
        };
        Events { subscribe: Box::new(subscribe) }
    }

    fn subscribe(
        &self,
        realm: Option<&Realm>,
        caller: &Caller,
        account: Account,
        scope: &Scope,
    ) -> Result<OwnedFd, Refusal> {
        let unseen = || Refusal::new(Errno::ESRCH, "the caller is not visible in the daemon's pid namespace");
        let task = caller.task.ok_or_else(unseen)?;
        let reader = Reader { process: Pid::new(task.get()).ok_or_else(unseen)?, account: counted(account) };
        match scope {
            Scope::All => self.choose(reader, &Choice::All).map(|(_, subscription)| subscription.socket),
            Scope::Subtree(pid) => {
                let root = root_of(task, *pid)?;
                self.choose(reader, &Choice::Subtree(root)).map(|(_, subscription)| subscription.socket)
            }
            Scope::Groups(groups) => {
                let no_groups = || Refusal::new(Errno::ENODEV, "this daemon has no groups");
                self.follow(realm.ok_or_else(no_groups)?, reader, groups.clone())
            }
        }
    }

    /// Subscribes to what `events` knows, starting a service if none runs.
    pub(crate) fn choose(
        &self,
        reader: Reader,
        choice: &Choice,
    ) -> Result<(Arc<Service>, Subscription), Refusal> {
        let mut current = lock(&self.current);
        loop {
            let service = match &*current {
                Some(service) if !service.is_over() => Arc::clone(service),
                _ => Arc::clone(current.insert(Arc::new(self.start()?))),
            };
            match service.subscribe(reader, choice) {
                Ok(subscription) => return Ok((service, subscription)),
                // The last subscriber went between the two.
                Err(SubscribeError::Over) if service.failure().is_none() => *current = None,
                Err(error) => return Err(refused(&error)),
            }
        }
    }

    fn start(&self) -> Result<Service, Refusal> {
        let failed = |error: StartError| Refusal::new(Errno::EIO, error);
        let service = match self.told.get().and_then(Weak::upgrade) {
            Some(realm) => {
                let asked = Arc::downgrade(&realm);
                let ask = move || asked.upgrade().iter().for_each(|realm| realm.take_in());
                let (service, feeder) = Service::start_fed(ask).map_err(failed)?;
                realm.feed(feeder);
                service
            }
            None => {
                let source = self.origin.source().map_err(StartError::from).map_err(failed)?;
                Service::start_while_wanted(source).map_err(failed)?
            }
        };
        if let Some(look) = self.look.get().cloned() {
            service.after_gaps(move || {
                let _ = look.try_send(());
            });
        }
        Ok(service)
    }

    fn follow(&self, realm: &Realm, reader: Reader, groups: Vec<GroupId>) -> Result<OwnedFd, Refusal> {
        let _comparing = lock(&self.comparing);
        let members: Vec<Pid> = Members::of(realm).below(&groups)?.into_iter().collect();
        let (service, Subscription { id, socket }) = self.choose(reader, &Choice::Chosen(members))?;
        let follower = Arc::new(Follower { service: Arc::downgrade(&service), id, groups });
        // From here on whoever is attached is let in.
        self.add(Arc::clone(&follower));
        // Those who came between the look and that: from now on children come by birth.
        follower.settle(&service, &Members::of(realm));
        Ok(socket)
    }

    /// One more follows a group, while `comparing` is held. Those who have left go: where nobody is ever attached, nothing else takes them
    /// out.
    fn add(&self, follower: Arc<Follower>) {
        self.retain(|other, service| service.has(other.id));
        lock(&self.followers).push(follower);
    }

    /// Takes out those who do not go on, while `comparing` is held: so nobody else comes or goes, and their list need not be held.
    fn retain(&self, goes_on: impl Fn(&Follower, &Service) -> bool) {
        let mut followers = lock(&self.followers).clone();
        followers.retain(|one| one.service.upgrade().is_some_and(|service| goes_on(one, &service)));
        *lock(&self.followers) = followers;
    }

    /// Lets whoever is attached into the choices of those who follow its group, and has a thread compare every follower's choice with its
    /// groups after each attach, and each gap. It sleeps until there is one.
    fn follow_attaches(self: &Arc<Self>, realm: &Arc<Realm>) -> std::io::Result<()> {
        // Any number of reasons to look are one: a full channel has it already.
        let (sender, told) = mpsc::sync_channel::<()>(1);
        let _ = self.look.set(sender.clone());
        let watching = Arc::downgrade(self);
        let for_watcher = Weak::clone(&watching);
        let for_thread = Arc::downgrade(realm);
        std::thread::Builder::new().name("followers".to_owned()).spawn(move || {
            while let (Ok(()), Some(watching), Some(realm)) =
                (told.recv(), watching.upgrade(), for_thread.upgrade())
            {
                let began = Instant::now();
                watching.settle_all(&realm);
                // Anybody may follow much, and somebody attach all the time.
                std::thread::sleep(began.elapsed() * REST);
            }
        })?;
        realm.watch_attaches(move |attach| {
            let Some(watching) = for_watcher.upgrade() else { return };
            match attach {
                Attach::Begins(process) => watching.expect(process),
                Attach::Done { process, groups } => {
                    if watching.attached(process, groups) {
                        let _ = sender.try_send(());
                    }
                }
            }
        });
        Ok(())
    }

    /// Those who follow a group, with their services.
    fn followers(&self) -> Vec<(Arc<Follower>, Arc<Service>)> {
        let followers = lock(&self.followers);
        let all = followers.iter().filter_map(|one| Some((Arc::clone(one), one.service.upgrade()?)));
        all.collect()
    }

    /// A process is about to be attached: what it does from now on is not lost to those who follow the group.
    fn expect(&self, process: HostPid) {
        let Some(pid) = Pid::new(process.get()) else { return };
        let mut services: Vec<Arc<Service>> =
            self.followers().into_iter().map(|(_, service)| service).collect();
        services.dedup_by(|one, other| Arc::ptr_eq(one, other));
        services.iter().for_each(|service| service.expect(pid));
    }

    /// A process was attached, and is in these groups now. Answers whether anybody follows a group.
    fn attached(&self, process: HostPid, groups: &dyn Fn() -> Vec<GroupId>) -> bool {
        let Some(pid) = Pid::new(process.get()) else { return false };
        let followers = self.followers();
        if followers.is_empty() {
            return false;
        }
        let groups = groups();
        let mut moves: Vec<Move> = Vec::new();
        for (follower, service) in followers {
            let at = moves.iter().position(|of| Arc::ptr_eq(&of.service, &service));
            let at = at.unwrap_or_else(|| {
                moves.push(Move { service, out_of: Vec::new(), into: Vec::new() });
                moves.len() - 1
            });
            match follower.groups.iter().any(|group| groups.contains(group)) {
                true => moves[at].into.push(follower.id),
                false => moves[at].out_of.push(follower.id),
            }
        }
        moves.iter().for_each(|Move { service, out_of, into }| service.moved(pid, out_of, into));
        true
    }

    fn settle_all(&self, realm: &Realm) {
        let _comparing = lock(&self.comparing);
        let members = Members::of(realm);
        self.retain(|follower, service| follower.settle(service, &members));
    }
}

impl Follower {
    /// Makes the choice what the groups' members are now. Answers whether the subscription goes on.
    fn settle(&self, service: &Service, members: &Members<'_>) -> bool {
        service.compare(self.id, |told| self.compare(service, members, &told.into_iter().collect()))
    }

    fn compare(&self, service: &Service, seen: &Members<'_>, told: &HashSet<Pid>) {
        let Ok(members) = seen.below(&self.groups) else { return };
        let newcomers: Vec<Pid> = members.difference(told).copied().collect();
        service.admit(self.id, &newcomers);
        for stranger in told.difference(&members) {
            let process = HostPid::new(stranger.get());
            // Who has ended is told of by its exit. A child that was born since the group was looked at is there.
            if process.and_then(|process| seen.realm.is_below(process, &self.groups)) == Some(false) {
                service.dismiss(self.id, *stranger);
            }
        }
    }
}

/// Who is in groups, each looked at once, however many follow it.
struct Members<'a> {
    realm: &'a Realm,
    found: RefCell<HashMap<GroupId, Vec<Pid>>>,
}

impl<'a> Members<'a> {
    fn of(realm: &'a Realm) -> Self {
        Self { realm, found: RefCell::default() }
    }

    /// Who is in any of the groups. One that is gone has nobody.
    fn below(&self, groups: &[GroupId]) -> Result<HashSet<Pid>, Refusal> {
        let mut found = self.found.borrow_mut();
        let mut all = HashSet::new();
        for group in groups {
            if !found.contains_key(group) {
                let members = match self.realm.processes_below(*group) {
                    Ok(members) => members,
                    Err(error) if error.errno() == Errno::ENODEV => Vec::new(),
                    Err(error) => return Err(Refusal::new(error.errno(), error)),
                };
                found.insert(*group, members.into_iter().filter_map(|one| Pid::new(one.get())).collect());
            }
            all.extend(found.get(group).into_iter().flatten());
        }
        Ok(all)
    }
}

/// The process that the caller means, 0 being itself.
fn root_of(caller: HostPid, pid: u32) -> Result<Pid, Refusal> {
    let no_process = || Refusal::new(Errno::ESRCH, format!("no process {pid}"));
    let process = match pinfold_model::Pid::new(pid) {
        None => Some(caller),
        Some(pid) => numbers_of(caller, pid)?.to_host(pid),
    };
    // A thread stands for its process.
    let process = Identity::of(process.ok_or_else(no_process)?).map_err(|_| no_process())?.process;
    Pid::new(process.get()).ok_or_else(no_process)
}

/// What the caller's numbers mean.
fn numbers_of(caller: HostPid, named: pinfold_model::Pid) -> Result<PidMap, Refusal> {
    PidMap::of(caller).map_err(|error| match error.errno() {
        // The reason has the daemon's number of the caller in it.
        errno @ (Errno::EACCES | Errno::EPERM) => {
            Refusal::new(errno, format!("which process is {named} to the caller, the daemon may not see"))
        }
        _ => Refusal::new(Errno::ESRCH, format!("no process {named}")),
    })
}

fn refused(error: &SubscribeError) -> Refusal {
    let errno = match error {
        SubscribeError::TooMany { .. } | SubscribeError::Full { .. } => Errno::ENOSPC,
        SubscribeError::Namespace(error) if error.is_denied() => Errno::EACCES,
        SubscribeError::Namespace(_) => Errno::ESRCH,
        SubscribeError::System(_) | SubscribeError::Over => Errno::EIO,
    };
    Refusal::new(errno, error)
}

/// What a panic leaves behind is no worse than what it found.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn an_outer_daemon_that_hangs_is_asked_once_however_many_come_and_go() {
        let dir = std::env::temp_dir().join(format!("pinfold-outside-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let hangs = UnixListener::bind(dir.join(wire::SOCKET)).unwrap();
        hangs.set_nonblocking(true).unwrap();
        let origin = Origin::outer(dir.clone());
        for _ in 0..5 {
            let source = origin.source().unwrap();
            assert!(!source.is_there());
        }
        let asked = std::iter::from_fn(|| hangs.accept().ok()).collect::<Vec<_>>();
        assert_eq!(asked.len(), 1);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn who_followed_a_group_and_left_is_forgotten_without_an_attach() {
        let watching = Watching::new(Origin::Machine);
        let service = Arc::new(Service::start(Source::polling(POLLING).unwrap()).unwrap());
        let own = Pid::new(std::process::id()).unwrap();
        let follow = || {
            let Subscription { id, socket } = service.subscribe(own, &Choice::Chosen(Vec::new())).unwrap();
            watching.add(Arc::new(Follower { service: Arc::downgrade(&service), id, groups: Vec::new() }));
            socket
        };
        for _ in 0..1000 {
            drop(follow());
        }
        while service.subscribers() > 0 {
            std::thread::yield_now();
        }
        let stays = follow();
        assert_eq!(lock(&watching.followers).len(), 1);
        let stays_too = follow();
        assert_eq!(lock(&watching.followers).len(), 2);
        drop((stays, stays_too));
    }

    /// Each follower waited for the thread by itself: a process that nobody has told of, or that has ended, is known to none of them.
    #[test]
    fn an_attach_has_what_has_happened_read_once_however_many_follow() {
        let watching = Watching::new(Origin::Machine);
        let (ask, asked) = mpsc::channel();
        let (service, _feeder) = Service::start_fed(move || ask.send(()).unwrap()).unwrap();
        let service = Arc::new(service);
        let own = Pid::new(std::process::id()).unwrap();
        let group = |number| GroupId::new(number).unwrap();
        let follow = |groups: Vec<GroupId>| {
            let Subscription { id, socket } = service.subscribe(own, &Choice::Chosen(Vec::new())).unwrap();
            watching.add(Arc::new(Follower { service: Arc::downgrade(&service), id, groups }));
            socket
        };
        let streams: Vec<_> = (0..100).map(|number| follow(vec![group(1 + number % 2)])).collect();
        let nobody = HostPid::new(u32::MAX >> 1).unwrap();
        assert!(watching.attached(nobody, &|| vec![group(1)]));
        assert_eq!(asked.try_iter().count(), 1);
        assert!(watching.attached(nobody, &|| vec![group(3)]));
        assert_eq!(asked.try_iter().count(), 0, "who goes is taken out as it is known");
        drop(streams);
    }
}
