//! Rules files: which rule fits, where it sends a process, and what is said of a file that cannot be used.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use pinfold_kernel::process::Namespace;
use pinfold_realm::rules::{Home, Names, Rules, Subject};
use proptest::prelude::*;

fn names() -> Names {
    Names::parse("root:x:0:0::/:/bin/sh\nalice:x:1000:100::/:\nother:x:1000:1::/:\nbroken\n", "wheel:x:10:\n")
}

/// Where the rules send a process, given as `UID GID COMM EXE [new]`.
fn check(rules: &str, process: &str, expected: &str) {
    let rules = Rules::parse(rules, names()).unwrap_or_else(|error| panic!("{rules}: {error}"));
    let fields: Vec<&str> = process.split(' ').collect();
    let new = [Namespace::Pid];
    let subject = Subject {
        process: 77,
        uid: fields[0].parse().unwrap(),
        gid: fields[1].parse().unwrap(),
        comm: fields[2].as_bytes(),
        exe: fields[3].as_bytes(),
        new_namespaces: if fields.len() > 4 { &new } else { &[] },
        homes: &[],
    };
    let targets = rules.decide(&subject, false);
    let shown = targets.iter().map(|target| {
        let path: String =
            target.path.iter().map(|name| format!("/{}", String::from_utf8_lossy(name))).collect();
        format!("{}:{path}", target.hierarchies.join(","))
    });
    assert_eq!(shown.collect::<Vec<_>>().join(" "), expected, "{process}");
}

#[test]
fn the_first_rule_that_fits_decides() {
    let rules = "\
        [[rule]]\ncomm = 'make'\nuid = ['alice', 5]\ngroup = 'cpu,memory:/builds/%u'\n\
        [[rule]]\nuid = 'alice'\ngroup = ['pids:/users/%U', '/all/%g/%p.%P']\n\
        [[rule]]\ngid = 10\ngroup = '/%g'\n\
        [[rule]]\nexe = '/opt/*'\ngroup = '/opt%%/x'\n";
    //                 uid  gid  comm exe
    check(rules, "1000 10 make /bin/make", "cpu,memory:/builds/alice");
    check(rules, "5 10 make /bin/make", "cpu,memory:/builds/5");
    check(rules, "1000 10 sh /opt/sh", "pids:/users/1000 :/all/wheel/sh.77");
    check(rules, "6 10 make /opt/make", ":/wheel");
    check(rules, "6 11 make /opt/make", ":/opt%/x");
    check(rules, "6 11 make /usr/opt/make", "");
}

/// From which name on groups go when they are empty.
#[test]
fn groups_that_anybody_can_have_any_number_of_go_when_they_are_empty() {
    let own_from = |path: &str, uid, gid| {
        let rules = Rules::parse(&format!("[[rule]]\ngroup = '{path}'\n"), names()).unwrap();
        let subject =
            Subject { process: 7, uid, gid, comm: b"x", exe: b"/x", new_namespaces: &[], homes: &[] };
        rules.decide(&subject, false)[0].own_from
    };
    for (path, uid, gid, expected) in [
        ("/a/b", 100_000, 100_000, None),
        ("/a/%u", 1000, 100_000, None),
        ("/a/%u", 100_000, 10, Some(1)),
        ("/%U/a", 1000, 100_000, None),
        ("/%U/a", 100_000, 10, Some(0)),
        ("/a/%g", 100_000, 10, None),
        ("/a/b/%G", 1000, 100_000, Some(2)),
        ("/%u/%p", 1000, 10, Some(1)),
        ("/%u/%P", 100_000, 10, Some(0)),
    ] {
        assert_eq!(own_from(path, uid, gid), expected, "{path} {uid} {gid}");
    }
    // Who follows the first of a namespace does so by a name that may be anybody's.
    let rules = Rules::parse("[[rule]]\nnew_namespace = 'pid'\ngroup = '/ns/%u'\n", names()).unwrap();
    let homes = [Home { line: 1, paths: vec![vec![b"ns".to_vec(), b"100000".to_vec()]] }];
    let subject =
        Subject { process: 7, uid: 0, gid: 0, comm: b"x", exe: b"/x", new_namespaces: &[], homes: &homes };
    assert_eq!(rules.decide(&subject, false)[0].own_from, Some(1));
}

#[test]
fn a_new_namespace_is_a_condition_like_others() {
    let rules = "[[rule]]\nnew_namespace = 'pid'\nuid = 0\ngroup = '/containers/%P'\n";
    check(rules, "0 0 init /sbin/init new", ":/containers/77");
    check(rules, "0 0 init /sbin/init", "");
    check(rules, "1 0 init /sbin/init new", "");
}

/// Whatever they execute and whoever they are; but rules before it come first, also for them.
#[test]
fn the_others_of_a_namespace_go_where_its_first_process_went() {
    let rules = "[[rule]]\nuid = 7\ngroup = '/seven'\n\
        [[rule]]\nnew_namespace = 'pid'\nuid = 0\ngroup = ['/ns/%P', 'cpu:/c/%p']\n\
        [[rule]]\ncomm = 'x'\ngroup = '/last'\n";
    let rules = Rules::parse(rules, names()).unwrap();
    let path = |text: &str| text.split('/').skip(1).map(|name| name.as_bytes().to_vec()).collect::<Vec<_>>();
    let home = |line| Home { line, paths: vec![path("/ns/42"), path("/c/init")] };
    let decide = |uid, homes: &[Home], only_new| {
        let subject = Subject { process: 9, uid, gid: 0, comm: b"x", exe: b"/x", new_namespaces: &[], homes };
        let targets = rules.decide(&subject, only_new);
        targets.into_iter().map(|target| target.path).collect::<Vec<_>>()
    };
    assert_eq!(decide(1, &[home(4)], false), [path("/ns/42"), path("/c/init")]);
    assert_eq!(decide(1, &[home(4)], true), [path("/ns/42"), path("/c/init")]);
    assert_eq!(decide(7, &[home(4)], false), [path("/seven")]);
    assert_eq!(decide(7, &[home(4)], true), Vec::<Vec<Vec<u8>>>::new());
    assert_eq!(decide(1, &[], false), [path("/last")]);
}

