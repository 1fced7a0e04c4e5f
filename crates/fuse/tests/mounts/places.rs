//! Mounts at places: put there, found there, taken away, and what a killed daemon leaves.
//!
//! Each test runs in a mount namespace of its own: the test program starts itself again below unshare(1).

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use fuse_backend_rs::api::filesystem::FileSystem;
use pinfold_fuse::serve::serve;
use pinfold_fuse::{Superblock, attach, default_threads, remove_dead};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use crate::ground::{eventually, ground, skip};

const INSIDE: &str = "PINFOLD_TEST_INSIDE";
const SERVE: &str = "PINFOLD_TEST_SERVE";

/// True in the namespace. Outside, runs the test of this name there and gives false.
fn inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    if !rustix::process::geteuid().is_root() {
        skip::<()>("only root has mount namespaces");
        return false;
    }
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private"])
        .arg(program)
        .args(["--exact", &format!("places::{test}")]);
    let output = command.env(INSIDE, "1").stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    false
}

/// A directory of a test's own, and whatever is mounted there.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("pinfold-u-{name}-{} x", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn is_dead(&self) -> bool {
        let use_it = rustix::fs::open(self.0.join("file"), rustix::fs::OFlags::RDONLY, 0.into());
        use_it.err() == Some(Errno::NOTCONN)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        while rustix::mount::unmount(&self.0, UnmountFlags::DETACH).is_ok() {}
        fs::remove_dir(&self.0).ok();
    }
}

fn mounts_at(dir: &Path) -> Vec<String> {
    let shown = dir.display().to_string().replace(' ', "\\040");
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    mounts.lines().filter(|line| line.split(' ').nth(1) == Some(&shown)).map(str::to_owned).collect()
}

#[test]
fn a_mount_is_shown_as_cgroup_at_its_place_and_stopping_takes_it_away() {
    if !inside("a_mount_is_shown_as_cgroup_at_its_place_and_stopping_takes_it_away") {
        return;
    }
    let Some(ground) = ground() else { return };
    let (place, client) = (Place::new("at"), Place::new("client"));
    ground.mounts.at(&ground.what("freezer"), &place.0).unwrap();
    let [line] = &mounts_at(&place.0)[..] else { panic!("one mount") };
    let fields: Vec<&str> = line.split(' ').collect();
    assert_eq!((fields[0], fields[2]), ("freezer", "fuse.cgroup"));
    assert!(fields[3].starts_with("rw,nosuid,nodev,noexec,relatime,"), "{line}");
    assert!(fields[3].contains("default_permissions") && fields[3].contains("allow_other"), "{line}");
    assert!(place.0.join("tasks").is_file());

    // A client puts a detached mount of the same hierarchy elsewhere.
    let fd = ground.mounts.detached(&ground.what("freezer")).unwrap();
    attach(fd, &client.0).unwrap();
    fs::create_dir(client.0.join("g")).unwrap();
    eventually("both show the group", || place.0.join("g").is_dir());
    fs::remove_dir(client.0.join("g")).unwrap();
    let mut places: Vec<_> = ground.mounts.list().unwrap().into_iter().flat_map(|info| info.places).collect();
    places.sort_unstable();
    assert_eq!(places, [place.0.clone(), client.0.clone()]);

    let mut user = File::open(place.0.join("tasks")).unwrap();
    ground.mounts.stop().unwrap();
    assert!(mounts_at(&place.0).is_empty() && mounts_at(&client.0).is_empty());
    let read = user.read(&mut [0; 8]).unwrap_err();
    assert_eq!(Errno::from_io_error(&read), Some(Errno::NOTCONN));
}

#[test]
fn unmounting_lets_the_hierarchy_go_when_its_last_user_leaves() {
    if !inside("unmounting_lets_the_hierarchy_go_when_its_last_user_leaves") {
        return;
    }
    let Some(ground) = ground() else { return };
    let place = Place::new("umount");
    ground.mounts.at(&ground.what("none,name=umount"), &place.0).unwrap();
    let mut user = File::open(place.0.join("cgroup.procs")).unwrap();
    let busy = rustix::mount::unmount(&place.0, UnmountFlags::empty());
    assert_eq!(busy.err(), Some(Errno::BUSY));
    rustix::mount::unmount(&place.0, UnmountFlags::DETACH).unwrap();
    user.read_exact(&mut []).unwrap();
    assert!(user.read(&mut [0; 8]).is_ok(), "it is served until its last user leaves");
    assert_eq!(ground.realm.hierarchies().len(), 1);
    drop(user);
    eventually("the hierarchy goes", || ground.realm.hierarchies().is_empty());
}

