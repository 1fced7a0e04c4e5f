//! Groups whose processes wait for memory instead of being killed (`oom_kill_disable`): frozen when usage is above the limit
//! and cannot be reclaimed, thawed when it is not.
//!
//! The kernel slows them down above the limit (`memory.high`) and tells of it (`memory.events.local`), so nothing is looked
//! at while there is room. While somebody waits, usage is looked at every 100 ms, and once a second what can be reclaimed by
//! then is: pages that were being read or were locked, which their frozen owner cannot drop. That they wait is kept with the
//! group: the next daemon thaws them, if this one is killed.

use pinfold_files::{Assignment, OOM_KILL_DISABLE, Setting, UNDER_OOM, waits_at};
use pinfold_kernel::Step;
use pinfold_model::{Carriers, Dir, Forest, GroupId, Value};

use crate::carry::{Carrying, Extent};
use crate::realm::Changes;
use crate::shares::Shares;
use crate::{EffectError, ReadError, Realm};

const FREEZE: &str = "cgroup.freeze";
const THROTTLE: &str = "memory.high";

/// What a look at a group came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Waiting {
    /// There is room.
    No,
    /// There is none since this look: whoever listens is to be told.
    FromNow,
    /// There was none before, and still is not.
    Still,
}

impl Realm {
    /// The groups whose processes are to wait if their limit is met, and those that wait already.
    pub(crate) fn thrifty(&self) -> Vec<GroupId> {
        let forest = self.lock_forest();
        let memory = pinfold_files::controller_named("memory").and_then(|id| forest.bound_to(id));
        let root = memory.and_then(|id| forest.hierarchy(id)).map(|hierarchy| hierarchy.root());
        let groups = root.into_iter().flat_map(|root| forest.subtree(root));
        let may_wait =
            |group: &GroupId| is_on(&forest, *group, &OOM_KILL_DISABLE) || is_on(&forest, *group, &UNDER_OOM);
        groups.filter(may_wait).collect()
    }

    /// Freezes or thaws a group as its usage wants it. `again`: what those who wait use is to be reclaimed once more.
    pub(crate) fn look_for_room(&self, group: GroupId, again: bool) -> Result<Waiting, ReadError> {
        let (limit, waits) = {
            let forest = self.lock_forest();
            (limit_of(&forest, group), is_on(&forest, group, &UNDER_OOM))
        };
        let has_room = |usage: u64| limit.is_none_or(|limit| usage <= limit);
        let usage = || self.usage(group, pinfold_files::named("memory.usage_in_bytes").expect("a row"));
        let mut room = has_room(usage()?);
        if !room && (again || !waits) {
            // What is above the limit may be no more than what its owner, slowed down, has not yet dropped.
            self.reclaim_above_the_limit(group)?;
            room = has_room(usage()?);
        }
        match (waits, room) {
            (false, true) => Ok(Waiting::No),
            (true, true) => self.mark(group, false).map(|()| Waiting::No).map_err(ReadError::from),
            (true, false) => self.hold(group).map(|()| Waiting::Still).map_err(ReadError::from),
            (false, false) => self.mark(group, true).map(|()| Waiting::FromNow).map_err(ReadError::from),
        }
    }

    /// Writing the throttle reclaims: memory_high_write().
    fn reclaim_above_the_limit(&self, group: GroupId) -> Result<(), EffectError> {
        // Other changes need not wait while the kernel reclaims.
        let written = self.throttles(&self.lock_change().shares.clone(), group, &[]);
        let answer = self.carry_out_each(&written);
        // What was changed meanwhile was perhaps written before the old value: then it is written again.
        let change = self.begin_change()?;
        let dirs: Vec<Dir> = written.iter().filter_map(Step::dir).cloned().collect();
        let mut wanted = self.throttles(&change.shares, group, &dirs);
        wanted.retain(|step| !written.contains(step));
        answer.and(self.carry_out_each(&wanted))
    }

    /// The writes of the throttle to each carrier of a group, and to these directories.
    fn throttles(&self, shares: &Shares, group: GroupId, others: &[Dir]) -> Vec<Step> {
        let forest = self.lock_forest();
        let mut dirs = dirs_of(&forest, group);
        dirs.extend_from_slice(others);
        let carrying = Carrying { forest: &forest, shares, assigned: &[] };
        dirs.iter().filter_map(|dir| writes_of(&carrying, group, dir, THROTTLE).pop()).collect()
    }

    /// Freezes or thaws, and keeps which.
    fn mark(&self, group: GroupId, waits: bool) -> Result<(), EffectError> {
        let mut change = self.begin_change()?;
        if self.lock_forest().group(group).is_none() {
            return Ok(()); // it was removed since: nobody is in it
        }
        let mark = Assignment { group, setting: &UNDER_OOM, value: Value::Flag(waits) };
        if waits {
            // Kept first: whoever is frozen is known to be.
            self.assign(&mut change, &[mark])?;
            return self.freeze(&change, group, waits);
        }
        self.freeze(&change, group, waits)?;
        self.assign(&mut change, &[mark])
    }

    /// Freezes again whoever came since, or was thawed by who thaws the whole group.
    fn hold(&self, group: GroupId) -> Result<(), EffectError> {
        let dirs = dirs_of(&self.lock_forest(), group);
        let is_loose = |dir: &Dir| self.tracker.read(dir, FREEZE).is_ok_and(|text| text.trim() != "1");
        if !dirs.iter().any(is_loose) {
            return Ok(());
        }
        let change = self.begin_change()?;
        self.freeze(&change, group, true)
    }

    fn freeze(&self, change: &Changes, group: GroupId, waits: bool) -> Result<(), EffectError> {
        let steps: Vec<Step> = {
            let forest = self.lock_forest();
            let carrying = Carrying { forest: &forest, shares: &change.shares, assigned: &[] };
            let write = |dir: Dir, text: &str| Step::Write { dir, file: FREEZE, text: text.to_owned() };
            let step = |dir: Dir| match waits {
                true => write(dir, "1"),
                // Whoever the freezer controller has frozen stays so.
                false => writes_of(&carrying, group, &dir, FREEZE).pop().unwrap_or_else(|| write(dir, "0")),
            };
            dirs_of(&forest, group).into_iter().map(step).collect()
        };
        self.carry_out_each(&steps)
    }
}

fn is_on(forest: &Forest, group: GroupId, setting: &'static Setting) -> bool {
    *setting.in_group(forest, group) == Value::Flag(true)
}

/// The limit at which processes of a group wait.
fn limit_of(forest: &Forest, group: GroupId) -> Option<u64> {
    waits_at(forest.group(group)?.settings())
}

fn dirs_of(forest: &Forest, group: GroupId) -> Vec<Dir> {
    forest.carriers(group).map_or(Vec::new(), Carriers::into_dirs)
}

/// What is to be in a file of a directory that carries the group, or did. A freeze may be a matter of another hierarchy.
pub(crate) fn writes_of(carrying: &Carrying<'_>, group: GroupId, dir: &Dir, wanted: &str) -> Vec<Step> {
    let hierarchy = carrying.forest.group(group).map(|found| found.hierarchy()).filter(|_| wanted != FREEZE);
    let steps = carrying.steps_for_dir(dir, hierarchy, Extent::All);
    steps.into_iter().filter(|step| matches!(step, Step::Write { file, .. } if *file == wanted)).collect()
}
