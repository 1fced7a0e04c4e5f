//! Handing memory and open files over to criu(8), and taking the processes back into their groups.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use pinfold_restart::image::Image;
use pinfold_restart::rebuild::Root;
use pinfold_restart::sweep::{Before, Member};
use rustix::io::Errno;
use rustix::process::{Signal, getpid, pidfd_send_signal};

/// What criu writes about saving, in its directory.
pub(super) const DUMP_LOG: &str = "dump.log";

/// Says what criu cannot do, before it is asked.
pub(super) fn check(image: &Image) -> anyhow::Result<()> {
    if image.pid_namespaces.len() > 1 {
        // Not one either that all of them are in: criu chooses their numbers outside of it, and it is those that we know.
        bail!(
            "criu does not know nested pid namespaces, and these processes are in {}\n\
             without --criu, pinfold rebuilds them (programs start anew)",
            image.pid_namespaces.len()
        );
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
        DUMP_LOG,
    ]);
    run(&mut command, &directory.join(DUMP_LOG))
}

/// What criu has made below this process, stopped.
pub(super) struct Restored(Vec<Member>);

/// Restores the tree where this command is put by `wrap`: in the groups of its first process. It is found as what is new below this
/// process, which `before` remembers.
pub(super) fn restore(
    mut wrapped: Command,
    directory: &Path,
    image: &Image,
    before: &Before,
) -> anyhow::Result<Restored> {
    wrapped.args(["restore", "--images-dir"]).arg(directory);
    wrapped.args(["--restore-detached", "--leave-stopped", "--manage-cgroups=ignore"]);
    wrapped.args(["--shell-job", "--file-locks", "--log-file", "restore.log"]);
    run(&mut wrapped, &directory.join("restore.log"))?;
    let members = before.made().context("what criu has restored cannot be found")?;
    let made = |pid: u32| members.iter().any(|member| number(member) == pid);
    match image.processes.iter().find(|process| !made(process.pids[0])) {
        None => Ok(Restored(members)),
        Some(process) => bail!("criu has restored no process {}", process.pids[0]),
    }
}

fn number(member: &Member) -> u32 {
    member.pid.as_raw_pid().unsigned_abs()
}

impl Restored {
    /// Lets everybody go on who was not stopped when they were captured, children first: no parent finds a child stopped.
    pub(super) fn go_on(&self, image: &Image) -> anyhow::Result<()> {
        let was_stopped = |pid: u32| {
            let of = image.processes.iter().find(|process| process.pids[0] == pid);
            of.and_then(|process| process.living.as_ref()).is_some_and(|living| living.stopped)
        };
        for member in self.0.iter().rev().filter(|member| !was_stopped(number(member))) {
            match pidfd_send_signal(&member.pidfd, Signal::CONT) {
                // A zombie.
                Ok(()) | Err(Errno::SRCH) => {}
                Err(errno) => bail!("process {} cannot go on: {errno}", member.pid),
            }
        }
        Ok(())
    }

    /// The processes that are this one's children.
    pub(super) fn roots(self) -> Vec<Root> {
        let roots = self.0.into_iter().filter(|member| member.parent == getpid());
        roots.map(|member| Root { index: 0, pid: member.pid, pidfd: member.pidfd }).collect()
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
