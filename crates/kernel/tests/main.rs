//! Plans carried out on this machine's v2 tree, in directories of the tests' own: `ground`.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod agent;
mod container;
mod controllers;
mod ground;
mod held;
mod leaves;
mod limits;
mod programs;
mod storm;
mod switches;
mod tree;
