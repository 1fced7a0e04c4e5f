//! Privilege: who may do what to which group and which process. The one place that decides.
//!
//! What comes in are values: the caller as the kernel names it ([`Requester`]), owners and modes, and where the group
//! lies as seen from the caller's own. What comes out is `Ok`, or the [`Need`] that is not met. [`RULES`] says what each
//! [`Act`] needs.
//!
//! A mount's requests are checked by the kernel from owner and mode before they come here; what is left of them are
//! [`may_attach`] and [`GroupLimits`](crate::GroupLimits), which hold for every front end.
//!
//! Out of scope: finding these values out, and holding on to the processes they are about.

use crate::{Errno, Gid, IdMap, Ownership, Uid};

/// Who asks, in the daemon's numbers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Requester {
    /// Its user, as the socket says.
    pub uid: Uid,
    /// Its group of users, likewise.
    pub gid: Gid,
    /// Who there is in its user namespace.
    pub users: Users,
    /// Whether it is in the daemon's pid namespace (root: with CAP_SYS_ADMIN), or came in where nobody gets from a container.
    pub is_neighbour: bool,
}

/// A user namespace, as seen from the daemon.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Users {
    /// The daemon's own.
    Daemons {
        /// Whom the daemon runs as: it may do here whatever root may, since the daemon can do no more than it.
        owner: Uid,
    },
    /// One below it, with these users and groups.
    Below {
        /// Its users.
        uids: IdMap,
        /// Its groups of users.
        gids: IdMap,
    },
}

impl Users {
    /// Whether a user is in it.
    pub fn has_user(&self, uid: Uid) -> bool {
        match self {
            Self::Daemons { .. } => true,
            Self::Below { uids, .. } => uids.inside(uid.0).is_some(),
        }
    }

    /// Whether a group of users is in it.
    pub fn has_users_group(&self, gid: Gid) -> bool {
        match self {
            Self::Daemons { .. } => true,
            Self::Below { gids, .. } => gids.inside(gid.0).is_some(),
        }
    }
}

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Act {
    /// List groups, tasks, keys, or tell how settings are enforced.
    Look,
    /// Read a value.
    Read,
    /// Make a group: the parent is the group asked about.
    Make,
    /// Remove a group.
    Remove,
    /// Set a value, freeze, thaw.
    Set,
    /// Give a group to another user.
    Chown,
    /// Change who may make groups in it.
    Chmod,
    /// Change who may read and write one of its files.
    ChmodFile,
    /// Put a process into it.
    Move,
    /// Kill its processes.
    Kill,
    /// Have it removed when it is empty.
    RemoveOnEmpty,
}

/// What an act may need.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Need {
    /// The group is the caller's own or below it. (Names are resolved from the caller's own group, without `..`.)
    Within,
    /// The group is below the caller's own.
    Below,
    /// The group is not a hierarchy's root.
    NotRoot,
    /// The file may be read by the caller.
    MayRead,
    /// The group is not a hierarchy's root, if the caller is outside the daemon's namespaces: of what is below that, nothing is its.
    NotRootFromOutside,
    /// The directory may be written by the caller.
    MayWrite,
    /// The directory above may be written by the caller.
    MayWriteAbove,
    /// The caller is privileged over the group: its own, or of a user of the namespace that the caller is root of.
    Privileged,
    /// The caller is privileged over the group above, or may write the file and is not in the group.
    LimitsOfAnother,
    /// The group is not the one that the caller is in, if the caller is outside the daemon's namespaces.
    NotItsOwnFromOutside,
    /// The new owner and group are in the caller's user namespace, and the caller is root there, or nothing changes hands.
    MapsNewOwner,
    /// The caller is privileged over the file's owner, and not inside of what the file limits.
    FileOfAnother,
}

/// What an act needs.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The act.
    pub act: Act,
    /// Everything it needs, asked in this order.
    pub needs: &'static [Need],
}

/// Every rule. The host's root, and whoever the daemon runs as, are held to none of them.
pub static RULES: [Rule; 11] = {
    use Need::*;
    const fn rule(act: Act, needs: &'static [Need]) -> Rule {
        Rule { act, needs }
    }
    [
        rule(Act::Look, &[Within]),
        rule(Act::Read, &[Within, MayRead]),
        rule(Act::Make, &[Within, NotRootFromOutside, MayWrite]),
        rule(Act::Remove, &[Below, NotRoot, MayWriteAbove]),
        rule(Act::Set, &[Within, NotRoot, NotItsOwnFromOutside, LimitsOfAnother]),
        rule(Act::Chown, &[Within, NotRoot, Privileged, MapsNewOwner]),
        rule(Act::Chmod, &[Within, NotRoot, Privileged]),
        rule(Act::ChmodFile, &[Within, NotRoot, NotItsOwnFromOutside, FileOfAnother]),
        rule(Act::Move, &[Within, NotRoot, Privileged]),
        rule(Act::Kill, &[Within, NotRoot, Privileged]),
        rule(Act::RemoveOnEmpty, &[Below, NotRoot, MayWriteAbove]),
    ]
};

