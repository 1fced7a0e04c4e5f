//! The differential suite: the same scripts on the kernel's v1 and on pinfold, each in a guest, and what differs.

use super::{SILENCE, Scratch, Suite};
use crate::differences::Differences;
use crate::guest::{self, Guest, Ran};
use crate::workspace;
use anyhow::{Context, Result, bail, ensure};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The size of the disk that scripts may name, in MiB: nothing is written to it.
const DISK: u32 = 16;

/// Scripts to be played, and where their transcripts go.
pub(super) struct Differential {
    scripts: Vec<String>,
    out: Scratch,
}

impl Differential {
    /// The scripts called so; all of them if none is.
    pub(super) fn new(chosen: &[String]) -> Result<Self> {
        Ok(Self { scripts: scripts(chosen)?, out: Scratch::new("differential")? })
    }

    /// The guest that asks the kernel.
    pub(super) fn of_kernel(&self) -> Result<Guest> {
        self.recording("kernel v1", "v1", &self.out.directory("kernel")?, None)
    }

    /// The guest that asks pinfold.
    pub(super) fn of_pinfold(&self, program: &Path) -> Result<Guest> {
        self.recording("pinfold", "v2", &self.out.directory("pinfold")?, Some(program))
    }

    /// A guest that plays the scripts. What could not be played is told by the comparison.
    fn recording(&self, who: &str, cgroup: &'static str, to: &Path, pinfold: Option<&Path>) -> Result<Guest> {
        let mut command: Vec<OsString> =
            vec![own_program()?.into(), "record".into(), "--out".into(), to.into()];
        if let Some(pinfold) = pinfold {
            command.extend(["--pinfold".into(), pinfold.into()]);
        }
        command
            .extend(self.scripts.iter().map(|name| directory().join(name).with_extension("script").into()));
        Ok(Guest {
            suite: Suite::Differential.name(),
            name: who.to_owned(),
            cgroup,
            kernel: "6.1",
            processors: 2,
            seconds: 900,
            silence: SILENCE,
            tries: 1,
            disk: DISK,
            parameters: "",
            kept: vec![to.to_owned()],
            command,
        })
    }

    /// Makes what the kernel said the expected transcripts; false if there was no guest.
    pub(super) fn keep(&self, ran: &[&Ran]) -> Result<bool> {
        if !guest::all_well(ran.iter().copied())? {
            return Ok(false);
        }
        for script in &self.scripts {
            let name = Path::new(script).with_extension("v1");
            let to = directory().join("expected").join(&name);
            std::fs::copy(self.out.path("kernel").join(&name), to)
                .with_context(|| format!("{script} was not recorded"))?;
        }
        println!("  recorded {}", self.scripts.join(", "));
        Ok(true)
    }

    /// Compares what both said with what is expected; false if there was no guest.
    pub(super) fn judge(&self, ran: &[&Ran]) -> Result<bool> {
        match guest::all_well(ran.iter().copied()) {
            Ok(false) => return Ok(false),
            Ok(true) => {}
            Err(error) => println!("  recording: {error:#}"),
        }
        let (kernel, pinfold) = (self.out.path("kernel"), self.out.path("pinfold"));
        let of_kernel = compare(&self.scripts, &kernel, &mut Differences::none())?;
        let mut complaints: Vec<String> =
            of_kernel.iter().map(|what| format!("the kernel itself: {what}")).collect();
        let mut listed = Differences::read(&directory().join("differences.toml"))?;
        complaints.extend(compare(&self.scripts, &pinfold, &mut listed)?);
        complaints.extend(listed.unused(&self.scripts));
        show_logs(&self.scripts, &pinfold);
        ensure!(
            complaints.is_empty(),
            "{} differences (- expected, + found):\n{}",
            complaints.len(),
            complaints.join("\n")
        );
        Ok(true)
    }
}

/// Where the scripts are.
fn directory() -> PathBuf {
    workspace::root().join("differential")
}

/// The names of the scripts to play, without `.script`.
fn scripts(chosen: &[String]) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "script") {
            names.extend(path.file_stem().and_then(OsStr::to_str).map(str::to_owned));
        }
    }
    names.sort();
    if let Some(unknown) = chosen.iter().find(|name| !names.contains(name)) {
        bail!("differential/{unknown}.script does not exist");
    }
    names.retain(|name| chosen.is_empty() || chosen.contains(name));
    Ok(names)
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

/// This program's file. A build that ran since it was started has put another in its place, and the kernel then calls the
/// running one deleted; the new one does the same.
fn own_program() -> Result<PathBuf> {
    const REPLACED: &[u8] = b" (deleted)";
    let running = std::env::current_exe().context("this program's own file")?;
    let shown = running.as_os_str().as_bytes();
    Ok(shown.strip_suffix(REPLACED).map_or_else(|| running.clone(), |path| OsStr::from_bytes(path).into()))
}
