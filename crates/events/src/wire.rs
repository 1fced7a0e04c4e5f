//! The stream of events on a socket, written and read. Pure.
//!
//! The socket is of type `SOCK_SEQPACKET`. The first packet, the *hello*, is text: a line `pinfold-events 1`, then one line for
//! each kind of record with its number, its name and its fields:
//!
//! ```text
//! pinfold-events 1
//! 1 found time pid started parent parent_started comm:s uid+1 euid+1 gid+1 egid+1
//! 2 fork time pid started parent parent_started comm:s uid+1 euid+1 gid+1 egid+1
//! 3 exec time pid started comm:s
//! ...
//! ```
//!
//! Every further packet holds whole records: one byte the kind, one byte the length of what follows, then the fields. A field is an
//! unsigned number in LEB128 (7 bits a byte, the lowest first, the top bit says that more follow), or, with `:s`, such a number
//! and as many bytes. A number that may be unknown is sent plus one (`+1`), with 0 for unknown; a `pid` of 0 is
//! unknown, a `parent` of 0 with a `parent_started` of 0 is outside. `time` and `started` are nanoseconds since boot.
//!
//! A reader skips kinds that it does not know, and fields after those that it knows: both may be added without another
//! version. It refuses another version.

use crate::event::{Comm, Event, Ids, Pid, Process, Started, Status, Time, What};

/// How the hello begins.
const FIRST_LINE: &str = "pinfold-events 1";

/// No packet is longer.
pub const MOST_BYTES: usize = 64 * 1024;

/// A kind of record. Its number is what is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Kind {
    Found = 1,
    Fork,
    Exec,
    Exit,
    Uid,
    Gid,
    Sid,
    Comm,
    Left,
    Gap,
    Synced,
}

/// All kinds by their numbers, with their names and fields.
const KINDS: [(Kind, &str, &str); 11] = [
    (Kind::Found, "found", "time pid started parent parent_started comm:s uid+1 euid+1 gid+1 egid+1"),
    (Kind::Fork, "fork", "time pid started parent parent_started comm:s uid+1 euid+1 gid+1 egid+1"),
    (Kind::Exec, "exec", "time pid started comm:s"),
    (Kind::Exit, "exit", "time pid started comm:s status+1"),
    (Kind::Uid, "uid", "time pid started uid euid"),
    (Kind::Gid, "gid", "time pid started gid egid"),
    (Kind::Sid, "sid", "time pid started"),
    (Kind::Comm, "comm", "time pid started comm:s"),
    (Kind::Left, "left", "time pid started"),
    (Kind::Gap, "gap", "time"),
    (Kind::Synced, "synced", "time found gone changed"),
];

impl Kind {
    const fn of(what: &What) -> Self {
        match what {
            What::Found { .. } => Self::Found,
            What::Fork { .. } => Self::Fork,
            What::Exec { .. } => Self::Exec,
            What::Exit { .. } => Self::Exit,
            What::Uid { .. } => Self::Uid,
            What::Gid { .. } => Self::Gid,
            What::Sid { .. } => Self::Sid,
            What::Comm { .. } => Self::Comm,
            What::Left { .. } => Self::Left,
            What::Gap => Self::Gap,
            What::Synced { .. } => Self::Synced,
        }
    }

    fn numbered(number: u8) -> Option<Self> {
        KINDS.iter().map(|(kind, ..)| *kind).find(|kind| kind.number() == number)
    }

    const fn number(self) -> u8 {
        self as u8
    }
}

/// What is wrong with a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WireError {
    /// The first packet is no hello of this version.
    #[error("the stream does not begin with \"{FIRST_LINE}\"")]
    Hello,
    /// A record ends before its fields do, or after its packet.
    #[error("a record of kind {0} is cut short")]
    Short(u8),
    /// A field has a value that it cannot have.
    #[error("a record of kind {0} has an impossible value")]
    Value(u8),
}

/// The first packet of a stream.
pub fn hello() -> Vec<u8> {
    let lines = KINDS.iter().map(|(kind, name, fields)| format!("{} {name} {fields}\n", kind.number()));
    format!("{FIRST_LINE}\n{}", lines.collect::<String>()).into_bytes()
}

/// Whether the first packet is a hello that this code understands.
pub fn check_hello(packet: &[u8]) -> Result<(), WireError> {
    match packet.strip_prefix(FIRST_LINE.as_bytes()) {
        Some([b'\n', ..]) => Ok(()),
        _ => Err(WireError::Hello),
    }
}

