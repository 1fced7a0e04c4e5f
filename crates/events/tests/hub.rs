//! `Hub`: who is told what, in whose numbers.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::{HashMap, HashSet};

use pinfold_events::hub::{Audience, Hub, SubscriberId};
use pinfold_events::namespace::{IdMap, NamespaceId, Namespaces};
use pinfold_events::{Comm, Event, Ids, Pid, Process, Scope, Started, Status, Time, What, wire};
use proptest::prelude::*;

/// Namespaces as a table: (namespace, the daemon's number) -> the number there.
#[derive(Default)]
struct Table {
    numbers: HashMap<(u64, u32), u32>,
    homes: HashMap<u32, u64>,
    sessions: HashMap<u32, u32>,
    /// Numbers that are somebody else's by now.
    reused: HashSet<u32>,
    /// When processes that nobody has told of yet started, in ticks.
    untold: HashMap<u32, u64>,
    asked: usize,
}

fn namespace(number: u64) -> NamespaceId {
    NamespaceId::new(4, number)
}

impl Namespaces for Table {
    fn number(&mut self, id: NamespaceId, pid: Pid) -> Option<Pid> {
        self.asked += 1;
        let found = self.numbers.iter().find(|((n, p), _)| namespace(*n) == id && *p == pid.get());
        found.and_then(|(_, number)| Pid::new(*number))
    }

    fn may_be(&mut self, process: Process) -> bool {
        self.asked += 1;
        process.pid.is_some_and(|pid| !self.reused.contains(&pid.get()))
    }

    fn ticks(&mut self, pid: Pid) -> Option<u64> {
        self.asked += 1;
        self.untold.get(&pid.get()).copied()
    }

    fn home(&mut self, pid: Pid) -> Option<NamespaceId> {
        self.asked += 1;
        self.homes.get(&pid.get()).map(|home| namespace(*home))
    }

    fn session(&mut self, pid: Pid) -> Option<Pid> {
        self.asked += 1;
        self.sessions.get(&pid.get()).and_then(|session| Pid::new(*session))
    }
}

/// A process that started when its number says.
fn process(number: u32) -> Process {
    Process { pid: Pid::new(number), started: Started(u64::from(number)) }
}

/// One event as text: `found PARENT PID`, `fork PARENT PID`, `exec PID NAME`, `exit PID STATUS`, `uid PID UID`, `comm PID NAME`, `gap`,
/// `synced`. A parent 0 is outside. The second process of a number is `NUMBER'`.
fn event(text: &str) -> Event {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let at = |index: usize| match words[index].strip_suffix('\'') {
        None => process(words[index].parse().unwrap()),
        Some(number) => Process { started: Started(1_000_000), ..process(number.parse().unwrap()) },
    };
    let number = |index: usize| words[index].parse::<u32>().unwrap();
    let parent = |index: usize| Some(at(index)).filter(|parent| parent.pid.is_some());
    let comm = |index: usize| Comm::new(words[index].as_bytes());
    let ids = |index: usize| Ids { real: number(index), effective: number(index) };
    let what = match words[0] {
        "found" => {
            let (parent, comm) = (parent(1), Comm::new(b"x"));
            What::Found {
                process: at(2),
                parent,
                comm,
                uid: Some(Ids { real: 1000, effective: 0 }),
                gid: None,
            }
        }
        "fork" => {
            What::Fork { process: at(2), parent: parent(1), comm: Comm::new(b"x"), uid: None, gid: None }
        }
        "exec" => What::Exec { process: at(1), comm: comm(2) },
        "exit" => {
            let status = Some(Status::from_wait(number(2)));
            What::Exit { process: at(1), comm: Comm::new(b"x"), status }
        }
        "uid" => What::Uid { process: at(1), ids: ids(2) },
        "comm" => What::Comm { process: at(1), comm: comm(2) },
        "gap" => What::Gap,
        "synced" => What::Synced { found: 0, gone: 0, changed: 0 },
        other => panic!("{other}"),
    };
    Event { time: Time(1), what }
}

fn told(event: &Event) -> String {
    let number = |process: Process| process.pid.map_or("?".to_owned(), |pid| pid.to_string());
    let parent = |parent: Option<Process>| parent.map_or("0".to_owned(), number);
    match event.what {
        What::Found { process, parent: from, .. } => format!("found {} {}", parent(from), number(process)),
        What::Fork { process, parent: from, .. } => format!("fork {} {}", parent(from), number(process)),
        What::Exec { process, comm } => format!("exec {} {comm}", number(process)),
        What::Exit { process, status, .. } => {
            let status = status.map_or("?".to_owned(), |status| status.to_wait().to_string());
            format!("exit {} {status}", number(process))
        }
        What::Uid { process, ids } => format!("uid {} {}", number(process), ids.real),
        What::Gid { process, ids } => format!("gid {} {}", number(process), ids.real),
        What::Sid { process } => format!("sid {}", number(process)),
        What::Comm { process, comm } => format!("comm {} {comm}", number(process)),
        What::Left { process } => format!("left {}", number(process)),
        What::Gap => "gap".into(),
        What::Synced { found, gone, changed } => format!("synced +{found} -{gone} ~{changed}"),
    }
}

