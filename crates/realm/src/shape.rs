//! Groups come, go and change their names.

use std::ffi::OsStr;

use pinfold_files::{Birth, Sight, Texts};
use pinfold_kernel::process;
use pinfold_kernel::users::users_of;
use pinfold_model::{Forest, Gid, GroupId, Name, Ownership, Seat, Uid, Users};

use crate::names::lookup_in;
use crate::realm::{Changes, is_trusted, now, state_path, surroundings};
use crate::record;
use crate::release::agent_of;
use crate::requester::is_confined_root;
use crate::state::GroupPath;
use crate::{
    Caller, Changed, EffectError, Fate, FrontEnd, GroupChange, LookupError, MakeError, Node, Realm,
    RemoveError, RenameError,
};

impl Realm {
    /// Makes a group, owned by the caller: cgroup_mkdir().
    pub fn make(
        &self,
        caller: &Caller,
        parent: GroupId,
        name: &OsStr,
        mode: u16,
    ) -> Result<GroupId, MakeError> {
        let is_the_hosts = self.is_the_hosts(caller);
        let change = self.begin_change()?;
        self.make_locked(&change, caller, is_the_hosts, parent, name, mode)
    }

    /// Whether a caller is held to no limits on numbers: root, or whom the daemon runs as, and not in a container, nor without what makes
    /// it the host's root.
    pub(crate) fn is_the_hosts(&self, caller: &Caller) -> bool {
        let is_of_host = |task| {
            let is_neighbour =
                task == process::own_pid() || self.pins.map_of(task).is_ok_and(|map| map.is_same());
            is_neighbour
                && users_of(task).is_ok_and(|users| {
                    matches!(users, Users::Daemons { .. }) && !is_confined_root(task, caller.uid, &users)
                })
        };
        is_trusted(caller.uid) && caller.task.is_some_and(is_of_host)
    }

    /// [`Self::make`], where it is known whether the caller is held to limits on numbers.
    pub(crate) fn make_locked(
        &self,
        _change: &Changes,
        caller: &Caller,
        is_the_hosts: bool,
        parent: GroupId,
        name: &OsStr,
        mode: u16,
    ) -> Result<GroupId, MakeError> {
        let name = Name::new(name)?;
        let bound = match is_the_hosts || !is_trusted(caller.uid) {
            true => None,
            false => Some(self.group_of_caller(caller, parent)),
        };
        let made_inside = bound.is_some();
        let (plan, path, settings, ownership) = {
            let mut forest = self.lock_forest();
            if let Ok(Node::File(..)) = lookup_in(&forest, &self.facts, parent, name.as_os_str()) {
                return Err(MakeError::ControlFile(name));
            }
            let limits = &self.config.limits;
            match bound {
                _ if is_the_hosts => {}
                None => forest.may_grow(parent, caller.uid, is_trusted, limits)?,
                Some(bound) => forest.may_grow_within(bound, parent, limits)?,
            }
            let plan = forest.plan_make(parent, name.clone())?;
            let path = state_path(&forest, parent).expect("the plan holds the parent").child(&name);
            let bound = surroundings(&forest, parent).expect("the plan holds the parent").bound;
            let sight = Sight { forest: &forest, group: parent, v2: &Texts::default(), facts: &self.facts };
            let settings = pinfold_files::inherited(bound, &sight, birth_by(caller));
            let above = forest.group(parent).expect("the plan holds the parent");
            (plan, path, settings, new_ownership(caller, mode, above.ownership()))
        };
        let id = plan.id();
        let text = record::new_group_text(id, &settings, made_inside);
        if let Err(error) = self.state.make_group(&path, ownership, &text) {
            self.lock_forest().abort_make(plan);
            return Err(EffectError::from(error).into());
        }
        {
            let mut forest = self.lock_forest();
            forest.commit_make(plan, ownership, settings, now());
            if made_inside && let Some(group) = forest.group_mut(id) {
                group.set_made_inside();
            }
        }
        self.tell_group(caller, parent, name.as_os_str(), Fate::Created);
        Ok(id)
    }

    /// The group that a caller is in, in the hierarchy of another; that hierarchy's root, if it is not known.
    fn group_of_caller(&self, caller: &Caller, other: GroupId) -> GroupId {
        let seat = caller.task.and_then(|task| self.seat_of(task));
        let forest = self.lock_forest();
        let Some(hierarchy) = forest.group(other).map(|group| group.hierarchy()) else { return other };
        let own = match seat {
            Some(Seat::Cell(cell)) => forest.group_of(cell, hierarchy),
            Some(Seat::Outside(_)) | None => None,
        };
        own.or_else(|| forest.hierarchy(hierarchy).map(|hierarchy| hierarchy.root())).unwrap_or(other)
    }

