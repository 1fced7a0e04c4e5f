//! The typed client: one blocking method per method of the interface.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::net::Shutdown;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;
use zbus::Variant;
use zbus::connection::Builder;
use zbus::wire::Type;

use crate::GroupName;
use crate::error::Refusal;
use crate::wire::{
    Child, Controller, Hierarchy, INTERFACE, KeptSetting, Key, Membership, NamedKey, PATH, Setting,
};

/// A realm's daemon, as its client sees it.
///
/// Each call has a connection of its own, which begins and ends within one run of zbus's executor: a connection that
/// outlived it would take a thread, and a client in a group that may have no more tasks has none to spare.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    /// What the first call uses.
    connected: RefCell<Option<UnixStream>>,
    /// The call under way, for whoever may end it; empty if nobody ever asked.
    under_way: OnceCell<BreakOff>,
}

/// Ends the call that a client is waiting for, from another thread: it is [`ClientError::Broken`]. Whether the daemon does what was
/// asked is not known then. The next call is not concerned.
#[derive(Clone, Debug, Default)]
pub struct BreakOff(Arc<Mutex<Option<UnixStream>>>);

impl BreakOff {
    /// Ends it; nothing if there is none.
    pub fn now(&self) {
        if let Some(stream) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            // The daemon has ended it already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn concerns(&self, stream: Option<UnixStream>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = stream;
    }
}

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens at the socket.
    #[error("no daemon at {}", .socket.display())]
    NoDaemon {
        /// The socket that was tried.
        socket: PathBuf,
        /// What connect(2) said.
        source: std::io::Error,
    },
    /// The daemon understood the call and refused it.
    #[error(transparent)]
    Refused(Refusal),
    /// The connection broke, or the answer made no sense.
    #[error("the daemon did not answer {call}")]
    Broken {
        /// Which call.
        call: &'static str,
        /// What zbus says.
        source: zbus::Error,
    },
}

impl Client {
    /// Connects to the daemon that listens at this socket.
    pub fn connect(socket: &Path) -> Result<Self, ClientError> {
        let stream = dial(socket)?;
        let connected = RefCell::new(Some(stream));
        Ok(Self { socket: socket.to_owned(), connected, under_way: OnceCell::new() })
    }

    /// What ends the call that this client is waiting for.
    pub fn break_off(&self) -> BreakOff {
        self.under_way.get_or_init(BreakOff::default).clone()
    }

