//! Which process is in which cell, for a tracker that is told of forks and exits.
//!
//! With a writable v2 tree the kernel keeps this table and the roster is not needed; without one, the `events` tracker
//! keeps it here. Both feed the same [`Forest`]: a cell is occupied while it has processes.

use std::collections::{BTreeSet, HashMap};

use crate::{AttachPlan, CellId, Forest, HostPid, Seat};

/// The members of every cell.
#[derive(Default, Debug)]
pub struct Roster {
    seats: HashMap<HostPid, CellId>,
    members: HashMap<CellId, BTreeSet<HostPid>>,
}

impl Roster {
    /// The cell of a process; `None` means every root.
    pub fn cell_of(&self, process: HostPid) -> Option<CellId> {
        self.seats.get(&process).copied()
    }

    /// The processes of a cell, ascending.
    pub fn members(&self, cell: CellId) -> impl Iterator<Item = HostPid> + '_ {
        self.members.get(&cell).into_iter().flatten().copied()
    }

    /// A process has a child: it is born where its parent is, which is answered. Makes no cell.
    pub fn fork(&mut self, parent: HostPid, child: HostPid) -> Option<CellId> {
        let cell = self.cell_of(parent)?;
        self.seat(child, cell);
        Some(cell)
    }

    /// A process has ended. Returns its cell if that is empty now: the caller retires it.
    pub fn exit(&mut self, process: HostPid) -> Option<CellId> {
        let cell = self.seats.remove(&process)?;
        self.leave(process, cell)
    }

    /// Commits the move of a process. Returns the cell it left if that is empty now: the caller retires it.
    pub fn attach(&mut self, forest: &mut Forest, process: HostPid, plan: AttachPlan) -> Option<CellId> {
        let to = plan.to();
        forest.commit_attach(plan);
        match to? {
            Seat::Cell(cell) => self.place(process, Some(cell)),
            Seat::Outside(_) => self.place(process, None),
        }
    }

    /// A process is in this cell now, or in none. Returns the cell it left if that is empty now.
    pub fn place(&mut self, process: HostPid, to: Option<CellId>) -> Option<CellId> {
        if to.is_some() && self.cell_of(process) == to {
            return None;
        }
        let left = self.exit(process);
        if let Some(cell) = to {
            self.seat(process, cell);
        }
        left
    }

    fn seat(&mut self, process: HostPid, cell: CellId) {
        self.seats.insert(process, cell);
        self.members.entry(cell).or_default().insert(process);
    }

    fn leave(&mut self, process: HostPid, cell: CellId) -> Option<CellId> {
        let members = self.members.get_mut(&cell)?;
        members.remove(&process);
        if !members.is_empty() {
            return None;
        }
        self.members.remove(&cell);
        Some(cell)
    }
}
