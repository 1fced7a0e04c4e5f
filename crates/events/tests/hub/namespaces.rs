//! Subscribers in other namespaces: what they see, in whose numbers.

use pinfold_events::hub::Audience;
use pinfold_events::namespace::IdMap;
use pinfold_events::{Ids, Pid, Scope, Time, What};

use crate::stage::{SYSTEM, Stage, nested};

#[test]
fn each_level_sees_its_own_processes_in_its_own_numbers() {
    let mut stage = nested();
    let (outer, inner, sibling) = (10, 20, 30);
    let all: Vec<_> =
        [outer, inner, sibling].iter().map(|view| stage.subscribe(Some(*view), &Scope::All)).collect();
    let host = stage.subscribe(None, &Scope::All);
    assert_eq!(stage.read(all[0]), "found 0 1 | found 1 2 | synced +2 -0 ~0");
    assert_eq!(stage.read(all[1]), "found 0 1 | synced +1 -0 ~0");
    assert_eq!(stage.read(all[2]), "found 0 1 | synced +1 -0 ~0");
    stage.read(host);
    stage.numbers(6, &[(10, 3), (20, 2)]);
    stage.numbers(7, &[(10, 4)]);
    stage.happens("fork 4 6 | fork 3 7 | fork 2 8 | exec 6 ls | exit 6 9 | exit 8 0");
    assert_eq!(stage.read(all[0]), "fork 2 3 | fork 1 4 | exec 3 ls | exit 3 9");
    assert_eq!(stage.read(all[1]), "fork 1 2 | exec 2 ls | exit 2 9");
    assert_eq!(stage.read(all[2]), "");
    assert_eq!(stage.read(host), "fork 4 6 | fork 3 7 | fork 2 8 | exec 6 ls | exit 6 9 | exit 8 0");
}

#[test]
fn who_enters_a_namespace_from_outside_is_told_of_with_parent_0() {
    for others in [0, 5] {
        // With many namespaces the home of the child decides whether they are asked.
        let mut stage = nested();
        let others: Vec<_> = (0..others).map(|view| stage.subscribe(Some(100 + view), &Scope::All)).collect();
        let id = stage.subscribe(Some(10), &Scope::All);
        let subtree = stage.subscribe(Some(10), &Scope::Subtree(Pid::new(3).unwrap()));
        for id in [id, subtree] {
            stage.read(id);
        }
        stage.numbers(6, &[(10, 9)]);
        stage.numbers(7, &[(10, 11)]);
        stage.happens("fork 2 6 | fork 6 7 | exit 6 0");
        assert_eq!(stage.read(id), "fork 0 9 | fork 9 11 | exit 9 0", "{} other views", others.len());
        assert_eq!(stage.read(subtree), "");
        others.into_iter().for_each(|other| assert_eq!(stage.read(other), "synced +0 -0 ~0"));
    }
}

#[test]
fn a_process_that_is_gone_before_its_number_is_known_is_told_of_without_one() {
    let mut stage = nested();
    let id = stage.subscribe(Some(10), &Scope::All);
    stage.read(id);
    stage.happens("fork 3 6 | exit 6 0");
    assert_eq!(stage.read(id), "fork 1 ? | exit ? 0");
}

/// Behind the queue, a process outside has ended, and one inside has its number.
#[test]
fn who_had_a_number_before_somebody_inside_is_not_told_of() {
    let mut stage = nested();
    stage.table.reused.insert(40);
    stage.numbers(40, &[(10, 9)]);
    let id = stage.subscribe(Some(10), &Scope::All);
    let before = stage.read(id);
    stage.happens("fork 1 40 | exec 40 ls | exit 40 0");
    assert_eq!(stage.read(id), "", "{before}");
    stage.happens("fork 1 40");
    stage.hub.unsubscribe(id);
    let id = stage.subscribe(Some(10), &Scope::All);
    assert_eq!(stage.read(id), before, "nor when it was there before");
}

