//! Chosen processes: who is let in and out by the caller, also before the source has told of it, and after it has told of its end.

use std::collections::HashMap;

use crate::event::{Event, Pid, Process, Started, Time, What};
use crate::namespace::{NamespaceId, Namespaces};
use crate::subscriber::{Comparison, Counts};

use super::{Hub, Member, Phase, SubscriberId, add, is_visible, remove};

/// By whom a process is waited for, to be told of it from its beginning here.
#[derive(Debug)]
pub(super) struct Awaited {
    pub(super) by: SubscriberId,
    /// When it started: another one with its number is not meant.
    pub(super) ticks: u64,
    /// It has ended untold if nobody has told of it by then.
    pub(super) until: Time,
}

/// A process that is about to be admitted.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) pid: Pid,
    /// When it started: another one with its number is not meant.
    pub(super) ticks: u64,
    pub(super) ended: Option<Ended>,
}

/// One that has ended before it was admitted, as it was then.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    pub(super) member: Member,
    pub(super) numbers: Vec<(NamespaceId, Option<Pid>)>,
    pub(super) exit: Event,
}

/// How long it may take until the source tells of a process that is there, if nothing was lost: an outer pinfold is a little behind.
const TELLING: u64 = 1_000_000_000;

impl Hub {
    /// A process that is there and that the source has not told of yet is let into a subscriber's scope when it is.
    pub(super) fn await_process(
        &mut self,
        by: SubscriberId,
        pid: Pid,
        now: Time,
        namespaces: &mut impl Namespaces,
    ) {
        if self.knows(pid) {
            return;
        }
        if let Some(ticks) = namespaces.ticks(pid) {
            self.await_start(by, pid, ticks, now);
        }
    }

    fn await_start(&mut self, by: SubscriberId, pid: Pid, ticks: u64, now: Time) {
        if let Phase::Complete = self.phase {
            self.stop_awaiting(|_, awaited| awaited.until < now);
        }
        let by_all = self.awaited.entry(pid).or_default();
        by_all.retain(|awaited| awaited.by != by);
        by_all.push(Awaited { by, ticks, until: Time(now.0.saturating_add(TELLING)) });
    }

    pub(super) fn stop_awaiting(&mut self, is_over: impl Fn(Pid, &Awaited) -> bool) {
        self.awaited.retain(|pid, by_all| {
            by_all.retain(|awaited| !is_over(*pid, awaited));
            !by_all.is_empty()
        });
    }

    /// Takes a process into the scope of a subscriber of chosen ones; not its descendants. Answers whether it was
    /// there, visible, and new. It is found now, or when the source tells of it.
    pub fn admit(&mut self, id: SubscriberId, pid: Pid, now: Time, namespaces: &mut impl Namespaces) -> bool {
        self.await_process(id, pid, now, namespaces);
        let Some((started, namespace)) = self.find(id, pid) else { return false };
        let is_visible = namespace.is_none_or(|namespace| is_visible(&self.views, namespace, started));
        let Some(member) = self.processes.get_mut(&started) else { return false };
        if !is_visible || member.told.contains(&id) {
            return false;
        }
        add(&mut member.told, id, &mut HashMap::new());
        let member = member.clone();
        let what = self.as_found(&member);
        self.tell(id, Event { time: now, what });
        true
    }

    /// A process, which is there, is about to be admitted: until then its end is kept for those who will be told of it. One at a
    /// time: the next one that is expected takes its place.
    pub fn expect(&mut self, pid: Pid, namespaces: &mut impl Namespaces) {
        let Some(ticks) = namespaces.ticks(pid) else { return };
        if self.expected.as_ref().is_none_or(|expected| (expected.pid, expected.ticks) != (pid, ticks)) {
            self.expected = Some(Expected { pid, ticks, ended: None });
        }
    }

    /// Admits the process that is expected, also if it has ended since: then it is found with its end.
    pub fn admit_expected(
        &mut self,
        id: SubscriberId,
        pid: Pid,
        now: Time,
        namespaces: &mut impl Namespaces,
    ) -> bool {
        let Some(mut expected) = self.expected.take_if(|expected| expected.pid == pid) else {
            return self.admit(id, pid, now, namespaces);
        };
        // Another process may have had its number, whose end is still to be told.
        let is_told_of = self.by_pid.get(&pid).is_some_and(|started| started.may_be(expected.ticks));
        let admitted = match &mut expected.ended {
            Some(ended) => self.admit_ended(id, ended),
            None if is_told_of => self.admit(id, pid, now, namespaces),
            None => {
                self.await_start(id, pid, expected.ticks, now);
                false
            }
        };
        self.expected = Some(expected);
        admitted
    }

