//! What `restart` brings back and only a guest can show: memory and files, limits, the settings of every controller.

use crate::capturing::play;
use crate::daemon::{self, Daemon};

/// A shell that has a variable, an open file, and groups with limits that leave no room for one process more; and its child, in
/// another group. Then what fails late leaves nothing, and without `--detach` the shell is waited for.
const WITH_CRIU: &str = r#"
set -e
mkfifo fifo
setsid sh -c 'sleep 1000 & x=remembered; exec 3<>fifo; read line <&3; echo "$x $line" >out; read line <&3' </dev/null >/dev/null 2>&1 &
pid=$!
until [ -p /proc/$pid/fd/3 ]; do :; done
child=$(cat /proc/$pid/task/$pid/children)
child=${child% }
facts() {
    for each in $pid $child; do
        grep -E '^(PPid|NSpid|NSpgid|NSsid)' /proc/$each/status
        $PINFOLD proc cgroup $each
    done
}
gone() {
    until [ ! -e /proc/$pid ] && [ ! -e /proc/$child ]; do true & wait; done
}
$PINFOLD create /a
$PINFOLD create /b
$PINFOLD set /a pids.max=1 memory.limit_in_bytes=64m
$PINFOLD move $pid /a
$PINFOLD move $child /b
facts >before
mkdir images
if $PINFOLD capture --pid $pid --criu images 2>said; then exit 1; fi
grep -q 'others may look into it' said
rmdir images
$PINFOLD capture --pid $pid --criu images
[ "$(stat -c %a images)" = 700 ]
kill -9 $pid $child
gone
$PINFOLD rm /a
$PINFOLD rm /b
$PINFOLD restart --criu images --detach
facts >after
diff before after
[ $($PINFOLD get /a pids.max) = 1 ]
[ $($PINFOLD get /a memory.limit_in_bytes) = 67108864 ]
echo 'and goes on' >fifo
until [ -s out ]; do :; done
cat out
if $PINFOLD restart --criu images --detach 2>said; then exit 1; fi
grep -q 'criu failed' said
kill -9 $pid $child
gone
$PINFOLD rm /a
$PINFOLD rm /b
sed '/"pids.max"/{n;s/"1"/"none"/}' images/pinfold.json >x
cp images/pinfold.json kept
mv x images/pinfold.json
if $PINFOLD restart --criu images --detach 2>said; then exit 1; fi
grep -q 'pids.max' said
[ ! -e /proc/$pid ] && [ ! -e /proc/$child ]
if $PINFOLD ls /a 2>/dev/null; then exit 1; fi
mv kept images/pinfold.json
rm out
$PINFOLD restart --criu images &
restart=$!
echo again >fifo
until [ -s out ]; do :; done
kill -9 $pid $child
wait $restart || [ $? = 137 ]
"#;

#[test]
fn criu_brings_memory_and_files_back_into_the_same_groups() {
    if !daemon::in_guest() {
        return;
    }
    if !std::process::Command::new("criu").arg("check").status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: criu is not installed, or not for this kernel");
        return;
    }
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    assert_eq!(play(&daemon, WITH_CRIU), "remembered and goes on\n");
    daemon.down();
}

/// Limits that hold exactly the processes there were, and what each process sees of its groups when it begins to run. There
/// is no room for a process more: the shell reads by itself.
const EXACT: &str = r#"
set -e
sleep 1000 & one=$!
sleep 1000 & two=$!
$PINFOLD create /a
$PINFOLD set /a pids.max=2 memory.limit_in_bytes=64m
$PINFOLD move $one /a
$PINFOLD move $two /a
$PINFOLD capture /a -o file
$PINFOLD kill /a
wait
$PINFOLD rm /a
# Made anew; then into the group that is left, with its limit.
for group in new old; do
    rm -f born.*
    $PINFOLD restart file --detach -- sh -c 'while read -r line; do echo "$line"; done </proc/self/cgroup >born.$$; exec sleep 1000'
    until [ -s born.$one ] && [ -s born.$two ]; do :; done
    for pid in $one $two; do
        [ "$(grep ^0:: born.$pid)" = "$(grep ^0:: /proc/$pid/cgroup)" ]
        $PINFOLD proc cgroup $pid | grep -c 'pids.*:/a$'
    done
    $PINFOLD get /a pids.max
    $PINFOLD get /a pids.current
    $PINFOLD kill /a
    until [ ! -e /proc/$one ] && [ ! -e /proc/$two ]; do true & wait; done
done
"#;

#[test]
fn processes_are_in_their_groups_before_they_run() {
    if !daemon::in_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    assert_eq!(play(&daemon, EXACT), "1\n1\n2\n2\n".repeat(2));
    daemon.down();
}

/// Settings of every form: rules, a line for each device, what is shown otherwise than written, neighbours that are exclusive.
const SETTINGS: &str = r#"
set -e
sleep 1000 & one=$!
sleep 1000 & two=$!
$PINFOLD create /a
$PINFOLD set /a devices.deny=a 'devices.allow=c 1:3 rwm' 'devices.allow=c 1:5 r' notify_on_release=1
for interface in $(ls /sys/class/net | head -n2); do
    $PINFOLD set /a "net_prio.ifpriomap=$interface 3"
done
$PINFOLD create /a/b
$PINFOLD create /a/c
$PINFOLD set /a/b 'devices.deny=c 1:5 r' notify_on_release=0
if [ "$PINFOLD_TEST_VM" ]; then
    $PINFOLD set /a memory.oom_control=1 cpuset.cpu_exclusive=1
    if [ $(nproc) -gt 1 ]; then
        $PINFOLD set /a/b cpuset.cpus=0
        $PINFOLD set /a/c cpuset.cpus=1
        $PINFOLD set /a/b cpuset.cpu_exclusive=1
        $PINFOLD set /a/c cpuset.cpu_exclusive=1
    fi
fi
$PINFOLD chown 1000:100 /a/b
$PINFOLD chmod 750 /a/b
$PINFOLD move $one /a/b
$PINFOLD move $two /a/c
all() {
    for group in /a /a/b /a/c; do
        $PINFOLD status --writes $group
        $PINFOLD ls --json $group
    done
}
all >before
$PINFOLD capture /a -o file 2>said
[ ! -s said ]
$PINFOLD kill /a
wait
$PINFOLD rm -r /a
$PINFOLD restart file --detach -- sleep 1000
all >after
diff before after
$PINFOLD kill /a
until [ ! "$($PINFOLD tasks -r /a)" ]; do :; done
$PINFOLD set /a/b 'devices.deny=c 1:3 w'
all >other
if $PINFOLD restart file --detach -- /no/such/program 2>/dev/null; then exit 1; fi
all >undone
diff other undone
$PINFOLD restart file --detach -- sleep 1000
all >again
diff before again
$PINFOLD kill /a
"#;

#[test]
fn settings_of_every_form_come_back_with_owners_and_modes() {
    let Some(mut daemon) = Daemon::serving_with_programs("all:cg") else { return };
    play(&daemon, SETTINGS);
    daemon.down();
}
