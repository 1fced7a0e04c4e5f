//! The kernel's proc connector: a netlink socket that tells of every fork, exec and exit of the machine.
//!
//! Linux answers only in the initial pid and user namespaces, to whoever has CAP_NET_ADMIN (since 6.6, to anyone). Everything arrives in
//! the numbers of the initial pid namespace. One socket serves any number of subscribers.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use pinfold_sys::netlink::Batch;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::netlink::{CONNECTOR, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, SendFlags, SocketFlags, SocketType, bind, getsockname, send, socket_with, sockopt,
};

use crate::change::Kind;
use crate::datagram::{self, Message, Operation};
use crate::event::{Event, Pid, Time};
use crate::intake::Intake;
use crate::pace::Pace;
use crate::proc::{ProcError, Scanner, asleep, now};

/// How much the socket holds while we are busy, unless told otherwise: about 20,000 events.
pub const RECEIVE_BUFFER: usize = 16 * 1024 * 1024;

/// How many batches are read before what was read is passed on.
const MOST_BATCHES: usize = 16;

/// How long an answer may take; it is there at once.
const PATIENCE: Duration = Duration::from_millis(300);

/// How often it is looked whether what events are held for comes late, or not at all.
const HOLDING: Duration = Duration::from_millis(100);

/// `CN_IDX_PROC` as a bit.
const GROUP: u32 = 1;

/// Why the connector does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ConnectorError {
    /// The socket cannot be had.
    #[error("proc connector: {call}: {errno}")]
    Socket {
        /// The system call.
        call: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The kernel refused.
    #[error("proc connector: {0}\nhint: before Linux 6.6 it takes CAP_NET_ADMIN")]
    Refused(Errno),
    /// The kernel said nothing.
    #[error("proc connector: no answer\nhint: it serves the initial pid and user namespaces only")]
    Silent,
    /// There is no /proc to begin from.
    #[error(transparent)]
    Proc(#[from] ProcError),
}

/// How much there was of what.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counters {
    /// Datagrams received.
    pub datagrams: u64,
    /// Datagrams that were no events of the kernel's. One of the kernel's that cannot be read leaves a hole in the count of its CPU.
    pub rejected: u64,
    /// Losses: times that the kernel told of one, and holes in the counts of CPUs of which it did not.
    pub losses: u64,
    /// Full scans of /proc.
    pub scans: u64,
}

/// The connector, from which ordered events are read.
#[derive(Debug)]
pub struct Connector {
    socket: OwnedFd,
    batch: Batch,
    intake: Intake,
    scanner: Scanner,
    pace: Pace,
    counters: Counters,
    /// Whether nothing was left at the end of the last reading.
    is_empty: bool,
    /// What has happened by then was told.
    told_until: Time,
}

impl Connector {
    /// Asks the kernel to tell of events from now on.
    pub fn open() -> Result<Self, ConnectorError> {
        Self::with_buffer(RECEIVE_BUFFER)
    }

    /// [`Self::open`] with room for `bytes` in the socket, or as much of it as may be had.
    pub fn with_buffer(bytes: usize) -> Result<Self, ConnectorError> {
        let mut connector = Self::reading(open_socket(bytes)?)?;
        connector.listen()?;
        Ok(connector)
    }

    /// Reads a socket that does not block, and by which nobody has to be asked any more.
    pub fn reading(socket: OwnedFd) -> Result<Self, ConnectorError> {
        Ok(Self {
            socket,
            batch: Batch::default(),
            intake: Intake::default(),
            scanner: Scanner::new(PathBuf::from("/proc"))?,
            pace: Pace::new(),
            counters: Counters::default(),
            is_empty: true,
            told_until: Time(0),
        })
    }

    /// What has been counted.
    pub fn counters(&self) -> Counters {
        Counters { scans: self.scanner.scans(), losses: self.intake.losses(), ..self.counters }
    }

    /// See [`Order::list`].
    pub(crate) fn list(&self, out: &mut Vec<Event>) {
        self.intake.order().list(now(), out);
    }

