//! What is done to processes from user space: stopped and let go on, bound to CPUs, killed.
//!
//! Each of them is held by a descriptor and compared by its start time first, so that a number that was used again is
//! not taken for the process that had it.

use pinfold_kernel::process::{self, Pinned, ProcessError, State, Vitals};
use pinfold_kernel::signal::{self, Signal};
use pinfold_model::HostPid;

use super::table::{Hold, Life};

/// What holds in a place for those who are there.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Held {
    pub(super) frozen: bool,
    /// `None`: any.
    pub(super) cpus: Option<Vec<usize>>,
}

/// A process does not let us.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) what: &'static str,
    pub(super) errno: rustix::io::Errno,
}

/// Holds a process, if its number is still its own.
fn pin(process: HostPid, life: &Life) -> Option<(Pinned, Vitals)> {
    let pinned = Pinned::of_process(process).ok()?;
    let vitals = Vitals::of(process).ok()?;
    (life.started.may_be(vitals.started) && vitals.state != State::Dead).then_some((pinned, vitals))
}

/// Has a process do what holds where it goes. Answers how it is held there.
pub(super) fn move_over(process: HostPid, life: &Life, before: &Held, after: &Held) -> Result<Hold, Refused> {
    if before.cpus != after.cpus {
        bind(process, after.cpus.as_deref())?;
    }
    hold(process, life, after.frozen).inspect_err(|_| {
        if before.cpus != after.cpus
            && let Err(refused) = bind(process, before.cpus.as_deref())
        {
            tracing::warn!("process {process} has other CPUs than its group: {}", refused.errno);
        }
    })
}

/// Has a process that was just born do what holds where it was born: it came without being asked, so what it does not let
/// us is only told.
pub(super) fn newborn(process: HostPid, life: &Life, held: &Held) -> Hold {
    if let Some(cpus) = &held.cpus {
        // It has its parent's, unless those were changed while it was born.
        tell(process, "bound to CPUs", bind(process, Some(cpus)));
    }
    if !held.frozen {
        return Hold::Free;
    }
    let held = hold(process, life, true);
    held.unwrap_or_else(|refused| {
        tell(process, "stopped", Err(refused));
        Hold::Free
    })
}

fn tell(process: HostPid, what: &str, outcome: Result<(), Refused>) {
    if let Err(refused) = outcome {
        tracing::warn!("process {process} was born into a group and cannot be {what}: {}", refused.errno);
    }
}

/// Stops a process or lets it go on, as it is to be. Answers how it is held now. One that is gone is held by nobody.
pub(super) fn hold(process: HostPid, life: &Life, frozen: bool) -> Result<Hold, Refused> {
    let send = |signal: Signal, then: Hold| {
        let Some((pinned, vitals)) = pin(process, life) else { return Ok(Hold::Free) };
        match (signal, vitals.state, life.hold) {
            // Whoever had it stopped will want to find it so.
            (Signal::STOP, State::Stopped, Hold::Free) => Ok(Hold::Before),
            (Signal::STOP, State::Stopped, hold) => Ok(hold),
            _ => match signal::send(&pinned, signal) {
                Ok(()) => Ok(then),
                Err(ProcessError::System { errno, .. }) => Err(Refused { what: "signal", errno }),
                Err(_) => Ok(Hold::Free),
            },
        }
    };
    match (frozen, life.hold) {
        (true, Hold::Before) => send(Signal::STOP, Hold::Before),
        (true, _) => send(Signal::STOP, Hold::Ours),
        (false, Hold::Ours) => send(Signal::CONT, Hold::Free),
        (false, Hold::Before | Hold::Free) => Ok(Hold::Free),
    }
}

/// Kills a process.
pub(super) fn kill(process: HostPid, life: &Life) {
    let Some((pinned, _)) = pin(process, life) else { return };
    if let Err(error @ ProcessError::System { .. }) = signal::send(&pinned, Signal::KILL) {
        tracing::warn!("process {process} cannot be killed: {error}");
    }
}

/// Binds every thread of a process to CPUs; `None`: to all that there are for us.
pub(super) fn bind(process: HostPid, cpus: Option<&[usize]>) -> Result<(), Refused> {
    let all;
    let cpus = match cpus {
        Some(cpus) => cpus,
        None => {
            all = process::own_affinity();
            &all
        }
    };
    // A thread that was born while the others were bound may have come from one that was not yet.
    let mut done = Vec::new();
    for _ in 0..8 {
        let tasks = process::tasks(process);
        let left: Vec<HostPid> = tasks.into_iter().filter(|task| !done.contains(task)).collect();
        if left.is_empty() {
            return Ok(());
        }
        for task in left {
            match process::set_affinity(task, cpus) {
                Err(ProcessError::System { errno, .. }) => {
                    return Err(Refused { what: "sched_setaffinity", errno });
                }
                Ok(()) | Err(_) => done.push(task),
            }
        }
    }
    Ok(())
}

/// Whether every task of a process stands still, or has ended. One that goes on though it was stopped is stopped again.
pub(super) fn stands_still(process: HostPid, life: &Life) -> bool {
    let Some((pinned, vitals)) = pin(process, life) else { return true };
    if vitals.state == State::Alive {
        // What it does not let us was told when it was stopped first.
        let _ = signal::send(&pinned, Signal::STOP);
        return false;
    }
    let state = |task| Vitals::of_task(process, task).map_or(State::Dead, |vitals| vitals.state);
    process::tasks(process).into_iter().all(|task| state(task) != State::Alive)
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
