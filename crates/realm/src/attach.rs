//! Attaching processes: permission, plan, migration, commit.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use pinfold_files::{AttachRefusal, AttachTarget, Sight, Texts};
use pinfold_kernel::process::Pinned;
use pinfold_kernel::{self as kernel, Membership, Place, Step, process};
use pinfold_model::{
    self as model, AttachPlan, CellId, Credentials, Dir, Forest, GroupGone, GroupId, HostPid, Pid, Seat, Uid,
    may_attach,
};

use crate::carry::{Carrying, Divided, Extent};
use crate::entry::Displaced;
use crate::realm::{Changes, surroundings};
use crate::record;
use crate::state::Records;
use crate::write::may_administer;
use crate::{Attach, AttachError, Caller, EffectError, Opener, Realm, Requester};

/// By what right a process is attached.
#[derive(Clone, Copy)]
pub(crate) enum Authority<'a> {
    /// The caller writes to a file that somebody was let open: v1's rule for whose process may be attached.
    File(&'a Caller, Opener),
    /// The caller asks over a socket: the rules of privilege, and the process must be below it.
    Requester(&'a Requester),
}

/// An attach that is asked for.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) authority: Authority<'a>,
    pub(crate) group: GroupId,
    pub(crate) process: HostPid,
    /// How the caller calls the process, for its error message.
    pub(crate) named: Pid,
    /// The process itself, if the caller named it by a descriptor.
    pub(crate) held: Option<&'a Pinned>,
}

impl<'a> Authority<'a> {
    /// Who it is.
    pub(crate) fn caller(self) -> &'a Caller {
        match self {
            Self::File(caller, _) => caller,
            Self::Requester(requester) => requester.caller(),
        }
    }

    /// Whose user has let it be done.
    pub(crate) fn uid(self) -> Uid {
        match self {
            Self::File(_, opener) => opener.uid,
            Self::Requester(requester) => requester.caller().uid,
        }
    }

    /// Whether who has let it be done is an administrator of the host.
    pub(crate) fn is_by_admin(self) -> bool {
        match self {
            Self::File(_, opener) => opener.is_admin,
            Self::Requester(requester) => may_administer(requester.caller()),
        }
    }

    /// Of a caller who has opened nothing.
    fn of(caller: &'a Caller) -> Self {
        Self::File(caller, Opener { uid: caller.uid, is_admin: false })
    }
}

impl Realm {
    /// Puts a process into a group, with the caller's rights.
    pub fn attach(&self, caller: &Caller, group: GroupId, process: HostPid) -> Result<(), AttachError> {
        let named = Pid::new(process.get()).expect("a host pid is not 0");
        let authority = Authority::of(caller);
        let change = &mut *self.begin_change()?;
        self.attach_locked(change, Asked { authority, group, process, named, held: None })
    }

    /// Whether the process at this seat may be moved in its hierarchy, whosever it is.
    fn may_take(
        &self,
        authority: Authority<'_>,
        credentials: &Credentials,
        from: &Seat,
        group: GroupId,
        named: Pid,
    ) -> Result<(), AttachError> {
        if !is_its_to_move(authority, credentials) {
            return Err(model::AttachError::NotOwner(named).into());
        }
        match authority {
            Authority::File(..) => Ok(()),
            Authority::Requester(requester) if requester.is_host_root() => Ok(()),
            Authority::Requester(requester) => {
                let gone = || model::AttachError::from(GroupGone(group));
                let hierarchy = self.lock_forest().group(group).ok_or_else(gone)?.hierarchy();
                let own =
                    self.own_group(requester, hierarchy).map_err(|_| model::AttachError::CallerUnseen)?;
                let forest = self.lock_forest();
                let at = match from {
                    Seat::Outside(_) => None,
                    Seat::Cell(cell) => forest.group_of(*cell, hierarchy),
                };
                let at = at.or_else(|| Some(forest.hierarchy(hierarchy)?.root())).ok_or_else(gone)?;
                let is_below = at == own || forest.ancestors(at).any(|above| above == own);
                if is_below { Ok(()) } else { Err(model::AttachError::NotBelow(named).into()) }
            }
        }
    }

