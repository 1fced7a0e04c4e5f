//! Pid namespaces of subscribers, and the numbers that processes have in them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;

use pinfold_sys::numbers::{self, PidNamespace};
use rustix::fs::{Stat, fstat};
use rustix::io::Errno;

use crate::event::{Pid, Process};
use crate::proc;

/// A pid namespace, as long as somebody is in it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct NamespaceId {
    device: u64,
    inode: u64,
}

impl NamespaceId {
    /// For tests of what takes one: any two numbers name one.
    pub const fn new(device: u64, inode: u64) -> Self {
        Self { device, inode }
    }

    const fn of(stat: &Stat) -> Self {
        Self::new(stat.st_dev, stat.st_ino)
    }
}

/// What the hub has to ask about processes that are in other pid namespaces than the daemon.
pub trait Namespaces {
    /// The number of a process, given the daemon's for it, in another namespace; `None`: it is not visible there, or gone.
    fn number(&mut self, namespace: NamespaceId, pid: Pid) -> Option<Pid>;

    /// Whether the number that a process had may be its own still: events are read later than they happen. Asked after what is asked by
    /// the number.
    fn may_be(&mut self, process: Process) -> bool;

    /// [`Self::may_be`] of a process that was just born to this parent, which another child's number cannot pass for: within a tick of its birth
    /// nothing else tells two who had one number from each other. Who has another parent by now is not believed either.
    fn is_child(&mut self, process: Process, parent: Option<Process>) -> bool;

    /// When the process that has a number now started, in ticks of `/proc/PID/stat`; `None`: nobody has it.
    fn ticks(&mut self, pid: Pid) -> Option<u64>;

    /// The namespace that a process is in; `None`: it is gone, or we may not know.
    fn home(&mut self, pid: Pid) -> Option<NamespaceId>;

    /// That one and those around it, up to the daemon's, which is not among them; `None`: it is gone, or we may not know.
    fn seen_from(&mut self, pid: Pid) -> Option<Box<[NamespaceId]>>;

    /// The leader of a process's session, living or not; `None`: it is outside the daemon's namespace, or the process is gone.
    fn session(&mut self, pid: Pid) -> Option<Pid>;
}

/// Why a process's namespaces are not known. It may be somebody's in a container who is told this: it names no number of the daemon's.
#[derive(Debug, thiserror::Error)]
#[error("/proc/PID/{file}, of whoever subscribes: {error}{}", if self.is_denied() { HINT } else { "" })]
pub struct NamespaceError {
    /// What was looked at.
    pub file: &'static str,
    /// The kernel's answer.
    #[source]
    pub error: io::Error,
}

const HINT: &str =
    "\nhint: for other users' processes in namespaces of their own, the daemon needs CAP_SYS_PTRACE";

impl NamespaceError {
    /// Whether the daemon may not know them: to look takes the right to trace the process, as ptrace(2) has it.
    pub fn is_denied(&self) -> bool {
        self.error.kind() == io::ErrorKind::PermissionDenied
    }
}

/// How long a number is believed without a look, in nanoseconds. The kernel comes round to one after as many forks as there are free ones:
/// thousands, as a rule, but few where somebody holds nearly all. So it is for what misses something at worst, never for what tells of it.
const COMING_ROUND: u64 = 5_000_000;

/// The namespaces of this machine.
#[derive(Debug)]
pub struct Machine {
    own: NamespaceId,
    others: HashMap<NamespaceId, PidNamespace>,
}

impl Machine {
    /// Knows the own pid namespace.
    pub fn new() -> Result<Self, NamespaceError> {
        let own = open(&"self", PID).map_err(|error| NamespaceError { file: PID, error })?;
        Ok(Self { own: own.1, others: HashMap::new() })
    }

    /// The pid namespace of a process, if it is another than the daemon's. It is kept for questions.
    pub fn enter(&mut self, pid: Pid) -> Result<Option<NamespaceId>, NamespaceError> {
        let (namespace, id) = match open(&pid, PID) {
            Ok(opened) => opened,
            // Another user's, say. But who has one number is in the namespace that /proc is of.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && has_one_number(pid) => {
                return Ok(None);
            }
            Err(error) => return Err(NamespaceError { file: PID, error }),
        };
        if id == self.own {
            return Ok(None);
        }
        if let Entry::Vacant(entry) = self.others.entry(id) {
            let depth = numbers::of(pid.get()).map_or(0, |numbers| numbers.len());
            let failed = |errno: Errno| NamespaceError { file: PID, error: errno.into() };
            entry.insert(PidNamespace::new(namespace, depth).map_err(failed)?);
        }
        Ok(Some(id))
    }

    /// Nobody asks for a namespace any more.
    pub fn forget(&mut self, id: NamespaceId) {
        self.others.remove(&id);
    }
}

