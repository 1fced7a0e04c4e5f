//! The forest against a naive model: after any sequence of operations over several hierarchies both agree.

mod naive;
mod placed;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;

use naive::{Naive, Outcome, Path};
use pinfold_model::{
    CellId, ControllerId, ControllerSet, Dir, Forest, Gid, GroupId, HierarchyFlags, HierarchyId,
    HierarchyName, HostPid, Moment, MountRequest, Name, Ownership, Placing, Roster, Seat, Settings, Uid,
};
use proptest::prelude::*;

const NAMES: [&str; 3] = ["a", "b", "c"];
const PROCESSES: u32 = 6;
/// The controllers whose limits follow the v2 tree.
const LIMITING: [ControllerId; 3] = [ControllerId::new(0), ControllerId::new(1), ControllerId::new(2)];

/// One operation; numbers are taken modulo what there is.
#[derive(Clone, Copy, Debug)]
enum Op {
    Mount { controllers: u8, none: bool, name: Option<u8> },
    Unmount { tree: u8 },
    Remount { tree: u8, controllers: u8 },
    Make { tree: u8, parent: u8, name: u8 },
    Remove { tree: u8, group: u8 },
    Rename { tree: u8, group: u8, name: u8 },
    Attach { process: u32, tree: u8, group: u8 },
    Fork { parent: u32, child: u32 },
    Exit { process: u32 },
}

fn op() -> impl Strategy<Value = Op> {
    let process = || 1..=PROCESSES;
    prop_oneof![
        1 => (0..16_u8, any::<bool>(), prop::option::of(0..3_u8))
            .prop_map(|(controllers, none, name)| Op::Mount { controllers, none, name }),
        1 => any::<u8>().prop_map(|tree| Op::Unmount { tree }),
        1 => (any::<u8>(), 0..16_u8).prop_map(|(tree, controllers)| Op::Remount { tree, controllers }),
        6 => (any::<u8>(), any::<u8>(), 0..3_u8).prop_map(|(tree, parent, name)| Op::Make { tree, parent, name }),
        3 => (any::<u8>(), any::<u8>()).prop_map(|(tree, group)| Op::Remove { tree, group }),
        2 => (any::<u8>(), any::<u8>(), 0..3_u8).prop_map(|(tree, group, name)| Op::Rename { tree, group, name }),
        8 => (process(), any::<u8>(), any::<u8>()).prop_map(|(process, tree, group)| Op::Attach { process, tree, group }),
        3 => (process(), process()).prop_map(|(parent, child)| Op::Fork { parent, child }),
        3 => process().prop_map(|process| Op::Exit { process }),
    ]
}

/// Both models, and the names by which one calls what the other has.
struct Both {
    naive: Naive,
    forest: Forest,
    roster: Roster,
    ids: BTreeMap<usize, HierarchyId>,
}

impl Both {
    fn new() -> Self {
        let limiting: ControllerSet = LIMITING.into_iter().collect();
        let forest = Forest::new(Placing { limiting, first: ControllerSet::EMPTY.with(LIMITING[1]) });
        Self { naive: Naive::default(), forest, roster: Roster::default(), ids: BTreeMap::new() }
    }

    fn tree(&self, pick: u8) -> Option<usize> {
        let trees: Vec<usize> = self.naive.trees.keys().copied().collect();
        (!trees.is_empty()).then(|| trees[usize::from(pick) % trees.len()])
    }

    fn path(&self, tree: usize, pick: u8) -> Path {
        let groups = &self.naive.trees[&tree].groups;
        let at = usize::from(pick) % (groups.len() + 1);
        groups.iter().nth(at).cloned().unwrap_or_default()
    }

    fn group(&self, tree: usize, path: &Path) -> GroupId {
        let root = self.forest.hierarchy(self.ids[&tree]).expect("both have it").root();
        path.iter()
            .fold(root, |at, name| self.forest.group(at).expect("live").child(name.as_bytes()).expect("both"))
    }

