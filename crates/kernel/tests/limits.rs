//! When the kernel gives no more: the error names what to raise. In a user namespace, whose own limits can be set.

use crate::ground::{self, Ground, cell, dir, is_inside};
use pinfold_kernel::{Event, Step, Tree, Watch, WatchError};
use pinfold_model::Errno;

/// The base of the first life, and a realm of its own in it.
fn tree() -> Tree {
    let base = std::env::var_os("PINFOLD_TEST_INSIDE").unwrap();
    Tree::open(&Tree::discover().unwrap(), Some(base.as_ref()), "r", &[]).unwrap()
}

#[test]
fn running_out_of_watches_names_the_sysctl_and_leaves_the_others_at_work() {
    if !is_inside() {
        let Some(ground) = Ground::new() else { return };
        let script = r#"exec unshare --user --map-root-user sh -c '
            echo 2 >/proc/sys/user/max_inotify_watches && exec "$@"' sh "$@""#;
        return ground
            .again("limits::running_out_of_watches_names_the_sysctl_and_leaves_the_others_at_work", script);
    }
    let tree = tree();
    let watch: Watch = tree.watch().unwrap();
    let leaves = ["cell.1", "cell.2", "cell.3"].map(dir);
    tree.carry_out(&leaves.clone().map(Step::Make)).unwrap();
    watch.add(&leaves[0], cell(1)).unwrap();
    watch.add(&leaves[1], cell(2)).unwrap();
    let error = watch.add(&leaves[2], cell(3)).unwrap_err();
    assert!(matches!(error, WatchError::TooMany { .. }) && error.errno() == Errno::ENOSPC, "{error}");
    assert!(error.to_string().contains("fs.inotify.max_user_watches"), "{error}");
    watch.remove(cell(1));
    watch.add(&leaves[2], cell(3)).unwrap();
    tree.carry_out(&[Step::Write { dir: leaves[2].clone(), file: "cgroup.freeze", text: "1".into() }])
        .unwrap();
    assert_eq!(ground::next(&watch), Event::Changed(cell(3)));
    tree.close().unwrap();
}

#[test]
fn running_out_of_inotify_descriptors_names_the_sysctl() {
    if !is_inside() {
        let Some(ground) = Ground::new() else { return };
        let script = r#"exec unshare --user --map-root-user sh -c '
            echo 0 >/proc/sys/user/max_inotify_instances && exec "$@"' sh "$@""#;
        return ground.again("limits::running_out_of_inotify_descriptors_names_the_sysctl", script);
    }
    let tree = tree();
    let error = tree.watch().unwrap_err();
    assert!(matches!(error, WatchError::NoInstance { .. }), "{error}");
    assert!(error.to_string().contains("fs.inotify.max_user_instances"), "{error}");
    tree.close().unwrap();
}
