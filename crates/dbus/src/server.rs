//! The doors: sockets that clients come in through, and a thread for each client.
//!
//! The *owner's door* is in the state directory and opens to root and whom the daemon runs as. The *public door* is in a
//! directory of its own that anybody may enter, and that may be bind-mounted into containers; what who comes in there
//! may do, the realm decides. Each has room of its own, so that nobody can shut the owner out.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pinfold_model::{Gid, HostPid, Uid};
use pinfold_realm::{Account, Peer};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, chmod, fchmod};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::geteuid;
use zbus::connection::Builder;

use crate::bus::{self, Bus};
use crate::cgmanager::{self, Cgmanager};
use crate::closing::{Closers, OF_CLIENTS};
use crate::handshake;
use crate::manager::{Daemon, Manager};
use crate::stream::{LastMessage, Stream};
use crate::subscribe::{Events, Listener};
use crate::wire::PATH;

/// How many clients are served at once at each door; more are turned away.
const MOST_CLIENTS: usize = 256;
/// How many of them may be one user's, or come from one container, at the public door.
const MOST_OF_ACCOUNT: usize = 32;
/// How many of them are kept for the host's root, however many others come.
const KEPT_FOR_HOST: usize = 16;
/// How many may be beside them who have been hung up on to make room, and have not left yet.
const MOST_LEAVING: usize = 16;
/// How many descriptors a client takes: its socket and the handle to it, what its thread waits with, its process, what it
/// passes and what is opened for it.
const FDS_OF_CLIENT: u64 = 8;
/// How many descriptors are not for clients at the public doors; if it may not have many, a quarter of them.
const FDS_KEPT: u64 = 256;
/// How many connections may wait to be accepted.
const BACKLOG: i32 = 128;

/// How long clients may take to end when the daemon does.
pub(crate) const ENDING: Duration = Duration::from_secs(10);

/// Who is let in at a door.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Door {
    /// Root and whom the daemon runs as.
    Owner,
    /// Everybody.
    Public,
    /// Everybody, as clients of cgmanager.
    Cgmanager,
}

/// A listening daemon. Dropping it without [`Self::stop`] leaves its threads running.
#[derive(Debug)]
pub struct Server {
    socket: PathBuf,
    /// Whether the directory of the socket is there for it alone, and goes with it.
    has_own_dir: bool,
    listener: OwnedFd,
    accepting: JoinHandle<()>,
    clients: Arc<Clients>,
}

/// Why nobody can be served at the socket.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen at {}", .socket.display())]
pub struct ListenError {
    socket: PathBuf,
    source: io::Error,
}

/// Why somebody is not let in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LetInError {
    /// As many are here as may be.
    #[error("no room for more clients of {0}")]
    NoRoom(Account),
    /// It would take descriptors that are kept for the owner's door, and for what is done there.
    #[error("no descriptors for more clients")]
    NoDescriptors,
    /// There is no thread for it.
    #[error("no thread for the client")]
    Thread(#[from] io::Error),
}

/// What is served behind a door.
#[derive(Debug)]
enum Served {
    Realm(Arc<Daemon>),
    Cgmanager(Arc<Daemon>),
    Events(Arc<Events>),
}

/// The interface as one client sees it.
pub(crate) enum Face {
    Manager(Manager),
    Cgmanager(Cgmanager),
    Listener(Listener),
}

/// Who is connected.
#[derive(Debug)]
pub(crate) struct Clients {
    door: Door,
    table: Mutex<Table>,
    /// A client has left.
    left: Condvar,
}

#[derive(Default, Debug)]
struct Table {
    last: u64,
    live: BTreeMap<u64, Client>,
}

/// One client: a handle to hang up with. Its thread takes it away when it ends, so that nothing keeps the socket open.
#[derive(Debug)]
struct Client {
    account: Account,
    /// `None`: it is being closed.
    stream: Option<UnixStream>,
    last: Arc<LastMessage>,
    /// Whether another has got its place.
    is_leaving: bool,
}

/// Whose place a newcomer takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Room {
    Free,
    /// One of this account's.
    Of(Account),
}

