//! The datagrams of the kernel's proc connector, decoded. Pure.
//!
//! Source: include/uapi/linux/{netlink,connector,cn_proc}.h; drivers/connector/cn_proc.c. All numbers are in the machine's
//! byte order. Whatever arrives, decoding never panics: what is no event of the kernel is a [`Rejected`].

use crate::change::{Change, Kind};
use crate::event::{Comm, Ids, Pid, Time};

/// The sizes of `nlmsghdr`, `cn_msg`, and of `proc_event` before its union.
const NETLINK_HEADER: usize = 16;
const CONNECTOR_HEADER: usize = 20;
const EVENT_HEADER: usize = 16;

/// `NLMSG_DONE`, the type of every connector message.
const DONE: u16 = 3;
/// `CN_IDX_PROC` and `CN_VAL_PROC`.
const PROC: u32 = 1;

/// A decoded datagram of the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message {
    /// An event, numbered by the CPU that it happened on.
    Event {
        /// The CPU.
        cpu: u32,
        /// The CPU's own count of events, 32 bits.
        sequence: u32,
        /// What happened; `None` for what does not concern processes (ptrace, core dumps, other threads' names) and for
        /// events that this code does not know.
        change: Option<Change>,
    },
    /// The answer to somebody's request to listen. All listeners get it.
    Answer {
        /// The CPU; -1 on older kernels.
        cpu: u32,
        /// The CPU's own count of events and answers; on older kernels `seq` of the request.
        sequence: u32,
        /// `ack` of the request, plus one.
        acknowledge: u32,
        /// 0, or the errno of the refusal.
        errno: u32,
    },
}

/// Why a datagram is none of the kernel's events.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Rejected {
    /// Another process sent it.
    #[error("datagram from port {0} instead of from the kernel")]
    Forged(u32),
    /// It ends before it should.
    #[error("datagram of {0} bytes is cut short")]
    Short(usize),
    /// It is a message of another kind.
    #[error("datagram is no message of the proc connector")]
    Foreign,
    /// It tells of process 0.
    #[error("datagram tells of no process")]
    NoProcess,
}

/// Decodes a datagram, given the netlink port of its sender (`None`: not even a netlink address).
pub fn decode(bytes: &[u8], sender: Option<u32>) -> Result<Message, Rejected> {
    match sender {
        Some(0) => {}
        Some(port) => return Err(Rejected::Forged(port)),
        None => return Err(Rejected::Foreign),
    }
    let short = || Rejected::Short(bytes.len());
    let length = u32_at(bytes, 0).ok_or_else(short)? as usize;
    if u16_at(bytes, 4) != Some(DONE) {
        return Err(if bytes.len() < NETLINK_HEADER { short() } else { Rejected::Foreign });
    }
    let message = bytes.get(NETLINK_HEADER..length).ok_or_else(short)?;
    let connector = message.get(..CONNECTOR_HEADER).ok_or_else(short)?;
    if (u32_at(connector, 0), u32_at(connector, 4)) != (Some(PROC), Some(PROC)) {
        return Err(Rejected::Foreign);
    }
    let sequence = u32_at(connector, 8).ok_or_else(short)?;
    let acknowledge = u32_at(connector, 12).ok_or_else(short)?;
    let event_length = usize::from(u16_at(connector, 16).ok_or_else(short)?);
    let event = message.get(CONNECTOR_HEADER..CONNECTOR_HEADER + event_length).ok_or_else(short)?;
    let what = u32_at(event, 0).ok_or_else(short)?;
    let cpu = u32_at(event, 4).ok_or_else(short)?;
    let time = Time(u64_at(event, 8).ok_or_else(short)?);
    let data = event.get(EVENT_HEADER..).ok_or_else(short)?;
    if what == 0 {
        let errno = u32_at(data, 0).ok_or_else(short)?;
        return Ok(Message::Answer { cpu, sequence, acknowledge, errno });
    }
    let change = match change(what, data) {
        Ok(change) => change.map(|(process, what)| Change { time, process, what }),
        Err(Undecodable::Short) => return Err(short()),
        Err(Undecodable::NoProcess) => return Err(Rejected::NoProcess),
    };
    Ok(Message::Event { cpu, sequence, change })
}

enum Undecodable {
    Short,
    NoProcess,
}

