//! The listings of open directories: one snapshot from the first entry to the last. Reading from the start takes a new one,
//! as rewinddir(3) promises.
//!
//! A cookie says how far reading has come in an order that does not change: control files, which stay, then groups by their
//! numbers. So a snapshot may be forgotten: in a new one nothing is repeated, and nothing skipped that was there all the time.

use std::collections::HashMap;
use std::ffi::OsString;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use pinfold_model::GroupId;
use pinfold_realm::Node;

use crate::numbering::FILE_BITS;

/// How many bytes the snapshots of a mount may take. Whoever opens many large directories has those of others made anew.
const MOST_BYTES: usize = 16 << 20;

/// What a directory holds, in the order it is shown: by cookie.
pub(crate) type Listing = Arc<[(OsString, Node)]>;

/// The listings of all open directories of a mount.
#[derive(Debug, Default)]
pub(crate) struct Listings {
    last: AtomicU64,
    kept: Mutex<Kept>,
}

/// Snapshots, by the number of the open directory.
#[derive(Debug, Default)]
struct Kept {
    listings: HashMap<u64, Listing>,
    bytes: usize,
}

impl Kept {
    fn insert(&mut self, handle: u64, listing: Listing) {
        self.remove(handle);
        let bytes = bytes_of(&listing);
        if self.bytes + bytes > MOST_BYTES {
            *self = Self::default();
        }
        self.bytes += bytes;
        self.listings.insert(handle, listing);
    }

    fn remove(&mut self, handle: u64) {
        if let Some(listing) = self.listings.remove(&handle) {
            self.bytes -= bytes_of(&listing);
        }
    }
}

fn bytes_of(listing: &Listing) -> usize {
    size_of_val(&**listing) + listing.iter().map(|(name, _)| name.len()).sum::<usize>()
}

