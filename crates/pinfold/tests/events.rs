//! `pinfold events` and `Subscribe`: who is told of what.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::capturing::play;
use crate::daemon::{BINARY, Daemon, copy_program, eventually, kernel_tells, readable, skip, text, wait};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// A program that prints lines, as `pinfold events --json` does.
pub(crate) struct Heard {
    child: Child,
    lines: BufReader<ChildStdout>,
    input: Option<ChildStdin>,
}

impl Heard {
    fn new(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program runs");
        let lines = BufReader::new(child.stdout.take().expect("a pipe"));
        let input = child.stdin.take();
        Self { child, lines, input }
    }

    /// A subscriber of the daemon's realm, which has heard what is there.
    pub(crate) fn events(daemon: &Daemon, arguments: &[&str]) -> (Self, Vec<String>) {
        let mut command = Command::new(BINARY);
        command.args(["events", "--json"]).args(arguments).env("PINFOLD_STATE", daemon.state());
        let mut heard = Self::new(&mut command);
        let found = heard.until(&["\"event\":\"synced\""]);
        (heard, found)
    }

    fn line(&mut self) -> String {
        self.line_after(&[])
    }

    fn line_after(&mut self, heard: &[String]) -> String {
        let is_there = !self.lines.buffer().is_empty() || readable(self.lines.get_ref());
        assert!(is_there, "nothing is said after {heard:#?}");
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("text");
        line
    }

    /// The lines up to the first that has all of these in it.
    pub(crate) fn until(&mut self, parts: &[&str]) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let line = self.line_after(&lines);
            assert_ne!(line, "", "it ended without {parts:?}: {lines:#?}{}", self.complaint());
            lines.push(line);
            if parts.iter().all(|part| lines.last().is_some_and(|line| line.contains(part))) {
                return lines;
            }
        }
    }

    fn say(&mut self, line: &str) {
        writeln!(self.input.as_mut().expect("a pipe"), "{line}").expect("it listens");
    }

    fn complaint(&mut self) -> String {
        let mut said = String::new();
        if let Some(mut err) = self.child.stderr.take() {
            std::io::Read::read_to_string(&mut err, &mut said).expect("text");
        }
        said
    }

    /// Ctrl-C. Gives the exit status.
    fn interrupt(mut self) -> Option<i32> {
        let pidfd = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty()).expect("it is our child");
        pidfd_send_signal(pidfd, Signal::INT).expect("it is our child");
        let mut gone = Command::new("true").spawn().expect("true runs");
        std::mem::swap(&mut gone, &mut self.child);
        wait(gone).expect("it ends").code()
    }
}

