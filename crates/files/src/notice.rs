//! What is written to `cgroup.event_control`, and when those who wrote it are told: a threshold that usage crosses, a
//! limit that was met for good, reclaim that finds little.
//!
//! Pure: figures come in, "tell" comes out. Who reads figures when, and whose eventfd it is, is the caller's.
//! Source: Documentation/admin-guide/cgroup-v1/memory.rst sections 9 to 11; memcg_write_event_control(), mm/vmpressure.c.

use pinfold_model::{Key, Limit};

use crate::counter::{Counter, Field, Fold};
use crate::lookup::{FileId, full_name};
use crate::memory::parse_stripped;
use crate::number::{c_string, strstrip};
use crate::sight::{Facts, Sight};
use crate::table::Source;
use crate::write::WriteError;

/// A request to be told, as it was written: `EVENTFD CONTROL ARGUMENT`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Registration {
    /// The writer's descriptor of the eventfd that is to be signalled.
    pub eventfd: u32,
    /// The writer's descriptor of the control file that says what is to be told.
    pub control: u32,
    /// What the control file makes of the rest.
    pub argument: Vec<u8>,
}

/// What somebody wants to be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Notice {
    /// That what this file shows crosses a number of bytes, either way.
    Threshold(FileId, u64),
    /// That a limit was met, and somebody of the group is killed or waits for memory.
    Oom,
    /// That reclaim in the group finds as little as this, or less.
    Pressure(Level, Mode),
}

/// How little reclaim finds: vmpressure_levels.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// It was needed at all.
    Low,
    /// At least 60 % of the pages that were looked at could not be freed.
    Medium,
    /// At least 95 %.
    Critical,
}

/// Whether a listener hears of reclaim below its group: vmpressure_modes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Unless somebody below was told.
    Default,
    /// In any case.
    Hierarchy,
    /// Never.
    Local,
}

const LEVELS: [(&str, Level); 3] =
    [("low", Level::Low), ("medium", Level::Medium), ("critical", Level::Critical)];

const MODES: [(&str, Mode); 3] =
    [("default", Mode::Default), ("hierarchy", Mode::Hierarchy), ("local", Mode::Local)];

/// What a control file of each name is about; of other files nobody is told anything.
enum Subject {
    Usage,
    Oom,
    Pressure,
}

const SUBJECTS: [(&str, Subject); 4] = [
    ("memory.usage_in_bytes", Subject::Usage),
    ("memory.memsw.usage_in_bytes", Subject::Usage),
    ("memory.oom_control", Subject::Oom),
    ("memory.pressure_level", Subject::Pressure),
];

/// Splits what was written: two decimal numbers, each with one space behind it, then the argument.
pub(crate) fn parse_registration(data: &[u8]) -> Result<Registration, WriteError> {
    const FORM: &str = "EVENTFD CONTROL ARGUMENT, with one space between them";
    let text = strstrip(c_string(data));
    let refused = || WriteError::syntax(text, FORM);
    let (eventfd, rest) = descriptor(text);
    let rest = rest.strip_prefix(b" ").ok_or_else(refused)?;
    let (control, rest) = descriptor(rest);
    let argument = match rest {
        [] => rest,
        [b' ', argument @ ..] => argument,
        _ => return Err(refused()),
    };
    Ok(Registration { eventfd, control, argument: argument.to_vec() })
}

/// The digits that a text starts with, as simple_strtoul() reads them into 32 bits: none are 0, and what does not fit
/// loses its upper bits.
fn descriptor(text: &[u8]) -> (u32, &[u8]) {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = text[..digits]
        .iter()
        .fold(0_u32, |number, digit| number.wrapping_mul(10).wrapping_add(u32::from(digit - b'0')));
    (number, &text[digits..])
}

