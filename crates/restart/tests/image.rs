//! The capture file: it is as docs/capture.schema.json says, and nothing that is in one makes the reader panic.

use std::collections::BTreeMap;
use std::fs;
use std::sync::LazyLock;

use pinfold_restart::capture::capture_frozen;
use pinfold_restart::image::{Group, Image, ImageError, Nursery, Text, UserNamespace};
use pinfold_restart::schedule::{OutsideGroup, schedule};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Two processes as this one, with something of everything that a file can hold.
fn image() -> Image {
    let mut image = capture_frozen(&[std::process::id()]).expect("a capture of this process");
    image.pid_namespaces = vec![None, Some(0)];
    let space = |parent, uids: [u32; 3]| UserNamespace {
        parent,
        maker: 1000,
        uids: vec![uids.into()],
        gids: vec![[0, 1000, 1].into(), [1, 5000, 10].into()],
        setgroups: false,
    };
    image.user_namespaces = vec![space(0, [0, 1000, 1]), space(1, [7, 1000, 1])];
    image.owners = BTreeMap::from([("net".to_owned(), vec![0, 2])]);
    let process = &mut image.processes[0];
    (process.pids, process.pid_namespace, process.parent) = (vec![10], 0, None);
    (process.session, process.group, process.children_in) = (vec![10], vec![10], Nursery::Namespace(1));
    let living = process.living.as_mut().expect("it lives");
    living.arguments = vec![Text::of(b"a"), Text::of(b"\xff")];
    living.environment = vec![Text::of(b"A=b")];
    (living.terminal, living.foreground) = (Some(34816), true);
    living.credentials.groups = vec![1];
    let mut child = process.clone();
    (child.pids, child.pid_namespace, child.parent) = (vec![11, 1], 1, Some(0));
    (child.session, child.group, child.children_in) = (vec![10], Vec::new(), Nursery::Own);
    let namespaces = &mut child.living.as_mut().expect("it lives").namespaces;
    namespaces.extend([("user".to_owned(), 2), ("net".to_owned(), 2)]);
    let mut zombie = child.clone();
    (zombie.pids, zombie.living, zombie.session) = (vec![12, 2], None, vec![12, 2]);
    zombie.group = vec![12, 2];
    image.processes.truncate(1);
    image.processes.extend([child, zombie]);
    let settings = vec![("pids.max".to_owned(), "7".to_owned())];
    let (name, owner, mode) = ("pids:/a".to_owned(), (1000, 100), 0o755);
    image.groups = vec![Group { name, owner, mode, settings, processes: vec![0] }];
    image
}

/// The same in JSON; a capture looks at every process of the machine, so there is one.
fn value() -> Value {
    static VALUE: LazyLock<Value> = LazyLock::new(|| serde_json::to_value(image()).expect("JSON"));
    VALUE.clone()
}

fn read(value: &Value) -> Result<Image, ImageError> {
    Image::from_json(value.to_string().as_bytes())
}

