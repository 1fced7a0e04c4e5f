//! `serve --system-bus`: the interface at a bus too, for clients that know nothing else.
//!
//! Whoever calls there gets a connection of its own inside the daemon, as if it had come in through the public door, with
//! the same bounds and under the same rules: its calls are passed on to it as they are, and so are the answers. Who it is,
//! the bus says, which asked the kernel when the caller connected; from then on it is held as any other. A thread waits
//! for each caller, and what takes calls from the bus waits for none of them, nor for the bus, nor for what they pass.

use std::future::poll_fn;
use std::num::NonZeroUsize;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pinfold_model::{Gid, HostPid, Uid};
use pinfold_realm::{BusPeer, Requester, chain};
use zbus::connection::Builder;
use zbus::export::futures_core::Stream;
use zbus::fdo::{self, ConnectionCredentials, DBusProxy, RequestNameFlags};
use zbus::message::Type;
use zbus::names::{OwnedUniqueName, UniqueName};
use zbus::{Connection, MatchRule, Message, MessageStream};
use zruntime::{SharedRuntime, mpmc};

use crate::bus_socket::Connected;
use crate::callers::{Callers, Line, Standing, TurnedAway, Unheld, who_left};
use crate::manager::{Daemon, Manager};
use crate::server::{Clients, Door, ENDING, Face, LetInError, is_left};
use crate::stream::{LONGEST, MOST_FDS};
use crate::wire::BUS_NAME;

/// How many calls may have come from the bus that nobody has looked at: each is looked at at once.
const MOST_QUEUED: NonZeroUsize = NonZeroUsize::new(256).expect("not 0");
/// How many calls of a caller may wait for room in its connection inside the daemon.
const MOST_WAITING: NonZeroUsize = NonZeroUsize::new(16).expect("not 0");
/// How long to wait before looking for a bus again that has gone.
const RETRY: Duration = Duration::from_secs(5);

/// How many callers may be looked up at once: for a moment, nobody knows for whom they count. As many connections as
/// dbus-daemon lets one user have.
const MOST_UNKNOWN: usize = 256;

/// How long the bus may take to let the daemon in, or to tell who a caller is.
const PATIENCE: Duration = Duration::from_secs(10);

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
    unheld: Unheld,
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
    /// How many of them do not know yet who their caller is.
    unknown: usize,
}

