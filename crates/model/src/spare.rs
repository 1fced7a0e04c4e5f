//! Dividing an amount of which too small a part kills: memory.
//!
//! Who meets its part of such a limit is killed, though others are what fills it. So a directory has some more than it uses, in
//! which it is slowed down and seen before it is killed: also those that want nothing now, and those that somebody just comes
//! to, when one of them has nearly all. That one, the *greatest*, is whom the limit itself would have killed.

use crate::{Claimant, LimitKind, divide};

/// What a directory has more than it uses, if there is as much.
const SLACK: u64 = 4 << 20;

/// Of a limit nearly all of which is used, those who want nothing now have this part together, at most, that they do not use: a
/// lone consumer has more than nine tenths.
const SPARED: u64 = 16;

/// Which of these directories uses most. `None`: none uses any.
pub fn greatest(claimants: &[Claimant]) -> Option<usize> {
    let used = claimants.iter().enumerate().filter(|(_, claimant)| claimant.used > 0);
    used.max_by_key(|(_, claimant)| claimant.used).map(|(at, _)| at)
}

/// As [`divide`], with room to use more for everybody. Where `staying` has a part already, that is the part. `None`: those come to more
/// than the limit.
///
/// ```
/// # use pinfold_model::{Claimant, divide_sparing};
/// const MB: u64 = 1 << 20;
/// let claim = |used, hungry| Claimant { used: used * MB, hungry };
/// // Who has all but a little does not get what the others have not used yet.
/// let parts = divide_sparing(64 * MB, &[claim(2, false), claim(58, true)], &[None, None]);
/// assert_eq!(parts, Some(vec![6 * MB, 58 * MB]));
/// // One of them needs it: it gets nearly all that is left.
/// let parts = divide_sparing(64 * MB, &[claim(2, true), claim(58, false)], &[None, None]);
/// assert_eq!(parts, Some(vec![6 * MB - MB / 4, 58 * MB + MB / 4]));
/// let parts = divide_sparing(64 * MB, &[claim(2, false), claim(40, true)], &[None, Some(60 * MB)]);
/// assert_eq!(parts, Some(vec![4 * MB, 60 * MB]));
/// assert_eq!(divide_sparing(64 * MB, &[claim(2, false), claim(40, true)], &[None, Some(65 * MB)]), None);
/// ```
pub fn divide_sparing(limit: u64, claimants: &[Claimant], staying: &[Option<u64>]) -> Option<Vec<u64>> {
    let stays = |at: usize| staying.get(at).copied().flatten();
    let kept = staying.iter().flatten().fold(0_u64, |sum, part| sum.saturating_add(*part));
    let rest = limit.checked_sub(kept)?;
    let greatest = greatest(claimants);
    let free = claimants.iter().enumerate().filter(|(at, _)| stays(*at).is_none());
    let free: Vec<(Claimant, bool)> = free.map(|(at, claimant)| (*claimant, Some(at) == greatest)).collect();
    let mut parts = divide(LimitKind::Amount, rest, &with_slack(rest, &free)).into_iter();
    let part = |at: usize| stays(at).or_else(|| parts.next()).unwrap_or(0);
    let mut parts: Vec<u64> = (0..claimants.len()).map(part).collect();
    if let (true, Some(first)) = (free.is_empty(), parts.first_mut()) {
        *first += rest; // all of it is given
    }
    Some(parts)
}

