//! `KEY=VALUE`, `OPTS:DIR` and `USER:GROUP`, and the commands that take values.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use pinfold_dbus::GroupName;

use super::{Output, RealmArgs};

/// `get`.
#[derive(Args, Debug)]
pub(crate) struct GetArgs {
    /// Which daemon.
    #[command(flatten)]
    pub realm: RealmArgs,
    /// How to print.
    #[command(flatten)]
    pub output: Output,
    /// The group: CONTROLLERS:PATH, or PATH in every hierarchy.
    #[arg(value_name = "GROUP")]
    pub group: GroupName,
    /// Which values: keys, as in pids.limit (`pinfold keys` lists them), or names of control files, as in pids.max.
    #[arg(value_name = "KEY", required = true)]
    pub keys: Vec<Key>,
}

/// `set`.
#[derive(Args, Debug)]
pub(crate) struct SetArgs {
    /// Which daemon.
    #[command(flatten)]
    pub realm: RealmArgs,
    /// The group: CONTROLLERS:PATH, or PATH in every hierarchy.
    #[arg(value_name = "GROUP")]
    pub group: GroupName,
    /// What to set, as in pids.limit=100: a key (`pinfold keys` lists them) or the name of a control file.
    #[arg(value_name = "KEY=VALUE", required = true)]
    pub values: Vec<Assignment>,
}

/// A key, or the name of a control file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Key(String);

impl Key {
    /// The name as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Key {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.contains(['/', '=', '\n', '\0']) {
            return Err(
                "a key is a word as pids.limit, or the name of a control file, as in pids.max".to_owned()
            );
        }
        Ok(Self(text.to_owned()))
    }
}

/// `KEY=VALUE`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Assignment {
    /// Which control file.
    pub key: Key,
    /// What to write to it.
    pub value: String,
}

impl FromStr for Assignment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').ok_or("no `=`: write KEY=VALUE, as in pids.max=100")?;
        Ok(Self { key: key.parse()?, value: value.to_owned() })
    }
}

/// Permission bits, in octal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mode(pub u32);

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let octal = text.len() <= 4 && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
        let mode = u32::from_str_radix(text, 8).ok().filter(|_| octal);
        mode.map(Self).ok_or_else(|| "a mode is up to four octal digits, as in 755".to_owned())
    }
}

/// `OPTS:DIR`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct MountSpec {
    /// The mount options.
    pub options: String,
    /// The mount point.
    pub dir: PathBuf,
}

impl FromStr for MountSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (options, dir) = text.split_once(':').ok_or("no `:`: write OPTS:DIR, as in all:/tmp/cgroup")?;
        if options.is_empty() {
            return Err("no options before the colon: write OPTS:DIR, as in all:/tmp/cgroup".to_owned());
        }
        if dir.is_empty() {
            return Err("no directory after the colon: write OPTS:DIR, as in all:/tmp/cgroup".to_owned());
        }
        Ok(Self { options: options.to_owned(), dir: dir.into() })
    }
}

/// `USER[:GROUP]` or `:GROUP`; which ids they are is found out later.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Owner {
    /// The user, by name or number.
    pub user: Option<String>,
    /// The group of users, by name or number.
    pub group: Option<String>,
}

impl FromStr for Owner {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let named = |part: &str| (!part.is_empty()).then(|| part.to_owned());
        let owner = Self { user: named(user), group: group.and_then(named) };
        if owner.user.is_none() && owner.group.is_none() {
            return Err("write USER, USER:GROUP or :GROUP".to_owned());
        }
        Ok(owner)
    }
}
