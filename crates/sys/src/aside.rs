//! A child that finds out which file is at a path, which may take for ever.
//!
//! To look a path up is to ask the file systems on the way, also one that another user serves (FUSE), or a server that is away (NFS).
//! Whoever waits for such an answer cannot be killed, and a process one of whose threads waits does not end. So a child asks, which has
//! nothing open and of which nobody waits for the end.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use rustix::io::{Errno, Result};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::child::Child;

/// Which file something is: major and minor number of its device, and its inode.
pub type File = (u32, u32, u64);

/// A child that looks a path up. Readable when it has an answer.
#[derive(Debug)]
pub struct Asking {
    child: Child,
    answer: OwnedFd,
}

/// What the child writes: an errno or 0, and the numbers.
const ANSWER: usize = 20;

impl Asking {
    /// Has a path looked up. Symbolic links are followed. The caller may have any number of threads.
    ///
    /// Errors: those of clone(2) and pipe(2).
    /// Source: statx(2).
    pub fn about(path: &CStr) -> Result<Self> {
        let (answer, told) = pipe_with(PipeFlags::CLOEXEC)?;
        let tells = told.as_raw_fd();
        let child = Child::start([tells], || tell(path, tells))?;
        Ok(Self { child, answer })
    }

    /// Which file is there, once; `None`: there is no answer yet. Afterwards nothing is left of the child.
    ///
    /// Errors: those of the look. ECHILD: the child has ended without a word, or has answered before.
    pub fn answer(&self) -> Option<Result<File>> {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        if poll(&mut [PollFd::new(&self.answer, PollFlags::IN)], Some(&at_once)) == Ok(0) {
            return None;
        }
        let mut told = [0; ANSWER];
        let answer = match rustix::io::retry_on_intr(|| rustix::io::read(&self.answer, &mut told)) {
            Ok(ANSWER) => understand(&told),
            Ok(_) => Err(Errno::CHILD),
            Err(errno) => Err(errno),
        };
        // It is at its end, and has nothing open that could keep it.
        self.child.wait();
        Some(answer)
    }

    /// Whether it has ended. Then nothing is left of it.
    pub fn is_over(&self) -> bool {
        self.child.has_ended()
    }
}

impl AsFd for Asking {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.answer.as_fd()
    }
}

impl Drop for Asking {
    /// One that is not over ends when it has its answer, and stays a zombie until the caller ends.
    fn drop(&mut self) {
        if !self.is_over() {
            self.child.kill();
        }
    }
}

fn understand(told: &[u8; ANSWER]) -> Result<File> {
    let word = |at: usize| u32::from_ne_bytes([told[at], told[at + 1], told[at + 2], told[at + 3]]);
    match word(0) {
        0 => Ok((word(4), word(8), u64::from(word(12)) | u64::from(word(16)) << 32)),
        errno => Err(Errno::from_raw_os_error(errno.cast_signed())),
    }
}

/// What the child does.
fn tell(path: &CStr, tells: RawFd) {
    // The numbers of a file never change: what the kernel remembers of them is enough.
    let (errno, (major, minor, inode)) = match statx(CWD, path, AtFlags::STATX_DONT_SYNC, StatxFlags::INO) {
        Ok(found) => (0, (found.stx_dev_major, found.stx_dev_minor, found.stx_ino)),
        Err(errno) => (errno.raw_os_error(), (0, 0, 0)),
    };
    let mut told = [0_u8; ANSWER];
    told[..4].copy_from_slice(&errno.to_ne_bytes());
    told[4..8].copy_from_slice(&major.to_ne_bytes());
    told[8..12].copy_from_slice(&minor.to_ne_bytes());
    told[12..16].copy_from_slice(&(inode as u32).to_ne_bytes());
    told[16..].copy_from_slice(&((inode >> 32) as u32).to_ne_bytes());
    // SAFETY: `told` is as long as is said, and nothing writes to it.
    unsafe { libc::write(tells, told.as_ptr().cast(), told.len()) };
}

#[cfg(test)]
mod tests {
    use std::os::linux::fs::MetadataExt;

    use super::*;

    fn answer(path: &CStr) -> Result<File> {
        let asking = Asking::about(path).unwrap();
        poll(&mut [PollFd::new(&asking, PollFlags::IN)], None).unwrap();
        let answer = asking.answer().unwrap();
        assert!(asking.is_over());
        assert_eq!(asking.answer(), Some(Err(Errno::CHILD)));
        answer
    }

    #[test]
    fn a_child_says_which_file_is_at_a_path() {
        let meta = std::fs::metadata("/proc/self/exe").unwrap();
        let path = std::fs::read_link("/proc/self/exe").unwrap();
        let path = std::ffi::CString::new(path.into_os_string().into_encoded_bytes()).unwrap();
        let device = meta.st_dev();
        let file = (rustix::fs::major(device), rustix::fs::minor(device), meta.st_ino());
        assert_eq!(answer(&path), Ok(file));
        assert_eq!(answer(c"/no/such/file"), Err(Errno::NOENT));
        assert_eq!(answer(c"/proc/self/exe/x"), Err(Errno::NOTDIR));
        assert_eq!(understand(&[7; ANSWER]), Err(Errno::from_raw_os_error(0x0707_0707)));
    }
}
