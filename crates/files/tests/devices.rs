//! devices.rst and security/device_cgroup.c: the algebra of rules against a naive model, and the programs made of them
//! against a small interpreter. What the kernel said to each rule is in differential/expected/devices.v1.

use proptest::prelude::*;

use crate::bpf::{program, run};
use crate::stage::{Stage, check};

#[test]
fn a_fresh_group_allows_all_and_a_child_starts_with_its_parents_rules() {
    check(
        r"
        /devices.list = a\s*:*\srwm\n
        mkdir /a
        /a/devices.list = a\s*:*\srwm\n
        /a/devices.deny < a = ok
        /a/devices.list = ''
        /a/devices.allow < c\s1:3\srwm = ok
        /a/devices.allow < b\s8:*\sr\n = ok
        mkdir /a/b
        /a/b/devices.list = c\s1:3\srwm\nb\s8:*\sr\n
        /a/devices.allow < c\s1:5\sr = ok
        /a/b/devices.list = c\s1:3\srwm\nb\s8:*\sr\n
        ",
    );
}

#[test]
fn only_equal_rules_merge_and_are_taken_away() {
    check(
        r"
        mkdir /a
        /a/devices.deny < all = ok
        /a/devices.allow < c\s1:3\sr = ok
        /a/devices.allow < c\s1:*\srm = ok
        /a/devices.allow < c\s1:3\sw = ok
        /a/devices.list = c\s1:3\srw\nc\s1:*\srm\n
        /a/devices.deny < c\s1:3\srm = ok
        /a/devices.deny < c\s*:*\srwm = ok
        /a/devices.list = c\s1:3\sw\nc\s1:*\srm\n
        /a/devices.deny < c\s1:3\sw = ok
        /a/devices.list = c\s1:*\srm\n
        ",
    );
}

#[test]
fn all_is_written_only_where_nothing_is_below() {
    check(
        r"
        mkdir /a
        mkdir /a/b
        /a/devices.deny < a = EINVAL
        /a/devices.allow < a = EINVAL
        /a/b/devices.deny < a = ok
        /a/b/devices.allow < a = ok
        /a/devices.deny < c\s1:3\sw = ok
        /a/b/devices.deny < a = ok
        /a/b/devices.allow < c\s1:3\sw = EPERM
        /a/b/devices.allow < c\s*:*\srwm = EPERM
        /a/b/devices.allow < c\s1:3\sr = ok
        /a/b/devices.allow < a = ok
        /a/b/devices.allow < c\s1:3\sw = EPERM
        ",
    );
}

#[test]
fn what_is_denied_is_denied_below_and_what_rests_on_it_goes() {
    check(
        r"
        mkdir /a
        mkdir /a/b
        mkdir /a/b/c
        /a/b/c/devices.deny < a = ok
        /a/b/c/devices.allow < c\s1:*\srwm = ok
        /a/b/c/devices.allow < b\s8:0\srw = ok
        /a/devices.deny < c\s1:3\sw = ok
        /a/b/c/devices.list = b\s8:0\srw\n
        /a/b/devices.allow < c\s1:3\sw = EPERM
        /a/devices.deny < b\s8:0\sr = ok
        /a/b/c/devices.list = b\s8:0\sw\n
        ",
    );
}

#[test]
fn a_rule_has_one_space_between_its_parts() {
    for rule in [
        "c 1:3",
        "c  1:3 r",
        "c 1:3  r",
        "c1:3 r",
        "c 1:3 x",
        "c 4294967296:3 r",
        "d 1:3 r",
        "c 000000000001:3 r",
    ] {
        check(&format!("mkdir /a\n/a/devices.deny < {} = EINVAL", rule.replace(' ', r"\s")));
    }
    check(
        r"
        mkdir /a
        /a/devices.deny < a = ok
        /a/devices.allow < c\n1:1\xa0rwmx = ok
        /a/devices.allow < c\s1:2\s\nrubbish = ok
        /a/devices.allow < c\s4294967295:00000000007\smr\n = ok
        /a/devices.list = c\s1:1\srwm\nc\s1:2\s\nc\s*:7\srm\n
        ",
    );
}

