//! Telling front ends what has changed: what their caches should forget, and whom their subscribers follow.

use std::ffi::OsString;
use std::sync::RwLock;

use pinfold_model::{GroupId, HierarchyId, HostPid};

use crate::{FrontEnd, Node};

/// Something that a front end may have cached, or follows, has changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Changed {
    /// A name in a group came or went.
    Entry {
        /// The hierarchy.
        hierarchy: HierarchyId,
        /// The group that the name is in.
        parent: GroupId,
        /// The name.
        name: OsString,
        /// Who did it.
        via: FrontEnd,
    },
    /// Owner, mode or link count changed.
    Attributes {
        /// The hierarchy.
        hierarchy: HierarchyId,
        /// Of what.
        node: Node,
        /// Who did it.
        via: FrontEnd,
    },
    /// A group came or went.
    Group(GroupChange),
    /// A hierarchy came or went.
    Hierarchy(HierarchyChange),
}

/// An attach: some groups get other members. Forks and exits are not told.
#[derive(Clone, Copy)]
pub enum Attach<'a> {
    /// A process that is there is about to be attached. It may still be refused: nothing more is told then.
    Begins(HostPid),
    /// A process was attached. It may have ended since.
    Done {
        /// Which one.
        process: HostPid,
        /// Finds out which groups it is in now, for who has a use for that: one of each hierarchy, and those above.
        groups: &'a dyn Fn() -> Vec<GroupId>,
    },
}

/// A group that came or went; one that got another name did both.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupChange {
    /// Its hierarchy.
    pub hierarchy: HierarchyId,
    /// The group above it.
    pub parent: GroupId,
    /// Its name there.
    pub name: OsString,
    /// What became of it.
    pub fate: Fate,
}

/// A hierarchy that came or went; one that got other controllers did both.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HierarchyChange {
    /// Its controllers and its name, as in `/proc/PID/cgroup`.
    pub label: String,
    /// What became of it.
    pub fate: Fate,
}

/// What became of a group, or of a hierarchy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It was made.
    Created,
    /// It was removed.
    Removed,
}

/// Whom to tell of something. A watcher must not call back into the realm and must not wait for anybody who does: for that, it hands over
/// to a thread of its own. Whoever follows groups has the thread that serves process events read what there is, and waits for it: that
/// one waits for nobody who changes something.
pub(crate) struct Watchers<W: ?Sized>(RwLock<Vec<Box<W>>>);

/// Whom to tell of changes.
pub(crate) type ChangeWatcher = dyn Fn(&Changed) + Send + Sync;

/// Whom to tell of attaches.
pub(crate) type AttachWatcher = dyn Fn(Attach<'_>) + Send + Sync;

impl<W: ?Sized> Watchers<W> {
    pub(crate) fn add(&self, watcher: Box<W>) {
        self.0.write().expect("no watcher panics while the list is held").push(watcher);
    }

    fn each(&self, tell: impl Fn(&W)) {
        self.0
            .read()
            .expect("no watcher panics while the list is held")
            .iter()
            .for_each(|watcher| tell(watcher));
    }
}

impl Watchers<ChangeWatcher> {
    pub(crate) fn tell(&self, changed: &Changed) {
        self.each(|watcher| watcher(changed));
    }
}

impl Watchers<AttachWatcher> {
    pub(crate) fn tell(&self, attach: Attach<'_>) {
        self.each(|watcher| watcher(attach));
    }
}

impl<W: ?Sized> Default for Watchers<W> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}