impl Notice {
    /// What is meant by an argument for this control file; `None`: of this file nobody is told anything.
    pub fn parse(control: FileId, argument: &[u8], facts: &Facts) -> Result<Option<Self>, WriteError> {
        let name = full_name(control, false);
        let Some((_, subject)) = SUBJECTS.iter().find(|(known, _)| *known == name) else { return Ok(None) };
        Ok(Some(match subject {
            Subject::Usage => Self::Threshold(control, parse_threshold(argument, facts)?),
            Subject::Oom => Self::Oom,
            Subject::Pressure => parse_pressure(argument)?,
        }))
    }
}

/// mem_cgroup_usage_register_event(): any size as a limit's, -1 for what is never reached.
fn parse_threshold(argument: &[u8], facts: &Facts) -> Result<u64, WriteError> {
    Ok(match parse_stripped(facts, argument)? {
        Limit::At(bytes) => bytes,
        Limit::Max => u64::MAX,
    })
}

/// vmpressure_register_event(): it sees 19 characters, and of those no more than two words.
fn parse_pressure(argument: &[u8]) -> Result<Notice, WriteError> {
    const SEEN: usize = "critical".len() + "hierarchy".len() + 2;
    let refused =
        || WriteError::syntax(argument, "LEVEL[,MODE] (low, medium, critical; default, hierarchy, local)");
    let mut words = argument[..argument.len().min(SEEN)].split(|byte| *byte == b',');
    let level = words.next().unwrap_or_default();
    let (_, level) = LEVELS.iter().find(|(name, _)| name.as_bytes() == level).ok_or_else(refused)?;
    let mode = match words.next() {
        None => Mode::Default,
        Some(word) => MODES.iter().find(|(name, _)| name.as_bytes() == word).ok_or_else(refused)?.1,
    };
    Ok(Notice::Pressure(*level, mode))
}

/// A threshold and the side of it on which usage was last seen: __mem_cgroup_threshold().
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Threshold {
    at: u64,
    reached: bool,
}

impl Threshold {
    /// Usage is this much when it is set; that is not told.
    pub const fn new(at: u64, usage: u64) -> Self {
        Self { at, reached: usage >= at }
    }

    /// Usage is this much now. True if it crossed the threshold since it was seen last.
    pub const fn look(&mut self, usage: u64) -> bool {
        let before = self.reached;
        self.reached = usage >= self.at;
        self.reached != before
    }
}

const STAT: Source = Source::Carriers("memory.stat");
const EVENTS: Source = Source::Carriers("memory.events.local");
const EVENTS_BELOW: Source = Source::Carriers("memory.events");

// The figures that are watched. What directories that went have counted stays counted: a group of one process loses its
// directory with it, and that is often when there is something to tell.

/// How often a limit was met, and nothing could be reclaimed, in the group itself.
pub static OOM: Counter = counter("memory.oom_control.oom", EVENTS, "oom");

pub(crate) static SCANNED: Counter = counter("memory.pressure_level.pgscan", STAT, "pgscan");
pub(crate) static SCANNED_BY_KSWAPD: Counter =
    counter("memory.pressure_level.pgscan_kswapd", STAT, "pgscan_kswapd");
pub(crate) static RECLAIMED: Counter = counter("memory.pressure_level.pgsteal", STAT, "pgsteal");
pub(crate) static RECLAIMED_BY_KSWAPD: Counter =
    counter("memory.pressure_level.pgsteal_kswapd", STAT, "pgsteal_kswapd");
pub(crate) static FAILED: Counter = counter("memory.pressure_level.oom", EVENTS_BELOW, "oom");
pub(crate) static MET: Counter = counter("memory.pressure_level.max", EVENTS, "max");
pub(crate) static THROTTLED: Counter = counter("memory.pressure_level.high", EVENTS, "high");

const fn counter(key: &'static str, source: Source, field: &'static str) -> Counter {
    Counter { key: Key(key), source, field: Field::After(field), fold: Fold::Sum }
}

