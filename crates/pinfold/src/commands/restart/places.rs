//! Groups made again, and the v2 directories in which their processes are born.
//!
//! A v2 leaf belongs to a combination of groups, and the daemon makes it when a first process is in it. So a process of
//! our own, a *keeper*, enters each combination, and its leaf is where the rebuilt ones are born. Where the keeper stays in
//! our own directory, the kernel does not carry the groups (`--tracker events`): the rebuilt ones are moved there when all
//! of them wait to run. Those who were born in place are named to the daemon then, too: the kernel tells it of a birth, and not into
//! which directory.

mod keeper;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;

use anyhow::{Context, anyhow, bail};
use pinfold_dbus::wire::KeptSetting;
use pinfold_kernel::inspect::inspect;
use pinfold_restart::image::{Group, Image};
use rustix::fs::fstat;

use crate::args::RestartArgs;
use keeper::Keeper;

/// When a setting is made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// When the group was made: before there is a group below, or a process.
    Empty,
    /// When all groups are there.
    Apart,
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
            // Compared with the neighbours' lists.
            "cpuset.cpu_exclusive" | "cpuset.mem_exclusive" => Self::Apart,
            // Who is born frozen could not be rebuilt.
            "freezer.state" => Self::Running,
            _ => Self::Empty,
        }
    }
}

/// How many processes and threads criu(8) has of its own at a time, at most.
const CRIUS_PROCESSES: u64 = 16;

/// A command line of our own program, for the same realm. What comes from a file goes behind `--`: it is no option.
fn pinfold(args: &RestartArgs, command: &str) -> Command {
    let mut again = Command::new("/proc/self/exe");
    again.arg(command).arg("--realm").arg(args.realm.realm.as_str());
    if let Some(state) = &args.realm.state {
        again.arg("--state").arg(state);
    }
    // A signal of the terminal is for us alone: what is under way has to be undone.
    again.stdin(Stdio::null()).process_group(0);
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
    /// This group was, and has these settings again by these assignments.
    Settings { group: String, assignments: Vec<String> },
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
                refuse_frozen(args, group)?;
                self.remember_and_set(args, group)?;
                self.make_room(args, image, group)?;
            } else {
                done(pinfold(args, "create").arg("--").arg(&group.name))?;
                self.0.push(Deed::Group(group.name.clone()));
                set(args, group, |file| When::of(file) == When::Empty)?;
                let owner = format!("{}:{}", group.owner.0, group.owner.1);
                done(pinfold(args, "chown").arg("--").args([&owner, &group.name]))?;
                let mode = format!("{:o}", group.mode);
                done(pinfold(args, "chmod").arg("--").args([&mode, &group.name]))?;
            }
        }
        set_all(args, image, When::Apart)
    }

    /// Remembers what is about to be set otherwise, at whatever time, and sets what can be set before a process is there.
    fn remember_and_set(&mut self, args: &RestartArgs, group: &Group) -> anyhow::Result<()> {
        let text = done(pinfold(args, "status").args(["--writes", "--json", "--"]).arg(&group.name))?;
        let now: Vec<KeptSetting> = serde_json::from_str(&text).context("the settings of a group")?;
        let mut unlike = BTreeSet::new();
        let (mut lifts, mut before, mut after) = (Vec::new(), Vec::new(), Vec::new());
        for wanted in group.settings.iter().map(|(file, _)| kind(file)) {
            let kept = now.iter().filter(|setting| kind(&setting.key) == wanted);
            let kept: Vec<(&str, &str)> = kept.map(|setting| (&*setting.key, &*setting.text)).collect();
            let of_kind = group.settings.iter().filter(|(file, _)| kind(file) == wanted);
            let asked: Vec<(&str, &str)> = of_kind.map(|(file, text)| (&**file, &**text)).collect();
            if kept != asked && unlike.insert(wanted) {
                lifts.extend(asked.iter().filter_map(|(file, text)| lifted(file, text)));
                before.extend(kept);
                after.extend(asked);
            }
        }
        lifts.extend(assignments(in_order(before.clone(), &after)));
        self.0.push(Deed::Settings { group: group.name.clone(), assignments: lifts });
        after.retain(|(file, _)| When::of(file) == When::Empty);
        assign(args, &group.name, &assignments(in_order(after, &before))).map(|_| ())
    }

    /// Room in a group that was there for those who are not of the image: keepers, and criu. Its limit is set again when all are
    /// there.
    fn make_room(&mut self, args: &RestartArgs, image: &Image, group: &Group) -> anyhow::Result<()> {
        let limit = group.settings.iter().find(|(file, _)| file == "pids.max");
        let Some((_, limit)) = limit else { return Ok(()) };
        let now = done(pinfold(args, "get").arg("--").arg(&group.name).arg("pids.max"))?;
        let (Ok(now), Ok(limit)) = (now.trim_end().parse::<u64>(), limit.parse::<u64>()) else {
            return Ok(());
        };
        let keepers = groups(image).into_iter().collect::<BTreeSet<_>>().len() as u64;
        let others = if args.criu.is_some() { CRIUS_PROCESSES } else { keepers };
        let assignment = |limit: u64| format!("pids.max={limit}");
        self.0.push(Deed::Settings { group: group.name.clone(), assignments: vec![assignment(now)] });
        let room = assignment(now.max(limit).saturating_add(others));
        done(pinfold(args, "set").arg("--").arg(&group.name).arg(room)).map(|_| ())
    }

    /// Undoes it, the last deed first, and says what it could not undo. The reason why it all failed is told by whoever calls this.
    pub(super) fn undo(&self, args: &RestartArgs) {
        for deed in self.0.iter().rev() {
            let (what, undone) = match deed {
                Deed::Group(name) => (name, done(pinfold(args, "rm").arg("--").arg(name))),
                Deed::Settings { group, assignments } => (group, assign(args, group, assignments)),
            };
            if let Err(error) = undone {
                eprintln!("pinfold: {what} is not as it was: {error:#}");
            }
        }
    }
}

