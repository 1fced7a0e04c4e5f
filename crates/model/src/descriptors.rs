//! Dividing a limit on open descriptors over processes, each of which the kernel limits by itself.
//!
//! A process has a limit of its own, which programs set for themselves (`ulimit -n`) and children inherit. While a group
//! limits it, it has less ([`Narrowed`]), and gets its own back when it leaves.

use crate::share::{Claimant, LimitKind, divide};

/// How high the numbers of a process's descriptors may become: no descriptor has a number that is not below it.
#[doc(alias = "RLIMIT_NOFILE")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DescriptorLimit {
    /// What holds.
    pub soft: u64,
    /// Up to where the process may raise what holds.
    pub hard: u64,
}

impl DescriptorLimit {
    /// At most this much of it.
    #[must_use]
    pub fn within(self, most: u64) -> Self {
        Self { soft: self.soft.min(most), hard: self.hard.min(most) }
    }
}

/// The limit of a process that has less than its own for a while.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Narrowed {
    own: DescriptorLimit,
    given: DescriptorLimit,
    /// What it was given before: a child that was born just then has this.
    before: DescriptorLimit,
}

impl Narrowed {
    /// A process that has its own limit now.
    pub const fn new(now: DescriptorLimit) -> Self {
        Self::back(now, now)
    }

    /// A process that is known to have had another limit of its own.
    pub const fn back(own: DescriptorLimit, now: DescriptorLimit) -> Self {
        Self { own, given: now, before: now }
    }

    /// A process that is seen for the first time, with this limit. What it has changed itself since its birth is its own; what it
    /// inherited is not.
    ///
    /// Its own hard limit is never above the least of those who may have been its parent: nobody has more in the end for having
    /// lost its parent. A soft limit is no right, as everybody may raise it, so there the likeliest will do.
    pub fn newcomer(now: DescriptorLimit, comes: Comes<'_>) -> Self {
        let Comes::Born { parent, others } = comes else { return Self::new(now) };
        let inherited = |field: fn(&DescriptorLimit) -> u64| {
            let is_heir =
                |from: &&Self| [from.given, from.before].iter().any(|had| field(had) == field(&now));
            let own = |from: &Self| field(&from.own);
            let of_parent = parent.iter().find(is_heir).map(own);
            of_parent.or_else(|| others.iter().filter(is_heir).map(own).min()).unwrap_or(field(&now))
        };
        // Each of these can have lowered its limit to this one, unseen, and ended.
        let may_have_had = |other: &&Self| other.given.hard.max(other.before.hard) >= now.hard;
        let least = others.iter().filter(may_have_had).map(|other| other.own.hard).min().unwrap_or(u64::MAX);
        let hard = inherited(|limit| limit.hard).min(least).max(now.hard);
        let soft = inherited(|limit| limit.soft).min(hard);
        Self::back(DescriptorLimit { soft, hard }, now)
    }

    /// The process is found with this limit: what differs from what it was given, it has set itself.
    pub const fn found_with(&mut self, now: DescriptorLimit) {
        if now.soft != self.given.soft {
            self.own.soft = now.soft;
        }
        if now.hard != self.given.hard {
            self.own.hard = now.hard;
        }
        self.given = now;
    }

    /// What it is given with this part of its groups' limits; `None`: it has that already.
    pub fn with_part(&self, part: u64) -> Option<DescriptorLimit> {
        Some(self.own.within(part)).filter(|next| *next != self.given)
    }

    /// It was given this.
    pub const fn gave(&mut self, limit: DescriptorLimit) {
        self.before = self.given;
        self.given = limit;
    }

    /// It was given this, and had that until then: if it is not what it was given last, the process set it just before, and has
    /// to have it in the end.
    pub fn replaced(&mut self, had: DescriptorLimit, given: DescriptorLimit) {
        self.found_with(had);
        self.gave(given);
    }

