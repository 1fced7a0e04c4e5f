//! Which controllers: ids that are positions in the static table of `files`, and sets of them.

use std::fmt;

/// A controller, as its position in `files::ALL`. A constant: the table is fixed at compile time.
#[doc(alias = "cgroup_subsys")]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ControllerId(u8);

impl ControllerId {
    /// How many controllers a realm can know.
    pub const MAX: u8 = 32;

    /// The controller at this position of the table.
    ///
    /// # Panics
    /// If there is no such position, at compile time where it is used in a constant.
    pub const fn new(position: u8) -> Self {
        assert!(position < Self::MAX, "a controller set has 32 places");
        Self(position)
    }

    /// The position in the table.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A set of controllers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ControllerSet(u32);

impl ControllerSet {
    /// No controller: what a named hierarchy with `none` has.
    pub const EMPTY: Self = Self(0);

    /// This set and one more.
    #[must_use]
    pub const fn with(self, id: ControllerId) -> Self {
        Self(self.0 | 1 << id.0)
    }
    /// Whether the controller is in the set.
    pub const fn contains(self, id: ControllerId) -> bool {
        self.0 & 1 << id.0 != 0
    }
    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
    /// What both sets have.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
    /// What this set has and the other has not.
    #[must_use]
    pub const fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
    /// What either set has.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
    /// How many there are.
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }
    /// The controllers, in the order of the table.
    pub fn iter(self) -> impl Iterator<Item = ControllerId> {
        (0..ControllerId::MAX).map(ControllerId).filter(move |id| self.contains(*id))
    }
}

impl FromIterator<ControllerId> for ControllerSet {
    fn from_iter<T: IntoIterator<Item = ControllerId>>(ids: T) -> Self {
        ids.into_iter().fold(Self::EMPTY, Self::with)
    }
}

impl fmt::Debug for ControllerSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(ControllerId::index)).finish()
    }
}
