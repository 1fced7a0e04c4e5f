//! net_prio: the priority of a group's packets, by interface.

use pinfold_model::{Hook, Instruction, Key, Slot, Value};

use crate::bpf::{self, EXIT, R0, R2, R3};
use crate::number::{c_string, is_space};
use crate::sight::Sight;
use crate::table::{
    AtRoot, Blank, Carry, Change, Controller, File, Inherit, Needs, Place, Read, RoundTrip, Setting, Source,
    Unaided, Unit, Write, Writer,
};
use crate::write::WriteError;

/// The priorities that are not 0: `INDEX PRIORITY` each, with commas between. An interface is its index and not its
/// name, as in the kernel: a new one does not get the priority of one that is gone.
static MAP: Setting = Setting {
    key: Key("net_prio.ifpriomap"),
    initial: Value::Text(Vec::new()),
    inherit: Inherit::Parent,
    carry: Carry::Program {
        slot: Slot { hook: Hook::Egress, name: "pinfold_netprio" },
        code: |value| program(&map_of(value)),
        unlike: "for IPv4 and IPv6, and by the interface's number in whichever network namespace",
    },
};

/// The network interfaces, `INDEX NAME` a line, in the kernel's order.
const INTERFACES: Source = Source::Machine("interfaces");

/// The longest name that is read: IFNAMSIZ, as the kernel's own format string has it.
const LONGEST_NAME: usize = 16;

/// The net_prio controller.
pub(crate) static NET_PRIO: Controller = Controller {
    name: "net_prio",
    about: "Gives the packets of a group a priority, for each network interface its own.",
    source: "Documentation/admin-guide/cgroup-v1/net_prio.rst; net/core/netprio_cgroup.c",
    needs: Needs::Program,
    unaided: Unaided::Refused("only a program in a v2 directory sees whose packets they are"),
    files: &[
        File {
            name: "prioidx",
            place: Place::Everywhere,
            unit: Unit::Number,
            read: Read::Shown { from: &[], show: |sight| format!("{}\n", index(sight)).into_bytes() },
            write: Write::Refused,
            writer: Writer::Permitted,
            longest: File::LONGEST,
            setting: None,
            function: "read_prioidx()",
            about: "The group's number in the kernel's table; 1 for the root.",
            takes: "",
            errors: "",
            v2: "A number of pinfold's own.",
            differs: "A number is never used again.",
            round_trip: RoundTrip::NotApplicable,
            at_root: AtRoot::Alike,
            blank: Blank::Junk,
            instead: None,
        },
        File {
            name: "ifpriomap",
            place: Place::Everywhere,
            unit: Unit::Number,
            read: Read::Shown { from: &[INTERFACES], show: show_map },
            write: Write::Parsed(write_map),
            writer: Writer::Permitted,
            longest: File::LONGEST,
            setting: Some(&MAP),
            function: "read_priomap(), write_priomap()",
            about: "The priority of packets that go out through each interface, a line each: its name and the number. 0 \
                    is none.",
            takes: "A name and a decimal number, of which the last 32 bits are kept; white space before each. What \
                    follows is not looked at.",
            errors: "EINVAL: not of that form. ENODEV: no such interface.",
            v2: "A BPF program in the v2 directories of the group's processes. A packet that leaves a socket made there \
                 gets the priority of its interface, just before its queueing discipline, if it has none (SO_PRIORITY).",
            differs: "The interfaces are those that the daemon sees; one of another network namespace that has the \
                      same number counts as the same. Other packets than IPv4's and IPv6's get none. A socket stays \
                      with the group in which it was made, also when its process is moved, unless the whole v2 directory \
                      changed its group with its only process. The map of a root group is \
                      what its children start with, and no more.",
            round_trip: RoundTrip::Exact,
            at_root: AtRoot::Alike,
            blank: Blank::Junk,
            instead: None,
        },
    ],
    counters: &[],
    can_attach: Controller::anybody,
};

