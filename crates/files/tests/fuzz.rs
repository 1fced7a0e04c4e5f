//! Bytes from anywhere, written to every file: never a panic, and what is accepted is what it shows.

use pinfold_files::{Change, FileId, Place, Request, RoundTrip, Write, file, files, full_name};
use pinfold_model::Errno;
use proptest::prelude::*;

use crate::stage::Stage;

/// Bytes that are nearly a value of some file, and bytes that are nothing.
fn any_write() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => prop::sample::select(vec![
            "0", "1", "9", "0x", "0X", "-", "+", " ", "\n", "\t", "\u{b}", "\0", "max", "FROZEN", "THAWED", "a", "f", "k", "M", "G", "E", "-1",
            "4194304", "4194305", "2147483647", "2147483648", "9223372036854775807", "18446744073709551615", "7777777",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        1 => any::<u8>().prop_map(|byte| vec![byte]),
        1 => Just(vec![0xa0]),
    ];
    prop_oneof![
        8 => prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat()),
        1 => prop::collection::vec(any::<u8>(), 0..64),
        1 => (any::<u8>(), 4090_usize..4100).prop_map(|(byte, length)| vec![byte; length]),
    ]
}

/// Neither empty nor too long: those are not looked at.
fn of_legal_length(mut data: Vec<u8>) -> Vec<u8> {
    data.truncate(4096);
    if data.is_empty() { b"0".to_vec() } else { data }
}

fn any_file() -> impl Strategy<Value = FileId> {
    prop::sample::select(files().collect::<Vec<_>>())
}

/// lib/kstrtox.c word by word, as slow as it likes: what the parser must agree with.
fn naive_kstrtoull(text: &[u8]) -> Result<u64, Errno> {
    let at = |i: usize| text.get(i).copied().filter(|byte| *byte != 0).unwrap_or(0);
    let mut i = usize::from(at(0) == b'+');
    let base: u128 = if at(i) != b'0' {
        10
    } else if at(i + 1) | 0x20 == b'x' && at(i + 2).is_ascii_hexdigit() {
        16
    } else {
        8
    };
    i += if base == 16 { 2 } else { 0 };
    let (start, mut number, mut overflow) = (i, 0_u128, false);
    loop {
        let value = match at(i) {
            byte @ b'0'..=b'9' => u128::from(byte - b'0'),
            byte if (b'a'..=b'f').contains(&(byte | 0x20)) => u128::from((byte | 0x20) - b'a' + 10),
            _ => break,
        };
        if value >= base {
            break;
        }
        number = number * base + value;
        if number > u128::from(u64::MAX) {
            overflow = true;
            number = u128::from(u64::MAX); // stays above, whatever follows
        }
        i += 1;
    }
    match (overflow, i == start, at(i), at(i + 1)) {
        (true, ..) => Err(Errno::ERANGE),
        (_, false, 0, _) | (_, false, b'\n', 0) => Ok(u64::try_from(number).unwrap()),
        _ => Err(Errno::EINVAL),
    }
}

/// What of a write is a string of C, without the white space around it: strstrip() and isspace(), word by word.
fn naive_strstrip(data: &[u8]) -> Vec<u8> {
    let mut text = data.to_vec();
    if let Some(end) = text.iter().position(|byte| *byte == 0) {
        text.truncate(end);
    }
    let is_space = |byte: u8| [9, 10, 11, 12, 13, 32, 0xa0].contains(&byte);
    while text.last().is_some_and(|byte| is_space(*byte)) {
        text.pop();
    }
    while text.first().is_some_and(|byte| is_space(*byte)) {
        text.remove(0);
    }
    text
}

/// pids_max_write() and kstrtoll(), word by word; what pids_max_show() then shows.
fn naive_pids_max_write(data: &[u8]) -> Result<String, Errno> {
    let text = naive_strstrip(data);
    if text == b"max" {
        return Ok("max".to_owned());
    }
    let (negative, digits) = match text.strip_prefix(b"-") {
        // kstrtoll() calls _kstrtoull() after a minus sign, which knows no plus.
        Some([b'+', ..]) => return Err(Errno::EINVAL),
        Some(rest) => (true, rest),
        None => (false, &text[..]),
    };
    let number = naive_kstrtoull(digits)?;
    if number > i64::MAX as u64 + u64::from(negative) {
        return Err(Errno::ERANGE);
    }
    if negative && number != 0 || number > 4_194_304 {
        return Err(Errno::EINVAL);
    }
    Ok(number.to_string())
}

