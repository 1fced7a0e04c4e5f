//! In a container: cgroup, pid and mount namespaces of its own, and a v2 tree that begins at its own directory.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod ground;

use std::fs;
use std::process::Command;

use ground::{Ground, Process, dir};
use pinfold_kernel::process::{Namespace, Pinned, namespace, own_namespace, own_pid};
use pinfold_kernel::{Membership, Place, Step, Tree};

/// Set in the test's second life, inside.
const INSIDE: &str = "PINFOLD_TEST_INSIDE";

/// Puts itself into the directory given, makes the namespaces, mounts what a container has, and runs the rest.
const ENTER: &str = r#"
    echo $$ >"$0/cgroup.procs"
    exec unshare --cgroup --mount --pid --fork --kill-child --mount-proc sh -c '
        mount -t tmpfs none /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && exec "$@"' "$@"
"#;

#[test]
fn a_container_is_a_scope_of_its_own() {
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    let Some(ground) = Ground::new() else { return };
    let home = ground.base.join("home");
    fs::create_dir(&home).unwrap();
    let output = Command::new("sh")
        .args(["-c", ENTER, home.to_str().unwrap(), "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "a_container_is_a_scope_of_its_own", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let told =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && told.contains("1 passed"), "{told}");
}

fn inside() {
    let mount = Tree::discover().unwrap();
    assert_eq!((mount.point.to_str().unwrap(), mount.root.to_str().unwrap()), ("/sys/fs/cgroup", "/"));
    let tree = Tree::open(&mount, None, "c", &[]).unwrap();
    let (free, celled, mut zombie) = (Process::sleep(), Process::sleep(), Process::run("true", &[]));
    let pinned = Pinned::of_process(zombie.pid()).unwrap();
    while pinned.verify().is_ok() {
        std::thread::yield_now();
    }
    assert_eq!(tree.membership(free.pid()).unwrap(), Membership::Outside("/".into()));
    let leaf = dir("cell.1");
    tree.carry_out(&[
        Step::Make(leaf.clone()),
        Step::Move { process: celled.pid(), to: Place::Dir(leaf.clone()) },
    ])
    .unwrap();
    assert_eq!(
        tree.membership(celled.pid()).unwrap(),
        Membership::Inside(leaf.leaf().unwrap(), leaf.clone())
    );
    let mut expected = vec![own_pid(), free.pid()];
    expected.sort();
    assert_eq!(tree.scope_processes().unwrap(), expected, "neither the zombie nor the one in a cell");
    let threads = tree.scope_threads().unwrap();
    assert!(threads.contains(&free.pid()) && threads.len() > expected.len(), "the test has threads");
    zombie.wait();
    tree.carry_out(&[Step::Move { process: celled.pid(), to: Place::Scope }]).unwrap();
    assert_eq!(tree.membership(celled.pid()).unwrap(), Membership::Outside("/".into()));
    assert_eq!(own_namespace(Namespace::Pid).unwrap(), namespace(free.pid(), Namespace::Pid).unwrap());
    tree.close().unwrap();
}
