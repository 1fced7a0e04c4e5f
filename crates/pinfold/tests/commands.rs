//! Every client command against a real daemon.

use crate::daemon::{self, Daemon, Sleeper, eventually, text};
use rustix::process::Signal;
use serde_json::{Value, json};

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

/// A daemon with two hierarchies: `freezer,cpuacct` and one with only a name.
fn two_hierarchies() -> Option<Daemon> {
    let mut daemon = Daemon::new()?;
    let dir = daemon.dir.display();
    let mounts = [format!("freezer,cpuacct:{dir}/cg"), format!("none,name=jobs:{dir}/jobs")];
    let mounts = mounts.into_iter().flat_map(|mount| ["--mount".to_owned(), mount]);
    daemon.try_serve(&mounts.collect::<Vec<_>>()).expect("the daemon starts");
    Some(daemon)
}

fn lists(daemon: &Daemon, group: &str, sleeper: &Sleeper) -> bool {
    daemon.ok(&["tasks", group]).lines().any(|line| line == sleeper.pid().to_string())
}

#[test]
fn hierarchies_and_controllers_are_listed() {
    let Some(mut daemon) = two_hierarchies() else { return };
    daemon.ok(&["create", "name=jobs:/a"]);
    let hierarchies = parsed(&daemon.ok(&["hierarchies", "--json"]));
    let labels: Vec<_> =
        hierarchies.as_array().unwrap().iter().map(|h| (&h["label"], &h["groups"], &h["mounts"])).collect();
    assert_eq!(
        labels,
        [(&json!("cpuacct,freezer"), &json!(1), &json!(1)), (&json!("name=jobs"), &json!(2), &json!(1))]
    );
    let controllers = parsed(&daemon.ok(&["controllers", "--json"]));
    let freezer = controllers.as_array().unwrap().iter().find(|c| c["name"] == "freezer").unwrap();
    assert_eq!(freezer["hierarchy"], hierarchies[0]["id"]);
    assert_eq!(freezer["unusable"], "");
    assert!(daemon.ok(&["hierarchies"]).starts_with("ID  GROUPS  MOUNTS  CONTROLLERS\n"));
    let cgroups = daemon.ok(&["proc", "cgroups"]);
    assert!(cgroups.starts_with("#subsys_name\thierarchy\tnum_cgroups\tenabled\n"), "{cgroups}");
    assert!(cgroups.contains("freezer\t1\t1\t1\n"), "{cgroups}");
    daemon.down();
}

#[test]
fn groups_are_made_shown_and_removed() {
    let Some(mut daemon) = two_hierarchies() else { return };
    daemon.ok(&["create", "/a"]);
    daemon.ok(&["create", "freezer:/a/b"]);
    daemon.ok(&["create", "-p", "name=jobs:/x/y/z"]);
    daemon.ok(&["create", "-p", "name=jobs,freezer:/x/y/z"]);
    assert_eq!(
        daemon.ok(&["tree"]),
        "cpuacct,freezer:/\n├── a\n│   └── b\n└── x\n    └── y\n        └── z\n\
         name=jobs:/\n├── a\n└── x\n    └── y\n        └── z\n"
    );
    assert_eq!(
        parsed(&daemon.ok(&["tree", "freezer:/a", "--json"])),
        json!([{"hierarchy": "cpuacct,freezer", "path": "/a", "groups": [
            {"hierarchy": "cpuacct,freezer", "path": "/a/b", "groups": []}]}])
    );
    let listed = daemon.ok(&["ls", "freezer:/a"]);
    assert!(listed.ends_with("freezer.parent_freezing\nb/\n"), "{listed}");
    let listed = daemon.ok(&["ls", "-l", "name=jobs:/"]);
    assert!(listed.contains("-rw-r--r--     0     0 tasks\n"), "{listed}");
    assert!(listed.contains("drwxr-xr-x     0     0 a/\n"), "{listed}");
    // /a is in both hierarchies, /a/b in one.
    assert!(daemon.refused(&["rm", "/a"]).contains("cpuacct,freezer:/a"));
    daemon.ok(&["rm", "/a/b"]);
    daemon.ok(&["rm", "/a"]);
    daemon.ok(&["rm", "-r", "/x"]);
    assert_eq!(daemon.ok(&["tree"]), "cpuacct,freezer:/\nname=jobs:/\n");
    daemon.down();
}

