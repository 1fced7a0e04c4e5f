//! Who may do what: a table of callers, groups and acts.

use std::collections::BTreeSet;

use pinfold_model::{
    Act, Credentials, Errno, Gid, IdMap, Need, NewOwner, Ownership, Place, RULES, Requester, Target, Uid,
    Users, may_attach,
};

/// The callers of the tables below.
fn caller(name: &str) -> Requester {
    let host = |uid| (uid, Users::Daemons { owner: Uid(0) }, true);
    let container = |map: &str, uid: u32| {
        let ids: IdMap = map.parse().expect("a map");
        let uid = ids.outside(uid).expect("a user of it");
        (uid, Users::Below { uids: ids.clone(), gids: ids }, false)
    };
    let (uid, users, is_neighbour) = match name {
        "root" => host(0),
        "alice" => host(1000),
        "bob" => host(1001),
        // The container's users are the host's 100000 to 100999.
        "c-root" => container("0 100000 1000", 0),
        "c-user" => container("0 100000 1000", 7),
        // A container in that one.
        "cc-root" => container("0 100100 100", 0),
        // Anybody may be root of a user namespace with nobody else in it.
        "a-root" => container("0 1000 1", 0),
        // Nobody's root in a user namespace, with the number on the host that the container's root has.
        "n-user" => container("7 100000 1", 7),
        // The host's root's number there.
        "n-zero" => container("7 0 1", 7),
        // Root without a user namespace of its own, but in a container's pid namespace.
        "p-root" => (0, Users::Daemons { owner: Uid(0) }, false),
        // A daemon that runs as alice.
        "owner" => (1000, Users::Daemons { owner: Uid(1000) }, true),
        other => panic!("{other}"),
    };
    Requester { uid: Uid(uid), gid: Gid(uid), users, is_neighbour }
}

fn owned(uid: u32, mode: u16) -> Ownership {
    Ownership { uid: Uid(uid), gid: Gid(uid), mode }
}

/// A group of a user's, below one of another's, with a file.
fn target(place: Place, above: Option<u32>, group: u32, file: u32) -> Target {
    Target {
        place,
        above: above.map(|uid| owned(uid, 0o755)),
        group: owned(group, 0o755),
        file: Some(owned(file, 0o644)),
        to: NewOwner::default(),
    }
}

fn outcome(caller: &Requester, act: Act, target: &Target) -> String {
    match caller.may(act, target) {
        Ok(()) => "ok".to_owned(),
        Err(denied) => format!("{:?}", denied.0),
    }
}

#[test]
fn every_act_has_one_rule_and_every_need_a_use() {
    let acts: BTreeSet<_> = RULES.iter().map(|rule| rule.act).collect();
    assert_eq!(acts.len(), RULES.len());
    let needs: BTreeSet<_> = RULES.iter().flat_map(|rule| rule.needs).collect();
    assert_eq!(needs.len(), 12);
    for rule in &RULES {
        let placed = matches!(rule.needs[0], Need::Within | Need::Below);
        assert!(placed, "{:?} would reach out of the caller's own group", rule.act);
    }
}

#[test]
fn a_group_is_its_owners_and_the_root_of_its_owner() {
    //               group's owner:   0      1000   100000 100100 100999 101000
    for (name, privileged) in [
        ("root", [true, true, true, true, true, true]),
        ("alice", [false, true, false, false, false, false]),
        ("c-root", [false, false, true, true, true, false]),
        ("c-user", [false, false, false, false, false, false]),
        ("cc-root", [false, false, false, true, false, false]),
        ("a-root", [false, true, false, false, false, false]),
        ("owner", [true, true, true, true, true, true]),
    ] {
        let owners = [0, 1000, 100_000, 100_100, 100_999, 101_000];
        let found = owners.map(|owner| caller(name).is_privileged_over(Uid(owner)));
        assert_eq!(found, privileged, "{name}");
    }
}

