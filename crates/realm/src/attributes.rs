//! Owners, modes and times of groups and of their control files.

use std::time::{Duration, SystemTime};

use pinfold_files::Facts;
use pinfold_files::FileId;
use pinfold_kernel::process::OverOthers;
use pinfold_kernel::users::users_of;
use pinfold_model::{
    FileAttributes, Forest, Group, GroupGone, GroupId, Moment, Ownership, Uid, Users, Xattrs,
};

use crate::realm::{Changes, has_file, now, state_path, surroundings};
use crate::record::GroupText;
use crate::{
    AttributeChange, AttributeError, Attributes, Caller, Changed, EffectError, LookupError, Node, Realm,
};

impl Realm {
    /// What `stat` shows.
    pub fn attributes(&self, node: Node) -> Result<Attributes, LookupError> {
        attributes_in(&self.lock_forest(), &self.facts, node)
    }

    /// chmod and chown through a mount, for root, the owner, and who has the privilege in a user namespace that the owner is in:
    /// setattr_prepare(), kernfs_iop_setattr(). The kernel has asked the same of the owner that it remembers.
    pub fn set_attributes(
        &self,
        caller: &Caller,
        node: Node,
        change: AttributeChange,
    ) -> Result<Attributes, AttributeError> {
        // Found out before others have to wait. Who asks waits for the answer and is the same afterwards.
        let old = self.attributes(node)?.ownership;
        let privileges = match changed_by(caller, None, &old, change) {
            Some(_) => None,
            None => Privileges::of(caller),
        };
        let held = self.begin_change()?;
        self.change_attributes(&held, caller, node, |old| {
            let changed = changed_by(caller, privileges.as_ref(), old, change);
            changed.ok_or(AttributeError::NotPermitted(node.group()))
        })
    }

    /// chmod and chown, of what is allowed already.
    pub(crate) fn change_attributes(
        &self,
        _change: &Changes,
        caller: &Caller,
        node: Node,
        changed: impl FnOnce(&Ownership) -> Result<Ownership, AttributeError>,
    ) -> Result<Attributes, AttributeError> {
        let (old, path) = {
            let forest = self.lock_forest();
            let old = attributes_in(&forest, &self.facts, node)?.ownership;
            (old, state_path(&forest, node.group()).ok_or(LookupError::Gone(GroupGone(node.group())))?)
        };
        let new = changed(&old)?;
        match node {
            Node::Group(group) => {
                let text = {
                    let forest = self.lock_forest();
                    let now = GroupText::of(&forest, group).ok_or(LookupError::Gone(GroupGone(group)))?;
                    GroupText { owner: None, ..now }.print()
                };
                // The files' owner first, in words that are true before and after the directory's changes.
                self.state.write_settings(&path, &text).map_err(EffectError::from)?;
                self.state.set_ownership(&path, new).map_err(EffectError::from)?;
                if let Some(found) = self.lock_forest().group_mut(group) {
                    found.set_ownership(new, now());
                }
            }
            Node::File(group, file) => {
                self.edit_file(group, file, |attributes| attributes.ownership = new)?
            }
        }
        self.tell_attributes(caller, node);
        Ok(self.attributes(node)?)
    }

    /// Changes what a group keeps about one of its files, in the state directory first.
    pub(crate) fn edit_file(
        &self,
        group: GroupId,
        file: FileId,
        edit: impl FnOnce(&mut FileAttributes),
    ) -> Result<(), EffectError> {
        let (path, text, attributes) = {
            let forest = self.lock_forest();
            let (Some(path), Some(now)) = (state_path(&forest, group), GroupText::of(&forest, group)) else {
                return Ok(());
            };
            let mut attributes = file_attributes(now.group, file);
            edit(&mut attributes);
            (path, GroupText { file: Some((file, &attributes)), ..now }.print(), attributes)
        };
        self.state.write_settings(&path, &text)?;
        if let Some(found) = self.lock_forest().group_mut(group) {
            found.set_file_attributes(file.get(), attributes);
        }
        Ok(())
    }

