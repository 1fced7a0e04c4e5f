//! Where leaves hang: layouts as people have them are native, anything else is divided and right.

mod placed;

use std::collections::BTreeMap;
use std::ffi::OsStr;

use pinfold_model::{
    CellId, ControllerId, ControllerSet, Dir, Fold, Forest, Gid, GroupId, HierarchyFlags, HierarchyId,
    HostPid, Moment, MountRequest, Name, Ownership, Placing, Roster, Seat, Settings, Uid,
};
use proptest::prelude::*;

/// Hierarchies by letter: `m` (whose limit kills) and `p`, `q`, `r` limit; `f` does not.
const LETTERS: [char; 5] = ['m', 'p', 'q', 'r', 'f'];

struct Stage {
    forest: Forest,
    roster: Roster,
    hierarchies: BTreeMap<char, HierarchyId>,
    /// How many attaches needed no move.
    shifts: usize,
    counts: Counts,
}

/// What v2 directories count, each what happens below it, and what groups keep beside it.
#[derive(Default)]
struct Counts {
    /// By directory.
    live: BTreeMap<String, i64>,
    /// What each group keeps of its own figure, and what that figure is.
    own: BTreeMap<GroupId, (i64, i64)>,
}

impl Counts {
    fn says(&self, dirs: &[Dir]) -> i64 {
        dirs.iter().filter_map(|dir| self.live.get(&dir.to_string())).sum()
    }

    fn fold(&mut self, folds: &[Fold]) {
        for Fold { group, lost, gained } in folds {
            let kept = self.says(lost) - self.says(gained);
            self.own.entry(*group).or_default().0 += kept;
        }
    }

    /// Something happens in every cell, more the higher its number.
    fn happen(&mut self, forest: &Forest) {
        for (id, cell) in forest.cells() {
            let leaf = forest.leaf(id).expect("a cell has a leaf").to_string();
            let times = i64::from(id.get());
            let ends = leaf.match_indices('/').map(|(at, _)| at).chain([leaf.len()]);
            ends.for_each(|end| *self.live.entry(leaf[..end].to_owned()).or_default() += times);
            cell.groups().iter().for_each(|group| self.own.entry(*group).or_default().1 += times);
        }
    }

    fn hold(&self, forest: &Forest) {
        for (group, (kept, happened)) in &self.own {
            let dirs = forest.own_carriers(*group);
            assert_eq!(kept + self.says(&dirs), *happened, "own figure of {group}, read in {dirs:?}");
        }
    }
}

impl Stage {
    fn new() -> Self {
        Self::of(&LETTERS)
    }

    /// Only with these hierarchies.
    fn of(letters: &[char]) -> Self {
        let id = |at: usize| ControllerId::new(u8::try_from(at).expect("few"));
        let limiting: ControllerSet = (0..4).map(id).collect();
        let mut forest = Forest::new(Placing { limiting, first: ControllerSet::EMPTY.with(id(0)) });
        let hierarchies = letters.iter().enumerate().map(|(at, letter)| {
            let controllers = ControllerSet::EMPTY.with(id(at));
            let flags = HierarchyFlags::default();
            let request = MountRequest { controllers, none: false, name: None, flags };
            let plan = forest.plan_mount(request).expect("nothing is bound");
            (*letter, forest.commit_mount(plan, owner(), Settings::NONE, Moment::default()))
        });
        let hierarchies = hierarchies.collect();
        Self { forest, roster: Roster::default(), hierarchies, shifts: 0, counts: Counts::default() }
    }

    /// The group of a path in a hierarchy, made with those above it if it is not there.
    fn group(&mut self, letter: char, path: &str) -> GroupId {
        let root = self.forest.hierarchy(self.hierarchies[&letter]).expect("mounted").root();
        path.split('/').filter(|name| !name.is_empty()).fold(root, |at, name| {
            if let Some(found) = self.forest.group(at).expect("live").child(name.as_bytes()) {
                return found;
            }
            let name = Name::new(OsStr::new(name)).expect("legal");
            let plan = self.forest.plan_make(at, name).expect("not there");
            let id = plan.id();
            self.forest.commit_make(plan, owner(), Settings::NONE, Moment::default());
            id
        })
    }

