//! How readily a group is swapped out: kept by pinfold, and until then what the machine has.

use pinfold_model::{Key, Value};

use crate::sight::{Sight, whole};
use crate::table::{Carry, Change, Inherit, Setting, Source};
use crate::values::line;
use crate::write::{WriteError, parse_u64};

/// As it is shown; without one of its own a group shows the machine's.
pub(super) static SWAPPINESS: Setting = Setting {
    key: Key("memory.swappiness"),
    initial: Value::Text(Vec::new()),
    inherit: Inherit::Parent,
    carry: Carry::Inert("a group of v2 has no swappiness; vm.swappiness holds for all"),
};

/// vm.swappiness, as it is at that moment.
pub(super) const MACHINE_SWAPPINESS: Source = Source::Machine("vm.swappiness");

pub(super) fn show_swappiness(sight: &Sight<'_>) -> Vec<u8> {
    match sight.own(&SWAPPINESS) {
        Value::Text(own) if !own.is_empty() => [own.as_slice(), b"\n"].concat(),
        _ => line(machine_swappiness(sight)),
    }
}

pub(super) fn write_swappiness(sight: &Sight<'_>, data: &[u8]) -> Result<Change, WriteError> {
    match parse_u64(data)? {
        value if value == machine_swappiness(sight) => {
            Ok(Change::keep(sight, &SWAPPINESS, SWAPPINESS.initial.clone()))
        }
        value @ 0..=200 => Ok(Change::keep(sight, &SWAPPINESS, Value::Text(value.to_string().into_bytes()))),
        value => Err(WriteError::OutOfRange { value: value.into(), range: "0 to 200" }),
    }
}

/// The kernel's own default where proc does not say.
fn machine_swappiness(sight: &Sight<'_>) -> u64 {
    sight.v2.of(MACHINE_SWAPPINESS).find_map(whole).unwrap_or(60)
}
