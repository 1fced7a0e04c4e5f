//! The command line as typed: the first of two passes, which checks the form of arguments and opens nothing.

mod cgm;
mod group;
mod machine;
mod process;
mod restart;
mod serve;
mod values;

pub(crate) use cgm::{Cgm, CgmCommand};
pub(crate) use group::{
    ChmodArgs, ChownArgs, CreateArgs, GroupArgs, LsArgs, PruneArgs, RmArgs, StatusArgs, TreeArgs,
};
pub(crate) use machine::{CompletionsArgs, DoctorArgs, ListArgs, ManArgs, ProcArgs, ProcCommand};
pub(crate) use process::{EventsArgs, ExecArgs, MoveArgs, RunArgs, TasksArgs};
pub(crate) use restart::{CaptureArgs, RestartArgs};
pub(crate) use serve::{DownArgs, MountArgs, RulesArgs, RulesCommand, ServeArgs, TrackerChoice, UmountArgs};
pub(crate) use values::{Assignment, GetArgs, Key, Mode, MountSpec, Owner, SetArgs};

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

const EXIT_STATUS: &str = "\
Exit status:
  0      done
  1      failed; the reason is on stderr
  2      wrong usage
In `run`, `exec` and `restart`:
  125    pinfold itself failed; in `restart` also: a program could not be run
  126    COMMAND was found but could not be run (`run`, `exec`)
  127    COMMAND was not found (`run`, `exec`)
  128+N  COMMAND was killed by signal N
  else   what COMMAND exited with";

const COMMAND_STATUS: &str = "\
Exit status: COMMAND's, or 128+N if signal N killed it; 127 if it was not found, 126 if it could not
be run, 125 if pinfold itself failed.";

/// Control groups, served from user space.
///
/// pinfold serves the cgroup v1 interface on a machine whose kernel has cgroup v2 alone: `pinfold serve` is the
/// daemon, and the commands about groups talk to it. Groups are named CONTROLLERS:PATH as in libcgroup's tools
/// (pids,freezer:/jobs/7); PATH alone means every hierarchy. A PATH without the first slash begins at the group that the
/// caller is in, which is `.` itself; only the host's root may use others.
///
/// Started under the name `cgm`, it is the client of cgmanager of that name: see `cgm --help`.
#[derive(Parser, Debug)]
#[command(name = "pinfold", version, after_help = EXIT_STATUS, propagate_version = false)]
#[command(subcommand_required = true, arg_required_else_help = true, infer_subcommands = false)]
pub(crate) struct Cli {
    /// What to log, and how much of it: error, warn, info, debug, trace, or a list as in pinfold=debug,warn.
    #[arg(long, value_name = "FILTER", env = "RUST_LOG", global = true, hide_env_values = true)]
    #[arg(value_parser = log_filter)]
    pub log: Option<String>,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

fn log_filter(text: &str) -> Result<String, tracing_subscriber::filter::ParseError> {
    tracing_subscriber::EnvFilter::try_new(text).map(|_| text.to_owned())
}

/// Which daemon a client talks to.
#[derive(Args, Clone, Default, Debug)]
pub(crate) struct RealmArgs {
    /// The realm: the name its daemon was given with `serve --realm`.
    #[arg(
        long,
        value_name = "NAME",
        env = "PINFOLD_REALM",
        default_value = "default",
        hide_env_values = true
    )]
    pub realm: RealmName,

    /// The realm's state directory, if it is not where it is by default: /run/pinfold/NAME, or
    /// $XDG_RUNTIME_DIR/pinfold/NAME for other users than root.
    #[arg(long, value_name = "DIR", env = "PINFOLD_STATE", hide_env_values = true)]
    pub state: Option<PathBuf>,
}

/// A realm's name: a part of file names, so letters, digits, `-`, `_` and `.` only.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RealmName(String);

impl RealmName {
    /// The name as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for RealmName {
    fn default() -> Self {
        Self("default".to_owned())
    }
}

impl std::str::FromStr for RealmName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if text.is_empty() || text.len() > 64 || text.starts_with('.') || !text.chars().all(legal) {
            return Err(
                "a realm's name is 1 to 64 letters, digits, `-`, `_` and `.`, not starting with `.`".into()
            );
        }
        Ok(Self(text.to_owned()))
    }
}

