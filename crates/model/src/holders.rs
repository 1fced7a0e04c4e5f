//! Who has which part of a limit on descriptors, and whose child a process may be.

use std::collections::HashMap;

use crate::HostPid;
use crate::descriptors::{Comes, DescriptorLimit, Holder, Narrowed, descriptor_parts};

/// The descriptors of a process, counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Count {
    /// How many are open.
    pub open: u64,
    /// One above the highest; as low as `open` where that will do.
    pub end: u64,
}

/// The parts of one limit, by process.
#[derive(Clone, Default, Debug)]
pub struct DescriptorParts {
    limit: u64,
    of: HashMap<HostPid, u64>,
    /// Of the last division, until the next look: the part before it, and what was counted.
    before: HashMap<HostPid, (Option<u64>, u64)>,
}

impl DescriptorParts {
    /// The part of a process.
    pub fn of(&self, process: HostPid) -> Option<u64> {
        self.of.get(&process).copied()
    }

    /// Who has one.
    pub fn processes(&self) -> impl Iterator<Item = HostPid> {
        self.of.keys().copied()
    }

    /// Begins a look at a limit of so much, over those who are there. Parts of another limit are forgotten.
    pub fn look(&mut self, limit: u64, there: &[HostPid]) {
        if self.limit != limit {
            *self = Self { limit, ..Self::default() };
        }
        self.before.clear();
        let mut of: HashMap<HostPid, u64> = HashMap::with_capacity(there.len());
        of.extend(there.iter().filter_map(|process| Some((*process, self.of(*process)?))));
        self.of = of;
    }

    /// Whether the parts are to change. Asked with ends as low as what is open, which costs less to know.
    pub fn is_due(&self, counts: &[(HostPid, Option<Count>)]) -> bool {
        descriptor_parts(self.limit, &self.holders(counts)).is_some()
    }

    /// Changes the parts, if they are to change. Who cannot be counted has used its part, and wants no more.
    pub fn divide(&mut self, counts: &[(HostPid, Option<Count>)]) {
        let holders = self.holders(counts);
        let Some(next) = descriptor_parts(self.limit, &holders) else { return };
        let all = || counts.iter().map(|(process, _)| *process);
        self.before = all().zip(&holders).map(|(process, was)| (process, (was.part, was.end))).collect();
        self.of = all().zip(next).collect();
    }

    /// Those who have less now were counted again: if one has opened more than its part meanwhile, nobody gets what it was to
    /// give up. The next look divides by what is open then.
    pub fn recount(&mut self, ends: &HashMap<HostPid, u64>) {
        let has_opened = |(process, (_, counted)): (&HostPid, &(Option<u64>, u64))| {
            let end = ends.get(process).copied().unwrap_or(0);
            end > *counted && self.of(*process).is_some_and(|part| end > part)
        };
        if self.before.iter().any(has_opened) {
            for (process, part) in &mut self.of {
                let before = self.before.get(process).and_then(|(before, _)| *before);
                *part = before.map_or(*part, |before| before.min(*part));
            }
        }
    }

    fn holders(&self, counts: &[(HostPid, Option<Count>)]) -> Vec<Holder> {
        let holder = |(process, count): &(HostPid, Option<Count>)| {
            let part = self.of(*process);
            let Count { open, end } = count.unwrap_or(Count { open: 0, end: part.unwrap_or(0) });
            Holder { part, open, end }
        };
        counts.iter().map(holder).collect()
    }
}

/// Who may be the parents of processes that are seen for the first time: their limits.
#[derive(Clone, Default, Debug)]
pub struct Family {
    limits: HashMap<HostPid, Narrowed>,
}

impl Family {
    /// One more.
    pub fn add(&mut self, process: HostPid, limit: Narrowed) {
        self.limits.insert(process, limit);
    }

    /// The limit of one of them.
    pub fn limit_of(&self, process: HostPid) -> Option<Narrowed> {
        self.limits.get(&process).copied()
    }

