//! Learning which cells became empty, populated, frozen or thawed, and that a limit was met, without asking.
//!
//! One inotify descriptor; a watch on the `cgroup.events` of each leaf, and on files that tell of limits (`pids.events`). The
//! kernel reports a change of such a file (cgroup_file_notify()), at most once in 10 ms for one file; what a leaf's says is
//! read with [`Tree::events`].

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pinfold_model::{CellId, Dir, Errno};
use rustix::event::{EventfdFlags, PollFd, PollFlags};
use rustix::fs::OFlags;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno as Raw;

use crate::{Tree, beneath, errors};

/// Room for some 250 events a read.
const BUFFER: usize = 4096;

/// What a watch tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// The `cgroup.events` of this cell's leaf changed.
    Changed(CellId),
    /// One of the files of [`Watch::set_pressed`] changed.
    Pressed,
    /// The kernel's queue was full and events were lost: every leaf must be looked at again.
    Lost,
    /// [`Stop::stop`] was called.
    Stopped,
}

/// Why a leaf is not watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The user has as many inotify descriptors as the kernel allows.
    #[error(
        "the kernel gives out no more inotify descriptors ({limit} for this user)\n\
        raise the sysctl fs.inotify.max_user_instances"
    )]
    NoInstance {
        /// What the sysctl says.
        limit: String,
    },
    /// The user has as many watches as the kernel allows.
    #[error(
        "the kernel watches no more leaves than {limit} for this user\nraise the sysctl fs.inotify.max_user_watches"
    )]
    TooMany {
        /// What the sysctl says.
        limit: String,
    },
    /// The leaf is not there any more.
    #[error("{} was removed", path.display())]
    Gone {
        /// The leaf.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("{operation} failed: {errno}")]
    System {
        /// The call.
        operation: &'static str,
        /// The kernel's answer.
        errno: Raw,
    },
}

impl WatchError {
    /// The errno that says the same.
    pub fn errno(&self) -> Errno {
        match self {
            Self::NoInstance { .. } | Self::TooMany { .. } => Errno::ENOSPC,
            Self::Gone { .. } => Errno::ENODEV,
            Self::System { errno, .. } => errors::to_model(*errno),
        }
    }
}

/// Watches the leaves that it was given. All methods may be called from any thread.
#[derive(Debug)]
pub struct Watch {
    base: OwnedFd,
    base_path: PathBuf,
    realm: String,
    inotify: OwnedFd,
    stop: Arc<OwnedFd>,
    watched: Mutex<Watched>,
    /// What was read from the kernel and not yet told. Held during a read only; taken before `watched`.
    waiting: Mutex<VecDeque<Event>>,
}

/// Ends [`Watch::next`] for good.
#[derive(Clone, Debug)]
pub struct Stop(Arc<OwnedFd>);

#[derive(Debug, Default)]
struct Watched {
    cells: HashMap<i32, CellId>,
    descriptors: HashMap<CellId, i32>,
    pressed: HashMap<(Dir, &'static str), i32>,
    /// The values of `pressed`.
    pressing: HashSet<i32>,
}

impl Watched {
    fn event(&self, descriptor: i32) -> Option<Event> {
        let cell = self.cells.get(&descriptor).copied().map(Event::Changed);
        cell.or_else(|| self.pressing.contains(&descriptor).then_some(Event::Pressed))
    }
}

impl Tree {
    /// A watch for leaves of this tree, with none in it.
    pub fn watch(&self) -> Result<Watch, WatchError> {
        let failed = |operation| move |errno| WatchError::System { operation, errno };
        let inotify =
            inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(|errno| match errno {
                Raw::MFILE => WatchError::NoInstance { limit: sysctl("max_user_instances") },
                errno => WatchError::System { operation: "inotify_init1", errno },
            })?;
        let stop = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        Ok(Watch {
            base: rustix::io::fcntl_dupfd_cloexec(&self.base, 0).map_err(failed("fcntl"))?,
            base_path: self.base(),
            realm: self.realm.clone(),
            inotify,
            stop: Arc::new(stop.map_err(failed("eventfd"))?),
            watched: Mutex::default(),
            waiting: Mutex::default(),
        })
    }
}

impl Watch {
    /// Watches a cell's leaf. What changed before this call is not told: look at the leaf afterwards.
    pub fn add(&self, leaf: &Dir, cell: CellId) -> Result<(), WatchError> {
        let file = self.open(leaf, "cgroup.events")?;
        // Held over the system call, so that an event cannot be read before its cell is known.
        let mut watched = lock(&self.watched);
        let descriptor = self.add_file(&file)?;
        watched.cells.insert(descriptor, cell);
        watched.descriptors.insert(cell, descriptor);
        Ok(())
    }

