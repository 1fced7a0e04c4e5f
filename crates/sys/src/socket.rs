//! Who is at the other end of a socket.
//!
//! rustix has types for credentials that cannot hold process 0, which is what the kernel says of a process that is in no
//! pid namespace of the caller's.

use std::mem::MaybeUninit;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::io::{Errno, Result};

use crate::last_errno;

/// A process and its users, by the caller's numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Credentials {
    /// The process; `None` if it has no number in the caller's pid namespace.
    pub process: Option<NonZeroU32>,
    /// Its user; 65534 if the caller has no number for it.
    pub uid: u32,
    /// Its group of users, likewise.
    pub gid: u32,
}

impl From<libc::ucred> for Credentials {
    fn from(raw: libc::ucred) -> Self {
        let process = u32::try_from(raw.pid).ok().and_then(NonZeroU32::new);
        Self { process, uid: raw.uid, gid: raw.gid }
    }
}

/// Who called connect(2) on a Unix socket.
///
/// Source: unix(7), `SO_PEERCRED`. Why unsafe: the kernel writes into memory that it is given the address of.
pub fn peer(socket: impl AsFd) -> Result<Credentials> {
    let mut raw = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = libc::socklen_t::try_from(size_of_val(&raw)).map_err(|_| Errno::INVAL)?;
    // SAFETY: the socket is borrowed, so it stays open; `raw` and `length` live until the call returns, and `length` says
    // how much the kernel may write to `raw`, which is made of integers.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut raw).cast(),
            &raw mut length,
        )
    };
    if answer < 0 { Err(last_errno()) } else { Ok(raw.into()) }
}

/// Has the kernel send a descriptor of the process along with its credentials (`SO_PASSPIDFD`).
///
/// Errors: ENOPROTOOPT: a kernel before 6.5. EOPNOTSUPP: the socket is no Unix socket.
/// Source: unix(7), `SO_PASSPIDFD`.
pub fn pass_pidfd(socket: impl AsFd) -> Result<()> {
    switch(socket, libc::SO_PASSPIDFD, true)
}

/// Lets others send descriptors to a Unix socket, or has sendmsg(2) refuse them (EPERM). What connects to a listener begins as the
/// listener is.
///
/// Errors: ENOPROTOOPT: a kernel before 6.16. EOPNOTSUPP: the socket is no Unix socket.
/// Source: include/uapi/asm-generic/socket.h, `SO_PASSRIGHTS`; unix_may_passrights() of net/unix/af_unix.c.
pub fn pass_rights(socket: impl AsFd, may: bool) -> Result<()> {
    switch(socket, SO_PASSRIGHTS, may)
}

/// The libc crate lacks it.
const SO_PASSRIGHTS: libc::c_int = 83;

