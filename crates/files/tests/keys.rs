//! Keys: the table, and each conversion there and back.

use std::collections::BTreeSet;

use pinfold_files::Facts;
use pinfold_files::keys::{Convert, KEYS, Key, Setter, Written, table};

#[test]
fn every_key_is_one_row_and_its_files_exist() {
    let names: BTreeSet<_> = KEYS.iter().map(|key| key.name).collect();
    assert_eq!(names.len(), KEYS.len());
    for key in KEYS {
        assert!(!key.files.is_empty());
        for file in key.files {
            assert!(pinfold_files::named(file).is_some(), "{}: there is no {file}", key.name);
        }
        let is_file = pinfold_files::named(key.name).is_some();
        let is_the_same = key.files == [key.name] && key.convert == Convert::Same;
        assert!(!is_file || is_the_same, "{} is a file that says something else", key.name);
        assert!(key.is_read() || key.setter() != Setter::Nobody, "{} is good for nothing", key.name);
    }
}

#[test]
fn the_page_has_the_table() {
    let page = include_str!("../../../docs/manager.md");
    assert!(page.contains(&table()), "docs/manager.md is out of step; its table is to be\n{}", table());
}

fn key(name: &str) -> &'static Key {
    Key::named(name).expect(name)
}

/// A machine with four CPUs.
fn facts() -> Facts {
    Facts {
        user_hz: 100,
        possible_cpus: 4,
        online_cpus: vec![0, 1, 2, 3],
        cpus: vec![0, 1, 2, 3],
        mems: vec![0],
        page_size: 4096,
        linux: (6, 1),
        nodes: vec![0],
        v2_files: BTreeSet::new(),
    }
}

fn texts(of: &[&str]) -> Vec<String> {
    of.iter().map(|text| format!("{text}\n")).collect()
}

#[test]
fn values_are_shown_and_written() {
    const MAX: &str = "9223372036854771712";
    // The key, what its files say, what it reads then; what is written for that value.
    for (name, files, value, written) in [
        ("memory.limit", &["4096"][..], "4096", "4096"),
        ("memory.limit", &[MAX], "max", "-1"),
        ("swap.limit", &["8192", "4096"], "4096", "8192"),
        ("swap.limit", &[MAX, "4096"], "max", "-1"),
        ("swap.limit", &["4096", "4096"], "0", "4096"),
        ("cpu_share_percent", &["1024"], "100", "1024"),
        ("cpu_share_percent", &["512"], "50", "512"),
        ("cpu_quota_percent", &["-1", "100000"], "max", "-1"),
        ("cpu_quota_percent", &["50000", "100000"], "50", "50000"),
        ("cpu_quota_percent", &["250000", "100000"], "250", "250000"),
        ("cpus_number", &["150000", "100000"], "1.5", "150000"),
        ("cpus_number", &["200000", "100000"], "2", "200000"),
        ("cpus_number", &["-1", "100000"], "max", "-1"),
        ("cpus_fraction", &["200000", "100000"], "0.5", "200000"),
        ("cpus_fraction", &["400000", "100000"], "1", "400000"),
        ("cpus_fraction", &["25000", "50000"], "0.125", "25000"),
        ("cpus_fraction", &["-1", "100000"], "max", "-1"),
        ("pids.limit", &["max"], "max", "max"),
        ("cpus_allowed", &["0-3"], "0-3", "0-3"),
        ("frozen", &["FROZEN"], "1", "FROZEN"),
        ("frozen", &["THAWED"], "0", "THAWED"),
        ("frozen", &["FREEZING"], "0", "THAWED"),
        ("thawed", &["THAWED"], "1", "THAWED"),
        ("thawed", &["FROZEN"], "0", "FROZEN"),
        ("thawed", &["FREEZING"], "0", "FROZEN"),
    ] {
        let files = texts(files);
        assert_eq!(key(name).show(&files, &facts()), value, "{name} of {files:?}");
        let expected = Written { file: key(name).files[0], text: written.to_owned() };
        assert_eq!(key(name).write(value, &files, &facts()), Ok(expected), "{name} = {value}");
    }
}

#[test]
fn a_state_is_so_or_not() {
    for value in ["", "2", "FROZEN", "frozen", "yes"] {
        assert!(key("frozen").write(value, &[], &facts()).is_err(), "{value}");
    }
}

#[test]
fn who_may_set_a_key_is_who_may_write_its_file() {
    for (name, setter) in [
        ("memory.limit", Setter::OwnerAbove),
        ("memory.usage", Setter::Nobody),
        ("frozen", Setter::OwnerAbove),
        ("devices_whitelist", Setter::Host),
        ("devices_list", Setter::Nobody),
    ] {
        assert_eq!(key(name).setter(), setter, "{name}");
    }
}

/// Every name that the manager's users were promised.
#[test]
fn no_key_is_missing() {
    for name in [
        "memory.limit",
        "memory.soft_limit",
        "memory.usage",
        "memory.max_usage",
        "memory.failcnt",
        "swap.limit",
        "swap.usage",
        "swap.max_usage",
        "swap.failcnt",
        "cpus_allowed",
        "mems_allowed",
        "cpus_fraction",
        "cpus_number",
        "cpu_share_percent",
        "cpu_quota_percent",
        "pids.limit",
        "files.limit",
        "devices_whitelist",
        "devices_blacklist",
        "devices_list",
        "net_prio_index",
        "net_prio_interface_map",
        "net_classid",
        "hugetlb_limit",
        "hugetlb_usage",
        "hugetlb_max_usage",
        "hugetlb_failcnt",
        "blkio_weight",
        "blkio_weight_device",
        "blkio_throttle_read",
        "blkio_throttle_write",
        "cpuacct_stat",
        "frozen",
        "thawed",
    ] {
        let key = key(name);
        assert!(!key.kind.is_empty() && !key.unit.is_empty(), "{name}");
    }
}

