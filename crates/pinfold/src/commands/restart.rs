//! `pinfold restart`: groups, then processes in them.
//!
//! A rebuild takes a process with one thread, and a client of the daemon has more: so the daemon is asked by child processes,
//! which are pinfold again.

mod places;

use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use pinfold_restart::image::Image;
use pinfold_restart::rebuild::{Options, Root, rebuild};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::capture::BESIDE_CRIU;
use super::criu;
use crate::args::RestartArgs;
use crate::exit;
use places::{Made, Places};

/// `pinfold restart`.
pub(crate) fn restart(args: &RestartArgs) -> anyhow::Result<ExitCode> {
    if let Some(directory) = &args.criu {
        return with_criu(args, directory);
    }
    let file = args.file.as_deref().context("no capture file")?;
    let image = read(file)?;
    let made = Made::of(args, &image)?;
    let roots = match rebuilt(args, &image) {
        Ok(roots) => roots,
        Err(error) => {
            made.undo(args);
            return Err(error);
        }
    };
    places::finish(args, &image)?;
    if args.detach { Ok(ExitCode::SUCCESS) } else { wait(&roots) }
}

fn read(file: &Path) -> anyhow::Result<Image> {
    let text = std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
    Image::from_json(&text).with_context(|| file.display().to_string())
}

fn rebuilt(args: &RestartArgs, image: &Image) -> anyhow::Result<Vec<Root>> {
    let command = (!args.command.is_empty()).then(|| args.command.clone());
    let without_terminals = args.without_terminals;
    if args.without_groups || image.groups.is_empty() {
        return Ok(rebuild(image, &Options { command, without_terminals, ..Options::default() })?);
    }
    let places = Places::of(args, image)?;
    let options =
        Options { command, groups: places.directories(), helpers_in: Some(places.own()), without_terminals };
    Ok(rebuild(image, &options)?)
}

/// Waits until every root has ended. The exit status is that of the first one of the file.
fn wait(roots: &[Root]) -> anyhow::Result<ExitCode> {
    let mut first = ExitCode::SUCCESS;
    for (place, root) in roots.iter().enumerate() {
        let status = loop {
            match waitid(WaitId::PidFd(root.pidfd.as_fd()), WaitIdOptions::EXITED) {
                Err(rustix::io::Errno::INTR) => {}
                answer => {
                    break answer.with_context(|| format!("process {} cannot be waited for", root.pid))?;
                }
            }
        };
        let code = status.and_then(|status| {
            status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal))
        });
        if place == 0 {
            let code = code.and_then(|code| u8::try_from(code).ok()).unwrap_or(exit::FAILED);
            first = ExitCode::from(code);
        }
    }
    Ok(first)
}

/// Groups, then criu in those of the first process, then everybody else into theirs.
fn with_criu(args: &RestartArgs, directory: &Path) -> anyhow::Result<ExitCode> {
    let image = read(&directory.join(BESIDE_CRIU))?;
    criu::check(&image)?;
    let made = Made::of(args, &image)?;
    let restored = criu::restore(places::inside_groups_of_first(args, &image), directory);
    if let Err(error) = restored.and_then(|()| places::move_all(args, &image)) {
        made.undo(args);
        return Err(error);
    }
    places::finish(args, &image)?;
    Ok(ExitCode::SUCCESS)
}
