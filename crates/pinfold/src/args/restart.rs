//! Arguments of `capture` and `restart`.

use std::ffi::OsString;
use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::Args;
use pinfold_dbus::GroupName;

use super::RealmArgs;

/// `capture`.
#[derive(Args, Debug)]
pub(crate) struct CaptureArgs {
    /// Which daemon.
    #[command(flatten)]
    pub realm: RealmArgs,
    /// The file to write; `-` is standard output.
    #[arg(short, long, value_name = "FILE", required_unless_present = "criu")]
    pub output: Option<PathBuf>,
    /// Capture this process and everything below it, instead of a group.
    #[arg(long, value_name = "PID", conflicts_with = "group", required_unless_present = "group")]
    pub pid: Option<NonZeroU32>,
    /// Ask no daemon for the groups of the processes, and leave them out.
    #[arg(long, conflicts_with = "group")]
    pub without_groups: bool,
    /// Let criu(8) save memory and open files too, in this directory, with the capture file as DIR/pinfold.json. Needs
    /// --pid, or a group with one process that all others are below.
    #[arg(long, value_name = "DIR")]
    pub criu: Option<PathBuf>,
    /// The group, with everything in it and below: CONTROLLERS:PATH, or PATH in every hierarchy.
    #[arg(value_name = "GROUP")]
    pub group: Option<GroupName>,
}

/// `restart`.
#[derive(Args, Debug)]
pub(crate) struct RestartArgs {
    /// Which daemon.
    #[command(flatten)]
    pub realm: RealmArgs,
    /// Make no groups: the processes are where this command is.
    #[arg(long)]
    pub without_groups: bool,
    /// Go on without the controlling terminals that were recorded.
    #[arg(long)]
    pub without_terminals: bool,
    /// Return when everything runs, instead of when it has ended.
    #[arg(long)]
    pub detach: bool,
    /// Let criu(8) restore what `capture --criu` has saved in this directory.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["file", "command"], required_unless_present = "file")]
    pub criu: Option<PathBuf>,
    /// The capture file.
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Runs in every process instead of its recorded program.
    #[arg(value_name = "COMMAND", last = true)]
    pub command: Vec<OsString>,
}