    /// What it has when no group limits it.
    pub const fn own(&self) -> DescriptorLimit {
        self.own
    }

    /// What it was given last.
    pub const fn given(&self) -> DescriptorLimit {
        self.given
    }
}

/// How a process that is seen for the first time came to where it is.
#[derive(Clone, Copy, Debug)]
pub enum Comes<'a> {
    /// From where nobody is limited, or nobody was until now: what it has is its own.
    FromOutside,
    /// It was born there, with a copy of its parent's limit.
    Born {
        /// Its parent's, if that one is limited. Once the real parent has ended, somebody else is: an init.
        parent: Option<Narrowed>,
        /// Those of who may have been its parent instead: is there, or has left since the last look, and is not known to be no
        /// descendant of its parent.
        others: &'a [Narrowed],
    },
}

/// A process that has a part of a limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Holder {
    /// Its part; `None`: it has none yet.
    pub(crate) part: Option<u64>,
    /// How many descriptors it has open.
    pub(crate) open: u64,
    /// One above the highest of them: with a lesser part, it could not have opened that one.
    pub(crate) end: u64,
}

impl Holder {
    /// Whether it has used up its part, or nearly. New descriptors get the lowest free numbers, so this is a matter of how
    /// many there are, not of how high the highest is.
    fn is_hungry(&self) -> bool {
        self.part.is_some_and(|part| self.open > 0 && self.open >= part - part / 8)
    }
}

