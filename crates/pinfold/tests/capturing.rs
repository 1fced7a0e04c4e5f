//! `capture` and `restart`: processes and their groups, taken down and put up again.
//!
//! Chosen pids are chosen in a pid namespace of the test's own, never in the machine's.

use pinfold_restart::image::Image;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use crate::daemon::{self, BINARY, Daemon, PYTHON, eventually, text};
use crate::tracked::Place;

/// Ends with the relations and groups of every sleeper before and after, which are to be equal.
const SCRIPT: &str = r#"
set -e
sleepers() {
    for dir in /proc/[0-9]*; do
        case "$(tr '\0' ' ' 2>/dev/null <$dir/cmdline)" in sleep*) echo ${dir#/proc/} ;; esac
    done | sort -n
}
facts() {
    for pid in $(sleepers); do
        grep -E '^(PPid|NSpid|NSpgid|NSsid)' /proc/$pid/status
        $PINFOLD proc cgroup $pid
    done
}
setsid sh -c 'sleep 1000 & (setsid sh -c "sleep 1000 & exec sleep 1000" &); exec sleep 1000' </dev/null >/dev/null &
until [ $(sleepers | wc -l) = 4 ]; do :; done
$PINFOLD create /a
$PINFOLD create /a/b
$PINFOLD set /a notify_on_release=1
for pid in $(sleepers); do $PINFOLD move $pid /a; done
$PINFOLD move $(sleepers | head -n1) /a/b
facts >before
$PINFOLD capture /a -o file
facts >still
cmp before still
$PINFOLD kill /a
until [ $(sleepers | wc -l) = 0 ]; do wait; done
$PINFOLD set /a notify_on_release=0
$PINFOLD rm -r /a
perl -e '$SIG{CHLD} = "IGNORE"; exec @ARGV' $PINFOLD restart file --detach -- sleep 1000
facts >after
diff before after
$PINFOLD get /a notify_on_release
if $PINFOLD restart file --detach -- sleep 1000; then echo twice; exit 1; fi 2>refused
grep -q 'is taken' refused
facts >again
cmp before again
$PINFOLD kill /a
"#;

/// Plays a script in a pid namespace of its own, in the daemon's own directory for that, and gives what it prints.
pub(crate) fn play(daemon: &Daemon, script: &str) -> String {
    std::fs::create_dir_all(daemon.dir.join("work")).expect("a directory of its own");
    // A script is dozens of commands.
    let mut command = daemon.command_within(daemon::PATIENCE * 4, "unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "--", "sh", "-c", script]);
    command.env("PINFOLD", BINARY).current_dir(daemon.dir.join("work"));
    let output = command.output().expect("unshare starts");
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn a_group_is_captured_and_restarted_with_every_pid_as_it_was() {
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    let printed = play(&daemon, SCRIPT);
    assert_eq!(printed.trim().rsplit(' ').next(), Some("1"), "the setting is back");
    daemon.down();
}

/// A signal at a moment at which some of many processes are made; by kill -9 they end by themselves, and the group stays.
const SIGNALS: &str = r#"
set -e
count=100 signals='INT TERM HUP KILL'
# A process takes a tenth of a second to start in a guest, and pinfold a whole one.
[ -z "$PINFOLD_TEST_VM" ] || count=50 signals=TERM
left() {
    while read pid; do
        stat=
        { read -r stat </proc/$pid/stat; } 2>/dev/null || :
        case "$stat" in '' | *') Z '*) ;; *) echo $pid ;; esac
    done <pids
}
$PINFOLD create -p /top/there
$PINFOLD set /top/there notify_on_release=0
$PINFOLD create /top/a
$PINFOLD set /top/a notify_on_release=1
$PINFOLD exec -g /top/a -- sh -c 'i=0; while [ $i -lt "$0" ]; do sleep 1000 & echo $! >>pids; i=$((i+1)); done' $count
$PINFOLD move $(head -n1 pids) /top/there
$PINFOLD set /top/there notify_on_release=1
$PINFOLD capture /top -o file
$PINFOLD set /top/there notify_on_release=0
$PINFOLD kill /top
until [ ! "$(left)" ]; do :; done
$PINFOLD rm /top/a
first=$(head -n1 pids)
interrupted=0
for signal in $signals; do
    env --default-signal $PINFOLD restart file --detach -- sleep 1000 2>said &
    restart=$!
    until [ -e /proc/$first ]; do :; done
    kill -$signal $restart || :
    if wait $restart; then
        [ $(left | wc -l) = $count ]
    elif [ $signal = KILL ]; then
        case $(left | wc -l) in $count) ;; *) until [ ! "$(left)" ]; do :; done ;; esac
    else
        interrupted=$((interrupted+1))
        cat said
        [ ! "$(left)" ]
        grep -q 'interrupted' said
        if $PINFOLD ls /top/a 2>/dev/null; then echo the group is left; exit 1; fi
        [ $($PINFOLD get /top/there notify_on_release) = 0 ]
    fi
    $PINFOLD kill /top
    until [ ! "$(left)" ]; do :; done
    if $PINFOLD ls /top/a >/dev/null 2>&1; then $PINFOLD rm /top/a; fi
    $PINFOLD set /top/there notify_on_release=0
