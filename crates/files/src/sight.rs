//! What a row's functions may look at: the group, its surroundings, and the v2 texts its row asked for.

use std::collections::BTreeSet;

use pinfold_model::{Forest, GroupId, Settings, Value};

use crate::counter::Counter;
use crate::entries::Entries;
use crate::table::{Setting, Source};

/// The view of one group that a row's `show` and parser get. Everything in it is a value: no I/O happens behind it.
pub struct Sight<'a> {
    /// All hierarchies.
    pub forest: &'a Forest,
    /// The group whose file is used.
    pub group: GroupId,
    /// The v2 files that the row asked for.
    pub v2: &'a Texts,
    /// What is fixed while the daemon runs.
    pub facts: &'a Facts,
}

/// Constants of the machine below.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// Ticks a second in `cpuacct.stat`: sysconf(_SC_CLK_TCK).
    pub user_hz: u64,
    /// How many CPUs could ever be there: /sys/devices/system/cpu/possible.
    pub possible_cpus: usize,
    /// Which of them are there now: /sys/devices/system/cpu/online.
    pub online_cpus: Vec<usize>,
    /// The CPUs that a root group has: those of the directory that pinfold works below.
    pub cpus: Vec<usize>,
    /// The memory nodes that a root group has.
    pub mems: Vec<usize>,
    /// Bytes in a page.
    pub page_size: u64,
    /// Which Linux is below: the first two numbers of its release.
    pub linux: (u32, u32),
    /// The NUMA nodes that have memory: /sys/devices/system/node/has_memory.
    pub nodes: Vec<usize>,
    /// The files that a v2 directory of the realm has, and that say what no other says better.
    pub v2_files: BTreeSet<String>,
}

/// Texts of the v2 files that a row's sources name, one for each directory that has the file.
#[derive(Clone, Default, Debug)]
pub struct Texts(Vec<(Source, String)>);

impl Texts {
    /// Adds what one directory's file says.
    pub fn push(&mut self, source: Source, text: String) {
        self.0.push((source, text));
    }

    /// What was added for a source is another's, too.
    pub fn repeat(&mut self, of: Source, source: Source) {
        let same: Vec<_> = self.of(of).map(|text| (source, text.to_owned())).collect();
        self.0.extend(same);
    }

    /// What every directory's file says.
    pub fn of(&self, source: Source) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(from, _)| *from == source).map(|(_, text)| text.as_str())
    }

    /// The sum over directories of a flat keyed file's figure. A text without it counts as nothing.
    pub fn sum_of(&self, source: Source, field: &str) -> u64 {
        self.of(source).filter_map(|text| flat_field(text, field)).fold(0, u64::saturating_add)
    }

    /// The sum over directories of a file that is one number. A text that is no number counts as nothing.
    pub fn sum(&self, source: Source) -> u64 {
        self.of(source).filter_map(whole).fold(0, u64::saturating_add)
    }
}

/// A text that is one number, and a newline.
pub(crate) fn whole(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The number after `field` in a flat keyed text; `None` if the kernel does not say it.
pub fn flat_field(text: &str, field: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(' ')?.trim().parse().ok())
}

impl<'a> Sight<'a> {
    /// The settings of this group.
    pub fn settings(&self) -> &'a Settings {
        self.forest.group(self.group).map_or(const { &Settings::NONE }, |group| group.settings())
    }

    /// Whether the group is its hierarchy's root.
    pub fn is_root(&self) -> bool {
        self.forest.group(self.group).is_some_and(|group| group.parent().is_none())
    }

    /// This group's own value of a setting.
    pub fn own(&self, setting: &'a Setting) -> &'a Value {
        setting.in_group(self.forest, self.group)
    }

    /// This group's own value of an on-or-off setting.
    pub fn flag(&self, setting: &'a Setting) -> bool {
        *self.own(setting) == Value::Flag(true)
    }

    /// The values of a setting in the groups above, nearest first.
    pub fn above(&self, setting: &'a Setting) -> impl Iterator<Item = &'a Value> {
        let forest = self.forest;
        forest.ancestors(self.group).map(move |id| setting.in_group(forest, id))
    }

    /// The figures of a counter of entries, likewise.
    pub(crate) fn entries(&self, counter: &Counter) -> Entries {
        counter.entries(self.settings(), self.v2)
    }

    /// A counter's value: what the live directories say and what those that went have left, less the last reset.
    pub fn counter(&self, counter: &Counter) -> u64 {
        counter.value(self.settings(), self.v2)
    }
}
