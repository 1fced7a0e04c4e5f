//! Receiving many netlink datagrams with one call (recvmmsg(2)).

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

use rustix::io::Result;

use crate::last_errno;

/// How many datagrams one call receives at most.
pub const MOST_DATAGRAMS: usize = 64;

/// How many it asks for at first: most find one or two, and room for more takes time to prepare.
const FEW_DATAGRAMS: usize = 4;

/// How much of a datagram is kept. What is longer is marked as truncated.
pub const MOST_BYTES: usize = 256;

/// Who sent a datagram. The kernel has port 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sender {
    /// The netlink port.
    pub port: u32,
    /// The multicast groups that it was sent to, a bit each.
    pub groups: u32,
}

/// One received datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Datagram<'a> {
    /// Its bytes, at most [`MOST_BYTES`].
    pub bytes: &'a [u8],
    /// Its sender; `None` if the address is none of netlink's.
    pub sender: Option<Sender>,
    /// Whether it was longer than [`MOST_BYTES`].
    pub is_truncated: bool,
}

/// `struct sockaddr_nl` of linux/netlink.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct Address {
    family: u16,
    pad: u16,
    port: u32,
    groups: u32,
}

const _: () = assert!(size_of::<Address>() == size_of::<libc::sockaddr_nl>());

#[derive(Clone, Copy)]
struct Slot {
    address: Address,
    bytes: [u8; MOST_BYTES],
    length: usize,
    address_length: usize,
    is_truncated: bool,
}

const EMPTY: Slot = Slot {
    address: Address { family: 0, pad: 0, port: 0, groups: 0 },
    bytes: [0; MOST_BYTES],
    length: 0,
    address_length: 0,
    is_truncated: false,
};

/// Room for the datagrams of one call, to be used again and again.
pub struct Batch {
    slots: Box<[Slot]>,
    /// How many the last call received,
    filled: usize,
    /// and how many it would have.
    asked: usize,
}

impl Default for Batch {
    fn default() -> Self {
        Self { slots: vec![EMPTY; MOST_DATAGRAMS].into_boxed_slice(), filled: 0, asked: FEW_DATAGRAMS }
    }
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch").field("filled", &self.filled).finish_non_exhaustive()
    }
}

impl Batch {
    /// Receives some of what is there, without waiting; answers how many datagrams that was.
    ///
    /// Errors: EAGAIN: nothing is there. ENOBUFS: datagrams were lost, once for any number of them. Either leaves the batch empty.
    /// Why unsafe: the kernel writes through pointers in nested structures.
    pub fn receive(&mut self, socket: impl AsFd) -> Result<usize> {
        let is_full = self.filled == self.asked;
        self.asked = if is_full { MOST_DATAGRAMS } else { FEW_DATAGRAMS };
        self.filled = 0;
        let mut vectors = [libc::iovec { iov_base: ptr::null_mut(), iov_len: MOST_BYTES }; MOST_DATAGRAMS];
        let mut headers = empty_headers();
        let slots = self.slots.iter_mut().take(self.asked);
        for ((slot, vector), header) in slots.zip(&mut vectors).zip(&mut headers) {
            vector.iov_base = slot.bytes.as_mut_ptr().cast();
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_name = (&raw mut slot.address).cast();
            header.msg_hdr.msg_namelen = size_of::<Address>() as libc::socklen_t;
        }
        let fd = socket.as_fd().as_raw_fd();
        let most = self.asked as libc::c_uint;
        // SAFETY: the descriptor is borrowed, so it stays open; `headers` has at least `most` entries, each of which points at one live vector
        // of MOST_BYTES writable bytes and at an address of the length given, none of which is touched otherwise until
        // the call returns; a null timeout is allowed.
        let answer = unsafe {
            libc::recvmmsg(fd, headers.as_mut_ptr(), most, libc::MSG_DONTWAIT as _, ptr::null_mut())
        };
        let Ok(count) = usize::try_from(answer) else {
            return Err(last_errno());
        };
        for (slot, header) in self.slots.iter_mut().zip(&headers).take(count) {
            slot.length = (header.msg_len as usize).min(MOST_BYTES);
            slot.address_length = header.msg_hdr.msg_namelen as usize;
            slot.is_truncated = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
        }
        self.filled = count.min(self.slots.len());
        Ok(self.filled)
    }

