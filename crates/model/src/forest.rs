//! Every hierarchy, group and cell of a realm.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::placement::Placing;
use crate::quota::Made;
use crate::spine::{Home, Spine};
use crate::{CellId, ControllerId, Errno, Group, GroupId, Hierarchy, HierarchyId, Name, OriginId, SpineId};

/// One group in each hierarchy, and where its processes came from. Interned: equal tuples are one cell.
///
/// Only coordinates other than a root are written down, so a new hierarchy changes no cell. The origin is a
/// coordinate like the others: children inherit it by being born in the same cell, and processes go back to it when
/// they return to every root.
#[doc(alias = "css_set")]
#[derive(Debug)]
pub struct Cell {
    pub(crate) coordinates: Coordinates,
    /// The spine directory that its leaf hangs from; `None`: the realm's own. Decided once, when the cell is made.
    pub(crate) home: Option<SpineId>,
    /// Whether a process was put here and none has told us yet that all have gone.
    pub(crate) occupied: bool,
    /// Whether nobody is here any more, but its directories stay for what is charged to them.
    pub(crate) kept: bool,
    /// Plans that will put a process here.
    pub(crate) pins: u32,
}

/// The groups of a cell, in the order of their hierarchies, roots left out; and its origin.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Coordinates {
    pub(crate) groups: Box<[GroupId]>,
    pub(crate) origin: OriginId,
}

impl Cell {
    /// Its groups, one per hierarchy, without the hierarchies in whose root it is. Never empty.
    pub fn groups(&self) -> &[GroupId] {
        &self.coordinates.groups
    }

    /// The spine directory that its leaf hangs from; `None`: the realm's own.
    pub fn home(&self) -> Option<SpineId> {
        self.home
    }

    /// Where its processes came from.
    pub fn origin(&self) -> OriginId {
        self.coordinates.origin
    }

    /// Whether it has processes, as far as we were told.
    pub fn is_occupied(&self) -> bool {
        self.occupied
    }
}

/// A place outside the realm that processes came from, and how many cells remember it.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) path: Box<[u8]>,
    pub(crate) cells: u32,
}

/// Every hierarchy, group and cell.
///
/// What every request does scans no groups, cells or processes: it costs the number of hierarchies, the depth of a path, or
/// a logarithm. Only of a group that crosses others are the cells gone through.
#[derive(Debug)]
pub struct Forest {
    pub(crate) placing: Placing,
    pub(crate) hierarchies: BTreeMap<HierarchyId, Hierarchy>,
    pub(crate) bound: [Option<HierarchyId>; ControllerId::MAX as usize],
    pub(crate) groups: HashMap<GroupId, Group>,
    pub(crate) made: Made,
    pub(crate) cells: HashMap<CellId, Cell>,
    pub(crate) spines: HashMap<SpineId, Spine>,
    pub(crate) interned: HashMap<Coordinates, CellId>,
    pub(crate) origins: HashMap<OriginId, Origin>,
    pub(crate) origin_ids: HashMap<Box<[u8]>, OriginId>,
    /// Names that a plan holds.
    pub(crate) reserved: HashSet<(GroupId, Name)>,
    /// Groups that a plan will remove.
    pub(crate) leaving: HashSet<GroupId>,
    pub(crate) last_hierarchy: u32,
    pub(crate) last_group: u32,
    pub(crate) last_cell: u32,
    pub(crate) last_spine: u32,
    pub(crate) last_origin: u32,
    /// Raised whenever the set of some group's carriers or an offset changes: who reads several v2 files compares it.
    pub(crate) generation: u64,
}

/// The group was removed while it was used. ENODEV: cgroup_kn_lock_live().
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("group {0} was removed")]
pub struct GroupGone(pub GroupId);

/// Every number was used, and none is ever used again: the daemon has to be started anew. ENOSPC: what the kernel's own
/// numbers of groups give when they run out (idr_alloc()).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("every number was given out\nstart the daemon anew")]
pub struct NoNumber;

impl NoNumber {
    /// The errno Linux gives.
    pub const fn errno(self) -> Errno {
        Errno::ENOSPC
    }
}

/// The number after the last one.
pub(crate) fn next(last: &mut u32) -> Result<u32, NoNumber> {
    *last = last.checked_add(1).ok_or(NoNumber)?;
    Ok(*last)
}

impl GroupGone {
    /// The errno Linux gives.
    pub const fn errno(self) -> Errno {
        Errno::ENODEV
    }
}

