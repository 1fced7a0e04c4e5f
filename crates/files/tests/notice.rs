//! cgroup.event_control: its grammar, and when those who wrote it are told.

use pinfold_files::notice::{Level, Mode, Notice, Pressure, Reclaim, Registration, Threshold, hears};
use pinfold_files::{FileId, Request, named};
use pinfold_model::Errno;
use proptest::prelude::*;

use crate::stage::{Stage, bytes};

fn written(data: &[u8]) -> Result<Registration, String> {
    let stage = Stage::new();
    match stage.parse(stage.root(), named("cgroup.event_control").unwrap(), data)? {
        Request::Register(registration) => Ok(registration),
        other => panic!("{other:?}"),
    }
}

fn registration(eventfd: u32, control: u32, argument: &[u8]) -> Result<Registration, String> {
    Ok(Registration { eventfd, control, argument: argument.to_vec() })
}

// Every line was seen on Linux 6.1.
#[test]
fn two_descriptors_and_the_rest_are_read_as_the_kernel_reads_them() {
    let check = |text: &str, expected| assert_eq!(written(&bytes(text)), expected, "{text}");
    check(r"3\s4\s1M", registration(3, 4, b"1M"));
    check(r"3\s4", registration(3, 4, b""));
    check(r"\s3\s4\s1\s", registration(3, 4, b"1"));
    check(r"3\s4\s\s1", registration(3, 4, b" 1"));
    check(r"3\s4\s1\s2\n", registration(3, 4, b"1 2"));
    check(r"03\s4\s1", registration(3, 4, b"1"));
    check(r"4294967299\s4\s1", registration(3, 4, b"1"));
    check(r"18446744073709551619\s4294967300\s1", registration(3, 4, b"1"));
    check(r"3\s4\x00\szz", registration(3, 4, b""));
    check(r"3\s4\s1\x00zz", registration(3, 4, b"1"));
    check(r"3\s999\s1", registration(3, 999, b"1"));
    check(r"3\s\s4\s1", registration(3, 0, b"4 1")); // EINVAL of Linux: its standard input is no control file
    for junk in [
        r"\s",
        r"\n",
        "x",
        "5",
        r"3\s",
        r"3\t4\s1",
        r"3\s4\t1",
        r"-1\s4\s1",
        r"3\s-1\s1",
        r"0x3\s4\s1",
        r"+3\s4\s1",
        r"3,4\s1",
        r"3\s4,1",
    ] {
        check(junk, Err("EINVAL".to_owned()));
    }
}

fn meant(file: &str, argument: &str) -> Result<Option<Notice>, Errno> {
    Notice::parse(named(file).unwrap(), &bytes(argument), Stage::new().facts()).map_err(|error| error.errno())
}

// Every line was seen on Linux 6.1.
#[test]
fn a_threshold_is_a_size() {
    for file in ["memory.usage_in_bytes", "memory.memsw.usage_in_bytes"] {
        let id: FileId = named(file).unwrap();
        let check = |text, expected| assert_eq!(meant(file, text), expected, "{text:?}");
        let at = |bytes| Ok(Some(Notice::Threshold(id, bytes)));
        check("1m", at(1 << 20));
        check("", at(0));
        check("4097", at(4096));
        check("-1", at(u64::MAX));
        check("0x1000", at(4096));
        check("010000", at(4096));
        for junk in ["low", "-2", "1x", r"1\s2", "abc", r"\s4096", "1.5", "+1", r"\t5"] {
            check(junk, Err(Errno::EINVAL));
        }
    }
}

// Every line was seen on Linux 6.1.
#[test]
fn a_level_of_pressure_may_have_a_mode() {
    let check = |text, expected| assert_eq!(meant("memory.pressure_level", text), expected, "{text:?}");
    let at = |level, mode| Ok(Some(Notice::Pressure(level, mode)));
    check("low", at(Level::Low, Mode::Default));
    check("low,default", at(Level::Low, Mode::Default));
    check("medium,local", at(Level::Medium, Mode::Local));
    check("critical,hierarchy", at(Level::Critical, Mode::Hierarchy));
    check("low,local,zzz", at(Level::Low, Mode::Local));
    check("low,default,", at(Level::Low, Mode::Default));
    check("critical,hierarchy,x", at(Level::Critical, Mode::Hierarchy));
    for junk in ["", "1M", "Low", "low,", "low,x", r"low,\slocal", "critical,hierarchyxyz", "lowx", r"\slow"]
    {
        check(junk, Err(Errno::EINVAL));
    }
}

#[test]
fn a_limit_that_is_met_takes_any_argument_and_other_files_none() {
    for argument in ["", "x", r"anything\sat\sall"] {
        assert_eq!(meant("memory.oom_control", argument), Ok(Some(Notice::Oom)));
        for file in ["memory.limit_in_bytes", "memory.stat", "cgroup.procs", "cgroup.event_control"] {
            assert_eq!(meant(file, argument), Ok(None), "{file}");
        }
    }
}

// __mem_cgroup_threshold(); seen on Linux 6.1 with 8, 16 and 0 MiB, and a process of 32.
#[test]
fn a_threshold_is_told_each_time_usage_crosses_it() {
    //    at    usage at the start, then:  usage -> told
    let check = |at, start, looks: &[(u64, bool)]| {
        let mut threshold = Threshold::new(at, start);
        for (usage, told) in looks {
            assert_eq!(threshold.look(*usage), *told, "{at}: {usage}");
        }
    };
    check(
        8,
        0,
        &[(0, false), (7, false), (8, true), (9, false), (40, false), (8, false), (7, true), (0, false)],
    );
    check(8, 9, &[(9, false), (2, true), (100, true)]);
    check(0, 0, &[(0, false), (40, false), (0, false)]);
    check(u64::MAX, 0, &[(1 << 60, false), (0, false)]);
}

