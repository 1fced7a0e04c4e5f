//! CPU time of members, as /proc tells it.
//!
//! A process's own time is read while it can be. When it has ended, its time is in what its parent has waited for: of a
//! parent in the same leaf that is counted with the parent, so that children that came and went between two looks are in
//! it. Of any other parent it is not, and what was seen last of the process stays with the leaf.

use std::ops::{Add, AddAssign, Sub};

use pinfold_events::Started;
use pinfold_kernel::process::{CpuTime, State, Vitals};
use pinfold_model::{CellId, Dir, HostPid};

use super::table::{Table, up};

/// CPU time in clock ticks: of a process, with that of the children it has waited for.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Usage {
    pub(super) user: u64,
    pub(super) system: u64,
}

/// A process that has ended, whose parent is a member and may not yet have waited for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Ended {
    process: HostPid,
    started: Started,
    parent: HostPid,
    /// What it had used in all: the parent will have that.
    total: Usage,
    /// What the parent's leaf is to have of it.
    share: Usage,
    /// What the parent had waited for before.
    before: Usage,
}

impl Usage {
    pub(super) fn of(vitals: &Vitals) -> Self {
        Self::from(vitals.own) + Self::from(vitals.waited_for)
    }

    const fn is_at_least(self, other: Self) -> bool {
        self.user >= other.user && self.system >= other.system
    }

    fn most(self, other: Self) -> Self {
        Self { user: self.user.max(other.user), system: self.system.max(other.system) }
    }
}

impl From<CpuTime> for Usage {
    fn from(time: CpuTime) -> Self {
        Self { user: time.user, system: time.system }
    }
}

impl Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { user: self.user.saturating_add(other.user), system: self.system.saturating_add(other.system) }
    }
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Usage {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self { user: self.user.saturating_sub(other.user), system: self.system.saturating_sub(other.system) }
    }
}

impl Table {
    /// What a directory and all below it have used, as it is told: never less than before.
    pub(super) fn used(&mut self, dir: &Dir) -> Usage {
        self.look_at_all();
        let below = |other: &Dir| up(other).any(|above| above == *dir);
        let of_dirs = self.dirs.iter().filter(|(other, _)| below(other)).map(|(_, files)| files.used);
        let gone = of_dirs.fold(Usage::default(), Usage::add);
        let there = self.below(dir).into_iter().filter_map(|process| self.lives.get(&process));
        let there = there.fold(Usage::default(), |sum, life| sum + (life.seen - life.since));
        // Waited for or not: until the parent has it, it is counted here.
        let ended = self.ended.iter().filter(|ended| {
            self.leaf_of(ended.parent).is_some_and(|leaf| up(leaf).any(|above| above == *dir))
        });
        let ended = ended.fold(Usage::default(), |sum, ended| sum + ended.share);
        let now = gone + there + ended;
        match self.dirs.get_mut(dir) {
            Some(files) => {
                files.told = files.told.most(now);
                files.told
            }
            None => now,
        }
    }

    /// Looks at every member and at every process that may have been waited for.
    pub(super) fn look_at_all(&mut self) {
        for (process, life) in &mut self.lives {
            if let Ok(vitals) = Vitals::of(*process)
                && life.started.may_be(vitals.started)
            {
                life.seen = life.seen.most(Usage::of(&vitals));
            }
        }
        let ended = std::mem::take(&mut self.ended);
        let waiting = ended.into_iter().filter(|ended| !self.take_over(ended));
        self.ended = waiting.collect();
    }

    /// What a process has used since it came goes to the leaf that it leaves.
    pub(super) fn bank(&mut self, process: HostPid, total: Usage) {
        let Some(life) = self.lives.get(&process) else { return };
        let used = life.seen.most(total) - life.since;
        self.credit(self.roster.cell_of(process), used);
    }

    fn credit(&mut self, cell: Option<CellId>, used: Usage) {
        let leaf = cell.and_then(|cell| self.leaf(cell)).cloned();
        if let Some(files) = leaf.and_then(|leaf| self.dirs.get_mut(&leaf)) {
            files.used += used;
            self.is_dirty = true;
        }
    }

    /// The same of a process that has ended.
    pub(super) fn settle_account(&mut self, process: HostPid) {
        let cell = self.roster.cell_of(process);
        let ended = std::mem::take(&mut self.ended);
        let (orphans, others): (Vec<_>, Vec<_>) =
            ended.into_iter().partition(|ended| ended.parent == process);
        self.ended = others;
        for orphan in orphans {
            if !self.take_over(&orphan) {
                // It did not wait for this child any more.
                self.credit(cell, orphan.share);
            }
        }
        let Some(life) = self.lives.get(&process).cloned() else { return };
        let vitals = Vitals::of(process).ok().filter(|vitals| life.started.may_be(vitals.started));
        let total = vitals.map_or(life.seen, |vitals| life.seen.most(Usage::of(&vitals)));
        let parent = vitals.map_or(life.parent, |vitals| vitals.parent);
        let used = total - life.since;
        let Some((parent, above)) = parent.and_then(|parent| Some((parent, self.lives.get(&parent)?))) else {
            return self.credit(cell, used);
        };
        let waited = |vitals: Vitals| Usage::from(vitals.waited_for);
        let before = match vitals {
            // It is waited for already: what is in that now was not at the last look, unless nothing was.
            None => Usage::default(),
            Some(_) => Vitals::of(parent).map_or(above.seen, waited),
        };
        let is_together = self.roster.cell_of(parent) == cell;
        if !is_together {
            self.credit(cell, used);
        }
        let share = if is_together { used } else { Usage::default() };
        let ended = Ended { process, started: life.started, parent, total, share, before };
        if !self.take_over(&ended) {
            self.ended.push(ended);
        }
    }

    /// Whether nothing is to be waited for any more: the parent has the time of its child, or never will.
    fn take_over(&mut self, ended: &Ended) -> bool {
        let is_there = |vitals: &Vitals| ended.started.may_be(vitals.started) && vitals.state == State::Dead;
        if Vitals::of(ended.process).as_ref().is_ok_and(is_there) {
            return false;
        }
        let cell = self.roster.cell_of(ended.parent);
        let Some(life) = self.lives.get_mut(&ended.parent) else {
            // It ended first: what it had waited for was settled with it.
            return true;
        };
        let Ok(vitals) = Vitals::of(ended.parent) else { return true };
        let waited = Usage::from(vitals.waited_for);
        if waited.is_at_least(ended.before + ended.total) {
            life.seen = life.seen.most(Usage::of(&vitals));
            // Of what it has now, this is not its leaf's.
            life.since += ended.total - ended.share;
        } else {
            // It does not wait for its children.
            self.credit(cell, ended.share);
        }
        true
    }
}