impl Forest {
    /// An empty forest, with the controllers that decide where leaves hang.
    pub fn new(placing: Placing) -> Self {
        Self {
            placing,
            hierarchies: BTreeMap::new(),
            bound: [None; ControllerId::MAX as usize],
            groups: HashMap::new(),
            made: Made::default(),
            cells: HashMap::new(),
            spines: HashMap::new(),
            interned: HashMap::new(),
            origins: HashMap::new(),
            origin_ids: HashMap::new(),
            reserved: HashSet::new(),
            leaving: HashSet::new(),
            last_hierarchy: 0,
            last_group: 0,
            last_cell: 0,
            last_spine: 0,
            last_origin: 0,
            generation: 0,
        }
    }

    /// The controllers that decide where leaves hang.
    pub fn placing(&self) -> Placing {
        self.placing
    }

    /// The hierarchy with this id.
    pub fn hierarchy(&self, id: HierarchyId) -> Option<&Hierarchy> {
        self.hierarchies.get(&id)
    }

    /// Every hierarchy, oldest first.
    pub fn hierarchies(&self) -> impl Iterator<Item = (HierarchyId, &Hierarchy)> {
        self.hierarchies.iter().map(|(id, hierarchy)| (*id, hierarchy))
    }

    /// The hierarchy a controller is bound to.
    pub fn bound_to(&self, controller: ControllerId) -> Option<HierarchyId> {
        self.bound[controller.index()]
    }

    /// The group with this id; `None` if it was removed.
    pub fn group(&self, id: GroupId) -> Option<&Group> {
        self.groups.get(&id)
    }

    /// The group with this id, to change what it keeps.
    pub fn group_mut(&mut self, id: GroupId) -> Option<&mut Group> {
        self.groups.get_mut(&id)
    }

