//! Clients of cgmanager: `cgm`, those that Debian has, and one that speaks by credentials as cgmanager's proxy does.
//!
//! A program that is linked with libcgmanager cannot be had any more.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use crate::bus::others::Other;
use crate::bus::wire;
use crate::container::{FIRST, Shell};
use crate::daemon::{self, BINARY, Daemon, Sleeper, eventually, text};

/// The client that speaks by credentials.
const SCM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cgmanager/scm.py");
/// Not the first python3 that there is, which may be where others than root do not get.
const PYTHON: &str = "/usr/bin/python3";

fn socket(daemon: &Daemon) -> PathBuf {
    daemon.dir.join("cgmanager.sock")
}

fn cgm_in(daemon: &Daemon) -> PathBuf {
    daemon.dir.join("cgm")
}

/// A daemon with three hierarchies that clients of cgmanager find, and `cgm`.
pub(crate) fn daemon_for_cgmanager() -> Option<Daemon> {
    let mut daemon = Daemon::new()?;
    std::os::unix::fs::symlink(BINARY, cgm_in(&daemon)).expect("a private directory");
    serve(&mut daemon);
    Some(daemon)
}

fn serve(daemon: &mut Daemon) {
    serve_through(daemon, &["env"]);
}

/// A daemon that another program becomes.
fn serve_through(daemon: &mut Daemon, through: &[&str]) {
    let dir = daemon.dir.display();
    let mut arguments = vec![format!("--cgmanager={}", socket(daemon).display())];
    for mount in ["freezer:f", "cpuacct,perf_event:a", "none,name=x:x"] {
        let (options, below) = mount.split_once(':').expect("there is one");
        arguments.extend(["--mount".to_owned(), format!("{options}:{dir}/{below}")]);
    }
    if let Err(output) = daemon.try_serve_through(through, &arguments) {
        panic!("the daemon did not start: {}", text(&output.stderr));
    }
}

fn cgm(daemon: &Daemon, arguments: &[&str]) -> Output {
    let mut command = daemon.command(cgm_in(daemon));
    command.args(arguments).env("CGM_SOCKET", socket(daemon)).output().expect("timeout runs")
}

/// Runs `cgm`, which must end like this.
fn says(daemon: &Daemon, line: &str, status: i32, said: &str) {
    let words: Vec<_> = line.split(' ').map(|word| if word == "''" { "" } else { word }).collect();
    let output = cgm(daemon, &words);
    let found = (output.status.code(), text(&output.stdout));
    assert_eq!(found, (Some(status), said.to_owned()), "cgm {line}: {}", text(&output.stderr));
    assert_eq!(output.stderr.is_empty(), status == 0, "cgm {line}: {}", text(&output.stderr));
}

#[test]
fn cgm_does_what_it_did() {
    let Some(mut daemon) = daemon_for_cgmanager() else { return };
    let sleeper = daemon.sleeper();
    let pid = sleeper.pid();
    let line = |line: &str| line.replace("PID", &pid.to_string());
    for (command, status, said) in [
        ("ping", 0, ""),
        ("apiversion", 0, "10\n"),
        ("create freezer a/b/c", 0, ""),
        ("create freezer a/b/c", 0, "Path existed\n"),
        ("create all a/b/c", 0, "Path existed\n"),
        ("create freezer,name=x,freezer y/z", 0, ""),
        ("create freezer ''", 0, ""),
        ("listchildren x y", 0, "z\n"),
        ("listchildren name=x y/z", 0, ""),
        ("listchildren freezer", 0, "a\ny\n"),
        ("listchildren cpuacct ''", 0, "a\n"),
        // A slash at the front is the root where groups are looked at, and nothing where they are changed.
        ("listchildren freezer /a", 0, "b\n"),
        ("create freezer /a/./b//d", 0, ""),
        ("listchildren freezer a/b", 0, "c\nd\n"),
        ("movepid all a/b PID", 0, ""),
        ("getpidcgroup freezer PID", 0, "a/b\n"),
        ("getpidcgroupabs perf_event PID", 0, "/a/b\n"),
        ("gettasks name=x a/b", 0, "PID\n"),
        ("gettasks freezer a", 0, ""),
        ("gettasksrecursive all a", 0, "PID\n"),
        ("gettasksrecursive freezer,cpuacct y", 0, ""),
        ("setvalue freezer a notify_on_release 1", 0, ""),
        ("getvalue freezer a notify_on_release", 0, "1\n"),
        ("setvalue freezer y freezer.state FROZEN", 0, ""),
        ("getvalue freezer y/z freezer.state", 0, "FROZEN\n"),
        ("setvalue cpuacct a cpuacct.usage 0", 0, ""),
        ("getvalue cpuacct '' cgroup.sane_behavior", 0, "0\n"),
        ("chown all a/b 1000 1001", 0, ""),
        ("chmod freezer a/b 750", 0, ""),
        ("chmodfile freezer a/b tasks 600", 0, ""),
        ("listkeys name=x a/b", 0, NAMED_KEYS),
        // With children or processes in it, it stays.
        ("remove freezer a 0", 1, ""),
        ("remove freezer a", 1, ""),
        ("listchildren freezer a", 0, "b\n"),
        ("listchildren freezer a/b", 0, ""),
        ("movepidabs all / PID", 0, ""),
        ("getpidcgroup x PID", 0, "/\n"),
        ("getpidcgroupabs x PID", 0, "/\n"),
        ("remove all a", 0, ""),
        ("remove freezer a", 0, "Path did not exist\n"),
        ("remove all a", 0, ""),
        ("movepid x y/z PID", 0, ""),
        ("removeonempty x y/z", 0, ""),
        ("create x y/empty/1", 0, ""),
        ("prune x y", 0, ""),
        ("listchildren x y", 0, "z\n"),
        ("movepidabs x '' PID", 0, ""),
        ("create all p/q", 0, ""),
        ("prune all", 0, ""),
    ] {
        says(&daemon, &line(command), status, &line(said));
    }
    eventually("what was emptied is gone", || !daemon.ok(&["tree"]).contains('y'));
    assert_eq!(daemon.ok(&["tree"]).lines().count(), 3, "{}", daemon.ok(&["tree"]));
    let listed = text(&cgm(&daemon, &["listcontrollers"]).stdout);
    let mut listed: Vec<_> = listed.lines().collect();
    listed.sort_unstable();
    assert_eq!(listed, ["cpuacct,perf_event", "freezer", "name=x"]);
    daemon.down();
    assert!(!socket(&daemon).exists(), "the socket goes with the daemon");
}

