//! `serve --system-bus`: the interface at a bus too, for clients that know nothing else.
//!
//! Whoever calls there gets a connection of its own inside the daemon, as if it had come in through the public door, with
//! the same bounds and under the same rules: its calls are passed on to it as they are, and so are the answers. Who it is,
//! the bus says, which asked the kernel when the caller connected; from then on it is held as any other. A thread waits
//! for each caller, and what takes calls from the bus waits for none of them.

use std::collections::HashMap;
use std::future::poll_fn;
use std::num::NonZeroUsize;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pinfold_model::{Gid, HostPid, Uid};
use pinfold_realm::BusPeer;
use zbus::connection::Builder;
use zbus::export::futures_core::Stream;
use zbus::fdo::{ConnectionCredentials, DBusProxy, RequestNameFlags};
use zbus::message::Type;
use zbus::names::{OwnedUniqueName, UniqueName};
use zbus::{Connection, Message, MessageStream};
use zruntime::{SharedRuntime, mpmc};

use crate::manager::{Daemon, Manager};
use crate::server::{Clients, Door, ENDING, Face, MOST_CLIENTS, MOST_WAITING};
use crate::stream::{LONGEST, MOST_FDS};
use crate::wire::BUS_NAME;

/// How many calls may have come from the bus that nobody has looked at: each is looked at at once.
const MOST_QUEUED: NonZeroUsize = NonZeroUsize::new(256).expect("not 0");
/// How long to wait before looking for a bus again that has gone.
const RETRY: Duration = Duration::from_secs(5);

/// How long the bus may take to let the daemon in.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is said to a caller for whom there is no room.
const NO_ROOM: &str = "org.freedesktop.DBus.Error.LimitsExceeded";
/// What is said to a caller who cannot be told.
const DENIED: &str = "org.freedesktop.DBus.Error.AccessDenied";

/// A daemon's presence at the system bus.
#[derive(Debug)]
pub struct SystemBus {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

/// Why the daemon is not at the system bus.
#[derive(Debug, thiserror::Error)]
pub enum SystemBusError {
    /// There is no bus, or it does not let the daemon have its name.
    #[error(
        "the system bus does not take {BUS_NAME}\nits policy must allow it: `pinfold bus-policy` prints one, for /usr/share/dbus-1/system.d"
    )]
    Bus(#[from] zbus::Error),
    /// There is no thread for it.
    #[error("no thread for the system bus")]
    Thread(#[from] std::io::Error),
}

#[derive(Debug)]
struct Shared {
    daemon: Arc<Daemon>,
    clients: Arc<Clients>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default, Debug)]
struct State {
    /// No more callers are let in.
    is_ending: bool,
    /// The connection to the bus, while there is one.
    bus: Option<Connection>,
    /// How many threads wait for callers.
    relays: usize,
}

