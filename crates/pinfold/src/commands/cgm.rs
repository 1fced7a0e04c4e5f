//! `cgm`: cgmanager's client, for scripts that call it.
//!
//! What it prints and what it exits with are cgmanager's; what it says of a failure, on stderr, is more.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow, bail};
use clap::Parser;
use pinfold_dbus::cgmanager::{Client, DEFAULT_SOCKETS};

use crate::args::{Cgm, CgmCommand};
use crate::{exit, output};

/// The environment variable that names the manager's socket.
const SOCKET: &str = "CGM_SOCKET";

/// Runs cgmanager's client.
pub(crate) fn cgm(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let called = std::iter::once(OsString::from("cgm")).chain(arguments);
    let args = match Cgm::try_parse_from(called) {
        Ok(args) => args,
        // Help is a failure too: it is not what a script asked for.
        Err(error) => {
            let _ = error.print();
            let is_version = error.kind() == clap::error::ErrorKind::DisplayVersion;
            return if is_version { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILED) };
        }
    };
    exit::report_of("cgm", exit::FAILED, carry_out(args.command).map(|()| ExitCode::SUCCESS))
}

/// The manager's socket: the first that is there.
fn socket() -> PathBuf {
    if let Some(given) = std::env::var_os(SOCKET).filter(|given| !given.is_empty()) {
        // Written as a D-Bus address too.
        let path = given.to_str().and_then(|given| given.strip_prefix("unix:path=")).map(PathBuf::from);
        return path.unwrap_or_else(|| PathBuf::from(&given));
    }
    let there = DEFAULT_SOCKETS.iter().map(Path::new).find(|socket| socket.exists());
    there.unwrap_or(Path::new(DEFAULT_SOCKETS[0])).to_owned()
}

fn carry_out(command: CgmCommand) -> anyhow::Result<()> {
    use CgmCommand as Of;
    let client = Client::at(&socket());
    match command {
        Of::Ping => client.ping()?,
        Of::Create { controller, cgroup } => {
            if client.create(&controller, &cgroup)? {
                output::text("Path existed\n")?;
            }
        }
        Of::Chown { controller, cgroup, uid, gid } => {
            client.chown(&controller, &cgroup, id(&uid)?, id(&gid)?)?;
        }
        Of::Chmod { controller, cgroup, mode } => client.chmod(&controller, &cgroup, "", octal(&mode)?)?,
        Of::Chmodfile { controller, cgroup, file, mode } => {
            client.chmod(&controller, &cgroup, &file, octal(&mode)?)?;
        }
        Of::Remove { controller, cgroup, recursive } => {
            if !client.remove(&controller, &cgroup, recursive.as_deref() != Some("0"))? {
                output::text("Path did not exist\n")?;
            }
        }
        Of::Getpidcgroup { controller, pid } => line(client.pid_cgroup(&controller, process(&pid)?)?)?,
        Of::Getpidcgroupabs { controller, pid } => {
            line(client.pid_cgroup_abs(&controller, process(&pid)?)?)?;
        }
        Of::Movepid { controller, cgroup, pid } => {
            client.move_pid(&controller, &cgroup, process(&pid)?)?;
        }
        Of::Movepidabs { controller, cgroup, pid } => {
            client.move_pid_abs(&controller, &cgroup, process(&pid)?)?;
        }
        Of::Getvalue { controller, cgroup, file } => line(client.value(&controller, &cgroup, &file)?)?,
        Of::Setvalue { controller, cgroup, file, value } => {
            client.set_value(&controller, &cgroup, &file, &value)?;
        }
        Of::Gettasks { controller, cgroup } => lines(client.tasks(&controller, &cgroup)?)?,
        Of::Gettasksrecursive { controller, cgroup } => {
            lines(client.tasks_recursive(&controller, &cgroup)?)?;
        }
        Of::Listchildren { controller, cgroup } => lines(client.children(&controller, &cgroup)?)?,
        Of::Removeonempty { controller, cgroup } => client.remove_on_empty(&controller, &cgroup)?,
        Of::Prune { controller, cgroup } => client.prune(&controller, &cgroup)?,
        Of::Listcontrollers => lines(client.controllers()?)?,
        Of::Listkeys { controller, cgroup } => {
            let keys = client.keys(&controller, &cgroup)?.into_iter();
            lines(keys.map(|(name, uid, gid, mode)| format!("{name} {uid} {gid} {mode:o}")))?;
        }
        Of::Apiversion => line(client.api_version()?)?,
    }
    Ok(())
}

fn line(value: impl std::fmt::Display) -> anyhow::Result<()> {
    output::text(&format!("{value}\n"))
}

fn lines<T: std::fmt::Display>(values: impl IntoIterator<Item = T>) -> anyhow::Result<()> {
    output::text(&values.into_iter().map(|value| format!("{value}\n")).collect::<String>())
}

/// A user or a group of users: a number of at least 0. cgmanager takes what is no number for 0, which is root.
fn id(text: &str) -> anyhow::Result<i32> {
    text.parse().ok().filter(|id| *id >= 0).ok_or_else(|| anyhow!("bad uid or gid {text:?}"))
}

/// A process. What is no number is none, not the caller.
fn process(text: &str) -> anyhow::Result<i32> {
    text.parse().with_context(|| format!("bad pid {text:?}"))
}

/// A mode.
fn octal(text: &str) -> anyhow::Result<i32> {
    match i32::from_str_radix(text, 8) {
        Ok(mode @ 0..) => Ok(mode),
        _ => bail!("bad mode {text:?}"),
    }
}