impl Server {
    /// Listens at this socket. One that is there already is taken for the rest of a daemon that was killed: the caller
    /// holds the realm's lock. The public door's directory is made if it is not there.
    pub fn listen(door: Door, socket: &Path, daemon: Arc<Daemon>) -> Result<Self, ListenError> {
        match door {
            Door::Cgmanager => Self::listen_as_cgmanager(socket, daemon),
            Door::Owner | Door::Public => {
                Self::listen_for(door, socket, door == Door::Public, Served::Realm(daemon))
            }
        }
    }

    /// No lock says whose cgmanager's socket is: one where somebody answers is not taken. Its directory is made only if the
    /// place is cgmanager's own.
    fn listen_as_cgmanager(socket: &Path, daemon: Arc<Daemon>) -> Result<Self, ListenError> {
        let failed = |source| ListenError { socket: socket.to_owned(), source };
        match std::fs::symlink_metadata(socket) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(failed(io::Error::new(io::ErrorKind::AlreadyExists, "there is no socket there")));
            }
            Ok(_) if UnixStream::connect(socket).is_ok() => {
                return Err(failed(io::ErrorKind::AddrInUse.into()));
            }
            _ => {}
        }
        let has_own_dir = cgmanager::DEFAULT_SOCKETS.iter().any(|place| Path::new(place) == socket);
        Self::listen_for(Door::Cgmanager, socket, has_own_dir, Served::Cgmanager(daemon))
    }

    /// A public door where there is no realm: process events are all that is served.
    pub fn listen_for_events(socket: &Path, events: Events) -> Result<Self, ListenError> {
        Self::listen_for(Door::Public, socket, true, Served::Events(Arc::new(events)))
    }

    fn listen_for(door: Door, socket: &Path, has_own_dir: bool, served: Served) -> Result<Self, ListenError> {
        let failed = |source| ListenError { socket: socket.to_owned(), source };
        if has_own_dir {
            make_public_dir(socket.parent().unwrap_or(Path::new("."))).map_err(failed)?;
        }
        let (listener, queue) = bind(door, socket).map_err(failed)?;
        let handle = listener.as_fd().try_clone_to_owned().map_err(failed)?;
        let clients = Clients::of(door);
        let shared = Arc::clone(&clients);
        let accepting = std::thread::Builder::new()
            .name("dbus-accept".to_owned())
            .spawn(move || accept_all(&listener, queue, &shared, &served))
            .map_err(failed)?;
        Ok(Self { socket: socket.to_owned(), has_own_dir, listener: handle, accepting, clients })
    }

    /// Takes no more connections and removes the socket. Those who are connected stay.
    pub fn close(&self) {
        // A listener that is shut down wakes its accept() with EINVAL. The socket may be gone from its directory.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        let _ = std::fs::remove_file(&self.socket);
        if let (true, Some(dir)) = (self.has_own_dir, self.socket.parent()) {
            let _ = std::fs::remove_dir(dir);
        }
    }

    /// Closes, lets calls under way finish and be answered, then hangs up.
    pub fn stop(self) {
        self.close();
        let _ = self.accepting.join();
        self.clients.hang_up();
    }
}

/// The directory is the daemon's, and others only pass: nobody can put a socket of his own in the place of this one.
fn make_public_dir(dir: &Path) -> io::Result<()> {
    match std::fs::DirBuilder::new().mode(0o755).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        result => result?,
    }
    let found = rustix::fs::lstat(dir)?;
    let is_dir = rustix::fs::FileType::from_raw_mode(found.st_mode).is_dir();
    if !is_dir || found.st_uid != geteuid().as_raw() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the directory is somebody else's"));
    }
    // Whatever the umask took away.
    Ok(chmod(dir, Mode::from_raw_mode(0o755))?)
}

/// What may lie in the socket of a client that has not greeted yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Queue {
    /// Bytes alone.
    Bytes,
    /// Descriptors too (Linux before 6.16).
    Descriptors,
}

/// Binds with the door's mode from the first moment on: bind(2) takes the mode of the unbound socket. Whoever waits for the socket to be
/// there finds one that listens: until then it has another name.
fn bind(door: Door, path: &Path) -> io::Result<(UnixListener, Queue)> {
    let unready = unready(path);
    let address = SocketAddrUnix::new(&unready)?;
    match std::fs::remove_file(&unready) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &address)?;
    let listens = || {
        if door != Door::Owner {
            // The umask may take off what others need; nobody is accepted before listen(2).
            chmod(&unready, Mode::from_raw_mode(0o666))?;
        }
        let queue = if handshake::let_pass(&socket, false)? { Queue::Bytes } else { Queue::Descriptors };
        rustix::net::listen(&socket, BACKLOG)?;
        std::fs::rename(&unready, path)?;
        Ok(queue)
    };
    match listens() {
        Ok(queue) => Ok((UnixListener::from(socket), queue)),
        Err(error) => {
            let _ = std::fs::remove_file(&unready);
            Err(error)
        }
    }
}

