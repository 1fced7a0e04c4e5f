//! A process that is attached to one hierarchy after another, and stays where it is.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use pinfold_model::GroupId;

use crate::support::{Fixture, eventually, fixture, skip};

/// Where a process is in the v2 tree.
fn place(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("alive")
}

fn usage(f: &Fixture, group: GroupId) -> u64 {
    f.read(group, "cpuacct.usage").trim().parse().expect("a number")
}

#[test]
fn the_only_process_of_a_cell_goes_through_all_hierarchies_where_it_is() {
    let Some(mut f) = fixture() else { return };
    let all = ["freezer", "cpuacct", "perf_event", "none,name=last"].map(|options| f.mount(options));
    let pid = f.sleeper();
    let line = format!("{pid}\n");
    let mut places = Vec::new();
    for h in all {
        let group = f.group(h, "/a");
        f.write(group, "tasks", &pid.to_string()).expect("attached");
        assert_eq!(f.read(group, "tasks"), line);
        places.push(place(pid));
    }
    assert!(places.iter().all(|one| *one == places[0]), "{places:?}");
    assert_eq!(fs::read_dir(f.state().join("folds")).expect("it is there").count(), 0, "all is kept");
    f.crash_and_restart();
    for h in all {
        let group = f.group(h, "/a");
        assert_eq!(f.read(group, "tasks"), line);
    }
}

#[test]
fn one_of_two_is_moved_and_the_other_stays() {
    let Some(mut f) = fixture() else { return };
    let (h, other) = (f.mount("freezer"), f.mount("perf_event"));
    let (a, b) = (f.group(h, "/a"), f.group(other, "/b"));
    let (one, two) = (f.sleeper(), f.sleeper());
    for pid in [one, two] {
        f.write(a, "tasks", &pid.to_string()).expect("attached");
    }
    f.write(b, "tasks", &one.to_string()).expect("attached");
    assert_eq!(f.read(b, "tasks"), format!("{one}\n"));
    assert_ne!(place(one), place(two));
}

#[test]
fn what_a_process_has_used_stays_with_the_group_that_it_leaves() {
    let Some(mut f) = fixture() else { return };
    let (h, other) = (f.mount("cpuacct"), f.mount("freezer"));
    let (a, b, c) = (f.group(h, "/a"), f.group(h, "/a/b"), f.group(h, "/c"));
    let beside = f.group(other, "/beside");
    let pid = f.burner();
    f.write(beside, "tasks", &pid.to_string()).expect("attached");
    let before = place(pid);
    f.write(b, "tasks", &pid.to_string()).expect("attached");
    eventually("it has used the CPU", || usage(&f, b) > 50_000_000);
    f.write(beside, "freezer.state", "FROZEN").expect("frozen");
    eventually("it uses none", || f.read(beside, "freezer.state") == "FROZEN\n");
    let used = usage(&f, b);
    f.write(c, "tasks", &pid.to_string()).expect("attached");
    assert_eq!(place(pid), before, "it was not moved");
    for _ in 0..2 {
        assert!(usage(&f, c) < used / 2, "{} of {used} is another's", usage(&f, c));
        assert!(usage(&f, b) >= used && usage(&f, a) >= used, "usage never goes backwards");
        f.crash_and_restart();
    }
}

#[test]
fn who_comes_to_a_frozen_group_is_frozen_where_it_is() {
    let Some(mut f) = fixture() else { return };
    let (h, other) = (f.mount("freezer"), f.mount("perf_event"));
    let (cold, warm, beside) = (f.group(h, "/cold"), f.group(h, "/warm"), f.group(other, "/beside"));
    f.write(cold, "freezer.state", "FROZEN").expect("frozen");
    let pid = f.sleeper();
    f.write(beside, "tasks", &pid.to_string()).expect("attached");
    let before = place(pid);
    for (group, is_frozen) in [(cold, "frozen 1"), (warm, "frozen 0")] {
        f.write(group, "tasks", &pid.to_string()).expect("attached");
        assert_eq!(place(pid), before, "it was not moved");
        let events = f.base().join("pinfold.test/cell.1/cgroup.events");
        eventually(is_frozen, || fs::read_to_string(&events).is_ok_and(|text| text.contains(is_frozen)));
    }
}

