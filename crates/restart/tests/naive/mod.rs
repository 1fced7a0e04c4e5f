//! A naive model of the kernel's process relations: as slow and as plain as can be, and written from the kernel's source.
//!
//! It is the oracle of the schedule: random histories of system calls make trees, and the steps of a schedule have to make
//! the same tree again. Every call is refused as the kernel refuses it.

use std::collections::BTreeMap;

use pinfold_restart::tree::{ChildrenIn, PidNamespace, Process, Tree};

/// A task of the model; numbers of tasks are never used again.
pub(crate) type Id = usize;

/// The machine's first process, and the one below which trees are made.
pub(crate) const INIT: Id = 0;
pub(crate) const LAUNCHER: Id = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Alive,
    Zombie,
    Gone,
}

#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) pids: Vec<u32>,
    pub(crate) namespace: usize,
    pub(crate) parent: Id,
    pub(crate) session: Id,
    pub(crate) group: Id,
    /// `pid_ns_for_children`.
    pub(crate) children_in: usize,
    pub(crate) subreaper: bool,
    pub(crate) state: State,
}

#[derive(Clone, Debug)]
pub(crate) struct Space {
    pub(crate) parent: Option<usize>,
    pub(crate) first: Option<Id>,
    next: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    pub(crate) tasks: Vec<Task>,
    pub(crate) spaces: Vec<Space>,
}

pub(crate) type Answer<T> = Result<T, &'static str>;

impl Kernel {
    pub(crate) fn boot() -> Self {
        let task = |pid, group| Task {
            pids: vec![pid],
            namespace: 0,
            parent: INIT,
            session: INIT,
            group,
            children_in: 0,
            subreaper: false,
            state: State::Alive,
        };
        let space = Space { parent: None, first: Some(INIT), next: 2000 };
        Self { tasks: vec![task(1, INIT), task(2, LAUNCHER)], spaces: vec![space] }
    }

    fn path(&self, space: usize) -> Vec<usize> {
        let mut path: Vec<usize> =
            std::iter::successors(Some(space), |&space| self.spaces[space].parent).collect();
        path.reverse();
        path
    }

    fn lives(&self, id: Id) -> Answer<()> {
        if self.tasks[id].state == State::Alive { Ok(()) } else { Err("the caller is not alive") }
    }

    /// A struct pid goes when no task, session and group has it.
    fn in_use(&self, level: usize, space: usize, pid: u32) -> bool {
        let has = |id: Id| {
            self.path(self.tasks[id].namespace).get(level) == Some(&space)
                && self.tasks[id].pids[level] == pid
        };
        let present = self.tasks.iter().enumerate().filter(|(_, task)| task.state != State::Gone);
        present.into_iter().any(|(id, task)| has(id) || has(task.session) || has(task.group))
    }

    /// clone3 with `set_tid` from the oldest namespace on; 0: any number that is free and not in `avoid`.
    pub(crate) fn fork(&mut self, by: Id, wanted: &[u32], new: bool, avoid: &[u32]) -> Answer<Id> {
        self.lives(by)?;
        let outer = self.tasks[by].children_in;
        if new {
            self.spaces.push(Space { parent: Some(outer), first: None, next: 2 });
        }
        let namespace = if new { self.spaces.len() - 1 } else { outer };
        let path = self.path(namespace);
        if wanted.len() > path.len() {
            return Err("EINVAL: more numbers than levels");
        }
        let first = self.spaces[namespace].first;
        let is_first = first.is_none();
        if self.path(namespace).iter().any(|&space| {
            self.spaces[space].first.is_some_and(|first| self.tasks[first].state != State::Alive)
        }) {
            return Err("ENOMEM: within a dead namespace");
        }
        let mut pids = Vec::new();
        for (level, &space) in path.iter().enumerate() {
            let known = (level + wanted.len()).checked_sub(path.len()).map_or(0, |place| wanted[place]);
            let youngest = level + 1 == path.len();
            let pid = match known {
                0 if youngest && is_first => 1,
                0 => loop {
                    let next = self.spaces[space].next;
                    self.spaces[space].next += 1;
                    if !avoid.contains(&next) && !self.in_use(level, space, next) {
                        break next;
                    }
                },
                pid => pid,
            };
            if youngest && is_first && pid != 1 {
                return Err("EINVAL: the first process of a namespace is 1");
            }
            if self.in_use(level, space, pid) {
                return Err("EEXIST");
            }
            pids.push(pid);
        }
        let id = self.tasks.len();
        let forker = &self.tasks[by];
        self.tasks.push(Task {
            pids,
            namespace,
            parent: by,
            session: forker.session,
            group: forker.group,
            children_in: namespace,
            subreaper: false,
            state: State::Alive,
        });
        self.spaces[namespace].first.get_or_insert(id);
        Ok(id)
    }

