//! The figures of docs/restart.md: the schedule of large trees, and rebuilding against a bare fork and exec of the same shape.
//!
//! Runs itself again in a pid namespace of its own, as the tests do.

#![allow(clippy::print_stdout)] // It is what this program is for.

#[path = "../tests/arena/mod.rs"]
mod arena;

use std::ffi::CString;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use pinfold_restart::capture::capture_frozen;
use pinfold_restart::image::{Captured, Image, Nursery, Text};
use pinfold_restart::rebuild::{Options, rebuild};
use pinfold_restart::schedule::{OutsideGroup, schedule};
use pinfold_restart::tree::{PidNamespace, Process, Tree};
use pinfold_sys::clone::{self, Side};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, wait};

fn main() -> ExitCode {
    arena::main(&[("figures", &[("schedules", schedules), ("rebuilds", rebuilds)])])
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

/// What a thousand processes look like.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// All are children of one.
    Flat,
    /// A hundred sessions, each a leader with nine children.
    Sessions,
}

/// How many processes a leader of [`Shape::Sessions`] has below it, itself included.
const SESSION: u32 = 10;

fn image(shape: Shape) -> Image {
    let mut image = capture_frozen(&[1]).expect("this process");
    let mut like = image.processes[0].living.clone().expect("it lives");
    like.terminal = None;
    like.executable = Text::of(b"/bin/sleep");
    like.arguments = ["/bin/sleep", "1000"].map(|word| Text::of(word.as_bytes())).to_vec();
    let process = |index: u32| {
        let leader = index / SESSION * SESSION;
        let (parent, session) = match shape {
            Shape::Flat => (None, Vec::new()),
            Shape::Sessions => ((index != leader).then_some(leader as usize), vec![2000 + leader]),
        };
        Captured {
            pids: vec![2000 + index],
            pid_namespace: 0,
            children_in: Nursery::Own,
            parent,
            group: session.clone(),
            session,
            started: 0,
            living: Some(like.clone()),
        }
    };
    image.processes = (0..COUNT).map(process).collect();
    image
}

fn rebuilds() {
    for shape in [Shape::Flat, Shape::Sessions] {
        let image = image(shape);
        let mut times: [Vec<f64>; 2] = [Vec::new(), Vec::new()];
        for _ in 0..9 {
            times[0].push(bare(&image, shape).as_secs_f64() * 1e6 / f64::from(COUNT));
            times[1].push(ours(&image).as_secs_f64() * 1e6 / f64::from(COUNT));
        }
        let [bare, ours] = times.map(|mut times| {
            times.sort_by(f64::total_cmp);
            (times[0], times[times.len() / 2])
        });
        eprintln!(
            "{COUNT} processes, {shape:?}, each, best and median of 9 in turn: \
             bare fork+exec {:.0} and {:.0} us, rebuild {:.0} and {:.0} us, ratio {:.2} and {:.2}",
            bare.0,
            bare.1,
            ours.0,
            ours.1,
            ours.0 / bare.0,
            ours.1 / bare.1
        );
    }
}

/// Until the last process has executed its program: a pipe that closes by that says so.
fn bare(image: &Image, shape: Shape) -> Duration {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("a pipe");
    let start = Instant::now();
    match shape {
        Shape::Flat => (0..COUNT).for_each(|_| child(|| ())),
        Shape::Sessions => (0..COUNT / SESSION).for_each(|_| {
            child(|| {
                rustix::process::setsid().expect("a child that leads nothing");
                (1..SESSION).for_each(|_| child(|| ()));
            });
        }),
    }
    drop(writer);
    let mut byte = [0];
    assert_eq!(rustix::io::read(&reader, &mut byte), Ok(0));
    let time = start.elapsed();
    end_all(image);
    time
}

/// A child that does something and executes the program.
fn child(does: impl FnOnce()) {
    if let Side::Child = clone::clone3(&clone::Request::default()).expect("a child") {
        does();
        let string = |text: &str| CString::new(text).expect("no null byte");
        let environment = std::env::vars().map(|(name, value)| string(&format!("{name}={value}")));
        let image = pinfold_sys::exec::Image {
            file: string("/bin/sleep"),
            arguments: vec![string("/bin/sleep"), string("1000")],
            environment: environment.collect(),
        };
        pinfold_sys::exec::become_image(&image, || Ok(()));
        clone::exit_now(1)
    }
}

fn ours(image: &Image) -> Duration {
    let start = Instant::now();
    rebuild(image, &Options::default()).expect("rebuilt");
    let time = start.elapsed();
    end_all(image);
    time
}

/// Ends every process of this namespace but the first, which this is.
fn end_all(image: &Image) {
    assert_eq!(std::process::id(), 1, "only in a pid namespace of one's own");
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    let pids: Vec<i32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    assert_eq!(pids.len(), image.processes.len() + 1, "the whole tree, and this process");
    for pid in pids.into_iter().filter(|&pid| pid > 1).filter_map(Pid::from_raw) {
        let process = pidfd_open(pid, PidfdFlags::empty()).expect("it waits for its end");
        pidfd_send_signal(&process, Signal::KILL).expect("it waits for its end");
    }
    while wait(WaitOptions::empty()).is_ok() {}
}
