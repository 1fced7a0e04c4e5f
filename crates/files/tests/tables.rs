//! What must hold for every row of every table, so that a new one cannot forget it.

use std::collections::HashSet;

use pinfold_files::{
    ALL, AtRoot, Blank, CORE, Carry, Change, Controller, EntryShare, File, FileId, Place, Read, Request,
    RoundTrip, Write, Writer, controllers, counters, file, files, full_name, settings,
};

use crate::stage::Stage;

/// A group below the root and the root itself, each with all of its files.
fn every_file(mut each: impl FnMut(&mut Stage, pinfold_model::GroupId, FileId)) {
    let mut stage = Stage::new();
    stage.mkdir("/a");
    for group in [stage.root(), stage.group("/a")] {
        for id in stage.files(group) {
            each(&mut stage, group, id);
        }
    }
}

fn tables() -> impl Iterator<Item = &'static Controller> {
    std::iter::once(&CORE).chain(ALL)
}

#[test]
fn names_are_unique_and_legal() {
    let legal = |name: &str| {
        name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'.'))
            && !name.is_empty()
    };
    let mut seen = HashSet::new();
    for id in files() {
        let name = full_name(id, false);
        let without_sizes = name.replace("KB.", ".").replace("MB.", ".").replace("GB.", ".");
        assert!(legal(&without_sizes), "{name}");
        assert!(seen.insert(name.clone()), "{name} is there twice");
    }
    let names: HashSet<_> = ALL.iter().map(|table| table.name).collect();
    assert_eq!(names.len(), ALL.len());
    assert!(names.iter().all(|name| legal(name) && !name.contains('.')), "lookup splits at the first dot");
}

#[test]
fn names_without_their_prefix_meet_no_core_file() {
    let core: HashSet<_> = CORE.files.iter().map(|file| file.name).collect();
    for table in ALL {
        assert!(table.files.iter().all(|file| !core.contains(file.name)), "{}", table.name);
    }
}

#[test]
fn controllers_stand_in_the_kernels_order() {
    const KERNELS: [&str; 15] = [
        "cpuset",
        "cpu",
        "cpuacct",
        "blkio",
        "memory",
        "devices",
        "freezer",
        "net_cls",
        "perf_event",
        "net_prio",
        "hugetlb",
        "pids",
        "rdma",
        "misc",
        "files", // the last is pinfold's own
    ];
    let places: Vec<_> =
        ALL.iter().map(|table| KERNELS.iter().position(|name| *name == table.name)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?}");
}

#[test]
fn there_are_fewer_rows_than_an_inode_number_has_room_for() {
    assert!(files().count() < 4096);
}

#[test]
fn keys_are_unique_and_a_setting_with_a_file_has_its_name() {
    let mut seen = HashSet::new();
    for setting in settings(controllers()) {
        assert!(seen.insert(setting.key.0), "{} is there twice", setting.key.0);
    }
    for counter in counters(controllers()) {
        assert!(seen.insert(counter.key.0), "{} is there twice", counter.key.0);
    }
    assert!(seen.iter().all(|key| !key.contains(['=', '\n'])), "a key is the start of a line key=value");
    for id in files() {
        if let Some(setting) = file(id).1.setting {
            assert_eq!(setting.key.0, full_name(id, false));
        }
    }
}

#[test]
fn every_row_says_what_it_is_and_whom_it_follows() {
    for table in tables() {
        assert!(table.about.ends_with('.') && table.source.contains(".c"), "{}", table.name);
        for file in table.files {
            check_texts(file);
        }
    }
}

fn check_texts(file: &File) {
    let name = file.name;
    assert!(file.about.ends_with('.'), "{name} does not say what it is");
    assert!(file.function.contains("()"), "{name} cites no kernel function");
    assert!(file.v2.ends_with('.'), "{name} does not say how it is done on v2");
    assert!(file.differs.is_empty() || file.differs.ends_with('.'), "{name}");
    let written = !matches!(file.write, Write::Refused);
    assert_eq!(written, file.takes.ends_with('.'), "{name}: what a write takes");
    assert_eq!(written, file.errors.ends_with('.'), "{name}: the errors of a write");
    assert!(file.longest == File::LONGEST || file.errors.contains("E2BIG"), "{name}");
    // What the fields say, the reader of the words is told.
    if let Some(instead) = file.instead {
        assert!(file.v2.contains(instead.of), "{name}: what is done otherwise without {}", instead.of);
        assert!(!instead.how.ends_with('.'), "{name}");
    }
    let is_refused = file.errors.contains("the root") || file.errors.contains("a root group");
    assert_eq!(is_refused, file.at_root == AtRoot::Refused, "{name}");
    let blank = match file.blank {
        Blank::Junk => true,
        Blank::Taken => file.takes.contains("Nothing but white space"),
        Blank::OutOfRange => file.errors.contains("nothing but white space"),
    };
    assert!(blank, "{name}");
    if let Some(Carry::Inert(why)) = file.setting.map(|setting| setting.carry) {
        assert!(!why.is_empty(), "{name} has no effect, and does not say why");
    }
}

#[test]
fn modes_follow_from_what_a_row_can_do() {
    for id in files() {
        let file = file(id).1;
        let (read, write) = (!matches!(file.read, Read::Refused), !matches!(file.write, Write::Refused));
        let expected = match (read, write) {
            (false, true) if file.writer == Writer::Anyone => 0o222,
            (true, true) => 0o644,
            (true, false) => 0o444,
            (false, true) => 0o200,
            (false, false) => panic!("{} can do nothing", file.name),
        };
        assert_eq!(file.mode(), expected, "{}", file.name);
    }
}

