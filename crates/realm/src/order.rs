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
    /// then raise those that are to have more. The others stay in their order.
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
        let (mut lowered, mut raised) = (Vec::new(), Vec::new());
        for step in steps {
            let (Step::Write { dir, file, text } | Step::Entry { dir, file, text }) = &step else {
                lowered.push(step);
                continue;
            };
            let now = match parts.contains(&(*file, dir)) {
                true => self.text_of(dir, file)?,
                false => None,
            };
            let low = now.and_then(|now| match step {
                Step::Entry { .. } => lesser_entry(&now, text),
                _ => lesser(now.trim_end(), text),
            });
            match low {
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
}

/// The same write of another text.
fn with_text(step: &Step, text: String) -> Step {
    match step.clone() {
        Step::Write { dir, file, .. } => Step::Write { dir, file, text },
        Step::Entry { dir, file, .. } => Step::Entry { dir, file, text },
        other => other,
    }
}

/// The lesser of two values, the first word of each: `max` is the greatest. What follows (a period) is part of the measure: if
/// that differs, the values cannot be compared.
fn lesser(now: &str, wanted: &str) -> Option<String> {
    let (word, rest) = wanted.split_once(' ').unwrap_or((wanted, ""));
    let (word_now, rest_now) = now.split_once(' ').unwrap_or((now, ""));
    let low = lesser_number(word_now, word).filter(|_| rest == rest_now)?;
    Some(if rest.is_empty() { low.to_owned() } else { format!("{low} {rest}") })
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
    let number = |word: &str| if word == "max" { Some(u64::MAX) } else { word.parse().ok() };
    Some(if number(one)? < number(other)? { one } else { other })
}

#[cfg(test)]
mod tests {
    use super::{lesser, lesser_entry};

    #[test]
    fn a_part_is_not_raised_before_the_others_are_lowered() {
        for (now, wanted, low) in [
            ("12", "20", Some("12")),
            ("20", "12", Some("12")),
            ("max", "12", Some("12")),
            ("12", "max", Some("12")),
            ("max 100000", "40000 100000", Some("40000 100000")),
            ("30000 100000", "40000 100000", Some("30000 100000")),
            ("30000 50000", "40000 100000", None), // another period: not to be compared
            ("", "12", None),
        ] {
            assert_eq!(lesser(now, wanted).as_deref(), low, "{now:?}, {wanted:?}");
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
