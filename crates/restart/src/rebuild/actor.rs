//! One process of a rebuild: it does its steps in turn, then becomes what it was.

mod failing;
mod leading;

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};

use pinfold_sys::clone::exit_now;
use rustix::io::Errno;
use rustix::process::{self, Pid, WaitId, WaitIdOptions};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::descend::Descent;
use super::error::Failure;
use super::stage::{Phase, Stage};
use super::users::Plan;
use super::{Options, RebuildError, dress, terminal};
use crate::image::{Captured, Image, Living};
use crate::look::Look;
use crate::pids::{Cloned, NEW_PID_NAMESPACE, Request, clone_with_pids};
use crate::schedule::{Action, BUILDER, Node, Schedule, Step};
use crate::tree::Tree;

fn plain(errno: Errno) -> Failure {
    (errno, errno.to_string())
}

/// The process that this code runs in.
pub(super) struct Actor<'a> {
    node: Node,
    image: &'a Image,
    schedule: &'a Schedule,
    plan: &'a Plan,
    options: &'a Options<'a>,
    stage: &'a Stage<'a>,
    reserved: &'a [BTreeSet<u32>],
    tree: Tree,
    living: Vec<Node>,
    phases: Vec<Phase>,
    /// For each node, how many steps of the schedule there are up to its last one.
    until: Vec<usize>,
    /// Whether a process dresses when it has done its last step, while others are still being made. Not where namespaces of
    /// dressed processes would have to be entered, which takes more rights then, nor where a leader needs a group that
    /// is not there yet in its foreground.
    dresses_early: bool,
    /// The builder's process group, if it has a number in its namespace.
    group: Option<Pid>,
    /// The builder's /proc: what `/proc` is may change in a new mount namespace.
    proc: OwnedFd,
    /// A pipe whose writing end closes in a process that executes its program, and nowhere else.
    executed: (OwnedFd, Option<OwnedFd>),
}

impl<'a> Actor<'a> {
    /// The builder.
    pub(super) fn new(
        image: &'a Image,
        schedule: &'a Schedule,
        plan: &'a Plan,
        options: &'a Options<'a>,
        stage: &'a Stage<'a>,
        reserved: &'a [BTreeSet<u32>],
    ) -> Result<Self, RebuildError> {
        use rustix::fs::{Mode, OFlags};
        let failed = |what| move |errno| RebuildError::Prepare { what, errno };
        let executed =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(failed("make a pipe"))?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = rustix::fs::open("/proc", flags, Mode::empty()).map_err(failed("open /proc"))?;
        stage.set_own_number(BUILDER, process::getpid().as_raw_pid().unsigned_abs());
        let group = Look::at(std::process::id()).and_then(|look| Pid::from_raw(look.group.cast_signed()));
        let executed = (executed.0, Some(executed.1));
        let phases = dress::phases(image, plan);
        Ok(Self {
            node: BUILDER,
            image,
            schedule,
            plan,
            options,
            stage,
            reserved,
            tree: image.tree(),
            living: living(image),
            until: until(schedule, image),
            dresses_early: phases == [Phase::Dress]
                && image.pid_namespaces.len() == 1
                && !image.processes.iter().any(has_terminal),
            phases,
            group,
            proc,
            executed,
        })
    }

    /// Which process this code runs in.
    pub(super) const fn node(&self) -> Node {
        self.node
    }

    /// Carries out all steps. Returns in the builder only; in a process that it made, never.
    pub(super) fn build(&mut self) -> Result<(), RebuildError> {
        loop {
            let (node, stage, steps) = (self.node, self.stage, &self.schedule.steps);
            let is_done = || self.dresses_early && node != BUILDER && stage.turn() >= self.until[node];
            let is_mine = || steps.get(stage.turn()).is_none_or(|step| step.by == node);
            let in_time = stage.sleep(node, || stage.failed() || is_done() || is_mine());
            if stage.failed() || !in_time {
                return Err(self.give_up());
            }
            if is_done() {
                break;
            }
            let Some(step) = steps.get(stage.turn()) else { break };
            self.do_step(step);
        }
        if self.node != BUILDER {
            self.become_it()
        }
        Ok(())
    }

