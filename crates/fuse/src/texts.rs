//! The texts of open control files: what one open file shows is one snapshot, however small the pieces it is read in.
//!
//! As kernfs does: a read at offset 0 takes a new snapshot, every other read continues in the last one.
//! Source: seq_read_iter(), kernfs_fop_read_iter().
//!
//! The number of an open file also says who opened it: rights are those of the open, not of the write (of->file->f_cred).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};

use pinfold_model::Uid;
use pinfold_realm::Opener;

/// Where in a number there is what: a user in the lower 32 bits, a flag, and how many files were opened before.
const IS_ADMIN: u32 = 32;
const SERIAL: u32 = 33;

/// How many locks the open files share, so that readers seldom wait for each other.
const SHARDS: usize = 16;
/// What a snapshot takes besides its text, about: an open file that shows nothing has one as well.
const BESIDE: usize = 64;
/// How many bytes the snapshots behind one lock may take. Whoever opens many files and reads a little of each makes other
/// open files forget theirs; such a file takes a new one when it is read on.
const MOST_BYTES: usize = 4 << 20;

/// The snapshots of all open control files of a mount.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    last: AtomicU32,
    shards: [Mutex<Shard>; SHARDS],
}

/// The snapshots behind one lock.
#[derive(Debug, Default)]
struct Shard {
    texts: HashMap<u64, Box<[u8]>>,
    bytes: usize,
}

impl Shard {
    fn insert(&mut self, handle: u64, text: Box<[u8]>) {
        self.remove(handle);
        let bytes = text.len() + BESIDE;
        if self.bytes + bytes > MOST_BYTES {
            *self = Self::default();
        }
        self.bytes += bytes;
        self.texts.insert(handle, text);
    }

    fn remove(&mut self, handle: u64) {
        if let Some(text) = self.texts.remove(&handle) {
            self.bytes -= text.len() + BESIDE;
        }
    }
}

impl Texts {
    /// A number for a file that somebody opened. It has no snapshot yet.
    ///
    /// Two files of one user can have one number only after 2^31 opens in between: the later one would continue a
    /// snapshot of the earlier.
    pub(crate) fn open(&self, opener: Opener) -> u64 {
        let last = u64::from(self.last.fetch_add(1, Ordering::Relaxed));
        last << SERIAL | u64::from(opener.is_admin) << IS_ADMIN | u64::from(opener.uid.0)
    }

    /// Who opened the file of this number.
    pub(crate) fn opener(handle: u64) -> Opener {
        let uid = Uid(u32::try_from(handle & u64::from(u32::MAX)).expect("32 bits"));
        Opener { uid, is_admin: handle >> IS_ADMIN & 1 == 1 }
    }

    /// The file was closed.
    pub(crate) fn close(&self, handle: u64) {
        self.shard(handle).remove(handle);
    }

    /// What the open file showed when it was read last; `None`: it was never read, or that is forgotten.
    pub(crate) fn shown(&self, handle: u64) -> Option<Vec<u8>> {
        self.shard(handle).texts.get(&handle).map(|text| text.to_vec())
    }

    /// Hands what an open file shows from `offset` on, at most `size` bytes, to `use_piece`.
    /// `make` makes a new text, where one is needed.
    pub(crate) fn read<T, E>(
        &self,
        handle: u64,
        offset: u64,
        size: usize,
        make: impl FnOnce() -> Result<Vec<u8>, E>,
        use_piece: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, E> {
        if offset > 0
            && let Some(text) = self.shard(handle).texts.get(&handle)
        {
            return Ok(use_piece(piece(text, offset, size)));
        }
        // Made without the lock: a slow file must not hold up others.
        let text = make()?.into_boxed_slice();
        let result = use_piece(piece(&text, offset, size));
        self.shard(handle).insert(handle, text);
        Ok(result)
    }

    fn shard(&self, handle: u64) -> MutexGuard<'_, Shard> {
        let index = usize::try_from((handle >> SERIAL) % SHARDS as u64).expect("a small number");
        self.shards[index].lock().expect("nothing panics while it is held: `use_piece` only copies")
    }
}

