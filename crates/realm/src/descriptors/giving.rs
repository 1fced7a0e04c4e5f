//! Giving processes their parts of a limit, and their own limits back.

use std::collections::HashSet;

use pinfold_kernel::descriptors;
use pinfold_kernel::process::{self, ProcessError, Vitals};
use pinfold_model::{Dir, Family, HostPid, Seat};

use super::{Descriptors, Held, is_another, may_descend};
use crate::record::{self, DescriptorRecord};
use crate::state::Records;
use crate::{EffectError, Realm, StateError};

/// How often a leaf is looked at again because processes forked while they got their own limits back.
const ROUNDS: usize = 100;

/// How often a process is given its limit again because it has set one itself just before.
const TRIES: usize = 10;

impl Realm {
    /// Gives a process its part; true: that is less than it had. Of one that has ended, the next look finds out.
    pub(super) fn give(&self, process: HostPid, held: &mut Held, part: u64) -> bool {
        let Ok(now) = descriptors::limit(process) else { return false };
        held.limit.found_with(now);
        let given = self.try_give(process, held, part);
        if let Err(error) = &given
            && !held.is_loose
        {
            tracing::warn!("process {process} has no part of a limit: {}", crate::error::chain(error));
        }
        held.is_loose = given.is_err();
        held.limit.given().hard < now.hard
    }

    /// What the process sets itself meanwhile is what it has in the end, as far as its part allows.
    fn try_give(&self, process: HostPid, held: &mut Held, part: u64) -> Result<(), EffectError> {
        for _ in 0..TRIES {
            let next = held.limit.with_part(part);
            if next.is_some() || held.kept.is_some() {
                self.keep_own(process, held)?;
            }
            let Some(next) = next else { return Ok(()) };
            match descriptors::set_limit(process, held.started, next) {
                Ok(had) => held.limit.replaced(had, next),
                Err(ProcessError::Gone(_)) => return Ok(()),
                Err(error) => return Err(EffectError::Limit(error)),
            }
        }
        Ok(())
    }

    /// Writes down what limit a process has by itself, before it is given less.
    fn keep_own(&self, process: HostPid, held: &mut Held) -> Result<(), StateError> {
        let own = held.limit.own();
        if held.kept != Some(own) {
            let record =
                DescriptorRecord { numbering: process::numbering().to_owned(), started: held.started, own };
            self.state.keep(Records::Descriptors, process.get(), Some(&record::descriptor_text(&record)))?;
            held.kept = Some(own);
        }
        Ok(())
    }

    /// Gives processes their own limits back that are in no limited group any more, and those of their children whom nobody
    /// has seen: once their parents have theirs, no more of them are born. `limited`: leaves whose processes have parts.
    pub(super) fn let_go(&self, all: &mut Descriptors, left: Vec<(HostPid, Held)>, limited: &HashSet<&Dir>) {
        let mut family = Family::default();
        let mut lifted: Vec<Dir> = Vec::new();
        let mut entered: Vec<Dir> = Vec::new();
        for (process, held) in left {
            family.add(process, held.limit);
            let is_limited = limited.contains(&held.leaf);
            let leaf = held.leaf.clone();
            if !self.give_back(all, process, held) {
                continue;
            }
            if let Some(Seat::Cell(cell)) = self.seat_of(process) {
                let is_elsewhere = |now: &Dir| *now != leaf && !limited.contains(now);
                entered.extend(self.lock_forest().leaf(cell).filter(is_elsewhere));
            }
            if !is_limited {
                lifted.push(leaf);
            }
        }
        for leaves in [&mut lifted, &mut entered] {
            leaves.sort_unstable();
            leaves.dedup();
        }
        for _ in 0..ROUNDS {
            let seen = |leaf: &Dir| {
                let processes = self.processes_of_leaf(leaf).unwrap_or_default();
                processes.into_iter().map(|process| (process, leaf.clone())).collect::<Vec<_>>()
            };
            let mut found: Vec<(HostPid, Dir)> = lifted.iter().flat_map(seen).collect();
            let of_lifted = found.len();
            found.extend(entered.iter().flat_map(seen));
            let mut are_new = false;
            for (at, (process, leaf)) in found.into_iter().enumerate() {
                if family.limit_of(process).is_some() || all.held.contains_key(&process) {
                    continue;
                }
                let (Ok(vitals), Ok(now)) = (Vitals::of(process), descriptors::limit(process)) else {
                    continue;
                };
                let parent = vitals.parent.and_then(|parent| Some((parent, family.limit_of(parent)?)));
                // Where somebody went, there are others, who are no children of his.
                if at >= of_lifted && parent.is_none() {
                    continue;
                }
                are_new = true;
                let limit = family.newborn(now, parent, may_descend);
                family.add(process, limit);
                self.give_back(all, process, Held::new(vitals.started, leaf, limit));
            }
            if !are_new {
                return;
            }
        }
        tracing::warn!("some processes keep a part of a limit that they are in no more: they fork too often");
    }

    /// Gives a process its own limit back; false: it has ended. One that the kernel does not let have it stays held, and is tried
    /// again at the next look.
    fn give_back(&self, all: &mut Descriptors, process: HostPid, mut held: Held) -> bool {
        let given = give_own(process, &mut held);
        if let Err(error) = given {
            if !held.is_loose {
                tracing::warn!(
                    "process {process} does not get its own limit on descriptors back yet: {error}"
                );
            }
            held.is_loose = true;
            all.held.insert(process, held);
            return true;
        }
        if held.kept.is_some() {
            self.forget_own(process);
        }
        given.unwrap_or(false)
    }

    pub(super) fn forget_own(&self, process: HostPid) {
        if let Err(error) = self.state.keep(Records::Descriptors, process.get(), None) {
            tracing::warn!("the record of a process that is limited no more stays: {error}");
        }
    }
}

/// Gives a process its own limit again; false: it has ended. What it sets itself meanwhile is its own.
fn give_own(process: HostPid, held: &mut Held) -> Result<bool, ProcessError> {
    if is_another(process, held) {
        return Ok(false);
    }
    let set = |held: &mut Held| -> Result<(), ProcessError> {
        held.limit.found_with(descriptors::limit(process)?);
        for _ in 0..TRIES {
            let own = held.limit.own();
            if held.limit.given() == own {
                break;
            }
            held.limit.replaced(descriptors::set_limit(process, held.started, own)?, own);
        }
        Ok(())
    };
    match set(held) {
        Ok(()) => Ok(true),
        Err(ProcessError::Gone(_)) => Ok(false),
        Err(error) => Err(error),
    }
}
