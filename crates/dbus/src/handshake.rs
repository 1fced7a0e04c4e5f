//! The greeting of a connection: SASL as the D-Bus specification has it, from the server's side.
//!
//! Descriptors are taken from those alone who have asked for it and were told so: until then the kernel refuses them (from Linux 6.16).
//! Who a client is, the kernel says; what it claims to be is not looked at. Inside a user namespace root says that it is
//! user 0, and is another user to the daemon: a server that compares the two, as zbus does, turns it away.
//!
//! Source: D-Bus specification, "Authentication Protocol".

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::RecvFlags;

/// How long a client may take to greet.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a line may be, and how many there may be.
const LONGEST: usize = 1024;
const MOST_LINES: usize = 16;

/// Greets a client. Not one byte more is read than the greeting has: the first message is still in the socket.
pub(crate) fn greet(mut stream: &UnixStream, guid: &str) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut greeting = Greeting::default();
    for _ in 0..MOST_LINES {
        let line = read_line(stream, deadline)?;
        match greeting.answer(&line, guid)? {
            Answer::Say(text) => stream.write_all(text.as_bytes())?,
            Answer::Agree => {
                let_pass(stream, true)?;
                stream.write_all(b"AGREE_UNIX_FD\r\n")?;
            }
            Answer::Begin => {
                stream.set_read_timeout(None)?;
                return stream.set_write_timeout(None);
            }
        }
    }
    Err(refused("more lines than a greeting has"))
}

/// Whether a socket, and what comes to it if it is a listener, takes descriptors. False if the kernel cannot be told (Linux before 6.16).
pub(crate) fn let_pass(socket: impl AsFd, may: bool) -> io::Result<bool> {
    match pinfold_sys::socket::pass_rights(socket, may) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::NOPROTOOPT) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// One line, up to its `\n`. Only as much is taken out of the socket.
fn read_line(mut stream: &UnixStream, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    loop {
        let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero());
        stream.set_read_timeout(Some(left.ok_or(io::ErrorKind::TimedOut)?))?;
        let mut ahead = [0; 256];
        let (seen, _) = rustix::net::recv(stream, &mut ahead[..], RecvFlags::PEEK)?;
        if seen == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let end = ahead[..seen].iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(seen, |end| end + 1);
        stream.read_exact(&mut ahead[..taken])?;
        line.extend_from_slice(&ahead[..taken]);
        if end.is_some() {
            return Ok(line);
        }
        if line.len() > LONGEST {
            return Err(refused("a line longer than a greeting has"));
        }
    }
}

fn refused(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// How far a greeting is.
#[derive(Default, Debug)]
struct Greeting {
    step: Step,
    begun: bool,
}

#[derive(Default, Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    #[default]
    Auth,
    Data,
    Begin,
}

/// What is answered to a line.
#[derive(PartialEq, Eq, Debug)]
enum Answer {
    Say(String),
    /// That descriptors may come.
    Agree,
    /// Nothing: messages follow.
    Begin,
}

impl Greeting {
    fn answer(&mut self, line: &[u8], guid: &str) -> io::Result<Answer> {
        let mut line =
            line.strip_suffix(b"\r\n").ok_or_else(|| refused("a line that does not end in CR LF"))?;
        if !self.begun {
            line = line.strip_prefix(b"\0").ok_or_else(|| refused("the first byte is not null"))?;
            self.begun = true;
        }
        let line = std::str::from_utf8(line).map_err(|_| refused("a line that is not ASCII"))?;
        let mut words = line.split(' ');
        let said = match (self.step, words.next().unwrap_or_default()) {
            (Step::Auth, "AUTH") => match (words.next(), words.next()) {
                (Some("EXTERNAL" | "ANONYMOUS"), Some(_)) => self.ok(guid),
                (Some("EXTERNAL" | "ANONYMOUS"), None) => {
                    self.step = Step::Data;
                    "DATA".to_owned()
                }
                _ => self.rejected(),
            },
            (Step::Data, "DATA") => self.ok(guid),
            (Step::Begin, "NEGOTIATE_UNIX_FD") => return Ok(Answer::Agree),
            (Step::Begin, "BEGIN") => return Ok(Answer::Begin),
            (_, "BEGIN") => return Err(refused("BEGIN before the client is known")),
            (Step::Data | Step::Begin, "CANCEL") | (_, "ERROR") => self.rejected(),
            _ => "ERROR".to_owned(),
        };
        Ok(Answer::Say(format!("{said}\r\n")))
    }

    fn ok(&mut self, guid: &str) -> String {
        self.step = Step::Begin;
        format!("OK {guid}")
    }

