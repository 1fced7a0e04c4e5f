//! What the service costs in a storm of fork and exit, beside a bare netlink reader that only counts. Figures are reported, not judged,
//! but for one: that every event arrived, or a gap says that not.
//!
//!     cargo bench -p pinfold-events [-- --write]
//!
//! `--write` puts the table into docs/events-figures.md; `PINFOLD_STORM` is the number of forks of a storm, 20,000 without it.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench reports and may fail")]

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pinfold_events::change::Kind;
use pinfold_events::connector::Connector;
use pinfold_events::datagram::{self, Message};
use pinfold_events::proc::now;
use pinfold_events::{Next, Pid, Scope, Service, Source, Stream, What};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, recv};

const ROUNDS: usize = 3;

/// Shells that fork when told to, two at a time.
struct Storm {
    shells: Vec<Child>,
    forks: u64,
}

impl Storm {
    fn new(shells: u64, forks: u64) -> Self {
        let each = forks / shells;
        let script =
            format!("read go; i=0; while [ $i -lt {each} ]; do (:); i=$((i+1)); done; echo done; read end");
        let start = || {
            let mut command = Command::new("sh");
            command.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
        };
        Self { shells: (0..shells).map(|_| start()).collect(), forks: each * shells }
    }

    fn roots(&self) -> Vec<Pid> {
        self.shells.iter().map(|shell| Pid::new(shell.id()).unwrap()).collect()
    }

    /// The CPU time of the shells and of what they forked, in seconds.
    fn cpu_time(&self) -> f64 {
        let ticks = |shell: &Child| {
            let stat = fs::read_to_string(format!("/proc/{}/stat", shell.id())).unwrap();
            let fields = stat.rsplit(") ").next().unwrap().split(' ');
            // Fields 14 to 17: of itself and of its children, in user mode and in the kernel.
            fields.skip(11).take(4).map(|field| field.parse::<u64>().unwrap()).sum::<u64>()
        };
        self.shells.iter().map(ticks).sum::<u64>() as f64 / 100.0
    }

    /// Answers how long it took.
    fn rage(&mut self) -> Duration {
        let begin = Instant::now();
        let half = self.shells.len() / 2;
        let (one, other) = self.shells.split_at_mut(half);
        std::thread::scope(|scope| {
            for shells in [one, other] {
                scope.spawn(move || shells.iter_mut().for_each(rage));
            }
        });
        begin.elapsed()
    }
}

fn rage(shell: &mut Child) {
    let to = shell.stdin.as_mut().unwrap();
    to.write_all(b"go\n").unwrap();
    let mut line = String::new();
    BufReader::new(shell.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "done\n");
}

impl Drop for Storm {
    fn drop(&mut self) {
        for shell in &mut self.shells {
            let _ = shell.kill();
            let _ = shell.wait();
        }
    }
}

/// What one storm cost.
#[derive(Clone, Default)]
struct Cost {
    took: f64,
    /// Seconds of CPU time that the storm itself took.
    own: f64,
    /// Nanoseconds of CPU time for each event of the kernel's.
    each: f64,
    latency: Vec<u64>,
    received: u64,
    gaps: u64,
}

impl Cost {
    fn quantile(&self, part: f64) -> f64 {
        let mut latency = self.latency.clone();
        latency.sort_unstable();
        let at = (latency.len() as f64 * part) as usize;
        latency.get(at.min(latency.len().saturating_sub(1))).map_or(f64::NAN, |ns| *ns as f64 / 1000.0)
    }
}

/// The CPU time of the thread of this process with a name, in nanoseconds. A thread that was just started gets its name soon.
fn cpu_time(thread: &str) -> u64 {
    let of = |path: std::path::PathBuf| fs::read_to_string(path).unwrap_or_default();
    let patience = Instant::now() + Duration::from_secs(10);
    loop {
        let mut tasks = fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
        if let Some(task) = tasks.find(|task| of(task.join("comm")).trim() == thread) {
            return of(task.join("schedstat")).split(' ').next().unwrap().parse().unwrap();
        }
        assert!(Instant::now() < patience, "no thread {thread}");
        std::thread::yield_now();
    }
}

fn readable(descriptors: &[impl AsFd]) -> bool {
    let patience = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
    let mut wait: Vec<_> = descriptors.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    poll(&mut wait, Some(&patience)).unwrap() > 0
}

/// What a reading thread has seen.
#[derive(Default)]
struct Tally {
    forks: AtomicU64,
    events: AtomicU64,
    gaps: AtomicU64,
    stop: AtomicBool,
}

impl Tally {
    /// Until all forks were seen, or nothing more comes.
    fn wait(&self, forks: u64) {
        let patience = Instant::now() + Duration::from_secs(20);
        while self.forks.load(Ordering::Relaxed) < forks && Instant::now() < patience {
            std::thread::yield_now();
        }
    }
}

