//! misc.rst and kernel/cgroup/misc.c.

use crate::stage::check;

#[test]
fn every_resource_of_the_machine_is_shown() {
    check(
        r"
        mkdir /a
        /a/misc.max = ''
        v2 / base misc.capacity sev\s50\nsev_es\s10\n
        v2 /a realm misc.max sev\smax\nsev_es\smax\n
        v2 /a carrier misc.current sev\s3\nsev_es\s0\n
        v2 /a carrier misc.events sev.max\s2\nsev_es.max\s0\n
        /misc.capacity = sev\s50\nsev_es\s10\n
        /a/misc.max < sev\s5\n = ok
        /a/misc.max = sev\s5\nsev_es\smax\n
        /a/misc.max < sev_es\s0x10 = ok
        /a/misc.max < sev\smax = ok
        /a/misc.max = sev\smax\nsev_es\s16\n
        /a/misc.current = sev\s3\nsev_es\s0\n
        /a/misc.events = sev.max\s2\nsev_es.max\s0\n
        /a/misc.capacity = ENOENT
        /misc.max = ENOENT
        ",
    );
}

#[test]
fn resources_are_those_that_the_groups_own_directories_name_if_it_has_some() {
    check(
        r"
        mkdir /a
        v2 /a realm misc.max sev\smax\n
        /a/misc.current = sev\s0\n
        /a/misc.events = sev.max\s0\n
        mkdir /b
        v2 /b carrier misc.current sev_es\s1\nsev\s0\n
        v2 /b carrier misc.current sev_es\s2\nsev\s3\n
        v2 /b carrier misc.events sev_es.max\s4\nsev.max\s0\n
        /b/misc.current = sev_es\s3\nsev\s3\n
        /b/misc.events = sev_es.max\s4\nsev.max\s0\n
        ",
    );
}

#[test]
fn a_limit_is_a_resource_and_a_number() {
    check(
        r"
        mkdir /a
        /a/misc.max < sev = EINVAL
        /a/misc.max < sev\sabc = EINVAL
        /a/misc.max < sev\s-1 = EINVAL
        /a/misc.max < sev\s\s5 = EINVAL
        /a/misc.max < \n = EINVAL
        /a/misc.max < sev\s99999999999999999999 = ERANGE
        /a/misc.current < 1 = EINVAL
        ",
    );
}

#[test]
fn failures_outlive_their_directory() {
    check(
        r"
        mkdir /a
        v2 /a realm misc.max sev\smax\n
        v2 /a carrier misc.events sev.max\s2\n
        gone /a
        v2 /a realm misc.max sev\smax\n
        v2 /a carrier misc.events sev.max\s1\n
        /a/misc.events = sev.max\s3\n
        ",
    );
}
