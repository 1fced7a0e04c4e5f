//! Telling those who asked by `cgroup.event_control`: usage that crossed a threshold, a limit that was met, pressure.
//!
//! One thread has everybody who listens, and nobody else touches them: requests reach it as words, in the order in which
//! they were accepted. It sleeps until a word comes, a listener's process ends, or the kernel says that
//! `memory.events.local` changed; only while somebody waits for usage or pressure it looks by itself. Registrations are
//! not kept: an eventfd is a descriptor, and the daemon's go with it.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use pinfold_files::notice::{Level, Mode, Notice, OOM, Pressure, Reclaim, Threshold, hears};
use pinfold_files::{Assignment, FileId, OOM_KILL_DISABLE, Read};
use pinfold_kernel::WatchError;
use pinfold_kernel::alarm::Alarm;
use pinfold_kernel::listener::{Listener, Look, Signaller};
use pinfold_model::{Carriers, Dir, Forest, Group, GroupId};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::io::Errno as Raw;

use crate::REST;
use crate::realm::is_trusted;
use crate::under_oom::Waiting;
use crate::{Account, Most, NoPlace, Place, Places, ReadError, Realm};

/// How long usage and pressure are left alone between two looks: short while they move.
const SHORTEST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_millis(100);

/// How often it is looked whether listeners still have their eventfds, while there is something to do anyway.
const SWEEP: Duration = Duration::from_secs(1);

/// How many descriptors are looked at then for the listeners of one account; the next look goes on from there.
const SWEPT: usize = Look::OF_PROCESS + 1024;

/// How long those who wait for memory are left alone before what they use is reclaimed once more.
const RECLAIMING: Duration = Duration::from_secs(1);

/// For how many groups at once: the kernel may try for long.
const AT_ONCE: usize = 16;

/// This part of the listeners that there may be is one user's, or one container's, at most; and of the alarms.
const OF_ACCOUNT: usize = 8;

/// The way to the thread that tells.
pub(crate) struct Notices {
    words: mpsc::Sender<Word>,
    inbox: Mutex<Option<mpsc::Receiver<Word>>>,
    wake: OwnedFd,
    /// Who listens, those included that the thread does not have yet. A leaf in the lock order.
    listening: Places,
    /// Whether processes of some group may have to wait for memory: which, the thread finds out.
    thrifty: AtomicBool,
    /// Other directories carry some group than before. No word: however often that happens, it is looked at once.
    displaced: AtomicBool,
    /// A limit is another, or whose processes wait at it. Likewise.
    limited: AtomicBool,
}

/// What the thread is told.
pub(crate) enum Word {
    /// Somebody wants to be told.
    Listen(Box<Listening>),
    /// A group was removed: its listeners are told that, and nothing any more.
    Removed(GroupId),
    /// The realm ends.
    Stop,
}

/// One registration.
pub(crate) struct Listening {
    group: GroupId,
    listener: Listener,
    matter: Matter,
    place: Place,
}

impl Listening {
    fn account(&self) -> Account {
        self.place.account()
    }
}

/// What somebody listens for, and what was seen of it last.
pub(crate) enum Matter {
    Threshold(FileId, Threshold),
    /// How often limits were met up to now.
    Oom(u64),
    Pressure(Level, Mode, Reclaim),
}