/// The files of a group that was given away, in a hierarchy without controllers.
const NAMED_KEYS: &str = "cgroup.procs 1000 1001 100644
cgroup.clone_children 0 0 100644
\
                          tasks 1000 1001 100644
notify_on_release 0 0 100644
";

#[test]
fn cgm_exits_with_1_and_says_why() {
    let Some(mut daemon) = daemon_for_cgmanager() else { return };
    let before = daemon.ok(&["tree"]);
    for (line, why) in [
        ("", "Usage: cgm"),
        ("--help", ""),
        ("nonsense", "unrecognized subcommand"),
        ("create freezer", "CGROUP"),
        ("ping x", "unexpected argument"),
        ("create nosuch a", "no controller is called \"nosuch\""),
        ("create pids a", "in no hierarchy"),
        ("create freezer,nosuch a", "no controller is called"),
        ("create freezer ../a", "has no such step"),
        ("create all a/../../b", "has no such step"),
        ("create freezer tasks", "EEXIST"),
        ("remove freezer ''", "EBUSY"),
        ("remove all /", "EBUSY"),
        ("getvalue freezer '' nosuch", "ENOENT"),
        ("getvalue all '' tasks", "no controller is called \"all\""),
        ("gettasks freezer nosuch", "there is no group freezer:nosuch"),
        ("chown all '' x 0", "bad uid or gid \"x\""),
        ("chmod all '' 8", "bad mode \"8\""),
        ("chmod all '' 77777", "four octal digits"),
        ("movepid freezer '' abc", "bad pid"),
        ("movepid freezer '' 0", "no process 0"),
        ("movepid freezer '' -1", "no process -1"),
        ("movepid freezer /a 1", "MovePidAbs"),
        ("movepid freezer '' 4194303", "ESRCH"),
        ("getpidcgroup freezer 4194303", "ESRCH"),
        ("setvalue freezer '' tasks 1", "MovePid"),
        ("setvalue freezer '' cgroup.procs 1", "MovePid"),
        ("setvalue cpuacct '' cpuacct.usage -1", "EINVAL"),
        ("removeonempty freezer nosuch", "ENOENT"),
        ("prune freezer nosuch", "ENOENT"),
    ] {
        let words = line.split(' ').filter(|word| !word.is_empty());
        let words: Vec<_> = words.map(|word| if word == "''" { "" } else { word }).collect();
        let output = cgm(&daemon, &words);
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains(why), "cgm {line}: {output:?}");
    }
    assert_eq!(daemon.ok(&["tree"]), before, "nothing has changed");
    let elsewhere = daemon.command(cgm_in(&daemon)).arg("ping").env("CGM_SOCKET", "/nonexistent").output();
    let elsewhere = elsewhere.unwrap();
    assert_eq!(elsewhere.status.code(), Some(1));
    assert!(text(&elsewhere.stderr).starts_with("cgm: nobody listens at /nonexistent"), "{elsewhere:?}");
    daemon.down();
}