fn reclaim(scanned: u64, reclaimed: u64, own: u64) -> Reclaim {
    Reclaim { scanned, reclaimed, own, ..Reclaim::default() }
}

// vmpressure_calc_level(): 100 * (1 - reclaimed / scanned).
#[test]
fn pressure_is_judged_by_what_cannot_be_freed() {
    let check = |scanned: u64, reclaimed: u64, expected| {
        let mut pressure = Pressure::new(reclaim(1000, 900, 3));
        let verdict = pressure.look(reclaim(1000 + scanned, 900 + reclaimed, 3));
        assert_eq!(verdict.map(|verdict| verdict.level), expected, "{reclaimed} of {scanned}");
    };
    check(511, 0, None);
    check(512, 512, Some(Level::Low));
    check(512, 600, Some(Level::Low));
    check(1000, 401, Some(Level::Low));
    check(1000, 400, Some(Level::Medium));
    check(1000, 51, Some(Level::Medium));
    check(1000, 50, Some(Level::Critical));
    check(1000, 0, Some(Level::Critical));
}

// vmpressure_prio(): seen on Linux 6.1, where a group without swap scans nothing before it kills.
#[test]
fn reclaim_that_found_nothing_to_look_at_is_critical() {
    let mut pressure = Pressure::new(Reclaim::default());
    let verdict = pressure.look(Reclaim { scanned: 3, reclaimed: 3, failed: 1, own: 40 }).unwrap();
    assert_eq!((verdict.level, verdict.own), (Level::Critical, true));
}

#[test]
fn small_pieces_of_reclaim_are_judged_together() {
    let mut pressure = Pressure::new(Reclaim::default());
    assert_eq!(pressure.look(reclaim(300, 300, 0)), None);
    assert_eq!(pressure.look(reclaim(300, 300, 0)), None);
    let verdict = pressure.look(reclaim(600, 300, 1)).unwrap();
    assert_eq!((verdict.level, verdict.own), (Level::Low, true));
    assert_eq!(pressure.look(reclaim(600, 300, 1)), None, "each page once");
    // Another program removed a directory, with what it had counted.
    assert_eq!(pressure.look(reclaim(10, 0, 0)), None);
    assert_eq!(pressure.look(reclaim(522, 0, 0)).unwrap().level, Level::Critical);
}

// Seen on Linux 6.1: with listeners of every kind in a group and in the root, and reclaim in the group.
#[test]
fn who_hears_of_pressure_depends_on_level_and_mode() {
    let verdict = |level, own| pinfold_files::notice::Verdict { level, own };
    //                                                own: default hierarchy local | below, told: the same
    for (own, told_below, heard) in [(true, false, [true, true, true]), (false, true, [false, true, false])] {
        for (mode, expected) in [Mode::Default, Mode::Hierarchy, Mode::Local].into_iter().zip(heard) {
            assert_eq!(
                hears(verdict(Level::Critical, own), told_below, Level::Low, mode),
                expected,
                "{mode:?}"
            );
            assert!(!hears(verdict(Level::Low, own), told_below, Level::Medium, mode));
        }
    }
    assert!(hears(verdict(Level::Low, false), false, Level::Low, Mode::Default), "nobody below was told");
}

/// memcg_write_event_control() and simple_strtoul(), word by word.
fn naive(data: &[u8]) -> Option<(u32, u32)> {
    let mut text = data.to_vec();
    text.truncate(text.iter().position(|byte| *byte == 0).unwrap_or(text.len()));
    let is_space = |byte: &u8| [9, 10, 11, 12, 13, 32, 0xa0].contains(byte);
    while text.last().is_some_and(is_space) {
        text.pop();
    }
    while text.first().is_some_and(is_space) {
        text.remove(0);
    }
    let mut i = 0;
    let mut number = || {
        let mut number = 0_u128;
        while let Some(digit @ b'0'..=b'9') = text.get(i) {
            number = (number * 10 + u128::from(*digit - b'0')) % (1 << 64);
            i += 1;
        }
        let end = text.get(i).copied();
        i += 1;
        (u32::try_from(number % (1 << 32)).unwrap(), end)
    };
    let (eventfd, Some(b' ')) = number() else { return None };
    let (control, None | Some(b' ')) = number() else { return None };
    Some((eventfd, control))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_registration_is_what_the_kernels_words_make_of_it(
        data in prop_oneof![
            "[0-9 \t\n,x+-]{1,24}",
            "[0-9]{1,30} [0-9]{1,30}( [a-z0-9,]{0,9})?",
            " ?[0-9]{0,3} [0-9]{0,3}[ \u{0}][ -~]{0,9}",
        ],
    ) {
        let parsed = written(data.as_bytes()).ok().map(|found| (found.eventfd, found.control));
        prop_assert_eq!(parsed, naive(data.as_bytes()));
    }

    #[test]
    fn no_argument_panics(data in prop::collection::vec(any::<u8>(), 0..40)) {
        let stage = Stage::new();
        for file in pinfold_files::files() {
            let _ = Notice::parse(file, &data, stage.facts());
        }
    }
}
