//! What subscribers cost others.

use pinfold_events::{Pid, Scope};

use crate::stage::{SYSTEM, Stage, namespace, nested};

/// The list of who is told of it, every process has.
#[test]
fn those_who_have_left_are_not_in_the_lists_for_ever() {
    let mut stage = Stage::with(SYSTEM);
    let id = stage.subscribe(None, &Scope::All);
    let size = |stage: &Stage| format!("{:?}", stage.hub).len();
    let before = size(&stage);
    for _ in 0..500 {
        let other = stage.subscribe(None, &Scope::All);
        stage.happens("exec 3 ls");
        stage.hub.unsubscribe(other);
        stage.hub.take_ready();
        stage.read(id);
    }
    assert!(size(&stage) < 8 * before, "{} of {before}", size(&stage));
    assert_eq!(stage.hub.told(id).len(), 5);
}

#[test]
fn who_leaves_costs_nothing_more() {
    let mut stage = nested();
    let (one, other) = (stage.subscribe(Some(10), &Scope::All), stage.subscribe(Some(10), &Scope::All));
    assert_eq!(stage.hub.unsubscribe(one), None, "the other still looks from there");
    assert_eq!(stage.hub.unsubscribe(other), Some(namespace(10)));
    assert_eq!(stage.hub.unsubscribe(other), None);
    stage.hub.take_ready();
    stage.table.asked = 0;
    stage.happens("fork 3 6 | exit 6 0");
    assert_eq!((stage.table.asked, stage.hub.take_ready().len(), stage.hub.subscribers()), (0, 0, 0));
}

#[test]
fn an_event_asks_nothing_for_those_whom_it_does_not_concern() {
    let mut stage = Stage::with("found 0 1");
    for child in 2..102 {
        stage.happens(&format!("found 1 {child}"));
        stage.subscribe(None, &Scope::Subtree(Pid::new(child).unwrap()));
    }
    stage.hub.take_ready();
    stage.happens("fork 57 200 | exec 200 ls | exit 200 0");
    assert_eq!(stage.hub.take_ready().len(), 1);
    assert_eq!(stage.table.asked, 0);
}
