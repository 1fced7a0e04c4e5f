//! Carrying a plan out: one step after the other, and back again if one fails.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use pinfold_model::{Dir, Errno, HostPid, Instruction, Slot};
use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno as Raw;

use crate::held::Item;
use crate::tree::{REST, RestPlace};
use crate::{Tree, beneath, errors, look};

/// One change to the v2 tree.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Step {
    /// Makes a directory. A spine directory passes the realm's controllers on. One that is there already is fine.
    Make(Dir),
    /// Writes a text into a file of a directory.
    Write {
        /// The directory.
        dir: Dir,
        /// The file's name.
        file: &'static str,
        /// What to write.
        text: String,
    },
    /// Has the kernel ask a program about the directory's processes, instead of the one in its slot there.
    Program {
        /// The directory.
        dir: Dir,
        /// What it is asked, and under which name.
        slot: Slot,
        /// What it does; `None`: nobody is asked any more.
        code: Option<Vec<Instruction>>,
    },
    /// Writes one entry of a file that has one for each device or resource: its key, and what holds for it. One of a device
    /// that is gone is fine, and so is one that no longer knows the file (a disk's scheduler was changed): there is nothing to hold.
    Entry {
        /// The directory.
        dir: Dir,
        /// The file's name.
        file: &'static str,
        /// The entry (`254:0 rbps=1048576 wbps=max`).
        text: String,
    },
    /// Moves a whole process.
    Move {
        /// The process, or any of its tasks.
        process: HostPid,
        /// Where to.
        to: Place,
    },
    /// Removes a directory, with the empty directories that others made below it. One that is gone is fine.
    Remove(Dir),
}

impl Step {
    /// The directory in which something changes; `None` for a move.
    pub const fn dir(&self) -> Option<&Dir> {
        match self {
            Self::Make(dir)
            | Self::Remove(dir)
            | Self::Write { dir, .. }
            | Self::Entry { dir, .. }
            | Self::Program { dir, .. } => Some(dir),
            Self::Move { .. } => None,
        }
    }
}

/// Where a process can be moved to.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Place {
    /// A directory of the realm.
    Dir(Dir),
    /// A place outside the realm, as [`crate::Membership::Outside`] names it.
    Outside(OsString),
    /// Where the processes of the scope are that nobody put anywhere: the base, or its `pinfold.rest`.
    Scope,
}

/// Why a plan was not carried out. What had been done was undone.
#[derive(Debug, thiserror::Error)]
#[error("{cause}{}", .not_undone.iter().map(|cause| format!("\nnot undone: {cause}")).collect::<String>())]
pub struct StepError {
    /// Which step failed, counted from 0.
    pub step: usize,
    /// Why.
    pub cause: Cause,
    /// What could not be undone, in the order in which it was tried. Empty in all but hostile cases.
    pub not_undone: Vec<Cause>,
}

/// Why one step failed.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// Another program removed the directory.
    #[error("{} was removed", path.display())]
    Gone {
        /// The directory or file.
        path: PathBuf,
    },
    /// The directory cannot be removed: it holds processes, or directories that hold some.
    #[error("{} holds processes or directories", path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
    },
    /// The process exited.
    #[error("no process {0}")]
    NoProcess(HostPid),
    /// The kernel refused for another reason.
    #[error("{}: {operation}{}: {errno}", path.display(),
        .value.as_ref().map(|value| format!(" {:?}", value.trim_end())).unwrap_or_default())]
    Refused {
        /// What was tried: `mkdir`, `write`, `attach a program`, `move` or `rmdir`.
        operation: &'static str,
        /// The directory or file.
        path: PathBuf,
        /// What was written.
        value: Option<String>,
        /// The kernel's answer.
        errno: Raw,
    },
}

impl StepError {
    /// The errno of the step that failed.
    pub fn errno(&self) -> Errno {
        self.cause.errno()
    }
}

impl Cause {
    /// The errno that Linux gives for the same on v1: cgroup_kn_lock_live() for a removed group.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Gone { .. } => Errno::ENODEV,
            Self::Busy { .. } => Errno::EBUSY,
            Self::NoProcess(_) => Errno::ESRCH,
            Self::Refused { errno, .. } => errors::to_model(*errno),
        }
    }
}

