//! Groups made again, and the v2 directories in which their processes are born.
//!
//! A v2 leaf belongs to a combination of groups, and the daemon makes it when a first process is in it. So a process of
//! our own, a *keeper*, enters each combination, and its leaf is where the rebuilt ones are born.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, anyhow, bail};
use pinfold_kernel::inspect::inspect;
use pinfold_restart::image::{Group, Image};

use crate::args::RestartArgs;

/// Set when everything runs: a process that is born frozen could not be rebuilt.
const LAST: &str = "freezer.state";

/// A command line of our own program, for the same realm.
fn pinfold(args: &RestartArgs, command: &str) -> Command {
    let mut again = Command::new("/proc/self/exe");
    again.arg(command).arg("--realm").arg(args.realm.realm.as_str());
    if let Some(state) = &args.realm.state {
        again.arg("--state").arg(state);
    }
    again.stdin(Stdio::null());
    again
}

fn done(command: &mut Command) -> anyhow::Result<()> {
    let output = command
        .stdout(Stdio::null())
        .output()
        .context("pinfold cannot start itself through /proc/self/exe")?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(anyhow!("{}", text.trim().trim_start_matches("pinfold: ").to_owned()))
}

/// The groups that were not there before.
#[derive(Default)]
pub(super) struct Made(Vec<String>);

impl Made {
    /// Makes the groups of an image, outer ones first, and gives them their settings.
    pub(super) fn of(args: &RestartArgs, image: &Image) -> anyhow::Result<Self> {
        let mut made = Self::default();
        if args.without_groups {
            return Ok(made);
        }
        let result = image.groups.iter().try_for_each(|group| made.make(args, group));
        if let Err(error) = result {
            made.undo(args);
            return Err(error);
        }
        Ok(made)
    }

    fn make(&mut self, args: &RestartArgs, group: &Group) -> anyhow::Result<()> {
        let is_there = done(pinfold(args, "ls").arg(&group.name)).is_ok();
        if !is_there {
            done(pinfold(args, "create").arg(&group.name))?;
            self.0.push(group.name.clone());
        }
        set(args, group, |key| key != LAST)
    }

    /// Removes what was made, inner groups first.
    pub(super) fn undo(&self, args: &RestartArgs) {
        for name in self.0.iter().rev() {
            // Best effort: the reason why it all failed is told by whoever calls this.
            let _ = done(pinfold(args, "rm").arg(name));
        }
    }
}

fn set(args: &RestartArgs, group: &Group, wanted: impl Fn(&str) -> bool) -> anyhow::Result<()> {
    let settings = group.settings.iter().filter(|(key, _)| wanted(key));
    let assignments: Vec<String> = settings.map(|(key, value)| format!("{key}={value}")).collect();
    if assignments.is_empty() {
        return Ok(());
    }
    done(pinfold(args, "set").arg(&group.name).args(assignments))
}

/// What can only be done when everything runs.
pub(super) fn finish(args: &RestartArgs, image: &Image) -> anyhow::Result<()> {
    if args.without_groups {
        return Ok(());
    }
    image.groups.iter().try_for_each(|group| set(args, group, |key| key == LAST))
}

/// The groups of a process.
fn groups_of(image: &Image, process: usize) -> Vec<&str> {
    let is_in = |group: &&Group| group.processes.contains(&process);
    image.groups.iter().filter(is_in).map(|group| group.name.as_str()).collect()
}

/// Where processes are born.
pub(super) struct Places {
    own: File,
    keepers: Vec<Keeper>,
    /// For each process, its keeper.
    of: Vec<Option<usize>>,
}

impl Places {
    pub(super) fn of(args: &RestartArgs, image: &Image) -> anyhow::Result<Self> {
        let v2 = inspect().v2?.mount.point;
        let mut known: BTreeMap<Vec<&str>, usize> = BTreeMap::new();
        let mut places = Self { own: leaf(&v2, "self")?, keepers: Vec::new(), of: Vec::new() };
        for process in 0..image.processes.len() {
            let groups = groups_of(image, process);
            if groups.is_empty() {
                places.of.push(None);
                continue;
            }
            let keeper = match known.get(&groups) {
                Some(&keeper) => keeper,
                None => {
                    places.keepers.push(Keeper::enter(args, &groups, &v2)?);
                    known.insert(groups, places.keepers.len() - 1);
                    places.keepers.len() - 1
                }
            };
            places.of.push(Some(keeper));
        }
        Ok(places)
    }

    /// The directory that this process is in.
    pub(super) fn own(&self) -> BorrowedFd<'_> {
        self.own.as_fd()
    }

    /// The directory of each process.
    pub(super) fn directories(&self) -> Vec<Option<BorrowedFd<'_>>> {
        self.of.iter().map(|keeper| keeper.map(|keeper| self.keepers[keeper].leaf.as_fd())).collect()
    }
}

/// The v2 directory of a process.
fn leaf(v2: &std::path::Path, pid: &str) -> anyhow::Result<File> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).context("no such process")?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::")).context("it is in no v2 group")?;
    let directory: PathBuf = v2.join(path.trim_start_matches('/'));
    File::open(&directory).with_context(|| format!("{} cannot be opened", directory.display()))
}

/// A process that is in some groups, so that their leaf is there.
struct Keeper {
    child: Child,
    leaf: File,
}

impl Keeper {
    fn enter(args: &RestartArgs, groups: &[&str], v2: &std::path::Path) -> anyhow::Result<Self> {
        let mut command = pinfold(args, "exec");
        groups.iter().for_each(|group| {
            command.arg("--group").arg(group);
        });
        let mut child = command
            .args(["--", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("pinfold cannot start itself through /proc/self/exe")?;
        let entered = echo(&mut child).and_then(|()| leaf(v2, &child.id().to_string()));
        match entered {
            Ok(leaf) => Ok(Self { child, leaf }),
            Err(error) => {
                drop(child.stdin.take());
                child.wait().context("a process of ours cannot be waited for")?;
                Err(error.context(format!("the groups {groups:?} cannot be entered")))
            }
        }
    }
}

/// Waits until the child has become `cat`: it gives back a line.
fn echo(child: &mut Child) -> anyhow::Result<()> {
    let (Some(stdin), Some(stdout)) = (&mut child.stdin, &mut child.stdout) else { bail!("no pipes to it") };
    // If it has ended instead, the answer is an empty line; the write is allowed to fail by that.
    let _ = stdin.write_all(b"there\n");
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    if line == "there\n" { Ok(()) } else { bail!("its reason is above") }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // `cat` ends with its input.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// criu, to be started in the groups of the image's first process.
pub(super) fn inside_groups_of_first(args: &RestartArgs, image: &Image) -> Command {
    let groups = if args.without_groups { Vec::new() } else { groups_of(image, 0) };
    if groups.is_empty() {
        return Command::new("criu");
    }
    let mut command = pinfold(args, "exec");
    groups.into_iter().for_each(|group| {
        command.arg("--group").arg(group);
    });
    command.args([OsString::from("--"), OsString::from("criu")]);
    command
}

/// Moves every process into its groups that the first one is not in too.
pub(super) fn move_all(args: &RestartArgs, image: &Image) -> anyhow::Result<()> {
    if args.without_groups {
        return Ok(());
    }
    let first = groups_of(image, 0);
    for (index, process) in image.processes.iter().enumerate() {
        for group in groups_of(image, index).into_iter().filter(|group| !first.contains(group)) {
            done(pinfold(args, "move").arg(process.pids[0].to_string()).arg(group))?;
        }
    }
    Ok(())
}
