//! `down` puts processes back where they came from.

use crate::daemon::{self, Daemon};

#[test]
fn processes_go_back_to_where_they_came_from() {
    let Some(mut daemon) = Daemon::new() else { return };
    // Two origins.
    let other = daemon.base.path().join("other");
    std::fs::create_dir(&other).unwrap();
    let (one, two, three) = (daemon.sleeper(), daemon.sleeper(), daemon.sleeper());
    std::fs::write(other.join("cgroup.procs"), two.pid().to_string()).unwrap();
    let origins = [&one, &two, &three].map(daemon::Sleeper::v2_path);
    assert_eq!(origins[1], format!("{}/other", daemon.base.v2_path()));
    daemon.serve("all:cg");
    daemon.ok(&["create", "-p", "/a/b"]);
    for (sleeper, group) in [(&one, "/a"), (&two, "/a/b"), (&three, "/a/b")] {
        daemon.ok(&["move", &sleeper.pid().to_string(), group]);
        assert!(sleeper.v2_path().contains("/pinfold.default/"), "{}", sleeper.v2_path());
    }
    // One goes home by itself: into the root group.
    daemon.ok(&["move", &three.pid().to_string(), "/"]);
    daemon.ok(&["freeze", "/a"]);
    daemon.ok(&["down"]);
    assert_eq!(daemon.ended().code(), Some(0), "{}", daemon.log());
    assert_eq!([&one, &two, &three].map(daemon::Sleeper::v2_path), origins);
    assert_eq!(daemon.base.children(), ["other"]);
    assert!(!daemon.state().exists());
}

#[test]
fn a_process_whose_origin_is_gone_stays_in_the_base() {
    let Some(mut daemon) = Daemon::new() else { return };
    let other = daemon.base.path().join("other");
    std::fs::create_dir(&other).unwrap();
    let sleeper = daemon.sleeper();
    std::fs::write(other.join("cgroup.procs"), sleeper.pid().to_string()).unwrap();
    daemon.serve("all:cg");
    daemon.ok(&["create", "/a"]);
    daemon.ok(&["move", &sleeper.pid().to_string(), "/a"]);
    std::fs::remove_dir(&other).unwrap();
    daemon.down();
    let path = sleeper.v2_path();
    let (base, rest) = (daemon.base.v2_path(), format!("{}/pinfold.rest", daemon.base.v2_path()));
    assert!(path == base || path == rest, "{path}");
}
