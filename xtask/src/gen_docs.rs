//! `cargo xtask gen-docs`: writes `docs/files/` from the tables of the files crate.

use crate::workspace::root;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Writes every page, and removes those that belong to no table any more.
pub fn run() -> Result<()> {
    let pages = wanted();
    std::fs::create_dir_all(dir()).with_context(|| format!("cannot make {}", dir().display()))?;
    for name in present()?.into_keys().filter(|name| !pages.contains_key(name)) {
        let path = dir().join(name);
        std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    for (name, text) in pages {
        let path = dir().join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}

fn dir() -> PathBuf {
    root().join("docs/files")
}

/// The pages that belong there, by file name.
fn wanted() -> BTreeMap<String, String> {
    pinfold_files::docs::pages().into_iter().collect()
}

/// The pages that are there.
fn present() -> Result<BTreeMap<String, String>> {
    let mut pages = BTreeMap::new();
    for entry in dir().read_dir().with_context(|| format!("cannot list {}", dir().display()))? {
        let entry = entry?;
        let text = std::fs::read_to_string(entry.path())
            .with_context(|| format!("cannot read {}", entry.path().display()))?;
        pages.insert(entry.file_name().to_string_lossy().into_owned(), text);
    }
    Ok(pages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_are_in_step_with_the_tables() {
        let (wanted, present) = (wanted(), present().unwrap());
        assert_eq!(
            wanted.keys().collect::<Vec<_>>(),
            present.keys().collect::<Vec<_>>(),
            "run `cargo xtask gen-docs`"
        );
        for (name, text) in wanted {
            assert!(present[&name] == text, "docs/files/{name} is out of step: run `cargo xtask gen-docs`");
        }
    }
}
