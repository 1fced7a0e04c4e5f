//! A test program whose cases each run alone in a pid namespace of their own, with one thread.
//!
//! The program starts itself again below `unshare --pid --fork --kill-child --mount-proc`: whatever a case makes is gone when
//! it ends, and no number in it means a process of the machine.

use std::env;
use std::process::{Command, ExitCode, Stdio};

/// A case: its name is a claim.
pub(crate) type Case = (&'static str, fn());

const CASE: &str = "PINFOLD_RESTART_CASE";

/// Runs the cases of these modules whose names, `MODULE::CASE`, contain one of the arguments (or all), each in its own
/// namespaces.
pub(crate) fn main(modules: &[(&str, &[Case])]) -> ExitCode {
    let of_module = |&(module, cases): &(&str, &[Case])| {
        cases.iter().map(|(name, case)| (format!("{module}::{name}"), *case)).collect::<Vec<_>>()
    };
    let cases: Vec<(String, fn())> = modules.iter().flat_map(of_module).collect();
    if let Ok(wanted) = env::var(CASE) {
        let (_, case) = cases.iter().find(|(name, _)| *name == wanted).expect("a case of that name");
        assert_eq!(std::process::id(), 1, "cases run as the first process of their own pid namespace");
        // Its group had no number in here; as a leader it has one.
        rustix::process::setpgid(None, None).expect("no session leader");
        case();
        return ExitCode::SUCCESS;
    }
    if let Err(reason) = possible() {
        eprintln!("skipped: {reason}");
        return ExitCode::SUCCESS;
    }
    let filters: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let chosen =
        cases.iter().filter(|(name, _)| filters.is_empty() || filters.iter().any(|f| name.contains(f)));
    let failed = chosen.filter(|(name, _)| !passes(name)).count();
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn alone(program: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args([
        "--kill-after=5",
        "120",
        "unshare",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "--",
        program,
    ]);
    command.stdin(Stdio::null());
    command
}

fn possible() -> Result<(), String> {
    match alone("true").output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(format!("unshare: {error}")),
    }
}

fn passes(name: &str) -> bool {
    let own = env::current_exe().expect("a path of this program");
    let output =
        alone(own.to_str().expect("a path in UTF-8")).env(CASE, name).output().expect("unshare starts");
    let verdict = if output.status.success() { "ok" } else { "FAILED" };
    eprintln!("case {name} ... {verdict}");
    // A figure is printed by a case that passes.
    if !output.status.success() || !output.stderr.is_empty() {
        eprint!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    }
    output.status.success()
}
