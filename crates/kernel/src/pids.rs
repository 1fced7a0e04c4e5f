//! Process numbers of other pid namespaces.

use std::num::NonZeroU32;
use std::os::fd::OwnedFd;

use pinfold_model::{HostPid, Pid};
use rustix::io::Errno as Raw;

use crate::process::{Identity, Namespace, NamespaceId, ProcessError, lasting_namespace};
use crate::{proc, process};

/// Translates between one reader's pid namespace and the daemon's.
///
/// Costs nothing when the two are the same, one system call a number on Linux 6.11 or newer, and reading
/// `/proc/PID/status` (for [`PidMap::to_host`]: of all processes) before.
#[derive(Debug)]
pub struct PidMap(Kind);

#[derive(Debug)]
enum Kind {
    Same,
    Other { namespace: OwnedFd, id: NamespaceId, depth: usize },
}

impl PidMap {
    /// The map of the daemon's own namespace.
    pub(crate) const SAME: Self = Self(Kind::Same);

    /// The map for the pid namespace that a process or task is in.
    pub fn of(reader: HostPid) -> Result<Self, ProcessError> {
        let own = lasting_namespace(Namespace::Pid)?;
        match process::namespace(reader, Namespace::Pid) {
            Ok(its) if its == own => return Ok(Self::SAME),
            // Another user's, and we may not trace it. But who has one number is in the namespace that /proc is of.
            Err(ProcessError::System { errno: Raw::ACCESS | Raw::PERM, .. })
                if Identity::of(reader)?.numbers.len() == 1 =>
            {
                return Ok(Self::SAME);
            }
            other => other.map(drop)?,
        }
        let failed = |errno| match errno {
            Raw::NOENT | Raw::SRCH => ProcessError::Gone(reader),
            errno => ProcessError::System { process: reader, file: "ns/pid", errno },
        };
        let namespace = proc::open_of(reader, Namespace::Pid.file()).map_err(failed)?;
        let id = NamespaceId::of_stat(&rustix::fs::fstat(&namespace).map_err(failed)?);
        if id == own {
            // The number was reused between the two looks.
            return Ok(Self::SAME);
        }
        let depth = Identity::of(reader)?.numbers.len();
        Ok(Self(Kind::Other { namespace, id, depth }))
    }

    /// Whether the numbers are the daemon's own.
    pub const fn is_same(&self) -> bool {
        matches!(self.0, Kind::Same)
    }

    /// The task that the reader means by a number; `None` if it sees none of that number.
    pub fn to_host(&self, pid: Pid) -> Option<HostPid> {
        match &self.0 {
            Kind::Same => HostPid::new(pid.get()),
            Kind::Other { namespace, id, depth } => {
                match pinfold_sys::ns::pid_from(namespace, NonZeroU32::new(pid.get())?) {
                    Ok(number) => HostPid::new(number.get()),
                    Err(Raw::NOTTY) => search(*id, *depth, pid),
                    Err(_) => None,
                }
            }
        }
    }

    /// The number by which the reader sees a task; `None` if it does not see it.
    pub fn from_host(&self, task: HostPid) -> Option<Pid> {
        match &self.0 {
            Kind::Same => Pid::new(task.get()),
            Kind::Other { namespace, id, depth } => {
                match pinfold_sys::ns::pid_in(namespace, NonZeroU32::new(task.get())?) {
                    Ok(number) => Pid::new(number.get()),
                    Err(Raw::NOTTY) => number_in(*id, *depth, task),
                    Err(_) => None,
                }
            }
        }
    }
}

/// Before Linux 6.11: looks at every task until one has the number in the namespace.
fn search(namespace: NamespaceId, depth: usize, pid: Pid) -> Option<HostPid> {
    let processes = proc::processes().ok()?;
    let is_it = |task: &HostPid| number_in(namespace, depth, *task) == Some(pid);
    // Most numbers are of processes: look at the tasks of processes only if none has it.
    processes
        .iter()
        .copied()
        .find(is_it)
        .or_else(|| processes.iter().flat_map(|p| proc::tasks(*p).unwrap_or_default()).find(is_it))
}

