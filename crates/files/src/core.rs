//! The core files: who is in a group, and who is told when it is empty. Every hierarchy has them, named ones too.

use pinfold_model::{Key, Value};

use crate::sight::Sight;
use crate::table::{
    AtRoot, Blank, Carry, Change, Controller, File, Ids, Inherit, Needs, Place, Read, RoundTrip, Setting,
    Unaided, Unit, Write, Writer,
};
use crate::write::{WriteError, parse_flag, stripped};

/// Whether the release agent is told when the group's last process and last child have gone.
pub static NOTIFY_ON_RELEASE: Setting = Setting {
    key: Key("notify_on_release"),
    initial: Value::Flag(false),
    inherit: Inherit::Parent,
    carry: Carry::UserSpace,
};

/// The program that is told, for the whole hierarchy; kept by its root group.
pub static RELEASE_AGENT: Setting = Setting {
    key: Key("release_agent"),
    initial: Value::Text(Vec::new()),
    inherit: Inherit::Initial,
    carry: Carry::UserSpace,
};

/// Whether a new child group's cpuset starts as a copy of this one's.
pub static CLONE_CHILDREN: Setting = Setting {
    key: Key("cgroup.clone_children"),
    initial: Value::Flag(false),
    inherit: Inherit::Parent,
    carry: Carry::UserSpace,
};

/// The files of every group, whatever its hierarchy's controllers. The order is cgroup1_base_files'.
pub static CORE: Controller = Controller {
    name: "",
    about: "The files that every group of every hierarchy has: its members, and who is told when it is empty.",
    source: "Documentation/admin-guide/cgroup-v1/cgroups.rst sections 1.4, 1.5 and 2; kernel/cgroup/cgroup-v1.c",
    needs: Needs::Tree,
    unaided: Unaided::Served("membership is a table that the forks and exits of processes keep"),
    files: &[
        File {
            name: "cgroup.procs",
            place: Place::Everywhere,
            unit: Unit::Processes,
            read: Read::Members(Ids::Processes),
            write: Write::Attach(Ids::Processes),
            writer: Writer::Permitted,
            longest: File::LONGEST,
            setting: None,
            function: "cgroup_pidlist_show(), cgroup1_procs_write()",
            about: "The processes of which any thread is in the group: one id a line, ascending, each once, in the \
                    reader's pid namespace.",
            takes: ATTACH_TAKES,
            errors: ATTACH_ERRORS,
            v2: "The group's processes are those of its cells' leaves; an attach is a write of cgroup.procs in the \
                 leaf of another cell.",
            differs: "",
            round_trip: RoundTrip::NotApplicable,
            at_root: AtRoot::Alike,
            blank: Blank::Junk,
            instead: None,
        },
        File {
            name: "cgroup.clone_children",
            place: Place::Everywhere,
            unit: Unit::Flag,
            read: Read::Shown { from: &[], show: |sight| show_flag(sight, &CLONE_CHILDREN) },
            write: Write::Parsed(|sight, data| keep_flag(sight, &CLONE_CHILDREN, data)),
            writer: Writer::Permitted,
            longest: File::LONGEST,
            setting: Some(&CLONE_CHILDREN),
            function: "cgroup_clone_children_read(), cgroup_clone_children_write()",
            about: "Whether a new child group's cpuset starts as a copy of this group's.",
            takes: FLAG_TAKES,
            errors: FLAG_ERRORS,
            v2: "pinfold makes the copy.",
            differs: "",
            round_trip: RoundTrip::Exact,
            at_root: AtRoot::Alike,
            blank: Blank::Junk,
            instead: None,
        },
        File {
            name: "cgroup.sane_behavior",
            place: Place::RootOnly,
            unit: Unit::Flag,
            read: Read::Shown { from: &[], show: |_| b"0\n".to_vec() },
            write: Write::Refused,
            writer: Writer::Permitted,
            longest: File::LONGEST,
            setting: None,
            function: "cgroup_sane_behavior_show()",
            about: "Always 0: what became version 2 was once a flag of version 1.",
            takes: "",
            errors: "",
            v2: "A constant.",
            differs: "",
            round_trip: RoundTrip::NotApplicable,
            at_root: AtRoot::Alike,
            blank: Blank::Junk,
            instead: None,
        },
        File {
            name: "tasks",
            place: Place::Everywhere,
            unit: Unit::Tasks,
            read: Read::Members(Ids::Tasks),
            write: Write::Attach(Ids::Tasks),
            writer: Writer::Permitted,
            longest: File::LONGEST,
            setting: None,
            function: "cgroup_pidlist_show(), cgroup1_tasks_write()",
            about: "The threads in the group: one id a line, ascending, in the reader's pid namespace.",
            takes: ATTACH_TAKES,
            errors: ATTACH_ERRORS,
            v2: "The group's threads are those of its cells' leaves (cgroup.threads); an attach is a write of \
                 cgroup.procs in the leaf of another cell.",
            differs: "The whole process moves, whichever of its threads is named: v2 applies most controllers to \
                      processes only.",
            round_trip: RoundTrip::NotApplicable,
            at_root: AtRoot::Alike,
            blank: Blank::Junk,
            instead: None,
        },
        File {
            name: "notify_on_release",
            place: Place::Everywhere,
            unit: Unit::Flag,
            read: Read::Shown { from: &[], show: |sight| show_flag(sight, &NOTIFY_ON_RELEASE) },
            write: Write::Parsed(|sight, data| keep_flag(sight, &NOTIFY_ON_RELEASE, data)),
            writer: Writer::Permitted,
            longest: File::LONGEST,
            setting: Some(&NOTIFY_ON_RELEASE),
            function: "cgroup_read_notify_on_release(), cgroup_write_notify_on_release()",
            about: "Whether the release agent runs when the group's last process and last child group have gone.",
            takes: FLAG_TAKES,
            errors: FLAG_ERRORS,
            v2: "pinfold learns from cgroup.events of the cells' leaves (populated) that a group is empty, and runs \
                 the agent itself.",
            differs: "",
            round_trip: RoundTrip::Exact,
            at_root: AtRoot::Alike,
            blank: Blank::Junk,
            instead: None,
        },
        File {
            name: "release_agent",
            place: Place::RootOnly,
            unit: Unit::Path,
            read: Read::Shown { from: &[], show: show_release_agent },
            write: Write::Parsed(keep_release_agent),
            writer: Writer::OpenedByAdmin,
            longest: PATH_MAX - 1,
            setting: Some(&RELEASE_AGENT),
            function: "cgroup_release_agent_show(), cgroup_release_agent_write()",
            about: "The program that runs for every group of the hierarchy that becomes empty and has \
                    notify_on_release set; its argument is the group's path below the hierarchy's root. Nothing \
                    runs while it is empty.",
            takes: "A path; white space around it is dropped, what follows a NUL is not seen. Nothing but white \
                    space: no agent.",
            errors: "E2BIG: more than 4095 bytes. EPERM: who opened it lacked CAP_SYS_ADMIN.",
            v2: "pinfold runs it, with the kernel's arguments and environment (HOME=/, \
                 PATH=/sbin:/bin:/usr/sbin:/usr/bin).",
            differs: "At most 64 run at once: the next one waits until one has ended.",
            round_trip: RoundTrip::TakesAnything,
            at_root: AtRoot::Alike,
            blank: Blank::Junk,
            instead: None,
        },
    ],
    counters: &[],
    can_attach: Controller::anybody,
};

