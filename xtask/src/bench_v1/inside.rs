//! What is measured in a guest: the same on kernel v1 and on pinfold, and what only pinfold does.
//!
//! Each part is measured by itself and told at once, the long ones last: what a slow machine has no time for, or what fails,
//! takes no other figure with it.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

use super::parts::{Divided, HIERARCHIES, Part};
use crate::bench::measure::{Step, by_turns, median, percentile};
use crate::transcript::refuse_outside_a_guest;

/// How often a file is read: so many rounds of so many.
const ROUNDS: usize = 7;
const READS: u32 = 30;
/// How often what only the whole can be timed of is done.
const TIMES: usize = 10;
/// How long the daemon is watched, once it has settled.
const WATCHED: Duration = Duration::from_secs(4);
const SETTLING: Duration = Duration::from_secs(2);
/// How long it may take to make the groups of one part: with more, the other parts would have no time left.
const PATIENCE: Duration = Duration::from_secs(400);
/// For how long nobody has used any of a limit before somebody wants nearly all of it.
const RESTED: Duration = Duration::from_millis(500);
/// Who may not fork after that never may.
const REFUSED_FOR_GOOD: Duration = Duration::from_secs(10);

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

/// Measures these parts of a side; prints each figure, and adds it to a file.
pub(super) fn measure(side: Side, pinfold: Option<&Path>, parts: &[Part], file: &Path) -> Result<()> {
    refuse_outside_a_guest()?;
    let ground = match side {
        Side::Kernel => Ground { top: PathBuf::from("/sys/fs/cgroup"), daemon: None },
        Side::Pinfold => Ground::serve(pinfold.context("--pinfold")?)?,
    };
    let mut figures = File::create(file).with_context(|| file.display().to_string())?;
    let mut failed = Vec::new();
    for part in parts {
        let start = Instant::now();
        let name = part.name();
        match ground.measure(*part) {
            Ok(None) => {}
            Ok(Some(figure)) => {
                writeln!(figures, "{name} {figure}")?;
                let (word, unit) = (side.word(), part.unit());
                println!("  {word}, {name}: {figure:.2} {unit} in {:.1} s", start.elapsed().as_secs_f64());
            }
            Err(error) => {
                println!("{}, {name}: {error:#}", side.word());
                failed.push(name);
            }
        }
    }
    ensure!(failed.is_empty(), "not measured: {}", failed.join(", "));
    Ok(())
}

/// Where the hierarchies are, and the daemon that serves them. The guest goes with all of it.
struct Ground {
    top: PathBuf,
    daemon: Option<Daemon>,
}

struct Daemon {
    program: PathBuf,
    child: Child,
}

