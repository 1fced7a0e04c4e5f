//! Frozen groups: what is seen while a process cannot be stopped yet.

use std::fs;

use rustix::process::Signal;

use crate::daemon::{Daemon, eventually};

/// A process that waits for a file system to answer cannot be frozen before it does: that of a daemon that stands still.
#[test]
fn a_group_is_freezing_until_its_last_process_stands_still() {
    let Some(mut daemon) = Daemon::serving("freezer:cg") else { return };
    let Some(mut slow) = Daemon::serving("none,name=slow:cg") else { return };
    daemon.ok(&["create", "/a"]);
    let go = daemon.dir.join("go");
    let script = format!(
        "while [ ! -e {} ]; do :; done; exec cat {}",
        go.display(),
        slow.path("cg/notify_on_release").display()
    );
    let reader = daemon.sleeper_by(&script);
    eventually("it is in the base", || reader.v2_path().contains("pinfold"));
    daemon.ok(&["move", &reader.pid().to_string(), "/a"]);
    slow.signal(Signal::STOP);
    fs::write(go, "").expect("the test's own directory");
    eventually("it waits for the answer", || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", reader.pid())).expect("it lives");
        stat.contains("(cat) S")
    });

    daemon.write("cg/a/freezer.state", "FROZEN").expect("it takes a state at once");
    for _ in 0..20 {
        assert_eq!(daemon.read("cg/a/freezer.state"), "FREEZING\n");
    }
    slow.signal(Signal::CONT);
    eventually("it stands still", || daemon.read("cg/a/freezer.state") == "FROZEN\n");
    daemon.write("cg/a/freezer.state", "THAWED").expect("it takes a state at once");
    eventually("it has read and ended", || daemon.read("cg/a/tasks").is_empty());
    reader.end();
    daemon.down();
    slow.down();
}