    /// See [`Order::knows`].
    pub(crate) fn knows(&self, pid: Pid, ticks: u64) -> bool {
        self.intake.order().knows(pid, ticks)
    }

    /// What had happened by then was told, unless it was lost.
    pub(crate) const fn told_until(&self) -> Time {
        self.told_until
    }

    /// After what time reading again has a purpose even if nothing came: events are held until others come, or a gap lasts until
    /// /proc is read.
    pub fn patience(&self) -> Option<Duration> {
        let order = self.intake.order();
        let scanning = order.wants_snapshot().then(|| self.pace.wait(Instant::now()));
        [scanning, order.is_waiting().then_some(HOLDING)].into_iter().flatten().min()
    }

    /// Reads what is there, without waiting. Answers whether that was all.
    ///
    /// Errors: /proc could not be read at the start; the socket fails.
    pub fn read(&mut self, out: &mut Vec<Event>) -> Result<bool, ConnectorError> {
        let slept = asleep();
        let mut was_empty = std::mem::replace(&mut self.is_empty, false);
        for _ in 0..MOST_BATCHES {
            let asked = now();
            match self.batch.receive(&self.socket) {
                Ok(_) => {
                    was_empty = false;
                    self.take(slept, out);
                    // Asking again to hear that nothing is there would take as long as the datagram did. But a call that
                    // meets an overflow after its first datagram ends there and leaves the error to be asked for.
                    // Source: net/socket.c, do_recvmmsg().
                    if self.batch.is_all() {
                        match sockopt::socket_error(&self.socket).unwrap_or_else(Err) {
                            Ok(()) => return self.settle(asked, out),
                            Err(Errno::NOBUFS) => self.intake.dropped(None, now(), out),
                            Err(errno) => return Err(ConnectorError::Socket { call: "recvmmsg", errno }),
                        }
                    }
                }
                Err(Errno::AGAIN) => return self.settle(asked, out),
                Err(Errno::NOBUFS) => {
                    let whole_until = std::mem::take(&mut was_empty).then_some(asked);
                    self.intake.dropped(whole_until, now(), out);
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(ConnectorError::Socket { call: "recvmmsg", errno }),
            }
        }
        Ok(false)
    }

    /// [`Self::read`] for somebody who waits for it: if something was lost, /proc is read at once, without the pause.
    pub(crate) fn catch_up(&mut self, out: &mut Vec<Event>) -> Result<bool, ConnectorError> {
        let is_all = self.read(out)?;
        if is_all && self.intake.order().wants_snapshot() {
            self.scan(out)?;
        }
        Ok(is_all)
    }

    /// Puts the received batch in order.
    fn take(&mut self, slept: u64, out: &mut Vec<Event>) {
        for received in self.batch.datagrams() {
            self.counters.datagrams += 1;
            let sender = received.sender.map(|sender| sender.port);
            let (cpu, sequence, change) = match datagram::decode(received.bytes, sender) {
                Ok(Message::Event { cpu, sequence, change }) => (cpu, sequence, change),
                Ok(Message::Answer { cpu, sequence, .. }) => (cpu, sequence, None),
                Err(rejected) => {
                    // Whoever may send these can send any number.
                    if self.counters.rejected == 0 {
                        tracing::warn!(
                            "proc connector: {rejected}: not believed, and no further one is told of"
                        );
                    }
                    self.counters.rejected += 1;
                    continue;
                }
            };
            let change = change.map(|mut change| {
                change.time.0 += slept;
                if let Kind::Exec { comm } = &mut change.what {
                    // Which of its programs it is that has the name, the kernel does not say: the latest.
                    *comm = self.scanner.comm(change.process);
                }
                change
            });
            self.intake.take(cpu, sequence, change, now, out);
        }
    }

    /// Everything was read, by a call that began then: only now a scan may begin.
    fn settle(&mut self, asked: Time, out: &mut Vec<Event>) -> Result<bool, ConnectorError> {
        (self.is_empty, self.told_until) = (true, asked);
        self.intake.drained(now(), out);
        if self.intake.order().wants_snapshot() && self.pace.wait(Instant::now()).is_zero() {
            self.scan(out)?;
        }
        Ok(true)
    }

    /// Everything was read, and /proc is compared with it.
    fn scan(&mut self, out: &mut Vec<Event>) -> Result<(), ConnectorError> {
        let scanned = self.scanner.scan();
        self.pace.scanned(Instant::now());
        match scanned {
            Ok(snapshot) => self.intake.order_mut().resync(&snapshot, out),
            // Out of descriptors or memory, perhaps: the gap lasts until it can be read.
            Err(_) if self.intake.order().has_begun() => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn listen(&mut self) -> Result<(), ConnectorError> {
        let failed = |call| move |errno| ConnectorError::Socket { call, errno };
        let address = getsockname(&self.socket).map_err(failed("getsockname"))?;
        let port = SocketAddrNetlink::try_from(address).map_or(0, |address| address.pid());
        // Others' requests are answered to all: this number is ours.
        let acknowledge = now().0 as u32;
        let request = datagram::request(Operation::Listen, port, 0, acknowledge);
        send(&self.socket, &request, SendFlags::empty()).map_err(failed("send"))?;
        let answer = self.answer(acknowledge.wrapping_add(1))?;
        match answer {
            0 => Ok(()),
            errno => Err(ConnectorError::Refused(Errno::from_raw_os_error(errno as i32))),
        }
    }

    /// The answer to our request, which the kernel queues while it handles it. Events that come before it are of a time that the first
    /// snapshot covers.
    fn answer(&mut self, acknowledge: u32) -> Result<u32, ConnectorError> {
        let failed = |call| move |errno| ConnectorError::Socket { call, errno };
        let until = Instant::now() + PATIENCE;
        loop {
            let mut wait = [PollFd::new(&self.socket, PollFlags::IN)];
            let rest = until.saturating_duration_since(Instant::now());
            let rest = Timespec { tv_sec: 0, tv_nsec: rest.subsec_nanos().into() };
            // In a container that shares the host's network, others' events may come in for ever.
            if poll(&mut wait, Some(&rest)).map_err(failed("poll"))? == 0 || until <= Instant::now() {
                return Err(ConnectorError::Silent);
            }
            match self.batch.receive(&self.socket) {
                Ok(_) | Err(Errno::AGAIN | Errno::NOBUFS) => {}
                Err(errno) => return Err(ConnectorError::Socket { call: "recvmmsg", errno }),
            }
            let answers = self.batch.datagrams().filter_map(|received| {
                let sender = received.sender.map(|sender| sender.port);
                match datagram::decode(received.bytes, sender) {
                    Ok(Message::Answer { acknowledge: number, errno, .. }) if number == acknowledge => {
                        Some(errno)
                    }
                    _ => None,
                }
            });
            if let Some(errno) = answers.last() {
                return Ok(errno);
            }
        }
    }
}

impl AsFd for Connector {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Connector {
    fn drop(&mut self) {
        // Older kernels count listeners by their requests, not by their sockets.
        let request = datagram::request(Operation::Ignore, 0, 0, 0);
        let _ = send(&self.socket, &request, SendFlags::empty());
    }
}

/// A bare socket that the connector's datagrams arrive at once somebody listens.
fn open_socket(bytes: usize) -> Result<OwnedFd, ConnectorError> {
    let failed = |call| move |errno| ConnectorError::Socket { call, errno };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(CONNECTOR))
        .map_err(failed("socket"))?;
    if sockopt::set_socket_recv_buffer_size_force(&socket, bytes).is_err() {
        sockopt::set_socket_recv_buffer_size(&socket, bytes).map_err(failed("setsockopt"))?;
    }
    bind(&socket, &SocketAddrNetlink::new(0, GROUP)).map_err(failed("bind"))?;
    Ok(socket)
}
