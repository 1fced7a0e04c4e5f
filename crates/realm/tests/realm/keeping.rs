//! What a realm keeps, and what it leaves alone.

use std::ffi::OsStr;
use std::fs;
use std::mem::MaybeUninit;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use pinfold_model::{Errno, GroupLimits};
use pinfold_realm::{Config, Enforced, Node, OpenError, Realm, StateError};
use rustix::fs::inotify;

use crate::support::{eventually, fixture, root};

#[test]
fn a_directory_that_is_no_state_directory_is_left_alone() {
    let Some(f) = fixture() else { return };
    let theirs = std::env::temp_dir().join(format!("pinfold-theirs-{}", std::process::id()));
    fs::create_dir_all(theirs.join("tmp/precious")).expect("an own directory");
    fs::write(theirs.join("diary.txt"), "dear diary").expect("an own file");
    fs::set_permissions(&theirs, fs::Permissions::from_mode(0o700)).expect("an own directory");
    let config = Config {
        name: "other".into(),
        state: theirs.clone(),
        base: Some(f.base().to_owned()),
        strict: false,
        limits: GroupLimits::DEFAULT,
    };
    let refused = Realm::open(config.clone()).err().expect("it is not empty");
    assert!(matches!(refused, OpenError::State(StateError::NotOurs(_))), "{refused}");
    assert!(theirs.join("tmp/precious").is_dir() && theirs.join("diary.txt").is_file());
    fs::remove_dir_all(&theirs).expect("an own directory");
    fs::create_dir(&theirs).expect("an own directory");
    fs::set_permissions(&theirs, fs::Permissions::from_mode(0o755)).expect("an own directory");
    let refused = Realm::open(config).err().expect("others can look into it");
    assert!(matches!(refused, OpenError::State(StateError::NotPrivate(_))), "{refused}");
    fs::remove_dir_all(&theirs).expect("an own directory");
}

#[test]
fn what_others_put_into_the_state_directory_stays() {
    let Some(mut f) = fixture() else { return };
    let note = f.state().join("note");
    fs::write(&note, "mine").expect("an own file");
    f.leave();
    assert_eq!(fs::read_to_string(&note).expect("not pinfold's"), "mine");
    assert_eq!(fs::read_dir(f.state()).expect("kept for the note").count(), 1);
    fs::remove_dir_all(f.state()).expect("an own directory");
}

#[test]
fn numbers_that_are_kept_are_not_given_to_other_groups() {
    let Some(mut f) = fixture() else { return };
    let h = f.mount("freezer");
    for number in 0..12 {
        f.group(h, &format!("/n{number}"));
    }
    for number in [1, 2, 5] {
        f.remove(h, &format!("/n{number}")).expect("empty");
    }
    for number in [3, 7, 11] {
        let group = f.group(h, &format!("/n{number}"));
        f.write(group, "notify_on_release", "1").expect("a flag");
    }
    for _ in 0..2 {
        f.crash_and_restart();
        f.group(h, "/fresh");
        for number in [3, 7, 11] {
            let group = f.realm().resolve(h, OsStr::new(&format!("/n{number}"))).expect("kept");
            assert_eq!(f.read(group, "notify_on_release"), "1\n");
        }
    }
}

#[test]
fn a_mode_that_the_umask_would_change_is_kept() {
    let Some(mut f) = fixture() else { return };
    let h = f.mount("freezer");
    let root_group = f.realm().root(h).expect("mounted");
    let mode = |f: &crate::support::Fixture| {
        let group = f.realm().resolve(h, OsStr::new("/open")).expect("kept");
        f.realm().attributes(Node::Group(group)).expect("kept").ownership.mode
    };
    f.realm().make(&root(), root_group, OsStr::new("open"), 0o777).expect("made");
    assert_eq!(mode(&f), 0o777);
    f.crash_and_restart();
    assert_eq!(mode(&f), 0o777);
}

#[test]
fn what_is_in_force_after_a_crash_is_what_is_kept() {
    let Some(mut f) = fixture() else { return };
    let h = f.mount("freezer");
    let a = f.group(h, "/a");
    let pid = f.sleeper();
    f.write(a, "tasks", &pid.to_string()).expect("attached");
    // As if the daemon was killed between freezing and keeping that it did.
    fs::write(f.base().join("pinfold.test/cell.1/cgroup.freeze"), "1").expect("an own directory");
    f.crash_and_restart();
    let a = f.realm().resolve(h, OsStr::new("/a")).expect("kept");
    assert_eq!(f.read(a, "freezer.state"), "THAWED\n");
    let events = f.base().join("pinfold.test/cell.1/cgroup.events");
    eventually("it runs", || fs::read_to_string(&events).is_ok_and(|text| text.contains("frozen 0")));
}