fn piece(text: &[u8], offset: u64, size: usize) -> &[u8] {
    let from = usize::try_from(offset).map_or(text.len(), |offset| offset.min(text.len()));
    let rest = &text[from..];
    &rest[..rest.len().min(size)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads as the kernel asks; the text is the number of times it was made, ten digits each.
    struct Reader<'a> {
        texts: &'a Texts,
        handle: u64,
        made: std::cell::Cell<u32>,
    }

    fn by(uid: u32) -> Opener {
        Opener { uid: Uid(uid), is_admin: false }
    }

    impl<'a> Reader<'a> {
        fn new(texts: &'a Texts) -> Self {
            Self { texts, handle: texts.open(by(0)), made: 0.into() }
        }

        fn read(&self, offset: u64, size: usize) -> String {
            let make = || {
                self.made.set(self.made.get() + 1);
                Ok::<_, ()>(self.made.get().to_string().repeat(10).into_bytes())
            };
            let piece = self.texts.read(self.handle, offset, size, make, <[u8]>::to_vec).unwrap();
            String::from_utf8(piece).unwrap()
        }
    }

    #[test]
    fn a_text_read_in_pieces_is_one_snapshot() {
        let texts = Texts::default();
        let reader = Reader::new(&texts);
        assert_eq!(reader.read(0, 4), "1111");
        assert_eq!(reader.read(4, 1), "1");
        assert_eq!(reader.read(5, 100), "11111");
        assert_eq!(reader.read(10, 100), "");
        assert_eq!(reader.made.get(), 1);
    }

    #[test]
    fn a_number_tells_who_opened_the_file() {
        let texts = Texts::default();
        let openers = [by(0), by(1000), Opener { is_admin: true, ..by(1000) }, by(u32::MAX), by(1000)];
        let handles = openers.map(|opener| texts.open(opener));
        assert_eq!(handles.map(Texts::opener), openers);
        assert_ne!(handles[1], handles[4]);
    }

    #[test]
    fn many_open_files_take_only_so_much_memory() {
        for (count, length) in [(200 * SHARDS, 100 << 10), (2 * SHARDS * MOST_BYTES / BESIDE, 0)] {
            let texts = Texts::default();
            for _ in 0..count {
                let text = || Ok::<_, ()>(vec![b'x'; length]);
                texts.read(texts.open(by(0)), 0, 1, text, |_| ()).unwrap();
            }
            let all = || texts.shards.iter().map(|shard| shard.lock().unwrap());
            assert!(all().map(|shard| shard.bytes).sum::<usize>() <= SHARDS * MOST_BYTES);
            assert!(all().map(|shard| shard.texts.len()).sum::<usize>() <= SHARDS * MOST_BYTES / BESIDE);
        }
    }

    #[test]
    fn each_read_at_the_start_takes_a_new_snapshot() {
        let texts = Texts::default();
        let reader = Reader::new(&texts);
        assert_eq!(reader.read(0, 4), "1111");
        assert_eq!(reader.read(0, 4), "2222");
        assert_eq!(reader.read(8, 4), "22", "and later reads continue in the new one");
    }

    #[test]
    fn a_first_read_in_the_middle_takes_a_snapshot_too() {
        let texts = Texts::default();
        let reader = Reader::new(&texts);
        assert_eq!(reader.read(3, 4), "1111");
        assert_eq!(reader.read(7, 4), "111");
        assert_eq!(reader.read(u64::MAX, 4), "");
    }

    #[test]
    fn two_open_files_have_a_snapshot_each_and_closing_forgets_it() {
        let texts = Texts::default();
        let (one, other) = (Reader::new(&texts), Reader::new(&texts));
        assert_eq!(one.read(0, 1), "1");
        other.read(0, 1);
        assert_eq!(other.read(0, 1), "2");
        assert_eq!(one.read(1, 1), "1");
        one.texts.close(one.handle);
        assert_eq!(one.read(1, 1), "2", "made again");
        assert_eq!(texts.shards.iter().map(|shard| shard.lock().unwrap().texts.len()).sum::<usize>(), 2);
    }

    #[test]
    fn a_text_that_cannot_be_made_leaves_the_last_one() {
        let texts = Texts::default();
        let reader = Reader::new(&texts);
        reader.read(0, 1);
        assert_eq!(texts.read(reader.handle, 0, 9, || Err("gone"), <[u8]>::to_vec), Err("gone"));
        assert_eq!(reader.read(1, 2), "11");
    }
}
