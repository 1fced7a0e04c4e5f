//! The tracker on a real v2 tree.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use crate::ground::{Ground, Process, cell, dir, next, until};
use pinfold_kernel::{
    Cause, CloseError, Event, Events, Membership, MembershipError, OpenError, Place, ReadError, Step, Tree,
    Where,
};
use pinfold_model::{Dir, Errno, HostPid};

fn make(path: &str) -> Step {
    Step::Make(dir(path))
}

fn enter(process: HostPid, path: &str) -> Step {
    Step::Move { process, to: Place::Dir(dir(path)) }
}

fn write(path: &str, file: &'static str, text: &str) -> Step {
    Step::Write { dir: dir(path), file, text: text.into() }
}

fn place(tree: &Tree, process: HostPid) -> String {
    match tree.membership(process).unwrap() {
        Membership::Inside(cell, dir) => format!("{cell}: {dir}"),
        Membership::Outside(path) => path.into_string().unwrap(),
    }
}

#[test]
fn children_are_born_in_the_cell_of_their_parent() {
    let Some(ground) = Ground::new() else { return };
    let tree = ground.open("r", &[]);
    let mut shell = Process::run("sh", &["-c", "read go; sleep 600 & echo $!; wait"]);
    tree.carry_out(&[make("spine.1"), make("spine.1/cell.2"), enter(shell.pid(), "spine.1/cell.2")]).unwrap();
    shell.go();
    let child = shell.number();
    assert_eq!(place(&tree, child), "2: spine.1/cell.2");
    let mut both = vec![shell.pid(), child];
    both.sort();
    assert_eq!(tree.processes(&dir("spine.1/cell.2")).unwrap(), both);
    tree.kill(&dir("spine.1")).unwrap();
    shell.end();
}

#[test]
fn a_failed_step_undoes_all_before_it() {
    let Some(ground) = Ground::new() else { return };
    let tree = ground.open("r", &[]);
    let process = Process::sleep();
    let origin = place(&tree, process.pid());
    tree.carry_out(&[make("spine.1"), make("cell.9"), write("spine.1", "cgroup.max.depth", "7")]).unwrap();
    let before = ground.listing();
    let error = tree
        .carry_out(&[
            make("spine.1"),
            make("spine.1/spine.2"),
            make("spine.1/spine.2/cell.3"),
            write("spine.1", "cgroup.max.depth", "5"),
            enter(process.pid(), "spine.1/spine.2/cell.3"),
            enter(process.pid(), "cell.9"),
            write("cell.9", "cgroup.max.depth", "junk"),
            make("cell.10"),
        ])
        .unwrap_err();
    assert_eq!((error.step, error.errno()), (6, Errno::EINVAL));
    assert!(error.not_undone.is_empty(), "{error}");
    let told = error.to_string();
    assert!(told.contains("cell.9/cgroup.max.depth: write \"junk\": "), "{told}");
    assert_eq!(ground.listing(), before);
    assert_eq!(place(&tree, process.pid()), origin);
    assert_eq!(ground.content("pinfold.r/spine.1/cgroup.max.depth"), "7\n");
}

#[test]
fn what_cannot_be_undone_is_told() {
    let Some(ground) = Ground::new() else { return };
    let tree = ground.open("r", &[]);
    tree.carry_out(&[make("cell.1")]).unwrap();
    // A directory cannot be made a domain again once it is threaded.
    let error =
        tree.carry_out(&[write("cell.1", "cgroup.type", "threaded"), make("spine.2/cell.3")]).unwrap_err();
    assert_eq!(error.errno(), Errno::ENODEV);
    let told = error.to_string();
    let undo = "cell.1/cgroup.type: write \"domain\": ";
    assert!(told.contains("\nnot undone: ") && told.contains(undo), "{told}");
}

#[test]
fn a_leaf_with_a_process_is_not_removed() {
    let Some(ground) = Ground::new() else { return };
    let tree = ground.open("r", &[]);
    let process = Process::sleep();
    tree.carry_out(&[make("cell.1"), enter(process.pid(), "cell.1")]).unwrap();
    let error = tree
        .carry_out(&[make("cell.2"), enter(process.pid(), "cell.2"), Step::Remove(dir("cell.2"))])
        .unwrap_err();
    assert!(matches!(&error.cause, Cause::Busy { path } if path.ends_with("pinfold.r/cell.2")), "{error}");
    assert_eq!((error.errno(), error.not_undone.len()), (Errno::EBUSY, 0));
    assert_eq!(place(&tree, process.pid()), "1: cell.1");
    assert_eq!(ground.listing(), ["pinfold.r", "pinfold.r/cell.1"]);
}

