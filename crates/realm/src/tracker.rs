//! Who keeps the processes of cells together, and what enforces what groups keep: the kernel's v2 tree, or, where none
//! can be written, a table of our own.
//!
//! Everything above this module plans with directories, leaves and texts of v2 files. The `cgroup2` tracker has the kernel
//! carry that out. The `events` tracker is the same tree once more, in memory: its members are kept by the forks and
//! exits that it is told of, and its few files have their effect from user space. So there is one forest, one set of
//! tables, one way to attach and one to recover. What the kernel's tree lacks of those files is had beside it in the same way.
//!
//! Out of scope: what any of it is for.

mod accounts;
mod beside;
mod deeds;
mod following;
mod ledger;
mod steps;
mod table;
mod texts;

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pinfold_events::Feeder;
use pinfold_files::{Needs, Unaided};
use pinfold_kernel::alarm::Alarm;
use pinfold_kernel::process::{Pinned, Standing};
use pinfold_kernel::since::Since;
use pinfold_kernel::{
    self as kernel, CloseError, Event, Events, Measuring, Membership, MembershipError, ReadError, Step,
    StepError, Tree, Watch, WatchError, Where,
};
use pinfold_model::{CellId, ControllerId, Dir, HostPid};
use rustix::io::Errno;

use beside::Beside;
pub(crate) use following::Following;
pub(crate) use ledger::NAME as LEDGER;
pub(crate) use texts::COUNTED;

/// The tracker of a realm, chosen when it is opened.
#[derive(Debug)]
pub(crate) enum Tracker {
    /// The kernel's membership is the truth; no event is needed.
    Cgroup2 {
        /// The realm's part of the v2 tree.
        tree: Arc<Tree>,
        /// What tells of leaves that became empty.
        watch: Box<Watch>,
        /// What the tree lacks and is done from user space.
        beside: Option<Box<Beside>>,
    },
    /// A table fed by process events.
    Events(Following),
}

/// How the tracker `events` is doing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tracked {
    /// Where it learns of forks and exits, whether that is away, and what has failed.
    pub source: String,
    /// How many processes are in groups below a root.
    pub processes: usize,
    /// How often events were lost; each time /proc was read and compared.
    pub gaps: u64,
    /// How often all of /proc was read.
    pub scans: u64,
    /// How many datagrams of the source were not the kernel's: root sends them, and nobody believes them.
    pub rejected: u64,
    /// How many processes were given the group of their session or process group, since their parent was gone when they were
    /// found.
    pub adopted: u64,
}

impl Tracker {
    /// The kernel's tree, and beside it what it lacks as far as user space can do that.
    pub(crate) fn cgroup2(tree: Tree, watch: Watch, state: &Path) -> io::Result<Self> {
        let tree = Arc::new(tree);
        let beside = Beside::open(&tree, state)?.map(Box::new);
        Ok(Self::Cgroup2 { tree, watch: Box::new(watch), beside })
    }

    /// What sets this tracker's state apart from another's: a line of the state directory's mark.
    pub(crate) fn mark(&self) -> String {
        match self {
            Self::Cgroup2 { tree, .. } => {
                let base = pinfold_files::print_bytes(tree.base().as_os_str().as_encoded_bytes());
                format!("base={base}\n")
            }
            Self::Events(_) => "tracker=events\n".to_owned(),
        }
    }

    /// The v2 directory below which it works; `None`: there is none.
    pub(crate) fn base(&self) -> Option<PathBuf> {
        match self {
            Self::Cgroup2 { tree, .. } => Some(tree.base()),
            Self::Events(_) => None,
        }
    }