#[test]
fn what_each_caller_may_do() {
    use Act::*;
    use Place::{Below, Elsewhere, Own};
    // place, owner above, owner of the group, owner of the file; then who, what, and the answer.
    for (place, above, group, file, cases) in [
        // What a container was given: the group, not its limits. It is in there.
        (
            Own,
            Some(0),
            100_000,
            0,
            &[
                ("c-root", Look, "ok"),
                ("c-root", Make, "ok"),
                ("c-root", Set, "NotItsOwnFromOutside"),
                ("c-root", ChmodFile, "NotItsOwnFromOutside"),
                ("c-root", Remove, "Below"),
                ("c-root", RemoveOnEmpty, "Below"),
                ("c-root", Move, "ok"),
                ("c-root", Chown, "ok"),
                ("c-user", Make, "MayWrite"),
                ("c-user", Move, "Privileged"),
                ("c-user", Read, "ok"),
                ("alice", Make, "MayWrite"),
                ("alice", Set, "LimitsOfAnother"),
                ("alice", Kill, "Privileged"),
                ("p-root", Set, "NotItsOwnFromOutside"),
                ("root", Set, "ok"),
            ][..],
        ),
        // A file of the own group that the container got by mistake stays shut: the limit is the container's.
        (
            Own,
            Some(0),
            100_000,
            100_000,
            &[("c-root", Set, "NotItsOwnFromOutside"), ("c-root", ChmodFile, "NotItsOwnFromOutside")],
        ),
        // The same of a user of the host who is in what he was given.
        (
            Own,
            Some(0),
            1000,
            1000,
            &[
                ("alice", Set, "LimitsOfAnother"),
                ("alice", ChmodFile, "FileOfAnother"),
                ("alice", Make, "ok"),
            ],
        ),
        // Whoever owns what is above sets the limits, also of where he is.
        (Own, Some(1000), 1000, 1000, &[("alice", Set, "ok"), ("a-root", Set, "NotItsOwnFromOutside")]),
        // Below what the container was given.
        (
            Below,
            Some(100_000),
            100_000,
            100_000,
            &[
                ("c-root", Set, "ok"),
                ("c-root", Remove, "ok"),
                ("c-root", Chown, "ok"),
                ("c-root", Chmod, "ok"),
                ("c-root", Kill, "ok"),
                ("c-root", ChmodFile, "ok"),
                ("c-root", RemoveOnEmpty, "ok"),
                ("c-user", Set, "LimitsOfAnother"),
                ("c-user", Remove, "MayWriteAbove"),
                ("c-user", Chown, "Privileged"),
                ("cc-root", Set, "LimitsOfAnother"),
            ],
        ),
        // What the container's root gave to a user in it.
        (
            Below,
            Some(100_000),
            100_007,
            100_000,
            &[
                ("c-user", Make, "ok"),
                ("c-user", Move, "ok"),
                ("c-user", Kill, "ok"),
                ("c-user", Set, "LimitsOfAnother"),
                ("c-user", ChmodFile, "FileOfAnother"),
                ("c-root", Set, "ok"),
                ("c-root", Chown, "ok"),
            ],
        ),
        // What is not below the caller's own group, whoever owns it.
        (
            Elsewhere,
            Some(100_000),
            100_000,
            100_000,
            &[
                ("c-root", Look, "Within"),
                ("c-root", Make, "Within"),
                ("c-root", Set, "Within"),
                ("c-root", Move, "Within"),
                ("c-root", Kill, "Within"),
                ("alice", Look, "Within"),
                ("root", Set, "ok"),
                ("owner", Set, "ok"),
            ],
        ),
        // A hierarchy's root, where most processes are.
        (
            Own,
            None,
            0,
            0,
            &[
                ("alice", Look, "ok"),
                ("alice", Read, "ok"),
                ("alice", Make, "MayWrite"),
                ("alice", Set, "NotRoot"),
                ("alice", Move, "NotRoot"),
                ("alice", Chown, "NotRoot"),
                ("p-root", Set, "NotRoot"),
                ("p-root", Move, "NotRoot"),
                ("p-root", Make, "NotRootFromOutside"),
                ("c-root", Make, "NotRootFromOutside"),
                ("p-root", Look, "ok"),
                ("root", Make, "ok"),
                ("owner", Make, "ok"),
            ],
        ),
        // Root without a user namespace of its own, in the group that its container was given.
        (Own, Some(0), 0, 0, &[("p-root", Make, "ok"), ("p-root", Remove, "Below")]),
    ] {
        let target = target(place, above, group, file);
        for (name, act, expected) in cases {
            let found = outcome(&caller(name), *act, &target);
            assert_eq!(found, *expected, "{name}: {act:?} in {target:?}");
        }
    }
}

#[test]
fn groups_are_given_by_a_namespaces_root_to_its_users_alone() {
    let group = target(Place::Below, Some(100_000), 100_000, 100_000);
    for (name, uid, gid, expected) in [
        ("c-root", Some(100_007), None, "ok"),
        ("c-root", Some(100_999), Some(100_999), "ok"),
        ("c-root", Some(101_000), None, "MapsNewOwner"),
        ("c-root", Some(0), None, "MapsNewOwner"),
        ("c-root", None, Some(0), "MapsNewOwner"),
        ("c-root", Some(100_000), Some(100_000), "ok"),
        ("root", Some(0), Some(0), "ok"),
    ] {
        let target = Target { to: NewOwner { uid: uid.map(Uid), gid: gid.map(Gid) }, ..group };
        assert_eq!(outcome(&caller(name), Act::Chown, &target), expected, "{name} to {uid:?}:{gid:?}");
    }
    let of_user = target(Place::Below, Some(1000), 1000, 1000);
    for (name, uid, expected) in [
        ("alice", Some(1000), "ok"),
        ("alice", Some(1001), "MapsNewOwner"),
        ("a-root", Some(1001), "MapsNewOwner"),
    ] {
        let target = Target { to: NewOwner { uid: uid.map(Uid), gid: None }, ..of_user };
        assert_eq!(outcome(&caller(name), Act::Chown, &target), expected, "{name} to {uid:?}");
    }
}

