//! What a restart keeps of a process tree: who is whose child, in which session, group and pid namespace, under which numbers.
//!
//! Pure data. [`crate::image`] has the rest of a process: its program, credentials, limits.

/// A pid namespace. The first of a [`Tree`] is the oldest known one, and the only one without a parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PidNamespace {
    /// The namespace it is nested in: an index below its own. `None` for the first.
    pub parent: Option<usize>,
}

/// The pid namespace that a process puts its children in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChildrenIn {
    /// Its own.
    #[default]
    Own,
    /// Another: it called setns(2), or unshare(2) and had a child since.
    Namespace(usize),
    /// One that has no process yet: it called unshare(2).
    Fresh,
}

/// A process and its relations.
///
/// Lists of numbers go from the oldest known namespace to the youngest in which there is a number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Its own numbers: one for each namespace that it is in.
    pub pids: Vec<u32>,
    /// Its pid namespace, an index into [`Tree::namespaces`].
    pub namespace: usize,
    /// Its parent, an index into [`Tree::processes`]; `None`: a process outside of the tree.
    pub parent: Option<usize>,
    /// The numbers of its session; empty: the session of whoever restarts the tree.
    pub session: Vec<u32>,
    /// The numbers of its process group; empty: the group of whoever restarts the tree.
    pub group: Vec<u32>,
    /// Where its children go.
    pub children_in: ChildrenIn,
    /// Whether it has ended and waits for its parent.
    pub zombie: bool,
}

/// Processes with everything that relates them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// The pid namespaces, each after the one it is nested in.
    pub namespaces: Vec<PidNamespace>,
    /// The processes, in any order.
    pub processes: Vec<Process>,
}

impl Tree {
    /// How many namespaces a process of this one is in, counted from the oldest known.
    pub fn levels(&self, namespace: usize) -> usize {
        let up = |&namespace: &usize| self.namespaces[namespace].parent;
        std::iter::successors(Some(namespace), up).count()
    }

    /// Whether `outer` is `inner`, or `inner` is nested in it at any depth.
    pub fn is_within(&self, inner: usize, outer: usize) -> bool {
        let up = |&namespace: &usize| self.namespaces[namespace].parent;
        std::iter::successors(Some(inner), up).any(|namespace| namespace == outer)
    }

    /// The namespace at a level (1: the oldest known) on the way down to `namespace`.
    pub fn at_level(&self, namespace: usize, level: usize) -> Option<usize> {
        let up = |&namespace: &usize| self.namespaces[namespace].parent;
        let steps = self.levels(namespace).checked_sub(level)?;
        std::iter::successors(Some(namespace), up).nth(steps)
    }
}
