//! Reading from a socket over which anybody may pass any descriptor: those that no method takes are not let into the daemon.
//!
//! Closing one may wait for whoever made it (see [`apart`]). So it is looked first whether any come; if so, they are
//! taken in apart, and the only ones that get here are of processes, which are closed at once, and at the doors of Unix sockets:
//! for what lies unread in those whoever passed them waits alone.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use pinfold_sys::apart::{self, Closing, Received};
use rustix::net::{AddressFamily, RecvAncillaryBuffer, RecvFlags, ReturnFlags};
use rustix::process::{WaitId, WaitIdOptions, waitid};

/// What lies in a socket, and stays there.
pub(crate) struct Ahead {
    /// How many bytes; 0 at the end.
    pub(crate) length: usize,
    /// Whether descriptors come with them.
    pub(crate) has_descriptors: bool,
}

/// Descriptors that were taken out of a socket.
#[derive(Debug)]
pub(crate) struct Passed {
    /// How many bytes they came with.
    pub(crate) length: usize,
    /// One for each that came, but no more than are handed over at once.
    pub(crate) fds: Vec<OwnedFd>,
    /// How many came.
    pub(crate) count: usize,
    /// What closes those that no method takes.
    pub(crate) closing: Option<Closing>,
}

/// Looks at what is next in a socket: no further than to the first descriptors. Those are not opened.
///
/// Source: unix(7), recv(2): without room for them, `MSG_CTRUNC` is all that tells of them.
pub(crate) fn look(stream: &UnixStream, buffer: &mut [u8]) -> io::Result<Ahead> {
    let mut control = RecvAncillaryBuffer::default();
    let message =
        rustix::net::recvmsg(stream, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::PEEK)?;
    Ok(Ahead { length: message.bytes, has_descriptors: message.flags.contains(ReturnFlags::CTRUNC) })
}

/// Takes what was seen; if descriptors come with it, they are dropped, unopened.
pub(crate) fn take(stream: &UnixStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut control = RecvAncillaryBuffer::default();
    let message =
        rustix::net::recvmsg(stream, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::empty())?;
    Ok(message.bytes)
}

/// Takes what was seen, with its descriptors. The socket must not wait.
pub(crate) fn take_with_descriptors(
    stream: &UnixStream,
    buffer: &mut [u8],
    is_welcome: fn(BorrowedFd<'_>) -> bool,
) -> io::Result<Passed> {
    let taken = apart::receive(stream, buffer.len(), is_welcome)?;
    let Received { bytes, count } = taken.what;
    buffer[..bytes.len()].copy_from_slice(&bytes);
    Ok(Passed { length: bytes.len(), fds: taken.fds, count, closing: taken.closing })
}

/// Whether a descriptor is of a process, which does not get to the file system that a file is of.
///
/// Source: waitid(2) `P_PIDFD`: EBADF for what is no pidfd, ECHILD for a process of others.
pub(crate) fn is_process(fd: BorrowedFd<'_>) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    !matches!(waitid(WaitId::PidFd(fd.as_fd()), options), Err(rustix::io::Errno::BADF))
}

/// Whether a descriptor is of a process or of a Unix socket.
///
/// Source: getsockopt(2) `SO_DOMAIN`.
pub(crate) fn is_process_or_socket(fd: BorrowedFd<'_>) -> bool {
    rustix::net::sockopt::socket_domain(fd) == Ok(AddressFamily::UNIX) || is_process(fd)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    use std::time::{Duration, Instant};

    use rustix::process::{PidfdFlags, getpid, pidfd_open};

    use super::*;
    use crate::stream::send;

    /// A TCP socket whose last close(2) waits for the other end, which does not read.
    pub(crate) fn lingering() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (other_end, _) = listener.accept().unwrap();
        rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::from_secs(600))).unwrap();
        socket.set_nonblocking(true).unwrap();
        while socket.write(&[0; 1 << 16]).is_ok() {}
        (socket, other_end)
    }

    /// Waits until something is so that nobody tells of.
    pub(crate) fn waits_for(mut is_so: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !is_so() {
            assert!(Instant::now() < deadline, "it never is");
            std::thread::yield_now();
        }
    }

    #[test]
    fn only_what_some_method_takes_is_let_in() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let (one, other) = UnixStream::pair().unwrap();
        let pidfd = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!([one.as_fd(), other.as_fd(), pidfd.as_fd()].into_iter().all(is_process_or_socket));
        assert!(![null.as_fd(), tcp.as_fd()].into_iter().any(is_process_or_socket));
        assert!(is_process(pidfd.as_fd()));
        assert!(![null.as_fd(), tcp.as_fd(), one.as_fd()].into_iter().any(is_process));
    }

    /// Also not when it lies in the queue of another.
    #[test]
    fn in_the_place_of_what_is_not_let_in_is_nothing_and_nobody_waits_for_it() {
        let (client, server) = UnixStream::pair().unwrap();
        server.set_nonblocking(true).unwrap();
        let (socket, other_end) = lingering();
        let (inner, outer) = UnixStream::pair().unwrap();
        send(&inner, b"x", &[socket.as_fd()]).unwrap();
        send(&client, b"xy", &[outer.as_fd()]).unwrap();
        drop((socket, inner, outer));
        let mut buffer = [0; 16];
        let ahead = look(&server, &mut buffer).unwrap();
        assert!(ahead.has_descriptors && ahead.length == 2);
        let passed = take_with_descriptors(&server, &mut buffer[..2], is_process).unwrap();
        assert_eq!((&buffer[..2], passed.length), (&b"xy"[..], 2));
        let [stand_in] = &passed.fds[..] else { panic!("one came") };
        let link = std::fs::read_link(format!("/proc/self/fd/{}", stand_in.as_raw_fd())).unwrap();
        assert_eq!(link.to_str(), Some("anon_inode:[eventfd]"));
        let closing = passed.closing.unwrap();
        waits_for(|| closing.is_over());
        drop(other_end);
    }

    #[test]
    fn what_is_let_in_is_what_was_passed_and_no_more_than_may_be() {
        let (client, server) = UnixStream::pair().unwrap();
        server.set_nonblocking(true).unwrap();
        let (kept, passed) = UnixStream::pair().unwrap();
        send(&client, b"x", &[passed.as_fd()]).unwrap();
        drop(passed);
        let come = take_with_descriptors(&server, &mut [0; 8], is_process_or_socket).unwrap();
        assert!(come.closing.is_none());
        UnixStream::from(come.fds.into_iter().next().unwrap()).write_all(b"z").unwrap();
        let mut byte = [0];
        std::io::Read::read_exact(&mut (&kept), &mut byte).unwrap();
        assert_eq!(byte, *b"z");
        let fds = [kept.as_fd(); apart::MOST + 1];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(apart::MOST + 1))];
        let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
        assert!(control.push(rustix::net::SendAncillaryMessage::ScmRights(&fds)));
        let flags = rustix::net::SendFlags::empty();
        rustix::net::sendmsg(&client, &[std::io::IoSlice::new(b"x")], &mut control, flags).unwrap();
        let come = take_with_descriptors(&server, &mut [0; 8], is_process_or_socket).unwrap();
        assert_eq!((come.count, come.fds.len()), (apart::MOST + 1, apart::MOST));
    }
}
