//! Controlling terminals: a session that had one gets it again, if the device is still there and nobody else's.
//!
//! The kernel gives a terminal to a session's leader, and children inherit it at birth; so the leader takes it with the
//! session, before it has children there. A session loses it when its leader dies.
//! Source: drivers/tty/tty_jobctrl.c `tiocsctty()`, `disassociate_ctty()`.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Mode, OFlags, fstat, major, minor, open};
use rustix::io::Errno;
use rustix::process::{Pid, ioctl_tiocsctty};
use rustix::termios::tcsetpgrp;

use super::RebuildError;
use super::error::Failure;
use crate::image::{Captured, Image};
use crate::look::Look;

/// The major numbers of pseudo terminals, 256 terminals each. Source: Documentation/admin-guide/devices.txt, 136-143 char.
const PSEUDO: std::ops::RangeInclusive<u32> = 136..=143;

/// Refuses terminals that cannot be had again, before anything is made.
pub(super) fn check(image: &Image) -> Result<(), RebuildError> {
    let leads = |process: &&Captured| process.session.first() == process.pids.first();
    let leaders = image.processes.iter().filter(leads);
    let of_session: HashMap<Option<&u32>, Option<u64>> =
        leaders.map(|leader| (leader.session.first(), terminal(leader))).collect();
    let own = Look::at(std::process::id()).is_some_and(|look| look.terminal != 0);
    for process in &image.processes {
        let Some(device) = terminal(process) else { continue };
        let what = if process.session.is_empty() {
            if own {
                continue;
            }
            "it has the terminal of a session outside, and the restarting one has none (ask to go on without)"
        } else {
            if of_session.get(&process.session.first()) == Some(&Some(device)) {
                continue;
            }
            "it has a controlling terminal that its session's leader does not have (ask to go on without)"
        };
        return Err(RebuildError::Unsupported { pid: process.pids.first().copied().unwrap_or(0), what });
    }
    Ok(())
}

fn terminal(process: &Captured) -> Option<u64> {
    process.living.as_ref()?.terminal
}

/// Makes a device the controlling terminal of the session that the caller has just made.
pub(super) fn take(device: u64) -> Result<(), Failure> {
    let terminal = of_number(device)?;
    ioctl_tiocsctty(&terminal).map_err(|errno| (errno, format!("cannot take {}: {errno}", name(device))))
}

/// Puts a process group into the foreground of the session that the caller leads.
pub(super) fn to_foreground(device: u64, group: Pid) -> Result<(), Failure> {
    let terminal = of_number(device)?;
    tcsetpgrp(&terminal, group)
        .map_err(|errno| (errno, format!("cannot put group {group} in the foreground: {errno}")))
}

/// Leaves the terminal that the caller was born with, if there is one.
pub(super) fn leave() -> Result<(), Failure> {
    match open("/dev/tty", OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()) {
        // ENXIO: there is none; ENOENT: nor can anybody here open it.
        Err(_) => Ok(()),
        Ok(terminal) => pinfold_sys::terminal::leave(&terminal)
            .map_err(|errno| (errno, format!("cannot leave the terminal: {errno}"))),
    }
}

fn name(device: u64) -> String {
    format!("the terminal {}:{}", major(device), minor(device))
}

/// Opens the terminal with this number: a pseudo terminal by its own, another by what sysfs calls it.
fn of_number(device: u64) -> Result<OwnedFd, Failure> {
    let gone = |errno: Errno| (errno, format!("{} is not there any more: {errno}", name(device)));
    let (major, minor) = (major(device), minor(device));
    let path = if PSEUDO.contains(&major) {
        format!("/dev/pts/{}", u64::from(major - PSEUDO.start()) * 256 + u64::from(minor))
    } else {
        let text = std::fs::read_to_string(format!("/sys/dev/char/{major}:{minor}/uevent"));
        let text = text.map_err(|error| gone(Errno::from_io_error(&error).unwrap_or(Errno::NODEV)))?;
        let known = text.lines().find_map(|line| line.strip_prefix("DEVNAME="));
        format!("/dev/{}", known.ok_or_else(|| gone(Errno::NODEV))?)
    };
    // Not waiting for a line that nobody has picked up.
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let terminal = open(path, flags, Mode::empty()).map_err(gone)?;
    let stat = fstat(&terminal).map_err(gone)?;
    let is_it = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == device;
    if is_it { Ok(terminal) } else { Err(gone(Errno::NODEV)) }
}
