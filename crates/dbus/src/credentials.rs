//! Processes named by credentials that come over a socket: the kernel translates their numbers on the way.
//!
//! The caller keeps one end of a pair of sockets and passes the other. The daemon writes a byte to it, and whoever has the
//! other end answers with a byte and its credentials (SCM_CREDENTIALS), or, if it may, with those of another process.
//! Source: unix(7); cgmanager's protocol of file descriptors.

use std::io::IoSlice;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use pinfold_model::{Errno, HostPid};
use pinfold_realm::{Named, Realm, Requester};
use pinfold_sys::socket::{Credentials, receive_credentials};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{SendAncillaryBuffer, SendFlags};

use crate::error::{Refusal, chain};

/// How long whoever has the other end may take to answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// Whether a descriptor is of a socket. Not by fstat(2): that asks the file system that a file is of, which may be the
/// client's own and never answer.
pub(crate) fn is_socket(fd: impl AsFd) -> bool {
    rustix::net::sockopt::socket_type(fd).is_ok()
}

/// The process whose credentials come over a socket.
pub(crate) fn process(realm: &Realm, requester: &Requester, socket: impl AsFd) -> Result<Named, Refusal> {
    let credentials = ask(&socket).map_err(|errno| refused(errno, "no credentials came over the socket"))?;
    let task = number(&credentials).ok_or_else(|| {
        Refusal::new(Errno::ESRCH, "the process is in a pid namespace that the daemon does not see")
    })?;
    realm.seen(requester, task).map_err(|error| Refusal::new(error.errno(), chain(&error)))
}

fn refused(errno: rustix::io::Errno, what: &str) -> Refusal {
    let known = match errno {
        rustix::io::Errno::TIMEDOUT => Errno::EAGAIN,
        _ => Errno::EINVAL,
    };
    Refusal::new(known, format!("{what}: {errno}"))
}

/// The process's number; `None` if it has none in the daemon's pid namespace.
pub(crate) fn number(credentials: &Credentials) -> Option<HostPid> {
    credentials.process.and_then(|number| HostPid::new(number.get()))
}

/// Asks for credentials: writes a byte, and waits for one that brings them.
pub(crate) fn ask(socket: &impl AsFd) -> rustix::io::Result<Credentials> {
    rustix::net::sockopt::set_socket_passcred(socket, true)?;
    say(socket, b"1")?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        wait(socket, PollFlags::IN, deadline)?;
        match receive_credentials(socket) {
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            answer => return answer?.ok_or(rustix::io::Errno::CONNRESET),
        }
    }
}

/// Writes to the socket, but never waits long for whoever does not read.
pub(crate) fn say(socket: &impl AsFd, mut text: &[u8]) -> rustix::io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    while !text.is_empty() {
        match rustix::net::sendmsg(socket, &[IoSlice::new(text)], &mut SendAncillaryBuffer::default(), flags)
        {
            Ok(sent) => text = &text[sent..],
            Err(rustix::io::Errno::AGAIN) => wait(socket, PollFlags::OUT, deadline)?,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn wait(socket: &impl AsFd, what: PollFlags, deadline: Instant) -> rustix::io::Result<()> {
    let left = deadline.checked_duration_since(Instant::now()).ok_or(rustix::io::Errno::TIMEDOUT)?;
    let left = Timespec::try_from(left).map_err(|_| rustix::io::Errno::INVAL)?;
    match rustix::event::poll(&mut [PollFd::new(socket, what)], Some(&left)) {
        Ok(0) => Err(rustix::io::Errno::TIMEDOUT),
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn whoever_answers_is_named_by_the_kernel() {
        let (mut client, server) = UnixStream::pair().unwrap();
        let asking = std::thread::spawn(move || ask(&server));
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        assert_eq!(byte, *b"1");
        client.write_all(b"x").unwrap();
        let credentials = asking.join().unwrap().unwrap();
        assert_eq!(number(&credentials), HostPid::new(std::process::id()));
    }

    #[test]
    fn whoever_hangs_up_or_passes_something_else_is_nobody() {
        let (client, server) = UnixStream::pair().unwrap();
        drop(client);
        assert!(ask(&server).is_err());
        assert!(is_socket(&server));
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(!is_socket(&file) && ask(&file).is_err());
    }
}
