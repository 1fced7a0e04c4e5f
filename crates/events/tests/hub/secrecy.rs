//! What happens outside a namespace leaves no trace inside.

use pinfold_events::hub::{Audience, SubscriberId};
use pinfold_events::{Event, Pid, Scope, Time, What};
use proptest::prelude::*;

use crate::stage::{Stage, event, namespace};

/// What happens to processes of a host (level 0), of a container and of one in that, each with its level; a child is born where
/// its parent is.
fn story(steps: &[(u8, u8)]) -> Vec<(u64, Event)> {
    let mut living: Vec<(u64, u32)> = vec![(0, 2), (1, 3), (2, 4)];
    let deeds = steps.iter().zip(10..).map(|((what, who), number)| {
        let at = usize::from(*who) % living.len();
        let (level, pid) = living[at];
        let text = match what % 6 {
            0 | 1 => {
                living.push((level, number));
                format!("fork {pid} {number}")
            }
            2 if at > 2 => {
                living.remove(at);
                format!("exit {pid} 0")
            }
            3 => format!("uid {pid} {who}"),
            4 => {
                // Of nobody who is known: the host's.
                living.push((0, number));
                return (0, Event { time: Time(u64::from(number)), ..event(&format!("fork 9 {number}")) });
            }
            _ => format!("exec {pid} n{who}"),
        };
        (level, Event { time: Time(u64::from(number)), ..event(&text) })
    });
    deeds.collect()
}

/// The packets that a subscriber at a level gets, given before which deed it comes, and after which it reads one. The levels below
/// `least` are not there at all.
fn heard(
    deeds: &[(u64, Event)],
    least: u64,
    (level, scope): (u64, &Scope),
    queue: usize,
    (comes, reads): (usize, &[bool]),
) -> Vec<Vec<u8>> {
    let mut stage = Stage::default();
    let view = |level| 10 * level;
    let settle = |stage: &mut Stage, pid, level| {
        let numbers: Vec<_> = (1..=level).map(|level| (view(level), pid + 1000)).collect();
        stage.numbers(pid, &numbers);
    };
    for (at, first) in [(0, "found 0 1 | found 1 2"), (1, "found 2 3"), (2, "found 3 4")] {
        settle(&mut stage, at as u32 + 2, at);
        stage.happens(if least <= at { first } else { "" });
    }
    stage.happens("synced");
    let mut packets = Vec::new();
    let mut id = None;
    let mut read = |stage: &mut Stage, id: Option<SubscriberId>| {
        let packet = stage.hub.front(id?)?.to_vec();
        stage.hub.sent(id?);
        packets.push(packet);
        Some(())
    };
    for (index, (of, event)) in deeds.iter().enumerate() {
        if index == comes {
            let audience = Audience { namespace: Some(namespace(view(level))), queue, ..Audience::same() };
            id = Some(stage.hub.subscribe(audience, scope, Time(event.time.0 - 1), &mut stage.table));
        }
        if let What::Fork { process, .. } = event.what {
            settle(&mut stage, process.pid.unwrap().get(), *of);
        }
        if *of >= least {
            stage.hub.deliver(event, &mut stage.table);
        }
        if reads[index % reads.len()] {
            read(&mut stage, id);
        }
    }
    while read(&mut stage, id).is_some() {}
    packets
}

proptest! {
    /// Byte for byte: no event, no count, no gap and no time tells a container that there are others.
    #[test]
    fn what_happens_outside_leaves_no_trace_inside(
        steps in prop::collection::vec((any::<u8>(), any::<u8>()), 1..300),
        comes in any::<prop::sample::Index>(),
        reads in prop::collection::vec(any::<bool>(), 1..20),
        queue in 50usize..600,
    ) {
        let deeds = story(&steps);
        let comes = (comes.index(deeds.len()), &reads[..]);
        for level in [1, 2] {
            for scope in [Scope::All, Scope::Subtree(Pid::new(level as u32 + 2).unwrap())] {
                let reader = (level, &scope);
                let among_others = heard(&deeds, 0, reader, queue, comes);
                prop_assert_eq!(among_others, heard(&deeds, level, reader, queue, comes));
            }
        }
    }
}