#[test]
fn a_place_that_cannot_be_mounted_on_leaves_nothing() {
    if !inside("a_place_that_cannot_be_mounted_on_leaves_nothing") {
        return;
    }
    let Some(ground) = ground() else { return };
    let error = ground.mounts.at(&ground.what("freezer"), Path::new("/nonexistent")).unwrap_err();
    assert_eq!(error.to_string(), "nothing can be mounted at /nonexistent");
    eventually("the hierarchy goes", || ground.realm.hierarchies().is_empty());
    assert!(ground.mounts.list().unwrap().is_empty());
}

/// Refuses everything.
struct Refusal;

impl FileSystem for Refusal {
    type Inode = u64;
    type Handle = u64;
}

/// Mounts at a directory and serves there, in a process that is then killed.
fn dead_mount_at(dir: &Path) {
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new(program);
    command.args(["--exact", "places::a_process_serves_until_it_is_killed"]).env(SERVE, dir);
    let before = mounts_at(dir).len();
    let mut server = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    eventually("it is mounted", || mounts_at(dir).len() > before || server.try_wait().unwrap().is_some());
    server.kill().unwrap();
    server.wait().unwrap();
}

/// What [`dead_mount_at`] starts. By itself it serves a mount that nobody puts anywhere, which ends at once.
#[test]
fn a_process_serves_until_it_is_killed() {
    if !rustix::process::geteuid().is_root() {
        skip::<()>("only root makes mounts");
        return;
    }
    let (superblock, fd) = Superblock::detached("test").unwrap();
    let serving = serve(Arc::new(superblock.device), Refusal, default_threads(), || ()).unwrap();
    match std::env::var_os(SERVE) {
        Some(dir) => attach(fd, Path::new(&dir)).unwrap(),
        None => drop(fd),
    }
    serving.join();
}

/// A daemon that stopped a mount that was gone ended a mount of another daemon, which had got its number.
#[test]
fn the_end_of_a_mount_is_not_that_of_a_later_one_with_its_number() {
    if !rustix::process::geteuid().is_root() {
        skip::<()>("only root makes mounts");
        return;
    }
    let is_alive = |superblock: &Superblock| {
        let mut wanted = [PollFd::new(&superblock.device, PollFlags::empty())];
        rustix::event::poll(&mut wanted, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap();
        !wanted[0].revents().contains(PollFlags::ERR)
    };
    // The lowest number that is free is the next to be used; other programs may be faster.
    let (first, later) = (0..100)
        .find_map(|_| {
            let (first, fd) = Superblock::detached("first").unwrap();
            assert!(is_alive(&first));
            drop(fd);
            eventually("the first is gone", || !is_alive(&first));
            let later: Vec<_> = (0..8).map(|_| Superblock::detached("later").unwrap()).collect();
            let used_again = later.iter().any(|(later, _)| later.connection == first.connection);
            used_again.then_some((first, later))
        })
        .expect("a number is used again");
    first.abort.abort();
    assert!(later.iter().all(|(later, _)| is_alive(later)));
    let (one, _) = &later[0];
    assert!(one.abort.abort());
    assert!(!is_alive(one));
}

#[test]
fn what_a_killed_daemon_left_is_removed_and_nothing_else() {
    if !inside("what_a_killed_daemon_left_is_removed_and_nothing_else") {
        return;
    }
    let place = Place::new("dead");
    assert!(!remove_dead(&place.0).unwrap(), "nothing is mounted");
    assert!(!remove_dead(&place.0.join("none")).unwrap(), "nothing is there");
    dead_mount_at(&place.0);
    assert!(place.is_dead());
    let link = place.0.with_extension("link");
    std::os::unix::fs::symlink(place.0.parent().unwrap(), &link).unwrap();
    let by_link = link.join(place.0.file_name().unwrap());
    assert!(remove_dead(&by_link).unwrap(), "reached by way of a symbolic link");
    fs::remove_file(&link).unwrap();
    assert!(mounts_at(&place.0).is_empty());

    dead_mount_at(&place.0);
    let tmpfs = rustix::mount::mount("none", &place.0, "tmpfs", rustix::mount::MountFlags::empty(), None);
    tmpfs.unwrap();
    assert!(!remove_dead(&place.0).unwrap(), "what lies on it is not ours");
    assert_eq!(mounts_at(&place.0).len(), 2);
    rustix::mount::unmount(&place.0, UnmountFlags::DETACH).unwrap();
    assert!(remove_dead(&place.0).unwrap());

    let Some(ground) = ground() else { return };
    ground.mounts.at(&ground.what("freezer"), &place.0).unwrap();
    assert!(!remove_dead(&place.0).unwrap(), "it is alive");
    assert!(place.0.join("tasks").is_file());
}
