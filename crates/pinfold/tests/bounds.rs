//! How many groups others than the host's root may have, and how much they may keep with them.

use crate::container::{FIRST, Shell};
use crate::daemon::{self, Daemon, PYTHON};

/// A user of the host's.
const BOB: u32 = 54_321;

#[test]
fn a_million_nested_groups_are_not_made() {
    let Some(mut daemon) = Daemon::new() else { return };
    let limits = ["--max-depth=6", "--max-groups-of-user=9", "--max-groups-below=20"];
    let mut arguments = vec!["--mount".to_owned(), format!("none,name=x:{}/cg", daemon.dir.display())];
    arguments.extend(limits.map(str::to_owned));
    daemon.try_serve(&arguments).unwrap();
    daemon.ok(&["create", "/c"]);
    daemon.ok(&["chown", &format!("{FIRST}:{FIRST}"), "/c"]);
    let mut root = Shell::of_container(&daemon, "/c");
    root.ok("create -p 1/2/3/4/5");
    root.refused("create 1/2/3/4/5/6", "EAGAIN");
    for name in ["a", "b", "c", "d"] {
        root.ok(&format!("create {name}"));
    }
    root.refused("create e", "EAGAIN");
    // Giving them away makes no room; another user has room of his own, but not more than all have together.
    root.ok("chown 7:7 a");
    root.refused("create e", "EAGAIN");
    root.enter("setpriv --reuid 7 --regid 7 --clear-groups");
    for number in 0..9 {
        root.ok(&format!("create a/{number}"));
    }
    root.refused("create a/9", "EAGAIN");
    root.leave();
    root.ok("chown 8:8 b");
    root.enter("setpriv --reuid 8 --regid 8 --clear-groups");
    root.ok("create b/0");
    root.ok("create b/1");
    root.refused("create b/2", "EAGAIN");
    root.leave();
    // Through a mount it is the same.
    let made = daemon.script(&format!("setpriv --reuid {FIRST} --regid {FIRST} --clear-groups mkdir cg/c/f"));
    let said = daemon::text(&made.stderr);
    assert!(said.contains("Resource temporarily unavailable"), "{said}");
    daemon.ok(&["create", "-p", "/1/2/3/4/5/6/7/8"]);
    drop(root);
    daemon.ok(&["rm", "-r", "/c"]);
    daemon.ok(&["rm", "-r", "/1"]);
    daemon.down();
}

/// Its number is that of the host's root, who is held to nothing.
#[test]
fn root_of_a_container_with_the_hosts_users_is_bounded_like_others() {
    let Some(mut daemon) = Daemon::new() else { return };
    let mut arguments = vec!["--mount".to_owned(), format!("none,name=x:{}/cg", daemon.dir.display())];
    arguments.extend(["--max-depth=6", "--max-groups-below=7"].map(str::to_owned));
    daemon.try_serve(&arguments).unwrap();
    daemon.ok(&["create", "/c"]);
    let mut root = Shell::of_container_of_host(&daemon, "/c");
    assert_eq!(root.run("id -u").text, "0\n");
    root.ok("create -p 1/2/3/4/5");
    root.refused("create 1/2/3/4/5/6", "EAGAIN");
    root.ok("create a");
    root.ok("create b");
    root.refused("create c", "EAGAIN");
    // A group of its own gives it no room.
    root.ok("move $$ a");
    root.refused("create x", "EAGAIN");
    // Through a mount it is the same, and for root without privilege, too; these are in no group, and all there are count.
    for contained in ["unshare --pid --fork --kill-child", "setpriv --bounding-set=-all --inh-caps=-all"] {
        let said = daemon::text(&daemon.script(&format!("{contained} mkdir cg/c/f")).stderr);
        assert!(said.contains("Resource temporarily unavailable"), "{contained}: {said}");
    }
    assert!(daemon.script("mkdir cg/c/f").status.success(), "the host's root is held to nothing");
    drop(root);
    daemon.ok(&["rm", "-r", "/c"]);
    daemon.down();
}