impl Drop for Heard {
    fn drop(&mut self) {
        // Reaped or not, a Child knows: no number is signalled that is not ours.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_process_is_followed_to_its_end_and_ctrl_c_ends_well() {
    let Some(mut daemon) = Daemon::serving("none,name=x:cg") else { return };
    let sleeper = daemon.sleeper();
    let pid = sleeper.pid();
    let (mut heard, found) = Heard::events(&daemon, &["--pid", &pid.to_string()]);
    assert_eq!(found.len(), 2, "one process and `synced`: {found:?}");
    assert!(found[0].contains(&format!("\"event\":\"found\",\"pid\":{pid},")), "{found:?}");
    sleeper.end();
    let rest = heard.until(&["\"event\":\"exit\"", &format!("\"pid\":{pid},"), "\"signal\":9"]);
    assert_eq!(rest.len(), 1, "nothing else happened to it: {rest:?}");
    assert_eq!(heard.interrupt(), Some(0));
    daemon.down();
}

#[test]
fn a_group_is_followed_through_births_and_moves() {
    if !kernel_tells() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("none,name=x:cg") else { return };
    daemon.ok(&["create", "/a"]);
    daemon.ok(&["create", "/a/b"]);
    let (one, two) = (daemon.sleeper(), daemon.sleeper());
    daemon.ok(&["move", &one.pid().to_string(), "/a"]);
    let (mut heard, found) = Heard::events(&daemon, &["--group", "/a"]);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains(&format!("\"found\",\"pid\":{},", one.pid())), "{found:?}");
    // Who comes, below too, is found; who goes has left, and is not told of any more.
    daemon.ok(&["move", &two.pid().to_string(), "/a/b"]);
    heard.until(&["\"found\"", &format!("\"pid\":{},", two.pid())]);
    daemon.ok(&["move", &one.pid().to_string(), "/"]);
    heard.until(&["\"left\"", &format!("\"pid\":{},", one.pid())]);
    let gone = format!("\"pid\":{},", one.pid());
    one.end();
    // A child of the group is told of from its birth to its end.
    let go = daemon.dir.join("go");
    let script = format!("until [ -e {} ]; do :; done; sh -c 'exit 7'; exit 0", go.display());
    let mut command = daemon.command(BINARY);
    let running =
        command.args(["exec", "-g", "/a", "--", "sh", "-c", &script]).spawn().expect("timeout runs");
    eventually("the shell is there", || daemon.numbers("cg/a/cgroup.procs").len() == 1);
    let shell = daemon.numbers("cg/a/cgroup.procs")[0];
    heard.until(&["\"found\"", &format!("\"pid\":{shell},")]);
    std::fs::write(go, "").expect("the test's own directory");
    let lines = heard.until(&["\"exit\"", &format!("\"pid\":{shell},"), "\"code\":0"]);
    let born = lines.iter().position(|line| line.contains(&format!("\"parent\":{shell},")));
    let died = lines.iter().position(|line| line.contains("\"code\":7"));
    assert!(born.expect("the child is born") < died.expect("the child ends"), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains(&gone)), "{lines:#?}");
    wait(running).expect("it has ended");
    let both =
        [lines, vec![heard.interrupt().map_or_else(String::new, |status| status.to_string())]].concat();
    assert_eq!(both.last().map(String::as_str), Some("0"));
    two.end();
    daemon.down();
}

/// Attached, and killed as soon as that is done: its stay was short, and is told of.
#[test]
fn who_is_killed_right_after_its_attach_is_told_of_with_its_end() {
    let Some(mut daemon) = Daemon::serving("none,name=x:cg") else { return };
    daemon.ok(&["create", "/a"]);
    let tasks = daemon.path("cg/a/tasks");
    let (mut heard, _) = Heard::events(&daemon, &["--group", "/a"]);
    for round in 0..30 {
        let sleeper = daemon.sleeper();
        let pid = sleeper.pid();
        std::fs::write(&tasks, pid.to_string()).expect("it is attached");
        sleeper.end();
        let lines = heard.until(&["\"exit\"", &format!("\"pid\":{pid},")]);
        let first = lines.iter().find(|line| line.contains(&format!("\"pid\":{pid},")));
        assert!(first.is_some_and(|line| line.contains("\"found\"")), "round {round}: {lines:#?}");
    }
    drop(heard);
    daemon.down();
}

/// Two processes in a group and in one below it, taken down.
const TAKEN_DOWN: &str = r#"
set -e
# Numbers that nobody has when they are put up again.
echo 500 >/proc/sys/kernel/ns_last_pid
setsid sh -c 'sleep 1000 & exec sleep 1000' </dev/null >/dev/null 2>&1 &
until child=$(cat /proc/$!/task/$!/children) && [ "$child" ]; do :; done
$PINFOLD create -p /a/b
$PINFOLD move $! /a
$PINFOLD move $child /a/b
$PINFOLD capture /a -o file
$PINFOLD kill /a
"#;

/// And put up again, not for long.
const PUT_UP: &str = r#"
status=0
$PINFOLD restart file -- sh -c '(exit 5); exit 3' || status=$?
[ $status = 3 ] || exit 1
until [ ! "$($PINFOLD tasks --recursive /a)" ]; do :; done
"#;

