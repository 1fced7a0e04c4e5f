//! Hierarchies: mounted, changed, forgotten; and what the realm tells of them.

use pinfold_files::{FileId, MountOptions, Needs, Unaided};
use pinfold_kernel::inspect;
use pinfold_model::{
    ControllerId, ControllerSet, Forest, GroupId, HierarchyId, HostPid, MountPlan, Seat, Settings, Uid, Value,
};

use crate::names::path_of;
use crate::realm::{label, now, own, state_path};
use crate::record;
use crate::state::GroupPath;
use crate::tracker::{COUNTED, Tracker};
use crate::write::may_administer;
use crate::{
    BoundElsewhere, Caller, Changed, ControllerInfo, EffectError, Fate, HierarchyChange, HierarchyInfo,
    LookupError, MountError, Realm, RemountError,
};

/// The mode of a hierarchy's root directory: cgroup_setup_root(), kernfs_create_root(). Root may make groups there all the same; whom
/// else the daemon runs as needs the mode for it.
fn root_mode() -> u16 {
    if rustix::process::geteuid().is_root() { 0o555 } else { 0o755 }
}

/// Why limits on descriptors cannot be set here.
pub(crate) const NO_RESOURCE_LIMITS: &str =
    "setting resource limits of other processes takes CAP_SYS_RESOURCE in the first user namespace";

impl Realm {
    /// Finds or makes the hierarchy that the options mean, and holds it until [`Realm::unmounted`].
    pub fn mount(&self, caller: &Caller, options: &MountOptions) -> Result<HierarchyId, MountError> {
        if !self.may_mount(caller) || options.release_agent.is_some() && !may_administer(caller) {
            return Err(MountError::NotPermitted);
        }
        let _change = self.begin_change()?;
        let plan = {
            let mut forest = self.lock_forest();
            forest.plan_mount(options.request.clone()).map_err(|refused| match refused {
                pinfold_model::MountError::Bound(id) => bound_elsewhere(&forest, id).into(),
                refused => MountError::from(refused),
            })?
        };
        let settings = settings_of(options);
        let ownership = own(root_mode());
        let mut made = None;
        if let MountPlan::New { id, root, request } = &plan {
            let label = label(request.controllers, request.name.as_ref().map(|name| name.as_str()));
            let at = GroupPath::root(&label);
            made = Some(label);
            let text = record::hierarchy_text(*id, *root, request.flags, &settings);
            if let Err(error) = self.state.make_group(&at, ownership, &text) {
                self.lock_forest().abort_mount(plan);
                return Err(EffectError::from(error).into());
            }
        }
        let hierarchy = self.lock_forest().commit_mount(plan, ownership, settings, now());
        if let Some(label) = made {
            self.tell_hierarchy(label, Fate::Created);
        }
        self.count_time();
        Ok(hierarchy)
    }

    fn tell_hierarchy(&self, label: String, fate: Fate) {
        self.watchers.tell(&Changed::Hierarchy(HierarchyChange { label, fate }));
    }

    /// Has CPU time counted if there is a hierarchy that shows it: without the kernel that is work.
    pub(crate) fn count_time(&self) {
        let shows = |id: &ControllerId| {
            pinfold_files::controller(*id).counters.iter().any(|counter| counter.source.file() == COUNTED)
        };
        let is_wanted = {
            let forest = self.lock_forest();
            self.enabled.iter().filter(shows).any(|id| forest.bound_to(id).is_some())
        };
        self.tracker.account(is_wanted);
    }

