//! Leaving nothing behind: every process that was made is killed and reaped.

use std::collections::HashSet;
use std::fs;
use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::process::{self, Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};

use super::RebuildError;

/// What the calling process was like before.
pub(super) struct Before {
    children: HashSet<Pid>,
    subreaper: Option<Pid>,
}

impl Before {
    /// Remembers the caller's children, and makes it the one that orphans come to.
    pub(super) fn remember() -> Result<Self, RebuildError> {
        let failed = |what| move |errno| RebuildError::Prepare { what, errno };
        let children = children().map_err(failed("list the children in /proc/thread-self/children"))?;
        let subreaper = process::child_subreaper().map_err(failed("ask who takes in orphans"))?;
        let own = Some(process::getpid());
        process::set_child_subreaper(own).map_err(failed("take in orphans"))?;
        Ok(Self { children, subreaper })
    }

    /// Kills and reaps every child that was not there before, and what comes to us as orphans by that, until there is none.
    pub(super) fn sweep(&self) {
        loop {
            let made: Vec<Pid> = match children() {
                Ok(children) => children.difference(&self.children).copied().collect(),
                Err(_) => return,
            };
            if made.is_empty() {
                return;
            }
            made.into_iter().for_each(end);
        }
    }

    /// Gives orphans back to whom they went before.
    pub(super) fn restore(&self) {
        // Fails for no argument that the kernel gave itself.
        let _ = process::set_child_subreaper(self.subreaper);
    }
}

/// Kills and reaps a child. Until it is reaped, here and by nobody else, its number means no other process.
fn end(child: Pid) {
    let Ok(pidfd) = process::pidfd_open(child, PidfdFlags::empty()) else { return };
    // ESRCH: a zombie. It is reaped just the same.
    let _ = process::pidfd_send_signal(&pidfd, Signal::KILL);
    while process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)
        .is_err_and(|errno| errno == Errno::INTR)
    {}
}

fn children() -> Result<HashSet<Pid>, Errno> {
    let text = fs::read_to_string("/proc/thread-self/children");
    let text = text.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    let pid = |number: &str| number.parse().ok().and_then(Pid::from_raw).filter(|pid| pid.as_raw_pid() > 0);
    Ok(text.split_whitespace().filter_map(pid).collect())
}
