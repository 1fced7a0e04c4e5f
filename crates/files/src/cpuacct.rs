//! cpuacct: how much CPU time a group and those below it have used.
//!
//! v2 counts in microseconds, and for no CPU alone. What `cpuacct.usage` shows and resets, and what `cpuacct.stat` shows,
//! are counters of their own: a reset of the former leaves the latter alone, as in the kernel.

mod by_cpu;

use pinfold_model::Key;

use self::by_cpu::{ByCpu, by_cpu_now};
use crate::counter::{Counter, Field, Fold};
use crate::sight::Sight;
use crate::table::{
    Change, Controller, File, Followed, Needs, Read, RoundTrip, Source, Unaided, Unit, Write,
};
use crate::values::line;
use crate::write::{WriteError, parse_u64};

const CPU_STAT: Source = Source::Carriers("cpu.stat");

const fn counter(key: &'static str, field: &'static str) -> Counter {
    Counter { key: Key(key), source: CPU_STAT, field: Field::After(field), fold: Fold::Sum }
}

static USAGE: Counter = counter("cpuacct.usage", "usage_usec");
static USAGE_USER: Counter = counter("cpuacct.usage_user", "user_usec");
static USAGE_SYS: Counter = counter("cpuacct.usage_sys", "system_usec");

/// What a write to `cpuacct.usage` resets.
static RESETTABLE: [&Counter; 6] =
    [&USAGE, &USAGE_USER, &USAGE_SYS, &by_cpu::MEASURED, &by_cpu::SEEN, &by_cpu::SHOWN];

static STAT_USER: Counter = counter("cpuacct.stat.user", "user_usec");
static STAT_SYSTEM: Counter = counter("cpuacct.stat.system", "system_usec");

/// The cpuacct controller.
pub(crate) static CPUACCT: Controller = Controller {
    name: "cpuacct",
    about: "Counts the CPU time that the tasks of a group and of those below it use.",
    source: "Documentation/admin-guide/cgroup-v1/cpuacct.rst; kernel/sched/cpuacct.c",
    needs: Needs::Tree,
    unaided: Unaided::Served(
        "the times of /proc/PID/stat, of ended children those that their parents have waited for, in ticks of 10 ms",
    ),
    files: &[
        File {
            write: Write::Parsed(write_usage),
            takes: "0: the counts of usage, usage_user, usage_sys and the per-CPU files start again from zero; those of \
                    stat go on. At the root it has no effect. No white space but one newline.",
            errors: "EINVAL: not a number, or any but 0. ERANGE: more than 64 bits.",
            round_trip: RoundTrip::Refused,
            ..shown(
                "usage",
                Unit::Nanoseconds,
                |sight| line(nanoseconds(sight, &USAGE)),
                "cpuusage_read(), cpuusage_write()",
                "CPU time used.",
                "usage_usec of cpu.stat, times 1000.",
                MICROSECONDS,
            )
        },
        shown(
            "usage_user",
            Unit::Nanoseconds,
            |sight| line(nanoseconds(sight, &USAGE_USER)),
            "cpuusage_user_read()",
            "CPU time used in user mode.",
            "user_usec of cpu.stat, times 1000.",
            SPLIT,
        ),
        shown(
            "usage_sys",
            Unit::Nanoseconds,
            |sight| line(nanoseconds(sight, &USAGE_SYS)),
            "cpuusage_sys_read()",
            "CPU time used in the kernel.",
            "system_usec of cpu.stat, times 1000.",
            SPLIT,
        ),
        followed(
            "usage_percpu",
            |sight| percpu(sight, |figures| figures.usage),
            "cpuacct_percpu_seq_show()",
            "CPU time used on each possible CPU, in one line; a space follows each number.",
        ),
        followed(
            "usage_percpu_user",
            |sight| percpu(sight, |figures| figures.user),
            "cpuacct_percpu_user_seq_show()",
            "The same, in user mode.",
        ),
        followed(
            "usage_percpu_sys",
            |sight| percpu(sight, |figures| figures.sys),
            "cpuacct_percpu_sys_seq_show()",
            "The same, in the kernel.",
        ),
        followed(
            "usage_all",
            show_usage_all,
            "cpuacct_all_seq_show()",
            "CPU time used on each possible CPU, in user mode and in the kernel: a line of titles, then one line a \
             CPU.",
        ),
        shown(
            "stat",
            Unit::Ticks,
            show_stat,
            "cpuacct_stats_show()",
            "CPU time used in user mode (`user`) and in the kernel (`system`), never reset.",
            "user_usec and system_usec of cpu.stat, in ticks, rounded down.",
            "After a write of 0 to cpuacct.usage the kernel's figures stand still until usage has caught up with \
             them; here they go on.",
        ),
    ],
    counters: &[
        &USAGE,
        &USAGE_USER,
        &USAGE_SYS,
        &STAT_USER,
        &STAT_SYSTEM,
        &by_cpu::MEASURED,
        &by_cpu::SEEN,
        &by_cpu::SHOWN,
    ],
    can_attach: Controller::anybody,
};

