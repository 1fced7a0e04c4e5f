//! The manager at a bus: one of the test's own, never the machine's.

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use pinfold_events::{Next, Pid, Stream, What};

use crate::bus::wire::{
    as_if_of_bus, call, call_for_events, call_of_bus, call_with_descriptors, connected, descriptor_of,
    lingering, read_until, send_with, signal_with,
};
use crate::bus::{ALICE, BOB, Bus, realm_at_a_bus};
use crate::container::Shell;
use crate::daemon::{Daemon, eventually, readable, text};

/// Runs a line in a shell below the base; whether it succeeded, and what it said.
fn run(daemon: &Daemon, line: &str) -> (bool, String) {
    let output = daemon.command("sh").args(["-c", line]).output().expect("timeout runs");
    (output.status.success(), text(&output.stdout) + &text(&output.stderr))
}

fn ok(daemon: &Daemon, line: &str) -> String {
    let (is_ok, said) = run(daemon, line);
    assert!(is_ok, "{line}: {said}\n{}", daemon.log());
    said
}

#[test]
fn the_hosts_root_is_served_at_a_bus() {
    let Some((mut daemon, bus)) = realm_at_a_bus() else { return };
    assert_eq!(ok(&daemon, &bus.call("Create 'sa{ss}' /a 1 notify_on_release 1")), "as 1 \"name=x:/a\"\n");
    assert_eq!(ok(&daemon, &bus.call("GetValue ss /a notify_on_release")), "s \"1\"\n");
    assert_eq!(ok(&daemon, &bus.call("ListTasks sb /a false")), "au 0\n");
    // The caller is busctl, which the daemon finds by what the bus knows of it.
    assert!(ok(&daemon, &bus.call("GetGroupOf u 0")).ends_with("\"name=x\" \"/\"\n"));
    let (is_ok, said) = run(&daemon, &bus.call("Delete s /nowhere"));
    assert!(!is_ok && said.contains("no hierarchy has a group /nowhere"), "{said}");
    let (is_ok, said) = run(&daemon, &bus.call("Nonsense"));
    assert!(!is_ok && said.contains("Unknown method"), "{said}");
    // Whatever asks of an object what it is.
    let address = &bus.address;
    let object = "org.pinfold /org/pinfold/Manager";
    assert!(
        ok(&daemon, &format!("busctl --address={address} introspect {object}")).contains(".ListNamedKeys")
    );
    let property = format!("busctl --address={address} get-property {object} org.pinfold.Manager1 Realm");
    assert_eq!(ok(&daemon, &property), "s \"default\"\n");
    let gdbus =
        format!("gdbus call --address {address} --dest org.pinfold --object-path /org/pinfold/Manager");
    assert_eq!(ok(&daemon, &format!("{gdbus} --method org.pinfold.Manager1.Ping")), "()\n");
    // The one who ends the daemon hears how it went.
    assert_eq!(ok(&daemon, &bus.call("Down")), "");
    assert_eq!(daemon.ended().code(), Some(0), "{}", daemon.log());
    daemon.assert_gone();
    let (is_ok, said) = run(&daemon, &bus.call("Ping"));
    assert!(!is_ok, "{said}");
}

