//! What a capture refuses, each with its reason, and what it says instead of taking a wrong picture.

use std::fs;
use std::os::fd::AsFd;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use pinfold_restart::capture::{CaptureError, Stopped, Terms, capture_below, capture_frozen, while_frozen};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::arena::Case;
use crate::real::{end_all, others, start, wait_for_sleepers};

pub(crate) const CASES: &[Case] = &[
    ("what_cannot_be_represented_is_refused_with_the_reason", unrepresentable),
    ("a_namespace_of_an_outer_user_namespace_is_refused", beyond_the_user_namespace),
    ("a_process_whose_first_thread_has_ended_is_no_zombie", first_thread_ended),
    ("who_captures_is_not_captured_and_nobody_is_stopped", oneself),
    ("an_interrupted_capture_stops_nobody", interrupted),
    ("who_is_traced_is_not_captured", traced),
    ("a_tree_that_forks_all_the_time_is_captured", forking),
    ("who_was_let_go_on_and_stopped_again_meanwhile_is_not_captured", let_go_on),
    ("who_is_woken_while_it_is_frozen_is_captured_again", woken),
    ("who_is_not_frozen_at_all_is_not_captured", running),
];

/// Scripts with as many sleepers, who of them is captured, and why not.
const UNREPRESENTABLE: &[(&str, usize, Whom, &str)] = &[
    (
        "mount -t tmpfs none /mnt && cp \"$(command -v sleep)\" /mnt/x && exec -a sleep /mnt/x 1000",
        1,
        Whom::AfterItsProgramWasDeleted,
        "its program was deleted",
    ),
    (
        "mkdir '/tmp/gone (deleted)'; cd '/tmp/gone (deleted)'; rmdir '/tmp/gone (deleted)'; exec sleep 1000",
        1,
        Whom::Root,
        "its working directory was deleted",
    ),
    (
        "exec unshare --pid --fork sh -c 'unshare --pid --fork sleep 1000; :'",
        1,
        Whom::Sleepers,
        "a pid namespace around its own has no process in the picture",
    ),
    (
        "exec unshare --pid --fork sleep 1000",
        1,
        Whom::Root,
        "its children would be in a pid namespace that has no process in the picture",
    ),
    (
        "setsid sh -c 'sleep 1000; :' & setsid sh -c 'sleep 1000; :' & wait",
        2,
        Whom::Sleepers,
        "its session is outside of the picture, and so is another one",
    ),
    (
        "exec setsid bash -c 'set -m; sh -c \"sleep 1000; :\" & wait'",
        1,
        Whom::RootAndSleepers,
        "the leader of its process group is in its session, but not in the picture",
    ),
    (
        "exec setsid bash -c 'set -m; sh -c \"sleep 1000; :\" & sh -c \"sleep 1000; :\" & wait'",
        2,
        Whom::Sleepers,
        "its process group is outside of the picture, and so is another one",
    ),
    (
        "exec unshare --time --fork sleep 1000",
        1,
        Whom::Root,
        "it is in another time namespace than the caller, or its children would be",
    ),
    (
        "exec unshare --time --fork sleep 1000",
        1,
        Whom::Sleepers,
        "it is in another time namespace than the caller, or its children would be",
    ),
    (
        "mount --bind / /mnt && exec perl -e 'chroot \"/mnt\"; exec \"sleep\", \"1000\"'",
        1,
        Whom::Root,
        "its working directory is outside of its root directory",
    ),
    (
        "mount --bind / /mnt && exec perl -e 'chroot \"/mnt\"; chdir \"/\"; $0 = \"sleep\\0\"; sleep 1000'",
        1,
        Whom::Root,
        "its program is outside of its root directory",
    ),
];

enum Whom {
    Root,
    Sleepers,
    RootAndSleepers,
    AfterItsProgramWasDeleted,
}

fn unrepresentable() {
    for (script, count, whom, expected) in UNREPRESENTABLE {
        let root = start(script);
        wait_for_sleepers(*count);
        let sleepers = others().into_iter().filter(is_sleeper).collect();
        let pids = match whom {
            Whom::Root => vec![root],
            Whom::Sleepers => sleepers,
            Whom::RootAndSleepers => [vec![root], sleepers].concat(),
            Whom::AfterItsProgramWasDeleted => {
                fs::remove_file("/mnt/x").expect("its program");
                vec![root]
            }
        };
        let Err(CaptureError::Unrepresentable { pid, reason }) = capture_frozen(&pids) else {
            panic!("{script}: not refused")
        };
        assert!(reason == *expected && pids.contains(&pid), "{script}: process {pid}: {reason}");
        end_all();
    }
}

fn is_sleeper(pid: &u32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"sleep\0"))
}

/// The capturer's user namespace is one in which the process's network namespace has no owner.
fn beyond_the_user_namespace() {
    let root = start("exec unshare --net unshare --user --map-root-user sleep 1000");
    wait_for_sleepers(1);
    let user = fs::File::open(format!("/proc/{root}/ns/user")).expect("a user namespace");
    move_into_link_name_space(user.as_fd(), Some(LinkNameSpaceType::User)).expect("entered");
    let refused = capture_frozen(&[root]).expect_err("refused");
    assert_eq!(
        refused.to_string(),
        format!(
            "process {root} cannot be captured: it has a namespace that is not within the caller's user namespace"
        )
    );
}