impl Notices {
    pub(crate) fn new() -> Result<Self, WatchError> {
        let (words, inbox) = mpsc::channel();
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| WatchError::System { operation: "eventfd", errno })?;
        Ok(Self {
            words,
            inbox: Mutex::new(Some(inbox)),
            wake,
            listening: Places::default(),
            thrifty: AtomicBool::new(true),
            displaced: AtomicBool::new(true),
            limited: AtomicBool::new(true),
        })
    }

    /// Adds a listener, unless there are too many: each takes a descriptor of the daemon, and each process another.
    pub(crate) fn listen(
        &self,
        account: Account,
        group: GroupId,
        listener: Listener,
        matter: Matter,
    ) -> Result<(), NoPlace> {
        let place = self.listening.take(account, most_of_descriptors())?;
        self.say(Word::Listen(Box::new(Listening { group, listener, matter, place })));
        Ok(())
    }

    /// A group was removed.
    pub(crate) fn removed(&self, group: GroupId) {
        if self.has_listeners() {
            self.say(Word::Removed(group));
        }
    }

    /// Other directories carry some group than before: a limit may be met where nobody looks yet.
    pub(crate) fn displaced(&self) {
        if self.has_listeners() || self.thrifty.load(Ordering::Relaxed) {
            self.note(&self.displaced);
        }
    }

    /// Values were assigned.
    pub(crate) fn assigned(&self, assignments: &[Assignment]) {
        let is = |key: &'static str| assignments.iter().any(|assigned| assigned.setting.key.0 == key);
        if is(OOM_KILL_DISABLE.key.0) {
            self.thrifty.store(true, Ordering::Relaxed);
        }
        if (is(OOM_KILL_DISABLE.key.0) || is("memory.limit_in_bytes")) && self.thrifty.load(Ordering::Relaxed)
        {
            self.note(&self.limited);
        }
    }

    /// Ends [`Realm::tell_listeners`].
    pub(crate) fn stop(&self) {
        self.say(Word::Stop);
    }

    /// What the thread reads from; the first who asks has it.
    pub(crate) fn inbox(&self) -> Option<mpsc::Receiver<Word>> {
        self.inbox.lock().expect("nobody panics with it").take()
    }

    fn has_listeners(&self) -> bool {
        !self.listening.is_empty()
    }

    fn say(&self, word: Word) {
        // It fails when the thread has ended, and then there is nobody to tell.
        if self.words.send(word).is_ok() {
            self.wake();
        }
    }

    fn note(&self, news: &AtomicBool) {
        if !news.swap(true, Ordering::AcqRel) {
            self.wake();
        }
    }

    fn wake(&self) {
        // The one error is a full counter, and then it is readable already.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

impl Realm {
    /// What there is to see of a matter now, before anybody listens for it.
    pub(crate) fn matter(&self, group: GroupId, notice: Notice) -> Result<Matter, ReadError> {
        Ok(match notice {
            Notice::Threshold(file, at) => {
                Matter::Threshold(file, Threshold::new(at, self.usage(group, file)?))
            }
            Notice::Oom => Matter::Oom(self.times_met(group)?),
            Notice::Pressure(level, mode) => Matter::Pressure(level, mode, self.reclaim(group)?),
        })
    }

    /// Tells listeners until [`Notices::stop`]; then, that their groups are gone.
    pub(crate) fn tell_listeners(&self, inbox: &mpsc::Receiver<Word>) {
        let mut desk = Desk::default();
        let mut is_due = true;
        loop {
            for word in inbox.try_iter() {
                is_due = true;
                match word {
                    Word::Listen(listening) => {
                        let group = listening.group;
                        let waits = matches!(listening.matter, Matter::Oom(_))
                            && pinfold_files::is_under_oom(&self.lock_forest(), group);
                        desk.listen(*listening, waits);
                    }
                    Word::Removed(group) => desk.part(|listening| listening.group == group),
                    Word::Stop => return desk.part(|_| true),
                }
            }
            desk.limited |= self.notices.limited.swap(false, Ordering::AcqRel);
            desk.displaced |= desk.limited | self.notices.displaced.swap(false, Ordering::AcqRel);
            is_due |= desk.displaced;
            if is_due && desk.rest().is_none() {
                self.look(&mut desk);
                is_due = false;
            }
            let waited = match desk.rest() {
                Some(rest) => desk.wait_for_words(&self.notices.wake, rest),
                None => desk.wait(&self.notices.wake).inspect(|()| is_due = true),
            };
            if let Err(error) = waited {
                tracing::error!("nobody is told of memory events any more: {error}");
                return;
            }
        }
    }

    /// Looks at everything that somebody waits for. Afterwards the thread rests, so that however much that is, it takes a part of the
    /// time only.
    fn look(&self, desk: &mut Desk) {
        let began = Instant::now();
        let moved = self.look_at_usage(desk) | self.look_at_pressure(desk);
        self.look_at_limits(desk);
        desk.sweep_now_and_then();
        desk.looked(began.elapsed(), moved);
    }

    /// True if usage moved.
    fn look_at_usage(&self, desk: &mut Desk) -> bool {
        let mut seen: HashMap<(GroupId, FileId), Option<u64>> = HashMap::new();
        desk.tell(|listening| {
            let Matter::Threshold(file, threshold) = &mut listening.matter else { return false };
            let group = listening.group;
            let usage = seen.entry((group, *file)).or_insert_with(|| self.or_log(self.usage(group, *file)));
            usage.is_some_and(|usage| threshold.look(usage))
        });
        let moved = desk.usage != seen;
        desk.usage = seen;
        moved
    }

    /// True if something was reclaimed.
    ///
    /// Figures are taken from the root down, so that what happens meanwhile is seen below at the latest when it is seen
    /// above; judged is from below upwards, as the kernel does, since who is told below may keep others from being told.
    fn look_at_pressure(&self, desk: &mut Desk) -> bool {
        let mut above: Vec<(GroupId, Vec<GroupId>)> = {
            let forest = self.lock_forest();
            desk.pressures.keys().map(|group| (*group, forest.ancestors(*group).collect())).collect()
        };
        above.sort_by_key(|(_, above)| above.len());
        let figures: Vec<_> = above.iter().map(|(group, _)| self.or_log(self.reclaim(*group))).collect();
        let mut listening: HashMap<GroupId, Vec<usize>> = HashMap::new();
        for (index, one) in desk.listening.iter().enumerate() {
            if matches!(one.matter, Matter::Pressure(..)) {
                listening.entry(one.group).or_default().push(index);
            }
        }
        let mut moved = false;
        for ((group, above), now) in above.into_iter().zip(figures).rev() {
            let (Some(now), Some(watched)) = (now, desk.pressures.get_mut(&group)) else { continue };
            moved |= watched.pressure.has_moved(now);
            let Some(verdict) = watched.pressure.look(now) else { continue };
            let told_below = std::mem::take(&mut watched.told_below);
            let mut heard = false;
            for index in listening.get(&group).into_iter().flatten() {
                if let Matter::Pressure(level, mode, _) = desk.listening[*index].matter
                    && hears(verdict, told_below, level, mode)
                {
                    heard = true;
                    desk.signal(*index);
                }
            }
            if heard || told_below {
                let over = above.iter();
                over.for_each(|group| _ = desk.pressures.get_mut(group).map(|it| it.told_below = true));
            }
        }
        moved
    }

    /// Nothing is read unless the kernel said that something changed, directories may have come, or somebody waits.
    fn look_at_limits(&self, desk: &mut Desk) {
        let displaced = std::mem::take(&mut desk.displaced);
        if std::mem::take(&mut desk.limited) {
            // Taken before the look: what is assigned after it is told by a word of its own.
            let any = self.notices.thrifty.swap(false, Ordering::Relaxed);
            desk.thrifty = if any { self.thrifty() } else { Vec::new() };
            if !desk.thrifty.is_empty() {
                self.notices.thrifty.store(true, Ordering::Relaxed);
            }
        }
        let alarmed = desk.alarmed();
        if displaced || alarmed {
            self.choose_alarms(desk);
        }
        if displaced || alarmed || desk.blind {
            self.look_at_times_met(desk);
        }
        if displaced || alarmed || desk.blind || desk.waiting {
            self.look_for_rooms(desk);
        }
    }

    /// Opens what the kernel tells by, where a limit may be met that somebody wants to know of.
    fn choose_alarms(&self, desk: &mut Desk) {
        let mut wanted: Vec<(Account, Dir)> = {
            let forest = self.lock_forest();
            let of_listeners = desk.listening.iter().filter(|one| matches!(one.matter, Matter::Oom(_)));
            let of_listeners = of_listeners.map(|one| (for_alarms(one.account()), one.group));
            let maker = |group: &GroupId| forest.group(*group).map_or(Account::Host, maker_of);
            let of_thrifty = desk.thrifty.iter().map(|group| (for_alarms(maker(group)), *group));
            let dirs =
                |(account, group)| alarming_dirs(&forest, group).into_iter().map(move |dir| (account, dir));
            of_listeners.chain(of_thrifty).flat_map(dirs).collect()
        };
        // Who has one keeps it: listeners are in no order.
        wanted.sort_by_key(|(_, dir)| !desk.alarms.contains_key(dir));
        let (dirs, is_all) = allot(wanted, most_of_descriptors());
        desk.alarms.retain(|dir, _| dirs.contains(dir));
        desk.blind = !is_all;
        for dir in dirs {
            if desk.alarms.contains_key(&dir) {
                continue;
            }
            match self.tracker.alarm(&dir, OOM.source.file()) {
                Ok(alarm) if alarm.quiet() => _ = desk.alarms.insert(dir, alarm),
                // It went again: that it is emptied first has been told by its own event.
                Ok(_) | Err(pinfold_kernel::ReadError::Gone { .. }) => {}
                Err(error) => {
                    tracing::debug!("limits that are met in {dir} are looked for by time: {error}");
                    desk.blind = true;
                }
            }
        }
    }

    fn look_at_times_met(&self, desk: &mut Desk) {
        let mut seen: HashMap<GroupId, Option<u64>> = HashMap::new();
        let mut met: HashMap<GroupId, u64> = HashMap::new();
        desk.tell(|listening| {
            let Matter::Oom(before) = &mut listening.matter else { return false };
            let group = listening.group;
            let times = || self.or_log(self.times_met_among(group, &mut met));
            let now = *seen.entry(group).or_insert_with(times);
            let now = now.unwrap_or(*before);
            std::mem::replace(before, now) < now
        });
    }

    /// Freezes and thaws; whoever listens is told of those who wait from now on.
    fn look_for_rooms(&self, desk: &mut Desk) {
        let waited = std::mem::take(&mut desk.waiting);
        let again = if waited { desk.turn(Instant::now()) } else { 0..0 };
        for (index, group) in desk.thrifty.clone().into_iter().enumerate() {
            match self.look_for_room(group, again.contains(&index)) {
                Err(ReadError::Gone(_)) | Ok(Waiting::No) => continue,
                Ok(Waiting::Still) => {}
                // It may be frozen: whoever looks again will thaw it.
                Err(error) if waited => {
                    tracing::debug!("who waits in group {group}: {}", crate::error::chain(&error));
                }
                Err(error) => {
                    tracing::warn!(
                        "who waits in group {group} is not known: {}",
                        crate::error::chain(&error)
                    );
                }
                Ok(Waiting::FromNow) => desk.tell(|listening| {
                    let forest = self.lock_forest();
                    let concerns = listening.group == group
                        || forest.ancestors(listening.group).any(|above| above == group);
                    concerns && matches!(listening.matter, Matter::Oom(_))
                }),
            }
            desk.waiting = true;
        }
    }

    /// What a file that is one number shows.
    pub(crate) fn usage(&self, group: GroupId, file: FileId) -> Result<u64, ReadError> {
        let Read::Shown { from, show } = pinfold_files::file(file).1.read else {
            return Err(ReadError::WriteOnly(pinfold_files::full_name(file, false).into_owned()));
        };
        let text = self.with_texts(group, from, show)?;
        Ok(std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0))
    }

    /// How often the limits were met that hold in a group: its own and those above, whose victims may be in it.
    fn times_met(&self, group: GroupId) -> Result<u64, ReadError> {
        self.times_met_among(group, &mut HashMap::new())
    }

    /// [`Self::times_met`] of one of several groups; each that is above several of them is asked once.
    fn times_met_among(&self, group: GroupId, met: &mut HashMap<GroupId, u64>) -> Result<u64, ReadError> {
        let above: Vec<GroupId> = self.lock_forest().ancestors(group).collect();
        let mut times = 0_u64;
        for group in std::iter::once(group).chain(above) {
            let own = match met.entry(group) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(unknown) => {
                    *unknown.insert(self.with_texts(group, &[OOM.source], |sight| match sight.is_root() {
                        true => 0, // the machine's own shortage is nobody's limit
                        false => sight.counter(&OOM),
                    })?)
                }
            };
            times = times.saturating_add(own);
        }
        Ok(times)
    }

    fn reclaim(&self, group: GroupId) -> Result<Reclaim, ReadError> {
        self.with_texts(group, &Reclaim::SOURCES, Reclaim::of)
    }

    /// A figure, if it can be had. A group that was removed is told of in a word of its own.
    fn or_log<T>(&self, figure: Result<T, ReadError>) -> Option<T> {
        match figure {
            Ok(figure) => Some(figure),
            Err(ReadError::Gone(_)) => None,
            Err(error) => {
                tracing::debug!("a figure that somebody waits for: {}", crate::error::chain(&error));
                None
            }
        }
    }
}

