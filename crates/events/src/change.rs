//! What the kernel tells of one task, before it is put in order.

use crate::event::{Comm, Ids, Pid, Time};

/// One thing that happened to a process or to a thread of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    /// When.
    pub time: Time,
    /// The process (thread group).
    pub process: Pid,
    /// What.
    pub what: Kind,
}

/// What happened to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The process was born, with one thread of the same number.
    Fork {
        /// The process that it was born to; `None` if that is outside the pid namespace.
        parent: Option<Pid>,
    },
    /// The process got another thread.
    Thread {
        /// The thread.
        task: Pid,
    },
    /// The process executed another program; of its threads one is left, with the number of the process.
    Exec {
        /// The new name, if the process was still there to be asked.
        comm: Option<Comm>,
    },
    /// A thread of the process ended, the first or another.
    Exit {
        /// The thread.
        task: Pid,
        /// The status that wait(2) would give.
        status: u32,
    },
    /// The user of the first thread changed.
    Uid(Ids),
    /// The group of the first thread changed.
    Gid(Ids),
    /// The process became a session leader.
    Sid,
    /// The first thread was renamed.
    Comm(Comm),
}
