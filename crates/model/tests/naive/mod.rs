//! The same rules, told in the plainest way: paths in sets, processes with a path in each hierarchy, and a scan for
//! every question. Slow, and easy to see through.

use std::collections::{BTreeMap, BTreeSet};

use pinfold_model::{ControllerSet, Errno};

/// Names from the root down.
pub(crate) type Path = Vec<&'static str>;

#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Tree {
    pub(crate) controllers: ControllerSet,
    pub(crate) name: Option<&'static str>,
    pub(crate) mounts: u32,
    /// Every group but the root.
    pub(crate) groups: BTreeSet<Path>,
}

/// Hierarchies by the order of their making, and for each process its group where that is not the root.
#[derive(Clone, Default, PartialEq, Debug)]
pub(crate) struct Naive {
    pub(crate) trees: BTreeMap<usize, Tree>,
    pub(crate) made: usize,
    pub(crate) processes: BTreeMap<u32, BTreeMap<usize, Path>>,
}

pub(crate) type Outcome = Result<(), Errno>;

impl Naive {
    pub(crate) fn mount(
        &mut self,
        controllers: ControllerSet,
        none: bool,
        name: Option<&'static str>,
    ) -> Outcome {
        let asks_for_a_set = none || !controllers.is_empty();
        for tree in self.trees.values_mut() {
            if name.is_some() && tree.name != name {
                continue;
            }
            if asks_for_a_set && tree.controllers != controllers {
                if name.is_some() {
                    return Err(Errno::EBUSY);
                }
                continue;
            }
            tree.mounts += 1;
            return Ok(());
        }
        if !asks_for_a_set {
            return Err(Errno::EINVAL);
        }
        if self.trees.values().any(|tree| !tree.controllers.intersection(controllers).is_empty()) {
            return Err(Errno::EBUSY);
        }
        self.trees.insert(self.made, Tree { controllers, name, mounts: 1, groups: BTreeSet::new() });
        self.made += 1;
        Ok(())
    }

    pub(crate) fn unmount(&mut self, tree: usize) {
        let found = self.trees.get_mut(&tree).expect("the test picks one that is there");
        found.mounts = found.mounts.saturating_sub(1);
        if found.mounts == 0 && found.groups.is_empty() {
            self.trees.remove(&tree);
        }
    }

    pub(crate) fn remount(&mut self, tree: usize, controllers: ControllerSet) -> Outcome {
        if !self.trees[&tree].groups.is_empty() {
            return Err(Errno::EBUSY);
        }
        let mut others = self.trees.iter().filter(|(id, _)| **id != tree);
        if others.any(|(_, other)| !other.controllers.intersection(controllers).is_empty()) {
            return Err(Errno::EBUSY);
        }
        self.trees.get_mut(&tree).expect("picked").controllers = controllers;
        Ok(())
    }

    pub(crate) fn make(&mut self, tree: usize, parent: &Path, name: &'static str) -> Outcome {
        let mut path = parent.clone();
        path.push(name);
        let fresh = self.trees.get_mut(&tree).expect("picked").groups.insert(path);
        fresh.then_some(()).ok_or(Errno::EEXIST)
    }

    pub(crate) fn remove(&mut self, tree: usize, path: &Path) -> Outcome {
        let is_above = |other: &Path| other.len() > path.len() && other.starts_with(path);
        let busy = path.is_empty()
            || self.trees[&tree].groups.iter().any(is_above)
            || self.processes.values().any(|groups| groups.get(&tree) == Some(path));
        if busy {
            return Err(Errno::EBUSY);
        }
        self.trees.get_mut(&tree).expect("picked").groups.remove(path);
        Ok(())
    }

    pub(crate) fn rename(&mut self, tree: usize, path: &Path, name: &'static str) -> Outcome {
        if path.is_empty() {
            return Err(Errno::EBUSY);
        }
        let mut new = path.clone();
        *new.last_mut().expect("not the root") = name;
        if self.trees[&tree].groups.contains(&new) {
            return Err(Errno::EEXIST);
        }
        let renamed = |old: &Path| match old.starts_with(path) {
            true => new.iter().chain(&old[path.len()..]).copied().collect(),
            false => old.clone(),
        };
        let found = self.trees.get_mut(&tree).expect("picked");
        found.groups = found.groups.iter().map(renamed).collect();
        for groups in self.processes.values_mut() {
            if let Some(group) = groups.get_mut(&tree) {
                *group = renamed(group);
            }
        }
        Ok(())
    }

    pub(crate) fn attach(&mut self, process: u32, tree: usize, path: &Path) {
        let groups = self.processes.entry(process).or_default();
        match path.is_empty() {
            true => groups.remove(&tree),
            false => groups.insert(tree, path.clone()),
        };
    }

    pub(crate) fn fork(&mut self, parent: u32, child: u32) {
        let groups = self.processes.get(&parent).cloned().unwrap_or_default();
        self.processes.insert(child, groups);
    }

    pub(crate) fn exit(&mut self, process: u32) {
        self.processes.remove(&process);
    }
}
