//! rdma: how many handles and objects of each RDMA device a group and those below it may have.

use std::collections::BTreeMap;

use pinfold_model::{Key, Settings, Value};

use crate::division::{Figure, Used};
use crate::entries::Entries;
use crate::number::strtol;
use crate::sight::Sight;
use crate::table::{
    Assignment, AtRoot, Blank, Carry, Change, Controller, EntryShare, File, Inherit, Needs, Place, Read,
    RoundTrip, Setting, Source, Unaided, Unit, V2Entries, Write, Writer,
};
use crate::write::{WriteError, stripped};

/// What is limited: rdmacg_resource_names.
const RESOURCES: [&str; 2] = ["hca_handle", "hca_object"];

/// The limits of each device that ever had one, as they are written to v2.
static MAX: Setting = Setting {
    key: Key("rdma.max"),
    initial: Value::Text(Vec::new()),
    inherit: Inherit::Initial,
    carry: Carry::Entries(V2Entries {
        file: "rdma.max",
        entries,
        share: EntryShare::Divided { used: USED, pressed: None, least: 0 },
        unlike: "",
    }),
};

const USED: Used = Used::Now(Figure { file: "rdma.current", value: Entries::figure });

/// The devices there are: every directory's files list them all, and nothing is limited in the realm's own.
const DEVICES: Source = Source::Realm("rdma.max");
const CURRENT: Source = Source::Carriers("rdma.current");

/// The rdma controller.
pub(crate) static RDMA: Controller = Controller {
    name: "rdma",
    about: "How many handles and objects of each RDMA device a group and those below it may have.",
    source: "Documentation/admin-guide/cgroup-v1/rdma.rst; kernel/cgroup/rdma.c",
    needs: Needs::Controller("rdma"),
    unaided: Unaided::Refused("nobody but the kernel can count what a group has of an RDMA device"),
    files: &[
        File {
            name: "max",
            place: Place::BelowRoot,
            unit: Unit::Number,
            read: Read::Shown { from: &[DEVICES], show: show_max },
            write: Write::Parsed(write_max),
            writer: Writer::Permitted,
            longest: File::LONGEST,
            setting: Some(&MAX),
            function: "rdmacg_resource_read(), rdmacg_resource_set_max()",
            about: "The most of each device, a line each: `mlx4_0 hca_handle=2 hca_object=max`.",
            takes: "A device, and after single spaces what is limited: `hca_handle=` or `hca_object=` and a number (decimal, \
                    octal after `0`, hexadecimal after `0x`) or `max`. What is not named keeps its limit.",
            errors: "EINVAL: of another form, negative, or above 2147483647. ENODEV: no such device.",
            v2: "rdma.max of the group's directory. It is lifted before the directory goes: the kernel would follow it there when the \
                 device goes (Linux 6.1, 6.12).",
            differs: "v2 does not tell who was refused. So where the group crosses groups of another hierarchy, and less is left \
                      than one for each of its directories, those that have met their part get what is left by turns, 20 \
                      times a second: who is refused has to try again.",
            round_trip: RoundTrip::NotWhole,
            at_root: AtRoot::Alike,
            blank: Blank::Junk,
            instead: None,
        },
        File {
            name: "current",
            place: Place::BelowRoot,
            unit: Unit::Number,
            read: Read::Shown { from: &[DEVICES, CURRENT], show: show_current },
            write: Write::Refused,
            writer: Writer::Permitted,
            longest: File::LONGEST,
            setting: None,
            function: "rdmacg_resource_read()",
            about: "What the group and those below it have of each device, a line each.",
            takes: "",
            errors: "",
            v2: "rdma.current.",
            differs: "",
            round_trip: RoundTrip::NotApplicable,
            at_root: AtRoot::Alike,
            blank: Blank::Junk,
            instead: None,
        },
    ],
    counters: &[],
    can_attach: Controller::anybody,
};

/// The limits of one device; `None`: no limit.
type Limits = [Option<u32>; RESOURCES.len()];

fn kept(settings: &Settings) -> BTreeMap<String, Limits> {
    let Value::Text(text) = MAX.of(settings) else { return BTreeMap::new() };
    let text = String::from_utf8_lossy(text);
    let device = |line: &str| {
        let (device, rest) = line.split_once(' ')?;
        let limit = |name: &str| {
            let word = rest.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='))?;
            word.parse().ok()
        };
        Some((device.to_owned(), RESOURCES.map(limit)))
    };
    text.lines().filter_map(device).collect()
}

fn entry(device: &str, limits: &Limits) -> String {
    let limit = |limit: &Option<u32>| limit.map_or_else(|| "max".to_owned(), |limit| limit.to_string());
    let words = RESOURCES.iter().zip(limits).map(|(name, value)| format!(" {name}={}", limit(value)));
    format!("{device}{}", words.collect::<String>())
}

fn entries(settings: &Settings) -> Vec<String> {
    kept(settings).iter().map(|(device, limits)| entry(device, limits)).collect()
}

/// Lines end with a space: print_rpool_values() puts one after each figure.
fn show_max(sight: &Sight<'_>) -> Vec<u8> {
    let kept = kept(sight.settings());
    let line = |device: &str| entry(device, kept.get(device).unwrap_or(&Limits::default())) + " \n";
    Entries::names(sight.v2.of(DEVICES)).into_iter().map(line).collect::<String>().into_bytes()
}

fn show_current(sight: &Sight<'_>) -> Vec<u8> {
    let mut used = Entries::default();
    sight.v2.of(CURRENT).for_each(|text| used.add(&Entries::parse(text)));
    let words = |device: &str| RESOURCES.map(|name| format!(" {name}={}", used.get(device, name))).concat();
    let devices = Entries::names(sight.v2.of(DEVICES).chain(sight.v2.of(CURRENT)));
    devices.into_iter().map(|device| format!("{device}{} \n", words(device))).collect::<String>().into_bytes()
}

fn write_max(sight: &Sight<'_>, data: &[u8]) -> Result<Change, WriteError> {
    let text = stripped(data);
    let refused = || WriteError::syntax(text, "a device and its limits");
    let text_of = std::str::from_utf8(text).map_err(|_| refused())?;
    let mut words = text_of.split(' ');
    let device = words.next().unwrap_or_default();
    let mut kept = kept(sight.settings());
    let limits = kept.entry(device.to_owned()).or_default();
    for word in words {
        let (name, value) = word.split_once('=').ok_or_else(refused)?;
        let resource = RESOURCES.iter().position(|resource| *resource == name).ok_or_else(refused)?;
        limits[resource] = parse_limit(value).ok_or_else(refused)?;
    }
    let entry_of = entry(device, &Limits::default());
    let value = kept.iter().map(|(device, limits)| entry(device, limits) + "\n").collect::<String>();
    let then = vec![Assignment { group: sight.group, setting: &MAX, value: Value::Text(value.into_bytes()) }];
    Ok(Change::IfTaken { file: "rdma.max", entry: entry_of, then: Ok(then) })
}

/// parse_resource(): match_int(), which passes over what follows a number, then any beginning of `max`, none too.
fn parse_limit(value: &str) -> Option<Option<u32>> {
    match strtol(value.as_bytes()) {
        Some(number) if i32::try_from(number).is_ok() => {
            let number = u32::try_from(number).ok()?;
            // S32_MAX is what the kernel keeps for no limit.
            Some((number != i32::MAX.unsigned_abs()).then_some(number))
        }
        _ => "max".starts_with(value).then_some(None),
    }
}