done
echo $interrupted
"#;

#[test]
fn a_signal_in_the_middle_of_a_restart_leaves_nothing() {
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    let printed = play(&daemon, SIGNALS);
    let interrupted: u32 = printed.trim().rsplit('\n').next().unwrap().parse().unwrap();
    assert!(interrupted > 0, "no signal came in the middle: {printed}");
    daemon.down();
}

/// What can be seen without criu: what it is not asked for, and that it is missing.
const WITHOUT_CRIU: &str = r#"
set -e
unshare --pid --fork sleep 1000 &
nested=$!
until [ "$(cat /proc/$nested/task/$nested/children)" ]; do :; done
if $PINFOLD capture --pid $nested --criu images 2>said; then exit 1; fi
grep -q 'criu does not know nested pid namespaces, and these processes are in 2' said
[ ! -e images ]
inner=$(cat /proc/$nested/task/$nested/children)
if $PINFOLD capture --pid $inner --criu images 2>said; then exit 1; fi
grep -q 'criu does not know nested pid namespaces, and these processes are in 2' said
[ ! -e images ]
sleep 1000 &
if PATH=/nowhere $PINFOLD capture --pid $! --criu images 2>said; then exit 1; fi
grep -q 'criu cannot be started: is criu installed' said
[ ! -e images/pinfold.json ]
$PINFOLD create /a
$PINFOLD move $! /a
$PINFOLD freeze /a
if $PINFOLD capture /a --criu images 2>said; then exit 1; fi
grep -q 'is frozen, and criu cannot save it so' said
$PINFOLD kill /a
"#;

#[test]
fn what_criu_cannot_do_is_said_before_it_is_asked() {
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    play(&daemon, WITHOUT_CRIU);
    daemon.down();
}

/// A group that was left is used again, but not while it is frozen; a restart that waits ends with what the first process ended
/// with.
const LEFT: &str = r#"
set -e
echo 500 >/proc/sys/kernel/ns_last_pid
sleep 1000 & pid=$!
$PINFOLD create -p /a/b
$PINFOLD set /a notify_on_release=1
$PINFOLD move $pid /a/b
$PINFOLD capture /a -o file
$PINFOLD kill /a
gone() { until [ ! -e /proc/$pid ]; do true & wait; done; }
gone
$PINFOLD freeze /a
if timeout 20 $PINFOLD restart file --detach -- sleep 1000 2>said; then exit 1; fi
grep -q ':/a is frozen, so nothing can be restarted in it' said
$PINFOLD thaw /a
$PINFOLD set /a notify_on_release=0
status=0
$PINFOLD restart file -- sh -c '$PINFOLD proc cgroup $$ >inside; exit 3' || status=$?
[ $status = 3 ]
grep -q ':/a/b$' inside
[ $($PINFOLD get /a notify_on_release) = 1 ]
status=0
$PINFOLD restart file -- sh -c 'kill -TERM $$' || status=$?
[ $status = 143 ]
$PINFOLD restart file --without-groups -- sh -c '$PINFOLD proc cgroup $$ >inside'
if grep -q ':/a' inside; then cat inside; exit 1; fi
# Numbers that processes of our own would come to have: the tree has them nevertheless.
for before in $(seq 1 12); do
    echo $((pid - 1 - before)) >/proc/sys/kernel/ns_last_pid
    $PINFOLD restart file -- true