    fn attach(&mut self, process: u32, letter: char, path: &str) {
        let group = self.group(letter, path);
        let process = HostPid::new(process).expect("not 0");
        let seat = self.roster.cell_of(process).map_or(Seat::Outside(b"/".as_slice().into()), Seat::Cell);
        if let Seat::Cell(cell) = seat
            && self.roster.members(cell).eq([process])
            && self.shift(cell, group)
        {
            return self.hold();
        }
        let fold = self.forest.own_fold_of_entry(group);
        let plan = self.forest.plan_attach(&seat, group).expect("live");
        self.counts.fold(fold.as_slice());
        if let Some(left) = self.roster.attach(&mut self.forest, process, plan) {
            self.retire(left);
        }
        self.retire_kept(process.get());
    }

    fn exit(&mut self, process: u32) {
        if let Some(left) = self.roster.exit(HostPid::new(process).expect("not 0")) {
            self.retire(left);
        }
        self.hold();
    }

    /// A process ends, and something that it leaves behind is charged to its groups in the first hierarchy.
    fn exit_charged(&mut self, process: u32) {
        if let Some(left) = self.roster.exit(HostPid::new(process).expect("not 0")) {
            self.retire_charged(left);
        }
        self.hold();
    }

    /// Retires an empty cell, unless groups of the first hierarchy would lose what is charged to their last directory.
    fn retire_charged(&mut self, cell: CellId) {
        let charged = self.hierarchies[&LETTERS[0]];
        let plan = self.forest.plan_retire(cell).expect("nothing holds it");
        let is_charged = |group| self.forest.group(group).is_some_and(|found| found.hierarchy() == charged);
        let keeps = self.forest.last_carriers(&plan).any(|(group, _)| is_charged(group));
        if !keeps {
            self.forest.abort_retire(plan);
            return self.retire(cell);
        }
        let before = self.carriers();
        self.forest.keep_empty(plan);
        assert_eq!(self.carriers(), before, "all directories stay");
    }

    /// Retires what is kept where a process has come to.
    fn retire_kept(&mut self, process: u32) {
        let cell = self.roster.cell_of(HostPid::new(process).expect("not 0"));
        let kept = cell.map_or(Vec::new(), |cell| self.forest.kept_around(cell));
        kept.into_iter().for_each(|cell| self.retire_charged(cell));
        self.hold();
    }

    /// Retires the kept cell of a group that is to be removed. What is charged to groups that lose their last directory by that
    /// keeps the group above.
    fn retire_for(&mut self, group: GroupId, cell: CellId) {
        let found = self.forest.group(group).expect("live");
        let (charged, above) = (self.hierarchies[&LETTERS[0]], found.parent().expect("not a root"));
        let plan = self.forest.plan_retire(cell).expect("nothing holds it");
        let is_charged = |group| self.forest.group(group).is_some_and(|found| found.hierarchy() == charged);
        let keeps = self.forest.last_carriers(&plan).any(|(other, _)| other != group && is_charged(other));
        self.forest.abort_retire(plan);
        if keeps {
            let plan = self.forest.plan_attach(&Seat::Cell(cell), above).expect("live");
            match plan.to() {
                Some(Seat::Cell(_)) => self.forest.commit_kept(plan),
                _ => self.forest.abort_attach(plan),
            }
        }
        self.retire(cell);
    }

    /// Before a group is removed, the cells that are kept for what is charged to it go.
    fn retire_what_is_charged(&mut self, group: GroupId) {
        if self.forest.is_idle(group) {
            let kept: Vec<CellId> = self.forest.group(group).expect("live").cells().collect();
            kept.into_iter().for_each(|cell| self.retire_for(group, cell));
        }
    }

