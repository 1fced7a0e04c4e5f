//! Release agents: told when a group that asks for it has no process and no child any more.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::sync::mpsc;

use pinfold_kernel::agent;
use pinfold_model::{CellId, Forest, Group, GroupId, Value};

use crate::names::path_of;
use crate::realm::Changes;
use crate::{EffectError, Realm};

/// An agent that is to be run.
#[derive(Debug)]
pub(crate) struct Release {
    agent: OsString,
    path: OsString,
}

impl Realm {
    /// Has the release agent run if the group is idle and asks for it: cgroup1_check_for_release().
    pub(crate) fn release_if_idle(&self, group: GroupId) {
        let release = release_of(&self.lock_forest(), group);
        if let Some(release) = release {
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

    /// Runs release agents, each once, until every sender is gone or the realm is stopped.
    pub(crate) fn run_agents(releases: &mpsc::Receiver<Release>) {
        for Release { agent, path } in releases {
            if agent.is_empty() {
                return;
            }
            match agent::start(&agent, &path) {
                Ok(_reaped_on_drop) => tracing::debug!("release agent {agent:?} runs for {path:?}"),
                Err(error) => tracing::warn!("{error}"),
            }
        }
    }

    /// Ends [`Realm::run_agents`].
    pub(crate) fn stop_agents(&self) {
        self.releases.send(Release { agent: OsString::new(), path: OsString::new() }).ok();
    }
}

fn asks_for_release(group: &Group) -> bool {
    pinfold_files::NOTIFY_ON_RELEASE.of(group.settings()) == &Value::Flag(true)
}

fn release_of(forest: &Forest, group: GroupId) -> Option<Release> {
    let found = forest.group(group).filter(|_| forest.is_idle(group))?;
    found.parent()?; // a hierarchy's root is never released
    let root = forest.group(forest.hierarchy(found.hierarchy())?.root())?;
    let Value::Text(agent) = pinfold_files::RELEASE_AGENT.of(root.settings()) else { return None };
    if !asks_for_release(found) || agent.is_empty() {
        return None;
    }
    Some(Release { agent: OsStr::from_bytes(agent).to_owned(), path: path_of(forest, group)? })
}
