//! Any number of subscribers, each with its scope: who is told what, in whose numbers. Pure but for the questions that it asks
//! through [`Namespaces`].
//!
//! A process carries the list of the subscribers that are told of it. A child inherits the list at its fork, so an event costs
//! as much as there are subscribers that it concerns, however many others there are.
//!
//! What a subscriber is told is written at once, into a queue of bounded length. When that is full, the subscriber gets a gap, and nothing
//! until it has read all: then the difference between what it was told and what is. So nobody waits for a slow
//! reader, and it costs no more than what it was told of; when that is too much to remember, its stream ends.

mod choosing;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::event::{Event, Pid, Process, Started, Time, What};
use crate::namespace::{IdMap, NamespaceId, Namespaces};
use crate::subscriber::{Comparison, Counts, Reach, Remembered, State, Subscriber, View};
use crate::wire;

use choosing::{Awaited, Ended, Expected};

/// How many bytes wait for a subscriber at most, unless told otherwise; what the socket holds comes on top.
pub const QUEUE: usize = 256 * 1024;
/// Of how many processes it is remembered what a slow reader was told, unless told otherwise: about 150 bytes
/// each, since a table of that many has as much room again.
pub const REMEMBERED: usize = 16 * 1024;
/// How many subscribers that have left may still be in the lists of processes. Then all lists are gone through.
const MOST_GONE: usize = 64;
/// From how many foreign namespaces on one asks first whether a child is in another one than its parent.
const MANY_VIEWS: usize = 2;

/// What a subscriber wants to be told of; never more than is visible in its pid namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Scope {
    /// Everything.
    All,
    /// A process and its descendants: those whose ancestors live now, and all that are born. Of those that are born while something
    /// is lost, to a parent that ends before that is over, only whose session one of them leads: the kernel remembers no
    /// grandparents.
    Subtree(Pid),
    /// Chosen processes, and all that are born to them until they are dismissed. What a group is, the caller knows.
    Chosen(Vec<Pid>),
}

impl Scope {
    /// The processes that it names.
    pub fn named(&self) -> &[Pid] {
        match self {
            Self::All => &[],
            Self::Subtree(root) => std::slice::from_ref(root),
            Self::Chosen(pids) => pids,
        }
    }

    const fn reach(&self) -> Reach {
        match self {
            Self::All => Reach::All,
            Self::Subtree(_) => Reach::Subtree,
            Self::Chosen(_) => Reach::Chosen,
        }
    }
}

/// Who subscribes, as far as it matters here.
#[derive(Clone, Debug)]
pub struct Audience {
    /// Its pid namespace; `None` if that is the daemon's.
    pub namespace: Option<NamespaceId>,
    /// The numbers of users in its user namespace.
    pub users: IdMap,
    /// The numbers of groups in its user namespace.
    pub groups: IdMap,
    /// How many bytes may wait for it.
    pub queue: usize,
    /// Of how many processes it may be remembered what it was told, while it does not read.
    pub remembered: usize,
}

impl Audience {
    /// In the same namespaces as the daemon.
    pub fn same() -> Self {
        let (users, groups) = (IdMap::same(), IdMap::same());
        Self { namespace: None, users, groups, queue: QUEUE, remembered: REMEMBERED }
    }
}

/// Names a subscriber.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SubscriberId(u32);

impl SubscriberId {
    /// The number, for tables of file descriptors.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The subscriber with this number, if there is one.
    pub const fn new(number: u32) -> Self {
        Self(number)
    }
}

/// Who is told of a process. Shared by all processes that the same ones are told of.
type Told = Arc<[SubscriberId]>;

/// The hub.
#[derive(Default, Debug)]
pub struct Hub {
    processes: HashMap<Started, Member>,
    by_pid: HashMap<Pid, Started>,
    views: HashMap<NamespaceId, View>,
    subscribers: HashMap<SubscriberId, Subscriber>,
    /// Who is waited for by number: processes that are there, and that the source has not told of yet.
    awaited: HashMap<Pid, Vec<Awaited>>,
    /// Who is about to be admitted.
    expected: Option<Expected>,
    next: u32,
    ready: Vec<SubscriberId>,
    /// Those of whom it cannot be remembered what they were told.
    given_up: Vec<SubscriberId>,
    /// How many have left, and may be in the lists of processes still.
    gone: usize,
    phase: Phase,
    /// Whether the caller compares choices after gaps.
    compares: bool,
}

