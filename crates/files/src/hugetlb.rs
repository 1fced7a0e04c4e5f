//! hugetlb: how much memory in huge pages of each size a group and those below it may use.
//!
//! Which sizes there are is a fact of the machine. The rows are declared once, for every size of the architectures that
//! pinfold runs on; those of a size exist where the kernel below has its v2 files.

use pinfold_model::{Limit, Settings, Value};

use crate::counter::{Counter, Field, Fold, show_sampled};
use crate::division::{Amount, Division, Figure, Pressed, Used};
use crate::number::memparse;
use crate::sight::{Sight, flat_field, whole};
use crate::table::{
    AtRoot, Blank, Carry, Change, Controller, File, Followed, Inherit, Needs, Place, Read, RoundTrip,
    Setting, Share, Source, Unaided, Unit, V2Write, Write,
};
use crate::values::{LEFT_BEHIND, bound, line, no_limit, v2_limit};
use crate::write::{WriteError, below_root, stripped};

/// The v2 files of a size that figures are read from.
struct Sources {
    current: Source,
    rsvd_current: Source,
    numa: Source,
    own_numa: Source,
}

/// Declares the settings and counters of each size, and the controller with its rows.
macro_rules! hugetlb {
    ($($module:ident: $size:literal of $bytes:expr;)*) => {
        $(
            mod $module {
                use super::*;

                pub(super) const BYTES: u64 = $bytes;
                pub(super) static FROM: Sources = Sources {
                    current: Source::Carriers(concat!("hugetlb.", $size, ".current")),
                    rsvd_current: Source::Carriers(concat!("hugetlb.", $size, ".rsvd.current")),
                    numa: Source::Carriers(concat!("hugetlb.", $size, ".numa_stat")),
                    own_numa: Source::Own(concat!("hugetlb.", $size, ".numa_stat")),
                };
                pub(super) static LIMIT: Setting = limit_setting(
                    concat!("hugetlb.", $size, ".limit_in_bytes"),
                    &[V2Write {
                        file: concat!("hugetlb.", $size, ".max"),
                        text: |settings| Some(v2_limit(bound(LIMIT.of(settings)))),
                        room: None,
                        share: Share::Divided(&DIVISION),
                        unlike: "",
                    }],
                );
                pub(super) static RSVD_LIMIT: Setting = limit_setting(
                    concat!("hugetlb.", $size, ".rsvd.limit_in_bytes"),
                    &[V2Write {
                        file: concat!("hugetlb.", $size, ".rsvd.max"),
                        text: |settings| Some(v2_limit(bound(RSVD_LIMIT.of(settings)))),
                        room: None,
                        share: Share::Divided(&RSVD_DIVISION),
                        unlike: "",
                    }],
                );
                static DIVISION: Division = Division {
                    amounts: |settings| pages(&LIMIT, settings),
                    used: used(concat!("hugetlb.", $size, ".current")),
                    ..PAGES
                };
                static RSVD_DIVISION: Division = Division {
                    amounts: |settings| pages(&RSVD_LIMIT, settings),
                    used: used(concat!("hugetlb.", $size, ".rsvd.current")),
                    ..PAGES
                };
                /// Whole pages are divided: a part of a page is of no use to anybody.
                const PAGES: Division = Division {
                    amounts: |_| Vec::new(),
                    text: |_, parts| v2_limit(Amount::one(parts).map(|pages| pages.saturating_mul(BYTES))),
                    used: used(""),
                    pressed: Some(Pressed::Met(Figure {
                        file: concat!("hugetlb.", $size, ".events"),
                        value: |text, _| flat_field(text, "max"),
                    })),
                    guard: None,
                    least: 0,
                    periods: None,
                };

                fn pages(limit: &Setting, settings: &Settings) -> Vec<Amount> {
                    Amount::only(bound(limit.of(settings)).map(|bytes| bytes / BYTES))
                }

                const fn used(file: &'static str) -> Used {
                    Used::Charged(Figure { file, value: |text, _| whole(text).map(|bytes| bytes / BYTES) })
                }

                pub(super) static FAILCNT: Counter = failures(
                    concat!("hugetlb.", $size, ".failcnt"),
                    concat!("hugetlb.", $size, ".events"),
                );
                pub(super) static RSVD_FAILCNT: Counter = failures(
                    concat!("hugetlb.", $size, ".rsvd.failcnt"),
                    concat!("hugetlb.", $size, ".events"),
                );
                pub(super) static MAX_USAGE: Counter =
                    Counter::sampled(concat!("hugetlb.", $size, ".max_usage_in_bytes"), FROM.current);
                pub(super) static RSVD_MAX_USAGE: Counter =
                    Counter::sampled(concat!("hugetlb.", $size, ".rsvd.max_usage_in_bytes"), FROM.rsvd_current);
            }
        )*

        /// The hugetlb controller.
        pub(crate) static HUGETLB: Controller = Controller {
            name: "hugetlb",
            about: "How much memory in huge pages of each size a group and those below it may use.",
            source: "Documentation/admin-guide/cgroup-v1/hugetlb.rst; mm/hugetlb_cgroup.c",
            needs: Needs::Controller("hugetlb"),
            unaided: Unaided::Refused("nobody but the kernel can charge huge pages to a group or refuse them"),
            files: &[$(
                limit(
                    concat!($size, ".limit_in_bytes"),
                    concat!("hugetlb.", $size, ".max"),
                    &$module::LIMIT,
                    |sight| show_limit(sight, &$module::LIMIT, $module::BYTES),
                    |sight, data| write_limit(sight, &$module::LIMIT, $module::BYTES, data),
                    "The most that the group and those below it may use; a process that touches more is killed by SIGBUS. -1 \
                     is no limit. It is kept as whole huge pages, rounded down.",
                    concat!("hugetlb.", $size, ".max of the group's directory."),
                ),
                File {
                    differs: LEFT_BEHIND,
                    ..shown(
                        concat!($size, ".usage_in_bytes"),
                        concat!("hugetlb.", $size, ".max"),
                        &[$module::FROM.current],
                        |sight| line(sight.v2.sum($module::FROM.current)),
                        "hugetlb_cgroup_read_u64()",
                        "What the group and those below it use.",
                        concat!("hugetlb.", $size, ".current."),
                    )
                },
                peak(
                    concat!($size, ".max_usage_in_bytes"),
                    concat!("hugetlb.", $size, ".max"),
                    &[$module::FROM.current],
                    |sight| show_sampled(sight, &$module::MAX_USAGE, sight.v2.sum($module::FROM.current)),
                    |sight, _| reset(sight, const { &[&$module::MAX_USAGE] }),
                    "The most that usage_in_bytes was, since the last write here.",
                    concat!("hugetlb.", $size, ".current."),
                ),
                failcnt(
                    concat!($size, ".failcnt"),
                    concat!("hugetlb.", $size, ".max"),
                    &[$module::FAILCNT.source],
                    |sight| line(sight.counter(&$module::FAILCNT)),
                    |sight, _| reset(sight, const { &[&$module::FAILCNT] }),
                    concat!("`max` of hugetlb.", $size, ".events."),
                ),
                limit(
                    concat!($size, ".rsvd.limit_in_bytes"),
                    concat!("hugetlb.", $size, ".rsvd.max"),
                    &$module::RSVD_LIMIT,
                    |sight| show_limit(sight, &$module::RSVD_LIMIT, $module::BYTES),
                    |sight, data| write_limit(sight, &$module::RSVD_LIMIT, $module::BYTES, data),
                    "The most that the group and those below it may reserve: mmap(2) of more is ENOMEM. -1 is no limit. It is \
                     kept as whole huge pages, rounded down.",
                    concat!("hugetlb.", $size, ".rsvd.max of the group's directory."),
                ),
                File {
                    differs: LEFT_BEHIND,
                    ..shown(
                        concat!($size, ".rsvd.usage_in_bytes"),
                        concat!("hugetlb.", $size, ".rsvd.max"),
                        &[$module::FROM.rsvd_current],
                        |sight| line(sight.v2.sum($module::FROM.rsvd_current)),
                        "hugetlb_cgroup_read_u64()",
                        "What the group and those below it have reserved.",
                        concat!("hugetlb.", $size, ".rsvd.current."),
                    )
                },
                peak(
                    concat!($size, ".rsvd.max_usage_in_bytes"),
                    concat!("hugetlb.", $size, ".rsvd.max"),
                    &[$module::FROM.rsvd_current],
                    |sight| show_sampled(sight, &$module::RSVD_MAX_USAGE, sight.v2.sum($module::FROM.rsvd_current)),
                    |sight, _| reset(sight, const { &[&$module::RSVD_MAX_USAGE] }),
                    "The most that rsvd.usage_in_bytes was, since the last write here.",
                    concat!("hugetlb.", $size, ".rsvd.current."),
                ),
                failcnt(
                    concat!($size, ".rsvd.failcnt"),
                    concat!("hugetlb.", $size, ".rsvd.max"),
                    &[$module::RSVD_FAILCNT.source],
                    |sight| line(sight.counter(&$module::RSVD_FAILCNT)),
                    |sight, _| reset(sight, const { &[&$module::RSVD_FAILCNT] }),
                    concat!("`max` of hugetlb.", $size, ".events, which counts both kinds."),
                ),
                shown(
                    concat!($size, ".numa_stat"),
                    concat!("hugetlb.", $size, ".numa_stat"),
                    &[$module::FROM.own_numa, $module::FROM.numa],
                    |sight| show_numa_stat(sight, &$module::FROM),
                    "hugetlb_cgroup_read_numa_stat()",
                    "On which nodes the bytes are: the group's own, and after `hierarchical_` with those below it.",
                    concat!("hugetlb.", $size, ".numa_stat of the group's directory, and of the leaves of its own cells while groups below have processes."),
                ),
            )*],
            counters: &[$(
                &$module::FAILCNT,
                &$module::RSVD_FAILCNT,
                &$module::MAX_USAGE,
                &$module::RSVD_MAX_USAGE,
            )*],
            can_attach: Controller::anybody,
        };
    };
}

