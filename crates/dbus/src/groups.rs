//! Making, listing and removing groups by name.

use std::ffi::{OsStr, OsString};

use pinfold_model::{Errno, Gid, GroupId, Uid};
use pinfold_realm::{AttributeChange, Attributes, Caller, HierarchyInfo, LookupError, Node, Realm};

use crate::error::{Refusal, chain};
use crate::group_name::{GroupName, GroupPath, Hierarchies};
use crate::select::{self, Selected, full_name, no_group};
use crate::values;
use crate::wire::{Child, Key};

/// The mode of a new group's directory, as of one that mkdir(1) makes.
const MODE: u16 = 0o755;
/// How many bytes of paths one answer lists: half of what a D-Bus message may have.
const MOST_LISTED: usize = 64 << 20;
/// How often a group is emptied again because its processes forked meanwhile.
const EMPTYING_ROUNDS: usize = 100;

/// Makes a group in every hierarchy meant, or in none. Gives the names of the groups made.
pub(crate) fn create(realm: &Realm, caller: &Caller, name: &GroupName) -> Result<Vec<String>, Refusal> {
    let Some((above, last)) = name.path.split_last() else {
        return Err(Refusal::new(Errno::EEXIST, "the root group is there already"));
    };
    let every = name.hierarchies == Hierarchies::Every;
    let mut made: Vec<(GroupId, String)> = Vec::new();
    for hierarchy in select::hierarchies(realm, &name.hierarchies)? {
        let full = full_name(&hierarchy.label, &name.path);
        match create_one(realm, caller, &hierarchy, &above, last) {
            Ok(parent) => made.push((parent, full)),
            // The group is there already; a control file of that name would be another matter.
            Err(_) if every && select::resolve(realm, &hierarchy, &name.path).is_ok() => {}
            Err(refusal) => {
                for (parent, full) in made.iter().rev() {
                    if let Err(error) = realm.remove(caller, *parent, OsStr::new(last)) {
                        tracing::warn!("{full} stays, though it was not wanted alone: {}", chain(&error));
                    }
                }
                return Err(refusal);
            }
        }
    }
    if made.is_empty() {
        return Err(Refusal::new(
            Errno::EEXIST,
            format!("every hierarchy has a group {} already", name.path),
        ));
    }
    Ok(made.into_iter().map(|(_, full)| full).collect())
}

/// Makes a group in one hierarchy. Gives its parent.
fn create_one(
    realm: &Realm,
    caller: &Caller,
    hierarchy: &HierarchyInfo,
    above: &GroupPath,
    last: &str,
) -> Result<GroupId, Refusal> {
    let parent = select::resolve(realm, hierarchy, above)
        .map_err(|error| no_group(&full_name(&hierarchy.label, above), &error))?;
    realm.make(caller, parent, OsStr::new(last), MODE).map_err(|error| {
        Refusal::new(
            error.errno(),
            format!("{}: {}", full_name(&hierarchy.label, above.below(last)), chain(&error)),
        )
    })?;
    Ok(parent)
}

/// Removes groups that have neither processes nor children.
pub(crate) fn delete(realm: &Realm, caller: &Caller, name: &GroupName) -> Result<(), Refusal> {
    for selected in select::groups(realm, name)? {
        let parent = parent(realm, &selected, name)?;
        remove(realm, caller, parent.0, &selected, &last_step(name))?;
    }
    Ok(())
}

/// Removes groups and all below them; processes go to the group above.
pub(crate) fn delete_force(realm: &Realm, caller: &Caller, name: &GroupName) -> Result<(), Refusal> {
    for selected in select::groups(realm, name)? {
        let (group, path) = parent(realm, &selected, name)?;
        let refuge = Selected { label: selected.label.clone(), path, group };
        // Children before their parents.
        for found in below(realm, &selected)?.into_iter().rev() {
            empty_and_remove(
                realm,
                caller,
                &refuge,
                found.parent,
                &found.selected(realm, &selected),
                &found.name,
            )?;
        }
        empty_and_remove(realm, caller, &refuge, group, &selected, &last_step(name))?;
    }
    Ok(())
}

fn last_step(name: &GroupName) -> OsString {
    name.path.steps().last().cloned().unwrap_or_default().into()
}

/// The group above and its path; a refusal for a root group.
fn parent(realm: &Realm, selected: &Selected, name: &GroupName) -> Result<(GroupId, String), Refusal> {
    let root = || {
        Refusal::new(Errno::EBUSY, format!("{} is a root group: it goes with its hierarchy", selected.name()))
    };
    let (above, _) = name.path.split_last().ok_or_else(root)?;
    let hierarchies = realm.hierarchies();
    let hierarchy =
        hierarchies.iter().find(|hierarchy| hierarchy.label == selected.label).ok_or_else(root)?;
    let group =
        select::resolve(realm, hierarchy, &above).map_err(|error| no_group(&selected.name(), &error))?;
    Ok((group, above.to_string()))
}

fn remove(
    realm: &Realm,
    caller: &Caller,
    parent: GroupId,
    selected: &Selected,
    last: &OsStr,
) -> Result<(), Refusal> {
    realm
        .remove(caller, parent, last)
        .map_err(|error| Refusal::new(error.errno(), format!("{}: {}", selected.name(), chain(&error))))
}