/// A hub with its subscribers' streams read into text.
#[derive(Default)]
struct Stage {
    hub: Hub,
    table: Table,
}

impl Stage {
    fn with(events: &str) -> Self {
        let mut stage = Self::default();
        stage.happens(events);
        stage.happens("synced");
        stage
    }

    fn happens(&mut self, events: &str) {
        for text in events.split('|').map(str::trim).filter(|text| !text.is_empty()) {
            self.hub.deliver(&event(text), &mut self.table);
        }
    }

    fn subscribe(&mut self, view: Option<u64>, scope: &Scope) -> SubscriberId {
        let audience = Audience { namespace: view.map(namespace), ..Audience::same() };
        self.hub.subscribe(audience, scope, Time(1), &mut self.table)
    }

    /// Process PID of the daemon's has these numbers in namespaces.
    fn numbers(&mut self, pid: u32, numbers: &[(u64, u32)]) {
        for (namespace, number) in numbers {
            self.table.numbers.insert((*namespace, pid), *number);
            self.table.homes.insert(pid, *namespace);
        }
    }

    /// Everything that waits for a subscriber.
    fn events(&mut self, id: SubscriberId) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(packet) = self.hub.front(id) {
            if wire::check_hello(packet).is_err() {
                wire::read(packet, |event| events.push(event)).unwrap();
            }
            self.hub.sent(id);
        }
        events
    }

    fn read(&mut self, id: SubscriberId) -> String {
        self.events(id).iter().map(told).collect::<Vec<_>>().join(" | ")
    }
}

const SYSTEM: &str = "found 0 1 | found 1 2 | found 2 3 | found 3 4 | found 1 5";

#[test]
fn a_stream_begins_with_the_hello_and_with_what_is_there() {
    let mut stage = Stage::with(SYSTEM);
    let id = stage.subscribe(None, &Scope::All);
    assert_eq!(stage.hub.take_ready(), [id]);
    assert_eq!(stage.hub.front(id), Some(wire::hello().as_slice()));
    assert_eq!(stage.read(id), "found 0 1 | found 1 2 | found 2 3 | found 3 4 | found 1 5 | synced +5 -0 ~0");
    stage.happens("fork 5 6 | exec 6 ls | uid 6 7 | comm 6 a | exit 6 256");
    assert_eq!(stage.read(id), "fork 5 6 | exec 6 ls | uid 6 7 | comm 6 a | exit 6 256");
    assert_eq!(stage.hub.take_ready(), [id]);
}

#[test]
fn a_subtree_is_what_descends_from_its_root() {
    let mut stage = Stage::with(SYSTEM);
    let id = stage.subscribe(None, &Scope::Subtree(Pid::new(2).unwrap()));
    assert_eq!(stage.read(id), "found 1 2 | found 2 3 | found 3 4 | synced +3 -0 ~0");
    // Outside; inside; a grandchild whose parent is gone.
    stage.happens(
        "fork 5 6 | fork 4 7 | fork 7 8 | exit 7 0 | exec 8 ls | exit 6 0 | fork 8 9 | exit 2 0 | fork 4 10",
    );
    assert_eq!(
        stage.read(id),
        "fork 4 7 | fork 7 8 | exit 7 0 | exec 8 ls | fork 8 9 | exit 2 0 | fork 4 10"
    );
}

#[test]
fn a_subtree_of_nobody_is_empty() {
    let mut stage = Stage::with(SYSTEM);
    let id = stage.subscribe(None, &Scope::Subtree(Pid::new(77).unwrap()));
    stage.happens("fork 5 77 | fork 77 78");
    assert_eq!(stage.read(id), "synced +0 -0 ~0");
}

#[test]
fn chosen_processes_come_and_go_and_their_children_belong_to_them() {
    let mut stage = Stage::with(SYSTEM);
    let pid = |number| Pid::new(number).unwrap();
    let id = stage.subscribe(None, &Scope::Chosen(vec![pid(3)]));
    assert_eq!(stage.read(id), "found 2 3 | synced +1 -0 ~0");
    stage.happens("fork 3 6 | fork 4 7");
    assert!(
        stage.hub.admit(id, pid(4), Time(1), &mut stage.table)
            && !stage.hub.admit(id, pid(4), Time(1), &mut stage.table)
            && !stage.hub.admit(id, pid(99), Time(1), &mut stage.table)
    );
    assert!(stage.hub.dismiss(id, pid(3), Time(1)) && !stage.hub.dismiss(id, pid(3), Time(1)));
    stage.happens("fork 3 8 | fork 4 9 | exit 6 0 | exit 3 0");
    assert_eq!(stage.read(id), "fork 3 6 | found 3 4 | left 3 | fork 4 9 | exit 6 0");
}