    /// Removes a group, if it is there and may be.
    fn remove(&mut self, letter: char, path: &str) {
        let root = self.forest.hierarchy(self.hierarchies[&letter]).expect("mounted").root();
        let names = path.split('/').filter(|name| !name.is_empty());
        let child = |at: GroupId, name: &str| self.forest.group(at)?.child(name.as_bytes());
        let Some(group) = names.into_iter().try_fold(root, child) else { return };
        if group != root {
            self.retire_what_is_charged(group);
        }
        let is_used = !placed::cells_within(&self.forest, group).is_empty();
        match self.forest.plan_remove(group) {
            Ok(plan) => {
                assert!(!is_used && group != root, "{letter}{path} has processes");
                self.forest.commit_remove(plan, Moment::default());
                self.counts.own.remove(&group);
            }
            Err(_) => assert!(
                is_used || group == root || self.forest.subtree(group).count() > 1,
                "nothing holds {letter}{path}"
            ),
        }
        self.hold();
    }

    /// Attaches the only process of a cell where it is; false if it has to be moved.
    fn shift(&mut self, cell: CellId, group: GroupId) -> bool {
        let before = self.carriers();
        let Some(plan) = self.forest.plan_shift(cell, group) else { return false };
        let folds = plan.folds().to_vec();
        self.counts.fold(plan.own_folds());
        self.forest.commit_shift(plan);
        self.says_what_changed(before, &folds);
        self.shifts += 1;
        true
    }

    fn retire(&mut self, cell: CellId) {
        let before = self.carriers();
        let plan = self.forest.plan_retire(cell).expect("nothing holds it");
        let folds = plan.folds().to_vec();
        self.counts.fold(plan.own_folds());
        self.forest.commit_retire(plan);
        self.says_what_changed(before, &folds);
    }

    /// Folds say which carriers each group has lost and gained.
    fn says_what_changed(&self, before: BTreeMap<GroupId, Vec<String>>, folds: &[Fold]) {
        let after = self.carriers();
        for (group, before) in before {
            let now = after.get(&group).cloned().unwrap_or_default();
            let missing = |these: &[String], those: &[String]| {
                let mut gone: Vec<String> =
                    these.iter().filter(|dir| !those.contains(dir)).cloned().collect();
                gone.sort();
                gone
            };
            let fold = folds.iter().find(|fold| fold.group == group);
            let said = |dirs: Option<&Vec<Dir>>| {
                let mut said: Vec<String> = dirs.into_iter().flatten().map(ToString::to_string).collect();
                said.sort();
                said
            };
            assert_eq!(said(fold.map(|fold| &fold.lost)), missing(&before, &now), "lost by {group}");
            assert_eq!(said(fold.map(|fold| &fold.gained)), missing(&now, &before), "gained by {group}");
        }
    }

    fn carriers(&self) -> BTreeMap<GroupId, Vec<String>> {
        let roots: Vec<GroupId> = self.forest.hierarchies().map(|(_, found)| found.root()).collect();
        let all = roots.iter().flat_map(|root| self.forest.subtree(*root)).filter(|id| !roots.contains(id));
        all.map(|id| (id, placed::carriers(&self.forest, id).iter().map(ToString::to_string).collect()))
            .collect()
    }

    fn hold(&mut self) {
        self.counts.hold(&self.forest);
        self.counts.happen(&self.forest);
        self.counts.hold(&self.forest);
        for group in self.carriers().into_keys() {
            placed::hold(&self.forest, group);
        }
        placed::directories_know_whom_they_carry(&self.forest);
    }

    /// How many directories carry each group of the limiting hierarchies that has cells: `m/a 1, p/a/b 2`.
    fn counts(&self) -> String {
        let mut words = Vec::new();
        for letter in ['m', 'p', 'q', 'r'] {
            let root = self.forest.hierarchy(self.hierarchies[&letter]).expect("mounted").root();
            for id in self.forest.subtree(root).filter(|id| *id != root) {
                let path: Vec<_> =
                    self.forest.path(id).expect("live").iter().map(ToString::to_string).collect();
                match placed::carriers(&self.forest, id).len() {
                    0 => {}
                    count => words.push(format!("{letter}/{} {count}", path.join("/"))),
                }
            }
        }
        words.sort();
        words.join(", ")
    }
}