#[test]
fn a_group_is_made_in_every_hierarchy_meant_or_in_none() {
    let Some(mut daemon) = two_hierarchies() else { return };
    daemon.ok(&["create", "name=jobs:/a"]);
    let said = daemon.refused(&["create", "freezer,name=jobs:/a"]);
    assert!(said.contains("name=jobs:/a"), "{said}");
    assert_eq!(daemon.ok(&["tree"]), "cpuacct,freezer:/\nname=jobs:/\n└── a\n");
    // A path alone: where it is not there yet.
    daemon.ok(&["create", "/a"]);
    assert_eq!(daemon.ok(&["tree"]), "cpuacct,freezer:/\n└── a\nname=jobs:/\n└── a\n");
    let said = daemon.refused(&["create", "/a"]);
    assert!(said.contains("every hierarchy has a group /a already"), "{said}");
    daemon.down();
}

#[test]
fn processes_are_moved_and_listed() {
    let Some(mut daemon) = two_hierarchies() else { return };
    let (one, other) = (daemon.sleeper(), daemon.sleeper());
    daemon.ok(&["create", "-p", "/a/b"]);
    daemon.ok(&["move", &one.pid().to_string(), "/a"]);
    daemon.ok(&["move", &other.pid().to_string(), "freezer:/a/b"]);
    assert!(lists(&daemon, "/a", &one) && !lists(&daemon, "/a", &other));
    assert!(lists(&daemon, "freezer:/a/b", &other) && lists(&daemon, "name=jobs:/", &other));
    let mut both = [one.pid(), other.pid()];
    both.sort_unstable();
    assert_eq!(parsed(&daemon.ok(&["tasks", "freezer:/a", "--recursive", "--json"])), json!(both));
    assert_eq!(parsed(&daemon.ok(&["tasks", "name=jobs:/a", "-r", "-p", "--json"])), json!([one.pid()]));
    let cgroup = daemon.ok(&["proc", "cgroup", &other.pid().to_string()]);
    assert_eq!(cgroup, "2:name=jobs:/\n1:cpuacct,freezer:/a/b\n");
    let own = parsed(&daemon.ok(&["proc", "cgroup", "--json"]));
    assert_eq!(own.as_array().unwrap().iter().map(|g| &g["path"]).collect::<Vec<_>>(), ["/", "/"]);
    daemon.down();
}

#[test]
fn values_are_read_and_set_and_their_keepers_told() {
    let Some(mut daemon) = two_hierarchies() else { return };
    daemon.ok(&["create", "/a"]);
    daemon.ok(&["set", "freezer:/a", "notify_on_release=1", "cpuacct.usage=0"]);
    assert_eq!(daemon.ok(&["get", "freezer:/a", "notify_on_release"]), "1\n");
    assert_eq!(daemon.ok(&["get", "/a", "freezer.state"]), "THAWED\n");
    let both = ["get", "freezer:/a", "notify_on_release", "cpuacct.stat"];
    assert_eq!(daemon.ok(&both), "notify_on_release: 1\ncpuacct.stat:\n\tuser 0\n\tsystem 0\n");
    let json = parsed(&daemon.ok(&[&both[..], &["--json"]].concat()));
    assert_eq!(json, json!({"notify_on_release": "1", "cpuacct.stat": "user 0\nsystem 0"}));
    // In one hierarchy it is 1, in the other 0.
    assert!(daemon.refused(&["get", "/a", "notify_on_release"]).contains("name one of"));
    daemon.ok(&["set", "/a", "notify_on_release=1"]);
    assert_eq!(daemon.ok(&["get", "name=jobs:/a", "notify_on_release"]), "1\n");
    let status = parsed(&daemon.ok(&["status", "name=jobs:/a", "--json"]));
    let kept = status.as_array().unwrap().iter().find(|s| s["key"] == "notify_on_release").unwrap();
    assert_eq!(
        (&kept["value"], &kept["set"], &kept["enforced"]),
        (&json!("1"), &json!(true), &json!("user space"))
    );
    assert!(daemon.ok(&["status", "/a"]).contains("notify_on_release"));
    daemon.down();
}

