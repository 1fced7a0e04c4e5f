//! From names to groups: which hierarchies and groups a [`GroupName`] means in a realm, for who names them.

use std::ffi::OsStr;

use pinfold_model::{Errno, GroupId};
use pinfold_realm::{HierarchyInfo, LookupError, Realm, Requester};

use crate::error::Refusal;
use crate::group_name::{GroupName, GroupPath, Hierarchies};

/// A group that a name means.
#[derive(Debug)]
pub(crate) struct Selected {
    /// The label of its hierarchy.
    pub(crate) label: String,
    /// Its path, as who asks names it.
    pub(crate) path: String,
    /// The group.
    pub(crate) group: GroupId,
}

impl Selected {
    /// The group's full name, for messages.
    pub(crate) fn name(&self) -> String {
        full_name(&self.label, &self.path)
    }

    /// A group below, found by its name.
    pub(crate) fn child(&self, name: &OsStr, group: GroupId) -> Self {
        Self { label: self.label.clone(), path: child_path(&self.path, name), group }
    }
}

/// The path of a group in another.
pub(crate) fn child_path(above: &str, name: &OsStr) -> String {
    let name = name.to_string_lossy();
    match above {
        "." => name.into_owned(),
        "/" => format!("/{name}"),
        above => format!("{above}/{name}"),
    }
}

/// `LABEL:PATH`.
pub(crate) fn full_name(label: &str, path: impl std::fmt::Display) -> String {
    format!("{label}:{path}")
}

/// The groups that a name means. In hierarchies named by the caller the group must be there; of every hierarchy, one
/// that has it is enough.
pub(crate) fn groups(
    realm: &Realm,
    requester: &Requester,
    name: &GroupName,
) -> Result<Vec<Selected>, Refusal> {
    let mut found = Vec::new();
    for hierarchy in hierarchies(realm, &name.hierarchies)? {
        match resolve(realm, requester, &hierarchy, &name.path) {
            Ok(selected) => found.push(selected),
            Err(refusal) if refusal.errno() == "ENOENT" && name.hierarchies == Hierarchies::Every => {}
            Err(refusal) => return Err(refusal),
        }
    }
    if found.is_empty() {
        return Err(Refusal::new(Errno::ENOENT, format!("no hierarchy has a group {}", name.path)));
    }
    Ok(found)
}

/// The group at a path of one hierarchy: from the root for the host's root, from the caller's own group for everybody.
pub(crate) fn resolve(
    realm: &Realm,
    requester: &Requester,
    hierarchy: &HierarchyInfo,
    path: &GroupPath,
) -> Result<Selected, Refusal> {
    let start = start(realm, requester, hierarchy, path)?;
    let no_group = |error: LookupError| no_group(&full_name(&hierarchy.label, path), &error);
    if !path.is_absolute() && !path.steps().is_empty() && !realm.knows_below(requester, start) {
        return Err(no_group(LookupError::NotFound(path.to_string().into())));
    }
    let steps = path.steps().join("/");
    let group = realm.resolve_below(start, OsStr::new(&steps));
    let group = group.map_err(no_group)?;
    let label = hierarchy.label.clone();
    let path = match requester.is_host_root() && !path.is_absolute() {
        // Told by its whole path: that is what means the same to everybody whom it may be shown to.
        true => realm.path(group).unwrap_or_default().to_string_lossy().into_owned(),
        false => path.to_string(),
    };
    Ok(Selected { label, path, group })
}

/// The group where a path begins.
fn start(
    realm: &Realm,
    requester: &Requester,
    hierarchy: &HierarchyInfo,
    path: &GroupPath,
) -> Result<GroupId, Refusal> {
    if !path.is_absolute() {
        let own = realm.own_group(requester, hierarchy.id);
        return own.map_err(|error| Refusal::because(requester, error.errno(), path, &error));
    }
    if requester.is_host_root() {
        return Ok(hierarchy.root);
    }
    let hint =
        "paths from the root are for the host's root\nname groups from your own: jobs/7, and `.` itself";
    Err(Refusal::new(Errno::EPERM, format!("{path}: {hint}")))
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