#[test]
fn undo_of_a_process_that_exited_is_no_error() {
    let Some(ground) = Ground::new() else { return };
    let tree = ground.open("r", &[]);
    let process = Process::sleep();
    let pid = process.pid();
    tree.carry_out(&[make("cell.1"), enter(pid, "cell.1")]).unwrap();
    process.end();
    let error = tree.carry_out(&[enter(pid, "cell.1"), make("cell.2")]).unwrap_err();
    assert!(matches!(error.cause, Cause::NoProcess(gone) if gone == pid), "{error}");
    assert_eq!((error.step, error.errno()), (0, Errno::ESRCH));
    let last = tree.carry_out(&[enter(pid, "cell.1")]).unwrap_err();
    assert!(matches!(last.cause, Cause::NoProcess(_)), "{last}");
}

#[test]
fn a_removed_directory_is_an_error_of_its_own() {
    let Some(ground) = Ground::new() else { return };
    let tree = ground.open("r", &[]);
    let process = Process::sleep();
    let gone = |steps: &[Step]| {
        let error = tree.carry_out(steps).unwrap_err();
        assert!(matches!(error.cause, Cause::Gone { .. }), "{error}");
        assert_eq!(error.errno(), Errno::ENODEV);
    };
    gone(&[enter(process.pid(), "cell.1")]);
    gone(&[write("cell.1", "cgroup.freeze", "1")]);
    gone(&[make("spine.1/cell.1")]);
    gone(&[Step::Move { process: process.pid(), to: Place::Outside(OsString::from("/no/such")) }]);
    gone(&[Step::Move { process: process.pid(), to: Place::Outside(OsString::from("/../above")) }]);
    assert!(matches!(tree.read(&dir("cell.1"), "cgroup.procs"), Err(ReadError::Gone { .. })));
    assert!(matches!(tree.processes(&dir("cell.1")), Err(ReadError::Gone { .. })));
    assert!(matches!(tree.threads(&dir("cell.1")), Err(ReadError::Gone { .. })));
    assert!(matches!(tree.events(&dir("cell.1")), Err(ReadError::Gone { .. })));
    assert!(matches!(tree.kill(&dir("cell.1")), Err(ReadError::Gone { .. })));
    assert!(
        tree.watch().unwrap().add(&dir("cell.1"), cell(1)).is_err_and(|error| error.errno() == Errno::ENODEV)
    );
}

#[test]
fn a_missing_file_is_not_a_removed_directory() {
    let Some(ground) = Ground::new() else { return };
    let tree = ground.open("r", &[]);
    tree.carry_out(&[make("cell.1")]).unwrap();
    let error = tree.read(&dir("cell.1"), "pids.no_such").unwrap_err();
    assert!(matches!(&error, ReadError::NoFile { path } if path.ends_with("cell.1/pids.no_such")), "{error}");
    assert_eq!(error.errno(), Errno::ENOENT);
    assert!(matches!(tree.read(Where::Base, "no_such"), Err(ReadError::NoFile { .. })));
    assert!(tree.read(Where::Base, "cpu.stat").unwrap().contains("usage_usec"));
    assert!(
        tree.read(&dir("cell.1"), "../../cgroup.procs").is_ok(),
        "a path that stays below the base is allowed"
    );
    assert!(tree.read(Where::Base, "../cgroup.procs").is_err(), "and never one that leaves it");
}

#[test]
fn a_directory_that_somebody_made_below_a_leaf_is_part_of_the_cell() {
    let Some(ground) = Ground::new() else { return };
    let tree = ground.open("r", &[]);
    let (inner, outer) = (Process::sleep(), Process::sleep());
    tree.carry_out(&[make("cell.1"), enter(outer.pid(), "cell.1")]).unwrap();
    let below = ground.base.join("pinfold.r/cell.1/somebody/cell.5");
    fs::create_dir_all(&below).unwrap();
    fs::write(below.join("cgroup.procs"), inner.pid().to_string()).unwrap();
    assert_eq!(place(&tree, inner.pid()), "1: cell.1");
    let mut both = vec![inner.pid(), outer.pid()];
    both.sort();
    assert_eq!(tree.processes(&dir("cell.1")).unwrap(), both);
    assert_eq!(tree.threads(&dir("cell.1")).unwrap(), both);
    assert_eq!(tree.dirs(), [dir("cell.1")]);

    let busy = tree.carry_out(&[Step::Remove(dir("cell.1"))]).unwrap_err();
    assert!(matches!(&busy.cause, Cause::Busy { path } if path.ends_with("pinfold.r/cell.1")), "{busy}");
    inner.end();
    outer.end();
    tree.carry_out(&[Step::Remove(dir("cell.1"))]).unwrap();
    assert_eq!(ground.listing(), ["pinfold.r"]);
    tree.carry_out(&[Step::Remove(dir("cell.1"))]).unwrap();
}