/// Appends the record of an event to a packet.
pub fn write(event: &Event, packet: &mut Vec<u8>) {
    let start = packet.len();
    packet.extend([0, 0]);
    let mut to = Writer(packet);
    to.number(event.time.0);
    if let Some(process) = event.what.process() {
        to.process(process);
    }
    match event.what {
        What::Found { parent, comm, uid, gid, .. } | What::Fork { parent, comm, uid, gid, .. } => {
            to.parent(parent);
            to.comm(comm);
            to.maybe_ids(uid);
            to.maybe_ids(gid);
        }
        What::Exec { comm, .. } | What::Comm { comm, .. } => to.comm(comm),
        What::Exit { comm, status, .. } => {
            to.comm(comm);
            to.number(status.map_or(0, |status| u64::from(status.to_wait()) + 1));
        }
        What::Uid { ids, .. } | What::Gid { ids, .. } => to.ids(ids),
        What::Sid { .. } | What::Left { .. } | What::Gap => {}
        What::Synced { found, gone, changed } => {
            [found, gone, changed].iter().for_each(|count| to.number(u64::from(*count)));
        }
    }
    packet[start] = Kind::of(&event.what).number();
    // 13 numbers of 10 bytes and a name of 15 at most.
    packet[start + 1] = (packet.len() - start - 2) as u8;
}

/// Reads the records of a packet.
pub fn read(mut packet: &[u8], mut event: impl FnMut(Event)) -> Result<(), WireError> {
    while let [number, rest @ ..] = packet {
        let short = WireError::Short(*number);
        let (length, rest) = rest.split_first().ok_or(short)?;
        let (fields, rest) = rest.split_at_checked(usize::from(*length)).ok_or(short)?;
        if let Some(kind) = Kind::numbered(*number) {
            event(read_record(kind, &mut Reader { bytes: fields, kind: *number })?);
        }
        packet = rest;
    }
    Ok(())
}

fn read_record(kind: Kind, from: &mut Reader<'_>) -> Result<Event, WireError> {
    let time = Time(from.number()?);
    let what = match kind {
        Kind::Found => {
            let (process, parent, comm) = (from.process()?, from.parent()?, from.comm()?);
            What::Found { process, parent, comm, uid: from.maybe_ids()?, gid: from.maybe_ids()? }
        }
        Kind::Fork => {
            let (process, parent, comm) = (from.process()?, from.parent()?, from.comm()?);
            What::Fork { process, parent, comm, uid: from.maybe_ids()?, gid: from.maybe_ids()? }
        }
        Kind::Exec => What::Exec { process: from.process()?, comm: from.comm()? },
        Kind::Exit => What::Exit {
            process: from.process()?,
            comm: from.comm()?,
            status: from.maybe(u64::from(u32::MAX))?.map(|status| Status::from_wait(status as u32)),
        },
        Kind::Uid => What::Uid { process: from.process()?, ids: from.ids()? },
        Kind::Gid => What::Gid { process: from.process()?, ids: from.ids()? },
        Kind::Sid => What::Sid { process: from.process()? },
        Kind::Comm => What::Comm { process: from.process()?, comm: from.comm()? },
        Kind::Left => What::Left { process: from.process()? },
        Kind::Gap => What::Gap,
        Kind::Synced => What::Synced { found: from.word()?, gone: from.word()?, changed: from.word()? },
    };
    Ok(Event { time, what })
}

struct Writer<'a>(&'a mut Vec<u8>);

