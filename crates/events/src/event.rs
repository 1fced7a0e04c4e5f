//! What a subscriber is told. Plain values: nothing here asks the system.

use std::fmt;
use std::num::NonZeroU32;

/// The number of a process in the pid namespace of whoever holds it: inside this crate the daemon's, in a stream the
/// subscriber's. May name another process a moment later: see [`Process`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Pid(NonZeroU32);

impl Pid {
    /// A process number; 0 is none.
    pub const fn new(number: u32) -> Option<Self> {
        match NonZeroU32::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Nanoseconds since the system started, time asleep included: `CLOCK_BOOTTIME` outside of all time namespaces, so that
/// a stream means the same in each.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct Time(pub u64);

/// One tick of `/proc/PID/stat`: `USER_HZ` is 100 everywhere but on Alpha.
const TICK: u64 = 10_000_000;

/// How much later than the start itself the kernel may tell of it. A number is not used again that soon.
const TELLING: u64 = 40_000_000;

/// When a process started: no two processes of a stream share one, so it names a process for good.
///
/// It is the time of the fork event, made unique, or, for a process that was found running, some time within the tick of 10 ms in
/// which it started, after its parent's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Started(pub u64);

impl Started {
    /// The first instant of a start time as in field 22 of `/proc/PID/stat`.
    pub const fn at_tick(ticks: u64) -> Self {
        Self(ticks.saturating_mul(TICK))
    }

    /// As in field 22 of `/proc/PID/stat`, or a few ticks later.
    pub const fn ticks(self) -> u64 {
        self.0 / TICK
    }

    /// Whether the process that has the same number now, and this start time in field 22 of `/proc/PID/stat`, is this one.
    ///
    /// A fork is told of after it, on a busy machine long after; whoever has the number next starts later still.
    ///
    /// ```
    /// use pinfold_events::Started;
    /// let started = Started(1_234_567_890);
    /// assert!(started.may_be(123));
    /// assert!(started.may_be(100), "told of a fifth of a second after the start");
    /// assert!(!started.may_be(124), "nobody is told of before the start");
    /// ```
    pub const fn may_be(self, ticks: u64) -> bool {
        ticks <= self.ticks()
    }

    /// Whether a process that was there with this start time is told of by this one. A number comes round again later than that.
    pub(crate) const fn is_told_soon(self, ticks: u64) -> bool {
        const SECOND: u64 = 100;
        self.may_be(ticks) && self.ticks() - ticks <= SECOND
    }

    /// Whether a fork that is told of at this time may be that of a process that was found, and had this start time then.
    pub(crate) const fn is_soon_after(self, ticks: u64) -> bool {
        let start = ticks.saturating_mul(TICK);
        self.0 >= start && self.0 - start < TICK + TELLING
    }
}

/// One process, for good.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Process {
    /// Its number; `None` if it was gone before its number in this pid namespace could be asked for.
    pub pid: Option<Pid>,
    /// When it started, which no other process of the stream shares.
    pub started: Started,
}

/// The name of a process, as in `/proc/PID/comm`: at most 15 bytes. Empty: not known.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Comm {
    bytes: [u8; Self::MOST],
    length: u8,
}

impl Comm {
    /// How long a name may be: `TASK_COMM_LEN` less the null byte.
    pub const MOST: usize = 15;

    /// The name up to the first null byte, cut after 15 bytes.
    pub fn new(name: &[u8]) -> Self {
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len()).min(Self::MOST);
        let mut bytes = [0; Self::MOST];
        bytes[..end].copy_from_slice(&name[..end]);
        Self { bytes, length: end as u8 }
    }

    /// Its bytes, whatever they are.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl fmt::Display for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().escape_ascii().fmt(f)
    }
}

impl fmt::Debug for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Status {
    /// By exit(2) with this code.
    Exited(u8),
    /// By a signal.
    Killed {
        /// The signal.
        signal: u8,
        /// Whether it left a core dump.
        core: bool,
    },
}

impl Status {
    /// From the status that wait(2) gives.
    pub const fn from_wait(status: u32) -> Self {
        match (status & 0x7f) as u8 {
            0 => Self::Exited((status >> 8) as u8),
            signal => Self::Killed { signal, core: status & 0x80 != 0 },
        }
    }

    /// As wait(2) gives it.
    pub const fn to_wait(self) -> u32 {
        match self {
            Self::Exited(code) => (code as u32) << 8,
            Self::Killed { signal, core } => signal as u32 | if core { 0x80 } else { 0 },
        }
    }
}

