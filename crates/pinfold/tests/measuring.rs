//! CPU time by CPU: measured where the kernel takes a program at sched_switch, spread where it does not, and never going back.

use std::time::Duration;

use crate::daemon::{Daemon, eventually, skip, text};

/// The figures of a file of one line, of group `/a`.
fn figures(daemon: &Daemon, file: &str) -> Vec<u64> {
    figures_of(daemon, "a", file)
}

fn figures_of(daemon: &Daemon, group: &str, file: &str) -> Vec<u64> {
    let text = daemon.read(&format!("cg/{group}/cpuacct.{file}"));
    text.split_whitespace().map(|figure| figure.parse().expect("a number")).collect()
}

/// The words of `status` for these files.
fn told(daemon: &Daemon) -> String {
    let status: serde_json::Value =
        serde_json::from_str(&daemon.ok(&["status", "/a", "--json"])).expect("JSON");
    let mut found = status.as_array().expect("a list").iter();
    let found = found.find(|setting| setting["key"] == "cpuacct.usage_percpu").expect("it is told");
    found["enforced"].as_str().expect("words").to_owned()
}

/// A process that keeps one CPU busy, and which: the last that it may run on.
fn busy(daemon: &Daemon) -> (crate::daemon::Sleeper, usize) {
    let status = std::fs::read_to_string("/proc/self/status").expect("proc");
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:\t")).expect("a list");
    let cpu = list.rsplit([',', '-']).next().and_then(|number| number.parse().ok()).expect("a number");
    let busy = daemon.sleeper_by("while :; do :; done");
    // It puts itself there; moved before, it would leave again.
    eventually("it is in the base", || busy.v2_path().starts_with(&daemon.base.v2_path()));
    (busy, cpu)
}

/// Moves a process, and then binds it to a CPU: before Linux 6.2 a move into another cpuset of v2 lets it run on all again.
fn move_and_bind(daemon: &Daemon, process: &crate::daemon::Sleeper, group: &str, cpu: usize) {
    let pid = process.pid().to_string();
    daemon.ok(&["move", &pid, group]);
    let bound =
        daemon.command("taskset").args(["-pc", &cpu.to_string(), &pid]).output().expect("timeout runs");
    assert!(bound.status.success(), "{}", text(&bound.stderr));
}

/// A realm that can measure.
fn serving() -> Option<Daemon> {
    if let Err(errno) = pinfold_kernel::inspect::switches() {
        skip(&format!("no BPF program at sched_switch: {errno}"));
        return None;
    }
    Daemon::serving("cpuacct:cg")
}

#[test]
fn a_busy_loop_shows_on_its_cpu_and_its_figures_outlive_kill_9() {
    let Some(mut daemon) = serving() else { return };
    daemon.ok(&["create", "/a"]);
    assert!(told(&daemon).contains("nobody has read them yet"), "{}", told(&daemon));
    let (busy, cpu) = busy(&daemon);
    move_and_bind(&daemon, &busy, "/a", cpu);
    let mut before = figures(&daemon, "usage_percpu");
    assert_eq!(told(&daemon), "measured");
    eventually("nine tenths are on its CPU", || {
        let now = figures(&daemon, "usage_percpu");
        assert!(before.iter().zip(&now).all(|(before, now)| before <= now), "{before:?}, then {now:?}");
        let all: u64 = now.iter().sum();
        before = now;
        all > 500_000_000 && before[cpu] > all / 10 * 9
    });
    busy.end();
    // What its leaf had counted is the group's now, and is divided as before.
    eventually("it is gone", || daemon.numbers("cg/a/tasks").is_empty());
    let shown = figures(&daemon, "usage_percpu");
    let all: u64 = shown.iter().sum();
    assert_eq!(vec![all], figures(&daemon, "usage"));
    assert!(shown[cpu] > all / 10 * 9, "{shown:?}");
    for part in ["user", "sys"] {
        let sum: u64 = figures(&daemon, &format!("usage_percpu_{part}")).iter().sum();
        assert_eq!(figures(&daemon, &format!("usage_{part}")), [sum]);
    }
    let kept = format!("grep -rqF ' usage={} user=' state", shown[cpu]);
    eventually("it is written down", || {
        assert_eq!(figures(&daemon, "usage_percpu"), shown, "nothing is used any more");
        daemon.script_within(Duration::from_secs(60), &kept).status.success()
    });
    daemon.kill();
    daemon.serve("cpuacct:cg");
    assert_eq!(figures(&daemon, "usage_percpu"), shown);
    assert_eq!(told(&daemon), "measured");
    // And it starts again where it is told to.
    daemon.write("cg/a/cpuacct.usage", "0").expect("it is reset");
    assert!(figures(&daemon, "usage_percpu").iter().all(|figure| *figure == 0));
    daemon.down();
}