    /// Does it to both, each plan of the forest first once for nothing. Returns both outcomes.
    fn step(&mut self, op: Op) -> (Outcome, Outcome) {
        match op {
            Op::Mount { controllers, none, name } => {
                self.mount(set(controllers), none && controllers == 0, name)
            }
            Op::Unmount { tree } => {
                let Some(tree) = self.tree(tree) else { return (Ok(()), Ok(())) };
                self.naive.unmount(tree);
                if self.forest.unmounted(self.ids[&tree]) {
                    self.forest.destroy(self.ids[&tree]);
                }
                (Ok(()), Ok(()))
            }
            Op::Remount { tree, controllers } => self.remount(tree, set(controllers)),
            Op::Make { tree, parent, name } => self.make(tree, parent, NAMES[usize::from(name)]),
            Op::Remove { tree, group } => self.remove(tree, group),
            Op::Rename { tree, group, name } => self.rename(tree, group, NAMES[usize::from(name)]),
            Op::Attach { process, tree, group } => {
                let Some(tree) = self.tree(tree) else { return (Ok(()), Ok(())) };
                let path = self.path(tree, group);
                self.naive.attach(process, tree, &path);
                (Ok(()), self.attach(pid(process), self.group(tree, &path)))
            }
            Op::Fork { parent, child } => {
                if parent != child && !self.naive.processes.contains_key(&child) {
                    self.naive.fork(parent, child);
                    self.roster.fork(pid(parent), pid(child));
                }
                (Ok(()), Ok(()))
            }
            Op::Exit { process } => {
                self.naive.exit(process);
                let left = self.roster.exit(pid(process));
                self.retire(left);
                (Ok(()), Ok(()))
            }
        }
    }

    fn mount(&mut self, controllers: ControllerSet, none: bool, name: Option<u8>) -> (Outcome, Outcome) {
        let name = name.map(|name| NAMES[usize::from(name)]);
        let made = self.naive.made;
        let expected = self.naive.mount(controllers, none, name);
        let name = name.map(|name| HierarchyName::new(name).expect("legal"));
        let request = MountRequest { controllers, none, name, flags: HierarchyFlags::default() };
        let got = self.forest.plan_mount(request).map_err(|error| error.errno());
        let got = got.map(|plan| self.forest.commit_mount(plan, owner(), Settings::NONE, now()));
        if let (Ok(id), true) = (&got, self.naive.made > made) {
            self.ids.insert(made, *id);
        }
        (expected, got.map(drop))
    }

    fn remount(&mut self, tree: u8, controllers: ControllerSet) -> (Outcome, Outcome) {
        let Some(tree) = self.tree(tree) else { return (Ok(()), Ok(())) };
        let request = MountRequest {
            controllers,
            none: controllers.is_empty(),
            name: None,
            flags: HierarchyFlags::default(),
        };
        let plan = self.forest.plan_remount(self.ids[&tree], &request).map_err(|error| error.errno());
        let got = plan.map(|plan| self.forest.commit_remount(plan));
        (self.naive.remount(tree, controllers), got)
    }

    fn make(&mut self, tree: u8, parent: u8, name: &'static str) -> (Outcome, Outcome) {
        let Some(tree) = self.tree(tree) else { return (Ok(()), Ok(())) };
        let parent = self.path(tree, parent);
        let id = self.group(tree, &parent);
        let plan =
            |forest: &mut Forest| forest.plan_make(id, group_name(name)).map_err(|error| error.errno());
        self.unchanged_by(|forest| plan(forest).map(|plan| forest.abort_make(plan)));
        let plan = plan(&mut self.forest);
        let got = plan.map(|plan| self.forest.commit_make(plan, owner(), Settings::NONE, now()));
        (self.naive.make(tree, &parent, name), got)
    }

    fn remove(&mut self, tree: u8, group: u8) -> (Outcome, Outcome) {
        let Some(tree) = self.tree(tree) else { return (Ok(()), Ok(())) };
        let path = self.path(tree, group);
        let id = self.group(tree, &path);
        let plan = |forest: &mut Forest| forest.plan_remove(id).map_err(|error| error.errno());
        self.unchanged_by(|forest| plan(forest).map(|plan| forest.abort_remove(plan)));
        let got = plan(&mut self.forest).map(|plan| self.forest.commit_remove(plan, now()));
        (self.naive.remove(tree, &path), got.map(drop))
    }

