//! Process numbers of other pid namespaces.

use std::num::NonZeroU32;
use std::os::fd::OwnedFd;

use pinfold_model::{HostPid, Pid};
use rustix::io::Errno as Raw;

use crate::process::{Identity, Namespace, NamespaceId, ProcessError, own_namespace};
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
    /// The map for the pid namespace that a process or task is in.
    pub fn of(reader: HostPid) -> Result<Self, ProcessError> {
        let own = own_namespace(Namespace::Pid)?;
        if process::namespace(reader, Namespace::Pid)? == own {
            return Ok(Self(Kind::Same));
        }
        let failed = |errno| match errno {
            Raw::NOENT | Raw::SRCH => ProcessError::Gone(reader),
            errno => ProcessError::System { process: reader, file: "ns/pid", errno },
        };
        let namespace = proc::open_of(reader, Namespace::Pid.file()).map_err(failed)?;
        let id = NamespaceId::of_stat(&rustix::fs::fstat(&namespace).map_err(failed)?);
        if id == own {
            // The number was reused between the two looks.
            return Ok(Self(Kind::Same));
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
