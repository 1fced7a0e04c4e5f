//! Words of a script line: how they are split, which variables they hold, and how bytes are shown.
//!
//! A word is bytes, since names and writes may be anything. Quoted parts know C's escapes and may be repeated,
//! so `g/"n"*255` is one word of 257 bytes. `${a}` stands for a value that is known only when the line runs.

use anyhow::{Result, bail};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// One word of a script line, its variables not yet filled in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Word(Vec<Part>);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Part {
    Bytes(Vec<u8>),
    Variable(String),
}

impl Word {
    /// The word's bytes, with `value` asked for each variable.
    pub(super) fn fill(&self, value: &dyn Fn(&str) -> Option<String>) -> Result<OsString> {
        let mut bytes = Vec::new();
        for part in &self.0 {
            match part {
                Part::Bytes(b) => bytes.extend_from_slice(b),
                Part::Variable(name) => match value(name) {
                    Some(text) => bytes.extend_from_slice(text.as_bytes()),
                    None => bail!("nothing is named {name}"),
                },
            }
        }
        Ok(OsString::from_vec(bytes))
    }
}

/// Splits a line at blanks outside quotes; a `#` that starts a word starts a comment.
pub(super) fn split(line: &str) -> Result<Vec<Word>> {
    let mut rest = Cursor { bytes: line.as_bytes(), at: 0 };
    let mut words = Vec::new();
    loop {
        while rest.peek().is_some_and(|b| b.is_ascii_whitespace()) {
            rest.at += 1;
        }
        match rest.peek() {
            None | Some(b'#') => return Ok(words),
            Some(_) => words.push(word(&mut rest)?),
        }
    }
}

/// Bytes as a quoted word that [`split`] reads back: printable ASCII as it is, the rest escaped.
pub(super) fn quote(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for &b in bytes {
        match b {
            b'\n' => text.push_str("\\n"),
            b'\t' => text.push_str("\\t"),
            b'"' | b'\\' | b'$' => text.extend(['\\', b as char]),
            b' '..=b'~' => text.push(b as char),
            _ => text.push_str(&format!("\\x{b:02x}")),
        }
    }
    text.push('"');
    text
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn take(&mut self) -> Option<u8> {
        let b = self.peek()?;
        self.at += 1;
        Some(b)
    }
}

fn word(rest: &mut Cursor) -> Result<Word> {
    let mut parts = Vec::new();
    while let Some(b) = rest.peek().filter(|b| !b.is_ascii_whitespace()) {
        rest.at += 1;
        match b {
            b'"' => {
                let quoted = quoted(rest)?;
                let times = repetition(rest)?;
                for _ in 0..times {
                    parts.extend(quoted.iter().cloned());
                }
            }
            b'$' => parts.push(variable(rest)?),
            _ => parts.push(Part::Bytes(vec![b])),
        }
    }
    Ok(Word(parts))
}

fn quoted(rest: &mut Cursor) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    loop {
        match rest.take() {
            None => bail!("a quote is not closed"),
            Some(b'"') => return Ok(parts),
            Some(b'\\') => parts.push(Part::Bytes(vec![escape(rest)?])),
            Some(b'$') => parts.push(variable(rest)?),
            Some(b) => parts.push(Part::Bytes(vec![b])),
        }
    }
}

/// The `*N` that may follow a closing quote.
fn repetition(rest: &mut Cursor) -> Result<usize> {
    if rest.peek() != Some(b'*') {
        return Ok(1);
    }
    rest.at += 1;
    let start = rest.at;
    while rest.peek().is_some_and(|b| b.is_ascii_digit()) {
        rest.at += 1;
    }
    let digits = String::from_utf8_lossy(&rest.bytes[start..rest.at]);
    digits.parse().map_err(|_| anyhow::anyhow!("no number after \"...\"*"))
}

fn variable(rest: &mut Cursor) -> Result<Part> {
    if rest.take() != Some(b'{') {
        bail!("a $ is not followed by {{NAME}} (\\$ is the character)");
    }
    let mut name = String::new();
    loop {
        match rest.take() {
            None => bail!("${{{name} is not closed"),
            Some(b'}') => return Ok(Part::Variable(name)),
            Some(b) => name.push(b as char),
        }
    }
}

fn escape(rest: &mut Cursor) -> Result<u8> {
    Ok(match rest.take() {
        Some(b'n') => b'\n',
        Some(b't') => b'\t',
        Some(b'r') => b'\r',
        Some(b'0') => 0,
        Some(b @ (b'"' | b'\\' | b'$')) => b,
        Some(b'x') => {
            let digits = [rest.take(), rest.take()];
            let text: String = digits.iter().flatten().map(|&b| b as char).collect();
            match u8::from_str_radix(&text, 16) {
                Ok(b) if text.len() == 2 => b,
                _ => bail!("\\x{text} is not two hexadecimal digits"),
            }
        }
        other => bail!("\\{} is not an escape", other.map_or(' ', |b| b as char)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(line: &str) -> Vec<Vec<u8>> {
        let value = |name: &str| (name == "a").then(|| "17".to_owned());
        split(line).unwrap().iter().map(|w| w.fill(&value).unwrap().into_vec()).collect()
    }

    #[test]
    fn words_are_split_at_blanks_outside_quotes() {
        assert_eq!(filled(r#"write  g/tasks "a b" # why"#), [&b"write"[..], b"g/tasks", b"a b"]);
    }

    #[test]
    fn quoted_parts_are_repeated_and_joined() {
        assert_eq!(filled(r#"g/"n"*3/x"#), [b"g/nnn/x"]);
    }

    #[test]
    fn variables_are_filled_in_and_an_empty_word_stays() {
        assert_eq!(filled(r#""${a}\n" "" \x"#), [&b"17\n"[..], b"", b"\\x"]);
    }

    #[test]
    fn what_is_quoted_reads_back() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(filled(&quote(&all)), [all]);
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        for (line, why) in [("\"a", "not closed"), ("$a", "not followed"), ("\"\\q\"", "not an escape")] {
            assert!(split(line).unwrap_err().to_string().contains(why), "{line}");
        }
    }
}
