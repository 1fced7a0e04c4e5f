//! Hierarchies come and go: mount finds or makes one, remount changes its controllers.

use crate::forest::{NoNumber, next};
use crate::group::Group;
use crate::{
    ControllerId, ControllerSet, Errno, Forest, GroupId, Hierarchy, HierarchyFlags, HierarchyId,
    HierarchyName, Moment, Ownership, Settings,
};

/// What a mount names, parsed and without contradictions in itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MountRequest {
    /// The controllers asked for.
    pub controllers: ControllerSet,
    /// `none` was given: a hierarchy without controllers is meant.
    pub none: bool,
    /// The name, if given.
    pub name: Option<HierarchyName>,
    /// The flags; those of an existing hierarchy stay as they are.
    pub flags: HierarchyFlags,
}

/// Why nothing is mounted.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MountError {
    /// The name exists with other controllers.
    #[error("hierarchy {0} has other controllers")]
    OtherControllers(HierarchyName),
    /// Only a name was given, and no hierarchy has it.
    #[error("no hierarchy is called {0}, and neither controllers nor `none` were given to make one")]
    NoSuchName(HierarchyName),
    /// Neither a name nor controllers.
    #[error("neither controllers nor a name were given")]
    Nothing,
    /// A controller is in use in another hierarchy.
    #[error("a controller is bound to another hierarchy ({0:?})")]
    Bound(ControllerId),
    /// Every number was used.
    #[error(transparent)]
    NoNumber(#[from] NoNumber),
}

impl MountError {
    /// The errno Linux gives: cgroup1_root_to_use(), rebind_subsystems().
    pub const fn errno(&self) -> Errno {
        match self {
            Self::OtherControllers(_) | Self::Bound(_) => Errno::EBUSY,
            Self::NoSuchName(_) | Self::Nothing => Errno::EINVAL,
            Self::NoNumber(none) => none.errno(),
        }
    }
}

/// Why a hierarchy is not changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RemountError {
    /// There is no such hierarchy.
    #[error("no such hierarchy")]
    Gone,
    /// A remount cannot change flags or the name.
    #[error("a remount changes neither flags nor the name of a hierarchy")]
    FlagsOrName,
    /// It has groups below its root.
    #[error("a hierarchy with groups below its root keeps its controllers")]
    HasChildren,
    /// A controller is in use in another hierarchy.
    #[error("a controller is bound to another hierarchy ({0:?})")]
    Bound(ControllerId),
}

impl RemountError {
    /// The errno Linux gives: cgroup1_reconfigure(), rebind_subsystems().
    pub const fn errno(&self) -> Errno {
        match self {
            Self::Gone => Errno::ENODEV,
            Self::FlagsOrName => Errno::EINVAL,
            Self::HasChildren | Self::Bound(_) => Errno::EBUSY,
        }
    }
}

/// A mount that may be made.
#[must_use]
#[derive(Debug)]
pub enum MountPlan {
    /// This hierarchy is the one.
    Found(HierarchyId),
    /// A new one.
    New {
        /// The id it will have.
        id: HierarchyId,
        /// The id its root group will have.
        root: GroupId,
        /// What it is made from.
        request: MountRequest,
    },
}

/// A hierarchy whose controllers may change.
#[must_use]
#[derive(Debug)]
pub struct RemountPlan {
    id: HierarchyId,
    controllers: ControllerSet,
}

impl Forest {
    /// Plans a mount: finds the hierarchy that is meant, or makes sure that a new one can be made.
    pub fn plan_mount(&mut self, request: MountRequest) -> Result<MountPlan, MountError> {
        if let Some(id) = self.find_hierarchy(&request)? {
            return Ok(MountPlan::Found(id));
        }
        if request.controllers.is_empty() && !request.none {
            return Err(request.name.map_or(MountError::Nothing, MountError::NoSuchName));
        }
        self.unbound(request.controllers).map_err(MountError::Bound)?;
        let root = self.next_group_id()?;
        let id =
            next(&mut self.last_hierarchy).and_then(|number| HierarchyId::new(number).ok_or(NoNumber))?;
        Ok(MountPlan::New { id, root, request })
    }

