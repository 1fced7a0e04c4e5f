//! Where events come from: one closed list.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use rustix::event::epoll;

use crate::connector::{Connector, ConnectorError, Counters};
use crate::event::{Event, What};
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
}

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

    /// An outer pinfold's, given how to subscribe to it; called again after it restarted, by the thread that serves, so it should not
    /// wait for long.
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
        }
    }

    /// Reads what has happened up to now, also where it would not be looked for yet: /proc is read at once. Answers whether
    /// that was all. An outer pinfold may be a moment behind.
    pub fn catch_up(&mut self, out: &mut Vec<Event>) -> Result<bool, SourceError> {
        if let Self::Polling(polling) = self {
            polling.next = Instant::now();
        }
        self.read(out)
    }

    /// In a word or two, for messages.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Connector(_) => "proc connector",
            Self::Outer(_) => "outer pinfold",
            Self::Polling(_) => "/proc, polled",
        }
    }

    /// What becomes readable when there is something to read.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Connector(connector) => Some(connector.as_fd()),
            Self::Outer(outer) => outer.stream.as_ref().map(Stream::as_fd),
            Self::Polling(_) => None,
        }
    }

    /// Has an epoll wait for the present descriptor, which may be another than the one before. Give it what it answered last.
    pub fn join(&self, epoll: impl AsFd, token: u64, joined: Option<RawFd>) -> Option<RawFd> {
        let descriptor = self.descriptor()?;
        let raw = descriptor.as_raw_fd();
        if joined == Some(raw) {
            return joined;
        }
        let token = epoll::EventData::new_u64(token);
        epoll::add(epoll, descriptor, token, epoll::EventFlags::IN).ok().map(|()| raw)
    }

    /// After what time there is something to do even if nothing becomes readable.
    pub fn patience(&self) -> Option<Duration> {
        match self {
            Self::Connector(connector) => connector.is_waiting().then_some(Duration::from_millis(100)),
            Self::Outer(outer) => outer.patience(),
            Self::Polling(polling) => Some(polling.next.saturating_duration_since(Instant::now())),
        }
    }

    /// What has been counted. Of others than the connector only scans are.
    pub fn counters(&self) -> Counters {
        match self {
            Self::Connector(connector) => connector.counters(),
            Self::Outer(_) => Counters::default(),
            Self::Polling(polling) => Counters { scans: polling.scanner.scans(), ..Counters::default() },
        }
    }
}

/// Subscribes to an outer pinfold.
type Subscribe = dyn FnMut() -> io::Result<OwnedFd> + Send;

/// The first pause before one tries to subscribe again; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The pinfold outside this container. When it goes, that is a gap until it is back.
pub struct Outer {
    subscribe: Box<Subscribe>,
    stream: Option<Stream>,
    relay: Relay,
    retry: Instant,
    pause: Duration,
}

impl fmt::Debug for Outer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outer")
            .field("stream", &self.stream)
            .field("relay", &self.relay)
            .finish_non_exhaustive()
    }
}

impl Outer {
    fn new(mut subscribe: Box<Subscribe>) -> Result<Self, SourceError> {
        let stream = Some(Stream::new(subscribe().map_err(SourceError::Outer)?));
        Ok(Self { subscribe, stream, relay: Relay::new(), retry: Instant::now(), pause: FIRST_PAUSE })
    }

    fn read(&mut self, out: &mut Vec<Event>) -> bool {
        if self.stream.is_none() && self.retry <= Instant::now() {
            self.reconnect();
        }
        let Some(stream) = &mut self.stream else { return true };
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
                    self.stream = None;
                    self.relay.disconnected(now(), out);
                    self.postpone();
                    return true;
                }
            }
        }
        false
    }

    fn reconnect(&mut self) {
        match (self.subscribe)() {
            Ok(socket) => self.stream = Some(Stream::new(socket)),
            Err(_) => self.postpone(),
        }
    }

    fn postpone(&mut self) {
        self.retry = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    fn patience(&self) -> Option<Duration> {
        self.stream.is_none().then(|| self.retry.saturating_duration_since(Instant::now()))
    }
}

/// Reads /proc again and again, and tells what differs.
#[derive(Debug)]
pub struct Polling {
    scanner: Scanner,
    order: Order,
    interval: Duration,
    next: Instant,
}

impl Polling {
    fn new(scanner: Scanner, interval: Duration) -> Self {
        Self { scanner, order: Order::new(), interval, next: Instant::now() }
    }

    fn read(&mut self, out: &mut Vec<Event>) -> Result<bool, ProcError> {
        if self.next <= Instant::now() {
            self.next = Instant::now() + self.interval;
            let snapshot = self.scanner.scan()?;
            self.order.resync(&snapshot, out);
        }
        Ok(true)
    }
}
