//! Taking possession of a base: the realm directory, controllers switched on, processes out of the way.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use pinfold_model::{Errno, HostPid};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno as Raw;

use crate::held::Held;
use crate::leaves::Leaves;
use crate::programs::Programs;
use crate::switches::Switches;
use crate::tree::{BaseKind, REST, Refused, RestPlace, Scope, words};
use crate::{Tree, V2Mount, beneath, errors, mounts, scope};

/// How often a base is looked at again for processes that were forked while others were moved out.
const ROUNDS: usize = 100;

/// Why a realm cannot work in a base.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The realm's name would not be one path component, or is taken.
    #[error("{0:?} cannot be the name of a realm")]
    Name(String),
    /// The base is not in the v2 tree that was found.
    #[error("{} is not a directory of the cgroup v2 tree at {}", base.display(), mount.display())]
    NotInTree {
        /// The base that was asked for.
        base: PathBuf,
        /// The mount point of the tree.
        mount: PathBuf,
    },
    /// The base's own processes could not all be moved out of the way.
    #[error("{} holds {count} processes that cannot be moved out of the way of its controllers", base.display())]
    Occupied {
        /// The base.
        base: PathBuf,
        /// How many are left.
        count: usize,
    },
    /// A system call failed.
    #[error("{} cannot be {operation}: {errno}{}", path.display(), hint(*errno))]
    System {
        /// What was tried, as a participle.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        errno: Raw,
    },
}

impl OpenError {
    /// The errno that says the same.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Name(_) => Errno::EINVAL,
            Self::NotInTree { .. } => Errno::ENOENT,
            Self::Occupied { .. } => Errno::EBUSY,
            Self::System { errno, .. } => errors::to_model(*errno),
        }
    }
}

impl Tree {
    /// Opens a base and makes the realm's directory in it.
    ///
    /// `base` is a directory of the mounted tree; `None` stands for the mount point. Of `wanted` those controllers
    /// that the base has are switched on for the realm directory and below. If that takes it, the processes that the
    /// base itself holds are moved into `pinfold.rest` first. Directories of an earlier life are left as they are.
    pub fn open(v2: &V2Mount, base: Option<&Path>, realm: &str, wanted: &[&str]) -> Result<Self, OpenError> {
        if realm.is_empty() || realm == "rest" || realm.contains(['/', '\n', '\0']) {
            return Err(OpenError::Name(realm.to_owned()));
        }
        let mut tree = Self::of(v2, base, realm)?;
        tree.make_realm_directory().map_err(|errno| tree.system("made", &tree.realm, errno))?;
        let outcome = tree.switch_on(wanted);
        if outcome.is_err() {
            // The first error is the one to tell; what could not be undone is empty and harmless.
            let _ = tree.close();
        }
        outcome.map(|()| tree)
    }

    /// Makes the realm directory unless it is there.
    pub(crate) fn make_realm_directory(&self) -> Result<(), Raw> {
        match rustix::fs::mkdirat(&self.base, &*self.realm, Mode::from_raw_mode(0o755)) {
            Err(Raw::EXIST) => Ok(()),
            answer => answer,
        }
    }

    fn of(v2: &V2Mount, base: Option<&Path>, realm: &str) -> Result<Self, OpenError> {
        let fail = |operation, path: &Path, errno| OpenError::System { operation, path: path.into(), errno };
        let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mount = rustix::fs::open(&v2.point, directory, Mode::empty())
            .map_err(|errno| fail("opened", &v2.point, errno))?;
        let path = match base {
            Some(path) => below(&v2.point, path)?,
            None => PathBuf::new(),
        };
        let outside = || OpenError::NotInTree { base: v2.point.join(&path), mount: v2.point.clone() };
        let base_fd = match beneath::open(&mount, &path, directory) {
            Err(Raw::XDEV) => return Err(outside()),
            answer => answer.map_err(|errno| fail("opened", &v2.point.join(&path), errno))?,
        };
        if !mounts::is_cgroup2(&base_fd) {
            return Err(outside());
        }
        let kind = kind_of(&base_fd).map_err(|errno| fail("examined", &v2.point.join(&path), errno))?;
        let mount_root =
            OsString::from_vec(v2.root.as_bytes().strip_suffix(b"/").unwrap_or(v2.root.as_bytes()).into());
        let below_mount = path.join(format!("pinfold.{realm}"));
        let shown = [mount_root.as_bytes(), b"/", below_mount.as_os_str().as_bytes()].concat();
        Ok(Self {
            mount,
            base: base_fd,
            point: v2.point.clone(),
            shown: OsString::from_vec(shown),
            mount_root,
            options: v2.options.clone(),
            realm: format!("pinfold.{realm}"),
            kind,
            scope: match (base, kind) {
                (None, BaseKind::Inner) => Scope::Proc,
                (None, BaseKind::Root) | (Some(_), _) => Scope::Subtree,
            },
            base_path: path,
            rest: RestPlace::Base,
            available: BTreeSet::new(),
            refused: Vec::new(),
            switched_on: BTreeSet::new(),
            held: Held::default(),
            leaves: Leaves::default(),
            programs: Programs::default(),
            switches: Switches::default(),
        })
    }

