//! Who reads: a bare reader of the netlink socket, and a subscriber of the daemon's. Each is one thread.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use pinfold_events::change::Kind;
use pinfold_events::connector::Connector;
use pinfold_events::datagram::{self, Message};
use pinfold_events::proc::now;
use pinfold_events::{Event, Next, Pid, Started, Stream, What};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, recv};

/// How long the last events may be under way.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a reader has seen.
#[derive(Clone, Default)]
pub(crate) struct Seen {
    /// From the kernel's time stamp of each fork of the storm's until it was read, in nanoseconds.
    pub(crate) latency: Vec<u64>,
    pub(crate) gaps: u64,
}

/// A thread that reads.
pub(crate) struct Reading {
    thread: JoinHandle<Seen>,
    complete: Receiver<u32>,
    /// Its number as a task.
    task: u32,
    stop: Arc<AtomicBool>,
}

impl Reading {
    /// `read` is told when to stop, and tells `Told` of what it sees.
    fn start(
        roots: Vec<Pid>,
        forks: u64,
        read: impl FnOnce(&AtomicBool, &mut Told) + Send + 'static,
    ) -> Self {
        let (sender, complete) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stops = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            sender.send(rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs()).unwrap();
            let roots = roots.into_iter().collect();
            let mut told = Told { seen: Seen::default(), roots, forks, complete: sender };
            read(&stops, &mut told);
            told.seen
        });
        let task = complete.recv().unwrap();
        Self { thread, complete, task, stop }
    }

    /// Receives every datagram by itself, decodes it and counts.
    pub(crate) fn bare(roots: Vec<Pid>, forks: u64) -> Self {
        let connector = Connector::open().unwrap();
        Self::start(roots, forks, move |stop, told| {
            let mut buffer = [0; 256];
            while !stop.load(Ordering::Relaxed) {
                let Ok((length, _)) = recv(&connector, &mut buffer[..], RecvFlags::DONTWAIT) else {
                    wait(&[&connector]);
                    continue;
                };
                let Ok(Message::Event { change: Some(change), .. }) =
                    datagram::decode(&buffer[..length], Some(0))
                else {
                    continue;
                };
                if let Kind::Fork { parent } = change.what {
                    told.fork(parent, change.time.0);
                }
            }
        })
    }

    /// Reads the streams of subscriptions.
    pub(crate) fn of(sockets: Vec<OwnedFd>, roots: Vec<Pid>, forks: u64) -> Self {
        let mut streams: Vec<Followed> = sockets.into_iter().map(Followed::new).collect();
        // What was there before the storm.
        streams.iter_mut().for_each(|followed| while !followed.read(|_| ()) {});
        Self::start(roots, forks, move |stop, told| {
            while !stop.load(Ordering::Relaxed) {
                wait(&streams);
                for followed in &mut streams {
                    followed.read(|event| match event.what {
                        What::Fork { parent, .. } => told.fork(parent.and_then(|p| p.pid), event.time.0),
                        What::Gap => told.seen.gaps += 1,
                        _ => {}
                    });
                }
            }
        })
    }

    /// What it has taken of the CPUs so far, in nanoseconds.
    pub(crate) fn cpu_time(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/self/task/{}/schedstat", self.task)).unwrap();
        text.split(' ').next().unwrap().parse().unwrap()
    }

    /// Waits until all forks were seen, or nothing more comes.
    pub(crate) fn finish(&self) {
        let _ = self.complete.recv_timeout(PATIENCE);
    }

    /// Ends it.
    pub(crate) fn end(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// What a reader tells.
struct Told {
    seen: Seen,
    roots: HashSet<Pid>,
    forks: u64,
    complete: Sender<u32>,
}

impl Told {
    fn fork(&mut self, parent: Option<Pid>, time: u64) {
        if parent.is_some_and(|parent| self.roots.contains(&parent)) {
            self.seen.latency.push(now().0.saturating_sub(time));
            if self.seen.latency.len() as u64 == self.forks {
                let _ = self.complete.send(0);
            }
        }
    }
}

/// A stream, and whether it keeps its promises.
struct Followed {
    stream: Stream,
    alive: HashMap<Started, Option<Pid>>,
    /// What was told since a gap: found, gone, changed.
    gap: Option<[u32; 3]>,
}

impl Followed {
    fn new(socket: OwnedFd) -> Self {
        Self { stream: Stream::new(socket), alive: HashMap::new(), gap: Some([0; 3]) }
    }

    /// Reads what is there; answers whether the first difference was complete.
    fn read(&mut self, mut tell: impl FnMut(&Event)) -> bool {
        loop {
            match self.stream.try_next().unwrap() {
                Next::Event(event) => {
                    self.check(&event);
                    tell(&event);
                }
                Next::Nothing if self.gap.is_none() => return true,
                Next::Nothing => {
                    wait(&[&self.stream]);
                    return false;
                }
                Next::End => panic!("the daemon has ended the stream"),
            }
        }
    }

    /// First and last events once each, and after a gap exactly what is told to have been missed.
    fn check(&mut self, event: &Event) {
        let index = match event.what {
            What::Found { process, .. } | What::Fork { process, .. } => {
                let before = self.alive.insert(process.started, process.pid);
                assert!(before.is_none(), "told of twice: {event:?}");
                0
            }
            What::Exit { process, .. } | What::Left { process } => {
                assert!(self.alive.remove(&process.started).is_some(), "never told of: {event:?}");
                1
            }
            What::Gap => {
                self.gap = Some([0; 3]);
                return;
            }
            What::Synced { found, gone, changed } => {
                assert_eq!(self.gap.take(), Some([found, gone, changed]), "not what was resynced");
                return;
            }
            _ => 2,
        };
        self.gap.iter_mut().for_each(|counts| counts[index] += 1);
    }
}

impl AsFd for Followed {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Waits until one of them is readable, for a moment at most.
fn wait(descriptors: &[impl AsFd]) {
    let patience = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
    let mut wait: Vec<_> = descriptors.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    poll(&mut wait, Some(&patience)).unwrap();
}