    /// Removes a group without processes and children: cgroup_rmdir().
    pub fn remove(&self, caller: &Caller, parent: GroupId, name: &OsStr) -> Result<(), RemoveError> {
        let mut change = self.begin_change()?;
        self.remove_locked(&mut change, caller, parent, name)
    }

    pub(crate) fn remove_locked(
        &self,
        change: &mut Changes,
        caller: &Caller,
        parent: GroupId,
        name: &OsStr,
    ) -> Result<(), RemoveError> {
        let group = match lookup_in(&self.lock_forest(), &self.facts, parent, name)? {
            Node::Group(group) => group,
            Node::File(..) => return Err(RemoveError::ControlFile(name.to_owned())),
        };
        if !self.is_occupied(change, group)? {
            self.retire_what_is_charged(change, group)?;
        }
        let (plan, path) = {
            let mut forest = self.lock_forest();
            (forest.plan_remove(group)?, state_path(&forest, group))
        };
        let path = path.expect("the plan holds the group");
        if let Err(error) = self.state.remove_group(&path) {
            self.lock_forest().abort_remove(plan);
            return Err(EffectError::from(error).into());
        }
        // Of its release, it is told after it has gone, too.
        let told = match self.releases.is_told(group) {
            true => agent_of(&self.lock_forest(), group),
            false => None,
        };
        self.lock_forest().commit_remove(plan, now());
        change.numbered.remove(&group);
        self.followed.forget(group);
        self.releases.forget(group, told);
        self.notices.removed(group);
        self.tell_group(caller, parent, name, Fate::Removed);
        self.release_if_idle(parent);
        Ok(())
    }

    /// Gives a group another name below the same parent: cgroup1_rename().
    pub fn rename(
        &self,
        caller: &Caller,
        parent: GroupId,
        from: &OsStr,
        new_parent: GroupId,
        to: &OsStr,
    ) -> Result<(), RenameError> {
        let name = Name::new(to)?;
        let _change = self.begin_change()?;
        let (plan, old, new, below) = {
            let mut forest = self.lock_forest();
            let group = match lookup_in(&forest, &self.facts, parent, from)? {
                Node::Group(group) => group,
                Node::File(..) => return Err(RenameError::ControlFile(from.to_owned())),
            };
            if parent != new_parent {
                return Err(RenameError::OtherParent);
            }
            if let Ok(Node::File(..)) = lookup_in(&forest, &self.facts, parent, to) {
                return Err(RenameError::Taken(name));
            }
            let old = state_path(&forest, group).ok_or_else(|| LookupError::NotFound(from.to_owned()))?;
            let new = state_path(&forest, parent).expect("a parent outlives its children").child(&name);
            let below = longest_below(&forest, group);
            (forest.plan_rename(group, name)?, old, new, below)
        };
        if let Err(error) = self.state.rename_group(&old, &new, below) {
            self.lock_forest().abort_rename(plan);
            return Err(EffectError::from(error).into());
        }
        self.lock_forest().commit_rename(plan, now());
        self.tell_group(caller, parent, from, Fate::Removed);
        self.tell_group(caller, parent, to, Fate::Created);
        Ok(())
    }

    fn tell_group(&self, caller: &Caller, parent: GroupId, name: &OsStr, fate: Fate) {
        let Some(hierarchy) = self.lock_forest().group(parent).map(|group| group.hierarchy()) else { return };
        let name = name.to_owned();
        self.watchers.tell(&Changed::Entry { hierarchy, parent, name: name.clone(), via: caller.via });
        self.watchers.tell(&Changed::Group(GroupChange { hierarchy, parent, name, fate }));
    }
}

/// How many bytes the longest way from a group to one below it has, as names are kept.
fn longest_below(forest: &Forest, group: GroupId) -> usize {
    let mut longest = 0;
    let mut stack = vec![(group, 0)];
    while let Some((at, bytes)) = stack.pop() {
        longest = longest.max(bytes);
        let children = forest.group(at).into_iter().flat_map(|group| group.children());
        stack.extend(children.map(|(name, child)| (child, bytes + GroupPath::step(name))));
    }
    longest
}

/// A mount makes groups as v1 does; who comes another way wants one that can be used.
fn birth_by(caller: &Caller) -> Birth {
    if caller.via == FrontEnd::NONE { Birth::Ready } else { Birth::Mkdir }
}

/// Who owns a new group: the caller; but root's groups go to the users' group of a set-group-id directory.
/// Source: cgroup_kn_set_ugid(), __kernfs_new_node().
fn new_ownership(caller: &Caller, mode: u16, above: Ownership) -> Ownership {
    const SET_GROUP_ID: u16 = 0o2000;
    let inherits = above.mode & SET_GROUP_ID;
    let is_root = caller.uid == Uid(0) && caller.gid == Gid(0);
    let gid = if inherits != 0 && is_root { above.gid } else { caller.gid };
    Ownership { uid: caller.uid, gid, mode: mode & 0o7777 | inherits }
}
