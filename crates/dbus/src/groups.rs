//! Making, listing and removing groups by name.

use std::ffi::OsStr;

use pinfold_files::Ids;
use pinfold_files::keys::KEYS;
use pinfold_model::{Errno, GroupId};
use pinfold_realm::{Attributes, HierarchyInfo, LookupError, Node, Realm, RequestError, Requester, chain};

use crate::error::Refusal;
use crate::group_name::{GroupName, GroupPath, Hierarchies};
use crate::select::{self, Selected, full_name, no_group};
use crate::values;
use crate::wire::{Child, Key, NamedKey};

/// How many bytes of paths one call may be about: an eighth of what a D-Bus message may have.
const MOST_PATHS: usize = 16 << 20;
/// The same for others than the host's root, who may have 64 connections: a hundred bytes for each group that there may be
/// below one that was given away.
const MOST_PATHS_OF_OTHERS: usize = 2 << 20;
/// How often a group is emptied again because its processes forked meanwhile.
const EMPTYING_ROUNDS: usize = 100;

/// Makes a group in every hierarchy meant, or in none. Gives the groups made.
pub(crate) fn create(
    realm: &Realm,
    requester: &Requester,
    name: &GroupName,
) -> Result<Vec<Selected>, Refusal> {
    let Some((above, last)) = name.path.split_last() else {
        let which = if name.path.is_absolute() { "root group" } else { "caller's own group" };
        return Err(Refusal::new(Errno::EEXIST, format!("the {which} is there already")));
    };
    let every = name.hierarchies == Hierarchies::Every;
    let mut made: Vec<Selected> = Vec::new();
    for hierarchy in select::hierarchies(realm, &name.hierarchies)? {
        match create_one(realm, requester, &hierarchy, &above, last) {
            Ok(group) => made.push(group),
            // The group is there already; a control file of that name would be another matter.
            Err(_) if every && select::resolve(realm, requester, &hierarchy, &name.path).is_ok() => {}
            Err(refusal) => {
                take_back(realm, requester, &made);
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
    Ok(made)
}

/// Removes groups that were made and are not wanted alone.
pub(crate) fn take_back(realm: &Realm, requester: &Requester, made: &[Selected]) {
    for group in made.iter().rev() {
        if let Err(error) = realm.remove_for(requester, group.group) {
            tracing::warn!("{} stays, though it was not wanted alone: {}", group.name(), chain(&error));
        }
    }
}

fn create_one(
    realm: &Realm,
    requester: &Requester,
    hierarchy: &HierarchyInfo,
    above: &GroupPath,
    last: &str,
) -> Result<Selected, Refusal> {
    let parent = select::resolve(realm, requester, hierarchy, above)?;
    let made = realm.make_for(requester, parent.group, OsStr::new(last));
    let made = made.map_err(|error| {
        let name = full_name(&parent.label, above.below(last));
        Refusal::because(requester, error.errno(), name, &error)
    })?;
    Ok(parent.child(OsStr::new(last), made))
}

/// Removes groups that have neither processes nor children.
pub(crate) fn delete(realm: &Realm, requester: &Requester, name: &GroupName) -> Result<(), Refusal> {
    for selected in select::groups(realm, requester, name)? {
        remove(realm, requester, &selected)?;
    }
    Ok(())
}

/// Removes groups and all below them; processes go to the group above.
pub(crate) fn delete_force(realm: &Realm, requester: &Requester, name: &GroupName) -> Result<(), Refusal> {
    let (above, _) = name.path.split_last().ok_or_else(|| {
        let why = match name.path.is_absolute() {
            true => "is a root group: it goes with its hierarchy",
            false => "is the caller's own group: it is not removed from inside",
        };
        Refusal::new(Errno::EBUSY, format!("{name} {why}"))
    })?;
    for selected in select::groups(realm, requester, name)? {
        let above = GroupName { hierarchies: only(&selected.label), path: above.clone() };
        let mut refuge = select::groups(realm, requester, &above)?;
        let refuge = refuge.pop().ok_or_else(|| Refusal::new(Errno::ENOENT, "the group above is gone"))?;
        remove_all(realm, requester, &refuge, &selected)?;
    }
    Ok(())
}

/// Empties and removes a group and those below it, the innermost first. Each is found when it is its turn: that takes no memory, so
/// whoever fills a group with groups does not keep it from being removed.
fn remove_all(
    realm: &Realm,
    requester: &Requester,
    refuge: &Selected,
    top: &Selected,
) -> Result<(), Refusal> {
    // Who makes groups as fast as they go does not make this go on for ever.
    let below = all_in(realm, requester, top)?.len();
    for _ in 0..2 * below + EMPTYING_ROUNDS {
        let Some(group) = realm.innermost(top.group) else {
            return Err(Refusal::new(Errno::ENODEV, format!("{}: the group is gone", top.name())));
        };
        let found = named(realm, requester, top, group);
        match empty_and_remove(realm, requester, refuge, &found) {
            Ok(()) if group == top.group => return Ok(()),
            // Somebody made one in it, or was faster.
            Err(refusal) if refusal.errno() == "EBUSY" && !is_innermost(realm, group) => {}
            Err(refusal) if matches!(refusal.errno(), "ENODEV" | "ENOENT") && group != top.group => {}
            removed => removed?,
        }
    }
    let why = format!("{}: groups are made in it faster than they are removed", top.name());
    Err(Refusal::new(Errno::EBUSY, why))
}

/// A group and those below it, parents first, by their numbers alone: there may be so many with such names that naming them is
/// too much for one call.
pub(crate) fn all_in(realm: &Realm, requester: &Requester, top: &Selected) -> Result<Vec<GroupId>, Refusal> {
    match sees_below(realm, requester, top)? {
        true => Ok(realm.subtree(top.group)),
        false => Ok(vec![top.group]),
    }
}

/// A group that is in another, with its name.
pub(crate) fn named(realm: &Realm, requester: &Requester, top: &Selected, group: GroupId) -> Selected {
    let path = realm.path_for(requester, group).ok().flatten();
    let path = path.map_or_else(|| "..".to_owned(), |path| path.to_string_lossy().into_owned());
    Selected { label: top.label.clone(), path, group }
}

fn is_innermost(realm: &Realm, group: GroupId) -> bool {
    realm.innermost(group) == Some(group)
}

/// The hierarchy of this label alone.
fn only(label: &str) -> Hierarchies {
    Hierarchies::With(label.split(',').map(str::to_owned).collect())
}

/// Removes every group below that has neither processes nor children, and those that have none afterwards. Gives the
/// names of the groups that went; a refusal only if none did.
pub(crate) fn prune(
    realm: &Realm,
    requester: &Requester,
    among: &[Selected],
) -> Result<Vec<String>, Refusal> {
    let mut gone = Vec::new();
    let mut refused = None;
    for below in all_below(realm, requester, among)? {
        for found in below.into_iter().rev() {
            match remove(realm, requester, &found) {
                Ok(()) => gone.push(found.name()),
                Err(refusal) if matches!(refusal.errno(), "EBUSY" | "ENODEV" | "ENOENT") => {}
                Err(refusal) => refused = Some(refusal),
            }
        }
    }
    match refused {
        Some(refusal) if gone.is_empty() => Err(refusal),
        _ => Ok(gone),
    }
}

/// The groups below each of these, parents first: so many in all as one call may be about.
fn all_below(
    realm: &Realm,
    requester: &Requester,
    among: &[Selected],
) -> Result<Vec<Vec<Selected>>, Refusal> {
    let mut room = most_paths(requester);
    among.iter().map(|top| below(realm, requester, top, &mut room)).collect()
}

fn remove(realm: &Realm, requester: &Requester, selected: &Selected) -> Result<(), Refusal> {
    realm
        .remove_for(requester, selected.group)
        .map_err(|error| values::about_group(requester, selected, &error))
}

/// Empties and removes a group without children.
fn empty_and_remove(
    realm: &Realm,
    requester: &Requester,
    refuge: &Selected,
    selected: &Selected,
) -> Result<(), Refusal> {
    let mut rounds = 0;
    loop {
        for pid in values::members(realm, requester, std::slice::from_ref(selected), Ids::Processes, false)? {
            // It may have gone elsewhere by then.
            let moved = values::Process::Number(pid).find(realm, requester).and_then(|process| {
                let moved = realm.evict_for(requester, selected.group, refuge.group, &process);
                moved.map_err(|error| values::about_group(requester, refuge, &error))
            });
            match moved {
                Err(refusal) if refusal.errno() != "ESRCH" => return Err(refusal),
                _ => {}
            }
        }
        rounds += 1;
        match remove(realm, requester, selected) {
            Err(refusal)
                if refusal.errno() == "EBUSY"
                    && rounds < EMPTYING_ROUNDS
                    && is_innermost(realm, selected.group) => {}
            result => return result,
        }
    }
}

/// The child groups of a group; none if it is gone. `None` if their paths take more than there is room for.
fn children(realm: &Realm, parent: &Selected, room: &mut usize) -> Option<Vec<Selected>> {
    let mut found = Vec::new();
    // A name that is not UTF-8 cannot be said over D-Bus: it is shown with replacement characters, and reached through
    // the file system only.
    for (name, node) in realm.list(parent.group).unwrap_or_default() {
        let Node::Group(group) = node else { continue };
        *room = room.checked_sub(parent.path.len() + 1 + name.len())?;
        found.push(parent.child(&name, group));
    }
    Some(found)
}

/// How many bytes of paths a call of the requester's may be about.
pub(crate) fn most_paths(requester: &Requester) -> usize {
    if requester.is_host_root() { MOST_PATHS } else { MOST_PATHS_OF_OTHERS }
}

/// Every group below a group, parents first, depth first; E2BIG if their paths take more than there is room for. Not by
/// recursion: the host's root nests as deep as it likes.
pub(crate) fn below(
    realm: &Realm,
    requester: &Requester,
    top: &Selected,
    room: &mut usize,
) -> Result<Vec<Selected>, Refusal> {
    let mut found = Vec::new();
    let mut ahead = children_for(realm, requester, top, room)?;
    ahead.reverse();
    while let Some(next) = ahead.pop() {
        let children = children(realm, &next, room).ok_or_else(|| too_many(top))?;
        ahead.extend(children.into_iter().rev());
        found.push(next);
    }
    Ok(found)
}

fn too_many(top: &Selected) -> Refusal {
    let name = top.name();
    Refusal::new(
        Errno::E2BIG,
        format!("the groups below {name} are too many for one call: ask for a part of them"),
    )
}

/// The groups in a group, if the requester may be told of them.
fn children_for(
    realm: &Realm,
    requester: &Requester,
    top: &Selected,
    room: &mut usize,
) -> Result<Vec<Selected>, Refusal> {
    match sees_below(realm, requester, top)? {
        true => children(realm, top, room).ok_or_else(|| too_many(top)),
        false => Ok(Vec::new()),
    }
}

/// Whether the requester may be told of the groups in a group. ENOENT if it is not to know of that either.
fn sees_below(realm: &Realm, requester: &Requester, top: &Selected) -> Result<bool, Refusal> {
    may_look(realm, requester, top)?;
    let sees = realm.sees_below(requester, top.group);
    sees.map_err(|error| Refusal::because(requester, error.errno(), top.name(), &error))
}

/// ENOENT for a group of which the requester is not to know.
pub(crate) fn may_look(realm: &Realm, requester: &Requester, selected: &Selected) -> Result<(), Refusal> {
    realm
        .look_for(requester, selected.group)
        .map_err(|error| Refusal::because(requester, error.errno(), selected.name(), &error))
}

/// The groups below these, with their owners.
pub(crate) fn list_children(
    realm: &Realm,
    requester: &Requester,
    tops: &[Selected],
    recursive: bool,
) -> Result<Vec<Child>, Refusal> {
    let mut listed = Vec::new();
    let mut room = most_paths(requester);
    for top in tops {
        let found = match recursive {
            true => below(realm, requester, top, &mut room)?,
            false => children_for(realm, requester, top, &mut room)?,
        };
        realm.attributes(Node::Group(top.group)).map_err(|error| no_group(&top.name(), &error))?;
        for child in found {
            match realm.attributes(Node::Group(child.group)) {
                Ok(attributes) => listed.push(describe(requester, child, &attributes)),
                Err(LookupError::Gone(_)) => {}
                Err(error) => return Err(no_group(&child.name(), &error)),
            }
        }
    }
    Ok(listed)
}

fn describe(requester: &Requester, child: Selected, attributes: &Attributes) -> Child {
    let ownership = attributes.ownership;
    let (uid, gid) = requester.shown(ownership.uid, ownership.gid);
    Child { hierarchy: child.label, path: child.path, uid, gid, mode: ownership.mode.into() }
}

/// The control files of these groups.
pub(crate) fn list_keys(
    realm: &Realm,
    requester: &Requester,
    among: &[Selected],
) -> Result<Vec<Key>, Refusal> {
    let mut keys = Vec::new();
    for selected in among {
        may_look(realm, requester, selected)?;
        let gone = |error: LookupError| no_group(&selected.name(), &error);
        for (name, node) in realm.list(selected.group).map_err(gone)? {
            let Node::File(..) = node else { continue };
            let ownership = realm.attributes(node).map_err(gone)?.ownership;
            let (uid, gid) = requester.shown(ownership.uid, ownership.gid);
            keys.push(Key {
                hierarchy: selected.label.clone(),
                name: name.to_string_lossy().into_owned(),
                uid,
                gid,
                mode: ownership.mode.into(),
            });
        }
    }
    Ok(keys)
}

/// The keys of these groups.
pub(crate) fn list_named_keys(
    realm: &Realm,
    requester: &Requester,
    among: &[Selected],
) -> Result<Vec<NamedKey>, Refusal> {
    let mut keys = Vec::new();
    for selected in among {
        may_look(realm, requester, selected)?;
        for key in KEYS {
            let mut files = Vec::new();
            for file in key.files {
                if values::node(realm, selected, file)?.is_some() {
                    files.push((*file).to_owned());
                }
            }
            if files.iter().any(|file| key.any_of().contains(&file.as_str())) {
                keys.push(NamedKey {
                    hierarchy: selected.label.clone(),
                    name: key.name.to_owned(),
                    kind: key.kind.to_owned(),
                    unit: key.unit.to_owned(),
                    files,
                    set_by: key.setter().name().to_owned(),
                });
            }
        }
    }
    Ok(keys)
}

/// Does the same to each of these groups, until one is refused.
pub(crate) fn each(
    requester: &Requester,
    among: &[Selected],
    act: impl Fn(GroupId) -> Result<(), RequestError>,
) -> Result<(), Refusal> {
    for selected in among {
        act(selected.group).map_err(|error| values::about_group(requester, selected, &error))?;
    }
    Ok(())
}
