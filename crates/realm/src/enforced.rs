//! Who enforces a setting of a group (I7): decided here, told by `status`, and what a strict realm refuses.

use std::collections::BTreeSet;

use pinfold_files::{
    Assignment, Carry, EntryShare, Needs, OOM_KILL_DISABLE, Pressed, Setting, Share, V2Entries, V2Write,
};
use pinfold_model::{CellId, ControllerId, ControllerSet, Dir, Forest, Group, GroupId};

use crate::carry::Divided;
use crate::hierarchy::NO_RESOURCE_LIMITS;
use crate::{EffectError, Enforced, Realm, chain};

const WEIGHT: &str =
    "weighed only against those that share its v2 directory above, as its siblings do not all, or others do";

/// What there is below a realm.
pub(crate) struct Below<'a> {
    /// The controllers that work.
    pub(crate) enabled: ControllerSet,
    /// The files that a v2 directory has.
    pub(crate) v2_files: &'a BTreeSet<String>,
    /// Those of them that pinfold itself puts in force: all where the directories are its own (tracker `events`), else those that
    /// the v2 tree lacks.
    pub(crate) unaided: ControllerSet,
    /// Whether there is a v2 tree.
    pub(crate) has_tree: bool,
}

/// What matters of a group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Circumstances {
    pub(crate) is_root: bool,
    /// How many directories carry it.
    pub(crate) carriers: usize,
    /// How many leaves it has itself.
    pub(crate) leaves: usize,
    /// Whether it is weighed against its siblings, and against nobody else.
    pub(crate) is_among_siblings: bool,
    /// Of a limit on descriptors: how many processes have a part, and how many could not be given one.
    pub(crate) processes: (usize, usize),
}

impl Circumstances {
    /// Those of a group that is there, but for its processes.
    pub(crate) fn of(forest: &Forest, group: GroupId) -> Self {
        Self {
            is_root: forest.group(group).is_none_or(|found| found.parent().is_none()),
            carriers: forest.carriers(group).map_or(0, |found| found.into_dirs().len()),
            leaves: forest.own_leaves(group).len(),
            is_among_siblings: is_among_siblings(forest, group),
            processes: (0, 0),
        }
    }
}

impl Enforced {
    /// Whether the kernel enforces it as one, as v1 does.
    pub const fn is_native(&self) -> bool {
        matches!(self, Self::Native | Self::Everywhere(_))
    }

    /// Whether the kernel enforces it, in one directory or by parts.
    pub(crate) const fn is_by_kernel(&self) -> bool {
        matches!(self, Self::Native | Self::Everywhere(_) | Self::Shared(_))
    }
}

