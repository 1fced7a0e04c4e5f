//! Subscribers that do not behave.

use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use pinfold_events::connector::Counters;
use pinfold_events::hub::REMEMBERED;
use pinfold_events::{
    Comm, Event, MOST_OF_ONE, Pid, Process, Reader, Scope, Service, Source, Started, SubscribeError, Time,
    What,
};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use crate::nested::only_child;
use crate::watch::{Actor, Watch, own, service, source_that_may_fail, told};

pub(crate) fn who_never_reads_slows_nobody_and_gets_a_gap() {
    let Some(service) = service() else { return };
    // Twice as much as the socket and the queue hold.
    const FORKS: usize = 15_000;
    let storm = format!("i=0; while [ $i -lt {FORKS} ]; do (:); i=$((i+1)); done");
    let mut actor = Actor::shell(&storm);
    let scope = Scope::Subtree(Pid::new(actor.pid()).unwrap());
    let lazy = service.subscribe(own(), &scope).unwrap();
    let mut watch = Watch::new(service.subscribe(own(), &scope).unwrap().socket);
    actor.say("go");
    let forks = |events: &[pinfold_events::Event]| {
        events.iter().filter(|event| matches!(event.what, What::Fork { .. })).count()
    };
    assert_eq!(forks(&watch.until_exit(actor.pid())), FORKS);
    // Now it reads: a part, a gap, the difference.
    let mut lazy = Watch::new(lazy.socket);
    lazy.until_synced();
    let told = lazy.until(|what| *what == What::Gap);
    assert!(forks(&told) > 100 && forks(&told) < FORKS);
    let difference = lazy.until_synced();
    let last = difference.last().unwrap().what;
    let What::Synced { found: 0, gone, changed: 0 } = last else { panic!("{difference:?}") };
    assert_eq!(gone as usize, difference.len() - 1);
    assert_eq!(service.counters().scans, 1, "a slow reader is no reason to read /proc");
}

/// What it was told of has to be remembered while it does not read: the stream of one that is counted ends, root's does not.
pub(crate) fn who_never_reads_is_remembered_so_much_of_and_no_more() {
    let (service, feeder) = Service::start_fed(|| ()).unwrap();
    let of = |account| {
        let reader = Reader { process: own(), account };
        Watch::new(service.subscribe(reader, &Scope::All).unwrap().socket)
    };
    let feed = |what: Vec<What>| {
        let events: Vec<_> = what.into_iter().map(|what| Event { time: Time(1), what }).collect();
        assert!(feeder.feed(&events, Counters::default()));
    };
    // Numbers that nobody has.
    let process =
        |number: u32| Process { pid: Pid::new(5_000_000 + number), started: Started(u64::from(number) + 1) };
    let fork = |number: u32| What::Fork {
        process: process(number),
        parent: None,
        comm: Comm::new(b"x"),
        uid: None,
        gid: None,
    };
    let exit = |number: u32| What::Exit { process: process(number), comm: Comm::new(b"x"), status: None };
    let there = REMEMBERED as u32 + 1;
    feed((0..there).map(fork).collect());
    feed(vec![What::Synced { found: 0, gone: 0, changed: 0 }]);
    let [mut counted, mut root, mut quick] = [Some(7), None, Some(8)].map(of);
    for watch in [&mut counted, &mut root, &mut quick] {
        assert_eq!(watch.until_synced().len(), there as usize + 1);
    }
    // More than the queue and the socket hold.
    const BORN: u32 = 20_000;
    for some in (there..there + BORN).collect::<Vec<_>>().chunks(50) {
        feed(some.iter().flat_map(|number| [fork(*number), exit(*number)]).collect());
        let last = exit(*some.last().unwrap());
        quick.until(|what| *what == last);
    }
    assert_eq!(service.subscribers(), 2, "one was given up");
    let told = std::iter::from_fn(|| counted.next()).count();
    assert!(told > 0 && told < BORN as usize, "{told}");
    root.until(|what| *what == What::Gap);
    let synced = root.until_synced().pop().unwrap().what;
    assert!(matches!(synced, What::Synced { found: 0, gone: 0 | 1, changed: 0 }), "{synced:?}");
}

