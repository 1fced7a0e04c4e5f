//! `exec` and `run`: commands in groups.

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode};
use std::sync::Arc;
use std::sync::Mutex;

use anyhow::Context;
use pinfold_dbus::{Client, ClientError, GroupName, GroupPath, Hierarchies};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::args::{Assignment, ExecArgs, RealmArgs, RunArgs};
use crate::{exit, resolve, signals};

/// `pinfold exec`: returns only if the command could not be run.
pub(crate) fn exec(args: &ExecArgs) -> anyhow::Result<ExitCode> {
    let client = resolve::client(&args.realm)?;
    for group in &args.groups {
        client.move_process(0, group)?;
    }
    drop(client);
    let (program, arguments) = args.command.split_first().context("no command")?;
    let error = Command::new(program).args(arguments).exec();
    eprintln!("pinfold: {}: {error}", program.display());
    Ok(ExitCode::from(exit::of_failed_exec(&error)))
}

/// `pinfold run`.
pub(crate) fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    // Before anything is made, so that no signal leaves it behind.
    let forwarder = Forwarder::install()?;
    let client = resolve::client(&args.realm)?;
    let group = make_group(&client, &args.values)?;
    let result = run_in(args, &client, &group, &forwarder);
    // Processes that the command left behind go to the root group.
    let removed = client.delete_force(&group);
    let status = result?;
    removed.with_context(|| format!("the command has ended, but its group {group} stays"))?;
    Ok(status)
}

/// Makes a group that nobody else has, in the hierarchies of these keys, or in every one.
fn make_group(client: &Client, values: &[Assignment]) -> anyhow::Result<GroupName> {
    let hierarchies = hierarchies_of(client, values)?;
    let mut above = GroupPath::ROOT;
    let mut attempt = 0_u32;
    loop {
        let suffix = if attempt == 0 { String::new() } else { format!(".{attempt}") };
        let name = format!("pinfold-run.{}{suffix}", std::process::id());
        let group = GroupName { hierarchies: hierarchies.clone(), path: above.below(&name) };
        match client.create(&group) {
            Ok(_) => return Ok(group),
            // Another pid namespace's `run` has the same number.
            Err(ClientError::Refused(refusal)) if refusal.errno() == "EEXIST" => attempt += 1,
            // Paths from the root are the host's root's.
            Err(ClientError::Refused(refusal)) if refusal.errno() == "EPERM" && above.is_absolute() => {
                above = GroupPath::OWN;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// The hierarchies of the keys' controllers: `pids` of `pids.max`. Core files are in every hierarchy.
fn hierarchies_of(client: &Client, values: &[Assignment]) -> Result<Hierarchies, ClientError> {
    let known: BTreeSet<String> =
        client.list_controllers()?.into_iter().map(|controller| controller.name).collect();
    let prefixes = values.iter().filter_map(|value| value.key.as_str().split_once('.'));
    let controllers: BTreeSet<_> =
        prefixes.map(|(prefix, _)| prefix.to_owned()).filter(|prefix| known.contains(prefix)).collect();
    Ok(match controllers.is_empty() {
        true => Hierarchies::Every,
        false => Hierarchies::With(controllers.into_iter().collect()),
    })
}

fn run_in(
    args: &RunArgs,
    client: &Client,
    group: &GroupName,
    forwarder: &Forwarder,
) -> anyhow::Result<ExitCode> {
    for value in &args.values {
        client.set_value(group, value.key.as_str(), &value.value)?;
    }
    let mut child = spawn_inside(args, group)?;
    forwarder.aim(&child)?;
    let status = child.wait().context("the command cannot be waited for")?;
    forwarder.rest();
    Ok(exit::of_command(status))
}

/// Starts ourselves as `pinfold exec`, which enters the group before it becomes the command.
fn spawn_inside(args: &RunArgs, group: &GroupName) -> anyhow::Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command.arg("exec").args(realm_arguments(&args.realm)).arg("--group").arg(group.to_string());
    command.arg("--").args(&args.command);
    command.spawn().context("pinfold cannot start itself through /proc/self/exe")
}

fn realm_arguments(realm: &RealmArgs) -> Vec<std::ffi::OsString> {
    let mut arguments = vec!["--realm".into(), realm.realm.as_str().into()];
    if let Some(state) = &realm.state {
        arguments.extend(["--state".into(), state.clone().into_os_string()]);
    }
    arguments
}

/// Passes signals on to the command.
struct Forwarder(Arc<Mutex<Aim>>);

/// Where signals go.
enum Aim {
    /// There is no command yet: those that came are kept.
    Nowhere(Vec<i32>),
    /// The command.
    At(std::os::fd::OwnedFd),
    /// The command has ended.
    Done,
}

impl Forwarder {
    fn install() -> anyhow::Result<Self> {
        let aim = Arc::new(Mutex::new(Aim::Nowhere(Vec::new())));
        let taker = Arc::clone(&aim);
        signals::on(signals::FORWARDED, move |signal| {
            match &mut *taker.lock().expect("nothing panics while the aim is held") {
                Aim::Nowhere(kept) => kept.push(signal),
                Aim::At(command) => forward(command, signal),
                Aim::Done => {}
            }
        })?;
        Ok(Self(aim))
    }

    /// From now on signals go to this child; those that came before, at once.
    fn aim(&self, child: &Child) -> anyhow::Result<()> {
        let pid = rustix::process::Pid::from_child(child);
        let command = pidfd_open(pid, PidfdFlags::empty()).context("pidfd_open of the command")?;
        let mut aim = self.0.lock().expect("nothing panics while the aim is held");
        if let Aim::Nowhere(kept) = &*aim {
            kept.iter().for_each(|signal| forward(&command, *signal));
        }
        *aim = Aim::At(command);
        Ok(())
    }

    fn rest(&self) {
        *self.0.lock().expect("nothing panics while the aim is held") = Aim::Done;
    }
}

fn forward(command: &std::os::fd::OwnedFd, signal: i32) {
    if signals::FROM_TERMINAL.contains(&signal) && in_foreground() {
        return;
    }
    // It fails if the command has just ended: then there is nobody to tell.
    if let Some(signal) = Signal::from_named_raw(signal) {
        let _ = pidfd_send_signal(command, signal);
    }
}

/// Whether what a terminal sends on Ctrl-C reaches the command without our help: it shares our process group.
fn in_foreground() -> bool {
    let Ok(terminal) = std::fs::File::open("/dev/tty") else { return false };
    rustix::termios::tcgetpgrp(terminal).is_ok_and(|group| group == rustix::process::getpgrp())
}
