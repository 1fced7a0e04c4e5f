//! The program that a process executes: its path, its file, and which file is at that path for us.
//!
//! Nothing here waits for a file system: what is on the way to a path may be another user's (FUSE), or on a server that is away.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd};

use pinfold_model::HostPid;
use pinfold_sys::aside;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags, openat2, statx};
use rustix::io::Errno as Raw;

use crate::listener::FileIdentity;
use crate::proc;
use crate::process::ProcessError;

/// The path of the program that a process executes. `None`: a kernel thread executes none, a zombie no more.
pub fn path_of(process: HostPid) -> Result<Option<Vec<u8>>, ProcessError> {
    match proc::link(&format!("{process}/exe")) {
        Ok(path) => Ok(Some(path)),
        Err(Raw::NOENT) => Ok(None),
        Err(errno) => Err(ProcessError::of(process, "exe", errno)),
    }
}

/// The file that a process executes, as the kernel remembers its numbers.
pub fn file_of(process: HostPid) -> Option<FileIdentity> {
    let exe = format!("{process}/exe");
    let found = statx(proc::directory().ok()?, exe, AtFlags::STATX_DONT_SYNC, StatxFlags::INO).ok()?;
    Some(FileIdentity { device: (found.stx_dev_major, found.stx_dev_minor), inode: found.stx_ino })
}

/// Which file is at a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// This one.
    Holds(FileIdentity),
    /// None that we can find.
    Empty,
    /// The kernel remembers not all of the way: a file system has to be asked.
    Unknown,
}

impl Place {
    /// What the kernel remembers. In the mount namespace that a program was started from, that is all of the way while it runs, if its
    /// file system is local.
    ///
    /// Source: openat2(2), `RESOLVE_CACHED`, Linux 5.12.
    pub fn remembered(path: &[u8]) -> Self {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let opened = openat2(CWD, path, flags, Mode::empty(), ResolveFlags::CACHED);
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        match opened.and_then(|file| statx(file, "", flags, StatxFlags::INO)) {
            Ok(found) => Self::Holds(FileIdentity {
                device: (found.stx_dev_major, found.stx_dev_minor),
                inode: found.stx_ino,
            }),
            Err(Raw::NOENT | Raw::NOTDIR | Raw::ACCESS | Raw::LOOP | Raw::NAMETOOLONG) => Self::Empty,
            Err(_) => Self::Unknown,
        }
    }
}

/// Somebody who asks the file systems on the way to a path. Readable when there is an answer.
#[derive(Debug)]
pub struct Asking(aside::Asking);

impl Asking {
    /// Begins to ask.
    pub fn about(path: &[u8]) -> Result<Self, Raw> {
        let path = CString::new(path).map_err(|_| Raw::INVAL)?;
        aside::Asking::about(&path).map(Self)
    }

    /// What is there; `None`: there is no answer yet.
    pub fn answer(&self) -> Option<Place> {
        self.0.answer().map(|answer| match answer {
            Ok((major, minor, inode)) => Place::Holds(FileIdentity { device: (major, minor), inode }),
            Err(_) => Place::Empty,
        })
    }

    /// Whether it waits no more.
    pub fn is_over(&self) -> bool {
        self.0.is_over()
    }
}

impl AsFd for Asking {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;
    use crate::process::own_pid;

    #[test]
    fn the_program_of_this_process_is_where_its_path_says() {
        let path = path_of(own_pid()).unwrap().unwrap();
        let file = file_of(own_pid()).unwrap();
        // What is executed is in the kernel's cache, with all that leads there.
        assert_eq!(Place::remembered(&path), Place::Holds(file));
        let asking = Asking::about(&path).unwrap();
        poll(&mut [PollFd::new(&asking, PollFlags::IN)], None).unwrap();
        assert_eq!(asking.answer(), Some(Place::Holds(file)));
        let mut other = path.clone();
        other.push(b'x');
        let asking = Asking::about(&other).unwrap();
        poll(&mut [PollFd::new(&asking, PollFlags::IN)], None).unwrap();
        assert_eq!(asking.answer(), Some(Place::Empty));
        assert_eq!(Place::remembered(&other), Place::Empty, "it is remembered that it is not there");
        assert!(Asking::about(b"a\0b").is_err());
    }
}
