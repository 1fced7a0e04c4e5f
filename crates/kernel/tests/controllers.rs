//! Controllers, as far as the v2 tree has them: switched on, passed on, enforced, switched off again.
//!
//! Where kernel v1 holds `pids` these print why they are skipped; guests run them on a v2-only kernel. The test of the whole
//! tree needs a machine of its own, and so a guest.

use std::fs;

use crate::ground::{Ground, Process, dir, in_guest, skip};
use pinfold_kernel::{Membership, Place, Step, Tree};
use pinfold_model::HostPid;

/// A base that may use `pids`.
fn ground_with_pids() -> Option<Ground> {
    let ground = Ground::new()?;
    if ground.content("cgroup.controllers").split_whitespace().any(|controller| controller == "pids") {
        Some(ground)
    } else {
        skip("the v2 tree does not pass the controller pids on")
    }
}

fn make(path: &str) -> Step {
    Step::Make(dir(path))
}

fn enter(process: HostPid, path: &str) -> Step {
    Step::Move { process, to: Place::Dir(dir(path)) }
}

#[test]
fn a_limit_on_a_spine_directory_stops_forks_in_all_its_leaves() {
    let Some(ground) = ground_with_pids() else { return };
    let tree = ground.open("r", &["pids", "nonsense"]);
    assert_eq!(tree.available().iter().collect::<Vec<_>>(), ["pids"]);
    assert!(tree.refused().is_empty());
    let script = "read go; (:) && echo forked; read go; (:) && echo forked; true";
    let (mut shell, other) = (Process::run("sh", &["-c", script]), Process::sleep());
    tree.carry_out(&[
        make("spine.1"),
        make("spine.1/cell.2"),
        make("spine.1/cell.3"),
        Step::Write { dir: dir("spine.1"), file: "pids.max", text: "3".into() },
        enter(shell.pid(), "spine.1/cell.2"),
        enter(other.pid(), "spine.1/cell.3"),
    ])
    .unwrap();
    assert_eq!(tree.read(&dir("spine.1"), "pids.current").unwrap(), "2\n");
    shell.go();
    assert_eq!(shell.line(), "forked");
    tree.carry_out(&[Step::Write { dir: dir("spine.1"), file: "pids.max", text: "2".into() }]).unwrap();
    shell.go();
    assert_eq!(shell.line(), "", "the fork failed");
    assert!(tree.read(&dir("spine.1"), "pids.events").unwrap().starts_with("max "));
    other.end();
    shell.end();
    tree.carry_out(&["spine.1/cell.2", "spine.1/cell.3", "spine.1"].map(|path| Step::Remove(dir(path))))
        .unwrap();
    tree.close().unwrap();
    assert_eq!(ground.content("cgroup.subtree_control"), "");
    assert_eq!(ground.listing(), [""; 0]);
}

/// Linux 6.1 and 6.12 follow a limit of a device to a directory that is gone when the device goes (list_del() of freed memory).
#[test]
fn a_directory_with_a_limit_of_a_device_goes_without_it_and_one_that_stays_keeps_it() {
    if !in_guest() {
        return;
    }
    let shell = |script: &str| {
        let status = std::process::Command::new("sh").args(["-c", script]).status();
        assert!(status.expect("sh runs").success(), "{script}");
    };
    shell(
        "modprobe rdma_rxe && ip link add nowhere type dummy && ip link set nowhere up \
           && rdma link add rxe0 type rxe netdev nowhere",
    );
    fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+rdma").expect("a guest's own");
    let ground = Ground::new().expect("a guest has a v2 tree");
    let tree = ground.open("r", &["rdma"]);
    let process = Process::sleep();
    let limit = "rxe0 hca_handle=2 hca_object=max";
    tree.carry_out(&[
        make("spine.1"),
        make("spine.1/cell.2"),
        Step::Entry { dir: dir("spine.1"), file: "rdma.max", text: limit.into() },
        Step::Entry { dir: dir("spine.1/cell.2"), file: "rdma.max", text: limit.into() },
        enter(process.pid(), "spine.1/cell.2"),
    ])
    .unwrap();
    tree.carry_out(&[Step::Remove(dir("spine.1/cell.2"))]).unwrap_err();
    assert_eq!(tree.read(&dir("spine.1/cell.2"), "rdma.max").unwrap(), format!("{limit} \n"));
    process.end();
    tree.carry_out(&["spine.1/cell.2", "spine.1"].map(|path| Step::Remove(dir(path)))).unwrap();
    // What the kernel keeps is freed, and others have it.
    for number in 3..40 {
        tree.carry_out(&[make(&format!("cell.{number}"))]).unwrap();
    }
    shell("rdma link delete rxe0 && ip link delete nowhere");
    tree.close().unwrap();
}

#[test]
fn a_delegated_base_keeps_its_processes_in_a_directory_and_gets_them_back() {
    let Some(ground) = ground_with_pids() else { return };
    let process = Process::sleep();
    fs::write(ground.base.join("cgroup.procs"), process.pid().to_string()).unwrap();
    let tree = ground.open("r", &["pids"]);
    assert_eq!(ground.content("cgroup.subtree_control"), "pids\n");
    let kept = Membership::Outside(format!("{}/pinfold.rest", ground.shown()).into());
    assert_eq!(tree.membership(process.pid()).unwrap(), kept);
    assert_eq!(tree.scope_processes().unwrap(), [process.pid()]);
    tree.carry_out(&[make("cell.1"), enter(process.pid(), "cell.1")]).unwrap();
    fs::remove_dir(ground.base.join("pinfold.rest")).unwrap();
    tree.carry_out(&[Step::Move { process: process.pid(), to: Place::Scope }]).unwrap();
    assert_eq!(
        tree.membership(process.pid()).unwrap(),
        kept,
        "the directory is made again when it is needed"
    );

    // A daemon that was killed and started again still knows what it switched on.
    drop(tree);
    let again = ground.open("r", &["pids"]);
    let second = ground.open("second", &["pids"]);
    assert_eq!(again.dirs(), [dir("cell.1")]);
    second.close().unwrap();
    assert_eq!(ground.content("cgroup.subtree_control"), "pids\n", "the second realm switched nothing on");
    assert_eq!(again.membership(process.pid()).unwrap(), kept);
    again.close().unwrap();
    assert_eq!(again.membership(process.pid()).unwrap(), Membership::Outside(ground.shown().into()));
    assert_eq!(ground.content("cgroup.subtree_control"), "");
    assert_eq!(ground.listing(), [""; 0]);
}

