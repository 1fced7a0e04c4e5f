//! `cargo xtask classify`: how long a process that executes a program is outside of the group that a rule gives it, with
//! pinfold's rules and with `cgrulesengd`.
//!
//! Both run in one guest, which has kernel v1 hierarchies for the one and a v2 tree for the other. They are measured by turns,
//! in either order, each with a rule for a program of its own.
//!
//! Most of it is the kernel's: a move writes `cgroup_threadgroup_rwsem`, which waits for a grace period of RCU (rcu_sync_enter())
//! unless the v2 tree is mounted with `favordynmods`. So there is a third one by turns, who only writes `cgroup.procs`, and all is
//! measured with that option, too: what is left then is the work of the two. The lock is one for all hierarchies. And who
//! looks pauses between two looks: the kernel holds cgroup_mutex while it shows `/proc/PID/cgroup`, which a move has to have.

use crate::guest::{self, Guest};
use crate::transcript::refuse_outside_a_guest;
use crate::workspace;
use anyhow::{Context, Result, ensure};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How often each program is executed in a round, and how many rounds there are of each kind.
const EXECS: usize = 25;
const ROUNDS: usize = 8;

/// The pause between two looks.
const PAUSE: Duration = Duration::from_micros(200);

/// The pause after a process has ended: what is done for it then is not in the way of the next.
const REST: Duration = Duration::from_millis(50);

/// Who is not in its group after that is not classified at all.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the page goes, in the workspace and in the guest's directory.
const PAGE: &str = "docs/rules-figures.md";
const FOUND: &str = "figures";

/// Arguments of `cargo xtask classify`.
#[derive(clap::Args)]
pub struct Classify {
    /// Print the figures and leave docs/rules-figures.md as it is.
    #[arg(long)]
    print: bool,
    /// In the guest: measure this pinfold, and write the figures into a directory.
    #[arg(long, hide = true, num_args = 2, value_names = ["PINFOLD", "DIR"])]
    inside: Option<Vec<PathBuf>>,
}

impl Classify {
    /// Boots the guest, and writes what it found.
    pub fn run(&self) -> Result<()> {
        if let Some([pinfold, out]) = self.inside.as_deref() {
            return measure(pinfold, out);
        }
        ensure!(Path::new(CGRULESENGD).exists(), "{CGRULESENGD} is missing: apt-get install cgroup-tools");
        let built = workspace::executables(&["build", "--release", "-p", "pinfold"])?;
        let pinfold = built.iter().find(|built| built.target.name == "pinfold").context("no pinfold")?;
        let out = std::env::temp_dir().join(format!("pinfold-classify-{}", std::process::id()));
        fs::create_dir(&out).with_context(|| format!("cannot make {}", out.display()))?;
        let found = in_guest(&pinfold.path, &out);
        let _what_is_left_is_small = fs::remove_dir_all(&out);
        let page = found?;
        println!("{page}");
        if !self.print {
            fs::write(workspace::root().join(PAGE), page).with_context(|| format!("cannot write {PAGE}"))?;
        }
        Ok(())
    }
}

fn in_guest(pinfold: &Path, out: &Path) -> Result<String> {
    let own = std::env::current_exe().context("this program's own file")?;
    let mut command: Vec<OsString> = vec![own.into(), "classify".into(), "--inside".into()];
    command.extend([pinfold.into(), out.into()]);
    let guest = Guest {
        suite: "classify".to_owned(),
        name: "hybrid".to_owned(),
        cgroup: "hybrid",
        kernel: "6.1",
        processors: 2,
        seconds: 1800,
        silence: 0,
        tries: 1,
        disk: 0,
        parameters: "",
        kept: vec![out.to_owned()],
        command,
    };
    ensure!(guest::all_well(&guest::run_all(vec![guest]))?, "no guest could be started");
    fs::read_to_string(out.join(FOUND)).context("the guest found nothing")
}

/// The peer, and its rules.
const CGRULESENGD: &str = "/usr/sbin/cgrulesengd";
const CGRULES: &str = "/etc/cgrules.conf";

/// Who classifies.
enum Engine {
    Pinfold(PathBuf, Group),
    Cgrulesengd,
    /// Nobody: the one who executes the program moves it.
    Bare,
}

/// Whether somebody is in pinfold's group all the time: for the first process its v2 directory has to be made. A group of v1 has one
/// as long as it is there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Group {
    Occupied,
    Empty,
}