/// They are born in the group's directory, to parents that are in no group or in another: of no birth the kernel says into which
/// directory.
#[test]
fn who_is_restarted_into_a_group_is_told_of_from_before_it_runs_to_its_end() {
    if !kernel_tells() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("none,name=x:cg") else { return };
    play(&daemon, TAKEN_DOWN);
    let (mut heard, found) = Heard::events(&daemon, &["--group", "/a"]);
    assert_eq!(found.len(), 1, "nobody is there: {found:?}");
    play(&daemon, PUT_UP);
    let ends = ["\"exit\"", "\"code\":3"];
    let lines = [heard.until(&ends), heard.until(&ends)].concat();
    let of = |pid: u32| lines.iter().filter(move |line| pid_of(line) == pid);
    let restarted: Vec<u32> =
        lines.iter().filter(|line| line.contains("\"code\":3")).map(|line| pid_of(line)).collect();
    for pid in &restarted {
        let told: Vec<&str> = of(*pid).map(|line| line.split('"').nth(5).expect("an event")).collect();
        assert_eq!(told.first(), Some(&"found"), "{lines:#?}");
        assert!(told.contains(&"exec") && told.last() == Some(&"exit"), "{lines:#?}");
        let born: Vec<u32> = lines
            .iter()
            .filter(|line| line.contains(&format!("\"parent\":{pid},")) && line.contains("\"fork\""))
            .map(|line| pid_of(line))
            .collect();
        let [child] = born[..] else { panic!("{born:?} are the children of {pid}: {lines:#?}") };
        assert!(of(child).any(|line| line.contains("\"code\":5")), "{lines:#?}");
    }
    drop(heard);
    daemon.down();
}

#[test]
fn nothing_runs_while_nobody_listens() {
    let Some(mut daemon) = Daemon::serving("none,name=x:cg") else { return };
    let tasks = format!("/proc/{}/task", daemon.pid());
    let runs = || {
        let names = std::fs::read_dir(&tasks).expect("the daemon runs").flatten();
        let mut names = names.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        names.any(|name| name == "events\n")
    };
    // A thread gives itself its name: it may have another for a moment.
    assert!(!runs());
    let (first, _) = Heard::events(&daemon, &[]);
    let (second, _) = Heard::events(&daemon, &["--pid", "1"]);
    eventually("the service runs", runs);
    assert_eq!(first.interrupt(), Some(0));
    eventually("the service runs", runs);
    assert_eq!(second.interrupt(), Some(0));
    eventually("the service ends with its last subscriber", || !runs());
    // And begins again.
    let (third, _) = Heard::events(&daemon, &[]);
    eventually("the service runs", runs);
    drop(third);
    daemon.down();
}

#[test]
fn a_stream_that_the_daemon_ends_is_a_failure() {
    let Some(mut daemon) = Daemon::serving("none,name=x:cg") else { return };
    let (mut heard, _) = Heard::events(&daemon, &["--pid", "1"]);
    daemon.down();
    while heard.line() != "" {}
    assert_eq!(heard.child.wait().expect("it is our child").code(), Some(1));
    assert_eq!(heard.complaint(), "pinfold: the daemon has ended the stream\n");
}

#[test]
fn what_cannot_be_followed_is_refused() {
    let Some(mut daemon) = Daemon::serving("none,name=x:cg") else { return };
    let said = daemon.refused(&["events", "--pid", "4000000"]);
    assert_eq!(said, "pinfold: no process 4000000 (ESRCH)\n");
    let said = daemon.refused(&["events", "--group", "/no"]);
    assert!(said.contains("/no") && said.contains("(ENOENT)"), "{said}");
    daemon.down();
    // It would wait for its own answer.
    let own = format!("{}.public", daemon.state().display());
    let output = daemon.try_serve(&["--outer".to_owned(), own.clone()]).expect_err("its own");
    let said = text(&output.stderr);
    assert!(said.ends_with(&format!("pinfold: --outer {own} is this daemon's own directory\n")), "{said}");
}

