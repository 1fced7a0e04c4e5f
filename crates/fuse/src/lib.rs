//! The FUSE front end: a hierarchy as a file system. It translates requests to realm calls and decides nothing.
//!
//! [`Mounts`] is what a daemon keeps. To follow one request: [`serve`] reads it, `group_fs` translates it, the realm
//! answers. To follow a mount's life: [`Superblock`] is made, served, and taken away through its [`Connection`].
//!
//! Out of scope: cgroup rules (the realm's), mount options (`files`' parser), which mounts a restarted daemon makes anew
//! (the binary's).

#![forbid(unsafe_code)]

mod connection;
mod forget;
mod fusermount;
mod group_fs;
mod listings;
mod mount;
mod mountinfo;
mod mounts;
mod numbering;
mod polls;
pub mod serve;
mod stat;
mod superblock;
mod texts;

pub use connection::{Abort, Connection, UnmountError, remove_dead, remove_left};
pub use fusermount::HelperError;
pub use mount::What;
pub use mounts::{MountError, MountInfo, Mounts};
pub use serve::default_threads;
pub use superblock::{Superblock, SuperblockError, attach};
