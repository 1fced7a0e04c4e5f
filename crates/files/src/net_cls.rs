//! net_cls: a number that a group's packets carry, by which they are classified.

use pinfold_model::{Hook, Instruction, Key, Slot, Value};

use crate::bpf::{self, EXIT, R0, R2};
use crate::sight::Sight;
use crate::table::{
    AtRoot, Blank, Carry, Change, Controller, File, Inherit, Needs, Place, Read, RoundTrip, Setting, Unaided,
    Unit, Write, Writer,
};
use crate::write::{WriteError, parse_u64};

static CLASSID: Setting = Setting {
    key: Key("net_cls.classid"),
    initial: Value::Number(0),
    inherit: Inherit::Parent,
    carry: Carry::Program {
        slot: Slot { hook: Hook::Egress, name: "pinfold_net_cls" },
        code: |value| program(number(value)),
        unlike: "as the mark of packets, which tc's filter fw sees and its filter cgroup does not",
    },
};

/// The net_cls controller.
pub(crate) static NET_CLS: Controller = Controller {
    name: "net_cls",
    about: "Gives the packets of a group a number, by which queueing disciplines and packet filters tell them apart.",
    source: "Documentation/admin-guide/cgroup-v1/net_cls.rst; net/core/netclassid_cgroup.c",
    needs: Needs::Program,
    unaided: Unaided::Refused("only a program in a v2 directory sees whose packets they are"),
    files: &[File {
        name: "classid",
        place: Place::Everywhere,
        unit: Unit::Number,
        read: Read::Shown {
            from: &[],
            show: |sight| format!("{}\n", number(sight.own(&CLASSID))).into_bytes(),
        },
        write: Write::Parsed(write_classid),
        writer: Writer::Permitted,
        longest: File::LONGEST,
        setting: Some(&CLASSID),
        function: "read_classid(), write_classid()",
        about: "The number: as tc writes a class, 0xAAAABBBB is AAAA:BBBB. 0 is none.",
        takes: "A number, of which the last 32 bits are kept. No white space but one newline.",
        errors: "EINVAL: not a number. ERANGE: more than 64 bits.",
        v2: "A BPF program in the v2 directories of the group's processes. Each IPv4 or IPv6 packet that leaves a socket \
             made there gets the number as its mark, just before its queueing discipline; also from sockets that were \
             there when the number changed.",
        differs: "tc's filter `cgroup` and the packet filter's matches of that name do not see it. `tc filter add dev DEV \
                  parent AAAA: protocol all fw`, without a handle, sends a packet into the class that its mark names, as \
                  the filter `cgroup` does; the packet filter's chains come before. A packet that has a mark (SO_MARK, a \
                  packet filter's) keeps that. A socket stays with the group in which it was made, also when its process \
                  is moved, unless the whole v2 directory changed its group with its only process. The number of a root group is what its children start with, and no more.",
        round_trip: RoundTrip::Exact,
        at_root: AtRoot::Alike,
        blank: Blank::Junk,
        instead: None,
    }],
    counters: &[],
    can_attach: Controller::anybody,
};

fn number(value: &Value) -> u32 {
    u32::try_from(crate::values::number(value)).unwrap_or(0)
}

fn write_classid(sight: &Sight<'_>, data: &[u8]) -> Result<Change, WriteError> {
    let kept = parse_u64(data)? & u64::from(u32::MAX);
    Ok(Change::keep(sight, &CLASSID, Value::Number(kept)))
}

/// Lets every packet pass, with this mark if it has none; `None` for 0.
fn program(classid: u32) -> Option<Vec<Instruction>> {
    let code = [
        bpf::load(R2, bpf::PACKET_MARK),
        bpf::unless_equal(R2, 0, 2),
        bpf::set(R2, classid),
        bpf::store(bpf::PACKET_MARK, R2),
        bpf::set(R0, bpf::PACKET_PASSES),
        EXIT,
    ];
    (classid != 0).then(|| code.to_vec())
}
