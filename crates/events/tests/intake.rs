//! `Intake`: a socket that overflows, and whatever the kernel drops then: the loss is told once, and nothing that comes after it is
//! taken for complete.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use pinfold_events::change::{Change, Kind};
use pinfold_events::intake::Intake;
use pinfold_events::order::Order;
use pinfold_events::proc::{Life, Seen, Snapshot};
use pinfold_events::{Comm, Event, Pid, Time, What};
use proptest::prelude::*;

const CPUS: usize = 3;
/// Start times in /proc tell apart what is farther apart than this.
const STEP: u64 = 60_000_000;
/// How long it takes to read.
const READING: u64 = 1000;

fn pid(number: u32) -> Pid {
    Pid::new(number).unwrap()
}

/// A machine, with the connector's socket as the kernel has it.
struct Machine {
    now: u64,
    /// Of each process when it was born, in ticks, and its threads.
    living: BTreeMap<u32, (u64, BTreeSet<u32>)>,
    free: VecDeque<u32>,
    counts: [u32; CPUS],
    socket: VecDeque<(u32, u32, Change)>,
    room: usize,
    is_congested: bool,
    has_error: bool,
    /// How many datagrams were dropped, ever.
    dropped: u64,
}

impl Machine {
    fn new(room: usize) -> Self {
        let living = BTreeMap::from([(1, (0, BTreeSet::from([1]))), (2, (50, BTreeSet::from([2])))]);
        // The counts come round.
        let counts = [7, u32::MAX - 3, 0];
        let free = (3..12).collect();
        let now = 1_000_000_000;
        Self {
            now,
            living,
            free,
            counts,
            socket: VecDeque::new(),
            room,
            is_congested: false,
            has_error: false,
            dropped: 0,
        }
    }

    /// Something happens on a CPU, and is told.
    fn happens(&mut self, cpu: u8, what: u8, who: u8) {
        let chosen = usize::from(who) % (self.living.len() - 1);
        let number = *self.living.keys().nth(1 + chosen).unwrap();
        self.now += STEP;
        let ticks = self.now / 10_000_000;
        let (_, threads) = self.living.get_mut(&number).unwrap();
        let (process, kind) = match what % 5 {
            0 | 1 => {
                let Some(child) = self.free.pop_front() else { return };
                self.living.insert(child, (ticks, BTreeSet::from([child])));
                (child, Kind::Fork { parent: Some(pid(number)) })
            }
            2 => {
                let Some(task) = self.free.pop_front() else { return };
                threads.insert(task);
                (number, Kind::Thread { task: pid(task) })
            }
            _ if number == 2 => return,
            _ => {
                let task = *threads.iter().nth(usize::from(who / 7) % threads.len()).unwrap();
                threads.remove(&task);
                if threads.is_empty() {
                    self.living.remove(&number);
                    self.free.push_back(number);
                }
                if task != number {
                    self.free.push_back(task);
                }
                (number, Kind::Exit { task: pid(task), status: 0 })
            }
        };
        self.tell(
            usize::from(cpu) % CPUS,
            Change { time: Time(self.now), process: pid(process), what: kind },
        );
    }

    fn tell(&mut self, cpu: usize, change: Change) {
        let sequence = self.counts[cpu];
        self.counts[cpu] = sequence.wrapping_add(1);
        if !self.is_congested && self.socket.len() < self.room {
            self.socket.push_back((cpu as u32, sequence, change));
            return;
        }
        self.dropped += 1;
        self.has_error |= !std::mem::replace(&mut self.is_congested, true);
    }

    fn snapshot(&self) -> Snapshot {
        let seen = |(number, (ticks, threads)): (&u32, &(u64, BTreeSet<u32>))| Seen {
            pid: pid(*number),
            parent: Pid::new(u32::from(*number > 1)),
            ticks: *ticks,
            comm: Comm::default(),
            uid: None,
            gid: None,
            life: if threads.contains(number) { Life::Whole } else { Life::Headless },
            others: threads.iter().filter(|task| *task != number).map(|task| pid(*task)).collect(),
        };
        let at = Time(self.now);
        Snapshot { began: at, ended: at, processes: self.living.iter().map(seen).collect() }
    }
}

/// Who reads it, as the connector does.
struct Reader {
    intake: Intake,
    was_empty: bool,
    told: Vec<Event>,
    /// How many of the dropped were when all was known last.
    known: u64,
    /// Who lives, as it was told: by number, the start in ticks.
    living: BTreeMap<u32, u64>,
    is_in_gap: bool,
}

impl Reader {
    fn new(machine: &Machine) -> Self {
        let mut intake = Intake::new(Order::new());
        let mut told = Vec::new();
        intake.order_mut().resync(&machine.snapshot(), &mut told);
        let mut reader =
            Self { intake, was_empty: true, told, known: 0, living: BTreeMap::new(), is_in_gap: true };
        reader.heed(machine);
        reader
    }