impl Namespaces for Machine {
    fn number(&mut self, namespace: NamespaceId, pid: Pid) -> Option<Pid> {
        let number = self.others.get(&namespace)?.pid_in(NonZeroU32::new(pid.get())?)?;
        Pid::new(number.get())
    }

    fn may_be(&mut self, process: Process) -> bool {
        if proc::now().0.saturating_sub(process.started.0) < COMING_ROUND {
            return true;
        }
        let ticks = process.pid.and_then(proc::ticks);
        ticks.is_some_and(|ticks| process.started.may_be(ticks))
    }

    fn is_child(&mut self, process: Process, parent: Option<Process>) -> bool {
        let is_still = |Process { pid, started }: Process| {
            pid.is_none_or(|pid| proc::ticks(pid).is_some_and(|ticks| started.may_be(ticks)))
        };
        let Some((born_to, ticks)) = process.pid.and_then(proc::birth) else { return false };
        process.started.may_be(ticks)
            && born_to == parent.and_then(|parent| parent.pid)
            && parent.is_none_or(is_still)
    }

    fn ticks(&mut self, pid: Pid) -> Option<u64> {
        proc::ticks(pid)
    }

    fn home(&mut self, pid: Pid) -> Option<NamespaceId> {
        rustix::fs::stat(format!("/proc/{pid}/ns/pid")).ok().map(|stat| NamespaceId::of(&stat))
    }

    fn seen_from(&mut self, pid: Pid) -> Option<Box<[NamespaceId]>> {
        match rustix::fs::stat(format!("/proc/{pid}/ns/pid")) {
            Ok(stat) if NamespaceId::of(&stat) == self.own => return Some(Box::default()),
            Ok(_) => {}
            Err(Errno::ACCESS | Errno::PERM) => return has_one_number(pid).then(Box::default),
            Err(_) => return None,
        }
        let (mut at, mut id) = open(&pid, PID).ok()?;
        let mut all = Vec::new();
        while id != self.own {
            all.push(id);
            at = pinfold_sys::ns::parent(&at).ok()?;
            id = NamespaceId::of(&fstat(&at).ok()?);
        }
        Some(all.into())
    }

    fn session(&mut self, pid: Pid) -> Option<Pid> {
        proc::session(pid)
    }
}

/// A process's pid namespace, in its directory of /proc.
const PID: &str = "ns/pid";

fn open(process: &dyn fmt::Display, file: &str) -> io::Result<(OwnedFd, NamespaceId)> {
    let file = File::open(format!("/proc/{process}/{file}"))?;
    let id = NamespaceId::of(&fstat(&file)?);
    Ok((file.into(), id))
}

/// Everybody may see that of everybody.
fn has_one_number(pid: Pid) -> bool {
    numbers::of(pid.get()).is_some_and(|numbers| numbers.len() == 1)
}

/// The numbers that users, or groups, have in another user namespace.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct IdMap(Vec<Extent>);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Extent {
    inside: u32,
    outside: u32,
    length: u32,
}

/// What is not in the map reads as the overflow id, as everywhere.
const NOBODY: u32 = 65534;

impl IdMap {
    /// The map of everything to itself.
    pub fn same() -> Self {
        Self(vec![Extent { inside: 0, outside: 0, length: u32::MAX }])
    }

    /// The maps of users and groups between the daemon's user namespace and a process's.
    pub fn of(pid: Pid) -> Result<(Self, Self), NamespaceError> {
        let read = |file| {
            let text = fs::read_to_string(format!("/proc/{pid}/{file}"));
            text.map_err(|error| NamespaceError { file, error })
        };
        let (users, groups) = (read("uid_map")?, read("gid_map")?);
        let stat = |path: String| rustix::fs::stat(path).map(|stat| NamespaceId::of(&stat));
        let is_same = match (stat("/proc/self/ns/user".into()), stat(format!("/proc/{pid}/ns/user"))) {
            (Ok(own), Ok(its)) => own == its,
            // Another user's, perhaps. All who are in one namespace have its maps, and who has the same in another maps
            // everybody to himself.
            _ => [("uid_map", &users), ("gid_map", &groups)].iter().all(|(file, its)| {
                fs::read_to_string(format!("/proc/self/{file}")).is_ok_and(|own| own == **its)
            }),
        };
        // Read from inside, a map shows how the parent sees it: of our own we want none of that.
        match is_same {
            true => Ok((Self::same(), Self::same())),
            false => Ok((Self::parse(&users), Self::parse(&groups))),
        }
    }

