//! `cargo xtask vm-test`: the suites that need a kernel of their own, one boot (or two) a suite.

use crate::differences::Differences;
use crate::guest::{Ended, Guest};
use crate::workspace::{self, Executable};
use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::ValueEnum;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

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

/// What came of a suite that did not fail.
enum Verdict {
    Passed,
    /// It could not run, and why.
    Skipped(&'static str),
}

/// Why a suite could not run.
const NO_GUEST: &str = "no guest could be started (what vm/run-in-vm says is above)";

impl VmTest {
    /// All suites, as CI runs them.
    pub fn all() -> Self {
        Self { suites: Vec::new(), record: false, scripts: Vec::new() }
    }

    /// Runs the suites; every one is run, also after a failure.
    pub fn run(&self) -> Result<()> {
        let suites = if self.suites.is_empty() { Suite::value_variants() } else { &self.suites };
        let mut failed = Vec::new();
        for suite in suites {
            let start = Instant::now();
            println!("vm-test {}", suite.name());
            let result = match suite {
                Suite::Differential => self.differential(),
                Suite::EndToEnd61 => end_to_end("6.1"),
                Suite::EndToEnd612 => end_to_end("6.12"),
            };
            match result {
                Ok(Verdict::Passed) => {
                    println!("vm-test {}: ok in {} s", suite.name(), start.elapsed().as_secs());
                }
                Ok(Verdict::Skipped(why)) => println!("vm-test {}: SKIPPED: {why}", suite.name()),
                Err(error) => {
                    println!("vm-test {}: FAILED: {error:#}", suite.name());
                    failed.push(suite.name());
                }
            }
        }
        ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
        Ok(())
    }

    fn differential(&self) -> Result<Verdict> {
        let scripts = self.scripts()?;
        let out = Scratch::new("differential")?;
        let kernel = out.directory("kernel")?;
        if self.record {
            if !record(&scripts, "v1", &kernel, None)? {
                return cannot_run(NO_GUEST);
            }
            keep(&scripts, &kernel)?;
            return Ok(Verdict::Passed);
        }
        let pinfold = program("pinfold")?;
        let ours = out.directory("pinfold")?;
        // Side by side: each guest plays one script at a time and so keeps one processor busy.
        let (of_kernel, of_pinfold) = std::thread::scope(|scope| {
            let of_kernel = scope.spawn(|| record(&scripts, "v1", &kernel, None));
            let of_pinfold = record(&scripts, "v2", &ours, Some(&pinfold));
            (of_kernel.join(), of_pinfold)
        });
        let of_kernel = of_kernel.map_err(|_| anyhow!("recording panicked"))?;
        if !of_kernel? || !of_pinfold? {
            return cannot_run(NO_GUEST);
        }
        let of_kernel = compare(&scripts, &kernel, &mut Differences::none())?;
        let mut complaints: Vec<String> =
            of_kernel.iter().map(|what| format!("the kernel itself: {what}")).collect();
        let mut listed = Differences::read(&directory().join("differences.toml"))?;
        complaints.extend(compare(&scripts, &ours, &mut listed)?);
        complaints.extend(listed.unused(&scripts));
        show_logs(&scripts, &ours);
        ensure!(
            complaints.is_empty(),
            "{} differences (- expected, + found):\n{}",
            complaints.len(),
            complaints.join("\n")
        );
        Ok(Verdict::Passed)
    }

    /// The names of the scripts to play, without `.script`.
    fn scripts(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(directory())? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "script") {
                names.extend(path.file_stem().and_then(OsStr::to_str).map(str::to_owned));
            }
        }
        names.sort();
        if let Some(unknown) = self.scripts.iter().find(|name| !names.contains(name)) {
            bail!("differential/{unknown}.script does not exist");
        }
        names.retain(|name| self.scripts.is_empty() || self.scripts.contains(name));
        Ok(names)
    }
}

