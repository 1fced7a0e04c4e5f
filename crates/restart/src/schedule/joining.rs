//! How each process comes into its group.
//!
//! A process joins a group by the number that its own pid namespace has for the leader. If it has none, the group comes
//! from outside its namespace: a parent that sees the leader puts it there, or it is inherited from a forker that is in that
//! group at the time, for good or for the sake of its children. Who has children to be born in several such groups is moved
//! from one to the next by its own forker.

use super::kin::{GroupId, Kin, OUTSIDE};
use super::servers::Cast;
use super::{BUILDER, Node, ScheduleError};

/// Who moves a node into the group that it ends up in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joins {
    /// Nobody: it makes the group, inherits it, or may be in any.
    Nobody,
    /// Itself.
    Itself,
    /// Its forker, who sees the leader where it does not.
    Forker,
}

pub(super) struct Joining {
    pub joins: Vec<Joins>,
    /// For each node: the group that it must be in when it is born.
    pub from_birth: Vec<Option<GroupId>>,
    /// Whether its forker puts it there, by number; otherwise the forker is in that group itself.
    pub given: Vec<bool>,
    /// Whether its forker moves it on, for children to be born in groups that it was not born in.
    pub moves_on: Vec<bool>,
    /// Leaders of a group with members who end up in another group themselves.
    pub passes_through: Vec<bool>,
}

impl Joining {
    pub(super) fn of(kin: &Kin<'_>, cast: &Cast) -> Result<Self, ScheduleError> {
        let count = cast.forker.len();
        let mut joining = Joining {
            joins: vec![Joins::Nobody; count],
            from_birth: vec![None; count],
            given: vec![false; count],
            moves_on: vec![false; count],
            passes_through: vec![false; count],
        };
        for group in 1..kin.groups.len() {
            let leader = cast.group_leader[group];
            joining.passes_through[leader] = cast.group[leader].is_some_and(|own| own != group);
        }
        for node in 1..count {
            joining.end_up(kin, cast, node)?;
        }
        Ok(joining)
    }

    fn end_up(&mut self, kin: &Kin<'_>, cast: &Cast, node: Node) -> Result<(), ScheduleError> {
        let Some(group) = cast.group[node] else { return Ok(()) };
        let makes_it = cast.group_leader[group] == node && group != OUTSIDE;
        if makes_it || cast.session_leader[cast.session[node]] == node {
            return Ok(());
        }
        if kin.sees(cast.namespace[node], group) {
            self.joins[node] = Joins::Itself;
        } else if kin.sees(cast.namespace[cast.forker[node]], group) {
            self.joins[node] = Joins::Forker;
        } else if self.passes_through[node] {
            return Err(
                kin.impossible(node, "it led a group, and cannot come back to one that it has no number for")
            );
        } else {
            self.inherit(kin, cast, node, group)?;
        }
        Ok(())
    }

    /// Lets `node` be born in `group`, and whoever has to hand that down.
    fn inherit(
        &mut self,
        kin: &Kin<'_>,
        cast: &Cast,
        node: Node,
        group: GroupId,
    ) -> Result<(), ScheduleError> {
        let captured = if node < kin.parent.len() { node } else { cast.forker[node] };
        let mut node = node;
        loop {
            if cast.born_in[node] != kin.groups[group].session {
                return Err(
                    kin.impossible(captured, "its foreign group is in another session than it is born in")
                );
            }
            let forker = cast.forker[node];
            let is_seen = kin.sees(cast.namespace[forker], group);
            match self.from_birth[node] {
                Some(known) if known == group => return Ok(()),
                Some(known) => {
                    // It is born in the one that nobody can bring it to later, and not needed there to the end.
                    let can_be_later = is_seen || self.given[node];
                    if !can_be_later || cast.group[node] == Some(known) || cast.group[node] == Some(group) {
                        return Err(kin
                            .impossible(captured, "its parent would have to be born in two foreign groups"));
                    }
                    self.moves_on[node] = true;
                    if is_seen {
                        return Ok(());
                    }
                }
                None => {}
            }
            self.from_birth[node] = Some(group);
            self.given[node] = is_seen;
            let ends_up_there = cast.group[forker] == Some(group);
            if is_seen || ends_up_there {
                // Who ends up there sees to that itself.
                return Ok(());
            }
            if forker == BUILDER {
                return Err(kin.impossible(captured, "nobody sees its group"));
            }
            node = forker;
        }
    }
}
