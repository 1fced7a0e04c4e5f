//! How each setting of a group is enforced (I7), and whole-group operations.

use pinfold_files::{Carry, Needs, OOM_KILL_DISABLE, Read, Share, V2Write};
use pinfold_kernel as kernel;
use pinfold_model::{Carriers, GroupGone, GroupId, Uid};

use crate::hierarchy::NO_RESOURCE_LIMITS;
use crate::realm::surroundings;
use crate::{Caller, EffectError, Enforced, KillError, ReadError, Realm, SettingStatus};

impl Realm {
    /// Every setting of a group: its value, and who enforces it.
    pub fn status(&self, group: GroupId) -> Result<Vec<SettingStatus>, ReadError> {
        let (around, carriers, programs) = {
            let forest = self.lock_forest();
            let around = surroundings(&forest, group).ok_or(GroupGone(group))?;
            let carriers = forest.carriers(group).ok_or(GroupGone(group))?.into_dirs().len();
            (around, carriers, forest.own_leaves(group).len())
        };
        let mut status = Vec::new();
        for id in pinfold_files::list(around.bound, around.is_root, &self.facts) {
            let (controller, row) = pinfold_files::file(id);
            let (Some(setting), Read::Shown { show, from }) = (row.setting, &row.read) else { continue };
            let missing =
                pinfold_files::controller_named(controller.name).is_some_and(|id| !self.enabled.contains(id));
            let enforced = match setting.carry {
                // What v2 files would say has its effect from here.
                Carry::Everywhere { v2: "cpuset.mems", .. } if self.tracker.is_user_space() => {
                    Enforced::StoredOnly("without a v2 tree nobody can bind another's memory to nodes")
                }
                Carry::Everywhere { .. } | Carry::Limit(_) | Carry::Entries(_)
                    if !missing && self.tracker.is_user_space() =>
                {
                    Enforced::UserSpace
                }
                _ if missing && controller.needs == Needs::ResourceLimits => {
                    Enforced::StoredOnly(NO_RESOURCE_LIMITS)
                }
                _ if missing => Enforced::StoredOnly("the kernel below no longer has the controller"),
                Carry::UserSpace => Enforced::UserSpace,
                Carry::Descriptors { .. } => {
                    let (limited, loose) = self.lock_change().descriptors.processes_of(group);
                    Enforced::Processes { limited, loose }
                }
                // v2 slows processes down at their limit; that they wait there is our doing.
                Carry::Limit(_) if *setting == OOM_KILL_DISABLE => Enforced::UserSpace,
                Carry::Inert(why) => Enforced::StoredOnly(why),
                Carry::Program { .. } if around.is_root => {
                    Enforced::StoredOnly("what a root keeps binds the groups below it only")
                }
                Carry::Program { unlike, .. } if !unlike.is_empty() => Enforced::Unlike(unlike),
                Carry::Program { .. } if programs < 2 => Enforced::Native,
                Carry::Program { .. } => Enforced::Everywhere(programs),
                Carry::Everywhere { .. } | Carry::Limit(_) | Carry::Entries(_) if carriers < 2 => {
                    Enforced::Native
                }
                Carry::Entries(_) => Enforced::Shared(carriers),
                Carry::Limit([V2Write { share: Share::Without(_), .. }]) => {
                    Enforced::StoredOnly("there is none while the limit it belongs to is divided")
                }
                Carry::Limit(files) if files.iter().any(is_divided) => Enforced::Shared(carriers),
                Carry::Everywhere { .. } | Carry::Limit(_) => Enforced::Everywhere(carriers),
            };
            let (text, set) =
                self.with_texts(group, from, |sight| (show(sight), sight.own(setting) != &setting.initial))?;
            status.push(SettingStatus {
                file: pinfold_files::full_name(id, around.noprefix).into_owned(),
                value: String::from_utf8_lossy(text.trim_ascii_end()).into_owned(),
                set,
                enforced,
            });
        }
        Ok(status)
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

fn is_divided(file: &V2Write) -> bool {
    !matches!(file.share, Share::Same)
}