#[test]
fn debians_clients_are_served() {
    let Some(mut daemon) = daemon_for_cgmanager() else { return };
    let sleeper = daemon.sleeper();
    let pid = sleeper.pid();
    let send = "dbus-send --peer=ADDRESS --print-reply OBJECT org.linuxcontainers.cgmanager0_0";
    let gdbus = "gdbus call --address ADDRESS --dest x.y --object-path OBJECT --method org.linuxcontainers.cgmanager0_0";
    for (client, arguments, is_ok, said) in [
        (send, ".Ping int32:0".to_owned(), true, "method return"),
        (send, ".Create string:freezer string:a".to_owned(), true, "int32 -1"),
        (send, ".Create string:freezer string:a".to_owned(), true, "int32 1"),
        (send, ".Create string:all string:a/b".to_owned(), true, "int32 -1"),
        (send, format!(".MovePid string:all string:a int32:{pid}"), true, "method return"),
        (send, format!(".GetPidCgroup string:freezer int32:{pid}"), true, "string \"a\""),
        (send, format!(".GetPidCgroupAbs string:freezer int32:{pid}"), true, "string \"/a\""),
        (send, ".GetTasks string:freezer string:a".to_owned(), true, &format!("{pid}")),
        (send, ".GetTasksRecursive string:all string:".to_owned(), true, &format!("{pid}")),
        (send, ".SetValue string:freezer string:a string:notify_on_release string:1".to_owned(), true, ""),
        (send, ".GetValue string:freezer string:a string:notify_on_release".to_owned(), true, "\"1\""),
        (send, ".SetValue string:freezer string:a string:freezer.state string:THAWED".to_owned(), true, ""),
        (send, ".SetValue string:freezer string:a string:freezer.state string:x".to_owned(), false, INVALID),
        (gdbus, ".ListChildren freezer a".to_owned(), true, "(['b'],)"),
        (gdbus, ".ListKeys freezer a".to_owned(), true, "('cgroup.procs', uint32 0, uint32 0, uint32 33188)"),
        (gdbus, ".Chown all a 7 8".to_owned(), true, "()"),
        (gdbus, ".Chmod freezer a '' 448".to_owned(), true, "()"),
        (gdbus, ".Chmod freezer a tasks 384".to_owned(), true, "()"),
        (gdbus, ".ListKeys freezer a".to_owned(), true, "('tasks', 7, 8, 33152)"),
        (gdbus, ".ListControllers".to_owned(), true, "'name=x'"),
        (gdbus, ".RemoveOnEmpty freezer a/b".to_owned(), true, "()"),
        (gdbus, format!(".MovePidAbs all / {pid}"), true, "()"),
        (gdbus, ".Prune freezer a".to_owned(), true, "()"),
        (gdbus, ".Remove freezer a 1".to_owned(), true, "(-1,)"),
        (gdbus, ".Remove cpuacct a 0".to_owned(), false, INVALID),
        (gdbus, ".Remove cpuacct a 1".to_owned(), true, "(1,)"),
        (gdbus, ".Remove nosuch a 1".to_owned(), false, INVALID),
        (gdbus, ".getPidCgroup freezer 1".to_owned(), false, "UnknownMethod"),
        (
            "gdbus call --address ADDRESS --dest x.y --object-path OBJECT --method",
            " org.freedesktop.DBus.Properties.Get org.linuxcontainers.cgmanager0_0 api_version".to_owned(),
            true,
            "(<10>,)",
        ),
        (
            "gdbus introspect --address ADDRESS --dest x.y --object-path",
            " OBJECT".to_owned(),
            true,
            "ChmodScm(in  s controller,",
        ),
    ] {
        let address = format!("unix:path={}", socket(&daemon).display());
        let line = format!("{client}{arguments}").replace("ADDRESS", &address);
        let line = line.replace("OBJECT", "/org/linuxcontainers/cgmanager");
        let output = Command::new("timeout").args(["60", "sh", "-c", &line]).output().expect("timeout runs");
        if output.status.code() == Some(127) {
            daemon::skip(&format!("needs {}", line.split(' ').next().unwrap_or_default()));
            return;
        }
        let found = text(&output.stdout) + &text(&output.stderr);
        assert!(output.status.success() == is_ok && found.contains(said), "{line}: {found}");
    }
    daemon.ok(&["rm", "-r", "name=x:/a"]);
    daemon.down();
}

/// What every refusal is called.
const INVALID: &str = "org.freedesktop.DBus.Error.InvalidArgs";

/// What the client that speaks by credentials prints; `sh` reads the line.
fn scm(daemon: &Daemon, line: &str) -> String {
    let line = format!("exec {PYTHON} {SCM} {} {line}", socket(daemon).display());
    let output = daemon.command("sh").args(["-c", &line]).output().expect("timeout runs");
    format!("{}{}", text(&output.stdout), text(&output.stderr)).trim_end().to_owned()
}

fn has_python() -> bool {
    let there = std::path::Path::new(PYTHON).exists();
    if !there {
        daemon::skip("needs python3");
    }
    there
}

