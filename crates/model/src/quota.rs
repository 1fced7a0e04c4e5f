//! How many groups there may be: so that nobody who may make groups uses up the memory of all.
//!
//! The host's root and whom the daemon runs as are held to nothing. Root of a container that has the host's users is held to the
//! depth, and to the number below a group for the one that the host has put it in, and for each that the host has made.
//! Everybody else is held to three numbers: how many groups their user has made, how many there are below a group that was given
//! away, and how deep they lie. Users of one user namespace are many, but what they are given is one group: so the second
//! number bounds them all together.

use std::collections::HashMap;

use crate::{Errno, Forest, Group, GroupId, Uid};

/// The most groups that users who are not trusted make.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupLimits {
    /// Made by one user, in all hierarchies.
    pub per_user: u32,
    /// Below a group that belongs to somebody who is not trusted.
    pub below: u32,
    /// From a hierarchy's root to the group.
    pub depth: u32,
}

impl GroupLimits {
    /// Enough for machines full of containers, and some hundred bytes of memory each.
    pub const DEFAULT: Self = Self { per_user: 10_000, below: 20_000, depth: 64 };
}

/// Why there may not be one more group.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TooMany {
    /// The user has made enough.
    #[error("user {} has {most} groups, which is the most a user may have", .uid.0)]
    OfUser {
        /// The user.
        uid: Uid,
        /// The limit.
        most: u32,
    },
    /// There are enough below what was given away.
    #[error("there are {most} groups below group {group}, which is the most there may be")]
    Below {
        /// The group that was given away.
        group: GroupId,
        /// The limit.
        most: u32,
    },
    /// It would lie too deep.
    #[error("the group would lie {} steps below the root: {most} is the most", most + 1)]
    Deep {
        /// The limit.
        most: u32,
    },
}

impl TooMany {
    /// The errno that v2 gives where `cgroup.max.descendants` or `cgroup.max.depth` is met: cgroup_check_hierarchy_limits().
    pub const fn errno(self) -> Errno {
        Errno::EAGAIN
    }
}

/// How many groups there are of whom. Groups count for who made them, also when they are given away: nobody gets room by
/// giving.
#[derive(Debug, Default)]
pub(crate) struct Made(HashMap<Uid, u32>);

impl Made {
    pub(crate) fn add(&mut self, uid: Uid) {
        *self.0.entry(uid).or_default() += 1;
    }

    pub(crate) fn take(&mut self, uid: Uid) {
        let made = self.0.get_mut(&uid).expect("who made a group is counted");
        *made -= 1;
        if *made == 0 {
            self.0.remove(&uid);
        }
    }
}

impl Forest {
    /// Whether somebody who is not trusted may make one more group here.
    pub fn may_grow(
        &self,
        parent: GroupId,
        maker: Uid,
        is_trusted: impl Fn(Uid) -> bool,
        limits: &GroupLimits,
    ) -> Result<(), TooMany> {
        let mut steps = 1;
        let mut given = None;
        for id in std::iter::once(parent).chain(self.ancestors(parent)) {
            let Some(group) = self.groups.get(&id).filter(|group| group.parent.is_some()) else { break };
            steps += 1;
            if !is_trusted(group.ownership.uid) {
                given = Some((id, group.descendants));
            }
        }
        if steps > limits.depth {
            return Err(TooMany::Deep { most: limits.depth });
        }
        if self.made.0.get(&maker).is_some_and(|made| *made >= limits.per_user) {
            return Err(TooMany::OfUser { uid: maker, most: limits.per_user });
        }
        match given {
            Some((group, descendants)) if descendants >= limits.below => {
                Err(TooMany::Below { group, most: limits.below })
            }
            _ => Ok(()),
        }
    }

    /// The same for somebody in a container who has a number that is trusted elsewhere. It is in `own`. What is counted is below
    /// groups that were not made that way, whoever made what is below them: the first such group on the way up from its
    /// own, and the first from the parent. What it makes itself, and moves into, gives it no more room.
    pub fn may_grow_within(
        &self,
        own: GroupId,
        parent: GroupId,
        limits: &GroupLimits,
    ) -> Result<(), TooMany> {
        let steps = u32::try_from(self.ancestors(parent).count()).unwrap_or(u32::MAX);
        if steps >= limits.depth {
            return Err(TooMany::Deep { most: limits.depth });
        }
        let given = [own, parent].into_iter().filter_map(|at| self.given(at));
        let full = given.into_iter().find(|(_, group)| group.descendants >= limits.below);
        full.map_or(Ok(()), |(group, _)| Err(TooMany::Below { group, most: limits.below }))
    }

    /// The group, or the first above it, that was not made from within a container.
    fn given(&self, at: GroupId) -> Option<(GroupId, &Group)> {
        let mut up = std::iter::once(at).chain(self.ancestors(at)).map(|id| (id, self.groups.get(&id)));
        up.find_map(|(id, group)| group.filter(|group| !group.made_inside).map(|group| (id, group)))
    }

    /// A group is there, or not any more: it counts for its maker and for all above it.
    pub(crate) fn count(&mut self, id: GroupId, change: impl Fn(u32) -> u32) {
        let mut above = self.groups.get(&id).and_then(|group| group.parent);
        while let Some(group) = above.and_then(|id| self.groups.get_mut(&id)) {
            group.descendants = change(group.descendants);
            above = group.parent;
        }
    }

    /// Counts all groups anew: after they were put back from what was kept.
    pub fn recount(&mut self) {
        self.made = Made::default();
        self.groups.values_mut().for_each(|group| group.descendants = 0);
        let all: Vec<_> = self.groups.iter().filter(|(_, group)| group.parent.is_some()).collect();
        let all: Vec<_> = all.into_iter().map(|(id, group)| (*id, group.files_owner().0)).collect();
        for (id, maker) in all {
            self.made.add(maker);
            self.count(id, |descendants| descendants + 1);
        }
    }
}
