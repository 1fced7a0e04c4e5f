//! CPU time by CPU. The totals are those of cpu.stat; what is told of each CPU is how they are divided.
//!
//! What was shown is kept, and only what a total has grown by since is divided: by what was measured on each CPU since, and where
//! more was used than was measured, that evenly over the CPUs that are online. So the figures always sum to the total, and none
//! goes back while the total does not. Where nothing is measured all is spread, and nothing has to be kept.

use pinfold_model::{Key, Value};

use super::{USAGE, USAGE_SYS, USAGE_USER, nanoseconds};
use crate::counter::{Counter, Field, Fold};
use crate::entries::Entries;
use crate::sight::Sight;
use crate::table::Source;

const fn by_cpu(key: &'static str, source: Source) -> Counter {
    Counter { key: Key(key), source, field: Field::Entries, fold: Fold::Sum }
}

/// What was measured, since this daemon began to.
pub(super) static MEASURED: Counter = by_cpu("cpuacct.measured", Source::Measured);
/// What of that is part of the figures that were shown.
pub(super) static SEEN: Counter = by_cpu("cpuacct.measured.shown", Source::Nowhere);
/// The figures that were shown.
pub(super) static SHOWN: Counter = by_cpu("cpuacct.usage_all.shown", Source::Nowhere);

/// How much of what was measured waits at most to be shown: longer than this no CPU goes without a switch, since the kernel's
/// watchdog has a thread on each every 4 s. Without a bound, what the clock counts and cpu.stat does not (time that a
/// hypervisor took) would add up, and weigh for ever.
const WAITS: u64 = 4_000_000_000;

/// A total, and the name of its figures in [`SHOWN`].
const TOTALS: [(&Counter, &str); 3] = [(&USAGE, "usage"), (&USAGE_USER, "user"), (&USAGE_SYS, "sys")];

/// Figures of each possible CPU.
pub(super) struct ByCpu {
    pub(super) usage: Vec<u64>,
    pub(super) user: Vec<u64>,
    pub(super) sys: Vec<u64>,
}

/// What the group shows now, and what it keeps of that.
pub(super) fn by_cpu_now(sight: &Sight<'_>) -> (ByCpu, Vec<(Key, Option<Value>)>) {
    let is_measured = sight.v2.of(Source::Measured).next().is_some();
    let totals = TOTALS.map(|(counter, _)| nanoseconds(sight, counter));
    let even = |time| spread(time, sight.facts.possible_cpus, &sight.facts.online_cpus);
    let is_kept = totals.iter().all(|total| i64::try_from(*total).is_ok());
    if !is_kept || !is_measured && sight.settings().get(SHOWN.key).is_none() {
        let [usage, user, sys] = totals.map(even);
        return (ByCpu { usage, user, sys }, Vec::new());
    }
    let of_cpus = |entries: &Entries, name: &str| -> Vec<u64> {
        (0..sight.facts.possible_cpus).map(|cpu| entries.get(&cpu.to_string(), name)).collect()
    };
    let measured = of_cpus(&sight.entries(&MEASURED), "");
    let seen = of_cpus(&sight.entries(&SEEN), "");
    let fresh: Vec<u64> = measured.iter().zip(&seen).map(|(all, seen)| all.saturating_sub(*seen)).collect();
    let shown = sight.entries(&SHOWN);
    let before = |at: usize| {
        let figures = of_cpus(&shown, TOTALS[at].1);
        // What went back without a reset (a stranger removed a directory) is told anew.
        if sum(&figures) <= totals[at] { figures } else { vec![0; figures.len()] }
    };
    let usage_before = before(0);
    let (grown, waiting) = divide(totals[0] - sum(&usage_before), &fresh, even);
    let usage = added(usage_before, &grown);
    let [user, sys] = [1, 2].map(|at| {
        let before = before(at);
        let more = totals[at] - sum(&before);
        let weights = [&grown, &usage].into_iter().find(|weights| sum(weights) > 0);
        let more = weights.map_or_else(|| even(more), |weights| apportion(more, weights));
        added(before, &more)
    });
    let seen: Vec<u64> =
        measured.iter().zip(&waiting).map(|(all, waits)| all.saturating_sub(*waits)).collect();
    let figures = ByCpu { usage, user, sys };
    let kept = vec![(SEEN.key, kept(&[("", &seen)])), (SHOWN.key, figures.kept())];
    (figures, kept)
}

impl ByCpu {
    fn kept(&self) -> Option<Value> {
        kept(&[("usage", &self.usage), ("user", &self.user), ("sys", &self.sys)])
    }
}

