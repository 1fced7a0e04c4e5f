//! Of the thread that follows processes.

use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;

use pinfold_events::connector::Connector;
use pinfold_events::{Next, Pid, Process, Scope, Service, Started, Stream, Time, What};
use pinfold_kernel::Place;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};

use super::super::accounts::Usage;
use super::super::table::{Kept, Life, Listing};
use super::*;

/// A state directory of its own.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let state = std::env::temp_dir().join(format!("pinfold-follow-{}-{name}", std::process::id()));
        std::fs::create_dir_all(state.join("tmp")).unwrap();
        Self(state)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const SYNCED: What = What::Synced { found: 0, gone: 0, changed: 0 };

fn tell(ours: &OwnedFd, what: What) {
    let mut packet = Vec::new();
    pinfold_events::wire::write(&Event { time: pinfold_events::proc::now(), what }, &mut packet);
    send(ours, &packet, SendFlags::empty()).unwrap();
}

/// A subscription to an outer daemon that has told that there is nobody, and the daemon's end of it.
fn outer_line() -> (OwnedFd, OwnedFd) {
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    send(&ours, &pinfold_events::wire::hello(), SendFlags::empty()).unwrap();
    tell(&ours, SYNCED);
    (theirs, ours)
}

/// An outer daemon that has told that there is nobody, and its end.
fn outer() -> (Source, OwnedFd) {
    let (theirs, ours) = outer_line();
    let mut theirs = Some(theirs);
    let subscribe = move || theirs.take().ok_or_else(|| io::ErrorKind::ConnectionRefused.into());
    (Source::outer(subscribe).unwrap(), ours)
}

/// A reader of what is followed, who never asks for more than what he is told.
fn reader(following: &Following) -> (Service, Stream) {
    let (service, feeder) = Service::start_fed(|| ()).unwrap();
    following.feed(feeder);
    let own = Pid::new(std::process::id()).unwrap();
    let stream = Stream::new(service.subscribe(own, &Scope::All).unwrap().socket);
    (service, stream)
}

/// Reads on up to that event.
fn hears(stream: &mut Stream, is_it: impl Fn(&What) -> bool) {
    eventually(|| match stream.try_next().unwrap() {
        Next::Event(event) => is_it(&event.what),
        Next::Nothing => false,
        Next::End => panic!("the stream ends"),
    });
}

/// Waits until that is so, and fails if it is not for long.
fn eventually(mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "never");
        std::thread::yield_now();
    }
}

#[test]
fn what_somebody_took_in_who_asked_is_written_down_by_the_thread() {
    let state = Directory::new("ring");
    let (source, _outer) = outer();
    let following = Following::open(source, &state.0).unwrap();
    let dir = Dir::parse(b"cell.1").unwrap();
    following.shared.lock().table.add_dir(dir, Files::default());
    drop(following.now());
    let record = || std::fs::read_to_string(state.0.join(super::super::LEDGER)).unwrap();
    eventually(|| record().contains("dir=cell.1 "));
}

#[test]
fn an_outer_daemon_that_is_away_is_told_of() {
    let state = Directory::new("away");
    let (source, outer) = outer();
    let following = Following::open(source, &state.0).unwrap();
    assert_eq!(following.report().source, "outer pinfold");
    drop(outer);
    eventually(|| following.report().source == "outer pinfold, away" && following.report().gaps == 1);
}

#[test]
fn while_no_group_has_a_member_an_outer_daemon_that_comes_back_ends_the_gap() {
    let state = Directory::new("back");
    let [(first, gone), (second, _back)] = [outer_line(), outer_line()];
    let mut theirs = vec![second, first];
    let subscribe = move || theirs.pop().ok_or_else(|| io::ErrorKind::ConnectionRefused.into());
    let following = Following::open(Source::outer(subscribe).unwrap(), &state.0).unwrap();
    let (_service, mut stream) = reader(&following);
    hears(&mut stream, |what| matches!(what, What::Synced { .. }));
    drop(gone);
    hears(&mut stream, |what| matches!(what, What::Gap));
    hears(&mut stream, |what| matches!(what, What::Synced { .. }));
    assert_eq!(following.report().source, "outer pinfold");
}

#[test]
fn while_no_group_has_a_member_proc_is_read_for_who_listens_and_for_nobody_else() {
    let state = Directory::new("polled");
    let following = Following::open(Source::polling(POLLING).unwrap(), &state.0).unwrap();
    assert_eq!(following.shared.lock().patience(), None);
    let (_service, mut stream) = reader(&following);
    hears(&mut stream, |what| matches!(what, What::Synced { .. }));
    let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let born = Pid::new(child.id());
    hears(&mut stream, |what| what.process().is_some_and(|process| process.pid == born));
    child.kill().unwrap();
    child.wait().unwrap();
    drop(stream);
    eventually(|| following.shared.lock().feeders.is_empty());
    assert_eq!(following.shared.lock().patience(), None);
}