    /// Whether a controller can work here.
    pub(crate) fn offers(&self, id: ControllerId) -> bool {
        let controller = pinfold_files::controller(id);
        match self {
            Self::Cgroup2 { .. } if self.is_unaided(id) => true,
            Self::Cgroup2 { tree, .. } => match controller.needs {
                Needs::Tree => true,
                Needs::Program => kernel::inspect::programs().is_ok(),
                Needs::ResourceLimits => kernel::inspect::resource_limits(),
                Needs::Controller(name) => tree.available().contains(name),
            },
            Self::Events(_) => match (controller.unaided, controller.needs) {
                (Unaided::Refused(_), _) => false,
                (Unaided::Served(_), Needs::ResourceLimits) => kernel::inspect::resource_limits(),
                (Unaided::Served(_), _) => true,
            },
        }
    }

    /// Why a controller that is there was not switched on, as the kernel answered.
    pub(crate) fn refused(&self, name: &str) -> Option<Errno> {
        match self {
            Self::Cgroup2 { tree, .. } => {
                tree.refused().iter().find(|refused| refused.controller == name).map(|refused| refused.errno)
            }
            Self::Events(_) => None,
        }
    }

    /// Whether there is no v2 tree.
    pub(crate) fn is_user_space(&self) -> bool {
        matches!(self, Self::Events(_))
    }

    /// Whether the tracker itself, not the kernel, puts a controller's values in force.
    pub(crate) fn is_unaided(&self, id: ControllerId) -> bool {
        match (self, pinfold_files::controller(id).needs) {
            (Self::Cgroup2 { beside: Some(beside), .. }, Needs::Controller(name)) => beside.does(name),
            (Self::Cgroup2 { .. }, _) => false,
            (Self::Events(_), _) => self.offers(id),
        }
    }

    /// What is done beside the v2 tree, if this file is.
    fn beside(&self, file: &str) -> Option<&Beside> {
        match self {
            Self::Cgroup2 { beside: Some(beside), .. } => Some(&**beside).filter(|beside| beside.has(file)),
            Self::Cgroup2 { .. } | Self::Events(_) => None,
        }
    }

    /// How it is doing, if there is anything to tell.
    pub(crate) fn report(&self) -> Option<Tracked> {
        match self {
            Self::Cgroup2 { .. } => None,
            Self::Events(following) => Some(following.report()),
        }
    }

    /// Has a service of process events told what this tracker is told. Answers whether it is told of processes.
    pub(crate) fn feed(&self, feeder: Feeder) -> bool {
        match self {
            Self::Cgroup2 { .. } => false,
            Self::Events(following) => {
                following.feed(feeder);
                true
            }
        }
    }

    /// Takes in what has happened up to now.
    pub(crate) fn take_in(&self) {
        if let Self::Events(following) = self {
            following.take_in();
        }
    }

    /// Whether CPU time is counted: without the kernel it has to be looked at in time.
    pub(crate) fn account(&self, is_wanted: bool) {
        if let Self::Events(following) = self {
            following.account(is_wanted);
        }
    }

    /// Everything that was kept is in force again.
    pub(crate) fn recovered(&self) {
        if let Self::Events(following) = self {
            following.recovered();
        }
    }

    /// See [`Tree::carry_out`].
    pub(crate) fn carry_out(&self, steps: &[Step]) -> Result<(), StepError> {
        match self {
            Self::Cgroup2 { tree, beside: Some(beside), .. } => beside.carry_out(tree, steps),
            Self::Cgroup2 { tree, beside: None, .. } => tree.carry_out(steps),
            Self::Events(following) => following.carry_out(steps),
        }
    }

    /// See [`Tree::try_entry`].
    pub(crate) fn try_entry(&self, file: &'static str, entry: &str) -> Result<(), StepError> {
        match self {
            Self::Cgroup2 { tree, .. } => tree.try_entry(file, entry),
            // None of its controllers has entries.
            Self::Events(_) => Err(steps::no_file(file, entry)),
        }
    }

    /// The realm's directories, those below before those above.
    pub(crate) fn dirs(&self) -> Vec<Dir> {
        match self {
            Self::Cgroup2 { tree, .. } => tree.dirs(),
            Self::Events(following) => following.dirs(),
        }
    }

