//! Writing control files: attaching, keeping a value and putting it in force, starting a counter again.

use pinfold_files::{Assignment, Change, Conflict, Counter, FileId, Request, Sight, Source, Texts, Writer};
use pinfold_kernel::process::{self, Namespace};
use pinfold_kernel::{self as kernel, Step};
use pinfold_model::{Act, Forest, GroupGone, GroupId, HostPid, Key, Settings, Uid, Value};

use crate::attach::{Asked, Authority};
use crate::carry::{Carrying, Divided};
use crate::read::{At, Settled, source_dirs};
use crate::realm::{Changes, state_path};
use crate::reclaim::Reclaimed;
use crate::record::{GroupText, Kept};
use crate::requests::KEPT;
use crate::room;
use crate::{Caller, EffectError, Node, Opener, PermitError, Realm, WriteError};

/// How often usage is brought below a limit, if it grows again before that is in force.
const TRIES: usize = 8;

impl Realm {
    /// What counts of somebody who opens a control file, to write to it or not, when it is written to.
    pub fn opener(&self, caller: &Caller, file: FileId, writes: bool) -> Opener {
        let is_asked = writes && pinfold_files::file(file).1.writer.is_admin();
        Opener { uid: caller.uid, is_admin: is_asked && caller.task.is_some_and(is_admin) }
    }

    /// One write(2) to a control file, which somebody opened.
    pub fn write(
        &self,
        caller: &Caller,
        opener: Opener,
        group: GroupId,
        file: FileId,
        text: &[u8],
    ) -> Result<(), WriteError> {
        self.write_by(Authority::File(caller, opener), group, file, text)
    }

    /// [`Self::write`] by the right that somebody has. Who asks over a socket has been let, and is asked about again when no other change
    /// is under way.
    pub(crate) fn write_by(
        &self,
        authority: Authority<'_>,
        group: GroupId,
        file: FileId,
        text: &[u8],
    ) -> Result<(), WriteError> {
        let caller = authority.caller();
        pinfold_files::check_length(file, text.len())?;
        let may = match pinfold_files::file(file).1.writer {
            Writer::Permitted | Writer::Anyone => true,
            Writer::OpenedByAdmin => authority.is_by_admin(),
            Writer::Admin => authority.is_by_admin() && caller.task.is_some_and(is_admin),
        };
        if !may {
            return Err(WriteError::NotPermitted(pinfold_files::full_name(file, false).into_owned()));
        }
        // What is meant by a number is found out before other changes have to wait for it: that may take a look at every
        // process. What a value means depends on the group's surroundings and is found out when they stand still.
        let asked = match self.parse(group, file, text) {
            Ok(Request::Attach(_, target)) => {
                let (process, named) = self.target_process(caller, target)?;
                let mut change = self.begin_change()?;
                let asked = Asked { authority, group, process, named, held: None };
                return Ok(self.attach_locked(&mut change, asked)?);
            }
            Ok(Request::Register(asked)) => return self.register(authority, group, file, &asked),
            // Why it is refused may be processes that have ended since: it is looked at again below.
            Ok(Request::Change(change)) => Some(change),
            Err(_) => None,
        };
        let mut tries_left = TRIES;
        loop {
            let reclaimed = match &asked {
                Some(Change::Keep(assignments)) => self.reclaim_for(assignments),
                Some(Change::Reclaim(by)) => self.reclaim_all(group, by),
                _ => Reclaimed::default(),
            };
            let mut change = self.begin_change()?;
            let may = self.still_may_write(authority, group, file).map_err(WriteError::from);
            let answer = may.and_then(|()| self.write_now(&mut change, group, file, text));
            self.take_throttles_back(&change, group, &reclaimed);
            let is_full = matches!(answer, Err(WriteError::Effect(EffectError::InUse { .. })));
            tries_left -= 1;
            if !(is_full && reclaimed.has_room() && tries_left > 0) {
                return answer;
            }
        }
    }

    /// Whether who was let write a file may do so still. Through a mount that was asked when it was opened.
    pub(crate) fn still_may_write(
        &self,
        authority: Authority<'_>,
        group: GroupId,
        file: FileId,
    ) -> Result<(), PermitError> {
        match authority {
            Authority::File(..) => Ok(()),
            Authority::Requester(requester) => {
                self.permit(requester, Act::Set, Node::File(group, file), KEPT)
            }
        }
    }