impl Ground {
    fn serve(pinfold: &Path) -> Result<Self> {
        let top = PathBuf::from("/run/v1");
        let mut daemon = Command::new(pinfold);
        daemon.args(["serve", "--log", "warn"]).stdin(Stdio::null());
        for hierarchy in HIERARCHIES {
            let dir = top.join(name_of_dir(hierarchy));
            fs::create_dir_all(&dir)?;
            let options = hierarchy.replace("name=", "none,name=");
            daemon.arg(format!("--mount={options}:{}", dir.display()));
        }
        let mut daemon = daemon.spawn().context("pinfold")?;
        let last = top.join(name_of_dir(HIERARCHIES[HIERARCHIES.len() - 1])).join("tasks");
        while !last.exists() {
            if let Some(status) = daemon.try_wait()? {
                bail!("pinfold ended: {status}");
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(Self { top, daemon: Some(Daemon { program: pinfold.to_owned(), child: daemon }) })
    }

    fn dir(&self, hierarchy: &str) -> PathBuf {
        self.top.join(name_of_dir(hierarchy))
    }

    /// Nothing, of what only pinfold does, where the kernel serves.
    fn measure(&self, part: Part) -> Result<Option<f64>> {
        Ok(match (part, &self.daemon) {
            (Part::Read { hierarchy, file, groups, inhabited }, _) => {
                Some(read(&self.dir(hierarchy), file, groups, inhabited)?)
            }
            (Part::Attach, _) => Some(attach(self)?),
            (Part::Rebalance { of, carriers, percent }, Some(daemon)) => {
                Some(rebalance(self, daemon, of, carriers, percent)?)
            }
            (Part::Looks { carriers }, Some(daemon)) => Some(looks(self, daemon, carriers)?),
            (Part::Rebalance { .. } | Part::Looks { .. }, None) => None,
        })
    }
}

fn name_of_dir(hierarchy: &str) -> &str {
    hierarchy.strip_prefix("name=").unwrap_or(hierarchy)
}

/// Processes that wait, forked by one that starts no program for each: as fast as a guest can. They end when this is dropped.
struct Waiting {
    parent: Child,
    /// What all of them read from: at its end they end.
    input: Option<ChildStdin>,
    pids: Vec<String>,
}

impl Waiting {
    fn start(count: usize) -> Result<Self> {
        let script = "exec 3<&0; for ((i = 0; i < $1; i++)); do (read -r <&3) & echo $!; done; wait";
        let mut command = Command::new("bash");
        command.args(["-c", script, "waiting", &count.to_string()]).stdin(Stdio::piped());
        let mut parent = command.stdout(Stdio::piped()).spawn().context("bash")?;
        let input = parent.stdin.take();
        let said = BufReader::new(parent.stdout.take().context("a pipe")?);
        let mut waiting = Self { parent, input, pids: Vec::new() };
        for pid in said.lines().take(count) {
            waiting.pids.push(pid?);
        }
        let started = waiting.pids.len();
        ensure!(started == count, "only {started} of {count} processes could be started");
        Ok(waiting)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        drop(self.input.take());
        let _nothing_to_be_done = self.parent.wait();
    }
}

/// Says so if what takes long has taken too long, so many of the whole being done.
fn hurry(since: Instant, done: u32, whole: u32) -> Result<()> {
    ensure!(since.elapsed() < PATIENCE, "only {done} of {whole} groups after {} s", PATIENCE.as_secs());
    Ok(())
}

/// Microseconds to open, read and close a file of a group with a process, and so many groups below.
fn read(hierarchy: &Path, file: &str, groups: u32, inhabited: bool) -> Result<f64> {
    let group = hierarchy.join(format!("read-{groups}-{inhabited}"));
    fs::create_dir(&group)?;
    let waiting = Waiting::start(if inhabited { groups as usize + 1 } else { 1 })?;
    let mut pids = waiting.pids.iter();
    fs::write(group.join("cgroup.procs"), pids.next().context("the first")?)?;
    let start = Instant::now();
    for number in 0..groups {
        hurry(start, number, groups)?;
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
    Ok(by_turns(ROUNDS, READS, &mut [step])?[0])
}

/// Microseconds to write a process to a new group of each hierarchy, all together.
fn attach(ground: &Ground) -> Result<f64> {
    // Else nobody may enter a new group of cpuset before it has CPUs.
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
    Ok(median(taken))
}

/// The tasks that a group may have beside one in each directory, and how many this process starts: fewer than the nine parts of
/// ten that one directory is promised, so each that is refused is refused by the part alone.
const MOST_TASKS: usize = 58;
const STARTED: usize = 45;

impl Divided {
    /// What a group may use: tasks beside one in each of so many directories; microseconds of CPU time in 100 ms; bytes; bytes a second.
    fn whole(self, carriers: usize) -> u64 {
        match self {
            Self::Pids => (carriers + MOST_TASKS) as u64,
            Self::Cpu => 80_000,
            Self::Memory => 64 << 20,
            Self::Disk => 4 << 20,
        }
    }

    /// What is written to its file to limit it to so much; `None`: to lift the limit.
    fn text(self, limit: Option<u64>) -> Result<String> {
        Ok(match (self, limit) {
            (Self::Disk, limit) => {
                let disk = fs::read_to_string("/sys/block/vda/dev").context("the guest's disk")?;
                format!("{} {}", disk.trim(), limit.unwrap_or(0))
            }
            (_, Some(limit)) => limit.to_string(),
            (Self::Pids, None) => "max".to_owned(),
            (Self::Cpu | Self::Memory, None) => "-1".to_owned(),
        })
    }

    /// Who uses all that it can have; `None`: this process does that itself.
    fn glutton(self) -> Option<Glutton> {
        let (program, counts) = match self {
            Self::Cpu => ("while :; do :; done", None),
            Self::Memory => ("exec tail /dev/zero", Some(("memory.events", "high "))),
            Self::Pids | Self::Disk => return None,
        };
        Some(Glutton { program, counts })
    }

    /// The part of a v2 directory, as [`Divided::whole`] counts.
    fn part(self, dir: &Path) -> Result<u64> {
        let file = match self {
            Self::Pids => "pids.max",
            Self::Cpu => "cpu.max",
            Self::Memory => "memory.max",
            Self::Disk => "io.max",
        };
        let text = fs::read_to_string(dir.join(file))?;
        let number = |word: &str| if word == "max" { Some(u64::MAX) } else { word.parse::<u64>().ok() };
        let mut words = text.split_ascii_whitespace();
        let part = match self {
            Self::Pids | Self::Memory => words.next().and_then(number),
            Self::Cpu => words.next().and_then(number).zip(words.next().and_then(number)).map(
                // Of 100 ms, whatever the period.
                |(part, period)| part.saturating_mul(100_000) / period,
            ),
            Self::Disk => words.find_map(|word| word.strip_prefix("wbps=")).and_then(number),
        };
        part.with_context(|| format!("{file}: {text}"))
    }
}

/// A program for sh(1), and the v2 file and key that count how often it was held up by its part. `None`: the kernel tells so only
/// when it no longer is.
struct Glutton {
    program: &'static str,
    counts: Option<(&'static str, &'static str)>,
}

impl Glutton {
    fn times_met(&self, dir: &Path) -> Result<Option<u64>> {
        let Some((file, key)) = self.counts else { return Ok(None) };
        let text = fs::read_to_string(dir.join(file))?;
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        let number = line.and_then(|number| number.parse().ok());
        Ok(Some(number.with_context(|| format!("{key}in {file}"))?))
    }
}

/// How many milliseconds passed until one of a group's directories had more of a divided limit, which the others do not use: so
/// many of a hundred times no more.
fn rebalance(ground: &Ground, daemon: &Daemon, of: Divided, carriers: usize, percent: usize) -> Result<f64> {
    let (hierarchy, file) = of.file();
    let name = format!("{file}-{carriers}-{percent}");
    let shared = ground.dir(hierarchy).join(&name);
    fs::create_dir(&shared)?;
    let waiting = Waiting::start(carriers)?;
    let mut parts = Vec::new();
    for (number, pid) in waiting.pids.iter().enumerate() {
        // Where groups cross, those of memory have a directory of their own first: to be divided, it must be in one with others.
        let beside: Vec<PathBuf> = match of {
            Divided::Pids | Divided::Cpu | Divided::Disk => {
                vec![ground.dir("memory").join(format!("{name}-{number}"))]
            }
            Divided::Memory if number == 0 => {
                ["pids", "cpu,cpuacct"].map(|hierarchy| ground.dir(hierarchy).join(&name)).into()
            }
            Divided::Memory => Vec::new(),
        };
        beside.iter().try_for_each(fs::create_dir)?;
        let part: Vec<PathBuf> = std::iter::once(shared.clone()).chain(beside).rev().collect();
        for group in &part {
            fs::write(group.join("cgroup.procs"), pid)?;
        }
        parts.push(part);
    }
    fs::write(shared.join(file), of.text(Some(of.whole(carriers)))?)?;
    daemon.has_divided(&format!("{hierarchy}:/{name}"), carriers)?;
    let measure = || {
        let mut taken = Vec::new();
        for time in 0..TIMES {
            // Another than the last, which may have most of the limit still.
            let part = &parts[time % 2];
            thread::sleep(RESTED);
            let whole = of.whole(carriers);
            taken.push(match of.glutton() {
                Some(glutton) => held_up(of, &glutton, whole, part)?,
                None if of == Divided::Pids => self_in(ground, of, part, |_| longest_refusal())?,
                None => self_in(ground, of, part, |dir| begins_to_write(dir, whole))?,
            });
        }
        Ok(percentile(taken.into_iter().map(|time| time.as_secs_f64() * 1e3).collect(), percent))
    };
    let measured = measure();
    fs::write(shared.join(file), of.text(None)?)?;
    measured
}

/// What is measured of this process while it is in these groups, and so in a v2 directory.
fn self_in(
    ground: &Ground,
    of: Divided,
    groups: &[PathBuf],
    measure: impl FnOnce(&Path) -> Result<Duration>,
) -> Result<Duration> {
    groups.iter().try_for_each(|group| fs::write(group.join("cgroup.procs"), "0"))?;
    let measured = v2_directory("self").and_then(|dir| measure(&dir));
    for hierarchy in ["memory", of.file().0] {
        fs::write(ground.dir(hierarchy).join("cgroup.procs"), "0")?;
    }
    measured
}

/// Where a process is in the v2 tree.
fn v2_directory(process: &str) -> Result<PathBuf> {
    let place = fs::read_to_string(format!("/proc/{process}/cgroup"))?;
    let place = place.lines().find_map(|line| line.strip_prefix("0::/")).context("no v2 directory")?;
    Ok(Path::new("/sys/fs/cgroup").join(place))
}

/// From when a process in these groups that uses all it can have is held up by its part, or begins if nothing tells that, to when the
/// part of its directory is three quarters of the whole.
fn held_up(of: Divided, glutton: &Glutton, whole: u64, groups: &[PathBuf]) -> Result<Duration> {
    let mut busy = Command::new("sh");
    busy.args(["-c", &format!("read go; {}", glutton.program)]).stdin(Stdio::piped());
    let mut busy = Ended(busy.spawn().context("sh")?);
    for group in groups {
        fs::write(group.join("cgroup.procs"), busy.0.id().to_string())?;
    }
    let dir = v2_directory(&busy.0.id().to_string())?;
    let before = glutton.times_met(&dir)?;
    busy.0.stdin.take().context("a pipe")?.write_all(b"\n")?;
    let start = Instant::now();
    let mut met = before.is_none().then_some(start);
    loop {
        if met.is_none() && glutton.times_met(&dir)? > before {
            met = Some(Instant::now());
        }
        if of.part(&dir)? >= whole / 4 * 3 {
            // What is used tells, too: then nobody had to be held up.
            return Ok(met.map_or(Duration::ZERO, |since| since.elapsed()));
        }
        ensure!(start.elapsed() < REFUSED_FOR_GOOD, "{} stays at its part", dir.display());
        thread::sleep(Duration::from_millis(1));
    }
}

/// What is written at a stroke.
const STROKE: usize = 64 << 10;

/// From when a thread of this process begins to write to the disk, as fast as it may, to when the part of its directory is three quarters
/// of the whole. Nobody tells when it is held up first: that is a few strokes later, since some pass at once.
fn begins_to_write(dir: &Path, whole: u64) -> Result<Duration> {
    const O_DIRECT: i32 = 0o40000;
    const BLOCK: usize = 4096;
    let disk = OpenOptions::new().write(true).custom_flags(O_DIRECT).open("/dev/vda")?;
    let is_over = AtomicBool::new(false);
    let began = Instant::now();
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let memory = vec![0; STROKE + BLOCK];
            let stroke = &memory[memory.as_ptr().align_offset(BLOCK)..][..STROKE];
            while !is_over.load(Ordering::Relaxed) {
                disk.write_all_at(stroke, 0)?;
            }
            Ok(())
        });
        let has_most = || {
            while Divided::Disk.part(dir)? < whole / 4 * 3 {
                ensure!(began.elapsed() < REFUSED_FOR_GOOD, "{} stays at its part", dir.display());
                thread::sleep(Duration::from_millis(1));
            }
            Ok(began.elapsed())
        };
        let measured = has_most();
        is_over.store(true, Ordering::Relaxed);
        writer.join().expect("it only writes").and(measured)
    })
}

