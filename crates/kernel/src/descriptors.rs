//! Descriptors of other processes: how many are open, and how many may be (RLIMIT_NOFILE).
//!
//! Out of scope: who gets how many.

use std::sync::OnceLock;

use pinfold_model::{DescriptorLimit, HostPid};
use rustix::io::Errno as Raw;
use rustix::process::{Pid, Resource, Rlimit};

use crate::proc::{self, Descriptors};
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

/// How many descriptors a process has open, in a time that does not grow with them: where the kernel does not tell their number, and there are more than
/// a thousand, [`end`]. New ones get the lowest numbers that are free, so that is seldom much more.
pub fn open_about(process: HostPid) -> Result<u64, ProcessError> {
    if is_size_told() {
        return open(process);
    }
    of_first_or_another(process, |task| see(task).map(|seen| seen.count.unwrap_or(seen.end)))
}

/// One above the highest descriptor that a process has open; 0 if it has none. Takes a time that does not grow with them.
pub fn end(process: HostPid) -> Result<u64, ProcessError> {
    of_first_or_another(process, |task| see(task).map(|seen| seen.end))
}

/// How many descriptors of a process are looked at one by one.
const LOOKED_AT: usize = 1024;

/// What is seen of a task's descriptors without looking at many.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Seen {
    /// How many there are; `None`: more than [`LOOKED_AT`].
    count: Option<u64>,
    /// One above the highest.
    end: u64,
    /// How many were looked at.
    looked_at: usize,
}

/// Looks at the lowest, and if there are more, for the highest by halves: whether there is any from a number on is told without
/// looking at those below.
fn see(task: HostPid) -> Result<Seen, Raw> {
    const FEW: usize = 4;
    // Further on no place in a directory of proc can be.
    const NONE: u32 = (1 << 31) - 3;
    let descriptors = Descriptors::of(task)?;
    let lowest = descriptors.from(0, LOOKED_AT + 1)?;
    let mut looked_at = lowest.len();
    let Some(mut there) = lowest.last().copied() else {
        return Ok(Seen { count: Some(0), end: 0, looked_at });
    };
    let count = (lowest.len() <= LOOKED_AT).then_some(lowest.len() as u64);
    let mut none = if count.is_some() { there } else { NONE };
    while there + 1 < none {
        let middle = there + (none - there) / 2;
        let found = descriptors.from(middle, FEW)?;
        looked_at += found.len();
        match found.last() {
            Some(found) => there = *found,
            None => none = middle,
        }
    }
    Ok(Seen { count, end: u64::from(there) + 1, looked_at })
}

/// A process whose first task has ended while others go on shows no descriptors there: the others have them.
fn of_first_or_another(
    process: HostPid,
    figure: impl Fn(HostPid) -> Result<u64, Raw>,
) -> Result<u64, ProcessError> {
    let first = figure(process);
    let answer = match first {
        Ok(0) | Err(Raw::ACCESS) => {
            // All of them have the same, unless one has asked for a table of its own, and its process for trouble.
            let others = proc::tasks(process).unwrap_or_default();
            let has_some = others.into_iter().find_map(|task| figure(task).ok().filter(|figure| *figure > 0));
            // Of a process that waits to be reaped nobody tells anything.
            has_some.or_else(|| (!has_running_tasks(process)).then_some(0)).map_or(first, Ok)
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

    /// Has many descriptors, the highest 4000; then without that, then without most. Each time it says so.
    const MANY: &str = r"
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (5000, 5000))
os.closerange(3, 5000)
for number in list(range(3, 3103)) + [4000]:
    os.dup2(0, number)
for gone in [[], [4000], range(3, 3102)]:
    for number in gone:
        os.close(number)
    print(flush=True)
    sys.stdin.read(1)
";

    #[test]
    fn few_of_many_descriptors_are_looked_at() {
        use std::io::{Read, Write};
        use std::process::{Command, Stdio};
        let mut python = Command::new("python3");
        let python = python.args(["-c", MANY]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = python.spawn().unwrap();
        let pid = HostPid::new(child.id()).unwrap();
        let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        for (count, end) in [(None, 4001), (None, 3103), (Some(4), 3103)] {
            stdout.read_exact(&mut [0]).unwrap();
            let seen = see(pid).unwrap();
            assert_eq!((seen.count, seen.end), (count, end));
            assert!(seen.looked_at <= LOOKED_AT + 150, "{seen:?}");
            stdin.write_all(b"x").unwrap();
        }
        assert!(child.wait().unwrap().success());
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