/// What the files of these sizes say; the machine has no others.
fn sizes(of: &[(&str, &str)]) -> Vec<String> {
    let text = |file: &&str| {
        let said = of.iter().find(|(size, _)| file.contains(&format!(".{size}.")));
        said.map_or_else(String::new, |(_, text)| format!("{text}\n"))
    };
    key("hugetlb_limit").files.iter().map(text).collect()
}

#[test]
fn a_key_of_huge_pages_has_a_line_for_every_size_there_is() {
    // 9223372036854771712 in whole pages of 2 MB and of 1 GB.
    let files = sizes(&[("2MB", "4194304"), ("1GB", "9223372035781033984")]);
    let limit = key("hugetlb_limit");
    assert_eq!(limit.show(&files, &facts()), "2MB 4194304\n1GB max");
    assert_eq!(limit.show(&sizes(&[("2MB", "9223372036852678656")]), &facts()), "2MB max");
    let written = |file, text: &str| Ok(Written { file, text: text.to_owned() });
    for (value, file, text) in [
        ("2MB 4194304", "hugetlb.2MB.limit_in_bytes", "4194304"),
        ("1GB max", "hugetlb.1GB.limit_in_bytes", "-1"),
        (" 1GB  2G ", "hugetlb.1GB.limit_in_bytes", "2G"),
    ] {
        assert_eq!(limit.write(value, &files, &facts()), written(file, text), "{value}");
    }
    let failures = key("hugetlb_failcnt").write("2MB 0", &files, &facts());
    assert_eq!(failures, written("hugetlb.2MB.failcnt", "0"));
    for (value, why) in [
        ("64KB 1", "hugetlb_limit has no size \"64KB\": there are 2MB, 1GB"),
        ("2mb 1", "hugetlb_limit has no size \"2mb\": there are 2MB, 1GB"),
        (
            "4194304",
            "\"4194304\" is not what hugetlb_limit takes: a size and a number or `max`, as 2MB 4194304",
        ),
    ] {
        assert_eq!(limit.write(value, &files, &facts()).unwrap_err().to_string(), why);
    }
}

#[test]
fn keys_of_huge_pages_have_every_size_of_the_table() {
    let hugetlb = pinfold_files::ALL.iter().find(|controller| controller.name == "hugetlb").unwrap();
    for (name, file) in [
        ("hugetlb_limit", "limit_in_bytes"),
        ("hugetlb_usage", "usage_in_bytes"),
        ("hugetlb_max_usage", "max_usage_in_bytes"),
        ("hugetlb_failcnt", "failcnt"),
    ] {
        let rows =
            hugetlb.files.iter().filter(|row| row.name.split_once('.').is_some_and(|(_, rest)| rest == file));
        let rows: Vec<_> = rows.map(|row| format!("hugetlb.{}", row.name)).collect();
        assert_eq!(key(name).files, rows, "{name}");
    }
}

#[test]
fn what_was_swapped_at_most_is_known_from_below() {
    let peak = key("swap.max_usage");
    assert_eq!(peak.show(&texts(&["8192", "4096"]), &facts()), "4096");
    assert_eq!(peak.show(&texts(&["0", "4096"]), &facts()), "0");
    assert_eq!(peak.write("0", &texts(&["8192", "4096"]), &facts()).unwrap().text, "0");
}

#[test]
fn a_share_in_percent_reads_as_it_was_set() {
    let share = key("cpu_share_percent");
    for percent in 1..=1000_u32 {
        let written = share.write(&percent.to_string(), &[], &facts()).unwrap().text;
        assert_eq!(share.show(&texts(&[&written]), &facts()), percent.to_string());
    }
}

#[test]
fn what_a_key_does_not_take_is_refused_by_its_name() {
    for (name, value, files) in [
        ("cpu_quota_percent", "0", &["-1", "100000"][..]),
        ("cpu_quota_percent", "-1", &["-1", "100000"]),
        ("cpu_quota_percent", "18446744073709551616", &["-1", "100000"]),
        ("cpus_number", "1.", &["-1", "100000"]),
        ("cpus_number", ".5", &["-1", "100000"]),
        ("cpus_number", "0.000001", &["-1", "100000"]),
        ("cpus_number", "1e3", &["-1", "100000"]),
        ("cpus_number", "", &["-1", "100000"]),
        ("cpus_fraction", "1.00001", &["-1", "100000"]),
        ("cpus_fraction", "0", &["-1", "100000"]),
        ("hugetlb_limit", "", &[]),
        ("cpu_share_percent", "x", &[]),
        ("cpu_share_percent", "18446744073709551615", &[]),
        ("swap.limit", "x", &["1", "1"]),
        ("swap.limit", "18446744073709551615", &["1", "1"]),
        ("swap.limit", "1", &["9223372036854771712", "9223372036854771712"]),
    ] {
        let refused = key(name).write(value, &texts(files), &facts()).unwrap_err().to_string();
        assert!(refused.contains(name), "{refused}");
    }
}
