//! What the messages of `org.pinfold.Manager1` contain. The field order is the order on the wire.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zbus::Type;

/// The interface's name.
pub const INTERFACE: &str = "org.pinfold.Manager1";
/// The daemon's name where names are asked for: at a bus.
pub const BUS_NAME: &str = "org.pinfold";
/// The one object that has it.
pub const PATH: &str = "/org/pinfold/Manager";
/// The socket's name in the state directory, and in that of the public door.
pub const SOCKET: &str = "socket";

/// The directory of the public door: beside the state directory, which nobody else may enter.
pub fn public_dir(state: &Path) -> PathBuf {
    let mut name = state.as_os_str().to_owned();
    name.push(".public");
    name.into()
}

/// A controller of the realm.
#[derive(Serialize, Deserialize, Type, Clone, PartialEq, Eq, Debug)]
pub struct Controller {
    /// Its name in mount options.
    pub name: String,
    /// What it is for.
    pub about: String,
    /// The hierarchy it is bound to; 0 if none.
    pub hierarchy: u32,
    /// How many groups that hierarchy has; 0 if none.
    pub groups: u32,
    /// Why it cannot be mounted here; empty if it can.
    pub unusable: String,
}

/// A hierarchy.
#[derive(Serialize, Deserialize, Type, Clone, PartialEq, Eq, Debug)]
pub struct Hierarchy {
    /// Its number, as in `/proc/cgroups`.
    pub id: u32,
    /// Its controllers and, last, its `name=`: how groups in it are named, as in `/proc/PID/cgroup`.
    pub label: String,
    /// How many groups it has, the root included.
    pub groups: u32,
    /// How many mounts hold it.
    pub mounts: u32,
}

/// A group below another.
#[derive(Serialize, Deserialize, Type, Clone, PartialEq, Eq, Debug)]
pub struct Child {
    /// The label of its hierarchy.
    pub hierarchy: String,
    /// Its path in the hierarchy.
    pub path: String,
    /// The owner.
    pub uid: u32,
    /// The owning group of users.
    pub gid: u32,
    /// The permission bits.
    pub mode: u32,
}

/// A control file of a group.
#[derive(Serialize, Deserialize, Type, Clone, PartialEq, Eq, Debug)]
pub struct Key {
    /// The label of the hierarchy.
    pub hierarchy: String,
    /// The file's name.
    pub name: String,
    /// The owner.
    pub uid: u32,
    /// The owning group of users.
    pub gid: u32,
    /// The permission bits.
    pub mode: u32,
}

/// A key of a group: a name that says what is meant.
#[derive(Serialize, Deserialize, Type, Clone, PartialEq, Eq, Debug)]
pub struct NamedKey {
    /// The label of the hierarchy.
    pub hierarchy: String,
    /// The key.
    pub name: String,
    /// What its value looks like.
    pub kind: String,
    /// What its numbers count.
    pub unit: String,
    /// The control files that it is made from.
    pub files: Vec<String>,
    /// Who may set it: `owner above`, `host's root`, or nobody if this is empty.
    pub set_by: String,
}

/// A setting of a group, and who sees to it.
#[derive(Serialize, Deserialize, Type, Clone, PartialEq, Eq, Debug)]
pub struct Setting {
    /// The label of the hierarchy.
    pub hierarchy: String,
    /// The control file that sets it.
    pub key: String,
    /// Its value.
    pub value: String,
    /// Whether the group keeps a value of its own for it.
    pub set: bool,
    /// `native`, `native, in N v2 directories`, `user space` or `stored only`, and the reason where there is one; of figures by CPU
    /// `measured` or `spread over the CPUs`.
    pub enforced: String,
}

/// A write that gives a group a setting of another.
#[derive(Serialize, Deserialize, Type, Clone, PartialEq, Eq, Debug)]
pub struct KeptSetting {
    /// The label of the hierarchy.
    pub hierarchy: String,
    /// The control file that is written.
    pub key: String,
    /// What is written.
    pub text: String,
    /// Whether it has to be: a new group may start with something else.
    pub needed: bool,
}

/// Where a process is in one hierarchy.
#[derive(Serialize, Deserialize, Type, Clone, PartialEq, Eq, Debug)]
pub struct Membership {
    /// The hierarchy's number.
    pub hierarchy: u32,
    /// The hierarchy's label.
    pub label: String,
    /// The group's path.
    pub path: String,
}
