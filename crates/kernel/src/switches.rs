//! CPU time by CPU of the realm's leaves, which no v2 file tells: a program at `sched_switch` adds how long a task has run to
//! the row of its leaf, in a table that has rows for the realm's leaves only. For everybody else's tasks it looks up in vain.
//!
//! The same program is called when a timer expires (`hrtimer_expire_entry`, as at every tick of a busy CPU): whichever event calls
//! it, the time since the last one on this CPU is its current task's. So who has a CPU for itself is counted, too.
//!
//! The program is there as long as the [`Tree`] is, so it ends with the daemon, however that ends. It counts by the clock, from
//! one event to the next, also time that a hypervisor or an interrupt took. So this is no account of CPU time (that is `cpu.stat`), but tells how it is divided.
//!
//! Out of scope: whose tasks those are, and what is shown.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use pinfold_model::Dir;
use pinfold_sys::bpf::{self, Instruction, Table};
use rustix::io::Errno;

use crate::Tree;
use crate::inspect::Release;

/// The oldest kernel that takes the table without a warning in its log: see [`Table::new`].
pub const OLDEST: Release = Release { major: 6, minor: 1 };

/// How many leaves are counted at most. A row takes a cache line for each CPU.
const MOST: u32 = 16384;

/// How many numbers apart the figures of two CPUs are in a row: a cache line, so that no CPU waits for another's.
const STRIDE: usize = 8;

/// It calls no function of the kernel that asks for another.
const LICENSE: &std::ffi::CStr = c"Apache-2.0 OR MIT";

/// Whether CPU time is measured by CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Measuring {
    /// Nobody has asked for it.
    NotAsked,
    /// It cannot be: the kernel's answer.
    Refused(Errno),
    /// It is, but for so many leaves that the table had no room for.
    On {
        /// How many.
        missed: usize,
    },
}

/// What is measured. Held across loading the program, and across the removal of a row.
#[derive(Debug, Default)]
pub(crate) struct Switches(Mutex<State>);

#[derive(Debug, Default)]
enum State {
    #[default]
    NotAsked,
    Refused(Errno),
    On(Rows),
}

#[derive(Debug)]
struct Rows {
    table: Table,
    /// Called at each switch, and by each timer, as long as these are open.
    _links: (OwnedFd, Option<OwnedFd>),
    cpus: usize,
    /// The leaves that have rows, and which.
    leaves: HashMap<Dir, u64>,
    /// The leaves that there was no room for.
    missed: HashSet<Dir>,
    /// What leaves that went have left to the directory above them, CPU by CPU.
    left: HashMap<Dir, Vec<u64>>,
}

impl Tree {
    /// Begins to measure, unless that was tried before. CPUs have numbers below `cpus`.
    pub fn measure(&self, cpus: usize) -> Measuring {
        let mut state = self.switches.lock();
        if matches!(*state, State::NotAsked) {
            *state = match Rows::new(cpus) {
                Err(errno) => State::Refused(errno),
                Ok(mut rows) => {
                    // Who makes or removes a leaf meanwhile waits for this.
                    for leaf in self.dirs().into_iter().filter(|dir| dir.leaf().is_some()) {
                        rows.add(&leaf, self.number_of(&leaf));
                    }
                    State::On(rows)
                }
            };
        }
        state.told()
    }

    /// Whether it is measured.
    pub fn measuring(&self) -> Measuring {
        self.switches.lock().told()
    }

    /// The time on each CPU that was measured in a directory and all below it since that began, in nanoseconds: a line
    /// `CPU TIME` for each on which there was some. `None`: nothing is measured.
    pub fn measured(&self, dir: &Dir) -> Option<String> {
        match &*self.switches.lock() {
            State::On(rows) => Some(rows.told(dir)),
            State::NotAsked | State::Refused(_) => None,
        }
    }

    /// A directory of the realm was made, or was there already.
    pub(crate) fn count_made(&self, dir: &Dir) {
        if dir.leaf().is_none() {
            return;
        }
        if let State::On(rows) = &mut *self.switches.lock() {
            rows.add(dir, self.number_of(dir));
        }
    }

