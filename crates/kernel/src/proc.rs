//! The proc file system, through one directory descriptor.

use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use pinfold_model::HostPid;
use rustix::fs::{AtFlags, Mode, OFlags, RawDir, SeekFrom, Stat};
use rustix::io::Errno;

use crate::beneath;

/// `/proc`, opened at the first use and kept: the daemon's own pid namespace for as long as it lives.
pub(crate) fn directory() -> Result<BorrowedFd<'static>, Errno> {
    static PROC: OnceLock<OwnedFd> = OnceLock::new();
    if PROC.get().is_none() {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // When two threads come here at once, the loser's descriptor is closed again.
        let _ = PROC.set(rustix::fs::open("/proc", flags, Mode::empty())?);
    }
    PROC.get().map(std::os::fd::AsFd::as_fd).ok_or(Errno::NOENT)
}

/// The content of a file of proc.
pub(crate) fn read(path: &str) -> Result<Vec<u8>, Errno> {
    let file = rustix::fs::openat(directory()?, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    beneath::read_all(&file)
}

/// The content of a file of a process or task.
pub(crate) fn read_of(task: HostPid, file: &str) -> Result<Vec<u8>, Errno> {
    read(&format!("{task}/{file}"))
}

/// Opens something of a process or task; magic links (`ns/pid`) are followed.
pub(crate) fn open_of(task: HostPid, file: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::openat(directory()?, format!("{task}/{file}"), flags, Mode::empty())
}

/// What stat(2) says of something in proc; magic links are followed.
pub(crate) fn stat(path: &str) -> Result<Stat, Errno> {
    rustix::fs::statat(directory()?, path, AtFlags::empty())
}

/// The numbers of all processes of this pid namespace.
pub(crate) fn processes() -> Result<Vec<HostPid>, Errno> {
    numbers(".")
}

/// The numbers of the tasks of one process.
pub(crate) fn tasks(process: HostPid) -> Result<Vec<HostPid>, Errno> {
    numbers(&format!("{process}/task"))
}

/// Where a link of proc says that it leads.
pub(crate) fn link(path: &str) -> Result<Vec<u8>, Errno> {
    rustix::fs::readlinkat(directory()?, path, Vec::new()).map(std::ffi::CString::into_bytes)
}

/// The numbers of a process's open descriptors, of so many at most.
pub(crate) fn descriptors(process: HostPid, most: usize) -> Result<Vec<u32>, Errno> {
    names(&format!("{process}/fd"), most)
}

/// The open descriptors of a process, which can be looked at from any number on.
pub(crate) struct Descriptors(OwnedFd);

impl Descriptors {
    pub(crate) fn of(process: HostPid) -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::openat(directory()?, format!("{process}/fd"), flags, Mode::empty())?))
    }

    /// Those from this number on, ascending, so many at most. Source: proc_readfd_common(), where a place in the directory is a
    /// number and 2.
    pub(crate) fn from(&self, least: u32, most: usize) -> Result<Vec<u32>, Errno> {
        /// What getdents64(2) takes for one of them: `struct linux_dirent64` with a name of at most ten digits.
        const ENTRY: usize = 32;
        rustix::fs::seek(&self.0, SeekFrom::Start(u64::from(least) + 2))?;
        let mut buffer = vec![MaybeUninit::uninit(); ENTRY * (most + 2)];
        let mut entries = RawDir::new(&self.0, &mut buffer);
        let mut found = Vec::new();
        while let Some(entry) = entries.next().filter(|_| found.len() < most) {
            found.extend(entry?.file_name().to_str().ok().and_then(|name| name.parse::<u32>().ok()));
        }
        Ok(found)
    }
}

fn numbers(path: &str) -> Result<Vec<HostPid>, Errno> {
    Ok(names(path, usize::MAX)?.into_iter().filter_map(HostPid::new).collect())
}

/// The entries of a directory that are numbers; the first so many.
fn names(path: &str, most: usize) -> Result<Vec<u32>, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut entries = rustix::fs::Dir::new(rustix::fs::openat(directory()?, path, flags, Mode::empty())?)?;
    let mut found = Vec::new();
    while let Some(entry) = entries.read().filter(|_| found.len() < most) {
        found.extend(entry?.file_name().to_str().ok().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(found)
}