/// How data is printed.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Output {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Every command. The order is that of the help text.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Serve a realm: the daemon.
    ///
    /// It runs until SIGINT, SIGTERM or `pinfold down`; then processes go back to where they came from, and everything
    /// it made is removed. If it is killed instead, the next `serve` of the same realm carries on where it stopped.
    Serve(ServeArgs),
    /// Mount a hierarchy.
    Mount(MountArgs),
    /// Unmount a hierarchy.
    Umount(UmountArgs),
    /// End the daemon: processes go back to where they came from, and nothing is left behind.
    Down(DownArgs),

    /// List the controllers.
    Controllers(ListArgs),
    /// List the hierarchies.
    Hierarchies(ListArgs),
    /// Show groups as trees.
    Tree(TreeArgs),
    /// List the control files of a group and the groups in it.
    Ls(LsArgs),
    /// Show which settings of a group are enforced, and by whom.
    Status(StatusArgs),
    /// List the tasks of a group.
    Tasks(TasksArgs),
    /// List the keys of a group.
    ///
    /// They are names that say what is meant, whatever the control file is called: pids.limit, cpus_number. `get`, `set`, `create`
    /// and `run` take them as well as files' names.
    Keys(GroupArgs),
    /// Print values of a group.
    Get(GetArgs),
    /// Set values of a group.
    ///
    /// Values are set in the order given; the first that is refused ends the command, and those before it stay.
    Set(SetArgs),

    /// Make a group.
    Create(CreateArgs),
    /// Remove a group.
    Rm(RmArgs),
    /// Remove the empty groups below a group.
    ///
    /// Those are the groups that have neither processes nor children, or have none when those below them have gone. Prints
    /// which.
    Prune(PruneArgs),
    /// Move processes into a group.
    Move(MoveArgs),
    /// Give a group to a user, who may then divide it and move processes in.
    Chown(ChownArgs),
    /// Change who may do what with a group, or with values of it.
    Chmod(ChmodArgs),
    /// Kill every process in a group and below.
    Kill(GroupOnlyArgs),
    /// Freeze every process in a group and below.
    Freeze(GroupOnlyArgs),
    /// Thaw a frozen group.
    Thaw(GroupOnlyArgs),

    /// Enter a group, then become a command.
    #[command(after_help = COMMAND_STATUS)]
    Exec(ExecArgs),
    /// Run a command in a new group, and remove the group when the command has ended.
    ///
    /// The new group is a child of the root of every hierarchy or, with KEY=VALUE, of the hierarchies that have these
    /// keys; for others than the host's root, of the group they are in. It is removed when COMMAND has ended, also after a signal; processes that COMMAND leaves behind go to the
    /// root group. Signals are passed on to COMMAND.
    #[command(after_help = COMMAND_STATUS)]
    Run(RunArgs),
    /// Print process events as they happen.
    ///
    /// Those are forks, execs, exits, and changes of user, group, session and name. First come the processes that are there (`found`), then `synced`, then what happens. Numbers are those of the own pid
    /// namespace, and what is not visible there does not appear. What was lost shows as a `gap`; the difference that it made
    /// follows, and `synced` again. Ends on Ctrl-C.
    Events(EventsArgs),
    /// Look at a rules file (see `serve --rules`).
    Rules(RulesArgs),
    /// Write down processes, how they are related, and their groups.
    ///
    /// The file has everything that `restart` needs but memory and open files: programs start anew. The processes are
    /// frozen or stopped meanwhile, and go on afterwards; the shell that waits for this command cannot be among them.
    Capture(CaptureArgs),
    /// Rebuild captured processes with every pid as it was, in their groups.
    ///
    /// All or nothing: if a number is taken, or anything else fails, nothing is left of it. Returns when the processes that
    /// were outermost have ended, with the exit status of the first, or 128+N if signal N killed it; 125 if pinfold failed.
    /// A capture file says what is executed, as whom: trust it as you would a script.
    Restart(RestartArgs),
    /// Show what /proc would show on a machine with cgroup v1.
    Proc(ProcArgs),
    /// Say what this machine has, and what pinfold can do with it.
    Doctor(DoctorArgs),
    /// Print a completion script for a shell.
    Completions(CompletionsArgs),
    /// Print the policy that lets pinfold be at the system bus.
    ///
    /// `serve --system-bus` needs it in /usr/share/dbus-1/system.d/org.pinfold.conf, or in /etc/dbus-1/system.d. It lets root's daemon
    /// have the name and everybody call it: who may do what, the daemon decides.
    BusPolicy,
    /// Write the manual pages.
    Man(ManArgs),
}

/// Arguments of a command that only needs a group.
#[derive(Args, Debug)]
pub(crate) struct GroupOnlyArgs {
    /// Which daemon.
    #[command(flatten)]
    pub realm: RealmArgs,
    /// The group: CONTROLLERS:PATH, or PATH in every hierarchy.
    #[arg(value_name = "GROUP")]
    pub group: pinfold_dbus::GroupName,
}
