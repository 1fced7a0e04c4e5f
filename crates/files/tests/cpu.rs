//! sched-bwc.rst and the v1 files of kernel/sched/core.c. Every answer was seen on Linux 6.1.

use pinfold_files::{Request, named};
use proptest::prelude::*;

use crate::stage::{Stage, check};

#[test]
fn shares_are_clamped() {
    check(
        r"
        mkdir /a
        /a/cpu.shares = 1024\n
        /a/cpu.shares < 512 = ok
        /a/cpu.shares = 512\n
        /a/cpu.shares < 0 = ok
        /a/cpu.shares = 2\n
        /a/cpu.shares < 18446744073709551615 = ok
        /a/cpu.shares = 262144\n
        /a/cpu.shares < 0x200\n = ok
        /a/cpu.shares < \s512 = EINVAL
        /a/cpu.shares < -1 = EINVAL
        /a/cpu.shares < 18446744073709551616 = ERANGE
        /a/cpu.shares = 512\n
        mkdir /a/b
        /a/b/cpu.shares = 1024\n
        /cpu.shares < 512 = EINVAL
        /cpu.shares = 1024\n
        ",
    );
}

#[test]
fn an_idle_group_has_three_shares_and_takes_none() {
    check(
        r"
        mkdir /a
        /a/cpu.shares < 512 = ok
        /a/cpu.idle < 1 = ok
        /a/cpu.shares = 3\n
        /a/cpu.shares < 512 = EINVAL
        /a/cpu.idle < 1 = ok
        /a/cpu.idle < 2 = EINVAL
        /a/cpu.idle < -1 = EINVAL
        /a/cpu.idle = 1\n
        /a/cpu.idle < 0 = ok
        /a/cpu.shares = 1024\n
        /a/cpu.shares < 512 = ok
        /a/cpu.idle < 0 = ok
        /a/cpu.shares = 512\n
        /cpu.idle < 0 = EINVAL
        mkdir /a/b
        /a/b/cpu.idle = 0\n
        ",
    );
}

#[test]
fn a_quota_is_at_least_a_millisecond_or_none() {
    check(
        r"
        mkdir /a
        /a/cpu.cfs_quota_us = -1\n
        /a/cpu.cfs_period_us = 100000\n
        /a/cpu.cfs_quota_us < 999 = EINVAL
        /a/cpu.cfs_quota_us < 0 = EINVAL
        /a/cpu.cfs_quota_us < max = EINVAL
        /a/cpu.cfs_quota_us < 17592186044416 = EINVAL
        /a/cpu.cfs_quota_us < 9223372036854775808 = ERANGE
        /a/cpu.cfs_quota_us < 17592186044415 = ok
        /a/cpu.cfs_quota_us < 0x4000 = ok
        /a/cpu.cfs_quota_us = 16384\n
        /a/cpu.cfs_quota_us < -5 = ok
        /a/cpu.cfs_quota_us = -1\n
        /a/cpu.cfs_period_us < 999 = EINVAL
        /a/cpu.cfs_period_us < 1000001 = EINVAL
        /a/cpu.cfs_period_us < 1000 = ok
        /a/cpu.cfs_period_us < 1000000 = ok
        /a/cpu.cfs_period_us = 1000000\n
        /cpu.cfs_quota_us < -1 = EINVAL
        /cpu.cfs_period_us < 100000 = EINVAL
        ",
    );
}

#[test]
fn a_burst_is_at_most_the_quota() {
    check(
        r"
        mkdir /a
        /a/cpu.cfs_burst_us < 1000 = ok
        /a/cpu.cfs_quota_us < 50000 = ok
        /a/cpu.cfs_burst_us < 50001 = EINVAL
        /a/cpu.cfs_burst_us < 50000 = ok
        /a/cpu.cfs_quota_us < 40000 = EINVAL
        /a/cpu.cfs_quota_us < 60000 = ok
        /a/cpu.cfs_quota_us < -1 = ok
        /a/cpu.cfs_burst_us < 18446744073709551615 = EINVAL
        /a/cpu.cfs_burst_us = 50000\n
        ",
    );
}

#[test]
fn no_group_may_use_more_than_one_above_it() {
    check(
        r"
        mkdir /a
        mkdir /a/b
        mkdir /a/b/c
        /a/cpu.cfs_quota_us < 50000 = ok
        /a/b/cpu.cfs_quota_us < 60000 = EINVAL
        /a/b/cpu.cfs_quota_us < 50000 = ok
        /a/b/cpu.cfs_period_us < 50000 = EINVAL
        /a/b/cpu.cfs_period_us < 200000 = ok
        /a/cpu.cfs_quota_us < 20000 = EINVAL
        /a/cpu.cfs_period_us < 400000 = EINVAL
        /a/cpu.cfs_quota_us < 25000 = ok
        /a/cpu.cfs_quota_us < -1 = ok
        /a/cpu.cfs_quota_us < 100000 = ok
        /a/b/cpu.cfs_quota_us < -1 = ok
        /a/b/c/cpu.cfs_quota_us < 100001 = EINVAL
        /a/b/c/cpu.cfs_quota_us < 100000 = ok
        /a/cpu.cfs_quota_us < 99999 = EINVAL
        /a/cpu.cfs_period_us < 1000000 = EINVAL
        /a/b/c/cpu.cfs_quota_us < -1 = ok
        /a/cpu.cfs_period_us < 1000000 = ok
        ",
    );
}