/// Claims with what each is to have beyond its use. The second of each: whether it is the greatest.
fn with_slack(limit: u64, claimants: &[(Claimant, bool)]) -> Vec<Claimant> {
    let more =
        |claimant: &Claimant, more: u64| Claimant { used: claimant.used.saturating_add(more), ..*claimant };
    let sum = |all: &[Claimant]| all.iter().fold(0_u64, |sum, one| sum.saturating_add(one.used));
    let wide: Vec<Claimant> =
        claimants.iter().map(|(claimant, _)| more(claimant, claimant.used / SPARED + SLACK)).collect();
    if sum(&wide) <= limit {
        return wide;
    }
    let is_spared = |(claimant, is_greatest): &(Claimant, bool)| !claimant.hungry && !is_greatest;
    let spared = claimants.iter().filter(|one| is_spared(one)).count() as u64;
    let plain: Vec<Claimant> = claimants.iter().map(|(claimant, _)| *claimant).collect();
    let free = limit.saturating_sub(sum(&plain));
    // One of the lesser gets half of what is left, time after time; the greatest gets none of it.
    let for_spared = match claimants.iter().any(|(claimant, is_greatest)| claimant.hungry && !is_greatest) {
        true => free / 2,
        false => free,
    };
    let each = SLACK.min(limit / SPARED / spared.max(1)).min(for_spared / spared.max(1));
    let claim = |one: &(Claimant, bool)| more(&one.0, if is_spared(one) { each } else { 0 });
    claimants.iter().map(claim).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claimants() -> impl Strategy<Value = Vec<Claimant>> {
        let used = prop_oneof![0..4_u64, 0..1_u64 << 24];
        let claimant = (used, any::<bool>()).prop_map(|(used, hungry)| Claimant { used, hungry });
        prop::collection::vec(claimant, 1..12)
    }

    proptest! {
        #[test]
        fn parts_sum_to_the_limit_and_nobody_has_less_than_it_uses(
            more in 0..1_u64 << 24,
            all in prop::collection::vec((0..1_u64 << 24, any::<bool>(), any::<bool>()), 1..12),
        ) {
            let claimants: Vec<Claimant> =
                all.iter().map(|(used, hungry, _)| Claimant { used: *used, hungry: *hungry }).collect();
            let staying: Vec<Option<u64>> = all.iter().map(|(used, _, stays)| stays.then_some(used + 1)).collect();
            let kept = staying.iter().flatten().count() as u64;
            let limit = claimants.iter().map(|claimant| claimant.used).sum::<u64>() + more;
            match divide_sparing(limit, &claimants, &staying) {
                None => prop_assert!(staying.iter().flatten().sum::<u64>() > limit),
                Some(parts) => {
                    prop_assert_eq!(parts.iter().sum::<u64>(), limit);
                    for ((part, claimant), stays) in parts.iter().zip(&claimants).zip(&staying) {
                        prop_assert!(*part >= claimant.used || more < kept, "{part} of {claimant:?}");
                        prop_assert!(stays.is_none_or(|stays| *part >= stays));
                    }
                }
            }
        }

        #[test]
        fn who_wants_nothing_now_keeps_room_beside_one_that_takes_all_it_is_given(
            limit in (16_u64 << 20)..1 << 34,
            others in 1..12_usize,
            used in 0..1_u64 << 16,
        ) {
            let mut claimants = vec![Claimant { used, hungry: false }; others];
            claimants.push(Claimant { used: 1 << 17, hungry: true });
            let mut parts = Vec::new();
            for _ in 0..64 {
                parts = divide_sparing(limit, &claimants, &[]).expect("nothing stays");
                claimants[others].used = parts[others];
            }
            let room = SLACK.min(limit / 16 / others as u64);
            prop_assert!(parts[..others].iter().all(|part| *part >= used + room), "{parts:?}");
            let taken = claimants[others].used + used * others as u64;
            prop_assert!(taken * 10 >= limit * 9, "{taken} of {limit}");
        }

        #[test]
        fn one_of_the_lesser_gets_at_least_half_of_what_is_left(mut claimants in claimants(), more in 0..1_u64 << 22) {
            let (greatest, lesser) = (1 << 27, 1 << 20);
            claimants.iter_mut().for_each(|claimant| claimant.hungry = false);
            claimants.extend([(greatest, false), (lesser, true)].map(|(used, hungry)| Claimant { used, hungry }));
            let limit = claimants.iter().map(|claimant| claimant.used).sum::<u64>() + more;
            let parts = divide_sparing(limit, &claimants, &[]).expect("nothing stays");
            let gets = parts[claimants.len() - 1] - lesser;
            prop_assert!(gets * 5 + 100 >= more * 2, "{gets} of {more}");
        }
    }
}
