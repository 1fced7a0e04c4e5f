//! A directory of our own in the v2 tree, removed whatever happens.

use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, poll};

/// The base of one test's realm.
pub(crate) struct Base {
    /// What goes in the end, with all below it.
    top: PathBuf,
    path: PathBuf,
    /// Where the daemon has it, if that is elsewhere.
    seen: Option<PathBuf>,
}

impl Base {
    /// Makes a base below the v2 root; in the guest, with every controller that is there.
    pub(crate) fn make(name: &str) -> io::Result<Self> {
        let root = Path::new("/sys/fs/cgroup");
        let root =
            if root.join("cgroup.controllers").exists() { root.to_owned() } else { root.join("unified") };
        if super::is_guest() {
            for controller in std::fs::read_to_string(root.join("cgroup.controllers"))?.split_whitespace() {
                std::fs::write(root.join("cgroup.subtree_control"), format!("+{controller}"))?;
            }
        }
        let path = root.join(name);
        std::fs::create_dir(&path)?;
        let base = Self { top: path.clone(), path, seen: None };
        std::fs::create_dir(base.outside())?;
        Ok(base)
    }

    /// From now on it is a directory below, that no controller was delegated to.
    pub(crate) fn withhold_controllers(&mut self) {
        self.path.push("inner");
        std::fs::create_dir(&self.path).expect("a directory of our own");
        std::fs::create_dir(self.outside()).expect("a directory of our own");
    }

    /// From now on the v2 tree is there where the daemon's mounts are.
    pub(crate) fn is_seen_in(&mut self, tree: &Path) {
        let name = self.path.file_name().expect("it is not the root");
        self.seen = Some(tree.join(name));
    }

    /// Where the daemon has it.
    pub(crate) fn seen(&self) -> &Path {
        self.seen.as_deref().unwrap_or(&self.path)
    }

    /// Where tests start processes: in the base's scope and outside the realm. Not the base itself, which would become
    /// a threaded domain by it once it passes `pids` on.
    pub(crate) fn outside(&self) -> PathBuf {
        self.path.join("outside")
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The base as /proc/PID/cgroup names it.
    pub(crate) fn v2_path(&self) -> String {
        let above = self.top.parent().expect("it is not the root");
        format!("/{}", self.path.strip_prefix(above).expect("it is below").display())
    }

    /// The directories in it that are not the test's.
    pub(crate) fn children(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.path).expect("the base is there").flatten();
        let dirs = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let names = dirs.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| name != "outside").collect()
    }

    /// Ends every process below it, which are all of this test, and removes it.
    pub(crate) fn remove(&self) {
        std::fs::write(self.top.join("cgroup.kill"), "1").ok();
        self.wait_until_empty().ok();
        if let Err(error) = remove_all(&self.top) {
            eprintln!("{} stays: {error}", self.top.display());
        }
    }

    fn wait_until_empty(&self) -> io::Result<()> {
        let mut events = std::fs::File::open(self.top.join("cgroup.events"))?;
        loop {
            let mut text = String::new();
            events.rewind()?;
            events.read_to_string(&mut text)?;
            let mut changed = [PollFd::new(&events, PollFlags::PRI)];
            if !text.contains("populated 1")
                || poll(&mut changed, Some(&super::timespec(super::PATIENCE)))? == 0
            {
                return Ok(());
            }
        }
    }
}

/// A v2 directory goes by rmdir alone: its files cannot be removed.
fn remove_all(dir: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove_all(&entry.path())?;
        }
    }
    std::fs::remove_dir(dir)
}