/// How much is known.
#[derive(Debug)]
enum Phase {
    /// Something was lost, or nothing was listed yet: nobody is told that all is known before the source says so. Of those who ended
    /// since, by number, who was told of them.
    Incomplete(HashMap<Pid, Told>),
    /// Everything.
    Complete,
}

impl Default for Phase {
    fn default() -> Self {
        Self::Incomplete(HashMap::new())
    }
}

/// A living process.
#[derive(Clone, Debug)]
struct Member {
    process: Process,
    parent: Option<Process>,
    state: State,
    home: Option<NamespaceId>,
    /// The other namespaces that see it, as its number was asked for: it is asked once, and the answer holds while it lives. When it
    /// has ended, the answer may be another's.
    seen_from: Option<Box<[NamespaceId]>>,
    told: Told,
}

impl Hub {
    /// Nobody and nothing: what there is, the source has still to say.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many subscribers there are.
    pub fn subscribers(&self) -> usize {
        self.subscribers.len()
    }

    /// Whether a process is known by its number, the daemon's.
    pub fn knows(&self, pid: Pid) -> bool {
        self.by_pid.contains_key(&pid)
    }

    /// How many bytes wait for a subscriber.
    pub fn waiting(&self, subscriber: SubscriberId) -> usize {
        self.subscribers.get(&subscriber).map_or(0, |subscriber| subscriber.bytes)
    }

    /// Adds a subscriber. Its stream begins with the hello and with everything of its scope as found, now.
    pub fn subscribe(
        &mut self,
        audience: Audience,
        scope: &Scope,
        now: Time,
        namespaces: &mut impl Namespaces,
    ) -> SubscriberId {
        let id = SubscriberId(self.next);
        self.next += 1;
        if let Some(namespace) = audience.namespace {
            self.look_through(namespace, namespaces);
        }
        let is_seen = |started| audience.namespace.is_none_or(|id| is_visible(&self.views, id, started));
        let mut changed = HashMap::new();
        match self.chosen(scope, audience.namespace) {
            None => {
                let seen = self.processes.iter_mut().filter(|(started, _)| is_seen(**started));
                seen.for_each(|(_, member)| add(&mut member.told, id, &mut changed));
            }
            Some(chosen) => {
                for started in chosen.into_iter().filter(|started| is_seen(*started)) {
                    if let Some(member) = self.processes.get_mut(&started) {
                        add(&mut member.told, id, &mut changed);
                    }
                }
            }
        }
        let mut subscriber = Subscriber::new(audience, scope.reach(), now);
        subscriber.packets.push_back(wire::hello());
        subscriber.bytes = wire::hello().len();
        self.subscribers.insert(id, subscriber);
        scope.named().iter().for_each(|pid| self.await_process(id, *pid, now, namespaces));
        self.refill(id);
        self.make_ready(id);
        id
    }

    /// Removes a subscriber. Answers the namespace that nobody looks from any more.
    pub fn unsubscribe(&mut self, id: SubscriberId) -> Option<NamespaceId> {
        let gone = self.subscribers.remove(&id)?;
        self.stop_awaiting(|_, awaited| awaited.by == id);
        self.gone += 1;
        if self.gone >= MOST_GONE {
            self.sweep();
        }
        let namespace = gone.audience.namespace?;
        let view = self.views.get_mut(&namespace)?;
        view.subscribers -= 1;
        if view.subscribers > 0 {
            return None;
        }
        self.views.remove(&namespace);
        Some(namespace)
    }

    /// Takes those who have left out of the lists of processes: for many at once, since it looks at every process.
    fn sweep(&mut self) {
        self.gone = 0;
        let is_there = |id: &SubscriberId| self.subscribers.contains_key(id);
        let mut changed = HashMap::new();
        for member in self.processes.values_mut() {
            replace(&mut member.told, &mut changed, |old| {
                (!old.iter().all(is_there)).then(|| old.iter().copied().filter(is_there).collect())
            });
        }
    }

