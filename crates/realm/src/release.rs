//! What happens when a group has no process and no child any more: its release agent is told, or it goes.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::sync::mpsc;

use pinfold_kernel::agent;
use pinfold_model::{CellId, Forest, Gid, Group, GroupId, Uid, Value};

use crate::names::path_of;
use crate::realm::Changes;
use crate::{Caller, EffectError, FrontEnd, Node, Realm, XattrError, XattrMode};

/// What is to be done about a group that has become idle.
#[derive(Debug)]
pub(crate) enum Release {
    /// Its agent is run with its path.
    Agent { agent: OsString, path: OsString },
    /// It goes, if it is idle still.
    Remove(GroupId),
    /// Nothing more is done.
    Stop,
}

/// The extended attribute that a group has which goes when it is empty. Of class `trusted.`: through a mount only the
/// host's root sets it, as only it sets a release agent.
const REMOVE_ON_EMPTY: &str = "trusted.pinfold.remove_on_empty";

impl Realm {
    /// Has the release agent run if the group is idle and asks for it: cgroup1_check_for_release().
    pub(crate) fn release_if_idle(&self, group: GroupId) {
        let (release, goes) = {
            let forest = self.lock_forest();
            let goes = forest.is_idle(group) && forest.group(group).is_some_and(goes_when_empty);
            (release_of(&forest, group), goes.then_some(Release::Remove(group)))
        };
        for release in release.into_iter().chain(goes) {
            // The receiver is gone only while the realm goes down, when no group is released any more.
            self.releases.send(release).ok();
        }
    }

    /// Retires those of a group's cells whose processes have ended, if the group's agent waits for that: who comes in
    /// now must not hide that the group was empty.
    pub(crate) fn release_what_is_empty(
        &self,
        change: &mut Changes,
        group: GroupId,
    ) -> Result<(), EffectError> {
        let asked = self.lock_forest().group(group).is_some_and(asks_for_release);
        if asked { self.retire_what_is_empty(change, group) } else { Ok(()) }
    }

    /// Retires a cell that a process was moved out of, at once if an agent waits for that. Otherwise its event tells.
    pub(crate) fn release_if_left_empty(&self, change: &mut Changes, cell: CellId) {
        let asked = {
            let forest = self.lock_forest();
            let groups = forest.cell(cell).into_iter().flat_map(|cell| cell.groups());
            groups.into_iter().filter_map(|group| forest.group(*group)).any(asks_for_release)
        };
        if asked && let Err(error) = self.retire(change, cell) {
            tracing::warn!("cell {cell} stays although it may be empty: {}", crate::error::chain(&error));
        }
    }

    /// Has a group removed when its last process or its last child goes; it may be empty now.
    pub(crate) fn set_remove_on_empty(&self, change: &Changes, group: GroupId) -> Result<(), XattrError> {
        let daemon = Caller { uid: Uid(0), gid: Gid(0), task: None, via: FrontEnd::NONE };
        let name = OsStr::new(REMOVE_ON_EMPTY);
        self.set_xattr_locked(change, &daemon, Node::Group(group), name, b"1", XattrMode::Set)
    }

    /// Runs release agents, each once, and removes what goes when it is empty, until the realm is stopped.
    pub(crate) fn run_agents(&self, releases: &mpsc::Receiver<Release>) {
        for release in releases {
            match release {
                Release::Stop => return,
                Release::Remove(group) => self.remove_idle(group),
                Release::Agent { agent, path } => match agent::start(&agent, &path) {
                    Ok(_reaped_on_drop) => tracing::debug!("release agent {agent:?} runs for {path:?}"),
                    Err(error) => tracing::warn!("{error}"),
                },
            }
        }
    }

    fn remove_idle(&self, group: GroupId) {
        let daemon = Caller { uid: Uid(0), gid: Gid(0), task: None, via: FrontEnd::NONE };
        let gone = self.parent_and_name(group).and_then(|(parent, name)| self.remove(&daemon, parent, &name));
        match gone {
            Ok(()) => tracing::debug!("group {group} was empty and has gone"),
            // Somebody came in, or was faster.
            Err(error) => tracing::debug!("group {group} stays: {}", crate::error::chain(&error)),
        }
    }

    /// Ends [`Realm::run_agents`].
    pub(crate) fn stop_agents(&self) {
        self.releases.send(Release::Stop).ok();
    }
}

fn goes_when_empty(group: &Group) -> bool {
    group.xattrs().is_some_and(|xattrs| xattrs.contains_key(REMOVE_ON_EMPTY.as_bytes()))
}

/// Whether somebody waits for it to be empty.
pub(crate) fn asks_for_release(group: &Group) -> bool {
    goes_when_empty(group) || notifies(group)
}

fn notifies(group: &Group) -> bool {
    pinfold_files::NOTIFY_ON_RELEASE.of(group.settings()) == &Value::Flag(true)
}

fn release_of(forest: &Forest, group: GroupId) -> Option<Release> {
    let found = forest.group(group).filter(|_| forest.is_idle(group))?;
    found.parent()?; // a hierarchy's root is never released
    let root = forest.group(forest.hierarchy(found.hierarchy())?.root())?;
    let Value::Text(agent) = pinfold_files::RELEASE_AGENT.of(root.settings()) else { return None };
    if !notifies(found) || agent.is_empty() {
        return None;
    }
    Some(Release::Agent { agent: OsStr::from_bytes(agent).to_owned(), path: path_of(forest, group)? })
}
