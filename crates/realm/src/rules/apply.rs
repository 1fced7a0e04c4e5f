//! Following process events and moving whom the rules move.
//!
//! A process is moved as by root's write to `cgroup.procs`, but never by its number alone: it is held by a descriptor before it is looked
//! at, its start time must be that of the process that the event is about, and the attach is refused once it has ended.

use std::cell::LazyCell;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pinfold_events::proc::now;
use pinfold_events::{Comm, Event, Next, Pid, Process, Started, Stream, StreamError, Time, What};
use pinfold_kernel::executable::{self, Place};
use pinfold_kernel::process::{self, Namespace, NamespaceId, Pinned};
use pinfold_model::{GroupId, HierarchyId, HostPid, Seat};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use super::programs::{Answer, Programs};
use super::table::{Home, Rules, Subject, Target};
use crate::error::chain;
use crate::realm::own;
use crate::{AttachError, Caller, FrontEnd, LookupError, MakeError, Node, Realm, XattrError};

/// What the classifier should do next, told from another thread while it waits for events.
#[derive(Debug)]
pub struct Rulebook {
    next: Mutex<Option<Order>>,
    /// Whether there is one: looked at after each event, however many more there are.
    is_told: AtomicBool,
    wake: OwnedFd,
    stopping: Condvar,
}

#[derive(Debug)]
enum Order {
    Follow(Rules),
    Stop,
}

impl Rulebook {
    /// Nothing is told yet.
    pub fn new() -> Result<Self, Errno> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let stopping = Condvar::new();
        Ok(Self { next: Mutex::default(), is_told: AtomicBool::new(false), wake, stopping })
    }

    /// Has the classifier go on with these rules. No event is lost: those that come meanwhile wait in the stream.
    pub fn replace(&self, rules: Rules) {
        self.tell(Order::Follow(rules));
    }

    /// Has the classifier end.
    pub fn stop(&self) {
        self.tell(Order::Stop);
    }

    /// Waits until the classifier is told to end, but not longer than that. Answers whether it was.
    pub fn is_stopped_within(&self, patience: Duration) -> bool {
        let next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let goes_on = |next: &mut Option<Order>| !matches!(next, Some(Order::Stop));
        let waited = self.stopping.wait_timeout_while(next, patience, goes_on);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    fn tell(&self, order: Order) {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*next, Some(Order::Stop)) {
            *next = Some(order);
        }
        self.is_told.store(true, Ordering::SeqCst);
        self.stopping.notify_all();
        // A counter that is full wakes as well.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    fn take(&self) -> Option<Order> {
        self.is_told.store(false, Ordering::SeqCst);
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        self.next.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Why a classifier has ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to.
    Stopped,
    /// The stream of events has ended: with another one it can go on.
    OutOfEvents,
}

/// Puts processes where the rules say.
pub struct Classifier {
    realm: Arc<Realm>,
    rules: Rules,
    known: HashMap<Started, Known>,
    /// Namespaces to which a rule has given groups, while any of their processes are known.
    settled: HashMap<NamespaceId, Settled>,
    /// What went wrong already: each is told once, until there are other rules.
    told: HashSet<String>,
    /// Whether something was lost and is not known yet.
    is_in_gap: bool,
    /// Of whose programs it is not known yet whether they are where their paths say.
    programs: Programs<(Started, Reason)>,
}

/// How many different failures are remembered.
const MOST_TOLD: usize = 256;

/// A namespace whose first process a rule has moved.
struct Settled {
    first: Started,
    kind: Namespace,
    /// `None`: the present rules say nothing of it.
    home: Option<Home>,
    portrait: Portrait,
    /// Events are read later than they happen: of its processes some are known when all have gone, and another namespace would have
    /// its number.
    _open: OwnedFd,
    /// How many of its processes are known.
    members: usize,
}

/// What the first process of a namespace was like when a rule decided where it goes: it may have ended when other rules are asked.
#[derive(Clone)]
struct Portrait {
    process: u32,
    uid: u32,
    gid: u32,
    comm: Comm,
    /// Empty if no rule named the program: whether it was the file of that path is not known then.
    exe: Vec<u8>,
    begun: Vec<Namespace>,
}