    /// Attaches a process that is held: if it ends, whoever has its number then is not moved in its stead.
    pub(crate) fn attach_held(
        &self,
        caller: &Caller,
        group: GroupId,
        held: &Pinned,
    ) -> Result<(), AttachError> {
        let named = Pid::new(held.process().get()).expect("a host pid is not 0");
        let (authority, process) = (Authority::of(caller), held.process());
        let change = &mut *self.begin_change()?;
        self.attach_locked(change, Asked { authority, group, process, named, held: Some(held) })
    }

    /// The process has ended since it was looked at. If another has its number now and was moved in its stead, which nobody
    /// asked for, that one goes back to where the first one was. A leaf that nobody came into goes.
    fn undo_for_the_dead(
        &self,
        change: &mut Changes,
        process: HostPid,
        from: &Seat,
        to: Option<&Seat>,
        group: GroupId,
    ) {
        let alive = process::has_running_tasks(process);
        let moved = match self.seat_of(process) {
            Some(Seat::Cell(cell)) => {
                self.lock_forest().cell(cell).is_some_and(|cell| cell.groups().contains(&group))
            }
            _ => false,
        };
        if alive && moved {
            self.take_back(process, from);
        }
        if let Some(Seat::Cell(to)) = to
            && let Err(error) = self.retire(change, *to)
        {
            tracing::warn!("an empty cell of group {group} stays: {}", crate::error::chain(&error));
        }
    }

    fn take_back(&self, process: HostPid, from: &Seat) {
        let to = match from {
            Seat::Outside(path) => outside(path),
            Seat::Cell(cell) => match self.lock_forest().leaf(*cell) {
                Some(leaf) => Place::Dir(leaf),
                None => Place::Scope,
            },
        };
        match self.tracker.carry_out(&[Step::Move { process, to }]) {
            Ok(()) => {
                tracing::warn!("process {process} ended while it was attached, and its number was used again")
            }
            Err(error) if matches!(error.cause, kernel::Cause::NoProcess(_)) => {}
            Err(error) => tracing::error!("process {process} is where it should not be: {error}"),
        }
    }

    /// The process that a write names, and the number it was named by.
    pub(crate) fn target_process(
        &self,
        caller: &Caller,
        target: AttachTarget,
    ) -> Result<(HostPid, Pid), AttachError> {
        let task = caller.task.ok_or(model::AttachError::CallerUnseen)?;
        match target {
            AttachTarget::Writer => Ok((task, Pid::new(task.get()).expect("a host pid is not 0"))),
            AttachTarget::Id(pid) => {
                let map = self.pins.map_of(task).map_err(|_| model::AttachError::CallerUnseen)?;
                Ok((map.to_host(pid).ok_or(model::AttachError::NoSuchProcess(pid))?, pid))
            }
        }
    }

    /// Attaches a process in a change that is under way already.
    pub(crate) fn attach_locked(&self, change: &mut Changes, asked: Asked<'_>) -> Result<(), AttachError> {
        match self.try_attach(change, asked) {
            Err(error) if is_of_a_removed_directory(&error) => {
                // Another program did that while nobody was there, and the kernel may not have told.
                self.retire_every_empty_cell(change);
                self.try_attach(change, asked)
            }
            done => done,
        }
    }

