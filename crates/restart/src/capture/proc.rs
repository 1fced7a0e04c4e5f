//! Files of /proc, one process at a time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pinfold_sys::aside::Asking;
use pinfold_sys::reader::Reader;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use rustix::io::Errno;

use super::spaces::Spaces;
use super::{CaptureError, Terms};
use crate::image::{Capabilities, Credentials, Living, Text};
use crate::limits::LIMITS;
use crate::look::Look;

/// A process as read.
pub(super) struct Seen {
    pub pid: u32,
    pub pids: Vec<u32>,
    pub parent: u32,
    /// Numbers at each level; 0: none there.
    pub groups: Vec<u32>,
    pub sessions: Vec<u32>,
    pub zombie: bool,
    pub stopped: bool,
    pub started: u64,
    terminal: i64,
    foreground: bool,
    nice: i32,
    status: HashMap<String, String>,
}

impl Seen {
    pub(super) fn of(pid: u32) -> Result<Self, CaptureError> {
        let look = Look::at(pid).ok_or(CaptureError::NoSuchProcess(pid))?;
        if look.has_ended() && Look::at_threads(pid).iter().any(|thread| !thread.has_ended()) {
            return Err(CaptureError::Unrepresentable {
                pid,
                reason: "its first thread has ended, and others have not",
            });
        }
        let status = status(pid)?;
        let numbers = |key: &str| -> Result<Vec<u32>, CaptureError> {
            let parsed = status.get(key).map(|list| list.split_whitespace().map(str::parse).collect());
            match parsed {
                Some(Ok(list)) => Ok(list),
                Some(Err(_)) | None => Err(CaptureError::Unknown { pid, file: "status" }),
            }
        };
        let (pids, groups, sessions) = (numbers("NSpid")?, numbers("NSpgid")?, numbers("NSsid")?);
        if groups.first() != Some(&look.group) || sessions.first() != Some(&look.session) {
            return Err(CaptureError::NoSuchProcess(pid));
        }
        Ok(Self {
            pid,
            pids,
            parent: look.parent,
            groups,
            sessions,
            zombie: look.has_ended(),
            stopped: look.is_stopped_by_signal(),
            started: look.started,
            terminal: look.terminal,
            foreground: look.terminal != 0 && look.foreground == i64::from(look.group),
            nice: look.nice,
            status,
        })
    }
}

fn status(pid: u32) -> Result<HashMap<String, String>, CaptureError> {
    let text = read(pid, "status")?;
    let text = String::from_utf8_lossy(&text);
    let pair =
        |line: &str| line.split_once(':').map(|(key, value)| (key.to_owned(), value.trim().to_owned()));
    Ok(text.lines().filter_map(pair).collect())
}

/// What execve(2) takes of arguments and variables, all together, at most. Source: fs/exec.c `bprm_stack_limits()`: three
/// quarters of _STK_LIM.
const MOST_STRINGS: usize = 6 << 20;

/// How long the strings of a picture may take to be read: so long, and so much longer for each process, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);
const OF_PROCESS: Duration = Duration::from_millis(20);
/// How long an answer is waited for before a look at whether a signal came.
const NAP: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// Reads what may wait for a file system of somebody's own, who answers when he likes: names that lead there, and memory, which another
/// process keeps locked (mmap_lock) as long as it waits for a page of a file there.
pub(super) struct Strings<'a> {
    reader: Reader,
    patience: Duration,
    until: Instant,
    terms: &'a Terms<'a>,
}

impl<'a> Strings<'a> {
    /// For so many processes.
    pub(super) fn new(count: usize, terms: &'a Terms<'a>) -> Result<Self, CaptureError> {
        let reader = Reader::start().map_err(CaptureError::NoReader)?;
        let patience = PATIENCE + OF_PROCESS * u32::try_from(count).unwrap_or(u32::MAX);
        Ok(Self { reader, patience, until: Instant::now() + patience, terms })
    }

