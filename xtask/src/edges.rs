//! Which crate may depend on which (ARCHITECTURE.md, I1: arrows point downwards only).

use crate::workspace::Package;

/// Each crate of ours with the crates of ours that it may use. An edge that is not here is an error.
pub const ALLOWED: &[(&str, &[&str])] = &[
    // The binary wires everything together; of the drivers it asks about the machine and about processes, never the tree.
    (
        "pinfold",
        &[
            "pinfold-fuse",
            "pinfold-dbus",
            "pinfold-restart",
            "pinfold-events",
            "pinfold-realm",
            "pinfold-kernel",
            "pinfold-files",
            "pinfold-model",
        ],
    ),
    // Front ends call the realm, in the words of the pure crates.
    ("pinfold-fuse", &["pinfold-realm", "pinfold-files", "pinfold-model", "pinfold-sys"]),
    ("pinfold-dbus", &["pinfold-realm", "pinfold-files", "pinfold-model", "pinfold-sys"]),
    ("pinfold-realm", &["pinfold-model", "pinfold-files", "pinfold-kernel", "pinfold-events"]),
    ("pinfold-kernel", &["pinfold-model", "pinfold-sys"]),
    ("pinfold-events", &["pinfold-sys"]),
    ("pinfold-restart", &["pinfold-sys"]),
    ("pinfold-files", &["pinfold-model"]),
    ("pinfold-model", &[]),
    ("pinfold-sys", &[]),
];

/// The crate that may use any other: it is not part of the program.
const UNBOUND: &str = "xtask";

/// What is wrong with the edges between `packages`, one line each.
pub fn check(packages: &[Package]) -> Vec<String> {
    packages
        .iter()
        .filter(|package| package.name != UNBOUND)
        .flat_map(|p| check_package(p, packages))
        .collect()
}

fn check_package(package: &Package, packages: &[Package]) -> Vec<String> {
    let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == package.name) else {
        return vec![format!("{} has no row in xtask/src/edges.rs", package.name)];
    };
    let ours = |name: &str| packages.iter().any(|package| package.name == name);
    let used = package.dependencies.iter().map(|dependency| dependency.name.as_str());
    used.filter(|name| ours(name) && !allowed.contains(name))
        .map(|name| format!("{} may not depend on {name}", package.name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Dependency;

    fn package(name: &str, uses: &[&str]) -> Package {
        Package {
            name: name.to_owned(),
            manifest_path: "Cargo.toml".into(),
            dependencies: uses.iter().map(|name| Dependency { name: (*name).to_owned() }).collect(),
            targets: Vec::new(),
        }
    }

    #[test]
    fn an_arrow_upwards_is_found() {
        let packages = [
            package("pinfold-files", &["pinfold-model", "serde"]),
            package("pinfold-model", &["pinfold-files"]),
        ];
        assert_eq!(check(&packages), ["pinfold-model may not depend on pinfold-files"]);
    }

    #[test]
    fn a_crate_without_a_row_is_found() {
        assert_eq!(check(&[package("pinfold-new", &[])]), ["pinfold-new has no row in xtask/src/edges.rs"]);
    }

    #[test]
    fn xtask_may_use_any_crate() {
        assert!(check(&[package("xtask", &["pinfold-model"]), package("pinfold-model", &[])]).is_empty());
    }
}