#[test]
fn a_bus_lets_nobody_do_more_than_the_public_door() {
    let Some((mut daemon, bus)) = realm_at_a_bus() else { return };
    let foreign = daemon.sleeper();
    daemon.ok(&["move", &foreign.pid().to_string(), "/bob"]);
    let mut alice = Shell::of_user(&daemon, ALICE, "/alice");
    let tree = daemon.ok(&["tree"]);
    for (call, why) in [
        ("Create 'sa{ss}' /bob/x 0", "host's root"),
        ("Create 'sa{ss}' /alice/x 0", "host's root"),
        ("Create 'sa{ss}' ../x 0", "no such step"),
        ("SetValue sss . notify_on_release 1", "limits"),
        ("Delete s .", "own group"),
        ("ListTasks sb /bob false", "host's root"),
        ("Kill s /bob", "host's root"),
        (&format!("Move us {} .", foreign.pid()), "process"),
        ("Chown sxx . 0 0", "gives groups away"),
        ("Down", "only the host's root ends the daemon"),
    ] {
        let said = alice.run(&bus.call(call));
        assert!(said.status != 0 && said.text.contains(why), "{call}: {}", said.text);
    }
    assert_eq!(daemon.ok(&["tree"]), tree, "nothing has changed");
    assert_eq!(daemon.ok(&["tasks", "/bob"]), format!("{}\n", foreign.pid()));
    let said = alice.run(&bus.call("Create 'sa{ss}' x 1 notify_on_release 1"));
    assert_eq!((said.status, said.text.as_str()), (0, "as 1 \"name=x:x\"\n"));
    alice.run("sleep 600 >/dev/null & echo");
    let moved = alice.run(&bus.call("Move us $! x"));
    assert_eq!(moved.status, 0, "{}", moved.text);
    assert_eq!(daemon.ok(&["tasks", "/alice/x"]), alice.run("echo $!").text);
    drop((alice, foreign));
    daemon.ok(&["rm", "-r", "/alice"]);
    daemon.down();
}

#[test]
fn a_container_calls_at_the_hosts_bus_by_its_own_numbers() {
    let Some((mut daemon, bus)) = realm_at_a_bus() else { return };
    let mut root = Shell::of_user(&daemon, ALICE, "/alice");
    root.enter("unshare --user --map-root-user --pid --fork --kill-child --mount-proc");
    assert_eq!(root.run("id -u").text, "0\n");
    let said = root.run(&bus.call("Create 'sa{ss}' web 0"));
    assert_eq!((said.status, said.text.as_str()), (0, "as 1 \"name=x:web\"\n"));
    root.run("sleep 600 >/dev/null & echo");
    let moved = root.run(&bus.call("Move us $! web"));
    assert_eq!(moved.status, 0, "{}", moved.text);
    let listed = root.run(&bus.call("ListTasks sb web false")).text;
    assert_eq!(listed, format!("au 1 {}", root.run("echo $!").text));
    for call in ["SetValue sss . notify_on_release 1", "Chown sxx web 1 1", "Create 'sa{ss}' /alice/x 0"] {
        let said = root.run(&bus.call(call));
        assert!(said.status != 0, "{call}: {}", said.text);
    }
    root.leave();
    drop(root);
    daemon.ok(&["rm", "-r", "/alice"]);
    daemon.down();
}

/// The descriptor comes through the bus, the events do not.
#[test]
fn process_events_can_be_had_at_a_bus() {
    let Some((mut daemon, bus)) = realm_at_a_bus() else { return };
    let (mut stream, _) = bus.connected(0);
    stream.write_all(&call_for_events("org.pinfold")).expect("the bus talks");
    let mut events = Stream::new(descriptor_of(&stream));
    let mut until = |is_it: &dyn Fn(&What) -> bool| {
        loop {
            match events.try_next().expect("what a daemon says") {
                Next::Event(event) if is_it(&event.what) => return,
                Next::Event(_) => {}
                Next::Nothing => assert!(readable(&events), "nothing is said"),
                Next::End => panic!("the stream ends: {}", daemon.log()),
            }
        }
    };
    until(&|what| matches!(what, What::Synced { .. }));
    let sleeper = daemon.sleeper();
    let pid = Pid::new(sleeper.pid());
    until(&|what| what.process().is_some_and(|process| process.pid == pid));
    sleeper.end();
    until(&|what| matches!(what, What::Exit { process, .. } if process.pid == pid));
    drop(events);
    daemon.down();
}

