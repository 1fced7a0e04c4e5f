//! Mounts made for clients, in mount namespaces of their own; and `mount.cgroup`, mount(8)'s helper.

use crate::daemon::{self, BINARY, Daemon, in_guest, text};

/// Runs a script in a mount namespace that is neither the test's nor the daemon's.
fn elsewhere(daemon: &Daemon, script: &str) -> (Option<i32>, String, String) {
    let mut command = daemon.command("unshare");
    command.args(["--mount", "--propagation", "private", "--", "bash", "-c"]);
    command.arg(format!("set -e; cd '{}'; pinfold={BINARY}; {script}", daemon.dir.display()));
    let output = command.output().expect("timeout runs");
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn prints(daemon: &Daemon, script: &str) -> String {
    let (status, said, error) = elsewhere(daemon, script);
    assert_eq!(status, Some(0), "{script}\n{said}{error}{}", daemon.log());
    said
}

#[test]
fn a_client_mounts_in_its_own_mount_namespace() {
    let Some(mut daemon) = Daemon::serving("all,clone_children:cg") else { return };
    daemon.ok(&["create", "/a"]);
    let script = "mkdir m; $pinfold mount -o all m; ls -d m/a; mkdir m/b; echo $$ > m/b/tasks; \
                  $pinfold tasks freezer:/b; echo $$; grep ' - fuse.cgroup pinfold:default:1 ' /proc/self/mountinfo | wc -l; \
                  echo $$ > m/tasks; rmdir m/b; $pinfold umount m; ls m; rmdir m";
    let said = prints(&daemon, script);
    let lines: Vec<_> = said.lines().collect();
    let [first, tasks @ .., shell, mounts] = lines.as_slice() else { panic!("{said}") };
    assert_eq!((*first, *mounts), ("m/a", "1"), "{said}");
    assert!(tasks.contains(shell), "the shell is in the group: {said}");
    assert!(!daemon.path("m").exists());
    daemon.down();
}

#[test]
fn a_hierarchy_that_a_client_made_goes_with_its_mount() {
    let Some(mut daemon) = Daemon::serving("") else { return };
    assert!(daemon.refused(&["tree"]).contains("mount one first"));
    let said =
        prints(&daemon, "mkdir m; $pinfold mount -o none,name=x m; $pinfold hierarchies; $pinfold umount m");
    assert!(said.contains("name=x"), "{said}");
    daemon::eventually("the hierarchy went", || !daemon.ok(&["hierarchies"]).contains("name=x"));
    // With a group in it, it stays.
    prints(&daemon, "$pinfold mount -o none,name=x m; mkdir m/a; $pinfold umount m");
    assert_eq!(daemon.ok(&["tree"]), "name=x:/\n└── a\n");
    daemon.down();
}

#[test]
fn the_end_of_the_daemon_ends_mounts_elsewhere_too() {
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    let script = "mkdir m; $pinfold mount -o all m; exec 3< m/tasks; $pinfold down; \
                  if cat m/tasks; then echo served; fi; if cat <&3; then echo read; fi; $pinfold umount m; rmdir m; echo over";
    let (status, said, error) = elsewhere(&daemon, script);
    assert_eq!((status, said.as_str()), (Some(0), "over\n"), "{error}{}", daemon.log());
    assert_eq!(daemon.ended().code(), Some(0));
    daemon.assert_gone();
}

#[test]
fn what_is_not_a_mount_of_ours_is_not_unmounted() {
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    let (status, _, error) =
        elsewhere(&daemon, "mkdir t; mount -t tmpfs none t; touch t/x; $pinfold umount t");
    assert_eq!(status, Some(1));
    assert!(error.contains("t is not where pinfold has mounted something"), "{error}");
    for (script, said) in [
        ("$pinfold umount log", "log is not where pinfold has mounted something"),
        ("$pinfold umount no/such", "No such file or directory"),
        ("$pinfold mount -o all no/such", "no/such is no directory to mount at"),
        (
            "mkdir -p m; $pinfold mount -o nonsense m",
            "\"nonsense\" is neither a mount option nor a controller",
        ),
        ("mkdir -p m; $pinfold mount -o freezer m", "controller freezer is bound to"),
        ("mkdir -p m; $pinfold mount -o remount,freezer m", "m is not where pinfold has mounted something"),
    ] {
        let (status, _, error) = elsewhere(&daemon, script);
        assert_eq!(status, Some(1), "{script}: {error}");
        assert!(error.contains(said), "{script}: {error}");
    }
    daemon.down();
}

#[test]
fn nothing_is_written_through_a_read_only_mount() {
    let Some(mut daemon) = Daemon::serving("all:cg") else { return };
    let script = "export LC_ALL=C; mkdir m; $pinfold mount -o ro,all m; if mkdir m/a 2>e; then echo made; fi; cat e; cat m/tasks >/dev/null";
    let said = prints(&daemon, script);
    assert_eq!(said, "mkdir: cannot create directory 'm/a': Read-only file system\n", "{said}");
    daemon.down();
}

#[test]
fn a_remount_changes_the_hierarchy_of_its_mount() {
    let Some(mut daemon) = Daemon::serving("") else { return };
    let script = "mkdir m; $pinfold mount -o freezer m; $pinfold mount -o remount,freezer,cpuacct m; \
                  $pinfold hierarchies --json | grep label; mkdir m/a; \
                  if $pinfold mount -o remount,freezer m 2>e; then echo changed; fi; rmdir m/a; $pinfold umount m";
    let said = prints(&daemon, script);
    assert_eq!(said.trim(), "\"label\": \"cpuacct,freezer\",", "{said}");
    daemon.down();
}

#[test]
fn the_helper_takes_what_mount_8_gives_it() {
    let Some(mut daemon) = Daemon::serving("") else { return };
    let script = "ln -s $pinfold mount.cgroup; mkdir m; ./mount.cgroup none $PWD/m -o rw,nosuid,freezer,x-systemd.automount; \
                  ls -d m/tasks; $pinfold umount m; ./mount.cgroup none $PWD/m -f -n -s -o rw,freezer; ls m; \
                  ./mount.cgroup none $PWD/m -v -t cgroup -o rw,cpuacct; ls m/cpuacct.usage; $pinfold umount m";
    assert_eq!(prints(&daemon, script), "m/tasks\nm/cpuacct.usage\n");
    let (status, _, error) = elsewhere(&daemon, "./mount.cgroup none $PWD/m -o rw,nonsense");
    assert_eq!(status, Some(1), "{error}");
    assert!(error.contains("\"nonsense\" is neither a mount option nor a controller"), "{error}");
    daemon.down();
}

/// With the helper where mount(8) looks for it: the program's directory is covered, in this mount namespace alone.
#[test]
fn mount_8_mounts_a_hierarchy() {
    let Some(mut daemon) = Daemon::serving("") else { return };
    let script = "mkdir m sbin; ln -s $pinfold sbin/mount.cgroup; mount --bind sbin /usr/sbin; \
                  mount -t cgroup -o freezer,cpuacct none m; ls -d m/freezer.state m/tasks || true; mkdir m/a; ls m/a/freezer.state; \
                  rmdir m/a; umount m; umount /usr/sbin";
    let said = prints(&daemon, script);
    assert_eq!(said, "m/tasks\nm/a/freezer.state\n");
    daemon.down();
}

#[test]
fn mount_8_mounts_pids_and_freezer() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = Daemon::serving("") else { return };
    let script = "mkdir m; ln -sf $pinfold /sbin/mount.cgroup; mount -t cgroup -o pids,freezer none m; mkdir m/a; \
                  ls m/a/pids.max m/a/freezer.state; rmdir m/a; umount m; rm /sbin/mount.cgroup";
    assert_eq!(prints(&daemon, script), "m/a/freezer.state\nm/a/pids.max\n");
    daemon.down();
}
