//! Rules, followed in a stream that has no end.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use pinfold_events::{Comm, Event, Ids, Pid, Process, Started, Stream, Time, What, wire};
use pinfold_model::HierarchyId;
use pinfold_realm::rules::{Classifier, Ended, Names, Rulebook, Rules};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};

use crate::support::{Fixture, eventually, fixture};

/// SIGHUP and the end of the daemon had to wait until nothing happened for a moment.
#[test]
fn a_storm_of_events_keeps_no_order_waiting() {
    let Some(fixture) = fixture() else { return };
    let book = Arc::new(Rulebook::new().unwrap());
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let mut packet = Vec::new();
    while packet.len() < wire::MOST_BYTES - 100 {
        wire::write(&Event { time: Time(1), what: What::Gap }, &mut packet);
    }
    let (say_full, is_full) = mpsc::channel();
    let storm = std::thread::spawn(move || {
        send(&ours, &wire::hello(), SendFlags::NOSIGNAL).unwrap();
        let _ = say_full.send(());
        // It reads more slowly than this is written: it is never without.
        while send(&ours, &packet, SendFlags::NOSIGNAL).is_ok() {
            let _ = say_full.send(());
        }
    });
    let (realm, told) = (Arc::clone(fixture.realm()), Arc::clone(&book));
    let (say, heard) = mpsc::channel();
    let following = std::thread::spawn(move || {
        let mut classifier = Classifier::new(realm, Rules::default());
        say.send(classifier.follow(Stream::new(theirs), &told).unwrap()).unwrap();
    });
    for _ in 0..20 {
        is_full.recv().unwrap();
    }
    book.replace(Rules::parse("", Names::default()).unwrap());
    book.stop();
    let ended = heard.recv_timeout(Duration::from_secs(10)).expect("it is told to end");
    assert_eq!(ended, Ended::Stopped);
    following.join().unwrap();
    storm.join().unwrap();
}

/// Where there were no events, the end of the daemon had to wait for the next attempt at having some.
#[test]
fn who_waits_for_events_hears_that_it_is_to_end() {
    let book = Arc::new(Rulebook::new().unwrap());
    assert!(!book.is_stopped_within(Duration::ZERO));
    // Other rules are no end.
    book.replace(Rules::default());
    assert!(!book.is_stopped_within(Duration::ZERO));
    let told = Arc::clone(&book);
    let (say, heard) = mpsc::channel();
    let waiting = std::thread::spawn(move || {
        say.send(()).unwrap();
        told.is_stopped_within(Duration::from_secs(3600))
    });
    heard.recv().unwrap();
    book.stop();
    assert!(waiting.join().unwrap());
    assert!(book.is_stopped_within(Duration::ZERO));
}

/// The number of a process's mount namespace.
fn mounts(pid: u32) -> u64 {
    fs::metadata(format!("/proc/{pid}/ns/mnt")).expect("it lives").ino()
}

/// The first process of a new mount namespace, in a group of the realm's: others are not moved.
fn first_of_namespace(fixture: &mut Fixture, hierarchy: HierarchyId) -> u32 {
    let pid = fixture.start("exec unshare --mount sleep 600");
    eventually("it is in a namespace of its own", || mounts(pid) != mounts(std::process::id()));
    fixture
        .write(fixture.group(hierarchy, "/start"), "cgroup.procs", &pid.to_string())
        .expect("it can be moved");
    pid
}

fn found(pid: u32, parent: Option<Process>) -> (Process, What) {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    let field = stat.rsplit_once(") ").and_then(|(_, fields)| fields.split(' ').nth(19));
    let ticks = field.and_then(|ticks| ticks.parse().ok()).expect("field 22 is a number");
    // No two start at the same time.
    let started = Started(Started::at_tick(ticks).0 + u64::from(pid));
    let process = Process { pid: Pid::new(pid), started };
    let ids = Some(Ids { real: 0, effective: 0 });
    (process, What::Found { process, parent, comm: Comm::new(b"sleep"), uid: ids, gid: ids })
}

/// The kernel gives the number of the last namespace to the next one, whose group was that of the last until its exit was read.
#[test]
fn a_namespace_with_the_number_of_one_that_is_gone_is_another() {
    let Some(mut fixture) = fixture() else { return };
    let hierarchy = fixture.mount("none,name=x");
    let book = Arc::new(Rulebook::new().unwrap());
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let (realm, told) = (Arc::clone(fixture.realm()), Arc::clone(&book));
    let following = std::thread::spawn(move || {
        let rules = "[[rule]]\nnew_namespace = 'mount'\ngroup = '/ns/%P'\n";
        let mut classifier = Classifier::new(realm, Rules::parse(rules, Names::default()).unwrap());
        classifier.follow(Stream::new(theirs), &told).unwrap()
    });
    let tell = |what| {
        let mut packet = Vec::new();
        wire::write(&Event { time: Time(1), what }, &mut packet);
        send(&ours, &packet, SendFlags::NOSIGNAL).unwrap();
    };
    send(&ours, &wire::hello(), SendFlags::NOSIGNAL).unwrap();
    let (own, what) = found(std::process::id(), None);
    tell(what);
    let is_in_its_own = |fixture: &Fixture, pid: u32| {
        let group = fixture.realm().resolve(hierarchy, OsStr::new(&format!("/ns/{pid}")));
        group.is_ok_and(|group| fixture.read(group, "cgroup.procs").trim() == pid.to_string())
    };
    let first = first_of_namespace(&mut fixture, hierarchy);
    let number = mounts(first);
    tell(found(first, Some(own)).1);
    eventually("the first is in a group of its own", || is_in_its_own(&fixture, first));
    // Its exit is not told yet.
    fixture.end(first);
    let mut next = first_of_namespace(&mut fixture, hierarchy);
    for _ in 0..20 {
        if mounts(next) != number {
            next = first_of_namespace(&mut fixture, hierarchy);
        }
    }
    tell(found(next, Some(own)).1);
    eventually("the next one is, too", || is_in_its_own(&fixture, next));
    book.stop();
    following.join().unwrap();
}
