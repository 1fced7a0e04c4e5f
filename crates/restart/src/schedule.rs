//! From a captured tree to the steps that rebuild it. Pure: no process is touched here.
//!
//! A relation can only be made in the ways the kernel has. A session is inherited at birth and left by setsid(2) alone; a
//! process group is inherited, or joined by number within its session; a parent changes only when it dies, and then to the
//! nearest subreaper above it or to the first process of the pid namespace. So the question is who forks whom, and when:
//!
//! 1. `kin` checks the tree and indexes it.
//! 2. `birth` finds each process's *birth session*, and who has it to give: the parent, before or after its setsid, or
//!    a *server*: a process that forks children which are then orphaned to their captured parent.
//! 3. `servers` makes as few helpers as can be: each dead leader's number takes one; a session with orphans takes
//!    another for each reaper beyond those that its dead leaders, or zombies that were captured anyway, can serve.
//! 4. `order` turns "before" and "after" into a graph, and its topological order into steps; then helpers and zombies
//!    leave, those with orphans for outer reapers first, so that no subreaper catches what is not its own.
//!
//! Every part is linear in the number of processes, apart from sorts: of the servers, and of zombies that may be some.

mod birth;
mod events;
mod joining;
mod kin;
mod leaving;
mod order;
mod servers;

use crate::tree::Tree;

/// A process of the schedule: [`BUILDER`], then the processes of the tree in their order (1 is the first), then helpers.
pub type Node = usize;

/// The process that the tree is rebuilt below: it carries out its steps in the oldest known namespace, and stays.
pub const BUILDER: Node = 0;

/// One step: who does what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Who.
    pub by: Node,
    /// What.
    pub action: Action,
}

/// What a process does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Makes a child in the namespace that its children go to.
    Fork {
        /// The child.
        child: Node,
        /// The child's numbers from the oldest known namespace to the youngest; 0: any that the tree does not use.
        pids: Vec<u32>,
        /// The child is the first process of this namespace, which comes with it.
        new_namespace: Option<usize>,
    },
    /// Lets its next children be in a namespace that exists: its own, or one nested in it.
    ChildrenIn(usize),
    /// Lets its next children be in a new namespace.
    Unshare,
    /// Becomes the leader of a new session and of a new group.
    SetSid,
    /// Puts a process, itself or a child of its, into the group that `leader` leads, by the number this has for it.
    SetPgid {
        /// Who is moved.
        process: Node,
        /// Whose group.
        leader: Node,
    },
    /// Takes in orphans from below.
    BecomeSubreaper,
    /// Ends. A helper's parent reaps it in a later step; a captured zombie stays.
    Exit,
    /// Waits until a child has ended, and leaves it a zombie.
    Await(Node),
    /// Waits until a child has ended, and reaps it.
    Reap(Node),
}

/// A process that is in no capture and is gone before the tree runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Helper {
    /// Its pid namespace.
    pub namespace: usize,
    /// The numbers that it is there to take: those of a leader who is dead. Empty: it only has children to orphan.
    pub pids: Vec<u32>,
}

/// What to do, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// The helpers: node numbers above the processes'.
    pub helpers: Vec<Helper>,
    /// The steps.
    pub steps: Vec<Step>,
}

/// Why a tree cannot be rebuilt. `pid` is a process's number in the oldest known namespace.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ScheduleError {
    /// The capture contradicts itself.
    #[error("process {pid}: {what}")]
    Malformed {
        /// Of whom.
        pid: u32,
        /// What is wrong.
        what: &'static str,
    },
    /// A relation that no order of forks and exits makes.
    #[error("process {pid} cannot be rebuilt: {reason}")]
    Impossible {
        /// Of whom.
        pid: u32,
        /// Why.
        reason: &'static str,
    },
}

impl ScheduleError {
    /// EINVAL: the tree cannot be taken as it is.
    pub const fn errno(&self) -> rustix::io::Errno {
        match self {
            Self::Malformed { .. } | Self::Impossible { .. } => rustix::io::Errno::INVAL,
        }
    }
}

/// Whether the builder's process group, which processes with none recorded are in, can be joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutsideGroup {
    /// It has a number in the oldest known namespace.
    Numbered,
    /// Its leader is outside that namespace: it can only be inherited.
    Inherited,
}

/// The steps that rebuild `tree` below a builder in its oldest known namespace.
///
/// Errors: a tree that contradicts itself, and relations that no sequence of system calls makes.
pub fn schedule(tree: &Tree, outside: OutsideGroup) -> Result<Schedule, ScheduleError> {
    let kin = kin::Kin::of(tree, outside)?;
    let births = birth::Births::of(&kin)?;
    let cast = servers::Cast::of(&kin, &births);
    let joining = joining::Joining::of(&kin, &cast)?;
    let order = events::in_order(&kin, &births, &cast, &joining)?;
    Ok(order::write_down(&kin, &cast, &joining, &order))
}
