//! Which v2 files say what a group keeps: the writes that put a value in force, in the directories that are there and
//! in those that are being made.

use pinfold_files::{Assignment, Carry, Setting};
use pinfold_kernel::Step;
use pinfold_model::{CellId, Dir, Forest, GroupId, Settings, Value};

use crate::realm::surroundings;

/// The writes that put assigned values in force in the directories there are.
pub(crate) fn steps_for(forest: &Forest, assignments: &[Assignment]) -> Vec<Step> {
    let assigned = |group: GroupId, setting: &Setting| {
        let found = assignments.iter().find(|a| a.group == group && *a.setting == *setting);
        found.map(|a| a.value.clone())
    };
    assignments.iter().flat_map(|a| steps_of(forest, a.group, a.setting, &assigned)).collect()
}

/// The writes that put the values in force again that are kept now.
pub(crate) fn steps_back(forest: &Forest, assignments: &[Assignment]) -> Vec<Step> {
    // The last first: what was put in force later may stand in the way of an earlier value.
    assignments.iter().rev().flat_map(|a| steps_of(forest, a.group, a.setting, &|_, _| None)).collect()
}

/// Which values are written to a directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Extent {
    /// Those that differ from the initial ones: a new directory has these.
    Changed,
    /// All: a directory that was there before may have others than are kept.
    All,
}

/// The writes that bring a new spine directory to what its group keeps.
pub(crate) fn steps_for_spine(forest: &Forest, group: GroupId, dir: &Dir, extent: Extent) -> Vec<Step> {
    let Some(around) = surroundings(forest, group) else { return Vec::new() };
    let wanted =
        |setting: &&Setting| extent == Extent::All || setting.in_group(forest, group) != &setting.initial;
    let settings = pinfold_files::settings(around.bound).filter(wanted);
    settings.flat_map(|setting| writes(forest, group, setting, dir, &|_, _| None)).collect()
}

/// The writes that bring a new leaf to what its cell's groups outside the leading hierarchy keep, and the programs of all
/// of its groups.
pub(crate) fn steps_for_leaf(forest: &Forest, cell: CellId, extent: Extent) -> Vec<Step> {
    let (Some(found), Some(leaf)) = (forest.cell(cell), forest.leaf(cell)) else { return Vec::new() };
    let led = forest.leading();
    let mut steps = Vec::new();
    for group in found.groups() {
        let Some(around) = surroundings(forest, *group) else { continue };
        for setting in pinfold_files::settings(around.bound) {
            if extent == Extent::All || setting.effective(forest, *group) != setting.initial {
                steps.extend(program(forest, *group, setting, &leaf, &|_, _| None));
                if Some(around.hierarchy) != led {
                    steps.extend(everywhere(forest, *group, setting, &leaf, &|_, _| None));
                }
            }
        }
    }
    steps
}

/// A value that is about to be assigned, if this one is.
type Assigned<'a> = &'a dyn Fn(GroupId, &Setting) -> Option<Value>;

fn steps_of(forest: &Forest, group: GroupId, setting: &Setting, assigned: Assigned<'_>) -> Vec<Step> {
    let Some(around) = surroundings(forest, group) else { return Vec::new() };
    if matches!(setting.carry, Carry::Program { .. }) {
        let leaves = forest.own_leaves(group).into_iter();
        return leaves.filter_map(|leaf| program(forest, group, setting, &leaf, assigned)).collect();
    }
    if forest.leading() == Some(around.hierarchy) {
        let has_spine = forest.group(group).is_some_and(|found| found.has_spine());
        if !has_spine {
            return Vec::new();
        }
        return writes(forest, group, setting, &forest.spine(group), assigned);
    }
    let below = forest.subtree(group).filter_map(|id| Some((id, forest.group(id)?)));
    below
        .flat_map(|(id, found)| found.cells().map(move |cell| (id, cell)))
        .filter_map(|(id, cell)| Some((id, forest.leaf(cell)?)))
        .flat_map(|(id, leaf)| everywhere(forest, id, setting, &leaf, assigned))
        .collect()
}

/// The writes to a group's own spine directory: what holds above is in force above.
fn writes(
    forest: &Forest,
    group: GroupId,
    setting: &Setting,
    dir: &Dir,
    assigned: Assigned<'_>,
) -> Vec<Step> {
    let own = assigned(group, setting).unwrap_or_else(|| setting.in_group(forest, group).clone());
    match setting.carry {
        Carry::UserSpace | Carry::Inert(_) | Carry::Program { .. } => Vec::new(),
        Carry::Everywhere { v2, show, .. } => {
            vec![Step::Write { dir: dir.clone(), file: v2, text: show(&own) }]
        }
        Carry::Entries(v2) => {
            let entries = (v2.entries)(&with_assigned(forest, group, setting, own));
            let entry = |text| Step::Entry { dir: dir.clone(), file: v2.file, text };
            entries.into_iter().map(entry).collect()
        }
        Carry::Limit(files) => {
            let settings = with_assigned(forest, group, setting, own);
            let write = |v2: &pinfold_files::V2Write| {
                Some(Step::Write { dir: dir.clone(), file: v2.file, text: (v2.text)(&settings)? })
            };
            files.iter().filter_map(write).collect()
        }
    }
}

/// The program that a leaf of a group needs: a matter of the group's own leaves alone, wherever they hang. A root's
/// processes are not all in leaves, so none of them has one.
fn program(
    forest: &Forest,
    group: GroupId,
    setting: &Setting,
    leaf: &Dir,
    assigned: Assigned<'_>,
) -> Option<Step> {
    let Carry::Program { slot, code, .. } = setting.carry else { return None };
    forest.group(group)?.parent()?;
    let own = assigned(group, setting).unwrap_or_else(|| setting.in_group(forest, group).clone());
    Some(Step::Program { dir: leaf.clone(), slot, code: code(&own) })
}

/// The write to a leaf of what holds in its group, from the root down.
fn everywhere(
    forest: &Forest,
    group: GroupId,
    setting: &Setting,
    leaf: &Dir,
    assigned: Assigned<'_>,
) -> Option<Step> {
    let Carry::Everywhere { v2, show, combine } = setting.carry else { return None };
    let own = |id| assigned(id, setting).unwrap_or_else(|| setting.in_group(forest, id).clone());
    let value = forest.ancestors(group).fold(own(group), |below, id| combine(&own(id), &below));
    Some(Step::Write { dir: leaf.clone(), file: v2, text: show(&value) })
}

fn with_assigned(forest: &Forest, group: GroupId, setting: &Setting, value: Value) -> Settings {
    let mut settings = forest.group(group).map_or(Settings::NONE, |found| found.settings().clone());
    settings.replace(setting.key, Some(value));
    settings
}
