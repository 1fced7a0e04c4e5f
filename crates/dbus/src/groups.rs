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
        let parent = parent(realm, &selected, name)?;
        let refuge = Selected { label: selected.label.clone(), path: parent.1, group: parent.0 };
        remove_tree(realm, caller, &refuge, refuge.group, &selected, &last_step(name))?;
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

/// Empties and removes a group, its children first.
fn remove_tree(
    realm: &Realm,
    caller: &Caller,
    refuge: &Selected,
    parent: GroupId,
    selected: &Selected,
    last: &OsStr,
) -> Result<(), Refusal> {
    for (name, child) in children(realm, selected)? {
        remove_tree(realm, caller, refuge, selected.group, &child, &name)?;
    }
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

/// The child groups of a group, with their names. A name that is not UTF-8 cannot be said over D-Bus: it is shown with
/// replacement characters, and reached through the file system only.
fn children(realm: &Realm, selected: &Selected) -> Result<Vec<(OsString, Selected)>, Refusal> {
    let entries = realm.list(selected.group).map_err(|error| no_group(&selected.name(), &error))?;
    let base = selected.path.trim_end_matches('/');
    let child = |(name, node): (OsString, Node)| match node {
        Node::File(..) => None,
        Node::Group(group) => {
            let path = format!("{base}/{}", name.to_string_lossy());
            Some((name, Selected { label: selected.label.clone(), path, group }))
        }
    };
    Ok(entries.into_iter().filter_map(child).collect())
}

/// Every group below a group, parents first.
pub(crate) fn below(realm: &Realm, top: &Selected) -> Result<Vec<Selected>, Refusal> {
    let mut found = Vec::new();
    for (_, child) in children(realm, top)? {
        let deeper = match below(realm, &child) {
            // It went meanwhile.
            Err(refusal) if refusal.errno() == "ENODEV" => continue,
            deeper => deeper?,
        };
        found.push(child);
        found.extend(deeper);
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
    for top in tops {
        let found = if recursive {
            below(realm, top)?
        } else {
            children(realm, top)?.into_iter().map(|(_, child)| child).collect()
        };
        for child in found {
            match realm.attributes(Node::Group(child.group)) {
                Ok(attributes) => listed.push(describe(child, &attributes)),
                Err(LookupError::Gone(_)) => {}
                Err(error) => return Err(no_group(&child.name(), &error)),
            }
        }
    }
    Ok(listed)
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
