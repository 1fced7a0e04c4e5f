//! One mounted hierarchy: superblock, serving threads, and the threads that keep the kernel's cache right.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::sync::{Arc, mpsc};

use pinfold_model::HierarchyId;
use pinfold_realm::{Changed, FrontEnd, Node, Realm};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::connection::{Abort, Connection, UnmountError};
use crate::forget::{Stale, Teller};
use crate::group_fs::GroupFs;
use crate::numbering::Numbering;
use crate::serve::{Serving, serve};
use crate::superblock::Superblock;

/// What is mounted, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct What {
    /// The hierarchy.
    pub hierarchy: HierarchyId,
    /// What the first column of /proc/mounts shows.
    pub source: String,
    /// How many threads serve it.
    pub threads: NonZeroUsize,
}

/// A mounted hierarchy, served until the kernel has no use for it any more.
#[derive(Debug)]
pub(crate) struct Mount {
    hierarchy: HierarchyId,
    via: FrontEnd,
    numbering: Numbering,
    connection: Connection,
    abort: Abort,
    device: Arc<File>,
    teller: Teller,
    serving: Serving,
}

impl Mount {
    /// Starts to serve a superblock. `ended` is called when it is gone.
    pub(crate) fn start(
        file_system: GroupFs,
        realm: &Arc<Realm>,
        what: &What,
        superblock: Superblock,
        ended: impl FnOnce() + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let Superblock { device, connection, abort } = superblock;
        let device: Arc<File> = Arc::new(device);
        let file_system = file_system.on(Arc::clone(&device));
        let (via, numbering) = (file_system.via(), file_system.numbering());
        let teller = Teller::start(&device, numbering, realm)?;
        let serving = serve(Arc::clone(&device), file_system, what.threads, ended)?;
        Ok(Self { hierarchy: what.hierarchy, via, numbering, connection, abort, device, teller, serving })
    }

    /// The hierarchy that it shows, and the kernel's handle on it.
    pub(crate) fn shown(&self) -> (HierarchyId, Connection) {
        (self.hierarchy, self.connection)
    }

    /// The node of this inode number, if the device is this superblock's.
    pub(crate) fn node(&self, device: (u32, u32), inode: u64) -> Option<Node> {
        self.connection.is(device).then(|| self.numbering.node(inode))?
    }

    /// Has the kernel forget what a change made stale. Does not wait for it.
    pub(crate) fn tell(&self, changed: &Changed) {
        if let Some(stale) = Stale::from_change(changed, self.hierarchy, self.via) {
            self.teller.tell(&stale);
        }
    }

    /// Has `when_dropped` dropped when the kernel has forgotten all that it was told to forget up to now.
    pub(crate) fn settle(&self, when_dropped: &mpsc::Sender<()>) {
        self.teller.settle(when_dropped);
    }

    /// Takes the mount away and ends it, also for those who still use it: their calls fail with ENOTCONN. Returns when
    /// every serving thread has ended. Not to be called in one of them.
    pub(crate) fn stop(self) -> Result<(), UnmountError> {
        // A mount that has ended already: its number may be another's by now.
        let ended = is_disconnected(&self.device);
        let detached = if ended { Ok(()) } else { self.connection.detach() };
        let gone = ended || self.abort.abort() || is_disconnected(&self.device);
        if gone {
            self.serving.join();
            self.teller.stop();
        } else {
            tracing::warn!("the mount is still in use; it is served until its last user leaves");
        }
        detached
    }
}

/// Whether the superblock behind a device is gone: fuse_dev_poll().
fn is_disconnected(device: &File) -> bool {
    let mut wanted = [PollFd::new(device, PollFlags::empty())];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut wanted, Some(&at_once)).is_ok() && wanted[0].revents().contains(PollFlags::ERR)
}