impl Writer<'_> {
    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn process(&mut self, process: Process) {
        self.number(process.pid.map_or(0, |pid| u64::from(pid.get())));
        self.number(process.started.0);
    }

    fn parent(&mut self, parent: Option<Process>) {
        match parent {
            Some(parent) => self.process(parent),
            None => self.0.extend([0, 0]),
        }
    }

    fn comm(&mut self, comm: Comm) {
        self.0.push(comm.as_bytes().len() as u8);
        self.0.extend(comm.as_bytes());
    }

    fn ids(&mut self, ids: Ids) {
        self.number(u64::from(ids.real));
        self.number(u64::from(ids.effective));
    }

    fn maybe_ids(&mut self, ids: Option<Ids>) {
        match ids {
            Some(ids) => [ids.real, ids.effective].iter().for_each(|id| self.number(u64::from(*id) + 1)),
            None => self.0.extend([0, 0]),
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    kind: u8,
}

impl Reader<'_> {
    fn byte(&mut self) -> Result<u8, WireError> {
        let (byte, rest) = self.bytes.split_first().ok_or(WireError::Short(self.kind))?;
        self.bytes = rest;
        Ok(*byte)
    }

    fn number(&mut self) -> Result<u64, WireError> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if part << shift >> shift != part {
                break;
            }
            number |= part << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(WireError::Value(self.kind))
    }

    fn word(&mut self) -> Result<u32, WireError> {
        u32::try_from(self.number()?).map_err(|_| WireError::Value(self.kind))
    }

    fn process(&mut self) -> Result<Process, WireError> {
        Ok(Process { pid: Pid::new(self.word()?), started: Started(self.number()?) })
    }

    fn parent(&mut self) -> Result<Option<Process>, WireError> {
        let parent = self.process()?;
        Ok((parent.pid.is_some() || parent.started != Started(0)).then_some(parent))
    }

    fn comm(&mut self) -> Result<Comm, WireError> {
        let length = usize::try_from(self.number()?).map_err(|_| WireError::Value(self.kind))?;
        let (name, rest) = self.bytes.split_at_checked(length).ok_or(WireError::Short(self.kind))?;
        self.bytes = rest;
        Ok(Comm::new(name))
    }

    fn ids(&mut self) -> Result<Ids, WireError> {
        Ok(Ids { real: self.word()?, effective: self.word()? })
    }

    /// A number that was sent plus one.
    fn maybe(&mut self, most: u64) -> Result<Option<u64>, WireError> {
        match self.number()?.checked_sub(1) {
            Some(number) if number > most => Err(WireError::Value(self.kind)),
            number => Ok(number),
        }
    }

    fn maybe_ids(&mut self) -> Result<Option<Ids>, WireError> {
        let mut id = || Ok(self.maybe(u64::from(u32::MAX))?.map(|id| id as u32));
        let (real, effective) = (id()?, id()?);
        Ok(real.zip(effective).map(|(real, effective)| Ids { real, effective }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn process(pid: u32, started: u64) -> Process {
        Process { pid: Pid::new(pid), started: Started(started) }
    }

    #[track_caller]
    fn check(what: What, golden: &[u8]) {
        let event = Event { time: Time(300), what };
        let mut packet = Vec::new();
        write(&event, &mut packet);
        assert_eq!(packet, golden);
        let mut events = Vec::new();
        read(&packet, |event| events.push(event)).unwrap();
        assert_eq!(events, [event]);
    }

    #[test]
    fn golden_records() {
        let child = process(1000, 128);
        let parent = Some(process(1, 7));
        let comm = Comm::new(b"sh");
        let ids = Ids { real: 127, effective: 0 };
        //               kind len time        pid         started  parent            comm          uid, gid
        check(
            What::Found { process: child, parent, comm, uid: Some(ids), gid: None },
            &[1, 16, 0xac, 2, 0xe8, 7, 0x80, 1, 1, 7, 2, b's', b'h', 0x80, 1, 1, 0, 0],
        );
        check(
            What::Fork { process: child, parent: None, comm, uid: None, gid: Some(ids) },
            &[2, 16, 0xac, 2, 0xe8, 7, 0x80, 1, 0, 0, 2, b's', b'h', 0, 0, 0x80, 1, 1],
        );
        check(
            What::Exec { process: process(0, 128), comm: Comm::default() },
            &[3, 6, 0xac, 2, 0, 0x80, 1, 0],
        );
        let exit = |status| What::Exit { process: child, comm, status };
        check(exit(Some(Status::Exited(0))), &[4, 10, 0xac, 2, 0xe8, 7, 0x80, 1, 2, b's', b'h', 1]);
        check(exit(None), &[4, 10, 0xac, 2, 0xe8, 7, 0x80, 1, 2, b's', b'h', 0]);
        check(What::Uid { process: child, ids }, &[5, 8, 0xac, 2, 0xe8, 7, 0x80, 1, 127, 0]);
        check(What::Gid { process: child, ids }, &[6, 8, 0xac, 2, 0xe8, 7, 0x80, 1, 127, 0]);
        check(What::Sid { process: child }, &[7, 6, 0xac, 2, 0xe8, 7, 0x80, 1]);
        check(What::Comm { process: child, comm }, &[8, 9, 0xac, 2, 0xe8, 7, 0x80, 1, 2, b's', b'h']);
        check(What::Left { process: child }, &[9, 6, 0xac, 2, 0xe8, 7, 0x80, 1]);
        check(What::Gap, &[10, 2, 0xac, 2]);
        check(What::Synced { found: 1, gone: 2, changed: 200 }, &[11, 6, 0xac, 2, 1, 2, 0xc8, 1]);
    }

    #[test]
    fn every_kind_is_in_the_table_at_its_number() {
        for (at, (kind, ..)) in KINDS.iter().enumerate() {
            assert_eq!((usize::from(kind.number()), Kind::numbered(kind.number())), (at + 1, Some(*kind)));
        }
        assert_eq!((Kind::numbered(0), Kind::numbered(KINDS.len() as u8 + 1)), (None, None));
    }

    #[test]
    fn the_hello_describes_every_kind() {
        let hello = String::from_utf8(hello()).unwrap();
        assert!(
            hello.starts_with("pinfold-events 1\n1 found time pid started parent parent_started comm:s ")
        );
        assert_eq!(hello.lines().count(), 12);
        check_hello(hello.as_bytes()).unwrap();
        for other in ["", "pinfold-events 1", "pinfold-events 12\n", "pinfold-events 2\n", "rubbish\n"] {
            assert_eq!(check_hello(other.as_bytes()), Err(WireError::Hello), "{other}");
        }
    }

    #[test]
    fn what_a_later_writer_adds_is_skipped() {
        let mut packet = vec![77, 3, 1, 2, 3];
        packet.extend([10, 4, 0xac, 2, 9, 9]);
        let mut events = Vec::new();
        read(&packet, |event| events.push(event)).unwrap();
        assert_eq!(events, [Event { time: Time(300), what: What::Gap }]);
    }

    #[test]
    fn damaged_records_are_refused() {
        for (packet, error) in [
            (vec![10], WireError::Short(10)),
            (vec![10, 2, 0xac], WireError::Short(10)),
            (vec![10, 1, 0xac], WireError::Short(10)),
            (vec![8, 4, 1, 1, 1, 9], WireError::Short(8)),
            (vec![5, 9, 1, 1, 1, 0xff, 0xff, 0xff, 0xff, 0x7f, 0], WireError::Value(5)),
            ([vec![10, 11], vec![0xff; 11]].concat(), WireError::Value(10)),
        ] {
            assert_eq!(read(&packet, |_| ()), Err(error), "{packet:?}");
        }
    }

    fn any_event() -> impl Strategy<Value = Event> {
        let process = (any::<u32>(), any::<u64>()).prop_map(|(pid, started)| process(pid, started));
        let parent = prop::option::of(
            (1u32.., any::<u64>())
                .prop_map(|(pid, started)| Process { pid: Pid::new(pid), started: Started(started) }),
        );
        let comm = prop::collection::vec(any::<u8>(), 0..20).prop_map(|name| Comm::new(&name));
        let ids = || (any::<u32>(), any::<u32>()).prop_map(|(real, effective)| Ids { real, effective });
        let status = prop::option::of((0u32..=0xffff).prop_map(|s| Status::from_wait(s & 0xff7f)));
        let fields = (process, parent, comm, prop::option::of(ids()), ids(), status, any::<u32>());
        (any::<u64>(), 1..=11, fields).prop_map(|(time, kind, fields)| {
            let (process, parent, comm, uid, ids, status, count) = fields;
            let what = match kind {
                1 => What::Found { process, parent, comm, uid, gid: uid },
                2 => What::Fork { process, parent, comm, uid: None, gid: uid },
                3 => What::Exec { process, comm },
                4 => What::Exit { process, comm, status },
                5 => What::Uid { process, ids },
                6 => What::Gid { process, ids },
                7 => What::Sid { process },
                8 => What::Comm { process, comm },
                9 => What::Left { process },
                10 => What::Gap,
                _ => What::Synced { found: count, gone: count / 2, changed: 0 },
            };
            Event { time: Time(time), what }
        })
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(events in prop::collection::vec(any_event(), 0..20)) {
            let mut packet = Vec::new();
            events.iter().for_each(|event| write(event, &mut packet));
            let mut back = Vec::new();
            prop_assert_eq!(read(&packet, |event| back.push(event)), Ok(()));
            prop_assert_eq!(back, events);
        }

        #[test]
        fn rubbish_does_no_harm(packet in prop::collection::vec(prop_oneof![0u8..14, any::<u8>()], 0..200)) {
            let mut events = 0;
            let _ = read(&packet, |_| events += 1);
            prop_assert!(events <= packet.len() / 2);
        }
    }
}
