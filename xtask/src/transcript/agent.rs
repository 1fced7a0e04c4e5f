//! The release agent of a script: this binary under another name, which notes how it was called.
//!
//! The runner makes a symbolic link with a name ending in `-agent`; whoever runs it gets one line in `LINK.log`.

use super::words::quote;
use anyhow::{Context, Result};
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Whether this process was started as an agent, by the name it was given.
pub fn is_agent(program: &OsString) -> bool {
    program.as_bytes().ends_with(b"-agent")
}

/// Notes argument list, environment, working directory and user in one line of the agent's log.
pub fn note(arguments: &[OsString]) -> Result<()> {
    let log = log_of(Path::new(&arguments[0]));
    let shown: Vec<String> = arguments.iter().map(|word| quote(word.as_bytes())).collect();
    let mut environment: Vec<String> = std::env::vars_os()
        .map(|(name, value)| quote(&[name.as_bytes(), b"=", value.as_bytes()].concat()))
        .collect();
    environment.sort();
    let line = format!(
        "argv: {} env: {} cwd: {} uid: {}\n",
        shown.join(" "),
        environment.join(" "),
        std::env::current_dir()?.display(),
        rustix::process::geteuid().as_raw()
    );
    let mut file = std::fs::OpenOptions::new().append(true).create(true).open(&log);
    let file = file.as_mut().map_err(|error| anyhow::anyhow!("cannot note in {}: {error}", log.display()))?;
    file.write_all(line.as_bytes()).context("cannot note the call")
}

fn log_of(link: &Path) -> PathBuf {
    let mut name = link.as_os_str().to_owned();
    name.push(".log");
    PathBuf::from(name)
}
