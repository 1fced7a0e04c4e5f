//! Ending every process of a group.

use pinfold_kernel as kernel;
use pinfold_model::{Carriers, GroupGone, GroupId, Uid};

use crate::realm::Changes;
use crate::{Caller, EffectError, KillError, Realm};

impl Realm {
    /// Kills every process of a group and of those below it: v2's cgroup.kill, which no fork escapes.
    pub fn kill(&self, caller: &Caller, group: GroupId) -> Result<(), KillError> {
        let change = self.begin_change()?;
        let owner = self.lock_forest().group(group).ok_or(GroupGone(group))?.ownership().uid;
        if caller.uid != Uid(0) && caller.uid != owner {
            return Err(KillError::NotPermitted(group));
        }
        self.kill_all(&change, group)
    }

    /// [`Self::kill`] for who is allowed already.
    pub(crate) fn kill_all(&self, _change: &Changes, group: GroupId) -> Result<(), KillError> {
        let dirs = {
            let forest = self.lock_forest();
            match forest.carriers(group).ok_or(GroupGone(group))? {
                Carriers::Scope => return Err(KillError::Root),
                Carriers::Dirs(dirs) => dirs,
            }
        };
        for dir in dirs {
            match self.tracker.kill(&dir) {
                Ok(()) | Err(kernel::ReadError::Gone { .. }) => {}
                Err(error) => return Err(EffectError::from(error).into()),
            }
        }
        Ok(())
    }
}
