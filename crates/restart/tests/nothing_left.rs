//! What fails, fails as a whole: whenever it does, nothing is left of the tree.

use std::fs;
use std::os::fd::AsFd;

use pinfold_restart::image::Image;
use pinfold_restart::rebuild::{Moment, Options, RebuildError, rebuild};
use rustix::io::Errno;
use rustix::process::{Signal, pidfd_send_signal};

use crate::arena::Case;
use crate::real::{end_all, others, sleep, sleepers};

pub(crate) const CASES: &[Case] = &[
    ("a_taken_pid_leaves_nothing", a_taken_pid_leaves_nothing),
    ("a_program_that_is_gone_leaves_nothing", a_program_that_is_gone_leaves_nothing),
    ("a_terminal_is_refused", a_terminal_is_refused),
    ("a_pid_above_pid_max_leaves_nothing", a_pid_above_pid_max_leaves_nothing),
    ("a_pid_max_that_is_too_small_leaves_nothing", a_pid_max_that_is_too_small_leaves_nothing),
    ("without_the_capability_nothing_is_made", without_the_capability_nothing_is_made),
    ("a_filter_that_forbids_clone3_is_named", a_filter_that_forbids_clone3_is_named),
    ("an_interruption_leaves_nothing", an_interruption_leaves_nothing),
    ("what_the_caller_declines_leaves_nothing", what_the_caller_declines_leaves_nothing),
    ("a_builder_that_is_killed_leaves_nothing", a_builder_that_is_killed_leaves_nothing),
];

fn a_taken_pid_leaves_nothing() {
    let image = sleepers(5);
    let first = rebuild(&image, &Options { command: sleep(), ..Options::default() }).expect("free numbers");
    let pidfd = &first[2].pidfd;
    for root in first.iter().filter(|root| root.index != 2) {
        pidfd_send_signal(&root.pidfd, Signal::KILL).expect("a child");
        rustix::process::waitid(
            rustix::process::WaitId::PidFd(root.pidfd.as_fd()),
            rustix::process::WaitIdOptions::EXITED,
        )
        .expect("a child");
    }
    assert_eq!(others(), [2002]);
    let error =
        rebuild(&image, &Options { command: sleep(), ..Options::default() }).expect_err("2002 is taken");
    assert_eq!(error.errno(), Errno::BUSY);
    assert_eq!(
        error.to_string(),
        "process 2002: the builder forks process 2002 as [2002]: pid 2002 is taken"
    );
    assert_eq!(others(), [2002], "nothing else is left, and what was there before is");
    pidfd_send_signal(pidfd, Signal::KILL).expect("still there");
    end_all();
}

fn a_program_that_is_gone_leaves_nothing() {
    let mut image = sleepers(3);
    for process in &mut image.processes {
        let living = process.living.as_mut().expect("a living process");
        living.executable = pinfold_restart::image::Text::of(b"/bin/sleep");
        living.arguments =
            ["sleep", "1000"].map(|word| pinfold_restart::image::Text::of(word.as_bytes())).to_vec();
    }
    image.processes[1].living.as_mut().expect("living").executable =
        pinfold_restart::image::Text::of(b"/no/such/file");
    let error = rebuild(&image, &Options::default()).expect_err("no such program");
    assert_eq!(error.errno(), Errno::NOENT);
    let text = error.to_string();
    assert!(text.starts_with("process 2001: ") && text.contains("cannot execute /no/such/file"), "{text}");
    assert_eq!(others(), [0; 0]);
    assert_eq!(rustix::process::child_subreaper().expect("known"), None, "as before");
}

fn a_terminal_is_refused() {
    let mut image = sleepers(1);
    image.processes[0].living.as_mut().expect("living").terminal = Some(34816);
    let error =
        rebuild(&image, &Options { command: sleep(), ..Options::default() }).expect_err("no terminal");
    assert_eq!(error.errno(), Errno::OPNOTSUPP);
    let options = Options { command: sleep(), without_terminals: true, ..Options::default() };
    assert_eq!(rebuild(&image, &options).expect("without").len(), 1);
    end_all();
}

fn refused(image: &Image) -> RebuildError {
    let error = rebuild(image, &Options { command: sleep(), ..Options::default() })
        .expect_err("it cannot be rebuilt");
    assert_eq!(others(), [0; 0], "something is left");
    error
}

