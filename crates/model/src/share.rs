//! Dividing a limit over the directories that carry a group together (I5): what was seen of each, what part each gets, and
//! whether that is worth writing.

use std::time::Duration;

/// One directory that has a part of a limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claimant {
    /// What it uses now.
    pub used: u64,
    /// Whether it wants more: it has met its part, or nearly.
    pub hungry: bool,
}

impl Claimant {
    /// Whether it gains by having another part of this limit, so that parts are worth writing: it wants more, and gets what it
    /// uses or noticeably more. That is a 32nd of an amount, and an eighth of a rate, since the kernel starts a period
    /// anew when its rate is written, and lets some pass by it. Besides, one who is alone in wanting more gets nine tenths
    /// of the limit: it has less only after another write, so this at most doubles their number.
    fn gains(self, kind: LimitKind, limit: u64, had: u64, gets: u64, is_alone: bool) -> bool {
        let noticeable = match kind {
            LimitKind::Amount => 32,
            LimitKind::Rate => 8,
        };
        let is_most = |part: u64| u128::from(part) * 10 >= u128::from(limit) * 9;
        self.hungry
            && gets > had
            && (had < self.used && (gets >= self.used || kind == LimitKind::Rate)
                || gets > had.saturating_add(had / noticeable)
                || is_alone && !is_most(had) && is_most(gets))
    }
}

/// What a limit limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LimitKind {
    /// How much there is at once: a figure says what is used.
    Amount,
    /// How much in a second: a figure grows by it.
    Rate,
}

/// What tells that a directory meets its part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pressure {
    /// How often it did.
    Met {
        /// So often.
        times: u64,
        /// Of a rate: at the ends of so many periods. Who meets it is counted then, and not before.
        periods: Option<u64>,
    },
    /// For how long somebody in it has waited, for its part or for what it is a part of.
    Stalled(Duration),
}

/// What is read of a directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reading {
    /// When: since some moment, the same for all.
    pub at: Duration,
    /// What is used, or what grows by it.
    pub figure: u64,
    /// `None`: nothing tells.
    pub pressure: Option<Pressure>,
    /// What grows by everything of the kind that is used, this and other: who waits, uses none of this and does use of that waits
    /// for that. It matters beside [`Pressure::Stalled`] only.
    pub all: u64,
}

impl Reading {
    /// Whether nothing has been used since this, and nobody waits, as far as that is told.
    fn is_idle_until(self, now: Self) -> bool {
        let is_quiet = match (self.pressure, now.pressure) {
            (Some(Pressure::Stalled(before)), Some(Pressure::Stalled(stalled))) => stalled == before,
            (
                Some(Pressure::Met { times: before, periods: Some(_) }),
                Some(Pressure::Met { times, periods: Some(_) }),
            ) => times == before,
            // Who waits may be told of when that is over.
            _ => false,
        };
        is_quiet && now.figure == self.figure
    }

    /// Whether it has been long enough since this that whoever waited would have been told of.
    fn is_long_before(self, now: Self) -> bool {
        let has_period_ended = self.periods().zip(now.periods()).is_none_or(|(before, now)| now > before);
        has_period_ended && self.until(now) >= Look::REST
    }

    const fn periods(self) -> Option<u64> {
        match self.pressure {
            Some(Pressure::Met { periods, .. }) => periods,
            Some(Pressure::Stalled(_)) | None => None,
        }
    }

    /// For how long somebody has waited since this, and of how long; `None`: nothing tells.
    fn stalled_until(self, now: Self) -> Option<(Duration, Duration)> {
        match (self.pressure, now.pressure) {
            (Some(Pressure::Stalled(before)), Some(Pressure::Stalled(stalled))) => {
                Some((stalled.saturating_sub(before), self.until(now)))
            }
            _ => None,
        }
    }

    const fn until(self, now: Self) -> Duration {
        now.at.saturating_sub(self.at)
    }
}

/// What a directory may have, from the last division until now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Allowed {
    /// Its part.
    pub part: u64,
    /// Of a rate that is handed out in periods: those of the part.
    pub period: Option<Period>,
}

impl From<u64> for Allowed {
    fn from(part: u64) -> Self {
        Self { part, period: None }
    }
}