/// What takes a step back.
enum Undo {
    Nothing,
    Make(Dir),
    Remove(Dir),
    Write { dir: Dir, file: &'static str, text: Vec<u8> },
    Entries { dir: Dir, file: &'static str, entries: Vec<String> },
    Program { dir: Dir, slot: Slot, before: Option<OwnedFd> },
    Move { process: HostPid, to: OsString },
}

impl Tree {
    /// Carries steps out in order. If one fails, undoes those before it, the last one first.
    ///
    /// A process that exits before its move is an error like any other: move many processes that have nothing to do
    /// with each other in plans of their own. A directory that was there before [`Step::Make`] stays on undo; one that
    /// [`Step::Remove`] removed is made again without what was written into it, so removals belong at the end.
    pub fn carry_out(&self, steps: &[Step]) -> Result<(), StepError> {
        let mut done = Vec::new();
        for (number, step) in steps.iter().enumerate() {
            // The last step is never undone, so what it replaces need not be looked up.
            let is_last = number + 1 == steps.len();
            match self.take(step, is_last) {
                Ok(undo) => done.push(undo),
                Err(cause) => {
                    let not_undone =
                        done.into_iter().rev().filter_map(|undo| self.take_back(undo).err()).collect();
                    return Err(StepError { step: number, cause, not_undone });
                }
            }
        }
        Ok(())
    }

    /// Tries an entry without a limit in the realm's own directory, where it changes nothing: whether the kernel knows the
    /// device or resource.
    pub fn try_entry(&self, file: &'static str, entry: &str) -> Result<(), StepError> {
        let path = self.below_base(&Dir::REALM).join(file);
        beneath::write(&self.base, &path, entry.as_bytes()).map_err(|errno| {
            let value = Some(entry.to_owned());
            let path = self.display(&path);
            StepError {
                step: 0,
                cause: Cause::Refused { operation: "write", path, value, errno },
                not_undone: Vec::new(),
            }
        })
    }

    fn take(&self, step: &Step, is_last: bool) -> Result<Undo, Cause> {
        match step {
            Step::Make(dir) => self.make(dir),
            Step::Write { dir, file, text } => {
                let path = self.below_base(dir).join(file);
                let before = if is_last { None } else { beneath::read(&self.base, &path).ok() };
                self.write(&path, text.as_bytes())?;
                Ok(before.map_or(Undo::Nothing, |text| Undo::Write { dir: dir.clone(), file, text }))
            }
            Step::Program { dir, slot, code } => {
                let before = self.put_program(dir, *slot, code.as_deref());
                let before = before.map_err(|errno| self.refused_program(dir, *slot, errno))?;
                Ok(Undo::Program { dir: dir.clone(), slot: *slot, before })
            }
            Step::Entry { dir, file, text } => {
                let path = self.below_base(dir).join(file);
                let before = if is_last { None } else { beneath::read(&self.base, &path).ok() };
                if !self.write_entry(&path, text)? {
                    return Ok(Undo::Nothing);
                }
                Ok(before.map_or(Undo::Nothing, |all| Undo::Entries {
                    dir: dir.clone(),
                    file,
                    entries: entries_before(&all, text),
                }))
            }
            Step::Move { process, to } => {
                let before = if is_last { None } else { Some(self.place_of(*process)?) };
                self.relocate(*process, to)?;
                Ok(before.map_or(Undo::Nothing, |to| Undo::Move { process: *process, to }))
            }
            Step::Remove(dir) => {
                let was_there = self.remove(dir)?;
                Ok(if was_there { Undo::Make(dir.clone()) } else { Undo::Nothing })
            }
        }
    }

    fn take_back(&self, undo: Undo) -> Result<(), Cause> {
        match undo {
            Undo::Nothing => Ok(()),
            Undo::Make(dir) => self.make(&dir).map(|_| ()),
            Undo::Remove(dir) => self.remove(&dir).map(|_| ()),
            Undo::Write { dir, file, text } => {
                self.write(&self.below_base(&dir).join(file), text.trim_ascii_end())
            }
            Undo::Entries { dir, file, entries } => {
                let path = self.below_base(&dir).join(file);
                entries.iter().try_for_each(|entry| self.write_entry(&path, entry).map(|_| ()))
            }
            Undo::Program { dir, slot, before } => {
                let answer = self.exchange(&dir, slot, before.as_ref());
                answer.map(|_| ()).map_err(|errno| self.refused_program(&dir, slot, errno))
            }
            Undo::Move { process, to } => match self.relocate(process, &Place::Outside(to)) {
                // It exited: then it is nowhere, before and after.
                Err(Cause::NoProcess(_)) => Ok(()),
                answer => answer,
            },
        }
    }

    fn make(&self, dir: &Dir) -> Result<Undo, Cause> {
        let path = self.below_base(dir);
        let mut answer = self.mkdir(&path);
        if answer == Err(Raw::NOENT) && dir.depth() == 1 {
            // Another program removed the realm directory while it was empty.
            answer = self.make_realm_directory().and_then(|()| {
                self.pass_on(Path::new(&self.realm))?;
                self.mkdir(&path)
            });
        }
        let is_new = match answer {
            Ok(()) => true,
            Err(Raw::EXIST) => false,
            Err(errno) => return Err(self.refused_step("mkdir", &path, None, errno)),
        };
        if dir.leaf().is_none()
            && let Err(errno) = self.pass_on(&path)
        {
            if is_new {
                // The first error is the one to tell.
                let _ = self.remove(dir);
            }
            return Err(self.refused_step("write", &path.join("cgroup.subtree_control"), None, errno));
        }
        self.count_made(dir);
        Ok(if is_new { Undo::Remove(dir.clone()) } else { Undo::Nothing })
    }

    fn mkdir(&self, path: &Path) -> Result<(), Raw> {
        rustix::fs::mkdirat(&self.base, path, Mode::from_raw_mode(0o755))
    }

    /// Switches the realm's controllers on below a spine directory: all in one write.
    fn pass_on(&self, spine: &Path) -> Result<(), Raw> {
        if self.available.is_empty() {
            return Ok(());
        }
        let all =
            self.available.iter().map(|controller| format!("+{controller}")).collect::<Vec<_>>().join(" ");
        beneath::write(&self.base, spine.join("cgroup.subtree_control"), all.as_bytes())
    }

    fn write(&self, path: &Path, text: &[u8]) -> Result<(), Cause> {
        beneath::write(&self.base, path, text).map_err(|errno| {
            self.refused_step("write", path, Some(String::from_utf8_lossy(text).into_owned()), errno)
        })
    }

    /// Writes an entry; false if its device is gone, or no longer has this file's.
    fn write_entry(&self, path: &Path, entry: &str) -> Result<bool, Cause> {
        match beneath::write(&self.base, path, entry.as_bytes()) {
            Ok(()) => Ok(true),
            Err(Raw::NODEV | Raw::OPNOTSUPP) => Ok(false),
            Err(errno) => Err(self.refused_step("write", path, Some(entry.to_owned()), errno)),
        }
    }

    /// Where a process is, as `/proc/PID/cgroup` prints it.
    fn place_of(&self, process: HostPid) -> Result<OsString, Cause> {
        look::shown_path(process).map_err(|errno| match errno {
            Raw::NOENT | Raw::SRCH => Cause::NoProcess(process),
            errno => Cause::Refused {
                operation: "read",
                path: format!("/proc/{process}/cgroup").into(),
                value: None,
                errno,
            },
        })
    }

    /// Moves a process.
    fn relocate(&self, process: HostPid, to: &Place) -> Result<(), Cause> {
        let text = process.to_string();
        let number = text.as_bytes();
        let answer = match to {
            Place::Dir(dir) => {
                self.with_held(dir.into(), Item::Entrance, |entrance| beneath::put(entrance, number))
            }
            Place::Scope => self.enter_scope(number),
            Place::Outside(shown) => match self.below_mount(shown) {
                Some(path) => beneath::write(&self.mount, path.join("cgroup.procs"), number),
                // Above the cgroup namespace or beside what is mounted here: not there for us.
                None => Err(Raw::NOENT),
            },
        };
        answer.map_err(|errno| match errno {
            Raw::SRCH => Cause::NoProcess(process),
            errno => refusal("move", self.path_of_place(to), Some(text), errno),
        })
    }

    fn enter_scope(&self, number: &[u8]) -> Result<(), Raw> {
        let place = self.below_base_of_scope();
        let enter = || beneath::write(&self.base, place.join("cgroup.procs"), number);
        match enter() {
            Err(Raw::NOENT) if self.rest == RestPlace::Directory => self.mkdir(place).and_then(|()| enter()),
            answer => answer,
        }
    }

    fn below_base_of_scope(&self) -> &'static Path {
        Path::new(match self.rest {
            RestPlace::Base => "",
            RestPlace::Directory => REST,
        })
    }

    /// A place, for messages.
    fn path_of_place(&self, place: &Place) -> PathBuf {
        match place {
            Place::Dir(dir) => self.display(self.below_base(dir)),
            Place::Scope => self.display(self.below_base_of_scope()),
            Place::Outside(shown) => {
                self.below_mount(shown).map_or_else(|| shown.into(), |path| self.point.join(path))
            }
        }
    }

    fn remove(&self, dir: &Dir) -> Result<bool, Cause> {
        let path = self.below_base(dir);
        match self.remove_directory(dir) {
            Ok(was_there) => Ok(was_there),
            Err(Raw::BUSY | Raw::NOTEMPTY) => Err(Cause::Busy { path: self.display(path) }),
            Err(errno) => Err(self.refused_step("rmdir", &path, None, errno)),
        }
    }

    /// Removes a directory, and the empty ones that others made below it; false if it was not there.
    pub(crate) fn remove_directory(&self, dir: &Dir) -> Result<bool, Raw> {
        let path = self.below_base(dir);
        let lifted = self.lift(&path);
        let answer = match self.rmdir(&path) {
            Err(Raw::BUSY | Raw::NOTEMPTY) => self.remove_foreign(dir).and_then(|()| self.rmdir(&path)),
            answer => answer,
        };
        if answer.is_err() {
            self.limit_again(&path, &lifted)?;
        }
        let removed = answer?;
        self.held.forget(dir.into());
        self.leaves.forget(dir);
        self.count_removed(dir);
        Ok(removed)
    }

    /// Removes the directories below one of the realm's that are not the realm's, the deepest first.
    fn remove_foreign(&self, dir: &Dir) -> Result<(), Raw> {
        let mut found = Vec::new();
        let top = self.below_base(dir);
        beneath::walk(self.base.as_fd(), top.clone(), &mut |path| {
            if path == top {
                return Ok(beneath::Below::Enter);
            }
            if dir.leaf().is_none() && self.is_own(path) {
                return Ok(beneath::Below::Skip);
            }
            found.push(path.to_path_buf());
            Ok(beneath::Below::Enter)
        })?;
        found.iter().rev().try_for_each(|path| self.rmdir(path).map(|_| ()))
    }

    fn rmdir(&self, below_base: &Path) -> Result<bool, Raw> {
        match rustix::fs::unlinkat(&self.base, below_base, AtFlags::REMOVEDIR) {
            Ok(()) => Ok(true),
            Err(Raw::NOENT) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    fn refused_program(&self, dir: &Dir, slot: Slot, errno: Raw) -> Cause {
        self.refused_step("attach a program", &self.below_base(dir), Some(slot.name.to_owned()), errno)
    }

    fn refused_step(
        &self,
        operation: &'static str,
        below_base: &Path,
        value: Option<String>,
        errno: Raw,
    ) -> Cause {
        refusal(operation, self.display(below_base), value, errno)
    }
}

/// The entries that take back one that was written: that of the same key that the file had before; without one, the same
/// without a limit. A default takes all others with it, so they are written again.
fn entries_before(all: &[u8], entry: &str) -> Vec<String> {
    const DEFAULT: &str = "default";
    let key_of = |entry: &str| entry.split(' ').next().unwrap_or_default().to_owned();
    let key = key_of(entry);
    let all = String::from_utf8_lossy(all);
    let before = all.lines().filter(|line| key == DEFAULT || key_of(line) == key).map(str::to_owned);
    let before: Vec<String> = before.collect();
    if !before.is_empty() {
        return before;
    }
    let none = if all.lines().any(|line| key_of(line) == DEFAULT) { DEFAULT } else { "max" };
    let words = entry.split(' ').skip(1).map(|word| match word.split_once('=') {
        Some((name, _)) => format!(" {name}={none}"),
        None => format!(" {none}"),
    });
    vec![key + &words.collect::<String>()]
}

fn refusal(operation: &'static str, path: PathBuf, value: Option<String>, errno: Raw) -> Cause {
    match errno {
        errno if beneath::is_gone(errno) => Cause::Gone { path },
        errno => Cause::Refused { operation, path, value, errno },
    }
}

#[cfg(test)]
mod tests {
    use super::entries_before;

    #[test]
    fn an_entry_is_taken_back_to_what_it_was_or_to_no_limit() {
        let all = b"8:0 rbps=5 wbps=max\n254:0 rbps=max wbps=7\n";
        assert_eq!(entries_before(all, "254:0 rbps=1 wbps=2"), ["254:0 rbps=max wbps=7"]);
        assert_eq!(entries_before(all, "54:0 rbps=1 wbps=2"), ["54:0 rbps=max wbps=max"]);
        assert_eq!(entries_before(b"", "sev 5"), ["sev max"]);
    }

    #[test]
    fn weights_that_a_default_takes_away_are_given_back() {
        let all = b"default 100\n8:0 50\n254:0 70\n";
        assert_eq!(entries_before(all, "default 300"), ["default 100", "8:0 50", "254:0 70"]);
        assert_eq!(entries_before(all, "8:0 300"), ["8:0 50"]);
        assert_eq!(entries_before(b"default 100\n", "254:0 300"), ["254:0 default"]);
    }
}