    /// Whether the last call left nothing: it could have received more. Unless it met an error after the first datagram, which is
    /// the socket's then (SO_ERROR).
    pub const fn is_all(&self) -> bool {
        self.filled < self.asked
    }

    /// What the last call received, in the order of arrival.
    pub fn datagrams(&self) -> impl Iterator<Item = Datagram<'_>> {
        self.slots[..self.filled].iter().map(|slot| Datagram {
            bytes: &slot.bytes[..slot.length],
            sender: slot.sender(),
            is_truncated: slot.is_truncated,
        })
    }
}

impl Slot {
    fn sender(&self) -> Option<Sender> {
        let Address { family, pad: _, port, groups } = self.address;
        let is_netlink = self.address_length == size_of::<Address>() && i32::from(family) == libc::AF_NETLINK;
        is_netlink.then_some(Sender { port, groups })
    }
}

/// Headers that point at nothing.
fn empty_headers() -> [libc::mmsghdr; MOST_DATAGRAMS] {
    let headers = MaybeUninit::<[libc::mmsghdr; MOST_DATAGRAMS]>::zeroed();
    // SAFETY: a header consists of numbers and raw pointers, for all of which zero bytes are a value.
    unsafe { headers.assume_init() }
}

#[cfg(test)]
mod tests {
    use rustix::net::netlink::{SocketAddrNetlink, USERSOCK};
    use rustix::net::{
        AddressFamily, SendFlags, SocketAddrAny, SocketFlags, SocketType, bind, getsockname, sendto,
        socket_with,
    };

    use rustix::io::Errno;

    use super::*;

    fn socket() -> (std::os::fd::OwnedFd, SocketAddrNetlink) {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(USERSOCK)).unwrap();
        bind(&socket, &SocketAddrNetlink::new(0, 0)).unwrap();
        let address: SocketAddrAny = getsockname(&socket).unwrap();
        let address = SocketAddrNetlink::try_from(address).unwrap();
        (socket, address)
    }

    #[test]
    fn datagrams_arrive_in_order_with_their_sender() {
        let ((here, address), (there, sender)) = (socket(), socket());
        let mut batch = Batch::default();
        assert_eq!(batch.receive(&here), Err(Errno::AGAIN));
        let long = [7; MOST_BYTES + 1];
        for bytes in [b"one".as_slice(), b"two", &long] {
            sendto(&there, bytes, SendFlags::empty(), &address).unwrap();
        }
        assert_eq!(batch.receive(&here), Ok(3));
        assert!(batch.is_all());
        let datagrams: Vec<_> = batch.datagrams().collect();
        assert_eq!((datagrams[0].bytes, datagrams[1].bytes), (b"one".as_slice(), b"two".as_slice()));
        assert_eq!(datagrams[0].sender, Some(Sender { port: sender.pid(), groups: 0 }));
        assert_eq!(datagrams.iter().map(|d| d.is_truncated).collect::<Vec<_>>(), [false, false, true]);
        assert_eq!(datagrams[2].bytes.len(), MOST_BYTES);
        assert_eq!(batch.receive(&here), Err(Errno::AGAIN));
        assert_eq!(batch.datagrams().count(), 0);
    }

    #[test]
    fn a_full_batch_says_that_there_may_be_more_and_the_next_is_larger() {
        let ((here, address), (there, _)) = (socket(), socket());
        for number in 0..10u8 {
            sendto(&there, &[number], SendFlags::empty(), &address).unwrap();
        }
        let mut batch = Batch::default();
        let mut received = Vec::new();
        let mut calls = Vec::new();
        loop {
            calls.push(batch.receive(&here).unwrap());
            received.extend(batch.datagrams().map(|datagram| datagram.bytes[0]));
            if batch.is_all() {
                break;
            }
        }
        assert_eq!(received, (0..10).collect::<Vec<_>>());
        assert_eq!(calls, [FEW_DATAGRAMS, 10 - FEW_DATAGRAMS]);
    }
}