/// What is restarted in a frozen group could not execute its program, nor a keeper enter it.
fn refuse_frozen(args: &RestartArgs, group: &Group) -> anyhow::Result<()> {
    // A group without a freezer is not frozen.
    let state = done(pinfold(args, "get").arg("--").arg(&group.name).arg("freezer.state"));
    if state.is_ok_and(|state| state.trim_end() != "THAWED") {
        bail!("{0} is frozen, so nothing can be restarted in it\nhint: pinfold thaw {0}", group.name);
    }
    Ok(())
}

/// Gives all groups the settings that are made at this time.
pub(super) fn set_all(args: &RestartArgs, image: &Image, when: When) -> anyhow::Result<()> {
    if args.without_groups {
        return Ok(());
    }
    image.groups.iter().try_for_each(|group| set(args, group, |file| When::of(file) == when))
}

/// Gives a group the settings of these files.
fn set(args: &RestartArgs, group: &Group, is_wanted: impl Fn(&str) -> bool) -> anyhow::Result<()> {
    let settings = group.settings.iter().filter(|(file, _)| is_wanted(file));
    let settings = settings.map(|(file, text)| (&**file, &**text)).collect();
    assign(args, &group.name, &assignments(settings)).map(|_| ())
}

fn assignments(settings: Vec<(&str, &str)>) -> Vec<String> {
    settings.into_iter().map(|(file, text)| format!("{file}={text}")).collect()
}

/// The limit of memory, and that of memory and swap, which is never below it.
const MEMORY: &str = "memory.limit_in_bytes";
const MEMORY_AND_SWAP: &str = "memory.memsw.limit_in_bytes";

/// Settings in an order in which each can be made, where those of `now` hold.
fn in_order<'a>(mut settings: Vec<(&'a str, &'a str)>, now: &[(&str, &str)]) -> Vec<(&'a str, &'a str)> {
    let bytes = |settings: &[(&str, &str)], wanted: &str| {
        let text = settings.iter().find(|(file, _)| *file == wanted)?.1;
        // -1 is no limit.
        Some(text.trim().parse().unwrap_or(u64::MAX))
    };
    let ceiling = bytes(now, MEMORY_AND_SWAP).unwrap_or(u64::MAX);
    let rises_above = bytes(&settings, MEMORY).is_some_and(|limit| limit > ceiling);
    settings.sort_by_key(|(file, _)| rises_above && *file == MEMORY);
    settings
}

fn assign(args: &RestartArgs, group: &str, assignments: &[String]) -> anyhow::Result<String> {
    match assignments {
        [] => Ok(String::new()),
        assignments => done(pinfold(args, "set").arg("--").arg(group).args(assignments)),
    }
}

/// Which files are written for one setting.
fn kind(file: &str) -> &str {
    match file {
        "devices.allow" | "devices.deny" => "devices.list",
        file => file,
    }
}

/// Takes back a limit of one device, where a group that has none shows none.
fn lifted(file: &str, text: &str) -> Option<String> {
    let disk = text.split(' ').next().filter(|_| file.starts_with("blkio.throttle."))?;
    Some(format!("{file}={disk} 0"))
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
    own: Option<Directory>,
    /// For each combination of groups, its leaf; none: the kernel does not carry it.
    leaves: Vec<Option<Directory>>,
    /// Those who keep the leaves, as long as nobody else is in them.
    keepers: RefCell<Vec<Keeper>>,
    /// For each process, its combination.
    of: Vec<Option<usize>>,
}

