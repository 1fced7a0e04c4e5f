//! Who waits for a control file to change (poll(2), select(2), epoll(7)).
//!
//! As kernfs does, a file is exceptional (POLLPRI, POLLERR) until it is read, and again when what it shows has changed, if it is
//! one of whose changes the kernel tells ([`File::is_told`](pinfold_files::File::is_told)). v2 tells of them by directory, and
//! directories come and go under a group; so while somebody waits, the file is looked at every [`PAUSE`]. Nothing is looked
//! at while nobody waits.
//!
//! Source: kernfs_generic_poll(), cgroup_file_notify(), fuse_file_poll().

use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pinfold_files::FileId;
use pinfold_model::{Gid, GroupId, Uid};
use pinfold_realm::{Caller, FrontEnd, Realm};

use crate::forget;

/// How long after a look the next one comes.
const PAUSE: Duration = Duration::from_millis(100);

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
    /// Whether there is a thread that looks.
    is_looked_at: bool,
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
        loop {
            let pause = self.changed.wait_timeout_while(self.lock(), PAUSE, |all| !all.by_handle.is_empty());
            let (mut waiting, _) = pause.unwrap_or_else(PoisonError::into_inner);
            if waiting.by_handle.is_empty() {
                waiting.is_looked_at = false;
                return;
            }
            let all: Vec<(u64, Waiter)> =
                waiting.by_handle.iter().map(|(handle, waiter)| (*handle, waiter.clone())).collect();
            drop(waiting);
            for (handle, waiter) in all.iter().filter(|(_, waiter)| self.has_changed(waiter)) {
                self.wake(waiter.kernel);
                let mut waiting = self.lock();
                // Whoever goes on waiting asks again, perhaps already, having seen something else.
                if waiting.by_handle.get(handle) == Some(waiter) {
                    waiting.by_handle.remove(handle);
                }
            }
        }
    }

    fn has_changed(&self, waiter: &Waiter) -> bool {
        // No file that is told of shows each caller something else.
        let nobody = Caller { uid: Uid(0), gid: Gid(0), task: None, via: FrontEnd::NONE };
        self.realm.read(&nobody, waiter.group, waiter.file).map_or(true, |now| now != waiter.seen)
    }

    fn wake(&self, kernel: u64) {
        if let Err(error) = rustix::io::write(&*self.device, &forget::woken(kernel)) {
            // The superblock is gone, and with it whoever waited.
            tracing::debug!("the kernel cannot be told that a file has changed: {error}");
        }
    }
}