/// A container that holds nearly all numbers has the few that are free come round within the tick of a start.
#[test]
fn who_has_a_number_at_once_after_somebody_outside_is_not_taken_for_it() {
    let mut stage = nested();
    stage.table.reused_at_once.insert(40);
    stage.numbers(40, &[(10, 9)]);
    let id = stage.subscribe(Some(10), &Scope::All);
    let before = stage.read(id);
    stage.happens("fork 1 40 | comm 40 secret | exec 40 ls | exit 40 0");
    assert_eq!(stage.read(id), "", "{before}");
    stage.numbers(41, &[(10, 8)]);
    stage.happens("fork 1 41 | exit 41 0");
    assert_eq!(stage.read(id), "fork 0 8 | exit 8 0", "who is asked for in time is told of");
}

/// Of one that has ended and whose number another has, it is not known where it was: who was born to it is asked for everywhere.
#[test]
fn where_another_one_with_its_number_is_says_nothing_of_its_children() {
    let mut stage = nested();
    for view in [100, 101, 102] {
        stage.subscribe(Some(view), &Scope::All);
    }
    let id = stage.subscribe(Some(10), &Scope::All);
    let before = stage.read(id);
    // 6 is outside, and has ended; who is 6 now is inside, where the child of the first came by setns(2).
    stage.table.homes.extend([(6, 10), (7, 10)]);
    stage.table.reused.insert(6);
    stage.table.numbers.insert((10, 7), 9);
    stage.happens("fork 2 6 | fork 6 7 | exit 6 0 | exit 7 0");
    assert_eq!(stage.read(id), "fork 0 9 | exit 9 0", "{before}");
}

#[test]
fn what_is_not_visible_cannot_be_a_scope() {
    let mut stage = nested();
    let pid = |number| Pid::new(number).unwrap();
    let subtree = stage.subscribe(Some(10), &Scope::Subtree(pid(2)));
    let chosen = stage.subscribe(Some(10), &Scope::Chosen(vec![pid(2), pid(5), pid(4)]));
    assert_eq!(stage.read(subtree), "synced +0 -0 ~0");
    assert_eq!(stage.read(chosen), "found 1 2 | synced +1 -0 ~0");
    assert!(
        !stage.hub.admit(chosen, pid(2), Time(1), &mut stage.table)
            && !stage.hub.admit(chosen, pid(5), Time(1), &mut stage.table)
    );
}

#[test]
fn who_is_not_visible_does_not_become_so_by_being_named() {
    let mut stage = nested();
    stage.table.untold.insert(6, 0);
    let id = stage.subscribe(Some(10), &Scope::Subtree(Pid::new(6).unwrap()));
    stage.happens("fork 1 6 | exit 6 0");
    assert_eq!(stage.read(id), "synced +0 -0 ~0");
}

#[test]
fn users_are_numbered_as_in_the_subscribers_user_namespace() {
    let mut stage = Stage::with(SYSTEM);
    let map = IdMap::parse("0 1000 1\n");
    let audience = Audience { users: map, ..Audience::same() };
    let id = stage.hub.subscribe(audience, &Scope::Subtree(Pid::new(5).unwrap()), Time(1), &mut stage.table);
    let events = stage.events(id);
    let What::Found { uid: Some(ids), .. } = events[0].what else { panic!("{events:?}") };
    assert_eq!(ids, Ids { real: 0, effective: 65534 });
    stage.happens("uid 5 1000 | uid 5 3");
    assert_eq!(stage.read(id), "uid 5 0 | uid 5 65534");
}

#[test]
fn who_ended_before_it_was_admitted_is_told_of_only_where_it_was_visible_and_in_the_numbers_there() {
    let mut stage = nested();
    let pid = |number| Pid::new(number).unwrap();
    let [inside, elsewhere] = [10, 30].map(|view| stage.subscribe(Some(view), &Scope::Chosen(vec![])));
    assert_eq!(
        (stage.read(inside), stage.read(elsewhere)),
        ("synced +0 -0 ~0".into(), "synced +0 -0 ~0".into())
    );
    stage.table.untold.insert(4, 0);
    stage.hub.expect(pid(4), &mut stage.table);
    stage.happens("exit 4 0");
    assert!(stage.hub.admit_expected(inside, pid(4), Time(1), &mut stage.table));
    assert!(!stage.hub.admit_expected(elsewhere, pid(4), Time(1), &mut stage.table));
    assert_eq!(stage.read(inside), "found 1 2 | exit 2 0");
    assert_eq!(stage.read(elsewhere), "");
}
