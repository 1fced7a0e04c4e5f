//! From names to rows and back: everything that is derived from the tables by searching them.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::num::NonZeroU16;

use pinfold_model::{ControllerId, ControllerSet, Settings};

use crate::counter::{Counter, Fold};
use crate::memory::UNDER_OOM;
use crate::sight::{Facts, Sight};
use crate::table::{Birth, Controller, File, Inherit, Setting, Source};
use crate::write::AttachRefusal;
use crate::{ALL, CORE};

/// An interface file: a row of [`CORE`] or of a controller's table. Counted from 1 over all tables, below 4096; the
/// number holds while the daemon runs, not from one build to the next.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct FileId(NonZeroU16);

impl FileId {
    /// The file with this number; `None` if there is none.
    pub fn new(number: u16) -> Option<Self> {
        let id = NonZeroU16::new(number)?;
        (usize::from(number) <= tables().map(|table| table.files.len()).sum()).then_some(Self(id))
    }

    /// Its number.
    pub const fn get(self) -> u16 {
        self.0.get()
    }

    /// The row at this index, counted over all tables.
    fn at(index: usize) -> Self {
        let number = u16::try_from(index + 1).ok().and_then(NonZeroU16::new);
        Self(number.expect("the tables have fewer than 4096 rows: a test counts them"))
    }
}

/// What the names of core files start with, and of controllers' files that have no prefix of their own.
const UNPREFIXED: &str = "cgroup.";

/// Every table: the core files, then the controllers.
fn tables() -> impl Iterator<Item = &'static Controller> {
    std::iter::once(&CORE).chain(ALL)
}

/// The ids of a table's rows: where it starts.
fn start_of(table: &'static Controller) -> usize {
    tables().take_while(|other| !std::ptr::eq(*other, table)).map(|other| other.files.len()).sum()
}

fn ids_of(table: &'static Controller) -> impl Iterator<Item = (FileId, &'static File)> {
    let start = start_of(table);
    table.files.iter().enumerate().map(move |(row, file)| (FileId::at(start + row), file))
}

/// The table and the row of a file.
pub fn file(id: FileId) -> (&'static Controller, &'static File) {
    let mut row = usize::from(id.get()) - 1;
    for table in tables() {
        match table.files.get(row) {
            Some(file) => return (table, file),
            None => row -= table.files.len(),
        }
    }
    unreachable!("a FileId is made for a row that exists")
}

/// Every file of every table: the core files, then the controllers'.
pub fn files() -> impl Iterator<Item = FileId> {
    tables().flat_map(ids_of).map(|(id, _)| id)
}

/// Every controller there is.
pub fn controllers() -> ControllerSet {
    (0..).zip(ALL).map(|(position, _)| ControllerId::new(position)).collect()
}

/// The table of a controller.
///
/// # Panics
/// If the id is not one of [`controllers`].
pub fn controller(id: ControllerId) -> &'static Controller {
    ALL[id.index()]
}

/// The controller of this name.
pub fn controller_named(name: &str) -> Option<ControllerId> {
    controllers().iter().find(|id| controller(*id).name == name)
}

/// The file of this name in a group of a hierarchy with these controllers.
pub fn lookup(
    bound: ControllerSet,
    noprefix: bool,
    is_root: bool,
    facts: &Facts,
    name: &OsStr,
) -> Option<FileId> {
    let name = name.as_encoded_bytes(); // on Unix, the bytes as they are
    let find_in = |table, name| find_in(table, is_root, facts, name);
    let core = find_in(&CORE, name);
    if core.is_some() {
        return core;
    }
    let mut bound = bound.iter().map(controller);
    if noprefix {
        return bound.find_map(|table| find_in(table, name));
    }
    if name.starts_with(UNPREFIXED.as_bytes()) {
        return bound.find_map(|table| find_in(table, name));
    }
    let dot = name.iter().position(|byte| *byte == b'.')?;
    let (prefix, name) = (&name[..dot], &name[dot + 1..]);
    find_in(bound.find(|table| table.name.as_bytes() == prefix)?, name)
}

fn find_in(table: &'static Controller, is_root: bool, facts: &Facts, name: &[u8]) -> Option<FileId> {
    let is_it = |file: &File| file.name.as_bytes() == name && file.exists_in(is_root, facts);
    let row = table.files.iter().position(is_it)?;
    Some(FileId::at(start_of(table) + row))
}

