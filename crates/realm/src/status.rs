//! How each setting of a group is enforced (I7), and whole-group operations.

use pinfold_files::{Carry, EntryShare, Needs, OOM_KILL_DISABLE, Read, Share, V2Entries, V2Write};
use pinfold_kernel as kernel;
use pinfold_model::{Carriers, Forest, Group, GroupGone, GroupId, Uid};

use crate::hierarchy::NO_RESOURCE_LIMITS;
use crate::realm::surroundings;
use crate::{Caller, EffectError, Enforced, KeptSetting, KillError, ReadError, Realm, SettingStatus};

impl Realm {
    /// Every setting of a group: its value, and who enforces it.
    pub fn status(&self, group: GroupId) -> Result<Vec<SettingStatus>, ReadError> {
        let (around, carriers, programs, is_among_siblings) = {
            let forest = self.lock_forest();
            let around = surroundings(&forest, group).ok_or(GroupGone(group))?;
            let carriers = forest.carriers(group).ok_or(GroupGone(group))?.into_dirs().len();
            (around, carriers, forest.own_leaves(group).len(), is_among_siblings(&forest, group))
        };
        let mut status = Vec::new();
        for id in pinfold_files::list(around.bound, around.is_root, &self.facts) {
            let (controller, row) = pinfold_files::file(id);
            let (Some(setting), Read::Shown { show, from }) = (row.setting, &row.read) else { continue };
            let missing =
                pinfold_files::controller_named(controller.name).is_some_and(|id| !self.enabled.contains(id));
            let (text, set) =
                self.with_texts(group, from, |sight| (show(sight), sight.own(setting) != &setting.initial))?;
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
                Carry::Limit(_) | Carry::Entries(_) if around.is_root && set => {
                    Enforced::StoredOnly("a root has no v2 directory of its own")
                }
                Carry::Limit([V2Write { file: "memory.low", .. }]) => Enforced::Unlike(PROTECTION),
                Carry::Limit(files) if !is_among_siblings && files.iter().any(is_weight) => {
                    Enforced::Unlike(WEIGHT)
                }
                Carry::Entries(V2Entries { share: EntryShare::Weight, .. }) if !is_among_siblings => {
                    Enforced::Unlike(WEIGHT)
                }
                Carry::Everywhere { .. } | Carry::Limit(_) | Carry::Entries(_) if carriers < 2 => {
                    Enforced::Native
                }
                Carry::Entries(V2Entries { share: EntryShare::Divided { .. }, .. }) => {
                    Enforced::Shared(carriers)
                }
                Carry::Limit([V2Write { share: Share::Without(_), .. }]) => {
                    Enforced::StoredOnly("there is none while the limit it belongs to is divided")
                }
                Carry::Limit(files) if files.iter().any(is_divided) => Enforced::Shared(carriers),
                Carry::Everywhere { .. } | Carry::Limit(_) | Carry::Entries(_) => {
                    Enforced::Everywhere(carriers)
                }
            };
            let enforced = match (&enforced, self.lacking(&setting.carry)) {
                (
                    Enforced::Native | Enforced::Shared(_) | Enforced::Everywhere(_) | Enforced::Unlike(_),
                    Some(file),
                ) => Enforced::Lacking(file),
                _ => enforced,
            };
            status.push(SettingStatus {
                file: pinfold_files::full_name(id, around.noprefix).into_owned(),
                value: String::from_utf8_lossy(text.trim_ascii_end()).into_owned(),
                set,
                enforced,
            });
        }
        Ok(status)
    }

    /// The v2 file without which a setting has no effect, if the kernel below lacks it.
    fn lacking(&self, carry: &Carry) -> Option<&'static str> {
        let file = match *carry {
            Carry::Limit([only]) => only.file,
            Carry::Entries(entries) => entries.file,
            Carry::Everywhere { v2, .. } => v2,
            _ => return None,
        };
        (!self.facts.v2_files.contains(file)).then_some(file)
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

/// effective_protection(): no directory is protected by more than the one above it, and the realm's has no protection.
const PROTECTION: &str = "only where a group above meets its limit: when the machine itself lacks memory, v2 protects nothing here";

const WEIGHT: &str =
    "weighed only against those that share its v2 directory above, as its siblings do not all";

/// Whether a group and its siblings are one v2 directory each, side by side: only those are weighed against each other.
fn is_among_siblings(forest: &Forest, group: GroupId) -> bool {
    let Some(parent) = forest.group(group).and_then(Group::parent) else { return true };
    let one = |group: GroupId| match forest.carriers(group).map(Carriers::into_dirs)?.as_slice() {
        [] => None,
        [dir] => Some(dir.parent()),
        _ => Some(None),
    };
    let mut above = forest.children(parent).filter_map(one);
    above.next().is_none_or(|first| first.is_some() && above.all(|other| other == first))
}

fn is_divided(file: &V2Write) -> bool {
    !matches!(file.share, Share::Same | Share::Weight)
}

fn is_weight(file: &V2Write) -> bool {
    matches!(file.share, Share::Weight)
}
