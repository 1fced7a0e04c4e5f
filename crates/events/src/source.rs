//! Where events come from: one closed list.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::connector::{Connector, ConnectorError, Counters};
use crate::event::{Event, Pid, Time, What};
use crate::order::Order;
use crate::proc::{ProcError, Scanner, now};
use crate::relay::Relay;
use crate::stream::{Next, Stream};

/// Where events come from.
#[derive(Debug)]
pub enum Source {
    /// The kernel, in the initial namespaces.
    Connector(Box<Connector>),
    /// The pinfold outside this container.
    Outer(Outer),
    /// /proc, read again and again: for those who have neither. It misses what lives shorter than the interval.
    Polling(Polling),
    /// Somebody else in this process who reads one. See [`Service::start_fed`](crate::Service::start_fed).
    Fed(Fed),
}

/// Nothing to be read: somebody else passes events on, and does so at once when asked.
pub struct Fed(Box<dyn Fn() + Send>);

impl Fed {
    pub(crate) fn new(ask: impl Fn() + Send + 'static) -> Self {
        Self(Box::new(ask))
    }
}

impl fmt::Debug for Fed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fed")
    }
}

/// Which of a source's descriptors an epoll waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Joined(u64);

/// Why a source gives nothing more.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The proc connector.
    #[error(transparent)]
    Connector(#[from] ConnectorError),
    /// /proc.
    #[error(transparent)]
    Proc(#[from] ProcError),
    /// The outer pinfold was not there at the start.
    #[error("outer pinfold: {0}")]
    Outer(#[source] io::Error),
}

impl Source {
    /// The kernel's events. See [`Connector::open`].
    pub fn connector() -> Result<Self, ConnectorError> {
        Ok(Self::Connector(Box::new(Connector::open()?)))
    }

    /// An outer pinfold's, given how to subscribe to it; called again after it restarted. A thread of its own waits for the answer: the
    /// first time we wait a moment, so that one that is not there is refused; whoever answers later is there from then on. An error
    /// of the kind `WouldBlock` says that another thread waits for it already: that is no refusal, and it is tried again.
    pub fn outer(
        subscribe: impl FnMut() -> io::Result<OwnedFd> + Send + 'static,
    ) -> Result<Self, SourceError> {
        Outer::new(Box::new(subscribe)).map(Self::Outer)
    }

    /// Reads /proc that often.
    pub fn polling(interval: Duration) -> Result<Self, ProcError> {
        Ok(Self::Polling(Polling::new(Scanner::new("/proc")?, interval)))
    }

    /// Reads what is there, without waiting. Answers whether that was all.
    pub fn read(&mut self, out: &mut Vec<Event>) -> Result<bool, SourceError> {
        match self {
            Self::Connector(connector) => Ok(connector.read(out)?),
            Self::Outer(outer) => Ok(outer.read(out)),
            Self::Polling(polling) => Ok(polling.read(out)?),
            Self::Fed(_) => Ok(true),
        }
    }

    /// Reads what has happened up to then, also where it would not be looked for yet: /proc is read at once, unless it was since.
    /// Answers whether that was all. What was lost is made up for, too. An outer pinfold may be a moment behind, and after a gap as
    /// long as its pauses are, [`LONGEST_GAP`](crate::LONGEST_GAP).
    pub fn catch_up(&mut self, until: Instant, out: &mut Vec<Event>) -> Result<bool, SourceError> {
        match self {
            Self::Connector(connector) => Ok(connector.catch_up(out)?),
            Self::Polling(_) | Self::Outer(_) | Self::Fed(_) => self.read_up_to(until, out),
        }
    }

    /// [`Self::catch_up`], but what was lost is made up for no sooner for it: who asks often has /proc read no oftener.
    pub(crate) fn read_up_to(&mut self, until: Instant, out: &mut Vec<Event>) -> Result<bool, SourceError> {
        match self {
            Self::Polling(polling) if polling.began.is_none_or(|began| began < until) => {
                polling.next = Instant::now();
            }
            Self::Fed(Fed(ask)) => ask(),
            Self::Connector(_) | Self::Polling(_) | Self::Outer(_) => {}
        }
        self.read(out)
    }

    /// Tells of all processes that are known, as of ones that are found, and that these are all, if they are: for somebody who is passed
    /// on what is read from now on.
    pub fn list(&self, out: &mut Vec<Event>) {
        match self {
            Self::Connector(connector) => connector.list(out),
            Self::Outer(outer) => outer.relay.list(now(), out),
            Self::Polling(polling) => polling.order.list(now(), out),
            Self::Fed(_) => {}
        }
    }

    /// Whether a process, by its start time in ticks of `/proc/PID/stat`, was told of and lives.
    pub fn knows(&self, pid: Pid, ticks: u64) -> bool {
        match self {
            Self::Connector(connector) => connector.knows(pid, ticks),
            Self::Outer(outer) => outer.relay.knows(pid, ticks),
            Self::Polling(polling) => polling.order.knows(pid, ticks),
            Self::Fed(_) => false,
        }
    }

    /// What had happened by then was told, but for what is known to be lost. An outer pinfold may be behind.
    pub const fn told_until(&self) -> Time {
        match self {
            Self::Connector(connector) => connector.told_until(),
            Self::Outer(outer) => outer.relay.told_until(),
            Self::Polling(polling) => polling.order.scanned(),
            Self::Fed(_) => Time(0),
        }
    }

    /// Whether it tells of what happens: an outer pinfold may be away.
    pub const fn is_there(&self) -> bool {
        match self {
            Self::Connector(_) | Self::Polling(_) | Self::Fed(_) => true,
            Self::Outer(outer) => matches!(outer.link, Link::Up(_)),
        }
    }

    /// In a word or two, for messages.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Connector(_) => "proc connector",
            Self::Outer(_) => "outer pinfold",
            Self::Polling(_) => "/proc, polled",
            Self::Fed(_) => "passed on",
        }
    }

    /// What becomes readable when there is something to read.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Connector(connector) => Some(connector.as_fd()),
            Self::Outer(outer) => outer.descriptor(),
            Self::Polling(_) | Self::Fed(_) => None,
        }
    }

    /// Has an epoll wait for the present descriptor, which may be another than the one before. Give it what it answered last.
    pub fn join(&self, epoll: impl AsFd, token: u64, joined: Option<Joined>) -> Option<Joined> {
        let descriptor = self.descriptor()?;
        let present = Joined(match self {
            Self::Outer(outer) => outer.descriptors,
            Self::Connector(_) | Self::Polling(_) | Self::Fed(_) => 0,
        });
        if joined == Some(present) {
            return joined;
        }
        let token = epoll::EventData::new_u64(token);
        epoll::add(epoll, descriptor, token, epoll::EventFlags::IN).ok().map(|()| present)
    }

    /// After what time there is something to do even if nothing becomes readable.
    pub fn patience(&self) -> Option<Duration> {
        match self {
            Self::Connector(connector) => connector.patience(),
            Self::Outer(outer) => outer.patience(),
            Self::Polling(polling) => Some(polling.next.saturating_duration_since(Instant::now())),
            Self::Fed(_) => None,
        }
    }

    /// What has been counted. Of others than the connector only scans are.
    pub fn counters(&self) -> Counters {
        match self {
            Self::Connector(connector) => connector.counters(),
            Self::Outer(_) | Self::Fed(_) => Counters::default(),
            Self::Polling(polling) => Counters { scans: polling.scanner.scans(), ..Counters::default() },
        }
    }
}

