//! cpuacct.rst and kernel/sched/cpuacct.c. The machine has CPUs 0 to 3, of which 1 is away.

use crate::stage::{Stage, check};

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
fn what_is_not_measured_is_spread_over_the_cpus_that_are_online() {
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
fn what_was_measured_tells_how_the_total_is_divided_and_the_rest_is_spread() {
    check(
        r"
        mkdir /a
        v2 /a carrier cpu.stat usage_usec\s10\nuser_usec\s8\nsystem_usec\s2\n
        v2 /a measured cpu 2\s6000\n3\s1000\n
        /a/cpuacct.usage_percpu = 1000\s0\s7000\s2000\s\n
        /a/cpuacct.usage_all = cpu\suser\ssystem\n0\s800\s200\n1\s0\s0\n2\s5600\s1400\n3\s1600\s400\n
        /a/cpuacct.usage_percpu = 1000\s0\s7000\s2000\s\n
        v2 /a carrier cpu.stat usage_usec\s10\nuser_usec\s10\nsystem_usec\s0\n
        v2 /a measured cpu 2\s4000\n
        /a/cpuacct.usage_percpu = 3000\s0\s13000\s4000\s\n
        ",
    );
}

// More than was used: a hypervisor took some. What there is too much of counts the next time.
#[test]
fn more_that_was_measured_than_was_used_is_in_proportion() {
    check(
        r"
        mkdir /a
        v2 /a carrier cpu.stat usage_usec\s10\nuser_usec\s10\nsystem_usec\s0\n
        v2 /a measured cpu 0\s5000\n2\s15000\n
        /a/cpuacct.usage_percpu = 2500\s0\s7500\s0\s\n
        v2 /a carrier cpu.stat usage_usec\s10\nuser_usec\s10\nsystem_usec\s0\n
        /a/cpuacct.usage_percpu = 5000\s0\s15000\s0\s\n
        ",
    );
}

#[test]
fn what_gone_directories_had_measured_stays_and_a_reset_forgets_it() {
    check(
        r"
        mkdir /a
        v2 /a carrier cpu.stat usage_usec\s10\nuser_usec\s10\nsystem_usec\s0\n
        v2 /a measured cpu 2\s10000\n
        gone /a
        v2 /a measured cpu ''
        /a/cpuacct.usage_percpu = 0\s0\s10000\s0\s\n
        v2 /a carrier cpu.stat usage_usec\s5\nuser_usec\s5\nsystem_usec\s0\n
        v2 /a measured cpu 3\s5000\n
        /a/cpuacct.usage_percpu = 0\s0\s10000\s5000\s\n
        /a/cpuacct.usage < 0 = ok
        /a/cpuacct.usage_percpu = 0\s0\s0\s0\s\n
        v2 /a carrier cpu.stat usage_usec\s3\nuser_usec\s3\nsystem_usec\s0\n
        v2 /a measured cpu 0\s3000\n
        /a/cpuacct.usage_percpu = 3000\s0\s0\s0\s\n
        ",
    );
}

// The next daemon has measured nothing yet, or may not measure.
#[test]
fn figures_go_on_from_those_that_were_shown() {
    check(
        r"
        mkdir /a
        v2 /a carrier cpu.stat usage_usec\s9\nuser_usec\s9\nsystem_usec\s0\n
        v2 /a measured cpu 2\s9000\n
        /a/cpuacct.usage_percpu = 0\s0\s9000\s0\s\n
        lost /a
        v2 /a carrier cpu.stat usage_usec\s12\nuser_usec\s12\nsystem_usec\s0\n
        /a/cpuacct.usage_percpu = 1000\s0\s10000\s1000\s\n
        ",
    );
}

/// Whatever is used, measured, lost, reset and read in any order: what is shown sums to the usage, and goes back only with it.
#[test]
fn figures_by_cpu_sum_to_the_usage_and_never_go_back() {
    use proptest::prelude::*;
    let figures = |stage: &mut Stage, file: &str| -> Vec<u64> {
        let text = String::from_utf8(stage.read_on(&format!("/a/cpuacct.{file}")).unwrap()).unwrap();
        text.split_whitespace().map(|figure| figure.parse().unwrap()).collect()
    };
    let step = (0..5_u8, 0..4_usize, 0..9_000_000_u64);
    proptest!(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() },
        |(steps in proptest::collection::vec(step, 1..40))| {
        let mut stage = Stage::new();
        stage.mkdir("/a");
        stage.add_text("/a", "measured", "cpu", b"");
        let mut before: [Vec<u64>; 3] = Default::default();
        for (what, cpu, time) in steps {
            let (user, system) = (time / 3, time - time / 3);
            match what {
                0 => stage.add_text(
                    "/a",
                    "carrier",
                    "cpu.stat",
                    format!("usage_usec {time}\nuser_usec {user}\nsystem_usec {system}\n").as_bytes(),
                ),
                1 => stage.add_text("/a", "measured", "cpu", format!("{cpu} {}\n", time * 1000).as_bytes()),
                2 => {
                    stage.gone("/a");
                    stage.add_text("/a", "measured", "cpu", b"");
                }
                3 if time % 8 == 0 => {
                    prop_assert_eq!(stage.write("/a/cpuacct.usage", b"0"), "ok");
                    before = Default::default();
                }
                _ => {}
            }
            for (at, ending) in ["", "_user", "_sys"].into_iter().enumerate() {
                let shown = figures(&mut stage, &format!("usage_percpu{ending}"));
                let total = figures(&mut stage, &format!("usage{ending}"));
                prop_assert_eq!(vec![shown.iter().sum::<u64>()], total);
                let earlier = before[at].iter().zip(&shown).all(|(before, now)| before <= now);
                prop_assert!(earlier, "{:?}, then {:?}", before[at], shown);
                before[at] = shown;
            }
        }
    });
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