    fn try_attach(&self, change: &mut Changes, asked: Asked<'_>) -> Result<(), AttachError> {
        let Asked { authority, group, process, named, held } = asked;
        let no_process = || AttachError::from(model::AttachError::NoSuchProcess(named));
        // Before anybody is looked at: the cell that a process is seen in must still be there when it is planned with.
        self.release_if_empty(change, group)?;
        let (pinned, standing) = match self.pins.open(process) {
            Ok(found) => found,
            Err(_) => {
                let credentials = credentials_of_zombie(process).ok_or_else(no_process)?;
                self.lock_forest().group(group).ok_or(GroupGone(group)).map_err(model::AttachError::from)?;
                // It is in no group any more, and goes nowhere: cgroup_migrate_add_task().
                let may = is_its_to_move(authority, &credentials);
                return may.then_some(()).ok_or_else(|| model::AttachError::NotOwner(named).into());
            }
        };
        if held.is_some_and(|held| held.verify().is_err()) {
            return Err(no_process());
        }
        let place = self.tracker.membership_of(&pinned, &standing).map_err(|_| no_process())?;
        let from = self.seat_at(pinned.process(), place);
        if let Err(refusal) = self.may_take(authority, &standing.credentials, &from, group, named) {
            let bound = process::is_bound(process);
            return Err(if bound { model::AttachError::Unmovable(named).into() } else { refusal });
        }
        if pinned.process() == process::own_pid() {
            // Frozen or out of processes, the daemon would stop every user of the mount, and whoever could mend it.
            return Err(model::AttachError::Unmovable(named).into());
        }
        self.attach_watchers.tell(Attach::Begins(pinned.process()));
        if let Seat::Cell(cell) = from
            && self.shift(change, cell, group, &pinned)?
        {
            self.tell_attached(pinned.process(), &from);
            return Ok(());
        }
        let displaced = self.displaced_by(change, group)?;
        let plan = {
            let mut forest = self.lock_forest();
            let plan = forest.plan_attach(&from, group)?;
            if plan.to().is_some()
                && let Err(refused) = self.may_enter(&forest, group)
            {
                forest.abort_attach(plan);
                return Err(refused.into());
            }
            displaced.iter().for_each(|displaced| displaced.take_effect(&mut forest));
            plan
        };
        self.descriptors_leaving(change, pinned.process(), &from);
        let choices = self.choices(pinned.process(), group);
        if let Err(error) = self.carry_out_attach(change, &plan, Some(pinned.process()), displaced.as_ref()) {
            self.take_attach_back(change, plan, displaced.as_ref());
            return Err(refusal(error, named));
        }
        choices.put_back();
        let is_displaced = !plan.make().is_empty();
        let made = plan.make().last().and_then(Dir::leaf);
        let to = plan.to();
        self.lock_forest().commit_attach(plan);
        self.tell_attached(pinned.process(), to.as_ref().unwrap_or(&from));
        if let Some((cell, displaced)) = made.zip(displaced.as_ref()) {
            self.keep_displaced(change, cell, displaced);
        }
        self.descriptors_attached(change, pinned.process(), group);
        if let Some(cell) = made {
            self.retire_kept_around(change, cell);
        }
        if is_displaced {
            self.notices.displaced();
        }
        if pinned.verify().is_err() {
            self.undo_for_the_dead(change, pinned.process(), &from, to.as_ref(), group);
        }
        if let Seat::Cell(left) = from {
            self.release_if_left_empty(change, left);
        }
        Ok(())
    }

    /// Makes the cell that whoever is in a cell would come to in the group above this one, and lets nobody in: it holds the
    /// directories that both hang from, and what is charged to the cell goes no further than there.
    pub(crate) fn make_cell_above(
        &self,
        change: &mut Changes,
        cell: CellId,
        group: GroupId,
    ) -> Result<Option<CellId>, EffectError> {
        let (plan, to) = {
            let mut forest = self.lock_forest();
            let Some(above) = forest.group(group).and_then(|found| found.parent()) else { return Ok(None) };
            let Ok(plan) = forest.plan_attach(&Seat::Cell(cell), above) else { return Ok(None) };
            match plan.to() {
                Some(Seat::Cell(to)) => (plan, to),
                Some(Seat::Outside(_)) | None => {
                    forest.abort_attach(plan);
                    return Ok(None);
                }
            }
        };
        if let Err(error) = self.carry_out_attach(change, &plan, None, None) {
            self.take_attach_back(change, plan, None);
            return Err(error);
        }
        self.lock_forest().commit_kept(plan);
        Ok(Some(to))
    }

