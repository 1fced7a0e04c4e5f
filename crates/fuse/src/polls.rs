//! Who waits for a control file to change (poll(2), select(2), epoll(7)).
//!
//! As kernfs does, a file is exceptional (POLLPRI, POLLERR) until it is read, and again when what it shows has changed, if it is
//! one of whose changes the kernel tells ([`File::is_told`](pinfold_files::File::is_told)). v2 tells of them by directory, and
//! directories come and go under a group; so while somebody waits, the file is looked at every [`PAUSE`]. Nothing is looked
//! at while nobody waits. A file is read once, however many wait for it, a user's files are so many in a look, and looks take
//! a quarter of the time at most: who waits for very many is told later, and others are not.
//!
//! Source: kernfs_generic_poll(), cgroup_file_notify(), fuse_file_poll().

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pinfold_files::FileId;
use pinfold_model::{Gid, GroupId, Uid};
use pinfold_realm::{Caller, FrontEnd, REST, Realm};

use crate::forget;
use crate::texts::Texts;

/// How long after a look the next one comes, at least.
const PAUSE: Duration = Duration::from_millis(100);

/// How many files are read in a look for each user; of more, the next look reads others.
const OF_USER: usize = 256;

/// A file of a group.
type Watched = (GroupId, FileId);

/// What every control file is ready for: DEFAULT_POLLMASK.
const READY: u32 = mask(libc::POLLIN | libc::POLLOUT | libc::POLLRDNORM | libc::POLLWRNORM);
/// What one is as well that has changed.
const CHANGED: u32 = mask(libc::POLLERR | libc::POLLPRI);

#[expect(clippy::cast_sign_loss, reason = "events are bits, none of them the sign")]
const fn mask(events: libc::c_short) -> u32 {
    events as u32
}

/// The open files of a mount that somebody waits for.
pub(crate) struct Polls {
    shared: Arc<Shared>,
}

/// An open file that somebody waits for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Waiter {
    /// How the kernel calls the open file.
    pub(crate) kernel: u64,
    /// Whose file.
    pub(crate) group: GroupId,
    /// Which.
    pub(crate) file: FileId,
    /// What it showed when it was read last.
    pub(crate) seen: Vec<u8>,
}

struct Shared {
    realm: Arc<Realm>,
    device: Arc<File>,
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    /// By the number of the open file.
    by_handle: HashMap<u64, Waiter>,
    /// The number of the look in which a file was read last.
    read: HashMap<Watched, u64>,
    /// How many looks there were.
    looks: u64,
    /// Whether there is a thread that looks.
    is_looked_at: bool,
}

impl Waiting {
    /// Which files are read in the next look: of each user's, those that were not for the longest time.
    fn due(&mut self) -> HashSet<Watched> {
        let mut by_user: HashMap<Uid, HashSet<Watched>> = HashMap::new();
        for (handle, waiter) in &self.by_handle {
            by_user.entry(Texts::opener(*handle).uid).or_default().insert((waiter.group, waiter.file));
        }
        let waited_for: HashSet<&Watched> = by_user.values().flatten().collect();
        self.read.retain(|file, _| waited_for.contains(file));
        self.looks += 1;
        let due = by_user.into_values().flat_map(|files| {
            let mut files = Vec::from_iter(files);
            files.sort_by_key(|file| self.read.get(file).copied());
            files.truncate(OF_USER);
            files
        });
        let due: HashSet<Watched> = due.collect();
        self.read.extend(due.iter().map(|file| (*file, self.looks)));
        due
    }

    /// Takes out who waits for a file that was read and shows something else now, or nothing; gives how the kernel calls their files.
    fn take_told(&mut self, now: &HashMap<Watched, Option<Vec<u8>>>) -> Vec<u64> {
        let is_told = |_: &u64, waiter: &mut Waiter| {
            now.get(&(waiter.group, waiter.file)).is_some_and(|now| now.as_ref() != Some(&waiter.seen))
        };
        self.by_handle.extract_if(is_told).map(|(_, waiter)| waiter.kernel).collect()
    }
}

/// What poll(2) is answered.
pub(crate) const fn answer(is_changed: bool) -> u32 {
    if is_changed { READY | CHANGED } else { READY }
}

impl Polls {
    /// Nobody waits yet. Who does is told through the device.
    pub(crate) fn new(realm: Arc<Realm>, device: Arc<File>) -> Self {
        let shared = Shared { realm, device, waiting: Mutex::default(), changed: Condvar::new() };
        Self { shared: Arc::new(shared) }
    }

