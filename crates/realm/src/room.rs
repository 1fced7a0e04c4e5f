//! Lowering a limit: usage is brought below it first, so that the kernel below kills nobody.
//!
//! v1 reclaims, and refuses with EBUSY if usage stays above. v2 takes any limit and kills until it holds. A throttle
//! (`memory.high`) reclaims as v1 does, holds off who would use more meanwhile, and kills nobody: it is there from before
//! the check until the limit is.

use pinfold_files::{Assignment, Carry, Room};
use pinfold_kernel::{Step, Where};
use pinfold_model::{Carriers, Dir, Forest, Settings};

use crate::{EffectError, Realm};

/// A directory whose usage must be brought below a limit.
pub(crate) struct Wanted {
    dir: Dir,
    room: Room,
    most: u64,
    /// What the throttle is now, and if the values are in force.
    rest: (String, String),
}

/// What must be made room for before these values are in force.
pub(crate) fn wanted(forest: &Forest, assignments: &[Assignment]) -> Vec<Wanted> {
    let mut found = Vec::new();
    for assignment in assignments {
        let Carry::Limit(writes) = assignment.setting.carry else { continue };
        let Some(Carriers::Spine(dir)) = forest.carriers(assignment.group) else { continue };
        let settings = forest.group(assignment.group).map(|group| group.settings().clone());
        let before = settings.unwrap_or(Settings::NONE);
        let mut settings = before.clone();
        settings.replace(assignment.setting.key, Some(assignment.value.clone()));
        let rooms = writes.iter().filter_map(|write| write.room);
        found.extend(rooms.filter_map(|room| {
            let rest = ((room.rest)(&before), (room.rest)(&settings));
            Some(Wanted { dir: dir.clone(), room, most: (room.most)(&settings)?, rest })
        }));
    }
    found
}

impl Realm {
    /// Does something with usage held below what is wanted. EBUSY, and nothing done, if it cannot be.
    pub(crate) fn with_room(
        &self,
        rooms: &[Wanted],
        put_in_force: impl FnOnce() -> Result<(), EffectError>,
    ) -> Result<(), EffectError> {
        let answer = rooms.iter().try_for_each(|wanted| self.make_room(wanted)).and_then(|()| put_in_force());
        for wanted in rooms {
            let rest = if answer.is_ok() { &wanted.rest.1 } else { &wanted.rest.0 };
            if let Err(stuck) = self.throttle(wanted, rest.clone()) {
                tracing::error!("a throttle stays in {}: {}", wanted.dir, crate::error::chain(&stuck));
            }
        }
        answer
    }

    fn make_room(&self, wanted: &Wanted) -> Result<(), EffectError> {
        self.throttle(wanted, wanted.most.to_string())?;
        match self.used(wanted)? {
            used if used > wanted.most => Err(EffectError::InUse { used, most: wanted.most }),
            _ => Ok(()),
        }
    }

    fn used(&self, wanted: &Wanted) -> Result<u64, EffectError> {
        let mut used = 0_u64;
        for file in wanted.room.usage {
            match self.tree.read(Where::Dir(&wanted.dir), file) {
                Ok(text) => used = used.saturating_add(text.trim().parse().unwrap_or(0)),
                // A kernel without swap.
                Err(pinfold_kernel::ReadError::NoFile { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(used)
    }

    fn throttle(&self, wanted: &Wanted, text: String) -> Result<(), EffectError> {
        let step = Step::Write { dir: wanted.dir.clone(), file: wanted.room.throttle, text };
        Ok(self.tree.carry_out(&[step])?)
    }
}