/// Whether a value is as a schema says. Knows the words that ours has, and panics at another.
fn is_as(schema: &Value, root: &Value, value: &Value) -> bool {
    let rules = schema.as_object().expect("a schema is an object");
    rules.iter().all(|(word, rule)| match word.as_str() {
        "$schema" | "$defs" | "title" | "description" => true,
        "$ref" => {
            let name = rule.as_str().and_then(|name| name.strip_prefix('#')).expect("a place in this file");
            is_as(root.pointer(name).expect("a definition"), root, value)
        }
        "anyOf" => rule.as_array().expect("a list").iter().any(|rule| is_as(rule, root, value)),
        "const" => value == rule,
        "enum" => rule.as_array().expect("a list").contains(value),
        "type" => match rule.as_str().expect("one type") {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "null" => value.is_null(),
            "integer" => value.is_u64() || value.is_i64(),
            other => panic!("a type {other}"),
        },
        "minimum" => number(value).is_none_or(|number| Some(number) >= self::number(rule)),
        "maximum" => number(value).is_none_or(|number| Some(number) <= self::number(rule)),
        "minItems" => list(value).is_none_or(|list| list.len() as u64 >= rule.as_u64().expect("a number")),
        "maxItems" => list(value).is_none_or(|list| list.len() as u64 <= rule.as_u64().expect("a number")),
        "items" => list(value).is_none_or(|list| list.iter().all(|item| is_as(rule, root, item))),
        "required" => value.as_object().is_none_or(|object| {
            let names = rule.as_array().expect("a list");
            names.iter().all(|name| object.contains_key(name.as_str().expect("a name")))
        }),
        "properties" => value.as_object().is_none_or(|object| {
            let known = rule.as_object().expect("by name");
            object.iter().all(|(name, value)| known.get(name).is_none_or(|rule| is_as(rule, root, value)))
        }),
        "additionalProperties" => value.as_object().is_none_or(|object| {
            let known = |name: &String| schema.pointer(&format!("/properties/{name}")).is_some();
            let mut others = object.iter().filter(|(name, _)| !known(name));
            others.all(|(_, value)| rule.as_bool().unwrap_or_else(|| is_as(rule, root, value)))
        }),
        "pattern" => {
            assert_eq!(rule, "^([0-9a-fA-F]{2})*$");
            value
                .as_str()
                .is_none_or(|text| text.len() % 2 == 0 && text.bytes().all(|byte| byte.is_ascii_hexdigit()))
        }
        other => panic!("a rule {other}"),
    })
}

fn number(value: &Value) -> Option<i128> {
    value.as_u64().map(i128::from).or_else(|| value.as_i64().map(i128::from))
}

fn list(value: &Value) -> Option<&Vec<Value>> {
    value.as_array()
}

fn schema() -> Value {
    serde_json::from_str(include_str!("../../../docs/capture.schema.json")).expect("a schema is JSON")
}

/// The places of all values, as JSON pointers.
fn places(value: &Value, here: String, all: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| places(value, format!("{here}/{name}"), all));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, value)| places(value, format!("{here}/{at}"), all));
        }
        _ => {}
    }
    all.push(here);
}

/// Every way in which one place can be otherwise.
fn mutants(place: &str) -> Vec<Value> {
    let mut mutants = Vec::new();
    let others = [
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(-21),
        json!(1.5),
        json!(1000),
        json!(1_u64 << 32),
        json!(u64::MAX),
        json!(""),
        json!("own"),
        json!("0"),
        json!([]),
        json!([1, 2]),
        json!([1, 2, 3, 4]),
        json!({}),
        json!({ "hex": "f" }),
        json!({ "hex": "FF" }),
        json!({ "namespace": 7 }),
    ];
    for other in others {
        let mut value = value();
        *value.pointer_mut(place).expect("a place") = other;
        mutants.push(value);
    }
    let mut more = value();
    if let Some(object) = more.pointer_mut(place).and_then(Value::as_object_mut) {
        object.insert("unknown".to_owned(), json!(0));
        mutants.push(more);
    }
    if let Some((parent, name)) = place.rsplit_once('/') {
        let mut less = value();
        match less.pointer_mut(parent) {
            Some(Value::Object(fields)) => drop(fields.remove(name)),
            Some(Value::Array(items)) => drop(items.remove(name.parse().expect("an index"))),
            _ => {}
        }
        mutants.push(less);
    }
    mutants
}

#[test]
fn a_capture_is_as_the_schema_says_and_reads_back() {
    let value = value();
    assert!(is_as(&schema(), &schema(), &value), "{value:#}");
    let image = read(&value).expect("a capture");
    assert_eq!(serde_json::to_value(image).expect("JSON"), value);
}

#[test]
fn the_schema_and_the_reader_refuse_the_same() {
    let schema = schema();
    let mut all = Vec::new();
    places(&value(), String::new(), &mut all);
    let (mut refused, mut taken) = (0, 0);
    for mutant in all.iter().flat_map(|place| mutants(place)) {
        let answer = read(&mutant);
        match is_as(&schema, &schema, &mutant) {
            // An index or a list may be of the right form, and still say nothing.
            true => {
                assert!(matches!(answer, Ok(_) | Err(ImageError::Content { .. })), "{answer:?}\n{mutant:#}")
            }
            false => assert!(answer.is_err(), "{mutant:#}"),
        }
        *(if answer.is_ok() { &mut taken } else { &mut refused }) += 1;
    }
    assert!(refused > 1000 && taken > 100, "{refused} and {taken}: both were tried");
}

