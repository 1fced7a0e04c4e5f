//! Threads with a table of descriptors of their own: what they wait for keeps nothing else open.
//!
//! They are for taking in descriptors that somebody else chose, where closing them keeps nobody waiting.
//! close(2) may wait for as long as somebody else likes: for the server of a FUSE file to answer FLUSH, which not even
//! SIGKILL ends, or for the peer of a TCP socket that lingers, also of one that lies unread in a Unix socket. A process that waits
//! there at its end keeps every other descriptor: its locks, its sockets. So what comes is taken by a thread with a table of
//! descriptors of its own, which has nothing else in it. Only what is welcome is handed over. All else is closed by the end of the
//! thread: for whoever is ending no TCP socket lingers (inet_release() asks for PF_EXITING), wherever it lies.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::mpsc;
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{Errno, Result};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, socketpair,
};
use rustix::process::{Pid, getpid};

use crate::last_errno;
use crate::scout::close_all_but;
use crate::socket::{self, Sender};

/// How many descriptors may be handed over at once.
pub const MOST: usize = 2;
/// How many the kernel lets one message have: SCM_MAX_FD of include/net/scm.h.
const MOST_OF_MESSAGE: usize = 253;

/// What a thread of its own has taken in.
#[derive(Debug)]
pub struct Taken<T> {
    /// What came.
    pub what: T,
    /// The descriptors that are welcome.
    pub fds: Vec<OwnedFd>,
    /// What closes the others, if any came.
    pub closing: Option<Closing>,
}

/// A thread that closes descriptors by its end.
#[derive(Debug)]
pub struct Closing(Pid);

impl Closing {
    /// Whether all are closed, which may be never.
    ///
    /// Source: tgkill(2). A thread is there until it has closed what it had, also for those who join it sooner.
    pub fn is_over(&self) -> bool {
        let (process, thread) = (getpid().as_raw_nonzero().get(), self.0.as_raw_nonzero().get());
        // SAFETY: takes numbers only; signal 0 is none.
        unsafe { libc::syscall(libc::SYS_tgkill, process, thread, 0) != 0 }
    }
}

/// Bytes of a stream.
#[derive(Debug)]
pub struct Received {
    /// What was read.
    pub bytes: Vec<u8>,
    /// How many descriptors came. Of more than [`MOST`], the others are not handed over.
    pub count: usize,
}

/// Receives so many bytes at most, without waiting, and the descriptors that come with them, at most [`MOST`]. In the place of
/// one that is not welcome is one of nothing, an eventfd. `is_welcome` must ask neither the file system nor the driver that a
/// descriptor is of.
///
/// Errors: those of recvmsg(2); ENOMEM: there is no thread.
/// Source: unix(7), `SCM_RIGHTS`.
pub fn receive(
    socket: impl AsFd,
    length: usize,
    is_welcome: fn(BorrowedFd<'_>) -> bool,
) -> Result<Taken<Received>> {
    take(socket, move |socket, found| {
        let mut bytes = vec![0; length];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_OF_MESSAGE))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let message = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)?;
        bytes.truncate(message.bytes);
        let mut come = descriptors_in(&mut control);
        let count = come.len();
        found.others.extend(come.drain(count.min(MOST)..));
        let nothing = eventfd(0, EventfdFlags::CLOEXEC);
        for fd in come {
            match is_welcome(fd.as_fd()) {
                true => found.fds.push(fd),
                false => {
                    found.others.push(fd);
                    found.fds.extend(nothing.as_ref().ok().and_then(|nothing| nothing.try_clone().ok()));
                }
            }
        }
        Ok(Received { bytes, count })
    })
}

/// One byte and the credentials that come with it; `None`: the other end is closed. Does not wait, neither for descriptors that
/// come along: they are an error, and are closed by a thread of their own. The socket must have `SO_PASSCRED`; with
/// `SO_PASSPIDFD`, a descriptor of the process comes too.
///
/// Errors: EAGAIN: nothing has come. EBADMSG: it came without credentials, or with more than belongs to them. ESRCH: the
/// process is gone.
/// Source: unix(7), `SCM_CREDENTIALS`.
pub fn receive_credentials(socket: impl AsFd) -> (Result<Option<Sender>>, Option<Closing>) {
    let taken = take(socket, |socket, found| {
        let sender = socket::receive_credentials(socket, &mut found.others);
        Ok(sender.map(|sender| {
            let credentials = sender.as_ref().map(|sender| sender.credentials);
            found.fds.extend(sender.and_then(|sender| sender.pidfd));
            credentials
        }))
    });
    match taken {
        Err(errno) => (Err(errno), None),
        Ok(Taken { what, fds, closing }) => {
            let pidfd = fds.into_iter().next();
            (what.map(|come| come.map(|credentials| Sender { credentials, pidfd })), closing)
        }
    }
}

/// Closes a descriptor that may have others in it, without waiting for them. It is given back if there is no thread for it.
pub fn close(fd: OwnedFd) -> std::result::Result<Closing, OwnedFd> {
    let (closed, is_closed) = mpsc::channel::<()>();
    // The thread has it until it is closed here, and so is the last.
    match spawn_known("closing", &fd, move |_| _ = is_closed.recv()) {
        Err(_) => Err(fd),
        Ok((_, closing)) => {
            drop(fd);
            drop(closed);
            Ok(closing)
        }
    }
}

/// Descriptors in the thread's own table.
#[derive(Default)]
struct Found {
    /// Those that are handed over.
    fds: Vec<OwnedFd>,
    /// Those that nobody wants.
    others: Vec<OwnedFd>,
}

