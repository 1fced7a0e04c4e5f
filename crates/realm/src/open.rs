//! Opening a realm: the v2 tree, the state directory, and everything as it was (I8).

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, mpsc};

use pinfold_files::{Carry, Needs};
use pinfold_kernel::pins::Pins;
use pinfold_kernel::{Step, Tree, inspect};
use pinfold_model::{
    CellId, ControllerSet, Dir, Forest, GroupId, GroupLimits, HierarchyName, KeptGroup, MountRequest, Name,
    RestoreError,
};

use crate::carry::{self, Extent};
use crate::facts::facts;
use crate::notice::Watchers;
use crate::notices::Notices;
use crate::realm::Changes;
use crate::record::{self, GroupRecord};
use crate::register::Finders;
use crate::state::{GroupPath, KeptDir, Records, State};
use crate::{OpenError, Realm, StateError};

/// The line of the mark that says that a daemon was about to take everything away.
pub(crate) const LEAVING: &str = "leaving\n";

/// What a realm is opened with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Its name: one component of a path.
    pub name: String,
    /// Its state directory.
    pub state: PathBuf,
    /// The v2 directory below which it works; `None`: the top of the v2 tree, and every process is in its scope.
    pub base: Option<PathBuf>,
    /// How many groups users may make who are neither root nor whom the daemon runs as.
    pub limits: GroupLimits,
}

impl Realm {
    /// Opens a realm, new or as a daemon that was killed has left it. Nobody else can open it meanwhile.
    pub fn open(config: Config) -> Result<Arc<Self>, OpenError> {
        let realm = Self::open_kept(config.clone())?;
        let leaving = realm.state.mark()?.is_some_and(|mark| mark.contains(LEAVING));
        if !leaving {
            return Ok(Arc::new(realm));
        }
        tracing::info!("the last daemon was killed while it left: finishing that first");
        realm.down()?;
        drop(realm);
        Ok(Arc::new(Self::open_kept(config)?))
    }

    fn open_kept(config: Config) -> Result<Self, OpenError> {
        let state = State::open(&config.state).map_err(|error| match error.is_locked() {
            true => OpenError::InUse { name: config.name.clone(), lock: config.state.join("lock") },
            false => error.into(),
        })?;
        let tree = Tree::open(&Tree::discover()?, config.base.as_deref(), &config.name, &wanted())?;
        let enabled = enabled(&tree);
        let forest = Mutex::new(Forest::new(limiting().intersection(enabled)));
        let (releases, agents) = mpsc::channel();
        let realm = Self {
            facts: facts(&tree),
            watch: tree.watch()?,
            config,
            state,
            tree,
            enabled,
            change: Mutex::default(),
            forest,
            lacking: Mutex::default(),
            pins: Pins::default(),
            watchers: Watchers::default(),
            finders: Finders::default(),
            notices: Notices::new()?,
            releases,
            agents: Mutex::new(Some(agents)),
        };
        realm.recover()?;
        Ok(realm)
    }

    /// Brings back what the state directory keeps, in the order in which one thing refers to another.
    fn recover(&self) -> Result<(), OpenError> {
        let mut change = self.lock_change();
        self.check_mark()?;
        let kept = Kept::read(&self.state)?;
        self.lock_forest().reserve_numbers(kept.last_group(), kept.last_cell());
        for (label, root) in kept.hierarchies {
            self.recover_hierarchy(&mut change, &label, root)?;
        }
        let there: HashSet<Dir> = self.tree.dirs().into_iter().collect();
        let folding: HashSet<u32> = kept.folds.iter().map(|(number, _)| *number).collect();
        for (number, text) in kept.cells {
            self.recover_cell(number, &text, &there, folding.contains(&number))?;
        }
        for (number, text) in kept.folds {
            self.recover_fold(number, &text)?;
        }
        self.lock_forest().recount();
        self.recover_directories()?;
        drop(change);
        self.look_at_every_cell();
        Ok(())
    }

