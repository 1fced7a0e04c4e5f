//! `cargo xtask record`: in a guest, the transcripts of several scripts, from the kernel's v1 or from pinfold.
//!
//! For the kernel, the guest's own v1 mounts are taken away first, so that scripts may bind controllers as they like.
//! For pinfold, each script has a daemon of its own, which must leave the v2 tree as it found it.

use crate::transcript::refuse_outside_a_guest;
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long the daemon may take to start, and to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the v2-only guest has its tree.
const V2_TREE: &str = "/sys/fs/cgroup";

/// Arguments of `cargo xtask record`.
#[derive(clap::Args)]
pub struct Record {
    /// The directory for the transcripts, one `NAME.v1` a script.
    #[arg(long)]
    out: PathBuf,
    /// The pinfold binary; without it the kernel's own v1 answers.
    #[arg(long)]
    pinfold: Option<PathBuf>,
    /// The scripts.
    scripts: Vec<PathBuf>,
}

impl Record {
    /// Records every script and fails if one could not be played.
    pub fn run(&self) -> Result<()> {
        refuse_outside_a_guest()?;
        schedule_with_bfq()?;
        if self.pinfold.is_none() {
            unmount_v1()?;
        }
        let who = if self.pinfold.is_some() { "pinfold" } else { "kernel v1" };
        let mut failed = Vec::new();
        for script in &self.scripts {
            let name = script.file_stem().context("a script has a name")?.to_string_lossy();
            let start = Instant::now();
            match self.record(script, &name) {
                Ok(()) => println!("  {who}, {name}: played in {:.1} s", start.elapsed().as_secs_f32()),
                Err(error) => {
                    println!("  {who}, {name}: {error:#}");
                    failed.push(name);
                }
            }
        }
        ensure!(failed.is_empty(), "could not play {}", failed.join(", "));
        Ok(())
    }

    fn record(&self, script: &Path, name: &str) -> Result<()> {
        let mut play = Command::new(std::env::current_exe()?);
        play.arg("transcript").arg(script);
        play.arg("--root").arg(format!("/tmp/{name}"));
        play.arg("--output").arg(self.out.join(name).with_extension("v1"));
        match &self.pinfold {
            None => succeed(&mut play),
            Some(pinfold) => self.record_pinfold(pinfold, name, &mut play),
        }
    }

    fn record_pinfold(&self, pinfold: &Path, name: &str, play: &mut Command) -> Result<()> {
        let before = v2_groups(Path::new(V2_TREE));
        let log = self.out.join(name).with_extension("log");
        let mut daemon = Daemon::start(pinfold, name, &log)?;
        play.env("PINFOLD_STATE", &daemon.state);
        play.arg(format!("--mount={} mount -o {{options}} {{dir}}", pinfold.display()));
        play.arg(format!("--umount={} umount {{dir}}", pinfold.display()));
        let played = succeed(play);
        let stopped = daemon.stop().with_context(|| format!("see {}", log.display()));
        played?;
        stopped?;
        let after = v2_groups(Path::new(V2_TREE));
        let left: Vec<_> = after.difference(&before).map(|path| path.display().to_string()).collect();
        ensure!(left.is_empty(), "pinfold left groups behind: {}", left.join(", "));
        Ok(())
    }
}

/// A running `pinfold serve`.
struct Daemon<'a> {
    pinfold: &'a Path,
    state: PathBuf,
    child: Child,
}

impl<'a> Daemon<'a> {
    /// Starts it and waits until it answers.
    fn start(pinfold: &'a Path, name: &str, log: &Path) -> Result<Self> {
        let state = PathBuf::from(format!("/run/pinfold-{name}"));
        let output = std::fs::File::create(log).with_context(|| format!("cannot make {}", log.display()))?;
        let child = Command::new(pinfold)
            .arg("serve")
            .env("PINFOLD_STATE", &state)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {}", pinfold.display()))?;
        let mut daemon = Self { pinfold, state, child };
        daemon.wait_until_ready().with_context(|| format!("see {}", log.display()))?;
        Ok(daemon)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.client("hierarchies").stdout(Stdio::null()).stderr(Stdio::null()).status()?.success() {
            if let Some(status) = self.child.try_wait()? {
                bail!("pinfold serve ended at once: {status}");
            }
            ensure!(Instant::now() < deadline, "pinfold serve does not answer");
        }
        Ok(())
    }

    /// Asks it to leave and waits until it has.
    fn stop(&mut self) -> Result<()> {
        succeed(&mut self.client("down"))?;
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            match self.child.try_wait()? {
                Some(status) => break status,
                None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
                None => bail!("pinfold serve is still there {} s after pinfold down", PATIENCE.as_secs()),
            }
        };
        check_status("pinfold serve", status)
    }

    fn client(&self, command: &str) -> Command {
        let mut client = Command::new(self.pinfold);
        client.arg(command).env("PINFOLD_STATE", &self.state);
        client
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        // After a failure only: it has been waited for otherwise, and then this does nothing.
        let _already_gone = self.child.kill();
        let _status = self.child.wait();
    }
}

fn succeed(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("cannot run {name}"))?;
    check_status(&name, status)
}

fn check_status(name: &str, status: ExitStatus) -> Result<()> {
    ensure!(status.success(), "{name}: {status}");
    Ok(())
}

/// Gives the guest's disk the one scheduler that weighs groups; its files of weights are there from then on.
fn schedule_with_bfq() -> Result<()> {
    succeed(Command::new("modprobe").arg("bfq"))?;
    std::fs::write("/sys/block/vda/queue/scheduler", "bfq").context("the guest's disk cannot have BFQ")
}

/// Unmounts every v1 hierarchy of the guest, the last mounted first.
fn unmount_v1() -> Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    for line in mounts.lines().rev() {
        let fields: Vec<&str> = line.split(' ').collect();
        if let [_, dir, "cgroup", ..] = fields[..] {
            rustix::mount::unmount(dir, rustix::mount::UnmountFlags::empty())
                .with_context(|| format!("cannot unmount {dir}"))?;
        }
    }
    Ok(())
}

/// Every directory of the v2 tree.
fn v2_groups(dir: &Path) -> BTreeSet<PathBuf> {
    let mut groups = BTreeSet::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            groups.extend(v2_groups(&entry.path()));
            groups.insert(entry.path());
        }
    }
    groups
}
