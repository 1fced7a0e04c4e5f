//! Other people's D-Bus clients, and what no client may do to the others.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;

use pinfold_dbus::{Client, ClientError, GroupName};
use pinfold_kernel::listener::{Closers, DescriptorError, Listener, file_behind};
use pinfold_kernel::pins::Pins;
use pinfold_model::HostPid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use crate::bus::others::Other;
use crate::bus::wire;
use crate::container::Shell;
use crate::daemon::{self, Daemon, PATIENCE, PYTHON, eventually, text};

const OBJECT: &str = "/org/pinfold/Manager";

fn public(daemon: &Daemon) -> String {
    format!("{}.public/socket", daemon.state().display())
}

/// What a client from Debian says; `None`, with the reason printed, if it is not installed.
fn client(daemon: &Daemon, line: &str) -> Option<(bool, String)> {
    let line = line.replace("ADDRESS", &format!("unix:path={}", public(daemon))).replace("OBJECT", OBJECT);
    let mut command = Command::new("timeout");
    let output = command.args(["30", "sh", "-c", &line]).output().expect("timeout runs");
    if output.status.code() == Some(127) {
        daemon::skip(&format!("needs {}", line.split(' ').next().unwrap_or_default()));
        return None;
    }
    Some((output.status.success(), text(&output.stdout) + &text(&output.stderr)))
}

#[test]
fn clients_of_other_libraries_are_served() {
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    let gdbus = "gdbus call --address ADDRESS --dest org.pinfold --object-path OBJECT --method";
    let busctl = "busctl --address=ADDRESS";
    let send = "dbus-send --peer=ADDRESS --print-reply OBJECT";
    for (line, is_ok, said) in [
        // GLib
        (
            "gdbus introspect --address ADDRESS --dest org.pinfold --object-path OBJECT".to_owned(),
            true,
            "MoveByFd(in  h process",
        ),
        (format!("{gdbus} org.pinfold.Manager1.Create /a '{{}}'"), true, ":/a'"),
        (format!("{gdbus} org.pinfold.Manager1.Create /b \"{{'notify_on_release': '1'}}\""), true, ":/b'"),
        (format!("{gdbus} org.pinfold.Manager1.GetValue /b notify_on_release"), true, "('1',)"),
        (format!("{gdbus} org.pinfold.Manager1.Create /c \"{{'no_such_key': '1'}}\""), false, "Error.ENOENT"),
        (format!("{gdbus} org.pinfold.Manager1.ListTasks /c false"), false, "Error.ENOENT"),
        (format!("{gdbus} org.freedesktop.DBus.Properties.Get org.pinfold.Manager1 Realm"), true, "default"),
        (format!("{gdbus} org.pinfold.Manager1.ListNamedKeys /b"), true, "cpuacct_usage"),
        (format!("{gdbus} org.pinfold.Manager1.GetValue /b cpuacct_usage"), true, "('0',)"),
        (format!("{gdbus} org.pinfold.Manager1.SetValue /b cpuacct_usage 1"), false, "Error.EINVAL"),
        (format!("{gdbus} org.pinfold.Manager1.Create /a/../x '{{}}'"), false, "Error.EINVAL"),
        (format!("{gdbus} org.pinfold.Manager1.Chmod /b '' 511"), true, "()"),
        (format!("{gdbus} org.pinfold.Manager1.Chmod /b tasks 99999"), false, "Error.EINVAL"),
        (format!("{gdbus} org.pinfold.Manager1.Chown /b 4294967295 0"), false, "Error.EPERM"),
        (format!("{gdbus} org.pinfold.Manager1.Prune /"), true, ":/b'"),
        (format!("{gdbus} org.pinfold.Manager1.Nonsense"), false, "UnknownMethod"),
        // systemd
        (format!("{busctl} introspect org.pinfold OBJECT"), true, ".ListNamedKeys"),
        (
            format!("{busctl} call org.pinfold OBJECT org.pinfold.Manager1 Create 'sa{{ss}}' /d 0"),
            true,
            ":/d",
        ),
        (format!("{busctl} call org.pinfold OBJECT org.pinfold.Manager1 Delete s /d"), true, ""),
        (
            format!("{busctl} call org.pinfold OBJECT org.pinfold.Manager1 Delete s /d"),
            false,
            "no hierarchy has",
        ),
        (format!("{busctl} get-property org.pinfold OBJECT org.pinfold.Manager1 Version"), true, "s \"0."),
        // libdbus
        (format!("{send} org.pinfold.Manager1.Ping"), true, "method return"),
        (format!("{send} org.pinfold.Manager1.ListTasks string:/ boolean:false"), true, "array ["),
        (format!("{send} org.pinfold.Manager1.ListTasks string:/a boolean:false"), false, "Error.ENOENT"),
        (format!("{send} org.pinfold.Manager1.Move uint32:0 string:/nowhere"), false, "Error.ENOENT"),
        (format!("{send} org.pinfold.Manager1.Move string:x"), false, "Error"),
    ] {
        let Some((ok, found)) = client(&daemon, &line) else { return };
        assert!(ok == is_ok && found.contains(said), "{line}: {found}");
    }
    assert_eq!(
        daemon.ok(&["tree"]).lines().count(),
        1,
        "what was refused made nothing, and Prune took the rest"
    );
    daemon.down();
}

