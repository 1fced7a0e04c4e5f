//! `Hub`: who is told what, in whose numbers.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod costs;
mod gaps;
mod namespaces;
mod scopes;
mod secrecy;
mod slow;
mod stage;
