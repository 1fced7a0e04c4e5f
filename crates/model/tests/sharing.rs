//! A limit that is divided over directories, over time: whatever comes, goes, is used and is limited meanwhile, the parts never
//! sum to more than the limit, nobody has less than it uses if the limit allows that, and a lone consumer gets nearly all.

use std::time::Duration;

use pinfold_model::{
    Claimant, LimitKind, Look, Pressure, Reading, are_worth_writing, divide, keep_what_others_had, settle,
};
use proptest::prelude::*;

/// What tells of a directory that meets its part.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Tells {
    Met,
    Throttled,
    Stalled,
    Nothing,
}

#[derive(Clone, Debug)]
struct Directory {
    part: u64,
    /// How much it would use, and does.
    wants: u64,
    uses: u64,
    /// What is used, or thousandths of what was.
    figure: u64,
    met: u64,
    stalled: Duration,
    look: Option<Look>,
}

#[derive(Debug)]
struct Sharing {
    kind: LimitKind,
    tells: Tells,
    limit: u64,
    directories: Vec<Directory>,
    now: Duration,
    turn: usize,
    writes: usize,
}

#[derive(Clone, Debug)]
enum Event {
    Comes,
    Goes(prop::sample::Index),
    Limit(u64),
    Wants(prop::sample::Index, u64),
    Look,
}

impl Sharing {
    const PAUSE: Duration = Duration::from_millis(50);

    fn new(kind: LimitKind, tells: Tells, limit: u64) -> Self {
        let mut new =
            Self { kind, tells, limit, directories: Vec::new(), now: Self::PAUSE, turn: 0, writes: 0 };
        new.comes();
        new.comes();
        new
    }

    fn comes(&mut self) {
        self.directories.push(Directory {
            part: 0,
            wants: 0,
            uses: 0,
            figure: 0,
            met: 0,
            stalled: Duration::ZERO,
            look: None,
        });
        self.divide(true);
    }

    fn happens(&mut self, event: &Event) {
        match event {
            Event::Comes if self.directories.len() < 8 => self.comes(),
            Event::Goes(at) if self.directories.len() > 2 => {
                self.directories.remove(at.index(self.directories.len()));
            }
            Event::Limit(limit) => {
                self.limit = *limit;
                self.divide(true);
            }
            Event::Wants(at, wants) => {
                let at = at.index(self.directories.len());
                self.directories[at].wants = *wants;
            }
            Event::Comes | Event::Goes(_) | Event::Look => {}
        }
        self.passes();
    }

    /// The time until a look, which follows.
    fn passes(&mut self) {
        self.now += Self::PAUSE;
        for directory in &mut self.directories {
            let Directory { part, wants, uses, .. } = *directory;
            // Nobody is made to give back an amount that it has.
            directory.uses = match self.kind {
                LimitKind::Amount if uses > part => uses.min(wants),
                _ => wants.min(part),
            };
            if wants > part {
                directory.met += 1;
                directory.stalled += Self::PAUSE;
            }
            match self.kind {
                LimitKind::Amount => directory.figure = directory.uses,
                LimitKind::Rate => directory.figure += directory.uses * 50,
            }
        }
        self.divide(false);
    }

