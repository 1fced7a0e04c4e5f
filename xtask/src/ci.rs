//! `cargo xtask ci`: every check of the project, in the order in which it fails soonest.

use crate::vm_test::VmTest;
use crate::workspace::{cargo, run};
use crate::{format, tidy};
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::time::{Duration, Instant};

/// One check: its name in the summary and what it does.
struct Step {
    name: &'static str,
    run: fn() -> Result<()>,
}

const fn step(name: &'static str, run: fn() -> Result<()>) -> Step {
    Step { name, run }
}

/// One after the other; those of a line side by side. The tests mostly wait for processes and the guests never do, so together
/// they take little longer than the guests alone.
const STAGES: &[&[Step]] = &[
    &[step("format", format::check)],
    &[step("tidy", tidy::run)],
    &[step("clippy", clippy)],
    &[step("docs", docs)],
    &[step("build", build)],
    &[step("tests", tests), step("guests", guests)],
];

/// Runs every check, also after one failed, and prints a summary.
pub fn ci() -> Result<()> {
    let mut rows: Vec<(&str, Duration, Result<()>)> = Vec::new();
    for stage in STAGES {
        let run = |step: &Step| {
            println!("== {}", step.name);
            let start = Instant::now();
            let result = (step.run)();
            if let Err(error) = &result {
                println!("{} failed: {error:#}", step.name);
            }
            (step.name, start.elapsed(), result)
        };
        rows.extend(std::thread::scope(|scope| {
            let running: Vec<_> = stage.iter().map(|step| scope.spawn(move || run(step))).collect();
            running.into_iter().map(|step| step.join().expect("a check does not panic")).collect::<Vec<_>>()
        }));
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

fn build() -> Result<()> {
    run(cargo().args(["test", "--workspace", "--no-run"]))
}

/// What they print is shown in one piece, as guests print beside them. It goes to a file: a pipe would end only with whatever a
/// failed test left running.
fn tests() -> Result<()> {
    let path = std::env::temp_dir().join(format!("pinfold-tests-{}", std::process::id()));
    let file = File::create_new(&path).with_context(|| format!("cannot make {}", path.display()))?;
    let mut test = cargo();
    test.args(["test", "--workspace", "--no-fail-fast"]).stdout(file.try_clone()?).stderr(file);
    let ran = run(&mut test);
    println!("-- cargo test\n{}", String::from_utf8_lossy(&std::fs::read(&path)?));
    std::fs::remove_file(&path)?;
    ran
}

fn guests() -> Result<()> {
    VmTest::all().run()
}
