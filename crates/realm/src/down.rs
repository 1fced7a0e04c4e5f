//! Running, stopping, and leaving cleanly.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use pinfold_kernel::{self as kernel, Place, Step};
use pinfold_model::{CellId, Dir};

use crate::open::LEAVING;
use crate::{DownError, EffectError, Realm};

/// How often a leaf is emptied again because processes forked while they were moved.
const ROUNDS: usize = 100;
/// After how many of them those that are left are frozen.
const FREE_ROUNDS: usize = 3;

impl Realm {
    /// The realm's own work: empty cells, release agents, divided limits, and whoever waits to be told. Returns after
    /// [`Realm::stop`].
    pub fn run(&self) {
        std::thread::scope(|scope| {
            scope.spawn(|| self.run_agents());
            scope.spawn(|| self.remove_idle());
            if let Some(inbox) = self.notices.inbox() {
                let thread = std::thread::Builder::new().name("notices".to_owned());
                if let Err(error) = thread.spawn_scoped(scope, move || self.tell_listeners(&inbox)) {
                    tracing::error!("nobody is told of memory events: {error}");
                }
            }
            scope.spawn(|| self.look_after_shares());
            self.follow_events();
            self.releases.stop();
            self.notices.stop();
            self.sharing.end();
        });
    }

    /// Makes [`Realm::run`] return.
    pub fn stop(&self) {
        self.tracker.stop();
    }

    /// Leaves cleanly: processes go back to where they came from, and what the realm made is removed. No change is
    /// accepted afterwards.
    pub fn down(&self) -> Result<(), DownError> {
        let mut change = self.lock_change();
        change.closed = true;
        change.descriptors.lift_all();
        self.look_after_descriptors(&mut change);
        let mark = self.state.mark()?.unwrap_or_default().replace(LEAVING, "");
        self.state.set_mark(&format!("{mark}{LEAVING}"))?;
        let cells: Vec<(CellId, Dir, Place)> = {
            let forest = self.lock_forest();
            let place = |id| {
                let origin = forest.origin_path(forest.cell(id)?.origin())?;
                Some(Place::Outside(OsStr::from_bytes(origin).to_owned()))
            };
            let cells = forest.cells().map(|(id, _)| id);
            cells.filter_map(|id| Some((id, forest.leaf(id)?, place(id)?))).collect()
        };
        for (cell, leaf, origin) in cells {
            self.tracker.unwatch(cell);
            self.empty(&leaf, &origin);
        }
        self.tracker.close()?;
        Ok(self.state.destroy()?)
    }

    /// Moves every process of a leaf back; those that fork meanwhile in the next round.
    ///
    /// Who forks faster than he is moved is frozen after some rounds; what is moved out runs again. Not by signals, which others would
    /// notice; and not from the start: a daemon that is killed meanwhile leaves frozen who is.
    fn empty(&self, leaf: &Dir, origin: &Place) {
        let freeze = |text: &str| {
            let step = Step::Write { dir: leaf.clone(), file: "cgroup.freeze", text: text.to_owned() };
            if let Err(error) = self.tracker.carry_out(&[step]) {
                tracing::warn!("{leaf} cannot be frozen, or thawed, while it is emptied: {error}");
            }
        };
        for round in 0..ROUNDS {
            if round == FREE_ROUNDS && !self.tracker.is_user_space() {
                freeze("1");
            }
            let processes = match self.tracker.processes(leaf) {
                Ok(processes) if processes.is_empty() => return,
                Ok(processes) => processes,
                Err(kernel::ReadError::Gone { .. }) => return,
                Err(error) => return tracing::warn!("{error}"),
            };
            for process in processes {
                match self.carry_out_move(&Step::Move { process, to: origin.clone() }) {
                    Ok(()) => {}
                    Err(EffectError::Step(error)) if matches!(error.cause, kernel::Cause::NoProcess(_)) => {}
                    Err(error) => {
                        tracing::warn!("process {process} stays in {leaf}: {}", crate::error::chain(&error));
                    }
                }
            }
        }
        // Somebody could not be moved: nobody is left to thaw it later.
        freeze("0");
    }
}
