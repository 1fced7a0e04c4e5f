//! The command line of `cargo xtask`: a plain dispatch to the modules of the library.
#![forbid(unsafe_code)]

use anyhow::Result;
use clap::Parser;
use std::process::ExitCode;
use xtask::{bench, bench_v1, ci, classify, format, gen_docs, record, tidy, transcript, vm_test};

/// What cargo cannot say: rules of the source tree, transcripts, guests, CI.
#[derive(Parser)]
#[command(name = "cargo xtask")]
enum Command {
    /// Run every check of the project
    Ci,
    /// Check that rustfmt would change nothing
    Format,
    /// Check the rules of the source tree
    Tidy,
    /// Write docs/files/ from the tables of interface files
    GenDocs,
    /// Run the suites that need a virtual machine
    VmTest(vm_test::VmTest),
    /// Play scripts and write their transcripts (in a guest only)
    Record(record::Record),
    /// Play one script and write its transcript (in a guest only)
    Transcript(transcript::Transcript),
    /// Measure speed and memory, and write docs/benchmarks.md
    Bench(bench::Bench),
    /// Measure in guests against the kernel's own v1, and write docs/benchmarks-v1.md
    BenchV1(bench_v1::BenchV1),
    /// Measure how fast rules act, beside cgrulesengd, and write docs/rules-figures.md
    Classify(classify::Classify),
    /// Be a process of a script
    #[command(hide = true)]
    Hold(transcript::Hold),
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments: Vec<_> = std::env::args_os().collect();
    if transcript::is_agent(&arguments[0]) {
        return transcript::note(&arguments);
    }
    match Command::parse() {
        Command::Ci => ci::ci(),
        Command::Format => format::check(),
        Command::Tidy => tidy::run(),
        Command::GenDocs => gen_docs::run(),
        Command::VmTest(command) => command.run(),
        Command::Record(command) => command.run(),
        Command::Transcript(command) => command.run(),
        Command::Bench(command) => command.run(),
        Command::BenchV1(command) => command.run(),
        Command::Classify(command) => command.run(),
        Command::Hold(command) => command.run(),
    }
}
