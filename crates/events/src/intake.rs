//! What is read from the connector's socket on its way into order, and what is known to be missing among it. Pure.
//!
//! From the first datagram for which the socket has no room the kernel drops all, until the socket has been read empty. It says so
//! once (ENOBUFS), before what was in the socket by then: that is complete, and what comes after it is not. Where the one ends and the
//! other begins nothing says, so whatever may be of the time after is told by the rules of a gap: no thread is known to be the last. Each CPU
//! counts its events, so the next one of a CPU that lost some shows a hole in its count: the same loss once more, and counted
//! once. A hole of which the kernel has not told is a loss of its own: it had no memory for the datagram.
//!
//! Source: net/netlink/af_netlink.c, netlink_overrun() and netlink_rcv_wake(); drivers/connector/cn_proc.c, send_msg().

use crate::change::Change;
use crate::event::{Event, Time};
use crate::order::Order;

/// What the order is fed.
#[derive(Default, Debug)]
pub struct Intake {
    order: Order,
    sequences: Sequences,
    dropped: Option<Dropped>,
    losses: u64,
}

/// How long a CPU may take at most from the time that an event has to the event in the socket, in nanoseconds: some of a virtual machine's
/// stand still between the two. An event that was taken for one of the time before would be told as if nothing were missing.
const ON_ITS_WAY: u64 = 10_000_000;

/// Something was dropped since the socket was read empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Dropped {
    /// What happened up to then, and is read now, was in the socket before.
    After(Time),
    /// What is read now may be of the time after, and the order knows.
    Told,
}

impl Intake {
    /// Feeds this one.
    pub fn new(order: Order) -> Self {
        Self { order, ..Self::default() }
    }

    /// What is fed.
    pub const fn order(&self) -> &Order {
        &self.order
    }

    /// What is fed, to take a snapshot when all was read: see [`Self::drained`].
    pub const fn order_mut(&mut self) -> &mut Order {
        &mut self.order
    }

    /// How often something was lost.
    pub const fn losses(&self) -> u64 {
        self.losses
    }

    /// The kernel says that it has dropped events. `whole_until`: when the call that was told so began, if the socket has not been read since
    /// it was empty; then what is in it, and happened before, was there before. Otherwise it may have been emptied since the loss.
    pub fn dropped(&mut self, whole_until: Option<Time>, now: Time, out: &mut Vec<Event>) {
        self.losses += 1;
        self.sequences.excuse();
        self.dropped = match (whole_until, self.dropped) {
            (Some(until), None) => Some(Dropped::After(Time(until.0.saturating_sub(ON_ITS_WAY)))),
            _ => {
                self.order.lost(now, out);
                Some(Dropped::Told)
            }
        };
    }

    /// Takes an event of a CPU, by its number; without a change if it is of no concern.
    pub fn take(
        &mut self,
        cpu: u32,
        sequence: u32,
        change: Option<Change>,
        now: impl Fn() -> Time,
        out: &mut Vec<Event>,
    ) {
        let is_after = |until: Time| change.is_some_and(|change| change.time > until);
        match (self.sequences.count(cpu, sequence), self.dropped) {
            (Count::Missing, _) => {
                self.losses += 1;
                self.order.lost(now(), out);
            }
            (Count::Excused, Some(Dropped::After(_))) => self.tell(now(), out),
            (_, Some(Dropped::After(until))) if is_after(until) => self.tell(now(), out),
            (Count::Next | Count::Excused, _) => {}
        }
        if let Some(change) = change {
            self.order.feed(change, out);
        }
    }

    /// What is read from now on may be of the time after the loss.
    fn tell(&mut self, now: Time, out: &mut Vec<Event>) {
        self.order.lost(now, out);
        self.dropped = Some(Dropped::Told);
    }

    /// The socket was read empty: whatever was lost happened before, and nothing earlier is under way.
    pub fn drained(&mut self, now: Time, out: &mut Vec<Event>) {
        match self.dropped.take() {
            Some(Dropped::After(_)) => self.order.lost(now, out),
            Some(Dropped::Told) | None => self.order.drained(now, out),
        }
        self.sequences.settle();
    }
}

