//! Opening a realm: the v2 tree, the state directory, and everything as it was (I8).

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, mpsc};

use pinfold_files::{Carry, Needs};
use pinfold_kernel::pids::Neighbours;
use pinfold_kernel::{Step, Tree};
use pinfold_model::{
    CellId, ControllerSet, Dir, Forest, GroupId, HierarchyName, KeptGroup, MountRequest, RestoreError,
};

use crate::carry;
use crate::facts::facts;
use crate::notice::Watchers;
use crate::realm::Changes;
use crate::record;
use crate::state::{GroupPath, KeptDir, Records, State};
use crate::{OpenError, Realm};

/// What a realm is opened with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Its name: one component of a path.
    pub name: String,
    /// Its state directory.
    pub state: PathBuf,
    /// The v2 directory below which it works; `None`: the top of the v2 tree, and every process is in its scope.
    pub base: Option<PathBuf>,
}

impl Realm {
    /// Opens a realm, new or as a daemon that was killed has left it. Nobody else can open it meanwhile.
    pub fn open(config: Config) -> Result<Arc<Self>, OpenError> {
        let state = State::open(&config.state).map_err(|error| match error.is_locked() {
            true => OpenError::InUse { name: config.name.clone(), lock: config.state.join("lock") },
            false => error.into(),
        })?;
        let tree = Tree::open(&Tree::discover()?, config.base.as_deref(), &config.name, &wanted())?;
        let enabled = enabled(&tree);
        let forest = Mutex::new(Forest::new(limiting().intersection(enabled)));
        let (releases, agents) = mpsc::channel();
        let realm = Self {
            watch: tree.watch()?,
            config,
            state,
            tree,
            facts: facts(),
            enabled,
            change: Mutex::default(),
            forest,
            lacking: Mutex::default(),
            neighbours: Neighbours::default(),
            watchers: Watchers::default(),
            releases,
            agents: Mutex::new(Some(agents)),
        };
        realm.recover()?;
        Ok(Arc::new(realm))
    }

    /// Brings back what the state directory keeps, in the order in which one thing refers to another.
    fn recover(&self) -> Result<(), OpenError> {
        let mut change = self.lock_change();
        let cells = self.state.records(Records::Cells)?;
        let last_cell = cells.iter().map(|(number, _)| *number).max().unwrap_or(0);
        self.lock_forest().reserve_numbers(0, 0, last_cell);
        for label in self.state.hierarchies()? {
            self.recover_hierarchy(&mut change, &label)?;
        }
        for (number, text) in cells {
            self.recover_cell(number, &text)?;
        }
        for (number, text) in self.state.records(Records::Folds)? {
            self.recover_fold(number, &text)?;
        }
        self.recover_directories()?;
        drop(change);
        self.look_at_every_cell();
        Ok(())
    }

    fn recover_hierarchy(&self, change: &mut Changes, label: &str) -> Result<(), OpenError> {
        let path = GroupPath::root(label);
        let kept = self.state.read_group(&path)?;
        let (record, bad) = record::parse_group(&kept.settings);
        for line in bad {
            tracing::warn!("settings of hierarchy {label}: {line}");
        }
        let Some((id, request)) = record.hierarchy.zip(request_of(label, &record)) else {
            tracing::warn!("hierarchy {label} is not understood and left alone");
            return Ok(());
        };
        let missing = request.controllers.difference(self.enabled);
        for controller in missing.iter().map(pinfold_files::controller) {
            tracing::warn!("hierarchy {label}: the kernel below no longer offers {}", controller.name);
        }
        let contradiction = |source| OpenError::Contradiction { at: self.state.path().join(label), source };
        let root = {
            let mut forest = self.lock_forest();
            let root =
                forest.restore_hierarchy(id, request, kept_group(&kept, &record)).map_err(contradiction)?;
            restore_extras(&mut forest, root, &record);
            root
        };
        let mut stack = vec![(root, path, kept.children)];
        while let Some((parent, path, children)) = stack.pop() {
            for name in children {
                let below = path.child(&name);
                let kept = self.state.read_group(&below)?;
                let (record, bad) = record::parse_group(&kept.settings);
                for line in bad {
                    tracing::warn!("settings of group {name} of hierarchy {label}: {line}");
                }
                let mut forest = self.lock_forest();
                let id =
                    forest.restore_group(parent, name, kept_group(&kept, &record)).map_err(contradiction)?;
                restore_extras(&mut forest, id, &record);
                if record.id.is_some() {
                    change.numbered.insert(id);
                }
                stack.push((id, below, kept.children));
            }
        }
        Ok(())
    }

    fn recover_cell(&self, number: u32, text: &str) -> Result<(), OpenError> {
        let restored = match (CellId::new(number), record::parse_cell(text)) {
            (Some(id), Ok((origin, groups))) => self.lock_forest().restore_cell(id, &groups, &origin),
            (_, Err(line)) => {
                tracing::warn!("record of cell {number}: {line}");
                return Ok(());
            }
            (None, _) => return Ok(()),
        };
        match restored {
            Ok(()) => Ok(()),
            // The groups of a cell outlive it, unless the daemon was killed between the cell's last step and its
            // record's: then the record is all that is left.
            Err(RestoreError::NoGroup(_)) => Ok(self.state.keep(Records::Cells, number, None)?),
            Err(source) => Err(OpenError::Contradiction {
                at: self.state.path().join(format!("cells/{number}")),
                source,
            }),
        }
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
        // The cell itself goes with its directory: it counts nothing any more.
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
                        steps.extend(carry::steps_for_spine(&forest, groups[depth], &spine));
                    }
                }
                wanted.insert(leaf.clone());
                steps.extend(carry::steps_for_leaf(&forest, *id));
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
        let in_force =
            steps.into_iter().filter(|step| matches!(step, Step::Write { dir, .. } if there.contains(dir)));
        Ok(self.tree.carry_out(&in_force.collect::<Vec<_>>())?)
    }
}

fn effect(error: crate::EffectError) -> OpenError {
    OpenError::Effect(error)
}

fn kept_group(kept: &KeptDir, record: &record::GroupRecord) -> KeptGroup {
    KeptGroup {
        id: record.id,
        ownership: kept.ownership,
        settings: record.settings.clone(),
        changed: kept.changed,
    }
}

fn restore_extras(forest: &mut Forest, group: GroupId, record: &record::GroupRecord) {
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
fn request_of(label: &str, record: &record::GroupRecord) -> Option<MountRequest> {
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
            Needs::Tree => None,
        })
        .collect()
}

/// The v1 controllers that can be mounted on this tree.
fn enabled(tree: &Tree) -> ControllerSet {
    let usable = |needs| match needs {
        Needs::Tree => true,
        Needs::Controller(name) => tree.available().contains(name),
    };
    pinfold_files::controllers().iter().filter(|id| usable(pinfold_files::controller(*id).needs)).collect()
}

/// The controllers whose limits the kernel enforces along the v2 tree.
fn limiting() -> ControllerSet {
    let limits = |id: &pinfold_model::ControllerId| {
        let settings = pinfold_files::controller(*id).files.iter().filter_map(|file| file.setting);
        settings.into_iter().any(|setting| matches!(setting.carry, Carry::Limit(_)))
    };
    pinfold_files::controllers().iter().filter(limits).collect()
}