pub(crate) fn a_source_that_fails_ends_all_streams() {
    let (source, other_end) = source_that_may_fail();
    let service = Service::start(source).unwrap();
    let mut all = [(); 2].map(|()| Watch::new(service.subscribe(own(), &Scope::All).unwrap().socket));
    all.iter_mut().for_each(|watch| drop(watch.until_synced()));
    drop(other_end);
    for watch in &mut all {
        while watch.next().is_some() {}
    }
    let failure = service.failure();
    assert!(failure.as_ref().is_some_and(|failure| failure.contains("recvmmsg")), "{failure:?}");
    assert!(matches!(service.subscribe(own(), &Scope::All), Err(SubscribeError::Over)));
}

pub(crate) fn rubbish_from_a_subscriber_is_refused() {
    let Some(service) = service() else { return };
    let subscription = service.subscribe(own(), &Scope::All).unwrap();
    let refused = send(&subscription.socket, b"rubbish", SendFlags::NOSIGNAL);
    assert_eq!(refused, Err(Errno::PIPE));
    Watch::new(subscription.socket).until_synced();
}

pub(crate) fn who_hangs_up_is_forgotten() {
    let Some(service) = service() else { return };
    let subscriptions: Vec<_> = (0..5).map(|_| service.subscribe(own(), &Scope::All).unwrap()).collect();
    assert_eq!(service.subscribers(), 5);
    drop(subscriptions);
    let patience = Instant::now() + Duration::from_secs(30);
    while service.subscribers() > 0 {
        assert!(Instant::now() < patience, "{} are still there", service.subscribers());
        std::thread::yield_now();
    }
}

/// So an idle daemon has nothing that wakes up: the thread is gone, and with it the connector's socket.
pub(crate) fn the_service_ends_with_its_last_subscriber() {
    if service().is_none() {
        return;
    }
    let service = Service::start_while_wanted(Source::connector().unwrap()).unwrap();
    let first = service.subscribe(own(), &Scope::All).unwrap();
    let second = service.subscribe(own(), &Scope::All).unwrap();
    drop(first);
    let mut watch = Watch::new(second.socket);
    watch.until_synced();
    assert!(!service.is_over());
    drop(watch);
    ends(&service);
    let refused = service.subscribe(own(), &Scope::All).unwrap_err();
    assert!(matches!(refused, SubscribeError::Over), "{refused}");
    assert!(!service.compare(second.id, |_| ()));
}

/// While nobody is subscribed, nothing runs: also where the first is refused.
pub(crate) fn the_service_ends_with_a_first_subscriber_that_is_refused() {
    let hour = Duration::from_secs(3600);
    let service = Service::start_while_wanted(Source::polling(hour).unwrap()).unwrap();
    let nobody = Pid::new(u32::MAX >> 1).unwrap();
    let refused = service.subscribe(nobody, &Scope::All).unwrap_err();
    assert!(matches!(refused, SubscribeError::Namespace(_)), "{refused}");
    ends(&service);
    let refused = service.subscribe(own(), &Scope::All).unwrap_err();
    assert!(matches!(refused, SubscribeError::Over), "{refused}");

    let service = Service::start_while_wanted(Source::polling(hour).unwrap()).unwrap();
    let first = service.subscribe(own(), &Scope::All).unwrap();
    service.subscribe(nobody, &Scope::All).unwrap_err();
    assert!(!service.is_over() && service.has(first.id));
}

fn ends(service: &Service) {
    let patience = Instant::now() + Duration::from_secs(30);
    while !service.is_over() {
        assert!(Instant::now() < patience, "{} are still there", service.subscribers());
        std::thread::yield_now();
    }
}

