//! The CPUs that tasks have chosen for themselves (sched_setaffinity(2)), kept over a move.
//!
//! Before Linux 6.2 a task that gets another directory of cpuset may run on all CPUs of that one again, whatever it chose. On v1 that
//! is so in the hierarchy of cpuset alone; here an attach in any hierarchy may give it another v2 directory, which is one of cpuset, too.
//!
//! Source: cpuset_attach() before "sched: Always preserve the user requested cpumask" (Linux 6.2).

use std::collections::BTreeSet;

use pinfold_kernel::inspect::Release;
use pinfold_kernel::process;
use pinfold_model::{GroupId, HostPid};

use crate::Realm;
use crate::realm::surroundings;

/// The first kernel that keeps choices itself.
const KEEPS_CHOICES: Release = Release { major: 6, minor: 2 };

/// Which CPUs each task of a process may run on.
#[derive(Default)]
pub(crate) struct Choices(Vec<(HostPid, Vec<usize>)>);

/// Whether the kernel forgets choices of who gets another directory with these v2 files.
pub(crate) fn are_forgotten(v2_files: &BTreeSet<String>) -> bool {
    Release::of_kernel().is_some_and(|found| found < KEEPS_CHOICES) && v2_files.contains("cpuset.cpus")
}

impl Realm {
    /// What a process has chosen, where an attach to this group makes the kernel forget it, and v1 would not. Nothing otherwise.
    pub(crate) fn choices(&self, process: HostPid, group: GroupId) -> Choices {
        let is_of_cpuset = || {
            let bound = surroundings(&self.lock_forest(), group).map(|around| around.bound);
            let cpuset = pinfold_files::controller_named("cpuset");
            bound.zip(cpuset).is_none_or(|(bound, cpuset)| bound.contains(cpuset))
        };
        if !self.forgets_choices || is_of_cpuset() {
            return Choices::default();
        }
        let tasks = process::tasks(process).into_iter();
        Choices(tasks.filter_map(|task| Some((task, process::affinity(task).ok()?))).collect())
    }
}

impl Choices {
    /// Has the tasks run where they chose to, if they may run in more places by now.
    pub(crate) fn put_back(self) {
        for (task, chosen) in self.0 {
            let Ok(now) = process::affinity(task) else { continue };
            let is_more = now.len() > chosen.len() && chosen.iter().all(|cpu| now.contains(cpu));
            if is_more && let Err(error) = process::set_affinity(task, &chosen) {
                tracing::debug!("task {task} may run on more CPUs than it chose: {error}");
            }
        }
    }
}
