//! An outer pinfold's stream, made to last longer than the outer pinfold. Pure.
//!
//! As long as one subscription lasts, its events are passed on as they are. When it ends, that is a gap; the list with which the next one
//! begins is compared with what was known, and the difference is passed on. A process that both know may have got
//! another start time from the new daemon: it keeps its old one here.

use std::collections::HashMap;

use crate::event::{Comm, Event, Ids, Pid, Process, Started, Time, What};

/// What was passed on, and how to pass on more.
#[derive(Default, Debug)]
pub struct Relay {
    known: HashMap<Started, Known>,
    /// Start times of theirs that differ from ours.
    aliases: HashMap<Started, Started>,
    /// What a new subscription has listed so far; `None`: its list is complete.
    listed: Option<HashMap<Started, Known>>,
    latest: Time,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Known {
    process: Process,
    parent: Option<Process>,
    comm: Comm,
    uid: Option<Ids>,
    gid: Option<Ids>,
}

impl Relay {
    /// Nothing was passed on yet.
    pub fn new() -> Self {
        Self { listed: Some(HashMap::new()), ..Self::default() }
    }

    /// Whether a process, by its start time in ticks of `/proc/PID/stat`, was told of and lives.
    pub fn knows(&self, pid: Pid, ticks: u64) -> bool {
        let mut processes = self.known.values().map(|known| known.process);
        processes.any(|process| process.pid == Some(pid) && process.started.may_be(ticks))
    }

    /// When the latest of what was told happened.
    pub const fn told_until(&self) -> Time {
        self.latest
    }

    /// Tells of all processes that are known, as of ones that are found, parents first; and that these are all, if they are.
    pub fn list(&self, now: Time, out: &mut Vec<Event>) {
        let mut known: Vec<&Known> = self.known.values().collect();
        known.sort_by_key(|known| known.process.started);
        for Known { process, parent, comm, uid, gid } in known.iter().copied().copied() {
            let parent = parent.filter(|parent| self.known.contains_key(&parent.started));
            out.push(Event { time: now, what: What::Found { process, parent, comm, uid, gid } });
        }
        if self.listed.is_none() {
            let found = u32::try_from(known.len()).unwrap_or(u32::MAX);
            out.push(Event { time: now, what: What::Synced { found, gone: 0, changed: 0 } });
        }
    }

    /// The subscription has ended.
    pub fn disconnected(&mut self, now: Time, out: &mut Vec<Event>) {
        if self.listed.replace(HashMap::new()).is_none() {
            out.push(Event { time: now, what: What::Gap });
        }
        self.aliases.clear();
    }

    /// Takes an event of the present subscription.
    pub fn feed(&mut self, mut event: Event, out: &mut Vec<Event>) {
        self.latest = self.latest.max(event.time);
        let Some(listed) = &mut self.listed else {
            self.rename(&mut event.what);
            apply(&mut self.known, &event.what);
            out.push(event);
            return;
        };
        if let What::Synced { .. } = event.what {
            let listed = self.listed.take().unwrap_or_default();
            self.compare(listed, event.time, out);
        } else {
            apply(listed, &event.what);
        }
    }

    /// Gives processes the start times that they have here.
    fn rename(&self, what: &mut What) {
        if self.aliases.is_empty() {
            return;
        }
        let rename = |process: &mut Process| {
            if let Some(ours) = self.aliases.get(&process.started) {
                process.started = *ours;
            }
        };
        if let What::Found { parent: Some(parent), .. } | What::Fork { parent: Some(parent), .. } = what {
            rename(parent);
        }
        what.process_mut().into_iter().for_each(rename);
    }

