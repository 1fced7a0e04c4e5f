//! Hierarchies, groups, cells and plans: the pure core of pinfold.
//!
//! A [`Forest`] holds every [`Hierarchy`] of a realm, their [`Group`]s, and the [`Cell`]s: interned tuples of one group
//! per hierarchy. Changes come in two steps (I3): a `plan_…` may refuse and changes nothing that anyone can see; after
//! the caller has carried the plan out, `commit` takes it by value and cannot fail, and `abort` forgets it.
//!
//! Out of scope: I/O, the clock, locks, logging, and what a setting means (that is the `files` crate's).
//!
//! Modules stand in the order in which they are best read, one paragraph a subject.

#![forbid(unsafe_code)]

mod dir;
mod forest;
mod group;
mod hierarchy;
mod ids;
mod name;

mod controllers;
mod program;
mod settings;

mod attach;
mod make;
mod mount;
mod retire;
mod shift;

mod descriptors;
mod holders;
mod placement;
mod share;
mod spare;
mod spine;

mod privilege;
mod quota;
mod users;

mod restore;
mod roster;

mod errno;

pub use attach::{AttachError, AttachPlan, Seat};
pub use controllers::{ControllerId, ControllerSet};
pub use descriptors::{Comes, DescriptorLimit, Narrowed};
pub use dir::Dir;
pub use errno::Errno;
pub use forest::{Cell, Forest, GroupGone, NoNumber};
pub use group::{FileAttributes, Group, Moment, Xattrs};
pub use hierarchy::{Hierarchy, HierarchyFlags, HierarchyName, HierarchyNameError};
pub use holders::{Count, DescriptorParts, Family};
pub use ids::{CellId, Gid, GroupId, HierarchyId, HostPid, OriginId, Ownership, Pid, SpineId, Uid};
pub use make::{MakeError, MakePlan, RemoveError, RemovePlan, RenameError, RenamePlan};
pub use mount::{MountError, MountPlan, MountRequest, RemountError, RemountPlan};
pub use name::{NAME_MAX, Name, NameError};
pub use placement::{Carriers, Placing};
pub use privilege::{
    Act, Credentials, Denied, Need, NewOwner, Place, RULES, Requester, Rule, Target, Users, may_attach,
};
pub use program::{Hook, Instruction, Slot};
pub use quota::{GroupLimits, TooMany, TooMuch};
pub use restore::{KeptGroup, RestoreError};
pub use retire::{Claim, Fold, RetirePlan};
pub use roster::Roster;
pub use settings::{Key, Limit, Settings, Value};
pub use share::{
    Allowed, Claimant, LimitKind, Look, Period, Pressure, Reading, are_worth_writing, divide,
    divide_with_least, keep_what_others_had, settle,
};
pub use shift::ShiftPlan;
pub use spare::{divide_sparing, greatest};
pub use users::{IdMap, IdMapError};
