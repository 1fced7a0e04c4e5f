//! Pid namespaces, sessions and groups: which are in the picture, and which are outside.

use std::collections::HashMap;

use rustix::io::Errno;

use super::proc::Seen;
use super::{CaptureError, inode, open_namespace};
use crate::image::Nursery;
use crate::look::Look;

/// The pid namespaces of the picture; the first is the caller's own.
pub(super) struct PidNamespaces {
    inodes: Vec<u64>,
    parents: Vec<Option<usize>>,
    of: HashMap<u32, usize>,
}

impl PidNamespaces {
    pub(super) fn of(seen: &[Seen]) -> Result<Self, CaptureError> {
        let own = open_namespace("self", "pid").ok().and_then(inode).ok_or(CaptureError::ForeignProc)?;
        let mut spaces = Self { inodes: vec![own], parents: vec![None], of: HashMap::new() };
        let mut by_depth: Vec<&Seen> = seen.iter().collect();
        // An outer namespace gets a lower index than those nested in it.
        by_depth.sort_by_key(|process| process.pids.len());
        for process in by_depth {
            let place = spaces.find_or_add(process)?;
            spaces.of.insert(process.pid, place);
        }
        Ok(spaces)
    }

    fn find_or_add(&mut self, process: &Seen) -> Result<usize, CaptureError> {
        let pid = process.pid;
        let failed = |errno| CaptureError::Read { pid, file: "ns/pid", errno };
        let space = open_namespace(&pid.to_string(), "pid").map_err(failed)?;
        let number = inode(&space).ok_or_else(|| failed(Errno::IO))?;
        if let Some(place) = self.inodes.iter().position(|&known| known == number) {
            return Ok(place);
        }
        let outer = pinfold_sys::ns::parent(&space).map_err(failed)?;
        let outer = inode(&outer).ok_or_else(|| failed(Errno::IO))?;
        let parent =
            self.inodes.iter().position(|&known| known == outer).ok_or(CaptureError::Unrepresentable {
                pid,
                reason: "a pid namespace around its own has no process in the picture",
            })?;
        self.inodes.push(number);
        self.parents.push(Some(parent));
        Ok(self.inodes.len() - 1)
    }

    pub(super) fn parents(&self) -> Vec<Option<usize>> {
        self.parents.clone()
    }

    pub(super) fn place(&self, process: &Seen) -> Result<usize, CaptureError> {
        self.of.get(&process.pid).copied().ok_or(CaptureError::NoSuchProcess(process.pid))
    }

    pub(super) fn children_in(&self, process: &Seen) -> Result<Nursery, CaptureError> {
        let pid = process.pid;
        if process.zombie {
            return Ok(Nursery::Own);
        }
        let space = match open_namespace(&pid.to_string(), "pid_for_children") {
            // There is no link before the namespace's first process. Source: pidns_for_children_get().
            Err(Errno::NOENT) => return Ok(Nursery::Fresh),
            answer => {
                answer.map_err(|errno| CaptureError::Read { pid, file: "ns/pid_for_children", errno })?
            }
        };
        let place = inode(&space).and_then(|number| self.inodes.iter().position(|&known| known == number));
        match place {
            Some(place) if Some(&place) == self.of.get(&pid) => Ok(Nursery::Own),
            Some(place) => Ok(Nursery::Namespace(place)),
            None => Err(CaptureError::Unrepresentable {
                pid,
                reason: "its children would be in a pid namespace that has no process in the picture",
            }),
        }
    }
}

/// Which sessions and groups are outside: their leaders live, and are not in the picture.
pub(super) struct Leaders {
    outside_session: Option<u32>,
    outside_group: Option<u32>,
}

impl Leaders {
    pub(super) fn of(seen: &[Seen], index: &HashMap<u32, usize>) -> Result<Self, CaptureError> {
        let is_outside =
            |number: u32| number == 0 || (!index.contains_key(&number) && Look::at(number).is_some());
        let mut leaders = Self { outside_session: None, outside_group: None };
        for process in seen {
            let refuse = |reason| Err(CaptureError::Unrepresentable { pid: process.pid, reason });
            let (session, group) = (process.sessions[0], process.groups[0]);
            if is_outside(session) && *leaders.outside_session.get_or_insert(session) != session {
                return refuse("its session is outside of the picture, and so is another one");
            }
            if !is_outside(group) {
                continue;
            }
            if leaders.outside_session != Some(session) {
                return refuse("the leader of its process group is in its session, but not in the picture");
            }
            if *leaders.outside_group.get_or_insert(group) != group {
                return refuse("its process group is outside of the picture, and so is another one");
            }
        }
        Ok(leaders)
    }

    pub(super) fn session(&self, process: &Seen) -> Vec<u32> {
        Self::inside(&process.sessions, self.outside_session)
    }

    pub(super) fn group(&self, process: &Seen) -> Vec<u32> {
        Self::inside(&process.groups, self.outside_group)
    }

    fn inside(numbers: &[u32], outside: Option<u32>) -> Vec<u32> {
        if numbers.first().copied() == outside {
            return Vec::new();
        }
        numbers.iter().copied().take_while(|&number| number != 0).collect()
    }
}