/// `attaches`: `PROCESS LETTERS PATH`, `PROCESS exits` or `PROCESS leaves` (something behind), separated by commas.
fn check(attaches: &str, expected: &str) {
    let mut stage = Stage::new();
    play(&mut stage, attaches);
    assert_eq!(stage.counts(), expected, "{attaches}");
}

fn play(stage: &mut Stage, attaches: &str) {
    for line in attaches.split(',') {
        let mut words = line.split_whitespace();
        let process = words.next().and_then(|word| word.parse().ok()).expect("a process");
        match (words.next().expect("letters"), words.next()) {
            ("exits", None) => stage.exit(process),
            ("leaves", None) => stage.exit_charged(process),
            (letters, path) => letters.chars().for_each(|at| stage.attach(process, at, path.unwrap_or("/"))),
        }
    }
}

#[test]
fn the_same_path_in_every_hierarchy_is_native() {
    check("1 mpq /a", "m/a 1, p/a 1, q/a 1");
    check(
        "1 mpq /docker/1, 2 qpm /docker/2, 3 pqm /docker/2",
        "m/docker 1, m/docker/1 1, m/docker/2 1, p/docker 1, p/docker/1 1, p/docker/2 1, q/docker 1, q/docker/1 1, q/docker/2 1",
    );
}

#[test]
fn a_hierarchy_that_goes_on_where_another_ends_is_native() {
    check("1 mp /a, 1 p /a/b, 2 mp /a, 2 p /a/c, 3 mp /a", "m/a 1, p/a 1, p/a/b 1, p/a/c 1");
    check("1 p /a/b, 2 p /a/c, 1 m /a, 2 m /a", "m/a 1, p/a 1, p/a/b 1, p/a/c 1");
}

#[test]
fn a_native_group_with_nobody_below_has_one_directory_of_its_own() {
    for (attaches, own) in [
        ("1 mp /a", 1),
        ("1 mp /a, 1 p /a/b, 2 mp /a, 2 p /a/c, 3 mp /a, 3 f /x", 1),
        ("1 mp /a, 1 p /a/b, 2 mp /a, 2 p /a/c, 3 mp /a/d", 2),
        ("1 mp /a, 1 p /a/b, 2 mp /a, 2 p /a/c, 3 mp /a/d, 3 exits", 1),
    ] {
        let mut stage = Stage::new();
        play(&mut stage, attaches);
        let group = stage.group('m', "/a");
        assert_eq!(stage.forest.own_carriers(group).len(), own, "{attaches}");
    }
}

