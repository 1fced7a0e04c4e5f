//! The interface itself: each method translates its arguments, calls the realm and translates the answer.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use pinfold_files::Ids;
use pinfold_model::{Errno, GroupId, HierarchyId};
use pinfold_realm::{Caller, Node, Realm, RequestError, Requester, SettingStatus, Tracked};
use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::{Connection, Variant};
use zruntime::{Shared, SharedRuntime, Task};

use crate::error::Refusal;
use crate::group_name::GroupName;
use crate::select::{self, Selected};
use crate::signals::Signals;
use crate::subscribe::Events;
use crate::values::Process;
use crate::wire::{Child, Controller, Hierarchy, KeptSetting, Key, Membership, NamedKey, PATH, Setting};
use crate::{groups, values};

/// What the manager needs of the daemon around it: the realm, and what is done by more than the realm.
pub struct Daemon {
    /// The realm.
    pub realm: Arc<Realm>,
    /// Process events.
    pub events: Events,
    /// What becomes of groups.
    pub signals: Signals,
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
    requester: Arc<Requester>,
    daemon: Arc<Daemon>,
    /// What sends signals, once the client watches. It ends with this.
    watching: Mutex<Option<Task<(), Shared>>>,
}

impl Manager {
    /// The manager for who is at the other end.
    pub(crate) fn new(requester: Requester, daemon: Arc<Daemon>) -> Self {
        Self { requester: Arc::new(requester), daemon, watching: Mutex::new(None) }
    }

    fn realm(&self) -> &Realm {
        &self.daemon.realm
    }

    /// The result of a change, when every mount shows it.
    fn settled<T>(&self, result: Result<T, Refusal>) -> Result<T, Refusal> {
        (self.daemon.settle)();
        result
    }

    fn selected(&self, group: &str) -> Result<Vec<Selected>, Refusal> {
        select::groups(self.realm(), &self.requester, &parse(group)?)
    }

    fn each(
        &self,
        group: &str,
        act: impl Fn(&Realm, &Requester, GroupId) -> Result<(), RequestError>,
    ) -> Result<(), Refusal> {
        groups::each(&self.requester, &self.selected(group)?, |group| {
            act(self.realm(), &self.requester, group)
        })
    }

    fn members(&self, group: &str, ids: Ids, recursive: bool) -> Result<Vec<u32>, Refusal> {
        values::members(self.realm(), &self.requester, &self.selected(group)?, ids, recursive)
    }

    fn attach(&self, process: Process, group: &str) -> Result<(), Refusal> {
        let process = process.find(self.realm(), &self.requester)?;
        values::attach(self.realm(), &self.requester, &self.selected(group)?, &process)
    }

    fn groups_of(&self, process: Process) -> Result<Vec<Membership>, Refusal> {
        let gone = match &process {
            Process::Number(pid) => format!("no process {pid}"),
            Process::Descriptor(_) => "the process is gone".to_owned(),
        };
        let process = process.find(self.realm(), &self.requester)?;
        let groups = self.realm().groups_of_for(&self.requester, &process);
        let groups = groups.map_err(|error| match error {
            RequestError::NotFound(_) => Refusal::new(Errno::ESRCH, gone),
            error => Refusal::because(&self.requester, error.errno(), "its groups", &error),
        })?;
        let told = groups.into_iter().map(|(hierarchy, path)| Membership {
            hierarchy: hierarchy.id.get(),
            label: hierarchy.label,
            // As the kernel shows a group outside of the reader's cgroup namespace.
            path: path.map_or_else(|| "..".to_owned(), |path| path.to_string_lossy().into_owned()),
        });
        Ok(told.collect())
    }

    /// Sends signals from now on to who made this call. Once is enough.
    pub(crate) fn start_watching(&self, connection: &Connection, call: &Header<'_>) -> zbus::Result<()> {
        let mut watching = self.watching.lock().unwrap_or_else(PoisonError::into_inner);
        if watching.is_some() {
            return Ok(());
        }
        let mut emitter = SignalEmitter::new(connection, PATH)?.into_owned();
        // At a bus it is for this caller alone.
        if let Some(caller) = call.sender() {
            emitter = emitter.set_destination(caller.to_owned().into());
        }
        let (daemon, requester) = (Arc::clone(&self.daemon), Arc::clone(&self.requester));
        let changes = daemon.signals.watch();
        let sending = async move { changes.emit(&daemon, &requester, &emitter).await };
        *watching = Some(SharedRuntime::current()?.spawn("signals", sending));
        Ok(())
    }

