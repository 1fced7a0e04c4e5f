//! Rules, followed in a stream that has no end.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use pinfold_events::{Event, Stream, Time, What, wire};
use pinfold_realm::rules::{Classifier, Ended, Names, Rulebook, Rules};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};

use crate::support::fixture;

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
