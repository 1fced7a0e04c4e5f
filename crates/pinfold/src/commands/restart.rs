//! `pinfold restart`: groups, then processes in them.
//!
//! A rebuild takes a process with one thread, and a client of the daemon has more: so the daemon is asked by child processes,
//! which are pinfold again.

mod places;

use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, anyhow, bail};
use pinfold_restart::image::Image;
use pinfold_restart::rebuild::{Moment, Options, Root, lost_capabilities, rebuild};
use pinfold_restart::sweep::Before;
use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::capture::BESIDE_CRIU;
use super::criu;
use crate::args::RestartArgs;
use crate::exit;
use crate::signals::Interruption;
use places::{Made, Places, When};

/// `pinfold restart`.
pub(crate) fn restart(args: &RestartArgs) -> anyhow::Result<ExitCode> {
    if let Some(directory) = &args.criu {
        return with_criu(args, directory);
    }
    let file = args.file.as_deref().context("no capture file")?;
    let image = read(file)?;
    let lost = lost_capabilities(&image).context("the bounding set of capabilities cannot be read")?;
    if !lost.is_empty() {
        eprintln!(
            "pinfold: not in the bounding set here, so nobody can have them again: {}",
            lost.join(", ")
        );
    }
    let roots = all_or_nothing(args, &image, |interruption| rebuilt(args, &image, interruption))?;
    if args.detach { Ok(ExitCode::SUCCESS) } else { wait(&roots) }
}

/// Makes the groups, then the processes in them; what goes wrong, a signal too, leaves nothing of either.
fn all_or_nothing<T>(
    args: &RestartArgs,
    image: &Image,
    make: impl FnOnce(&Interruption) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    // Who ignores it, as we may have been started, can wait for no child.
    pinfold_restart::sweep::keep_ended_children();
    let interruption = Interruption::watch()?;
    let mut made = Made::default();
    let result = made.make_all(args, image).and_then(|()| make(&interruption));
    if result.is_err() {
        made.undo(args);
    }
    let interrupted = interruption.check();
    interruption.end();
    match (result, interrupted) {
        (Ok(_), Err(_)) => bail!("interrupted when everything ran already: it goes on"),
        (Err(_), Err(_)) => bail!("interrupted: nothing was restarted"),
        (result, Ok(())) => result,
    }
}

fn read(file: &Path) -> anyhow::Result<Image> {
    let text = std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
    Image::from_json(&text).with_context(|| file.display().to_string())
}

fn rebuilt(args: &RestartArgs, image: &Image, interruption: &Interruption) -> anyhow::Result<Vec<Root>> {
    let options = Options {
        command: (!args.command.is_empty()).then(|| args.command.clone()),
        without_terminals: args.without_terminals,
        interrupted: Some(interruption.flag()),
        ..Options::default()
    };
    if args.without_groups || image.groups.is_empty() {
        return Ok(rebuild(image, &options)?);
    }
    let places = Places::of(args, image, interruption.flag())?;
    let at = |moment| {
        let set = match moment {
            Moment::Placed => {
                places.settle(args, image).and_then(|()| places::set_all(args, image, When::Placed))
            }
            Moment::Running => places::set_all(args, image, When::Running),
        };
        set.map_err(|error| format!("{error:#}"))
    };
    let (groups, helpers_in) = (places.directories(), places.own());
    Ok(rebuild(image, &Options { groups, helpers_in, at: Some(&at), ..options })?)
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

/// Groups, then criu in those of the first process, then everybody else into theirs; then they go on.
fn with_criu(args: &RestartArgs, directory: &Path) -> anyhow::Result<ExitCode> {
    let image = read(&directory.join(BESIDE_CRIU))?;
    criu::check(&image)?;
    let before = Before::remember().map_err(|(what, errno)| anyhow!("cannot {what}: {errno}"))?;
    let roots = all_or_nothing(args, &image, |interruption| {
        let command = places::inside_groups_of_first(args, &image);
        let settled = criu::restore(command, directory, &image, &before).and_then(|restored| {
            places::move_all(args, &image)?;
            places::set_all(args, &image, When::Placed)?;
            restored.go_on(&image)?;
            places::set_all(args, &image, When::Running)?;
            interruption.check()?;
            Ok(restored.roots())
        });
        settled.inspect_err(|_| before.sweep())
    });
    before.restore();
    let roots = roots?;
    if args.detach { Ok(ExitCode::SUCCESS) } else { wait(&roots) }
}
