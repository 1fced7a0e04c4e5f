//! files: how many descriptors the processes of a group and those below it may have open. No kernel has this controller;
//! Beancounters called it numfile.

use pinfold_model::{Key, Limit, Value};

use crate::sight::Sight;
use crate::table::{
    AtRoot, Blank, Carry, Change, Controller, File, Inherit, Needs, Place, Read, RoundTrip, Setting, Source,
    Unaided, Unit, Write, Writer,
};
use crate::values::{bound, line, v2_limit};
use crate::write::{WriteError, parse_max, stripped};

static MAX: Setting = Setting {
    key: Key("files.max"),
    initial: Value::Limit(Limit::Max),
    inherit: Inherit::Initial,
    carry: Carry::Descriptors { most: |settings| bound(MAX.of(settings)) },
};

/// The files controller.
pub(crate) static FILES: Controller = Controller {
    name: "files",
    about: "How many descriptors the processes of a group and those below it may have open; open, dup, socket and the like \
            fail with EMFILE above that. pinfold's own: no kernel has it.",
    source: "none of v1: OpenVZ's beancounter numfile, in its meaning; setrlimit(2); kernel/sys.c, fs/proc/fd.c",
    needs: Needs::ResourceLimits,
    unaided: Unaided::Served(
        "as with one, by the RLIMIT_NOFILE of each process; where the daemon may not set that of others (CAP_SYS_RESOURCE in the \
         first user namespace) it cannot be mounted",
    ),
    files: &[
        File {
            name: "max",
            place: Place::BelowRoot,
            unit: Unit::Descriptors,
            read: Read::Shown { from: &[], show: |sight| line(v2_limit(bound(sight.own(&MAX)))) },
            write: Write::Parsed(write_max),
            writer: Writer::Permitted,
            longest: File::LONGEST,
            setting: Some(&MAX),
            function: "none: pinfold's own; the form is that of pids_max_write()",
            about: "The most descriptors the processes of the group and of those below it may have open. None is closed: a \
                    group that has more when the limit is set, or when a process is attached, opens no more until it has less.",
            takes: "`max`, or a number from 0 to 9223372036854775807: decimal, octal after `0`, hexadecimal after `0x`, with \
                    or without a sign; white space around it is dropped.",
            errors: "EINVAL: not a number, or negative. ERANGE: more than a signed 64-bit number. EBUSY: a limit, where the \
                     daemon is `--strict`: it would not be the kernel's.",
            v2: "Divided over the RLIMIT_NOFILE of the processes, by demand: the parts never sum to more than the limit, and \
                 are not below a process's highest descriptor if the limit allows it. A process has at most what it had by \
                 itself, gets that back when it leaves the group, when the limit is lifted or the realm ends, and keeps its \
                 part while no daemon runs. Every 50 ms pinfold looks for children and for who has used up its part (less often if \
                 looks would take more than a quarter of the time), and nothing is looked at while no process is limited. Before \
                 Linux 6.2 a process with more than 1024 is taken to have as many as its highest descriptor would need.",
            differs: "There is nothing to differ from; but it is no kernel's limit. A child is born with a copy of its \
                      parent's part, and of its descriptors: until the next look, within 50 ms, the group may open that many \
                      more, with many forks many times as many, and what was opened stays open. A process may be refused a \
                      descriptor for as long although others do not use their parts. Descriptors are counted by process: one \
                      that shares its table with another process (CLONE_FILES) counts in both, threads count once. What a \
                      part bounds is the number of the descriptor: one with a high number takes up the room below it. A \
                      process with CAP_SYS_RESOURCE can raise its own limit, until the next look. getrlimit(2) shows a \
                      process its part, and raising the soft limit above that is EPERM. Files in flight over a socket or \
                      registered with io_uring are no descriptors. RLIMIT_NOFILE bounds more than open(2): poll(2) of more \
                      entries than the part is EINVAL, descriptors sent over a socket (SCM_RIGHTS) while as many of the user's are \
                      in flight ETOOMANYREFS, F_DUPFD from a number above it EINVAL. A process whose parent has ended has \
                      the least limit of its own of all that may have been its parent. One that was born while no daemon \
                      ran, and whose parent has ended when the next one starts, may keep its parent's part as its own limit; \
                      so may the child of a process that is attached elsewhere or taken out by somebody else than pinfold, \
                      and the child of one that leaves for no group at all if it is born in that moment.",
            round_trip: RoundTrip::Exact,
            at_root: AtRoot::Alike,
            blank: Blank::Junk,
            instead: None,
        },
        File {
            name: "current",
            place: Place::BelowRoot,
            unit: Unit::Descriptors,
            read: Read::Shown {
                from: &[Source::Descriptors],
                show: |sight| line(sight.v2.sum(Source::Descriptors)),
            },
            write: Write::Refused,
            writer: Writer::Permitted,
            longest: File::LONGEST,
            setting: None,
            function: "none: pinfold's own; proc_fd_getattr()",
            about: "The descriptors that the processes of the group and of those below it have open.",
            takes: "",
            errors: "",
            v2: "The entries of /proc/PID/fd of each process, which Linux 6.2 and later tell as the size of that directory.",
            differs: "EIO if the descriptors of a process cannot be counted: the daemon may not look at them.",
            round_trip: RoundTrip::NotApplicable,
            at_root: AtRoot::Alike,
            blank: Blank::Junk,
            instead: None,
        },
    ],
    counters: &[],
    can_attach: Controller::anybody,
};

fn write_max(sight: &Sight<'_>, data: &[u8]) -> Result<Change, WriteError> {
    let most =
        parse_max(stripped(data), "`max` or a number of descriptors", i64::MAX, "0 to 9223372036854775807")?;
    Ok(Change::keep(sight, &MAX, Value::Limit(most)))
}
