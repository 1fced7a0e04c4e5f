//! cpu: which part of the CPU time a group gets, and how much of it at most.

use std::time::Duration;

use pinfold_model::{Forest, GroupId, Key, Limit, Period, Settings, Value};

use crate::counter::{Counter, Field, Fold};
use crate::division::{Amount, Division, Figure, Periods, Pressed, Used};
use crate::number::c_string;
use crate::sight::{Sight, flat_field};
use crate::table::{
    Assignment, AtRoot, Carry, Change, Controller, File, Inherit, Needs, Place, Read, RoundTrip, Setting,
    Share, Source, Unaided, Unit, V2Write, Write,
};
use crate::values::{bound, line, number};
use crate::write::{WriteError, below_root, parse_i64, parse_u64};

/// MIN_SHARES and MAX_SHARES.
const SHARES_RANGE: (u64, u64) = (2, 1 << 18);

/// The shares of a group that is idle: WEIGHT_IDLEPRIO.
const IDLE_SHARES: u64 = 3;

/// min_cfs_quota_period and max_cfs_quota_period, in microseconds.
const PERIOD_RANGE: (u64, u64) = (1_000, 1_000_000);

/// The least part of the CPU time that v2 takes, in microseconds a second: min_cfs_quota_period in the longest period.
const LEAST_PART: u64 = 1_000;

/// max_cfs_runtime, in microseconds: MAX_BW.
const MAX_RUNTIME: u64 = (1 << 44) - 1;

static SHARES: Setting = setting("cpu.shares", Value::Number(1024), &[WEIGHT]);
static QUOTA: Setting = setting("cpu.cfs_quota_us", Value::Limit(Limit::Max), &[MAX]);
static PERIOD: Setting = setting("cpu.cfs_period_us", Value::Number(100_000), &[MAX]);
static BURST: Setting = setting("cpu.cfs_burst_us", Value::Number(0), &[MAX_BURST]);
static IDLE: Setting = setting("cpu.idle", Value::Flag(false), &[IS_IDLE, WEIGHT]);

const fn setting(key: &'static str, initial: Value, writes: &'static [V2Write]) -> Setting {
    Setting { key: Key(key), initial, inherit: Inherit::Initial, carry: Carry::Limit(writes) }
}

/// An idle group takes no weight.
const WEIGHT: V2Write = V2Write {
    file: "cpu.weight",
    text: |settings| (!is_idle(settings)).then(|| weight(number(SHARES.of(settings))).to_string()),
    room: None,
    share: Share::Weight,
    unlike: "",
};
const MAX: V2Write = V2Write {
    file: "cpu.max",
    text: |settings| Some(v2_max(settings)),
    room: None,
    share: Share::Divided(&DIVISION),
    unlike: "",
};

/// CPU time is divided in microseconds a second, whatever the period.
static DIVISION: Division = Division {
    amounts: |settings| {
        let a_second = |quota: u64| quota.saturating_mul(1_000_000) / number(PERIOD.of(settings)).max(1);
        Amount::only(quota(settings).map(a_second))
    },
    text: |settings, parts| v2_part(number(PERIOD.of(settings)), Amount::one(parts)),
    used: Used::PerSecond(Figure { file: "cpu.stat", value: |text, _| flat_field(text, "usage_usec") }),
    pressed: Some(Pressed::MetInPeriods(
        Figure { file: "cpu.stat", value: |text, _| flat_field(text, "nr_throttled") },
        Figure { file: "cpu.stat", value: |text, _| flat_field(text, "nr_periods") },
    )),
    guard: None,
    least: LEAST_PART,
    periods: Some(|settings| Periods { of_group: number(PERIOD.of(settings)), of_part: period_of_part }),
};
const MAX_BURST: V2Write = V2Write {
    file: "cpu.max.burst",
    text: |settings| Some(number(BURST.of(settings)).to_string()),
    room: None,
    share: Share::Without("0"),
    unlike: "",
};
const IS_IDLE: V2Write = V2Write {
    file: "cpu.idle",
    text: |settings| Some(u8::from(is_idle(settings)).to_string()),
    room: None,
    share: Share::Same,
    unlike: "",
};

const CPU_STAT: Source = Source::Carriers("cpu.stat");

