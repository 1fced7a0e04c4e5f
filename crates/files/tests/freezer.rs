//! freezer-subsystem.rst and kernel/cgroup/legacy_freezer.c.

use crate::stage::check;

/// State, self_freezing and parent_freezing of /a/b, below /a, after each was written a state; the carriers of /a/b
/// say `frozen` as given (`-` for a group without carriers).
fn check_state(a: &str, b: &str, frozen: &str, expected: &str) {
    let [state, own, above] = expected.split(' ').collect::<Vec<_>>()[..] else {
        panic!("three words: {expected}")
    };
    let carriers: String = frozen
        .split(' ')
        .filter(|word| *word != "-")
        .map(|word| format!("v2 /a/b carrier cgroup.events populated\\s1\\nfrozen\\s{word}\\n\n"))
        .collect();
    check(&format!(
        r"
        mkdir /a
        mkdir /a/b
        /a/freezer.state < {a} = ok
        /a/b/freezer.state < {b} = ok
        {carriers}
        /a/b/freezer.state = {state}\n
        /a/b/freezer.self_freezing = {own}\n
        /a/b/freezer.parent_freezing = {above}\n
        "
    ));
}

#[test]
fn the_state_follows_from_the_flags_and_what_the_carriers_say() {
    // written to:   parent    group     carriers  state    self parent
    check_state("THAWED", "THAWED", "-", "THAWED 0 0");
    check_state("THAWED", "THAWED", "0", "THAWED 0 0");
    check_state("THAWED", "THAWED", "1", "THAWED 0 0");
    check_state("THAWED", "FROZEN", "-", "FROZEN 1 0");
    check_state("THAWED", "FROZEN", "0", "FREEZING 1 0");
    check_state("THAWED", "FROZEN", "1", "FROZEN 1 0");
    check_state("THAWED", "FROZEN", "1 0", "FREEZING 1 0");
    check_state("THAWED", "FROZEN", "1 1", "FROZEN 1 0");
    check_state("FROZEN", "THAWED", "-", "FROZEN 0 1");
    check_state("FROZEN", "THAWED", "0", "FREEZING 0 1");
    check_state("FROZEN", "THAWED", "1", "FROZEN 0 1");
    check_state("FROZEN", "FROZEN", "0 1", "FREEZING 1 1");
    check_state("FROZEN", "FROZEN", "1", "FROZEN 1 1");
}

#[test]
fn a_kernel_that_does_not_say_frozen_is_not_believed_to_have_stopped() {
    check(
        r"
        mkdir /a
        /a/freezer.state < FROZEN = ok
        v2 /a carrier cgroup.events populated\s1\n
        /a/freezer.state = FREEZING\n
        ",
    );
}

#[test]
fn only_frozen_and_thawed_are_taken() {
    check(
        r"
        mkdir /a
        /a/freezer.state = THAWED\n
        /a/freezer.state < \x0b\xa0FROZEN\s\n = ok
        /a/freezer.state = FROZEN\n
        /a/freezer.state < FREEZING = EINVAL
        /a/freezer.state < thawed = EINVAL
        /a/freezer.state < THAWEDX = EINVAL
        /a/freezer.state < 0 = EINVAL
        /a/freezer.state < \n = EINVAL
        /a/freezer.state < '' = ok
        /a/freezer.state = FROZEN\n
        /a/freezer.state < THAWED\x00X = ok
        /a/freezer.state = THAWED\n
        /a/freezer.self_freezing < 1 = EINVAL
        /a/freezer.parent_freezing < 1 = EINVAL
        /freezer.state = ENOENT
        ",
    );
}

// As seen on Linux 6.1.
#[test]
fn a_group_made_below_a_frozen_one_is_frozen_and_thaws_with_it() {
    check(
        r"
        mkdir /a
        mkdir /a/b
        /a/b/freezer.state < FROZEN = ok
        mkdir /a/b/c
        /a/freezer.state = THAWED\n
        /a/b/c/freezer.state = FROZEN\n
        /a/b/c/freezer.self_freezing = 0\n
        /a/b/c/freezer.parent_freezing = 1\n
        /a/b/c/freezer.state < THAWED = ok
        /a/b/c/freezer.state = FROZEN\n
        /a/b/freezer.state < THAWED = ok
        /a/b/c/freezer.state = THAWED\n
        ",
    );
}

/// What holds in /a/b/c when FROZEN was written to the groups named.
#[test]
fn what_is_written_to_a_leaf_is_the_or_of_its_group_and_all_above() {
    for (written, expected) in
        [("", false), ("/a", true), ("/a/b", true), ("/a/b/c", true), ("/a /a/b/c", true), ("/x", false)]
    {
        let mut stage = crate::stage::Stage::new();
        for path in ["/a", "/a/b", "/a/b/c", "/x"] {
            stage.mkdir(path);
        }
        for path in written.split_whitespace() {
            let group = stage.group(path);
            let id = pinfold_files::named("freezer.state").unwrap();
            let Ok(pinfold_files::Request::Change(change)) = stage.parse(group, id, b"FROZEN") else {
                panic!()
            };
            stage.carry_out(group, change);
        }
        let effective = pinfold_files::FROZEN.effective(&stage.forest, stage.group("/a/b/c"));
        assert_eq!(effective, pinfold_model::Value::Flag(expected), "written to {written:?}");
    }
}