impl Listings {
    /// A number for a directory that was opened. It has no listing yet.
    pub(crate) fn open(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The directory was closed.
    pub(crate) fn close(&self, handle: u64) {
        self.lock().remove(handle);
    }

    /// The listing in which reading goes on at `offset`; `make` makes a new one where one is needed.
    pub(crate) fn at<E>(
        &self,
        handle: u64,
        offset: u64,
        make: impl FnOnce() -> Result<Vec<(OsString, Node)>, E>,
    ) -> Result<Listing, E> {
        if offset > 0
            && let Some(listing) = self.lock().listings.get(&handle)
        {
            return Ok(Arc::clone(listing));
        }
        let mut listing = make()?;
        listing.sort_by_key(|(_, node)| match node {
            Node::File(..) => None, // in the order in which they are
            Node::Group(group) => Some(*group),
        });
        let listing = Listing::from(listing);
        self.lock().insert(handle, Arc::clone(&listing));
        Ok(listing)
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().expect("nothing panics while it is held")
    }
}

/// What every directory starts with.
const DOTS: [&str; 2] = [".", ".."];

/// One entry of a directory as it is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shown<'a> {
    /// `.` or `..`.
    Dots(&'static str),
    /// Everything else.
    Named(&'a OsString, Node),
}

/// The entries from a cookie on, each with the cookie at which reading goes on after it.
pub(crate) fn from_cookie(
    listing: &[(OsString, Node)],
    cookie: u64,
) -> impl Iterator<Item = (u64, Shown<'_>)> {
    let dots = (1..).zip(DOTS).map(|(after, name)| (after, Shown::Dots(name)));
    let files = listing.partition_point(|(_, node)| matches!(node, Node::File(..)));
    let (files, groups) = listing.split_at(files);
    let files = (1 + DOTS.len() as u64..).zip(files);
    let begun = groups.partition_point(|(_, node)| after_group(node.group()) <= cookie);
    let groups = groups[begun..].iter().map(|entry| (after_group(entry.1.group()), entry));
    let named = files.chain(groups).map(|(after, (name, node))| (after, Shown::Named(name, *node)));
    dots.chain(named).skip_while(move |(after, _)| *after <= cookie)
}

/// The cookie after a group: above those of the control files, of which there are fewer than inode numbers have room for.
fn after_group(group: GroupId) -> u64 {
    (1 << FILE_BITS) + u64::from(group.get())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pinfold_files::FileId;

    /// Capital letters are control files; others are groups whose numbers are their letters'.
    fn listing(names: &str) -> Vec<(OsString, Node)> {
        let file = FileId::new(1).unwrap();
        let group = |name: &str| GroupId::new(name.bytes().next().unwrap().into()).unwrap();
        let node = |name: &str| match name.to_uppercase() == name {
            true => Node::File(group("z"), file),
            false => Node::Group(group(name)),
        };
        names.split_whitespace().map(|name| (name.into(), node(name))).collect()
    }

    /// Reads `count` entries as the kernel does, from a cookie; gives the names and the cookie to go on with.
    fn read(listings: &Listings, handle: u64, cookie: u64, count: usize, now: &str) -> (String, u64) {
        let listing = listings.at(handle, cookie, || Ok::<_, ()>(listing(now))).unwrap();
        let mut next = cookie;
        let mut names = Vec::new();
        for (after, shown) in from_cookie(&listing, cookie).take(count) {
            next = after;
            names.push(match shown {
                Shown::Dots(name) => name.to_owned(),
                Shown::Named(name, _) => name.to_str().unwrap().to_owned(),
            });
        }
        (names.join(" "), next)
    }

    #[test]
    fn entries_are_neither_repeated_nor_skipped_while_groups_come_and_go() {
        for is_forgotten in [false, true] {
            let listings = Listings::default();
            let handle = listings.open();
            let forget = || {
                if is_forgotten {
                    listings.close(handle)
                }
            };
            let (names, next) = read(&listings, handle, 0, 5, "T P f c b d");
            assert_eq!(names, ". .. T P b");
            forget();
            let (names, next) = read(&listings, handle, next, 1, "T P a c d f");
            assert_eq!(names, "c");
            forget();
            let (names, next) = read(&listings, handle, next, 9, "T P a d f");
            assert_eq!(names, "d f");
            forget();
            assert_eq!(read(&listings, handle, next, 9, "T P a d f").0, "");
        }
    }

    #[test]
    fn a_forgotten_listing_goes_on_among_control_files_too() {
        let listings = Listings::default();
        for (cookie, names) in [(1, ".. T P a"), (2, "T P a"), (3, "P a"), (4, "a"), (5, "a")] {
            assert_eq!(read(&listings, listings.open(), cookie, 9, "T P a").0, names, "{cookie}");
        }
    }

    #[test]
    fn a_directory_read_again_from_the_start_is_listed_anew() {
        let listings = Listings::default();
        let handle = listings.open();
        let (names, next) = read(&listings, handle, 0, 9, "a");
        assert_eq!(names, ". .. a");
        assert_eq!(read(&listings, handle, 0, 9, "a b").0, ". .. a b");
        assert_eq!(read(&listings, handle, next, 9, "").0, "b", "a cookie from before means the same place");
    }

    #[test]
    fn a_closed_directory_is_forgotten() {
        let listings = Listings::default();
        let (one, other) = (listings.open(), listings.open());
        assert_ne!(one, other);
        read(&listings, one, 0, 9, "a");
        listings.close(one);
        let kept = listings.lock();
        assert!(kept.listings.is_empty() && kept.bytes == 0);
    }

    #[test]
    fn many_open_directories_take_only_so_much_memory() {
        let listings = Listings::default();
        let long: Vec<String> = ('a'..='z').map(|name| name.to_string().repeat(40 << 10)).collect();
        let long = long.join(" ");
        for _ in 0..40 {
            let handle = listings.open();
            read(&listings, handle, 0, 9, &long);
            assert!(listings.lock().listings.contains_key(&handle), "what is read now is kept");
        }
        let kept = listings.lock();
        assert_eq!(kept.bytes, kept.listings.values().map(bytes_of).sum::<usize>());
        assert!(kept.bytes <= MOST_BYTES, "{}", kept.bytes);
    }

    #[test]
    fn a_cookie_past_the_end_shows_nothing() {
        let listings = Listings::default();
        assert_eq!(read(&listings, 1, u64::MAX, 9, "a").0, "");
    }
}