    /// Makes sure that the state directory belongs to this base, and to the controllers that decide where leaves hang.
    fn check_mark(&self) -> Result<(), OpenError> {
        let leading: Vec<_> =
            self.lock_forest().limiting().iter().map(|id| pinfold_files::controller(id).name).collect();
        let base = pinfold_files::print_bytes(self.tree.base().as_os_str().as_encoded_bytes());
        let now = format!("base={base}\nlimits={}\n", leading.join(","));
        let kept = self.state.mark()?.unwrap_or_default().replace(LEAVING, "");
        if kept.is_empty() {
            return Ok(self.state.set_mark(&now)?);
        }
        let nothing_kept =
            self.state.hierarchies()?.is_empty() && self.state.records(Records::Cells)?.is_empty();
        match kept == now {
            true => Ok(()),
            false if nothing_kept => Ok(self.state.set_mark(&now)?),
            false => Err(OpenError::OtherRealm { state: self.state.path().to_owned(), kept, now }),
        }
    }

    fn recover_hierarchy(&self, change: &mut Changes, label: &str, root: KeptTree) -> Result<(), OpenError> {
        let KeptTree { at, kept, record, children } = root;
        let Some((id, request)) = record.hierarchy.zip(request_of(label, &record)) else {
            tracing::warn!("hierarchy {label} is not understood and left alone");
            return Ok(());
        };
        let missing = request.controllers.difference(self.enabled);
        for controller in missing.iter().map(pinfold_files::controller) {
            tracing::warn!("hierarchy {label}: the kernel below no longer offers {}", controller.name);
        }
        let mut forest = self.lock_forest();
        let contradiction = |at: &GroupPath| {
            let at = self.state.path().join(at.as_path());
            move |source| OpenError::Contradiction { at, source }
        };
        let id =
            forest.restore_hierarchy(id, request, kept_group(&kept, &record)).map_err(contradiction(&at))?;
        restore_extras(&mut forest, id, &record);
        let mut stack: Vec<_> = children.into_iter().map(|(name, child)| (id, name, child)).collect();
        while let Some((parent, name, KeptTree { at, kept, record, children })) = stack.pop() {
            let kept = kept_group(&kept, &record);
            let id = forest.restore_group(parent, name, kept).map_err(contradiction(&at))?;
            restore_extras(&mut forest, id, &record);
            if record.id.is_some() {
                change.numbered.insert(id);
            }
            stack.extend(children.into_iter().map(|(name, child)| (id, name, child)));
        }
        Ok(())
    }

    /// A cell whose leaf is not there never had a process, or has gone but for its record.
    fn recover_cell(
        &self,
        number: u32,
        text: &str,
        there: &HashSet<Dir>,
        folding: bool,
    ) -> Result<(), OpenError> {
        let Some(id) = CellId::new(number) else { return Ok(()) };
        let restored = match record::parse_cell(text) {
            Ok((origin, groups)) => self.lock_forest().restore_cell(id, &groups, &origin),
            Err(line) => {
                tracing::warn!("record of cell {number}: {line}");
                return Ok(());
            }
        };
        match restored {
            Ok(()) => {}
            Err(RestoreError::NoGroup(_)) => return Ok(self.state.keep(Records::Cells, number, None)?),
            Err(source) => {
                let at = self.state.path().join(format!("cells/{number}"));
                return Err(OpenError::Contradiction { at, source });
            }
        }
        let has_leaf = self.lock_forest().leaf(id).is_some_and(|leaf| there.contains(&leaf));
        if !has_leaf && !folding {
            let plan = self.lock_forest().plan_retire(id);
            if let Some(plan) = plan {
                self.lock_forest().commit_retire(plan);
            }
            self.state.keep(Records::Cells, number, None)?;
        }
        Ok(())
    }

    /// Finishes a fold that was begun, unless its leaf is in use again.
    fn recover_fold(&self, number: u32, text: &str) -> Result<(), OpenError> {
        let Some(cell) = CellId::new(number) else { return Ok(()) };
        let fold = match record::parse_fold(text) {
            Ok(fold) => fold,
            Err(line) => {
                tracing::warn!("record of the counters of cell {number}: {line}");
                return Ok(());
            }
        };
        let leaf = fold.dirs.first();
        if leaf.is_some_and(|leaf| self.tree.events(leaf).is_ok_and(|events| events.populated)) {
            self.forget_fold(cell);
            return Ok(());
        }
        for dir in &fold.dirs {
            if let Err(error) = self.tree.carry_out(&[Step::Remove(dir.clone())]) {
                tracing::warn!("{dir} stays, somebody else uses it: {error}");
            }
        }
        for (group, values) in fold.values {
            self.keep(group, &values).map_err(effect)?;
            crate::write::set_values(&mut self.lock_forest(), group, values);
        }
        // The cell itself goes with its directory: it counts nothing any more. Its agents may hear of it twice, but not
        // never.
        let plan = self.lock_forest().plan_retire(cell);
        if let Some(plan) = plan {
            let groups = self.lock_forest().commit_retire(plan);
            groups.into_iter().for_each(|group| self.release_if_idle(group));
        }
        self.state.keep(Records::Cells, number, None)?;
        self.forget_fold(cell);
        Ok(())
    }

