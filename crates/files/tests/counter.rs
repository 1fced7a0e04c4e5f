//! Figures that only grow, while the directories that have them come and go (I6).

use pinfold_files::{
    Counter, Field, Fold, Source, Texts, controller_named, counter_by_key, counters, sources,
};
use pinfold_model::{Key, Settings};
use proptest::prelude::*;

const SOURCE: Source = Source::Carriers("some.file");

static SUM: Counter =
    Counter { key: Key("sum"), source: SOURCE, field: Field::After("used"), fold: Fold::Sum };
static ENTRIES: Counter =
    Counter { key: Key("entries"), source: SOURCE, field: Field::Entries, fold: Fold::Sum };
static LARGEST: Counter = Counter {
    key: Key("largest"),
    source: SOURCE,
    field: Field::Whole,
    fold: Fold::Peak { now: NOW, since: None },
};
/// What LARGEST is the largest value of; no text says it here.
const NOW: Source = Source::Carriers("present.file");

/// A group whose directories are made, used and removed, and what it should show.
#[derive(Default)]
struct Group {
    settings: Settings,
    directories: Vec<u64>,
    /// What was used since the last reset, kept as simply as can be.
    used: u64,
    /// The most that any directory ever had.
    most: u64,
}

#[derive(Clone, Debug)]
enum Step {
    Make,
    Use(prop::sample::Index, u32),
    Gone(prop::sample::Index),
    Reset,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Make),
        4 => (any::<prop::sample::Index>(), any::<u32>()).prop_map(|(at, much)| Step::Use(at, much)),
        2 => any::<prop::sample::Index>().prop_map(Step::Gone),
        1 => Just(Step::Reset),
    ]
}

fn texts(counter: &Counter, figures: &[u64]) -> Texts {
    let mut texts = Texts::default();
    for figure in figures {
        let text = match counter.field {
            Field::Whole => format!("{figure}\n"),
            Field::After(word) => format!("usedup 7\n{word} {figure}\nother 5\n"),
            Field::Entries => format!("254:0 rbytes={figure} wbytes=max\n8:0\n"),
        };
        texts.push(counter.source, text);
    }
    texts
}

impl Group {
    fn apply(&mut self, step: &Step) {
        match step {
            Step::Make => self.directories.push(0),
            Step::Use(at, much) if !self.directories.is_empty() => {
                let directory = at.get_mut(&mut self.directories);
                *directory += u64::from(*much);
                self.used += u64::from(*much);
                self.most = self.most.max(*directory);
            }
            Step::Gone(at) if !self.directories.is_empty() => {
                let last = self.directories.swap_remove(at.index(self.directories.len()));
                for counter in [&SUM, &ENTRIES, &LARGEST] {
                    let value = counter.keep(&self.settings, &texts(counter, &[last]), &Texts::default());
                    self.settings.replace(counter.key, value);
                }
            }
            Step::Use(..) | Step::Gone(_) => {}
            Step::Reset => {
                for counter in [&SUM, &ENTRIES] {
                    let value = counter.reset(&texts(counter, &self.directories));
                    self.settings.replace(counter.key, value);
                }
                self.used = 0;
            }
        }
    }

