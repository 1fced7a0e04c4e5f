//! What each method does, whoever is found to ask for it: in terms of the realm, which decides whether it may.

use std::collections::BTreeMap;
use std::ffi::OsStr;

use pinfold_files::Write;
use pinfold_model::{Errno, GroupId, HostPid, NewOwner, Pid};
use pinfold_realm::{HierarchyInfo, Named, Node, Realm, RequestError, Requester};

use super::client::Key;
use super::names::{self, Among};
use crate::error::Refusal;
use crate::group_name::GroupPath;
use crate::manager::Daemon;
use crate::select::{self, Selected, full_name};
use crate::{groups, values};

/// Somebody's requests to a daemon.
pub(super) struct Asking<'a> {
    /// The daemon.
    pub(super) daemon: &'a Daemon,
    /// Who asks.
    pub(super) requester: &'a Requester,
}

/// Whether something was there before. Clients know 1 and -1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Existed {
    Yes,
    No,
}

/// The type of a plain file, in a mode.
///
/// Source: inode(7), `S_IFREG`.
const PLAIN_FILE: u32 = 0o100_000;

impl Asking<'_> {
    fn realm(&self) -> &Realm {
        &self.daemon.realm
    }

    fn find(&self, hierarchy: &HierarchyInfo, path: &GroupPath) -> Result<Selected, Refusal> {
        select::resolve(self.realm(), self.requester, hierarchy, path)
    }

    /// The one group that a call looks at.
    fn look_up(&self, controller: &str, cgroup: &str) -> Result<Selected, Refusal> {
        let hierarchy = names::hierarchy(self.realm(), controller)?;
        self.find(&hierarchy, &names::from_anywhere(cgroup)?)
    }

    /// Does something in each hierarchy, and waits until every mount shows it.
    fn in_each(
        &self,
        among: &Among,
        mut act: impl FnMut(&HierarchyInfo) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let done = among.iter().try_for_each(|hierarchy| match act(hierarchy) {
            Err(refusal) if among.passes_over(&refusal) => Ok(()),
            answer => answer,
        });
        (self.daemon.settle)();
        done
    }

    /// Does something to the group of each hierarchy.
    fn to_each(
        &self,
        controllers: &str,
        cgroup: &str,
        act: impl Fn(&Selected) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let path = names::from_own(cgroup)?;
        let among = names::hierarchies(self.realm(), controllers)?;
        self.in_each(&among, |hierarchy| act(&self.find(hierarchy, &path)?))
    }

    /// Where a process is, from the group of who asks, which is `/`.
    pub(super) fn pid_cgroup(&self, controller: &str, process: &Named) -> Result<String, Refusal> {
        let path = self.place_of(controller, process, self.requester)?;
        Ok(if path == "." { "/".to_owned() } else { path })
    }

    /// Where a process is, from the root; for others than the host's root, from the group of who is connected.
    pub(super) fn pid_cgroup_abs(&self, controller: &str, process: &Named) -> Result<String, Refusal> {
        if self.requester.is_host_root() {
            let (_, group) = self.group_of(controller, process)?;
            return Ok(self.realm().path(group).unwrap_or_default().to_string_lossy().into_owned());
        }
        let path = self.place_of(controller, process, self.requester.connected())?;
        Ok(if path == "." { "/".to_owned() } else { format!("/{path}") })
    }

    fn group_of(&self, controller: &str, process: &Named) -> Result<(HierarchyInfo, GroupId), Refusal> {
        let hierarchy = names::hierarchy(self.realm(), controller)?;
        let group = self.realm().group_of_for(self.requester, process, hierarchy.id);
        let group = group.map_err(|error| match error {
            RequestError::NotFound(_) => Refusal::new(Errno::ESRCH, "there is no such process"),
            error => Refusal::because(self.requester, error.errno(), "its group", &error),
        })?;
        Ok((hierarchy, group))
    }

    fn place_of(&self, controller: &str, process: &Named, from: &Requester) -> Result<String, Refusal> {
        let (hierarchy, group) = self.group_of(controller, process)?;
        let path = self.realm().path_from_own(from, group);
        let path = path.map_err(|error| Refusal::because(from, error.errno(), "its group", &error))?;
        let path = path.ok_or_else(|| {
            let label = hierarchy.label;
            Refusal::new(Errno::ENOENT, format!("the process is not below the caller's own group of {label}"))
        })?;
        Ok(path.to_string_lossy().into_owned())
    }

    /// Makes a group, and those above it that are not there. All of them or none.
    pub(super) fn create(&self, controllers: &str, cgroup: &str) -> Result<Existed, Refusal> {
        let path = names::from_own(cgroup)?;
        if path.steps().is_empty() {
            return Ok(Existed::No);
        }
        let among = names::hierarchies(self.realm(), controllers)?;
        let mut existed = Existed::No;
        let mut made = Vec::new();
        let done = self.in_each(&among, |hierarchy| {
            if self.create_in(hierarchy, &path, &mut made)? == Existed::Yes {
                existed = Existed::Yes;
            }
            Ok(())
        });
        match done {
            Ok(()) => Ok(existed),
            Err(refusal) => {
                groups::take_back(self.realm(), self.requester, &made);
                Err(refusal)
            }
        }
    }

    fn create_in(
        &self,
        hierarchy: &HierarchyInfo,
        path: &GroupPath,
        made: &mut Vec<Selected>,
    ) -> Result<Existed, Refusal> {
        let mut at = self.find(hierarchy, &path.start())?;
        let mut existed = Existed::Yes;
        for step in path.steps() {
            let name = OsStr::new(step);
            // One that is not to be known of is not there: making it is refused.
            let is_known = |group| self.realm().look_for(self.requester, group).is_ok();
            let child = |at: &Selected| match self.realm().lookup(at.group, name) {
                Ok(Node::Group(group)) if is_known(group) => Some(at.child(name, group)),
                _ => None,
            };
            (at, existed) = match child(&at) {
                Some(found) => (found, Existed::Yes),
                None => match self.realm().make_for(self.requester, at.group, name) {
                    Ok(group) => {
                        made.push(at.child(name, group));
                        (at.child(name, group), Existed::No)
                    }
                    Err(error) => {
                        // Somebody else may have made it meanwhile.
                        let found = child(&at).filter(|_| error.errno() == Errno::EEXIST);
                        (
                            found.ok_or_else(|| about(self.requester, &at.child(name, at.group), &error))?,
                            Existed::Yes,
                        )
                    }
                },
            };
        }
        Ok(existed)
    }

    /// Gives a group to another user.
    pub(super) fn chown(&self, controllers: &str, cgroup: &str, to: NewOwner) -> Result<(), Refusal> {
        self.to_each(controllers, cgroup, |found| {
            let given = self.realm().chown_for(self.requester, found.group, to);
            given.map_err(|error| about(self.requester, found, &error))
        })
    }

    /// Changes the mode of a group's directory or, with a name, of that file.
    pub(super) fn chmod(
        &self,
        controllers: &str,
        cgroup: &str,
        file: &str,
        mode: i32,
    ) -> Result<(), Refusal> {
        let mode = u16::try_from(mode).ok().filter(|mode| *mode <= 0o7777);
        let mode = mode.ok_or_else(|| Refusal::new(Errno::EINVAL, "a mode has four octal digits"))?;
        self.to_each(controllers, cgroup, |found| match file {
            "" => {
                let changed = self.realm().chmod_for(self.requester, Node::Group(found.group), mode);
                changed.map_err(|error| about(self.requester, found, &error))
            }
            file => values::chmod(self.realm(), self.requester, std::slice::from_ref(found), file, mode),
        })
    }

    /// Moves a process, to a group below that of who asks.
    pub(super) fn move_pid(&self, controllers: &str, cgroup: &str, process: &Named) -> Result<(), Refusal> {
        if cgroup.starts_with('/') {
            let why = format!("{cgroup}: a path from the root is for MovePidAbs");
            return Err(Refusal::new(Errno::EINVAL, why));
        }
        let path = names::from_own(cgroup)?;
        self.move_to(controllers, process, |hierarchy| self.find(hierarchy, &path))
    }

    /// Moves a process, to a group named from the root; for others than the host's root, from the group of who is connected.
    pub(super) fn move_pid_abs(
        &self,
        controllers: &str,
        cgroup: &str,
        process: &Named,
    ) -> Result<(), Refusal> {
        let path = match self.requester.is_host_root() {
            true => names::from_anywhere(&format!("/{cgroup}"))?,
            false => names::from_own(cgroup)?,
        };
        self.move_to(controllers, process, |hierarchy| {
            select::resolve(self.realm(), self.requester.connected(), hierarchy, &path)
        })
    }

    /// Moves a process in each hierarchy, also after it was refused in one.
    fn move_to(
        &self,
        controllers: &str,
        process: &Named,
        find: impl Fn(&HierarchyInfo) -> Result<Selected, Refusal>,
    ) -> Result<(), Refusal> {
        let among = names::hierarchies(self.realm(), controllers)?;
        let moved = among.iter().map(|hierarchy| {
            let to = find(hierarchy)?;
            values::attach(self.realm(), self.requester, std::slice::from_ref(&to), process)
        });
        let refusals: Vec<_> = moved.filter_map(Result::err).collect();
        refusals.into_iter().next().map_or(Ok(()), Err)
    }

    /// What a control file says, without the newline at its end.
    pub(super) fn get_value(&self, controller: &str, cgroup: &str, key: &str) -> Result<String, Refusal> {
        let found = self.look_up(controller, cgroup)?;
        let text = values::get(self.realm(), self.requester, &[found], key)?;
        Ok(text.trim_end_matches('\n').to_owned())
    }

    /// Writes a control file; not one that moves processes.
    pub(super) fn set_value(
        &self,
        controller: &str,
        cgroup: &str,
        key: &str,
        value: &str,
    ) -> Result<(), Refusal> {
        let found = self.look_up(controller, cgroup)?;
        if let Some(Node::File(_, file)) = values::node(self.realm(), &found, key)?
            && matches!(pinfold_files::file(file).1.write, Write::Attach(_))
        {
            let name = found.name();
            return Err(Refusal::new(Errno::EPERM, format!("{key} of {name}: processes move by MovePid")));
        }
        values::set(self.realm(), self.requester, &[found], key, value)
    }

    /// Removes a group; with `recursive`, those below it too. A group with processes stays, and so do those above it.
    pub(super) fn remove(
        &self,
        controllers: &str,
        cgroup: &str,
        recursive: bool,
    ) -> Result<Existed, Refusal> {
        let path = names::from_own(cgroup)?;
        if path.steps().is_empty() {
            return Err(Refusal::new(Errno::EBUSY, "the caller's own group is not removed from inside"));
        }
        let among = names::hierarchies(self.realm(), controllers)?;
        // Of several, cgmanager says that they were there whether or not.
        let mut existed = if matches!(among, Among::One(_)) { Existed::No } else { Existed::Yes };
        self.in_each(&among, |hierarchy| {
            let top = match self.find(hierarchy, &path) {
                Err(refusal) if refusal.errno() == "ENOENT" => return Ok(()),
                found => found?,
            };
            existed = Existed::Yes;
            let doomed = match recursive {
                true => groups::all_in(self.realm(), self.requester, &top)?,
                false => vec![top.group],
            };
            // Children before their parents, and each that can go.
            let mut first_refusal = Ok(());
            for group in doomed.into_iter().rev() {
                if let Err(error) = self.realm().remove_for(self.requester, group)
                    && first_refusal.is_ok()
                {
                    let named = groups::named(self.realm(), self.requester, &top, group);
                    first_refusal = Err(about(self.requester, &named, &error));
                }
            }
            first_refusal
        })?;
        Ok(existed)
    }

    fn below(&self, top: &Selected) -> Result<Vec<Selected>, Refusal> {
        groups::below(self.realm(), self.requester, top, &mut groups::most_paths(self.requester))
    }

    fn remove_one(&self, group: &Selected) -> Result<(), Refusal> {
        self.realm()
            .remove_for(self.requester, group.group)
            .map_err(|error| about(self.requester, group, &error))
    }

    /// The tasks of a group, by the numbers of who asks, and by the daemon's.
    pub(super) fn tasks(&self, controller: &str, cgroup: &str) -> Result<Vec<(Pid, HostPid)>, Refusal> {
        let found = self.look_up(controller, cgroup)?;
        let tasks = self.realm().tasks_seen_for(self.requester, found.group);
        tasks.map_err(|error| about(self.requester, &found, &error))
    }

    /// The tasks of a group and those below it, in every hierarchy named that has it.
    pub(super) fn tasks_recursive(
        &self,
        controllers: &str,
        cgroup: &str,
    ) -> Result<Vec<(Pid, HostPid)>, Refusal> {
        let path = names::from_anywhere(cgroup)?;
        let among = names::hierarchies(self.realm(), controllers)?;
        let mut all = BTreeMap::new();
        for hierarchy in among.iter() {
            let top = match self.find(hierarchy, &path) {
                Err(refusal)
                    if among.passes_over(&refusal)
                        || refusal.errno() == "ENOENT" && matches!(among, Among::Several(_)) =>
                {
                    continue;
                }
                found => found?,
            };
            for group in groups::all_in(self.realm(), self.requester, &top)? {
                match self.realm().tasks_seen_for(self.requester, group) {
                    // One that went while others were read has no tasks any more.
                    Err(error) if error.errno() == Errno::ENODEV => {}
                    tasks => {
                        let named = || groups::named(self.realm(), self.requester, &top, group);
                        all.extend(tasks.map_err(|error| about(self.requester, &named(), &error))?);
                    }
                }
            }
        }
        Ok(all.into_iter().collect())
    }

    /// The names of the groups in a group.
    pub(super) fn children(&self, controller: &str, cgroup: &str) -> Result<Vec<String>, Refusal> {
        let found = self.look_up(controller, cgroup)?;
        let children = groups::list_children(self.realm(), self.requester, &[found], false)?;
        let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
        Ok(children.into_iter().map(|child| name(&child.path)).collect())
    }

    /// Has a group removed when its last process or its last child has gone.
    pub(super) fn remove_on_empty(&self, controllers: &str, cgroup: &str) -> Result<(), Refusal> {
        self.to_each(controllers, cgroup, |found| {
            let set = self.realm().remove_on_empty_for(self.requester, found.group);
            set.map_err(|error| about(self.requester, found, &error))
        })
    }

    /// Removes a group and those below it that are empty, and has the others removed when they are.
    pub(super) fn prune(&self, controllers: &str, cgroup: &str) -> Result<(), Refusal> {
        let path = names::from_own(cgroup)?;
        let among = names::hierarchies(self.realm(), controllers)?;
        self.in_each(&among, |hierarchy| {
            match self.find(hierarchy, &path).and_then(|top| self.prune_from(&top, &path)) {
                // Of several, none keeps the others.
                Err(_) if matches!(among, Among::Several(_)) => Ok(()),
                answer => answer,
            }
        })
    }

    /// Everybody's own group stays: who asks is in it.
    fn prune_from(&self, top: &Selected, path: &GroupPath) -> Result<(), Refusal> {
        for group in self.below(top)?.iter().rev() {
            self.remove_when_empty(group)?;
        }
        if path.steps().is_empty() {
            return Ok(());
        }
        match self.remove_when_empty(top) {
            // What is below was asked for too; the group itself may be another's to remove.
            Err(refusal) if matches!(refusal.errno(), "EACCES" | "EPERM") => Ok(()),
            answer => answer,
        }
    }

    fn remove_when_empty(&self, group: &Selected) -> Result<(), Refusal> {
        match self.remove_one(group) {
            Err(refusal) if refusal.errno() == "EBUSY" => {
                let set = self.realm().remove_on_empty_for(self.requester, group.group);
                set.map_err(|error| about(self.requester, group, &error))
            }
            // Somebody else was faster.
            Err(refusal) if matches!(refusal.errno(), "ENODEV" | "ENOENT") => Ok(()),
            answer => answer,
        }
    }

    /// The controllers of each hierarchy, with commas between them.
    pub(super) fn controllers(&self) -> Vec<String> {
        self.realm().hierarchies().into_iter().map(|hierarchy| hierarchy.label).collect()
    }

    /// The control files of a group.
    pub(super) fn keys(&self, controller: &str, cgroup: &str) -> Result<Vec<Key>, Refusal> {
        let found = self.look_up(controller, cgroup)?;
        let keys = groups::list_keys(self.realm(), self.requester, &[found])?.into_iter();
        Ok(keys.map(|key| (key.name, key.uid, key.gid, PLAIN_FILE | key.mode)).collect())
    }
}

fn about(requester: &Requester, selected: &Selected, error: &RequestError) -> Refusal {
    Refusal::because(requester, error.errno(), full_name(&selected.label, &selected.path), error)
}
