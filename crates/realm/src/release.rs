//! What happens when a group has no process and no child any more: its release agent is told, or it goes.
//!
//! Agents and removals have a thread each. Whose turn it is waits once, however often it was empty meanwhile, as the kernel has one
//! release_agent_work for each group: who empties a group of its own again and again makes nobody's memory fill. With which path, and which
//! agent, is asked when it is its turn.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use pinfold_kernel::agent;
use pinfold_model::{CellId, Forest, Gid, Group, GroupId, Uid, Value};

use crate::names::path_of;
use crate::realm::Changes;
use crate::{Caller, EffectError, FrontEnd, Node, Realm, XattrError, XattrMode};

/// How many agents run at once; the next one waits until one has ended.
const MOST_AGENTS: usize = 64;

/// Of how many groups that were removed before it was their turn the agents are told: on v1 they are of all.
const MOST_GONE: usize = 256;

/// The extended attribute that a group has which goes when it is empty. Of class `trusted.`: through a mount only the
/// host's root sets it, as only it sets a release agent.
const REMOVE_ON_EMPTY: &str = "trusted.pinfold.remove_on_empty";

/// The groups of which something is to be done because they became idle.
#[derive(Default)]
pub(crate) struct Releases {
    due: Mutex<Due>,
    changed: Condvar,
}

#[derive(Default)]
struct Due {
    /// Their agents are to be told.
    told: Turns,
    /// What the agents of those are told that were removed since.
    gone: HashMap<GroupId, Told>,
    /// They go, if they are idle still.
    removed: Turns,
    running: usize,
    is_over: bool,
}

/// An agent, and the path of the group that it is told of.
type Told = (OsString, OsString);

/// Groups in the order in which they came, each once.
#[derive(Default)]
struct Turns {
    last: u64,
    groups: BTreeMap<u64, GroupId>,
    turns: HashMap<GroupId, u64>,
}

impl Turns {
    fn push(&mut self, group: GroupId) {
        if !self.turns.contains_key(&group) {
            self.last += 1;
            self.groups.insert(self.last, group);
            self.turns.insert(group, self.last);
        }
    }

    fn pop(&mut self) -> Option<GroupId> {
        let (_, group) = self.groups.pop_first()?;
        self.turns.remove(&group);
        Some(group)
    }

    fn forget(&mut self, group: GroupId) {
        if let Some(turn) = self.turns.remove(&group) {
            self.groups.remove(&turn);
        }
    }
}

/// A place among the agents that run. Dropping it makes room for another.
struct Running(Arc<Releases>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.change(|due| due.running -= 1);
    }
}

