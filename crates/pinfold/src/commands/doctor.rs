//! `doctor`: what this machine has, and what pinfold can do with it. The daemon starts by saying the same in short.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use pinfold_events::Source;
use pinfold_events::connector::ConnectorError;
use pinfold_events::proc::{HIDDEN, hides_processes};
use pinfold_files::{Needs, Unaided};
use pinfold_kernel::inspect::{Inspection, OLDEST, Release, inspect};
use serde::Serialize;

use crate::args::DoctorArgs;
use crate::daemon::POLLING;
use crate::{exit, output, resolve};

/// One thing that was looked at.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Finding {
    /// What.
    pub what: String,
    /// How well it is.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What to do about it, if something is wanting.
    pub remedy: Option<&'static str>,
}

/// How well something is.
#[derive(Serialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// As it should be.
    Good,
    /// pinfold works, with less.
    Limited,
    /// pinfold cannot work.
    Missing,
}

/// Everything that `doctor` says.
#[derive(Serialize, Debug)]
struct Report {
    machine: Vec<Finding>,
    features: Vec<Finding>,
    daemon: Option<Daemon>,
}

/// The realm's daemon.
#[derive(Serialize, Debug)]
struct Daemon {
    version: String,
    realm: String,
    base: String,
    tracker: String,
}

/// Who keeps processes in their groups.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tracker {
    /// The kernel's v2 tree.
    Cgroup2,
    /// A table that process events keep.
    Events,
}

impl Tracker {
    /// The better one of those that can be had here.
    pub(crate) fn best(found: &Inspection, base: Option<&Path>) -> Self {
        match found.v2.as_ref().is_ok_and(|v2| base.is_some() || v2.writable.is_ok()) {
            true => Self::Cgroup2,
            false => Self::Events,
        }
    }

    /// How bad it is that there is no v2 tree.
    const fn without_v2(self) -> State {
        match self {
            Self::Cgroup2 => State::Missing,
            Self::Events => State::Limited,
        }
    }
}

/// `pinfold doctor`: fails if pinfold cannot serve here.
pub(crate) fn doctor(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let found = inspect();
    let tracker = Tracker::best(&found, args.base.as_deref());
    let mut features = features(&found, args.base.as_deref(), tracker);
    // Asked for a moment, as a daemon asks when somebody subscribes: at its own start it has no need to.
    features.extend(process_events(Source::connector().map(drop)));
    let has = |path: &str| Path::new(path).exists();
    let (has_pressure, has_swap) = (has("/proc/pressure/io"), has("/proc/swaps"));
    features.extend(kept_by_kernel(has_pressure, has_swap, Release::parse(&found.release)));
    features.extend(hides_processes(Path::new("/proc")).then(hidden));
    let machine = machine(&found, args.base.as_deref(), tracker);
    let report = Report { machine, features, daemon: daemon(args) };
    if args.output.json {
        output::json(&report)?;
    } else {
        output::text(&told(&report))?;
    }
    let hopeless = report.machine.iter().any(|finding| finding.state == State::Missing);
    Ok(ExitCode::from(if hopeless { exit::FAILED } else { 0 }))
}

fn daemon(args: &DoctorArgs) -> Option<Daemon> {
    let client = resolve::client(&args.realm).ok()?;
    Some(Daemon {
        version: client.version().ok()?,
        realm: client.realm().ok()?,
        base: client.base().ok()?,
        tracker: client.tracker().ok()?,
    })
}

impl Finding {
    fn good(what: impl Into<String>, found: impl Into<String>) -> Self {
        Self { what: what.into(), state: State::Good, found: found.into(), remedy: None }
    }

    fn wanting(
        what: impl Into<String>,
        state: State,
        found: impl Into<String>,
        remedy: &'static str,
    ) -> Self {
        Self { what: what.into(), state, found: found.into(), remedy: Some(remedy) }
    }
}

