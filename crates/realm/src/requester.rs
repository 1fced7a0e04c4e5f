//! Who asks over a socket: found out once, from the kernel, and held so that its number cannot become another's.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use pinfold_kernel::process::{self, NoPidfd, Pinned, ProcessError, is_admin_of_its_own};
use pinfold_kernel::users::{UsersError, confinement, may_have_no_number, users_of};
use pinfold_model::{
    self as model, Errno, Forest, Gid, GroupId, HierarchyId, HostPid, Place, Seat, Target, Uid,
};

use crate::attributes::file_attributes;
use crate::realm::{has_file, is_trusted, surroundings};
use crate::{Caller, FrontEnd, LookupError, Node, PermitError, Realm};

/// What the kernel says of the process that called connect(2).
#[derive(Debug)]
pub struct Peer {
    /// Its effective user at that time.
    pub uid: Uid,
    /// Its effective group of users.
    pub gid: Gid,
    /// Its number then, in the daemon's pid namespace; `None` if it had none there.
    pub process: Option<HostPid>,
    /// A descriptor of it; `None` before Linux 6.5.
    pub pidfd: Option<OwnedFd>,
    /// Whether it came in through the state directory, which is shut to all but the host's root and whom the daemon runs as.
    /// What is in a pid namespace of its own and gets there is no container.
    pub through_state: bool,
}

/// What a bus says of who calls: what the kernel told it when the caller connected to it.
#[derive(Debug)]
pub struct BusPeer {
    /// Its effective user at that time.
    pub uid: Uid,
    /// Its groups of users then, without saying which it acted with.
    pub groups: Vec<Gid>,
    /// Its number then, in the pid namespace of the bus, which is the daemon's.
    pub process: Option<HostPid>,
    /// A descriptor of it; `None` from a bus that has none (dbus before 1.15.8, or Linux before 6.5).
    pub pidfd: Option<OwnedFd>,
}

/// Who asks over a socket.
///
/// Users are those it had when it connected, namespaces those it was in when it was looked at first: a process that
/// gives rights up afterwards has them here until it hangs up, as with an open file.
#[derive(Debug)]
pub struct Requester {
    who: model::Requester,
    caller: Caller,
    peer: Pinned,
    account: Account,
    /// Who is connected, if that is another, who asks for it.
    through: Option<Arc<Requester>>,
}

/// Whom somebody's connections count for, so that nobody has more by having more users.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Account {
    /// Root, or whom the daemon runs as, in the daemon's user and pid namespace: trusted.
    Host,
    /// A user of the daemon's user namespace, and everybody in user namespaces that it made.
    User(Uid),
    /// A user or pid namespace that the host made, and everybody in there.
    Container(u64),
}