#[test]
fn who_chose_is_synced_when_the_choice_has_been_compared() {
    let mut stage = Stage::with(SYSTEM);
    stage.hub.compare_choices();
    let pid = |number| Pid::new(number).unwrap();
    let id = stage.subscribe(None, &Scope::Chosen(vec![pid(3)]));
    assert_eq!(stage.read(id), "found 2 3 | synced +1 -0 ~0", "at first it is known");
    stage.happens("gap | found 1 6 | synced");
    assert_eq!(stage.hub.begin_comparison(id), [pid(3)]);
    assert_eq!(stage.read(id), "gap");
    // Another gap meanwhile: this comparison does not count.
    stage.happens("gap | found 1 7 | synced");
    assert!(stage.hub.admit(id, pid(6), Time(1), &mut stage.table));
    stage.hub.end_comparison(id);
    assert_eq!(stage.read(id), "gap | found 1 6");
    stage.hub.begin_comparison(id);
    assert!(stage.hub.admit(id, pid(7), Time(1), &mut stage.table));
    stage.hub.end_comparison(id);
    assert_eq!(stage.read(id), "found 1 7 | synced +2 -0 ~0");
    stage.hub.begin_comparison(id);
    stage.hub.end_comparison(id);
    assert_eq!(stage.read(id), "");
}

/// Two containers, 10 and, inside that, 20; and a sibling, 30.
fn nested() -> Stage {
    let mut stage = Stage::default();
    stage.numbers(3, &[(10, 1)]);
    stage.numbers(4, &[(10, 2), (20, 1)]);
    stage.numbers(5, &[(30, 1)]);
    stage.happens("found 0 1 | found 1 2 | found 2 3 | found 3 4 | found 2 5 | synced");
    stage
}

#[test]
fn each_level_sees_its_own_processes_in_its_own_numbers() {
    let mut stage = nested();
    let (outer, inner, sibling) = (10, 20, 30);
    let all: Vec<_> =
        [outer, inner, sibling].iter().map(|view| stage.subscribe(Some(*view), &Scope::All)).collect();
    let host = stage.subscribe(None, &Scope::All);
    assert_eq!(stage.read(all[0]), "found 0 1 | found 1 2 | synced +2 -0 ~0");
    assert_eq!(stage.read(all[1]), "found 0 1 | synced +1 -0 ~0");
    assert_eq!(stage.read(all[2]), "found 0 1 | synced +1 -0 ~0");
    stage.read(host);
    stage.numbers(6, &[(10, 3), (20, 2)]);
    stage.numbers(7, &[(10, 4)]);
    stage.happens("fork 4 6 | fork 3 7 | fork 2 8 | exec 6 ls | exit 6 9 | exit 8 0");
    assert_eq!(stage.read(all[0]), "fork 2 3 | fork 1 4 | exec 3 ls | exit 3 9");
    assert_eq!(stage.read(all[1]), "fork 1 2 | exec 2 ls | exit 2 9");
    assert_eq!(stage.read(all[2]), "");
    assert_eq!(stage.read(host), "fork 4 6 | fork 3 7 | fork 2 8 | exec 6 ls | exit 6 9 | exit 8 0");
}

#[test]
fn who_enters_a_namespace_from_outside_is_told_of_with_parent_0() {
    for others in [0, 5] {
        // With many namespaces the home of the child decides whether they are asked.
        let mut stage = nested();
        let others: Vec<_> = (0..others).map(|view| stage.subscribe(Some(100 + view), &Scope::All)).collect();
        let id = stage.subscribe(Some(10), &Scope::All);
        let subtree = stage.subscribe(Some(10), &Scope::Subtree(Pid::new(3).unwrap()));
        for id in [id, subtree] {
            stage.read(id);
        }
        stage.numbers(6, &[(10, 9)]);
        stage.numbers(7, &[(10, 11)]);
        stage.happens("fork 2 6 | fork 6 7 | exit 6 0");
        assert_eq!(stage.read(id), "fork 0 9 | fork 9 11 | exit 9 0", "{} other views", others.len());
        assert_eq!(stage.read(subtree), "");
        others.into_iter().for_each(|other| assert_eq!(stage.read(other), "synced +0 -0 ~0"));
    }
}

