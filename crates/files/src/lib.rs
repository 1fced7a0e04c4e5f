//! The interface files of cgroup v1, as tables: one module per controller.
//!
//! Pure: what a file shows is a function of what the group keeps and of v2 texts that the caller has read; what a
//! write means is a value ([`Change`]) that the caller carries out. Start with [`table`], then read any controller.

#![forbid(unsafe_code)]

mod table;
mod sight;
mod write;

pub use sight::{Facts, Sight, Texts, flat_field};
pub use table::{
    Carry, Change, Controller, Counter, File, Ids, Inherit, Needs, Place, Read, RoundTrip, Setting, Unit, Write,
};
pub use write::WriteError;