fn a_pid_above_pid_max_leaves_nothing() {
    let mut image = sleepers(3);
    let limit =
        fs::read_to_string("/proc/sys/kernel/pid_max").expect("/proc").trim().parse().expect("a number");
    image.processes[1].pids = vec![limit];
    let error = refused(&image);
    assert_eq!(error.errno(), Errno::INVAL);
    let text = error.to_string();
    assert!(
        text.ends_with(&format!("pid {limit} is above what pid_max allows: {limit} is the limit")),
        "{text}"
    );
}

fn without_the_capability_nothing_is_made() {
    use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
    let image = sleepers(3);
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
        .expect("dropped");
    let error = refused(&image);
    assert_eq!(error.errno(), Errno::PERM);
    assert!(error.to_string().contains("no right to choose a pid in the pid namespace 0 above"), "{error}");
}

fn a_filter_that_forbids_clone3_is_named() {
    let image = sleepers(2);
    pinfold_sys::filter::forbid(435, Errno::PERM).expect("root may");
    let error = refused(&image);
    assert_eq!(error.errno(), Errno::PERM);
    assert!(error.to_string().contains("clone3 does not reach the kernel"), "{error}");
}

/// The limit of this namespace alone, where the kernel has one for each (Linux 6.14); then a number that was free is too large.
fn a_pid_max_that_is_too_small_leaves_nothing() {
    let image = sleepers(3);
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut version = release.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    if (version.next(), version.next()) < (Some(6), Some(14)) {
        eprintln!("skipped: Linux {release} has one pid_max for all namespaces");
        return;
    }
    fs::write("/proc/sys/kernel/pid_max", "2001").expect("root may");
    let error = refused(&image);
    let text = error.to_string();
    assert!(text.ends_with("pid 2001 is above what pid_max allows: 2001 is the limit"), "{text}");
    assert!(text.starts_with("process 2001: "), "{text}");
}

/// At every moment at which the flag can be looked at first.
fn an_interruption_leaves_nothing() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let image = sleepers(20);
    let flag = AtomicBool::new(true);
    let error = |at: Option<&dyn Fn(Moment) -> Result<(), String>>| {
        let options = Options { command: sleep(), interrupted: Some(&flag), at, ..Options::default() };
        let error = rebuild(&image, &options).expect_err("interrupted");
        assert!(matches!(error, RebuildError::Interrupted), "{error}");
        assert_eq!(others(), [0; 0], "something is left");
    };
    error(None);
    for last in [Moment::Placed, Moment::Running] {
        flag.store(false, Ordering::SeqCst);
        error(Some(&|moment| {
            assert_eq!(others().len(), 20, "all are there");
            flag.store(moment == last, Ordering::SeqCst);
            Ok(())
        }));
    }
}

fn what_the_caller_declines_leaves_nothing() {
    let image = sleepers(3);
    for last in [Moment::Placed, Moment::Running] {
        let at = |moment| if moment == last { Err(format!("not at {moment:?}")) } else { Ok(()) };
        let options = Options { command: sleep(), at: Some(&at), ..Options::default() };
        let error = rebuild(&image, &options).expect_err("declined");
        assert_eq!(error.to_string(), format!("not at {last:?}"));
        assert_eq!(others(), [0; 0], "something is left");
    }
}

/// Nobody kills the others then: they see by themselves that there is no builder, and end.
fn a_builder_that_is_killed_leaves_nothing() {
    use pinfold_restart::pids::{Cloned, Request, clone_with_pids};
    use rustix::process::{WaitOptions, wait};
    let image = sleepers(100);
    // As soon as there are so many: the first ones, most, and all that can be, when they wait to execute.
    for when in [5, 60, 101] {
        let request = Request { pids: &[1000], ..Request::default() };
        let builder = match clone_with_pids(&request).expect("a child") {
            Cloned::Child => {
                // Not to be told: it waits to be killed.
                let at = |_| loop {
                    std::thread::park();
                };
                let _ = rebuild(&image, &Options { command: sleep(), at: Some(&at), ..Options::default() });
                pinfold_sys::clone::exit_now(1)
            }
            Cloned::Parent { pidfd, .. } => pidfd,
        };
        while others().len() < when {
            std::thread::yield_now();
        }
        pidfd_send_signal(&builder, Signal::KILL).expect("a child");
        // They come to this process, the first of the namespace, until there is nobody.
        let left = loop {
            match wait(WaitOptions::empty()) {
                Err(Errno::INTR) | Ok(_) => {}
                Err(errno) => break errno,
            }
        };
        assert_eq!((left, others()), (Errno::CHILD, vec![]));
    }
}
