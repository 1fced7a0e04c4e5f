//! The socket of the system bus. Whoever is there may pass a descriptor to the daemon, with a call or anything else, and
//! one thread reads all of it: it waits for none of them to be closed. So what gets in is of processes alone: a Unix socket has
//! others in it, and closing those may take any time.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

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

/// Threads that close what came from callers. While there are as many, nothing is read.
static CLOSING: Closers<()> = Closers::new(256);

/// How long to wait before looking whether one of them has ended.
const RETRY: Duration = Duration::from_millis(100);

/// A socket of the bus.
#[derive(Debug)]
pub(crate) struct BusSocket(Arc<AsyncIo<UnixStream, Shared>>);

impl BusSocket {
    /// Connects to the system bus.
    pub(crate) fn connect(patience: Duration) -> zbus::Result<Self> {
        let address = Address::system()?;
        let Transport::Unix(unix) = address.transport() else { return Err(zbus::Error::Unsupported) };
        let to = match unix.path() {
            UnixSocket::File(path) => SocketAddrUnix::new(path),
            UnixSocket::Abstract(name) => SocketAddrUnix::new_abstract_name(name.as_encoded_bytes()),
            _ => return Err(zbus::Error::Unsupported),
        };
        let socket = to.and_then(|to| connected(&to, patience)).map_err(io::Error::from)?;
        Ok(Self(Arc::new(AsyncIo::new(&SharedRuntime::current()?, UnixStream::from(socket))?)))
    }
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
        Split::new(Reader(Arc::clone(&self.0)), Writer(self.0))
    }
}

/// The half that everything comes in through.
#[derive(Debug)]
pub(crate) struct Reader(Arc<AsyncIo<UnixStream, Shared>>);

#[async_trait]
impl ReadHalf for Reader {
    async fn recvmsg(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        while !CLOSING.has_room(()) {
            tracing::debug!("the system bus is not read: what came over it cannot be closed");
            // Nothing comes.
            let _ = SharedRuntime::current()?.timeout(RETRY, std::future::pending::<()>()).await;
        }
        self.0.read_with(|stream| receive(stream, buffer)).await
    }

    fn can_pass_unix_fd(&self) -> bool {
        true
    }
}

fn receive(stream: &UnixStream, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let ahead = passed::look(stream, buffer)?;
    let buffer = &mut buffer[..ahead.length];
    if !ahead.has_descriptors {
        return Ok((passed::take(stream, buffer)?, Vec::new()));
    }
    let passed = passed::take_with_descriptors(stream, buffer, is_process)?;
    CLOSING.add((), passed.closing);
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
pub(crate) struct Writer(Arc<AsyncIo<UnixStream, Shared>>);

#[async_trait]
impl WriteHalf for Writer {
    async fn sendmsg(&mut self, buffer: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        self.0.write_with(|stream| send(stream, buffer, fds)).await
    }

    async fn close(&mut self) -> io::Result<()> {
        self.0.get_ref().shutdown(std::net::Shutdown::Both)
    }

    fn can_pass_unix_fd(&self) -> bool {
        true
    }
}
