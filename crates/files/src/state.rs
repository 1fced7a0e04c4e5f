//! Settings and counters as text for the state directory: a line `key=value` for each that differs from the default.
//!
//! The form of a value follows from its key, so a line needs no type: `0` or `1`, a decimal number, `max`, a decimal
//! number with a sign for what gone directories left, two with a slash for a largest value, or bytes. Bytes are printable ASCII; any other, and a backslash,
//! is `\xNN`.

use pinfold_model::{Key, Limit, Settings, Value};

use crate::counter::{Field, Fold};
use crate::lookup::{counter_by_key, setting_by_key};

/// Why a line of a state file is not understood.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StateError {
    /// No `=` in it.
    #[error("{0:?} is not of the form key=value")]
    NoValue(String),
    /// No setting and no counter has this key.
    #[error("no setting is called {0:?}")]
    UnknownKey(String),
    /// The value is not of the form that the key has.
    #[error("{value:?} is no value of {}: {expected} belongs there", key.0)]
    BadValue {
        /// The setting.
        key: Key,
        /// The value as it stands there.
        value: String,
        /// What belongs there.
        expected: &'static str,
    },
    /// The key was on an earlier line.
    #[error("{} is there twice", .0.0)]
    Repeated(Key),
}

/// The line of one setting or counter, without a newline.
pub fn print_setting(key: Key, value: &Value) -> String {
    let value = match value {
        Value::Flag(flag) => u8::from(*flag).to_string(),
        Value::Number(number) | Value::Limit(Limit::At(number)) => number.to_string(),
        Value::Limit(Limit::Max) => "max".to_owned(),
        Value::Offset(offset) => format!("{offset:+}"),
        Value::Peak { floor, beyond } => format!("{floor}/{beyond}"),
        Value::Text(bytes) => print_bytes(bytes),
    };
    format!("{}={value}", key.0)
}

/// Reads such a line back.
pub fn parse_setting(line: &str) -> Result<(Key, Value), StateError> {
    let (key, text) = line.split_once('=').ok_or_else(|| StateError::NoValue(start_of(line)))?;
    let (key, like) = form_of(key).ok_or_else(|| StateError::UnknownKey(start_of(key)))?;
    let (value, expected) = match like {
        Value::Flag(_) => (parse_flag(text), "0 or 1"),
        Value::Number(_) => (parse_number(text).map(Value::Number), "a number"),
        Value::Limit(_) if text == "max" => (Some(Value::Limit(Limit::Max)), ""),
        Value::Limit(_) => (parse_number(text).map(|n| Value::Limit(Limit::At(n))), "max or a number"),
        Value::Offset(_) => (parse_offset(text), "a number with its sign"),
        Value::Peak { .. } => (parse_peak(text), "two numbers with a slash between them"),
        Value::Text(_) => (parse_bytes(text).map(Value::Text), "printable ASCII, and \\xNN for other bytes"),
    };
    let value = value.ok_or_else(|| StateError::BadValue { key, value: start_of(text), expected })?;
    Ok((key, value))
}

/// All that a group keeps, one line each.
pub fn print_settings(settings: &Settings) -> String {
    settings.iter().map(|(key, value)| print_setting(key, value) + "\n").collect()
}

/// Reads such a text back.
pub fn parse_settings(text: &str) -> Result<Settings, StateError> {
    let mut settings = Settings::NONE;
    for line in text.lines() {
        let (key, value) = parse_setting(line)?;
        if settings.replace(key, Some(value)).is_some() {
            return Err(StateError::Repeated(key));
        }
    }
    Ok(settings)
}

/// Bytes as a value: printable ASCII stays, any other byte and the backslash become `\\xNN`.
pub fn print_bytes(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| escaped(*byte)).collect()
}

/// Reads what [`print_bytes`] wrote; `None` for anything else.
pub fn parse_bytes(text: &str) -> Option<Vec<u8>> {
    unescaped(text)
}

/// The constant of a key, and a value of the form that it has.
fn form_of(key: &str) -> Option<(Key, Value)> {
    let counter = counter_by_key(key).map(|counter| match counter.fold {
        Fold::Sum if counter.field == Field::Entries => (counter.key, Value::Text(Vec::new())),
        Fold::Sum => (counter.key, Value::Offset(0)),
        Fold::Peak { .. } => (counter.key, Value::Peak { floor: 0, beyond: 0 }),
    });
    counter.or_else(|| setting_by_key(key).map(|setting| (setting.key, setting.initial.clone())))
}

fn parse_flag(text: &str) -> Option<Value> {
    match text {
        "0" => Some(Value::Flag(false)),
        "1" => Some(Value::Flag(true)),
        _ => None,
    }
}

/// Digits and nothing else: `parse` would take a `+`.
fn parse_number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn parse_offset(text: &str) -> Option<Value> {
    text.starts_with(['+', '-']).then(|| text.parse().ok().map(Value::Offset))?
}

fn parse_peak(text: &str) -> Option<Value> {
    let (floor, beyond) = text.split_once('/')?;
    Some(Value::Peak { floor: parse_number(floor)?, beyond: parse_number(beyond)? })
}

fn escaped(byte: u8) -> String {
    match byte {
        b'\\' => "\\x5c".to_owned(),
        b' '..=b'~' => char::from(byte).to_string(),
        _ => format!("\\x{byte:02x}"),
    }
}

fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    loop {
        rest = match rest {
            [] => return Some(bytes),
            [b'\\', b'x', high, low, after @ ..] => {
                bytes.push(hex(*high)? << 4 | hex(*low)?);
                after
            }
            [b'\\', ..] => return None,
            [byte @ b' '..=b'~', after @ ..] => {
                bytes.push(*byte);
                after
            }
            _ => return None,
        };
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| digit.try_into().ok())
}

fn start_of(text: &str) -> String {
    text.chars().take(80).collect()
}
