//! How each setting of a group is enforced (I7), and whole-group operations.

use pinfold_files::{Carry, Read, Texts};
use pinfold_kernel as kernel;
use pinfold_model::{Carriers, GroupGone, GroupId, Uid};

use crate::realm::surroundings;
use crate::{Caller, EffectError, Enforced, KillError, LookupError, Realm, SettingStatus};

impl Realm {
    /// Every setting of a group: its value, and who enforces it.
    pub fn status(&self, group: GroupId) -> Result<Vec<SettingStatus>, LookupError> {
        let forest = self.lock_forest();
        let around = surroundings(&forest, group).ok_or(GroupGone(group))?;
        let native = forest.leading() == Some(around.hierarchy);
        let directories = match forest.carriers(group).ok_or(GroupGone(group))? {
            Carriers::Leaves(leaves) => leaves.len(),
            Carriers::Scope | Carriers::Spine(_) => 1,
        };
        let mut status = Vec::new();
        for id in pinfold_files::list(around.bound, around.is_root) {
            let (_, row) = pinfold_files::file(id);
            let (Some(setting), Read::Shown { show, from: [] }) = (row.setting, &row.read) else {
                continue;
            };
            let sight =
                pinfold_files::Sight { forest: &forest, group, v2: &Texts::default(), facts: &self.facts };
            status.push(SettingStatus {
                file: pinfold_files::full_name(id, around.noprefix).into_owned(),
                value: String::from_utf8_lossy(show(&sight).trim_ascii_end()).into_owned(),
                set: sight.own(setting) != &setting.initial,
                enforced: match setting.carry {
                    Carry::UserSpace => Enforced::UserSpace,
                    Carry::Inert(why) => Enforced::StoredOnly(why),
                    Carry::Limit(_) => Enforced::Native,
                    Carry::Everywhere { .. } if native => Enforced::Native,
                    Carry::Everywhere { .. } => Enforced::Everywhere(directories),
                },
            });
        }
        Ok(status)
    }

    /// Kills every process of a group and of those below it: v2's cgroup.kill, which no fork escapes.
    pub fn kill(&self, caller: &Caller, group: GroupId) -> Result<(), KillError> {
        let _change = self.lock_change();
        let dirs = {
            let forest = self.lock_forest();
            let found = forest.group(group).ok_or(GroupGone(group))?;
            if caller.uid != Uid(0) && caller.uid != found.ownership().uid {
                return Err(KillError::NotPermitted(group));
            }
            match forest.carriers(group).ok_or(GroupGone(group))? {
                Carriers::Scope => return Err(KillError::Root),
                Carriers::Spine(dir) => vec![dir],
                Carriers::Leaves(dirs) => dirs,
            }
        };
        for dir in dirs {
            match self.tree.kill(&dir) {
                Ok(()) | Err(kernel::ReadError::Gone { .. }) => {}
                Err(error) => return Err(EffectError::from(error).into()),
            }
        }
        Ok(())
    }
}