#[test]
fn a_process_that_is_gone_before_its_number_is_known_is_told_of_without_one() {
    let mut stage = nested();
    let id = stage.subscribe(Some(10), &Scope::All);
    stage.read(id);
    stage.happens("fork 3 6 | exit 6 0");
    assert_eq!(stage.read(id), "fork 1 ? | exit ? 0");
}

/// Behind the queue, a process outside has ended, and one inside has its number.
#[test]
fn who_had_a_number_before_somebody_inside_is_not_told_of() {
    let mut stage = nested();
    stage.table.reused.insert(40);
    stage.numbers(40, &[(10, 9)]);
    let id = stage.subscribe(Some(10), &Scope::All);
    let before = stage.read(id);
    stage.happens("fork 1 40 | exec 40 ls | exit 40 0");
    assert_eq!(stage.read(id), "", "{before}");
    stage.happens("fork 1 40");
    stage.hub.unsubscribe(id);
    let id = stage.subscribe(Some(10), &Scope::All);
    assert_eq!(stage.read(id), before, "nor when it was there before");
}

#[test]
fn what_is_not_visible_cannot_be_a_scope() {
    let mut stage = nested();
    let pid = |number| Pid::new(number).unwrap();
    let subtree = stage.subscribe(Some(10), &Scope::Subtree(pid(2)));
    let chosen = stage.subscribe(Some(10), &Scope::Chosen(vec![pid(2), pid(5), pid(4)]));
    assert_eq!(stage.read(subtree), "synced +0 -0 ~0");
    assert_eq!(stage.read(chosen), "found 1 2 | synced +1 -0 ~0");
    assert!(
        !stage.hub.admit(chosen, pid(2), Time(1), &mut stage.table)
            && !stage.hub.admit(chosen, pid(5), Time(1), &mut stage.table)
    );
}

#[test]
fn users_are_numbered_as_in_the_subscribers_user_namespace() {
    let mut stage = Stage::with(SYSTEM);
    let map = IdMap::parse("0 1000 1\n");
    let audience = Audience { users: map, ..Audience::same() };
    let id = stage.hub.subscribe(audience, &Scope::Subtree(Pid::new(5).unwrap()), Time(1), &mut stage.table);
    let events = stage.events(id);
    let What::Found { uid: Some(ids), .. } = events[0].what else { panic!("{events:?}") };
    assert_eq!(ids, Ids { real: 0, effective: 65534 });
    stage.happens("uid 5 1000 | uid 5 3");
    assert_eq!(stage.read(id), "uid 5 0 | uid 5 65534");
}

#[test]
fn a_gap_of_the_source_is_told_to_all_with_their_own_difference() {
    let mut stage = nested();
    let (host, inside) = (stage.subscribe(None, &Scope::All), stage.subscribe(Some(10), &Scope::All));
    for id in [host, inside] {
        stage.read(id);
    }
    stage.numbers(6, &[(10, 3)]);
    stage.happens("gap | exit 4 0 | found 3 6 | found 2 7 | comm 3 y | synced");
    assert_eq!(stage.read(host), "gap | exit 4 0 | found 3 6 | found 2 7 | comm 3 y | synced +2 -1 ~1");
    assert_eq!(stage.read(inside), "gap | exit 2 0 | found 1 3 | comm 1 y | synced +1 -1 ~1");
}

/// What it was told first was not all there is.
#[test]
fn who_subscribes_in_a_gap_is_synced_when_that_is_over() {
    let mut stage = nested();
    stage.happens("gap");
    let late = stage.subscribe(None, &Scope::Subtree(Pid::new(5).unwrap()));
    let inside = stage.subscribe(Some(10), &Scope::All);
    assert_eq!(stage.read(late), "found 2 5");
    assert_eq!(stage.read(inside), "found 0 1 | found 1 2");
    stage.happens("exit 4 0 | found 5 6 | comm 5 y | synced");
    assert_eq!(stage.read(late), "found 5 6 | comm 5 y | synced +2 -0 ~1");
    assert_eq!(stage.read(inside), "exit 2 0 | synced +2 -1 ~0");
    stage.happens("fork 5 7");
    assert_eq!(stage.read(late), "fork 5 7");
}