hugetlb! {
    kb64: "64KB" of 64 << 10;
    mb2: "2MB" of 2 << 20;
    mb32: "32MB" of 32 << 20;
    mb512: "512MB" of 512 << 20;
    gb1: "1GB" of 1 << 30;
    gb16: "16GB" of 16 << 30;
}

const SIZE: &str = "-1, or a number of bytes: decimal, octal after `0`, hexadecimal after `0x`, without a sign; then k, m, \
                    g, t, p or e, or none; white space around it is dropped. Nothing but white space is 0. What does not \
                    fit in 64 bits loses its upper ones.";

const fn limit_setting(key: &'static str, writes: &'static [V2Write]) -> Setting {
    Setting {
        key: pinfold_model::Key(key),
        initial: Value::Limit(Limit::Max),
        inherit: Inherit::Initial,
        carry: Carry::Limit(writes),
    }
}

const fn failures(key: &'static str, file: &'static str) -> Counter {
    Counter {
        key: pinfold_model::Key(key),
        source: Source::Carriers(file),
        field: Field::After("max"),
        fold: Fold::Sum,
    }
}

/// A file that is only read; `given` is the v2 file without which it is not there.
const fn shown(
    name: &'static str,
    given: &'static str,
    from: &'static [Source],
    show: fn(&Sight<'_>) -> Vec<u8>,
    function: &'static str,
    about: &'static str,
    v2: &'static str,
) -> File {
    File {
        place: Place::WithV2(given),
        unit: Unit::Bytes,
        ..File::shown(name, from, show, function, about, v2)
    }
}

const fn limit(
    name: &'static str,
    given: &'static str,
    setting: &'static Setting,
    show: fn(&Sight<'_>) -> Vec<u8>,
    write: fn(&Sight<'_>, &[u8]) -> Result<Change, WriteError>,
    about: &'static str,
    v2: &'static str,
) -> File {
    File {
        write: Write::Parsed(write),
        setting: Some(setting),
        takes: SIZE,
        blank: Blank::Taken,
        errors: "EINVAL: of another form; the root. EBUSY: more is used.",
        at_root: AtRoot::Refused,
        round_trip: RoundTrip::Exact,
        ..shown(name, given, &[], show, "hugetlb_cgroup_read_u64(), hugetlb_cgroup_write_legacy()", about, v2)
    }
}

/// A peak that v2 does not keep.
const fn peak(
    name: &'static str,
    given: &'static str,
    from: &'static [Source],
    show: fn(&Sight<'_>) -> Followed,
    write: fn(&Sight<'_>, &[u8]) -> Result<Change, WriteError>,
    about: &'static str,
    v2: &'static str,
) -> File {
    File {
        read: Read::Followed { from, show },
        differs: "v2 keeps no such peak: it is the most that any read of this file, or the last write, has found. What was used between \
                  two reads is not in it. A daemon that is killed takes along what it found in its last second.",
        ..failcnt_like(name, given, from, |_| Vec::new(), write, about, v2)
    }
}

const fn failcnt(
    name: &'static str,
    given: &'static str,
    from: &'static [Source],
    show: fn(&Sight<'_>) -> Vec<u8>,
    write: fn(&Sight<'_>, &[u8]) -> Result<Change, WriteError>,
    v2: &'static str,
) -> File {
    File {
        unit: Unit::Events,
        differs: "v2 counts at the group whose process was refused, and above it, whichever group's limit was met.",
        ..failcnt_like(
            name,
            given,
            from,
            show,
            write,
            "How often the limit was met, since the last write here.",
            v2,
        )
    }
}

/// A figure that any write starts again.
const fn failcnt_like(
    name: &'static str,
    given: &'static str,
    from: &'static [Source],
    show: fn(&Sight<'_>) -> Vec<u8>,
    write: fn(&Sight<'_>, &[u8]) -> Result<Change, WriteError>,
    about: &'static str,
    v2: &'static str,
) -> File {
    File {
        write: Write::Parsed(write),
        takes: "Anything: it starts again. At the root it has no effect.",
        errors: "None.",
        round_trip: RoundTrip::TakesAnything,
        ..shown(name, given, from, show, "hugetlb_cgroup_read_u64(), hugetlb_cgroup_reset()", about, v2)
    }
}

/// The root's was never set: it is not even whole huge pages.
fn show_limit(sight: &Sight<'_>, setting: &'static Setting, page: u64) -> Vec<u8> {
    let most = no_limit(sight.facts);
    match bound(sight.own(setting)) {
        Some(bytes) => line(bytes),
        None if sight.is_root() => line(most),
        None => line(most - most % page),
    }
}

/// hugetlb_cgroup_write(): page_counter_memparse(), then whole huge pages.
fn write_limit(
    sight: &Sight<'_>,
    setting: &'static Setting,
    page: u64,
    data: &[u8],
) -> Result<Change, WriteError> {
    below_root(sight, "limit_in_bytes")?;
    let text = stripped(data);
    let limit = if text == b"-1" {
        Limit::Max
    } else {
        let bytes = memparse(text).map_err(|_| WriteError::syntax(text, "-1 or a number of bytes"))?;
        let whole = bytes - bytes % page;
        let most = no_limit(sight.facts);
        if whole >= most - most % page { Limit::Max } else { Limit::At(whole) }
    };
    Ok(Change::keep(sight, setting, Value::Limit(limit)))
}

fn reset(sight: &Sight<'_>, counters: &'static [&'static Counter]) -> Result<Change, WriteError> {
    Ok(if sight.is_root() { Change::Nothing } else { Change::Reset(counters) })
}

fn show_numa_stat(sight: &Sight<'_>, from: &Sources) -> Vec<u8> {
    let mut text = String::new();
    for (prefix, source) in [("", from.own_numa), ("hierarchical_", from.numa)] {
        let field = |field: &str| {
            let figures = sight.v2.of(source).flat_map(str::split_ascii_whitespace);
            let figures =
                figures.filter_map(|word| word.strip_prefix(field)?.strip_prefix('=')?.parse().ok());
            figures.fold(0_u64, u64::saturating_add)
        };
        text += &format!("{prefix}total={}", field("total"));
        for node in &sight.facts.nodes {
            text += &format!(" N{node}={}", field(&format!("N{node}")));
        }
        text.push('\n');
    }
    text.into_bytes()
}