/// Why unsafe: the kernel reads memory that it is given the address of.
fn switch(socket: impl AsFd, option: libc::c_int, on: bool) -> Result<()> {
    let on = libc::c_int::from(on);
    let length = libc::socklen_t::try_from(size_of_val(&on)).map_err(|_| Errno::INVAL)?;
    let (socket, value) = (socket.as_fd().as_raw_fd(), (&raw const on).cast());
    // SAFETY: the socket is borrowed, so it stays open; `on` lives until the call returns, and `length` is its length.
    let answer = unsafe { libc::setsockopt(socket, libc::SOL_SOCKET, option, value, length) };
    if answer < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Who sent a message, as it says and the kernel allows it to say.
#[derive(Debug)]
pub struct Sender {
    /// The process and its users.
    pub credentials: Credentials,
    /// A descriptor of the process, if the socket has `SO_PASSPIDFD`: its number may be another's by now.
    pub pidfd: Option<OwnedFd>,
}

/// The control message that a descriptor of the sender comes in.
///
/// Source: include/linux/socket.h. The libc crate lacks it.
const SCM_PIDFD: libc::c_int = 4;

/// Room for control messages with credentials, a pidfd and as many descriptors as the kernel lets a message have (253), which
/// nobody asked for: those without room would be closed before anything is known. Aligned as they are.
#[repr(C, align(8))]
struct Control([u8; 1280]);

/// See [`crate::apart::receive_credentials`]. Descriptors that nobody asked for are added to the others.
///
/// Source: unix(7), `SCM_CREDENTIALS`; scm_pidfd_recv(); cmsg(3). Why unsafe: control messages are found by arithmetic on
/// pointers.
pub(crate) fn receive_credentials(socket: impl AsFd, others: &mut Vec<OwnedFd>) -> Result<Option<Sender>> {
    let mut byte = 0_u8;
    let mut control = Control([0; 1280]);
    let before = others.len();
    let mut part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // SAFETY: the struct is made of integers and pointers, for which zero is a value.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = size_of::<Control>();
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the socket is borrowed, so it stays open; `message` points at `part`, `byte` and `control`, which live until
    // the end of this function, and says how long they are.
    let received = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut message, flags) };
    if received < 0 {
        return Err(last_errno());
    }
    let mut found = None;
    let mut pidfd = None;
    // SAFETY: `message` is as recvmsg() left it, and its control buffer is alive.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR give null or a pointer to a whole header within the control buffer, which is
    // aligned for it.
    while let Some(at) = unsafe { header.as_ref() } {
        let level = (at.cmsg_level, at.cmsg_type);
        // SAFETY: the header is within the control buffer, and so is what follows it.
        let data = unsafe { libc::CMSG_DATA(header) };
        let length = at.cmsg_len - (data.addr() - header.addr());
        if level == (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) && length >= size_of::<libc::ucred>() {
            // SAFETY: the kernel wrote `length` bytes there, which are those of a ucred, made of integers.
            let raw = unsafe { data.cast::<libc::ucred>().read_unaligned() };
            found = Some(raw.into());
        }
        if level == (libc::SOL_SOCKET, SCM_PIDFD) && length >= size_of::<libc::c_int>() {
            // SAFETY: the kernel wrote a whole number there.
            let fd = unsafe { data.cast::<libc::c_int>().read_unaligned() };
            // Less than 0 is an errno.
            pidfd = Some(match fd {
                // SAFETY: the kernel made this descriptor for us, and nobody else owns it.
                0.. => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
                _ => Err(Errno::SRCH),
            });
        }
        if level == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            for index in 0..length / size_of::<libc::c_int>() {
                let at = data.cast::<libc::c_int>().wrapping_add(index);
                // SAFETY: `index` is below the number of descriptors in the message.
                let fd = unsafe { at.read_unaligned() };
                // SAFETY: the kernel made this descriptor for us, and nobody else owns it.
                others.push(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
        // SAFETY: `header` is one that these two gave, of this message.
        header = unsafe { libc::CMSG_NXTHDR(&raw const message, header) };
    }
    let pidfd = pidfd.transpose();
    if message.msg_flags & libc::MSG_CTRUNC != 0 || others.len() > before {
        return Err(Errno::BADMSG);
    }
    match (received, found) {
        (0, _) => Ok(None),
        (_, Some(credentials)) => Ok(Some(Sender { credentials, pidfd: pidfd? })),
        (_, None) => Err(Errno::BADMSG),
    }
}

/// A descriptor of the process that is at the other end of a Unix socket: who called connect(2), whatever number it had.
///
/// Errors: ENOPROTOOPT: a kernel before 6.5. ENODATA: there is no such process. ESRCH, EINVAL: it has been reaped.
/// Source: unix(7), `SO_PEERPIDFD`. Why unsafe: the kernel answers with a bare descriptor number, in memory that it is
/// given the address of.
pub fn peer_pidfd(socket: impl AsFd) -> Result<OwnedFd> {
    let mut fd: libc::c_int = -1;
    let mut length = libc::socklen_t::try_from(size_of_val(&fd)).map_err(|_| Errno::INVAL)?;
    // SAFETY: the socket is borrowed, so it stays open; `fd` and `length` live until the call returns, and `length` says
    // how much the kernel may write to `fd`.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERPIDFD,
            (&raw mut fd).cast(),
            &raw mut length,
        )
    };
    if answer < 0 {
        return Err(last_errno());
    }
    if fd < 0 {
        return Err(Errno::BADF);
    }
    // SAFETY: the call succeeded, so `fd` is a new open descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
