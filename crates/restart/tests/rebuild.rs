//! Trees of real processes: captured, ended, and rebuilt; then every relation is as it was.

use std::ffi::OsString;
use std::fs;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use pinfold_restart::capture::{capture_below, capture_frozen};
use pinfold_restart::image::{Captured, Image, Nursery};
use pinfold_restart::pids::{Cloned, NEW_PID_NAMESPACE, Request, clone_with_pids};
use pinfold_restart::rebuild::{Options, RebuildError, lost_capabilities, rebuild};
use pinfold_restart::schedule::ScheduleError;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use rustix::io::Errno;
use rustix::thread::CapabilitySet;

use crate::arena::Case;
use crate::naive::{Kernel, LAUNCHER, State};
use crate::real::{end_all, image_of, others, sleep, sleepers, start, wait_for_sleepers};

pub(crate) const CASES: &[Case] = &[
    ("sessions_and_pipelines", sessions_and_pipelines),
    ("daemons_and_dead_leaders", daemons_and_dead_leaders),
    ("zombies", zombies),
    ("namespaces_three_deep", namespaces_three_deep),
    ("other_namespaces", other_namespaces),
    ("user_namespaces_with_what_they_own", user_namespaces),
    ("user_namespaces_within_pid_namespaces", user_namespaces_within_pid_namespaces),
    ("a_user_namespace_that_may_not_be_made_leaves_nothing", a_refused_user_namespace),
    ("credentials_limits_and_directories", credentials_limits_and_directories),
    ("nobody_has_a_descriptor_that_was_open_here", descriptors),
    ("a_directory_may_be_called_deleted", called_deleted),
    ("bounding_sets_are_cut_and_what_the_builder_lost_is_named", bounding_sets),
    ("a_root_directory_of_its_own_comes_back", root_directory),
    ("limits_that_leave_no_room_for_what_is_left_to_do", tight_limits),
    ("a_command_is_found_by_the_callers_path", command_by_the_callers_path),
    ("a_pid_namespace_without_a_process_yet", a_fresh_namespace),
    ("a_thousand_random_processes", random_forests),
    ("stopped_processes_are_stopped_at_their_first_instruction", stopped_processes),
    ("a_terminal_comes_back_with_its_session", a_terminal_comes_back),
    ("processes_that_entered_a_namespace", processes_that_entered_a_namespace),
    ("below_an_unknown_namespace_the_kernel_chooses_there", below_an_unknown_namespace),
];

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

/// Captures below `root`, ends everything, rebuilds, and requires that the relations are equal.
fn captured_ended_rebuilt(root: u32) -> Image {
    let before = kernels_word();
    let image = capture_below(root).expect("a capture");
    let again = Image::from_json(image.to_json().expect("JSON").as_bytes()).expect("the same file");
    assert_eq!(again, image);
    end_all();
    let roots = rebuild(&image, &Options { command: None, ..Options::default() }).expect("rebuilt");
    assert_eq!(roots.len(), 1);
    wait_until_equal(&image, root);
    assert_eq!(kernels_word(), before);
    end_all();
    image
}

/// What /proc says of who is whose, in the kernel's words: nothing of pinfold's is between.
fn kernels_word() -> Vec<String> {
    let told = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let is_told = |line: &&str| {
            ["PPid:", "NSpid:", "NSpgid:", "NSsid:"].iter().any(|field| line.starts_with(field))
        };
        status.lines().filter(is_told).collect::<Vec<_>>().join(" ")
    };
    others().iter().map(told).collect()
}