#[test]
fn a_file_is_only_where_its_row_says() {
    let mut stage = Stage::new();
    stage.mkdir("/a");
    let (at_root, below) = (stage.files(stage.root()), stage.files(stage.group("/a")));
    for id in files() {
        let expected = match file(id).1.place {
            Place::Everywhere | Place::WithV2(_) => (true, true),
            Place::RootOnly => (true, false),
            Place::BelowRoot | Place::BelowRootWithV2(_) => (false, true),
        };
        assert_eq!((at_root.contains(&id), below.contains(&id)), expected, "{}", full_name(id, false));
    }
}

#[test]
fn a_fresh_value_reads_and_writes_back_as_its_row_says() {
    every_file(|stage, group, id| {
        let name = full_name(id, false);
        let row = file(id).1;
        let before = stage.show(group, id);
        let written = stage.parse(group, id, &before);
        match row.round_trip {
            RoundTrip::NotApplicable => {
                let lists = matches!(row.read, Read::Members(_));
                assert!(
                    lists || matches!(row.read, Read::Refused) || matches!(row.write, Write::Refused),
                    "{name}"
                );
            }
            RoundTrip::Refused => {
                let errno = stage.parse(group, id, b"2").expect_err(&name);
                assert!(row.errors.contains(&errno), "{name}");
            }
            RoundTrip::NotWhole => assert!(before.is_empty(), "{name}: no device has a limit at first"),
            RoundTrip::Exact if row.at_root == AtRoot::Refused && group == stage.root() => {
                assert!(row.errors.contains(&written.expect_err(&name)), "{name}");
            }
            RoundTrip::Exact | RoundTrip::TakesAnything => {
                let Ok(Request::Change(change)) = written else { panic!("{name} refuses what it shows") };
                stage.carry_out(group, change);
                assert_eq!(stage.show(group, id), before, "{name}");
            }
        }
        assert!(before.is_empty() || before.ends_with(b"\n"), "{name} shows no whole line");
    });
}

#[test]
fn junk_is_refused_and_leaves_the_old_value() {
    every_file(|stage, group, id| {
        let before = stage.show(group, id);
        for junk in [&b"junk"[..], b"\xff\xfe", b"1 junk", b"-", b"0x", b"\n", b" "] {
            let outcome = stage.parse(group, id, junk);
            let row = file(id).1;
            let is_blank = junk.trim_ascii().is_empty();
            let name = full_name(id, false);
            match row.round_trip {
                _ if group == stage.root() && row.at_root == AtRoot::Refused => {
                    assert!(outcome.is_err(), "{name}");
                }
                // A value: what becomes of that one is no matter of its form.
                _ if is_blank && row.blank == Blank::Taken => {}
                _ if is_blank && row.blank == Blank::OutOfRange => {
                    assert_eq!(outcome, Err("ERANGE".to_owned()), "{name}");
                }
                // What may be the name of a device the kernel below is asked for.
                RoundTrip::NotWhole if matches!(&outcome, Ok(Request::Change(Change::IfTaken { .. }))) => {}
                RoundTrip::TakesAnything => assert!(outcome.is_ok(), "{}: {junk:?}", full_name(id, false)),
                _ => assert_eq!(outcome, Err("EINVAL".to_owned()), "{}: {junk:?}", full_name(id, false)),
            }
        }
        assert_eq!(stage.show(group, id), before, "{}", full_name(id, false));
    });
}

#[test]
fn an_empty_write_means_nothing_and_a_long_one_is_too_big_for_every_file() {
    every_file(|stage, group, id| {
        assert_eq!(stage.parse(group, id, b""), Ok(Request::Change(Change::Nothing)));
        let long = vec![b'0'; file(id).1.longest + 1];
        assert_eq!(stage.parse(group, id, &long), Err("E2BIG".to_owned()), "{}", full_name(id, false));
    });
}

#[test]
fn what_is_kept_and_carried_by_the_kernel_has_a_text_for_it() {
    for setting in settings(controllers()) {
        match setting.carry {
            Carry::UserSpace | Carry::Descriptors { .. } | Carry::Inert(_) => {}
            Carry::Program { slot, code, .. } => {
                assert!(code(&setting.initial).is_none(), "{}: a new directory needs none", slot.name);
                let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'.';
                assert!(slot.name.len() <= 15 && slot.name.bytes().all(legal), "{}", slot.name);
                assert!(slot.name.starts_with("pinfold_"), "{}", slot.name);
            }
            Carry::Limit(writes) => {
                assert!(!writes.is_empty());
                for write in writes {
                    let text = (write.text)(&pinfold_model::Settings::NONE);
                    assert!(text.is_none_or(|text| !text.is_empty()), "{}", write.file);
                }
            }
            Carry::Entries(v2) => {
                let none = (v2.entries)(&pinfold_model::Settings::NONE);
                match v2.share {
                    EntryShare::Divided { .. } => assert_eq!(none, Vec::<String>::new(), "{}", v2.file),
                    EntryShare::Weight => assert!(none[0].starts_with("default "), "{}", v2.file),
                }
            }
            Carry::Everywhere { v2, show, combine, .. } => {
                let initial = &setting.initial;
                assert!(!show(initial).is_empty(), "{v2}");
                assert_eq!(combine(initial, initial), *initial, "{v2}");
            }
        }
    }
}
