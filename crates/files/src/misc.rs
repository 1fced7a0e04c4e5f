//! misc: how much a group and those below it may have of what exists in small numbers, as the keys of encrypted guests.

use std::collections::BTreeMap;

use pinfold_model::{Key, Settings, Value};

use crate::counter::{Counter, Field, Fold};
use crate::division::{Figure, Pressed, Used};
use crate::entries::Entries;
use crate::sight::Sight;
use crate::table::{
    Assignment, Carry, Change, Controller, EntryShare, File, Inherit, Needs, Place, RoundTrip, Setting,
    Source, Unaided, Unit, V2Entries, Write,
};
use crate::write::{WriteError, parse_bare_u64, stripped};

/// The limits of each resource that ever had one, as they are written to v2.
static MAX: Setting = Setting {
    key: Key("misc.max"),
    initial: Value::Text(Vec::new()),
    inherit: Inherit::Initial,
    carry: Carry::Entries(V2Entries {
        file: "misc.max",
        entries,
        share: EntryShare::Divided { used: USED, pressed: Some(MET), least: 0 },
        unlike: "",
    }),
};

const USED: Used = Used::Now(Figure { file: "misc.current", value: Entries::figure });
const MET: Pressed = Pressed::Met(Figure {
    file: "misc.events",
    value: |text, of| Entries::figure(text, &format!("{of}.max")),
});

/// What there is of each resource, which only the top of the v2 tree has.
const CAPACITY: Source = Source::Root("misc.capacity");
/// The resources that there are: every directory's files list them all, and nothing is limited in the realm's own.
const RESOURCES: Source = Source::Realm("misc.max");
const CURRENT: Source = Source::Carriers("misc.current");

static EVENTS: Counter = Counter {
    key: Key("misc.events"),
    source: Source::Carriers("misc.events"),
    field: Field::Entries,
    fold: Fold::Sum,
};

/// The misc controller.
pub(crate) static MISC: Controller = Controller {
    name: "misc",
    about: "How much a group and those below it may have of what exists in small numbers, as the keys of encrypted guests.",
    source: "Documentation/admin-guide/cgroup-v1/misc.rst; kernel/cgroup/misc.c",
    needs: Needs::Controller("misc"),
    unaided: Unaided::Refused("nobody but the kernel can count these resources"),
    files: &[
        File {
            write: Write::Parsed(write_max),
            setting: Some(&MAX),
            takes: "A resource, a space, and a number or `max`.",
            errors: "EINVAL: of another form, or a resource that the machine has not. ERANGE: more than 64 bits.",
            round_trip: RoundTrip::NotWhole,
            ..shown(
                "max",
                Place::BelowRoot,
                &[RESOURCES],
                show_max,
                "misc_cg_max_show(), misc_cg_max_write()",
                "The most of each resource that the machine has, a line each: `sev 5`.",
                "misc.max of the group's directory.",
            )
        },
        shown(
            "current",
            Place::BelowRoot,
            &[RESOURCES, CURRENT],
            show_current,
            "misc_cg_current_show()",
            "What the group and those below it have of each resource, a line each.",
            "misc.current.",
        ),
        File {
            differs: "Empty if the realm's base is not the top of the v2 tree, which alone says it.",
            ..shown(
                "capacity",
                Place::RootOnly,
                &[CAPACITY],
                |sight| sight.v2.of(CAPACITY).collect::<String>().into_bytes(),
                "misc_cg_capacity_show()",
                "What the machine has of each resource, a line each.",
                "misc.capacity of the base.",
            )
        },
        File {
            unit: Unit::Events,
            ..shown(
                "events",
                Place::BelowRootWithV2("misc.events"),
                &[RESOURCES, EVENTS.source],
                show_events,
                "misc_events_show()",
                "How often the limit of the group, or of one below, was met, a line for each resource: `sev.max 2`.",
                "misc.events (Linux 5.16).",
            )
        },
    ],
    counters: &[&EVENTS],
    can_attach: Controller::anybody,
};

const fn shown(
    name: &'static str,
    place: Place,
    from: &'static [Source],
    show: fn(&Sight<'_>) -> Vec<u8>,
    function: &'static str,
    about: &'static str,
    v2: &'static str,
) -> File {
    File { place, ..File::shown(name, from, show, function, about, v2) }
}

/// The limit of each resource; `None`: no limit.
fn kept(settings: &Settings) -> BTreeMap<String, Option<u64>> {
    let Value::Text(text) = MAX.of(settings) else { return BTreeMap::new() };
    let text = String::from_utf8_lossy(text);
    let limit = |line: &str| {
        let (resource, limit) = line.split_once(' ')?;
        Some((resource.to_owned(), limit.parse().ok()))
    };
    text.lines().filter_map(limit).collect()
}

fn entry(resource: &str, limit: Option<u64>) -> String {
    limit.map_or_else(|| format!("{resource} max"), |limit| format!("{resource} {limit}"))
}

fn entries(settings: &Settings) -> Vec<String> {
    kept(settings).iter().map(|(resource, limit)| entry(resource, *limit)).collect()
}

fn show_max(sight: &Sight<'_>) -> Vec<u8> {
    let kept = kept(sight.settings());
    let line = |resource: &str| entry(resource, kept.get(resource).copied().flatten()) + "\n";
    Entries::names(sight.v2.of(RESOURCES)).into_iter().map(line).collect::<String>().into_bytes()
}

fn show_current(sight: &Sight<'_>) -> Vec<u8> {
    let mut used = Entries::default();
    sight.v2.of(CURRENT).for_each(|text| used.add(&Entries::parse(text)));
    let line = |resource: &str| format!("{resource} {}\n", used.get(resource, ""));
    let resources = Entries::names(sight.v2.of(RESOURCES).chain(sight.v2.of(CURRENT)));
    resources.into_iter().map(line).collect::<String>().into_bytes()
}

fn show_events(sight: &Sight<'_>) -> Vec<u8> {
    let met = sight.entries(&EVENTS);
    let mut counts: Vec<String> =
        Entries::names(sight.v2.of(EVENTS.source)).into_iter().map(str::to_owned).collect();
    if counts.is_empty() {
        let resources = Entries::names(sight.v2.of(RESOURCES)).into_iter();
        counts = resources.map(|resource| format!("{resource}.max")).collect();
    }
    counts.iter().map(|count| format!("{count} {}\n", met.get(count, ""))).collect::<String>().into_bytes()
}

/// misc_cg_max_write().
fn write_max(sight: &Sight<'_>, data: &[u8]) -> Result<Change, WriteError> {
    let text = stripped(data);
    let refused = || WriteError::syntax(text, "a resource and its limit");
    let words = std::str::from_utf8(text).map_err(|_| refused())?;
    let (resource, limit) = words.split_once(' ').ok_or_else(refused)?;
    if resource.is_empty() {
        return Err(refused());
    }
    let limit = match limit {
        "max" => None,
        limit => Some(parse_bare_u64(limit.as_bytes())?).filter(|limit| *limit != u64::MAX),
    };
    let mut kept = kept(sight.settings());
    kept.insert(resource.to_owned(), limit);
    let lines = kept.iter().map(|(resource, limit)| entry(resource, *limit) + "\n");
    let value = Value::Text(lines.collect::<String>().into_bytes());
    let then = vec![Assignment { group: sight.group, setting: &MAX, value }];
    Ok(Change::IfTaken { file: "misc.max", entry: entry(resource, None), then: Ok(then) })
}
