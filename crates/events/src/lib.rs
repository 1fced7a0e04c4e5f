//! Process events: fork, exec, exit, in order, in the subscriber's own process numbers, and only of its own processes.
//!
//! A [`Source`] gives events: the kernel's proc connector, another pinfold outside this container, or /proc polled. A [`Service`]
//! hands them to any number of subscribers, each with a [`Scope`]. What a subscriber gets is a descriptor, to be kept or handed
//! on; a [`Stream`] reads it. Another pinfold's stream is a source again: so pinfolds nest.
//!
//! What a stream promises: a process is told of by [`What::Fork`] or [`What::Found`] first, once, and by [`What::Exit`] or
//! [`What::Left`] last, once. What is not visible in the reader's pid namespace never appears. What was lost is a
//! [`What::Gap`], then the difference that it made, then [`What::Synced`]; a stream begins with that difference, from nothing.
//!
//! ```no_run
//! use pinfold_events::{Pid, Scope, Service, Source, Stream, What};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let service = Service::start(Source::connector()?)?;
//! let reader = Pid::new(std::process::id()).ok_or("no pid")?;
//! let subscription = service.subscribe(reader, &Scope::All)?;
//!
//! for event in Stream::new(subscription.socket) {
//!     match event?.what {
//!         What::Fork { process, parent, .. } => println!("{process:?} was born to {parent:?}"),
//!         What::Exit { process, status, .. } => println!("{process:?} ended: {status:?}"),
//!         What::Gap => println!("something was missed; here is the difference:"),
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Where there is neither a connector nor an outer pinfold, opening a source says so:
//!
//! ```
//! use pinfold_events::{Source, SourceError};
//! let refused = Source::outer(|| Err(std::io::ErrorKind::NotFound.into()));
//! assert!(matches!(refused, Err(SourceError::Outer(_))));
//! ```
//!
//! # Out of scope
//!
//! Groups: who is in one, the caller knows (see [`Scope::Chosen`]). Who may subscribe to what: the caller checks.
//! Threads: they are counted, so that a process ends with its last one, and not told of.

#![forbid(unsafe_code)]

mod event;

pub mod change;
pub mod connector;
pub mod datagram;
pub mod hub;
pub mod intake;
pub mod namespace;
pub mod order;
mod pace;
pub mod proc;
pub mod relay;
mod rush;
mod service;
mod source;
mod stream;
mod subscriber;
pub mod wire;

pub use event::{Comm, Event, Ids, Pid, Process, Started, Status, Time, What};
pub use hub::{Scope, SubscriberId};
pub use pace::LONGEST_GAP;
pub use service::{Feeder, MOST_OF_ONE, Reader, Service, StartError, SubscribeError, Subscription};
pub use source::{Fed, Joined, Outer, Polling, Source, SourceError};
pub use stream::{Next, Stream, StreamError};
