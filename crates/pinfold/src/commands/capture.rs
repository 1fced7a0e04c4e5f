//! `pinfold capture`: processes and their groups, in a file.

mod freezer;

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, Permissions};
use std::io::Write;
use std::num::NonZeroU32;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, bail};
use pinfold_dbus::wire::Key;
use pinfold_dbus::{Client, GroupName};
use pinfold_restart::capture::{Stopped, Terms, refuse_needed, while_frozen};
use pinfold_restart::image::{Group, Image};

use super::criu;
use crate::args::CaptureArgs;
use crate::signals::Interruption;
use crate::{output, resolve};
use freezer::Freezer;

/// The file that holds the capture in a directory of criu's.
pub(super) const BESIDE_CRIU: &str = "pinfold.json";
/// What cannot be told of processes without a daemon.
const NO_GROUPS: &str =
    "the groups of these processes cannot be asked for (--pid PID --without-groups leaves them out)";
/// The mode of a capture file.
const PRIVATE: u32 = 0o600;
/// The mode of a directory of capture files.
const PRIVATE_DIRECTORY: u32 = 0o700;

/// `pinfold capture`.
pub(crate) fn capture(args: &CaptureArgs) -> anyhow::Result<()> {
    let image = uninterrupted(args.criu.is_some(), |interruption| image(args, interruption))?;
    match &args.output {
        Some(file) if file.as_os_str() == "-" => output::text(&format!("{}\n", image.to_json()?)),
        Some(file) => write(file, &image),
        None => Ok(()),
    }
}

/// Has criu save the processes of a picture, who stand still until it has.
fn save_with_criu(args: &CaptureArgs, image: &Image, interruption: &Interruption) -> anyhow::Result<()> {
    let Some(directory) = &args.criu else { return Ok(()) };
    criu::check(image)?;
    make_private(directory).with_context(|| format!("{} cannot be used", directory.display()))?;
    // The picture last: where it is, everything is.
    let saved = criu::dump(image, directory)
        .and_then(|()| interruption.check())
        .and_then(|()| write(&directory.join(BESIDE_CRIU), image));
    saved.inspect_err(|_| empty(directory))
}

/// Makes an empty directory that nobody else can look into: everybody's memory will be there.
fn make_private(directory: &Path) -> anyhow::Result<()> {
    DirBuilder::new().recursive(true).mode(PRIVATE_DIRECTORY).create(directory)?;
    let there = std::fs::metadata(directory)?;
    if there.uid() != rustix::process::geteuid().as_raw() || there.mode() & 0o077 != 0 {
        bail!(
            "others may look into it, and it will hold the memory of processes\nhint: chmod 700 it, as its owner"
        );
    }
    match std::fs::read_dir(directory)?.next() {
        Some(_) => bail!("there is something in it already"),
        None => Ok(()),
    }
}

/// Removes what was made of a capture that failed, but for criu's words.
fn empty(directory: &Path) {
    for file in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if file.file_name() != criu::DUMP_LOG {
            // Best effort: why there is no capture is told.
            let _ = std::fs::remove_file(file.path());
        }
    }
}

/// Writes the file, for its owner only, since it has everybody's environment: a file in one step, so that nobody finds half of
/// it; into what is there already if that is something else (a link, a device, a pipe).
fn write(file: &Path, image: &Image) -> anyhow::Result<()> {
    let text = format!("{}\n", image.to_json()?);
    let failed = || format!("{} cannot be written", file.display());
    match std::fs::symlink_metadata(file) {
        Ok(there) if !there.is_file() => write_into(file, &text),
        _ => write_beside(file, &text),
    }
    .with_context(failed)
}

fn write_into(file: &Path, text: &str) -> std::io::Result<()> {
    let mut open = File::options();
    let mut open = open.write(true).create(true).truncate(true).mode(PRIVATE).open(file)?;
    if open.metadata()?.is_file() {
        open.set_permissions(Permissions::from_mode(PRIVATE))?;
    }
    open.write_all(text.as_bytes())
}

