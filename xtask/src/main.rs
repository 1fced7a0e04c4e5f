//! The command line of `cargo xtask`: a plain dispatch to the modules of the library.
#![forbid(unsafe_code)]

use anyhow::Result;
use clap::Parser;
use xtask::transcript;

/// What cargo cannot say: rules of the source tree, transcripts, guests, CI.
#[derive(Parser)]
#[command(name = "cargo xtask")]
enum Command {
    /// Run a script of operations and write its transcript (in a guest only)
    Transcript(transcript::Transcript),
    /// Be a process of a script
    #[command(hide = true)]
    Hold(transcript::Hold),
}

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args_os().collect();
    if transcript::is_agent(&arguments[0]) {
        return transcript::note(&arguments);
    }
    match Command::parse() {
        Command::Transcript(command) => command.run(),
        Command::Hold(command) => command.run(),
    }
}