#[test]
fn a_bus_that_has_no_pidfds_is_asked_in_vain_unless_that_is_wanted() {
    let Some(mut daemon) = Daemon::new() else { return };
    let Some(bus) = Bus::with_policy(&daemon) else { return };
    bus.serve_with(&mut daemon, &[]).expect("it starts");
    let said = format!(
        "busctl --address={} call org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus \
         GetConnectionCredentials s org.pinfold",
        bus.address
    );
    let has_pidfds = ok(&daemon, &said).contains("ProcessFD");
    for _ in 0..2 {
        let (is_ok, said) = run(&daemon, &bus.call("Ping"));
        assert_eq!(is_ok, has_pidfds, "{said}");
        // All that busctl says of this error.
        assert!(is_ok || said.contains("Access denied"), "{said}");
    }
    assert_eq!(daemon.log().contains("--callers-by-number"), !has_pidfds, "{}", daemon.log());
    let (mut root, _) = bus.connected(0);
    root.write_all(&call("org.pinfold", "Ping")).expect("the bus talks");
    if has_pidfds {
        read_until(&mut root, b"l\x02");
    } else {
        let told = text(&read_until(&mut root, b"--callers-by-number"));
        assert!(told.contains("org.freedesktop.DBus.Error.AccessDenied"), "{told}");
        assert!(told.contains("the bus has no pidfd of the caller"), "{told}");
    }
    drop(root);
    daemon.down();
}

#[test]
fn a_caller_by_number_whose_process_has_another_user_is_gone_for_good() {
    let Some((mut daemon, bus)) = realm_at_a_bus() else { return };
    let (mut eve, _) = bus.connected(BOB);
    for _ in 0..2 {
        eve.write_all(&call("org.pinfold", "Ping")).expect("the bus talks");
        read_until(&mut eve, b"org.pinfold.Error.ESRCH");
    }
    drop(eve);
    daemon.down();
}

#[test]
fn only_the_bus_is_believed_of_who_has_left_it() {
    let Some((mut daemon, bus)) = realm_at_a_bus() else { return };
    let ((mut root, name), (mut eve, eves)) = (bus.connected(0), bus.connected(BOB));
    let ping = call("org.pinfold", "Ping");
    root.write_all(&ping).expect("the bus talks");
    read_until(&mut root, b"l\x02");
    assert_eq!(callers(&daemon), 1);
    for owner in ["", &eves, ""] {
        let forged = as_if_of_bus("org.pinfold", "NameOwnerChanged", &[&name, &name, owner]);
        eve.write_all(&forged).expect("the bus talks");
    }
    // What comes after it has come to the daemon after it.
    eve.write_all(&call_of_bus("GetId", &[])).expect("the bus talks");
    read_until(&mut eve, b"\x20\0\0\0");
    root.write_all(&ping).expect("the bus talks");
    read_until(&mut root, b"l\x02");
    assert_eq!(callers(&daemon), 1, "nobody was hung up on");
    drop(root);
    eventually("who has left is waited for no more", || callers(&daemon) == 0);
    drop(eve);
    daemon.down();
}

/// The last close(2) of such a socket waits for its other end, for as long as its linger time is.
#[test]
fn a_descriptor_that_cannot_be_closed_stops_nobody_at_a_bus() {
    let Some((mut daemon, bus)) = realm_at_a_bus() else { return };
    let ((mut root, _), (eve, _)) = (bus.connected(0), bus.connected(BOB));
    let mut other_ends = Vec::new();
    for _ in 0..3 {
        let (socket, other_end) = lingering();
        other_ends.push(other_end);
        send_with(&eve, &signal_with(1, "org.pinfold"), &[socket.as_fd()]);
    }
    for _ in 0..3 {
        root.write_all(&call("org.pinfold", "Ping")).expect("the bus talks");
        read_until(&mut root, b"l\x02");
    }
    drop((root, eve));
    daemon.down();
    drop(other_ends);
}

#[test]
fn more_descriptors_than_any_call_takes_are_the_senders_trouble_alone() {
    let Some((mut daemon, bus)) = realm_at_a_bus() else { return };
    let ((mut root, _), (mut other, _)) = (bus.connected(0), bus.connected(0));
    root.write_all(&call("org.pinfold", "Ping")).expect("the bus talks");
    read_until(&mut root, b"l\x02");
    let null = std::fs::File::open("/dev/null").expect("it is there");
    for count in [2, 3, 9] {
        let fds = vec![null.as_fd(); count as usize];
        send_with(&other, &signal_with(count, "org.pinfold"), &fds);
        send_with(&other, &call_with_descriptors(count, "org.pinfold", "Ping"), &fds);
        read_until(&mut other, b"org.freedesktop.DBus.Error.LimitsExceeded");
    }
    send_with(&other, &call_with_descriptors(1, "org.pinfold", "Ping"), &[null.as_fd()]);
    read_until(&mut other, b"l\x02");
    assert_eq!(callers(&daemon), 2, "nobody was hung up on");
    assert!(!daemon.log().contains("has gone"), "{}", daemon.log());
    drop((root, other));
    daemon.down();
}

