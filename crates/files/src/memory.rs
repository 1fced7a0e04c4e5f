//! memory: how much memory, with and without swap, a group and those below it may use, and what they use it for.
//!
//! Who is told of what by way of `cgroup.event_control`: [`crate::notice`].

mod oom;
mod peak;
mod stat;
mod swappiness;

use pinfold_model::{Key, Limit, Settings, Value};

use oom::{OOM_KILL, show_oom_control, write_oom_control};
pub use oom::{OOM_KILL_DISABLE, UNDER_OOM, is_under_oom, waits_at};
use peak::{
    KMEM_MAX_USAGE, MAX_USAGE, MAX_USAGE_FOUND, MEMSW_MAX_USAGE, MEMSW_MAX_USAGE_FOUND, PEAK, PEAK_FOUND,
    SAMPLED, SWAP_PEAK, TCP_MAX_USAGE, show_max_usage, show_memsw_max_usage,
};
use stat::{PGFAULT, PGMAJFAULT, REFAULT_ANON, REFAULT_FILE, show_numa_stat, show_stat};
use swappiness::{MACHINE_SWAPPINESS, SWAPPINESS, show_swappiness, write_swappiness};

use crate::counter::{Counter, Field, Fold, show_sampled};
use crate::division::{Amount, Division, Figure, Pressed, Used};
use crate::notice;
use crate::number::memparse;
use crate::room::{Reclaimer, Room};
use crate::sight::{Facts, Sight, flat_field, whole};
use crate::table::{
    AtRoot, Blank, Carry, Change, Controller, File, Followed, Inherit, Instead, Needs, Place, Read,
    RoundTrip, Setting, Share, Source, Unaided, Unit, V2Write, Write, Writer,
};
use crate::values::{LEFT_BEHIND, bound, line, no_limit, v2_limit};
use crate::write::{WriteError, below_root, parse_u64, stripped};

static LIMIT: Setting = limit_setting(
    "memory.limit_in_bytes",
    Carry::Limit(&[
        V2Write {
            room: Some(Room {
                by: &RECLAIM,
                usage: &["memory.current"],
                beside: &[],
                most: |settings| bound(LIMIT.of(settings)),
                rest: oom::high,
            }),
            ..oom::MAX
        },
        oom::HIGH,
        // Without a limit of both there is none of swap: a kernel without swap has no such file.
        V2Write {
            file: "memory.swap.max",
            text: |settings| swap_max(settings).map(|most| most.to_string()),
            room: None,
            share: Share::Divided(&SWAP_DIVISION),
            unlike: "",
        },
    ]),
);

static MEMSW: Setting = limit_setting(
    "memory.memsw.limit_in_bytes",
    Carry::Limit(&[V2Write {
        file: "memory.swap.max",
        text: |settings| Some(v2_limit(swap_max(settings))),
        room: Some(Room {
            by: &RECLAIM,
            usage: &["memory.current", "memory.swap.current"],
            beside: &["memory.swap.current"],
            most: |settings| bound(MEMSW.of(settings)),
            rest: oom::high,
        }),
        share: Share::Divided(&SWAP_DIVISION),
        unlike: "",
    }]),
);

static SOFT_LIMIT: Setting = limit_setting(
    "memory.soft_limit_in_bytes",
    Carry::Limit(&[V2Write {
        file: "memory.low",
        text: |settings| Some(bound(SOFT_LIMIT.of(settings)).unwrap_or(0).to_string()),
        room: None,
        share: Share::Divided(&LOW_DIVISION),
        // effective_protection(): no directory is protected by more than the one above it, and the realm's has no protection.
        unlike: "only where a group above meets its limit: when the machine itself lacks memory, v2 protects nothing here",
    }]),
);

static SWAP_DIVISION: Division = Division {
    amounts: |settings| Amount::only(swap_max(settings)),
    text: |_, parts| v2_limit(Amount::one(parts)),
    used: Used::Charged(Figure { file: "memory.swap.current", value: |text, _| whole(text) }),
    pressed: Some(Pressed::Met(Figure {
        file: "memory.swap.events",
        value: |text, _| flat_field(text, "max"),
    })),
    guard: None,
    least: 0,
    periods: None,
};

