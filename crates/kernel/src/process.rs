//! Who a process is, from proc; and holding on to one, so that a reused number is noticed.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, OnceLock};

use pinfold_model::{Credentials, Errno, Gid, HostPid, Uid};
use pinfold_sys::clock;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno as Raw;
use rustix::process::{Pid, PidfdFlags};
use rustix::thread::CapabilitySet;

use crate::{beneath, errors, proc};

/// Why something of a process is not known.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// There is no such process or task, or not any more.
    #[error("no process {0}")]
    Gone(HostPid),
    /// The kernel refused for another reason.
    #[error("/proc/{process}/{file}: {errno}")]
    System {
        /// The process or task.
        process: HostPid,
        /// What was looked at.
        file: &'static str,
        /// The kernel's answer.
        errno: Raw,
    },
    /// A file of proc does not look as expected.
    #[error("/proc/{process}/{file} cannot be understood")]
    Unreadable {
        /// The process or task.
        process: HostPid,
        /// The file.
        file: &'static str,
    },
}

impl ProcessError {
    /// The errno that says the same.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Gone(_) => Errno::ESRCH,
            Self::System { errno, .. } => errors::to_model(*errno),
            Self::Unreadable { .. } => Errno::EIO,
        }
    }

    pub(crate) fn of(process: HostPid, file: &'static str, errno: Raw) -> Self {
        match errno {
            Raw::NOENT | Raw::SRCH => Self::Gone(process),
            errno => Self::System { process, file, errno },
        }
    }
}

/// What `/proc/PID/status` says of a process or task.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The process that the task belongs to (its thread group).
    pub process: HostPid,
    /// The real user.
    pub real: Uid,
    /// The effective user: who acts.
    pub effective: Uid,
    /// The saved user.
    pub saved: Uid,
    /// The effective group of users.
    pub group: Gid,
    /// Whether the task has exited and waits to be reaped.
    pub is_zombie: bool,
    /// Its numbers in the pid namespaces that it is visible in, from the daemon's to its own. Empty before Linux 4.1.
    pub numbers: Vec<u32>,
}

impl Identity {
    /// Looks a process or task up. The number may name another one a moment later: see [`Pinned`].
    pub fn of(task: HostPid) -> Result<Self, ProcessError> {
        Self::in_status(task, proc::read_of(task, "status"))
    }

    fn in_status(task: HostPid, read: Result<Vec<u8>, Raw>) -> Result<Self, ProcessError> {
        let status = read.map_err(|errno| ProcessError::of(task, "status", errno))?;
        parse_status(&status).ok_or(ProcessError::Unreadable { process: task, file: "status" })
    }
}

/// Whether a task has CAP_SYS_ADMIN in its own user namespace now: capget(2). A task that has ended has not.
pub fn is_admin_of_its_own(task: HostPid) -> bool {
    effective(task).contains(CapabilitySet::SYS_ADMIN)
}

/// What a task may do in its own user namespace with what others own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OverOthers {
    /// CAP_CHOWN: to give it away.
    pub may_chown: bool,
    /// CAP_FOWNER: to change its mode.
    pub may_chmod: bool,
}

impl OverOthers {
    /// Of a task now. One that has ended may nothing.
    pub fn of(task: HostPid) -> Self {
        let effective = effective(task);
        Self {
            may_chown: effective.contains(CapabilitySet::CHOWN),
            may_chmod: effective.contains(CapabilitySet::FOWNER),
        }
    }
}

fn effective(task: HostPid) -> CapabilitySet {
    let sets = raw(task).map(|task| rustix::thread::capabilities(Some(task)));
    match sets {
        Ok(Ok(sets)) => sets.effective,
        _ => CapabilitySet::empty(),
    }
}

/// When a process or task started, in clock ticks since boot by the machine's clock: with its number, it names one for good.
pub fn start_time(task: HostPid) -> Result<u64, ProcessError> {
    let stat = proc::read_of(task, "stat").map_err(|errno| ProcessError::of(task, "stat", errno))?;
    parse_stat(&stat).map(|stat| stat.started).ok_or(ProcessError::Unreadable { process: task, file: "stat" })
}