/// A shell that bears a child for each line that it reads; all of them end with its input.
fn mother() -> (std::process::Child, std::process::ChildStdin) {
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "pids=; while read go; do sleep 600 & pids=\"$pids $!\"; done; kill $pids; wait"]);
    let mut shell = shell.stdin(Stdio::piped()).spawn().unwrap();
    let input = shell.stdin.take().unwrap();
    (shell, input)
}

/// Has it bear one more.
fn bears(shell: &std::process::Child, input: &mut std::process::ChildStdin, children: usize) {
    writeln!(input, "go").unwrap();
    let path = format!("/proc/{0}/task/{0}/children", shell.id());
    eventually(|| std::fs::read_to_string(&path).unwrap().split_ascii_whitespace().count() == children);
}

/// The kernel's socket, say: /proc is read from then on, and nobody is lost, whether the source had told of him or not.
#[test]
fn a_source_that_fails_is_replaced_and_groups_keep_their_members() {
    let state = Directory::new("fails");
    let (mut shell, mut input) = mother();
    // Known to be outside: it was born before its parent came into the group.
    bears(&shell, &mut input, 1);
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    // Closed with something unread, it is an error of the other end (ECONNRESET).
    send(&ours, b"unread", SendFlags::empty()).unwrap();
    let source = Source::Connector(Box::new(Connector::reading(ours).unwrap()));
    let following = Following::open(source, &state.0).unwrap();
    let leaf = Dir::parse(b"cell.1").unwrap();
    following.shared.lock().table.add_dir(leaf.clone(), Files::default());
    let process = HostPid::new(shell.id()).unwrap();
    following.carry_out(&[Step::Move { process, to: Place::Dir(leaf.clone()) }]).unwrap();
    let (service, mut stream) = reader(&following);
    hears(&mut stream, |what| matches!(what, What::Synced { .. }));
    // Nobody tells of it.
    bears(&shell, &mut input, 2);
    assert_eq!(following.processes(&leaf).unwrap(), [process]);
    drop(theirs);
    eventually(|| matches!(stream.try_next().unwrap(), Next::End));
    assert!(service.failure().is_some_and(|failure| failure.contains("recvmmsg")));
    assert_eq!(following.processes(&leaf).unwrap().len(), 2);
    let report = following.report();
    assert!(report.source.starts_with("/proc, polled; proc connector: recvmmsg"), "{}", report.source);
    assert_eq!((report.gaps, report.processes), (1, 2));
    // Whoever subscribes again is told from the new source, and who is born is in the group.
    let (_service, mut stream) = reader(&following);
    hears(&mut stream, |what| matches!(what, What::Synced { .. }));
    bears(&shell, &mut input, 3);
    let by_it = |parent: &Process| parent.pid == Pid::new(shell.id());
    hears(&mut stream, |what| matches!(what, What::Found { parent: Some(parent), .. } if by_it(parent)));
    assert_eq!(following.processes(&leaf).unwrap().len(), 3);
    drop(input);
    shell.wait().unwrap();
    eventually(|| following.processes(&leaf).unwrap().is_empty());
}

/// It fails again, and before: members that a daemon before this one wrote down have not all been seen by then.
#[test]
fn members_that_were_written_down_outlast_a_source_that_fails_before_it_has_told_of_all() {
    let leaf = Dir::parse(b"cell.1").unwrap();
    let (process, cell) = (HostPid::new(std::process::id()).unwrap(), leaf.leaf().unwrap());
    let started = Started::at_tick(Vitals::of(process).unwrap().started);
    let kept = Kept { cell, life: Life::new(started, None, Usage::default()) };
    let kept = HashMap::from([(process, kept)]);
    let dirs = BTreeMap::from([(Dir::REALM, Files::default()), (leaf.clone(), Files::default())]);
    let mut table = Table::recovered(dirs, Listing::after(kept, Time(0)));
    let time = pinfold_events::proc::now();
    let found = Event {
        time,
        what: What::Found {
            process: Process { pid: Pid::new(process.get()), started },
            parent: None,
            comm: Default::default(),
            uid: None,
            gid: None,
        },
    };
    for is_seen in [false, true, true] {
        table.list_again(&[]);
        if is_seen {
            table.take(&found);
        }
    }
    table.take(&Event { time, what: SYNCED });
    assert_eq!(table.below(&leaf), [process]);
    assert_eq!(table.dirs[&leaf].processes, 1);
}

