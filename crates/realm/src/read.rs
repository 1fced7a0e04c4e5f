//! Reading control files: members, or a text made from what is kept and from v2 files.

use std::io::Write;
use std::sync::atomic::Ordering;

use pinfold_files::{Facts, FileId, Ids, Read, Sight, Source, Texts};
use pinfold_kernel::{self as kernel, Where};
use pinfold_model::{Carriers, Dir, Forest, GroupGone, GroupId, HostPid, Pid, Seat};

use crate::realm::surroundings;
use crate::record::Kept;
use crate::write::set_values;
use crate::{Caller, EffectError, ReadError, Realm};

/// How often a read is started again because a v2 directory came or went, before it holds off all changes.
const PATIENCE: usize = 4;

impl Realm {
    /// The text of a control file, as the caller sees it (ids in its pid namespace).
    pub fn read(&self, caller: &Caller, group: GroupId, file: FileId) -> Result<Vec<u8>, ReadError> {
        match pinfold_files::file(file).1.read {
            Read::Refused | Read::Named => {
                Err(ReadError::WriteOnly(pinfold_files::full_name(file, false).into_owned()))
            }
            Read::Members(ids) => {
                let mut text = Vec::new();
                for pid in self.tasks(caller, group, ids)? {
                    writeln!(text, "{pid}").expect("memory takes every line");
                }
                Ok(text)
            }
            Read::Shown { from: [], show } => {
                let forest = self.lock_forest();
                forest.group(group).ok_or(GroupGone(group))?;
                Ok(show(&Sight { forest: &forest, group, v2: &Texts::default(), facts: &self.facts }))
            }
            Read::Shown { from, show } => self.with_texts(group, from, show),
            Read::Followed { from, show } => self.read_on(group, from, show),
        }
    }