/// page_counter_memparse(), memparse() and simple_strtoull() word by word; what the file then shows.
fn naive_memory_limit(data: &[u8]) -> Result<String, Errno> {
    let text = naive_strstrip(data);
    if text == b"-1" {
        return Ok("9223372036854771712".to_owned());
    }
    let at = |i: usize| text.get(i).copied().unwrap_or(0);
    let (base, mut i): (u64, usize) = match (at(0), at(1) | 0x20, at(2)) {
        (b'0', b'x', digit) if digit.is_ascii_hexdigit() => (16, 2),
        (b'0', ..) => (8, 0),
        _ => (10, 0),
    };
    let mut bytes = 0_u64;
    loop {
        let value = match at(i) {
            byte @ b'0'..=b'9' => u64::from(byte - b'0'),
            byte if (b'a'..=b'f').contains(&(byte | 0x20)) => u64::from((byte | 0x20) - b'a' + 10),
            _ => break,
        };
        if value >= base {
            break;
        }
        bytes = bytes.wrapping_mul(base).wrapping_add(value);
        i += 1;
    }
    let letters = b"kmgtpe";
    if let Some(power) =
        letters.iter().position(|letter| *letter == at(i) | 0x20 && at(i).is_ascii_alphabetic())
    {
        for _ in 0..=power {
            bytes = bytes.wrapping_mul(1024);
        }
        i += 1;
    }
    if at(i) != 0 {
        return Err(Errno::EINVAL);
    }
    let pages = (bytes / 4096).min(9_223_372_036_854_771_712 / 4096);
    Ok((pages * 4096).to_string())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_write_panics_and_an_accepted_value_shows_what_writes_it_again(id in any_file(), data in any_write()) {
        let mut stage = Stage::new();
        stage.mkdir("/a");
        let row = file(id).1;
        let group = if row.place != Place::RootOnly { stage.group("/a") } else { stage.root() };
        let before = stage.show(group, id);
        match stage.parse(group, id, &data) {
            Err(errno) => {
                let general = matches!(row.write, Write::Refused | Write::Attach(_)) && errno == "EINVAL";
                prop_assert!(general || errno == "E2BIG" || row.errors.contains(&errno), "{}", errno);
                prop_assert_eq!(stage.show(group, id), before);
            }
            Ok(Request::Attach(..)) => prop_assert!(matches!(row.write, Write::Attach(_))),
            Ok(Request::Register(_)) => prop_assert!(matches!(row.write, Write::Register)),
            Ok(Request::Change(change)) => {
                stage.carry_out(group, change.clone());
                let shown = stage.show(group, id);
                if !data.is_empty() && row.round_trip == RoundTrip::Exact {
                    let again = stage.parse(group, id, &shown);
                    let unchanged = again == Ok(Request::Change(Change::Nothing));
                    prop_assert!(unchanged || again == Ok(Request::Change(change)), "{}", full_name(id, false));
                }
            }
        }
    }

    #[test]
    fn a_number_is_what_the_kernels_loop_makes_of_it(data in any_write().prop_map(of_legal_length)) {
        let stage = Stage::new();
        let id = pinfold_files::named("notify_on_release").unwrap();
        let outcome = stage.parse(stage.root(), id, &data);
        match naive_kstrtoull(&data) {
            Err(errno) => prop_assert_eq!(outcome, Err(format!("{errno:?}"))),
            Ok(number) => {
                let mut stage = stage;
                let Ok(Request::Change(change)) = outcome else {
                    return Err(TestCaseError::fail(format!("{data:?} is {number}")));
                };
                stage.carry_out(stage.root(), change);
                let expected: &[u8] = if number == 0 { b"0\n" } else { b"1\n" };
                prop_assert_eq!(stage.show(stage.root(), id), expected);
            }
        }
    }

    #[test]
    fn a_limit_is_what_the_kernels_loop_makes_of_it(data in any_write().prop_map(of_legal_length)) {
        let mut stage = Stage::new();
        stage.mkdir("/a");
        let (group, id) = (stage.group("/a"), pinfold_files::named("pids.max").unwrap());
        let outcome = stage.parse(group, id, &data);
        match naive_pids_max_write(&data) {
            Err(errno) => prop_assert_eq!(outcome, Err(format!("{errno:?}"))),
            Ok(shown) => {
                let Ok(Request::Change(change)) = outcome else {
                    return Err(TestCaseError::fail(format!("{data:?} is {shown}")));
                };
                stage.carry_out(group, change);
                prop_assert_eq!(stage.show(group, id), format!("{shown}\n").into_bytes());
            }
        }
    }

    #[test]
    fn a_size_is_what_the_kernels_loop_makes_of_it(data in any_write().prop_map(of_legal_length)) {
        let mut stage = Stage::new();
        stage.mkdir("/a");
        let (group, id) = (stage.group("/a"), pinfold_files::named("memory.limit_in_bytes").unwrap());
        let outcome = stage.parse(group, id, &data);
        match naive_memory_limit(&data) {
            Err(errno) => prop_assert_eq!(outcome, Err(format!("{errno:?}"))),
            Ok(shown) => {
                let Ok(Request::Change(change)) = outcome else {
                    return Err(TestCaseError::fail(format!("{data:?} is {shown}")));
                };
                stage.carry_out(group, change);
                prop_assert_eq!(stage.show(group, id), format!("{shown}\n").into_bytes());
            }
        }
    }
}
