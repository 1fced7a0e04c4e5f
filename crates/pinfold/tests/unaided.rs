//! Controllers that the v2 tree does not offer: done from user space where that can be, refused at mount where not.

use crate::daemon::{Daemon, eventually, text};
use pinfold_dbus::{Client, ClientError};

/// A daemon in a base that no controller was delegated to.
fn serving(mount: &str) -> Option<Daemon> {
    let mut daemon = Daemon::new()?;
    daemon.base.withhold_controllers();
    daemon.serve(mount);
    Some(daemon)
}

#[test]
fn a_limit_that_the_tree_cannot_keep_is_kept_from_user_space_and_said_to_be() {
    let Some(mut daemon) = serving("all:cg") else { return };
    daemon.ok(&["create", "/a"]);
    daemon.ok(&["set", "/a", "pids.limit=2", "cpus_allowed=0"]);
    // What follows bears nobody: the group is full.
    let script = "sleep 30 >&- 2>&- & sleep 30 >&- 2>&- & wait $!; echo $?; \
                  while read key cpus; do [ $key != Cpus_allowed_list: ] || echo $cpus; done < /proc/$$/status";
    let output = daemon.pinfold(&["exec", "-g", "/a", "--", "sh", "-c", script]);
    assert_eq!(text(&output.stdout), "137\n0\n", "{}", daemon.log());
    assert_eq!(daemon.read("cg/a/pids.events"), "max 1\n");
    let status = daemon.ok(&["status", "/a"]);
    let of = |key: &str| status.lines().find(|line| line.contains(key)).unwrap_or_default().trim_end();
    assert!(of(" pids.max ").ends_with("user space, as the v2 tree does not offer pids"), "{status}");
    assert!(of(" cpuset.cpus ").ends_with("user space, as the v2 tree does not offer cpuset"), "{status}");
    let base = daemon.base.path().display().to_string();
    let said = daemon.ok(&["doctor", "--base", &base]);
    assert!(
        said.contains("from user space, as the v2 tree does not offer it: a process that is born"),
        "{said}"
    );
    let why = format!("controller pids is done from user space: pids is not in cgroup.controllers of {base}");
    assert!(daemon.log().contains(&why), "{}", daemon.log());
    // The next daemon goes on with it.
    daemon.kill();
    daemon.serve("all:cg");
    assert_eq!(daemon.read("cg/a/pids.events"), "max 1\n");
    let output =
        daemon.pinfold(&["exec", "-g", "/a", "--", "sh", "-c", "sleep 30 >&- 2>&- & wait $!; echo $?"]);
    assert_eq!(text(&output.stdout), "137\n", "with the one that sleeps there are two already");
    daemon.ok(&["kill", "/a"]);
    eventually("the group is empty", || daemon.read("cg/a/tasks").is_empty());
    daemon.down();
}

#[test]
fn what_user_space_cannot_do_is_refused_at_mount_with_the_reason() {
    let Some(mut daemon) = serving("pids:cg") else { return };
    let dir = daemon.dir.join("m");
    std::fs::create_dir(&dir).expect("a directory of our own");
    let said = daemon.refused(&["mount", "-o", "memory", &dir.display().to_string()]);
    let why = "memory is not in cgroup.controllers of";
    assert!(said.contains("controller memory is not available here") && said.contains(why), "{said}");
    assert!(daemon.log().contains("nobody but the kernel can charge memory to a group"), "{}", daemon.log());
    // As the kernel answers where a controller is disabled.
    let client = Client::connect(&daemon.state().join("socket")).expect("the door is open");
    match client.mount("memory,cpu") {
        Err(ClientError::Refused(refusal)) => assert_eq!(refusal.errno(), "EINVAL", "{refusal}"),
        other => panic!("{other:?}"),
    }
    daemon.down();
}

#[test]
fn a_strict_realm_refuses_what_would_be_done_from_user_space() {
    let Some(mut daemon) = Daemon::new() else { return };
    daemon.base.withhold_controllers();
    let mount = format!("pids:{}", daemon.dir.join("cg").display());
    let arguments = ["--strict", "--mount", &mount].map(str::to_owned);
    assert!(daemon.try_serve(&arguments).is_ok(), "{}", daemon.log());
    daemon.ok(&["create", "/a"]);
    let refused = daemon.write("cg/a/pids.max", "2").expect_err("the kernel would not do it");
    assert_eq!(refused.raw_os_error(), Some(rustix::io::Errno::BUSY.raw_os_error()));
    daemon.down();
}