/// How many listeners there may be, and how many alarms: the daemon needs descriptors for other things too.
fn most_of_descriptors() -> Most {
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let in_all = most.and_then(|most| usize::try_from(most / 4).ok()).unwrap_or(usize::MAX);
    Most { of_account: in_all / OF_ACCOUNT, in_all }
}

/// For whom processes of a group wait for memory.
fn maker_of(group: &Group) -> Account {
    Account::User(group.files_owner().0)
}

/// Whom an alarm counts for. The host's root has all that there are: whoever listens as root has groups of many directories.
fn for_alarms(account: Account) -> Account {
    match account {
        Account::User(uid) if is_trusted(uid) => Account::Host,
        account => account,
    }
}

/// Which of these directories have an alarm, and whether all have. A directory counts for the first who wants it.
fn allot(wanted: Vec<(Account, Dir)>, most: Most) -> (HashSet<Dir>, bool) {
    let mut allotted = HashSet::new();
    let mut counts: HashMap<Account, usize> = HashMap::new();
    let mut is_all = true;
    for (account, dir) in wanted {
        if allotted.contains(&dir) {
            continue;
        }
        let count = counts.entry(account).or_default();
        let is_over = *count >= most.of_account && account != Account::Host;
        if is_over || allotted.len() >= most.in_all {
            is_all = false;
            continue;
        }
        *count += 1;
        allotted.insert(dir);
    }
    (allotted, is_all)
}

