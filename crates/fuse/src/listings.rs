//! The listings of open directories: one snapshot from the first entry to the last, so that a cookie means the same entry
//! for as long as the directory is open, whatever comes and goes meanwhile. Reading from the start takes a new snapshot,
//! as rewinddir(3) promises.

use std::collections::HashMap;
use std::ffi::OsString;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use pinfold_realm::Node;

/// What a directory holds, in the order it is shown.
pub(crate) type Listing = Arc<[(OsString, Node)]>;

/// The listings of all open directories of a mount.
#[derive(Debug, Default)]
pub(crate) struct Listings {
    last: AtomicU64,
    open: Mutex<HashMap<u64, Listing>>,
}

impl Listings {
    /// A number for a directory that was opened. It has no listing yet.
    pub(crate) fn open(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The directory was closed.
    pub(crate) fn close(&self, handle: u64) {
        self.open.lock().expect("nothing panics while it is held").remove(&handle);
    }

    /// The listing in which reading goes on at `offset`; `make` makes a new one where one is needed.
    pub(crate) fn at<E>(
        &self,
        handle: u64,
        offset: u64,
        make: impl FnOnce() -> Result<Vec<(OsString, Node)>, E>,
    ) -> Result<Listing, E> {
        if offset > 0
            && let Some(listing) = self.open.lock().expect("nothing panics while it is held").get(&handle)
        {
            return Ok(Arc::clone(listing));
        }
        let listing = Listing::from(make()?);
        self.open.lock().expect("nothing panics while it is held").insert(handle, Arc::clone(&listing));
        Ok(listing)
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

/// The entries from a cookie on, each with the cookie at which reading goes on after it. A cookie is the number of
/// entries before it.
pub(crate) fn from_cookie(
    listing: &[(OsString, Node)],
    cookie: u64,
) -> impl Iterator<Item = (u64, Shown<'_>)> {
    let skip = usize::try_from(cookie).unwrap_or(usize::MAX).min(DOTS.len() + listing.len());
    let dots = DOTS.get(skip..).unwrap_or_default().iter().map(|name| Shown::Dots(name));
    let named = listing.get(skip.saturating_sub(DOTS.len())..).unwrap_or_default();
    let named = named.iter().map(|(name, node)| Shown::Named(name, *node));
    (skip as u64 + 1..).zip(dots.chain(named))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pinfold_model::GroupId;

    fn listing(names: &str) -> Vec<(OsString, Node)> {
        let ids = (1..).map(|id| Node::Group(GroupId::new(id).unwrap()));
        names.split_whitespace().map(OsString::from).zip(ids).collect()
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
        let listings = Listings::default();
        let handle = listings.open();
        let (names, next) = read(&listings, handle, 0, 3, "a b c d");
        assert_eq!((names.as_str(), next), (". .. a", 3));
        let (names, next) = read(&listings, handle, next, 2, "0 c d e");
        assert_eq!((names.as_str(), next), ("b c", 5));
        let (names, next) = read(&listings, handle, next, 9, "");
        assert_eq!((names.as_str(), next), ("d", 6));
        assert_eq!(read(&listings, handle, next, 9, "x").0, "");
    }

    #[test]
    fn a_directory_read_again_from_the_start_is_listed_anew() {
        let listings = Listings::default();
        let handle = listings.open();
        assert_eq!(read(&listings, handle, 0, 9, "a").0, ". .. a");
        assert_eq!(read(&listings, handle, 0, 9, "a b").0, ". .. a b");
        assert_eq!(read(&listings, handle, 3, 9, "").0, "b", "a cookie from before means the same place");
    }

    #[test]
    fn a_closed_directory_is_forgotten() {
        let listings = Listings::default();
        let (one, other) = (listings.open(), listings.open());
        assert_ne!(one, other);
        read(&listings, one, 0, 9, "a");
        listings.close(one);
        assert!(listings.open.lock().unwrap().is_empty());
        assert_eq!(read(&listings, one, 2, 9, "z").0, "z");
    }

    #[test]
    fn a_cookie_past_the_end_shows_nothing() {
        let listings = Listings::default();
        assert_eq!(read(&listings, 1, u64::MAX, 9, "a").0, "");
    }
}
