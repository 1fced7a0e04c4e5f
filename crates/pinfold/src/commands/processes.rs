//! The processes of a group, and the end of the daemon.

use crate::args::{DownArgs, GroupOnlyArgs, MoveArgs, TasksArgs};
use crate::{output, resolve};

/// `pinfold tasks`.
pub(crate) fn tasks(args: &TasksArgs) -> anyhow::Result<()> {
    let client = resolve::client(&args.realm)?;
    let ids = if args.processes {
        client.list_processes(&args.group, args.recursive)?
    } else {
        client.list_tasks(&args.group, args.recursive)?
    };
    if args.output.json {
        return output::json(&ids);
    }
    output::text(&ids.iter().map(|id| format!("{id}\n")).collect::<String>())
}

/// `pinfold move`.
pub(crate) fn move_process(args: &MoveArgs) -> anyhow::Result<()> {
    let client = resolve::client(&args.realm)?;
    for pid in &args.pids {
        client.move_process(pid.get(), &args.group)?;
    }
    Ok(())
}

/// `pinfold kill`.
pub(crate) fn kill(args: &GroupOnlyArgs) -> anyhow::Result<()> {
    Ok(resolve::client(&args.realm)?.kill(&args.group)?)
}

/// `pinfold freeze`.
pub(crate) fn freeze(args: &GroupOnlyArgs) -> anyhow::Result<()> {
    Ok(resolve::client(&args.realm)?.freeze(&args.group)?)
}

/// `pinfold thaw`.
pub(crate) fn thaw(args: &GroupOnlyArgs) -> anyhow::Result<()> {
    Ok(resolve::client(&args.realm)?.thaw(&args.group)?)
}

/// `pinfold down`.
pub(crate) fn down(args: &DownArgs) -> anyhow::Result<()> {
    Ok(resolve::client(&args.realm)?.down()?)
}
