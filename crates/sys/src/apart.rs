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
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{Errno, Result};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, socketpair,
};
use rustix::process::{Pid, PidfdGetfdFlags, getpid};

use crate::child::close_all_but;
use crate::last_errno;
use crate::signals::Blocked;
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
    let (taken, closing) = take(socket, None, move |socket, found| {
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
    });
    taken.map(|(what, fds)| Taken { what, fds, closing })
}

// What follows is about descriptors that others have too. Not even a call that is not to wait is sure not to: somebody else who
// receives from the same socket holds it until its memory answers, which may be a page of a file of its own.

/// A copy of another process's descriptor, if it is welcome; `None` if it is not. `is_welcome` must ask neither the file system
/// nor the driver that a descriptor is of.
///
/// Errors: those of pidfd_getfd(2). ETIMEDOUT: the kernel takes longer than so long, as while the process executes a program.
/// Source: pidfd_getfd(2); begin_new_exec() of fs/exec.c closes files with `exec_update_lock` held.
pub fn copy(
    pidfd: impl AsFd,
    number: RawFd,
    patience: Duration,
    is_welcome: fn(BorrowedFd<'_>) -> bool,
) -> (Result<Option<OwnedFd>>, Option<Closing>) {
    let (taken, closing) = take(pidfd, Some(patience), move |pidfd, found| {
        let copy = rustix::process::pidfd_getfd(pidfd, number, PidfdGetfdFlags::empty())?;
        if is_welcome(copy.as_fd()) {
            found.fds.push(copy)
        } else {
            found.others.push(copy)
        }
        Ok(())
    });
    (taken.map(|((), fds)| fds.into_iter().next()), closing)
}

/// What the kernel says of something, if that does not wait for somebody else.
///
/// Errors: those of `asks`. ETIMEDOUT: it takes longer than so long.
pub fn ask<T: Send + 'static>(
    of: impl AsFd,
    patience: Duration,
    asks: impl FnOnce(BorrowedFd<'_>) -> Result<T> + Send + 'static,
) -> (Result<T>, Option<Closing>) {
    let (told, closing) = take(of, Some(patience), move |of, _| asks(of));
    (told.map(|(told, _)| told), closing)
}

/// Has the kernel send along who the sender is: its credentials, and since Linux 6.5 a descriptor of it.
///
/// Errors: those of setsockopt(2). ETIMEDOUT: somebody else holds the socket for longer than so long.
/// Source: unix(7), `SO_PASSCRED`, `SO_PASSPIDFD`.
pub fn pass_credentials(socket: impl AsFd, patience: Duration) -> (Result<()>, Option<Closing>) {
    let (done, closing) = take(socket, Some(patience), |socket, _| {
        rustix::net::sockopt::set_socket_passcred(socket, true)?;
        match socket::pass_pidfd(socket) {
            Ok(()) | Err(Errno::NOPROTOOPT) => Ok(()),
            Err(errno) => Err(errno),
        }
    });
    (done.map(|_| ()), closing)
}

/// One byte and the credentials that come with it; `None`: the other end is closed. Does not wait, neither for descriptors that
/// come along: they are an error, and are closed by a thread of their own. The socket must have `SO_PASSCRED`; with
/// `SO_PASSPIDFD`, a descriptor of the process comes too.
///
/// Errors: EAGAIN: nothing has come. EBADMSG: it came without credentials, or with more than belongs to them. ESRCH: the
/// process is gone. ETIMEDOUT: somebody else holds the socket for longer than so long.
/// Source: unix(7), `SCM_CREDENTIALS`.
pub fn receive_credentials(
    socket: impl AsFd,
    patience: Duration,
) -> (Result<Option<Sender>>, Option<Closing>) {
    let (taken, closing) = take(socket, Some(patience), |socket, found| {
        let sender = socket::receive_credentials(socket, &mut found.others);
        Ok(sender.map(|sender| {
            let credentials = sender.as_ref().map(|sender| sender.credentials);
            found.fds.extend(sender.and_then(|sender| sender.pidfd));
            credentials
        }))
    });
    let come = taken.and_then(|(come, fds)| {
        let pidfd = fds.into_iter().next();
        Ok(come?.map(|credentials| Sender { credentials, pidfd }))
    });
    (come, closing)
}

/// Throws away what has come, for so long at most. Whether more can come.
///
/// Errors: EBADMSG: descriptors came along. ETIMEDOUT: somebody else holds the socket for longer than so long.
pub fn discard(socket: impl AsFd, patience: Duration) -> (Result<bool>, Option<Closing>) {
    let (done, closing) = take(socket, Some(patience), move |socket, found| {
        let deadline = Instant::now() + patience;
        let is_stream = rustix::net::sockopt::socket_type(socket)? == SocketType::STREAM;
        while Instant::now() < deadline {
            let mut bytes = [0; 64];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_OF_MESSAGE))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
            let message =
                rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags);
            found.others.extend(descriptors_in(&mut control));
            match message {
                _ if !found.others.is_empty() => return Err(Errno::BADMSG),
                Ok(message) if message.bytes == 0 && is_stream => return Ok(false),
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(true),
                Err(_) => return Ok(false),
            }
        }
        Ok(true)
    });
    (done.map(|(can_come, _)| can_come), closing)
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

