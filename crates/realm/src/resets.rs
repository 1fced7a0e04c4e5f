//! Peaks that were reset. Since Linux 6.12 `memory.peak` starts again for the open file that is written to, so one stays open
//! for each directory in which a group's peak was reset. The directory's own peak goes on.
//!
//! Of too many the oldest is closed, and the group keeps what it said. A daemon that ends takes them along: the next one
//! starts them again, and does not know of more than was used at the reset if that was only between the two.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pinfold_files::Counter;
use pinfold_kernel::since::Since;
use pinfold_model::{Carriers, Dir, Fold, GroupId, Value};

use crate::Realm;
use crate::write::set_values;

/// How many stay open at most: a sixteenth of the descriptors that a process usually may have.
const MOST: usize = 64;

/// Whose peak it is, where, and which.
type Key = (GroupId, Dir, &'static str);

/// The open files. A leaf in the lock order.
#[derive(Default)]
pub(crate) struct Resets(Mutex<Opened<Since>>);

/// What is open, and since when: the greater the later.
struct Opened<T> {
    all: HashMap<Key, (u64, T)>,
    last: u64,
}

impl<T> Default for Opened<T> {
    fn default() -> Self {
        Self { all: HashMap::new(), last: 0 }
    }
}

impl<T> Opened<T> {
    /// Adds one. If there are too many, the oldest goes.
    fn add(&mut self, key: Key, new: T) -> Option<(Key, T)> {
        self.last += 1;
        self.all.insert(key, (self.last, new));
        let oldest = self.all.iter().min_by_key(|(_, (since, _))| *since);
        let oldest = oldest.filter(|_| self.all.len() > MOST).map(|(key, _)| key.clone())?;
        self.all.remove(&oldest).map(|(_, old)| (oldest, old))
    }
}

impl Resets {
    /// The peak since the reset. `None`: there was none, or nobody knows.
    pub(crate) fn read(&self, group: GroupId, dir: &Dir, counter: &'static str) -> Option<String> {
        self.lock().all.get(&(group, dir.clone(), counter))?.1.read().ok()
    }

    /// Who loses a carrier keeps what its peak was.
    pub(crate) fn forget(&self, folds: &[Fold]) {
        let lost =
            |(group, dir, _): &Key| folds.iter().any(|fold| fold.group == *group && fold.lost.contains(dir));
        self.lock().all.retain(|key, _| !lost(key));
    }

    /// A panic in another thread leaves a list that is as good as before.
    fn lock(&self) -> MutexGuard<'_, Opened<Since>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Realm {
    /// Starts peaks of a group again, where the kernel has them for each open file.
    pub(crate) fn start_peaks_again(&self, group: GroupId, counters: &[&Counter]) {
        let peaks = counters.iter().filter(|counter| counter.since().is_some());
        let dirs = self.lock_forest().carriers(group).map_or(Vec::new(), Carriers::into_dirs);
        for (counter, dir) in peaks.flat_map(|counter| dirs.iter().map(move |dir| (counter, dir))) {
            let key = (group, dir.clone(), counter.key.0);
            let Ok(since) = self.tracker.start_again(dir, counter.source.file()) else {
                self.resets.lock().all.remove(&key);
                continue;
            };
            let evicted = self.resets.lock().add(key, since);
            if let Some(((group, _, counter), since)) = evicted {
                self.keep_peak(group, counter, &since);
            }
        }
    }

    /// Starts every peak again that was reset while an earlier daemon ran.
    pub(crate) fn start_kept_peaks_again(&self, groups: &[GroupId]) {
        for group in groups {
            if self.resets.lock().all.len() >= MOST {
                return; // nobody knows which were the last
            }
            let kept: Vec<&Counter> = {
                let forest = self.lock_forest();
                let settings = forest.group(*group).into_iter().flat_map(|found| found.settings().iter());
                settings.filter_map(|(key, _)| pinfold_files::counter_by_key(key.0)).collect()
            };
            self.start_peaks_again(*group, &kept);
        }
    }

    /// A group keeps what an open file says that is about to be closed.
    fn keep_peak(&self, group: GroupId, counter: &'static str, since: &Since) {
        let said = since.read().ok().and_then(|text| text.trim().parse::<u64>().ok());
        let (Some(said), Some(counter)) = (said, pinfold_files::counter_by_key(counter)) else { return };
        let kept =
            self.lock_forest().group(group).and_then(|found| found.settings().get(counter.key).cloned());
        let Some(Value::Peak { floor, beyond }) = kept else { return };
        let values = vec![(counter.key, Some(Value::Peak { floor: floor.max(said), beyond }))];
        if let Err(error) = self.keep(group, &values) {
            tracing::warn!("a peak of group {group} is kept in memory only: {}", crate::error::chain(&error));
        }
        set_values(&mut self.lock_forest(), group, values);
    }
}

#[cfg(test)]
mod tests {
    use pinfold_model::CellId;

    use super::*;

    #[test]
    fn of_too_many_the_one_that_was_reset_longest_ago_is_closed() {
        let key = |at: usize| -> Key {
            let at = u32::try_from(at).expect("few") + 1;
            (GroupId::new(at).expect("not 0"), Dir::REALM.cell(CellId::new(at).expect("not 0")), "a.peak")
        };
        let mut opened = Opened::default();
        for at in 0..MOST {
            assert_eq!(opened.add(key(at), at), None);
        }
        assert_eq!(opened.add(key(0), 1000), None, "it starts again");
        assert_eq!(opened.add(key(MOST), MOST), Some((key(1), 1)), "the first is not the oldest any more");
        assert_eq!(opened.all.len(), MOST);
        assert_eq!(opened.all[&key(0)].1, 1000);
    }
}