/// Subscribes to an outer pinfold.
type Subscribe = dyn FnMut() -> io::Result<OwnedFd> + Send;

/// The first pause before one tries to subscribe again; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long the first answer is waited for.
const FIRST_ANSWER: Duration = Duration::from_millis(500);

/// The pinfold outside this container. When it goes, that is a gap until it is back.
pub struct Outer {
    subscribe: Arc<Mutex<Box<Subscribe>>>,
    link: Link,
    /// How many descriptors there were to wait for: a number of one may be used again for the next.
    descriptors: u64,
    relay: Relay,
    pause: Duration,
}

/// What there is between us and it.
#[derive(Debug)]
enum Link {
    Up(Stream),
    Down {
        retry: Instant,
    },
    /// A thread subscribes: whoever reads does not wait for a daemon that does not answer.
    Knocking {
        answer: mpsc::Receiver<io::Result<OwnedFd>>,
        /// Hung up by the thread when it has an answer.
        bell: OwnedFd,
    },
}

impl fmt::Debug for Outer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outer").field("link", &self.link).field("relay", &self.relay).finish_non_exhaustive()
    }
}

impl Outer {
    fn new(subscribe: Box<Subscribe>) -> Result<Self, SourceError> {
        let subscribe = Arc::new(Mutex::new(subscribe));
        let link = Link::Down { retry: Instant::now() };
        let mut outer = Self { subscribe, link, descriptors: 0, relay: Relay::new(), pause: FIRST_PAUSE };
        outer.knock();
        if let Link::Knocking { answer, .. } = &outer.link {
            match answer.recv_timeout(FIRST_ANSWER) {
                Ok(Ok(socket)) => outer.link_by(Link::Up(Stream::new(socket))),
                Ok(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => outer.postpone(),
                Ok(Err(error)) => return Err(SourceError::Outer(error)),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return Err(SourceError::Outer(io::ErrorKind::ConnectionAborted.into()));
                }
            }
        }
        Ok(outer)
    }