/// Waits until a process is in this state (proc(5)).
fn wait_for_state(pid: u32, state: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.contains(&format!(") {state} ")))
    {
        assert!(Instant::now() < deadline, "process {pid} is not in state {state}");
        std::thread::yield_now();
    }
}

fn first_thread_ended() {
    let threads = std::process::Command::new("perl").args(["-Mthreads", "-e", "1"]).status();
    if !cfg!(target_arch = "x86_64") || !threads.is_ok_and(|status| status.success()) {
        eprintln!("skipped: perl has no threads here, or exit(2) another number");
        return;
    }
    let root = start("exec perl -Mthreads -e 'threads->create(sub { sleep 1000 }); syscall(60, 0)'");
    wait_for_state(root, "Z");
    let refused = capture_below(root).expect_err("refused");
    assert_eq!(
        refused.to_string(),
        format!("process {root} cannot be captured: its first thread has ended, and others have not")
    );
    end_all();
}

fn oneself() {
    let root = start("exec sleep 1000");
    wait_for_sleepers(1);
    for refused in [
        capture_below(1).expect_err("refused"),
        Stopped::below(root, Terms { needed: &[root], interrupted: None }).expect_err("refused"),
    ] {
        assert_eq!(refused.errno(), Errno::OPNOTSUPP);
        assert!(
            refused.to_string().ends_with("it takes part in the capture, which would stop it"),
            "{refused}"
        );
    }
    wait_for_state(root, "S");
    end_all();
}

fn interrupted() {
    let root = start("exec sleep 1000");
    wait_for_sleepers(1);
    let flag = AtomicBool::new(true);
    let refused = Stopped::below(root, Terms { needed: &[], interrupted: Some(&flag) }).expect_err("refused");
    assert_eq!(refused.errno(), Errno::INTR);
    wait_for_state(root, "S");
    end_all();
}

fn traced() {
    let root = start("exec sleep 1000");
    wait_for_sleepers(1);
    pinfold_sys::trace::seize(Pid::from_raw(root.cast_signed()).expect("a pid")).expect("a child of ours");
    let refused = capture_below(root).expect_err("refused");
    assert_eq!(
        refused.to_string(),
        format!("process {root} cannot be captured: it is traced, and stops and goes on as its tracer likes")
    );
    wait_for_state(root, "S");
    end_all();
}

fn forking() {
    let root = start("forks() { while :; do /bin/true & wait; done; }; forks & forks & (forks) & wait");
    for _ in 0..20 {
        let image = capture_below(root).expect("a capture");
        let living = image.processes.iter().filter_map(|process| process.living.as_ref());
        assert!(living.clone().all(|living| !living.stopped), "we have stopped them: {image:#?}");
    }
    end_all();
}

fn signal(pid: u32, signal: Signal) {
    let pidfd = pidfd_open(Pid::from_raw(pid.cast_signed()).expect("a pid"), PidfdFlags::empty());
    pidfd_send_signal(pidfd.expect("it is there"), signal).expect("it is ours");
}

/// Somebody else may do that, and it may execute another program in between.
fn let_go_on() {
    let root = start("exec sleep 1000");
    wait_for_sleepers(1);
    let stopped = Stopped::below(root, Terms::default()).expect("stopped");
    stopped.check_still().expect("nobody has let it go on");
    signal(root, Signal::CONT);
    wait_for_state(root, "S");
    signal(root, Signal::STOP);
    wait_for_state(root, "T");
    for refused in [stopped.picture().expect_err("refused"), stopped.check_still().expect_err("refused")] {
        assert_eq!(refused.errno(), Errno::AGAIN);
        let reason =
            format!("process {root} ran while it was captured: somebody let it go on\nhint: try again");
        assert_eq!(refused.to_string(), reason);
    }
    drop(stopped);
    wait_for_state(root, "S");
    capture_below(root).expect("a capture");
    end_all();
}

fn woken() {
    let root = start("exec sleep 1000");
    wait_for_sleepers(1);
    let (mut listed, mut completed) = (0, 0);
    let list = || {
        listed += 1;
        Ok(vec![root])
    };
    let complete = |image| {
        completed += 1;
        if completed < 3 {
            // It sleeps on, and has had a CPU in between.
            signal(root, Signal::STOP);
            wait_for_state(root, "T");
            signal(root, Signal::CONT);
            wait_for_state(root, "S");
        }
        Ok::<_, CaptureError>(image)
    };
    let image = while_frozen(list, Terms::default(), complete).expect("a capture");
    assert!(listed >= 3, "who it is was asked again");
    assert_eq!((completed, image.processes.len()), (3, 1));
    end_all();
}

fn running() {
    let root = start("while :; do :; done");
    let refused = capture_frozen(&[root]).expect_err("refused");
    assert!(matches!(refused, CaptureError::Ran(pid) if pid == root), "{refused}");
    let flag = AtomicBool::new(true);
    let terms = Terms { needed: &[], interrupted: Some(&flag) };
    let refused = while_frozen(|| Ok::<_, CaptureError>(vec![root]), terms, Ok).expect_err("refused");
    assert_eq!(refused.errno(), Errno::INTR);
    end_all();
}