const STAT_LOCAL: &str = "cpu.stat.local";

static NR_PERIODS: Counter = counter("cpu.stat.nr_periods", "nr_periods");
static NR_THROTTLED: Counter = counter("cpu.stat.nr_throttled", "nr_throttled");
static THROTTLED_TIME: Counter = counter("cpu.stat.throttled_time", "throttled_usec");
static NR_BURSTS: Counter = counter("cpu.stat.nr_bursts", "nr_bursts");
static BURST_TIME: Counter = counter("cpu.stat.burst_time", "burst_usec");

const fn counter(key: &'static str, field: &'static str) -> Counter {
    Counter { key: Key(key), source: CPU_STAT, field: Field::After(field), fold: Fold::Sum }
}

static THROTTLED_ITSELF: Counter = Counter {
    source: Source::Carriers(STAT_LOCAL),
    ..counter("cpu.stat.local.throttled_time", "throttled_usec")
};

/// What the kernel starts with, sysctl_sched_rt_period and sysctl_sched_rt_runtime, in microseconds. Nobody may have a
/// greater part than that.
const REAL_TIME: RealTime = RealTime { period: 1_000_000, runtime: 950_000 };

/// max_rt_runtime, in microseconds: MAX_BW is in nanoseconds there.
const MAX_REAL_TIME: u64 = MAX_RUNTIME / 1000;

static RT_PERIOD: Setting = stored("cpu.rt_period_us", Value::Number(REAL_TIME.period));
/// Of the root, 0 stands for what it has from the start: it cannot have none.
static RT_RUNTIME: Setting = stored("cpu.rt_runtime_us", Value::Number(0));

const fn stored(key: &'static str, initial: Value) -> Setting {
    const NO_BUDGET: Carry = Carry::Inert("a group of v2 has no time of its own for real-time tasks");
    Setting { key: Key(key), initial, inherit: Inherit::Initial, carry: NO_BUDGET }
}

