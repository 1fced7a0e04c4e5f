//! Everybody who takes part: the tree's processes, and as few helpers as can be.
//!
//! Helpers that there must be: one for each number of a dead session or group leader, since a number can only be taken by a
//! process. Beyond these, each pair (orphans of one session for one reaper) needs a server, and a server can end only
//! once. A pair is served, in this order of preference, by the session's dead or zombie leader, by the helper of a dead
//! group leader, by another zombie of the session below the reaper, by a helper made for it.

use std::collections::BTreeMap;

use super::birth::{Births, Source};
use super::kin::{GroupId, Kin, Numbered, SessionId};
use super::{BUILDER, Helper, Node};

pub(super) struct Cast {
    pub helpers: Vec<Helper>,
    /// For each node, helpers included: who forks it.
    pub forker: Vec<Node>,
    pub namespace: Vec<usize>,
    /// The session that it ends up in.
    pub session: Vec<SessionId>,
    /// The session that it is born in.
    pub born_in: Vec<SessionId>,
    /// The group that it ends up in; `None`: any.
    pub group: Vec<Option<GroupId>>,
    /// For each node, the numbers asked for at its birth; 0: any.
    pub pids: Vec<Vec<u32>>,
    /// Who leads each session and group: processes, zombies, or helpers.
    pub session_leader: Vec<Node>,
    pub group_leader: Vec<Node>,
    /// Who serves each pair of [`Births::pairs`].
    pub server: Vec<Option<Node>>,
}

impl Cast {
    pub(super) fn of(kin: &Kin<'_>, births: &Births) -> Self {
        let mut cast = Self::of_processes(kin, births);
        let pairs = pairs_by_session(kin, births);
        for (session, pairs) in pairs.iter().enumerate().skip(1) {
            cast.lead_session(kin, births, session, pairs);
        }
        for group in 1..kin.groups.len() {
            cast.lead_group(kin, group);
        }
        let mut spare = cast.spare_servers(kin);
        for group in circles(kin) {
            cast.keep_group(kin, group);
        }
        let safe = cast.safe_zombies(kin, births);
        for (session, pairs) in pairs.iter().enumerate() {
            cast.serve(kin, births, pairs, std::mem::take(&mut spare[session]), &safe[session]);
        }
        for (pair, server) in births.pairs.iter().zip(&cast.server) {
            for &child in &pair.children {
                cast.forker[child] = server.unwrap_or(pair.reaper);
            }
        }
        cast
    }

    fn of_processes(kin: &Kin<'_>, births: &Births) -> Self {
        let process = |node: Node| if node == BUILDER { None } else { Some(kin.process(node)) };
        let nodes = 0..kin.parent.len();
        Self {
            helpers: Vec::new(),
            forker: kin.parent.clone(),
            namespace: nodes.clone().map(|node| kin.namespace(node)).collect(),
            session: kin.session.clone(),
            born_in: births.session.clone(),
            group: kin.group.iter().map(|&group| Some(group)).collect(),
            pids: nodes
                .map(|node| process(node).map_or(Vec::new(), |process| process.pids.clone()))
                .collect(),
            session_leader: kin.sessions.iter().map(|known| known.leader.unwrap_or(BUILDER)).collect(),
            group_leader: kin.groups.iter().map(|known| known.leader.unwrap_or(BUILDER)).collect(),
            server: vec![None; births.pairs.len()],
        }
    }

    fn add(&mut self, helper: Helper, forker: Node, session: (SessionId, SessionId), pids: Vec<u32>) -> Node {
        let node = self.forker.len();
        self.forker.push(forker);
        self.namespace.push(helper.namespace);
        self.born_in.push(session.0);
        self.session.push(session.1);
        self.group.push(None);
        self.pids.push(pids);
        self.helpers.push(helper);
        node
    }

    fn add_leader(&mut self, known: &Numbered, forker: Node, session: (SessionId, SessionId)) -> Node {
        let helper = Helper { namespace: known.namespace, pids: known.pids.clone() };
        self.add(helper, forker, session, known.pids.clone())
    }

    /// Gives a session a leader, if it has none that is captured; and the leader its pair, if it can serve one.
    fn lead_session(&mut self, kin: &Kin<'_>, births: &Births, session: SessionId, pairs: &[usize]) {
        let known = &kin.sessions[session];
        let in_its_namespace = |&&pair: &&usize| kin.namespace(births.pairs[pair].reaper) == known.namespace;
        let deepest = pairs.iter().find(in_its_namespace).copied();
        let leader = known.leader.unwrap_or_else(|| {
            // The deepest reaper forks it: so every reaper of the session is above it.
            let forker = deepest.map_or(kin.first[known.namespace], |pair| births.pairs[pair].reaper);
            self.add_leader(known, forker, (kin.session[forker], session))
        });
        self.session_leader[session] = leader;
        let ends = known.leader.is_none() || (leader != BUILDER && kin.process(leader).zombie);
        if let Some(deepest) = deepest.filter(|_| ends) {
            self.server[deepest] = Some(leader);
        }
    }

    /// Gives a group a leader, if it has none that is captured.
    fn lead_group(&mut self, kin: &Kin<'_>, group: GroupId) {
        let known = &kin.groups[group];
        if known.leader.is_some() {
            return;
        }
        let leader = self.session_leader[known.session];
        if self.pids[leader].first() == known.pids.first() {
            // The session's own dead leader.
            self.group_leader[group] = leader;
            self.group[leader] = Some(group);
            return;
        }
        let helper = self.add_leader(known, leader, (known.session, known.session));
        self.group[helper] = Some(group);
        self.group_leader[group] = helper;
    }