#[test]
fn what_a_group_denies_holds_where_a_process_is_and_goes_with_it() {
    let Some(mut f) = fixture() else { return };
    if f.realm().enabled().iter().all(|id| pinfold_files::controller(id).name != "devices") {
        return skip("programs cannot be attached here").unwrap_or(());
    }
    let (h, other) = (f.mount("devices"), f.mount("freezer"));
    let (a, b, beside) = (f.group(h, "/a"), f.group(h, "/b"), f.group(other, "/beside"));
    f.write(a, "devices.deny", "a").expect("denied");
    let said = f.state().with_extension("said");
    // All builtins of the shell: a child would be a second process of the cell.
    let pid = f.start(&format!(
        "while :; do if command : </dev/full; then echo free; else echo denied; fi >{}; done 2>&-",
        said.display()
    ));
    let says =
        |word: &str| eventually(word, || fs::read_to_string(&said).is_ok_and(|text| text.trim() == word));
    says("free");
    f.write(beside, "tasks", &pid.to_string()).expect("attached");
    let before = place(pid);
    let root_group = f.realm().root(h).expect("mounted");
    for (group, word) in [(a, "denied"), (root_group, "free"), (a, "denied"), (b, "free")] {
        f.write(group, "tasks", &pid.to_string()).expect("attached");
        assert_eq!(place(pid), before, "it was not moved");
        says(word);
    }
    f.end(pid);
    fs::remove_file(&said).expect("an own file");
}

#[test]
fn a_shift_that_was_cut_short_is_finished_first() {
    let Some(mut f) = fixture() else { return };
    let (h, other) = (f.mount("cpuacct"), f.mount("freezer"));
    let (a, beside) = (f.group(h, "/a"), f.group(other, "/beside"));
    let pid = f.sleeper();
    f.write(beside, "tasks", &pid.to_string()).expect("attached");
    let record = |state: &Path| fs::read_to_string(state.join("cells/1")).expect("the only cell");
    let before = record(&f.state());
    f.write(a, "tasks", &pid.to_string()).expect("attached");
    let after = record(&f.state());
    let own = after.lines().find(|line| line.starts_with("group=") && !before.contains(line));
    let own = own.expect("the new group").to_owned();
    f.crash_and_restart_after(|state| {
        fs::write(state.join("cells/1"), before).expect("an own file");
        let cell = pinfold_files::print_bytes(after.as_bytes());
        let fold = format!("cell={cell}\n{own}\ncpuacct.usage=+7000000\n");
        fs::write(state.join("folds/1"), fold).expect("an own file");
    });
    for group in [f.group(h, "/a"), f.group(other, "/beside")] {
        assert_eq!(f.read(group, "tasks"), format!("{pid}\n"));
    }
    let a = f.group(h, "/a");
    assert!(usage(&f, a) >= 7_000_000_000, "{}", usage(&f, a));
    assert_eq!(record(&f.state()), after);
    assert_eq!(fs::read_dir(f.state().join("folds")).expect("it is there").count(), 0);
}

