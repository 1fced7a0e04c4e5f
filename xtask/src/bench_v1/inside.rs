//! What is measured in a guest: the same on kernel v1 and on pinfold, and what only pinfold does.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

use crate::bench::measure::{Step, by_turns, median};
use crate::transcript::refuse_outside_a_guest;

/// The files that are read, each with its hierarchy.
pub(super) const FILES: &[(&str, &str)] = &[("memory", "memory.stat"), ("cpu,cpuacct", "cpuacct.usage")];

/// How many groups there are below the one that is read, and whether each has a process.
pub(super) const DESCENDANTS: &[(u32, bool)] = &[(1, false), (100, false), (100, true), (10_000, false)];

/// What a runtime mounts. Twelve are attached to, as runc does.
const HIERARCHIES: [&str; 12] = [
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

pub(super) const ATTACH: &str = "attach";
pub(super) const REBALANCE: &str = "rebalance";
/// Over how many directories a limit is divided.
pub(super) const CARRIERS: &[usize] = &[10, 100, 1000];

/// How often what only the whole can be timed of is done.
const TIMES: usize = 10;
/// How long the daemon is watched.
const WATCHED: Duration = Duration::from_secs(4);

pub(super) fn name_of_read(file: &str, groups: u32, inhabited: bool) -> String {
    format!("{file}/{groups}{}", if inhabited { "/inhabited" } else { "" })
}

pub(super) fn name_of_looks(carriers: usize) -> String {
    format!("looks/{carriers}")
}

/// Who serves v1.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Side {
    /// The kernel itself
    Kernel,
    /// pinfold, on v2
    Pinfold,
}

impl Side {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Pinfold => "pinfold",
        }
    }

    pub(super) fn cgroup(self) -> &'static str {
        match self {
            Self::Kernel => "v1",
            Self::Pinfold => "v2",
        }
    }
}

/// Measures everything of a side, and writes the figures to a file.
pub(super) fn measure(side: Side, pinfold: Option<&Path>, file: &Path) -> Result<()> {
    refuse_outside_a_guest()?;
    let ground = match side {
        Side::Kernel => Ground { top: PathBuf::from("/sys/fs/cgroup"), daemon: None },
        Side::Pinfold => Ground::serve(pinfold.context("--pinfold")?)?,
    };
    let mut figures = String::new();
    for (hierarchy, name) in FILES {
        for (groups, inhabited) in DESCENDANTS {
            let taken = read(&ground.dir(hierarchy), name, *groups, *inhabited)?;
            writeln!(figures, "{} {taken}", name_of_read(name, *groups, *inhabited))?;
        }
    }
    writeln!(figures, "{ATTACH} {}", attach(&ground)?)?;
    if let Some(daemon) = &ground.daemon {
        writeln!(figures, "{REBALANCE} {}", rebalance(&ground)?)?;
        for carriers in CARRIERS {
            writeln!(figures, "{} {}", name_of_looks(*carriers), looks(&ground, daemon, *carriers)?)?;
        }
    }
    Ok(fs::write(file, figures)?)
}

/// Where the hierarchies are, and the daemon that serves them. The guest goes with all of it.
struct Ground {
    top: PathBuf,
    daemon: Option<Child>,
}

impl Ground {
    fn serve(pinfold: &Path) -> Result<Self> {
        let top = PathBuf::from("/run/v1");
        let mut daemon = Command::new(pinfold);
        daemon.arg("serve").stdin(Stdio::null());
        for hierarchy in HIERARCHIES {
            let dir = top.join(name_of_dir(hierarchy));
            fs::create_dir_all(&dir)?;
            let options = hierarchy.replace("name=", "none,name=");
            daemon.arg(format!("--mount={options}:{}", dir.display()));
        }
        let mut daemon = daemon.spawn().context("pinfold")?;
        let last = top.join(name_of_dir(HIERARCHIES[11])).join("tasks");
        while !last.exists() {
            if let Some(status) = daemon.try_wait()? {
                bail!("pinfold ended: {status}");
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(Self { top, daemon: Some(daemon) })
    }

    fn dir(&self, hierarchy: &str) -> PathBuf {
        self.top.join(name_of_dir(hierarchy))
    }
}

fn name_of_dir(hierarchy: &str) -> &str {
    hierarchy.strip_prefix("name=").unwrap_or(hierarchy)
}

/// Processes that wait, started by one that forks them without starting a program: as fast as a guest can.
struct Waiting {
    parent: Child,
    pids: Vec<String>,
}

impl Waiting {
    fn start(count: usize) -> Result<Self> {
        let script = "for ((i = 0; i < $1; i++)); do (read -r <&3) & echo $!; done 3< <(sleep 10000); wait";
        let mut command = Command::new("bash");
        command.args(["-c", script, "waiting", &count.to_string()]).stdin(Stdio::null());
        let mut parent = command.stdout(Stdio::piped()).spawn().context("bash")?;
        let said = BufReader::new(parent.stdout.take().context("a pipe")?);
        let pids = said.lines().take(count).collect::<Result<Vec<_>, _>>()?;
        ensure!(pids.len() == count, "only {} of {count} processes could be started", pids.len());
        Ok(Self { parent, pids })
    }

    /// Ends those in a group, and the one that started them.
    fn end(mut self) -> Result<()> {
        self.parent.kill()?;
        self.parent.wait()?;
        let kill = Command::new("kill").arg("-9").args(&self.pids).status()?;
        ensure!(kill.success(), "kill: {kill}");
        Ok(())
    }
}

/// Microseconds to open, read and close a file of a group with a process, and so many groups below.
fn read(hierarchy: &Path, file: &str, groups: u32, inhabited: bool) -> Result<f64> {
    let group = hierarchy.join(format!("read-{groups}-{inhabited}"));
    fs::create_dir(&group)?;
    let waiting = Waiting::start(if inhabited { groups as usize + 1 } else { 1 })?;
    let mut pids = waiting.pids.iter();
    fs::write(group.join("cgroup.procs"), pids.next().context("the first")?)?;
    for number in 0..groups {
        let below = group.join(number.to_string());
        fs::create_dir(&below)?;
        if let Some(pid) = pids.next() {
            fs::write(below.join("cgroup.procs"), pid)?;
        }
    }
    let (path, mut buffer) = (group.join(file), [0; 16384]);
    let step: Step<'_> = Box::new(move || {
        ensure!(File::open(&path)?.read(&mut buffer)? > 0, "{} is empty", path.display());
        Ok(())
    });
    let taken = by_turns(11, 30, &mut [step])?;
    waiting.end()?;
    Ok(taken[0])
}