/// An attribute of an XML element.
fn attribute<'x>(element: &'x str, name: &str) -> &'x str {
    let start = format!(" {name}=\"");
    let value = element.split_once(&start).map_or("", |(_, rest)| rest);
    value.split('"').next().unwrap_or_default()
}

/// The elements of this kind, each with what is in it.
fn elements<'x>(xml: &'x str, kind: &str) -> Vec<&'x str> {
    let (start, end) = (format!("<{kind} "), format!("</{kind}>"));
    let parts = xml.split(start.as_str()).skip(1);
    parts.map(|part| part.split(end.as_str()).next().unwrap_or_default()).collect()
}

#[test]
fn the_page_has_every_method_signal_and_property_as_the_daemon_tells_them() {
    let Some(mut daemon) = Daemon::serving("none,name=x:cg") else { return };
    let asked = "dbus-send --peer=ADDRESS --print-reply=literal OBJECT org.freedesktop.DBus.Introspectable.Introspect";
    let Some((true, xml)) = client(&daemon, asked) else { return };
    let (_, xml) = xml.split_once("<interface name=\"org.pinfold.Manager1\">").expect("it is there");
    let (xml, _) = xml.split_once("</interface>").expect("it ends");
    let page = include_str!("../../../docs/manager.md");
    let arguments = |element: &str, is_meant: &dyn Fn(&str) -> bool| {
        let all = element.split("<arg").skip(1).filter(|argument| is_meant(attribute(argument, "direction")));
        let all =
            all.map(|argument| format!("{} {}", attribute(argument, "type"), attribute(argument, "name")));
        all.collect::<Vec<_>>().join(", ")
    };
    let mut rows = Vec::new();
    for method in elements(xml, "method") {
        let answer = match arguments(method, &|direction| direction == "out") {
            none if none.is_empty() => " ".to_owned(),
            some => format!(" `{some}` "),
        };
        let takes = arguments(method, &|direction| direction != "out");
        rows.push(format!("| `{}({takes})` |{answer}|", attribute(&format!(" {method}"), "name")));
    }
    assert!(rows.len() > 30, "{xml}");
    let methods = rows.len();
    for signal in elements(xml, "signal") {
        let takes = arguments(signal, &|_| true);
        rows.push(format!("| `{}({takes})` |", attribute(&format!(" {signal}"), "name")));
    }
    for property in elements(xml, "property") {
        let property = format!(" {property}");
        rows.push(format!("| `{}` | `{}` |", attribute(&property, "name"), attribute(&property, "type")));
    }
    for row in &rows {
        assert!(page.lines().any(|line| line.starts_with(row.as_str())), "docs/manager.md has no row {row}");
    }
    let (_, table) = page.split_once("| method | answer |").expect("there is a table");
    let listed = table.lines().skip(2).take_while(|line| line.starts_with("| `")).count();
    assert_eq!(listed, methods, "the page has methods that the daemon has not");
    daemon.down();
}

#[test]
fn a_group_goes_when_its_last_process_has_gone() {
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    let gdbus =
        "gdbus call --address ADDRESS --dest org.pinfold --object-path OBJECT --method org.pinfold.Manager1";
    let Some((made, said)) = client(&daemon, &format!("{gdbus}.Create /a '{{}}'")) else { return };
    assert!(made, "{said}");
    assert!(client(&daemon, &format!("{gdbus}.RemoveOnEmpty /a")).is_some_and(|(ok, _)| ok));
    assert!(daemon.path("cg/a").exists(), "it is empty, but nothing has left it yet");
    let sleeper = daemon.sleeper();
    daemon.ok(&["move", &sleeper.pid().to_string(), "/a"]);
    // It is kept over a restart of the daemon.
    daemon.kill();
    daemon.serve("all:cg");
    assert_eq!(daemon.numbers("cg/a/tasks"), [sleeper.pid()]);
    sleeper.end();
    eventually("the group is gone", || !daemon.path("cg/a").exists());
    daemon.down();
}