    /// The groups above, nearest first; ends with the root.
    pub fn ancestors(&self, id: GroupId) -> impl Iterator<Item = GroupId> + '_ {
        std::iter::successors(self.parent(id), |id| self.parent(*id))
    }

    /// The groups right below.
    pub fn children(&self, id: GroupId) -> impl Iterator<Item = GroupId> + '_ {
        self.groups.get(&id).into_iter().flat_map(|group| group.children.values().copied())
    }

    /// The group itself and all below it, parents before children.
    pub fn subtree(&self, id: GroupId) -> impl Iterator<Item = GroupId> + '_ {
        let mut stack = vec![id];
        std::iter::from_fn(move || {
            let next = stack.pop()?;
            stack.extend(self.children(next));
            Some(next)
        })
    }

    /// The names from the root down; empty for the root itself. `None` if the group is gone.
    pub fn path(&self, id: GroupId) -> Option<Vec<&Name>> {
        let group = self.groups.get(&id)?;
        let mut names: Vec<_> = group.name.iter().collect();
        names.extend(self.ancestors(id).filter_map(|above| self.groups[&above].name.as_ref()));
        names.reverse();
        Some(names)
    }

    /// The cell with this id.
    pub fn cell(&self, id: CellId) -> Option<&Cell> {
        self.cells.get(&id)
    }

    /// Every cell, in no order.
    pub fn cells(&self) -> impl Iterator<Item = (CellId, &Cell)> {
        self.cells.iter().map(|(id, cell)| (*id, cell))
    }

    /// The cells that are kept although nobody is there, beside a new one or further out on the way to it, and that were the only one
    /// of a group that the new one is in: what is charged to them has another directory of that group to go to now.
    pub fn kept_around(&self, id: CellId) -> Vec<CellId> {
        let Some(new) = self.cells.get(&id) else { return Vec::new() };
        let up = new.coordinates.groups.iter().flat_map(|group| self.way_to(*group));
        let groups = up.filter(|group| self.groups[group].below == 2);
        let cells =
            groups.flat_map(|group| self.inhabited(group)).flat_map(|group| &self.groups[&group].cells);
        let chain = self.chain(new.home);
        let is_around = |cell: &CellId| {
            let found = &self.cells[cell];
            *cell != id && found.kept && found.home.is_some_and(|home| chain.contains(&home))
        };
        cells.copied().filter(is_around).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Says whether a cell is kept although nobody is there.
    pub(crate) fn set_kept(&mut self, id: CellId, kept: bool) {
        self.cells.get_mut(&id).expect("the plan held the cell").kept = kept;
    }

    /// The group of a cell in a hierarchy.
    pub fn group_of(&self, cell: CellId, hierarchy: HierarchyId) -> Option<GroupId> {
        let root = self.hierarchies.get(&hierarchy)?.root;
        let groups = &self.cells.get(&cell)?.coordinates.groups;
        let at = groups.iter().find(|id| self.groups[id].hierarchy == hierarchy);
        Some(at.copied().unwrap_or(root))
    }

    /// The v2 path behind an origin.
    pub fn origin_path(&self, id: OriginId) -> Option<&[u8]> {
        self.origins.get(&id).map(|origin| &*origin.path)
    }

    /// Whether a group holds no process and no child: what a release agent is told about.
    pub fn is_idle(&self, id: GroupId) -> bool {
        self.groups.get(&id).is_some_and(|group| group.children.is_empty() && !self.has_processes(group))
    }

    /// Whether a process is exactly in a group (not below it), as far as we were told.
    pub fn has_processes(&self, group: &Group) -> bool {
        group.cells.iter().any(|cell| !self.cells[cell].kept)
    }

    /// Raised whenever the set of some group's carriers or an offset changes.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Tells those who read several v2 files that an offset has changed.
    pub fn touch(&mut self) {
        self.generation += 1;
    }

    fn parent(&self, id: GroupId) -> Option<GroupId> {
        self.groups.get(&id)?.parent
    }

    /// The cell with these coordinates, made if there is none, with one pin more. Also the spine directories that were made
    /// for it, outermost first.
    pub(crate) fn pin_cell(&mut self, coordinates: Coordinates) -> Result<(CellId, Vec<SpineId>), NoNumber> {
        if let Some(id) = self.interned.get(&coordinates) {
            let id = *id;
            self.cells.get_mut(&id).expect("interned cells exist").pins += 1;
            return Ok((id, Vec::new()));
        }
        let Home { at, make } = self.home(&coordinates.groups);
        let id = next(&mut self.last_cell).and_then(|number| CellId::new(number).ok_or(NoNumber))?;
        let made = self.make_spines(at, make)?;
        let home = made.last().copied().or(at);
        self.insert_cell(id, Cell { coordinates, home, occupied: false, kept: false, pins: 1 });
        Ok((id, made))
    }

    pub(crate) fn insert_cell(&mut self, id: CellId, cell: Cell) {
        for group in &cell.coordinates.groups {
            self.groups.get_mut(group).expect("a cell's groups exist").cells.insert(id);
        }
        self.count_below(&cell.coordinates.groups, |below| below + 1);
        self.enter_spines(cell.home, &cell.coordinates.groups);
        self.origins.get_mut(&cell.coordinates.origin).expect("a cell's origin exists").cells += 1;
        self.interned.insert(cell.coordinates.clone(), id);
        self.cells.insert(id, cell);
        self.generation += 1;
    }

    /// Takes a pin off, and the cell away if nothing holds it any more.
    pub(crate) fn unpin_cell(&mut self, id: CellId) {
        let cell = self.cells.get_mut(&id).expect("a pinned cell exists");
        cell.pins -= 1;
        if cell.pins == 0 && !cell.occupied && !cell.kept {
            self.remove_cell(id);
        }
    }

    pub(crate) fn remove_cell(&mut self, id: CellId) {
        let cell = self.cells.remove(&id).expect("the caller saw the cell");
        self.interned.remove(&cell.coordinates);
        for group in &cell.coordinates.groups {
            self.groups.get_mut(group).expect("a cell's groups exist").cells.remove(&id);
        }
        self.count_below(&cell.coordinates.groups, |below| below - 1);
        self.leave_spines(cell.home, &cell.coordinates.groups);
        self.release_origin(cell.coordinates.origin);
        self.generation += 1;
    }

    pub(crate) fn count_below(&mut self, groups: &[GroupId], change: impl Fn(u32) -> u32) {
        for group in groups {
            let mut next = Some(*group);
            while let Some(id) = next {
                let group = self.groups.get_mut(&id).expect("a cell's groups exist, and those above them");
                let before = group.below;
                group.below = change(before);
                let is_inhabited = group.below > 0;
                next = group.parent;
                if is_inhabited != (before > 0)
                    && let Some(above) = next.and_then(|above| self.groups.get_mut(&above))
                {
                    match is_inhabited {
                        true => above.inhabited.insert(id),
                        false => above.inhabited.remove(&id),
                    };
                }
            }
        }
    }

    /// The id of an origin's path, made if new. It lives as long as a cell remembers it.
    pub(crate) fn intern_origin(&mut self, path: &[u8]) -> Result<OriginId, NoNumber> {
        if let Some(id) = self.origin_ids.get(path) {
            return Ok(*id);
        }
        let id = next(&mut self.last_origin).and_then(|number| OriginId::new(number).ok_or(NoNumber))?;
        self.origin_ids.insert(path.into(), id);
        self.origins.insert(id, Origin { path: path.into(), cells: 0 });
        Ok(id)
    }

    fn release_origin(&mut self, id: OriginId) {
        let origin = self.origins.get_mut(&id).expect("a cell's origin exists");
        origin.cells -= 1;
        self.drop_unused_origin(id);
    }

    pub(crate) fn drop_unused_origin(&mut self, id: OriginId) {
        if self.origins[&id].cells == 0 {
            let origin = self.origins.remove(&id).expect("just seen");
            self.origin_ids.remove(&origin.path);
        }
    }
}