impl Below<'_> {
    /// Who enforces a setting of a group in these circumstances. `set`: whether it has another value than it has at first.
    pub(crate) fn enforced(&self, setting: &Setting, set: bool, group: &Circumstances) -> Enforced {
        let enforced = self.by_whom(setting, set, group);
        match (&enforced, self.lacking(&setting.carry)) {
            (
                Enforced::Native | Enforced::Shared(_) | Enforced::Everywhere(_) | Enforced::Unlike(_),
                Some(file),
            ) => Enforced::Lacking(file),
            (Enforced::Shared(directories), None) => match self.untold(&setting.carry) {
                Some(file) => Enforced::SharedByRates { directories: *directories, lacking: file },
                None => enforced,
            },
            _ => enforced,
        }
    }

    fn by_whom(&self, setting: &Setting, set: bool, group: &Circumstances) -> Enforced {
        let controller = controller_of(setting);
        let unaided = controller.filter(|id| self.unaided.contains(*id));
        let missing = controller.is_some_and(|id| !self.enabled.contains(id));
        let needs = controller.map(|id| pinfold_files::controller(id).needs);
        match setting.carry {
            // What v2 files would say has its effect from here.
            Carry::Everywhere { unaided: Some(why), .. } if unaided.is_some() => Enforced::StoredOnly(why),
            Carry::Everywhere { .. } | Carry::Limit(_) | Carry::Entries(_) if unaided.is_some() => {
                match needs {
                    Some(Needs::Controller(name)) if self.has_tree => Enforced::Unaided(name),
                    _ => Enforced::UserSpace,
                }
            }
            _ if missing && needs == Some(Needs::ResourceLimits) => Enforced::StoredOnly(NO_RESOURCE_LIMITS),
            _ if missing => Enforced::StoredOnly("the kernel below no longer has the controller"),
            Carry::UserSpace => Enforced::UserSpace,
            Carry::Descriptors { .. } => {
                let (limited, loose) = group.processes;
                Enforced::Processes { limited, loose }
            }
            // v2 slows processes down at their limit; that they wait there is our doing.
            Carry::Limit(_) if *setting == OOM_KILL_DISABLE => Enforced::UserSpace,
            Carry::Inert(why) => Enforced::StoredOnly(why),
            Carry::Program { .. } if group.is_root => {
                Enforced::StoredOnly("what a root keeps binds the groups below it only")
            }
            Carry::Program { unlike, .. } if !unlike.is_empty() => Enforced::Unlike(unlike),
            Carry::Program { .. } if group.leaves < 2 => Enforced::Native,
            Carry::Program { .. } => Enforced::Everywhere(group.leaves),
            Carry::Limit(_) | Carry::Entries(_) if group.is_root && set => {
                Enforced::StoredOnly("a root has no v2 directory of its own")
            }
            Carry::Limit([V2Write { unlike, .. }, ..]) if !unlike.is_empty() => Enforced::Unlike(unlike),
            Carry::Entries(V2Entries { unlike, .. }) if !unlike.is_empty() => Enforced::Unlike(unlike),
            _ if is_weight(setting) && !group.is_among_siblings => Enforced::Unlike(WEIGHT),
            Carry::Everywhere { .. } | Carry::Limit(_) | Carry::Entries(_) if group.carriers < 2 => {
                Enforced::Native
            }
            Carry::Entries(V2Entries { share: EntryShare::Divided { .. }, .. }) => {
                Enforced::Shared(group.carriers)
            }
            Carry::Limit([V2Write { share: Share::Without(_), .. }]) => {
                Enforced::StoredOnly("there is none while the limit it belongs to is divided")
            }
            Carry::Limit(files) if files.iter().any(is_divided) => Enforced::Shared(group.carriers),
            Carry::Everywhere { .. } | Carry::Limit(_) | Carry::Entries(_) => {
                Enforced::Everywhere(group.carriers)
            }
        }
    }

    /// The v2 file without which a setting has no effect, if the kernel below lacks it.
    fn lacking(&self, carry: &Carry) -> Option<&'static str> {
        let file = match *carry {
            // The first has it; others are there for other settings, whose rows say so of them.
            Carry::Limit([first, ..]) => first.file,
            Carry::Entries(entries) => entries.file,
            Carry::Everywhere { v2, .. } => v2,
            _ => return None,
        };
        (!self.v2_files.contains(file)).then_some(file)
    }

    /// The v2 file that would tell who waits for what is divided, if the kernel below lacks it.
    fn untold(&self, carry: &Carry) -> Option<&'static str> {
        let Carry::Entries(V2Entries { share: EntryShare::Divided { pressed, .. }, .. }) = *carry else {
            return None;
        };
        let file = pressed.filter(|told| matches!(told, Pressed::Stalled { .. }))?.figure().file;
        (!self.v2_files.contains(file)).then_some(file)
    }

    /// What a strict realm answers to a setting that has another value than it has at first, which promises nothing. What
    /// pinfold itself is told to do is for nobody else to enforce; a limit that would be divided has an error of its own.
    fn refusal(&self, group: GroupId, setting: &Setting, around: &Circumstances) -> Option<EffectError> {
        let enforced = self.enforced(setting, true, around);
        let passes = enforced.is_native()
            || matches!(enforced, Enforced::Shared(_) | Enforced::SharedByRates { .. })
            || matches!(setting.carry, Carry::UserSpace);
        (!passes).then_some(EffectError::NotNative { file: setting.key.0, group, enforced })
    }
}