/// The union of `proc_event`, by `what`.
fn change(what: u32, data: &[u8]) -> Result<Option<(Pid, Kind)>, Undecodable> {
    let word = |index: usize| u32_at(data, index * 4).ok_or(Undecodable::Short);
    let pid = |index: usize| Pid::new(word(index)?).ok_or(Undecodable::NoProcess);
    // Of a process's users, groups and names we tell the first thread's, as /proc/PID does.
    let of_first_thread = |kind: Kind| -> Result<Option<(Pid, Kind)>, Undecodable> {
        let (task, process) = (pid(0)?, pid(1)?);
        Ok((task == process).then_some((process, kind)))
    };
    let ids = || Ok(Ids { real: word(2)?, effective: word(3)? });
    match what {
        // FORK: parent_pid, parent_tgid, child_pid, child_tgid.
        0x1 => {
            let (task, process) = (pid(2)?, pid(3)?);
            let kind = match task == process {
                true => Kind::Fork { parent: Pid::new(word(1)?) },
                false => Kind::Thread { task },
            };
            Ok(Some((process, kind)))
        }
        // EXEC: process_pid, process_tgid.
        0x2 => Ok(Some((pid(1)?, Kind::Exec { comm: None }))),
        // UID, GID: process_pid, process_tgid, real, effective.
        0x4 => of_first_thread(Kind::Uid(ids()?)),
        0x40 => of_first_thread(Kind::Gid(ids()?)),
        // SID: process_pid, process_tgid.
        0x80 => of_first_thread(Kind::Sid),
        // COMM: process_pid, process_tgid, comm[16].
        0x200 => {
            let name = data.get(8..24).ok_or(Undecodable::Short)?;
            of_first_thread(Kind::Comm(Comm::new(name)))
        }
        // EXIT: process_pid, process_tgid, exit_code, exit_signal, parent_pid, parent_tgid.
        0x8000_0000 => Ok(Some((pid(1)?, Kind::Exit { task: pid(0)?, status: word(2)? }))),
        // PTRACE 0x100, COREDUMP 0x40000000, and what is to come.
        _ => Ok(None),
    }
}

/// What one asks the connector for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// `PROC_CN_MCAST_LISTEN`: events, from now on.
    Listen = 1,
    /// `PROC_CN_MCAST_IGNORE`: no more of them.
    Ignore = 2,
}

