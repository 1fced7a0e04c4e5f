//! `pinfold serve --events-only`: process events for whoever subscribes, without a realm. What a container's pinfold is that was
//! given nothing but the outer one's public directory.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc;

use anyhow::{Context, bail};
use pinfold_dbus::{Server, wire};

use super::watching::Watching;
use super::{Event, origin, take_signals};
use crate::args::ServeArgs;
use crate::{resolve, signals};

/// `pinfold serve --events-only`.
pub(crate) fn serve(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    let (ending, told) = mpsc::channel();
    take_signals(&ending)?;
    let state = resolve::state_dir(&args.realm)?;
    let watching = Watching::new(origin(args, &state)?);
    let place = Place::take(&state)?;
    let events = watching.events_alone();
    let server = Server::listen_for_events(&place.dir.join(wire::SOCKET), events)?;
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    tracing::info!("process events at {}; Ctrl-C ends it", place.dir.display());
    loop {
        match told.recv().context("nothing is left that could end the daemon")? {
            Event::Signal(signals::RELOADING) => {}
            Event::Signal(signal) => {
                tracing::info!("ending on signal {signal}");
                break;
            }
            Event::Down(_) => break,
        }
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    server.stop();
    Ok(ExitCode::SUCCESS)
}

/// The public directory, held by a lock on itself, so that no two daemons take each other's socket away. It goes in the end.
struct Place {
    dir: PathBuf,
    _lock: File,
}

impl Place {
    fn take(state: &Path) -> anyhow::Result<Self> {
        let dir = wire::public_dir(state);
        let at = || format!("the public directory {}", dir.display());
        if state.exists() {
            bail!("{} is a realm's: process events are served there already", state.display());
        }
        if let Some(above) = dir.parent() {
            std::fs::create_dir_all(above).with_context(at)?;
        }
        match std::fs::create_dir(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(at);
            }
            _ => {}
        }
        let lock = File::open(&dir).with_context(at)?;
        match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { dir, _lock: lock }),
            Err(_) => bail!("{} is in use by another daemon", dir.display()),
        }
    }
}