/// In what a rate is handed out: who has used all of it waits for the next one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Period {
    /// How long it is.
    pub length: Duration,
    /// How much there is in it.
    pub quota: u64,
}

/// What was seen of a directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Look {
    last: Reading,
    /// From when on a rate is measured.
    since: Reading,
    lately: Lately,
    /// From when on it is counted what is used of one period's quota.
    stroke_since: Reading,
    /// From when on nobody has used any, nor waited for it.
    idle_since: Reading,
    /// Whether its part was met since the look before.
    is_told: bool,
    is_doubtful: bool,
    claimant: Claimant,
}

/// What was used in the last half second or more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Lately {
    /// From when on is counted what is added.
    since: Reading,
    /// Whether this was used in the time before that.
    this: bool,
    /// Whether anything of the kind was.
    any: bool,
}

impl Lately {
    fn new(now: Reading, before: Option<&Self>) -> Self {
        match before {
            None => Self { since: now, this: false, any: false },
            Some(before) if before.since.until(now) < Look::WINDOW => *before,
            Some(Self { since, .. }) => {
                Self { since: now, this: now.figure > since.figure, any: now.all > since.all }
            }
        }
    }

    /// Whether something else of the kind was used by what is read now, and not this.
    const fn is_of_others(&self, now: Reading) -> bool {
        let is_used = self.this || now.figure > self.since.figure;
        (self.any || now.all > self.since.all) && !is_used
    }
}

impl Look {
    /// A rate is measured over at least this long. A directory uses its part in a stroke at the start of each period, up to a
    /// second long, and then waits: a shorter look sees all or nothing.
    pub const WINDOW: Duration = Duration::from_millis(500);

    /// And over this long where it is told for how long somebody waited, so that it need not be seen whether one does.
    /// Source: a disk lets through what comes in so long at once, DFL_THROTL_SLICE_HD.
    pub const SLICE: Duration = Duration::from_millis(100);

    /// Who has used nothing for this long, and is known not to wait, wants none now.
    pub const REST: Duration = Duration::from_millis(100);

    /// What a reading means, after what was seen before and with what there is.
    pub fn new(kind: LimitKind, reading: Reading, before: Option<&Self>, allowed: Option<Allowed>) -> Self {
        let Reading { figure, .. } = reading;
        let part = allowed.map(|allowed| allowed.part);
        let window = match reading.pressure {
            Some(Pressure::Stalled(_)) => Self::SLICE,
            Some(Pressure::Met { .. }) | None => Self::WINDOW,
        };
        let idle_since = before
            .filter(|before| before.idle_since.is_idle_until(reading))
            .map_or(reading, |it| it.idle_since);
        let (since, used) = match (kind, before) {
            (LimitKind::Amount, _) => (reading, figure),
            (LimitKind::Rate, None) => (reading, 0),
            (LimitKind::Rate, Some(_)) if idle_since.is_long_before(reading) => (reading, 0),
            (LimitKind::Rate, Some(before)) => match before.since.until(reading) {
                passed if passed < window => (before.since, before.claimant.used),
                passed => {
                    let grown = u128::from(figure.saturating_sub(before.since.figure));
                    let rate = u64::try_from(grown * 1_000_000 / passed.as_micros()).unwrap_or(u64::MAX);
                    (reading, rate.min(part.unwrap_or(u64::MAX)))
                }
            },
        };
        let stroke = before.zip(allowed.and_then(|it| it.period)).map(|(before, period)| {
            let is_within = |since: &Reading| since.until(reading) <= period.length;
            // While nothing is used, it has not begun.
            let is_begun = before.stroke_since.figure != before.last.figure;
            let since = Some(before.stroke_since).filter(|since| is_begun && is_within(since));
            let since = since.unwrap_or(before.last);
            (since, if is_within(&since) { figure.saturating_sub(since.figure) } else { 0 }, period.quota)
        });
        let has_used_up = stroke.is_some_and(|(_, used, quota)| is_near(used, quota));
        // Who has nothing, and nothing tells whether it wants some, may.
        let may_want = part == Some(0) && reading.pressure.is_none();
        let has_met = may_want || has_used_up || part.is_some_and(|part| is_near(used, part));
        let is_told = before.is_some_and(|before| before.is_pressed_by(reading));
        let hungry = has_met || is_told;
        let has_begun = idle_since == reading && before.is_some_and(Self::is_idle);
        let is_much = stroke.is_some_and(|(_, used, quota)| used >= quota / 8)
            || before.and_then(|before| before.last.stalled_until(reading)).is_some_and(is_an_eighth);
        Self {
            last: reading,
            since,
            lately: Lately::new(reading, before.map(|before| &before.lately)),
            // What is used of a quota is counted once.
            stroke_since: stroke.filter(|_| !has_used_up).map_or(reading, |(since, ..)| since),
            idle_since,
            is_told,
            is_doubtful: has_begun && is_much && !hungry,
            claimant: Claimant { used, hungry },
        }
    }

