//! `Source::outer` when the outer pinfold is none, or mad: whatever its socket says, that is a gap, and ends with a better one.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::slice;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use pinfold_events::{Comm, Event, Pid, Process, Source, Started, Time, What, wire};
use proptest::prelude::*;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};

/// What one subscription says, packet by packet, before it ends.
type Packets = Vec<Vec<u8>>;

/// A source whose subscriptions say this, one after the other; then nobody is there.
fn source(subscriptions: Vec<Packets>) -> Source {
    let mut subscriptions = VecDeque::from(subscriptions);
    let subscribe = move || -> io::Result<OwnedFd> {
        subscribed(&subscriptions.pop_front().ok_or(io::ErrorKind::ConnectionRefused)?)
    };
    Source::outer(subscribe).unwrap()
}

/// A subscription that says this and ends.
fn subscribed(packets: &Packets) -> io::Result<OwnedFd> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    for packet in packets {
        send(&ours, packet, SendFlags::empty())?;
    }
    Ok(theirs)
}

/// Reads until a process of this name was told of.
fn read(mut source: Source, last: &str) -> Vec<Event> {
    let mut events = Vec::new();
    let is_last =
        |event: &Event| matches!(event.what, What::Found { comm, .. } if comm == Comm::new(last.as_bytes()));
    while !events.iter().any(is_last) {
        let patience = source.patience().unwrap_or(Duration::from_secs(10));
        let patience = Timespec::try_from(patience).unwrap();
        let mut wait: Vec<PollFd<'_>> =
            source.descriptor().iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
        poll(&mut wait, Some(&patience)).unwrap();
        source.read(&mut events).unwrap();
    }
    events
}

/// A packet with the list of these processes, as number and name.
fn list(processes: &[(u32, &str)]) -> Vec<u8> {
    let mut packet = Vec::new();
    let found = |(pid, name): &(u32, &str)| What::Found {
        process: Process { pid: Pid::new(*pid), started: Started::at_tick(u64::from(*pid)) },
        parent: None,
        comm: Comm::new(name.as_bytes()),
        uid: None,
        gid: None,
    };
    let all = What::Synced { found: processes.len() as u32, gone: 0, changed: 0 };
    for what in processes.iter().map(found).chain([all]) {
        wire::write(&Event { time: Time(1), what }, &mut packet);
    }
    packet
}

fn greeted(rest: &[Vec<u8>]) -> Packets {
    [vec![wire::hello()], rest.to_vec()].concat()
}

/// Whom the events leave alive, each told of first and last once.
fn alive(events: &[Event]) -> BTreeMap<u32, String> {
    let mut alive = BTreeMap::new();
    for event in events {
        let Some(number) = event.what.process().and_then(|process| process.pid) else { continue };
        match event.what {
            What::Found { comm, .. } | What::Fork { comm, .. } => {
                assert!(alive.insert(number.get(), comm.to_string()).is_none(), "{event:?}");
            }
            What::Exit { .. } => assert!(alive.remove(&number.get()).is_some(), "{event:?}"),
            What::Exec { comm, .. } | What::Comm { comm, .. } => {
                assert!(alive.insert(number.get(), comm.to_string()).is_some(), "{event:?}");
            }
            _ => {}
        }
    }
    alive
}

#[test]
fn an_outer_daemon_that_somebody_else_asks_is_asked_later() {
    let mut answers = VecDeque::from([
        Err(io::ErrorKind::WouldBlock.into()),
        subscribed(&greeted(&[list(&[(1, "init")])])),
    ]);
    let source = Source::outer(move || answers.pop_front().ok_or(io::ErrorKind::ConnectionRefused)?).unwrap();
    assert!(!source.is_there());
    assert_eq!(alive(&read(source, "init")).len(), 1);
}