/// The cpu controller.
pub(crate) static CPU: Controller = Controller {
    name: "cpu",
    about: "Which part of the CPU time a group gets when others want it too, and how much of it at most.",
    source: "Documentation/scheduler/sched-design-CFS.rst section 7, sched-bwc.rst; kernel/sched/core.c",
    needs: Needs::Controller("cpu"),
    unaided: Unaided::Refused("user space cannot share a CPU out among groups"),
    files: &[
        File {
            unit: Unit::Number,
            write: Write::Parsed(write_shares),
            takes: "A number without white space but one newline; below 2 it is 2, above 262144 it is 262144.",
            errors: "EINVAL: not a number; cpu.idle is 1; the root. ERANGE: more than 64 bits.",
            at_root: AtRoot::Refused,
            differs: "v2 knows weights from 1 to 10000: some neighbouring shares have the same, and twice the shares are not twice the \
                      weight: 2048 get 1.74 times as much as 1024 (on one CPU 1.73 times was measured; Linux 6.1). The tasks of a group itself together \
                      count as one group with 1024; v1 counts each. Where groups of several hierarchies cross, only those \
                      that share the v2 directory above are weighed against each other; `pinfold status` tells where.",
            ..shown(
                "shares",
                &SHARES,
                |sight| line(shares(sight)),
                "cpu_shares_read_u64(), cpu_shares_write_u64()",
                "The group's share, against those of its siblings and of its parent's own tasks, of CPU time that more \
                 than one of them want.",
                "cpu.weight of the group's directory: 10^((l^2 + 125 l) / 612 - 7/34), rounded up, where l is the shares' \
                 logarithm to base 2. So 2 is 1, 1024 is 100, 262144 is 10000.",
            )
        },
        File {
            write: Write::Parsed(write_quota),
            takes: "Microseconds from 1000 to 17592186044415, or anything negative for no limit; without white space but \
                    one newline.",
            errors: "EINVAL: not a number, or out of range; below cpu.cfs_burst_us; a greater part of its period than a group \
                     above it may have, or a lesser one than a group below it may; the root. ERANGE: more than a signed \
                     64-bit number.",
            at_root: AtRoot::Refused,
            ..shown(
                "cfs_quota_us",
                &QUOTA,
                |sight| match quota(sight.settings()) {
                    Some(quota) => line(quota),
                    None => line(-1),
                },
                "cpu_cfs_quota_read_s64(), cpu_cfs_quota_write_s64()",
                "CPU time that the tasks of the group and those below it may use together in each period; -1 is no limit.",
                "cpu.max of the group's directory. v2 does not compare groups; pinfold does.",
            )
        },
        File {
            write: Write::Parsed(write_period),
            takes: "Microseconds from 1000 to 1000000; without white space but one newline.",
            errors: "EINVAL: not a number, or out of range; the quota would be a greater part of it than a group above may \
                     have, or a lesser one than a group below may; the root. ERANGE: more than 64 bits.",
            at_root: AtRoot::Refused,
            ..shown(
                "cfs_period_us",
                &PERIOD,
                |sight| line(number(sight.own(&PERIOD))),
                "cpu_cfs_period_read_u64(), cpu_cfs_period_write_u64()",
                "The period that the quota is for.",
                "cpu.max of the group's directory.",
            )
        },
        File {
            write: Write::Parsed(write_burst),
            takes: "Microseconds, at most the quota; without white space but one newline.",
            errors: "EINVAL: not a number, or above the quota; the root. ERANGE: more than 64 bits.",
            at_root: AtRoot::Refused,
            ..shown(
                "cfs_burst_us",
                &BURST,
                |sight| line(number(sight.own(&BURST))),
                "cpu_cfs_burst_read_u64(), cpu_cfs_burst_write_u64()",
                "How much unused CPU time of earlier periods may be used on top of the quota.",
                "cpu.max.burst of the group's directory.",
            )
        },
        File {
            write: Write::Refused,
            setting: None,
            unit: Unit::Nanoseconds,
            read: Read::Shown { from: &[CPU_STAT], show: show_stat },
            round_trip: RoundTrip::NotApplicable,
            differs: "Times are whole microseconds.",
            ..shown(
                "stat",
                &QUOTA,
                |_| Vec::new(),
                "cpu_cfs_stat_show()",
                "nr_periods: periods in which the group had something to run. nr_throttled: those in which it met its \
                 quota; throttled_time: for how long it was held back then, over all CPUs. nr_bursts and burst_time: how \
                 often, and for how long, it used more than its quota.",
                "The fields of the same names of cpu.stat, times in nanoseconds.",
            )
        },
        File {
            place: Place::WithV2(STAT_LOCAL),
            unit: Unit::Nanoseconds,
            differs: "Times are whole microseconds.",
            ..File::shown(
                "stat.local",
                &[THROTTLED_ITSELF.source],
                |sight| {
                    let time = sight.counter(&THROTTLED_ITSELF).saturating_mul(1000);
                    format!("throttled_time {time}\n").into_bytes()
                },
                "cpu_cfs_local_stat_show()",
                "For how long the group had something to run and was held back, by its own quota or by one above it, over all CPUs.",
                "throttled_usec of cpu.stat.local (Linux 6.6), in nanoseconds.",
            )
        },
        File {
            unit: Unit::Flag,
            write: Write::Parsed(write_idle),
            takes: "0 or 1, without white space but one newline.",
            errors: "EINVAL: not a number, or another one; the root. ERANGE: more than a signed 64-bit number.",
            at_root: AtRoot::Refused,
            ..shown(
                "idle",
                &IDLE,
                |sight| line(u8::from(sight.flag(&IDLE))),
                "cpu_idle_read_s64(), cpu_idle_write_s64()",
                "Whether the group runs only when nobody else wants to. Its shares are 3 then, and 1024 afterwards.",
                "cpu.idle of the group's directory.",
            )
        },
        // Before the runtime: what is written in this order to a group that has none is not above its period meanwhile.
        File {
            write: Write::Parsed(write_rt_period),
            takes: "Microseconds from 1 to 18446744073709551; without white space but one newline.",
            errors: "EINVAL: not a number, or out of range; below cpu.rt_runtime_us; the runtime would be a greater part of it \
                     than the group above has left, or a lesser one than those below have together. ERANGE: more than 64 bits.",
            differs: REAL_TIME_DIFFERS,
            ..shown(
                "rt_period_us",
                &RT_PERIOD,
                |sight| line(RealTime::of(sight.forest, sight.group).period),
                "cpu_rt_period_read_uint(), cpu_rt_period_write_uint()",
                "The period that cpu.rt_runtime_us is for.",
                "Kept by pinfold.",
            )
        },
        File {
            write: Write::Parsed(write_rt_runtime),
            takes: "Microseconds from 0, which the root does not take, to the period; without white space but one newline.",
            errors: "EINVAL: not a number, or out of range; negative, which is no limit; above cpu.rt_period_us; a greater part of \
                     the period than 95 in 100, or than the group above has left; a lesser one than those below have together. \
                     ERANGE: more than a signed 64-bit number.",
            differs: REAL_TIME_DIFFERS,
            ..shown(
                "rt_runtime_us",
                &RT_RUNTIME,
                |sight| line(RealTime::of(sight.forest, sight.group).runtime),
                "cpu_rt_runtime_read(), cpu_rt_runtime_write()",
                "CPU time that real-time tasks of the group and those below it may use together in each period. A new group has none.",
                "Kept by pinfold.",
            )
        },
    ],
    counters: &[&NR_PERIODS, &NR_THROTTLED, &THROTTLED_TIME, &THROTTLED_ITSELF, &NR_BURSTS, &BURST_TIME],
    can_attach: Controller::anybody,
};