fn write_beside(file: &Path, text: &str) -> std::io::Result<()> {
    let mut beside = file.as_os_str().to_owned();
    beside.push(format!(".{}.new", std::process::id()));
    let written = File::options()
        .write(true)
        .create_new(true)
        .mode(PRIVATE)
        .open(&beside)?
        .write_all(text.as_bytes())
        .and_then(|()| std::fs::rename(&beside, file));
    written.inspect_err(|_| {
        // Best effort: why it was not written is told.
        let _ = std::fs::remove_file(&beside);
    })
}

/// Takes a picture, which `is_saved` then. A signal meanwhile is noted and gives it up: whoever was stopped goes on before
/// this returns.
fn uninterrupted(
    is_saved: bool,
    take: impl FnOnce(&Interruption) -> anyhow::Result<Image>,
) -> anyhow::Result<Image> {
    let interruption = Interruption::watch()?;
    let image = take(&interruption);
    let interrupted = interruption.check();
    interruption.end();
    // What criu has saved is complete, with its picture beside it.
    if interrupted.is_err() && !(is_saved && image.is_ok()) {
        bail!("interrupted: nothing was captured")
    }
    image
}

fn image(args: &CaptureArgs, interruption: &Interruption) -> anyhow::Result<Image> {
    let client = match args.without_groups {
        true => None,
        false => Some(resolve::client(&args.realm).context(NO_GROUPS)?),
    };
    if let Some(client) = &client {
        // While somebody stands still for it, nobody waits for a daemon that does not answer.
        let call = client.break_off();
        interruption.and_then(move || call.now())?;
    }
    match (&args.group, args.pid, &client) {
        (Some(group), _, Some(client)) => of_group(args, client, group, interruption),
        (None, Some(pid), client) => of_tree(args, client.as_ref(), pid.get(), interruption),
        (Some(_), _, None) | (None, None, _) => bail!("nothing to capture: give a group or --pid"),
    }
}

/// A process and everything below it, stopped meanwhile.
fn of_tree(
    args: &CaptureArgs,
    client: Option<&Client>,
    pid: u32,
    interruption: &Interruption,
) -> anyhow::Result<Image> {
    let daemon = client.map(Client::daemon).transpose()?.flatten();
    let needed: Vec<u32> = daemon.into_iter().map(NonZeroU32::get).collect();
    let stopped = Stopped::below(pid, Terms { needed: &needed, interrupted: Some(interruption.flag()) })?;
    let mut image = stopped.picture()?;
    if let Some(client) = client {
        image = with_groups(client, image, interruption)?;
    }
    stopped.check_still()?;
    save_with_criu(args, &image, interruption)?;
    Ok(image)
}

/// Everything in a group and below, meanwhile frozen by the group's freezer, or stopped process by process.
fn of_group(
    args: &CaptureArgs,
    client: &Client,
    group: &GroupName,
    interruption: &Interruption,
) -> anyhow::Result<Image> {
    let members = members(client, group)?;
    if members.is_empty() {
        bail!("no process is in {group}");
    }
    refuse_needed(&members, &[])?;
    let terms = Terms { needed: &[], interrupted: Some(interruption.flag()) };
    let freezer = Freezer::of(client, group, &members)?;
    if args.criu.is_some()
        && client.get_value(group, "freezer.state").is_ok_and(|state| state.trim() != "THAWED")
    {
        bail!("{group} is frozen, and criu cannot save it so\nhint: pinfold thaw {group}");
    }
    // criu has each process execute code of its own, which one in a frozen group cannot.
    if let Some(freezer) = freezer.filter(|_| args.criu.is_none()) {
        return freezer.hold(|| {
            let list = || {
                freezer.wait(interruption)?;
                let members = self::members(client, group)?;
                refuse_needed(&members, &[])?;
                freezer.check_all(&members)?;
                Ok(members)
            };
            while_frozen(list, terms, |image| with_groups(client, image, interruption))
        });
    }
    let stopped = Stopped::listed(|| self::members(client, group), terms)?;
    let image = with_groups(client, stopped.picture()?, interruption)?;
    stopped.check_still()?;
    save_with_criu(args, &image, interruption)?;
    Ok(image)
}

