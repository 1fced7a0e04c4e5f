//! The tree, checked and indexed: nodes, depths, sessions, groups.

use std::collections::HashMap;

use super::{BUILDER, Node, OutsideGroup, ScheduleError};
use crate::pids::MOST_LEVELS;
use crate::tree::{ChildrenIn, Process, Tree};

/// An index of [`Kin::sessions`]; 0 is the builder's session.
pub(super) type SessionId = usize;
/// An index of [`Kin::groups`]; 0 is the builder's group.
pub(super) type GroupId = usize;

/// The session and the group that the builder is in, and no capture has a number for.
pub(super) const OUTSIDE: usize = 0;

/// A session or a process group.
#[derive(Clone, Debug)]
pub(super) struct Numbered {
    /// The leader's numbers, as far as members know them.
    pub pids: Vec<u32>,
    /// The pid namespace of the leader.
    pub namespace: usize,
    /// The leader, if it is in the tree.
    pub leader: Option<Node>,
    /// For a group: the session it is in. For a session: itself.
    pub session: SessionId,
}

/// What the other parts ask about the tree.
pub(super) struct Kin<'a> {
    pub tree: &'a Tree,
    /// Parents before children; the builder first.
    pub order: Vec<Node>,
    pub parent: Vec<Node>,
    pub depth: Vec<u32>,
    /// First and last moment of a walk over the subtree.
    span: Vec<(u32, u32)>,
    pub sessions: Vec<Numbered>,
    pub groups: Vec<Numbered>,
    pub session: Vec<SessionId>,
    pub group: Vec<GroupId>,
    /// The first process of each namespace; the builder for the oldest known.
    pub first: Vec<Node>,
    outside_group: OutsideGroup,
}

impl<'a> Kin<'a> {
    pub(super) fn of(tree: &'a Tree, outside_group: OutsideGroup) -> Result<Self, ScheduleError> {
        check_namespaces(tree)?;
        let by_pid = by_pid(tree)?;
        let first = first_processes(tree)?;
        let parent = parents(tree)?;
        let (order, depth, span) = walk(tree, &parent)?;
        let mut kin = Kin {
            tree,
            order,
            parent,
            depth,
            span,
            sessions: vec![outside()],
            groups: vec![outside()],
            session: vec![OUTSIDE; tree.processes.len() + 1],
            group: vec![OUTSIDE; tree.processes.len() + 1],
            first,
            outside_group,
        };
        kin.number_sessions(&by_pid)?;
        kin.number_groups(&by_pid)?;
        Ok(kin)
    }

    /// The captured process of a node; not for the builder.
    pub(super) fn process(&self, node: Node) -> &'a Process {
        &self.tree.processes[node - 1]
    }

    /// The pid namespace of the builder or a captured process.
    pub(super) fn namespace(&self, node: Node) -> usize {
        if node == BUILDER { 0 } else { self.process(node).namespace }
    }

    /// Whether a process leads its session. The builder is taken as one that never did another thing.
    pub(super) fn leads_session(&self, node: Node) -> bool {
        self.sessions[self.session[node]].leader == Some(node)
    }

    /// Whether `node` is below `above`, at any depth.
    pub(super) fn is_below(&self, node: Node, above: Node) -> bool {
        let (start, end) = self.span[above];
        node != above && (start..=end).contains(&self.span[node].0)
    }

    /// When a walk enters a node.
    pub(super) fn entered(&self, node: Node) -> u32 {
        self.span[node].0
    }

    /// When it enters whatever is below a node.
    pub(super) fn below(&self, above: Node) -> std::ops::Range<u32> {
        let (start, end) = self.span[above];
        start + 1..end + 1
    }

    /// For each session, the first and the last moment at which a walk enters a member.
    pub(super) fn extents(&self) -> Vec<(u32, u32)> {
        let mut extents = vec![(u32::MAX, 0); self.sessions.len()];
        for (node, &session) in self.session.iter().enumerate() {
            let (start, _) = self.span[node];
            let (first, last) = extents[session];
            extents[session] = (first.min(start), last.max(start));
        }
        extents
    }

    /// Whether everything of an extent is below `node`, or `node` itself.
    pub(super) fn encloses(&self, node: Node, (first, last): (u32, u32)) -> bool {
        let (start, end) = self.span[node];
        start <= first && last <= end
    }

    /// Whether a process of `namespace` has a number for the leader of a group. The builder's group may have one
    /// where the builder is.
    pub(super) fn sees(&self, namespace: usize, group: GroupId) -> bool {
        (group != OUTSIDE || self.outside_group == OutsideGroup::Numbered)
            && self.tree.is_within(self.groups[group].namespace, namespace)
    }

    /// Whether orphans of a process in `node`'s namespace whose own parent is outside, in `outer`, go to `node`: it is the
    /// first process there. Source: kernel/exit.c `find_new_reaper()`, which looks for subreapers at one level only.
    pub(super) fn takes_in_from_outside(&self, node: Node, outer: usize) -> bool {
        let namespace = self.namespace(node);
        node != BUILDER
            && namespace != outer
            && self.first[namespace] == node
            && self.tree.is_within(namespace, outer)
    }

    /// How a node is called in messages.
    pub(super) fn pid(&self, node: Node) -> u32 {
        if node == BUILDER { 0 } else { self.process(node).pids[0] }
    }

    pub(super) fn impossible(&self, node: Node, reason: &'static str) -> ScheduleError {
        ScheduleError::Impossible { pid: self.pid(node), reason }
    }

    fn number_sessions(&mut self, by_pid: &HashMap<u32, Node>) -> Result<(), ScheduleError> {
        let mut known = HashMap::new();
        for (index, process) in self.tree.processes.iter().enumerate() {
            let list = &mut self.sessions;
            let id = number(self.tree, list, &mut known, by_pid, process, &process.session)?;
            self.session[index + 1] = id;
            self.sessions[id].session = id;
        }
        for id in 1..self.sessions.len() {
            if let Some(leader) = self.sessions[id].leader
                && self.session[leader] != id
            {
                return Err(malformed(
                    self.process(leader),
                    "its number is a session's, but it is in another",
                ));
            }
        }
        Ok(())
    }

    fn number_groups(&mut self, by_pid: &HashMap<u32, Node>) -> Result<(), ScheduleError> {
        let mut known = HashMap::new();
        for (index, process) in self.tree.processes.iter().enumerate() {
            let node = index + 1;
            let seen = self.groups.len();
            let id = number(self.tree, &mut self.groups, &mut known, by_pid, process, &process.group)?;
            self.group[node] = id;
            if id == seen {
                self.groups[id].session = self.session[node];
            }
            if self.groups[id].session != self.session[node] {
                return Err(malformed(process, "its process group is in another session"));
            }
            if self.leads_session(node) && process.group != process.session {
                return Err(malformed(process, "a session leader is in another group than its own"));
            }
        }
        for id in 1..self.groups.len() {
            if let Some(leader) = self.groups[id].leader
                && self.session[leader] != self.groups[id].session
            {
                return Err(malformed(
                    self.process(leader),
                    "its number is that of a group in another session",
                ));
            }
        }
        Ok(())
    }
}

