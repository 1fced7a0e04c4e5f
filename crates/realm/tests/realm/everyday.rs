//! Attaching, freezing, counting, releasing; and a daemon that is killed in between.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use pinfold_model::{Errno, GroupId, HierarchyId};

use crate::support::{Fixture, eventually, fixture};

#[test]
fn a_process_is_in_one_group_of_each_hierarchy() {
    let Some(mut f) = fixture() else { return };
    let freezer = f.mount("freezer");
    let named = f.mount("none,name=test");
    let (a, b) = (f.group(freezer, "/a"), f.group(named, "/b"));
    let pid = f.sleeper();
    f.write(a, "tasks", &format!("{pid}\n")).expect("an own child is attached");
    f.write(b, "cgroup.procs", &pid.to_string()).expect("an own child is attached");
    assert_eq!(f.read(a, "tasks"), format!("{pid}\n"));
    assert_eq!(f.read(b, "tasks"), format!("{pid}\n"));
    assert_eq!(f.read(a, "cgroup.procs"), format!("{pid}\n"));
    let root_group = f.realm().root(freezer).expect("mounted");
    f.write(root_group, "tasks", &pid.to_string()).expect("back to the root");
    assert_eq!(f.read(a, "tasks"), "");
    assert_eq!(f.read(b, "tasks"), format!("{pid}\n"));
}

#[test]
fn a_group_with_a_process_stays_until_the_process_has_ended() {
    let Some(mut f) = fixture() else { return };
    let h = f.mount("freezer");
    let a = f.group(h, "/a");
    let pid = f.sleeper();
    f.write(a, "tasks", &pid.to_string()).expect("attached");
    assert_eq!(f.remove(h, "/a").expect_err("it has a process").errno(), Errno::EBUSY);
    f.end(pid);
    f.remove(h, "/a").expect("at once, whether or not the event has come");
    assert!(f.realm().resolve(h, OsStr::new("/a")).is_err());
}

#[test]
fn an_empty_cell_leaves_no_directory_and_keeps_its_counters() {
    let Some(mut f) = fixture() else { return };
    let h = f.mount("cpuacct");
    let (a, below) = (f.group(h, "/a"), f.group(h, "/a/b"));
    let pid = f.burner();
    f.write(below, "tasks", &pid.to_string()).expect("attached");
    let usage = |group| f.read(group, "cpuacct.usage").trim().parse::<u64>().expect("a number");
    eventually("it has used the CPU", || usage(a) > 0);
    let before = usage(a);
    let realm_dir = f.base().join("pinfold.test");
    let cells =
        || fs::read_dir(&realm_dir).expect("it is there").flatten().filter(|e| e.path().is_dir()).count();
    assert_eq!(cells(), 1);
    f.end(pid);
    let usage = |group| f.read(group, "cpuacct.usage").trim().parse::<u64>().expect("a number");
    let cells =
        || fs::read_dir(&realm_dir).expect("it is there").flatten().filter(|e| e.path().is_dir()).count();
    eventually("the leaf is gone", || cells() == 0);
    assert!(usage(a) >= before && usage(below) >= before, "usage never goes backwards");
    f.write(a, "cpuacct.usage", "0").expect("a reset");
    assert_eq!(usage(a), 0);
}

#[test]
fn a_reset_counter_goes_on_from_zero_at_once() {
    let Some(mut f) = fixture() else { return };
    let h = f.mount("cpuacct");
    let a = f.group(h, "/a");
    let pid = f.burner();
    f.write(a, "tasks", &pid.to_string()).expect("attached");
    let usage = || f.read(a, "cpuacct.usage").trim().parse::<u64>().expect("a number");
    eventually("it has used a tenth of a second", || usage() > 100_000_000);
    let below = f.base().join("pinfold.test/cell.1/cpu.stat");
    let really = || {
        let text = fs::read_to_string(&below).expect("the leaf is there");
        text.lines()
            .next()
            .and_then(|line| line.strip_prefix("usage_usec ")?.parse::<u64>().ok())
            .expect("a number")
    };
    let before = really();
    f.write(a, "cpuacct.usage", "0").expect("a reset");
    eventually("it counts again", || usage() > 0);
    assert!(
        really() - before < before,
        "what was used before the reset is taken off once, not several times"
    );
}

