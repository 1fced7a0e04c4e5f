//! The interface files of cgroup v1, as tables: one module per controller.
//!
//! Pure: what a file shows is a function of what the group keeps and of v2 texts that the caller has read; what a
//! write means is a value ([`Change`]) that the caller carries out. Start with [`table`](File), then read any controller.
//!
//! Adding a controller is its module and its line in [`ALL`] (CONTRIBUTING.md has the steps). Everything else is derived from the rows:
//! lookup, listing, mode bits, write dispatch, mount options, what the state directory keeps, and `docs/files/`.
//!
//! Modules stand in the order in which they are best read, one paragraph a subject.

#![forbid(unsafe_code)]

mod division;
mod lookup;
mod room;
mod sight;
mod table;

mod blkio;
mod core;
mod cpu;
mod cpuacct;
mod cpuset;
mod devices;
mod files;
mod freezer;
mod hugetlb;
mod memory;
mod misc;
mod net_cls;
mod net_prio;
mod perf_event;
mod pids;
mod rdma;

mod bpf;
mod counter;
mod entries;
mod mask;
mod number;
mod values;

mod again;
mod options;
mod state;
mod write;

pub mod keys;
pub mod notice;

pub mod docs;

pub use self::core::{CLONE_CHILDREN, CORE, NOTIFY_ON_RELEASE, RELEASE_AGENT};
pub use again::{Again, again};
pub use counter::{Counter, Field, Fold};
pub use cpuacct::MEASURED;
pub use division::{Amount, Division, Figure, Periods, Pressed, Used};
pub use freezer::FROZEN;
pub use lookup::{
    FileId, controller, controller_named, controllers, counter_by_key, counters, file, files, full_name,
    inherited, list, lookup, may_enter, named, setting_by_key, settings, sources,
};
pub use memory::{OOM_KILL_DISABLE, UNDER_OOM, is_under_oom, waits_at};
pub use options::{MountOptions, OptionError};
pub use room::{Reclaimer, Room};
pub use sight::{Facts, Sight, Texts, flat_field};
pub use state::{
    StateError, parse_bytes, parse_setting, parse_settings, print_bytes, print_setting, print_settings,
};
pub use table::{
    Assignment, AtRoot, Birth, Blank, Carry, Change, Controller, EntryShare, File, Followed, Ids, Inherit,
    Instead, Needs, Place, Read, RoundTrip, Setting, Share, Source, Unaided, Unit, V2Entries, V2Write, Write,
    Writer,
};
pub use write::{
    AttachRefusal, AttachTarget, Conflict, Request, WriteError, check_length, parse_attach, parse_write,
};

/// Every controller. The position is its [`ControllerId`](pinfold_model::ControllerId); the order is the kernel's
/// (include/linux/cgroup_subsys.h), in which /proc/mounts and /proc/cgroups list them.
pub static ALL: [&Controller; 15] = [
    &cpuset::CPUSET,
    &cpu::CPU,
    &cpuacct::CPUACCT,
    &blkio::BLKIO,
    &memory::MEMORY,
    &devices::DEVICES,
    &freezer::FREEZER,
    &net_cls::NET_CLS,
    &perf_event::PERF_EVENT,
    &net_prio::NET_PRIO,
    &hugetlb::HUGETLB,
    &pids::PIDS,
    &rdma::RDMA,
    &misc::MISC,
    &files::FILES, // no kernel's
];