/// A directory for a copy of the binary that everybody may run, and for sockets; removed in the end.
struct Ground(PathBuf);

impl Ground {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("pinfold-ev-{name}-{}", std::process::id()));
        std::fs::create_dir(&dir).expect("a directory");
        std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o777)).expect("our directory");
        copy_program(BINARY, dir.join("pinfold"));
        Self(dir)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const NOBODY: &str = "setpriv --reuid 65534 --regid 65534 --clear-groups";

#[test]
fn any_user_may_listen() {
    let Some(mut daemon) = Daemon::serving("none,name=x:cg") else { return };
    let ground = Ground::new("user");
    let (pinfold, state) = (ground.path("pinfold"), daemon.state().display().to_string());
    let script = format!("exec {NOBODY} {pinfold} events --json --pid $$ --state {state}");
    let mut heard = Heard::new(Command::new("sh").args(["-c", &script]));
    let found = heard.until(&["\"event\":\"synced\""]);
    assert!(found[0].contains("\"uid\":65534"), "{found:?}");
    drop(heard);
    daemon.down();
}

/// A user's daemon may trace nobody else's processes. It serves whoever is in its own pid namespace, and tells others why not, without a
/// number of its own.
#[test]
fn a_daemon_without_the_right_to_trace_serves_other_users_of_its_pid_namespace() {
    let ground = Ground::new("untraced");
    let (pinfold, state) = (ground.path("pinfold"), ground.path("state"));
    let mut command = Command::new("sh");
    let serve = format!("exec {NOBODY} {pinfold} serve --events-only --state {state}");
    let mut daemon = Heard::new(command.args(["-c", &serve]));
    let socket = PathBuf::from(format!("{state}.public/socket"));
    eventually("the daemon serves", || socket.exists());
    const SOMEBODY: &str = "setpriv --reuid 12345 --regid 12346 --clear-groups";
    for who in [SOMEBODY, NOBODY, ""] {
        for scope in ["", "--pid $$"] {
            let script = format!("exec {who} {pinfold} events --json {scope} --state {state}");
            let mut heard = Heard::new(Command::new("sh").args(["-c", &script]));
            let pid = heard.child.id();
            let found = heard.until(&["\"event\":\"synced\""]);
            let own = found.iter().find(|line| line.contains(&format!("\"pid\":{pid},")));
            let own = own.unwrap_or_else(|| panic!("{who} {scope}: {found:#?}"));
            assert!(who != SOMEBODY || own.contains("\"uid\":12345,\"euid\":12345,\"gid\":12346"), "{own}");
        }
    }
    let inside = format!("unshare --pid --fork --kill-child --mount-proc {pinfold} events --state {state}");
    for scope in ["", " --pid 1"] {
        let output =
            Command::new("sh").args(["-c", &format!("exec {inside}{scope}")]).output().expect("sh runs");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("(EACCES)"), "{said}");
        let has_number =
            said.split("/proc/").skip(1).any(|path| path.starts_with(|c: char| c.is_ascii_digit()));
        assert!(!has_number, "{said}");
    }
    let _ = daemon.child.kill();
}

/// What one level of the nesting runs: a pinfold that has the outer one's socket directory and nothing else, and its own
/// subscriber, whose lines begin with the level; then `inner`.
fn level(ground: &Ground, number: u32, outer: &str, inner: &str) -> String {
    let (pinfold, state) = (ground.path("pinfold"), ground.path(&number.to_string()));
    format!(
        "setpriv --pdeathsig KILL -- {pinfold} serve --events-only --outer {outer} --state {state} & \
         until [ -S {state}.public/socket ]; do :; done; \
         {pinfold} events --json --state {state} | sed -u 's/^/{number} /' & {inner}"
    )
}