impl SystemBus {
    /// Takes the daemon's name at the system bus and answers there. If the bus goes away later, the daemon goes on, and comes
    /// back when the bus does.
    pub fn start(daemon: Arc<Daemon>) -> Result<Self, SystemBusError> {
        let clients = Clients::of(Door::Public);
        let (state, changed) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { daemon, clients, state, changed });
        let (told, outcome) = mpsc::channel();
        let running = Arc::clone(&shared);
        let thread = std::thread::Builder::new();
        let thread = thread.name("system-bus".to_owned()).spawn(move || running.run(&told))?;
        match outcome.recv() {
            Ok(Err(error)) => Err(error.into()),
            // Without a word it has panicked, which the log has.
            Ok(Ok(())) | Err(_) => Ok(Self { shared, thread }),
        }
    }

    /// Lets no more callers in. Those who called already stay.
    pub fn close(&self) {
        self.shared.lock().is_ending = true;
        self.shared.changed.notify_all();
    }

    /// Closes, lets calls under way finish and be answered, then leaves the bus.
    pub fn stop(self) {
        self.close();
        self.shared.clients.hang_up();
        let bus = self.shared.wait_for_relays();
        if let Some(bus) = bus
            && let Err(error) = zbus::block_on(bus.close())
        {
            tracing::debug!(%error, "the system bus was gone already");
        }
        let _ = self.thread.join();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Is at the bus, again and again; `told` hears how the first time begins.
    fn run(self: &Arc<Self>, told: &mpsc::Sender<zbus::Result<()>>) {
        let mut has_been_there = false;
        loop {
            let result = zbus::block_on(async {
                let greeting = SharedRuntime::current()?.timeout(PATIENCE, connect());
                let (bus, messages) = greeting.await.map_err(|_| silent())??;
                if !self.has_come(&bus) {
                    return Ok(());
                }
                let again = if has_been_there { " again" } else { "" };
                tracing::info!("at the system bus{again}, as {BUS_NAME}");
                has_been_there = true;
                // Heard the first time only.
                let _ = told.send(Ok(()));
                self.take_calls(&bus, messages).await;
                Ok(())
            });
            self.lock().bus = None;
            match result {
                Err(error) if !has_been_there => {
                    let _ = told.send(Err(error));
                    return;
                }
                Err(error) => tracing::debug!(%error, "the system bus is not back"),
                Ok(()) if self.lock().is_ending => return,
                Ok(()) => {
                    tracing::warn!("the system bus has gone: the daemon goes on, and looks for it again")
                }
            }
            let ending = self.changed.wait_timeout_while(self.lock(), RETRY, |state| !state.is_ending);
            if ending.unwrap_or_else(PoisonError::into_inner).0.is_ending {
                return;
            }
        }
    }

    /// Keeps the connection, unless the daemon is ending by now.
    fn has_come(&self, bus: &Connection) -> bool {
        let mut state = self.lock();
        if !state.is_ending {
            state.bus = Some(bus.clone());
        }
        !state.is_ending
    }

    /// Gives each call to the thread of its caller, until the bus has gone. Never waits for one of them.
    async fn take_calls(self: &Arc<Self>, bus: &Connection, mut messages: MessageStream) {
        let mut lines: HashMap<OwnedUniqueName, mpmc::Sender<Message>> = HashMap::new();
        while let Some(Ok(message)) = next(&mut messages).await {
            if message.message_type() != Type::MethodCall {
                continue;
            }
            let Some(caller) = message.header().sender().map(|name| name.to_owned()) else { continue };
            let refused = match self.line_of(&caller, bus, &mut lines, &message) {
                Ok(line) => line.try_send(message.clone()).is_err().then_some("too many calls wait"),
                Err(why) => Some(why),
            };
            if let Some(why) = refused {
                refuse(bus, &message, NO_ROOM, why).await;
            }
        }
    }

    /// The line to the thread of a caller, which is started if there is none.
    fn line_of<'l>(
        self: &Arc<Self>,
        caller: &UniqueName<'_>,
        bus: &Connection,
        lines: &'l mut HashMap<OwnedUniqueName, mpmc::Sender<Message>>,
        message: &Message,
    ) -> Result<&'l mpmc::Sender<Message>, &'static str> {
        if message.data().len() > LONGEST || message.data().fds().len() > MOST_FDS {
            return Err("the message is longer, or has more descriptors, than any call");
        }
        lines.retain(|_, line| !line.is_closed());
        let name = OwnedUniqueName::from(caller.to_owned());
        if !lines.contains_key(&name) {
            if lines.len() >= MOST_CLIENTS {
                return Err("too many clients");
            }
            let line = self.start_relay(name.clone(), bus.clone())?;
            lines.insert(name.clone(), line);
        }
        lines.get(&name).ok_or("no line")
    }

    fn start_relay(
        self: &Arc<Self>,
        caller: OwnedUniqueName,
        bus: Connection,
    ) -> Result<mpmc::Sender<Message>, &'static str> {
        let (line, calls) = mpmc::bounded(MOST_WAITING);
        let mut state = self.lock();
        if state.is_ending {
            return Err("the daemon is ending");
        }
        let shared = Arc::clone(self);
        let relay = move || {
            shared.relay(&bus, &caller, &calls);
            shared.lock().relays -= 1;
            shared.changed.notify_all();
        };
        // It cannot take itself off before it is counted: that is locked.
        let thread = std::thread::Builder::new().name("bus-caller".to_owned());
        thread.spawn(relay).map_err(|_| "no thread for the caller")?;
        state.relays += 1;
        Ok(line)
    }

    /// Passes a caller's calls on, and the answers back, until it has left the bus.
    fn relay(&self, bus: &Connection, caller: &UniqueName<'_>, calls: &mpmc::Receiver<Message>) {
        zbus::block_on(async {
            let done = self.speak(bus, caller, calls).await;
            calls.close();
            let why = match &done {
                Ok(()) => "the connection has ended".to_owned(),
                Err(error) => {
                    tracing::debug!(%error, %caller, "a caller at the system bus was turned away");
                    error.to_string()
                }
            };
            while let Ok(call) = calls.try_recv() {
                refuse(bus, &call, DENIED, &why).await;
            }
        });
    }

    async fn speak(
        &self,
        bus: &Connection,
        caller: &UniqueName<'_>,
        calls: &mpmc::Receiver<Message>,
    ) -> zbus::Result<()> {
        let names = DBusProxy::new(bus).await?;
        // First, so that it cannot leave unseen.
        let mut leaving = names.receive_name_owner_changed_with_args(&[(0, caller.as_str())]).await?;
        let peer = peer(names.get_connection_credentials(caller.into()).await?)?;
        let requester = self.daemon.realm.requester_on_bus(peer).map_err(std::io::Error::other)?;
        let account = requester.account();
        let face = Face::Manager(Manager::new(requester, Arc::clone(&self.daemon)));
        let (ours, theirs) = UnixStream::pair()?;
        self.clients.let_in(theirs, face, account)?;
        let inside = Builder::unix_stream(ours).p2p().build().await?;
        let mut answers = MessageStream::from(&inside);
        let runtime = SharedRuntime::current()?;
        let (passing, left) = (inside.clone(), inside);
        let calls = calls.clone();
        let passing = runtime.spawn("calls of a caller", async move {
            while let Ok(call) = calls.recv().await {
                if passing.send(&call).await.is_err() {
                    return;
                }
            }
        });
        let leaving = runtime.spawn("a caller that leaves", async move {
            next(&mut leaving).await;
            left.close().await
        });
        while let Some(Ok(answer)) = next(&mut answers).await {
            // A signal that is not addressed would be everybody's.
            if answer.header().destination().is_none_or(|to| to.as_str() != caller.as_str()) {
                continue;
            }
            bus.send(&answer).await?;
        }
        drop((passing, leaving));
        Ok(())
    }

    /// Waits until nobody waits for a caller any more, but not for ever. Gives the connection to the bus.
    fn wait_for_relays(&self) -> Option<Connection> {
        let deadline = Instant::now() + ENDING;
        let mut state = self.lock();
        while state.relays > 0 {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                tracing::warn!("{} callers at the system bus do not end", state.relays);
                break;
            };
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.bus.clone()
    }
}