/// Why somebody cannot ask.
#[derive(Debug, thiserror::Error)]
pub enum RequesterError {
    /// It acts with a group of users that it did not have when it connected.
    #[error("the caller's group of users is not one that it connected with")]
    Group,
    /// Its numbers mean nothing here.
    #[error("the caller is in a pid namespace that the daemon does not see")]
    Unseen,
    /// It may be any user that the daemon's user namespace has no number for.
    #[error("the caller's user has no number in the daemon's user namespace")]
    Nobody,
    /// It cannot be held.
    #[error("the caller cannot be held")]
    Pidfd(#[from] NoPidfd),
    /// It has ended, and another process has its number.
    #[error("the caller is gone")]
    Gone(#[from] ProcessError),
    /// Its user namespace is not one below the daemon's.
    #[error("the caller's user namespace is not known")]
    Users(#[from] UsersError),
}

impl RequesterError {
    /// Whether it is somebody who has ended, rather than somebody who may not ask.
    pub const fn is_gone(&self) -> bool {
        match self {
            Self::Gone(_) | Self::Pidfd(NoPidfd::Gone) => true,
            Self::Group
            | Self::Unseen
            | Self::Nobody
            | Self::Pidfd(NoPidfd::OfAnother | NoPidfd::System(_))
            | Self::Users(_) => false,
        }
    }
}

impl Requester {
    /// The caller, as other front ends name it.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// What privilege is decided from.
    pub fn who(&self) -> &model::Requester {
        &self.who
    }

    /// Whether paths mean for it what they mean to the daemon.
    pub fn is_host_root(&self) -> bool {
        self.who.is_host_root()
    }

    /// The owner that it means by numbers of its user namespace; -1 leaves as it is, as for chown(2). `None` if there is
    /// none of that number. 4294967295 is nobody's: system calls take it for -1.
    pub fn new_owner(&self, uid: i64, gid: i64) -> Option<model::NewOwner> {
        let number = |id: i64| match u32::try_from(id) {
            Ok(u32::MAX) => None,
            Ok(id) => Some(Some(id)),
            Err(_) => (id == -1).then_some(None),
        };
        let (uid, gid) = (number(uid)?, number(gid)?);
        let (uid, gid) = match &self.who.users {
            model::Users::Daemons { .. } => (uid, gid),
            model::Users::Below { uids, gids } => {
                let uid = uid.map(|uid| uids.outside(uid).ok_or(())).transpose().ok()?;
                let gid = gid.map(|gid| gids.outside(gid).ok_or(())).transpose().ok()?;
                (uid, gid)
            }
        };
        Some(model::NewOwner { uid: uid.map(Uid), gid: gid.map(Gid) })
    }

    /// A user or a group of users, by the number that it has for the requester; 65534 if it has none there.
    pub fn shown(&self, uid: Uid, gid: Gid) -> (u32, u32) {
        const NOBODY: u32 = 65534;
        match &self.who.users {
            model::Users::Daemons { .. } => (uid.0, gid.0),
            model::Users::Below { uids, gids } => {
                (uids.inside(uid.0).unwrap_or(NOBODY), gids.inside(gid.0).unwrap_or(NOBODY))
            }
        }
    }

    /// Who is connected: itself, or who asks for it.
    pub fn connected(&self) -> &Self {
        self.through.as_deref().unwrap_or(self)
    }

    /// Whom its connections count for.
    pub fn account(&self) -> Account {
        self.account
    }

    /// Whether it is still there: what was found out by its number until now was about it.
    pub fn is_there(&self) -> bool {
        self.verify().is_ok()
    }

    fn verify(&self) -> Result<(), PermitError> {
        self.peer.verify().map_err(|_| PermitError::CallerGone)
    }
}

impl Account {
    /// That of a process and its user; root of the host is a user like others.
    pub(crate) fn of(process: HostPid, uid: Uid) -> Result<Self, UsersError> {
        Ok(match confinement(process)? {
            None => Self::User(uid),
            Some((namespace, maker)) if is_trusted(maker) => Self::Container(namespace.inode()),
            Some((_, maker)) => Self::User(maker),
        })
    }
}

impl std::fmt::Display for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Host => write!(f, "the host's root"),
            Self::User(uid) => write!(f, "user {}", uid.0),
            Self::Container(_) => write!(f, "one container"),
        }
    }
}

/// A process that is asked about.
#[derive(Debug)]
pub struct Named {
    /// Its number, or a task's of it, in the daemon's pid namespace.
    pub(crate) task: HostPid,
    /// What the caller calls it.
    pub(crate) named: model::Pid,
    /// The process; `None` if it has ended and was not reaped.
    pub(crate) held: Option<Arc<Pinned>>,
}

/// Holds who connected. Without a descriptor of it (Linux before 6.5) only its user tells whether it is still the one that did.
fn pinned(pidfd: Option<OwnedFd>, process: Option<HostPid>, uid: Uid) -> Result<Pinned, RequesterError> {
    let (pinned, now) = held(pidfd, process)?;
    match now {
        Some(now) if now.effective != uid => Err(ProcessError::Gone(pinned.process()).into()),
        _ => Ok(pinned),
    }
}

/// Holds a process; without a descriptor of it whoever has its number, and who that is.
fn held(
    pidfd: Option<OwnedFd>,
    process: Option<HostPid>,
) -> Result<(Pinned, Option<process::Identity>), RequesterError> {
    if let Some(pidfd) = pidfd {
        return Ok((Pinned::of_pidfd(pidfd)?, None));
    }
    let pinned = Pinned::of_process(process.ok_or(RequesterError::Unseen)?)?;
    let now = process::Identity::of(pinned.process())?;
    Ok((pinned, Some(now)))
}

/// Whether it has the number of the host's root, but not what makes it that: as root of a container that has all namespaces in
/// common with the host, and no privilege. Where the daemon has none either, nobody is told by it.
pub(crate) fn is_confined_root(process: HostPid, uid: Uid, users: &model::Users) -> bool {
    let may_be = uid == Uid(0) && matches!(users, model::Users::Daemons { .. });
    may_be && !is_admin_of_its_own(process) && is_admin_of_its_own(process::own_pid())
}

impl Realm {
    /// Finds out who a peer is. It is looked at while it is held, so no other process can be taken for it.
    pub fn requester(&self, peer: Peer) -> Result<Requester, RequesterError> {
        let pinned = pinned(peer.pidfd, peer.process, peer.uid)?;
        self.requester_held(pinned, peer.uid, peer.gid, peer.through_state)
    }