#[test]
fn a_user_keeps_few_attributes_of_each_group() {
    if !daemon::has_python() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("none,name=x:cg") else { return };
    daemon.ok(&["create", "/bob"]);
    daemon.ok(&["chown", &format!("{BOB}:{BOB}"), "/bob"]);
    let user = format!("setpriv --reuid {BOB} --regid {BOB} --clear-groups");
    let set = |who: &str, file: &str, name: &str, length: u32| {
        let act = format!("import os; os.setxattr('cg/bob/{file}', 'user.{name}', b'x' * {length})");
        let output = daemon.script(&format!("{who} {PYTHON} -c \"{act}\""));
        daemon::text(&output.stderr).lines().last().map_or_else(String::new, str::to_owned)
    };
    assert_eq!(set(&user, ".", "a", 4000), "");
    assert_eq!(set(&user, "tasks", "a", 4000), "");
    let refused = set(&user, "tasks", "b", 4000);
    assert!(refused.contains("No space left on device"), "{refused}");
    assert!(set(&user, ".", "b", 4000).contains("No space left on device"));
    assert_eq!(set(&user, "tasks", "a", 100), "", "less is always taken");
    assert_eq!(set(&user, ".", "b", 3000), "");
    assert_eq!(set("env", ".", "c", 60_000), "", "the host's root is held to what the kernel has");
    daemon.down();
}

#[test]
fn a_user_keeps_so_much_with_all_his_groups_together() {
    if !daemon::has_python() {
        return;
    }
    let Some(mut daemon) = Daemon::new() else { return };
    let mount = format!("none,name=x:{}/cg", daemon.dir.display());
    let arguments = ["--mount", &mount, "--max-attributes=10000"].map(str::to_owned);
    daemon.try_serve(&arguments).unwrap();
    daemon.ok(&["create", "/shared"]);
    daemon.ok(&["chmod", "777", "/shared"]);
    let set = |daemon: &Daemon, who: &str, group: &str, length: u32| {
        let act = format!("import os; os.setxattr('cg/{group}', 'user.a', b'x' * {length})");
        let output = daemon.script(&format!("{who} {PYTHON} -c \"{act}\""));
        daemon::text(&output.stderr).lines().last().map_or_else(String::new, str::to_owned)
    };
    let user = |uid: u32| format!("setpriv --reuid {uid} --regid {uid} --clear-groups");
    let bob = user(BOB);
    for group in ["a", "b", "c"] {
        assert!(daemon.script(&format!("{bob} mkdir cg/shared/{group}")).status.success());
    }
    assert_eq!(set(&daemon, &bob, "shared/a", 4000), "");
    assert_eq!(set(&daemon, &bob, "shared/b/tasks", 4000), "");
    assert!(set(&daemon, &bob, "shared/c", 4000).contains("Disk quota exceeded"));
    assert_eq!(set(&daemon, &bob, "shared/c", 1000), "");
    // What somebody else has made counts for him.
    assert!(daemon.script(&format!("{} mkdir cg/shared/d", user(BOB + 1))).status.success());
    assert_eq!(set(&daemon, &user(BOB + 1), "shared/d", 4000), "");
    // The next daemon knows it too.
    daemon.kill();
    daemon.try_serve(&arguments).unwrap();
    assert!(set(&daemon, &bob, "shared/c", 4000).contains("Disk quota exceeded"));
    assert_eq!(set(&daemon, "env", "shared/c", 4000), "", "the host's root is not held to it");
    daemon.ok(&["rm", "/shared/a"]);
    daemon.ok(&["rm", "/shared/c"]);
    assert!(daemon.script(&format!("{bob} mkdir cg/shared/e")).status.success());
    assert_eq!(set(&daemon, &bob, "shared/e", 4000), "");
    // All users of a container together.
    daemon.ok(&["create", "/given"]);
    daemon.ok(&["chown", &format!("{FIRST}:{FIRST}"), "/given"]);
    assert!(daemon.script(&format!("{} mkdir -m 777 cg/given/all", user(FIRST))).status.success());
    for (number, allowed) in [(1, true), (2, true), (3, false)] {
        let other = user(FIRST + number);
        assert!(daemon.script(&format!("{other} mkdir cg/given/all/{number}")).status.success());
        let said = set(&daemon, &other, &format!("given/all/{number}"), 4000);
        assert_eq!(said.is_empty(), allowed, "{said}");
    }
    daemon.ok(&["rm", "-r", "/shared"]);
    daemon.ok(&["rm", "-r", "/given"]);
    daemon.down();
}