/// Every method, each as the host's root asks for itself, over both kinds of sockets.
#[test]
fn calls_by_credentials_do_the_same() {
    if !has_python() {
        return;
    }
    let Some(mut daemon) = daemon_for_cgmanager() else { return };
    let sleeper = daemon.sleeper();
    let pid = sleeper.pid();
    let about = format!("about={pid}:0:0");
    for (line, said) in [
        ("CreateScm freezer a/b", "1"),
        ("CreateScm freezer a/b", "2"),
        ("CreateScm freezer a/b type=stream", "2"),
        ("CreateScm all a/b", "2"),
        ("CreateScm freezer ''", "1"),
        ("CreateScm nosuch a", "0"),
        ("CreateScm freezer ../x", "0"),
        (&format!("MovePidScm all a/b {about}"), "1"),
        (&format!("MovePidScm all /a/b {about}"), "0"),
        (&format!("MovePidScm all a/nosuch {about}"), "0"),
        (&format!("GetPidCgroupScm freezer {about}"), "a/b"),
        (&format!("GetPidCgroupAbsScm freezer {about}"), "/a/b"),
        (&format!("GetPidCgroupScm freezer type=stream {about}"), "a/b"),
        ("GetPidCgroupScm freezer", "/"),
        (&format!("GetPidCgroupScm nosuch {about}"), "refused"),
        (&format!("GetPidCgroupScm nosuch type=stream {about}"), "refused"),
        ("GetTasksScm freezer a/b", &pid.to_string()),
        ("GetTasksScm freezer a", ""),
        ("GetTasksScm freezer nosuch", "refused"),
        ("GetTasksRecursiveScm all a type=stream", &pid.to_string()),
        ("SetValueScm freezer a notify_on_release 1", "1"),
        ("GetValueScm freezer a notify_on_release", "1"),
        ("SetValueScm freezer a freezer.state nonsense", "0"),
        ("GetValueScm freezer a nosuch", "refused"),
        ("ChownScm all a/b about=0:1000:1001", "0"),
        (&format!("ChownScm all a/b about={pid}:1000:1001"), "1"),
        ("ChmodScm freezer a/b '' i:488", "1"),
        ("ChmodScm freezer a/b tasks i:384", "1"),
        ("ChmodScm freezer a/b nosuch i:384", "0"),
        ("ListChildrenScm freezer ''", "a"),
        ("ListChildrenScm freezer a/b", ""),
        ("ListChildrenScm freezer nosuch", "refused"),
        ("ListKeysScm name=x a/b", KEYS_ON_THE_LINE),
        ("ListKeysScm name=x nosuch", "refused"),
        ("RemoveScm freezer a i:0", "0"),
        ("RemoveScm freezer nosuch i:0", "1"),
        ("RemoveOnEmptyScm freezer a/b", "1"),
        ("RemoveOnEmptyScm freezer nosuch", "0"),
        (&format!("MovePidAbsScm all / {about}"), "1"),
        ("RemoveScm cpuacct a i:1", "2"),
        ("PruneScm name=x a", "1"),
        ("PruneScm freezer nosuch", "0"),
        ("Nonsense freezer", "UnknownMethod"),
    ] {
        let found = scm(&daemon, line);
        let matches = if said == "UnknownMethod" { found.contains(said) } else { found == said };
        // A process that is none has no credentials to send.
        let unsent = line.contains("about=0:") && found.starts_with("not sent");
        assert!(matches || unsent, "{line}: {found}");
    }
    eventually("the emptied group is gone", || !daemon.ok(&["tree"]).contains("b\n"));
    daemon.ok(&["rm", "-r", "freezer:/a"]);
    daemon.down();
}

const KEYS_ON_THE_LINE: &str = "cgroup.procs 1000 1001 33188
cgroup.clone_children 0 0 33188
\
                                tasks 1000 1001 33188
notify_on_release 0 0 33188";

/// A group for a container, one for another of the same users, and a shell of root in the first.
fn container(daemon: &Daemon) -> Shell {
    let owner = format!("{FIRST}:{FIRST}");
    for group in ["/c", "/d"] {
        daemon.ok(&["create", group]);
        daemon.ok(&["chown", &owner, group]);
    }
    ready(daemon, Shell::of_container(daemon, "/c"))
}

pub(crate) fn ready(daemon: &Daemon, mut shell: Shell) -> Shell {
    shell.run(&format!("export CGM_SOCKET={}; cgm={}", socket(daemon).display(), cgm_in(daemon).display()));
    shell.run(&format!("scm='{PYTHON} {SCM} '$CGM_SOCKET; export scm cgm"));
    shell
}

/// Has a shell run a command that ends well, or badly, and says this.
pub(crate) fn shows(shell: &mut Shell, command: &str, said: &str) {
    let found = shell.run(&format!("timeout 60 {command}"));
    assert!(found.text.trim_end() == said, "{command}: {found:?}");
}

/// Everything that must not change, as the host's root sees it.
fn everything(daemon: &Daemon) -> String {
    let mut all = daemon.ok(&["tree", "--json"]);
    for group in ["/", "/c", "/c/web", "/d"] {
        all += &daemon.ok(&["ls", "-l", group]);
    }
    for group in ["/c", "/c/web", "/d"] {
        all += &daemon.ok(&["get", group, "freezer.state"]);
        all += &daemon.ok(&["get", &format!("freezer:{group}"), "notify_on_release"]);
    }
    all + &daemon.ok(&["tasks", "/c/web"]) + &daemon.ok(&["tasks", "/d"])
}

