//! Which signals a thread does not take.

use std::mem::MaybeUninit;

/// All signals are blocked for the calling thread. What was before comes back when this is dropped.
pub(crate) struct Blocked(libc::sigset_t);

impl Blocked {
    /// Blocks them. Handlers are for threads that have what they use: one with other descriptors would write into nothing, or into
    /// what has their number there, and the signal would be lost.
    ///
    /// Source: pthread_sigmask(3), which leaves out what libc needs; signal(7): any thread may take what is meant for the process.
    /// Why unsafe: two sets are given by their address.
    pub(crate) fn all() -> Self {
        let (mut all, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        // SAFETY: the set is written, and live.
        unsafe { libc::sigfillset(all.as_mut_ptr()) };
        // SAFETY: both sets are live; the one that is read was filled.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) };
        // SAFETY: the call filled it: it fails only for an operation that there is not.
        Self(unsafe { before.assume_init() })
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: the set is read only, and lives as long as this.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut()) };
    }
}
