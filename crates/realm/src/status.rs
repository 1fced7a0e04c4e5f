//! How each setting of a group is enforced (I7), and whole-group operations.

use pinfold_files::{Carry, Read};
use pinfold_kernel as kernel;
use pinfold_model::{Carriers, GroupGone, GroupId, Uid};

use crate::enforced::Circumstances;
use crate::realm::surroundings;
use crate::{Caller, EffectError, KeptSetting, KillError, ReadError, Realm, SettingStatus};

impl Realm {
    /// Every setting of a group: its value, and who enforces it.
    pub fn status(&self, group: GroupId) -> Result<Vec<SettingStatus>, ReadError> {
        let (around, circumstances) = {
            let forest = self.lock_forest();
            let around = surroundings(&forest, group).ok_or(GroupGone(group))?;
            (around, Circumstances::of(&forest, group))
        };
        let below = self.below();
        let mut status = Vec::new();
        for id in pinfold_files::list(around.bound, around.is_root, &self.facts) {
            let (_, row) = pinfold_files::file(id);
            let (Some(setting), Read::Shown { show, from }) = (row.setting, &row.read) else { continue };
            let (text, set) =
                self.with_texts(group, from, |sight| (show(sight), sight.own(setting) != &setting.initial))?;
            let processes = match setting.carry {
                Carry::Descriptors { .. } => self.lock_change().descriptors.processes_of(group),
                _ => (0, 0),
            };
            let enforced = below.enforced(setting, set, &Circumstances { processes, ..circumstances });
            status.push(SettingStatus {
                file: pinfold_files::full_name(id, around.noprefix).into_owned(),
                value: String::from_utf8_lossy(text.trim_ascii_end()).into_owned(),
                set,
                enforced,
            });
        }
        Ok(status)
    }

    /// What is written to a group, in this order, to give it the settings of this one.
    pub fn settings(&self, group: GroupId) -> Result<Vec<KeptSetting>, ReadError> {
        let around = surroundings(&self.lock_forest(), group).ok_or(GroupGone(group))?;
        let mut settings = Vec::new();
        for id in pinfold_files::list(around.bound, around.is_root, &self.facts) {
            let from = pinfold_files::file(id).1.sources();
            let Some(again) = self.with_texts(group, from, |sight| pinfold_files::again(id, sight))? else {
                continue;
            };
            settings.extend(again.writes.into_iter().map(|(file, text)| KeptSetting {
                file: pinfold_files::full_name(file, around.noprefix).into_owned(),
                text,
                needed: again.needed,
            }));
        }
        Ok(settings)
    }

    /// Kills every process of a group and of those below it: v2's cgroup.kill, which no fork escapes.
    pub fn kill(&self, caller: &Caller, group: GroupId) -> Result<(), KillError> {
        let owner = self.lock_forest().group(group).ok_or(GroupGone(group))?.ownership().uid;
        if caller.uid != Uid(0) && caller.uid != owner {
            return Err(KillError::NotPermitted(group));
        }
        self.kill_all(group)
    }

    /// The same, for who is allowed already.
    pub(crate) fn kill_all(&self, group: GroupId) -> Result<(), KillError> {
        let _change = self.begin_change()?;
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
