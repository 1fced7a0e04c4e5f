//! The table of operations that any process of a script can carry out, and the state they share.
//!
//! Each row is one word of the language: its arguments as shown to the user, and its function. Rows come in four
//! parts, a module each: directories and attributes, contents, eventfds, and what concerns the acting process itself.

use super::mounts::Mounter;
use super::outcome::{Failure, Outcome, wrong};
use super::{actor, contents, ears, entries};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;

/// A process (or a thread of one) that carries operations out.
pub(super) struct Actor {
    /// Files held open from one step to another, by the name that the script gave.
    pub(super) handles: BTreeMap<OsString, File>,
    /// How this run mounts: by the kernel's mount(2) or by a command.
    pub(super) mounter: Mounter,
}

impl Actor {
    /// An actor with no file open.
    pub(super) fn new(mounter: Mounter) -> Self {
        Self { handles: BTreeMap::new(), mounter }
    }
}

/// One word of the language.
pub(super) struct Operation {
    /// The first word of the line.
    pub(super) name: &'static str,
    /// The other words, for the reader: `[X]` may be left out, `X...` may be repeated.
    pub(super) arguments: &'static str,
    /// What it does.
    pub(super) run: fn(&mut Actor, Arguments) -> Outcome,
}

/// The words after the operation's name; their number has been checked against the row.
#[derive(Clone, Copy)]
pub(super) struct Arguments<'a>(&'a [OsString]);

impl<'a> Arguments<'a> {
    /// The word at `index`; a row asks only for what its `arguments` promise.
    pub(super) fn at(self, index: usize) -> &'a OsStr {
        &self.0[index]
    }

    /// The word at `index`, if the line has it.
    pub(super) fn get(self, index: usize) -> Option<&'a OsStr> {
        self.0.get(index).map(OsString::as_os_str)
    }

    /// The words from `index` on.
    pub(super) fn from(self, index: usize) -> &'a [OsString] {
        &self.0[index.min(self.0.len())..]
    }

    /// The word at `index` as text.
    pub(super) fn text(self, index: usize) -> Result<&'a str, Failure> {
        match self.0[index].to_str() {
            Some(text) => Ok(text),
            None => wrong(format!("{:?} is not text", self.0[index])),
        }
    }

    /// The word at `index` as a decimal number.
    pub(super) fn number(self, index: usize) -> Result<u64, Failure> {
        let text = self.text(index)?;
        text.parse().or_else(|_| wrong(format!("{text} is not a number")))
    }

    /// The word at `index` as `A:B`, two decimal numbers.
    pub(super) fn ids(self, index: usize) -> Result<Vec<u32>, Failure> {
        let text = self.text(index)?;
        let ids: Result<Vec<u32>, _> = text.split(':').map(str::parse).collect();
        ids.or_else(|_| wrong(format!("{text} is not a list of ids like 1000:1000")))
    }
}

/// Carries `words` out; the first names the operation.
pub(super) fn perform(actor: &mut Actor, words: &[OsString]) -> Outcome {
    let Some((name, arguments)) = words.split_first() else {
        return wrong("no operation");
    };
    let Some(operation) = all().find(|operation| operation.name == name) else {
        return wrong(format!("no operation is called {}", name.to_string_lossy()));
    };
    if !operation.takes(arguments.len()) {
        return wrong(format!("usage: {} {}", operation.name, operation.arguments));
    }
    (operation.run)(actor, Arguments(arguments))
}

/// All rows, in the order in which they are documented.
pub(super) fn all() -> impl Iterator<Item = &'static Operation> {
    entries::OPERATIONS.iter().chain(contents::OPERATIONS).chain(ears::OPERATIONS).chain(actor::OPERATIONS)
}

impl Operation {
    fn takes(&self, given: usize) -> bool {
        let named = || self.arguments.split_whitespace();
        let least = named().filter(|word| !word.starts_with('[')).count();
        let open_end = self.arguments.contains("...");
        given >= least && (open_end || given <= named().count())
    }
}
