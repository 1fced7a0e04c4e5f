//! What cgmanager's clients call hierarchies and groups.

use pinfold_model::Errno;
use pinfold_realm::{HierarchyInfo, Realm};

use crate::error::Refusal;
use crate::group_name::{GroupPath, Hierarchies};
use crate::select;

/// The hierarchies that a call is about.
pub(super) enum Among {
    /// The one that has the controller.
    One(HierarchyInfo),
    /// Several, by a list or by `all`; each once, whatever controllers share it. What is not the caller's in one of them does
    /// not keep it from the others.
    Several(Vec<HierarchyInfo>),
}

impl Among {
    /// Each hierarchy.
    pub(super) fn iter(&self) -> impl Iterator<Item = &HierarchyInfo> {
        match self {
            Self::One(hierarchy) => std::slice::from_ref(hierarchy).iter(),
            Self::Several(hierarchies) => hierarchies.iter(),
        }
    }

    /// Whether a refusal is passed over.
    pub(super) fn passes_over(&self, refusal: &Refusal) -> bool {
        matches!(self, Self::Several(_)) && matches!(refusal.errno(), "EACCES" | "EPERM")
    }
}

/// What a text means: a controller, several with commas between them, or `all`.
pub(super) fn hierarchies(realm: &Realm, controllers: &str) -> Result<Among, Refusal> {
    if controllers == "all" {
        return select::hierarchies(realm, &Hierarchies::Every).map(Among::Several);
    }
    if !controllers.contains(',') {
        return hierarchy(realm, controllers).map(Among::One);
    }
    let names = controllers.split(',').map(|name| full(realm, name)).collect();
    select::hierarchies(realm, &Hierarchies::With(names)).map(Among::Several)
}

/// The hierarchy of one controller, or of this name.
pub(super) fn hierarchy(realm: &Realm, controller: &str) -> Result<HierarchyInfo, Refusal> {
    let mut found = select::hierarchies(realm, &Hierarchies::With(vec![full(realm, controller)]))?;
    found.pop().ok_or_else(|| Refusal::new(Errno::ENODEV, format!("{controller} is in no hierarchy")))
}

/// A hierarchy without controllers goes by its bare name too.
fn full(realm: &Realm, name: &str) -> String {
    let is_bare = |hierarchy: &HierarchyInfo| hierarchy.name.as_deref() == Some(name);
    let is_controller = pinfold_files::controller_named(name).is_some();
    match !is_controller && realm.hierarchies().iter().any(is_bare) {
        true => format!("name={name}"),
        false => name.to_owned(),
    }
}

/// The path of a group from the caller's own, which is empty; a slash at the front does not count.
pub(super) fn from_own(cgroup: &str) -> Result<GroupPath, Refusal> {
    parse("", cgroup)
}

/// The path of a group from the caller's own, or, with a slash at the front, from the root.
pub(super) fn from_anywhere(cgroup: &str) -> Result<GroupPath, Refusal> {
    parse(if cgroup.starts_with('/') { "/" } else { "" }, cgroup)
}

fn parse(start: &str, cgroup: &str) -> Result<GroupPath, Refusal> {
    let steps: Vec<_> = cgroup.split('/').filter(|step| !matches!(*step, "" | ".")).collect();
    let path = format!("{start}{}", steps.join("/"));
    path.parse().map_err(|error| Refusal::new(Errno::EINVAL, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_at_the_front_counts_where_groups_are_looked_at_alone() {
        for (cgroup, own, anywhere) in [
            ("", ".", "."),
            (".", ".", "."),
            ("a/b", "a/b", "a/b"),
            ("/a", "a", "/a"),
            ("//a//./b/", "a/b", "/a/b"),
            ("/", ".", "/"),
            ("a..b", "a..b", "a..b"),
        ] {
            assert_eq!(from_own(cgroup).unwrap().to_string(), own, "{cgroup:?}");
            assert_eq!(from_anywhere(cgroup).unwrap().to_string(), anywhere, "{cgroup:?}");
        }
        for cgroup in ["..", "../a", "a/../b", "/..", "a/..", "a\nb"] {
            assert_eq!(from_own(cgroup).unwrap_err().errno(), "EINVAL", "{cgroup:?}");
            assert_eq!(from_anywhere(cgroup).unwrap_err().errno(), "EINVAL", "{cgroup:?}");
        }
    }
}
