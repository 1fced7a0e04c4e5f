//! The listener: a socket that only its owner reaches, and a thread for each connection.

use std::collections::BTreeMap;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rustix::fs::{Mode, fchmod};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::geteuid;
use zbus::connection::Builder;

use crate::manager::{Daemon, Manager};
use crate::wire::PATH;

/// How many connections are served at once; more are turned away.
const MAX_CONNECTIONS: usize = 128;
/// How many connections may wait to be accepted.
const BACKLOG: i32 = 128;

/// A listening daemon. Dropping it without [`Self::stop`] leaves its threads running.
#[derive(Debug)]
pub struct Server {
    socket: PathBuf,
    listener: OwnedFd,
    accepting: JoinHandle<()>,
    connections: Arc<Connections>,
}

/// Why nobody can be served at the socket.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen at {}", .socket.display())]
pub struct ListenError {
    socket: PathBuf,
    source: io::Error,
}

/// Who is connected.
#[derive(Default, Debug)]
struct Connections(Mutex<Table>);

#[derive(Default, Debug)]
struct Table {
    last: u64,
    live: BTreeMap<u64, Connection>,
}

/// One client: a handle to hang up with, and the thread to wait for. A thread that ends takes it away, so that nothing
/// keeps the socket open.
#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    thread: JoinHandle<()>,
}

impl Server {
    /// Listens at this socket. One that is there already is taken for the rest of a daemon that was killed: the
    /// caller holds the realm's lock.
    pub fn listen(socket: &Path, daemon: Arc<Daemon>) -> Result<Self, ListenError> {
        let failed = |source| ListenError { socket: socket.to_owned(), source };
        let listener = bind(socket).map_err(failed)?;
        let handle = listener.as_fd().try_clone_to_owned().map_err(failed)?;
        let connections = Arc::<Connections>::default();
        let shared = Arc::clone(&connections);
        let accepting = std::thread::Builder::new()
            .name("dbus-accept".to_owned())
            .spawn(move || accept_all(&listener, &shared, &daemon))
            .map_err(failed)?;
        Ok(Self { socket: socket.to_owned(), listener: handle, accepting, connections })
    }

    /// Takes no more connections and removes the socket. Those who are connected stay.
    pub fn close(&self) {
        // A listener that is shut down wakes its accept() with EINVAL. The socket may be gone from its directory.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        let _ = std::fs::remove_file(&self.socket);
    }

    /// Closes, lets calls under way finish and be answered, then hangs up.
    pub fn stop(self) {
        self.close();
        let _ = self.accepting.join();
        let live = std::mem::take(&mut self.connections.lock().live);
        for Connection { stream, thread } in live.into_values() {
            let _ = stream.shutdown(Shutdown::Read);
            let _ = thread.join();
        }
    }
}

/// Binds with mode 0600 from the first moment on: bind(2) takes the mode of the unbound socket.
fn bind(path: &Path) -> io::Result<UnixListener> {
    let address = SocketAddrUnix::new(path)?;
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

/// How long to wait before accepting again when it failed: the reason will not go within a few instructions.
const RETRY: std::time::Duration = std::time::Duration::from_millis(100);

fn accept_all(listener: &UnixListener, connections: &Arc<Connections>, daemon: &Arc<Daemon>) {
    loop {
        match listener.accept() {
            Ok((stream, _)) => connections.admit(stream, daemon),
            // accept(2): the listener was shut down.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => return,
            // Out of descriptors or memory, or the client went away: the next one may fare better.
            Err(error) => {
                tracing::warn!(%error, "a D-Bus client could not be accepted");
                std::thread::sleep(RETRY);
            }
        }
    }
}

impl Connections {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a thread for a new client, if it may be here.
    fn admit(self: &Arc<Self>, stream: UnixStream, daemon: &Arc<Daemon>) {
        let mut table = self.lock();
        if table.live.len() >= MAX_CONNECTIONS {
            tracing::warn!("a D-Bus client was turned away: {MAX_CONNECTIONS} are connected already");
            return;
        }
        table.last += 1;
        let number = table.last;
        // The thread cannot take itself away before it is in the table: that is locked.
        match self.start(number, stream, daemon) {
            Ok(connection) => drop(table.live.insert(number, connection)),
            Err(error) => tracing::warn!(%error, "a D-Bus client was turned away"),
        }
    }

    /// Who is at the other end, as the kernel says; and their thread.
    fn start(
        self: &Arc<Self>,
        number: u64,
        stream: UnixStream,
        daemon: &Arc<Daemon>,
    ) -> io::Result<Connection> {
        let peer = rustix::net::sockopt::socket_peercred(&stream)?;
        // The daemon's owner and root only, for now: the socket's mode says the same.
        if !peer.uid.is_root() && peer.uid != geteuid() {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("uid {}", peer.uid.as_raw()),
            ));
        }
        let manager = Manager::new(&peer, Arc::clone(daemon));
        let handle = stream.try_clone()?;
        let connections = Arc::clone(self);
        let serve = move || {
            zbus::block_on(serve(stream, manager));
            connections.lock().live.remove(&number);
        };
        let thread = std::thread::Builder::new().name("dbus-client".to_owned()).spawn(serve)?;
        Ok(Connection { stream: handle, thread })
    }
}

/// Serves one client until it leaves or [`Server::stop`] hangs up. Blocking calls into the realm are made right here:
/// this thread drives nobody else's connection.
async fn serve(stream: UnixStream, manager: Manager) {
    let connection =
        Builder::unix_stream(stream).server(zbus::Guid::generate()).p2p().serve_at(PATH, manager).build();
    match connection.await {
        Ok(connection) => connection.closed().await,
        Err(error) => tracing::debug!(%error, "a D-Bus client did not get past the greeting"),
    }
}
