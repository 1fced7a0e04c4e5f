//! `cargo xtask gen-docs`: writes `docs/files/` from the tables of the files crate.

use crate::workspace::root;
use anyhow::{Context, Result};

/// Writes every page, and removes those that belong to no table any more.
pub fn run() -> Result<()> {
    let dir = root().join("docs/files");
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let pages = pinfold_files::docs::pages();
    for (name, text) in &pages {
        let path = dir.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        println!("{}", path.display());
    }
    for entry in dir.read_dir().with_context(|| format!("cannot list {}", dir.display()))? {
        let entry = entry?;
        if !pages.iter().any(|(name, _)| entry.file_name() == name.as_str()) {
            std::fs::remove_file(entry.path())
                .with_context(|| format!("cannot remove {}", entry.path().display()))?;
        }
    }
    Ok(())
}