    /// Finds out who it is that calls at a bus.
    pub fn requester_on_bus(&self, peer: BusPeer) -> Result<Requester, RequesterError> {
        let pinned = pinned(peer.pidfd, peer.process, peer.uid)?;
        let gid = match peer.groups[..] {
            [only] => only,
            // The one it acts with now. It may have executed a program of another group since, for which whoever shares
            // its connection is not to act.
            _ => process::Identity::of(pinned.process())?.group,
        };
        if !peer.groups.contains(&gid) {
            return Err(RequesterError::Group);
        }
        self.requester_held(pinned, peer.uid, gid, false)
    }

    fn requester_held(
        &self,
        pinned: Pinned,
        uid: Uid,
        gid: Gid,
        through_state: bool,
    ) -> Result<Requester, RequesterError> {
        if may_have_no_number(uid) {
            return Err(RequesterError::Nobody);
        }
        let process = pinned.process();
        let users = users_of(process)?;
        let is_neighbour =
            through_state || self.pins.map_of(process)?.is_same() && !is_confined_root(process, uid, &users);
        let who = model::Requester { uid, gid, users, is_neighbour };
        let account = if who.is_host_root() { Account::Host } else { Account::of(process, uid)? };
        pinned.verify()?;
        let caller = Caller { uid, gid, task: Some(process), via: FrontEnd::NONE };
        Ok(Requester { who, caller, peer: pinned, account, through: None })
    }

    /// Who it is that somebody who is connected asks for, by credentials that the kernel has let pass. It has its own rights
    /// and its own group, but nothing outside the group of the one who is connected.
    pub fn on_behalf(&self, connected: &Arc<Requester>, other: Peer) -> Result<Requester, BehalfError> {
        let (pinned, now) = held(other.pidfd, other.process)?;
        let other = self.requester_held(pinned, other.uid, other.gid, other.through_state)?;
        let map = self.pins.map_of(connected.peer.process()).map_err(|_| BehalfError::Hidden)?;
        map.from_host(other.peer.process()).ok_or(BehalfError::Hidden)?;
        connected.verify().map_err(|_| BehalfError::Hidden)?;
        if !connected.who.may_ask_for(&other.who) {
            return Err(BehalfError::NotItsToAsk { uid: other.who.uid, gid: other.who.gid });
        }
        // Who may set users says any of its own with a process that is another's, so that tells of no reuse. But then whoever has the
        // number is one that it could have named.
        let may_name = |now: process::Identity| {
            let now = model::Requester { uid: now.effective, gid: now.group, ..other.who.clone() };
            now.uid == other.who.uid || connected.who.may_ask_for(&now)
        };
        if now.is_some_and(|now| !may_name(now)) {
            return Err(RequesterError::Gone(ProcessError::Gone(other.peer.process())).into());
        }
        Ok(Requester { through: Some(Arc::clone(connected)), ..other })
    }

    /// The group of a hierarchy that the requester is in now: names start there, and those of everybody but the host's root
    /// end there too.
    pub fn own_group(&self, requester: &Requester, hierarchy: HierarchyId) -> Result<GroupId, PermitError> {
        let (pinned, standing) =
            self.pins.open(requester.peer.process()).map_err(|_| PermitError::CallerGone)?;
        let place = self.tracker.membership_of(&pinned, &standing).map_err(|_| PermitError::CallerGone)?;
        if !requester.is_host_root() && !self.tracker.is_sure_of(pinned.process()) {
            return Err(PermitError::Untold);
        }
        let seat = self.seat_at(pinned.process(), place);
        requester.verify()?;
        // Not with the forest locked: it takes system calls.
        let bound = match requester.through.as_deref() {
            Some(connected) if !connected.is_host_root() => Some(self.own_group(connected, hierarchy)?),
            _ => None,
        };
        let forest = self.lock_forest();
        let no_hierarchy = || LookupError::NotFound(format!("hierarchy {hierarchy}").into());
        let root = forest.hierarchy(hierarchy).ok_or_else(no_hierarchy)?.root();
        let own = match seat {
            Seat::Outside(_) => root,
            Seat::Cell(cell) => forest.group_of(cell, hierarchy).unwrap_or(root),
        };
        let is_within = |bound| own == bound || forest.ancestors(own).any(|above| above == bound);
        if bound.is_none_or(is_within) { Ok(own) } else { Err(PermitError::OutOfReach) }
    }

    /// Whether the requester may do something to a group or to one of its files.
    pub(crate) fn permit(
        &self,
        requester: &Requester,
        act: model::Act,
        node: Node,
        to: model::NewOwner,
    ) -> Result<(), PermitError> {
        requester.verify()?;
        if requester.is_host_root() {
            return Ok(());
        }
        let hierarchy = self.lock_forest().group(node.group()).map(|group| group.hierarchy());
        let own = self.own_group(requester, hierarchy.ok_or(model::GroupGone(node.group()))?)?;
        let target = self.target(requester, own, node, to)?;
        Ok(requester.who.may(act, &target)?)
    }

