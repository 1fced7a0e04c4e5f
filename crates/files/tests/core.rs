//! cgroups.rst and the base files of kernel/cgroup/cgroup-v1.c.

use crate::stage::check;

#[test]
fn a_group_fresh_from_the_root_has_every_flag_off() {
    check(
        r"
        /notify_on_release = 0\n
        /cgroup.clone_children = 0\n
        /cgroup.sane_behavior = 0\n
        /release_agent = \n
        mkdir /a
        /a/notify_on_release = 0\n
        /a/cgroup.clone_children = 0\n
        /a/cgroup.sane_behavior = ENOENT
        /a/release_agent = ENOENT
        ",
    );
}

#[test]
fn a_flag_is_any_number_and_nothing_else() {
    check(
        r"
        /notify_on_release < 2 = ok
        /notify_on_release = 1\n
        /notify_on_release < +0\n = ok
        /notify_on_release = 0\n
        /notify_on_release < 18446744073709551615 = ok
        /notify_on_release = 1\n
        /notify_on_release < 0x0\x00junk = ok
        /notify_on_release = 0\n
        /notify_on_release < 010 = ok
        /notify_on_release < -0 = EINVAL
        /notify_on_release < -1 = EINVAL
        /notify_on_release < \s0 = EINVAL
        /notify_on_release < 0\s = EINVAL
        /notify_on_release < 0\n\n = EINVAL
        /notify_on_release < 08 = EINVAL
        /notify_on_release < x = EINVAL
        /notify_on_release < \n = EINVAL
        /notify_on_release < 18446744073709551616 = ERANGE
        /notify_on_release < '' = ok
        /notify_on_release = 1\n
        /cgroup.clone_children < 7 = ok
        /cgroup.clone_children = 1\n
        /cgroup.sane_behavior < 0 = EINVAL
        ",
    );
}

#[test]
fn a_child_starts_with_its_parents_flags_and_keeps_them() {
    check(
        r"
        mkdir /a
        /a/notify_on_release < 1 = ok
        /a/cgroup.clone_children < 1 = ok
        mkdir /a/b
        /a/b/notify_on_release = 1\n
        /a/b/cgroup.clone_children = 1\n
        /a/notify_on_release < 0 = ok
        /a/b/notify_on_release = 1\n
        /a/b/notify_on_release < 0 = ok
        mkdir /a/b/c
        /a/b/c/notify_on_release = 0\n
        ",
    );
}

#[test]
fn a_release_agent_is_any_text_without_the_white_space_around_it() {
    check(
        r"
        /release_agent < \s/a\sb\s\n = ok
        /release_agent = /a\sb\n
        /release_agent < a\nb = ok
        /release_agent = a\nb\n
        /release_agent < /x\x00y = ok
        /release_agent = /x\n
        /release_agent < \xff\xfe = ok
        /release_agent = \xff\xfe\n
        /release_agent < '' = ok
        /release_agent = \xff\xfe\n
        /release_agent < \n = ok
        /release_agent = \n
        ",
    );
}

// cgroup_release_agent_write() asks for CAP_SYS_ADMIN in the initial user namespace since Linux 5.17; no other core file does.
#[test]
fn only_an_administrator_names_a_release_agent() {
    let admins: Vec<_> = pinfold_files::CORE
        .files
        .iter()
        .filter(|file| file.writer.is_admin())
        .map(|file| file.name)
        .collect();
    assert_eq!(admins, ["release_agent"]);
}

/// A write of this many bytes, none of which is looked at if they are too many.
fn check_length(path: &str, length: usize, outcome: &str) {
    let text = format!("0{}", "\\s".repeat(length - 1));
    check(&format!("mkdir /a\n{path} < {text} = {outcome}"));
}

#[test]
fn a_write_has_at_most_a_page() {
    check_length("/a/pids.max", 4096, "ok");
    check_length("/a/pids.max", 4097, "E2BIG");
    check_length("/a/notify_on_release", 4096, "EINVAL");
    check_length("/a/notify_on_release", 4097, "E2BIG");
    check_length("/a/tasks", 4096, "writer");
    check_length("/a/tasks", 4097, "E2BIG");
    check_length("/a/pids.current", 4096, "EINVAL");
    check_length("/a/pids.current", 4097, "E2BIG");
    check_length("/cgroup.sane_behavior", 4097, "E2BIG");
    check_length("/release_agent", 4095, "ok");
    check_length("/release_agent", 4096, "E2BIG");
}

// Each line was seen on Linux 6.1, for both files.
#[test]
fn an_attach_names_a_task_by_a_number_of_32_bits() {
    for file in ["tasks", "cgroup.procs"] {
        check(
            &r"
            mkdir /a
            /a/FILE < 0 = writer
            /a/FILE < +0 = writer
            /a/FILE < -0 = writer
            /a/FILE < 0\n\n = writer
            /a/FILE < \x0b0\x0b = writer
            /a/FILE < \xa00 = writer
            /a/FILE < 0\x00x = writer
            /a/FILE < 17 = 17
            /a/FILE < 0x11 = 17
            /a/FILE < 021\n = 17
            /a/FILE < 2147483647 = 2147483647
            /a/FILE < 2147483648 = EINVAL
            /a/FILE < 4294967296 = EINVAL
            /a/FILE < 99999999999999999999 = EINVAL
            /a/FILE < -1 = EINVAL
            /a/FILE < -2147483649 = EINVAL
            /a/FILE < abc = EINVAL
            /a/FILE < a\sb = EINVAL
            /a/FILE < 1\s1 = EINVAL
            /a/FILE < 0x = EINVAL
            /a/FILE < 08 = EINVAL
            /a/FILE < \s = EINVAL
            /a/FILE < \n = EINVAL
            /a/FILE < '' = ok
            "
            .replace("FILE", file),
        );
    }
}