/// Starts a thread that has no other descriptors than this one and standard error, where logs go: what it waits for keeps
/// nothing else open.
///
/// Errors: those of close_range(2); ENOMEM: there is no thread.
pub fn spawn(
    name: &str,
    kept: impl AsFd,
    act: impl FnOnce(BorrowedFd<'_>) + Send + 'static,
) -> Result<JoinHandle<()>> {
    spawn_known(name, kept, act).map(|(thread, _)| thread)
}

fn spawn_known(
    name: &str,
    kept: impl AsFd,
    act: impl FnOnce(BorrowedFd<'_>) + Send + 'static,
) -> Result<(JoinHandle<()>, Closing)> {
    let kept = kept.as_fd().as_raw_fd();
    let (ready, told) = mpsc::channel();
    let run = move || {
        let failed = ready.clone();
        let ran = with_own_table([kept, libc::STDERR_FILENO], |[kept, _]| {
            // It is there, unless it has panicked.
            let _ = ready.send(Ok(Closing(rustix::thread::gettid())));
            act(kept);
            Ok(())
        });
        if let Err(errno) = ran {
            let _ = failed.send(Err(errno));
        }
    };
    let thread = std::thread::Builder::new().name(name.to_owned());
    let thread = thread.spawn(run).map_err(|_| Errno::NOMEM)?;
    // Until then the descriptor stays open here.
    let closing = told.recv().map_err(|_| Errno::IO)??;
    Ok((thread, closing))
}

/// Has a thread with no other descriptor than this socket take something from it.
fn take<T: Send + 'static>(
    socket: impl AsFd,
    act: impl FnOnce(BorrowedFd<'_>, &mut Found) -> Result<T> + Send + 'static,
) -> Result<Taken<T>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    let (socket, back) = (socket.as_fd().as_raw_fd(), theirs.as_raw_fd());
    let (sender, outcome) = mpsc::channel();
    let (answered, is_answered) = mpsc::channel::<()>();
    let taking = move || {
        let mut found = Found::default();
        let taken = with_own_table([socket, back], |[socket, back]| {
            let what = act(socket, &mut found)?;
            hand_over(back, &found.fds)?;
            let closing = (!found.others.is_empty()).then(|| Closing(rustix::thread::gettid()));
            Ok((what, closing))
        });
        // Whoever started this waits for it.
        let _ = sender.send(taken);
        // What is not taken over is not closed there either.
        let _ = is_answered.recv();
        for other in &found.others {
            // It may be somebody else who closes it last. Of what is no socket, it says so.
            let _ = rustix::net::sockopt::set_socket_linger(other, None);
        }
        // Left to the end of the thread, and of its table with it.
        found.fds.into_iter().chain(found.others).for_each(|fd| _ = fd.into_raw_fd());
    };
    let thread = std::thread::Builder::new().name("descriptors".to_owned());
    thread.spawn(taking).map_err(|_| Errno::NOMEM)?;
    // Until then both sockets stay open here. Without a word it has panicked.
    let (what, closing) = outcome.recv().map_err(|_| Errno::IO)??;
    drop(theirs);
    let fds = handed_over(&ours)?;
    drop(answered);
    Ok(Taken { what, fds, closing })
}

/// Does something in a table of descriptors of this thread's own, which has these of those that there were.
///
/// Of those behind the last that is kept none gets into it, not even for a moment.
///
/// Source: close_range(2), `CLOSE_RANGE_UNSHARE`. Why unsafe: what other parts of the program hold is closed in this table.
fn with_own_table<T, const N: usize>(
    kept: [RawFd; N],
    act: impl FnOnce([BorrowedFd<'_>; N]) -> Result<T>,
) -> Result<T> {
    let last = kept.iter().copied().fold(libc::STDERR_FILENO, RawFd::max).cast_unsigned();
    // SAFETY: takes numbers and a flag, with which nothing is closed in the table of others. The thread has been started for this
    // and holds no descriptor; from here on it opens its own.
    let answer =
        unsafe { libc::syscall(libc::SYS_close_range, last + 1, u32::MAX, libc::CLOSE_RANGE_UNSHARE) };
    if answer != 0 {
        return Err(last_errno());
    }
    close_all_but(kept);
    // SAFETY: they were open when the table was copied, since whoever started this thread holds them until it is answered;
    // nothing closes them in this table.
    act(kept.map(|fd| unsafe { BorrowedFd::borrow_raw(fd) }))
}

fn hand_over(back: BorrowedFd<'_>, fds: &[OwnedFd]) -> Result<()> {
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(Errno::TOOBIG);
    }
    rustix::net::sendmsg(back, &[IoSlice::new(b"x")], &mut control, SendFlags::NOSIGNAL).map(drop)
}

/// Errors: EMFILE: there is no room for them.
fn handed_over(ours: &OwnedFd) -> Result<Vec<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let message = rustix::net::recvmsg(ours, &mut [IoSliceMut::new(&mut byte)], &mut control, flags)?;
    let fds = descriptors_in(&mut control);
    if message.flags.contains(ReturnFlags::CTRUNC) { Err(Errno::MFILE) } else { Ok(fds) }
}

/// The descriptors that came with a message.
fn descriptors_in(control: &mut RecvAncillaryBuffer<'_>) -> Vec<OwnedFd> {
    let rights = control.drain().filter_map(|ancillary| match ancillary {
        RecvAncillaryMessage::ScmRights(rights) => Some(rights),
        _ => None,
    });
    rights.flatten().collect()
}
