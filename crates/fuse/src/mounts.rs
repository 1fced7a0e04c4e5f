//! All mounts of a daemon: made, listed, told of changes, stopped.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, Weak, mpsc};

use pinfold_model::{GroupId, HierarchyId};
use pinfold_realm::{FrontEnd, Realm};
use rustix::io::Errno;

use crate::connection::{Connection, UnmountError};
use crate::forget::SETTLING;
use crate::group_fs::GroupFs;
use crate::mount::{Mount, What};
use crate::superblock::{Superblock, SuperblockError, attach};

/// The mounts of one realm. Each holds one pin of its hierarchy ([`Realm::mount`]), from here on released by
/// [`Realm::unmounted`] when the kernel is done with the mount.
pub struct Mounts {
    realm: Arc<Realm>,
    live: Arc<Live>,
}

/// One mount.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MountInfo {
    /// The hierarchy that it shows.
    pub hierarchy: HierarchyId,
    /// Where, as far as the daemon's mount namespace shows.
    pub places: Vec<PathBuf>,
}

/// Why a hierarchy is not mounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// It went meanwhile.
    #[error("hierarchy {0} is not there")]
    NoHierarchy(HierarchyId),
    /// The kernel's side.
    #[error(transparent)]
    Superblock(#[from] SuperblockError),
    /// No thread can be started to serve it.
    #[error("no thread can be started to serve the mount")]
    Threads(#[source] io::Error),
}

/// Lock order: a leaf. While it is held, the realm is not called: the realm tells of changes with its own locks held.
#[derive(Debug, Default)]
struct Live(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    last: u32,
    mounts: BTreeMap<u32, Mount>,
}

impl Mounts {
    /// No mounts yet.
    pub fn new(realm: Arc<Realm>) -> Self {
        let live = Arc::new(Live::default());
        let told: Weak<Live> = Arc::downgrade(&live);
        realm.watch(move |changed| {
            let Some(live) = told.upgrade() else { return };
            live.lock().mounts.values().for_each(|mount| mount.tell(changed));
        });
        let asked: Weak<Live> = Arc::downgrade(&live);
        realm.find_with(move |device, inode| {
            asked.upgrade()?.lock().mounts.values().find_map(|mount| mount.node(device, inode))
        });
        Self { realm, live }
    }

    /// Makes a detached mount, whose descriptor the caller gives to whoever puts it at a place ([`attach`]). When nobody
    /// holds or uses it any more, the mount ends. Takes over one pin of the hierarchy, also on error.
    pub fn detached(&self, what: &What) -> Result<OwnedFd, MountError> {
        let root = self.root_of(what)?;
        let made = Superblock::detached(&what.source);
        let (superblock, fd) = made.map_err(|error| self.give_up(what, error))?;
        self.start(what, root, superblock)?;
        Ok(fd)
    }

    /// Mounts at a directory of the daemon's mount namespace, without the privilege to mount with the help of
    /// fusermount3. Takes over one pin of the hierarchy, also on error.
    pub fn at(&self, what: &What, dir: &Path) -> Result<(), MountError> {
        let root = self.root_of(what)?;
        match Superblock::detached(&what.source) {
            Ok((superblock, fd)) => {
                self.start(what, root, superblock)?;
                // On error the descriptor is closed, and the mount ends as any other does.
                Ok(attach(fd, dir)?)
            }
            Err(SuperblockError::Refused { source: Errno::PERM, .. }) => {
                let made = Superblock::by_helper(&what.source, dir);
                let superblock = made.map_err(|error| self.give_up(what, error))?;
                let connection = superblock.connection;
                self.start(what, root, superblock).inspect_err(|_| {
                    // Nobody will ever answer there.
                    connection.detach().unwrap_or_else(|error| tracing::error!("{error}"));
                })
            }
            Err(error) => Err(self.give_up(what, error).into()),
        }
    }

    /// Every mount.
    pub fn list(&self) -> Result<Vec<MountInfo>, UnmountError> {
        let mounts: Vec<_> = self.live.lock().mounts.values().map(Mount::shown).collect();
        let info = |(hierarchy, connection): (_, Connection)| {
            Ok(MountInfo { hierarchy, places: connection.places()? })
        };
        mounts.into_iter().map(info).collect()
    }

    /// Waits until the kernel has forgotten all that changed up to now, so that who asks next is shown it. Not to be called
    /// where a request is served: the kernel forgets a name only when nobody works in its directory.
    pub fn settle(&self) {
        let (when_dropped, settled) = mpsc::channel::<()>();
        self.live.lock().mounts.values().for_each(|mount| mount.settle(&when_dropped));
        drop(when_dropped);
        if settled.recv_timeout(SETTLING) == Err(mpsc::RecvTimeoutError::Timeout) {
            tracing::debug!("the kernel is slow to forget what changed");
        }
    }

    /// Takes every mount away and ends it, also for those who still use it. The first error is given when all are done.
    pub fn stop(&self) -> Result<(), UnmountError> {
        let mounts = std::mem::take(&mut self.live.lock().mounts);
        mounts.into_values().map(Mount::stop).fold(Ok(()), Result::and)
    }

    fn root_of(&self, what: &What) -> Result<GroupId, MountError> {
        self.realm.root(what.hierarchy).ok_or(MountError::NoHierarchy(what.hierarchy))
    }

    /// Starts to serve, with the table locked: from its first request on, the mount is told of changes.
    fn start(&self, what: &What, root: GroupId, superblock: Superblock) -> Result<(), MountError> {
        let mut table = self.live.lock();
        let via = table.next();
        let (live, realm, hierarchy) = (Arc::downgrade(&self.live), Arc::clone(&self.realm), what.hierarchy);
        let ended = move || {
            let mount = live.upgrade().and_then(|live| live.lock().mounts.remove(&via.0));
            drop(mount);
            realm.unmounted(hierarchy);
        };
        let file_system = GroupFs::new(Arc::clone(&self.realm), root, via);
        match Mount::start(file_system, &self.realm, what, superblock, ended) {
            Ok(mount) => {
                table.mounts.insert(via.0, mount);
                Ok(())
            }
            Err(error) => {
                drop(table);
                Err(self.give_up(what, MountError::Threads(error)))
            }
        }
    }

    fn give_up<E>(&self, what: &What, error: E) -> E {
        self.realm.unmounted(what.hierarchy);
        error
    }
}

impl Live {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().expect("nothing panics while it is held")
    }
}

impl Table {
    fn next(&mut self) -> FrontEnd {
        self.last = self.last.checked_add(1).expect("a daemon makes fewer than 2^32 mounts");
        FrontEnd(self.last)
    }
}