#[test]
fn the_status_of_a_group_has_every_setting_and_who_enforces_it() {
    let Some(mut f) = fixture() else { return };
    let h = f.mount("freezer");
    let (a, b) = (f.group(h, "/a"), f.group(h, "/a/b"));
    for group in [a, b] {
        let pid = f.sleeper();
        f.write(group, "tasks", &pid.to_string()).expect("attached");
    }
    let status = f.realm().status(a).expect("it is there");
    let freezer = status.iter().find(|one| one.file == "freezer.state").expect("it is a setting");
    assert_eq!((freezer.value.as_str(), &freezer.enforced), ("THAWED", &Enforced::Everywhere(2)));
    assert!(status.iter().any(|one| one.file == "notify_on_release" && one.enforced == Enforced::UserSpace));
}

#[test]
fn the_daemon_itself_is_not_attached() {
    let Some(f) = fixture() else { return };
    let h = f.mount("freezer");
    let a = f.group(h, "/a");
    let error = f.write(a, "tasks", "0").expect_err("this test is the daemon");
    assert_eq!(error.errno(), Errno::EINVAL);
    assert_eq!(f.read(a, "tasks"), "");
}

#[test]
fn an_end_that_was_cut_short_is_finished_first() {
    let Some(mut f) = fixture() else { return };
    let h = f.mount("freezer");
    let a = f.group(h, "/a");
    let pid = f.sleeper();
    f.write(a, "tasks", &pid.to_string()).expect("attached");
    let mark = f.state().join("realm");
    let text = fs::read_to_string(&mark).expect("it is there");
    fs::write(&mark, text + "leaving\n").expect("an own file");
    f.crash_and_restart();
    assert!(f.realm().hierarchies().is_empty());
    let place = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("alive");
    assert!(!place.contains("pinfold.test"), "{place}");
}