/// Before Linux 6.11: `NSpid` lists a task's numbers from the daemon's namespace inwards, so the number at `depth` is
/// the one in `namespace`, if the task's own namespace is that one or lies below it.
fn number_in(namespace: NamespaceId, depth: usize, task: HostPid) -> Option<Pid> {
    let numbers = Identity::of(task).ok()?.numbers;
    let number = *numbers.get(depth.checked_sub(1)?)?;
    let mut at = proc::open_of(task, Namespace::Pid.file()).ok()?;
    for _ in depth..numbers.len() {
        at = pinfold_sys::ns::parent(&at).ok()?;
    }
    let found = NamespaceId::of_stat(&rustix::fs::fstat(&at).ok()?);
    if found == namespace { Pid::new(number) } else { None }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// Processes in pid namespaces of their own, killed in the end: the outermost takes the others with it.
    struct Nest(Child);

    impl Nest {
        fn new(script: &str) -> Self {
            let arguments = ["--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script];
            let mut child = Command::new("unshare").args(arguments).stdout(Stdio::piped()).spawn().unwrap();
            let mut line = String::new();
            BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
            assert_eq!(line, "ready\n", "unshare works here");
            Self(child)
        }

        /// The processes below a process, in the order of their numbers.
        fn below(parent: HostPid) -> Vec<HostPid> {
            let is_child = |pid: &HostPid| {
                let status = proc::read_of(*pid, "status").unwrap_or_default();
                String::from_utf8_lossy(&status).contains(&format!("\nPPid:\t{parent}\n"))
            };
            let mut found: Vec<_> = proc::processes().unwrap().into_iter().filter(is_child).collect();
            found.sort();
            found
        }

        fn pid(&self) -> HostPid {
            HostPid::new(self.0.id()).unwrap()
        }
    }

    impl Drop for Nest {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn pid(number: u32) -> Pid {
        Pid::new(number).unwrap()
    }

    #[test]
    fn numbers_of_the_daemons_own_namespace_are_the_same() {
        let map = PidMap::of(process::own_pid()).unwrap();
        assert!(map.is_same());
        assert_eq!(map.to_host(pid(77)), HostPid::new(77));
        assert_eq!(map.from_host(HostPid::new(77).unwrap()), Some(pid(77)));
    }

    #[test]
    fn a_number_means_another_process_in_another_namespace() {
        let nest = Nest::new("sleep 600 & echo ready; wait");
        let init = Nest::below(nest.pid())[0];
        let sleep = Nest::below(init)[0];
        let map = PidMap::of(init).unwrap();
        assert!(!map.is_same());
        assert_eq!(map.to_host(pid(1)), Some(init));
        assert_eq!(map.from_host(sleep), Some(pid(2)));
        assert_eq!(map.to_host(pid(2)), Some(sleep));
        assert_eq!(map.to_host(pid(4_000_000)), None);
        assert_eq!(map.from_host(nest.pid()), None, "what is outside is not visible inside");
        assert_eq!(map.from_host(process::own_pid()), None);
    }

    #[test]
    fn old_kernels_are_asked_another_way_and_answer_the_same() {
        let inner =
            "unshare --pid --fork --kill-child --mount-proc sh -c 'sleep 600 & echo ready; wait' & wait";
        let nest = Nest::new(inner);
        let sibling = Nest::new("sleep 600 & echo ready; wait");
        let outer_init = Nest::below(nest.pid())[0];
        let inner_unshare = Nest::below(outer_init)[0];
        let inner_init = Nest::below(inner_unshare)[0];
        let sleep = Nest::below(inner_init)[0];
        let other_init = Nest::below(sibling.pid())[0];
        for reader in [outer_init, inner_init] {
            let map = PidMap::of(reader).unwrap();
            let Kind::Other { id, depth, .. } = &map.0 else { panic!("a namespace of its own") };
            for task in [outer_init, inner_unshare, inner_init, sleep, other_init, nest.pid()] {
                let number = map.from_host(task);
                assert_eq!(number_in(*id, *depth, task), number, "{task} for {reader}");
                assert_eq!(
                    number.and_then(|n| search(*id, *depth, n)),
                    number.map(|_| task),
                    "{task} for {reader}"
                );
            }
            assert_eq!(map.from_host(other_init), None, "a sibling at the same depth is not visible");
        }
        assert_eq!(PidMap::of(outer_init).unwrap().from_host(outer_init), Some(pid(1)));
        assert_eq!(PidMap::of(inner_init).unwrap().from_host(sleep), Some(pid(2)));
    }

    #[test]
    fn nobody_has_no_namespace() {
        let mut child = Command::new("true").spawn().unwrap();
        let gone = HostPid::new(child.id()).unwrap();
        child.wait().unwrap();
        assert!(matches!(PidMap::of(gone), Err(ProcessError::Gone(_))));
    }
}