    /// Stops watching a cell's leaf; harmless if it is not watched. Needed when a leaf is removed, too: a watch keeps
    /// the kernel's memory of the file.
    pub fn remove(&self, cell: CellId) {
        let mut watched = lock(&self.watched);
        if let Some(descriptor) = watched.descriptors.remove(&cell) {
            watched.cells.remove(&descriptor);
            // The one error is that the kernel dropped the watch by itself.
            let _ = inotify::remove_watch(&self.inotify, descriptor);
        }
    }

    /// Watches these files of directories, which change when a limit is met, and none of those of the last call that is not
    /// among them. One that cannot be watched is left out.
    pub fn set_pressed(&self, files: &HashSet<(Dir, &'static str)>) {
        let Watched { pressed, pressing, .. } = &mut *lock(&self.watched);
        pressed.retain(|file, descriptor| {
            let stays = files.contains(file);
            if !stays {
                pressing.remove(descriptor);
                // The one error is that the kernel dropped the watch by itself.
                let _ = inotify::remove_watch(&self.inotify, *descriptor);
            }
            stays
        });
        for (dir, name) in files {
            let Entry::Vacant(new) = pressed.entry((dir.clone(), *name)) else { continue };
            if let Ok(descriptor) = self.open(dir, name).and_then(|file| self.add_file(&file)) {
                pressing.insert(descriptor);
                new.insert(descriptor);
            }
        }
    }

    fn open(&self, dir: &Dir, name: &str) -> Result<OwnedFd, WatchError> {
        let path = PathBuf::from(&self.realm).join(dir.to_string());
        beneath::open(&self.base, path.join(name), OFlags::PATH).map_err(|errno| match errno {
            errno if beneath::is_gone(errno) => WatchError::Gone { path: self.base_path.join(&path) },
            errno => WatchError::System { operation: "openat2", errno },
        })
    }

    fn add_file(&self, file: &OwnedFd) -> Result<i32, WatchError> {
        // inotify_add_watch(2) takes a path only: this one leads to the open file and nowhere else.
        let name = format!("/proc/self/fd/{}", file.as_raw_fd());
        inotify::add_watch(&self.inotify, name, WatchFlags::MODIFY).map_err(|errno| match errno {
            Raw::NOSPC => WatchError::TooMany { limit: sysctl("max_user_watches") },
            errno => WatchError::System { operation: "inotify_add_watch", errno },
        })
    }

    /// Waits for the next event. Several changes of one leaf may come as one.
    pub fn next(&self) -> Result<Event, WatchError> {
        let mut waiting = lock(&self.waiting);
        loop {
            if let Some(event) = waiting.pop_front() {
                return Ok(event);
            }
            if self.wait()? {
                return Ok(Event::Stopped);
            }
            self.fetch(&mut waiting)?;
        }
    }

    /// What ends [`Self::next`], for another thread.
    pub fn stopper(&self) -> Stop {
        Stop(Arc::clone(&self.stop))
    }

    /// Waits until there is something to read; true if it is the call to stop.
    fn wait(&self) -> Result<bool, WatchError> {
        let mut fds = [
            PollFd::from_borrowed_fd(self.stop.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.inotify.as_fd(), PollFlags::IN),
        ];
        match rustix::event::poll(&mut fds, None) {
            Ok(_) => Ok(!fds[0].revents().is_empty()),
            Err(Raw::INTR) => Ok(false),
            Err(errno) => Err(WatchError::System { operation: "poll", errno }),
        }
    }

    /// Reads one buffer full of events, each cell once.
    fn fetch(&self, waiting: &mut VecDeque<Event>) -> Result<(), WatchError> {
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        loop {
            let told = match reader.next() {
                Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => Some(Event::Lost),
                Ok(event) => lock(&self.watched).event(event.wd()),
                Err(Raw::AGAIN | Raw::INTR) => None,
                Err(errno) => return Err(WatchError::System { operation: "read of inotify events", errno }),
            };
            waiting.extend(told.filter(|event| !waiting.contains(event)));
            if reader.is_buffer_empty() {
                return Ok(());
            }
        }
    }
}

impl Stop {
    /// Makes [`Watch::next`] return [`Event::Stopped`], now and from here on.
    pub fn stop(&self) {
        // The one error is a full counter, and then it is readable already.
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }
}

/// A panic in another thread leaves these maps consistent: each change is one insertion.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn sysctl(name: &str) -> String {
    fs::read_to_string(format!("/proc/sys/fs/inotify/{name}"))
        .map_or_else(|_| "?".into(), |text| text.trim().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch() -> Watch {
        let base = fs::File::open("/").unwrap();
        Watch {
            base: base.into(),
            base_path: "/".into(),
            realm: String::new(),
            inotify: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).unwrap(),
            stop: Arc::new(rustix::event::eventfd(0, EventfdFlags::CLOEXEC).unwrap()),
            watched: Mutex::default(),
            waiting: Mutex::default(),
        }
    }

