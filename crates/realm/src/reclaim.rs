//! Having the kernel reclaim, which takes as long as it gets anything back: other changes go on meanwhile.
//!
//! It is asked in pieces (`memory.reclaim`): whoever removes a directory waits for a write that is under way in it, and with him
//! every change of the v2 tree, the kernel's lock being one. Then the throttle (`memory.high`) is written, with little left above it: it
//! holds off who would use more until the change is made. What it was is written back when other changes are held off, and only
//! then is looked at who is carried where by now.
//!
//! What leaves memory goes to swap, of which a lower limit of memory leaves more: so much may be used before it is reclaimed, and
//! no more again if the limit is refused.

use pinfold_files::{Assignment, Reclaimer};
use pinfold_kernel::{Step, Where};
use pinfold_model::{Carriers, Dir, GroupId};

use crate::carry::{Carrying, Divided};
use crate::guards::Attempt;
use crate::realm::Changes;
use crate::under_oom::writes_of;
use crate::{Realm, room};

/// What is reclaimed in one system call.
const PIECE: u64 = 4 << 20;

/// Where the kernel has reclaimed, and what is to be put back.
#[must_use]
#[derive(Default)]
pub(crate) struct Reclaimed {
    /// Directories, and the throttle, or the limit of swap, that was written there.
    throttled: Vec<(Dir, &'static str)>,
    /// Whether there was more than room for after the last look, of what was wanted.
    is_short: bool,
}

impl Reclaimed {
    /// Whether there was room: if there is none now, somebody has used it since.
    pub(crate) const fn has_room(&self) -> bool {
        !self.is_short
    }
}

impl Realm {
    /// Brings usage below what these values are about to limit it to, as far as that goes. Whether it is, and stays so, is looked at when
    /// they are put in force ([`Realm::with_room`]).
    pub(crate) fn reclaim_for(&self, assignments: &[Assignment]) -> Reclaimed {
        let mut done = Reclaimed::default();
        if !room::is_wanted(assignments) {
            return done;
        }
        let wanted = {
            // Who cannot change anything any more is told so later.
            let Ok(change) = self.begin_change() else { return done };
            let rooms = {
                let forest = self.lock_forest();
                room::wanted(
                    &Carrying { forest: &forest, shares: &change.shares, assigned: assignments },
                    &change.shares,
                )
            };
            let excess = |wanted: room::Wanted| {
                let room = wanted.room();
                (room, wanted.excess(|dir| self.used_in(dir, room.usage).unwrap_or(0)))
            };
            let wanted: Vec<_> =
                rooms.into_iter().map(excess).filter(|(_, excess)| !excess.is_empty()).collect();
            for (room, _) in &wanted {
                done.throttled.extend(self.leave_swap(&change, assignments, room.by.swap));
            }
            wanted
        };
        for (room, excess) in wanted {
            let by = room.by;
            for (dir, most) in excess {
                self.reclaim_in(&dir, by, room.usage, most);
                done.throttled.push((dir.clone(), by.throttle));
                // A little less: who is held off is so only when he has a little more.
                let of_memory = most.saturating_sub(self.used_in(&dir, room.beside).unwrap_or(0));
                self.throttle_or_log(&dir, by, of_memory - (of_memory / 16).min(PIECE));
                done.is_short |= self.used_in(&dir, room.usage).is_some_and(|used| used > most);
            }
        }
        done
    }

    /// Has the limits of swap be what they are about to be, and says where they were others.
    fn leave_swap(
        &self,
        change: &Changes,
        assignments: &[Assignment],
        file: &'static str,
    ) -> Vec<(Dir, &'static str)> {
        let mut groups: Vec<GroupId> = assignments.iter().map(|assigned| assigned.group).collect();
        groups.dedup();
        let divided = self.divided_with(change, &groups, assignments, |of| of == file);
        let shares = match self.divide_again(change, &groups, &divided, &mut Attempt::default()) {
            Ok(shares) => shares,
            Err(error) => {
                tracing::warn!("nothing can be swapped: {}", crate::error::chain(&error));
                return Vec::new();
            }
        };
        let steps: Vec<Step> = {
            let forest = self.lock_forest();
            let carrying = Carrying { forest: &forest, shares: &shares, assigned: assignments };
            let is_of = |step: &Step| matches!(step, Step::Write { file: of, .. } if *of == file);
            groups.iter().flat_map(|group| carrying.steps_of_limits(*group)).filter(is_of).collect()
        };
        let steps: Vec<Step> = steps.into_iter().filter(|step| self.is_other(step)).collect();
        let steps = self.lowered_first_if_known(steps, &divided);
        if let Err(error) = self.carry_out_each(&steps) {
            tracing::warn!("too little can be swapped: {}", crate::error::chain(&error));
        }
        steps.iter().filter_map(|step| Some((step.dir()?.clone(), file))).collect()
    }