    /// Gives a group a member until everybody is where they belong.
    fn keep_group(&mut self, kin: &Kin<'_>, group: GroupId) {
        let known = &kin.groups[group];
        let (session, namespace) = (known.session, known.namespace);
        let pids = vec![0; kin.tree.levels(namespace)];
        let forker = self.session_leader[session];
        let helper = self.add(Helper { namespace, pids: Vec::new() }, forker, (session, session), pids);
        self.group[helper] = Some(group);
    }

    /// For each session, helpers of dead group leaders: they can leave orphans too.
    fn spare_servers(&self, kin: &Kin<'_>) -> Vec<Vec<Node>> {
        let mut spare = vec![Vec::new(); kin.sessions.len()];
        for group in 1..kin.groups.len() {
            let (leader, session) = (self.group_leader[group], kin.groups[group].session);
            if leader >= kin.parent.len() && leader != self.session_leader[session] {
                spare[session].push(leader);
            }
        }
        spare
    }

    /// For each session, zombies that are there as soon as its leader is: born to their parent, it to its own, and so on
    /// up to the leader. They wait for no orphan that they might be asked to fork.
    fn safe_zombies(&self, kin: &Kin<'_>, births: &Births) -> Vec<Vec<Node>> {
        let mut safe = vec![false; kin.parent.len()];
        let mut zombies = vec![Vec::new(); kin.sessions.len()];
        for &node in kin.order.iter().skip(1) {
            let (session, parent) = (kin.session[node], kin.parent[node]);
            let leader = self.session_leader[session];
            if kin.leads_session(node) {
                continue;
            }
            safe[node] = match births.source[node] {
                Source::Parent => parent == leader || safe[parent],
                Source::ParentBefore => false,
                Source::Server(pair) => self.server[pair] == Some(leader),
            };
            if safe[node] && kin.process(node).zombie {
                zombies[session].push(node);
            }
        }
        zombies
    }

    /// Finds servers for the pairs of one session, from the deepest reaper outwards.
    fn serve(&mut self, kin: &Kin<'_>, births: &Births, pairs: &[usize], spare: Vec<Node>, zombies: &[Node]) {
        // By namespace: the helpers, and the zombies in the order of a walk, in which those below a reaper follow each other.
        let mut idle: BTreeMap<usize, Vec<Node>> = BTreeMap::new();
        for helper in spare {
            idle.entry(self.namespace[helper]).or_default().push(helper);
        }
        let mut walked: BTreeMap<usize, BTreeMap<u32, Node>> = BTreeMap::new();
        for &zombie in zombies {
            walked.entry(kin.namespace(zombie)).or_default().insert(kin.entered(zombie), zombie);
        }
        for &pair in pairs {
            if self.server[pair].is_some() {
                continue;
            }
            let (reaper, session) = (births.pairs[pair].reaper, births.pairs[pair].session);
            let namespace = kin.namespace(reaper);
            let mut zombie = || {
                let zombies = walked.get_mut(&namespace)?;
                let (&entered, _) = zombies.range(kin.below(reaper)).next()?;
                zombies.remove(&entered)
            };
            let server = if let Some(helper) = idle.get_mut(&namespace).and_then(Vec::pop) {
                helper
            } else if let Some(zombie) = zombie() {
                zombie
            } else {
                let forker = self.session_leader[session];
                let levels = kin.tree.levels(namespace);
                self.add(Helper { namespace, pids: Vec::new() }, forker, (session, session), vec![0; levels])
            };
            self.server[pair] = Some(server);
        }
    }
}

/// The pairs of each session, deepest reaper first.
fn pairs_by_session(kin: &Kin<'_>, births: &Births) -> Vec<Vec<usize>> {
    let mut by_session = vec![Vec::new(); kin.sessions.len()];
    // Pairs were found from the deepest reaper upwards.
    for (index, pair) in births.pairs.iter().enumerate() {
        by_session[pair.session].push(index);
    }
    by_session
}

/// Groups that nobody can leave first: their leaders end up in each other's, around in a circle, and nobody else is in them.
/// One of each circle. There was such another member once, and there has to be one again.
fn circles(kin: &Kin<'_>) -> Vec<GroupId> {
    let mut leads: Vec<Option<GroupId>> = vec![None; kin.parent.len()];
    for (group, known) in kin.groups.iter().enumerate().skip(1) {
        if let Some(leader) = known.leader.filter(|&leader| kin.group[leader] != group) {
            leads[leader] = Some(group);
        }
    }
    // A group waits for the first member's own group, unless somebody is in it who leads none.
    let mut waits_for: Vec<Option<GroupId>> = vec![None; kin.groups.len()];
    let mut is_kept = vec![false; kin.groups.len()];
    for node in 1..kin.parent.len() {
        match leads[node] {
            None => is_kept[kin.group[node]] = true,
            Some(own) => {
                waits_for[kin.group[node]].get_or_insert(own);
            }
        }
    }
    let mut walked = vec![0; kin.groups.len()];
    let mut circles = Vec::new();
    for start in 1..kin.groups.len() {
        let mut at = Some(start);
        while let Some(group) = at.filter(|&group| walked[group] == 0 && !is_kept[group]) {
            walked[group] = start;
            at = waits_for[group];
        }
        // Back on this walk's own way: around.
        circles.extend(at.filter(|&group| walked[group] == start && !is_kept[group]));
    }
    circles
}
