//! `clone_with_pids` against the real kernel: the error matrix of its own selftest (clone3_set_tid.c), and what the proposal adds.

use std::fs;
use std::os::fd::AsFd;

use pinfold_restart::pids::{CloneError, Cloned, NEW_PID_NAMESPACE, Request, clone_with_pids};
use pinfold_sys::clone::exit_now;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::arena::Case;

pub(crate) const CASES: &[Case] = &[
    ("the_error_matrix", the_error_matrix),
    ("numbers_go_from_the_oldest_namespace_to_the_youngest", numbers_go_from_oldest_to_youngest),
    ("zero_between_numbers_is_a_free_number", zero_between_numbers_is_a_free_number),
    ("reserved_numbers_are_not_chosen", reserved_numbers_are_not_chosen),
    ("a_number_that_is_taken_is_passed_over", a_taken_number_is_passed_over),
    ("a_namespace_unshared_before_has_its_first_process", an_unshared_namespace_has_its_first_process),
    ("without_proc_no_namespace_is_taken_for_a_new_one", without_proc),
    ("checkpoint_restore_alone_is_enough", checkpoint_restore_alone_is_enough),
    ("without_the_capability_the_namespace_is_named", without_the_capability_the_namespace_is_named),
    ("a_refusal_names_the_outer_namespace", a_refusal_names_the_outer_namespace),
    ("pid_max_is_told_with_the_limit", pid_max_is_told_with_the_limit),
    ("a_lower_pid_max_further_out_is_kept_to", a_lower_pid_max_further_out_is_kept_to),
    ("a_second_thread_is_refused", a_second_thread_is_refused),
];

/// What became of a request: the child's `NSpid` line from this namespace on, or the error with its errno.
fn outcome(request: &Request<'_>) -> String {
    match clone_with_pids(request) {
        Ok(Cloned::Child) => {
            // The parent looks at the child while it waits here to be killed.
            let _ = rustix::thread::futex::wait(
                &std::sync::atomic::AtomicU32::new(0),
                rustix::thread::futex::Flags::PRIVATE,
                0,
                None,
            );
            exit_now(0)
        }
        Ok(Cloned::Parent { pid, pidfd }) => {
            let numbers = numbers(&format!("/proc/{pid}/status"));
            rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL).expect("a live child");
            waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).expect("a child of ours");
            numbers
        }
        Err(error) => format!("{}: {error}", errno_name(&error)),
    }
}

fn numbers(status: &str) -> String {
    let text = fs::read_to_string(status).expect("a live child");
    let line = text.lines().find_map(|line| line.strip_prefix("NSpid:")).expect("an NSpid line");
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn errno_name(error: &CloneError) -> &'static str {
    use rustix::io::Errno;
    match error.errno() {
        Errno::INVAL => "EINVAL",
        Errno::BUSY => "EBUSY",
        Errno::PERM => "EPERM",
        Errno::DEADLK => "EDEADLK",
        Errno::NOSYS => "ENOSYS",
        _ => "another errno",
    }
}

/// `pids [+newpid]` and what it must come to; `*` at the start stands for numbers, at the end for any text.
fn check(pids: &str, expected: &str) {
    let (list, namespaces) = match pids.strip_suffix("+newpid") {
        Some(list) => (list, NEW_PID_NAMESPACE),
        None => (pids, 0),
    };
    let pids: Vec<i32> = list.split_whitespace().map(|pid| pid.parse().expect("a number")).collect();
    let actual = outcome(&Request { pids: &pids, namespaces, ..Request::default() });
    let is_number = |word: &str| word.parse::<u32>().is_ok();
    let alike = match expected.split_once('*') {
        Some(("", end)) => actual.split(' ').all(is_number) && actual.ends_with(end),
        Some((start, "")) => actual.starts_with(start),
        _ => actual == expected,
    };
    assert!(alike, "{pids:?}: expected {expected:?}, got {actual:?}");
}

