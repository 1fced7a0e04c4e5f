//! In which order the parts of a divided limit are written: nothing gets more before the others have less, so that they sum
//! to no more than the limit at any moment (I5).
//!
//! What a directory had before is asked of the v2 tree. After a restart nobody remembers it, and a file with several values
//! may lower one part and raise another in one write.

use std::collections::HashSet;

use pinfold_kernel::Step;
use pinfold_model::Dir;

use crate::carry::Divided;
use crate::{EffectError, Realm};

impl Realm {
    /// Steps that come to the same, but first lower every part of these limits to what it has and is to have at most, and
    /// then raise those that are to have more. The others stay in their order, and a part that stays as it is is not written: a period, or
    /// what a disk lets through in it, would begin anew.
    pub(crate) fn lowered_first(
        &self,
        steps: Vec<Step>,
        divided: &[Divided],
    ) -> Result<Vec<Step>, EffectError> {
        let files = |one: &Divided| std::iter::once(one.limit.file).chain(one.limit.guard);
        let parts: HashSet<(&str, &Dir)> = divided
            .iter()
            .flat_map(|one| files(one).flat_map(|file| one.dirs.iter().map(move |dir| (file, dir))))
            .collect();
        lowered_first(steps, |dir, file| match parts.contains(&(file, dir)) {
            true => self.text_of(dir, file),
            false => Ok(None),
        })
    }

    /// [`Self::lowered_first`] where nobody could be told that a part cannot be read: then they stay in their order.
    pub(crate) fn lowered_first_if_known(&self, steps: Vec<Step>, divided: &[Divided]) -> Vec<Step> {
        self.lowered_first(steps.clone(), divided).unwrap_or_else(|error| {
            tracing::warn!("parts of a limit are written in any order: {}", crate::error::chain(&error));
            steps
        })
    }
}

