//! net_prio.rst and net/core/netprio_cgroup.c. What the kernel said to each write is in differential/expected/net_prio.v1.

use crate::bpf::sent;
use crate::stage::{Stage, bytes, check};

const INTERFACES: &str = r"1\slo\n4\seth0\n";

#[test]
fn every_interface_has_its_line_in_the_kernels_order() {
    check(&format!(
        r"
        mkdir /a
        /a/net_prio.ifpriomap = ''
        v2 /a machine interfaces {INTERFACES}
        /a/net_prio.ifpriomap = lo\s0\neth0\s0\n
        /a/net_prio.ifpriomap < eth0\s5 = ok
        /a/net_prio.ifpriomap < lo\s4294967295\n = ok
        /a/net_prio.ifpriomap = lo\s4294967295\neth0\s5\n
        mkdir /a/b
        v2 /a/b machine interfaces 4\sether\n
        /a/b/net_prio.ifpriomap = ether\s5\n
        /a/b/net_prio.ifpriomap < ether\s0 = ok
        /a/b/net_prio.ifpriomap = ether\s0\n
        /a/net_prio.ifpriomap = lo\s4294967295\neth0\s5\n
        "
    ));
}

#[test]
fn a_line_is_read_as_sscanf_reads_it() {
    for (text, expected) in [
        (r"\xa0\tlo\s\n7x", r"7"),
        (r"lo\s0x10", r"0"),
        (r"lo\s010", r"10"),
        (r"lo\s4294967297", r"1"),
        (r"lo\s99999999999999999999999", r"4135583743"),
        (r"lo\s3\nlo\s4", r"3"),
        (r"lo\s2\x00\s3", r"2"),
    ] {
        check(&format!(
            "mkdir /a\nv2 /a machine interfaces {INTERFACES}\n/a/net_prio.ifpriomap < {text} = ok\n\
             /a/net_prio.ifpriomap = lo\\s{expected}\\neth0\\s0\\n"
        ));
    }
    let wrong = [r"lo", r"lo\s", r"lo5", r"lo\s-1", r"lo\s+1", r"\n", r"seventeen-letters\s5"];
    let unknown = [r"eth9\s5", r"sixteen-letters-\s5"];
    let all = wrong.map(|text| (text, "EINVAL")).into_iter().chain(unknown.map(|text| (text, "ENODEV")));
    for (text, errno) in all {
        check(&format!(
            "mkdir /a\nv2 /a machine interfaces {INTERFACES}\n/a/net_prio.ifpriomap < {text} = {errno}"
        ));
    }
}

#[test]
fn prioidx_tells_groups_apart_and_is_1_for_the_root() {
    let mut stage = Stage::new();
    stage.mkdir("/a");
    stage.mkdir("/b");
    let [root, a, b] = ["", "/a", "/b"].map(|path| stage.read(&format!("{path}/net_prio.prioidx")).unwrap());
    assert_eq!(root, b"1\n");
    assert!(a != b && a != root && b != root);
}

#[test]
fn a_packet_without_a_priority_gets_that_of_its_interface() {
    let mut stage = Stage::new();
    stage.mkdir("/a");
    stage.add_text("/a", "machine", "interfaces", &bytes(INTERFACES));
    let sent = |stage: &Stage, priority, interface| {
        sent(stage, "/a", "net_prio.ifpriomap", [9, priority, interface])
    };
    assert_eq!(sent(&stage, 0, 1), [9, 0]);
    stage.write("/a/net_prio.ifpriomap", b"lo 5");
    stage.write("/a/net_prio.ifpriomap", b"eth0 6");
    for (priority, interface, expected) in [(0, 1, 5), (0, 4, 6), (0, 2, 0), (3, 1, 3)] {
        assert_eq!(sent(&stage, priority, interface), [9, expected]);
    }
}
