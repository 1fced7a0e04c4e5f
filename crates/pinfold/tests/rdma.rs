//! rdma, enforced on a device: soft RoCE over a network interface that leads nowhere, whose contexts and protection domains the kernel
//! charges as any adapter's.

use std::process::Child;

use crate::crossing::{enforced, serve, start};
use crate::daemon::{self, Daemon, eventually, in_guest, text};

/// Opens so many contexts of the device, and makes so many protection domains; prints what came of each, by write(2) of
/// `ib_uverbs_get_context` and `ib_uverbs_alloc_pd`. With `again` what is refused is tried again, and all stays open.
const USES: &str = r#"
import array, errno, os, struct, sys, time
contexts, domains, again = int(sys.argv[1]), int(sys.argv[2]), 'again' in sys.argv
verbs = '/sys/class/infiniband_verbs'
names = [name for name in os.listdir(verbs) if name.startswith('uverbs')]
name, = [name for name in names if open(f'{verbs}/{name}/ibdev').read() == 'rxe0\n']
answer = array.array('I', [0] * 16)
def asked(descriptor, command):
    while True:
        try:
            os.write(descriptor, struct.pack('=IHHQ', command, 4, 2, answer.buffer_info()[0]))
            return 'ok'
        except OSError as error:
            if not again:
                return errno.errorcode[error.errno]
            time.sleep(0.01)
opened = [os.open(f'/dev/infiniband/{name}', os.O_RDWR) for _ in range(contexts)]
print(*[asked(descriptor, 0) for descriptor in opened])
print(*[asked(opened[0], 3) for _ in range(domains)], flush=True)
if again:
    time.sleep(600)
print(open(sys.argv[3]).read(), end='')
"#;

const MAKE: &str = "modprobe rdma_rxe && ip link add nowhere type dummy && ip link set nowhere up \
     && rdma link add rxe0 type rxe netdev nowhere";

/// A realm where there is a device.
fn with_device(mounts: &[(&str, &str)]) -> Option<Daemon> {
    if !in_guest() {
        return None;
    }
    let mut daemon = Daemon::new()?;
    let made = daemon.script(MAKE);
    assert!(made.status.success(), "the guest's kernel has rdma_rxe: {}", text(&made.stderr));
    std::fs::write(daemon.dir.join("uses.py"), USES).expect("a private directory");
    serve(&mut daemon, mounts, &[]);
    Some(daemon)
}

/// Takes the device away while the groups are there that had a limit: leaves of theirs are gone.
fn end(mut daemon: Daemon) {
    assert!(daemon.script("rdma link delete rxe0 && ip link delete nowhere").status.success());
    assert_eq!(daemon.script("cat */*/rdma.max").stdout, b"", "no device is left");
    daemon.down();
}

#[test]
fn contexts_and_objects_of_a_device_are_limited_in_a_group() {
    let Some(daemon) = with_device(&[("rdma", "cg")]) else { return };
    daemon.ok(&["create", "/a"]);
    daemon.ok(&["create", "/a/b"]);
    // As the kernel shows them, with a space at the end.
    assert_eq!(daemon.read("cg/a/rdma.max"), "rxe0 hca_handle=max hca_object=max \n");
    assert_eq!(daemon.read("cg/a/rdma.current"), "rxe0 hca_handle=0 hca_object=0 \n");
    for (written, errno) in [("rxe1 hca_handle=1", 19), ("rxe0 hca_handle=1 other=2", 22)] {
        let refused = daemon.write("cg/a/rdma.max", written).expect_err(written);
        assert_eq!(refused.raw_os_error(), Some(errno), "{written}");
    }
    daemon.write("cg/a/rdma.max", "rxe0 hca_object=3").expect("it is there");
    daemon.write("cg/a/rdma.max", "rxe0 hca_handle=2\n").expect("it is there");
    assert_eq!(daemon.read("cg/a/rdma.max"), "rxe0 hca_handle=2 hca_object=3 \n");
    assert_eq!(enforced(&daemon, "rdma:/a", "rdma.max"), "native");
    let (uses, current) = (daemon.dir.join("uses.py"), daemon.path("cg/a/rdma.current"));
    let outcome = |contexts: &str, domains: &str| {
        let mut command = daemon.command(daemon::BINARY);
        command.args(["exec", "-g", "/a/b", "--", daemon::PYTHON]).arg(&uses).args([contexts, domains]);
        let output = command.arg(&current).output().expect("timeout runs");
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    assert_eq!(
        outcome("4", "5"),
        "ok ok EAGAIN EAGAIN\nok ok ok EAGAIN EAGAIN\nrxe0 hca_handle=2 hca_object=3 \n"
    );
    daemon.write("cg/a/rdma.max", "rxe0 hca_handle=max").expect("it is there");
    assert_eq!(outcome("4", "1"), "ok ok ok ok\nok\nrxe0 hca_handle=4 hca_object=1 \n");
    eventually("all is closed", || daemon.read("cg/a/rdma.current") == "rxe0 hca_handle=0 hca_object=0 \n");
    end(daemon);
}

#[test]
fn contexts_of_crossing_groups_are_limited_together_and_a_lone_user_gets_all() {
    let Some(daemon) = with_device(&[("memory", "m"), ("rdma", "r")]) else { return };
    for group in ["memory:/a", "memory:/b", "rdma:/c"] {
        daemon.ok(&["create", group]);
    }
    daemon.write("r/c/rdma.max", "rxe0 hca_handle=8").expect("it is there");
    let used = || {
        let now = daemon.read("r/c/rdma.current");
        let handles = now.strip_prefix("rxe0 hca_handle=").and_then(|rest| rest.split(' ').next());
        let handles: u32 = handles.and_then(|handles| handles.parse().ok()).expect("a number");
        assert!(handles <= 8, "{now}");
        handles
    };
    let uses = |memory: &str, contexts: u32| -> Child {
        let script = format!("exec {} {}/uses.py {contexts} 0 again", daemon::PYTHON, daemon.dir.display());
        start(&daemon, &[memory, "rdma:/c"], &script)
    };
    let mut idle = start(&daemon, &["memory:/b", "rdma:/c"], "sleep 600; :");
    let mut greedy = uses("memory:/a", 12);
    eventually("a lone one has all", || used() == 8);
    assert_eq!(enforced(&daemon, "rdma:/c", "rdma.max"), "shared over 2 v2 directories");
    // Whoever comes now has to wait until something is given back.
    let mut late = uses("memory:/b", 4);
    eventually("it is there", || daemon.numbers("m/b/cgroup.procs").len() >= 3 && used() == 8);
    daemon.ok(&["kill", "memory:/a"]);
    greedy.wait().expect("timeout is our child");
    eventually("it has what it wants", || used() == 4);
    daemon.ok(&["kill", "memory:/b"]);
    for child in [&mut idle, &mut late] {
        child.wait().expect("timeout is our child");
    }
    end(daemon);
}