    /// What it claims.
    pub const fn claimant(&self) -> Claimant {
        self.claimant
    }

    /// Whether its part was met since the look before.
    pub const fn is_told(&self) -> bool {
        self.is_told
    }

    /// Whether somebody has begun to use some, or to wait, since the look before: another look soon tells whether that is
    /// for more than there is.
    pub const fn is_doubtful(&self) -> bool {
        self.is_doubtful
    }

    /// Whether nothing was used between the look before and this one, and nobody waited, as far as that is told.
    fn is_idle(&self) -> bool {
        self.idle_since != self.last
    }

    /// Whether its part was met since this look. To wait is to have met it if it was most of the time: everybody waits a little
    /// for a disk.
    fn is_pressed_by(&self, now: Reading) -> bool {
        match (self.last.pressure, now.pressure) {
            (_, None) => false,
            (_, Some(Pressure::Stalled(_))) => {
                self.last.stalled_until(now).is_some_and(|(stalled, passed)| {
                    !self.lately.is_of_others(now) && !stalled.is_zero() && stalled * 2 >= passed
                })
            }
            (Some(Pressure::Met { times: before, .. }), Some(Pressure::Met { times, .. })) => times > before,
            // It was not there yet.
            (_, Some(Pressure::Met { times, .. })) => times > 0,
        }
    }
}

/// Whether somebody waited for an eighth of a time at least.
fn is_an_eighth((stalled, passed): (Duration, Duration)) -> bool {
    !stalled.is_zero() && stalled * 8 >= passed
}

/// Whether somebody who uses this much comes near its part.
const fn is_near(used: u64, part: u64) -> bool {
    used > 0 && used >= part - part / 8
}

/// Who of an amount is hungry: if the kernel told that parts were met, those who met them; they come before those whose use is
/// near their part. Otherwise those who are near, and those too who would come near by what these are given: or each would take
/// from the other in turn, though nothing changes. `parts`: what each would get.
///
/// ```
/// # use std::time::Duration;
/// # use pinfold_model::{Claimant, LimitKind::Amount, Look, Reading, divide, settle};
/// let uses_one = Reading { at: Duration::ZERO, figure: 1, pressure: None, all: 0 };
/// let mut looks = [2, 1].map(|part: u64| Look::new(Amount, uses_one, None, Some(part.into())));
/// let parts = |claimants: &[Claimant]| divide(Amount, 3, claimants);
/// assert_eq!(parts(&looks.map(|look| look.claimant())), [1, 2], "and then it is the other's turn");
/// settle(&mut looks, parts);
/// assert_eq!(parts(&looks.map(|look| look.claimant())), [2, 1]);
/// ```
pub fn settle(looks: &mut [Look], parts: impl Fn(&[Claimant]) -> Vec<u64>) {
    if looks.iter().any(|look| look.is_told) {
        return looks.iter_mut().for_each(|look| look.claimant.hungry = look.is_told);
    }
    while looks.iter().any(|look| look.claimant.hungry) {
        let claimants: Vec<Claimant> = looks.iter().map(Look::claimant).collect();
        let parts = parts(&claimants).into_iter();
        let would = looks.iter_mut().zip(parts);
        let would = would.filter(|(look, part)| !look.claimant.hungry && is_near(look.claimant.used, *part));
        if would.map(|(look, _)| look.claimant.hungry = true).count() == 0 {
            break;
        }
    }
}