const MICROSECONDS: &str = "Whole microseconds.";
const SPLIT: &str = "Whole microseconds. v2 scales the two parts so that they add up to the usage; v1 counts the ticks \
                     that met each.";
const BY_CPU_V2: &str = "No v2 file counts by CPU. From the first read of such a file on, a BPF program at sched_switch measures on \
                         which CPUs the tasks of the realm's groups run (Linux 6.1 with CONFIG_BPF_EVENTS; CAP_BPF and CAP_PERFMON). \
                         It tells how the total, which is that of cpu.stat, is divided. What was not measured is spread evenly over \
                         the CPUs that are online, the remainder on the first of them. `status` says which it is.";
const BY_CPU: &str = "The sum is exact. Of each CPU: what a task has run since the last tick, or where a CPU has none since it was last switched \
                      away from, is spread until it is measured; so is what ran before the first read, in a directory that others made \
                      below a group's, and outside of all groups. User mode and kernel have the same proportions. No figure goes back \
                      while the total does not, but after a kill -9 of the daemon: then by what it had grown within a second, at most.";

/// What is kept of what was measured, which is of use as long as the same daemon measures.
pub static MEASURED: [Key; 2] = [by_cpu::MEASURED.key, by_cpu::SEEN.key];

/// A file of CPU time by CPU.
const fn followed(
    name: &'static str,
    show: fn(&Sight<'_>) -> Followed,
    function: &'static str,
    about: &'static str,
) -> File {
    const FROM: &[Source] = &[CPU_STAT, Source::Measured];
    let read = Read::Followed { from: FROM, show };
    File { read, ..shown(name, Unit::Nanoseconds, |_| Vec::new(), function, about, BY_CPU_V2, BY_CPU) }
}

/// A file that is only read, made from cpu.stat.
const fn shown(
    name: &'static str,
    unit: Unit,
    show: fn(&Sight<'_>) -> Vec<u8>,
    function: &'static str,
    about: &'static str,
    v2: &'static str,
    differs: &'static str,
) -> File {
    File { unit, differs, ..File::shown(name, &[CPU_STAT], show, function, about, v2) }
}

fn nanoseconds(sight: &Sight<'_>, counter: &Counter) -> u64 {
    sight.counter(counter).saturating_mul(1000)
}

fn write_usage(sight: &Sight<'_>, data: &[u8]) -> Result<Change, WriteError> {
    match parse_u64(data)? {
        0 if sight.is_root() => Ok(Change::Nothing),
        0 => Ok(Change::Reset(&RESETTABLE)),
        _ => Err(WriteError::syntax(data, "0, which resets")),
    }
}

fn percpu(sight: &Sight<'_>, of: fn(ByCpu) -> Vec<u64>) -> Followed {
    let (figures, kept) = by_cpu_now(sight);
    let mut text: String = of(figures).iter().map(|figure| format!("{figure} ")).collect();
    text.push('\n');
    (text.into_bytes(), kept)
}

fn show_usage_all(sight: &Sight<'_>) -> Followed {
    let (ByCpu { user, sys, .. }, kept) = by_cpu_now(sight);
    let mut text = "cpu user system\n".to_owned();
    for (cpu, (user, system)) in user.iter().zip(sys).enumerate() {
        text += &format!("{cpu} {user} {system}\n");
    }
    (text.into_bytes(), kept)
}

fn show_stat(sight: &Sight<'_>) -> Vec<u8> {
    let [user, system] = [&STAT_USER, &STAT_SYSTEM].map(|counter| ticks(sight, counter));
    format!("user {user}\nsystem {system}\n").into_bytes()
}

fn ticks(sight: &Sight<'_>, counter: &Counter) -> u64 {
    let ticks = u128::from(sight.counter(counter)) * u128::from(sight.facts.user_hz) / 1_000_000;
    ticks.try_into().unwrap_or(u64::MAX)
}
