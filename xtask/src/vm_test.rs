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

/// The tests of a module of a test program, as guests run them.
struct Part {
    program: &'static str,
    module: &'static str,
    on: On,
    processors: u32,
    /// More parameters of the kernel.
    parameters: &'static str,
}

/// On which kernels.
#[derive(PartialEq, Eq)]
enum On {
    /// What they ask is what v2 does with limits and programs, which changes from kernel to kernel.
    Each,
    /// The outcome is the same on all that we know: once is enough.
    Main,
}

/// The parts, the longest first: what comes last decides how long one processor is alone with it.
#[rustfmt::skip] // a table
const PARTS: &[Part] = &[
    //    program       module          kernels   processors
    part("end_to_end", "crossing",     On::Main, 2),
    part("end_to_end", "escaping",     On::Main, 2),
    part("end_to_end", "notifying",    On::Main, 2),
    part("end_to_end", "crowded",      On::Main, 2),
    part("end_to_end", "limiting",     On::Each, 1),
    part("end_to_end", "reclaiming",   On::Each, 1),
    part("end_to_end", "keys",         On::Main, 1),
    part("end_to_end", "effects",      On::Each, 1),
    part("end_to_end", "coming_back",  On::Main, 1),
    part("end_to_end", "old_clients",  On::Main, 1),
    part("end_to_end", "opening",      On::Each, 1),
    part("end_to_end", "confining",    On::Each, 2),
    part("end_to_end", "descriptors",  On::Main, 1),
    part("end_to_end", "devices",      On::Each, 1),
    part("end_to_end", "freezing",     On::Each, 1),
    part("end_to_end", "weighing",     On::Main, 2),
    part("end_to_end", "marking",      On::Each, 1),
    part("end_to_end", "measuring",    On::Each, 2),
    part("end_to_end", "ruling",       On::Main, 2),
    part("end_to_end", "mounting",     On::Main, 1),
    part("end_to_end", "releasing",    On::Main, 1),
    part("end_to_end", "restarting",   On::Main, 1),
    part("end_to_end", "running",      On::Main, 1),
    part("end_to_end", "traces",       On::Main, 1),
    part("machine",    "isolation",    On::Main, 1),
    part("kernel",     "controllers",  On::Main, 1),
    part("processes",  "nothing_left", On::Main, 1),
    part("processes",  "pids",         On::Main, 1),
    part("processes",  "rebuild",      On::Main, 1),
    part("processes",  "refusals",     On::Main, 1),
    part("end_to_end", "rdma",         On::Each, 1),
    part("end_to_end", "older",        On::Main, 1).booted_with("without=reclaim,peak"),
    part("end_to_end", "lacking",      On::Main, 1).booted_with("psi=0 cgroup_disable=hugetlb,pids"),
];

const fn part(program: &'static str, module: &'static str, on: On, processors: u32) -> Part {
    Part { program, module, on, processors, parameters: "" }
}

impl Part {
    const fn booted_with(self, parameters: &'static str) -> Self {
        Self { parameters, ..self }
    }
}

/// The kernel on which all of them run.
const MAIN_KERNEL: &str = "6.1";

/// The size of the disk that end-to-end tests have, in MiB: enough for a second or two at the rate that they set.
const DISK: u32 = 16;

/// Why a suite could not run.
const NO_GUEST: &str = "no guest could be started (what vm/run-in-vm says is above)";

/// How many seconds a part may take, twice as many as the longest takes on a slow machine.
const LONGEST: &str = "700";