    /// A write that attaches nobody, with other changes held off.
    fn write_now(
        &self,
        change: &mut Changes,
        group: GroupId,
        file: FileId,
        text: &[u8],
    ) -> Result<(), WriteError> {
        match self.parse_knowing_processes(change, group, file, text)? {
            Request::Attach(..)
            | Request::Register(_)
            | Request::Change(Change::Nothing | Change::Reclaim(_)) => Ok(()),
            Request::Change(Change::Keep(assignments)) => {
                for asking in assignments.iter().filter(|a| *a.setting == pinfold_files::NOTIFY_ON_RELEASE) {
                    // That it became empty before the flag was on is not told to an agent.
                    self.is_occupied(change, asking.group)?;
                }
                Ok(self.assign(change, &assignments)?)
            }
            Request::Change(Change::IfTaken { file, entry, then }) => {
                self.tracker.try_entry(file, &entry).map_err(EffectError::from)?;
                Ok(self.assign(change, &then?)?)
            }
            Request::Change(Change::Reset(counters)) => {
                self.keep_what_was_not(change);
                self.reset(group, counters)
            }
        }
    }

    pub(crate) fn parse(&self, group: GroupId, file: FileId, text: &[u8]) -> Result<Request, WriteError> {
        let texts = self.machine_texts(file).map_err(EffectError::from)?;
        let forest = self.lock_forest();
        forest.group(group).ok_or(GroupGone(group))?;
        let sight = Sight { forest: &forest, group, v2: &texts, facts: &self.facts };
        Ok(pinfold_files::parse_write(file, &sight, text)?)
    }

    /// Parses a write that may be refused because of processes: of those that ended we may not have been told.
    fn parse_knowing_processes(
        &self,
        change: &mut Changes,
        group: GroupId,
        file: FileId,
        text: &[u8],
    ) -> Result<Request, WriteError> {
        const OCCUPIED: pinfold_files::WriteError = pinfold_files::WriteError::Conflict(Conflict::Occupied);
        match self.parse(group, file, text) {
            Err(WriteError::Refused(OCCUPIED)) => {
                let groups: Vec<GroupId> = self.lock_forest().inhabited(group).collect();
                for group in groups {
                    if self.is_occupied(change, group)? {
                        break; // one is enough
                    }
                }
                self.parse(group, file, text)
            }
            answer => answer,
        }
    }

    /// What the machine says of itself that a file's row asks for.
    fn machine_texts(&self, file: FileId) -> Result<Texts, kernel::ReadError> {
        let sources = pinfold_files::file(file).1.sources().iter();
        let of_machine = sources.filter(|source| matches!(source, Source::Machine(_)));
        self.texts(&of_machine.map(|source| (*source, vec![At::Machine])).collect::<Vec<_>>(), Settled::No)
    }

    /// Puts values in force and keeps them: all or none.
    pub(crate) fn assign(&self, change: &mut Changes, assignments: &[Assignment]) -> Result<(), EffectError> {
        let mut groups: Vec<GroupId> = assignments.iter().map(|assigned| assigned.group).collect();
        groups.dedup();
        let divided = {
            let forest = self.lock_forest();
            let carrying = Carrying { forest: &forest, shares: &change.shares, assigned: assignments };
            carrying.divided(groups.iter().copied())
        };
        // What was divided before is not this write's fault, nor is a limit that is lifted.
        let is_asked_for = |one: &&Divided| {
            assignments
                .iter()
                .filter(|assigned| assigned.value != assigned.setting.initial)
                .any(|assigned| assigned.group == one.group && assigned.setting.carry.writes(one.limit.file))
        };
        self.refuse_divided(divided.iter().filter(is_asked_for))?;
        self.refuse_not_native(assignments)?;
        let prepared = self.prepare(&divided, |attempt| {
            let shares = self.divide_again(change, &groups, &divided, attempt)?;
            let forest = self.lock_forest();
            let new = Carrying { forest: &forest, shares: &shares, assigned: assignments };
            let old = Carrying { forest: &forest, shares: &change.shares, assigned: &[] };
            let (mut steps, mut back) = (new.steps_for_assigned(), old.steps_back(assignments));
            // All limits of these groups are divided again, not only those that are assigned.
            for group in groups.iter().filter(|group| divided.iter().any(|one| one.group == **group)) {
                let is_new = |seen: &[Step], step: &Step| self.has_file_of(step) && !seen.contains(step);
                let limits = new.steps_of_limits(*group).into_iter().filter(|step| is_new(&steps, step));
                let limits: Vec<Step> = limits.collect();
                steps.extend(limits);
                back.extend(old.steps_of_limits(*group).into_iter().filter(|step| self.has_file_of(step)));
            }
            let rooms = room::wanted(&new, &change.shares);
            drop(forest);
            Ok(((shares, back, rooms), steps))
        });
        let done = prepared.and_then(|((shares, back, rooms), steps)| {
            self.put_in_force(&steps, &rooms)?;
            Ok((shares, back))
        });
        let (shares, back) = match done {
            Ok(done) => done,
            Err(error) => {
                self.take_guards_back(change, &groups, &divided);
                return Err(error);
            }
        };
        if let Err(error) = self.keep_all(&groups, assignments) {
            let back = self.lowered_first_if_known(back, &divided);
            if let Err(stuck) = self.tracker.carry_out(&back) {
                tracing::error!("a value is in force that could not be kept: {stuck}");
            }
            return Err(error);
        }
        self.keep_shares(change, shares);
        let mut forest = self.lock_forest();
        for Assignment { group, setting, value } in assignments {
            if let Some(found) = forest.group_mut(*group) {
                found.settings_mut().replace(setting.key, (*value != setting.initial).then(|| value.clone()));
            }
        }
        drop(forest);
        self.descriptors_assigned(change, assignments);
        self.notices.assigned(assignments);
        Ok(())
    }

