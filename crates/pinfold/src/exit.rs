//! Exit statuses, and how a failure is told.

use std::process::{ExitCode, ExitStatus};

use std::os::unix::process::ExitStatusExt;

/// The command failed.
pub(crate) const FAILED: u8 = 1;
/// `run` and `exec`: pinfold itself failed, so that it cannot be mistaken for the command. As env(1).
pub(crate) const PINFOLD_FAILED: u8 = 125;
/// `run` and `exec`: the command was found but could not be run.
pub(crate) const CANNOT_RUN: u8 = 126;
/// `run` and `exec`: the command was not found.
pub(crate) const NOT_FOUND: u8 = 127;

/// Tells a failure on stderr and gives the exit status.
pub(crate) fn report(result: anyhow::Result<ExitCode>) -> ExitCode {
    report_as(FAILED, result)
}

/// As [`report`], with an exit status of the command's own for failures.
pub(crate) fn report_as(status: u8, result: anyhow::Result<ExitCode>) -> ExitCode {
    report_of("pinfold", status, result)
}

/// As [`report_as`], under another program's name.
pub(crate) fn report_of(program: &str, status: u8, result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        if is_broken_pipe(&error) {
            return ExitCode::SUCCESS;
        }
        eprintln!("{program}: {error:#}");
        ExitCode::from(status)
    })
}

/// Whether whoever read our output has seen enough (`pinfold tree | head`).
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// The exit status of a command that ended: its own, or 128 and the signal that killed it, as a shell's.
pub(crate) fn of_command(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(PINFOLD_FAILED))
}

/// The exit status for a command that could not be run, as env(1).
pub(crate) fn of_failed_exec(error: &std::io::Error) -> u8 {
    match error.kind() {
        std::io::ErrorKind::NotFound => NOT_FOUND,
        _ => CANNOT_RUN,
    }
}