    /// Where the parts of limits are that have such v2 files, with values that are about to be kept.
    fn divided_with(
        &self,
        change: &Changes,
        groups: &[GroupId],
        assigned: &[Assignment],
        is_wanted: impl Fn(&str) -> bool,
    ) -> Vec<Divided> {
        let forest = self.lock_forest();
        let carrying = Carrying { forest: &forest, shares: &change.shares, assigned };
        let mut divided = carrying.divided(groups.iter().copied());
        divided.retain(|one| is_wanted(one.limit.file));
        divided
    }

    /// Whether a value is to be there that is not.
    fn is_other(&self, step: &Step) -> bool {
        match step {
            Step::Write { dir, file, text } => {
                self.tracker.read(Where::Dir(dir), file).is_ok_and(|now| now.trim() != text)
            }
            _ => false,
        }
    }

    /// Reclaims as much as can be of what a group uses.
    pub(crate) fn reclaim_all(&self, group: GroupId, by: &'static Reclaimer) -> Reclaimed {
        let mut done = Reclaimed::default();
        let dirs = self.lock_forest().carriers(group).map_or(Vec::new(), Carriers::into_dirs);
        for dir in dirs {
            if self.facts.v2_files.contains(by.piece) {
                self.reclaim_in(&dir, by, &[by.usage], 0);
            } else {
                done.throttled.push((dir.clone(), by.throttle));
                self.throttle_or_log(&dir, by, 0);
            }
        }
        done
    }

    /// Has throttles, and limits of swap, be again what they are to be.
    pub(crate) fn take_throttles_back(&self, change: &Changes, group: GroupId, reclaimed: &Reclaimed) {
        if reclaimed.throttled.is_empty() {
            return; // as after nearly every write
        }
        let steps: Vec<Step> = {
            let forest = self.lock_forest();
            let carrying = Carrying { forest: &forest, shares: &change.shares, assigned: &[] };
            let throttle = |(dir, file): &(Dir, &'static str)| writes_of(&carrying, group, dir, file).pop();
            reclaimed.throttled.iter().filter_map(throttle).collect()
        };
        let steps: Vec<Step> = steps.into_iter().filter(|step| self.is_other(step)).collect();
        let was_written = |file: &str| reclaimed.throttled.iter().any(|(_, written)| *written == file);
        let divided = self.divided_with(change, &[group], &[], was_written);
        let steps = self.lowered_first_if_known(steps, &divided);
        if let Err(stuck) = self.carry_out_each(&steps) {
            tracing::error!("a throttle stays: {}", crate::error::chain(&stuck));
        }
    }

    /// In pieces, down to `most`, and no more in all than is above that now: somebody may use it as fast as it is taken.
    fn reclaim_in(&self, dir: &Dir, by: &'static Reclaimer, usage: &[&'static str], most: u64) {
        let above = || self.used_in(dir, usage).map_or(0, |used| used.saturating_sub(most));
        let mut left = above();
        while left > 0 && self.facts.v2_files.contains(by.piece) {
            let piece = above().min(left).min(PIECE);
            let step = Step::Write { dir: dir.clone(), file: by.piece, text: piece.to_string() };
            // EAGAIN: there is no more to be had.
            if piece == 0 || self.tracker.carry_out(&[step]).is_err() {
                return;
            }
            left -= piece;
        }
    }

    fn throttle_or_log(&self, dir: &Dir, by: &'static Reclaimer, most: u64) {
        let step = Step::Write { dir: dir.clone(), file: by.throttle, text: most.to_string() };
        if let Err(error) = self.carry_out_if_there(&step) {
            tracing::warn!("nothing is reclaimed: {error}");
        }
    }

    /// What a directory uses, by these files; `None` if it is gone.
    fn used_in(&self, dir: &Dir, files: &[&'static str]) -> Option<u64> {
        self.used_of(dir, files).ok()
    }
}
