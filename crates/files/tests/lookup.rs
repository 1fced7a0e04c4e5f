//! From names to rows and back.

use std::ffi::OsStr;

use pinfold_files::{
    Facts, FileId, controller, controller_named, controllers, counter_by_key, counters, file, files,
    full_name, list, lookup, named, setting_by_key, settings,
};
use pinfold_model::ControllerSet;

use crate::stage::Stage;

/// A machine with every v2 file that a row depends on.
fn facts() -> Facts {
    Stage::new().facts
}

/// The controllers of these names.
fn set(names: &str) -> ControllerSet {
    names.split_whitespace().map(|name| controller_named(name).unwrap()).collect()
}

/// The names in a group of a hierarchy with these controllers.
fn check_list(bound: &str, is_root: bool, expected: &str) {
    let names: Vec<_> = list(set(bound), is_root, &facts()).map(|id| full_name(id, false)).collect();
    assert_eq!(names.join(" "), expected);
}

// As the kernel's tables stand in its source; a real directory lists by hash.
#[test]
fn core_files_come_first_then_each_controllers() {
    check_list(
        "",
        true,
        "cgroup.procs cgroup.clone_children cgroup.sane_behavior tasks notify_on_release release_agent",
    );
    check_list("", false, "cgroup.procs cgroup.clone_children tasks notify_on_release");
    check_list(
        "pids freezer",
        false,
        "cgroup.procs cgroup.clone_children tasks notify_on_release freezer.state freezer.self_freezing \
         freezer.parent_freezing pids.max pids.current pids.peak pids.events",
    );
    check_list(
        "cpuacct pids",
        true,
        "cgroup.procs cgroup.clone_children cgroup.sane_behavior tasks notify_on_release release_agent \
         cpuacct.usage cpuacct.usage_user cpuacct.usage_sys cpuacct.usage_percpu cpuacct.usage_percpu_user \
         cpuacct.usage_percpu_sys cpuacct.usage_all cpuacct.stat",
    );
}

#[test]
fn every_listed_name_is_found_and_gives_the_same_file() {
    for is_root in [true, false] {
        for id in list(controllers(), is_root, &facts()) {
            let name = full_name(id, false);
            assert_eq!(
                lookup(controllers(), false, is_root, &facts(), OsStr::new(&*name)),
                Some(id),
                "{name}"
            );
        }
        // Without a prefix, files of two controllers may have one name: only a single one is mounted so.
        for bound in controllers().iter().map(|id| ControllerSet::EMPTY.with(id)) {
            for id in list(bound, is_root, &facts()) {
                let name = full_name(id, true);
                assert_eq!(lookup(bound, true, is_root, &facts(), OsStr::new(&*name)), Some(id), "{name}");
            }
        }
    }
}

#[test]
fn a_name_is_found_only_where_its_file_is() {
    let find = |bound: &str, noprefix, is_root, name: &str| {
        lookup(set(bound), noprefix, is_root, &facts(), OsStr::new(name))
            .map(|id| full_name(id, false).into_owned())
    };
    assert_eq!(find("pids", false, false, "pids.max").as_deref(), Some("pids.max"));
    assert_eq!(find("pids", true, false, "max").as_deref(), Some("pids.max"));
    for (bound, noprefix, is_root, name) in [
        ("pids", false, true, "pids.max"),
        ("freezer", false, false, "pids.max"),
        ("pids", true, false, "pids.max"),
        ("pids", false, false, "max"),
        ("pids", false, false, "pids"),
        ("pids", false, false, "pids."),
        ("pids", false, false, ".max"),
        ("pids", false, false, "pids.max "),
        ("pids", false, false, "PIDS.max"),
        ("pids", false, false, ""),
        ("pids", false, false, "."),
        ("", false, false, "release_agent"),
        ("", false, false, "cgroup.sane_behavior"),
    ] {
        assert_eq!(find(bound, noprefix, is_root, name), None, "{name:?} with {bound:?}");
    }
}

#[test]
fn a_file_id_goes_through_its_number() {
    let all: Vec<FileId> = files().collect();
    for id in &all {
        assert_eq!(FileId::new(id.get()), Some(*id));
        assert_eq!(named(&full_name(*id, false)), Some(*id));
    }
    assert_eq!(all.first().map(|id| id.get()), Some(1));
    assert_eq!(FileId::new(0), None, "0 is the directory");
    assert_eq!(FileId::new(u16::try_from(all.len()).unwrap() + 1), None);
    assert_eq!(FileId::new(u16::MAX), None);
}

#[test]
fn keys_lead_back_to_what_they_name() {
    for setting in settings(controllers()) {
        assert_eq!(setting_by_key(setting.key.0), Some(setting));
        assert_eq!(counter_by_key(setting.key.0), None);
    }
    for counter in counters(controllers()) {
        assert_eq!(counter_by_key(counter.key.0), Some(counter));
        assert_eq!(setting_by_key(counter.key.0), None);
    }
    assert_eq!(setting_by_key("pids.min"), None);
}

#[test]
fn a_hierarchy_keeps_only_what_its_controllers_have() {
    let keys = |bound: &str| settings(set(bound)).map(|setting| setting.key.0).collect::<Vec<_>>().join(" ");
    assert_eq!(keys(""), "cgroup.clone_children notify_on_release release_agent");
    assert_eq!(
        keys("pids freezer"),
        "cgroup.clone_children notify_on_release release_agent freezer.state pids.max"
    );
    assert_eq!(counters(set("freezer")).count(), 0);
}

#[test]
fn controllers_are_found_by_name() {
    for id in controllers().iter() {
        assert_eq!(controller_named(controller(id).name), Some(id));
        assert!(controller(id).files.iter().all(|row| files().any(|id| std::ptr::eq(file(id).1, row))));
    }
    assert_eq!(controller_named(""), None);
    assert_eq!(controller_named("PIDS"), None);
}
