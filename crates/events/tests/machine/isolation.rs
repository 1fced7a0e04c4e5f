//! Whether anything outside of a container leaves a trace in what its subscribers are told.

use std::collections::{HashMap, HashSet};

use pinfold_events::{Event, Pid, Scope, Started, Status, Time, What};

use crate::nested::{Ground, NOBODY, UNSHARE, numbers, only_child, unshare_of_user};
use crate::role::read_hex;
use crate::watch::{Actor, Watch, number, own};

pub(crate) fn nothing_outside_leaves_a_trace_inside() {
    isolate("alone", UNSHARE, "");
}

pub(crate) fn nothing_outside_leaves_a_trace_inside_of_a_users_container() {
    let Some(unshare) = unshare_of_user() else { return };
    isolate("alone-user", &unshare, NOBODY);
}

/// Ends with the exit of a shell with this status.
const LAST: u8 = 77;

/// How often the kernel may lose something on a busy machine, which is a gap for all.
const ATTEMPTS: usize = 4;

fn isolate(name: &str, unshare: &str, first: &str) {
    let mut attempts = (0..ATTEMPTS).map(|attempt| Ground::new(&format!("{name}-{attempt}")));
    assert!(
        attempts.any(|ground| is_isolated(&ground, unshare, first)),
        "the kernel loses something each time"
    );
}

/// While processes come, change and go beside two nested containers and inside of them, each level is told of those inside and of
/// nothing else. Who is inside, the host's stream says: whoever descends from the level's first process. Answers whether the kernel
/// told everything.
fn is_isolated(ground: &Ground, unshare: &str, first: &str) -> bool {
    let Some(behind) = ground.daemon() else { return true };
    // From when this was told on.
    let listen = |reader: Pid, is_first: fn(&What) -> bool| {
        let service = behind.lock().unwrap();
        let mut watch = Watch::new(service.as_ref().unwrap().subscribe(reader, &Scope::All).unwrap().socket);
        drop(service);
        let before = watch.until(is_first);
        std::thread::spawn(move || {
            before.into_iter().chain(std::iter::from_fn(|| watch.next())).collect::<Vec<Event>>()
        })
    };
    let host = listen(own(), |what| matches!(what, What::Synced { .. }));
    let beside = "while :; do (:); sh -c 'exit 3'; setpriv --reuid 7 setsid true; done";
    let container = format!("exec {UNSHARE} sh -c \"{beside}\"");
    let mut others = [beside, &container].map(Actor::shell);
    others.iter_mut().for_each(|other| other.say("go"));
    let neighbour = others[1].pid();
    let of_neighbour =
        listen(Pid::new(only_child(neighbour)).unwrap(), |what| matches!(what, What::Fork { .. }));
    let mut containers = ground.containers_of("witness", first, unshare);
    let told = hear_levels(&mut containers);
    drop(others);
    let service = behind.lock().unwrap().take().unwrap();
    let losses = service.counters().losses;
    drop(service);
    if losses > 0 {
        return false;
    }
    let host = host.join().unwrap();
    check_told(1, &of_neighbour.join().unwrap(), &host, &family(&host, neighbour, "sh").1);
    let mut inside = containers.pid();
    for (told, level) in told.iter().zip(1..) {
        let (init, family) = family(&host, inside, "program");
        let forks = check_told(level, told, &host, &family);
        assert!(forks > 24, "level {level} was told of {forks} forks");
        inside = init;
    }
    true
}

/// What both levels are told until a shell inside, which has started others, has ended.
fn hear_levels(containers: &mut Actor) -> [Vec<Event>; 2] {
    let mut told: [Vec<Event>; 2] = Default::default();
    let mut hear = |containers: &mut Actor| {
        let line = containers.hear();
        let (level, record) = line.split_once(' ').unwrap_or_else(|| panic!("{line:?}: {told:?}"));
        let event = read_hex(record);
        told[level.parse::<usize>().unwrap() - 1].push(event);
        (level == "2", event.what)
    };
    while !matches!(hear(containers), (true, What::Synced { .. })) {}
    containers
        .say(&format!("i=0; while [ $i -lt 12 ]; do (:); sh -c 'exit 3'; i=$((i+1)); done; exit {LAST}"));
    let mut ends = 0;
    while ends < 2 {
        let (_, what) = hear(containers);
        let is_last =
            |what| matches!(what, What::Exit { status: Some(Status::Exited(code)), .. } if code == LAST);
        ends += usize::from(is_last(what));
    }
    told
}

