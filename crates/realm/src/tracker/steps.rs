//! Carrying steps out on the table: one after the other, and back again if one fails.

use std::path::PathBuf;

use pinfold_kernel::process::{State, Vitals};
use pinfold_kernel::{Cause, Place, Step, StepError};
use pinfold_model::{CellId, Dir, HostPid};
use rustix::io::Errno;

use super::deeds::{self, Refused};
use super::ledger::Ledger;
use super::table::{Files, Hold, Table};
use super::texts::parse_list;

/// What takes a step back.
enum Undo {
    Nothing,
    Remove(Dir),
    Add(Dir, Box<Files>),
    Write { dir: Dir, before: Box<Files> },
    Move { process: HostPid, to: Option<CellId> },
}

/// What it is that a directory of the table has not got.
pub(super) fn no_file(file: &'static str, value: &str) -> StepError {
    StepError {
        step: 0,
        cause: refused("write", file.into(), Some(value), Errno::NOENT),
        not_undone: Vec::new(),
    }
}

fn refused(operation: &'static str, path: PathBuf, value: Option<&str>, errno: Errno) -> Cause {
    Cause::Refused { operation, path, value: value.map(str::to_owned), errno }
}

impl Table {
    /// Carries steps out in order. If one fails, undoes those before it, the last one first.
    pub(super) fn carry_out(&mut self, steps: &[Step], ledger: &mut Ledger) -> Result<(), StepError> {
        let mut done = Vec::new();
        for (step, one) in steps.iter().enumerate() {
            match self.take_step(one, ledger) {
                Ok(undo) => done.push(undo),
                Err(cause) => {
                    let undone = done.into_iter().rev().map(|undo| self.take_back(undo, ledger));
                    let not_undone = undone.filter_map(Result::err).collect();
                    return Err(StepError { step, cause, not_undone });
                }
            }
        }
        Ok(())
    }

    fn take_step(&mut self, step: &Step, ledger: &mut Ledger) -> Result<Undo, Cause> {
        match step {
            Step::Make(dir) if self.dirs.contains_key(dir) => Ok(Undo::Nothing),
            Step::Make(dir) => {
                self.add_dir(dir.clone(), Files::default());
                Ok(Undo::Remove(dir.clone()))
            }
            Step::Write { dir, file, text } => {
                let before = self.dirs.get(dir).cloned();
                let before = before.ok_or_else(|| Cause::Gone { path: dir.to_string().into() })?;
                let files = written(&before, dir, file, text)?;
                self.write(dir, files, ledger)?;
                Ok(Undo::Write { dir: dir.clone(), before: Box::new(before) })
            }
            Step::Move { process, to } => {
                let to = match to {
                    Place::Dir(dir) => dir.leaf(),
                    Place::Outside(_) | Place::Scope => None,
                };
                let before = self.roster.cell_of(*process);
                self.relocate(*process, to, ledger)?;
                Ok(Undo::Move { process: *process, to: before })
            }
            Step::Remove(dir) if self.is_occupied(dir) => Err(Cause::Busy { path: dir.to_string().into() }),
            Step::Remove(dir) => {
                Ok(self.remove_dir(dir).map_or(Undo::Nothing, |files| Undo::Add(dir.clone(), files.into())))
            }
            Step::Entry { dir, file, text } => {
                Err(refused("write", PathBuf::from(dir.to_string()).join(file), Some(text), Errno::NOENT))
            }
            Step::Program { dir, .. } => {
                Err(refused("attach a program", dir.to_string().into(), None, Errno::OPNOTSUPP))
            }
        }
    }

    fn take_back(&mut self, undo: Undo, ledger: &mut Ledger) -> Result<(), Cause> {
        match undo {
            Undo::Nothing => Ok(()),
            Undo::Remove(dir) => {
                self.remove_dir(&dir);
                Ok(())
            }
            Undo::Add(dir, files) => {
                self.add_dir(dir, *files);
                Ok(())
            }
            Undo::Write { dir, before } => self.write(&dir, *before, ledger),
            Undo::Move { process, to } => match self.relocate(process, to, ledger) {
                // It ended: then it is nowhere, before and after.
                Err(Cause::NoProcess(_)) => Ok(()),
                answer => answer,
            },
        }
    }