    /// Gives a hierarchy without child groups other controllers, or another release agent.
    pub fn remount(
        &self,
        caller: &Caller,
        hierarchy: HierarchyId,
        options: &MountOptions,
    ) -> Result<(), RemountError> {
        if !self.may_mount(caller) || options.release_agent.is_some() && !may_administer(caller) {
            return Err(RemountError::NotPermitted);
        }
        let _change = self.begin_change()?;
        let request = options.request.clone();
        let (plan, old, new, text, settings, before) = {
            let forest = self.lock_forest();
            let plan = forest.plan_remount(hierarchy, &request).map_err(|refused| match refused {
                pinfold_model::RemountError::Bound(id) => bound_elsewhere(&forest, id).into(),
                refused => RemountError::from(refused),
            })?;
            let found = forest.hierarchy(hierarchy).ok_or(pinfold_model::RemountError::Gone)?;
            let name = found.name().map(|name| name.as_str());
            let (old, new) = (label(found.controllers(), name), label(request.controllers, name));
            let root = forest.group(found.root()).ok_or(pinfold_model::RemountError::Gone)?;
            let mut settings = root.settings().clone();
            if let Some(agent) = agent_of(options) {
                settings.replace(pinfold_files::RELEASE_AGENT.key, Some(agent));
            }
            let now =
                record::GroupText::of(&forest, found.root()).ok_or(pinfold_model::RemountError::Gone)?;
            let text = record::GroupText { settings: &settings, ..now }.print();
            (plan, old, new, text, settings, found.controllers())
        };
        let (from, to) = (GroupPath::root(&old), GroupPath::root(&new));
        if old != new {
            // With groups below, a hierarchy keeps its controllers and so its label.
            self.state.rename_group(&from, &to, 0).map_err(EffectError::from)?;
        }
        if let Err(error) = self.state.write_settings(&to, &text) {
            if old != new
                && let Err(stuck) = self.state.rename_group(&to, &from, 0)
            {
                tracing::error!("a remount was refused and half kept: {stuck}");
            }
            return Err(EffectError::from(error).into());
        }
        let root = {
            let mut forest = self.lock_forest();
            forest.commit_remount(plan);
            let root = forest.hierarchy(hierarchy).map(|found| found.root());
            if let Some(root) = root.and_then(|root| forest.group_mut(root)) {
                *root.settings_mut() = settings;
            }
            root
        };
        if let Some(root) = root {
            self.tell_files(caller, hierarchy, root, before, request.controllers);
        }
        if old != new {
            self.tell_hierarchy(old, Fate::Removed);
            self.tell_hierarchy(new, Fate::Created);
        }
        self.count_time();
        Ok(())
    }

    /// Tells of the root's control files that came or went with their controllers.
    fn tell_files(
        &self,
        caller: &Caller,
        hierarchy: HierarchyId,
        root: GroupId,
        before: ControllerSet,
        after: ControllerSet,
    ) {
        let changed = before.union(after).difference(before.intersection(after));
        let core = |id: &FileId| pinfold_files::file(*id).0.name.is_empty();
        for file in pinfold_files::list(changed, true, &self.facts).filter(|id| !core(id)) {
            let name = pinfold_files::full_name(file, false).into_owned().into();
            self.watchers.tell(&Changed::Entry { hierarchy, parent: root, name, via: caller.via });
        }
    }

    /// A mount has gone. A hierarchy with neither mounts nor child groups goes too.
    pub fn unmounted(&self, hierarchy: HierarchyId) {
        let change = self.lock_change();
        if change.closed || !self.lock_forest().unmounted(hierarchy) {
            return;
        }
        let (path, label) = {
            let mut forest = self.lock_forest();
            let root = forest.hierarchy(hierarchy).map(|found| found.root());
            let path = root.and_then(|root| state_path(&forest, root));
            let label = info_of(&forest, hierarchy).map(|info| info.label);
            forest.destroy(hierarchy);
            root.into_iter().for_each(|root| self.notices.removed(root));
            (path, label)
        };
        label.into_iter().for_each(|label| self.tell_hierarchy(label, Fate::Removed));
        self.count_time();
        if let Some(Err(error)) = path.map(|path| self.state.remove_group(&path)) {
            tracing::warn!("a hierarchy without mounts and groups is still kept: {error}");
        }
    }

    /// Every hierarchy, oldest first.
    pub fn hierarchies(&self) -> Vec<HierarchyInfo> {
        let forest = self.lock_forest();
        forest.hierarchies().filter_map(|(id, _)| info_of(&forest, id)).collect()
    }

    /// Every controller, in the kernel's order.
    pub fn controllers(&self) -> Vec<ControllerInfo> {
        let forest = self.lock_forest();
        let info = |id| {
            let controller = pinfold_files::controller(id);
            let hierarchy = forest.bound_to(id);
            ControllerInfo {
                name: controller.name,
                about: controller.about,
                usable: if self.enabled.contains(id) { Ok(()) } else { Err(self.why_not(id)) },
                hierarchy,
                groups: hierarchy.and_then(|id| forest.hierarchy(id)).map_or(0, |found| found.groups()),
            }
        };
        pinfold_files::controllers().iter().map(info).collect()
    }

    /// The group of a process in every hierarchy: what `/proc/PID/cgroup` says, newest hierarchy first.
    pub fn groups_of(
        &self,
        process: HostPid,
    ) -> Result<Vec<(HierarchyInfo, std::ffi::OsString)>, LookupError> {
        let groups = self.group_ids_of(process)?;
        let forest = self.lock_forest();
        Ok(groups.into_iter().filter_map(|(info, group)| Some((info, path_of(&forest, group)?))).collect())
    }

