//! Finding limits on descriptors again after a daemon that was killed (I8).

use pinfold_kernel::process::{self, ProcessError};
use pinfold_kernel::{descriptors, inspect};
use pinfold_model::{Dir, HostPid, Narrowed, Seat};

use super::{Descriptors, Held, most_of};
use crate::realm::Changes;
use crate::record;
use crate::state::Records;
use crate::{Realm, StateError};

impl Realm {
    /// Finds the limits again, and the processes that had less than their own when the last daemon ended.
    pub(crate) fn recover_descriptors(&self, change: &mut Changes) -> Result<(), StateError> {
        let kept = self.state.records(Records::Descriptors)?;
        {
            let forest = self.lock_forest();
            let roots = forest.hierarchies().map(|(_, found)| found.root());
            let groups = roots.flat_map(|root| forest.subtree(root));
            change.descriptors.limited = groups.filter(|group| most_of(&forest, *group).is_some()).collect();
        }
        for (number, text) in kept {
            match self.known_again(number, &text) {
                Ok(Some((process, held))) => _ = change.descriptors.held.insert(process, held),
                Ok(None) => self.state.keep(Records::Descriptors, number, None)?,
                Err(error) => tracing::warn!("process {number} keeps its part of a limit for now: {error}"),
            }
        }
        if inspect::resource_limits() {
            self.look_after_descriptors(change);
        } else if !change.descriptors.is_idle() {
            tracing::warn!("limits on descriptors stay as they are: this takes CAP_SYS_RESOURCE");
            change.descriptors = Descriptors::default();
        }
        Ok(())
    }

    /// The process of a record, unless it has ended; whoever has its number then is another one. An error says that this is not
    /// known: the next daemon may ask again.
    fn known_again(&self, number: u32, text: &str) -> Result<Option<(HostPid, Held)>, ProcessError> {
        let record = record::parse_descriptors(text)
            .inspect_err(|line| tracing::warn!("record of the limit of process {number}: {line}"));
        let (Ok(record), Some(process)) = (record, HostPid::new(number)) else { return Ok(None) };
        let found = process::start_time(process).and_then(|now| Ok((now, descriptors::limit(process)?)));
        let (started, now) = match found {
            Err(ProcessError::Gone(_)) => return Ok(None),
            found => found?,
        };
        if started != record.started || process::numbering() != record.numbering {
            return Ok(None);
        }
        // Where it is, the first look finds. What it has set itself meanwhile cannot be told from what it was given.
        let leaf = match self.seat_of(process) {
            Some(Seat::Cell(cell)) => self.lock_forest().leaf(cell),
            Some(Seat::Outside(_)) | None => None,
        };
        let (leaf, limit) = (leaf.unwrap_or(Dir::REALM), Narrowed::back(record.own, now));
        Ok(Some((process, Held { kept: Some(record.own), ..Held::new(started, leaf, limit) })))
    }
}
