//! What all processes of a rebuild share: whose turn it is, what failed, who is ready.

use std::num::NonZeroUsize;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use pinfold_sys::shared::SharedWords;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{self, PidfdFlags};
use rustix::thread::futex::{self, Flags, Timespec};

use super::RebuildError;
use crate::schedule::{BUILDER, Node};

/// How long the builder sleeps before it looks whether it was interrupted: a signal may come just before it falls asleep.
pub(super) const BUILDER_NAP: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// How many naps without any progress the builder takes before it gives up: 20 s.
const PATIENCE: u32 = 200;
/// How many naps it waits for a failure that has been begun: 2 s.
const SETTLE_PATIENCE: u32 = 20;
/// How long the others sleep before they look whether the builder is still there.
const NAP: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// The step whose turn it is.
const TURN: usize = 0;
/// What everybody does when the steps are done.
const PHASE: usize = 1;
/// How many processes have done their part of the phase.
const READY: usize = 2;
/// [`FAILURE_BEGUN`] while the failure is being written, [`FAILURE_TOLD`] when it can be read.
const FAILED: usize = 3;
const ERRNO: usize = 4;
const FAILED_NODE: usize = 5;
const REASON_LENGTH: usize = 6;
const REASON: usize = 8;
const REASON_WORDS: usize = 64;
const SLOTS: usize = REASON + REASON_WORDS;

/// Words of each node: what it sleeps on; its number in its own namespace; its number as its forker was told.
const SLOT_WORDS: usize = 3;

/// The parts after the steps; before them, the word is 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// Namespaces that are new are made.
    Unshare,
    /// Namespaces of others are entered.
    Enter,
    /// The keepers of this round make user namespaces, and what those own.
    Keep(u32),
    /// Everybody else goes into these.
    Follow,
    /// Everything else is put on.
    Dress,
    /// Programs are executed.
    Execute,
}

impl Phase {
    /// Later phases have higher ones.
    const fn rank(self) -> u32 {
        match self {
            Self::Unshare => 1,
            Self::Enter => 2,
            Self::Keep(round) => 3 + round,
            Self::Follow => u32::MAX - 2,
            Self::Dress => u32::MAX - 1,
            Self::Execute => u32::MAX,
        }
    }
}

/// What the word about a failure says; before, it is 0.
const FAILURE_BEGUN: u32 = 1;
const FAILURE_TOLD: u32 = 2;

/// What a word about the maps of a user namespace says.
const MAPS_WANTED: u32 = 1;
const MAPS_WRITTEN: u32 = 2;

/// The shared words.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    words: SharedWords,
    /// Where the words of user namespaces begin, and those of what they own.
    users: usize,
    kept: usize,
    /// Readable when the builder has ended: then nobody is left to kill the others, and they end by themselves.
    builder: OwnedFd,
    /// Set by the caller's signal handler.
    interrupted: Option<&'a AtomicBool>,
}

impl<'a> Stage<'a> {
    /// For that many nodes, user namespaces, and namespaces that these own.
    pub(super) fn set(
        nodes: usize,
        user_namespaces: usize,
        kept: usize,
        interrupted: Option<&'a AtomicBool>,
    ) -> Result<Self, RebuildError> {
        let failed = |what| move |errno| RebuildError::Prepare { what, errno };
        let users = SLOTS + nodes.saturating_mul(SLOT_WORDS);
        let count = NonZeroUsize::new(users.saturating_add(user_namespaces).saturating_add(kept));
        let words = count.ok_or(Errno::NOMEM).and_then(SharedWords::new).map_err(failed("share memory"))?;
        let builder = process::pidfd_open(process::getpid(), PidfdFlags::empty());
        let builder = builder.map_err(failed("open this process"))?;
        Ok(Self { words, users, kept: users + user_namespaces, builder, interrupted })
    }

    /// Whether the caller wants no tree any more. For the builder: a copy of the flag says nothing.
    pub(super) fn interrupted(&self) -> bool {
        self.interrupted.is_some_and(|flag| flag.load(Ordering::Acquire))
    }

    fn load(&self, word: usize) -> u32 {
        self.words[word].load(Ordering::Acquire)
    }

