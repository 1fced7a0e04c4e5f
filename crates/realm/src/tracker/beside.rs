//! What a v2 tree lacks and user space can do: the tracker `cgroup2` has a table of such files beside the kernel's tree.
//!
//! Who is where is for the tree to say. The table has the same directories; a step that makes or removes one, or moves a
//! process, is carried out in both, and one that writes a file where that file is. While nobody is held to anything
//! by the table it has no members and nothing is looked at. From then on its members are those whom the tree names, compared before
//! anything of the table is asked or changed, and again and again.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

use pinfold_events::Started;
use pinfold_files::{Controller, Needs, Unaided};
use pinfold_kernel::process::{State, Vitals};
use pinfold_kernel::{Membership, ReadError, Step, StepError, Tree, Where};
use pinfold_model::{CellId, Dir, HostPid};

use super::accounts::Usage;
use super::following::Following;
use super::ledger::Ledger;
use super::table::{Life, Table, up};
use super::texts;

/// The controllers that the tree does not offer and user space can do.
#[derive(Debug)]
pub(crate) struct Beside {
    controllers: BTreeSet<&'static str>,
    following: Following,
}

impl Beside {
    /// `None`: the tree lacks nothing that could be done without it.
    pub(super) fn open(tree: &Arc<Tree>, state: &Path) -> io::Result<Option<Self>> {
        let lacking = |controller: &&Controller| match (controller.needs, controller.unaided) {
            (Needs::Controller(name), Unaided::Served(_)) => {
                (!tree.available().contains(name)).then_some(name)
            }
            _ => None,
        };
        let controllers: BTreeSet<&'static str> = pinfold_files::ALL.iter().filter_map(lacking).collect();
        if controllers.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self { following: Following::beside(tree, state)?, controllers }))
    }

    /// Whether a v2 controller is done here.
    pub(super) fn does(&self, controller: &str) -> bool {
        self.controllers.contains(controller)
    }

    /// Whether a v2 file is here.
    pub(super) fn has(&self, file: &str) -> bool {
        file.split_once('.').is_some_and(|(controller, _)| self.does(controller))
    }

    /// The v2 files that are here.
    pub(super) fn files(&self) -> impl Iterator<Item = &'static str> {
        texts::FILES.into_iter().filter(|file| self.has(file))
    }

    pub(super) fn read(&self, at: Where<'_>, file: &'static str) -> Result<String, ReadError> {
        self.following.read(at, file)
    }

    /// Carries steps out, in the tree and here.
    pub(super) fn carry_out(&self, tree: &Tree, steps: &[Step]) -> Result<(), StepError> {
        let is_trees = |step: &Step| match step {
            Step::Write { file, .. } | Step::Entry { file, .. } => !self.has(file),
            Step::Program { .. } => true,
            Step::Make(_) | Step::Move { .. } | Step::Remove(_) => false,
        };
        match steps.iter().all(is_trees) {
            true => tree.carry_out(steps),
            false => self.following.carry_out_beside(tree, steps, |file| self.has(file)),
        }
    }

    pub(super) fn close(&self) {
        self.following.close();
    }
}

impl Table {
    /// Whether there is anything to hold anybody to.
    pub(super) fn is_holding(&self) -> bool {
        self.dirs.values().any(|files| files.most.is_some() || self.holds(files))
    }

    /// Carries steps out here and in the tree, all or nothing. `is_ours`: which files are here.
    pub(super) fn carry_out_beside(
        &mut self,
        tree: &Tree,
        steps: &[Step],
        is_ours: impl Fn(&str) -> bool,
        ledger: &mut Ledger,
    ) -> Result<(), StepError> {
        let is_written_here = |step: &Step| matches!(step, Step::Write { file, .. } if is_ours(file));
        let is_awake = self.is_holding() || steps.iter().any(is_written_here);
        for step in steps.iter().filter(|_| is_awake) {
            match step {
                Step::Write { dir, file, .. } if is_ours(file) => self.compare(dir, ledger),
                Step::Move { process, .. } => self.settle(*process),
                _ => {}
            }
        }
        let numbered = || steps.iter().enumerate();
        let is_here = |step: &Step| match step {
            Step::Make(_) => true,
            Step::Move { .. } => is_awake,
            step => is_written_here(step),
        };
        let done = self.take_steps(numbered().filter(|(_, step)| is_here(step)), ledger)?;
        let (numbers, theirs): (Vec<usize>, Vec<Step>) = numbered()
            .filter(|(_, step)| !is_written_here(step))
            .map(|(at, step)| (at, step.clone()))
            .unzip();
        if let Err(mut error) = tree.carry_out(&theirs) {
            error.step = numbers[error.step];
            error.not_undone.extend(self.take_all_back(done, ledger));
            return Err(error);
        }
        for step in steps {
            if let Step::Remove(dir) = step {
                self.forget_dir(dir);
            }
        }
        if is_awake && !self.is_holding() {
            self.forget_everybody();
        }
        Ok(())
    }