    /// The names of the files that each of them has.
    pub(crate) fn files(&self) -> Vec<String> {
        match self {
            Self::Cgroup2 { tree, beside, .. } => {
                let beside = beside.iter().flat_map(|beside| beside.files()).map(str::to_owned);
                tree.files().into_iter().chain(beside).collect()
            }
            Self::Events(_) => texts::FILES.iter().map(|file| (*file).to_owned()).collect(),
        }
    }

    /// Whether the v2 tree is mounted with an option.
    pub(crate) fn has_option(&self, option: &str) -> bool {
        match self {
            Self::Cgroup2 { tree, .. } => tree.has_option(option),
            Self::Events(_) => false,
        }
    }

    /// The text of a file.
    pub(crate) fn read<'a>(&self, at: impl Into<Where<'a>>, file: &'static str) -> Result<String, ReadError> {
        match (self, self.beside(file)) {
            (Self::Cgroup2 { .. }, Some(beside)) => beside.read(at.into(), file),
            (Self::Cgroup2 { tree, .. }, None) => tree.read(at, file),
            (Self::Events(following), _) => following.read(at.into(), file),
        }
    }

    /// Begins to measure CPU time by CPU, if that can be done and was not tried before.
    pub(crate) fn measure(&self, cpus: usize) {
        if let Self::Cgroup2 { tree, .. } = self {
            tree.measure(cpus);
        }
    }

    /// Whether it is measured; `None`: there is no v2 tree to do it by.
    pub(crate) fn measuring(&self) -> Option<Measuring> {
        match self {
            Self::Cgroup2 { tree, .. } => Some(tree.measuring()),
            Self::Events(_) => None,
        }
    }

    /// What was measured in each of these directories and all below it, and that in none nothing was; nothing while nothing is
    /// measured.
    pub(crate) fn measured(&self, dirs: &[Dir]) -> Vec<String> {
        match self {
            Self::Cgroup2 { tree, .. } if matches!(tree.measuring(), Measuring::On { .. }) => {
                let told = dirs.iter().filter_map(|dir| tree.measured(dir));
                told.chain([String::new()]).collect()
            }
            Self::Cgroup2 { .. } | Self::Events(_) => Vec::new(),
        }
    }

    /// Starts a figure again for the file that is returned.
    pub(crate) fn start_again(&self, dir: &Dir, file: &'static str) -> Result<Since, Errno> {
        match self {
            Self::Cgroup2 { tree, .. } => tree.start_again(dir, file),
            Self::Events(_) => Err(Errno::NOENT),
        }
    }

    /// Whether a directory has processes, and whether all of them are frozen.
    pub(crate) fn events(&self, dir: &Dir) -> Result<Events, ReadError> {
        match self {
            Self::Cgroup2 { tree, .. } => tree.events(dir),
            Self::Events(following) => following.events(dir),
        }
    }

    /// What tells when a file changes.
    pub(crate) fn alarm(&self, dir: &Dir, file: &'static str) -> Result<Alarm, ReadError> {
        match self {
            Self::Cgroup2 { tree, .. } => tree.alarm(dir, file),
            Self::Events(_) => Err(ReadError::NoFile { path: PathBuf::from(dir.to_string()).join(file) }),
        }
    }

    /// The processes in a directory and all below it, ascending.
    pub(crate) fn processes(&self, dir: &Dir) -> Result<Vec<HostPid>, ReadError> {
        match self {
            Self::Cgroup2 { tree, .. } => tree.processes(dir),
            Self::Events(following) => following.processes(dir),
        }
    }

    /// The tasks in a directory and all below it, ascending.
    pub(crate) fn threads(&self, dir: &Dir) -> Result<Vec<HostPid>, ReadError> {
        match self {
            Self::Cgroup2 { tree, .. } => tree.threads(dir),
            Self::Events(following) => Ok(deeds::tasks_of(following.processes(dir)?)),
        }
    }

    /// The processes of the scope that are in no cell, ascending.
    pub(crate) fn scope_processes(&self) -> Result<Vec<HostPid>, ReadError> {
        match self {
            Self::Cgroup2 { tree, .. } => tree.scope_processes(),
            Self::Events(following) => following.others(),
        }
    }

    /// The tasks of the scope that are in no cell, ascending.
    pub(crate) fn scope_threads(&self) -> Result<Vec<HostPid>, ReadError> {
        match self {
            Self::Cgroup2 { tree, .. } => tree.scope_threads(),
            Self::Events(following) => Ok(deeds::tasks_of(following.others()?)),
        }
    }

    /// Where a process or task is.
    pub(crate) fn membership(&self, task: HostPid) -> Result<Membership, MembershipError> {
        match self {
            Self::Cgroup2 { tree, .. } => tree.membership(task),
            Self::Events(following) => following.membership(task),
        }
    }

    /// Where a process is that is held.
    pub(crate) fn membership_of(
        &self,
        pinned: &Pinned,
        standing: &Standing,
    ) -> Result<Membership, MembershipError> {
        match self {
            Self::Cgroup2 { tree, .. } => tree.membership_of(pinned, standing),
            Self::Events(following) => {
                let found = following.membership(pinned.process())?;
                // What was found by its number was its own if it is still there.
                pinned.verify().map_err(|_| MembershipError::NoProcess(pinned.process()))?;
                Ok(found)
            }
        }
    }

    /// Whether it is certain where a process is whose membership was asked for just now.
    pub(crate) fn is_sure_of(&self, process: HostPid) -> bool {
        match self {
            Self::Cgroup2 { .. } => true,
            Self::Events(following) => following.is_sure_of(process),
        }
    }

    /// Whether a process that is there is in the scope, in a cell or not.
    pub(crate) fn covers(&self, place: &Membership) -> bool {
        match self {
            Self::Cgroup2 { tree, .. } => tree.covers(place),
            Self::Events(_) => true,
        }
    }

    /// Kills every process in a directory and all below it.
    pub(crate) fn kill(&self, dir: &Dir) -> Result<(), ReadError> {
        match self {
            Self::Cgroup2 { tree, .. } => tree.kill(dir),
            Self::Events(following) => following.kill(dir),
        }
    }

    /// Has a leaf that becomes empty told. What was before is not: look at it afterwards.
    pub(crate) fn watch(&self, leaf: &Dir, cell: CellId) -> Result<(), WatchError> {
        match self {
            Self::Cgroup2 { watch, .. } => watch.add(leaf, cell),
            // The table knows when it takes the last process out.
            Self::Events(_) => Ok(()),
        }
    }

    /// A leaf is not asked for any more.
    pub(crate) fn unwatch(&self, cell: CellId) {
        if let Self::Cgroup2 { watch, .. } = self {
            watch.remove(cell);
        }
    }

    /// Has it told when one of these files changes, which says that a limit was met, and none of those of the last call that
    /// is not among them.
    pub(crate) fn set_pressed(&self, files: &HashSet<(Dir, &'static str)>) {
        let Self::Cgroup2 { watch, beside, .. } = self else { return };
        match beside {
            Some(beside) => {
                watch.set_pressed(&files.iter().filter(|(_, file)| !beside.has(file)).cloned().collect())
            }
            None => watch.set_pressed(files),
        }
    }

    /// Waits until there is something to look at.
    pub(crate) fn next(&self) -> Result<Event, WatchError> {
        match self {
            Self::Cgroup2 { watch, .. } => watch.next(),
            Self::Events(following) => Ok(following.next()),
        }
    }

    /// Ends [`Self::next`] for good.
    pub(crate) fn stop(&self) {
        match self {
            Self::Cgroup2 { watch, .. } => watch.stopper().stop(),
            Self::Events(following) => following.stop(),
        }
    }

    /// Takes the realm's own directory away.
    pub(crate) fn close(&self) -> Result<(), CloseError> {
        match self {
            Self::Cgroup2 { tree, beside, .. } => {
                tree.close()?;
                beside.iter().for_each(|beside| beside.close());
                Ok(())
            }
            Self::Events(following) => {
                following.close();
                Ok(())
            }
        }
    }
}