#[test]
fn modes_open_and_close_as_for_files() {
    let place = Place::Below;
    for (name, mode, act, expected) in [
        ("alice", 0o755, Act::Make, "ok"),
        ("alice", 0o555, Act::Make, "MayWrite"),
        // The owner's bits count for the owner, whatever others may.
        ("alice", 0o077, Act::Make, "MayWrite"),
        ("bob", 0o757, Act::Make, "ok"),
        ("bob", 0o775, Act::Make, "MayWrite"),
        ("a-root", 0o000, Act::Make, "ok"),
    ] {
        let target = Target { group: owned(1000, mode), ..target(place, Some(0), 1000, 0) };
        assert_eq!(outcome(&caller(name), act, &target), expected, "{name} {mode:o}");
    }
    let secret = Target { file: Some(owned(0, 0o600)), ..target(place, Some(0), 1000, 0) };
    assert_eq!(outcome(&caller("alice"), Act::Read, &secret), "MayRead");
    let shared = Target { file: Some(owned(0, 0o666)), ..secret };
    assert_eq!(outcome(&caller("alice"), Act::Set, &shared), "ok", "root opened it on purpose");
    assert_eq!(
        outcome(&caller("alice"), Act::Set, &Target { place: Place::Own, ..shared }),
        "LimitsOfAnother"
    );
}

#[test]
fn a_process_is_its_users_and_the_root_of_all_its_users() {
    let process = |real, effective, saved| Credentials {
        real: Uid(real),
        effective: Uid(effective),
        saved: Uid(saved),
    };
    for (name, real, effective, saved, expected) in [
        ("root", 5, 6, 7, true),
        ("alice", 1000, 1000, 1000, true),
        ("alice", 1001, 1001, 1001, false),
        // What he started and what runs as root now: as in v1.
        ("alice", 1000, 0, 0, true),
        // What runs as him for a moment is not his.
        ("alice", 0, 1000, 0, false),
        ("c-root", 100_007, 100_007, 100_007, true),
        ("c-root", 0, 0, 0, false),
        // One foot outside of the container is enough.
        ("c-root", 100_007, 100_007, 0, false),
        ("c-root", 100_007, 0, 100_007, false),
        ("c-user", 100_008, 100_008, 100_008, false),
        ("cc-root", 100_000, 100_000, 100_000, false),
        ("a-root", 1000, 1000, 1000, true),
    ] {
        let found = caller(name).may_move(&process(real, effective, saved));
        assert_eq!(found, expected, "{name}: {real} {effective} {saved}");
    }
    assert!(may_attach(Uid(0), &process(1, 2, 3)));
    assert!(may_attach(Uid(3), &process(1, 2, 3)));
    assert!(!may_attach(Uid(2), &process(1, 2, 3)));
}

#[test]
fn in_anothers_name_nobody_gains_rights() {
    let names =
        ["root", "alice", "bob", "c-root", "c-user", "cc-root", "a-root", "p-root", "n-user", "n-zero"];
    //                for:  root  alice  bob    c-root c-user cc-root a-root p-root n-user n-zero
    for (name, expected) in [
        ("root", [true, true, true, true, true, true, true, true, true, true]),
        ("alice", [false, true, false, false, false, false, true, false, false, false]),
        ("c-root", [false, false, false, true, true, true, false, false, true, false]),
        ("c-user", [false, false, false, false, true, false, false, false, false, false]),
        ("cc-root", [false, false, false, false, false, true, false, false, false, false]),
        // The same user, but on the host: what he may set there, he may not from a container.
        ("a-root", [false, false, false, false, false, false, true, false, false, false]),
        ("p-root", [false, false, false, true, true, true, true, true, true, true]),
        // The same number, but root in the other namespace: over users of whom there are none in this one.
        ("n-user", [false, false, false, false, false, false, false, false, true, false]),
        ("n-zero", [false, false, false, false, false, false, false, false, false, true]),
    ] {
        let found = names.map(|other| caller(name).may_ask_for(&caller(other)));
        assert_eq!(found, expected, "{name}");
    }
    // A group of users that runs as somebody for a moment is not his.
    let other = Requester { gid: Gid(27), ..caller("alice") };
    assert!(!caller("alice").may_ask_for(&other) && caller("root").may_ask_for(&other));
}

#[test]
fn a_refusal_says_why_and_gives_its_errno() {
    let target = target(Place::Elsewhere, Some(0), 0, 0);
    for (act, place, message, errno) in [
        (Act::Look, Place::Elsewhere, "the group is not below the caller's own", Errno::ENOENT),
        (Act::Make, Place::Below, "the group is not the caller's to divide", Errno::EACCES),
        (Act::Move, Place::Below, "the group belongs to somebody else", Errno::EPERM),
        (Act::Set, Place::Below, "limits of a group are set by the owner of the group above", Errno::EPERM),
    ] {
        let denied = caller("bob").may(act, &Target { place, ..target }).unwrap_err();
        assert_eq!((denied.to_string().as_str(), denied.errno()), (message, errno));
    }
}
