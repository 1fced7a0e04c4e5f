//! Clients of cgroup v1 from Debian on pinfold: libcgroup's tools and two OCI runtimes. What each needs: docs/clients.md.

use std::path::Path;
use std::time::Duration;

use crate::daemon::{BINARY, Daemon, eventually, in_guest, text};
use serde_json::json;

/// The directory of `see-v1`, which covers what /proc says about the hierarchies.
const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/old_clients");

/// How long a script of many processes may take, where each takes a tenth of a second to start.
const MANY: Duration = Duration::from_secs(240);

/// A realm without mounts in the guest, which has all the clients: CI installs them.
fn realm_for(client: &str) -> Option<Daemon> {
    if !in_guest() {
        return None;
    }
    let is_there = |dir: &str| Path::new(dir).join(client).exists();
    assert!(["/usr/bin", "/usr/sbin"].iter().any(|dir| is_there(dir)), "{client} is not installed");
    Daemon::serving("")
}

/// What a script prints in the daemon's mount namespace, with `pinfold` and `see-v1` at hand.
fn output(daemon: &Daemon, script: &str) -> String {
    let bin = Path::new(BINARY).parent().expect("a file").display();
    let script = format!("export PATH='{bin}:{HERE}':$PATH; {script}");
    let output = daemon.script_within(MANY, &script);
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn libcgroups_tools_answer_as_on_kernel_v1() {
    let Some(mut daemon) = realm_for("cgcreate") else { return };
    output(
        &daemon,
        "for c in cpu,cpuacct memory pids freezer; do mkdir -p v1/${c%,*}; pinfold mount -o $c v1/${c%,*}; done",
    );
    std::fs::write(daemon.dir.join("cgconfig.conf"), CONFIGURATION).expect("an own directory");
    let lines = TOOLS.lines().filter(|line| line.starts_with("$ ")).map(|line| line.to_owned() + "\n");
    std::fs::write(daemon.dir.join("lines"), lines.collect::<String>()).expect("an own directory");
    // What asks no /proc is shown none of ours.
    let play = r#"
        sleep 600 & SLEEPER=$!
        export SEE_V1=$PWD/shown
        while read -r prompt line; do
            echo "$prompt $line"
            case $line in stat*|grep*) ;; *) line="see-v1 $line" ;; esac
            eval "$line" 2>&1 </dev/null
            status=$?; [ $status = 0 ] || echo "= $status"
        done <lines
        kill $SLEEPER"#;
    let said = output(&daemon, play);
    assert_eq!(said.replace(&format!("{}/", daemon.dir.display()), ""), TOOLS);
    daemon.down();
}

const CONFIGURATION: &str = "\
group web {
    perm { task { uid = lp; gid = lp; } admin { uid = root; gid = root; } }
    memory { memory.limit_in_bytes = 32M; }
    cpu { cpu.shares = 200; cpu.cfs_quota_us = 20000; }
}
";

/// What libcgroup 2.0.2 says, on kernel v1 as on pinfold; `=`: its exit status, if that is not 0. lssubsys fails where a
/// controller is not mounted, and cgdelete takes the first of what it is told.
const TOOLS: &str = "\
$ lssubsys -m memory
= 82
$ cgcreate -t lp:lp -a mail:mail -g memory,cpu,pids:/jobs -g freezer:/jobs/one
$ stat -c '%n %u %a' v1/memory/jobs v1/memory/jobs/tasks v1/memory/jobs/memory.limit_in_bytes
v1/memory/jobs 8 755
v1/memory/jobs/tasks 7 644
v1/memory/jobs/memory.limit_in_bytes 8 644
$ lscgroup
cpu,cpuacct:/
cpu,cpuacct:/jobs
memory:/
memory:/jobs
pids:/
pids:/jobs
freezer:/
freezer:/jobs
freezer:/jobs/one
$ cgset -r memory.limit_in_bytes=32M -r cpu.shares=512 -r pids.max=9 jobs
$ cgget -r memory.limit_in_bytes -r cpu.shares -r pids.max jobs
jobs:
memory.limit_in_bytes: 33554432
cpu.shares: 512
pids.max: 9

$ cgset -r cpu.shares=nonsense jobs
cgset: cgroup modify error: Invalid argument 
= 96
$ cgset -r memory.nonsense=1 jobs
cgset: cgroup modify error: Cgroup, requested group parameter does not exist 
= 95
$ cgset -r freezer.state=FROZEN jobs/one
$ cgget -n -v -r freezer.state jobs/one
FROZEN
$ cgset -r freezer.state=THAWED jobs/one
$ cgexec -g memory,pids:jobs cat v1/pids/jobs/pids.current
1
$ cgexec -g memory:jobs sh -c 'dd if=/dev/zero of=/dev/null bs=64M count=1; echo $?' 2>/dev/null
137
$ cgexec -g memory:nowhere true
cgroup change of group failed
= 82
$ cgclassify -g memory,pids:jobs $SLEEPER
$ grep -c $SLEEPER v1/memory/jobs/tasks v1/pids/jobs/cgroup.procs
v1/memory/jobs/tasks:1
v1/pids/jobs/cgroup.procs:1
$ cgdelete memory:jobs
$ grep -c $SLEEPER v1/memory/tasks
1
$ cgdelete -r -g cpu,pids:/jobs -g freezer:/jobs
$ cgconfigparser -l cgconfig.conf
$ cgget -n -v -r memory.limit_in_bytes -r cpu.shares -r cpu.cfs_quota_us web
33554432
200
20000
$ stat -c '%n %u' v1/memory/web/tasks v1/memory/web
v1/memory/web/tasks 7
v1/memory/web 0
$ lscgroup
cpu,cpuacct:/
cpu,cpuacct:/web
memory:/
memory:/web
pids:/
pids:/jobs
freezer:/
freezer:/jobs
freezer:/jobs/one
";

