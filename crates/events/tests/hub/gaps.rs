//! Gaps of the source.

use pinfold_events::{Pid, Scope, Time};

use crate::stage::{SYSTEM, Stage, nested};

#[test]
fn a_gap_of_the_source_is_told_to_all_with_their_own_difference() {
    let mut stage = nested();
    let (host, inside) = (stage.subscribe(None, &Scope::All), stage.subscribe(Some(10), &Scope::All));
    for id in [host, inside] {
        stage.read(id);
    }
    stage.numbers(6, &[(10, 3)]);
    stage.happens("gap | exit 4 0 | found 3 6 | found 2 7 | comm 3 y | synced");
    assert_eq!(stage.read(host), "gap | exit 4 0 | found 3 6 | found 2 7 | comm 3 y | synced +2 -1 ~1");
    assert_eq!(stage.read(inside), "gap | exit 2 0 | found 1 3 | comm 1 y | synced +1 -1 ~1");
}

/// What it was told first was not all there is.
#[test]
fn who_subscribes_in_a_gap_is_synced_when_that_is_over() {
    let mut stage = nested();
    stage.happens("gap");
    let late = stage.subscribe(None, &Scope::Subtree(Pid::new(5).unwrap()));
    let inside = stage.subscribe(Some(10), &Scope::All);
    assert_eq!(stage.read(late), "found 2 5");
    assert_eq!(stage.read(inside), "found 0 1 | found 1 2");
    stage.happens("exit 4 0 | found 5 6 | comm 5 y | synced");
    assert_eq!(stage.read(late), "found 5 6 | comm 5 y | synced +2 -0 ~1");
    assert_eq!(stage.read(inside), "exit 2 0 | synced +2 -1 ~0");
    stage.happens("fork 5 7");
    assert_eq!(stage.read(late), "fork 5 7");
}

#[test]
fn who_chose_is_synced_when_the_choice_has_been_compared() {
    let mut stage = Stage::with(SYSTEM);
    stage.hub.compare_choices();
    let pid = |number| Pid::new(number).unwrap();
    let id = stage.subscribe(None, &Scope::Chosen(vec![pid(3)]));
    assert_eq!(stage.read(id), "found 2 3 | synced +1 -0 ~0", "at first it is known");
    stage.happens("gap | found 1 6 | synced");
    assert_eq!(stage.hub.begin_comparison(id), [pid(3)]);
    assert_eq!(stage.read(id), "gap");
    // Another gap meanwhile: this comparison does not count.
    stage.happens("gap | found 1 7 | synced");
    assert!(stage.hub.admit(id, pid(6), Time(1), &mut stage.table));
    stage.hub.end_comparison(id);
    assert_eq!(stage.read(id), "gap | found 1 6");
    stage.hub.begin_comparison(id);
    assert!(stage.hub.admit(id, pid(7), Time(1), &mut stage.table));
    stage.hub.end_comparison(id);
    assert_eq!(stage.read(id), "found 1 7 | synced +2 -0 ~0");
    stage.hub.begin_comparison(id);
    stage.hub.end_comparison(id);
    assert_eq!(stage.read(id), "");
}

/// Born in the gap, to parents that ended in it: init is their parent now.
#[test]
fn orphans_of_a_gap_belong_to_their_sessions_leader() {
    let mut stage = nested();
    let subtree = |root| Scope::Subtree(Pid::new(root).unwrap());
    let (of_3, of_5) = (stage.subscribe(None, &subtree(3)), stage.subscribe(None, &subtree(5)));
    let inside = stage.subscribe(Some(10), &subtree(3));
    for id in [of_3, of_5, inside] {
        stage.read(id);
    }
    stage.happens("gap | exit 4 0");
    // 4 led a session, and so does 8; that of 9 and 10 has a leader elsewhere, or nobody knows it.
    // 12 has ended, and who has its number is in that of 3.
    stage.table.reused.insert(12);
    for (pid, session) in [(6, 4), (7, 3), (8, 8), (9, 1), (10, 77), (12, 3)] {
        stage.table.sessions.insert(pid, session);
    }
    stage.numbers(6, &[(10, 16)]);
    stage.numbers(7, &[(10, 17)]);
    stage.happens(
        "found 1 6 | found 3 7 | found 1 8 | found 1 9 | found 1 10 | found 6 11 | found 1 12 | synced",
    );
    assert_eq!(stage.read(of_3), "gap | exit 4 0 | found 1 6 | found 3 7 | found 6 11 | synced +3 -1 ~0");
    assert_eq!(stage.read(of_5), "gap | synced +0 -0 ~0");
    assert_eq!(stage.read(inside), "gap | exit 2 0 | found 0 16 | found 1 17 | found 16 ? | synced +3 -1 ~0");
    // Afterwards nothing is asked for it.
    stage.table.asked = 0;
    stage.hub.unsubscribe(inside);
    stage.happens("found 1 12");
    assert_eq!(stage.table.asked, 0);
}

/// An outer pinfold that has not listed its processes yet.
#[test]
fn nobody_is_synced_before_the_source_is() {
    let mut stage = Stage::default();
    let id = stage.subscribe(None, &Scope::All);
    assert_eq!(stage.read(id), "");
    stage.happens("found 0 1 | synced");
    assert_eq!(stage.read(id), "found 0 1 | synced +1 -0 ~0");
}
