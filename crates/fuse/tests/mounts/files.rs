//! A mounted hierarchy as programs see it: errnos, attributes, reading in pieces, and that the kernel's cache is right.
//! Errnos: differential/README.md.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, XattrFlags};
use rustix::io::Errno;

use crate::ground::{elsewhere, eventually, ground};

fn errno<T>(result: rustix::io::Result<T>) -> Option<Errno> {
    result.err()
}

fn io_errno<T>(result: io::Result<T>) -> Option<Errno> {
    result.err().map(|error| Errno::from_io_error(&error).unwrap())
}

fn mkdir(path: &Path) -> Option<Errno> {
    errno(rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)))
}

fn rename(from: &Path, to: &Path, flags: RenameFlags) -> Option<Errno> {
    errno(rustix::fs::renameat_with(CWD, from, CWD, to, flags))
}

#[test]
fn what_no_cgroup_file_system_has_is_refused_with_the_kernels_errno() {
    let Some(ground) = ground() else { return };
    let m = ground.mount("freezer");
    let (new, tasks) = (m.at("new"), m.at("tasks"));
    let open = rustix::fs::open(&new, OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o644));
    assert_eq!(errno(open), Some(Errno::ACCESS), "create");
    let fifo = rustix::fs::mknodat(CWD, &new, FileType::Fifo, Mode::from_raw_mode(0o644), 0);
    assert_eq!(errno(fifo), Some(Errno::PERM), "mknod");
    assert_eq!(errno(rustix::fs::symlink("x", &new)), Some(Errno::PERM), "symlink");
    assert_eq!(errno(rustix::fs::link(&tasks, &new)), Some(Errno::PERM), "link");
    assert_eq!(errno(rustix::fs::unlink(&tasks)), Some(Errno::PERM), "unlink");
    assert_eq!(errno(rustix::fs::rmdir(&tasks)), Some(Errno::NOTDIR), "rmdir");
    assert_eq!(rename(&tasks, &new, RenameFlags::empty()), Some(Errno::NOTDIR), "rename of a control file");
    assert_eq!(io_errno(fs::metadata(&new)), Some(Errno::NOENT));
}

#[test]
fn groups_are_made_named_and_removed_with_the_kernels_errnos() {
    let Some(ground) = ground() else { return };
    let m = ground.mount("freezer");
    for path in ["a", "b", "a/c"] {
        assert_eq!(mkdir(&m.at(path)), None, "{path}");
    }
    assert_eq!(mkdir(&m.at("a")), Some(Errno::EXIST));
    assert_eq!(mkdir(&m.at("a/freezer.state")), Some(Errno::EXIST));
    assert_eq!(mkdir(&m.at("x\ny")), Some(Errno::INVAL));
    assert_eq!(mkdir(&m.at("x".repeat(255))), None);
    assert_eq!(mkdir(&m.at(OsStr::from_bytes(b"\xff\xfe"))), None);
    assert!(fs::metadata(m.at(OsStr::from_bytes(b"\xff\xfe")).join("tasks")).unwrap().is_file());

    let plain = RenameFlags::empty();
    assert_eq!(rename(&m.at("a/c"), &m.at("c"), plain), Some(Errno::IO), "to another parent");
    assert_eq!(rename(&m.at("a"), &m.at("b"), plain), Some(Errno::EXIST));
    assert_eq!(rename(&m.at("b"), &m.at("d"), RenameFlags::NOREPLACE), Some(Errno::INVAL));
    assert_eq!(rename(&m.at("b"), &m.at("a"), RenameFlags::EXCHANGE), Some(Errno::INVAL));
    assert_eq!(rename(&m.at("b"), &m.at("d"), plain), None);
    assert!(m.at("d").is_dir() && !m.at("b").exists());

    assert_eq!(errno(rustix::fs::rmdir(m.at("a"))), Some(Errno::BUSY), "it has a child");
    assert_eq!(errno(rustix::fs::rmdir(m.at("a/c"))), None);
    assert_eq!(errno(rustix::fs::rmdir(m.at("a"))), None);
    assert_eq!(errno(rustix::fs::rmdir(m.at("a"))), Some(Errno::NOENT));
}

