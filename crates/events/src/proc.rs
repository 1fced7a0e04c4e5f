//! /proc, read as a whole: the only full scans there are. And the name of one process.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use pinfold_sys::clock;
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use crate::event::{Comm, Ids, Pid, Status, Time};

/// All processes at one time, or nearly: those of before and after overlap between `began` and `ended`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    /// Before the first process was looked at.
    pub began: Time,
    /// After the last was.
    pub ended: Time,
    /// The processes, by number.
    pub processes: Vec<Seen>,
}

/// One process of a [`Snapshot`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Its number.
    pub pid: Pid,
    /// Its parent's; `None` if that is outside the pid namespace.
    pub parent: Option<Pid>,
    /// When it started, in ticks of `/proc/PID/stat`.
    pub ticks: u64,
    /// Its name.
    pub comm: Comm,
    /// Its user, if it still could be asked for.
    pub uid: Option<Ids>,
    /// Its group, if it still could be asked for.
    pub gid: Option<Ids>,
    /// What is left of it.
    pub life: Life,
    /// Its threads but the first.
    pub others: BTreeSet<Pid>,
}

/// What is left of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Life {
    /// Its first thread lives.
    Whole,
    /// Its first thread ended, others live.
    Headless,
    /// It ended, and nobody has waited for it yet; how, if we may know.
    Ended(Option<Status>),
}

/// Why /proc does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ProcError {
    /// It cannot be read.
    #[error("{0}: {1}")]
    Io(PathBuf, #[source] io::Error),
    /// It shows the processes of another pid namespace.
    #[error("{0} is not of this pid namespace\nhint: unshare --mount-proc mounts one that is")]
    Foreign(PathBuf),
}

/// Reads /proc, and counts how often.
#[derive(Debug)]
pub struct Scanner {
    root: PathBuf,
    scans: u64,
}

impl Scanner {
    /// For the proc file system at `root`, which has to be of the pid namespace that this process is in.
    pub fn new(root: impl Into<PathBuf>) -> Result<Self, ProcError> {
        let root = root.into();
        let own = root.join("self");
        let link = fs::read_link(&own).map_err(|error| ProcError::Io(own, error))?;
        if link.as_os_str() != OsStr::new(&std::process::id().to_string()) {
            return Err(ProcError::Foreign(root));
        }
        Ok(Self { root, scans: 0 })
    }

    /// How many times all processes were read.
    pub const fn scans(&self) -> u64 {
        self.scans
    }

    /// Reads all processes. Those that go meanwhile are left out; one that cannot be read for another reason, as for lack of
    /// descriptors, is an error, since whoever is not in the list has ended.
    pub fn scan(&mut self) -> Result<Snapshot, ProcError> {
        self.scans += 1;
        let began = now();
        let failed = |error| ProcError::Io(self.root.clone(), error);
        let mut processes = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if let Some(pid) = number(&name) {
                processes.extend(see(&self.root.join(name), pid)?);
            }
        }
        Ok(Snapshot { began, ended: now(), processes })
    }

    /// The present name of a process.
    pub fn comm(&self, pid: Pid) -> Option<Comm> {
        let name = fs::read(self.root.join(format!("{pid}/comm"))).ok()?;
        Some(Comm::new(name.strip_suffix(b"\n").unwrap_or(&name)))
    }
}

/// The time on the clock of [`Time`].
pub fn now() -> Time {
    Time(nanoseconds(ClockId::Boottime).saturating_add_signed(-clock::offsets().boottime))
}

