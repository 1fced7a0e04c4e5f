//! `Order`: whatever way the per-CPU streams of a history interleave, the stream that comes out keeps its promises.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::RandomState;

use pinfold_events::change::{Change, Kind};
use pinfold_events::order::Order;
use pinfold_events::proc::{Life, Seen, Snapshot};
use pinfold_events::{Comm, Event, Pid, Started, Status, Time, What};
use proptest::prelude::*;

fn pid(number: u32) -> Pid {
    Pid::new(number).unwrap()
}

fn seen(number: u32, parent: u32, ticks: u64) -> Seen {
    let (pid, parent) = (pid(number), Pid::new(parent));
    Seen {
        pid,
        parent,
        ticks,
        comm: Comm::new(b"x"),
        uid: None,
        gid: None,
        life: Life::Whole,
        others: BTreeSet::new(),
    }
}

/// At tick 100: init, and a shell.
fn first() -> Snapshot {
    let at = Time(1_000_000_000);
    Snapshot { began: at, ended: at, processes: vec![seen(1, 0, 0), seen(2, 1, 50)] }
}

/// One change as text: `TIME fork PARENT CHILD`, `TIME exit PID[/TASK] STATUS`, `TIME exec PID NAME`, `TIME thread PID TASK`,
/// `TIME uid PID UID`, `TIME sid PID`. Times are microseconds after the first snapshot.
fn change(text: &str) -> Change {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let number = |index: usize| words[index].parse::<u32>().unwrap();
    let time = Time(1_000_000_000 + 1000 * u64::from(number(0)));
    let (process, what) = match words[1] {
        "fork" => (number(3), Kind::Fork { parent: Pid::new(number(2)) }),
        "thread" => (number(2), Kind::Thread { task: pid(number(3)) }),
        "exec" => (number(2), Kind::Exec { comm: Some(Comm::new(words[3].as_bytes())) }),
        "uid" => {
            let id = number(3);
            (number(2), Kind::Uid(pinfold_events::Ids { real: id, effective: id }))
        }
        "sid" => (number(2), Kind::Sid),
        "exit" => {
            let (process, task) = words[2].split_once('/').unwrap_or((words[2], words[2]));
            let (process, task) = (process.parse().unwrap(), task.parse().unwrap());
            (process, Kind::Exit { task: pid(task), status: number(3) })
        }
        other => panic!("{other}"),
    };
    Change { time, process: pid(process), what }
}

/// The events as text, times left out.
fn told(events: &[Event]) -> String {
    let number = |process: pinfold_events::Process| process.pid.map_or(0, Pid::get);
    let texts = events.iter().map(|event| match event.what {
        What::Found { process, parent, .. } => {
            format!("found {} {}", parent.map_or(0, number), number(process))
        }
        What::Fork { process, parent, .. } => {
            format!("fork {} {}", parent.map_or(0, number), number(process))
        }
        What::Exec { process, comm } => format!("exec {} {comm}", number(process)),
        What::Exit { process, status, .. } => match status {
            Some(status) => format!("exit {} {}", number(process), status.to_wait()),
            None => format!("exit {} ?", number(process)),
        },
        What::Uid { process, ids } => format!("uid {} {}", number(process), ids.real),
        What::Gid { process, ids } => format!("gid {} {}", number(process), ids.real),
        What::Sid { process } => format!("sid {}", number(process)),
        What::Comm { process, comm } => format!("comm {} {comm}", number(process)),
        What::Left { process } => format!("left {}", number(process)),
        What::Gap => "gap".into(),
        What::Synced { found, gone, changed } => format!("synced +{found} -{gone} ~{changed}"),
    });
    texts.collect::<Vec<_>>().join(" | ")
}

/// Feeds changes, one batch a line, `lost` and `scan PID:PARENT:TICKS,...` among them, to an order that knows init and a shell.
#[track_caller]
fn check(script: &str, expected: &str) {
    let mut order = Order::new();
    let mut events = Vec::new();
    order.resync(&first(), &mut events);
    assert_eq!(told(&events), "found 0 1 | found 1 2 | synced +2 -0 ~0");
    events.clear();
    let mut now = 1_000_000_000;
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        for item in line.split('|').map(str::trim) {
            match item.split_once(' ') {
                None if item == "lost" => order.lost(Time(now), &mut events),
                Some(("scan", processes)) => order.resync(&snapshot(processes), &mut events),
                Some(("until", time)) => now = 1_000_000_000 + 1000 * time.parse::<u64>().unwrap(),
                _ => order.feed(change(item), &mut events),
            }
        }
        order.drained(Time(now), &mut events);
    }
    assert_eq!(told(&events), expected);
}