/// A group, or one of its files, as far as rules look at it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target {
    /// Where it lies, as seen from the caller's own group in that hierarchy.
    pub place: Place,
    /// Who owns its directory.
    pub group: Ownership,
    /// Who owns the directory above; `None` for a root.
    pub above: Option<Ownership>,
    /// Who owns the file that is read or written, if one is.
    pub file: Option<Ownership>,
    /// To whom it is given, if it is.
    pub to: NewOwner,
}

/// Where a group lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// It is the caller's own group.
    Own,
    /// It is below that.
    Below,
    /// It is neither.
    Elsewhere,
}

/// A change of owners; `None` leaves as it is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct NewOwner {
    /// The new user.
    pub uid: Option<Uid>,
    /// The new group of users.
    pub gid: Option<Gid>,
}

/// Why an act is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}", .0.unmet())]
pub struct Denied(pub Need);

impl Denied {
    /// The errno: EACCES where the mode of a directory or file says so, as for mkdir(2) and open(2); EPERM where it is a
    /// matter of privilege; ENOENT for what the caller cannot see.
    pub const fn errno(self) -> Errno {
        match self.0 {
            Need::Within => Errno::ENOENT,
            Need::MayRead | Need::NotRootFromOutside | Need::MayWrite | Need::MayWriteAbove => Errno::EACCES,
            Need::Below
            | Need::NotRoot
            | Need::Privileged
            | Need::LimitsOfAnother
            | Need::NotItsOwnFromOutside
            | Need::MapsNewOwner
            | Need::FileOfAnother => Errno::EPERM,
        }
    }
}

impl Need {
    /// What is told to who does not meet it.
    const fn unmet(self) -> &'static str {
        match self {
            Self::Within => "the group is not below the caller's own",
            Self::Below => "the caller's own group is not its to remove",
            Self::NotRoot => "a root group is the host's",
            Self::MayRead => "the file is not open to the caller",
            Self::NotRootFromOutside => {
                "the caller's container is in no group, and groups outside of all are the host's"
            }
            Self::MayWrite => "the group is not the caller's to divide",
            Self::MayWriteAbove => "the group above is not the caller's to change",
            Self::Privileged => "the group belongs to somebody else",
            Self::LimitsOfAnother => "limits of a group are set by the owner of the group above",
            Self::NotItsOwnFromOutside => {
                "limits of the caller's own group are set from outside of its container"
            }
            Self::MapsNewOwner => {
                "only root of a user namespace gives groups away, and only to users of that namespace"
            }
            Self::FileOfAnother => "the file belongs to somebody else",
        }
    }
}

impl Requester {
    /// Whether it is root of the host, or whom the daemon runs as: in the daemon's own namespaces.
    pub fn is_host_root(&self) -> bool {
        self.is_of_the_host() && self.is_root()
    }

    /// Whether it is in the daemon's own namespaces of users and of processes.
    pub fn is_of_the_host(&self) -> bool {
        self.is_neighbour && matches!(self.users, Users::Daemons { .. })
    }

    /// Whether it is root in its user namespace.
    pub fn is_root(&self) -> bool {
        match &self.users {
            Users::Daemons { owner } => self.uid == Uid(0) || self.uid == *owner,
            Users::Below { uids, .. } => uids.inside(self.uid.0) == Some(0),
        }
    }

    /// Whether it is the only one in its user namespace.
    fn is_alone(&self) -> bool {
        match &self.users {
            Users::Daemons { .. } => false,
            Users::Below { uids, gids } => uids.has_only(self.uid.0) && gids.has_only(self.gid.0),
        }
    }

    /// Whether a user is in its user namespace.
    pub fn sees_user(&self, uid: Uid) -> bool {
        self.users.has_user(uid)
    }

    /// Whether a group of users is in its user namespace.
    pub fn sees_users_group(&self, gid: Gid) -> bool {
        self.users.has_users_group(gid)
    }

    /// Whether it is privileged over what belongs to a user: it is that user, or root where that user is.
    pub fn is_privileged_over(&self, owner: Uid) -> bool {
        owner == self.uid || self.is_root() && self.sees_user(owner)
    }