    /// Nobody was moved: the forest and the v2 tree are as before.
    fn take_attach_back(&self, change: &Changes, plan: AttachPlan, displaced: Option<&Displaced>) {
        let make = plan.make().to_vec();
        let carried = {
            let mut forest = self.lock_forest();
            let cell = make.last().and_then(Dir::leaf);
            let carried = cell.map_or(Vec::new(), |cell| carried_anew(&forest, cell, &make));
            forest.abort_attach(plan);
            displaced.iter().for_each(|displaced| displaced.take_back(&mut forest));
            carried
        };
        self.take_back_dirs(change, &carried, &make);
    }

    /// Tells front ends where a process is now.
    fn tell_attached(&self, process: HostPid, seat: &Seat) {
        let groups = || {
            let forest = self.lock_forest();
            let own = forest.hierarchies().map(|(id, hierarchy)| match seat {
                Seat::Outside(_) => hierarchy.root(),
                Seat::Cell(cell) => forest.group_of(*cell, id).unwrap_or(hierarchy.root()),
            });
            own.flat_map(|own| std::iter::once(own).chain(forest.ancestors(own))).collect()
        };
        self.attach_watchers.tell(Attach::Done { process, groups: &groups });
    }

    /// Whether the group's controllers let a process in.
    pub(crate) fn may_enter(&self, forest: &Forest, group: GroupId) -> Result<(), AttachRefusal> {
        let Some(around) = surroundings(forest, group) else { return Ok(()) };
        let sight = Sight { forest, group, v2: &Texts::default(), facts: &self.facts };
        pinfold_files::may_enter(around.bound, &sight)
    }

    /// Where a process is. `None` if it has ended.
    pub(crate) fn seat_of(&self, process: HostPid) -> Option<Seat> {
        self.tracker.membership(process).ok().map(|place| self.seat_at(process, place))
    }

    pub(crate) fn seat_at(&self, process: HostPid, place: Membership) -> Seat {
        match place {
            Membership::Outside(path) => Seat::Outside(path.as_bytes().into()),
            Membership::Inside(cell, dir) if self.lock_forest().cell(cell).is_none() => {
                tracing::warn!("process {process} is in {dir}, which is no cell of this realm");
                Seat::Outside(b"/".as_slice().into())
            }
            Membership::Inside(cell, _) => Seat::Cell(cell),
        }
    }

    fn carry_out_attach(
        &self,
        change: &mut Changes,
        plan: &AttachPlan,
        process: Option<HostPid>,
        displaced: Option<&Displaced>,
    ) -> Result<(), EffectError> {
        let moving = process.and_then(|process| move_of(&self.lock_forest(), plan, process));
        let Some(cell) = plan.make().last().and_then(Dir::leaf) else {
            return moving.iter().try_for_each(|step| self.carry_out_move(step)); // one step, or none
        };
        // The new directories have parts of limits that others have had all of: those have less from before.
        let (divided, groups) = {
            let forest = self.lock_forest();
            self.refuse_place(&forest, cell)?;
            let groups = carried_anew(&forest, cell, plan.make());
            let carrying = Carrying { forest: &forest, shares: &change.shares, assigned: &[] };
            (carrying.divided(groups.iter().copied()), groups)
        };
        self.refuse_divided(divided.iter())?;
        self.keep_cell(change, cell, plan.make())?;
        displaced.map_or(Ok(()), |displaced| self.record_displaced(cell, displaced))?;
        // Not before that is kept: a part is as large as what was used a moment ago.
        let (shares, steps) = self.prepare(&divided, |attempt| {
            let shares = self.divide_again(change, &groups, &divided, attempt)?;
            let forest = self.lock_forest();
            let steps =
                steps_of(&Carrying { forest: &forest, shares: &shares, assigned: &[] }, plan, &divided);
            drop(forest);
            Ok((shares, steps.into_iter().filter(|step| self.has_file_of(step)).collect()))
        })?;
        // The process moves last, and into a leaf that is watched already: its exit cannot be missed.
        let carried = self
            .tracker
            .carry_out(&steps)
            .map_err(EffectError::from)
            .and_then(|()| Ok(self.tracker.watch(&self.leaf_path(cell), cell)?))
            .and_then(|()| moving.iter().try_for_each(|step| self.carry_out_move(step)));
        carried.map(|()| self.keep_shares(change, shares))
    }

