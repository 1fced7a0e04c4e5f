//! Signals, taken by a thread that waits for them.
//!
//! Handlers, not a blocked mask or SIG_IGN: those two would be inherited by what the daemon and `run` start.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, anyhow};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::flag;
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

/// What gives up a `capture` or a `restart`.
const GIVING_UP: &[i32] = &[SIGHUP, SIGINT, SIGQUIT, SIGTERM];

/// Signals that are noted, instead of ending the process, as long as there is something to undo. Without a thread: a process
/// that rebuilds others has one only.
pub(crate) struct Interruption {
    noted: Vec<i32>,
    came: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
}

impl Interruption {
    /// From now on signals are noted. One that was ignored before (nohup(1)) stays so.
    pub(crate) fn watch() -> anyhow::Result<Self> {
        let ignored = ignored()?;
        let noted = GIVING_UP.iter().copied().filter(|signal| ignored >> (signal - 1) & 1 == 0).collect();
        let watch = Self { noted, came: Arc::default(), over: Arc::default() };
        for &signal in &watch.noted {
            flag::register_conditional_default(signal, Arc::clone(&watch.over))
                .and_then(|_| flag::register(signal, Arc::clone(&watch.came)))
                .context("signal handlers cannot be installed")?;
        }
        Ok(watch)
    }

    /// Calls `give_up` too, in a thread of its own, when a signal comes that is noted.
    pub(crate) fn and_then(&self, mut give_up: impl FnMut() + Send + 'static) -> anyhow::Result<()> {
        on(&self.noted, move |_| give_up())
    }

    /// An error if a signal came.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        if self.came.load(Ordering::SeqCst) { Err(anyhow!("interrupted")) } else { Ok(()) }
    }

    /// Set when a signal came.
    pub(crate) fn flag(&self) -> &AtomicBool {
        &self.came
    }

    /// From now on signals do again what they do by default.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
    }
}

/// The signals that this process ignores, as a mask. Source: proc(5), `SigIgn`.
fn ignored() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    u64::from_str_radix(mask.unwrap_or_default().trim(), 16).context("SigIgn in /proc/self/status")
}