/// The directories in which a limit may be met that holds in a group.
fn alarming_dirs(forest: &Forest, group: GroupId) -> Vec<Dir> {
    let groups = std::iter::once(group).chain(forest.ancestors(group));
    groups
        .flat_map(|group| match forest.carriers(group) {
            None | Some(Carriers::Scope) => Vec::new(),
            Some(Carriers::Dirs(dirs)) => dirs,
        })
        .collect()
}

/// The pressure of a group that somebody listens to.
struct Watched {
    pressure: Pressure,
    /// Somebody below was told since this group was judged last.
    told_below: bool,
}

/// All that the thread has.
#[derive(Default)]
struct Desk {
    listening: Vec<Listening>,
    /// The groups of those who listen for pressure.
    pressures: HashMap<GroupId, Watched>,
    /// What usage was at the last look.
    usage: HashMap<(GroupId, FileId), Option<u64>>,
    alarms: HashMap<Dir, Alarm>,
    /// Somebody wants more alarms than there are descriptors for his: limits are looked at by time.
    blind: bool,
    /// Directories may have come or gone since the alarms were chosen.
    displaced: bool,
    /// Other processes may have to wait than before.
    limited: bool,
    /// What waiting found: alarms that rang.
    ringing: Vec<Dir>,
    /// The groups whose processes are to wait for memory.
    thrifty: Vec<GroupId>,
    /// Some of them do.
    waiting: bool,
    /// Since when what those who wait use is reclaimed once more, group by group.
    reclaimed: Option<Instant>,
    /// Whose turn it is then.
    turn: usize,
    pace: Pace,
    /// When the listeners of an account were looked at last.
    swept: HashMap<Account, Instant>,
    /// Until when nothing is looked at.
    rests: Option<Instant>,
    /// When the next look comes, if nothing is told before.
    next: Option<Instant>,
    signaller: Signaller,
}