impl Realm {
    pub(crate) fn below(&self) -> Below<'_> {
        Below {
            enabled: self.enabled,
            v2_files: &self.facts.v2_files,
            unaided: self.enabled.iter().filter(|id| self.tracker.is_unaided(*id)).collect(),
            has_tree: !self.tracker.is_user_space(),
        }
    }

    /// Refuses values that the kernel would not enforce as v1 does, if the realm is strict.
    pub(crate) fn refuse_not_native(&self, assignments: &[Assignment]) -> Result<(), EffectError> {
        if !self.config.strict {
            return Ok(());
        }
        let forest = self.lock_forest();
        let set = assignments.iter().filter(|assigned| assigned.value != assigned.setting.initial);
        let refusal =
            |a: &Assignment| self.below().refusal(a.group, a.setting, &Circumstances::of(&forest, a.group));
        set.filter_map(refusal).next().map_or(Ok(()), Err)
    }

    /// What a strict realm was given when it was not strict stays, and is told of.
    pub(crate) fn tell_what_is_not_native(&self, groups: &[GroupId], divided: &[Divided]) {
        if !self.config.strict {
            return;
        }
        let forest = self.lock_forest();
        let below = self.below();
        let refusals = groups.iter().flat_map(|group| {
            let around = Circumstances::of(&forest, *group);
            let below = &below;
            kept(&forest, *group)
                .filter_map(move |setting| Some((*group, below.refusal(*group, setting, &around)?)))
        });
        let of_divided = divided
            .iter()
            .filter_map(|one| Some((one.group, self.refuse_divided(std::iter::once(one)).err()?)));
        let told = refusals.chain(of_divided).map(|(group, refusal)| {
            let path = forest.path(group).unwrap_or_default();
            let path: String = path.iter().map(|name| format!("/{name}")).collect();
            format!("{path}: kept from before, though the realm is strict: {}", chain(&refusal))
        });
        let told: Vec<String> = told.collect();
        drop(forest);
        told.into_iter().for_each(|text| tracing::warn!("{text}"));
    }

    /// Refuses a place for a process in which something that one of these groups keeps, or its weight against a sibling, would
    /// not be enforced by the kernel as v1 does, if the realm is strict.
    pub(crate) fn refuse_place(&self, forest: &Forest, cell: CellId) -> Result<(), EffectError> {
        let (true, Some(found)) = (self.config.strict, forest.cell(cell)) else { return Ok(()) };
        let below = self.below();
        let groups = found.groups();
        let up = groups.iter().flat_map(|group| std::iter::once(*group).chain(forest.ancestors(*group)));
        for group in up {
            let Some(parent) = forest.group(group).and_then(Group::parent) else { continue };
            let around = Circumstances::of(forest, group);
            let own = kept(forest, group).map(|setting| (group, setting, around));
            let siblings = forest.children(parent).filter(|_| !around.is_among_siblings);
            let weights = siblings.flat_map(|sibling| {
                kept(forest, sibling).filter(|setting| is_weight(setting)).map(move |setting| {
                    (sibling, setting, Circumstances { is_among_siblings: false, ..around })
                })
            });
            let refusal = |(group, setting, around): (GroupId, &'static Setting, Circumstances)| {
                below.refusal(group, setting, &around)
            };
            if let Some(refused) = own.chain(weights).find_map(refusal) {
                return Err(refused);
            }
        }
        match weighed_against(forest, cell) {
            Some((group, setting)) => {
                let around = Circumstances { is_among_siblings: false, ..Circumstances::of(forest, group) };
                below.refusal(group, setting, &around).map_or(Ok(()), Err)
            }
            None => Ok(()),
        }
    }
}