    /// Passes an event on to whom it concerns.
    pub fn deliver(&mut self, event: &Event, namespaces: &mut impl Namespaces) {
        match event.what {
            What::Found { process, parent, comm, uid, gid }
            | What::Fork { process, parent, comm, uid, gid } => {
                self.enter(process, parent, State { comm, uid, gid, execs: 0 }, event, namespaces);
            }
            What::Exit { process, .. } | What::Left { process } => self.leave(process, event),
            What::Exec { process, comm } => self.change(process, event, |state| {
                state.comm = comm;
                state.execs = state.execs.wrapping_add(1);
            }),
            What::Uid { process, ids } => self.change(process, event, |state| state.uid = Some(ids)),
            What::Gid { process, ids } => self.change(process, event, |state| state.gid = Some(ids)),
            What::Comm { process, comm } => self.change(process, event, |state| state.comm = comm),
            What::Sid { process } => self.change(process, event, |_| ()),
            What::Gap | What::Synced { .. } => {
                self.phase = if event.what == What::Gap { Phase::default() } else { Phase::Complete };
                let compares = self.compares && event.what != What::Gap;
                let mut everybody = Vec::new();
                for (id, subscriber) in &mut self.subscribers {
                    let waits = compares && subscriber.reach == Reach::Chosen;
                    subscriber.comparison = if waits { Comparison::Due } else { Comparison::Done };
                    everybody.extend((!waits).then_some(*id));
                }
                everybody.into_iter().for_each(|id| self.tell(id, *event));
            }
        }
    }

    /// Those whose streams have to end: they do not read, and were told of more processes than may be remembered.
    pub fn take_given_up(&mut self) -> Vec<SubscriberId> {
        std::mem::take(&mut self.given_up)
    }

    /// Those for whom there is something to send that nobody was told of yet.
    pub fn take_ready(&mut self) -> Vec<SubscriberId> {
        let ready = std::mem::take(&mut self.ready);
        for id in &ready {
            if let Some(subscriber) = self.subscribers.get_mut(id) {
                subscriber.is_ready = false;
            }
        }
        ready
    }

    /// The next packet for a subscriber; `None`: it has everything.
    pub fn front(&mut self, id: SubscriberId) -> Option<&[u8]> {
        if self.subscribers.get(&id)?.packets.is_empty() {
            self.refill(id);
        }
        self.subscribers.get(&id)?.packets.front().map(Vec::as_slice)
    }

    /// The packet at the front was sent.
    pub fn sent(&mut self, id: SubscriberId) {
        let Some(subscriber) = self.subscribers.get_mut(&id) else { return };
        if let Some(packet) = subscriber.packets.pop_front() {
            subscriber.bytes -= packet.len();
        }
    }

    /// The processes of a scope; `None` for all.
    fn chosen(&self, scope: &Scope, namespace: Option<NamespaceId>) -> Option<HashSet<Started>> {
        let visible = |pid: &Pid| {
            let started = *self.by_pid.get(pid)?;
            namespace.is_none_or(|id| is_visible(&self.views, id, started)).then_some(started)
        };
        match scope {
            Scope::All => None,
            Scope::Chosen(pids) => Some(pids.iter().filter_map(visible).collect()),
            Scope::Subtree(root) => Some(visible(root).map_or_else(HashSet::new, |root| self.below(root))),
        }
    }

    fn below(&self, root: Started) -> HashSet<Started> {
        let mut children: HashMap<Started, Vec<Started>> = HashMap::new();
        for (started, member) in &self.processes {
            if let Some(parent) = member.parent {
                children.entry(parent.started).or_default().push(*started);
            }
        }
        let mut found = HashSet::from([root]);
        let mut next = vec![root];
        while let Some(started) = next.pop() {
            for child in children.remove(&started).unwrap_or_default() {
                if found.insert(child) {
                    next.push(child);
                }
            }
        }
        found
    }

    /// Learns the numbers of all processes in a namespace from which nobody looked before. Anybody can come from as many as he
    /// likes: so of each process it is asked once which ones see it, and of those that see it what its number is.
    fn look_through(&mut self, id: NamespaceId, namespaces: &mut impl Namespaces) {
        let view = self.views.entry(id).or_default();
        view.subscribers += 1;
        if view.subscribers > 1 {
            return;
        }
        for (started, member) in &mut self.processes {
            let Some(pid) = member.process.pid else { continue };
            if member.seen_from.is_none() {
                member.seen_from = namespaces.seen_from(pid);
            }
            if member.seen_from.as_ref().is_some_and(|all| !all.contains(&id)) {
                continue;
            }
            let number = namespaces.number(id, pid);
            if number.is_some() && namespaces.may_be(member.process) {
                view.numbers.insert(*started, number);
            }
        }
    }