/// A container that tries to take more memory than it may have, and then to have 60 processes.
const GREEDY: &str = "dd if=/dev/zero of=/dev/null bs=128M count=1 2>/dev/null; echo dd $?; \
    i=0; while [ $i -lt 60 ]; do sleep 60 & i=$((i+1)); done 2>/dev/null; echo all of them";

/// Makes a bundle of busybox in `bundle`, whose `linux` section has this beside its namespaces.
fn bundle(daemon: &Daemon, mut linux: serde_json::Value) {
    let made = output(daemon, "mkdir -p bundle/rootfs/{bin,dev,proc} && cp /bin/busybox bundle/rootfs/bin");
    assert_eq!(made, "");
    let kinds = ["pid", "mount", "ipc", "uts"].map(|kind| json!({ "type": kind }));
    linux["namespaces"] = json!(kinds);
    let config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": ["/bin/busybox", "sh", "-c", GREEDY.replace("dd if", "busybox dd if").replace("sleep", "busybox sleep")],
            "env": ["PATH=/bin"],
            "cwd": "/",
        },
        "root": { "path": "rootfs" },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs" },
        ],
        "linux": linux,
    });
    std::fs::write(daemon.dir.join("bundle/config.json"), config.to_string()).expect("an own directory");
}

/// Mounts v1 where runtimes have it: they take what is at /sys/fs/cgroup for v1 if it is a tmpfs.
fn mount_where_runtimes_look(daemon: &Daemon) {
    let said = output(
        daemon,
        "mount -t tmpfs cgroup /sys/fs/cgroup && cd /sys/fs/cgroup && \
         for c in cpu,cpuacct memory pids freezer devices blkio cpuset; do mkdir $c; pinfold mount -o $c $c; done && \
         mkdir systemd && pinfold mount -o none,name=systemd systemd && ln -s cpu,cpuacct cpu && ln -s cpu,cpuacct cpuacct",
    );
    assert_eq!(said, "");
}

#[test]
fn crun_makes_a_container_in_v1_groups_whose_limits_bind_it() {
    let Some(mut daemon) = realm_for("crun") else { return };
    mount_where_runtimes_look(&daemon);
    bundle(
        &daemon,
        json!({
            "cgroupsPath": "/oci/one",
            "resources": {
                "memory": { "limit": 32 << 20 },
                "pids": { "limit": 9 },
                "cpu": { "shares": 512, "quota": 50000, "period": 100000 },
                "devices": [
                    { "allow": false, "access": "rwm" },
                    { "allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw" },
                ],
            },
        }),
    );
    let crun = |command: &str| {
        output(&daemon, &format!("SEE_V1=$PWD/shown see-v1 crun --cgroup-manager=cgroupfs {command}"))
    };
    crun("create --bundle bundle one >said 2>&1 </dev/null");
    assert_eq!(daemon.read("said"), "", "{}", daemon.log());
    let files = "memory/oci/one/memory.limit_in_bytes pids/oci/one/pids.max cpu/oci/one/cpu.shares \
                 cpu/oci/one/cpu.cfs_quota_us devices/oci/one/devices.list freezer/oci/one/freezer.state";
    let values =
        output(&daemon, &format!("cd /sys/fs/cgroup; cat {files}; wc -l <pids/oci/one/cgroup.procs"));
    // Beside the rule that it was given, crun allows what every container has.
    assert!(values.starts_with("33554432\n9\n512\n50000\n") && values.ends_with("THAWED\n1\n"), "{values}");
    assert!(values.contains("\nc 1:3 rw") && !values.contains("a *:* rwm"), "{values}");
    let state = || output(&daemon, "cat /sys/fs/cgroup/freezer/oci/one/freezer.state");
    assert_eq!((crun("pause one"), state()), (String::new(), "FROZEN\n".to_owned()));
    assert_eq!((crun("resume one"), state()), (String::new(), "THAWED\n".to_owned()));
    assert_eq!(crun("update --pids-limit 11 one"), "");
    assert_eq!(output(&daemon, "cat /sys/fs/cgroup/pids/oci/one/pids.max"), "11\n");
    assert_eq!(crun("start one"), "");
    eventually("it has ended", || {
        daemon.read("said").contains("dd") && crun("state one").contains("stopped")
    });
    assert_eq!(daemon.read("said").lines().next(), Some("dd 137"), "{}", daemon.read("said"));
    assert!(!daemon.read("said").contains("all of them"));
    assert_eq!(crun("delete one"), "");
    assert_eq!(output(&daemon, "find /sys/fs/cgroup -name one"), "", "nothing stays");
    daemon.down();
}

/// A container whose own configuration limits nothing: runc makes its groups below those it runs in.
#[test]
fn runc_in_a_group_of_pinfold_run_is_bound_by_its_limits() {
    let Some(mut daemon) = realm_for("runc") else { return };
    mount_where_runtimes_look(&daemon);
    bundle(&daemon, json!({}));
    let run =
        "cd bundle && pinfold run pids.max=40 memory.limit_in_bytes=96M -- see-v1 runc run two </dev/null";
    let said = output(&daemon, run);
    assert_eq!(said.lines().next(), Some("dd 137"), "{said}\n{}", daemon.log());
    assert!(!said.contains("all of them"), "{said}");
    assert_eq!(daemon.ok(&["tree", "pids:/"]).lines().count(), 1, "nothing stays");
    daemon.down();
}
