//! What the v2 tree does not offer and user space does: pids and cpuset in a base that no controller was delegated to.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use pinfold_kernel::process;
use pinfold_model::{Errno, GroupId, HierarchyId, HostPid};
use pinfold_realm::Enforced;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::support::{Fixture, eventually, fixture_without_controllers, root, skip};

/// A realm with one hierarchy, and a directory of the test's own. Whoever a test leaves ends soon by itself.
struct Ground {
    f: Fixture,
    h: HierarchyId,
    dir: PathBuf,
}

impl Ground {
    fn new(controllers: &str) -> Option<Self> {
        let f = fixture_without_controllers(false)?;
        let h = f.mount(controllers);
        let dir = f.state().with_extension("ground");
        fs::create_dir(&dir).expect("a private directory");
        Some(Self { f, h, dir })
    }

    /// A group with CPU 0, or with these.
    fn group_on(&self, path: &str, cpus: &str) -> GroupId {
        let group = self.f.group(self.h, path);
        self.f.write(group, "cpuset.cpus", cpus).expect("CPUs that there are");
        self.f.write(group, "cpuset.mems", "0").expect("a node that there is");
        group
    }

    fn at(&self, path: &str) -> GroupId {
        self.f.realm().resolve(self.h, OsStr::new(path)).expect("kept")
    }

    /// Starts a script that goes on where it says `GO` when it is told so; `HERE` is the directory.
    fn start(&mut self, script: &str) -> u32 {
        let go = self.dir.join("go");
        if !go.exists() {
            mknodat(CWD, &go, FileType::Fifo, Mode::RWXU, 0).expect("a fifo");
        }
        let here = self.dir.display().to_string();
        self.f.start(&script.replace("GO", "read x < HERE/go").replace("HERE", &here))
    }

    fn go(&self) {
        fs::write(self.dir.join("go"), "\n").expect("somebody reads");
    }

    /// What a script has written to a file there, once it has.
    fn said(&self, file: &str) -> String {
        let path = self.dir.join(file);
        eventually(file, || fs::read_to_string(&path).is_ok_and(|text| text.ends_with('\n')));
        fs::read_to_string(path).expect("just read").trim_end().to_owned()
    }

    fn number(&self, file: &str) -> u32 {
        self.said(file).parse().expect("a number")
    }

    fn attach(&self, pid: u32, group: GroupId) {
        self.f.write(group, "tasks", &pid.to_string()).expect("an own child is attached");
    }

    /// The v2 directory of a member.
    fn leaf_of(&self, pid: u32) -> PathBuf {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it lives");
        let (_, below) = text.split_once("/pinfold.test/").expect("a member");
        self.f.base().join("pinfold.test").join(below.lines().next().expect("a line"))
    }

    /// Ends all that is in a group, which is empty then.
    fn clear(&self, path: &str) {
        self.f.realm().kill(&root(), self.at(path)).expect("ours");
        eventually("they have ended", || self.f.read(self.at(path), "tasks").is_empty());
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.dir).ok();
    }
}

fn affinity(pid: u32) -> Vec<usize> {
    process::affinity(HostPid::new(pid).expect("not 0")).expect("it lives")
}

/// The CPUs of the test, of which it needs two.
fn all_cpus() -> Option<Vec<usize>> {
    let all = process::own_affinity();
    if all.len() < 2 || all[..2] != [0, 1] {
        return skip("needs CPUs 0 and 1");
    }
    Some(all)
}

#[test]
fn cpus_hold_for_members_and_their_children_until_they_leave() {
    let (Some(all), Some(mut g)) = (all_cpus(), Ground::new("cpuset")) else { return };
    let a = g.group_on("/a", "0");
    let pid = g.start("GO; sleep 30 & echo $! > HERE/child; wait");
    g.attach(pid, a);
    assert_eq!(affinity(pid), [0]);
    g.go();
    let child = g.number("child");
    assert_eq!(affinity(child), [0]);
    g.f.write(a, "cpuset.cpus", "1").expect("another");
    assert_eq!((affinity(pid), affinity(child)), (vec![1], vec![1]));
    // A choice of its own beyond them has its effect until the next look.
    process::set_affinity(HostPid::new(child).expect("not 0"), &[0]).expect("ours");
    eventually("it is bound again", || affinity(child) == [1]);
    let root_group = g.f.realm().root(g.h).expect("mounted");
    g.attach(child, root_group);
    assert_eq!((affinity(pid), affinity(child)), (vec![1], all.clone()));
    g.attach(child, a);
    assert_eq!(affinity(child), [1]);
    g.clear("/a");
}

#[test]
fn whoever_another_program_puts_somewhere_has_the_cpus_that_hold_there() {
    let (Some(all), Some(mut g)) = (all_cpus(), Ground::new("cpuset")) else { return };
    let a = g.group_on("/a", "0");
    let (one, two) = (g.f.sleeper(), g.f.sleeper());
    g.attach(one, a);
    fs::write(g.leaf_of(one).join("cgroup.procs"), two.to_string()).expect("an own directory");
    eventually("the newcomer is bound", || affinity(two) == [0]);
    fs::write(g.f.base().join("cgroup.procs"), two.to_string()).expect("an own directory");
    eventually("it is free", || affinity(two) == all);
    assert_eq!(affinity(one), [0]);
}

