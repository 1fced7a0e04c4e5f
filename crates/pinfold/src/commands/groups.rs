//! Making, removing and giving away groups.

use pinfold_dbus::{Client, ClientError, GroupName, Hierarchies};

use crate::args::{ChownArgs, CreateArgs, RmArgs};
use crate::resolve;

/// `pinfold create`.
pub(crate) fn create(args: &CreateArgs) -> anyhow::Result<()> {
    let client = resolve::client(&args.realm)?;
    if args.parents {
        for name in one_by_one(&args.group) {
            create_with_parents(&client, &name)?;
        }
    } else {
        client.create(&args.group)?;
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
    if args.recursive {
        client.delete_force(&args.group)?
    } else {
        client.delete(&args.group)?
    }
    Ok(())
}

/// `pinfold chown`.
pub(crate) fn chown(args: &ChownArgs) -> anyhow::Result<()> {
    let (uid, gid) = resolve::owner(&args.owner)?;
    resolve::client(&args.realm)?.chown(&args.group, uid, gid)?;
    Ok(())
}
