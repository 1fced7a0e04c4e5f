//! Who ends before the tree runs, and in which order: helpers, and the zombies of the capture.
//!
//! What a server leaves goes to the nearest active reaper above it. So servers end in the order of their reapers' depths, and
//! a reaper becomes one only when its turn has come: everything between a server and its reaper is deeper, and inactive.

use super::kin::Kin;
use super::servers::Cast;
use super::{Action, BUILDER, Node, Step};

/// A process with children that are orphaned to a reaper when it ends.
pub(super) struct Server {
    pub node: Node,
    pub reaper: Node,
    pub children: Vec<Node>,
}

/// Appends the last steps. Everybody's parent is its forker until now.
pub(super) fn write_down(kin: &Kin<'_>, cast: &Cast, mut servers: Vec<Server>, steps: &mut Vec<Step>) {
    let processes = kin.parent.len();
    let mut leaving = Leaving { kin, parent: cast.forker.clone(), steps };
    let mut role = vec![Role::Nothing; cast.forker.len()];
    for &forker in &cast.forker[processes..] {
        role[forker] = Role::HasHelpers;
    }
    for server in &servers {
        role[server.node] = Role::Server;
    }
    for node in (processes..cast.forker.len()).filter(|&node| role[node] == Role::Nothing) {
        leaving.end(node);
    }
    // A server whose own parent is outside its namespace leaves to the first process whatever is active.
    let from_outside =
        |server: &Server| cast.namespace[cast.forker[server.node]] != cast.namespace[server.node];
    servers.sort_by_key(|server| if from_outside(server) { 0 } else { 1 + kin.depth[server.reaper] });
    let mut active = vec![false; processes];
    for server in servers {
        let reaper = server.reaper;
        let is_first = reaper != BUILDER && kin.first[kin.namespace(reaper)] == reaper;
        if !is_first && !std::mem::replace(&mut active[reaper], true) {
            leaving.steps.push(Step { by: reaper, action: Action::BecomeSubreaper });
        }
        leaving.end(server.node);
        for child in server.children {
            leaving.parent[child] = reaper;
        }
    }
    for node in (processes..cast.forker.len()).filter(|&node| role[node] == Role::HasHelpers) {
        leaving.end(node);
    }
    for node in (1..processes).filter(|&node| kin.process(node).zombie && role[node] != Role::Server) {
        leaving.end(node);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Nothing,
    /// It has forked helpers, who end before it, but nobody else.
    HasHelpers,
    Server,
}

struct Leaving<'a> {
    kin: &'a Kin<'a>,
    parent: Vec<Node>,
    steps: &'a mut Vec<Step>,
}

impl Leaving<'_> {
    fn end(&mut self, node: Node) {
        let is_helper = node >= self.kin.parent.len();
        let waiting = if is_helper { Action::Reap(node) } else { Action::Await(node) };
        self.steps.push(Step { by: node, action: Action::Exit });
        self.steps.push(Step { by: self.parent[node], action: waiting });
    }
}