/// The v2 tree of the guest, and a group there for who is moved by hand.
const TREE: &str = "/sys/fs/cgroup/unified";
const BARE: &str = "/sys/fs/cgroup/unified/bare";

impl Engine {
    /// The program that its rule is for.
    const fn program(&self) -> &'static str {
        match self {
            Self::Pinfold(..) => "/tmp/for-pinfold",
            Self::Cgrulesengd => "/tmp/for-cgrulesengd",
            Self::Bare => "/tmp/for-nobody",
        }
    }

    /// What a line of `/proc/PID/cgroup` begins with and ends with once the process is in its group.
    fn is_in(&self, line: &str) -> bool {
        match self {
            // The group's directory in the v2 tree, below the realm's.
            Self::Pinfold(..) => line.starts_with("0::/pinfold."),
            Self::Cgrulesengd => line.contains(":cpu,cpuacct:") && line.ends_with("/classified"),
            Self::Bare => line == "0::/bare",
        }
    }

    fn prepare(&self) -> Result<()> {
        fs::copy("/bin/busybox", self.program()).context("busybox")?;
        match self {
            Self::Pinfold(..) => {
                let rule = format!(
                    "[[rule]]\nexe = \"{}\"\ngroup = \"name=measured:/classified\"\n",
                    self.program()
                );
                fs::write("/tmp/rules.toml", rule).context("a rules file")
            }
            Self::Cgrulesengd => {
                fs::create_dir("/sys/fs/cgroup/cpu,cpuacct/classified").context("a group")?;
                // Without these cgrulesengd ends at once.
                fs::create_dir_all("/etc/cgconfig.d").context("/etc/cgconfig.d")?;
                fs::write("/etc/cgconfig.conf", "").context("/etc/cgconfig.conf")?;
                fs::write(CGRULES, format!("*:{}\tcpu\tclassified\n", self.program())).context(CGRULES)
            }
            Self::Bare => fs::create_dir(BARE).context(BARE),
        }
    }

    /// `None`: there is nothing to start.
    fn start(&self) -> Result<Option<Running>> {
        let mut command = match self {
            Self::Bare => return Ok(None),
            Self::Pinfold(program, _) => {
                let mut command = Command::new(program);
                command.args(["serve", "--state", "/tmp/state", "--rules", "/tmp/rules.toml"]);
                command.args(["--mount", "none,name=measured:/tmp/measured"]);
                command
            }
            Self::Cgrulesengd => {
                let mut command = Command::new(CGRULESENGD);
                command.arg("-n");
                command
            }
        };
        let null = || Stdio::null();
        let child = command.stdin(null()).stdout(null()).stderr(null()).spawn();
        Ok(Some(Running(child.with_context(|| format!("cannot start {command:?}"))?)))
    }

    /// Executes the program; answers how long it took until it was in its group, and the process. `None`: it is not in time.
    fn classified(&self, patience: Duration) -> Result<Option<(Duration, Running)>> {
        let mut sleep = Command::new(self.program());
        // A busybox does what its first argument says if it is called so.
        sleep.arg0("busybox").args(["sleep", "1000"]);
        // When spawn() returns, the child has just executed its program: it has our memory until then.
        let sleep = Running(sleep.spawn().with_context(|| format!("cannot run {}", self.program()))?);
        let executed = Instant::now();
        if let Self::Bare = self {
            fs::write(format!("{BARE}/cgroup.procs"), sleep.0.id().to_string()).context(BARE)?;
        }
        let groups = format!("/proc/{}/cgroup", sleep.0.id());
        loop {
            let text = fs::read_to_string(&groups).context("the process that was executed")?;
            let took = executed.elapsed();
            if text.lines().any(|line| self.is_in(line)) {
                return Ok(Some((took, sleep)));
            }
            if took > patience {
                return Ok(None);
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// How long it took, for each of the engines.
type Took = [Vec<Duration>; 4];

/// Measures all by turns, in the guest: as the v2 tree is mounted by default, and for quick moves.
fn measure(pinfold: &Path, out: &Path) -> Result<()> {
    refuse_outside_a_guest()?;
    let ours = |group| Engine::Pinfold(pinfold.to_owned(), group);
    let engines = [ours(Group::Occupied), ours(Group::Empty), Engine::Cgrulesengd, Engine::Bare];
    engines.iter().try_for_each(Engine::prepare)?;
    let by_default = by_turns(&engines)?;
    let remounted = Command::new("mount").args(["-o", "remount,favordynmods", TREE]).status();
    ensure!(remounted.context("mount")?.success(), "{TREE} cannot be mounted with favordynmods");
    let quick = by_turns(&engines)?;
    fs::write(out.join(FOUND), page(by_default, quick)?).context("the figures")
}

fn by_turns(engines: &[Engine; 4]) -> Result<Took> {
    let mut found = Took::default();
    for round in 0..ROUNDS {
        // Whatever becomes slower or faster meanwhile does so for all.
        let mut turns: Vec<_> = engines.iter().zip(&mut found).collect();
        if round % 2 == 1 {
            turns.reverse();
        }
        for (engine, found) in turns {
            let _running = engine.start()?;
            // It is ready when it moves somebody.
            let started = Instant::now();
            let first = loop {
                if let Some((_, first)) = engine.classified(Duration::from_secs(1))? {
                    break first;
                }
                ensure!(started.elapsed() < PATIENCE, "nobody is moved for {}", engine.program());
            };
            let _first = Some(first).filter(|_| matches!(engine, Engine::Pinfold(_, Group::Occupied)));
            for _ in 0..EXECS {
                std::thread::sleep(REST);
                let classified = engine.classified(PATIENCE)?;
                let (took, _) = classified.with_context(|| format!("not moved: {}", engine.program()))?;
                found.push(took);
            }
        }
    }
    Ok(found)
}

/// The page of figures.
fn page(by_default: Took, quick: Took) -> Result<String> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").context("the kernel's release")?;
    let version = Command::new("dpkg-query").args(["-W", "-f", "${Version}", "cgroup-tools"]).output();
    let version = version.map(|said| String::from_utf8_lossy(&said.stdout).into_owned()).unwrap_or_default();
    let execs = EXECS * ROUNDS;
    let mut text = format!(
        "# Rules: how fast they act\n\nMade by `cargo xtask classify`; do not edit. From the moment a process has executed a program \
         until `/proc/PID/cgroup`, read every {} us, shows it in the group of the rule: {execs} executions each, in {ROUNDS} rounds by \
         turns, nothing else running in the guest. cgrulesengd moves within a hierarchy of the kernel's v1 (`cpu`), pinfold in the v2 \
         tree of the same kernel. A group of v1 has a directory; pinfold's has one in the v2 tree while somebody is in it, so it is \
         measured with somebody in it, and empty each time: then the directory is made, and goes, with each process. *Nobody*: \
         whoever executes the program writes its number to `cgroup.procs` of a directory that is there, which is what the kernel \
         takes for a move.\n\n\
         A move waits for a grace period of RCU, whichever hierarchy it is in (`cgroup_threadgroup_rwsem`), unless the v2 tree is \
         mounted with `favordynmods` (Linux 6.0; forks and exits then cost a little more): what is left then is the work of the two.\n\n\
         Machine: a guest of `vm/run-in-vm --cgroup hybrid` (QEMU without KVM, 2 CPUs), Linux {}; what counts is the ratio.\n",
        PAUSE.as_micros(),
        kernel.trim()
    );
    for (how, took) in [("as it is by default", by_default), ("with `favordynmods`", quick)] {
        write!(
            text,
            "\n## The v2 tree mounted {how}\n\n| who | median | 99 of 100 | longest |\n|---|---|---|---|\n"
        )?;
        let mut medians = Vec::new();
        let peer = format!("cgrulesengd (cgroup-tools {version})");
        let who = ["pinfold", "pinfold, its group empty each time", &peer, "nobody"];
        for (who, mut took) in who.into_iter().zip(took) {
            took.sort_unstable();
            let at = |part: usize| took[(took.len() * part / 100).min(took.len() - 1)].as_secs_f64() * 1e3;
            writeln!(text, "| {who} | {:.2} ms | {:.2} ms | {:.2} ms |", at(50), at(99), at(100))?;
            medians.push(at(50));
        }
        let [ours, empty, peers, _] = medians[..] else { continue };
        writeln!(
            text,
            "\nMedian of pinfold / of cgrulesengd: {:.2}, its group empty {:.2}",
            ours / peers,
            empty / peers
        )?;
    }
    Ok(text)
}

/// A child that is killed and reaped in the end.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // A Child knows whether it was reaped: no number is signalled that is not ours.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
