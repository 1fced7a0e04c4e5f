//! The one API that every front end of pinfold calls: a [`Realm`].
//!
//! It joins the pure core (`model`, `files`) with the v2 tree (`kernel`) and the state directory: each change is
//! planned, carried out, and committed (I3). Front ends translate requests and decide nothing; what a caller may do is
//! decided here.
//!
//! Out of scope: request formats, path walks and caches of front ends, and who may open which file in a mount (the
//! kernel checks that there, from owner and mode).
//!
//! Modules stand in the order in which they are best read, one paragraph a subject.

#![forbid(unsafe_code)]

mod facts;
mod open;
mod realm;
mod record;
mod state;

mod attributes;
mod entry;
mod hierarchy;
mod names;
mod shape;
mod xattrs;

mod affinity;
mod attach;
mod by_cpu;
mod read;
mod release;
mod resets;
mod retire;
mod shift;
mod write;

mod carry;
mod descriptors;
mod enforced;
mod guards;
mod kill;
mod order;
mod reclaim;
mod room;
mod shares;
mod status;

mod caller;
mod places;
mod requester;
mod requests;

mod changed;
mod notices;
mod register;
mod under_oom;

pub mod rules;
mod tracker;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod stage;

mod down;
mod error;
mod info;

pub use caller::{Caller, FrontEnd, Opener};
pub use changed::{Attach, Changed, Fate, GroupChange, HierarchyChange};
pub use error::{
    AttachError, AttributeError, BoundElsewhere, DownError, EffectError, KillError, LookupError, MakeError,
    MountError, NoticeError, OpenError, PermitError, ReadError, RemountError, RemoveError, RenameError,
    RequestError, WriteError, XattrError, chain,
};
pub use info::{
    AttributeChange, Attributes, ControllerInfo, Enforced, HierarchyInfo, KeptSetting, Node, SettingStatus,
    XattrMode,
};
pub use open::{Config, OpenSource};
pub use places::{Most, NoPlace, Place, Places};
pub use realm::Realm;
pub use requester::{Account, BehalfError, BusPeer, HeldError, Named, Peer, Requester, RequesterError};
pub use shares::REST;
pub use state::StateError;
pub use tracker::Tracked;
