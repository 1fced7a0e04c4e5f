//! The kernel's connector, and /proc.

use std::os::fd::AsFd;
use std::process::Command;
use std::time::{Duration, Instant};

use pinfold_events::connector::{Connector, ConnectorError, RECEIVE_BUFFER};
use pinfold_events::{Event, Pid, Scope, Service, Source, What};
use rustix::net::netlink::{CONNECTOR, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, SendFlags, SocketFlags, SocketType, bind, getsockname, sendto, socket_with, sockopt,
};

use crate::nested::Ground;
use crate::watch::{Actor, Watch, number, own, service, skip, told, wait_for};

/// Starts an actor, waits until it was told of with the program that it is, and watches it and its descendants.
fn watch_tree(service: &Service, start: impl FnOnce() -> Actor) -> (Actor, Watch) {
    let mut before = Watch::new(service.subscribe(own(), &Scope::Subtree(own())).unwrap().socket);
    let actor = start();
    before.until(|what| matches!(what, What::Exec { process, .. } if number(process) == actor.pid()));
    let scope = Scope::Subtree(Pid::new(actor.pid()).unwrap());
    let mut watch = Watch::new(service.subscribe(own(), &scope).unwrap().socket);
    let found = watch.until_synced();
    assert_eq!(found.len(), 2, "{found:?}");
    (actor, watch)
}

/// What is told while a script runs, with `$` for the shell's number and `a`, `b`... for those of its descendants.
fn life_of(script: &str) -> Option<String> {
    let service = service()?;
    let (mut actor, mut watch) = watch_tree(&service, || Actor::shell(script));
    actor.say("go");
    let events = watch.until_exit(actor.pid());
    let mut names = vec![(actor.pid(), "$".to_owned())];
    for event in &events {
        if let What::Fork { process, .. } = event.what {
            let letter = char::from(b'a' + names.len() as u8 - 1);
            names.push((number(&process), letter.to_string()));
        }
    }
    let rename = |word: &str| {
        let found = word.parse().ok().and_then(|pid: u32| names.iter().find(|(number, _)| *number == pid));
        found.map_or_else(|| word.to_owned(), |(_, name)| name.clone())
    };
    let rename_all = |text: String| {
        let mut words: Vec<String> = text.split(' ').map(str::to_owned).collect();
        let numbers = if text.starts_with("fork") { 1..3 } else { 1..2 };
        // The name after an exec is not known if the process is gone by the time it is asked for.
        words.truncate(if text.starts_with("exit") { 3 } else { numbers.end });
        words[numbers].iter_mut().for_each(|word| *word = rename(word));
        words.join(" ")
    };
    let texts: Vec<String> = events.iter().map(told).map(rename_all).collect();
    assert_eq!(service.counters().scans, 1);
    Some(texts.join(" | "))
}

/// A connector with everything that has happened by now; none, with the reason printed, where there is none to be had.
fn read_up_to_now(opened: Result<Connector, ConnectorError>) -> Option<(Connector, Vec<Event>)> {
    let mut connector = opened.inspect_err(|error| skip(&error.to_string())).ok()?;
    let mut events = Vec::new();
    while !connector.read(&mut events).unwrap() {}
    Some((connector, events))
}

pub(crate) fn the_life_of_processes_is_told_in_order() {
    for (script, expected) in [
        ("(exit 3); exit 4", "fork $ a | exit a 768 | exit $ 1024"),
        ("sleep 0; :", "fork $ a | exec a | exit a 0 | exit $ 0"),
        ("exec sleep 0", "exec $ | exit $ 0"),
        ("sh -c 'kill -9 $$'; :", "fork $ a | exec a | exit a 9 | exit $ 0"),
        ("( (:) ; exit 2 ); :", "fork $ a | fork a b | exit b 0 | exit a 512 | exit $ 0"),
        ("setsid true; :", "fork $ a | exec a | sid a | exec a | exit a 0 | exit $ 0"),
    ] {
        let Some(life) = life_of(script) else { return };
        assert_eq!(life, expected, "{script}");
    }
}

