//! Leaves a mount as it was found: every group thawed and removed, then unmounted.

use super::mounts::{Mounter, was_not_mounted};
use super::outcome;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a group may stay busy with processes that are on their way out.
const PATIENCE: Duration = Duration::from_secs(10);

/// Thaws every group at and below `dir`, parents first, so that frozen processes can end.
pub(super) fn thaw(dir: &Path) {
    let state = dir.join("freezer.state");
    if state.exists() {
        let _not_the_root = std::fs::write(state, "THAWED");
    }
    children(dir).iter().for_each(|child| thaw(child));
}

/// Removes every group below `dir` and unmounts it.
pub(super) fn clear(dir: &Path, mounter: &Mounter) -> Result<()> {
    children(dir).iter().try_for_each(|child| remove(child))?;
    mounter.settle();
    let outcome = mounter.umount(dir.as_os_str());
    if was_not_mounted(&outcome) {
        return Ok(());
    }
    match outcome::lines(outcome) {
        Ok(lines) if lines == ["ok"] => Ok(()),
        Ok(lines) => bail!("cannot unmount {}: {}", dir.display(), lines.join("; ")),
        Err(message) => bail!("cannot unmount {}: {message}", dir.display()),
    }
}

fn remove(group: &Path) -> Result<()> {
    children(group).iter().try_for_each(|child| remove(child))?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match std::fs::remove_dir(group) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) if Instant::now() > deadline => {
                return Err(error).with_context(|| format!("cannot remove {}", group.display()));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()))
        .map(|entry| entry.path())
        .collect()
}