#[test]
fn removing_a_spine_directory_never_takes_the_realms_own_with_it() {
    let Some(ground) = Ground::new() else { return };
    let tree = ground.open("r", &[]);
    tree.carry_out(&[make("spine.1"), make("spine.1/cell.2")]).unwrap();
    fs::create_dir_all(ground.base.join("pinfold.r/spine.1/somebody/else")).unwrap();
    let busy = tree.carry_out(&[Step::Remove(dir("spine.1"))]).unwrap_err();
    assert!(matches!(busy.cause, Cause::Busy { .. }), "{busy}");
    assert!(ground.listing().contains(&"pinfold.r/spine.1/cell.2".to_owned()));
    tree.carry_out(&[Step::Remove(dir("spine.1/cell.2")), Step::Remove(dir("spine.1"))]).unwrap();
    assert_eq!(ground.listing(), ["pinfold.r"]);
}

#[test]
fn every_thread_of_a_process_moves_with_it() {
    let Some(ground) = Ground::new() else { return };
    let tree = ground.open("r", &[]);
    let script = "import threading, time\nt = threading.Thread(target=time.sleep, args=(600,))\nt.start()\n\
        print(t.native_id, flush=True)\n";
    let mut process = Process::run("python3", &["-c", script]);
    let thread = process.number();
    // Any task stands for its whole process.
    tree.carry_out(&[make("cell.1"), enter(thread, "cell.1")]).unwrap();
    assert_eq!(tree.processes(&dir("cell.1")).unwrap(), [process.pid()]);
    let mut tasks = vec![process.pid(), thread];
    tasks.sort();
    assert_eq!(tree.threads(&dir("cell.1")).unwrap(), tasks);
    assert_eq!(place(&tree, thread), "1: cell.1");
    let (pinned, standing) = pinfold_kernel::pins::Pins::default().open(thread).unwrap();
    assert_eq!(pinned.process(), process.pid());
    assert_eq!(tree.membership_of(&pinned, &standing).unwrap(), Membership::Inside(cell(1), dir("cell.1")));
}

#[test]
fn directories_are_listed_the_deepest_first() {
    let Some(ground) = Ground::new() else { return };
    let tree = ground.open("r", &[]);
    tree.carry_out(
        &["spine.2", "spine.2/cell.3", "spine.2/spine.4", "spine.2/spine.4/cell.1", "cell.7"].map(make),
    )
    .unwrap();
    fs::create_dir(ground.base.join("pinfold.r/stranger")).unwrap();
    fs::create_dir(ground.base.join("pinfold.r/spine.007")).unwrap();
    let listed: Vec<_> = tree.dirs().iter().map(Dir::to_string).collect();
    assert_eq!(listed, ["spine.2/spine.4/cell.1", "spine.2/cell.3", "spine.2/spine.4", "cell.7", "spine.2"]);
}

#[test]
fn a_realm_directory_that_vanished_is_made_again() {
    let Some(ground) = Ground::new() else { return };
    let tree = ground.open("r", &[]);
    fs::remove_dir(ground.base.join("pinfold.r")).unwrap();
    assert!(tree.dirs().is_empty());
    tree.carry_out(&[make("spine.1"), make("spine.1/cell.1")]).unwrap();
    assert_eq!(ground.listing(), ["pinfold.r", "pinfold.r/spine.1", "pinfold.r/spine.1/cell.1"]);
}