    pub(crate) fn group_ids_of(
        &self,
        process: HostPid,
    ) -> Result<Vec<(HierarchyInfo, GroupId)>, LookupError> {
        let seat = self
            .seat_of(process)
            .ok_or_else(|| LookupError::NotFound(format!("process {process}").into()))?;
        let forest = self.lock_forest();
        let place = |(id, found): (HierarchyId, &pinfold_model::Hierarchy)| {
            let group = match &seat {
                Seat::Outside(_) => found.root(),
                Seat::Cell(cell) => forest.group_of(*cell, id).unwrap_or(found.root()),
            };
            Some((info_of(&forest, id)?, group))
        };
        let mut places: Vec<_> = forest.hierarchies().filter_map(place).collect();
        places.reverse();
        Ok(places)
    }

    /// Whoever the daemon runs as, and root.
    fn may_mount(&self, caller: &Caller) -> bool {
        caller.uid == Uid(0) || caller.uid == own(0).uid
    }

    /// Why a controller cannot be mounted here.
    pub fn why_not(&self, id: ControllerId) -> String {
        let controller = pinfold_files::controller(id);
        if let (true, Unaided::Refused(why)) = (self.tracker.is_user_space(), controller.unaided) {
            return format!("there is no v2 tree, and {why}");
        }
        let name = match controller.needs {
            Needs::Controller(name) => name,
            Needs::Tree => return "the kernel below does not have it".to_owned(),
            Needs::ResourceLimits => return NO_RESOURCE_LIMITS.to_owned(),
            Needs::Program => {
                let answer = inspect::programs().err();
                let answer = answer.map_or_else(|| "not at the start".to_owned(), |errno| errno.to_string());
                return format!("the kernel would not take a BPF program for a v2 directory: {answer}");
            }
        };
        match controller.unaided {
            Unaided::Refused(why) => format!("{}, and {why}", not_offered(&self.tracker, name)),
            Unaided::Served(_) => not_offered(&self.tracker, name),
        }
    }

    /// Says which controllers are done from user space though there is a v2 tree, and why.
    pub(crate) fn tell_what_is_unaided(&self) {
        let is_told = |id: &ControllerId| !self.tracker.is_user_space() && self.tracker.is_unaided(*id);
        for controller in self.enabled.iter().filter(is_told).map(pinfold_files::controller) {
            if let Needs::Controller(name) = controller.needs {
                let why = not_offered(&self.tracker, name);
                tracing::warn!("controller {} is done from user space: {why}", controller.name);
            }
        }
    }
}

/// Why the v2 tree does not offer a controller.
fn not_offered(tracker: &Tracker, name: &str) -> String {
    let base = tracker.base().unwrap_or_default();
    match tracker.refused(name) {
        Some(errno) => format!("the kernel would not switch on {name} below {}: {errno}", base.display()),
        None => format!("{name} is not in cgroup.controllers of {}", base.display()),
    }
}

fn info_of(forest: &Forest, id: HierarchyId) -> Option<HierarchyInfo> {
    let found = forest.hierarchy(id)?;
    let name = found.name().map(|name| name.as_str().to_owned());
    Some(HierarchyInfo {
        id,
        controllers: found.controllers(),
        label: label(found.controllers(), name.as_deref()),
        name,
        mounts: found.mounts(),
        groups: found.groups(),
        root: found.root(),
    })
}

fn bound_elsewhere(forest: &Forest, id: ControllerId) -> BoundElsewhere {
    let info = forest.bound_to(id).and_then(|hierarchy| info_of(forest, hierarchy));
    BoundElsewhere {
        controller: pinfold_files::controller(id).name,
        label: info.map_or_else(|| "another hierarchy".to_owned(), |info| info.label),
    }
}

/// What the root group of a new hierarchy keeps.
fn settings_of(options: &MountOptions) -> Settings {
    let mut settings = Settings::NONE;
    if options.clone_children {
        settings.replace(pinfold_files::CLONE_CHILDREN.key, Some(Value::Flag(true)));
    }
    settings.replace(pinfold_files::RELEASE_AGENT.key, agent_of(options));
    settings
}

fn agent_of(options: &MountOptions) -> Option<Value> {
    options.release_agent.as_ref().map(|agent| Value::Text(agent.clone().into_bytes()))
}
