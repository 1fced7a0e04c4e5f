//! A client of the plain half: one blocking method per method of the interface.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use zbus::DBusError;
use zbus::wire::Type;

use super::{INTERFACE, PATH};
use crate::client::call_once;

/// A manager of groups, as cgmanager's clients see one: pinfold, cgmanager itself, or its proxy.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
}

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens at the socket.
    #[error("nobody listens at {}", .socket.display())]
    NobodyThere {
        /// The socket that was tried.
        socket: PathBuf,
        /// What connect(2) said.
        source: std::io::Error,
    },
    /// The manager refused the call, for this reason.
    #[error("{0}")]
    Refused(String),
    /// The connection broke, or the answer made no sense.
    #[error("no answer")]
    Broken(#[source] zbus::Error),
}

/// A control file: its name, its owner, its group of users, its mode with its type, as stat(2) has them.
pub type Key = (String, u32, u32, u32);

impl Client {
    /// A client of whoever listens at this socket.
    pub fn at(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    fn call<B, R>(&self, call: &'static str, arguments: &B) -> Result<R, CallError>
    where
        B: Serialize + Type,
        R: DeserializeOwned + Type,
    {
        self.call_on(INTERFACE, call, arguments)
    }

    fn call_on<B, R>(&self, interface: &str, call: &'static str, arguments: &B) -> Result<R, CallError>
    where
        B: Serialize + Type,
        R: DeserializeOwned + Type,
    {
        let stream = UnixStream::connect(&self.socket)
            .map_err(|source| CallError::NobodyThere { socket: self.socket.clone(), source })?;
        call_once(stream, PATH, interface, call, arguments).map_err(|error| match error {
            zbus::Error::MethodError(name, reason, _) => {
                CallError::Refused(reason.unwrap_or_else(|| name.to_string()))
            }
            zbus::Error::FDO(refusal) => {
                let reason = refusal.description().map(str::to_owned);
                CallError::Refused(reason.unwrap_or_else(|| refusal.name().to_string()))
            }
            error => CallError::Broken(error),
        })
    }

    /// Answers if the manager is there.
    pub fn ping(&self) -> Result<(), CallError> {
        self.call("Ping", &(0_i32,))
    }
    /// The version of the interface.
    pub fn api_version(&self) -> Result<i32, CallError> {
        let value: zbus::OwnedVariant =
            self.call_on("org.freedesktop.DBus.Properties", "Get", &(INTERFACE, "api_version"))?;
        i32::try_from(value).map_err(CallError::Broken)
    }
    /// Makes a group, with those above it; whether it was there.
    pub fn create(&self, controllers: &str, cgroup: &str) -> Result<bool, CallError> {
        self.call("Create", &(controllers, cgroup)).map(|existed: i32| existed == 1)
    }
    /// Gives a group to a user.
    pub fn chown(&self, controllers: &str, cgroup: &str, uid: i32, gid: i32) -> Result<(), CallError> {
        self.call("Chown", &(controllers, cgroup, uid, gid))
    }
    /// Changes the mode of a group or, with a name, of its file.
    pub fn chmod(&self, controllers: &str, cgroup: &str, file: &str, mode: i32) -> Result<(), CallError> {
        self.call("Chmod", &(controllers, cgroup, file, mode))
    }
    /// Removes a group; whether it was there.
    pub fn remove(&self, controllers: &str, cgroup: &str, recursive: bool) -> Result<bool, CallError> {
        self.call("Remove", &(controllers, cgroup, i32::from(recursive))).map(|existed: i32| existed != -1)
    }
    /// Where a process is, from the caller's own group.
    pub fn pid_cgroup(&self, controller: &str, pid: i32) -> Result<String, CallError> {
        self.call("GetPidCgroup", &(controller, pid))
    }
    /// Where a process is, from the root.
    pub fn pid_cgroup_abs(&self, controller: &str, pid: i32) -> Result<String, CallError> {
        self.call("GetPidCgroupAbs", &(controller, pid))
    }
    /// Moves a process.
    pub fn move_pid(&self, controllers: &str, cgroup: &str, pid: i32) -> Result<(), CallError> {
        self.call("MovePid", &(controllers, cgroup, pid))
    }
    /// Moves a process to a group named from the root.
    pub fn move_pid_abs(&self, controllers: &str, cgroup: &str, pid: i32) -> Result<(), CallError> {
        self.call("MovePidAbs", &(controllers, cgroup, pid))
    }
    /// What a control file says.
    pub fn value(&self, controller: &str, cgroup: &str, key: &str) -> Result<String, CallError> {
        self.call("GetValue", &(controller, cgroup, key))
    }
    /// Writes a control file.
    pub fn set_value(&self, controller: &str, cgroup: &str, key: &str, value: &str) -> Result<(), CallError> {
        self.call("SetValue", &(controller, cgroup, key, value))
    }
    /// The tasks of a group.
    pub fn tasks(&self, controller: &str, cgroup: &str) -> Result<Vec<i32>, CallError> {
        self.call("GetTasks", &(controller, cgroup))
    }
    /// The tasks of a group and those below it.
    pub fn tasks_recursive(&self, controllers: &str, cgroup: &str) -> Result<Vec<i32>, CallError> {
        self.call("GetTasksRecursive", &(controllers, cgroup))
    }
    /// The names of the groups in a group.
    pub fn children(&self, controller: &str, cgroup: &str) -> Result<Vec<String>, CallError> {
        self.call("ListChildren", &(controller, cgroup))
    }
    /// Has a group removed when it is empty.
    pub fn remove_on_empty(&self, controllers: &str, cgroup: &str) -> Result<(), CallError> {
        self.call("RemoveOnEmpty", &(controllers, cgroup))
    }
    /// Removes what is empty of a group and those below it, and the rest when it is.
    pub fn prune(&self, controllers: &str, cgroup: &str) -> Result<(), CallError> {
        self.call("Prune", &(controllers, cgroup))
    }
    /// The controllers of each hierarchy.
    pub fn controllers(&self) -> Result<Vec<String>, CallError> {
        self.call("ListControllers", &())
    }
    /// The control files of a group.
    pub fn keys(&self, controller: &str, cgroup: &str) -> Result<Vec<Key>, CallError> {
        self.call("ListKeys", &(controller, cgroup))
    }
}