const ANY: u32 = u32::MAX;

/// security/device_cgroup.c, line by line and as slow as it likes.
#[derive(Clone, Default)]
struct Naive {
    parent: Option<usize>,
    deny: bool,
    list: Vec<Item>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
struct Item {
    kind: u32,
    major: u32,
    minor: u32,
    access: u32,
}

impl Item {
    fn same(&self, other: &Self) -> bool {
        self.kind == other.kind && self.major == other.major && self.minor == other.minor
    }
}

fn match_exception(list: &[Item], wanted: &Item) -> bool {
    list.iter().any(|item| {
        item.kind == wanted.kind
            && (item.major == ANY || item.major == wanted.major)
            && (item.minor == ANY || item.minor == wanted.minor)
            && wanted.access & !item.access == 0
    })
}

fn match_exception_partial(list: &[Item], wanted: &Item) -> bool {
    list.iter().any(|item| {
        item.kind == wanted.kind
            && (item.major == ANY || wanted.major == ANY || item.major == wanted.major)
            && (item.minor == ANY || wanted.minor == ANY || item.minor == wanted.minor)
            && wanted.access & item.access != 0
    })
}

impl Naive {
    fn add(&mut self, new: Item) {
        for item in &mut self.list {
            if item.same(&new) {
                item.access |= new.access;
                return;
            }
        }
        self.list.push(new);
    }

    fn rm(&mut self, gone: Item) {
        let mut kept = Vec::new();
        for mut item in self.list.drain(..) {
            if item.same(&gone) {
                item.access &= !gone.access;
                if item.access == 0 {
                    continue;
                }
            }
            kept.push(item);
        }
        self.list = kept;
    }

    fn verify(&self, new: &Item, child_denies: bool) -> bool {
        if self.deny {
            return match_exception(&self.list, new);
        }
        !child_denies || !match_exception_partial(&self.list, new)
    }

    fn may(&self, wanted: &Item) -> bool {
        if self.deny {
            match_exception(&self.list, wanted)
        } else {
            !match_exception_partial(&self.list, wanted)
        }
    }

    fn show(&self) -> String {
        if !self.deny {
            return "a *:* rwm\n".to_owned();
        }
        let number = |n: u32| if n == ANY { "*".to_owned() } else { n.to_string() };
        let line = |item: &Item| {
            let letters: String = [(2, 'r'), (4, 'w'), (1, 'm')]
                .iter()
                .filter(|(bit, _)| item.access & bit != 0)
                .map(|(_, c)| c)
                .collect();
            let kind = if item.kind == 1 { 'b' } else { 'c' };
            format!("{kind} {}:{} {letters}\n", number(item.major), number(item.minor))
        };
        self.list.iter().map(line).collect()
    }
}

/// What is written to a group: everything, or one rule.
#[derive(Clone, Copy, Debug)]
struct Write {
    group: usize,
    allow: bool,
    rule: Option<Item>,
}

/// The groups of the property tests, parents first, and which is whose parent.
const GROUPS: [(&str, Option<usize>); 5] =
    [("/", None), ("/a", Some(0)), ("/a/b", Some(1)), ("/a/b/c", Some(2)), ("/a/d", Some(1))];

fn write_naively(groups: &mut [Naive], write: Write) -> &'static str {
    let Write { group, allow, rule } = write;
    let parent = groups[group].parent.map(|parent| groups[parent].clone());
    let Some(rule) = rule else {
        if groups.iter().any(|other| other.parent == Some(group)) {
            return "EINVAL";
        }
        match (allow, parent) {
            (true, Some(parent)) if parent.deny => return "EPERM",
            (true, parent) => {
                (groups[group].deny, groups[group].list) = (false, parent.map_or(Vec::new(), |p| p.list))
            }
            (false, _) => (groups[group].deny, groups[group].list) = (true, Vec::new()),
        }
        return "ok";
    };
    let denies = groups[group].deny;
    if allow {
        let refused = match &parent {
            Some(parent) if denies => !parent.verify(&rule, true),
            Some(parent) => match_exception_partial(&parent.list, &rule),
            None => false,
        };
        if refused {
            return "EPERM";
        }
        if denies {
            groups[group].add(rule)
        } else {
            groups[group].rm(rule)
        }
        return "ok";
    }
    if denies {
        groups[group].rm(rule)
    } else {
        groups[group].add(rule)
    }
    for below in group + 1..groups.len() {
        let above = std::iter::successors(groups[below].parent, |id| groups[*id].parent);
        if !above.into_iter().any(|id| id == group) {
            continue;
        }
        if !denies && !groups[below].deny {
            groups[below].add(rule)
        } else {
            groups[below].rm(rule)
        }
        let parent = groups[groups[below].parent.unwrap()].clone();
        for item in groups[below].list.clone() {
            if !parent.verify(&item, groups[below].deny) {
                groups[below].rm(item);
            }
        }
    }
    "ok"
}