impl Portrait {
    fn subject<'a>(&'a self, homes: &'a [Home]) -> Subject<'a> {
        let Self { process, uid, gid, comm, exe, begun } = self;
        let (process, uid, gid, comm) = (*process, *uid, *gid, comm.as_bytes());
        Subject { process, uid, gid, comm, exe, new_namespaces: begun, homes }
    }

    /// Where these rules have the processes of its namespace of a kind go.
    fn home(&self, rules: &Rules, kind: Namespace) -> Option<Home> {
        let targets = rules.decide(&self.subject(&[]), false);
        let line = targets.first()?.line;
        let paths = || targets.iter().map(|target| target.path.clone()).collect();
        rules.kinds_at(line).contains(&kind).then(|| Home { line, paths: paths() })
    }
}

/// What the namespaces of a process say of it.
#[derive(Default)]
struct Lodging {
    /// Those that began with it.
    begun: Vec<(Namespace, NamespaceId)>,
    /// Those in which it is one more.
    joined: Vec<NamespaceId>,
    /// All that it is in, the daemon's own too.
    all: Spaces,
}

/// The namespaces that somebody is in, of the kinds that rules ask about.
type Spaces = Vec<(Namespace, NamespaceId)>;

/// What a process is known by.
#[derive(Clone, Debug)]
struct Known {
    process: Process,
    parent: Option<Started>,
    comm: Comm,
    uid: Option<u32>,
    gid: Option<u32>,
    /// The path of the program that it, or who bore it, executed when the rules were asked; `None`: they were not.
    program: Option<Arc<[u8]>>,
    /// When a rule had moved it. A child that was born before may be where its parent was; all may, if it ended before it
    /// could be looked at.
    moved: Option<Time>,
    /// The settled namespaces among whose members it counts.
    member_of: Vec<NamespaceId>,
    /// Where it was when it was looked at last; before that, where who bore it was.
    seen_in: Spaces,
    /// Where who bore it was. Who has ended cannot be asked any more.
    born_in: Spaces,
}

