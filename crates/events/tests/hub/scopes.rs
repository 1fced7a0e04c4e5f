//! Scopes: everything, what descends from a process, chosen processes.

use std::collections::HashSet;

use pinfold_events::{Pid, Scope, Time, wire};

use crate::stage::{SYSTEM, Stage};

#[test]
fn a_stream_begins_with_the_hello_and_with_what_is_there() {
    let mut stage = Stage::with(SYSTEM);
    let id = stage.subscribe(None, &Scope::All);
    assert_eq!(stage.hub.take_ready(), [id]);
    assert_eq!(stage.hub.front(id), Some(wire::hello().as_slice()));
    assert_eq!(stage.read(id), "found 0 1 | found 1 2 | found 2 3 | found 3 4 | found 1 5 | synced +5 -0 ~0");
    stage.happens("fork 5 6 | exec 6 ls | uid 6 7 | comm 6 a | exit 6 256");
    assert_eq!(stage.read(id), "fork 5 6 | exec 6 ls | uid 6 7 | comm 6 a | exit 6 256");
    assert_eq!(stage.hub.take_ready(), [id]);
}

#[test]
fn a_subtree_is_what_descends_from_its_root() {
    let mut stage = Stage::with(SYSTEM);
    let id = stage.subscribe(None, &Scope::Subtree(Pid::new(2).unwrap()));
    assert_eq!(stage.read(id), "found 1 2 | found 2 3 | found 3 4 | synced +3 -0 ~0");
    // Outside; inside; a grandchild whose parent is gone.
    stage.happens(
        "fork 5 6 | fork 4 7 | fork 7 8 | exit 7 0 | exec 8 ls | exit 6 0 | fork 8 9 | exit 2 0 | fork 4 10",
    );
    assert_eq!(
        stage.read(id),
        "fork 4 7 | fork 7 8 | exit 7 0 | exec 8 ls | fork 8 9 | exit 2 0 | fork 4 10"
    );
}

#[test]
fn a_subtree_of_nobody_is_empty() {
    let mut stage = Stage::with(SYSTEM);
    let id = stage.subscribe(None, &Scope::Subtree(Pid::new(77).unwrap()));
    stage.happens("fork 5 77 | fork 77 78");
    assert_eq!(stage.read(id), "synced +0 -0 ~0");
}

#[test]
fn a_subtree_may_be_asked_for_before_its_root_is_listed() {
    let mut stage = Stage::default();
    stage.table.untold.insert(2, 0);
    let id = stage.subscribe(None, &Scope::Subtree(Pid::new(2).unwrap()));
    stage.happens("found 0 1 | found 1 2 | found 2 3 | synced");
    assert_eq!(stage.read(id), "found 1 2 | found 2 3 | synced +2 -0 ~0");
    // Another process of that number, found when the root has ended, is not it.
    stage.happens("exit 2 0 | gap | found 1 2' | synced");
    assert_eq!(stage.read(id), "exit 2 0 | gap | synced +0 -0 ~0");
}

#[test]
fn chosen_processes_come_and_go_and_their_children_belong_to_them() {
    let mut stage = Stage::with(SYSTEM);
    let pid = |number| Pid::new(number).unwrap();
    let id = stage.subscribe(None, &Scope::Chosen(vec![pid(3)]));
    assert_eq!(stage.read(id), "found 2 3 | synced +1 -0 ~0");
    stage.happens("fork 3 6 | fork 4 7");
    assert!(
        stage.hub.admit(id, pid(4), Time(1), &mut stage.table)
            && !stage.hub.admit(id, pid(4), Time(1), &mut stage.table)
            && !stage.hub.admit(id, pid(99), Time(1), &mut stage.table)
    );
    assert!(stage.hub.dismiss(id, pid(3), Time(1)) && !stage.hub.dismiss(id, pid(3), Time(1)));
    stage.happens("fork 3 8 | fork 4 9 | exit 6 0 | exit 3 0");
    assert_eq!(stage.read(id), "fork 3 6 | found 3 4 | left 3 | fork 4 9 | exit 6 0");
}

