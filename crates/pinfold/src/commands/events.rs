//! `pinfold events`: the stream of a subscription, as text or as JSON.

use std::io::Write;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, bail};
use pinfold_events::{Event, Ids, Pid, Process, Status, Stream, What};
use rustix::net::{Shutdown, shutdown};
use serde::Serialize;

use crate::args::EventsArgs;
use crate::{resolve, signals};

/// `pinfold events`.
pub(crate) fn events(args: &EventsArgs) -> anyhow::Result<()> {
    let client = resolve::client(&args.realm)?;
    let socket = match (args.pid, &args.group) {
        (Some(pid), _) => client.subscribe_to_subtree(pid.get())?,
        (None, Some(group)) => client.subscribe_to_group(group)?,
        (None, None) => client.subscribe()?,
    };
    let is_enough = end_on_signal(&socket)?;
    let mut out = std::io::stdout().lock();
    for event in Stream::new(socket) {
        let told = Told::of(&event?);
        if args.json {
            serde_json::to_writer(&mut out, &told).map_err(std::io::Error::from)?;
            writeln!(out)?;
        } else {
            writeln!(out, "{told}")?;
        }
        out.flush()?;
    }
    if !is_enough.load(Ordering::SeqCst) {
        bail!("the daemon has ended the stream");
    }
    Ok(())
}

/// Has the stream end on Ctrl-C, after the event that is being printed.
fn end_on_signal(socket: impl AsFd) -> anyhow::Result<Arc<AtomicBool>> {
    let is_enough = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&is_enough);
    let socket = socket.as_fd().try_clone_to_owned().context("the stream cannot be held")?;
    signals::on(signals::ENDING, move |_| {
        told.store(true, Ordering::SeqCst);
        let _ = shutdown(&socket, Shutdown::Both);
    })?;
    Ok(is_enough)
}

/// An event as it is printed. Numbers that are not known are left out.
#[derive(Serialize)]
struct Told {
    /// Seconds since the system started.
    time: f64,
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    /// Nanoseconds since the system started: with it, the process is named for good.
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comm: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    euid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    egid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    core_dumped: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gone: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    changed: Option<u32>,
}

impl Told {
    fn of(event: &Event) -> Self {
        let process = event.what.process();
        let mut told = Self {
            time: event.time.0 as f64 / 1e9,
            event: name(&event.what),
            pid: process.and_then(|process| process.pid).map(Pid::get),
            started: process.map(|process| process.started.0),
            parent: None,
            comm: None,
            uid: None,
            euid: None,
            gid: None,
            egid: None,
            code: None,
            signal: None,
            core_dumped: None,
            found: None,
            gone: None,
            changed: None,
        };
        match event.what {
            What::Found { parent, comm, uid, gid, .. } | What::Fork { parent, comm, uid, gid, .. } => {
                // 0 is the parent that is not visible, as getppid(2) has it.
                told.parent = Some(parent.and_then(|parent: Process| parent.pid).map_or(0, Pid::get));
                told.comm = Some(comm.to_string());
                told.user(uid);
                told.group(gid);
            }
            What::Exec { comm, .. } | What::Comm { comm, .. } => told.comm = Some(comm.to_string()),
            What::Exit { comm, status, .. } => {
                told.comm = Some(comm.to_string());
                match status {
                    Some(Status::Exited(code)) => told.code = Some(code),
                    Some(Status::Killed { signal, core }) => {
                        told.signal = Some(signal);
                        told.core_dumped = Some(core);
                    }
                    None => {}
                }
            }
            What::Uid { ids, .. } => told.user(Some(ids)),
            What::Gid { ids, .. } => told.group(Some(ids)),
            What::Synced { found, gone, changed } => {
                (told.found, told.gone, told.changed) = (Some(found), Some(gone), Some(changed));
            }
            What::Sid { .. } | What::Left { .. } | What::Gap => {}
        }
        told
    }

    fn user(&mut self, ids: Option<Ids>) {
        (self.uid, self.euid) = (ids.map(|ids| ids.real), ids.map(|ids| ids.effective));
    }

    fn group(&mut self, ids: Option<Ids>) {
        (self.gid, self.egid) = (ids.map(|ids| ids.real), ids.map(|ids| ids.effective));
    }
}