/// A scan from 0.9 to 1 s after the first. `PID:PARENT:TICKS`, with `z` behind it for a zombie, or with a thread that is left of it.
fn snapshot(text: &str) -> Snapshot {
    let processes = text.split(',').map(|process| {
        let words: Vec<&str> = process.split(':').collect();
        let number = |index: usize| words[index].parse::<u32>().unwrap();
        let (life, others) = match words.get(3) {
            None => (Life::Whole, BTreeSet::new()),
            Some(&"z") => (Life::Ended(Some(Status::Exited(7))), BTreeSet::new()),
            Some(_) => (Life::Headless, BTreeSet::from([pid(number(3))])),
        };
        Seen { life, others, ..seen(number(0), number(1), u64::from(number(2))) }
    });
    let (began, ended) = (Time(1_900_000_000), Time(2_000_000_000));
    Snapshot { began, ended, processes: processes.collect() }
}

/// Somebody who is passed on what comes from now on.
#[test]
fn who_comes_later_is_told_of_all_that_are_known() {
    let mut order = Order::new();
    let mut list = Vec::new();
    order.list(Time(7), &mut list);
    assert_eq!(told(&list), "", "nothing is known yet, and that is not all");
    order.resync(&first(), &mut Vec::new());
    let changes = "10 fork 2 3 | 20 exec 3 ls | 30 fork 3 4 | 40 fork 1 5 | 50 exit 3 0";
    changes.split('|').for_each(|text| order.feed(change(text.trim()), &mut Vec::new()));
    order.drained(Time(1_100_000_000), &mut Vec::new());
    order.list(Time(7), &mut list);
    assert_eq!(told(&list), "found 0 1 | found 1 2 | found 0 4 | found 1 5 | synced +4 -0 ~0");
    assert!(list.iter().all(|event| event.time == Time(7)));
    list.clear();
    order.lost(Time(1_200_000_000), &mut Vec::new());
    order.list(Time(7), &mut list);
    assert_eq!(told(&list), "found 0 1 | found 1 2 | found 0 4 | found 1 5", "some may be missing");
}

#[test]
fn a_process_is_born_executes_and_ends() {
    check(
        "10 fork 2 3 | 20 exec 3 ls | 30 uid 3 1000 | 40 sid 3 | 50 exit 3 256",
        "fork 2 3 | exec 3 ls | uid 3 1000 | sid 3 | exit 3 256",
    );
}

/// On a busy machine: the kernel takes the start time first, and the time of the event when it gets to tell of it.
#[test]
fn a_process_that_was_told_of_long_after_its_start_is_the_same_after_a_gap() {
    check(
        "200000 fork 2 3
         lost
         scan 1:0:0,2:1:50,3:2:105",
        "fork 2 3 | gap | synced +0 -0 ~0",
    );
    // Whoever has the number next starts later.
    check(
        "200000 fork 2 3
         lost
         scan 1:0:0,2:1:50,3:2:121",
        "fork 2 3 | gap | exit 3 ? | found 2 3 | synced +1 -1 ~0",
    );
}

#[test]
fn an_exit_that_overtook_its_fork_in_the_socket_is_held() {
    check(
        "50 exit 3 0
         20 exec 3 ls
         10 fork 2 3",
        "fork 2 3 | exit 3 0",
    );
}

#[test]
fn a_child_waits_for_its_parents_fork() {
    check(
        "20 fork 3 4 | 25 exit 4 0
         10 fork 2 3",
        "fork 2 3 | fork 3 4 | exit 4 0",
    );
}

#[test]
fn a_batch_is_sorted_by_time() {
    check(
        "50 exit 3 0 | 40 exec 3 ls | 20 fork 3 4 | 10 fork 2 3",
        "fork 2 3 | fork 3 4 | exec 3 ls | exit 3 0",
    );
}

#[test]
fn a_child_of_a_dead_process_still_has_a_parent() {
    check("10 fork 2 3 | 20 exit 3 0 | 20 fork 3 4", "fork 2 3 | exit 3 0 | fork 3 4");
}