    fn rejected(&mut self) -> String {
        self.step = Step::Auth;
        "REJECTED EXTERNAL ANONYMOUS".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is answered to these lines, `|` between them; `begin`, or why the client is let go.
    fn conversation(lines: &str) -> String {
        let mut greeting = Greeting::default();
        let mut said = Vec::new();
        for line in lines.split('|') {
            said.push(match greeting.answer(format!("{line}\r\n").as_bytes(), "f00d") {
                Ok(Answer::Say(text)) => text.trim_end().to_owned(),
                Ok(Answer::Agree) => "AGREE_UNIX_FD".to_owned(),
                Ok(Answer::Begin) => "begin".to_owned(),
                Err(error) => error.to_string(),
            });
        }
        said.join("|")
    }

    #[test]
    fn clients_greet_in_different_ways() {
        for (lines, answers) in [
            // libdbus, zbus
            ("\0AUTH EXTERNAL 30|NEGOTIATE_UNIX_FD|BEGIN", "OK f00d|AGREE_UNIX_FD|begin"),
            // systemd
            ("\0AUTH EXTERNAL|DATA|NEGOTIATE_UNIX_FD|BEGIN", "DATA|OK f00d|AGREE_UNIX_FD|begin"),
            // GLib
            ("\0AUTH|AUTH EXTERNAL 30|BEGIN", "REJECTED EXTERNAL ANONYMOUS|OK f00d|begin"),
            ("\0AUTH COOKIE x|AUTH ANONYMOUS 70|BEGIN", "REJECTED EXTERNAL ANONYMOUS|OK f00d|begin"),
            ("\0AUTH EXTERNAL|CANCEL|AUTH EXTERNAL 30", "DATA|REJECTED EXTERNAL ANONYMOUS|OK f00d"),
        ] {
            assert_eq!(conversation(lines), answers, "{lines:?}");
        }
    }

    #[test]
    fn what_is_no_greeting_is_let_go() {
        for (lines, answers) in [
            ("AUTH EXTERNAL 30", "the first byte is not null"),
            ("\0GET / HTTP/1.1", "ERROR"),
            ("\0BEGIN", "BEGIN before the client is known"),
            ("\0NEGOTIATE_UNIX_FD|DATA", "ERROR|ERROR"),
            ("\0AUTH EXTERNAL|BEGIN", "DATA|BEGIN before the client is known"),
        ] {
            assert_eq!(conversation(lines), answers, "{lines:?}");
        }
        assert!(Greeting::default().answer(b"\0AUTH\n", "").is_err());
        assert!(Greeting::default().answer(b"\0\xff\r\n", "").is_err());
    }

    #[test]
    fn messages_behind_the_greeting_stay_in_the_socket() {
        let (mut client, server) = UnixStream::pair().unwrap();
        client.write_all(b"\0AUTH EXTERNAL 30\r\nBEGIN\r\nl\x01\x00").unwrap();
        greet(&server, "f00d").unwrap();
        let mut rest = [0; 3];
        (&server).read_exact(&mut rest).unwrap();
        assert_eq!(rest, *b"l\x01\x00");
    }

    #[test]
    fn descriptors_are_taken_when_the_client_was_told_so() {
        let (mut client, server) = UnixStream::pair().unwrap();
        if !let_pass(&server, false).unwrap() {
            return eprintln!("skipped: needs Linux 6.16");
        }
        let pass = |client: &UnixStream| crate::stream::send(client, b"\0", &[client.as_fd()]);
        assert_eq!(pass(&client).unwrap_err().raw_os_error(), Some(1), "EPERM");
        client.write_all(b"\0AUTH EXTERNAL 30\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n").unwrap();
        greet(&server, "f00d").unwrap();
        pass(&client).unwrap();
    }

    #[test]
    fn a_greeting_in_pieces_is_one() {
        let (mut client, server) = UnixStream::pair().unwrap();
        let greeted = std::thread::spawn(move || greet(&server, "f00d"));
        for piece in [&b"\0"[..], b"AU", b"TH EXTERNAL 30\r", b"\n", b"BEGIN\r\n"] {
            client.write_all(piece).unwrap();
        }
        greeted.join().unwrap().unwrap();
    }

    #[test]
    fn a_line_without_an_end_ends() {
        let (mut client, server) = UnixStream::pair().unwrap();
        client.write_all(&[b'a'; 4096]).unwrap();
        assert_eq!(greet(&server, "").unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(client);
        let (client, server) = UnixStream::pair().unwrap();
        drop(client);
        assert_eq!(greet(&server, "").unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