    /// Strings of a process, which says itself where they are (prctl(2), PR_SET_MM): they may be as long as its memory.
    fn of(&mut self, pid: u32, file: &'static str) -> Result<Vec<Text>, CaptureError> {
        let path =
            c_string(format!("/proc/{pid}/{file}").as_bytes()).map_err(|errno| failed(pid, file, errno))?;
        let waits = || self.terms.waits_until(self.until);
        let bytes = self.reader.read(&path, MOST_STRINGS + 1, waits);
        let bytes = bytes.map_err(|errno| self.failed(pid, file, errno))?;
        if bytes.len() > MOST_STRINGS {
            let reason = "its arguments or its environment are longer than execve(2) takes";
            return Err(CaptureError::Unrepresentable { pid, reason });
        }
        Ok(strings(&bytes))
    }

    /// Whether what a link of a process leads to, as it is shown, has no name any more. The kernel says so behind the name (fs/d_path.c), which
    /// another file may be called by.
    fn is_deleted(&self, pid: u32, file: &'static str, shown: &Path) -> Result<bool, CaptureError> {
        let shown = shown.as_os_str().as_bytes();
        if !shown.ends_with(b" (deleted)") {
            return Ok(false);
        }
        // The numbers of a file never change: what the kernel remembers of them is enough.
        let file_of = statx(CWD, format!("/proc/{pid}/{file}"), AtFlags::STATX_DONT_SYNC, StatxFlags::INO);
        let found = file_of.map_err(|errno| failed(pid, file, errno))?;
        let asking = c_string(shown).and_then(|shown| Asking::about(&shown));
        let asking = asking.map_err(CaptureError::NoReader)?;
        loop {
            if let Some(named) = asking.answer() {
                let of_link = (found.stx_dev_major, found.stx_dev_minor, found.stx_ino);
                return Ok(named != Ok(of_link));
            }
            if !self.terms.waits_until(self.until) {
                return Err(self.failed(pid, file, Errno::TIMEDOUT));
            }
            // A signal ends it sooner.
            let _ = poll(&mut [PollFd::new(&asking, PollFlags::IN)], Some(&NAP));
        }
    }

    fn failed(&self, pid: u32, file: &'static str, errno: Errno) -> CaptureError {
        match errno {
            Errno::TIMEDOUT if self.terms.is_interrupted() => CaptureError::Interrupted,
            Errno::TIMEDOUT => CaptureError::Unanswered { pid, file, seconds: self.patience.as_secs() },
            errno => failed(pid, file, errno),
        }
    }
}

fn c_string(bytes: &[u8]) -> Result<CString, Errno> {
    CString::new(bytes).map_err(|_| Errno::INVAL)
}

pub(super) fn read(pid: u32, file: &'static str) -> Result<Vec<u8>, CaptureError> {
    fs::read(format!("/proc/{pid}/{file}")).map_err(|error| failed_to(pid, file, &error))
}

/// How often a thread of a process has left a CPU; `None`: it has ended.
pub(super) fn switches(pid: u32, thread: u32) -> Result<Option<u64>, CaptureError> {
    const FILE: &str = "task/TID/status";
    let text = match fs::read(format!("/proc/{pid}/task/{thread}/status")) {
        Ok(text) => String::from_utf8_lossy(&text).into_owned(),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::SRCH) => return Ok(None),
            _ => return Err(failed_to(pid, FILE, &error)),
        },
    };
    let count = |key: &str| -> Option<u64> {
        text.lines().find_map(|line| line.strip_prefix(key))?.trim().parse().ok()
    };
    match (count("voluntary_ctxt_switches:"), count("nonvoluntary_ctxt_switches:")) {
        (Some(by_itself), Some(by_others)) => Ok(Some(by_itself + by_others)),
        _ => Err(CaptureError::Unknown { pid, file: FILE }),
    }
}

fn failed_to(pid: u32, file: &'static str, error: &std::io::Error) -> CaptureError {
    failed(pid, file, Errno::from_io_error(error).unwrap_or(Errno::IO))
}

fn failed(pid: u32, file: &'static str, errno: Errno) -> CaptureError {
    match errno {
        Errno::SRCH | Errno::NOENT if Look::at(pid).is_none() => CaptureError::NoSuchProcess(pid),
        errno => CaptureError::Read { pid, file, errno },
    }
}