#[test]
fn a_container_needs_no_proxy() {
    if !has_python() {
        return;
    }
    let Some(mut daemon) = daemon_for_cgmanager() else { return };
    let mut root = container(&daemon);
    for (command, said) in [
        ("$cgm ping", ""),
        ("$cgm create all web/a", ""),
        ("$cgm create freezer web", "Path existed"),
        ("$cgm chown all web/a 7 7", ""),
        ("$cgm getpidcgroup freezer $$", "/"),
        ("$cgm getpidcgroupabs freezer $$", "/"),
        ("$cgm listchildren x", "web"),
        ("$scm CreateScm freezer web", "2"),
        ("$scm CreateScm freezer mine", "1"),
        ("$scm ListChildrenScm freezer ''", "mine web"),
        ("$scm RemoveScm freezer mine i:1", "2"),
        ("$scm GetPidCgroupScm freezer", "/"),
        ("$scm GetPidCgroupAbsScm freezer type=stream", "/"),
        // As its user 7, for whom root in the container may speak; 7 has a group there, by the same numbers.
        ("$scm CreateScm freezer web/a/his who=$$:7:7", "1"),
        ("$scm CreateScm freezer web/his who=$$:7:7", "0"),
        ("$scm ListKeysScm name=x web/a | sed -n 1p", "cgroup.procs 7 7 33188"),
        ("$scm ChownScm freezer web/a about=$$:8:8", "1"),
        ("$scm SetValueScm freezer web/a freezer.state FROZEN", "1"),
        ("$cgm getvalue freezer web/a freezer.state", "FROZEN"),
        ("$cgm setvalue freezer web/a freezer.state THAWED", ""),
    ] {
        shows(&mut root, command, said);
    }
    assert!(daemon.ok(&["ls", "-l", "freezer:/c/web"]).contains("100008 100008 a/"));
    assert!(daemon.ok(&["ls", "-l", "freezer:/c/web/a"]).contains("100007 100007 his/"));
    // A process, by its number in the container and by its credentials: what comes back is such a number too.
    root.run("sleep 600 & sleeper=$!; export sleeper");
    for (command, said) in [
        ("$cgm movepid all web $sleeper", ""),
        ("test $($cgm gettasks freezer web) = $sleeper && echo it", "it"),
        ("$cgm getpidcgroup freezer $sleeper", "web"),
        ("$cgm getpidcgroupabs freezer $sleeper", "/web"),
        ("$scm MovePidScm all web/a about=$sleeper:0:0", "1"),
        ("test $($scm GetTasksScm freezer web/a) = $sleeper && echo it", "it"),
        ("test $($scm GetTasksRecursiveScm all web) = $sleeper && echo it", "it"),
        ("$scm GetPidCgroupScm freezer about=$sleeper:0:0", "web/a"),
        // To where it is already in the container's own group: the way out of a subgroup, and no further.
        ("$scm MovePidAbsScm all / about=$sleeper:0:0", "1"),
        ("$scm GetPidCgroupAbsScm freezer about=$sleeper:0:0", "/"),
    ] {
        shows(&mut root, &format!("sh -c '{command}'"), said);
    }
    // A plain user asks for himself: more, the kernel does not let him say.
    root.enter("setpriv --reuid 8 --regid 8 --clear-groups");
    for (command, said) in [
        ("$scm CreateScm freezer web/a/new", "1"),
        ("$scm CreateScm freezer web/new", "0"),
        ("$scm CreateScm freezer web/new who=$$:8:8", "not sent: Operation not permitted"),
        ("$scm RemoveScm freezer web/a/new i:1", "2"),
        ("$cgm getpidcgroup freezer $$", "/"),
        ("$scm ChownScm freezer web/a", "1"),
        ("$scm MovePidScm freezer web/a", "1"),
    ] {
        shows(&mut root, command, said);
    }
    root.leave();
    root.run("kill $sleeper; wait");
    // What `remove` of a list passes over is what is not the caller's.
    shows(&mut root, "$cgm prune all web", "");
    drop(root);
    daemon.ok(&["rm", "-r", "/c"]);
    daemon.ok(&["rm", "/d"]);
    daemon.down();
}