/// Whether other parts are worth writing. `had`, `gets`: the part of each, now and then.
///
/// Somebody gains by them. Of an amount of whom the kernel tells who met its part, and told of nobody, fewer are near their part
/// then: so nothing is written again and again while nothing changes.
pub fn are_worth_writing(kind: LimitKind, limit: u64, looks: &[Look], had: &[u64], gets: &[u64]) -> bool {
    let is_alone = looks.iter().filter(|look| look.claimant.hungry).count() == 1;
    let gains =
        |((look, had), gets): ((&Look, &u64), &u64)| look.claimant.gains(kind, limit, *had, *gets, is_alone);
    let near = |parts: &[u64]| {
        looks.iter().zip(parts).filter(|(look, part)| is_near(look.claimant.used, **part)).count()
    };
    let would_be_told = |look: &Look| !look.is_told && look.last.pressure.is_some();
    let is_quiet = kind == LimitKind::Amount && looks.iter().all(would_be_told);
    looks.iter().zip(had).zip(gets).any(gains) && (!is_quiet || near(gets) < near(had))
}

/// Of what nobody uses, the part that is kept for those who want nothing now: they get on with it until the
/// next division, and a lone consumer still has more than nine tenths of the limit.
const RESERVE: u64 = 16;

/// The part of each. Their sum is the limit: never more (I5).
///
/// Of an amount, as long as less than the limit is used, nobody's part is less than what it uses; the rest goes to the hungry in
/// equal parts, but for a small reserve of the others: of few, one each if as many are left for the hungry. It goes to all alike
/// if nobody is hungry. If more is used than the limit, the parts are in proportion to use.
///
/// A rate can be taken back: all the hungry have equal parts of it, whoever came first, and nobody has more than they but who
/// wants no more.
///
/// ```
/// # use pinfold_model::{Claimant, LimitKind::{Amount, Rate}, divide};
/// let idle = Claimant { used: 10, hungry: false };
/// let hungry = Claimant { used: 50, hungry: true };
/// let late = Claimant { used: 6, hungry: true };
/// assert_eq!(divide(Amount, 100, &[idle, hungry]), [12, 88]);
/// assert_eq!(divide(Amount, 100, &[idle, idle]), [50, 50]);
/// assert_eq!(divide(Amount, 62, &[idle, hungry]), [11, 51]);
/// assert_eq!(divide(Amount, 30, &[idle, hungry]), [5, 25]);
/// assert_eq!(divide(Amount, 100, &[late, hungry]), [28, 72]);
/// assert_eq!(divide(Rate, 100, &[late, hungry]), [50, 50]);
/// assert_eq!(divide(Rate, 100, &[idle, hungry]), [20, 80]);
/// assert_eq!(divide(Rate, 30, &[]), []);
/// ```
pub fn divide(kind: LimitKind, limit: u64, claimants: &[Claimant]) -> Vec<u64> {
    let mut parts = match kind {
        LimitKind::Rate if claimants.iter().any(|claimant| claimant.hungry) => fairly(limit, claimants),
        LimitKind::Rate | LimitKind::Amount => by_use(limit, claimants),
    };
    // What divisions leave over goes to the first who is hungry, or to the first.
    let rest = limit.saturating_sub(parts.iter().fold(0, |sum, part| sum.saturating_add(*part)));
    let first = claimants.iter().position(|claimant| claimant.hungry).unwrap_or(0);
    if let Some(part) = parts.get_mut(first) {
        *part += rest;
    }
    parts
}

/// As [`divide`], with no part below the least that there can be, as long as these come to no more than the limit. Otherwise those who would
/// have less have to be given that: together they have more than the limit.
///
/// ```
/// # use pinfold_model::{Claimant, LimitKind::Rate, divide_with_least};
/// let idle = Claimant { used: 0, hungry: false };
/// let hungry = Claimant { used: 50, hungry: true };
/// assert_eq!(divide_with_least(Rate, 100, &[idle, hungry], 10), [15, 85]);
/// assert_eq!(divide_with_least(Rate, 20, &[idle, hungry], 10), [10, 10]);
/// assert_eq!(divide_with_least(Rate, 16, &[idle, hungry], 10), [1, 15]);
/// ```
pub fn divide_with_least(kind: LimitKind, limit: u64, claimants: &[Claimant], least: u64) -> Vec<u64> {
    match limit.checked_sub(least.saturating_mul(claimants.len() as u64)) {
        Some(rest) => {
            let beyond = |one: &Claimant| Claimant { used: one.used.saturating_sub(least), ..*one };
            let claimants: Vec<Claimant> = claimants.iter().map(beyond).collect();
            divide(kind, rest, &claimants).into_iter().map(|part| part + least).collect()
        }
        None => divide(kind, limit, claimants),
    }
}