#[test]
fn a_group_goes_when_its_last_child_has_gone() {
    let Some(mut daemon) = Daemon::serving("none,name=x:cg") else { return };
    daemon.ok(&["create", "-p", "/a/b"]);
    daemon.ok(&["rm", "--when-empty", "/a"]);
    assert!(daemon.path("cg/a/b").exists());
    daemon.ok(&["rm", "/a/b"]);
    eventually("the group is gone", || !daemon.path("cg/a").exists());
    daemon.down();
}

/// A connection that has greeted.
fn greeted(daemon: &Daemon) -> UnixStream {
    let mut stream = UnixStream::connect(public(daemon)).expect("the door is open");
    stream.set_read_timeout(Some(PATIENCE)).expect("the daemon talks");
    stream.write_all(b"\0AUTH EXTERNAL 30\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n").expect("the daemon talks");
    let mut said = Vec::new();
    while !said.ends_with(b"AGREE_UNIX_FD\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("the daemon talks");
        said.push(byte[0]);
    }
    stream
}

/// The header of a message of this length, with nothing behind it.
fn header(body: u32, fields: u32) -> Vec<u8> {
    let mut header = b"l\x01\x00\x01".to_vec();
    for number in [body, 1, fields] {
        header.extend(number.to_le_bytes());
    }
    header
}

fn is_hung_up_on(mut stream: UnixStream) -> bool {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => true,
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => true,
        Err(error) => panic!("{error}, after {rest:?}"),
    }
}

/// How many descriptors the daemon has of sockets, and of what clients pass here.
fn passed_or_sockets(daemon: &Daemon) -> usize {
    let fds = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("the daemon runs").flatten();
    // Processes stay held for a while after they asked, as many as that may be: those are neither.
    let names = fds.filter_map(|fd| std::fs::read_link(fd.path()).ok());
    let counts =
        |name: &std::path::Path| name == "/dev/zero" || name.to_string_lossy().starts_with("socket:");
    names.filter(|name| counts(name)).count()
}

/// Sends a message with so many descriptors.
fn send_many(stream: &UnixStream, bytes: &[u8], count: usize) {
    let file = std::fs::File::open("/dev/zero").expect("the daemon talks");
    wire::send_with(stream, bytes, &vec![file.as_fd(); count]);
}

/// Sends calls until nothing more is taken for a second, and reads nothing.
fn flooding(daemon: &Daemon, call: &[u8]) -> UnixStream {
    let mut flood = greeted(daemon);
    flood.set_nonblocking(true).expect("a socket");
    let calls = call.repeat(64);
    let second = Timespec { tv_sec: 1, tv_nsec: 0 };
    let (mut sent, mut at) = (0, 0);
    while poll(&mut [PollFd::new(&flood, PollFlags::OUT)], Some(&second)).expect("a socket") == 1 {
        let written = flood.write(&calls[at..]).expect("nobody is hung up on that soon");
        at = (at + written) % calls.len();
        sent += written;
        assert!(sent < 8 << 20, "there is no end to what the daemon takes");
    }
    flood
}