/// A protection: what it is divided into protects as much in all.
static LOW_DIVISION: Division = Division {
    amounts: |settings| Amount::only(bound(SOFT_LIMIT.of(settings))),
    text: |_, parts| Amount::one(parts).unwrap_or(0).to_string(),
    used: Used::Now(Figure { file: "memory.current", value: |text, _| whole(text) }),
    pressed: None,
    guard: None,
    least: 0,
    periods: None,
};

static TCP_LIMIT: Setting = limit_setting(
    "memory.kmem.tcp.limit_in_bytes",
    Carry::Inert("v2 counts the memory of sockets with all other, and limits it with it"),
);

const fn limit_setting(key: &'static str, carry: Carry) -> Setting {
    Setting { key: Key(key), initial: Value::Limit(Limit::Max), inherit: Inherit::Initial, carry }
}

const CURRENT: Source = Source::Carriers("memory.current");
const SWAP_CURRENT: Source = Source::Carriers("memory.swap.current");
const OWN_SWAP: Source = Source::Own("memory.swap.current");
const STAT: Source = Source::Carriers("memory.stat");
const OWN_STAT: Source = Source::Own("memory.stat");
const ROOT_STAT: Source = Source::Root("memory.stat");
const NUMA: Source = Source::Carriers("memory.numa_stat");
const OWN_NUMA: Source = Source::Own("memory.numa_stat");

static FAILCNT: Counter =
    counter("memory.failcnt", Source::Carriers("memory.events.local"), Field::After("max"), Fold::Sum);
static MEMSW_FAILCNT: Counter =
    counter("memory.memsw.failcnt", Source::Carriers("memory.swap.events"), Field::After("max"), Fold::Sum);
const fn counter(key: &'static str, source: Source, field: Field, fold: Fold) -> Counter {
    Counter { key: Key(key), source, field, fold }
}

static RECLAIM: Reclaimer = Reclaimer {
    piece: "memory.reclaim",
    throttle: "memory.high",
    usage: "memory.current",
    swap: "memory.swap.max",
};

const ROOM_BY_THROTTLE: Instead = Instead {
    of: RECLAIM.piece,
    how: "room for a lower limit is made by memory.high alone, which slows the group down meanwhile",
};

const EMPTIED_BY_THROTTLE: Instead =
    Instead { of: RECLAIM.piece, how: "memory.high is 0 for a moment, which slows the group down meanwhile" };

