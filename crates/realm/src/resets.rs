//! Peaks that were reset. Since Linux 6.12 `memory.peak` starts again for the open file that is written to, so one stays open
//! for each directory in which a group's peak was reset. The directory's own peak goes on.
//!
//! A daemon that ends takes them along. The next one shows what it would without them ([`pinfold_files::Fold::Peak`]).

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pinfold_files::Counter;
use pinfold_kernel::since::Since;
use pinfold_model::{Carriers, Dir, Fold, GroupId};

use crate::Realm;

/// How many stay open at most: a sixteenth of the descriptors that a process usually may have.
const MOST: usize = 64;

/// The open files, by whose peak it is, where, and which. A leaf in the lock order.
#[derive(Default)]
pub(crate) struct Resets(Mutex<HashMap<(GroupId, Dir, &'static str), Since>>);

impl Resets {
    /// The peak since the reset. `None`: there was none, or nobody knows.
    pub(crate) fn read(&self, group: GroupId, dir: &Dir, counter: &'static str) -> Option<String> {
        self.lock().get(&(group, dir.clone(), counter))?.read().ok()
    }

    /// Who loses a carrier keeps what its peak was.
    pub(crate) fn forget(&self, folds: &[Fold]) {
        let lost = |(group, dir, _): &(GroupId, Dir, &'static str)| {
            folds.iter().any(|fold| fold.group == *group && fold.lost.contains(dir))
        };
        self.lock().retain(|key, _| !lost(key));
    }

    /// A panic in another thread leaves a list that is as good as before.
    fn lock(&self) -> MutexGuard<'_, HashMap<(GroupId, Dir, &'static str), Since>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Realm {
    /// Starts peaks of a group again, where the kernel has them for each open file.
    pub(crate) fn start_peaks_again(&self, group: GroupId, counters: &[&Counter]) {
        let peaks = counters.iter().filter(|counter| counter.since().is_some());
        let dirs = self.lock_forest().carriers(group).map_or(Vec::new(), Carriers::into_dirs);
        for (counter, dir) in peaks.flat_map(|counter| dirs.iter().map(move |dir| (counter, dir))) {
            let started = self.tracker.start_again(dir, counter.source.file());
            let key = (group, dir.clone(), counter.key.0);
            let mut open = self.resets.lock();
            open.remove(&key);
            if open.len() < MOST
                && let Ok(since) = started
            {
                open.insert(key, since);
            }
        }
    }
}