/// The datagram that asks.
pub fn request(operation: Operation, port: u32, sequence: u32, acknowledge: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(40);
    let length = (NETLINK_HEADER + CONNECTOR_HEADER + 4) as u32;
    bytes.extend(length.to_ne_bytes());
    bytes.extend([DONE, 0].iter().flat_map(|half| half.to_ne_bytes()));
    bytes.extend([0, port, PROC, PROC, sequence, acknowledge].iter().flat_map(|word| word.to_ne_bytes()));
    bytes.extend([4u16, 0].iter().flat_map(|half| half.to_ne_bytes()));
    bytes.extend((operation as u32).to_ne_bytes());
    bytes
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes from hexadecimal digits, white space ignored. All golden bytes are of a little-endian machine.
    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let pairs = digits.chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
        pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
    }

    //                       nlmsg_len type flags seq      pid       idx      val      seq      ack      len  flags
    const HEADERS: &str =
        "4c000000 0300 0000 01000000 00000000  01000000 01000000 01000000 00000000 2800 0000 ";

    /// As received on Linux 6.18: the event (what, cpu, timestamp_ns, union) decodes to `expected`.
    #[track_caller]
    fn check(event: &str, expected: Option<(u32, Kind)>) {
        let message = decode(&bytes(&format!("{HEADERS}{event}")), Some(0)).unwrap();
        let Message::Event { cpu: 1, sequence: 1, change } = message else { panic!("{message:?}") };
        let time = Time(0x0405_f1ef_4064);
        let expected = expected.map(|(pid, what)| Change { time, process: Pid::new(pid).unwrap(), what });
        assert_eq!(change, expected);
    }

    fn pid(number: u32) -> Pid {
        Pid::new(number).unwrap()
    }

    #[test]
    fn golden_events() {
        let ids = Ids { real: 1000, effective: 0 };
        //     what     cpu      timestamp_ns      union
        check(
            "01000000 01000000 6440eff105040000 7a280000 7a280000 a3280000 a3280000 00000000 00000000",
            Some((0x28a3, Kind::Fork { parent: Some(pid(0x287a)) })),
        );
        check(
            "01000000 01000000 6440eff105040000 7a280000 7a280000 a4280000 a3280000 00000000 00000000",
            Some((0x28a3, Kind::Thread { task: pid(0x28a4) })),
        );
        check(
            "02000000 01000000 6440eff105040000 a3280000 a3280000 00000000 00000000 00000000 00000000",
            Some((0x28a3, Kind::Exec { comm: None })),
        );
        check(
            "04000000 01000000 6440eff105040000 a3280000 a3280000 e8030000 00000000 00000000 00000000",
            Some((0x28a3, Kind::Uid(ids))),
        );
        check(
            "40000000 01000000 6440eff105040000 a3280000 a3280000 e8030000 00000000 00000000 00000000",
            Some((0x28a3, Kind::Gid(ids))),
        );
        check(
            "80000000 01000000 6440eff105040000 a3280000 a3280000 00000000 00000000 00000000 00000000",
            Some((0x28a3, Kind::Sid)),
        );
        check(
            "00020000 01000000 6440eff105040000 a3280000 a3280000 736c6565 70000000 00000000 00000000",
            Some((0x28a3, Kind::Comm(Comm::new(b"sleep")))),
        );
        check(
            "00000080 01000000 6440eff105040000 5f280000 5d280000 00000000 ffffffff 00000000 00000000",
            Some((0x285d, Kind::Exit { task: pid(0x285f), status: 0 })),
        );
        check(
            "00000080 01000000 6440eff105040000 a3280000 a3280000 00030000 11000000 7a280000 7a280000",
            Some((0x28a3, Kind::Exit { task: pid(0x28a3), status: 0x300 })),
        );
    }

    #[test]
    fn what_does_not_concern_the_process_is_an_event_without_a_change() {
        // PTRACE; COREDUMP; the name and the user of another thread; an event of the future.
        for (what, task) in [
            ("00010000", "a3"),
            ("00000040", "a3"),
            ("00020000", "a4"),
            ("04000000", "a4"),
            ("00000800", "a3"),
        ] {
            check(
                &format!(
                    "{what} 01000000 6440eff105040000 {task}280000 a3280000 00000000 00000000 00000000 00000000"
                ),
                None,
            );
        }
    }

    #[test]
    fn the_answer_to_a_request_is_told_from_events() {
        // Linux 6.18: numbered like an event.
        let answer = "4c000000 0300 0000 42b80900 00000000 01000000 01000000 42b80900 08000000 2800 0000
                      00000000 00000000 963c7ca750060000 00000000 00000000 00000000 00000000 00000000 00000000";
        assert_eq!(
            decode(&bytes(answer), Some(0)),
            Ok(Message::Answer { cpu: 0, sequence: 0x9b842, acknowledge: 8, errno: 0 })
        );
        let answer = "4c000000 0300 0000 00000000 00000000 01000000 01000000 05000000 07000000 2800 0000
                      00000000 ffffffff 0000000000000000 01000000 00000000 00000000 00000000 00000000 00000000";
        assert_eq!(
            decode(&bytes(answer), Some(0)),
            Ok(Message::Answer { cpu: u32::MAX, sequence: 5, acknowledge: 7, errno: 1 })
        );
    }

    #[test]
    fn only_the_kernel_is_believed() {
        let event = format!("{HEADERS} 02000000 01000000 6440eff105040000 {}", "a3280000".repeat(6));
        assert_eq!(decode(&bytes(&event), Some(4711)), Err(Rejected::Forged(4711)));
        assert_eq!(decode(&bytes(&event), None), Err(Rejected::Foreign));
        assert!(decode(&bytes(&event), Some(0)).is_ok());
    }

    #[test]
    fn what_is_cut_short_or_foreign_is_rejected() {
        let event = bytes(&format!("{HEADERS} 01000000 01000000 6440eff105040000 {}", "a3280000".repeat(6)));
        for cut in 0..event.len() {
            assert_eq!(decode(&event[..cut], Some(0)), Err(Rejected::Short(cut)));
        }
        for (at, value) in [(4, 2), (16, 2), (20, 2)] {
            let mut foreign = event.clone();
            foreign[at] = value;
            assert_eq!(decode(&foreign, Some(0)), Err(Rejected::Foreign), "byte {at}");
        }
        let mut nobody = event.clone();
        nobody[64..68].fill(0);
        assert_eq!(decode(&nobody, Some(0)), Err(Rejected::NoProcess));
        for length in [0, 15, 77, u32::MAX] {
            let mut wrong = event.clone();
            wrong[..4].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(decode(&wrong, Some(0)), Err(Rejected::Short(76)), "nlmsg_len {length}");
        }
    }

    #[test]
    fn the_request_is_what_the_kernel_wants() {
        let golden =
            "28000000 0300 0000 00000000 11000000  01000000 01000000 05000000 06000000 0400 0000  01000000";
        assert_eq!(request(Operation::Listen, 0x11, 5, 6), bytes(golden));
    }

    proptest! {
        #[test]
        fn rubbish_is_never_an_event(bytes in prop::collection::vec(any::<u8>(), 0..300), sender in any::<Option<u32>>()) {
            // 16 bytes would have to be right by chance.
            prop_assert!(decode(&bytes, sender).is_err());
        }

        #[test]
        fn damage_never_panics_and_never_yields_process_0(
            event in prop::collection::vec(any::<u8>(), 40),
            what in prop::sample::select(vec![0u32, 1, 2, 4, 0x40, 0x80, 0x200, 0x8000_0000]),
            cut in 0usize..=76,
            (at, value) in (0usize..76, any::<u8>()),
        ) {
            let mut datagram = bytes(HEADERS);
            datagram.extend(what.to_ne_bytes());
            datagram.extend(&event[4..]);
            datagram[at] = value;
            if let Ok(Message::Event { change: Some(change), .. }) = decode(&datagram[..cut], Some(0)) {
                prop_assert!(cut == 76 || at < 18, "{change:?}");
            }
        }
    }
}
