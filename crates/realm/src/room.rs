//! Lowering a limit: usage is brought below it first, so that the kernel below kills nobody.
//!
//! v1 reclaims, and refuses with EBUSY if usage stays above. v2 takes any limit and kills until it holds. A throttle
//! (`memory.high`) reclaims as v1 does, holds off who would use more meanwhile, and kills nobody: it is there from before
//! the check until the limit is. What takes time is done before, while other changes go on ([`crate::reclaim`]).

use pinfold_files::{Amount, Assignment, Carry, Room};
use pinfold_kernel::{Step, Where};
use pinfold_model::{Carriers, Dir, Settings};

use crate::carry::Carrying;
use crate::shares::Shares;
use crate::{EffectError, Realm};

/// Of a limit that several directories have parts of, so much is left to be divided.
const REST: u64 = 8;

/// Directories whose usage must be brought below a limit, all together and each below its part.
pub(crate) struct Wanted {
    room: Room,
    most: u64,
    places: Vec<Placed>,
}

struct Placed {
    dir: Dir,
    most: u64,
    /// Whether it had no more before: then whoever is above it all the same was so by a soft limit, and is refused nothing.
    rises: bool,
    /// What the throttle is now, and if the values are in force.
    rest: (String, String),
}

/// What must be made room for before the assigned values are in force. `now`: the parts that are in force.
pub(crate) fn wanted(carrying: &Carrying<'_>, now: &Shares) -> Vec<Wanted> {
    let mut found = Vec::new();
    for assignment in carrying.assigned {
        let Carry::Limit(writes) = assignment.setting.carry else { continue };
        let group = assignment.group;
        let dirs = carrying.forest.carriers(group).map_or(Vec::new(), Carriers::into_dirs);
        let before = carrying.forest.group(group).map_or(Settings::NONE, |found| found.settings().clone());
        let settings = carrying.settings(group);
        for write in writes {
            let Some((room, most)) = write.room.and_then(|room| Some((room, (room.most)(&settings)?))) else {
                continue;
            };
            let place = |dir: &Dir| {
                // The parts are of what the file limits; a room that counts more than that is made as a whole.
                let part = |shares: &Shares| {
                    let part = shares.part(group, write.file, dir).filter(|_| room.usage.len() == 1)?;
                    Amount::one(&part)
                };
                let rest = |shares: &Shares, settings: &Settings| {
                    let all = carrying.forest.carried(dir).into_iter();
                    let guard =
                        all.filter_map(|group| shares.least_guard(group, room.by.throttle, dir)).min();
                    let part = || Amount::one(&shares.part(group, room.by.throttle, dir)?);
                    guard.or_else(part).map_or_else(|| (room.rest)(settings), |least| least.to_string())
                };
                let most = part(carrying.shares).unwrap_or(most);
                let had = part(now).or_else(|| (room.most)(&before));
                Placed {
                    dir: dir.clone(),
                    most,
                    rises: had.is_some_and(|had| had <= most),
                    rest: (rest(now, &before), rest(carrying.shares, &settings)),
                }
            };
            found.push(Wanted { room, most, places: dirs.iter().map(place).collect() });
        }
    }
    found
}

/// Whether room may have to be made before these values are in force.
pub(crate) fn is_wanted(assignments: &[Assignment]) -> bool {
    let needs = |assigned: &Assignment| match assigned.setting.carry {
        Carry::Limit(writes) => writes.iter().any(|write| write.room.is_some()),
        _ => false,
    };
    assignments.iter().any(needs)
}

impl Wanted {
    /// What there must be room for.
    pub(crate) const fn room(&self) -> Room {
        self.room
    }

    /// Down to what each directory has to be brought, if too much is used. Of several each gives up as much of what it uses, so that
    /// there is something left to be divided.
    pub(crate) fn excess(&self, used: impl Fn(&Dir) -> u64) -> Vec<(Dir, u64)> {
        let used: Vec<(&Dir, u64)> = self.places.iter().map(|place| (&place.dir, used(&place.dir))).collect();
        let sum = used.iter().fold(0_u64, |sum, (_, used)| sum.saturating_add(*used));
        let goal = match used.len() {
            1 => self.most,
            _ => self.most - self.most / REST,
        };
        if sum <= goal {
            return Vec::new();
        }
        let most =
            |used: u64| u64::try_from(u128::from(used) * u128::from(goal) / u128::from(sum)).unwrap_or(goal);
        used.into_iter().map(|(dir, used)| (dir.clone(), most(used))).collect()
    }
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
            for place in &wanted.places {
                let rest = if answer.is_ok() { &place.rest.1 } else { &place.rest.0 };
                if let Err(stuck) = self.throttle(wanted, place, rest.clone()) {
                    tracing::error!("a throttle stays in {}: {}", place.dir, crate::error::chain(&stuck));
                }
            }
        }
        answer
    }

    fn make_room(&self, wanted: &Wanted) -> Result<(), EffectError> {
        let mut sum = 0_u64;
        for place in &wanted.places {
            // Reclaiming is not waited for here, where other changes are held off.
            let fits = |used: u64| match used > place.most && !place.rises {
                true => Err(EffectError::InUse { used, most: place.most }),
                false => Ok(used),
            };
            let used = || self.used_of(&place.dir, wanted.room.usage);
            fits(used()?)?;
            let most = place.most.saturating_sub(self.used_of(&place.dir, wanted.room.beside)?);
            if !self.is_throttled(wanted, place, most)? {
                self.throttle(wanted, place, most.to_string())?;
            }
            let used = fits(used()?)?;
            sum = sum.saturating_add(used);
        }
        if sum > wanted.most && !wanted.places.iter().all(|place| place.rises) {
            return Err(EffectError::InUse { used: sum, most: wanted.most });
        }
        Ok(())
    }

    /// The sum of what these files of a directory say.
    pub(crate) fn used_of(&self, dir: &Dir, files: &[&'static str]) -> Result<u64, EffectError> {
        let mut used = 0_u64;
        for file in files {
            match self.tracker.read(Where::Dir(dir), file) {
                Ok(text) => used = used.saturating_add(text.trim().parse().unwrap_or(0)),
                // A kernel without swap.
                Err(pinfold_kernel::ReadError::NoFile { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(used)
    }

    /// Whether nobody can use more than is wanted already.
    fn is_throttled(&self, wanted: &Wanted, place: &Placed, most: u64) -> Result<bool, EffectError> {
        let text = self.tracker.read(Where::Dir(&place.dir), wanted.room.by.throttle)?;
        Ok(text.trim().parse().is_ok_and(|now: u64| now <= most))
    }

    fn throttle(&self, wanted: &Wanted, place: &Placed, text: String) -> Result<(), EffectError> {
        let step = Step::Write { dir: place.dir.clone(), file: wanted.room.by.throttle, text };
        Ok(self.tracker.carry_out(&[step])?)
    }
}
