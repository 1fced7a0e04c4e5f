//! Processes named by credentials that come over a socket: the kernel translates their numbers on the way.
//!
//! The caller keeps one end of a pair of sockets and passes the other. The daemon writes a byte to it, and whoever has the
//! other end answers with a byte and its credentials (SCM_CREDENTIALS), or, if it may, with those of another process.
//!
//! Who passes a socket chooses who reads what the daemon writes to it, also later: a socket of datagrams can be connected
//! again at any time, to a service that trusts root. So each datagram bears the credentials of who passed the socket, who could
//! have sent it by himself, and a stream must come from a pair.
//! Source: unix(7); cgmanager's protocol of file descriptors.

use std::cell::Cell;
use std::io::IoSlice;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use pinfold_model::{Errno, Gid, HostPid, Uid};
use pinfold_realm::{Account, Named, Realm, Requester};
use pinfold_sys::apart::{self, Closing};
use pinfold_sys::socket::{Credentials, Sender};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketType, UCred,
};

use crate::closing::OF_CLIENTS;
use crate::error::Refusal;

/// How long whoever has the other end may take to answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// Whether a descriptor is of a socket. Not by fstat(2): that asks the file system that a file is of, which may be the
/// client's own and never answer.
pub(crate) fn is_socket(fd: impl AsFd) -> bool {
    rustix::net::sockopt::socket_type(fd).is_ok()
}

/// The process whose credentials come over a socket.
pub(crate) fn process(realm: &Realm, requester: &Requester, socket: impl AsFd) -> Result<Named, Refusal> {
    let author = Author::of(requester.connected());
    let sender = Line::new(&socket, &author).and_then(|line| line.ask());
    let sender = sender.map_err(|errno| refused(errno, "no credentials came over the socket"))?;
    named(realm, requester, sender)
}

/// The process that sent credentials, or that they are of. The requester must see it.
pub(crate) fn named(realm: &Realm, requester: &Requester, sender: Sender) -> Result<Named, Refusal> {
    let named = match (sender.pidfd, number(&sender.credentials)) {
        (Some(pidfd), _) => realm.held(requester, pidfd),
        // Linux before 6.5.
        (None, Some(task)) => realm.seen(requester, task),
        (None, None) => {
            let why = "the process is in a pid namespace that the daemon does not see";
            return Err(Refusal::new(Errno::ESRCH, why));
        }
    };
    named.map_err(|error| Refusal::new(error.errno(), error))
}

/// Why nothing came, or nothing that is of use.
pub(crate) fn refused(errno: rustix::io::Errno, what: &str) -> Refusal {
    let known = match errno {
        rustix::io::Errno::TIMEDOUT | rustix::io::Errno::BUSY => Errno::EAGAIN,
        rustix::io::Errno::SRCH => Errno::ESRCH,
        _ => Errno::EINVAL,
    };
    Refusal::new(known, format!("{what}: {errno}"))
}

/// The process's number; `None` if it has none in the daemon's pid namespace.
pub(crate) fn number(credentials: &Credentials) -> Option<HostPid> {
    credentials.process.and_then(|number| HostPid::new(number.get()))
}

/// In whose name the daemon writes: who passed the socket.
pub(crate) struct Author<'a> {
    uid: Uid,
    gid: Gid,
    process: Option<HostPid>,
    account: Account,
    /// Whether the process's number is still its own.
    is_there: Box<dyn Fn() -> bool + 'a>,
}

impl<'a> Author<'a> {
    /// Who is connected.
    pub(crate) fn of(connected: &'a Requester) -> Self {
        let caller = connected.caller();
        let is_there = Box::new(|| connected.is_there());
        let account = connected.account();
        Self { uid: caller.uid, gid: caller.gid, process: caller.task, account, is_there }
    }

    /// As sender of a process, or else of itself.
    fn credentials(&self, process: Option<HostPid>) -> rustix::io::Result<UCred> {
        let process = process.or_else(|| self.process.filter(|_| (self.is_there)()));
        let number = process.and_then(|process| i32::try_from(process.get()).ok());
        let pid = number.and_then(rustix::process::Pid::from_raw).ok_or(rustix::io::Errno::SRCH)?;
        Ok(UCred {
            pid,
            uid: rustix::process::Uid::from_raw(self.uid.0),
            gid: rustix::process::Gid::from_raw(self.gid.0),
        })
    }
}