#[test]
fn a_process_ends_with_its_last_thread_and_that_ones_status() {
    check(
        "10 fork 2 3 | 20 thread 3 4 | 30 thread 3 5 | 40 exit 3/4 0 | 50 exit 3 0 | 60 exit 3/5 768",
        "fork 2 3 | exit 3 768",
    );
}

/// It was a child of whoever had the number next, and in the groups and subtrees of that one.
#[test]
fn a_child_of_somebody_who_was_lost_is_nobodys_who_was_born_later() {
    check(
        "lost\n20 fork 3 4 | 30 fork 2 3\nscan 1:0:0,2:1:50,3:2:100,4:1:100",
        "gap | fork 2 3 | found 1 4 | synced +1 -0 ~0",
    );
    check(
        "lost\n20 fork 3 4 | 20000 fork 2 3 | 30000 exit 3 0\nscan 1:0:0,2:1:50,4:1:100",
        "gap | fork 2 3 | exit 3 0 | found 1 4 | synced +1 -1 ~0",
    );
}

/// Found so, it was said to have its first thread, and lived for ever.
#[test]
fn a_process_that_is_found_without_its_first_thread_ends_with_the_last() {
    check(
        "lost\nscan 1:0:0,2:1:50,3:2:190:4\n1000010 exit 3/4 0",
        "gap | found 2 3 | synced +1 -0 ~0 | exit 3 0",
    );
}

#[test]
fn executing_leaves_one_thread_with_the_number_of_the_process() {
    // The thread 4 executes: the first one, and 5, end; what is left has the number 3.
    check(
        "10 fork 2 3 | 20 thread 3 4 | 30 thread 3 5 | 40 exit 3 0 | 41 exit 3/5 0 | 50 exec 3 ls
         51 exit 3/4 0
         60 exit 3 0",
        "fork 2 3 | exec 3 ls | exit 3 0",
    );
    // The end of the first thread is told late.
    check(
        "10 fork 2 3 | 20 thread 3 4 | 50 exec 3 ls\n40 exit 3 0\n60 exit 3 9",
        "fork 2 3 | exec 3 ls | exit 3 9",
    );
}

#[test]
fn what_does_not_change_is_no_change() {
    check("10 fork 2 3 | 20 uid 3 1 | 21 uid 3 1 | 22 uid 3 2", "fork 2 3 | uid 3 1 | uid 3 2");
}

#[test]
fn a_number_is_used_again_before_its_last_exit_is_told() {
    check(
        "10 fork 2 3
         30 fork 2 3 | 35 exec 3 new
         29 exit 3 0
         40 exit 3 256",
        "fork 2 3 | exit 3 0 | fork 2 3 | exec 3 new | exit 3 256",
    );
}

#[test]
fn what_waits_in_vain_is_a_gap() {
    check("10 fork 3 4 | until 100\n500050 exec 2 sh | until 500100", "exec 2 sh | gap");
}

/// Who was waited for before /proc was read is told of afterwards, on a busy machine; a thread even after its process.
#[test]
fn a_late_exit_of_somebody_who_was_never_there_is_no_gap() {
    check("10 exit 3 0 | until 100\n500050 exec 2 sh | until 500100", "exec 2 sh");
    check(
        "10 fork 2 3 | 11 thread 3 4 | 12 exec 3 sh | 13 exit 3 0 | until 100\n\
         600000 exit 3/4 0 | until 600000\n1200000 fork 2 5 | until 1200000",
        "fork 2 3 | exec 3 sh | exit 3 0 | fork 2 5",
    );
}

#[test]
fn a_gap_is_followed_by_exactly_the_difference() {
    check(
        "10 fork 2 3 | 20 fork 2 4 | 30 fork 2 5
         lost
         scan 1:0:0,2:1:50,4:2:100,5:2:100:z,6:4:150,7:6:150
         1000010 exit 4 0 | 1000011 exec 6 ls",
        "fork 2 3 | fork 2 4 | fork 2 5 | gap | exit 5 1792 | exit 3 ? | found 4 6 | found 6 7 \
         | synced +2 -2 ~0 | exit 4 0 | exec 6 ls",
    );
}

#[test]
fn what_was_scanned_is_not_told_again() {
    // Queued while the scan was made: the fork of 3, which it saw; that and the exit of 4, which it did not; the exit of 5, seen as
    // a zombie; the exit of 6, lost and forgotten before.
    check(
        "lost
         scan 1:0:0,2:1:50,3:2:199,5:2:199:z
         994000 fork 2 3 | 995000 fork 2 4 | 996000 exit 4 0 | 997000 exit 5 0 | 998000 exit 6 0
         1000100 exit 3 0",
        "gap | found 2 3 | synced +1 -0 ~0 | fork 2 4 | exit 4 0 | exit 3 0",
    );
}

