//! Rules: which processes go to which groups by themselves. The successor of cgrulesengd(8) and of the kernel's `ns` subsystem.
//!
//! ```toml
//! # The first rule that fits a process decides; if none fits, it stays where it is.
//! [[rule]]
//! uid = ["alice", 1001]                  # effective user: a number, a name, or a list of them
//! exe = "/usr/lib/gcc/*"                 # the program; `*` stands for anything
//! group = "cpu,memory:/compilers/%u"     # CONTROLLERS:PATH, or PATH in every hierarchy; or a list of them
//!
//! [[rule]]
//! new_namespace = "pid"                  # a new pid namespace gets a group of its own, with all its processes
//! group = "/containers/%P"
//! ```
//!
//! The conditions are `uid`, `gid` (effective), `exe`, `comm` and `new_namespace` (pid, user, mount, cgroup, net, uts, ipc or time: it is
//! the first process of one; the others of that namespace follow it); all that a rule has must hold. In a path, `%u` and `%g` are the
//! user's and the group's names, `%U` and `%G` their numbers, `%p` the process's name, `%P` its number in the daemon's pid namespace, `%%` a percent sign. Groups that are not there
//! are made.
//!
//! `parse` and `table` are pure; [`Classifier`] follows process events and moves.
//!
//! # Out of scope
//!
//! Threads. Kernel threads, which are never moved. A process's own change of its name: everybody may call himself anything.

mod apply;
mod parse;
mod programs;
mod table;

pub use apply::{Classifier, Ended, Rulebook};
pub use parse::RulesError;
pub use table::{Home, Names, Rules, Subject, Target};