/// A process that is ended when this is dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _nothing_to_be_done = self.0.kill().and_then(|()| self.0.wait());
    }
}

/// Starts threads, which are tasks too and take no time to start, as fast as is allowed.
fn longest_refusal() -> Result<Duration> {
    let mut longest = Duration::ZERO;
    let mut started = Vec::new();
    let mut refused: Option<Instant> = None;
    while started.len() < STARTED {
        let (end, ended) = mpsc::channel::<()>();
        match thread::Builder::new().spawn(move || ended.recv().is_ok()) {
            Ok(thread) => {
                started.push((end, thread));
                longest = longest.max(refused.take().map_or(Duration::ZERO, |since| since.elapsed()));
            }
            Err(error) => {
                let since = *refused.get_or_insert_with(Instant::now);
                let count = started.len();
                ensure!(since.elapsed() < REFUSED_FOR_GOOD, "thread {count} is refused for good: {error}");
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
    for (end, thread) in started {
        drop(end);
        ensure!(thread.join().is_ok(), "a thread that only waits panicked");
    }
    Ok(longest)
}

/// The part of a CPU, in percent, that the daemon takes while a limit is divided over so many directories.
fn looks(ground: &Ground, daemon: &Daemon, carriers: u32) -> Result<f64> {
    let shared = ground.dir("pids").join(format!("over-{carriers}"));
    fs::create_dir(&shared)?;
    let waiting = Waiting::start(carriers as usize)?;
    let start = Instant::now();
    for (number, pid) in (0..carriers).zip(&waiting.pids) {
        hurry(start, number, carriers)?;
        // Below the root, each: were they below one group, that would be the one directory of the limit.
        let group = ground.dir("memory").join(format!("beside-{carriers}-{number}"));
        fs::create_dir(&group)?;
        fs::write(group.join("cgroup.procs"), pid)?;
        fs::write(shared.join("cgroup.procs"), pid)?;
    }
    // Last: else it would be divided anew for each that comes.
    fs::write(shared.join("pids.max"), (carriers * 4).to_string())?;
    let measured = daemon.has_divided(&format!("pids:/over-{carriers}"), carriers as usize).and_then(|()| {
        thread::sleep(SETTLING);
        daemon.busy_for(WATCHED)
    });
    // What comes next finds nothing divided.
    fs::write(shared.join("pids.max"), "max")?;
    measured
}

impl Daemon {
    /// Whether the daemon says of a limit what is to be measured.
    fn has_divided(&self, group: &str, directories: usize) -> Result<()> {
        let status =
            Command::new(&self.program).args(["status", group]).output().context("pinfold status")?;
        let said = String::from_utf8_lossy(&status.stdout);
        let expected = format!("shared over {directories} v2 directories");
        ensure!(said.contains(&expected), "{group} is not {expected}: {said}");
        Ok(())
    }

    /// The part of a CPU, in percent, that it takes meanwhile.
    fn busy_for(&self, time: Duration) -> Result<f64> {
        let before = self.ticks()?;
        let start = Instant::now();
        thread::sleep(time);
        Ok((self.ticks()? - before) / start.elapsed().as_secs_f64()) // a tick is a hundredth of a second
    }

    /// Its CPU time: utime and stime of proc_pid_stat(5), in ticks.
    fn ticks(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let (_, after_name) = stat.rsplit_once(')').context("no name")?;
        let times = after_name.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
        Ok(times.sum::<Result<f64, _>>()?)
    }
}
