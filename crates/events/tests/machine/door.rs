//! A socket in a directory that answers every connection with a subscription for who connected: what `Subscribe` will do.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use pinfold_events::{Pid, Scope, Service};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg, sockopt,
};

/// The service behind a door; `None` while the daemon is down.
pub(crate) type Behind = Arc<Mutex<Option<Service>>>;

/// Opens a door at a path, for everybody.
pub(crate) fn open(path: &Path, behind: Behind) {
    let listener = UnixListener::bind(path).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            answer(&connection.unwrap(), &behind);
        }
    });
}

fn answer(connection: &UnixStream, behind: &Behind) {
    let peer = sockopt::socket_peercred(connection).unwrap();
    let reader = Pid::new(peer.pid.as_raw_pid() as u32);
    let service = behind.lock().unwrap();
    let (Some(service), Some(reader)) = (service.as_ref(), reader) else { return };
    let subscription = service.subscribe(reader, &Scope::All).unwrap();
    let descriptors = [subscription.socket.as_fd()];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    let _ = sendmsg(connection, &[IoSlice::new(b"!")], &mut ancillary, SendFlags::NOSIGNAL);
}

/// Subscribes at a door.
pub(crate) fn knock(path: &PathBuf) -> io::Result<OwnedFd> {
    let connection = UnixStream::connect(path)?;
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(&connection, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let descriptor = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    descriptor.ok_or_else(|| io::ErrorKind::ConnectionRefused.into())
}