/// The file of this full name (`pids.max`), in whichever groups it exists.
pub fn named(name: &str) -> Option<FileId> {
    files().find(|id| full_name(*id, false) == name)
}

/// The files of a group of a hierarchy with these controllers: core files first, in the kernel's order.
pub fn list(bound: ControllerSet, is_root: bool, facts: &Facts) -> impl Iterator<Item = FileId> {
    let tables = std::iter::once(&CORE).chain(bound.iter().map(controller).collect::<Vec<_>>());
    tables.flat_map(ids_of).filter(move |(_, file)| file.exists_in(is_root, facts)).map(|(id, _)| id)
}

/// A file's name in a group's directory: cgroup_file_name().
pub fn full_name(id: FileId, noprefix: bool) -> Cow<'static, str> {
    let (table, file) = file(id);
    name_of(table, file, noprefix)
}

pub(crate) fn name_of(table: &Controller, file: &File, noprefix: bool) -> Cow<'static, str> {
    if noprefix || table.name.is_empty() || file.name.starts_with(UNPREFIXED) {
        Cow::Borrowed(file.name)
    } else {
        Cow::Owned(format!("{}.{}", table.name, file.name))
    }
}

/// Settings that no file shows by itself: what pinfold notes of a group, with the controller that it is about.
const NOTED: [(&str, &Setting); 1] = [("memory", &UNDER_OOM)];

/// Every setting of the core files and of these controllers, each once.
pub fn settings(bound: ControllerSet) -> impl Iterator<Item = &'static Setting> {
    let mut seen = Vec::new();
    let tables = std::iter::once(&CORE).chain(bound.iter().map(controller).collect::<Vec<_>>());
    let noted =
        NOTED.iter().filter(move |(name, _)| controller_named(name).is_some_and(|id| bound.contains(id)));
    let kept = tables.flat_map(|table| table.files).filter_map(|file| file.setting);
    kept.chain(noted.map(|(_, setting)| *setting)).filter(move |setting| {
        let new = !seen.contains(&setting.key);
        seen.push(setting.key);
        new
    })
}

/// What a new group starts with, made below the one that is seen: only what differs from the initial values.
pub fn inherited(bound: ControllerSet, parent: &Sight<'_>, birth: Birth) -> Settings {
    let mut child = Settings::NONE;
    for setting in settings(bound) {
        let value = match setting.inherit {
            Inherit::Initial => continue,
            Inherit::Parent => parent.own(setting).clone(),
            Inherit::Derived { from, .. } => from(parent, birth),
        };
        child.replace(setting.key, (value != setting.initial).then_some(value));
    }
    child
}

/// Whether these controllers let a process into the group that is seen.
pub fn may_enter(bound: ControllerSet, sight: &Sight<'_>) -> Result<(), AttachRefusal> {
    bound.iter().try_for_each(|id| (controller(id).can_attach)(sight))
}

/// The setting kept under this name.
pub fn setting_by_key(key: &str) -> Option<&'static Setting> {
    tables()
        .flat_map(|table| table.files)
        .filter_map(|file| file.setting)
        .chain(NOTED.iter().map(|(_, setting)| *setting))
        .find(|setting| setting.key.0 == key)
}

/// Every counter of these controllers.
pub fn counters(bound: ControllerSet) -> impl Iterator<Item = &'static Counter> {
    bound.iter().collect::<Vec<_>>().into_iter().flat_map(|id| controller(id).counters).copied()
}

/// The v2 files that these counters are read from, each once: several counters may share a file, and a text that is
/// read twice counts twice.
pub fn sources<'a>(counters: impl IntoIterator<Item = &'a Counter>) -> Vec<Source> {
    let mut sources = Vec::new();
    for counter in counters {
        let now = match counter.fold {
            Fold::Peak { now, .. } => Some(now),
            Fold::Sum => None,
        };
        for source in std::iter::once(counter.source).chain(now).chain(counter.since()) {
            if !sources.contains(&source) {
                sources.push(source);
            }
        }
    }
    sources
}

/// The counter whose kept part has this name.
pub fn counter_by_key(key: &str) -> Option<&'static Counter> {
    tables().flat_map(|table| table.counters).copied().find(|counter| counter.key.0 == key)
}
