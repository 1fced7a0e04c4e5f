//! Sets of CPUs and of memory nodes, read and written as the kernel's bitmap lists: bitmap_parselist(), `%*pbl`.

use std::collections::BTreeSet;
use std::fmt;

/// A set of CPUs or of memory nodes.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Mask(BTreeSet<u32>);

/// Why a text is no list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum MaskError {
    /// Its form is wrong: EINVAL.
    Form,
    /// A number that 32 bits do not hold: EOVERFLOW.
    Overflow,
    /// A number that is none of the set's: ERANGE.
    Range,
}

/// `START-END:USED/GROUP`: of every GROUP numbers from START on, the first USED.
struct Region {
    start: u32,
    end: u32,
    used: u32,
    group: u32,
}

impl Mask {
    /// Reads a list of numbers below `size`: numbers and ranges between commas and white space.
    ///
    /// Also taken, as by the kernel: `all`, `N` for the last number, `0-7:2/4` for the first two of every four. A newline
    /// that follows a number ends the text; one before it is white space.
    pub(crate) fn parse(text: &[u8], size: u32) -> Result<Self, MaskError> {
        let mut mask = Self::default();
        let mut rest = text;
        while let Some(first) = first_region(rest) {
            let (region, after) = Region::parse(first, size.saturating_sub(1))?;
            region.check(size)?;
            region.add_to(&mut mask.0);
            rest = after;
        }
        Ok(mask)
    }

    /// Reads what [`fmt::Display`] printed.
    pub(crate) fn of_kept(text: &[u8]) -> Self {
        Self::parse(text, u32::MAX).unwrap_or_default()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn is_subset(&self, of: &Self) -> bool {
        self.0.is_subset(&of.0)
    }

    pub(crate) fn intersects(&self, other: &Self) -> bool {
        !self.0.is_disjoint(&other.0)
    }

    pub(crate) fn intersection(&self, other: &Self) -> Self {
        Self(self.0.intersection(&other.0).copied().collect())
    }
}

impl FromIterator<usize> for Mask {
    fn from_iter<T: IntoIterator<Item = usize>>(numbers: T) -> Self {
        Self(numbers.into_iter().filter_map(|number| number.try_into().ok()).collect())
    }
}

impl fmt::Display for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for number in &self.0 {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == *number => *last = *number,
                _ => ranges.push((*number, *number)),
            }
        }
        for (position, (first, last)) in ranges.iter().enumerate() {
            let comma = if position == 0 { "" } else { "," };
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

/// Without the commas and the white space in front; `None` at the end.
fn first_region(text: &[u8]) -> Option<&[u8]> {
    let start = text.iter().position(|byte| !is_between(*byte))?;
    Some(&text[start..])
}

fn is_between(byte: u8) -> bool {
    matches!(byte, b'\t'..=b'\r' | b' ' | 0xa0 | b',')
}

/// Whether a region ends in front of this text.
fn is_end(text: &[u8]) -> bool {
    text.first().is_none_or(|byte| is_between(*byte))
}

impl Region {
    /// The first region of a text, and what follows it.
    fn parse(text: &[u8], last: u32) -> Result<(Self, &[u8]), MaskError> {
        let ((start, end), rest) = if text.len() >= 3 && text[..3].eq_ignore_ascii_case(b"all") {
            ((0, last), &text[3..])
        } else {
            let (start, rest) = number(text, last)?;
            if is_end(rest) {
                return Ok((Self::whole(start, start), after_region(rest)));
            }
            let (end, rest) = number(rest.strip_prefix(b"-").ok_or(MaskError::Form)?, last)?;
            ((start, end), rest)
        };
        if is_end(rest) {
            return Ok((Self::whole(start, end), after_region(rest)));
        }
        let (used, rest) = number(rest.strip_prefix(b":").ok_or(MaskError::Form)?, last)?;
        let (group, rest) = number(rest.strip_prefix(b"/").ok_or(MaskError::Form)?, last)?;
        Ok((Self { start, end, used, group }, rest))
    }

    /// One group of all numbers up to the last. Of 2^32 - 1 the kernel's addition wraps, and so makes an empty group.
    fn whole(start: u32, end: u32) -> Self {
        Self { start, end, used: end.wrapping_add(1), group: end.wrapping_add(1) }
    }

    fn check(&self, size: u32) -> Result<(), MaskError> {
        if self.start > self.end || self.group == 0 || self.used > self.group {
            return Err(MaskError::Form);
        }
        if self.end >= size { Err(MaskError::Range) } else { Ok(()) }
    }

    fn add_to(&self, numbers: &mut BTreeSet<u32>) {
        let mut start = Some(self.start);
        while let Some(first) = start.filter(|first| *first <= self.end) {
            numbers.extend((first..=self.end).take(self.used as usize));
            start = first.checked_add(self.group);
        }
    }
}

/// What follows a region: a newline right after it ends the text.
fn after_region(rest: &[u8]) -> &[u8] {
    if rest.first() == Some(&b'\n') { b"" } else { rest }
}

/// A number, or `N` for the last one.
fn number(text: &[u8], last: u32) -> Result<(u32, &[u8]), MaskError> {
    if let Some(rest) = text.strip_prefix(b"N") {
        return Ok((last, rest));
    }
    let (digits, rest) =
        text.split_at(text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len()));
    if digits.is_empty() {
        return Err(MaskError::Form);
    }
    let add = |n: u32, digit: &u8| n.checked_mul(10)?.checked_add(u32::from(digit - b'0'));
    digits.iter().try_fold(0, add).ok_or(MaskError::Overflow).map(|number| (number, rest))
}

