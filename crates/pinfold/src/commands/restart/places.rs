//! Groups made again, and the v2 directories in which their processes are born.
//!
//! A v2 leaf belongs to a combination of groups, and the daemon makes it when a first process is in it. So a process of
//! our own, a *keeper*, enters each combination, and its leaf is where the rebuilt ones are born.

use std::cell::RefCell;
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

/// When a setting is made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// Before there is a process.
    Empty,
    /// When all processes are there, and none has executed its program.
    Placed,
    /// When all have executed it.
    Running,
}

impl When {
    fn of(file: &str) -> Self {
        match file {
            // Counts the keepers, and criu, too.
            "pids.max" => Self::Placed,
            // Who is born frozen could not be rebuilt.
            "freezer.state" => Self::Running,
            _ => Self::Empty,
        }
    }
}

/// A command line of our own program, for the same realm. What comes from a file goes behind `--`: it is no option.
fn pinfold(args: &RestartArgs, command: &str) -> Command {
    let mut again = Command::new("/proc/self/exe");
    again.arg(command).arg("--realm").arg(args.realm.realm.as_str());
    if let Some(state) = &args.realm.state {
        again.arg("--state").arg(state);
    }
    again.stdin(Stdio::null());
    again
}

/// Runs a command of ours and gives what it prints.
fn done(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().context("pinfold cannot start itself through /proc/self/exe")?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(anyhow!("{}", text.trim().trim_start_matches("pinfold: ").to_owned()))
}

/// What was done to the realm, in order.
#[derive(Default)]
pub(super) struct Made(Vec<Deed>);

enum Deed {
    /// This group was not there before.
    Group(String),
    /// This group was, and this was set otherwise.
    Setting { group: String, assignment: String },
}

impl Made {
    /// Makes the groups of an image, outer ones first, and gives them the settings that can be given before a process is there.
    pub(super) fn make_all(&mut self, args: &RestartArgs, image: &Image) -> anyhow::Result<()> {
        if args.without_groups {
            return Ok(());
        }
        for group in &image.groups {
            let is_there = done(pinfold(args, "ls").arg("--").arg(&group.name)).is_ok();
            if is_there {
                self.remember(args, group)?;
            } else {
                done(pinfold(args, "create").arg("--").arg(&group.name))?;
                self.0.push(Deed::Group(group.name.clone()));
            }
        }
        set_all(args, image, When::Empty)
    }

    /// Remembers what is about to be set otherwise, at whatever time.
    fn remember(&mut self, args: &RestartArgs, group: &Group) -> anyhow::Result<()> {
        for (key, value) in &group.settings {
            let now = done(pinfold(args, "get").arg("--").arg(&group.name).arg(key))?;
            let now = now.trim_end();
            if now != value {
                let assignment = format!("{key}={now}");
                self.0.push(Deed::Setting { group: group.name.clone(), assignment });
            }
        }
        Ok(())
    }

    /// Undoes it, the last deed first.
    pub(super) fn undo(&self, args: &RestartArgs) {
        for deed in self.0.iter().rev() {
            // Best effort: the reason why it all failed is told by whoever calls this.
            let _ = match deed {
                Deed::Group(name) => done(pinfold(args, "rm").arg("--").arg(name)),
                Deed::Setting { group, assignment } => {
                    done(pinfold(args, "set").arg("--").arg(group).arg(assignment))
                }
            };
        }
    }
}

/// Gives all groups the settings that are made at this time.
pub(super) fn set_all(args: &RestartArgs, image: &Image, when: When) -> anyhow::Result<()> {
    if args.without_groups {
        return Ok(());
    }
    for group in &image.groups {
        let settings = group.settings.iter().filter(|(key, _)| When::of(key) == when);
        let assignments: Vec<String> = settings.map(|(key, value)| format!("{key}={value}")).collect();
        if !assignments.is_empty() {
            done(pinfold(args, "set").arg("--").arg(&group.name).args(assignments))?;
        }
    }
    Ok(())
}

/// The groups of each process.
fn groups(image: &Image) -> Vec<Vec<&str>> {
    let mut groups = vec![Vec::new(); image.processes.len()];
    for group in &image.groups {
        for &process in &group.processes {
            groups[process].push(group.name.as_str());
        }
    }
    groups
}

/// Where processes are born.
pub(super) struct Places {
    own: File,
    leaves: Vec<File>,
    /// Those who keep the leaves, as long as nobody else is in them.
    keepers: RefCell<Vec<Keeper>>,
    /// For each process, its leaf.
    of: Vec<Option<usize>>,
}

impl Places {
    pub(super) fn of(args: &RestartArgs, image: &Image) -> anyhow::Result<Self> {
        let v2 = inspect().v2?.mount.point;
        let mut known: BTreeMap<Vec<&str>, usize> = BTreeMap::new();
        let own = leaf(&v2, "self")?;
        let mut places = Self { own, leaves: Vec::new(), keepers: RefCell::default(), of: Vec::new() };
        for groups in groups(image) {
            if groups.is_empty() {
                places.of.push(None);
                continue;
            }
            let place = match known.get(&groups) {
                Some(&place) => place,
                None => {
                    let (keeper, leaf) = Keeper::enter(args, &groups, &v2)?;
                    places.keepers.get_mut().push(keeper);
                    places.leaves.push(leaf);
                    known.insert(groups, places.leaves.len() - 1);
                    places.leaves.len() - 1
                }
            };
            places.of.push(Some(place));
        }
        Ok(places)
    }

    /// The directory that this process is in.
    pub(super) fn own(&self) -> BorrowedFd<'_> {
        self.own.as_fd()
    }

    /// The directory of each process.
    pub(super) fn directories(&self) -> Vec<Option<BorrowedFd<'_>>> {
        self.of.iter().map(|place| place.map(|place| self.leaves[place].as_fd())).collect()
    }

    /// Ends the keepers: processes are in the leaves now.
    pub(super) fn release(&self) {
        self.keepers.borrow_mut().clear();
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
struct Keeper(Child);

impl Keeper {
    /// The keeper, and the leaf that it is in.
    fn enter(args: &RestartArgs, groups: &[&str], v2: &std::path::Path) -> anyhow::Result<(Self, File)> {
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
            Ok(leaf) => Ok((Self(child), leaf)),
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
        // It does not end with its input: whoever was made meanwhile has a copy of that until it executes its program.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// criu, to be started in the groups of the image's first process.
pub(super) fn inside_groups_of_first(args: &RestartArgs, image: &Image) -> Command {
    let groups = groups(image).into_iter().next().filter(|groups| !groups.is_empty() && !args.without_groups);
    let Some(groups) = groups else { return Command::new("criu") };
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
    let groups = groups(image);
    let Some(first) = groups.first() else { return Ok(()) };
    for (groups, process) in groups.iter().zip(&image.processes) {
        for group in groups.iter().filter(|group| !first.contains(group)) {
            done(pinfold(args, "move").arg("--").arg(process.pids[0].to_string()).arg(group))?;
        }
    }
    Ok(())
}
