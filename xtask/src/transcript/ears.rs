//! Operations about eventfds: what `cgroup.event_control` takes, and who was told.

use super::operations::{Actor, Arguments, Operation};
use super::outcome::{Failure, Outcome, done, wrong};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;

/// The rows.
pub(super) const OPERATIONS: &[Operation] = &[
    Operation { name: "ear", arguments: "NAME", run: ear },
    Operation { name: "register", arguments: "FILE TEXT", run: register },
    Operation { name: "hears", arguments: "NAME TIMES", run: hears },
    Operation { name: "heard", arguments: "NAME", run: heard },
];

/// Makes an eventfd, held under a name as an open file is.
fn ear(actor: &mut Actor, a: Arguments) -> Outcome {
    let made = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    actor.handles.insert(a.at(0).to_owned(), File::from(made));
    done()
}

/// Writes a text in which `@NAME` stands for the descriptor of what is held under that name.
fn register(actor: &mut Actor, a: Arguments) -> Outcome {
    let mut text = String::new();
    for (number, word) in a.text(1)?.split('@').enumerate() {
        let end = word.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(word.len());
        let (name, rest) = if number == 0 { ("", word) } else { word.split_at(end) };
        if number > 0 {
            text += &held(actor, name)?.as_raw_fd().to_string();
        }
        text += rest;
    }
    let mut file = OpenOptions::new().write(true).open(a.at(0))?;
    file.write_all(text.as_bytes())?;
    done()
}

/// Waits until an eventfd is signalled so often, each time for at most 10 s, and gives how often it was.
fn hears(actor: &mut Actor, a: Arguments) -> Outcome {
    let ear = held(actor, a.text(0)?)?;
    let mut times = count(ear)?;
    while times < a.number(1)? {
        let patience = Timespec { tv_sec: 10, tv_nsec: 0 };
        if poll(&mut [PollFd::new(ear, PollFlags::IN)], Some(&patience))? == 0 {
            break;
        }
        times += count(ear)?;
    }
    Ok(vec![times.to_string()])
}

/// How often an eventfd was signalled since it was last asked.
fn heard(actor: &mut Actor, a: Arguments) -> Outcome {
    Ok(vec![count(held(actor, a.text(0)?)?)?.to_string()])
}

fn count(ear: &File) -> Result<u64, Failure> {
    let mut count = [0; 8];
    match rustix::io::read(ear, &mut count) {
        Ok(_) => Ok(u64::from_ne_bytes(count)),
        Err(Errno::AGAIN) => Ok(0),
        Err(errno) => Err(errno.into()),
    }
}

fn held<'a>(actor: &'a Actor, name: &str) -> Result<&'a File, Failure> {
    match actor.handles.get(std::ffi::OsStr::new(name)) {
        Some(file) => Ok(file),
        None => wrong(format!("nothing is held as {name}")),
    }
}