/// A socket that a client passed, for as long as one's patience lasts. Nothing here waits longer: others have it too, and may
/// hold it, so threads apart receive from it.
pub(crate) struct Line<'a, S: AsFd> {
    socket: &'a S,
    author: &'a Author<'a>,
    deadline: Instant,
    is_stream: bool,
    /// The end of a stream is there to be read for ever: it is waited for once.
    is_ended: Cell<bool>,
}

impl<'a, S: AsFd> Line<'a, S> {
    /// A line over a Unix socket of any type.
    ///
    /// Errors: EOPNOTSUPP: another socket. ENOTCONN, EPERM: a stream that is not one of a pair, which has no name at its
    /// other end and keeps it.
    pub(crate) fn new(socket: &'a S, author: &'a Author<'a>) -> rustix::io::Result<Self> {
        if rustix::net::sockopt::socket_domain(socket)? != AddressFamily::UNIX {
            return Err(rustix::io::Errno::OPNOTSUPP);
        }
        let is_stream = rustix::net::sockopt::socket_type(socket)? == SocketType::STREAM;
        if is_stream {
            let peer = rustix::net::getpeername(socket)?.ok_or(rustix::io::Errno::NOTCONN)?;
            let peer = SocketAddrUnix::try_from(peer)?;
            if peer.path_bytes().is_some() || peer.abstract_name().is_some_and(|name| !name.is_empty()) {
                return Err(rustix::io::Errno::PERM);
            }
        }
        Ok(Self {
            socket,
            author,
            deadline: Instant::now() + PATIENCE,
            is_stream,
            is_ended: Cell::new(false),
        })
    }

    /// Asks for credentials: writes a byte, and waits for one that brings them. For what else comes along it does not wait.
    ///
    /// Errors: EBUSY: what was passed before cannot be closed, or is held.
    pub(crate) fn ask(&self) -> rustix::io::Result<Sender> {
        self.apart(|left| apart::pass_credentials(self.socket, left))?;
        self.say(b"1")?;
        loop {
            self.wait(PollFlags::IN)?;
            match self.apart(|left| apart::receive_credentials(self.socket, left)) {
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                answer => return answer?.ok_or(rustix::io::Errno::CONNRESET),
            }
        }
    }

    /// Writes a text; an empty one is a message of its own, where there are messages.
    pub(crate) fn say(&self, mut text: &[u8]) -> rustix::io::Result<()> {
        if text.is_empty() && !self.is_stream {
            return self.send(text, None).map(drop);
        }
        while !text.is_empty() {
            text = &text[self.send(text, None)?..];
        }
        Ok(())
    }

    /// Sends a process, as a process of the author's: the kernel translates its number for whoever receives it. ESRCH if it has
    /// ended. EPERM where the daemon is not privileged over its pid namespace.
    ///
    /// Whoever has the other end may answer each with a byte; what comes is read and thrown away, so that it never waits.
    pub(crate) fn send_process(&self, task: HostPid) -> rustix::io::Result<()> {
        self.send(b"p", Some(task)).map(drop)?;
        self.drain()
    }

