//! In which session each process is born, and who can give it that.
//!
//! A process that is no session leader is born in its session. A leader may be born in any: it leaves by setsid(2), and
//! children that it had before stay behind. So what a child needs, its parent gives if it is in that session itself, or
//! was born in it; otherwise the child was forked by someone else and orphaned to its parent.
//!
//! Nodes are looked at from the deepest to the builder, so that what all children need is known before what the parent needs.

use std::collections::HashMap;

use super::kin::{Kin, SessionId};
use super::{BUILDER, Node, ScheduleError};

/// Who forks a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Its parent, in the session that this ends up in.
    Parent,
    /// Its parent, before it makes a session of its own.
    ParentBefore,
    /// The server of a pair: an index of [`Births::pairs`].
    Server(usize),
}

/// Children of a reaper that were born in a session which the reaper does not give: it takes one server to fork them.
#[derive(Debug)]
pub(super) struct Pair {
    pub session: SessionId,
    pub reaper: Node,
    pub children: Vec<Node>,
}

pub(super) struct Births {
    /// The session that each process is born in.
    pub session: Vec<SessionId>,
    pub source: Vec<Source>,
    pub pairs: Vec<Pair>,
}

/// A session that the node does not end up in, and the children that need it.
type Need = (SessionId, Vec<Node>);

struct Search<'a> {
    kin: &'a Kin<'a>,
    births: Births,
    needs: Vec<Vec<(SessionId, Node)>>,
    /// For each session: how many nodes not looked at yet have children that need it.
    open: Vec<u32>,
    /// For each session: the last node counted in `open`.
    counted: Vec<Option<Node>>,
    /// For each session: where its members are.
    extents: Vec<(u32, u32)>,
    /// For each session: the deepest reaper of a pair so far.
    deepest: Vec<Option<Node>>,
}

impl Births {
    pub(super) fn of(kin: &Kin<'_>) -> Result<Self, ScheduleError> {
        let count = kin.parent.len();
        let births =
            Births { session: kin.session.clone(), source: vec![Source::Parent; count], pairs: Vec::new() };
        let sessions = kin.sessions.len();
        let needs = vec![Vec::new(); count];
        let mut search = Search {
            kin,
            births,
            needs,
            open: vec![0; sessions],
            counted: vec![None; sessions],
            extents: kin.extents(),
            deepest: vec![None; sessions],
        };
        for &node in kin.order.iter().rev() {
            search.settle(node)?;
        }
        Ok(search.births)
    }
}

impl Search<'_> {
    /// Decides who forks the children of `node`, and what `node` itself needs.
    fn settle(&mut self, node: Node) -> Result<(), ScheduleError> {
        let needs = self.take_needs(node);
        let is_leader = node != BUILDER && self.kin.leads_session(node);
        let kept = self.choose_birth(node, &needs, is_leader)?;
        for (session, children) in needs {
            if Some(session) == kept {
                self.births.session[node] = session;
                for child in children {
                    self.births.source[child] = Source::ParentBefore;
                }
            } else {
                self.pair(node, session, children)?;
            }
        }
        if node != BUILDER {
            let needed = if is_leader { kept } else { Some(self.kin.session[node]) };
            match needed {
                Some(session) => self.need(self.kin.parent[node], session, node),
                // Any session will do: born to its parent as it is.
                None => self.births.session[node] = self.kin.session[self.kin.parent[node]],
            }
        }
        Ok(())
    }

    fn take_needs(&mut self, node: Node) -> Vec<Need> {
        let mut grouped: HashMap<SessionId, usize> = HashMap::new();
        let mut needs: Vec<Need> = Vec::new();
        for (session, child) in std::mem::take(&mut self.needs[node]) {
            let place = *grouped.entry(session).or_insert(needs.len());
            if place == needs.len() {
                needs.push((session, Vec::new()));
                self.open[session] -= 1;
            }
            needs[place].1.push(child);
        }
        needs
    }

    fn need(&mut self, parent: Node, session: SessionId, child: Node) {
        if session == self.kin.session[parent] {
            return;
        }
        // Siblings are looked at one after another, so a node is counted once for each session.
        if self.counted[session] != Some(parent) {
            self.counted[session] = Some(parent);
            self.open[session] += 1;
        }
        self.needs[parent].push((session, child));
    }

    /// Which session a leader is born in for the sake of its children, if they need one.
    fn choose_birth(
        &self,
        node: Node,
        needs: &[Need],
        is_leader: bool,
    ) -> Result<Option<SessionId>, ScheduleError> {
        let (must, may): (Vec<&Need>, Vec<&Need>) =
            needs.iter().partition(|(session, _)| !self.can_pair(node, *session));
        if let Some((_, children)) = must.first().copied().filter(|_| !is_leader) {
            return Err(self.kin.impossible(
                children[0],
                "nobody who is in its session, or was born in it, can be its parent or leave it to its parent",
            ));
        }
        if let [_, (_, children), ..] = *must {
            let reason = "its siblings need another session that their parent was born in";
            return Err(self.kin.impossible(children[0], reason));
        }
        if !is_leader {
            return Ok(None);
        }
        let wish = || may.iter().map(|(session, _)| *session).max_by_key(|&session| self.gain(node, session));
        let chosen = must.first().map(|(session, _)| *session);
        Ok(chosen.or_else(|| wish().filter(|&session| self.gain(node, session) > 0)))
    }

    /// Whether a server whose orphans go to `node` can be in `session`.
    fn can_pair(&self, node: Node, session: SessionId) -> bool {
        let known = &self.kin.sessions[session];
        if self.kin.namespace(node) != known.namespace {
            return self.kin.takes_in_from_outside(node, known.namespace);
        }
        match known.leader {
            Some(leader) => self.kin.is_below(leader, node),
            // A dead leader can be put anywhere once; all reapers must be above that place.
            None => self.deepest[session].is_none_or(|below| below == node || self.kin.is_below(below, node)),
        }
    }

    /// How much it helps if `node` is born in a session that its children need, so that the need moves to its parent.
    fn gain(&self, node: Node, session: SessionId) -> u32 {
        let (known, parent) = (&self.kin.sessions[session], self.kin.parent[node]);
        if !self.kin.tree.is_within(self.kin.namespace(parent), known.namespace) {
            return 0;
        }
        let free = u32::from(self.kin.session[parent] == session);
        // Its members are elsewhere too: so its dead leader was not below this node alone.
        let elsewhere = self.open[session] > 0 || !self.kin.encloses(node, self.extents[session]);
        let meets = u32::from(known.leader.is_none() && elsewhere);
        3 * free + 2 * meets
    }

    fn pair(&mut self, reaper: Node, session: SessionId, children: Vec<Node>) -> Result<(), ScheduleError> {
        if !self.can_pair(reaper, session) {
            return Err(self
                .kin
                .impossible(children[0], "its session has orphans in branches that do not meet"));
        }
        for &child in &children {
            self.births.source[child] = Source::Server(self.births.pairs.len());
        }
        if self.kin.namespace(reaper) == self.kin.sessions[session].namespace {
            self.deepest[session].get_or_insert(reaper);
        }
        self.births.pairs.push(Pair { session, reaper, children });
        Ok(())
    }
}
