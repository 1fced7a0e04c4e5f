//! Bytes that are usually text.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A string of the kernel: any bytes. In JSON a string, or `{"hex": "ff00"}` if it is not UTF-8.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Text(pub OsString);

impl Text {
    /// From bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(OsString::from_vec(bytes.to_vec()))
    }

    /// As an operating system string.
    pub fn as_os_str(&self) -> &OsStr {
        &self.0
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hex {
    hex: String,
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.to_str() {
            Some(text) => serializer.serialize_str(text),
            None => {
                let hex = self.0.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
                Hex { hex }.serialize(serializer)
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Either {
    Plain(String),
    Hex(Hex),
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Either::deserialize(deserializer)? {
            Either::Plain(text) => Ok(Self(OsString::from(text))),
            Either::Hex(Hex { hex }) => bytes(&hex)
                .map(|bytes| Self::of(&bytes))
                .ok_or_else(|| D::Error::custom("not pairs of hex digits")),
        }
    }
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    if !hex.len().is_multiple_of(2) {
        return None;
    }
    hex.as_bytes().chunks(2).map(|pair| Some(digit(pair[0])? * 16 + digit(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_written_as_it_is_and_other_bytes_as_hex() {
        for (bytes, json) in [
            (&b""[..], r#""""#),
            (b"a\"b", r#""a\"b""#),
            ("é\n".as_bytes(), r#""é\n""#),
            (b"\xff\x00a", r#"{"hex":"ff0061"}"#),
        ] {
            let text = Text::of(bytes);
            assert_eq!(serde_json::to_string(&text).unwrap(), json);
            assert_eq!(serde_json::from_str::<Text>(json).unwrap(), text);
        }
        for json in [r#"{"hex":"f"}"#, r#"{"hex":"zz"}"#, r#"{"hex":"+1"}"#, "1", r#"{"hex":"00","b":1}"#] {
            assert!(serde_json::from_str::<Text>(json).is_err(), "{json}");
        }
    }
}