    /// Has the kernel told when the file shows something else than was seen, or is gone.
    pub(crate) fn wait(&self, handle: u64, waiter: Waiter) {
        let mut waiting = self.shared.lock();
        waiting.by_handle.insert(handle, waiter);
        if !waiting.is_looked_at {
            let shared = Arc::clone(&self.shared);
            let thread = std::thread::Builder::new().name("fuse-polls".to_owned());
            match thread.spawn(move || shared.look()) {
                Ok(_) => waiting.is_looked_at = true,
                Err(error) => tracing::warn!("who polls a file is not told of its changes: {error}"),
            }
        }
    }

    /// The file was closed.
    pub(crate) fn forget(&self, handle: u64) {
        let mut waiting = self.shared.lock();
        if waiting.by_handle.remove(&handle).is_some() && waiting.by_handle.is_empty() {
            self.shared.changed.notify_all();
        }
    }
}

impl Drop for Polls {
    fn drop(&mut self) {
        self.shared.lock().by_handle.clear();
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner) // a table: always whole
    }

    /// Looks until nobody waits.
    fn look(&self) {
        let mut took = Duration::ZERO;
        loop {
            let pause = PAUSE.max(took * REST);
            let paused = self.changed.wait_timeout_while(self.lock(), pause, |all| !all.by_handle.is_empty());
            let (mut waiting, _) = paused.unwrap_or_else(PoisonError::into_inner);
            if waiting.by_handle.is_empty() {
                waiting.read.clear();
                waiting.is_looked_at = false;
                return;
            }
            let began = Instant::now();
            let due = waiting.due();
            drop(waiting);
            let now = due.into_iter().map(|file| (file, self.shown(file))).collect();
            // Who has seen something newer since is told for nothing, and asks again.
            let told = self.lock().take_told(&now);
            told.into_iter().for_each(|kernel| self.wake(kernel));
            took = began.elapsed();
        }
    }

    fn shown(&self, (group, file): Watched) -> Option<Vec<u8>> {
        // No file that is told of shows each caller something else.
        let nobody = Caller { uid: Uid(0), gid: Gid(0), task: None, via: FrontEnd::NONE };
        self.realm.read(&nobody, group, file).ok()
    }

    fn wake(&self, kernel: u64) {
        if let Err(error) = rustix::io::write(&*self.device, &forget::woken(kernel)) {
            // The superblock is gone, and with it whoever waited.
            tracing::debug!("the kernel cannot be told that a file has changed: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: u32 = 1000;

    fn group(number: u32) -> GroupId {
        GroupId::new(number).unwrap()
    }

    /// So many waiters of a user for as many groups' files, from this group on.
    fn waiters(waiting: &mut Waiting, texts: &Texts, user: u32, groups: std::ops::Range<u32>) {
        let file = pinfold_files::named("pids.events").unwrap();
        for number in groups {
            let waiter =
                Waiter { kernel: number.into(), group: group(number), file, seen: b"max 0\n".to_vec() };
            let opener = pinfold_realm::Opener { uid: Uid(user), is_admin: false };
            waiting.by_handle.insert(texts.open(opener), waiter);
        }
    }

    #[test]
    fn a_file_that_many_wait_for_is_read_once_and_they_are_told_together() {
        let (mut waiting, texts) = (Waiting::default(), Texts::default());
        for _ in 0..1000 {
            waiters(&mut waiting, &texts, USER, 1..2);
        }
        let due = waiting.due();
        assert_eq!(due.len(), 1);
        let shows = |text: Option<&[u8]>| due.iter().map(|file| (*file, text.map(<[u8]>::to_vec))).collect();
        assert!(waiting.take_told(&shows(Some(b"max 0\n"))).is_empty());
        assert_eq!(waiting.take_told(&shows(Some(b"max 1\n"))), [1; 1000]);
        assert!(waiting.by_handle.is_empty());
    }

    #[test]
    fn who_waits_for_very_many_files_waits_longer_and_others_do_not() {
        let (mut waiting, texts) = (Waiting::default(), Texts::default());
        let (few, many) = (1..4, 10..11 + 2 * u32::try_from(OF_USER).unwrap());
        waiters(&mut waiting, &texts, USER, many.clone());
        waiters(&mut waiting, &texts, USER + 1, few.clone());
        let mut read = HashSet::new();
        for _ in 0..3 {
            let due: HashSet<u32> = waiting.due().iter().map(|(group, _)| group.get()).collect();
            assert!(few.clone().all(|group| due.contains(&group)));
            assert!(due.len() <= OF_USER + few.len());
            read.extend(due);
        }
        assert!(many.clone().all(|group| read.contains(&group)), "each in its turn");
        waiting.by_handle.retain(|_, waiter| few.contains(&waiter.group.get()));
        waiting.due();
        assert_eq!(waiting.read.len(), few.len(), "of the others nothing is kept");
    }
}
