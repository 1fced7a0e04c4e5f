//! Messages as they are on the wire, for what no client of a bus does by itself.

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};

use crate::daemon::PATIENCE;

/// The kinds of messages.
const CALL: u8 = 1;
const SIGNAL: u8 = 4;

/// A message: its kind, to whom, of which object, interface and member, with strings as arguments.
fn message(kind: u8, to: &str, names: [&str; 3], arguments: &[&str]) -> Vec<u8> {
    message_with(kind, to, names, arguments, 0)
}

/// The same, with so many descriptors, which are arguments if there are others.
fn message_with(
    kind: u8,
    to: &str,
    [object, interface, member]: [&str; 3],
    arguments: &[&str],
    descriptors: u32,
) -> Vec<u8> {
    let mut body: Vec<u8> = Vec::new();
    for argument in arguments {
        body.resize(body.len().next_multiple_of(4), 0);
        body.extend(length(argument));
        body.extend(argument.bytes());
        body.push(0);
    }
    let mut signature = "s".repeat(arguments.len());
    for index in (0..descriptors).filter(|_| !arguments.is_empty()) {
        body.resize(body.len().next_multiple_of(4), 0);
        body.extend(index.to_le_bytes());
        signature.push('h');
    }
    message_of(kind, to, [object, interface, member], (&signature, &body), descriptors)
}

fn length(text: &str) -> [u8; 4] {
    u32::try_from(text.len()).expect("a short text").to_le_bytes()
}

/// The same of a body and its signature.
fn message_of(
    kind: u8,
    to: &str,
    [object, interface, member]: [&str; 3],
    (signature, body): (&str, &[u8]),
    descriptors: u32,
) -> Vec<u8> {
    let mut fields = Vec::new();
    for (code, kind, text) in [(1, b'o', object), (2, b's', interface), (3, b's', member), (6, b's', to)] {
        if text.is_empty() {
            continue;
        }
        fields.resize(fields.len().next_multiple_of(8), 0);
        fields.extend([code, 1, kind, 0]);
        fields.extend(length(text));
        fields.extend(text.bytes());
        fields.push(0);
    }
    if descriptors > 0 {
        fields.resize(fields.len().next_multiple_of(8), 0);
        fields.extend([9, 1, b'u', 0]);
        fields.extend(descriptors.to_le_bytes());
    }
    if !signature.is_empty() {
        fields.resize(fields.len().next_multiple_of(8), 0);
        // The body's signature.
        fields.extend([8, 1, b'g', 0, u8::try_from(signature.len()).expect("few")]);
        fields.extend(signature.bytes());
        fields.push(0);
    }
    let mut message = vec![b'l', kind, 0, 1];
    for number in [body.len(), 1, fields.len()] {
        message.extend(u32::try_from(number).expect("a short message").to_le_bytes());
    }
    message.extend(fields);
    message.resize(message.len().next_multiple_of(8), 0);
    message.extend(body);
    message
}

/// A call of the manager, without arguments.
pub(crate) fn call(to: &str, member: &str) -> Vec<u8> {
    message(CALL, to, ["/org/pinfold/Manager", "org.pinfold.Manager1", member], &[])
}

/// A call for all process events that the caller sees: `Subscribe` with a map that has nothing in it.
pub(crate) fn call_for_events(to: &str) -> Vec<u8> {
    message_of(CALL, to, ["/org/pinfold/Manager", "org.pinfold.Manager1", "Subscribe"], ("a{sv}", &[0; 8]), 0)
}

/// A call of the manager, with strings as arguments.
pub(crate) fn call_with(member: &str, arguments: &[&str]) -> Vec<u8> {
    message(CALL, "", ["/org/pinfold/Manager", "org.pinfold.Manager1", member], arguments)
}

/// A call that makes a group, without values.
pub(crate) fn call_to_create(group: &str) -> Vec<u8> {
    let mut body = length(group).to_vec();
    body.extend(group.bytes());
    body.push(0);
    // A map that has nothing in it, at a multiple of four; its entries would be at one of eight.
    body.resize(body.len().next_multiple_of(4), 0);
    body.extend([0; 4]);
    body.resize(body.len().next_multiple_of(8), 0);
    let names = ["/org/pinfold/Manager", "org.pinfold.Manager1", "Create"];
    message_of(CALL, "", names, ("sa{ss}", &body), 0)
}

/// A call that every object answers.
pub(crate) fn call_of_peer() -> Vec<u8> {
    message(CALL, "", ["/", "org.freedesktop.DBus.Peer", "Ping"], &[])
}

/// A call of the bus.
pub(crate) fn call_of_bus(member: &str, arguments: &[&str]) -> Vec<u8> {
    let name = "org.freedesktop.DBus";
    message(CALL, name, ["/org/freedesktop/DBus", name, member], arguments)
}