#[test]
fn an_empty_populated_or_frozen_cell_is_told_without_asking() {
    let Some(ground) = Ground::new() else { return };
    let tree = ground.open("r", &[]);
    let watch = tree.watch().unwrap();
    let leaf = dir("cell.1");
    tree.carry_out(&[make("cell.1"), make("cell.2")]).unwrap();
    watch.add(&leaf, cell(1)).unwrap();
    watch.add(&dir("cell.2"), cell(2)).unwrap();
    assert_eq!(tree.events(&leaf).unwrap(), Events { populated: false, frozen: false });

    let process = Process::sleep();
    tree.carry_out(&[enter(process.pid(), "cell.1")]).unwrap();
    assert_eq!(next(&watch), Event::Changed(cell(1)));
    tree.carry_out(&[write("cell.1", "cgroup.freeze", "1")]).unwrap();
    until(&tree, &watch, &leaf, |events| events.frozen);
    tree.carry_out(&[write("cell.1", "cgroup.freeze", "0")]).unwrap();
    until(&tree, &watch, &leaf, |events| !events.frozen);
    tree.kill(&leaf).unwrap();
    until(&tree, &watch, &leaf, |events| !events.populated);
    assert!(tree.processes(&leaf).unwrap().is_empty(), "a zombie is no member");
    assert_eq!(place(&tree, process.pid()), "1: cell.1");

    watch.remove(cell(1));
    watch.remove(cell(1));
    tree.carry_out(&[Step::Remove(leaf)]).unwrap();
    assert_eq!(place(&tree, process.pid()), "1: cell.1", "a zombie outlives its leaf");
    let other = Process::sleep();
    tree.carry_out(&[enter(other.pid(), "cell.2")]).unwrap();
    assert_eq!(next(&watch), Event::Changed(cell(2)));
    watch.stopper().stop();
    let mut last = next(&watch);
    while last != Event::Stopped {
        last = next(&watch);
    }
    assert_eq!(next(&watch), Event::Stopped);
}

#[test]
fn a_file_that_tells_of_a_limit_is_watched_while_it_is_wanted() {
    let Some(ground) = Ground::new() else { return };
    let tree = ground.open("r", &[]);
    let watch = tree.watch().unwrap();
    tree.carry_out(&[make("cell.1"), make("cell.2")]).unwrap();
    let file = |name| (dir(name), "cgroup.events");
    let (one, two) = (Process::sleep(), Process::sleep());
    watch.set_pressed(&HashSet::from([file("cell.1"), file("cell.9")]));
    tree.carry_out(&[enter(one.pid(), "cell.1")]).unwrap();
    assert_eq!(next(&watch), Event::Pressed);
    watch.set_pressed(&HashSet::from([file("cell.2")]));
    tree.carry_out(&[enter(one.pid(), "cell.2")]).unwrap();
    assert_eq!(next(&watch), Event::Pressed);
    watch.set_pressed(&HashSet::new());
    tree.carry_out(&[enter(two.pid(), "cell.1")]).unwrap();
    watch.add(&dir("cell.1"), cell(1)).unwrap();
    tree.carry_out(&[enter(two.pid(), "cell.2")]).unwrap();
    assert_eq!(next(&watch), Event::Changed(cell(1)), "what is not wanted any more is not told");
}

#[test]
fn the_scope_is_what_is_below_the_base_and_in_no_cell() {
    let Some(ground) = Ground::new() else { return };
    let tree = ground.open("r", &[]);
    let (free, deep, celled, outside) =
        (Process::sleep(), Process::sleep(), Process::sleep(), Process::sleep());
    let elsewhere = ground.base.join("elsewhere/cell.4");
    fs::create_dir_all(&elsewhere).unwrap();
    fs::write(elsewhere.join("cgroup.procs"), deep.pid().to_string()).unwrap();
    tree.carry_out(&[Step::Move { process: free.pid(), to: Place::Scope }]).unwrap();
    tree.carry_out(&[make("spine.1"), make("spine.1/cell.2"), enter(celled.pid(), "spine.1/cell.2")])
        .unwrap();
    let mut expected = vec![free.pid(), deep.pid()];
    expected.sort();
    assert_eq!(tree.scope_processes().unwrap(), expected);
    assert_eq!(tree.scope_threads().unwrap(), expected);
    assert_eq!(place(&tree, free.pid()), ground.shown());
    drop(outside);
}

#[test]
fn a_process_goes_back_to_where_it_came_from() {
    let Some(ground) = Ground::new() else { return };
    let tree = ground.open("r", &[]);
    let process = Process::sleep();
    let home = ground.base.join("home sweet");
    fs::create_dir(&home).unwrap();
    fs::write(home.join("cgroup.procs"), process.pid().to_string()).unwrap();
    let Membership::Outside(origin) = tree.membership(process.pid()).unwrap() else {
        panic!("in no cell yet")
    };
    assert_eq!(origin.to_str().unwrap(), format!("{}/home sweet", ground.shown()));
    tree.carry_out(&[make("cell.1"), enter(process.pid(), "cell.1")]).unwrap();
    assert_eq!(place(&tree, process.pid()), "1: cell.1");
    tree.carry_out(&[Step::Move { process: process.pid(), to: Place::Outside(origin.clone()) }]).unwrap();
    assert_eq!(place(&tree, process.pid()), origin.to_str().unwrap());
}

