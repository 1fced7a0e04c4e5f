//! What a row's functions may look at: the group, its surroundings, and the v2 texts its row asked for.

use pinfold_model::{Forest, GroupId, Settings, Value};

use crate::table::{Counter, Setting};

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
}

/// Texts of v2 files, one for each carrier of the group.
#[derive(Clone, Default, Debug)]
pub struct Texts(Vec<(&'static str, String)>);

impl Texts {
    /// Adds what one carrier's file says.
    pub fn push(&mut self, file: &'static str, text: String) {
        self.0.push((file, text));
    }

    /// What every carrier's file of this name says.
    pub fn of(&self, file: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(name, _)| *name == file).map(|(_, text)| text.as_str())
    }

    /// The sum over carriers of a file that is one number. A text that is no number counts as nothing.
    pub fn sum(&self, file: &str) -> u64 {
        self.of(file).filter_map(|text| text.trim().parse::<u64>().ok()).fold(0, u64::saturating_add)
    }

    /// The largest over carriers of a file that is one number.
    pub fn largest(&self, file: &str) -> u64 {
        self.of(file).filter_map(|text| text.trim().parse().ok()).max().unwrap_or(0)
    }

    /// The sum over carriers of one field of a flat keyed file (`usage_usec 12`).
    pub fn sum_field(&self, file: &str, field: &str) -> u64 {
        self.of(file).filter_map(|text| flat_field(text, field)).fold(0, u64::saturating_add)
    }
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
    pub fn own(&self, setting: &Setting) -> Value {
        self.settings().get(setting.key).unwrap_or(&setting.initial).clone()
    }

    /// The values of a setting in the groups above, nearest first.
    pub fn above(&self, setting: &'static Setting) -> impl Iterator<Item = Value> + use<'a> {
        let forest = self.forest;
        forest.ancestors(self.group).filter_map(move |id| {
            let group = forest.group(id)?;
            Some(group.settings().get(setting.key).unwrap_or(&setting.initial).clone())
        })
    }

    /// A counter's value: the sum over live carriers and what those that went have left, less the last reset.
    pub fn counter(&self, counter: &Counter) -> u64 {
        let live = self.v2.sum_field(counter.v2, counter.field);
        match self.settings().get(counter.key) {
            Some(Value::Offset(offset)) => live.saturating_add_signed(*offset),
            _ => live,
        }
    }
}
