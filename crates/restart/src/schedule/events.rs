//! What has to happen before what, and an order in which it can.

use super::birth::{Births, Source};
use super::joining::{Joining, Joins};
use super::kin::{GroupId, Kin, OUTSIDE};
use super::servers::Cast;
use super::{BUILDER, Node, ScheduleError};

/// Something that happens to a node once, before anybody leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// It is forked (and put into a group by its forker, if it needs that).
    Birth(Node),
    /// It makes a session of its own.
    Session(Node),
    /// It makes a group of its own.
    Group(Node),
    /// It joins the group that it ends up in.
    Join(Node),
    /// It leaves the group that it was born in, which nobody can bring it back to, for others that its children are born in.
    MoveOn(Node),
}

const KINDS: usize = 5;

impl Event {
    const fn index(self) -> usize {
        match self {
            Self::Birth(node) => node * KINDS,
            Self::Session(node) => node * KINDS + 1,
            Self::Group(node) => node * KINDS + 2,
            Self::Join(node) => node * KINDS + 3,
            Self::MoveOn(node) => node * KINDS + 4,
        }
    }

    const fn of(index: usize) -> Self {
        let node = index / KINDS;
        match index % KINDS {
            0 => Self::Birth(node),
            1 => Self::Session(node),
            2 => Self::Group(node),
            3 => Self::Join(node),
            _ => Self::MoveOn(node),
        }
    }
}

/// All events in an order that can be carried out.
pub(super) fn in_order(
    kin: &Kin<'_>,
    births: &Births,
    cast: &Cast,
    joining: &Joining,
) -> Result<Vec<Event>, ScheduleError> {
    let mut graph = Graph { happens: vec![false; cast.forker.len() * KINDS], edges: Vec::new() };
    for node in 1..cast.forker.len() {
        graph.happens[Event::Birth(node).index()] = true;
        graph.birth(kin, births, cast, node);
        graph.own_session(cast, node);
        graph.joins(kin, births, cast, joining, node);
    }
    let keepers = keepers(kin, cast, joining);
    for (group, &keeper) in keepers.iter().enumerate().skip(1) {
        graph.own_group(kin, cast, keeper, group);
    }
    // Only now is it known what a forker does later.
    for node in 1..cast.forker.len() {
        graph.group_at_birth(kin, births, cast, joining, node);
    }
    let by = |event| match event {
        Event::Birth(node) | Event::MoveOn(node) => cast.forker[node],
        Event::Session(node) | Event::Group(node) => node,
        Event::Join(node) => match joining.joins[node] {
            Joins::Forker => cast.forker[node],
            Joins::Nobody | Joins::Itself => node,
        },
    };
    graph.sort(by).map_err(|node| {
        let node = if node < kin.parent.len() { node } else { cast.forker[node] };
        kin.impossible(node, "its session and its groups need each other first")
    })
}

/// The event after which a group can be joined.
fn made(cast: &Cast, group: GroupId, kin: &Kin<'_>) -> Event {
    let leader = cast.group_leader[group];
    if leader == cast.session_leader[kin.groups[group].session] {
        Event::Session(leader)
    } else {
        Event::Group(leader)
    }
}

struct Graph {
    happens: Vec<bool>,
    edges: Vec<(u32, u32)>,
}

impl Graph {
    fn before(&mut self, first: Event, then: Event) {
        let index = |event: Event| u32::try_from(event.index()).unwrap_or(u32::MAX);
        self.edges.push((index(first), index(then)));
    }

    fn birth(&mut self, kin: &Kin<'_>, births: &Births, cast: &Cast, node: Node) {
        let forker = cast.forker[node];
        let birth = Event::Birth(node);
        if forker != BUILDER {
            self.before(Event::Birth(forker), birth);
            let leads = cast.session_leader[cast.session[forker]] == forker;
            let is_before = births.source.get(node) == Some(&Source::ParentBefore);
            if leads && is_before {
                self.before(birth, Event::Session(forker));
            } else if leads {
                self.before(Event::Session(forker), birth);
            }
        }
        let namespace = cast.namespace[node];
        let outer = || kin.tree.namespaces[namespace].parent.unwrap_or(0);
        let first = kin.first[if kin.first[namespace] == node { outer() } else { namespace }];
        if first != BUILDER && first != forker {
            self.before(Event::Birth(first), birth);
        }
    }

    fn own_session(&mut self, cast: &Cast, node: Node) {
        if cast.session_leader[cast.session[node]] == node {
            self.happens[Event::Session(node).index()] = true;
            self.before(Event::Birth(node), Event::Session(node));
        }
    }

    /// Joining the group that it ends up in.
    fn joins(&mut self, kin: &Kin<'_>, births: &Births, cast: &Cast, joining: &Joining, node: Node) {
        let (Some(group), join) = (cast.group[node], Event::Join(node)) else { return };
        match joining.joins[node] {
            Joins::Nobody => return,
            Joins::Itself => {}
            Joins::Forker => {
                // The two must be in one session then.
                if births.source.get(node) == Some(&Source::ParentBefore) {
                    self.before(join, Event::Session(cast.forker[node]));
                }
            }
        }
        self.happens[join.index()] = true;
        self.before(Event::Birth(node), join);
        if group != OUTSIDE {
            self.before(made(cast, group, kin), join);
        }
    }