#[test]
fn a_proxy_on_the_host_asks_for_a_container() {
    if !has_python() {
        return;
    }
    let Some(mut daemon) = daemon_for_cgmanager() else { return };
    let mut root = container(&daemon);
    // The shell, as the host numbers it: the task in /c that is its pid namespace's first.
    let tasks = daemon.ok(&["tasks", "freezer:/c"]);
    let shell = tasks.lines().find(|pid| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("NSpid:") && line.ends_with("\t1"))
    });
    let shell = shell.expect("it runs").to_owned();
    let who = format!("who={shell}:{FIRST}:{FIRST}");
    for (line, said) in [
        (format!("CreateScm freezer web {who}"), "1"),
        (format!("CreateScm freezer ../d/x {who}"), "0"),
        (format!("ListChildrenScm freezer /d {who}"), "refused"),
        (format!("GetPidCgroupScm freezer {who} about={shell}:0:0"), "/"),
        (format!("GetPidCgroupAbsScm freezer {who} about={shell}:0:0"), "/c"),
        (format!("MovePidAbsScm freezer c/web {who} about={shell}:0:0"), "1"),
        (format!("MovePidAbsScm freezer d {who} about={shell}:0:0"), "0"),
        (format!("SetValueScm freezer '' freezer.state FROZEN {who}"), "0"),
        (format!("ChownScm freezer '' {who} about={shell}:0:0"), "0"),
        // The host's root, who is connected, is nobody of the container's: neither is a process of his.
        (format!("GetPidCgroupScm freezer {who} about={}:0:0", std::process::id()), "refused"),
        (format!("MovePidScm freezer '' {who} about={}:0:0", std::process::id()), "0"),
    ] {
        assert_eq!(scm(&daemon, &line), said, "{line}");
    }
    assert!(daemon.ok(&["ls", "-l", "freezer:/c"]).contains(&format!("{FIRST} {FIRST} web/")));
    shows(&mut root, "$cgm getpidcgroup freezer $$", "/");
    drop(root);
    daemon.ok(&["rm", "-r", "/c"]);
    daemon.ok(&["rm", "/d"]);
    daemon.down();
}

#[test]
fn every_way_out_is_shut() {
    if !has_python() {
        return;
    }
    let Some(mut daemon) = daemon_for_cgmanager() else { return };
    let foreign = daemon.sleeper();
    let mut root = container(&daemon);
    daemon.ok(&["move", &foreign.pid().to_string(), "/d"]);
    shows(&mut root, "$cgm create all web", "");
    root.run("sleep 600 & sleeper=$!; export sleeper");
    let before = everything(&daemon);
    let foreign_pid = foreign.pid();
    for refused in [
        // Paths.
        "create all ..",
        "create all web/../../x",
        "create freezer web/tasks",
        "gettasks freezer /",
        "gettasks freezer /d",
        "listchildren freezer /d",
        "listkeys freezer /",
        "getvalue freezer /d tasks",
        "setvalue freezer /d freezer.state FROZEN",
        "gettasks freezer ../d",
        "movepidabs freezer ../d $sleeper",
        "movepidabs freezer d $sleeper",
        // Limits of the own group, and whatever else is set from above.
        "setvalue freezer '' freezer.state FROZEN",
        "setvalue freezer '' notify_on_release 1",
        "setvalue cpuacct '' cpuacct.usage 0",
        "setvalue x / release_agent /bin/sh",
        "remove freezer ''",
        "remove all '' 0",
        "removeonempty freezer ''",
        "chmodfile freezer '' freezer.state 666",
        // Foreign processes, by their numbers on the host.
        &format!("movepid freezer web {foreign_pid}"),
        &format!("getpidcgroup freezer {foreign_pid}"),
        "movepid freezer web -1",
        // Users that are not the container's.
        "chown freezer web 1000 0",
        "chown freezer web 0 100000",
    ] {
        let found = root.run(&format!("timeout 60 $cgm {refused}"));
        assert_eq!(found.status, 1, "cgm {refused}: {found:?}");
    }
    for (line, said) in [
        ("CreateScm freezer ../d/x", "0"),
        ("SetValueScm freezer '' freezer.state FROZEN", "0"),
        ("SetValueScm freezer web tasks $$", "0"),
        ("ChownScm freezer '' about=$$:1000:1000", "not sent: Invalid argument"),
        ("CreateScm freezer x who=$$:100000:0", "not sent: Invalid argument"),
        ("CreateScm freezer x who=4194303:0:0", "not sent: No such process"),
        (&format!("CreateScm freezer x who={foreign_pid}:0:0"), "not sent: No such process"),
        (&format!("MovePidScm freezer web about={foreign_pid}:0:0"), "not sent: No such process"),
    ] {
        let found = root.run(&format!("timeout 60 $scm {line}"));
        let matches =
            if said == "not" { found.text.contains(INVALID) } else { found.text.trim_end() == said };
        assert!(matches, "{line}: {found:?}");
    }
    assert_eq!(everything(&daemon), before, "nothing has changed");
    root.run("kill $sleeper; wait");
    drop((root, foreign));
    daemon.ok(&["rm", "-r", "/c"]);
    daemon.ok(&["rm", "/d"]);
    daemon.down();
}

/// A service of root's that answers whatever comes, at a socket that anybody may connect to. Gives what came.
fn service(daemon: &Daemon) -> (PathBuf, std::thread::JoinHandle<Vec<u8>>) {
    let path = daemon.dir.join("service");
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).expect("a private directory");
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).expect("it is ours");
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("somebody connects");
        stream.set_read_timeout(Some(daemon::PATIENCE)).expect("a socket");
        let mut came = Vec::new();
        let mut byte = [0];
        while matches!(stream.read(&mut byte), Ok(1)) {
            came.push(byte[0]);
            let _ = stream.write_all(b"what?");
        }
        came
    });
    (path, serving)
}