fn the_error_matrix() {
    let levels = levels();
    let long = |count: usize| vec!["1"; count].join(" ");
    //    pids from oldest to youngest     what must come of it
    for (pids, expected) in [
        ("", "*"),
        ("0", "*"),
        ("42", "42"),
        ("0 42", "42"),
        ("-1", "EINVAL: -1 is not a pid"),
        ("-2147483648", "EINVAL: -2147483648 is not a pid"),
        ("42 -1", "EINVAL: -1 is not a pid"),
        ("-1 42", "EINVAL: -1 is not a pid"),
        ("1", "EBUSY: pid 1 is taken"),
        ("1 42", "EBUSY: one of the pids [1, 42] is taken"),
        ("2147483647", "EINVAL: pid 2147483647 is above what pid_max allows: *"),
        ("+newpid", "* 1"),
        ("0 +newpid", "* 1"),
        ("1 +newpid", "* 1"),
        ("42 1 +newpid", "42 1"),
        ("42 0 +newpid", "42 1"),
        ("0 1 +newpid", "* 1"),
        ("2 +newpid", "EINVAL: pid 2 for the first process of a pid namespace, which is 1"),
        ("42 43 +newpid", "EINVAL: pid 43 for the first process of a pid namespace, which is 1"),
        ("1 1 +newpid", "EBUSY: one of the pids [1, 1] is taken"),
        ("-1 1 +newpid", "EINVAL: -1 is not a pid"),
        ("1 -1 +newpid", "EINVAL: -1 is not a pid"),
    ] {
        check(pids, expected);
    }
    // The whole depth is allowed, one more is not, whether the kernel would see it or not.
    let zeros = |count: usize| vec!["0"; count].join(" ");
    check(&format!("{} 42", zeros(levels - 1)), "42");
    let too_many = |count: usize| format!("EINVAL: {count} pids for a process in {levels} pid namespaces");
    check(&format!("{} 42", zeros(levels)), &too_many(levels + 1));
    check(&zeros(levels + 1), &too_many(levels + 1));
    check(&long(levels + 1), &too_many(levels + 1));
    // The kernel's own limit of levels is 32: one more, twice and forty-two times as many, as in its selftest.
    for count in [33, 64, 65, 32 * 42] {
        check(&long(count), &too_many(count));
        check(&zeros(count), &too_many(count));
    }
    let refused = |count, pids| Request::counted(count, pids).map(|_| ()).map_err(|error| error.to_string());
    assert_eq!(refused(-1, &[1, 2]), Err("-1 is not a number of pids".to_owned()));
    assert_eq!(refused(3, &[1, 2]), Err("3 pids announced, 2 given".to_owned()));
    assert_eq!(refused(0, &[1, 2]), Ok(()));
}

/// How many pid namespaces a child of this process is in: found by doubling the question, not by the library.
fn levels() -> usize {
    let refused = |count: &usize| {
        let set_tid = vec![1; *count];
        let request = pinfold_sys::clone::Request { set_tid: &set_tid, ..Default::default() };
        matches!(pinfold_sys::clone::clone3(&request), Err(rustix::io::Errno::INVAL))
    };
    (1..=33).find(refused).expect("a limit") - 1
}

fn numbers_go_from_oldest_to_youngest() {
    check("77 1+newpid", "77 1");
    inside_new_namespace(|| {
        check("99", "99");
        // This namespace's own /proc shows its level only; the parent's level is told by asking for it again.
        let Ok(Cloned::Parent { pidfd, .. }) = waiting(&Request { pids: &[66, 88], ..Request::default() })
        else {
            panic!("no child")
        };
        check("66 89", "EBUSY: one of the pids [66, 89] is taken");
        end(pidfd);
        check("66 89", "89");
    });
}

/// A child that waits until it is killed.
fn waiting(request: &Request<'_>) -> Result<Cloned, CloneError> {
    match clone_with_pids(request) {
        Ok(Cloned::Child) => loop {
            let word = std::sync::atomic::AtomicU32::new(0);
            let _ = rustix::thread::futex::wait(&word, rustix::thread::futex::Flags::PRIVATE, 0, None);
        },
        other => other,
    }
}