    /// What concerns the daemon itself is the host's root's.
    fn for_host_root(&self, what: &str) -> Result<(), Refusal> {
        match self.requester.is_host_root() {
            true => Ok(()),
            false => Err(Refusal::new(Errno::EPERM, format!("only the host's root {what}"))),
        }
    }
}

fn parse(group: &str) -> Result<GroupName, Refusal> {
    group.parse().map_err(|error| Refusal::new(Errno::EINVAL, error))
}

#[zbus::interface(name = "org.pinfold.Manager1", spawn = false)]
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

    /// The v2 directory that the realm works in; empty: none (tracker `events`).
    #[zbus(property(emits_changed_signal = "const"))]
    async fn base(&self) -> String {
        self.realm().base().unwrap_or_default().display().to_string()
    }

    /// Who keeps processes in their groups (`cgroup2`, `events`), and of `events` how that is going.
    #[zbus(property(emits_changed_signal = "false"))]
    async fn tracker(&self) -> String {
        let Some(tracked) = self.realm().tracked() else { return "cgroup2".to_owned() };
        let Tracked { source, processes, gaps, scans, rejected, adopted } = tracked;
        let mut text = format!(
            "events ({source}): {processes} processes in groups, {gaps} gaps, {scans} scans of /proc, {adopted} adopted"
        );
        if rejected > 0 {
            text += &format!(", {rejected} datagrams of others than the kernel");
        }
        text
    }

    /// Answers.
    async fn ping(&self) {}

    /// Every controller that pinfold knows.
    #[zbus(out_args("controllers"))]
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

    /// Every hierarchy.
    #[zbus(out_args("hierarchies"))]
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

    /// The groups in a group or, with `recursive`, all below it, parents first.
    #[zbus(out_args("children"))]
    async fn list_children(&self, group: &str, recursive: bool) -> Result<Vec<Child>, Refusal> {
        groups::list_children(self.realm(), &self.requester, &self.selected(group)?, recursive)
    }

    /// The control files of a group.
    #[zbus(out_args("keys"))]
    async fn list_keys(&self, group: &str) -> Result<Vec<Key>, Refusal> {
        groups::list_keys(self.realm(), &self.requester, &self.selected(group)?)
    }

    /// The keys of a group: names that say what is meant, for GetValue and SetValue, which take files' names too.
    #[zbus(out_args("keys"))]
    async fn list_named_keys(&self, group: &str) -> Result<Vec<NamedKey>, Refusal> {
        groups::list_named_keys(self.realm(), &self.requester, &self.selected(group)?)
    }

    /// The tasks (threads) of a group, in the caller's pid namespace, ascending.
    #[zbus(out_args("tasks"))]
    async fn list_tasks(&self, group: &str, recursive: bool) -> Result<Vec<u32>, Refusal> {
        self.members(group, Ids::Tasks, recursive)
    }

    /// The processes of a group, likewise.
    #[zbus(out_args("processes"))]
    async fn list_processes(&self, group: &str, recursive: bool) -> Result<Vec<u32>, Refusal> {
        self.members(group, Ids::Processes, recursive)
    }

    /// Every setting of a group, and who enforces it.
    #[zbus(out_args("settings"))]
    async fn status(&self, group: &str) -> Result<Vec<Setting>, Refusal> {
        let mut settings = Vec::new();
        for selected in self.selected(group)? {
            let status = self.realm().status_for(&self.requester, selected.group);
            let status = status.map_err(|error| values::about_group(&self.requester, &selected, &error))?;
            settings.extend(status.into_iter().map(|setting| tell(&selected.label, setting)));
        }
        Ok(settings)
    }

    /// What SetValue gives a new group, in this order, so that it has the settings of this one.
    #[zbus(out_args("settings"))]
    async fn list_settings(&self, group: &str) -> Result<Vec<KeptSetting>, Refusal> {
        let mut settings = Vec::new();
        for selected in self.selected(group)? {
            let kept = self.realm().settings_for(&self.requester, selected.group);
            let kept = kept.map_err(|error| values::about_group(&self.requester, &selected, &error))?;
            settings.extend(kept.into_iter().map(|setting| KeptSetting {
                hierarchy: selected.label.clone(),
                key: setting.file,
                text: setting.text,
                needed: setting.needed,
            }));
        }
        Ok(settings)
    }

    /// Makes a group in every hierarchy that the name means, and sets values in it; all or nothing.
    #[zbus(out_args("made"))]
    async fn create(&self, group: &str, values: BTreeMap<String, String>) -> Result<Vec<String>, Refusal> {
        let name = parse(group)?;
        let made = groups::create(self.realm(), &self.requester, &name).and_then(|made| {
            let set = values
                .iter()
                .try_for_each(|(key, value)| values::set(self.realm(), &self.requester, &made, key, value));
            match set {
                Ok(()) => Ok(made.iter().map(Selected::name).collect()),
                Err(refusal) => {
                    groups::take_back(self.realm(), &self.requester, &made);
                    Err(refusal)
                }
            }
        });
        self.settled(made)
    }

    /// Removes a group that has neither processes nor children.
    async fn delete(&self, group: &str) -> Result<(), Refusal> {
        self.settled(groups::delete(self.realm(), &self.requester, &parse(group)?))
    }

    /// Removes a group and those below it; their processes go to the group above.
    async fn delete_force(&self, group: &str) -> Result<(), Refusal> {
        self.settled(groups::delete_force(self.realm(), &self.requester, &parse(group)?))
    }

    /// Has a group removed when its last process or its last child has gone.
    async fn remove_on_empty(&self, group: &str) -> Result<(), Refusal> {
        self.each(group, Realm::remove_on_empty_for)
    }

    /// Removes every group below that has neither processes nor children, or has none then. Tells which.
    #[zbus(out_args("gone"))]
    async fn prune(&self, group: &str) -> Result<Vec<String>, Refusal> {
        self.settled(groups::prune(self.realm(), &self.requester, &self.selected(group)?))
    }

    /// Moves a process, by its number in the caller's pid namespace; 0 is the caller.
    #[zbus(name = "Move")]
    async fn move_process(&self, pid: u32, group: &str) -> Result<(), Refusal> {
        self.attach(Process::Number(pid), group)
    }

    /// Moves a process, by its pidfd, or by the credentials that come over a socket.
    async fn move_by_fd(&self, process: zbus::OwnedFd, group: &str) -> Result<(), Refusal> {
        self.attach(Process::Descriptor(process.into()), group)
    }

    /// The value of a key, or of a control file.
    #[zbus(out_args("value"))]
    async fn get_value(&self, group: &str, key: &str) -> Result<String, Refusal> {
        values::get(self.realm(), &self.requester, &self.selected(group)?, key)
    }

    /// Sets a key, or writes a control file, in every hierarchy that has it.
    async fn set_value(&self, group: &str, key: &str, value: &str) -> Result<(), Refusal> {
        values::set(self.realm(), &self.requester, &self.selected(group)?, key, value)
    }

    /// Gives a group, with its `tasks` and `cgroup.procs`, to a user and a group of users of the caller's user namespace;
    /// -1 leaves either.
    async fn chown(&self, group: &str, uid: i64, gid: i64) -> Result<(), Refusal> {
        let to = self.requester.new_owner(uid, gid).ok_or_else(|| {
            Refusal::new(Errno::EPERM, format!("{uid}:{gid} are not in the caller's user namespace"))
        })?;
        self.settled(self.each(group, |realm, requester, group| realm.chown_for(requester, group, to)))
    }

    /// Changes the mode of a group's directory or, if a key is given, of that file.
    async fn chmod(&self, group: &str, key: &str, mode: u32) -> Result<(), Refusal> {
        let mode = u16::try_from(mode).ok().filter(|mode| *mode <= 0o7777);
        let mode = mode.ok_or_else(|| Refusal::new(Errno::EINVAL, "a mode has four octal digits"))?;
        let changed = match key {
            "" => self
                .each(group, |realm, requester, group| realm.may_chmod(requester, Node::Group(group)))
                .and_then(|()| {
                    self.each(group, |realm, requester, group| {
                        realm.chmod_for(requester, Node::Group(group), mode)
                    })
                }),
            key => values::chmod(self.realm(), &self.requester, &self.selected(group)?, key, mode),
        };
        self.settled(changed)
    }

    /// Kills every process in a group and below.
    async fn kill(&self, group: &str) -> Result<(), Refusal> {
        self.each(group, Realm::kill_for)
    }

    /// Freezes every process in a group and below.
    async fn freeze(&self, group: &str) -> Result<(), Refusal> {
        values::set_frozen(self.realm(), &self.requester, &self.selected(group)?, "FROZEN")
    }

    /// Undoes Freeze.
    async fn thaw(&self, group: &str) -> Result<(), Refusal> {
        values::set_frozen(self.realm(), &self.requester, &self.selected(group)?, "THAWED")
    }

    /// Where a process is, hierarchy by hierarchy; 0 is the caller. A group that is not below the caller's own is `..`.
    #[zbus(out_args("groups"))]
    async fn get_group_of(&self, pid: u32) -> Result<Vec<Membership>, Refusal> {
        self.groups_of(Process::Number(pid))
    }

    /// Where a process is that is given by its pidfd, or by the credentials that come over a socket.
    #[zbus(out_args("groups"))]
    async fn get_group_of_fd(&self, process: zbus::OwnedFd) -> Result<Vec<Membership>, Refusal> {
        self.groups_of(Process::Descriptor(process.into()))
    }

    /// A mount of the hierarchy that these v1 mount options name, not yet attached anywhere.
    #[zbus(out_args("mount"))]
    async fn mount(&self, options: &str) -> Result<zbus::OwnedFd, Refusal> {
        self.for_host_root("makes mounts")?;
        (self.daemon.mount)(self.requester.caller(), options).map(zbus::OwnedFd::from)
    }

    /// Changes the options of a hierarchy.
    async fn remount(&self, hierarchy: u32, options: &str) -> Result<(), Refusal> {
        self.for_host_root("changes hierarchies")?;
        let none = || Refusal::new(Errno::ENODEV, format!("no hierarchy has the number {hierarchy}"));
        let hierarchy = HierarchyId::new(hierarchy).ok_or_else(none)?;
        self.settled((self.daemon.remount)(self.requester.caller(), hierarchy, options))
    }

    /// The process events of what the caller may see, over a socket of its own. See docs/events.md.
    #[zbus(out_args("events"))]
    async fn subscribe(&self, scope: HashMap<String, Variant<'_>>) -> Result<zbus::OwnedFd, Refusal> {
        self.daemon.events.subscribe(&self.requester, self.realm(), &scope).map(zbus::OwnedFd::from)
    }

    /// Sends GroupCreated and GroupRemoved to the caller from now on, of groups in its own and below, and
    /// HierarchyMounted and HierarchyRemoved.
    async fn watch(
        &self,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] call: Header<'_>,
    ) -> zbus::fdo::Result<()> {
        Ok(self.start_watching(connection, &call)?)
    }

    /// Sends no more signals.
    async fn unwatch(&self) {
        *self.watching.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// A group was made.
    #[zbus(signal)]
    pub(crate) async fn group_created(to: &SignalEmitter<'_>, group: &str) -> zbus::Result<()>;

    /// A group was removed. Of groups that go together, the outermost is told of for sure.
    #[zbus(signal)]
    pub(crate) async fn group_removed(to: &SignalEmitter<'_>, group: &str) -> zbus::Result<()>;

    /// A hierarchy is there that was not: a first mount made it, or a remount gave it other controllers.
    #[zbus(signal)]
    pub(crate) async fn hierarchy_mounted(to: &SignalEmitter<'_>, hierarchy: &str) -> zbus::Result<()>;

    /// A hierarchy is no longer there: with its last mount, or because a remount gave it other controllers.
    #[zbus(signal)]
    pub(crate) async fn hierarchy_removed(to: &SignalEmitter<'_>, hierarchy: &str) -> zbus::Result<()>;

    /// Signals before this one were lost, since the caller did not take them fast enough.
    #[zbus(signal)]
    pub(crate) async fn signals_lost(to: &SignalEmitter<'_>) -> zbus::Result<()>;

    /// Ends the daemon. Answers when processes are back where they came from and nothing of the realm is left.
    async fn down(&self) -> Result<(), Refusal> {
        self.for_host_root("ends the daemon")?;
        (self.daemon.down)()
    }
}

fn tell(label: &str, status: SettingStatus) -> Setting {
    Setting {
        hierarchy: label.to_owned(),
        key: status.file,
        value: status.value,
        set: status.set,
        enforced: status.enforced.to_string(),
    }
}
