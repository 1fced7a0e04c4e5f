//! The builder's part once the relations stand: phase by phase, until all programs run.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{self, Pid, PidfdFlags};

use super::Actor;
use crate::image::Captured;
use crate::rebuild::hold::Held;
use crate::rebuild::stage::{BUILDER_NAP, Phase};
use crate::rebuild::{Moment, RebuildError, Root, StepError};
use crate::schedule::{BUILDER, Node};

/// How many of the builder's naps programs may take to start: 30 s.
const EXECUTE_PATIENCE: u32 = 300;

impl Actor<'_> {
    /// Lets everybody put on what it had, then execute: the builder's part.
    pub(in crate::rebuild) fn run(mut self) -> Result<Vec<Root>, RebuildError> {
        let living = std::mem::take(&mut self.living);
        let roots = self.roots()?;
        for phase in std::mem::take(&mut self.phases) {
            if !self.dresses_early {
                self.stage.start(phase, &living);
            }
            if !self.oversee(living.len()) {
                return Err(self.give_up());
            }
        }
        self.tell(Moment::Placed)?;
        let held = self.hold(&living)?;
        self.executed.1 = None;
        self.stage.start(Phase::Execute, &living);
        // Who has ended instead has said why, or never will.
        let stopped = held.iter().try_for_each(|held| held.stop(|| self.stage.interrupted()));
        if stopped.is_err() || !self.all_have_executed() {
            return Err(self.give_up());
        }
        self.tell(Moment::Running)?;
        Ok(roots)
    }

    /// Waits until all have done their part of a phase, and writes the maps that keepers ask for meanwhile; `false`: it failed.
    fn oversee(&self, all: usize) -> bool {
        let asked =
            || (1..=self.image.user_namespaces.len()).find(|&namespace| self.stage.wants_maps(namespace));
        loop {
            let done = || self.stage.failed() || self.stage.all_ready(all) || asked().is_some();
            if !self.stage.sleep(BUILDER, done) || self.stage.failed() {
                return false;
            }
            let Some(namespace) = asked() else { return true };
            let Some(keeper) = self.plan.keeper_of(namespace) else { return false };
            match self.descent().write_maps(namespace) {
                Ok(()) => self.stage.maps_are_written(namespace, keeper.index + 1),
                Err((errno, reason)) => {
                    self.stage.fail(keeper.index + 1, errno, &reason);
                    return false;
                }
            }
        }
    }

    fn tell(&self, moment: Moment) -> Result<(), RebuildError> {
        self.options.at.map_or(Ok(()), |at| at(moment)).map_err(RebuildError::Declined)?;
        if self.stage.interrupted() { Err(RebuildError::Interrupted) } else { Ok(()) }
    }

    /// Holds those that were stopped.
    fn hold(&self, living: &[Node]) -> Result<Vec<Held>, RebuildError> {
        let stopped =
            living.iter().filter(|&&node| self.living_of(node).is_some_and(|living| living.stopped));
        let seize = |&node: &Node| {
            let pid = Pid::from_raw(self.pid(node).cast_signed()).ok_or(Errno::SRCH);
            pid.and_then(Held::seize).map_err(|errno| StepError {
                pid: self.pid(node),
                step: "becoming what it was".to_owned(),
                reason: format!("cannot hold it, to be stopped as it was: {errno}"),
                errno,
            })
        };
        Ok(stopped.map(seize).collect::<Result<_, _>>()?)
    }

    /// Waits until the last process has executed its program: the pipe that all of them have closes by that.
    fn all_have_executed(&self) -> bool {
        for _ in 0..EXECUTE_PATIENCE {
            let mut ends = [PollFd::new(&self.executed.0, PollFlags::empty())];
            match poll(&mut ends, Some(&BUILDER_NAP)) {
                Ok(0) | Err(Errno::INTR) => {}
                answer => return answer.is_ok() && !self.stage.failed(),
            }
            if self.stage.failed() || self.stage.interrupted() {
                return false;
            }
        }
        false
    }

    /// The processes that are the builder's children now. None of them can be anybody else: only the builder reaps them.
    fn roots(&self) -> Result<Vec<Root>, RebuildError> {
        let is_root =
            |(_, process): &(usize, &Captured)| process.parent.is_none() && process.living.is_some();
        let roots = self.image.processes.iter().enumerate().filter(is_root);
        let root = |(index, process): (usize, &Captured)| {
            let pid = Pid::from_raw(process.pids[0].cast_signed()).ok_or(Errno::SRCH)?;
            Ok(Root { index, pid, pidfd: process::pidfd_open(pid, PidfdFlags::empty())? })
        };
        let failed = |errno| RebuildError::Prepare { what: "open the processes made", errno };
        roots.map(root).collect::<Result<_, Errno>>().map_err(failed)
    }
}
