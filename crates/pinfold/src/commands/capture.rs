//! `pinfold capture`: processes and their groups, in a file.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, bail};
use pinfold_dbus::{Client, GroupName};
use pinfold_restart::capture::{CaptureError, capture_below, capture_frozen, capture_listed};
use pinfold_restart::image::{Group, Image};

use super::criu;
use crate::args::CaptureArgs;
use crate::{output, resolve};

/// The file that holds the capture in a directory of criu's.
pub(super) const BESIDE_CRIU: &str = "pinfold.json";

/// `pinfold capture`.
pub(crate) fn capture(args: &CaptureArgs) -> anyhow::Result<()> {
    // Without a daemon there are no groups to tell about; a group needs one.
    let client = match (&args.group, resolve::client(&args.realm)) {
        (Some(_), client) => Some(client?),
        (None, client) => client.ok(),
    };
    let image = match (&args.group, args.pid) {
        (Some(group), _) => group_image(client.as_ref().context("a group needs a daemon")?, group)?,
        (None, Some(pid)) => {
            let mut image = capture_below(pid.get())?;
            if let Some(client) = &client {
                image.groups = groups_of(client, &image)?;
            }
            image
        }
        (None, None) => bail!("nothing to capture: give a group or --pid"),
    };
    if let Some(directory) = &args.criu {
        criu::check(&image)?;
        std::fs::create_dir_all(directory)
            .with_context(|| format!("{} cannot be made", directory.display()))?;
        criu::dump(&image, directory)?;
        // Last: where it is, everything is.
        write(&directory.join(BESIDE_CRIU), &image)?;
    }
    match &args.output {
        Some(file) if file.as_os_str() == "-" => output::text(&format!("{}\n", image.to_json()?)),
        Some(file) => write(file, &image),
        None => Ok(()),
    }
}

/// Writes the file in one step: nobody finds half of it.
fn write(file: &Path, image: &Image) -> anyhow::Result<()> {
    let mut beside = file.as_os_str().to_owned();
    beside.push(".new");
    let written = std::fs::write(&beside, format!("{}\n", image.to_json()?));
    written.with_context(|| format!("{} cannot be written", beside.display()))?;
    std::fs::rename(&beside, file).with_context(|| format!("{} cannot be written", file.display()))
}

/// Everything in a group and below, frozen meanwhile: by the group's freezer, or process by process.
fn group_image(client: &Client, group: &GroupName) -> anyhow::Result<Image> {
    let list = || -> anyhow::Result<Vec<u32>> {
        let pids = client.list_processes(group, true)?;
        match pids.contains(&0) {
            true => bail!("a process of {group} is in no pid namespace of ours"),
            false => Ok(pids),
        }
    };
    if list()?.is_empty() {
        bail!("no process is in {group}");
    }
    let was_frozen = client.get_value(group, "freezer.state").is_ok_and(|state| state.trim() != "THAWED");
    if was_frozen {
        let mut image = capture_frozen(&list()?)?;
        image.groups = groups_of(client, &image)?;
        return Ok(image);
    }
    if client.freeze(group).is_err() {
        let mut image = capture_listed(|| list().map_err(Listing::Failed)).map_err(Listing::into_error)?;
        image.groups = groups_of(client, &image)?;
        return Ok(image);
    }
    let captured = list().and_then(|pids| Ok(capture_frozen(&pids)?));
    let thawed = client.thaw(group);
    let mut image = captured?;
    thawed?;
    image.groups = groups_of(client, &image)?;
    Ok(image)
}

/// Why a list of processes could not be captured.
enum Listing {
    Failed(anyhow::Error),
    Capture(CaptureError),
}

impl From<CaptureError> for Listing {
    fn from(error: CaptureError) -> Self {
        Self::Capture(error)
    }
}

impl Listing {
    fn into_error(self) -> anyhow::Error {
        match self {
            Self::Failed(error) => error,
            Self::Capture(error) => error.into(),
        }
    }
}

/// The groups that captured processes are in and those above them, with their settings; parents first.
fn groups_of(client: &Client, image: &Image) -> anyhow::Result<Vec<Group>> {
    let mut members: BTreeMap<(String, Vec<String>), Vec<usize>> = BTreeMap::new();
    for (index, process) in image.processes.iter().enumerate() {
        if process.living.is_none() {
            continue;
        }
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
    let group = |((label, steps), processes): ((String, Vec<String>), Vec<usize>)| {
        let name = format!("{label}:/{}", steps.join("/"));
        let settings = client.status(&name.parse()?)?.into_iter().filter(|setting| setting.set);
        let settings = settings.map(|setting| (setting.key, setting.value.trim_end().to_owned())).collect();
        Ok(Group { name, settings, processes })
    };
    members.into_iter().map(group).collect()
}
