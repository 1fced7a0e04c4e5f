//! Arguments of the commands on processes.

use std::ffi::OsString;

use clap::Args;
use pinfold_dbus::GroupName;

use super::{Assignment, Output, RealmArgs};

/// `tasks`.
#[derive(Args, Debug)]
pub(crate) struct TasksArgs {
    /// Which daemon.
    #[command(flatten)]
    pub realm: RealmArgs,
    /// How to print.
    #[command(flatten)]
    pub output: Output,
    /// List processes, not each of their tasks (threads).
    #[arg(short, long)]
    pub processes: bool,
    /// List those of the groups below too.
    #[arg(short, long)]
    pub recursive: bool,
    /// The group: CONTROLLERS:PATH, or PATH in every hierarchy.
    #[arg(value_name = "GROUP")]
    pub group: GroupName,
}

/// `move`.
#[derive(Args, Debug)]
pub(crate) struct MoveArgs {
    /// Which daemon.
    #[command(flatten)]
    pub realm: RealmArgs,
    /// The processes; all their threads go with them.
    #[arg(value_name = "PID", required = true)]
    pub pids: Vec<std::num::NonZeroU32>,
    /// The group: CONTROLLERS:PATH, or PATH in every hierarchy.
    #[arg(value_name = "GROUP")]
    pub group: GroupName,
}

/// `exec`.
#[derive(Args, Debug)]
pub(crate) struct ExecArgs {
    /// Which daemon.
    #[command(flatten)]
    pub realm: RealmArgs,
    /// The group to enter: CONTROLLERS:PATH, or PATH in every hierarchy. May be repeated.
    #[arg(short, long = "group", value_name = "GROUP", required = true)]
    pub groups: Vec<GroupName>,
    /// The command and its arguments.
    #[arg(value_name = "COMMAND", last = true, required = true)]
    pub command: Vec<OsString>,
}

/// `run`.
#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// Which daemon.
    #[command(flatten)]
    pub realm: RealmArgs,
    /// Values to set before COMMAND starts, as in pids.max=100.
    #[arg(value_name = "KEY=VALUE")]
    pub values: Vec<Assignment>,
    /// The command and its arguments.
    #[arg(value_name = "COMMAND", last = true, required = true)]
    pub command: Vec<OsString>,
}

/// The fields of `events --json`: a test of `commands::events` compares.
const FIELDS: &str = "\
Fields of --json. One that is not known, or has no meaning for the event, is left out:
  time         When it happened or was found out: seconds since boot, time asleep included
  event        found, fork, exec, exit, uid, gid, sid, comm, left, gap or synced
  pid          The process, in the own pid namespace
  started      When it started: nanoseconds since boot; names a process for good. Of one that was
               found, some time within the clock tick of 10 ms in which it did
  parent       The parent of who is found or born; 0 if that is not visible
  comm         The name, at most 15 bytes: \\xff for a byte that is no ASCII; empty if not known
  uid, euid    Real and effective user in the own user namespace; 65534 for none of it
  gid, egid    Real and effective group of users, likewise
  code         What it passed to exit(2): 0 to 255
  signal       The signal that ended it
  core_dumped  Whether that left a core dump
  found        Of synced: how many processes were found since the start or the gap
  gone         Of synced: how many had ended, or left
  changed      Of synced: how many other changes there were";

/// `events`.
#[derive(Args, Debug)]
#[command(after_long_help = FIELDS)]
pub(crate) struct EventsArgs {
    /// Which daemon.
    #[command(flatten)]
    pub realm: RealmArgs,
    /// Print a JSON object for each event, one a line.
    #[arg(long)]
    pub json: bool,
    /// Only this process and its descendants.
    #[arg(short, long, value_name = "PID", conflicts_with = "group")]
    pub pid: Option<std::num::NonZeroU32>,
    /// Only the processes of this group and of the groups below: CONTROLLERS:PATH, or PATH in every hierarchy.
    #[arg(short, long, value_name = "GROUP")]
    pub group: Option<GroupName>,
}
