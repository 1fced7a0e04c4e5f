//! Names and paths: from what users see to groups and rows, and back.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use pinfold_files::Facts;
use pinfold_model::{Forest, GroupGone, GroupId, HierarchyId};

use crate::realm::{Surroundings, surroundings};
use crate::{LookupError, Node, Realm};

impl Realm {
    /// What `name` is in a group: a control file or a child group.
    pub fn lookup(&self, parent: GroupId, name: &OsStr) -> Result<Node, LookupError> {
        lookup_in(&self.lock_forest(), &self.facts, parent, name)
    }

    /// Everything in a group: control files in the kernel's order, then child groups by name.
    pub fn list(&self, group: GroupId) -> Result<Vec<(OsString, Node)>, LookupError> {
        let forest = self.lock_forest();
        let around = surroundings(&forest, group).ok_or(GroupGone(group))?;
        let files = pinfold_files::list(around.bound, around.is_root, &self.facts);
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

    /// The group at a path below another; that itself for an empty path.
    pub fn resolve_below(&self, from: GroupId, path: &OsStr) -> Result<GroupId, LookupError> {
        let forest = self.lock_forest();
        let mut names = path.as_bytes().split(|byte| *byte == b'/').filter(|name| !name.is_empty());
        let found = names.try_fold(from, |at, name| forest.group(at)?.child(name));
        found.filter(|id| forest.group(*id).is_some()).ok_or_else(|| LookupError::NotFound(path.to_owned()))
    }

    /// A group that has none in it: this one, or one below. `None` if it has gone.
    pub fn innermost(&self, group: GroupId) -> Option<GroupId> {
        let forest = self.lock_forest();
        let mut at = forest.group(group).map(|_| group)?;
        while let Some(child) = forest.children(at).next() {
            at = child;
        }
        Some(at)
    }

    /// A group and those below it, parents before children. None if it has gone.
    pub fn subtree(&self, group: GroupId) -> Vec<GroupId> {
        let forest = self.lock_forest();
        forest.group(group).map(|_| forest.subtree(group).collect()).unwrap_or_default()
    }

    /// A group's parent, and its name there; `None` for a root, and if it has gone.
    pub fn place(&self, group: GroupId) -> Option<(GroupId, OsString)> {
        let forest = self.lock_forest();
        let found = forest.group(group)?;
        found.parent().zip(found.name().map(|name| name.as_os_str().to_owned()))
    }

    /// A group's parent, and its name there. EBUSY for a root, which goes with its hierarchy.
    pub(crate) fn parent_and_name(&self, group: GroupId) -> Result<(GroupId, OsString), crate::RemoveError> {
        let forest = self.lock_forest();
        let found = forest.group(group).ok_or(GroupGone(group)).map_err(LookupError::from)?;
        let named = found.parent().zip(found.name().map(|name| name.as_os_str().to_owned()));
        Ok(named.ok_or(pinfold_model::RemoveError::Root)?)
    }

    /// A group's directory, and those of its files that its owner needs in order to divide it.
    pub(crate) fn given_with(&self, group: GroupId) -> Result<Vec<Node>, LookupError> {
        let nodes = self.list(group)?.into_iter().map(|(_, node)| node);
        let attaches = |node: &Node| match node {
            Node::File(_, file) => {
                matches!(pinfold_files::file(*file).1.write, pinfold_files::Write::Attach(_))
            }
            Node::Group(_) => false,
        };
        Ok(std::iter::once(Node::Group(group)).chain(nodes.filter(attaches)).collect())
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

/// The path of a group from another one: `.` for that itself, `a/b` below it, nothing else.
pub(crate) fn path_between(forest: &Forest, from: GroupId, to: GroupId) -> Option<OsString> {
    if from == to {
        return Some(".".into());
    }
    let steps = 1 + forest.ancestors(to).position(|above| above == from)?;
    let names = forest.path(to)?;
    let below = names[names.len() - steps..].iter().map(|name| name.as_os_str().as_bytes());
    Some(OsString::from_vec(below.collect::<Vec<_>>().join(&b'/')))
}

/// What `name` is in a group.
pub(crate) fn lookup_in(
    forest: &Forest,
    facts: &Facts,
    parent: GroupId,
    name: &OsStr,
) -> Result<Node, LookupError> {
    let found = forest.group(parent).ok_or(GroupGone(parent))?;
    if let Some(child) = found.child(name.as_bytes()) {
        return Ok(Node::Group(child));
    }
    let Surroundings { bound, noprefix, is_root, .. } =
        surroundings(forest, parent).ok_or(GroupGone(parent))?;
    match pinfold_files::lookup(bound, noprefix, is_root, facts, name) {
        Some(file) => Ok(Node::File(parent, file)),
        None => Err(LookupError::NotFound(name.to_owned())),
    }
}