/// Born in the gap, to parents that ended in it: init is their parent now.
#[test]
fn orphans_of_a_gap_belong_to_their_sessions_leader() {
    let mut stage = nested();
    let subtree = |root| Scope::Subtree(Pid::new(root).unwrap());
    let (of_3, of_5) = (stage.subscribe(None, &subtree(3)), stage.subscribe(None, &subtree(5)));
    let inside = stage.subscribe(Some(10), &subtree(3));
    for id in [of_3, of_5, inside] {
        stage.read(id);
    }
    stage.happens("gap | exit 4 0");
    // 4 led a session, and so does 8; that of 9 and 10 has a leader elsewhere, or nobody knows it.
    // 12 has ended, and who has its number is in that of 3.
    stage.table.reused.insert(12);
    for (pid, session) in [(6, 4), (7, 3), (8, 8), (9, 1), (10, 77), (12, 3)] {
        stage.table.sessions.insert(pid, session);
    }
    stage.numbers(6, &[(10, 16)]);
    stage.numbers(7, &[(10, 17)]);
    stage.happens(
        "found 1 6 | found 3 7 | found 1 8 | found 1 9 | found 1 10 | found 6 11 | found 1 12 | synced",
    );
    assert_eq!(stage.read(of_3), "gap | exit 4 0 | found 1 6 | found 3 7 | found 6 11 | synced +3 -1 ~0");
    assert_eq!(stage.read(of_5), "gap | synced +0 -0 ~0");
    assert_eq!(stage.read(inside), "gap | exit 2 0 | found 0 16 | found 1 17 | found 16 ? | synced +3 -1 ~0");
    // Afterwards nothing is asked for it.
    stage.table.asked = 0;
    stage.hub.unsubscribe(inside);
    stage.happens("found 1 12");
    assert_eq!(stage.table.asked, 0);
}

/// An outer pinfold that has not listed its processes yet.
#[test]
fn nobody_is_synced_before_the_source_is() {
    let mut stage = Stage::default();
    let id = stage.subscribe(None, &Scope::All);
    assert_eq!(stage.read(id), "");
    stage.happens("found 0 1 | synced");
    assert_eq!(stage.read(id), "found 0 1 | synced +1 -0 ~0");
}

#[test]
fn a_subtree_may_be_asked_for_before_its_root_is_listed() {
    let mut stage = Stage::default();
    stage.table.untold.insert(2, 0);
    let id = stage.subscribe(None, &Scope::Subtree(Pid::new(2).unwrap()));
    stage.happens("found 0 1 | found 1 2 | found 2 3 | synced");
    assert_eq!(stage.read(id), "found 1 2 | found 2 3 | synced +2 -0 ~0");
    // Another process of that number, found when the root has ended, is not it.
    stage.happens("exit 2 0 | gap | found 1 2' | synced");
    assert_eq!(stage.read(id), "exit 2 0 | gap | synced +0 -0 ~0");
}

/// An outer pinfold is a little behind, and /proc is polled now and then: such a process was in no subtree and in no group.
#[test]
fn who_is_named_before_it_is_told_of_belongs_to_whoever_named_it() {
    let mut stage = Stage::with(SYSTEM);
    let pid = |number| Pid::new(number).unwrap();
    stage.table.untold.extend([(6, 0), (8, 0), (9, 0)]);
    let subtree = stage.subscribe(None, &Scope::Subtree(pid(6)));
    let chosen = stage.subscribe(None, &Scope::Chosen(vec![pid(3), pid(6)]));
    assert!(!stage.hub.admit(chosen, pid(8), Time(1), &mut stage.table));
    assert!(!stage.hub.admit(chosen, pid(9), Time(1), &mut stage.table));
    assert_eq!(stage.read(chosen), "found 2 3 | synced +1 -0 ~0");
    let told: HashSet<Pid> = stage.hub.told(chosen).into_iter().collect();
    assert_eq!(told, HashSet::from([3, 6, 8, 9].map(pid)), "nobody has to be admitted again");
    assert!(!stage.hub.dismiss(chosen, pid(9), Time(1)));
    stage.happens("fork 5 6 | fork 6 7 | found 1 8 | fork 1 9 | exit 6 0");
    assert_eq!(stage.read(subtree), "synced +0 -0 ~0 | fork 5 6 | fork 6 7 | exit 6 0");
    assert_eq!(stage.read(chosen), "fork 5 6 | fork 6 7 | found 1 8 | exit 6 0");
}

#[test]
fn another_process_with_the_number_of_one_that_was_named_is_not_it() {
    let mut stage = Stage::with(SYSTEM);
    // It started before or long after the one that is told of.
    for ticks in [1, 1_000] {
        stage.table.untold.insert(6, ticks);
        let id = stage.subscribe(None, &Scope::Subtree(Pid::new(6).unwrap()));
        stage.happens("fork 5 6 | exit 6 0");
        assert_eq!(stage.read(id), "synced +0 -0 ~0", "{ticks}");
    }
}

#[test]
fn who_is_not_visible_does_not_become_so_by_being_named() {
    let mut stage = nested();
    stage.table.untold.insert(6, 0);
    let id = stage.subscribe(Some(10), &Scope::Subtree(Pid::new(6).unwrap()));
    stage.happens("fork 1 6 | exit 6 0");
    assert_eq!(stage.read(id), "synced +0 -0 ~0");
}

