//! Descriptors of other processes: an eventfd that is signalled, and the control file that says what for.
//!
//! A descriptor that is taken over ([`Listener`]) is closed by us, and closing a file asks its file system, which may be
//! our own mount or one that never answers. So nothing is taken over that is not an eventfd: what it is, is found out by a
//! thread that has no other descriptor, and is left behind with it. What a control file is, is asked about without a
//! descriptor of it, and of the kernel's memory only.
//!
//! Out of scope: which file means what, and when anybody is told.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use pinfold_model::HostPid;
use pinfold_sys::apart;
use pinfold_sys::bell::Bell;
pub use pinfold_sys::closing::Closers;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{AtFlags, StatxFlags};
use rustix::io::Errno as Raw;

use crate::proc;
use crate::process::{Pinned, ProcessError};

/// How long a process may take to let go of a descriptor.
const PATIENCE: Duration = Duration::from_secs(5);

/// A file as the kernel knows it: the device of its file system, and its inode number there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileIdentity {
    /// Major and minor number.
    pub device: (u32, u32),
    /// What stat(2) gives.
    pub inode: u64,
}

/// Why a descriptor of another process is of no use.
#[derive(Debug, thiserror::Error)]
pub enum DescriptorError {
    /// It is not open, or only as a path (O_PATH).
    #[error("process {process} has no open descriptor {number}")]
    NotOpen {
        /// The process.
        process: HostPid,
        /// The descriptor.
        number: u32,
    },
    /// It is another kind of file.
    #[error("descriptor {number} of process {process} is not an eventfd")]
    NotEventfd {
        /// The process.
        process: HostPid,
        /// The descriptor.
        number: u32,
    },
    /// The kernel does not let the daemon have it.
    #[error(
        "descriptor {number} of process {process} cannot be had: {errno}\n\
        the daemon needs the right to trace the process (CAP_SYS_PTRACE)"
    )]
    Refused {
        /// The process.
        process: HostPid,
        /// The descriptor.
        number: u32,
        /// The kernel's answer.
        errno: Raw,
    },
    /// What is to be closed for somebody is too much, or the process is in the middle of executing a program.
    #[error("the files of process {0} cannot be had now, or too many that were taken cannot be closed")]
    Busy(HostPid),
    /// The process has ended.
    #[error(transparent)]
    Process(#[from] ProcessError),
}

/// Somebody who waits at an eventfd. Dropping it closes our descriptor only.
#[derive(Debug)]
pub struct Listener {
    peer: Arc<Pinned>,
    /// Under which number it was seen last.
    number: AtomicU32,
    eventfd: OwnedFd,
    /// The kernel's number for the eventfd: no other has it while ours is open.
    id: u64,
}

impl Listener {
    /// Takes an eventfd over from a process: pidfd_getfd(2). If another of its threads has put another file there meanwhile,
    /// that is closed by one of the closers.
    pub fn take<W: Copy + PartialEq>(
        peer: Arc<Pinned>,
        number: u32,
        closers: &Closers<W>,
        whose: W,
    ) -> Result<Self, DescriptorError> {
        let process = peer.process();
        // Not its link in proc, which newer kernels let nobody follow while the process executes a program.
        if field(&look(process, number)?, EVENTFD_ID).is_none() {
            return Err(DescriptorError::NotEventfd { process, number });
        }
        let eventfd = take_over(&peer, number, closers, whose)?;
        let id = own_id(&eventfd).ok_or(DescriptorError::NotEventfd { process, number })?;
        Ok(Self { peer, number: AtomicU32::new(number), eventfd, id })
    }

    /// Whether the process that it was taken from is there, and has the eventfd open: under any number, but among more than
    /// [`Look::OF_PROCESS`] it may count as closed. `None`: the look may not look at so many more.
    pub fn is_waiting(&self, look: &mut Look) -> Option<bool> {
        if self.peer.verify().is_err() {
            return Some(false);
        }
        let Look { left, seen } = look;
        let seen = match seen.entry(self.peer.process()) {
            // While it lives, its number is nobody else's.
            Entry::Occupied(seen) if seen.get().peer.verify().is_ok() => seen.into_mut(),
            entry => entry.insert_entry(Seen::new(Arc::clone(&self.peer))).into_mut(),
        };
        if seen.eventfd_at(self.number.load(Ordering::Relaxed), left)? == Some(self.id) {
            return Some(true);
        }
        let Some(number) = seen.all(left)?.get(&self.id) else { return Some(false) };
        self.number.store(*number, Ordering::Relaxed);
        Some(true)
    }