/// Nobody listens.
fn alone(forks: u64) -> Cost {
    let mut storm = Storm::new(2, forks);
    let took = storm.rage().as_secs_f64();
    Cost { took, own: storm.cpu_time(), ..Cost::default() }
}

/// One receives every datagram by itself, decodes it and counts.
fn bare(forks: u64) -> Cost {
    let mut storm = Storm::new(2, forks);
    let connector = Connector::open().unwrap();
    let tally = Arc::new(Tally::default());
    let (ours, roots) = (Arc::clone(&tally), storm.roots());
    let reader = move || {
        let roots: HashSet<Pid> = roots.into_iter().collect();
        let mut latency = Vec::new();
        let mut buffer = [0; 256];
        while !ours.stop.load(Ordering::Relaxed) {
            let Ok((length, _)) = recv(&connector, &mut buffer[..], RecvFlags::DONTWAIT) else {
                readable(&[&connector]);
                continue;
            };
            let Ok(Message::Event { change: Some(change), .. }) =
                datagram::decode(&buffer[..length], Some(0))
            else {
                continue;
            };
            ours.events.fetch_add(1, Ordering::Relaxed);
            if let Kind::Fork { parent: Some(parent) } = change.what
                && roots.contains(&parent)
            {
                latency.push(now().0.saturating_sub(change.time.0));
                ours.forks.fetch_add(1, Ordering::Relaxed);
            }
        }
        latency
    };
    let thread = std::thread::Builder::new().name("bare".into()).spawn(reader).unwrap();
    let before = (cpu_time("bare"), tally.events.load(Ordering::Relaxed));
    let took = storm.rage().as_secs_f64();
    tally.wait(storm.forks);
    let events = tally.events.load(Ordering::Relaxed) - before.1;
    let each = (cpu_time("bare") - before.0) as f64 / events as f64;
    tally.stop.store(true, Ordering::Relaxed);
    let latency = thread.join().unwrap();
    Cost {
        took,
        own: storm.cpu_time(),
        each,
        latency,
        received: tally.forks.load(Ordering::Relaxed),
        gaps: 0,
    }
}

/// The service, with a subscriber to everything, or one to each shell and its descendants.
fn served(forks: u64, shells: u64, is_narrow: bool) -> Cost {
    let mut storm = Storm::new(shells, forks);
    let service = Service::start(Source::connector().unwrap()).unwrap();
    let own = Pid::new(std::process::id()).unwrap();
    let scopes: Vec<Scope> =
        if is_narrow { storm.roots().into_iter().map(Scope::Subtree).collect() } else { vec![Scope::All] };
    let sockets: Vec<OwnedFd> =
        scopes.iter().map(|scope| service.subscribe(own, scope).unwrap().socket).collect();
    let tally = Arc::new(Tally::default());
    let (ours, roots) = (Arc::clone(&tally), storm.roots());
    let reader = move || read(sockets, &roots.into_iter().collect(), &ours);
    let thread = std::thread::spawn(reader);
    let before = (cpu_time("events"), service.counters().datagrams);
    let took = storm.rage().as_secs_f64();
    tally.wait(storm.forks);
    let events = service.counters().datagrams - before.1;
    let each = (cpu_time("events") - before.0) as f64 / events as f64;
    assert_eq!(service.counters().scans, 1 + u64::from(service.counters().losses > 0));
    tally.stop.store(true, Ordering::Relaxed);
    let latency = thread.join().unwrap();
    let gaps = tally.gaps.load(Ordering::Relaxed);
    Cost { took, own: storm.cpu_time(), each, latency, received: tally.forks.load(Ordering::Relaxed), gaps }
}

