//! A schedule carried out for real: all or nothing.
//!
//! Every process that is made carries the whole schedule in its copy of memory, and does the steps that are its own when their
//! turn comes; the turn is a word in shared memory. So no process needs a channel, and numbers of descriptors do not grow.
//! When the relations stand, each process puts on its namespaces, credentials, limits and directories; only when
//! all have done so does the first one execute its program.
//!
//! If anything fails, the builder kills and reaps whatever has been made. It finds them as its own children, since it is
//! a subreaper meanwhile; a child's number cannot mean anybody else before it is reaped. If the builder itself is killed, the
//! others see that and end.

mod actor;
mod descend;
mod dress;
mod error;
mod hold;
mod stage;
mod terminal;
mod users;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::AtomicBool;

pub use error::{RebuildError, StepError};
use pinfold_sys::clone::exit_now;
use rustix::io::Errno;
use rustix::process::Pid;

use crate::image::Image;
use crate::look::Look;
use crate::schedule::{self, BUILDER, OutsideGroup, Schedule};
use crate::sweep::Before;
use actor::Actor;
use stage::Stage;

/// What to run, and where.
#[derive(Default)]
pub struct Options<'a> {
    /// Runs in every process instead of its recorded program.
    pub command: Option<Vec<OsString>>,
    /// For each process of the image, the cgroup v2 directory that it is born in; none: the builder's.
    pub groups: Vec<Option<BorrowedFd<'a>>>,
    /// The builder's own cgroup v2 directory: helpers are born there, so that they count in no group of the tree. Needed
    /// if any group is given.
    pub helpers_in: Option<BorrowedFd<'a>>,
    /// Goes on without the controlling terminals that were recorded.
    pub without_terminals: bool,
    /// Gives the rebuilding up when it is set: by a signal handler, as nothing else runs in a process with one thread.
    pub interrupted: Option<&'a AtomicBool>,
    /// Called by the builder at each [`Moment`]; an error ends everything that was made, and says why.
    pub at: Option<&'a dyn Fn(Moment) -> Result<(), String>>,
}

/// A moment at which the caller has a say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Every process is where it belongs, and none has executed its program.
    Placed,
    /// Every process has executed its program.
    Running,
}

/// A process of the tree whose parent is the caller.
#[derive(Debug)]
pub struct Root {
    /// Its place in [`Image::processes`].
    pub index: usize,
    /// Its number in the caller's pid namespace.
    pub pid: Pid,
    /// The process.
    pub pidfd: OwnedFd,
}

/// Rebuilds the processes of `image` below the calling process, which must have one thread, and lets them run.
///
/// The oldest known namespace of the image is the caller's: numbers there are taken as recorded, and above it the kernel
/// chooses. The caller is the parent of the processes that had theirs outside; those recorded as zombies stay zombies.
///
/// Errors: those of [`RebuildError`], with nothing left of what was made.
pub fn rebuild(image: &Image, options: &Options<'_>) -> Result<Vec<Root>, RebuildError> {
    dress::check(image, options)?;
    if !options.without_terminals {
        terminal::check(image)?;
    }
    let schedule = schedule::schedule(&image.tree(), outside_group())?;
    let plan = users::Plan::of(image)?;
    let before = Before::remember().map_err(|(what, errno)| RebuildError::Prepare { what, errno })?;
    let result = carry_out(image, &schedule, &plan, options);
    if result.is_err() {
        before.sweep();
    }
    before.restore();
    result
}

/// The names of the capabilities that recorded processes had in their bounding sets (`CapBnd`), and that nobody rebuilt below the
/// calling process can have, as its own set lacks them. In the order of linux/capability.h; normally none.
///
/// Errors: EPERM where a seccomp filter forbids prctl(2).
pub fn lost_capabilities(image: &Image) -> Result<Vec<String>, Errno> {
    let lost = dress::lost(image)?;
    Ok(lost.iter_names().map(|(name, _)| format!("CAP_{name}")).collect())
}

fn carry_out(
    image: &Image,
    schedule: &Schedule,
    plan: &users::Plan,
    options: &Options<'_>,
) -> Result<Vec<Root>, RebuildError> {
    let nodes = 1 + image.processes.len() + schedule.helpers.len();
    let stage = Stage::set(nodes, image.user_namespaces.len(), plan.kept.len(), options.interrupted)?;
    let reserved = reserved(image);
    let mut builder = Actor::new(image, schedule, plan, options, &stage, &reserved)?;
    let built = catch_unwind(AssertUnwindSafe(|| builder.build()));
    if builder.node() != BUILDER {
        // Whatever happened in a process that was made, the caller's code is not for it.
        if built.is_err() {
            stage.fail(builder.node(), Errno::IO, "a defect of pinfold's: it panicked");
        }
        exit_now(1)
    }
    built.unwrap_or_else(|panic| resume_unwind(panic))?;
    builder.run()
}

/// Whether the caller's process group has a number in the caller's pid namespace.
fn outside_group() -> OutsideGroup {
    match Look::at(std::process::id()) {
        Some(look) if look.group != 0 => OutsideGroup::Numbered,
        _ => OutsideGroup::Inherited,
    }
}

/// All numbers of the image at each level: no helper may take one that somebody needs later.
fn reserved(image: &Image) -> Vec<BTreeSet<u32>> {
    let mut levels: Vec<BTreeSet<u32>> = Vec::new();
    for process in &image.processes {
        for pids in [&process.pids, &process.session, &process.group] {
            levels.resize_with(levels.len().max(pids.len()), BTreeSet::new);
            for (level, &pid) in levels.iter_mut().zip(pids) {
                level.insert(pid);
            }
        }
    }
    levels
}