/// A program changes what it wants once it runs; what it was given is seen at once or after it has started.
fn wait_until_equal(image: &Image, root: u32) {
    let expected = comparable(image);
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let again = capture_below(root).expect("a capture");
        let seen = comparable(&again);
        if seen == expected {
            assert_eq!((&again.user_namespaces, &again.owners), (&image.user_namespaces, &image.owners));
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
    assert_eq!((&seen.user_namespaces, &seen.owners), (&image.user_namespaces, &image.owners));
    end_all();
    image
}

fn root_directory() {
    let root = start("mount --bind / /mnt; exec chroot /mnt sh -c 'cd /usr && exec sleep 1000'");
    wait_for_sleepers(1);
    let image = captured_ended_rebuilt(root);
    let living = image.processes[0].living.as_ref().expect("no zombie");
    assert_eq!((living.root.0.to_str(), living.directory.0.to_str()), (Some("/mnt"), Some("/usr")));
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

/// As plain users make them (one user is root inside), as root makes them for a container (a range of users), one in another
/// that nobody is in any more, and one in another that is somebody's.
fn user_namespaces() {
    let script = "plain() { exec setpriv --reuid $1 --regid $1 --clear-groups \"${@:2}\"; }
        plain 1000 unshare --map-root-user --net --uts sleep 1000 &
        plain 1001 unshare --map-root-user --ipc unshare --map-user=5 --net sleep 1000 &
        plain 1002 unshare --map-root-user sh -c 'unshare --map-user=6 --mount sleep 1000 & exec sleep 1000' &
        unshare --user --keep-caps --mount sh -c '
            until grep -q . /proc/self/uid_map; do :; done
            setpriv --reuid 7 --regid 8 --groups 9 sleep 1000 &
            exec setpriv --reuid 0 --regid 0 --clear-groups sleep 1000' &
        until echo 0 100000 1000 >/proc/$!/gid_map; do :; done 2>/dev/null
        until echo 0 100000 1000 >/proc/$!/uid_map; do :; done 2>/dev/null
        exec sleep 1000";
    let root = start(script);
    wait_for_sleepers(7);
    let image = captured_ended_rebuilt(root);
    let mut makers: Vec<u32> = image.user_namespaces.iter().map(|space| space.maker).collect();
    makers.sort_unstable();
    assert_eq!(makers, [0, 1000, 1001, 1001, 1002, 1002], "{:#?}", image.user_namespaces);
    assert_eq!(image.owners["net"].len(), 2);
    let nested = image.user_namespaces.iter().filter(|space| space.parent != 0);
    assert!(nested.clone().all(|space| space.uids.len() == 1 && !space.setgroups), "{nested:?}");
}

/// As rootless containers: their first process is root inside, with a /proc of its own; and somebody enters them later.
fn user_namespaces_within_pid_namespaces() {
    let script = "setpriv --reuid 1000 --regid 1000 --clear-groups \
            unshare --map-root-user --pid --fork --mount-proc sh -c 'sleep 1000 & exec sleep 1000' &
        until pid=$(pgrep -x -P $! sleep); do :; done
        nsenter --target $pid --user --mount --pid --no-fork sleep 1000 &
        exec sleep 1000";
    let root = start(script);
    wait_for_sleepers(4);
    let image = captured_like(root);
    let inside = image.processes.iter().filter_map(|process| process.living.as_ref());
    assert_eq!(inside.filter(|living| living.namespaces["user"] == 1).count(), 4, "{image:#?}");
    assert_eq!((image.pid_namespaces.len(), &image.owners["mnt"]), (2, &vec![1]));
}

/// A map that the kernel does not take: what was made by then goes.
fn a_refused_user_namespace() {
    let root = start("unshare --map-root-user sleep 1000 & exec sleep 1000");
    wait_for_sleepers(2);
    let mut image = capture_below(root).expect("a capture");
    end_all();
    // More ids than there are would be refused as a file; these have no number in the namespace around.
    let nested = image.user_namespaces[0].clone();
    image.user_namespaces[0].uids = vec![[0, 0, 1].into()];
    image.user_namespaces.push(pinfold_restart::image::UserNamespace {
        parent: 1,
        uids: vec![[0, 70, 1].into()],
        ..nested
    });
    for living in image.processes.iter_mut().filter_map(|process| process.living.as_mut()) {
        if living.namespaces["user"] == 1 {
            living.namespaces.insert("user".to_owned(), 2);
        }
    }
    let error = rebuild(&image, &Options::default()).expect_err("70 has no number around");
    assert_eq!(error.errno(), Errno::INVAL, "{error}");
    assert_eq!(others(), [0; 0]);
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

/// One that is not closed on execve(2), as a shell hands it on.
fn descriptors() {
    let open = fs::File::open("/proc/self/status").expect("it is there");
    let kept = rustix::io::dup(&open).expect("a descriptor");
    assert!(!rustix::io::fcntl_getfd(&kept).expect("its flags").contains(rustix::io::FdFlags::CLOEXEC));
    rebuild(&sleepers(1), &Options { command: sleep(), ..Options::default() }).expect("rebuilt");
    wait_for_sleepers(1);
    for pid in others() {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives");
        let mut numbers: Vec<_> = open.map(|entry| entry.expect("a descriptor").file_name()).collect();
        numbers.sort();
        assert_eq!(numbers, ["0", "1", "2"], "process {pid}");
    }
    end_all();
}

fn called_deleted() {
    let root = start("mkdir '/tmp/here (deleted)'; cd '/tmp/here (deleted)'; exec sleep 1000");
    wait_for_sleepers(1);
    let image = captured_ended_rebuilt(root);
    let living = image.processes[0].living.as_ref().expect("it lives");
    assert_eq!(living.directory.as_os_str(), "/tmp/here (deleted)");
    fs::remove_dir("/tmp/here (deleted)").expect("it is empty");
}

fn bounding_sets() {
    let whole = sleepers(1);
    let root = start("exec setpriv --bounding-set -sys_time sleep 1000");
    wait_for_sleepers(1);
    let cut = capture_below(root).expect("a capture");
    end_all();
    assert_eq!(lost_capabilities(&cut).expect("readable"), [""; 0]);
    // What the builder may not do itself stands in its bounding set all the same.
    let mut own = rustix::thread::capabilities(None).expect("one's own");
    own.effective.remove(CapabilitySet::SYS_TIME);
    own.permitted.remove(CapabilitySet::SYS_TIME);
    rustix::thread::set_capabilities(None, own).expect("capabilities may be dropped");
    rebuild(&cut, &Options::default()).expect("rebuilt");
    wait_until_equal(&cut, root);
    end_all();
    rustix::thread::remove_capability_from_bounding_set(CapabilitySet::SYS_TIME).expect("it may be dropped");
    assert_eq!(lost_capabilities(&whole).expect("readable"), ["CAP_SYS_TIME"]);
    assert_eq!(lost_capabilities(&cut).expect("readable"), [""; 0]);
}

/// A program may have given itself less than what its rebuilding takes.
fn tight_limits() {
    let script = "ulimit -n 4 -v 20000; sleep 1000 & \
        unshare --map-root-user --net sleep 1000 & exec sleep 1000";
    let root = start(script);
    wait_for_sleepers(3);
    let image = captured_ended_rebuilt(root);
    let limited = image.processes.iter().filter_map(|process| process.living.as_ref());
    let tight = (Some(4), Some(4));
    assert_eq!(limited.filter(|living| living.limits["nofile"] == tight).count(), 3);
}

/// What the capture file calls PATH is whoever's who was captured.
fn command_by_the_callers_path() {
    let mut image = sleepers(1);
    let living = image.processes[0].living.as_mut().expect("it lives");
    living.environment = vec![pinfold_restart::image::Text::of(b"PATH=/nowhere")];
    rebuild(&image, &Options { command: sleep(), ..Options::default() }).expect("our PATH has it");
    wait_for_sleepers(1);
    end_all();
}

/// Its maker has not forked since.
fn a_fresh_namespace() {
    let root = start("unshare --pid sleep 1000 & exec sleep 1000");
    wait_for_sleepers(2);
    let image = captured_ended_rebuilt(root);
    assert_eq!(image.processes.iter().filter(|process| process.children_in == Nursery::Fresh).count(), 1);
}

/// The real kernel against the naive one: what the schedule makes is captured again, for random forests.
fn random_forests() {
    let config = Config { cases: 40, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let call = (0..100_u8, any::<usize>(), any::<usize>());
    let (mut total, mut images, mut refused) = (0, 0, 0);
    // A guest without KVM takes a hundred times as long.
    let enough = if std::env::var_os("PINFOLD_TEST_VM").is_some() { 100 } else { 1000 };
    while total <= enough {
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
        images += 1;
        match rebuild(&image, &Options { command: sleep(), ..Options::default() }) {
            Err(RebuildError::Schedule(ScheduleError::Impossible { .. })) => refused += 1,
            Err(error) => panic!("{error}\n{:#?}", image.tree()),
            Ok(_) => {
                let seen = capture_frozen(&others()).expect("a capture");
                assert_eq!(relations(&seen), relations(&image));
            }
        }
        end_all();
    }
    assert!(refused * 5 <= images, "{refused} of {images} refused as impossible");
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

/// The image's numbers are those of the restarting process's namespace; in the one above, where they are taken, others are
/// chosen.
fn below_an_unknown_namespace() {
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

/// One that was stopped has executed its program, and has not run an instruction of it: the shell writes nothing.
fn stopped_processes() {
    let root =
        start("sleep 1000 & kill -STOP $!; (setsid sh -c 'kill -STOP $$' &); sleep 1000 & exec sleep 1000");
    let stopped = |image: &Image| {
        let living = image.processes.iter().filter_map(|process| process.living.as_ref());
        living.filter(|living| living.stopped).count()
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    // One may be stopped before it has become `sleep`.
    let is_up = || {
        let line = fs::read(format!("/proc/{root}/cmdline")).unwrap_or_default();
        line.starts_with(b"sleep\0") && others().len() == 4
    };
    while !is_up() || stopped(&capture_frozen(&others()).expect("a capture")) != 2 {
        assert!(Instant::now() < deadline, "no two are stopped: {:?}", others());
        std::thread::yield_now();
    }
    let image = capture_frozen(&others()).expect("a capture");
    end_all();
    let file = std::env::temp_dir().join(format!("pinfold-stopped-{}", image.processes[0].started));
    let script = format!("echo ran >>{}; exec sleep 1000", file.display());
    let command = Some(["sh", "-c", &script].map(OsString::from).to_vec());
    rebuild(&image, &Options { command, ..Options::default() }).expect("rebuilt");
    wait_for_sleepers(2);
    let seen = capture_frozen(&others()).expect("a capture");
    assert_eq!(relations(&seen), relations(&image));
    assert_eq!(stopped(&seen), 2);
    let ran = fs::read_to_string(&file).expect("two have run");
    fs::remove_file(&file).expect("it is there");
    assert_eq!(ran, "ran\nran\n");
    let shell = seen.processes.iter().filter_map(|process| process.living.as_ref());
    let shells = shell.filter(|living| living.executable.as_os_str().as_encoded_bytes().ends_with(b"sh"));
    assert_eq!(shells.count(), 2, "both stopped ones have executed it");
    end_all();
}

/// A session with a terminal, its jobs, and one that was born before the terminal was taken.
fn a_terminal_comes_back() {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo terminal");
    grantpt(&master).expect("ours");
    unlockpt(&master).expect("ours");
    let name = ptsname(&master, Vec::new()).expect("a name").into_string().expect("UTF-8");
    // setsid(1) takes its standard input as the terminal; the shell then has jobs.
    let script = format!(
        "exec setsid --ctty bash -c 'set -m; sleep 1000 & (setsid sleep 1000 &); exec sleep 1000' <{name}"
    );
    start(&script);
    wait_for_sleepers(3);
    let image = capture_frozen(&others()).expect("a capture");
    let living = |image: &Image| -> Vec<(u32, Option<u64>, bool)> {
        let of = |process: &Captured| {
            let living = process.living.as_ref().expect("it lives");
            (process.pids[0], living.terminal, living.foreground)
        };
        let mut list: Vec<_> = image.processes.iter().map(of).collect();
        list.sort_unstable();
        list
    };
    let with = living(&image).iter().filter(|(_, terminal, _)| terminal.is_some()).count();
    assert_eq!(with, 2, "the session's leader and its job: {:?}", living(&image));
    end_all();
    let options = Options { command: sleep(), ..Options::default() };
    rebuild(&image, &options).expect("rebuilt");
    let seen = capture_frozen(&others()).expect("a capture");
    assert_eq!((living(&seen), relations(&seen)), (living(&image), relations(&image)));
    // It is somebody's now, so nobody else can have it.
    let mut other = image.clone();
    for process in &mut other.processes {
        let shift = |list: &mut Vec<u32>| list.iter_mut().for_each(|pid| *pid += 1000);
        [&mut process.pids, &mut process.session, &mut process.group].into_iter().for_each(shift);
    }
    let before = others();
    let error = rebuild(&other, &options).expect_err("the terminal is taken");
    assert_eq!(error.errno(), Errno::PERM);
    assert!(error.to_string().contains("makes a session: cannot take the terminal 136:"), "{error}");
    assert_eq!(others(), before);
    let without = Options { without_terminals: true, ..options };
    rebuild(&other, &without).expect("without it");
    let seen = capture_frozen(&others()).expect("a capture");
    assert_eq!(
        living(&seen).iter().filter(|(_, terminal, _)| terminal.is_some()).count(),
        2,
        "the first ones"
    );
    end_all();
}

/// As `docker exec` and nsenter(1) do it: into a container, from outside, and with the rest of a pipeline outside.
fn processes_that_entered_a_namespace() {
    let script = "unshare --pid --fork sleep 1000 & \
        until pid=$(pgrep -x -P $! sleep); do :; done; \
        nsenter --target $pid --pid setsid sleep 1000 & \
        set -m; sleep 1000 | nsenter --target $pid --pid sleep 1000 & \
        exec sleep 1000";
    let root = start(script);
    wait_for_sleepers(5);
    let image = captured_like(root);
    let inside = image.processes.iter().filter(|process| process.pid_namespace == 1).count();
    assert_eq!((image.pid_namespaces.len(), inside), (2, 3), "{image:#?}");
}
