//! The kernel's number of a leaf says who is in it, and nothing else does.

use std::fs;

use crate::ground::{Ground, Process, dir};
use pinfold_kernel::pins::Pins;
use pinfold_kernel::{Membership, Place, Step, Tree};
use pinfold_model::HostPid;

fn enter(tree: &Tree, process: HostPid, leaf: &str) {
    let step = Step::Move { process, to: Place::Dir(dir(leaf)) };
    tree.carry_out(&[Step::Make(dir(leaf)), step]).unwrap();
}

fn leave(tree: &Tree, process: HostPid) {
    tree.carry_out(&[Step::Move { process, to: Place::Scope }]).unwrap();
}

/// Where a process is, asked twice: what is learnt the first time answers the second. Proc must say the same.
fn place(tree: &Tree, pins: &Pins, process: HostPid) -> String {
    let ask = || {
        let (pinned, standing) = pins.open(process).unwrap();
        tree.membership_of(&pinned, &standing).unwrap()
    };
    let (first, second) = (ask(), ask());
    assert_eq!(first, second);
    assert_eq!(first, tree.membership(process).unwrap());
    match first {
        Membership::Inside(cell, dir) => format!("{cell}: {dir}"),
        Membership::Outside(_) => "outside".to_owned(),
    }
}

#[test]
fn a_process_is_followed_from_leaf_to_leaf_and_out() {
    let Some(ground) = Ground::new() else { return };
    let (tree, pins) = (ground.open("r", &[]), Pins::default());
    let process = Process::sleep();
    assert_eq!(place(&tree, &pins, process.pid()), "outside");
    for _ in 0..2 {
        for (leaf, expected) in [("cell.1", "1: cell.1"), ("cell.2", "2: cell.2")] {
            enter(&tree, process.pid(), leaf);
            assert_eq!(place(&tree, &pins, process.pid()), expected);
        }
        leave(&tree, process.pid());
        assert_eq!(place(&tree, &pins, process.pid()), "outside");
    }
}

#[test]
fn a_process_in_a_directory_that_a_stranger_made_below_a_leaf_is_in_its_cell() {
    let Some(ground) = Ground::new() else { return };
    let (tree, pins) = (ground.open("r", &[]), Pins::default());
    let process = Process::sleep();
    enter(&tree, process.pid(), "cell.1");
    let below = ground.base.join("pinfold.r/cell.1/stranger");
    fs::create_dir(&below).unwrap();
    fs::write(below.join("cgroup.procs"), process.pid().to_string()).unwrap();
    assert_eq!(place(&tree, &pins, process.pid()), "1: cell.1");
    enter(&tree, process.pid(), "cell.2");
    assert_eq!(place(&tree, &pins, process.pid()), "2: cell.2");
}

#[test]
fn a_process_is_followed_through_directories_that_are_nobodys() {
    let Some(ground) = Ground::new() else { return };
    let (tree, pins) = (ground.open("r", &[]), Pins::default());
    let process = Process::sleep();
    let dirs = ["one", "two"].map(|name| ground.base.join(name));
    for _ in 0..2 {
        for dir in &dirs {
            fs::create_dir(dir).unwrap();
            fs::write(dir.join("cgroup.procs"), process.pid().to_string()).unwrap();
            assert_eq!(place(&tree, &pins, process.pid()), "outside");
        }
        enter(&tree, process.pid(), "cell.1");
        assert_eq!(place(&tree, &pins, process.pid()), "1: cell.1");
        dirs.iter().for_each(|dir| fs::remove_dir(dir).unwrap());
    }
}

#[test]
fn a_leaf_that_was_made_again_has_another_number() {
    let Some(ground) = Ground::new() else { return };
    let (tree, pins) = (ground.open("r", &[]), Pins::default());
    let process = Process::sleep();
    enter(&tree, process.pid(), "cell.1");
    assert_eq!(place(&tree, &pins, process.pid()), "1: cell.1");
    leave(&tree, process.pid());
    fs::remove_dir(ground.base.join("pinfold.r/cell.1")).unwrap();
    assert_eq!(place(&tree, &pins, process.pid()), "outside");
    enter(&tree, process.pid(), "cell.1");
    assert_eq!(place(&tree, &pins, process.pid()), "1: cell.1");
}

#[test]
fn a_realm_learns_the_leaves_of_its_earlier_life() {
    let Some(ground) = Ground::new() else { return };
    let process = Process::sleep();
    enter(&ground.open("r", &[]), process.pid(), "cell.1");
    let (tree, pins) = (ground.open("r", &[]), Pins::default());
    assert_eq!(place(&tree, &pins, process.pid()), "1: cell.1");
}
