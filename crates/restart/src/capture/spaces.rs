//! Namespaces other than pid: who shares which, who owns them, and what user namespaces say.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;

use pinfold_sys::scout::Scout;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::{CaptureError, inode};
use crate::image::{NAMESPACES, USER, UserNamespace, users};

/// The namespaces of the picture: for each kind those that were met, the first of which is the capturer's own.
pub(super) struct Spaces {
    met: BTreeMap<&'static str, Vec<u64>>,
    owners: BTreeMap<String, Vec<usize>>,
    users: Vec<UserNamespace>,
}

fn open(pid: &str, kind: &str) -> Result<OwnedFd, Errno> {
    rustix::fs::open(format!("/proc/{pid}/ns/{kind}"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

impl Spaces {
    pub(super) fn new() -> Result<Self, CaptureError> {
        let own = |kind| open("self", kind).ok().and_then(inode).ok_or(CaptureError::ForeignProc);
        let met = NAMESPACES.map(|kind| own(kind).map(|inode| (kind, vec![inode])));
        let met = met.into_iter().collect::<Result<_, _>>()?;
        Ok(Self { met, owners: BTreeMap::new(), users: Vec::new() })
    }

    /// The numbers of a process's namespaces.
    pub(super) fn of(&mut self, pid: u32) -> Result<BTreeMap<String, usize>, CaptureError> {
        let number = |kind: &'static str| {
            let space = open(&pid.to_string(), kind).map_err(|errno| failed(pid, errno))?;
            let number = if kind == USER { self.user(pid, space) } else { self.other(pid, kind, &space) };
            Ok((kind.to_owned(), number?))
        };
        NAMESPACES.map(number).into_iter().collect()
    }

    /// The number of a namespace that was met already, or its identity.
    fn known(
        &self,
        pid: u32,
        kind: &'static str,
        space: &OwnedFd,
    ) -> Result<Result<usize, u64>, CaptureError> {
        let own = inode(space).ok_or_else(|| failed(pid, Errno::IO))?;
        let place = self.met.get(kind).and_then(|met| met.iter().position(|&other| other == own));
        Ok(place.ok_or(own))
    }

    fn other(&mut self, pid: u32, kind: &'static str, space: &OwnedFd) -> Result<usize, CaptureError> {
        let identity = match self.known(pid, kind, space)? {
            Ok(number) => return Ok(number),
            Err(identity) => identity,
        };
        let owner = pinfold_sys::ns::owner(space).map_err(|errno| beyond(pid, errno))?;
        let owner = self.user(pid, owner)?;
        self.owners.entry(kind.to_owned()).or_default().push(owner);
        Ok(self.add(kind, identity))
    }

    /// The number of a user namespace; those around it come first.
    fn user(&mut self, pid: u32, space: OwnedFd) -> Result<usize, CaptureError> {
        let identity = match self.known(pid, USER, &space)? {
            Ok(number) => return Ok(number),
            Err(identity) => identity,
        };
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
