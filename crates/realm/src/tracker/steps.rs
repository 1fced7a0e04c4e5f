//! Carrying steps out on the table: one after the other, and back again if one fails.

use std::path::PathBuf;

use pinfold_events::Started;
use pinfold_kernel::process::{self, State, Vitals};
use pinfold_kernel::signal::Signal;
use pinfold_kernel::{Cause, Place, Step, StepError};
use pinfold_model::{CellId, Dir, HostPid};
use rustix::io::Errno;

use super::accounts::Usage;
use super::deeds::{self, Found, Refused};
use super::ledger::Ledger;
use super::table::{Files, Hold, Life, Table};
use super::texts::parse_list;

/// What takes a step back.
pub(super) enum Undo {
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
        self.take_steps(steps.iter().enumerate(), ledger).map(drop)
    }

    /// [`Self::carry_out`] of numbered steps. Answers what takes them back.
    pub(super) fn take_steps<'a>(
        &mut self,
        steps: impl Iterator<Item = (usize, &'a Step)>,
        ledger: &mut Ledger,
    ) -> Result<Vec<Undo>, StepError> {
        let mut done = Vec::new();
        for (step, one) in steps {
            match self.take_step(one, ledger) {
                Ok(undo) => done.push(undo),
                Err(cause) => {
                    let not_undone = self.take_all_back(done, ledger);
                    return Err(StepError { step, cause, not_undone });
                }
            }
        }
        Ok(done)
    }

    /// Takes steps back, the last one first. Answers what could not be.
    pub(super) fn take_all_back(&mut self, done: Vec<Undo>, ledger: &mut Ledger) -> Vec<Cause> {
        let undone = done.into_iter().rev().map(|undo| self.take_back(undo, ledger));
        undone.filter_map(Result::err).collect()
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

    /// Puts a process somewhere, or nowhere, with all that follows. It stays where it was if it cannot be made to do what
    /// holds there, or if that cannot be written down.
    pub(super) fn relocate(
        &mut self,
        process: HostPid,
        to: Option<CellId>,
        ledger: &mut Ledger,
    ) -> Result<(), Cause> {
        // The first task may have ended, and others go on.
        let lives = |vitals: &Vitals| vitals.state != State::Dead || process::has_running_tasks(process);
        let vitals = Vitals::of(process).ok().filter(lives).ok_or(Cause::NoProcess(process))?;
        if self.lives.get(&process).is_some_and(|life| !life.started.may_be(vitals.started)) {
            self.strike(process);
        }
        let from = self.roster.cell_of(process);
        if from == to {
            return Ok(());
        }
        self.shift(process, &vitals, to, ledger).map_err(|refused| {
            if let Err(worse) = self.shift(process, &vitals, from, ledger) {
                tracing::warn!("process {process} does not do what holds where it is: {worse}");
            }
            match refused {
                Refused::Process { errno: Errno::SRCH, .. } => Cause::NoProcess(process),
                refused => cause(refused, format!("/proc/{process}").into(), ledger),
            }
        })
    }

    /// What no longer holds ends before it is written down where the process is, and what holds now begins after that: if the
    /// daemon is killed in between, nobody is held of whom the next one does not know.
    fn shift(
        &mut self,
        process: HostPid,
        vitals: &Vitals,
        to: Option<CellId>,
        ledger: &mut Ledger,
    ) -> Result<(), Refused> {
        let before = self.held_in(self.roster.cell_of(process));
        let after = self.held_in(to);
        let new = || Life::new(Started::at_tick(vitals.started), vitals.parent, Usage::default());
        let mut life = self.lives.get(&process).cloned().unwrap_or_else(new);
        if !after.frozen {
            deeds::let_go(process, &life)?;
            life.hold = Hold::Free;
        }
        if after.cpus.is_none() && before.cpus.is_some() {
            deeds::bind(process, &life, None)?;
        }
        self.seat_anew(process, vitals, to, life.clone());
        ledger.note_moved(self, process).map_err(Refused::Record)?;
        if after.cpus.is_some() && after.cpus != before.cpus {
            deeds::bind(process, &life, after.cpus.as_deref())?;
        }
        if after.frozen {
            self.keep_still(process, ledger)?;
        }
        Ok(())
    }

    /// Gives a directory other values, with all that follows for those who are below it.
    fn write(&mut self, dir: &Dir, files: Files, ledger: &mut Ledger) -> Result<(), Cause> {
        let below = self.below(dir);
        let had: Vec<_> = below.iter().map(|process| self.cpus_of(*process)).collect();
        // Whoever the last daemon stopped is not let go on by the first other value that is in force again.
        let turns = self.dirs.get(dir).is_some_and(|before| before.freeze != files.freeze);
        let before = self.dirs.insert(dir.clone(), files);
        self.is_dirty = true;
        let mut done = Ok(());
        for (process, had) in below.iter().zip(&had) {
            done = self.bind_anew(*process, had.as_deref());
            if done.is_ok() && turns {
                done = self.hold_or_tell(*process, ledger);
            }
            if done.is_err() {
                break;
            }
        }
        done.map_err(|refused| {
            let refused = cause(refused, dir.to_string().into(), ledger);
            let Some(before) = before else { return refused };
            let had: Vec<_> = below.iter().map(|process| self.cpus_of(*process)).collect();
            self.dirs.insert(dir.clone(), before);
            for (process, had) in below.into_iter().zip(had) {
                let undone = self
                    .bind_anew(process, had.as_deref())
                    .and_then(|()| self.hold_as_it_is(process, ledger));
                if let Err(refused) = undone {
                    tracing::warn!("process {process} is not as it was: {refused}");
                }
            }
            refused
        })
    }

    fn cpus_of(&self, process: HostPid) -> Option<Vec<usize>> {
        self.cpus(self.leaf_of(process)?)
    }

    /// Gives a member the CPUs of its leaf, if it had others.
    fn bind_anew(&self, process: HostPid, had: Option<&[usize]>) -> Result<(), Refused> {
        let now = self.cpus_of(process);
        match self.lives.get(&process) {
            Some(life) if now.as_deref() != had => deeds::bind(process, life, now.as_deref()),
            _ => Ok(()),
        }
    }

    /// Has a member stand still or go on. One that does not let us is told of, and keeps nobody else from it: while it goes on, its
    /// group is not frozen.
    pub(super) fn hold_or_tell(&mut self, process: HostPid, ledger: &mut Ledger) -> Result<(), Refused> {
        match self.hold_as_it_is(process, ledger) {
            Err(refused @ Refused::Process { .. }) => {
                tracing::warn!("process {process} cannot be stopped or let go on: {refused}");
                Ok(())
            }
            answer => answer,
        }
    }

    /// Has a member stand still or go on, as what holds where it is says.
    pub(super) fn hold_as_it_is(&mut self, process: HostPid, ledger: &mut Ledger) -> Result<(), Refused> {
        if self.leaf_of(process).is_some_and(|leaf| self.is_frozen(leaf)) {
            return self.keep_still(process, ledger).map(drop);
        }
        let Some(life) = self.lives.get_mut(&process).filter(|life| life.hold != Hold::Free) else {
            return Ok(());
        };
        let done = deeds::let_go(process, life);
        life.hold = Hold::Free;
        self.is_dirty = true;
        done
    }

    /// Has a member stand still. Answers whether it does, or has ended. One that goes on though it was stopped is stopped
    /// again. That we stop it is written down before: the next daemon will let it go on, if not this one.
    pub(super) fn keep_still(&mut self, process: HostPid, ledger: &mut Ledger) -> Result<bool, Refused> {
        let Some(life) = self.lives.get_mut(&process) else { return Ok(true) };
        let Some(found) = Found::of(process, life) else { return Ok(true) };
        let before = life.hold;
        life.hold = found.hold(before);
        let is_new = life.hold != before;
        let stops = life.hold == Hold::Ours && (is_new || !found.stands_still);
        if is_new && let Err(error) = ledger.note_moved(self, process) {
            self.lives.entry(process).and_modify(|life| life.hold = before);
            return Err(Refused::Record(error));
        }
        if stops {
            found.send(Signal::STOP)?;
        }
        Ok(found.stands_still)
    }

    /// Stops those who were born where things are frozen.
    pub(super) fn hold_newborn(&mut self, ledger: &mut Ledger) {
        for process in std::mem::take(&mut self.unheld) {
            if let Err(refused) = self.hold_as_it_is(process, ledger) {
                tracing::warn!("process {process} was born into a group and cannot be stopped: {refused}");
            }
        }
    }

    /// Looks at those whom user space holds: nobody else keeps them from going on, or from running elsewhere.
    pub(super) fn look(&mut self, ledger: &mut Ledger) {
        let held = |(cell, leaf): (&CellId, &Dir)| {
            let (frozen, cpus) = (self.is_frozen(leaf), self.cpus(leaf));
            (frozen || cpus.is_some()).then(|| (self.roster.members(*cell).collect::<Vec<_>>(), frozen, cpus))
        };
        let held: Vec<_> = self.leaves.iter().filter_map(held).collect();
        // What they do not let us was told when they came or the group changed.
        for (members, frozen, cpus) in held {
            for process in members {
                if frozen {
                    let _ = self.keep_still(process, ledger);
                }
                if let (Some(cpus), Some(life)) = (&cpus, self.lives.get(&process)) {
                    let _ = deeds::confine(process, life, cpus);
                }
            }
        }
    }
}