impl Places {
    pub(super) fn of(args: &RestartArgs, image: &Image, interrupted: &AtomicBool) -> anyhow::Result<Self> {
        let v2 = inspect().v2.ok().map(|v2| v2.mount.point);
        let leaf = |pid: &str| v2.as_ref().and_then(|v2| Directory::of(v2, pid).transpose()).transpose();
        let mut known: BTreeMap<Vec<&str>, usize> = BTreeMap::new();
        let own = leaf("self")?;
        let mut places = Self { own, leaves: Vec::new(), keepers: RefCell::default(), of: Vec::new() };
        let taken = numbers(image);
        for groups in groups(image) {
            if groups.is_empty() {
                places.of.push(None);
                continue;
            }
            let place = match known.get(&groups) {
                Some(&place) => place,
                None => {
                    let inside = |pid: u32| leaf(&pid.to_string());
                    let command = inside_of(args, &groups);
                    let (keeper, leaf) = Keeper::enter(command, &taken, interrupted, inside)
                        .with_context(|| format!("the groups {groups:?} cannot be entered"))?;
                    let is_own =
                        leaf.as_ref().map(|leaf| leaf.inode) == places.own.as_ref().map(|own| own.inode);
                    places.keepers.get_mut().push(keeper);
                    places.leaves.push(leaf.filter(|_| !is_own));
                    known.insert(groups, places.leaves.len() - 1);
                    places.leaves.len() - 1
                }
            };
            places.of.push(Some(place));
        }
        Ok(places)
    }

    /// The directory that this process is in; none: there is no v2 tree.
    pub(super) fn own(&self) -> Option<BorrowedFd<'_>> {
        self.own.as_ref().map(|own| own.file.as_fd())
    }

    /// The directory of each process.
    pub(super) fn directories(&self) -> Vec<Option<BorrowedFd<'_>>> {
        let leaf = |place: usize| self.leaves[place].as_ref().map(|leaf| leaf.file.as_fd());
        self.of.iter().map(|place| place.and_then(leaf)).collect()
    }

    /// All processes are there: ends the keepers, and has the daemon put everybody where it belongs. Who is there already goes nowhere, but
    /// whoever follows the group is told of it before it runs.
    pub(super) fn settle(&self, args: &RestartArgs, image: &Image) -> anyhow::Result<()> {
        self.keepers.borrow_mut().clear();
        image.groups.iter().try_for_each(|group| move_into(args, image, group))
    }
}

/// Every number that somebody of the image needs where this process is.
fn numbers(image: &Image) -> BTreeSet<u32> {
    let of = image.processes.iter().flat_map(|process| [&process.pids, &process.session, &process.group]);
    of.filter_map(|pids| pids.first().copied()).collect()
}

/// A directory of the v2 tree.
struct Directory {
    file: File,
    inode: u64,
}

impl Directory {
    /// That of a process; none: it is in none that is seen from here.
    fn of(v2: &Path, pid: &str) -> anyhow::Result<Option<Self>> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).context("no such process")?;
        let Some(path) = text.lines().find_map(|line| line.strip_prefix("0::")) else { return Ok(None) };
        let directory: PathBuf = v2.join(path.trim_start_matches('/'));
        let shown = || format!("{} cannot be opened", directory.display());
        let file = File::open(&directory).with_context(shown)?;
        let inode = fstat(&file).with_context(shown)?.st_ino;
        Ok(Some(Self { file, inode }))
    }
}

/// A command that enters groups and becomes what is added to it.
fn inside_of(args: &RestartArgs, groups: &[&str]) -> Command {
    let mut command = pinfold(args, "exec");
    groups.iter().for_each(|group| {
        command.arg("--group").arg(group);
    });
    command.arg("--");
    command
}

/// Moves the processes of a group into it, by their numbers here.
fn move_into(args: &RestartArgs, image: &Image, group: &Group) -> anyhow::Result<()> {
    let pids: Vec<String> =
        group.processes.iter().map(|&index| image.processes[index].pids[0].to_string()).collect();
    // Short of the longest command line there may be.
    for pids in pids.chunks(1000) {
        done(pinfold(args, "move").arg("--").args(pids).arg(&group.name))?;
    }
    Ok(())
}

/// criu, to be started in the groups of the image's first process.
pub(super) fn inside_groups_of_first(args: &RestartArgs, image: &Image) -> Command {
    let groups = groups(image).into_iter().next().filter(|groups| !groups.is_empty() && !args.without_groups);
    let Some(groups) = groups else { return Command::new("criu") };
    let mut command = inside_of(args, &groups);
    command.arg(OsString::from("criu"));
    command
}

/// Moves every process into its groups that the first one is not in too.
pub(super) fn move_all(args: &RestartArgs, image: &Image) -> anyhow::Result<()> {
    if args.without_groups {
        return Ok(());
    }
    for group in image.groups.iter().filter(|group| !group.processes.contains(&0)) {
        move_into(args, image, group)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_memory_rises_above_that_with_swap_only_after_it() {
        let [low, high, none] = ["10", "20", "-1"].map(|text| vec![(MEMORY, text), (MEMORY_AND_SWAP, text)]);
        let turned =
            |settings: &[(&'static str, &'static str)]| settings.iter().rev().copied().collect::<Vec<_>>();
        for (from, to, expected) in [
            (&low, &high, turned(&high)),
            (&low, &none, turned(&none)),
            (&high, &low, low.clone()),
            (&none, &low, low.clone()),
            (&Vec::new(), &low, low.clone()),
        ] {
            assert_eq!(in_order(to.clone(), from), expected, "from {from:?}");
        }
    }
}
