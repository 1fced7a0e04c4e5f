//! Real processes of a pid namespace of the test's own.

use std::ffi::OsString;
use std::fs;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pinfold_restart::capture::capture_frozen;
use pinfold_restart::image::{Captured, Image, Nursery};
use pinfold_restart::tree::ChildrenIn;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal};

use crate::naive::{Kernel, LAUNCHER};

/// Every process of this namespace but the first, which runs the test.
pub(crate) fn others() -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("/proc");
    let pid = |entry: std::io::Result<fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse().ok();
    let mut pids: Vec<u32> = entries.filter_map(pid).filter(|&pid| pid != 1).collect();
    pids.sort_unstable();
    pids
}

/// Ends every process of this namespace but the first.
pub(crate) fn end_all() {
    assert_eq!(std::process::id(), 1, "only in a pid namespace of one's own");
    loop {
        for pid in others() {
            let number = Pid::from_raw(pid.cast_signed()).expect("a pid");
            if let Ok(pidfd) = pidfd_open(number, PidfdFlags::empty()) {
                // ESRCH: it has ended already.
                let _ = pidfd_send_signal(pidfd.as_fd(), Signal::KILL);
            }
        }
        match rustix::process::wait(WaitOptions::empty()) {
            Err(Errno::CHILD) => break,
            Err(Errno::INTR) | Ok(_) => {}
            Err(errno) => panic!("wait: {errno}"),
        }
    }
    assert_eq!(others(), [0; 0], "processes are left");
}

/// Starts a shell script.
pub(crate) fn start(script: &str) -> u32 {
    let mut command = Command::new("bash");
    command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::null());
    command.spawn().expect("bash").id()
}

/// Waits until as many processes execute `sleep` as a script starts.
pub(crate) fn wait_for_sleepers(count: usize) {
    let sleeps =
        |&pid: &u32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"sleep\0"));
    let deadline = Instant::now() + Duration::from_secs(20);
    while others().iter().filter(|pid| sleeps(pid)).count() != count {
        assert!(Instant::now() < deadline, "not {count} sleepers: {:?}", others());
        std::thread::yield_now();
    }
}

pub(crate) fn sleep() -> Option<Vec<OsString>> {
    Some(vec!["sleep".into(), "1000".into()])
}

/// An image of a naive tree: everybody is as this process is.
pub(crate) fn image_of(kernel: &Kernel) -> Image {
    let mut image = capture_frozen(&[1]).expect("a capture of this process");
    let mut like = image.processes[0].living.clone();
    if let Some(like) = &mut like {
        like.terminal = None;
    }
    let (tree, _) = kernel.capture();
    image.pid_namespaces = tree.namespaces.iter().map(|namespace| namespace.parent).collect();
    let captured = |process: &pinfold_restart::tree::Process| Captured {
        pids: process.pids.clone(),
        pid_namespace: process.namespace,
        children_in: match process.children_in {
            ChildrenIn::Own => Nursery::Own,
            ChildrenIn::Namespace(namespace) => Nursery::Namespace(namespace),
            ChildrenIn::Fresh => Nursery::Fresh,
        },
        parent: process.parent,
        session: process.session.clone(),
        group: process.group.clone(),
        started: 0,
        living: if process.zombie { None } else { like.clone() },
    };
    image.processes = tree.processes.iter().map(captured).collect();
    image
}

/// A flat image: `count` sleepers with the numbers from 2000 on.
pub(crate) fn sleepers(count: usize) -> Image {
    let mut kernel = Kernel::boot();
    for _ in 0..count {
        kernel.fork(LAUNCHER, &[], false, &[]).expect("a child");
    }
    image_of(&kernel)
}
