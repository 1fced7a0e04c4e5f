//! Numbers of tasks in other pid namespaces: asked of the namespace since Linux 6.11, and before found in /proc.
//!
//! Whoever asks which task has a number is somebody in such a namespace, who may ask for one that nobody has as often as he likes. So
//! in /proc every process of the machine is only asked which namespace it is in, one stat(2); the numbers are read of those that his
//! namespace sees, and of their threads once in a while (`Threads`).

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{Stat, fstat, stat};
use rustix::io::{Errno, Result};

use crate::ns;

/// A pid namespace inside of the caller's.
#[derive(Debug)]
pub struct PidNamespace {
    namespace: OwnedFd,
    id: Id,
    depth: usize,
}

/// Device and inode.
type Id = (u64, u64);

const fn id(stat: &Stat) -> Id {
    (stat.st_dev, stat.st_ino)
}

impl PidNamespace {
    /// An open one, given how many numbers the processes in it have, seen from the caller's: see [`of`].
    ///
    /// Errors: those of fstat(2).
    pub fn new(namespace: OwnedFd, depth: usize) -> Result<Self> {
        let id = id(&fstat(&namespace)?);
        Ok(Self { namespace, id, depth })
    }

    /// The number in the caller's namespace of the task that has this one here; `None`: there is none.
    pub fn pid_from(&self, pid: NonZeroU32) -> Option<NonZeroU32> {
        match ns::pid_from(&self.namespace, pid) {
            Err(Errno::NOTTY) => self.search(pid.get(), &mut of).and_then(NonZeroU32::new),
            answer => answer.ok(),
        }
    }

    /// The number here of a task, given the one in the caller's namespace; `None`: it is not seen from here, or is gone.
    pub fn pid_in(&self, pid: NonZeroU32) -> Option<NonZeroU32> {
        match ns::pid_in(&self.namespace, pid) {
            Err(Errno::NOTTY) => self.number(pid.get(), &mut of).and_then(NonZeroU32::new),
            answer => answer.ok(),
        }
    }

    /// Before Linux 6.11: a task's numbers are listed from the caller's namespace inwards, so the one at `depth` is that of this
    /// namespace, if the task's own is this one or lies below it.
    fn number(&self, task: u32, read: &mut Read<'_>) -> Option<u32> {
        let numbers = read(task)?;
        let number = *numbers.get(self.depth.checked_sub(1)?)?;
        let mut at: OwnedFd = fs::File::open(format!("/proc/{task}/{NAMESPACE}")).ok()?.into();
        for _ in self.depth..numbers.len() {
            at = ns::parent(&at).ok()?;
        }
        (id(&fstat(&at).ok()?) == self.id).then_some(number)
    }

    /// Before Linux 6.11: looks at every task that is seen from here until one has the number. Most numbers are of processes.
    fn search(&self, pid: u32, read: &mut Read<'_>) -> Option<u32> {
        let own = id(&stat(format!("/proc/self/{NAMESPACE}")).ok()?);
        let mut seen = Vec::new();
        for process in listed("/proc") {
            match stat(format!("/proc/{process}/{NAMESPACE}")) {
                Ok(stat) if id(&stat) == own => continue,
                Err(Errno::NOENT | Errno::SRCH) => continue,
                // Another user's, perhaps, of whom we may not know more than its numbers.
                Ok(_) | Err(_) => {}
            }
            match self.number(process, read) {
                Some(number) if number == pid => return Some(process),
                Some(_) => seen.push(process),
                None => {}
            }
        }
        // A thread is in the namespace of its process.
        let threads = seen.into_iter().flat_map(|process| {
            let tasks = listed(&format!("/proc/{process}/task"));
            tasks.filter(move |task| *task != process).map(move |task| Thread { task, process })
        });
        let mut known = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
        known.find(threads, self.depth, pid, read).filter(|task| self.number(*task, read) == Some(pid))
    }
}

impl AsFd for PidNamespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }
}

