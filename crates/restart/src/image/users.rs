//! User namespaces: who made them, and whose numbers are whose in them.

use serde::{Deserialize, Serialize};

/// How many ranges a map may have. Source: linux/user_namespace.h, `UID_GID_MAP_MAX_EXTENTS`.
const MOST_RANGES: usize = 340;

/// A user namespace that is not the capturer's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserNamespace {
    /// The number of the one around it, which is less than its own; 0: the capturer's.
    pub parent: usize,
    /// The user who made it, by the capturer's numbers.
    pub maker: u32,
    /// Its users.
    pub uids: Vec<Range>,
    /// Its groups.
    pub gids: Vec<Range>,
    /// Whether its processes may call setgroups(2).
    pub setgroups: bool,
}

/// Consecutive numbers, `[inside, outside, count]`: what they are within the namespace, and what they are for the capturer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "[u32; 3]", into = "[u32; 3]")]
pub struct Range {
    /// The first number inside.
    pub inside: u32,
    /// The first number for the capturer.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

impl From<[u32; 3]> for Range {
    fn from([inside, outside, count]: [u32; 3]) -> Self {
        Self { inside, outside, count }
    }
}

impl From<Range> for [u32; 3] {
    fn from(range: Range) -> Self {
        [range.inside, range.outside, range.count]
    }
}

/// A map as uid_map and gid_map have it; `None`: not of that form.
pub(crate) fn parse(text: &str) -> Option<Vec<Range>> {
    let line = |line: &str| {
        let numbers: Vec<u32> =
            line.split_whitespace().map(|word| word.parse().ok()).collect::<Option<_>>()?;
        <[u32; 3]>::try_from(numbers).ok().map(Range::from)
    };
    text.lines().map(line).collect()
}

/// What is wrong with the maps of a user namespace.
pub(crate) fn check_one(namespace: &UserNamespace) -> Result<(), &'static str> {
    check(&namespace.uids)?;
    check(&namespace.gids)
}

/// What is wrong with a map that the kernel would not take.
fn check(ranges: &[Range]) -> Result<(), &'static str> {
    if ranges.len() > MOST_RANGES {
        return Err("more ranges than the kernel takes");
    }
    let starts: [fn(&Range) -> u32; 2] = [|range| range.inside, |range| range.outside];
    for start in starts {
        let mut sorted: Vec<(u32, u32)> = ranges.iter().map(|range| (start(range), range.count)).collect();
        sorted.sort_unstable();
        let mut free = 0_u64;
        for (first, count) in sorted {
            if count == 0 || u64::from(first) < free {
                return Err("a range that is empty, or overlaps another");
            }
            free = u64::from(first) + u64::from(count);
        }
        // The last number of all means nobody.
        if free > u64::from(u32::MAX) {
            return Err("a range beyond the last number");
        }
    }
    Ok(())
}

/// What a number of the capturer's is inside.
pub(crate) fn inside(ranges: &[Range], outside: u32) -> Option<u32> {
    let found =
        ranges.iter().find(|range| outside.checked_sub(range.outside).is_some_and(|n| n < range.count))?;
    Some(found.inside + (outside - found.outside))
}

/// A map from the numbers of the namespace around, as the kernel wants it written. `None`: some number has none there.
pub(crate) fn from_parent(ranges: &[Range], parent: &[Range]) -> Option<Vec<Range>> {
    let mut all = Vec::with_capacity(ranges.len());
    for range in ranges {
        let (mut done, mut from) = (0, range.outside);
        while done < range.count {
            let around = parent.iter().find(|p| from.checked_sub(p.outside).is_some_and(|n| n < p.count))?;
            let count = (around.count - (from - around.outside)).min(range.count - done);
            all.push(Range {
                inside: range.inside + done,
                outside: around.inside + (from - around.outside),
                count,
            });
            done += count;
            // Past the end of the last range there is nothing left to find.
            from = from.saturating_add(count);
        }
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(ranges: &[[u32; 3]]) -> Vec<Range> {
        ranges.iter().copied().map(Range::from).collect()
    }

    #[test]
    fn a_map_is_read_as_the_kernel_shows_it() {
        let text = "         0       1000          1\n         1     100000      65536\n";
        assert_eq!(parse(text), Some(map(&[[0, 1000, 1], [1, 100_000, 65536]])));
        assert_eq!(parse(""), Some(Vec::new()));
        assert_eq!((parse("0 1\n"), parse("0 1 x\n"), parse("0 1 2 3\n")), (None, None, None));
    }

    #[test]
    fn numbers_are_looked_up_from_outside() {
        let ranges = map(&[[0, 1000, 1], [1, 100_000, 10]]);
        assert_eq!(inside(&ranges, 1000), Some(0));
        assert_eq!(inside(&ranges, 100_009), Some(10));
        assert_eq!((inside(&ranges, 100_010), inside(&ranges, 0)), (None, None));
    }

    /// One range of the inner map lies over two of the outer.
    #[test]
    fn a_nested_map_is_written_in_the_numbers_around_it() {
        let parent = map(&[[0, 1000, 1], [1, 1001, 10]]);
        let nested = map(&[[5, 1000, 4]]);
        assert_eq!(from_parent(&nested, &parent), Some(map(&[[5, 0, 1], [6, 1, 3]])));
        assert_eq!(from_parent(&map(&[[0, 1010, 2]]), &parent), None, "1011 has no number there");
        assert_eq!(from_parent(&nested, &map(&[[1000, 1000, 4]])), Some(map(&[[5, 1000, 4]])));
    }

    #[test]
    fn what_the_kernel_would_refuse_is_refused() {
        assert_eq!(check(&map(&[[0, 1000, 1], [1, 0, 1]])), Ok(()));
        assert_eq!(check(&map(&[[0, 0, u32::MAX]])), Ok(()), "all but the last");
        for bad in [&[[0, 0, 0]][..], &[[0, 0, 2], [1, 5, 1]], &[[0, 0, 2], [5, 1, 1]], &[[1, 0, u32::MAX]]] {
            assert!(check(&map(bad)).is_err(), "{bad:?}");
        }
    }
}
