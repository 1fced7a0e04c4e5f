//! v2 files of which the kernel tells when they change (`memory.events.local`): waiting for them costs no look in between.
//!
//! Source: cgroup_file_notify(), kernfs_fop_poll(): a file that was read is quiet until it changes, and then for poll(2)
//! exceptional until it is read again; so is one whose directory is gone.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use pinfold_model::Dir;
use rustix::fs::OFlags;

use crate::{ReadError, Tree, Where, beneath};

/// An open v2 file that is waited for: POLLPRI says that it changed.
#[derive(Debug)]
pub struct Alarm(OwnedFd);

impl Tree {
    /// Opens a file to wait for. What changed before [`Alarm::quiet`] is called is told by that.
    pub fn alarm(&self, dir: &Dir, file: &'static str) -> Result<Alarm, ReadError> {
        let path = self.path_of(Where::Dir(dir));
        beneath::open(&self.base, path.join(file), OFlags::RDONLY)
            .map(Alarm)
            .map_err(|errno| self.read_error(&path, file, errno))
    }
}

impl Alarm {
    /// Makes it quiet until the next change; look at what it is about afterwards. False if the directory is gone.
    pub fn quiet(&self) -> bool {
        let mut some = [MaybeUninit::uninit(); 64];
        rustix::io::pread(&self.0, &mut some, 0).is_ok()
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