/// The name of a socket that does not listen yet: as long as the other, since addresses have a bound.
fn unready(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().as_bytes().to_vec();
    if let Some(last) = name.last_mut() {
        *last = if *last == b'~' { b'-' } else { b'~' };
    }
    PathBuf::from(OsString::from_vec(name))
}

/// How long to wait before accepting again when it failed: the reason will not go within a few instructions.
const RETRY: Duration = Duration::from_millis(100);

/// How many connections that were turned away may not be closed yet. While there are as many, nobody is let in at that door.
const MOST_TURNED_AWAY: usize = 256;

fn accept_all(listener: &UnixListener, queue: Queue, clients: &Arc<Clients>, served: &Served) {
    let turned_away = Closers::new(MOST_TURNED_AWAY);
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                let Err((error, stream)) = clients.admit(stream, served) else { continue };
                tracing::debug!(%error, "a D-Bus client was turned away");
                match queue {
                    Queue::Bytes => drop(stream),
                    Queue::Descriptors => end(stream, listener, &turned_away),
                }
            }
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

/// Ends a connection in which there may be descriptors that cannot be closed.
fn end(mut stream: UnixStream, listener: &UnixListener, turned_away: &Closers<()>) {
    let retry = Timespec::try_from(RETRY).unwrap_or_default();
    while let Err(not_ended) = turned_away.end((), stream) {
        tracing::warn!("connections that were turned away cannot be closed");
        let mut shut = [PollFd::new(listener, PollFlags::empty())];
        if rustix::event::poll(&mut shut, Some(&retry)) == Ok(1) {
            // The daemon is ending, and this is left to the kernel.
            let _ = not_ended.into_raw_fd();
            return;
        }
        stream = not_ended;
    }
}

impl Served {
    /// What a peer is shown, and whom its connection counts for.
    fn face(&self, peer: Peer) -> io::Result<(Face, Account)> {
        match self {
            Self::Realm(daemon) => {
                let requester = daemon.realm.requester(peer).map_err(io::Error::other)?;
                let account = requester.account();
                Ok((Face::Manager(Manager::new(requester, Arc::clone(daemon))), account))
            }
            Self::Cgmanager(daemon) => {
                let requester = daemon.realm.requester(peer).map_err(io::Error::other)?;
                let account = requester.account();
                Ok((Face::Cgmanager(Cgmanager::new(requester, Arc::clone(daemon))), account))
            }
            Self::Events(events) => {
                let account = Account::User(peer.uid);
                Ok((Face::Listener(Listener::new(peer, Arc::clone(events))), account))
            }
        }
    }
}