/// Notices events that are missing from the counts that each CPU keeps.
#[derive(Default, Debug)]
struct Sequences {
    cpus: Vec<Cpu>,
    /// How many holes one may have that is heard of for the first time.
    excuses: u32,
}

#[derive(Clone, Copy, Default, Debug)]
struct Cpu {
    /// The number of its last event; none: the next is the first.
    last: Option<u32>,
    /// How many holes are known already, if there are any: of each loss one.
    excuses: u32,
}

/// Whether an event follows the last one of its CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Count {
    /// It does, or is the first.
    Next,
    /// It does not, which is known to be so already.
    Excused,
    /// It does not.
    Missing,
}

impl Sequences {
    /// More CPUs than Linux supports are no CPUs.
    const MOST: usize = 8192;

    /// Takes an event. 0 follows 2^32 - 1.
    fn count(&mut self, cpu: u32, sequence: u32) -> Count {
        let cpu = cpu as usize;
        if cpu >= Self::MOST {
            return Count::Next;
        }
        if self.cpus.len() <= cpu {
            self.cpus.resize(cpu + 1, Cpu { last: None, excuses: self.excuses });
        }
        let Cpu { last, excuses } = &mut self.cpus[cpu];
        if last.replace(sequence).is_none_or(|last| last.wrapping_add(1) == sequence) {
            return Count::Next;
        }
        match excuses.checked_sub(1) {
            Some(rest) => {
                *excuses = rest;
                Count::Excused
            }
            None => Count::Missing,
        }
    }

    /// Something was dropped, of any CPU: one more hole of each belongs to that. Another one may be still to come.
    fn excuse(&mut self) {
        self.excuses += 1;
        self.cpus.iter_mut().for_each(|cpu| cpu.excuses += 1);
    }

    /// Nothing of the time before the loss is to come any more: whose hole was not seen yet shows it with its next event, or has none.
    fn settle(&mut self) {
        self.excuses = 0;
        self.cpus.iter_mut().filter(|cpu| cpu.excuses > 0).for_each(|cpu| *cpu = Cpu::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `CPU:SEQUENCE` is an event, and what it is after it; `!` a loss that the kernel tells of, `.` that all was read.
    #[track_caller]
    fn check(script: &str) {
        let mut sequences = Sequences::default();
        for word in script.split_ascii_whitespace() {
            match word {
                "!" => sequences.excuse(),
                "." => sequences.settle(),
                event => {
                    let (cpu, rest) = event.split_once(':').unwrap();
                    let digits = rest.trim_end_matches(['?', '~']);
                    let (cpu, sequence) = (cpu.parse().unwrap(), digits.parse().unwrap());
                    let count = match &rest[digits.len()..] {
                        "?" => Count::Missing,
                        "~" => Count::Excused,
                        _ => Count::Next,
                    };
                    assert_eq!(sequences.count(cpu, sequence), count, "{event} of {script}");
                }
            }
        }
    }

    #[test]
    fn a_missing_event_is_noticed_on_its_cpu_only() {
        check(
            "0:7 1:100 0:8 0:10? 0:11 1:101 1:101? 2:4294967294 2:4294967295 2:0 2:1 4294967295:5 4294967295:9",
        );
    }

    #[test]
    fn a_loss_that_the_kernel_told_of_is_each_cpus_next_hole() {
        check("0:7 1:100 ! 0:8 0:12~ 0:13 1:109~ 0:15? 1:111?");
        // Of a CPU that is silent until all was read, the next event may show it. Only that one.
        check("0:7 1:100 ! 0:12~ . 0:13 0:15? 1:109 1:111?");
        check("0:7 ! . 0:8 0:10?");
        check("0:7 ! 0:9~ ! 0:12~ . 0:14?");
        check("0:7 ! ! 0:9~ 0:12~ 0:14?");
        check("! 0:7 0:9~ 0:11? . 2:5 2:7?");
    }
}