#[cfg(test)]
mod tests {
    use super::{Mask, MaskError};

    /// What becomes of a list of numbers below 8.
    fn check(text: &str, expected: &str) {
        let shown = match Mask::parse(text.as_bytes(), 8) {
            Ok(mask) => mask.to_string(),
            Err(MaskError::Form) => "form".to_owned(),
            Err(MaskError::Overflow) => "overflow".to_owned(),
            Err(MaskError::Range) => "range".to_owned(),
        };
        assert_eq!(shown, expected, "{text:?}");
    }

    #[test]
    fn lists_are_read_as_the_kernel_reads_them() {
        check("", "");
        check(",", "");
        check("3", "3");
        check("1,0", "0-1");
        check(",,0,,2,,", "0,2");
        check("0 1\t3", "0-1,3");
        check("0-2,4-5,7", "0-2,4-5,7");
        check("007", "7");
        check("1\n0", "1");
        check("1 \n0", "0-1");
        check("\n1", "1");
        check("all", "0-7");
        check("AlL", "0-7");
        check("N", "7");
        check("5-N", "5-7");
        check("0-7:1/2", "0,2,4,6");
        check("1-7:2/4", "1-2,5-6");
        check("all:1/4", "0,4");
        check("0-7:0/2", "");
        check("0-1:1/2,5", "0,5");
        check("0-7:4294967295/4294967295", "0-7");
        for junk in [
            "abc",
            "0-",
            "-1",
            "+1",
            "1-0",
            "0a",
            "allx",
            "al",
            "n",
            "0x1",
            "0:1/2",
            "0-1:1",
            "0-1:3/2",
            "0-1:1/0",
            "0-1:1/2x",
            "4294967295",
        ] {
            check(junk, "form");
        }
        check("8", "range");
        check("0-8", "range");
        check("9,junk", "range");
        check("4294967296", "overflow");
        check("99999999999999999999", "overflow");
    }

    #[test]
    fn what_is_printed_is_read_again() {
        for text in ["", "0", "0-8191", "0,2,4-9,11"] {
            assert_eq!(Mask::of_kept(text.as_bytes()).to_string(), text);
        }
    }
}
