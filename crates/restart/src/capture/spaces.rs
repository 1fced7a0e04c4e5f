//! Namespaces other than pid: who shares which, who owns them, and what user namespaces say.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;

use pinfold_sys::scout::Scout;
use rustix::io::Errno;

use super::{CaptureError, inode, open_namespace};
use crate::image::{NAMESPACES, USER, UserNamespace, users};

/// The namespaces of the picture: for each kind those that were met, the first of which is the capturer's own.
pub(super) struct Spaces {
    met: BTreeMap<&'static str, Vec<u64>>,
    owners: BTreeMap<String, Vec<usize>>,
    users: Vec<UserNamespace>,
}

impl Spaces {
    pub(super) fn new() -> Result<Self, CaptureError> {
        let own = |kind| identity("self", kind).map_err(|_| CaptureError::ForeignProc);
        let met = NAMESPACES.map(|kind| own(kind).map(|identity| (kind, vec![identity])));
        let met = met.into_iter().collect::<Result<_, _>>()?;
        Ok(Self { met, owners: BTreeMap::new(), users: Vec::new() })
    }

    /// The numbers of a process's namespaces.
    pub(super) fn of(&mut self, pid: u32) -> Result<BTreeMap<String, usize>, CaptureError> {
        check_time(pid)?;
        let number = |kind: &'static str| {
            let identity = identity(&pid.to_string(), kind).map_err(|errno| failed(pid, errno))?;
            let number = match self.known(kind, identity) {
                Some(number) => number,
                None => {
                    let space = open_namespace(&pid.to_string(), kind).map_err(|errno| failed(pid, errno))?;
                    if kind == USER {
                        self.user(pid, space)?
                    } else {
                        self.add_owned(pid, kind, &space, identity)?
                    }
                }
            };
            Ok((kind.to_owned(), number))
        };
        NAMESPACES.map(number).into_iter().collect()
    }

    /// The number of a namespace that was met already.
    fn known(&self, kind: &str, identity: u64) -> Option<usize> {
        self.met.get(kind)?.iter().position(|&other| other == identity)
    }

    /// Takes in a namespace that is new, and who owns it.
    fn add_owned(
        &mut self,
        pid: u32,
        kind: &'static str,
        space: &OwnedFd,
        identity: u64,
    ) -> Result<usize, CaptureError> {
        let owner = pinfold_sys::ns::owner(space).map_err(|errno| beyond(pid, errno))?;
        let owner = self.user(pid, owner)?;
        self.owners.entry(kind.to_owned()).or_default().push(owner);
        Ok(self.add(kind, identity))
    }

    /// The number of a user namespace; those around it come first.
    fn user(&mut self, pid: u32, space: OwnedFd) -> Result<usize, CaptureError> {
        let identity = inode(&space).ok_or_else(|| failed(pid, Errno::IO))?;
        if let Some(number) = self.known(USER, identity) {
            return Ok(number);
        }
        let around = pinfold_sys::ns::parent(&space).map_err(|errno| beyond(pid, errno))?;
        let parent = self.user(pid, around)?;
        let user_namespace = describe(pid, parent, &space)?;
        self.users.push(user_namespace);
        Ok(self.add(USER, identity))
    }

    fn add(&mut self, kind: &'static str, identity: u64) -> usize {
        let met = self.met.entry(kind).or_default();
        met.push(identity);
        met.len() - 1
    }

    /// The user namespaces, and who owns the others; a kind that the capturer's own user namespace owns all of is left out.
    pub(super) fn described(self) -> (Vec<UserNamespace>, BTreeMap<String, Vec<usize>>) {
        let mut owners = self.owners;
        owners.retain(|_, list| list.iter().any(|&owner| owner != 0));
        (self.users, owners)
    }
}

fn failed(pid: u32, errno: Errno) -> CaptureError {
    CaptureError::Read { pid, file: "ns", errno }
}

/// Refuses other time namespaces than the capturer's own: they are not rebuilt.
fn check_time(pid: u32) -> Result<(), CaptureError> {
    // A kernel may have none.
    let Ok(own) = identity("self", "time") else { return Ok(()) };
    for kind in ["time", "time_for_children"] {
        if identity(&pid.to_string(), kind).map_err(|errno| failed(pid, errno))? != own {
            return Err(CaptureError::Unrepresentable {
                pid,
                reason: "it is in another time namespace than the caller, or its children would be",
            });
        }
    }
    Ok(())
}

/// What tells a namespace of a process from others of the kind.
fn identity(pid: &str, kind: &str) -> Result<u64, Errno> {
    rustix::fs::stat(format!("/proc/{pid}/ns/{kind}")).map(|stat| stat.st_ino)
}

/// EPERM answers a question for what is around the caller's own user namespace.
fn beyond(pid: u32, errno: Errno) -> CaptureError {
    match errno {
        Errno::PERM => CaptureError::Unrepresentable {
            pid,
            reason: "it has a namespace that is not within the caller's user namespace",
        },
        errno => failed(pid, errno),
    }
}

/// What is known of a user namespace. Its maps are read from a process in it, and there may be none: so one is sent.
fn describe(pid: u32, parent: usize, space: &OwnedFd) -> Result<UserNamespace, CaptureError> {
    let failed = |errno| CaptureError::Read { pid, file: "ns/user", errno };
    let maker = pinfold_sys::ns::maker(space).map_err(failed)?;
    let scout = Scout::send(space).map_err(failed)?;
    let read = |file| {
        let text = fs::read_to_string(format!("/proc/{}/{file}", scout.pid().as_raw_pid()));
        text.map_err(|error| failed(Errno::from_io_error(&error).unwrap_or(Errno::IO)))
    };
    let map = |file, text: String| users::parse(&text).ok_or(CaptureError::Unknown { pid, file });
    let described = UserNamespace {
        parent,
        maker,
        uids: map("uid_map", read("uid_map")?)?,
        gids: map("gid_map", read("gid_map")?)?,
        setgroups: read("setgroups")?.trim() == "allow",
    };
    users::check_one(&described).map_err(|_| CaptureError::Unrepresentable {
        pid,
        reason: "its user namespace has users without a number in the caller's",
    })?;
    Ok(described)
}