fn read(sockets: Vec<OwnedFd>, roots: &HashSet<Pid>, tally: &Tally) -> Vec<u64> {
    let mut latency = Vec::new();
    let mut streams: Vec<Stream> = sockets.into_iter().map(Stream::new).collect();
    while !tally.stop.load(Ordering::Relaxed) {
        readable(&streams);
        for stream in &mut streams {
            while let Next::Event(event) = stream.try_next().unwrap() {
                match event.what {
                    What::Fork { parent: Some(parent), .. }
                        if parent.pid.is_some_and(|p| roots.contains(&p)) =>
                    {
                        latency.push(now().0.saturating_sub(event.time.0));
                        tally.forks.fetch_add(1, Ordering::Relaxed);
                    }
                    What::Gap => {
                        tally.gaps.fetch_add(1, Ordering::Relaxed);
                    }
                    _ => {}
                }
            }
        }
    }
    latency
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The medians of the rounds of one way to run a storm.
struct Row {
    name: &'static str,
    rate: f64,
    own: f64,
    each: f64,
    middle: f64,
    late: f64,
    received: u64,
    gaps: u64,
}

impl Row {
    fn new(name: &'static str, forks: u64, rounds: &[Cost]) -> Self {
        let of = |figure: &dyn Fn(&Cost) -> f64| median(rounds.iter().map(figure).collect());
        Self {
            name,
            rate: of(&|cost| forks as f64 / cost.took),
            own: of(&|cost| cost.own / forks as f64 * 1e6),
            each: of(&|cost| cost.each / 1000.0),
            middle: of(&|cost| cost.quantile(0.5)),
            late: of(&|cost| cost.quantile(0.99)),
            received: rounds.iter().map(|cost| cost.received).min().unwrap(),
            gaps: rounds.iter().map(|cost| cost.gaps).max().unwrap(),
        }
    }

    fn text(&self) -> String {
        let Self { name, rate, own, each, middle, late, received, gaps } = self;
        let figures = format!("{each:.2} us | {middle:.0} us | {late:.0} us | {received} | {gaps}");
        let figures = if *received == 0 { "| | | | ".to_owned() } else { figures };
        format!("| {name} | {rate:.0} a second | {own:.0} us | {figures} |\n")
    }
}

fn main() {
    if let Err(error) = Connector::open() {
        println!("skipped: {error}");
        return;
    }
    let forks = std::env::var("PINFOLD_STORM").map_or(20_000, |forks| forks.parse().unwrap());
    let ways: [(&str, &dyn Fn() -> Cost); 5] = [
        ("nobody listens", &|| alone(forks)),
        ("a bare reader of the netlink socket", &|| bare(forks)),
        ("the service, one subscriber to everything", &|| served(forks, 2, false)),
        ("100 shells in turn, one subscriber to everything", &|| served(forks, 100, false)),
        ("100 shells in turn, 100 subscribers with a hundredth each", &|| served(forks, 100, true)),
    ];
    let mut rounds = vec![Vec::new(); ways.len()];
    for _ in 0..ROUNDS {
        for ((name, way), costs) in ways.iter().zip(&mut rounds) {
            let cost = way();
            println!("{name}: {:.1} s", cost.took);
            let whole = cost.received == 0 || cost.received == forks || cost.gaps > 0;
            assert!(whole, "{name}: {} of {forks} forks and no gap", cost.received);
            costs.push(cost);
        }
    }
    let rows = ways.iter().zip(&rounds).map(|((name, _), costs)| Row::new(name, forks, costs));
    let text = report(forks, &rows.collect::<Vec<_>>());
    println!("\n{text}");
    if std::env::args().any(|argument| argument == "--write") {
        fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/events-figures.md"), text).unwrap();
    }
}

fn report(forks: u64, rows: &[Row]) -> String {
    let [alone, bare, one, wide, narrow] = rows else { unreachable!("five ways") };
    let first = |path: &str, key: &str| {
        let text = fs::read_to_string(path).unwrap();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default().to_owned();
        line.split(':').next_back().unwrap_or_default().trim().to_owned()
    };
    let processor = first("/proc/cpuinfo", "model name");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let cpus = std::thread::available_parallelism().unwrap();
    let command = format!("PINFOLD_STORM={forks} cargo bench -p pinfold-events -- --write");
    let mut text = format!(
        "# Process events: what they cost\n\nMade by `{command}`; do not edit. A storm is {forks} forks and exits of two shells \
         at a time. CPU time is of the one thread that serves, or reads, for each datagram of the kernel's. Latency is from the \
         kernel's time stamp to the reader. Medians of {ROUNDS} rounds, by turns, on a machine that also did other work; the \
         fewest forks received and the most gaps of a round.\n\nMachine: {cpus} CPUs ({processor}), Linux {kernel}\n\
         | storm | forks | CPU time of a fork | CPU time of an event | latency, median | 99 of 100 | forks received | gaps |\n\
         |---|---|---|---|---|---|---|---|\n",
        kernel = kernel.trim().to_owned() + "\n",
    );
    rows.iter().for_each(|row| text += &row.text());
    writeln!(text, "\n| figure | measured | promised |\n|---|---|---|").unwrap();
    let slower = |than: &Row, row: &Row| (1.0 - row.rate / than.rate) * 100.0;
    // What the thread takes, the storm has not: this does not depend on what else the machine does.
    let beyond = 2.0 * (one.each - bare.each) / bare.own;
    for (figure, measured, promised) in [
        ("CPU time of the service / of the bare reader", format!("{:.2}", one.each / bare.each), "reported"),
        ("storm slowed by the bare reader", format!("{:.1} %", slower(alone, bare)), "reported"),
        ("storm slowed by the service beyond that", format!("{:.1} %", slower(bare, one)), "at most 5 %"),
        ("the same, from CPU times: two events a fork", format!("{:.1} %", beyond * 100.0), "at most 5 %"),
        ("100 narrow subscribers / one, CPU time", format!("{:.2}", narrow.each / wide.each), "at most 3"),
    ] {
        writeln!(text, "| {figure} | {measured} | {promised} |").unwrap();
    }
    text
}
