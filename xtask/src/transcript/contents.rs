//! Operations on what files hold: reading and writing in one go, in pieces, and through files kept open.

use super::entries::as_open;
use super::operations::{Actor, Arguments, Operation};
use super::outcome::{Failure, Outcome, done, name, wrong};
use super::pattern::matches;
use super::words::quote;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

/// How long `until` and its kin wait before they say what they saw last.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// The rows. FILE is a path, or `@HANDLE`: a file that the same actor opened before.
pub(super) const OPERATIONS: &[Operation] = &[
    Operation { name: "open", arguments: "HANDLE FILE r|w|rw [trunc] [creat] [append]", run: open },
    Operation { name: "close", arguments: "HANDLE", run: close },
    Operation { name: "seek", arguments: "HANDLE OFFSET", run: seek },
    Operation { name: "read", arguments: "FILE [SIZE]", run: read },
    Operation { name: "read-once", arguments: "FILE SIZE", run: read_once },
    Operation { name: "write", arguments: "FILE PIECE...", run: write },
    Operation { name: "echo", arguments: "FILE TEXT", run: echo },
    Operation { name: "until", arguments: "FILE TEXT", run: until },
    Operation { name: "until-lines", arguments: "FILE COUNT", run: until_lines },
    Operation { name: "matches", arguments: "FILE PATTERN", run: matches_pattern },
    Operation { name: "number", arguments: "FILE at-least|at-most BOUND", run: number },
    Operation { name: "lists", arguments: "FILE LINE", run: lists },
    Operation { name: "ascending", arguments: "FILE", run: ascending },
];

fn open(actor: &mut Actor, a: Arguments) -> Outcome {
    let mut options = OpenOptions::new();
    match a.text(2)? {
        "r" => options.read(true),
        "w" => options.write(true),
        "rw" => options.read(true).write(true),
        other => return wrong(format!("{other} is not r, w or rw")),
    };
    for flag in a.from(3) {
        match flag.as_bytes() {
            b"trunc" => options.truncate(true),
            b"creat" => options.create(true),
            b"append" => options.append(true),
            _ => return wrong(format!("{flag:?} is not trunc, creat or append")),
        };
    }
    let file = options.open(a.at(1))?;
    actor.handles.insert(a.at(0).to_owned(), file);
    done()
}

fn close(actor: &mut Actor, a: Arguments) -> Outcome {
    match actor.handles.remove(a.at(0)) {
        Some(_) => done(),
        None => no_handle(a.at(0)),
    }
}

fn seek(actor: &mut Actor, a: Arguments) -> Outcome {
    let Some(mut file) = actor.handles.get(a.at(0)) else { return no_handle(a.at(0)) };
    file.seek(SeekFrom::Start(a.number(1)?))?;
    done()
}

fn no_handle<T>(handle: &OsStr) -> Result<T, Failure> {
    wrong(format!("no file is open as {}", handle.to_string_lossy()))
}

/// Reads to the end, by SIZE bytes a call.
fn read(actor: &mut Actor, a: Arguments) -> Outcome {
    let size = if a.get(1).is_some() { a.number(1)? as usize } else { 65536 };
    let bytes = with_file(actor, a.at(0), OpenOptions::new().read(true), |mut file| {
        let (mut all, mut piece) = (Vec::new(), vec![0; size]);
        loop {
            match file.read(&mut piece)? {
                0 => return Ok(all),
                length => all.extend_from_slice(&piece[..length]),
            }
        }
    })?;
    Ok(shown(&bytes))
}

/// One read(2), which may give less than the file holds.
fn read_once(actor: &mut Actor, a: Arguments) -> Outcome {
    let mut piece = vec![0; a.number(1)? as usize];
    let length =
        with_file(actor, a.at(0), OpenOptions::new().read(true), |mut file| Ok(file.read(&mut piece)?))?;
    Ok(shown(&piece[..length]))
}

/// One write(2) a piece, all on one open file.
fn write(actor: &mut Actor, a: Arguments) -> Outcome {
    let pieces = a.from(1);
    let results = with_file(actor, a.at(0), OpenOptions::new().write(true), |file| {
        Ok(pieces.iter().map(|piece| written(file, piece.as_bytes())).collect::<Vec<_>>())
    })?;
    Ok(vec![results.join(" ")])
}

/// What the shell's `echo TEXT >FILE` does.
fn echo(actor: &mut Actor, a: Arguments) -> Outcome {
    let mut line = a.at(1).as_bytes().to_vec();
    line.push(b'\n');
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    Ok(vec![with_file(actor, a.at(0), &options, |file| Ok(written(file, &line)))?])
}

