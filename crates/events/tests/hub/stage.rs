//! A hub with its subscribers' streams read into text.

use std::collections::{HashMap, HashSet};

use pinfold_events::hub::{Audience, Hub, SubscriberId};
use pinfold_events::namespace::{NamespaceId, Namespaces};
use pinfold_events::{Comm, Event, Ids, Pid, Process, Scope, Started, Status, Time, What, wire};

/// Namespaces as a table: (namespace, the daemon's number) -> the number there.
#[derive(Default)]
pub(crate) struct Table {
    pub(crate) numbers: HashMap<(u64, u32), u32>,
    pub(crate) homes: HashMap<u32, u64>,
    pub(crate) sessions: HashMap<u32, u32>,
    /// Numbers that are somebody else's by now.
    pub(crate) reused: HashSet<u32>,
    /// The same, and so soon that only their parent tells.
    pub(crate) reused_at_once: HashSet<u32>,
    /// When processes that nobody has told of yet started, in ticks.
    pub(crate) untold: HashMap<u32, u64>,
    pub(crate) asked: usize,
}

pub(crate) fn namespace(number: u64) -> NamespaceId {
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

    fn is_child(&mut self, process: Process, _: Option<Process>) -> bool {
        self.may_be(process) && process.pid.is_some_and(|pid| !self.reused_at_once.contains(&pid.get()))
    }

    fn ticks(&mut self, pid: Pid) -> Option<u64> {
        self.asked += 1;
        self.untold.get(&pid.get()).copied()
    }

    fn home(&mut self, pid: Pid) -> Option<NamespaceId> {
        self.asked += 1;
        self.homes.get(&pid.get()).map(|home| namespace(*home))
    }

    fn seen_from(&mut self, pid: Pid) -> Option<Box<[NamespaceId]>> {
        self.asked += 1;
        let all = self.numbers.keys().filter(|(_, of)| *of == pid.get());
        Some(all.map(|(id, _)| namespace(*id)).collect())
    }

    fn session(&mut self, pid: Pid) -> Option<Pid> {
        self.asked += 1;
        self.sessions.get(&pid.get()).and_then(|session| Pid::new(*session))
    }
}

/// A process that started when its number says.
pub(crate) fn process(number: u32) -> Process {
    Process { pid: Pid::new(number), started: Started(u64::from(number)) }
}

/// One event as text: `found PARENT PID`, `fork PARENT PID`, `exec PID NAME`, `exit PID STATUS`, `uid PID UID`, `comm PID NAME`, `gap`,
/// `synced`. A parent 0 is outside. The second process of a number is `NUMBER'`.
pub(crate) fn event(text: &str) -> Event {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let at = |index: usize| match words[index].strip_suffix('\'') {
        None => process(words[index].parse().unwrap()),
        Some(number) => Process { started: Started(20_000_000), ..process(number.parse().unwrap()) },
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

pub(crate) fn told(event: &Event) -> String {
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
pub(crate) struct Stage {
    pub(crate) hub: Hub,
    pub(crate) table: Table,
}

impl Stage {
    pub(crate) fn with(events: &str) -> Self {
        let mut stage = Self::default();
        stage.happens(events);
        stage.happens("synced");
        stage
    }

    pub(crate) fn happens(&mut self, events: &str) {
        for text in events.split('|').map(str::trim).filter(|text| !text.is_empty()) {
            self.hub.deliver(&event(text), &mut self.table);
        }
    }

    pub(crate) fn subscribe(&mut self, view: Option<u64>, scope: &Scope) -> SubscriberId {
        let audience = Audience { namespace: view.map(namespace), ..Audience::same() };
        self.hub.subscribe(audience, scope, Time(1), &mut self.table)
    }

    /// Process PID of the daemon's has these numbers in namespaces.
    pub(crate) fn numbers(&mut self, pid: u32, numbers: &[(u64, u32)]) {
        for (namespace, number) in numbers {
            self.table.numbers.insert((*namespace, pid), *number);
            self.table.homes.insert(pid, *namespace);
        }
    }

    /// Everything that waits for a subscriber.
    pub(crate) fn events(&mut self, id: SubscriberId) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(packet) = self.hub.front(id) {
            if wire::check_hello(packet).is_err() {
                wire::read(packet, |event| events.push(event)).unwrap();
            }
            self.hub.sent(id);
        }
        events
    }

    pub(crate) fn read(&mut self, id: SubscriberId) -> String {
        self.events(id).iter().map(told).collect::<Vec<_>>().join(" | ")
    }
}

pub(crate) const SYSTEM: &str = "found 0 1 | found 1 2 | found 2 3 | found 3 4 | found 1 5";

/// Two containers, 10 and, inside that, 20; and a sibling, 30.
pub(crate) fn nested() -> Stage {
    let mut stage = Stage::default();
    stage.numbers(3, &[(10, 1)]);
    stage.numbers(4, &[(10, 2), (20, 1)]);
    stage.numbers(5, &[(30, 1)]);
    stage.happens("found 0 1 | found 1 2 | found 2 3 | found 3 4 | found 2 5 | synced");
    stage
}
