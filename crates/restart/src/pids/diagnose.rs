//! What an errno of clone3(2) meant.
//!
//! `alloc_pid()` goes through the namespaces from the youngest outwards, and process 1 of a namespace is taken as long as the
//! namespace lives. So a request that wants 1 at some level cannot succeed, and what it fails with tells how far the kernel
//! got: EINVAL, that level does not exist; EPERM, it or a younger one refused; EEXIST, every level up to there is allowed.

use rustix::io::Errno;
use rustix::process::PidfdFlags;

use super::{CloneError, MOST_LEVELS, NEW_PID_NAMESPACE, Request};
use pinfold_sys::clone;

/// `PID_MAX_LIMIT` of linux/threads.h on 64-bit machines: used where /proc is not there to ask.
const MOST_PIDS: u32 = 4 << 20;

/// `kernel.pid_max` of the caller's pid namespace (Linux 6.14 has one each): numbers are below it.
pub(super) fn pid_max() -> u32 {
    let text = std::fs::read_to_string("/proc/sys/kernel/pid_max").unwrap_or_default();
    text.trim().parse().unwrap_or(MOST_PIDS)
}

/// Whether the child will be process 1: of a namespace that comes with it, or of one that was unshared before.
pub(super) fn child_is_first(request: &Request<'_>) -> bool {
    request.namespaces & NEW_PID_NAMESPACE != 0 || is_unborn()
}

/// Whether the namespace that children go to has had no process yet. The kernel has no link for such a namespace; where no /proc is
/// mounted there is none for any.
/// Source: kernel/pid_namespace.c `pidns_for_children_get()`.
fn is_unborn() -> bool {
    let link = |name: &str| rustix::fs::readlink(format!("/proc/self/ns/{name}"), Vec::new());
    matches!(link("pid_for_children"), Err(Errno::NOENT)) && link("pid").is_ok()
}

/// Refuses more numbers than levels where the kernel would not see all of them, as zeros at the old end are not passed on.
pub(super) fn check_count(request: &Request<'_>) -> Result<(), CloneError> {
    let count = request.pids.len();
    // One number is always for the youngest level; and in a namespace without a process, 1 would be free.
    if count < 2 || probe(request, &vec![1; count]) != Errno::INVAL {
        return Ok(());
    }
    Err(CloneError::TooMany { count, levels: levels(request) })
}

/// Turns the kernel's errno into what was wrong with the request.
pub(super) fn explain(request: &Request<'_>, set_tid: &[i32], errno: Errno) -> CloneError {
    if errno == Errno::DEADLK {
        return CloneError::Threads;
    }
    let reached = clone::refusal();
    if reached != Errno::INVAL {
        return CloneError::Filtered(reached);
    }
    match errno {
        Errno::EXIST => CloneError::Taken(taken(request, set_tid)),
        Errno::PERM if !set_tid.is_empty() => refused(request, set_tid),
        Errno::INVAL => invalid(request, set_tid),
        errno => CloneError::System(errno),
    }
}

/// The number that is taken, if it can be told: only those of the caller's own namespace are visible.
fn taken(request: &Request<'_>, set_tid: &[i32]) -> Vec<i32> {
    let visible = |pid: i32| {
        let pid = rustix::process::Pid::from_raw(pid)?;
        Some(rustix::process::pidfd_open(pid, PidfdFlags::empty()).is_ok())
    };
    match set_tid.first() {
        Some(&youngest) if visible(youngest) == Some(true) && !is_elsewhere(request) => vec![youngest],
        _ => set_tid.iter().rev().copied().collect(),
    }
}

/// Whether children go to another namespace than the caller's, where its view of numbers means nothing.
fn is_elsewhere(request: &Request<'_>) -> bool {
    let link = |name: &str| rustix::fs::readlink(format!("/proc/self/ns/{name}"), Vec::new()).ok();
    request.namespaces & NEW_PID_NAMESPACE != 0 || link("pid") != link("pid_for_children")
}

/// Which level refused: the first at which asking for process 1 is not answered with "taken".
fn refused(request: &Request<'_>, set_tid: &[i32]) -> CloneError {
    let first = usize::from(child_is_first(request));
    let refuses = |level: &usize| {
        let mut numbers = set_tid[..*level].to_vec();
        numbers.push(1);
        probe(request, &numbers) == Errno::PERM
    };
    match (first..set_tid.len()).find(refuses) {
        Some(levels_up) => CloneError::Refused { levels_up },
        // Making the namespace itself was refused, or joining the group.
        None => CloneError::System(Errno::PERM),
    }
}

fn invalid(request: &Request<'_>, set_tid: &[i32]) -> CloneError {
    let levels = if set_tid.len() < 2 { MOST_LEVELS } else { levels(request) };
    if set_tid.len() > levels {
        return CloneError::TooMany { count: request.pids.len(), levels };
    }
    let limit = pid_max();
    if let Some(&pid) = set_tid.iter().find(|&&pid| u32::try_from(pid).is_ok_and(|pid| pid >= limit)) {
        return CloneError::AbovePidMax { pid, limit };
    }
    match set_tid.first() {
        Some(&pid) if pid != 1 && child_is_first(request) => CloneError::NotFirst(pid),
        _ => above_further_out(request, set_tid).unwrap_or(CloneError::System(Errno::INVAL)),
    }
}

/// The number that is above the limit of a namespace further out, if the numbers are at fault: the first with which a request for
/// process 1 one level further out is invalid.
fn above_further_out(request: &Request<'_>, set_tid: &[i32]) -> Option<CloneError> {
    let is_invalid = |numbers: &[i32]| probe(request, numbers) == Errno::INVAL;
    let oldest = set_tid.len().checked_sub(1)?;
    if is_invalid(&vec![1; set_tid.len()]) {
        return None;
    }
    let levels_up = (0..oldest).find(|&level| is_invalid(&[&set_tid[..=level], &[1]].concat()));
    let levels_up = levels_up.unwrap_or(oldest);
    Some(CloneError::AboveFurtherOut { pid: set_tid[levels_up], levels_up })
}

/// How many pid namespaces the child is in.
fn levels(request: &Request<'_>) -> usize {
    (2..=MOST_LEVELS)
        .find(|&count| probe(request, &vec![1; count]) == Errno::INVAL)
        .unwrap_or(MOST_LEVELS + 1)
        - 1
}

/// The errno of a request that cannot succeed: the last of `set_tid` is 1, at a level that has had a process.
fn probe(request: &Request<'_>, set_tid: &[i32]) -> Errno {
    match super::ask(request, set_tid) {
        Err(errno) => errno,
        // The namespace's first process went away at this very moment, so everything in it is going away.
        Ok(clone::Side::Child) => clone::exit_now(0),
        Ok(clone::Side::Parent { pidfd, .. }) => {
            let waited = rustix::process::waitid(
                rustix::process::WaitId::PidFd(std::os::fd::AsFd::as_fd(&pidfd)),
                rustix::process::WaitIdOptions::EXITED,
            );
            debug_assert!(waited.is_ok(), "a child of our own: {waited:?}");
            Errno::EXIST
        }
    }
}