/// Any user could have all of /proc read, and everybody asked about, as often as he likes.
pub(crate) fn who_subscribes_again_and_again_has_proc_read_once() {
    if service().is_none() {
        return;
    }
    let service = Service::start_while_wanted(Source::connector().unwrap()).unwrap();
    for _ in 0..20 {
        let arguments = ["--pid", "--fork", "--kill-child", "sh", "-c", "echo here; read stop"];
        let mut container = Actor::start(Command::new("unshare").args(arguments));
        assert_eq!(container.hear(), "here");
        let init = Pid::new(only_child(container.pid())).unwrap();
        let inside = service.subscribe(init, &Scope::Subtree(init)).unwrap();
        let mut watch = Watch::new(inside.socket);
        let found: Vec<String> = watch.until_synced().iter().map(told).collect();
        // That it has executed a program may be told afterwards.
        assert!(
            matches!(&found[..], [first, last] if first.starts_with("found 0 1 ") && last == "synced"),
            "{found:?}"
        );
        drop(watch);
        while service.has(inside.id) {
            std::thread::yield_now();
        }
    }
    let counters = service.counters();
    assert!(counters.scans <= 1 + counters.losses, "{counters:?}");
    ends(&service);
}

/// Whoever reads a source already has others told of it, too.
pub(crate) fn a_service_is_fed_by_whoever_reads_the_source() {
    let hour = Duration::from_secs(3600);
    let mut source = Source::polling(hour).unwrap();
    source.read(&mut Vec::new()).unwrap();
    let (ask, asked) = mpsc::channel();
    let (service, feeder) = Service::start_fed(move || ask.send(()).unwrap()).unwrap();
    let mut all = Vec::new();
    source.list(&mut all);
    assert!(feeder.feed(&all, source.counters()));
    let mut watch = Watch::new(service.subscribe(own(), &Scope::All).unwrap().socket);
    let is_own = |what: &What| what.process().is_some_and(|process| process.pid == Some(own()));
    assert!(watch.until_synced().iter().any(|event| is_own(&event.what)));
    assert!(asked.try_recv().is_err(), "everybody who was named is known");
    let mut actor = Actor::shell("exit 0");
    let pid = Pid::new(actor.pid()).unwrap();
    let mut narrow = Watch::new(service.subscribe(own(), &Scope::Subtree(pid)).unwrap().socket);
    asked.recv().unwrap();
    let mut events = Vec::new();
    source.catch_up(Instant::now(), &mut events).unwrap();
    assert!(feeder.feed(&events, source.counters()));
    narrow.until(|what| matches!(what, What::Found { process, .. } if process.pid == Some(pid)));
    assert_eq!(service.counters().scans, 2, "it has none of its own");
    actor.say("go");
    actor.wait();
    feeder.fail("nothing is told any more");
    while watch.next().is_some() {}
    assert_eq!(service.failure().as_deref(), Some("nothing is told any more"));
}

/// Whoever waits for the thread, or for events, is told.
pub(crate) fn a_service_whose_thread_panics_ends_all_streams() {
    let (service, feeder) = Service::start_fed(|| panic!("this is what the test is about")).unwrap();
    let mut watch = Watch::new(service.subscribe(own(), &Scope::All).unwrap().socket);
    // Nobody has told of it: the thread is asked.
    let refused = service.subscribe(own(), &Scope::Subtree(own())).unwrap_err();
    assert!(matches!(refused, SubscribeError::Over), "{refused}");
    while watch.next().is_some() {}
    assert!(service.failure().is_some_and(|failure| failure.contains("panicked")));
    assert!(!feeder.is_wanted());
}

pub(crate) fn a_user_has_only_so_many_subscriptions() {
    let Some(service) = service() else { return };
    let of = |account| Reader { process: own(), account };
    let choose = |account| service.subscribe(of(account), &Scope::Chosen(Vec::new()));
    let subscribe = |account| choose(Some(account));
    let all: Vec<_> = (0..MOST_OF_ONE).map(|_| subscribe(7).unwrap()).collect();
    let refused = subscribe(7).unwrap_err();
    assert!(matches!(refused, SubscribeError::TooMany { .. }), "{refused}");
    subscribe(8).unwrap();
    // A container has users at will.
    let others: Vec<_> = (9..).map_while(|user| subscribe(user).ok()).take(1000).collect();
    assert!(others.len() < 1000, "there is no end");
    assert!(matches!(subscribe(8).unwrap_err(), SubscribeError::Full { .. }));
    choose(None).unwrap();
    drop((all, others));
    let patience = Instant::now() + Duration::from_secs(30);
    while subscribe(7).is_err() {
        assert!(Instant::now() < patience, "those that hung up still count");
        std::thread::yield_now();
    }
}
