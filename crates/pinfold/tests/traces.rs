//! The two traces that the README shows, as written there. With cpuset among the controllers a group that mkdir makes is usable
//! only as a clone.

use crate::daemon::{Daemon, text};

/// A shell that moves itself has its children born where it is.
#[test]
fn children_are_born_where_their_parent_is() {
    let Some(mut daemon) = Daemon::serving("all,clone_children:cgroup") else { return };
    let output = daemon.script(
        "mkdir cgroup/init cgroup/rootfs
         echo $$ >> cgroup/init/tasks
         sleep 1m & sleep=$!
         cat cgroup/init/tasks > seen
         echo $$ $sleep
         wc -l < seen
         kill $sleep",
    );
    let (said, error) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{error}");
    let seen = std::fs::read_to_string(daemon.dir.join("seen")).unwrap();
    let mut lines = said.lines();
    for pid in lines.next().unwrap().split(' ') {
        assert!(seen.lines().any(|line| line == pid), "{pid} is not in {seen:?}");
    }
    assert_eq!(lines.next(), Some("3"), "the shell, sleep and cat itself: {seen:?}");
    daemon.down();
}

/// A process that is moved is listed where it is, and only there.
#[test]
fn a_moved_process_has_left_where_it_was() {
    let Some(mut daemon) = Daemon::serving("all,clone_children:cg") else { return };
    let sleeper = daemon.sleeper();
    let pid = sleeper.pid().to_string();
    let before = daemon.script("cat cg/tasks");
    assert!(text(&before.stdout).lines().any(|line| line == pid), "it starts in the first group");
    let output = daemon
        .script(&format!("mkdir cg/foo && echo {pid} >> cg/foo/tasks && tail -n3 cg/tasks cg/foo/tasks"));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    let (first, second) = said.split_once("==> cg/foo/tasks <==\n").unwrap();
    assert!(!first.lines().any(|line| line == pid), "{said}");
    assert_eq!(second.lines().collect::<Vec<_>>(), [pid.as_str()], "{said}");
    daemon.down();
}
