//! Leaving nothing behind: whatever is made below the calling process is its child, or becomes it, and is found again by that.
//!
//! A child's number cannot mean anybody else before it is reaped, and nobody else reaps it. So no number is needed that was
//! written down somewhere.

use std::collections::HashSet;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::{self, Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};

use crate::look::Look;

/// What the calling process was like before.
pub struct Before {
    children: HashSet<Pid>,
    subreaper: Option<Pid>,
}

/// A process that was made below the calling one since.
#[derive(Debug)]
pub struct Member {
    /// Its number here.
    pub pid: Pid,
    /// Its parent's.
    pub parent: Pid,
    /// The process.
    pub pidfd: OwnedFd,
}

/// Has children that end wait to be reaped by the caller, also if it was started by somebody who ignores them: the kernel would
/// reap them, and their numbers would mean others at once.
pub fn keep_ended_children() {
    pinfold_sys::exec::default_child_signal();
}

impl Before {
    /// Remembers the caller's children, and makes it the one that orphans come to. From now on it is told of those that end
    /// ([`keep_ended_children`]).
    ///
    /// Errors: what could not be done, and the kernel's answer.
    pub fn remember() -> Result<Self, (&'static str, Errno)> {
        keep_ended_children();
        let failed = |what| move |errno| (what, errno);
        let children =
            children("thread-self").map_err(failed("list the children in /proc/thread-self/children"))?;
        let subreaper = process::child_subreaper().map_err(failed("ask who takes in orphans"))?;
        let own = Some(process::getpid());
        process::set_child_subreaper(own).map_err(failed("take in orphans"))?;
        Ok(Self { children, subreaper })
    }

    /// Who is below the calling process now and was not before, parents first. Each is its parent's child still when it has
    /// been opened, so it is the one that was found.
    ///
    /// Errors: ESRCH: somebody has ended meanwhile, or got another parent.
    pub fn made(&self) -> Result<Vec<Member>, Errno> {
        let own = process::getpid();
        let new = self.children_made()?.into_iter().map(|pid| (pid, own));
        let mut found: Vec<(Pid, Pid)> = new.collect();
        let mut members = Vec::new();
        while let Some(&(pid, parent)) = found.get(members.len()) {
            let pidfd = process::pidfd_open(pid, PidfdFlags::empty())?;
            let number = pid.as_raw_pid().unsigned_abs();
            let look = Look::at(number).filter(|look| look.parent == parent.as_raw_pid().unsigned_abs());
            look.ok_or(Errno::SRCH)?;
            members.push(Member { pid, parent, pidfd });
            found.extend(children_of_all_threads(number)?.into_iter().map(|child| (child, pid)));
        }
        Ok(members)
    }

    /// Kills and reaps every child that was not there before, and what comes to us as orphans by that, until there is none.
    pub fn sweep(&self) {
        loop {
            let Ok(made) = self.children_made() else { return };
            if made.is_empty() {
                return;
            }
            made.into_iter().for_each(end);
        }
    }

    fn children_made(&self) -> Result<Vec<Pid>, Errno> {
        Ok(children("thread-self")?.difference(&self.children).copied().collect())
    }

    /// Gives orphans back to whom they went before.
    pub fn restore(&self) {
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

/// The children of one thread: `PID/task/TID`, or `thread-self`.
fn children(thread: &str) -> Result<HashSet<Pid>, Errno> {
    let text = fs::read_to_string(format!("/proc/{thread}/children"));
    let text = text.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    let pid = |number: &str| number.parse().ok().and_then(Pid::from_raw).filter(|pid| pid.as_raw_pid() > 0);
    Ok(text.split_whitespace().filter_map(pid).collect())
}

fn children_of_all_threads(pid: u32) -> Result<HashSet<Pid>, Errno> {
    let failed = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    let mut all = HashSet::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task")).map_err(failed)? {
        let thread = thread.map_err(failed)?.file_name();
        all.extend(children(&format!("{pid}/task/{}", thread.display()))?);
    }
    Ok(all)
}