/// Real and effective user, or group. In the numbers of the subscriber's user namespace; 65534 if there is none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Ids {
    /// Whose process it is.
    pub real: u32,
    /// As whom it acts.
    pub effective: u32,
}

/// One event of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// When it happened, or was found out.
    pub time: Time,
    /// What happened.
    pub what: What,
}

/// What happened.
///
/// Of a process one sees [`What::Found`] or [`What::Fork`] first, once; [`What::Exit`] or [`What::Left`] last, once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// A process is there whose fork was not seen: at the start of a stream, after a gap, or because it joined the group.
    Found {
        /// The process.
        process: Process,
        /// Its parent; `None` if that is not visible to the subscriber.
        parent: Option<Process>,
        /// Its name.
        comm: Comm,
        /// Its user, if known.
        uid: Option<Ids>,
        /// Its group, if known.
        gid: Option<Ids>,
    },
    /// A process was born.
    Fork {
        /// The child.
        process: Process,
        /// The parent; `None` if it is not visible to the subscriber.
        parent: Option<Process>,
        /// The child's name, which is its parent's.
        comm: Comm,
        /// The child's user, if known, which is its parent's.
        uid: Option<Ids>,
        /// The child's group, if known, which is its parent's.
        gid: Option<Ids>,
    },
    /// A process executed another program.
    Exec {
        /// The process.
        process: Process,
        /// Its new name; empty if it was gone before it could be asked for.
        comm: Comm,
    },
    /// A process ended: its last thread has.
    Exit {
        /// The process.
        process: Process,
        /// Its name.
        comm: Comm,
        /// How; `None` if it ended unseen.
        status: Option<Status>,
    },
    /// The user changed.
    Uid {
        /// The process.
        process: Process,
        /// The new user.
        ids: Ids,
    },
    /// The group changed.
    Gid {
        /// The process.
        process: Process,
        /// The new group.
        ids: Ids,
    },
    /// The process became the leader of a session of its own.
    Sid {
        /// The process.
        process: Process,
    },
    /// The process was renamed.
    Comm {
        /// The process.
        process: Process,
        /// The new name.
        comm: Comm,
    },
    /// The process is not in the subscriber's scope any more, and lives on.
    Left {
        /// The process.
        process: Process,
    },
    /// Events were lost. The difference that they made follows, and then [`What::Synced`].
    Gap,
    /// The stream is complete again, or, at its start, all processes were listed.
    Synced {
        /// How many processes were found since the gap.
        found: u32,
        /// How many ended, or left, since the gap.
        gone: u32,
        /// How many other changes there were since the gap.
        changed: u32,
    },
}

impl What {
    /// The process that it happened to.
    pub const fn process(&self) -> Option<Process> {
        match *self {
            Self::Found { process, .. }
            | Self::Fork { process, .. }
            | Self::Exec { process, .. }
            | Self::Exit { process, .. }
            | Self::Uid { process, .. }
            | Self::Gid { process, .. }
            | Self::Sid { process }
            | Self::Comm { process, .. }
            | Self::Left { process } => Some(process),
            Self::Gap | Self::Synced { .. } => None,
        }
    }

    /// The process that it happened to, to be given another number.
    pub(crate) const fn process_mut(&mut self) -> Option<&mut Process> {
        match self {
            Self::Found { process, .. }
            | Self::Fork { process, .. }
            | Self::Exec { process, .. }
            | Self::Exit { process, .. }
            | Self::Uid { process, .. }
            | Self::Gid { process, .. }
            | Self::Sid { process }
            | Self::Comm { process, .. }
            | Self::Left { process } => Some(process),
            Self::Gap | Self::Synced { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_cut_like_the_kernel_does() {
        for (given, kept) in
            [("sh\0rubbish", "sh"), ("", ""), ("0123456789abcdef", "0123456789abcde"), ("a b\n", "a b\\n")]
        {
            assert_eq!(Comm::new(given.as_bytes()).to_string(), kept);
        }
    }

    #[test]
    fn a_status_is_what_wait_says() {
        for (wait, status) in [
            (0, Status::Exited(0)),
            (0x0300, Status::Exited(3)),
            (9, Status::Killed { signal: 9, core: false }),
            (0x8b, Status::Killed { signal: 11, core: true }),
        ] {
            assert_eq!((Status::from_wait(wait), status.to_wait()), (status, wait));
        }
    }
}
