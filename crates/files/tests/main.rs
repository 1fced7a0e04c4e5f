//! What the tables promise, module by module. `stage` runs scripts on them; `tables` walks every row there is, `fuzz`
//! writes bytes to every file, `oracle` knows what the kernel answered.

#![expect(clippy::unwrap_used, reason = "a test may fail this way")]

mod again;
mod blkio;
mod bpf;
mod core;
mod counter;
mod cpu;
mod cpuacct;
mod cpuset;
mod devices;
mod docs;
mod files;
mod freezer;
mod fuzz;
mod hugetlb;
mod keys;
mod lookup;
mod memory;
mod misc;
mod net_cls;
mod net_prio;
mod notice;
mod options;
mod oracle;
mod pids;
mod rdma;
mod stage;
mod state;
mod tables;