#[test]
fn a_group_is_frozen_thawed_and_killed() {
    let Some(mut daemon) = two_hierarchies() else { return };
    let sleeper = daemon.sleeper();
    daemon.ok(&["create", "-p", "/a/b"]);
    daemon.ok(&["move", &sleeper.pid().to_string(), "/a/b"]);
    daemon.ok(&["freeze", "/a"]);
    assert_eq!(daemon.read("cg/a/b/freezer.parent_freezing"), "1\n");
    assert_eq!(daemon.ok(&["get", "/a", "thawed"]), "0\n");
    daemon.ok(&["thaw", "/a"]);
    daemon.ok(&["set", "/a", "frozen=1"]);
    eventually("it stands still", || daemon.ok(&["get", "/a", "frozen"]) == "1\n");
    daemon.ok(&["set", "/a", "thawed=1"]);
    assert_eq!(daemon.ok(&["get", "/a", "frozen"]), "0\n");
    assert_eq!(daemon.read("cg/a/b/freezer.state"), "THAWED\n");
    assert!(
        daemon.refused(&["freeze", "name=jobs:/a"]).contains("has no key or control file \"freezer.state\"")
    );
    assert!(daemon.refused(&["freeze", "/"]).contains("below the root"));
    assert!(daemon.refused(&["kill", "/"]).contains("root group"));
    daemon.ok(&["kill", "freezer:/a"]);
    assert_eq!(sleeper.killed_by(), Some(Signal::KILL.as_raw()));
    daemon.down();
}

#[test]
fn a_group_given_away_is_the_users_but_its_limits_are_not() {
    let Some(mut daemon) = two_hierarchies() else { return };
    daemon.ok(&["create", "/a"]);
    daemon.ok(&["chown", "daemon:65534", "freezer:/a"]);
    let listed = daemon.ok(&["ls", "-l", "freezer:/"]);
    assert!(listed.contains("drwxr-xr-x     1 65534 a/"), "{listed}");
    let listed = daemon.ok(&["ls", "-l", "freezer:/a"]);
    assert!(listed.contains("-rw-r--r--     1 65534 tasks\n"), "{listed}");
    assert!(listed.contains("-rw-r--r--     1 65534 cgroup.procs\n"), "{listed}");
    assert!(listed.contains("-rw-r--r--     0     0 freezer.state\n"), "{listed}");
    daemon.ok(&["chown", ":0", "freezer:/a"]);
    assert!(daemon.ok(&["ls", "-l", "freezer:/"]).contains("drwxr-xr-x     1     0 a/"));
    let said = daemon.refused(&["chown", "nobody-has-this-name", "/a"]);
    assert!(said.contains("no user \"nobody-has-this-name\" in /etc/passwd"), "{said}");
    daemon.down();
}

#[test]
fn what_is_not_there_is_said_by_name() {
    let Some(mut daemon) = two_hierarchies() else { return };
    daemon.ok(&["create", "name=jobs:/a"]);
    for (arguments, said) in [
        (["tasks", "/no", ""], "no hierarchy has a group /no"),
        (["tasks", "freezer:/a", ""], "there is no group cpuacct,freezer:/a"),
        (["tasks", "bogus:/a", ""], "no controller is called \"bogus\" (known: "),
        (["tasks", "pids:/a", ""], "controller pids is in no hierarchy: mount it first"),
        (["tasks", "name=no:/a", ""], "no hierarchy has the name \"no\""),
        (["create", "name=jobs:/no/a", ""], "there is no group name=jobs:/no"),
        (["create", "/", ""], "the root group is there already"),
        (["rm", "name=jobs:/", ""], "name=jobs:/: the root group of a hierarchy cannot be removed"),
        (["get", "name=jobs:/a", "pids.max"], "name=jobs:/a has no key or control file \"pids.max\""),
        (["set", "name=jobs:/a", "pids.max=1"], "name=jobs:/a has no key or control file \"pids.max\""),
        (["move", "4194303", "name=jobs:/a"], "no process 4194303"),
        (["proc", "cgroup", "4194303"], "no process 4194303"),
    ] {
        let arguments: Vec<_> = arguments.into_iter().filter(|argument| !argument.is_empty()).collect();
        let stderr = daemon.refused(&arguments);
        assert!(stderr.contains(said), "pinfold {arguments:?} said: {stderr}");
    }
    daemon.down();
}

#[test]
fn removing_a_tree_moves_its_processes_up() {
    let Some(mut daemon) = two_hierarchies() else { return };
    let (one, other) = (daemon.sleeper(), daemon.sleeper());
    daemon.ok(&["create", "-p", "name=jobs:/a/b/c"]);
    daemon.ok(&["move", &one.pid().to_string(), "name=jobs:/a/b"]);
    daemon.ok(&["move", &other.pid().to_string(), "name=jobs:/a/b/c"]);
    let said = daemon.refused(&["rm", "name=jobs:/a/b/c"]);
    assert!(said.contains("name=jobs:/a/b/c"), "{said}");
    daemon.ok(&["rm", "-r", "name=jobs:/a/b"]);
    assert!(lists(&daemon, "name=jobs:/a", &one) && lists(&daemon, "name=jobs:/a", &other));
    assert_eq!(daemon.ok(&["tree", "name=jobs:/"]), "name=jobs:/\n└── a\n");
    daemon.down();
}