/// The kernel adds the credentials of whoever answers: one who was made to talk has asked for nothing.
#[test]
fn nobody_is_spoken_for_who_does_not_know() {
    if !has_python() {
        return;
    }
    let Some(mut daemon) = daemon_for_cgmanager() else { return };
    let mut root = container(&daemon);
    let mut user = ready(&daemon, Shell::of_user(&daemon, 54321, "/"));
    for shell in [&mut root, &mut user] {
        for method in ["CreateScm freezer taken", "SetValueScm freezer '' freezer.state FROZEN"] {
            let (path, serving) = service(&daemon);
            let said = shell.run(&format!("timeout 60 $scm {method} fd={}", path.display()));
            assert!(said.text.contains("no pair of Unix sockets"), "{method}: {said:?}");
            assert_eq!(serving.join().unwrap(), b"", "not even asked: {method}");
        }
    }
    assert!(!daemon.ok(&["tree"]).contains("taken"));
    drop((root, user));
    daemon.ok(&["rm", "/c"]);
    daemon.ok(&["rm", "/d"]);
    daemon.down();
}

fn sockets(daemon: &Daemon) -> usize {
    let fds = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("the daemon runs").flatten();
    let names = fds.filter_map(|fd| std::fs::read_link(fd.path()).ok());
    names.filter(|name| name.to_string_lossy().starts_with("socket:")).count()
}

/// A client that stays until its input ends.
struct Staying(Child);

impl Staying {
    fn new(daemon: &Daemon, line: &str, said: &str) -> Self {
        let mut command = Command::new(PYTHON);
        command.arg(SCM).arg(socket(daemon)).args(line.split(' ')).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it runs");
        let mut found = String::new();
        let said_by = child.stdout.as_mut().expect("a pipe");
        BufReader::new(said_by).read_line(&mut found).expect("UTF-8");
        assert!(found.starts_with(said), "{line}: {found}");
        Self(child)
    }

    fn leaves(mut self) {
        drop(self.0.stdin.take());
        daemon::wait(self.0).expect("it ends with its input");
    }
}

#[test]
fn who_stalls_or_talks_rubbish_waits_for_himself() {
    if !has_python() {
        return;
    }
    let Some(mut daemon) = daemon_for_cgmanager() else { return };
    let before = sockets(&daemon);
    // One is carried out and 16 wait, each for as long as the daemon's patience lasts; more are refused.
    let stalling = Staying::new(&daemon, "CreateScm freezer never do=stall calls=20", "stalls ");
    let sleeping = Staying::new(&daemon, "GetTasksScm freezer a do=stall type=stream", "stalls 0");
    assert_eq!(scm(&daemon, "CreateScm freezer a"), "1", "others are served meanwhile");
    says(&daemon, "create freezer a", 0, "Path existed\n");
    for line in [
        "CreateScm freezer b do=close",
        "MovePidScm freezer a do=close",
        "CreateScm freezer b do=close type=stream",
    ] {
        assert_eq!(scm(&daemon, line), "closed");
    }
    assert_eq!(scm(&daemon, "CreateScm freezer b do=rubbish type=stream"), "over");
    for (fd, why) in [("/dev/null", "Unix socket"), ("udp", "Unix socket")] {
        let said = scm(&daemon, &format!("CreateScm freezer b fd={fd}"));
        assert!(said.contains(INVALID) && said.contains(why), "{said}");
    }
    // The daemon's own door is no way to have it speak to itself.
    let own = socket(&daemon);
    assert!(scm(&daemon, &format!("CreateScm freezer b fd={}", own.display())).contains("no pair"));
    stalling.leaves();
    sleeping.leaves();
    eventually("every socket is closed", || sockets(&daemon) <= before);
    assert_eq!(text(&cgm(&daemon, &["listchildren", "freezer"]).stdout), "a\n", "nothing else was made");
    daemon.ok(&["rm", "freezer:/a"]);
    daemon.down();
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
}

/// Each user may have so many, but all together less than the daemon has.
#[test]
fn calls_that_wait_leave_the_owner_descriptors_whoever_waits() {
    const MOST: usize = 512;
    let Some(mut daemon) = Daemon::new() else { return };
    serve_through(&mut daemon, &["prlimit", &format!("--nofile={MOST}:{MOST}")]);
    let call = wire::call_of_cgmanager("GetTasksScm", &["freezer", "a"]);
    // As many as the door lets in beside what it keeps.
    let users = 54_400..54_418;
    let mut clients: Vec<_> = users.clone().map(|user| Other::new(user, socket(&daemon))).collect();
    let connected = clients.iter_mut().zip(users).map(|(client, user)| wire::greeted(client.connect(), user));
    let connected: Vec<_> = connected.collect();
    let (mut waiting, mut refused) = (Vec::new(), 0);
    for mut stream in connected {
        for _ in 0..17 {
            let (ours, theirs) = UnixStream::pair().expect("two sockets");
            wire::send_with(&stream, &call, &[theirs.as_fd()]);
            let (is_refused, _) = wire::answer(&mut stream);
            refused += usize::from(is_refused);
            waiting.push(ours);
        }
        waiting.push(stream);
    }
    let open = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("it runs").count();
    assert!(refused > 0 && open <= MOST * 3 / 4 + 8, "{refused} refused, {open} open");
    daemon.ok(&["create", "/a"]);
    daemon.ok(&["ls", "/"]);
    drop(waiting);
    eventually("there is room again", || {
        let open = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("it runs").count();
        open < MOST / 4
    });
    daemon.down();
}