done
"#;

#[test]
fn a_group_that_was_left_is_used_again_and_a_restart_waits() {
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    play(&daemon, LEFT);
    daemon.down();
}

#[test]
fn what_cannot_be_captured_or_restarted_is_refused_with_the_reason() {
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    daemon.ok(&["create", "/a"]);
    for (arguments, reason) in [
        (vec!["capture", "/a", "-o", "x"], "no process is in /a"),
        (vec!["capture", "/no", "-o", "x"], "/no"),
        (vec!["capture", "--pid", "4194304", "-o", "x"], "no process 4194304"),
    ] {
        let said = daemon.refused(&arguments);
        assert!(said.contains(reason), "{arguments:?}: {said}");
    }
    for (file, reason) in [("/etc/passwd", "not a capture file"), ("/no/such/file", "cannot be read")] {
        let output = daemon.pinfold(&["restart", file]);
        assert_eq!(output.status.code(), Some(125), "as `run`: not to be mistaken for a restarted program's");
        assert!(text(&output.stderr).contains(reason), "{}", text(&output.stderr));
    }
    daemon.down();
}

/// Two shells that fork all the time, captured again and again, by group and by tree; then they go on.
const FORKING: &str = r#"
set -e
$PINFOLD create /x
for shell in 1 2; do
    sh -c 'while :; do /bin/true; done' &
    $PINFOLD move $! /x
done
for round in 1 2 3 4 5 6; do
    $PINFOLD capture /x -o group.$round
    [ $($PINFOLD get /x freezer.state) = THAWED ]
    $PINFOLD capture --pid $! -o tree.$round
done
children=$(cat /proc/$!/task/$!/children)
until [ "$(cat /proc/$!/task/$!/children)" != "$children" ]; do :; done
$PINFOLD kill /x
"#;

#[test]
fn a_group_that_forks_is_captured_in_one_moment_and_goes_on() {
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    play(&daemon, FORKING);
    for entry in std::fs::read_dir(daemon.dir.join("work")).expect("its directory") {
        let path = entry.expect("an entry").path();
        let image = Image::from_json(&std::fs::read(&path).expect("a file")).expect("a capture");
        let living = (0..image.processes.len()).filter(|&index| image.processes[index].living.is_some());
        let [group] = image.groups.as_slice() else { panic!("{path:?}: one group: {:?}", image.groups) };
        assert_eq!(group.processes, living.clone().collect::<Vec<_>>(), "{path:?}");
        assert!(
            !group.settings.iter().any(|(file, _)| file == "freezer.state"),
            "{path:?}: frozen for the picture only"
        );
        let stopped =
            living.filter_map(|index| image.processes[index].living.as_ref()).any(|living| living.stopped);
        assert!(!stopped, "{path:?}: stopped for the picture only");
    }
    daemon.down();
}