/// Has a thread with no other descriptor than this one take something by it, and waits for it so long at most, or for ever.
/// Gives what is handed over, and what is not over yet: the closing of the rest, or all of it.
///
/// Errors: those of `act`. ETIMEDOUT: it has taken longer. ENOMEM: there is no thread.
fn take<T: Send + 'static>(
    from: impl AsFd,
    patience: Option<Duration>,
    act: impl FnOnce(BorrowedFd<'_>, &mut Found) -> Result<T> + Send + 'static,
) -> (Result<(T, Vec<OwnedFd>)>, Option<Closing>) {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (ours, theirs) = match socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None) {
        Ok(pair) => pair,
        Err(errno) => return (Err(errno), None),
    };
    let (from, back) = (from.as_fd().as_raw_fd(), theirs.as_raw_fd());
    let (beginning, has_begun) = mpsc::channel();
    let (sender, outcome) = mpsc::channel();
    let (answered, is_answered) = mpsc::channel::<()>();
    let taking = move || {
        let mut found = Found::default();
        let taken = with_own_table([from, back], |[from, back]| {
            // Whoever started this waits for it.
            let _ = beginning.send(Closing(rustix::thread::gettid()));
            let what = act(from, &mut found)?;
            hand_over(back, &found.fds)?;
            Ok(what)
        });
        // It may have waited long enough.
        let _ = sender.send((taken, !found.others.is_empty()));
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
    if thread.spawn(taking).is_err() {
        return (Err(Errno::NOMEM), None);
    }
    // Until then what it takes from stays open here. Without a word it has no table of its own.
    let closing = has_begun.recv().ok();
    let told = match patience {
        Some(patience) => outcome.recv_timeout(patience),
        None => outcome.recv().map_err(RecvTimeoutError::from),
    };
    let (taken, has_others) = match told {
        Ok((taken, has_others)) => (taken, has_others),
        Err(RecvTimeoutError::Timeout) => return (Err(Errno::TIMEDOUT), closing),
        // It has panicked.
        Err(RecvTimeoutError::Disconnected) => return (Err(Errno::IO), None),
    };
    drop(theirs);
    let taken = taken.and_then(|what| Ok((what, handed_over(&ours)?)));
    drop(answered);
    (taken, closing.filter(|_| has_others))
}