#[test]
fn a_client_that_floods_stalls_or_lies_delays_nobody_and_leaks_nothing() {
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    // That of the readiness message may still be among them.
    let before = passed_or_sockets(&daemon);
    daemon.ok(&["create", "/a"]);
    // Messages that are too long are refused by their headers.
    for (body, fields) in [(u32::MAX, 0), (0, u32::MAX), (128 << 20, 0), (1 << 20, 0)] {
        let mut stream = greeted(&daemon);
        stream.write_all(&header(body, fields)).unwrap();
        assert!(is_hung_up_on(stream), "{body} {fields}");
    }
    // One descriptor that no method takes is let go, more are refused.
    let mut stream = greeted(&daemon);
    send_many(&stream, &wire::call_of_peer(), 1);
    wire::read_until(&mut stream, b"l\x02");
    drop(stream);
    for count in [2, 5, 200] {
        let stream = greeted(&daemon);
        send_many(&stream, &wire::call_of_peer(), count);
        assert!(is_hung_up_on(stream), "{count} descriptors");
    }
    // Some stop in the middle of a message or of the greeting, some hang up there.
    let mut stalled = Vec::new();
    for _ in 0..10 {
        let mut stream = greeted(&daemon);
        stream.write_all(&header(100, 16)[..9]).unwrap();
        stalled.push(stream);
        let mut stream = greeted(&daemon);
        stream.write_all(&header(100, 16)).unwrap();
        drop(stream);
        let mut stream = UnixStream::connect(public(&daemon)).unwrap();
        stream.write_all(b"\0AUTH").unwrap();
        stalled.push(stream);
    }
    // Some ask and ask, and read nothing: their sockets fill up.
    let floods = [wire::call_with("GetValue", &["/a", "notify_on_release"]), wire::call_of_peer()]
        .map(|call| flooding(&daemon, &call));
    let mut other = Shell::of_user(&daemon, 54326, "/a");
    assert_eq!(other.ok("get . notify_on_release"), "0\n", "others are served meanwhile");
    drop((stalled, floods, other));
    eventually("every descriptor is closed", || passed_or_sockets(&daemon) <= before);
    daemon.down();
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
}

/// Connections of a user of the host's, and who made them.
struct Come {
    streams: Vec<UnixStream>,
    user: Other,
}

/// Connects as a user of the host, as often as asked; how many were let greet. Each greets to the end before the next comes: who does
/// not has his place for five seconds, in which not all of them may come where it is slow.
fn connected_as(daemon: &Daemon, uid: u32, times: usize) -> (Come, usize) {
    let mut user = Other::new(uid, public(daemon));
    let (mut streams, mut greeted) = (Vec::new(), 0);
    for _ in 0..times {
        let mut stream = user.connect();
        greeted += usize::from(is_greeted(&mut stream) && stream.write_all(b"BEGIN\r\n").is_ok());
        streams.push(stream);
    }
    (Come { streams, user }, greeted)
}

fn is_greeted(stream: &mut UnixStream) -> bool {
    // Who was turned away is hung up on.
    let said = stream.write_all(b"\0AUTH EXTERNAL 30\r\n").and_then(|()| stream.read(&mut [0; 64]));
    said.is_ok_and(|length| length > 0)
}

#[test]
fn nobody_takes_every_place_at_the_public_door() {
    let Some(mut daemon) = Daemon::serving("none,name=x:cg") else { return };
    let (staying, greeted) = connected_as(&daemon, 54323, 40);
    assert_eq!(greeted, 32, "a user has so many places");
    let (others, greeted) = connected_as(&daemon, 54324, 3);
    assert_eq!(greeted, 3, "another has his own");
    let mut shell = Shell::of_user(&daemon, 54325, "/");
    shell.ok("ls .");
    daemon.ok(&["ls", "/"]);
    drop((staying, others, shell));
    eventually("there is room again", || connected_as(&daemon, 54323, 1).1 == 1);
    daemon.down();
}

#[test]
fn who_has_no_place_at_a_door_that_is_full_gets_one_of_those_who_have_most() {
    const USER: u32 = 54_350;
    let Some(mut daemon) = Daemon::serving("none,name=x:cg") else { return };
    let come = |user: u32, times: usize| {
        let (come, greeted) = connected_as(&daemon, USER + user, times);
        assert_eq!(greeted, times, "of user {user}");
        come
    };
    let there: Vec<Come> = (0..8).map(|user| come(user, 30)).collect();
    // There is no place left.
    let late = come(8, 3);
    let hung_up_on = |come: &Come| {
        let mut wanted: Vec<PollFd> =
            come.streams.iter().map(|stream| PollFd::new(stream, PollFlags::RDHUP)).collect();
        poll(&mut wanted, Some(&Timespec::default())).expect("sockets")
    };
    eventually("as many have made room", || there.iter().map(hung_up_on).sum::<usize>() == 3);
    assert_eq!(hung_up_on(&late), 0);
    assert!(there.iter().all(|come| hung_up_on(come) <= 1), "who has made room does not have most any more");
    drop((there, late));
    daemon.down();
}