impl Desk {
    /// `at_once`: what is listened for is so already, mem_cgroup_oom_register_event().
    fn listen(&mut self, new: Listening, at_once: bool) {
        match new.matter {
            Matter::Pressure(_, _, now) => {
                self.pressures
                    .entry(new.group)
                    .or_insert_with(|| Watched { pressure: Pressure::new(now), told_below: false });
            }
            Matter::Oom(_) => self.displaced = true,
            Matter::Threshold(..) => {}
        }
        self.pace = Pace::default();
        if at_once && let Err(error) = self.signaller.signal(&new.listener) {
            tracing::warn!("a listener of group {} cannot be told: {error}", new.group);
        }
        self.listening.push(new);
    }

    /// Signals whoever `is_told`. Who does not wait any more does not notice.
    fn tell(&mut self, mut is_told: impl FnMut(&mut Listening) -> bool) {
        for index in 0..self.listening.len() {
            if is_told(&mut self.listening[index]) {
                self.signal(index);
            }
        }
    }

    fn signal(&mut self, index: usize) {
        let listening = &self.listening[index];
        if let Err(error) = self.signaller.signal(&listening.listener) {
            tracing::warn!("a listener of group {} cannot be told: {error}", listening.group);
        }
    }

    /// Signals some a last time and lets go of them: memcg_event_remove().
    fn part(&mut self, is_over: impl Fn(&Listening) -> bool) {
        let over: Vec<Listening> = self.listening.extract_if(.., |one| is_over(one)).collect();
        for listening in over {
            if let Err(error) = self.signaller.signal(&listening.listener) {
                tracing::warn!("a listener of group {} cannot be told: {error}", listening.group);
            }
        }
        self.forget_pressures();
    }