/// Many tasks come over a line that takes few messages at once.
#[test]
fn many_tasks_are_listed_by_credentials() {
    if !has_python() {
        return;
    }
    let Some(mut daemon) = daemon_for_cgmanager() else { return };
    daemon.ok(&["create", "freezer:/many"]);
    let many: Vec<Sleeper> = (0..40).map(|_| daemon.sleeper()).collect();
    for sleeper in &many {
        daemon.ok(&["move", &sleeper.pid().to_string(), "freezer:/many"]);
    }
    let mut pids: Vec<_> = many.iter().map(Sleeper::pid).collect();
    pids.sort_unstable();
    let pids: Vec<_> = pids.into_iter().map(|pid| pid.to_string()).collect();
    for kind in ["dgram", "stream"] {
        assert_eq!(scm(&daemon, &format!("GetTasksScm freezer many type={kind}")), pids.join(" "));
    }
    drop(many);
    daemon.ok(&["rm", "-r", "freezer:/many"]);
    daemon.down();
}

#[test]
fn the_socket_is_where_cgmanagers_is() {
    let Some(mut daemon) = Daemon::new() else { return };
    let v2 = daemon.base.path().parent().unwrap().to_owned();
    std::os::unix::fs::symlink(BINARY, cgm_in(&daemon)).unwrap();
    let script = |daemon: &Daemon, script: &str| {
        let output = daemon.script(script);
        (output.status.success(), text(&output.stdout) + &text(&output.stderr))
    };
    // Below a tmpfs, where cgmanager's own place is.
    let unified = "/sys/fs/cgroup/unified";
    daemon.base.is_seen_in(unified.as_ref());
    let private = format!(
        "mkdir v2 && mount --bind {} v2 && mount -t tmpfs tmpfs /sys/fs/cgroup && mkdir {unified} && \
         mount --bind v2 {unified} && mount -t tmpfs tmpfs /run",
        v2.display()
    );
    assert_eq!(script(&daemon, &private), (true, String::new()));
    let arguments = ["--cgmanager".to_owned()];
    daemon.try_serve(&arguments).unwrap();
    assert_eq!(script(&daemon, "./cgm ping && ls /sys/fs/cgroup/cgmanager"), (true, "sock\n".to_owned()));
    assert_eq!(script(&daemon, "stat -c %a /sys/fs/cgroup/cgmanager/sock"), (true, "666\n".to_owned()));
    daemon.kill();
    assert!(!script(&daemon, "./cgm ping").0, "nobody is there");
    // What was left behind is taken over; a read-only place is none.
    daemon.try_serve(&arguments).unwrap();
    assert!(script(&daemon, "./cgm ping").0);
    daemon.down();
    assert_eq!(
        script(&daemon, "ls /sys/fs/cgroup"),
        (true, "unified\n".to_owned()),
        "its directory goes too"
    );
    assert!(script(&daemon, "mount -o remount,ro /sys/fs/cgroup").0);
    daemon.try_serve(&arguments).unwrap();
    assert_eq!(script(&daemon, "./cgm ping && ls /run/cgmanager"), (true, "sock\n".to_owned()));
    daemon.down();
    assert_eq!(script(&daemon, "test ! -e /run/cgmanager"), (true, String::new()));
}

#[test]
fn a_socket_in_use_is_not_taken() {
    let Some(mut daemon) = Daemon::new() else { return };
    let taken = UnixListener::bind(socket(&daemon)).unwrap();
    let arguments = [format!("--cgmanager={}", socket(&daemon).display())];
    let refused = daemon.try_serve(&arguments).unwrap_err();
    assert!(text(&refused.stderr).contains("in use"), "{}", text(&refused.stderr));
    drop(taken);
    // What is no socket is not taken away; a directory that is not there is not made.
    std::fs::write(daemon.dir.join("file"), "mine").unwrap();
    for place in ["file", "nosuch/sock"] {
        let arguments = [format!("--cgmanager={}", daemon.dir.join(place).display())];
        assert!(daemon.try_serve(&arguments).is_err(), "{place}");
    }
    assert_eq!(std::fs::read_to_string(daemon.dir.join("file")).unwrap(), "mine");
    daemon.try_serve(&arguments).unwrap();
    daemon.down();
    assert!(daemon.dir.exists(), "a directory that somebody gave stays");
}
