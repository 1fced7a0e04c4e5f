//! perf_event: which group a task is in, for who measures groups. It has no files.

use crate::table::{Controller, Needs, Unaided};

/// The perf_event controller.
pub(crate) static PERF_EVENT: Controller = Controller {
    name: "perf_event",
    about: "Groups for perf to measure. It has no files; v2 always has it. `perf -G` wants a directory of the kernel's own: \
            use that of v2, which `/proc/PID/cgroup` names, as a directory served by FUSE is none.",
    source: "tools/perf/Documentation/perf-record.txt; kernel/events/core.c",
    needs: Needs::Tree,
    unaided: Unaided::Refused("perf finds groups by directories of a v2 tree"),
    files: &[],
    counters: &[],
    can_attach: Controller::anybody,
};
