//! The `Scm` half of a call: who asks is told by credentials that come over a socket, and is answered there.
//!
//! The daemon writes a byte, and whoever has the other end answers with the credentials of who asks; once more for those
//! of whom it is about, where a call is about somebody. So processes and users are named in the numbers of whoever sends them,
//! and the kernel translates. The method itself has returned before that.
//!
//! A connection's exchanges are carried out one after the other by a thread of its own, which is there while there are any:
//! a client that does not answer waits for itself. It keeps its place at the door until the last one is over.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};

use pinfold_model::{Errno, Gid, HostPid, NewOwner, Uid};
use pinfold_realm::{Account, Most, Named, Peer, Place, Places, Requester};
use pinfold_sys::socket::Sender;

use super::acts::{Asking, Existed};
use super::client::Key;
use crate::credentials::{self, Author, Line};
use crate::error::Refusal;
use crate::manager::Daemon;
use crate::server::is_left;

/// How many exchanges of a connection may wait while one is carried out.
const MOST_WAITING: usize = 16;

/// A call that waits for credentials.
pub(super) struct Exchange {
    /// Where they come, and where the answer goes.
    pub(super) socket: OwnedFd,
    /// What is done then.
    pub(super) act: Act,
    /// How a refusal is said.
    pub(super) refusal: Refused,
}

/// What is done for who is found to ask.
pub(super) enum Act {
    /// Nobody else is meant.
    Alone(Box<Alone>),
    /// Somebody else's credentials come too.
    About(Box<About>),
}

