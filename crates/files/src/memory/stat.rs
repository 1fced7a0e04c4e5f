//! What memory is used for: `memory.stat` and `memory.numa_stat`.

use super::{LIMIT, MEMSW, NUMA, OWN_NUMA, OWN_STAT, OWN_SWAP, STAT, SWAP_CURRENT, counter};
use crate::counter::{Counter, Field, Fold};
use crate::sight::Sight;
use crate::table::Source;
use crate::values::{bound, no_limit};

/// A line of memory.stat that only grows: in the group itself, and with those below.
pub(super) struct Events {
    pub(super) own: Counter,
    pub(super) total: Counter,
}

const fn events(own: &'static str, total: &'static str, field: &'static str) -> Events {
    Events {
        own: counter(own, OWN_STAT, Field::After(field), Fold::Sum),
        total: counter(total, STAT, Field::After(field), Fold::Sum),
    }
}

pub(super) static REFAULT_ANON: Events = events(
    "memory.stat.workingset_refault_anon",
    "memory.stat.total_workingset_refault_anon",
    "workingset_refault_anon",
);
pub(super) static REFAULT_FILE: Events = events(
    "memory.stat.workingset_refault_file",
    "memory.stat.total_workingset_refault_file",
    "workingset_refault_file",
);
pub(super) static PGFAULT: Events = events("memory.stat.pgfault", "memory.stat.total_pgfault", "pgfault");
pub(super) static PGMAJFAULT: Events =
    events("memory.stat.pgmajfault", "memory.stat.total_pgmajfault", "pgmajfault");

/// Where a line of `memory.stat` comes from.
enum Stat {
    /// A field of v2's memory.stat.
    Now(&'static str),
    /// The same, in kernels whose v1 has it: since this release, if they can swap.
    OfSwapSince((u32, u32), &'static str),
    /// A figure that only grows.
    Since(&'static Events),
    /// memory.swap.current.
    Swap,
    /// Nobody counts it on v2: 0.
    Uncounted,
}

/// The lines of `memory.stat`: memcg1_stats, memcg1_events and the lists of memcg_stat_show(), in its order.
static STATS: [(&str, Stat); 20] = [
    ("cache", Stat::Now("file")),
    ("rss", Stat::Now("anon")),
    ("rss_huge", Stat::Now("anon_thp")),
    ("shmem", Stat::Now("shmem")),
    ("mapped_file", Stat::Now("file_mapped")),
    ("dirty", Stat::Now("file_dirty")),
    ("writeback", Stat::Now("file_writeback")),
    ("workingset_refault_anon", Stat::Since(&REFAULT_ANON)),
    ("workingset_refault_file", Stat::Since(&REFAULT_FILE)),
    ("swap", Stat::Swap),
    ("swapcached", Stat::OfSwapSince((6, 7), "swapcached")),
    ("pgpgin", Stat::Uncounted),
    ("pgpgout", Stat::Uncounted),
    ("pgfault", Stat::Since(&PGFAULT)),
    ("pgmajfault", Stat::Since(&PGMAJFAULT)),
    ("inactive_anon", Stat::Now("inactive_anon")),
    ("active_anon", Stat::Now("active_anon")),
    ("inactive_file", Stat::Now("inactive_file")),
    ("active_file", Stat::Now("active_file")),
    ("unevictable", Stat::Now("unevictable")),
];

/// The lines of `memory.numa_stat`: the lists of v2's memory.numa_stat that each adds up.
const NUMA_STATS: [(&str, &[&str]); 4] = [
    ("total", &["inactive_anon", "active_anon", "inactive_file", "active_file", "unevictable"]),
    ("file", &["inactive_file", "active_file"]),
    ("anon", &["inactive_anon", "active_anon"]),
    ("unevictable", &["unevictable"]),
];

pub(super) fn show_stat(sight: &Sight<'_>) -> Vec<u8> {
    let mut text = String::new();
    for (name, stat) in shown_stats(sight) {
        let value = match stat {
            Stat::Now(field) | Stat::OfSwapSince(_, field) => sight.v2.sum_of(OWN_STAT, field),
            Stat::Since(events) => sight.counter(&events.own),
            Stat::Swap => sight.v2.sum(OWN_SWAP),
            Stat::Uncounted => 0,
        };
        text += &format!("{name} {value}\n");
    }
    for (name, setting) in [("hierarchical_memory_limit", &LIMIT), ("hierarchical_memsw_limit", &MEMSW)] {
        let all = sight.above(setting).chain([sight.own(setting)]);
        let least = all.filter_map(bound).min().unwrap_or_else(|| no_limit(sight.facts));
        text += &format!("{name} {least}\n");
    }
    for (name, stat) in shown_stats(sight) {
        let value = match stat {
            Stat::Now(field) | Stat::OfSwapSince(_, field) => sight.v2.sum_of(STAT, field),
            Stat::Since(events) => sight.counter(&events.total),
            Stat::Swap => sight.v2.sum(SWAP_CURRENT),
            Stat::Uncounted => 0,
        };
        text += &format!("total_{name} {value}\n");
    }
    text.into_bytes()
}

/// The lines that v1 of the kernel below would have.
fn shown_stats(sight: &Sight<'_>) -> impl Iterator<Item = &'static (&'static str, Stat)> {
    let (linux, can_swap) = (sight.facts.linux, sight.facts.v2_files.contains("memory.swap.max"));
    STATS.iter().filter(move |(_, stat)| match stat {
        Stat::OfSwapSince(since, _) => linux >= *since && can_swap,
        _ => true,
    })
}

pub(super) fn show_numa_stat(sight: &Sight<'_>) -> Vec<u8> {
    let mut text = String::new();
    for (prefix, source) in [("", OWN_NUMA), ("hierarchical_", NUMA)] {
        for (name, lists) in NUMA_STATS {
            let on = |node: &usize| lists.iter().map(|list| on_node(sight, source, list, *node)).sum::<u64>();
            let pages: Vec<u64> = sight.facts.nodes.iter().map(on).collect();
            text += &format!("{prefix}{name}={}", pages.iter().sum::<u64>());
            for (node, pages) in sight.facts.nodes.iter().zip(pages) {
                text += &format!(" N{node}={pages}");
            }
            text.push('\n');
        }
    }
    text.into_bytes()
}

/// The pages of a list on a node: `LIST N0=BYTES N1=BYTES`.
fn on_node(sight: &Sight<'_>, source: Source, list: &str, node: usize) -> u64 {
    let field = |text: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(list)?.strip_prefix(' '))?;
        let node = format!("N{node}=");
        line.split(' ').find_map(|word| word.strip_prefix(node.as_str())?.parse().ok())
    };
    let bytes = sight.v2.of(source).filter_map(field).fold(0, u64::saturating_add);
    bytes / sight.facts.page_size
}