    fn call<B, R>(&self, call: &'static str, arguments: &B) -> Result<R, ClientError>
    where
        B: Serialize + Type,
        R: DeserializeOwned + Type,
    {
        self.call_on(INTERFACE, call, arguments)
    }

    fn call_on<B, R>(&self, interface: &str, call: &'static str, arguments: &B) -> Result<R, ClientError>
    where
        B: Serialize + Type,
        R: DeserializeOwned + Type,
    {
        let connected = self.connected.take();
        let stream = connected.map_or_else(|| dial(&self.socket), Ok)?;
        let under_way = self.under_way.get();
        if let Some(under_way) = under_way {
            // Without another descriptor it cannot be ended.
            under_way.concerns(stream.try_clone().ok());
        }
        let result = call_once(stream, PATH, interface, call, arguments);
        if let Some(under_way) = under_way {
            under_way.concerns(None);
        }
        result.map_err(|source| refused(&source).unwrap_or(ClientError::Broken { call, source }))
    }

    fn property(&self, property: &'static str) -> Result<String, ClientError> {
        let value: zbus::OwnedVariant =
            self.call_on("org.freedesktop.DBus.Properties", "Get", &(INTERFACE, property))?;
        String::try_from(value).map_err(|source| ClientError::Broken { call: property, source })
    }

    /// The daemon's process; `None` if it has no number in the caller's pid namespace.
    pub fn daemon(&self) -> Result<Option<NonZeroU32>, ClientError> {
        let peer = pinfold_sys::socket::peer(dial(&self.socket)?);
        let peer =
            peer.map_err(|errno| ClientError::NoDaemon { socket: self.socket.clone(), source: errno.into() });
        Ok(peer?.process)
    }

    /// Answers if the daemon is there.
    pub fn ping(&self) -> Result<(), ClientError> {
        self.call("Ping", &())
    }
    /// The daemon's version.
    pub fn version(&self) -> Result<String, ClientError> {
        self.property("Version")
    }
    /// The realm's name.
    pub fn realm(&self) -> Result<String, ClientError> {
        self.property("Realm")
    }
    /// The v2 directory the realm works in.
    pub fn base(&self) -> Result<String, ClientError> {
        self.property("Base")
    }

    /// Who keeps processes in their groups, and how that is going.
    pub fn tracker(&self) -> Result<String, ClientError> {
        self.property("Tracker")
    }

    /// Every controller that pinfold knows.
    pub fn list_controllers(&self) -> Result<Vec<Controller>, ClientError> {
        self.call("ListControllers", &())
    }
    /// Every hierarchy.
    pub fn list_hierarchies(&self) -> Result<Vec<Hierarchy>, ClientError> {
        self.call("ListHierarchies", &())
    }
    /// The groups below a group: its children, or with `recursive` all, parents first.
    pub fn list_children(&self, group: &GroupName, recursive: bool) -> Result<Vec<Child>, ClientError> {
        self.call("ListChildren", &(group.to_string(), recursive))
    }
    /// The control files of a group.
    pub fn list_keys(&self, group: &GroupName) -> Result<Vec<Key>, ClientError> {
        self.call("ListKeys", &(group.to_string(),))
    }
    /// The keys of a group.
    pub fn list_named_keys(&self, group: &GroupName) -> Result<Vec<NamedKey>, ClientError> {
        self.call("ListNamedKeys", &(group.to_string(),))
    }
    /// The tasks of a group (and, with `recursive`, of those below it), ascending.
    pub fn list_tasks(&self, group: &GroupName, recursive: bool) -> Result<Vec<u32>, ClientError> {
        self.call("ListTasks", &(group.to_string(), recursive))
    }
    /// The processes of a group (and, with `recursive`, of those below it), ascending.
    pub fn list_processes(&self, group: &GroupName, recursive: bool) -> Result<Vec<u32>, ClientError> {
        self.call("ListProcesses", &(group.to_string(), recursive))
    }
    /// A group's settings and who sees to them.
    pub fn status(&self, group: &GroupName) -> Result<Vec<Setting>, ClientError> {
        self.call("Status", &(group.to_string(),))
    }
    /// What [`Self::set_value`] gives a new group, in this order, so that it has the settings of this one.
    pub fn list_settings(&self, group: &GroupName) -> Result<Vec<KeptSetting>, ClientError> {
        self.call("ListSettings", &(group.to_string(),))
    }

    /// Makes a group. Gives the names of those made: some may be there already if the name means several.
    pub fn create(&self, group: &GroupName) -> Result<Vec<String>, ClientError> {
        self.create_with(group, &BTreeMap::new())
    }
    /// Makes a group and sets values in it.
    pub fn create_with(
        &self,
        group: &GroupName,
        values: &BTreeMap<String, String>,
    ) -> Result<Vec<String>, ClientError> {
        self.call("Create", &(group.to_string(), values))
    }
    /// Removes a group that has neither processes nor children.
    pub fn delete(&self, group: &GroupName) -> Result<(), ClientError> {
        self.call("Delete", &(group.to_string(),))
    }
    /// Removes a group and those below it; their processes go to the group above.
    pub fn delete_force(&self, group: &GroupName) -> Result<(), ClientError> {
        self.call("DeleteForce", &(group.to_string(),))
    }
    /// Has a group removed when its last process or its last child has gone.
    pub fn remove_on_empty(&self, group: &GroupName) -> Result<(), ClientError> {
        self.call("RemoveOnEmpty", &(group.to_string(),))
    }
    /// Removes every group below that is empty. Gives their names.
    pub fn prune(&self, group: &GroupName) -> Result<Vec<String>, ClientError> {
        self.call("Prune", &(group.to_string(),))
    }
    /// Moves a process into a group; 0 is the caller.
    pub fn move_process(&self, pid: u32, group: &GroupName) -> Result<(), ClientError> {
        self.call("Move", &(pid, group.to_string()))
    }
    /// Moves a process into a group: by its pidfd, or by a socket over which its credentials come.
    pub fn move_by_fd(&self, process: impl AsFd, group: &GroupName) -> Result<(), ClientError> {
        self.call("MoveByFd", &(zbus::Fd::from(process.as_fd()), group.to_string()))
    }
    /// Where that process is, hierarchy by hierarchy.
    pub fn group_of_fd(&self, process: impl AsFd) -> Result<Vec<Membership>, ClientError> {
        self.call("GetGroupOfFd", &(zbus::Fd::from(process.as_fd()),))
    }
    /// Reads a control file.
    pub fn get_value(&self, group: &GroupName, key: &str) -> Result<String, ClientError> {
        self.call("GetValue", &(group.to_string(), key))
    }
    /// Writes a control file.
    pub fn set_value(&self, group: &GroupName, key: &str, value: &str) -> Result<(), ClientError> {
        self.call("SetValue", &(group.to_string(), key, value))
    }
    /// Gives a group, with its `tasks` and `cgroup.procs`, to a user; `None` leaves an id as it is.
    pub fn chown(&self, group: &GroupName, uid: Option<u32>, gid: Option<u32>) -> Result<(), ClientError> {
        let id = |id: Option<u32>| id.map_or(-1, i64::from);
        self.call("Chown", &(group.to_string(), id(uid), id(gid)))
    }
    /// Changes the mode of a group's directory, or of one of its files.
    pub fn chmod(&self, group: &GroupName, key: Option<&str>, mode: u32) -> Result<(), ClientError> {
        self.call("Chmod", &(group.to_string(), key.unwrap_or_default(), mode))
    }
    /// Kills every process in a group and below.
    pub fn kill(&self, group: &GroupName) -> Result<(), ClientError> {
        self.call("Kill", &(group.to_string(),))
    }
    /// Freezes every process in a group and below.
    pub fn freeze(&self, group: &GroupName) -> Result<(), ClientError> {
        self.call("Freeze", &(group.to_string(),))
    }
    /// Undoes [`Self::freeze`].
    pub fn thaw(&self, group: &GroupName) -> Result<(), ClientError> {
        self.call("Thaw", &(group.to_string(),))
    }
    /// Where a process is, hierarchy by hierarchy; 0 is the caller.
    pub fn group_of(&self, pid: u32) -> Result<Vec<Membership>, ClientError> {
        self.call("GetGroupOf", &(pid,))
    }

    /// A mount of the hierarchy that these v1 mount options name, not yet attached anywhere.
    pub fn mount(&self, options: &str) -> Result<OwnedFd, ClientError> {
        self.call::<_, zbus::OwnedFd>("Mount", &(options,)).map(OwnedFd::from)
    }
    /// Changes the options of the hierarchy whose mount this is.
    pub fn remount(&self, hierarchy: u32, options: &str) -> Result<(), ClientError> {
        self.call("Remount", &(hierarchy, options))
    }
    /// A socket with the events of everything that the caller's pid namespace sees.
    pub fn subscribe(&self) -> Result<OwnedFd, ClientError> {
        self.subscribe_to(HashMap::new())
    }
    /// A socket with the events of a process (0 is the caller) and its descendants.
    pub fn subscribe_to_subtree(&self, pid: u32) -> Result<OwnedFd, ClientError> {
        self.subscribe_to(HashMap::from([("pid", Variant::from(pid))]))
    }
    /// A socket with the events of the processes in a group, and in the groups below.
    pub fn subscribe_to_group(&self, group: &GroupName) -> Result<OwnedFd, ClientError> {
        self.subscribe_to(HashMap::from([("group", Variant::from(group.to_string()))]))
    }
    fn subscribe_to(&self, scope: HashMap<&str, Variant<'_>>) -> Result<OwnedFd, ClientError> {
        self.call::<_, zbus::OwnedFd>("Subscribe", &(scope,)).map(OwnedFd::from)
    }
    /// Ends the daemon. Returns when processes are back where they came from and nothing of the realm is left.
    pub fn down(&self) -> Result<(), ClientError> {
        self.call("Down", &())
    }
}

/// One call over a connection that is closed afterwards.
pub(crate) fn call_once<B, R>(
    stream: UnixStream,
    object: &str,
    interface: &str,
    call: &str,
    arguments: &B,
) -> zbus::Result<R>
where
    B: Serialize + Type,
    R: DeserializeOwned + Type,
{
    zbus::block_on(async {
        let connection = Builder::unix_stream(stream).p2p().build().await?;
        let reply = connection.call_method(None::<&str>, object, Some(interface), call, arguments).await;
        connection.graceful_shutdown().await;
        reply?.body().deserialize()
    })
}

fn dial(socket: &Path) -> Result<UnixStream, ClientError> {
    UnixStream::connect(socket).map_err(|source| ClientError::NoDaemon { socket: socket.to_owned(), source })
}

/// The refusal in an error reply, if it is one of pinfold's.
fn refused(error: &zbus::Error) -> Option<ClientError> {
    let zbus::Error::MethodError(name, message, _) = error else { return None };
    let message = message.as_deref().unwrap_or("no reason given");
    Refusal::from_wire(name, message).map(ClientError::Refused)
}