impl Suite {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// Where the scripts are.
fn directory() -> PathBuf {
    workspace::root().join("differential")
}

/// Plays the scripts in one guest; false if there was none. What could not be played is told by the comparison.
fn record(scripts: &[String], cgroup: &'static str, out: &Path, pinfold: Option<&Path>) -> Result<bool> {
    let xtask = own_program()?;
    let mut command: Vec<OsString> = vec![xtask.into(), "record".into(), "--out".into(), out.into()];
    if let Some(pinfold) = pinfold {
        command.extend(["--pinfold".into(), pinfold.into()]);
    }
    command.extend(scripts.iter().map(|name| directory().join(name).with_extension("script").into()));
    let command: Vec<&OsStr> = command.iter().map(OsString::as_os_str).collect();
    let guest = Guest { cgroup, kernel: "6.1", seconds: 900, disk: 0, kept: vec![out.to_owned()] };
    match guest.run(&command)? {
        Ended::Well => Ok(true),
        Ended::NoGuest => Ok(false),
        Ended::Badly(how) => {
            println!("  recording: {how}");
            Ok(true)
        }
    }
}

/// Compares each script's transcript in `found` with the expected one.
fn compare(scripts: &[String], found: &Path, differences: &mut Differences) -> Result<Vec<String>> {
    let mut complaints = Vec::new();
    for script in scripts {
        let expected = directory().join("expected").join(script).with_extension("v1");
        let expected = std::fs::read_to_string(&expected)
            .with_context(|| format!("{} is missing: record it with --record", expected.display()))?;
        match std::fs::read_to_string(found.join(script).with_extension("v1")) {
            Ok(actual) => complaints.extend(differences.compare(script, &expected, &actual)),
            Err(_) => complaints.push(format!("{script}: could not be played (the reason is above)")),
        }
    }
    Ok(complaints)
}

/// Makes what the kernel said the expected transcripts.
fn keep(scripts: &[String], kernel: &Path) -> Result<()> {
    for script in scripts {
        let name = Path::new(script).with_extension("v1");
        let to = directory().join("expected").join(&name);
        std::fs::copy(kernel.join(&name), to).with_context(|| format!("{script} was not recorded"))?;
    }
    println!("  recorded {}", scripts.join(", "));
    Ok(())
}

/// Shows the end of the daemon's log of each script that could not be played, as the guest's files go away.
fn show_logs(scripts: &[String], found: &Path) {
    for script in scripts {
        let file = found.join(script);
        if file.with_extension("v1").exists() {
            continue;
        }
        let log = std::fs::read_to_string(file.with_extension("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        println!("  the daemon's last words during {script}:");
        lines[lines.len().saturating_sub(20)..].iter().for_each(|line| println!("    {line}"));
    }
}

/// The size of the disk that end-to-end tests have, in MiB: enough for a second or two at the rate that they set.
const DISK: u32 = 16;

/// The end-to-end programs whose outcome depends on the kernel below. The others ask only what the host's kernel answers as
/// well, in a tenth of the time; they run there, with `cargo test`.
const IN_GUESTS: [&str; 12] = [
    "capturing",
    "confining",
    "crossing",
    "devices",
    "limiting",
    "marking",
    "mounting",
    "notifying",
    "releasing",
    "restarting",
    "running",
    "traces",
];

/// Those of them that ask what v2 does with limits and programs, which changes from kernel to kernel: they run on each. What the
/// others ask is the same on all that we know; once is enough.
const ON_EACH_KERNEL: [&str; 6] = ["confining", "crossing", "devices", "limiting", "marking", "notifying"];

/// The kernel on which all of them run.
const MAIN_KERNEL: &str = "6.1";

/// The test programs of crate `restart` that make real processes: what they ask is the kernel's own.
const RESTARTS_IN_GUESTS: [&str; 3] = ["nothing_left", "pids", "rebuild"];

/// Runs these in a guest that has only cgroup v2.
fn end_to_end(kernel: &'static str) -> Result<Verdict> {
    let built = workspace::executables(&["test", "-p", "pinfold", "-p", "pinfold-restart", "--no-run"])?;
    let is_test = |built: &Executable| {
        let name = built.target.name.as_str();
        let is_wanted = match kernel == MAIN_KERNEL {
            true => IN_GUESTS.contains(&name) || RESTARTS_IN_GUESTS.contains(&name),
            false => ON_EACH_KERNEL.contains(&name),
        };
        is_wanted && built.target.kind.iter().any(|kind| kind == "test")
    };
    let tests: Vec<PathBuf> = built.into_iter().filter(is_test).map(|built| built.path).collect();
    ensure!(!tests.is_empty(), "crate pinfold has no end-to-end test (crates/pinfold/tests)");
    // Every program is run, also after one failed; tests of one program are run one by one, as they share the machine.
    let script = "cd crates/pinfold; rc=0; for t; do \"$t\" --test-threads=1 || rc=1; done; exit $rc";
    let start = ["env", "PINFOLD_TEST_VM=1", "bash", "-c", script, "end-to-end"].map(OsStr::new);
    let command: Vec<&OsStr> = start.into_iter().chain(tests.iter().map(|path| path.as_os_str())).collect();
    let guest = Guest { cgroup: "v2", kernel, seconds: 900, disk: DISK, kept: Vec::new() };
    match guest.run(&command)? {
        Ended::Well => Ok(Verdict::Passed),
        Ended::Badly(how) => bail!("{how}"),
        Ended::NoGuest => cannot_run(NO_GUEST),
    }
}

/// The program `name` of the crate of the same name, built now.
fn program(name: &str) -> Result<PathBuf> {
    let built = workspace::executables(&["build", "-p", name])?;
    let is_wanted = |built: &Executable| built.target.name == name && built.target.kind == ["bin"];
    let found =
        built.into_iter().find(is_wanted).with_context(|| format!("cargo built no program {name}"))?;
    Ok(found.path)
}

/// A suite that cannot run is skipped on a developer's machine, and a failure in CI.
fn cannot_run(why: &'static str) -> Result<Verdict> {
    if std::env::var_os("CI").is_some_and(|value| value == "true") {
        bail!("{why}");
    }
    Ok(Verdict::Skipped(why))
}

/// A directory that is removed again.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("pinfold-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.0.join(name);
        std::fs::create_dir(&path)?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _what_is_left_is_small = std::fs::remove_dir_all(&self.0);
    }
}

/// This program's file. A build that ran since it was started has put another in its place, and the kernel then calls the
/// running one deleted; the new one does the same.
fn own_program() -> Result<PathBuf> {
    const REPLACED: &[u8] = b" (deleted)";
    let running = std::env::current_exe().context("this program's own file")?;
    let shown = running.as_os_str().as_bytes();
    Ok(shown.strip_suffix(REPLACED).map_or_else(|| running.clone(), |path| OsStr::from_bytes(path).into()))
}
