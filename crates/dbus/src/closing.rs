//! How many threads may close what clients chose.

use pinfold_realm::Account;
pub(crate) use pinfold_sys::closing::Closers;

/// How many threads may close descriptors of one user, or of one container, at the sockets: one for each connection that it may
/// have at a door, and as many of connections that it had.
const MOST_OF_ACCOUNT: usize = 64;

/// Those of clients at the sockets.
pub(crate) static OF_CLIENTS: Closers<Account> = Closers::new(MOST_OF_ACCOUNT);

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

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