    fn send(&self, text: &[u8], process: Option<HostPid>) -> rustix::io::Result<usize> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        loop {
            let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if process.is_some() || !self.is_stream {
                let sender = self.author.credentials(process)?;
                let fits = control.push(SendAncillaryMessage::ScmCredentials(sender));
                debug_assert!(fits, "there is room for one");
            }
            match rustix::net::sendmsg(self.socket, &[IoSlice::new(text)], &mut control, flags) {
                Err(rustix::io::Errno::AGAIN) => {
                    let ahead = if self.is_ended.get() { PollFlags::empty() } else { PollFlags::IN };
                    self.wait(PollFlags::OUT | ahead)?;
                    self.drain()?;
                }
                Err(rustix::io::Errno::INTR) => {}
                answer => return answer,
            }
        }
    }

    /// Throws away what has come, if anything has.
    fn drain(&self) -> rustix::io::Result<()> {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut come = [PollFd::new(self.socket, PollFlags::IN)];
        if self.is_ended.get() || rustix::event::poll(&mut come, Some(&at_once)) == Ok(0) {
            return Ok(());
        }
        let can_come = self.apart(|left| apart::discard(self.socket, left))?;
        self.is_ended.set(!can_come);
        Ok(())
    }

    /// Has a thread do something that may wait for whoever else has the socket. It is counted if it is left to that.
    fn apart<T>(
        &self,
        act: impl FnOnce(Duration) -> (rustix::io::Result<T>, Option<Closing>),
    ) -> rustix::io::Result<T> {
        let left = self.left()?;
        if !OF_CLIENTS.has_room(self.author.account) {
            return Err(rustix::io::Errno::BUSY);
        }
        let (done, closing) = act(left);
        OF_CLIENTS.add(self.author.account, closing);
        done
    }

    /// How much is left of one's patience.
    fn left(&self) -> rustix::io::Result<Duration> {
        self.deadline.checked_duration_since(Instant::now()).ok_or(rustix::io::Errno::TIMEDOUT)
    }

    fn wait(&self, what: PollFlags) -> rustix::io::Result<()> {
        let left = Timespec::try_from(self.left()?).map_err(|_| rustix::io::Errno::INVAL)?;
        match rustix::event::poll(&mut [PollFd::new(self.socket, what)], Some(&left)) {
            Ok(0) => Err(rustix::io::Errno::TIMEDOUT),
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};

    use super::*;
    use crate::passed::tests::lingering;

    /// This process, as another user.
    fn author(uid: u32) -> Author<'static> {
        let process = HostPid::new(std::process::id());
        let account = Account::User(Uid(uid));
        Author { uid: Uid(uid), gid: Gid(uid), process, account, is_there: Box::new(|| true) }
    }

    fn itself() -> Author<'static> {
        author(rustix::process::geteuid().as_raw())
    }

    #[test]
    fn whoever_answers_is_named_by_the_kernel() {
        let (mut client, server) = UnixStream::pair().unwrap();
        let asking = std::thread::spawn(move || Line::new(&server, &itself())?.ask());
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        assert_eq!(byte, *b"1");
        client.write_all(b"x").unwrap();
        let sender = asking.join().unwrap().unwrap();
        assert_eq!(number(&sender.credentials), HostPid::new(std::process::id()));
        let pidfd =
            sender.pidfd.map(|pidfd| std::fs::read_link(format!("/proc/self/fd/{}", pidfd.as_raw_fd())));
        assert!(pidfd.is_none_or(|link| link.unwrap().to_string_lossy().contains("pidfd")));
    }

    /// Its end is readable for ever, and is not waited for again.
    #[test]
    fn who_says_no_more_is_not_listened_to() {
        let author = itself();
        let (mut client, server) = UnixStream::pair().unwrap();
        let line = Line::new(&server, &author).unwrap();
        client.write_all(b"x").unwrap();
        line.drain().unwrap();
        assert!(!line.is_ended.get());
        client.shutdown(std::net::Shutdown::Write).unwrap();
        line.drain().unwrap();
        assert!(line.is_ended.get());
    }

    #[test]
    fn whoever_hangs_up_or_passes_something_else_is_nobody() {
        let author = itself();
        let (client, server) = UnixStream::pair().unwrap();
        drop(client);
        assert!(Line::new(&server, &author).and_then(|line| line.ask()).is_err());
        assert!(is_socket(&server));
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(!is_socket(&file) && Line::new(&file, &author).is_err());
        let other = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(
            is_socket(&other) && Line::new(&other, &author).is_err(),
            "the daemon writes to Unix sockets alone"
        );
    }

    #[test]
    fn descriptors_that_come_along_are_refused_and_closed() {
        let author = itself();
        let (client, server) = UnixStream::pair().unwrap();
        let (kept, passed) = UnixStream::pair().unwrap();
        let fds = vec![passed.as_fd(); 60];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(60))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        rustix::net::sendmsg(&client, &[IoSlice::new(b"x")], &mut control, SendFlags::empty()).unwrap();
        assert!(Line::new(&server, &author).unwrap().ask().is_err());
        drop(passed);
        kept.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!((&kept).read(&mut [0]).unwrap(), 0, "nobody has the other end any more");
    }

    #[test]
    fn credentials_do_not_wait_for_what_comes_along_and_they_are_none() {
        let author = itself();
        let (client, server) = UnixStream::pair().unwrap();
        let (socket, other_end) = lingering();
        crate::stream::send(&client, b"x", &[socket.as_fd()]).unwrap();
        drop(socket);
        let asked = Line::new(&server, &author).unwrap().ask();
        assert_eq!(asked.unwrap_err(), rustix::io::Errno::BADMSG);
        drop(other_end);
    }

    #[test]
    fn an_empty_text_is_a_message_where_there_are_messages() {
        let author = itself();
        let (client, server) = UnixDatagram::pair().unwrap();
        let line = Line::new(&server, &author).unwrap();
        line.say(b"").unwrap();
        line.say(b"some").unwrap();
        let mut text = [0; 8];
        assert_eq!(client.recv(&mut text).unwrap(), 0);
        assert_eq!(client.recv(&mut text).unwrap(), 4);
    }

    #[test]
    fn many_processes_are_sent_to_who_answers_each() {
        let (client, server) = UnixDatagram::pair().unwrap();
        rustix::net::sockopt::set_socket_passcred(&client, true).unwrap();
        // As cgmanager's proxy has it: an answer to who has closed loses what has come (unix_dgram_disconnected()).
        let _kept = server.try_clone().unwrap();
        let own = HostPid::new(std::process::id()).unwrap();
        let sending = std::thread::spawn(move || {
            let author = itself();
            let line = Line::new(&server, &author).unwrap();
            (0..1000).try_for_each(|_| line.send_process(own))
        });
        for _ in 0..1000 {
            client.send(b"1").unwrap();
            let patience = Timespec::try_from(PATIENCE).unwrap();
            let come = rustix::event::poll(&mut [PollFd::new(&client, PollFlags::IN)], Some(&patience));
            assert_eq!(come, Ok(1));
            let sender = apart::receive_credentials(&client, PATIENCE).0.unwrap().unwrap();
            assert_eq!(number(&sender.credentials), Some(own));
        }
        sending.join().unwrap().unwrap();
    }

    /// The client keeps a copy of what it passed, and connects it to a service when its answer is due.
    #[test]
    fn a_datagram_that_is_sent_elsewhere_bears_who_passed_the_socket() {
        if !rustix::process::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none_or(|value| value != "true"), "CI is root");
            return eprintln!("skipped: needs root");
        }
        let name = format!("pinfold-credentials-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let service = UnixDatagram::bind_addr(&address).unwrap();
        rustix::net::sockopt::set_socket_passcred(&service, true).unwrap();
        let (_client, server) = UnixDatagram::pair().unwrap();
        let author = author(54321);
        let line = Line::new(&server, &author).unwrap();
        server.connect_addr(&address).unwrap();
        line.say(b"MAINPID=1").unwrap();
        line.send_process(HostPid::new(1).unwrap()).unwrap();
        for _ in 0..2 {
            let sender = apart::receive_credentials(&service, PATIENCE).0.unwrap().unwrap().credentials;
            assert_eq!((sender.uid, sender.gid), (54321, 54321));
        }
        let ended = Author { is_there: Box::new(|| false), ..author };
        assert_eq!(Line::new(&server, &ended).unwrap().say(b"x"), Err(rustix::io::Errno::SRCH));
    }

    #[test]
    fn a_stream_to_a_service_is_not_written_to() {
        let name = format!("pinfold-service-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let _service = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
        let connected = UnixStream::connect_addr(&address).unwrap();
        let flags = rustix::net::SocketFlags::CLOEXEC;
        let fresh = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        let author = itself();
        assert_eq!(Line::new(&connected, &author).err(), Some(rustix::io::Errno::PERM));
        assert_eq!(
            Line::new(&fresh, &author).err(),
            Some(rustix::io::Errno::NOTCONN),
            "it may be connected later"
        );
    }
}
