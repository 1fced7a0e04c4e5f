//! In a container: cgroup, pid and mount namespaces of its own, and a v2 tree that begins at its own directory.

use crate::ground::{self, Ground, Process, dir};
use pinfold_kernel::process::{Namespace, Pinned, namespace, own_namespace, own_pid};
use pinfold_kernel::{Membership, Place, Step, Tree};

/// Puts itself into a directory, makes the namespaces, mounts what a container has, and runs the rest.
const ENTER: &str = r#"
    mkdir "$0/home" && echo $$ >"$0/home/cgroup.procs" || exit
    exec unshare --cgroup --mount --pid --fork --kill-child --mount-proc sh -c '
        mount -t tmpfs none /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && exec "$@"' sh "$@"
"#;

#[test]
fn a_container_is_a_scope_of_its_own() {
    if ground::is_inside() {
        return inside();
    }
    let Some(ground) = Ground::new() else { return };
    ground.again("container::a_container_is_a_scope_of_its_own", ENTER);
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
