//! Dividing a limit over the directories that carry a group together (I5).

/// One directory that has a part of a limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claimant {
    /// What it uses now.
    pub used: u64,
    /// Whether it wants more: it has met its part, or nearly.
    pub hungry: bool,
}

/// Of what nobody uses, the part that is kept for those who want nothing now: they get on with it until the
/// next division, and a lone consumer still has more than nine tenths of the limit.
const RESERVE: u64 = 16;

/// The part of each. Their sum is the limit: never more (I5).
///
/// As long as less than the limit is used, nobody's part is less than what it uses; the rest goes to the hungry in equal
/// parts, but for a small reserve of the others; to all alike if nobody is hungry. If more is used than the limit,
/// the parts are in proportion to use.
///
/// ```
/// # use pinfold_model::{Claimant, divide};
/// let idle = Claimant { used: 10, hungry: false };
/// let hungry = Claimant { used: 50, hungry: true };
/// assert_eq!(divide(100, &[idle, hungry]), [12, 88]);
/// assert_eq!(divide(100, &[idle, idle]), [50, 50]);
/// assert_eq!(divide(30, &[idle, hungry]), [5, 25]);
/// assert_eq!(divide(30, &[]), []);
/// ```
pub fn divide(limit: u64, claimants: &[Claimant]) -> Vec<u64> {
    let used: u128 = claimants.iter().map(|claimant| u128::from(claimant.used)).sum();
    let free = u128::from(limit).saturating_sub(used);
    let hungry = claimants.iter().filter(|claimant| claimant.hungry).count() as u128;
    let others = claimants.len() as u128 - hungry;
    let (for_hungry, for_others) = match (hungry, others) {
        (0, _) => (0, free),
        (_, 0) => (free, 0),
        _ => (free - free / u128::from(RESERVE), free / u128::from(RESERVE)),
    };
    let part = |claimant: &Claimant| {
        let own = u128::from(claimant.used);
        if used > u128::from(limit) {
            return own * u128::from(limit) / used;
        }
        own + if claimant.hungry { for_hungry / hungry.max(1) } else { for_others / others.max(1) }
    };
    let mut parts: Vec<u64> =
        claimants.iter().map(|claimant| u64::try_from(part(claimant)).unwrap_or(limit)).collect();
    // What division leaves over goes to the first who is hungry, or to the first.
    let rest = limit.saturating_sub(parts.iter().fold(0, |sum, part| sum.saturating_add(*part)));
    let first = claimants.iter().position(|claimant| claimant.hungry).unwrap_or(0);
    if let Some(part) = parts.get_mut(first) {
        *part += rest;
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claimants() -> impl Strategy<Value = Vec<Claimant>> {
        let claimant = (prop_oneof![0..1000_u64, any::<u64>()], any::<bool>());
        prop::collection::vec(claimant.prop_map(|(used, hungry)| Claimant { used, hungry }), 1..12)
    }

    proptest! {
        #[test]
        fn parts_never_sum_to_more_than_the_limit(limit in any::<u64>(), claimants in claimants()) {
            let parts = divide(limit, &claimants);
            let sum: u128 = parts.iter().map(|part| u128::from(*part)).sum();
            prop_assert_eq!(sum, u128::from(limit));
        }

        #[test]
        fn nobody_has_less_than_it_uses_if_the_limit_allows_it(more in 0..u64::from(u32::MAX), mut claimants in claimants()) {
            claimants.iter_mut().for_each(|claimant| claimant.used %= 1 << 40);
            let limit = claimants.iter().map(|claimant| claimant.used).sum::<u64>() + more;
            for (part, claimant) in divide(limit, &claimants).iter().zip(&claimants) {
                prop_assert!(*part >= claimant.used);
            }
        }

        #[test]
        fn a_lone_consumer_reaches_nine_tenths_of_the_limit(limit in 1000..u64::MAX / 2, others in 1..8_usize) {
            let mut claimants = vec![Claimant { used: 0, hungry: false }; others];
            claimants.push(Claimant { used: 0, hungry: true });
            for _ in 0..8 {
                let parts = divide(limit, &claimants);
                claimants[others].used = parts[others]; // it takes all that it is given
            }
            prop_assert!(u128::from(claimants[others].used) * 10 >= u128::from(limit) * 9);
        }
    }
}
