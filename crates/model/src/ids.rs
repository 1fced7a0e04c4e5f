//! Names of things by number. None is ever reused while the daemon lives.

use std::fmt;
use std::num::NonZeroU32;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(NonZeroU32);

        impl $name {
            /// The id with this number; `None` for 0.
            pub const fn new(number: u32) -> Option<Self> {
                match NonZeroU32::new(number) {
                    Some(number) => Some(Self(number)),
                    None => None,
                }
            }
            /// The number behind the id.
            pub const fn get(self) -> u32 {
                self.0.get()
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

id! {
    /// A hierarchy: a tree of groups with a fixed set of controllers.
    #[doc(alias = "cgroup_root")]
    HierarchyId
}
id! {
    /// A group: a node of a hierarchy.
    #[doc(alias = "cgroup")]
    GroupId
}
id! {
    /// A cell: one group in each hierarchy, interned.
    #[doc(alias = "css_set")]
    CellId
}
id! {
    /// A spine directory: a v2 directory from which leaves hang, and which carries limits.
    SpineId
}
id! {
    /// A place in the v2 tree, outside the realm's own directories, that processes came from.
    OriginId
}
id! {
    /// A process or task number in the *caller's* pid namespace. May name another process a moment later.
    ///
    /// It does not convert into a [`HostPid`]; only a map of the caller's namespace does that:
    ///
    /// ```compile_fail
    /// # use pinfold_model::{HostPid, Pid};
    /// fn kill(_: HostPid) {}
    /// kill(Pid::new(7).unwrap());
    /// ```
    Pid
}
id! {
    /// A process or task number in the daemon's pid namespace: the only kind a driver may hand to `sys`.
    HostPid
}

/// A user id in the daemon's user namespace.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Uid(pub u32);

/// A group id (of users, not of processes) in the daemon's user namespace.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Gid(pub u32);

/// Who owns a group, and what owner, users' group and others may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ownership {
    /// The owner.
    pub uid: Uid,
    /// The owning group of users.
    pub gid: Gid,
    /// Permission bits, 0 to 0o7777.
    pub mode: u16,
}