fn end(pidfd: std::os::fd::OwnedFd) {
    rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL).expect("a live child");
    waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).expect("a child of ours");
}

/// Runs `case` as the first process of a namespace one deeper, with its own /proc, and requires that it passes.
fn inside_new_namespace(case: impl FnOnce()) {
    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
    const NEW_MOUNT_NAMESPACE: u32 = 0x2_0000;
    let namespaces = NEW_PID_NAMESPACE | NEW_MOUNT_NAMESPACE;
    match clone_with_pids(&Request { namespaces, ..Request::default() }).expect("root may") {
        Cloned::Child => {
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).expect("root may");
            mount("proc", "/proc", "proc", MountFlags::empty(), None::<&std::ffi::CStr>).expect("root may");
            let passed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(case)).is_ok();
            exit_now(u8::from(!passed))
        }
        Cloned::Parent { pidfd, .. } => {
            let status =
                waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).expect("a child of ours");
            let status = status.expect("it has ended");
            assert_eq!(status.exit_status(), Some(0), "the case inside the namespace failed");
        }
    }
}

fn zero_between_numbers_is_a_free_number() {
    inside_new_namespace(|| {
        // clone3 itself refuses a 0 before a number.
        let set_tid = [0, 55];
        let raw = pinfold_sys::clone::clone3(&pinfold_sys::clone::Request {
            set_tid: &set_tid,
            ..Default::default()
        });
        assert!(matches!(raw, Err(rustix::io::Errno::INVAL)));
        let request = Request { pids: &[55, 0], ..Request::default() };
        let Ok(Cloned::Parent { pidfd, pid }) = waiting(&request) else { panic!("no child") };
        assert!(pid.get() >= 300, "{pid} is for the system");
        // 55 is in use one level up now, whatever is chosen here: the search ends.
        let error = clone_with_pids(&request).expect_err("55 is taken");
        assert_eq!(error, CloneError::Taken(vec![55]));
        end(pidfd);
    });
}

fn reserved_numbers_are_not_chosen() {
    // All but one number are reserved, so that one is chosen.
    let only = |_level: usize, pid: u32| pid != 4321;
    for pids in [&[0][..], &[0, 0][..1]] {
        let request = Request { pids, reserved: Some(&only), ..Request::default() };
        assert_eq!(outcome(&request), "4321");
    }
    let none = |_: usize, _: u32| true;
    let request = Request { pids: &[0], reserved: Some(&none), ..Request::default() };
    assert_eq!(clone_with_pids(&request).expect_err("nothing is free"), CloneError::Taken(vec![]));
}

/// Of two numbers that may be chosen one is taken. Either is tried first, so one search in two has to go on.
fn a_taken_number_is_passed_over() {
    let Ok(Cloned::Parent { pidfd, .. }) = waiting(&Request { pids: &[4321], ..Request::default() }) else {
        panic!("no child")
    };
    let other = |_: usize, pid: u32| pid != 4321 && pid != 4322;
    for _ in 0..20 {
        let request = Request { pids: &[0], reserved: Some(&other), ..Request::default() };
        assert_eq!(outcome(&request), "4322");
    }
    end(pidfd);
}

fn an_unshared_namespace_has_its_first_process() {
    inside_new_namespace(|| {
        pinfold_sys::ns::unshare(NEW_PID_NAMESPACE).expect("root may");
        check("2", "EINVAL: pid 2 for the first process of a pid namespace, which is 1");
        check("50 0", "50 1");
    });
}

/// Links of namespaces are missing there too.
fn without_proc() {
    use rustix::mount::{MountFlags, mount};
    mount("none", "/proc", "tmpfs", MountFlags::empty(), None::<&std::ffi::CStr>).expect("root may");
    let request = Request { pids: &[0], reserved: Some(&|_, _| false), ..Request::default() };
    let Cloned::Parent { pid, pidfd } = waiting(&request).expect("a number is free") else {
        panic!("the child does not return")
    };
    assert!(pid.get() >= 300, "{pid} is for the system");
    end(pidfd);
}

