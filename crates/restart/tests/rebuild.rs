//! Trees of real processes: captured, ended, and rebuilt; then every relation is as it was.

mod arena;
mod naive;

use std::ffi::OsString;
use std::fs;
use std::os::fd::AsFd;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use naive::{Kernel, LAUNCHER, State};
use pinfold_restart::capture::{capture_below, capture_frozen};
use pinfold_restart::image::{Captured, Image, Nursery};
use pinfold_restart::rebuild::{Options, RebuildError, rebuild};
use pinfold_restart::schedule::ScheduleError;
use pinfold_restart::tree::ChildrenIn;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal};

fn main() -> ExitCode {
    arena::main(&[
        ("sessions_and_pipelines", sessions_and_pipelines),
        ("daemons_and_dead_leaders", daemons_and_dead_leaders),
        ("zombies", zombies),
        ("namespaces_three_deep", namespaces_three_deep),
        ("other_namespaces", other_namespaces),
        ("credentials_limits_and_directories", credentials_limits_and_directories),
        ("a_thousand_random_processes", random_forests),
        ("a_taken_pid_leaves_nothing", a_taken_pid_leaves_nothing),
        ("a_program_that_is_gone_leaves_nothing", a_program_that_is_gone_leaves_nothing),
        ("a_terminal_is_refused", a_terminal_is_refused),
        ("a_pid_above_pid_max_leaves_nothing", a_pid_above_pid_max_leaves_nothing),
        ("without_the_capability_nothing_is_made", without_the_capability_nothing_is_made),
        ("a_filter_that_forbids_clone3_is_named", a_filter_that_forbids_clone3_is_named),
        ("below_an_unknown_namespace_the_kernel_chooses_there", below_an_unknown_namespace),
    ])
}

/// Every process of this namespace but the first, which runs the test.
fn others() -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("/proc");
    let pid = |entry: std::io::Result<fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse().ok();
    let mut pids: Vec<u32> = entries.filter_map(pid).filter(|&pid| pid != 1).collect();
    pids.sort_unstable();
    pids
}

/// Ends every process of this namespace but the first.
fn end_all() {
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
fn start(script: &str) -> u32 {
    let mut command = Command::new("bash");
    command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::null());
    command.spawn().expect("bash").id()
}

/// Waits until as many processes execute `sleep` as a script starts.
fn wait_for_sleepers(count: usize) {
    let sleeps =
        |&pid: &u32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"sleep\0"));
    let deadline = Instant::now() + Duration::from_secs(20);
    while others().iter().filter(|pid| sleeps(pid)).count() != count {
        assert!(Instant::now() < deadline, "not {count} sleepers: {:?}", others());
        std::thread::yield_now();
    }
}

/// What must be equal before and after: everything but when each process started.
fn comparable(image: &Image) -> Vec<Captured> {
    let mut processes = image.processes.clone();
    processes.iter_mut().for_each(|process| process.started = 0);
    processes.sort_by_key(|process| process.pids[0]);
    for process in &mut processes {
        process.parent = process.parent.map(|parent| image.processes[parent].pids[0] as usize);
    }
    processes
}

fn sleep() -> Option<Vec<OsString>> {
    Some(vec!["sleep".into(), "1000".into()])
}

/// Captures below `root`, ends everything, rebuilds, and requires that the relations are equal.
fn captured_ended_rebuilt(root: u32) -> Image {
    let image = capture_below(root).expect("a capture");
    let again = Image::from_json(image.to_json().expect("JSON").as_bytes()).expect("the same file");
    assert_eq!(again, image);
    end_all();
    let roots = rebuild(&image, &Options { command: None, ..Options::default() }).expect("rebuilt");
    assert_eq!(roots.len(), 1);
    wait_until_equal(&image, root);
    end_all();
    image
}

/// A program changes what it wants once it runs; what it was given is seen at once or after it has started.
fn wait_until_equal(image: &Image, root: u32) {
    let expected = comparable(image);
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let seen = comparable(&capture_below(root).expect("a capture"));
        if seen == expected {
            return;
        }
        assert!(Instant::now() < deadline, "expected {expected:#?}\nseen {seen:#?}");
        std::thread::yield_now();
    }
}

fn sessions_and_pipelines() {
    let script = "set -m; sleep 1000 | sleep 1000 & sleep 1000 & setsid sh -c 'sleep 1000 & sleep 1000; :' & exec sleep 1000";
    let root = start(script);
    wait_for_sleepers(6);
    let image = capture_below(root).expect("a capture");
    let groups: std::collections::BTreeSet<_> =
        image.processes.iter().map(|process| &process.group).collect();
    assert_eq!(groups.len(), 4, "the root's, two jobs, a session: {image:#?}");
    captured_like(root);
}