    fn do_step(&mut self, step: &Step) {
        let turn = self.stage.turn();
        let done = match &step.action {
            Action::Fork { child, pids, new_namespace } => self.fork(*child, pids, new_namespace.is_some()),
            Action::ChildrenIn(namespace) => self.children_in(*namespace).map_err(plain),
            Action::Unshare => pinfold_sys::ns::unshare(NEW_PID_NAMESPACE).map_err(plain),
            Action::SetSid => self.set_sid(),
            Action::SetPgid { process, leader } => self.set_pgid(*process, *leader),
            Action::BecomeSubreaper => process::set_child_subreaper(Some(process::getpid())).map_err(plain),
            Action::Exit => {
                self.pass_on(turn);
                exit_now(0)
            }
            Action::Await(child) => self.wait(*child, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT),
            Action::Reap(child) => self.wait(*child, WaitIdOptions::EXITED),
        };
        // In a new child it is still the parent's turn.
        if self.node != step.by {
            return;
        }
        match done {
            Ok(()) => self.pass_on(turn),
            Err((errno, reason)) => self.stage.fail(self.node, errno, &reason),
        }
    }

    fn pass_on(&self, turn: usize) {
        let next = self.schedule.steps.get(turn + 1).map_or(BUILDER, |step| step.by);
        if next == self.node && turn + 1 < self.schedule.steps.len() {
            // No other process waits for this turn.
            self.stage.pass_on(self.node);
            return;
        }
        self.stage.pass_on(next);
    }

    fn fork(&mut self, child: Node, pids: &[u32], is_first: bool) -> Result<(), Failure> {
        let too_big = |_| (Errno::INVAL, "no such pid".to_owned());
        let pids: Vec<i32> =
            pids.iter().map(|&pid| i32::try_from(pid)).collect::<Result<_, _>>().map_err(too_big)?;
        let levels = pids.len();
        let reserved = |from_youngest: usize, pid: u32| {
            let level = levels.checked_sub(from_youngest + 1).and_then(|level| self.reserved.get(level));
            level.is_some_and(|level| level.contains(&pid))
        };
        let is_helper = child > self.image.processes.len();
        let group = self.options.groups.get(child - 1).copied().flatten();
        let request = Request {
            pids: &pids,
            namespaces: if is_first { NEW_PID_NAMESPACE } else { 0 },
            cgroup: if is_helper { self.options.helpers_in } else { group.or(self.options.helpers_in) },
            reserved: if pids.contains(&0) { Some(&reserved) } else { None },
        };
        match clone_with_pids(&request).map_err(|error| (error.errno(), error.to_string()))? {
            Cloned::Child => {
                self.node = child;
                self.stage.set_own_number(child, process::getpid().as_raw_pid().unsigned_abs());
            }
            Cloned::Parent { pid, .. } => self.stage.set_forkers_number(child, pid.get()),
        }
        Ok(())
    }

    /// The pid namespace is that of its first process, who lives at this time.
    fn children_in(&self, namespace: usize) -> Result<(), Errno> {
        use rustix::fs::{Mode, OFlags, openat};
        let own = if self.node == BUILDER { 0 } else { self.namespace(self.node) };
        let link = if namespace == own {
            // Relative to the first /proc, which knows this process also if it is in a nested namespace.
            "self/ns/pid".to_owned()
        } else {
            let first =
                |process: &&Captured| process.pid_namespace == namespace && process.pids.last() == Some(&1);
            let first = self.image.processes.iter().find(first).ok_or(Errno::SRCH)?;
            format!("{}/ns/pid", first.pids[0])
        };
        let fd = openat(&self.proc, link, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        move_into_link_name_space(fd.as_fd(), Some(LinkNameSpaceType::ProcessID))
    }

    fn namespace(&self, node: Node) -> usize {
        let processes = self.image.processes.len();
        match node {
            BUILDER => 0,
            node if node <= processes => self.image.processes[node - 1].pid_namespace,
            node => self.schedule.helpers[node - 1 - processes].namespace,
        }
    }

    fn set_sid(&self) -> Result<(), Failure> {
        process::setsid().map_err(plain)?;
        match self.living_of(self.node).and_then(|living| living.terminal) {
            Some(device) if !self.options.without_terminals => terminal::take(device),
            _ => Ok(()),
        }
    }

    /// What a living process of the image had; `None` for helpers and zombies.
    fn living_of(&self, node: Node) -> Option<&'a Living> {
        self.image.processes.get(node.checked_sub(1)?)?.living.as_ref()
    }

    fn set_pgid(&self, who: Node, leader: Node) -> Result<(), Failure> {
        let number = |node: Node| self.number_here(node).and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let missing = || (Errno::SRCH, "no number for its group here".to_owned());
        let group = match leader {
            leader if leader == who => None,
            BUILDER => Some(self.group.ok_or_else(missing)?),
            leader => Some(number(leader).ok_or_else(missing)?),
        };
        let who = if who == self.node { None } else { Some(number(who).ok_or_else(missing)?) };
        process::setpgid(who, group).map_err(plain)
    }