/// What `/proc/PID/stat` says of a process, or of one task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vitals {
    /// What it is doing.
    pub state: State,
    /// Its parent; `None` if that is outside the daemon's pid namespace.
    pub parent: Option<HostPid>,
    /// The leader of its process group, living or not.
    pub group: Option<HostPid>,
    /// The leader of its session, living or not.
    pub session: Option<HostPid>,
    /// CPU time of all its tasks.
    pub own: CpuTime,
    /// CPU time of the children it has waited for, and of theirs.
    pub waited_for: CpuTime,
    /// How many tasks it has.
    pub tasks: u32,
    /// When it started, in clock ticks since boot by the machine's clock: with its number, it names one for good.
    pub started: u64,
}

/// Whether a task runs, as far as that matters here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// It runs, or sleeps until something wakes it.
    Alive,
    /// It was stopped by a signal.
    Stopped,
    /// Its tracer keeps it from going on.
    Traced,
    /// It waits in the kernel for what no signal but SIGKILL ends.
    Waiting,
    /// It has exited.
    Dead,
}

/// CPU time in clock ticks.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct CpuTime {
    /// In user mode.
    pub user: u64,
    /// In the kernel.
    pub system: u64,
}

impl Vitals {
    /// Looks at a process, given by its number; of a task that is not a process's first, CPU time is the task's alone.
    pub fn of(process: HostPid) -> Result<Self, ProcessError> {
        Self::in_file(process, process, "stat")
    }

    /// Looks at one task of a process.
    pub fn of_task(process: HostPid, task: HostPid) -> Result<Self, ProcessError> {
        Self::in_file(process, task, &format!("task/{task}/stat"))
    }

    fn in_file(process: HostPid, task: HostPid, file: &str) -> Result<Self, ProcessError> {
        let stat = proc::read_of(process, file).map_err(|errno| ProcessError::of(task, "stat", errno))?;
        Self::parse(&stat).ok_or(ProcessError::Unreadable { process: task, file: "stat" })
    }

    /// proc_pid_stat(5): the name, field 2, may hold anything; field 3 is the first behind it.
    fn parse(content: &[u8]) -> Option<Self> {
        let end_of_name = content.iter().rposition(|byte| *byte == b')')?;
        let text = std::str::from_utf8(content.get(end_of_name + 2..)?).ok()?;
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3).copied();
        let process = |number| field(number)?.parse().ok().map(HostPid::new);
        let time = |user, system| {
            Some(CpuTime { user: field(user)?.parse().ok()?, system: field(system)?.parse().ok()? })
        };
        Some(Self {
            state: match field(3)?.as_bytes().first()? {
                b'T' => State::Stopped,
                b't' => State::Traced,
                b'D' => State::Waiting,
                b'Z' | b'X' | b'x' => State::Dead,
                _ => State::Alive,
            },
            parent: process(4)?,
            group: process(5)?,
            session: process(6)?,
            own: time(14, 15)?,
            waited_for: time(16, 17)?,
            tasks: field(20)?.parse().ok()?,
            started: clock::machine_ticks(field(22)?.parse().ok()?),
        })
    }
}

/// The tasks of a process; none if it has ended.
pub fn tasks(process: HostPid) -> Vec<HostPid> {
    proc::tasks(process).unwrap_or_default()
}

/// Whether a task that waits in the kernel waits for a child that it bore with vfork(2): until that executes or ends.
///
/// Source: kernel_clone(), wait_for_vfork_done(); before Linux 5.10 _do_fork().
pub fn waits_for_vfork(task: HostPid) -> bool {
    let place = proc::read_of(task, "wchan").unwrap_or_default();
    [&b"kernel_clone"[..], b"wait_for_vfork_done", b"_do_fork"].contains(&place.trim_ascii())
}

/// The processes of the daemon's pid namespace, ascending. Those that only wait to be reaped are left out.
pub fn all() -> Result<Vec<HostPid>, ProcessError> {
    let mut found = proc::processes().map_err(|errno| ProcessError::of(own_pid(), "..", errno))?;
    found.retain(|process| has_running_tasks(*process));
    found.sort_unstable();
    Ok(found)
}