/// A perl whose child shares its memory until it executes another program, which it never does: so the parent does not stop.
/// Signalled meanwhile, the capture lets go on who was stopped.
const INTERRUPTED: &str = r#"
set -e
state() { read -r stat </proc/$1/stat; stat=${stat##*) }; echo ${stat%% *}; }
$PINFOLD create /x
if $PINFOLD capture --pid $$ -o file 2>said; then exit 1; fi
grep -q 'takes part in the capture' said
if $PINFOLD exec -g /x -- $PINFOLD capture /x -o file 2>said; then exit 1; fi
grep -q 'takes part in the capture' said
[ $($PINFOLD get /x freezer.state) = THAWED ]
[ $(uname -m) = x86_64 ] || exit 0
sh -c 'perl -e "syscall(58) or sleep 1000"; :' &
shell=$!
until [ "$(state $(cat /proc/$shell/task/$shell/children))" = D ]; do :; done 2>/dev/null
env --default-signal $PINFOLD capture --pid $shell -o file 2>said &
until [ $(state $shell) = T ]; do :; done
kill -TERM $!
if wait $!; then exit 1; fi
grep -q 'interrupted' said
until [ $(state $shell) != T ]; do :; done
[ ! -e file ]
"#;

#[test]
fn an_interrupted_capture_lets_everybody_go_on_and_oneself_is_refused() {
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    play(&daemon, INTERRUPTED);
    daemon.down();
}

/// What a file is written to stays what it is, and nobody else reads it.
const OUTPUT: &str = r#"
set -e
sleep 1000 &
umask 0
$PINFOLD capture --pid $! -o file
[ "$(stat -c %a file)" = 600 ]
ln -s elsewhere link
$PINFOLD capture --pid $! -o link
[ -L link ]
[ "$(stat -c %a elsewhere)" = 600 ]
echo old >old
ln -sf old link
$PINFOLD capture --pid $! -o link
[ "$(stat -c %a old)" = 600 ]
cmp old elsewhere
mkfifo pipe
cat pipe >read &
$PINFOLD capture --pid $(cat /proc/$$/task/$$/children | cut -d' ' -f1) -o pipe
wait $!
[ -p pipe ]
cmp read elsewhere
mknod null c 1 3
$PINFOLD capture --pid $(cat /proc/$$/task/$$/children | cut -d' ' -f1) -o null
[ -c null ]
rm null link pipe
[ "$(echo *)" = 'elsewhere file old read' ]
"#;

#[test]
fn a_capture_file_is_its_owners_and_replaces_no_device() {
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    play(&daemon, OUTPUT);
    daemon.down();
}

/// As the tracker `events` freezes: by signals. They are not what a process was stopped by itself.
const FROZEN_BY_SIGNALS: &str = r#"
set -e
state() { read -r stat </proc/$1/stat; stat=${stat##*) }; echo ${stat%% *}; }
sleep 1000 & one=$!
sleep 1000 & two=$!
kill -STOP $two
until [ $(state $two) = T ]; do :; done
$PINFOLD create /a
$PINFOLD move $one /a
$PINFOLD move $two /a
$PINFOLD capture /a -o apart
[ $(state $one) != T ]
$PINFOLD freeze /a
$PINFOLD capture /a -o frozen
[ $(state $one) = T ]
$PINFOLD thaw /a
kill -CONT $two
kill $one $two
"#;

#[test]
fn who_is_stopped_by_a_freezer_is_not_captured_as_stopped() {
    let Some(mut place) = Place::nest() else { return };
    place.serve("freezer", &[]);
    place.ok(FROZEN_BY_SIGNALS);
    let stopped = |file: &str| -> Vec<bool> {
        let image = std::fs::read(place.dir.join(file)).expect("a file");
        let image = Image::from_json(&image).expect("a capture");
        image
            .processes
            .iter()
            .map(|process| process.living.as_ref().is_some_and(|living| living.stopped))
            .collect()
    };
    assert_eq!(stopped("apart"), [false, true]);
    assert_eq!(stopped("frozen"), [false, false], "the group says it");
}

#[test]
fn without_a_daemon_groups_are_left_out_only_when_that_is_said() {
    let Some(daemon) = Daemon::new() else { return };
    let sleeper = daemon.sleeper();
    let pid = sleeper.pid().to_string();
    let said = daemon.refused(&["capture", "--pid", &pid, "-o", "-"]);
    assert!(said.contains("--without-groups"), "{said}");
    let image = daemon.ok(&["capture", "--pid", &pid, "--without-groups", "-o", "-"]);
    assert_eq!(Image::from_json(image.as_bytes()).expect("a capture").groups, []);
}

#[test]
fn nobody_stands_still_for_a_daemon_that_does_not_answer() {
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    let sleeper = daemon.sleeper();
    let is_in_state = |state: &str| {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", sleeper.pid())).unwrap_or_default();
        stat.contains(&format!(") {state} "))
    };
    daemon.signal(Signal::STOP);
    let mut command = daemon.command(BINARY);
    command.args(["capture", "--pid", &sleeper.pid().to_string(), "-o", "-"]);
    let capture = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("timeout starts");
    eventually("it is stopped", || is_in_state("T"));
    // timeout(1) passes it on.
    kill_process(Pid::from_child(&capture), Signal::TERM).expect("a child of ours");
    let output = capture.wait_with_output().expect("a child of ours");
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("interrupted: nothing was captured"), "{}", text(&output.stderr));
    eventually("it goes on", || is_in_state("S"));
    daemon.signal(Signal::CONT);
    sleeper.end();
    daemon.down();
}

/// What is mounted at a directory: it goes with this, served or not.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        rustix::mount::unmount(self.0, rustix::mount::UnmountFlags::DETACH).ok();
    }
}

/// A program of which a process cannot be looked at to the end.
const UNSEEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/capturing/unseen.py");

#[test]
fn nobody_stands_still_for_a_file_system_that_does_not_answer() {
    if !daemon::has_python() {
        return;
    }
    let Some(daemon) = Daemon::new() else { return };
    for (manner, file) in [("memory", "cmdline"), ("name", "cwd")] {
        let dir = daemon.dir.join(manner);
        std::fs::create_dir(&dir).expect("the directory is ours");
        // In the namespace of those who capture, who come to the name that is shown.
        let mut unseen = daemon.command_within(daemon::PATIENCE * 4, PYTHON);
        let unseen = unseen.arg(UNSEEN).arg(&dir).arg(manner).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut unseen = unseen.spawn().expect("timeout starts");
        let mut line = String::new();
        let mut said = BufReader::new(unseen.stdout.take().expect("a pipe"));
        said.read_line(&mut line).expect("it talks");
        let _mounted = Mounted(&dir);
        let pid: u32 = line.trim().parse().expect("a process");
        let is_in_state = |state: &str| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.contains(&format!(") {state} "))
        };
        let capture = || {
            let mut command = daemon.command(BINARY);
            command.args(["capture", "--pid", line.trim(), "--without-groups", "-o", "-"]);
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("timeout starts")
        };
        let interrupted = capture();
        eventually("it is stopped", || is_in_state("T"));
        kill_process(Pid::from_child(&interrupted), Signal::TERM).expect("a child of ours");
        let output = interrupted.wait_with_output().expect("a child of ours");
        assert!(
            text(&output.stderr).contains("interrupted: nothing was captured"),
            "{}",
            text(&output.stderr)
        );
        eventually("it goes on", || is_in_state("S"));
        let output = capture().wait_with_output().expect("a child of ours");
        let said = text(&output.stderr);
        assert!(said.contains(&format!("its {file} was not read within 10 seconds")), "{said}");
        // Whoever is let go on runs for a moment.
        eventually("it goes on again", || is_in_state("S"));
        drop(unseen.stdin.take());
        daemon::wait(unseen).expect("it ends with its input");
    }
}

/// A process that waits for a file system whose server is stopped does not freeze.
#[test]
fn a_group_that_does_not_freeze_is_not_captured_and_goes_on() {
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    let Some(mut server) = Daemon::serving("freezer:cg") else { return };
    daemon.ok(&["create", "/x"]);
    server.signal(Signal::STOP);
    let file = server.path("cg/tasks");
    let reader = daemon.sleeper_by(&format!("exec {BINARY} exec -g /x -- cat {}", file.display()));
    let waits = || std::fs::read_to_string(format!("/proc/{}/wchan", reader.pid())).unwrap_or_default();
    daemon::eventually("the reader waits for the server", || waits().contains("request_wait_answer"));
    let said = daemon.refused(&["capture", "/x", "-o", "-"]);
    assert!(said.contains("freezer:/x is FREEZING after 10 seconds"), "{said}");
    assert_eq!(daemon.ok(&["get", "/x", "freezer.state"]), "THAWED\n");
    server.signal(Signal::CONT);
    daemon.ok(&["kill", "/x"]);
    server.down();
    daemon.down();
}