#[test]
fn who_floods_the_door_with_connections_keeps_nobody_out() {
    const USER: u32 = 54_345;
    let Some(mut daemon) = Daemon::serving("none,name=x:cg") else { return };
    let mut flooding = Other::new(USER, public(&daemon));
    flooding.flood();
    let come = [(); 10].map(|()| connected_as(&daemon, USER + 1, 3).1);
    drop(flooding);
    assert_eq!(come, [3; 10], "another is let in");
    daemon.down();
}

/// In the daemon's user namespace, that is: there they all have one number, which is that of another.
#[test]
fn users_without_a_number_are_not_taken_for_one_another() {
    if !daemon::has_python() {
        return;
    }
    let Some(mut daemon) = Daemon::new() else { return };
    let started = daemon.try_serve_through(&["unshare", "--user", "--map-root-user"], &[]);
    assert!(started.is_ok(), "{}", daemon.log());
    let namespace = format!("--user=/proc/{}/ns/user", daemon.pid());
    let script = "import socket, sys\nline = socket.socket(socket.AF_UNIX)\nline.connect(sys.argv[1])\ntry:\n    \
                  line.sendall(b'\\0AUTH EXTERNAL 30\\r\\n')\n    print(len(line.recv(100)) > 0)\n\
                  except OSError:\n    print(False)";
    let is_let_in = |through: &[&str]| {
        let mut command = Command::new("timeout");
        command.args(["60"]).args(through).args(["nsenter", "--preserve-credentials", &namespace, "--"]);
        let output =
            command.args([PYTHON, "-c", script]).arg(public(&daemon)).output().expect("timeout runs");
        text(&output.stdout) + &text(&output.stderr)
    };
    assert_eq!(is_let_in(&[]), "True\n");
    let caps = "+sys_admin,+sys_ptrace";
    let another = ["setpriv", "--reuid", "54346", "--regid", "54346", "--clear-groups"];
    let another = [&another[..], &["--inh-caps", caps, "--ambient-caps", caps]].concat();
    assert_eq!(is_let_in(&another), "False\n");
    // For it the host is another world, and it takes no call from there.
    assert!(daemon.end(Signal::TERM).success(), "{}", daemon.log());
}

/// Who has not greeted passes no descriptor; before Linux 6.16 it does, and ending its connection closes that.
#[test]
fn who_is_turned_away_with_a_descriptor_that_lingers_keeps_nobody_waiting() {
    const USER: u32 = 54_323;
    let Some(mut daemon) = Daemon::serving("none,name=x:cg") else { return };
    let (mut staying, greeted) = connected_as(&daemon, USER, 32);
    assert_eq!(greeted, 32, "it has no more places");
    // So that all is there before the daemon looks.
    daemon.signal(Signal::STOP);
    eventually("all its threads stand still", || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", daemon.pid())).expect("it is there");
        tasks.flatten().all(|task| {
            std::fs::read_to_string(task.path().join("stat")).is_ok_and(|stat| stat.contains(") T "))
        })
    });
    let turned_away = [(); 3].map(|()| staying.user.connect());
    let (mut other_ends, mut sent) = (Vec::new(), Vec::new());
    for stream in &turned_away {
        let (lingering, other_end) = wire::lingering();
        other_ends.push(other_end);
        let said = wire::try_send_with(stream, b"\0AUTH EXTERNAL 30\r\n", &[lingering.as_fd()]);
        if said.is_err() {
            // Nobody else has it.
            rustix::net::sockopt::set_socket_linger(&lingering, None).expect("a socket");
        }
        sent.push(said);
    }
    daemon.signal(Signal::CONT);
    assert!(sent.iter().all(|sent| matches!(sent, Ok(_) | Err(rustix::io::Errno::PERM))), "{sent:?}");
    assert!(turned_away.into_iter().all(is_hung_up_on));
    let (others, greeted) = connected_as(&daemon, USER + 1, 3);
    assert_eq!(greeted, 3, "others are let in meanwhile");
    drop((staying, others));
    daemon.down();
    drop(other_ends);
}

