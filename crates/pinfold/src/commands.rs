//! What each command does: one module per family.

mod capture;
mod cgm;
mod criu;
mod docs;
pub(crate) mod doctor;
mod events;
mod groups;
mod listing;
mod mount;
mod proc;
mod processes;
mod restart;
mod rules;
mod run;
mod values;

pub(crate) use cgm::cgm;
pub(crate) use mount::helper as mount_helper;

use std::process::ExitCode;

use crate::args::Command;
use crate::{daemon, exit};

/// Carries out a command and gives the exit status; a failure is told on stderr.
pub(crate) fn run(command: Command) -> ExitCode {
    let when_failed = match command {
        Command::Exec(_) | Command::Run(_) | Command::Restart(_) => exit::PINFOLD_FAILED,
        _ => exit::FAILED,
    };
    exit::report_as(when_failed, carry_out(command))
}

fn carry_out(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(args) => return daemon::serve(&args),
        Command::Mount(args) => mount::mount(&args)?,
        Command::Umount(args) => mount::umount(&args)?,
        Command::Down(args) => processes::down(&args)?,
        Command::Controllers(args) => listing::controllers(&args)?,
        Command::Hierarchies(args) => listing::hierarchies(&args)?,
        Command::Tree(args) => listing::tree(&args)?,
        Command::Ls(args) => listing::ls(&args)?,
        Command::Status(args) => values::status(&args)?,
        Command::Tasks(args) => processes::tasks(&args)?,
        Command::Keys(args) => listing::keys(&args)?,
        Command::Get(args) => values::get(&args)?,
        Command::Set(args) => values::set(&args)?,
        Command::Create(args) => groups::create(&args)?,
        Command::Rm(args) => groups::rm(&args)?,
        Command::Prune(args) => groups::prune(&args)?,
        Command::Move(args) => processes::move_process(&args)?,
        Command::Chown(args) => groups::chown(&args)?,
        Command::Chmod(args) => groups::chmod(&args)?,
        Command::Kill(args) => processes::kill(&args)?,
        Command::Freeze(args) => processes::freeze(&args)?,
        Command::Thaw(args) => processes::thaw(&args)?,
        Command::Exec(args) => return run::exec(&args),
        Command::Run(args) => return run::run(&args),
        Command::Events(args) => events::events(&args)?,
        Command::Rules(args) => rules::rules(&args)?,
        Command::Capture(args) => capture::capture(&args)?,
        Command::Restart(args) => return restart::restart(&args),
        Command::Proc(args) => proc::proc(&args)?,
        Command::Doctor(args) => return doctor::doctor(&args),
        Command::Completions(args) => docs::completions(&args)?,
        Command::BusPolicy => docs::bus_policy()?,
        Command::Man(args) => docs::man(&args)?,
    }
    Ok(ExitCode::SUCCESS)
}