#[test]
fn what_is_charged_to_the_last_directory_of_a_group_keeps_it() {
    check("1 mp /a, 1 leaves", "m/a 1, p/a 1");
    check("1 p /a, 1 leaves", "");
    // Who comes back is there alone, and finds what was kept.
    check("1 mp /a, 1 leaves, 2 mp /a", "m/a 1, p/a 1");
    check("1 mp /a, 1 leaves, 2 pm /a, 3 mp /a/b", "m/a 1, m/a/b 1, p/a 1, p/a/b 1");
    check("1 mp /a/b, 1 leaves", "m/a 1, m/a/b 1, p/a 1, p/a/b 1");
    // What is left of /a stays within it while somebody is there.
    check("1 m /a, 2 mp /a, 1 leaves, 2 leaves", "m/a 1, p/a 1");
    // The directory is for whoever comes, and the cell that was kept stands in nobody's way.
    check("1 m /a, 1 leaves, 2 pm /a, 3 pm /a, 3 f /x", "m/a 1, p/a 1");
    // Elsewhere, what is kept has its part.
    check("1 mp /a, 1 leaves, 2 m /a", "m/a 2, p/a 1");
    check("1 mp /a, 1 leaves, 2 m /a, 2 exits", "m/a 1, p/a 1");
    // What is removed leaves its charge to the group above.
    for (leaves, removed, expected) in [
        ("1 m /a/b, 1 leaves", "m/a/b", "m/a 1"),
        ("1 mp /a/b, 1 leaves", "m/a/b", "m/a 1, p/a 1, p/a/b 1"),
        ("1 mp /a/b, 1 leaves", "p/a/b", "m/a 1, m/a/b 1, p/a 1"),
        ("1 m /a, 1 p /x, 1 leaves", "p/x", "m/a 1"),
        ("1 mp /a/b, 1 leaves", "m/a/b p/a/b m/a p/a", ""),
    ] {
        let mut stage = Stage::new();
        play(&mut stage, leaves);
        for group in removed.split(' ') {
            stage.remove(group.chars().next().expect("a letter"), &group[1..]);
        }
        assert_eq!(stage.counts(), expected, "{leaves}, {removed}");
    }
    let mut stage = Stage::new();
    play(&mut stage, "1 mp /a, 1 leaves");
    let group = stage.group('m', "/a");
    assert!(stage.forest.is_idle(group), "nobody is there");
    // Who claims a directory further out, with its charge, loses none, so nothing is kept.
    let mut claiming = Stage::new();
    play(&mut claiming, "1 p /a, 2 pm /a, 1 leaves");
    let cell = claiming.roster.cell_of(HostPid::new(2).expect("not 0")).expect("it is there");
    assert_eq!(claiming.forest.kept_around(cell), []);
    play(&mut stage, "2 mp /a");
    assert!(!stage.forest.is_idle(group));
    play(&mut stage, "2 leaves");
    stage.remove('m', "/a");
    assert_eq!(stage.counts(), "");
}

#[test]
fn hierarchies_that_do_not_limit_divide_nothing() {
    check("1 mp /a, 1 f /x, 2 mp /a, 2 f /y, 3 mp /a", "m/a 1, p/a 1");
}

#[test]
fn where_groups_cross_the_limit_that_kills_is_whole() {
    check("1 m /a, 1 p /c, 2 m /a, 2 p /d, 3 m /b, 3 p /c, 4 m /b, 4 p /d", "m/a 1, m/b 1, p/c 2, p/d 2");
    check("1 p /c, 1 m /a, 2 p /d, 2 m /a, 3 p /c, 3 m /b, 4 p /d, 4 m /b", "m/a 1, m/b 1, p/c 2, p/d 2");
}

#[test]
fn who_enters_a_container_one_hierarchy_after_the_other_divides_it_only_meanwhile() {
    check("1 mpq /c, 2 m /c", "m/c 2, p/c 1, q/c 1");
    check("1 mpq /c, 2 mpq /c", "m/c 1, p/c 1, q/c 1");
}

#[test]
fn a_group_that_came_later_has_the_directory_once_the_others_are_gone() {
    check("1 m /a, 2 m /a, 2 p /a, 3 mp /a, 3 f /x", "m/a 1, p/a 2");
    check("1 m /a, 2 m /a, 2 p /a, 3 mp /a, 3 f /x, 1 exits", "m/a 1, p/a 1");
    check("1 m /a, 2 m /a, 2 p /a, 3 mp /a, 3 f /x, 1 p /a", "m/a 1, p/a 1");
}

#[test]
fn who_does_not_claim_a_directory_waits_until_the_next_cell_leaves_it() {
    let mut stage = Stage::new();
    play(&mut stage, "1 p /a, 2 p /a, 1 m /a");
    let carrier = |stage: &mut Stage| {
        let group = stage.group('m', "/a");
        stage.carriers()[&group].concat()
    };
    let own = carrier(&mut stage);
    let left = stage.roster.exit(HostPid::new(2).expect("not 0")).expect("it was the only one there");
    let before = stage.carriers();
    let plan = stage.forest.plan_retire(left).expect("nothing holds it");
    assert_eq!(plan.claims().len(), 1);
    stage.forest.abort_retire(plan);
    let plan = stage.forest.plan_retire_if(left, |_| false).expect("nothing holds it");
    let folds = plan.folds().to_vec();
    stage.counts.fold(plan.own_folds());
    stage.forest.commit_retire(plan);
    stage.says_what_changed(before, &folds);
    stage.hold();
    assert_eq!(carrier(&mut stage), own, "its leaf, as before");
    play(&mut stage, "3 p /a, 3 exits");
    assert_ne!(carrier(&mut stage), own);
    assert_eq!(stage.counts(), "m/a 1, p/a 1");
}