#[test]
fn a_way_that_is_too_long_to_be_kept_is_refused() {
    let Some(mut f) = fixture() else { return };
    let h = f.mount("freezer");
    let mut at = f.realm().root(h).expect("mounted");
    let mut depth = 0;
    // The last names are short: a group that could be made, but not keep a setting, would not come back.
    let refused = loop {
        let name = "n".repeat(if depth < 20 { 200 } else { 1 });
        match f.realm().make(&root(), at, OsStr::new(&name), 0o755) {
            Ok(group) => (at, depth) = (group, depth + 1),
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused.errno(), Errno::ENAMETOOLONG, "{refused}");
    let why = std::error::Error::source(&refused).map(ToString::to_string).unwrap_or_default();
    assert!(why.contains("the way to a group is too long") && why.len() < 400, "{why}");
    let count = |f: &crate::support::Fixture| f.realm().hierarchies()[0].groups;
    let made = count(&f);
    assert_eq!(made, depth + 1, "and the root");
    f.crash_and_restart();
    assert_eq!(count(&f), made, "each is there again");
}

#[test]
fn a_name_that_makes_a_way_below_too_long_is_refused() {
    let Some(mut f) = fixture() else { return };
    let h = f.mount("freezer");
    let top = f.realm().root(h).expect("mounted");
    let mut at = f.group(h, "/a");
    let name = "n".repeat(200);
    let mut depth = 2;
    while let Ok(group) = f.realm().make(&root(), at, OsStr::new(&name), 0o755) {
        (at, depth) = (group, depth + 1);
    }
    let rename = |f: &crate::support::Fixture, to: &str| {
        f.realm().rename(&root(), top, OsStr::new("a"), top, OsStr::new(to))
    };
    let refused = rename(&f, &"b".repeat(255)).expect_err("those below could not be kept");
    assert_eq!(refused.errno(), Errno::ENAMETOOLONG, "{refused}");
    rename(&f, "b").expect("that is no longer");
    f.crash_and_restart();
    assert_eq!(f.realm().hierarchies()[0].groups, depth, "each is there again");
    f.write(f.realm().resolve(h, OsStr::new("/b")).expect("its name now"), "freezer.state", "FROZEN")
        .expect("kept");
}

/// As a daemon left it that did not refuse that: the realm ends all the same, and starts.
#[test]
fn a_way_that_has_become_too_long_is_removed_with_the_rest() {
    let Some(mut f) = fixture() else { return };
    let h = f.mount("freezer");
    let mut at = f.group(h, "/a");
    while let Ok(group) = f.realm().make(&root(), at, OsStr::new(&"n".repeat(200)), 0o755) {
        at = group;
    }
    f.crash_and_restart_after(|state| {
        let groups = state.join("hierarchies/freezer");
        fs::rename(groups.join("a"), groups.join("b".repeat(255))).expect("ours");
    });
    let state = f.state();
    f.leave();
    assert!(!state.exists());
}

/// Killed in between, a daemon must not leave a denial that holds above and not below: a program is asked for its own group alone.
#[test]
fn what_is_denied_is_kept_below_first() {
    let Some(f) = fixture() else { return };
    if !f.realm().enabled().iter().any(|id| pinfold_files::controller(id).name == "devices") {
        eprintln!("skipped: this machine takes no programs");
        return;
    }
    let h = f.mount("devices");
    let (a, _) = (f.group(h, "/a"), f.group(h, "/a/b"));
    let kept = f.state().join("hierarchies/devices/a");
    let told = inotify::init(inotify::CreateFlags::NONBLOCK).expect("inotify");
    let watch = |dir: &Path| inotify::add_watch(&told, dir, inotify::WatchFlags::MOVED_TO).expect("ours");
    let (above, below) = (watch(&kept), watch(&kept.join("b")));
    f.write(a, "devices.deny", "c 1:3 rwm").expect("denied in both");
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(&told, &mut buffer);
    let mut next = || events.next().expect("it is kept").wd();
    assert_eq!([next(), next()], [below, above]);
}

/// As on a machine that was started with another kernel, or whose v2 tree no longer passes a controller on.
#[test]
fn a_hierarchy_whose_controller_has_vanished_comes_back_and_keeps_what_it_had() {
    let Some(mut f) = fixture() else { return };
    if f.realm().enabled().iter().any(|id| pinfold_files::controller(id).name == "memory") {
        eprintln!("skipped: this machine has every controller");
        return;
    }
    let (h, other) = (f.mount("freezer"), f.mount("none,name=other"));
    let a = f.group(h, "/a");
    f.write(a, "notify_on_release", "1").expect("a flag");
    let pids = [f.sleeper(), f.sleeper()];
    for (pid, path) in pids.iter().zip(["/x", "/y"]) {
        f.write(a, "tasks", &pid.to_string()).expect("attached");
        f.write(f.group(other, path), "tasks", &pid.to_string()).expect("attached");
    }
    // What a realm leaves that had memory; its limit is divided over two directories.
    let settings = "hierarchies/memory/a/settings";
    f.crash_and_restart_after(|state| {
        fs::rename(state.join("hierarchies/freezer"), state.join("hierarchies/memory")).expect("ours");
        let kept = fs::read_to_string(state.join(settings)).expect("ours");
        fs::write(state.join(settings), kept + "memory.limit_in_bytes=33554432\n").expect("ours");
    });
    let a = f.realm().resolve(h, OsStr::new("/a")).expect("kept");
    assert_eq!(f.read(a, "memory.limit_in_bytes"), "33554432\n");
    assert_eq!(f.read(a, "notify_on_release"), "1\n");
    assert_eq!(f.read(a, "tasks").lines().count(), 2);
    let status = f.realm().status(a).expect("it is there");
    let limit = status.iter().find(|one| one.file == "memory.limit_in_bytes").expect("it is a setting");
    let vanished = Enforced::StoredOnly("the kernel below no longer has the controller");
    assert_eq!(limit.enforced, vanished);
    // Members come and go as ever; a value that nothing would enforce is refused.
    f.write(f.realm().root(h).expect("kept"), "tasks", &pids[0].to_string()).expect("moved");
    assert_eq!(f.read(a, "tasks"), format!("{}\n", pids[1]));
    let refused = f.write(a, "memory.soft_limit_in_bytes", "4096").expect_err("not there");
    assert_eq!(refused.errno(), Errno::ENODEV);
    assert!(refused.to_string().contains("the kernel below no longer has memory.low"), "{refused}");
    f.crash_and_restart();
    let a = f.realm().resolve(h, OsStr::new("/a")).expect("kept");
    assert_eq!(f.read(a, "memory.limit_in_bytes"), "33554432\n");
    assert!(fs::read_to_string(f.state().join(settings)).expect("ours").contains("memory.limit_in_bytes="));
}
