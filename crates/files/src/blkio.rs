//! blkio: how fast a group and those below it may read from and write to each disk, and how much they did.

use std::collections::BTreeMap;

use pinfold_model::{Key, Settings, Value};

use crate::counter::{Counter, Field, Fold};
use crate::division::{Figure, Pressed, Used};
use crate::entries::Entries;
use crate::number::{c_string, is_space, strstrip, strtoull};
use crate::sight::Sight;
use crate::table::{
    Assignment, AtRoot, Blank, Carry, Change, Controller, EntryShare, File, Inherit, Needs, Place, Read,
    RoundTrip, Setting, Share, Source, Unaided, Unit, V2Entries, V2Write, Write,
};
use crate::values::{line, number};
use crate::write::{WriteError, parse_u64, stripped};

static READ_BPS: Setting = throttle("blkio.throttle.read_bps_device");
static WRITE_BPS: Setting = throttle("blkio.throttle.write_bps_device");
static READ_IOPS: Setting = throttle("blkio.throttle.read_iops_device");
static WRITE_IOPS: Setting = throttle("blkio.throttle.write_iops_device");

/// The limits, and what io.max calls them.
static THROTTLES: [(&Setting, &str); 4] =
    [(&READ_BPS, "rbps"), (&WRITE_BPS, "wbps"), (&READ_IOPS, "riops"), (&WRITE_IOPS, "wiops")];

/// A line for each disk that ever had the limit; 0 where it has none any more, of which v2 must be told.
const fn throttle(key: &'static str) -> Setting {
    Setting {
        key: Key(key),
        initial: Value::Text(Vec::new()),
        inherit: Inherit::Initial,
        carry: Carry::Entries(V2Entries {
            file: "io.max",
            entries,
            share: EntryShare::Divided { used: USED, pressed: Some(STALLED), least: LEAST },
            unlike: "",
        }),
    }
}

/// tg_set_limit() takes no 0, and before Linux 6.8 no 1.
const LEAST: u64 = 2;

/// io.stat counts under other names what io.max limits.
const USED: Used = Used::PerSecond(Figure {
    file: "io.stat",
    value: |text, of| {
        let of = of.replace("iops", "ios").replace("bps", "bytes");
        Entries::figure(text, &of)
    },
});

/// That a bio waits is told by nobody else, and who waits for its first has done nothing that could be measured. The first line is
/// of times when somebody waited: psi_show(). Read at each look: a trigger (psi_trigger_create()) tells once in half a second.
const STALLED: Pressed = Pressed::Stalled {
    figure: Figure {
        file: "io.pressure",
        value: |text, _| {
            let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
            some.rsplit_once("total=")?.1.trim().parse().ok()
        },
    },
    // Of every disk: who waits for one without a limit is not hungry for another.
    all: |io_stat| Entries::parse(io_stat).sum(),
};

/// v1's default of 500 is v2's of 100: a fifth keeps every ratio.
static WEIGHT: Setting = Setting {
    key: Key("blkio.weight"),
    initial: Value::Number(500),
    inherit: Inherit::Initial,
    carry: Carry::Limit(&[V2Write {
        file: "io.weight",
        text: |settings| Some(format!("default {}", number(WEIGHT.of(settings)) / 5)),
        room: None,
        share: Share::Weight,
        unlike: "only at disks for which io.cost is switched on (io.cost.qos), as it is for none at first",
    }]),
};

/// The weight at every disk that has none of its own.
static BFQ_WEIGHT: Setting = bfq("blkio.bfq.weight", Value::Number(100));
/// The weights at single disks, a line each.
static BFQ_DEVICES: Setting = bfq("blkio.bfq.weight_device", Value::Text(Vec::new()));

const fn bfq(key: &'static str, initial: Value) -> Setting {
    let carry = Carry::Entries(V2Entries {
        file: "io.bfq.weight",
        entries: weights,
        share: EntryShare::Weight,
        unlike: "only at disks whose scheduler is BFQ",
    });
    Setting { key: Key(key), initial, inherit: Inherit::Initial, carry }
}