    /// Has the members of a directory and of all below it be those whom the tree names. Who started since everybody was looked at
    /// was born there; who is older was put there by somebody else.
    pub(super) fn compare(&mut self, top: &Dir, ledger: &mut Ledger) {
        let Some(tree) = self.tree.clone() else { return };
        let is_below = |leaf: &Dir| up(leaf).any(|above| above == *top);
        let leaves: Vec<(CellId, Dir)> = self
            .leaves
            .iter()
            .filter(|(_, leaf)| is_below(leaf))
            .map(|(cell, leaf)| (*cell, leaf.clone()))
            .collect();
        let (mut left, mut newcomers) = (Vec::new(), Vec::new());
        for (cell, leaf) in leaves {
            let there: HashSet<HostPid> = match tree.processes(&leaf) {
                Ok(there) => there.into_iter().collect(),
                Err(ReadError::Gone { .. }) => HashSet::new(),
                Err(error) => {
                    tracing::warn!("{error}");
                    continue;
                }
            };
            left.extend(self.roster.members(cell).filter(|process| !there.contains(process)));
            newcomers.extend(there.into_iter().filter_map(|process| {
                let is_new = self.roster.cell_of(process) != Some(cell);
                Some((process, Vitals::of(process).ok().filter(|_| is_new)?, cell))
            }));
        }
        for process in left {
            self.follow_out(&tree, process, ledger);
        }
        newcomers.sort_by_key(|(process, vitals, _)| (vitals.started, *process));
        for (process, vitals, cell) in newcomers {
            if self.roster.cell_of(process).is_none() && vitals.started >= self.compared {
                self.be_born(process, life_of(&vitals), cell);
            } else {
                self.put(process, Some(cell), ledger);
            }
        }
    }

    /// [`Self::compare`] of everybody.
    pub(super) fn compare_all(&mut self, ledger: &mut Ledger) {
        let began = ticks();
        self.compare(&Dir::REALM, ledger);
        self.compared = began;
    }

    /// A member is not where it was.
    fn follow_out(&mut self, tree: &Tree, process: HostPid, ledger: &mut Ledger) {
        let is_it = |vitals: &Vitals| {
            self.lives.get(&process).is_some_and(|life| life.started.may_be(vitals.started))
                && vitals.state != State::Dead
        };
        if !Vitals::of(process).is_ok_and(|vitals| is_it(&vitals)) {
            return self.strike(process);
        }
        match tree.membership(process) {
            Ok(Membership::Inside(cell, _)) if self.leaf(cell).is_some() => {
                self.put(process, Some(cell), ledger)
            }
            Ok(_) => self.put(process, None, ledger),
            Err(_) => self.strike(process),
        }
    }

    /// Another program has put a process somewhere.
    fn put(&mut self, process: HostPid, to: Option<CellId>, ledger: &mut Ledger) {
        match self.relocate(process, to, ledger) {
            Ok(()) => {}
            Err(pinfold_kernel::Cause::NoProcess(_)) => self.strike(process),
            Err(refused) => {
                tracing::warn!(
                    "process {process} was moved by another program and does not do what holds there: {refused}"
                );
            }
        }
    }

    /// Whoever is to be moved has what holds where it is, though nobody has looked since it came there.
    fn settle(&mut self, process: HostPid) {
        let Some(tree) = &self.tree else { return };
        if self.roster.cell_of(process).is_some() {
            return;
        }
        if let (Ok(Membership::Inside(cell, _)), Ok(vitals)) = (tree.membership(process), Vitals::of(process))
            && self.leaf(cell).is_some()
        {
            self.seat(process, cell, life_of(&vitals));
        }
    }

    /// Whether a process is where it is taken to be, before it is killed for that.
    pub(super) fn is_there(&self, process: HostPid, cell: CellId) -> bool {
        let Some(tree) = &self.tree else { return true };
        matches!(tree.membership(process), Ok(Membership::Inside(there, _)) if there == cell)
    }

    /// The tree has removed a directory.
    fn forget_dir(&mut self, dir: &Dir) {
        let members: Vec<HostPid> =
            dir.leaf().into_iter().flat_map(|cell| self.roster.members(cell)).collect();
        members.into_iter().for_each(|process| self.strike(process));
        self.remove_dir(dir);
    }

    /// Nobody is held to anything any more.
    fn forget_everybody(&mut self) {
        let members: Vec<HostPid> = self.lives.keys().copied().collect();
        members.into_iter().for_each(|process| self.strike(process));
    }
}

fn life_of(vitals: &Vitals) -> Life {
    Life::new(Started::at_tick(vitals.started), vitals.parent, Usage::default())
}

/// Now, as start times are told.
pub(super) fn ticks() -> u64 {
    Started(pinfold_events::proc::now().0).ticks()
}