/// Documentation/scheduler/sched-rt-group.rst; of a kernel with CONFIG_RT_GROUP_SCHED, as its source has it.
#[test]
fn real_time_is_shared_out_from_above_and_bad_values_are_refused() {
    check(
        r"
        mkdir /a
        mkdir /a/b
        mkdir /a/c
        /cpu.rt_period_us = 1000000\n
        /cpu.rt_runtime_us = 950000\n
        /a/cpu.rt_period_us = 1000000\n
        /a/cpu.rt_runtime_us = 0\n
        /a/b/cpu.rt_runtime_us < 1 = EINVAL
        /a/cpu.rt_runtime_us < 950001 = EINVAL
        /a/cpu.rt_runtime_us < -1 = EINVAL
        /a/cpu.rt_runtime_us < x = EINVAL
        /a/cpu.rt_runtime_us < 9223372036854775808 = ERANGE
        /a/cpu.rt_runtime_us = 0\n
        /a/cpu.rt_runtime_us < 400000 = ok
        /a/cpu.rt_runtime_us = 400000\n
        /a/cpu.rt_period_us < 0 = EINVAL
        /a/cpu.rt_period_us < -1 = EINVAL
        /a/cpu.rt_period_us < 399999 = EINVAL
        /a/cpu.rt_period_us < 18446744073709552 = EINVAL
        /a/cpu.rt_period_us < 18446744073709551616 = ERANGE
        /a/cpu.rt_period_us < 500000 = ok
        /a/cpu.rt_period_us < 1000000 = ok
        /a/b/cpu.rt_runtime_us < 300000 = ok
        /a/c/cpu.rt_runtime_us < 100002 = EINVAL
        /a/c/cpu.rt_runtime_us < 100000 = ok
        /a/cpu.rt_runtime_us < 399998 = EINVAL
        /a/cpu.rt_period_us < 2000000 = EINVAL
        /cpu.rt_runtime_us < 399999 = EINVAL
        /cpu.rt_runtime_us < 0 = EINVAL
        /cpu.rt_runtime_us < -1 = EINVAL
        /cpu.rt_runtime_us < 400000 = ok
        /cpu.rt_runtime_us = 400000\n
        /a/c/cpu.rt_runtime_us < 0 = ok
        /a/c/cpu.rt_period_us < 18446744073709551 = ok
        /a/c/cpu.rt_runtime_us < 17592186045 = EINVAL
        /a/c/cpu.rt_period_us = 18446744073709551\n
        ",
    );
}

#[test]
fn stat_is_in_nanoseconds_and_outlives_its_directory() {
    check(
        r"
        mkdir /a
        /a/cpu.stat = nr_periods\s0\nnr_throttled\s0\nthrottled_time\s0\nnr_bursts\s0\nburst_time\s0\n
        v2 /a carrier cpu.stat nr_periods\s5\nnr_throttled\s4\nthrottled_usec\s3\nnr_bursts\s2\nburst_usec\s1\n
        /a/cpu.stat = nr_periods\s5\nnr_throttled\s4\nthrottled_time\s3000\nnr_bursts\s2\nburst_time\s1000\n
        gone /a
        v2 /a carrier cpu.stat nr_periods\s1\n
        /a/cpu.stat = nr_periods\s6\nnr_throttled\s4\nthrottled_time\s3000\nnr_bursts\s2\nburst_time\s1000\n
        /a/cpu.stat < 0 = EINVAL
        ",
    );
}

#[test]
fn time_in_which_the_group_itself_was_held_back_outlives_its_directory() {
    check(
        r"
        mkdir /a
        /a/cpu.stat.local = throttled_time\s0\n
        v2 /a carrier cpu.stat.local throttled_usec\s3\n
        /a/cpu.stat.local = throttled_time\s3000\n
        gone /a
        v2 /a carrier cpu.stat.local throttled_usec\s4\n
        /a/cpu.stat.local = throttled_time\s7000\n
        /a/cpu.stat.local < 0 = EINVAL
        ",
    );
}

/// Quota and period of the groups of a chain, as they are shown.
fn bandwidth(stage: &Stage, path: &str) -> (i64, u64) {
    let read = |name: &str| String::from_utf8(stage.read(&format!("{path}/cpu.{name}")).unwrap()).unwrap();
    (read("cfs_quota_us").trim().parse().unwrap(), read("cfs_period_us").trim().parse().unwrap())
}

proptest! {
    #[test]
    fn whatever_is_accepted_no_group_has_more_than_one_above_it(
        writes in prop::collection::vec((0_usize..4, any::<bool>(), -1_i64..6), 1..40),
    ) {
        const PATHS: [&str; 4] = ["/a", "/a/b", "/a/b/c", "/a/d"];
        let mut stage = Stage::new();
        PATHS.iter().for_each(|path| stage.mkdir(path));
        for (path, quota, value) in writes {
            let (name, value) = match quota {
                true => ("cfs_quota_us", value * 20_000),
                false => ("cfs_period_us", value * 20_000),
            };
            let group = stage.group(PATHS[path]);
            let id = named(&format!("cpu.{name}")).unwrap();
            if let Ok(Request::Change(change)) = stage.parse(group, id, value.to_string().as_bytes()) {
                stage.carry_out(group, change);
            }
            for (below, above) in [("/a/b", "/a"), ("/a/b/c", "/a/b"), ("/a/b/c", "/a"), ("/a/d", "/a")] {
                let ((quota, period), (most, per)) = (bandwidth(&stage, below), bandwidth(&stage, above));
                prop_assert!(
                    quota < 0 || most < 0 || i128::from(quota) * i128::from(per) / i128::from(period) <= i128::from(most)
                );
            }
        }
    }
}
