//! `cargo xtask ci`: every check of the project, in the order in which it fails soonest.

use crate::vm_test::VmTest;
use crate::workspace::{cargo, run};
use crate::{format, tidy};
use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// One check: its name in the summary and what it does.
struct Step {
    name: &'static str,
    run: fn() -> Result<()>,
}

const STEPS: &[Step] = &[
    Step { name: "format", run: format::check },
    Step { name: "tidy", run: tidy::run },
    Step { name: "clippy", run: clippy },
    Step { name: "docs", run: docs },
    Step { name: "tests", run: tests },
    Step { name: "guests", run: guests },
];

/// Runs every check, also after one failed, and prints a summary.
pub fn ci() -> Result<()> {
    let mut rows: Vec<(&str, Duration, Result<()>)> = Vec::new();
    for step in STEPS {
        println!("== {}", step.name);
        let start = Instant::now();
        let result = (step.run)();
        if let Err(error) = &result {
            println!("{} failed: {error:#}", step.name);
        }
        rows.push((step.name, start.elapsed(), result));
    }
    println!("== summary");
    for (name, took, result) in &rows {
        let verdict = if result.is_ok() { "ok" } else { "FAILED" };
        println!("{name:8} {verdict:7} {:4} s", took.as_secs());
    }
    let failed = rows.iter().filter(|(_, _, result)| result.is_err()).count();
    println!("{} passed, {failed} failed", rows.len() - failed);
    if failed > 0 {
        bail!("{failed} of {} checks failed", rows.len());
    }
    Ok(())
}

fn clippy() -> Result<()> {
    run(cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

fn docs() -> Result<()> {
    let mut doc = cargo();
    doc.args(["doc", "--workspace", "--no-deps"]);
    run(doc.env("RUSTDOCFLAGS", "-D warnings"))
}

fn tests() -> Result<()> {
    run(cargo().args(["test", "--workspace", "--no-fail-fast"]))
}

fn guests() -> Result<()> {
    VmTest::all().run()
}
