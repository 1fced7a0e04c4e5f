//! Guests: virtual machines started by `vm/run-in-vm` that see this machine's files.

use crate::workspace;
use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

/// The exit status by which `run-in-vm` says that there was no guest to run in.
const NO_GUEST: i32 = 125;
/// The same, that the time was up.
const TIMED_OUT: i32 = 124;

/// What a guest is to be.
pub struct Guest {
    /// The cgroup versions it has: `v1` or `v2`.
    pub cgroup: &'static str,
    /// Its kernel's release.
    pub kernel: &'static str,
    /// How many seconds the command may take.
    pub seconds: u32,
    /// The size of the empty disk that it has as /dev/vda, in MiB; 0: none.
    pub disk: u32,
    /// Directories in which what the guest writes is kept.
    pub kept: Vec<PathBuf>,
}

/// How a command in a guest ended.
pub enum Ended {
    /// With status 0.
    Well,
    /// With another status, or not in time.
    Badly(String),
    /// Not at all: no guest could be started.
    NoGuest,
}

impl Guest {
    /// Boots the guest, runs a command in it as root in the root of the workspace, and shows what it prints.
    pub fn run(&self, command: &[&OsStr]) -> Result<Ended> {
        let mut run = Command::new(workspace::root().join("vm/run-in-vm"));
        run.current_dir(workspace::root());
        run.args(["--cgroup", self.cgroup, "--kernel", self.kernel, "--timeout", &self.seconds.to_string()]);
        run.args(["--disk", &self.disk.to_string()]);
        for directory in &self.kept {
            run.arg("--rw").arg(directory);
        }
        let status = run.arg("--").args(command).status().context("cannot run vm/run-in-vm")?;
        Ok(match status.code() {
            Some(0) => Ended::Well,
            Some(NO_GUEST) => Ended::NoGuest,
            Some(TIMED_OUT) => Ended::Badly(format!("not done in {} s", self.seconds)),
            Some(code) => Ended::Badly(format!("exit status {code}")),
            None => bail!("vm/run-in-vm: {status}"),
        })
    }
}