const fn name(what: &What) -> &'static str {
    match what {
        What::Found { .. } => "found",
        What::Fork { .. } => "fork",
        What::Exec { .. } => "exec",
        What::Exit { .. } => "exit",
        What::Uid { .. } => "uid",
        What::Gid { .. } => "gid",
        What::Sid { .. } => "sid",
        What::Comm { .. } => "comm",
        What::Left { .. } => "left",
        What::Gap => "gap",
        What::Synced { .. } => "synced",
    }
}

impl std::fmt::Display for Told {
    /// `TIME EVENT PID COMM`, then what else there is as `name=value`. A number that is not known is `?`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.6} {}", self.time, self.event)?;
        if self.started.is_some() {
            match self.pid {
                Some(pid) => write!(f, " {pid}")?,
                None => f.write_str(" ?")?,
            }
        }
        if let Some(comm) = &self.comm {
            write!(f, " {}", if comm.is_empty() { "?" } else { comm })?;
        }
        let numbers = [
            ("parent", self.parent),
            ("uid", self.uid),
            ("euid", self.euid.filter(|euid| Some(*euid) != self.uid)),
            ("gid", self.gid),
            ("egid", self.egid.filter(|egid| Some(*egid) != self.gid)),
            ("code", self.code.map(u32::from)),
            ("signal", self.signal.map(u32::from)),
            ("found", self.found),
            ("gone", self.gone),
            ("changed", self.changed),
        ];
        for (name, number) in numbers {
            if let Some(number) = number {
                write!(f, " {name}={number}")?;
            }
        }
        if self.core_dumped == Some(true) { f.write_str(" core dumped") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use pinfold_events::{Comm, Started, Time};

    use super::*;

    /// In the help text, and so in the manual page, and in docs/events.md.
    #[test]
    fn every_field_is_described() {
        let told = Told {
            time: 0.0,
            event: "",
            pid: Some(0),
            started: Some(0),
            parent: Some(0),
            comm: Some(String::new()),
            uid: Some(0),
            euid: Some(0),
            gid: Some(0),
            egid: Some(0),
            code: Some(0),
            signal: Some(0),
            core_dumped: Some(false),
            found: Some(0),
            gone: Some(0),
            changed: Some(0),
        };
        let mut cli = crate::args::Cli::command();
        let help = cli.find_subcommand_mut("events").unwrap().render_long_help().to_string();
        let docs = include_str!("../../../../docs/events.md");
        let json = serde_json::to_value(told).unwrap();
        for field in json.as_object().unwrap().keys() {
            let mut lines = help.lines().filter_map(|line| line.strip_prefix("  "));
            let is_told = |line: &str| {
                let (names, _) = line.split_once("  ").unwrap_or((line, ""));
                names.split(", ").any(|name| name == field)
            };
            assert!(lines.any(is_told), "{field} is not in the help");
            assert!(docs.contains(&format!("`{field}`")), "{field} is not in docs/events.md");
        }
    }

    #[test]
    fn an_event_reads_the_same_as_text_and_as_json() {
        let process = Process { pid: Pid::new(42), started: Started(7) };
        let ids = Some(Ids { real: 1000, effective: 0 });
        let comm = Comm::new(b"a b\n");
        let cases = [
            (
                What::Fork { process, parent: None, comm, uid: ids, gid: None },
                "1.500000 fork 42 a b\\n parent=0 uid=1000 euid=0",
                r#"{"time":1.5,"event":"fork","pid":42,"started":7,"parent":0,"comm":"a b\\n","uid":1000,"euid":0}"#,
            ),
            (
                What::Exit {
                    process: Process { pid: None, ..process },
                    comm: Comm::default(),
                    status: Some(Status::Killed { signal: 11, core: true }),
                },
                "1.500000 exit ? ? signal=11 core dumped",
                r#"{"time":1.5,"event":"exit","started":7,"comm":"","signal":11,"core_dumped":true}"#,
            ),
            (
                What::Synced { found: 1, gone: 0, changed: 2 },
                "1.500000 synced found=1 gone=0 changed=2",
                r#"{"time":1.5,"event":"synced","found":1,"gone":0,"changed":2}"#,
            ),
        ];
        for (what, text, json) in cases {
            let told = Told::of(&Event { time: Time(1_500_000_000), what });
            assert_eq!(told.to_string(), text);
            assert_eq!(serde_json::to_string(&told).unwrap(), json);
        }
    }
}