    fn shown(&self, counter: &Counter) -> u64 {
        counter.value(&self.settings, &texts(counter, &self.directories))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_group_shows_all_that_was_used_since_the_last_reset(
        steps in prop::collection::vec(any_step(), 0..40)
    ) {
        let mut group = Group::default();
        for step in &steps {
            group.apply(step);
            prop_assert_eq!(group.shown(&SUM), group.used, "after {:?}", step);
            prop_assert_eq!(group.shown(&ENTRIES), group.used, "after {:?}", step);
            prop_assert_eq!(group.shown(&LARGEST), group.most, "after {:?}", step);
        }
    }

    /// Whatever the kernel writes into a file is data.
    #[test]
    fn no_text_panics(texts_there in prop::collection::vec(any::<String>(), 0..4), word in "[a-z]{0,4} ?[-+0-9]{0,22}") {
        let mut texts = Texts::default();
        for text in texts_there.into_iter().chain([word.clone(), format!("used {word}"), format!("used  {word}\n")]) {
            texts.push(SOURCE, text);
        }
        for counter in [&SUM, &ENTRIES, &LARGEST] {
            let kept = counter.keep(&Settings::NONE, &texts, &Texts::default());
            let mut settings = Settings::NONE;
            settings.replace(counter.key, kept);
            let live = counter.live(&texts);
            prop_assert!(counter.value(&settings, &texts) >= live);
            settings.replace(SUM.key, SUM.reset(&texts));
            prop_assert!(live > i64::MAX as u64 || SUM.value(&settings, &texts) == 0);
        }
    }
}

/// A directory that a group gets may have been others' before, and v2 forgets no peak.
#[test]
fn a_peak_that_others_reached_is_not_the_groups() {
    for key in ["pids.peak", "memory.max_usage_in_bytes"] {
        let counter = counter_by_key(key).unwrap();
        let Fold::Peak { now, .. } = counter.fold else { panic!("{key} is no peak") };
        let texts = |peak: u64, present: u64| {
            let mut texts = Texts::default();
            texts.push(counter.source, format!("{peak}\n"));
            texts.push(now, format!("{present}\n"));
            texts
        };
        let mut settings = Settings::NONE;
        // The group had 3 at most where it was; nine strangers were once where it is from now on.
        settings.replace(counter.key, counter.keep(&settings, &texts(3, 2), &texts(9, 0)));
        let shown = |peak, present| counter.value(&settings, &texts(peak, present));
        assert_eq!((shown(9, 2), shown(9, 5), shown(12, 5)), (3, 5, 12), "{key}");
    }
}

#[test]
fn a_word_is_found_whole_and_only_at_the_start_of_a_line() {
    let check = |text: &str, expected: u64| {
        let mut texts = Texts::default();
        texts.push(SOURCE, text.to_owned());
        assert_eq!(SUM.live(&texts), expected, "{text:?}");
    };
    check("used 5\n", 5);
    check("used 5", 5);
    check("other 4\nused 5\n", 5);
    check("usedup 4\nused 5\n", 5);
    check("unused 4\n", 0);
    check("used", 0);
    check("used -5\n", 0);
    check("used 18446744073709551615\n", u64::MAX);
    check("used 18446744073709551616\n", 0);
    check("", 0);
}

#[test]
fn of_two_values_the_greater_shows_no_less() {
    use pinfold_model::Value::{Offset, Peak, Text};
    let text = |text: &str| Some(Text(text.as_bytes().to_vec()));
    for (counter, one, other, greater) in [
        (&SUM, Some(Offset(5)), Some(Offset(-3)), Some(Offset(5))),
        (&SUM, Some(Offset(-5)), None, None),
        (
            &LARGEST,
            Some(Peak { floor: 5, beyond: 7 }),
            Some(Peak { floor: 6, beyond: 1 }),
            Some(Peak { floor: 6, beyond: 7 }),
        ),
        (&LARGEST, None, None, None),
        (
            &ENTRIES,
            text("8:0 rbytes=1 rios=-4\n"),
            text("8:0 rbytes=7\nsev 5\n"),
            text("8:0 rbytes=7\nsev 5\n"),
        ),
    ] {
        assert_eq!(counter.greater(one.as_ref(), other.as_ref()), greater, "{one:?}, {other:?}");
        assert_eq!(counter.greater(other.as_ref(), one.as_ref()), greater, "{other:?}, {one:?}");
    }
}

#[test]
fn other_sources_do_not_count() {
    let mut texts = Texts::default();
    texts.push(Source::OwnLeaves("some.file"), "used 5\n".to_owned());
    texts.push(Source::Carriers("other.file"), "used 5\n".to_owned());
    assert_eq!(SUM.live(&texts), 0);
}

#[test]
fn a_file_that_several_counters_share_is_read_once() {
    let bound =
        [controller_named("cpuacct").unwrap(), controller_named("pids").unwrap()].into_iter().collect();
    let all = sources(counters(bound));
    assert_eq!(all.iter().filter(|source| source.file() == "cpu.stat").count(), 1);
    assert_eq!(all.len(), 7);
}
