//! The one API that every front end of pinfold calls: a [`Realm`].
//!
//! It joins the pure core (`model`, `files`) with the v2 tree (`kernel`) and the state directory: each change is
//! planned, carried out, and committed (I3). Front ends translate requests and decide nothing; what a caller may do is
//! decided here.
//!
//! Out of scope: request formats, path walks and caches of front ends, and who may open which file in a mount (the
//! kernel checks that there, from owner and mode).

#![forbid(unsafe_code)]

mod attach;
mod attributes;
mod caller;
mod carry;
mod descriptors;
mod down;
mod enforced;
mod entry;
mod error;
mod facts;
mod hierarchy;
mod info;
mod names;
mod notice;
mod notices;
mod open;
mod order;
mod read;
mod realm;
mod record;
mod register;
mod release;
mod requester;
mod requests;
mod resets;
mod retire;
mod room;
pub mod rules;
mod shape;
mod shares;
mod shift;
mod state;
mod status;
mod tracker;
mod under_oom;
mod write;
mod xattrs;

pub use caller::{Caller, FrontEnd};
pub use error::{
    AttachError, AttributeError, BoundElsewhere, DownError, EffectError, KillError, LookupError, MakeError,
    MountError, NoticeError, OpenError, PermitError, ReadError, RemountError, RemoveError, RenameError,
    RequestError, WriteError, XattrError, chain,
};
pub use info::{
    AttributeChange, Attributes, ControllerInfo, Enforced, HierarchyInfo, KeptSetting, Node, SettingStatus,
    XattrMode,
};
pub use notice::{Changed, Fate, GroupChange, HierarchyChange};
pub use open::{Config, OpenSource};
pub use realm::Realm;
pub use requester::{Account, BehalfError, BusPeer, HeldError, Named, Peer, Requester, RequesterError};
pub use state::StateError;
pub use tracker::Tracked;
