//! What cargo cannot say.
#![forbid(unsafe_code)]
fn main() {}
