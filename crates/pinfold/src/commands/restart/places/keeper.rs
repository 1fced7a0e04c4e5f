//! A process of our own that is in some groups, so that their leaf is there.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, bail};
use pinfold_restart::pids::{Cloned, Request, clone_with_pids};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

/// How long it is waited for before a look at whether a signal came.
const NAP: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// What `cat` gives back.
const LINE: &[u8] = b"there\n";

/// It ends when this is dropped.
pub(super) struct Keeper {
    pidfd: OwnedFd,
    /// To its input, from its output. It does not end with its input: whoever is made meanwhile has a copy of that.
    pipes: (File, File),
}

impl Keeper {
    /// Starts a command that enters groups and becomes `cat`, with a number that is not `taken`; `look` is called when it is
    /// there, with its number.
    pub(super) fn enter<T>(
        mut command: Command,
        taken: &BTreeSet<u32>,
        interrupted: &AtomicBool,
        look: impl FnOnce(u32) -> anyhow::Result<T>,
    ) -> anyhow::Result<(Self, T)> {
        let pipe = || pipe_with(PipeFlags::CLOEXEC).context("no pipe for a process of ours");
        let ((input, write), (read, output)) = (pipe()?, pipe()?);
        let is_taken = |_: usize, pid: u32| taken.contains(&pid);
        let request = Request { pids: &[0], reserved: Some(&is_taken), ..Request::default() };
        match clone_with_pids(&request)? {
            Cloned::Child => {
                let error = command.arg("cat").stdin(input).stdout(output).exec();
                // Nobody is left to tell if this fails.
                let _ = writeln!(
                    std::io::stderr(),
                    "pinfold cannot start itself through /proc/self/exe: {error}"
                );
                std::process::exit(1)
            }
            Cloned::Parent { pid, pidfd } => {
                drop((input, output));
                let keeper = Self { pidfd, pipes: (File::from(write), File::from(read)) };
                keeper.hears(interrupted)?;
                let seen = look(pid.get())?;
                Ok((keeper, seen))
            }
        }
    }

    /// Waits until it has become `cat`: it gives back a line. A group may be frozen, so not without an end.
    fn hears(&self, interrupted: &AtomicBool) -> anyhow::Result<()> {
        let (mut write, mut read) = (&self.pipes.0, &self.pipes.1);
        // If it has ended instead, there is no answer; the write is allowed to fail by that.
        let _ = write.write_all(LINE);
        let mut line = [0; LINE.len()];
        loop {
            match poll(&mut [PollFd::new(read, PollFlags::IN)], Some(&NAP)) {
                _ if interrupted.load(Ordering::SeqCst) => bail!("interrupted"),
                Ok(0) | Err(Errno::INTR) => {}
                _ => break,
            }
        }
        match read.read_exact(&mut line) {
            Ok(()) if line == LINE => Ok(()),
            _ => bail!("its reason is above"),
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // ESRCH: it has ended by itself. Either way it is a child that nobody else waits for.
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        while waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED)
            .is_err_and(|errno| errno == Errno::INTR)
        {}
    }
}
