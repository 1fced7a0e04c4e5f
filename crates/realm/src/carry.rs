//! Which v2 files say what groups keep: the writes that put values in force, in the directories that are there and in
//! those that are being made.
//!
//! A value is written where its group is carried. A directory may carry several groups of a hierarchy, one below the
//! other; then it has what holds of all of them: of limits the least, of weights the innermost group's.

use std::collections::HashSet;

use pinfold_files::{
    Amount, Assignment, Carry, Division, EntryShare, Periods, Pressed, Setting, Share, Used, V2Entries,
    V2Write,
};
use pinfold_kernel::Step;
use pinfold_model::{Carriers, ControllerSet, Dir, Forest, Group, GroupId, HierarchyId, Settings};

use crate::realm::surroundings;
use crate::shares::Shares;

/// What is looked at to find the text of a v2 file.
#[derive(Clone, Copy)]
pub(crate) struct Carrying<'a> {
    pub(crate) forest: &'a Forest,
    /// The parts of divided limits.
    pub(crate) shares: &'a Shares,
    /// Values that are about to be kept.
    pub(crate) assigned: &'a [Assignment],
}

/// Which values are written to a directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Extent {
    /// Those that differ from the initial ones: a new directory has these.
    Changed,
    /// All: a directory that was there before may have others than are kept.
    All,
}

