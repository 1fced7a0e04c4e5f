//! What the tracker's calls cost, beside the bare system calls that they stand for. Figures are reported, not judged.
//!
//!     cargo bench -p pinfold-kernel

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench reports and may fail")]

#[path = "../tests/ground/base.rs"]
mod ground;

use std::fs;
use std::hint::black_box;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use ground::{Ground, Process, dir};
use pinfold_kernel::pids::PidMap;
use pinfold_kernel::pins::Pins;
use pinfold_kernel::process::{Identity, start_time};
use pinfold_kernel::{Measuring, Place, Step};
use pinfold_model::{Dir, HostPid};

/// Prints the mean time of one call.
fn row<T>(name: &str, calls: u32, mut call: impl FnMut() -> T) {
    for _ in 0..calls / 10 {
        call();
    }
    let started = Instant::now();
    for _ in 0..calls {
        black_box(call());
    }
    println!("{name:50} {:10.2} µs", started.elapsed().as_secs_f64() * 1e6 / f64::from(calls));
}

/// What the program at sched_switch adds to a switch: two processes hand a byte to and fro, which is two of them if both are on
/// one CPU (`taskset -c 1`). By turns, and of many batches the one that was disturbed least.
fn switches(ground: &Ground) {
    const NAMES: [&str; 3] =
        ["a switch of two processes", "the same, measured for others", "the same, both counted"];
    const ROUNDS: u32 = 2000;
    let mut echo = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut to, mut from) = (echo.stdin.take().unwrap(), echo.stdout.take().unwrap());
    let mut best = [f64::MAX; NAMES.len()];
    let mut measure = |which: usize| {
        for _ in 0..20 {
            let started = Instant::now();
            for _ in 0..ROUNDS {
                to.write_all(b"x").unwrap();
                from.read_exact(&mut [0]).unwrap();
            }
            best[which] = best[which].min(started.elapsed().as_secs_f64() / f64::from(2 * ROUNDS));
        }
    };
    let shown = fs::read_to_string("/proc/self/cgroup").unwrap();
    let origin = shown.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
    let origin = ground.mount.point.join(origin);
    let leaf = ground.base.join("pinfold.s/cell.1");
    let enter = |place: &Path| {
        for process in [std::process::id(), echo.id()] {
            fs::write(place.join("cgroup.procs"), process.to_string()).unwrap();
        }
    };
    for _ in 0..5 {
        let measuring = ground.open("s", &[]);
        measuring.carry_out(&[Step::Make(dir("cell.1"))]).unwrap();
        enter(&leaf); // for the first row, too: a switch between directories costs more
        measure(0);
        assert!(matches!(measuring.measure(64), Measuring::On { .. }), "{:?}", measuring.measuring());
        measure(2);
        enter(&origin);
        measure(1);
        measuring.close().unwrap();
    }
    for (name, best) in NAMES.iter().zip(best) {
        println!("{name:50} {:10.0} ns", best * 1e9);
    }
    echo.kill().unwrap();
    echo.wait().unwrap();
}

fn main() {
    let Some(ground) = Ground::new() else { return };
    let tree = ground.open("r", &[]);
    let process = Process::sleep();
    let (here, there) = (dir("cell.1"), dir("spine.1/cell.2"));
    tree.carry_out(&[&here, &dir("spine.1"), &there].map(|dir| Step::Make(dir.clone()))).unwrap();

    let enter = |dir: &Dir| {
        let step = Step::Move { process: process.pid(), to: Place::Dir(dir.clone()) };
        tree.carry_out(&[step]).unwrap();
    };
    row("move there and back", 500, || (enter(&there), enter(&here)));
    let procs = |dir: &Dir| ground.base.join("pinfold.r").join(dir.to_string()).join("cgroup.procs");
    let (procs_here, procs_there) = (procs(&here), procs(&there));
    let number = process.pid().to_string();
    row("the same, two writes of std::fs", 500, || {
        (fs::write(&procs_there, &number).unwrap(), fs::write(&procs_here, &number).unwrap())
    });
    let fresh = dir("cell.9");
    row("make and remove a leaf", 200, || {
        tree.carry_out(&[Step::Make(fresh.clone())]).unwrap();
        tree.carry_out(&[Step::Remove(fresh.clone())]).unwrap();
    });
    let path = ground.base.join("pinfold.r/cell.9");
    row("the same, mkdir and rmdir of std::fs", 200, || {
        (fs::create_dir(&path).unwrap(), fs::remove_dir(&path).unwrap())
    });
    row("membership of a process", 5000, || tree.membership(process.pid()).unwrap());
    row("identity of a process", 5000, || Identity::of(process.pid()).unwrap());
    let pins = Pins::default();
    row("pin a process, verify it", 5000, || pins.open(process.pid()).unwrap().0.verify().unwrap());
    row("map of the own pid namespace", 5000, || PidMap::of(process.pid()).unwrap());
    row("processes of a leaf", 5000, || tree.processes(&here).unwrap());
    row("cgroup.events of a leaf", 5000, || tree.events(&here).unwrap());

    switches(&ground);

    // The two ways to list the processes of a scope.
    let all = || fs::read_dir("/proc").unwrap().filter_map(|e| e.unwrap().file_name().to_str()?.parse().ok());
    let processes = u32::try_from(all().filter_map(HostPid::new).count()).unwrap();
    let ask = |pid| tree.membership(pid).is_ok() && start_time(pid).is_ok();
    row(&format!("scope by asking proc for {processes} processes"), 100, || {
        all().filter_map(HostPid::new).filter(|pid| ask(*pid)).count()
    });
    let names: Vec<_> = (0..200).map(|number| ground.base.join(format!("d{number}"))).collect();
    names.iter().for_each(|name| fs::create_dir(name).unwrap());
    row("scope by walking 203 directories", 200, || tree.scope_processes().unwrap());
    names.iter().for_each(|name| fs::remove_dir(name).unwrap());
    row("scope by walking 3 directories", 2000, || tree.scope_processes().unwrap());
    tree.kill(&Dir::REALM).unwrap();
}
