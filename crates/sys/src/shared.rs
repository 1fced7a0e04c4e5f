//! Memory that a process shares with the children it makes afterwards.

use std::num::NonZeroUsize;
use std::ops::Deref;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::AtomicU32;

use rustix::io::{Errno, Result};

/// Words that stay shared over fork(2) and clone3(2), and end with execve(2).
#[derive(Debug)]
pub struct SharedWords {
    start: NonNull<AtomicU32>,
    count: NonZeroUsize,
}

impl SharedWords {
    /// That many words, all 0.
    ///
    /// Errors: ENOMEM. Source: mmap(2), `MAP_SHARED | MAP_ANONYMOUS`. Why unsafe: the kernel answers with a bare address.
    pub fn new(count: NonZeroUsize) -> Result<Self> {
        let length = count.get().checked_mul(size_of::<AtomicU32>()).ok_or(Errno::NOMEM)?;
        // SAFETY: no address is asked for, so the kernel places the mapping where nothing else is.
        let address = unsafe {
            libc::mmap(
                ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::NOMEM));
        }
        let start = NonNull::new(address.cast()).ok_or(Errno::NOMEM)?;
        Ok(Self { start, count })
    }
}

impl Deref for SharedWords {
    type Target = [AtomicU32];

    fn deref(&self) -> &[AtomicU32] {
        // SAFETY: the mapping holds `count` words, page aligned, zeroed by the kernel, until `self` is dropped; other
        // processes change them only as atomics.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.count.get()) }
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        let length = self.count.get() * size_of::<AtomicU32>();
        // SAFETY: this mapping was made by `new` with this length, and no reference into it outlives `self`.
        let answer = unsafe { libc::munmap(self.start.as_ptr().cast(), length) };
        debug_assert_eq!(answer, 0, "munmap of a mapping of our own");
    }
}

// SAFETY: the words are atomics, and the mapping is bound to no thread.
unsafe impl Send for SharedWords {}
// SAFETY: the words are atomics.
unsafe impl Sync for SharedWords {}
