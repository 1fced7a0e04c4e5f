//! cpuacct: how much CPU time a group and those below it have used.
//!
//! v2 counts in microseconds, and for no CPU alone. What `cpuacct.usage` shows and resets, and what `cpuacct.stat` shows,
//! are counters of their own: a reset of the former leaves the latter alone, as in the kernel.

use pinfold_model::Key;

use crate::counter::{Counter, Field, Fold};
use crate::sight::Sight;
use crate::table::{Change, Controller, File, Needs, RoundTrip, Source, Unaided, Unit, Write};
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
static RESETTABLE: [&Counter; 3] = [&USAGE, &USAGE_USER, &USAGE_SYS];

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
        shown(
            "usage_percpu",
            Unit::Nanoseconds,
            |sight| percpu(sight, &USAGE),
            "cpuacct_percpu_seq_show()",
            "CPU time used on each possible CPU, in one line; a space follows each number.",
            SPREAD_V2,
            SPREAD,
        ),
        shown(
            "usage_percpu_user",
            Unit::Nanoseconds,
            |sight| percpu(sight, &USAGE_USER),
            "cpuacct_percpu_user_seq_show()",
            "The same, in user mode.",
            SPREAD_V2,
            SPREAD,
        ),
        shown(
            "usage_percpu_sys",
            Unit::Nanoseconds,
            |sight| percpu(sight, &USAGE_SYS),
            "cpuacct_percpu_sys_seq_show()",
            "The same, in the kernel.",
            SPREAD_V2,
            SPREAD,
        ),
        shown(
            "usage_all",
            Unit::Nanoseconds,
            show_usage_all,
            "cpuacct_all_seq_show()",
            "CPU time used on each possible CPU, in user mode and in the kernel: a line of titles, then one line a \
             CPU.",
            SPREAD_V2,
            SPREAD,
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
    counters: &[&USAGE, &USAGE_USER, &USAGE_SYS, &STAT_USER, &STAT_SYSTEM],
    can_attach: Controller::anybody,
};

const MICROSECONDS: &str = "Whole microseconds.";
const SPLIT: &str = "Whole microseconds. v2 scales the two parts so that they add up to the usage; v1 counts the ticks \
                     that met each.";
const SPREAD_V2: &str = "No v2 file counts by CPU: the total, spread evenly over the CPUs that are online, the remainder \
                         on the first of them.";
const SPREAD: &str = "The sum is right, what each CPU has is not known.";

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

/// A total spread evenly over the CPUs that are online, the remainder on the first; one figure for each possible CPU.
fn spread(sight: &Sight<'_>, counter: &Counter) -> Vec<u64> {
    let total = nanoseconds(sight, counter);
    let possible = sight.facts.possible_cpus;
    let online: Vec<usize> = sight.facts.online_cpus.iter().copied().filter(|cpu| *cpu < possible).collect();
    let count = u64::try_from(online.len().max(1)).expect("no machine has 2^64 CPUs");
    let mut figures = vec![0; possible];
    for cpu in &online {
        figures[*cpu] = total / count;
    }
    if let Some(first) = figures.get_mut(online.first().copied().unwrap_or(0)) {
        *first = total - total / count * (count - 1);
    }
    figures
}

fn percpu(sight: &Sight<'_>, counter: &Counter) -> Vec<u8> {
    let mut text: String = spread(sight, counter).iter().map(|figure| format!("{figure} ")).collect();
    text.push('\n');
    text.into_bytes()
}

fn show_usage_all(sight: &Sight<'_>) -> Vec<u8> {
    let user = spread(sight, &USAGE_USER);
    let system = spread(sight, &USAGE_SYS);
    let mut text = "cpu user system\n".to_owned();
    for (cpu, (user, system)) in user.iter().zip(system).enumerate() {
        text += &format!("{cpu} {user} {system}\n");
    }
    text.into_bytes()
}

fn show_stat(sight: &Sight<'_>) -> Vec<u8> {
    let [user, system] = [&STAT_USER, &STAT_SYSTEM].map(|counter| ticks(sight, counter));
    format!("user {user}\nsystem {system}\n").into_bytes()
}

fn ticks(sight: &Sight<'_>, counter: &Counter) -> u64 {
    let ticks = u128::from(sight.counter(counter)) * u128::from(sight.facts.user_hz) / 1_000_000;
    ticks.try_into().unwrap_or(u64::MAX)
}
