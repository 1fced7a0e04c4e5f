//! CPU time of members, as /proc tells it.
//!
//! A process's own time is read while it can be. When it has ended, its time is in what its parent has waited for: of a
//! parent in the same leaf that is counted with the parent, so that children that came and went between two looks are in
//! it. Of any other parent it is not, and what was seen last of the process stays with the leaf.

use std::ops::{Add, AddAssign, Sub};

use pinfold_events::Started;
use pinfold_kernel::process::{CpuTime, State, Vitals};
use pinfold_model::{CellId, Dir, HostPid};

use super::ledger::Ledger;
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
    /// Counts from now on, or no more: then nobody looks whether parents have waited for their children.
    pub(super) fn count_time(&mut self, is_wanted: bool) {
        self.is_counting = is_wanted;
        if !is_wanted {
            self.ended.clear();
        }
    }

    /// What a directory and all below it have used, as it is told: never less than before, also by the next daemon.
    pub(super) fn used(&mut self, dir: &Dir, ledger: &mut Ledger) -> Usage {
        self.look_at(self.below(dir));
        let now = self.sum(dir);
        let Some(files) = self.dirs.get_mut(dir) else { return now };
        let told = files.told.most(now);
        if std::mem::replace(&mut files.told, told) != told {
            // If it cannot be written, the log says so.
            let _ = ledger.note_told(self, dir);
        }
        told
    }

    /// What they have used as of the last look.
    fn sum(&self, dir: &Dir) -> Usage {
        let below = |other: &Dir| up(other).any(|above| above == *dir);
        let of_dirs = self.dirs.iter().filter(|(other, _)| below(other)).map(|(_, files)| files.used);
        let gone = of_dirs.fold(Usage::default(), Usage::add);
        let there = self.below(dir).into_iter().filter_map(|process| self.lives.get(&process));
        let there = there.fold(Usage::default(), |sum, life| sum + (life.seen - life.since));
        // Waited for or not: until the parent has it, it is counted here.
        let ended = self.ended.iter().filter(|ended| {
            self.leaf_of(ended.parent).is_some_and(|leaf| up(leaf).any(|above| above == *dir))
        });
        gone + there + ended.fold(Usage::default(), |sum, ended| sum + ended.share)
    }

    /// What was told and cannot be found any more goes to the directory: it was used by processes whose end nobody saw.
    pub(super) fn make_up(&mut self) {
        if self.dirs.values().all(|files| files.told == Usage::default()) {
            return;
        }
        self.look_at_all();
        let mut dirs: Vec<Dir> = self.dirs.keys().cloned().collect();
        dirs.sort_by_key(|dir| std::cmp::Reverse(dir.depth()));
        for dir in dirs {
            let now = self.sum(&dir);
            self.dirs.entry(dir).and_modify(|files| files.used += files.told - now);
        }
        self.is_dirty = true;
    }

    /// Looks at every member and at every process that may have been waited for.
    pub(super) fn look_at_all(&mut self) {
        self.look_at(self.lives.keys().copied().collect());
    }

    fn look_at(&mut self, processes: Vec<HostPid>) {
        for process in processes {
            if let Some(life) = self.lives.get_mut(&process)
                && let Ok(vitals) = Vitals::of(process)
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

    /// What a process had used that has ended goes to the leaf that it was in.
    pub(super) fn settle_account(&mut self, process: HostPid) {
        if !self.is_counting {
            return;
        }
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

#[cfg(test)]
mod tests {
    use std::process::Command;

    use pinfold_events::{Event, Pid, Process, What};
    use pinfold_kernel::process;

    use super::super::table::{Files, Life};
    use super::*;

    fn dir(name: &str) -> Dir {
        Dir::parse(name.as_bytes()).unwrap()
    }

    fn start(process: HostPid) -> Started {
        Started::at_tick(Vitals::of(process).unwrap().started)
    }

    /// The test itself as a member, and what is told of a child that it bore and that has ended.
    fn childless(is_counting: bool) -> usize {
        let mut table = Table::default();
        table.count_time(is_counting);
        table.add_dir(dir("cell.1"), Files::default());
        let own = process::own_pid();
        table.seat(own, CellId::new(1).unwrap(), Life::new(start(own), None, Usage::default()));
        let mut child = Command::new("true").spawn().unwrap();
        let pid = HostPid::new(child.id()).unwrap();
        let of = |process: HostPid| Process { pid: Pid::new(process.get()), started: start(process) };
        let (process, comm) = (of(pid), Default::default());
        while Vitals::of(pid).unwrap().state != State::Dead {
            std::thread::yield_now();
        }
        for what in [
            What::Fork { process, parent: Some(of(own)), comm, uid: None, gid: None },
            What::Exit { process, comm, status: None },
        ] {
            table.take(&Event { time: pinfold_events::proc::now(), what });
        }
        assert_eq!(table.lives.len(), 1);
        child.wait().unwrap();
        table.ended.len()
    }

    #[test]
    fn whoever_has_ended_is_remembered_only_while_somebody_counts() {
        assert_eq!((childless(true), childless(false)), (1, 0));
    }

    #[test]
    fn what_was_told_is_told_on_after_a_start_though_whoever_used_it_has_gone() {
        let (told, used) = (Usage { user: 7, system: 3 }, Usage { user: 2, system: 1 });
        let files = Files { used, told, ..Files::default() };
        let above = Files { used: Usage::default(), told: told + used, ..Files::default() };
        let dirs = [(dir("spine.1"), above), (dir("spine.1/cell.2"), files)];
        let mut table = Table::recovered(dirs.into(), Default::default());
        table.take(&Event {
            time: pinfold_events::proc::now(),
            what: What::Synced { found: 0, gone: 0, changed: 0 },
        });
        assert_eq!(table.sum(&dir("spine.1/cell.2")), told);
        assert_eq!(table.sum(&dir("spine.1")), told + used);
    }
}