pub(crate) fn threads_are_no_processes() {
    let Some(service) = service() else { return };
    let start = || Actor::start(Command::new("/proc/self/exe").args(["--role", "threads"]));
    let (mut actor, mut watch) = watch_tree(&service, start);
    actor.say("go");
    let texts: Vec<String> = watch.until_exit(actor.pid()).iter().map(told).collect();
    assert_eq!(texts, [format!("exit {} {}", actor.pid(), 5 << 8)]);
}

pub(crate) fn a_storm_is_told_without_loss_and_without_a_scan() {
    let Some(service) = service() else { return };
    const FORKS: usize = 2000;
    let storm = format!("i=0; while [ $i -lt {FORKS} ]; do (:); i=$((i+1)); done");
    let (mut actor, mut watch) = watch_tree(&service, || Actor::shell(&format!("({storm}) & {storm}; wait")));
    actor.say("go");
    let events = watch.until_exit(actor.pid());
    let count = |is: fn(&What) -> bool| events.iter().filter(|event| is(&event.what)).count();
    let forks = count(|what| matches!(what, What::Fork { .. }));
    let exits = count(|what| matches!(what, What::Exit { .. }));
    // The second shell is a fork, too; the first one was there.
    assert_eq!((forks, exits), (2 * FORKS + 1, 2 * FORKS + 2));
    let counters = service.counters();
    assert_eq!((counters.losses, counters.scans, counters.rejected), (0, 1, 0));
}

/// The kernel counts twice what is asked for, for its own needs (socket(7)).
pub(crate) fn the_socket_has_room_for_a_burst() {
    let connector = match Connector::open() {
        Ok(connector) => connector,
        Err(error) => return skip(&error.to_string()),
    };
    let most = std::fs::read_to_string("/proc/sys/net/core/rmem_max").unwrap();
    let room = sockopt::socket_recv_buffer_size(&connector).unwrap();
    // Without CAP_NET_ADMIN it is what everybody may have.
    let least = RECEIVE_BUFFER.min(most.trim().parse().unwrap());
    assert!(room == 2 * RECEIVE_BUFFER || room == 2 * least, "{room}");
}

pub(crate) fn an_overflow_is_a_gap_and_one_scan() {
    let Some((mut connector, mut events)) = read_up_to_now(Connector::with_buffer(16 * 1024)) else { return };
    assert_eq!(connector.counters().scans, 1);
    events.clear();
    // Nobody reads while 300 processes come and go; one stays, and one that was there is gone.
    let mut gone = Actor::shell("exit 0");
    connector.read(&mut events).unwrap();
    let mut stays = Actor::shell("i=0; while [ $i -lt 300 ]; do (:); i=$((i+1)); done; echo done; read stop");
    gone.say("go");
    stays.say("go");
    assert_eq!(stays.hear(), "done");
    gone.wait();
    // The first scan was perhaps just now: then the next has to wait.
    while !events.iter().any(|event| matches!(event.what, What::Synced { .. })) {
        connector.read(&mut events).unwrap();
    }
    let counters = connector.counters();
    assert!(counters.losses >= 1, "{counters:?}");
    assert_eq!(counters.scans, 2);
    let gap = events.iter().position(|event| event.what == What::Gap).unwrap();
    let synced = events.iter().position(|event| matches!(event.what, What::Synced { .. })).unwrap();
    assert!(gap < synced);
    let lives = |pid: u32| {
        let of = |event: &&Event| event.what.process().is_some_and(|p| number(&p) == pid);
        events.iter().rfind(of).map(|event| !matches!(event.what, What::Exit { .. }))
    };
    assert_eq!(lives(stays.pid()), Some(true));
    assert_eq!(lives(gone.pid()), Some(false));
    // Afterwards all is well again.
    stays.say("stop");
    let is_exit = |what: &What| matches!(what, What::Exit { process, .. } if number(process) == stays.pid());
    while !events.iter().any(|event| is_exit(&event.what)) {
        wait_for(&connector);
        connector.read(&mut events).unwrap();
    }
    assert_eq!(connector.counters().scans, 2);
}

