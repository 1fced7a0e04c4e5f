//! A subscription as its reader has it: the other end of the socket.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use crate::event::Event;
use crate::wire::{self, WireError};

/// Why a stream cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The socket fails.
    #[error("event stream: {0}")]
    Socket(Errno),
    /// What arrives is not understood.
    #[error("event stream: {0}")]
    Wire(#[from] WireError),
}

/// What there is to read without waiting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// An event.
    Event(Event),
    /// Nothing yet: wait until the descriptor is readable.
    Nothing,
    /// The daemon has ended the stream.
    End,
}

/// Reads events from a subscription's descriptor. As an iterator it waits for each event, and ends with the stream.
#[derive(Debug)]
pub struct Stream {
    socket: OwnedFd,
    events: VecDeque<Event>,
    buffer: Vec<u8>,
    was_greeted: bool,
}

impl Stream {
    /// For what `Subscribe` answered.
    pub fn new(socket: OwnedFd) -> Self {
        let buffer = vec![0; wire::MOST_BYTES];
        Self { socket, events: VecDeque::new(), buffer, was_greeted: false }
    }

    /// The next event, waiting for it; `None`: the daemon has ended the stream.
    pub fn wait(&mut self) -> Result<Option<Event>, StreamError> {
        loop {
            match self.read(RecvFlags::empty())? {
                Next::Event(event) => return Ok(Some(event)),
                Next::End => return Ok(None),
                // The descriptor does not block.
                Next::Nothing => {
                    let mut wait = [rustix::event::PollFd::new(&self.socket, rustix::event::PollFlags::IN)];
                    match rustix::event::poll(&mut wait, None) {
                        Ok(_) | Err(Errno::INTR) => {}
                        Err(errno) => return Err(StreamError::Socket(errno)),
                    }
                }
            }
        }
    }

    /// The next event, if there is one.
    pub fn try_next(&mut self) -> Result<Next, StreamError> {
        self.read(RecvFlags::DONTWAIT)
    }

    fn read(&mut self, flags: RecvFlags) -> Result<Next, StreamError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Next::Event(event));
            }
            let length = match recv(&self.socket, &mut self.buffer[..], flags) {
                Ok((0, _)) => return Ok(Next::End),
                Ok((length, _)) => length,
                Err(Errno::AGAIN) => return Ok(Next::Nothing),
                Err(Errno::INTR) => continue,
                Err(Errno::CONNRESET) => return Ok(Next::End),
                Err(errno) => return Err(StreamError::Socket(errno)),
            };
            let packet = &self.buffer[..length];
            if self.was_greeted {
                wire::read(packet, |event| self.events.push_back(event))?;
            } else {
                wire::check_hello(packet)?;
                self.was_greeted = true;
            }
        }
    }
}

impl Iterator for Stream {
    type Item = Result<Event, StreamError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.wait().transpose()
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