    /// The limit of a process that was born to one of them and is found with this. `parent`: who is its parent now, if that is
    /// somebody limited. `may_descend`: whether one may be a descendant of another; asked only where it matters.
    pub fn newborn(
        &self,
        now: DescriptorLimit,
        parent: Option<(HostPid, Narrowed)>,
        may_descend: impl Fn(HostPid, HostPid) -> bool,
    ) -> Narrowed {
        let may_be = |(process, limit): &(&HostPid, &Narrowed)| match parent {
            // Only an ancestor of a parent that ended is in its place.
            Some((parent, of_parent)) => {
                **process != parent
                    && (limit.own().hard >= of_parent.own().hard || may_descend(**process, parent))
            }
            None => true,
        };
        let others: Vec<Narrowed> = self.limits.iter().filter(may_be).map(|(_, limit)| *limit).collect();
        Narrowed::newcomer(now, Comes::Born { parent: parent.map(|(_, limit)| limit), others: &others })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pid(number: u32) -> HostPid {
        HostPid::new(number).expect("not 0")
    }

    const fn count(open: u64, end: u64) -> Option<Count> {
        Some(Count { open, end })
    }

    /// Processes 1, 2... with these counts.
    fn counts<const N: usize>(counts: [Option<Count>; N]) -> [(HostPid, Option<Count>); N] {
        let mut number = 0;
        counts.map(|count| {
            number += 1;
            (pid(number), count)
        })
    }

    fn parts<const N: usize>(parts: &DescriptorParts) -> [u64; N] {
        std::array::from_fn(|at| parts.of(pid(at as u32 + 1)).expect("a part"))
    }

    /// Two processes with 50 of 100 each, of whom the second wants more.
    fn one_is_hungry() -> DescriptorParts {
        let mut all = DescriptorParts::default();
        all.look(100, &[pid(1), pid(2)]);
        all.divide(&counts([count(3, 3), count(3, 3)]));
        assert_eq!(parts(&all), [50, 50]);
        all.look(100, &[pid(1), pid(2)]);
        all.divide(&counts([count(3, 3), count(50, 50)]));
        assert_eq!(parts(&all), [5, 95]);
        all
    }

    #[test]
    fn nobody_gets_what_another_has_opened_meanwhile() {
        #[rustfmt::skip]
        let cases = [
            // the first one's end, counted again: the parts
            (None,     [5, 95]),
            (Some(3),  [5, 95]),
            (Some(5),  [5, 95]),
            (Some(20), [5, 50]),
        ];
        for (end, expected) in cases {
            let mut all = one_is_hungry();
            all.recount(&end.into_iter().map(|end| (pid(1), end)).collect());
            assert_eq!(parts(&all), expected, "{end:?}");
        }
        let mut all = one_is_hungry();
        all.recount(&HashMap::from([(pid(1), 20)]));
        all.look(100, &[pid(1), pid(2)]);
        let now = counts([count(20, 20), count(50, 50)]);
        assert!(all.is_due(&now));
        all.divide(&now);
        assert_eq!(parts(&all), [35, 65], "the next look knows");
    }

    #[test]
    fn who_has_more_than_its_part_anyway_keeps_nobody_waiting() {
        let mut all = DescriptorParts::default();
        all.look(40, &[pid(1), pid(2)]);
        all.divide(&counts([count(4, 256), count(3, 3)]));
        let before = parts::<2>(&all);
        all.recount(&HashMap::from([(pid(1), 256)]));
        assert_eq!(parts(&all), before);
    }

    #[test]
    fn who_cannot_be_counted_keeps_its_part() {
        let mut all = one_is_hungry();
        all.look(100, &[pid(1), pid(2)]);
        assert!(!all.is_due(&counts([count(3, 3), None])), "nobody wants more");
        let new = [counts([count(3, 3), None]).as_slice(), &[(pid(3), count(3, 3))]].concat();
        assert!(all.is_due(&new), "but for a newcomer");
        all.divide(&new);
        assert!(all.of(pid(2)) >= Some(94), "{all:?}");
    }

    #[test]
    fn parts_of_another_limit_and_of_the_dead_are_forgotten() {
        let mut all = one_is_hungry();
        all.look(100, &[pid(2)]);
        assert_eq!(all.processes().collect::<Vec<_>>(), [pid(2)]);
        all.look(99, &[pid(2)]);
        assert_eq!(all.of(pid(2)), None);
    }

    #[test]
    fn only_descendants_of_a_parent_have_ended_in_its_place() {
        let limit = |most| DescriptorLimit { soft: most, hard: most };
        let (init, poor) = (Narrowed::back(limit(9000), limit(50)), Narrowed::back(limit(1000), limit(50)));
        let mut family = Family::default();
        family.add(pid(1), init);
        family.add(pid(2), poor);
        let own = |parent, may_descend| family.newborn(limit(50), parent, |_, _| may_descend).own();
        assert_eq!(own(Some((pid(1), init)), true), limit(1000), "it may have lost its parent");
        assert_eq!(own(Some((pid(1), init)), false), limit(9000), "that is its parent's brother");
        assert_eq!(own(Some((pid(2), poor)), true), limit(1000));
        assert_eq!(own(None, false), limit(1000), "its parent is nobody here");
    }
}