    /// Becomes readable when the process has ended.
    pub fn ended(&self) -> impl AsFd + '_ {
        self.peer.pidfd()
    }
}

/// A look at which listeners still wait: each descriptor of a process is looked at once, and so many in all. Who has many, and moves
/// one about among them, makes us look at all of them again each time.
#[derive(Debug)]
pub struct Look {
    left: usize,
    seen: HashMap<HostPid, Seen>,
}

/// What was seen of a process.
#[derive(Debug)]
struct Seen {
    peer: Arc<Pinned>,
    /// Which eventfds it has under numbers that were asked about, if any.
    at: HashMap<u32, Option<u64>>,
    /// Under which numbers it has eventfds.
    all: Option<HashMap<u64, u32>>,
}

impl Look {
    /// How many descriptors of one process are looked through.
    pub const OF_PROCESS: usize = 4096;

    /// Looks at so many descriptors; fewer than [`Look::OF_PROCESS`] and one may be too few to ever find one.
    pub fn new(most: usize) -> Self {
        Self { left: most, seen: HashMap::new() }
    }

    /// How many it may look at still.
    pub fn left(&self) -> usize {
        self.left
    }
}

impl Seen {
    fn new(peer: Arc<Pinned>) -> Self {
        Self { peer, at: HashMap::new(), all: None }
    }

    fn eventfd_at(&mut self, number: u32, left: &mut usize) -> Option<Option<u64>> {
        match self.at.entry(number) {
            Entry::Occupied(known) => Some(*known.get()),
            Entry::Vacant(unknown) => {
                *left = left.checked_sub(1)?;
                Some(*unknown.insert(id_at(self.peer.process(), number)))
            }
        }
    }

    fn all(&mut self, left: &mut usize) -> Option<&HashMap<u64, u32>> {
        if self.all.is_none() {
            let process = self.peer.process();
            let numbers = proc::descriptors(process, Look::OF_PROCESS).unwrap_or_default();
            *left = left.checked_sub(numbers.len())?;
            let eventfd = |number: u32| Some((id_at(process, number)?, number));
            self.all = Some(numbers.into_iter().filter_map(eventfd).collect());
        }
        self.all.as_ref()
    }
}

/// What signals eventfds.
#[derive(Debug)]
pub struct Signaller(Option<Bell>);

impl Signaller {
    /// Without asynchronous I/O in the kernel below, an eventfd that its owner has made full is left out.
    pub fn new() -> Self {
        Self(Bell::new().ok())
    }

    /// Adds 1 to a listener's eventfd. Never waits for its owner.
    pub fn signal(&mut self, listener: &Listener) -> Result<(), Raw> {
        match &mut self.0 {
            Some(bell) => bell.ring(listener.eventfd.as_fd()),
            None => {
                let mut wanted = [PollFd::new(&listener.eventfd, PollFlags::OUT)];
                let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
                if rustix::event::poll(&mut wanted, Some(&at_once))? > 0 {
                    rustix::io::write(&listener.eventfd, &1_u64.to_ne_bytes())?;
                }
                Ok(())
            }
        }
    }
}

impl Default for Signaller {
    fn default() -> Self {
        Self::new()
    }
}

/// What a descriptor of a process is open on. Asks no file system: a serving thread may ask about its own mount. If the process
/// keeps the one who asks waiting, that is a place among the closers.
pub fn file_behind<W: Copy + PartialEq>(
    peer: &Pinned,
    number: u32,
    closers: &Closers<W>,
    whose: W,
) -> Result<FileIdentity, DescriptorError> {
    let process = peer.process();
    look(process, number)?;
    if !closers.has_room(whose) {
        return Err(DescriptorError::Busy(process));
    }
    // The link leads to the file itself. What the kernel remembers of it is enough: its numbers never change. The thread does not
    // have the directory that [`proc`] keeps.
    let (asked, waiting) = apart::ask(peer.pidfd(), PATIENCE, move |_| {
        let link = format!("/proc/{process}/fd/{number}");
        rustix::fs::statx(rustix::fs::CWD, link, AtFlags::STATX_DONT_SYNC, StatxFlags::INO)
    });
    closers.add(whose, waiting);
    let found = asked.map_err(|errno| match errno {
        Raw::NOENT | Raw::SRCH => DescriptorError::NotOpen { process, number },
        Raw::TIMEDOUT => DescriptorError::Busy(process),
        errno => DescriptorError::Refused { process, number, errno },
    })?;
    peer.verify()?;
    Ok(FileIdentity { device: (found.stx_dev_major, found.stx_dev_minor), inode: found.stx_ino })
}