#[test]
fn a_group_shows_its_files_and_children_and_counts_its_links() {
    let Some(ground) = ground() else { return };
    let m = ground.mount("cpuacct,freezer");
    fs::create_dir(m.at("g")).unwrap();
    for child in ["one", "two"] {
        fs::create_dir(m.at("g").join(child)).unwrap();
    }
    let names = m.names("g");
    for name in ["tasks", "cgroup.procs", "cpuacct.usage", "freezer.state", "one", "two"] {
        assert_eq!(names.iter().filter(|found| *found == name).count(), 1, "{name} in {names:?}");
    }
    assert!(!names.iter().any(|name| name == "release_agent"), "only the root has it");
    let dir = fs::metadata(m.at("g")).unwrap();
    assert_eq!((dir.nlink(), dir.mode()), (4, 0o40755));
    fs::remove_dir(m.at("g/one")).unwrap();
    assert_eq!(fs::metadata(m.at("g")).unwrap().nlink(), 3);
    let file = fs::metadata(m.at("g/notify_on_release")).unwrap();
    assert_eq!((file.len(), file.nlink(), file.mode()), (0, 1, 0o100644));
    for entry in fs::read_dir(m.at("g")).unwrap() {
        let entry = entry.unwrap();
        let shown = fs::symlink_metadata(entry.path()).unwrap();
        assert_eq!(
            rustix::fs::FileType::from_raw_mode(shown.mode()).is_dir(),
            entry.file_type().unwrap().is_dir()
        );
    }
    let space = rustix::fs::statfs(m.at("g")).unwrap();
    assert_eq!((space.f_bsize, space.f_blocks), (4096, 0));
}

#[test]
fn owner_mode_and_extended_attributes_are_kept() {
    let Some(ground) = ground() else { return };
    let m = ground.mount("freezer");
    fs::create_dir(m.at("g")).unwrap();
    for path in ["g", "g/tasks"] {
        let path = m.at(path);
        fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        std::os::unix::fs::chown(&path, Some(7), Some(8)).unwrap();
        let now = fs::metadata(&path).unwrap();
        assert_eq!((now.mode() & 0o7777, now.uid(), now.gid()), (0o640, 7, 8));
        for class in ["trusted", "security", "user"] {
            let name = format!("{class}.pinfold");
            rustix::fs::setxattr(&path, name.as_str(), b"value", XattrFlags::CREATE).unwrap();
            let again = rustix::fs::setxattr(&path, name.as_str(), b"value", XattrFlags::CREATE);
            assert_eq!(errno(again), Some(Errno::EXIST));
            let mut value = [0; 16];
            assert_eq!(rustix::fs::getxattr(&path, name.as_str(), &mut value[..]).unwrap(), 5);
            assert_eq!(rustix::fs::getxattr_query(&path, name.as_str()).unwrap(), 5);
            assert_eq!(
                errno(rustix::fs::getxattr(&path, name.as_str(), &mut value[..4])),
                Some(Errno::RANGE)
            );
        }
        let mut list = [0; 256];
        let length = rustix::fs::listxattr(&path, &mut list[..]).unwrap();
        assert_eq!(list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()).count(), 3);
        rustix::fs::removexattr(&path, "user.pinfold").unwrap();
        assert_eq!(errno(rustix::fs::removexattr(&path, "user.pinfold")), Some(Errno::NODATA));
    }
}

#[test]
fn a_control_file_can_be_truncated_and_touched_and_stays_as_it_is() {
    let Some(ground) = ground() else { return };
    let m = ground.mount("freezer");
    fs::create_dir(m.at("g")).unwrap();
    m.write("g/notify_on_release", "1").unwrap();
    let file = File::options().write(true).truncate(true).open(m.at("g/notify_on_release")).unwrap();
    file.set_len(0).unwrap();
    file.set_times(fs::FileTimes::new().set_modified(std::time::SystemTime::now())).unwrap();
    drop(file);
    assert_eq!(m.read("g/notify_on_release"), "1\n");
    assert_eq!(fs::metadata(m.at("g/notify_on_release")).unwrap().len(), 0);
}

#[test]
fn one_write_is_one_change_whatever_its_length_and_place() {
    let Some(ground) = ground() else { return };
    let m = ground.mount("freezer");
    fs::create_dir(m.at("g")).unwrap();
    let file = File::options().read(true).write(true).open(m.at("g/notify_on_release")).unwrap();
    assert_eq!(file.write_at(b"0x1\n", 999).unwrap(), 4, "kernfs ignores the offset");
    assert_eq!(m.read("g/notify_on_release"), "1\n");
    assert_eq!(io_errno((&file).write_all(b"many")), Some(Errno::INVAL));
    assert_eq!((&file).write(b"").unwrap(), 0);
    for length in [4097, 5000, 1 << 20] {
        let mut text = vec![b' '; length];
        text[0] = b'0';
        assert_eq!(io_errno((&file).write(&text)), Some(Errno::TOOBIG), "{length} bytes");
    }
    assert_eq!(m.read("g/notify_on_release"), "1\n");
    let mut appending = File::options().append(true).open(m.at("g/notify_on_release")).unwrap();
    appending.write_all(b"1").unwrap();
    appending.write_all(b"0").unwrap();
    assert_eq!(m.read("g/notify_on_release"), "0\n");
}