/// The parts of a limit that are to be; `None`: those that there are will do. Their sum is the limit (I5).
///
/// They change if somebody has none, if they sum to more than the limit, or if one who has used up its part would get
/// noticeably more. Whether they are to change at all can be asked with `end` as low as `open`, which costs less to know;
/// then they are asked for again.
pub(crate) fn descriptor_parts(limit: u64, holders: &[Holder]) -> Option<Vec<u64>> {
    let claim = |holder: &Holder| Claimant { used: holder.open.max(holder.end), hungry: holder.is_hungry() };
    let parts = divide(LimitKind::Amount, limit, &holders.iter().map(claim).collect::<Vec<_>>());
    let had: Option<Vec<u64>> = holders.iter().map(|holder| holder.part).collect();
    let Some(had) = had else { return Some(parts) };
    let sum = had.iter().fold(0, |sum: u64, part| sum.saturating_add(*part));
    let is_fed = |((holder, had), part): ((&Holder, &u64), &u64)| {
        holder.is_hungry() && *part > had.saturating_add(had / 32)
    };
    let changes = sum > limit || holders.iter().zip(&had).zip(&parts).any(is_fed);
    changes.then_some(parts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn limit(soft: u64, hard: u64) -> DescriptorLimit {
        DescriptorLimit { soft, hard }
    }

    const fn holder(part: Option<u64>, open: u64, end: u64) -> Holder {
        Holder { part, open, end }
    }

    #[test]
    fn a_process_gets_its_own_limit_back() {
        let mut narrowed = Narrowed::new(limit(1024, 4096));
        assert_eq!(narrowed.with_part(100), Some(limit(100, 100)));
        narrowed.gave(limit(100, 100));
        assert_eq!(narrowed.with_part(100), None);
        assert_eq!(narrowed.with_part(2000), Some(limit(1024, 2000)));
        narrowed.found_with(limit(100, 100));
        assert_eq!(narrowed.own(), limit(1024, 4096));
    }

    #[test]
    fn what_a_process_sets_itself_stays_its_own() {
        let mut narrowed = Narrowed::new(limit(1024, 4096));
        narrowed.gave(limit(100, 100));
        narrowed.found_with(limit(10, 100));
        assert_eq!(narrowed.own(), limit(10, 4096));
        assert_eq!(narrowed.with_part(200), Some(limit(10, 200)));
        // One that may raise its own limit above its part has that as its own, and its part again.
        narrowed.gave(limit(10, 200));
        narrowed.found_with(limit(300, 300));
        assert_eq!((narrowed.own(), narrowed.with_part(200)), (limit(300, 300), Some(limit(200, 200))));
    }

    #[test]
    fn a_newcomer_has_what_it_did_not_inherit_from_a_part() {
        // Has its own limit of 1024 and 4096, had a part of 100 of it, and has one of 60 now.
        let mut poor = Narrowed::new(limit(1024, 4096));
        poor.gave(limit(100, 100));
        poor.gave(limit(60, 60));
        // Has more of its own, and a part of 40.
        let mut init = Narrowed::new(limit(9000, 9000));
        init.gave(limit(40, 40));
        let mut twin = Narrowed::new(limit(9000, 9000));
        twin.gave(limit(60, 60));
        let (of_poor, of_init, of_both) = (&[poor][..], &[init][..], &[twin, poor][..]);
        let born = |parent, others| Comes::Born { parent, others };
        #[rustfmt::skip]
        let cases = [
            // parent            its limit now, others         found with         its own
            ("outside",          Comes::FromOutside,           limit(60, 60),     limit(60, 60)),
            ("seen",             born(Some(poor), &[]),        limit(60, 60),     limit(1024, 4096)),
            ("seen, before",     born(Some(poor), &[]),        limit(100, 100),   limit(1024, 4096)),
            ("and set soft",     born(Some(poor), &[]),        limit(10, 60),     limit(10, 4096)),
            ("and set both",     born(Some(poor), &[]),        limit(7, 7),       limit(7, 7)),
            ("unseen, alone",    born(None, &[]),              limit(60, 60),     limit(60, 60)),
            ("unseen",           born(None, of_poor),          limit(60, 60),     limit(1024, 4096)),
            ("unseen, whose?",   born(None, of_both),          limit(60, 60),     limit(1024, 4096)),
            // Its parent has ended, and init is in its place: another part, and another limit of its own.
            ("reparented",       born(Some(init), of_poor),    limit(60, 60),     limit(1024, 4096)),
            ("to the same part", born(Some(twin), of_poor),    limit(60, 60),     limit(4096, 4096)),
            ("lowered to it",    born(Some(init), of_poor),    limit(40, 40),     limit(4096, 4096)),
            ("nobody has that",  born(Some(init), of_poor),    limit(50, 50),     limit(50, 50)),
            // Who never had so much cannot have left so much.
            ("seen, had less",   born(Some(poor), of_init),    limit(60, 60),     limit(1024, 4096)),
            ("not limited yet",  born(Some(poor), of_init),    limit(1024, 4096), limit(1024, 4096)),
        ];
        for (what, comes, now, own) in cases {
            let found = Narrowed::newcomer(now, comes);
            assert_eq!((found.own(), found.given()), (own, now), "{what}");
        }
    }

    #[test]
    fn what_a_process_set_while_it_was_given_a_part_is_its_own() {
        let mut narrowed = Narrowed::new(limit(1024, 4096));
        narrowed.replaced(limit(1024, 4096), limit(100, 100));
        assert_eq!((narrowed.own(), narrowed.with_part(100)), (limit(1024, 4096), None));
        // It gave all descriptors up just before it was given more.
        narrowed.replaced(limit(0, 0), limit(200, 200));
        assert_eq!((narrowed.own(), narrowed.with_part(200)), (limit(0, 0), Some(limit(0, 0))));
    }

    #[test]
    fn parts_stay_until_somebody_needs_more() {
        let content = [holder(Some(50), 3, 3), holder(Some(50), 43, 43)];
        assert_eq!(descriptor_parts(100, &content), None);
        let hungry = [holder(Some(50), 3, 3), holder(Some(50), 44, 44)];
        assert_eq!(descriptor_parts(100, &hungry), Some(vec![6, 94]));
        let newcomer = [holder(Some(100), 3, 3), holder(None, 3, 3)];
        assert_eq!(descriptor_parts(100, &newcomer), Some(vec![50, 50]));
        assert_eq!(descriptor_parts(60, &content), Some(vec![10, 50]), "a lower limit");
    }

    #[test]
    fn a_high_number_is_used_and_does_not_make_hungry() {
        // bash keeps its script open as number 255.
        let shells = [holder(Some(300), 4, 256), holder(Some(100), 3, 3)];
        assert_eq!(descriptor_parts(400, &shells), None);
        let needy = [holder(Some(300), 4, 256), holder(Some(100), 90, 90)];
        assert_eq!(descriptor_parts(400, &needy), Some(vec![259, 141]));
    }

    fn holders() -> impl Strategy<Value = Vec<Holder>> {
        let holder = (prop::option::of(0..5000_u64), 0..3000_u64, 0..2000_u64)
            .prop_map(|(part, open, above)| Holder { part, open, end: open + above });
        prop::collection::vec(holder, 1..12)
    }

    proptest! {
        #[test]
        fn parts_never_sum_to_more_than_the_limit(most in 0..20_000_u64, mut holders in holders()) {
            for _ in 0..3 {
                if let Some(parts) = descriptor_parts(most, &holders) {
                    holders.iter_mut().zip(parts).for_each(|(holder, part)| holder.part = Some(part));
                }
                let sum: u64 = holders.iter().filter_map(|holder| holder.part).sum();
                prop_assert!(sum <= most, "{sum}");
                holders.iter_mut().for_each(|holder| holder.open = holder.part.unwrap_or(0).max(holder.open));
            }
        }

        #[test]
        fn nobody_has_less_than_its_highest_descriptor_needs(more in 0..1000_u64, mut holders in holders()) {
            holders.iter_mut().for_each(|holder| holder.part = None);
            let most = more + holders.iter().map(|holder| holder.end).sum::<u64>();
            for (part, holder) in descriptor_parts(most, &holders).unwrap_or_default().iter().zip(&holders) {
                prop_assert!(*part >= holder.end);
            }
        }

        #[test]
        fn a_lone_consumer_reaches_nine_tenths_of_the_limit(most in 1000..1_000_000_u64, others in 1..8_usize) {
            let mut holders = vec![holder(None, 3, 3); others + 1];
            for _ in 0..40 {
                if let Some(parts) = descriptor_parts(most, &holders) {
                    holders.iter_mut().zip(parts).for_each(|(holder, part)| holder.part = Some(part));
                }
                let all = holders[0].part.unwrap_or(0);
                holders[0] = holder(Some(all), all, all); // it takes all that it is given
            }
            prop_assert!(holders[0].open * 10 >= most * 9, "{} of {most}", holders[0].open);
        }

        #[test]
        fn no_newcomer_has_more_than_who_may_have_been_its_parent(
            now in 0..300_u64, own in prop::collection::vec((1..1000_u64, 1..300_u64), 1..6),
        ) {
            let all: Vec<Narrowed> =
                own.iter().map(|(own, part)| Narrowed::back(limit(*own, *own), limit(*own, *own).within(*part))).collect();
            for comes in [Comes::Born { parent: None, others: &all }, Comes::Born { parent: Some(all[0]), others: &all }] {
                let found = Narrowed::newcomer(limit(now, now), comes).own();
                let may = all.iter().filter(|one| one.given().hard >= now).map(|one| one.own().hard).min().unwrap_or(now);
                prop_assert!(found.soft <= found.hard && now <= found.hard && found.hard <= may.max(now), "{found:?}");
            }
        }

        #[test]
        fn what_is_given_never_exceeds_the_own_limit_or_the_part(soft in 0..5000_u64, above in 0..5000_u64, part in 0..6000_u64) {
            let own = limit(soft, soft + above);
            let given = Narrowed::new(own).with_part(part).unwrap_or(own);
            prop_assert!(given.soft <= given.hard && given.hard <= part.min(own.hard) && given.soft <= own.soft);
        }
    }
}
