//! cpuacct.rst and kernel/sched/cpuacct.c. The machine has CPUs 0 to 3, of which 1 is away.

use crate::stage::check;

#[test]
fn a_fresh_group_has_used_nothing() {
    check(
        r"
        mkdir /a
        /a/cpuacct.usage = 0\n
        /a/cpuacct.usage_user = 0\n
        /a/cpuacct.usage_sys = 0\n
        /a/cpuacct.usage_percpu = 0\s0\s0\s0\s\n
        /a/cpuacct.usage_percpu_user = 0\s0\s0\s0\s\n
        /a/cpuacct.usage_percpu_sys = 0\s0\s0\s0\s\n
        /a/cpuacct.usage_all = cpu\suser\ssystem\n0\s0\s0\n1\s0\s0\n2\s0\s0\n3\s0\s0\n
        /a/cpuacct.stat = user\s0\nsystem\s0\n
        ",
    );
}

#[test]
fn usage_is_the_sum_over_carriers_in_nanoseconds_and_stat_in_ticks() {
    check(
        r"
        mkdir /a
        v2 /a carrier cpu.stat usage_usec\s30000001\nuser_usec\s20000001\nsystem_usec\s10000000\nnice_usec\s0\n
        v2 /a carrier cpu.stat usage_usec\s9\nuser_usec\s9\nsystem_usec\s0\n
        /a/cpuacct.usage = 30000010000\n
        /a/cpuacct.usage_user = 20000010000\n
        /a/cpuacct.usage_sys = 10000000000\n
        /a/cpuacct.stat = user\s2000\nsystem\s1000\n
        ",
    );
}

#[test]
fn the_total_is_spread_over_the_cpus_that_are_online() {
    check(
        r"
        mkdir /a
        v2 /a carrier cpu.stat usage_usec\s5\nuser_usec\s3\nsystem_usec\s2\n
        /a/cpuacct.usage_percpu = 1668\s0\s1666\s1666\s\n
        /a/cpuacct.usage_percpu_user = 1000\s0\s1000\s1000\s\n
        /a/cpuacct.usage_percpu_sys = 668\s0\s666\s666\s\n
        /a/cpuacct.usage_all = cpu\suser\ssystem\n0\s1000\s668\n1\s0\s0\n2\s1000\s666\n3\s1000\s666\n
        ",
    );
}

#[test]
fn what_gone_directories_used_stays() {
    check(
        r"
        mkdir /a
        v2 /a carrier cpu.stat usage_usec\s5\nuser_usec\s3\nsystem_usec\s2\n
        gone /a
        /a/cpuacct.usage = 5000\n
        v2 /a carrier cpu.stat usage_usec\s7\nuser_usec\s4\nsystem_usec\s3\n
        /a/cpuacct.usage = 12000\n
        /a/cpuacct.usage_user = 7000\n
        gone /a
        /a/cpuacct.usage_sys = 5000\n
        /a/cpuacct.usage = 12000\n
        ",
    );
}

// Linux 6.1 too leaves cpuacct.stat alone.
#[test]
fn writing_0_resets_usage_and_not_stat() {
    check(
        r"
        mkdir /a
        v2 /a carrier cpu.stat usage_usec\s50000\nuser_usec\s30000\nsystem_usec\s20000\n
        gone /a
        v2 /a carrier cpu.stat usage_usec\s50000\nuser_usec\s30000\nsystem_usec\s20000\n
        /a/cpuacct.usage < 0 = ok
        /a/cpuacct.usage = 0\n
        /a/cpuacct.usage_user = 0\n
        /a/cpuacct.usage_sys = 0\n
        /a/cpuacct.usage_percpu = 0\s0\s0\s0\s\n
        /a/cpuacct.stat = user\s6\nsystem\s4\n
        v2 /a carrier cpu.stat usage_usec\s10000\nuser_usec\s10000\nsystem_usec\s0\n
        /a/cpuacct.usage = 10000000\n
        gone /a
        /a/cpuacct.usage = 10000000\n
        /a/cpuacct.stat = user\s7\nsystem\s4\n
        ",
    );
}

#[test]
fn the_root_is_not_reset() {
    check(
        r"
        v2 / carrier cpu.stat usage_usec\s5\nuser_usec\s3\nsystem_usec\s2\n
        /cpuacct.usage < 0 = ok
        /cpuacct.usage = 5000\n
        /cpuacct.usage < 5 = EINVAL
        ",
    );
}

#[test]
fn usage_takes_nothing_but_0() {
    check(
        r"
        mkdir /a
        /a/cpuacct.usage < 0\n = ok
        /a/cpuacct.usage < 00 = ok
        /a/cpuacct.usage < +0x0 = ok
        /a/cpuacct.usage < -0 = EINVAL
        /a/cpuacct.usage < 1 = EINVAL
        /a/cpuacct.usage < \s0 = EINVAL
        /a/cpuacct.usage < 0\n\n = EINVAL
        /a/cpuacct.usage < 18446744073709551615 = EINVAL
        /a/cpuacct.usage < 18446744073709551616 = ERANGE
        /a/cpuacct.usage_user < 0 = EINVAL
        /a/cpuacct.stat < 0 = EINVAL
        ",
    );
}

// A directory that somebody else removed takes its figures along: no panic, and nothing below zero.
#[test]
fn figures_below_the_last_reset_show_as_zero() {
    check(
        r"
        mkdir /a
        v2 /a carrier cpu.stat usage_usec\s18446744073709551615\nuser_usec\s5\nsystem_usec\s0\n
        /a/cpuacct.usage = 18446744073709551615\n
        /a/cpuacct.usage < 0 = ok
        /a/cpuacct.usage_user = 0\n
        lost /a
        v2 /a carrier cpu.stat user_usec\s3\n
        /a/cpuacct.usage = 0\n
        /a/cpuacct.usage_user = 0\n
        ",
    );
}
