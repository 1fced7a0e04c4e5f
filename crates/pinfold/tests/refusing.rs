//! Bad input: a clear error, nothing changed, nothing lost, no panic.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;

use crate::daemon::{self, Daemon, text};
use rustix::io::Errno;

fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> i32 {
    result.expect_err("it is refused").raw_os_error().expect("an errno")
}

#[test]
fn writes_that_the_kernel_would_refuse_are_refused_with_its_errno() {
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    daemon.ok(&["create", "/a"]);
    let sleeper = daemon.sleeper();
    for (file, junk, expected) in [
        ("tasks", "-1", Errno::INVAL),
        ("tasks", "abc", Errno::INVAL),
        ("tasks", "\n", Errno::INVAL),
        ("tasks", "1 2", Errno::INVAL),
        ("tasks", "4194303", Errno::SRCH),
        ("tasks", "99999999999999999999", Errno::INVAL),
        ("cgroup.procs", "abc", Errno::INVAL),
        ("notify_on_release", "x", Errno::INVAL),
        ("notify_on_release", "-1", Errno::INVAL),
        ("freezer.state", "frozen", Errno::INVAL),
        ("freezer.state", "FREEZING", Errno::INVAL),
        ("freezer.self_freezing", "1", Errno::INVAL),
        ("cpuacct.usage", "1", Errno::INVAL),
        ("cpuacct.stat", "0", Errno::INVAL),
    ] {
        let refused = errno(daemon.write(&format!("cg/a/{file}"), junk));
        assert_eq!(refused, expected.raw_os_error(), "{junk:?} to {file}");
        // The same by D-Bus, and the message says which file of which group.
        if !junk.starts_with('-') {
            let said = daemon.refused(&["set", "/a", &format!("{file}={junk}")]);
            assert!(said.contains(&format!("{file} of ")) && said.contains(":/a: "), "{said}");
        }
    }
    assert_eq!(daemon.read("cg/a/notify_on_release"), "0\n");
    assert_eq!(daemon.read("cg/a/freezer.state"), "THAWED\n");
    assert_eq!(daemon.numbers("cg/a/tasks"), Vec::<u32>::new());
    assert!(daemon.numbers("cg/tasks").contains(&sleeper.pid()));
    daemon.down();
}

#[test]
fn hostile_group_names_make_no_group() {
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    for (name, expected) in [
        ("a\nb", Errno::INVAL),
        ("tasks", Errno::EXIST),
        ("freezer.state", Errno::EXIST),
        (&*"n".repeat(256), Errno::NAMETOOLONG),
    ] {
        let made = std::fs::create_dir(daemon.path(&format!("cg/a/{name}")));
        // Below a group, where freezer.state is.
        if !daemon.path("cg/a").exists() {
            daemon.ok(&["create", "/a"]);
            let again = std::fs::create_dir(daemon.path(&format!("cg/a/{name}")));
            assert_eq!(errno(again), expected.raw_os_error(), "{name:?}");
            continue;
        }
        assert_eq!(errno(made), expected.raw_os_error(), "{name:?}");
    }
    assert!(daemon.refused(&["create", "/a/tasks"]).contains("is a control file"));
    assert!(daemon.refused(&["create", &format!("/a/{}", "n".repeat(256))]).contains("at most 255 bytes"));
    let longest = "n".repeat(255);
    std::fs::create_dir(daemon.path(&format!("cg/a/{longest}"))).unwrap();
    assert!(daemon.ok(&["tree"]).contains(&longest));
    daemon.ok(&["rm", "-r", "/a"]);
    daemon.down();
}

#[test]
fn a_name_that_is_not_utf8_is_kept_shown_and_removed() {
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    daemon.ok(&["create", "/a"]);
    let odd = daemon.path("cg/a").join(OsStr::from_bytes(b"x\xff%"));
    std::fs::create_dir(&odd).unwrap();
    assert!(daemon.ok(&["tree"]).contains("x\u{fffd}%"));
    daemon.kill();
    daemon.serve("all:cg");
    let listed = std::fs::read_dir(daemon.path("cg/a")).unwrap().flatten();
    assert!(listed.into_iter().any(|entry| entry.file_name().as_bytes() == b"x\xff%"));
    daemon.ok(&["rm", "-r", "/a"]);
    daemon.down();
}

