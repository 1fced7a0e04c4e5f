//! `Relay`: one stream out of the subscriptions of one outer daemon after another.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::HashMap;

use pinfold_events::relay::Relay;
use pinfold_events::{Comm, Event, Pid, Process, Started, Time, What};
use proptest::prelude::*;

/// A process as `NUMBER@START`, the start in ticks and, after a dot, nanoseconds. The number 0 is unknown.
fn process(text: &str) -> Process {
    let (number, start) = text.split_once('@').unwrap();
    let (ticks, nanoseconds) = start.split_once('.').unwrap_or((start, "0"));
    let started = Started::at_tick(ticks.parse().unwrap()).0 + nanoseconds.parse::<u64>().unwrap();
    Process { pid: Pid::new(number.parse().unwrap()), started: Started(started) }
}

/// `found PARENT PROCESS NAME`, `fork PARENT PROCESS`, `exec PROCESS NAME`, `exit PROCESS`, `gap`, `synced`. A parent `-` is outside.
fn event(text: &str) -> Event {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let parent = || (words[1] != "-").then(|| process(words[1]));
    let comm = |index: usize| Comm::new(words[index].as_bytes());
    let (uid, gid) = (None, None);
    let what = match words[0] {
        "found" => What::Found { process: process(words[2]), parent: parent(), comm: comm(3), uid, gid },
        "fork" => {
            What::Fork { process: process(words[2]), parent: parent(), comm: Comm::new(b"x"), uid, gid }
        }
        "exec" => What::Exec { process: process(words[1]), comm: comm(2) },
        "exit" => What::Exit { process: process(words[1]), comm: Comm::new(b"x"), status: None },
        "gap" => What::Gap,
        "synced" => What::Synced { found: 0, gone: 0, changed: 0 },
        other => panic!("{other}"),
    };
    Event { time: Time(1), what }
}

fn told(event: &Event) -> String {
    let name = |process: &Process| {
        let nanoseconds = process.started.0 - Started::at_tick(process.started.ticks()).0;
        let number = process.pid.map_or(0, Pid::get);
        match nanoseconds {
            0 => format!("{number}@{}", process.started.ticks()),
            _ => format!("{number}@{}.{nanoseconds}", process.started.ticks()),
        }
    };
    let parent = |parent: &Option<Process>| parent.as_ref().map_or("-".into(), name);
    match &event.what {
        What::Found { process, parent: from, comm, .. } => {
            format!("found {} {} {comm}", parent(from), name(process))
        }
        What::Fork { process, parent: from, .. } => format!("fork {} {}", parent(from), name(process)),
        What::Exec { process, comm } => format!("exec {} {comm}", name(process)),
        What::Comm { process, comm } => format!("comm {} {comm}", name(process)),
        What::Exit { process, .. } => format!("exit {}", name(process)),
        What::Gap => "gap".into(),
        What::Synced { found, gone, changed } => format!("synced +{found} -{gone} ~{changed}"),
        other => panic!("{other:?}"),
    }
}

/// Feeds events, and `end` for the end of a subscription.
#[track_caller]
fn check(script: &str, expected: &str) {
    let mut relay = Relay::new();
    let mut events = Vec::new();
    for text in script.split('|').map(str::trim) {
        match text {
            "end" => relay.disconnected(Time(1), &mut events),
            text => relay.feed(event(text), &mut events),
        }
    }
    assert_eq!(events.iter().map(told).collect::<Vec<_>>().join(" | "), expected);
}

#[test]
fn a_stream_is_passed_on_as_it_is() {
    check(
        "found - 1@0 init | found 1@0 2@5 sh | synced | fork 2@5 3@9.7 | exec 3@9.7 ls | gap | exit 3@9.7 | synced",
        "found - 1@0 init | found 1@0 2@5 sh | synced +2 -0 ~0 | fork 2@5 3@9.7 | exec 3@9.7 ls | gap | exit 3@9.7 \
         | synced +0 -0 ~0",
    );
}

#[test]
fn who_comes_later_is_told_of_all_that_are_known() {
    let mut relay = Relay::new();
    let script = "found - 1@0 init | found 1@0 2@5 sh | synced | fork 2@5 3@9 | fork 3@9 4@11 | exec 4@11 ls | exit 3@9";
    script.split('|').for_each(|text| relay.feed(event(text.trim()), &mut Vec::new()));
    let list = |relay: &Relay| {
        let mut list = Vec::new();
        relay.list(Time(7), &mut list);
        list.iter().map(told).collect::<Vec<_>>().join(" | ")
    };
    let all = "found - 1@0 init | found 1@0 2@5 sh | found - 4@11 ls";
    assert_eq!(list(&relay), format!("{all} | synced +3 -0 ~0"));
    relay.disconnected(Time(1), &mut Vec::new());
    assert_eq!(list(&relay), all, "some may be missing");
}

