//! How many groups there may be, and how much may be kept with them: so that nobody who may make groups uses up the memory of all.
//!
//! The host's root and whom the daemon runs as are held to nothing. Root of a container that has the host's users is held to the
//! depth, and to the number below a group for the one that the host has put it in, and for each that the host has made.
//! Everybody else is held to three numbers: how many groups their user has made, how many there are below a group that was given
//! away, and how deep they lie. Users of one user namespace are many, but what they are given is one group: so the second
//! number bounds them all together. Extended attributes are bounded by user and by what was given away, too.

use std::collections::HashMap;

use crate::{Errno, Forest, Group, GroupId, Uid};

/// The most that users who are not trusted make.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupLimits {
    /// Made by one user, in all hierarchies.
    pub per_user: u32,
    /// Below a group that belongs to somebody who is not trusted.
    pub below: u32,
    /// From a hierarchy's root to the group.
    pub depth: u32,
    /// Bytes that extended attributes take: of all groups that one user has made, and of a group that belongs to somebody who is
    /// not trusted and all below it.
    pub attributes: u64,
}

impl GroupLimits {
    /// Enough for machines full of containers, and some hundred bytes of memory each.
    pub const DEFAULT: Self = Self { per_user: 10_000, below: 20_000, depth: 64, attributes: 4 << 20 };
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

/// Why no more extended attributes are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TooMuch {
    /// The groups of the user who made this one have enough.
    #[error("the attributes of all groups that user {} has made would take {bytes} bytes: {most} is the most", .uid.0)]
    OfUser {
        /// The user.
        uid: Uid,
        /// What they would take.
        bytes: u64,
        /// The limit.
        most: u64,
    },
    /// There are enough at what was given away, and below.
    #[error(
        "the attributes of group {group} and of all below it would take {bytes} bytes: {most} is the most"
    )]
    Below {
        /// The group that was given away.
        group: GroupId,
        /// What they would take.
        bytes: u64,
        /// The limit.
        most: u64,
    },
}

impl TooMuch {
    /// The errno that setxattr(2) gives where a quota is met. kernfs has no such bound: it charges attributes to who wrote them.
    pub const fn errno(self) -> Errno {
        Errno::EDQUOT
    }
}

/// What there is of whom. Groups, and what is kept with them, count for who made them, also when they are given away: nobody gets
/// room by giving.
#[derive(Debug, Default)]
pub(crate) struct Made(HashMap<Uid, OfMaker>);

#[derive(Clone, Copy, Debug, Default)]
struct OfMaker {
    groups: u32,
    attributes: u64,
}

impl Made {
    pub(crate) fn add(&mut self, uid: Uid) {
        self.0.entry(uid).or_default().groups += 1;
    }

    pub(crate) fn take(&mut self, uid: Uid) {
        let made = self.0.get_mut(&uid).expect("who made a group is counted");
        made.groups -= 1;
        if made.groups == 0 {
            self.0.remove(&uid);
        }
    }

    fn of(&self, uid: Uid) -> OfMaker {
        self.0.get(&uid).copied().unwrap_or_default()
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
        self.may_be_below(parent, limits)?;
        if self.made.of(maker).groups >= limits.per_user {
            return Err(TooMany::OfUser { uid: maker, most: limits.per_user });
        }
        let given = self.given_away(parent, is_trusted);
        let full = given.filter(|(_, group)| group.descendants >= limits.below);
        full.map_or(Ok(()), |(group, _)| Err(TooMany::Below { group, most: limits.below }))
    }

    /// Whether there may be one more group of somebody in a container who has a number that is trusted elsewhere. It is in `own`.
    /// What is counted is below groups that were not made that way, whoever made what is below them: the first such group on the
    /// way up from its own, and the first from the parent. What it makes itself, and moves into, gives it no more room.
    pub fn may_grow_within(
        &self,
        own: GroupId,
        parent: GroupId,
        limits: &GroupLimits,
    ) -> Result<(), TooMany> {
        self.may_be_below(parent, limits)?;
        let given = [own, parent].into_iter().filter_map(|at| self.given(at));
        let full = given.into_iter().find(|(_, group)| group.descendants >= limits.below);
        full.map_or(Ok(()), |(group, _)| Err(TooMany::Below { group, most: limits.below }))
    }