/// The shell, a child and another: the third above a limit of two.
const THREE: &str = "GO; sleep 30 & sleep 30 & wait $!; echo $? > HERE/status; GO; sleep 30 & wait $!; echo $? > HERE/again; wait";

#[test]
fn whoever_is_born_above_the_limit_is_killed_and_counted_also_after_a_crash() {
    let Some(mut g) = Ground::new("pids") else { return };
    // Older than the tick in which others are born.
    let (one, two) = (g.f.sleeper(), g.f.sleeper());
    let born = Instant::now();
    eventually("ticks have passed", || born.elapsed() > Duration::from_millis(25));
    let a = g.f.group(g.h, "/a");
    g.f.write(a, "pids.max", "2").expect("a limit");
    let pid = g.start(THREE);
    g.attach(pid, a);
    g.go();
    assert_eq!(g.number("status"), 128 + 9, "killed where fork would have failed");
    assert_eq!((g.f.read(a, "pids.events"), g.f.read(a, "pids.current")), ("max 1\n".into(), "2\n".into()));
    // One that comes may bring the group above its limit, by whosever hand.
    g.attach(one, a);
    fs::write(g.leaf_of(pid).join("cgroup.procs"), two.to_string()).expect("an own directory");
    assert_eq!(g.f.read(a, "pids.current"), "4\n");
    assert_eq!(g.f.read(a, "pids.events"), "max 1\n");
    g.f.crash_and_restart();
    let a = g.at("/a");
    assert_eq!((g.f.read(a, "pids.max"), g.f.read(a, "pids.events")), ("2\n".into(), "max 1\n".into()));
    assert_eq!(g.f.read(a, "pids.current"), "4\n");
    g.go();
    assert_eq!(g.number("again"), 128 + 9);
    assert_eq!((g.f.read(a, "pids.events"), g.f.read(a, "pids.peak")), ("max 2\n".into(), "5\n".into()));
    // What was counted stays with the group when its last process has gone.
    g.clear("/a");
    assert_eq!(g.f.read(a, "pids.events"), "max 2\n");
}

#[test]
fn a_limit_above_binds_all_below_it_and_goes_with_its_value() {
    let Some(mut g) = Ground::new("pids") else { return };
    let (a, b) = (g.f.group(g.h, "/a"), g.f.group(g.h, "/a/b"));
    let sleeper = g.f.sleeper();
    g.attach(sleeper, a);
    assert_eq!((g.f.read(a, "pids.current"), g.f.read(a, "pids.peak")), ("1\n".into(), "1\n".into()));
    let pid = g.start(THREE);
    g.attach(pid, b);
    g.f.write(a, "pids.max", "3").expect("a limit");
    g.go();
    assert_eq!(g.number("status"), 128 + 9);
    assert_eq!((g.f.read(b, "pids.events"), g.f.read(a, "pids.current")), ("max 1\n".into(), "3\n".into()));
    g.f.write(a, "pids.max", "max").expect("none");
    g.go();
    eventually("it lives", || g.f.read(b, "pids.current") == "3\n");
    g.clear("/a/b");
    assert_eq!(g.f.read(b, "pids.events"), "max 1\n");
}

#[test]
fn cpus_are_in_force_again_after_a_crash_for_those_who_were_born_meanwhile() {
    let (Some(_), Some(mut g)) = (all_cpus(), Ground::new("cpuset")) else { return };
    let a = g.group_on("/a", "0");
    let pid = g.start("GO; sleep 30 & echo $! > HERE/child; wait");
    g.attach(pid, a);
    g.f.crash_and_restart_after(|state| {
        let dir = state.with_extension("ground");
        fs::write(dir.join("go"), "\n").expect("somebody reads");
        let child = || fs::read_to_string(dir.join("child")).is_ok_and(|text| text.ends_with('\n'));
        eventually("a child is born", child);
    });
    let child = g.number("child");
    let a = g.at("/a");
    assert_eq!((g.f.read(a, "cpuset.cpus"), affinity(child)), ("0\n".into(), vec![0]));
    g.f.write(a, "cpuset.cpus", "1").expect("another");
    assert_eq!((affinity(pid), affinity(child)), (vec![1], vec![1]));
    g.clear("/a");
}

#[test]
fn status_says_why_it_is_user_space_and_a_strict_realm_refuses_it() {
    let Some(g) = Ground::new("pids,cpuset") else { return };
    let a = g.group_on("/a", "0");
    let status = g.f.realm().status(a).expect("it is there");
    let of = |file: &str| status.iter().find(|one| one.file == file).expect(file).enforced.clone();
    assert_eq!((of("pids.max"), of("cpuset.cpus")), (Enforced::Unaided("pids"), Enforced::Unaided("cpuset")));
    assert!(matches!(of("cpuset.mems"), Enforced::StoredOnly(_)));
    let Some(strict) = fixture_without_controllers(true) else { return };
    let a = strict.group(strict.mount("pids"), "/a");
    let refused = strict.write(a, "pids.max", "2").expect_err("the kernel would not do it");
    assert_eq!(refused.errno(), Errno::EBUSY);
    strict.write(a, "pids.max", "max").expect("no limit promises nothing");
}

#[test]
fn what_user_space_cannot_do_is_as_it_was() {
    let Some(g) = Ground::new("pids") else { return };
    let memory = pinfold_files::controller_named("memory").expect("a controller");
    assert!(!g.f.realm().enabled().contains(memory));
    assert!(g.f.realm().why_not(memory).contains("memory is not in cgroup.controllers of"));
}
