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

/// Anybody can make namespaces, and subscribe from each: that was a look at everybody every time.
#[test]
fn each_process_is_asked_about_once_however_many_namespaces_somebody_looks_from() {
    const PROCESSES: u32 = 100;
    let mut stage = Stage::with("found 0 1");
    let born = |stage: &mut Stage, range: std::ops::RangeInclusive<u32>| {
        range.for_each(|child| stage.happens(&format!("fork 1 {child}")));
    };
    born(&mut stage, 2..=PROCESSES);
    let asked = |stage: &mut Stage, view: u64| {
        stage.table.asked = 0;
        let id = stage.subscribe(Some(view), &Scope::All);
        let (asked, told) = (stage.table.asked, stage.read(id));
        stage.hub.unsubscribe(id);
        (asked, told)
    };
    assert_eq!(asked(&mut stage, 10), (100, "synced +0 -0 ~0".into()));
    // A namespace with one process of its own.
    stage.numbers(101, &[(20, 1)]);
    born(&mut stage, 101..=101);
    for _ in 0..50 {
        let (asked, told) = asked(&mut stage, 20);
        assert_eq!(told, "found 0 1 | synced +1 -0 ~0");
        assert!(asked <= 3, "what sees it, its number, and whether it is still there: {asked}");
    }
    for view in 30..80 {
        assert_eq!(asked(&mut stage, view), (0, "synced +0 -0 ~0".into()));
    }
    born(&mut stage, 102..=104);
    assert_eq!(asked(&mut stage, 80).0, 3, "those who came since");
}