fn outside() -> Numbered {
    Numbered { pids: Vec::new(), namespace: 0, leader: Some(BUILDER), session: OUTSIDE }
}

fn malformed(process: &Process, what: &'static str) -> ScheduleError {
    ScheduleError::Malformed { pid: process.pids.first().copied().unwrap_or(0), what }
}

/// The id of a session or group, from its number in the oldest namespace; makes it when it is seen first.
fn number(
    tree: &Tree,
    list: &mut Vec<Numbered>,
    known: &mut HashMap<u32, usize>,
    by_pid: &HashMap<u32, Node>,
    member: &Process,
    pids: &[u32],
) -> Result<usize, ScheduleError> {
    let Some(&key) = pids.first() else { return Ok(OUTSIDE) };
    if pids.contains(&0) || pids.len() > member.pids.len() {
        return Err(malformed(member, "its session or group has more numbers than it can see"));
    }
    let id = *known.entry(key).or_insert(list.len());
    let leader = by_pid.get(&key).copied();
    let namespace = match leader {
        Some(node) => tree.processes[node - 1].namespace,
        None => tree
            .at_level(member.namespace, pids.len())
            .ok_or_else(|| malformed(member, "its session or group is in no namespace of the tree"))?,
    };
    if let Some(node) = leader
        && !tree.processes[node - 1].pids.starts_with(pids)
    {
        return Err(malformed(member, "its session or group has other numbers than their leader"));
    }
    if id == list.len() {
        list.push(Numbered { pids: pids.to_vec(), namespace, leader, session: OUTSIDE });
    } else if leader.is_none() {
        merge(&mut list[id], pids, namespace).map_err(|what| malformed(member, what))?;
    }
    Ok(id)
}

/// A dead leader is known by what its members see of it: those deepest down see most.
fn merge(known: &mut Numbered, pids: &[u32], namespace: usize) -> Result<(), &'static str> {
    let (longer, shorter) =
        if pids.len() > known.pids.len() { (pids, &*known.pids) } else { (&*known.pids, pids) };
    if !longer.starts_with(shorter) {
        return Err("its session or group has other numbers than for another member");
    }
    if pids.len() > known.pids.len() {
        (known.pids, known.namespace) = (pids.to_vec(), namespace);
    }
    Ok(())
}

