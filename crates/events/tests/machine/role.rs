//! What the program does when it runs in a container.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};

use pinfold_events::connector::Connector;
use pinfold_events::{Event, Scope, Service, Source, wire};

use crate::door;
use crate::watch::{Watch, own, told};

pub(crate) fn play(arguments: &[String]) {
    match arguments[0].as_str() {
        "threads" => threads(),
        "connector" => say(&format!("{}", Connector::open().unwrap_err())),
        "forger" => crate::connector::forge(arguments[1].parse().unwrap()).iter().for_each(|sent| say(sent)),
        "container" => container(&arguments[1..], told),
        "witness" => container(&arguments[1..], in_hex),
        other => panic!("{other}"),
    }
}

/// Who listened may be gone: then so are we.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        std::process::exit(1);
    }
}

/// Has threads, and ends by one of them.
fn threads() {
    let mut go = String::new();
    std::io::stdin().read_line(&mut go).unwrap();
    for _ in 0..3 {
        std::thread::spawn(|| ()).join().unwrap();
    }
    let last = std::thread::spawn(|| std::process::exit(5));
    let _ = last.join();
}

/// All that there is of an event, for [`read_hex`].
fn in_hex(event: &Event) -> String {
    let mut record = Vec::new();
    wire::write(event, &mut record);
    record.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What [`in_hex`] has printed.
pub(crate) fn read_hex(text: &str) -> Event {
    let digits = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    let record: Vec<u8> = (0..text.len()).step_by(2).map(digits).collect();
    let mut events = Vec::new();
    wire::read(&record, |event| events.push(event)).unwrap();
    events[0]
}

/// `container LEVEL OUTER-SOCKET INNER-SOCKET [COMMAND...]`: a pinfold in a container. Prints what its own subscriber is told, each line
/// after the level. With a command it runs that; without, it runs every line of its input.
fn container(arguments: &[String], told: fn(&Event) -> String) {
    let [level, outer, inner, command @ ..] = arguments else { panic!("{arguments:?}") };
    let (level, outer) = (level.clone(), PathBuf::from(outer));
    let service = Service::start(Source::outer(move || door::knock(&outer)).unwrap()).unwrap();
    let subscription = service.subscribe(own(), &Scope::All).unwrap();
    let mut watch = Watch::new(subscription.socket);
    for event in watch.until_synced() {
        say(&format!("{level} {}", told(&event)));
    }
    let for_thread = level.clone();
    std::thread::spawn(move || {
        while let Some(event) = watch.next() {
            say(&format!("{for_thread} {}", told(&event)));
        }
    });
    door::open(inner.as_ref(), Arc::new(Mutex::new(Some(service))));
    if let [program, rest @ ..] = command {
        Command::new(program).args(rest).status().unwrap();
        return;
    }
    for line in std::io::stdin().lock().lines() {
        Command::new("sh").args(["-c", &line.unwrap()]).status().unwrap();
    }
}