/// A group that is weighed against its siblings, and would be against a new cell's leaf as well.
fn weighed_against(forest: &Forest, cell: CellId) -> Option<(GroupId, &'static Setting)> {
    let leaf = forest.leaf(cell)?;
    let others = forest.cells().filter(|(id, _)| *id != cell).flat_map(|(_, other)| other.groups());
    let all: BTreeSet<GroupId> =
        others.flat_map(|group| std::iter::once(*group).chain(forest.ancestors(*group))).collect();
    let weight = |group: GroupId| kept(forest, group).find(|setting| is_weight(setting));
    all.into_iter().find_map(|group| {
        let setting = weight(group)?;
        let parent = forest.group(group)?.parent()?;
        let above = above_siblings(forest, parent)??;
        (is_in(&leaf, &above) && !is_cell_of(forest, cell, parent)).then_some((group, setting))
    })
}

/// The settings that a group keeps a value for.
fn kept(forest: &Forest, group: GroupId) -> impl Iterator<Item = &'static Setting> {
    let settings = forest.group(group).into_iter().flat_map(|found| found.settings().iter());
    settings.filter_map(|(key, _)| pinfold_files::setting_by_key(key.0))
}

fn controller_of(setting: &Setting) -> Option<ControllerId> {
    let has = |id: &ControllerId| {
        pinfold_files::controller(*id).files.iter().any(|file| file.setting == Some(setting))
    };
    pinfold_files::controllers().iter().find(has)
}

/// Whether a group and its siblings are one v2 directory each, side by side, and beside nobody who is in no group of theirs:
/// directories that are side by side are weighed against each other.
fn is_among_siblings(forest: &Forest, group: GroupId) -> bool {
    let Some(parent) = forest.group(group).and_then(Group::parent) else { return true };
    match above_siblings(forest, parent) {
        None => true,
        Some(None) => false,
        Some(Some(above)) => forest
            .cells()
            .filter(|(cell, _)| forest.leaf(*cell).is_some_and(|leaf| is_in(&leaf, &above)))
            .all(|(cell, _)| is_cell_of(forest, cell, parent)),
    }
}

/// The directory that all children of a group are in, one directory each. `Some(None)`: there is none; `None`: there are no
/// children with processes.
fn above_siblings(forest: &Forest, parent: GroupId) -> Option<Option<Dir>> {
    let one = |group: GroupId| match forest.carriers(group).map(|found| found.into_dirs())?.as_slice() {
        [] => None,
        [dir] => Some(dir.parent()),
        _ => Some(None),
    };
    let mut above = forest.children(parent).filter_map(one);
    let first = above.next()?;
    Some(first.filter(|first| above.all(|other| other.as_ref() == Some(first))))
}

fn is_in(leaf: &Dir, dir: &Dir) -> bool {
    leaf.spines().starts_with(dir.spines())
}

/// Whether a cell is of a group or of one below it.
fn is_cell_of(forest: &Forest, cell: CellId, group: GroupId) -> bool {
    let Some(found) = forest.group(group) else { return false };
    match forest.group_of(cell, found.hierarchy()) {
        Some(own) => own == group || forest.ancestors(own).any(|above| above == group),
        None => found.parent().is_none(),
    }
}

fn is_divided(file: &V2Write) -> bool {
    !matches!(file.share, Share::Same | Share::Weight)
}