/// Of those who come in there, each costs a few descriptors: together they would have taken all.
#[test]
fn the_owner_is_served_when_the_public_door_has_taken_its_descriptors() {
    let Some(mut daemon) = Daemon::new() else { return };
    let mount = format!("none,name=x:{}", daemon.dir.join("cg").display());
    let started = daemon.try_serve_through(&["prlimit", "--nofile=100:400"], &["--mount".to_owned(), mount]);
    assert!(started.is_ok(), "{}", daemon.log());
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).expect("it runs");
    let own = limits.lines().find(|line| line.starts_with("Max open files")).expect("it has a limit");
    assert_eq!(own.split_whitespace().collect::<Vec<_>>()[3..5], ["400", "400"], "{own}");
    let come: Vec<_> = (0..8).map(|user| connected_as(&daemon, 54330 + user, 30)).collect();
    let greeted: usize = come.iter().map(|(_, greeted)| greeted).sum();
    assert!((1..240).contains(&greeted), "{greeted} were let in");
    daemon.ok(&["create", "/a"]);
    daemon.ok(&["ls", "/"]);
    drop(come);
    eventually("there is room again", || connected_as(&daemon, 54330, 1).1 == 1);
    daemon.down();
}

/// Its rights are those of a process; what is left of them with it is nothing.
#[test]
fn who_has_ended_asks_for_nothing_though_its_connection_is_held() {
    if !daemon::has_python() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("none,name=x:cg") else { return };
    daemon.ok(&["create", "/a"]);
    let flags = rustix::net::SocketFlags::CLOEXEC;
    let kind = rustix::net::SocketType::STREAM;
    let family = rustix::net::AddressFamily::UNIX;
    let mut stream = UnixStream::from(rustix::net::socket_with(family, kind, flags, None).expect("a socket"));
    // It connects, is found out who it is, and ends; this test has the connection.
    let script = "import socket, sys\nline = socket.socket(fileno=0)\nline.connect(sys.argv[1])\n\
                  line.sendall(b'\\0AUTH EXTERNAL 30\\r\\n')\nassert line.recv(100).startswith(b'OK')";
    let mut command = Command::new("timeout");
    command.args(["60", PYTHON, "-c", script]).arg(public(&daemon));
    let status = command.stdin(Stdio::from(std::os::fd::OwnedFd::from(stream.try_clone().unwrap()))).status();
    assert!(status.expect("timeout runs").success());
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream.write_all(b"BEGIN\r\n").expect("the daemon talks");
    stream.write_all(&wire::call_with("GetValue", &["/a", "notify_on_release"])).expect("the daemon talks");
    wire::read_until(&mut stream, b"org.pinfold.Error.ESRCH");
    daemon.down();
}

/// The socket at which this program, as a user's process, asks about too much: see [`asks_about_more_than_may_be`].
const ASKED: &str = "PINFOLD_TEST_ASKED";

/// Not a test, but what a user does in one, by a process of his.
#[test]
fn asks_about_more_than_may_be() {
    const CHAINS: usize = 110;
    let Some(socket) = std::env::var_os(ASKED) else { return };
    let client = Client::connect(socket.as_ref()).expect("the door is open");
    let group = |name: &str| name.parse::<GroupName>().expect("a name");
    let step = "s".repeat(240);
    for chain in 0..CHAINS {
        let mut name = format!("name=x:a/{chain}");
        client.create(&group(&name)).expect("it is his");
        for _ in 0..13 {
            name = format!("{name}/{step}");
            client.create(&group(&name)).expect("it is his");
        }
    }
    let all = group("a");
    client.create(&group("name=first:a/empty")).expect("it is his");
    // Tasks are listed without naming the groups that they are in.
    assert!(client.list_tasks(&all, true).expect("it fits").is_empty());
    let refusals = [client.list_children(&all, true).map(drop), client.prune(&all).map(drop)];
    for refusal in refusals {
        let Err(ClientError::Refused(refusal)) = refusal else { panic!("{refusal:?}") };
        assert_eq!(refusal.errno(), "E2BIG", "{refusal}");
    }
    assert_eq!(client.list_children(&group("name=first:a"), true).expect("it fits").len(), 1, "nothing went");
    assert_eq!(client.list_children(&group("name=x:a"), false).expect("it fits").len(), CHAINS);
    assert_eq!(client.list_children(&group("a/7"), true).expect("it fits").len(), 13);
    assert_eq!(client.prune(&group("a/7")).expect("it fits").len(), 13);
}