impl SystemBus {
    /// Takes the daemon's name at the system bus and answers there. If the bus goes away later, the daemon goes on, and comes
    /// back when the bus does.
    pub fn start(daemon: Arc<Daemon>, unheld: Unheld) -> Result<Self, SystemBusError> {
        let clients = Clients::of(Door::Public);
        let (state, changed) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { daemon, unheld, clients, state, changed });
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

/// A thread that is counted, until this is dropped: also if it panics.
struct Counted<'s>(&'s Shared, fn(&mut State));

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.1(&mut self.0.lock());
        self.0.changed.notify_all();
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
            let result = Connected::to_system_bus(PATIENCE).and_then(|connected| {
                zbus::block_on(async {
                    let greeting =
                        SharedRuntime::current()?.timeout(PATIENCE, connect(&connected, self.unheld));
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
                })
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
        let mut callers = Callers::new(self.unheld);
        while let Some(Ok(message)) = next(&mut messages).await {
            if let Some(name) = who_left(&message) {
                callers.leaves(&name);
            }
            if message.message_type() != Type::MethodCall {
                continue;
            }
            if let Err(why) = self.take_call(&message, bus, &mut callers) {
                refuse(bus, &message, &why).await;
            }
        }
    }

    /// Puts a call into the line to the thread of its caller, which is started if there is none.
    fn take_call(
        self: &Arc<Self>,
        message: &Message,
        bus: &Connection,
        callers: &mut Callers,
    ) -> Result<(), TurnedAway> {
        // The bus names the sender of whatever it passes on.
        let Some(caller) = message.header().sender().map(|name| OwnedUniqueName::from(name.to_owned()))
        else {
            return Ok(());
        };
        if message.data().len() > LONGEST || message.data().fds().len() > MOST_FDS {
            return Err(TurnedAway::Long);
        }
        if message.data().fds().last().is_some_and(|last| !is_left(last, 0)) {
            return Err(TurnedAway::Descriptors);
        }
        let send = |line: &Line| {
            let sent = line.calls.try_send(message.clone());
            sent.map_err(|error| if error.is_closed() { TurnedAway::HungUp } else { TurnedAway::Calls })
        };
        match callers.standing(&caller, |account| self.clients.has_room_for(account)) {
            Standing::Served(line) => send(line),
            Standing::TurnedAway(why) => Err(why),
            Standing::Unknown => {
                let line = self.start_relay(caller.clone(), bus.clone())?;
                let sent = send(&line);
                callers.insert(caller, line);
                sent
            }
        }
    }

    fn start_relay(self: &Arc<Self>, caller: OwnedUniqueName, bus: Connection) -> Result<Line, TurnedAway> {
        let (sender, calls) = mpmc::bounded(MOST_WAITING);
        let line = Line { calls: sender, end: Arc::default() };
        let mut state = self.lock();
        if state.is_ending {
            return Err(TurnedAway::Ending);
        }
        if state.unknown >= MOST_UNKNOWN {
            return Err(TurnedAway::Crowd);
        }
        let (shared, end) = (Arc::clone(self), Arc::clone(&line.end));
        let relay = move || {
            let _counted = Counted(&shared, |state| state.relays -= 1);
            shared.relay(&bus, &caller, &calls, &end);
        };
        // It cannot take itself off before it is counted: that is locked.
        let thread = std::thread::Builder::new().name("bus-caller".to_owned());
        let failed = |error| TurnedAway::Failed(format!("no thread for the caller: {error}"));
        thread.spawn(relay).map_err(failed)?;
        state.relays += 1;
        state.unknown += 1;
        Ok(line)
    }

    /// Passes a caller's calls on, and the answers back, until it has left the bus.
    fn relay(
        &self,
        bus: &Connection,
        caller: &UniqueName<'_>,
        calls: &mpmc::Receiver<Message>,
        end: &OnceLock<TurnedAway>,
    ) {
        let unknown = Counted(self, |state| state.unknown -= 1);
        zbus::block_on(async {
            let requester = self.identify(bus, caller).await;
            drop(unknown);
            let done = match requester {
                Ok(requester) => self.speak(bus, caller, requester, calls).await,
                Err(why) => Err(why),
            };
            let why = done.err().unwrap_or(TurnedAway::HungUp);
            tracing::debug!(%why, %caller, "a caller at the system bus is served no more");
            // Nobody else sets it.
            let why = end.get_or_init(|| why);
            calls.close();
            while let Ok(call) = calls.try_recv() {
                refuse(bus, &call, why).await;
            }
        });
    }

    /// Finds out who a caller is.
    async fn identify(&self, bus: &Connection, caller: &UniqueName<'_>) -> Result<Requester, TurnedAway> {
        let said = async { DBusProxy::new(bus).await?.get_connection_credentials(caller.into()).await };
        let said = SharedRuntime::current().map_err(failed)?.timeout(PATIENCE, said).await;
        let said = said.map_err(|_| failed(silent()))?.map_err(|error| match error {
            fdo::Error::NameHasNoOwner(_) => TurnedAway::Gone("the caller has left the bus".to_owned()),
            error => failed(error),
        })?;
        let requester = self.daemon.realm.requester_on_bus(peer(said, self.unheld)?);
        requester.map_err(|error| {
            // Its causes name processes by the host's numbers.
            tracing::debug!("a caller at the bus was turned away: {}", chain(&error));
            match error.is_gone() {
                true => TurnedAway::Gone(error.to_string()),
                false => TurnedAway::Denied(error.to_string()),
            }
        })
    }

    /// Serves a caller, over a connection of its own inside the daemon.
    async fn speak(
        &self,
        bus: &Connection,
        caller: &UniqueName<'_>,
        requester: Requester,
        calls: &mpmc::Receiver<Message>,
    ) -> Result<(), TurnedAway> {
        let account = requester.account();
        let face = Face::Manager(Manager::new(requester, Arc::clone(&self.daemon)));
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        self.clients.let_in(theirs, face, account).map_err(|(error, _)| match error {
            LetInError::NoRoom(account) => TurnedAway::NoRoom(account),
            error @ (LetInError::NoDescriptors | LetInError::Thread(_)) => failed(chain(&error)),
        })?;
        let inside = Builder::unix_stream(ours).p2p().build().await.map_err(failed)?;
        let mut answers = MessageStream::from(&inside);
        let calls = calls.clone();
        let passing = async move {
            // Until the caller has left the bus.
            while let Ok(call) = calls.recv().await {
                if inside.send(&call).await.is_err() {
                    return;
                }
            }
            if let Err(error) = inside.close().await {
                tracing::debug!(%error, "a caller at the system bus was hung up on already");
            }
        };
        let passing = SharedRuntime::current().map_err(failed)?.spawn("calls of a caller", passing);
        while let Some(Ok(answer)) = next(&mut answers).await {
            // A signal that is not addressed would be everybody's.
            if answer.header().destination().is_none_or(|to| to.as_str() != caller.as_str()) {
                continue;
            }
            bus.send(&answer).await.map_err(failed)?;
        }
        drop(passing);
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
/// is lost, and with who leaves the bus, so that nobody leaves unseen.
async fn connect(connected: &Connected, unheld: Unheld) -> zbus::Result<(Connection, MessageStream)> {
    let bus = Builder::socket(connected.socket()?).max_queued(MOST_QUEUED).build().await?;
    let messages = MessageStream::from(&bus);
    let names = DBusProxy::new(&bus).await?;
    let leaving = MatchRule::builder()
        .msg_type(Type::Signal)
        .sender("org.freedesktop.DBus")
        .interface("org.freedesktop.DBus")
        .member("NameOwnerChanged")
        // The new owner: there is none.
        .arg(2, "")
        .build()?;
    names.add_match_rule(leaving).await?;
    if let (Unheld::Refused, Some(own)) = (unheld, bus.unique_name()) {
        let own = names.get_connection_credentials(own.into()).await?;
        if own.process_fd().is_none() {
            tracing::warn!("the system bus has no pidfds of its callers: each is refused. {HINT}");
        }
    }
    // Nobody's name is taken away, and nobody is waited for who has it.
    bus.request_name_with_flags(BUS_NAME, RequestNameFlags::DO_NOT_QUEUE).await?;
    Ok((bus, messages))
}

/// What can be done about a bus without pidfds.
const HINT: &str = "dbus 1.15.8 and Linux 6.5 have them; `serve --callers-by-number` takes callers without";

fn failed(error: impl std::fmt::Display) -> TurnedAway {
    TurnedAway::Failed(error.to_string())
}

fn silent() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::TimedOut, "the bus does not answer")
}

/// The next item of a stream.
async fn next<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    poll_fn(|context| Pin::new(&mut *stream).poll_next(context)).await
}

/// Answers a call with an error.
async fn refuse(bus: &Connection, call: &Message, why: &TurnedAway) {
    if let Err(error) = bus.reply_error(&call.header(), why.name(), &why.to_string()).await {
        tracing::debug!(%error, "a caller at the system bus was not told that it is refused");
    }
}

/// Who a caller is, as the bus found out when it connected.
fn peer(said: ConnectionCredentials, unheld: Unheld) -> Result<BusPeer, TurnedAway> {
    let denied = |why: &str| TurnedAway::Denied(why.to_owned());
    let uid = said.unix_user_id().ok_or_else(|| denied("the bus does not say who calls"))?;
    let process = said.process_id().and_then(HostPid::new);
    let groups = said.unix_group_ids().cloned().unwrap_or_default();
    let pidfd = said.into_process_fd().map(Into::into);
    if pidfd.is_none() && unheld == Unheld::Refused {
        return Err(denied(&format!("the bus has no pidfd of the caller\n{HINT}")));
    }
    Ok(BusPeer { uid: Uid(uid), groups: groups.into_iter().map(Gid).collect(), process, pidfd })
}
