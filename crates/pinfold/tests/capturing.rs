//! `capture` and `restart`: processes and their groups, taken down and put up again.
//!
//! Chosen pids are chosen in a pid namespace of the test's own, never in the machine's.

mod daemon;

use daemon::{BINARY, Daemon, text};

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
$PINFOLD restart file --detach -- sleep 1000
facts >after
diff before after
$PINFOLD get /a notify_on_release
if $PINFOLD restart file --detach -- sleep 1000; then echo twice; exit 1; fi 2>refused
grep -q 'is taken' refused
facts >again
cmp before again
$PINFOLD kill /a
"#;

#[test]
fn a_group_is_captured_and_restarted_with_every_pid_as_it_was() {
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    std::fs::create_dir(daemon.dir.join("work")).unwrap();
    let mut command = daemon.command("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "--", "sh", "-c", SCRIPT]);
    command.env("PINFOLD", BINARY).current_dir(daemon.dir.join("work"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(text(&output.stdout).trim().rsplit(' ').next(), Some("1"), "the setting is back");
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