/// Has a task run on these CPUs only. Those that the machine has not are passed over; EINVAL if none is left.
///
/// A task is named by its number: there is no descriptor for it. If it ended meanwhile and its number was used again at
/// once, another task is meant.
pub fn set_affinity(task: HostPid, cpus: &[usize]) -> Result<(), ProcessError> {
    let raw = raw(task)?;
    let mut set = rustix::thread::CpuSet::new();
    cpus.iter().filter(|cpu| **cpu < rustix::thread::CpuSet::MAX_CPU).for_each(|cpu| set.set(*cpu));
    rustix::thread::sched_setaffinity(Some(raw), &set)
        .map_err(|errno| ProcessError::of(task, "affinity", errno))
}

/// The CPUs that a task may run on, ascending.
pub fn affinity(task: HostPid) -> Result<Vec<usize>, ProcessError> {
    let set = rustix::thread::sched_getaffinity(Some(raw(task)?));
    set.map(|set| cpus_of(&set)).map_err(|errno| ProcessError::of(task, "affinity", errno))
}

/// The CPUs that the daemon may run on, ascending.
pub fn own_affinity() -> Vec<usize> {
    cpus_of(&rustix::thread::sched_getaffinity(None).unwrap_or_default())
}

fn cpus_of(set: &rustix::thread::CpuSet) -> Vec<usize> {
    (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
}

fn raw(task: HostPid) -> Result<Pid, ProcessError> {
    i32::try_from(task.get()).ok().and_then(Pid::from_raw).ok_or(ProcessError::Gone(task))
}

/// Names this life of the machine and the daemon's pid namespace: numbers of processes mean nothing in another.
pub fn numbering() -> &'static str {
    static NUMBERING: LazyLock<String> = LazyLock::new(|| {
        let boot = proc::read("sys/kernel/random/boot_id").unwrap_or_default();
        let namespace = own_namespace(Namespace::Pid).map_or(0, |id| id.inode);
        format!("{}/{namespace}", String::from_utf8_lossy(boot.trim_ascii()))
    });
    &NUMBERING
}

/// Whose a process is and where, as far as it can be told of one that is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    /// Its users.
    pub credentials: Credentials,
    /// Its v2 directory as the kernel numbers it: [`crate::Tree::membership_of`] knows which that is. `None` before
    /// Linux 6.13.
    pub(crate) directory: Option<u64>,
}

impl Standing {
    /// Asks the kernel about a process; `None` before Linux 6.13.
    pub(crate) fn of_pinned(pinned: &Pinned) -> Option<Self> {
        static KERNEL_LACKS_IT: AtomicBool = AtomicBool::new(false);
        if KERNEL_LACKS_IT.load(Ordering::Relaxed) {
            return None;
        }
        let answer = pinfold_sys::pidfd::info(&pinned.pidfd);
        if matches!(answer, Err(Raw::NOTTY | Raw::INVAL)) {
            KERNEL_LACKS_IT.store(true, Ordering::Relaxed);
        }
        let info = answer.ok()?;
        let credentials =
            Credentials { effective: Uid(info.effective), real: Uid(info.real), saved: Uid(info.saved) };
        Some(Self { credentials, directory: info.cgroup })
    }

    /// Asks /proc about any task of a process, on any kernel.
    pub(crate) fn by_status(pinned: &Pinned, task: HostPid) -> Result<Self, ProcessError> {
        let identity = match task == pinned.process {
            true => Identity::in_status(task, pinned.status()),
            false => Identity::of(task),
        };
        let Identity { process, effective, real, saved, .. } = identity?;
        // What was read counts if the process was still there: otherwise the number may have been another's.
        pinned.verify()?;
        if process != pinned.process {
            return Err(ProcessError::Gone(task));
        }
        Ok(Self { credentials: Credentials { effective, real, saved }, directory: None })
    }
}

/// A kind of namespace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Namespace {
    /// Of process numbers.
    Pid,
    /// Of users and capabilities.
    User,
    /// Of mounts.
    Mount,
    /// Of control group paths.
    Cgroup,
    /// Of network devices and addresses.
    Net,
    /// Of the names of host and domain.
    Uts,
    /// Of System V objects and message queues.
    Ipc,
    /// Of the clocks since boot.
    Time,
}

