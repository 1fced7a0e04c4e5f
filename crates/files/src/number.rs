//! The kernel's own number parsers, byte for byte: lib/kstrtox.c, strstrip() of lib/string_helpers.c.
//!
//! A write arrives as bytes with a NUL after them, and the kernel reads it as a C string: whatever follows a NUL in
//! the data is not seen.

/// Why a text is not a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NumberError {
    /// Its form is wrong: EINVAL.
    Form,
    /// It does not fit: ERANGE.
    Overflow,
}

/// The data up to the first NUL, as the kernel sees it.
pub(crate) fn c_string(data: &[u8]) -> &[u8] {
    data.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Without white space around it: strstrip(). The kernel's isspace() is that of Latin-1: 0xa0 is a space too.
pub(crate) fn strstrip(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|byte| !is_space(*byte)).unwrap_or(text.len());
    let end = text.iter().rposition(|byte| !is_space(*byte)).map_or(start, |last| last + 1);
    &text[start..end]
}

/// The kernel's isspace().
pub(crate) const fn is_space(byte: u8) -> bool {
    matches!(byte, b'\t'..=b'\r' | b' ' | 0xa0)
}

/// An unsigned number: kstrtoull(text, 0). Base 8 after `0`, 16 after `0x`, else 10; a `+` before and one newline after
/// are taken, white space is not.
pub(crate) fn kstrtoull(text: &[u8]) -> Result<u64, NumberError> {
    magnitude(text.strip_prefix(b"+").unwrap_or(text))
}

/// A signed number: kstrtoll(text, 0).
pub(crate) fn kstrtoll(text: &[u8]) -> Result<i64, NumberError> {
    match text.strip_prefix(b"-") {
        Some(rest) => 0_i64.checked_sub_unsigned(magnitude(rest)?),
        None => kstrtoull(text)?.try_into().ok(),
    }
    .ok_or(NumberError::Overflow)
}

/// A signed number of 32 bits: kstrtoint(text, 0).
pub(crate) fn kstrtoint(text: &[u8]) -> Result<i32, NumberError> {
    kstrtoll(text)?.try_into().map_err(|_| NumberError::Overflow)
}

/// The number that a text begins with: simple_strtol(text, 0), which lets anything follow. `None` without a digit.
pub(crate) fn strtol(text: &[u8]) -> Option<i64> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (number, rest) = strtoull(text);
    let number = number.cast_signed();
    (rest.len() < text.len()).then_some(if negative { number.wrapping_neg() } else { number })
}

/// The number that a text begins with, and what follows: simple_strtoull(text, 0). Base 8 after `0`, 16 after `0x`, else 10, no
/// sign. No digits at all are 0, and what is too large wraps.
pub(crate) fn strtoull(text: &[u8]) -> (u64, &[u8]) {
    let (digits, base) = match text {
        [b'0', b'x' | b'X', digits @ ..] if digits.first().is_some_and(u8::is_ascii_hexdigit) => (digits, 16),
        [b'0', ..] => (text, 8),
        _ => (text, 10),
    };
    let is_digit = |byte: &u8| char::from(*byte).is_digit(base);
    let (digits, rest) =
        digits.split_at(digits.iter().position(|byte| !is_digit(byte)).unwrap_or(digits.len()));
    let values = digits.iter().filter_map(|byte| char::from(*byte).to_digit(base));
    (values.fold(0_u64, |n, digit| n.wrapping_mul(base.into()).wrapping_add(digit.into())), rest)
}

/// A size: memparse(), whole: a number as strtoull() reads it, then at most one of k m g t p e, of either case.
pub(crate) fn memparse(text: &[u8]) -> Result<u64, NumberError> {
    let (number, rest) = strtoull(text);
    let shift = match rest {
        [] => 0,
        [b'k' | b'K'] => 10,
        [b'm' | b'M'] => 20,
        [b'g' | b'G'] => 30,
        [b't' | b'T'] => 40,
        [b'p' | b'P'] => 50,
        [b'e' | b'E'] => 60,
        _ => return Err(NumberError::Form),
    };
    Ok(number << shift)
}