    /// A directory of the realm was removed.
    pub(crate) fn count_removed(&self, dir: &Dir) {
        if let State::On(rows) = &mut *self.switches.lock() {
            rows.remove(dir);
        }
    }
}

impl Switches {
    /// A panic in another thread leaves at worst a row too many.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn told(&self) -> Measuring {
        match self {
            Self::NotAsked => Measuring::NotAsked,
            Self::Refused(errno) => Measuring::Refused(*errno),
            Self::On(rows) => Measuring::On { missed: rows.missed.len() },
        }
    }
}

impl Rows {
    fn new(cpus: usize) -> Result<Self, Errno> {
        let (table, program) = load(cpus)?;
        let link = bpf::trace(c"sched_switch", &program)?;
        // A kernel without it counts who has a CPU for itself when it is switched away from.
        let ticks = bpf::trace(c"hrtimer_expire_entry", &program).ok();
        let (leaves, missed, left) = Default::default();
        Ok(Self { table, _links: (link, ticks), cpus, leaves, missed, left })
    }

    /// Counts a leaf, by the number of its directory.
    fn add(&mut self, leaf: &Dir, number: Option<u64>) {
        let Some(number) = number else { return }; // it has gone again
        match self.leaves.get(leaf) {
            Some(known) if *known == number => return,
            Some(_) => self.remove(leaf), // a stranger removed it
            None => {}
        }
        match self.table.add(number) {
            Ok(()) | Err(Errno::EXIST) => _ = self.leaves.insert(leaf.clone(), number),
            Err(_) => _ = self.missed.insert(leaf.clone()),
        }
    }

    /// What a directory has counted is what the one above has, from now on.
    fn remove(&mut self, dir: &Dir) {
        let mut last = self.left.remove(dir).unwrap_or_default();
        if let Some(number) = self.leaves.remove(dir) {
            add(&mut last, &self.row(number));
            // Gone already: nothing is counted there.
            let _ = self.table.remove(number);
        }
        self.missed.remove(dir);
        if let Some(above) = dir.parent()
            && !last.is_empty()
        {
            add(self.left.entry(above).or_default(), &last);
        }
    }

    fn told(&self, top: &Dir) -> String {
        let is_below =
            |dir: &Dir| dir == top || top.leaf().is_none() && dir.spines().starts_with(top.spines());
        let mut all = vec![0; self.cpus];
        for number in match self.leaves.get(top) {
            Some(number) => vec![*number],
            None => self.leaves.iter().filter(|(dir, _)| is_below(dir)).map(|(_, number)| *number).collect(),
        } {
            add(&mut all, &self.row(number));
        }
        self.left.iter().filter(|(dir, _)| is_below(dir)).for_each(|(_, left)| add(&mut all, left));
        let mut text = String::new();
        for (cpu, time) in all.iter().enumerate().filter(|(_, time)| **time > 0) {
            writeln!(text, "{cpu} {time}").expect("memory takes every line");
        }
        text
    }

    /// The figures of a row, CPU by CPU. One that is gone has none.
    fn row(&self, number: u64) -> Vec<u64> {
        self.table.get(number).unwrap_or_default().into_iter().step_by(STRIDE).collect()
    }
}

fn add(all: &mut Vec<u64>, more: &[u64]) {
    all.resize(all.len().max(more.len()), 0);
    all.iter_mut().zip(more).for_each(|(sum, figure)| *sum = sum.saturating_add(*figure));
}

/// Whether it could be measured here: loads the program, and lets it go.
pub(crate) fn probe() -> Result<(), Errno> {
    load(1).map(drop)
}

/// Makes the table and loads the program.
fn load(cpus: usize) -> Result<(Table, OwnedFd), Errno> {
    if Release::of_kernel().is_none_or(|found| found < OLDEST) {
        return Err(Errno::NOSYS);
    }
    let width = u32::try_from(cpus * STRIDE).map_err(|_| Errno::TOOBIG)?;
    let table = Table::new("pinfold_cpus", width, MOST)?;
    let since = bpf::number_of_each_cpu("pinfold_since")?;
    let code = code(i32::try_from(cpus).map_err(|_| Errno::TOOBIG)?, &table, &since);
    let program = bpf::load_tracing("pinfold_switch", LICENSE, &code)?;
    Ok((table, program))
}

