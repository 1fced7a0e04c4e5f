//! Waiting for events, never for time.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use pinfold_events::connector::Connector;
use pinfold_events::{Event, Next, Pid, Process, Service, Source, Stream, What};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};

/// Waits until a descriptor is readable; what takes 30 s does not come.
pub(crate) fn wait_for(descriptor: impl AsFd) {
    let patience = Timespec { tv_sec: 30, tv_nsec: 0 };
    let mut wait = [PollFd::new(&descriptor, PollFlags::IN)];
    assert_ne!(poll(&mut wait, Some(&patience)).unwrap(), 0, "nothing came for 30 s");
}

/// Why a test does not run here. In CI nothing is a reason, and in the guest, which has everything, neither.
pub(crate) fn skip(reason: &str) {
    eprintln!("skipped: {reason}");
    assert!(std::env::var_os("CI").is_none_or(|value| value != "true"), "skipped in CI: {reason}");
    assert!(std::env::var_os("PINFOLD_TEST_VM").is_none(), "skipped in the guest: {reason}");
}

/// The service on the kernel's connector; `None`, with the reason printed, where there is none.
pub(crate) fn service() -> Option<Service> {
    match Connector::open() {
        Ok(connector) => Some(Service::start(Source::Connector(Box::new(connector))).unwrap()),
        Err(error) => {
            skip(&error.to_string());
            None
        }
    }
}

/// A source on which nothing is told, and whose socket fails as soon as the other end is dropped.
pub(crate) fn source_that_may_fail() -> (Source, OwnedFd) {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    // Closed with something unread, it is an error of the other end (ECONNRESET).
    send(&ours, b"unread", SendFlags::empty()).unwrap();
    (Source::Connector(Box::new(Connector::reading(ours).unwrap())), theirs)
}

pub(crate) fn own() -> Pid {
    Pid::new(std::process::id()).unwrap()
}

/// A stream, read with patience.
pub(crate) struct Watch(Stream);

impl Watch {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self(Stream::new(socket))
    }

    pub(crate) fn next(&mut self) -> Option<Event> {
        loop {
            match self.0.try_next().unwrap() {
                Next::Event(event) => return Some(event),
                Next::End => return None,
                Next::Nothing => wait_for(&self.0),
            }
        }
    }

    /// Everything up to the first event that `is_last`.
    pub(crate) fn until(&mut self, is_last: impl Fn(&What) -> bool) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            let event = self.next().unwrap_or_else(|| panic!("the stream ended after {events:?}"));
            events.push(event);
            if is_last(&event.what) {
                return events;
            }
        }
    }

    pub(crate) fn until_synced(&mut self) -> Vec<Event> {
        self.until(|what| matches!(what, What::Synced { .. }))
    }

    pub(crate) fn until_exit(&mut self, pid: u32) -> Vec<Event> {
        self.until(|what| matches!(what, What::Exit { process, .. } if number(process) == pid))
    }
}

pub(crate) fn number(process: &Process) -> u32 {
    process.pid.map_or(0, Pid::get)
}

/// An event as text.
pub(crate) fn told(event: &Event) -> String {
    let parent = |parent: &Option<Process>| parent.as_ref().map_or(0, number);
    match &event.what {
        What::Found { process, parent: from, comm, .. } => {
            format!("found {} {} {comm}", parent(from), number(process))
        }
        What::Fork { process, parent: from, comm, .. } => {
            format!("fork {} {} {comm}", parent(from), number(process))
        }
        What::Exec { process, comm } => format!("exec {} {comm}", number(process)),
        What::Exit { process, status, .. } => {
            let status = status.map_or("?".into(), |status| status.to_wait().to_string());
            format!("exit {} {status}", number(process))
        }
        What::Uid { process, ids } => format!("uid {} {} {}", number(process), ids.real, ids.effective),
        What::Gid { process, ids } => format!("gid {} {} {}", number(process), ids.real, ids.effective),
        What::Sid { process } => format!("sid {}", number(process)),
        What::Comm { process, comm } => format!("comm {} {comm}", number(process)),
        What::Left { process } => format!("left {}", number(process)),
        What::Gap => "gap".into(),
        What::Synced { .. } => "synced".into(),
    }
}

/// A program that waits to be told what to do, killed and reaped in the end.
pub(crate) struct Actor {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Actor {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (to, from) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, to, from }
    }

    /// A shell that begins with the script when it is told to go.
    pub(crate) fn shell(script: &str) -> Self {
        Self::start(Command::new("sh").args(["-c", &format!("read go; {script}")]))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn say(&mut self, line: &str) {
        let to = self.to.as_mut().unwrap();
        writeln!(to, "{line}").unwrap();
        to.flush().unwrap();
    }

    /// Nothing more is said to it, and it has ended.
    pub(crate) fn finish(&mut self) {
        self.to = None;
        self.wait();
    }

    pub(crate) fn hear(&mut self) -> String {
        let mut line = String::new();
        if self.from.buffer().is_empty() {
            wait_for(self.from.get_ref());
        }
        self.from.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The lines up to one that begins like this, that one included.
    pub(crate) fn hear_until(&mut self, start: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let line = self.hear();
            assert!(!line.is_empty(), "the other end is silent after {lines:#?}");
            let is_last = line.starts_with(start);
            lines.push(line);
            if is_last {
                return lines;
            }
        }
    }

    pub(crate) fn wait(&mut self) {
        self.child.wait().unwrap();
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
