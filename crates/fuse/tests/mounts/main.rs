//! Mounted hierarchies on the machine's own kernel: what programs see ([`files`]), and where ([`places`]).

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod files;
mod ground;
mod places;