impl Carrying<'_> {
    /// The writes that put the assigned values in force in the directories there are.
    pub(crate) fn steps_for_assigned(&self) -> Vec<Step> {
        self.assigned.iter().flat_map(|a| self.steps_of(a.group, a.setting)).collect()
    }

    /// The writes that put the kept values of assigned settings in force again: nothing is assigned here any more.
    pub(crate) fn steps_back(&self, assignments: &[Assignment]) -> Vec<Step> {
        // The last first: what was put in force later may stand in the way of an earlier value.
        assignments.iter().rev().flat_map(|a| self.steps_of(a.group, a.setting)).collect()
    }

    /// The writes of one setting of a group to each of its carriers.
    pub(crate) fn steps_of(&self, group: GroupId, setting: &Setting) -> Vec<Step> {
        if matches!(setting.carry, Carry::Program { .. }) {
            let leaves = self.forest.own_leaves(group).into_iter();
            return leaves.filter_map(|leaf| self.program(group, setting, &leaf)).collect();
        }
        let dirs = self.forest.carriers(group).map_or(Vec::new(), Carriers::into_dirs);
        let hierarchy = self.forest.group(group).map(|found| found.hierarchy());
        let writes = |dir: &Dir| self.writes(setting, dir, &self.carried(dir, hierarchy), Extent::All);
        dirs.iter().flat_map(writes).collect()
    }

    /// The writes of every limit of a group to each of its carriers.
    pub(crate) fn steps_of_limits(&self, group: GroupId) -> Vec<Step> {
        self.steps_of_some(group, |setting| matches!(setting.carry, Carry::Limit(_) | Carry::Entries(_)))
    }

    /// The writes of the parts that a group's carriers have of these limits, and of their guards, among what is written with them.
    pub(crate) fn steps_of_parts(&self, group: GroupId, limits: &[&Divided]) -> Vec<Step> {
        let files: Vec<&str> = limits
            .iter()
            .filter(|one| one.group == group)
            .flat_map(|one| std::iter::once(one.limit.file).chain(one.limit.guard))
            .collect();
        // Settings that go to the same files come to the same.
        let mut seen: Vec<Vec<&str>> = Vec::new();
        self.steps_of_some(group, |setting| {
            let written = match setting.carry {
                Carry::Limit(writes) => writes.iter().map(|write| write.file).collect(),
                Carry::Entries(entries) => vec![entries.file],
                _ => return false,
            };
            let is_new = !seen.contains(&written) && written.iter().any(|file| files.contains(file));
            if is_new {
                seen.push(written);
            }
            is_new
        })
    }

    /// The writes of everything that a group keeps, or one above that it is carried with, to each of its carriers.
    pub(crate) fn steps_of_all(&self, group: GroupId) -> Vec<Step> {
        self.steps_of_some(group, |_| true)
    }

    fn steps_of_some(&self, group: GroupId, mut wanted: impl FnMut(&Setting) -> bool) -> Vec<Step> {
        let bound = surroundings(self.forest, group).map(|around| around.bound).unwrap_or_default();
        let settings = self.in_order(bound, &[group]).into_iter().filter(|setting| wanted(setting));
        each_once(settings.flat_map(|setting| self.steps_of(group, setting)))
    }

    /// The settings of these controllers, in the order in which they can be written for these groups: what there is only
    /// beside an undivided limit goes before that is divided.
    fn in_order(&self, bound: ControllerSet, groups: &[GroupId]) -> Vec<&'static Setting> {
        let mut settings: Vec<&Setting> = pinfold_files::settings(bound).collect();
        if self.is_any_divided(groups) {
            settings.sort_by_key(|setting| !is_without(setting));
        }
        settings
    }

    fn is_any_divided(&self, groups: &[GroupId]) -> bool {
        groups.iter().any(|group| !self.forest.is_alone(*group))
    }

    /// The writes that bring a directory to what the groups keep that it carries; `None` for `hierarchy` means all.
    pub(crate) fn steps_for_dir(
        &self,
        dir: &Dir,
        hierarchy: Option<HierarchyId>,
        extent: Extent,
    ) -> Vec<Step> {
        let mut steps = Vec::new();
        let hierarchies =
            self.forest.hierarchies().filter(|(id, _)| hierarchy.is_none_or(|only| only == *id));
        for (id, found) in hierarchies {
            let carried = self.carried(dir, Some(id));
            let own = dir.leaf().and_then(|cell| self.forest.group_of(cell, id));
            for setting in self.in_order(found.controllers(), &carried) {
                let wanted = own.filter(|group| extent == Extent::All || self.keeps(*group, setting));
                steps.extend(wanted.and_then(|group| self.program(group, setting, dir)));
                steps.extend(self.writes(setting, dir, &carried, extent));
            }
        }
        each_once(steps)
    }

    /// Whether a group keeps a value of its own for a setting, or is about to.
    fn keeps(&self, group: GroupId, setting: &Setting) -> bool {
        setting.of(&self.settings(group)) != &setting.initial
    }

    /// The program that a leaf of a group needs: a matter of the group's own leaves alone, wherever they hang. A root's
    /// processes are not all in leaves, so none of them has one.
    fn program(&self, group: GroupId, setting: &Setting, leaf: &Dir) -> Option<Step> {
        let Carry::Program { slot, code, .. } = setting.carry else { return None };
        self.forest.group(group)?.parent()?;
        Some(Step::Program { dir: leaf.clone(), slot, code: code(setting.of(&self.settings(group))) })
    }

    /// The groups of a hierarchy that a directory carries, outermost first.
    fn carried(&self, dir: &Dir, hierarchy: Option<HierarchyId>) -> Vec<GroupId> {
        let is_of = |id: &GroupId| self.forest.group(*id).map(|found| found.hierarchy()) == hierarchy;
        self.forest.carried(dir).into_iter().filter(is_of).collect()
    }

    fn writes(&self, setting: &Setting, dir: &Dir, carried: &[GroupId], extent: Extent) -> Vec<Step> {
        let write = |file, text| Step::Write { dir: dir.clone(), file, text };
        let is_kept = || carried.iter().any(|group| self.keeps(*group, setting));
        match setting.carry {
            Carry::UserSpace | Carry::Descriptors { .. } | Carry::Inert(_) | Carry::Program { .. } => {
                Vec::new()
            }
            Carry::Everywhere { v2, show, combine, .. } => {
                let own = |id: &GroupId| setting.of(&self.settings(*id)).clone();
                let value = carried.iter().map(own).reduce(|above, own| combine(&above, &own));
                let value = value.unwrap_or_else(|| setting.initial.clone());
                let wanted = extent == Extent::All || value != setting.initial;
                wanted.then(|| write(v2, show(&value))).into_iter().collect()
            }
            Carry::Entries(_) | Carry::Limit(_) if extent == Extent::Changed && !is_kept() => Vec::new(),
            Carry::Entries(v2) => {
                let entry = |text| Step::Entry { dir: dir.clone(), file: v2.file, text };
                self.entries(&v2, dir, carried).into_iter().map(entry).collect()
            }
            Carry::Limit(files) => {
                let mut steps = Vec::new();
                for file in files {
                    let Some(text) = self.text(file, dir, carried) else { continue };
                    // The guard is there before the limit, and goes before a greater one.
                    if let Some(guard) = guard_of(file) {
                        let least = self.guard(guard, dir, carried).map(|least| least.to_string());
                        let is_limit = files.iter().any(|other| other.file == guard);
                        let lifted = || (extent == Extent::All && !is_limit).then(|| "max".to_owned());
                        steps.extend(least.or_else(lifted).map(|text| write(guard, text)));
                    }
                    let guard = self.guard(file.file, dir, carried);
                    let guard = guard.filter(|least| text.parse().map_or(true, |limit: u64| *least < limit));
                    steps.push(write(file.file, guard.map_or(text, |least| least.to_string())));
                }
                steps
            }
        }
    }

    /// The text of a v2 file in a directory that carries these groups, outermost first.
    fn text(&self, file: &V2Write, dir: &Dir, carried: &[GroupId]) -> Option<String> {
        let settings = self.innermost(carried);
        match file.share {
            Share::Same | Share::Weight => (file.text)(&settings),
            Share::Without(text) => {
                if self.is_any_divided(carried) {
                    Some(text.to_owned())
                } else {
                    (file.text)(&settings)
                }
            }
            Share::Divided(division) => {
                let parts = self.parts(file.file, division.amounts, dir, carried);
                match parts.as_slice() {
                    [] => (file.text)(&settings),
                    [(only, _)] if carried.last() == Some(only) && self.forest.is_alone(*only) => {
                        (file.text)(&settings)
                    }
                    parts => {
                        let (inner, _) = parts.last()?;
                        let amounts = least(parts.iter().flat_map(|(_, amounts)| amounts));
                        Some((division.text)(&self.settings(*inner), &amounts))
                    }
                }
            }
        }
    }

    /// The entries of a v2 file in a directory that carries these groups.
    fn entries(&self, v2: &V2Entries, dir: &Dir, carried: &[GroupId]) -> Vec<String> {
        let EntryShare::Divided { least: least_part, .. } = v2.share else {
            return (v2.entries)(&self.innermost(carried));
        };
        let entries = |group: &GroupId| (v2.entries)(&self.settings(*group));
        let mut own: Vec<String> = Vec::new();
        // Where a limit of any group that holds the directory may have been in force, it is lifted if it is no more.
        let held = self.forest.held(dir);
        let lifted = held.iter().flat_map(entries).map(|entry| V2Entries::lifted(&entry));
        for entry in carried.iter().rev().flat_map(entries).chain(lifted) {
            if !own.iter().any(|seen| V2Entries::key(seen) == V2Entries::key(&entry)) {
                own.push(entry);
            }
        }
        let parts = self.parts(v2.file, |settings| V2Entries::amounts(&(v2.entries)(settings)), dir, carried);
        let amounts = least(parts.iter().flat_map(|(_, amounts)| amounts));
        V2Entries::with(&own, &amounts, least_part)
    }

    /// What the innermost of these groups keeps.
    fn innermost(&self, carried: &[GroupId]) -> Settings {
        carried.last().map_or(Settings::NONE, |inner| self.settings(*inner))
    }

    /// What each of the carried groups lets a directory have; those without a limit are left out.
    fn parts(
        &self,
        file: &'static str,
        amounts: impl Fn(&Settings) -> Vec<Amount>,
        dir: &Dir,
        carried: &[GroupId],
    ) -> Vec<(GroupId, Vec<Amount>)> {
        let part = |group: &GroupId| {
            let whole = amounts(&self.settings(*group));
            let part = match self.forest.is_alone(*group) {
                true => whole,
                false => self.shares.part(*group, file, dir).unwrap_or(whole),
            };
            (!part.is_empty()).then_some((*group, part))
        };
        carried.iter().filter_map(part).collect()
    }

    /// The least value that a file has to have as a guard of divided limits.
    fn guard(&self, guard: &'static str, dir: &Dir, carried: &[GroupId]) -> Option<u64> {
        carried.iter().filter_map(|group| self.shares.least_guard(*group, guard, dir)).min()
    }

    /// What a group keeps, with what is about to be.
    pub(crate) fn settings(&self, group: GroupId) -> Settings {
        let mut settings = self.forest.group(group).map_or(Settings::NONE, |found| found.settings().clone());
        for assigned in self.assigned.iter().filter(|assigned| assigned.group == group) {
            settings.replace(assigned.setting.key, Some(assigned.value.clone()));
        }
        settings
    }

    /// The limits of these groups that are divided: those of groups with more than one carrier.
    pub(crate) fn divided(&self, groups: impl IntoIterator<Item = GroupId>) -> Vec<Divided> {
        let mut found: Vec<Divided> = Vec::new();
        for group in groups {
            let Some(around) = surroundings(self.forest, group).filter(|around| !around.is_root) else {
                continue;
            };
            let settings = self.settings(group);
            let limits: Vec<Limit> = pinfold_files::settings(around.bound)
                .flat_map(|setting| limits_of(setting, &settings))
                .filter(|limit| !limit.amounts.is_empty())
                .collect();
            if limits.is_empty() {
                continue;
            }
            let dirs = self.forest.carriers(group).map_or(Vec::new(), Carriers::into_dirs);
            if dirs.len() < 2 {
                continue;
            }
            for limit in limits {
                if !found.iter().any(|seen| seen.group == group && seen.limit.file == limit.file) {
                    found.push(Divided { group, limit, dirs: dirs.clone() });
                }
            }
        }
        found
    }
}