/// Has those who want no more keep what they had where that is nearly what they would get, so that few parts are written: those who
/// want more have a little more or less for it, a 32nd of the limit at most. `had`: `None` where there was no part.
///
/// ```
/// # use pinfold_model::{Claimant, LimitKind::Rate, keep_what_others_had};
/// let idle = Claimant { used: 0, hungry: false };
/// let hungry = Claimant { used: 50, hungry: true };
/// let keep = |had: [Option<u64>; 3], mut gets: [u64; 3]| {
///     keep_what_others_had(Rate, 1000, &[idle, hungry, idle], &had, &mut gets);
///     gets
/// };
/// assert_eq!(keep([Some(32), Some(936), Some(32)], [31, 938, 31]), [32, 936, 32]);
/// assert_eq!(keep([Some(32), Some(918), Some(50)], [31, 938, 31]), [32, 937, 31]);
/// assert_eq!(keep([None, Some(936), Some(31)], [31, 938, 31]), [31, 938, 31]);
/// ```
pub fn keep_what_others_had(
    kind: LimitKind,
    limit: u64,
    claimants: &[Claimant],
    had: &[Option<u64>],
    parts: &mut [u64],
) {
    let kept = |((claimant, had), gets): ((&Claimant, &Option<u64>), &u64)| {
        had.filter(|had| !claimant.hungry && had.abs_diff(*gets) <= gets / 8 && *had >= claimant.used)
    };
    let mut next: Vec<u64> =
        claimants.iter().zip(had).zip(parts.iter()).map(|it| kept(it).unwrap_or(*it.1)).collect();
    let sum = |parts: &[u64]| parts.iter().map(|part| i128::from(*part)).sum::<i128>();
    let beyond = sum(&next) - sum(parts);
    let hungry: Vec<usize> = (0..claimants.len()).filter(|at| claimants[*at].hungry).collect();
    let count = hungry.len() as i128;
    if count == 0 || beyond.abs() * 32 > i128::from(limit) {
        return;
    }
    let (each, over) = (beyond.div_euclid(count), beyond.rem_euclid(count));
    for (at, number) in hungry.into_iter().zip(0_i128..) {
        let part = i128::from(next[at]) - each - i128::from(number < over);
        let is_enough = kind == LimitKind::Rate || part >= i128::from(claimants[at].used);
        match u64::try_from(part) {
            Ok(part) if is_enough => next[at] = part,
            _ => return,
        }
    }
    parts.copy_from_slice(&next);
}

/// Parts of a rate of which some want more: the level up to which everybody has what it wants.
fn fairly(limit: u64, claimants: &[Claimant]) -> Vec<u64> {
    // Half as much again as was seen, so that it meets its part no sooner than it wants more.
    let wants = |claimant: &Claimant| u128::from(claimant.used) + u128::from(claimant.used / 2);
    let mut others: Vec<u128> = claimants.iter().filter(|claimant| !claimant.hungry).map(wants).collect();
    others.sort_unstable();
    let count = others.len() as u128;
    let free = u128::from(limit).saturating_sub(others.iter().sum());
    let reserve = if count == 0 { 0 } else { free / u128::from(RESERVE) };
    let (mut left, mut who) = (u128::from(limit) - reserve, claimants.len() as u128);
    for wants in others.into_iter().take_while(|wants| *wants <= u128::from(limit)) {
        if wants * who > left {
            break;
        }
        (left, who) = (left - wants, who - 1);
    }
    let level = left / who;
    let part = |claimant: &Claimant| match claimant.hungry {
        true => level,
        false => wants(claimant).min(level) + reserve / count,
    };
    claimants.iter().map(|claimant| u64::try_from(part(claimant)).unwrap_or(limit)).collect()
}