fn link(pid: u32, file: &'static str) -> Result<PathBuf, CaptureError> {
    fs::read_link(format!("/proc/{pid}/{file}")).map_err(|error| failed_to(pid, file, &error))
}

/// Refuses a process that SIGSTOP does not stop, whatever it is at this moment: one that is traced stops and goes on as its tracer
/// likes.
pub(super) fn refuse_unstoppable(pid: u32) -> Result<(), CaptureError> {
    let refused = |reason| Err(CaptureError::Unrepresentable { pid, reason });
    let status = match status(pid) {
        Err(CaptureError::NoSuchProcess(_)) => return Ok(()),
        answer => answer?,
    };
    if status.get("TracerPid").is_some_and(|tracer| tracer != "0") {
        return refused("it is traced, and stops and goes on as its tracer likes");
    }
    if status.get("Kthread").is_some_and(|kthread| kthread == "1") {
        return refused(NO_PROGRAM);
    }
    Ok(())
}

/// Why a process without a program is refused.
const NO_PROGRAM: &str = "it executes no file (a kernel thread), or which one is not told";

/// Refuses a /proc that numbers processes otherwise than this process does.
pub(super) fn check_own() -> Result<(), CaptureError> {
    let shown = fs::read_link("/proc/self").ok();
    let own = std::process::id().to_string();
    if shown.is_some_and(|shown| shown.as_os_str() == own.as_str()) {
        Ok(())
    } else {
        Err(CaptureError::ForeignProc)
    }
}

/// Processes together with the zombies that are their children: no group lists these.
pub(super) fn with_zombies(pids: &[u32]) -> Result<Vec<u32>, CaptureError> {
    let listed: BTreeSet<u32> = pids.iter().copied().collect();
    let mut all = pids.to_vec();
    for (pid, look) in everybody()? {
        if look.has_ended() && listed.contains(&look.parent) && !listed.contains(&pid) {
            all.push(pid);
        }
    }
    Ok(all)
}

fn everybody() -> Result<Vec<(u32, Look)>, CaptureError> {
    let entries = fs::read_dir("/proc").map_err(|error| failed_to(0, "", &error))?;
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(pids.filter_map(|pid| Look::at(pid).map(|look| (pid, look))).collect())
}

/// A process and all that are below it, parents first.
pub(super) fn below(root: u32) -> Result<Vec<u32>, CaptureError> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    let everybody = everybody()?;
    if !everybody.iter().any(|(pid, _)| *pid == root) {
        return Err(CaptureError::NoSuchProcess(root));
    }
    for (pid, look) in everybody {
        children.entry(look.parent).or_default().push(pid);
    }
    let mut list = vec![root];
    let mut next = 0;
    while let Some(pid) = list.get(next) {
        list.extend(children.remove(pid).into_iter().flatten());
        next += 1;
    }
    Ok(list)
}

/// Everything but relations, of a process that lives.
pub(super) fn living(
    seen: &Seen,
    spaces: &mut Spaces,
    strings: &mut Strings<'_>,
) -> Result<Living, CaptureError> {
    let pid = seen.pid;
    let oom_score_adj = String::from_utf8_lossy(&read(pid, "oom_score_adj")?).trim().parse();
    let refused = |reason| CaptureError::Unrepresentable { pid, reason };
    let executable = fs::read_link(format!("/proc/{pid}/exe")).map_err(|_| refused(NO_PROGRAM))?;
    let (root, directory) = (link(pid, "root")?, link(pid, "cwd")?);
    for (file, shown, reason) in [
        ("exe", &executable, "its program was deleted"),
        ("root", &root, "its root directory was deleted"),
        ("cwd", &directory, "its working directory was deleted"),
    ] {
        if strings.is_deleted(pid, file, shown)? {
            return Err(refused(reason));
        }
    }
    // The kernel tells paths from the reader's root.
    let within =
        |path: &Path| path.strip_prefix(&root).map(|rest| Text(Path::new("/").join(rest).into_os_string()));
    Ok(Living {
        executable: within(&executable)
            .map_err(|_| refused("its program is outside of its root directory"))?,
        arguments: strings.of(pid, "cmdline")?,
        environment: strings.of(pid, "environ")?,
        directory: within(&directory)
            .map_err(|_| refused("its working directory is outside of its root directory"))?,
        umask: u32::from_str_radix(field(seen, "Umask")?, 8).map_err(|_| unknown(seen))?,
        credentials: credentials(seen)?,
        limits: limits(pid)?,
        nice: seen.nice,
        oom_score_adj: oom_score_adj.map_err(|_| CaptureError::Unknown { pid, file: "oom_score_adj" })?,
        terminal: u64::try_from(seen.terminal).ok().filter(|&terminal| terminal != 0),
        foreground: seen.foreground,
        stopped: seen.stopped,
        namespaces: spaces.of(pid)?,
        cgroup: cgroup(pid)?,
        root: Text(root.into_os_string()),
    })
}