/// An outer pinfold is a little behind, and /proc is polled now and then: such a process was in no subtree and in no group.
#[test]
fn who_is_named_before_it_is_told_of_belongs_to_whoever_named_it() {
    let mut stage = Stage::with(SYSTEM);
    let pid = |number| Pid::new(number).unwrap();
    stage.table.untold.extend([(6, 0), (8, 0), (9, 0)]);
    let subtree = stage.subscribe(None, &Scope::Subtree(pid(6)));
    let chosen = stage.subscribe(None, &Scope::Chosen(vec![pid(3), pid(6)]));
    assert!(!stage.hub.admit(chosen, pid(8), Time(1), &mut stage.table));
    assert!(!stage.hub.admit(chosen, pid(9), Time(1), &mut stage.table));
    assert_eq!(stage.read(chosen), "found 2 3 | synced +1 -0 ~0");
    let told: HashSet<Pid> = stage.hub.told(chosen).into_iter().collect();
    assert_eq!(told, HashSet::from([3, 6, 8, 9].map(pid)), "nobody has to be admitted again");
    assert!(!stage.hub.dismiss(chosen, pid(9), Time(1)));
    stage.happens("fork 5 6 | fork 6 7 | found 1 8 | fork 1 9 | exit 6 0");
    assert_eq!(stage.read(subtree), "synced +0 -0 ~0 | fork 5 6 | fork 6 7 | exit 6 0");
    assert_eq!(stage.read(chosen), "fork 5 6 | fork 6 7 | found 1 8 | exit 6 0");
}

#[test]
fn another_process_with_the_number_of_one_that_was_named_is_not_it() {
    let mut stage = Stage::with(SYSTEM);
    // It started before or long after the one that is told of.
    for ticks in [1, 1_000] {
        stage.table.untold.insert(6, ticks);
        let id = stage.subscribe(None, &Scope::Subtree(Pid::new(6).unwrap()));
        stage.happens("fork 5 6 | exit 6 0");
        assert_eq!(stage.read(id), "synced +0 -0 ~0", "{ticks}");
    }
}

/// Its exit is told after it was taken into the group, and before anybody could be told that it was.
#[test]
fn who_is_expected_and_ends_before_it_is_admitted_is_told_of_with_its_end() {
    let mut stage = Stage::with(SYSTEM);
    let pid = |number| Pid::new(number).unwrap();
    let chosen = [(); 2].map(|()| stage.subscribe(None, &Scope::Chosen(vec![pid(3)])));
    chosen.iter().for_each(|id| drop(stage.read(*id)));
    let of_5 = stage.subscribe(None, &Scope::Subtree(pid(5)));
    stage.read(of_5);
    stage.table.untold.insert(5, 0);
    stage.hub.expect(pid(5), &mut stage.table);
    stage.happens("exec 5 ls | exit 5 9");
    stage.table.untold.clear();
    // It is gone: that it is expected again changes nothing.
    stage.hub.expect(pid(5), &mut stage.table);
    for id in chosen {
        assert!(stage.hub.admit_expected(id, pid(5), Time(1), &mut stage.table));
        assert!(!stage.hub.admit_expected(id, pid(5), Time(1), &mut stage.table), "it is told once");
        assert_eq!(stage.read(id), "found 1 5 | exit 5 9");
    }
    assert!(!stage.hub.admit_expected(of_5, pid(5), Time(1), &mut stage.table), "it was told already");
    assert_eq!(stage.read(of_5), "exec 5 ls | exit 5 9");
    assert!(!stage.hub.knows(pid(5)));
    // Who has its number next, and came in another way, is another process.
    stage.happens("fork 1 5'");
    assert!(stage.hub.admit(chosen[0], pid(5), Time(1), &mut stage.table));
    stage.happens("exit 5' 0");
    assert_eq!(stage.read(chosen[0]), "found 1 5 | exit 5 0");
    // Others who end meanwhile are not taken for it.
    stage.table.untold.insert(4, 0);
    stage.hub.expect(pid(4), &mut stage.table);
    stage.happens("fork 3 6 | exit 6 0");
    assert!(stage.hub.admit_expected(chosen[0], pid(4), Time(1), &mut stage.table));
    stage.happens("exit 4 0");
    assert_eq!(stage.read(chosen[0]), "fork 3 6 | exit 6 0 | found 3 4 | exit 4 0");
}

/// The source has told of nothing of it yet, or only of who had its number before.
#[test]
fn who_is_expected_may_end_before_it_is_told_of() {
    let mut stage = Stage::with(SYSTEM);
    let pid = |number| Pid::new(number).unwrap();
    let id = stage.subscribe(None, &Scope::Chosen(vec![pid(3)]));
    stage.read(id);
    for (number, ticks, happens) in
        [(6, 0, "fork 1 6 | exit 6 0"), (5, 1, "exit 5 0 | fork 1 5' | exit 5' 0")]
    {
        stage.table.untold.insert(number, ticks);
        stage.hub.expect(pid(number), &mut stage.table);
        stage.table.untold.clear();
        assert!(!stage.hub.admit_expected(id, pid(number), Time(1), &mut stage.table));
        stage.happens(happens);
        assert_eq!(stage.read(id), format!("fork 1 {number} | exit {number} 0"));
    }
}
