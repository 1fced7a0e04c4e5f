//! The interface itself: each method translates its arguments, calls the realm and translates the answer.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use pinfold_model::{Errno, Gid, HierarchyId, HostPid, Pid, Uid};
use pinfold_realm::{Caller, Enforced, FrontEnd, Realm, SettingStatus};
use rustix::net::UCred;
use zbus::Variant;

use crate::error::{Refusal, chain};
use crate::group_name::GroupName;
use crate::select::{self, Selected};
use crate::subscribe::Events;
use crate::wire::{Child, Controller, Hierarchy, Key, Membership, Setting};
use crate::{groups, values};

/// What the manager needs of the daemon around it: the realm, and what is done by more than the realm.
pub struct Daemon {
    /// The realm.
    pub realm: Arc<Realm>,
    /// Process events.
    pub events: Events,
    /// Makes a mount of the hierarchy that v1 mount options name, not yet attached anywhere.
    pub mount: Box<MakeMount>,
    /// Changes a hierarchy by v1 mount options.
    pub remount: Box<Remount>,
    /// Waits until every mount shows the changes that were made up to now.
    pub settle: Box<Settle>,
    /// Ends the daemon; returns when all is back as it was.
    pub down: Box<Down>,
}

/// Makes a mount from v1 mount options.
pub type MakeMount = dyn Fn(&Caller, &str) -> Result<OwnedFd, Refusal> + Send + Sync;
/// Changes a hierarchy by v1 mount options.
pub type Remount = dyn Fn(&Caller, HierarchyId, &str) -> Result<(), Refusal> + Send + Sync;
/// Waits until a change shows everywhere.
pub type Settle = dyn Fn() + Send + Sync;
/// Ends the daemon.
pub type Down = dyn Fn() -> Result<(), Refusal> + Send + Sync;

impl std::fmt::Debug for Daemon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Daemon").field("realm", &self.realm.name()).finish_non_exhaustive()
    }
}

/// `org.pinfold.Manager1` as one connection sees it.
pub(crate) struct Manager {
    caller: Caller,
    daemon: Arc<Daemon>,
}

impl Manager {
    /// The manager for the peer that the kernel names.
    pub(crate) fn new(peer: &UCred, daemon: Arc<Daemon>) -> Self {
        let task = u32::try_from(peer.pid.as_raw_pid()).ok().and_then(HostPid::new);
        let (uid, gid) = (Uid(peer.uid.as_raw()), Gid(peer.gid.as_raw()));
        Self { caller: Caller { uid, gid, task, via: FrontEnd::NONE }, daemon }
    }

    fn realm(&self) -> &Realm {
        &self.daemon.realm
    }

    /// The process that the caller means by a number of its pid namespace; 0 is the caller.
    fn process(&self, pid: u32) -> Option<HostPid> {
        match Pid::new(pid) {
            None => self.caller.task,
            Some(pid) => self.realm().host_pid(&self.caller, pid),
        }
    }

    /// The result of a change, when every mount shows it.
    fn settled<T>(&self, result: Result<T, Refusal>) -> Result<T, Refusal> {
        (self.daemon.settle)();
        result
    }

    fn selected(&self, group: &str) -> Result<Vec<Selected>, Refusal> {
        select::groups(self.realm(), &parse(group)?)
    }
}

fn parse(group: &str) -> Result<GroupName, Refusal> {
    group.parse().map_err(|error| Refusal::new(Errno::EINVAL, error))
}

/// `-1` leaves an id as it is, as for chown(2).
fn id(id: i64) -> Result<Option<u32>, Refusal> {
    match id {
        -1 => Ok(None),
        id => u32::try_from(id)
            .map(Some)
            .map_err(|_| Refusal::new(Errno::EINVAL, format!("{id} is no user or group id"))),
    }
}

#[zbus::interface(name = "org.pinfold.Manager1")]
impl Manager {
    /// The daemon's version.
    #[zbus(property(emits_changed_signal = "const"))]
    async fn version(&self) -> &str {
        env!("CARGO_PKG_VERSION")
    }

    /// The realm's name.
    #[zbus(property(emits_changed_signal = "const"), name = "Realm")]
    async fn realm_name(&self) -> &str {
        self.realm().name()
    }

    /// The v2 directory that the realm works in.
    #[zbus(property(emits_changed_signal = "const"))]
    async fn base(&self) -> String {
        self.realm().base().display().to_string()
    }

    async fn ping(&self) {}

    async fn list_controllers(&self) -> Vec<Controller> {
        let controllers = self.realm().controllers().into_iter();
        let told = controllers.map(|controller| Controller {
            name: controller.name.to_owned(),
            about: controller.about.to_owned(),
            hierarchy: controller.hierarchy.map_or(0, HierarchyId::get),
            groups: controller.groups,
            unusable: controller.usable.err().unwrap_or_default(),
        });
        told.collect()
    }

    async fn list_hierarchies(&self) -> Vec<Hierarchy> {
        let hierarchies = self.realm().hierarchies().into_iter();
        let told = hierarchies.map(|hierarchy| Hierarchy {
            id: hierarchy.id.get(),
            label: hierarchy.label,
            groups: hierarchy.groups,
            mounts: hierarchy.mounts,
        });
        told.collect()
    }