fn unknown(seen: &Seen) -> CaptureError {
    CaptureError::Unknown { pid: seen.pid, file: "status" }
}

fn field<'a>(seen: &'a Seen, key: &str) -> Result<&'a str, CaptureError> {
    seen.status.get(key).map(String::as_str).ok_or_else(|| unknown(seen))
}

/// Strings that each end in a null byte. A process may have written over them.
fn strings(bytes: &[u8]) -> Vec<Text> {
    if bytes.is_empty() {
        return Vec::new();
    }
    bytes.strip_suffix(b"\0").unwrap_or(bytes).split(|&byte| byte == 0).map(Text::of).collect()
}

fn credentials(seen: &Seen) -> Result<Credentials, CaptureError> {
    let ids = |key| -> Result<Vec<u32>, CaptureError> {
        field(seen, key)?.split_whitespace().map(|id| id.parse().map_err(|_| unknown(seen))).collect()
    };
    let three = |key| match ids(key)?[..] {
        [real, effective, saved, ..] => Ok([real, effective, saved]),
        _ => Err(unknown(seen)),
    };
    let mask = |key| u64::from_str_radix(field(seen, key)?, 16).map_err(|_| unknown(seen));
    Ok(Credentials {
        uids: three("Uid")?,
        gids: three("Gid")?,
        groups: ids("Groups")?,
        capabilities: Capabilities {
            inheritable: mask("CapInh")?,
            permitted: mask("CapPrm")?,
            effective: mask("CapEff")?,
            bounding: mask("CapBnd")?,
            ambient: mask("CapAmb")?,
        },
        no_new_privs: field(seen, "NoNewPrivs")? == "1",
    })
}

type Limits = BTreeMap<String, (Option<u64>, Option<u64>)>;

fn limits(pid: u32) -> Result<Limits, CaptureError> {
    let text = read(pid, "limits")?;
    let text = String::from_utf8_lossy(&text);
    let value = |word: &str| if word == "unlimited" { Some(None) } else { word.parse().ok().map(Some) };
    let limit = |title: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(title))?;
        let mut words = line.split_whitespace();
        Some((value(words.next()?)?, value(words.next()?)?))
    };
    let known = LIMITS.iter().map(|&(name, title, _)| limit(title).map(|limit| (name.to_owned(), limit)));
    known.collect::<Option<Limits>>().ok_or(CaptureError::Unknown { pid, file: "limits" })
}

/// The path in the cgroup v2 tree; empty where there is none.
fn cgroup(pid: u32) -> Result<Text, CaptureError> {
    let text = read(pid, "cgroup")?;
    let line = text.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"0::"));
    Ok(Text::of(line.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_argument_is_one() {
        for (bytes, expected) in [
            (&b""[..], vec![]),
            (b"\0", vec![""]),
            (b"\0\0", vec!["", ""]),
            (b"a\0b\0", vec!["a", "b"]),
            (b"a\0\0", vec!["a", ""]),
            (b"written over", vec!["written over"]),
        ] {
            let expected: Vec<Text> = expected.into_iter().map(|text| Text::of(text.as_bytes())).collect();
            assert_eq!(strings(bytes), expected, "{bytes:?}");
        }
    }
}