/// A process's pid namespace, in its directory of /proc.
const NAMESPACE: &str = "ns/pid";

/// Reads the numbers of a task.
type Read<'a> = dyn FnMut(u32) -> Option<Vec<u32>> + 'a;

/// The numbers of a task from the caller's pid namespace inwards; `None`: it is gone.
///
/// Source: the `NSpid` line of proc_pid_status(5).
pub fn of(task: u32) -> Option<Vec<u32>> {
    // The name in it may be any bytes.
    let status = fs::read(format!("/proc/{task}/status")).ok()?;
    let line = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"NSpid:"))?;
    std::str::from_utf8(line).ok()?.split_ascii_whitespace().map(|number| number.parse().ok()).collect()
}

/// The entries of a directory of /proc that are numbers.
fn listed(directory: &str) -> impl Iterator<Item = u32> + use<> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// What was read of threads.
static THREADS: LazyLock<Mutex<Threads>> = LazyLock::new(Mutex::default);

/// One that is not its process's first task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Thread {
    task: u32,
    process: u32,
}

/// The numbers of threads, each read once in a while: somebody may have as many as he is let, and ask for one that none of them has again
/// and again. Remembered is only what a task's number was: who is found is looked at once more. One that has come since, and got the
/// number of another of its own process, is not found in that while: the kernel gives numbers in turn.
#[derive(Default, Debug)]
struct Threads {
    /// By task: its process, and its numbers.
    known: HashMap<u32, (u32, Box<[u32]>)>,
    until: Option<Instant>,
}

/// How long the numbers of threads are remembered at least; otherwise so many times as long as it took to read them.
const WHILE: Duration = Duration::from_secs(1);
const REST: u32 = 3;
/// Of how many threads.
const MOST: usize = 128 * 1024;

impl Threads {
    /// The thread that has a number in the namespace at that depth.
    fn find(
        &mut self,
        threads: impl Iterator<Item = Thread>,
        depth: usize,
        pid: u32,
        read: &mut Read<'_>,
    ) -> Option<u32> {
        let began = Instant::now();
        let is_new = self.until.is_none_or(|until| until <= began);
        if is_new {
            self.known.clear();
        }
        let found = threads.into_iter().find(|thread| {
            let numbers = self.numbers(*thread, read);
            depth.checked_sub(1).and_then(|at| numbers.get(at).copied()) == Some(pid)
        });
        if is_new {
            self.until = Some(Instant::now() + WHILE.max(began.elapsed() * REST));
        }
        found.map(|thread| thread.task)
    }