/// Does something in a table of descriptors of this thread's own, which has these of those that there were.
///
/// Of those behind the last that is kept none gets into it, not even for a moment. From then on the thread takes no signal:
/// handlers use descriptors of the program's.
///
/// Source: close_range(2), `CLOSE_RANGE_UNSHARE`. Why unsafe: what other parts of the program hold is closed in this table.
fn with_own_table<T, const N: usize>(
    kept: [RawFd; N],
    act: impl FnOnce([BorrowedFd<'_>; N]) -> Result<T>,
) -> Result<T> {
    // The table is the thread's own until it ends.
    std::mem::forget(Blocked::all());
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

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::process::{PidfdFlags, pidfd_open};

    const PATIENCE: Duration = Duration::from_secs(60);

    /// Memory of one page that nobody gives until this is dropped: userfaultfd(2).
    struct Unanswered {
        page: *mut libc::c_void,
        length: usize,
        answering: Option<OwnedFd>,
    }

    // SAFETY: it is an address, which the kernel alone reads and writes.
    unsafe impl Sync for Unanswered {}

    impl Unanswered {
        /// `None` where it is not to be had.
        fn new() -> Option<Self> {
            use std::os::fd::FromRawFd;
            const UFFDIO_API: libc::Ioctl = 0xc018_aa3f_u32 as libc::Ioctl;
            const UFFDIO_REGISTER: libc::Ioctl = 0xc020_aa00_u32 as libc::Ioctl;
            const MISSING: u64 = 1;
            let length = rustix::param::page_size();
            // SAFETY: takes flags only.
            let made = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | libc::O_NONBLOCK) };
            let made = libc::c_int::try_from(made).ok().filter(|fd| *fd >= 0)?;
            // SAFETY: the kernel made this descriptor for us, and nobody else owns it.
            let answering = unsafe { OwnedFd::from_raw_fd(made) };
            let (protection, flags) =
                (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            // SAFETY: new memory, which touches no other.
            let page = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, -1, 0) };
            assert_ne!(page, libc::MAP_FAILED);
            // struct uffdio_api: version, features, ioctls.
            let mut api = [0xaa_u64, 0, 0];
            // SAFETY: `api` is as long as the request says, and lives until the call returns.
            assert_eq!(unsafe { libc::ioctl(made, UFFDIO_API, api.as_mut_ptr()) }, 0);
            // struct uffdio_register: start, length, mode, ioctls.
            let mut range = [page.addr() as u64, length as u64, MISSING, 0];
            // SAFETY: `range` is as long as the request says, and lives until the call returns.
            assert_eq!(unsafe { libc::ioctl(made, UFFDIO_REGISTER, range.as_mut_ptr()) }, 0);
            Some(Self { page, length, answering: Some(answering) })
        }

        /// Receives a byte into it.
        fn receive_from(&self, socket: &UnixStream) -> isize {
            // SAFETY: the memory lives as long as `self`, and nothing else in this program looks at it.
            unsafe { libc::recv(socket.as_raw_fd(), self.page, 1, 0) }
        }
    }

    impl Unanswered {
        /// Has a socket filter what comes by a program of one instruction in it.
        fn filter(&self, socket: &UnixStream) -> libc::c_int {
            let program = libc::sock_fprog { len: 1, filter: self.page.cast() };
            let length = libc::socklen_t::try_from(size_of_val(&program)).unwrap();
            // SAFETY: `program` is as long as is said, and lives until the call returns; its filter is memory of a page.
            unsafe {
                libc::setsockopt(
                    socket.as_raw_fd(),
                    libc::SOL_SOCKET,
                    libc::SO_ATTACH_FILTER,
                    (&raw const program).cast(),
                    length,
                )
            }
        }
    }

    impl Drop for Unanswered {
        fn drop(&mut self) {
            self.answering = None;
            // SAFETY: made by mmap(2) with this length; nobody has the address any more.
            unsafe { libc::munmap(self.page, self.length) };
        }
    }

    fn waits_for(mut is_so: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so() {
            assert!(Instant::now() < deadline, "it never is");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_socket_that_somebody_else_holds_is_waited_for_so_long_and_no_longer() {
        let Some(mut memory) = Unanswered::new() else {
            assert!(!rustix::process::geteuid().is_root(), "root has it");
            return eprintln!("skipped: userfaultfd(2) is for root");
        };
        let answering = memory.answering.take();
        let (mut client, server) = UnixStream::pair().unwrap();
        client.write_all(b"xy").unwrap();
        let left = std::thread::scope(|scope| {
            let holder = scope.spawn(|| memory.receive_from(&server));
            // It holds the socket from when a byte is to go to its page.
            let mut wanted = [PollFd::new(answering.as_ref().unwrap(), PollFlags::IN)];
            assert_eq!(poll(&mut wanted, None), Ok(1));
            assert_eq!(wanted[0].revents(), PollFlags::IN);
            let briefly = Duration::from_millis(100);
            let (come, one) = receive_credentials(&server, briefly);
            assert_eq!(come.unwrap_err(), Errno::TIMEDOUT);
            let (more, other) = discard(&server, briefly);
            assert_eq!(more, Err(Errno::TIMEDOUT));
            let left = [one.unwrap(), other.unwrap()];
            assert!(!left.iter().any(Closing::is_over), "they wait on");
            drop(answering);
            assert_eq!(holder.join().unwrap(), 1);
            left
        });
        waits_for(|| left.iter().all(Closing::is_over));
    }

    /// The lock of a socket is held while a filter for it is copied (sk_setsockopt()); newer kernels need it for neither.
    #[test]
    fn a_socket_whose_lock_somebody_else_holds_is_asked_for_credentials_so_long_and_no_longer() {
        let Some(mut memory) = Unanswered::new() else {
            assert!(!rustix::process::geteuid().is_root(), "root has it");
            return eprintln!("skipped: userfaultfd(2) is for root");
        };
        let answering = memory.answering.take();
        let (_client, server) = UnixStream::pair().unwrap();
        let left = std::thread::scope(|scope| {
            let holder = scope.spawn(|| memory.filter(&server));
            let mut wanted = [PollFd::new(answering.as_ref().unwrap(), PollFlags::IN)];
            assert_eq!(poll(&mut wanted, None), Ok(1));
            let (done, left) = pass_credentials(&server, Duration::from_millis(100));
            match done {
                Ok(()) => assert!(left.is_none()),
                Err(errno) => {
                    assert_eq!(errno, Errno::TIMEDOUT);
                    assert!(!left.as_ref().unwrap().is_over(), "it waits on");
                }
            }
            drop(answering);
            assert_eq!(holder.join().unwrap(), -1, "nothing is no program");
            left
        });
        waits_for(|| left.iter().all(Closing::is_over));
    }

    #[test]
    fn a_thread_with_a_table_of_its_own_takes_no_signal() {
        let (kept, _other) = UnixStream::pair().unwrap();
        let (sender, said) = mpsc::channel();
        let ask = move |_: BorrowedFd<'_>| {
            sender.send(std::fs::read_to_string("/proc/thread-self/status").unwrap()).unwrap();
        };
        spawn("test", &kept, ask).unwrap().join().unwrap();
        let said = said.recv().unwrap();
        let blocked = said.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
        let blocked = u64::from_str_radix(blocked.trim(), 16).unwrap();
        let of_programs = [libc::SIGHUP, libc::SIGINT, libc::SIGTERM, libc::SIGCHLD, libc::SIGUSR1];
        assert!(of_programs.iter().all(|signal| blocked >> (signal - 1) & 1 == 1), "{blocked:x}");
    }

    #[test]
    fn of_another_process_only_what_is_welcome_is_copied_and_the_rest_is_closed() {
        fn is_a_socket(fd: BorrowedFd<'_>) -> bool {
            rustix::net::sockopt::socket_type(fd).is_ok()
        }
        let process = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
        let (mut one, other) = UnixStream::pair().unwrap();
        let (copied, closing) = copy(&process, other.as_raw_fd(), PATIENCE, is_a_socket);
        assert!(closing.is_none());
        UnixStream::from(copied.unwrap().unwrap()).write_all(b"x").unwrap();
        one.read_exact(&mut [0]).unwrap();
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let (copied, closing) = copy(&process, writer.as_raw_fd(), PATIENCE, is_a_socket);
        assert!(copied.unwrap().is_none());
        drop(writer);
        assert_eq!(File::from(reader).read(&mut [0]).unwrap(), 0, "nobody has the other end any more");
        let closing = closing.unwrap();
        waits_for(|| closing.is_over());
        assert_eq!(copy(&process, RawFd::MAX, PATIENCE, is_a_socket).0.unwrap_err(), Errno::BADF);
    }
}
