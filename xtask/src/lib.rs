//! What cargo cannot say: rules of the source tree, transcripts, guests, the order of CI.
//!
//! Each module is one subcommand of `cargo xtask`; `main.rs` only dispatches.
#![forbid(unsafe_code)]
// This is the developer's command line: the terminal is its output.
#![allow(clippy::print_stdout)]

pub mod transcript;