#[test]
fn a_process_in_the_realm_directory_but_in_no_cell_is_outside() {
    let Some(ground) = Ground::new() else { return };
    let tree = ground.open("r", &[]);
    let process = Process::sleep();
    tree.carry_out(&[make("spine.1"), enter(process.pid(), "spine.1")]).unwrap();
    assert_eq!(place(&tree, process.pid()), format!("{}/pinfold.r/spine.1", ground.shown()));
    assert_eq!(tree.scope_processes().unwrap(), [process.pid()]);
    // Names that only begin alike are not the realm's.
    let like = ground.base.join("pinfold.realm/cell.1");
    fs::create_dir_all(&like).unwrap();
    fs::write(like.join("cgroup.procs"), process.pid().to_string()).unwrap();
    assert_eq!(place(&tree, process.pid()), format!("{}/pinfold.realm/cell.1", ground.shown()));
}

#[test]
fn close_leaves_nothing_behind() {
    let Some(ground) = Ground::new() else { return };
    let tree = ground.open("r", &["hugetlb", "pids"]);
    tree.carry_out(&[make("spine.1"), make("spine.1/cell.2"), make("cell.3")]).unwrap();
    fs::create_dir_all(ground.base.join("pinfold.r/cell.3/a/b")).unwrap();
    tree.close().unwrap();
    assert_eq!(ground.listing(), [""; 0]);
    tree.close().unwrap();
}

#[test]
fn close_refuses_to_leave_processes_in_cells() {
    let Some(ground) = Ground::new() else { return };
    let tree = ground.open("r", &[]);
    let process = Process::sleep();
    tree.carry_out(&[make("cell.3"), enter(process.pid(), "cell.3")]).unwrap();
    let error = tree.close().unwrap_err();
    assert!(
        matches!(&error, CloseError::Populated { first } if first.ends_with("pinfold.r/cell.3")),
        "{error}"
    );
    assert_eq!(error.errno(), Errno::EBUSY);
    assert_eq!(place(&tree, process.pid()), "3: cell.3");
    process.end();
    tree.close().unwrap();
}

#[test]
fn a_realm_finds_its_directories_again() {
    let Some(ground) = Ground::new() else { return };
    let process = Process::sleep();
    let first = ground.open("r", &[]);
    first
        .carry_out(&[make("spine.1"), make("spine.1/cell.2"), enter(process.pid(), "spine.1/cell.2")])
        .unwrap();
    drop(first);
    let second = ground.open("r", &[]);
    assert_eq!(second.dirs(), [dir("spine.1/cell.2"), dir("spine.1")]);
    assert_eq!(place(&second, process.pid()), "2: spine.1/cell.2");
    let other = ground.open("other", &[]);
    assert!(other.dirs().is_empty());
    assert_eq!(other.scope_processes().unwrap(), [process.pid()]);
}

#[test]
fn a_bad_name_or_base_is_refused() {
    let Some(ground) = Ground::new() else { return };
    let open = |base: &Path, realm: &str| Tree::open(&ground.mount, Some(base), realm, &[]).unwrap_err();
    for name in ["", "rest", "a/b", "a\nb", "a\0b"] {
        assert!(matches!(open(&ground.base, name), OpenError::Name(_)), "{name:?}");
    }
    assert!(matches!(open(Path::new("/tmp"), "r"), OpenError::NotInTree { .. }));
    assert!(matches!(open(Path::new("/no/such"), "r"), OpenError::System { .. }));
    assert_eq!(open(&ground.base.join("none"), "r").errno(), Errno::ENOENT);
    assert_eq!(ground.listing(), [""; 0]);
}

#[test]
fn nobody_has_no_place() {
    let Some(ground) = Ground::new() else { return };
    let tree = ground.open("r", &[]);
    let process = Process::sleep();
    let pid = process.pid();
    process.end();
    let error = tree.membership(pid).unwrap_err();
    assert!(matches!(error, MembershipError::NoProcess(gone) if gone == pid), "{error}");
    assert_eq!(error.errno(), Errno::ESRCH);
}