#[test]
fn a_frozen_group_freezes_who_comes_in_and_thaws_who_leaves() {
    let Some(mut f) = fixture() else { return };
    let h = f.mount("freezer");
    let (a, below) = (f.group(h, "/a"), f.group(h, "/a/b"));
    f.write(a, "freezer.state", "FROZEN\n").expect("frozen");
    let pid = f.sleeper();
    f.write(below, "tasks", &pid.to_string()).expect("attached");
    eventually("frozen", || f.read(below, "freezer.state") == "FROZEN\n");
    assert_eq!(f.read(below, "freezer.self_freezing"), "0\n");
    assert_eq!(f.read(below, "freezer.parent_freezing"), "1\n");
    let root_group = f.realm().root(h).expect("mounted");
    f.write(root_group, "tasks", &pid.to_string()).expect("moved out");
    eventually("thawed", || {
        let stat = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        !stat.contains("cell.")
    });
    f.write(a, "freezer.state", "THAWED").expect("thawed");
    assert_eq!(f.read(a, "freezer.state"), "THAWED\n");
}

#[test]
fn everything_is_as_it_was_after_a_crash() {
    let Some(mut f) = fixture() else { return };
    let h = f.mount("cpuacct,freezer,name=kept");
    let a = f.group(h, "/a");
    f.group(h, "/a/settings");
    f.write(a, "notify_on_release", "1").expect("a flag");
    let pid = f.burner();
    f.write(a, "tasks", &pid.to_string()).expect("attached");
    eventually("it has used the CPU", || f.read(a, "cpuacct.usage") != "0\n");
    let usage = f.read(a, "cpuacct.usage").trim().parse::<u64>().expect("a number");
    f.write(a, "freezer.state", "FROZEN").expect("frozen");
    f.crash_and_restart();
    let hierarchies = f.realm().hierarchies();
    assert_eq!(hierarchies.len(), 1);
    assert_eq!(hierarchies[0].label, "cpuacct,freezer,name=kept");
    assert_eq!(hierarchies[0].id, h);
    let a = f.realm().resolve(h, OsStr::new("/a")).expect("kept");
    f.realm().resolve(h, OsStr::new("/a/settings")).expect("kept");
    assert_eq!(f.read(a, "notify_on_release"), "1\n");
    assert_eq!(f.read(a, "tasks"), format!("{pid}\n"));
    eventually("still frozen", || f.read(a, "freezer.state") == "FROZEN\n");
    assert!(f.read(a, "cpuacct.usage").trim().parse::<u64>().expect("a number") >= usage);
    f.write(a, "freezer.state", "THAWED").expect("thawed");
}

#[test]
fn a_crash_loses_no_counter_of_a_process_that_ended_meanwhile() {
    let Some(mut f) = fixture() else { return };
    let h = f.mount("cpuacct");
    let a = f.group(h, "/a");
    let pid = f.burner();
    f.write(a, "tasks", &pid.to_string()).expect("attached");
    eventually("it has used the CPU", || f.read(a, "cpuacct.usage") != "0\n");
    let usage = f.read(a, "cpuacct.usage").trim().parse::<u64>().expect("a number");
    f.realm().stop();
    f.end(pid);
    f.crash_and_restart();
    let a = f.realm().resolve(h, OsStr::new("/a")).expect("kept");
    assert_eq!(f.read(a, "tasks"), "");
    assert!(f.read(a, "cpuacct.usage").trim().parse::<u64>().expect("a number") >= usage);
    f.remove(h, "/a").expect("empty");
}

#[test]
fn processes_go_back_to_where_they_came_from() {
    let Some(mut f) = fixture() else { return };
    let h = f.mount("freezer");
    let a = f.group(h, "/a");
    let home = f.base().join("home");
    fs::create_dir(&home).expect("an own directory");
    let pid = f.sleeper();
    fs::write(home.join("cgroup.procs"), pid.to_string()).expect("an own child is moved");
    let place = || fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("alive");
    let line = |text: &str| text.lines().find(|line| line.starts_with("0::")).map(str::to_owned);
    let before = line(&place());
    f.write(a, "tasks", &pid.to_string()).expect("attached");
    assert_ne!(line(&place()), before);
    let root_group = f.realm().root(h).expect("mounted");
    f.write(root_group, "tasks", &pid.to_string()).expect("to the root");
    assert_eq!(line(&place()), before);
    f.end(pid);
    fs::remove_dir(&home).expect("empty again");
}

