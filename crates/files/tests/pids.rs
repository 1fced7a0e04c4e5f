//! pids.rst and kernel/cgroup/pids.c, case by case.

use crate::stage::check;

// Each line was seen on Linux 6.1 (pids.max at 7 before each write).
#[test]
fn a_limit_is_max_or_a_number_of_tasks() {
    check(
        r"
        mkdir /a
        /a/pids.max = max\n
        /a/pids.max < 7 = ok
        /a/pids.max = 7\n
        /a/pids.max < 010\n = ok
        /a/pids.max = 8\n
        /a/pids.max < \t\x0b\x0c\x0d+0x10\xa0\s\n\n = ok
        /a/pids.max = 16\n
        /a/pids.max < 5\x006 = ok
        /a/pids.max = 5\n
        /a/pids.max < -0 = ok
        /a/pids.max = 0\n
        /a/pids.max < 4194304 = ok
        /a/pids.max = 4194304\n
        /a/pids.max < \smax\n = ok
        /a/pids.max = max\n
        /a/pids.max < 7 = ok
        /a/pids.max < max\x00x = ok
        /a/pids.max = max\n
        ",
    );
}

#[test]
fn what_is_no_limit_is_refused_and_leaves_the_old_one() {
    check(
        r"
        mkdir /a
        /a/pids.max < 7 = ok
        /a/pids.max < -1 = EINVAL
        /a/pids.max < 4194305 = EINVAL
        /a/pids.max < 9223372036854775807 = EINVAL
        /a/pids.max < 9223372036854775808 = ERANGE
        /a/pids.max < -9223372036854775808 = EINVAL
        /a/pids.max < -9223372036854775809 = ERANGE
        /a/pids.max < 99999999999999999999x = ERANGE
        /a/pids.max < MAX = EINVAL
        /a/pids.max < maxx = EINVAL
        /a/pids.max < 08 = EINVAL
        /a/pids.max < 0x = EINVAL
        /a/pids.max < 5\s6 = EINVAL
        /a/pids.max < \x005 = EINVAL
        /a/pids.max < 5\xff = EINVAL
        /a/pids.max < \n = EINVAL
        /a/pids.max < '' = ok
        /a/pids.max = 7\n
        ",
    );
}

#[test]
fn a_child_does_not_inherit_the_limit() {
    check(
        r"
        mkdir /a
        /a/pids.max < 7 = ok
        mkdir /a/b
        /a/b/pids.max = max\n
        ",
    );
}

#[test]
fn the_root_has_no_files_of_pids() {
    check(
        r"
        /pids.max = ENOENT
        /pids.current = ENOENT
        /pids.peak = ENOENT
        /pids.events = ENOENT
        /pids.max < 5 = ENOENT
        ",
    );
}

#[test]
fn current_is_the_sum_over_carriers() {
    check(
        r"
        mkdir /a
        /a/pids.current = 0\n
        v2 /a carrier pids.current 3\n
        /a/pids.current = 3\n
        v2 /a carrier pids.current 4\n
        /a/pids.current = 7\n
        v2 /a carrier pids.current junk\n
        /a/pids.current = 7\n
        /a/pids.current < 1 = EINVAL
        ",
    );
}

#[test]
fn the_peak_outlives_the_directory_it_was_reached_in() {
    check(
        r"
        mkdir /a
        /a/pids.peak = 0\n
        v2 /a carrier pids.peak 9\n
        /a/pids.peak = 9\n
        gone /a
        /a/pids.peak = 9\n
        v2 /a carrier pids.peak 2\n
        /a/pids.peak = 9\n
        gone /a
        v2 /a carrier pids.peak 12\n
        /a/pids.peak = 12\n
        ",
    );
}

#[test]
fn without_a_peak_in_v2_it_is_at_least_what_is_there_now() {
    check(
        r"
        mkdir /a
        v2 /a carrier pids.current 3\n
        /a/pids.peak = 3\n
        ",
    );
}

// Linux 6.1: the leaf counts what failed in it, whoever's limit it was; the directory above shows 0.
#[test]
fn failed_forks_are_counted_in_the_leaves_by_older_kernels() {
    check(
        r"
        mkdir /a
        /a/pids.events = max\s0\n
        v2 /a leaf pids.events max\s3\n
        v2 /a leaf pids.events max\s4\n
        /a/pids.events = max\s7\n
        gone /a
        /a/pids.events = max\s7\n
        v2 /a leaf pids.events max\s1\n
        /a/pids.events = max\s8\n
        /a/pids.events < 0 = EINVAL
        ",
    );
}

// Linux 6.12: the leaf shows 0, and pids.events.local of the directory with the limit counts.
#[test]
fn failed_forks_are_counted_at_the_limit_by_newer_kernels() {
    check(
        r"
        mkdir /a
        v2 /a leaf pids.events max\s0\n
        v2 /a carrier pids.events.local max\s5\n
        /a/pids.events = max\s5\n
        gone /a
        v2 /a leaf pids.events max\s0\n
        v2 /a carrier pids.events.local max\s1\n
        /a/pids.events = max\s6\n
        ",
    );
}

/// Older kernels tell nothing in a directory above the leaf of whoever could not fork.
#[test]
fn a_limit_is_pressed_in_any_of_the_leaves() {
    let setting = pinfold_files::setting_by_key("pids.max").unwrap();
    let pinfold_files::Carry::Limit([v2]) = setting.carry else { panic!("v2 has one file for it") };
    let pinfold_files::Share::Divided(division) = v2.share else { panic!("it can be divided") };
    let pressed = division.pressed.expect("the kernel tells");
    assert!(matches!(pressed, pinfold_files::Pressed::MetInLeaf(_, "pids.events.local")));
    let texts = ["max 3\n", "max 0\n", "", "max 4\n"].map(str::to_owned);
    assert_eq!(pressed.read(&texts, ""), Some(pinfold_model::Pressure::Met { times: 7, periods: None }));
    assert_eq!(pressed.read(&[], ""), None);
}