    fn rename(&mut self, tree: u8, group: u8, name: &'static str) -> (Outcome, Outcome) {
        let Some(tree) = self.tree(tree) else { return (Ok(()), Ok(())) };
        let path = self.path(tree, group);
        let id = self.group(tree, &path);
        let plan =
            |forest: &mut Forest| forest.plan_rename(id, group_name(name)).map_err(|error| error.errno());
        self.unchanged_by(|forest| plan(forest).map(|plan| forest.abort_rename(plan)));
        let got = plan(&mut self.forest).map(|plan| self.forest.commit_rename(plan, now()));
        (self.naive.rename(tree, &path, name), got)
    }

    fn attach(&mut self, process: HostPid, group: GroupId) -> Outcome {
        let seat =
            self.roster.cell_of(process).map_or(Seat::Outside(b"/origin".as_slice().into()), Seat::Cell);
        if let Seat::Cell(cell) = seat
            && self.roster.members(cell).eq([process])
            && self.shift(cell, group)
        {
            return Ok(());
        }
        let plan = |forest: &mut Forest| forest.plan_attach(&seat, group).map_err(|error| error.errno());
        self.unchanged_by(|forest| plan(forest).map(|plan| forest.abort_attach(plan)));
        let before = directories(&self.forest);
        let plan = plan(&mut self.forest)?;
        let made: BTreeSet<String> = plan.make().iter().map(|dir| format!("{dir:?}")).collect();
        let left = self.roster.attach(&mut self.forest, process, plan);
        let appeared: BTreeSet<String> = directories(&self.forest).difference(&before).cloned().collect();
        assert_eq!(made, appeared, "a plan names the directories that are new, and no other");
        self.retire(left);
        Ok(())
    }

    /// Attaches the only process of a cell where it is; false if it has to be moved.
    fn shift(&mut self, cell: CellId, group: GroupId) -> bool {
        let before = directories(&self.forest);
        self.unchanged_by(|forest| {
            let Some(plan) = forest.plan_shift(cell, group) else { return Ok(()) };
            forest.as_if_shifted(&plan, |_| ());
            forest.abort_shift(plan);
            Ok(())
        });
        let Some(plan) = self.forest.plan_shift(cell, group) else { return false };
        let tuples = |forest: &Forest| -> BTreeSet<(CellId, Vec<GroupId>)> {
            forest.cells().map(|(id, cell)| (id, cell.groups().to_vec())).collect()
        };
        let foreseen = self.forest.as_if_shifted(&plan, tuples);
        self.forest.commit_shift(plan);
        assert_eq!(tuples(&self.forest), foreseen);
        assert_eq!(directories(&self.forest), before, "no directory comes or goes");
        true
    }

    fn retire(&mut self, cell: Option<CellId>) {
        let Some(cell) = cell else { return };
        let before = directories(&self.forest);
        let plan = self.forest.plan_retire(cell).expect("nothing holds an empty cell");
        let removed: BTreeSet<String> = plan.dirs().iter().map(|dir| format!("{dir:?}")).collect();
        self.forest.commit_retire(plan);
        let gone: BTreeSet<String> = before.difference(&directories(&self.forest)).cloned().collect();
        assert_eq!(removed, gone, "a plan names the directories that nothing needs any more, and no other");
    }

    /// A plan that is aborted leaves no trace, but for the numbers it used up.
    fn unchanged_by(&mut self, plan_and_abort: impl FnOnce(&mut Forest) -> Outcome) {
        let before = picture(&self.forest);
        // A refusal is as good here: it must leave no trace either.
        let _refused_or_not = plan_and_abort(&mut self.forest);
        assert_eq!(picture(&self.forest), before);
    }

