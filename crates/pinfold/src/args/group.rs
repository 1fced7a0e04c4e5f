//! Arguments of the commands on groups.

use clap::Args;
use pinfold_dbus::GroupName;

use super::{Assignment, Key, Mode, Output, Owner, RealmArgs};

/// `status`.
#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    /// The group, and how to print.
    #[command(flatten)]
    pub group: GroupArgs,
    /// What `pinfold set` gives a new group, in this order, so that it has the settings of this one: FILE=TEXT, one a line.
    #[arg(long)]
    pub writes: bool,
}

/// `status` and `keys`: a group, and data to print.
#[derive(Args, Debug)]
pub(crate) struct GroupArgs {
    /// Which daemon.
    #[command(flatten)]
    pub realm: RealmArgs,
    /// How to print.
    #[command(flatten)]
    pub output: Output,
    /// The group: CONTROLLERS:PATH, or PATH in every hierarchy.
    #[arg(value_name = "GROUP")]
    pub group: GroupName,
}

/// `tree`.
#[derive(Args, Debug)]
pub(crate) struct TreeArgs {
    /// Which daemon.
    #[command(flatten)]
    pub realm: RealmArgs,
    /// How to print.
    #[command(flatten)]
    pub output: Output,
    /// Where to start: CONTROLLERS:PATH, or PATH in every hierarchy.
    #[arg(value_name = "GROUP", default_value = "/")]
    pub group: GroupName,
}

/// `ls`.
#[derive(Args, Debug)]
pub(crate) struct LsArgs {
    /// Which daemon.
    #[command(flatten)]
    pub realm: RealmArgs,
    /// How to print.
    #[command(flatten)]
    pub output: Output,
    /// Show modes and owners.
    #[arg(short, long)]
    pub long: bool,
    /// The group: CONTROLLERS:PATH, or PATH in every hierarchy.
    #[arg(value_name = "GROUP", default_value = "/")]
    pub group: GroupName,
}

/// `create`.
#[derive(Args, Debug)]
pub(crate) struct CreateArgs {
    /// Which daemon.
    #[command(flatten)]
    pub realm: RealmArgs,
    /// Make the groups above it too, and do not mind if it is there already.
    #[arg(short, long, conflicts_with = "values")]
    pub parents: bool,
    /// The group: CONTROLLERS:PATH, or PATH in every hierarchy.
    #[arg(value_name = "GROUP")]
    pub group: GroupName,
    /// Values to set in it, as in pids.max=100: if one is refused, the group is not made either.
    #[arg(value_name = "KEY=VALUE")]
    pub values: Vec<Assignment>,
}

/// `rm`.
#[derive(Args, Debug)]
pub(crate) struct RmArgs {
    /// Which daemon.
    #[command(flatten)]
    pub realm: RealmArgs,
    /// Remove the groups below it too; their processes go to the group above it.
    #[arg(short, long)]
    pub recursive: bool,
    /// Remove it when its last process and its last child have gone, and not now: it may have some.
    #[arg(long, conflicts_with = "recursive")]
    pub when_empty: bool,
    /// The group: CONTROLLERS:PATH, or PATH in every hierarchy that has it.
    #[arg(value_name = "GROUP")]
    pub group: GroupName,
}

/// `prune`.
#[derive(Args, Debug)]
pub(crate) struct PruneArgs {
    /// Which daemon.
    #[command(flatten)]
    pub realm: RealmArgs,
    /// How to print.
    #[command(flatten)]
    pub output: Output,
    /// Below which group: CONTROLLERS:PATH, or PATH in every hierarchy that has it. It stays itself.
    #[arg(value_name = "GROUP")]
    pub group: GroupName,
}

/// `chown`.
#[derive(Args, Debug)]
pub(crate) struct ChownArgs {
    /// Which daemon.
    #[command(flatten)]
    pub realm: RealmArgs,
    /// The new owner: USER, USER:GROUP or :GROUP, by name or number.
    #[arg(value_name = "USER[:GROUP]")]
    pub owner: Owner,
    /// The group: CONTROLLERS:PATH, or PATH in every hierarchy that has it.
    #[arg(value_name = "GROUP")]
    pub group: GroupName,
}

/// `chmod`.
#[derive(Args, Debug)]
pub(crate) struct ChmodArgs {
    /// Which daemon.
    #[command(flatten)]
    pub realm: RealmArgs,
    /// The new mode, in octal: 755, 0640.
    #[arg(value_name = "MODE")]
    pub mode: Mode,
    /// The group: CONTROLLERS:PATH, or PATH in every hierarchy that has it.
    #[arg(value_name = "GROUP")]
    pub group: GroupName,
    /// Keys or control files whose mode is changed, instead of the group's own: one after the other, until one is refused.
    #[arg(value_name = "KEY")]
    pub keys: Vec<Key>,
}