    /// A process is there that was not.
    fn enter(
        &mut self,
        process: Process,
        parent: Option<Process>,
        state: State,
        event: &Event,
        namespaces: &mut impl Namespaces,
    ) {
        let known_parent = parent.and_then(|parent| self.processes.get(&parent.started));
        let (told, parent_home) = match known_parent {
            Some(parent) => (Arc::clone(&parent.told), parent.home),
            None => (self.told_of_everything(), None),
        };
        let mut member = Member { process, parent, state, home: None, seen_from: None, told };
        if !self.views.is_empty() {
            let is_born = matches!(event.what, What::Fork { .. });
            self.number(&mut member, known_parent.is_some(), parent_home, is_born, namespaces);
        }
        if let What::Found { .. } = event.what {
            self.adopt(&mut member, namespaces);
        }
        self.receive(&mut member);
        let told = Arc::clone(&member.told);
        self.processes.insert(process.started, member);
        if let Some(pid) = process.pid {
            self.by_pid.insert(pid, process.started);
        }
        told.iter().for_each(|id| self.tell(*id, *event));
    }

    /// A newcomer may have been named before it was told of.
    fn receive(&mut self, member: &mut Member) {
        if self.awaited.is_empty() {
            return;
        }
        let by_all = member.process.pid.and_then(|pid| self.awaited.remove(&pid));
        let started = member.process.started;
        for awaited in by_all.into_iter().flatten().filter(|awaited| started.is_told_soon(awaited.ticks)) {
            self.let_in(member, awaited.by);
        }
    }

    /// Who was born while something was lost, to a parent that ended in that time too, has another parent by now. But a session is
    /// left to children by birth alone: whoever is in one descends from its leader, and belongs where that one does.
    fn adopt(&self, member: &mut Member, namespaces: &mut impl Namespaces) {
        let Phase::Incomplete(ended) = &self.phase else { return };
        let is_of_tree =
            |id: &SubscriberId| self.subscribers.get(id).is_some_and(|s| s.reach == Reach::Subtree);
        let Some(pid) = member.process.pid.filter(|_| self.subscribers.keys().any(is_of_tree)) else {
            return;
        };
        let Some(session) = namespaces.session(pid).filter(|session| *session != pid) else { return };
        // A number that names a session is nobody else's; the process's own may be by now.
        if !namespaces.may_be(member.process) {
            return;
        }
        let leader = self.by_pid.get(&session).and_then(|started| self.processes.get(started));
        let Some(told) = leader.map(|leader| &leader.told).or_else(|| ended.get(&session)) else { return };
        for id in told.iter().filter(|id| is_of_tree(id)) {
            self.let_in(member, *id);
        }
    }

    /// A subscriber is told of a newcomer, if it can see it.
    fn let_in(&self, member: &mut Member, id: SubscriberId) {
        let Some(namespace) = self.subscribers.get(&id).map(|subscriber| subscriber.audience.namespace)
        else {
            return;
        };
        if namespace.is_none_or(|namespace| is_visible(&self.views, namespace, member.process.started)) {
            add(&mut member.told, id, &mut HashMap::new());
        }
    }

    /// The subscribers in the daemon's own namespace that want everything.
    fn told_of_everything(&self) -> Told {
        let all = self.subscribers.iter();
        let all = all.filter(|(_, s)| s.reach == Reach::All && s.audience.namespace.is_none());
        let mut all: Vec<SubscriberId> = all.map(|(id, _)| *id).collect();
        all.sort_unstable();
        all.into()
    }

    /// Learns a new process's numbers in the other namespaces. A child is visible wherever its parent is; where its parent
    /// is not, it may be if the parent entered that namespace by setns(2).
    fn number(
        &mut self,
        member: &mut Member,
        has_parent: bool,
        parent_home: Option<NamespaceId>,
        is_born: bool,
        namespaces: &mut impl Namespaces,
    ) {
        let started = member.process.started;
        let parent = member.parent.map(|parent| parent.started);
        let many = self.views.len() > MANY_VIEWS;
        let home = member.process.pid.filter(|_| many).and_then(|pid| namespaces.home(pid));
        // Another's home would be taken for its parent's by all whom it bears.
        member.home = home.filter(|_| namespaces.may_be(member.process));
        let stays = has_parent && member.home.is_some() && member.home == parent_home;
        for (id, view) in &mut self.views {
            let is_inherited = parent.is_some_and(|parent| view.numbers.contains_key(&parent));
            if !is_inherited && stays {
                continue;
            }
            let number = member.process.pid.and_then(|pid| namespaces.number(*id, pid));
            // Somebody else may have the number by now, in there: a container that leaves few free has them come round in a few forks.
            // An heir is in there for sure, and is not asked for at each fork; of who is not, a number is found only if it came from
            // outside, which is seldom.
            let number = number.filter(|_| match (is_inherited, is_born) {
                (true, _) => true,
                (false, true) => namespaces.is_child(member.process, member.parent),
                (false, false) => namespaces.may_be(member.process),
            });
            if is_inherited || number.is_some() {
                view.numbers.insert(started, number);
            }
            if !is_inherited && number.is_some() {
                let sees = |s: &Subscriber| s.reach == Reach::All && s.audience.namespace == Some(*id);
                let newly = self.subscribers.iter().filter(|(_, subscriber)| sees(subscriber));
                for (subscriber, _) in newly {
                    add(&mut member.told, *subscriber, &mut HashMap::new());
                }
            }
        }
    }

