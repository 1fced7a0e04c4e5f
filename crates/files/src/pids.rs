//! pids: how many tasks a group and those below it may have.

use pinfold_model::{Key, Limit, Value};

use crate::counter::{Counter, Field, Fold};
use crate::division::{Amount, Division, Figure, Pressed, Used};
use crate::sight::{Sight, flat_field, whole};
use crate::table::{
    AtRoot, Blank, Carry, Change, Controller, File, Inherit, Needs, Place, Read, RoundTrip, Setting, Share,
    Source, Unaided, Unit, V2Write, Write, Writer,
};
use crate::values::{bound, line, v2_limit};
use crate::write::{WriteError, parse_max, stripped};

/// The most tasks a group can be limited to: PID_MAX_LIMIT of 64-bit kernels.
const MOST: i64 = 4 * 1024 * 1024;

static MAX: Setting = Setting {
    key: Key("pids.max"),
    initial: Value::Limit(Limit::Max),
    inherit: Inherit::Initial,
    carry: Carry::Limit(&[V2Write {
        file: "pids.max",
        text: |settings| Some(v2_limit(bound(MAX.of(settings)))),
        room: None,
        share: Share::Divided(&DIVISION),
        unlike: "",
    }]),
};

static DIVISION: Division = Division {
    amounts: |settings| Amount::only(bound(MAX.of(settings))),
    text: |_, parts| v2_limit(Amount::one(parts)),
    used: Used::Now(Figure { file: "pids.current", value: |text, _| whole(text) }),
    // pids_can_fork(): see EVENTS_HERE and EVENTS_LIMIT.
    pressed: Some(Pressed::MetInLeaf(
        Figure { file: "pids.events", value: |text, _| flat_field(text, "max") },
        "pids.events.local",
    )),
    guard: None,
    least: 0,
    periods: None,
};

const CURRENT: Source = Source::Carriers("pids.current");
const BESIDE_PEAK: Source = Source::Beside("pids.current", "pids.peak");

static PEAK: Counter = Counter {
    key: Key("pids.peak"),
    source: Source::Carriers("pids.peak"),
    field: Field::Whole,
    fold: Fold::Peak { now: BESIDE_PEAK, since: None },
};

/// Forks that failed in a leaf, whosever limit it was. Linux before 6.11, or with the mount option pids_localevents; not read
/// otherwise.
static EVENTS_HERE: Counter = Counter {
    key: Key("pids.events.here"),
    source: Source::OwnLeaves("pids.events"),
    field: Field::After("max"),
    fold: Fold::Sum,
};

/// Forks that failed in this group or below because of this group's limit. Linux 6.11 and later.
static EVENTS_LIMIT: Counter = Counter {
    key: Key("pids.events.limit"),
    source: Source::Carriers("pids.events.local"),
    field: Field::After("max"),
    fold: Fold::Sum,
};