#[test]
fn what_is_wrong_with_a_file_is_said() {
    for (place, other, message) in [
        ("/version", json!(1), "version 1: this program knows"),
        ("/processes/1/pids", json!([11]), "processes[1]: not one number for each pid namespace"),
        ("/processes/1/pids/1", json!(0), "processes[1]: 0 is not a pid"),
        ("/processes/0/session", json!([1, 2]), "processes[0]: more numbers"),
        ("/processes/1/parent", json!(3), "processes[1]: its parent is not in the file"),
        ("/pid_namespaces/1", json!(1), "pid_namespaces: the first is in none"),
        ("/user_namespaces/0/parent", json!(1), "user_namespaces[0]: it is in none that comes before"),
        ("/user_namespaces/1/gids/1/0", json!(0), "user_namespaces[1]: a range that is empty, or overlaps"),
        ("/owners/net/1", json!(3), "owners: no user namespace has the number 3"),
        ("/processes/1/living/namespaces/user", json!(3), "no user namespace has the number 3"),
        ("/processes/1/living/namespaces/net", json!(3), "no net namespace has the number 3"),
        ("/groups/0/processes/0", json!(3), "group pids:/a: no process has the index 3"),
        ("/processes/0/living/credentials/uids/1", json!(u32::MAX), "4294967295 is no user's and no group's"),
        (
            "/processes/0/living/credentials/groups",
            json!([u32::MAX]),
            "4294967295 is no user's and no group's",
        ),
        (
            "/groups/0/owner/1",
            json!(u32::MAX),
            "group pids:/a: 4294967295 is no user's and no group's number",
        ),
        ("/user_namespaces/0/maker", json!(u32::MAX), "user_namespaces[0]: 4294967295 is no user's number"),
        ("/processes/0/living/limits", json!({ "x": [1, 1] }), "no limit is called x"),
    ] {
        let mut value = value();
        *value.pointer_mut(place).expect("a place") = other;
        let error = read(&value).expect_err(place).to_string();
        assert!(error.contains(message), "{place}: {error}");
    }
    let deep: Vec<Option<usize>> = (0..40_usize).map(|level| level.checked_sub(1)).collect();
    let mut value = value();
    value["pid_namespaces"] = json!(deep);
    assert!(read(&value).expect_err("too deep").to_string().contains("deeper than the kernel"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Several places at once are taken from elsewhere in the file, or are small numbers: it is refused or scheduled.
    #[test]
    fn no_file_makes_the_scheduler_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..14_u32), 1..6)
    ) {
        let mut value = value();
        for (to, from, number) in changes {
            let mut all = Vec::new();
            places(&value, String::new(), &mut all);
            let other = match number {
                13 => value.pointer(&all[from.index(all.len())]).expect("a place").clone(),
                12 => Value::Null,
                number => json!(number),
            };
            *value.pointer_mut(&all[to.index(all.len())]).expect("a place") = other;
        }
        if let Ok(image) = read(&value) {
            // Refused or not: it comes to an end.
            let _ = schedule(&image.tree(), OutsideGroup::Numbered);
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic(at in any::<prop::sample::Index>(), bytes in prop::collection::vec(any::<u8>(), 0..8)) {
        let mut text = value().to_string().into_bytes();
        let at = at.index(text.len());
        let end = (at + bytes.len()).min(text.len());
        text.splice(at..end, bytes);
        let _ = Image::from_json(&text);
    }
}

#[test]
fn a_kernel_thread_is_refused() {
    if fs::read_to_string("/proc/2/comm").ok().as_deref() != Some("kthreadd\n") {
        eprintln!("skipped: no kernel thread is seen in this pid namespace");
        return;
    }
    let refused = capture_frozen(&[2]).expect_err("refused");
    let reason = "it executes no file (a kernel thread), or which one is not told";
    assert_eq!(refused.to_string(), format!("process 2 cannot be captured: {reason}"));
}
