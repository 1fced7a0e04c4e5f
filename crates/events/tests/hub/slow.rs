//! Readers that fall behind.

use std::collections::HashMap;

use pinfold_events::hub::{Audience, SubscriberId};
use pinfold_events::{Pid, Process, Scope, Time, What, wire};
use proptest::prelude::*;

use crate::stage::{Stage, namespace, nested, told};

/// A subscriber with room for hardly anything.
fn cramped(stage: &mut Stage, view: Option<u64>) -> SubscriberId {
    let audience = Audience { namespace: view.map(namespace), queue: 400, ..Audience::same() };
    stage.hub.subscribe(audience, &Scope::All, Time(1), &mut stage.table)
}

/// With these processes, and a reader that has fallen behind: fifty-two came and went.
fn with_a_slow_reader(start: &str) -> (Stage, SubscriberId) {
    let mut stage = Stage::with(start);
    let slow = cramped(&mut stage, None);
    stage.read(slow);
    for pid in 8..60 {
        stage.happens(&format!("fork 1 {pid} | exit {pid} 0"));
    }
    (stage, slow)
}

#[test]
fn a_slow_reader_gets_a_gap_and_then_exactly_the_difference() {
    for view in [None, Some(10)] {
        let mut stage = nested();
        for pid in 6..200 {
            stage.numbers(pid, &[(10, pid)]);
        }
        stage.numbers(3, &[(10, 3)]);
        stage.numbers(4, &[(10, 4)]);
        let (slow, quick) = (cramped(&mut stage, view), stage.subscribe(view, &Scope::All));
        for id in [slow, quick] {
            stage.read(id);
        }
        stage.happens("fork 3 6 | fork 3 7");
        for pid in 8..200 {
            stage.happens(&format!("fork 3 {pid} | exit {pid} 0"));
            assert!(stage.hub.waiting(slow) < 500, "{}", stage.hub.waiting(slow));
        }
        stage.happens("exit 7 0 | exec 6 ls | exec 6 sh | comm 4 c | uid 4 5");
        assert_eq!(stage.read(quick).split(" | ").count(), 2 + 2 * 192 + 5, "others are told everything");
        let read = stage.read(slow);
        let (before, after) = read.split_once("gap | ").unwrap();
        assert!(before.starts_with("fork 3 6 | fork 3 7 | fork 3 8 | exit 8 0"), "{before}");
        let pending: Vec<&str> = before.split(" | ").filter(|text| text.starts_with("fork")).collect();
        let ended = before.split(" | ").filter(|text| text.starts_with("exit")).count();
        // Of those that it was told of, all but 6 are gone.
        let gone = pending.len() - ended - 1;
        let ends: Vec<&str> = after.split(" | ").take(gone).collect();
        assert!(ends.iter().all(|text| text.starts_with("exit ") && text.ends_with(" ?")), "{after}");
        assert_eq!(
            after.split(" | ").skip(gone).collect::<Vec<_>>().join(" | "),
            format!("comm 4 c | uid 4 5 | exec 6 sh | synced +0 -{gone} ~3")
        );
        stage.happens("exit 6 0");
        assert_eq!(stage.read(slow), "exit 6 0", "afterwards it is told everything again");
    }
}

#[test]
fn a_slow_reader_that_has_caught_up_in_a_gap_is_synced_when_that_is_over() {
    let (mut stage, slow) = with_a_slow_reader("found 0 1");
    stage.happens("gap");
    let caught_up = stage.read(slow);
    let (_, difference) = caught_up.split_once("gap").unwrap();
    assert!(!difference.contains("gap") && !difference.contains("synced"), "{difference}");
    stage.happens("found 1 70 | synced");
    let end = stage.read(slow);
    assert!(end.starts_with("found 1 70 | synced +1 "), "{end}");
}

#[test]
fn a_number_that_is_used_again_while_a_reader_is_behind_names_another_process() {
    let (mut stage, slow) = with_a_slow_reader("found 0 1 | found 1 6");
    stage.happens("exit 6 0 | fork 1 6' | exec 6' ls");
    let events = stage.events(slow);
    let gap = events.iter().position(|event| event.what == What::Gap).expect("it is behind");
    let of_6 = events[gap..].iter().filter_map(|event| {
        let process = event.what.process().filter(|process| process.pid == Pid::new(6))?;
        Some(format!("{} {}", told(event), process.started.0))
    });
    assert_eq!(of_6.collect::<Vec<_>>(), ["exit 6 ? 6", "found 1 6 20000000"]);
    stage.happens("exit 6' 0");
    assert_eq!(stage.read(slow), "exit 6 0");
}