    fn read(&mut self, out: &mut Vec<Event>) -> bool {
        match &self.link {
            Link::Down { retry } if *retry <= Instant::now() => self.knock(),
            Link::Knocking { answer, .. } => match answer.try_recv() {
                Ok(Ok(socket)) => self.link_by(Link::Up(Stream::new(socket))),
                Err(mpsc::TryRecvError::Empty) => {}
                Ok(Err(_)) | Err(mpsc::TryRecvError::Disconnected) => self.postpone(),
            },
            Link::Up(_) | Link::Down { .. } => {}
        }
        let Link::Up(stream) = &mut self.link else { return true };
        for _ in 0..4096 {
            match stream.try_next() {
                Ok(Next::Event(event)) => {
                    // A daemon that only accepts and ends again is not there.
                    if let What::Synced { .. } = event.what {
                        self.pause = FIRST_PAUSE;
                    }
                    self.relay.feed(event, out);
                }
                Ok(Next::Nothing) => return true,
                Ok(Next::End) | Err(_) => {
                    self.relay.disconnected(now(), out);
                    self.postpone();
                    return true;
                }
            }
        }
        false
    }

    fn knock(&mut self) {
        let (tell, answer) = mpsc::channel();
        let Ok((bell, rope)) = pipe_with(PipeFlags::CLOEXEC) else { return self.postpone() };
        let subscribe = Arc::clone(&self.subscribe);
        let knocking = std::thread::Builder::new().name("outer".into()).spawn(move || {
            let mut subscribe = subscribe.lock().unwrap_or_else(PoisonError::into_inner);
            // Nobody may be there any more to hear it.
            let _ = tell.send(subscribe());
            drop(rope);
        });
        match knocking {
            Ok(_) => self.link_by(Link::Knocking { answer, bell }),
            Err(_) => self.postpone(),
        }
    }

    fn link_by(&mut self, link: Link) {
        self.link = link;
        self.descriptors += 1;
    }

    fn postpone(&mut self) {
        self.link = Link::Down { retry: Instant::now() + self.pause };
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match &self.link {
            Link::Up(stream) => Some(stream.as_fd()),
            Link::Knocking { bell, .. } => Some(bell.as_fd()),
            Link::Down { .. } => None,
        }
    }

    fn patience(&self) -> Option<Duration> {
        match &self.link {
            Link::Down { retry } => Some(retry.saturating_duration_since(Instant::now())),
            Link::Up(_) | Link::Knocking { .. } => None,
        }
    }
}

/// Reads /proc again and again, and tells what differs.
#[derive(Debug)]
pub struct Polling {
    scanner: Scanner,
    order: Order,
    interval: Duration,
    /// When the last scan was begun.
    began: Option<Instant>,
    next: Instant,
}

impl Polling {
    fn new(scanner: Scanner, interval: Duration) -> Self {
        Self { scanner, order: Order::new(), interval, began: None, next: Instant::now() }
    }

    fn read(&mut self, out: &mut Vec<Event>) -> Result<bool, ProcError> {
        let at = Instant::now();
        if self.next <= at {
            self.next = at + self.interval;
            match self.scanner.scan() {
                Ok(snapshot) => {
                    self.began = Some(at);
                    self.order.resync(&snapshot, out);
                }
                // Out of descriptors or memory, perhaps: a gap until it can be read.
                Err(_) if self.order.has_begun() => self.order.lost(now(), out),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}
