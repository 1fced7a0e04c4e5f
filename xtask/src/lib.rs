//! What cargo cannot say: rules of the source tree, transcripts, guests, the order of CI.
//!
//! Each module is one subcommand of `cargo xtask`, or serves one; `main.rs` only dispatches.
#![forbid(unsafe_code)]
// This is the developer's command line: the terminal is its output.
#![allow(clippy::print_stdout)]

pub mod workspace;

pub mod edges;
pub mod format;
pub mod gen_docs;
pub mod tidy;

pub mod record;
pub mod transcript;

pub mod differences;
pub mod guest;
pub mod vm_test;

pub mod bench;
pub mod bench_v1;
pub mod classify;

pub mod ci;