impl Releases {
    fn lock(&self) -> MutexGuard<'_, Due> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner) // tables: always whole
    }

    fn change(&self, change: impl FnOnce(&mut Due)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// A group is removed: whether its agent is to be told still.
    pub(crate) fn is_told(&self, group: GroupId) -> bool {
        self.lock().told.turns.contains_key(&group)
    }

    /// A group was removed, of which its agent is told this, if it is to be told still. The kernel cancels the work of a group that is
    /// freed (css_free_rwork_fn()), which is long after it was removed.
    pub(crate) fn forget(&self, group: GroupId, told: Option<Told>) {
        let mut due = self.lock();
        due.removed.forget(group);
        match told.filter(|_| due.gone.len() < MOST_GONE && due.told.turns.contains_key(&group)) {
            Some(told) => _ = due.gone.insert(group, told),
            None => due.told.forget(group),
        }
    }

    /// Ends [`Realm::run_agents`] and [`Realm::remove_idle`]. What is due by then is done first, but no agent is waited for.
    pub(crate) fn stop(&self) {
        self.change(|due| due.is_over = true);
    }

    /// Waits for the next; `None`: there will be none.
    fn next<T>(&self, mut find: impl FnMut(&mut Due) -> Option<T>) -> Option<T> {
        let mut due = self.lock();
        loop {
            let found = find(&mut due);
            if found.is_some() || due.is_over {
                return found;
            }
            due = self.changed.wait(due).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// With what its agent is told, if it was removed since.
    fn next_told(self: &Arc<Self>) -> Option<(GroupId, Option<Told>, Running)> {
        let next = self.next(|due| {
            let group = if due.running < MOST_AGENTS { due.told.pop() } else { None };
            due.running += usize::from(group.is_some());
            group.map(|group| (group, due.gone.remove(&group)))
        });
        next.map(|(group, gone)| (group, gone, Running(Arc::clone(self))))
    }
}

impl Realm {
    /// Has the release agent run if the group is idle and asks for it: cgroup1_check_for_release().
    pub(crate) fn release_if_idle(&self, group: GroupId) {
        let (is_told, goes) = {
            let forest = self.lock_forest();
            let Some(found) = forest.group(group).filter(|_| forest.is_idle(group)) else { return };
            // A hierarchy's root is never released.
            (found.parent().is_some() && notifies(found), goes_when_empty(found))
        };
        match (is_told, goes) {
            // It goes when its agent was told.
            (true, _) => self.releases.change(|due| due.told.push(group)),
            (false, true) => self.releases.change(|due| due.removed.push(group)),
            (false, false) => {}
        }
    }

    /// Removes a group that goes when it is empty and was made for nothing: nobody has left it.
    pub(crate) fn remove_if_nobody_came(&self, group: GroupId) {
        let goes = {
            let forest = self.lock_forest();
            forest.is_idle(group) && forest.group(group).is_some_and(goes_when_empty)
        };
        if goes {
            self.releases.change(|due| due.removed.push(group));
        }
    }

    /// Retires the cells of a group in which nobody is any more, if the group's agent waits for that: who comes in
    /// now must not hide that the group was empty.
    pub(crate) fn release_if_empty(&self, change: &mut Changes, group: GroupId) -> Result<(), EffectError> {
        let asked = self.lock_forest().group(group).is_some_and(asks_for_release);
        if asked { self.is_occupied(change, group).map(drop) } else { Ok(()) }
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
        self.set_xattr_locked(change, &daemon, true, Node::Group(group), name, b"1", XattrMode::Set)
    }

    /// Runs release agents until the realm is stopped: cgroup1_release_agent().
    pub(crate) fn run_agents(&self) {
        let mut last = String::new();
        while let Some((group, gone, running)) = self.releases.next_told() {
            let (told, goes) = {
                let forest = self.lock_forest();
                (gone.or_else(|| agent_of(&forest, group)), forest.group(group).is_some_and(goes_when_empty))
            };
            if let Some((agent, path)) = told {
                match agent::start(&agent, &path) {
                    Ok(started) => {
                        tracing::debug!("release agent {agent:?} runs for {path:?}");
                        started.reap(running);
                    }
                    Err(error) => {
                        // Told once: whoever can empty a group can have it fail as often as he likes.
                        let error = error.to_string();
                        if error != last {
                            tracing::warn!("{error}");
                        }
                        last = error;
                    }
                }
            }
            if goes {
                self.releases.change(|due| due.removed.push(group));
            }
        }
    }

    /// Removes what goes when it is empty, until the realm is stopped.
    pub(crate) fn remove_idle(&self) {
        let daemon = Caller { uid: Uid(0), gid: Gid(0), task: None, via: FrontEnd::NONE };
        while let Some(group) = self.releases.next(|due| due.removed.pop()) {
            let gone =
                self.parent_and_name(group).and_then(|(parent, name)| self.remove(&daemon, parent, &name));
            match gone {
                Ok(()) => tracing::debug!("group {group} was empty and has gone"),
                // Somebody came in, or was faster.
                Err(error) => tracing::debug!("group {group} stays: {}", crate::error::chain(&error)),
            }
        }
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

/// The agent of a group's hierarchy, and what it is told.
pub(crate) fn agent_of(forest: &Forest, group: GroupId) -> Option<Told> {
    let root = forest.group(forest.hierarchy(forest.group(group)?.hierarchy())?.root())?;
    let Value::Text(agent) = pinfold_files::RELEASE_AGENT.of(root.settings()) else { return None };
    let agent = OsStr::from_bytes(agent).to_owned();
    Some((agent, path_of(forest, group)?)).filter(|(agent, _)| !agent.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Fixture;

    /// A realm of which nobody looks after anything.
    fn with_realm(name: &str, test: impl FnOnce(&Arc<Realm>, &Caller, GroupId)) {
        let it = Fixture::new(name, std::time::Duration::from_secs(60));
        let root = it.mount("none,name=x");
        test(&it.realm, &it.caller, root);
        it.close();
    }

    fn make(realm: &Realm, caller: &Caller, parent: GroupId, name: &str, notifies: bool) -> GroupId {
        let made = realm.make(caller, parent, name.as_ref(), 0o755).expect("new");
        let file = pinfold_files::named("notify_on_release").expect("a row");
        let opener = realm.opener(caller, file, true);
        realm.write(caller, opener, made, file, if notifies { b"1" } else { b"0" }).expect("a flag");
        made
    }

    /// Whose agents are due, and of what nobody waits.
    fn due(realm: &Realm) -> Vec<GroupId> {
        realm.releases.stop();
        std::iter::from_fn(|| realm.releases.next_told()).map(|(group, ..)| group).collect()
    }

    #[test]
    fn a_group_that_is_emptied_again_and_again_waits_once_for_its_agent() {
        with_realm("waiting", |realm, caller, root| {
            let group = make(realm, caller, root, "a", true);
            let other = make(realm, caller, root, "b", true);
            for _ in 0..100 {
                for group in [group, other] {
                    make(realm, caller, group, "below", false);
                    realm.remove(caller, group, "below".as_ref()).expect("empty");
                }
            }
            assert_eq!(due(realm), [group, other]);
        });
    }

    #[test]
    fn of_groups_that_are_gone_agents_are_told_too_but_only_of_so_many() {
        with_realm("gone", |realm, caller, root| {
            let file = pinfold_files::named("release_agent").expect("a row");
            realm.write(caller, realm.opener(caller, file, true), root, file, b"/agent").expect("a path");
            for _ in 0..MOST_GONE + 50 {
                let group = make(realm, caller, root, "a", true);
                make(realm, caller, group, "below", false);
                realm.remove(caller, group, "below".as_ref()).expect("empty");
                realm.remove(caller, root, "a".as_ref()).expect("empty");
            }
            realm.releases.stop();
            let told = std::iter::from_fn(|| realm.releases.next_told()).map(|(_, gone, _)| gone);
            assert_eq!(told.collect::<Vec<_>>(), vec![Some(("/agent".into(), "/a".into())); MOST_GONE]);
            assert!(realm.releases.lock().gone.is_empty());
        });
    }

    #[test]
    fn so_many_agents_run_at_once_and_what_goes_waits_for_none() {
        with_realm("agents", |realm, caller, root| {
            let waiting: Vec<GroupId> =
                (0..=MOST_AGENTS).map(|name| make(realm, caller, root, &name.to_string(), true)).collect();
            waiting.iter().for_each(|group| realm.release_if_idle(*group));
            let goes = make(realm, caller, root, "goes", false);
            realm.set_remove_on_empty(&realm.lock_change(), goes).expect("kept");
            realm.release_if_idle(goes);
            let running: Vec<_> = (0..MOST_AGENTS).filter_map(|_| realm.releases.next_told()).collect();
            realm.releases.stop();
            assert!(realm.releases.next_told().is_none(), "every place is taken");
            realm.remove_idle();
            assert!(realm.path(goes).is_none());
            drop(running);
            let next = realm.releases.next_told().map(|(group, ..)| group);
            assert_eq!(next, waiting.last().copied());
        });
    }

    #[test]
    fn what_is_told_to_its_agent_goes_afterwards() {
        with_realm("both", |realm, caller, root| {
            let both = make(realm, caller, root, "a", true);
            realm.set_remove_on_empty(&realm.lock_change(), both).expect("kept");
            realm.release_if_idle(both);
            realm.releases.stop();
            realm.remove_idle();
            assert!(realm.path(both).is_some());
            realm.run_agents();
            realm.remove_idle();
            assert!(realm.path(both).is_none());
        });
    }
}