    /// Writes values, with usage below those that are lowered.
    fn put_in_force(&self, steps: &[Step], rooms: &[room::Wanted]) -> Result<(), EffectError> {
        if let Some(Step::Write { file, .. } | Step::Entry { file, .. }) =
            steps.iter().find(|step| !self.has_file_of(step))
        {
            return Err(EffectError::Vanished(file));
        }
        self.with_room(rooms, || self.tracker.carry_out(steps).map_err(EffectError::from))
    }

    /// Writes the settings files of the groups that the assignments change; takes them back if one cannot be written. Those below
    /// come first: killed in between, the next daemon finds what is denied above denied below, too.
    fn keep_all(&self, groups: &[GroupId], assignments: &[Assignment]) -> Result<(), EffectError> {
        let kept = |assigned: &Assignment| {
            let Assignment { setting, value, .. } = assigned;
            (setting.key, (*value != setting.initial).then(|| value.clone()))
        };
        for (done, group) in groups.iter().rev().enumerate() {
            let of_group = assignments.iter().filter(|assigned| assigned.group == *group);
            if let Err(error) = self.keep(*group, &of_group.map(kept).collect::<Vec<_>>()) {
                for before in groups.iter().rev().take(done) {
                    if let Err(stuck) = self.keep(*before, &[]) {
                        tracing::error!("a value is kept that was not accepted: {stuck}");
                    }
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Writes a group's settings file as it will be with these values, which the forest does not have yet.
    pub(crate) fn keep(&self, group: GroupId, values: &[(Key, Option<Value>)]) -> Result<(), EffectError> {
        let (path, text) = {
            let forest = self.lock_forest();
            let (Some(path), Some(now)) = (state_path(&forest, group), GroupText::of(&forest, group)) else {
                return Ok(());
            };
            let mut settings = now.settings.clone();
            for (key, value) in values {
                settings.replace(*key, value.clone());
            }
            (path, GroupText { settings: &settings, ..now }.print())
        };
        Ok(self.state.write_settings(&path, &text)?)
    }

    /// Starts counters again from zero: what the live directories say now no longer counts.
    fn reset(&self, group: GroupId, counters: &[&Counter]) -> Result<(), WriteError> {
        let sources = pinfold_files::sources(counters.iter().copied());
        let dirs = source_dirs(&self.lock_forest(), group, &sources)?;
        let texts = self.texts(&dirs, Settled::Yes).map_err(EffectError::from)?;
        let values: Vec<_> = counters.iter().map(|counter| (counter.key, counter.reset(&texts))).collect();
        self.keep(group, &values)?;
        set_values(&mut self.lock_forest(), group, values);
        self.start_peaks_again(group, counters);
        Ok(())
    }
}

/// Gives a group values in the forest.
pub(crate) fn set_values(forest: &mut Forest, group: GroupId, values: Kept) {
    let Some(found) = forest.group_mut(group) else { return };
    let settings: &mut Settings = found.settings_mut();
    for (key, value) in values {
        settings.replace(key, value);
    }
    forest.touch();
}

/// Whether a task has CAP_SYS_ADMIN in the daemon's user namespace.
pub(crate) fn is_admin(task: HostPid) -> bool {
    let ours = process::own_namespace(Namespace::User);
    let theirs = process::namespace(task, Namespace::User);
    process::is_admin_of_its_own(task) && matches!((ours, theirs), (Ok(ours), Ok(theirs)) if ours == theirs)
}

/// What capable(CAP_SYS_ADMIN) asks in the kernel: root with the capability in the daemon's own user namespace.
pub(crate) fn may_administer(caller: &Caller) -> bool {
    caller.uid == Uid(0) && caller.task.is_some_and(is_admin)
}
