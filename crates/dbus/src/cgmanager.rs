//! `org.linuxcontainers.cgmanager0_0`: what clients of cgmanager 0.42 speak, for as long as there are any.
//!
//! `interface` has the methods; each that does something exists twice: plain, where the caller is who is connected and
//! processes are numbers of its own pid namespace, and with `Scm` at the end, where a socket is passed over which come
//! the credentials of who asks, perhaps those of whom it is about, and the answer (`exchange`). What either does is in
//! `acts`, in terms of the same realm and the same rules of privilege as the manager's; `names` is what controllers and
//! paths are called. [`Client`] is the plain half of a client, which `cgm` uses.
//!
//! Source: cgmanager 0.42, its introspection data and how it answers. Differs: docs/cgmanager.md.

mod acts;
mod client;
mod exchange;
mod interface;
mod names;
mod place;

pub(crate) use interface::Cgmanager;

pub use client::{CallError, Client, Key};
pub use place::{DEFAULT_SOCKETS, default_socket};

/// The interface's name.
pub const INTERFACE: &str = "org.linuxcontainers.cgmanager0_0";
/// The one object that has it.
pub const PATH: &str = "/org/linuxcontainers/cgmanager";
/// The property `api_version`: that of 0.42, which lists keys.
const API_VERSION: i32 = 10;