    pub(crate) fn setsid(&mut self, by: Id) -> Answer<()> {
        self.lives(by)?;
        if self.present().any(|id| self.tasks[id].group == by) {
            return Err("EPERM: its number is a group's");
        }
        self.tasks[by].session = by;
        self.tasks[by].group = by;
        Ok(())
    }

    fn present(&self) -> impl Iterator<Item = Id> {
        (0..self.tasks.len()).filter(|&id| self.tasks[id].state != State::Gone)
    }

    /// The number of a task (dead or alive) in a namespace.
    fn number(&self, id: Id, space: usize) -> Option<u32> {
        let level = self.path(space).len() - 1;
        (self.path(self.tasks[id].namespace).get(level) == Some(&space)).then(|| self.tasks[id].pids[level])
    }

    /// setpgid(2): the group is given by whose number it is; the caller must have a number for it.
    pub(crate) fn setpgid(&mut self, by: Id, who: Id, group: Id) -> Answer<()> {
        self.lives(by)?;
        if who != by {
            if self.tasks[who].parent != by || self.tasks[who].state == State::Gone {
                return Err("ESRCH: not a child");
            }
            if self.tasks[who].session != self.tasks[by].session {
                return Err("EPERM: a child in another session");
            }
        }
        if self.tasks[who].session == who {
            return Err("EPERM: a session leader");
        }
        if self.number(group, self.tasks[by].namespace).is_none() {
            return Err("EPERM: no number for that group here");
        }
        let joins =
            |&id: &Id| self.tasks[id].group == group && self.tasks[id].session == self.tasks[who].session;
        if group != who && !self.present().any(|id| joins(&id)) {
            return Err("EPERM: no such group in the session");
        }
        self.tasks[who].group = group;
        Ok(())
    }

    pub(crate) fn subreaper(&mut self, by: Id) -> Answer<()> {
        self.lives(by)?;
        self.tasks[by].subreaper = true;
        Ok(())
    }

    /// setns(2) of a pid namespace: the caller's own, or one nested in it.
    pub(crate) fn children_in(&mut self, by: Id, space: usize) -> Answer<()> {
        self.lives(by)?;
        if !self.path(space).contains(&self.tasks[by].namespace) {
            return Err("EINVAL: not within its own namespace");
        }
        let first = self.spaces[space].first.ok_or("no process in that namespace")?;
        if self.tasks[first].state != State::Alive {
            return Err("a dead namespace");
        }
        self.tasks[by].children_in = space;
        Ok(())
    }

    /// exit(2): children go to the nearest subreaper of the same level above, or to the first process of the namespace.
    pub(crate) fn exit(&mut self, by: Id) -> Answer<()> {
        self.lives(by)?;
        let namespace = self.tasks[by].namespace;
        let first = self.spaces[namespace].first.ok_or("a process without a first one")?;
        let inside = |id: Id| id != by && self.path(self.tasks[id].namespace).contains(&namespace);
        if first == by && self.present().any(inside) {
            return Err("would end its whole namespace");
        }
        self.tasks[by].state = State::Zombie;
        if first != by {
            let reaper = self.reaper(by).unwrap_or(first);
            for id in 0..self.tasks.len() {
                if self.tasks[id].parent == by && id != by && self.tasks[id].state != State::Gone {
                    self.tasks[id].parent = reaper;
                }
            }
        }
        Ok(())
    }

    fn reaper(&self, by: Id) -> Option<Id> {
        let mut above = self.tasks[by].parent;
        while self.tasks[above].namespace == self.tasks[by].namespace {
            let task = &self.tasks[above];
            if task.subreaper && task.state == State::Alive {
                return Some(above);
            }
            if above == INIT {
                return None;
            }
            above = task.parent;
        }
        None
    }