fn cause(refused: Refused, path: PathBuf, ledger: &Ledger) -> Cause {
    match refused {
        Refused::Process { what, errno } => self::refused(what, path, None, errno),
        Refused::Record(error) => {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            self::refused("write", ledger.path().to_owned(), None, errno)
        }
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

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use pinfold_kernel::process::Pinned;
    use pinfold_kernel::signal;

    use super::*;

    /// A sleeper of ours, and a record of members in a directory of its own; both go with it.
    struct Ground {
        child: Child,
        state: PathBuf,
        table: Table,
        ledger: Ledger,
    }

    impl Ground {
        fn new(name: &str) -> Self {
            let state = std::env::temp_dir().join(format!("pinfold-steps-{}-{name}", std::process::id()));
            std::fs::create_dir_all(state.join("tmp")).unwrap();
            let (ledger, ..) = Ledger::open(&state).unwrap();
            let child = Command::new("sleep").arg("60").spawn().unwrap();
            let mut table = Table::default();
            for dir in [Dir::REALM, dir("cell.1"), dir("cell.2")] {
                table.add_dir(dir, Files::default());
            }
            Self { child, state, table, ledger }
        }

        fn process(&self) -> HostPid {
            HostPid::new(self.child.id()).unwrap()
        }

        fn carry_out(&mut self, steps: &[Step]) -> Result<(), StepError> {
            self.table.carry_out(steps, &mut self.ledger)
        }

        fn attach(&mut self, to: &str) -> Result<(), StepError> {
            let process = self.process();
            self.carry_out(&[Step::Move { process, to: Place::Dir(dir(to)) }])
        }

        fn freeze(&mut self, cell: &str, text: &str) -> Result<(), StepError> {
            self.carry_out(&[Step::Write { dir: dir(cell), file: "cgroup.freeze", text: text.into() }])
        }

        fn send(&self, signal: Signal) {
            signal::send(&Pinned::of_process(self.process()).unwrap(), signal).unwrap();
        }

        /// Waits until the kernel has made it stop, or go on.
        fn becomes(&self, state: State) {
            while Vitals::of(self.process()).unwrap().state != state {
                std::thread::yield_now();
            }
        }

        fn state(&self) -> State {
            Vitals::of(self.process()).unwrap().state
        }

        /// From now on nothing can be written down.
        fn cannot_write(&mut self) {
            std::fs::remove_dir_all(&self.state).unwrap();
            (self.ledger, ..) = Ledger::open(&self.state).unwrap();
        }

        /// What the next daemon would find.
        fn kept(&self) -> Option<(CellId, Hold)> {
            let (_, _, listing) = Ledger::open(&self.state).unwrap();
            listing.kept.get(&self.process()).map(|kept| (kept.cell, kept.life.hold))
        }
    }

    impl Drop for Ground {
        fn drop(&mut self) {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
            let _ = std::fs::remove_dir_all(&self.state);
        }
    }

    fn dir(name: &str) -> Dir {
        Dir::parse(name.as_bytes()).unwrap()
    }

    fn cell(number: u32) -> CellId {
        CellId::new(number).unwrap()
    }

    #[test]
    fn what_cannot_be_written_down_is_refused_and_stops_nobody() {
        let mut ground = Ground::new("refused");
        ground.freeze("cell.1", "1").unwrap();
        ground.cannot_write();
        ground.attach("cell.1").unwrap_err();
        assert_eq!((ground.table.roster.cell_of(ground.process()), ground.state()), (None, State::Alive));
        // A member, of a group that is to be frozen.
        std::fs::create_dir_all(ground.state.join("tmp")).unwrap();
        ground.attach("cell.2").unwrap();
        ground.cannot_write();
        ground.freeze("cell.2", "1").unwrap_err();
        assert_eq!(ground.state(), State::Alive);
        ground.attach("cell.1").unwrap_err();
        assert_eq!(
            (ground.table.roster.cell_of(ground.process()), ground.state()),
            (Some(cell(2)), State::Alive)
        );
        assert_eq!(ground.table.dirs[&dir("cell.2")], Files { processes: 1, peak: 1, ..Files::default() });
    }

    #[test]
    fn whoever_is_stopped_is_written_down_as_stopped_by_us_or_by_others_before() {
        let mut ground = Ground::new("before");
        ground.attach("cell.1").unwrap();
        assert_eq!(ground.kept(), Some((cell(1), Hold::Free)));
        ground.send(Signal::STOP);
        ground.becomes(State::Stopped);
        ground.freeze("cell.1", "1").unwrap();
        assert_eq!(ground.kept(), Some((cell(1), Hold::Before)));
        // Others want it to go on: we have it stopped from here, and let it go on.
        ground.send(Signal::CONT);
        ground.becomes(State::Alive);
        ground.table.look(&mut ground.ledger);
        ground.becomes(State::Stopped);
        assert_eq!(ground.kept(), Some((cell(1), Hold::Ours)));
        ground.freeze("cell.1", "0").unwrap();
        ground.becomes(State::Alive);
        // One that stays stopped all the time is found so.
        ground.send(Signal::STOP);
        ground.becomes(State::Stopped);
        ground.freeze("cell.1", "1").unwrap();
        ground.table.look(&mut ground.ledger);
        ground.freeze("cell.1", "0").unwrap();
        assert_eq!(ground.state(), State::Stopped);
    }

    #[test]
    fn a_child_born_where_things_are_frozen_is_written_down_before_it_is_stopped() {
        let mut ground = Ground::new("born");
        ground.freeze("cell.1", "1").unwrap();
        let process = ground.process();
        let own = process::own_pid();
        let at = |process| Vitals::of(process).map(|vitals| Started::at_tick(vitals.started)).unwrap();
        // The test itself as if it were a member that nothing is done to.
        ground.table.seat(own, cell(1), Life::new(at(own), None, Usage::default()));
        let of = |process: HostPid| pinfold_events::Process {
            pid: pinfold_events::Pid::new(process.get()),
            started: at(process),
        };
        let what = pinfold_events::What::Fork {
            process: of(process),
            parent: Some(of(own)),
            comm: Default::default(),
            uid: None,
            gid: None,
        };
        ground.table.take(&pinfold_events::Event { time: pinfold_events::proc::now(), what });
        assert_eq!((ground.state(), ground.kept()), (State::Alive, None));
        ground.table.hold_newborn(&mut ground.ledger);
        ground.becomes(State::Stopped);
        assert_eq!(ground.kept(), Some((cell(1), Hold::Ours)));
        ground.table.strike(own);
        ground.freeze("cell.1", "0").unwrap();
        ground.becomes(State::Alive);
    }

    #[test]
    fn births_are_written_down_before_a_record_says_that_they_are_known() {
        let mut ground = Ground::new("fresh");
        ground.ledger.write(&mut ground.table).unwrap();
        ground.table.seat(process::own_pid(), cell(2), Life::new(Started(1), None, Usage::default()));
        ground.table.fresh.push(process::own_pid());
        ground.attach("cell.1").unwrap();
        let (_, _, listing) = Ledger::open(&ground.state).unwrap();
        let mut kept: Vec<_> = listing.kept.values().map(|kept| kept.cell).collect();
        kept.sort_unstable();
        assert_eq!(kept, [cell(1), cell(2)]);
    }

    #[test]
    fn a_number_that_is_anothers_now_is_left_alone() {
        let ground = Ground::new("reused");
        let before = process::affinity(ground.process()).unwrap();
        let another = Life { hold: Hold::Ours, ..Life::new(Started(1), None, Usage::default()) };
        deeds::bind(ground.process(), &another, Some(&before[..1])).unwrap();
        deeds::confine(ground.process(), &another, &before[..1]).unwrap();
        deeds::kill(ground.process(), &another).unwrap();
        assert!(Found::of(ground.process(), &another).is_none());
        assert_eq!((process::affinity(ground.process()).unwrap(), ground.state()), (before, State::Alive));
    }
}