    fn forget_pressures(&mut self) {
        let of_pressure = self.listening.iter().filter(|one| matches!(one.matter, Matter::Pressure(..)));
        let groups: HashSet<GroupId> = of_pressure.map(|one| one.group).collect();
        self.pressures.retain(|group, _| groups.contains(group));
    }

    /// Lets go of those who closed their eventfd. The kernel does not tell: it would only if nobody had it, and we do.
    ///
    /// By account, so that nobody's are left alone because of another's; and no more of one account's than can be looked at in a
    /// moment, since meanwhile nobody is told of anything.
    fn sweep_now_and_then(&mut self) {
        let accounts: HashSet<Account> = self.listening.iter().map(Listening::account).collect();
        self.swept.retain(|account, _| accounts.contains(account));
        let swept = |account: &Account| self.swept.get(account).copied();
        let is_due = |account: &Account| swept(account).is_none_or(|at| at.elapsed() >= SWEEP);
        let mut due: Vec<Account> = accounts.into_iter().filter(is_due).collect();
        due.sort_by_key(swept);
        let mut looked_at = 0;
        for account in due {
            if looked_at >= SWEPT {
                break;
            }
            looked_at += self.sweep(account);
            self.swept.insert(account, Instant::now());
        }
    }

    /// Lets go of those of an account who do not wait any more. Answers how many descriptors were looked at.
    fn sweep(&mut self, account: Account) -> usize {
        let mut look = Look::new(SWEPT);
        let mut is_over = false;
        let mut waiting = Vec::new();
        for listening in std::mem::take(&mut self.listening) {
            let waits = match listening.account() == account && !is_over {
                true => listening.listener.is_waiting(&mut look),
                false => None,
            };
            is_over |= waits.is_none() && listening.account() == account;
            match waits {
                Some(true) => waiting.push(listening),
                Some(false) => {}
                None => self.listening.push(listening),
            }
        }
        // Those that were not looked at are the first the next time.
        self.listening.append(&mut waiting);
        self.forget_pressures();
        SWEPT - look.left()
    }

    /// For which of the groups that wait is reclaimed in a look.
    fn turn(&mut self, now: Instant) -> Range<usize> {
        let is_over = self.turn >= self.thrifty.len();
        if is_over && self.reclaimed.is_none_or(|since| now.duration_since(since) >= RECLAIMING) {
            self.turn = 0;
        }
        let from = self.turn;
        if from == 0 {
            self.reclaimed = Some(now);
        }
        self.turn = (from + AT_ONCE).min(self.thrifty.len());
        from..self.turn
    }

    /// Makes alarms that rang quiet. True if any did.
    fn alarmed(&mut self) -> bool {
        let ringing = std::mem::take(&mut self.ringing);
        for dir in &ringing {
            let is_there = self.alarms.get(dir).is_some_and(Alarm::quiet);
            if !is_there {
                self.alarms.remove(dir);
            }
        }
        !ringing.is_empty()
    }

