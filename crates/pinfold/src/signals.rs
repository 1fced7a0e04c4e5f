//! Signals, taken by a thread that waits for them.
//!
//! Handlers, not a blocked mask or SIG_IGN: those two would be inherited by what the daemon and `run` start.

use std::thread;

use anyhow::Context;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

/// What ends the daemon.
pub(crate) const ENDING: &[i32] = &[SIGINT, SIGTERM];
/// What has the daemon read its rules again: it has no terminal to lose.
pub(crate) const RELOADING: i32 = SIGHUP;
/// What concerns the daemon at all.
pub(crate) const OF_DAEMON: &[i32] = &[SIGINT, SIGTERM, RELOADING];
/// What `run` passes on to its command.
pub(crate) const FORWARDED: &[i32] = &[SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];
/// What a terminal sends to every process in the foreground, so that the command gets it without our help.
pub(crate) const FROM_TERMINAL: &[i32] = &[SIGINT, SIGQUIT];

/// Calls `take` for every one of these signals from now on, in a thread of its own.
pub(crate) fn on(signals: &[i32], mut take: impl FnMut(i32) + Send + 'static) -> anyhow::Result<()> {
    let mut signals = Signals::new(signals).context("signal handlers cannot be installed")?;
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || signals.forever().for_each(&mut take))
        .context("no thread to wait for signals")?;
    Ok(())
}