#[test]
fn a_slow_reader_that_has_caught_up_in_a_gap_is_synced_when_that_is_over() {
    let (mut stage, slow) = with_a_slow_reader("found 0 1");
    stage.happens("gap");
    let caught_up = stage.read(slow);
    let (_, difference) = caught_up.split_once("gap").unwrap();
    assert!(!difference.contains("gap") && !difference.contains("synced"), "{difference}");
    stage.happens("found 1 70 | synced");
    let end = stage.read(slow);
    assert!(end.starts_with("found 1 70 | synced +1 "), "{end}");
}

/// A subscriber with room for hardly anything.
fn cramped(stage: &mut Stage, view: Option<u64>) -> SubscriberId {
    let audience = Audience { namespace: view.map(namespace), queue: 400, ..Audience::same() };
    stage.hub.subscribe(audience, &Scope::All, Time(1), &mut stage.table)
}

/// With these processes, and a reader that has fallen behind: fifty-two came and went.
fn with_a_slow_reader(start: &str) -> (Stage, SubscriberId) {
    let mut stage = Stage::with(start);
    let slow = cramped(&mut stage, None);
    stage.read(slow);
    for pid in 8..60 {
        stage.happens(&format!("fork 1 {pid} | exit {pid} 0"));
    }
    (stage, slow)
}

#[test]
fn a_slow_reader_gets_a_gap_and_then_exactly_the_difference() {
    for view in [None, Some(10)] {
        let mut stage = nested();
        for pid in 6..200 {
            stage.numbers(pid, &[(10, pid)]);
        }
        stage.numbers(3, &[(10, 3)]);
        stage.numbers(4, &[(10, 4)]);
        let (slow, quick) = (cramped(&mut stage, view), stage.subscribe(view, &Scope::All));
        for id in [slow, quick] {
            stage.read(id);
        }
        stage.happens("fork 3 6 | fork 3 7");
        for pid in 8..200 {
            stage.happens(&format!("fork 3 {pid} | exit {pid} 0"));
            assert!(stage.hub.waiting(slow) < 500, "{}", stage.hub.waiting(slow));
        }
        stage.happens("exit 7 0 | exec 6 ls | exec 6 sh | comm 4 c | uid 4 5");
        assert_eq!(stage.read(quick).split(" | ").count(), 2 + 2 * 192 + 5, "others are told everything");
        let read = stage.read(slow);
        let (before, after) = read.split_once("gap | ").unwrap();
        assert!(before.starts_with("fork 3 6 | fork 3 7 | fork 3 8 | exit 8 0"), "{before}");
        let pending: Vec<&str> = before.split(" | ").filter(|text| text.starts_with("fork")).collect();
        let ended = before.split(" | ").filter(|text| text.starts_with("exit")).count();
        // Of those that it was told of, all but 6 are gone.
        let gone = pending.len() - ended - 1;
        let ends: Vec<&str> = after.split(" | ").take(gone).collect();
        assert!(ends.iter().all(|text| text.starts_with("exit ") && text.ends_with(" ?")), "{after}");
        assert_eq!(
            after.split(" | ").skip(gone).collect::<Vec<_>>().join(" | "),
            format!("comm 4 c | uid 4 5 | exec 6 sh | synced +0 -{gone} ~3")
        );
        stage.happens("exit 6 0");
        assert_eq!(stage.read(slow), "exit 6 0", "afterwards it is told everything again");
    }
}

#[test]
fn who_does_not_read_is_given_up_when_too_much_has_to_be_remembered() {
    for (remembered, gives_up) in [(20, true), (1000, false)] {
        let mut stage = Stage::with("found 0 1");
        let audience = Audience { queue: 400, remembered, ..Audience::same() };
        let id = stage.hub.subscribe(audience, &Scope::All, Time(1), &mut stage.table);
        let quick = stage.subscribe(None, &Scope::All);
        let before = stage.read(id);
        assert_eq!(before, "found 0 1 | synced +1 -0 ~0");
        for pid in 8..60 {
            stage.happens(&format!("fork 1 {pid}"));
        }
        assert_eq!(stage.hub.take_given_up(), if gives_up { vec![id] } else { vec![] });
        // What it has not read yet may still be sent to it, but nothing begins anew.
        let rest = stage.read(id);
        assert!(rest.ends_with(if gives_up { "gap" } else { "synced +21 -0 ~0" }), "{rest}");
        stage.happens("fork 1 70");
        assert_eq!(stage.read(id), if gives_up { "" } else { "fork 1 70" });
        assert!(stage.read(quick).ends_with("fork 1 59 | fork 1 70"));
        assert_eq!(stage.hub.take_given_up(), []);
    }
}

