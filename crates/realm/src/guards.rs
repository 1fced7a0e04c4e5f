//! Parts that kill (`memory.max`), before they are lowered.
//!
//! A part is at least what a look saw of use, and some more; but a process may use more than that before the part is written.
//! So guards (`memory.high`) are lowered first: from then on whoever is above one is slowed down and gives back what can be
//! reclaimed. Then use is read again. What has grown above its part is divided anew, and if it grows again and again, that part
//! is not lowered: it is the others that have less to divide. Nobody is killed because of what others need, but for who has nearly
//! all of a limit while nothing can be reclaimed, as v1 would kill it.

use std::collections::{HashMap, HashSet};

use pinfold_kernel::Step;
use pinfold_model::{Dir, GroupId};

use crate::carry::{Carrying, Divided};
use crate::order::lesser;
use crate::realm::Changes;
use crate::{EffectError, Realm};

/// How often a limit is divided anew because use has grown meanwhile, before parts stay that cannot be lowered. Where guards hold, once
/// is enough.
const TRIES: usize = 4;

/// How limits are to be divided.
#[derive(Default, Debug)]
pub(crate) struct Attempt {
    /// How often they were before, to no avail: then guards are not what is kept, and those of all the limits have to be written.
    pub(crate) before: usize,
    /// Parts that are not to be lowered.
    staying: HashSet<(Dir, &'static str)>,
    /// Whether somebody may be killed for a lesser one who has nothing left.
    pub(crate) is_look: bool,
    /// The parts that are lowered for that.
    met: HashSet<(Dir, &'static str)>,
}

impl Attempt {
    /// Whether a directory is to have no less of a limit than it has now.
    pub(crate) fn stays(&self, dir: &Dir, file: &'static str) -> bool {
        self.staying.contains(&(dir.clone(), file))
    }

    /// Has a part be lowered though more is used.
    pub(crate) fn let_be_met(&mut self, dir: Dir, file: &'static str) {
        self.met.insert((dir, file));
    }

    /// These use more than their part would be. An error if that is not because of how limits are divided, but because there is a
    /// lower one.
    fn again(&mut self, above: Vec<Above>) -> Result<(), EffectError> {
        self.before += 1;
        if self.before < TRIES {
            return Ok(());
        }
        for Above { dir, file, used, most } in above {
            if !self.staying.insert((dir, file)) {
                return Err(EffectError::InUse { used, most });
            }
        }
        Ok(())
    }
}

/// A directory that uses more than its part is about to be.
#[derive(PartialEq, Eq, Debug)]
struct Above {
    dir: Dir,
    file: &'static str,
    used: u64,
    most: u64,
}

impl Realm {
    /// Has a plan made until its parts can be written without a kill, and lowers their guards. Answers what the plan made, and
    /// its steps, those first that lower a part.
    ///
    /// EBUSY if there is a limit that less would have to be used for; guards are not what is kept then.
    pub(crate) fn prepare<T>(
        &self,
        divided: &[Divided],
        mut plan: impl FnMut(&mut Attempt) -> Result<(T, Vec<Step>), EffectError>,
    ) -> Result<(T, Vec<Step>), EffectError> {
        let mut attempt = Attempt::default();
        loop {
            attempt.met.clear();
            let (what, steps) = plan(&mut attempt)?;
            let steps = self.lowered_first(steps, divided)?;
            let mut above = lower_guards(
                &steps,
                divided,
                |dir, file| self.text_of(dir, file),
                |step| Ok(self.carry_out_if_there(step)?),
            )?;
            above.retain(|it| !attempt.met.contains(&(it.dir.clone(), it.file)));
            if above.is_empty() {
                return Ok((what, steps));
            }
            attempt.again(above)?;
        }
    }

    /// Has guards of these groups' limits be again what is kept.
    pub(crate) fn take_guards_back(&self, change: &Changes, groups: &[GroupId], divided: &[Divided]) {
        let is_guard = |step: &Step| {
            let is_of = |file: &str| divided.iter().any(|one| one.limit.guard == Some(file));
            matches!(step, Step::Write { file, .. } if is_of(file))
        };
        let steps: Vec<Step> = {
            let forest = self.lock_forest();
            let carrying = Carrying { forest: &forest, shares: &change.shares, assigned: &[] };
            groups.iter().flat_map(|group| carrying.steps_of_limits(*group)).collect()
        };
        for step in steps.iter().filter(|step| is_guard(step) && self.has_file_of(step)) {
            if let Err(error) = self.carry_out_if_there(step) {
                tracing::warn!("a guard stays as it is: {error}");
            }
        }
    }
}

/// Lowers the guard of each part that is about to be lowered, and says where more is used then than it is to be.
fn lower_guards<E>(
    steps: &[Step],
    divided: &[Divided],
    read: impl Fn(&Dir, &'static str) -> Result<Option<String>, E>,
    mut write: impl FnMut(&Step) -> Result<(), E>,
) -> Result<Vec<Above>, E> {
    let guarded = divided.iter().filter(|one| one.limit.guard.is_some());
    let guarded: HashMap<(&Dir, &str), &Divided> =
        guarded.flat_map(|one| one.dirs.iter().map(move |dir| ((dir, one.limit.file), one))).collect();
    if guarded.is_empty() {
        return Ok(Vec::new());
    }
    let mut firsts: HashMap<(&Dir, &str), &Step> = HashMap::new();
    for step in steps {
        let Step::Write { dir, file, .. } = step else { continue };
        firsts.entry((dir, file)).or_insert(step);
    }
    let mut lowered: Vec<(&Dir, &Divided, u64)> = Vec::new();
    for step in steps {
        let Step::Write { dir, file, text } = step else { continue };
        let Some(one) = guarded.get(&(dir, *file)) else { continue };
        let (Some(guard), Ok(most)) = (one.limit.guard, text.parse()) else { continue };
        if !is_lower(text, read(dir, file)?) {
            continue;
        }
        lowered.push((dir, one, most));
        if let Some(step @ Step::Write { text, .. }) = firsts.get(&(dir, guard))
            && is_lower(text, read(dir, guard)?)
        {
            write(step)?;
        }
    }
    let mut above = Vec::new();
    for (dir, one, most) in lowered {
        let used = read(dir, one.limit.used.figure().file)?.and_then(|text| text.trim().parse::<u64>().ok());
        if let Some(used) = used.filter(|used| *used > most) {
            above.push(Above { dir: dir.clone(), file: one.limit.file, used, most });
        }
    }
    Ok(above)
}

/// Whether a value is less than what is there; nothing is less than what is not there.
fn is_lower(text: &str, now: Option<String>) -> bool {
    now.is_some_and(|now| {
        let now = now.trim_end();
        now != text && lesser(now, text).is_some_and(|least| least == text)
    })
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use pinfold_files::{Amount, Figure, Used};
    use pinfold_model::CellId;

    use super::*;
    use crate::carry::Limit;

    /// Writes parts of a limit of 100 to two directories that have 50 each, with guards at 45. Use is what it is before any
    /// guard is lowered, and then. Answers who uses more than its part would be, and which guards were written.
    fn lower(
        parts: [u64; 2],
        guards: [&str; 2],
        used: [u64; 2],
        then: [u64; 2],
    ) -> (Vec<String>, Vec<String>) {
        let dirs: Vec<Dir> = (1..=2).map(|at| Dir::REALM.cell(CellId::new(at).expect("not 0"))).collect();
        let figure = Figure { file: "memory.current", value: |text, _| text.parse().ok() };
        let limit = Limit {
            file: "memory.max",
            amounts: Amount::only(Some(100)),
            used: Used::Now(figure),
            pressed: None,
            guard: Some("memory.high"),
            least: 0,
            periods: None,
        };
        let divided = Divided { group: GroupId::new(1).expect("not 0"), limit, dirs: dirs.clone() };
        let write =
            |dir: &Dir, file, text: &str| Step::Write { dir: dir.clone(), file, text: text.to_owned() };
        let steps: Vec<Step> = (0..2)
            .flat_map(|at| {
                let part = parts[at].to_string();
                [write(&dirs[at], "memory.high", guards[at]), write(&dirs[at], "memory.max", &part)]
            })
            .collect();
        let written = RefCell::new(Vec::new());
        let read = |dir: &Dir, file: &'static str| {
            let at = dirs.iter().position(|one| one == dir).expect("one of them");
            Ok::<_, ()>(Some(match file {
                "memory.max" => "50\n".to_owned(),
                "memory.high" => "45\n".to_owned(),
                _ if written.borrow().is_empty() => format!("{}\n", used[at]),
                _ => format!("{}\n", then[at]),
            }))
        };
        let above = lower_guards(&steps, &[divided], read, |step| {
            let Step::Write { dir, file, text } = step else { unreachable!() };
            written.borrow_mut().push(format!("{dir}/{file}={text}"));
            Ok(())
        });
        let above = above.expect("nothing fails").into_iter();
        (above.map(|it| format!("{} {} {}", it.dir, it.used, it.most)).collect(), written.into_inner())
    }

    #[test]
    fn a_part_is_lowered_only_if_its_guard_holds_use_below_it() {
        let one = || vec!["cell.1/memory.high=36".to_owned()];
        for (parts, guards, used, then, expected) in [
            ([40, 60], ["36", "54"], [30, 50], [30, 50], (vec![], one())),
            // It has grown since the look; so it would be killed.
            ([40, 60], ["36", "54"], [44, 50], [44, 50], (vec!["cell.1 44 40".to_owned()], one())),
            // It gives back what is above the guard.
            ([40, 60], ["36", "54"], [44, 50], [36, 50], (vec![], one())),
            // With next to nothing left there are no guards: use says all.
            ([40, 60], ["max", "max"], [40, 60], [40, 60], (vec![], vec![])),
            ([40, 60], ["max", "max"], [41, 59], [41, 59], (vec!["cell.1 41 40".to_owned()], vec![])),
            // Nothing is lowered: what is used above that is nobody's doing.
            ([50, 50], ["45", "45"], [60, 60], [60, 60], (vec![], vec![])),
        ] {
            assert_eq!(lower(parts, guards, used, then), expected, "{parts:?} {guards:?} {used:?} {then:?}");
        }
    }

    #[test]
    fn a_part_that_cannot_be_lowered_again_and_again_stays() {
        let dir = Dir::REALM.cell(CellId::new(1).expect("not 0"));
        let above = || vec![Above { dir: dir.clone(), file: "memory.max", used: 41, most: 40 }];
        let mut attempt = Attempt::default();
        for _ in 1..TRIES {
            attempt.again(above()).expect("it may be given more the next time");
            assert!(!attempt.stays(&dir, "memory.max"));
        }
        attempt.again(above()).expect("nobody has less for it");
        assert!(attempt.stays(&dir, "memory.max"));
        assert!(!attempt.stays(&dir, "memory.high"));
        // It stays, and is to be lowered all the same: by a limit.
        let refused = attempt.again(above()).expect_err("somebody would be killed");
        assert!(matches!(refused, EffectError::InUse { used: 41, most: 40 }), "{refused}");
    }
}
