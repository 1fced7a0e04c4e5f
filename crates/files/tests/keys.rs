//! Keys: the table, and each conversion there and back.

use std::collections::BTreeSet;

use pinfold_files::keys::{Convert, KEYS, Key, table};

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
        assert!(key.is_read() || key.is_set(), "{} is good for nothing", key.name);
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
        ("pids.limit", &["max"], "max", "max"),
        ("cpus_allowed", &["0-3"], "0-3", "0-3"),
    ] {
        let files = texts(files);
        assert_eq!(key(name).show(&files), value, "{name} of {files:?}");
        assert_eq!(key(name).write(value, &files).as_deref(), Ok(written), "{name} = {value}");
    }
}

#[test]
fn a_share_in_percent_reads_as_it_was_set() {
    let share = key("cpu_share_percent");
    for percent in 1..=1000_u32 {
        let written = share.write(&percent.to_string(), &[]).unwrap();
        assert_eq!(share.show(&texts(&[&written])), percent.to_string());
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
        ("cpu_share_percent", "x", &[]),
        ("cpu_share_percent", "18446744073709551615", &[]),
        ("swap.limit", "x", &["1", "1"]),
        ("swap.limit", "18446744073709551615", &["1", "1"]),
        ("swap.limit", "1", &["9223372036854771712", "9223372036854771712"]),
    ] {
        let refused = key(name).write(value, &texts(files)).unwrap_err().to_string();
        assert!(refused.contains(name), "{refused}");
    }
}
