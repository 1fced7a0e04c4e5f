//! What processes pay: moved, forking, and the daemon itself while nothing happens.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::measure::{Step, by_turns, median};
use super::report::{Bound, Row};
use super::servers::{Ground, Sleeper};

/// Moves a round. Each waits for a grace period of the kernel's, so they are few.
const MOVES: u32 = 60;

/// Forks a round.
const FORKS: u32 = 1500;

/// Moving a process between two groups that have one each already, against the same in the kernel's own v2 tree.
pub(super) fn attach(ground: &Ground, rounds: usize) -> Result<Row> {
    let mut residents = Vec::new();
    for (dir, file) in [("a", "tasks"), ("b", "tasks")] {
        fs::create_dir(ground.pinfold(dir))?;
        residents.push(attached(&ground.pinfold(&format!("{dir}/{file}")))?);
        fs::create_dir(ground.v2(dir))?;
        residents.push(attached(&ground.v2(&format!("{dir}/cgroup.procs")))?);
    }
    let (ours, kernels) = (Sleeper::start()?, Sleeper::start()?);
    let open =
        |path: &Path| File::options().write(true).open(path).with_context(|| path.display().to_string());
    let between = |one: File, other: File, line: String| -> Step<'static> {
        let mut files = [one, other];
        Box::new(move || {
            files[0].write_all(line.as_bytes())?;
            files.swap(0, 1);
            Ok(())
        })
    };
    let null = open(&ground.null("file"))?;
    let mut steps = [
        between(open(&ground.pinfold("a/tasks"))?, open(&ground.pinfold("b/tasks"))?, ours.line()),
        between(open(&ground.v2("a/cgroup.procs"))?, open(&ground.v2("b/cgroup.procs"))?, kernels.line()),
        between(null.try_clone()?, null, ours.line()),
    ];
    let taken = by_turns(rounds, MOVES, &mut steps)?;
    drop((steps, ours, kernels, residents));
    for dir in ["a", "b"] {
        fs::remove_dir(ground.pinfold(dir))?;
        fs::remove_dir(ground.v2(dir))?;
    }
    let reference = taken[1] + 2.0 * taken[2];
    let is = format!(
        "the kernel's own v2 migration ({:.1} us) + 2 null round trips ({:.1} us)",
        taken[1], taken[2]
    );
    Ok(Row::compared("attach of one process".to_owned(), taken[0], &is, reference, Bound::Times(1.0)))
}

fn attached(file: &Path) -> Result<Sleeper> {
    let sleeper = Sleeper::start()?;
    fs::write(file, sleeper.line()).with_context(|| file.display().to_string())?;
    Ok(sleeper)
}

/// How fast a process in a group forks children that exit, against one outside.
pub(super) fn fork_rate(ground: &Ground, rounds: usize) -> Result<Row> {
    fs::create_dir(ground.pinfold("forks"))?;
    let mut outside = Forker::start()?;
    let mut inside = Forker::start()?;
    fs::write(ground.pinfold("forks/tasks"), inside.child.id().to_string())?;
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        rates[0].push(outside.round()?);
        rates[1].push(inside.round()?);
    }
    drop((outside, inside));
    fs::remove_dir(ground.pinfold("forks"))?;
    let [outside, inside] = rates.map(median);
    Ok(Row {
        what: "fork + exit in a group".to_owned(),
        measured: inside,
        unit: "a second",
        reference: Some(("outside".to_owned(), outside)),
        bound: Bound::AtLeastTimes(0.95),
    })
}

/// A shell that forks on demand.
struct Forker {
    child: Child,
    ask: ChildStdin,
    told: BufReader<ChildStdout>,
}

impl Forker {
    fn start() -> Result<Self> {
        let script = format!(
            "while read go; do i=0; while [ $i -lt {FORKS} ]; do ( : ); i=$((i + 1)); done; echo done; done"
        );
        let mut command = Command::new("sh");
        command.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("sh")?;
        let ask = child.stdin.take().context("its input")?;
        let told = BufReader::new(child.stdout.take().context("its output")?);
        Ok(Self { child, ask, told })
    }

    /// Forks a second, in one round.
    fn round(&mut self) -> Result<f64> {
        let start = Instant::now();
        self.ask.write_all(b"go\n")?;
        let mut line = String::new();
        self.told.read_line(&mut line)?;
        ensure!(line == "done\n", "the shell that forks has ended");
        Ok(f64::from(FORKS) / start.elapsed().as_secs_f64())
    }
}

impl Drop for Forker {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// How often the threads of a daemon with nothing to do wake up.
pub(super) fn idle(ground: &Ground, seconds: u64) -> Result<Row> {
    let before = switches(ground)?;
    std::thread::sleep(Duration::from_secs(seconds));
    let woken = switches(ground)? - before;
    Ok(Row {
        what: format!("wake-ups of an idle daemon in {seconds} s"),
        measured: woken,
        unit: "",
        reference: None,
        bound: Bound::AtMost(0.0),
    })
}

/// Context switches of every thread of the daemon: one that does not wake does not switch.
fn switches(ground: &Ground) -> Result<f64> {
    let mut sum = 0;
    for thread in fs::read_dir(ground.proc("task"))? {
        let status = fs::read_to_string(thread?.path().join("status"))?;
        let counts = status.lines().filter(|line| line.contains("voluntary_ctxt_switches:"));
        for count in counts.filter_map(|line| line.split_whitespace().nth(1)) {
            sum += count.parse::<u32>()?;
        }
    }
    Ok(f64::from(sum))
}
