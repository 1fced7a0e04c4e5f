//! Figures that only grow, kept by v2 directories that come and go.
//!
//! A group shows what its live directories say, and what those that went have left. What they left is kept with the
//! group's settings, so usage never goes backwards (I6).

use std::fmt;

use pinfold_model::{Key, Settings, Value};

use crate::entries::Entries;
use crate::sight::{Sight, Texts, flat_field, whole};
use crate::table::{Followed, Source};
use crate::values::line;

/// A figure that only grows.
pub struct Counter {
    /// Under which name what gone directories left is kept.
    pub key: Key,
    /// The v2 file that has it.
    pub source: Source,
    /// Where in the file it stands.
    pub field: Field,
    /// How the figures of several directories make one.
    pub fold: Fold,
}

/// Where in a v2 file a figure stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Field {
    /// The file is this one number.
    Whole,
    /// After this word, in a flat keyed file.
    After(&'static str),
    /// Every figure of every entry, in a file that has an entry for each device or resource: they are added one by one.
    Entries,
}

/// How the figures of several directories make one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fold {
    /// They are added. A reset starts from zero again.
    Sum,
    /// The largest since the last reset counts. Where the kernel does not know that, the largest is known again when it passes
    /// what it was before; until then, it is at least the figure at the reset and the present one.
    Peak {
        /// The v2 file that has the present figure.
        now: Source,
        /// What the kernel knows of the largest since the last reset; `None`: nobody resets it.
        since: Option<Source>,
    },
}

impl Counter {
    /// A peak that v2 does not keep: the most that was found at any read, or at the last reset if `now` has the present figure.
    pub(crate) const fn sampled(key: &'static str, now: Source) -> Self {
        Self {
            key: Key(key),
            source: Source::Nowhere,
            field: Field::Whole,
            fold: Fold::Peak { now, since: None },
        }
    }

    /// What the directories say whose texts these are. A text without the figure counts as nothing.
    pub fn live(&self, v2: &Texts) -> u64 {
        let figures = v2.of(self.source).filter_map(|text| match self.field {
            Field::Whole => whole(text),
            Field::After(word) => flat_field(text, word),
            Field::Entries => None,
        });
        match self.fold {
            Fold::Sum => figures.fold(0, u64::saturating_add),
            Fold::Peak { .. } => figures.max().unwrap_or(0),
        }
    }

    /// What the group shows; of a counter of entries, the sum of its figures.
    pub fn value(&self, settings: &Settings, v2: &Texts) -> u64 {
        if self.field == Field::Entries {
            return self.entries(settings, v2).sum();
        }
        let live = self.live(v2);
        match (self.fold, settings.get(self.key)) {
            (Fold::Sum, Some(Value::Offset(offset))) => live.saturating_add_signed(*offset),
            (Fold::Peak { now, since }, Some(Value::Peak { floor, beyond })) => {
                let known = since.into_iter().flat_map(|since| v2.of(since)).filter_map(whole).max();
                let since = if live > *beyond { live } else { v2.sum(now).max(known.unwrap_or(0)) };
                since.max(*floor)
            }
            (Fold::Peak { now, .. }, None) => live.max(v2.sum(now)),
            _ => live,
        }
    }

    /// What the kernel knows of it since it was reset.
    pub const fn since(&self) -> Option<Source> {
        match self.fold {
            Fold::Peak { since, .. } => since,
            Fold::Sum => None,
        }
    }

    /// What the group shows, figure by figure; for a counter of entries.
    pub(crate) fn entries(&self, settings: &Settings, v2: &Texts) -> Entries {
        let mut all = self.left(settings);
        all.add(&self.live_entries(v2));
        all
    }

    fn live_entries(&self, v2: &Texts) -> Entries {
        let mut all = Entries::default();
        v2.of(self.source).for_each(|text| all.add(&Entries::parse(text)));
        all
    }

    /// What directories that went have left, less the last reset.
    fn left(&self, settings: &Settings) -> Entries {
        match settings.get(self.key) {
            Some(Value::Text(text)) => Entries::parse(&String::from_utf8_lossy(text)),
            _ => Entries::default(),
        }
    }

    /// What the group keeps when directories carry it no more whose last texts these are, and others do from now on that
    /// have counted before: `first`. `None`: nothing, it is the initial value.
    pub fn keep(&self, settings: &Settings, last: &Texts, first: &Texts) -> Option<Value> {
        if self.field == Field::Entries {
            let mut all = self.entries(settings, last);
            all.add(&self.live_entries(first).negated());
            return all.kept();
        }
        let value = self.value(settings, last);
        let last = self.live(last);
        let first = self.live(first);
        match self.fold {
            Fold::Sum => {
                let kept = match settings.get(self.key) {
                    Some(Value::Offset(offset)) => *offset,
                    _ => 0,
                };
                offset(kept.saturating_add_unsigned(last).saturating_sub_unsigned(first))
            }
            Fold::Peak { .. } => {
                let beyond = match settings.get(self.key) {
                    Some(Value::Peak { beyond, .. }) => *beyond,
                    _ => 0,
                };
                peak(value, first.max(beyond))
            }
        }
    }

    /// Of two values that a group may keep, the one that shows no less; a peak that was reset in one of them stays so.
    pub fn greater(&self, one: Option<&Value>, other: Option<&Value>) -> Option<Value> {
        let (one, other) = (one.cloned(), other.cloned());
        match (self.fold, self.field) {
            (_, Field::Entries) => {
                let entries = |value: Option<Value>| match value {
                    Some(Value::Text(text)) => Entries::parse(&String::from_utf8_lossy(&text)),
                    _ => Entries::default(),
                };
                entries(one).greatest(&entries(other)).kept()
            }
            (Fold::Sum, _) => {
                let number = |value| if let Some(Value::Offset(number)) = value { number } else { 0 };
                offset(number(one).max(number(other)))
            }
            (Fold::Peak { .. }, _) => {
                let pair = |value| match value {
                    Some(Value::Peak { floor, beyond }) => (floor, beyond),
                    _ => (0, 0),
                };
                let ((floor, beyond), (other, over)) = (pair(one), pair(other));
                peak(floor.max(other), beyond.max(over))
            }
        }
    }

    /// What the group keeps so that the counter starts from zero again, while the directories say this.
    pub fn reset(&self, v2: &Texts) -> Option<Value> {
        if self.field == Field::Entries {
            return self.live_entries(v2).negated().kept();
        }
        match self.fold {
            Fold::Sum => offset(0_i64.saturating_sub_unsigned(self.live(v2))),
            Fold::Peak { now, .. } => peak(v2.sum(now), self.live(v2)),
        }
    }
}

/// The text of a peak that is sampled: no read shows less than one before it since the last reset. `found` is what is known of it now.
pub(crate) fn show_sampled(sight: &Sight<'_>, counter: &Counter, found: u64) -> Followed {
    let most = sight.counter(counter).max(found);
    (line(most), vec![(counter.key, peak(most, 0))])
}

fn peak(floor: u64, beyond: u64) -> Option<Value> {
    ((floor, beyond) != (0, 0)).then_some(Value::Peak { floor, beyond })
}

fn offset(offset: i64) -> Option<Value> {
    (offset != 0).then_some(Value::Offset(offset))
}

impl PartialEq for Counter {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key // keys are unique in the tables: a test walks them
    }
}

impl Eq for Counter {}

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Counter({})", self.key.0)
    }
}