/// The pids controller.
pub(crate) static PIDS: Controller = Controller {
    name: "pids",
    about: "How many tasks a group and those below it may have; fork fails with EAGAIN above that.",
    source: "Documentation/admin-guide/cgroup-v1/pids.rst; kernel/cgroup/pids.c",
    needs: Needs::Controller("pids"),
    unaided: Unaided::Served(
        "a process that is born above the limit is killed (SIGKILL) where fork would fail; threads are shown and not limited",
    ),
    files: &[
        File {
            name: "max",
            place: Place::BelowRoot,
            unit: Unit::Tasks,
            read: Read::Shown { from: &[], show: |sight| line(v2_limit(bound(sight.own(&MAX)))) },
            write: Write::Parsed(write_max),
            writer: Writer::Permitted,
            longest: File::LONGEST,
            setting: Some(&MAX),
            function: "pids_max_show(), pids_max_write()",
            about: "The most tasks the group and those below it may have. Only fork and clone are refused: a process \
                    that is attached may bring the group above it, and so may lowering it.",
            takes: "`max`, or a number from 0 to 4194304: decimal, octal after `0`, hexadecimal after `0x`, with or \
                    without a sign; white space around it is dropped.",
            errors: "EINVAL: not a number, negative, or above 4194304. ERANGE: more than a signed 64-bit number.",
            v2: "pids.max of the group's directory, which holds exactly the group's tasks.",
            differs: "",
            round_trip: RoundTrip::Exact,
            at_root: AtRoot::Alike,
            blank: Blank::Junk,
            instead: None,
        },
        File {
            name: "current",
            place: Place::BelowRoot,
            unit: Unit::Tasks,
            read: Read::Shown { from: &[CURRENT], show: |sight| line(sight.v2.sum(CURRENT)) },
            write: Write::Refused,
            writer: Writer::Permitted,
            longest: File::LONGEST,
            setting: None,
            function: "pids_current_read()",
            about: "The tasks in the group and those below it.",
            takes: "",
            errors: "",
            v2: "pids.current.",
            differs: "",
            round_trip: RoundTrip::NotApplicable,
            at_root: AtRoot::Alike,
            blank: Blank::Junk,
            instead: None,
        },
        File {
            name: "peak",
            place: Place::BelowRoot,
            unit: Unit::Tasks,
            read: Read::Shown { from: &[PEAK.source, BESIDE_PEAK], show: |sight| line(sight.counter(&PEAK)) },
            write: Write::Refused,
            writer: Writer::Permitted,
            longest: File::LONGEST,
            setting: None,
            function: "pids_peak_read()",
            about: "The most tasks that the group and those below it ever had at once.",
            takes: "",
            errors: "",
            v2: "pids.peak, and what it was in the directories the group had before.",
            differs: "Linux before 6.1 has no such file: then it is no more than the present number of tasks. A v2 directory \
                      in which others reached a peak before it was the group's is exact from the moment that peak is passed; \
                      until then it is the present number. Where the group crosses groups of another hierarchy, the largest \
                      peak of its directories counts, or the present number of all, if that is more.",
            round_trip: RoundTrip::NotApplicable,
            at_root: AtRoot::Alike,
            blank: Blank::Junk,
            instead: None,
        },
        File {
            name: "events",
            place: Place::BelowRoot,
            unit: Unit::Events,
            read: Read::Shown { from: &[EVENTS_HERE.source, EVENTS_LIMIT.source], show: show_events },
            write: Write::Refused,
            writer: Writer::Permitted,
            longest: File::LONGEST,
            setting: None,
            function: "pids_events_show()",
            about: "How many forks of the group's own tasks failed, because of its limit or of one above: \
                    `max NUMBER`.",
            takes: "",
            errors: "",
            v2: "Linux before 6.11 counts a failed fork where it failed, as v1 does: the sum of pids.events over the \
                 leaves of the group's own cells. Later ones count it where the limit is: then it is pids.events.local \
                 of the group's directory. Later ones with the v2 mount option \
                 pids_localevents are like the earlier ones.",
            differs: "From Linux 6.11 on, without pids_localevents, a fork that fails counts in the group whose limit \
                      it met, rather than in the group it failed in. The two are the same where tasks are in groups \
                      that have the limit themselves.",
            round_trip: RoundTrip::NotApplicable,
            at_root: AtRoot::Alike,
            blank: Blank::Junk,
            instead: None,
        },
    ],
    counters: &[&PEAK, &EVENTS_HERE, &EVENTS_LIMIT],
    can_attach: Controller::anybody,
};

fn write_max(sight: &Sight<'_>, data: &[u8]) -> Result<Change, WriteError> {
    let most = parse_max(stripped(data), "`max` or a number of tasks", MOST, "0 to 4194304")?;
    Ok(Change::keep(sight, &MAX, Value::Limit(most)))
}

fn show_events(sight: &Sight<'_>) -> Vec<u8> {
    let failed = sight.counter(&EVENTS_HERE).saturating_add(sight.counter(&EVENTS_LIMIT));
    line(format_args!("max {failed}"))
}