    /// Whether a group below this one would not be too deep.
    fn may_be_below(&self, parent: GroupId, limits: &GroupLimits) -> Result<(), TooMany> {
        let above = u32::try_from(self.ancestors(parent).count()).unwrap_or(u32::MAX);
        if above >= limits.depth { Err(TooMany::Deep { most: limits.depth }) } else { Ok(()) }
    }

    /// The group and those above it.
    fn up_from(&self, id: GroupId) -> impl Iterator<Item = (GroupId, &Group)> {
        let up = std::iter::once(id).chain(self.ancestors(id));
        up.filter_map(|id| Some((id, self.groups.get(&id)?)))
    }

    /// The group, or the first above it, that was not made from within a container.
    fn given(&self, at: GroupId) -> Option<(GroupId, &Group)> {
        self.up_from(at).find(|(_, group)| !group.made_inside)
    }

    /// The last on the way up from a group, roots aside, that belongs to somebody who is not trusted: all in there share its limits.
    fn given_away(&self, at: GroupId, is_trusted: impl Fn(Uid) -> bool) -> Option<(GroupId, &Group)> {
        self.up_from(at)
            .filter(|(_, group)| group.parent.is_some() && !is_trusted(group.ownership.uid))
            .last()
    }

    /// Whether somebody who is not trusted may have the extended attributes of a group, and of its files, take so much more. What is
    /// counted is what the group's maker has, what there is where the group was given away, and, of a group that was made from
    /// within a container, what there is at the first one above it that was not. A group of the host's counts for nobody.
    pub fn may_keep(
        &self,
        id: GroupId,
        more: u64,
        is_trusted: impl Fn(Uid) -> bool,
        limits: &GroupLimits,
    ) -> Result<(), TooMuch> {
        let Some(group) = self.groups.get(&id).filter(|_| more > 0) else { return Ok(()) };
        let most = limits.attributes;
        let maker = group.files_owner().0;
        let bytes = self.made.of(maker).attributes.saturating_add(more);
        if !is_trusted(maker) && bytes > most {
            return Err(TooMuch::OfUser { uid: maker, bytes, most });
        }
        let given = self.given_away(id, is_trusted);
        let put_in = if group.made_inside { self.given(id) } else { None };
        for (above, found) in given.into_iter().chain(put_in) {
            let bytes = found.attributes.saturating_add(more);
            if bytes > most {
                return Err(TooMuch::Below { group: above, bytes, most });
            }
        }
        Ok(())
    }

    /// The extended attributes of a group and of its files take `now` instead of `before`.
    pub fn count_attributes(&mut self, id: GroupId, before: u64, now: u64) {
        let changed = |bytes: u64| bytes.saturating_sub(before).saturating_add(now);
        let made = self.groups.get(&id).filter(|group| group.parent.is_some());
        if let Some(made) = made.and_then(|group| self.made.0.get_mut(&group.files_owner().0)) {
            made.attributes = changed(made.attributes);
        }
        let mut at = Some(id);
        while let Some(group) = at.and_then(|id| self.groups.get_mut(&id)) {
            group.attributes = changed(group.attributes);
            at = group.parent;
        }
    }

    /// A group is there, or not any more: it counts for its maker and for all above it.
    pub(crate) fn count(&mut self, id: GroupId, change: impl Fn(u32) -> u32) {
        let mut above = self.groups.get(&id).and_then(|group| group.parent);
        while let Some(group) = above.and_then(|id| self.groups.get_mut(&id)) {
            group.descendants = change(group.descendants);
            above = group.parent;
        }
    }

    /// Counts all groups anew, and by `attributes` what each keeps: after they were put back from what was kept.
    pub fn recount(&mut self, attributes: impl Fn(&Group) -> u64) {
        self.made = Made::default();
        self.groups.values_mut().for_each(|group| (group.descendants, group.attributes) = (0, 0));
        let all = self.groups.iter().map(|(id, group)| {
            let maker = group.parent.map(|_| group.files_owner().0);
            (*id, maker, attributes(group))
        });
        for (id, maker, bytes) in all.collect::<Vec<_>>() {
            if let Some(maker) = maker {
                self.made.add(maker);
                self.count(id, |descendants| descendants + 1);
            }
            self.count_attributes(id, 0, bytes);
        }
    }
}