impl Namespace {
    pub(crate) const fn file(self) -> &'static str {
        match self {
            Self::Pid => "ns/pid",
            Self::User => "ns/user",
            Self::Mount => "ns/mnt",
            Self::Cgroup => "ns/cgroup",
            Self::Net => "ns/net",
            Self::Uts => "ns/uts",
            Self::Ipc => "ns/ipc",
            Self::Time => "ns/time",
        }
    }
}

/// One namespace. Equal means the same, as long as somebody is in it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct NamespaceId {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

impl NamespaceId {
    pub(crate) fn of_stat(stat: &rustix::fs::Stat) -> Self {
        Self { device: stat.st_dev, inode: stat.st_ino }
    }

    /// The number that the kernel prints: `pid:[4026531836]`.
    pub const fn inode(self) -> u64 {
        self.inode
    }
}

/// The namespace that a process or task is in. A zombie is in none; asking takes the right to trace it.
pub fn namespace(task: HostPid, kind: Namespace) -> Result<NamespaceId, ProcessError> {
    proc::stat(&format!("{task}/{}", kind.file()))
        .map(|stat| NamespaceId::of_stat(&stat))
        .map_err(|errno| ProcessError::of(task, kind.file(), errno))
}

/// The namespace that a process or task is in, opened: as long as it is, no other namespace has its number, though nobody may be in it.
pub fn open_namespace(task: HostPid, kind: Namespace) -> Result<(OwnedFd, NamespaceId), ProcessError> {
    let opened = proc::open_of(task, kind.file()).and_then(|namespace| {
        let id = NamespaceId::of_stat(&rustix::fs::fstat(&namespace)?);
        Ok((namespace, id))
    });
    opened.map_err(|errno| ProcessError::of(task, kind.file(), errno))
}

/// The namespace that the daemon is in.
pub fn own_namespace(kind: Namespace) -> Result<NamespaceId, ProcessError> {
    namespace(own_pid(), kind)
}

/// The namespace of users or processes that the daemon is in, asked for once: the daemon enters no other while it lives.
pub(crate) fn lasting_namespace(kind: Namespace) -> Result<NamespaceId, ProcessError> {
    static USERS: OnceLock<NamespaceId> = OnceLock::new();
    static PIDS: OnceLock<NamespaceId> = OnceLock::new();
    let known = match kind {
        Namespace::User => &USERS,
        Namespace::Pid => &PIDS,
        other => return own_namespace(other),
    };
    match known.get() {
        Some(id) => Ok(*id),
        None => own_namespace(kind).map(|id| *known.get_or_init(|| id)),
    }
}

/// The daemon's own process.
pub fn own_pid() -> HostPid {
    HostPid::new(std::process::id()).expect("a process never has the number 0")
}

/// Why a descriptor holds no process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoPidfd {
    /// It is of something else.
    #[error("the descriptor is no pidfd")]
    OfAnother,
    /// The process has been reaped, or is not visible in the daemon's pid namespace.
    #[error("the process of the descriptor is gone, or out of the daemon's sight")]
    Gone,
    /// It cannot be looked at.
    #[error("the descriptor cannot be looked at: {0}")]
    System(Raw),
}

impl NoPidfd {
    /// The errno that pidfd_send_signal(2) gives for the same.
    pub fn errno(self) -> Errno {
        match self {
            Self::OfAnother => Errno::EBADF,
            Self::Gone => Errno::ESRCH,
            Self::System(errno) => errors::to_model(errno),
        }
    }
}

/// A process that is held: its number may be reused when it is gone, but never unnoticed.
///
/// To act on a number safely: pin it, look at its [`Standing`], act, and ask [`Pinned::verify`] last. If that says the
/// process was still there, everything before it was done to this process and no other.
#[derive(Debug)]
pub struct Pinned {
    process: HostPid,
    pidfd: OwnedFd,
    /// Known to be in the daemon's pid namespace. No process leaves the one it is born in: setns(2) is for its children.
    is_neighbour: AtomicBool,
    /// Files of it in proc: they are the process's, whoever has its number later.
    status: OnceLock<OwnedFd>,
    cgroup: OnceLock<OwnedFd>,
}

