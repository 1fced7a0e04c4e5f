//! Process numbers of other pid namespaces.

use std::num::NonZeroU32;

use pinfold_model::{HostPid, Pid};
use pinfold_sys::numbers::PidNamespace;
use rustix::io::Errno as Raw;

use crate::process;
use crate::process::{Identity, Namespace, ProcessError, lasting_namespace};

/// Translates between one reader's pid namespace and the daemon's.
///
/// Costs nothing when the two are the same, one system call a number on Linux 6.11 or newer, and before that a look into
/// /proc ([`PidNamespace`]): for [`PidMap::to_host`] at every process.
#[derive(Debug)]
pub struct PidMap(Kind);

#[derive(Debug)]
enum Kind {
    Same,
    Other(PidNamespace),
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
        let (namespace, id) = process::open_namespace(reader, Namespace::Pid)?;
        if id == own {
            // The number was reused between the two looks.
            return Ok(Self::SAME);
        }
        let namespace = PidNamespace::new(namespace, Identity::of(reader)?.numbers.len());
        let failed = |errno| ProcessError::of(reader, Namespace::Pid.file(), errno);
        Ok(Self(Kind::Other(namespace.map_err(failed)?)))
    }

    /// Whether the numbers are the daemon's own.
    pub const fn is_same(&self) -> bool {
        matches!(self.0, Kind::Same)
    }

    /// The task that the reader means by a number; `None` if it sees none of that number.
    pub fn to_host(&self, pid: Pid) -> Option<HostPid> {
        match &self.0 {
            Kind::Same => HostPid::new(pid.get()),
            Kind::Other(namespace) => HostPid::new(namespace.pid_from(NonZeroU32::new(pid.get())?)?.get()),
        }
    }

    /// The number by which the reader sees a task; `None` if it does not see it.
    pub fn from_host(&self, task: HostPid) -> Option<Pid> {
        match &self.0 {
            Kind::Same => Pid::new(task.get()),
            Kind::Other(namespace) => Pid::new(namespace.pid_in(NonZeroU32::new(task.get())?)?.get()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};

    use super::*;
    use crate::proc;

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
    fn nobody_has_no_namespace() {
        let mut child = Command::new("true").spawn().unwrap();
        let gone = HostPid::new(child.id()).unwrap();
        child.wait().unwrap();
        assert!(matches!(PidMap::of(gone), Err(ProcessError::Gone(_))));
    }
}
