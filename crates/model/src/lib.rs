//! Hierarchies, groups, cells and plans: the pure core of pinfold.

#![forbid(unsafe_code)]

mod errno;
mod ids;
mod name;
mod controllers;
mod settings;

pub use controllers::{ControllerId, ControllerSet};
pub use errno::Errno;
pub use ids::{CellId, Gid, GroupId, HierarchyId, HostPid, OriginId, Ownership, Pid, Uid};
pub use name::{NAME_MAX, Name, NameError};
pub use settings::{Key, Limit, Settings, Value};
