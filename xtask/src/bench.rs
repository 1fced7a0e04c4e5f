//! `cargo xtask bench`: the promises about speed and memory, each measured against its reference in the same run.
//!
//! Writes one table to `docs/benchmarks.md`. Everything happens in a mount namespace of its own, on one CPU: where the
//! scheduler wakes a server otherwise makes rounds differ threefold. What is compared is measured by turns, and the
//! median of the rounds is given.

mod calls;
mod many;
pub(crate) mod measure;
mod peer;
mod processes;
pub(crate) mod report;
mod requests;
mod servers;

use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use rustix::thread::CpuSet;

use crate::workspace;
use report::Report;
use servers::{Ground, Programs};

/// Set in the mount namespace of its own.
const INSIDE: &str = "PINFOLD_BENCH_INSIDE";

/// `cargo xtask bench`.
#[derive(Args)]
pub struct Bench {
    /// How often each pair is measured
    #[arg(long, default_value_t = 21)]
    rounds: usize,
    /// How many groups the memory is measured with
    #[arg(long, default_value_t = 100_000)]
    groups: u32,
    /// How many D-Bus calls the daemon's memory is measured with
    #[arg(long, default_value_t = 1_000_000)]
    calls: u32,
    /// How long an idle daemon is watched
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    idle: u64,
    /// Measure one family of rows alone, and print them
    #[arg(long, value_enum)]
    only: Option<Family>,
    /// Print the table and leave docs/benchmarks.md as it is
    #[arg(long)]
    print: bool,
}

/// What is measured together.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq)]
enum Family {
    /// Requests of a mount
    Requests,
    /// D-Bus calls
    Calls,
    /// Processes that are moved and that fork
    Processes,
    /// A hundred thousand groups
    Many,
    /// The daemon with nothing to do
    Idle,
}

impl Bench {
    /// Builds, measures, and writes the table.
    pub fn run(&self) -> Result<()> {
        if std::env::var_os(INSIDE).is_none() {
            return again_inside();
        }
        let programs = Programs::build()?;
        keep_to_one_cpu()?;
        let report = self.measure(&programs)?;
        println!("{}", report.table());
        if !self.print && self.only.is_none() {
            let path = workspace::root().join("docs/benchmarks.md");
            std::fs::write(&path, report.page()).with_context(|| path.display().to_string())?;
        }
        Ok(())
    }

    fn measure(&self, programs: &Programs) -> Result<Report> {
        let ground = Ground::new(programs)?;
        let mut report = Report::default();
        for family in Family::value_variants() {
            if self.only.is_some_and(|only| only != *family) {
                continue;
            }
            match family {
                Family::Requests => report.rows.extend(requests::measure(&ground, self.rounds)?),
                Family::Calls => report.rows.extend(calls::measure(&ground, self.rounds, self.calls)?),
                Family::Processes => {
                    report.rows.push(processes::attach(&ground, self.rounds)?);
                    report.rows.push(processes::fork_rate(&ground, self.rounds)?);
                }
                Family::Many => report.rows.extend(many::measure(&ground, self.groups)?),
                Family::Idle => report.rows.push(processes::idle(&ground, self.idle)?),
            }
        }
        ground.end()?;
        Ok(report)
    }
}

/// Runs the same command again where nobody else sees the mounts.
fn again_inside() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("only root can mount, and move processes of the v2 tree");
    }
    let program = std::env::current_exe().context("this program's own file")?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]).arg(program).args(std::env::args_os().skip(1));
    workspace::run(command.env(INSIDE, "1"))
}

/// Keeps this process, and all that it starts, to one of its CPUs: the last, which has least to do with interrupts.
fn keep_to_one_cpu() -> Result<()> {
    let allowed = rustix::thread::sched_getaffinity(None)?;
    let last = (0..CpuSet::MAX_CPU).rev().find(|cpu| allowed.is_set(*cpu)).context("a CPU")?;
    let mut one = CpuSet::new();
    one.set(last);
    Ok(rustix::thread::sched_setaffinity(None, &one)?)
}