#[test]
fn rubbish_from_outside_is_a_gap_until_somebody_sane_answers() {
    let whole = list(&[(1, "init"), (2, "a")]);
    let cut = whole[..whole.len() - 1].to_vec();
    for (name, rubbish) in [
        ("another protocol", vec![b"HTTP/1.1 400 Bad Request\r\n".to_vec()]),
        ("no words at all", vec![]),
        ("a greeting and no more", greeted(&[])),
        ("a list that is cut short", greeted(&[cut])),
        ("an event of no known form", greeted(&[whole.clone(), vec![0xff; 4096]])),
        ("an empty packet", greeted(&[whole.clone(), vec![]])),
        ("another greeting", greeted(&[whole.clone(), wire::hello()])),
    ] {
        let after = greeted(&[list(&[(1, "init"), (3, "b")])]);
        let events = read(source(vec![greeted(slice::from_ref(&whole)), rubbish, after]), "b");
        let gaps = events.iter().filter(|event| event.what == What::Gap).count();
        assert!(gaps >= 1, "{name}: {events:?}");
        let expected = BTreeMap::from([(1, "init".to_owned()), (3, "b".to_owned())]);
        assert_eq!(alive(&events), expected, "{name}");
    }
}

/// Its first subscriber waited for ever, and with it everybody who wanted to subscribe.
#[test]
fn a_daemon_that_does_not_answer_at_first_is_there_when_it_does() {
    let (answer, answered) = mpsc::channel::<()>();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let source = Source::outer(move || {
            answered.recv().map_err(io::Error::other)?;
            subscribed(&greeted(&[list(&[(1, "init"), (2, "a")])]))
        });
        tell.send(source.unwrap()).unwrap();
    });
    let mut source = told.recv_timeout(Duration::from_secs(10)).expect("it waits for the answer");
    let mut events = Vec::new();
    assert!(source.read(&mut events).unwrap() && !source.is_there());
    assert_eq!(events, [], "nothing is known, and nobody is told that this is all");
    answer.send(()).unwrap();
    assert_eq!(alive(&read(source, "a")).len(), 2);
}

#[test]
fn nobody_who_reads_waits_for_a_daemon_that_does_not_answer() {
    let (entered, is_asked) = mpsc::channel();
    let (answer, answered) = mpsc::channel::<()>();
    let mut subscriptions = VecDeque::from([
        greeted(&[list(&[(1, "init"), (2, "a")])]),
        greeted(&[list(&[(1, "init"), (3, "b")])]),
    ]);
    let mut is_first = true;
    let mut source = Source::outer(move || {
        if !std::mem::take(&mut is_first) {
            entered.send(()).unwrap();
            answered.recv().map_err(io::Error::other)?;
        }
        subscribed(&subscriptions.pop_front().unwrap())
    })
    .unwrap();
    let (tell, told) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut events = Vec::new();
        while is_asked.try_recv().is_err() {
            source.catch_up(Instant::now(), &mut events).unwrap();
        }
        source.catch_up(Instant::now(), &mut events).unwrap();
        tell.send(events.len()).unwrap();
        read(source, "b")
    });
    let before = told.recv_timeout(Duration::from_secs(10)).expect("it waits for the answer");
    assert_eq!(before, 4, "two processes, that these are all, and a gap");
    answer.send(()).unwrap();
    let events = reader.join().unwrap();
    let synced = What::Synced { found: 1, gone: 1, changed: 0 };
    assert!(events.iter().any(|event| event.what == synced), "{events:?}");
}

proptest! {
    // Each has to wait until it is subscribed again.
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a packet consists of: nothing breaks, and the next list settles it.
    #[test]
    fn any_packet_is_survived(
        rubbish in prop::collection::vec(any::<u8>(), 1..200),
        (at, value) in (any::<prop::sample::Index>(), any::<u8>()),
    ) {
        let mut damaged = list(&[(1, "init"), (2, "a"), (3, "b")]);
        *at.get_mut(&mut damaged) = value;
        for packet in [rubbish, damaged] {
            let sane = greeted(&[list(&[(1, "init"), (9, "last")])]);
            let events = read(source(vec![greeted(&[packet]), sane]), "last");
            let last = events.iter().rfind(|event| event.what != What::Gap).unwrap();
            prop_assert!(matches!(last.what, What::Synced { .. }), "{events:?}");
        }
    }
}