static OWN: Counter = counter("blkio.throttle.io", Source::Own("io.stat"));
static ALL: Counter = counter("blkio.throttle.io_recursive", Source::Carriers("io.stat"));

const fn counter(key: &'static str, source: Source) -> Counter {
    Counter { key: Key(key), source, field: Field::Entries, fold: Fold::Sum }
}

/// What a write to `blkio.reset_stats` resets.
static RESETTABLE: [&Counter; 2] = [&OWN, &ALL];

/// What io.stat calls what was read, written and discarded.
type Figures = [&'static str; 3];
const BYTES: Figures = ["rbytes", "wbytes", "dbytes"];
const REQUESTS: Figures = ["rios", "wios", "dios"];

/// The blkio controller.
pub(crate) static BLKIO: Controller = Controller {
    name: "blkio",
    about: "How fast a group and those below it may read from and write to each disk, and how much they did.",
    source: "Documentation/admin-guide/cgroup-v1/blkio-controller.rst; block/blk-throttle.c, block/blk-cgroup.c",
    needs: Needs::Controller("io"),
    unaided: Unaided::Refused("user space cannot hold back another process's input and output"),
    files: &[
        limit(
            "throttle.read_bps_device",
            &READ_BPS,
            |sight| show_throttle(sight, &READ_BPS),
            |sight, data| write_throttle(sight, &READ_BPS, data),
            "The bytes that may be read from each disk in a second, a line each: `254:0 1048576`.",
            Unit::Bytes,
        ),
        limit(
            "throttle.write_bps_device",
            &WRITE_BPS,
            |sight| show_throttle(sight, &WRITE_BPS),
            |sight, data| write_throttle(sight, &WRITE_BPS, data),
            "The bytes that may be written to each disk in a second, a line each.",
            Unit::Bytes,
        ),
        limit(
            "throttle.read_iops_device",
            &READ_IOPS,
            |sight| show_throttle(sight, &READ_IOPS),
            |sight, data| write_throttle(sight, &READ_IOPS, data),
            "How often each disk may be read from in a second, a line each. Of a number only the lower 32 bits count.",
            Unit::Number,
        ),
        limit(
            "throttle.write_iops_device",
            &WRITE_IOPS,
            |sight| show_throttle(sight, &WRITE_IOPS),
            |sight, data| write_throttle(sight, &WRITE_IOPS, data),
            "How often each disk may be written to in a second, a line each. Of a number only the lower 32 bits count.",
            Unit::Number,
        ),
        stat(
            "throttle.io_service_bytes",
            Unit::Bytes,
            &[OWN.source],
            |sight| show_stat(sight, &OWN, BYTES),
            "The bytes that the group's own processes read from, wrote to and discarded on each disk.",
            "io.stat of the group's directory, or of the leaves of its own cells while groups below have processes.",
        ),
        stat(
            "throttle.io_service_bytes_recursive",
            Unit::Bytes,
            &[ALL.source],
            |sight| show_stat(sight, &ALL, BYTES),
            "The same, with the groups below.",
            "io.stat of the group's directory.",
        ),
        stat(
            "throttle.io_serviced",
            Unit::Number,
            &[OWN.source],
            |sight| show_stat(sight, &OWN, REQUESTS),
            "How often the group's own processes read from, wrote to and discarded on each disk.",
            "io.stat of the group's directory, or of the leaves of its own cells while groups below have processes.",
        ),
        stat(
            "throttle.io_serviced_recursive",
            Unit::Number,
            &[ALL.source],
            |sight| show_stat(sight, &ALL, REQUESTS),
            "The same, with the groups below.",
            "io.stat of the group's directory.",
        ),
        File {
            read: Read::Refused,
            unit: Unit::Number,
            write: Write::Parsed(|sight, data| {
                parse_u64(data)?;
                Ok(if sight.is_root() { Change::Nothing } else { Change::Reset(&RESETTABLE) })
            }),
            takes: "Any number without white space but one newline: the figures start again. At the root it has no effect.",
            errors: "EINVAL: not a number. ERANGE: more than 64 bits.",
            differs: "What the groups below did before goes from this group's `_recursive` figures too; in v1 it stays.",
            ..shown(
                "reset_stats",
                Place::Everywhere,
                &[],
                |_| Vec::new(),
                "blkcg_reset_stats()",
                "Starts the group's figures again.",
                "What io.stat says at that moment no longer counts.",
            )
        },
        File {
            takes: "A number from 10 to 1000, without white space but one newline.",
            errors: "EINVAL: not a number. ERANGE: another one.",
            differs: "Linux 5.0 took this file away from v1; it is here for software that is older. It has an effect where \
                      io.cost is switched on for the disk (io.cost.qos). weight_device, leaf_weight and leaf_weight_device, \
                      which went with it, are not there: kernels that pinfold stands in for have none.",
            ..weighing(
                "weight",
                Place::BelowRootWithV2("io.weight"),
                &WEIGHT,
                |sight| line(number(sight.own(&WEIGHT))),
                |sight, data| write_weight(sight, &WEIGHT, 10, data),
                "io.weight of the group's directory: a fifth of it, as v2's default is 100.",
            )
        },
        File {
            takes: "A number from 1 to 1000, without white space but one newline.",
            errors: "EINVAL: not a number. ERANGE: another one.",
            differs: BFQ_ONLY,
            ..weighing(
                "bfq.weight",
                Place::BelowRootWithV2("io.bfq.weight"),
                &BFQ_WEIGHT,
                |sight| line(number(sight.own(&BFQ_WEIGHT))),
                |sight, data| Ok(Change::Keep(weight_everywhere(sight, ranged(parse_u64(data)?, 1)?))),
                "io.bfq.weight of the group's directory.",
            )
        },
        File {
            takes: "A disk as MAJOR:MINOR, white space, and a decimal number from 1 to 1000, or `default`: the disk has no \
                    weight of its own any more. `default` and a number, or only a number: the weight at all disks, those \
                    with a weight of their own too.",
            errors: "EINVAL: of another form. ENODEV: no such disk, or a partition. EOPNOTSUPP: the disk's scheduler is not BFQ. \
                     ERANGE: another number, and nothing but white space.",
            blank: Blank::OutOfRange,
            differs: "It is there only if the kernel had its BFQ scheduler loaded when the daemon started. A weight that a disk \
                      had is shown again when the disk has got BFQ back, and is in force from the next write on; in v1 it is gone.",
            function: "bfq_io_show_weight(), bfq_io_set_weight()",
            about: "The share of each disk: `default 100`, and a line for each disk that has another: `254:0 200`.",
            ..weighing(
                "bfq.weight_device",
                Place::BelowRootWithV2("io.bfq.weight"),
                &BFQ_DEVICES,
                show_weights,
                write_weights,
                "io.bfq.weight of the group's directory.",
            )
        },
        bfq_stat("bfq.io_service_bytes", Unit::Bytes, &[OWN.source], |sight| show_stat(sight, &OWN, BYTES)),
        bfq_stat("bfq.io_service_bytes_recursive", Unit::Bytes, &[ALL.source], |sight| {
            show_stat(sight, &ALL, BYTES)
        }),
        bfq_stat("bfq.io_serviced", Unit::Number, &[OWN.source], |sight| show_stat(sight, &OWN, REQUESTS)),
        bfq_stat("bfq.io_serviced_recursive", Unit::Number, &[ALL.source], |sight| {
            show_stat(sight, &ALL, REQUESTS)
        }),
    ],
    counters: &[&OWN, &ALL],
    can_attach: Controller::anybody,
};

/// A file that is only read.
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

/// A limit for each disk.
const fn limit(
    name: &'static str,
    setting: &'static Setting,
    show: fn(&Sight<'_>) -> Vec<u8>,
    write: fn(&Sight<'_>, &[u8]) -> Result<Change, WriteError>,
    about: &'static str,
    unit: Unit,
) -> File {
    File {
        unit,
        write: Write::Parsed(write),
        setting: Some(setting),
        takes: "A disk as MAJOR:MINOR, white space, and a decimal number; 0 is no limit. What follows the number is not looked at.",
        errors: "EINVAL: of another form; a root group. ENODEV: no such disk, or a partition.",
        at_root: AtRoot::Refused,
        differs: "In v1 the root group can be limited too. v2 counts what the groups below do against this limit; so does v1, \
                  but with the option sane_behavior of old only.",
        round_trip: RoundTrip::NotWhole,
        ..shown(
            name,
            Place::Everywhere,
            &[],
            show,
            "tg_print_conf_u64(), tg_print_conf_uint(), tg_set_conf()",
            about,
            "io.max of the group's directory.",
        )
    }
}

/// What was done.
const fn stat(
    name: &'static str,
    unit: Unit,
    from: &'static [Source],
    show: fn(&Sight<'_>) -> Vec<u8>,
    about: &'static str,
    v2: &'static str,
) -> File {
    File {
        unit,
        differs: "v2 does not know which writes somebody waited for: every read and write counts as Sync, every discard as \
                  Async. What was done in groups that were removed stays in the `_recursive` figures.",
        ..shown(
            name,
            Place::Everywhere,
            from,
            show,
            "tg_print_rwstat(), tg_print_rwstat_recursive()",
            about,
            v2,
        )
    }
}

/// What was done, as BFQ counts it.
const fn bfq_stat(
    name: &'static str,
    unit: Unit,
    from: &'static [Source],
    show: fn(&Sight<'_>) -> Vec<u8>,
) -> File {
    File {
        unit,
        differs: "It is there only if the kernel had its BFQ scheduler loaded when the daemon started, and tells of disks with \
                  other schedulers too: v2 counts for all in one.",
        ..shown(
            name,
            Place::WithV2("io.bfq.weight"),
            from,
            show,
            "blkg_print_stat_bytes(), bfqg_print_rwstat(), bfqg_print_rwstat_recursive()",
            "What the file of the same name with `throttle` instead of `bfq` tells.",
            "io.stat, as for `throttle`.",
        )
    }
}

/// When there are files of BFQ's.
const BFQ_ONLY: &str = "It is there only if the kernel had its BFQ scheduler loaded when the daemon started.";

/// A part among siblings.
const fn weighing(
    name: &'static str,
    place: Place,
    setting: &'static Setting,
    show: fn(&Sight<'_>) -> Vec<u8>,
    write: fn(&Sight<'_>, &[u8]) -> Result<Change, WriteError>,
    v2: &'static str,
) -> File {
    File {
        write: Write::Parsed(write),
        setting: Some(setting),
        round_trip: RoundTrip::Exact,
        ..shown(
            name,
            place,
            &[],
            show,
            "bfq_io_show_weight_legacy(), bfq_io_set_weight_legacy()",
            "The group's share, against those of its siblings, of a disk that more than one of them want.",
            v2,
        )
    }
}

/// A disk: major and minor number.
type Disk = (u32, u32);

/// The figure of each disk; of a limit, 0: none any more.
fn kept(value: &Value) -> BTreeMap<Disk, u64> {
    let Value::Text(text) = value else { return BTreeMap::new() };
    let text = String::from_utf8_lossy(text);
    let figure = |line: &str| {
        let (disk, figure) = line.split_once(' ')?;
        let (major, minor) = disk.split_once(':')?;
        Some(((major.parse().ok()?, minor.parse().ok()?), figure.parse().ok()?))
    };
    text.lines().filter_map(figure).collect()
}

/// Figures of disks, a line each: as they are shown, and kept.
fn lines(figures: impl IntoIterator<Item = (Disk, u64)>) -> String {
    figures.into_iter().map(|((major, minor), figure)| format!("{major}:{minor} {figure}\n")).collect()
}

/// The lines of io.max: all limits of a disk in one.
fn entries(settings: &Settings) -> Vec<String> {
    let mut disks: BTreeMap<Disk, [u64; THROTTLES.len()]> = BTreeMap::new();
    for (position, (setting, _)) in THROTTLES.iter().enumerate() {
        for (disk, limit) in kept(setting.of(settings)) {
            disks.entry(disk).or_default()[position] = limit;
        }
    }
    disks.into_iter().map(|(disk, limits)| entry(disk, limits)).collect()
}

fn entry((major, minor): Disk, limits: [u64; THROTTLES.len()]) -> String {
    let word = |((_, name), limit): (&(&Setting, &str), u64)| match limit {
        0 => format!(" {name}=max"),
        limit => format!(" {name}={limit}"),
    };
    format!("{major}:{minor}{}", THROTTLES.iter().zip(limits).map(word).collect::<String>())
}

fn show_throttle(sight: &Sight<'_>, setting: &'static Setting) -> Vec<u8> {
    lines(kept(sight.own(setting)).into_iter().filter(|(_, limit)| *limit != 0)).into_bytes()
}

fn disks(sight: &Sight<'_>, setting: &'static Setting, figures: BTreeMap<Disk, u64>) -> Assignment {
    Assignment { group: sight.group, setting, value: Value::Text(lines(figures).into_bytes()) }
}

/// tg_set_conf(): the disk is looked for before the number is looked at.
fn write_throttle(sight: &Sight<'_>, setting: &'static Setting, data: &[u8]) -> Result<Change, WriteError> {
    let text = c_string(data);
    let refused = || WriteError::syntax(text, "a disk as MAJOR:MINOR, a space and a number");
    let (disk, rest) = parse_disk(text).ok_or_else(refused)?;
    let then = match parse_limit(rest) {
        None => Err(refused()),
        Some(_) if sight.is_root() => Err(WriteError::Root("throttle")),
        Some(limit) => {
            let is_count = *setting == READ_IOPS || *setting == WRITE_IOPS;
            let (mask, none) =
                if is_count { (u64::from(u32::MAX), u64::from(u32::MAX)) } else { (u64::MAX, u64::MAX) };
            let limit = limit & mask;
            let mut limits = kept(sight.own(setting));
            limits.insert(disk, if limit == none { 0 } else { limit });
            Ok(vec![disks(sight, setting, limits)])
        }
    };
    Ok(Change::IfTaken { file: "io.max", entry: entry(disk, [0; THROTTLES.len()]), then })
}

/// blkg_conf_prep(): two decimal numbers with a colon between them and white space after them; and what follows.
fn parse_disk(text: &[u8]) -> Option<(Disk, &[u8])> {
    let (major, rest) = scan_u64(text)?;
    let (minor, rest) = scan_u64(rest.strip_prefix(b":")?)?;
    if !rest.first().is_some_and(|byte| is_space(*byte)) {
        return None;
    }
    // Bits that a device number has not got are lost, as in MKDEV(); no disk has such a number.
    Some(((u32::try_from(major).ok()?, u32::try_from(minor).ok()?), rest))
}

/// The number of a limit, as sscanf("%llu") reads it.
fn parse_limit(text: &[u8]) -> Option<u64> {
    scan_u64(text).map(|(number, _)| number)
}

/// sscanf() of a decimal number: white space before it is skipped, what follows is left; one too large wraps.
fn scan_u64(text: &[u8]) -> Option<(u64, &[u8])> {
    let start = text.iter().position(|byte| !is_space(*byte))?;
    let (digits, rest) = {
        let text = &text[start..];
        text.split_at(text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len()))
    };
    let add = |n: u64, digit: &u8| n.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
    (!digits.is_empty()).then(|| (digits.iter().fold(0, add), rest))
}

fn write_weight(
    sight: &Sight<'_>,
    setting: &'static Setting,
    least: u64,
    data: &[u8],
) -> Result<Change, WriteError> {
    Ok(Change::keep(sight, setting, Value::Number(ranged(parse_u64(data)?, least)?)))
}

fn ranged(weight: u64, least: u64) -> Result<u64, WriteError> {
    let outside = WriteError::Outside { value: weight, least, most: 1000 };
    if (least..=1000).contains(&weight) { Ok(weight) } else { Err(outside) }
}

/// bfq_io_set_weight_legacy(): a weight takes those at single disks back.
fn weight_everywhere(sight: &Sight<'_>, weight: u64) -> Vec<Assignment> {
    let group = sight.group;
    let assigned = Assignment { group, setting: &BFQ_WEIGHT, value: Value::Number(weight) };
    vec![assigned, disks(sight, &BFQ_DEVICES, BTreeMap::new())]
}

/// The lines of io.bfq.weight.
fn weights(settings: &Settings) -> Vec<String> {
    let own = lines(kept(BFQ_DEVICES.of(settings)));
    let default = format!("default {}", number(BFQ_WEIGHT.of(settings)));
    std::iter::once(default).chain(own.lines().map(str::to_owned)).collect()
}

fn show_weights(sight: &Sight<'_>) -> Vec<u8> {
    weights(sight.settings()).into_iter().flat_map(|line| (line + "\n").into_bytes()).collect()
}

/// bfq_io_set_weight(): the disk is looked for before its weight is looked at.
fn write_weights(sight: &Sight<'_>, data: &[u8]) -> Result<Change, WriteError> {
    let text = stripped(data);
    let refused =
        || WriteError::syntax(text, "a weight, or a disk as MAJOR:MINOR, a space and a weight or `default`");
    let everywhere = match strtoull(text) {
        (weight, []) => Some(weight),
        _ => text.strip_prefix(b"default").and_then(parse_limit),
    };
    if let Some(weight) = everywhere {
        return Ok(Change::Keep(weight_everywhere(sight, ranged(weight, 1)?)));
    }
    let (disk, rest) = parse_disk(text).ok_or_else(refused)?;
    let weight = match parse_limit(rest) {
        Some(weight) => ranged(weight, 1).map(Some),
        None if strstrip(rest) == b"default" => Ok(None),
        None => Err(refused()),
    };
    let then = weight.map(|weight| {
        let mut own = kept(sight.own(&BFQ_DEVICES));
        own.remove(&disk);
        own.extend(weight.map(|weight| (disk, weight)));
        vec![disks(sight, &BFQ_DEVICES, own)]
    });
    Ok(Change::IfTaken { file: "io.bfq.weight", entry: format!("{}:{} default", disk.0, disk.1), then })
}

/// blkg_print_stat_bytes() and its kin: a line for each kind, then the sum of all disks.
fn show_stat(sight: &Sight<'_>, counter: &'static Counter, figures: Figures) -> Vec<u8> {
    let done = sight.entries(counter);
    let (mut text, mut all) = (String::new(), 0_u64);
    for disk in done.keys() {
        let [read, written, discarded] = figures.map(|name| done.get(disk, name));
        let total = read.saturating_add(written).saturating_add(discarded);
        all = all.saturating_add(total);
        let sync = read.saturating_add(written);
        for (kind, figure) in [
            ("Read", read),
            ("Write", written),
            ("Sync", sync),
            ("Async", discarded),
            ("Discard", discarded),
            ("Total", total),
        ] {
            text += &format!("{disk} {kind} {figure}\n");
        }
    }
    text += &format!("Total {all}\n");
    text.into_bytes()
}