    fn slot(&self, node: Node) -> &AtomicU32 {
        &self.words[SLOTS + node * SLOT_WORDS]
    }

    pub(super) fn turn(&self) -> usize {
        self.load(TURN) as usize
    }

    pub(super) fn phase_reached(&self, phase: Phase) -> bool {
        self.load(PHASE) >= phase.rank()
    }

    /// Whether something failed, and [`failure`](Self::failure) can tell what.
    pub(super) fn failed(&self) -> bool {
        self.load(FAILED) == FAILURE_TOLD
    }

    /// Waits for a failure that somebody else is about to tell, unless that one is killed just then. For the builder.
    pub(super) fn settle(&self) {
        let told = || self.load(FAILED) != FAILURE_BEGUN;
        for _ in 0..SETTLE_PATIENCE {
            let seen = self.slot(BUILDER).load(Ordering::Acquire);
            if told() {
                return;
            }
            // The word may have changed already, or nobody may change it any more: both end this.
            let _ = futex::wait(self.slot(BUILDER), Flags::empty(), seen, Some(&BUILDER_NAP));
        }
    }

    /// The step is done: `next` is to do the following one.
    pub(super) fn pass_on(&self, next: Node) {
        self.words[TURN].fetch_add(1, Ordering::AcqRel);
        self.wake(next);
    }

    pub(super) fn wake(&self, node: Node) {
        self.slot(node).fetch_add(1, Ordering::AcqRel);
        // The only possible errors are those of a bad address.
        let _ = futex::wake(self.slot(node), Flags::empty(), 1);
    }

    /// Sleeps until `is_time`, and gives `false` if it never was: the builder was interrupted, or nothing went on for too
    /// long; for anybody else, the builder is gone.
    pub(super) fn sleep(&self, node: Node, is_time: impl Fn() -> bool) -> bool {
        let (mut patience, mut progress) = (PATIENCE, self.progress());
        let nap = if node == BUILDER { &BUILDER_NAP } else { &NAP };
        loop {
            let seen = self.slot(node).load(Ordering::Acquire);
            if is_time() {
                return true;
            }
            if node == BUILDER && self.interrupted() {
                return false;
            }
            if futex::wait(self.slot(node), Flags::empty(), seen, Some(nap)) != Err(Errno::TIMEDOUT) {
                continue;
            }
            if node != BUILDER {
                if self.builder_is_gone() {
                    return false;
                }
                continue;
            }
            let before = std::mem::replace(&mut progress, self.progress());
            patience = if progress == before { patience - 1 } else { PATIENCE };
            if patience == 0 {
                return false;
            }
        }
    }

    /// What changes as long as something goes on.
    fn progress(&self) -> (u32, u32) {
        (self.load(TURN), self.load(READY))
    }

    fn builder_is_gone(&self) -> bool {
        let mut ends = [PollFd::new(&self.builder, PollFlags::IN)];
        poll(&mut ends, Some(&Timespec::default())).is_ok_and(|count| count > 0)
    }

    /// Starts a phase for everybody.
    pub(super) fn start(&self, phase: Phase, nodes: &[Node]) {
        self.words[READY].store(0, Ordering::Release);
        self.words[PHASE].store(phase.rank(), Ordering::Release);
        nodes.iter().for_each(|&node| self.wake(node));
    }

    /// One process has done its part; the last of them wakes the builder.
    pub(super) fn ready(&self, all: usize) {
        if self.words[READY].fetch_add(1, Ordering::AcqRel) as usize + 1 == all {
            self.wake(BUILDER);
        }
    }

    pub(super) fn all_ready(&self, all: usize) -> bool {
        self.load(READY) as usize == all
    }

    /// A keeper has made a user namespace, and waits for its maps.
    pub(super) fn ask_for_maps(&self, namespace: usize) {
        self.words[self.users + namespace - 1].store(MAPS_WANTED, Ordering::Release);
        self.wake(BUILDER);
    }

    pub(super) fn wants_maps(&self, namespace: usize) -> bool {
        self.load(self.users + namespace - 1) == MAPS_WANTED
    }

    pub(super) fn has_maps(&self, namespace: usize) -> bool {
        self.load(self.users + namespace - 1) == MAPS_WRITTEN
    }