/// What proc says of a descriptor that is open, and not only as a path: fdget().
fn look(process: HostPid, number: u32) -> Result<Vec<u8>, DescriptorError> {
    const O_PATH: u32 = 0o10_000_000;
    let info = proc::read_of(process, &format!("fdinfo/{number}")).map_err(|errno| match errno {
        Raw::NOENT | Raw::SRCH => DescriptorError::NotOpen { process, number },
        errno => DescriptorError::Refused { process, number, errno },
    })?;
    match field(&info, "flags").and_then(|flags| u32::from_str_radix(flags, 8).ok()) {
        Some(flags) if flags & O_PATH == 0 => Ok(info),
        _ => Err(DescriptorError::NotOpen { process, number }),
    }
}

/// Takes a descriptor over if it is an eventfd.
fn take_over<W: Copy + PartialEq>(
    peer: &Pinned,
    number: u32,
    closers: &Closers<W>,
    whose: W,
) -> Result<OwnedFd, DescriptorError> {
    let process = peer.process();
    if !closers.has_room(whose) {
        return Err(DescriptorError::Busy(process));
    }
    let raw = i32::try_from(number).map_err(|_| DescriptorError::NotOpen { process, number })?;
    let (taken, closing) = apart::copy(peer.pidfd(), raw, PATIENCE, is_eventfd_here);
    closers.add(whose, closing);
    let taken = taken.map_err(|errno| match errno {
        Raw::BADF => DescriptorError::NotOpen { process, number },
        Raw::SRCH => ProcessError::Gone(process).into(),
        Raw::TIMEDOUT => DescriptorError::Busy(process),
        errno => DescriptorError::Refused { process, number, errno },
    })?;
    taken.ok_or(DescriptorError::NotEventfd { process, number })
}

/// Whether a descriptor of this thread is an eventfd, whose table does not have the directory that [`proc`] keeps.
fn is_eventfd_here(fd: BorrowedFd<'_>) -> bool {
    let link = rustix::fs::readlink(format!("/proc/thread-self/fd/{}", fd.as_raw_fd()), Vec::new());
    link.is_ok_and(|to| to.as_bytes() == b"anon_inode:[eventfd]")
}

fn own_id(eventfd: &OwnedFd) -> Option<u64> {
    let number = eventfd.as_raw_fd();
    id_of(&format!("self/fdinfo/{number}"))
}

/// The line of an eventfd's number in its fdinfo: eventfd_show_fdinfo(), since Linux 5.2.
const EVENTFD_ID: &str = "eventfd-id";

/// Which eventfd a process has under a number, if any.
fn id_at(process: HostPid, number: u32) -> Option<u64> {
    id_of(&format!("{process}/fdinfo/{number}"))
}

/// The number of an eventfd, from its fdinfo.
fn id_of(fdinfo: &str) -> Option<u64> {
    field(&proc::read(fdinfo).ok()?, EVENTFD_ID)?.parse().ok()
}