/// What the machine has.
pub(crate) fn machine(found: &Inspection, base: Option<&Path>, tracker: Tracker) -> Vec<Finding> {
    let mut findings = vec![kernel(found)];
    findings.extend(v2(found, base, tracker));
    findings.extend([v1(found), fuse(found), privileges(found), namespaces(found)]);
    findings.extend([connector(found, tracker), programs(found)]);
    findings
}

fn kernel(found: &Inspection) -> Finding {
    if found.is_new_enough {
        return Finding::good("kernel", &found.release);
    }
    let oldest = format!("{}: older than {}.{}", found.release, OLDEST.major, OLDEST.minor);
    Finding::wanting("kernel", State::Missing, oldest, "boot a newer kernel: cgroup.kill came with 5.14")
}

fn v2(found: &Inspection, base: Option<&Path>, tracker: Tracker) -> Vec<Finding> {
    let v2 = match &found.v2 {
        Ok(v2) => v2,
        Err(error) => {
            let remedy = "mount it: mount -t cgroup2 none /sys/fs/cgroup";
            return vec![Finding::wanting(
                "cgroup v2",
                tracker.without_v2(),
                first_line(&error.to_string()),
                remedy,
            )];
        }
    };
    let point = v2.mount.point.display();
    let list = |names: &BTreeSet<String>| {
        if names.is_empty() { "none".to_owned() } else { names.iter().cloned().collect::<Vec<_>>().join(" ") }
    };
    let mut findings = vec![match (base, &v2.writable) {
        (None, Err(errno)) => Finding::wanting(
            "cgroup v2",
            tracker.without_v2(),
            format!("{point}, not writable: {errno}"),
            "run as root, or have a directory delegated to you and name it with --base DIR",
        ),
        (None, Ok(())) => Finding::good("cgroup v2", format!("{point}, writable")),
        (Some(base), _) => Finding::good("cgroup v2", format!("{point}, working in {}", base.display())),
    }];
    findings.push(Finding::good("v2 controllers", list(&offered(found, base))));
    findings
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

fn v1(found: &Inspection) -> Finding {
    if found.v1.is_empty() {
        return Finding::good("cgroup v1", "not mounted: no controller is held back from v2");
    }
    let mounts = found.v1.iter().map(|mount| mount.controllers.as_str()).collect::<Vec<_>>().join(" ");
    let remedy = "boot with cgroup_no_v1=all to have them in v2; pinfold leaves these alone";
    Finding::wanting(
        "cgroup v1",
        State::Limited,
        format!("the kernel's own is mounted and holds back: {mounts}"),
        remedy,
    )
}

fn fuse(found: &Inspection) -> Finding {
    match found.fuse {
        Ok(()) => Finding::good("FUSE", "/dev/fuse can be opened"),
        Err(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => Finding::wanting(
            "FUSE",
            State::Missing,
            "/dev/fuse may not be opened",
            "run as root, or chmod 666 /dev/fuse as most distributions have it",
        ),
        Err(errno) => Finding::wanting(
            "FUSE",
            State::Missing,
            format!("/dev/fuse: {errno}"),
            "modprobe fuse; in a container, pass the device in (--device /dev/fuse)",
        ),
    }
}

fn privileges(found: &Inspection) -> Finding {
    let capabilities = &found.capabilities;
    let wanting: Vec<_> = [
        (capabilities.sys_admin, "CAP_SYS_ADMIN (mounting)"),
        (capabilities.sys_ptrace, "CAP_SYS_PTRACE (other users' namespaces)"),
        (capabilities.net_admin, "CAP_NET_ADMIN (process events)"),
    ]
    .into_iter()
    .filter_map(|(there, name)| (!there).then_some(name))
    .collect();
    let user = rustix::process::geteuid();
    let who = if user.is_root() { "root".to_owned() } else { format!("uid {}", user.as_raw()) };
    if wanting.is_empty() {
        return Finding::good("privileges", format!("{who} with every capability that is of use"));
    }
    let found = format!("{who} without {}", wanting.join(", "));
    Finding::wanting("privileges", State::Limited, found, "run as root to have them")
}

fn namespaces(found: &Inspection) -> Finding {
    let place = match (found.in_first_pid_namespace, found.in_first_user_namespace) {
        (true, true) => "the host's",
        (false, true) => "a pid namespace of its own",
        (true, false) => "a user namespace of its own",
        (false, false) => "pid and user namespaces of its own",
    };
    Finding::good("namespaces", place)
}

fn connector(found: &Inspection, tracker: Tracker) -> Finding {
    match found.proc_connector {
        Err(errno) if tracker == Tracker::Events => Finding::wanting(
            "proc connector",
            State::Limited,
            format!("no process events of the kernel: {errno}; without --outer, /proc is polled"),
            "give the public directory of a pinfold outside with --outer DIR",
        ),
        Ok(()) => Finding::good("proc connector", "process events can be had"),
        Err(errno) => Finding::wanting(
            "proc connector",
            State::Limited,
            format!("no process events: {errno}"),
            "not needed to serve: membership comes from the v2 tree",
        ),
    }
}

fn programs(found: &Inspection) -> Finding {
    match found.programs {
        Ok(()) => Finding::good("BPF programs", "can be attached to v2 directories"),
        Err(errno) => Finding::wanting(
            "BPF programs",
            State::Limited,
            format!("cannot be attached to v2 directories: {errno}"),
            "run as root of the first user namespace, on a kernel with CONFIG_CGROUP_BPF",
        ),
    }
}

/// What each feature of pinfold will do here.
pub(crate) fn features(found: &Inspection, base: Option<&Path>, tracker: Tracker) -> Vec<Finding> {
    let mut findings = vec![
        match tracker {
            Tracker::Cgroup2 => {
                Finding::good("membership", "by the kernel: children are born in their parent's group")
            }
            Tracker::Events => Finding::wanting(
                "membership",
                State::Limited,
                "from process events (tracker events): a table of ours, fed by forks and exits",
                "see cgroup v2",
            ),
        },
        mounting(found),
    ];
    let offered = offered(found, base);
    let here = |controller: &&_| controller_here(controller, found, &offered, tracker);
    findings.extend(pinfold_files::ALL.iter().map(here));
    findings.push(by_cpu(found, tracker));
    findings.push(Finding::good("named hierarchies", "any number: mount -o none,name=NAME"));
    findings
}

/// Where a daemon started here has process events from, given whether it has the kernel's: for whoever subscribes, and for rules.
fn process_events(kernel: Result<(), ConnectorError>) -> [Finding; 2] {
    let (events, rules) = ("process events", "rules");
    match kernel {
        Ok(()) => [
            Finding::good(events, "from the kernel, by its proc connector: every fork, exec and exit"),
            Finding::good(rules, "by the same events, as a process executes or changes its user"),
        ],
        Err(error) => [
            Finding::wanting(
                events,
                State::Limited,
                format!(
                    "from /proc, read {} times a second: what lives shorter is missed ({})",
                    Duration::from_secs(1).as_millis() / POLLING.as_millis(),
                    first_line(&error.to_string())
                ),
                "in a container, have them from the host's pinfold: serve --outer DIR",
            ),
            Finding::wanting(
                rules,
                State::Limited,
                format!("by the same looks at /proc: up to {} ms late", POLLING.as_millis()),
                "see process events",
            ),
        ],
    }
}

/// What the kernel does that pinfold can do without, at a price. Told whether it has pressure of I/O (PSI), and swap.
fn kept_by_kernel(has_pressure: bool, has_swap: bool, release: Option<Release>) -> [Finding; 4] {
    /// memory.peak and memory.reclaim came with it.
    const PEAK: Release = Release { major: 5, minor: 19 };
    let (pressure, peak, room, swap) = ("I/O pressure", "peak of memory", "room for less memory", "swap");
    let has_peak = release.is_none_or(|release| release >= PEAK);
    [
        match has_pressure {
            true => {
                Finding::good(pressure, "told by the kernel (PSI): divided limits of blkio follow who waits")
            }
            false => Finding::wanting(
                pressure,
                State::Limited,
                "not told by the kernel: divided limits of blkio follow rates alone, which takes longer",
                "boot with psi=1, on a kernel with CONFIG_PSI",
            ),
        },
        match has_peak {
            true => Finding::good(peak, "kept by the kernel (memory.peak)"),
            false => Finding::wanting(
                peak,
                State::Limited,
                "not kept by the kernel: memory.max_usage_in_bytes is the most that any read of it found",
                "boot a newer kernel: memory.peak came with 5.19",
            ),
        },
        match has_peak {
            true => Finding::good(room, "made by the kernel before a limit is lowered (memory.reclaim)"),
            false => Finding::wanting(
                room,
                State::Limited,
                "made by a throttle (memory.high): the group is slowed down while its limit is lowered",
                "boot a newer kernel: memory.reclaim came with 5.19",
            ),
        },
        match has_swap {
            true => Finding::good(swap, "counted and limited by the kernel, if there is some"),
            false => Finding::wanting(
                swap,
                State::Limited,
                "not in the kernel: no group has files of memory.memsw, as on v1",
                "boot a kernel with CONFIG_SWAP",
            ),
        },
    ]
}

/// What is said where /proc hides processes.
fn hidden() -> Finding {
    Finding::wanting(
        "hidden processes",
        State::Limited,
        HIDDEN,
        "give the daemon CAP_SYS_PTRACE, or mount -o remount,hidepid=0 /proc",
    )
}

fn mounting(found: &Inspection) -> Finding {
    match (&found.fuse, found.capabilities.sys_admin) {
        (Ok(()), true) => {
            Finding::good("mount", "by the daemon itself, also for clients in other mount namespaces")
        }
        (Ok(()), false) => Finding::wanting(
            "mount",
            State::Limited,
            "through fusermount3 (package fuse3), for the daemon only",
            "run as root for `pinfold mount`",
        ),
        (Err(_), _) => Finding::wanting("mount", State::Missing, "not without /dev/fuse", "see FUSE"),
    }
}

/// The v2 controllers that a realm would find there.
fn offered(found: &Inspection, base: Option<&Path>) -> BTreeSet<String> {
    let of_base = base.and_then(|base| std::fs::read_to_string(base.join("cgroup.controllers")).ok());
    match of_base {
        Some(text) => text.split_ascii_whitespace().map(str::to_owned).collect(),
        None => found.v2.as_ref().map(|v2| v2.controllers.clone()).unwrap_or_default(),
    }
}

fn controller_here(
    controller: &pinfold_files::Controller,
    found: &Inspection,
    offered: &BTreeSet<String>,
    tracker: Tracker,
) -> Finding {
    let what = format!("controller {}", controller.name);
    match controller.needs {
        Needs::ResourceLimits if !found.resource_limits => Finding::wanting(
            what,
            State::Limited,
            "cannot be mounted: setting limits of other processes takes CAP_SYS_RESOURCE",
            "run as root of the first user namespace, with that capability",
        ),
        _ if tracker == Tracker::Events => {
            let found = match controller.unaided {
                Unaided::Served(how) => format!("from user space: {how}"),
                Unaided::Refused(why) => format!("cannot be mounted: {why}"),
            };
            Finding::wanting(what, State::Limited, found, "see cgroup v2")
        }
        Needs::Tree => Finding::good(what, controller.about),
        Needs::Controller(wanted) if offered.contains(wanted) => Finding::good(what, controller.about),
        Needs::Program if found.programs.is_ok() => Finding::good(what, controller.about),
        Needs::ResourceLimits => Finding::good(what, controller.about),
        Needs::Program => Finding::wanting(
            what,
            State::Limited,
            "cannot be mounted: no BPF program can be attached to a v2 directory",
            "see BPF programs",
        ),
        Needs::Controller(_) => {
            let found = match controller.unaided {
                Unaided::Served(how) => {
                    format!("from user space, as the v2 tree does not offer it: {how}")
                }
                Unaided::Refused(why) => {
                    format!("cannot be mounted: the v2 tree does not offer it, and {why}")
                }
            };
            Finding::wanting(what, State::Limited, found, "see cgroup v1 and v2 controllers")
        }
    }
}

/// How figures by CPU will come about.
fn by_cpu(found: &Inspection, tracker: Tracker) -> Finding {
    const WHAT: &str = "cpuacct by CPU";
    match (tracker, found.switches) {
        (Tracker::Events, _) => Finding::wanting(
            WHAT,
            State::Limited,
            "spread evenly over the CPUs: without a v2 tree nobody measures it",
            "see cgroup v2",
        ),
        (Tracker::Cgroup2, Ok(())) => Finding::good(
            WHAT,
            "measured by a BPF program at sched_switch, from when somebody reads such a file",
        ),
        (Tracker::Cgroup2, Err(errno)) => Finding::wanting(
            WHAT,
            State::Limited,
            format!("spread evenly over the CPUs: no BPF program at sched_switch: {errno}"),
            "run with CAP_BPF and CAP_PERFMON, on Linux 6.1 or newer with CONFIG_BPF_EVENTS",
        ),
    }
}

/// The report for people.
fn told(report: &Report) -> String {
    let mut out = String::new();
    for (heading, findings) in
        [("This machine", &report.machine), ("What pinfold can do here", &report.features)]
    {
        out.push_str(heading);
        out.push('\n');
        findings.iter().for_each(|finding| out.push_str(&line(finding)));
        out.push('\n');
    }
    out.push_str("Daemon\n");
    out.push_str(&match &report.daemon {
        Some(daemon) => {
            let place = if daemon.base.is_empty() { "no v2 tree" } else { &daemon.base };
            format!(
                "  realm {} (version {}) in {place}\n  tracker {}\n",
                daemon.realm, daemon.version, daemon.tracker
            )
        }
        None => "  none for this realm\n".to_owned(),
    });
    out
}

fn line(finding: &Finding) -> String {
    let mark = match finding.state {
        State::Good => "ok",
        State::Limited => "--",
        State::Missing => "NO",
    };
    let remedy = finding.remedy.map(|remedy| format!("{:28}{remedy}\n", "")).unwrap_or_default();
    format!("  {mark}  {:20}  {}\n{remedy}", finding.what, finding.found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_kernels_events_doctor_says_what_is_done_instead_and_why() {
        let text = |findings: [Finding; 2]| findings.iter().map(line).collect::<String>();
        assert_eq!(
            text(process_events(Err(ConnectorError::Silent))),
            "  --  process events        from /proc, read 10 times a second: what lives shorter is missed (proc \
             connector: no answer)\n                            in a container, have them from the host's pinfold: serve \
             --outer DIR\n  --  rules                 by the same looks at /proc: up to 100 ms late\n                     \
             \x20      see process events\n"
        );
        assert!(text(process_events(Ok(()))).starts_with("  ok  process events        from the kernel, "));
    }

    #[test]
    fn what_an_old_kernel_or_one_without_pressure_does_not_keep_is_told() {
        let states = |has_pressure, has_swap, release| {
            let found = kept_by_kernel(has_pressure, has_swap, Release::parse(release));
            found.map(|finding| finding.state == State::Good)
        };
        assert_eq!(states(true, true, "5.19.0-rc1"), [true; 4]);
        assert_eq!(states(false, true, "6.1.0-50-amd64"), [false, true, true, true]);
        assert_eq!(states(true, true, "5.15.0"), [true, false, false, true]);
        assert_eq!(states(true, false, "6.0"), [true, true, true, false]);
    }
}
