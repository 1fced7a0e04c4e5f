//! How each setting of a group is enforced (I7).

use pinfold_files::{Carry, Instead, Read, Setting, Source};
use pinfold_model::{Carriers, GroupGone, GroupId, Settings};

use crate::carry::{is_charged, may_come_to_more};
use crate::enforced::Circumstances;
use crate::realm::surroundings;
use crate::{Enforced, KeptSetting, ReadError, Realm, SettingStatus};

const BEYOND: &str = "more is in swap than the limits leave, which v2 does not bring back: until it is used or freed, more than both \
                      limits allow can be used";

impl Realm {
    /// Every setting of a group: its value, and who enforces it. Beside them, files of figures, and of what is done, that is done
    /// otherwise here than elsewhere.
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
            let instead = row.instead.filter(|instead| !around.is_root && self.lacks(instead));
            let told = |text: &[u8], set, enforced| SettingStatus {
                file: pinfold_files::full_name(id, around.noprefix).into_owned(),
                value: String::from_utf8_lossy(text.trim_ascii_end()).into_owned(),
                set,
                enforced,
            };
            let (Some(setting), Read::Shown { show, from }) = (row.setting, &row.read) else {
                // Of those that are measured one tells of all.
                let is_told = || status.iter().any(|one: &SettingStatus| is_by_cpu(&one.enforced));
                let is_measured = row.sources().contains(&Source::Measured);
                let by_cpu = || (is_measured && !is_told()).then(|| self.told_by_cpu());
                let otherwise = || instead.map(|instead| Enforced::Instead { by: None, instead });
                let Some(enforced) = by_cpu().or_else(otherwise) else { continue };
                let text = match row.read {
                    Read::Followed { from, show } => self.follow(group, from, show)?,
                    _ => Vec::new(),
                };
                status.push(told(&text, false, enforced));
                continue;
            };
            let (text, set) =
                self.with_texts(group, from, |sight| (show(sight), sight.own(setting) != &setting.initial))?;
            let processes = match setting.carry {
                Carry::Descriptors { .. } => self.lock_change().descriptors.processes_of(group),
                _ => (0, 0),
            };
            let enforced = below.enforced(setting, set, &Circumstances { processes, ..circumstances });
            let is_by_kernel = enforced.is_by_kernel();
            let enforced = match is_by_kernel && self.is_held_beyond(group, setting) {
                true => Enforced::Unlike(BEYOND),
                false => enforced,
            };
            let enforced = match enforced {
                Enforced::Shared(directories) | Enforced::SharedByRates { directories, .. }
                    if may_come_to_more(&self.lock_forest(), group, setting, directories) =>
                {
                    Enforced::SharedBeyond(directories)
                }
                Enforced::Shared(directories) if is_charged(&self.lock_forest(), group, setting) => {
                    Enforced::SharedCharge(directories)
                }
                enforced => enforced,
            };
            let enforced = match instead.filter(|_| is_by_kernel) {
                Some(instead) => Enforced::Instead { by: Some(Box::new(enforced)), instead },
                None => enforced,
            };
            status.push(told(&text, set, enforced));
        }
        Ok(status)
    }

    /// Whether the kernel below lacks the file without which something is done otherwise.
    fn lacks(&self, instead: &Instead) -> bool {
        !self.facts.v2_files.contains(instead.of)
    }

    /// Whether the group uses more than a limit leaves of something that cannot be reclaimed: v2 lets it be.
    fn is_held_beyond(&self, group: GroupId, setting: &Setting) -> bool {
        let Carry::Limit(writes) = setting.carry else { return false };
        if !writes.iter().any(|write| write.room.is_some_and(|room| !room.beside.is_empty())) {
            return false; // as nearly all
        }
        let (settings, dirs) = {
            let forest = self.lock_forest();
            let settings = forest.group(group).map_or(Settings::NONE, |found| found.settings().clone());
            (settings, forest.carriers(group).map_or(Vec::new(), Carriers::into_dirs))
        };
        writes.iter().any(|write| {
            let most = (write.text)(&settings).and_then(|text| text.parse::<u64>().ok());
            let (Some(most), Some(room)) = (most, write.room) else { return false };
            let used = dirs.iter().filter_map(|dir| self.used_of(dir, room.beside).ok());
            used.fold(0, u64::saturating_add) > most
        })
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
}

const fn is_by_cpu(enforced: &Enforced) -> bool {
    matches!(enforced, Enforced::Measured { .. } | Enforced::Spread(_))
}