#[test]
fn a_process_that_moves_on_leaves_what_it_used_and_takes_nothing_along() {
    let Some(mut daemon) = serving() else { return };
    ["/a", "/b"].iter().for_each(|group| _ = daemon.ok(&["create", group]));
    let (busy, cpu) = busy(&daemon);
    let mut left: Vec<(&str, Vec<u64>)> = Vec::new();
    // The last time, `b` has counted before, in a directory that is gone.
    for group in ["a", "b", "a", "b"] {
        move_and_bind(&daemon, &busy, &format!("/{group}"), cpu);
        let start: u64 = figures_of(&daemon, group, "usage").iter().sum();
        eventually("it works on its CPU there", || {
            let now = figures_of(&daemon, group, "usage_percpu");
            let all: u64 = now.iter().sum();
            all > start + 300_000_000 && now[cpu] > all / 10 * 9
        });
        // It uses nothing any more where it was.
        for (other, shown) in left.iter().rev().take(1) {
            assert_eq!(figures_of(&daemon, other, "usage"), [shown.iter().sum::<u64>()], "{other}");
            assert_eq!(figures_of(&daemon, other, "usage_percpu"), *shown, "{other}");
        }
        let next = if group == "a" { "/b" } else { "/a" };
        daemon.ok(&["move", &busy.pid().to_string(), next]);
        left.push((group, figures_of(&daemon, group, "usage_percpu")));
    }
    let before = figures_of(&daemon, "a", "usage_percpu");
    daemon.kill();
    daemon.serve("cpuacct:cg");
    let now = figures_of(&daemon, "a", "usage_percpu");
    let within_a_second = before.iter().zip(&now).all(|(before, now)| now + 1_000_000_000 >= *before);
    assert!(within_a_second, "{before:?}, then {now:?}");
    assert_eq!(
        figures_of(&daemon, "b", "usage_percpu").iter().sum::<u64>(),
        figures_of(&daemon, "b", "usage")[0]
    );
    busy.end();
    daemon.down();
}

#[test]
fn a_daemon_that_may_load_no_program_spreads_and_says_why() {
    let Some(mut daemon) = serving() else { return };
    daemon.ok(&["create", "/a"]);
    daemon.kill();
    let fewer = ["setpriv", "--bounding-set=-sys_admin,-bpf", "--inh-caps=-sys_admin,-bpf"];
    if let Err(output) = daemon.try_serve_through(&fewer, &[]) {
        panic!("the daemon did not start: {}", text(&output.stderr));
    }
    assert!(daemon.log().contains("spread evenly over the CPUs"), "{}", daemon.log());
    let (busy, cpu) = busy(&daemon);
    daemon.ok(&["move", &busy.pid().to_string(), "/a"]);
    let read = || -> Vec<u64> {
        let text = daemon.ok(&["get", "/a", "cpuacct.usage_percpu"]);
        text.split_whitespace().map(|figure| figure.parse().expect("a number")).collect()
    };
    eventually("it has worked", || read()[cpu] > 0);
    let shown = read();
    let online: Vec<u64> = shown.into_iter().filter(|figure| *figure > 0).collect();
    let (least, most) = (online.iter().min().expect("one"), online.iter().max().expect("one"));
    assert!(most - least < u64::try_from(online.len()).expect("few"), "{online:?}");
    let told = told(&daemon);
    assert!(told.starts_with("spread over the CPUs") && told.contains("not permitted"), "{told}");
    busy.end();
    daemon.down();
}