/// Told of with its end, while there is room for hardly anything.
#[test]
fn who_ended_before_it_was_admitted_is_told_of_wholly_or_not_at_all() {
    for full in 0..60 {
        let mut stage = Stage::with("found 0 1 | found 1 6");
        let audience = Audience { queue: 400, ..Audience::same() };
        let id = stage.hub.subscribe(audience, &Scope::Chosen(vec![]), Time(1), &mut stage.table);
        stage.read(id);
        stage.table.untold.insert(6, 0);
        stage.hub.expect(Pid::new(6).unwrap(), &mut stage.table);
        stage.happens("exit 6 0");
        stage.hub.admit_expected(id, Pid::new(1).unwrap(), Time(1), &mut stage.table);
        for name in 0..full {
            stage.happens(&format!("comm 1 n{name}"));
        }
        stage.hub.admit_expected(id, Pid::new(6).unwrap(), Time(1), &mut stage.table);
        let read = stage.read(id);
        let told = |word: &str| read.split(" | ").filter(|text| text.starts_with(word)).count();
        assert_eq!(told("found 1 6"), told("exit 6"), "{full}: {read}");
        assert!(told("found 1 6") == 1 || told("gap") == 1, "{full}: {read}");
    }
}

#[test]
fn who_does_not_read_is_given_up_when_too_much_has_to_be_remembered() {
    for (remembered, gives_up) in [(20, true), (1000, false)] {
        let mut stage = Stage::with("found 0 1");
        let audience = Audience { queue: 400, remembered, ..Audience::same() };
        let id = stage.hub.subscribe(audience, &Scope::All, Time(1), &mut stage.table);
        let quick = stage.subscribe(None, &Scope::All);
        let before = stage.read(id);
        assert_eq!(before, "found 0 1 | synced +1 -0 ~0");
        for pid in 8..60 {
            stage.happens(&format!("fork 1 {pid}"));
        }
        assert_eq!(stage.hub.take_given_up(), if gives_up { vec![id] } else { vec![] });
        // What it has not read yet may still be sent to it, but nothing begins anew.
        let rest = stage.read(id);
        assert!(rest.ends_with(if gives_up { "gap" } else { "synced +21 -0 ~0" }), "{rest}");
        stage.happens("fork 1 70");
        assert_eq!(stage.read(id), if gives_up { "" } else { "fork 1 70" });
        assert!(stage.read(quick).ends_with("fork 1 59 | fork 1 70"));
        assert_eq!(stage.hub.take_given_up(), []);
    }
}

#[test]
fn who_reads_is_never_given_up_however_many_there_are() {
    let everybody: Vec<String> = (1..=60).map(|pid| format!("found {} {pid}", pid - 1)).collect();
    let mut stage = Stage::with(&everybody.join(" | "));
    let audience = Audience { queue: 400, remembered: 20, ..Audience::same() };
    let id = stage.hub.subscribe(audience, &Scope::All, Time(1), &mut stage.table);
    assert!(stage.read(id).ends_with(" | synced +60 -0 ~0"));
    assert_eq!(stage.hub.take_given_up(), []);
    stage.happens("exit 60 0");
    assert_eq!(stage.read(id), "exit 60 0");
}

proptest! {
    /// Whatever happens and however little is read, who reads to the end knows who lives, and what they look like.
    #[test]
    fn a_reader_of_any_speed_ends_up_with_the_truth(
        steps in prop::collection::vec((0u8..8, any::<u8>(), any::<bool>()), 1..300),
        queue in 50usize..600,
    ) {
        let mut stage = Stage::with("found 0 1");
        let audience = Audience { queue, ..Audience::same() };
        let id = stage.hub.subscribe(audience, &Scope::All, Time(1), &mut stage.table);
        let mut living = vec![1];
        let mut names = HashMap::from([(1, "x".to_owned())]);
        let mut next = 2;
        let mut events = Vec::new();
        for (what, who, reads) in steps {
            let at = usize::from(who) % living.len();
            let pid = living[at];
            match what {
                0..=2 => {
                    stage.happens(&format!("fork {pid} {next}"));
                    living.push(next);
                    names.insert(next, "x".to_owned());
                    next += 1;
                }
                3 | 4 if pid != 1 => {
                    stage.happens(&format!("exit {pid} 0"));
                    living.remove(at);
                    names.remove(&pid);
                }
                5 | 6 => {
                    let verb = if what == 5 { "exec" } else { "comm" };
                    stage.happens(&format!("{verb} {pid} n{who}"));
                    names.insert(pid, format!("n{who}"));
                }
                _ => {}
            }
            if reads {
                // One packet only.
                if let Some(packet) = stage.hub.front(id) {
                    if wire::check_hello(packet).is_err() {
                        wire::read(packet, |event| events.push(event)).unwrap();
                    }
                    stage.hub.sent(id);
                }
            }
            prop_assert!(stage.hub.waiting(id) < queue + 600);
        }
        events.extend(stage.events(id));
        let mut known = HashMap::new();
        for event in &events {
            let number = |process: Process| process.pid.unwrap().get();
            match event.what {
                What::Found { process, comm, .. } => {
                    prop_assert!(known.insert(number(process), comm.to_string()).is_none());
                }
                What::Fork { process, .. } => {
                    prop_assert!(known.insert(number(process), "x".to_owned()).is_none());
                }
                What::Exec { process, comm } | What::Comm { process, comm } => {
                    prop_assert!(known.insert(number(process), comm.to_string()).is_some());
                }
                What::Exit { process, .. } => prop_assert!(known.remove(&number(process)).is_some()),
                _ => {}
            }
        }
        prop_assert_eq!(known, names);
    }
}
