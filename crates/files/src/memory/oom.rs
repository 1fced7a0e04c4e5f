//! `memory.oom_control`: what happens when a limit is met and nothing can be reclaimed.
//!
//! v2 always kills. A group that is told not to (`oom_kill_disable`) gets its limit as `memory.high`, above which v2 slows
//! down and kills nobody, and a `memory.max` some way above it. Who goes on nevertheless is frozen until there is room
//! (`under_oom`); that is the realm's doing.

use pinfold_model::{GroupId, Key, Settings, Value};

use super::LIMIT;
use crate::counter::{Counter, Field, Fold};
use crate::division::{Amount, Division, Figure, Pressed, Used};
use crate::sight::{Sight, flat_field, whole};
use crate::table::{Carry, Change, Inherit, Setting, Share, Source, V2Write};
use crate::values::{bound, v2_limit};
use crate::write::{WriteError, below_root, parse_u64};

/// Whether processes wait for memory, rather than one of them being killed.
pub static OOM_KILL_DISABLE: Setting = Setting {
    key: Key("memory.oom_control"),
    initial: Value::Flag(false),
    inherit: Inherit::Parent,
    carry: Carry::Limit(&[MAX, HIGH]),
};

/// Whether they wait now. Nobody writes it: pinfold notes it, so that a daemon that was killed does not leave them frozen.
pub static UNDER_OOM: Setting = Setting {
    key: Key("memory.oom_control.under_oom"),
    initial: Value::Flag(false),
    inherit: Inherit::Initial,
    carry: Carry::UserSpace,
};

pub(super) static OOM_KILL: Counter = Counter {
    key: Key("memory.oom_control.oom_kill"),
    source: Source::Own("memory.events"),
    field: Field::After("oom_kill"),
    fold: Fold::Sum,
};

/// The limit, or what is above it for those who are about to wait.
pub(super) const MAX: V2Write = V2Write {
    file: "memory.max",
    text: |settings| Some(v2_limit(most(settings))),
    room: None,
    share: Share::Divided(&MAX_DIVISION),
    unlike: "",
};

static MAX_DIVISION: Division = Division {
    amounts: |settings| Amount::only(most(settings)),
    text: |_, parts| v2_limit(Amount::one(parts)),
    used: Used::Charged(CURRENT),
    pressed: Some(Pressed::Met(Figure { file: "memory.events", value: |text, _| flat_field(text, "high") })),
    guard: Some("memory.high"),
    least: 0,
    periods: None,
};

const CURRENT: Figure = Figure { file: "memory.current", value: |text, _| whole(text) };

fn most(settings: &Settings) -> Option<u64> {
    waits_at(settings).map_or(bound(LIMIT.of(settings)), beyond)
}

/// The limit of those who wait.
pub(super) const HIGH: V2Write = V2Write {
    file: "memory.high",
    text: |settings| Some(high(settings)),
    room: None,
    share: Share::Divided(&HIGH_DIVISION),
    unlike: "",
};

static HIGH_DIVISION: Division = Division {
    amounts: |settings| Amount::only(waits_at(settings)),
    text: |_, parts| v2_limit(Amount::one(parts)),
    used: Used::Charged(CURRENT),
    pressed: None,
    guard: None,
    least: 0,
    periods: None,
};

/// What `memory.high` is for good: the limit of those who wait, no limit for others.
pub(super) fn high(settings: &Settings) -> String {
    v2_limit(waits_at(settings))
}

/// The limit at which processes of this group wait; `None`: they do not, or there is none.
pub fn waits_at(settings: &Settings) -> Option<u64> {
    bound(LIMIT.of(settings)).filter(|_| *OOM_KILL_DISABLE.of(settings) == Value::Flag(true))
}

/// Where v2 kills those who wait: they can come so far before they are frozen, in one long read(2) for example. An eighth
/// of the limit, 16 MiB at least.
fn beyond(limit: u64) -> Option<u64> {
    const LEAST: u64 = 16 << 20;
    Some(limit.saturating_add((limit / 8).max(LEAST)))
}

/// Whether processes of a group wait: mem_cgroup_mark_under_oom() marks all below the group whose limit it is.
pub fn is_under_oom(forest: &pinfold_model::Forest, group: GroupId) -> bool {
    let is_marked = |group| *UNDER_OOM.in_group(forest, group) == Value::Flag(true);
    std::iter::once(group).chain(forest.ancestors(group)).any(is_marked)
}

pub(super) fn show_oom_control(sight: &Sight<'_>) -> Vec<u8> {
    let disabled = u8::from(sight.flag(&OOM_KILL_DISABLE));
    let under_oom = u8::from(is_under_oom(sight.forest, sight.group));
    let killed = sight.counter(&OOM_KILL);
    format!("oom_kill_disable {disabled}\nunder_oom {under_oom}\noom_kill {killed}\n").into_bytes()
}

pub(super) fn write_oom_control(sight: &Sight<'_>, data: &[u8]) -> Result<Change, WriteError> {
    let value = parse_u64(data)?;
    below_root(sight, "oom_control")?;
    match value {
        0 | 1 => Ok(Change::keep(sight, &OOM_KILL_DISABLE, Value::Flag(value == 1))),
        value => Err(WriteError::OutOfRange { value: value.into(), range: "0 to 1" }),
    }
}
