//! A D-Bus client that costs next to nothing: its calls are made beforehand, answers are looked at only as far as to know
//! that they are no errors. So what is timed is the other side.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use zbus::Message;
use zbus::wire::Type;

/// A message, ready to be sent again and again.
#[derive(Clone)]
pub(super) struct Call(Vec<u8>);

impl Call {
    /// A call of this method.
    pub(super) fn new(
        object: &'static str,
        interface: &'static str,
        method: &'static str,
        arguments: &(impl Serialize + Type),
    ) -> Result<Self> {
        let message = Message::method_call(object, method).interface(interface).build(arguments)?;
        Ok(Self(message.data().to_vec()))
    }
}

/// A connection. One call is under way at a time.
pub(super) struct Peer {
    stream: UnixStream,
    answer: Vec<u8>,
}

/// The fixed part of a message's header.
const HEADER: usize = 16;

impl Peer {
    /// Connects and greets.
    pub(super) fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).with_context(|| socket.display().to_string())?;
        let mut lines = BufReader::new(&stream);
        // Who this is, the kernel tells; zbus wants to hear the same.
        let user: String =
            rustix::process::getuid().to_string().bytes().map(|byte| format!("{byte:02x}")).collect();
        (&stream).write_all(format!("\0AUTH EXTERNAL {user}\r\n").as_bytes())?;
        let mut line = String::new();
        lines.read_line(&mut line)?;
        ensure!(line.starts_with("OK "), "the greeting is answered by {line:?}");
        (&stream).write_all(b"BEGIN\r\n")?;
        Ok(Self { stream, answer: Vec::new() })
    }

    /// Calls, and waits for the answer.
    pub(super) fn call(&mut self, call: &Call) -> Result<()> {
        self.exchange(call)?;
        match self.answer[1] {
            RETURN => Ok(()),
            _ => bail!("not answered but refused: {}", String::from_utf8_lossy(&self.answer)),
        }
    }

    /// Calls what is to be refused, with this errno.
    pub(super) fn refused(&mut self, call: &Call, errno: &str) -> Result<()> {
        self.exchange(call)?;
        let said = String::from_utf8_lossy(&self.answer);
        ensure!(self.answer[1] == ERROR && said.contains(errno), "not refused by {errno}: {said}");
        Ok(())
    }

    fn exchange(&mut self, call: &Call) -> Result<()> {
        self.stream.write_all(&call.0)?;
        let mut room = [0; 4096];
        self.answer.clear();
        loop {
            let come = self.stream.read(&mut room)?;
            ensure!(come > 0, "the other side hung up");
            self.answer.extend_from_slice(&room[..come]);
            if length(&self.answer).is_some_and(|length| self.answer.len() >= length) {
                return Ok(());
            }
        }
    }
}

/// A message's type: the answer to a call, and the refusal of one.
const RETURN: u8 = 2;
const ERROR: u8 = 3;

/// How long the message is that begins like this; `None` if too little of it has come to tell. Everybody here writes
/// numbers as this machine does.
fn length(begun: &[u8]) -> Option<usize> {
    let number = |at: usize| {
        let bytes = begun.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_ne_bytes(bytes)).ok()
    };
    Some((HEADER + number(12)?).next_multiple_of(8) + number(4)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_as_long_as_its_header_says() {
        let call = Call::new("/null", "org.null", "Null", &("a", 7)).unwrap();
        assert_eq!(length(&call.0), Some(call.0.len()));
        assert_eq!(length(&call.0[..HEADER]), Some(call.0.len()));
        assert_eq!(length(&call.0[..HEADER - 1]), None);
    }
}
