//! So many places for each user and each container, of something that all of them have together.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::Account;

/// Who has how many places.
#[derive(Clone, Default, Debug)]
pub struct Places(Arc<Mutex<Vec<(Account, usize)>>>);

/// How many places there may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Most {
    /// Of one account. The host's root has all that there are.
    pub of_account: usize,
    /// Of all together.
    pub in_all: usize,
}

/// Why somebody has no place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoPlace {
    /// His account has as many as it may.
    OfAccount,
    /// All have together.
    InAll,
}

/// One of them. Dropping it makes room for another.
#[derive(Debug)]
pub struct Place {
    places: Places,
    account: Account,
}

impl Places {
    /// A place for an account, if it may have another.
    pub fn take(&self, account: Account, most: Most) -> Result<Place, NoPlace> {
        let mut taken = self.lock();
        if taken.iter().map(|(_, count)| count).sum::<usize>() >= most.in_all {
            return Err(NoPlace::InAll);
        }
        match taken.iter_mut().find(|(other, _)| *other == account) {
            Some((_, count)) if *count >= most.of_account && account != Account::Host => {
                return Err(NoPlace::OfAccount);
            }
            Some((_, count)) => *count += 1,
            None => taken.push((account, 1)),
        }
        Ok(Place { places: self.clone(), account })
    }

    /// Whether nobody has one.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Account, usize)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Whose it is.
    pub fn account(&self) -> Account {
        self.account
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.iter_mut().filter(|(account, _)| *account == self.account).for_each(|(_, count)| *count -= 1);
        taken.retain(|(_, count)| *count != 0);
    }
}

#[cfg(test)]
mod tests {
    use pinfold_model::Uid;

    use super::*;

    #[test]
    fn nobody_has_more_places_than_are_his_and_all_have_no_more_than_there_are() {
        let (one, other) = (Account::User(Uid(1)), Account::Container(1));
        let most = Most { of_account: 3, in_all: 9 };
        let places = Places::default();
        let take = |account, count: usize| {
            (0..count).map_while(|_| places.take(account, most).ok()).collect::<Vec<_>>()
        };
        let of_one = take(one, 9);
        assert_eq!(of_one.len(), 3);
        assert_eq!(places.take(one, most).err(), Some(NoPlace::OfAccount));
        let of_other = take(other, 1);
        let of_root = take(Account::Host, 9);
        assert_eq!((of_other.len(), of_root.len()), (1, 5));
        assert_eq!(places.take(other, most).err(), Some(NoPlace::InAll));
        drop(of_one);
        assert_eq!(take(one, 9).len(), 3);
        drop((of_other, of_root));
        assert!(places.is_empty());
    }
}