#[test]
fn a_new_subscription_is_a_gap_and_the_difference() {
    check(
        "found - 1@0 init | found 1@0 2@5 sh | found 1@0 3@6 x | synced | end \
         | found - 1@0 init | found 1@0 2@5 bash | found 2@5 4@8 y | synced | exit 4@8",
        "found - 1@0 init | found 1@0 2@5 sh | found 1@0 3@6 x | synced +3 -0 ~0 | gap | exit 3@6 \
         | comm 2@5 bash | found 2@5 4@8 y | synced +1 -1 ~1 | exit 4@8",
    );
}

#[test]
fn a_process_keeps_the_start_time_that_it_was_told_with() {
    // The old daemon saw the fork, the new one reads ticks from /proc.
    check(
        "found - 1@0 init | synced | fork 1@0 2@7.12345 | end \
         | found - 1@0 init | found 1@0 2@7 x | synced | fork 2@7 3@9.1 | exec 2@7 ls | exit 2@7",
        "found - 1@0 init | synced +1 -0 ~0 | fork 1@0 2@7.12345 | gap | synced +0 -0 ~0 \
         | fork 2@7.12345 3@9.1 | exec 2@7.12345 ls | exit 2@7.12345",
    );
}

#[test]
fn a_number_that_was_used_again_meanwhile_is_another_process() {
    check(
        "found - 1@0 init | found 1@0 2@7 x | synced | end | found - 1@0 init | found 1@0 2@80 x | synced",
        "found - 1@0 init | found 1@0 2@7 x | synced +2 -0 ~0 | gap | exit 2@7 | found 1@0 2@80 x | synced +1 -1 ~0",
    );
}

#[test]
fn a_start_time_that_is_taken_is_changed() {
    // Two daemons number two processes of one tick differently.
    check(
        "found - 1@0 init | found 1@0 2@7 x | synced | end | found - 1@0 init | found 1@0 3@7 y | synced | exit 3@7",
        "found - 1@0 init | found 1@0 2@7 x | synced +2 -0 ~0 | gap | exit 2@7 | found 1@0 3@7.1 y \
         | synced +1 -1 ~0 | exit 3@7.1",
    );
}

#[test]
fn a_subscription_that_ends_before_its_list_does_is_the_same_gap() {
    check(
        "found - 1@0 init | synced | end | found - 1@0 init | end | end | found - 1@0 init | synced",
        "found - 1@0 init | synced +1 -0 ~0 | gap | synced +0 -0 ~0",
    );
}

#[test]
fn what_happens_while_the_list_is_made_belongs_to_it() {
    check(
        "found - 1@0 init | found 1@0 2@5 x | exit 2@5 | exec 1@0 systemd | synced",
        "found - 1@0 systemd | synced +1 -0 ~0",
    );
}

proptest! {
    /// Whatever lived and died between subscriptions, the reader ends up with what the last one listed.
    #[test]
    fn after_a_list_the_reader_knows_what_is(
        lists in prop::collection::vec(prop::collection::btree_map(1u32..20, (0u64..4, any::<bool>()), 0..10), 1..6),
    ) {
        let mut relay = Relay::new();
        let mut events = Vec::new();
        for list in &lists {
            for (pid, (start, is_exact)) in list {
                // Processes of one number are 100 ticks apart; of one daemon, no two start at once.
                let exact = if *is_exact { 5000 } else { 0 };
                let text = format!("found - {pid}@{}.{} n{start}", start * 100, u64::from(*pid) + exact);
                relay.feed(event(&text), &mut events);
            }
            relay.feed(event("synced"), &mut events);
            relay.disconnected(Time(2), &mut events);
        }
        let mut known: HashMap<Started, (Pid, String)> = HashMap::new();
        for event in &events {
            match event.what {
                What::Found { process, comm, .. } => {
                    let new = (process.pid.unwrap(), comm.to_string());
                    prop_assert!(known.insert(process.started, new).is_none(), "{:?}", event);
                }
                What::Exit { process, .. } => prop_assert!(known.remove(&process.started).is_some()),
                What::Comm { process, comm } => known.get_mut(&process.started).unwrap().1 = comm.to_string(),
                _ => {}
            }
        }
        let mut known: Vec<(u32, String)> = known.into_values().map(|(pid, name)| (pid.get(), name)).collect();
        known.sort();
        let last = lists.last().unwrap().iter();
        let expected: Vec<_> = last.map(|(pid, (start, _))| (*pid, format!("n{start}"))).collect();
        prop_assert_eq!(known, expected);
    }
}