/// Parts by what is used.
fn by_use(limit: u64, claimants: &[Claimant]) -> Vec<u64> {
    let used: u128 = claimants.iter().map(|claimant| u128::from(claimant.used)).sum();
    let free = u128::from(limit).saturating_sub(used);
    let hungry = claimants.iter().filter(|claimant| claimant.hungry).count() as u128;
    let others = claimants.len() as u128 - hungry;
    let reserve = match (hungry, others) {
        (0, _) => free,
        (_, 0) => 0,
        _ => (free / u128::from(RESERVE)).max(others.min(free / 2)),
    };
    let (for_hungry, for_others) = (free - reserve, reserve);
    // What these divisions leave over: one each for the first of them.
    let (mut over_hungry, mut over_others) = (for_hungry % hungry.max(1), for_others % others.max(1));
    let mut part = |claimant: &Claimant| {
        let own = u128::from(claimant.used);
        if used > u128::from(limit) {
            return own * u128::from(limit) / used;
        }
        let (each, over) = match claimant.hungry {
            true => (for_hungry / hungry, &mut over_hungry),
            false => (for_others / others, &mut over_others),
        };
        let one = (*over).min(1);
        *over -= one;
        own + each + one
    };
    claimants.iter().map(|claimant| u64::try_from(part(claimant)).unwrap_or(limit)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kind() -> impl Strategy<Value = LimitKind> {
        prop::sample::select(vec![LimitKind::Amount, LimitKind::Rate])
    }

    fn claimants() -> impl Strategy<Value = Vec<Claimant>> {
        let claimant = (prop_oneof![0..1000_u64, any::<u64>()], any::<bool>());
        prop::collection::vec(claimant.prop_map(|(used, hungry)| Claimant { used, hungry }), 1..12)
    }

    proptest! {
        #[test]
        fn parts_come_to_as_much_when_others_keep_theirs(
            kind in kind(),
            limit in any::<u64>(),
            claimants in claimants(),
            had in prop::collection::vec(any::<Option<u64>>(), 12),
            near in prop::collection::vec(any::<bool>(), 12),
        ) {
            let gets = divide(kind, limit, &claimants);
            let had: Vec<Option<u64>> = gets
                .iter()
                .zip(had.iter().zip(near))
                .map(|(gets, (had, near))| if near { Some(gets - gets / 9) } else { *had })
                .collect();
            let mut parts = gets.clone();
            keep_what_others_had(kind, limit, &claimants, &had, &mut parts);
            let sum = |parts: &[u64]| parts.iter().map(|part| u128::from(*part)).sum::<u128>();
            prop_assert_eq!(sum(&parts), sum(&gets));
            for ((part, gets), claimant) in parts.iter().zip(&gets).zip(&claimants) {
                prop_assert!(*part >= *gets - gets / 8 || *part + limit / 32 + 1 >= *gets);
                prop_assert!(kind == LimitKind::Rate || *part >= claimant.used.min(*gets));
            }
        }

        #[test]
        fn parts_never_sum_to_more_than_the_limit(kind in kind(), limit in any::<u64>(), claimants in claimants()) {
            let parts = divide(kind, limit, &claimants);
            let sum: u128 = parts.iter().map(|part| u128::from(*part)).sum();
            prop_assert_eq!(sum, u128::from(limit));
        }

        #[test]
        fn nobody_has_less_than_it_uses_if_the_limit_allows_it(more in 0..u64::from(u32::MAX), mut claimants in claimants()) {
            claimants.iter_mut().for_each(|claimant| claimant.used %= 1 << 40);
            let limit = claimants.iter().map(|claimant| claimant.used).sum::<u64>() + more;
            for (part, claimant) in divide(LimitKind::Amount, limit, &claimants).iter().zip(&claimants) {
                prop_assert!(*part >= claimant.used);
            }
        }

        #[test]
        fn nobody_has_less_of_a_rate_than_an_equal_part_of_it_or_what_it_uses(
            limit in 1..u64::MAX / 2,
            mut claimants in claimants(),
        ) {
            claimants[0].hungry = true;
            // But for the reserve, and what a division leaves over.
            let equal = (limit - limit / RESERVE) / claimants.len() as u64;
            for (part, claimant) in divide(LimitKind::Rate, limit, &claimants).iter().zip(&claimants) {
                let least = if claimant.hungry { equal } else { claimant.used.min(equal) };
                prop_assert!(*part + claimants.len() as u64 >= least, "{part} of {least}");
            }
        }

        #[test]
        fn a_lone_consumer_reaches_nine_tenths_of_the_limit(
            kind in kind(),
            limit in prop_oneof![1..40_u64, 1..u64::MAX / 2],
            others in 1..40_usize,
        ) {
            let mut claimants = vec![Claimant { used: 0, hungry: false }; others];
            claimants.push(Claimant { used: 0, hungry: true });
            for _ in 0..64 {
                let parts = divide(kind, limit, &claimants);
                claimants[others].used = parts[others]; // it takes all that it is given
            }
            prop_assert!(u128::from(claimants[others].used) * 10 >= u128::from(limit) * 9);
        }
    }

    #[test]
    fn a_rate_is_written_for_an_eighth_more_or_for_a_lone_one_to_have_nine_tenths() {
        for (had, gets, is_alone, is_worth) in [
            (50, 56, false, false),
            (50, 57, false, true),
            (88, 95, false, false),
            (88, 95, true, true),
            (82, 89, true, false), // not nine tenths yet: it will be when the others use less
            (90, 100, true, false),
            (0, 1, false, true),
        ] {
            let hungry = Claimant { used: had, hungry: true };
            assert_eq!(
                hungry.gains(LimitKind::Rate, 100, had, gets, is_alone),
                is_worth,
                "{had} to {gets}, alone: {is_alone}"
            );
        }
    }

    #[test]
    fn who_has_less_than_it_uses_gains_by_having_that() {
        let gains =
            |used, had| Claimant { used, hungry: true }.gains(LimitKind::Amount, 2000, had, 1012, false);
        assert_eq!(
            [(1010, 1000), (1010, 1010), (1020, 1000)].map(|(used, had)| gains(used, had)),
            [true, false, false]
        );
    }

    /// What a look makes of a directory with a part of 100, 50 ms after another that saw 10 used.
    fn is_hungry(
        kind: LimitKind,
        pressure: [Option<Pressure>; 2],
        figure: u64,
        part: u64,
        others: u64,
    ) -> bool {
        let reading = |millis, figure, pressure, others| Reading {
            at: Duration::from_millis(millis),
            figure,
            pressure,
            all: figure + others,
        };
        let before = Look::new(kind, reading(1000, 10, pressure[0], 5), None, Some(part.into()));
        let now = reading(1050, figure, pressure[1], others);
        Look::new(kind, now, Some(&before), Some(part.into())).claimant().hungry
    }

    #[test]
    fn who_has_all_of_its_part_of_a_disk_wants_more_though_it_waits_for_a_third_of_the_time() {
        let reading = |look: u64| Reading {
            at: Duration::from_millis(1000 + 50 * look),
            figure: 5 * look,
            pressure: Some(Pressure::Stalled(Duration::from_millis(17 * look))),
            all: 5 * look,
        };
        let mut look = Look::new(LimitKind::Rate, reading(0), None, Some(100.into()));
        let mut is_hungry = |at| {
            look = Look::new(LimitKind::Rate, reading(at), Some(&look), Some(100.into()));
            look.claimant().hungry
        };
        assert_eq!([1, 2, 3].map(&mut is_hungry), [false, true, true]);
    }

    /// What looks every 50 ms make of a directory that was idle: `+` it wants more, `?` that is in doubt, `-` neither.
    fn seen(allowed: Allowed, figures: [u64; 3], pressure: impl Fn(u64) -> Pressure) -> String {
        let reading = |at: u64| {
            let figure = figures.iter().take(at.saturating_sub(1) as usize).sum();
            Reading {
                at: Duration::from_millis(1000 + 50 * at),
                figure,
                pressure: Some(pressure(at)),
                all: figure,
            }
        };
        let mut look = Look::new(LimitKind::Rate, reading(0), None, Some(allowed));
        let seen = (1..5).map(|at| {
            look = Look::new(LimitKind::Rate, reading(at), Some(&look), Some(allowed));
            match (look.claimant().hungry, look.is_doubtful()) {
                (true, _) => '+',
                (false, true) => '?',
                (false, false) => '-',
            }
        });
        seen.skip(1).collect()
    }

    #[test]
    fn who_uses_up_a_quota_wants_more_before_its_period_ends() {
        for (length, figures, expected) in [
            (1000, [100, 0, 0], "+--"),
            (1000, [50, 50, 0], "?+-"),
            (1000, [50, 20, 0], "?--"),
            (1000, [8, 8, 8], "---"),
            (100, [50, 50, 0], "?+-"),
            (100, [40, 40, 40], "?--"),
            (40, [100, 100, 100], "---"), // the kernel tells at the end of a period, which is sooner than a look
        ] {
            let period = Period { length: Duration::from_millis(length), quota: 100 };
            let allowed = Allowed { part: 100_000 / length, period: Some(period) };
            let seen = seen(allowed, figures, |_| Pressure::Met { times: 0, periods: Some(0) });
            assert_eq!(seen, expected, "{figures:?} of 100 in {length} ms");
        }
    }

    #[test]
    fn who_begins_to_wait_for_a_disk_is_looked_at_again_soon() {
        for (millis, expected) in [
            ([50, 50, 50], "+++"),
            ([10, 50, 50], "?++"),
            ([10, 10, 10], "?--"), // it goes on like that
            ([6, 0, 6], "---"),
        ] {
            let stalled = |at: u64| millis.iter().take(at.saturating_sub(1) as usize).sum();
            let seen = seen(100.into(), [0; 3], |at| Pressure::Stalled(Duration::from_millis(stalled(at))));
            assert_eq!(seen, expected, "{millis:?}");
        }
    }

    #[test]
    fn who_waits_for_the_end_of_a_period_is_not_idle() {
        // Of periods of 400 ms: in the first it uses its part at once and waits, in the second it wants nothing.
        let reading = |look: u64| Reading {
            at: Duration::from_millis(1000 + 50 * look),
            figure: if look == 0 { 0 } else { 100 },
            pressure: Some(Pressure::Met { times: look.min(8) / 8, periods: Some(look / 8) }),
            all: 0,
        };
        let mut look = Look::new(LimitKind::Rate, reading(0), None, Some(200.into()));
        let used: Vec<u64> = (1..18)
            .map(|at| {
                look = Look::new(LimitKind::Rate, reading(at), Some(&look), Some(200.into()));
                look.claimant().used
            })
            .collect();
        let mut expected = vec![0; 9];
        expected.extend([200; 6]);
        expected.extend([0; 2]);
        assert_eq!(used, expected);
    }

    #[test]
    fn who_meets_its_part_wants_more_before_a_rate_can_be_measured() {
        let stalled = |millis| Some(Pressure::Stalled(Duration::from_millis(millis)));
        let met = |times| Some(Pressure::Met { times, periods: None });
        for (kind, pressure, figure, part, others, hungry) in [
            (LimitKind::Amount, [met(3), met(3)], 87, 100, 5, false),
            (LimitKind::Amount, [met(3), met(3)], 88, 100, 5, true),
            (LimitKind::Amount, [met(3), met(4)], 10, 100, 5, true),
            (LimitKind::Amount, [met(3), met(3)], 0, 0, 5, false),
            (LimitKind::Amount, [None, met(1)], 0, 0, 5, true), // it was made meanwhile
            (LimitKind::Amount, [None, None], 0, 0, 5, true),   // nobody would tell
            (LimitKind::Rate, [stalled(7), stalled(57)], 10, 100, 5, true),
            (LimitKind::Rate, [stalled(7), stalled(31)], 10, 100, 5, false),
            (LimitKind::Rate, [stalled(7), stalled(57)], 10, 100, 6, false), // of what has no limit, perhaps
            (LimitKind::Rate, [stalled(7), stalled(57)], 11, 100, 6, true),
            (LimitKind::Rate, [None, stalled(57)], 10, 100, 5, false), // since when is not known
        ] {
            let is = is_hungry(kind, pressure, figure, part, others);
            assert_eq!(is, hungry, "{kind:?} {pressure:?} {figure} of {part}");
        }
    }
}
