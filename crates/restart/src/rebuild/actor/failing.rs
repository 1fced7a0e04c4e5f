//! What went wrong, in words: whose step it was, and what it was about.

use pinfold_sys::clone::exit_now;
use rustix::io::Errno;

use super::Actor;
use crate::rebuild::{RebuildError, StepError};
use crate::schedule::{Action, BUILDER, Node, Step};

impl Actor<'_> {
    /// What went wrong, in the builder; anybody else ends.
    pub(super) fn give_up(&self) -> RebuildError {
        if self.node != BUILDER {
            exit_now(1)
        }
        self.stage.settle();
        let step = self.schedule.steps.get(self.stage.turn());
        let doing = step.map_or_else(|| "becoming what it was".to_owned(), |step| self.describe(step));
        if !self.stage.failed() && self.stage.interrupted() {
            return RebuildError::Interrupted;
        }
        if !self.stage.failed() {
            return RebuildError::Stuck { pid: step.map_or(0, |step| self.pid(step.by)), step: doing };
        }
        let (node, errno, reason) = self.stage.failure();
        // Who has no turn failed at becoming what it was.
        let step = step.filter(|step| step.by == node);
        let doing = step.map_or_else(|| "becoming what it was".to_owned(), |step| self.describe(step));
        if errno == Errno::DEADLK {
            return RebuildError::Threads;
        }
        let forked = match step.map(|step| &step.action) {
            Some(Action::Fork { child, .. }) => *child,
            _ => node,
        };
        StepError { pid: self.pid(forked), step: doing, reason, errno }.into()
    }

    pub(super) fn pid(&self, node: Node) -> u32 {
        match node.checked_sub(1).and_then(|index| self.image.processes.get(index)) {
            Some(process) => process.pids[0],
            None => 0,
        }
    }

    /// A step in words.
    fn describe(&self, step: &Step) -> String {
        let name = |node: Node| match self.pid(node) {
            0 if node == BUILDER => "the builder".to_owned(),
            0 => match self.schedule.helpers[node - 1 - self.image.processes.len()].pids.first() {
                Some(leader) if *leader != 0 => format!("the helper for the dead leader {leader}"),
                _ => "a helper".to_owned(),
            },
            pid => format!("process {pid}"),
        };
        let what = match &step.action {
            Action::Fork { child, pids, .. } => format!("forks {} as {pids:?}", name(*child)),
            Action::ChildrenIn(_) => "enters a pid namespace for its children".to_owned(),
            Action::Unshare => "makes a pid namespace for its children".to_owned(),
            Action::SetSid => "makes a session".to_owned(),
            Action::SetPgid { process, leader } => {
                format!("puts {} into the group of {}", name(*process), name(*leader))
            }
            Action::BecomeSubreaper => "becomes a subreaper".to_owned(),
            Action::Exit => "ends".to_owned(),
            Action::Await(child) | Action::Reap(child) => format!("waits for {}", name(*child)),
        };
        format!("{} {what}", name(step.by))
    }
}