/// For how many seconds a guest may print nothing. The longest test takes half as long on a busy machine.
const SILENCE: u32 = 300;

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
        let on_61 = EndToEnd::new(Suite::EndToEnd61, "6.1")?;
        let on_612 = EndToEnd::new(Suite::EndToEnd612, "6.12")?;
        let mut guests: Vec<Guest> = Vec::new();
        for suite in suites {
            guests.extend(match suite {
                Suite::Differential if self.record => vec![differential.of_kernel()?],
                Suite::Differential => {
                    vec![differential.of_pinfold(built.pinfold()?)?, differential.of_kernel()?]
                }
                Suite::EndToEnd61 => on_61.guests(&built)?,
                Suite::EndToEnd612 => on_612.guests(&built)?,
            });
        }
        let ran = guest::run_all(guests);
        let mut failed = Vec::new();
        for suite in suites {
            let ran: Vec<&Ran> = ran.iter().filter(|ran| ran.suite == suite.name()).collect();
            let verdict = match suite {
                Suite::Differential if self.record => differential.keep(&ran),
                Suite::Differential => differential.judge(&ran),
                Suite::EndToEnd61 => on_61.judge(&ran),
                Suite::EndToEnd612 => on_612.judge(&ran),
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
            _ => &[
                "test",
                "-p",
                "pinfold",
                "-p",
                "pinfold-events",
                "-p",
                "pinfold-kernel",
                "-p",
                "pinfold-restart",
                "--no-run",
            ],
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

    /// The program with a part's tests.
    fn program(&self, part: &Part) -> Result<&Executable> {
        let Part { program, module, .. } = part;
        let is_it = |built: &&Executable| {
            built.target.name == *program && built.target.kind.iter().any(|kind| kind == "test")
        };
        let found = self.0.iter().find(is_it).with_context(|| format!("cargo built no program {program}"))?;
        let source = found.target.src_path.with_file_name(module).with_extension("rs");
        ensure!(source.exists(), "{program} has no module {module}: the list is in xtask/src/vm_test.rs");
        Ok(found)
    }
}

/// The end-to-end tests for one kernel.
struct EndToEnd {
    suite: Suite,
    kernel: &'static str,
    /// Which part has been taken by a guest: a directory of its name.
    taken: Scratch,
}

impl EndToEnd {
    fn new(suite: Suite, kernel: &'static str) -> Result<Self> {
        Ok(Self { suite, kernel, taken: Scratch::new(&suite.name())? })
    }

    fn parts(&self) -> impl Iterator<Item = &'static Part> {
        PARTS.iter().filter(|part| part.on == On::Each || self.kernel == MAIN_KERNEL)
    }

    /// Guests with only cgroup v2 that take part after part until all are taken: one for each processor of this machine, one
    /// for the parts that need more than one, one for each kernel command line that parts need, and one that helps the second
    /// when there is nothing else to do. A guest runs all that it
    /// took, also after one failed, and the tests of a part one by one, as they share the machine. One that does not end is
    /// looked at, and then killed. If the guest dies, it is run again: for what it had begun, and for what is left.
    fn guests(&self, built: &Built) -> Result<Vec<Guest>> {
        let wide = || std::iter::once((2, ""));
        let narrow = std::iter::repeat_n((1, ""), guest::lanes());
        let mut special: Vec<(u32, &str)> =
            self.parts().map(|part| (part.processors, part.parameters)).collect();
        special.retain(|(_, parameters)| !parameters.is_empty());
        special.sort_unstable();
        special.dedup();
        wide()
            .chain(narrow)
            .chain(special)
            .chain(wide())
            .enumerate()
            .map(|(number, (processors, parameters))| self.guest(built, number, processors, parameters))
            .collect()
    }

    fn guest(
        &self,
        built: &Built,
        number: usize,
        processors: u32,
        parameters: &'static str,
    ) -> Result<Guest> {
        let script = r#"cd crates/pinfold; taken=$1 longest=$2 me=$3; shift 3; rc=0
            # If this guest died before: what it began and did not end is to be had again, and what failed has failed.
            for own in "$taken"/*/"$me"; do
                part=${own%/*}
                [ ! -e "$part/failed" ] || rc=1
                [ -e "$part/ended" ] || rm -rf "$part"
            done
            look() {
                for thread in /proc/[0-9]*/task/[0-9]*; do
                    [ -e "$thread/exe" ] || continue # of the kernel
                    echo "$thread $(<"$thread/comm"), in $(<"$thread/wchan")"; cat "$thread/stack"
                done 2>/dev/null
                dmesg | tail -n 60
            }
            while [ $# != 0 ]; do
                if mkdir "$taken/$2" 2>/dev/null; then
                    : >"$taken/$2/$me"
                    began=$SECONDS; echo "   $2"
                    "$1" --test-threads=1 "$2::" & tests=$!
                    sleep "$longest" & clock=$!
                    wait -n "$tests" "$clock"
                    if [ -e "/proc/$clock/exe" ]; then kill "$clock"; else
                        echo "  $2: still there after $longest s; every thread, and where it is in the kernel:"
                        look; kill -9 "$tests"
                    fi
                    wait "$tests" || { rc=1; : >"$taken/$2/failed"; }
                    : >"$taken/$2/ended"
                    echo "  $2: ended in $((SECONDS - began)) s"
                fi
                shift 2
            done; exit $rc"#;
        let mut command: Vec<OsString> =
            ["env", "PINFOLD_TEST_VM=1", "bash", "-c", script, "end-to-end"].map(OsString::from).into();
        command.push(self.taken.0.clone().into());
        command.extend([LONGEST.into(), number.to_string().into()]);
        let is_for_it = |part: &&Part| (part.processors, part.parameters) == (processors, parameters);
        for part in self.parts().filter(is_for_it) {
            command.extend([built.program(part)?.path.clone().into(), part.module.into()]);
        }
        Ok(Guest {
            suite: self.suite.name(),
            name: format!("guest {number}"),
            cgroup: "v2",
            kernel: self.kernel,
            processors,
            seconds: 1800,
            silence: SILENCE,
            tries: 2,
            disk: DISK,
            parameters,
            kept: vec![self.taken.0.clone()],
            command,
        })
    }

    /// Whether all went well, and no part was left out; false if there was no guest.
    fn judge(&self, ran: &[&Ran]) -> Result<bool> {
        let any = guest::all_well(ran.iter().copied())?;
        let ended = |part: &Part| ran.iter().flat_map(|ran| &ran.parts).any(|(name, _)| name == part.module);
        let left: Vec<&str> = self.parts().filter(|part| !ended(part)).map(|part| part.module).collect();
        ensure!(!any || left.is_empty(), "not run: {}", left.join(", "));
        Ok(any)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_the_guest_is_run_in_guests() {
        let is_listed = |module: &str| PARTS.iter().any(|part| part.module == module);
        let directories = ["crates/pinfold/tests", "crates/kernel/tests"];
        let files =
            directories.map(|dir| std::fs::read_dir(workspace::root().join(dir)).expect("it is there"));
        let files = files.into_iter().flatten().map(|file| file.expect("it can be read").path());
        for path in files.filter(|path| path.is_file()) {
            let module = path.file_stem().and_then(|name| name.to_str()).expect("UTF-8");
            let text = std::fs::read_to_string(&path).expect("UTF-8");
            assert!(!text.contains("in_guest()") || is_listed(module), "{module} is in no guest");
        }
    }
}
