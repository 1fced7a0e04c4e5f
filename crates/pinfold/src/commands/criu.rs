//! Handing memory and open files over to criu(8), and taking the processes back into their groups.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use pinfold_restart::image::{Captured, Image};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Says what criu cannot do, before it is asked.
pub(super) fn check(image: &Image) -> anyhow::Result<()> {
    let first_inside = |process: &&Captured| process.pid_namespace == 1 && process.pids.last() == Some(&1);
    match image.pid_namespaces.len() {
        0 | 1 => {}
        2 if image.processes.iter().find(first_inside).is_some_and(|first| first.parent.is_none())
            && image.processes.iter().all(|process| process.pid_namespace == 1) => {}
        _ => bail!(
            "criu does not know nested pid namespaces, and these processes are in {}\n\
             without --criu, pinfold rebuilds them (programs start anew)",
            image.pid_namespaces.len()
        ),
    }
    root(image).map(|_| ())
}

/// The one process that all others are below: criu takes a tree.
fn root(image: &Image) -> anyhow::Result<u32> {
    let mut roots = image.processes.iter().filter(|process| process.parent.is_none());
    match (roots.next(), roots.next()) {
        (Some(root), None) => Ok(root.pids[0]),
        _ => bail!("criu saves one tree: capture one process with --pid"),
    }
}

/// Saves the tree; the processes go on.
pub(super) fn dump(image: &Image, directory: &Path) -> anyhow::Result<()> {
    let root = root(image)?.to_string();
    let mut command = Command::new("criu");
    command.args(["dump", "--tree", &root, "--images-dir"]).arg(directory);
    command.args([
        "--leave-running",
        "--manage-cgroups=ignore",
        "--shell-job",
        "--file-locks",
        "--log-file",
        "dump.log",
    ]);
    run(&mut command, &directory.join("dump.log"))
}

/// Restores the tree where this command is put by `wrap`: in the groups of its first process.
pub(super) fn restore(mut wrapped: Command, directory: &Path) -> anyhow::Result<()> {
    wrapped.args(["restore", "--images-dir"]).arg(directory);
    wrapped.args(["--restore-detached", "--manage-cgroups=ignore", "--shell-job", "--file-locks"]);
    wrapped.args(["--log-file", "restore.log"]);
    run(&mut wrapped, &directory.join("restore.log"))
}

/// Ends what was restored, when it could not be put into its groups. Its numbers were free before, or criu had failed.
pub(super) fn end(image: &Image) {
    for process in &image.processes {
        let pid = Pid::from_raw(process.pids[0].cast_signed());
        // ESRCH: it has ended by itself, or by the end of its parent.
        let pidfd = pid.filter(|pid| pid.as_raw_pid() > 1).map(|pid| pidfd_open(pid, PidfdFlags::empty()));
        if let Some(Ok(pidfd)) = pidfd {
            let _ = pidfd_send_signal(&pidfd, Signal::KILL);
        }
    }
}

fn run(command: &mut Command, log: &Path) -> anyhow::Result<()> {
    let program = command.get_program().to_owned();
    let status = command.status().with_context(|| missing(&program))?;
    if status.success() {
        return Ok(());
    }
    let text = std::fs::read(log).or_else(|error| match error.kind() {
        ErrorKind::NotFound => Ok(Vec::new()),
        _ => Err(error),
    })?;
    let text = String::from_utf8_lossy(&text);
    let errors: Vec<&str> = text.lines().filter(|line| line.contains("Error")).collect();
    let shown = errors.iter().rev().take(3).rev().copied().collect::<Vec<_>>().join("\n");
    bail!("criu failed ({status}); see {}\n{shown}", log.display())
}

fn missing(program: &OsStr) -> String {
    format!("{} cannot be started: is criu installed?", program.display())
}