pub(crate) fn a_storm_of_losses_is_no_storm_of_scans() {
    let Some((mut connector, mut events)) = read_up_to_now(Connector::with_buffer(2 * 1024)) else { return };
    const ROUNDS: u64 = 40;
    let began = Instant::now();
    let mut storm =
        Actor::shell("while read go; do i=0; while [ $i -lt 20 ]; do (:); i=$((i+1)); done; echo done; done");
    let pid = storm.pid();
    // Nobody reads during a round: each overflows the socket.
    storm.say("go");
    for _ in 0..ROUNDS {
        storm.say("go");
        assert_eq!(storm.hear(), "done");
        let patience = connector.patience();
        connector.read(&mut events).unwrap();
        assert!(patience.is_none_or(|patience| patience < Duration::from_secs(2)), "{patience:?}");
    }
    storm.finish();
    let of_it = |event: &&Event| event.what.process().is_some_and(|process| number(&process) == pid);
    while !events.iter().rfind(of_it).is_some_and(|event| matches!(event.what, What::Exit { .. })) {
        connector.read(&mut events).unwrap();
    }
    let (counters, most) = (connector.counters(), 2 + began.elapsed().as_millis() / 100);
    assert!(counters.losses >= ROUNDS, "{counters:?}");
    assert!(u128::from(counters.scans) <= most, "{counters:?}, of at most {most}");
}

/// The tracker's kill(2) of a group, for one, must not find nobody there while somebody was lost.
pub(crate) fn who_waits_for_it_has_a_loss_made_up_for_at_once() {
    let Some((connector, _)) = read_up_to_now(Connector::with_buffer(2 * 1024)) else { return };
    let mut source = Source::Connector(Box::new(connector));
    let mut storm =
        Actor::shell("while read go; do i=0; while [ $i -lt 20 ]; do (:); i=$((i+1)); done; echo done; done");
    storm.say("go");
    for _ in 0..5 {
        storm.say("go");
        assert_eq!(storm.hear(), "done");
        let mut events = Vec::new();
        while !source.catch_up(Instant::now(), &mut events).unwrap() {}
        let last = events.iter().rfind(|event| matches!(event.what, What::Gap | What::Synced { .. }));
        assert!(last.is_some_and(|event| event.what != What::Gap), "{events:?}");
    }
    assert!(source.counters().scans >= 6, "{:?}", source.counters());
}

/// Sends a netlink port what the kernel might, and answers how each datagram went.
pub(crate) fn forge(port: u32) -> [String; 3] {
    let to = SocketAddrNetlink::new(port, 0);
    let flags = SocketFlags::CLOEXEC;
    let forger = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(CONNECTOR)).unwrap();
    bind(&forger, &SocketAddrNetlink::new(0, 0)).unwrap();
    // The exit of process 1: 16 bytes of netlink's header, 20 of the connector's, 40 of the event.
    let words: [u32; 19] = [76, 3, 0, 0, 1, 1, 0, 0, 40, 0x8000_0000, 0, 1, 0, 1, 1, 0, 17, 0, 0];
    let forged: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    [forged.as_slice(), b"rubbish", &[0xff; 300]].map(|datagram| {
        let sent = sendto(&forger, datagram, SendFlags::empty(), &to);
        sent.map_or_else(|errno| errno.to_string(), |_| "sent".to_owned())
    })
}

