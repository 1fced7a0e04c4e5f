//! Real processes: cloned, captured and rebuilt, each case in a pid namespace of its own.

mod arena;
mod naive;
mod nothing_left;
mod pids;
mod real;
mod rebuild;
mod refusals;

use std::process::ExitCode;

fn main() -> ExitCode {
    arena::main(&[
        ("nothing_left", nothing_left::CASES),
        ("pids", pids::CASES),
        ("rebuild", rebuild::CASES),
        ("refusals", refusals::CASES),
    ])
}