fn field<'a>(text: &'a [u8], name: &str) -> Option<&'a str> {
    let text = std::str::from_utf8(text).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use rustix::event::{EventfdFlags, eventfd};

    use super::*;
    use crate::process::own_pid;

    fn ours() -> Arc<Pinned> {
        Arc::new(Pinned::of_process(own_pid()).unwrap())
    }

    fn number(of: &impl AsRawFd) -> u32 {
        u32::try_from(of.as_raw_fd()).unwrap()
    }

    fn taken(number: u32) -> Result<Listener, DescriptorError> {
        Listener::take(ours(), number, &Closers::new(1), ())
    }

    fn waits(listener: &Listener) -> bool {
        listener.is_waiting(&mut Look::new(usize::MAX)).unwrap()
    }

    /// One that is registered often, and many, all moved about since, are found at the price of one look through.
    #[test]
    fn every_descriptor_of_a_process_is_looked_at_once_in_a_look() {
        let ears: Vec<_> = (0..20).map(|_| eventfd(0, EventfdFlags::CLOEXEC).unwrap()).collect();
        let listeners: Vec<_> =
            ears.iter().flat_map(|ear| [ear; 10]).map(|ear| taken(number(ear)).unwrap()).collect();
        let moved: Vec<_> =
            ears.iter().map(|ear| rustix::io::fcntl_dupfd_cloexec(ear, 1000).unwrap()).collect();
        drop(ears);
        let enough = 4 * Look::OF_PROCESS;
        let mut look = Look::new(enough);
        assert!(listeners.iter().all(|one| one.is_waiting(&mut look) == Some(true)));
        let looked_at = enough - look.left();
        // Those of other tests of this process are seen, too.
        assert!((40..=Look::OF_PROCESS + 20).contains(&looked_at), "{looked_at}");
        let mut look = Look::new(10);
        let found: Vec<_> = listeners.iter().map(|one| one.is_waiting(&mut look)).collect();
        assert!(found.iter().take(100).all(|found| *found == Some(true)), "where they were last: {found:?}");
        assert!(found.iter().skip(100).all(Option::is_none), "no more than so many: {found:?}");
        drop(moved);
    }

    /// As when another thread puts it there after it was looked at.
    #[test]
    fn what_is_found_in_the_place_of_an_eventfd_is_closed_by_a_closer_or_not_taken() {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let found = take_over(&ours(), number(&writer), &Closers::new(0), ()).unwrap_err();
        assert!(matches!(found, DescriptorError::Busy(_)), "{found}");
        let closers = Closers::new(1);
        let found = take_over(&ours(), number(&writer), &closers, ()).unwrap_err();
        assert!(matches!(found, DescriptorError::NotEventfd { .. }), "{found}");
        drop(writer);
        assert_eq!(rustix::io::read(&reader, &mut [0; 1]), Ok(0), "nobody has the other end any more");
        let waiting = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        while !closers.has_room(()) {
            std::thread::yield_now();
        }
        assert!(take_over(&ours(), number(&waiting), &closers, ()).is_ok());
    }

    #[test]
    fn an_eventfd_is_taken_and_signalled_until_it_is_closed() {
        let waiting = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let listener = taken(number(&waiting)).unwrap();
        assert!(waits(&listener));
        Signaller::new().signal(&listener).unwrap();
        let mut count = [0; 8];
        rustix::io::read(&waiting, &mut count).unwrap();
        assert_eq!(u64::from_ne_bytes(count), 1);
        let elsewhere = rustix::io::fcntl_dupfd_cloexec(&waiting, 0).unwrap();
        drop(waiting);
        assert!(waits(&listener), "under another number");
        drop(elsewhere);
        // Ours is in the same process here, and is all that is left.
        assert_eq!(id_of(&format!("self/fdinfo/{}", listener.eventfd.as_raw_fd())), Some(listener.id));
    }

    #[test]
    fn without_asynchronous_input_a_full_eventfd_is_left_out() {
        let waiting = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let listener = taken(number(&waiting)).unwrap();
        rustix::io::write(&waiting, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        Signaller(None).signal(&listener).unwrap();
        let mut count = [0; 8];
        rustix::io::read(&waiting, &mut count).unwrap();
        assert_eq!(u64::from_ne_bytes(count), u64::MAX - 1);
    }

    #[test]
    fn what_is_not_an_eventfd_is_not_taken() {
        let null = File::open("/dev/null").unwrap();
        let taken = |number| taken(number).unwrap_err();
        assert!(matches!(taken(number(&null)), DescriptorError::NotEventfd { .. }));
        assert!(matches!(taken(999_999), DescriptorError::NotOpen { .. }));
        assert!(matches!(taken(u32::MAX), DescriptorError::NotOpen { .. }));
        let path = rustix::fs::open("/dev/null", rustix::fs::OFlags::PATH, 0.into()).unwrap();
        assert!(matches!(taken(number(&path)), DescriptorError::NotOpen { .. }));
    }

    #[test]
    fn a_file_is_known_by_its_numbers() {
        use std::os::unix::fs::MetadataExt;
        let null = File::open("/dev/null").unwrap();
        let behind = |number| file_behind(&ours(), number, &Closers::new(1), ());
        let null_behind = behind(number(&null)).unwrap();
        let meta = null.metadata().unwrap();
        let device = (rustix::fs::major(meta.dev()), rustix::fs::minor(meta.dev()));
        assert_eq!(null_behind, FileIdentity { device, inode: meta.ino() });
        assert!(matches!(behind(999_999), Err(DescriptorError::NotOpen { .. })));
    }

    #[test]
    fn a_listener_that_has_ended_is_not_waiting() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = HostPid::new(child.id()).unwrap();
        let waiting = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let taken = taken(number(&waiting)).unwrap();
        let theirs = Listener { peer: Arc::new(Pinned::of_process(pid).unwrap()), ..taken };
        assert!(!waits(&theirs), "it has no such eventfd");
        crate::signal::send(&theirs.peer, crate::signal::Signal::KILL).unwrap();
        child.wait().unwrap();
        assert!(!waits(&theirs));
        let ended = theirs.ended();
        let mut wanted = [PollFd::new(&ended, PollFlags::IN)];
        assert_eq!(rustix::event::poll(&mut wanted, None).unwrap(), 1);
    }
}