/// How far [`Time`] is ahead of the clock that the kernel's events have: as long as the machine has slept.
pub(crate) fn asleep() -> u64 {
    let offset = clock::offsets().monotonic;
    now().0.saturating_sub(nanoseconds(ClockId::Monotonic).saturating_add_signed(-offset))
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn number(name: &OsStr) -> Option<Pid> {
    name.to_str()?.parse().ok().and_then(Pid::new)
}

/// What a file or directory of a process says; `None`: the process has gone, or is hidden from us (proc(5), hidepid).
fn of_process<T>(path: PathBuf, read: impl FnOnce(&Path) -> io::Result<T>) -> Result<Option<T>, ProcError> {
    match read(&path) {
        Ok(found) => Ok(Some(found)),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::SRCH | Errno::ACCESS | Errno::PERM) => Ok(None),
            _ => Err(ProcError::Io(path, error)),
        },
    }
}

fn stat(directory: &Path) -> Result<Option<Stat>, ProcError> {
    let stat = of_process(directory.join("stat"), |path| fs::read(path))?;
    Ok(stat.and_then(|stat| parse_stat(&stat)))
}

fn see(directory: &Path, pid: Pid) -> Result<Option<Seen>, ProcError> {
    let Some(stat) = stat(directory)? else { return Ok(None) };
    let status = of_process(directory.join("status"), |path| fs::read(path))?;
    let (uid, gid) = status.map_or((None, None), |status| parse_ids(&status));
    let others = if stat.threads > 1 { others(directory, pid)? } else { BTreeSet::new() };
    let life = match (stat.has_ended(), others.is_empty()) {
        (false, _) => Life::Whole,
        (true, false) => Life::Headless,
        (true, true) => Life::Ended(stat.status),
    };
    let Stat { parent, ticks, comm, .. } = stat;
    Ok(Some(Seen { pid, parent, ticks, comm, uid, gid, life, others }))
}

/// The threads that have not ended: one that is traced stays after its end.
fn others(directory: &Path, pid: Pid) -> Result<BTreeSet<Pid>, ProcError> {
    let tasks = directory.join("task");
    let names = of_process(tasks.clone(), |path| {
        fs::read_dir(path)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()
    })?;
    let mut found = BTreeSet::new();
    for task in names.unwrap_or_default().iter().filter_map(|name| number(name)).filter(|task| *task != pid) {
        if stat(&tasks.join(task.to_string()))?.is_some_and(|stat| !stat.has_ended()) {
            found.insert(task);
        }
    }
    Ok(found)
}

struct Stat {
    comm: Comm,
    state: u8,
    parent: Option<Pid>,
    session: Option<Pid>,
    threads: u64,
    ticks: u64,
    status: Option<Status>,
}

impl Stat {
    const fn has_ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }
}

/// proc_pid_stat(5). The name may contain anything: it ends with the last bracket.
fn parse_stat(stat: &[u8]) -> Option<Stat> {
    let open = stat.iter().position(|byte| *byte == b'(')?;
    let close = stat.iter().rposition(|byte| *byte == b')')?;
    let fields: Vec<&str> =
        std::str::from_utf8(stat.get(close + 2..)?).ok()?.split_ascii_whitespace().collect();
    // Field 3, the state, is the first after the name.
    let field = |number: usize| fields.get(number - 3).copied();
    Some(Stat {
        comm: Comm::new(stat.get(open + 1..close)?),
        state: *field(3)?.as_bytes().first()?,
        parent: Pid::new(field(4)?.parse().ok()?),
        session: Pid::new(field(6)?.parse().ok()?),
        threads: field(20)?.parse().ok()?,
        ticks: clock::machine_ticks(field(22)?.parse().ok()?),
        // Reads 0 also when we may not know; a status of 0 is nothing to rely on, then.
        status: field(52).and_then(|status| status.parse().ok()).filter(|s| *s != 0).map(Status::from_wait),
    })
}

/// The `Uid` and `Gid` lines of proc_pid_status(5): real, effective, saved, file system.
fn parse_ids(status: &[u8]) -> (Option<Ids>, Option<Ids>) {
    let line = |name: &[u8]| {
        let line = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(name))?;
        let mut ids = std::str::from_utf8(line).ok()?.split_ascii_whitespace().map(str::parse);
        Some(Ids { real: ids.next()?.ok()?, effective: ids.next()?.ok()? })
    };
    (line(b"Uid:"), line(b"Gid:"))
}

