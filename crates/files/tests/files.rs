//! The limit on descriptors, case by case. No kernel has it: its form is that of pids.max.

use crate::stage::check;

#[test]
fn a_limit_is_max_or_a_number_of_descriptors() {
    check(
        r"
        mkdir /a
        /a/files.max = max\n
        /a/files.max < 100 = ok
        /a/files.max = 100\n
        /a/files.max < \s0x20\n = ok
        /a/files.max = 32\n
        /a/files.max < 0 = ok
        /a/files.max = 0\n
        /a/files.max < 9223372036854775807 = ok
        /a/files.max = 9223372036854775807\n
        /a/files.max < max\n = ok
        /a/files.max = max\n
        ",
    );
}

#[test]
fn what_is_no_limit_is_refused_and_leaves_the_old_one() {
    check(
        r"
        mkdir /a
        /a/files.max < 7 = ok
        /a/files.max < -1 = EINVAL
        /a/files.max < 9223372036854775808 = ERANGE
        /a/files.max < MAX = EINVAL
        /a/files.max < 1\s2 = EINVAL
        /a/files.max < \n = EINVAL
        /a/files.max = 7\n
        ",
    );
}

#[test]
fn the_open_descriptors_of_all_leaves_are_added() {
    check(
        r"
        mkdir /a
        /a/files.current = 0\n
        v2 /a process fd 12
        v2 /a process fd 30
        /a/files.current = 42\n
        /a/files.current < 1 = EINVAL
        ",
    );
}

#[test]
fn a_child_group_starts_without_a_limit() {
    check(
        r"
        mkdir /a
        /a/files.max < 7 = ok
        mkdir /a/b
        /a/b/files.max = max\n
        ",
    );
}
