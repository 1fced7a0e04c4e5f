//! A child that reads in the caller's stead what may never answer: the memory of another process, which a third one keeps locked while
//! it waits for a file system of somebody's own (FUSE).
//!
//! Not even SIGKILL ends who waits there, and a process does not end before its last thread does. So it is a child that waits, with no
//! descriptor but one socket, and a caller that has waited long enough leaves it behind.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, Result};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};

use crate::child::Child;
use crate::last_errno;

/// How long an answer is waited for before the caller is asked whether to wait on.
const NAP: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
/// How long a child that waits for nobody takes to end, at most, on a busy machine.
const ENDING: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// The longest message.
const LONGEST: usize = 32 << 10;

/// What an answer begins with: more of it follows; that was all; what failed.
const PIECE: u8 = 0;
const END: u8 = 1;
const FAILED: u8 = 2;

/// The child. It ends when this is dropped, or with the caller; one that is kept waiting when that is over.
#[derive(Debug)]
pub struct Reader {
    child: Child,
    socket: OwnedFd,
}

impl Reader {
    /// Starts one. The caller may have any number of threads.
    ///
    /// Errors: those of clone(2) and socketpair(2).
    pub fn start() -> Result<Self> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let socket = theirs.as_raw_fd();
        let child = Child::start([socket], || answer_at(socket))?;
        Ok(Self { child, socket: ours })
    }

    /// What is in a file: so many bytes of it at most. While nothing comes, `waits` is asked now and then whether to wait on.
    ///
    /// Errors: those of open(2) and read(2). ETIMEDOUT: it was not waited for any longer; this reader is of no use any more.
    pub fn read(&mut self, path: &CStr, most: usize, mut waits: impl FnMut() -> bool) -> Result<Vec<u8>> {
        let most = u32::try_from(most).unwrap_or(u32::MAX);
        let question = [&most.to_ne_bytes()[..], path.to_bytes_with_nul()].concat();
        rustix::io::retry_on_intr(|| send(&self.socket, &question, SendFlags::NOSIGNAL))?;
        let mut answer = Vec::new();
        let mut message = vec![0; LONGEST];
        loop {
            match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&NAP)) {
                Ok(0) | Err(Errno::INTR) if waits() => continue,
                Ok(0) | Err(Errno::INTR) => return Err(Errno::TIMEDOUT),
                ready => ready?,
            };
            let (_, length) = recv(&self.socket, message.as_mut_slice(), RecvFlags::empty())?;
            match message[..length] {
                [PIECE, ref piece @ ..] => answer.extend_from_slice(piece),
                [END] => return Ok(answer),
                [FAILED, errno] => return Err(Errno::from_raw_os_error(errno.into())),
                // Somebody has killed it.
                _ => return Err(Errno::CHILD),
            }
            if !waits() {
                return Err(Errno::TIMEDOUT);
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.child.kill();
        // One that is kept waiting ends when that is over, and is left to whoever reaps orphans.
        self.child.ends_within(ENDING);
    }
}

/// What the child does: answers questions until nobody has the other end.
fn answer_at(socket: RawFd) {
    let mut question = [0_u8; LONGEST];
    loop {
        // SAFETY: as many bytes at most are written to `question` as it has.
        let length = unsafe { libc::read(socket, question.as_mut_ptr().cast(), question.len()) };
        let answered = match usize::try_from(length) {
            Ok(0) => false,
            Ok(length) => match &question[..length] {
                [a, b, c, d, path @ ..] => {
                    read_for(socket, path, u32::from_ne_bytes([*a, *b, *c, *d]) as usize)
                }
                _ => false,
            },
            Err(_) => last_errno() == Errno::INTR,
        };
        if !answered {
            return;
        }
    }
}

/// Sends what is in a file, whose name ends in a null byte. Whether the answer could be given.
fn read_for(socket: RawFd, path: &[u8], most: usize) -> bool {
    let Ok(path) = CStr::from_bytes_with_nul(path) else { return false };
    // SAFETY: `path` ends in a null byte and outlives the call.
    let file = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NOCTTY) };
    if file < 0 {
        return fail(socket, last_errno());
    }
    let is_sent = send_pieces(socket, file, most);
    // SAFETY: the descriptor is this function's, and is used no more.
    unsafe { libc::close(file) };
    match is_sent {
        Ok(is_sent) => is_sent && say(socket, &[END]),
        Err(errno) => fail(socket, errno),
    }
}

fn send_pieces(socket: RawFd, file: RawFd, most: usize) -> Result<bool> {
    let mut message = [PIECE; LONGEST];
    let mut left = most;
    while left > 0 {
        let room = left.min(LONGEST - 1);
        // SAFETY: as many bytes at most are written behind the first of `message` as there are.
        let length = unsafe { libc::read(file, message[1..].as_mut_ptr().cast(), room) };
        match usize::try_from(length) {
            Ok(0) => break,
            Ok(length) if say(socket, &message[..=length]) => left -= length,
            Ok(_) => return Ok(false),
            Err(_) if last_errno() == Errno::INTR => {}
            Err(_) => return Err(last_errno()),
        }
    }
    Ok(true)
}

fn fail(socket: RawFd, errno: Errno) -> bool {
    say(socket, &[FAILED, u8::try_from(errno.raw_os_error()).unwrap_or(u8::MAX)])
}

fn say(socket: RawFd, message: &[u8]) -> bool {
    loop {
        // SAFETY: `message` is borrowed until the call returns, and is as long as it says.
        let sent = unsafe { libc::send(socket, message.as_ptr().cast(), message.len(), libc::MSG_NOSIGNAL) };
        if sent >= 0 || last_errno() != Errno::INTR {
            return sent >= 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::os::unix::ffi::OsStringExt;
    use std::path::Path;

    use super::*;

    fn name(path: &Path) -> CString {
        CString::new(path.to_owned().into_os_string().into_vec()).unwrap()
    }

    #[test]
    fn it_reads_as_much_as_is_asked_for_and_says_why_not() {
        let dir = std::env::temp_dir().join(format!("pinfold-reader-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let content: Vec<u8> = (0..3 * LONGEST).map(|at| (at % 251) as u8).collect();
        std::fs::write(dir.join("file"), &content).unwrap();
        let [file, other] = ["file", "other"].map(|file| name(&dir.join(file)));
        let mut reader = Reader::start().unwrap();
        assert_eq!(reader.read(&file, usize::MAX, || true).unwrap(), content);
        assert_eq!(reader.read(&file, LONGEST + 7, || true).unwrap(), content[..LONGEST + 7]);
        assert_eq!(reader.read(&other, 7, || true), Err(Errno::NOENT));
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn what_does_not_answer_is_left() {
        // Opening it waits for somebody who writes.
        let pipe = std::env::temp_dir().join(format!("pinfold-reader-pipe-{}", std::process::id()));
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        let mut reader = Reader::start().unwrap();
        let mut asked = 0;
        let waits = || {
            asked += 1;
            asked < 3
        };
        assert_eq!(reader.read(&name(&pipe), 7, waits), Err(Errno::TIMEDOUT));
        assert_eq!(asked, 3);
        std::fs::remove_file(&pipe).unwrap();
    }
}