    /// The maps of a user namespace are written; `keeper` goes on.
    pub(super) fn maps_are_written(&self, namespace: usize, keeper: Node) {
        self.words[self.users + namespace - 1].store(MAPS_WRITTEN, Ordering::Release);
        self.wake(keeper);
    }

    /// Tells as which descriptor the keeper has a namespace.
    pub(super) fn keep(&self, place: usize, descriptor: RawFd) {
        self.words[self.kept + place].store(descriptor.cast_unsigned(), Ordering::Release);
    }

    /// As which descriptor its keeper has a namespace.
    pub(super) fn kept(&self, place: usize) -> u32 {
        self.load(self.kept + place)
    }

    /// Keeps the first failure, and wakes the builder for it.
    pub(super) fn fail(&self, node: Node, errno: Errno, reason: &str) {
        if self.words[FAILED].compare_exchange(0, FAILURE_BEGUN, Ordering::AcqRel, Ordering::Acquire).is_err()
        {
            return;
        }
        let bytes = &reason.as_bytes()[..reason.len().min(REASON_WORDS * 4)];
        for (place, chunk) in bytes.chunks(4).enumerate() {
            let mut word = [0; 4];
            word[..chunk.len()].copy_from_slice(chunk);
            self.words[REASON + place].store(u32::from_ne_bytes(word), Ordering::Release);
        }
        self.words[REASON_LENGTH].store(u32::try_from(bytes.len()).unwrap_or(0), Ordering::Release);
        self.words[ERRNO].store(errno.raw_os_error().unsigned_abs(), Ordering::Release);
        self.words[FAILED_NODE].store(u32::try_from(node).unwrap_or(0), Ordering::Release);
        self.words[FAILED].store(FAILURE_TOLD, Ordering::Release);
        self.wake(BUILDER);
    }

    /// Who failed, with what.
    pub(super) fn failure(&self) -> (Node, Errno, String) {
        let length = (self.load(REASON_LENGTH) as usize).min(REASON_WORDS * 4);
        let bytes: Vec<u8> =
            (0..REASON_WORDS).flat_map(|place| self.load(REASON + place).to_ne_bytes()).collect();
        let errno = i32::try_from(self.load(ERRNO)).unwrap_or(0);
        let reason = String::from_utf8_lossy(&bytes[..length]).into_owned();
        (self.load(FAILED_NODE) as usize, Errno::from_raw_os_error(errno), reason)
    }

    /// Notes the number that a node has for itself.
    pub(super) fn set_own_number(&self, node: Node, pid: u32) {
        self.words[SLOTS + node * SLOT_WORDS + 1].store(pid, Ordering::Release);
    }

    pub(super) fn own_number(&self, node: Node) -> u32 {
        self.load(SLOTS + node * SLOT_WORDS + 1)
    }

    /// Notes the number that a node has for its forker.
    pub(super) fn set_forkers_number(&self, node: Node, pid: u32) {
        self.words[SLOTS + node * SLOT_WORDS + 2].store(pid, Ordering::Release);
    }

    pub(super) fn forkers_number(&self, node: Node) -> u32 {
        self.load(SLOTS + node * SLOT_WORDS + 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who is preempted between its claim and its last word: others that fail meanwhile end, and the builder wakes.
    #[test]
    fn a_failure_that_is_being_told_is_waited_for() {
        let stage = Stage::set(3, 0, 0, None).expect("memory");
        stage.words[FAILED].store(FAILURE_BEGUN, Ordering::Release);
        stage.fail(2, Errno::NOMEM, "a second failure");
        assert!(!stage.failed(), "there is nothing to read yet");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                stage.words[FAILED].store(0, Ordering::Release);
                stage.fail(1, Errno::NOENT, "cannot execute it");
            });
            while !stage.failed() {
                stage.settle();
            }
        });
        assert_eq!(stage.failure(), (1, Errno::NOENT, "cannot execute it".to_owned()));
    }

    #[test]
    fn whoever_is_killed_while_telling_a_failure_is_not_waited_for_for_ever() {
        let stage = Stage::set(2, 0, 0, None).expect("memory");
        stage.words[FAILED].store(FAILURE_BEGUN, Ordering::Release);
        stage.settle();
        assert!(!stage.failed());
    }
}