#[test]
fn what_is_in_use_stays() {
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    daemon.ok(&["create", "-p", "/a/b"]);
    let sleeper = daemon.sleeper();
    daemon.ok(&["move", &sleeper.pid().to_string(), "/a/b"]);
    assert_eq!(errno(std::fs::remove_dir(daemon.path("cg/a"))), Errno::BUSY.raw_os_error());
    assert_eq!(errno(std::fs::remove_dir(daemon.path("cg/a/b"))), Errno::BUSY.raw_os_error());
    assert_eq!(errno(std::fs::remove_dir(daemon.path("cg/a/b/tasks"))), Errno::NOTDIR.raw_os_error());
    assert_eq!(errno(std::fs::remove_file(daemon.path("cg/a/b/tasks"))), Errno::PERM.raw_os_error());
    assert_eq!(std::fs::create_dir(daemon.path("cg/a/b")).unwrap_err().kind(), ErrorKind::AlreadyExists);
    let across = std::fs::rename(daemon.path("cg/a/b"), daemon.path("cg/b"));
    assert_eq!(errno(across), Errno::IO.raw_os_error());
    assert!(!daemon.log().contains("rename"), "whoever may rename could fill it");
    assert_eq!(daemon.numbers("cg/a/b/tasks"), [sleeper.pid()]);
    daemon.down();
}

#[test]
fn a_group_removed_while_a_file_of_it_is_open_is_gone() {
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    daemon.ok(&["create", "/a"]);
    let open = std::fs::File::options().write(true).open(daemon.path("cg/a/tasks")).unwrap();
    daemon.ok(&["rm", "/a"]);
    let written = rustix::io::write(&open, b"0");
    assert_eq!(written, Err(Errno::NODEV));
    daemon.down();
}

#[test]
fn other_programs_in_the_v2_tree_are_survived() {
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    let (one, other) = (daemon.sleeper(), daemon.sleeper());
    daemon.ok(&["create", "/a"]);
    daemon.ok(&["move", &one.pid().to_string(), "/a"]);
    // A container manager makes directories below the leaf that it finds itself in.
    let leaf = daemon.base.path().parent().unwrap().join(&one.v2_path()[1..]);
    let inner = leaf.join("inner");
    std::fs::create_dir(&inner).unwrap();
    std::fs::write(inner.join("cgroup.procs"), one.pid().to_string()).unwrap();
    assert_eq!(daemon.numbers("cg/a/tasks"), [one.pid()]);
    // Somebody puts a process into the leaf, and takes both out.
    std::fs::write(leaf.join("cgroup.procs"), other.pid().to_string()).unwrap();
    daemon::eventually("both are seen", || daemon.numbers("cg/a/tasks").len() == 2);
    let elsewhere = daemon.base.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    for sleeper in [&one, &other] {
        std::fs::write(elsewhere.join("cgroup.procs"), sleeper.pid().to_string()).unwrap();
    }
    let tasks = daemon.path("cg/a/tasks");
    daemon::eventually("the group is empty", || std::fs::read(&tasks).is_ok_and(|tasks| tasks.is_empty()));
    daemon.ok(&["move", &one.pid().to_string(), "/a"]);
    assert_eq!(daemon.numbers("cg/a/tasks"), [one.pid()]);
    daemon.ok(&["move", &one.pid().to_string(), "/"]);
    assert!(one.v2_path().ends_with("/elsewhere"), "it is back where it came from last: {}", one.v2_path());
    daemon.ok(&["down"]);
    assert_eq!(daemon.ended().code(), Some(0), "{}", daemon.log());
}

#[test]
fn a_client_that_talks_rubbish_is_let_go_and_harms_nobody() {
    use std::io::{Read, Write};
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    for rubbish in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 4096], b"\0BEGIN\r\n", b""] {
        let mut client = std::os::unix::net::UnixStream::connect(daemon.state().join("socket")).unwrap();
        client.set_read_timeout(Some(daemon::PATIENCE)).unwrap();
        client.write_all(rubbish).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut said = Vec::new();
        // A reset is as good as an end.
        let end = client.read_to_end(&mut said).map_err(|error| error.kind());
        assert_ne!(end, Err(ErrorKind::WouldBlock), "the daemon does not hang up");
        assert!(!text(&said).contains("OK"), "{}", text(&said));
    }
    // Some that only stay.
    let stay: Vec<_> = (0..20)
        .map(|_| std::os::unix::net::UnixStream::connect(daemon.state().join("socket")).unwrap())
        .collect();
    daemon.ok(&["create", "/a"]);
    drop(stay);
    daemon.down();
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
}

#[test]
fn a_leaf_that_somebody_else_removed_is_not_waited_for() {
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    let sleeper = daemon.sleeper();
    let pid = sleeper.pid().to_string();
    daemon.ok(&["create", "/a"]);
    let elsewhere = daemon.base.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    for _ in 0..10 {
        daemon.ok(&["move", &pid, "/a"]);
        let leaf = daemon.base.path().parent().unwrap().join(&sleeper.v2_path()[1..]);
        std::fs::write(elsewhere.join("cgroup.procs"), &pid).unwrap();
        let _ = std::fs::remove_dir(&leaf);
        assert!(!leaf.exists(), "it is empty");
        let tasks = daemon.path("cg/a/tasks");
        daemon::eventually("the group is empty", || {
            std::fs::read(&tasks).is_ok_and(|tasks| tasks.is_empty())
        });
    }
    daemon.ok(&["down"]);
    assert_eq!(daemon.ended().code(), Some(0), "{}", daemon.log());
}