    /// What rules look at, of a group or a file, for somebody in the group `own`.
    fn target(
        &self,
        requester: &Requester,
        own: GroupId,
        node: Node,
        to: model::NewOwner,
    ) -> Result<Target, PermitError> {
        let id = node.group();
        let forest = self.lock_forest();
        let group = forest.group(id).ok_or(model::GroupGone(id))?;
        let place = match () {
            () if id == own => Place::Own,
            () if has_below(requester, &forest, own) && forest.ancestors(id).any(|above| above == own) => {
                Place::Below
            }
            () => Place::Elsewhere,
        };
        let above = group.parent().and_then(|above| forest.group(above));
        let file = match node {
            Node::Group(_) => None,
            Node::File(_, file) => {
                let around = surroundings(&forest, id).ok_or(model::GroupGone(id))?;
                has_file(&around, &self.facts, file).then(|| file_attributes(group, file).ownership)
            }
        };
        let above = above.map(|above| above.ownership());
        Ok(Target { place, group: group.ownership(), above, file, to })
    }

    /// The process that the requester means by a number of its pid namespace; by 0, itself.
    pub fn named(&self, requester: &Requester, number: u32) -> Result<Named, model::AttachError> {
        let own = requester.peer.process();
        let map = self.pins.map_of(own).map_err(|_| model::AttachError::CallerUnseen)?;
        let named = match model::Pid::new(number) {
            None => {
                let named = map.from_host(own).ok_or(model::AttachError::CallerUnseen)?;
                return Ok(Named { task: own, named, held: None });
            }
            Some(named) => named,
        };
        let task = map.to_host(named).ok_or(model::AttachError::NoSuchProcess(named))?;
        // Whoever has the number from now on is not meant.
        let held = self.pins.open(task).ok().map(|(pinned, _)| pinned);
        if held.is_some() && map.from_host(task) != Some(named) {
            return Err(model::AttachError::NoSuchProcess(named));
        }
        // The map was that of the requester, if it is still there.
        requester.verify().map_err(|_| model::AttachError::CallerUnseen)?;
        Ok(Named { task, named, held })
    }

    /// The process that a descriptor is of. The requester must see it.
    pub fn held(&self, requester: &Requester, pidfd: OwnedFd) -> Result<Named, HeldError> {
        let pinned = Pinned::of_pidfd(pidfd)?;
        let task = pinned.process();
        Ok(Named { held: Some(Arc::new(pinned)), ..self.seen(requester, task)? })
    }

    /// A process given by the daemon's own number, as the kernel translates them in credentials of a message. The requester
    /// must see it.
    pub fn seen(&self, requester: &Requester, task: HostPid) -> Result<Named, HeldError> {
        let map = self.pins.map_of(requester.peer.process()).map_err(|_| HeldError::Hidden)?;
        let named = map.from_host(task).ok_or(HeldError::Hidden)?;
        requester.verify().map_err(|_| HeldError::Hidden)?;
        Ok(Named { task, named, held: None })
    }
}

/// Whether what is below a requester's own group is its to see. For somebody in a container that is in no group, which has the
/// root for its own, it is not: there are the groups of all others, of whom some may have the same users.
pub(crate) fn has_below(requester: &Requester, forest: &Forest, own: GroupId) -> bool {
    requester.who().is_of_the_host() || forest.group(own).is_some_and(|group| group.parent().is_some())
}

/// Why nobody is asked for.
#[derive(Debug, thiserror::Error)]
pub enum BehalfError {
    /// Nothing is known of the other.
    #[error(transparent)]
    Unknown(#[from] RequesterError),
    /// Whoever is connected cannot see the other by itself.
    #[error("who asks is not visible in the pid namespace of the process that is connected")]
    Hidden,
    /// The rights of whoever is connected are not those of the other.
    #[error("the process that is connected may not ask for user {} and group {}", .uid.0, .gid.0)]
    NotItsToAsk {
        /// The other's user.
        uid: Uid,
        /// Its group of users.
        gid: Gid,
    },
}

impl BehalfError {
    /// The errno: ESRCH for who is not there, EPERM for who may not be asked for.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Unknown(_) | Self::Hidden => Errno::ESRCH,
            Self::NotItsToAsk { .. } => Errno::EPERM,
        }
    }
}

/// Why a process is not found by a descriptor.
#[derive(Debug, thiserror::Error)]
pub enum HeldError {
    /// It is not a pidfd, or its process is gone.
    #[error(transparent)]
    Pidfd(#[from] NoPidfd),
    /// Whoever handed it over cannot see the process by itself.
    #[error("the process is not visible in the caller's pid namespace")]
    Hidden,
}

impl HeldError {
    /// The errno: as for a number that names no process.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Pidfd(error) => error.errno(),
            Self::Hidden => Errno::ESRCH,
        }
    }
}