    fn change(&mut self, process: Process, event: &Event, change: impl FnOnce(&mut State)) {
        let Some(member) = self.processes.get_mut(&process.started) else { return };
        change(&mut member.state);
        let told = Arc::clone(&member.told);
        told.iter().for_each(|id| self.tell(*id, *event));
    }

    fn leave(&mut self, process: Process, event: &Event) {
        let numbers = self.expected_numbers(process);
        let Some(member) = self.end(process.started, event) else { return };
        let Some(pid) = member.process.pid else { return };
        if self.by_pid.get(&pid) == Some(&process.started) {
            self.by_pid.remove(&pid);
        }
        if let Phase::Incomplete(ended) = &mut self.phase {
            ended.insert(pid, Arc::clone(&member.told));
        }
        if let Some((expected, numbers)) = self.expected.as_mut().zip(numbers) {
            expected.ended = Some(Ended { member, numbers, exit: *event });
        }
    }

    /// A process is gone; whoever was told of it is told so.
    fn end(&mut self, started: Started, event: &Event) -> Option<Member> {
        let member = self.processes.remove(&started)?;
        member.told.iter().for_each(|id| self.tell(*id, *event));
        for view in self.views.values_mut() {
            view.numbers.remove(&started);
        }
        Some(member)
    }

    /// Queues an event for a subscriber.
    fn tell(&mut self, id: SubscriberId, event: Event) {
        let Some(subscriber) = self.subscribers.get_mut(&id) else { return };
        subscriber.time = subscriber.time.max(event.time);
        if subscriber.behind.is_some() {
            return;
        }
        let view = subscriber.audience.namespace.and_then(|id| self.views.get(&id));
        subscriber.queue(event, view);
        if subscriber.bytes > subscriber.audience.queue {
            subscriber.queue(Event { time: event.time, what: What::Gap }, None);
            let told = self.processes.iter().filter(|(_, member)| member.told.contains(&id));
            let told = told.map(|(started, member)| (*started, member.as_remembered(view)));
            subscriber.behind = Some(told.take(subscriber.audience.remembered + 1).collect());
            self.bound(id);
        }
        self.make_ready(id);
    }

    /// Gives up whom too much has to be remembered of.
    fn bound(&mut self, id: SubscriberId) {
        let Some(subscriber) = self.subscribers.get_mut(&id) else { return };
        if subscriber.behind.as_ref().is_some_and(|behind| behind.len() > subscriber.audience.remembered) {
            (subscriber.behind, subscriber.is_given_up) = (Some(HashMap::new()), true);
            self.given_up.push(id);
        }
    }

    fn make_ready(&mut self, id: SubscriberId) {
        let Some(subscriber) = self.subscribers.get_mut(&id) else { return };
        if !subscriber.is_ready {
            subscriber.is_ready = true;
            self.ready.push(id);
        }
    }

