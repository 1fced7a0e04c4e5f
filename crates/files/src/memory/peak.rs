//! The most that was used: what v2 keeps, and what reads found where it keeps nothing.

use super::{CURRENT, SWAP_CURRENT, counter, memsw_usage, usage};
use crate::counter::{Counter, Field, Fold, show_sampled};
use crate::sight::Sight;
use crate::table::{Followed, Instead, Source};
use crate::values::line;

pub(super) static MAX_USAGE: Counter =
    peak("memory.max_usage_in_bytes", Source::Beside("memory.current", "memory.max_usage_in_bytes"));
pub(super) static MEMSW_MAX_USAGE: Counter = peak("memory.memsw.max_usage_in_bytes", CURRENT);
pub(super) const PEAK: Source = Source::Carriers("memory.peak");

const fn peak(key: &'static str, now: Source) -> Counter {
    counter(key, PEAK, Field::Whole, Fold::Peak { now, since: Some(Source::Since(key)) })
}

pub(super) static SWAP_PEAK: Counter = counter(
    "memory.swap.peak",
    Source::Carriers("memory.swap.peak"),
    Field::Whole,
    Fold::Peak { now: SWAP_CURRENT, since: None },
);

/// What reads found, where no v2 file keeps it.
pub(super) static MAX_USAGE_FOUND: Counter =
    Counter::sampled("memory.max_usage_in_bytes.found", Source::Nowhere);
pub(super) static MEMSW_MAX_USAGE_FOUND: Counter =
    Counter::sampled("memory.memsw.max_usage_in_bytes.found", Source::Nowhere);
pub(super) static KMEM_MAX_USAGE: Counter =
    Counter::sampled("memory.kmem.max_usage_in_bytes", Source::Nowhere);
pub(super) static TCP_MAX_USAGE: Counter =
    Counter::sampled("memory.kmem.tcp.max_usage_in_bytes", Source::Nowhere);

pub(super) const SAMPLED: &str = "v2 keeps no such peak: it is the most that any read of this file has found since the last write. What was used \
                       between two reads is not in it. A daemon that is killed takes along what it found in its last second.";

pub(super) const PEAK_FOUND: Instead = Instead {
    of: PEAK.file(),
    how: "it is the most that any read of this file has found since the last write",
};

/// A directory's memory.peak needs nobody to look: then nothing is kept of a read.
pub(super) fn show_max_usage(sight: &Sight<'_>) -> Followed {
    let most = sight.counter(&MAX_USAGE).max(usage(sight));
    if sight.facts.v2_files.contains("memory.peak") && !sight.is_root() {
        return (line(most), Vec::new());
    }
    show_sampled(sight, &MAX_USAGE_FOUND, most)
}

pub(super) fn show_memsw_max_usage(sight: &Sight<'_>) -> Followed {
    let peak = sight.counter(&MEMSW_MAX_USAGE).max(sight.counter(&SWAP_PEAK));
    show_sampled(sight, &MEMSW_MAX_USAGE_FOUND, peak.max(memsw_usage(sight)))
}