/// Whether a setting counts against what the group's siblings have.
fn is_weight(setting: &Setting) -> bool {
    match setting.carry {
        Carry::Limit(files) => files.iter().any(|file| matches!(file.share, Share::Weight)),
        Carry::Entries(entries) => matches!(entries.share, EntryShare::Weight),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use pinfold_model::Seat;
    use proptest::prelude::*;

    use super::*;
    use crate::stage::Stage;

    const ALONE: Circumstances =
        Circumstances { is_root: false, carriers: 1, leaves: 1, is_among_siblings: true, processes: (0, 0) };
    const ROOT: Circumstances = Circumstances { is_root: true, ..ALONE };
    const CROSSING: Circumstances =
        Circumstances { carriers: 2, leaves: 2, is_among_siblings: false, ..ALONE };

    fn files() -> BTreeSet<String> {
        let all = pinfold_files::settings(pinfold_files::controllers());
        let files = all.flat_map(|setting| match setting.carry {
            Carry::Limit(files) => files.iter().map(|file| file.file).collect(),
            Carry::Entries(entries) => vec![entries.file],
            Carry::Everywhere { v2, .. } => vec![v2],
            _ => Vec::new(),
        });
        files.map(str::to_owned).collect()
    }

    /// What a strict realm answers to a setting, and who would enforce it.
    fn answer(below: &Below<'_>, key: &str, around: &Circumstances) -> (bool, String) {
        let setting = pinfold_files::setting_by_key(key).expect(key);
        let group = GroupId::new(9).expect("not 0");
        let refused = below.refusal(group, setting, around);
        assert!(refused.iter().all(|error| error.errno() == pinfold_model::Errno::EBUSY));
        (refused.is_some(), below.enforced(setting, true, around).to_string())
    }

    #[test]
    fn a_group_is_weighed_against_its_siblings_if_nobody_else_is_beside_them() {
        let cpu = ControllerSet::EMPTY.with(pinfold_files::controller_named("cpu").expect("it is there"));
        for (processes, among, not_among) in [
            (
                &[("/a/x", "/a/x"), ("/a/y", "/a/y"), ("/b", "/b")][..],
                &["/a/x", "/a/y", "/a", "/b"][..],
                &[][..],
            ),
            (&[("/a/x", "/1"), ("/a/y", "/2")], &[], &["/a/x", "/a/y"]),
            (&[("/a/x", "/m"), ("/a/y", "/m")], &["/a/x", "/a/y"], &[]),
            // In no group of theirs, and side by side with them.
            (&[("/a/x", "/m"), ("/a/y", "/m"), ("/b", "/m")], &[], &["/a/x", "/a/y", "/b"]),
            (&[("/a/x", "/m"), ("/a/y", "/m"), ("/", "/m")], &[], &["/a/x", "/a/y"]),
            (&[("/a/x", "/m"), ("/a/y", "/m"), ("/b", "/k")], &["/a/x", "/a/y"], &["/b"]),
            // Their parent's own count as in v1.
            (&[("/a/x", "/m"), ("/a/y", "/m"), ("/a", "/m")], &["/a/x", "/a/y"], &[]),
        ] {
            let mut stage = Stage::new(cpu);
            processes.iter().for_each(|(coarse, fine)| stage.put(coarse, fine));
            for (path, expected) in
                among.iter().map(|path| (path, true)).chain(not_among.iter().map(|path| (path, false)))
            {
                let group = stage.group(stage.coarse, path);
                assert_eq!(is_among_siblings(&stage.forest, group), expected, "{path} of {processes:?}");
            }
        }
    }

    #[test]
    fn a_newcomer_beside_those_who_are_weighed_is_seen() {
        let cpu = ControllerSet::EMPTY.with(pinfold_files::controller_named("cpu").expect("it is there"));
        for (newcomer, is_seen) in
            [(("/b", "/m"), true), (("/a/z", "/m"), false), (("/a", "/m"), false), (("/b", "/k"), false)]
        {
            let mut stage = Stage::new(cpu);
            stage.put("/a/x", "/m");
            stage.put("/a/y", "/m");
            let x = stage.group(stage.coarse, "/a/x");
            let shares = pinfold_files::setting_by_key("cpu.shares").expect("it is there");
            let found = stage.forest.group_mut(x).expect("live");
            found.settings_mut().replace(shares.key, Some(pinfold_model::Value::Number(2048)));
            stage.put(newcomer.0, newcomer.1);
            let last = stage.forest.cells().map(|(id, _)| id).max().expect("some");
            assert_eq!(weighed_against(&stage.forest, last).map(|(group, _)| group), is_seen.then_some(x));
        }
    }

    /// Whether the children of these groups are weighed against each other and nobody else.
    fn are_among_siblings(stage: &mut Stage, parents: &[&str]) -> bool {
        let parents: Vec<GroupId> = parents.iter().map(|path| stage.group(stage.coarse, path)).collect();
        let mut children = parents.iter().flat_map(|parent| stage.forest.children(*parent));
        children.all(|group| is_among_siblings(&stage.forest, group))
    }

    proptest! {
        /// Nobody is asked whether a process may end.
        #[test]
        fn whoever_leaves_parts_nobody_who_is_weighed(
            steps in prop::collection::vec((0..6_usize, 0..6_usize, any::<prop::sample::Index>()), 1..40),
            parents in prop::sample::subsequence(vec!["/", "/a", "/b", "/a/x"], 1..4),
        ) {
            const PATHS: [&str; 6] = ["/a", "/a/x", "/a/y", "/b", "/b/x", "/a/x/1"];
            let cpu = ControllerSet::EMPTY.with(pinfold_files::controller_named("cpu").expect("it is there"));
            let mut stage = Stage::new(cpu);
            let mut cells: Vec<CellId> = Vec::new();
            for (coarse, fine, leaves) in steps {
                // As a strict realm lets somebody in, and from one hierarchy to the next.
                let mut seat = Seat::Outside(b"/".as_slice().into());
                for group in [stage.group(stage.coarse, PATHS[coarse]), stage.group(stage.fine, PATHS[fine])] {
                    let plan = stage.forest.plan_attach(&seat, group).expect("live");
                    if !are_among_siblings(&mut stage, &parents) {
                        stage.forest.abort_attach(plan);
                        break;
                    }
                    let to = plan.to();
                    stage.forest.commit_attach(plan);
                    if let Seat::Cell(left) = seat
                        && !cells.contains(&left)
                    {
                        let plan = stage.forest.plan_retire(left).expect("it has moved on");
                        stage.forest.commit_retire(plan);
                        prop_assert!(are_among_siblings(&mut stage, &parents), "{} has moved on", left);
                    }
                    seat = to.expect("below a root");
                }
                if let Seat::Cell(cell) = seat
                    && !cells.contains(&cell)
                {
                    cells.push(cell);
                }
                if cells.len() > 3 {
                    let cell = cells.swap_remove(leaves.index(cells.len()));
                    let plan = stage.forest.plan_retire(cell).expect("nobody needs it");
                    stage.forest.commit_retire(plan);
                    prop_assert!(are_among_siblings(&mut stage, &parents), "{} has left", cell);
                }
            }
        }
    }

    #[test]
    fn a_strict_realm_refuses_what_the_kernel_does_not_enforce_as_v1_does() {
        let mut files = files();
        files.insert("io.pressure".to_owned());
        let all = pinfold_files::controllers();
        let below = Below { enabled: all, v2_files: &files, unaided: ControllerSet::EMPTY, has_tree: true };
        let unaided = Below { unaided: all, has_tree: false, ..below };
        let lacking = ["pids", "cpuset"].into_iter().filter_map(pinfold_files::controller_named);
        let beside = Below { unaided: lacking.collect(), ..below };
        let bare = Below { v2_files: &BTreeSet::new(), ..below };
        let swapless: BTreeSet<String> =
            files.iter().filter(|file| !file.contains("swap")).cloned().collect();
        let swapless = Below { v2_files: &swapless, ..below };
        let unpressed: BTreeSet<String> =
            files.iter().filter(|file| *file != "io.pressure").cloned().collect();
        let unpressed = Below { v2_files: &unpressed, ..below };
        let gone = Below { enabled: ControllerSet::EMPTY, ..below };
        #[rustfmt::skip] // a table
        let cases = [
            (&below, "memory.limit_in_bytes", ALONE, false, "native"),
            (&below, "memory.limit_in_bytes", CROSSING, false, "shared over 2 v2 directories"), // refused as divided
            (&below, "memory.soft_limit_in_bytes", ALONE, true, "native, but only where a group above meets its limit"),
            (&below, "memory.soft_limit_in_bytes", ROOT, true, "stored only: a root has no v2 directory"),
            (&below, "memory.oom_control", ALONE, true, "user space"),
            (&below, "memory.swappiness", ALONE, true, "stored only: a group of v2 has no swappiness"),
            (&below, "memory.kmem.tcp.limit_in_bytes", ALONE, true, "stored only: v2 counts the memory of sockets"),
            (&below, "cpu.shares", ALONE, false, "native"),
            (&below, "cpu.shares", CROSSING, true, "native, but weighed only against those"),
            (&below, "cpu.cfs_burst_us", CROSSING, true, "stored only: there is none while the limit"),
            (&below, "cpu.rt_runtime_us", ALONE, true, "stored only: a group of v2 has no time of its own for real-time"),
            (&below, "cpu.rt_period_us", ROOT, true, "stored only: a group of v2 has no time of its own for real-time"),
            (&below, "blkio.weight", ALONE, true, "native, but only at disks for which io.cost is switched on"),
            (&below, "blkio.weight", CROSSING, true, "native, but only at disks for which io.cost is switched on"),
            (&below, "blkio.bfq.weight", ALONE, true, "native, but only at disks whose scheduler is BFQ"),
            (&below, "blkio.bfq.weight_device", CROSSING, true, "native, but only at disks whose scheduler is BFQ"),
            (&below, "net_cls.classid", ALONE, true, "native, but as the mark of packets"),
            (&below, "net_cls.classid", ROOT, true, "stored only: what a root keeps"),
            (&below, "net_prio.ifpriomap", ALONE, true, "native, but for IPv4 and IPv6"),
            (&below, "devices.list", ALONE, false, "native"),
            (&below, "devices.list", CROSSING, false, "native, in 2 v2 directories"),
            (&below, "devices.list", ROOT, true, "stored only: what a root keeps"),
            (&below, "cpuset.cpus", CROSSING, false, "native, in 2 v2 directories"),
            (&below, "cpuset.memory_migrate", ALONE, true, "stored only: v2 always moves memory"),
            (&below, "cpuset.cpu_exclusive", ALONE, false, "user space"),
            (&below, "notify_on_release", ALONE, false, "user space"),
            (&below, "files.max", ALONE, true, "user space, over 0 processes"),
            (&unaided, "pids.max", ALONE, true, "user space"),
            (&unaided, "freezer.state", ALONE, true, "user space"),
            (&unaided, "cpuset.mems", ALONE, true, "stored only: without v2's cpuset"),
            (&beside, "pids.max", ALONE, true, "user space, as the v2 tree does not offer pids"),
            (&beside, "cpuset.cpus", CROSSING, true, "user space, as the v2 tree does not offer cpuset"),
            (&beside, "cpuset.mems", ALONE, true, "stored only: without v2's cpuset"),
            (&beside, "freezer.state", ALONE, false, "native"),
            (&bare, "cpu.idle", ALONE, true, "stored only: the kernel below has no cpu.idle"),
            (&bare, "memory.limit_in_bytes", ALONE, true, "stored only: the kernel below has no memory.max"),
            (&swapless, "memory.limit_in_bytes", ALONE, false, "native"),
            (&swapless, "memory.memsw.limit_in_bytes", ALONE, true, "stored only: the kernel below has no memory.swap.max"),
            (&bare, "cpuset.cpus", ALONE, true, "stored only: the kernel below has no cpuset.cpus"),
            (&below, "blkio.throttle.read_bps_device", CROSSING, false, "shared over 2 v2 directories"),
            (&unpressed, "blkio.throttle.read_bps_device", CROSSING, false,
                "shared over 2 v2 directories by rates alone, which takes longer: the kernel below has no io.pressure"),
            (&unpressed, "blkio.throttle.read_bps_device", ALONE, false, "native"),
            (&unpressed, "pids.max", CROSSING, false, "shared over 2 v2 directories"),
            (&gone, "pids.max", ALONE, true, "stored only: the kernel below no longer has the controller"),
        ];
        for (below, key, around, refused, words) in cases {
            let (is_refused, said) = answer(below, key, &around);
            assert!(said.starts_with(words), "{key}: {said}");
            assert_eq!(said.contains("by rates"), words.contains("by rates"), "{key}: {said}");
            assert_eq!(is_refused, refused, "{key}, {said}");
        }
    }
}