/// What is to be said where `/proc` does what [`hides_processes`] asks.
pub const HIDDEN: &str =
    "/proc is mounted with hidepid: processes of others are not found, and not told of completely";

/// Whether the proc file system at `root` hides processes of others from us: it is mounted with `hidepid`, and we have neither the
/// right to trace (CAP_SYS_PTRACE) nor the group of users that may look. Whoever is hidden is not found; that it has forked or
/// ended, the kernel's events may tell all the same.
///
/// Source: proc(5), `hidepid` and `gid`; has_pid_permissions().
pub fn hides_processes(root: &Path) -> bool {
    let text = |path: &str| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
    hides(&text("/proc/self/mountinfo"), root, &text("/proc/self/status"))
}

/// Given the mounts, and what `/proc/self/status` says of us.
fn hides(mounts: &str, root: &Path, status: &str) -> bool {
    const CAP_SYS_PTRACE: u64 = 1 << 19;
    // The last of several mounts at a place is on top.
    let options = mounts.lines().rev().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let is_at = mount.split(' ').nth(4).is_some_and(|at| Path::new(at) == root);
        file_system.split(' ').nth(2).filter(|_| is_at)
    });
    let option = |name: &str| {
        let mut options = options.unwrap_or_default().split(',');
        options.find_map(|option| option.strip_prefix(name)?.strip_prefix('='))
    };
    let field = |name: &str| {
        let mut lines = status.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default().trim()
    };
    // Where no group is named, it is root's.
    let group = option("gid").unwrap_or("0");
    let may_look = || {
        let own = field("Gid").split_ascii_whitespace().nth(3);
        own.into_iter().chain(field("Groups").split_ascii_whitespace()).any(|own| own == group)
    };
    let may_trace = u64::from_str_radix(field("CapEff"), 16).is_ok_and(|all| all & CAP_SYS_PTRACE != 0);
    match option("hidepid") {
        None | Some("0" | "off") => false,
        Some("4" | "ptraceable") => !may_trace,
        Some(_) => !may_trace && !may_look(),
    }
}

/// The leader of a process's session; `None` if that is outside the pid namespace.
pub(crate) fn session(pid: Pid) -> Option<Pid> {
    stat_of(pid)?.session
}

/// Whose child a process is, and when it started, in ticks; `None` if it is gone. A parent that is not visible is none.
pub(crate) fn birth(pid: Pid) -> Option<(Option<Pid>, u64)> {
    let stat = stat_of(pid)?;
    Some((stat.parent, stat.ticks))
}

/// When a process started, in ticks; `None` if it is gone.
pub(crate) fn ticks(pid: Pid) -> Option<u64> {
    Some(stat_of(pid)?.ticks)
}