pub(crate) fn forged_datagrams_are_rejected() {
    let Some((mut connector, mut events)) = read_up_to_now(Connector::open()) else { return };
    let before = connector.counters();
    let to = SocketAddrNetlink::try_from(getsockname(connector.as_fd()).unwrap()).unwrap();
    assert_eq!(forge(to.pid()), ["sent"; 3]);
    while connector.counters().rejected < before.rejected + 3 {
        wait_for(&connector);
        connector.read(&mut events).unwrap();
    }
    let ends_init = |what: &What| matches!(what, What::Exit { process, .. } if number(process) == 1);
    assert!(!events.iter().any(|event| ends_init(&event.what)));
    assert_eq!(connector.counters().losses, before.losses);
}

pub(crate) fn other_users_cannot_even_send_forged_ones() {
    let Some((mut connector, mut events)) = read_up_to_now(Connector::open()) else { return };
    let before = connector.counters();
    let ground = Ground::new("forger");
    let port = SocketAddrNetlink::try_from(getsockname(connector.as_fd()).unwrap()).unwrap().pid();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    let mut forger =
        Actor::start(command.arg(ground.path("program")).args(["--role", "forger", &port.to_string()]));
    // netlink_sendmsg(): to another process only with CAP_NET_ADMIN.
    let refused = "Operation not permitted (os error 1)";
    assert_eq!([forger.hear(), forger.hear(), forger.hear()], [refused; 3]);
    forger.wait();
    while !connector.read(&mut events).unwrap() {}
    assert_eq!(connector.counters().rejected, before.rejected);
}

pub(crate) fn in_a_container_it_says_that_it_does_not_serve() {
    let arguments =
        ["--pid", "--fork", "--kill-child", "--mount-proc", "/proc/self/exe", "--role", "connector"];
    let exe = std::env::current_exe().unwrap();
    let arguments = arguments.map(|a| if a == "/proc/self/exe" { exe.to_str().unwrap() } else { a });
    let mut actor = Actor::start(Command::new("unshare").args(arguments));
    assert_eq!(actor.hear(), "proc connector: no answer");
}

pub(crate) fn polling_finds_what_stays_long_enough() {
    let service = Service::start(Source::polling(Duration::from_millis(10)).unwrap()).unwrap();
    let mut watch = Watch::new(service.subscribe(own(), &Scope::All).unwrap().socket);
    watch.until_synced();
    let mut actor = Actor::shell("exit 0");
    let pid = actor.pid();
    let found = watch.until(|what| matches!(what, What::Found { process, .. } if number(process) == pid));
    assert_eq!(told(found.last().unwrap()).split(' ').nth(1), Some(own().to_string().as_str()));
    actor.say("go");
    actor.wait();
    let events = watch.until_exit(pid);
    assert!(!events.iter().any(|event| event.what == What::Gap));
}

/// Such a process was in no subtree and no group until the next scan, and then in none either.
pub(crate) fn polling_looks_at_once_for_who_is_named() {
    let hour = Duration::from_secs(3600);
    let service = Service::start(Source::polling(hour).unwrap()).unwrap();
    let mut actor = Actor::shell("exit 0");
    let pid = Pid::new(actor.pid()).unwrap();
    let mut watch = Watch::new(service.subscribe(own(), &Scope::Subtree(pid)).unwrap().socket);
    let found = |what: &What| matches!(what, What::Found { process, .. } if process.pid == Some(pid));
    assert!(found(&watch.until_synced()[0].what));
    let mut second = Actor::shell("exit 0");
    let pid = Pid::new(second.pid()).unwrap();
    let chosen = service.subscribe(own(), &Scope::Chosen(Vec::new())).unwrap();
    assert!(service.admit(chosen.id, &[pid]));
    assert_eq!(service.counters().scans, 3, "the first, and one for each");
    assert!(service.subscribe(own(), &Scope::Subtree(pid)).is_ok());
    assert_eq!(service.counters().scans, 3, "who is known is not looked for");
    for actor in [&mut actor, &mut second] {
        actor.say("go");
        actor.wait();
    }
}
