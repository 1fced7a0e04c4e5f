//! A group that is frozen while it is captured.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use pinfold_dbus::{Client, GroupName, Hierarchies};
use pinfold_restart::image::Image;

use crate::signals::Interruption;

/// How long a group may take to freeze: a process that waits for a disk does not stop before it has been served.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait before it is looked at again: nobody tells when a group is FROZEN.
const NAP: Duration = Duration::from_millis(5);

/// The freezer of a group in which all of its processes are.
pub(super) struct Freezer<'a> {
    client: &'a Client,
    group: GroupName,
}

impl<'a> Freezer<'a> {
    /// `None`: there is none that freezes these processes, or it does so by signals, which would hide who was stopped before.
    pub(super) fn of(client: &'a Client, group: &GroupName, members: &[u32]) -> anyhow::Result<Option<Self>> {
        if super::freezes_by_signals(client)? {
            return Ok(None);
        }
        let hierarchies = Hierarchies::With(vec!["freezer".to_owned()]);
        let freezer = Self { client, group: GroupName { hierarchies, path: group.path.clone() } };
        let freezes =
            client.get_value(&freezer.group, "freezer.state").is_ok() && freezer.check_all(members).is_ok();
        Ok(freezes.then_some(freezer))
    }

    /// Whether these processes are in it.
    pub(super) fn check_all(&self, members: &[u32]) -> anyhow::Result<()> {
        let frozen = self.client.list_processes(&self.group, true)?;
        match members.iter().find(|pid| !frozen.contains(pid)) {
            Some(pid) => bail!("process {pid} came, and is not in {}", self.group),
            None => Ok(()),
        }
    }

    /// Freezes the group, calls `look`, which waits until everybody in it stands still, and lets them go on if they did before.
    pub(super) fn hold(&self, look: impl FnOnce() -> anyhow::Result<Image>) -> anyhow::Result<Image> {
        if self.client.get_value(&self.group, "freezer.state")? != "THAWED" {
            return look();
        }
        // Also if only the answer was lost: then it may be frozen all the same.
        let image = self.client.freeze(&self.group).map_err(Into::into).and_then(|()| look());
        let thawed = self.client.thaw(&self.group);
        let mut image = thawed.with_context(|| format!("{} stays frozen", self.group)).and(image)?;
        // What was done for the picture is not in it. Nothing above was frozen, and outer groups come first: it is the first.
        let frozen = image.groups.iter_mut().find(|group| super::is_frozen(group));
        if let Some(group) = frozen {
            group.settings.retain(|(file, _)| file != "freezer.state");
        }
        Ok(image)
    }

    /// Waits until everybody in it stands still.
    pub(super) fn wait(&self, interruption: &Interruption) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let state = self.client.get_value(&self.group, "freezer.state")?;
            match &*state {
                "FROZEN" => return Ok(()),
                "THAWED" => bail!("{} was thawed while it was captured\nhint: try again", self.group),
                _ => {}
            }
            interruption.check()?;
            if Instant::now() > deadline {
                bail!(
                    "{} is {state} after {} seconds: a process in it waits in the kernel, for a disk perhaps",
                    self.group,
                    PATIENCE.as_secs()
                );
            }
            std::thread::sleep(NAP);
        }
    }
}
