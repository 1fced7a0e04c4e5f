//! `pinfold events` and `Subscribe`: who is told of what.

mod daemon;

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use daemon::{BINARY, Daemon, eventually, readable, wait};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// A program that prints lines, as `pinfold events --json` does.
struct Heard {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Heard {
    fn new(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program runs");
        let lines = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, lines }
    }

    /// A subscriber of the daemon's realm, which has heard what is there.
    fn events(daemon: &Daemon, arguments: &[&str]) -> (Self, Vec<String>) {
        let mut command = Command::new(BINARY);
        command.args(["events", "--json"]).args(arguments).env("PINFOLD_STATE", daemon.state());
        let mut heard = Self::new(&mut command);
        let found = heard.until(&["\"event\":\"synced\""]);
        (heard, found)
    }

    fn line(&mut self) -> String {
        assert!(!self.lines.buffer().is_empty() || readable(self.lines.get_ref()), "nothing is said");
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("text");
        line
    }

    /// The lines up to the first that has all of these in it.
    fn until(&mut self, parts: &[&str]) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let line = self.line();
            assert_ne!(line, "", "it ended without {parts:?}: {lines:#?}{}", self.complaint());
            lines.push(line);
            if parts.iter().all(|part| lines.last().is_some_and(|line| line.contains(part))) {
                return lines;
            }
        }
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

/// Whether this kernel tells of events here: in a container it does not.
fn kernel_tells() -> bool {
    let tells = pinfold_events::Source::connector().is_ok();
    if !tells {
        eprintln!("skipped: the proc connector does not serve here");
    }
    tells
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
    let shell = daemon.ok(&["exec", "-g", "/a", "--", "sh", "-c", "sh -c 'exit 7'; echo $$"]);
    let shell = shell.trim();
    let lines = heard.until(&["\"exit\"", &format!("\"pid\":{shell},"), "\"code\":0"]);
    let born = lines.iter().position(|line| line.contains(&format!("\"parent\":{shell},")));
    let died = lines.iter().position(|line| line.contains("\"code\":7"));
    assert!(born.expect("the child is born") < died.expect("the child ends"), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains(&gone)), "{lines:#?}");
    let both =
        [lines, vec![heard.interrupt().map_or_else(String::new, |status| status.to_string())]].concat();
    assert_eq!(both.last().map(String::as_str), Some("0"));
    two.end();
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
    assert!(!runs());
    let (first, _) = Heard::events(&daemon, &[]);
    let (second, _) = Heard::events(&daemon, &["--pid", "1"]);
    assert!(runs());
    assert_eq!(first.interrupt(), Some(0));
    assert!(runs());
    assert_eq!(second.interrupt(), Some(0));
    eventually("the service ends with its last subscriber", || !runs());
    // And begins again.
    let (third, _) = Heard::events(&daemon, &[]);
    assert!(runs());
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
}