    fn numbers(&mut self, Thread { task, process }: Thread, read: &mut Read<'_>) -> Cow<'_, [u32]> {
        let has_room = self.known.len() < MOST;
        match self.known.entry(task) {
            Entry::Occupied(known) if known.get().0 == process => Cow::Borrowed(&known.into_mut().1),
            entry if has_room => {
                let numbers = read(task).unwrap_or_default().into();
                Cow::Borrowed(&entry.insert_entry((process, numbers)).into_mut().1)
            }
            Entry::Occupied(_) | Entry::Vacant(_) => Cow::Owned(read(task).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::fd::OwnedFd;
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

        /// Its first process.
        fn init(&self) -> u32 {
            children(self.0.id())[0]
        }
    }

    impl Drop for Nest {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn children(parent: u32) -> Vec<u32> {
        let list = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
        list.split_ascii_whitespace().map(|number| number.parse().unwrap()).collect()
    }

    fn namespace_of(process: u32) -> PidNamespace {
        let namespace: OwnedFd = fs::File::open(format!("/proc/{process}/{NAMESPACE}")).unwrap().into();
        PidNamespace::new(namespace, of(process).unwrap().len()).unwrap()
    }

    #[test]
    fn old_kernels_are_asked_another_way_and_answer_the_same() {
        // One of them has a name that is no text.
        let inner = "printf '\\377' > /proc/$$/comm; \
                     unshare --pid --fork --kill-child --mount-proc sh -c 'sleep 600 & echo ready; wait' & wait";
        let nests = [Nest::new(inner), Nest::new("sleep 600 & echo ready; wait")];
        let [outer, sibling] = [&nests[0], &nests[1]].map(Nest::init);
        let inner_unshare = children(outer)[0];
        let inner = children(inner_unshare)[0];
        let sleep = children(inner)[0];
        let tasks = [outer, inner_unshare, inner, sleep, sibling, nests[0].0.id(), std::process::id()];
        for (reader, numbers) in [
            (outer, [Some(1), Some(2), Some(3), Some(4), None, None, None]),
            (inner, [None, None, Some(1), Some(2), None, None, None]),
        ] {
            let namespace = namespace_of(reader);
            for (task, expected) in tasks.into_iter().zip(numbers) {
                let asked = namespace.pid_in(NonZeroU32::new(task).unwrap()).map(NonZeroU32::get);
                assert_eq!(
                    (asked, namespace.number(task, &mut of)),
                    (expected, expected),
                    "{task} for {reader}"
                );
                let Some(number) = expected else { continue };
                let asked = namespace.pid_from(NonZeroU32::new(number).unwrap()).map(NonZeroU32::get);
                assert_eq!(asked, Some(task), "{number} for {reader}");
                assert_eq!(namespace.search(number, &mut of), Some(task), "{number} for {reader}");
            }
            assert_eq!(namespace.search(4_000_000, &mut of), None);
        }
    }

    /// A number that nobody has cost a look at every task of the machine.
    #[test]
    fn for_a_number_that_nobody_has_only_those_who_are_seen_are_read() {
        let nest = Nest::new("sleep 600 & echo ready; wait");
        let mut read = Vec::new();
        let search = |read: &mut Vec<u32>| {
            namespace_of(nest.init()).search(4_000_000, &mut |task| {
                read.push(task);
                of(task)
            })
        };
        assert_eq!(search(&mut read), None);
        assert!(read.contains(&nest.init()));
        // In other containers of the machine, perhaps; or gone by now, or not to be traced.
        let is_outside = |task: &u32| {
            let namespace = |task: &str| stat(format!("/proc/{task}/{NAMESPACE}")).map(|stat| id(&stat));
            namespace(&task.to_string()).is_ok_and(|its| Ok(its) == namespace("self"))
        };
        assert!(!read.iter().any(is_outside), "{read:?}");
    }

    #[test]
    fn threads_are_read_once_however_often_somebody_asks() {
        const THREADS: u32 = 1000;
        let mut threads = Threads::default();
        let mut reads = 0;
        let mut ask = |threads: &mut Threads, tasks: std::ops::Range<u32>, pid: u32| {
            let before = reads;
            let all = tasks.map(|task| Thread { task, process: 7 });
            let found = threads.find(all, 2, pid, &mut |task| {
                reads += 1;
                Some(vec![task, task - 9])
            });
            (found, reads - before)
        };
        assert_eq!(ask(&mut threads, 10..10 + THREADS, 5000), (None, THREADS));
        threads.until = Some(Instant::now() + Duration::from_secs(3600));
        for pid in 5000..5100 {
            assert_eq!(ask(&mut threads, 10..10 + THREADS, pid), (None, 0));
        }
        assert_eq!(ask(&mut threads, 10..10 + THREADS, 1), (Some(10), 0));
        assert_eq!(ask(&mut threads, 10..10 + THREADS + 3, 5000), (None, 3), "those who came since");
        threads.until = Some(Instant::now());
        assert_eq!(ask(&mut threads, 10..10 + THREADS, 5000), (None, THREADS), "after a while");
        let other = [Thread { task: 10, process: 8 }].into_iter();
        threads.until = Some(Instant::now() + Duration::from_secs(3600));
        assert_eq!(
            threads.find(other, 2, 77, &mut |_| Some(vec![10, 77])),
            Some(10),
            "another process has it"
        );
    }
}
