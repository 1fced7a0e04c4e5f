//! Arguments of the daemon and of mounting.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use pinfold_model::GroupLimits;

use super::{MountSpec, RealmArgs};

/// `serve`.
#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// Which realm to serve.
    #[command(flatten)]
    pub realm: RealmArgs,
    /// The v2 directory to work in, instead of the v2 root: a container's, or a unit's with Delegate=yes.
    #[arg(long, value_name = "DIR")]
    pub base: Option<PathBuf>,
    /// What keeps processes in their groups: the kernel's v2 tree (cgroup2), or a table that forks and exits keep (events),
    /// which needs no v2 tree and no privilege, and offers freezer, cpuset, cpuacct and pids from user space. auto: cgroup2
    /// where a v2 tree can be written.
    #[arg(long, value_name = "TRACKER", value_enum, default_value_t = TrackerChoice::Auto)]
    pub tracker: TrackerChoice,
    /// Refuse what the kernel would not enforce as one, as v1 does (EBUSY): limits that would have to be divided, where groups
    /// of several hierarchies cross, and values that `pinfold status` does not call native
    #[arg(long)]
    pub strict: bool,
    /// Mount a hierarchy: mount options, a colon, and where. DIR is made if it is missing. May be repeated.
    #[arg(long = "mount", value_name = "OPTS:DIR")]
    pub mounts: Vec<MountSpec>,
    /// Take process events from the pinfold whose socket is in this directory, not from the kernel: in a container, the
    /// host's public directory (its state directory's name and .public), mounted there.
    #[arg(long, value_name = "DIR")]
    pub outer: Option<PathBuf>,
    /// Serve the clients of cgmanager too, at cgmanager's own socket or at another, whose directory must be there.
    ///
    /// That is /sys/fs/cgroup/cgmanager/sock where /sys/fs/cgroup is a tmpfs that can be written, else /run/cgmanager/sock.
    /// See docs/cgmanager.md.
    #[arg(long, value_name = "SOCKET", num_args = 0..=1, require_equals = true)]
    pub cgmanager: Option<Option<PathBuf>>,
    /// Serve process events and nothing else, at the public socket: no hierarchies, no v2 tree, no privilege needed.
    #[arg(long, conflicts_with_all = ["base", "mounts", "rules", "system_bus", "cgmanager", "tracker"])]
    pub events_only: bool,
    /// Move processes to groups by the rules of this file: those that are there at the start, and others when they execute a
    /// program or change their user or group. SIGHUP has it read again. The form: docs/rules.md.
    #[arg(long, value_name = "FILE")]
    pub rules: Option<PathBuf>,
    /// Answer at the system bus too, as org.pinfold, by the same rules. Its policy must allow that: see `pinfold bus-policy`.
    #[arg(long)]
    pub system_bus: bool,
    /// At a system bus that has no pidfds of its callers (dbus before 1.15.8, Linux before 6.5), take who calls for the process
    /// that has its number and its user by then. Without this they are refused: a user's process that connects and ends
    /// leaves its connection to others, who can wait until the number is another process's of that user.
    #[arg(long, requires = "system_bus")]
    pub callers_by_number: bool,
    /// How many groups users may make.
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// `--tracker`.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TrackerChoice {
    /// What the machine has.
    Auto,
    /// The kernel's v2 tree.
    Cgroup2,
    /// Process events.
    Events,
}

/// How many groups users may make who are neither root nor whom the daemon runs as, and what they keep with them.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct LimitArgs {
    /// The most groups that one user makes. Root, and whom the daemon runs as, are held to no limit.
    #[arg(long, value_name = "N", default_value_t = GroupLimits::DEFAULT.per_user)]
    pub max_groups_of_user: u32,
    /// The most groups below one that was given to a user.
    #[arg(long, value_name = "N", default_value_t = GroupLimits::DEFAULT.below)]
    pub max_groups_below: u32,
    /// How deep below the root users may make groups.
    #[arg(long, value_name = "N", default_value_t = GroupLimits::DEFAULT.depth)]
    pub max_depth: u32,
    /// The most that the extended attributes of all groups take together that one user has made, and those of a group that was given to
    /// a user with all below it.
    #[arg(long, value_name = "BYTES", default_value_t = GroupLimits::DEFAULT.attributes)]
    pub max_attributes: u64,
}

impl From<LimitArgs> for GroupLimits {
    fn from(args: LimitArgs) -> Self {
        Self {
            per_user: args.max_groups_of_user,
            below: args.max_groups_below,
            depth: args.max_depth,
            attributes: args.max_attributes,
        }
    }
}

/// `mount`.
#[derive(Args, Debug)]
pub(crate) struct MountArgs {
    /// Which daemon.
    #[command(flatten)]
    pub realm: RealmArgs,
    /// Mount options, as of cgroup v1: all, none, name=NAME, controllers, noprefix, clone_children, xattr,
    /// release_agent=PATH.
    #[arg(short, long, value_name = "OPTS")]
    pub options: String,
    /// Where: a directory.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

/// `umount`.
#[derive(Args, Debug)]
pub(crate) struct UmountArgs {
    /// Which directory.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Detach it now, and end it when it is no longer used.
    #[arg(short, long)]
    pub lazy: bool,
}

/// `down`.
#[derive(Args, Debug)]
pub(crate) struct DownArgs {
    /// Which daemon.
    #[command(flatten)]
    pub realm: RealmArgs,
}

/// `rules`.
#[derive(Args, Debug)]
pub(crate) struct RulesArgs {
    /// What to do with it.
    #[command(subcommand)]
    pub command: RulesCommand,
}

/// What is done with a rules file.
#[derive(Subcommand, Debug)]
pub(crate) enum RulesCommand {
    /// Say whether the file can be used; if not, what is wrong, and in which line.
    Check {
        /// The file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}