    /// A look; the parts are written if that must be, or somebody gains by it.
    fn divide(&mut self, must: bool) {
        let look = |directory: &Directory| {
            let pressure = match self.tells {
                Tells::Met => Some(Pressure::Met { times: directory.met, periods: None }),
                Tells::Throttled => {
                    // A period ends before each look.
                    let periods = (self.now.as_millis() / Self::PAUSE.as_millis()) as u64;
                    Some(Pressure::Met { times: directory.met, periods: Some(periods) })
                }
                Tells::Stalled => Some(Pressure::Stalled(directory.stalled)),
                Tells::Nothing => None,
            };
            let figure = match self.kind {
                LimitKind::Amount => directory.figure,
                LimitKind::Rate => directory.figure / 1000,
            };
            let reading = Reading { at: self.now, figure, pressure, all: figure };
            let allowed = directory.look.map(|_| directory.part.into());
            Look::new(self.kind, reading, directory.look.as_ref(), allowed)
        };
        let mut looks: Vec<Look> = self.directories.iter().map(look).collect();
        if self.kind == LimitKind::Amount {
            settle(&mut looks, |claimants| divide(self.kind, self.limit, claimants));
        }
        let mut claimants: Vec<Claimant> = looks.iter().map(Look::claimant).collect();
        self.turn += 1;
        let turn = if self.tells == Tells::Nothing { self.turn % claimants.len() } else { 0 };
        claimants.rotate_left(turn);
        let mut parts = divide(self.kind, self.limit, &claimants);
        parts.rotate_right(turn);
        claimants.rotate_right(turn);
        let known = |directory: &Directory| directory.look.map(|_| directory.part);
        let known: Vec<Option<u64>> = self.directories.iter().map(known).collect();
        keep_what_others_had(self.kind, self.limit, &claimants, &known, &mut parts);
        let had: Vec<u64> = self.directories.iter().map(|directory| directory.part).collect();
        let written = must || are_worth_writing(self.kind, self.limit, &looks, &had, &parts);
        for ((directory, look), part) in self.directories.iter_mut().zip(looks).zip(parts) {
            directory.look = Some(look);
            if written {
                directory.part = part;
            }
        }
        self.writes += usize::from(written);
        self.holds();
    }

    fn holds(&self) {
        let sum: u64 = self.directories.iter().map(|directory| directory.part).sum();
        assert!(sum <= self.limit, "{sum} of {}: {self:?}", self.limit);
        let used = |directory: &Directory| directory.look.map_or(0, |look| look.claimant().used);
        let all: u64 = self.directories.iter().map(used).sum();
        for directory in self.directories.iter().filter(|_| all <= self.limit) {
            // Of a rate, an equal part is enough, but for the reserve.
            let least = match self.kind {
                LimitKind::Amount => used(directory),
                LimitKind::Rate => used(directory).min(self.limit / 16 * 15 / self.directories.len() as u64),
            };
            assert!(directory.part >= least, "less than is used: {self:?}");
        }
    }
}

fn ways() -> impl Strategy<Value = (LimitKind, Tells)> {
    prop::sample::select(vec![
        (LimitKind::Amount, Tells::Met),
        (LimitKind::Amount, Tells::Nothing),
        (LimitKind::Rate, Tells::Throttled),
        (LimitKind::Rate, Tells::Stalled),
        (LimitKind::Rate, Tells::Nothing),
    ])
}

/// A limit: a rate of less than some thousands is none that anybody sets.
fn limit(kind: LimitKind) -> BoxedStrategy<u64> {
    match kind {
        LimitKind::Amount => prop_oneof![1..20_u64, 1..1_000_000_u64].boxed(),
        LimitKind::Rate => (10_000..1_000_000_u64).boxed(),
    }
}

fn event(kind: LimitKind) -> impl Strategy<Value = Event> {
    let any = any::<prop::sample::Index>;
    prop_oneof![
        1 => Just(Event::Comes),
        1 => any().prop_map(Event::Goes),
        1 => limit(kind).prop_map(Event::Limit),
        3 => (any(), prop_oneof![Just(0), limit(kind)]).prop_map(|(at, wants)| Event::Wants(at, wants)),
        6 => Just(Event::Look),
    ]
}

fn life() -> impl Strategy<Value = (LimitKind, Tells, u64, Vec<Event>)> {
    ways().prop_flat_map(|(kind, tells)| {
        (Just(kind), Just(tells), limit(kind), prop::collection::vec(event(kind), 0..60))
    })
}