const CHECKPOINT_RESTORE: CapabilitySet = CapabilitySet::CHECKPOINT_RESTORE;

fn keep_only(sets: CapabilitySet) {
    rustix::thread::set_capabilities(
        None,
        CapabilitySets { effective: sets, permitted: sets, inheritable: CapabilitySet::empty() },
    )
    .expect("capabilities may be dropped");
}

fn checkpoint_restore_alone_is_enough() {
    keep_only(CHECKPOINT_RESTORE);
    check("42", "42");
    let error = clone_with_pids(&Request { namespaces: NEW_PID_NAMESPACE, ..Request::default() });
    assert_eq!(
        error.expect_err("a namespace takes CAP_SYS_ADMIN"),
        CloneError::System(rustix::io::Errno::PERM)
    );
}

fn without_the_capability_the_namespace_is_named() {
    keep_only(CapabilitySet::empty());
    check("", "*");
    check("0", "*");
    check("42", "EPERM: no right to choose a pid in the pid namespace 0 above the child's own\n*");
}

fn a_refusal_names_the_outer_namespace() {
    const NEW_USER_NAMESPACE: u32 = 0x1000_0000;
    let namespaces = NEW_PID_NAMESPACE | NEW_USER_NAMESPACE;
    match clone_with_pids(&Request { namespaces, ..Request::default() }).expect("root may") {
        Cloned::Child => {
            let passed = std::panic::catch_unwind(|| {
                let refused = |pids: &[i32]| clone_with_pids(&Request { pids, ..Request::default() });
                assert_eq!(refused(&[50, 51]).expect_err("not ours"), CloneError::Refused { levels_up: 1 });
                let own = waiting(&Request { pids: &[51], ..Request::default() }).expect("ours");
                let Cloned::Parent { pid, pidfd } = own else { panic!("the child does not return") };
                assert_eq!(pid.get(), 51);
                end(pidfd);
            })
            .is_ok();
            exit_now(u8::from(!passed))
        }
        Cloned::Parent { pidfd, .. } => {
            let status =
                waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).expect("a child of ours");
            assert_eq!(status.expect("it has ended").exit_status(), Some(0));
        }
    }
}

fn pid_max_is_told_with_the_limit() {
    let limit: i32 =
        fs::read_to_string("/proc/sys/kernel/pid_max").expect("/proc").trim().parse().expect("a number");
    let told = format!("EINVAL: pid {limit} is above what pid_max allows: {limit} is the limit");
    check(&limit.to_string(), &told);
    check(&format!("42 {limit}"), &told);
    check(&(limit - 1).to_string(), &(limit - 1).to_string());
}

/// Linux 6.14 has a limit for each namespace: numbers are chosen below that of the outer one, which the inner one cannot see.
fn a_lower_pid_max_further_out_is_kept_to() {
    let limit = "/proc/sys/kernel/pid_max";
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut version = release.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    if (version.next(), version.next()) < (Some(6), Some(14)) {
        eprintln!("skipped: Linux {release} has one pid_max for all namespaces");
        return;
    }
    fs::write(limit, "1000").expect("root may");
    inside_new_namespace(|| {
        fs::write(limit, "4194304").expect("root may");
        for _ in 0..5 {
            check("0 55", "55");
            let search = Request { pids: &[0, 55], reserved: Some(&|_, _| false), ..Request::default() };
            assert_eq!(outcome(&search), "55");
        }
        let told =
            "EINVAL: pid 1000 is above what pid_max allows in the pid namespace 1 above the child's own*";
        check("1000 55", told);
        check("1000 0", told);
        inside_new_namespace(|| {
            check("999 55 77", "77");
            check("1000 55 77", &told.replace("namespace 1", "namespace 2"));
        });
    });
}

fn a_second_thread_is_refused() {
    let (stop, wait) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || wait.recv());
    assert_eq!(clone_with_pids(&Request::default()).expect_err("two threads"), CloneError::Threads);
    drop(stop);
    assert!(thread.join().expect("no panic").is_err());
}
