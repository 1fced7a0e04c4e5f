//! Which directory a held process is in, mostly without asking proc: the kernel tells the number of a process's directory,
//! and which leaf, or which directory outside, has that number is remembered from the first time.
//!
//! A number is never given to a second directory (kernfs ids), so what is remembered cannot become wrong, only useless.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pinfold_model::{CellId, Dir};
use rustix::fs::AtFlags;

use crate::process::{self, Pinned, Standing};
use crate::{Membership, MembershipError, Tree, look};

/// The leaves whose numbers are known. A leaf that a stranger removed and that was made again has another number then.
#[derive(Debug, Default)]
pub(crate) struct Leaves(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    leaves: HashMap<u64, (CellId, Dir)>,
    numbers: HashMap<Dir, u64>,
    /// Directories in no cell, as proc prints their paths: v2 renames none.
    outside: HashMap<u64, OsString>,
    /// The daemon's own directory, when it was looked for last.
    own: Option<u64>,
    /// A number was told that is not the daemon's own directory's: this kernel tells everybody's.
    is_honest: bool,
}

/// How many directories outside are remembered. Nobody tells when one goes.
const MOST_OUTSIDE: usize = 1024;

impl Leaves {
    fn find(&self, number: u64) -> Option<Membership> {
        let known = self.lock();
        let leaf = known.leaves.get(&number).map(|(cell, dir)| Membership::Inside(*cell, dir.clone()));
        leaf.or_else(|| known.outside.get(&number).cloned().map(Membership::Outside))
    }

    fn add_outside(&self, number: u64, shown: OsString) {
        let mut known = self.lock();
        if known.outside.len() >= MOST_OUTSIDE {
            known.outside.clear();
        }
        known.outside.insert(number, shown);
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
        let Some(number) = standing.directory else { return self.membership_of_held(process) };
        if let Some(known) = self.leaves.find(number) {
            return Ok(known);
        }
        let found = self.membership_of_held(process)?;
        match &found {
            // Not the number of a directory below the leaf, nor of one of the same name before.
            Membership::Inside(cell, dir) => {
                if self.is_believed(number) && self.number_of(dir) == Some(number) {
                    self.leaves.add(number, *cell, dir);
                }
            }
            Membership::Outside(shown) => {
                if self.is_believed(number) && self.number_of_shown(shown) == Some(number) {
                    self.leaves.add_outside(number, shown.clone());
                }
            }
        }
        Ok(found)
    }

    /// Whether the kernel told this number of the process that was asked about.
    ///
    /// The first version of PIDFD_GET_INFO told everybody's number as the asker's (task_dfl_cgroup(current)). Until another
    /// number has been told, nothing is learnt.
    fn is_believed(&self, number: u64) -> bool {
        let known = self.leaves.lock();
        if known.is_honest || known.own == Some(number) {
            return known.is_honest;
        }
        drop(known);
        let own = look::shown_path(process::own_pid()).ok().and_then(|shown| self.number_of_shown(&shown));
        let is_honest = own.is_some_and(|own| own != number);
        let mut known = self.leaves.lock();
        known.is_honest |= is_honest;
        known.own = own;
        is_honest
    }

    /// The number of the directory that proc prints so; `None` if it is gone, or above the cgroup namespace.
    fn number_of_shown(&self, shown: &OsStr) -> Option<u64> {
        number_at(&self.mount, self.below_mount(shown)?)
    }
}

impl Tree {
    /// The number of a directory of the realm's; `None` if it is gone.
    pub(crate) fn number_of(&self, dir: &Dir) -> Option<u64> {
        number_at(&self.base, &self.below_base(dir))
    }
}

fn number_at(at: impl AsFd, path: &Path) -> Option<u64> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    rustix::fs::statat(at, path, AtFlags::SYMLINK_NOFOLLOW).ok().map(|stat| stat.st_ino)
}
