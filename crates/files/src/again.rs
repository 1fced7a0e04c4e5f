//! Giving a group the settings of another one, by writes alone.

use pinfold_model::Value;

use crate::devices;
use crate::freezer::FROZEN;
use crate::lookup::{FileId, file, named};
use crate::sight::Sight;
use crate::table::{Inherit, Read, Setting, Write};

/// What is written to give a group a setting of the one that is seen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Again {
    /// The files, and what is written to each, in this order.
    pub writes: Vec<(FileId, String)>,
    /// Whether it has to be: a new group may start with something else.
    pub needed: bool,
}

/// How a group gets what the group that is seen keeps for this file; `None` if nothing is kept for it.
pub fn again(id: FileId, sight: &Sight<'_>) -> Option<Again> {
    let row = file(id).1;
    let (Some(setting), Read::Shown { show, .. }) = (row.setting, &row.read) else { return None };
    let writes = match (sight.own(setting), &row.write) {
        // The one that is not written where it is read.
        (rules, Write::Refused) => {
            let write = |(name, text)| named(name).map(|file| (file, text));
            devices::again(rules).into_iter().filter_map(write).collect()
        }
        // What those show is more than the group's own value.
        (Value::Flag(frozen), _) if *setting == FROZEN => {
            vec![(id, if *frozen { "FROZEN" } else { "THAWED" }.to_owned())]
        }
        (Value::Flag(on), _) => vec![(id, u8::from(*on).to_string())],
        // A line for each device, which takes one at a time; or one line. An empty write would mean nothing.
        _ => {
            let text = String::from_utf8_lossy(&show(sight)).into_owned();
            text.lines().map(|line| (id, if line.is_empty() { "\n" } else { line }.to_owned())).collect()
        }
    };
    Some(Again { writes, needed: !starts_so(setting, sight) })
}

/// Whether a new group starts with what the group that is seen has.
fn starts_so(setting: &'static Setting, sight: &Sight<'_>) -> bool {
    let own = sight.own(setting);
    match setting.inherit {
        Inherit::Initial => *own == setting.initial,
        // A root may have something else in another realm, but for what it has from the start.
        Inherit::Parent => {
            let parents = sight.above(setting).next();
            parents == Some(own) && (*own == setting.initial || sight.above(setting).nth(1).is_some())
        }
        Inherit::Derived { .. } => false,
    }
}
