//! Parts that kill (`memory.max`), before they are lowered.
//!
//! A part is at least what a look saw of use, and some more; but a process may use more than that before the part is written.
//! So guards (`memory.high`) are lowered first: from then on whoever is above one is slowed down and gives back what can be
//! reclaimed. Then use is read again. What has grown above its part is divided anew.

use pinfold_kernel::Step;
use pinfold_model::{Dir, GroupId};

use crate::carry::{Carrying, Divided};
use crate::order::lesser;
use crate::realm::Changes;
use crate::{EffectError, Realm};

/// How often a limit is divided anew because use has grown meanwhile. Where guards hold, once is enough.
const TRIES: usize = 4;

/// What can be written now.
pub(crate) struct Prepared<T> {
    /// What the plan made beside the steps.
    pub(crate) what: T,
    /// The steps, those first that lower a part.
    pub(crate) steps: Vec<Step>,
    /// Whether nothing is lowered below what is used, as far as that can be known. If not, nearly all of a limit is used: it would
    /// have to be met in one directory, too.
    pub(crate) is_safe: bool,
}

impl Realm {
    /// Has a plan made until its parts can be written without a kill, and lowers their guards. `plan` is told how often it was
    /// asked before: from the second time on guards are not what is kept, and it has to write those of all the limits.
    pub(crate) fn prepare<T>(
        &self,
        divided: &[Divided],
        mut plan: impl FnMut(usize) -> Result<(T, Vec<Step>), EffectError>,
    ) -> Result<Prepared<T>, EffectError> {
        let mut before = 0;
        loop {
            let (what, steps) = plan(before)?;
            let steps = self.lowered_first(steps, divided)?;
            let is_safe = lower_guards(
                &steps,
                divided,
                |dir, file| self.text_of(dir, file),
                |step| Ok(self.carry_out_if_there(step)?),
            )?;
            before += 1;
            if is_safe || before == TRIES {
                return Ok(Prepared { what, steps, is_safe });
            }
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

/// Lowers the guard of each part that is about to be lowered, and says whether no more is used then than each is to be.
fn lower_guards<E>(
    steps: &[Step],
    divided: &[Divided],
    read: impl Fn(&Dir, &'static str) -> Result<Option<String>, E>,
    mut write: impl FnMut(&Step) -> Result<(), E>,
) -> Result<bool, E> {
    let mut lowered: Vec<(&Dir, &'static str, u64)> = Vec::new();
    for step in steps {
        let Step::Write { dir, file, text } = step else { continue };
        let of = |one: &&Divided| one.limit.file == *file && one.dirs.contains(dir);
        let Some(one) = divided.iter().find(of) else { continue };
        let (Some(guard), Ok(most)) = (one.limit.guard, text.parse()) else { continue };
        if !is_lower(text, read(dir, file)?) {
            continue;
        }
        lowered.push((dir, one.limit.used.figure().file, most));
        let of_guard = steps
            .iter()
            .find(|step| matches!(step, Step::Write { dir: d, file, .. } if (d, *file) == (dir, guard)));
        if let Some(step @ Step::Write { text, .. }) = of_guard
            && is_lower(text, read(dir, guard)?)
        {
            write(step)?;
        }
    }
    for (dir, file, most) in lowered {
        let used = read(dir, file)?.and_then(|text| text.trim().parse::<u64>().ok());
        if used.is_some_and(|used| used > most) {
            return Ok(false);
        }
    }
    Ok(true)
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
    /// guard is lowered, and then. Answers whether that is safe, and which guards were written.
    fn lower(parts: [u64; 2], guards: [&str; 2], used: [u64; 2], then: [u64; 2]) -> (bool, Vec<String>) {
        let dirs: Vec<Dir> = (1..=2).map(|at| Dir::REALM.cell(CellId::new(at).expect("not 0"))).collect();
        let figure = Figure { file: "memory.current", value: |text, _| text.parse().ok() };
        let limit = Limit {
            file: "memory.max",
            amounts: Amount::only(Some(100)),
            used: Used::Now(figure),
            pressed: None,
            guard: Some("memory.high"),
            least: 0,
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
        let is_safe = lower_guards(&steps, &[divided], read, |step| {
            let Step::Write { dir, file, text } = step else { unreachable!() };
            written.borrow_mut().push(format!("{dir}/{file}={text}"));
            Ok(())
        });
        (is_safe.expect("nothing fails"), written.into_inner())
    }

    #[test]
    fn a_part_is_lowered_only_if_its_guard_holds_use_below_it() {
        let one = || vec!["cell.1/memory.high=36".to_owned()];
        for (parts, guards, used, then, expected) in [
            ([40, 60], ["36", "54"], [30, 50], [30, 50], (true, one())),
            // It has grown since the look; so it would be killed.
            ([40, 60], ["36", "54"], [44, 50], [44, 50], (false, one())),
            // It gives back what is above the guard.
            ([40, 60], ["36", "54"], [44, 50], [36, 50], (true, one())),
            // With next to nothing left there are no guards: use says all.
            ([40, 60], ["max", "max"], [40, 60], [40, 60], (true, vec![])),
            ([40, 60], ["max", "max"], [41, 59], [41, 59], (false, vec![])),
            // Nothing is lowered: what is used above that is nobody's doing.
            ([50, 50], ["45", "45"], [60, 60], [60, 60], (true, vec![])),
        ] {
            assert_eq!(lower(parts, guards, used, then), expected, "{parts:?} {guards:?} {used:?} {then:?}");
        }
    }
}