impl Pinned {
    /// Holds a process given by the number of its leading task.
    pub fn of_process(process: HostPid) -> Result<Self, ProcessError> {
        let pidfd = rustix::process::pidfd_open(raw(process)?, PidfdFlags::empty())
            .map_err(|errno| ProcessError::of(process, "pidfd", errno))?;
        Ok(Self::new(process, pidfd))
    }

    fn new(process: HostPid, pidfd: OwnedFd) -> Self {
        let is_neighbour = AtomicBool::new(false);
        Self { process, pidfd, is_neighbour, status: OnceLock::new(), cgroup: OnceLock::new() }
    }

    /// Holds the process that a descriptor is of, whoever made it (pidfd_open(2), clone3(2)). ESRCH if it has been reaped or
    /// is in no pid namespace that the daemon sees.
    ///
    /// Source: pidfd_show_fdinfo().
    pub fn of_pidfd(pidfd: OwnedFd) -> Result<Self, NoPidfd> {
        let path = format!("self/fdinfo/{}", pidfd.as_raw_fd());
        let info = proc::read(&path).map_err(NoPidfd::System)?;
        let info = String::from_utf8_lossy(&info);
        let line = info.lines().find_map(|line| line.strip_prefix("Pid:")).ok_or(NoPidfd::OfAnother)?;
        // -1: reaped; 0: not visible here.
        let process = line.trim().parse().ok().and_then(HostPid::new).ok_or(NoPidfd::Gone)?;
        Ok(Self::new(process, pidfd))
    }

    /// The process's number.
    pub const fn process(&self) -> HostPid {
        self.process
    }

    /// Fails if the process has exited: what was done by its number may then have met another.
    pub fn verify(&self) -> Result<(), ProcessError> {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        loop {
            match rustix::event::poll(&mut fds, Some(&at_once)) {
                Ok(0) => return Ok(()),
                Ok(_) => return Err(ProcessError::Gone(self.process)),
                Err(Raw::INTR) => {}
                Err(errno) => return Err(ProcessError::of(self.process, "pidfd", errno)),
            }
        }
    }

    /// The content of `/proc/PID/status`.
    pub(crate) fn status(&self) -> Result<Vec<u8>, Raw> {
        self.read(&self.status, "status")
    }

    /// The content of `/proc/PID/cgroup`.
    pub(crate) fn cgroup(&self) -> Result<Vec<u8>, Raw> {
        self.read(&self.cgroup, "cgroup")
    }

    /// A file that stays open: reading it again takes one system call instead of four.
    fn read(&self, held: &OnceLock<OwnedFd>, file: &str) -> Result<Vec<u8>, Raw> {
        if let Some(held) = held.get() {
            return match beneath::read_at_once(held)? {
                Some(content) => Ok(content),
                None => proc::read_of(self.process, file),
            };
        }
        let opened = proc::open_of(self.process, file)?;
        let content = beneath::read_all(&opened)?;
        // The number was the process's when the file was opened if the process is still there.
        if self.verify().is_ok() {
            let _ = held.set(opened); // another thread's is as good
        }
        Ok(content)
    }

    pub(crate) fn is_neighbour(&self) -> bool {
        self.is_neighbour.load(Ordering::Relaxed)
    }

    pub(crate) fn set_neighbour(&self) {
        self.is_neighbour.store(true, Ordering::Relaxed);
    }

    /// The descriptor (pidfd_open(2)).
    pub fn pidfd(&self) -> impl AsFd + '_ {
        self.pidfd.as_fd()
    }
}

/// Whether a task has not exited.
pub(crate) fn is_running(task: HostPid) -> bool {
    proc::read_of(task, "stat").ok().and_then(|stat| parse_stat(&stat)).is_some_and(|stat| !stat.is_dead())
}

/// Whether a process has a task that has not exited: its first task may be a zombie while others go on.
pub fn has_running_tasks(process: HostPid) -> bool {
    is_running(process) || proc::tasks(process).unwrap_or_default().into_iter().any(is_running)
}