    async fn list_children(&self, group: &str, recursive: bool) -> Result<Vec<Child>, Refusal> {
        groups::list_children(self.realm(), &self.selected(group)?, recursive)
    }

    async fn list_keys(&self, group: &str) -> Result<Vec<Key>, Refusal> {
        groups::list_keys(self.realm(), &self.selected(group)?)
    }

    async fn list_tasks(&self, group: &str, recursive: bool) -> Result<Vec<u32>, Refusal> {
        values::members(self.realm(), &self.caller, self.selected(group)?, "tasks", recursive)
    }

    async fn list_processes(&self, group: &str, recursive: bool) -> Result<Vec<u32>, Refusal> {
        values::members(self.realm(), &self.caller, self.selected(group)?, "cgroup.procs", recursive)
    }

    async fn status(&self, group: &str) -> Result<Vec<Setting>, Refusal> {
        let mut settings = Vec::new();
        for selected in self.selected(group)? {
            let status = self.realm().status(selected.group);
            let status = status
                .map_err(|error| Refusal::new(error.errno(), format!("{}: {error}", selected.name())))?;
            settings.extend(status.into_iter().map(|setting| tell(&selected.label, setting)));
        }
        Ok(settings)
    }

    async fn create(&self, group: &str) -> Result<Vec<String>, Refusal> {
        self.settled(groups::create(self.realm(), &self.caller, &parse(group)?))
    }

    async fn delete(&self, group: &str) -> Result<(), Refusal> {
        self.settled(groups::delete(self.realm(), &self.caller, &parse(group)?))
    }

    async fn delete_force(&self, group: &str) -> Result<(), Refusal> {
        self.settled(groups::delete_force(self.realm(), &self.caller, &parse(group)?))
    }

    #[zbus(name = "Move")]
    async fn move_process(&self, pid: u32, group: &str) -> Result<(), Refusal> {
        values::attach(self.realm(), &self.caller, &self.selected(group)?, pid)
    }

    async fn get_value(&self, group: &str, key: &str) -> Result<String, Refusal> {
        values::get(self.realm(), &self.caller, &self.selected(group)?, key)
    }

    async fn set_value(&self, group: &str, key: &str, value: &str) -> Result<(), Refusal> {
        values::set(self.realm(), &self.caller, &self.selected(group)?, key, value)
    }

    async fn chown(&self, group: &str, uid: i64, gid: i64) -> Result<(), Refusal> {
        let (uid, gid) = (id(uid)?.map(Uid), id(gid)?.map(Gid));
        self.settled(groups::chown(self.realm(), &self.caller, &self.selected(group)?, uid, gid))
    }

    async fn kill(&self, group: &str) -> Result<(), Refusal> {
        for selected in self.selected(group)? {
            self.realm().kill(&self.caller, selected.group).map_err(|error| {
                Refusal::new(error.errno(), format!("{}: {}", selected.name(), chain(&error)))
            })?;
        }
        Ok(())
    }

    async fn freeze(&self, group: &str) -> Result<(), Refusal> {
        values::set_frozen(self.realm(), &self.caller, &self.selected(group)?, "FROZEN")
    }

    async fn thaw(&self, group: &str) -> Result<(), Refusal> {
        values::set_frozen(self.realm(), &self.caller, &self.selected(group)?, "THAWED")
    }

    async fn get_group_of(&self, pid: u32) -> Result<Vec<Membership>, Refusal> {
        let no_process = || Refusal::new(Errno::ESRCH, format!("no process {pid}"));
        let task = self.process(pid).ok_or_else(no_process)?;
        let groups = self.realm().groups_of(task).map_err(|_| no_process())?;
        let told = groups.into_iter().map(|(hierarchy, path)| Membership {
            hierarchy: hierarchy.id.get(),
            label: hierarchy.label,
            path: path.to_string_lossy().into_owned(),
        });
        Ok(told.collect())
    }

    async fn mount(&self, options: &str) -> Result<zbus::OwnedFd, Refusal> {
        (self.daemon.mount)(&self.caller, options).map(zbus::OwnedFd::from)
    }

    async fn remount(&self, hierarchy: u32, options: &str) -> Result<(), Refusal> {
        let none = || Refusal::new(Errno::ENODEV, format!("no hierarchy has the number {hierarchy}"));
        let hierarchy = HierarchyId::new(hierarchy).ok_or_else(none)?;
        self.settled((self.daemon.remount)(&self.caller, hierarchy, options))
    }

    async fn subscribe(&self, scope: HashMap<String, Variant<'_>>) -> Result<zbus::OwnedFd, Refusal> {
        self.daemon.events.subscribe(&self.caller, self.realm(), &scope).map(zbus::OwnedFd::from)
    }

    async fn down(&self) -> Result<(), Refusal> {
        (self.daemon.down)()
    }
}

fn tell(label: &str, status: SettingStatus) -> Setting {
    let enforced = match status.enforced {
        Enforced::Native => "native".to_owned(),
        Enforced::Everywhere(directories) => format!("native, in {directories} v2 directories"),
        Enforced::UserSpace => "user space".to_owned(),
        Enforced::StoredOnly(why) => format!("stored only: {why}"),
    };
    Setting { hierarchy: label.to_owned(), key: status.file, value: status.value, set: status.set, enforced }
}