    /// Tells a subscriber that is behind and has read everything what changed meanwhile, as far as its queue allows.
    fn refill(&mut self, id: SubscriberId) {
        let behind = self.subscribers.get_mut(&id).filter(|s| !s.is_given_up).and_then(|s| s.behind.take());
        let Some(mut behind) = behind else { return };
        let difference = self.difference(id, &behind);
        let Some(subscriber) = self.subscribers.get_mut(&id) else { return };
        let view = subscriber.audience.namespace.and_then(|id| self.views.get(&id));
        let mut last = None;
        for (started, what) in difference {
            if subscriber.bytes > subscriber.audience.queue && last != Some(started) {
                // Whoever has read everything so far is not given up: it is told of no more than there is.
                subscriber.behind = Some(behind);
                return;
            }
            last = Some(started);
            let event = Event { time: subscriber.time, what };
            match self.processes.get(&started).filter(|member| member.told.contains(&id)) {
                Some(member) => {
                    subscriber.queue(event, view);
                    behind.insert(started, member.as_remembered(view));
                }
                None => {
                    // It has the subscriber's number: its own is forgotten.
                    subscriber.queue(event, None);
                    behind.remove(&started);
                }
            }
        }
        if matches!(self.phase, Phase::Complete) && subscriber.comparison == Comparison::Done {
            subscriber.queue(Event { time: subscriber.time, what: Counts::default().as_synced() }, None);
        }
    }

    /// What a subscriber has to be told, given what it was: ends first, the last born first; then the rest, parents first.
    fn difference(&self, id: SubscriberId, behind: &HashMap<Started, Remembered>) -> Vec<(Started, What)> {
        let mut difference = Vec::new();
        for (started, before) in behind {
            match self.processes.get(started) {
                Some(member) if member.told.contains(&id) => {
                    member.differences(before, |what| difference.push((*started, what)));
                }
                Some(_) => difference.push((*started, What::Left { process: before.process })),
                None => difference.push((*started, before.as_gone())),
            }
        }
        let members = self.processes.iter().filter(|(_, member)| member.told.contains(&id));
        let new = members.filter(|(started, _)| !behind.contains_key(started));
        difference.extend(new.map(|(started, member)| (*started, self.as_found(member))));
        difference.sort_by_key(|(started, what)| match what {
            What::Exit { .. } | What::Left { .. } => (0, u64::MAX - started.0),
            _ => (1, started.0),
        });
        difference
    }

    fn as_found(&self, member: &Member) -> What {
        let State { comm, uid, gid, .. } = member.state;
        let parent = member.parent.filter(|parent| self.processes.contains_key(&parent.started));
        What::Found { process: member.process, parent, comm, uid, gid }
    }
}

impl Member {
    /// As the subscribers of a view know it.
    fn as_remembered(&self, view: Option<&View>) -> Remembered {
        let Process { pid, started } = self.process;
        let number = |view: &View| view.numbers.get(&started).copied().flatten();
        let pid = view.map_or(pid, number);
        Remembered { process: Process { pid, started }, state: self.state }
    }

    /// What changed since.
    fn differences(&self, before: &Remembered, mut tell: impl FnMut(What)) {
        let (process, state, before) = (self.process, self.state, before.state);
        if state.execs != before.execs {
            tell(What::Exec { process, comm: state.comm });
        } else if state.comm != before.comm {
            tell(What::Comm { process, comm: state.comm });
        }
        if let Some(ids) = state.uid.filter(|_| state.uid != before.uid) {
            tell(What::Uid { process, ids });
        }
        if let Some(ids) = state.gid.filter(|_| state.gid != before.gid) {
            tell(What::Gid { process, ids });
        }
    }
}

fn is_visible(views: &HashMap<NamespaceId, View>, id: NamespaceId, started: Started) -> bool {
    views.get(&id).is_some_and(|view| view.numbers.contains_key(&started))
}

/// Adds a subscriber to a list. Equal lists stay shared: `done` maps old ones to new ones.
fn add(told: &mut Told, id: SubscriberId, done: &mut HashMap<*const SubscriberId, (Told, Told)>) {
    replace(told, done, |old| {
        if old.contains(&id) { None } else { Some(old.iter().copied().chain([id]).collect()) }
    });
}

/// Removes a subscriber from a list, likewise.
fn remove(told: &mut Told, id: SubscriberId, done: &mut HashMap<*const SubscriberId, (Told, Told)>) {
    replace(told, done, |old| {
        old.contains(&id).then(|| old.iter().copied().filter(|other| *other != id).collect())
    });
}

fn replace(
    told: &mut Told,
    done: &mut HashMap<*const SubscriberId, (Told, Told)>,
    change: impl FnOnce(&[SubscriberId]) -> Option<Told>,
) {
    // The old list is kept with the new one, so that its address names no other one meanwhile.
    if let Some((_, new)) = done.get(&told.as_ptr()) {
        *told = Arc::clone(new);
    } else if let Some(new) = change(told) {
        let old = std::mem::replace(told, Arc::clone(&new));
        done.insert(old.as_ptr(), (old, new));
    }
}
