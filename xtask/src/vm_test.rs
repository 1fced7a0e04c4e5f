//! `cargo xtask vm-test`: the suites that need a kernel of their own. Their guests run side by side.

mod differential;

use crate::guest::{self, Guest, Ran};
use crate::workspace::{self, Executable};
use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use differential::Differential;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Arguments of `cargo xtask vm-test`.
#[derive(clap::Args)]
pub struct VmTest {
    /// The suites; all of them if none is named.
    suites: Vec<Suite>,
    /// Write what the kernel says to differential/expected instead of comparing with it.
    #[arg(long)]
    record: bool,
    /// Of the differential suite, only these scripts.
    #[arg(long = "script", value_name = "NAME")]
    scripts: Vec<String>,
}

/// One suite.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Suite {
    /// The same scripts on the kernel's v1 and on pinfold
    Differential,
    /// End to end on Debian 12's kernel
    #[value(name = "e2e-6.1")]
    EndToEnd61,
    /// End to end on the newer kernel of Debian 12
    #[value(name = "e2e-6.12")]
    EndToEnd612,
}

/// The end-to-end programs that ask what v2 does with limits and programs, which changes from kernel to kernel: they run on each.
/// Those that are neither here nor below ask only what the host's kernel answers as well, in a tenth of the time; they run
/// there, with `cargo test`.
const ON_EACH_KERNEL: &[&str] = &["confining", "crossing", "devices", "limiting", "marking", "notifying"];

/// The end-to-end programs whose outcome depends on the kernel below, and is the same on all that we know: once is enough. With
/// them, the test programs of crate `restart` that make real processes.
const IN_GUESTS: &[&str] = &[
    "capturing",
    "mounting",
    "nothing_left",
    "old_clients",
    "opening",
    "pids",
    "rebuild",
    "releasing",
    "restarting",
    "running",
    "traces",
];

/// The kernel on which all of them run.
const MAIN_KERNEL: &str = "6.1";

/// How many programs a guest runs: few, so that no processor is idle for long at the end; not one, as a boot takes 10 s.
const PROGRAMS_OF_A_GUEST: usize = 4;

/// The size of the disk that end-to-end tests have, in MiB: enough for a second or two at the rate that they set.
const DISK: u32 = 16;

/// Why a suite could not run.
const NO_GUEST: &str = "no guest could be started (what vm/run-in-vm says is above)";

/// How many parts are named that took longest.
const SLOWEST: usize = 12;

impl VmTest {
    /// All suites, as CI runs them.
    pub fn all() -> Self {
        Self { suites: Vec::new(), record: false, scripts: Vec::new() }
    }

    /// Builds what the suites need, and then, as a guest runs what lies in the build's directory, runs all their guests.
    pub fn run(&self) -> Result<()> {
        let suites = if self.suites.is_empty() { Suite::value_variants() } else { &self.suites };
        let built = Built::new(suites)?;
        let differential = Differential::new(&self.scripts)?;
        // The longest first: what comes last decides how long one processor is alone with it.
        let mut guests: Vec<Guest> = Vec::new();
        for suite in suites {
            guests.extend(match suite {
                Suite::Differential if self.record => vec![differential.of_kernel()?],
                Suite::Differential => {
                    vec![differential.of_pinfold(built.pinfold()?)?, differential.of_kernel()?]
                }
                Suite::EndToEnd61 => built.end_to_end(*suite, "6.1")?,
                Suite::EndToEnd612 => built.end_to_end(*suite, "6.12")?,
            });
        }
        let ran = guest::run_all(guests);
        let mut failed = Vec::new();
        for suite in suites {
            let ran: Vec<&Ran> = ran.iter().filter(|ran| ran.suite == suite.name()).collect();
            let verdict = match suite {
                Suite::Differential if self.record => differential.keep(&ran),
                Suite::Differential => differential.judge(&ran),
                Suite::EndToEnd61 | Suite::EndToEnd612 => guest::all_well(ran.iter().copied()),
            };
            let took: Duration = ran.iter().map(|ran| ran.took).sum();
            match verdict.and_then(can_be_skipped) {
                Ok(true) => println!("vm-test {}: ok, {} s of guests", suite.name(), took.as_secs()),
                Ok(false) => println!("vm-test {}: SKIPPED: {NO_GUEST}", suite.name()),
                Err(error) => {
                    println!("vm-test {}: FAILED: {error:#}", suite.name());
                    failed.push(suite.name());
                }
            }
        }
        show_slowest(&ran);
        ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
        Ok(())
    }
}

