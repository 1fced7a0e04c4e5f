//! Files of the v2 tree that stay open between uses: asking one again takes one system call instead of four.
//!
//! An open file belongs to the directory that it was opened in, not to its name: when that directory is removed, every
//! use of the file fails with ENODEV, also if another directory has the same name by then. So a file that is held never
//! answers for a wrong directory, and one that fails is opened again by name, once.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pinfold_model::Dir;
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::{Tree, Where, beneath};

/// How many files are held at most: a fifth of the descriptors that a process usually may have.
const MOST: usize = 192;

/// What is held of a directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Item {
    /// The directory itself, to look at.
    Itself,
    /// One of its files, to read.
    File(&'static str),
    /// Its `cgroup.procs`, to move processes in.
    Entrance,
}

impl Item {
    fn name(self) -> &'static str {
        match self {
            Self::Itself => "",
            Self::File(name) => name,
            Self::Entrance => "cgroup.procs",
        }
    }

    fn flags(self) -> OFlags {
        match self {
            Self::Itself => OFlags::PATH,
            Self::File(_) => OFlags::RDONLY,
            Self::Entrance => OFlags::WRONLY,
        }
    }
}

/// The files that are held. The base's stay; of the others, a directory's go together, those first that were not used
/// for the longest time.
#[derive(Debug, Default)]
pub(crate) struct Held(Mutex<Shelf>);

#[derive(Debug, Default)]
struct Shelf {
    base: Files,
    dirs: HashMap<Dir, Files>,
    /// How many files `dirs` has.
    count: usize,
    /// Counts uses: which directory was used last.
    clock: u64,
}

#[derive(Debug, Default)]
struct Files {
    open: Vec<(Item, Arc<OwnedFd>)>,
    used: u64,
}

impl Held {
    fn find(&self, at: Where<'_>, item: Item) -> Option<Arc<OwnedFd>> {
        let shelf = &mut *self.lock();
        let files = match at {
            Where::Base => &mut shelf.base,
            Where::Dir(dir) => shelf.dirs.get_mut(dir)?,
        };
        shelf.clock += 1;
        files.used = shelf.clock;
        files.open.iter().find(|(held, _)| *held == item).map(|(_, file)| Arc::clone(file))
    }

    fn keep(&self, at: Where<'_>, item: Item, file: Arc<OwnedFd>) {
        let shelf = &mut *self.lock();
        shelf.clock += 1;
        let used = shelf.clock;
        let files = match at {
            Where::Base => &mut shelf.base,
            Where::Dir(dir) => {
                shelf.make_room(dir);
                shelf.dirs.entry(dir.clone()).or_default()
            }
        };
        files.used = used;
        match files.open.iter_mut().find(|(held, _)| *held == item) {
            Some((_, held)) => *held = file,
            None => {
                files.open.push((item, file));
                shelf.count += usize::from(at != Where::Base);
            }
        }
    }

    /// Closes all that is held of a directory, once nobody uses it any more.
    pub(crate) fn forget(&self, at: Where<'_>) {
        let shelf = &mut *self.lock();
        match at {
            Where::Base => shelf.base.open.clear(),
            Where::Dir(dir) => shelf.forget(dir),
        }
    }

    /// A panic in another thread leaves a shelf on which at worst the count is too high.
    fn lock(&self) -> MutexGuard<'_, Shelf> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    fn forget(&mut self, dir: &Dir) {
        if let Some(files) = self.dirs.remove(dir) {
            self.count -= files.open.len();
        }
    }

    /// Makes room for one more file of `dir`, at the cost of another directory.
    fn make_room(&mut self, dir: &Dir) {
        while self.count >= MOST {
            let others = self.dirs.iter().filter(|(other, _)| *other != dir);
            let Some(oldest) = others.min_by_key(|(_, files)| files.used).map(|(dir, _)| dir.clone()) else {
                return;
            };
            self.forget(&oldest);
        }
    }
}

impl Tree {
    /// A file's whole content.
    ///
    /// A file that is held is read in one call, or not at all: two threads that read it in pieces would each get some
    /// of the other's. What does not fit is read from an open file of its own.
    pub(crate) fn read_held(&self, at: Where<'_>, file: &'static str) -> Result<Vec<u8>, Errno> {
        let item = Item::File(file);
        if let Some(held) = self.held.find(at, item) {
            match beneath::read_at_once(&held) {
                Ok(Some(content)) => return Ok(content),
                Err(errno) if errno != Errno::NODEV => return Err(errno),
                Ok(None) | Err(_) => self.held.forget(at),
            }
        }
        let opened = self.open_item(at, item)?;
        let content = beneath::read_all(&opened)?;
        if beneath::comes_at_once(&content) {
            self.held.keep(at, item, Arc::new(opened));
        }
        Ok(content)
    }

    /// Does something with a directory or file that is held, or is from now on.
    pub(crate) fn with_held<T>(
        &self,
        at: Where<'_>,
        item: Item,
        act: impl Fn(&OwnedFd) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        if let Some(held) = self.held.find(at, item) {
            match act(&held) {
                Err(Errno::NODEV) => self.held.forget(at),
                answer => return answer,
            }
        }
        let opened = Arc::new(self.open_item(at, item)?);
        let answer = act(&opened)?;
        self.held.keep(at, item, opened);
        Ok(answer)
    }

    fn open_item(&self, at: Where<'_>, item: Item) -> Result<OwnedFd, Errno> {
        beneath::open(&self.base, self.path_of(at).join(item.name()), item.flags())
    }
}

#[cfg(test)]
mod tests {
    use pinfold_model::CellId;

    use super::*;

    fn leaf(number: u32) -> Dir {
        Dir::REALM.cell(CellId::new(number).unwrap())
    }

    fn keep(held: &Held, dir: &Dir, item: Item) {
        held.keep(dir.into(), item, Arc::new(std::fs::File::open("/dev/null").unwrap().into()));
    }

    fn has(held: &Held, dir: &Dir) -> bool {
        held.find(dir.into(), Item::Itself).is_some()
    }

    fn count(held: &Held) -> usize {
        let shelf = held.lock();
        assert_eq!(shelf.count, shelf.dirs.values().map(|files| files.open.len()).sum::<usize>());
        shelf.count
    }

    #[test]
    fn the_directory_that_was_not_used_for_longest_makes_room() {
        let held = Held::default();
        let most = u32::try_from(MOST).unwrap();
        (1..=most).for_each(|number| keep(&held, &leaf(number), Item::Itself));
        assert!(has(&held, &leaf(1)), "and is used now");
        keep(&held, &leaf(most + 1), Item::Itself);
        assert!(has(&held, &leaf(1)) && !has(&held, &leaf(2)) && has(&held, &leaf(3)));
        assert_eq!(count(&held), MOST);
    }

    #[test]
    fn a_file_that_is_opened_twice_is_held_once() {
        let held = Held::default();
        for _ in 0..2 {
            keep(&held, &leaf(1), Item::Itself);
            keep(&held, &leaf(1), Item::Entrance);
        }
        assert_eq!(count(&held), 2);
        held.forget((&leaf(1)).into());
        assert_eq!(count(&held), 0);
        assert!(!has(&held, &leaf(1)));
    }

    #[test]
    fn what_is_held_of_the_base_takes_no_room() {
        let held = Held::default();
        held.keep(Where::Base, Item::Itself, Arc::new(std::fs::File::open("/dev/null").unwrap().into()));
        assert_eq!(count(&held), 0);
        assert!(held.find(Where::Base, Item::Itself).is_some());
        held.forget(Where::Base);
        assert!(held.find(Where::Base, Item::Itself).is_none());
    }
}