#[test]
fn another_process_with_a_known_number_is_another_process() {
    check(
        "10 fork 2 3
         lost
         scan 1:0:0,2:1:50,3:2:190",
        "fork 2 3 | gap | exit 3 ? | found 2 3 | synced +1 -1 ~0",
    );
}

#[test]
fn a_scan_that_nobody_needed_tells_the_difference_only() {
    check("scan 1:0:0,2:1:50,3:2:190", "found 2 3");
}

/// Whoever is in a container would know from it how many were started outside in the same 10 ms.
#[test]
fn a_start_time_tells_nothing_of_others_in_the_same_tick() {
    let key = RandomState::new();
    let found = |processes: Vec<Seen>| -> Vec<Started> {
        let mut events = Vec::new();
        let at = Time(1_000_000_000);
        Order::with_key(key.clone()).resync(&Snapshot { began: at, ended: at, processes }, &mut events);
        events.iter().filter_map(|event| event.what.process()).map(|process| process.started).collect()
    };
    let others = (2..400).map(|number| seen(number, 1, 50));
    let alone = found(vec![seen(1, 0, 0), seen(500, 1, 50)]);
    let among_others: Vec<Seen> =
        [seen(1, 0, 0)].into_iter().chain(others).chain([seen(500, 1, 50)]).collect();
    assert_eq!(alone[1], *found(among_others).last().unwrap());
    assert_eq!(alone[1].ticks(), 50);
    // Parents before their children, in the tick in which the scan is made too.
    for tick in [50, 100] {
        let line = found((1..30).map(|number| seen(number, number - 1, tick)).collect());
        assert!(line.is_sorted() && line.iter().all(|started| started.ticks() == tick), "{line:?}");
    }
}

#[test]
fn a_parent_with_a_higher_number_is_found_first() {
    check("lost\nscan 1:0:0,2:1:50,3:9:190,9:1:190", "gap | found 1 9 | found 9 3 | synced +2 -0 ~0");
}

/// A history: what really happened, in order, with the CPU that told of it.
#[derive(Clone, Debug)]
struct History(Vec<(usize, Change)>);

const CPUS: usize = 4;
/// Start times in /proc tell apart what is farther apart than this.
const STEP: u64 = 60_000_000;
/// After all of it.
const AFTER: Time = Time(100_000_000_000);

/// Turns random numbers into a history that could be. Numbers of processes are used again when they are free.
fn history(steps: Vec<(u8, u8)>) -> History {
    let mut living: Vec<(u32, Vec<u32>)> = vec![(2, vec![2])];
    let mut free: Vec<u32> = (3..40).rev().collect();
    let mut changes = Vec::new();
    for (what, who) in steps {
        let at = usize::from(who) % living.len();
        let (process, tasks) = &mut living[at];
        let process = *process;
        let kind = match what % 8 {
            0..=2 => {
                let Some(child) = free.pop() else { continue };
                living.push((child, vec![child]));
                changes.push((child, Kind::Fork { parent: Pid::new(process) }));
                None
            }
            3 => {
                let Some(task) = free.pop() else { continue };
                tasks.push(task);
                Some(Kind::Thread { task: pid(task) })
            }
            4 => {
                let gone: Vec<u32> = tasks.iter().copied().filter(|task| *task != process).collect();
                // All but one thread end; that one takes over the number of the process.
                if !gone.is_empty() && tasks.contains(&process) {
                    changes.push((process, Kind::Exit { task: pid(process), status: 0 }));
                }
                for task in gone.iter().skip(1) {
                    changes.push((process, Kind::Exit { task: pid(*task), status: 0 }));
                }
                free.splice(0..0, gone);
                *tasks = vec![process];
                Some(Kind::Exec { comm: Some(Comm::new(&[b'a' + who % 26])) })
            }
            5 => Some(Kind::Sid),
            _ if process == 2 => continue,
            _ => {
                let task = tasks.remove(usize::from(who / 7) % tasks.len());
                if tasks.is_empty() {
                    living.remove(at);
                    free.insert(0, process);
                } else if task != process {
                    free.insert(0, task);
                }
                Some(Kind::Exit { task: pid(task), status: u32::from(who) << 8 })
            }
        };
        changes.extend(kind.map(|kind| (process, kind)));
    }
    let mut time = 1_000_000_000;
    let cpus = changes.iter().map(|(process, _)| *process as usize * 7).enumerate();
    let cpus: Vec<usize> = cpus.map(|(index, salt)| (index + salt) % CPUS).collect();
    let changes = changes.into_iter().zip(cpus).map(|((process, what), cpu)| {
        time += STEP;
        (cpu, Change { time: Time(time), process: pid(process), what })
    });
    History(changes.collect())
}

