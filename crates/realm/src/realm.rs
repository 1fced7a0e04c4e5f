//! The realm itself: what it is made of, and in which order its locks are taken.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};

use pinfold_events::Feeder;
use pinfold_files::{Facts, FileId};
use pinfold_kernel::pins::Pins;
use pinfold_model::{CellId, ControllerSet, Forest, Gid, GroupId, HierarchyId, Moment, Ownership, Uid};

use crate::by_cpu::FollowedFigures;
use crate::changed::{AttachWatcher, ChangeWatcher, Watchers};
use crate::descriptors::Descriptors;
use crate::notices::Notices;
use crate::register::Finders;
use crate::release::Releases;
use crate::resets::Resets;
use crate::shares::{Shares, Sharing};
use crate::state::{GroupPath, State};
use crate::tracker::{Tracked, Tracker};
use crate::{Attach, Changed, Config, EffectError};

/// One running pinfold: its hierarchies, its state directory, and who keeps its processes.
///
/// Two locks, always taken in this order:
/// 1. `change`: one change at a time, as under the kernel's cgroup_mutex. Held across system calls.
/// 2. `forest`: for a look, a plan or a commit. Never held across a system call (I4).
pub struct Realm {
    pub(crate) config: Config,
    pub(crate) state: State,
    pub(crate) tracker: Tracker,
    pub(crate) facts: Facts,
    pub(crate) enabled: ControllerSet,
    pub(crate) change: Mutex<Changes>,
    pub(crate) forest: Mutex<Forest>,
    /// v2 files that this kernel does not have. A leaf in the lock order.
    pub(crate) lacking: Mutex<HashSet<&'static str>>,
    /// Processes that asked or were asked about. A leaf in the lock order.
    pub(crate) pins: Pins,
    pub(crate) resets: Resets,
    pub(crate) followed: FollowedFigures,
    /// Whether directories are being removed: files of one that goes lack lines before they are gone themselves (`cpu.stat`, when
    /// its controller has left), so what is read meanwhile counts for nothing. Changed with `change` held.
    pub(crate) is_removing: AtomicBool,
    /// Whether the kernel forgets which CPUs a task chose when it gets another v2 directory ([`crate::affinity`]).
    pub(crate) forgets_choices: bool,
    pub(crate) watchers: Watchers<ChangeWatcher>,
    pub(crate) attach_watchers: Watchers<AttachWatcher>,
    pub(crate) finders: Finders,
    pub(crate) notices: Notices,
    /// Groups that became idle. A leaf in the lock order.
    pub(crate) releases: Arc<Releases>,
    /// Wakes the thread that looks after divided limits. A leaf in the lock order.
    pub(crate) sharing: Sharing,
}

/// What only the one who makes a change needs.
#[derive(Default)]
pub(crate) struct Changes {
    /// Groups whose number is in their settings file: those that a cell or a v2 directory refers to.
    pub(crate) numbered: HashSet<GroupId>,
    /// Groups whose counters after a cell went are in memory and in the record of that cell's fold, but not in their own
    /// file: the state directory was full.
    pub(crate) unkept: Vec<(CellId, GroupId)>,
    /// The parts of divided limits.
    pub(crate) shares: Shares,
    /// The processes whose descriptors are limited.
    pub(crate) descriptors: Descriptors,
    /// Set by `down`: no change is accepted from then on.
    pub(crate) closed: bool,
}

/// What a group's files need to know of its hierarchy.
#[derive(Clone, Copy)]
pub(crate) struct Surroundings {
    pub(crate) hierarchy: HierarchyId,
    pub(crate) bound: ControllerSet,
    pub(crate) noprefix: bool,
    pub(crate) is_root: bool,
}

impl Realm {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// Its state directory.
    pub fn state(&self) -> &Path {
        self.state.path()
    }

    /// What is fixed while the daemon runs.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The v2 directory below which it works; `None`: there is none.
    pub fn base(&self) -> Option<PathBuf> {
        self.tracker.base()
    }

    /// Has a service of process events told what the tracker `events` is told, from the list of all processes on, so that nobody is asked
    /// twice to tell. Answers whether this is the tracker.
    pub fn feed(&self, feeder: Feeder) -> bool {
        self.tracker.feed(feeder)
    }