/// The program: `sched_switch` is called by the task that goes, on its CPU, before the next one runs.
///
/// ```text
/// now = ktime_get_ns();        went = now - since[this CPU];        since[this CPU] = now;
/// row = table[current_cgroup_id()];                                 if there is one: row[this CPU] += went;
/// ```
#[rustfmt::skip] // one instruction a line
fn code(cpus: i32, table: impl AsFd, since: impl AsFd) -> Vec<Instruction> {
    // Functions of the kernel: enum bpf_func_id.
    const LOOKUP: i32 = 1;
    const KTIME_GET_NS: i32 = 5;
    const GET_SMP_PROCESSOR_ID: i32 = 8;
    const GET_CURRENT_CGROUP_ID: i32 = 80;
    // What functions answer with; what they take; what they leave alone; the stack.
    const R0: u8 = 0;
    const R1: u8 = 1;
    const R2: u8 = 2;
    const R6: u8 = 6;
    const R7: u8 = 7;
    const STACK: u8 = 10;
    const ZERO: i16 = -4;
    const GROUP: i16 = -16;

    const END: i16 = 29;
    /// The shift that multiplies with the bytes of a stride.
    const LINE: i32 = (STRIDE * 8).trailing_zeros().cast_signed();

    let call = |function| Instruction::new(0x85, 0, 0, 0, function);
    let copy = |to, from| Instruction::new(0xbf, to, from, 0, 0);
    let add = |to, number| Instruction::new(0x07, to, 0, 0, number);
    let load = |to, from| Instruction::new(0x79, to, from, 0, 0);
    let store = |to, offset, from| Instruction::new(0x7b, to, from, offset, 0);
    let end_if_zero = |register, here: i16| Instruction::new(0x15, register, 0, END - here - 1, 0);
    let end_if_not_below = |register, here: i16, number| Instruction::new(0x35, register, 0, END - here - 1, number);
    let [since, since_too] = bpf::map_address(R1, since);
    let [table, table_too] = bpf::map_address(R1, table);
    vec![
        /*  0 */ call(KTIME_GET_NS),
        /*  1 */ copy(R6, R0),                                // R6: now
        /*  2 */ Instruction::new(0x62, STACK, 0, ZERO, 0),   // 32 bits: the key of each CPU's number
        /*  3 */ since, since_too,
        /*  5 */ copy(R2, STACK),
        /*  6 */ add(R2, ZERO.into()),
        /*  7 */ call(LOOKUP),
        /*  8 */ end_if_zero(R0, 8),
        /*  9 */ load(R7, R0),
        /* 10 */ store(R0, 0, R6),
        /* 11 */ end_if_zero(R7, 11),                         // the first switch that the program sees
        /* 12 */ Instruction::new(0x1f, R6, R7, 0, 0),        // R6: how long it ran
        /* 13 */ call(GET_CURRENT_CGROUP_ID),
        /* 14 */ store(STACK, GROUP, R0),
        /* 15 */ table, table_too,
        /* 17 */ copy(R2, STACK),
        /* 18 */ add(R2, GROUP.into()),
        /* 19 */ call(LOOKUP),
        /* 20 */ end_if_zero(R0, 20),                         // none of ours
        /* 21 */ copy(R7, R0),                                // R7: the row
        /* 22 */ call(GET_SMP_PROCESSOR_ID),
        /* 23 */ end_if_not_below(R0, 23, cpus),
        /* 24 */ Instruction::new(0x67, R0, 0, 0, LINE),      // R0 <<= LINE
        /* 25 */ Instruction::new(0x0f, R7, R0, 0, 0),        // R7 += R0
        /* 26 */ load(R1, R7),
        /* 27 */ Instruction::new(0x0f, R1, R6, 0, 0),        // R1 += R6
        /* 28 */ store(R7, 0, R1),
        /* 29 */ Instruction::new(0xb7, R0, 0, 0, 0),
        /* 30 */ Instruction::new(0x95, 0, 0, 0, 0),
    ]
}
