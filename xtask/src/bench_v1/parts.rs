//! What is measured, part by part, in this order: the list is one, for both sides and for the table.

/// What a runtime mounts. All twelve are attached to, as runc does.
pub(super) const HIERARCHIES: [&str; 12] = [
    "cpuset",
    "cpu,cpuacct",
    "blkio",
    "memory",
    "devices",
    "freezer",
    "net_cls,net_prio",
    "perf_event",
    "hugetlb",
    "pids",
    "rdma",
    "name=systemd",
];

/// One figure.
#[derive(Clone, Copy)]
pub(super) enum Part {
    /// A file of a group with so many groups below, and whether each of those has a process
    Read { hierarchy: &'static str, file: &'static str, groups: u32, inhabited: bool },
    /// A process through all hierarchies
    Attach,
    /// From when a part of a limit that is divided over so many directories is met, or begun with, to when there is a larger one: so
    /// many of a hundred times no longer
    Rebalance { of: Divided, carriers: usize, percent: usize },
    /// A limit that is divided over so many directories
    Looks { carriers: u32 },
}

/// A limit that is divided.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Divided {
    /// `pids.max`: who meets a part is refused
    Pids,
    /// `cpu.cfs_quota_us`: who meets a part is throttled, which the kernel tells at the end of the period
    Cpu,
    /// `memory.limit_in_bytes`: who comes near a part is slowed down
    Memory,
    /// `blkio.throttle.write_bps_device`: who meets a part waits for the disk
    Disk,
}

impl Divided {
    /// The hierarchy of its group, and the file.
    pub(super) fn file(self) -> (&'static str, &'static str) {
        match self {
            Self::Pids => ("pids", "pids.max"),
            Self::Cpu => ("cpu,cpuacct", "cpu.cfs_quota_us"),
            Self::Memory => ("memory", "memory.limit_in_bytes"),
            Self::Disk => ("blkio", "blkio.throttle.write_bps_device"),
        }
    }
}

const fn rebalance(of: Divided, carriers: usize, percent: usize) -> Part {
    Part::Rebalance { of, carriers, percent }
}

const fn stat(groups: u32, inhabited: bool) -> Part {
    Part::Read { hierarchy: "memory", file: "memory.stat", groups, inhabited }
}

const fn usage(groups: u32, inhabited: bool) -> Part {
    Part::Read { hierarchy: "cpu,cpuacct", file: "cpuacct.usage", groups, inhabited }
}

/// The fewest and the most groups below a group that is read: what pinfold takes for these is compared.
pub(super) const FEW: u32 = 1;
pub(super) const MANY: u32 = 10_000;

/// Over how many directories a limit is divided that is balanced.
const TWO: usize = 2;
const CROWD: usize = 64;

/// All parts; those that make many groups come last.
pub(super) const PARTS: [Part; 22] = [
    stat(FEW, false),
    stat(100, false),
    stat(100, true),
    usage(FEW, false),
    usage(100, false),
    usage(100, true),
    Part::Attach,
    rebalance(Divided::Pids, TWO, 50),
    rebalance(Divided::Pids, TWO, 99),
    rebalance(Divided::Pids, CROWD, 99),
    rebalance(Divided::Cpu, TWO, 50),
    rebalance(Divided::Cpu, TWO, 99),
    rebalance(Divided::Cpu, CROWD, 99),
    rebalance(Divided::Memory, TWO, 50),
    rebalance(Divided::Memory, TWO, 99),
    rebalance(Divided::Disk, TWO, 50),
    rebalance(Divided::Disk, TWO, 99),
    Part::Looks { carriers: 10 },
    Part::Looks { carriers: 100 },
    Part::Looks { carriers: 1000 },
    stat(MANY, false),
    usage(MANY, false),
];

impl Part {
    /// What its figure is called, between guest and table and by `--only`.
    pub(super) fn name(self) -> String {
        match self {
            Self::Read { file, groups, inhabited, .. } => {
                format!("{file}/{groups}{}", if inhabited { "/inhabited" } else { "" })
            }
            Self::Attach => "attach".to_owned(),
            Self::Rebalance { of, carriers, percent } => {
                format!("rebalance/{}/{carriers}/{percent}", of.file().1)
            }
            Self::Looks { carriers } => format!("looks/{carriers}"),
        }
    }

    /// The unit of its figure.
    pub(super) fn unit(self) -> &'static str {
        match self {
            Self::Read { .. } | Self::Attach => "us",
            Self::Rebalance { .. } => "ms",
            Self::Looks { .. } => "% of a CPU",
        }
    }

    /// What the table says of it.
    pub(super) fn what(self) -> String {
        match self {
            Self::Read { file, groups, inhabited, .. } => {
                let groups = if groups == 1 { "1 group".to_owned() } else { format!("{groups} groups") };
                format!(
                    "read of `{file}`, {groups} below{}",
                    if inhabited { ", each with a process" } else { "" }
                )
            }
            Self::Attach => {
                let count = HIERARCHIES.len();
                format!("attach through {count} hierarchies, one after another, to a new group of each")
            }
            Self::Rebalance { of, carriers, percent } => {
                let which = if percent == 50 { "median" } else { "the longest" };
                let who = match of {
                    Divided::Pids => "a task refused by its part, until it is allowed",
                    Divided::Cpu => {
                        "a task that begins to use CPU time, until its part is three quarters of the whole"
                    }
                    Divided::Memory => {
                        "a task slowed down by its part, until that is three quarters of the whole"
                    }
                    Divided::Disk => {
                        "a task that begins to write, until its part is three quarters of the whole"
                    }
                };
                format!("`{}` over {carriers} directories: {who} ({which})", of.file().1)
            }
            Self::Looks { carriers } => {
                format!("CPU time of the daemon while a `pids.max` is divided over {carriers} directories")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_part_has_a_name_of_its_own_in_one_word() {
        let names: HashSet<String> = PARTS.iter().map(|part| part.name()).collect();
        assert_eq!(names.len(), PARTS.len(), "{names:?}");
        assert!(names.iter().all(|name| !name.contains(char::is_whitespace)), "{names:?}");
    }
}
