//! Telling the kernel what it must forget, because it changed without the kernel's doing.
//!
//! Threads of their own do it: dropping a name waits for whoever works in that directory, who may be waiting for a
//! serving thread, or for as long as he likes (getdents(2) into memory whose pages he serves himself). Owners and modes, by which the
//! kernel lets somebody write, wait for nobody, and so not for names either. The order between a lookup that is under way and a change is safe: the kernel holds the directory
//! until the lookup's answer is in its cache, and drops names from it only then.
//!
//! So nobody keeps owners and modes from being dropped, and all of them are. Of names as many may wait as somebody likes who keeps
//! one directory busy; what is too much is *missed*, and once there is room again, everything is dropped that is
//! remembered of a directory of which a name was missed.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, mpsc};
use std::time::{Duration, Instant};

use pinfold_model::{GroupId, HierarchyId};
use pinfold_realm::{Changed, FrontEnd, Node, Realm};
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
            | Changed::Hierarchy(_) => None,
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
    missed: Arc<Mutex<Missed>>,
}

impl Teller {
    /// Starts the threads of a mount.
    pub(crate) fn start(device: &File, numbering: Numbering, realm: &Arc<Realm>) -> io::Result<Self> {
        let missed: Arc<Mutex<Missed>> = Arc::default();
        let (shared, realm) = (Arc::clone(&missed), Arc::downgrade(realm));
        let names = Line::start("fuse-names", device, move || messages_of(&shared, numbering, &realm))?;
        let attributes = Line::start("fuse-attributes", device, Vec::new)?;
        Ok(Self { numbering, names, attributes, missed })
    }

    /// Has the kernel forget something. Does not wait for it.
    pub(crate) fn tell(&self, stale: &Stale) {
        let Messages { name, attributes } = stale.messages(self.numbering);
        self.attributes.send(Word::Forget(attributes));
        let (Some(message), Stale::Entry(parent, name)) = (name, stale) else { return };
        if self.names.has_room() {
            self.names.send(Word::Forget(message));
        } else {
            tracing::debug!("a name is not dropped at once: somebody keeps a directory of the mount busy");
            lock(&self.missed).add(*parent, name, self.numbering.root());
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

/// How many names may wait for a thread that is kept from its work.
const MOST_WAITING: usize = 1 << 12;
/// In how many groups names may be missed, and how many in the root, before everything is dropped.
const MOST_MISSED: usize = 1 << 12;

/// Names that the kernel was not told of.
#[derive(Default, PartialEq, Eq, Debug)]
struct Missed {
    /// Groups that they are in, but the root.
    groups: BTreeSet<GroupId>,
    /// Those in the root, which has no name by which all in it could be dropped.
    of_root: BTreeSet<OsString>,
    /// Too many to tell which.
    is_everything: bool,
}

impl Missed {
    fn add(&mut self, parent: GroupId, name: &OsString, root: GroupId) {
        if parent == root && self.of_root.len() < MOST_MISSED {
            self.of_root.insert(name.clone());
        } else if parent == root || self.groups.len() >= MOST_MISSED {
            self.groups.clear();
            self.is_everything = true;
        } else if !self.is_everything {
            self.groups.insert(parent);
        }
    }
}

/// What makes good for all that was missed. To drop a group's own name drops everything that is remembered below it, and is all that
/// it does: whoever asks next is told the same name again.
///
/// Source: d_invalidate() of fs/dcache.c.
fn messages_of(missed: &Mutex<Missed>, numbering: Numbering, realm: &Weak<Realm>) -> Vec<Vec<u8>> {
    let Missed { groups, mut of_root, is_everything } = std::mem::take(&mut *lock(missed));
    if groups.is_empty() && of_root.is_empty() && !is_everything {
        return Vec::new();
    }
    let Some(realm) = realm.upgrade() else { return Vec::new() };
    let root = numbering.root();
    if is_everything {
        let all = realm.list(root).unwrap_or_default().into_iter();
        of_root.extend(all.filter(|(_, node)| matches!(node, Node::Group(_))).map(|(name, _)| name));
    }
    let of_root = of_root.into_iter().map(|name| (root, name));
    let places = of_root.chain(groups.into_iter().filter_map(|group| realm.place(group)));
    let message = |(parent, name): (GroupId, OsString)| {
        forget_entry(numbering.number(Node::Group(parent)), name.as_bytes())
    };
    places.map(message).collect()
}

/// A thread that tells the kernel one thing after the other. It ends when it can be told no more.
#[derive(Debug)]
struct Line {
    words: mpsc::Sender<Word>,
    /// How many of them it has not got to.
    waiting: Arc<AtomicUsize>,
    /// Since when it has been asked to settle, and has not yet.
    settling: Arc<Mutex<VecDeque<Instant>>>,
    /// Nothing comes; it is dropped when the thread ends.
    ended: mpsc::Receiver<()>,
}

impl Line {
    /// The thread has no descriptor but the device: while somebody keeps it waiting, not even SIGKILL ends it. After each word it
    /// passes on what else there is.
    fn start(
        name: &str,
        device: &File,
        else_there_is: impl Fn() -> Vec<Vec<u8>> + Send + 'static,
    ) -> io::Result<Self> {
        let (words, told) = mpsc::channel();
        let waiting: Arc<AtomicUsize> = Arc::default();
        let left = Arc::clone(&waiting);
        let (when_ended, ended) = mpsc::channel();
        let settling = Arc::new(Mutex::new(VecDeque::new()));
        let asked = Arc::clone(&settling);
        let run = move |device: BorrowedFd<'_>| {
            let _when_ended = when_ended;
            for word in told {
                left.fetch_sub(1, Ordering::Relaxed);
                match word {
                    Word::Forget(message) => write(device, &message),
                    Word::Settled { .. } => {
                        lock(&asked).pop_front();
                    }
                }
                else_there_is().iter().for_each(|message| write(device, message));
            }
        };
        apart::spawn(name, device, run)?;
        Ok(Self { words, waiting, settling, ended })
    }

    fn has_room(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) < MOST_WAITING
    }

    fn send(&self, word: Word) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        // If the thread is gone, so is the mount.
        let _ = self.words.send(word);
    }

    fn settle(&self, when_dropped: &mpsc::Sender<()>) {
        let mut settling = lock(&self.settling);
        if settling.front().is_some_and(|since| since.elapsed() > SETTLING) {
            return;
        }
        settling.push_back(Instant::now());
        self.send(Word::Settled { _when_dropped: when_dropped.clone() });
    }

    fn stop(self) {
        drop(self.words);
        if self.ended.recv_timeout(SETTLING) == Err(mpsc::RecvTimeoutError::Timeout) {
            tracing::warn!("somebody keeps a directory of a mount busy, and with it one thread");
        }
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn of_what_is_missed_it_is_known_where_it_was() {
        let (root, mut missed) = (group(1), Missed::default());
        missed.add(group(2), &"a".into(), root);
        missed.add(group(2), &"b".into(), root);
        missed.add(root, &"c".into(), root);
        let (groups, of_root) = (BTreeSet::from([group(2)]), BTreeSet::from(["c".into()]));
        assert_eq!(missed, Missed { groups, of_root, is_everything: false });
        for number in 3..=u32::try_from(MOST_MISSED).unwrap() + 3 {
            missed.add(group(number), &"a".into(), root);
        }
        let of_root = BTreeSet::from(["c".into()]);
        assert_eq!(missed, Missed { groups: BTreeSet::new(), of_root, is_everything: true });
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
