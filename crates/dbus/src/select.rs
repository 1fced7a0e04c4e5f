//! From names to groups: which hierarchies and groups a [`GroupName`] means in a realm.

use std::ffi::OsStr;

use pinfold_model::{Errno, GroupId};
use pinfold_realm::{HierarchyInfo, LookupError, Realm};

use crate::error::Refusal;
use crate::group_name::{GroupName, GroupPath, Hierarchies};

/// A group that a name means.
#[derive(Debug)]
pub(crate) struct Selected {
    /// The label of its hierarchy.
    pub(crate) label: String,
    /// Its path.
    pub(crate) path: String,
    /// The group.
    pub(crate) group: GroupId,
}

impl Selected {
    /// The group's full name, for messages.
    pub(crate) fn name(&self) -> String {
        full_name(&self.label, &self.path)
    }
}

/// `LABEL:PATH`.
pub(crate) fn full_name(label: &str, path: impl std::fmt::Display) -> String {
    format!("{label}:{path}")
}

/// The groups that a name means. In hierarchies named by the caller the group must be there; of every hierarchy, one
/// that has it is enough.
pub(crate) fn groups(realm: &Realm, name: &GroupName) -> Result<Vec<Selected>, Refusal> {
    let path = name.path.to_string();
    let mut found = Vec::new();
    for hierarchy in hierarchies(realm, &name.hierarchies)? {
        match resolve(realm, &hierarchy, &name.path) {
            Ok(group) => found.push(Selected { label: hierarchy.label, path: path.clone(), group }),
            Err(LookupError::NotFound(_)) if name.hierarchies == Hierarchies::Every => {}
            Err(error) => return Err(no_group(&full_name(&hierarchy.label, &path), &error)),
        }
    }
    if found.is_empty() {
        return Err(Refusal::new(Errno::ENOENT, format!("no hierarchy has a group {path}")));
    }
    Ok(found)
}

/// The group at a path of one hierarchy.
pub(crate) fn resolve(
    realm: &Realm,
    hierarchy: &HierarchyInfo,
    path: &GroupPath,
) -> Result<GroupId, LookupError> {
    realm.resolve(hierarchy.id, OsStr::new(&path.to_string()))
}

/// The refusal for a group that is not there.
pub(crate) fn no_group(name: &str, error: &LookupError) -> Refusal {
    Refusal::new(error.errno(), format!("there is no group {name}"))
}

/// The hierarchies that a name means, each once, at least one.
pub(crate) fn hierarchies(realm: &Realm, wanted: &Hierarchies) -> Result<Vec<HierarchyInfo>, Refusal> {
    let all = realm.hierarchies();
    if all.is_empty() {
        return Err(Refusal::new(Errno::ENODEV, "the realm has no hierarchy yet: mount one first"));
    }
    let Hierarchies::With(names) = wanted else { return Ok(all) };
    let mut found: Vec<HierarchyInfo> = Vec::new();
    for name in names {
        let hierarchy = hierarchy_with(realm, &all, name)?;
        if found.iter().all(|other| other.id != hierarchy.id) {
            found.push(hierarchy.clone());
        }
    }
    Ok(found)
}

/// The hierarchy that has this controller, or this `name=`.
fn hierarchy_with<'a>(
    realm: &Realm,
    all: &'a [HierarchyInfo],
    wanted: &str,
) -> Result<&'a HierarchyInfo, Refusal> {
    if let Some(name) = wanted.strip_prefix("name=") {
        let named = all.iter().find(|hierarchy| hierarchy.name.as_deref() == Some(name));
        return named
            .ok_or_else(|| Refusal::new(Errno::ENODEV, format!("no hierarchy has the name {name:?}")));
    }
    let controllers = realm.controllers();
    let Some(controller) = controllers.iter().find(|controller| controller.name == wanted) else {
        let known: Vec<_> = controllers.iter().map(|controller| controller.name).collect();
        let known = known.join(", ");
        return Err(Refusal::new(
            Errno::EINVAL,
            format!("no controller is called {wanted:?} (known: {known})"),
        ));
    };
    let hierarchy = controller.hierarchy.and_then(|id| all.iter().find(|hierarchy| hierarchy.id == id));
    hierarchy.ok_or_else(|| {
        Refusal::new(Errno::ENODEV, format!("controller {wanted} is in no hierarchy: mount it first"))
    })
}
