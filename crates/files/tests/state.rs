//! What the state directory keeps of a group, as text.

use pinfold_files::{
    Field, Fold, controllers, counters, parse_setting, parse_settings, print_setting, print_settings,
    settings,
};
use pinfold_model::{Key, Limit, Settings, Value};
use proptest::prelude::*;

/// The line of a value, both ways.
fn check(key: &'static str, value: &Value, line: &str) {
    assert_eq!(print_setting(Key(key), value), line);
    assert_eq!(parse_setting(line), Ok((Key(key), value.clone())));
}

#[test]
fn a_line_is_a_key_and_a_value() {
    check("notify_on_release", &Value::Flag(true), "notify_on_release=1");
    check("freezer.state", &Value::Flag(false), "freezer.state=0");
    check("pids.max", &Value::Limit(Limit::Max), "pids.max=max");
    check("pids.max", &Value::Limit(Limit::At(7)), "pids.max=7");
    check("pids.peak", &Value::Peak { floor: 9, beyond: 2 }, "pids.peak=9/2");
    check("cpuacct.usage", &Value::Offset(-5), "cpuacct.usage=-5");
    check("cpuacct.usage", &Value::Offset(5), "cpuacct.usage=+5");
    check("cpuacct.usage", &Value::Offset(i64::MIN), "cpuacct.usage=-9223372036854775808");
    check("release_agent", &Value::Text(b"/a b=c".to_vec()), "release_agent=/a b=c");
    check("release_agent", &Value::Text(b"".to_vec()), "release_agent=");
    check("release_agent", &Value::Text(b"a\n\\\xff'\"".to_vec()), r#"release_agent=a\x0a\x5c\xff'""#);
}

/// The first words of the error that a line gives.
fn check_error(line: &str, expected: &str) {
    let error = parse_setting(line).expect_err(line);
    assert!(format!("{error:?}").starts_with(expected), "{line:?}: {error:?}");
    assert!(!error.to_string().contains('\n'), "{error}");
}

#[test]
fn what_is_not_understood_is_an_error_that_says_why() {
    check_error("", "NoValue");
    check_error("pids.max", "NoValue");
    check_error("=1", "UnknownKey");
    check_error("pids.min=1", "UnknownKey");
    check_error(" pids.max=1", "UnknownKey");
    check_error("pids.current=1", "UnknownKey");
    check_error("pids.max=", "BadValue");
    check_error("pids.max=+1", "BadValue");
    check_error("pids.max=-1", "BadValue");
    check_error("pids.max=1 ", "BadValue");
    check_error("pids.max=MAX", "BadValue");
    check_error("pids.max=18446744073709551616", "BadValue");
    check_error("freezer.state=2", "BadValue");
    check_error("freezer.state=FROZEN", "BadValue");
    check_error("cpuacct.usage=5", "BadValue");
    check_error("cpuacct.usage=+", "BadValue");
    check_error("cpuacct.usage=+9223372036854775808", "BadValue");
    check_error("release_agent=a\\", "BadValue");
    check_error("release_agent=a\\n", "BadValue");
    check_error("release_agent=\\x0", "BadValue");
    check_error("release_agent=\\x0g", "BadValue");
    check_error("release_agent=\\x+1", "BadValue");
    check_error("release_agent=\u{e9}", "BadValue");
    check_error("release_agent=\t", "BadValue");
    assert!(parse_settings("pids.max=1\npids.max=2\n").is_err(), "which of the two would hold?");
    assert!(parse_settings("pids.max=1\n\n").is_err());
}

#[test]
fn a_group_at_its_defaults_keeps_no_line() {
    assert_eq!(print_settings(&Settings::NONE), "");
    assert_eq!(parse_settings(""), Ok(Settings::NONE));
}

/// A value that the key can have.
fn value_of(key: Key) -> BoxedStrategy<(Key, Value)> {
    let counter = counters(controllers()).find(|counter| counter.key == key);
    let like = match counter.map(|counter| counter.fold) {
        _ if counter.is_some_and(|counter| counter.field == Field::Entries) => Value::Text(Vec::new()),
        Some(Fold::Sum) => Value::Offset(0),
        Some(Fold::Peak { .. }) => Value::Peak { floor: 0, beyond: 0 },
        None => settings(controllers()).find(|setting| setting.key == key).unwrap().initial.clone(),
    };
    let value = match like {
        Value::Flag(_) => any::<bool>().prop_map(Value::Flag).boxed(),
        Value::Number(_) => any::<u64>().prop_map(Value::Number).boxed(),
        Value::Limit(_) => {
            prop_oneof![Just(Value::Limit(Limit::Max)), any::<u64>().prop_map(|n| Value::Limit(Limit::At(n)))]
                .boxed()
        }
        Value::Offset(_) => any::<i64>().prop_map(Value::Offset).boxed(),
        Value::Peak { .. } => {
            any::<(u64, u64)>().prop_map(|(floor, beyond)| Value::Peak { floor, beyond }).boxed()
        }
        Value::Text(_) => any::<Vec<u8>>().prop_map(Value::Text).boxed(),
    };
    value.prop_map(move |value| (key, value)).boxed()
}

fn any_settings() -> impl Strategy<Value = Settings> {
    let keys: Vec<Key> = settings(controllers())
        .map(|setting| setting.key)
        .chain(counters(controllers()).map(|counter| counter.key))
        .collect();
    let pair = prop::sample::select(keys).prop_flat_map(value_of);
    prop::collection::vec(pair, 0..12).prop_map(|pairs| {
        let mut settings = Settings::NONE;
        for (key, value) in pairs {
            settings.replace(key, Some(value));
        }
        settings
    })
}

/// Lines that are nearly right.
fn any_text() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        "(pids.max|pids.peak|cpuacct.usage|release_agent|freezer.state|x)=?[-+]?[0-9a-fx\\\\max ]{0,22}",
        any::<String>(),
    ];
    prop::collection::vec(line, 0..4).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_printed_reads_back_the_same(settings in any_settings()) {
        let text = print_settings(&settings);
        prop_assert!(text.is_ascii());
        prop_assert_eq!(text.lines().count(), settings.iter().count());
        prop_assert_eq!(parse_settings(&text), Ok(settings));
    }

    #[test]
    fn whatever_is_read_prints_and_reads_the_same(text in any_text()) {
        if let Ok(settings) = parse_settings(&text) {
            prop_assert_eq!(parse_settings(&print_settings(&settings)), Ok(settings));
        }
    }

    #[test]
    fn a_damaged_text_is_an_error_or_another_value(settings in any_settings(), at in any::<prop::sample::Index>(), byte in 0_u8..128) {
        let mut text = print_settings(&settings).into_bytes();
        prop_assume!(!text.is_empty());
        let at = at.index(text.len());
        text[at] = byte;
        let text = String::from_utf8(text).unwrap();
        if let Ok(read) = parse_settings(&text) {
            prop_assert!(read.iter().count() <= settings.iter().count() + 1);
        }
    }
}
