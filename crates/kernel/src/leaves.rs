//! Which leaf a held process is in, mostly without asking proc: the kernel tells the number of a process's directory,
//! and which leaf has that number is remembered from the first time.
//!
//! A number is never given to a second directory (kernfs ids), so what is remembered cannot become wrong, only useless.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pinfold_model::{CellId, Dir};
use rustix::fs::AtFlags;

use crate::process::{self, Pinned, Standing};
use crate::{Membership, MembershipError, Tree};

/// The leaves whose numbers are known. A leaf that a stranger removed and that was made again has another number then.
#[derive(Debug, Default)]
pub(crate) struct Leaves(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    leaves: HashMap<u64, (CellId, Dir)>,
    numbers: HashMap<Dir, u64>,
}

impl Leaves {
    fn find(&self, number: u64) -> Option<(CellId, Dir)> {
        self.lock().leaves.get(&number).cloned()
    }

    fn add(&self, number: u64, cell: CellId, dir: &Dir) {
        self.forget(dir);
        let mut known = self.lock();
        known.numbers.insert(dir.clone(), number);
        known.leaves.insert(number, (cell, dir.clone()));
    }

    /// The directory was removed.
    pub(crate) fn forget(&self, dir: &Dir) {
        let mut known = self.lock();
        if let Some(number) = known.numbers.remove(dir) {
            known.leaves.remove(&number);
        }
    }

    /// A panic in another thread leaves at worst a number that is not forgotten.
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tree {
    /// Where a process was when it was pinned, or is now.
    pub fn membership_of(
        &self,
        process: &Pinned,
        standing: &Standing,
    ) -> Result<Membership, MembershipError> {
        let Some(number) = standing.directory else { return self.membership(process.process()) };
        if let Some((cell, dir)) = self.leaves.find(number) {
            return Ok(Membership::Inside(cell, dir));
        }
        let found = self.membership(process.process())?;
        if let Membership::Inside(cell, dir) = &found
            && self.is_number_of(dir, number)
        {
            self.leaves.add(number, *cell, dir);
        }
        Ok(found)
    }

    /// Whether this is the number of a leaf: not of a directory below it, nor of one of the same name before.
    ///
    /// The first version of PIDFD_GET_INFO told everybody's number as the asker's (task_dfl_cgroup(current)). Of such a
    /// kernel nothing is believed: the daemon's own leaf is never the one that is learnt.
    fn is_number_of(&self, leaf: &Dir, number: u64) -> bool {
        let here = rustix::fs::statat(&self.base, self.below_base(leaf), AtFlags::SYMLINK_NOFOLLOW);
        let daemons_own = || match self.membership(process::own_pid()) {
            Ok(Membership::Inside(_, dir)) => dir == *leaf,
            Ok(Membership::Outside(_)) => false,
            Err(_) => true,
        };
        here.is_ok_and(|stat| stat.st_ino == number) && !daemons_own()
    }
}