/// A pinfold in a container, and one in a container in that: each serves its own subscribers in their own numbers.
fn nest(name: &str, unshare: &str, first: &str) {
    if !kernel_tells() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("none,name=x:cg") else { return };
    let ground = Ground::new(name);
    let (mut host, _) = Heard::events(&daemon, &[]);
    let innermost = "while read line; do eval \"$line\"; done";
    let second = level(&ground, 2, &ground.path("1.public"), innermost);
    std::fs::write(ground.path("second"), second).expect("our directory");
    let enter = |file: &str| format!("{unshare} sh {}", ground.path(file));
    let state = format!("{}.public", daemon.state().display());
    // A shell of the first level stays: its background jobs would lose their parent.
    let inner = format!("{}; wait", enter("second"));
    std::fs::write(ground.path("first"), level(&ground, 1, &state, &inner)).expect("our directory");
    let command = format!("exec {first} {}", enter("first"));
    let mut nest = Heard::new(Command::new("sh").args(["-c", &command]));
    // Each is a moment behind the one outside: a process may be told of after the list that a stream begins with.
    let mut lines = Vec::new();
    for awaited in [["1 {", "\"event\":\"synced\""], ["2 {", "\"event\":\"synced\""], ["2 {", "\"pid\":1,"]] {
        let is_it = |line: &String| awaited.iter().all(|part| line.contains(part));
        while !lines.iter().any(is_it) {
            lines.push(nest.line_after(&lines));
            assert_ne!(lines.last().map(String::as_str), Some(""), "{lines:#?}{}", nest.complaint());
        }
    }
    // Nothing outside is told of: the first process there is has no parent.
    let init = lines.iter().find(|line| line.starts_with("2 ") && line.contains("\"pid\":1,"));
    assert!(init.is_some_and(|line| line.contains("\"parent\":0,")), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains("\"gap\"")), "{lines:#?}");
    nest.say("sleep 1000 & ");
    let mut numbers = Vec::new();
    for level in ["2 {", "1 {"] {
        let is_it = |line: &&String| {
            line.starts_with(level) && line.contains("\"exec\"") && line.contains("\"comm\":\"sleep\"")
        };
        while lines.iter().rfind(is_it).is_none() {
            lines.extend(nest.until(&["\"exec\"", "\"comm\":\"sleep\""]));
        }
        numbers.push(pid_of(lines.iter().rfind(is_it).expect("it was heard")));
    }
    let [two, one] = numbers[..] else { unreachable!("two levels") };
    let told = loop {
        let line = host.until(&["\"exec\"", "\"comm\":\"sleep\""]).pop().expect("the last line");
        let status = std::fs::read_to_string(format!("/proc/{}/status", pid_of(&line))).unwrap_or_default();
        if status.contains(&format!("\t{one}\t{two}\n")) {
            break pid_of(&line);
        }
    };
    nest.say("kill -15 $!");
    let mut heard = Vec::new();
    for exit in [format!("1 {{ {one}"), format!("2 {{ {two}")] {
        let (level, pid) = exit.split_once(" { ").expect("as written");
        let parts = |line: &String| {
            line.starts_with(level)
                && line.contains(&format!("\"pid\":{pid},"))
                && line.contains("\"exit\"")
                && line.contains("\"signal\":15")
        };
        while !heard.iter().any(parts) {
            heard.push(nest.line_after(&heard));
            assert_ne!(heard.last().map(String::as_str), Some(""), "{heard:#?}{}", nest.complaint());
        }
    }
    host.until(&["\"exit\"", &format!("\"pid\":{told},"), "\"signal\":15"]);
    drop(nest);
    drop(host);
    daemon.down();
}