#[test]
fn a_process_that_goes_through_all_hierarchies_is_moved_where_its_leaf_has_to_hang_elsewhere() {
    for (attaches, shifts) in [
        ("1 fmpqr /a", 3),             // below m's directory, where p, q and r have theirs
        ("1 mpqrf /a, 2 mpqrf /a", 4), // the second finds the cell that it comes to at the end
        ("1 f /x, 1 f /y, 1 f /", 1),  // and back to where it came from
        ("1 mp /a, 1 p /b", 1),        // charged to p's group, which keeps the leaf
        ("1 mp /a, 1 m /b", 1),
    ] {
        let mut stage = Stage::new();
        play(&mut stage, attaches);
        assert_eq!(stage.shifts, shifts, "{attaches}");
    }
}

fn owner() -> Ownership {
    Ownership { uid: Uid(0), gid: Gid(0), mode: 0o755 }
}

const PATHS: [&str; 5] = ["/a", "/a/b", "/a/c", "/d", "/d/b"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn processes_that_move_through_all_hierarchies_leave_them_native(
        moves in prop::collection::vec((1..6_u32, 0..5_usize, any::<bool>(), 0..4_usize), 1..30),
    ) {
        let mut stage = Stage::new();
        for (process, path, exits, first) in moves {
            if exits {
                if first % 2 == 0 { stage.exit_charged(process) } else { stage.exit(process) }
                continue;
            }
            for at in 0..4 {
                stage.attach(process, LETTERS[(at + first) % 4], PATHS[path]);
            }
        }
        for (group, dirs) in stage.carriers() {
            prop_assert!(dirs.len() <= 1, "{group} is carried by {dirs:?}");
        }
    }

    #[test]
    fn hierarchies_that_end_at_different_depths_of_one_path_stay_native(
        depths in prop::array::uniform4(0..4_usize),
        moves in prop::collection::vec((1..6_u32, 0..6_usize, any::<bool>(), 0..4_usize), 1..30),
    ) {
        const DEEP: [&str; 6] = ["a/b/c", "a/b/d", "a/e/c", "f/b/c", "f/b", "f"];
        let mut stage = Stage::new();
        for (process, path, exits, first) in moves {
            if exits {
                stage.exit(process);
                continue;
            }
            for at in (0..4).map(|at| (at + first) % 4) {
                let names: Vec<&str> = DEEP[path].split('/').take(depths[at]).collect();
                stage.attach(process, LETTERS[at], &names.join("/"));
            }
        }
        for (group, dirs) in stage.carriers() {
            prop_assert!(dirs.len() <= 1, "{group} is carried by {dirs:?}");
        }
    }

    #[test]
    fn any_placement_holds_what_it_must(
        hierarchies in 1..=5_usize,
        acts in prop::collection::vec((0..10_u32, 1..6_u32, 0..5_usize, 0..6_usize), 1..80),
    ) {
        let mut stage = Stage::of(&LETTERS[..hierarchies]);
        for (act, process, letter, path) in acts {
            let charged = path % 2 == 0;
            let (letter, path) = (LETTERS[letter % hierarchies], PATHS.get(path).copied().unwrap_or("/"));
            match act {
                0 if charged => stage.exit_charged(process),
                0 => stage.exit(process),
                1 => _ = stage.group(letter, path),
                2 | 3 => stage.remove(letter, path),
                _ => stage.attach(process, letter, path),
            }
        }
    }
}