    /// Whether it is privileged over a process with these users that it sees: it started it, or is root where all of
    /// these are.
    pub fn may_move(&self, process: &Credentials) -> bool {
        let all = [process.real, process.effective, process.saved];
        may_be_users(self.uid, process) || self.is_root() && all.iter().all(|uid| self.sees_user(*uid))
    }

    /// Whether it may ask in another's name.
    ///
    /// The kernel lets nobody send credentials that he could not have; but they may come from whoever has the other end of
    /// a socket, and who was made to talk there has not asked for anything. So whoever asks must have the rights of the one
    /// in whose name it asks: be that user and group of users, or root where both are, and no further from the host. The
    /// same user may be root in one namespace and not in another: what it is root over there it is not here.
    pub fn may_ask_for(&self, other: &Self) -> bool {
        let is_same = (self.uid, self.gid) == (other.uid, other.gid)
            && (self.users == other.users || !other.is_root() || other.is_alone());
        let is_over = self.is_root() && self.sees_user(other.uid) && self.sees_users_group(other.gid);
        let is_as_near = self.is_of_the_host() || !other.is_of_the_host();
        is_as_near && (is_same || is_over)
    }

    /// Whether it may do something. The first need that is not met, if not.
    pub fn may(&self, act: Act, target: &Target) -> Result<(), Denied> {
        if self.is_host_root() {
            return Ok(());
        }
        let rule =
            RULES.iter().find(|rule| rule.act == act).expect("every act has a rule: a test counts them");
        match rule.needs.iter().find(|need| !self.meets(**need, target)) {
            None => Ok(()),
            Some(need) => Err(Denied(*need)),
        }
    }

    fn meets(&self, need: Need, target: &Target) -> bool {
        let Target { place, group, above, file, to } = target;
        let privileged_above = || above.is_some_and(|above| self.is_privileged_over(above.uid));
        match need {
            Need::Within => *place != Place::Elsewhere,
            Need::Below => *place == Place::Below,
            Need::NotRoot => above.is_some(),
            Need::MayRead => file.is_none_or(|file| self.may_access(&file, READ)),
            Need::NotRootFromOutside => above.is_some() || self.is_of_the_host(),
            Need::MayWrite => self.may_access(group, WRITE),
            Need::MayWriteAbove => above.is_some_and(|above| self.may_access(&above, WRITE)),
            Need::Privileged => self.is_privileged_over(group.uid),
            Need::LimitsOfAnother => {
                let may_write = file.is_some_and(|file| self.may_access(&file, WRITE));
                // What is above the caller's own group it cannot name, but it may be its user's.
                privileged_above() || *place == Place::Below && may_write
            }
            Need::NotItsOwnFromOutside => *place != Place::Own || self.is_of_the_host(),
            Need::MapsNewOwner => self.may_give(group, *to),
            Need::FileOfAnother => {
                let owns = file.is_some_and(|file| self.is_privileged_over(file.uid));
                owns && (*place == Place::Below || privileged_above())
            }
        }
    }

    fn may_give(&self, group: &Ownership, to: NewOwner) -> bool {
        let uid = to.uid.filter(|uid| *uid != group.uid);
        let gid = to.gid.filter(|gid| *gid != group.gid);
        let given = uid.is_some() || gid.is_some();
        !given
            || self.is_root()
                && uid.is_none_or(|uid| self.sees_user(uid))
                && gid.is_none_or(|gid| self.sees_users_group(gid))
    }

    /// What the mode of a directory or file allows: generic_permission(), and capable_wrt_inode_uidgid() for root of a
    /// user namespace, which must have the owner *and* the group in it.
    fn may_access(&self, of: &Ownership, bit: u16) -> bool {
        let shift = match () {
            () if self.uid == of.uid => 6,
            () if self.gid == of.gid => 3,
            () => 0,
        };
        of.mode >> shift & bit == bit
            || self.is_root() && self.sees_user(of.uid) && self.sees_users_group(of.gid)
    }
}

const READ: u16 = 0o4;
const WRITE: u16 = 0o2;

/// Whose process it is, or who asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Credentials {
    /// Effective user id.
    pub effective: Uid,
    /// Real user id.
    pub real: Uid,
    /// Saved user id.
    pub saved: Uid,
}

/// Whether who writes to a `tasks` file may attach a process: root may, and so may the user the process runs or was
/// started as. Whether the file may be written, the kernel has asked before.
///
/// Source: __cgroup1_procs_write(): the caller's *effective* id against the target's real and saved ids.
pub fn may_attach(caller: Uid, target: &Credentials) -> bool {
    caller == Uid(0) || may_be_users(caller, target)
}

fn may_be_users(uid: Uid, process: &Credentials) -> bool {
    uid == process.real || uid == process.saved
}
