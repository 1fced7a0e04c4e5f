//! Making, removing and giving away groups.

use pinfold_dbus::{Client, ClientError, GroupName, Hierarchies};

use crate::args::{Assignment, ChmodArgs, ChownArgs, CreateArgs, PruneArgs, RmArgs};
use crate::{output, resolve};

/// `pinfold create`.
pub(crate) fn create(args: &CreateArgs) -> anyhow::Result<()> {
    let client = resolve::client(&args.realm)?;
    if args.parents {
        for name in one_by_one(&args.group) {
            create_with_parents(&client, &name)?;
        }
    } else {
        let value = |set: &Assignment| (set.key.as_str().to_owned(), set.value.clone());
        client.create_with(&args.group, &args.values.iter().map(value).collect())?;
    }
    Ok(())
}

/// The same groups, hierarchy by hierarchy, so that one that has the group already does not stop the others.
fn one_by_one(name: &GroupName) -> Vec<GroupName> {
    match &name.hierarchies {
        Hierarchies::Every => vec![name.clone()],
        Hierarchies::With(names) => {
            let alone = |one: &String| GroupName {
                hierarchies: Hierarchies::With(vec![one.clone()]),
                path: name.path.clone(),
            };
            names.iter().map(alone).collect()
        }
    }
}

fn create_with_parents(client: &Client, name: &GroupName) -> Result<(), ClientError> {
    let mut path = name.path.start();
    for step in name.path.steps() {
        path = path.below(step);
        match client.create(&GroupName { hierarchies: name.hierarchies.clone(), path: path.clone() }) {
            Err(ClientError::Refused(refusal)) if refusal.errno() == "EEXIST" => {}
            made => {
                made?;
            }
        }
    }
    Ok(())
}

/// `pinfold rm`.
pub(crate) fn rm(args: &RmArgs) -> anyhow::Result<()> {
    let client = resolve::client(&args.realm)?;
    match args {
        RmArgs { recursive: true, .. } => client.delete_force(&args.group)?,
        RmArgs { when_empty: true, .. } => client.remove_on_empty(&args.group)?,
        _ => client.delete(&args.group)?,
    }
    Ok(())
}

/// `pinfold prune`.
pub(crate) fn prune(args: &PruneArgs) -> anyhow::Result<()> {
    let gone = resolve::client(&args.realm)?.prune(&args.group)?;
    match args.output.json {
        true => output::json(&gone),
        false => output::text(&gone.iter().map(|name| format!("{name}\n")).collect::<String>()),
    }
}

/// `pinfold chown`.
pub(crate) fn chown(args: &ChownArgs) -> anyhow::Result<()> {
    let (uid, gid) = resolve::owner(&args.owner)?;
    resolve::client(&args.realm)?.chown(&args.group, uid, gid)?;
    Ok(())
}

/// `pinfold chmod`.
pub(crate) fn chmod(args: &ChmodArgs) -> anyhow::Result<()> {
    let client = resolve::client(&args.realm)?;
    match args.keys.as_slice() {
        [] => client.chmod(&args.group, None, args.mode.0)?,
        keys => keys.iter().try_for_each(|key| client.chmod(&args.group, Some(key.as_str()), args.mode.0))?,
    }
    Ok(())
}