/// A limit that several directories have parts of.
#[derive(Clone)]
pub(crate) struct Divided {
    pub(crate) group: GroupId,
    pub(crate) limit: Limit,
    pub(crate) dirs: Vec<Dir>,
}

/// A limit that can be divided.
#[derive(Clone)]
pub(crate) struct Limit {
    /// The v2 file that has it, or a part of it.
    pub(crate) file: &'static str,
    /// The whole.
    pub(crate) amounts: Vec<Amount>,
    pub(crate) used: Used,
    pub(crate) pressed: Option<Pressed>,
    pub(crate) guard: Option<&'static str>,
    /// The least that the kernel takes of an amount.
    pub(crate) least: u64,
    /// Of a rate that is handed out in periods, those.
    pub(crate) periods: Option<Periods>,
}

impl Limit {
    /// Whether the least that the kernel takes for each of so many directories is more than the limit.
    fn is_below_the_least_of(&self, directories: usize) -> bool {
        let least = self.least.saturating_mul(directories as u64);
        self.amounts.iter().any(|amount| amount.most < least)
    }
}

/// Whether so many directories may have more than a limit together, as v2 takes no part of it that is small enough.
pub(crate) fn may_come_to_more(
    forest: &Forest,
    group: GroupId,
    setting: &Setting,
    directories: usize,
) -> bool {
    let of = |found: &Group| limits_of(setting, found.settings());
    let limits = forest.group(group).map_or(Vec::new(), of);
    limits.iter().any(|limit| limit.is_below_the_least_of(directories))
}