fn stat_of(pid: Pid) -> Option<Stat> {
    stat(Path::new(&format!("/proc/{pid}"))).ok()?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_from_the_last_bracket() {
        let fields = (5..53).map(|field| field.to_string()).collect::<Vec<_>>().join(" ");
        let stat = parse_stat(format!("17 (a) Z 9 (b)) R 4 {fields}\n").as_bytes()).unwrap();
        assert_eq!((stat.comm, stat.state, stat.parent), (Comm::new(b"a) Z 9 (b)"), b'R', Pid::new(4)));
        assert_eq!((stat.session, stat.threads, stat.ticks), (Pid::new(6), 20, 22));
        assert_eq!(stat.status, Some(Status::from_wait(52)));
        for cut in ["", "17", "17 (sh", "17 (sh)", "17 (sh) R", "17 (sh) R 1 2"] {
            assert!(parse_stat(cut.as_bytes()).is_none(), "{cut}");
        }
    }

    #[test]
    fn ids_are_real_and_effective() {
        let status = b"Name:\tsh\nUid:\t1000\t0\t0\t0\nGid:\t100\t5\t5\t5\n";
        let (uid, gid) = parse_ids(status);
        assert_eq!(uid, Some(Ids { real: 1000, effective: 0 }));
        assert_eq!(gid, Some(Ids { real: 100, effective: 5 }));
        assert_eq!(parse_ids(b"Uid:\tx\nGid:\t1\n"), (None, None));
    }

    #[test]
    fn a_proc_that_hides_processes_is_known_for_it() {
        let mounts = |options: &str| {
            format!(
                "22 1 0:5 / /proc rw,nosuid - proc proc rw,hidepid=2\n\
                 30 1 0:6 / /mnt/proc rw shared:4 - proc proc rw,hidepid=invisible\n\
                 31 22 0:7 / /proc rw,nosuid shared:1 - proc proc rw{options}\n"
            )
        };
        let nobody = "Gid:\t65534\t65534\t65534\t65534\nGroups:\t7 8 \nCapEff:\t0000000000000000\n";
        let root = "Gid:\t0\t0\t0\t0\nGroups:\t \nCapEff:\t000001ffffffffff\n";
        let weak_root = "Gid:\t0\t0\t0\t0\nGroups:\t \nCapEff:\t00000000a80425fb\n";
        for (options, who, hidden) in [
            ("", nobody, false),
            (",hidepid=off", nobody, false),
            (",hidepid=1", nobody, true),
            (",hidepid=invisible", nobody, true),
            (",hidepid=invisible,gid=8", nobody, false),
            (",gid=9,hidepid=2", nobody, true),
            (",hidepid=2", root, false),
            (",hidepid=2", weak_root, false),
            (",hidepid=ptraceable", weak_root, true),
            (",hidepid=ptraceable,gid=8", nobody, true),
            (",hidepid=4", root, false),
        ] {
            assert_eq!(hides(&mounts(options), Path::new("/proc"), who), hidden, "{options} {who}");
        }
    }

    #[test]
    fn a_scan_sees_this_process_with_its_threads_and_is_counted() {
        let mut scanner = Scanner::new("/proc").unwrap();
        let snapshot = scanner.scan().unwrap();
        let own = Pid::new(std::process::id()).unwrap();
        let seen = snapshot.processes.iter().find(|seen| seen.pid == own).unwrap();
        assert_eq!(seen.life, Life::Whole);
        assert!(!seen.others.is_empty(), "the test runner has threads");
        assert_eq!(Some(seen.comm), scanner.comm(own));
        assert!(snapshot.began <= snapshot.ended && seen.ticks * 10_000_000 < snapshot.ended.0);
        assert_eq!(scanner.scans(), 1);
    }

    /// A daemon that is out of descriptors told everybody that all processes had ended.
    #[test]
    fn who_cannot_be_read_has_not_ended() {
        let root = std::env::temp_dir().join(format!("pinfold-e-unread-{}", std::process::id()));
        fs::create_dir_all(root.join("7")).unwrap();
        std::os::unix::fs::symlink(std::process::id().to_string(), root.join("self")).unwrap();
        let mut scanner = Scanner::new(&root).unwrap();
        let gone = scanner.scan().map(|snapshot| snapshot.processes);
        // EISDIR stands for all that says nothing of the process.
        fs::create_dir_all(root.join("7/stat")).unwrap();
        let unread = scanner.scan();
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(gone.unwrap(), []);
        assert!(matches!(&unread, Err(ProcError::Io(path, _)) if path.ends_with("7/stat")), "{unread:?}");
    }

    #[test]
    fn a_proc_of_another_namespace_is_refused() {
        let root = std::env::temp_dir().join(format!("pinfold-e-proc-{}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        std::os::unix::fs::symlink("1", root.join("self")).unwrap();
        let refused = Scanner::new(&root);
        fs::remove_dir_all(&root).unwrap();
        assert!(matches!(refused, Err(ProcError::Foreign(_))));
    }
}