    /// Reads some of what is there; if all, a snapshot may be taken.
    fn reads(&mut self, machine: &mut Machine, most: usize, may_scan: bool) {
        for _ in 0..most {
            let asked = Time(machine.now);
            machine.now += READING;
            let was_empty = std::mem::take(&mut self.was_empty);
            if std::mem::take(&mut machine.has_error) {
                machine.is_congested &= !machine.socket.is_empty();
                self.intake.dropped(was_empty.then_some(asked), asked, &mut self.told);
            } else if let Some((cpu, sequence, change)) = machine.socket.pop_front() {
                machine.is_congested &= !machine.socket.is_empty();
                self.intake.take(cpu, sequence, Some(change), || asked, &mut self.told);
            } else {
                self.was_empty = true;
                self.intake.drained(asked, &mut self.told);
                self.heed(machine);
                // Once everything was read, the loss is known, whichever CPU told of it.
                assert_eq!(self.is_in_gap, machine.dropped > self.known, "{:?}", self.intake);
                if self.is_in_gap && may_scan {
                    self.intake.order_mut().resync(&machine.snapshot(), &mut self.told);
                    self.known = machine.dropped;
                    self.heed(machine);
                    assert!(!self.is_in_gap);
                }
                return;
            }
            self.heed(machine);
        }
    }

    /// Whether what was told is true, as things are now.
    fn heed(&mut self, machine: &Machine) {
        for event in self.told.drain(..) {
            match event.what {
                What::Gap => assert!(!std::mem::replace(&mut self.is_in_gap, true), "a gap in a gap"),
                What::Synced { .. } => assert!(std::mem::take(&mut self.is_in_gap), "no gap ends"),
                What::Exit { process, .. } => {
                    let number = process.pid.unwrap().get();
                    let ticks = self.living.remove(&number);
                    assert_eq!(
                        ticks,
                        Some(process.started.ticks()),
                        "the end of somebody who was not there: {event:?}"
                    );
                    let lives = machine.living.get(&number).map(|(ticks, _)| *ticks);
                    assert_ne!(lives, ticks, "who lives is said to have ended: {event:?}");
                }
                What::Fork { process, .. } | What::Found { process, .. } => {
                    let number = process.pid.unwrap().get();
                    assert_eq!(self.living.insert(number, process.started.ticks()), None, "{event:?}");
                }
                _ => {}
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn what_was_lost_is_a_gap_once_and_nobody_who_lives_has_ended(
        room in 1usize..8,
        turns in prop::collection::vec((prop::collection::vec(any::<(u8, u8, u8)>(), 0..12), 0usize..12, any::<bool>()), 1..30),
    ) {
        let mut machine = Machine::new(room);
        let mut reader = Reader::new(&machine);
        for (happenings, most, may_scan) in turns {
            happenings.into_iter().for_each(|(cpu, what, who)| machine.happens(cpu, what, who));
            reader.reads(&mut machine, most, may_scan);
        }
        reader.reads(&mut machine, usize::MAX, true);
        let truth: BTreeMap<u32, u64> = machine.living.iter().map(|(number, (ticks, _))| (*number, *ticks)).collect();
        prop_assert_eq!(&reader.living, &truth);
        // All is well afterwards: the same loss does not come up again.
        let losses = reader.intake.losses();
        for cpu in 0..CPUS as u8 {
            machine.happens(cpu, 0, 0);
            reader.reads(&mut machine, usize::MAX, true);
        }
        prop_assert_eq!(reader.intake.losses(), losses);
    }
}

/// The first thread ends, and another, of whose birth the kernel told in vain, goes on.
#[test]
fn a_process_whose_second_thread_was_lost_does_not_end_with_its_first() {
    for (room, before) in [(1, 1), (2, 2), (8, 8)] {
        let mut machine = Machine::new(room);
        let mut reader = Reader::new(&machine);
        let told = |machine: &mut Machine, cpu, process: u32, what| {
            machine.now += STEP;
            machine.tell(cpu, Change { time: Time(machine.now), process: pid(process), what });
        };
        let ticks = (machine.now + STEP) / 10_000_000;
        machine.living.insert(3, (ticks, BTreeSet::from([3])));
        told(&mut machine, 0, 3, Kind::Fork { parent: Some(pid(2)) });
        reader.reads(&mut machine, usize::MAX, false);
        for _ in 0..before {
            told(&mut machine, 0, 2, Kind::Sid);
        }
        machine.living.get_mut(&3).unwrap().1.insert(4);
        told(&mut machine, 1, 3, Kind::Thread { task: pid(4) });
        // As far as the socket is empty, and not so far that nothing is found there.
        reader.reads(&mut machine, 1 + before, false);
        assert!(machine.socket.is_empty());
        machine.living.get_mut(&3).unwrap().1.remove(&3);
        told(&mut machine, 2, 3, Kind::Exit { task: pid(3), status: 0 });
        reader.reads(&mut machine, usize::MAX, false);
        assert!(reader.is_in_gap && reader.living.contains_key(&3));
        reader.reads(&mut machine, usize::MAX, true);
        machine.living.remove(&3);
        told(&mut machine, 2, 3, Kind::Exit { task: pid(4), status: 0 });
        reader.reads(&mut machine, usize::MAX, true);
        assert!(!reader.living.contains_key(&3) && reader.intake.losses() == 1);
    }
}
