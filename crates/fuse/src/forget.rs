//! Telling the kernel what it must forget, because it changed without the kernel's doing.
//!
//! Threads of their own do it: dropping a name waits for whoever works in that directory, who may be waiting for a
//! serving thread, or for as long as he likes (getdents(2) into memory whose pages he serves himself). Owners and modes, by which the
//! kernel lets somebody write, wait for nobody, and so not for names either. The order between a lookup that is under way and a change is safe: the kernel holds the directory
//! until the lookup's answer is in its cache, and drops names from it only then.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use pinfold_model::{GroupId, HierarchyId};
use pinfold_realm::{Changed, FrontEnd, Node};
use pinfold_sys::apart;
use rustix::io::Errno;

use crate::numbering::Numbering;

/// How long a change waits for the kernel to forget what was before: for ever might be too long, if somebody who works
/// in the directory is stuck.
pub(crate) const SETTLING: Duration = Duration::from_secs(1);

/// FUSE_NOTIFY_POLL.
const WAKE: i32 = 1;
/// FUSE_NOTIFY_INVAL_INODE and FUSE_NOTIFY_INVAL_ENTRY.
const FORGET_INODE: i32 = 2;
const FORGET_ENTRY: i32 = 3;

/// What the kernel is to forget about one mount.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Stale {
    /// That this name is, or is not, in this group; and how many names there are.
    Entry(GroupId, OsString),
    /// Owner, mode, link count.
    Attributes(Node),
}

impl Stale {
    /// What a change means to a mount of this hierarchy. Nothing, if it came through that mount: the kernel has seen it.
    pub(crate) fn from_change(changed: &Changed, of: HierarchyId, to: FrontEnd) -> Option<Self> {
        match changed {
            Changed::Entry { hierarchy, parent, name, via } if *hierarchy == of && *via != to => {
                Some(Self::Entry(*parent, name.clone()))
            }
            Changed::Attributes { hierarchy, node, via } if *hierarchy == of && *via != to => {
                Some(Self::Attributes(*node))
            }
            Changed::Entry { .. }
            | Changed::Attributes { .. }
            | Changed::Group(_)
            | Changed::Hierarchy(_)
            | Changed::Members => None,
        }
    }

    /// The messages that say so: `struct fuse_out_header` with unique 0 and what is meant.
    fn messages(&self, numbering: Numbering) -> Messages {
        match self {
            Self::Entry(parent, name) => {
                let parent = numbering.number(Node::Group(*parent));
                Messages {
                    name: Some(forget_entry(parent, name.as_bytes())),
                    attributes: forget_attributes(parent),
                }
            }
            Self::Attributes(node) => {
                Messages { name: None, attributes: forget_attributes(numbering.number(*node)) }
            }
        }
    }
}

/// How the kernel is told of one change.
#[derive(Debug)]
struct Messages {
    /// Waits for whoever works in the directory.
    name: Option<Vec<u8>>,
    /// Waits for nobody.
    attributes: Vec<u8>,
}

/// What tells the kernel.
#[derive(Debug)]
pub(crate) struct Teller {
    numbering: Numbering,
    names: Line,
    attributes: Line,
}

impl Teller {
    /// Starts the threads of a mount.
    pub(crate) fn start(device: &File, numbering: Numbering) -> io::Result<Self> {
        let names = Line::start("fuse-names", device)?;
        Ok(Self { numbering, names, attributes: Line::start("fuse-attributes", device)? })
    }

    /// Has the kernel forget something. Does not wait for it.
    pub(crate) fn tell(&self, stale: &Stale) {
        let Messages { name, attributes } = stale.messages(self.numbering);
        self.attributes.send(Word::Forget(attributes));
        if let Some(name) = name {
            self.names.send(Word::Forget(name));
        }
    }

    /// Has `when_dropped` dropped when the kernel has forgotten all that it was told to forget up to now; of names, unless
    /// somebody has kept it from that for longer than one waits.
    pub(crate) fn settle(&self, when_dropped: &mpsc::Sender<()>) {
        self.attributes.settle(when_dropped);
        self.names.settle(when_dropped);
    }

