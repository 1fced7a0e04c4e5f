//! Running a release agent as the kernel runs it.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;

use pinfold_model::Errno;
use pinfold_sys::exec::{self, Image};
use rustix::fs::Mode;
use rustix::io::Errno as Raw;

use crate::errors;

/// The whole environment of an agent (cgroup1_release_agent()).
const ENVIRONMENT: [&std::ffi::CStr; 2] = [c"HOME=/", c"PATH=/sbin:/bin:/usr/sbin:/usr/bin"];

/// Why an agent was not started.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A null byte in the program's or the group's path.
    #[error("release agent {0:?}: a path cannot contain a null byte")]
    NullByte(String),
    /// The kernel would not fork or execute it.
    #[error("release agent {agent:?} cannot be started: {cause}")]
    Start {
        /// The program.
        agent: String,
        /// The kernel's answer.
        cause: io::Error,
    },
}

impl AgentError {
    /// The errno that says the same.
    pub fn errno(&self) -> Errno {
        match self {
            Self::NullByte(_) => Errno::EINVAL,
            Self::Start { cause, .. } => Raw::from_io_error(cause).map_or(Errno::EIO, errors::to_model),
        }
    }
}

/// An agent that runs. It is reaped in the end, also if this is dropped.
#[derive(Debug)]
pub struct Agent(Option<Child>);

/// Starts `agent` with the path of the released group as its one argument, as cgroup1_release_agent() and
/// call_usermodehelper() do: that environment and no other, directory `/`, no terminal, umask 022, no search along
/// `PATH`, no shell for a file without an interpreter line. Returns when it is executed.
///
/// Differs: standard input, output and error are `/dev/null`; the kernel's agents have none open.
pub fn start(agent: &OsStr, group: &OsStr) -> Result<Agent, AgentError> {
    let string = |bytes: &[u8]| {
        CString::new(bytes).map_err(|_| AgentError::NullByte(String::from_utf8_lossy(bytes).into_owned()))
    };
    let failed = |cause| AgentError::Start { agent: agent.to_string_lossy().into_owned(), cause };
    let image = Image {
        file: string(agent.as_bytes())?,
        arguments: vec![string(agent.as_bytes())?, string(group.as_bytes())?],
        environment: ENVIRONMENT.map(CString::from).into(),
    };
    let mut command = Command::new(agent);
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    exec::exactly(&mut command, Mode::from_raw_mode(0o022), image).map_err(failed)?;
    command.spawn().map(|child| Agent(Some(child))).map_err(failed)
}

impl Agent {
    /// Waits until it exits.
    pub fn wait(mut self) -> io::Result<ExitStatus> {
        self.0.take().expect("only wait() and drop() take it").wait()
    }

    /// Leaves the waiting to a thread of its own, as an agent may run for long; what is given goes when it has ended.
    pub fn reap(mut self, until_then: impl Send + 'static) {
        self.leave(until_then);
    }

    fn leave(&mut self, until_then: impl Send + 'static) {
        let Some(mut child) = self.0.take() else { return };
        let reaper = thread::Builder::new().name("release agent".into()).stack_size(64 << 10);
        // Without a thread it stays a zombie as long as the daemon lives: no reason to wait here.
        let _ = reaper.spawn(move || {
            let _exited = child.wait();
            drop(until_then);
        });
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.leave(());
    }
}
