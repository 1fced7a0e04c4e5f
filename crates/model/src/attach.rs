//! Attaching a process: one coordinate of its cell changes.

use crate::forest::{Coordinates, GroupGone, NoNumber};
use crate::{CellId, Dir, Errno, Forest, GroupId, Pid};

/// Why a process is not attached.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AttachError {
    /// There is no such process that the caller can see.
    #[error("no process {0}")]
    NoSuchProcess(Pid),
    /// The caller itself is not visible to the daemon (another pid namespace).
    #[error("the caller is in a pid namespace that the daemon does not see")]
    CallerUnseen,
    /// The process is another user's.
    #[error("process {0} belongs to another user")]
    NotOwner(Pid),
    /// The process is in a group that is neither the caller's nor below.
    #[error("process {0} is not below the caller's own group")]
    NotBelow(Pid),
    /// The group was removed.
    #[error(transparent)]
    Gone(#[from] GroupGone),
    /// Every number was used.
    #[error(transparent)]
    NoNumber(#[from] NoNumber),
    /// A kernel thread that is bound to its CPU, or the daemon that serves the groups.
    #[error("process {0} cannot be moved: it is a bound kernel thread, or pinfold itself")]
    Unmovable(Pid),
}

impl AttachError {
    /// The errno Linux gives: cgroup_procs_write_start(), __cgroup1_procs_write(), cgroup_kn_lock_live().
    pub const fn errno(&self) -> Errno {
        match self {
            Self::NoSuchProcess(_) | Self::CallerUnseen => Errno::ESRCH,
            Self::NotOwner(_) => Errno::EACCES,
            Self::NotBelow(_) => Errno::EPERM,
            Self::Gone(gone) => gone.errno(),
            Self::NoNumber(none) => none.errno(),
            Self::Unmovable(_) => Errno::EINVAL,
        }
    }
}

/// Where a process is: outside (in every hierarchy's root), or in a cell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Seat {
    /// In every root; the v2 directory it is in is not ours.
    Outside(Box<[u8]>),
    /// In this cell.
    Cell(CellId),
}

/// A process that may be moved. Holds the cells on both sides, and so their groups.
#[must_use]
#[derive(Debug)]
pub struct AttachPlan {
    from: Option<CellId>,
    to: Destination,
    make: Vec<Dir>,
}

#[derive(Debug)]
enum Destination {
    /// It stays in the same cell: nothing moves.
    Same,
    Cell(CellId),
    Outside(Box<[u8]>),
}

impl AttachPlan {
    /// Directories to make first, outermost first.
    pub fn make(&self) -> &[Dir] {
        &self.make
    }

    /// Where the process goes; `None` if it is there already.
    pub fn to(&self) -> Option<Seat> {
        match &self.to {
            Destination::Same => None,
            Destination::Cell(cell) => Some(Seat::Cell(*cell)),
            Destination::Outside(origin) => Some(Seat::Outside(origin.clone())),
        }
    }
}

impl Forest {
    /// Plans to put a process that is at `from` into a group, leaving its other coordinates alone.
    pub fn plan_attach(&mut self, from: &Seat, group: GroupId) -> Result<AttachPlan, AttachError> {
        self.live_group(group)?;
        let (cell, coordinates) = self.moved(from, group)?;
        let Some(coordinates) = coordinates else {
            return Ok(AttachPlan { from: None, to: Destination::Same, make: Vec::new() });
        };
        if let Some(cell) = cell {
            self.cells.get_mut(&cell).expect("seats are live cells").pins += 1;
        }
        if coordinates.groups.is_empty() {
            let origin = self.origins[&coordinates.origin].path.clone();
            return Ok(AttachPlan { from: cell, to: Destination::Outside(origin), make: Vec::new() });
        }
        let origin = coordinates.origin;
        let (to, spines) = match self.pin_cell(coordinates) {
            Ok(pinned) => pinned,
            Err(none) => {
                self.drop_unused_origin(origin);
                if let Some(cell) = cell {
                    self.unpin_cell(cell);
                }
                return Err(none.into());
            }
        };
        let spines = spines.into_iter().map(|spine| self.spine_dir(Some(spine)));
        let make = spines.chain(self.new_leaf(to)).collect();
        Ok(AttachPlan { from: cell, to: Destination::Cell(to), make })
    }

    /// The process has moved.
    pub fn commit_attach(&mut self, plan: AttachPlan) {
        if let Destination::Cell(to) = plan.to {
            self.cells.get_mut(&to).expect("the plan held the cell").occupied = true;
            self.set_kept(to, false);
        }
        self.end_attach(plan);
    }

    /// Nobody moves, but the cell that the process would have come to stays, empty as by [`Forest::keep_empty`].
    pub fn commit_kept(&mut self, plan: AttachPlan) {
        if let Destination::Cell(to) = plan.to
            && !self.cells[&to].occupied
        {
            self.set_kept(to, true);
        }
        self.end_attach(plan);
    }

    /// The process stays where it is.
    pub fn abort_attach(&mut self, plan: AttachPlan) {
        self.end_attach(plan);
    }

    fn end_attach(&mut self, plan: AttachPlan) {
        for cell in plan.from.into_iter().chain(match plan.to {
            Destination::Cell(to) => Some(to),
            Destination::Same | Destination::Outside(_) => None,
        }) {
            self.unpin_cell(cell);
        }
    }

    /// The cell at a seat, and the coordinates with one replaced; `None` if that changes nothing.
    pub(crate) fn moved(
        &mut self,
        from: &Seat,
        group: GroupId,
    ) -> Result<(Option<CellId>, Option<Coordinates>), NoNumber> {
        let is_root = self.groups[&group].parent.is_none();
        let hierarchy = self.groups[&group].hierarchy;
        match from {
            Seat::Outside(_) if is_root => Ok((None, None)),
            Seat::Outside(path) => {
                let origin = self.intern_origin(path)?;
                Ok((None, Some(Coordinates { groups: [group].into(), origin })))
            }
            Seat::Cell(id) => {
                let old = &self.cells[id].coordinates;
                let mut groups: Vec<GroupId> =
                    old.groups.iter().copied().filter(|id| self.groups[id].hierarchy != hierarchy).collect();
                if !is_root {
                    let at = groups.partition_point(|id| self.groups[id].hierarchy < hierarchy);
                    groups.insert(at, group);
                }
                let new = Coordinates { groups: groups.into(), origin: old.origin };
                let changed = new != *old;
                Ok((Some(*id), changed.then_some(new)))
            }
        }
    }

    /// The leaf of a cell that this plan alone holds: it is not there yet.
    fn new_leaf(&self, id: CellId) -> Option<Dir> {
        let cell = &self.cells[&id];
        (!cell.occupied && !cell.kept && cell.pins == 1).then(|| self.leaf(id)).flatten()
    }
}
