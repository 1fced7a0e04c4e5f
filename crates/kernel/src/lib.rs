//! The cgroup2 tracker: carries plans out on a v2 tree through directory descriptors, reads it, watches it.
//!
//! It decides nothing and knows no hierarchy: directories, processes and texts come in, answers and errors go out.
//! Nothing is reached by an absolute path once a [`Tree`] is open (proc apart), and nothing outside the base is
//! written, except to let a process go back to where it came from. Needs Linux 5.15 or newer; says so in [`inspect`].
//!
//! Out of scope: what a directory means, who may do what, what to do when another program changes the tree.
//!
//! Modules stand in the order in which they are best read, one paragraph a subject.

#![forbid(unsafe_code)]

mod close;
mod look;
mod open;
mod scope;
mod tree;

mod held;
mod leaves;
mod lifted;
mod programs;
mod step;
mod switches;

pub mod alarm;
pub mod watch;

pub mod pids;
pub mod pins;
pub mod process;
pub mod signal;
pub mod since;
pub mod users;

pub mod agent;
pub mod descriptors;
pub mod executable;
pub mod listener;

pub mod inspect;
mod mounts;
mod switched;

mod beneath;
mod errors;
mod proc;

pub use close::CloseError;
pub use look::{Events, Membership, MembershipError, ReadError, Where};
pub use mounts::{DiscoverError, V1Mount, V2Mount};
pub use open::OpenError;
pub use step::{Cause, Place, Step, StepError};
pub use switches::{Measuring, OLDEST as OLDEST_MEASURED};
pub use tree::{Refused, Tree};
pub use watch::{Event, Watch, WatchError};