#[test]
fn who_reads_is_never_given_up_however_many_there_are() {
    let everybody: Vec<String> = (1..=60).map(|pid| format!("found {} {pid}", pid - 1)).collect();
    let mut stage = Stage::with(&everybody.join(" | "));
    let audience = Audience { queue: 400, remembered: 20, ..Audience::same() };
    let id = stage.hub.subscribe(audience, &Scope::All, Time(1), &mut stage.table);
    assert!(stage.read(id).ends_with(" | synced +60 -0 ~0"));
    assert_eq!(stage.hub.take_given_up(), []);
    stage.happens("exit 60 0");
    assert_eq!(stage.read(id), "exit 60 0");
}

/// The list of who is told of it, every process has.
#[test]
fn those_who_have_left_are_not_in_the_lists_for_ever() {
    let mut stage = Stage::with(SYSTEM);
    let id = stage.subscribe(None, &Scope::All);
    let size = |stage: &Stage| format!("{:?}", stage.hub).len();
    let before = size(&stage);
    for _ in 0..500 {
        let other = stage.subscribe(None, &Scope::All);
        stage.happens("exec 3 ls");
        stage.hub.unsubscribe(other);
        stage.hub.take_ready();
        stage.read(id);
    }
    assert!(size(&stage) < 8 * before, "{} of {before}", size(&stage));
    assert_eq!(stage.hub.told(id).len(), 5);
}

#[test]
fn a_number_that_is_used_again_while_a_reader_is_behind_names_another_process() {
    let (mut stage, slow) = with_a_slow_reader("found 0 1 | found 1 6");
    stage.happens("exit 6 0 | fork 1 6' | exec 6' ls");
    let events = stage.events(slow);
    let gap = events.iter().position(|event| event.what == What::Gap).expect("it is behind");
    let of_6 = events[gap..].iter().filter_map(|event| {
        let process = event.what.process().filter(|process| process.pid == Pid::new(6))?;
        Some(format!("{} {}", told(event), process.started.0))
    });
    assert_eq!(of_6.collect::<Vec<_>>(), ["exit 6 ? 6", "found 1 6 1000000"]);
    stage.happens("exit 6' 0");
    assert_eq!(stage.read(slow), "exit 6 0");
}

#[test]
fn who_leaves_costs_nothing_more() {
    let mut stage = nested();
    let (one, other) = (stage.subscribe(Some(10), &Scope::All), stage.subscribe(Some(10), &Scope::All));
    assert_eq!(stage.hub.unsubscribe(one), None, "the other still looks from there");
    assert_eq!(stage.hub.unsubscribe(other), Some(namespace(10)));
    assert_eq!(stage.hub.unsubscribe(other), None);
    stage.hub.take_ready();
    stage.table.asked = 0;
    stage.happens("fork 3 6 | exit 6 0");
    assert_eq!((stage.table.asked, stage.hub.take_ready().len(), stage.hub.subscribers()), (0, 0, 0));
}

#[test]
fn an_event_asks_nothing_for_those_whom_it_does_not_concern() {
    let mut stage = Stage::with("found 0 1");
    for child in 2..102 {
        stage.happens(&format!("found 1 {child}"));
        stage.subscribe(None, &Scope::Subtree(Pid::new(child).unwrap()));
    }
    stage.hub.take_ready();
    stage.happens("fork 57 200 | exec 200 ls | exit 200 0");
    assert_eq!(stage.hub.take_ready().len(), 1);
    assert_eq!(stage.table.asked, 0);
}

/// What happens to processes of a host (level 0), of a container and of one in that, each with its level; a child is born where
/// its parent is.
fn story(steps: &[(u8, u8)]) -> Vec<(u64, Event)> {
    let mut living: Vec<(u64, u32)> = vec![(0, 2), (1, 3), (2, 4)];
    let deeds = steps.iter().zip(10..).map(|((what, who), number)| {
        let at = usize::from(*who) % living.len();
        let (level, pid) = living[at];
        let text = match what % 6 {
            0 | 1 => {
                living.push((level, number));
                format!("fork {pid} {number}")
            }
            2 if at > 2 => {
                living.remove(at);
                format!("exit {pid} 0")
            }
            3 => format!("uid {pid} {who}"),
            4 => {
                // Of nobody who is known: the host's.
                living.push((0, number));
                return (0, Event { time: Time(u64::from(number)), ..event(&format!("fork 9 {number}")) });
            }
            _ => format!("exec {pid} n{who}"),
        };
        (level, Event { time: Time(u64::from(number)), ..event(&text) })
    });
    deeds.collect()
}