    /// Watches every leaf, puts every value in force again, and removes directories that belong to nothing.
    fn recover_directories(&self) -> Result<(), OpenError> {
        let (leaves, wanted, steps) = {
            let forest = self.lock_forest();
            let leaves: Vec<_> = forest.cells().filter_map(|(id, _)| Some((id, forest.leaf(id)?))).collect();
            let mut wanted: HashSet<Dir> = HashSet::new();
            let mut steps = Vec::new();
            for (id, leaf) in &leaves {
                for depth in 0..leaf.groups().len() {
                    let groups = &leaf.groups()[..=depth];
                    let path = groups.iter().fold(Dir::REALM, |path, group| path.group(*group));
                    if wanted.insert(path) {
                        let spine = forest.spine(groups[depth]);
                        steps.extend(carry::steps_for_spine(&forest, groups[depth], &spine, Extent::All));
                    }
                }
                wanted.insert(leaf.clone());
                steps.extend(carry::steps_for_leaf(&forest, *id, Extent::All));
            }
            (leaves, wanted, steps)
        };
        let there: HashSet<Dir> = self.tree.dirs().into_iter().collect();
        for dir in self.tree.dirs().into_iter().filter(|dir| !wanted.contains(dir)) {
            if let Err(error) = self.tree.carry_out(&[Step::Remove(dir.clone())]) {
                tracing::warn!("{dir} belongs to no cell and stays: {error}");
            }
        }
        for (cell, leaf) in leaves.iter().filter(|(_, leaf)| there.contains(leaf)) {
            self.watch.add(leaf, *cell)?;
        }
        // Who may not attach programs leaves those that are there: they go on being asked. A setting whose file the kernel
        // below has not got was never in force.
        let programs = inspect::programs().is_ok();
        let may = |step: &Step| match step {
            Step::Program { .. } => programs,
            Step::Write { file, .. } | Step::Entry { file, .. } => self.facts.v2_files.contains(*file),
            Step::Make(_) | Step::Move { .. } | Step::Remove(_) => true,
        };
        let is_there = |step: &Step| step.dir().is_some_and(|dir| there.contains(dir));
        let in_force = steps.into_iter().filter(|step| may(step) && is_there(step));
        Ok(self.tree.carry_out(&in_force.collect::<Vec<_>>())?)
    }
}

/// All that a state directory keeps, read before anything is put back: numbers that nothing kept must not be given out.
struct Kept {
    hierarchies: Vec<(String, KeptTree)>,
    cells: Vec<(u32, String)>,
    folds: Vec<(u32, String)>,
}

/// A group's directory and those below it.
struct KeptTree {
    at: GroupPath,
    kept: KeptDir,
    record: GroupRecord,
    children: Vec<(Name, KeptTree)>,
}

impl Kept {
    fn read(state: &State) -> Result<Self, OpenError> {
        let mut hierarchies = Vec::new();
        for label in state.hierarchies()? {
            let root = KeptTree::read(state, GroupPath::root(&label))?;
            hierarchies.push((label, root));
        }
        Ok(Self { hierarchies, cells: state.records(Records::Cells)?, folds: state.records(Records::Folds)? })
    }

    fn last_group(&self) -> u32 {
        let mut last = 0;
        let mut stack: Vec<&KeptTree> = self.hierarchies.iter().map(|(_, root)| root).collect();
        while let Some(tree) = stack.pop() {
            last = last.max(tree.record.id.map_or(0, GroupId::get));
            stack.extend(tree.children.iter().map(|(_, child)| child));
        }
        let cells = self.cells.iter().filter_map(|(_, text)| record::parse_cell(text).ok());
        let of_cells = cells.flat_map(|(_, groups)| groups).map(GroupId::get);
        let folds = self.folds.iter().filter_map(|(_, text)| record::parse_fold(text).ok());
        let of_folds = folds.flat_map(|fold| fold.values).map(|(group, _)| group.get());
        of_cells.chain(of_folds).fold(last, u32::max)
    }

    fn last_cell(&self) -> u32 {
        self.cells.iter().chain(&self.folds).map(|(number, _)| *number).max().unwrap_or(0)
    }
}