/// Puts the steps in order by what each part is now.
fn lowered_first<E>(
    steps: Vec<Step>,
    now: impl Fn(&Dir, &'static str) -> Result<Option<String>, E>,
) -> Result<Vec<Step>, E> {
    let (mut lowered, mut raised) = (Vec::new(), Vec::new());
    for step in steps {
        let (Step::Write { dir, file, text } | Step::Entry { dir, file, text }) = &step else {
            lowered.push(step);
            continue;
        };
        let now = now(dir, file)?;
        let low = now.as_deref().and_then(|now| match step {
            Step::Entry { .. } => lesser_entry(now, text),
            _ => lesser(now.trim_end(), text),
        });
        match low {
            Some(low) if low == *text && now.is_some_and(|now| is_there(&now, &step)) => {}
            Some(low) if low != *text => {
                lowered.push(with_text(&step, low));
                raised.push(step);
            }
            _ => lowered.push(step),
        }
    }
    lowered.append(&mut raised);
    Ok(lowered)
}

/// Whether a file has what a step writes.
fn is_there(now: &str, step: &Step) -> bool {
    match step {
        Step::Write { text, .. } => now.trim_end() == text,
        Step::Entry { text, .. } => text.split_once(' ').is_some_and(|(key, words)| {
            let found = now.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
            found.is_some_and(|found| words.split(' ').all(|word| found.split(' ').any(|it| it == word)))
        }),
        _ => false,
    }
}

/// A write of another text to the file of this one.
fn with_text(step: &Step, text: String) -> Step {
    match step.clone() {
        Step::Write { dir, file, .. } => Step::Write { dir, file, text },
        Step::Entry { dir, file, .. } => Step::Entry { dir, file, text },
        other => other,
    }
}

/// The lesser of two values: `max` is the greatest. What follows a number is a period, of which it is a part.
pub(crate) fn lesser(now: &str, wanted: &str) -> Option<String> {
    let value = |text: &str| {
        let (most, period) = text.split_once(' ').unwrap_or((text, "1"));
        Some((number(most)?, period.parse::<u64>().ok()?))
    };
    let (of_now, of_wanted) = (value(now)?, value(wanted)?);
    let part = |one: (Option<u64>, u64), other: u64| one.0.map(|most| u128::from(most) * u128::from(other));
    let is_less = match (part(of_now, of_wanted.1), part(of_wanted, of_now.1)) {
        (Some(now), Some(wanted)) => now < wanted,
        (now, _) => now.is_some(),
    };
    Some(if is_less { now } else { wanted }.to_owned())
}

/// The lesser of the values of a key, one by one. All that a file without the key has is unlimited.
fn lesser_entry(all: &str, wanted: &str) -> Option<String> {
    let (key, values) = wanted.split_once(' ')?;
    let now = all.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
    let low = |word: &str| match word.split_once('=') {
        Some((name, value)) => {
            let of_name = |word: &&str| word.split_once('=').is_some_and(|(other, _)| other == name);
            let (_, value_now) = now.split(' ').find(of_name)?.split_once('=')?;
            Some(format!("{name}={}", lesser_number(value_now, value)?))
        }
        None => lesser_number(now, word).map(str::to_owned),
    };
    let words: Option<Vec<String>> = values.split(' ').map(low).collect();
    Some(format!("{key} {}", words?.join(" ")))
}

fn lesser_number<'a>(one: &'a str, other: &'a str) -> Option<&'a str> {
    let (of_one, of_other) = (number(one)?, number(other)?);
    Some(if of_one.unwrap_or(u64::MAX) < of_other.unwrap_or(u64::MAX) { one } else { other })
}

/// A limit; `Some(None)`: there is none.
fn number(word: &str) -> Option<Option<u64>> {
    if word == "max" { Some(None) } else { Some(Some(word.parse().ok()?)) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use pinfold_kernel::Step;
    use pinfold_model::{CellId, Claimant, Dir, LimitKind, divide};
    use proptest::prelude::*;

    use super::{lesser, lesser_entry, lowered_first};

    /// The values of one file in some directories, as they are after each write.
    struct Files {
        is_entry: bool,
        values: BTreeMap<Dir, Vec<u64>>,
    }

    impl Files {
        const KEY: &str = "mlx4_0";
        const NAMES: [&str; 2] = ["hca_handle", "hca_object"];

        fn text(&self, values: &[u64]) -> String {
            let words = Self::NAMES.iter().zip(values).map(|(name, value)| format!(" {name}={value}"));
            if self.is_entry {
                format!("{}{}", Self::KEY, words.collect::<String>())
            } else {
                values[0].to_string()
            }
        }

        fn write(&mut self, step: &Step) {
            let (Step::Write { dir, text, .. } | Step::Entry { dir, text, .. }) = step else {
                unreachable!()
            };
            let number = |word: &str| word.split_once('=').map_or(word, |(_, value)| value).parse().unwrap();
            let values = text.split(' ').filter(|word| *word != Self::KEY).map(number).collect();
            self.values.insert(dir.clone(), values);
        }

        fn sums(&self) -> Vec<u64> {
            let of = |at| self.values.values().map(|values| values[at]).sum();
            (0..if self.is_entry { 2 } else { 1 }).map(of).collect()
        }

        fn steps(&self, dirs: &[Dir], parts: &[Vec<u64>]) -> Vec<Step> {
            let step = |(at, dir): (usize, &Dir)| {
                let values: Vec<u64> = parts.iter().map(|parts| parts[at]).collect();
                let (dir, file, text) = (dir.clone(), "a.max", self.text(&values));
                if self.is_entry { Step::Entry { dir, file, text } } else { Step::Write { dir, file, text } }
            };
            dirs.iter().enumerate().map(step).collect()
        }
    }

    fn claimants() -> impl Strategy<Value = Vec<Claimant>> {
        let claimant = (0..40_u64, any::<bool>()).prop_map(|(used, hungry)| Claimant { used, hungry });
        prop::collection::vec(claimant, 4)
    }

    proptest! {
        #[test]
        fn a_daemon_that_is_killed_between_two_writes_leaves_no_more_than_the_limit(
            is_entry in any::<bool>(),
            kind in prop::sample::select(vec![LimitKind::Amount, LimitKind::Rate]),
            limit in 1..100_u64,
            lives in prop::collection::vec((claimants(), claimants(), any::<prop::sample::Index>()), 1..8),
        ) {
            let dirs: Vec<Dir> = (1..=4).map(|at| Dir::REALM.cell(CellId::new(at).unwrap())).collect();
            let values = divide(kind, limit, &lives[0].0).into_iter().map(|part| vec![part; 2]);
            let mut files = Files { is_entry, values: dirs.iter().cloned().zip(values).collect() };
            for (first, second, end) in lives {
                // Each daemon divides by what is used when it starts, and knows nothing of the one before.
                let steps = files.steps(&dirs, &[divide(kind, limit, &first), divide(kind, limit, &second)]);
                let now = |dir: &Dir, _| Ok::<_, ()>(Some(files.text(&files.values[dir])));
                let steps = lowered_first(steps, now).unwrap();
                let end = end.index(steps.len() + 1);
                for step in &steps[..end] {
                    files.write(step);
                    prop_assert!(files.sums().iter().all(|sum| *sum <= limit), "{:?} of {limit}", files.sums());
                }
                if end == steps.len() {
                    prop_assert!(files.sums().iter().all(|sum| *sum == limit), "all of it is given at the end");
                }
            }
        }
    }

    #[test]
    fn a_part_is_not_raised_before_the_others_are_lowered() {
        for (now, wanted, low) in [
            ("12", "20", Some("12")),
            ("20", "12", Some("12")),
            ("max", "12", Some("12")),
            ("12", "max", Some("12")),
            ("max 100000", "40000 100000", Some("40000 100000")),
            ("30000 100000", "40000 100000", Some("30000 100000")),
            ("30000 50000", "40000 100000", Some("40000 100000")),
            ("10000 50000", "40000 100000", Some("10000 50000")),
            ("max 50000", "40000 100000", Some("40000 100000")),
            ("10000 50000", "max 100000", Some("10000 50000")),
            ("max 50000", "max 100000", Some("max 100000")),
            ("", "12", None),
        ] {
            assert_eq!(lesser(now, wanted).as_deref(), low, "{now:?}, {wanted:?}");
        }
    }

    #[test]
    fn a_part_that_stays_as_it_is_is_not_written() {
        let dir = Dir::REALM.cell(CellId::new(1).unwrap());
        let write = |text: &str| Step::Write { dir: dir.clone(), file: "cpu.max", text: text.to_owned() };
        let entry = |text: &str| Step::Entry { dir: dir.clone(), file: "io.max", text: text.to_owned() };
        for (step, now, is_written) in [
            (write("40000 100000"), Some("40000 100000\n"), false),
            (write("40000 100000"), Some("20000 50000\n"), true),
            (write("max"), Some("max\n"), false),
            (write("max 100000"), None, true),
            (entry("254:0 rbps=7 wbps=max"), Some("8:0 rbps=1\n254:0 rbps=7 wbps=max riops=9\n"), false),
            (entry("254:0 rbps=7 wbps=max"), Some("8:0 rbps=7 wbps=max\n"), true),
            (entry("254:0 rbps=7 wbps=max"), Some("254:0 rbps=7 wbps=70 riops=9\n"), true),
        ] {
            let steps =
                lowered_first(vec![step.clone()], |_, _| Ok::<_, ()>(now.map(str::to_owned))).unwrap();
            assert_eq!(!steps.is_empty(), is_written, "{step:?}, {now:?}");
        }
    }

    #[test]
    fn each_value_of_an_entry_is_lowered_by_itself() {
        let all = "8:0 rbps=7 wbps=7 riops=7 wiops=max\n254:0 rbps=5 wbps=max riops=max wiops=9\n";
        for (wanted, low) in [
            ("254:0 rbps=7 wbps=2", Some("254:0 rbps=5 wbps=2")),
            ("254:0 rbps=max wiops=8", Some("254:0 rbps=5 wiops=8")),
            ("25:0 rbps=7", None), // no limit yet
        ] {
            assert_eq!(lesser_entry(all, wanted).as_deref(), low, "{wanted:?}");
        }
        assert_eq!(lesser_entry("sev 5\n", "sev 9").as_deref(), Some("sev 5"));
    }
}
