//! Requests that no sound kernel sends, and handlers that panic: the serving threads answer and go on.
//! A socket that keeps messages apart stands in for /dev/fuse.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use fuse_backend_rs::abi::fuse_abi::stat64;
use fuse_backend_rs::api::filesystem::{Context, Entry, FileSystem, ZeroCopyReader, ZeroCopyWriter};
use pinfold_fuse::serve::{Serving, serve};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair, sockopt};

const LOOKUP: u32 = 1;
const GETATTR: u32 = 3;
const INTERRUPT: u32 = 36;

/// `-EIO`, `-ENOENT` as a reply carries them.
const EIO: i32 = -5;
const ENOENT: i32 = -2;

/// Finds nothing, and panics when asked for attributes.
struct Fragile;

impl FileSystem for Fragile {
    type Inode = u64;
    type Handle = u64;

    fn lookup(&self, _: &Context, _: u64, _: &CStr) -> io::Result<Entry> {
        Err(io::Error::from_raw_os_error(libc::ENOENT))
    }

    fn getattr(&self, _: &Context, inode: u64, _: Option<u64>) -> io::Result<(stat64, Duration)> {
        panic!("a bug in a handler, met with inode {inode}: this test wants it")
    }

    fn read(
        &self,
        _: &Context,
        _: u64,
        _: u64,
        to: &mut dyn ZeroCopyWriter,
        size: u32,
        _: u64,
        _: Option<u64>,
        _: u32,
    ) -> io::Result<usize> {
        to.write(&vec![0; size as usize])
    }

    fn write(
        &self,
        _: &Context,
        _: u64,
        _: u64,
        from: &mut dyn ZeroCopyReader,
        size: u32,
        _: u64,
        _: Option<u64>,
        _: bool,
        _: u32,
        _: u32,
    ) -> io::Result<usize> {
        let mut text = vec![0; size as usize];
        from.read_exact(&mut text)?;
        Ok(text.len())
    }
}

/// The kernel's end of the device.
struct Kernel {
    socket: OwnedFd,
    serving: Serving,
}

impl Kernel {
    fn new() -> Self {
        let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
        let (socket, device) = pair.unwrap();
        let bound = Some(Duration::from_secs(10));
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, bound).unwrap();
        let threads = NonZeroUsize::new(2).unwrap();
        let serving = serve(Arc::new(File::from(device)), Fragile, threads, || ()).unwrap();
        Self { socket, serving }
    }

    fn send(&self, request: &[u8]) {
        assert_eq!(rustix::io::write(&self.socket, request).unwrap(), request.len());
    }

    /// The next reply: the error and the number of the request.
    fn reply(&self) -> (i32, u64) {
        let mut reply = vec![0; 1 << 21];
        let length = rustix::io::read(&self.socket, &mut reply).unwrap();
        assert!(length >= 16, "a reply has a header");
        let error = i32::from_ne_bytes(reply[4..8].try_into().unwrap());
        (error, u64::from_ne_bytes(reply[8..16].try_into().unwrap()))
    }

    /// Every thread must still be there: as many requests as threads, then the end.
    fn close(self) {
        drop(self.socket);
        self.serving.join();
    }
}

/// `struct fuse_in_header` with the length it claims, and a body.
fn request(claimed: usize, opcode: u32, unique: u64, body: &[u8]) -> Vec<u8> {
    let mut request = Vec::new();
    request.extend(u32::try_from(claimed).unwrap().to_ne_bytes());
    request.extend(opcode.to_ne_bytes());
    request.extend(unique.to_ne_bytes());
    request.extend(1_u64.to_ne_bytes()); // inode
    request.extend([0; 16]); // uid, gid, pid, padding
    request.extend(body);
    request
}

fn sound(opcode: u32, unique: u64, body: &[u8]) -> Vec<u8> {
    request(40 + body.len(), opcode, unique, body)
}

#[test]
fn a_handler_that_panics_is_an_io_error_and_the_thread_goes_on() {
    let kernel = Kernel::new();
    for unique in 1..=20 {
        kernel.send(&sound(GETATTR, unique, &[0; 16]));
        assert_eq!(kernel.reply(), (EIO, unique));
        kernel.send(&sound(LOOKUP, unique + 100, b"name\0"));
        assert_eq!(kernel.reply(), (ENOENT, unique + 100));
    }
    kernel.close();
}

#[test]
fn a_request_that_is_cut_short_or_lies_about_its_length_is_refused() {
    let kernel = Kernel::new();
    let cases = [
        ("no body", request(40, GETATTR, 1, &[])),
        ("half a body", request(56, GETATTR, 1, &[0; 7])),
        ("shorter than a header", request(3, LOOKUP, 1, b"name\0")),
        ("longer than it is", request(4096, LOOKUP, 1, b"name\0")),
        ("longer than any", request(u32::MAX as usize, LOOKUP, 1, b"name\0")),
        ("a name without an end", sound(LOOKUP, 1, b"name")),
    ];
    for (what, case) in cases {
        kernel.send(&case);
        let (error, unique) = kernel.reply();
        assert!(error < 0 && unique == 1, "{what}: {error}");
        // Some cases are answered twice: the kernel does not know the second answer's request any more.
        kernel.send(&sound(LOOKUP, 2, b"name\0"));
        let mut last = kernel.reply();
        while last.1 == 1 {
            last = kernel.reply();
        }
        assert_eq!(last, (ENOENT, 2), "{what}");
    }
    kernel.send(&[1, 2, 3]);
    kernel.send(&sound(INTERRUPT, 4, &[0; 8]));
    kernel.send(&sound(LOOKUP, 5, b"name\0"));
    assert_eq!(kernel.reply(), (ENOENT, 5), "no header, no answer; an interrupt has none either");
    kernel.close();
}

#[test]
fn junk_of_every_kind_kills_no_thread() {
    let kernel = Kernel::new();
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..4000_u64 {
        let opcode = u32::try_from(random() % 60).unwrap();
        let mut body: Vec<u8> = (0..random() % 200).map(|_| random().to_ne_bytes()[0]).collect();
        if random().is_multiple_of(2) {
            // Small numbers get further than large ones.
            body.iter_mut().for_each(|byte| *byte &= 1);
        }
        let length = 40 + body.len();
        let claimed = if random().is_multiple_of(4) { length ^ 5 } else { length };
        kernel.send(&request(claimed, opcode, round + 1, &body));
        kernel.send(&sound(LOOKUP, u64::MAX, b"name\0"));
        kernel.send(&sound(LOOKUP, u64::MAX, b"name\0"));
        let mut answered = 0;
        while answered < 2 {
            if kernel.reply() == (ENOENT, u64::MAX) {
                answered += 1;
            }
        }
    }
    kernel.close();
}
