//! Patterns for values that differ from run to run: times, counters, pids that no step can know.

/// Whether `text` is what `pattern` says: `{n}` is a decimal number, `{s}` is anything without a newline,
/// `{...}` is anything at all, and every other byte is itself.
pub(super) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let digits = || text.iter().take_while(|b| b.is_ascii_digit()).count();
    let line = || text.iter().take_while(|b| **b != b'\n').count();
    if let Some(rest) = pattern.strip_prefix(b"{n}") {
        let all = digits();
        return all > 0 && matches(rest, &text[all..]);
    }
    if let Some(rest) = pattern.strip_prefix(b"{s}") {
        return (0..=line()).any(|taken| matches(rest, &text[taken..]));
    }
    if let Some(rest) = pattern.strip_prefix(b"{...}") {
        return (0..=text.len()).any(|taken| matches(rest, &text[taken..]));
    }
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((p, pattern)), Some((t, text))) => p == t && matches(pattern, text),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_stands_for_numbers_lines_and_the_rest() {
        for (pattern, text, expected) in [
            ("user {n}\nsystem {n}\n", "user 12\nsystem 3\n", true),
            ("user {n}\n", "user x\n", false),
            ("{n}", "", false),
            ("{s} end\n", "a b end\n", true),
            ("{s}\n", "a\nb\n", false),
            ("a\n{...}", "a\nb\nc\n", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern:?} {text:?}");
        }
    }
}
