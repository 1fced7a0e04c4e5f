//! One subscriber's queue: events written in its numbers, as many as it may have waiting, and what it was told when that was too many.
//! Pure.

use std::collections::{HashMap, VecDeque};

use crate::event::{Comm, Event, Ids, Pid, Process, Started, Time, What};
use crate::hub::Audience;
use crate::namespace::IdMap;
use crate::wire;

/// A packet is sent when it has this size.
const PACKET: usize = 16 * 1024;

/// What a subscriber knows of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct State {
    pub(crate) comm: Comm,
    pub(crate) uid: Option<Ids>,
    pub(crate) gid: Option<Ids>,
    pub(crate) execs: u32,
}

/// Another pid namespace in which there are subscribers: the numbers of the processes that are visible there.
#[derive(Default, Debug)]
pub(crate) struct View {
    pub(crate) numbers: HashMap<Started, Option<Pid>>,
    pub(crate) subscribers: usize,
}

/// Of which scope a subscriber is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reach {
    All,
    Subtree,
    Chosen,
}

#[derive(Debug)]
pub(crate) struct Subscriber {
    pub(crate) audience: Audience,
    pub(crate) reach: Reach,
    pub(crate) packets: VecDeque<Vec<u8>>,
    pub(crate) bytes: usize,
    /// When it subscribed, or the latest of what concerns it happened: nothing outside of its scope leaves a trace here.
    pub(crate) time: Time,
    /// What it was told before the gap; `None`: it is told of everything as it happens.
    pub(crate) behind: Option<HashMap<Started, Remembered>>,
    /// What changed since the gap, or the start, that it is not over yet.
    pub(crate) counts: Option<Counts>,
    /// Whether, after a gap, its chosen processes are to be compared before it is told that all is known.
    pub(crate) comparison: Comparison,
    pub(crate) is_ready: bool,
    /// Its stream ends: what it was told is not remembered any more.
    pub(crate) is_given_up: bool,
}

/// Whether the caller compares, after a gap, who belongs to a choice.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) enum Comparison {
    #[default]
    Done,
    Due,
    Begun,
}

/// What a subscriber was told of a process, in its numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Remembered {
    pub(crate) process: Process,
    pub(crate) state: State,
}

#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Counts {
    pub(crate) found: u32,
    pub(crate) gone: u32,
    pub(crate) changed: u32,
}

impl Subscriber {
    pub(crate) fn new(audience: Audience, reach: Reach, now: Time) -> Self {
        Self {
            audience,
            reach,
            packets: VecDeque::new(),
            bytes: 0,
            time: now,
            behind: Some(HashMap::new()),
            counts: Some(Counts::default()),
            comparison: Comparison::Done,
            is_ready: false,
            is_given_up: false,
        }
    }

    /// Writes an event in the subscriber's numbers.
    pub(crate) fn queue(&mut self, mut event: Event, view: Option<&View>) {
        match &mut event.what {
            What::Gap => self.counts = Some(Counts::default()),
            What::Synced { .. } => match self.counts.take() {
                Some(counts) => event.what = counts.as_synced(),
                None => return,
            },
            what => {
                self.counts.iter_mut().for_each(|counts| counts.count(what));
                self.translate(what, view);
            }
        }
        if self.packets.back().is_none_or(|packet| packet.len() >= PACKET || packet.starts_with(b"pinfold-"))
        {
            self.packets.push_back(Vec::with_capacity(256));
        }
        let Some(packet) = self.packets.back_mut() else { return };
        let before = packet.len();
        wire::write(&event, packet);
        self.bytes += packet.len() - before;
    }

    fn translate(&self, what: &mut What, view: Option<&View>) {
        let ids = |ids: &mut Ids, map: &IdMap| {
            *ids = Ids { real: map.inside(ids.real), effective: map.inside(ids.effective) };
        };
        match what {
            What::Found { uid, gid, .. } | What::Fork { uid, gid, .. } => {
                uid.iter_mut().for_each(|uid| ids(uid, &self.audience.users));
                gid.iter_mut().for_each(|gid| ids(gid, &self.audience.groups));
            }
            What::Uid { ids: uid, .. } => ids(uid, &self.audience.users),
            What::Gid { ids: gid, .. } => ids(gid, &self.audience.groups),
            _ => {}
        }
        let Some(view) = view else { return };
        what.renumber(|started| view.numbers.get(&started).copied());
    }
}

impl What {
    /// Gives the processes other numbers; a parent for which there is `None` is outside.
    pub(crate) fn renumber(&mut self, number: impl Fn(Started) -> Option<Option<Pid>>) {
        if let Self::Found { parent, .. } | Self::Fork { parent, .. } = self {
            *parent = parent.and_then(|parent| Some(Process { pid: number(parent.started)?, ..parent }));
        }
        if let Some(process) = self.process_mut() {
            process.pid = number(process.started).flatten();
        }
    }
}

impl Remembered {
    pub(crate) const fn as_gone(&self) -> What {
        What::Exit { process: self.process, comm: self.state.comm, status: None }
    }
}

impl Counts {
    pub(crate) fn count(&mut self, what: &What) {
        let count = match what {
            What::Found { .. } | What::Fork { .. } => &mut self.found,
            What::Exit { .. } | What::Left { .. } => &mut self.gone,
            _ => &mut self.changed,
        };
        *count = count.saturating_add(1);
    }

    pub(crate) const fn as_synced(self) -> What {
        let Self { found, gone, changed } = self;
        What::Synced { found, gone, changed }
    }
}