    /// Removes what was made for a process that was not moved, and gives others their parts of limits back. The plan is
    /// aborted: the forest is as it was.
    fn take_back_dirs(&self, change: &Changes, groups: &[GroupId], make: &[Dir]) {
        let Some(cell) = make.last().and_then(Dir::leaf) else { return };
        self.tracker.unwatch(cell);
        let (limits, divided): (Vec<Step>, _) = {
            let forest = self.lock_forest();
            let carrying = Carrying { forest: &forest, shares: &change.shares, assigned: &[] };
            let limits = groups.iter().flat_map(|group| carrying.steps_of_limits(*group)).collect();
            (limits, carrying.divided(groups.iter().copied()))
        };
        let limits = self.lowered_first_if_known(limits, &divided);
        let removals = make.iter().rev().cloned().map(Step::Remove);
        for step in removals.chain(limits).filter(|step| self.has_file_of(step)) {
            if let Err(error) = self.tracker.carry_out(&[step]) {
                tracing::warn!("left behind after a refused attach: {error}");
            }
        }
        self.forget_home(make);
        for records in [Records::Cells, Records::Folds] {
            if let Err(error) = self.state.keep(records, cell.get(), None) {
                tracing::warn!("left behind after a refused attach: {error}");
            }
        }
    }

    /// Moves a process. If the place that it came from is gone, it goes back to the rest of the scope.
    pub(crate) fn carry_out_move(&self, step: &Step) -> Result<(), EffectError> {
        let moved = self.tracker.carry_out(std::slice::from_ref(step));
        match (step, moved) {
            (Step::Move { process, to: Place::Outside(_) }, Err(error))
                if !matches!(error.cause, kernel::Cause::NoProcess(_)) =>
            {
                Ok(self.tracker.carry_out(&[Step::Move { process: *process, to: Place::Scope }])?)
            }
            (_, moved) => Ok(moved?),
        }
    }

    /// Writes down which groups a new cell is of and where it hangs, and before that the numbers of those groups and of
    /// all above them.
    fn keep_cell(&self, change: &mut Changes, cell: CellId, make: &[Dir]) -> Result<(), EffectError> {
        let (text, groups, spines) = {
            let forest = self.lock_forest();
            let found = forest.cell(cell).expect("the plan holds the cell");
            (record::cell_text(&forest, found), found.groups().to_vec(), new_spines(&forest, make))
        };
        self.keep_numbers(change, &groups)?;
        for (number, text) in spines {
            self.state.keep(Records::Spines, number, Some(&text))?;
        }
        Ok(self.state.keep(Records::Cells, cell.get(), Some(&text))?)
    }

    /// Writes down the numbers of groups and of all above them: records refer to these.
    pub(crate) fn keep_numbers(&self, change: &mut Changes, groups: &[GroupId]) -> Result<(), EffectError> {
        let unnumbered: Vec<GroupId> = {
            let forest = self.lock_forest();
            let all = groups.iter().flat_map(|group| std::iter::once(*group).chain(forest.ancestors(*group)));
            all.filter(|group| !change.numbered.contains(group)).collect()
        };
        for group in unnumbered {
            self.keep(group, &[])?;
            change.numbered.insert(group);
        }
        Ok(())
    }

