//! Reading control files: members, or a text made from what is kept and from v2 files.

use std::io::Write;

use pinfold_files::{FileId, Ids, Read, Sight, Source, Texts};
use pinfold_kernel::{self as kernel, Where};
use pinfold_model::{Carriers, Dir, Forest, GroupGone, GroupId, HostPid, Pid, Seat};

use crate::realm::surroundings;
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

    /// The same, each with its number in the daemon's namespace.
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
            forest.subtree(top).collect()
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
        self.patiently(|settled| {
            let (generation, dirs) = {
                let forest = self.lock_forest();
                (forest.generation(), source_dirs(&forest, group, from)?)
            };
            let texts = self.texts(&dirs, settled)?;
            let forest = self.lock_forest();
            forest.group(group).ok_or(GroupGone(group))?;
            if forest.generation() != generation {
                return Err(Attempt::Moved);
            }
            Ok(look(&Sight { forest: &forest, group, v2: &texts, facts: &self.facts }))
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
        for (source, places) in dirs {
            for place in places {
                let at = match place {
                    At::Base => Where::Base,
                    At::Processes(dir) => {
                        texts.push(*source, self.open_descriptors(dir)?.to_string());
                        continue;
                    }
                    // What no directory of the realm has need not be looked for.
                    At::Dir(_) if !self.facts.v2_files.contains(source.file()) => continue,
                    At::Dir(dir) => Where::Dir(dir),
                    At::Machine => {
                        texts.push(*source, kernel::inspect::interfaces());
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
#[derive(Debug)]
pub(crate) enum At {
    Base,
    Dir(Dir),
    /// Of each process of this directory, in proc.
    Processes(Dir),
    /// Nowhere in the v2 tree: the machine itself is asked for its network interfaces, which are all that is asked so.
    Machine,
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
            (_, Carriers::Scope) => vec![At::Base],
            (Source::Root(_), _) => Vec::new(),
            (Source::OwnLeaves(_), _) => forest.own_leaves(group).into_iter().map(At::Dir).collect(),
            (Source::Carriers(_), Carriers::Dirs(dirs)) => dirs.into_iter().map(At::Dir).collect(),
        };
        Ok((*source, at))
    };
    from.iter().map(places).collect()
}

/// The leaves of the cells that are in a group or in one below it.
pub(crate) fn leaves_below(forest: &Forest, group: GroupId) -> Vec<Dir> {
    forest.subtree(group).flat_map(|group| forest.own_leaves(group)).collect()
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
