//! What may be asked for over a socket: each request checked against the rules of privilege, then carried out.
//!
//! The mount's requests do not come through here: the kernel has checked owner and mode before it passes them on.

use std::ffi::{OsStr, OsString};
use std::sync::MutexGuard;

use pinfold_files::{AttachTarget, FileId, Ids, Request};
use pinfold_model::{Act, GroupId, HierarchyId, HostPid, NewOwner, Ownership, Pid, Seat};

use crate::attach::{Asked, Authority};
use crate::read::leaves_below;
use crate::realm::Changes;
use crate::requester::has_below;
use crate::{
    AttachError, AttributeChange, EffectError, HierarchyInfo, KeptSetting, KillError, LookupError, Named,
    Node, PermitError, ReadError, Realm, RequestError, Requester, SettingStatus,
};

/// Nothing changes hands.
pub(crate) const KEPT: NewOwner = NewOwner { uid: None, gid: None };
/// The mode of a new group's directory, as of one that mkdir(1) makes.
const MODE: u16 = 0o755;

/// The request, as who is connected makes it.
impl Realm {
    /// Whether the requester may see a group and what is below it.
    pub fn look_for(&self, requester: &Requester, group: GroupId) -> Result<(), PermitError> {
        self.permit(requester, Act::Look, Node::Group(group), KEPT)
    }