#[test]
fn a_list_of_tasks_read_in_pieces_is_one_moment() {
    let Some(mut ground) = ground() else { return };
    let m = ground.mount("none,name=pieces");
    fs::create_dir(m.at("g")).unwrap();
    let mut pids: Vec<u32> = (0..3).map(|_| ground.sleeper()).collect();
    for pid in &pids {
        m.write("g/tasks", &pid.to_string()).unwrap();
    }
    pids.sort_unstable();
    let lines = |pids: &[u32]| pids.iter().map(|pid| format!("{pid}\n")).collect::<String>();
    let whole = lines(&pids);

    let mut file = File::open(m.at("g/tasks")).unwrap();
    let mut start = [0; 2];
    file.read_exact(&mut start).unwrap();
    m.write("tasks", &pids[1].to_string()).unwrap();
    let mut text = String::from_utf8(start.to_vec()).unwrap();
    let mut byte = [0];
    while file.read(&mut byte).unwrap() == 1 {
        text.push(byte[0].into());
    }
    assert_eq!(text, whole, "as it was when reading began");
    file.rewind().unwrap();
    text.clear();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, lines(&[pids[0], pids[2]]), "from the start: as it is now");
}

#[test]
fn the_writer_of_0_is_the_calling_task_and_a_removed_group_is_no_device() {
    let Some(mut ground) = ground() else { return };
    let m = ground.mount("none,name=zero");
    fs::create_dir(m.at("g")).unwrap();
    let tasks = m.at("g/tasks");
    let tasks = tasks.strip_prefix("/proc/self").unwrap();
    // The shell moves itself, and its child is born where it is.
    let tasks = format!("/proc/{}/{}", std::process::id(), tasks.display());
    let script = format!("echo 0 > {tasks} && cat {tasks} && echo $$ && echo done");
    let shell = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
    let said = String::from_utf8(shell.stdout).unwrap();
    let said: Vec<&str> = said.lines().collect();
    let [first, _cat, shell, "done"] = said[..] else { panic!("{said:?}") };
    assert_eq!(first, shell, "the shell is listed, and so is cat");
    let pid = ground.sleeper();
    let open = File::options().read(true).write(true).open(m.at("g/tasks")).unwrap();
    eventually("the group is empty", || rustix::fs::rmdir(m.at("g")).is_ok());
    assert_eq!(io_errno((&open).write(pid.to_string().as_bytes())), Some(Errno::NODEV));
    assert_eq!(io_errno((&open).read(&mut [0; 8])), Some(Errno::NODEV));
    assert_eq!(io_errno(fs::metadata(m.at("g/tasks"))), Some(Errno::NOENT));
}

#[test]
fn what_another_front_end_changes_is_seen_at_once_or_soon() {
    let Some(ground) = ground() else { return };
    let m = ground.mount("freezer");
    let root = ground.realm.root(m.hierarchy).unwrap();
    let name = OsStr::new("g");
    assert_eq!(io_errno(fs::metadata(m.at("g"))), Some(Errno::NOENT), "and the kernel remembers that");
    assert_eq!(fs::metadata(m.at(".")).unwrap().nlink(), 2);
    ground.realm.make(&elsewhere(), root, name, 0o700).unwrap();
    eventually("the new group is seen", || m.at("g").is_dir());
    eventually("and counted", || fs::metadata(m.at(".")).unwrap().nlink() == 3);
    assert!(m.at("g/tasks").is_file());
    ground.realm.rename(&elsewhere(), root, name, root, OsStr::new("h")).unwrap();
    eventually("under its new name", || m.at("h").is_dir() && !m.at("g").exists());
    ground.realm.remove(&elsewhere(), root, OsStr::new("h")).unwrap();
    eventually("and it has gone", || !m.at("h").exists() && !m.at("h/tasks").exists());
}

#[test]
fn two_mounts_of_a_hierarchy_show_the_same() {
    let Some(ground) = ground() else { return };
    let (one, other) = (ground.mount("freezer"), ground.mount("freezer"));
    assert_eq!(one.hierarchy, other.hierarchy);
    for (here, there) in [(&one, &other), (&other, &one)] {
        assert!(!here.at("g").exists() && !there.at("g").exists());
        fs::create_dir(here.at("g")).unwrap();
        assert!(here.at("g").is_dir());
        eventually("the other mount sees it", || there.at("g").is_dir());
        fs::set_permissions(here.at("g"), PermissionsExt::from_mode(0o711)).unwrap();
        eventually("and its mode", || fs::metadata(there.at("g")).unwrap().mode() & 0o777 == 0o711);
        fs::remove_dir(here.at("g")).unwrap();
        eventually("and that it has gone", || !there.at("g").exists());
    }
}

