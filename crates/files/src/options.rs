//! The options of a cgroup v1 mount: parsed and checked as far as that takes no look at the hierarchies there are.
//!
//! Source: cgroup1_parse_param(), check_cgroupfs_options(), cgroup1_show_options() of kernel/cgroup/cgroup-v1.c; the split
//! at commas is generic_parse_monolithic()'s. Which hierarchy is meant, and whether it may be made, the model decides.

use std::fmt;

use pinfold_model::{ControllerId, ControllerSet, Errno, HierarchyFlags, HierarchyName, MountRequest};

use crate::lookup::{controller, controller_named, controllers};

/// What a mount asks for, without contradictions in itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MountOptions {
    /// Which hierarchy.
    pub request: MountRequest,
    /// `clone_children`: a new hierarchy's root group starts with this flag set.
    pub clone_children: bool,
    /// `release_agent=PATH`: that of a new hierarchy, or the new one at a remount.
    pub release_agent: Option<String>,
    /// `ro`: nothing is written through this mount.
    pub read_only: bool,
}

/// Why mount options are refused. Linux gives EINVAL for each.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OptionError {
    /// Neither an option nor a controller.
    #[error("{0:?} is neither a mount option nor a controller")]
    Unknown(String),
    /// A controller that the kernel below does not have.
    #[error("controller {0} is not available here")]
    Disabled(&'static str),
    /// A value where none belongs (`all=1`).
    #[error("option {0} takes no value")]
    UnexpectedValue(&'static str),
    /// No value where one belongs (`name`, `name=`).
    #[error("option {0} needs a value")]
    MissingValue(&'static str),
    /// `name=` or `release_agent=` twice.
    #[error("option {0} was given twice")]
    Repeated(&'static str),
    /// A name with a letter that names may not have, or too long.
    #[error("{0:?} cannot name a hierarchy: 1 to 63 letters, digits, dots, hyphens and underscores")]
    BadName(String),
    /// A release agent's path longer than the file `release_agent` takes.
    #[error("a release agent's path has at most 4095 bytes, not {0}")]
    LongAgent(usize),
    /// `all` and a controller.
    #[error("`all` and single controllers exclude each other")]
    AllAndSome,
    /// `none` and controllers.
    #[error("`none` and controllers exclude each other")]
    NoneAndSome,
    /// Neither controllers nor a name (`none` alone).
    #[error("a hierarchy without controllers needs a name: add name=NAME")]
    Nothing,
    /// `noprefix` with another controller than cpuset.
    #[error("`noprefix` goes with no controller but cpuset")]
    Noprefix,
}

impl OptionError {
    /// The errno Linux gives: cgroup1_parse_param(), check_cgroupfs_options().
    pub const fn errno(&self) -> Errno {
        match self {
            Self::Unknown(_)
            | Self::Disabled(_)
            | Self::UnexpectedValue(_)
            | Self::MissingValue(_)
            | Self::Repeated(_)
            | Self::BadName(_)
            | Self::LongAgent(_)
            | Self::AllAndSome
            | Self::NoneAndSome
            | Self::Nothing
            | Self::Noprefix => Errno::EINVAL,
        }
    }
}

/// An option that is a word without a value.
struct Switch {
    word: &'static str,
    apply: fn(&mut Words),
}

/// Words without a value. The first are the file system's own; the others are those of every file system, which the
/// kernel takes here too (vfs_parse_sb_flag()).
///
/// Differs: `favordynmods` makes the kernel's migrations faster at the cost of fork and exit, and is shown in /proc/mounts; here it has no effect.
const SWITCHES: &[Switch] = &[
    Switch { word: "all", apply: |words| words.all = true },
    Switch { word: "none", apply: |words| words.none = true },
    Switch { word: "noprefix", apply: |words| words.flags.noprefix = true },
    Switch { word: "clone_children", apply: |words| words.clone_children = true },
    Switch { word: "cpuset_v2_mode", apply: |words| words.flags.cpuset_v2_mode = true },
    Switch { word: "xattr", apply: |words| words.flags.xattr = true },
    Switch { word: "favordynmods", apply: |_| {} },
    Switch { word: "nofavordynmods", apply: |_| {} },
];

/// Words of every file system; the kernel does not look at a value.
const GENERAL: &[Switch] = &[
    Switch { word: "ro", apply: |words| words.read_only = true },
    Switch { word: "rw", apply: |words| words.read_only = false },
    Switch { word: "sync", apply: |_| {} },
    Switch { word: "async", apply: |_| {} },
    Switch { word: "dirsync", apply: |_| {} },
    Switch { word: "lazytime", apply: |_| {} },
    Switch { word: "nolazytime", apply: |_| {} },
    Switch { word: "mand", apply: |_| {} },
    Switch { word: "nomand", apply: |_| {} },
];

/// The options as they were given.
#[derive(Default)]
struct Words {
    controllers: ControllerSet,
    all: bool,
    none: bool,
    name: Option<HierarchyName>,
    flags: HierarchyFlags,
    clone_children: bool,
    release_agent: Option<String>,
    read_only: bool,
}

impl MountOptions {
    /// Reads the options of mount(2) or mount(8). `enabled`: the controllers that can be mounted here.
    pub fn parse(text: &str, enabled: ControllerSet) -> Result<Self, OptionError> {
        let mut words = Words::default();
        for option in text.split(',') {
            match option.split_once('=') {
                Some(("", _)) => {} // the kernel skips an option without a name
                Some((key, value)) => words.add(key, Some(value), enabled)?,
                None if option.is_empty() => {}
                None => words.add(option, None, enabled)?,
            }
        }
        words.check(enabled)
    }

    /// The options that show what a hierarchy is now, in the kernel's order and escapes, as /proc/mounts has them.
    /// Empty only for a hierarchy that has nothing to show.
    pub fn shown(&self) -> String {
        self.to_string()
    }
}

impl Words {
    fn add(&mut self, key: &str, value: Option<&str>, enabled: ControllerSet) -> Result<(), OptionError> {
        let word = |switches: &'static [Switch]| switches.iter().find(|switch| switch.word == key);
        if let Some(switch) = word(GENERAL) {
            (switch.apply)(self);
        } else if let Some(switch) = word(SWITCHES) {
            if value.is_some() {
                return Err(OptionError::UnexpectedValue(switch.word));
            }
            (switch.apply)(self);
        } else if key == "name" {
            let name = needed("name", value)?;
            let name = HierarchyName::new(name).map_err(|_| OptionError::BadName(start_of(name)))?;
            once("name", &mut self.name, name)?;
        } else if key == "release_agent" {
            let path = needed("release_agent", value)?;
            if path.len() > 4095 {
                return Err(OptionError::LongAgent(path.len()));
            }
            once("release_agent", &mut self.release_agent, path.to_owned())?;
        } else {
            // A value after a controller's name is not looked at.
            let id = controller_named(key).ok_or_else(|| OptionError::Unknown(start_of(key)))?;
            if !enabled.contains(id) {
                return Err(OptionError::Disabled(controller(id).name));
            }
            self.controllers = self.controllers.with(id);
        }
        Ok(())
    }

    /// What the words mean together: check_cgroupfs_options(), in its order.
    fn check(self, enabled: ControllerSet) -> Result<MountOptions, OptionError> {
        let said_nothing = self.controllers.is_empty() && !self.none && self.name.is_none();
        let mut controllers = self.controllers;
        if self.all || said_nothing {
            if !controllers.is_empty() {
                return Err(OptionError::AllAndSome);
            }
            controllers = enabled;
        }
        if controllers.is_empty() && self.name.is_none() {
            return Err(OptionError::Nothing);
        }
        if self.flags.noprefix && controllers.iter().any(|id| controller(id).name != "cpuset") {
            return Err(OptionError::Noprefix);
        }
        if !controllers.is_empty() && self.none {
            return Err(OptionError::NoneAndSome);
        }
        let Self { none, name, flags, clone_children, release_agent, read_only, .. } = self;
        let request = MountRequest { controllers, none, name, flags };
        Ok(MountOptions { request, clone_children, release_agent, read_only })
    }
}

fn needed<'a>(option: &'static str, value: Option<&'a str>) -> Result<&'a str, OptionError> {
    value.filter(|value| !value.is_empty()).ok_or(OptionError::MissingValue(option))
}

fn once<T>(option: &'static str, slot: &mut Option<T>, value: T) -> Result<(), OptionError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(OptionError::Repeated(option)),
    }
}

fn start_of(text: &str) -> String {
    text.chars().take(80).collect()
}

impl fmt::Display for MountOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MountRequest { controllers: bound, name, flags, .. } = &self.request;
        let known = |id: &ControllerId| controllers().contains(*id);
        let mut options: Vec<String> =
            bound.iter().filter(known).map(|id| controller(id).name.to_owned()).collect();
        let mut word = |said: bool, word: &str| options.extend(said.then(|| word.to_owned()));
        word(flags.noprefix, "noprefix");
        word(flags.xattr, "xattr");
        word(flags.cpuset_v2_mode, "cpuset_v2_mode");
        let agent = self.release_agent.iter().filter(|path| !path.is_empty());
        options.extend(agent.map(|path| format!("release_agent={}", escaped(path))));
        options.extend(self.clone_children.then(|| "clone_children".to_owned()));
        options.extend(name.iter().map(|name| format!("name={name}")));
        f.write_str(&options.join(","))
    }
}

/// A value in /proc/mounts: seq_show_option() writes these bytes in octal.
fn escaped(value: &str) -> String {
    let mut text = String::new();
    for c in value.chars() {
        match c {
            ',' | ' ' | '\t' | '\n' | '\\' => text += &format!("\\{:03o}", u32::from(c)),
            c => text.push(c),
        }
    }
    text
}
