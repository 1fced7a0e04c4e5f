//! fusermount3: mounts and unmounts for users who may not do it themselves.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, ExitStatus, Output, Stdio};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType, recvmsg,
    socketpair,
};

use crate::superblock::SUBTYPE;

const PROGRAM: &str = "fusermount3";

/// What became of the helper.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    /// Not installed, or not to be run.
    #[error("{PROGRAM} cannot be run: only root, or a user with {PROGRAM} (package fuse3), can mount")]
    Run(#[source] io::Error),
    /// It says no.
    #[error("{PROGRAM}: {status}{}{said}", if said.is_empty() { "" } else { ": " })]
    Failed {
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        said: String,
    },
    /// It ended well and passed no device.
    #[error("{PROGRAM} passed no device")]
    NoDevice,
    /// The socket between us.
    #[error("the socket to {PROGRAM} fails")]
    Socket(#[from] rustix::io::Errno),
}

/// Mounts at `dir` and gives the device. Others than the user see the files only if /etc/fuse.conf lets them.
pub(crate) fn mount(source: &str, dir: &Path) -> Result<File, HelperError> {
    let private =
        format!("fsname={},subtype={SUBTYPE},default_permissions,nosuid,nodev,noexec", escaped(source));
    match ask(&format!("{private},allow_other"), dir) {
        Err(HelperError::Failed { said, .. }) if said.contains("user_allow_other") => {
            tracing::warn!(
                "{}: only this user can see it: /etc/fuse.conf has no user_allow_other",
                dir.display()
            );
            ask(&private, dir)
        }
        result => result,
    }
}

/// Takes the mount at `dir` away, lazily.
pub(crate) fn unmount(dir: &Path) -> Result<(), HelperError> {
    let output =
        Command::new(PROGRAM).args(["-u", "-z", "-q", "--"]).arg(dir).output().map_err(HelperError::Run)?;
    expect_success(&output)
}

/// A comma would end the option, a backslash escapes it (libfuse's add_option()).
fn escaped(source: &str) -> String {
    source.replace('\\', "\\\\").replace(',', "\\,")
}

/// The helper sends the device over the socket that `_FUSE_COMMFD` names: its standard input here, which needs no
/// inheritable descriptor that another thread's child could catch.
fn ask(options: &str, dir: &Path) -> Result<File, HelperError> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let mut command = Command::new(PROGRAM);
    command.env("_FUSE_COMMFD", "0").args(["-o", options, "--"]).arg(dir);
    let output = command.stdin(Stdio::from(theirs)).output().map_err(HelperError::Run)?;
    drop(command);
    expect_success(&output)?;
    receive(&ours)?.map(File::from).ok_or(HelperError::NoDevice)
}

fn expect_success(output: &Output) -> Result<(), HelperError> {
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(HelperError::Failed { status: output.status, said })
}

fn receive(socket: &OwnedFd) -> Result<Option<OwnedFd>, HelperError> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    Ok(ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_cannot_add_an_option() {
        assert_eq!(escaped("pids,suid"), r"pids\,suid");
        assert_eq!(escaped(r"a\,b"), r"a\\\,b");
    }
}
