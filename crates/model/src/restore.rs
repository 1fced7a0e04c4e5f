//! Putting a forest back together from what the state directory and the v2 tree say (I8).

use crate::forest::{Cell, Coordinates, NoNumber};
use crate::group::Group;
use crate::{CellId, Forest, GroupId, HierarchyId, Moment, MountRequest, Name, Ownership, Settings, SpineId};

/// Why a kept thing does not fit: the state directory was changed by somebody else.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RestoreError {
    /// Two things were kept under one number.
    #[error("number {0} is used twice")]
    NumberTaken(u32),
    /// A controller or a name is used by two hierarchies.
    #[error("hierarchy {0} has a controller or a name that another hierarchy has")]
    HierarchyClash(HierarchyId),
    /// A child, or a cell, of a group that is not there.
    #[error("there is no group {0}")]
    NoGroup(GroupId),
    /// Two children of one name.
    #[error("group {0} has two children called {1}")]
    NameTaken(GroupId, Name),
    /// Every number was used.
    #[error(transparent)]
    NoNumber(#[from] NoNumber),
    /// A cell with two groups of one hierarchy, with a root, or with the same groups as another cell; or one that hangs
    /// from a spine directory which is not there, or whose groups it is not in.
    #[error(
        "cell {0} does not have one group of each hierarchy, is there twice, or does not fit where it hangs"
    )]
    BadCell(CellId),
    /// A spine directory below one that is not there, without a group, with a root, or with a group that has another.
    #[error("spine directory {0} does not have groups that have no other, or hangs from nowhere")]
    BadSpine(SpineId),
}

/// A kept group.
#[derive(Clone, Debug)]
pub struct KeptGroup {
    /// The number it had, if anything refers to it by number.
    pub id: Option<GroupId>,
    /// The owner and mode of its directory.
    pub ownership: Ownership,
    /// Its settings.
    pub settings: Settings,
    /// When it last changed.
    pub changed: Moment,
}

impl Forest {
    /// Makes sure that numbers given out from now on are above these.
    pub fn reserve_numbers(&mut self, group: u32, cell: u32, spine: u32) {
        self.last_group = self.last_group.max(group);
        self.last_cell = self.last_cell.max(cell);
        self.last_spine = self.last_spine.max(spine);
    }

    /// Puts a hierarchy back, without mounts. Returns its root group.
    pub fn restore_hierarchy(
        &mut self,
        id: HierarchyId,
        request: MountRequest,
        root: KeptGroup,
    ) -> Result<GroupId, RestoreError> {
        if self.hierarchies.contains_key(&id) {
            return Err(RestoreError::NumberTaken(id.get()));
        }
        let bound = request.controllers.iter().any(|controller| self.bound_to(controller).is_some());
        let named = request.name.is_some() && self.hierarchies.values().any(|h| h.name == request.name);
        if bound || named {
            return Err(RestoreError::HierarchyClash(id));
        }
        let number = self.number_for(root.id)?;
        self.insert_hierarchy(id, number, request, root.ownership, root.changed);
        self.groups.get_mut(&number).expect("just made").settings = root.settings;
        self.last_hierarchy = self.last_hierarchy.max(id.get());
        Ok(number)
    }

    /// Puts a group back below its parent. [`Forest::recount`] belongs behind the last one.
    pub fn restore_group(
        &mut self,
        parent: GroupId,
        name: Name,
        kept: KeptGroup,
    ) -> Result<GroupId, RestoreError> {
        let above = self.groups.get(&parent).ok_or(RestoreError::NoGroup(parent))?;
        if above.children.contains_key(&name) {
            return Err(RestoreError::NameTaken(parent, name));
        }
        let hierarchy = above.hierarchy;
        let id = self.number_for(kept.id)?;
        let mut group = Group::new(hierarchy, Some(parent), Some(name.clone()), kept.ownership, kept.changed);
        group.settings = kept.settings;
        self.groups.insert(id, group);
        self.groups.get_mut(&parent).expect("seen above").children.insert(name, id);
        self.hierarchies.get_mut(&hierarchy).expect("a group's hierarchy exists").groups += 1;
        Ok(id)
    }