    fn switch_on(&mut self, wanted: &[&str]) -> Result<(), OpenError> {
        self.switched_on = self.remembered(&self.realm);
        let here = words(&self.read_at_base("cgroup.controllers")?);
        let on = words(&self.read_at_base("cgroup.subtree_control")?);
        let missing: Vec<&str> =
            wanted.iter().copied().filter(|c| here.contains(*c) && !on.contains(*c)).collect();
        if !missing.is_empty() && self.kind == BaseKind::Inner {
            self.clear_base()?;
        }
        // Remembered before it is done: a daemon that is killed in between must not forget.
        let intended =
            self.switched_on.iter().cloned().chain(missing.iter().map(|c| (*c).to_owned())).collect();
        self.remember(&self.realm, &intended);
        for controller in missing {
            if self.switch("+", controller, Path::new("")) {
                self.switched_on.insert(controller.to_owned());
            }
        }
        self.remember(&self.realm, &self.switched_on);
        let on = words(&self.read_at_base("cgroup.subtree_control")?);
        let realm = PathBuf::from(&self.realm);
        for controller in wanted.iter().filter(|controller| on.contains(**controller)) {
            if self.switch("+", controller, &realm) {
                self.available.insert((*controller).to_owned());
            }
        }
        self.rest = match self.kind {
            BaseKind::Inner if !on.is_empty() => RestPlace::Directory,
            BaseKind::Inner | BaseKind::Root => RestPlace::Base,
        };
        Ok(())
    }

    /// Writes one controller to a `cgroup.subtree_control` below the base. A refusal is kept, not fatal: the realm
    /// then works without that controller.
    fn switch(&mut self, sign: &str, controller: &str, dir: &Path) -> bool {
        let answer = beneath::write(
            &self.base,
            dir.join("cgroup.subtree_control"),
            format!("{sign}{controller}").as_bytes(),
        );
        if let Err(errno) = answer {
            self.refused.push(Refused { controller: controller.to_owned(), errno });
        }
        answer.is_ok()
    }

    /// Moves the base's own processes into `pinfold.rest`.
    fn clear_base(&self) -> Result<(), OpenError> {
        for _ in 0..ROUNDS {
            let (found, hidden) = scope::numbers(&self.read_at_base("cgroup.procs")?);
            if found.is_empty() && hidden == 0 {
                return Ok(());
            }
            match rustix::fs::mkdirat(&self.base, REST, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Raw::EXIST) => {}
                Err(errno) => return Err(self.system("made", REST, errno)),
            }
            if found.is_empty() {
                return Err(OpenError::Occupied { base: self.base(), count: hidden });
            }
            self.transfer(&found, Path::new(REST)).map_err(|errno| self.system("entered", REST, errno))?;
        }
        let count = scope::numbers(&self.read_at_base("cgroup.procs")?).0.len();
        Err(OpenError::Occupied { base: self.base(), count })
    }

    /// Moves processes to a directory below the base; those that exit meanwhile are passed over.
    pub(crate) fn transfer(&self, processes: &[HostPid], to: &Path) -> Result<(), Raw> {
        let procs = to.join("cgroup.procs");
        for process in processes {
            match beneath::write(&self.base, &procs, process.to_string().as_bytes()) {
                Ok(()) | Err(Raw::SRCH) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    fn read_at_base(&self, file: &str) -> Result<Vec<u8>, OpenError> {
        beneath::read(&self.base, file).map_err(|errno| self.system("read", file, errno))
    }

    fn system(&self, operation: &'static str, below_base: impl AsRef<Path>, errno: Raw) -> OpenError {
        OpenError::System { operation, path: self.display(below_base), errno }
    }
}

/// What to do about an error, on a line of its own.
const fn hint(errno: Raw) -> &'static str {
    match errno {
        Raw::ACCESS | Raw::PERM => "\nrun as root, or give a directory that was delegated to you as the base",
        Raw::ROFS => "\nmount the cgroup v2 tree so that it can be written",
        _ => "",
    }
}

/// The base below the mount point, links resolved.
fn below(point: &Path, base: &Path) -> Result<PathBuf, OpenError> {
    let failed = |error: std::io::Error| OpenError::System {
        operation: "found",
        path: base.into(),
        errno: Raw::from_io_error(&error).unwrap_or(Raw::IO),
    };
    let found = base.canonicalize().map_err(failed)?;
    let point_found = point.canonicalize().map_err(failed)?;
    found
        .strip_prefix(&point_found)
        .map(Path::to_path_buf)
        .map_err(|_| OpenError::NotInTree { base: base.into(), mount: point.into() })
}

/// The root of the whole tree is the only directory without `cgroup.type` (CFTYPE_NOT_ON_ROOT).
fn kind_of(base: &OwnedFd) -> Result<BaseKind, Raw> {
    match beneath::open(base, OsStr::new("cgroup.type"), OFlags::PATH) {
        Ok(_) => Ok(BaseKind::Inner),
        Err(Raw::NOENT) => Ok(BaseKind::Root),
        Err(errno) => Err(errno),
    }
}