/// Whether it is a limit of what processes leave a charge for.
pub(crate) fn is_charged(forest: &Forest, group: GroupId, setting: &Setting) -> bool {
    let of = |found: &Group| limits_of(setting, found.settings());
    let is_charged = |limit: &Limit| !limit.amounts.is_empty() && matches!(limit.used, Used::Charged(_));
    forest.group(group).map_or(Vec::new(), of).iter().any(is_charged)
}

/// The limits that a group keeps of what processes leave a charge for, each file that tells of it once.
pub(crate) fn charged_limits(forest: &Forest, group: GroupId) -> Vec<Limit> {
    let Some((around, found)) = surroundings(forest, group).zip(forest.group(group)) else {
        return Vec::new();
    };
    let limits = pinfold_files::settings(around.bound).flat_map(|it| limits_of(it, found.settings()));
    let mut charged: Vec<Limit> = Vec::new();
    for limit in limits.filter(|limit| !limit.amounts.is_empty()) {
        let Used::Charged(figure) = limit.used else { continue };
        if charged.iter().all(|seen| seen.used.figure().file != figure.file) {
            charged.push(limit);
        }
    }
    charged
}

/// The limits of a setting that can be divided, in a group that keeps these settings.
fn limits_of(setting: &Setting, settings: &Settings) -> Vec<Limit> {
    match setting.carry {
        Carry::Limit(files) => files.iter().filter_map(|file| limit_of(file, settings)).collect(),
        Carry::Entries(V2Entries {
            file,
            entries,
            share: EntryShare::Divided { used, pressed, least },
            ..
        }) => {
            let amounts = V2Entries::amounts(&entries(settings));
            vec![Limit { file, amounts, used, pressed, guard: None, least, periods: None }]
        }
        Carry::Entries(V2Entries { share: EntryShare::Weight, .. })
        | Carry::UserSpace
        | Carry::Descriptors { .. }
        | Carry::Inert(_)
        | Carry::Everywhere { .. }
        | Carry::Program { .. } => Vec::new(),
    }
}

fn limit_of(file: &V2Write, settings: &Settings) -> Option<Limit> {
    let Share::Divided(division) = file.share else { return None };
    let Division { used, pressed, guard, least, .. } = *division;
    let amounts = (division.amounts)(settings);
    let periods = division.periods.map(|periods| periods(settings));
    Some(Limit { file: file.file, amounts, used, pressed, guard, least, periods })
}

/// Steps without those that were there before.
fn each_once(steps: impl IntoIterator<Item = Step>) -> Vec<Step> {
    let mut seen: HashSet<Step> = HashSet::new();
    steps.into_iter().filter(|step| seen.insert(step.clone())).collect()
}

/// The file that guards a limit while it is divided.
fn guard_of(file: &V2Write) -> Option<&'static str> {
    match file.share {
        Share::Divided(division) => division.guard,
        Share::Same | Share::Weight | Share::Without(_) => None,
    }
}

fn is_without(setting: &Setting) -> bool {
    let Carry::Limit(files) = setting.carry else { return false };
    files.iter().any(|file| matches!(file.share, Share::Without(_)))
}

/// Of several limits, for each thing that they limit, the least.
fn least<'a>(all: impl Iterator<Item = &'a Amount>) -> Vec<Amount> {
    let mut found: Vec<Amount> = Vec::new();
    for amount in all {
        match found.iter_mut().find(|seen| seen.of == amount.of) {
            Some(seen) => seen.most = seen.most.min(amount.most),
            None => found.push(amount.clone()),
        }
    }
    found
}
