//! The daemon's mounts: at its own mount points, and detached ones for clients.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use pinfold_dbus::Refusal;
use pinfold_files::{MountOptions, OptionError};
use pinfold_fuse::What;
use pinfold_model::{Errno, Gid, HierarchyId, HostPid, Uid};
use pinfold_realm::{Caller, FrontEnd, Realm};

use crate::mounting;

/// Every mount of this daemon.
pub(crate) struct Mounts {
    realm: Arc<Realm>,
    fuse: pinfold_fuse::Mounts,
}

impl Mounts {
    /// No mounts yet.
    pub(crate) fn new(realm: Arc<Realm>) -> Self {
        Self { fuse: pinfold_fuse::Mounts::new(Arc::clone(&realm)), realm }
    }

    /// Mounts the hierarchy that the options mean at a directory, which is made if it is missing.
    pub(crate) fn mount_at(&self, options: &str, dir: &Path) -> anyhow::Result<()> {
        let at = || format!("{options} cannot be mounted at {}", dir.display());
        // Nobody else serves this realm: what does not answer is a killed daemon's.
        let is_left = |source: &str| mounting::Source::is_of(source, self.realm.name());
        if pinfold_fuse::remove_left(dir, is_left).with_context(at)? {
            tracing::info!("{}: took away the mount that a killed daemon left", dir.display());
        }
        self.make(dir).with_context(at)?;
        let wanted = mounting::Wanted::parse(options);
        let hierarchy = self.hierarchy(&own(), &wanted.hierarchy).with_context(at)?;
        self.fuse.at(&self.what(hierarchy), dir).with_context(at)?;
        if wanted.read_only {
            mounting::make_read_only(dir)?;
        }
        tracing::info!("{options} is mounted at {}", dir.display());
        Ok(())
    }

    /// Makes a mount point if it is missing. Kept first, so that a daemon that is started after this one was killed
    /// removes it in the end.
    fn make(&self, dir: &Path) -> std::io::Result<()> {
        if dir.symlink_metadata().is_ok() {
            return Ok(());
        }
        // The process may have another current directory when it ends.
        let dir = std::path::absolute(dir)?;
        let mut record = File::options().create(true).append(true).open(self.record())?;
        record.write_all(&[dir.as_os_str().as_bytes(), b"\0"].concat())?;
        std::fs::create_dir(dir)
    }

    /// Where it is kept which mount points were made: paths, each with a null byte behind it.
    fn record(&self) -> PathBuf {
        self.realm.state().join("mount-points")
    }

    fn made(&self) -> Vec<PathBuf> {
        let record = std::fs::read(self.record()).unwrap_or_default();
        let paths = record.split(|byte| *byte == 0).filter(|path| !path.is_empty());
        paths.map(|path| OsStr::from_bytes(path).into()).collect()
    }

    /// A detached mount of the hierarchy that the options mean.
    pub(crate) fn detached(&self, caller: &Caller, options: &str) -> Result<OwnedFd, Refusal> {
        let hierarchy = self.hierarchy(caller, options)?;
        self.fuse.detached(&self.what(hierarchy)).map_err(|error| {
            let errno = if is_not_permitted(&error) { Errno::EPERM } else { Errno::EIO };
            Refusal::new(errno, format!("{:#}", anyhow::Error::from(error)))
        })
    }

    /// Changes a hierarchy by mount options.
    pub(crate) fn remount(
        &self,
        caller: &Caller,
        hierarchy: HierarchyId,
        options: &str,
    ) -> Result<(), Refusal> {
        let options = self.parse(options)?;
        self.realm.remount(caller, hierarchy, &options).map_err(|error| Refusal::new(error.errno(), error))
    }

    /// Finds or makes the hierarchy that the options mean, and pins it for a mount.
    fn hierarchy(&self, caller: &Caller, options: &str) -> Result<HierarchyId, Refusal> {
        let parsed = self.parse(options)?;
        self.realm.mount(caller, &parsed).map_err(|error| Refusal::new(error.errno(), error))
    }

    fn parse(&self, options: &str) -> Result<MountOptions, Refusal> {
        MountOptions::parse(options, self.realm.enabled()).map_err(|error| {
            let errno = error.errno();
            let OptionError::Disabled(name) = error else { return Refusal::new(errno, error) };
            let id = pinfold_files::controller_named(name);
            let why = id.map_or_else(String::new, |id| format!(": {}", self.realm.why_not(id)));
            tracing::warn!("{options} is not mounted: {error}{why}");
            Refusal::new(errno, format!("{error}{why}"))
        })
    }

    fn what(&self, hierarchy: HierarchyId) -> What {
        let source = mounting::Source { realm: self.realm.name().to_owned(), hierarchy: hierarchy.get() };
        What { hierarchy, source: source.to_string(), threads: pinfold_fuse::default_threads() }
    }

    /// Waits until every mount shows the changes that were made up to now.
    pub(crate) fn settle(&self) {
        self.fuse.settle();
    }

    /// Takes every mount away, also from those who use it, and removes the mount points that were made for them.
    pub(crate) fn end(&self) {
        if let Err(error) = self.fuse.stop() {
            tracing::warn!("{:#}", anyhow::Error::from(error));
        }
        for dir in self.made() {
            match std::fs::remove_dir(&dir) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!("{} was made for a mount and stays: {error}", dir.display());
                }
                _ => {}
            }
        }
        // What is still to be removed is in the log now.
        let _ = std::fs::remove_file(self.record());
    }
}

/// The daemon as its own caller.
fn own() -> Caller {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Caller { uid: Uid(uid), gid: Gid(gid), task: HostPid::new(std::process::id()), via: FrontEnd::NONE }
}

fn is_not_permitted(error: &pinfold_fuse::MountError) -> bool {
    use pinfold_fuse::{MountError as Error, SuperblockError};
    matches!(error, Error::Superblock(SuperblockError::Refused { source: rustix::io::Errno::PERM, .. }))
}