    fn own_group(&mut self, kin: &Kin<'_>, cast: &Cast, keeper: Option<Event>, group: GroupId) {
        let leader = cast.group_leader[group];
        let Event::Group(_) = made(cast, group, kin) else { return };
        self.happens[Event::Group(leader).index()] = true;
        self.before(Event::Birth(leader), Event::Group(leader));
        if cast.group[leader].is_some_and(|own| own != group) {
            self.before(Event::Group(leader), Event::Join(leader));
            if let Some(keeper) = keeper {
                self.before(keeper, Event::Join(leader));
            }
        }
    }

    /// A group that a node is born in is there by then, and its forker is in it: at last, or still.
    fn group_at_birth(&mut self, kin: &Kin<'_>, births: &Births, cast: &Cast, joining: &Joining, node: Node) {
        let Some(group) = joining.from_birth[node] else { return };
        let (birth, forker) = (Event::Birth(node), cast.forker[node]);
        if joining.given[node] {
            if group != OUTSIDE {
                self.before(made(cast, group, kin), birth);
            }
        } else if cast.group[forker] == Some(group) {
            if self.happens[Event::Join(forker).index()] {
                self.before(Event::Join(forker), birth);
            }
        } else if forker != BUILDER {
            for later in [Event::Session(forker), Event::Group(forker), Event::Join(forker)] {
                if self.happens[later.index()] {
                    self.before(birth, later);
                }
            }
            self.forker_moves_on(kin, births, cast, joining, (node, group));
        }
    }

    /// A forker is in the group that it was born in, or its own forker has moved it on to the one that this child needs.
    fn forker_moves_on(
        &mut self,
        kin: &Kin<'_>,
        births: &Births,
        cast: &Cast,
        joining: &Joining,
        (node, group): (Node, GroupId),
    ) {
        let (birth, forker) = (Event::Birth(node), cast.forker[node]);
        if !joining.moves_on[forker] {
            return;
        }
        let from_birth = joining.from_birth[forker] == Some(group);
        if !from_birth || joining.given[forker] {
            // The two must be in one session then.
            if births.source.get(forker) == Some(&Source::ParentBefore) {
                self.before(birth, Event::Session(cast.forker[forker]));
            }
            if group != OUTSIDE {
                self.before(made(cast, group, kin), birth);
            }
        }
        if !joining.given[forker] {
            let moves_on = Event::MoveOn(forker);
            self.happens[moves_on.index()] = true;
            if from_birth {
                self.before(birth, moves_on);
            } else {
                self.before(moves_on, birth);
            }
        }
    }

    /// A topological order, or a node of a circle. Whoever does something goes on as long as it can, since to let another
    /// go on takes a switch of processes.
    fn sort(self, by: impl Fn(Event) -> Node) -> Result<Vec<Event>, Node> {
        let count = self.happens.len();
        let mut waits = vec![0_u32; count];
        let mut start = vec![0_usize; count + 1];
        for &(first, then) in &self.edges {
            waits[then as usize] += 1;
            start[first as usize + 1] += 1;
        }
        for index in 0..count {
            start[index + 1] += start[index];
        }
        let mut free = start.clone();
        let mut successors = vec![0_u32; self.edges.len()];
        for &(first, then) in &self.edges {
            successors[free[first as usize]] = then;
            free[first as usize] += 1;
        }
        let mut ready = Ready::new(count / KINDS);
        for event in (0..count).rev().filter(|&event| self.happens[event] && waits[event] == 0) {
            ready.push(by(Event::of(event)), event);
        }
        let mut order = Vec::new();
        while let Some(event) = ready.pop() {
            order.push(Event::of(event));
            for &then in &successors[start[event]..start[event + 1]] {
                waits[then as usize] -= 1;
                if waits[then as usize] == 0 {
                    ready.push(by(Event::of(then as usize)), then as usize);
                }
            }
        }
        match (0..count).find(|&event| self.happens[event] && waits[event] > 0) {
            Some(stuck) => Err(stuck / KINDS),
            None => Ok(order),
        }
    }
}

/// Events that can happen now, by who does them.
struct Ready {
    by: Vec<Vec<usize>>,
    /// Who had something to do, the last one last; it may have done it since.
    waiting: Vec<Node>,
    current: Node,
}

impl Ready {
    fn new(nodes: usize) -> Self {
        Self { by: vec![Vec::new(); nodes], waiting: Vec::new(), current: BUILDER }
    }

    fn push(&mut self, by: Node, event: usize) {
        self.by[by].push(event);
        self.waiting.push(by);
    }

    fn pop(&mut self) -> Option<usize> {
        while self.by[self.current].is_empty() {
            self.current = self.waiting.pop()?;
        }
        self.by[self.current].pop()
    }
}

/// For each group, the event that best keeps it: a member joins who stays. Its leader may then leave it.
fn keepers(kin: &Kin<'_>, cast: &Cast, joining: &Joining) -> Vec<Option<Event>> {
    let mut keepers: Vec<Option<(u8, Event)>> = vec![None; kin.groups.len()];
    for node in 1..cast.forker.len() {
        let Some(group) = cast.group[node].filter(|&group| cast.group_leader[group] != node) else {
            continue;
        };
        // A member who leads and leaves another group waits for that one's keeper: better not to wait for it in turn.
        let (rank, event) = match joining.joins[node] {
            Joins::Nobody => (2, Event::Birth(node)),
            Joins::Itself | Joins::Forker if joining.passes_through[node] => (1, Event::Join(node)),
            Joins::Itself | Joins::Forker => (3, Event::Join(node)),
        };
        if keepers[group].is_none_or(|(other, _)| other < rank) {
            keepers[group] = Some((rank, event));
        }
    }
    keepers.into_iter().map(|keeper| keeper.map(|(_, event)| event)).collect()
}