impl Clients {
    /// Nobody yet.
    pub(crate) fn of(door: Door) -> Arc<Self> {
        Arc::new(Self { door, table: Mutex::default(), left: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a thread for a new client, if it may be here.
    fn admit(self: &Arc<Self>, stream: UnixStream, served: &Served) -> Result<(), (io::Error, UnixStream)> {
        match self.face(&stream, served) {
            Ok((face, account)) => self
                .let_in(stream, face, account)
                .map_err(|(error, stream)| (io::Error::other(error), stream)),
            Err(error) => Err((error, stream)),
        }
    }

    fn face(&self, stream: &UnixStream, served: &Served) -> io::Result<(Face, Account)> {
        let peer = peer_of(stream, self.door)?;
        let uid = peer.uid.0;
        let (face, account) = served.face(peer)?;
        if self.door == Door::Owner && account != Account::Host {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("user {uid}")));
        }
        Ok((face, account))
    }

    /// Whether one more may come who counts for this account.
    pub(crate) fn has_room_for(&self, account: Account) -> bool {
        self.lock().room_for(account).is_some()
    }

    /// Starts a thread for who is at the other end of this socket, if there is room; else it is given back.
    pub(crate) fn let_in(
        self: &Arc<Self>,
        stream: UnixStream,
        face: Face,
        account: Account,
    ) -> Result<(), (LetInError, UnixStream)> {
        let mut table = self.lock();
        let Some(room) = table.room_for(account) else {
            return Err((LetInError::NoRoom(account), stream));
        };
        if self.door != Door::Owner && !leaves_descriptors(&stream, table.live.len()) {
            return Err((LetInError::NoDescriptors, stream));
        }
        table.last += 1;
        let number = table.last;
        // The thread cannot take itself away before it is in the table: that is locked.
        let client = match self.start(number, stream, face, account) {
            Ok(client) => client,
            Err((error, stream)) => return Err((error.into(), stream)),
        };
        if let Room::Of(account) = room {
            table.hang_up_on_one_of(account);
        }
        table.live.insert(number, client);
        Ok(())
    }

    fn start(
        self: &Arc<Self>,
        number: u64,
        stream: UnixStream,
        face: Face,
        account: Account,
    ) -> Result<Client, (io::Error, UnixStream)> {
        let handle = match stream.try_clone() {
            Ok(handle) => handle,
            Err(error) => return Err((error, stream)),
        };
        let clients = Arc::clone(self);
        let last = Arc::new(LastMessage::new());
        let of_client = Arc::clone(&last);
        let serve = move || {
            let _place = Place { clients, number };
            let served = match face {
                Face::Manager(manager) => serve(stream, account, of_client, PATH, manager),
                Face::Listener(listener) => serve(stream, account, of_client, PATH, listener),
                Face::Cgmanager(cgmanager) => {
                    let _finishing = cgmanager.finishing();
                    serve(stream, account, of_client, cgmanager::PATH, cgmanager)
                }
            };
            if let Err(error) = served {
                tracing::debug!(%error, "a D-Bus client did not get past the greeting");
            }
        };
        match std::thread::Builder::new().name("dbus-client".to_owned()).spawn(serve) {
            Ok(_) => Ok(Client { account, stream: Some(handle), last, is_leaving: false }),
            Err(error) => Err((error, handle)),
        }
    }

    /// Hangs up on everybody and waits until calls under way are answered. Not for ever: a thread may be held up by what
    /// its client passed (the last descriptor of a file of somebody's own file system is closed when that answers).
    pub(crate) fn hang_up(&self) {
        let deadline = Instant::now() + ENDING;
        let mut table = self.lock();
        for stream in table.live.values().filter_map(|client| client.stream.as_ref()) {
            let _ = stream.shutdown(Shutdown::Read);
        }
        while !table.live.is_empty() {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                tracing::warn!("{} D-Bus clients do not let go of their calls", table.live.len());
                return;
            };
            table = self.left.wait_timeout(table, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// A client's place at its door: it has it until its thread ends, however that comes.
struct Place {
    clients: Arc<Clients>,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.clients.lock();
        let client = table.live.get_mut(&self.number);
        let left = client.and_then(|client| Some((client.account, client.stream.take()?)));
        drop(table);
        // If no thread closes what was left unread in it, which may wait for its maker, nobody waits but this place.
        drop(left.map(|(account, stream)| OF_CLIENTS.end(account, stream)));
        self.clients.lock().live.remove(&self.number);
        self.clients.left.notify_all();
    }
}

impl Table {
    fn room_for(&self, account: Account) -> Option<Room> {
        let (of_host, others): (Vec<&Client>, Vec<&Client>) =
            self.live.values().partition(|client| client.account == Account::Host);
        let others: Vec<(Account, bool)> =
            others.into_iter().map(|client| (client.account, client.is_leaving)).collect();
        room_for(account, of_host.len(), &others)
    }

    /// Hangs up on the one of an account's to whom nothing was said for the longest time, and who said nothing. A call that is
    /// under way is answered.
    fn hang_up_on_one_of(&mut self, account: Account) {
        let of_account = self.live.values_mut().filter(|one| one.account == account && !one.is_leaving);
        let Some(client) = of_account.min_by_key(|one| one.last.number()) else { return };
        client.is_leaving = true;
        if let Some(stream) = &client.stream {
            let _ = stream.shutdown(Shutdown::Read);
        }
        tracing::debug!("a D-Bus client of {account} has to make room for another");
    }
}

/// Where there is room for one more, beside so many of the host's root and these others, of whom some are leaving. Where there is none, who has
/// most gives a place to who has fewer, so that in the end all who want more have as many.
fn room_for(account: Account, of_host: usize, others: &[(Account, bool)]) -> Option<Room> {
    let of = |wanted: Account| others.iter().filter(move |(other, _)| *other == wanted);
    let staying = |wanted: Account| of(wanted).filter(|(_, is_leaving)| !is_leaving).count();
    let leaving = others.iter().filter(|(_, is_leaving)| *is_leaving).count();
    let all = others.len() - leaving;
    let is_full = of_host + all >= MOST_CLIENTS;
    if account == Account::Host {
        return (!is_full).then_some(Room::Free);
    }
    if of(account).count() >= MOST_OF_ACCOUNT {
        return None;
    }
    if !is_full && all < MOST_CLIENTS - KEPT_FOR_HOST {
        return Some(Room::Free);
    }
    let most = others.iter().map(|(other, _)| *other).max_by_key(|other| staying(*other))?;
    let is_fair = staying(most) > staying(account) + 1;
    (is_fair && leaving < MOST_LEAVING).then_some(Room::Of(most))
}

/// Whether there are descriptors enough for one more client at a door where there are so many. Those who have just come may
/// not have opened theirs.
fn leaves_descriptors(stream: &UnixStream, clients: usize) -> bool {
    let clients = u64::try_from(clients).unwrap_or(u64::MAX).saturating_add(1);
    is_left(stream, clients.saturating_mul(FDS_OF_CLIENT))
}

/// Whether those that are kept for the owner are left, with this descriptor and so many more. The kernel gives the lowest
/// number that is free, so there are at least as many as that of the last one.
pub(crate) fn is_left(last: &impl AsRawFd, more: u64) -> bool {
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    let number = u64::try_from(last.as_raw_fd()).unwrap_or(u64::MAX);
    number.saturating_add(more) <= most - FDS_KEPT.min(most / 4)
}

/// Who is at the other end, as the kernel says.
fn peer_of(stream: &UnixStream, door: Door) -> io::Result<Peer> {
    let credentials = pinfold_sys::socket::peer(stream)?;
    let pidfd = match pinfold_sys::socket::peer_pidfd(stream) {
        Ok(pidfd) => Some(pidfd),
        // Linux before 6.5.
        Err(rustix::io::Errno::NOPROTOOPT) => None,
        Err(errno) => return Err(errno.into()),
    };
    Ok(Peer {
        uid: Uid(credentials.uid),
        gid: Gid(credentials.gid),
        process: credentials.process.and_then(|number| HostPid::new(number.get())),
        pidfd,
        through_state: door == Door::Owner,
    })
}

/// Serves one client until it leaves or [`Server::stop`] hangs up. Blocking calls into the realm are made right here:
/// this thread drives nobody else's connection.
fn serve<F: zbus::object_server::Interface>(
    stream: UnixStream,
    account: Account,
    last: Arc<LastMessage>,
    object: &str,
    face: F,
) -> zbus::Result<()> {
    let guid = zbus::Guid::generate();
    handshake::greet(&stream, guid.as_str())?;
    zbus::block_on(async {
        let connection = Builder::authenticated_socket(Stream::new(stream, account, last)?, guid)
            .p2p()
            .serve_at(object, face)
            .serve_at(bus::PATH, Bus)
            .build()
            .await?;
        connection.closed().await;
        // What sends signals holds the connection, and ends with the interface.
        drop(connection.object_server().remove::<F, _>(object).await);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use rustix::fs::inotify;

    use super::*;

    /// Between bind(2) and listen(2) whoever came as soon as there was a socket was turned away.
    #[test]
    fn a_socket_that_is_there_listens() {
        let dir = std::env::temp_dir().join(format!("pinfold-d-bind-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let watch = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
        let flags = inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        inotify::add_watch(&watch, &dir, flags).unwrap();
        let path = dir.join("socket");
        // The second takes the place of what a daemon that was killed has left.
        for door in [Door::Public, Door::Owner] {
            let bound = bind(door, &path).unwrap();
            let mut buffer = [std::mem::MaybeUninit::uninit(); 1024];
            let mut events = inotify::Reader::new(&watch, &mut buffer);
            let mut comes = Vec::new();
            while let Ok(event) = events.next() {
                comes.push((event.file_name().unwrap().to_owned(), event.events()));
            }
            let came = (c"socket".to_owned(), inotify::ReadFlags::MOVED_TO);
            assert_eq!(comes, [(c"socke~".to_owned(), inotify::ReadFlags::CREATE), came]);
            assert!(UnixStream::connect(&path).is_ok());
            drop(bound);
        }
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
        let blocked = dir.join("directory");
        std::fs::create_dir_all(blocked.join("full")).unwrap();
        assert!(bind(Door::Owner, &blocked).is_err());
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 2, "nothing is left of it");
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(unready(Path::new("/a/b~")), Path::new("/a/b-"));
    }

    #[test]
    fn whose_thread_panics_has_no_place_any_more() {
        let clients = Clients::of(Door::Public);
        let (other_end, stream) = UnixStream::pair().unwrap();
        let mut table = clients.lock();
        let last = Arc::new(LastMessage::new());
        let client = Client { account: Account::User(Uid(1)), stream: Some(stream), last, is_leaving: false };
        table.live.insert(7, client);
        let place = Place { clients: Arc::clone(&clients), number: 7 };
        let ended = std::thread::spawn(move || {
            let _place = place;
            panic!("as nothing should");
        });
        drop(table);
        assert!(ended.join().is_err());
        assert!(clients.lock().live.is_empty());
        other_end.set_read_timeout(Some(ENDING)).unwrap();
        assert_eq!(io::Read::read(&mut (&other_end), &mut [0]).unwrap(), 0, "it is hung up on");
        clients.hang_up();
    }

    #[test]
    fn no_user_takes_anothers_room_and_all_users_leave_room_for_root() {
        let user = |number| Account::User(Uid(number));
        let others = |users: u32, each: usize| {
            (1..=users).flat_map(move |number| std::iter::repeat_n((user(number), false), each))
        };
        let (free, of_one_of_them) = (Some(true), Some(false));
        //   who wants in   users, each with clients, beside so many of root   has room
        for (who, users, each, root, has) in [
            (user(1), 0, 0, 0, free),
            (user(1), 1, 31, 0, free),
            (user(1), 1, 32, 0, None),
            (user(2), 1, 32, 0, free),
            (user(9), 7, 32, 0, free),
            (user(9), 8, 30, 0, of_one_of_them),
            (user(1), 8, 30, 0, None),
            (user(300), 240, 1, 0, None),
            (Account::Host, 8, 30, 0, free),
            (Account::Host, 8, 30, 15, free),
            (Account::Host, 8, 30, 16, None),
            (user(9), 7, 32, 32, of_one_of_them),
            (Account::Host, 0, 0, 255, free),
        ] {
            let room = room_for(who, root, &others(users, each).collect::<Vec<_>>());
            let room = room.map(|room| room == Room::Free);
            assert_eq!(room, has, "{who} of {users} * {each} + {root}");
        }
    }

    #[test]
    fn who_has_most_gives_places_up_until_all_who_want_more_have_as_many() {
        let (newcomer, user) = (Account::User(Uid(9)), |number| Account::User(Uid(number)));
        let mut all: Vec<(Account, bool)> =
            (1..=8).flat_map(|number| std::iter::repeat_n((user(number), false), 30)).collect();
        while let Some(room) = room_for(newcomer, 0, &all) {
            let Room::Of(who) = room else { panic!("there is none free") };
            let given = all.iter().position(|one| *one == (who, false)).expect("it has one");
            // It has left before the next comes.
            all[given] = (newcomer, false);
        }
        let count = |who| all.iter().filter(|(other, _)| *other == who).count();
        assert_eq!(count(newcomer), 26);
        assert!((1..=8).all(|number| (26..=27).contains(&count(user(number)))), "{all:?}");
        // Who does not leave is not waited for, but there are not many of those.
        for count in 0..MOST_LEAVING {
            let room = room_for(user(10), 0, &all);
            let Some(Room::Of(who)) = room else { panic!("{room:?} after {count}") };
            let given = all.iter().position(|one| *one == (who, false)).expect("it has one");
            all[given] = (who, true);
            all.push((user(10), false));
        }
        assert_eq!(room_for(user(10), 0, &all), None);
    }
}