const PATH_MAX: usize = 4096;

const ATTACH_TAKES: &str = "The id of a process or of one of its threads, in the writer's pid namespace; 0 is the \
                            writer. Decimal, octal after `0`, hexadecimal after `0x`, with or without a sign; white \
                            space around it is dropped.";
const ATTACH_ERRORS: &str = "EINVAL: not a number, negative, or more than 2147483647. ESRCH: no such process. EACCES: \
                             the writer is neither root nor the process's owner. ENODEV: the group was removed. ENOSPC: the group has no CPUs or no \
                             memory nodes yet (cpuset).";

const FLAG_TAKES: &str = "A number without white space but one newline: decimal, octal after `0`, hexadecimal after \
                          `0x`; any but 0 is 1.";
const FLAG_ERRORS: &str = "EINVAL: not a number, or with a minus sign. ERANGE: more than 64 bits.";

fn show_flag(sight: &Sight<'_>, setting: &'static Setting) -> Vec<u8> {
    format!("{}\n", u8::from(sight.flag(setting))).into_bytes()
}

fn keep_flag(sight: &Sight<'_>, setting: &'static Setting, data: &[u8]) -> Result<Change, WriteError> {
    Ok(Change::keep(sight, setting, Value::Flag(parse_flag(data)?)))
}

fn show_release_agent(sight: &Sight<'_>) -> Vec<u8> {
    let path: &[u8] = match sight.own(&RELEASE_AGENT) {
        Value::Text(path) => path,
        _ => b"",
    };
    [path, b"\n"].concat()
}

fn keep_release_agent(sight: &Sight<'_>, data: &[u8]) -> Result<Change, WriteError> {
    Ok(Change::keep(sight, &RELEASE_AGENT, Value::Text(stripped(data).to_vec())))
}