#[test]
fn every_survivor_is_listed_once_while_groups_come_and_go() {
    let Some(ground) = ground() else { return };
    let m = ground.mount("none,name=listing");
    let name = |number: u32| format!("group-{number:03}");
    for number in 0..400 {
        fs::create_dir(m.at(name(number))).unwrap();
    }
    // A small buffer: many requests for one listing.
    let mut buffer = Vec::with_capacity(512);
    let dir = rustix::fs::open(m.at("."), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let mut entries = rustix::fs::RawDir::new(&dir, buffer.spare_capacity_mut());
    let mut seen = Vec::new();
    let mut step = 0;
    while let Some(entry) = entries.next() {
        seen.push(entry.unwrap().file_name().to_str().unwrap().to_owned());
        if seen.len() % 8 == 0 && step < 100 {
            fs::remove_dir(m.at(name(step * 4))).unwrap();
            fs::create_dir(m.at(format!("late-{step}"))).unwrap();
            step += 1;
        }
    }
    assert!(step > 10, "the listing took one request: nothing came or went in between");
    for number in (0..400).filter(|number| number % 4 != 0) {
        assert_eq!(seen.iter().filter(|found| **found == name(number)).count(), 1, "{number}");
    }
    let mut unique = seen.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), seen.len());
}

#[test]
fn a_control_file_is_always_ready_and_has_changed_until_it_is_read() {
    let Some(ground) = ground() else { return };
    let m = ground.mount("freezer");
    let file = File::options().read(true).write(true).open(m.at("tasks")).unwrap();
    let polled = || {
        let mut wanted = [PollFd::new(&file, PollFlags::IN | PollFlags::OUT | PollFlags::PRI)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut wanted, Some(&now)).unwrap(), 1);
        wanted[0].revents()
    };
    // Seen so on Linux 6.18's own v1.
    assert_eq!(polled(), PollFlags::IN | PollFlags::OUT | PollFlags::PRI | PollFlags::ERR);
    file.read_at(&mut [0; 1], 0).unwrap();
    assert_eq!(polled(), PollFlags::IN | PollFlags::OUT);
}

#[test]
fn a_stranger_may_only_what_mode_and_owner_say() {
    let Some(ground) = ground() else { return };
    let m = ground.mount("freezer");
    fs::create_dir(m.at("mine")).unwrap();
    std::os::unix::fs::chown(m.at("mine"), Some(12345), Some(12345)).unwrap();
    let root = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(m.fd()));
    // The thread's own credentials: the mount is asked as somebody else would ask.
    let results = std::thread::spawn(move || {
        let at = rustix::fs::open(&root, OFlags::PATH, Mode::empty()).unwrap();
        let (uid, gid) = (rustix::fs::Uid::from_raw(12345), rustix::fs::Gid::from_raw(12345));
        rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
        rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
        let mode = Mode::from_raw_mode(0o755);
        let made =
            [errno(rustix::fs::mkdirat(&at, "g", mode)), errno(rustix::fs::mkdirat(&at, "mine/g", mode))];
        let opened = rustix::fs::openat(&at, "mine/tasks", OFlags::WRONLY, Mode::empty());
        let chmod = rustix::fs::chmodat(&at, "mine/tasks", mode, AtFlags::empty());
        (made, errno(opened), errno(chmod))
    });
    let (made, opened, chmod) = results.join().unwrap();
    assert_eq!(made, [Some(Errno::ACCESS), None]);
    assert_eq!((opened, chmod), (Some(Errno::ACCESS), Some(Errno::PERM)), "the files are their maker's");
    let below = fs::metadata(m.at("mine/g")).unwrap();
    assert_eq!((below.uid(), below.gid()), (12345, 12345));
    assert_eq!(fs::metadata(m.at("mine/g/tasks")).unwrap().uid(), 12345);
}

#[test]
fn a_mount_that_nobody_uses_ends_and_lets_its_hierarchy_go() {
    let Some(ground) = ground() else { return };
    let m = ground.mount("none,name=brief");
    let open = File::open(m.at("tasks")).unwrap();
    drop(m);
    assert_eq!(ground.realm.hierarchies().len(), 1, "an open file holds it");
    drop(open);
    eventually("the hierarchy goes", || ground.realm.hierarchies().is_empty());
    assert!(ground.mounts.list().unwrap().is_empty());
}

#[test]
fn stopping_ends_a_mount_under_its_users() {
    let Some(ground) = ground() else { return };
    let m = ground.mount("none,name=stop");
    let mut open = File::open(m.at("tasks")).unwrap();
    assert_eq!(ground.mounts.list().unwrap().len(), 1);
    ground.mounts.stop().unwrap();
    assert_eq!(io_errno(open.read(&mut [0; 8])), Some(Errno::NOTCONN));
    assert!(ground.mounts.list().unwrap().is_empty());
    assert!(ground.realm.hierarchies().is_empty());
}
