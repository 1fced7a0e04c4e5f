//! Connections of another user, made by a process of his: before Linux 6.5 the daemon knows who asks by that alone, and a
//! thread that takes another user is none.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use super::wire;
use crate::daemon::{self, PATIENCE};

/// The socket that this program connects to where it is another user's: see [`connects`].
const SOCKET: &str = "PINFOLD_TEST_SOCKET";

/// What it is told to do.
const CONNECT: u8 = b'c';
const FLOOD: u8 = b'f';

/// Not a test, but what this program does as another user's process: it connects whenever its input says so, and hands the
/// connection over.
#[test]
fn connects() {
    let Ok(socket) = std::env::var(SOCKET) else { return };
    let connect = || UnixStream::connect(&socket).expect("the door is open");
    let line = std::io::stdin().as_fd().try_clone_to_owned().expect("a descriptor");
    let mut line = UnixStream::from(line);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut told = [0];
        while line.read(&mut told).expect("the test talks") == 1 {
            if told[0] == FLOOD {
                for _ in 0..4 {
                    scope.spawn(|| {
                        while !is_over.load(Ordering::Relaxed) {
                            drop(UnixStream::connect(&socket));
                        }
                    });
                }
                line.write_all(b"f").expect("the test listens");
            } else {
                wire::send_with(&line, b"c", &[connect().as_fd()]);
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
}

/// A process of another user, who is who asks over every connection that it made.
pub(crate) struct Other {
    child: Option<Child>,
    line: Option<UnixStream>,
}

impl Other {
    /// One that connects to this socket.
    pub(crate) fn new(uid: u32, socket: impl AsRef<Path>) -> Self {
        let (line, its_end) = UnixStream::pair().expect("two sockets");
        let program = std::env::current_exe().expect("this program has a file");
        let mut command = Command::new(program);
        command.args(["--exact", "bus::others::connects"]).env(SOCKET, socket.as_ref()).uid(uid).gid(uid);
        command.stdin(Stdio::from(OwnedFd::from(its_end))).stdout(Stdio::null());
        let child = command.current_dir("/").spawn().expect("it may be run by everybody");
        line.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Self { child: Some(child), line: Some(line) }
    }

    fn tell(&mut self, what: u8) -> &mut UnixStream {
        let line = self.line.as_mut().expect("it runs");
        line.write_all(&[what]).expect("it listens");
        line
    }

    /// A connection that has said nothing yet.
    pub(crate) fn connect(&mut self) -> UnixStream {
        let stream = UnixStream::from(wire::received(self.tell(CONNECT)));
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream
    }

    /// Connects and hangs up, over and over, until this is dropped.
    pub(crate) fn flood(&mut self) {
        self.tell(FLOOD).read_exact(&mut [0]).expect("it has begun");
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // It ends with its input.
        drop(self.line.take());
        if let Some(child) = self.child.take() {
            daemon::wait(child);
        }
    }
}