/// A child of a process that was not moved is where its parent is: only rules about namespaces may say otherwise.
#[test]
fn of_the_newly_born_only_those_in_new_namespaces_move() {
    let rules = "[[rule]]\nuid = 1\ngroup = '/one'\n[[rule]]\nnew_namespace = 'pid'\ngroup = '/new'\n";
    let rules = Rules::parse(rules, names()).unwrap();
    let new = [Namespace::Pid];
    let decide = |uid, new_namespaces| {
        let subject = Subject { process: 7, uid, gid: 0, comm: b"x", exe: b"/x", new_namespaces, homes: &[] };
        rules.decide(&subject, true).len()
    };
    assert_eq!(decide(2, &new), 1);
    assert_eq!(decide(2, &[]), 0);
    assert_eq!(decide(1, &new), 0, "the first rule that fits decides, also that nothing is done");
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    for (rules, expected) in [
        ("[[rule]]\nuid = 1\n", "line 1: missing field `group`"),
        ("# a\n[[rule]]\ngroup = '/a'\nuser = 1\n", "line 4: unknown field `user`"),
        ("[[rule]]\ngroup = '/a'\n\nuid = 'nobody-such'\n", "line 4: no user is called \"nobody-such\""),
        ("[[rule]]\ngroup = '/a'\ngid = -1\n", "line 3: -1 is no group of users's number"),
        ("[[rule]]\ngroup = '/a'\nuid = 4294967295\n", "line 3: 4294967295 is no user's number"),
        (
            "[[rule]]\ngroup = '/a'\nuid = 1.5\n",
            "line 3: a value of type float is neither a number nor a name of a user",
        ),
        ("[[rule]]\ngroup = '/a'\nuid = []\n", "line 3: an empty list fits nothing"),
        (
            "[[rule]]\ngroup = 'a'\n",
            "line 2: \"a\" is no group: write CONTROLLERS:PATH or PATH, PATH beginning with /",
        ),
        ("[[rule]]\ngroup = 'cpu,:/a'\n", "line 2: \"\" is no controller and no name= of a hierarchy"),
        ("[[rule]]\ngroup = '/a/../b'\n", "line 2: \"/a/../b\": \"..\" is no name of a group"),
        (
            "[[rule]]\ngroup = '/%x'\n",
            "line 2: \"/%x\": %x stands for nothing: there are %u %U %g %G %p %P and %%",
        ),
        (
            "[[rule]]\ngroup = '/a%'\n",
            "line 2: \"/a%\": % stands for nothing: there are %u %U %g %G %p %P and %%",
        ),
        ("[[rule]]\ngroup = '/a'\nexe = 'sh'\n", "line 3: \"sh\" never fits: exe is an absolute path"),
        (
            "[[rule]]\ngroup = '/a'\ncomm = '0123456789abcdef'\n",
            "line 3: \"0123456789abcdef\" never fits: a name has at most 15 bytes",
        ),
        (
            "[[rule]]\ngroup = '/a'\nnew_namespace = 'network'\n",
            "line 3: \"network\" is no kind of namespace: pid, user, mount, cgroup, net, uts, ipc, time",
        ),
        ("[[rule]]\ngroup = [1]\n", "line 2: 1 is no string"),
        ("[rule]\ngroup = '/a'\n", "line 1: "),
        ("[[rule]]\ngroup = '/a\n", "line 2: "),
        ("[[rule]\n", "line 1: "),
    ] {
        let error = Rules::parse(rules, names()).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{rules:?}: {error}");
        assert!(!error.contains('\n'), "{error:?}");
    }
    assert!(Rules::parse("", names()).unwrap().is_empty());
}

proptest! {
    #[test]
    fn any_text_is_rules_or_an_error_at_one_of_its_lines(text in "(\\[\\[rule\\]\\]\n|group = '[a-z/:%]{0,8}'\n|uid = [-a-z0-9\\[\\]]{0,5}\n|\\PC{0,6}\n){0,8}") {
        if let Err(error) = Rules::parse(&text, names()) {
            prop_assert!(error.line >= 1 && error.line <= 1 + text.lines().count());
        }
    }

    /// Whatever a process calls itself, a name is one component, and never `.` or `..`.
    #[test]
    fn no_name_of_a_process_leads_elsewhere(comm in proptest::collection::vec(any::<u8>(), 0..15)) {
        let rules = Rules::parse("[[rule]]\ngroup = '/a/%p'\n", names()).unwrap();
        let subject = Subject { process: 7, uid: 0, gid: 0, comm: &comm, exe: b"/x", new_namespaces: &[], homes: &[] };
        let path = rules.decide(&subject, false).remove(0).path;
        prop_assert_eq!(path.len(), 2);
        prop_assert!(!path[1].is_empty() && !path[1].contains(&b'/') && !path[1].iter().all(|byte| *byte == b'.'));
    }
}