/// As `captured_ended_rebuilt`, with a command: shells would start their jobs again.
fn captured_like(root: u32) -> Image {
    let image = capture_below(root).expect("a capture");
    end_all();
    rebuild(&image, &Options { command: sleep(), ..Options::default() }).expect("rebuilt");
    let relations = |image: &Image| {
        let strip = |mut process: Captured| {
            if let Some(living) = &mut process.living {
                living.arguments.clear();
                living.executable = Default::default();
            }
            process
        };
        comparable(image).into_iter().map(strip).collect::<Vec<_>>()
    };
    let seen = capture_below(root).expect("a capture");
    assert_eq!(relations(&seen), relations(&image));
    assert_eq!(seen.pid_namespaces, image.pid_namespaces);
    end_all();
    image
}

fn daemons_and_dead_leaders() {
    // The daemons' leaders fork twice and end; they come to the namespace's first process.
    let script = "exec unshare --pid --fork sh -c '\
        (setsid sh -c \"sleep 1000 & sleep 1000 & exit\" &); \
        (setsid sh -c \"(sleep 1000 &); exec sleep 1000\" &); exec sleep 1000'";
    let root = start(script);
    wait_for_sleepers(5);
    let image = captured_like(root);
    let dead = image.processes.iter().filter(|process| {
        image.processes.iter().all(|other| Some(&other.pids[0]) != process.session.first())
    });
    assert!(dead.count() >= 2, "{image:#?}");
}

fn zombies() {
    let root = start("exec sh -c 'sh -c \"exit 3\" & setsid sh -c \"exit 4\" & exec sleep 1000'");
    let deadline = Instant::now() + Duration::from_secs(10);
    let count = |image: &Image| image.processes.iter().filter(|process| process.living.is_none()).count();
    while count(&capture_below(root).expect("a capture")) != 2 {
        assert!(Instant::now() < deadline, "no two zombies");
    }
    wait_for_sleepers(1);
    assert_eq!(count(&captured_ended_rebuilt(root)), 2);
}

fn namespaces_three_deep() {
    let script = "exec unshare --pid --fork sh -c 'sleep 1000 & unshare --pid --fork sh -c \"\
        sleep 1000 & exec unshare --pid --fork sleep 1000\" & exec sleep 1000'";
    let root = start(script);
    wait_for_sleepers(4);
    let image = captured_like(root);
    assert_eq!(image.pid_namespaces, [None, Some(0), Some(1), Some(2)]);
    assert!(image.processes.iter().any(|process| process.pids.len() == 4 && process.pids[3] == 1));
    let nurseries = image.processes.iter().filter(|process| process.children_in != Nursery::Own).count();
    assert_eq!(nurseries, 3, "unshare(1) keeps having its children in the new namespace");
}

fn other_namespaces() {
    let script = "unshare --uts --ipc sleep 1000 & unshare --mount --net sh -c 'sleep 1000 & exec sleep 1000' & exec sleep 1000";
    let root = start(script);
    wait_for_sleepers(4);
    let image = captured_like(root);
    let shared = image.processes.iter().filter_map(|process| process.living.as_ref());
    let net = |living: &&pinfold_restart::image::Living| living.namespaces["net"] == 1;
    assert_eq!(shared.filter(net).count(), 2);
}

fn credentials_limits_and_directories() {
    let script = "ulimit -n 100; umask 027; cd /usr; nice -n 5 setpriv --reuid 1234 --regid 2345 --groups 7,8 \
        --bounding-set -sys_admin --inh-caps +net_raw env -i A=b sleep 1000 & \
        echo 500 > /proc/self/oom_score_adj; exec sleep 1000";
    let root = start(script);
    wait_for_sleepers(2);
    let image = captured_ended_rebuilt(root);
    let child = image
        .processes
        .iter()
        .find(|process| process.parent.is_some())
        .and_then(|child| child.living.as_ref());
    let child = child.expect("a living child");
    assert_eq!(child.credentials.uids, [1234; 3]);
    assert_eq!(child.credentials.groups, [7, 8]);
    assert_eq!((child.umask, child.nice), (0o027, 5));
    assert_eq!(child.limits["nofile"], (Some(100), Some(100)));
    assert_eq!(child.environment, [pinfold_restart::image::Text::of(b"A=b")]);
}