#[test]
fn a_release_agent_runs_once_with_the_path() {
    let Some(mut f) = fixture() else { return };
    let h = f.mount("none,name=agent");
    let (_, agent) = Agent::of(&f, h);
    let a = f.group(h, "/a/b");
    f.write(a, "notify_on_release", "1").expect("a flag");
    let pid = f.sleeper();
    f.write(a, "tasks", &pid.to_string()).expect("attached");
    f.end(pid);
    eventually("the agent has run", || {
        fs::read_to_string(&agent.heard).is_ok_and(|text| text.ends_with('\n'))
    });
    assert_eq!(fs::read_to_string(&agent.heard).expect("it ran"), "/a/b\n");
}

#[test]
fn an_agent_hears_of_every_time_a_group_was_empty() {
    let Some(mut f) = fixture() else { return };
    let h = f.mount("none,name=often");
    let (root_group, agent) = Agent::of(&f, h);
    let a = f.group(h, "/a");
    f.write(a, "notify_on_release", "1").expect("a flag");
    let pid = f.sleeper();
    for times in 1..=5 {
        f.write(a, "tasks", &pid.to_string()).expect("attached");
        f.write(root_group, "tasks", &pid.to_string()).expect("back");
        eventually("it has heard", || {
            fs::read_to_string(&agent.heard).is_ok_and(|text| text == "/a\n".repeat(times))
        });
    }
    f.write(root_group, "release_agent", "").expect("nothing is written");
}

#[test]
fn a_zombie_can_be_attached_and_stays_nowhere() {
    let Some(f) = fixture() else { return };
    let h = f.mount("freezer");
    let a = f.group(h, "/a");
    let mut child = std::process::Command::new("true").spawn().expect("true is there");
    let stat = format!("/proc/{}/stat", child.id());
    eventually("it has ended", || fs::read_to_string(&stat).is_ok_and(|text| text.contains(") Z ")));
    f.write(a, "tasks", &child.id().to_string()).expect("the kernel takes it too");
    assert_eq!(f.read(a, "tasks"), "");
    child.wait().expect("not reaped before");
    let error = f.write(a, "tasks", &child.id().to_string()).expect_err("it is gone");
    assert_eq!(error.errno(), Errno::ESRCH);
}

#[test]
fn an_agent_does_not_hear_of_what_was_empty_before_it_was_asked_for() {
    let Some(mut f) = fixture() else { return };
    let h = f.mount("none,name=late");
    let (root_group, agent) = Agent::of(&f, h);
    let (a, b) = (f.group(h, "/a"), f.group(h, "/b"));
    f.write(b, "notify_on_release", "1").expect("a flag");
    let pid = f.sleeper();
    f.write(a, "tasks", &pid.to_string()).expect("attached");
    f.write(root_group, "tasks", &pid.to_string()).expect("back");
    f.write(a, "notify_on_release", "1").expect("a flag");
    f.write(a, "tasks", &pid.to_string()).expect("attached");
    f.write(b, "tasks", &pid.to_string()).expect("moved on");
    f.write(root_group, "tasks", &pid.to_string()).expect("back");
    eventually("two calls", || fs::read_to_string(&agent.heard).is_ok_and(|text| text.lines().count() >= 2));
    // Agents run beside one another: which of two writes first is theirs.
    let heard = fs::read_to_string(&agent.heard).expect("it ran");
    let mut heard: Vec<&str> = heard.lines().collect();
    heard.sort_unstable();
    assert_eq!(heard, ["/a", "/b"]);
}

/// A release agent that writes down what it is told. Its files go with it.
struct Agent {
    program: PathBuf,
    heard: PathBuf,
}

impl Agent {
    /// Makes one and sets it for a hierarchy; gives the hierarchy's root group too.
    fn of(f: &Fixture, hierarchy: HierarchyId) -> (GroupId, Self) {
        let agent = Self { program: f.state().join("agent.sh"), heard: f.state().join("agent-was-here") };
        let script = format!("#!/bin/sh\necho \"$@\" >> {}\n", agent.heard.display());
        fs::write(&agent.program, script).expect("written");
        fs::set_permissions(&agent.program, fs::Permissions::from_mode(0o755)).expect("own file");
        let root_group = f.realm().root(hierarchy).expect("mounted");
        f.write(root_group, "release_agent", agent.program.to_str().expect("ascii")).expect("root sets it");
        (root_group, agent)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        fs::remove_file(&self.program).expect("own file");
        fs::remove_file(&self.heard).ok(); // there only if it was told something
    }
}
