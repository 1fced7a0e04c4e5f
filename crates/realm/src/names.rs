//! Names and paths: from what users see to groups and rows, and back.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use pinfold_model::{Forest, GroupGone, GroupId, HierarchyId};

use crate::realm::{Surroundings, surroundings};
use crate::{LookupError, Node, Realm};

impl Realm {
    /// What `name` is in a group: a control file or a child group.
    pub fn lookup(&self, parent: GroupId, name: &OsStr) -> Result<Node, LookupError> {
        lookup_in(&self.lock_forest(), parent, name)
    }

    /// Everything in a group: control files in the kernel's order, then child groups by name.
    pub fn list(&self, group: GroupId) -> Result<Vec<(OsString, Node)>, LookupError> {
        let forest = self.lock_forest();
        let around = surroundings(&forest, group).ok_or(GroupGone(group))?;
        let files = pinfold_files::list(around.bound, around.is_root);
        let files = files.map(|id| {
            (pinfold_files::full_name(id, around.noprefix).into_owned().into(), Node::File(group, id))
        });
        let found = forest.group(group).ok_or(GroupGone(group))?;
        let groups = found.children().map(|(name, id)| (name.as_os_str().to_owned(), Node::Group(id)));
        Ok(files.chain(groups).collect())
    }

    /// The root group of a hierarchy.
    pub fn root(&self, hierarchy: HierarchyId) -> Option<GroupId> {
        self.lock_forest().hierarchy(hierarchy).map(|found| found.root())
    }

    /// The group at a path of a hierarchy. Empty components and a leading slash do not count; `..` is no name.
    pub fn resolve(&self, hierarchy: HierarchyId, path: &OsStr) -> Result<GroupId, LookupError> {
        let forest = self.lock_forest();
        let not_found = || LookupError::NotFound(path.to_owned());
        let root = forest.hierarchy(hierarchy).ok_or_else(not_found)?.root();
        let names = path.as_bytes().split(|byte| *byte == b'/').filter(|name| !name.is_empty());
        let found = names.into_iter().try_fold(root, |at, name| forest.group(at)?.child(name));
        found.ok_or_else(not_found)
    }

    /// The path of a group from its hierarchy's root; `/` for the root itself. `None` if the group is gone.
    pub fn path(&self, group: GroupId) -> Option<OsString> {
        path_of(&self.lock_forest(), group)
    }
}

/// The path of a group as `/proc/PID/cgroup` shows it.
pub(crate) fn path_of(forest: &Forest, group: GroupId) -> Option<OsString> {
    let names = forest.path(group)?;
    if names.is_empty() {
        return Some("/".into());
    }
    let mut path = Vec::new();
    for name in names {
        path.push(b'/');
        path.extend_from_slice(name.as_os_str().as_bytes());
    }
    Some(OsString::from_vec(path))
}

/// What `name` is in a group.
pub(crate) fn lookup_in(forest: &Forest, parent: GroupId, name: &OsStr) -> Result<Node, LookupError> {
    let found = forest.group(parent).ok_or(GroupGone(parent))?;
    if let Some(child) = found.child(name.as_bytes()) {
        return Ok(Node::Group(child));
    }
    let Surroundings { bound, noprefix, is_root, .. } =
        surroundings(forest, parent).ok_or(GroupGone(parent))?;
    match pinfold_files::lookup(bound, noprefix, is_root, name) {
        Some(file) => Ok(Node::File(parent, file)),
        None => Err(LookupError::NotFound(name.to_owned())),
    }
}
