//! Making, removing and renaming groups.

use crate::forest::{GroupGone, NoNumber, next};
use crate::group::Group;
use crate::{Errno, Forest, GroupId, Moment, Name, Ownership, Settings};

/// Why no group is made.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MakeError {
    /// The parent was removed.
    #[error(transparent)]
    Gone(#[from] GroupGone),
    /// The name is taken.
    #[error("{0} exists already")]
    Exists(Name),
    /// Every number was used, and none is ever used again.
    #[error(transparent)]
    NoNumber(#[from] NoNumber),
}

impl MakeError {
    /// The errno Linux gives: cgroup_kn_lock_live(), kernfs_add_one().
    pub const fn errno(&self) -> Errno {
        match self {
            Self::Gone(gone) => gone.errno(),
            Self::Exists(_) => Errno::EEXIST,
            Self::NoNumber(none) => none.errno(),
        }
    }
}

/// Why a group is not removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RemoveError {
    /// It was removed already.
    #[error(transparent)]
    Gone(#[from] GroupGone),
    /// A root goes with its hierarchy, not by rmdir.
    #[error("the root group of a hierarchy cannot be removed")]
    Root,
    /// It has child groups.
    #[error("group {0} has child groups")]
    HasChildren(GroupId),
    /// It has processes.
    #[error("group {0} has processes")]
    HasProcesses(GroupId),
}

impl RemoveError {
    /// The errno Linux gives: cgroup_destroy_locked().
    pub const fn errno(self) -> Errno {
        match self {
            Self::Gone(gone) => gone.errno(),
            Self::Root | Self::HasChildren(_) | Self::HasProcesses(_) => Errno::EBUSY,
        }
    }
}

/// Why a group is not renamed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RenameError {
    /// It was removed.
    #[error(transparent)]
    Gone(#[from] GroupGone),
    /// A root has no name.
    #[error("the root group of a hierarchy cannot be renamed")]
    Root,
    /// The name is taken.
    #[error("{0} exists already")]
    Exists(Name),
}

impl RenameError {
    /// The errno Linux gives: cgroup1_rename(), kernfs_rename_ns().
    pub const fn errno(&self) -> Errno {
        match self {
            Self::Gone(gone) => gone.errno(),
            Self::Root => Errno::EBUSY,
            Self::Exists(_) => Errno::EEXIST,
        }
    }
}

/// A group that may be made. Holds its parent and its name.
#[must_use]
#[derive(Debug)]
pub struct MakePlan {
    id: GroupId,
    parent: GroupId,
    name: Name,
}

/// A group that may be removed. Until commit or abort nothing can be put into it.
#[must_use]
#[derive(Debug)]
pub struct RemovePlan {
    id: GroupId,
}

/// A group that may be renamed. Holds the new name.
#[must_use]
#[derive(Debug)]
pub struct RenamePlan {
    id: GroupId,
    name: Name,
}

impl MakePlan {
    /// The id that the group will have.
    pub fn id(&self) -> GroupId {
        self.id
    }
}

impl Forest {
    /// Plans `mkdir`.
    pub fn plan_make(&mut self, parent: GroupId, name: Name) -> Result<MakePlan, MakeError> {
        let above = self.live_group(parent)?;
        if above.children.contains_key(&name) || self.reserved.contains(&(parent, name.clone())) {
            return Err(MakeError::Exists(name));
        }
        let id = self.next_group_id()?;
        self.reserved.insert((parent, name.clone()));
        self.pin_group(parent);
        Ok(MakePlan { id, parent, name })
    }

    /// The group is there.
    pub fn commit_make(&mut self, plan: MakePlan, ownership: Ownership, settings: Settings, now: Moment) {
        let MakePlan { id, parent, name } = plan;
        self.unpin_group(parent);
        self.reserved.remove(&(parent, name.clone()));
        let above = self.groups.get_mut(&parent).expect("the plan held the parent");
        above.children.insert(name.clone(), id);
        above.changed = now;
        let hierarchy = above.hierarchy;
        let mut group = Group::new(hierarchy, Some(parent), Some(name), ownership, now);
        group.settings = settings;
        self.groups.insert(id, group);
        self.made.add(ownership.uid);
        self.count(id, |descendants| descendants + 1);
        self.hierarchies.get_mut(&hierarchy).expect("a group's hierarchy exists").groups += 1;
    }

    /// The group was not made.
    pub fn abort_make(&mut self, plan: MakePlan) {
        self.unpin_group(plan.parent);
        self.reserved.remove(&(plan.parent, plan.name));
    }

    /// Plans `rmdir`.
    pub fn plan_remove(&mut self, id: GroupId) -> Result<RemovePlan, RemoveError> {
        let group = self.live_group(id)?;
        if group.parent.is_none() {
            return Err(RemoveError::Root);
        }
        if !group.children.is_empty() || group.pins > 0 {
            return Err(RemoveError::HasChildren(id));
        }
        if !group.cells.is_empty() {
            return Err(RemoveError::HasProcesses(id));
        }
        self.leaving.insert(id);
        Ok(RemovePlan { id })
    }

    /// The group has gone. Returns the group that was above.
    pub fn commit_remove(&mut self, plan: RemovePlan, now: Moment) -> GroupId {
        self.leaving.remove(&plan.id);
        self.count(plan.id, |descendants| descendants - 1);
        // Nobody is below it: what is counted there is its own.
        let kept = self.groups.get(&plan.id).map_or(0, |group| group.attributes);
        self.count_attributes(plan.id, kept, 0);
        let group = self.groups.remove(&plan.id).expect("a group that is leaving stays until here");
        let parent = group.parent.expect("roots are not removed by plan");
        self.made.take(group.files_owner().0);
        let above = self.groups.get_mut(&parent).expect("a parent outlives its children");
        above.children.remove(&group.name.expect("only roots have no name"));
        above.changed = now;
        self.hierarchies.get_mut(&group.hierarchy).expect("a group's hierarchy exists").groups -= 1;
        parent
    }

    /// The group stays.
    pub fn abort_remove(&mut self, plan: RemovePlan) {
        self.leaving.remove(&plan.id);
    }

    /// Plans `rename` within the same parent; the only rename there is (`EIO` otherwise: cgroup1_rename()).
    pub fn plan_rename(&mut self, id: GroupId, name: Name) -> Result<RenamePlan, RenameError> {
        let parent = self.live_group(id)?.parent.ok_or(RenameError::Root)?;
        if self.groups[&parent].children.contains_key(&name)
            || self.reserved.contains(&(parent, name.clone()))
        {
            return Err(RenameError::Exists(name));
        }
        self.reserved.insert((parent, name.clone()));
        self.pin_group(id);
        Ok(RenamePlan { id, name })
    }

    /// The group has its new name.
    pub fn commit_rename(&mut self, plan: RenamePlan, now: Moment) {
        let (parent, new) = self.end_rename(&plan);
        let group = self.groups.get_mut(&plan.id).expect("the plan held the group");
        let old = group.name.replace(new.clone()).expect("only roots have no name");
        let above = self.groups.get_mut(&parent).expect("a parent outlives its children");
        above.children.remove(&old);
        above.children.insert(new, plan.id);
        above.changed = now;
    }

    /// The group keeps its name.
    pub fn abort_rename(&mut self, plan: RenamePlan) {
        self.end_rename(&plan);
    }

    fn end_rename(&mut self, plan: &RenamePlan) -> (GroupId, Name) {
        self.unpin_group(plan.id);
        let parent = self.groups[&plan.id].parent.expect("roots are not renamed");
        self.reserved.remove(&(parent, plan.name.clone()));
        (parent, plan.name.clone())
    }

    /// The group, if nobody has removed it or is about to.
    pub(crate) fn live_group(&self, id: GroupId) -> Result<&Group, GroupGone> {
        self.groups.get(&id).filter(|_| !self.leaving.contains(&id)).ok_or(GroupGone(id))
    }

    pub(crate) fn next_group_id(&mut self) -> Result<GroupId, NoNumber> {
        next(&mut self.last_group).and_then(|number| GroupId::new(number).ok_or(NoNumber))
    }

    pub(crate) fn pin_group(&mut self, id: GroupId) {
        self.groups.get_mut(&id).expect("the caller saw the group").pins += 1;
    }

    pub(crate) fn unpin_group(&mut self, id: GroupId) {
        self.groups.get_mut(&id).expect("pinned groups stay").pins -= 1;
    }
}