/// A connection to the bus that has the daemon's name, and what comes over it: from before the name is had, so that no call
/// is lost.
async fn connect() -> zbus::Result<(Connection, MessageStream)> {
    let bus = Builder::system().max_queued(MOST_QUEUED).build().await?;
    let messages = MessageStream::from(&bus);
    // Nobody's name is taken away, and nobody is waited for who has it.
    bus.request_name_with_flags(BUS_NAME, RequestNameFlags::DO_NOT_QUEUE).await?;
    Ok((bus, messages))
}

fn silent() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::TimedOut, "the bus does not answer")
}

/// The next item of a stream.
async fn next<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    poll_fn(|context| Pin::new(&mut *stream).poll_next(context)).await
}

/// Answers a call with an error.
async fn refuse(bus: &Connection, call: &Message, error: &'static str, why: &str) {
    if let Err(error) = bus.reply_error(&call.header(), error, &why).await {
        tracing::debug!(%error, "a caller at the system bus was not told that it is refused");
    }
}

/// Who a caller is, as the bus found out when it connected.
fn peer(said: ConnectionCredentials) -> std::io::Result<BusPeer> {
    let uid = said.unix_user_id().ok_or_else(|| std::io::Error::other("the bus does not say who calls"))?;
    let process = said.process_id().and_then(HostPid::new);
    let groups = said.unix_group_ids().cloned().unwrap_or_default();
    let pidfd = said.into_process_fd().map(Into::into);
    Ok(BusPeer { uid: Uid(uid), groups: groups.into_iter().map(Gid).collect(), process, pidfd })
}
