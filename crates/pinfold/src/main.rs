//! The pinfold binary: command line, daemon, logging, exit codes. The only place that wires the crates together.
//!
//! Start reading at [`args`] (what can be typed), then [`commands`] (what it does), then [`daemon`] (`pinfold serve`).

#![forbid(unsafe_code)]

mod args;
mod commands;
mod daemon;
mod exit;
mod logging;
mod mounting;
mod output;
mod resolve;
mod signals;

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

/// mount(8) runs `mount.cgroup` for `mount -t cgroup`; installed under that name, this binary is it.
const MOUNT_HELPER: &str = "mount.cgroup";

/// The client of cgmanager; under that name, this binary does what it did.
const CGMANAGER_CLIENT: &str = "cgm";

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let called = arguments.next().unwrap_or_default();
    match Path::new(&called).file_name().and_then(|name| name.to_str()) {
        Some(MOUNT_HELPER) => return exit::report(commands::mount_helper(arguments.collect())),
        Some(CGMANAGER_CLIENT) => return commands::cgm(arguments),
        _ => {}
    }
    let cli = args::Cli::parse();
    logging::start(cli.log.as_deref(), &cli.command);
    commands::run(cli.command)
}
