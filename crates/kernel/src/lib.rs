//! The cgroup2 tracker: carries plans out on a v2 tree through directory descriptors, reads it, watches it.
//!
//! It decides nothing and knows no hierarchy: directories, processes and texts come in, answers and errors go out.
//! Nothing is reached by an absolute path once a [`Tree`] is open (proc apart), and nothing outside the base is
//! written, except to let a process go back to where it came from. Needs Linux 5.15 or newer; says so in [`inspect`].
//!
//! Out of scope: what a directory means, who may do what, what to do when another program changes the tree.

#![forbid(unsafe_code)]

pub mod agent;
pub mod alarm;
mod beneath;
mod close;
pub mod descriptors;
mod errors;
mod held;
pub mod inspect;
mod leaves;
pub mod listener;
mod look;
mod mounts;
mod open;
pub mod pids;
pub mod pins;
mod proc;
pub mod process;
mod programs;
mod scope;
pub mod signal;
pub mod since;
mod step;
mod switched;
mod tree;
pub mod users;
pub mod watch;

pub use close::CloseError;
pub use look::{Events, Membership, MembershipError, ReadError, Where};
pub use mounts::{DiscoverError, V1Mount, V2Mount};
pub use open::OpenError;
pub use step::{Cause, Place, Step, StepError};
pub use tree::{Refused, Tree};
pub use watch::{Event, Watch, WatchError};