/// For who asks.
pub(super) type Alone = dyn FnOnce(&Asking<'_>) -> Result<Answer, Refusal> + Send;
/// For who asks, about another.
pub(super) type About = dyn FnOnce(&Asking<'_>, Other) -> Result<Answer, Refusal> + Send;

/// Whom a call is about, by credentials.
pub(super) struct Other(Sender);

/// What is answered over the socket.
pub(super) enum Answer {
    /// `1`.
    Done,
    /// `2` for what was there, else `1`.
    Existed(Existed),
    /// The text and a null byte.
    Text(String),
    /// How many, the length of what follows, and each with a null byte behind it.
    Names(Vec<String>),
    /// How many, the length of what follows, and four lines for each.
    Keys(Vec<Key>),
    /// How many, and each as credentials.
    Tasks(Vec<HostPid>),
}

/// How a refusal is said, by what the answer would be.
#[derive(Clone, Copy)]
pub(super) enum Refused {
    /// `0`.
    Byte,
    /// Nothing.
    Text,
    /// -1.
    Count,
}

/// The exchanges of a connection.
pub(super) struct Exchanges {
    connected: Arc<Requester>,
    daemon: Arc<Daemon>,
    queue: Mutex<Queue>,
    /// The thread has ended.
    idle: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(Exchange, Place)>,
    /// Whether there is a thread.
    is_running: bool,
}

impl Exchanges {
    /// Those of who is connected: none yet.
    pub(super) fn new(connected: Arc<Requester>, daemon: Arc<Daemon>) -> Self {
        Self { connected, daemon, queue: Mutex::default(), idle: Condvar::new() }
    }

    /// Who is connected.
    pub(super) fn connected(&self) -> &Arc<Requester> {
        &self.connected
    }

    /// The daemon.
    pub(super) fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has an exchange carried out when those before it are over.
    pub(super) fn add(self: &Arc<Self>, exchange: Exchange) -> Result<(), Refusal> {
        Line::new(&exchange.socket, &Author::of(&self.connected))
            .map_err(|errno| credentials::refused(errno, "the descriptor is of no pair of Unix sockets"))?;
        let mut queue = self.lock();
        if queue.waiting.len() >= MOST_WAITING {
            return Err(Refusal::new(Errno::EAGAIN, "too many calls wait for their credentials"));
        }
        let account = self.connected.account();
        if account != Account::Host && !is_left(&exchange.socket, 0) {
            return Err(Refusal::new(Errno::EAGAIN, "no descriptors for more calls that wait"));
        }
        let place = place_of(account);
        let place = place.ok_or_else(|| {
            Refusal::new(Errno::EAGAIN, "too many calls of this user wait for their credentials")
        })?;
        queue.waiting.push_back((exchange, place));
        if !queue.is_running {
            let exchanges = Arc::clone(self);
            let started =
                std::thread::Builder::new().name("dbus-scm".to_owned()).spawn(move || exchanges.run());
            if let Err(error) = started {
                queue.waiting.clear();
                return Err(Refusal::new(Errno::EAGAIN, format!("no thread for the call: {error}")));
            }
            queue.is_running = true;
        }
        Ok(())
    }

    fn run(&self) {
        let _ending = Ending(self);
        loop {
            let mut queue = self.lock();
            let Some((next, _place)) = queue.waiting.pop_front() else {
                queue.is_running = false;
                self.idle.notify_all();
                return;
            };
            drop(queue);
            if let Err(errno) = self.carry_out(next) {
                tracing::debug!(%errno, "the client of a call by credentials went away");
            }
        }
    }

    /// The client has hung up. What waits is given up; what is being carried out is waited for, which its client's patience
    /// and ours bound.
    pub(super) fn finish(&self) {
        let mut queue = self.lock();
        queue.waiting.clear();
        while queue.is_running {
            queue = self.idle.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn carry_out(&self, exchange: Exchange) -> rustix::io::Result<()> {
        let Exchange { socket, act, refusal } = exchange;
        let author = Author::of(&self.connected);
        let line = Line::new(&socket, &author)?;
        let asks = line.ask()?;
        let answer = match act {
            Act::Alone(act) => self.for_sender(asks, act),
            Act::About(act) => {
                let other = Other(line.ask()?);
                self.for_sender(asks, |asking| act(asking, other))
            }
        };
        // What was done may have taken its time.
        let line = Line::new(&socket, &author)?;
        match answer {
            Ok(answer) => answer.say(&line),
            Err(reason) => {
                tracing::debug!(%reason, "a call by credentials was refused");
                refusal.say(&line)
            }
        }
    }

    fn for_sender(
        &self,
        Sender { credentials, pidfd }: Sender,
        act: impl FnOnce(&Asking<'_>) -> Result<Answer, Refusal>,
    ) -> Result<Answer, Refusal> {
        let told = Peer {
            uid: Uid(credentials.uid),
            gid: Gid(credentials.gid),
            process: credentials::number(&credentials),
            pidfd,
            through_state: false,
        };
        let requester = self.daemon.realm.on_behalf(&self.connected, told);
        let requester = requester.map_err(|error| {
            Refusal::because(&self.connected, error.errno(), "who the credentials are of", &error)
        })?;
        act(&Asking { daemon: &self.daemon, requester: &requester })
    }
}

/// How many sockets of exchanges each user and each container may have the daemon hold, over all connections.
fn most_sockets() -> usize {
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    most.and_then(|most| usize::try_from(most / 16).ok()).unwrap_or(usize::MAX)
}

/// Whose exchanges have so many sockets. Descriptors are the process's as a whole, so this is, too.
static HELD: LazyLock<Places> = LazyLock::new(Places::default);

/// A place for one among them; `None` if the account has no more.
fn place_of(account: Account) -> Option<Place> {
    HELD.take(account, Most { of_account: most_sockets(), in_all: usize::MAX }).ok()
}

/// A thread that panics has ended too: nobody waits for it.
struct Ending<'a>(&'a Exchanges);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().is_running = false;
            self.0.idle.notify_all();
        }
    }
}

impl Other {
    /// The process. Who asks must see it.
    pub(super) fn process(self, asking: &Asking<'_>) -> Result<Named, Refusal> {
        credentials::named(&asking.daemon.realm, asking.requester, self.0)
    }

    /// Its users, as those that something is given to.
    pub(super) fn owner(&self) -> NewOwner {
        let credentials = &self.0.credentials;
        NewOwner { uid: Some(Uid(credentials.uid)), gid: Some(Gid(credentials.gid)) }
    }
}

impl Answer {
    fn say(self, line: &Line<'_, OwnedFd>) -> rustix::io::Result<()> {
        match self {
            Self::Done | Self::Existed(Existed::No) => line.say(b"1"),
            Self::Existed(Existed::Yes) => line.say(b"2"),
            Self::Text(text) => line.say(&[text.as_bytes(), b"\0"].concat()),
            Self::Names(names) => {
                let text: Vec<u8> = names.iter().flat_map(|name| name.bytes().chain([0])).collect();
                say_counted(line, names.len(), &text)
            }
            Self::Keys(keys) => {
                let text: String = keys
                    .iter()
                    .map(|(name, uid, gid, mode)| format!("{name}\n{uid}\n{gid}\n{mode}\n"))
                    .collect();
                say_counted(line, keys.len(), text.as_bytes())
            }
            Self::Tasks(tasks) => {
                line.say(&number(tasks.len())?)?;
                say_tasks(line, &tasks)
            }
        }
    }
}

impl Refused {
    fn say(self, line: &Line<'_, OwnedFd>) -> rustix::io::Result<()> {
        match self {
            Self::Byte => line.say(b"0"),
            Self::Text => line.say(b""),
            Self::Count => line.say(&(-1_i32).to_ne_bytes()),
        }
    }
}

/// A count as it is on the line: 4 bytes in the machine's order, since both ends are on it.
fn number(count: usize) -> rustix::io::Result<[u8; 4]> {
    i32::try_from(count).map(i32::to_ne_bytes).map_err(|_| rustix::io::Errno::TOOBIG)
}

fn say_counted(line: &Line<'_, OwnedFd>, count: usize, text: &[u8]) -> rustix::io::Result<()> {
    line.say(&number(count)?)?;
    if count == 0 {
        return Ok(());
    }
    line.say(&number(text.len())?)?;
    line.say(text)
}

/// As many were announced, so as many are sent: for one that has ended meanwhile, the one before it once more.
fn say_tasks(line: &Line<'_, OwnedFd>, tasks: &[HostPid]) -> rustix::io::Result<()> {
    let mut spare = None;
    for task in tasks {
        match (line.send_process(*task), spare) {
            (Err(rustix::io::Errno::SRCH), Some(spare)) => line.send_process(spare)?,
            (Err(rustix::io::Errno::SRCH), None) => {
                let still_there = tasks.iter().find(|task| line.send_process(**task).is_ok());
                spare = Some(*still_there.ok_or(rustix::io::Errno::SRCH)?);
            }
            (sent, _) => {
                sent?;
                spare = Some(*task);
            }
        }
    }
    Ok(())
}
