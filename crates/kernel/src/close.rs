//! Leaving a base as it was found.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use pinfold_model::{Dir, Errno};
use rustix::fs::AtFlags;
use rustix::io::Errno as Raw;

use crate::tree::{BaseKind, REST, words};
use crate::{Tree, beneath, errors, scope};

/// What could not be undone of a realm.
#[derive(Debug, thiserror::Error)]
pub enum CloseError {
    /// Directories of the realm hold processes, or directories of others.
    #[error("{} still holds processes or directories of others", first.display())]
    Populated {
        /// The first that was found so.
        first: PathBuf,
    },
    /// A system call failed.
    #[error("{} cannot be {operation}: {errno}", path.display())]
    System {
        /// What was tried, as a participle.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        errno: Raw,
    },
}

impl CloseError {
    /// The errno that says the same.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Populated { .. } => Errno::EBUSY,
            Self::System { errno, .. } => errors::to_model(*errno),
        }
    }
}

impl Tree {
    /// Removes the realm's directories, switches off what was switched on for it, and lets the base's processes back
    /// in.
    ///
    /// Processes in cells must have been moved out before. Directories that still hold some stay, and then nothing
    /// else is undone. A controller that another directory of the base uses stays on. `pinfold.rest` stays as long as
    /// another realm works in the base, or the base may not hold processes because a controller stays on. Closing
    /// twice is harmless.
    pub fn close(&self) -> Result<(), CloseError> {
        for dir in self.dirs() {
            self.remove_for_good(&dir)?;
        }
        self.switch_off()?;
        self.remove_for_good(&Dir::REALM)?;
        let is_barred = self.kind == BaseKind::Inner && self.base_passes_on();
        if is_barred || !self.other_realms()?.is_empty() { Ok(()) } else { self.empty_rest() }
    }

    fn remove_for_good(&self, dir: &Dir) -> Result<(), CloseError> {
        let path = self.below_base(dir);
        match self.remove_directory(dir) {
            Ok(_) => Ok(()),
            Err(Raw::BUSY | Raw::NOTEMPTY) => Err(CloseError::Populated { first: self.display(path) }),
            Err(errno) => Err(self.failed("removed", path, errno)),
        }
    }

    /// From the realm directory first: the kernel refuses to switch off what a directory below still passes on. What
    /// stays on because another realm is there is left to that realm to switch off.
    fn switch_off(&self) -> Result<(), CloseError> {
        let realm = self.below_base(&Dir::REALM);
        for controller in &self.available {
            self.without(controller, &realm)?;
        }
        let mut stay = BTreeSet::new();
        for controller in self.switched_on.union(&self.remembered(&self.realm)) {
            let is_used =
                self.is_used(controller, &realm).map_err(|errno| self.failed("examined", "", errno))?;
            if is_used || !self.without(controller, Path::new(""))? {
                stay.insert(controller.clone());
            }
        }
        if let Some(heir) = self.other_realms()?.first()
            && !stay.is_empty()
        {
            stay.extend(self.remembered(heir));
            self.remember(heir, &stay);
        }
        Ok(())
    }

    /// Switches a controller off below a directory; false if a directory below passes it on.
    fn without(&self, controller: &str, dir: &Path) -> Result<bool, CloseError> {
        let file = dir.join("cgroup.subtree_control");
        match beneath::write(&self.base, &file, format!("-{controller}").as_bytes()) {
            Ok(()) | Err(Raw::NOENT) => Ok(true),
            Err(Raw::BUSY) => Ok(false),
            Err(errno) => Err(self.failed("written", file, errno)),
        }
    }

    /// Whether another directory of the base has settings of a controller: any that differs from the realm
    /// directory's, which never gets one.
    fn is_used(&self, controller: &str, realm: &Path) -> Result<bool, Raw> {
        let fresh = match beneath::files(&self.base, realm) {
            Ok(names) => names,
            Err(errno) if beneath::is_gone(errno) => return Ok(true),
            Err(errno) => return Err(errno),
        };
        let prefix = format!("{controller}.");
        let settings: Vec<_> =
            fresh.into_iter().filter(|name| self.is_setting(&prefix, realm, name)).collect();
        for sibling in beneath::subdirectories(&self.base, "")? {
            let sibling = Path::new(&sibling);
            let differs = |name: &std::ffi::OsString| match beneath::read(&self.base, sibling.join(name)) {
                Ok(content) => beneath::read(&self.base, realm.join(name)).as_ref() != Ok(&content),
                Err(errno) => !beneath::is_gone(errno),
            };
            if sibling != realm && sibling != Path::new(REST) && settings.iter().any(differs) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a file of the realm directory keeps a setting of a controller. Pressure triggers and peaks can be written
    /// too, but what they show is not what was written.
    fn is_setting(&self, prefix: &str, realm: &Path, name: &OsStr) -> bool {
        const READ_WRITE: u32 = 0o600;
        let name_of = name.as_bytes();
        name_of.starts_with(prefix.as_bytes())
            && !name_of.ends_with(b".pressure")
            && !name_of.ends_with(b".peak")
            && rustix::fs::statat(&self.base, realm.join(name), AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|stat| stat.st_mode & READ_WRITE == READ_WRITE)
    }

    /// The directories of other realms in the base.
    fn other_realms(&self) -> Result<Vec<String>, CloseError> {
        let names =
            beneath::subdirectories(&self.base, "").map_err(|errno| self.failed("listed", "", errno))?;
        let is_other = |name: &String| name.starts_with("pinfold.") && name != REST && *name != self.realm;
        Ok(names.into_iter().filter_map(|name| name.into_string().ok()).filter(is_other).collect())
    }

    /// Moves the processes of `pinfold.rest` back into the base, if it may hold processes again.
    fn empty_rest(&self) -> Result<(), CloseError> {
        let rest = Path::new(REST);
        let mut before = BTreeSet::new();
        loop {
            let found = match beneath::read(&self.base, rest.join("cgroup.procs")) {
                Ok(content) => scope::numbers(&content).0,
                Err(errno) if beneath::is_gone(errno) => return Ok(()),
                Err(errno) => return Err(self.failed("read", rest, errno)),
            };
            let now: BTreeSet<_> = found.iter().copied().collect();
            if found.is_empty() || now == before {
                break;
            }
            self.transfer(&found, Path::new("")).map_err(|errno| self.failed("entered", "", errno))?;
            before = now;
        }
        match rustix::fs::unlinkat(&self.base, REST, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Raw::NOENT) => Ok(()),
            Err(Raw::BUSY) => Err(CloseError::Populated { first: self.display(REST) }),
            Err(errno) => Err(self.failed("removed", REST, errno)),
        }
    }

    fn failed(&self, operation: &'static str, below_base: impl AsRef<Path>, errno: Raw) -> CloseError {
        CloseError::System { operation, path: self.display(below_base), errno }
    }

    /// Whether the base passes controllers on.
    fn base_passes_on(&self) -> bool {
        beneath::read(&self.base, "cgroup.subtree_control").is_ok_and(|content| !words(&content).is_empty())
    }
}
