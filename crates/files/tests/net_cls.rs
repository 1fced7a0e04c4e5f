//! net_cls.rst and net/core/netclassid_cgroup.c. What the kernel said to each write is in differential/expected/net_cls.v1.

use crate::bpf::sent;
use crate::stage::{Stage, check};

#[test]
fn a_number_keeps_its_last_32_bits_and_a_child_starts_with_its_parents() {
    check(
        r"
        mkdir /a
        /a/net_cls.classid = 0\n
        /a/net_cls.classid < 0x00100002\n = ok
        /a/net_cls.classid = 1048578\n
        mkdir /a/b
        /a/net_cls.classid < 0x100000001 = ok
        /a/net_cls.classid = 1\n
        /a/b/net_cls.classid = 1048578\n
        /a/net_cls.classid < 4294967296 = ok
        /a/net_cls.classid = 0\n
        /a/net_cls.classid < 18446744073709551616 = ERANGE
        /a/net_cls.classid < 10:1 = EINVAL
        /a/net_cls.classid < \s7 = EINVAL
        ",
    );
}

#[test]
fn a_packet_without_a_mark_gets_the_number_and_passes() {
    let mut stage = Stage::new();
    stage.mkdir("/a");
    let sent = |stage: &Stage, mark| sent(stage, "/a", "net_cls.classid", [mark, 3, 1]);
    assert_eq!(sent(&stage, 0), [0, 3]);
    stage.write("/a/net_cls.classid", b"0xfffffff2");
    assert_eq!(sent(&stage, 0), [0xffff_fff2, 3]);
    assert_eq!(sent(&stage, 7), [7, 3]);
    stage.write("/a/net_cls.classid", b"0");
    assert_eq!(sent(&stage, 0), [0, 3]);
}
