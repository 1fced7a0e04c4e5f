//! freezer: stop a group's tasks and let them go on.

use pinfold_model::{Key, Value};

use crate::sight::{Sight, flat_field};
use crate::table::{
    AtRoot, Blank, Carry, Change, Controller, File, Inherit, Needs, Place, Read, RoundTrip, Setting, Source,
    Unaided, Unit, Write, Writer,
};
use crate::write::{WriteError, stripped};

/// Whether FROZEN was written to the group itself (CGROUP_FREEZING_SELF).
pub static FROZEN: Setting = Setting {
    key: Key("freezer.state"),
    initial: Value::Flag(false),
    inherit: Inherit::Initial,
    carry: Carry::Everywhere {
        v2: "cgroup.freeze",
        show: |value| u8::from(is_on(value)).to_string(),
        combine: |above, own| Value::Flag(is_on(above) || is_on(own)),
        unaided: None,
    },
};

const EVENTS: Source = Source::Carriers("cgroup.events");

/// The freezer controller.
pub(crate) static FREEZER: Controller = Controller {
    name: "freezer",
    about: "Stops the tasks of a group and of those below it, and lets them go on.",
    source: "Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst; kernel/cgroup/legacy_freezer.c",
    needs: Needs::Tree,
    unaided: Unaided::Served(
        "tasks are stopped by SIGSTOP and go on by SIGCONT, which their parents can see; who is sent SIGCONT by another is stopped again at the next look",
    ),
    files: &[
        File {
            name: "state",
            place: Place::BelowRoot,
            unit: Unit::State,
            read: Read::Shown { from: &[EVENTS], show: show_state },
            write: Write::Parsed(write_state),
            writer: Writer::Permitted,
            longest: File::LONGEST,
            setting: Some(&FROZEN),
            function: "freezer_read(), freezer_write()",
            about: "THAWED; FREEZING while the group or one above it is to be frozen and not every task of the group \
                    and below has stopped; then FROZEN. A group without tasks is frozen at once. Writing THAWED to \
                    a group below a frozen one is accepted, and it stays frozen.",
            takes: "`FROZEN` or `THAWED`, exactly; white space around it is dropped.",
            errors: "EINVAL: anything else, `FREEZING` too.",
            v2: "cgroup.freeze of every leaf of the group and below; all have stopped when every carrier's \
                 cgroup.events says `frozen 1`.",
            differs: "A task frozen by v2 can be killed; one frozen by v1 dies only when it is thawed.",
            round_trip: RoundTrip::Exact,
            at_root: AtRoot::Alike,
            blank: Blank::Junk,
            instead: None,
        },
        File {
            name: "self_freezing",
            place: Place::BelowRoot,
            unit: Unit::Flag,
            read: Read::Shown { from: &[], show: |sight| line(sight.flag(&FROZEN)) },
            write: Write::Refused,
            writer: Writer::Permitted,
            longest: File::LONGEST,
            setting: None,
            function: "freezer_self_freezing_read()",
            about: "Whether FROZEN was last written to the group itself.",
            takes: "",
            errors: "",
            v2: "Kept by pinfold.",
            differs: "",
            round_trip: RoundTrip::NotApplicable,
            at_root: AtRoot::Alike,
            blank: Blank::Junk,
            instead: None,
        },
        File {
            name: "parent_freezing",
            place: Place::BelowRoot,
            unit: Unit::Flag,
            read: Read::Shown { from: &[], show: |sight| line(parent_freezing(sight)) },
            write: Write::Refused,
            writer: Writer::Permitted,
            longest: File::LONGEST,
            setting: None,
            function: "freezer_parent_freezing_read()",
            about: "Whether FROZEN was last written to any group above it.",
            takes: "",
            errors: "",
            v2: "Derived from the groups above.",
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

fn is_on(value: &Value) -> bool {
    *value == Value::Flag(true)
}

fn line(flag: bool) -> Vec<u8> {
    format!("{}\n", u8::from(flag)).into_bytes()
}

fn parent_freezing(sight: &Sight<'_>) -> bool {
    sight.above(&FROZEN).any(is_on)
}

fn show_state(sight: &Sight<'_>) -> Vec<u8> {
    let state: &[u8] = if !sight.flag(&FROZEN) && !parent_freezing(sight) {
        b"THAWED\n"
    } else if sight.v2.of(EVENTS).all(|text| flat_field(text, "frozen") == Some(1)) {
        b"FROZEN\n"
    } else {
        b"FREEZING\n"
    };
    state.to_vec()
}

fn write_state(sight: &Sight<'_>, data: &[u8]) -> Result<Change, WriteError> {
    let frozen = match stripped(data) {
        b"FROZEN" => true,
        b"THAWED" => false,
        text => return Err(WriteError::syntax(text, "FROZEN or THAWED")),
    };
    Ok(Change::keep(sight, &FROZEN, Value::Flag(frozen)))
}