    fn relocate(&mut self, process: HostPid, to: Option<CellId>, ledger: &mut Ledger) -> Result<(), Cause> {
        let vitals = Vitals::of(process).ok().filter(|vitals| vitals.state != State::Dead);
        let vitals = vitals.ok_or(Cause::NoProcess(process))?;
        self.place(process, &vitals, to).map_err(|Refused { what, errno }| match errno {
            Errno::SRCH => Cause::NoProcess(process),
            errno => refused(what, format!("/proc/{process}").into(), None, errno),
        })?;
        ledger.note_moved(self, process);
        Ok(())
    }

    /// Gives a directory other values, with all that follows for those who are below it.
    fn write(&mut self, dir: &Dir, files: Files, ledger: &mut Ledger) -> Result<(), Cause> {
        let below = self.below(dir);
        let cpus = |table: &Self, process: HostPid| {
            table.leaf_of(process).map(|leaf| table.cpus(leaf)).unwrap_or_default()
        };
        let had: Vec<_> = below.iter().map(|process| cpus(self, *process)).collect();
        // Whoever the last daemon stopped is not let go on by the first other value that is in force again.
        let turns = self.dirs.get(dir).is_some_and(|before| before.freeze != files.freeze);
        let is_freezing = turns && files.freeze;
        let before = self.dirs.insert(dir.clone(), files);
        self.is_dirty = true;
        if is_freezing {
            // Written down first: whoever is stopped will be let go on by the next daemon, if not by this one.
            below.iter().for_each(|process| ledger.note_held(self, *process));
        }
        let mut done = Ok(());
        for (process, had) in below.iter().zip(had) {
            let now = cpus(self, *process);
            let bound = if now == had { Ok(()) } else { deeds::bind(*process, now.as_deref()) };
            done = bound.and_then(|()| if turns { self.hold_as_it_is(*process) } else { Ok(()) });
            if done.is_err() {
                break;
            }
        }
        done.map_err(|Refused { what, errno }| {
            if let Some(before) = before {
                self.dirs.insert(dir.clone(), before);
                for process in below {
                    let now = cpus(self, process);
                    let undone =
                        deeds::bind(process, now.as_deref()).and_then(|()| self.hold_as_it_is(process));
                    if let Err(refused) = undone {
                        tracing::warn!("process {process}: {}: {}", refused.what, refused.errno);
                    }
                }
            }
            refused(what, dir.to_string().into(), None, errno)
        })
    }

    /// Has a member stand still or go on, as what holds where it is says.
    pub(super) fn hold_as_it_is(&mut self, process: HostPid) -> Result<(), Refused> {
        let frozen = self.leaf_of(process).is_some_and(|leaf| self.is_frozen(leaf));
        let Some(life) = self.lives.get_mut(&process) else { return Ok(()) };
        if frozen || life.hold != Hold::Free {
            life.hold = deeds::hold(process, life, frozen)?;
            self.is_dirty = true;
        }
        Ok(())
    }
}

/// What a directory keeps after a write.
fn written(before: &Files, dir: &Dir, file: &'static str, text: &str) -> Result<Files, Cause> {
    let mut files = before.clone();
    let text = text.trim();
    let invalid = || refused("write", PathBuf::from(dir.to_string()).join(file), Some(text), Errno::INVAL);
    match file {
        "cgroup.freeze" => files.freeze = text == "1",
        "cpuset.cpus" => files.cpus = parse_list(text).ok_or_else(invalid)?,
        "cpuset.mems" => files.mems = text.to_owned(),
        "pids.max" if text == "max" => files.most = None,
        "pids.max" => files.most = Some(text.parse().map_err(|_| invalid())?),
        _ => {
            let path = PathBuf::from(dir.to_string()).join(file);
            return Err(refused("write", path, Some(text), Errno::NOENT));
        }
    }
    Ok(files)
}
