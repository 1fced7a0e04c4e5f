//! Files that stay open between uses never answer for a directory that is gone, and never half.

use std::fs;
use std::thread;

use crate::ground::{Ground, Process, dir};
use pinfold_kernel::{Cause, Place, ReadError, Step, Tree};
use pinfold_model::HostPid;

const LEAF: &str = "cell.1";

fn make(tree: &Tree) {
    tree.carry_out(&[Step::Make(dir(LEAF))]).unwrap();
}

fn enter(tree: &Tree, process: HostPid) -> Result<(), Cause> {
    let step = Step::Move { process, to: Place::Dir(dir(LEAF)) };
    tree.carry_out(&[step]).map_err(|error| error.cause)
}

/// Uses everything of a leaf that is held from then on.
fn use_all(tree: &Tree, process: &Process) {
    enter(tree, process.pid()).unwrap();
    assert!(tree.events(&dir(LEAF)).unwrap().populated);
    assert_eq!(tree.processes(&dir(LEAF)).unwrap(), [process.pid()]);
    assert_eq!(tree.threads(&dir(LEAF)).unwrap(), [process.pid()]);
}

/// Removes the leaf behind the tree's back.
fn remove_as_a_stranger(ground: &Ground, tree: &Tree, process: &Process) {
    let out = Step::Move { process: process.pid(), to: Place::Scope };
    tree.carry_out(&[out]).unwrap();
    fs::remove_dir(ground.base.join("pinfold.r").join(LEAF)).unwrap();
}

#[test]
fn a_leaf_that_a_stranger_removed_is_gone_although_its_files_are_held() {
    let Some(ground) = Ground::new() else { return };
    let tree = ground.open("r", &[]);
    let process = Process::sleep();
    make(&tree);
    use_all(&tree, &process);
    remove_as_a_stranger(&ground, &tree, &process);
    for _ in 0..2 {
        assert!(matches!(tree.events(&dir(LEAF)), Err(ReadError::Gone { .. })));
        assert!(matches!(tree.processes(&dir(LEAF)), Err(ReadError::Gone { .. })));
        assert!(matches!(enter(&tree, process.pid()), Err(Cause::Gone { .. })));
    }
}

#[test]
fn a_leaf_that_was_made_again_is_read_and_not_the_one_before() {
    let Some(ground) = Ground::new() else { return };
    let tree = ground.open("r", &[]);
    let process = Process::sleep();
    make(&tree);
    use_all(&tree, &process);
    remove_as_a_stranger(&ground, &tree, &process);
    make(&tree);
    assert!(!tree.events(&dir(LEAF)).unwrap().populated);
    assert!(tree.processes(&dir(LEAF)).unwrap().is_empty());
    use_all(&tree, &process);
}

#[test]
fn nothing_of_a_leaf_that_was_removed_stays_open() {
    let Some(ground) = Ground::new() else { return };
    let tree = ground.open("r", &[]);
    let process = Process::sleep();
    make(&tree);
    use_all(&tree, &process);
    let of_the_leaf = || {
        let open = fs::read_dir("/proc/self/fd").unwrap();
        let links = open.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
        let leaf = ground.base.join("pinfold.r").join(LEAF);
        links.filter(|link| link.to_string_lossy().starts_with(leaf.to_str().unwrap())).count()
    };
    assert_eq!(of_the_leaf(), 5, "the leaf, cgroup.events, both lists, and cgroup.procs for moves");
    let out = Step::Move { process: process.pid(), to: Place::Scope };
    tree.carry_out(&[out, Step::Remove(dir(LEAF))]).unwrap();
    assert_eq!(of_the_leaf(), 0);
}

#[test]
fn a_directory_that_a_stranger_makes_below_a_leaf_is_seen_although_the_leaf_is_held() {
    let Some(ground) = Ground::new() else { return };
    let tree = ground.open("r", &[]);
    let (one, other) = (Process::sleep(), Process::sleep());
    make(&tree);
    use_all(&tree, &one);
    let below = ground.base.join("pinfold.r").join(LEAF).join("stranger");
    fs::create_dir(&below).unwrap();
    fs::write(below.join("cgroup.procs"), other.pid().to_string()).unwrap();
    let mut both = [one.pid(), other.pid()];
    both.sort();
    assert_eq!(tree.processes(&dir(LEAF)).unwrap(), both);
    drop(other);
    fs::remove_dir(&below).unwrap();
    assert_eq!(tree.processes(&dir(LEAF)).unwrap(), [one.pid()]);
}

#[test]
fn a_list_longer_than_a_page_is_whole_for_every_reader() {
    const TASKS: usize = 1500;
    let Some(ground) = Ground::new() else { return };
    let tree = ground.open("r", &[]);
    let script = format!(
        "import threading, time\nthreading.stack_size(65536)\ninput()\n\
        for _ in range({TASKS} - 1): threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n\
        print(1, flush=True)\ninput()\n"
    );
    let mut process = Process::run("python3", &["-c", &script]);
    make(&tree);
    use_all(&tree, &process);
    process.go();
    process.line();
    let leaf = dir(LEAF);
    thread::scope(|scope| {
        let readers: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| (0..20).map(|_| tree.threads(&leaf).unwrap().len()).collect::<Vec<_>>()))
            .collect();
        for reader in readers {
            assert_eq!(reader.join().unwrap(), [TASKS; 20]);
        }
    });
    let listed = tree.threads(&leaf).unwrap();
    let mut expected: Vec<_> = fs::read_dir(format!("/proc/{}/task", process.pid()))
        .unwrap()
        .map(|entry| {
            entry.unwrap().file_name().to_str().unwrap().parse().ok().and_then(HostPid::new).unwrap()
        })
        .collect();
    expected.sort();
    assert_eq!(listed, expected);
}
