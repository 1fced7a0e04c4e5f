//! From events in order to steps: what each event takes, given where everybody is by then.

use super::events::Event;
use super::joining::{Joining, Joins};
use super::kin::{GroupId, Kin, OUTSIDE};
use super::leaving::{self, Server};
use super::servers::Cast;
use super::{Action, BUILDER, Node, Schedule, Step};
use crate::tree::ChildrenIn;

pub(super) fn write_down(kin: &Kin<'_>, cast: &Cast, joining: &Joining, events: &[Event]) -> Schedule {
    let count = cast.forker.len();
    let mut writer = Writer {
        kin,
        cast,
        joining,
        steps: Vec::with_capacity(events.len() * 2),
        children_in: cast.namespace.clone(),
        group: vec![Some(OUTSIDE); count],
    };
    for &event in events {
        writer.event(event);
    }
    // Before anybody leaves: no namespace is entered after its first process has ended.
    writer.settle_children();
    leaving::write_down(kin, cast, servers(kin, cast), &mut writer.steps);
    Schedule { helpers: cast.helpers.clone(), steps: writer.steps }
}

/// Each server with its reaper and the children that it leaves there.
fn servers(kin: &Kin<'_>, cast: &Cast) -> Vec<Server> {
    let mut children = vec![Vec::new(); cast.forker.len()];
    for node in 1..kin.parent.len() {
        if cast.forker[node] != kin.parent[node] {
            children[cast.forker[node]].push(node);
        }
    }
    let server = |(node, children): (Node, Vec<Node>)| {
        let reaper = kin.parent[*children.first()?];
        Some(Server { node, reaper, children })
    };
    children.into_iter().enumerate().filter_map(server).collect()
}

struct Writer<'a> {
    kin: &'a Kin<'a>,
    cast: &'a Cast,
    joining: &'a Joining,
    steps: Vec<Step>,
    /// Where each node's next children go.
    children_in: Vec<usize>,
    /// The group that each node is in; `None`: one that nobody needs.
    group: Vec<Option<GroupId>>,
}

impl Writer<'_> {
    fn step(&mut self, by: Node, action: Action) {
        self.steps.push(Step { by, action });
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Birth(node) => self.birth(node),
            Event::Session(node) => {
                self.step(node, Action::SetSid);
                self.group[node] = self.cast.group[node];
            }
            // The first child that needs another group says which.
            Event::MoveOn(_) => {}
            Event::Group(node) => {
                self.step(node, Action::SetPgid { process: node, leader: node });
                self.group[node] =
                    if self.joining.passes_through[node] { None } else { self.cast.group[node] };
            }
            Event::Join(node) => {
                if self.group[node] == self.cast.group[node] {
                    return;
                }
                if let Some(group) = self.cast.group[node] {
                    let by = match self.joining.joins[node] {
                        Joins::Forker => self.cast.forker[node],
                        Joins::Nobody | Joins::Itself => node,
                    };
                    self.step(by, Action::SetPgid { process: node, leader: self.cast.group_leader[group] });
                    self.group[node] = Some(group);
                }
            }
        }
    }

    fn birth(&mut self, node: Node) {
        let (forker, namespace) = (self.cast.forker[node], self.cast.namespace[node]);
        let is_first = namespace != 0 && self.kin.first[namespace] == node;
        let outer = self.kin.tree.namespaces[namespace].parent;
        let nursery = if is_first { outer.unwrap_or(0) } else { namespace };
        if self.children_in[forker] != nursery {
            self.step(forker, Action::ChildrenIn(nursery));
            self.children_in[forker] = nursery;
        }
        let from_birth = self.joining.from_birth[node];
        let given = self.joining.given[node];
        if let Some(group) = from_birth.filter(|_| !given && self.joining.moves_on[forker]) {
            self.give(forker, group);
        }
        let pids = self.cast.pids[node].clone();
        self.step(forker, Action::Fork { child: node, pids, new_namespace: is_first.then_some(namespace) });
        self.group[node] = self.group[forker];
        if let Some(group) = from_birth.filter(|_| given) {
            self.give(node, group);
        }
    }

    /// Has a node's forker put it into a group.
    fn give(&mut self, node: Node, group: GroupId) {
        if self.group[node] != Some(group) {
            let leader = self.cast.group_leader[group];
            self.step(self.cast.forker[node], Action::SetPgid { process: node, leader });
            self.group[node] = Some(group);
        }
    }

    /// Lets everybody's future children go where they went when the tree was captured.
    fn settle_children(&mut self) {
        for node in 1..self.kin.parent.len() {
            let process = self.kin.process(node);
            let wanted = match process.children_in {
                ChildrenIn::Own | ChildrenIn::Fresh => process.namespace,
                ChildrenIn::Namespace(namespace) => namespace,
            };
            if process.zombie {
                continue;
            }
            if self.children_in[node] != wanted {
                self.step(node, Action::ChildrenIn(wanted));
            }
            if process.children_in == ChildrenIn::Fresh {
                self.step(node, Action::Unshare);
            }
        }
        if self.children_in[BUILDER] != 0 {
            self.step(BUILDER, Action::ChildrenIn(0));
        }
    }
}