const REAL_TIME_DIFFERS: &str = "It limits nobody: a group with 0 takes real-time tasks too, where v1 says EINVAL, and 0 is taken \
                                 while it has some, where v1 says EBUSY. kernel.sched_rt_runtime_us is taken to be 950000. A kernel \
                                 without CONFIG_RT_GROUP_SCHED has no such file.";

/// A file that shows a setting; how it is written is said where it is used.
const fn shown(
    name: &'static str,
    setting: &'static Setting,
    show: fn(&Sight<'_>) -> Vec<u8>,
    function: &'static str,
    about: &'static str,
    v2: &'static str,
) -> File {
    File {
        unit: Unit::Microseconds,
        setting: Some(setting),
        round_trip: RoundTrip::Exact,
        ..File::shown(name, &[], show, function, about, v2)
    }
}

fn is_idle(settings: &Settings) -> bool {
    *IDLE.of(settings) == Value::Flag(true)
}

fn quota(settings: &Settings) -> Option<u64> {
    bound(QUOTA.of(settings))
}

fn v2_max(settings: &Settings) -> String {
    let period = number(PERIOD.of(settings));
    quota(settings).map_or_else(|| format!("max {period}"), |quota| format!("{quota} {period}"))
}

fn v2_part(period: u64, part: Option<u64>) -> String {
    let Some(part) = part else { return format!("max {period}") };
    let Period { length, quota } = period_of_part(period, part);
    format!("{quota} {}", length.as_micros())
}

/// A part of the CPU time, in microseconds a second, in the group's period; in a longer one if v2 takes so little of it no
/// other way (a quota has at least a millisecond).
fn period_of_part(period: u64, part: u64) -> Period {
    const SECOND: u64 = PERIOD_RANGE.1;
    let enough = (LEAST_PART * SECOND).div_ceil(part.max(1));
    let period = period.max(enough).min(SECOND);
    let quota = u128::from(part) * u128::from(period) / u128::from(SECOND);
    let quota = u64::try_from(quota).unwrap_or(u64::MAX).clamp(LEAST_PART, MAX_RUNTIME);
    Period { length: Duration::from_micros(period), quota }
}

/// The weight of v2 for shares of v1: the curve through (2, 1), (1024, 100) and (262144, 10000) that container runtimes use.
fn weight(shares: u64) -> u64 {
    if shares <= SHARES_RANGE.0 {
        return 1;
    }
    #[expect(clippy::cast_precision_loss, reason = "shares have 18 bits")]
    let l = (shares as f64).log2();
    let exact = 10_f64.powf((l * l + 125.0 * l) / 612.0 - 7.0 / 34.0);
    // What is whole but for the error of floating point stays whole: 1024 is 100.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is from 1 to 10000")]
    let weight = (exact - 1e-6).ceil() as u64;
    weight.clamp(1, 10_000)
}

fn shares(sight: &Sight<'_>) -> u64 {
    if sight.flag(&IDLE) { IDLE_SHARES } else { number(sight.own(&SHARES)) }
}

fn write_shares(sight: &Sight<'_>, data: &[u8]) -> Result<Change, WriteError> {
    let shares = parse_u64(data)?;
    below_root(sight, "shares")?;
    if sight.flag(&IDLE) {
        return Err(WriteError::OutOfRange {
            value: shares.into(),
            range: "what an idle group takes: nothing",
        });
    }
    Ok(Change::keep(sight, &SHARES, Value::Number(shares.clamp(SHARES_RANGE.0, SHARES_RANGE.1))))
}

/// sched_group_set_idle(): the shares from before are forgotten.
fn write_idle(sight: &Sight<'_>, data: &[u8]) -> Result<Change, WriteError> {
    let value = parse_i64(c_string(data), "0 or 1")?;
    below_root(sight, "idle")?;
    let idle = match value {
        0 => false,
        1 => true,
        value => return Err(WriteError::OutOfRange { value: value.into(), range: "0 to 1" }),
    };
    let assign = |setting: &'static Setting, value| Assignment { group: sight.group, setting, value };
    let mut assignments = vec![assign(&IDLE, Value::Flag(idle))];
    if idle {
        assignments.insert(0, assign(&SHARES, SHARES.initial.clone())); // first: an idle group takes no weight
    }
    Ok(Change::Keep(assignments))
}

fn write_quota(sight: &Sight<'_>, data: &[u8]) -> Result<Change, WriteError> {
    let value = parse_i64(c_string(data), "microseconds, or -1")?;
    let limit = u64::try_from(value).map_or(Limit::Max, Limit::At);
    keep_bandwidth(sight, &QUOTA, Value::Limit(limit), value.into())
}

fn write_period(sight: &Sight<'_>, data: &[u8]) -> Result<Change, WriteError> {
    let value = parse_u64(data)?;
    keep_bandwidth(sight, &PERIOD, Value::Number(value), value.into())
}

fn write_burst(sight: &Sight<'_>, data: &[u8]) -> Result<Change, WriteError> {
    let value = parse_u64(data)?;
    keep_bandwidth(sight, &BURST, Value::Number(value), value.into())
}

/// tg_set_cfs_bandwidth(): quota, period and burst are checked together, whichever is written.
fn keep_bandwidth(
    sight: &Sight<'_>,
    setting: &'static Setting,
    value: Value,
    written: i128,
) -> Result<Change, WriteError> {
    below_root(sight, "bandwidth")?;
    let mut settings = sight.settings().clone();
    settings.replace(setting.key, Some(value.clone()));
    let refused = |range| Err(WriteError::OutOfRange { value: written, range });
    let (period, burst) = (number(PERIOD.of(&settings)), number(BURST.of(&settings)));
    if !(PERIOD_RANGE.0..=PERIOD_RANGE.1).contains(&period) {
        return refused("a period: 1000 to 1000000");
    }
    if burst > u64::MAX / 1000 {
        return refused("a burst: 0 to the quota");
    }
    if let Some(quota) = quota(&settings) {
        if !(PERIOD_RANGE.0..=MAX_RUNTIME).contains(&quota) {
            return refused("a quota: 1000 to 17592186044415");
        }
        if burst > quota || burst + quota > MAX_RUNTIME {
            return refused("what quota and burst are together: the burst is at most the quota");
        }
    }
    let mut above: Vec<_> = sight.forest.ancestors(sight.group).collect();
    above.reverse();
    let above = above.into_iter().fold(None, |above, id| part_in(sight.forest, id).or(above));
    if !fits(sight.forest, sight.group, part(&settings), above) {
        return refused("what the groups above and below have");
    }
    Ok(Change::keep(sight, setting, value))
}

/// The part of a CPU that a group may use, in 2^-20: to_ratio(). `None`: no limit of its own.
fn part(settings: &Settings) -> Option<u64> {
    Some((quota(settings)? << 20) / number(PERIOD.of(settings)))
}

fn part_in(forest: &Forest, group: GroupId) -> Option<u64> {
    part(forest.group(group)?.settings())
}

/// Whether no group from this one down, which is to have this part, has more than those above: tg_cfs_schedulable_down().
fn fits(forest: &Forest, group: GroupId, own: Option<u64>, above: Option<u64>) -> bool {
    if own.zip(above).is_some_and(|(own, above)| own > above) {
        return false;
    }
    let below = forest.group(group).into_iter().flat_map(|found| found.children());
    let mut below = below.map(|(_, id)| id);
    below.all(|id| fits(forest, id, part_in(forest, id), own.or(above)))
}

/// What real-time tasks of a group may use: so much of each period, in microseconds.
#[derive(Clone, Copy)]
struct RealTime {
    period: u64,
    runtime: u64,
}

impl RealTime {
    fn of(forest: &Forest, group: GroupId) -> Self {
        let is_root = forest.group(group).is_some_and(|group| group.parent().is_none());
        let runtime = match number(RT_RUNTIME.in_group(forest, group)) {
            0 if is_root => REAL_TIME.runtime,
            runtime => runtime,
        };
        Self { period: number(RT_PERIOD.in_group(forest, group)), runtime }
    }

    /// In 2^-20 of a CPU: to_ratio().
    fn part(self) -> u64 {
        (self.runtime << 20).checked_div(self.period).unwrap_or(0)
    }
}

fn write_rt_period(sight: &Sight<'_>, data: &[u8]) -> Result<Change, WriteError> {
    let period = parse_u64(data)?;
    let trial = RealTime { period, ..RealTime::of(sight.forest, sight.group) };
    keep_real_time(sight, &RT_PERIOD, trial, period, period.into())
}

fn write_rt_runtime(sight: &Sight<'_>, data: &[u8]) -> Result<Change, WriteError> {
    let value = parse_i64(c_string(data), "microseconds")?;
    // No limit is more than anybody may have.
    let runtime = value.try_into().unwrap_or(u64::MAX);
    let trial = RealTime { runtime, ..RealTime::of(sight.forest, sight.group) };
    keep_real_time(sight, &RT_RUNTIME, trial, runtime, value.into())
}

/// tg_set_rt_bandwidth() and tg_rt_schedulable(): groups below have together at most what the one above them has.
fn keep_real_time(
    sight: &Sight<'_>,
    setting: &'static Setting,
    trial: RealTime,
    value: u64,
    written: i128,
) -> Result<Change, WriteError> {
    let refused = |range| Err(WriteError::OutOfRange { value: written, range });
    if !(1..=u64::MAX / 1000).contains(&trial.period) {
        return refused("a period: 1 to 18446744073709551");
    }
    if trial.runtime > trial.period.min(MAX_REAL_TIME) || (trial.runtime == 0 && sight.is_root()) {
        return refused("a runtime: 0, or 1 for the root, to the period");
    }
    let part = |group| if group == sight.group { trial } else { RealTime::of(sight.forest, group) }.part();
    let below = |group| sight.forest.children(group).map(part).fold(0, u64::saturating_add);
    let above = sight.forest.ancestors(sight.group).next();
    if trial.part() > REAL_TIME.part()
        || below(sight.group) > trial.part()
        || above.is_some_and(|above| below(above) > part(above))
    {
        return refused("what the groups above and below have");
    }
    Ok(Change::keep(sight, setting, Value::Number(value)))
}

fn show_stat(sight: &Sight<'_>) -> Vec<u8> {
    let nanoseconds = |counter| sight.counter(counter).saturating_mul(1000);
    format!(
        "nr_periods {}\nnr_throttled {}\nthrottled_time {}\nnr_bursts {}\nburst_time {}\n",
        sight.counter(&NR_PERIODS),
        sight.counter(&NR_THROTTLED),
        nanoseconds(&THROTTLED_TIME),
        sight.counter(&NR_BURSTS),
        nanoseconds(&BURST_TIME),
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::weight;

    #[test]
    fn weights_are_those_of_container_runtimes_and_grow_with_shares() {
        for (shares, expected) in [(2, 1), (1024, 100), (262_144, 10_000), (3, 2), (512, 59), (2048, 174)] {
            assert_eq!(weight(shares), expected, "{shares}");
        }
        assert!((2..262_144).all(|shares| weight(shares) <= weight(shares + 1)));
    }
}
