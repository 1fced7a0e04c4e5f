//! Figures that go on from those that were shown last: CPU time by CPU, and peaks that v2 does not keep.
//!
//! They are kept in memory by each read, and written down at most once a second: whoever reads a file makes nobody wait for the
//! state directory more often. So the next daemon goes on from figures that are at most that much older.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pinfold_files::{Followed, Sight, Source};
use pinfold_kernel::{Measuring, inspect};
use pinfold_model::GroupId;

use crate::record::Kept;
use crate::{Enforced, ReadError, Realm};

/// How long figures are in memory only, at most, once they were shown.
const UNWRITTEN: Duration = Duration::from_secs(1);

/// When each group's figures were written down last, and whether they have changed since. A leaf in the lock order.
#[derive(Default)]
pub(crate) struct FollowedFigures(Mutex<HashMap<GroupId, Written>>);

struct Written {
    at: Instant,
    is_old: bool,
}

impl FollowedFigures {
    /// Whether a group's figures, which were shown and have changed or not, are to be written down now.
    fn are_due(&self, group: GroupId, is_new: bool, now: Instant) -> bool {
        let mut all = self.lock();
        match all.get_mut(&group) {
            Some(written) => {
                written.is_old |= is_new;
                if !written.is_old || now.duration_since(written.at) < UNWRITTEN {
                    return false;
                }
                *written = Written { at: now, is_old: false };
            }
            None if !is_new => return false,
            None => _ = all.insert(group, Written { at: now, is_old: false }),
        }
        true
    }

    /// The group is gone.
    pub(crate) fn forget(&self, group: GroupId) {
        self.lock().remove(&group);
    }

    /// A panic in another thread leaves times that are as good as before.
    fn lock(&self) -> MutexGuard<'_, HashMap<GroupId, Written>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Realm {
    /// The text of a file whose figures go on from those that were shown.
    pub(crate) fn read_on(
        &self,
        group: GroupId,
        from: &[Source],
        show: fn(&Sight<'_>) -> Followed,
    ) -> Result<Vec<u8>, ReadError> {
        if from.contains(&Source::Measured) {
            self.tracker.measure(self.facts.possible_cpus);
        }
        self.follow(group, from, show)
    }

    /// [`Self::read_on`] without a cause to measure from now on.
    pub(crate) fn follow(
        &self,
        group: GroupId,
        from: &[Source],
        show: fn(&Sight<'_>) -> Followed,
    ) -> Result<Vec<u8>, ReadError> {
        let mut is_new = false;
        let text = self.with_texts_keeping(group, from, |sight| {
            let (text, kept) = show(sight);
            is_new = kept.iter().any(|(key, value)| sight.settings().get(*key) != value.as_ref());
            (text, if is_new { kept } else { Kept::new() })
        })?;
        if self.followed.are_due(group, is_new, Instant::now()) {
            let change = self.lock_change();
            // A realm that goes down leaves nothing.
            if !change.closed
                && let Err(error) = self.keep(group, &[])
            {
                tracing::warn!(
                    "figures of group {group} are in memory only: {}",
                    crate::error::chain(&error)
                );
            }
        }
        Ok(text)
    }

    /// The last daemon's program has gone with it: what it had measured is the beginning of nothing now. What was shown stays.
    pub(crate) fn forget_what_was_measured(&self) {
        let mut forest = self.lock_forest();
        let roots: Vec<GroupId> = forest.hierarchies().map(|(_, found)| found.root()).collect();
        let groups: Vec<GroupId> =
            roots.into_iter().flat_map(|root| forest.subtree(root).collect::<Vec<_>>()).collect();
        for group in groups {
            let Some(found) = forest.group_mut(group) else { continue };
            for key in pinfold_files::MEASURED {
                found.settings_mut().replace(key, None);
            }
        }
    }

    /// How figures by CPU come about.
    pub(crate) fn told_by_cpu(&self) -> Enforced {
        match self.tracker.measuring() {
            None => Enforced::Spread("without a v2 tree nobody measures by CPU".to_owned()),
            Some(Measuring::On { missed }) => Enforced::Measured { missed },
            Some(Measuring::Refused(errno)) => Enforced::Spread(refused(errno)),
            Some(Measuring::NotAsked) => Enforced::Spread(match inspect::switches() {
                Ok(()) => "nobody has read them yet: from the first read on they are measured".to_owned(),
                Err(errno) => refused(errno),
            }),
        }
    }
}

fn refused(errno: rustix::io::Errno) -> String {
    format!("the kernel takes no BPF program at sched_switch: {errno}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_often_is_written_down_once_a_second() {
        let (figures, start) = (FollowedFigures::default(), Instant::now());
        let [one, other] = [1, 2].map(|number| GroupId::new(number).expect("not 0"));
        let later = |millis| start + Duration::from_millis(millis);
        assert!(!figures.are_due(one, false, later(0)), "nothing is new");
        assert!(figures.are_due(one, true, later(0)));
        assert!(!figures.are_due(one, true, later(999)));
        assert!(figures.are_due(other, true, later(999)), "each group by itself");
        assert!(figures.are_due(one, false, later(1000)), "what was new before");
        assert!(!figures.are_due(one, false, later(3000)));
        assert!(figures.are_due(one, true, later(3000)));
        figures.forget(one);
        assert_eq!(figures.lock().len(), 1, "of the other");
    }
}