    /// How long it rests still.
    fn rest(&self) -> Option<Duration> {
        let left = self.rests?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// A look took so long: when the next one comes.
    fn looked(&mut self, took: Duration, moved: bool) {
        let now = Instant::now();
        self.rests = Some(now + took * REST);
        let looks = self.waiting
            || self.blind
            || !self.pressures.is_empty()
            || self.listening.iter().any(|one| matches!(one.matter, Matter::Threshold(..)));
        self.next = looks.then(|| now + self.pace.next(moved));
    }

    /// Waits for a word, or that the time is over.
    fn wait_for_words(&self, wake: &OwnedFd, most: Duration) -> Result<(), Raw> {
        poll(&mut [PollFd::new(wake, PollFlags::IN)], Some(most))?;
        heard(wake);
        Ok(())
    }

    /// Waits for a word, a listener's end, an alarm, or that it is time for a look.
    fn wait(&mut self, wake: &OwnedFd) -> Result<(), Raw> {
        let pause = self.next.map(|next| next.saturating_duration_since(Instant::now()));
        let dirs: Vec<Dir> = self.alarms.keys().cloned().collect();
        let came: Vec<bool> = {
            let ends: Vec<_> = self.listening.iter().map(|listening| listening.listener.ended()).collect();
            let mut wanted = vec![PollFd::from_borrowed_fd(wake.as_fd(), PollFlags::IN)];
            wanted.extend(ends.iter().map(|end| PollFd::new(end, PollFlags::IN)));
            wanted.extend(self.alarms.values().map(|alarm| PollFd::new(alarm, PollFlags::PRI)));
            poll(&mut wanted, pause)?;
            wanted.iter().map(|one| !one.revents().is_empty()).collect()
        };
        let (ended, rang) = came[1..].split_at(self.listening.len());
        self.ringing = dirs.into_iter().zip(rang).filter(|(_, rang)| **rang).map(|(dir, _)| dir).collect();
        if ended.contains(&true) {
            let mut ended = ended.iter();
            self.listening.retain(|_| ended.next().is_none_or(|ended| !ended));
            self.forget_pressures();
        }
        heard(wake);
        Ok(())
    }
}

fn poll(wanted: &mut [PollFd<'_>], most: Option<Duration>) -> Result<(), Raw> {
    let most = most.map(|most| Timespec {
        tv_sec: i64::try_from(most.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: most.subsec_nanos().into(),
    });
    match rustix::event::poll(wanted, most.as_ref()) {
        Ok(_) | Err(Raw::INTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Nothing to read is fine: it was not a word that came.
fn heard(wake: &OwnedFd) {
    let _ = rustix::io::read(wake, &mut [0; 8]);
}

/// How long is waited between two looks: a tenth of a second while nothing moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Pace(Duration);

impl Default for Pace {
    fn default() -> Self {
        Self(SHORTEST)
    }
}

impl Pace {
    fn next(&mut self, moved: bool) -> Duration {
        self.0 = if moved { SHORTEST } else { (self.0 * 2).min(LONGEST) };
        self.0
    }
}

#[cfg(test)]
mod tests {
    use pinfold_model::{CellId, Uid};

    use super::*;

    #[test]
    fn nobody_has_more_alarms_than_are_his_and_a_directory_needs_one() {
        let (one, other) = (Account::User(Uid(1)), Account::User(Uid(2)));
        let dir = |number: u32| Dir::REALM.cell(CellId::new(number).expect("not 0"));
        let most = Most { of_account: 3, in_all: 8 };
        let allotted = |wanted: &[(Account, std::ops::Range<u32>)]| {
            let wanted = wanted.iter().flat_map(|(account, dirs)| dirs.clone().map(|at| (*account, dir(at))));
            let (dirs, is_all) = allot(wanted.collect(), most);
            let mut dirs: Vec<String> = dirs.iter().map(Dir::to_string).collect();
            dirs.sort_unstable();
            (dirs.join(" "), is_all)
        };
        let cells =
            |numbers: &[u32]| numbers.iter().map(|at| dir(*at).to_string()).collect::<Vec<_>>().join(" ");
        for (wanted, expected, is_all) in [
            (vec![(one, 1..4), (other, 4..6)], &[1, 2, 3, 4, 5][..], true),
            (vec![(one, 1..6), (other, 6..8)], &[1, 2, 3, 6, 7], false),
            (vec![(one, 1..4), (other, 1..6)], &[1, 2, 3, 4, 5], true),
            (vec![(Account::Host, 1..8), (one, 7..9)], &[1, 2, 3, 4, 5, 6, 7, 8], true),
            (vec![(Account::Host, 1..9), (one, 9..10)], &[1, 2, 3, 4, 5, 6, 7, 8], false),
        ] {
            assert_eq!(allotted(&wanted), (cells(expected), is_all), "{wanted:?}");
        }
    }

    #[test]
    fn each_who_waits_has_a_turn_and_then_a_second_without() {
        let thrifty: Vec<GroupId> = (1..=40).filter_map(GroupId::new).collect();
        let mut desk = Desk { thrifty, ..Desk::default() };
        let begun = Instant::now();
        let turns = |desk: &mut Desk, at: Duration| (0..5).map(|_| desk.turn(begun + at)).collect::<Vec<_>>();
        let once = [0..16, 16..32, 32..40, 40..40, 40..40];
        assert_eq!(turns(&mut desk, Duration::ZERO), once);
        assert_eq!(desk.turn(begun + RECLAIMING / 2), 40..40);
        assert_eq!(turns(&mut desk, RECLAIMING), once);
        desk.thrifty.truncate(3);
        assert_eq!(desk.turn(begun + 2 * RECLAIMING), 0..3);
    }
}
