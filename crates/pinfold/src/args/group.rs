//! Arguments of the commands on groups.

use clap::Args;
use pinfold_dbus::GroupName;

use super::{Output, Owner, RealmArgs};

/// `status`: a group, and data to print.
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
    #[arg(short, long)]
    pub parents: bool,
    /// The group: CONTROLLERS:PATH, or PATH in every hierarchy.
    #[arg(value_name = "GROUP")]
    pub group: GroupName,
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
    /// The group: CONTROLLERS:PATH, or PATH in every hierarchy that has it.
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