/// The changes as they arrive: each CPU's in order, the CPUs' mixed by `picks`.
fn shuffle(history: &History, picks: &[u8]) -> Vec<Change> {
    let mut streams: Vec<std::collections::VecDeque<Change>> = vec![Default::default(); CPUS];
    for (cpu, change) in &history.0 {
        streams[*cpu].push_back(*change);
    }
    let mut picks = picks.iter().cycle();
    let mut arrived = Vec::new();
    loop {
        let waiting: Vec<_> = streams.iter_mut().filter(|stream| !stream.is_empty()).collect();
        let pick = usize::from(*picks.next().unwrap()) % waiting.len().max(1);
        match waiting.into_iter().nth(pick).and_then(|stream| stream.pop_front()) {
            Some(change) => arrived.push(change),
            None => return arrived,
        }
    }
}

/// What the history should be told as: by a naive reading in its true order.
fn naive(history: &History) -> Vec<String> {
    let mut order = Order::new();
    let mut events = Vec::new();
    order.resync(&first(), &mut Vec::new());
    for (_, change) in &history.0 {
        order.feed(*change, &mut events);
        order.drained(change.time, &mut events);
    }
    events.iter().map(|event| told(&[*event])).collect()
}

/// Fork or found first, exit last, each once; what was lost is a gap that ends.
fn assert_promises(events: &[Event]) {
    let mut living = HashMap::new();
    let mut ended: HashSet<Started> = HashSet::new();
    for event in events {
        let Some(process) = event.what.process() else { continue };
        let number = process.pid.unwrap();
        assert!(!ended.contains(&process.started), "told after its end: {event:?}");
        match event.what {
            What::Found { parent, .. } | What::Fork { parent, .. } => {
                assert_eq!(living.insert(number, process.started), None, "born twice: {event:?}");
                if let Some(parent) = parent {
                    let is_known = living.values().any(|known| *known == parent.started);
                    assert!(is_known || ended.contains(&parent.started), "unknown parent: {event:?}");
                }
            }
            What::Exit { .. } => {
                assert_eq!(living.remove(&number), Some(process.started), "{event:?}");
                ended.insert(process.started);
            }
            _ => assert_eq!(living.get(&number), Some(&process.started), "told before its birth: {event:?}"),
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<(u8, u8)>> {
    prop::collection::vec(any::<(u8, u8)>(), 1..120)
}

proptest! {
    #[test]
    fn shuffled_cpus_in_one_batch_are_told_in_the_true_order(steps in steps(), picks in prop::collection::vec(any::<u8>(), 1..64)) {
        let history = history(steps);
        let mut order = Order::new();
        let mut events = Vec::new();
        order.resync(&first(), &mut Vec::new());
        for change in shuffle(&history, &picks) {
            order.feed(change, &mut events);
        }
        order.drained(AFTER, &mut events);
        let texts: Vec<String> = events.iter().map(|event| told(&[*event])).collect();
        prop_assert_eq!(texts, naive(&history));
        prop_assert!(!order.is_waiting());
    }

    #[test]
    fn the_promises_hold_whatever_arrives_when_and_a_scan_settles_the_rest(
        steps in steps(),
        picks in prop::collection::vec(any::<u8>(), 1..64),
        pieces in prop::collection::vec(1usize..20, 1..20),
        missing in prop::collection::hash_set(0usize..120, 0..6),
    ) {
        let history = history(steps);
        let mut order = Order::new();
        let mut events = Vec::new();
        order.resync(&first(), &mut events);
        let mut arriving = shuffle(&history, &picks).into_iter().enumerate().filter(|(index, _)| !missing.contains(index));
        let mut pieces = pieces.iter().cycle();
        loop {
            let piece: Vec<_> = arriving.by_ref().take(*pieces.next().unwrap()).collect();
            if piece.is_empty() {
                break;
            }
            piece.iter().for_each(|(_, change)| order.feed(*change, &mut events));
            let now = piece.iter().map(|(_, change)| change.time).max().unwrap();
            order.drained(now, &mut events);
        }
        order.lost(AFTER, &mut events);
        let truth = snapshot_after(&history);
        order.resync(&truth, &mut events);
        order.drained(Time(2 * AFTER.0), &mut events);
        assert_promises(&events);
        let mut alive: Vec<u32> = alive(&events).into_iter().collect();
        alive.sort_unstable();
        let mut expected: Vec<u32> = truth.processes.iter().map(|seen| seen.pid.get()).collect();
        expected.sort_unstable();
        prop_assert_eq!(alive, expected);
        prop_assert!(!order.is_waiting() && !order.wants_snapshot());
    }
}

fn any_change() -> impl Strategy<Value = Change> {
    let numbers = || (2u32..8).prop_map(pid);
    let kind = prop_oneof![
        numbers().prop_map(|parent| Kind::Fork { parent: Some(parent) }),
        Just(Kind::Fork { parent: None }),
        numbers().prop_map(|task| Kind::Thread { task }),
        Just(Kind::Exec { comm: None }),
        Just(Kind::Sid),
        numbers().prop_map(|task| Kind::Exit { task, status: 0 }),
    ];
    (0u64..30, numbers(), kind).prop_map(|(step, process, what)| Change {
        time: Time(1_000_000_000 + step * STEP),
        process,
        what,
    })
}

proptest! {
    /// A kernel that tells what cannot be (who was never born, who is its own parent, what is of yesterday) breaks no promise.
    #[test]
    fn the_promises_hold_even_for_a_mad_kernel(
        changes in prop::collection::vec((any_change(), any::<bool>()), 1..150),
    ) {
        let mut order = Order::new();
        let mut events = Vec::new();
        order.resync(&first(), &mut events);
        for (change, is_last_of_batch) in changes {
            order.feed(change, &mut events);
            if is_last_of_batch {
                order.drained(change.time, &mut events);
            }
        }
        order.lost(AFTER, &mut events);
        let truth = Snapshot { began: AFTER, ended: AFTER, ..first() };
        order.resync(&truth, &mut events);
        order.drained(Time(2 * AFTER.0), &mut events);
        assert_promises(&events);
        prop_assert_eq!(alive(&events), HashSet::from([1, 2]));
        prop_assert!(!order.is_waiting() && !order.wants_snapshot());
    }
}

/// Whom the stream leaves alive.
fn alive(events: &[Event]) -> HashSet<u32> {
    let mut alive = HashSet::new();
    for event in events {
        let Some(number) = event.what.process().and_then(|process| process.pid) else { continue };
        match event.what {
            What::Exit { .. } => alive.remove(&number.get()),
            _ => alive.insert(number.get()),
        };
    }
    alive
}

/// A scan after the whole history, by a reading of it that shares no code with `Order`.
fn snapshot_after(history: &History) -> Snapshot {
    let mut processes: HashMap<u32, (u32, u64, HashSet<u32>)> = HashMap::new();
    processes.insert(1, (0, 0, HashSet::from([1])));
    processes.insert(2, (1, 50, HashSet::from([2])));
    for (_, change) in &history.0 {
        let number = change.process.get();
        match change.what {
            Kind::Fork { parent } => {
                let ticks = change.time.0 / 10_000_000;
                processes.insert(number, (parent.unwrap().get(), ticks, HashSet::from([number])));
            }
            Kind::Thread { task } => {
                processes.get_mut(&number).unwrap().2.insert(task.get());
            }
            Kind::Exec { .. } => processes.get_mut(&number).unwrap().2 = HashSet::from([number]),
            Kind::Exit { task, .. } => {
                let process = processes.get_mut(&number).unwrap();
                process.2.remove(&task.get());
                if process.2.is_empty() {
                    processes.remove(&number);
                    let orphans = processes.values_mut().filter(|(parent, ..)| *parent == number);
                    orphans.for_each(|(parent, ..)| *parent = 1);
                }
            }
            _ => {}
        }
    }
    let at = AFTER;
    let processes = processes.into_iter().map(|(number, (parent, ticks, tasks))| Seen {
        life: if tasks.contains(&number) { Life::Whole } else { Life::Headless },
        others: tasks.into_iter().filter(|task| *task != number).map(pid).collect(),
        ..seen(number, parent, ticks)
    });
    Snapshot { began: at, ended: at, processes: processes.collect() }
}