    pub(crate) fn await_end(&self, by: Id, child: Id) -> Answer<()> {
        self.lives(by)?;
        if self.tasks[child].parent == by && self.tasks[child].state == State::Zombie {
            return Ok(());
        }
        Err("ECHILD")
    }

    pub(crate) fn reap(&mut self, by: Id, child: Id) -> Answer<()> {
        self.await_end(by, child)?;
        self.tasks[child].state = State::Gone;
        Ok(())
    }

    /// A random call: `kind` says which, in percent.
    pub(crate) fn carry_out(&mut self, kind: u8, by: Id, other: Id) -> Answer<()> {
        let deep = self.tasks[by].pids.len() > 4;
        match kind {
            0..40 => self.fork(by, &[], false, &[]).map(|_| ()),
            40..44 if !deep => self.fork(by, &[], true, &[]).map(|_| ()),
            _ if by == LAUNCHER => Ok(()),
            44..54 => self.setsid(by),
            54..60 => self.setpgid(by, by, by),
            60..66 => self.setpgid(by, by, self.tasks[other].group),
            66..70 => self.setpgid(by, other, self.tasks[by].group),
            70..73 => self.setpgid(by, other, other),
            73..85 => self.exit(by),
            85..93 => match (0..self.tasks.len()).find(|&id| self.await_end(by, id).is_ok()) {
                Some(child) => self.reap(by, child),
                None => Err("no zombie"),
            },
            93..96 => self.subreaper(by),
            _ => self.children_in(by, self.tasks[other].namespace),
        }
    }

    /// Everybody below the launcher, as a capture would describe them; the tasks beside it.
    pub(crate) fn capture(&self) -> (Tree, Vec<Id>) {
        let below = |&id: &Id| {
            let up = std::iter::successors(Some(id), |&id| (id != INIT).then(|| self.tasks[id].parent));
            id != LAUNCHER && up.into_iter().any(|id| id == LAUNCHER)
        };
        let mut ids: Vec<Id> = self.present().filter(below).collect();
        ids.sort_by_key(|&id| &self.tasks[id].pids);
        // Namespaces are numbered by the numbers of their first processes, so that equal trees are equal values.
        let mut spaces = vec![0];
        for &id in &ids {
            if self.tasks[id].namespace != 0 && self.spaces[self.tasks[id].namespace].first == Some(id) {
                spaces.push(self.tasks[id].namespace);
            }
        }
        spaces[1..].sort_by_key(|&space| {
            let first = self.spaces[space].first.unwrap_or(INIT);
            (self.tasks[first].pids.len(), self.tasks[first].pids.clone())
        });
        let numbers: BTreeMap<usize, usize> =
            spaces.iter().enumerate().map(|(place, &space)| (space, place)).collect();
        let tree = Tree {
            namespaces: spaces
                .iter()
                .map(|&space| PidNamespace {
                    parent: self.spaces[space].parent.map(|parent| numbers[&parent]),
                })
                .collect(),
            processes: ids.iter().map(|&id| self.describe(id, &ids, &numbers)).collect(),
        };
        (tree, ids)
    }

    fn describe(&self, id: Id, ids: &[Id], numbers: &BTreeMap<usize, usize>) -> Process {
        let task = &self.tasks[id];
        let seen = |leader: Id, outside: Id| -> Vec<u32> {
            if leader == outside {
                return Vec::new();
            }
            self.path(task.namespace).into_iter().map_while(|space| self.number(leader, space)).collect()
        };
        Process {
            pids: task.pids.clone(),
            namespace: numbers[&task.namespace],
            parent: ids.iter().position(|&other| other == task.parent),
            session: seen(task.session, INIT),
            group: seen(task.group, LAUNCHER),
            children_in: match numbers.get(&task.children_in) {
                Some(_) if task.children_in == task.namespace || task.state == State::Zombie => {
                    ChildrenIn::Own
                }
                Some(&space) => ChildrenIn::Namespace(space),
                None => ChildrenIn::Own,
            },
            zombie: task.state == State::Zombie,
        }
    }
}