    #[test]
    fn a_full_queue_is_told_as_lost_events() {
        let watch = watch();
        let limit: usize = sysctl("max_queued_events").parse().unwrap();
        let directory = std::env::temp_dir().join(format!("pinfold-k-watch-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        // Two files in turn: the kernel merges an event with one just like it at the end of the queue.
        let files = [1, 2].map(|number| {
            let path = directory.join(number.to_string());
            let file = fs::File::create(&path).unwrap();
            let descriptor = inotify::add_watch(&watch.inotify, &path, WatchFlags::MODIFY).unwrap();
            lock(&watch.watched).cells.insert(descriptor, CellId::new(number).unwrap());
            file
        });
        for _ in 0..=limit / 2 {
            for file in &files {
                rustix::io::write(file, b"x").unwrap();
            }
        }
        fs::remove_dir_all(&directory).unwrap();
        let mut told = 0;
        while watch.next().unwrap() != Event::Lost {
            told += 1;
        }
        assert!(told >= 2, "what was queued is told first");
        watch.stopper().stop();
        assert_eq!(watch.next().unwrap(), Event::Stopped);
    }

    #[test]
    fn a_stale_event_of_a_leaf_that_is_not_watched_any_more_is_dropped() {
        let watch = watch();
        let path = std::env::temp_dir().join(format!("pinfold-k-stale-{}", std::process::id()));
        let file = fs::File::create(&path).unwrap();
        let descriptor = inotify::add_watch(&watch.inotify, &path, WatchFlags::MODIFY).unwrap();
        let cell = CellId::new(1).unwrap();
        lock(&watch.watched).cells.insert(descriptor, cell);
        lock(&watch.watched).descriptors.insert(cell, descriptor);
        rustix::io::write(&file, b"x").unwrap();
        watch.remove(cell);
        fs::remove_file(&path).unwrap();
        let mut waiting = VecDeque::new();
        watch.fetch(&mut waiting).unwrap();
        assert!(waiting.is_empty());
    }
}