/// An outer daemon is behind, or hangs: a record that says that all was known by now would leave those out for good.
#[test]
fn who_was_born_and_not_told_of_before_a_kill_is_in_the_group_afterwards() {
    let state = Directory::new("until");
    let (mut shell, mut input) = mother();
    let (source, _outer) = outer();
    let following = Following::open(source, &state.0).unwrap();
    let leaf = Dir::parse(b"cell.1").unwrap();
    following.shared.lock().table.add_dir(leaf.clone(), Files::default());
    let process = HostPid::new(shell.id()).unwrap();
    following.carry_out(&[Step::Move { process, to: Place::Dir(leaf.clone()) }]).unwrap();
    bears(&shell, &mut input, 1);
    assert_eq!(following.processes(&leaf).unwrap(), [process]);
    // What is written later than in the tick of its birth.
    let (now, tick) = (|| pinfold_events::proc::now().0, 10_000_000);
    let born = now();
    eventually(|| now() > born + tick);
    following.shared.lock().write();
    let record = std::fs::read(state.0.join(super::super::LEDGER)).unwrap();
    drop(following);
    std::fs::write(state.0.join(super::super::LEDGER), record).unwrap();
    let following = Following::open(Source::polling(POLLING).unwrap(), &state.0).unwrap();
    assert_eq!(following.processes(&leaf).unwrap().len(), 2);
    drop(input);
    shell.wait().unwrap();
}

#[test]
fn a_kill_does_not_end_in_a_gap() {
    let state = Directory::new("gap");
    let (source, outer) = outer();
    let following = Following::open(source, &state.0).unwrap();
    let dir = Dir::parse(b"cell.1").unwrap();
    following.shared.lock().table.add_dir(dir.clone(), Files::default());
    tell(&outer, What::Gap);
    std::thread::scope(|scope| {
        let killing = scope.spawn(|| following.kill(&dir));
        eventually(|| following.shared.lock().awaiting > 0);
        tell(&outer, SYNCED);
        killing.join().unwrap().unwrap();
    });
    tell(&outer, What::Gap);
    let refused = following.kill(&dir).unwrap_err();
    assert!(matches!(refused, ReadError::System { errno: Errno::AGAIN, .. }), "{refused}");
}

#[test]
fn nobody_waits_to_be_told_of_a_process_that_has_ended() {
    let state = Directory::new("ended");
    let (source, _outer) = outer();
    let following = Following::open(source, &state.0).unwrap();
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let process = HostPid::new(child.id()).unwrap();
    eventually(|| Vitals::of(process).unwrap().state == State::Dead);
    let asked = Instant::now();
    assert_eq!(following.membership(process).unwrap(), Membership::Outside("/".into()));
    assert!(asked.elapsed() < TELLING);
    child.wait().unwrap();
}

#[test]
fn one_look_at_proc_serves_all_who_wait_for_it() {
    let state = Directory::new("scans");
    let following = Following::open(Source::polling(PATIENCE).unwrap(), &state.0).unwrap();
    let asked = Instant::now();
    drop(following.now());
    let scans = following.report().scans;
    following.shared.lock().take_in(Some(asked));
    assert_eq!(following.report().scans, scans, "it was read since");
    following.shared.lock().take_in(Some(Instant::now()));
    assert_eq!(following.report().scans, scans + 1);
}

/// Looks at processes with very many threads took all the time of a CPU.
#[test]
fn what_takes_long_rests_as_long_as_it_is_to_take_a_quarter_of_the_time() {
    let began = Instant::now();
    assert!(again(began, PATIENCE) == began + PATIENCE, "what is quick is done as often as it is to be");
    let before = began.checked_sub(PATIENCE).unwrap();
    assert!(again(before, LOOKING) >= before + PATIENCE * 4);
    let state = Directory::new("rests");
    let (source, _outer) = outer();
    let following = Following::open(source, &state.0).unwrap();
    let mut core = following.shared.lock();
    let leaf = Dir::parse(b"cell.1").unwrap();
    core.table.add_dir(leaf, Files { freeze: true, ..Files::default() });
    let (nobody, life) =
        (HostPid::new(u32::MAX >> 1).unwrap(), Life::new(Started(1), None, Usage::default()));
    core.table.seat(nobody, pinfold_model::CellId::new(1).unwrap(), life);
    let due = core.looks;
    core.do_what_is_due();
    assert!(core.looks >= due + LOOKING && core.patience().is_some());
    // What is not due yet is not done.
    let next = core.looks;
    core.do_what_is_due();
    assert!(core.looks == next);
    core.table.strike(nobody);
}