    /// From the text of `/proc/PID/uid_map`: what is inside, what is outside, how many.
    pub fn parse(text: &str) -> Self {
        let extent = |line: &str| {
            let mut numbers = line.split_ascii_whitespace().map(str::parse);
            let mut next = || numbers.next()?.ok();
            Some(Extent { inside: next()?, outside: next()?, length: next()? })
        };
        Self(text.lines().filter_map(extent).collect())
    }

    /// The number inside of a user or group outside.
    pub fn inside(&self, id: u32) -> u32 {
        let holds = |extent: &&Extent| id.checked_sub(extent.outside).is_some_and(|at| at < extent.length);
        self.0.iter().find(holds).map_or(NOBODY, |extent| extent.inside.saturating_add(id - extent.outside))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Started;
    use crate::proc::Seen;

    #[test]
    fn ids_that_are_not_in_the_map_are_nobody() {
        let map = IdMap::parse("         0       1000          1\n         1     100000      65536\n");
        for (outside, inside) in [(1000, 0), (100_000, 1), (165_535, 65_536), (0, 65534), (165_536, 65534)] {
            assert_eq!(map.inside(outside), inside, "{outside}");
        }
        assert_eq!(IdMap::same().inside(1234), 1234);
        assert_eq!(IdMap::parse("rubbish\n").inside(0), 65534);
    }

    /// Processes in a pid namespace of their own, killed in the end.
    struct Nest(std::process::Child);

    impl Nest {
        fn new(script: &str) -> Self {
            let arguments = ["--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script];
            let mut command = std::process::Command::new("unshare");
            let mut child = command.args(arguments).stdout(std::process::Stdio::piped()).spawn().unwrap();
            let mut line = String::new();
            let out = std::io::BufReader::new(child.stdout.as_mut().unwrap());
            std::io::BufRead::read_line(&mut { out }, &mut line).unwrap();
            assert_eq!(line, "ready\n", "unshare works here");
            Self(child)
        }
    }

    impl Drop for Nest {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn a_namespace_sees_those_who_are_in_it_or_further_inside() {
        let inner = "unshare --pid --fork --kill-child sh -c 'sleep 600 & echo ready; wait' & wait";
        let nests = [Nest::new(inner), Nest::new("sleep 600 & echo ready; wait")];
        let mut machine = Machine::new().unwrap();
        let all = proc::Scanner::new("/proc").unwrap().scan().unwrap().processes;
        for nest in &nests {
            let is_child = |seen: &&Seen| seen.parent.is_some_and(|pid| pid.get() == nest.0.id());
            let init = all.iter().find(is_child).unwrap().pid;
            let id = machine.enter(init).unwrap().unwrap();
            assert_eq!((machine.home(init), machine.seen_from(init)), (Some(id), Some([id].into())));
            assert_eq!(machine.number(id, init), Pid::new(1));
            let nested = |seen: &&Seen| numbers::of(seen.pid.get()).is_some_and(|n| n.len() > 1);
            let mut visible = 0;
            for Seen { pid, .. } in all.iter().filter(nested) {
                let Some(seen_from) = machine.seen_from(*pid) else { continue };
                assert_eq!(
                    machine.number(id, *pid).is_some(),
                    seen_from.contains(&id),
                    "{pid}: {seen_from:?}"
                );
                assert_eq!(seen_from.first().copied(), machine.home(*pid));
                visible += usize::from(seen_from.contains(&id));
            }
            assert!(visible >= 2, "{visible}");
        }
    }

    #[test]
    fn who_has_a_childs_number_is_believed_by_its_parent() {
        let mut machine = Machine::new().unwrap();
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let own = Pid::new(std::process::id()).unwrap();
        let as_told = |pid: Pid, at: u64| Process { pid: Some(pid), started: Started(at) };
        let now = proc::now().0;
        let (process, parent) = (as_told(Pid::new(child.id()).unwrap(), now), as_told(own, now));
        assert!(machine.is_child(process, Some(parent)));
        assert!(!machine.is_child(process, Some(process)), "another's child");
        assert!(!machine.is_child(process, None), "a child of somebody outside");
        assert!(!machine.is_child(process, Some(as_told(own, 0))), "of who had the parent's number before");
        assert!(!machine.is_child(as_told(Pid::new(child.id()).unwrap(), 0), Some(parent)), "one before");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!machine.is_child(process, Some(parent)), "it is gone");
    }

    #[test]
    fn the_own_namespace_is_no_other() {
        let mut machine = Machine::new().unwrap();
        let own = Pid::new(std::process::id()).unwrap();
        assert_eq!(machine.enter(own).unwrap(), None);
        assert_eq!((machine.home(own), machine.seen_from(own)), (Some(machine.own), Some([].into())));
    }
}