proptest! {
    #[test]
    fn whatever_happens_the_limit_holds_and_a_lone_consumer_gets_nearly_all(
        (kind, tells, limit, events) in life(),
        lone in any::<prop::sample::Index>(),
    ) {
        let mut sharing = Sharing::new(kind, tells, limit);
        events.iter().for_each(|event| sharing.happens(event));
        let lone = lone.index(sharing.directories.len());
        for (at, directory) in sharing.directories.iter_mut().enumerate() {
            directory.wants = if at == lone { u64::MAX } else { 0 };
        }
        for _ in 0..100 {
            sharing.passes();
        }
        let uses = sharing.directories[lone].uses;
        prop_assert!(uses * 10 >= sharing.limit * 9, "{uses} of {}: {sharing:?}", sharing.limit);
        // And then nothing is written any more.
        let writes = sharing.writes;
        for _ in 0..40 {
            sharing.passes();
        }
        prop_assert!(tells == Tells::Nothing || sharing.writes == writes, "{sharing:?}");
    }

    /// Whoever comes later to a rate that another has to itself gets as much of it.
    #[test]
    fn two_who_want_all_of_a_rate_get_the_same(
        tells in prop::sample::select(vec![Tells::Throttled, Tells::Stalled]),
        limit in limit(LimitKind::Rate),
        idle in 0..4_usize,
        late in 0..60_usize,
    ) {
        let mut sharing = Sharing::new(LimitKind::Rate, tells, limit);
        (0..idle).for_each(|_| sharing.comes());
        sharing.directories[1].wants = u64::MAX;
        (0..late).for_each(|_| sharing.passes());
        sharing.directories[0].wants = u64::MAX;
        (0..100).for_each(|_| sharing.passes());
        let [one, other] = [0, 1].map(|at| sharing.directories[at].uses);
        prop_assert!(one.abs_diff(other) <= limit / 8, "{one} and {other}: {sharing:?}");
        prop_assert!((one + other) * 10 >= limit * 9, "{one} and {other} of {limit}");
        let writes = sharing.writes;
        (0..40).for_each(|_| sharing.passes());
        prop_assert_eq!(sharing.writes, writes);
    }

    /// Whoever meets its part of a rate has nearly all of it after the next look, if the other ended a tenth of a second ago; and
    /// a tenth of a second later, if it ends now.
    #[test]
    fn a_rate_follows_who_uses_it(
        tells in prop::sample::select(vec![Tells::Throttled, Tells::Stalled]),
        limit in limit(LimitKind::Rate),
        idle in 0..4_usize,
        used in 2..60_usize,
        rested in 0..10_usize,
    ) {
        let mut sharing = Sharing::new(LimitKind::Rate, tells, limit);
        (0..idle).for_each(|_| sharing.comes());
        sharing.directories[1].wants = u64::MAX;
        (0..used).for_each(|_| sharing.passes());
        sharing.directories[1].wants = 0;
        (0..rested).for_each(|_| sharing.passes());
        sharing.directories[0].wants = u64::MAX;
        let looks = if rested >= 2 { 1 } else { 3 - rested };
        (0..looks).for_each(|_| sharing.passes());
        let part = sharing.directories[0].part;
        prop_assert!(part * 10 >= limit * 9, "{part} of {limit} after {looks} looks: {sharing:?}");
    }

    /// Though some are near their part, and of a small limit there is one too few for all to be further away.
    #[test]
    fn nothing_is_written_while_nothing_changes(
        limit in prop_oneof![2..20_u64, 2..1_000_000_u64],
        wants in prop::collection::vec(prop_oneof![0..4_u64, 0..400_000_u64], 2..8),
    ) {
        let mut sharing = Sharing::new(LimitKind::Amount, Tells::Met, limit);
        (2..wants.len()).for_each(|_| sharing.comes());
        let mut left = limit;
        for (directory, wants) in sharing.directories.iter_mut().zip(wants) {
            directory.wants = wants.min(left);
            left -= directory.wants;
        }
        (0..100).for_each(|_| sharing.passes());
        let writes = sharing.writes;
        (0..40).for_each(|_| sharing.passes());
        prop_assert_eq!(sharing.writes, writes, "{:?}", sharing);
    }

    #[test]
    fn who_wants_the_first_of_a_limit_that_is_less_than_one_each_gets_it(
        tells in prop::sample::select(vec![Tells::Met, Tells::Nothing]),
        limit in 1..4_u64,
        others in 1..7_usize,
        last in any::<prop::sample::Index>(),
    ) {
        let mut sharing = Sharing::new(LimitKind::Amount, tells, limit);
        (1..others).for_each(|_| sharing.comes());
        let last = last.index(sharing.directories.len());
        sharing.directories[last].wants = 1;
        for _ in 0..4 * sharing.directories.len() {
            sharing.passes();
        }
        prop_assert_eq!(sharing.directories[last].uses, 1);
    }
}