    fn agree(&self) {
        let expected: Vec<_> = self.naive.trees.keys().map(|tree| self.ids[tree]).collect();
        let got: Vec<_> = self.forest.hierarchies().map(|(id, _)| id).collect();
        assert_eq!(got, expected);
        for (tree, found) in &self.naive.trees {
            let hierarchy = self.forest.hierarchy(self.ids[tree]).expect("listed");
            assert_eq!(hierarchy.controllers(), found.controllers);
            assert_eq!(hierarchy.mounts(), found.mounts);
            assert_eq!(hierarchy.groups() as usize, found.groups.len() + 1);
            let groups: BTreeSet<Vec<String>> = self
                .forest
                .subtree(hierarchy.root())
                .map(|id| self.forest.path(id).expect("listed").iter().map(ToString::to_string).collect())
                .collect();
            let expected: BTreeSet<Vec<String>> = std::iter::once(&Path::new())
                .chain(&found.groups)
                .map(|path| path.iter().map(ToString::to_string).collect())
                .collect();
            assert_eq!(groups, expected);
            self.agree_on_members(*tree);
        }
        self.hold_invariants();
    }

    fn agree_on_members(&self, tree: usize) {
        for process in 1..=PROCESSES {
            let expected = self.naive.processes.get(&process).and_then(|groups| groups.get(&tree));
            let expected = self.group(tree, &expected.cloned().unwrap_or_default());
            let hierarchy = self.ids[&tree];
            let got = match self.roster.cell_of(pid(process)) {
                Some(cell) => self.forest.group_of(cell, hierarchy),
                None => self.forest.hierarchy(hierarchy).map(|found| found.root()),
            };
            assert_eq!(got, Some(expected));
        }
    }

    fn hold_invariants(&self) {
        let mut seen = BTreeSet::new();
        for (id, cell) in self.forest.cells() {
            assert!(
                cell.is_occupied() && self.roster.members(id).next().is_some(),
                "no cell without processes"
            );
            let tuple: Vec<_> = cell.groups().iter().map(|group| group.get()).collect();
            assert!(seen.insert(tuple), "two cells of the same groups");
            for group in cell.groups() {
                assert!(self.forest.group(*group).expect("live").cells().any(|other| other == id));
            }
        }
        assert!(self.forest.spines().all(|spine| !self.forest.claims(spine).is_empty()));
        for (_, hierarchy) in self.forest.hierarchies() {
            for id in self.forest.subtree(hierarchy.root()).filter(|id| *id != hierarchy.root()) {
                placed::hold(&self.forest, id);
            }
        }
        placed::directories_know_whom_they_carry(&self.forest);
    }
}

/// Every v2 directory that the forest says is there.
fn directories(forest: &Forest) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (id, _) in forest.cells() {
        let leaf = forest.leaf(id).expect("listed");
        let mut above = leaf.parent();
        while let Some(dir) = above.filter(|dir| *dir != Dir::REALM) {
            found.insert(format!("{dir:?}"));
            above = dir.parent();
        }
        found.insert(format!("{leaf:?}"));
    }
    found
}

/// All that can be seen of a forest, in a fixed order.
fn picture(forest: &Forest) -> Vec<String> {
    let mut lines: Vec<String> = forest.cells().map(|(id, cell)| format!("{id:?} {cell:?}")).collect();
    lines.sort();
    for (id, hierarchy) in forest.hierarchies() {
        lines.push(format!("{id:?} {hierarchy:?}"));
        lines.extend(forest.subtree(hierarchy.root()).map(|id| format!("{id:?} {:?}", forest.group(id))));
    }
    lines
}

fn set(bits: u8) -> ControllerSet {
    (0..4).filter(|bit| bits & 1 << bit != 0).map(ControllerId::new).collect()
}

fn pid(number: u32) -> HostPid {
    HostPid::new(number).expect("not 0")
}

fn group_name(name: &str) -> Name {
    Name::new(OsStr::new(name)).expect("legal")
}

fn owner() -> Ownership {
    Ownership { uid: Uid(0), gid: Gid(0), mode: 0o755 }
}

fn now() -> Moment {
    Moment::default()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn the_forest_and_a_naive_model_agree_after_any_sequence(ops in prop::collection::vec(op(), 1..60)) {
        let mut both = Both::new();
        for op in ops {
            let (expected, got) = both.step(op);
            prop_assert_eq!(got, expected, "{:?}", op);
            both.agree();
        }
    }
}