    /// The number of another node in this process's namespace.
    fn number_here(&self, node: Node) -> Option<u32> {
        let (own, namespace) = (self.namespace(self.node), self.namespace(node));
        let level = self.tree.levels(own) - 1;
        let helper = || &self.schedule.helpers[node - 1 - self.image.processes.len()];
        let number = if namespace == own {
            self.stage.own_number(node)
        } else if node <= self.image.processes.len() {
            self.image.processes[node - 1].pids.get(level).copied()?
        } else {
            // A dead leader's numbers are known as far as anybody saw them; other helpers are known to their forkers.
            helper()
                .pids
                .get(level)
                .copied()
                .filter(|&pid| pid != 0)
                .unwrap_or(self.stage.forkers_number(node))
        };
        (number != 0).then_some(number)
    }

    fn wait(&self, child: Node, options: WaitIdOptions) -> Result<(), Failure> {
        let pid = self.number_here(child).and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let pid = pid.ok_or_else(|| (Errno::CHILD, "no number for the child here".to_owned()))?;
        loop {
            match process::waitid(WaitId::Pid(pid), options) {
                Err(Errno::INTR) => {}
                Err(errno) => return Err(plain(errno)),
                Ok(_) => return Ok(()),
            }
        }
    }

    fn descent(&self) -> Descent<'_> {
        let Self { image, plan, options, stage, .. } = *self;
        Descent { image, plan, options, stage, proc: self.proc.as_fd() }
    }

    /// The part of every other process: becomes what it was, and executes.
    fn become_it(&mut self) -> ! {
        let all = self.living.len();
        let Some(living) = self.image.processes[self.node - 1].living.as_ref() else { exit_now(0) };
        let duty = self.plan.duty_of(self.node - 1);
        // What a keeper has made for others: until they have it.
        let mut held = Vec::new();
        for phase in self.phases.iter().copied().chain([Phase::Execute]) {
            let reached = || self.stage.failed() || self.stage.phase_reached(phase);
            let waits = phase != Phase::Dress || !self.dresses_early;
            if (waits && !self.stage.sleep(self.node, reached)) || self.stage.failed() {
                exit_now(1)
            }
            let done = match phase {
                Phase::Unshare => dress::unshare(self.image, self.node - 1),
                Phase::Enter => dress::enter(self.image, self.node - 1, self.proc.as_fd()),
                Phase::Keep(round) => match duty {
                    Some(keeper) if keeper.round == round => {
                        self.descent().keep(keeper, self.node, &mut held)
                    }
                    _ => Ok(()),
                },
                Phase::Follow if duty.is_some() => Ok(()),
                Phase::Follow => self.descent().follow(living),
                Phase::Dress => self.dress(living),
                Phase::Execute => Err(dress::execute(living, self.options.command.as_deref())),
            };
            if let Err((errno, reason)) = done {
                self.stage.fail(self.node, errno, &reason);
                exit_now(1)
            }
            self.stage.ready(all);
        }
        exit_now(1)
    }

    fn dress(&self, living: &Living) -> Result<(), Failure> {
        if let (Some(device), Some(group)) = (living.terminal, self.foreground())
            && !self.options.without_terminals
        {
            terminal::to_foreground(device, group)?;
        }
        dress::put_on(living, self.options, self.proc.as_fd())
    }

    /// The foreground group of the session that this process leads, if it is another than its own.
    fn foreground(&self) -> Option<Pid> {
        let own = &self.image.processes[self.node - 1];
        if own.session.first() != own.pids.first() {
            return None;
        }
        let is_there = |process: &&Captured| {
            process.session.first() == own.session.first()
                && process.group.first() != own.group.first()
                && process.living.as_ref().is_some_and(|living| living.foreground)
        };
        let group = &self.image.processes.iter().find(is_there)?.group;
        Pid::from_raw(group.get(own.pids.len() - 1)?.cast_signed())
    }
}

fn has_terminal(process: &Captured) -> bool {
    process.living.as_ref().is_some_and(|living| living.terminal.is_some())
}

/// For each node, how many steps there are up to its last one.
fn until(schedule: &Schedule, image: &Image) -> Vec<usize> {
    let mut until = vec![0; 1 + image.processes.len() + schedule.helpers.len()];
    for (place, step) in schedule.steps.iter().enumerate() {
        until[step.by] = place + 1;
    }
    until
}

/// The processes that execute something in the end.
fn living(image: &Image) -> Vec<Node> {
    let processes = image.processes.iter().enumerate();
    processes.filter(|(_, process)| process.living.is_some()).map(|(index, _)| index + 1).collect()
}