/// _kstrtoull(): no sign. A number too large is Overflow whatever follows its digits.
fn magnitude(text: &[u8]) -> Result<u64, NumberError> {
    let (digits, base) = match text {
        [b'0', b'x' | b'X', digits @ ..] if digits.first().is_some_and(u8::is_ascii_hexdigit) => (digits, 16),
        [b'0', ..] => (text, 8),
        _ => (text, 10),
    };
    let mut rest = digits;
    let mut number = Some(0_u64);
    while let [byte, after @ ..] = rest
        && let Some(digit) = char::from(*byte).to_digit(base)
    {
        number = number.and_then(|n| n.checked_mul(base.into())?.checked_add(digit.into()));
        rest = after;
    }
    let number = number.ok_or(NumberError::Overflow)?;
    if rest.len() == digits.len() || !matches!(rest, [] | [b'\n']) {
        return Err(NumberError::Form);
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each parser makes of a text: `12`, `form` or `overflow`.
    fn check(text: &str, unsigned: &str, signed: &str) {
        fn shown<T: ToString>(result: Result<T, NumberError>) -> String {
            match result {
                Ok(number) => number.to_string(),
                Err(NumberError::Form) => "form".to_owned(),
                Err(NumberError::Overflow) => "overflow".to_owned(),
            }
        }
        assert_eq!(shown(kstrtoull(text.as_bytes())), unsigned, "unsigned {text:?}");
        assert_eq!(shown(kstrtoll(text.as_bytes())), signed, "signed {text:?}");
    }

    // Every line was seen on Linux 6.1: pids.max for the signed parser, notify_on_release for the unsigned one.
    #[test]
    fn numbers_are_read_as_the_kernel_reads_them() {
        //    text                   unsigned                signed
        check("0", "0", "0");
        check("5\n", "5", "5");
        check("5\n\n", "form", "form");
        check("+5", "5", "5");
        check("-5", "form", "-5");
        check("-0", "form", "0");
        check("+-5", "form", "form");
        check("-+5", "form", "form");
        check("++5", "form", "form");
        check("", "form", "form");
        check("\n", "form", "form");
        check("+", "form", "form");
        check("-", "form", "form");
        check(" 5", "form", "form");
        check("5 ", "form", "form");
        check("5a", "form", "form");
        check("5 6", "form", "form");
        check("1_0", "form", "form");
        check("00", "0", "0");
        check("010", "8", "8");
        check("+010", "8", "8");
        check("08", "form", "form");
        check("0x10", "16", "16");
        check("0X1f", "31", "31");
        check("+0x10", "16", "16");
        check("-0x10", "form", "-16");
        check("0x", "form", "form");
        check("0xg", "form", "form");
        check("0x+1", "form", "form");
        check("0x1_0", "form", "form");
        check("0b1", "form", "form");
        check("0o7", "form", "form");
        check("9223372036854775807", "9223372036854775807", "9223372036854775807");
        check("9223372036854775808", "9223372036854775808", "overflow");
        check("-9223372036854775808", "form", "-9223372036854775808");
        check("-9223372036854775809", "form", "overflow");
        check("18446744073709551615", "18446744073709551615", "overflow");
        check("18446744073709551616", "overflow", "overflow");
        check("0xffffffffffffffff", "18446744073709551615", "overflow");
        check("0x10000000000000000", "overflow", "overflow");
        check("01777777777777777777777", "18446744073709551615", "overflow");
        check("02000000000000000000000", "overflow", "overflow");
        check("99999999999999999999x", "overflow", "overflow");
    }

    // Every line was seen on Linux 6.1, in memory.limit_in_bytes.
    #[test]
    fn sizes_are_read_as_the_kernel_reads_them() {
        let check = |text: &str, expected| assert_eq!(memparse(text.as_bytes()), expected, "{text:?}");
        check("1048576", Ok(1 << 20));
        check("8k", Ok(8 << 10));
        check("3M", Ok(3 << 20));
        check("1e", Ok(1 << 60));
        check("16E", Ok(0));
        check("010000", Ok(4096));
        check("0x4000", Ok(0x4000));
        check("18446744073709559808", Ok(8192));
        check("k", Ok(0));
        check("", Ok(0));
        for junk in ["max", "-2", "+1", "1.5G", "10Q", "1kk", "1kB", "1 k", "08", "0x", "abc", "-"] {
            check(junk, Err(NumberError::Form));
        }
    }

    #[test]
    fn white_space_is_that_of_latin_1() {
        assert_eq!(strstrip(b"\t\n\x0b\x0c\r \xa0a \xa0\n"), b"a");
        assert_eq!(strstrip(b"a b"), b"a b");
        assert_eq!(strstrip(b" \n"), b"");
        assert_eq!(strstrip(b""), b"");
        assert_eq!(strstrip(b"\x85a"), b"\x85a");
    }

    #[test]
    fn nothing_after_a_nul_is_seen() {
        assert_eq!(c_string(b"5\x006"), b"5");
        assert_eq!(c_string(b"\x005"), b"");
        assert_eq!(c_string(b"5"), b"5");
        assert_eq!(c_string(b""), b"");
    }
}
