//! Arguments of the commands that look at the realm as a whole, at the machine, or at pinfold itself.

use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Output, RealmArgs};

/// `controllers`, `hierarchies`.
#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    /// Which daemon.
    #[command(flatten)]
    pub realm: RealmArgs,
    /// How to print.
    #[command(flatten)]
    pub output: Output,
}

/// `proc`.
#[derive(Args, Debug)]
pub(crate) struct ProcArgs {
    /// Which file.
    #[command(subcommand)]
    pub command: ProcCommand,
}

/// The files of /proc that cgroup v1 fills.
#[derive(Subcommand, Debug)]
pub(crate) enum ProcCommand {
    /// The groups of a process, as /proc/PID/cgroup.
    Cgroup {
        /// Which daemon.
        #[command(flatten)]
        realm: RealmArgs,
        /// How to print.
        #[command(flatten)]
        output: Output,
        /// The process [default: pinfold itself, which is where its starter is].
        #[arg(value_name = "PID")]
        pid: Option<NonZeroU32>,
    },
    /// The controllers, as /proc/cgroups.
    Cgroups {
        /// Which daemon.
        #[command(flatten)]
        realm: RealmArgs,
        /// How to print.
        #[command(flatten)]
        output: Output,
    },
}

/// `doctor`.
#[derive(Args, Debug)]
pub(crate) struct DoctorArgs {
    /// Which daemon to look for.
    #[command(flatten)]
    pub realm: RealmArgs,
    /// How to print.
    #[command(flatten)]
    pub output: Output,
    /// The v2 directory that `serve` would be given, if it is not the v2 root.
    #[arg(long, value_name = "DIR")]
    pub base: Option<PathBuf>,
}

/// `completions`.
#[derive(Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

/// `man`.
#[derive(Args, Debug)]
pub(crate) struct ManArgs {
    /// Where to write pinfold.1, pinfold-serve.1 and the others; made if it is missing.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}
