//! net_cls and net_prio: packets that leave a group, counted by the classes that they end in, on the loopback interface of a
//! network namespace of the test's own.

use crate::crossing::serve;
use crate::daemon::{Daemon, has_programs, text};

/// Runs a script in the mount, with two classes, 10:1 and 10:2, on `lo`; how many packets each of them got.
///
/// In it, `send` sends a packet from a new socket, and `open N` makes a socket that `send N` sends one from.
fn packets(daemon: &Daemon, script: &str) -> String {
    const BEFORE: &str = r#"
        set -e
        PATH=$PATH:/usr/sbin:/sbin
        ip link set lo up
        tc qdisc add dev lo root handle 10: htb
        tc class add dev lo parent 10: classid 10:1 htb rate 1gbit
        tc class add dev lo parent 10: classid 10:2 htb rate 1gbit
        by_mark() {
            # The second, for a kernel without the first: classic BPF that gives the mark as the class.
            tc filter add dev lo parent 10: protocol all fw 2>/dev/null ||
                tc filter add dev lo parent 10: protocol all bpf bytecode "2,32 0 0 4294963220,22 0 0 0"
        }
        open() { eval "exec $1<>/dev/udp/127.0.0.1/9"; }
        send() { if [ $# = 0 ]; then echo >/dev/udp/127.0.0.1/9; else eval "echo >&$1"; fi; }
        cd "$0"
    "#;
    const AFTER: &str = r"
        for class in 1 2; do
            tc -s class show dev lo classid 10:$class | sed -n 's/.* bytes \([0-9]*\) pkt.*/\1/p'
        done";
    let script = format!("{BEFORE}{script}{AFTER}");
    let mut command = daemon.command("unshare");
    let output = command.args(["--net", "bash", "-c", &script]).arg(daemon.path("cg")).output();
    let output = output.expect("timeout runs");
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).replace('\n', " ").trim_end().to_owned()
}

#[test]
fn packets_of_a_group_are_in_the_class_that_its_number_names() {
    let Some(mut daemon) = Daemon::serving_with_programs("net_cls:cg") else { return };
    let counted = packets(
        &daemon,
        r"
        by_mark
        mkdir a
        echo $$ >a/tasks
        send                                # no number yet
        echo 0x100001 >a/net_cls.classid
        open 5
        echo 0x100002 >a/net_cls.classid
        send 5                              # a socket that was there before: 10:2
        send                                # 10:2
        mkdir a/b
        echo $$ >a/b/tasks
        send                                # as its parent: 10:2
        echo 0x100001 >a/b/net_cls.classid
        send                                # 10:1
        echo 0 >a/b/net_cls.classid
        send                                # none, though the group above has one
        ",
    );
    assert_eq!(counted, "1 3");
    let status = daemon.ok(&["status", "/a"]);
    assert!(status.contains("tc's filter fw"), "{status}");
    daemon.down();
}

#[test]
fn packets_of_a_group_have_the_priority_of_their_interface() {
    let Some(mut daemon) = Daemon::serving_with_programs("net_cls,net_prio:cg") else { return };
    let counted = packets(
        &daemon,
        r"
        mkdir a
        echo $$ >a/tasks
        sleep 600 & stays=$!                # so that the cell stays behind, and its sockets with it
        send                                # no priority yet
        echo lo $((0x100001)) >a/net_prio.ifpriomap
        echo 7 >a/net_cls.classid           # a program beside the other
        open 5
        send                                # a priority that is a class: 10:1
        mkdir a/b
        echo $$ >a/b/tasks
        send                                # as its parent: 10:1
        echo lo $((0x100002)) >a/b/net_prio.ifpriomap
        send                                # 10:2
        send 5                              # a socket stays where it was made: 10:1
        echo lo 0 >a/b/net_prio.ifpriomap
        send                                # none
        kill $stays
        ",
    );
    assert_eq!(counted, "3 1");
    assert!(daemon.read("cg/a/net_prio.ifpriomap").lines().any(|line| line == "lo 1048577"));
    daemon.down();
}

/// The same number is in each of a group's directories, whoever else is in them.
#[test]
fn packets_of_groups_that_cross_others_are_in_the_class_of_their_own() {
    if !has_programs() {
        return;
    }
    let Some(mut daemon) = Daemon::new() else { return };
    serve(&mut daemon, &[("net_cls", "cg"), ("none,name=crossing", "named")], &[]);
    let counted = packets(
        &daemon,
        r"
        by_mark
        mkdir c d ../named/a ../named/b
        echo 0x100001 >c/net_cls.classid
        echo 0x100002 >d/net_cls.classid
        for cell in a/c a/d b/c b/d b/d; do
            (echo $BASHPID >../named/${cell%/*}/tasks; echo $BASHPID >${cell#*/}/tasks; send)
        done
        ",
    );
    assert_eq!(counted, "2 3");
    daemon.down();
}
