//! Signalling somebody else's eventfd without ever waiting for its owner.
//!
//! write(2) to an eventfd waits while its counter is full, unless the descriptor is non-blocking, and that belongs to
//! whoever made it. The kernel itself signals without waiting (eventfd_signal()); asynchronous I/O is how a program has it
//! do so: a request that is done adds 1 to the eventfd that it names. The request here reads nothing from /dev/null.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, Result};

use crate::last_errno;

/// A context for requests, one at a time.
#[derive(Debug)]
pub struct Bell {
    context: libc::c_ulong,
    null: OwnedFd,
}

/// `struct io_event` of linux/aio_abi.h.
#[repr(C)]
#[derive(Default)]
struct Done {
    data: u64,
    request: u64,
    result: i64,
    second_result: i64,
}

const _: () = assert!(size_of::<Done>() == 32);

/// `IOCB_CMD_PREAD`, `IOCB_FLAG_RESFD` of linux/aio_abi.h.
const READ: u16 = 0;
const TELL: u32 = 1;

impl Bell {
    /// Makes one. ENOSYS: the kernel has no asynchronous I/O. EAGAIN: fs.aio-max-nr is reached.
    ///
    /// Why unsafe: libc has no io_setup(2).
    pub fn new() -> Result<Self> {
        let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let mut context: libc::c_ulong = 0;
        // SAFETY: the kernel writes one `aio_context_t`, an unsigned long, to `context`, which must be 0 before and is.
        checked(unsafe { libc::syscall(libc::SYS_io_setup, 1_u32, &raw mut context) })?;
        Ok(Self { context, null })
    }

    /// Adds 1 to an eventfd; one that is full stays full. EINVAL: it is no eventfd.
    ///
    /// Why unsafe: libc has no io_submit(2); the request holds addresses.
    pub fn ring(&mut self, eventfd: BorrowedFd<'_>) -> Result<()> {
        let number = |fd: libc::c_int| u32::try_from(fd).map_err(|_| Errno::BADF);
        // SAFETY: the struct is made of integers, for which zero is a value. The address and the length of its buffer are 0.
        let mut request: libc::iocb = unsafe { std::mem::zeroed() };
        request.aio_lio_opcode = READ;
        request.aio_fildes = number(self.null.as_raw_fd())?;
        request.aio_flags = TELL;
        request.aio_resfd = number(eventfd.as_raw_fd())?;
        let mut requests = [&raw mut request];
        // SAFETY: the context is this bell's; the list has the one entry that is announced, which points at a live
        // request. The kernel copies it before it returns, and the request has no buffer that it could use later.
        checked(unsafe { libc::syscall(libc::SYS_io_submit, self.context, 1_i64, requests.as_mut_ptr()) })?;
        let mut done = Done::default();
        let nobody = std::ptr::null_mut::<libc::timespec>();
        // Reading from /dev/null is done at once; its result is taken so that there is room for the next.
        // SAFETY: the context is this bell's; there is room for the one result that is asked for; without a timeout the
        // pointer for it is null.
        checked(unsafe {
            libc::syscall(libc::SYS_io_getevents, self.context, 1_i64, 1_i64, &raw mut done, nobody)
        })?;
        Ok(())
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        // SAFETY: the context is this bell's, and nobody uses it after this.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.context) };
    }
}

fn checked(answer: libc::c_long) -> Result<()> {
    if answer < 0 {
        return Err(last_errno());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    fn count(of: &OwnedFd) -> u64 {
        let mut count = [0; 8];
        rustix::io::read(of, &mut count).unwrap();
        u64::from_ne_bytes(count)
    }

    #[test]
    fn each_ring_adds_one() {
        let mut bell = Bell::new().unwrap();
        let listening = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        for _ in 0..300 {
            bell.ring(listening.as_fd()).unwrap();
        }
        assert_eq!(count(&listening), 300);
    }

    #[test]
    fn a_full_counter_holds_nobody_up() {
        let mut bell = Bell::new().unwrap();
        let listening = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        rustix::io::write(&listening, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        bell.ring(listening.as_fd()).unwrap();
        bell.ring(listening.as_fd()).unwrap();
        assert_eq!(count(&listening), u64::MAX, "as eventfd_signal() leaves it");
    }

    #[test]
    fn what_is_no_eventfd_is_refused() {
        let mut bell = Bell::new().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(bell.ring(null.as_fd()), Err(Errno::INVAL));
        let listening = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        bell.ring(listening.as_fd()).unwrap();
        assert_eq!(count(&listening), 1, "and the bell rings on");
    }
}
