//! The figures of docs/restart.md: the schedule of large trees, and rebuilding against a bare fork and exec of the same shape.
//!
//! Runs itself again in a pid namespace of its own, as the tests do.

#![allow(clippy::print_stdout)] // It is what this program is for.

#[path = "../tests/arena/mod.rs"]
mod arena;

use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use pinfold_restart::capture::capture_frozen;
use pinfold_restart::image::{Captured, Image, Nursery};
use pinfold_restart::rebuild::{Options, Root, rebuild};
use pinfold_restart::schedule::{OutsideGroup, schedule};
use pinfold_restart::tree::{PidNamespace, Process, Tree};
use pinfold_sys::clone::{self, Side};
use rustix::process::{WaitId, WaitIdOptions, waitid};

fn main() -> ExitCode {
    arena::main(&[("schedules", schedules), ("rebuilds", rebuilds)])
}

/// A tree of `count` processes in two namespaces: sessions of ten (a dead leader in every fifth), pipelines, orphans, zombies.
fn tree(count: usize) -> Tree {
    let process = |index: usize| {
        let pid = u32::try_from(index + 10).expect("a small number");
        let nested = index >= count / 2;
        let head = index / 10 * 10;
        let session = u32::try_from(head + 10).expect("a small number");
        let number = |pid: u32| {
            if nested { vec![pid, pid - u32::try_from(count / 2).expect("small") - 9] } else { vec![pid] }
        };
        let is_dead = |index: usize| index % 50 == 20;
        let parent = if index == head || is_dead(head) { 0 } else { head.max(1) };
        Process {
            pids: number(pid),
            namespace: usize::from(nested),
            parent: match index {
                0 => None,
                index if nested => {
                    Some(if parent == 0 { count / 2 } else { parent }).filter(|&p| p != index).or(Some(0))
                }
                _ => Some(parent.min(index - 1)),
            },
            session: number(session),
            group: number(session),
            zombie: index % 10 == 9,
            ..Process::default()
        }
    };
    let all = (0..count).map(process);
    let dead = |process: &Process| {
        let index = (process.pids[0] - 10) as usize;
        index % 50 == 20
    };
    // Leaders who are dead are left out, so places move.
    let mut places = vec![None; count];
    let mut kept = Vec::new();
    for (index, process) in all.enumerate() {
        if !dead(&process) {
            places[index] = Some(kept.len());
            kept.push(process);
        }
    }
    for process in &mut kept {
        process.parent = process.parent.and_then(|parent| places[parent]).or(process.parent.map(|_| 0));
    }
    Tree {
        namespaces: vec![PidNamespace { parent: None }, PidNamespace { parent: Some(0) }],
        processes: kept,
    }
}

fn schedules() {
    for count in [10_000, 20_000, 40_000, 80_000, 100_000] {
        let tree = tree(count);
        let best = (0..3).map(|_| {
            let start = Instant::now();
            let schedule = schedule(&tree, OutsideGroup::Numbered).expect("a tree that can be made");
            (start.elapsed(), schedule)
        });
        let (time, schedule) = best.min_by_key(|(time, _)| *time).expect("three runs");
        eprintln!(
            "schedule of {} processes: {:.1} ms, {:.2} us each, {} steps, {} helpers",
            tree.processes.len(),
            time.as_secs_f64() * 1e3,
            time.as_secs_f64() * 1e6 / tree.processes.len() as f64,
            schedule.steps.len(),
            schedule.helpers.len(),
        );
    }
}

const COUNT: u32 = 1000;

fn flat(sleep: &[&str]) -> Image {
    let mut image = capture_frozen(&[1]).expect("this process");
    let mut like = image.processes[0].living.clone().expect("it lives");
    like.terminal = None;
    like.executable = pinfold_restart::image::Text::of(sleep[0].as_bytes());
    like.arguments = sleep.iter().map(|word| pinfold_restart::image::Text::of(word.as_bytes())).collect();
    let process = |index: u32| Captured {
        pids: vec![2000 + index],
        pid_namespace: 0,
        children_in: Nursery::Own,
        parent: None,
        session: Vec::new(),
        group: Vec::new(),
        started: 0,
        living: Some(like.clone()),
    };
    image.processes = (0..COUNT).map(process).collect();
    image
}

fn rebuilds() {
    let image = flat(&["/bin/sleep", "1000"]);
    let mut times: [Vec<f64>; 2] = [Vec::new(), Vec::new()];
    for _ in 0..9 {
        times[0].push(bare(&image).as_secs_f64() * 1e6 / f64::from(COUNT));
        times[1].push(ours(&image).as_secs_f64() * 1e6 / f64::from(COUNT));
    }
    let [bare, ours] = times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        (times[0], times[times.len() / 2])
    });
    eprintln!("{COUNT} processes, each, 9 runs in turn, best and median:");
    eprintln!(
        "bare fork+exec {:.0} and {:.0} us, rebuild {:.0} and {:.0} us",
        bare.0, bare.1, ours.0, ours.1
    );
    eprintln!("ratio {:.2} and {:.2}", ours.0 / bare.0, ours.1 / bare.1);
}

/// Until the last process has executed its program: a pipe that closes by that says so.
fn bare(image: &Image) -> Duration {
    let living = image.processes[0].living.as_ref().expect("it lives");
    let string = |text: &pinfold_restart::image::Text| {
        std::ffi::CString::new(std::os::unix::ffi::OsStrExt::as_bytes(text.as_os_str()))
            .expect("no null byte")
    };
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("a pipe");
    let start = Instant::now();
    let mut children = Vec::new();
    for _ in 0..COUNT {
        match clone::clone3(&clone::Request::default()).expect("a child") {
            Side::Child => {
                let image = pinfold_sys::exec::Image {
                    file: string(&living.executable),
                    arguments: living.arguments.iter().map(string).collect(),
                    environment: living.environment.iter().map(string).collect(),
                };
                pinfold_sys::exec::become_image(&image);
                clone::exit_now(1)
            }
            Side::Parent { pidfd, .. } => children.push(pidfd),
        }
    }
    drop(writer);
    let mut byte = [0];
    assert_eq!(rustix::io::read(&reader, &mut byte), Ok(0));
    let time = start.elapsed();
    children.iter().for_each(end);
    time
}

fn end(pidfd: &std::os::fd::OwnedFd) {
    rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL).expect("a child");
    waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).expect("a child");
}

fn ours(image: &Image) -> Duration {
    let start = Instant::now();
    let roots: Vec<Root> = rebuild(image, &Options::default()).expect("rebuilt");
    let time = start.elapsed();
    roots.iter().for_each(|root| end(&root.pidfd));
    time
}
