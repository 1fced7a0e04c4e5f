//! Closing what others chose: a connection with whatever lies unread in it, and descriptors that came along.
//!
//! It may take for ever (see [`apart`]), so threads do it that nobody waits for. How many, is bounded here.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};

use pinfold_realm::Account;
use pinfold_sys::apart::{self, Closing};

/// How many threads may close descriptors of one user, or of one container, at the sockets: one for each connection that it may
/// have at a door, and as many of connections that it had.
const MOST_OF_ACCOUNT: usize = 64;

/// Those of clients at the sockets.
pub(crate) static OF_CLIENTS: Closers<Account> = Closers::new(MOST_OF_ACCOUNT);

/// Threads that close something, and whose it is.
#[derive(Debug)]
pub(crate) struct Closers<W> {
    most_of_one: usize,
    live: Mutex<Vec<(W, Closing)>>,
}

impl<W: Copy + PartialEq> Closers<W> {
    /// None yet.
    pub(crate) const fn new(most_of_one: usize) -> Self {
        Self { most_of_one, live: Mutex::new(Vec::new()) }
    }

    /// Whether something of this one may be closed by a thread.
    pub(crate) fn has_room(&self, whose: W) -> bool {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.retain(|(_, closing)| !closing.is_over());
        live.iter().filter(|(other, _)| *other == whose).count() < self.most_of_one
    }

    /// Counts a thread, if there is one.
    pub(crate) fn add(&self, whose: W, closing: Option<Closing>) {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.extend(closing.map(|closing| (whose, closing)));
    }

    /// Ends a connection. It is given back if it must be closed by a thread, and there is none.
    pub(crate) fn end(&self, whose: W, stream: UnixStream) -> Result<(), UnixStream> {
        // The other end may have gone.
        let _ = stream.shutdown(Shutdown::Both);
        // From then on nothing gets in, and of a stream every descriptor comes with a byte.
        if rustix::io::ioctl_fionread(&stream) == Ok(0) {
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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    use super::*;
    use crate::passed::tests::{lingering, waits_for};
    use crate::stream::send;

    #[test]
    fn a_connection_with_a_descriptor_that_lingers_is_ended_at_once() {
        let closers = Closers::new(1);
        let (client, server) = UnixStream::pair().unwrap();
        let (socket, other_end) = lingering();
        send(&client, b"x", &[socket.as_fd()]).unwrap();
        drop(socket);
        closers.end((), server).unwrap();
        let mut rest = Vec::new();
        // What was not read makes a reset.
        let _ = (&client).read_to_end(&mut rest);
        waits_for(|| closers.has_room(()));
        drop(other_end);
    }

    #[test]
    fn a_connection_without_anything_in_it_needs_no_thread() {
        let closers = Closers::new(0);
        let (mut client, server) = UnixStream::pair().unwrap();
        closers.end((), server).unwrap();
        assert!(client.write_all(b"x").is_err());
        let (mut client, server) = UnixStream::pair().unwrap();
        client.write_all(b"x").unwrap();
        assert!(closers.end((), server).is_err(), "there is none");
    }
}
