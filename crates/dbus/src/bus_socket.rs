//! The socket of the system bus. Whoever is there may pass a descriptor to the daemon, with a call or anything else, and
//! one thread reads all of it: it waits for none of them to be closed. So what gets in is of processes alone: a Unix socket has
//! others in it, and closing those may take any time.
//!
//! Who sent what cannot be closed is not known: a name at a bus is had again and again. So once there is too much of it, the bus is
//! left, and come back to without taking descriptors: then the bus itself refuses them.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use pinfold_sys::apart;
use rustix::event::{EventfdFlags, eventfd};
use rustix::net::sockopt::Timeout;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use zbus::Address;
use zbus::address::Transport;
use zbus::address::transport::UnixSocket;
use zbus::connection::socket::{ReadHalf, Socket, Split, WriteHalf};
use zbus::export::async_trait::async_trait;
use zruntime::{AsyncIo, Shared, SharedRuntime};

use crate::closing::Closers;
use crate::passed::{self, is_process};
use crate::stream::send;

/// Threads that close what came from callers.
static CLOSING: Closers<()> = Closers::new(256);

/// A connection to the system bus, of which this is closed last: what lies unread in it keeps nobody waiting.
#[derive(Debug)]
pub(crate) struct Connected(Option<UnixStream>);

impl Connected {
    /// Connects.
    pub(crate) fn to_system_bus(patience: Duration) -> zbus::Result<Self> {
        let address = Address::system()?;
        let Transport::Unix(unix) = address.transport() else { return Err(zbus::Error::Unsupported) };
        let to = match unix.path() {
            UnixSocket::File(path) => SocketAddrUnix::new(path),
            UnixSocket::Abstract(name) => SocketAddrUnix::new_abstract_name(name.as_encoded_bytes()),
            _ => return Err(zbus::Error::Unsupported),
        };
        let socket = to.and_then(|to| connected(&to, patience)).map_err(io::Error::from)?;
        Ok(Self(Some(UnixStream::from(socket))))
    }

    /// A socket of it, on the runtime of this thread.
    pub(crate) fn socket(&self) -> io::Result<BusSocket> {
        let stream = self.0.as_ref().ok_or(io::ErrorKind::NotConnected)?.try_clone()?;
        let io = Arc::new(AsyncIo::new(&SharedRuntime::current()?, stream)?);
        Ok(BusSocket { io, takes_descriptors: CLOSING.has_room(()) })
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        let Some(Err(left)) = self.0.take().map(|stream| CLOSING.end((), stream)) else { return };
        // One more for each time that the bus is left.
        if let Ok(closing) = apart::close(left.into()) {
            CLOSING.add((), Some(closing));
        }
    }
}

/// A socket of the bus.
#[derive(Debug)]
pub(crate) struct BusSocket {
    io: Arc<AsyncIo<UnixStream, Shared>>,
    takes_descriptors: bool,
}

/// A socket that is connected. A listener that has its backlog full is waited for no longer than that.
fn connected(to: &SocketAddrUnix, patience: Duration) -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::sockopt::set_socket_timeout(&socket, Timeout::Send, Some(patience))?;
    rustix::net::connect(&socket, to)?;
    Ok(socket)
}

impl Socket for BusSocket {
    type ReadHalf = Reader;
    type WriteHalf = Writer;

    fn split(self) -> Split<Reader, Writer> {
        let Self { io, takes_descriptors } = self;
        Split::new(Reader { io: Arc::clone(&io), takes_descriptors }, Writer { io, takes_descriptors })
    }
}

/// The half that everything comes in through.
#[derive(Debug)]
pub(crate) struct Reader {
    io: Arc<AsyncIo<UnixStream, Shared>>,
    takes_descriptors: bool,
}

#[async_trait]
impl ReadHalf for Reader {
    async fn recvmsg(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        self.io.read_with(|stream| receive(stream, buffer, &CLOSING)).await
    }

    fn can_pass_unix_fd(&self) -> bool {
        self.takes_descriptors
    }
}

fn receive(
    stream: &UnixStream,
    buffer: &mut [u8],
    closing: &Closers<()>,
) -> io::Result<(usize, Vec<OwnedFd>)> {
    let ahead = passed::look(stream, buffer)?;
    let buffer = &mut buffer[..ahead.length];
    if !ahead.has_descriptors {
        return Ok((passed::take(stream, buffer)?, Vec::new()));
    }
    if !closing.has_room(()) {
        tracing::warn!("descriptors that came over the system bus cannot be closed: no more are taken");
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, "too many descriptors cannot be closed"));
    }
    let passed = passed::take_with_descriptors(stream, buffer, is_process)?;
    closing.add((), passed.closing);
    Ok((passed.length, filled(passed.fds, passed.count)))
}

/// With descriptors of nothing, as many as that: zbus hangs up on a bus that passes fewer than a message has. Whoever sent more
/// than any call takes is told so.
fn filled(mut fds: Vec<OwnedFd>, count: usize) -> Vec<OwnedFd> {
    while fds.len() < count
        && let Ok(nothing) = eventfd(0, EventfdFlags::CLOEXEC)
    {
        fds.push(nothing);
    }
    fds
}

/// The half that everything goes out through.
#[derive(Debug)]
pub(crate) struct Writer {
    io: Arc<AsyncIo<UnixStream, Shared>>,
    takes_descriptors: bool,
}

#[async_trait]
impl WriteHalf for Writer {
    async fn sendmsg(&mut self, buffer: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        self.io.write_with(|stream| send(stream, buffer, fds)).await
    }

    async fn close(&mut self) -> io::Result<()> {
        self.io.get_ref().shutdown(std::net::Shutdown::Both)
    }

    fn can_pass_unix_fd(&self) -> bool {
        self.takes_descriptors
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;
    use crate::passed::tests::{lingering, waits_for};

    #[test]
    fn when_too_many_cannot_be_closed_the_bus_is_left_and_what_lies_there_keeps_nobody_waiting() {
        let (client, server) = UnixStream::pair().unwrap();
        server.set_nonblocking(true).unwrap();
        send(&client, b"x", &[client.as_fd()]).unwrap();
        let (length, fds) = receive(&server, &mut [0; 8], &Closers::new(1)).unwrap();
        assert_eq!((length, fds.len()), (1, 1), "one of nothing");
        let (socket, other_end) = lingering();
        send(&client, b"x", &[socket.as_fd()]).unwrap();
        drop(socket);
        let error = receive(&server, &mut [0; 8], &Closers::new(0)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
        drop(Connected(Some(server)));
        waits_for(|| (&client).write(b"x").is_err());
        drop(other_end);
    }

    #[test]
    fn a_socket_that_takes_no_descriptors_says_so_both_ways() {
        zbus::block_on(async {
            for takes_descriptors in [true, false] {
                let (stream, _other_end) = UnixStream::pair().unwrap();
                let io = Arc::new(AsyncIo::new(&SharedRuntime::current().unwrap(), stream).unwrap());
                let (reader, writer) = BusSocket { io, takes_descriptors }.split().take();
                assert_eq!(reader.can_pass_unix_fd(), takes_descriptors);
                assert_eq!(writer.can_pass_unix_fd(), takes_descriptors);
            }
        });
    }
}