    /// Passes on the difference between what was known and what a new subscription has listed.
    fn compare(&mut self, listed: HashMap<Started, Known>, time: Time, out: &mut Vec<Event>) {
        let mut listed: Vec<Known> = listed.into_values().collect();
        listed.sort_by_key(|known| known.process.started);
        let by_pid: HashMap<Pid, Started> = self
            .known
            .values()
            .filter_map(|known| Some((known.process.pid?, known.process.started)))
            .collect();
        let mut missing = std::mem::take(&mut self.known);
        let mut difference = Vec::new();
        for theirs in listed {
            let started = theirs.process.started;
            let ours =
                theirs.process.pid.and_then(|pid| by_pid.get(&pid)).filter(|ours| is_same(**ours, started));
            match ours.and_then(|ours| missing.remove(ours)) {
                Some(ours) => self.keep(ours, &theirs, &mut difference),
                None => self.add(theirs, &missing, &mut difference),
            }
        }
        let gone = missing.into_values().map(|known| {
            let Known { process, comm, .. } = known;
            What::Exit { process, comm, status: None }
        });
        let mut gone: Vec<What> = gone.collect();
        gone.sort_by_key(|what| std::cmp::Reverse(what.process()));
        let (found, changed) = difference.iter().fold((0, 0), |(found, changed), what| match what {
            What::Found { .. } => (found + 1, changed),
            _ => (found, changed + 1),
        });
        let synced = What::Synced { found, gone: gone.len() as u32, changed };
        out.extend(gone.into_iter().chain(difference).chain([synced]).map(|what| Event { time, what }));
    }

    /// A process that was known.
    fn keep(&mut self, ours: Known, theirs: &Known, difference: &mut Vec<What>) {
        let process = ours.process;
        if theirs.process.started != process.started {
            self.aliases.insert(theirs.process.started, process.started);
        }
        if let Some(ids) = theirs.uid.filter(|_| theirs.uid != ours.uid) {
            difference.push(What::Uid { process, ids });
        }
        if let Some(ids) = theirs.gid.filter(|_| theirs.gid != ours.gid) {
            difference.push(What::Gid { process, ids });
        }
        if theirs.comm != ours.comm {
            difference.push(What::Comm { process, comm: theirs.comm });
        }
        let uid = theirs.uid.or(ours.uid);
        let gid = theirs.gid.or(ours.gid);
        self.known.insert(process.started, Known { comm: theirs.comm, uid, gid, ..ours });
    }

    /// A process that was not.
    fn add(&mut self, mut theirs: Known, missing: &HashMap<Started, Known>, difference: &mut Vec<What>) {
        let mut started = theirs.process.started;
        while self.known.contains_key(&started) || missing.contains_key(&started) {
            started.0 += 1;
        }
        if started != theirs.process.started {
            self.aliases.insert(theirs.process.started, started);
        }
        theirs.process.started = started;
        let Known { process, parent, comm, uid, gid } = theirs;
        let mut what = What::Found { process, parent, comm, uid, gid };
        if let What::Found { parent: Some(parent), .. } = &mut what
            && let Some(ours) = self.aliases.get(&parent.started)
        {
            parent.started = *ours;
        }
        self.known.insert(started, theirs);
        difference.push(what);
    }
}

/// Whether two start times that two daemons give to a process of one number may be of the same process.
const fn is_same(ours: Started, theirs: Started) -> bool {
    ours.may_be(theirs.ticks()) || theirs.is_soon_after(ours.ticks())
}

/// Keeps a table of processes up to date.
fn apply(known: &mut HashMap<Started, Known>, what: &What) {
    let Some(process) = what.process() else { return };
    match *what {
        What::Found { parent, comm, uid, gid, .. } | What::Fork { parent, comm, uid, gid, .. } => {
            known.insert(process.started, Known { process, parent, comm, uid, gid });
        }
        What::Exit { .. } | What::Left { .. } => {
            known.remove(&process.started);
        }
        What::Exec { comm, .. } | What::Comm { comm, .. } => {
            known.entry(process.started).and_modify(|known| known.comm = comm);
        }
        What::Uid { ids, .. } => {
            known.entry(process.started).and_modify(|known| known.uid = Some(ids));
        }
        What::Gid { ids, .. } => {
            known.entry(process.started).and_modify(|known| known.gid = Some(ids));
        }
        What::Sid { .. } | What::Gap | What::Synced { .. } => {}
    }
}
