//! User namespaces: which of its numbers a user or a users' group has in another one.

/// The users (or the users' groups) of a user namespace, by the daemon's numbers and by its own.
///
/// ```
/// use pinfold_model::IdMap;
/// let map: IdMap = "0 100000 1000\n5000 1000 1\n".parse()?;
/// assert_eq!((map.inside(100_007), map.outside(7)), (Some(7), Some(100_007)));
/// assert_eq!((map.inside(1000), map.inside(0)), (Some(5000), None));
/// # Ok::<(), pinfold_model::IdMapError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IdMap(Vec<Extent>);

/// A line of `uid_map`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Extent {
    inside: u32,
    outside: u32,
    length: u32,
}

/// What `/proc/PID/uid_map` said is no map.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is no line of a uid_map")]
pub struct IdMapError(String);

impl std::str::FromStr for IdMap {
    type Err = IdMapError;

    /// Reads `/proc/PID/uid_map` as the daemon sees it: its own numbers stand in the second column, whatever lies between
    /// its namespace and that of the process. What has no number there has 4294967295 and is left out.
    ///
    /// Source: user_namespaces(7); uid_m_show().
    fn from_str(text: &str) -> Result<Self, IdMapError> {
        let line = |line: &str| {
            let numbers: Option<Vec<u32>> =
                line.split_ascii_whitespace().map(|number| number.parse().ok()).collect();
            match numbers.as_deref() {
                Some(&[inside, outside, length]) => Ok(Extent { inside, outside, length }),
                _ => Err(IdMapError(line.to_owned())),
            }
        };
        let extents: Vec<Extent> = text.lines().map(line).collect::<Result<_, _>>()?;
        Ok(Self(extents.into_iter().filter(|extent| extent.outside != u32::MAX).collect()))
    }
}

impl IdMap {
    /// The map of a namespace to itself.
    pub fn same() -> Self {
        Self(vec![Extent { inside: 0, outside: 0, length: u32::MAX }])
    }

    /// The number in the namespace for one of the daemon's; `None` if it is not mapped.
    pub fn inside(&self, outside: u32) -> Option<u32> {
        self.0.iter().find_map(|extent| shift(outside, extent.outside, extent.inside, extent.length))
    }

    /// Whether nothing but one of the daemon's numbers is mapped.
    pub fn has_only(&self, outside: u32) -> bool {
        matches!(self.0[..], [Extent { outside: only, length: 1, .. }] if only == outside)
    }

    /// The daemon's number for one in the namespace; `None` if it is not mapped.
    pub fn outside(&self, inside: u32) -> Option<u32> {
        self.0.iter().find_map(|extent| shift(inside, extent.inside, extent.outside, extent.length))
    }
}

/// The number as far behind `to` as this one is behind `from`, if that is less than `length`.
fn shift(number: u32, from: u32, to: u32, length: u32) -> Option<u32> {
    number.checked_sub(from).filter(|offset| *offset < length).and_then(|offset| to.checked_add(offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_has_no_more_numbers_than_its_lines_say() {
        let map: IdMap =
            "         0     100000      65536\n     70000          5          1\n".parse().unwrap();
        for (outside, inside) in [
            (99_999, None),
            (100_000, Some(0)),
            (165_535, Some(65_535)),
            (165_536, None),
            (4, None),
            (5, Some(70_000)),
            (6, None),
            (u32::MAX, None),
        ] {
            assert_eq!(map.inside(outside), inside, "{outside}");
            if let Some(inside) = inside {
                assert_eq!(map.outside(inside), Some(outside));
            }
        }
        assert_eq!(map.outside(65_536), None);
    }

    #[test]
    fn what_the_daemon_has_no_number_for_is_nobodys() {
        let map: IdMap = "0 4294967295 65536\n".parse().unwrap();
        assert_eq!((map.inside(u32::MAX), map.outside(0)), (None, None));
        assert_eq!("".parse::<IdMap>().unwrap().inside(0), None, "before it is written, a map is empty");
    }

    #[test]
    fn the_end_of_the_numbers_is_no_beginning() {
        let map: IdMap = "4294967290 10 100".parse().unwrap();
        assert_eq!(map.inside(20), None, "beyond the largest number");
        assert_eq!(map.inside(15), Some(u32::MAX));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["0 0", "0 0 1 2", "a b c", "0 0 4294967296", "-1 0 1"] {
            assert!(text.parse::<IdMap>().is_err(), "{text}");
        }
    }
}