    /// The mount is there. A new hierarchy's root group gets this owner and these settings.
    pub fn commit_mount(
        &mut self,
        plan: MountPlan,
        ownership: Ownership,
        settings: Settings,
        now: Moment,
    ) -> HierarchyId {
        let id = match plan {
            MountPlan::Found(id) => id,
            MountPlan::New { id, root, request } => {
                self.insert_hierarchy(id, root, request, ownership, now);
                *self.groups.get_mut(&root).expect("just made").settings_mut() = settings;
                id
            }
        };
        self.hierarchies.get_mut(&id).expect("found or made").mounts += 1;
        id
    }

    /// Nothing was mounted: there is nothing to forget.
    pub fn abort_mount(&mut self, plan: MountPlan) {
        drop(plan);
    }

    /// A mount has gone. True if the hierarchy has no other mount and no child group: it should be destroyed.
    pub fn unmounted(&mut self, id: HierarchyId) -> bool {
        let Some(hierarchy) = self.hierarchies.get_mut(&id) else { return false };
        hierarchy.mounts = hierarchy.mounts.saturating_sub(1);
        self.is_unused(id)
    }

    /// Whether nothing holds a hierarchy: no mount, and no group below its root.
    pub fn is_unused(&self, id: HierarchyId) -> bool {
        self.hierarchies.get(&id).is_some_and(|h| h.mounts == 0 && self.groups[&h.root].children.is_empty())
    }

    /// Destroys a hierarchy that [`Forest::is_unused`]; any other stays. Its controllers are free again.
    pub fn destroy(&mut self, id: HierarchyId) {
        if !self.is_unused(id) {
            return;
        }
        let hierarchy = self.hierarchies.remove(&id).expect("just seen");
        self.groups.remove(&hierarchy.root);
        self.bind(hierarchy.controllers, None);
    }

    /// Plans a remount.
    pub fn plan_remount(&self, id: HierarchyId, request: &MountRequest) -> Result<RemountPlan, RemountError> {
        let hierarchy = self.hierarchies.get(&id).ok_or(RemountError::Gone)?;
        if request.flags != hierarchy.flags || request.name.is_some() && request.name != hierarchy.name {
            return Err(RemountError::FlagsOrName);
        }
        if !self.groups[&hierarchy.root].children.is_empty() {
            return Err(RemountError::HasChildren);
        }
        self.unbound(request.controllers.difference(hierarchy.controllers)).map_err(RemountError::Bound)?;
        Ok(RemountPlan { id, controllers: request.controllers })
    }

    /// The hierarchy has its new controllers.
    pub fn commit_remount(&mut self, plan: RemountPlan) {
        let hierarchy =
            self.hierarchies.get_mut(&plan.id).expect("nothing is removed between plan and commit");
        let old = std::mem::replace(&mut hierarchy.controllers, plan.controllers);
        self.bind(old, None);
        self.bind(plan.controllers, Some(plan.id));
    }

    /// Puts a hierarchy in without asking; the caller has planned it, or reads it back from where it was kept.
    pub(crate) fn insert_hierarchy(
        &mut self,
        id: HierarchyId,
        root: GroupId,
        request: MountRequest,
        ownership: Ownership,
        now: Moment,
    ) {
        let MountRequest { controllers, name, flags, .. } = request;
        self.groups.insert(root, Group::new(id, None, None, ownership, now));
        self.bind(controllers, Some(id));
        self.hierarchies.insert(id, Hierarchy { controllers, name, flags, root, mounts: 0, groups: 1 });
    }

    fn bind(&mut self, controllers: ControllerSet, to: Option<HierarchyId>) {
        for controller in controllers.iter() {
            self.bound[controller.index()] = to;
        }
        self.generation += 1;
    }

    /// The first hierarchy that the request can mean, as the kernel's loop over its roots finds it.
    fn find_hierarchy(&self, request: &MountRequest) -> Result<Option<HierarchyId>, MountError> {
        for (id, hierarchy) in &self.hierarchies {
            if request.name.is_some() && request.name != hierarchy.name {
                continue;
            }
            let asks_for_a_set = !request.controllers.is_empty() || request.none;
            if asks_for_a_set && request.controllers != hierarchy.controllers {
                match &request.name {
                    Some(name) => return Err(MountError::OtherControllers(name.clone())),
                    None => continue,
                }
            }
            return Ok(Some(*id));
        }
        Ok(None)
    }

    fn unbound(&self, controllers: ControllerSet) -> Result<(), ControllerId> {
        controllers.iter().find(|id| self.bound_to(*id).is_some()).map_or(Ok(()), Err)
    }
}
