//! What is done to processes from user space: stopped and let go on, bound to CPUs, killed.
//!
//! Each of them is held by a descriptor and compared by its start time first, so that a number that was used again is
//! not taken for the process that had it.

use std::collections::HashSet;
use std::fmt;

use pinfold_kernel::process::{self, Pinned, ProcessError, State, Vitals};
use pinfold_kernel::signal::{self, Signal};
use pinfold_model::HostPid;
use rustix::io::Errno;

use super::table::{Hold, Life};

/// What holds in a place for those who are there.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Held {
    pub(super) frozen: bool,
    /// `None`: any.
    pub(super) cpus: Option<Vec<usize>>,
}

/// Why something was not done to a process.
#[derive(Debug)]
pub(super) enum Refused {
    /// It does not let us.
    Process { what: &'static str, errno: Errno },
    /// It would not have been written down: the next daemon would not know what was done.
    Record(std::io::Error),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { what, errno } => write!(f, "{what}: {errno}"),
            Self::Record(error) => write!(f, "the record of members: {error}"),
        }
    }
}

/// A process that is held, whose number is still its own, and what its tasks are doing that have not ended: the first one may
/// have, and others go on.
#[derive(Debug)]
pub(super) struct Found {
    pinned: Pinned,
    /// Whether nothing of it goes on, whoever keeps it from that.
    pub(super) stands_still: bool,
    is_stopped: bool,
}

impl Found {
    /// Holds a process. `None`: all of it has ended.
    pub(super) fn of(process: HostPid, life: &Life) -> Option<Self> {
        let pinned = Pinned::of_process(process).ok()?;
        let vitals = Vitals::of(process).ok().filter(|vitals| life.started.may_be(vitals.started))?;
        let of_task = |task| Vitals::of_task(process, task).map_or(State::Dead, |vitals| vitals.state);
        let mut tasks: Vec<(HostPid, State)> = match vitals.tasks {
            0 | 1 => vec![(process, vitals.state)],
            _ => process::tasks(process).into_iter().map(|task| (task, of_task(task))).collect(),
        };
        tasks.retain(|(_, state)| *state != State::Dead);
        // One that waits for its child by vfork(2) stops when that has executed, which it does not while it is stopped.
        let stands_still = tasks.iter().all(|(task, state)| match state {
            State::Stopped | State::Traced | State::Dead => true,
            State::Waiting => process::waits_for_vfork(*task),
            State::Alive => false,
        });
        let is_stopped = tasks.iter().all(|(_, state)| *state == State::Stopped);
        (!tasks.is_empty()).then_some(Self { pinned, stands_still, is_stopped })
    }

    /// How it is held once it stands still. Whoever had it stopped will want to find it so; a tracer that keeps it
    /// lets it go on when it likes, and so has not stopped it.
    pub(super) fn hold(&self, before: Hold) -> Hold {
        match before {
            Hold::Free if self.is_stopped => Hold::Before,
            hold if self.is_stopped => hold,
            _ => Hold::Ours,
        }
    }

    /// Sends a signal. To one that has ended meanwhile it does nothing.
    pub(super) fn send(&self, signal: Signal) -> Result<(), Refused> {
        match signal::send(&self.pinned, signal) {
            Err(ProcessError::System { errno, .. }) => Err(Refused::Process { what: "signal", errno }),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// Lets a process go on that we have stopped.
pub(super) fn let_go(process: HostPid, life: &Life) -> Result<(), Refused> {
    match Found::of(process, life) {
        Some(found) if life.hold == Hold::Ours => found.send(Signal::CONT),
        _ => Ok(()),
    }
}

/// Kills a process.
pub(super) fn kill(process: HostPid, life: &Life) -> Result<(), Refused> {
    Found::of(process, life).map_or(Ok(()), |found| found.send(Signal::KILL))
}

/// Binds every thread of a process to CPUs; `None`: to all that there are for us.
pub(super) fn bind(process: HostPid, life: &Life, cpus: Option<&[usize]>) -> Result<(), Refused> {
    let cpus = cpus.map_or_else(process::own_affinity, <[usize]>::to_vec);
    bind_each(process, life, |_| Some(cpus.clone()))
}

/// Has no thread of a process run elsewhere. A thread that has fewer CPUs of its own choice keeps those, as in the kernel.
pub(super) fn confine(process: HostPid, life: &Life, cpus: &[usize]) -> Result<(), Refused> {
    bind_each(process, life, |task| {
        let own = process::affinity(task).ok()?;
        let both: Vec<usize> = own.iter().copied().filter(|cpu| cpus.contains(cpu)).collect();
        match both.len() {
            0 => Some(cpus.to_vec()),
            most if most == own.len() => None,
            _ => Some(both),
        }
    })
}

/// Binds each thread to what is chosen for it, if anything is.
fn bind_each(
    process: HostPid,
    life: &Life,
    choose: impl Fn(HostPid) -> Option<Vec<usize>>,
) -> Result<(), Refused> {
    if Found::of(process, life).is_none() {
        return Ok(());
    }
    each_of(
        || process::tasks(process),
        |task| match choose(task).map_or(Ok(()), |cpus| process::set_affinity(task, &cpus)) {
            Err(ProcessError::System { errno, .. }) => {
                Err(Refused::Process { what: "sched_setaffinity", errno })
            }
            Ok(()) | Err(_) => Ok(()),
        },
    )
}

/// Does something to each task that is listed, once: also to those that were born while it was done to the others, which may come from
/// one to which it was not yet. Not for ever.
fn each_of(
    list: impl Fn() -> Vec<HostPid>,
    act: impl Fn(HostPid) -> Result<(), Refused>,
) -> Result<(), Refused> {
    let mut done = HashSet::new();
    for _ in 0..8 {
        let left: Vec<HostPid> = list().into_iter().filter(|task| done.insert(*task)).collect();
        if left.is_empty() {
            break;
        }
        left.into_iter().try_for_each(&act)?;
    }
    Ok(())
}

/// The tasks of these processes that have not ended, ascending.
pub(super) fn tasks_of(processes: Vec<HostPid>) -> Vec<HostPid> {
    let alive = |process, task: &HostPid| {
        Vitals::of_task(process, *task).is_ok_and(|vitals| vitals.state != State::Dead)
    };
    let tasks = |process| process::tasks(process).into_iter().filter(move |task| alive(process, task));
    let mut found: Vec<HostPid> = processes.into_iter().flat_map(tasks).collect();
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    /// Each was compared with all that were done before: a user's process may have as many threads as there are numbers.
    #[test]
    fn each_of_very_many_threads_is_done_once_and_those_born_meanwhile_too() {
        const THREADS: u32 = 400_000;
        let (lists, done) = (Cell::new(0), RefCell::new(Vec::new()));
        let list = || {
            lists.set(lists.get() + 1);
            // One more each time, for ever.
            (1..=THREADS + lists.get()).filter_map(HostPid::new).collect()
        };
        let act = |task: HostPid| {
            done.borrow_mut().push(task.get());
            Ok(())
        };
        each_of(list, act).unwrap();
        assert_eq!(lists.get(), 8);
        assert!(done.borrow().iter().copied().eq(1..=THREADS + 8));
        let refused = |_| Err(Refused::Process { what: "sched_setaffinity", errno: Errno::INVAL });
        let [one, other] = [1, 2].map(|number| HostPid::new(number).unwrap());
        assert!(each_of(|| vec![one, other], refused).is_err());
        let gone = each_of(Vec::new, refused);
        assert!(gone.is_ok(), "nobody is there any more");
    }
}