/// What reclaim has looked at and freed in a group and below it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Reclaim {
    /// Pages looked at.
    pub scanned: u64,
    /// Pages freed.
    pub reclaimed: u64,
    /// How often nothing was found at all, in the group or below it.
    pub failed: u64,
    /// How often it was the group's own limit that made somebody reclaim (of the root: pages that kswapd looked at).
    pub own: u64,
}

impl Reclaim {
    /// The v2 files that say so.
    pub const SOURCES: [Source; 3] = [STAT, EVENTS, EVENTS_BELOW];

    /// What they say of a group. What kswapd does is the pressure of the machine, that is of the root group, and where
    /// it is told apart (Linux 6.1) it is left out of others'.
    pub fn of(sight: &Sight<'_>) -> Self {
        let (scanned, reclaimed) = (sight.counter(&SCANNED), sight.counter(&RECLAIMED));
        let by_kswapd = sight.counter(&SCANNED_BY_KSWAPD);
        let failed = sight.counter(&FAILED);
        if sight.is_root() {
            return Self { scanned, reclaimed, failed, own: by_kswapd };
        }
        Self {
            scanned: scanned.saturating_sub(by_kswapd),
            reclaimed: reclaimed.saturating_sub(sight.counter(&RECLAIMED_BY_KSWAPD)),
            failed,
            own: sight.counter(&MET).saturating_add(sight.counter(&THROTTLED)),
        }
    }
}

/// What is gathered until enough pages were looked at to judge: vmpressure().
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pressure {
    last: Reclaim,
    scanned: u64,
    reclaimed: u64,
    own: bool,
}

/// What a window of reclaim amounts to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// How little was found.
    pub level: Level,
    /// Whether the group's own limit was met meanwhile: else it was one below.
    pub own: bool,
}

impl Pressure {
    /// How many pages are looked at before it is judged: vmpressure_win.
    const WINDOW: u64 = 512;

    /// Starts with figures from before.
    pub const fn new(last: Reclaim) -> Self {
        Self { last, scanned: 0, reclaimed: 0, own: false }
    }

    /// Whether anything was looked at since the last look.
    pub fn has_moved(&self, now: Reclaim) -> bool {
        now != self.last
    }

    /// The figures are these now. A verdict as soon as there is enough to judge.
    pub fn look(&mut self, now: Reclaim) -> Option<Verdict> {
        // Figures go down only when somebody else removed a directory of ours.
        self.scanned = self.scanned.saturating_add(now.scanned.saturating_sub(self.last.scanned));
        self.reclaimed = self.reclaimed.saturating_add(now.reclaimed.saturating_sub(self.last.reclaimed));
        self.own |= now.own > self.last.own;
        let failed = now.failed > self.last.failed;
        self.last = now;
        let level = match failed {
            // Without swap there may be no page to look at: that reclaim tried everything is enough, vmpressure_prio().
            true => Level::Critical,
            false if self.scanned < Self::WINDOW => return None,
            false => level_of(self.scanned, self.reclaimed),
        };
        let verdict = Verdict { level, own: self.own };
        *self = Self::new(now);
        Some(verdict)
    }
}

/// vmpressure_calc_level(): the share of pages that could not be freed, in per cent.
fn level_of(scanned: u64, reclaimed: u64) -> Level {
    // Whole groups of pages are freed at once: there may be more than were looked at.
    let kept = u128::from(scanned.saturating_sub(reclaimed));
    match kept * 100 / u128::from(scanned.max(1)) {
        95.. => Level::Critical,
        60.. => Level::Medium,
        _ => Level::Low,
    }
}

/// Whether a listener is told of a verdict: vmpressure_event(). `told_below`: somebody below its group was told.
pub fn hears(verdict: Verdict, told_below: bool, level: Level, mode: Mode) -> bool {
    let in_reach = match mode {
        Mode::Default => !told_below,
        Mode::Hierarchy => true,
        Mode::Local => verdict.own,
    };
    in_reach && verdict.level >= level
}