/// Killed when the record of a shift was there; then the process went elsewhere, and somebody removed its leaf.
#[test]
fn what_was_counted_before_a_shift_is_not_lost_with_a_leaf_that_does_not_come_back() {
    let Some(mut f) = fixture() else { return };
    let (h, other) = (f.mount("cpuacct"), f.mount("freezer"));
    let (a, b, beside) = (f.group(h, "/a"), f.group(h, "/b"), f.group(other, "/beside"));
    let v2 = f.base().parent().expect("below the top").to_owned();
    let dir = |pid| {
        let place = place(pid);
        let own = place.lines().find_map(|line| line.strip_prefix("0::/")).expect("it is in the v2 tree");
        v2.join(own)
    };
    let pid = f.sleeper();
    let origin = dir(pid);
    for group in [beside, b, a] {
        f.write(group, "tasks", &pid.to_string()).expect("attached");
    }
    let leaf = dir(pid);
    let [a, b] = [a, b].map(|group| format!("group={group}"));
    f.crash_and_restart_after(|state| {
        fs::write(origin.join("cgroup.procs"), pid.to_string()).expect("its own process");
        fs::remove_dir(&leaf).expect("it is empty");
        for (group, kept) in [("a", 1), ("b", 5)] {
            let settings = state.join("hierarchies/cpuacct").join(group).join("settings");
            let text = fs::read_to_string(&settings).expect("it has a number");
            let others = text.lines().filter(|line| !line.starts_with("cpuacct.usage="));
            let text: String = others.map(|line| format!("{line}\n")).collect();
            fs::write(&settings, format!("{text}cpuacct.usage=+{kept}000000\n")).expect("an own file");
        }
        let cell = fs::read_to_string(state.join("cells/1")).expect("the only cell").replace(&a, &b);
        let cell = pinfold_files::print_bytes(cell.as_bytes());
        let fold = format!("cell={cell}\n{a}\ncpuacct.usage=+7000000\n{b}\ncpuacct.usage=+3000000\n");
        fs::write(state.join("folds/1"), fold).expect("an own file");
    });
    let [left, entered] = ["/a", "/b"].map(|path| usage(&f, f.group(h, path)));
    assert_eq!(left, 7_000_000_000, "what its leaf had counted for it");
    assert_eq!(entered, 5_000_000_000, "no less than it had before");
    assert_eq!(fs::read_dir(f.state().join("folds")).expect("it is there").count(), 0);
}

/// Killed when the record of the shift was there: who waits for the group to be empty hears of it, twice rather than never.
#[test]
fn a_group_that_is_left_where_its_process_is_is_told_to_its_agent_also_after_a_crash() {
    let Some(mut f) = fixture() else { return };
    let [agent, told] = ["agent", "told"].map(|what| f.state().with_extension(what));
    fs::write(&agent, format!("#!/bin/sh\necho \"$1\" >> {}\n", told.display())).expect("an own file");
    fs::set_permissions(&agent, fs::Permissions::from_mode(0o755)).expect("an own file");
    // Nothing is counted in one of the hierarchies, so that nothing else is to be written down of a group.
    for counting in ["freezer", "cpuacct"] {
        let h = f.mount(&format!("{counting},release_agent={}", agent.display()));
        let [left, entered] = ["/left", "/entered"].map(|path| f.group(h, path));
        f.write(left, "notify_on_release", "1").expect("kept");
        let pid = f.sleeper();
        f.write(left, "tasks", &pid.to_string()).expect("attached");
        let before = place(pid);
        let cells = fs::read_dir(f.state().join("cells")).expect("it is there");
        let cell = cells.map(|entry| entry.expect("a record").path()).max().expect("the last cell");
        // As if it were killed before it replaced the cell's own record.
        let record = fs::read_to_string(&cell).expect("it has a cell");
        fs::remove_file(&cell).expect("an own file");
        fs::create_dir(&cell).expect("an own file");
        f.write(entered, "tasks", &pid.to_string()).expect("attached");
        assert_eq!(place(pid), before, "it was not moved");
        let hears = || {
            eventually("it is told", || fs::read_to_string(&told).is_ok_and(|text| text == "/left\n"));
            fs::remove_file(&told).expect("an own file");
        };
        hears();
        f.crash_and_restart_after(|_| {
            fs::remove_dir(&cell).expect("an own file");
            fs::write(&cell, record).expect("an own file");
        });
        hears();
        assert_eq!(f.read(f.group(h, "/entered"), "tasks"), format!("{pid}\n"));
        assert_eq!(fs::read_dir(f.state().join("folds")).expect("it is there").count(), 0);
        f.end(pid);
    }
    fs::remove_file(&agent).expect("an own file");
}