/// Whether a level was told of nobody but the family, in the numbers of its own namespace, and of nothing that others did. Answers how
/// many were born.
fn check_told(level: usize, told: &[Event], host: &[Event], family: &HashMap<Started, u32>) -> usize {
    let is_strange = |event: &Event| event.what.process().is_some_and(|p| !family.contains_key(&p.started));
    let is_happening = |event: &&Event| !matches!(event.what, What::Found { .. }) && is_strange(event);
    let foreign: HashSet<Time> = host.iter().filter(is_happening).map(|event| event.time).collect();
    let born = host.iter().filter_map(|event| match &event.what {
        What::Fork { process, .. } => Some(number(process)),
        _ => None,
    });
    // From then on, numbers of the host's are no higher than those inside.
    let has_wrapped = born.clone().zip(born.skip(1)).any(|(one, next)| next + 1000 < one);
    let (mut found, mut forks) = (0, 0);
    for event in told {
        assert!(!is_strange(event), "level {level} hears of who is outside: {event:?}");
        assert!(!foreign.contains(&event.time), "level {level} has the time of others: {event:?}");
        let parent = match event.what {
            What::Found { parent, .. } => {
                found += 1;
                parent
            }
            What::Fork { parent, .. } => {
                forks += 1;
                parent
            }
            What::Synced { found: counted, gone, changed } => {
                assert_eq!((counted, gone, changed), (found, 0, 0), "level {level} counts others");
                None
            }
            What::Gap => panic!("level {level} has a gap"),
            _ => None,
        };
        let is_outside = parent.is_some_and(|parent| !family.contains_key(&parent.started));
        assert!(!is_outside, "level {level} has a parent outside: {event:?}");
        let Some(process) = event.what.process() else { continue };
        let (of_host, number) = (family[&process.started], number(&process));
        // A namespace counts from 1, later than the one around it: it never comes up with it.
        assert!(has_wrapped || number != of_host, "level {level} has a number of the host's: {event:?}");
        // Those who live can be asked, unless the number is another's by now.
        if let Some(inside) = numbers(of_host).get(level)
            && is_still(process.started, of_host)
        {
            assert_eq!(number, *inside, "level {level}: {event:?}");
        }
    }
    forks
}

/// Whether a number of the host's is still that of the process that started then.
fn is_still(started: Started, host: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{host}/stat")).unwrap_or_default();
    let ticks = stat.rsplit_once(") ").and_then(|(_, fields)| fields.split(' ').nth(19)?.parse().ok());
    ticks.is_some_and(|ticks| started.may_be(ticks))
}

/// The first process of the container that a process has made, which has become this program, and all that descend from it, with
/// their numbers.
fn family(host: &[Event], maker: u32, program: &str) -> (u32, HashMap<Started, u32>) {
    let mut family = HashMap::new();
    let mut init = 0;
    let mut made = HashSet::from([maker]);
    for event in host {
        match event.what {
            What::Fork { process, parent: Some(parent), .. } if family.contains_key(&parent.started) => {
                family.insert(process.started, number(&process));
            }
            What::Fork { process, parent: Some(parent), .. } if made.contains(&number(&parent)) => {
                made.insert(number(&process));
            }
            What::Exec { process, comm }
                if family.is_empty()
                    && comm.as_bytes() == program.as_bytes()
                    && number(&process) != maker
                    && made.contains(&number(&process)) =>
            {
                init = number(&process);
                family.insert(process.started, init);
            }
            _ => {}
        }
    }
    assert_ne!(init, 0, "no container of {maker}");
    (init, family)
}