/// Why a rule did not have its way with a process.
#[derive(Debug, thiserror::Error)]
enum ApplyError {
    #[error("no hierarchy has {0}")]
    NoHierarchy(String),
    #[error("{0} cannot be made")]
    Make(String, #[source] Box<MakeError>),
    #[error("{0} is a control file")]
    ControlFile(String),
    #[error("the process cannot be moved to {0}")]
    Attach(String, #[source] Box<AttachError>),
}

impl Classifier {
    /// Knows no process yet.
    pub fn new(realm: Arc<Realm>, rules: Rules) -> Self {
        Self {
            realm,
            rules,
            known: HashMap::new(),
            settled: HashMap::new(),
            told: HashSet::new(),
            is_in_gap: false,
            programs: Programs::new(),
        }
    }

    /// Follows a stream of everything, from its beginning.
    pub fn follow(&mut self, mut stream: Stream, book: &Rulebook) -> Result<Ended, StreamError> {
        self.known.clear();
        self.is_in_gap = false;
        self.programs.forget(|_| true);
        // Their processes are listed again.
        self.settled.values_mut().for_each(|settled| settled.members = 0);
        loop {
            if book.is_told.load(Ordering::SeqCst) {
                match book.take() {
                    Some(Order::Follow(rules)) => self.adopt(rules, book),
                    Some(Order::Stop) => return Ok(Ended::Stopped),
                    None => {}
                }
            }
            self.resume();
            match stream.try_next()? {
                Next::Event(event) => {
                    self.feed(&event);
                    continue;
                }
                Next::End => return Ok(Ended::OutOfEvents),
                Next::Nothing => {}
            }
            let mut wait = vec![PollFd::new(&stream, PollFlags::IN), PollFd::new(&book.wake, PollFlags::IN)];
            wait.extend(self.programs.descriptors().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
            let patience = self.programs.patience(Instant::now());
            match poll(&mut wait, patience.and_then(|patience| Timespec::try_from(patience).ok()).as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(StreamError::Socket(errno)),
            }
        }
    }

    /// Goes on with those of whose programs it is known now where they are; parents first.
    fn resume(&mut self) {
        if self.programs.is_idle() {
            return;
        }
        let answers = self.programs.take_answers(Instant::now());
        let all = answers.iter().flat_map(|answer| answer.waited.iter().map(move |who| (*who, answer)));
        let mut all: Vec<((Started, Reason), &Answer<_>)> = all.collect();
        all.sort_by_key(|((started, _), _)| *started);
        for ((started, reason), Answer { path, place, .. }) in all {
            self.classify_knowing(started, reason, Some((path, *place)));
        }
    }

    /// Other rules: they are asked about everybody, as at the start, until there are others again.
    fn adopt(&mut self, rules: Rules, book: &Rulebook) {
        tracing::info!("{} rules from now on", rules.len());
        self.rules = rules;
        self.told.clear();
        for settled in self.settled.values_mut() {
            settled.home = settled.portrait.home(&self.rules, settled.kind);
        }
        let mut all: Vec<Started> = self.known.keys().copied().collect();
        // The first process of a namespace before those that follow it.
        all.sort_unstable();
        for started in all {
            if book.is_told.load(Ordering::SeqCst) {
                return;
            }
            self.classify(started, Reason::Changed);
        }
    }

    /// Takes notice of an event, and moves whom it concerns.
    fn feed(&mut self, event: &Event) {
        match event.what {
            What::Found { process, parent, comm, uid, gid } => {
                self.learn(process, parent, comm, uid.map(|ids| ids.effective), gid.map(|ids| ids.effective));
                self.classify(process.started, Reason::Changed);
            }
            What::Fork { process, parent, comm, uid, gid } => {
                self.learn(process, parent, comm, uid.map(|ids| ids.effective), gid.map(|ids| ids.effective));
                // A child is born where its parent is. If that was moved since, or may be yet, the child is not where it belongs.
                let is_late = parent.is_some_and(|Process { started, .. }| {
                    let moved = self.known.get(&started).and_then(|parent| parent.moved);
                    moved.is_some_and(|moved| moved >= event.time)
                        || self.programs.is_waiting(|(who, _)| *who == started)
                });
                self.classify(process.started, if is_late { Reason::Changed } else { Reason::Born });
            }
            What::Exec { process, comm } => self.change(process, |known| known.comm = comm),
            What::Uid { process, ids } => self.change(process, |known| known.uid = Some(ids.effective)),
            What::Gid { process, ids } => self.change(process, |known| known.gid = Some(ids.effective)),
            What::Comm { process, comm } => {
                let Some(known) = self.known.get_mut(&process.started) else { return };
                known.comm = comm;
                // A new name alone moves nobody. But where nobody tells of an exec, in a gap or from /proc, it is all that is told of one.
                if self.executes_another(process.started) {
                    self.classify(process.started, Reason::Changed);
                }
            }
            What::Exit { process, .. } | What::Left { process } => {
                let gone = self.known.remove(&process.started);
                gone.into_iter().flat_map(|known| known.member_of).for_each(|id| self.leave(id));
            }
            What::Synced { .. } => {
                // Nobody is left in a namespace of an earlier stream.
                self.settled.retain(|_, settled| settled.members > 0);
                if std::mem::take(&mut self.is_in_gap) {
                    self.look_for_execs();
                }
            }
            What::Gap => self.is_in_gap = true,
            What::Sid { .. } => {}
        }
    }

    fn learn(
        &mut self,
        process: Process,
        parent: Option<Process>,
        comm: Comm,
        uid: Option<u32>,
        gid: Option<u32>,
    ) {
        let parent = parent.map(|parent| parent.started);
        // It is born into its parent's namespaces.
        let of_parent = parent.and_then(|parent| self.known.get(&parent));
        let member_of = of_parent.map(|known| known.member_of.clone()).unwrap_or_default();
        let program = of_parent.and_then(|known| known.program.clone());
        let born_in = of_parent.map(|known| known.seen_in.clone()).unwrap_or_default();
        let seen_in = born_in.clone();
        for id in &member_of {
            self.settled.entry(*id).and_modify(|settled| settled.members += 1);
        }
        let known =
            Known { process, parent, comm, uid, gid, program, moved: None, member_of, seen_in, born_in };
        self.known.insert(process.started, known);
    }

    /// Nobody tells of an exec that was lost if the new program has the old one's name.
    fn look_for_execs(&mut self) {
        let mut all: Vec<Started> = match self.rules.is_empty() {
            true => Vec::new(),
            false => self.known.keys().copied().collect(),
        };
        // The first process of a namespace before those that follow it.
        all.sort_unstable();
        for started in all {
            if self.executes_another(started) {
                self.classify(started, Reason::Changed);
            }
        }
    }

    /// Whether a process has another program than when the rules were asked about it.
    fn executes_another(&self, started: Started) -> bool {
        let Some((known, before)) =
            self.known.get(&started).and_then(|known| Some((known, known.program.as_deref()?)))
        else {
            return false;
        };
        let exe = hold(known).and_then(|held| executable::path_of(held.process()).ok()?);
        exe.is_some_and(|exe| exe != before)
    }

    fn join(&mut self, started: Started, id: NamespaceId) {
        let (Some(known), Some(settled)) = (self.known.get_mut(&started), self.settled.get_mut(&id)) else {
            return;
        };
        if !known.member_of.contains(&id) {
            known.member_of.push(id);
            settled.members += 1;
        }
    }

    fn leave(&mut self, id: NamespaceId) {
        if let Some(settled) = self.settled.get_mut(&id) {
            settled.members -= 1;
            if settled.members == 0 {
                self.settled.remove(&id);
            }
        }
    }

    fn change(&mut self, process: Process, change: impl FnOnce(&mut Known)) {
        if let Some(known) = self.known.get_mut(&process.started) {
            change(known);
            self.classify(process.started, Reason::Changed);
        }
    }

    /// Asks the rules about a process and does what they say.
    fn classify(&mut self, started: Started, reason: Reason) {
        self.programs.forget(|(who, _)| *who == started);
        self.classify_knowing(started, reason, None);
    }

    /// Knowing what is at a path, if it was asked for.
    fn classify_knowing(&mut self, started: Started, reason: Reason, at: Option<(&[u8], Place)>) {
        let kinds = self.rules.namespaces();
        if self.rules.is_empty() || (reason == Reason::Born && kinds.is_empty()) {
            return;
        }
        let Some(known) = self.known.get(&started).cloned() else { return };
        // Kernel threads have no program, and stay where they are; a zombie has none either.
        let held = hold(&known).and_then(|held| {
            let exe = executable::path_of(held.process()).ok()??;
            Some((held, exe))
        });
        let Some((held, mut exe)) = held else {
            if reason == Reason::Changed
                && let Some(known) = self.known.get_mut(&started)
            {
                known.moved = Some(Time(u64::MAX));
            }
            return;
        };
        if let Some(known) = self.known.get_mut(&started)
            && known.program.as_deref() != Some(&exe)
        {
            known.program = Some(exe.as_slice().into());
        }
        let (Some(uid), Some(gid)) = (known.uid, known.gid) else { return };
        // Only where it matters: what others have at that path may be slow to tell.
        let is_named = self.rules.name_program(&exe);
        if is_named {
            let place = match at.filter(|(path, _)| *path == exe) {
                Some((_, place)) => place,
                None => self.programs.place(&exe, uid, (started, reason)),
            };
            match place {
                Place::Holds(file) if executable::file_of(held.process()) == Some(file) => {}
                Place::Holds(_) | Place::Empty => exe.clear(),
                Place::Unknown => return,
            }
        }
        let mut lodging = self.lodging(&known, held.process(), &kinds, reason);
        if let Some(known) = self.known.get_mut(&started) {
            known.seen_in = std::mem::take(&mut lodging.all);
        }
        lodging.joined.iter().for_each(|id| self.join(started, *id));
        let homes = lodging.joined.iter().filter_map(|id| self.settled.get(id)?.home.clone());
        let homes: Vec<Home> = homes.collect();
        let begun = lodging.begun.iter().map(|(kind, _)| *kind).collect();
        let mut portrait = Portrait { process: held.process().get(), uid, gid, comm: known.comm, exe, begun };
        let mut failures = Vec::new();
        let mut has_moved = false;
        let targets = self.rules.decide(&portrait.subject(&homes), reason == Reason::Born);
        let decided = targets.first().map(|target| target.line);
        let paths: Vec<_> = targets.iter().map(|target| target.path.clone()).collect();
        for target in targets {
            match self.apply(&held, &target) {
                Ok(moved) => has_moved |= moved,
                // Short lives end before they are moved.
                Err(ApplyError::Attach(..)) if held.verify().is_err() => {}
                Err(error) => failures.push((target.line, error)),
            }
        }
        if has_moved && let Some(known) = self.known.get_mut(&started) {
            known.moved = Some(now());
        }
        if let Some(line) = decided.filter(|_| !lodging.begun.is_empty()) {
            if !is_named {
                portrait.exe.clear();
            }
            self.settle(started, held.process(), &lodging.begun, &Home { line, paths }, &portrait);
        }
        for (line, error) in failures {
            let text = format!("the rule at line {line}: {}", chain(&error));
            if self.told.len() < MOST_TOLD && !self.told.contains(&text) {
                tracing::warn!("{text}");
                self.told.insert(text);
            }
        }
    }

    /// What namespaces of these kinds say of a process. The daemon's own say nothing, and to who is just born into its
    /// parent's they do not either: it is where its parent is.
    fn lodging(&self, known: &Known, process: HostPid, kinds: &[Namespace], reason: Reason) -> Lodging {
        let parent = known.parent.and_then(|parent| self.known.get(&parent));
        let parent = LazyCell::new(|| parent.and_then(hold));
        let mut lodging = Lodging::default();
        for kind in kinds {
            let Ok(id) = process::namespace(process, *kind) else { continue };
            lodging.all.push((*kind, id));
            if process::own_namespace(*kind).is_ok_and(|own| own == id) {
                continue;
            }
            let is_parents = || {
                let there = |parent: &Pinned| process::namespace(parent.process(), *kind).ok();
                let before = || known.born_in.iter().find(|(of, _)| of == kind).map(|(_, id)| *id);
                // It may have ended, as whoever has a child for a daemon does at once.
                parent.as_ref().and_then(there).or_else(before).is_none_or(|of| of == id)
            };
            let settled = self.settled.get(&id);
            let is_first = match (settled, kind) {
                (Some(settled), _) => settled.first == known.process.started,
                (None, Namespace::Pid) => is_init(process),
                (None, _) => !is_parents(),
            };
            if is_first {
                lodging.begun.push((*kind, id));
            } else if settled.is_some() && (reason == Reason::Changed || !is_parents()) {
                lodging.joined.push(id);
            }
        }
        lodging
    }

    /// A rule has decided where the first process of namespaces goes: so it has for all that follow.
    fn settle(
        &mut self,
        first: Started,
        process: HostPid,
        begun: &[(Namespace, NamespaceId)],
        home: &Home,
        portrait: &Portrait,
    ) {
        let kinds = self.rules.kinds_at(home.line);
        for (kind, id) in begun.iter().filter(|(kind, _)| kinds.contains(kind)) {
            let (kind, home, portrait) = (*kind, Some(home.clone()), portrait.clone());
            match self.settled.entry(*id) {
                Entry::Occupied(mut settled) => {
                    let settled = settled.get_mut();
                    (settled.home, settled.portrait) = (home, portrait);
                }
                Entry::Vacant(entry) => match process::open_namespace(process, kind) {
                    Ok((open, found)) if found == *id => {
                        entry.insert(Settled { first, kind, home, portrait, _open: open, members: 0 });
                    }
                    // It has ended, or has gone to another.
                    _ => continue,
                },
            }
            self.join(first, *id);
        }
    }

    /// Moves a process to a group in every hierarchy meant, making the group. Answers whether it was elsewhere in any.
    fn apply(&self, held: &Pinned, target: &Target<'_>) -> Result<bool, ApplyError> {
        let process = held.process();
        let Ok(place) = self.realm.tracker.membership(process) else { return Ok(false) };
        if !self.realm.tracker.covers(&place) {
            return Ok(false);
        }
        // Asked for again only where it was moved since: the kernel answers under the lock that migrations take.
        let mut known = Some(self.realm.seat_at(process, place));
        let mut has_moved = false;
        for hierarchy in self.hierarchies(target.hierarchies)? {
            let Some(group) = self.find_or_make(hierarchy, target)? else { continue };
            let Some(seat) = known.take().or_else(|| self.realm.seat_of(process)) else {
                self.realm.remove_if_nobody_came(group);
                break;
            };
            if self.is_in(&seat, hierarchy, group) {
                known = Some(seat);
                continue;
            }
            if let Err(error) = self.realm.attach_held(&root(), group, held) {
                // It may have been made for who has ended by now.
                self.realm.remove_if_nobody_came(group);
                return Err(ApplyError::Attach(shown(&target.path), Box::new(error)));
            }
            has_moved = true;
        }
        Ok(has_moved)
    }

    fn hierarchies(&self, wanted: &[String]) -> Result<Vec<HierarchyId>, ApplyError> {
        let all = self.realm.hierarchies();
        if wanted.is_empty() {
            return Ok(all.into_iter().map(|hierarchy| hierarchy.id).collect());
        }
        let mut found = Vec::new();
        for name in wanted {
            let has = all.iter().find(|hierarchy| hierarchy.label.split(',').any(|word| word == name));
            let id = has.ok_or_else(|| ApplyError::NoHierarchy(name.clone()))?.id;
            if !found.contains(&id) {
                found.push(id);
            }
        }
        Ok(found)
    }

    /// The group at a path; `None` if the hierarchy goes meanwhile.
    fn find_or_make(
        &self,
        hierarchy: HierarchyId,
        target: &Target<'_>,
    ) -> Result<Option<GroupId>, ApplyError> {
        let Some(mut at) = self.realm.root(hierarchy) else { return Ok(None) };
        for depth in 0..target.path.len() {
            match self.find_or_make_in(at, target, depth) {
                Ok(Some(group)) => at = group,
                refused_or_gone => {
                    self.realm.remove_if_nobody_came(at);
                    return refused_or_gone;
                }
            }
        }
        Ok(Some(at))
    }

    /// The group of one of the names of a path, in the one above.
    fn find_or_make_in(
        &self,
        above: GroupId,
        target: &Target<'_>,
        depth: usize,
    ) -> Result<Option<GroupId>, ApplyError> {
        const MODE: u16 = 0o755;
        let here = || shown(&target.path[..=depth]);
        let name = OsStr::from_bytes(&target.path[depth]);
        match self.realm.lookup(above, name) {
            Ok(Node::Group(group)) => return Ok(Some(group)),
            Ok(Node::File(..)) => return Err(ApplyError::ControlFile(here())),
            Err(LookupError::Gone(_)) => return Ok(None),
            Err(LookupError::NotFound(_)) => {}
        }
        let made = self.realm.make(&root(), above, name, MODE);
        let made = made.map_err(|error| ApplyError::Make(here(), Box::new(error)))?;
        if target.own_from.is_some_and(|from| depth >= from)
            && let Err(error) = self.remove_on_empty(made)
        {
            tracing::warn!("{} stays when it is empty: {}", here(), chain(&error));
        }
        Ok(Some(made))
    }

    fn remove_on_empty(&self, group: GroupId) -> Result<(), XattrError> {
        let change = self.realm.begin_change()?;
        self.realm.set_remove_on_empty(&change, group)
    }

    fn is_in(&self, seat: &Seat, hierarchy: HierarchyId, group: GroupId) -> bool {
        match seat {
            Seat::Cell(cell) => {
                let forest = self.realm.lock_forest();
                let root = forest.hierarchy(hierarchy).map(|found| found.root());
                forest.group_of(*cell, hierarchy).or(root) == Some(group)
            }
            Seat::Outside(_) => self.realm.root(hierarchy) == Some(group),
        }
    }
}

/// Why the rules are asked about a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reason {
    /// It, or its place, is not what it was.
    Changed,
    /// It is its parent's child, in its parent's group: only a new namespace makes a difference.
    Born,
}

/// Whether a process is the first of its pid namespace, which ends with it.
fn is_init(process: HostPid) -> bool {
    process::Identity::of(process).is_ok_and(|identity| matches!(identity.numbers[..], [_, .., 1]))
}

/// Holds the process that an event was about; `None`: it has ended.
fn hold(known: &Known) -> Option<Pinned> {
    let held = Pinned::of_process(host(known.process)?).ok()?;
    let ticks = process::start_time(held.process()).ok()?;
    known.process.started.may_be(ticks).then_some(held)
}

fn host(process: Process) -> Option<HostPid> {
    process.pid.map(Pid::get).and_then(HostPid::new)
}

/// The daemon, with root's rights or its own user's.
fn root() -> Caller {
    let owner = own(0);
    Caller { uid: owner.uid, gid: owner.gid, task: Some(process::own_pid()), via: FrontEnd::NONE }
}

fn shown(path: &[Vec<u8>]) -> String {
    path.iter().map(|name| format!("/{}", String::from_utf8_lossy(name).escape_debug())).collect()
}