    /// Begins a change that the requester may make. It is asked again when no other change is under way: while it waited it may have
    /// been moved, or the group have been given away, and from here on neither happens before it is done.
    fn change_for(
        &self,
        requester: &Requester,
        act: Act,
        node: Node,
        to: NewOwner,
    ) -> Result<MutexGuard<'_, Changes>, RequestError> {
        // Who may not does not make others wait.
        self.permit(requester, act, node, to)?;
        let change = self.begin_change()?;
        self.permit(requester, act, node, to)?;
        Ok(change)
    }

    /// Whether the requester may be told which groups there are below one that it may see.
    pub fn sees_below(&self, requester: &Requester, group: GroupId) -> Result<bool, PermitError> {
        if requester.is_host_root() {
            return Ok(true);
        }
        let hierarchy = self.lock_forest().group(group).map(|group| group.hierarchy());
        let own = self.own_group(requester, hierarchy.ok_or(pinfold_model::GroupGone(group))?)?;
        Ok(group != own || has_below(requester, &self.lock_forest(), own))
    }

    /// Whether groups below the requester's own, which is this one, are there for it.
    pub fn knows_below(&self, requester: &Requester, own: GroupId) -> bool {
        has_below(requester, &self.lock_forest(), own)
    }

    /// Makes a group.
    pub fn make_for(
        &self,
        requester: &Requester,
        parent: GroupId,
        name: &OsStr,
    ) -> Result<GroupId, RequestError> {
        let change = self.change_for(requester, Act::Make, Node::Group(parent), KEPT)?;
        let (caller, is_the_hosts) = (requester.caller(), requester.is_host_root());
        Ok(self.make_locked(&change, caller, is_the_hosts, parent, name, MODE)?)
    }

    /// Removes a group without processes and children.
    pub fn remove_for(&self, requester: &Requester, group: GroupId) -> Result<(), RequestError> {
        let mut change = self.change_for(requester, Act::Remove, Node::Group(group), KEPT)?;
        let (parent, name) = self.parent_and_name(group)?;
        Ok(self.remove_locked(&mut change, requester.caller(), parent, &name)?)
    }

    /// Reads a control file.
    pub fn read_for(
        &self,
        requester: &Requester,
        group: GroupId,
        file: FileId,
    ) -> Result<Vec<u8>, RequestError> {
        self.permit(requester, Act::Read, Node::File(group, file), KEPT)?;
        Ok(self.read(requester.caller(), group, file)?)
    }

    /// Writes a control file; a membership file moves a process.
    pub fn write_for(
        &self,
        requester: &Requester,
        group: GroupId,
        file: FileId,
        text: &[u8],
    ) -> Result<(), RequestError> {
        if matches!(pinfold_files::file(file).1.write, pinfold_files::Write::Attach(_)) {
            // Moving has a rule of its own; before it, nobody is told what the file would take.
            self.permit(requester, Act::Move, Node::Group(group), KEPT)?;
            let number = match self.parse(group, file, text)? {
                Request::Attach(_, AttachTarget::Writer) => 0,
                Request::Attach(_, AttachTarget::Id(pid)) => pid.get(),
                Request::Register(_) | Request::Change(_) => return Ok(()),
            };
            let process = self.named(requester, number).map_err(AttachError::from)?;
            return self.attach_for(requester, group, &process);
        }
        self.permit(requester, Act::Set, Node::File(group, file), KEPT)?;
        Ok(self.write_by(Authority::Requester(requester), group, file, text)?)
    }

    /// Moves a process into a group.
    pub fn attach_for(
        &self,
        requester: &Requester,
        group: GroupId,
        process: &Named,
    ) -> Result<(), RequestError> {
        let mut change = self.change_for(requester, Act::Move, Node::Group(group), KEPT)?;
        let authority = Authority::Requester(requester);
        Ok(self.attach_locked(&mut change, asked(authority, group, process))?)
    }

    /// Moves a process out of one group into another of its hierarchy, if it is still in there.
    pub fn evict_for(
        &self,
        requester: &Requester,
        from: GroupId,
        to: GroupId,
        process: &Named,
    ) -> Result<(), RequestError> {
        let mut change = self.change_for(requester, Act::Move, Node::Group(to), KEPT)?;
        // Where the number's process is. That it is the one that is held, is found out below.
        let Some(Seat::Cell(cell)) = self.seat_of(process.task) else { return Ok(()) };
        let is_there = {
            let forest = self.lock_forest();
            let hierarchy = forest.group(from).map(|group| group.hierarchy());
            hierarchy.and_then(|hierarchy| forest.group_of(cell, hierarchy)) == Some(from)
        };
        if !is_there {
            return Ok(());
        }
        let authority = Authority::Requester(requester);
        Ok(self.attach_locked(&mut change, asked(authority, to, process))?)
    }

    /// Gives a group to another user, with its `tasks` and `cgroup.procs`, but not its other files: limits stay with who
    /// set them.
    pub fn chown_for(&self, requester: &Requester, group: GroupId, to: NewOwner) -> Result<(), RequestError> {
        let change = self.change_for(requester, Act::Chown, Node::Group(group), to)?;
        let owner = AttributeChange { mode: None, uid: to.uid, gid: to.gid };
        for node in self.given_with(group)? {
            self.change_attributes(&change, requester.caller(), node, |old| Ok(owner.applied_to(old)))?;
        }
        Ok(())
    }

    /// Changes the mode of a group's directory, or of one of its files.
    pub fn chmod_for(&self, requester: &Requester, node: Node, mode: u16) -> Result<(), RequestError> {
        let change = self.change_for(requester, chmod_of(node), node, KEPT)?;
        let changed = |old: &Ownership| Ok(Ownership { mode: mode & 0o7777, ..*old });
        self.change_attributes(&change, requester.caller(), node, changed)?;
        Ok(())
    }

    /// Whether the requester may change a mode: for who changes several, or none.
    pub fn may_chmod(&self, requester: &Requester, node: Node) -> Result<(), RequestError> {
        Ok(self.permit(requester, chmod_of(node), node, KEPT)?)
    }

    /// Kills every process of a group and of those below it.
    pub fn kill_for(&self, requester: &Requester, group: GroupId) -> Result<(), RequestError> {
        let change = self.change_for(requester, Act::Kill, Node::Group(group), KEPT)?;
        if !requester.is_host_root() {
            self.may_kill_all(requester, group)?;
        }
        Ok(self.kill_all(&change, group)?)
    }

    /// Whether all processes of a group and of those below it are the requester's to move, and so to kill: the group may be its
    /// own, and others have put processes there. Nobody attaches meanwhile; who is forked
    /// meanwhile is not asked about.
    fn may_kill_all(&self, requester: &Requester, group: GroupId) -> Result<(), RequestError> {
        let map = self.pins.map_of(requester.caller().task.ok_or(PermitError::CallerGone)?);
        let map = map.map_err(|_| PermitError::CallerGone)?;
        // Without waiting for other changes: this one would wait for itself.
        let leaves = leaves_below(&self.lock_forest(), group);
        let found = leaves.iter().map(|leaf| self.processes_of_leaf(leaf)).collect::<Result<Vec<_>, _>>();
        for process in found.map_err(EffectError::from).map_err(ReadError::from)?.into_iter().flatten() {
            // Who has ended meanwhile needs no killing.
            let Ok((_, standing)) = self.pins.open(process) else { continue };
            match map.from_host(process) {
                Some(_) if requester.who().may_move(&standing.credentials) => {}
                Some(named) => return Err(KillError::NotOwner(named).into()),
                None => return Err(KillError::Unseen(group).into()),
            }
        }
        if requester.is_there() { Ok(()) } else { Err(PermitError::CallerGone.into()) }
    }

    /// Has a group removed when its last process and its last child have gone.
    pub fn remove_on_empty_for(&self, requester: &Requester, group: GroupId) -> Result<(), RequestError> {
        let change = self.change_for(requester, Act::RemoveOnEmpty, Node::Group(group), KEPT)?;
        Ok(self.set_remove_on_empty(&change, group)?)
    }

    /// Every setting of a group, and who enforces it.
    pub fn status_for(
        &self,
        requester: &Requester,
        group: GroupId,
    ) -> Result<Vec<SettingStatus>, RequestError> {
        self.look_for(requester, group)?;
        Ok(self.status(group)?)
    }

    /// What is written to a group to give it the settings of this one.
    pub fn settings_for(
        &self,
        requester: &Requester,
        group: GroupId,
    ) -> Result<Vec<KeptSetting>, RequestError> {
        self.look_for(requester, group)?;
        Ok(self.settings(group)?)
    }

    /// The tasks or processes of a group, by the requester's numbers.
    pub fn members_for(
        &self,
        requester: &Requester,
        group: GroupId,
        ids: Ids,
    ) -> Result<Vec<Pid>, RequestError> {
        self.look_for(requester, group)?;
        Ok(self.tasks(requester.caller(), group, ids)?)
    }

    /// The tasks of a group that the requester sees: by its own numbers, ascending, and by the daemon's.
    pub fn tasks_seen_for(
        &self,
        requester: &Requester,
        group: GroupId,
    ) -> Result<Vec<(Pid, HostPid)>, RequestError> {
        self.look_for(requester, group)?;
        Ok(self.tasks_seen(requester.caller(), group, Ids::Tasks)?)
    }

    /// The group of a process in one hierarchy.
    pub fn group_of_for(
        &self,
        requester: &Requester,
        process: &Named,
        hierarchy: HierarchyId,
    ) -> Result<GroupId, RequestError> {
        let found = self.group_ids_of(process.task)?;
        if let Some(held) = &process.held {
            held.verify().map_err(|_| no_process(process.task))?;
        }
        let of_hierarchy = found.into_iter().find(|(info, _)| info.id == hierarchy);
        let (_, group) =
            of_hierarchy.ok_or_else(|| LookupError::NotFound(format!("hierarchy {hierarchy}").into()))?;
        self.look_for(requester, group)?;
        Ok(group)
    }

    /// The group of a process in every hierarchy, as the requester may name it: `None` where that is not below its own.
    pub fn groups_of_for(
        &self,
        requester: &Requester,
        process: &Named,
    ) -> Result<Vec<(HierarchyInfo, Option<OsString>)>, RequestError> {
        let mut places = Vec::new();
        for (hierarchy, group) in self.group_ids_of(process.task)? {
            if let Some(held) = &process.held {
                held.verify().map_err(|_| no_process(process.task))?;
            }
            let path = self.path_for(requester, group)?;
            places.push((hierarchy, path));
        }
        Ok(places)
    }

    /// A group's path as the requester names it: from its own group, `.` for that itself. For the host's root, from the
    /// root. `None` if it is neither the requester's own nor below.
    pub fn path_for(&self, requester: &Requester, group: GroupId) -> Result<Option<OsString>, PermitError> {
        if requester.is_host_root() {
            return Ok(self.path(group));
        }
        self.path_from_own(requester, group)
    }

    /// A group's path from the requester's own group, whoever it is; `.` for that itself. `None` if it is not below.
    pub fn path_from_own(
        &self,
        requester: &Requester,
        group: GroupId,
    ) -> Result<Option<OsString>, PermitError> {
        let hierarchy = self.lock_forest().group(group).map(|group| group.hierarchy());
        let own = self.own_group(requester, hierarchy.ok_or(pinfold_model::GroupGone(group))?)?;
        let forest = self.lock_forest();
        let is_seen = group == own || has_below(requester, &forest, own);
        Ok(is_seen.then(|| crate::names::path_between(&forest, own, group)).flatten())
    }
}

fn asked<'a>(authority: Authority<'a>, group: GroupId, process: &'a Named) -> Asked<'a> {
    Asked { authority, group, process: process.task, named: process.named, held: process.held.as_deref() }
}

fn chmod_of(node: Node) -> Act {
    match node {
        Node::Group(_) => Act::Chmod,
        Node::File(..) => Act::ChmodFile,
    }
}

fn no_process(task: HostPid) -> LookupError {
    LookupError::NotFound(format!("process {task}").into())
}