    /// Has the tracker `events` take in, and pass on, what has happened up to now.
    pub fn take_in(&self) {
        self.tracker.take_in();
    }

    /// How the tracker `events` is doing; `None`: the kernel's v2 tree is the tracker.
    pub fn tracked(&self) -> Option<Tracked> {
        self.tracker.report()
    }

    /// The controllers that can be mounted here.
    pub fn enabled(&self) -> ControllerSet {
        self.enabled
    }

    /// Has `watcher` told of every change that a front end's cache must forget. It must not call back, nor wait for anybody who does.
    pub fn watch(&self, watcher: impl Fn(&Changed) + Send + Sync + 'static) {
        self.watchers.add(Box::new(watcher));
    }

    /// Has `watcher` told of every attach. It must not call back, nor wait for anybody who does.
    pub fn watch_attaches(&self, watcher: impl Fn(Attach<'_>) + Send + Sync + 'static) {
        self.attach_watchers.add(Box::new(watcher));
    }

    /// Begins a change, which no other change then disturbs. Refused once the realm goes down.
    pub(crate) fn begin_change(&self) -> Result<MutexGuard<'_, Changes>, EffectError> {
        let change = self.lock_change();
        if change.closed { Err(EffectError::Down) } else { Ok(change) }
    }

    pub(crate) fn lock_change(&self) -> MutexGuard<'_, Changes> {
        self.change.lock().unwrap_or_else(|_| half_done())
    }

    pub(crate) fn lock_forest(&self) -> MutexGuard<'_, Forest> {
        self.forest.lock().unwrap_or_else(|_| half_done())
    }
}

/// Somebody panicked in the middle of a change: what is in memory is no longer to be trusted. The state directory and the v2
/// tree are; the next daemon goes on from there (I8).
fn half_done() -> ! {
    tracing::error!(
        "a change was left half done, which is a bug: ending, so that the next start can put it right"
    );
    std::process::abort()
}

pub(crate) fn now() -> Moment {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    Moment { seconds: time.tv_sec, nanoseconds: u32::try_from(time.tv_nsec).unwrap_or(0) }
}

/// What surrounds a group; `None` if it is gone.
pub(crate) fn surroundings(forest: &Forest, group: GroupId) -> Option<Surroundings> {
    let found = forest.group(group)?;
    let hierarchy = forest.hierarchy(found.hierarchy())?;
    Some(Surroundings {
        hierarchy: found.hierarchy(),
        bound: hierarchy.controllers(),
        noprefix: hierarchy.flags().noprefix,
        is_root: found.parent().is_none(),
    })
}

/// Whether a group has this file at all.
pub(crate) fn has_file(around: &Surroundings, facts: &Facts, file: FileId) -> bool {
    let (controller, row) = pinfold_files::file(file);
    let bound = controller.name.is_empty()
        || pinfold_files::controller_named(controller.name).is_some_and(|id| around.bound.contains(id));
    bound && row.exists_in(around.is_root, facts)
}

/// A group's directory in the state directory. `None` if it is gone.
pub(crate) fn state_path(forest: &Forest, group: GroupId) -> Option<GroupPath> {
    let hierarchy = forest.hierarchy(forest.group(group)?.hierarchy())?;
    let names = forest.path(group)?;
    let root = GroupPath::root(&label(hierarchy.controllers(), hierarchy.name().map(|name| name.as_str())));
    Some(names.into_iter().fold(root, |path, name| path.child(name)))
}

/// A hierarchy as the second field of `/proc/PID/cgroup` has it: cgroup's proc_cgroup_show().
pub(crate) fn label(controllers: ControllerSet, name: Option<&str>) -> String {
    let mut words: Vec<String> =
        controllers.iter().map(|id| pinfold_files::controller(id).name.to_owned()).collect();
    words.extend(name.map(|name| format!("name={name}")));
    words.join(",")
}

/// Whether somebody is held to no limits on numbers: root, and whom the daemon runs as.
pub(crate) fn is_trusted(uid: Uid) -> bool {
    uid == Uid(0) || uid == own(0).uid
}

/// The owner of what the daemon makes by itself.
pub(crate) fn own(mode: u16) -> Ownership {
    Ownership {
        uid: Uid(rustix::process::geteuid().as_raw()),
        gid: Gid(rustix::process::getegid().as_raw()),
        mode,
    }
}
