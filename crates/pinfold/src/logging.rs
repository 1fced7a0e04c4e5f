//! Logs go to stderr, for people: the daemon tells what it does, a client only what goes wrong.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::args::Command;

/// Starts logging. The filter is `--log` or `RUST_LOG`.
pub(crate) fn start(filter: Option<&str>, command: &Command) {
    let default = if matches!(command, Command::Serve(_)) { "info" } else { "warn" };
    let filter = match filter {
        None | Some("") => default,
        Some(filter) => filter,
    };
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .without_time()
        .init();
}