    /// Ends: when the superblock is gone, and nobody keeps a directory busy any more. That is not waited for very long.
    pub(crate) fn stop(self) {
        self.attributes.stop();
        self.names.stop();
    }
}

/// What one thread is told.
#[derive(Debug)]
enum Word {
    /// A message to pass on.
    Forget(Vec<u8>),
    /// Everything before has been passed on when this is dropped.
    Settled { _when_dropped: mpsc::Sender<()> },
}

/// How many words may wait for a thread that is kept from its work. More are not passed on: names are shown then for as
/// long as the kernel remembers them.
const MOST_WAITING: usize = 1 << 14;

/// A thread that tells the kernel one thing after the other. It ends when it can be told no more.
#[derive(Debug)]
struct Line {
    words: mpsc::SyncSender<Word>,
    /// Since when it has been asked to settle, and has not yet.
    settling: Arc<Mutex<VecDeque<Instant>>>,
    /// Nothing comes; it is dropped when the thread ends.
    ended: mpsc::Receiver<()>,
}

impl Line {
    /// The thread has no descriptor but the device: while somebody keeps it waiting, not even SIGKILL ends it.
    fn start(name: &str, device: &File) -> io::Result<Self> {
        let (words, told) = mpsc::sync_channel(MOST_WAITING);
        let (when_ended, ended) = mpsc::channel();
        let settling = Arc::new(Mutex::new(VecDeque::new()));
        let waiting = Arc::clone(&settling);
        let run = move |device: BorrowedFd<'_>| {
            let _when_ended = when_ended;
            for word in told {
                match word {
                    Word::Forget(message) => write(device, &message),
                    Word::Settled { .. } => {
                        lock(&waiting).pop_front();
                    }
                }
            }
        };
        apart::spawn(name, device, run)?;
        Ok(Self { words, settling, ended })
    }

    fn send(&self, word: Word) {
        // If the thread is gone, so is the mount.
        if let Err(mpsc::TrySendError::Full(_)) = self.words.try_send(word) {
            tracing::debug!(
                "a change is not shown at once: the kernel is kept from forgetting what was before"
            );
        }
    }

    fn settle(&self, when_dropped: &mpsc::Sender<()>) {
        let mut settling = lock(&self.settling);
        if settling.front().is_some_and(|since| since.elapsed() > SETTLING) {
            return;
        }
        let word = Word::Settled { _when_dropped: when_dropped.clone() };
        if self.words.try_send(word).is_ok() {
            settling.push_back(Instant::now());
        }
    }

    fn stop(self) {
        drop(self.words);
        if self.ended.recv_timeout(SETTLING) == Err(mpsc::RecvTimeoutError::Timeout) {
            tracing::warn!("somebody keeps a directory of a mount busy, and with it one thread");
        }
    }
}

fn lock(settling: &Mutex<VecDeque<Instant>>) -> MutexGuard<'_, VecDeque<Instant>> {
    settling.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write(device: BorrowedFd<'_>, message: &[u8]) {
    match rustix::io::write(device, message) {
        // ENOENT: the kernel does not remember it anyway.
        Ok(_) | Err(Errno::NOENT) => {}
        // The superblock is gone, and with it everything that is remembered.
        Err(Errno::NODEV | Errno::NOTCONN) => {}
        Err(error) => tracing::warn!("the kernel cannot be told of a change: {error}"),
    }
}

/// `struct fuse_notify_inval_entry_out`: parent: u64, name length: u32, flags: u32, the name and a null byte.
fn forget_entry(parent: u64, name: &[u8]) -> Vec<u8> {
    let length = u32::try_from(name.len()).expect("the realm's names have at most 255 bytes");
    let mut body = Vec::with_capacity(16 + name.len() + 1);
    body.extend(parent.to_ne_bytes());
    body.extend(length.to_ne_bytes());
    body.extend(0_u32.to_ne_bytes());
    body.extend(name);
    body.push(0);
    message(FORGET_ENTRY, &body)
}