/// Microseconds to write a process to a new group of each hierarchy, all together.
fn attach(ground: &Ground) -> Result<f64> {
    fs::write(ground.dir("cpuset").join("cgroup.clone_children"), "1")?;
    let waiting = Waiting::start(TIMES)?;
    let mut taken = Vec::new();
    for pid in &waiting.pids {
        let groups: Vec<PathBuf> =
            HIERARCHIES.iter().map(|hierarchy| ground.dir(hierarchy).join(format!("attach-{pid}"))).collect();
        groups.iter().try_for_each(fs::create_dir)?;
        let start = Instant::now();
        for group in &groups {
            fs::write(group.join("cgroup.procs"), pid).with_context(|| group.display().to_string())?;
        }
        taken.push(start.elapsed().as_secs_f64() * 1e6);
    }
    waiting.end()?;
    Ok(median(taken))
}

/// The longest that a fork was refused, in milliseconds, though other directories of the group had tasks to spare.
fn rebalance(ground: &Ground) -> Result<f64> {
    let [shared, one, two] = [("pids", "shared"), ("memory", "one"), ("memory", "two")]
        .map(|(at, name)| ground.dir(at).join(name));
    [&shared, &one, &two].iter().try_for_each(fs::create_dir)?;
    fs::write(shared.join("pids.max"), "60")?;
    let waiting = Waiting::start(2)?;
    for (pid, group) in waiting.pids.iter().zip([&one, &two]) {
        fs::write(group.join("cgroup.procs"), pid)?;
        fs::write(shared.join("cgroup.procs"), pid)?;
    }
    fs::write(shared.join("cgroup.procs"), "0")?;
    let mut longest: f64 = 0.0;
    for time in 0..TIMES {
        // This process goes to where there is the lesser part.
        fs::write(if time % 2 == 0 { &one } else { &two }.join("cgroup.procs"), "0")?;
        let mut children: Vec<Child> = Vec::new();
        let mut refused: Option<Instant> = None;
        let waited = loop {
            match (Command::new("sleep").arg("10000").stdin(Stdio::null()).spawn(), refused) {
                (Ok(child), None) => children.push(child),
                (Ok(child), Some(since)) => {
                    children.push(child);
                    break since.elapsed();
                }
                (Err(_), None) => refused = Some(Instant::now()),
                (Err(error), Some(since)) => ensure!(since.elapsed() < Duration::from_secs(5), error),
            }
        };
        longest = longest.max(waited.as_secs_f64() * 1e3);
        for mut child in children {
            child.kill()?;
            child.wait()?;
        }
    }
    for hierarchy in ["pids", "memory"] {
        fs::write(ground.dir(hierarchy).join("cgroup.procs"), "0")?;
    }
    waiting.end()?;
    Ok(longest)
}

/// The part of a CPU, in percent, that the daemon takes while a limit is divided over so many directories.
fn looks(ground: &Ground, daemon: &Child, carriers: usize) -> Result<f64> {
    let shared = ground.dir("pids").join(format!("over-{carriers}"));
    let beside = ground.dir("memory").join(format!("over-{carriers}"));
    [&shared, &beside].iter().try_for_each(fs::create_dir)?;
    let waiting = Waiting::start(carriers)?;
    for (number, pid) in waiting.pids.iter().enumerate() {
        let group = beside.join(number.to_string());
        fs::create_dir(&group)?;
        fs::write(group.join("cgroup.procs"), pid)?;
        fs::write(shared.join("cgroup.procs"), pid)?;
    }
    fs::write(shared.join("pids.max"), (carriers * 4).to_string())?;
    let before = ticks(daemon)?;
    let start = Instant::now();
    thread::sleep(WATCHED);
    let taken = (ticks(daemon)? - before) / start.elapsed().as_secs_f64();
    waiting.end()?;
    Ok(taken) // a tick is a hundredth of a second
}

/// The CPU time of the daemon: utime and stime of proc_pid_stat(5), in ticks.
fn ticks(daemon: &Child) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.id()))?;
    let (_, after_name) = stat.rsplit_once(')').context("no name")?;
    let times = after_name.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    Ok(times.sum::<Result<f64, _>>()?)
}