    /// Has a subscriber told of one that has ended, as of one that is there, and then of its end.
    fn admit_ended(&mut self, id: SubscriberId, ended: &mut Ended) -> bool {
        let Ended { member, numbers, exit } = ended;
        let Some(subscriber) = self.subscribers.get(&id).filter(|_| !member.told.contains(&id)) else {
            return false;
        };
        let number = |id| numbers.iter().find(|(of, _)| *of == id).map(|(_, number)| *number);
        let started = member.process.started;
        if let Some(namespace) = subscriber.audience.namespace {
            let Some((view, number)) = self.views.get_mut(&namespace).zip(number(namespace)) else {
                return false;
            };
            view.numbers.insert(started, number);
        }
        self.processes.insert(started, Member { told: [id].into(), ..member.clone() });
        self.tell(id, Event { time: exit.time, what: self.as_found(member) });
        self.end(started, exit);
        add(&mut member.told, id, &mut HashMap::new());
        true
    }

    /// Takes a process out of the scope of a subscriber of chosen ones, now; not its descendants. Answers whether it was in.
    pub fn dismiss(&mut self, id: SubscriberId, pid: Pid, now: Time) -> bool {
        self.stop_awaiting(|of, awaited| of == pid && awaited.by == id);
        let Some((started, _)) = self.find(id, pid) else { return false };
        let Some(member) = self.processes.get_mut(&started) else { return false };
        if !member.told.contains(&id) {
            return false;
        }
        remove(&mut member.told, id, &mut HashMap::new());
        let what = What::Left { process: member.process };
        self.tell(id, Event { time: now, what });
        true
    }

    /// From now on the caller compares, after every gap, who belongs to each choice: whoever was born in the gap to a parent that is
    /// gone is in none otherwise. Its subscriber is told that all is known when that is done.
    pub fn compare_choices(&mut self) {
        self.compares = true;
    }

    /// The caller begins to compare with what this answers: [`Self::told`].
    pub fn begin_comparison(&mut self, id: SubscriberId) -> Vec<Pid> {
        if let Some(subscriber) = self.subscribers.get_mut(&id)
            && subscriber.comparison == Comparison::Due
        {
            subscriber.comparison = Comparison::Begun;
        }
        self.told(id)
    }

    /// The comparison is done; if there was a gap meanwhile, another one is due.
    pub fn end_comparison(&mut self, id: SubscriberId) {
        let Some(subscriber) = self.subscribers.get_mut(&id) else { return };
        if subscriber.comparison == Comparison::Begun {
            subscriber.comparison = Comparison::Done;
            let event = Event { time: subscriber.time, what: Counts::default().as_synced() };
            self.tell(id, event);
        }
    }

    /// The processes that a subscriber is told of, or will be when the source tells of them.
    pub fn told(&self, id: SubscriberId) -> Vec<Pid> {
        let told = self.processes.values().filter(|member| member.told.contains(&id));
        let told = told.filter_map(|member| member.process.pid);
        let awaited = self.awaited.iter().filter(|(_, by_all)| by_all.iter().any(|awaited| awaited.by == id));
        told.chain(awaited.map(|(pid, _)| *pid)).collect()
    }

    fn find(&self, id: SubscriberId, pid: Pid) -> Option<(Started, Option<NamespaceId>)> {
        let started = *self.by_pid.get(&pid)?;
        Some((started, self.subscribers.get(&id)?.audience.namespace))
    }

    /// The numbers in other namespaces of a process that ends, if it is the one that is expected.
    pub(super) fn expected_numbers(&self, process: Process) -> Option<Vec<(NamespaceId, Option<Pid>)>> {
        let started = process.started;
        let is_it = |expected: &&Expected| {
            expected.ended.is_none() && Some(expected.pid) == process.pid && started.may_be(expected.ticks)
        };
        self.expected.as_ref().filter(is_it)?;
        let views = self.views.iter();
        Some(views.filter_map(|(id, view)| Some((*id, *view.numbers.get(&started)?))).collect())
    }
}
