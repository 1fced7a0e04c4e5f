//! Names of the v2 directories below the realm's own.

use std::fmt;

use crate::{CellId, SpineId};

/// A path below the realm directory, made of `spine.N` components and at most one `cell.N` at its end.
///
/// ```
/// # use pinfold_model::Dir;
/// # use pinfold_model::{CellId, SpineId};
/// let leaf = Dir::REALM.spine(SpineId::new(3).unwrap()).cell(CellId::new(12).unwrap());
/// assert_eq!(leaf.to_string(), "spine.3/cell.12");
/// assert_eq!(Dir::parse(b"spine.3/cell.12"), Some(leaf));
/// assert_eq!(Dir::parse(b"spine.3/../etc"), None);
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Dir {
    spines: Vec<SpineId>,
    cell: Option<CellId>,
}

/// One component of a [`Dir`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum Component {
    Spine(SpineId),
    Cell(CellId),
}

impl Dir {
    /// The realm directory itself.
    pub const REALM: Self = Self { spines: Vec::new(), cell: None };

    /// A spine directory below this directory.
    ///
    /// # Panics
    /// If this is a leaf: nothing of the realm's lies below one.
    #[must_use]
    pub fn spine(&self, id: SpineId) -> Self {
        assert!(self.cell.is_none(), "a leaf has no spine directory below it");
        Self { spines: self.spines.iter().copied().chain([id]).collect(), cell: None }
    }

    /// The leaf of a cell below this directory.
    ///
    /// # Panics
    /// If this is a leaf itself.
    #[must_use]
    pub fn cell(&self, id: CellId) -> Self {
        assert!(self.cell.is_none(), "a leaf has no leaf below it");
        Self { spines: self.spines.clone(), cell: Some(id) }
    }

    /// The directory above; `None` for the realm directory.
    pub fn parent(&self) -> Option<Self> {
        match (self.cell, self.spines.split_last()) {
            (Some(_), _) => Some(Self { spines: self.spines.clone(), cell: None }),
            (None, Some((_, above))) => Some(Self { spines: above.to_vec(), cell: None }),
            (None, None) => None,
        }
    }

    /// The cell whose leaf this is, if it is one.
    pub const fn leaf(&self) -> Option<CellId> {
        self.cell
    }

    /// The spine directories that lead here, from the top; a spine directory is the last of its own.
    pub fn spines(&self) -> &[SpineId] {
        &self.spines
    }

    /// How many components it has: 0 for the realm directory.
    pub fn depth(&self) -> usize {
        self.spines.len() + usize::from(self.cell.is_some())
    }

    /// Reads what `Display` writes; `None` for anything else.
    pub fn parse(path: &[u8]) -> Option<Self> {
        if path == b"." {
            return Some(Self::REALM);
        }
        match Self::longest(path) {
            (found, true) if found != Self::REALM => Some(found),
            _ => None,
        }
    }

    /// The longest beginning of a path that the realm's own names make up, and whether that is all of it.
    pub fn longest(path: &[u8]) -> (Self, bool) {
        let mut found = Self::REALM;
        if path.is_empty() {
            return (found, true);
        }
        for name in path.split(|byte| *byte == b'/') {
            match Component::parse(name) {
                Some(Component::Spine(id)) if found.cell.is_none() => found.spines.push(id),
                Some(Component::Cell(id)) if found.cell.is_none() => found.cell = Some(id),
                _ => return (found, false),
            }
        }
        (found, true)
    }

    /// The directory of this name right below; `None` if it is not a name that the realm gives.
    pub fn child(&self, name: &[u8]) -> Option<Self> {
        match (self.cell, Component::parse(name)?) {
            (Some(_), _) => None,
            (None, Component::Spine(id)) => Some(self.spine(id)),
            (None, Component::Cell(id)) => Some(self.cell(id)),
        }
    }
}

impl Component {
    /// The name's meaning, if it is one that the realm gives.
    fn parse(name: &[u8]) -> Option<Self> {
        let (kind, number) = name.split_at_checked(name.iter().position(|byte| *byte == b'.')? + 1)?;
        let canonical = number.iter().all(u8::is_ascii_digit) && number.first() != Some(&b'0');
        let number = std::str::from_utf8(number).ok().filter(|_| canonical)?.parse().ok()?;
        match kind {
            b"spine." => SpineId::new(number).map(Self::Spine),
            b"cell." => CellId::new(number).map(Self::Cell),
            _ => None,
        }
    }
}

impl fmt::Display for Dir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.depth() == 0 {
            return f.write_str(".");
        }
        let mut slash = "";
        for id in &self.spines {
            write!(f, "{slash}spine.{id}")?;
            slash = "/";
        }
        match self.cell {
            Some(id) => write!(f, "{slash}cell.{id}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Dir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dir({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(path: &str) -> String {
        let (dir, whole) = Dir::longest(path.as_bytes());
        format!("{dir}{}", if whole { "" } else { " + more" })
    }

    #[test]
    fn the_longest_beginning_ends_at_the_first_name_that_is_not_the_realms() {
        #[rustfmt::skip]
        let rows = [
            ("",                         "."),
            ("cell.7",                   "cell.7"),
            ("spine.1/spine.2/cell.7",   "spine.1/spine.2/cell.7"),
            ("spine.1/cell.7/sub/x",     "spine.1/cell.7 + more"),
            ("spine.1/cell.7/cell.8",    "spine.1/cell.7 + more"),
            ("spine.1/cell.7/spine.8",   "spine.1/cell.7 + more"),
            ("spine.1/",                 "spine.1 + more"),
            ("spine.0",                  ". + more"),
            ("spine.01",                 ". + more"),
            ("spine.+1",                 ". + more"),
            ("spine.4294967296",         ". + more"),
            ("spine.",                   ". + more"),
            ("spine",                    ". + more"),
            ("../x",                     ". + more"),
        ];
        for (path, expected) in rows {
            assert_eq!(parsed(path), expected, "{path:?}");
        }
    }

    #[test]
    fn what_display_writes_parse_reads() {
        for path in [".", "cell.1", "spine.4294967295", "spine.1/spine.2/cell.3"] {
            assert_eq!(Dir::parse(path.as_bytes()).unwrap().to_string(), path);
        }
        assert_eq!(Dir::parse(b""), None);
        assert_eq!(Dir::parse(b"cell.1 (deleted)"), None);
    }

    #[test]
    fn a_parent_is_one_component_shorter() {
        let leaf = Dir::parse(b"spine.1/cell.3").unwrap();
        assert_eq!(leaf.parent(), Dir::parse(b"spine.1"));
        assert_eq!(leaf.parent().unwrap().parent(), Some(Dir::REALM));
        assert_eq!(Dir::REALM.parent(), None);
    }
}
