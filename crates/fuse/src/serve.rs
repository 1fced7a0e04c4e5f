//! The serving threads: each waits in read(2) on the device, answers one request, and waits again.
//!
//! The kernel wakes exactly one of the threads that wait in read(2) for a request, and none when there is nothing to do.
//! (fuse-backend-rs's own channel waits in epoll, where every request wakes every thread: with four threads on one CPU a
//! round trip costs 5.3 us instead of 3.2 us.) All threads share one open device.
//!
//! A serving thread never touches the mount that it serves, not even to close a file in it: that would be a request to
//! itself.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use fuse_backend_rs::api::filesystem::FileSystem;
use fuse_backend_rs::api::server::{MAX_BUFFER_SIZE, Server};
use fuse_backend_rs::transport::{FuseBuf, FuseDevWriter, Reader};
use rustix::io::Errno;

/// The largest request: [`MAX_BUFFER_SIZE`] of data and a page for its headers. The kernel refuses to fill a smaller
/// buffer. Pages of it that no request touches cost no memory.
const BUFFER: usize = MAX_BUFFER_SIZE as usize + 0x1000;

/// The threads that serve one superblock.
#[derive(Debug)]
pub struct Serving {
    threads: Vec<JoinHandle<()>>,
}

/// How many threads serve a mount: enough that a few slow writes leave one for everybody else. Nobody is kept from making as many
/// at once as there are (who may write `memory.force_empty`, or lower a limit, holds a thread while the kernel reclaims): a mount of
/// his own is what others do not wait in. Threads that wait cost nothing, so this need not be exact.
pub fn default_threads() -> NonZeroUsize {
    let cpus = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    NonZeroUsize::new(cpus.clamp(4, 16)).expect("at least 4")
}

/// Starts to serve. `ended` runs in the last thread, when the superblock is gone and no request is left.
pub fn serve<F>(
    device: Arc<File>,
    file_system: F,
    threads: NonZeroUsize,
    ended: impl FnOnce() + Send + Sync + 'static,
) -> io::Result<Serving>
where
    F: FileSystem + Send + Sync + 'static,
{
    let shared = Arc::new(Shared {
        device,
        server: Server::new(file_system),
        running: AtomicUsize::new(threads.get()),
        ended: std::sync::Mutex::new(Some(Box::new(ended))),
    });
    let mut serving = Serving { threads: Vec::with_capacity(threads.get()) };
    for number in 0..threads.get() {
        let running = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name(format!("fuse-{number}"));
        match thread.spawn(move || running.run()) {
            Ok(thread) => serving.threads.push(thread),
            // One thread is enough to serve.
            Err(error) if !serving.threads.is_empty() => {
                tracing::warn!("only {number} of {threads} threads serve the mount: {error}");
                (number..threads.get()).for_each(|_| shared.leave());
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(serving)
}

impl Serving {
    /// Waits until the superblock is gone and every request answered.
    pub fn join(self) {
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a serving thread panicked");
            }
        }
    }
}

type Ended = Box<dyn FnOnce() + Send + Sync>;

struct Shared<F: FileSystem + Sync> {
    device: Arc<File>,
    server: Server<F>,
    running: AtomicUsize,
    ended: std::sync::Mutex<Option<Ended>>,
}

impl<F: FileSystem + Sync> Shared<F> {
    fn run(&self) {
        let mut request = vec![0; BUFFER];
        let mut reply = vec![0; BUFFER];
        loop {
            match rustix::io::read(&*self.device, &mut request) {
                // A device never says so; a socket in its place does when the other end is closed.
                Ok(0) => break,
                Ok(length) => self.answer(&mut request[..length], &mut reply),
                // ENOENT: the request was interrupted before it could be read.
                Err(Errno::INTR | Errno::AGAIN | Errno::NOENT) => {}
                // Unmounted, aborted.
                Err(Errno::NODEV | Errno::CONNABORTED) => break,
                Err(error) => {
                    tracing::error!("requests can no longer be read: {error}");
                    break;
                }
            }
        }
        self.leave();
    }

    fn leave(&self) {
        if self.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            let ended = self.ended.lock().expect("nothing panics while it is held").take();
            if let Some(ended) = ended {
                ended();
            }
        }
    }

    /// Answers one request. Whatever goes wrong, the caller gets an answer: EIO, if the handler gave none.
    fn answer(&self, request: &mut [u8], reply: &mut [u8]) {
        let header = Header::of(request);
        let handled = catch_unwind(AssertUnwindSafe(|| {
            let reader = Reader::<()>::from_fuse_buffer(FuseBuf::new(request));
            let writer = FuseDevWriter::new(self.device.as_raw_fd(), reply);
            match (reader, writer) {
                (Ok(reader), Ok(writer)) => self
                    .server
                    .handle_message(reader, writer.into(), None, None)
                    .map_err(|error| error.to_string()),
                (Err(error), _) | (_, Err(error)) => Err(error.to_string()),
            }
        }));
        let failure = match handled {
            Ok(Ok(_)) => return,
            Ok(Err(error)) => error,
            Err(_) => "the handler panicked".to_owned(),
        };
        let Some(header) = header else {
            return tracing::error!("a request without a header: {failure}");
        };
        // A caller that gave up has no use for the answer: its request is unknown now.
        match rustix::io::write(&*self.device, &header.refusal(Errno::IO)) {
            Ok(_) => tracing::error!("request {} failed: {failure}", header.opcode),
            Err(error) => tracing::debug!("request {} needs no answer ({error}): {failure}", header.opcode),
        }
    }
}

/// What is needed of a request to refuse it: `struct fuse_in_header`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Header {
    opcode: u32,
    unique: u64,
}

impl Header {
    /// length: u32, opcode: u32, unique: u64, ...
    fn of(request: &[u8]) -> Option<Self> {
        let opcode = u32::from_ne_bytes(request.get(4..8)?.try_into().ok()?);
        let unique = u64::from_ne_bytes(request.get(8..16)?.try_into().ok()?);
        Some(Self { opcode, unique })
    }

    /// `struct fuse_out_header`: length: u32, error: i32, unique: u64.
    fn refusal(self, errno: Errno) -> [u8; 16] {
        let mut out = [0; 16];
        out[..4].copy_from_slice(&16_u32.to_ne_bytes());
        out[4..8].copy_from_slice(&(-errno.raw_os_error()).to_ne_bytes());
        out[8..].copy_from_slice(&self.unique.to_ne_bytes());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_request() {
        let mut request =
            vec![40, 0, 0, 0, /* opcode */ 15, 0, 0, 0, /* unique */ 7, 1, 0, 0, 0, 0, 0, 0];
        request.extend([0; 24]);
        let header = Header::of(&request).unwrap();
        assert_eq!(header, Header { opcode: 15, unique: 0x107 });
        let refusal =
            [16, 0, 0, 0, /* -EIO */ 0xfb, 0xff, 0xff, 0xff, /* unique */ 7, 1, 0, 0, 0, 0, 0, 0];
        assert_eq!(header.refusal(Errno::IO), refusal);
        assert_eq!(Header::of(&request[..15]), None);
    }
}
