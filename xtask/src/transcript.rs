//! `cargo xtask transcript`: runs scripts of operations and writes down what came of each.
//!
//! One script runs on a kernel with cgroup v1 and on pinfold; the two transcripts must be equal but for a reviewed
//! list. A line of a script is one operation, its transcript is that line followed by the result, indented: what was
//! read, `ok`, or an errno's name. `differential/README.md` describes the language; `--operations` prints it.
//!
//! Everything is done by system calls of this process or of a helper that it started: a fork and exec in a guest
//! without KVM costs 80 ms. It runs in a guest only (`vm/run-in-vm`), because a script may move, freeze and kill.

mod actor;
mod agent;
mod cast;
mod contents;
mod ears;
mod entries;
mod hold;
mod mounts;
mod operations;
mod outcome;
mod pattern;
mod runner;
mod sweep;
mod words;

pub use agent::{is_agent, note};
pub use hold::Hold;

use anyhow::{Context, Result, bail};
use mounts::Mounter;
use std::path::{Path, PathBuf};

/// Arguments of `cargo xtask transcript`.
#[derive(clap::Args)]
pub struct Transcript {
    /// The script to run.
    #[arg(required_unless_present = "operations")]
    script: Option<PathBuf>,
    /// A directory to be made for the run: mount points and the release agents' logs go there.
    #[arg(long, required_unless_present = "operations")]
    root: Option<PathBuf>,
    /// Where the transcript goes; the standard output if not given.
    #[arg(long)]
    output: Option<PathBuf>,
    /// A command line that mounts in place of mount(2); `{options}` and `{dir}` are filled in.
    #[arg(long, value_name = "COMMAND")]
    mount: Option<String>,
    /// A command line that unmounts `{dir}`.
    #[arg(long, value_name = "COMMAND")]
    umount: Option<String>,
    /// Print the operations of the language and exit.
    #[arg(long)]
    operations: bool,
}

impl Transcript {
    /// Runs the script and writes its transcript.
    pub fn run(&self) -> Result<()> {
        let (Some(script), Some(root), false) = (&self.script, &self.root, self.operations) else {
            print!("{}", described());
            return Ok(());
        };
        refuse_outside_a_guest()?;
        let mounter = Mounter::new(self.mount.as_deref(), self.umount.as_deref())?;
        let transcript = record(script, root, mounter)?;
        match &self.output {
            Some(path) => {
                std::fs::write(path, transcript).with_context(|| format!("cannot write {}", path.display()))
            }
            None => {
                print!("{transcript}");
                Ok(())
            }
        }
    }
}

/// Refuses to go on unless this machine was started by `vm/run-in-vm`.
pub fn refuse_outside_a_guest() -> Result<()> {
    let line = std::fs::read_to_string("/proc/cmdline").context("cannot read /proc/cmdline")?;
    if !line.contains(" rundir=") {
        bail!("scripts move, freeze and kill processes, so they run in a guest only: use vm/run-in-vm");
    }
    Ok(())
}

/// The transcript of the script at `path`, run with a fresh directory `root`.
fn record(path: &Path, root: &Path, mounter: Mounter) -> Result<String> {
    let script = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    std::fs::create_dir_all(root).with_context(|| format!("cannot make {}", root.display()))?;
    let root = root.canonicalize()?;
    std::env::set_current_dir(&root)?;
    let mut runner = runner::Runner::new(&root, mounter)?;
    let result = runner.play(&script).with_context(|| format!("in {}", path.display()));
    let swept = runner.sweep();
    let transcript = result?;
    swept.with_context(|| format!("{} left something behind", path.display()))?;
    Ok(transcript)
}

/// The table of operations as text.
fn described() -> String {
    let of_runner = runner::OPERATIONS.iter().map(|(name, arguments)| (*name, *arguments));
    let of_actors = operations::all().map(|operation| (operation.name, operation.arguments));
    let row = |(name, arguments): (&str, &str)| format!("{}\n", format!("{name} {arguments}").trim_end());
    let mut text = String::from("Steps of the runner:\n");
    text.extend(of_runner.map(|r| format!("    {}", row(r))));
    text.push_str("Operations of any process:\n");
    text.extend(of_actors.map(|r| format!("    {}", row(r))));
    text
}