    pub(crate) fn tell_attributes(&self, caller: &Caller, node: Node) {
        let Some(hierarchy) = self.lock_forest().group(node.group()).map(|group| group.hierarchy()) else {
            return;
        };
        self.watchers.tell(&Changed::Attributes { hierarchy, node, via: caller.via });
    }
}

fn attributes_in(forest: &Forest, facts: &Facts, node: Node) -> Result<Attributes, LookupError> {
    let group = node.group();
    let found = forest.group(group).ok_or(GroupGone(group))?;
    let changed = system_time(found.changed());
    match node {
        Node::Group(_) => Ok(Attributes {
            ownership: found.ownership(),
            children: u32::try_from(found.children().len()).unwrap_or(u32::MAX),
            changed,
        }),
        Node::File(_, file) => {
            let around = surroundings(forest, group).ok_or(GroupGone(group))?;
            if !has_file(&around, facts, file) {
                return Err(LookupError::NotFound(pinfold_files::full_name(file, false).into_owned().into()));
            }
            Ok(Attributes { ownership: file_attributes(found, file).ownership, children: 0, changed })
        }
    }
}

/// The attributes of a control file: its own, or those of a fresh one: its maker's, with the row's mode.
pub(crate) fn file_attributes(group: &Group, file: FileId) -> FileAttributes {
    group.file_attributes(file.get()).cloned().unwrap_or_else(|| {
        let (uid, gid) = group.files_owner();
        let mode = pinfold_files::file(file).1.mode();
        FileAttributes { ownership: Ownership { uid, gid, mode }, xattrs: Xattrs::new() }
    })
}

/// What a task may do to files of others, in its user namespace.
struct Privileges {
    task: OverOthers,
    users: Users,
}

impl Privileges {
    /// Those of a caller; `None` if nothing is known of it.
    fn of(caller: &Caller) -> Option<Self> {
        let task = caller.task?;
        Some(Self { task: OverOthers::of(task), users: users_of(task).ok()? })
    }

    /// Whether it may change modes as the owner does: inode_owner_or_capable().
    fn may_chmod(&self, old: &Ownership) -> bool {
        self.task.may_chmod && self.users.has_user(old.uid)
    }

    /// Whether it may give away what has this owner: capable_wrt_inode_uidgid(). To whom has no number there, it cannot say.
    fn may_chown(&self, old: &Ownership, new: &Ownership) -> bool {
        let has = |who: &Ownership| self.users.has_user(who.uid) && self.users.has_users_group(who.gid);
        self.task.may_chown && has(old) && has(new)
    }
}

/// What the caller's change makes of an owner and a mode; `None` if it may not. Whether an owner is in the users' group
/// that he names, the kernel has asked before the request came here.
fn changed_by(
    caller: &Caller,
    privileges: Option<&Privileges>,
    old: &Ownership,
    change: AttributeChange,
) -> Option<Ownership> {
    let root = caller.uid == Uid(0);
    let owner = root || caller.uid == old.uid;
    let new = change.applied_to(old);
    let may_chmod = owner || privileges.is_some_and(|privileges| privileges.may_chmod(old));
    let may_chown = |by_itself| by_itself || privileges.is_some_and(|them| them.may_chown(old, &new));
    let allowed = (change.mode.is_none() || may_chmod)
        && (new.uid == old.uid || may_chown(root))
        && (new.gid == old.gid || may_chown(owner));
    allowed.then_some(new)
}

fn system_time(moment: Moment) -> SystemTime {
    let seconds = Duration::from_secs(moment.seconds.unsigned_abs());
    let whole =
        if moment.seconds < 0 { SystemTime::UNIX_EPOCH - seconds } else { SystemTime::UNIX_EPOCH + seconds };
    whole + Duration::from_nanos(moment.nanoseconds.into())
}