/// A signal that looks as one of the bus, to one that is at it.
pub(crate) fn as_if_of_bus(to: &str, member: &str, arguments: &[&str]) -> Vec<u8> {
    message(SIGNAL, to, ["/org/freedesktop/DBus", "org.freedesktop.DBus", member], arguments)
}

/// A call of cgmanager's, with a socket behind its other arguments.
pub(crate) fn call_of_cgmanager(member: &str, arguments: &[&str]) -> Vec<u8> {
    let names = ["/org/linuxcontainers/cgmanager", "org.linuxcontainers.cgmanager0_0", member];
    message_with(CALL, "", names, arguments, 1)
}

/// A signal of nobody's interest, with so many descriptors.
pub(crate) fn signal_with(descriptors: u32, to: &str) -> Vec<u8> {
    message_with(SIGNAL, to, ["/", "org.example.Any", "Thing"], &[], descriptors)
}

/// A call of the manager that takes no descriptor, with so many.
pub(crate) fn call_with_descriptors(descriptors: u32, to: &str, member: &str) -> Vec<u8> {
    let names = ["/org/pinfold/Manager", "org.pinfold.Manager1", member];
    message_with(CALL, to, names, &[], descriptors)
}

/// Sends a message with descriptors, 200 at most.
pub(crate) fn send_with(stream: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
    try_send_with(stream, bytes, fds).expect("the other side talks");
}

/// The same, to one who may not take it.
pub(crate) fn try_send_with(
    stream: &UnixStream,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> rustix::io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(200))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
    rustix::net::sendmsg(stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)
}

/// The descriptor that comes next, with one byte.
pub(crate) fn received(stream: &UnixStream) -> OwnedFd {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    rustix::net::recvmsg(stream, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)
        .expect("it comes");
    let mut found = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    found.next().expect("a descriptor")
}

/// A socket whose last close(2) waits for its other end, which does not read, for as long as its linger time is.
pub(crate) fn lingering() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a network");
    let mut socket = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    let (other_end, _) = listener.accept().expect("it is connected");
    rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::from_secs(600))).expect("a socket");
    socket.set_nonblocking(true).expect("a socket");
    while socket.write(&[0; 1 << 16]).is_ok() {}
    (socket, other_end)
}

/// A connection of a user that has greeted. Its process is this one.
pub(crate) fn connected(socket: String, uid: u32) -> UnixStream {
    // SO_PEERCRED is taken from the thread that connects.
    let connecting = std::thread::spawn(move || {
        rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(uid)).expect("root becomes anybody");
        UnixStream::connect(socket).expect("the door is open")
    });
    let stream = connecting.join().expect("it connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    greeted(stream, uid)
}

/// The same of a connection that has said nothing yet.
pub(crate) fn greeted(mut stream: UnixStream, uid: u32) -> UnixStream {
    let user: String = uid.to_string().bytes().map(|byte| format!("{byte:02x}")).collect();
    stream.write_all(format!("\0AUTH EXTERNAL {user}\r\n").as_bytes()).expect("the other side talks");
    read_until(&mut stream, b"OK ");
    stream.write_all(b"NEGOTIATE_UNIX_FD\r\n").expect("the other side talks");
    read_until(&mut stream, b"AGREE_UNIX_FD\r\n");
    stream.write_all(b"BEGIN\r\n").expect("the other side talks");
    stream
}

/// The next message, whole, and whether it is an error.
pub(crate) fn answer(stream: &mut UnixStream) -> (bool, Vec<u8>) {
    let mut message = vec![0; 16];
    stream.read_exact(&mut message).expect("it is answered");
    let number = |at: usize| u32::from_le_bytes(message[at..at + 4].try_into().expect("four bytes"));
    let rest = number(12).next_multiple_of(8) + number(4);
    message.resize(16 + rest as usize, 0);
    stream.read_exact(&mut message[16..]).expect("it is answered");
    (message[1] == 3, message)
}

/// Reads until this has come; all that came.
pub(crate) fn read_until(stream: &mut UnixStream, what: &[u8]) -> Vec<u8> {
    let mut come = Vec::new();
    while !come.windows(what.len()).any(|part| part == what) {
        let mut room = [0; 4096];
        let length = stream.read(&mut room).expect("it comes");
        assert_ne!(length, 0, "the daemon hung up");
        come.extend_from_slice(&room[..length]);
    }
    come
}

/// The first descriptor that comes.
pub(crate) fn descriptor_of(stream: &UnixStream) -> OwnedFd {
    loop {
        let mut room = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut room)];
        let come = rustix::net::recvmsg(stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC);
        assert_ne!(come.expect("it comes").bytes, 0, "the other side hung up");
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(mut descriptors) = message {
                return descriptors.next().expect("it has one");
            }
        }
    }
}