/// The memory controller.
pub(crate) static MEMORY: Controller = Controller {
    name: "memory",
    about: "How much memory, with and without swap, a group and those below it may use, and what they use it for.",
    source: "Documentation/admin-guide/cgroup-v1/memory.rst; mm/memcontrol.c",
    needs: Needs::Controller("memory"),
    unaided: Unaided::Refused("nobody but the kernel can charge memory to a group or refuse it"),
    files: &[
        shown(
            "usage_in_bytes",
            &[CURRENT, ROOT_STAT],
            |sight| line(usage(sight)),
            "mem_cgroup_read_u64()",
            "What the group and those below it use: their processes' memory, the page cache that they filled, and what \
             the kernel has for them.",
            "memory.current. Of the root: file and anon of the base's memory.stat.",
            LEFT_BEHIND,
        ),
        File {
            instead: Some(PEAK_FOUND),
            ..followed(
                "max_usage_in_bytes",
                &[
                    PEAK,
                    Source::Since(MAX_USAGE.key.0),
                    Source::Beside("memory.current", MAX_USAGE.key.0),
                    ROOT_STAT,
                ],
                show_max_usage,
                |sight, _| reset(sight, const { &[&MAX_USAGE, &MAX_USAGE_FOUND] }),
                "The most that usage_in_bytes ever was, or since the last write here.",
                "memory.peak (Linux 5.19), and what it was in the directories the group had before. After a reset, memory.peak of an \
                 open file that was written to (Linux 6.12).",
                "v2 forgets no peak before Linux 6.12, nor in other directories than the 64 whose peaks were reset last: then it \
                 is exact after a reset from the moment the old peak is passed; until then it is what was used at the reset, \
                 or what is used now, if that is more. A daemon that is killed takes along what was the most since a reset: \
                 the next one knows of what comes. Of the root, it is the most that any read of this file has found since the \
                 last write.",
            )
        },
        File {
            instead: Some(ROOM_BY_THROTTLE),
            errors: "EINVAL: of another form; above memory.memsw.limit_in_bytes; the root. EBUSY: usage cannot be brought \
                     below it.",
            at_root: AtRoot::Refused,
            v2: "memory.max of the group's directory. Before it is lowered, what is above is reclaimed by way of \
                 memory.reclaim (Linux 5.19) and memory.high, which kill nobody; memory.swap.max has before that what \
                 memory.memsw.limit_in_bytes then leaves. Where the limit is divided, memory.high is a little below each part.",
            ..limit(
                "limit_in_bytes",
                &LIMIT,
                |sight| line(limit_bytes(sight, &LIMIT)),
                write_limit,
                "The most that the group and those below it may use. A process that needs more waits for memory to be \
                 reclaimed; if there is none, one of the group is killed. -1 is no limit, shown as 9223372036854771712 \
                 (4 KiB pages). It is kept as whole pages, rounded down.",
            )
        },
        File {
            errors: "EINVAL: of another form.",
            v2: "memory.low of the group's directory: the machine reclaims from others before it goes below it.",
            differs: "v1 takes from a group above its soft limit first when the machine lacks memory; v2 protects what is \
                      below memory.low, and only where a group above meets its own limit: nothing protects the directories \
                      above the realm. A group without a soft limit has no protection. Of 48 MiB that a group with a soft limit had read, \
                      48 stayed in the page cache while a sibling read 400 below a limit of 96, and 4 without a soft limit (Linux 6.1).",
            ..limit(
                "soft_limit_in_bytes",
                &SOFT_LIMIT,
                |sight| line(limit_bytes(sight, &SOFT_LIMIT)),
                |sight, data| {
                    Ok(Change::keep(sight, &SOFT_LIMIT, Value::Limit(parse_limit(sight.facts, data)?)))
                },
                "What the group is brought back to when the machine lacks memory.",
            )
        },
        File {
            unit: Unit::Number,
            ..resettable(
                "failcnt",
                &[FAILCNT.source],
                |sight| line(sight.counter(&FAILCNT)),
                |sight, _| reset(sight, const { &[&FAILCNT] }),
                "How often usage met the limit, since the last write here.",
                "`max` of memory.events.local.",
                "",
            )
        },
        File {
            unit: Unit::Bytes,
            ..shown(
                "stat",
                &[OWN_STAT, OWN_SWAP, STAT, SWAP_CURRENT],
                show_stat,
                "memcg_stat_show()",
                "What memory is used for, a line each: the group's own processes; the limits that hold, its own and those \
                 above it; then, after `total_`, those below it too. Bytes, but for the lines about faults and refaults, \
                 which are events.",
                "memory.stat and memory.swap.current of the group's directory. swapcached is there from Linux 6.7 on, as in its \
                 v1. While groups below have processes, only `total_` is of that, the rest of the leaves of the group's own cells.",
                "pgpgin and pgpgout are 0: v2 does not count them. While groups below have processes, what gone ones of the \
                 group itself left in the page cache is in `total_` only.",
            )
        },
        File {
            read: Read::Refused,
            write: Write::Parsed(|sight, _| {
                below_root(sight, "force_empty")?;
                Ok(Change::Reclaim(&RECLAIM))
            }),
            instead: Some(EMPTIED_BY_THROTTLE),
            takes: "Anything: as much of the group's memory is reclaimed as can be.",
            errors: "EINVAL: the root.",
            at_root: AtRoot::Refused,
            round_trip: RoundTrip::TakesAnything,
            ..shown(
                "force_empty",
                &[],
                |_| Vec::new(),
                "mem_cgroup_force_empty_write()",
                "Reclaims what can be, so that a group without processes can go with nothing left in it.",
                "memory.reclaim of the group's directory, in pieces (Linux 5.19).",
                "",
            )
        },
        File {
            unit: Unit::Flag,
            write: Write::Parsed(|_, data| match parse_u64(data)? {
                1 => Ok(Change::Nothing),
                _ => Err(WriteError::syntax(data, "1: limits always hold for the groups below too")),
            }),
            takes: "1.",
            errors: "EINVAL: anything else. ERANGE: more than 64 bits.",
            round_trip: RoundTrip::Exact,
            ..shown(
                "use_hierarchy",
                &[],
                |_| line(1),
                "mem_cgroup_hierarchy_read(), mem_cgroup_hierarchy_write()",
                "Whether limits and usage of a group are those of the groups below it too: always (Linux 5.11).",
                "A constant.",
                "",
            )
        },
        File {
            unit: Unit::Number,
            read: Read::Refused,
            write: Write::Register,
            writer: Writer::Anyone,
            takes: "EVENTFD CONTROL [ARGUMENT], with one space between them: the writer's descriptor of an eventfd, and \
                    its descriptor of a control file of this group. Of memory.usage_in_bytes and \
                    memory.memsw.usage_in_bytes the argument is a size as a limit's: told is when usage crosses it, \
                    either way. Of memory.oom_control there is none: told is when a limit was met and somebody of the \
                    group is killed or waits. Of memory.pressure_level it is low, medium or critical, then `,default`, \
                    `,hierarchy`, `,local` or nothing: told is when reclaim finds that little.",
            errors: "EBADF: no such descriptor. EINVAL: of another form; not an eventfd; another file, or one of another \
                     group. EACCES: the writer may not read the control file. ENOMEM: there is a \
                     listener for every fourth descriptor that the daemon may have, or an eighth of those are of this user or \
                     container. EPERM: the daemon has no right to the writer's descriptors. EBUSY: \
                     64 files of one user or container that were put in the place of eventfds cannot be closed.",
            ..shown(
                "cgroup.event_control",
                &[],
                |_| Vec::new(),
                "memcg_write_event_control()",
                "Who is to be told of what: an eventfd is signalled until its owner closes it or ends, and once more when \
                 the group is removed.",
                "The eventfd is taken over by pidfd_getfd(2). Usage and reclaim are looked at every 10 to 100 ms while \
                 somebody waits for them (less often if looks would take more than a quarter of the time); memory.events.local, of which the \
                 kernel tells, says that a limit was met. In more directories than a user or container may have listeners it is \
                 looked at like usage.",
                "Usage that crosses a threshold and comes back within that time is not told. An eventfd belongs to the \
                 process that registered it: others that share it hear nothing any more when that has ended. A daemon \
                 that is killed takes the registrations with it: nobody is told until the next write. Pressure is judged \
                 in each group from what was reclaimed in it and below it, by whomever but kswapd.",
            )
        },
        File {
            unit: Unit::Number,
            write: Write::Parsed(write_swappiness),
            setting: Some(&SWAPPINESS),
            takes: "A number from 0 to 200, without white space but one newline.",
            errors: "EINVAL: not a number, or above 200. ERANGE: more than 64 bits.",
            round_trip: RoundTrip::Exact,
            ..shown(
                "swappiness",
                &[MACHINE_SWAPPINESS],
                show_swappiness,
                "mem_cgroup_swappiness_read(), mem_cgroup_swappiness_write()",
                "How readily the group's processes are swapped out rather than files dropped. A new group has its parent's.",
                "vm.swappiness, until another value is written to the group or one above has it when the group is made: that is kept by \
                 pinfold.",
                "A group that keeps no value of its own follows vm.swappiness when it changes, where v1 follows in the root only. What \
                 is written to the root is kept like any other; v1 sets vm.swappiness, which is the whole machine's.",
            )
        },
        File {
            unit: Unit::Flag,
            write: Write::Parsed(|_, data| match parse_u64(data)? {
                0 => Ok(Change::Nothing),
                _ => Err(WriteError::syntax(data, "0: memory stays where it was charged")),
            }),
            takes: "0.",
            errors: "EINVAL: anything else. ERANGE: more than 64 bits.",
            round_trip: RoundTrip::Exact,
            ..shown(
                "move_charge_at_immigrate",
                &[],
                |_| line(0),
                "mem_cgroup_move_charge_read(), mem_cgroup_move_charge_write()",
                "Whether a process takes its memory along when it is attached: it does not.",
                "A constant.",
                "Linux before 6.13 takes 1 to 3 too; v2 cannot do it.",
            )
        },
        File {
            unit: Unit::State,
            write: Write::Parsed(write_oom_control),
            setting: Some(&OOM_KILL_DISABLE),
            takes: "0 or 1: oom_kill_disable.",
            errors: "EINVAL: not a number, or above 1; the root. ERANGE: more than 64 bits.",
            at_root: AtRoot::Refused,
            round_trip: RoundTrip::Refused,
            ..shown(
                "oom_control",
                &[OOM_KILL.source],
                show_oom_control,
                "mem_cgroup_oom_control_read(), mem_cgroup_oom_control_write()",
                "oom_kill_disable: whether processes wait for memory when the group's limit is met, rather than one of them \
                 being killed. under_oom: whether they wait now, in this group or because of one above. oom_kill: how many \
                 processes of the group itself were killed because a limit was met.",
                "oom_kill of memory.events in the group's directory, or in the leaves of its own cells while groups below have \
                 processes. With oom_kill_disable the limit is \
                 memory.high of the group's directory, and memory.max is an eighth of it more, 16 MiB at least. When usage \
                 is above the limit and cannot be reclaimed, pinfold freezes the group until it is not.",
                "v2 always kills. With oom_kill_disable usage may be above the limit; a process that asks for much in one \
                 system call is killed if it comes to memory.max before it can be frozen; waiting processes are frozen, all \
                 of the group, and can be killed; failcnt does not count. Without a daemon nobody is thawed: the next one \
                 sees to it. With the v2 mount option memory_localevents oom_kill counts only while groups below have processes.",
            )
        },
        File {
            unit: Unit::State,
            read: Read::Named,
            ..shown(
                "pressure_level",
                &[],
                |_| Vec::new(),
                "vmpressure_register_event()",
                "Named in cgroup.event_control by who wants to be told how little reclaim finds.",
                "pgscan and pgsteal of the group's memory.stat, without those of kswapd where they are told apart.",
                "Linux before 6.5 gives it mode 0000, so that only root can name it.",
            )
        },
        File {
            unit: Unit::Pages,
            ..shown(
                "numa_stat",
                &[OWN_NUMA, NUMA],
                show_numa_stat,
                "memcg_numa_stat_show()",
                "On which node the pages are: the group's own, and after `hierarchical_` with those below it.",
                "memory.numa_stat of the group's directory, and of the leaves of its own cells while groups below have processes.",
                "",
            )
        },
        File {
            place: Place::Everywhere,
            write: Write::Parsed(|sight, data| {
                parse_limit(sight.facts, data)?;
                below_root(sight, "kmem.limit_in_bytes")?;
                Ok(Change::Nothing)
            }),
            takes: SIZE,
            blank: Blank::Taken,
            errors: "EINVAL: of another form; the root.",
            at_root: AtRoot::Refused,
            round_trip: RoundTrip::Exact,
            ..shown(
                "kmem.limit_in_bytes",
                &[],
                |sight| line(no_limit(sight.facts)),
                "mem_cgroup_read_u64(), mem_cgroup_write()",
                "Once a limit of the kernel's own memory; without effect since Linux 5.16.",
                "A constant: what is written is not kept, as in the kernel.",
                "",
            )
        },
        shown(
            "kmem.usage_in_bytes",
            &[STAT],
            |sight| line(sight.v2.sum_of(STAT, "kernel")),
            "mem_cgroup_read_u64()",
            "What the kernel has for the group and those below it: it is part of usage_in_bytes.",
            "`kernel` of memory.stat (Linux 5.18; 0 before).",
            "",
        ),
        File {
            unit: Unit::Number,
            ..ignored(
                "kmem.failcnt",
                &[],
                |_| line(0),
                "How often the limit of the kernel's memory was met: there is none.",
                "A constant.",
                "",
            )
        },
        followed(
            "kmem.max_usage_in_bytes",
            &[STAT],
            |sight| show_sampled(sight, &KMEM_MAX_USAGE, sight.v2.sum_of(STAT, "kernel")),
            |sight, _| reset(sight, const { &[&KMEM_MAX_USAGE] }),
            "The most that kmem.usage_in_bytes was.",
            "`kernel` of memory.stat (Linux 5.18; 0 before).",
            SAMPLED,
        ),
        shown(
            "kmem.slabinfo",
            &[],
            |_| Vec::new(),
            "mem_cgroup_slab_show()",
            "Empty since Linux 5.9.",
            "A constant.",
            "",
        ),
        File {
            errors: "EINVAL: of another form; the root.",
            at_root: AtRoot::Refused,
            v2: "Kept by pinfold.",
            ..limit(
                "kmem.tcp.limit_in_bytes",
                &TCP_LIMIT,
                |sight| line(limit_bytes(sight, &TCP_LIMIT)),
                |sight, data| {
                    let limit = parse_limit(sight.facts, data)?;
                    below_root(sight, "kmem.tcp.limit_in_bytes")?;
                    Ok(Change::keep(sight, &TCP_LIMIT, Value::Limit(limit)))
                },
                "The most that the group's TCP sockets may have in their buffers.",
            )
        },
        shown(
            "kmem.tcp.usage_in_bytes",
            &[STAT],
            |sight| line(sight.v2.sum_of(STAT, "sock")),
            "mem_cgroup_read_u64()",
            "What sockets have in their buffers.",
            "`sock` of memory.stat.",
            "v2 counts the buffers of all sockets, and as part of usage_in_bytes; v1 counts them only while \
             kmem.tcp.limit_in_bytes is set.",
        ),
        File {
            unit: Unit::Number,
            ..ignored(
                "kmem.tcp.failcnt",
                &[],
                |_| line(0),
                "How often kmem.tcp.limit_in_bytes was met.",
                "A constant.",
                "The limit has no effect.",
            )
        },
        followed(
            "kmem.tcp.max_usage_in_bytes",
            &[STAT],
            |sight| show_sampled(sight, &TCP_MAX_USAGE, sight.v2.sum_of(STAT, "sock")),
            |sight, _| reset(sight, const { &[&TCP_MAX_USAGE] }),
            "The most that kmem.tcp.usage_in_bytes was.",
            "`sock` of memory.stat.",
            SAMPLED,
        ),
        File {
            place: WITH_SWAP,
            ..shown(
                "memsw.usage_in_bytes",
                &[CURRENT, SWAP_CURRENT, ROOT_STAT],
                |sight| line(memsw_usage(sight)),
                "mem_cgroup_read_u64()",
                "What the group and those below it use of memory and swap together.",
                "memory.current and memory.swap.current.",
                "Of the root it has no swap.",
            )
        },
        File {
            place: WITH_SWAP,
            instead: Some(PEAK_FOUND),
            ..followed(
                "memsw.max_usage_in_bytes",
                &[
                    PEAK,
                    Source::Since(MEMSW_MAX_USAGE.key.0),
                    CURRENT,
                    SWAP_PEAK.source,
                    SWAP_CURRENT,
                    ROOT_STAT,
                ],
                show_memsw_max_usage,
                |sight, _| reset(sight, const { &[&MEMSW_MAX_USAGE, &SWAP_PEAK, &MEMSW_MAX_USAGE_FOUND] }),
                "The most that memsw.usage_in_bytes ever was, or since the last write here.",
                "The largest of memory.peak, kept as max_usage_in_bytes is, of memory.swap.peak (Linux 6.5), and of what reads \
                 of this file found to be used with swap.",
                "v2 keeps no peak of both together: the sum counts as any read of this file has found it since the last write, \
                 and never less than either peak. A daemon that is killed takes along what it found in its last second.",
            )
        },
        File {
            place: WITH_SWAP,
            instead: Some(ROOM_BY_THROTTLE),
            errors: "EINVAL: of another form; below memory.limit_in_bytes; the root. EBUSY: usage cannot be brought below \
                     it.",
            at_root: AtRoot::Refused,
            v2: "memory.swap.max of the group's directory: this less memory.limit_in_bytes. Before it is lowered, what is used \
                 of both above it is reclaimed of memory, as for memory.limit_in_bytes, by memory.reclaim (Linux 5.19).",
            differs: "Swap is limited to the difference of both limits even while less memory is used than its limit. What is in \
                      swap beyond that, since the difference became less, stays there until it is used or freed: until then more than \
                      this can be used, by so much; `pinfold status` says so. So it can for as long as memory.limit_in_bytes is being lowered.",
            ..limit(
                "memsw.limit_in_bytes",
                &MEMSW,
                |sight| line(limit_bytes(sight, &MEMSW)),
                write_memsw,
                "The most that the group and those below it may use of memory and swap together.",
            )
        },
        File {
            place: WITH_SWAP,
            unit: Unit::Number,
            ..resettable(
                "memsw.failcnt",
                &[MEMSW_FAILCNT.source],
                |sight| line(sight.counter(&MEMSW_FAILCNT)),
                |sight, _| reset(sight, const { &[&MEMSW_FAILCNT] }),
                "How often the limit of memory and swap together was met, since the last write here.",
                "`max` of memory.swap.events.",
                "What groups below met of their own is counted too. Newer kernels try no swap where none is left, and count nothing then.",
            )
        },
    ],
    counters: &[
        &MAX_USAGE,
        &MAX_USAGE_FOUND,
        &MEMSW_MAX_USAGE,
        &MEMSW_MAX_USAGE_FOUND,
        &SWAP_PEAK,
        &KMEM_MAX_USAGE,
        &TCP_MAX_USAGE,
        &FAILCNT,
        &MEMSW_FAILCNT,
        &OOM_KILL,
        &REFAULT_ANON.own,
        &REFAULT_ANON.total,
        &REFAULT_FILE.own,
        &REFAULT_FILE.total,
        &PGFAULT.own,
        &PGFAULT.total,
        &PGMAJFAULT.own,
        &PGMAJFAULT.total,
        &notice::OOM,
        &notice::SCANNED,
        &notice::SCANNED_BY_KSWAPD,
        &notice::RECLAIMED,
        &notice::RECLAIMED_BY_KSWAPD,
        &notice::FAILED,
        &notice::MET,
        &notice::THROTTLED,
    ],
    can_attach: Controller::anybody,
};