#[test]
fn a_controller_that_somebody_else_relies_on_stays_on() {
    let Some(ground) = ground_with_pids() else { return };
    let other = ground.base.join("other");
    for (file, value, default) in [("pids.max", "5", "max"), ("cgroup.subtree_control", "+pids", "-pids")] {
        fs::create_dir(&other).unwrap();
        let tree = ground.open("r", &["pids"]);
        fs::write(other.join(file), value).unwrap();
        tree.close().unwrap();
        assert_eq!(ground.content("cgroup.subtree_control"), "pids\n", "{file} is used");
        assert_eq!(ground.listing(), ["other"]);
        fs::write(other.join(file), default).unwrap();
        fs::write(ground.base.join("cgroup.subtree_control"), "-pids").unwrap();
        fs::remove_dir(&other).unwrap();
    }
    fs::create_dir(&other).unwrap();
    let tree = ground.open("r", &["pids"]);
    tree.close().unwrap();
    assert_eq!(ground.content("cgroup.subtree_control"), "", "a directory without settings does not use it");
}

#[test]
fn the_last_of_several_realms_switches_off_what_the_first_switched_on() {
    let Some(ground) = ground_with_pids() else { return };
    let process = Process::sleep();
    fs::write(ground.base.join("cgroup.procs"), process.pid().to_string()).unwrap();
    let first = ground.open("first", &["pids"]);
    let second = ground.open("second", &["pids"]);
    first.close().unwrap();
    assert_eq!(ground.content("cgroup.subtree_control"), "pids\n");
    assert_eq!(ground.listing(), ["pinfold.rest", "pinfold.second"]);
    second.close().unwrap();
    assert_eq!(ground.content("cgroup.subtree_control"), "");
    assert_eq!(ground.listing(), [""; 0]);
    assert_eq!(second.membership(process.pid()).unwrap(), Membership::Outside(ground.shown().into()));
}

#[test]
fn a_failed_plan_leaves_the_old_limit() {
    let Some(ground) = ground_with_pids() else { return };
    let tree = ground.open("r", &["pids"]);
    tree.carry_out(&[
        make("spine.1"),
        Step::Write { dir: dir("spine.1"), file: "pids.max", text: "11".into() },
    ])
    .unwrap();
    let limit = |text: &str| Step::Write { dir: dir("spine.1"), file: "pids.max", text: text.into() };
    tree.carry_out(&[limit("7"), make("spine.1/spine.2"), limit("junk")]).unwrap_err();
    assert_eq!(tree.read(&dir("spine.1"), "pids.max").unwrap(), "11\n");
    assert_eq!(ground.listing(), ["pinfold.r", "pinfold.r/spine.1"]);
    let (process, other) = (Process::sleep(), Process::sleep());
    let error = tree
        .carry_out(&[
            make("spine.2"),
            make("spine.2/cell.1"),
            enter(process.pid(), "spine.2/cell.1"),
            enter(other.pid(), "spine.2"),
        ])
        .unwrap_err();
    assert_eq!(
        (error.step, error.errno()),
        (3, pinfold_model::Errno::EBUSY),
        "no process beside a populated leaf"
    );
    assert_eq!(ground.listing(), ["pinfold.r", "pinfold.r/spine.1"]);
}

#[test]
fn the_whole_tree_is_a_base() {
    if !in_guest() {
        return skip("needs the guest").unwrap_or(());
    }
    let mount = Tree::discover().unwrap();
    let control = || fs::read_to_string(mount.point.join("cgroup.subtree_control")).unwrap();
    let before = control();
    let tree = Tree::open(&mount, None, "whole", &["pids", "cpu"]).unwrap();
    assert_eq!(tree.available().iter().collect::<Vec<_>>(), ["cpu", "pids"]);
    let (process, mut zombie) = (Process::sleep(), Process::run("true", &[]));
    let pinned = pinfold_kernel::process::Pinned::of_process(zombie.pid()).unwrap();
    while pinned.verify().is_ok() {
        std::thread::yield_now();
    }
    let scope = tree.scope_processes().unwrap();
    // 1 is init, 2 is kthreadd: kernel threads are members of the root, as on v1.
    for expected in [1, 2, process.pid().get()] {
        assert!(scope.contains(&HostPid::new(expected).unwrap()), "{expected}");
    }
    assert!(!scope.contains(&zombie.pid()), "v1 lists no zombies");
    assert!(tree.scope_threads().unwrap().len() > scope.len());
    tree.carry_out(&[make("cell.1"), enter(process.pid(), "cell.1")]).unwrap();
    assert!(!tree.scope_processes().unwrap().contains(&process.pid()));
    tree.carry_out(&[Step::Move { process: process.pid(), to: Place::Scope }]).unwrap();
    assert_eq!(tree.membership(process.pid()).unwrap(), Membership::Outside("/".into()));
    tree.close().unwrap();
    assert_eq!(control(), before);
    zombie.wait();
}
