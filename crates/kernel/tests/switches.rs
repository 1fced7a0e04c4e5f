//! CPU time by CPU, measured by a program at sched_switch.

use std::fs;
use std::process::Command;
use std::time::Instant;

use crate::ground::{Ground, PATIENCE, dir, is_inside, skip};
use pinfold_kernel::{Measuring, Step, Tree, inspect};
use pinfold_model::Dir;
use rustix::io::Errno;

/// Some tenths of a second of work for a shell.
const WORK: &str = "i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done";

/// A tree that measures, where the machine lets it.
fn ground() -> Option<(Ground, Tree)> {
    if let Err(errno) = inspect::switches() {
        return skip(&format!("no BPF program at sched_switch: {errno}"));
    }
    let ground = Ground::new()?;
    let tree = ground.open("r", &[]);
    Some((ground, tree))
}

/// Has a shell work on one CPU, in a leaf.
fn work(ground: &Ground, leaf: &str, cpu: usize) {
    let script = r#"echo 0 >"$0/cgroup.procs" && exec taskset -c "$1" sh -c "$2""#;
    let leaf = ground.base.join("pinfold.r").join(leaf);
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(leaf).arg(cpu.to_string()).arg(WORK);
    assert!(command.status().unwrap().success());
}

/// The figure of a CPU, and those of all others together.
fn figures(tree: &Tree, dir: &Dir, cpu: usize) -> (u64, u64) {
    let text = tree.measured(dir).expect("it is measured");
    let figures = text.lines().map(|line| line.split_once(' ').unwrap());
    let figures = figures.map(|(cpu, time)| (cpu.parse::<usize>().unwrap(), time.parse::<u64>().unwrap()));
    let (own, others): (Vec<_>, Vec<_>) = figures.partition(|(at, _)| *at == cpu);
    let sum = |figures: Vec<(usize, u64)>| figures.into_iter().map(|(_, time)| time).sum();
    (sum(own), sum(others))
}

/// What the kernel says was used in a directory, in nanoseconds.
fn used(ground: &Ground, dir: &str) -> u64 {
    let text = ground.content(&format!("pinfold.r/{dir}/cpu.stat"));
    let usage = text.lines().find_map(|line| line.strip_prefix("usage_usec ")).unwrap();
    usage.parse::<u64>().unwrap() * 1000
}

/// The CPUs that a test may use, the first and the last.
fn cpus() -> [usize; 2] {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:\t")).unwrap();
    let numbers: Vec<usize> = list.split([',', '-']).map(|number| number.parse().unwrap()).collect();
    [numbers[0], *numbers.last().unwrap()]
}

#[test]
fn time_is_counted_where_it_was_spent() {
    let Some((ground, tree)) = ground() else { return };
    // One leaf is there before it is measured, the other comes after.
    tree.carry_out(&[Step::Make(dir("cell.1"))]).unwrap();
    assert_eq!(tree.measured(&Dir::REALM), None);
    assert_eq!(tree.measure(4096), Measuring::On { missed: 0 });
    tree.carry_out(&[Step::Make(dir("spine.1")), Step::Make(dir("spine.1/cell.2"))]).unwrap();
    assert_eq!(tree.measured(&Dir::REALM).as_deref(), Some(""));
    let [first, last] = cpus();
    for (leaf, cpu) in [("cell.1", first), ("spine.1/cell.2", last)] {
        work(&ground, leaf, cpu);
        // What ended has not been switched away from when its parent is told, perhaps.
        let start = Instant::now();
        while figures(&tree, &dir(leaf), cpu).0 < used(&ground, leaf) / 10 * 9 {
            assert!(
                start.elapsed() < PATIENCE,
                "{:?} of {}",
                figures(&tree, &dir(leaf), cpu),
                used(&ground, leaf)
            );
            std::thread::yield_now();
        }
        let (own, others) = figures(&tree, &dir(leaf), cpu);
        assert!(others < own / 10, "{own} on CPU {cpu}, {others} on others");
    }
    assert!(figures(&tree, &dir("spine.1"), last).0 > used(&ground, "spine.1/cell.2") / 10 * 9);
    // Who is above has what those below have left.
    let all = tree.measured(&Dir::REALM);
    for gone in ["spine.1/cell.2", "spine.1", "cell.1"] {
        tree.carry_out(&[Step::Remove(dir(gone))]).unwrap();
        assert_eq!(tree.measured(&Dir::REALM), all, "{gone}");
        assert_eq!(tree.measured(&dir(gone)).as_deref(), Some(""));
    }
    tree.close().unwrap();
}

#[test]
fn a_leaf_that_is_made_again_is_counted_anew() {
    let Some((ground, tree)) = ground() else { return };
    tree.measure(4096);
    let [cpu, _] = cpus();
    tree.carry_out(&[Step::Make(dir("cell.1"))]).unwrap();
    work(&ground, "cell.1", cpu);
    fs::remove_dir(ground.base.join("pinfold.r/cell.1")).unwrap(); // by a stranger
    tree.carry_out(&[Step::Make(dir("cell.1"))]).unwrap();
    let before = figures(&tree, &Dir::REALM, cpu).0;
    assert_eq!(figures(&tree, &dir("cell.1"), cpu).0, 0);
    work(&ground, "cell.1", cpu);
    let start = Instant::now();
    while figures(&tree, &dir("cell.1"), cpu).0 == 0 {
        assert!(start.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
    assert!(figures(&tree, &Dir::REALM, cpu).0 > before);
    tree.close().unwrap();
}

#[test]
fn who_may_load_no_programs_measures_nothing_and_is_told_why() {
    if is_inside() {
        let ground = Ground::new().expect("as outside");
        let tree = ground.open("r", &[]);
        assert_eq!(inspect::switches(), Err(Errno::PERM));
        assert_eq!(tree.measure(4), Measuring::Refused(Errno::PERM));
        tree.carry_out(&[Step::Make(dir("cell.1"))]).unwrap();
        assert_eq!(tree.measured(&dir("cell.1")), None);
        tree.close().unwrap();
        return;
    }
    let Some((ground, _)) = ground() else { return };
    ground.again(
        "switches::who_may_load_no_programs_measures_nothing_and_is_told_why",
        r#"exec setpriv --bounding-set=-sys_admin,-bpf --inh-caps=-sys_admin,-bpf "$@""#,
    );
}