fn any_rule() -> impl Strategy<Value = Item> {
    let number = || prop_oneof![2 => 1_u32..3, 1 => Just(ANY)];
    (1_u32..3, number(), number(), 0_u32..8).prop_map(|(kind, major, minor, access)| Item {
        kind,
        major,
        minor,
        access,
    })
}

fn any_write() -> impl Strategy<Value = Write> {
    (0..GROUPS.len(), any::<bool>(), prop::option::weighted(0.9, any_rule()))
        .prop_map(|(group, allow, rule)| Write { group, allow, rule })
}

fn text_of(rule: Option<Item>) -> String {
    let Some(rule) = rule else { return "a".to_owned() };
    let shown = Naive { deny: true, list: vec![rule], ..Naive::default() }.show();
    // White space at the end would be dropped before the rule is read.
    if rule.access == 0 { format!("{shown}.") } else { shown }
}

fn every_access() -> impl Iterator<Item = Item> {
    (0..2 * 3 * 3 * 8).map(|n| Item { kind: n % 2 + 1, major: n / 2 % 3, minor: n / 6 % 3, access: n / 18 })
}

proptest! {
    #[test]
    fn rules_change_as_in_the_naive_model(writes in prop::collection::vec(any_write(), 1..40)) {
        let mut stage = Stage::new();
        let mut naive = Vec::new();
        // The groups come one after the other, so that each starts with what its parent has by then.
        let (mut writes, share) = (writes.into_iter(), 8);
        for (path, parent) in GROUPS {
            if let Some(parent) = parent {
                stage.mkdir(path);
                naive.push(Naive { parent: Some(parent), ..Naive::clone(&naive[parent]) });
            } else {
                naive.push(Naive::default());
            }
            let there = naive.len();
            for write in writes.by_ref().take(share) {
                let write = Write { group: write.group % there, ..write };
                let file = format!("{}/devices.{}", GROUPS[write.group].0, if write.allow { "allow" } else { "deny" });
                let outcome = stage.write(&file, text_of(write.rule).as_bytes());
                prop_assert_eq!(outcome, write_naively(&mut naive, write), "{:?}", write);
            }
        }
        for ((path, parent), naive_group) in GROUPS.iter().zip(&naive) {
            let list = stage.read(&format!("{path}/devices.list")).unwrap();
            prop_assert_eq!(String::from_utf8(list).unwrap(), naive_group.show());
            let group = stage.group(path);
            let code = program("devices.list", stage.forest.group(group).unwrap().settings());
            for wanted in every_access() {
                let may = naive_group.may(&wanted);
                let mut context = [wanted.access << 16 | wanted.kind, wanted.major, wanted.minor];
                let answer = code.as_ref().map(|code| run(code, &mut context));
                prop_assert_eq!(answer.unwrap_or(1) == 1, may, "{:?} in {}", wanted, path);
                // Who may each of two things by rules of its own may give both by one: v1, too, asks for one rule that has all of them.
                if let Some(parent) = parent && wanted.access.is_power_of_two() {
                    prop_assert!(!may || naive[*parent].may(&wanted), "{:?} in {} and not above", wanted, path);
                }
            }
        }
    }
}