impl KeptTree {
    /// Reads a tree without recursion: a tenant decides how deep it is. A group that cannot be read (its path has become
    /// too long) is left out with all below it; it must not keep the others from coming back.
    fn read(state: &State, at: GroupPath) -> Result<Self, OpenError> {
        let mut done: Vec<(Option<usize>, Name, KeptTree)> = Vec::new();
        let (mut root, names) = Self::read_one(state, at)?;
        let mut waiting: Vec<(Option<usize>, GroupPath, Name)> =
            names.into_iter().map(|name| (None, root.at.child(&name), name)).collect();
        while let Some((parent, at, name)) = waiting.pop() {
            let (tree, names) = match Self::read_one(state, at) {
                Ok(read) => read,
                Err(error) => {
                    tracing::error!("a group cannot be brought back: {error}");
                    continue;
                }
            };
            waiting.extend(names.into_iter().map(|name| (Some(done.len()), tree.at.child(&name), name)));
            done.push((parent, name, tree));
        }
        // Children come after their parents: from the end, each is complete when it is handed up.
        while let Some((parent, name, tree)) = done.pop() {
            let above = match parent {
                Some(parent) => &mut done[parent].2,
                None => &mut root,
            };
            above.children.push((name, tree));
        }
        Ok(root)
    }

    fn read_one(state: &State, at: GroupPath) -> Result<(Self, Vec<Name>), StateError> {
        let mut kept = state.read_group(&at)?;
        let (record, bad) = record::parse_group(&kept.settings);
        for line in bad {
            tracing::warn!("{}: {line}", state.path().join(at.as_path()).display());
        }
        let names = std::mem::take(&mut kept.children);
        Ok((Self { at, kept, record, children: Vec::new() }, names))
    }
}

fn effect(error: crate::EffectError) -> OpenError {
    OpenError::Effect(error)
}

fn kept_group(kept: &KeptDir, record: &GroupRecord) -> KeptGroup {
    KeptGroup {
        id: record.id,
        ownership: kept.ownership,
        settings: record.settings.clone(),
        changed: kept.changed,
    }
}

fn restore_extras(forest: &mut Forest, group: GroupId, record: &GroupRecord) {
    let Some(found) = forest.group_mut(group) else { return };
    if let Some(owner) = record.files_owner {
        found.set_files_owner(owner);
    }
    found.set_xattrs(record.xattrs.clone());
    for (file, attributes) in &record.files {
        found.set_file_attributes(file.get(), attributes.clone());
    }
}

/// What a hierarchy was made from, out of its label. `None` for a label of another kind.
fn request_of(label: &str, record: &GroupRecord) -> Option<MountRequest> {
    let mut request =
        MountRequest { controllers: ControllerSet::EMPTY, none: false, name: None, flags: record.flags };
    for word in label.split(',') {
        match word.strip_prefix("name=") {
            Some(name) => request.name = Some(HierarchyName::new(name).ok()?),
            None => request.controllers = request.controllers.with(pinfold_files::controller_named(word)?),
        }
    }
    request.none = request.controllers.is_empty();
    Some(request)
}

/// The v2 controllers that any v1 controller could use.
fn wanted() -> Vec<&'static str> {
    let needs = pinfold_files::controllers().iter().map(|id| pinfold_files::controller(id).needs);
    needs
        .filter_map(|needs| match needs {
            Needs::Controller(name) => Some(name),
            Needs::Tree | Needs::Program => None,
        })
        .collect()
}

/// The v1 controllers that can be mounted on this tree.
fn enabled(tree: &Tree) -> ControllerSet {
    let programs = inspect::programs().is_ok();
    let usable = |needs| match needs {
        Needs::Tree => true,
        Needs::Program => programs,
        Needs::Controller(name) => tree.available().contains(name),
    };
    pinfold_files::controllers().iter().filter(|id| usable(pinfold_files::controller(*id).needs)).collect()
}

/// The controllers whose limits the kernel enforces along the v2 tree.
pub(crate) fn limiting() -> ControllerSet {
    let limits = |id: &pinfold_model::ControllerId| {
        let settings = pinfold_files::controller(*id).files.iter().filter_map(|file| file.setting);
        settings.into_iter().any(|setting| matches!(setting.carry, Carry::Limit(_) | Carry::Entries(_)))
    };
    pinfold_files::controllers().iter().filter(limits).collect()
}