    /// Puts a spine directory back, those above it first. Without a cell it goes with [`Forest::drop_unused_spines`].
    pub fn restore_spine(
        &mut self,
        id: SpineId,
        parent: Option<SpineId>,
        claims: Vec<GroupId>,
    ) -> Result<(), RestoreError> {
        if self.spines.contains_key(&id) {
            return Err(RestoreError::NumberTaken(id.get()));
        }
        let mut hierarchies = Vec::with_capacity(claims.len());
        for claim in &claims {
            let group = self.groups.get(claim).ok_or(RestoreError::NoGroup(*claim))?;
            if group.parent.is_none() || group.spine.is_some() || hierarchies.contains(&group.hierarchy) {
                return Err(RestoreError::BadSpine(id));
            }
            hierarchies.push(group.hierarchy);
        }
        if claims.is_empty() || parent.is_some_and(|parent| !self.spines.contains_key(&parent)) {
            return Err(RestoreError::BadSpine(id));
        }
        self.insert_spine(id, parent, claims);
        self.last_spine = self.last_spine.max(id.get());
        Ok(())
    }

    /// Takes away the spine directories that no cell was put back into. Returns them.
    pub fn drop_unused_spines(&mut self) -> Vec<SpineId> {
        let unused: Vec<SpineId> =
            self.spines.iter().filter(|(_, spine)| spine.cells == 0).map(|(id, _)| *id).collect();
        for id in &unused {
            let spine = self.spines.remove(id).expect("just listed");
            for claim in spine.claims {
                self.groups.get_mut(&claim).expect("who claims exists").spine = None;
            }
        }
        unused
    }

    /// Puts a cell back, below this spine directory or the realm's own. It counts as occupied until somebody looks and
    /// retires it.
    pub fn restore_cell(
        &mut self,
        id: CellId,
        home: Option<SpineId>,
        groups: &[GroupId],
        origin: &[u8],
    ) -> Result<(), RestoreError> {
        if self.cells.contains_key(&id) {
            return Err(RestoreError::NumberTaken(id.get()));
        }
        let mut placed = Vec::with_capacity(groups.len());
        for group in groups {
            let found = self.groups.get(group).ok_or(RestoreError::NoGroup(*group))?;
            if found.parent.is_none() {
                return Err(RestoreError::BadCell(id));
            }
            placed.push((found.hierarchy, *group));
        }
        placed.sort_unstable();
        let distinct = placed.windows(2).all(|pair| pair[0].0 != pair[1].0);
        let coordinates = Coordinates {
            groups: placed.into_iter().map(|(_, group)| group).collect(),
            origin: self.intern_origin(origin)?,
        };
        let fits = home.is_none_or(|home| {
            self.spines.contains_key(&home)
                && self.chain(Some(home)).iter().all(|spine| self.admits(*spine, &coordinates.groups))
        });
        if !distinct || !fits || coordinates.groups.is_empty() || self.interned.contains_key(&coordinates) {
            self.drop_unused_origin(coordinates.origin);
            return Err(RestoreError::BadCell(id));
        }
        self.insert_cell(id, Cell { coordinates, home, occupied: true, kept: false, pins: 0 });
        self.last_cell = self.last_cell.max(id.get());
        Ok(())
    }

    fn number_for(&mut self, kept: Option<GroupId>) -> Result<GroupId, RestoreError> {
        match kept {
            Some(id) if self.groups.contains_key(&id) => Err(RestoreError::NumberTaken(id.get())),
            Some(id) => {
                self.last_group = self.last_group.max(id.get());
                Ok(id)
            }
            None => Ok(self.next_group_id()?),
        }
    }
}