#[test]
fn groups_may_be_nested_deeply() {
    let Some(mut daemon) = Daemon::serving("none,name=jobs:jobs") else { return };
    let mut at = rustix::fs::open(daemon.path("jobs"), rustix::fs::OFlags::DIRECTORY, 0.into()).unwrap();
    const DEPTH: usize = 300;
    for _ in 0..DEPTH {
        rustix::fs::mkdirat(&at, "n", 0o755.into()).unwrap();
        at = rustix::fs::openat(&at, "n", rustix::fs::OFlags::DIRECTORY, 0.into()).unwrap();
    }
    drop(at);
    let groups = parsed(&daemon.ok(&["hierarchies", "--json"]))[0]["groups"].clone();
    assert_eq!(groups, json!(DEPTH + 1));
    assert_eq!(daemon.ok(&["tasks", "-r", "/n"]), "");
    assert_eq!(daemon.ok(&["tree"]).lines().count(), DEPTH + 1);
    daemon.ok(&["rm", "-r", "/n"]);
    assert_eq!(daemon.ok(&["tree"]).lines().count(), 1);
    daemon.down();
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let Some(mut daemon) = two_hierarchies() else { return };
    let output = daemon
        .command("bash")
        .args(["-o", "pipefail", "-c"])
        .arg(format!("{} ls | head -n 1", daemon::BINARY))
        .output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    daemon.down();
}

#[test]
fn groups_are_made_with_values_and_go_when_they_are_empty() {
    let Some(mut daemon) = two_hierarchies() else { return };
    daemon.ok(&["create", "freezer:/a", "notify_on_release=1", "cgroup.clone_children=1"]);
    assert_eq!(daemon.ok(&["get", "freezer:/a", "notify_on_release"]), "1\n");
    let said = daemon.refused(&["create", "freezer:/b", "notify_on_release=1", "no_such_key=1"]);
    assert!(said.contains("no_such_key"), "{said}");
    assert!(daemon.refused(&["ls", "/b"]).contains("no hierarchy has a group /b"));
    // One that is in use stays until it is not.
    let sleeper = daemon.sleeper();
    daemon.ok(&["move", &sleeper.pid().to_string(), "freezer:/a"]);
    daemon.ok(&["create", "-p", "freezer:/x/y"]);
    assert_eq!(daemon.ok(&["prune", "freezer:/"]), "cpuacct,freezer:/x/y\ncpuacct,freezer:/x\n");
    assert_eq!(parsed(&daemon.ok(&["prune", "freezer:/", "--json"])), json!([]));
    daemon.ok(&["rm", "--when-empty", "freezer:/a"]);
    assert!(lists(&daemon, "freezer:/a", &sleeper));
    sleeper.end();
    let nothing = "cpuacct,freezer:/\nname=jobs:/\n";
    eventually("the empty group goes", || daemon.ok(&["tree"]) == nothing);
    daemon.down();
}

#[test]
fn modes_say_who_may_do_what() {
    let Some(mut daemon) = two_hierarchies() else { return };
    daemon.ok(&["create", "/a"]);
    daemon.ok(&["chmod", "1777", "/a"]);
    daemon.ok(&["chmod", "0600", "freezer:/a", "freezer.state", "cpuacct_usage"]);
    let listed = daemon.ok(&["ls", "-l", "/"]);
    assert_eq!(listed.matches("drwxrwxrwx     0     0 a/\n").count(), 2, "{listed}");
    let listed = daemon.ok(&["ls", "-l", "freezer:/a"]);
    for name in ["freezer.state", "cpuacct.usage"] {
        assert!(listed.contains(&format!("-rw-------     0     0 {name}\n")), "{listed}");
    }
    let said = daemon.refused(&["chmod", "644", "/a", "nonsense"]);
    assert!(said.contains("no key or control file \"nonsense\""), "{said}");
    daemon.down();
}

#[test]
fn keys_are_listed_with_what_they_take() {
    let Some(mut daemon) = two_hierarchies() else { return };
    let listed = daemon.ok(&["keys", "freezer:/"]);
    assert!(listed.starts_with("HIERARCHY        KEY"), "{listed}");
    assert!(listed.lines().any(|line| line.contains("cpuacct_usage  owner above  nanoseconds")), "{listed}");
    let keys = parsed(&daemon.ok(&["keys", "freezer:/", "--json"]));
    let stat = keys.as_array().unwrap().iter().find(|key| key["name"] == "cpuacct_stat").unwrap();
    assert_eq!((&stat["set_by"], &stat["files"]), (&json!(""), &json!(["cpuacct.stat"])));
    daemon.down();
}
