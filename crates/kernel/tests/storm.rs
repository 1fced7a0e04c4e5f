//! Hostile neighbours and random plans: typed errors only, and nothing half done.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::ground::{self, Ground, Process, dir};
use pinfold_kernel::{Cause, Membership, Place, ReadError, Step, Tree};
use pinfold_model::Dir;

/// A small generator (xorshift): the same plans at every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[usize::try_from(self.below(choices.len() as u64)).unwrap()]
    }
}

fn places() -> Vec<Dir> {
    [
        "spine.1",
        "spine.1/spine.2",
        "spine.1/spine.2/cell.3",
        "spine.1/cell.4",
        "cell.5",
        "cell.6",
        "spine.7/cell.8",
    ]
    .map(dir)
    .into()
}

fn random(dice: &mut Dice, places: &[Dir], processes: &[Process]) -> Step {
    let place = dice.of(places).clone();
    match dice.below(6) {
        0 | 1 => Step::Make(place),
        2 => {
            Step::Write { dir: Dir::REALM, file: "cgroup.max.depth", text: (dice.below(5) + 10).to_string() }
        }
        3 | 4 => Step::Move { process: dice.of(processes).pid(), to: Place::Dir(place) },
        _ => Step::Remove(place),
    }
}

/// Everything that a plan can change.
fn state(ground: &Ground, tree: &Tree, processes: &[Process]) -> (Vec<String>, String, Vec<Membership>) {
    let members = processes.iter().map(|process| tree.membership(process.pid()).unwrap()).collect();
    (ground.listing(), ground.content("pinfold.r/cgroup.max.depth"), members)
}

#[test]
fn a_plan_that_fails_anywhere_changes_nothing() {
    let Some(ground) = Ground::new() else { return };
    let tree = ground.open("r", &[]);
    let processes = [Process::sleep(), Process::sleep(), Process::sleep()];
    let places = places();
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    let (mut failed, mut carried_out) = (0, 0);
    for _ in 0..400 {
        let before = state(&ground, &tree, &processes);
        let steps: Vec<_> = (0..=dice.below(7)).map(|_| random(&mut dice, &places, &processes)).collect();
        match tree.carry_out(&steps) {
            Ok(()) => carried_out += 1,
            Err(error) => {
                assert!(error.not_undone.is_empty(), "{steps:?}: {error}");
                assert_eq!(state(&ground, &tree, &processes), before, "{steps:?}: {error}");
                failed += 1;
            }
        }
    }
    assert!(failed > 50 && carried_out > 50, "{failed} failed, {carried_out} carried out");
}

#[test]
fn another_program_that_changes_the_tree_under_us_meets_errors_only() {
    let Some(ground) = Ground::new() else { return };
    let tree = ground.open("r", &[]);
    let process = Process::sleep();
    let leaf = dir("spine.1/cell.2");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                // Whatever of this fails, fails: it is the neighbour's.
                let _ = fs::create_dir(ground.base.join("pinfold.r/spine.1/cell.2/theirs"));
                for path in ["spine.1/cell.2/theirs", "spine.1/cell.2", "spine.1", ""] {
                    let _ = fs::remove_dir(ground.base.join("pinfold.r").join(path));
                }
            }
        });
        for _ in 0..300 {
            let enter = Step::Move { process: process.pid(), to: Place::Dir(leaf.clone()) };
            let plan = [Step::Make(dir("spine.1")), Step::Make(leaf.clone()), enter];
            if let Err(error) = tree.carry_out(&plan) {
                assert!(matches!(error.cause, Cause::Gone { .. } | Cause::Busy { .. }), "{error}");
            }
            for outcome in [tree.processes(&leaf).map(drop), tree.events(&leaf).map(drop)] {
                assert!(matches!(outcome, Ok(()) | Err(ReadError::Gone { .. })), "{outcome:?}");
            }
            tree.scope_processes().unwrap();
            tree.dirs();
            let home = Step::Move { process: process.pid(), to: Place::Scope };
            tree.carry_out(&[home]).unwrap();
            if let Err(error) = tree.carry_out(&[Step::Remove(leaf.clone())]) {
                assert!(matches!(error.cause, Cause::Busy { .. }), "{error}");
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    let Membership::Outside(_) = tree.membership(process.pid()).unwrap() else { panic!("it went home") };
}

/// The kernel takes the files of a directory away before the directory itself (cgroup_destroy_locked()).
#[test]
fn the_members_of_a_directory_that_is_being_removed_are_gone_not_unreadable() {
    let Some(ground) = Ground::new() else { return };
    let tree = ground.open("r", &[]);
    let leaf = dir("cell.1");
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..10000 {
                tree.carry_out(&[Step::Make(leaf.clone())]).unwrap();
                tree.carry_out(&[Step::Remove(leaf.clone())]).unwrap();
            }
            is_done.store(true, Ordering::Relaxed);
        });
        while !is_done.load(Ordering::Relaxed) {
            for outcome in [tree.threads(&leaf).map(drop), tree.processes(&leaf).map(drop)] {
                assert!(matches!(outcome, Ok(()) | Err(ReadError::Gone { .. })), "{outcome:?}");
            }
        }
    });
}

#[test]
fn children_of_a_fork_storm_are_all_in_the_cell_and_all_die_with_it() {
    let Some(ground) = Ground::new() else { return };
    let tree = ground.open("r", &[]);
    let watch = tree.watch().unwrap();
    let leaf = dir("cell.1");
    tree.carry_out(&[Step::Make(leaf.clone())]).unwrap();
    watch.add(&leaf, ground::cell(1)).unwrap();
    let script = "read go; while :; do (sleep 0.01 & sleep 0.02) & (:) & wait; done";
    let mut shell = Process::run("sh", &["-c", script]);
    tree.carry_out(&[Step::Move { process: shell.pid(), to: Place::Dir(leaf.clone()) }]).unwrap();
    shell.go();
    let outside = tree.scope_processes().unwrap();
    assert!(outside.is_empty(), "{outside:?}");
    for _ in 0..200 {
        for process in tree.processes(&leaf).unwrap() {
            match tree.membership(process) {
                Ok(membership) => assert_eq!(membership, Membership::Inside(ground::cell(1), leaf.clone())),
                Err(error) => assert_eq!(error.errno(), pinfold_model::Errno::ESRCH),
            }
        }
    }
    tree.kill(&leaf).unwrap();
    ground::until(&tree, &watch, &leaf, |events| !events.populated);
    tree.carry_out(&[Step::Remove(leaf)]).unwrap();
    tree.close().unwrap();
}