/// The packets that a subscriber at a level gets, given before which deed it comes, and after which it reads one. The levels below
/// `least` are not there at all.
fn heard(
    deeds: &[(u64, Event)],
    least: u64,
    (level, scope): (u64, &Scope),
    queue: usize,
    (comes, reads): (usize, &[bool]),
) -> Vec<Vec<u8>> {
    let mut stage = Stage::default();
    let view = |level| 10 * level;
    let settle = |stage: &mut Stage, pid, level| {
        let numbers: Vec<_> = (1..=level).map(|level| (view(level), pid + 1000)).collect();
        stage.numbers(pid, &numbers);
    };
    for (at, first) in [(0, "found 0 1 | found 1 2"), (1, "found 2 3"), (2, "found 3 4")] {
        settle(&mut stage, at as u32 + 2, at);
        stage.happens(if least <= at { first } else { "" });
    }
    stage.happens("synced");
    let mut packets = Vec::new();
    let mut id = None;
    let mut read = |stage: &mut Stage, id: Option<SubscriberId>| {
        let packet = stage.hub.front(id?)?.to_vec();
        stage.hub.sent(id?);
        packets.push(packet);
        Some(())
    };
    for (index, (of, event)) in deeds.iter().enumerate() {
        if index == comes {
            let audience = Audience { namespace: Some(namespace(view(level))), queue, ..Audience::same() };
            id = Some(stage.hub.subscribe(audience, scope, Time(event.time.0 - 1), &mut stage.table));
        }
        if let What::Fork { process, .. } = event.what {
            settle(&mut stage, process.pid.unwrap().get(), *of);
        }
        if *of >= least {
            stage.hub.deliver(event, &mut stage.table);
        }
        if reads[index % reads.len()] {
            read(&mut stage, id);
        }
    }
    while read(&mut stage, id).is_some() {}
    packets
}

proptest! {
    /// Byte for byte: no event, no count, no gap and no time tells a container that there are others.
    #[test]
    fn what_happens_outside_leaves_no_trace_inside(
        steps in prop::collection::vec((any::<u8>(), any::<u8>()), 1..300),
        comes in any::<prop::sample::Index>(),
        reads in prop::collection::vec(any::<bool>(), 1..20),
        queue in 50usize..600,
    ) {
        let deeds = story(&steps);
        let comes = (comes.index(deeds.len()), &reads[..]);
        for level in [1, 2] {
            for scope in [Scope::All, Scope::Subtree(Pid::new(level as u32 + 2).unwrap())] {
                let reader = (level, &scope);
                let among_others = heard(&deeds, 0, reader, queue, comes);
                prop_assert_eq!(among_others, heard(&deeds, level, reader, queue, comes));
            }
        }
    }

    /// Whatever happens and however little is read, who reads to the end knows who lives, and what they look like.
    #[test]
    fn a_reader_of_any_speed_ends_up_with_the_truth(
        steps in prop::collection::vec((0u8..8, any::<u8>(), any::<bool>()), 1..300),
        queue in 50usize..600,
    ) {
        let mut stage = Stage::with("found 0 1");
        let audience = Audience { queue, ..Audience::same() };
        let id = stage.hub.subscribe(audience, &Scope::All, Time(1), &mut stage.table);
        let mut living = vec![1];
        let mut names = HashMap::from([(1, "x".to_owned())]);
        let mut next = 2;
        let mut events = Vec::new();
        for (what, who, reads) in steps {
            let at = usize::from(who) % living.len();
            let pid = living[at];
            match what {
                0..=2 => {
                    stage.happens(&format!("fork {pid} {next}"));
                    living.push(next);
                    names.insert(next, "x".to_owned());
                    next += 1;
                }
                3 | 4 if pid != 1 => {
                    stage.happens(&format!("exit {pid} 0"));
                    living.remove(at);
                    names.remove(&pid);
                }
                5 | 6 => {
                    let verb = if what == 5 { "exec" } else { "comm" };
                    stage.happens(&format!("{verb} {pid} n{who}"));
                    names.insert(pid, format!("n{who}"));
                }
                _ => {}
            }
            if reads {
                // One packet only.
                if let Some(packet) = stage.hub.front(id) {
                    if wire::check_hello(packet).is_err() {
                        wire::read(packet, |event| events.push(event)).unwrap();
                    }
                    stage.hub.sent(id);
                }
            }
            prop_assert!(stage.hub.waiting(id) < queue + 600);
        }
        events.extend(stage.events(id));
        let mut known = HashMap::new();
        for event in &events {
            let number = |process: Process| process.pid.unwrap().get();
            match event.what {
                What::Found { process, comm, .. } => {
                    prop_assert!(known.insert(number(process), comm.to_string()).is_none());
                }
                What::Fork { process, .. } => {
                    prop_assert!(known.insert(number(process), "x".to_owned()).is_none());
                }
                What::Exec { process, comm } | What::Comm { process, comm } => {
                    prop_assert!(known.insert(number(process), comm.to_string()).is_some());
                }
                What::Exit { process, .. } => prop_assert!(known.remove(&number(process)).is_some()),
                _ => {}
            }
        }
        prop_assert_eq!(known, names);
    }
}