    fn leaf_path(&self, cell: CellId) -> Dir {
        self.lock_forest().leaf(cell).expect("the plan holds the cell")
    }
}

/// Whose a process was, all of which has ended, and which nobody has collected yet; `None` of others.
fn credentials_of_zombie(task: HostPid) -> Option<Credentials> {
    let it = process::Identity::of(task).ok()?;
    let is_over = it.is_zombie && !process::has_running_tasks(it.process);
    is_over.then_some(Credentials { effective: it.effective, real: it.real, saved: it.saved })
}

/// Whether a process with these users is one that may be moved by who has let it be done, wherever it is.
fn is_its_to_move(authority: Authority<'_>, credentials: &Credentials) -> bool {
    match authority {
        Authority::File(_, opener) => may_attach(opener.uid, credentials),
        Authority::Requester(requester) => requester.is_host_root() || requester.who().may_move(credentials),
    }
}

fn outside(path: &[u8]) -> Place {
    Place::Outside(OsStr::from_bytes(path).to_owned())
}

/// What the v2 tree has to be told before the move: who has another part of a limit, and new directories with the values
/// that hold there.
fn steps_of(carrying: &Carrying<'_>, plan: &AttachPlan, divided: &[Divided]) -> Vec<Step> {
    let is_there = |step: &Step| !step.dir().is_some_and(|dir| plan.make().contains(dir));
    let mut groups: Vec<GroupId> = divided.iter().map(|one| one.group).collect();
    groups.dedup();
    let parts = groups.into_iter().flat_map(|group| carrying.steps_of_limits(group));
    let mut steps: Vec<Step> = parts.filter(is_there).collect();
    for dir in plan.make() {
        steps.push(Step::Make(dir.clone()));
        steps.extend(carrying.steps_for_dir(dir, None, Extent::Changed));
    }
    steps
}

/// The move that a plan asks for, if it asks for one.
fn move_of(forest: &Forest, plan: &AttachPlan, process: HostPid) -> Option<Step> {
    let to = match plan.to()? {
        Seat::Cell(cell) => Place::Dir(forest.leaf(cell).expect("the plan holds the cell")),
        Seat::Outside(path) => outside(&path),
    };
    Some(Step::Move { process, to })
}

/// The records of the spine directories among new directories.
fn new_spines(forest: &Forest, make: &[Dir]) -> Vec<(u32, String)> {
    let spines = make.iter().filter(|dir| dir.leaf().is_none()).filter_map(|dir| dir.spines().last());
    spines.map(|spine| (spine.get(), record::spine_text(forest.claims(*spine)))).collect()
}

/// The groups that a new directory carries.
fn carried_anew(forest: &Forest, cell: CellId, make: &[Dir]) -> Vec<GroupId> {
    let groups = forest.cell(cell).map_or(&[][..], |found| found.groups()).iter();
    let all = groups.flat_map(|group| std::iter::once(*group).chain(forest.ancestors(*group)));
    all.filter(|group| forest.carrier_of(*group, cell).is_some_and(|dir| make.contains(&dir))).collect()
}

/// Whether a v2 directory was not there that is planned with.
fn is_of_a_removed_directory(error: &AttachError) -> bool {
    matches!(error, AttachError::Effect(EffectError::Step(step)) if matches!(step.cause, kernel::Cause::Gone { .. }))
}

/// What the kernel's answer to a move means for the one who asked for it.
fn refusal(error: EffectError, named: Pid) -> AttachError {
    match &error {
        EffectError::Step(step) => match step.cause {
            kernel::Cause::NoProcess(_) => model::AttachError::NoSuchProcess(named).into(),
            kernel::Cause::Refused { operation: "move", errno: rustix::io::Errno::INVAL, .. } => {
                model::AttachError::Unmovable(named).into()
            }
            _ => error.into(),
        },
        _ => error.into(),
    }
}