    /// The members of a group (not of those below), ascending, in the daemon's pid namespace.
    pub(crate) fn members(&self, group: GroupId, ids: Ids) -> Result<Vec<HostPid>, ReadError> {
        let mut found = self.patiently(|_| {
            let (is_root, dirs) = {
                let forest = self.lock_forest();
                let around = surroundings(&forest, group).ok_or(GroupGone(group))?;
                let dirs = if around.is_root {
                    cells_in_root(&forest, around.hierarchy)
                } else {
                    forest.own_leaves(group)
                };
                (around.is_root, dirs)
            };
            let mut found = Vec::new();
            if is_root {
                found = match ids {
                    Ids::Tasks => self.tracker.scope_threads(),
                    Ids::Processes => self.tracker.scope_processes(),
                }?;
            }
            for dir in &dirs {
                found.extend(match ids {
                    Ids::Tasks => self.tracker.threads(dir),
                    Ids::Processes => self.tracker.processes(dir),
                }?);
            }
            Ok(found)
        })?;
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// The members of a group in the caller's pid namespace, ascending. Those that it does not see are left out.
    pub fn tasks(&self, caller: &Caller, group: GroupId, ids: Ids) -> Result<Vec<Pid>, ReadError> {
        Ok(self.tasks_seen(caller, group, ids)?.into_iter().map(|(seen, _)| seen).collect())
    }

    /// [`Self::tasks`], each with its number in the daemon's namespace.
    pub(crate) fn tasks_seen(
        &self,
        caller: &Caller,
        group: GroupId,
        ids: Ids,
    ) -> Result<Vec<(Pid, HostPid)>, ReadError> {
        let members = self.members(group, ids)?.into_iter();
        // A reader whose pid namespace is not known sees no process in it.
        let Some(map) = caller.task.and_then(|task| self.pins.map_of(task).ok()) else {
            return Ok(Vec::new());
        };
        let mut seen: Vec<_> = members.filter_map(|member| Some((map.from_host(member)?, member))).collect();
        seen.sort_unstable();
        Ok(seen)
    }

    /// The processes of a group and of those below it, in the daemon's numbers. A group that goes meanwhile has none.
    pub fn processes_below(&self, top: GroupId) -> Result<Vec<HostPid>, ReadError> {
        let groups: Vec<GroupId> = {
            let forest = self.lock_forest();
            forest.group(top).ok_or(GroupGone(top))?;
            forest.inhabited(top).collect()
        };
        let mut found = Vec::new();
        for group in groups {
            match self.members(group, Ids::Processes) {
                Ok(members) => found.extend(members),
                Err(ReadError::Gone(gone)) if gone.0 != top => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// Whether a process is in one of these groups or below; `None`: it has ended.
    pub fn is_below(&self, process: HostPid, groups: &[GroupId]) -> Option<bool> {
        let seat = self.seat_of(process)?;
        let forest = self.lock_forest();
        let own = |group: &GroupId| -> Option<GroupId> {
            let hierarchy = forest.group(*group)?.hierarchy();
            let root = forest.hierarchy(hierarchy)?.root();
            match &seat {
                Seat::Outside(_) => Some(root),
                Seat::Cell(cell) => Some(forest.group_of(*cell, hierarchy).unwrap_or(root)),
            }
        };
        let is_in = |group: &GroupId| {
            own(group).is_some_and(|own| own == *group || forest.ancestors(own).any(|above| above == *group))
        };
        Some(groups.iter().any(is_in))
    }

    /// Has `look` see a group with its v2 texts, all from one moment as far as directories come and go.
    pub(crate) fn with_texts<T>(
        &self,
        group: GroupId,
        from: &[Source],
        mut look: impl FnMut(&Sight<'_>) -> T,
    ) -> Result<T, ReadError> {
        self.with_texts_keeping(group, from, |sight| (look(sight), Kept::new()))
    }

    /// [`Self::with_texts`], and has the group keep, in memory, what `look` says.
    pub(crate) fn with_texts_keeping<T>(
        &self,
        group: GroupId,
        from: &[Source],
        mut look: impl FnMut(&Sight<'_>) -> (T, Kept),
    ) -> Result<T, ReadError> {
        self.patiently(|settled| {
            let (generation, dirs) = {
                let forest = self.lock_forest();
                let mut dirs = source_dirs(&forest, group, from)?;
                dirs.retain(|(source, at)| is_needed(&forest, &self.facts, group, *source, at));
                (forest.generation(), dirs)
            };
            let texts = self.texts(&dirs, settled)?;
            let mut forest = self.lock_forest();
            forest.group(group).ok_or(GroupGone(group))?;
            let is_removing = settled == Settled::No && self.is_removing.load(Ordering::Acquire);
            if forest.generation() != generation || is_removing {
                return Err(Attempt::Moved);
            }
            let (seen, kept) = look(&Sight { forest: &forest, group, v2: &texts, facts: &self.facts });
            if !kept.is_empty() {
                // Who has read older texts must not look at them with this.
                set_values(&mut forest, group, kept);
            }
            Ok(seen)
        })
    }

    /// The texts of v2 files. A file that the kernel below has not got is left out.
    ///
    /// A directory loses its files before it goes itself. So a missing file means that the kernel has no such file only if
    /// nobody is removing directories; that is remembered, since it stays so. Otherwise the directory counts as gone.
    pub(crate) fn texts(
        &self,
        dirs: &[(Source, Vec<At>)],
        settled: Settled,
    ) -> Result<Texts, kernel::ReadError> {
        let mut texts = Texts::default();
        for (at, (source, places)) in dirs.iter().enumerate() {
            if let Some(same) = read_before(&dirs[..at], *source, places) {
                texts.repeat(same, *source);
                continue;
            }
            for place in places.iter().filter(|place| is_read(&self.facts, *source, place)) {
                let at = match place {
                    At::Base => Where::Base,
                    At::Processes(dir) => {
                        texts.push(*source, self.open_descriptors(dir)?.to_string());
                        continue;
                    }
                    At::Since(group, dir) => {
                        self.resets
                            .read(*group, dir, source.file())
                            .into_iter()
                            .for_each(|text| texts.push(*source, text));
                        continue;
                    }
                    At::Dir(dir) => Where::Dir(dir),
                    At::Measured(dirs) => {
                        let told = self.tracker.measured(dirs);
                        told.into_iter().for_each(|text| texts.push(*source, text));
                        continue;
                    }
                    At::Machine => {
                        let told = match source.file() {
                            "interfaces" => Some(kernel::inspect::interfaces()),
                            name => kernel::inspect::sysctl(name),
                        };
                        told.into_iter().for_each(|text| texts.push(*source, text));
                        continue;
                    }
                };
                match self.tracker.read(at, source.file()) {
                    Ok(text) => texts.push(*source, text),
                    // The top of the v2 tree has none of the files of the groups below, and stays as it is.
                    Err(kernel::ReadError::NoFile { .. }) if matches!(place, At::Base) => {}
                    Err(kernel::ReadError::NoFile { path }) => {
                        let mut lacking = self.lacking.lock().expect("nobody panics with it");
                        match settled {
                            Settled::Yes => _ = lacking.insert(source.file()),
                            Settled::No if lacking.contains(source.file()) => {}
                            Settled::No => return Err(kernel::ReadError::Gone { path }),
                        }
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(texts)
    }

    /// The processes of a leaf; none if it is gone.
    pub(crate) fn processes_of_leaf(&self, leaf: &Dir) -> Result<Vec<HostPid>, kernel::ReadError> {
        match self.tracker.processes(leaf) {
            Err(kernel::ReadError::Gone { .. } | kernel::ReadError::NoFile { .. }) => Ok(Vec::new()),
            answer => answer,
        }
    }

    /// Does something that must not see a directory come or go. After some tries it holds off all changes.
    fn patiently<T>(&self, mut attempt: impl FnMut(Settled) -> Result<T, Attempt>) -> Result<T, ReadError> {
        for _ in 0..PATIENCE {
            match attempt(Settled::No) {
                Err(Attempt::Moved) => drop(self.lock_change()),
                Err(Attempt::Failed(error)) => return Err(error),
                Ok(done) => return Ok(done),
            }
        }
        let mut change = self.lock_change();
        let mut outcome = attempt(Settled::Yes);
        if let Err(Attempt::Moved) = outcome {
            // With no change under way somebody else removed a directory of ours, and maybe before the kernel told us
            // that it was empty: then no event comes.
            self.retire_every_empty_cell(&mut change);
            outcome = attempt(Settled::Yes);
        }
        outcome.map_err(|attempt| match attempt {
            Attempt::Failed(error) => error,
            Attempt::Moved => EffectError::Foreign.into(),
        })
    }
}

/// Whether the caller holds off all changes, so that no directory of ours comes or goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Settled {
    Yes,
    No,
}

/// Where a v2 file is read.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum At {
    Base,
    Dir(Dir),
    /// In a directory of this group's, since its counter was reset.
    Since(GroupId, Dir),
    /// Of each process of this directory, in proc.
    Processes(Dir),
    /// What was measured in these directories.
    Measured(Vec<Dir>),
    /// Nowhere in the v2 tree: the machine itself is asked, for its network interfaces or for what /proc/sys says.
    Machine,
}

impl At {
    /// Where a source of a group is in one of its directories.
    pub(crate) fn of(source: Source, group: GroupId, dir: Dir) -> Self {
        match source {
            Source::Since(_) => Self::Since(group, dir),
            Source::Measured => Self::Measured(vec![dir]),
            _ => Self::Dir(dir),
        }
    }
}

enum Attempt {
    /// A directory came or went meanwhile.
    Moved,
    Failed(ReadError),
}

impl From<GroupGone> for Attempt {
    fn from(gone: GroupGone) -> Self {
        Self::Failed(gone.into())
    }
}

impl From<kernel::ReadError> for Attempt {
    fn from(error: kernel::ReadError) -> Self {
        match error {
            kernel::ReadError::Gone { .. } => Self::Moved,
            error => Self::Failed(EffectError::from(error).into()),
        }
    }
}

/// In which directories each source is read for a group.
pub(crate) fn source_dirs(
    forest: &Forest,
    group: GroupId,
    from: &[Source],
) -> Result<Vec<(Source, Vec<At>)>, GroupGone> {
    let places = |source: &Source| {
        let carriers = forest.carriers(group).ok_or(GroupGone(group))?;
        let at: Vec<At> = match (source, carriers) {
            (Source::Machine(_), _) => vec![At::Machine],
            (Source::Realm(_), _) => vec![At::Dir(Dir::REALM)],
            (Source::Descriptors, _) => leaves_below(forest, group).into_iter().map(At::Processes).collect(),
            (Source::Since(_), Carriers::Scope) | (Source::Nowhere, _) => Vec::new(),
            (Source::Measured, Carriers::Scope) => vec![At::Measured(vec![Dir::REALM])],
            (_, Carriers::Scope) => vec![At::Base],
            (Source::Root(_), _) => Vec::new(),
            (Source::Own(_), _) => forest.own_carriers(group).into_iter().map(At::Dir).collect(),
            (Source::OwnLeaves(_), _) => forest.own_leaves(group).into_iter().map(At::Dir).collect(),
            (Source::Measured, Carriers::Dirs(dirs)) => vec![At::Measured(dirs)],
            (Source::Carriers(_) | Source::Beside(..) | Source::Since(_), Carriers::Dirs(dirs)) => {
                dirs.into_iter().map(|dir| At::of(*source, group, dir)).collect()
            }
        };
        Ok((*source, at))
    };
    let mut dirs = from.iter().map(places).collect::<Result<Vec<_>, _>>()?;
    if dirs.iter().any(|(source, at)| matches!(source, Source::Carriers(_)) && !at.is_empty()) {
        dirs.retain(|(source, _)| !matches!(source, Source::Realm(_)));
    }
    Ok(dirs)
}

/// Whether a source may say what no other does: see [`Source::Beside`], and nothing is known since a reset without one.
fn is_needed(forest: &Forest, facts: &Facts, group: GroupId, source: Source, at: &[At]) -> bool {
    let (Source::Beside(_, key) | Source::Since(key)) = source else { return true };
    let Some(counter) = pinfold_files::counter_by_key(key) else { return true };
    let keeps = forest.group(group).is_some_and(|found| found.settings().get(counter.key).is_some());
    let is_one = matches!(at, [At::Dir(_)]) && facts.v2_files.contains(counter.source.file());
    keeps || !is_one && matches!(source, Source::Beside(..))
}

/// The source before these that is the same file in the same places.
fn read_before(before: &[(Source, Vec<At>)], source: Source, places: &[At]) -> Option<Source> {
    let is_same = |(other, at): &&(Source, Vec<At>)| other.file() == source.file() && at == places;
    before.iter().find(is_same).map(|(other, _)| *other)
}

/// Whether a source is looked for in a place: what no directory of the realm has is not.
fn is_read(facts: &Facts, source: Source, place: &At) -> bool {
    !matches!(place, At::Dir(_)) || facts.v2_files.contains(source.file())
}

/// The leaves of the cells that are in a group or in one below it.
pub(crate) fn leaves_below(forest: &Forest, group: GroupId) -> Vec<Dir> {
    forest.inhabited(group).flat_map(|group| forest.own_leaves(group)).collect()
}

/// The leaves of the cells that are in a hierarchy's root.
fn cells_in_root(forest: &Forest, hierarchy: pinfold_model::HierarchyId) -> Vec<Dir> {
    let in_root = |cell: &pinfold_model::Cell| {
        cell.groups()
            .iter()
            .all(|group| forest.group(*group).is_some_and(|group| group.hierarchy() != hierarchy))
    };
    forest.cells().filter(|(_, cell)| in_root(cell)).filter_map(|(id, _)| forest.leaf(id)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use pinfold_files::{Place, controller_named, controllers};
    use pinfold_model::ControllerSet;

    use super::*;
    use crate::stage::Stage;

    /// A kernel with every file that a row reads.
    fn facts() -> Facts {
        facts_without("")
    }

    /// A kernel without one of them.
    fn facts_without(lacking: &str) -> Facts {
        let sources = pinfold_files::files().flat_map(|file| pinfold_files::file(file).1.sources()).copied();
        let places = pinfold_files::files().filter_map(|file| match pinfold_files::file(file).1.place {
            Place::WithV2(file) | Place::BelowRootWithV2(file) => Some(file),
            Place::Everywhere | Place::RootOnly | Place::BelowRoot => None,
        });
        let files = sources.map(Source::file).chain(places).filter(|file| *file != lacking);
        let files: BTreeSet<String> = files.map(str::to_owned).collect();
        Facts {
            user_hz: 100,
            possible_cpus: 1,
            online_cpus: vec![0],
            cpus: vec![0],
            mems: vec![0],
            page_size: 4096,
            linux: (6, 1),
            nodes: vec![0],
            v2_files: crate::facts::told(files, |_| false),
        }
    }

    fn reads(forest: &Forest, group: GroupId, file: FileId, facts: &Facts) -> usize {
        let mut dirs = source_dirs(forest, group, pinfold_files::file(file).1.sources()).expect("live");
        dirs.retain(|(source, at)| is_needed(forest, facts, group, *source, at));
        let apart = dirs
            .iter()
            .enumerate()
            .filter(|(at, (source, places))| read_before(&dirs[..*at], *source, places).is_none());
        let of_v2 = |source: Source, at: &At| {
            matches!(at, At::Base | At::Dir(_) | At::Since(..)) && is_read(facts, source, at)
        };
        apart.map(|(_, (source, places))| places.iter().filter(|at| of_v2(*source, at)).count()).sum()
    }

    /// Files that are more than one read, and how many when the group has processes itself, and while those below have some, too.
    const MORE: [(&str, usize, usize, &str); 5] = [
        ("memory.stat", 2, 4, "swap stands in a file of its own; own and total are of two directories"),
        ("memory.numa_stat", 1, 2, "own and total are of two directories"),
        ("memory.memsw.usage_in_bytes", 2, 2, "v2 has no sum of memory and swap"),
        ("memory.memsw.max_usage_in_bytes", 4, 4, "the same, and the peak of each"),
        ("hugetlb.numa_stat", 1, 2, "own and total are of two directories"),
    ];

    #[test]
    fn a_control_file_of_a_native_group_is_one_v2_read_whatever_the_number_of_cells_below() {
        let facts = facts();
        let pids = ControllerSet::EMPTY.with(controller_named("pids").expect("it is there"));
        let mut seen = BTreeSet::new();
        for coarse in [controllers().difference(pids), pids] {
            let layouts = [(0, 0), (1, 0), (10, 0), (0, 1), (0, 10), (1, 1), (1, 10)];
            let stages = layouts.map(|(own, below)| Stage::native(coarse, own, below));
            for file in pinfold_files::list(coarse, false, &facts) {
                let (controller, row) = pinfold_files::file(file);
                // Of huge pages of each size alike.
                let name = match controller.name {
                    "hugetlb" => format!("hugetlb.{}", row.name.split_once('.').expect("a size").1),
                    _ => pinfold_files::full_name(file, false).into_owned(),
                };
                let more = MORE.iter().find(|(more, ..)| *more == name);
                let (alone, beside) = more.map_or((1, 1), |(_, alone, beside, _)| (*alone, *beside));
                let found = stages.each_ref().map(|(forest, group)| reads(forest, *group, file, &facts));
                assert!(
                    found[0] <= 1 && found[1..5].iter().all(|reads| *reads <= alone),
                    "{name}: {found:?}"
                );
                assert!(found[5..].iter().all(|reads| *reads <= beside), "{name}: {found:?}");
                assert!(more.is_none() || (found[1], found[5]) == (alone, beside), "{name}: {found:?}");
                seen.insert(name);
            }
        }
        assert!(MORE.iter().all(|(name, ..)| seen.contains(*name)));
    }

    /// What a group counts of its own is a read for each of its cells only while it has many beside some below; what the kernel
    /// counts in leaves alone always is, as forks that failed before Linux 6.11.
    #[test]
    fn of_many_own_cells_each_is_read_only_where_no_directory_has_them_all() {
        const CELLS: usize = 10;
        /// How many reads with that many cells of the group's own, alone and beside as many below.
        const EACH: [(&str, usize, usize); 8] = [
            ("blkio.throttle.io_service_bytes", 1, CELLS),
            ("blkio.throttle.io_serviced", 1, CELLS),
            ("blkio.bfq.io_service_bytes", 1, CELLS),
            ("blkio.bfq.io_serviced", 1, CELLS),
            ("memory.stat", 2, 2 * CELLS + 2),
            ("memory.oom_control", 1, CELLS),
            ("memory.numa_stat", 1, CELLS + 1),
            ("hugetlb.2MB.numa_stat", 1, CELLS + 1),
        ];
        const EACH_OF_OLD: [(&str, usize, usize); 1] = [("pids.events", CELLS, CELLS)];
        let (new, old) = (facts(), facts_without("pids.events.local"));
        let pids = ControllerSet::EMPTY.with(controller_named("pids").expect("it is there"));
        let mut seen = BTreeSet::new();
        for coarse in [controllers().difference(pids), pids] {
            let layouts = [(CELLS, 0), (CELLS, CELLS)];
            let [alone, beside] = layouts.map(|(own, below)| Stage::native(coarse, own, below));
            for (facts, is_old) in [(&new, false), (&old, true)] {
                for file in pinfold_files::list(coarse, false, facts) {
                    let name = pinfold_files::full_name(file, false);
                    let found = [&alone, &beside].map(|(forest, group)| reads(forest, *group, file, facts));
                    let of_old = EACH_OF_OLD.iter().filter(|_| is_old);
                    // Of huge pages of each size alike.
                    let is_it = |listed: &str| {
                        listed == name || name.ends_with("B.numa_stat") && listed.ends_with("B.numa_stat")
                    };
                    match EACH.iter().chain(of_old).find(|(listed, ..)| is_it(listed)) {
                        Some((listed, alone, beside)) => {
                            assert_eq!(found, [*alone, *beside], "{name}");
                            seen.insert(*listed);
                        }
                        None => assert_eq!(
                            found[0], found[1],
                            "{name} is of the group and of those below it, or of nobody"
                        ),
                    }
                    assert!(found[1] < CELLS || seen.iter().any(|listed| is_it(listed)), "{name}: {found:?}");
                }
            }
        }
        assert_eq!(seen.len(), EACH.len() + EACH_OF_OLD.len());
    }

    /// A directory loses its files one by one: what is read of it meanwhile may be less than what is kept of it then.
    #[test]
    fn a_read_while_directories_are_removed_holds_off_whoever_removes_them() {
        let it = crate::fixture::Fixture::new("removing", std::time::Duration::from_secs(60));
        let (realm, root) = (&it.realm, it.mount("none,name=any"));
        for is_removing in [false, true, false] {
            realm.is_removing.store(is_removing, Ordering::Release);
            let are_held_off = realm.with_texts(root, &[], |_| realm.change.try_lock().is_err());
            assert_eq!(are_held_off.expect("live"), is_removing);
        }
        it.close();
    }

    /// What is used now counts then, and an open file of its own if there is one.
    #[test]
    fn a_peak_is_more_reads_only_once_something_is_kept_of_it() {
        let facts = facts();
        let mut old = facts.clone();
        old.v2_files.retain(|file| !file.ends_with(".peak"));
        for (controller, name, kept, without_peak) in
            [("memory", "memory.max_usage_in_bytes", 3, 1), ("pids", "pids.peak", 2, 1)]
        {
            let coarse = ControllerSet::EMPTY.with(controller_named(controller).expect("it is there"));
            let (mut forest, group) = Stage::native(coarse, 1, 1);
            let file = pinfold_files::named(name).expect("it is there");
            assert_eq!(reads(&forest, group, file, &facts), 1, "{name}");
            assert_eq!(reads(&forest, group, file, &old), without_peak, "{name}");
            let value = pinfold_model::Value::Peak { floor: 1, beyond: 2 };
            forest
                .group_mut(group)
                .expect("live")
                .settings_mut()
                .replace(pinfold_model::Key(name), Some(value));
            assert_eq!(reads(&forest, group, file, &facts), kept, "{name}");
        }
    }

    #[test]
    fn what_one_file_says_for_two_sources_is_read_once() {
        let memory = ControllerSet::EMPTY.with(controller_named("memory").expect("it is there"));
        let (forest, group) = Stage::native(memory, 1, 0);
        let sources = [Source::Own("memory.stat"), Source::Carriers("memory.stat")];
        let dirs = source_dirs(&forest, group, &sources).expect("live");
        assert_eq!(read_before(&dirs[..1], sources[1], &dirs[1].1), Some(sources[0]));
        assert_eq!(read_before(&[], sources[0], &dirs[0].1), None);
    }
}