#[test]
fn an_outer_daemon_that_is_killed_is_a_gap_until_the_next_one() {
    if !kernel_tells() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("none,name=x:cg") else { return };
    let (stays, goes) = (daemon.sleeper(), daemon.sleeper());
    let ground = Ground::new("outer");
    let outer = format!("{}.public", daemon.state().display());
    let script = level(&ground, 1, &outer, "while read line; do eval \"$line\"; done; kill $!; wait");
    let mut inner = Heard::new(Command::new("sh").args(["-c", &script]));
    inner.until(&["\"synced\""]);
    daemon.kill();
    inner.until(&["\"gap\""]);
    let gone = goes.pid();
    goes.end();
    daemon.serve("");
    let difference = inner.until(&["\"synced\""]);
    // Exactly the difference: who stayed is not told of again, who went has ended, nobody saw how.
    let about = |pid: u32| {
        let lines = difference.iter().filter(move |line| line.contains(&format!("\"pid\":{pid},")));
        lines.cloned().collect::<Vec<_>>()
    };
    assert_eq!(about(stays.pid()), Vec::<String>::new());
    let [end] = &about(gone)[..] else { panic!("not one end: {difference:#?}") };
    assert!(end.contains("\"exit\"") && !end.contains("\"signal\""), "{end}");
    // And from then on as it happens.
    let signalled = stays.pid();
    stays.end();
    inner.until(&["\"exit\"", &format!("\"pid\":{signalled},"), "\"signal\":9"]);
    drop(inner);
    daemon.down();
}

/// Its parent has ended before anybody could tell whose child it is: who is in the group says who belongs to it.
#[test]
fn who_was_born_into_a_group_in_a_gap_is_found() {
    if !kernel_tells() {
        return;
    }
    let Some(mut outer) = Daemon::serving("none,name=x:cg") else { return };
    let Some(mut daemon) = Daemon::new() else { return };
    let mount = format!("none,name=x:{}", daemon.dir.join("cg").display());
    let public = format!("{}.public", outer.state().display());
    let arguments = ["--mount", &mount, "--outer", &public].map(str::to_owned);
    daemon.try_serve(&arguments).expect("it serves");
    daemon.ok(&["create", "/a"]);
    let (mut heard, _) = Heard::events(&daemon, &["--group", "/a"]);
    outer.kill();
    heard.until(&["\"gap\""]);
    daemon.ok(&["exec", "-g", "/a", "--", "sh", "-c", "sleep 600 >/dev/null 2>&1 &"]);
    eventually("the shell has ended", || daemon.numbers("cg/a/cgroup.procs").len() == 1);
    let orphan = daemon.numbers("cg/a/cgroup.procs")[0];
    outer.serve("");
    // It is part of the difference, and told before the end of the gap.
    let difference = heard.until(&["\"event\":\"synced\""]);
    let is_found = |line: &String| line.contains("\"found\"") && line.contains(&format!("\"pid\":{orphan},"));
    assert!(difference.iter().any(is_found), "{orphan}: {difference:#?}");
    daemon.ok(&["kill", "/a"]);
    heard.until(&["\"exit\"", &format!("\"pid\":{orphan},"), "\"signal\":9"]);
    drop(heard);
    daemon.down();
    outer.down();
}

fn pid_of(line: &str) -> u32 {
    let digits = line.split_once("\"pid\":").expect("a process").1;
    let end = digits.find(|c: char| !c.is_ascii_digit()).expect("more follows");
    digits[..end].parse().expect("a number")
}

#[test]
fn pinfolds_in_containers_two_deep_serve_their_own() {
    nest("root", "unshare --pid --fork --kill-child --mount-proc", "");
}

#[test]
fn pinfolds_of_an_unprivileged_user_nest_as_deep() {
    let unshare = "unshare --user --map-root-user --pid --fork --kill-child --mount-proc";
    let works = Command::new("sh").args(["-c", &format!("{NOBODY} {unshare} true")]).status();
    if !works.is_ok_and(|status| status.success()) {
        return skip("unprivileged users may not make namespaces here");
    }
    nest("user", unshare, NOBODY);
}