/// The processes in a group and below.
fn members(client: &Client, group: &GroupName) -> anyhow::Result<Vec<u32>> {
    let pids = client.list_processes(group, true)?;
    if pids.contains(&0) {
        bail!("a process of {group} is in no pid namespace of ours");
    }
    Ok(pids)
}

/// Whether a freezer stops processes as anybody can: by SIGSTOP.
fn freezes_by_signals(client: &Client) -> anyhow::Result<bool> {
    Ok(client.tracker()? != "cgroup2")
}

/// The picture with the groups of its processes, who stand still.
fn with_groups(client: &Client, mut image: Image, interruption: &Interruption) -> anyhow::Result<Image> {
    let groups = groups_of(client, &image, interruption)?;
    if freezes_by_signals(client)? {
        // Who is in a frozen group was stopped by that: it is what the group says, and not said twice.
        for group in groups.iter().filter(|group| is_frozen(group)) {
            let inside = groups.iter().filter(|other| is_below(&other.name, &group.name));
            for &process in inside.flat_map(|group| &group.processes) {
                if let Some(living) = &mut image.processes[process].living {
                    living.stopped = false;
                }
            }
        }
    }
    image.groups = groups;
    Ok(image)
}

/// Whether a group was frozen by itself, not by one above.
fn is_frozen(group: &Group) -> bool {
    group.settings.iter().any(|(file, text)| file == "freezer.state" && text == "FROZEN")
}

/// Whether a group is another, or below it.
fn is_below(name: &str, outer: &str) -> bool {
    name.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The groups that captured processes are in and those above them, with their settings; parents first.
fn groups_of(client: &Client, image: &Image, interruption: &Interruption) -> anyhow::Result<Vec<Group>> {
    let mut members: BTreeMap<(String, Vec<String>), Vec<usize>> = BTreeMap::new();
    for (index, process) in image.processes.iter().enumerate() {
        if process.living.is_none() {
            continue;
        }
        interruption.check()?;
        for membership in client.group_of(process.pids[0])? {
            let steps: Vec<String> =
                membership.path.split('/').filter(|step| !step.is_empty()).map(str::to_owned).collect();
            for depth in 1..=steps.len() {
                let above = members.entry((membership.label.clone(), steps[..depth].to_vec())).or_default();
                if depth == steps.len() {
                    above.push(index);
                }
            }
        }
    }
    members
        .into_iter()
        .map(|((label, steps), processes)| {
            interruption.check().and_then(|()| described(client, &label, &steps, processes))
        })
        .collect()
}

/// A group with everything that is kept of it.
fn described(client: &Client, label: &str, steps: &[String], processes: Vec<usize>) -> anyhow::Result<Group> {
    let above = format!("{label}:/{}", steps[..steps.len() - 1].join("/"));
    let (path, name) = (format!("/{}", steps.join("/")), format!("{label}:/{}", steps.join("/")));
    let parsed = name.parse()?;
    let siblings = client.list_children(&above.parse()?, false)?;
    let itself = siblings.into_iter().find(|child| child.path == path);
    let itself = itself.with_context(|| format!("{name} went while it was captured"))?;
    let settings = client.list_settings(&parsed)?.into_iter().filter(|setting| setting.needed);
    let settings = settings.map(|setting| (setting.key, setting.text)).collect();
    let mode = u16::try_from(itself.mode & 0o7777)?;
    let group = Group { name, owner: (itself.uid, itself.gid), mode, settings, processes };
    let lost: Vec<String> = client
        .list_keys(&parsed)?
        .into_iter()
        .filter(|key| !is_as_made(key, &group))
        .map(|key| key.name)
        .collect();
    if !lost.is_empty() {
        eprintln!("pinfold: {}: owners and modes of files are not kept: {}", group.name, lost.join(", "));
    }
    Ok(group)
}

/// Whether a file has the owner and the mode that it has in a group made again.
fn is_as_made(key: &Key, group: &Group) -> bool {
    let Some(id) = pinfold_files::named(&key.name) else { return true };
    let row = pinfold_files::file(id).1;
    let owner = if matches!(row.write, pinfold_files::Write::Attach(_)) { group.owner } else { (0, 0) };
    (key.uid, key.gid) == owner && key.mode & 0o7777 == u32::from(row.mode())
}
