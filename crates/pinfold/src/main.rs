//! The pinfold binary.
#![forbid(unsafe_code)]
fn main() {}
