//! The form of a controller's table: one row declares one interface file, and everything else is derived.
//!
//! Lookup, listing, mode bits, write dispatch, D-Bus keys, the CLI's completion and `docs/files/*.md` all read these
//! rows. Adding a file is one row and its functions; adding a controller is one module and one line in [`crate::ALL`].

use pinfold_model::{Key, Limit, Value};

use crate::sight::Sight;
use crate::write::WriteError;

/// A v1 controller: a file name prefix, its interface files, and what it takes from the kernel below.
#[doc(alias = "cgroup_subsys")]
pub struct Controller {
    /// The name in mount options and before the dot in file names. Empty for the core files.
    pub name: &'static str,
    /// One sentence: what it is for.
    pub about: &'static str,
    /// The document and the kernel source file it follows.
    pub source: &'static str,
    /// What the kernel below must have for this controller to be mountable.
    pub needs: Needs,
    /// Its interface files.
    pub files: &'static [File],
    /// Its figures that only grow; a v2 directory that goes leaves them to the groups it carried (I6).
    pub counters: &'static [&'static Counter],
}

/// What a controller needs of the v2 tree below.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Needs {
    /// Nothing but v2 itself.
    Tree,
    /// This controller in `cgroup.controllers` of the base.
    Controller(&'static str),
}

/// One interface file.
pub struct File {
    /// The name without the controller's prefix.
    pub name: &'static str,
    /// In which groups it exists.
    pub place: Place,
    /// What its numbers count.
    pub unit: Unit,
    /// How it is read.
    pub read: Read,
    /// How it is written.
    pub write: Write,
    /// The setting it keeps, if it keeps one.
    pub setting: Option<&'static Setting>,
    /// The kernel functions that read and write it.
    pub function: &'static str,
    /// What it means, for the documentation: a sentence or two.
    pub about: &'static str,
    /// The errors of a write, for the documentation (`EINVAL: not a number`). Empty if it is not written.
    pub errors: &'static str,
    /// How it is done on v2, for the documentation.
    pub v2: &'static str,
    /// What differs from the kernel's v1; empty if nothing does.
    pub differs: &'static str,
    /// Whether a fresh group's value reads and writes back unchanged; tests walk the table and hold it to this.
    pub round_trip: RoundTrip,
}

/// In which groups of a hierarchy a file exists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// In all.
    Everywhere,
    /// In the root group only (CFTYPE_ONLY_ON_ROOT).
    RootOnly,
    /// In all but the root group (CFTYPE_NOT_ON_ROOT).
    BelowRoot,
}

/// What a file's numbers count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names are units")]
pub enum Unit {
    Tasks,
    Processes,
    Events,
    Nanoseconds,
    /// Ticks of USER_HZ (100 a second).
    Ticks,
    Bytes,
    Flag,
    Path,
    /// One of a few words.
    State,
}

/// Which ids a membership file lists and takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ids {
    /// Every thread (`tasks`).
    Tasks,
    /// Every process (`cgroup.procs`).
    Processes,
}

/// How a file is read.
pub enum Read {
    /// Not at all: EINVAL.
    Refused,
    /// The ids of the group's members, in the reader's pid namespace.
    Members(Ids),
    /// Text made from what the group keeps and from v2 files of its carriers.
    Shown {
        /// The v2 files wanted (`cpu.stat`), each from every carrier of the group.
        from: &'static [&'static str],
        /// Makes the text, with its final newline.
        show: fn(&Sight<'_>) -> String,
    },
}

/// How a file is written.
pub enum Write {
    /// Not at all: EINVAL.
    Refused,
    /// The id of a task or process to attach.
    Attach(Ids),
    /// Parsed into a change.
    Parsed(fn(&Sight<'_>, &[u8]) -> Result<Change, WriteError>),
}

/// What an accepted write asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// Nothing: the value is accepted and has no effect.
    Nothing,
    /// The row's setting takes this value.
    Keep(Value),
    /// The row's counters start again from zero.
    Reset(&'static [&'static Counter]),
}

/// A value that a group keeps.
pub struct Setting {
    /// Under which name, in memory and in the state directory.
    pub key: Key,
    /// What a group has that never kept another.
    pub initial: Value,
    /// What a new child starts with.
    pub inherit: Inherit,
    /// Who enforces it.
    pub carry: Carry,
}

/// What a new group's setting starts with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Inherit {
    /// The initial value.
    Initial,
    /// The parent's value at that moment.
    Parent,
}

/// Who gives a setting its effect.
#[derive(Clone, Copy)]
pub enum Carry {
    /// pinfold itself does what the setting says.
    UserSpace,
    /// Nobody: the value is kept and shown, for the reason given (I7).
    Inert(&'static str),
    /// The kernel, along the v2 tree: one directory must hold exactly the group's processes and those below.
    Limit {
        /// The v2 file.
        v2: &'static str,
        /// The text to write there.
        show: fn(&Value) -> String,
    },
    /// The kernel, in every directory that holds processes of the group; the same value in each.
    Everywhere {
        /// The v2 file.
        v2: &'static str,
        /// The text to write there.
        show: fn(&Value) -> String,
        /// What holds in a group, from its parent's effective value and its own.
        combine: fn(above: &Value, own: &Value) -> Value,
    },
}

/// A figure that only grows, kept by v2 directories that come and go.
pub struct Counter {
    /// Under which name its [`Value::Offset`] is kept.
    pub key: Key,
    /// The v2 file that has it.
    pub v2: &'static str,
    /// The line's first word in a flat keyed file.
    pub field: &'static str,
}

/// How the table-walking tests treat a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RoundTrip {
    /// What a fresh group shows can be written back, and reads the same.
    Exact,
    /// It is not read, not written, or it lists members: nothing to write back.
    NotApplicable,
    /// Writing back what it shows is refused, as the kernel does (`cpuacct.usage` takes only 0).
    Refused,
    /// Any text is taken (failure counters): junk is no error here.
    TakesAnything,
}

impl File {
    /// Permission bits of a new group's file: cgroup_file_mode().
    pub const fn mode(&self) -> u16 {
        let read = if matches!(self.read, Read::Refused) { 0 } else { 0o444 };
        let write = if matches!(self.write, Write::Refused) { 0 } else { 0o200 };
        read | write
    }

    /// Whether a group has this file.
    pub const fn exists_in(&self, is_root: bool) -> bool {
        match self.place {
            Place::Everywhere => true,
            Place::RootOnly => is_root,
            Place::BelowRoot => !is_root,
        }
    }
}

/// Shows a limit as both v2 and the pids controller write it.
pub(crate) fn show_limit(limit: Limit) -> String {
    match limit {
        Limit::Max => "max".to_owned(),
        Limit::At(n) => n.to_string(),
    }
}