#[test]
fn a_call_about_more_groups_than_may_be_is_refused_and_about_a_part_it_is_not() {
    const USER: u32 = 54_340;
    let Some(mut daemon) = Daemon::new() else { return };
    // One comes first, and has little.
    let mounts = ["none,name=first:first", "none,name=x:cg"].map(|mount| {
        let (options, dir) = mount.split_once(':').expect("a directory");
        format!("--mount={options}:{}", daemon.dir.join(dir).display())
    });
    daemon.try_serve(&mounts).expect("it starts");
    daemon.ok(&["create", "/a"]);
    daemon.ok(&["chown", &format!("{USER}:{USER}"), "/a"]);
    let program = std::env::current_exe().expect("this program has a file");
    let mut asking = Command::new(program);
    asking.args(["--exact", "clients::asks_about_more_than_may_be"]).env(ASKED, public(&daemon));
    let said = asking.uid(USER).gid(USER).current_dir("/").output().expect("it may be run by everybody");
    assert!(said.status.success() && text(&said.stdout).contains("1 passed"), "{}", text(&said.stdout));
    // The host's root has room for more.
    daemon.ok(&["rm", "-r", "/a"]);
    daemon.down();
}

/// What executes a program for as long as it likes.
const EXECUTING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/executing.py");

/// Linux 6.18 closes files with `exec_update_lock` held, which pidfd_getfd(2) waits for.
#[test]
fn an_eventfd_of_a_process_that_executes_a_program_for_ever_is_not_waited_for() {
    static CLOSING: Closers<()> = Closers::new(1);
    if !daemon::can_serve() || !daemon::has_python() {
        return;
    }
    let dir = std::env::temp_dir().join(format!("pinfold-executing-{}", std::process::id()));
    std::fs::create_dir(&dir).expect("a private directory");
    let mut executing = Command::new("unshare");
    executing.args(["--mount", "--propagation", "private", PYTHON, EXECUTING]).arg(&dir);
    let mut executing = executing.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("unshare runs");
    let mut said = BufReader::new(executing.stdout.take().expect("a pipe")).lines();
    let numbers = said.next().expect("it talks").expect("it talks");
    let numbers: Vec<u32> = numbers.split(' ').map(|word| word.parse().expect("a number")).collect();
    assert_eq!(said.next().expect("it talks").expect("it talks"), "held");
    let process = HostPid::new(numbers[0]).expect("a process");
    let (pinned, _) = Pins::default().open(process).expect("it has not ended");
    let takes = || Listener::take(Arc::clone(&pinned), numbers[1], &CLOSING, ());
    match takes() {
        Err(DescriptorError::Busy(busy)) if busy == process => {
            assert!(!CLOSING.has_room(()), "a thread still waits");
        }
        // As of Linux 6.12, which closes files before it takes that lock.
        taken => drop(taken.expect("it has an eventfd")),
    }
    // Newer kernels hold up who follows the link of a descriptor, too.
    let behind = file_behind(&pinned, numbers[1], &Closers::new(1), ());
    assert!(matches!(behind, Ok(_) | Err(DescriptorError::Busy(_))), "{behind:?}");
    drop(executing.stdin.take());
    daemon::wait(executing).expect("it ends with its input");
    eventually("nobody waits any more", || CLOSING.has_room(()));
    std::fs::remove_dir(&dir).expect("nothing is mounted there");
}

/// What passes a descriptor that waits for it when it is closed, and who runs it.
const HOLDING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/holding.py");

/// Not even SIGKILL ends close(2) of a file whose server does not answer. What waits there has nothing of the daemon's.
#[test]
fn a_descriptor_that_is_never_closed_keeps_neither_others_nor_the_realm() {
    if !daemon::has_python() {
        return;
    }
    let Some(mut daemon) = Daemon::new() else { return };
    let mount = format!("none,name=x:{}/cg", daemon.dir.display());
    let arguments = ["--mount".to_owned(), mount];
    daemon.try_serve(&arguments).expect("it starts");
    daemon.ok(&["create", "/a"]);
    let dir = daemon.dir.join("holding");
    std::fs::create_dir(&dir).expect("the directory is ours");
    let mut holding = Command::new("unshare");
    holding.args(["--mount", "--propagation", "private", PYTHON, HOLDING]).arg(&dir).arg(public(&daemon));
    let mut holding = holding.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("unshare runs");
    let mut said = [0; 5];
    holding.stdout.as_mut().expect("a pipe").read_exact(&mut said).expect("it talks");
    assert_eq!(&said, b"held\n");
    daemon.ok(&["ls", "/"]);
    // It does not end altogether, but its lock does, and its mount.
    daemon.signal(Signal::KILL);
    eventually("another daemon has the realm", || daemon.try_serve(&arguments).is_ok());
    assert!(daemon.path("cg/a").exists());
    drop(holding.stdin.take());
    daemon::wait(holding).expect("it ends with its input");
    daemon.down();
}