/// Whether a task is a kernel thread that stays in its cgroup: one that is bound to its CPUs, or kthreadd, whose
/// children inherit its cgroup.
///
/// Source: cgroup_procs_write_start(): PF_NO_SETAFFINITY, no_cgroup_migration.
pub fn is_bound(task: HostPid) -> bool {
    const PF_KTHREAD: u64 = 0x0020_0000;
    const PF_NO_SETAFFINITY: u64 = 0x0400_0000;
    let stat = proc::read_of(task, "stat").ok().and_then(|stat| parse_stat(&stat));
    stat.is_some_and(|stat| {
        stat.flags & PF_KTHREAD != 0 && (stat.flags & PF_NO_SETAFFINITY != 0 || stat.parent == 0)
    })
}

struct Stat {
    state: u8,
    parent: u64,
    flags: u64,
    started: u64,
}

impl Stat {
    const fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// proc_pid_stat(5): the name, field 2, may hold anything; the state is field 3, the parent field 4,
/// the flags are field 9, the start time is field 22.
fn parse_stat(content: &[u8]) -> Option<Stat> {
    let end_of_name = content.iter().rposition(|byte| *byte == b')')?;
    let mut fields = content[end_of_name + 1..].split(|byte| *byte == b' ').skip(1);
    let state = *fields.next()?.first()?;
    let mut number = |skipped| std::str::from_utf8(fields.nth(skipped)?).ok()?.trim_end().parse().ok();
    let (parent, flags) = (number(0)?, number(4)?);
    Some(Stat { state, parent, flags, started: clock::machine_ticks(number(12)?) })
}

fn parse_status(content: &[u8]) -> Option<Identity> {
    let text = String::from_utf8_lossy(content);
    let field = |name: &str| {
        let mut lines = text.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    };
    let numbers = |name: &str| -> Option<Vec<u32>> {
        field(name)?.split_ascii_whitespace().map(|number| number.parse().ok()).collect()
    };
    let users = numbers("Uid")?;
    let [real, effective, saved, _file_system] = users[..] else { return None };
    let [_real, group, ..] = numbers("Gid")?[..] else { return None };
    Some(Identity {
        process: HostPid::new(*numbers("Tgid")?.first()?)?,
        real: Uid(real),
        effective: Uid(effective),
        saved: Uid(saved),
        group: Gid(group),
        is_zombie: field("State")?.starts_with(['Z', 'X', 'x']),
        numbers: numbers("NSpid").unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "\
Name:\tUid:\t9 9 9 9\\nTgid:\t1
Umask:\t0022
State:\tS (sleeping)
Tgid:\t4242
Ngid:\t0
Pid:\t4243
PPid:\t1
Uid:\t1000\t1001\t1002\t1003
Gid:\t2000\t2001\t2002\t2003
NStgid:\t4242\t7
NSpid:\t4243\t8
";

    #[test]
    fn status_is_read_by_the_names_of_its_lines() {
        let identity = parse_status(STATUS.as_bytes()).unwrap();
        assert_eq!(identity.process.get(), 4242);
        assert_eq!((identity.real, identity.effective, identity.saved), (Uid(1000), Uid(1001), Uid(1002)));
        assert_eq!(identity.group, Gid(2001));
        assert!(!identity.is_zombie);
        assert_eq!(identity.numbers, [4243, 8]);
    }

    #[test]
    fn a_status_cut_short_is_refused() {
        for cut in 0..STATUS.find("Gid:\t2000").unwrap() {
            assert_eq!(parse_status(&STATUS.as_bytes()[..cut]), None, "{cut}");
        }
    }

    #[test]
    fn a_zombie_is_one_by_its_state() {
        let status = STATUS.replace("S (sleeping)", "Z (zombie)");
        assert!(parse_status(status.as_bytes()).unwrap().is_zombie);
    }

    #[test]
    fn stat_is_read_from_the_last_bracket() {
        let fields = (4..22).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        let stat = parse_stat(format!("17 (a) Z 9 (b)) R {fields} 123456 23 24\n").as_bytes()).unwrap();
        assert_eq!((stat.state, stat.parent, stat.flags, stat.started), (b'R', 4, 9, 123_456));
        assert!(parse_stat(b"17 (sh) R 1 2").is_none());
        assert!(parse_stat(b"17 (sh").is_none());
    }

    #[test]
    fn vitals_are_read_from_the_last_bracket() {
        let fields = (4..53).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        let found = Vitals::parse(format!("17 (a) T 9 (b)) T {fields}\n").as_bytes()).unwrap();
        assert_eq!((found.state, found.parent), (State::Stopped, HostPid::new(4)));
        assert_eq!((found.group, found.session), (HostPid::new(5), HostPid::new(6)));
        assert_eq!(found.own, CpuTime { user: 14, system: 15 });
        assert_eq!(found.waited_for, CpuTime { user: 16, system: 17 });
        assert_eq!((found.tasks, found.started), (20, 22));
        let traced = Vitals::parse(format!("17 (a) t {fields}\n").as_bytes()).unwrap();
        assert_eq!(traced.state, State::Traced);
        let waiting = Vitals::parse(format!("17 (a) D {fields}\n").as_bytes()).unwrap();
        assert_eq!(waiting.state, State::Waiting);
        for cut in ["", "17", "17 (sh", "17 (sh)", "17 (sh) R", "17 (sh) R 1 2"] {
            assert_eq!(Vitals::parse(cut.as_bytes()), None, "{cut}");
        }
    }

    #[test]
    fn this_process_is_itself() {
        assert_eq!(Identity::of(own_pid()).unwrap().process, own_pid());
        assert!(start_time(own_pid()).unwrap() > 0);
        assert_eq!(namespace(own_pid(), Namespace::Pid).unwrap(), own_namespace(Namespace::Pid).unwrap());
    }

    #[test]
    fn a_pidfd_names_its_process_until_that_is_reaped() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = HostPid::new(child.id()).unwrap();
        let pinned = Pinned::of_process(pid).unwrap();
        let pidfd = || pinned.pidfd.try_clone().unwrap();
        assert_eq!(Pinned::of_pidfd(pidfd()).unwrap().process(), pid);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(Pinned::of_pidfd(pidfd()).unwrap_err(), NoPidfd::Gone);
        let other = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(Pinned::of_pidfd(other.into()).unwrap_err(), NoPidfd::OfAnother);
    }

    #[test]
    fn a_file_of_proc_that_stays_open_says_what_is_so_now() {
        let script = "read -r go; exec setpriv --reuid 1001 --clear-groups sleep 60";
        let mut command = std::process::Command::new("sh");
        let mut child = command.args(["-c", script]).stdin(std::process::Stdio::piped()).spawn().unwrap();
        let pinned = Pinned::of_process(HostPid::new(child.id()).unwrap()).unwrap();
        let user = || Identity::in_status(pinned.process, pinned.status()).unwrap().effective;
        assert_eq!(user(), Uid(rustix::process::geteuid().as_raw()));
        assert!(pinned.status.get().is_some(), "it is not opened again");
        assert_eq!(pinned.cgroup().unwrap(), proc::read_of(pinned.process, "cgroup").unwrap());
        assert_eq!(pinned.cgroup().unwrap(), proc::read_of(pinned.process, "cgroup").unwrap());
        if rustix::process::geteuid().is_root() {
            std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"\n").unwrap();
            while user() != Uid(1001) {
                std::thread::yield_now();
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(pinned.status().is_err() && pinned.cgroup().is_err(), "whoever has the number is another");
    }

    #[test]
    fn a_pinned_process_that_exits_is_noticed() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = HostPid::new(child.id()).unwrap();
        let pinned = Pinned::of_process(pid).unwrap();
        pinned.verify().unwrap();
        crate::signal::send(&pinned, crate::signal::Signal::KILL).unwrap();
        child.wait().unwrap();
        assert!(matches!(pinned.verify(), Err(ProcessError::Gone(gone)) if gone == pid));
        assert!(matches!(
            crate::signal::send(&pinned, crate::signal::Signal::KILL),
            Err(ProcessError::Gone(_))
        ));
        assert!(matches!(Identity::of(pid), Err(ProcessError::Gone(_))));
    }
}
