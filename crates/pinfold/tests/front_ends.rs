//! What one front end changes, the other shows at once: the kernel's cache of the file system is told.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::daemon::{self, Daemon, PYTHON, eventually};

/// What keeps a directory busy, and who runs it.
const BUSY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/front_ends/busy.py");

#[test]
fn a_change_by_dbus_shows_in_the_file_system_at_once() {
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    let sleeper = daemon.sleeper();
    // Every answer is in the kernel's cache before it becomes wrong.
    assert!(!daemon.path("cg/a").exists());
    let links = || std::fs::metadata(daemon.path("cg")).unwrap().nlink();
    assert_eq!(links(), 2);
    daemon.ok(&["create", "/a"]);
    assert!(daemon.path("cg/a").exists());
    assert_eq!(links(), 3);
    let owner = || std::fs::metadata(daemon.path("cg/a/tasks")).unwrap().uid();
    assert_eq!(owner(), 0);
    daemon.ok(&["chown", "65534", "/a"]);
    assert_eq!(owner(), 65534);
    daemon.ok(&["move", &sleeper.pid().to_string(), "/a"]);
    assert_eq!(daemon.numbers("cg/a/tasks"), [sleeper.pid()]);
    daemon.ok(&["move", &sleeper.pid().to_string(), "/"]);
    assert_eq!(daemon.numbers("cg/a/tasks"), Vec::<u32>::new());
    daemon.ok(&["rm", "/a"]);
    assert!(!daemon.path("cg/a").exists());
    assert_eq!(links(), 2);
    daemon.down();
}

#[test]
fn a_change_in_the_file_system_shows_by_dbus_at_once() {
    let Some(mut daemon) = Daemon::serving("freezer:cg") else { return };
    let sleeper = daemon.sleeper();
    std::fs::create_dir(daemon.path("cg/a")).unwrap();
    assert!(daemon.ok(&["tree"]).ends_with("└── a\n"));
    daemon.write("cg/a/tasks", &format!("{}\n", sleeper.pid())).unwrap();
    assert_eq!(daemon.ok(&["tasks", "/a"]), format!("{}\n", sleeper.pid()));
    daemon.write("cg/a/notify_on_release", "1").unwrap();
    assert_eq!(daemon.ok(&["get", "/a", "notify_on_release"]), "1\n");
    std::os::unix::fs::chown(daemon.path("cg/a"), Some(65534), None).unwrap();
    assert!(daemon.ok(&["ls", "-l", "/"]).contains("65534     0 a/"));
    std::fs::rename(daemon.path("cg/a"), daemon.path("cg/b")).unwrap();
    assert!(daemon.ok(&["tree"]).ends_with("└── b\n"));
    daemon.ok(&["move", &sleeper.pid().to_string(), "/"]);
    std::fs::remove_dir(daemon.path("cg/b")).unwrap();
    assert_eq!(daemon.ok(&["tree"]).lines().count(), 1);
    daemon.down();
}

/// The other mount's cache is told after the answer: nothing may wait for it that serves requests.
#[test]
fn two_mounts_of_a_hierarchy_show_the_same() {
    let Some(mut daemon) = Daemon::new() else { return };
    let dir = daemon.dir.display();
    let mounts = [format!("none,name=x:{dir}/one"), format!("none,name=x:{dir}/two")];
    let mounts: Vec<_> = mounts.into_iter().flat_map(|mount| ["--mount".to_owned(), mount]).collect();
    daemon.try_serve(&mounts).unwrap();
    assert!(!daemon.path("two/a").exists());
    std::fs::create_dir(daemon.path("one/a")).unwrap();
    eventually("the other mount shows the group", || daemon.path("two/a").exists());
    std::fs::remove_dir(daemon.path("two/a")).unwrap();
    eventually("the first mount has forgotten it", || !daemon.path("one/a").exists());
    daemon.down();
}

/// Dropping a name waits for whoever lists its directory, who may take as long as he likes.
#[test]
fn who_keeps_a_directory_busy_keeps_nobodys_rights_and_delays_one_change() {
    const CHANGES: u32 = 8;
    if !daemon::has_python() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("none,name=x:cg") else { return };
    daemon.ok(&["create", "/a"]);
    daemon.ok(&["chown", "65534:65534", "/a"]);
    let makes = |name: &str| {
        let user = "setpriv --reuid 65534 --regid 65534 --clear-groups";
        daemon.script(&format!("{user} mkdir cg/a/{name}")).status.success()
    };
    assert!(makes("one"));
    let mut command = Command::new(PYTHON);
    command.arg(BUSY).arg(daemon.path("cg")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut busy = command.spawn().expect("it runs");
    let mut said = String::new();
    BufReader::new(busy.stdout.as_mut().expect("a pipe")).read_line(&mut said).expect("UTF-8");
    if said != "busy\n" {
        daemon::wait(busy).expect("it has ended");
        daemon.down();
        daemon::skip("needs userfaultfd");
        return;
    }
    let begun = Instant::now();
    for number in 0..CHANGES {
        daemon.ok(&["create", &format!("/b{number}")]);
    }
    let took = begun.elapsed();
    daemon.ok(&["chown", "0:0", "/a"]);
    assert!(!makes("two"), "the group is not his any more");
    drop(busy.stdin.take());
    daemon::wait(busy).expect("it ends with its input");
    eventually("new names are shown", || daemon.path("cg/b7").exists());
    daemon.down();
    // Each waited a second, when nothing knew that the one before had waited in vain.
    assert!(took < Duration::from_secs(1) * CHANGES, "{took:?}");
}