/// Figures with these names, of each CPU, as a group keeps them.
fn kept(columns: &[(&str, &[u64])]) -> Option<Value> {
    let mut text = String::new();
    for cpu in 0..columns.first().map_or(0, |(_, figures)| figures.len()) {
        text += &cpu.to_string();
        for (name, figures) in columns {
            let sign = if name.is_empty() { "" } else { "=" };
            text += &format!(" {name}{sign}{}", figures[cpu]);
        }
        text.push('\n');
    }
    Entries::parse(&text).kept()
}

/// Divides time over CPUs, of which some was measured on each: what that is not enough for evenly. Also what of the measured
/// is not needed yet.
fn divide(time: u64, measured: &[u64], even: impl Fn(u64) -> Vec<u64>) -> (Vec<u64>, Vec<u64>) {
    let all = sum(measured);
    if all <= time {
        return (added(even(time - all), measured), vec![0; measured.len()]);
    }
    let given = apportion(time, measured);
    let waiting: Vec<u64> = measured.iter().zip(&given).map(|(all, given)| all - given).collect();
    let waiting = if sum(&waiting) > WAITS { apportion(WAITS, &waiting) } else { waiting };
    (given, waiting)
}

/// Divides time in proportion to weights, not all of which are 0. The parts sum to it, and while it is not more than the sum of
/// the weights, no part is more than its weight.
fn apportion(time: u64, weights: &[u64]) -> Vec<u64> {
    // So that the product below is one of 128 bits.
    let most = u64::MAX / u64::try_from(weights.len().max(1)).unwrap_or(u64::MAX);
    let weights = weights.iter().map(|weight| u128::from((*weight).min(most)));
    let all = weights.clone().sum::<u128>().max(1);
    let upto = |sum: u128| u64::try_from(u128::from(time) * sum / all).unwrap_or(u64::MAX);
    let sums = weights.scan(0, |sum, weight| {
        let before = *sum;
        *sum += weight;
        Some((before, *sum))
    });
    sums.map(|(before, sum)| upto(sum) - upto(before)).collect()
}

/// Time spread evenly over the CPUs that are online, the remainder on the first; one figure for each possible CPU.
pub(super) fn spread(time: u64, possible: usize, online: &[usize]) -> Vec<u64> {
    let online: Vec<usize> = online.iter().copied().filter(|cpu| *cpu < possible).collect();
    let count = u64::try_from(online.len().max(1)).expect("no machine has 2^64 CPUs");
    let mut figures = vec![0; possible];
    for cpu in &online {
        figures[*cpu] = time / count;
    }
    if let Some(first) = figures.get_mut(online.first().copied().unwrap_or(0)) {
        *first = time - time / count * (count - 1);
    }
    figures
}

fn sum(figures: &[u64]) -> u64 {
    figures.iter().fold(0, |sum, figure| sum.saturating_add(*figure))
}

fn added(mut figures: Vec<u64>, more: &[u64]) -> Vec<u64> {
    figures.iter_mut().zip(more).for_each(|(figure, more)| *figure += more);
    figures
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parts_sum_to_the_whole_and_none_is_more_than_its_weight(
            weights in proptest::collection::vec(0..=1_u64 << 50, 1..9),
            time in any::<u64>(),
        ) {
            prop_assume!(sum(&weights) > 0);
            prop_assert_eq!(sum(&apportion(time, &weights)), time);
            let within = time % (sum(&weights) + 1);
            let parts = apportion(within, &weights);
            prop_assert_eq!(sum(&parts), within);
            prop_assert!(parts.iter().zip(&weights).all(|(part, weight)| part <= weight), "{parts:?}");
            let huge: Vec<u64> = weights.iter().map(|weight| weight.saturating_mul(1 << 40)).collect();
            prop_assert_eq!(sum(&apportion(time, &huge)), time);
        }

        #[test]
        fn what_was_measured_is_given_once_or_waits(
            measured in proptest::collection::vec(0..=WAITS / 8, 1..9),
            time in 0..=WAITS,
        ) {
            let even = |time| spread(time, measured.len(), &(0..measured.len()).collect::<Vec<_>>());
            let (given, waiting) = divide(time, &measured, even);
            prop_assert_eq!(sum(&given), time);
            if sum(&measured) >= time {
                prop_assert_eq!(added(given, &waiting), measured);
            } else {
                prop_assert!(given.iter().zip(&measured).all(|(given, measured)| given >= measured));
                prop_assert_eq!(sum(&waiting), 0);
            }
        }
    }

    #[test]
    fn what_the_clock_counts_and_nobody_used_does_not_wait_for_ever() {
        let (given, waiting) = divide(10, &[9 * WAITS, WAITS], |_| unreachable!("enough was measured"));
        assert_eq!(given, [9, 1]);
        assert_eq!(waiting, [WAITS / 10 * 9, WAITS / 10]);
    }
}