#[test]
fn descriptors_of_calls_are_none_of_those_that_are_kept_for_the_owner() {
    /// How many the daemon may have, less those.
    const FOR_ALL: u32 = 300;
    let Some(mut daemon) = Daemon::new() else { return };
    let Some(bus) = Bus::with_policy(&daemon) else { return };
    let address = format!("DBUS_SYSTEM_BUS_ADDRESS={}", bus.address);
    let through = ["prlimit", "--nofile=100:400", "env", &address];
    let arguments = ["--system-bus", "--callers-by-number"].map(str::to_owned);
    assert!(daemon.try_serve_through(&through, &arguments).is_ok(), "{}", daemon.log());
    let (mut root, _) = bus.connected(0);
    let null = std::fs::File::open("/dev/null").expect("it is there");
    let call = call_with_descriptors(1, "org.pinfold", "Ping");
    let pings = |root: &mut UnixStream, answer: &[u8]| {
        send_with(root, &call, &[null.as_fd()]);
        text(&read_until(root, answer))
    };
    pings(&mut root, b"l\x02");
    // The owner's own clients may have all of them.
    let last = || {
        let open = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("it runs").flatten();
        open.filter_map(|fd| fd.file_name().to_str()?.parse().ok()).max().unwrap_or(0_u32)
    };
    let door = daemon.state().join("socket");
    let mut owners = Vec::new();
    while last() <= FOR_ALL + 10 {
        owners.push(connected(door.display().to_string(), 0));
        assert!(owners.len() < 200, "they take nothing");
    }
    let said = pings(&mut root, b"for more calls that wait");
    assert!(said.contains("org.freedesktop.DBus.Error.LimitsExceeded"), "{said}");
    drop(owners);
    eventually("there is room again", || last() < FOR_ALL);
    pings(&mut root, b"l\x02");
    drop(root);
    daemon.down();
}

/// How many callers the daemon waits for.
fn callers(daemon: &Daemon) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", daemon.pid())).expect("it runs");
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name == "bus-caller\n").count()
}

#[test]
fn the_daemon_outlives_the_bus_and_comes_back_with_it() {
    let Some((mut daemon, bus)) = realm_at_a_bus() else { return };
    drop(bus);
    eventually("the log says it", || daemon.log().contains("the system bus has gone"));
    daemon.ok(&["create", "/a"]);
    let Some(bus) = Bus::with_policy(&daemon) else { return };
    eventually("it is back", || run(&daemon, &bus.call("Ping")).0);
    assert!(ok(&daemon, &bus.call("ListChildren sb /a true")).starts_with("a(ssuuu) 0"));
    daemon.down();
}

#[test]
fn without_a_bus_or_its_leave_the_daemon_does_not_start() {
    let Some(mut daemon) = Daemon::new() else { return };
    let Some(bus) = Bus::start(&daemon, "") else { return };
    let Err(output) = bus.serve(&mut daemon) else { panic!("the bus has no policy for it") };
    let said = text(&output.stderr);
    assert!(said.contains("the system bus does not take org.pinfold"), "{said}");
    assert!(said.contains("pinfold bus-policy"), "{said}");
    daemon.assert_gone();
    let address = bus.address.clone();
    drop(bus);
    let arguments = ["--system-bus".to_owned()];
    let through = format!("DBUS_SYSTEM_BUS_ADDRESS={address}");
    let Err(output) = daemon.try_serve_through(&["env", &through], &arguments) else { panic!("no bus") };
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    daemon.assert_gone();
}