/// A kernel that cannot swap has none of these files, as v1 has none there: CONFIG_SWAP.
const WITH_SWAP: Place = Place::WithV2("memory.swap.max");

const SIZE: &str = "-1, or a number of bytes: decimal, octal after `0`, hexadecimal after `0x`, without a sign; then k, m, \
                    g, t, p or e, or none; white space around it is dropped. Nothing but white space is 0. What does not \
                    fit in 64 bits loses its upper ones.";

/// A file that is only read.
const fn shown(
    name: &'static str,
    from: &'static [Source],
    show: fn(&Sight<'_>) -> Vec<u8>,
    function: &'static str,
    about: &'static str,
    v2: &'static str,
    differs: &'static str,
) -> File {
    File { unit: Unit::Bytes, differs, ..File::shown(name, from, show, function, about, v2) }
}

/// A figure that any write starts again.
const fn resettable(
    name: &'static str,
    from: &'static [Source],
    show: fn(&Sight<'_>) -> Vec<u8>,
    write: fn(&Sight<'_>, &[u8]) -> Result<Change, WriteError>,
    about: &'static str,
    v2: &'static str,
    differs: &'static str,
) -> File {
    File {
        write: Write::Parsed(write),
        takes: "Anything: it starts again. At the root it has no effect.",
        errors: "None.",
        round_trip: RoundTrip::TakesAnything,
        ..shown(name, from, show, "mem_cgroup_read_u64(), mem_cgroup_reset()", about, v2, differs)
    }
}

/// A figure that any write starts again, and that goes on from what was found before.
const fn followed(
    name: &'static str,
    from: &'static [Source],
    show: fn(&Sight<'_>) -> Followed,
    write: fn(&Sight<'_>, &[u8]) -> Result<Change, WriteError>,
    about: &'static str,
    v2: &'static str,
    differs: &'static str,
) -> File {
    File {
        read: Read::Followed { from, show },
        ..resettable(name, from, |_| Vec::new(), write, about, v2, differs)
    }
}

/// A figure that takes any write, and stays as it is.
const fn ignored(
    name: &'static str,
    from: &'static [Source],
    show: fn(&Sight<'_>) -> Vec<u8>,
    about: &'static str,
    v2: &'static str,
    differs: &'static str,
) -> File {
    File {
        takes: "Anything, without effect.",
        ..resettable(name, from, show, |_, _| Ok(Change::Nothing), about, v2, differs)
    }
}

/// A limit.
const fn limit(
    name: &'static str,
    setting: &'static Setting,
    show: fn(&Sight<'_>) -> Vec<u8>,
    write: fn(&Sight<'_>, &[u8]) -> Result<Change, WriteError>,
    about: &'static str,
) -> File {
    File {
        write: Write::Parsed(write),
        setting: Some(setting),
        takes: SIZE,
        blank: Blank::Taken,
        round_trip: RoundTrip::Exact,
        ..shown(name, &[], show, "mem_cgroup_read_u64(), mem_cgroup_write()", about, "", "")
    }
}

/// The swap that both limits together leave.
fn swap_max(settings: &Settings) -> Option<u64> {
    let both = bound(MEMSW.of(settings))?;
    Some(both.saturating_sub(bound(LIMIT.of(settings)).unwrap_or(both)))
}

fn limit_bytes(sight: &Sight<'_>, setting: &'static Setting) -> u64 {
    bound(sight.own(setting)).unwrap_or_else(|| no_limit(sight.facts))
}

/// A limit: page_counter_memparse(), which keeps whole pages.
fn parse_limit(facts: &Facts, data: &[u8]) -> Result<Limit, WriteError> {
    parse_stripped(facts, stripped(data))
}

/// A limit in a text from which nothing is to be stripped.
pub(crate) fn parse_stripped(facts: &Facts, text: &[u8]) -> Result<Limit, WriteError> {
    if text == b"-1" {
        return Ok(Limit::Max);
    }
    let bytes = memparse(text).map_err(|_| WriteError::syntax(text, "-1 or a number of bytes"))?;
    let bytes = bytes - bytes % facts.page_size;
    Ok(if bytes >= no_limit(facts) { Limit::Max } else { Limit::At(bytes) })
}

fn write_limit(sight: &Sight<'_>, data: &[u8]) -> Result<Change, WriteError> {
    let limit = parse_limit(sight.facts, data)?;
    below_root(sight, "limit_in_bytes")?;
    if limit > own_limit(sight, &MEMSW) {
        return Err(out_of_range(sight.facts, limit, "0 to memory.memsw.limit_in_bytes"));
    }
    Ok(Change::keep(sight, &LIMIT, Value::Limit(limit)))
}

fn write_memsw(sight: &Sight<'_>, data: &[u8]) -> Result<Change, WriteError> {
    let limit = parse_limit(sight.facts, data)?;
    below_root(sight, "memsw.limit_in_bytes")?;
    if limit < own_limit(sight, &LIMIT) {
        return Err(out_of_range(sight.facts, limit, "memory.limit_in_bytes and above"));
    }
    Ok(Change::keep(sight, &MEMSW, Value::Limit(limit)))
}

fn own_limit(sight: &Sight<'_>, setting: &'static Setting) -> Limit {
    bound(sight.own(setting)).map_or(Limit::Max, Limit::At)
}

fn out_of_range(facts: &Facts, limit: Limit, range: &'static str) -> WriteError {
    let value = match limit {
        Limit::At(bytes) => bytes,
        Limit::Max => no_limit(facts),
    };
    WriteError::OutOfRange { value: value.into(), range }
}

fn reset(sight: &Sight<'_>, counters: &'static [&'static Counter]) -> Result<Change, WriteError> {
    Ok(if sight.is_root() { Change::Nothing } else { Change::Reset(counters) })
}

/// mem_cgroup_usage(): the root is charged nothing, so it shows what memory is used for.
fn usage(sight: &Sight<'_>) -> u64 {
    if sight.is_root() && sight.v2.of(CURRENT).next().is_none() {
        return sight.v2.sum_of(ROOT_STAT, "file").saturating_add(sight.v2.sum_of(ROOT_STAT, "anon"));
    }
    sight.v2.sum(CURRENT)
}

fn memsw_usage(sight: &Sight<'_>) -> u64 {
    usage(sight).saturating_add(sight.v2.sum(SWAP_CURRENT))
}
