//! Mounting: by the kernel's own mount(2), or by a command that stands for it.
//!
//! The same script must mount a kernel hierarchy in one guest and pinfold's in another, so a run is told once how
//! `mount`, `remount` and `umount` are done.

use super::outcome::{Failure, Outcome, done, named_in, wrong};
use anyhow::{Result, ensure};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::Command;
use std::time::Duration;

/// How a run mounts and unmounts.
#[derive(Clone)]
pub(super) enum Mounter {
    /// mount(2) with file system type `cgroup`.
    Kernel,
    /// Two command lines; `{options}` and `{dir}` in their words are filled in.
    Commands {
        /// Mounts, and remounts if the options start with `remount,`.
        mount: String,
        /// Unmounts.
        umount: String,
    },
}

impl Mounter {
    /// The mounter for the command lines given, which must be both or neither.
    pub(super) fn new(mount: Option<&str>, umount: Option<&str>) -> Result<Self> {
        ensure!(mount.is_some() == umount.is_some(), "--mount and --umount come together");
        Ok(match (mount, umount) {
            (Some(mount), Some(umount)) => Self::Commands { mount: mount.into(), umount: umount.into() },
            _ => Self::Kernel,
        })
    }

    /// The arguments that give a helper process the same mounter.
    pub(super) fn arguments(&self) -> Vec<String> {
        match self {
            Self::Kernel => Vec::new(),
            Self::Commands { mount, umount } => {
                vec![format!("--mount={mount}"), format!("--umount={umount}")]
            }
        }
    }

    /// Mounts a hierarchy with `options` at `dir`.
    pub(super) fn mount(&self, options: &OsStr, dir: &OsStr) -> Outcome {
        match self {
            Self::Kernel => {
                let (flags, data) = split_flags(options);
                let data = CString::new(data).or_else(|_| wrong("mount options hold a NUL"))?;
                rustix::mount::mount("cgroup", dir, "cgroup", flags, Some(data.as_c_str()))?;
                done()
            }
            Self::Commands { mount, .. } => run(mount, options, dir),
        }
    }

    /// Changes the options of the hierarchy mounted at `dir`.
    pub(super) fn remount(&self, options: &OsStr, dir: &OsStr) -> Outcome {
        match self {
            Self::Kernel => {
                let (flags, data) = split_flags(options);
                let data = CString::new(data).or_else(|_| wrong("mount options hold a NUL"))?;
                rustix::mount::mount_remount(dir, flags, data.as_c_str())?;
                done()
            }
            Self::Commands { mount, .. } => {
                let mut all = OsString::from("remount,");
                all.push(options);
                run(mount, &all, dir)
            }
        }
    }

    /// Waits until groups that were removed are gone for good.
    ///
    /// The kernel frees a removed group after several grace periods, and until then a hierarchy that is unmounted
    /// lives on as if it still had groups. Nothing shows when that is over, so this waits long enough.
    pub(super) fn settle(&self) {
        if matches!(self, Self::Kernel) {
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// Unmounts `dir`.
    pub(super) fn umount(&self, dir: &OsStr) -> Outcome {
        match self {
            Self::Kernel => {
                rustix::mount::unmount(dir, UnmountFlags::empty())?;
                done()
            }
            Self::Commands { umount, .. } => run(umount, OsStr::new(""), dir),
        }
    }
}

/// Parts mount(8)'s common flags from the options that go to the file system.
fn split_flags(options: &OsStr) -> (MountFlags, Vec<u8>) {
    let mut flags = MountFlags::empty();
    let mut data: Vec<&[u8]> = Vec::new();
    for option in options.as_bytes().split(|b| *b == b',') {
        match option {
            b"ro" => flags |= MountFlags::RDONLY,
            b"nosuid" => flags |= MountFlags::NOSUID,
            b"nodev" => flags |= MountFlags::NODEV,
            b"noexec" => flags |= MountFlags::NOEXEC,
            _ => data.push(option),
        }
    }
    (flags, data.join(&b','))
}

/// Runs a command line; the errno it stands for is read from what it says when it fails.
fn run(line: &str, options: &OsStr, dir: &OsStr) -> Outcome {
    let mut words = line.split_whitespace().map(|word| filled(word, options, dir));
    let Some(program) = words.next() else { return wrong("an empty mount command") };
    let output = Command::new(&program)
        .args(words)
        .output()
        .or_else(|error| wrong(format!("cannot run {}: {error}", program.to_string_lossy())))?;
    if output.status.success() {
        return done();
    }
    let said = String::from_utf8_lossy(&output.stderr);
    match named_in(&said) {
        Some(errno) => Err(Failure::Errno(errno)),
        None => Ok(vec![format!("{}, and names no errno: {}", output.status, said.trim_end())]),
    }
}

fn filled(word: &str, options: &OsStr, dir: &OsStr) -> OsString {
    match word {
        "{options}" => options.to_owned(),
        "{dir}" => dir.to_owned(),
        other => OsString::from_vec(other.as_bytes().to_vec()),
    }
}

/// Whether an unmount failed only because nothing is mounted there.
pub(super) fn was_not_mounted(outcome: &Outcome) -> bool {
    matches!(outcome, Err(Failure::Errno(Errno::INVAL | Errno::NOENT)))
}
