//! `CONTROLLERS:PATH` as libcgroup's tools write it, in all its forms.

use pinfold_dbus::GroupName;

/// What a text is read as: printed again, or the error.
fn read(text: &str) -> String {
    match text.parse::<GroupName>() {
        Ok(name) => name.to_string(),
        Err(error) => format!("error: {error}"),
    }
}

#[test]
fn names_print_as_they_are_meant() {
    for (text, meant) in [
        ("/", "/"),
        ("/jobs/7", "/jobs/7"),
        ("jobs/7", "jobs/7"),
        (".", "."),
        ("pids:.", "pids:."),
        ("*:/jobs", "/jobs"),
        ("pids:/", "pids:/"),
        ("pids:jobs//7/", "pids:jobs/7"),
        ("memory,cpu:/jobs/7", "memory,cpu:/jobs/7"),
        ("name=systemd:/user.slice", "name=systemd:/user.slice"),
        ("pids://jobs///7/", "pids:/jobs/7"),
        // A colon behind the first slash is part of a group's name.
        ("/a.slice:cri:0af1", "/a.slice:cri:0af1"),
        ("pids:/a.slice:cri:0af1", "pids:/a.slice:cri:0af1"),
        ("pids:/a b", "pids:/a b"),
        ("/...", "/..."),
        ("/süß", "/süß"),
    ] {
        assert_eq!(read(text), meant, "{text:?}");
        assert_eq!(read(meant), meant, "printing is a fixed point for {text:?}");
    }
}

#[test]
fn what_names_no_group_says_why() {
    for (text, error) in [
        (
            "",
            "error: an empty name: a group is CONTROLLERS:PATH or PATH, / is the root and . the caller's own",
        ),
        (
            ":/a",
            "error: an empty controller name in \":/a\": write CONTROLLERS:PATH, or PATH for every hierarchy",
        ),
        (
            "pids,,cpu:/a",
            "error: an empty controller name in \"pids,,cpu:/a\": write CONTROLLERS:PATH, or PATH for every hierarchy",
        ),
        ("pids:", "error: no path in \"pids:\": the root group is pids:/"),
        ("/a/../b", "error: `..` in \"/a/../b\": a group's path has no such step"),
        ("pids:./a", "error: `.` in \"./a\": a group's path has no such step"),
        ("/a\nb", "error: a newline or a null byte in \"/a\\nb\": no group has that in its name"),
        ("/a\0b", "error: a newline or a null byte in \"/a\\0b\": no group has that in its name"),
    ] {
        assert_eq!(read(text), error, "{text:?}");
    }
}

#[test]
fn a_path_splits_into_parent_and_last_step() {
    let name: GroupName = "pids:/a/b".parse().unwrap();
    let (above, last) = name.path.split_last().unwrap();
    assert_eq!((above.to_string().as_str(), last), ("/a", "b"));
    assert_eq!(above.below(last), name.path);
    for whole in ["/", "."] {
        assert!(whole.parse::<GroupName>().unwrap().path.split_last().is_none());
    }
    let name: GroupName = "pids:a/b".parse().unwrap();
    assert_eq!(name.path.split_last().unwrap().0.to_string(), "a");
}
