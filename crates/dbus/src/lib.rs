//! The D-Bus front end: `org.pinfold.Manager1`, its server and a client for it, and what clients of [`cgmanager`] speak.
//!
//! Peer to peer over sockets: no libdbus, and no bus daemon unless [`SystemBus`] is asked for. One [`Door`] is the owner's, the
//! others are everybody's; who may do what is decided by the realm. What a name means is in [`GroupName`]; the messages'
//! contents are in [`wire`]. Each
//! connection has a thread of its own that drives zbus and makes the (blocking) calls into the realm, so a client that
//! stalls delays nobody else, and an idle daemon sleeps. `async` stays within this crate.
//!
//! Modules stand in the order in which they are best read, one paragraph a subject.

#![forbid(unsafe_code)]

mod group_name;
mod groups;
mod manager;
mod select;
mod values;
pub mod wire;

mod bus_socket;
mod closing;
mod credentials;
mod handshake;
mod passed;
mod server;
mod stream;

mod signals;
mod subscribe;

mod bus;
mod callers;
mod system_bus;

pub mod cgmanager;

mod client;
mod error;

pub use callers::Unheld;
pub use client::{BreakOff, Client, ClientError};
pub use error::Refusal;
pub use group_name::{GroupName, GroupNameError, GroupPath, Hierarchies};
pub use manager::{Daemon, Down, MakeMount, Remount, Settle};
pub use server::{Door, ListenError, Server};
pub use signals::Signals;
pub use subscribe::{Events, Scope, Subscribe};
pub use system_bus::{SystemBus, SystemBusError};