/// `struct fuse_notify_inval_inode_out`: inode: u64, offset: i64 (negative: attributes only), length: i64.
fn forget_attributes(number: u64) -> Vec<u8> {
    let mut body = Vec::with_capacity(24);
    body.extend(number.to_ne_bytes());
    body.extend((-1_i64).to_ne_bytes());
    body.extend(0_i64.to_ne_bytes());
    message(FORGET_INODE, &body)
}

/// `struct fuse_out_header`: length: u32, code: i32, unique: u64 (0 for what is no answer).
/// `struct fuse_notify_poll_wakeup_out`: how the kernel calls the open file.
pub(crate) fn woken(kernel: u64) -> Vec<u8> {
    message(WAKE, &kernel.to_ne_bytes())
}

fn message(code: i32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(16 + body.len()).expect("a message is short");
    let mut message = Vec::with_capacity(16 + body.len());
    message.extend(length.to_ne_bytes());
    message.extend(code.to_ne_bytes());
    message.extend(0_u64.to_ne_bytes());
    message.extend(body);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: FrontEnd = FrontEnd(1);

    fn group(number: u32) -> GroupId {
        GroupId::new(number).unwrap()
    }

    fn entry(hierarchy: u32, via: FrontEnd) -> Changed {
        let hierarchy = HierarchyId::new(hierarchy).unwrap();
        Changed::Entry { hierarchy, parent: group(2), name: "ab".into(), via }
    }

    #[test]
    fn what_came_through_this_mount_or_happened_in_another_hierarchy_is_not_told() {
        let ours = HierarchyId::new(1).unwrap();
        let attributes = |via| Changed::Attributes { hierarchy: ours, node: Node::Group(group(2)), via };
        let told = |changed: &Changed| Stale::from_change(changed, ours, HERE).is_some();
        assert!(told(&entry(1, FrontEnd(2))));
        assert!(told(&entry(1, FrontEnd::NONE)));
        assert!(!told(&entry(1, HERE)));
        assert!(!told(&entry(2, FrontEnd::NONE)));
        assert!(told(&attributes(FrontEnd::NONE)));
        assert!(!told(&attributes(HERE)));
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_changed_name_is_told_with_its_parents_link_count() {
        let numbering = Numbering::new(group(1));
        let messages = Stale::Entry(group(2), "ab".into()).messages(numbering);
        let drop_name = [
            &[35, 0, 0, 0][..],           // length
            &[3, 0, 0, 0],                // FUSE_NOTIFY_INVAL_ENTRY
            &[0; 8],                      // unique
            &[0, 0x20, 0, 0, 0, 0, 0, 0], // parent: group 2
            &[2, 0, 0, 0],                // length of the name
            &[0; 4],                      // flags
            b"ab\0",
        ];
        let drop_attributes = [
            &[40, 0, 0, 0][..],           // length
            &[2, 0, 0, 0],                // FUSE_NOTIFY_INVAL_INODE
            &[0; 8],                      // unique
            &[0, 0x20, 0, 0, 0, 0, 0, 0], // inode: group 2
            &[0xff; 8],                   // offset -1: attributes only
            &[0; 8],                      // length
        ];
        assert_eq!(messages.name, Some(drop_name.concat()));
        assert_eq!(messages.attributes, drop_attributes.concat());
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn who_waits_is_woken_by_the_kernels_number_of_the_open_file() {
        let wake = [
            &[24, 0, 0, 0][..],           // length
            &[1, 0, 0, 0],                // FUSE_NOTIFY_POLL
            &[0; 8],                      // unique
            &[7, 0, 0, 0, 0, 0, 0, 0x10], // the open file
        ];
        assert_eq!(woken(0x1000_0000_0000_0007), wake.concat());
    }
}
