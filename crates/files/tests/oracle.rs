//! What Linux 6.1 made of 900 texts that are nearly right, and what the tables make of them.
//!
//! `oracle/grammar.v1` is a transcript of `cargo xtask record`: a line is a step, the indented lines after it are what
//! came of it. To record it again, in a guest with cgroup v1, take the steps out of it:
//!
//!     grep -v '^    ' crates/files/tests/oracle/grammar.v1 > /tmp/oracle/grammar.script
//!     vm/run-in-vm --cgroup v1 --rw /tmp/oracle -- target/debug/xtask record --out /tmp/oracle /tmp/oracle/grammar.script

use crate::stage::Stage;

const TRANSCRIPT: &str = include_str!("oracle/grammar.v1");

/// Plays the writes and reads of a transcript; how many there were.
fn check(transcript: &str) -> usize {
    let mut stage = Stage::new();
    let mut lines = transcript.lines().peekable();
    let mut steps = 0;
    while let Some(step) = lines.next() {
        let mut answer = Vec::new();
        while let Some(line) = lines.next_if(|line| line.starts_with("    ")) {
            answer.push(line.trim_start());
        }
        let (verb, rest) = step.split_once(' ').unwrap_or((step, ""));
        let (path, text) = rest.split_once(' ').unwrap_or((rest, ""));
        let path = path.strip_prefix('p').unwrap_or(path);
        match verb {
            "mkdir" => stage.mkdir(path),
            "write" => assert_eq!([outcome(&mut stage, path, &unquoted(text))], answer[..], "{step}"),
            "read" => {
                let expected: Vec<u8> = answer.iter().flat_map(|line| unquoted(line)).collect();
                assert_eq!(
                    stage.read(path).unwrap().escape_ascii().to_string(),
                    expected.escape_ascii().to_string(),
                    "{step}"
                );
            }
            "mount" | "umount" | "rmdir" | "" | "==" => continue,
            _ => panic!("not a step: {step}"),
        }
        steps += 1;
    }
    steps
}

/// What a write gives where no process has an id but the writer.
fn outcome(stage: &mut Stage, path: &str, data: &[u8]) -> String {
    match stage.write(path, data) {
        attached if attached == "writer" => "ok".to_owned(),
        attached if attached.parse::<u32>().is_ok() => "ESRCH".to_owned(),
        outcome => outcome,
    }
}

/// The bytes of a word of the transcript: in quotes with C's escapes, or as it stands.
fn unquoted(word: &str) -> Vec<u8> {
    let Some(word) = word.strip_prefix('"').and_then(|word| word.strip_suffix('"')) else {
        return word.as_bytes().to_vec();
    };
    let mut bytes = Vec::new();
    let mut rest = word.chars();
    while let Some(c) = rest.next() {
        let byte = match (c, c == '\\') {
            (_, true) => match rest.next().unwrap() {
                'n' => b'\n',
                't' => b'\t',
                '0' => 0,
                'x' => {
                    let digits: String = rest.by_ref().take(2).collect();
                    u8::from_str_radix(&digits, 16).unwrap()
                }
                other => u8::try_from(other).unwrap(),
            },
            (c, false) => u8::try_from(c).unwrap(),
        };
        bytes.push(byte);
    }
    bytes
}

#[test]
fn the_tables_answer_as_the_kernel_did() {
    assert!(check(TRANSCRIPT) > 1700);
}