impl Suite {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// The programs that guests run.
struct Built(Vec<Executable>);

impl Built {
    fn new(suites: &[Suite]) -> Result<Self> {
        let arguments: &[&str] = match suites {
            [Suite::Differential] => &["build", "-p", "pinfold"],
            // As `cargo test` has built them in CI: for some crates only, cargo builds what they depend on once more, with
            // fewer features.
            all if all.len() == Suite::value_variants().len() => &["test", "--workspace", "--no-run"],
            _ => &["test", "-p", "pinfold", "-p", "pinfold-restart", "--no-run"],
        };
        workspace::executables(arguments).map(Self)
    }

    /// The program that is tested: the one that tests find by `CARGO_BIN_EXE_pinfold`, not the test of its own modules.
    fn pinfold(&self) -> Result<&PathBuf> {
        let is_wanted =
            |built: &&Executable| built.target.name == "pinfold" && built.path.ends_with("debug/pinfold");
        let found = self.0.iter().find(is_wanted).context("cargo built no program pinfold")?;
        Ok(&found.path)
    }

    /// Guests with only cgroup v2 that run the end-to-end programs for one kernel.
    fn end_to_end(&self, suite: Suite, kernel: &'static str) -> Result<Vec<Guest>> {
        let is_test = |built: &&Executable| {
            let name = built.target.name.as_str();
            let is_wanted =
                ON_EACH_KERNEL.contains(&name) || (kernel == MAIN_KERNEL && IN_GUESTS.contains(&name));
            is_wanted && built.target.kind.iter().any(|kind| kind == "test")
        };
        let tests: Vec<&Executable> = self.0.iter().filter(is_test).collect();
        let wanted = ON_EACH_KERNEL.iter().chain(if kernel == MAIN_KERNEL { IN_GUESTS } else { &[] });
        for name in wanted {
            let is_there = tests.iter().any(|test| test.target.name == *name);
            ensure!(is_there, "no test program is called {name}: the lists are in xtask/src/vm_test.rs");
        }
        let guests = tests.chunks(PROGRAMS_OF_A_GUEST).map(|tests| {
            let names: Vec<&str> = tests.iter().map(|test| test.target.name.as_str()).collect();
            Guest {
                suite: suite.name(),
                name: names.join(" "),
                cgroup: "v2",
                kernel,
                seconds: 900,
                disk: DISK,
                kept: Vec::new(),
                command: one_by_one(tests),
            }
        });
        Ok(guests.collect())
    }
}

/// The command that runs test programs one by one: all of them, also after one failed. The tests of a program are run one by
/// one, too, as they share the machine.
fn one_by_one(tests: &[&Executable]) -> Vec<OsString> {
    let script = "cd crates/pinfold; rc=0; while [ $# != 0 ]; do began=$SECONDS; echo \"   $1\"; \
                  \"$2\" --test-threads=1 || rc=1; echo \"  $1: ended in $((SECONDS - began)) s\"; shift 2; done; exit $rc";
    let mut command: Vec<OsString> =
        ["env", "PINFOLD_TEST_VM=1", "bash", "-c", script, "end-to-end"].map(OsString::from).into();
    for test in tests {
        command.extend([OsString::from(&test.target.name), test.path.clone().into()]);
    }
    command
}

/// Whether a suite ran: one that could not is skipped on a developer's machine, and a failure in CI.
fn can_be_skipped(ran: bool) -> Result<bool> {
    let in_ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    if in_ci && !ran {
        bail!("{NO_GUEST}");
    }
    Ok(ran)
}

/// Names the parts that took longest: there is time to be had.
fn show_slowest(ran: &[Ran]) {
    let mut parts: Vec<(f32, String)> = Vec::new();
    for Ran { suite, parts: named, .. } in ran {
        parts.extend(named.iter().map(|(name, seconds)| (*seconds, format!("{suite}, {name}"))));
    }
    parts.sort_by(|one, other| other.0.total_cmp(&one.0));
    println!("vm-test: what took longest");
    parts.iter().take(SLOWEST).for_each(|(seconds, name)| println!("  {seconds:4.0} s  {name}"));
}

/// A directory that is removed again.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("pinfold-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.path(name);
        std::fs::create_dir(&path)?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _what_is_left_is_small = std::fs::remove_dir_all(&self.0);
    }
}