/// Empties and removes a group without children.
fn empty_and_remove(
    realm: &Realm,
    caller: &Caller,
    refuge: &Selected,
    parent: GroupId,
    selected: &Selected,
    last: &OsStr,
) -> Result<(), Refusal> {
    let mut rounds = 0;
    loop {
        for line in values::read(realm, caller, selected, "cgroup.procs")?.unwrap_or_default().lines() {
            match values::write(realm, caller, refuge, "cgroup.procs", line) {
                Err(refusal) if refusal.errno() != "ESRCH" => return Err(refusal),
                _ => {}
            }
        }
        rounds += 1;
        match remove(realm, caller, parent, selected, last) {
            Err(refusal) if refusal.errno() == "EBUSY" && rounds < EMPTYING_ROUNDS => {}
            result => return result,
        }
    }
}

/// A group below another, found on a walk.
#[derive(Debug)]
pub(crate) struct Found {
    parent: GroupId,
    name: OsString,
    group: GroupId,
}

impl Found {
    /// The group with its path. A name that is not UTF-8 cannot be said over D-Bus: it is shown with replacement
    /// characters, and reached through the file system only.
    pub(crate) fn selected(&self, realm: &Realm, top: &Selected) -> Selected {
        let path = realm.path(self.group).unwrap_or_default().to_string_lossy().into_owned();
        Selected { label: top.label.clone(), path, group: self.group }
    }
}

/// The child groups of a group; none if it is gone.
fn children(realm: &Realm, parent: GroupId) -> Vec<Found> {
    let entries = realm.list(parent).unwrap_or_default().into_iter();
    let child = |(name, node)| match node {
        Node::File(..) => None,
        Node::Group(group) => Some(Found { parent, name, group }),
    };
    entries.filter_map(child).collect()
}

/// Every group below a group, parents first, depth first. Not by recursion: nobody bounds how deep groups are nested.
pub(crate) fn below(realm: &Realm, top: &Selected) -> Result<Vec<Found>, Refusal> {
    realm.attributes(Node::Group(top.group)).map_err(|error| no_group(&top.name(), &error))?;
    let mut found = Vec::new();
    let mut ahead = children(realm, top.group);
    ahead.reverse();
    while let Some(next) = ahead.pop() {
        ahead.extend(children(realm, next.group).into_iter().rev());
        found.push(next);
    }
    Ok(found)
}

/// The groups below these, with their owners.
pub(crate) fn list_children(
    realm: &Realm,
    tops: &[Selected],
    recursive: bool,
) -> Result<Vec<Child>, Refusal> {
    let mut listed = Vec::new();
    let mut room = MOST_LISTED;
    for top in tops {
        let found = if recursive { below(realm, top)? } else { children(realm, top.group) };
        for found in found {
            let child = found.selected(realm, top);
            room = room.checked_sub(child.path.len()).ok_or_else(|| too_many(top))?;
            match realm.attributes(Node::Group(child.group)) {
                Ok(attributes) => listed.push(describe(child, &attributes)),
                Err(LookupError::Gone(_)) => {}
                Err(error) => return Err(no_group(&child.name(), &error)),
            }
        }
    }
    Ok(listed)
}

fn too_many(top: &Selected) -> Refusal {
    let name = top.name();
    Refusal::new(
        Errno::E2BIG,
        format!("the groups below {name} do not fit in one answer: ask for a part of them"),
    )
}

fn describe(child: Selected, attributes: &Attributes) -> Child {
    let ownership = attributes.ownership;
    Child {
        hierarchy: child.label,
        path: child.path,
        uid: ownership.uid.0,
        gid: ownership.gid.0,
        mode: ownership.mode.into(),
    }
}

/// The control files of these groups.
pub(crate) fn list_keys(realm: &Realm, among: &[Selected]) -> Result<Vec<Key>, Refusal> {
    let mut keys = Vec::new();
    for selected in among {
        let gone = |error: LookupError| no_group(&selected.name(), &error);
        for (name, node) in realm.list(selected.group).map_err(gone)? {
            let Node::File(..) = node else { continue };
            let ownership = realm.attributes(node).map_err(gone)?.ownership;
            keys.push(Key {
                hierarchy: selected.label.clone(),
                name: name.to_string_lossy().into_owned(),
                uid: ownership.uid.0,
                gid: ownership.gid.0,
                mode: ownership.mode.into(),
            });
        }
    }
    Ok(keys)
}

/// Gives groups to a user: their directories and membership files, not their limits.
pub(crate) fn chown(
    realm: &Realm,
    caller: &Caller,
    among: &[Selected],
    uid: Option<Uid>,
    gid: Option<Gid>,
) -> Result<(), Refusal> {
    let change = AttributeChange { mode: None, uid, gid };
    for selected in among {
        let mut nodes = vec![Node::Group(selected.group)];
        for key in ["tasks", "cgroup.procs"] {
            nodes.extend(values::node(realm, selected, key)?);
        }
        for node in nodes {
            realm.set_attributes(caller, node, change).map_err(|error| {
                Refusal::new(error.errno(), format!("{}: {}", selected.name(), chain(&error)))
            })?;
        }
    }
    Ok(())
}
