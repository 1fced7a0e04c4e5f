//! Descriptors of other processes: how many are open, and how many may be (RLIMIT_NOFILE).
//!
//! Out of scope: who gets how many.

use std::sync::OnceLock;

use pinfold_model::{DescriptorLimit, HostPid};
use rustix::io::Errno as Raw;
use rustix::process::{Pid, Resource, Rlimit};

use crate::proc;
use crate::process::{Pinned, ProcessError, has_running_tasks, start_time};

/// How many descriptors a process has open.
///
/// Source: proc_fd_getattr(): from Linux 6.2 on the directory's size.
pub fn open(process: HostPid) -> Result<u64, ProcessError> {
    of_first_or_another(process, |task| {
        if is_size_told() {
            let stat = proc::stat(&format!("{task}/fd"))?;
            return Ok(u64::try_from(stat.st_size).unwrap_or(0));
        }
        Ok(proc::descriptors(task, usize::MAX)?.len() as u64)
    })
}

/// One above the highest descriptor that a process has open; 0 if it has none.
pub fn end(process: HostPid) -> Result<u64, ProcessError> {
    of_first_or_another(process, |task| {
        let highest = proc::descriptors(task, usize::MAX)?.into_iter().max();
        Ok(highest.map_or(0, |highest| u64::from(highest) + 1))
    })
}

/// A process whose first task has ended while others go on shows no descriptors there: the others have them.
fn of_first_or_another(
    process: HostPid,
    figure: impl Fn(HostPid) -> Result<u64, Raw>,
) -> Result<u64, ProcessError> {
    let first = figure(process);
    let answer = match first {
        Ok(0) | Err(Raw::ACCESS) => {
            let others = proc::tasks(process).unwrap_or_default();
            let most = others.into_iter().filter_map(|task| figure(task).ok()).max();
            // Of a process that waits to be reaped nobody tells anything.
            most.or_else(|| (!has_running_tasks(process)).then_some(0)).map_or(first, Ok)
        }
        answer => answer,
    };
    answer.map_err(|errno| ProcessError::of(process, "fd", errno))
}

/// Whether the kernel tells the number of descriptors as the directory's size: this process has some.
fn is_size_told() -> bool {
    static TOLD: OnceLock<bool> = OnceLock::new();
    *TOLD.get_or_init(|| proc::stat("self/fd").is_ok_and(|stat| stat.st_size > 0))
}

/// How many descriptors a process may have.
pub fn limit(process: HostPid) -> Result<DescriptorLimit, ProcessError> {
    let found = raw(process).and_then(pinfold_sys::rlimit::descriptors);
    let (soft, hard) = found.map_err(|errno| ProcessError::of(process, "limits", errno))?;
    Ok(DescriptorLimit { soft, hard })
}

/// Lets the process that started then have so many, and answers how many it might have until then. One that has its number
/// since is left alone: prlimit(2) knows numbers only, so if the process has ended meanwhile, whoever was met in its stead has
/// its own limit again.
pub fn set_limit(
    process: HostPid,
    started: u64,
    limit: DescriptorLimit,
) -> Result<DescriptorLimit, ProcessError> {
    let pinned = Pinned::of_process(process)?;
    if start_time(process)? != started {
        return Err(ProcessError::Gone(process));
    }
    let new = Rlimit { current: Some(limit.soft), maximum: Some(limit.hard) };
    let set = |new| rustix::process::prlimit(Some(raw(process)?), Resource::Nofile, new);
    let had = set(new).map_err(|errno| ProcessError::of(process, "limits", errno))?;
    let verified = pinned.verify();
    if verified.is_err() && start_time(process).is_ok_and(|now| now != started) {
        let _ = set(had); // it may have ended as well
    }
    let figure = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
    verified.map(|()| DescriptorLimit { soft: figure(had.current), hard: figure(had.maximum) })
}

/// Lets this process have as many as it may let itself have: how many that is. `None`: no end to them.
pub fn raise_own() -> Result<Option<u64>, Raw> {
    let had = rustix::process::getrlimit(Resource::Nofile);
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: had.maximum, ..had })?;
    Ok(had.maximum)
}

fn raw(process: HostPid) -> Result<Pid, Raw> {
    i32::try_from(process.get()).ok().and_then(Pid::from_raw).ok_or(Raw::SRCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::own_pid;

    #[test]
    fn open_descriptors_are_counted_and_the_highest_is_known() {
        let (before, many) = (open(own_pid()).unwrap(), 40);
        let held: Vec<_> = (0..many).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        // Other tests of this process open and close some, too.
        let (now, end) = (open(own_pid()).unwrap(), end(own_pid()).unwrap());
        assert!(now + 30 >= before + many && end >= many, "{before}, then {now}; below {end}");
        drop(held);
    }

    #[test]
    fn a_limit_is_set_for_the_process_that_is_meant_only() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = HostPid::new(child.id()).unwrap();
        let had = limit(pid).unwrap();
        let started = start_time(pid).unwrap();
        let less = had.within(50);
        assert!(matches!(set_limit(pid, started + 1, less), Err(ProcessError::Gone(_))));
        assert_eq!(limit(pid).unwrap(), had, "another process, by its start");
        assert_eq!(set_limit(pid, started, less).unwrap(), had, "what it replaces");
        assert_eq!(limit(pid).unwrap(), less);
        crate::signal::send(&Pinned::of_process(pid).unwrap(), crate::signal::Signal::KILL).unwrap();
        child.wait().unwrap();
        assert!(matches!(set_limit(pid, started, less), Err(ProcessError::Gone(_))));
    }
}