fn check_namespaces(tree: &Tree) -> Result<(), ScheduleError> {
    let nested = |(index, namespace): (usize, &crate::tree::PidNamespace)| match namespace.parent {
        None => index == 0,
        Some(parent) => parent < index,
    };
    let refuse = |what| Err(ScheduleError::Malformed { pid: 0, what });
    if !tree.namespaces.iter().enumerate().all(nested) || tree.namespaces.is_empty() {
        return refuse("the pid namespaces are not nested");
    }
    // Checked first of all, since everything below walks up from a namespace.
    let mut levels: Vec<usize> = Vec::with_capacity(tree.namespaces.len());
    for namespace in &tree.namespaces {
        levels.push(1 + namespace.parent.map_or(0, |parent| levels[parent]));
    }
    if levels.iter().any(|&levels| levels > MOST_LEVELS) {
        return refuse("the pid namespaces are nested deeper than the kernel nests them");
    }
    for process in &tree.processes {
        if process.namespace >= tree.namespaces.len()
            || process.pids.len() != levels[process.namespace]
            || process.pids.contains(&0)
        {
            return Err(malformed(process, "not one number for each pid namespace that it is in"));
        }
        if let ChildrenIn::Namespace(inner) = process.children_in
            && !(inner < tree.namespaces.len() && tree.is_within(inner, process.namespace))
        {
            return Err(malformed(process, "its children's pid namespace is not within its own"));
        }
    }
    Ok(())
}

fn by_pid(tree: &Tree) -> Result<HashMap<u32, Node>, ScheduleError> {
    let mut by_pid = HashMap::with_capacity(tree.processes.len());
    for (index, process) in tree.processes.iter().enumerate() {
        if by_pid.insert(process.pids[0], index + 1).is_some() {
            return Err(malformed(process, "two processes have this number"));
        }
    }
    Ok(by_pid)
}

fn first_processes(tree: &Tree) -> Result<Vec<Node>, ScheduleError> {
    let mut first = vec![None; tree.namespaces.len()];
    first[0] = Some(BUILDER);
    for (index, process) in tree.processes.iter().enumerate() {
        if process.namespace != 0 && process.pids.last() == Some(&1) && first[process.namespace].is_none() {
            first[process.namespace] = Some(index + 1);
        }
    }
    for process in &tree.processes {
        let ended = |node: &Node| *node != BUILDER && tree.processes[*node - 1].zombie;
        if let Some(node) = first[process.namespace].filter(ended)
            && tree.processes[node - 1].pids != process.pids
        {
            return Err(malformed(process, "the first process of its pid namespace has ended"));
        }
    }
    let orphaned = |namespace: usize| tree.processes.iter().find(|process| process.namespace == namespace);
    let missing = |namespace: usize| match orphaned(namespace) {
        Some(process) => malformed(process, "the first process of its pid namespace is not in the tree"),
        None => ScheduleError::Malformed { pid: 0, what: "a pid namespace without a process" },
    };
    first.into_iter().enumerate().map(|(namespace, node)| node.ok_or_else(|| missing(namespace))).collect()
}

fn parents(tree: &Tree) -> Result<Vec<Node>, ScheduleError> {
    let mut parents = vec![BUILDER];
    for process in &tree.processes {
        let Some(index) = process.parent else {
            parents.push(BUILDER);
            continue;
        };
        let Some(parent) = tree.processes.get(index) else {
            return Err(malformed(process, "its parent is not in the tree"));
        };
        if parent.zombie {
            return Err(malformed(process, "its parent is a zombie"));
        }
        if !tree.is_within(process.namespace, parent.namespace) {
            return Err(malformed(process, "its pid namespace is not within its parent's"));
        }
        parents.push(index + 1);
    }
    Ok(parents)
}

type Walk = (Vec<Node>, Vec<u32>, Vec<(u32, u32)>);

/// Nodes by depth, with the depths and the moments at which a walk enters and leaves each.
fn walk(tree: &Tree, parent: &[Node]) -> Result<Walk, ScheduleError> {
    let count = parent.len();
    let mut children = vec![Vec::new(); count];
    for node in 1..count {
        children[parent[node]].push(node);
    }
    let (mut order, mut depth) = (vec![BUILDER], vec![0; count]);
    let mut next = 0;
    while let Some(&node) = order.get(next) {
        next += 1;
        for &child in &children[node] {
            depth[child] = depth[node] + 1;
            order.push(child);
        }
    }
    if order.len() < count {
        let reached: std::collections::HashSet<Node> = order.into_iter().collect();
        let lost = (1..count).find(|node| !reached.contains(node)).unwrap_or(1);
        return Err(malformed(&tree.processes[lost - 1], "it is its own ancestor"));
    }
    let mut size = vec![1_u32; count];
    for &node in order.iter().skip(1).rev() {
        size[parent[node]] += size[node];
    }
    let mut span = vec![(0, 0); count];
    span[BUILDER] = (0, size[BUILDER] - 1);
    let mut entered = vec![1_u32; count];
    for &node in order.iter().skip(1) {
        let start = span[parent[node]].0 + entered[parent[node]];
        entered[parent[node]] += size[node];
        span[node] = (start, start + size[node] - 1);
    }
    Ok((order, depth, span))
}