/// Writes once: `ok`, the errno, or how much of it was taken. An empty piece is a write of no bytes.
fn written(file: &File, bytes: &[u8]) -> String {
    match rustix::io::write(file, bytes) {
        Ok(length) if length == bytes.len() => "ok".to_owned(),
        Ok(length) => format!("{length}/{}", bytes.len()),
        Err(errno) => name(errno),
    }
}

fn until(actor: &mut Actor, a: Arguments) -> Outcome {
    let wanted = a.at(1).as_bytes();
    retry(actor, a.at(0), |bytes| bytes == wanted, |_| vec!["ok".to_owned()])
}

/// Waits for COUNT lines and shows how many there are, and the last.
fn until_lines(actor: &mut Actor, a: Arguments) -> Outcome {
    let count = a.number(1)? as usize;
    let enough = |bytes: &[u8]| bytes.iter().filter(|b| **b == b'\n').count() >= count;
    retry(actor, a.at(0), enough, |bytes| {
        let lines = shown(bytes);
        let last = lines.last().cloned().unwrap_or_default();
        vec![format!("{} lines; the last:", lines.len()), last]
    })
}

/// Reads the file again and again until it is as wanted: kernel files cannot be watched in a uniform way.
fn retry(
    actor: &mut Actor,
    path: &OsStr,
    wanted: impl Fn(&[u8]) -> bool,
    show: impl Fn(&[u8]) -> Vec<String>,
) -> Outcome {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = contents(actor, path);
        match now {
            Ok(bytes) if wanted(&bytes) => return Ok(show(&bytes)),
            Err(failure @ Failure::Script(_)) => return Err(failure),
            _ if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
            Ok(bytes) => return Ok([vec!["not in time; last:".to_owned()], shown(&bytes)].concat()),
            Err(failure) => return Err(failure),
        }
    }
}

fn matches_pattern(actor: &mut Actor, a: Arguments) -> Outcome {
    let bytes = contents(actor, a.at(0))?;
    if matches(a.at(1).as_bytes(), &bytes) {
        return Ok(vec!["yes".to_owned()]);
    }
    Ok([vec!["no:".to_owned()], shown(&bytes)].concat())
}

fn number(actor: &mut Actor, a: Arguments) -> Outcome {
    let bytes = contents(actor, a.at(0))?;
    let bound = a.number(2)?;
    let Some(value) = std::str::from_utf8(&bytes).ok().and_then(|text| text.trim_end().parse::<u64>().ok())
    else {
        return Ok([vec!["not a number:".to_owned()], shown(&bytes)].concat());
    };
    let holds = match a.text(1)? {
        "at-least" => value >= bound,
        "at-most" => value <= bound,
        other => return wrong(format!("{other} is not at-least or at-most")),
    };
    Ok(vec![if holds { "yes".to_owned() } else { format!("no: {value}") }])
}

fn lists(actor: &mut Actor, a: Arguments) -> Outcome {
    let bytes = contents(actor, a.at(0))?;
    let found = bytes.split(|b| *b == b'\n').any(|line| line == a.at(1).as_bytes());
    Ok(vec![if found { "yes" } else { "no" }.to_owned()])
}

/// Whether the lines are numbers, each above the one before.
fn ascending(actor: &mut Actor, a: Arguments) -> Outcome {
    let bytes = contents(actor, a.at(0))?;
    let text = String::from_utf8_lossy(&bytes);
    let numbers: Result<Vec<u64>, _> = text.lines().map(str::parse).collect();
    let holds = numbers.is_ok_and(|numbers| numbers.is_sorted_by(|a, b| a < b));
    Ok(vec![if holds { "yes" } else { "no" }.to_owned()])
}

fn contents(actor: &mut Actor, path: &OsStr) -> Result<Vec<u8>, Failure> {
    with_file(actor, path, OpenOptions::new().read(true), |mut file| {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    })
}

/// Calls `act` with the handle that `@NAME` means, or with the file at the path, opened for this once.
fn with_file<T>(
    actor: &Actor,
    path: &OsStr,
    options: &OpenOptions,
    act: impl FnOnce(&File) -> Result<T, Failure>,
) -> Result<T, Failure> {
    match path.as_bytes().strip_prefix(b"@") {
        None => act(&options.open(path).map_err(as_open)?),
        Some(handle) => match actor.handles.get(OsStr::from_bytes(handle)) {
            Some(file) => act(file),
            None => no_handle(OsStr::from_bytes(handle)),
        },
    }
}

/// Contents as quoted lines, each with its newline; a file without a byte is one empty line.
fn shown(bytes: &[u8]) -> Vec<String> {
    if bytes.is_empty() {
        return vec![quote(b"")];
    }
    bytes.split_inclusive(|b| *b == b'\n').map(quote).collect()
}