/// An interface and the priority of packets that go out there.
#[derive(Clone, Copy)]
struct Entry {
    interface: u32,
    priority: u32,
}

fn map_of(value: &Value) -> Vec<Entry> {
    let Value::Text(text) = value else { return Vec::new() };
    let text = String::from_utf8_lossy(text);
    let entry = |entry: &str| {
        let (interface, priority) = entry.split_once(' ')?;
        Some(Entry { interface: interface.parse().ok()?, priority: priority.parse().ok()? })
    };
    text.split(',').filter_map(entry).collect()
}

fn print(map: &[Entry]) -> Vec<u8> {
    let words: Vec<_> = map.iter().map(|entry| format!("{} {}", entry.interface, entry.priority)).collect();
    words.join(",").into_bytes()
}

/// The root's is 1 in every hierarchy of the kernel's.
fn index(sight: &Sight<'_>) -> u64 {
    if sight.is_root() { 1 } else { u64::from(sight.group.get()) + 1 }
}

/// Index and name of each interface.
fn interfaces<'a>(sight: &Sight<'a>) -> impl Iterator<Item = (u32, &'a str)> {
    let lines = sight.v2.of(INTERFACES).flat_map(str::lines);
    lines
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(index, name)| Some((index.parse().ok()?, name)))
}

fn show_map(sight: &Sight<'_>) -> Vec<u8> {
    let map = map_of(sight.own(&MAP));
    let priority =
        |index| map.iter().find(|entry| entry.interface == index).map_or(0, |entry| entry.priority);
    let lines = interfaces(sight).map(|(index, name)| format!("{name} {}\n", priority(index)));
    lines.collect::<String>().into_bytes()
}

fn write_map(sight: &Sight<'_>, data: &[u8]) -> Result<Change, WriteError> {
    let text = c_string(data);
    let (name, priority) =
        scan(text).ok_or_else(|| WriteError::syntax(text, "the name of an interface and a number"))?;
    let found = interfaces(sight).find(|(_, known)| known.as_bytes() == name);
    let (interface, _) =
        found.ok_or_else(|| WriteError::NoInterface(String::from_utf8_lossy(name).into_owned()))?;
    let mut map = map_of(sight.own(&MAP));
    map.retain(|entry| entry.interface != interface);
    if priority != 0 {
        map.push(Entry { interface, priority });
    }
    Ok(Change::keep(sight, &MAP, Value::Text(print(&map))))
}

/// sscanf("%16s %u"): a number too large wraps.
fn scan(text: &[u8]) -> Option<(&[u8], u32)> {
    let text = skip_spaces(text);
    let length = text.iter().take(LONGEST_NAME).take_while(|byte| !is_space(**byte)).count();
    let (name, rest) = text.split_at(length);
    let digits = skip_spaces(rest).iter().map_while(|byte| char::from(*byte).to_digit(10));
    let number = digits.fold(None, |number: Option<u32>, digit| {
        Some(number.unwrap_or(0).wrapping_mul(10).wrapping_add(digit))
    });
    Some((name, number?))
}

fn skip_spaces(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|byte| !is_space(*byte)).unwrap_or(text.len());
    &text[start..]
}

/// Lets every packet pass, with the priority of its interface if it has none; `None` if no interface has one.
fn program(map: &[Entry]) -> Option<Vec<Instruction>> {
    if map.is_empty() {
        return None;
    }
    let pass = [bpf::set(R0, bpf::PACKET_PASSES), EXIT];
    let mut code = vec![bpf::load(R2, bpf::PACKET_PRIORITY), bpf::if_equal(R2, 0, 2)];
    code.extend(pass);
    for Entry { interface, priority } in map {
        // Loaded anew for each: then the kernel checks each once.
        code.extend([bpf::load(R3, bpf::PACKET_INTERFACE), bpf::unless_equal(R3, *interface, 2)]);
        code.extend([bpf::set(R2, *priority), bpf::store(bpf::PACKET_PRIORITY, R2)]);
    }
    code.extend(pass);
    Some(code)
}
