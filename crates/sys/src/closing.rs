//! Closing what others chose: a connection with whatever lies unread in it, and descriptors that came along.
//!
//! It may take for ever (see [`apart`]), so threads do it that nobody waits for. How many, is bounded here.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};

use rustix::io::ioctl_fionread;

use crate::apart::{self, Closing};

/// Threads that close something, and whose it is.
#[derive(Debug)]
pub struct Closers<W> {
    most_of_one: usize,
    live: Mutex<Vec<(W, Closing)>>,
}

impl<W: Copy + PartialEq> Closers<W> {
    /// None yet.
    pub const fn new(most_of_one: usize) -> Self {
        Self { most_of_one, live: Mutex::new(Vec::new()) }
    }

    /// Whether something of this one may be closed by a thread.
    pub fn has_room(&self, whose: W) -> bool {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.retain(|(_, closing)| !closing.is_over());
        live.iter().filter(|(other, _)| *other == whose).count() < self.most_of_one
    }

    /// Counts a thread, if there is one.
    pub fn add(&self, whose: W, closing: Option<Closing>) {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.extend(closing.map(|closing| (whose, closing)));
    }

    /// Ends a connection. It is given back if it must be closed by a thread, and there is none.
    pub fn end(&self, whose: W, stream: UnixStream) -> Result<(), UnixStream> {
        // The other end may have gone.
        let _ = stream.shutdown(Shutdown::Both);
        // From then on nothing gets in, and of a stream every descriptor comes with a byte.
        if ioctl_fionread(&stream) == Ok(0) {
            return Ok(());
        }
        if !self.has_room(whose) {
            return Err(stream);
        }
        let closing = apart::close(stream.into()).map_err(UnixStream::from)?;
        self.add(whose, Some(closing));
        Ok(())
    }
}
