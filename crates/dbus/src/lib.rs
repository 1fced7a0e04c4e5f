//! The D-Bus front end: `org.pinfold.Manager1`, its server and a client for it.
//!
//! Peer to peer over a socket in the state directory: no bus daemon, no libdbus. What may be done is decided by the
//! realm; what a name means is in [`GroupName`]; the messages' contents are in [`wire`]. Each connection has a thread
//! of its own that drives zbus and makes the (blocking) calls into the realm, so a client that stalls delays nobody
//! else, and an idle daemon sleeps. `async` stays within this crate.
//!
//! Out of scope: a system bus, and who but the daemon's owner may ask (a later version of the interface).

#![forbid(unsafe_code)]

mod client;
mod error;
mod group_name;
mod groups;
mod manager;
mod select;
mod server;
mod subscribe;
mod values;
pub mod wire;

pub use client::{Client, ClientError};
pub use error::Refusal;
pub use group_name::{GroupName, GroupNameError, GroupPath, Hierarchies};
pub use manager::{Daemon, Down, MakeMount, Remount, Settle};
pub use server::{ListenError, Server};
pub use subscribe::{Events, Scope, Subscribe};