/// An image of a naive tree: everybody is as this process is.
fn image_of(kernel: &Kernel) -> Image {
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

/// The real kernel against the naive one: what the schedule makes is captured again, for random forests.
fn random_forests() {
    let config = Config { cases: 40, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let call = (0..100_u8, any::<usize>(), any::<usize>());
    let mut total = 0;
    while total <= 1000 {
        let calls = proptest::collection::vec(call.clone(), 60..160).new_tree(&mut runner).expect("calls");
        let mut kernel = Kernel::boot();
        kernel.tasks[LAUNCHER].subreaper = true;
        for (kind, who, other) in proptest::strategy::ValueTree::current(&calls) {
            let alive: Vec<_> =
                (LAUNCHER..kernel.tasks.len()).filter(|&id| kernel.tasks[id].state == State::Alive).collect();
            let (by, other) = (alive[who % alive.len()], alive[other % alive.len()]);
            // Refusals change nothing.
            let _ = kernel.carry_out(kind, by, other);
        }
        let image = image_of(&kernel);
        total += image.processes.len();
        match rebuild(&image, &Options { command: sleep(), ..Options::default() }) {
            Err(RebuildError::Schedule(ScheduleError::Impossible { .. })) => {}
            Err(error) => panic!("{error}\n{:#?}", image.tree()),
            Ok(_) => {
                let seen = capture_frozen(&others()).expect("a capture");
                assert_eq!(relations(&seen), relations(&image));
            }
        }
        end_all();
    }
}

/// Numbers and namespaces alone; namespaces by their first process's number.
fn relations(image: &Image) -> Vec<String> {
    let first = |namespace: usize| {
        let first =
            |process: &&Captured| process.pid_namespace == namespace && process.pids.last() == Some(&1);
        if namespace == 0 {
            0
        } else {
            image.processes.iter().find(first).map_or(0, |process| process.pids[0])
        }
    };
    let line = |process: &Captured| {
        let parent = process.parent.map_or(0, |parent| image.processes[parent].pids[0]);
        let nursery = match process.children_in {
            Nursery::Namespace(namespace) => first(namespace),
            Nursery::Own => 1,
            Nursery::Fresh => 2,
        };
        format!(
            "{:?} of {parent} session {:?} group {:?} in {} children in {nursery} {}",
            process.pids,
            process.session,
            process.group,
            first(process.pid_namespace),
            if process.living.is_some() { "lives" } else { "zombie" },
        )
    };
    let mut lines: Vec<String> = image.processes.iter().map(line).collect();
    lines.sort();
    lines
}

/// A flat image: `count` sleepers with the numbers from 2000 on.
fn sleepers(count: usize) -> Image {
    let mut kernel = Kernel::boot();
    for _ in 0..count {
        kernel.fork(LAUNCHER, &[], false, &[]).expect("a child");
    }
    image_of(&kernel)
}

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

/// Lets the kernel answer clone3 (435) with EPERM, then becomes this program again: only a fresh one is told what to run.
const FILTER: &str = "
import ctypes, os, struct, sys
code = b''.join(struct.pack('HBBI', *i) for i in
    [(0x20, 0, 0, 0), (0x15, 0, 1, 435), (0x06, 0, 0, 0x50001), (0x06, 0, 0, 0x7fff0000)])
text = ctypes.create_string_buffer(code, len(code))
program = ctypes.create_string_buffer(struct.pack('HxxxxxxQ', 4, ctypes.addressof(text)), 16)
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0, ctypes.get_errno()
os.environ['PINFOLD_RESTART_FILTERED'] = '1'
os.execv(sys.argv[1], sys.argv[1:])
";

fn a_filter_that_forbids_clone3_is_named() {
    use std::os::unix::process::CommandExt;
    if std::env::var_os("PINFOLD_RESTART_FILTERED").is_some() {
        let error = refused(&sleepers(2));
        assert_eq!(error.errno(), Errno::PERM);
        assert!(error.to_string().contains("clone3 does not reach the kernel"), "{error}");
        return;
    }
    let own = std::env::current_exe().expect("a path of this program");
    let error = Command::new("python3").args(["-c", FILTER]).arg(own).exec();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}");
    eprintln!("skipped: python3, which sets the filter, is not installed");
}

/// The image's numbers are those of the restarting process's namespace; in the one above, where they are taken, others are
/// chosen.
fn below_an_unknown_namespace() {
    use pinfold_restart::pids::{Cloned, NEW_PID_NAMESPACE, Request, clone_with_pids};
    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    const NEW_MOUNT_NAMESPACE: u32 = 0x2_0000;
    let image = sleepers(3);
    rebuild(&image, &Options { command: sleep(), ..Options::default() }).expect("rebuilt");
    assert_eq!(others(), [2000, 2001, 2002]);
    let namespaces = NEW_PID_NAMESPACE | NEW_MOUNT_NAMESPACE;
    match clone_with_pids(&Request { namespaces, ..Request::default() }).expect("root may") {
        Cloned::Child => {
            let passed = std::panic::catch_unwind(|| {
                let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
                mount_change("/", private).expect("root may");
                mount("proc", "/proc", "proc", MountFlags::empty(), None::<&std::ffi::CStr>)
                    .expect("root may");
                rebuild(&image, &Options { command: sleep(), ..Options::default() }).expect("rebuilt again");
                assert_eq!(others(), [2000, 2001, 2002]);
            });
            pinfold_sys::clone::exit_now(u8::from(passed.is_err()))
        }
        Cloned::Parent { pidfd, .. } => {
            let status =
                waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).expect("a child of ours");
            assert_eq!(status.expect("it has ended").exit_status(), Some(0), "the inner one failed");
        }
    }
    end_all();
}
