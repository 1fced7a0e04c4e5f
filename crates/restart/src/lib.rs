//! Process trees rebuilt with every pid as it was.
//!
//! Start at [`pids`]: one process with chosen numbers, on top of clone3(2). Stands alone on `pinfold-sys`: control groups
//! are known here only as a descriptor that a child is born into.
#![forbid(unsafe_code)]

pub mod capture;
pub mod image;
pub mod pids;
pub mod rebuild;
pub mod schedule;
pub mod sweep;
pub mod tree;

mod limits;
mod look;
