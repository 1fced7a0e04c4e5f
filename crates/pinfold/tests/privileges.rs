//! Who may do what, sentence by sentence: where each is tested for real, and tests of those that are nobody else's subject.

use std::io::Write;
use std::os::unix::fs::MetadataExt;

use crate::bus::others::Other;
use crate::bus::wire;
use crate::container::Shell;
use crate::daemon::Daemon;

/// A user of the host's.
const BOB: u32 = 54_350;

/// A sentence, and the tests that hold it.
type Sentence = (&'static str, &'static [(&'static str, &'static str)]);

/// Every sentence.
#[rustfmt::skip] // a table
const SENTENCES: &[Sentence] = &[
    ("the caller's credentials come from the socket, never from the message", &[
        (OWN, "who_says_that_it_is_root_is_who_it_is"),
    ]),
    ("they are checked against the reuse of a process's number", &[
        (CLIENTS, "who_has_ended_asks_for_nothing_though_its_connection_is_held"),
        (DESCRIPTORS, "without_descriptors_of_callers_they_are_held_when_they_are_accepted"),
        (DESCRIPTORS, "who_gets_a_number_between_the_look_and_the_move_is_moved_back"),
    ]),
    ("paths begin at the caller's own group and do not leave it; only the host's root uses absolute ones", &[
        (CONTAINERS, "every_way_out_of_a_container_is_shut"),
        (CONTAINERS, "a_container_that_is_in_no_group_has_none_below"),
    ]),
    ("privileged over a group is its owner, and root of a user namespace that the owner is in", &[
        (CONTAINERS, "a_container_divides_what_it_was_given"),
        (CONTAINERS, "a_container_in_a_container_needs_no_proxy"),
    ]),
    ("privileged over a process is its user, and root of a user namespace that its users are in, if it sees it", &[
        (CONTAINERS, "a_users_processes_come_only_from_below"),
        (CONTAINERS, "every_way_out_of_a_container_is_shut"),
        (CONTAINERS, "nobody_kills_who_is_not_his"),
        (DESCRIPTORS, "a_users_descriptor_gives_no_right_over_its_process"),
    ]),
    ("to make a group needs write access to the one above, and the new one is its maker's", &[
        (OWN, "a_new_group_is_its_makers_with_every_file"),
        (CONTAINERS, "a_container_divides_what_it_was_given"),
    ]),
    ("limits of a group are set by the owner of the one above; a group is given without them", &[
        (OWN, "a_group_is_given_with_what_its_owner_needs_and_without_its_limits"),
        (CONTAINERS, "a_users_processes_come_only_from_below"),
    ]),
    ("from a container nobody sets the limits of his own group, but of those below", &[
        (CONTAINERS, "a_container_in_a_container_needs_no_proxy"),
        (OWN, "through_a_mount_the_owner_of_a_file_writes_it_from_inside_too_as_on_v1"),
    ]),
    ("nobody but the host sets anything of a root group", &[
        (CONTAINERS, "a_users_processes_come_only_from_below"),
    ]),
    ("to move needs privilege over the process and the group, and the process is below the caller", &[
        (CONTAINERS, "a_users_processes_come_only_from_below"),
        (DESCRIPTORS, "a_descriptor_opens_no_way_out_of_a_container"),
    ]),
    ("paths and numbers of the host are told to its root alone", &[
        (OWN, "why_nothing_could_be_done_on_the_host_is_told_to_its_root_alone"),
    ]),
    ("how many groups somebody makes, and how deep, is bounded", &[
        (BOUNDS, "a_million_nested_groups_are_not_made"),
        (BOUNDS, "root_of_a_container_with_the_hosts_users_is_bounded_like_others"),
    ]),
    ("nobody gets out of limits that were set above, at no door, and they hold in fact", &[
        (ESCAPING, "root_of_a_container_does_not_get_out_of_its_limits"),
        (ESCAPING, "a_user_of_a_container_and_root_of_one_in_it_does_not_get_out_of_its_limits"),
        (ESCAPING, "a_user_whose_groups_are_elsewhere_in_each_hierarchy_does_not_get_out_of_their_limits"),
        (ESCAPING, "root_of_a_container_with_the_hosts_users_does_not_get_out_of_its_limits_by_calls"),
    ]),
    ("the same holds through a mount", &[
        (CONTAINERS, "through_a_mount_root_of_an_unprivileged_namespace_may_what_its_user_may"),
    ]),
];

const OWN: &str = include_str!("privileges.rs");
const BOUNDS: &str = include_str!("bounds.rs");
const CLIENTS: &str = include_str!("clients.rs");
const CONTAINERS: &str = include_str!("containers.rs");
const DESCRIPTORS: &str = include_str!("descriptors.rs");
const ESCAPING: &str = include_str!("escaping.rs");

#[test]
fn every_sentence_has_a_test() {
    for (sentence, tests) in SENTENCES {
        assert!(!tests.is_empty(), "{sentence}");
        for (module, test) in *tests {
            assert!(module.contains(&format!("#[test]\nfn {test}() {{")), "{sentence}: there is no {test}");
        }
    }
}

/// A realm with a group of Bob's.
fn realm(mount: &str) -> Option<Daemon> {
    let daemon = Daemon::serving(mount)?;
    daemon.ok(&["create", "/bob"]);
    daemon.ok(&["chown", &format!("{BOB}:{BOB}"), "/bob"]);
    Some(daemon)
}

#[test]
fn who_says_that_it_is_root_is_who_it_is() {
    let Some(mut daemon) = realm("none,name=x:cg") else { return };
    let socket = format!("{}.public/socket", daemon.state().display());
    let mut bob = Other::new(BOB, socket);
    let mut stream = bob.connect();
    // 30 is `0`, in hexadecimal.
    stream.write_all(b"\0AUTH EXTERNAL 30\r\nBEGIN\r\n").expect("the daemon talks");
    stream.write_all(&wire::call_with("Delete", &["/bob"])).expect("the daemon talks");
    wire::read_until(&mut stream, b"org.pinfold.Error.EPERM");
    assert!(daemon.path("cg/bob").exists());
    daemon.down();
}

/// Who owns each file of a group's directory: those of Bob, and the others.
fn owned(daemon: &Daemon, group: &str) -> (Vec<String>, Vec<String>) {
    let entries = std::fs::read_dir(daemon.path(group)).expect("it is there").flatten();
    let files = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    let (his, others): (Vec<_>, Vec<_>) =
        files.partition(|file| file.metadata().is_ok_and(|file| (file.uid(), file.gid()) == (BOB, BOB)));
    let names = |files: Vec<std::fs::DirEntry>| {
        let mut names: Vec<_> =
            files.iter().map(|file| file.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    };
    (names(his), names(others))
}

#[test]
fn a_new_group_is_its_makers_with_every_file() {
    let Some(mut daemon) = realm("all:cg") else { return };
    let mut bob = Shell::of_user(&daemon, BOB, "/bob");
    bob.ok("create web");
    let (his, others) = owned(&daemon, "cg/bob/web");
    assert!(others.is_empty() && his.len() > 3, "{his:?} {others:?}");
    let web = std::fs::metadata(daemon.path("cg/bob/web")).expect("it was made");
    assert_eq!((web.uid(), web.gid()), (BOB, BOB));
    bob.refused("create /web", "EPERM");
    daemon.ok(&["chmod", "555", "/bob"]);
    bob.refused("create other", "EACCES");
    drop(bob);
    daemon.ok(&["rm", "-r", "/bob"]);
    daemon.down();
}

#[test]
fn a_group_is_given_with_what_its_owner_needs_and_without_its_limits() {
    let Some(mut daemon) = realm("all:cg") else { return };
    let (his, others) = owned(&daemon, "cg/bob");
    assert_eq!(his, ["cgroup.procs", "tasks"]);
    assert!(others.contains(&"notify_on_release".to_owned()), "{others:?}");
    let mut bob = Shell::of_user(&daemon, BOB, "/bob");
    let keys = daemon.ok(&["ls", "-l", "/bob"]);
    for file in &others {
        let said = bob.run(&format!("timeout 60 $pinfold set . {file}=1"));
        assert_ne!(said.status, 0, "{file}: {}", said.text);
    }
    assert_eq!(daemon.ok(&["ls", "-l", "/bob"]), keys);
    drop(bob);
    daemon.ok(&["rm", "-r", "/bob"]);
    daemon.down();
}

#[test]
fn why_nothing_could_be_done_on_the_host_is_told_to_its_root_alone() {
    let Some(mut daemon) = realm("none,name=x:cg") else { return };
    let mut bob = Shell::of_user(&daemon, BOB, "/bob");
    // What changes is written here first.
    let unfinished = daemon.state().join("tmp");
    std::fs::remove_dir(&unfinished).expect("nothing is under way");
    let path = unfinished.display().to_string();
    let said = bob.run("timeout 60 $pinfold create web");
    assert!(
        said.status != 0 && said.text.contains("x:web: the change could not be kept (EIO)"),
        "{}",
        said.text
    );
    assert!(!said.text.contains(&path), "{}", said.text);
    assert!(daemon.refused(&["set", "/bob", "notify_on_release=1"]).contains(&path));
    std::fs::create_dir(&unfinished).expect("it is ours");
    bob.ok("create web");
    drop(bob);
    daemon.ok(&["rm", "-r", "/bob"]);
    daemon.down();
}

/// There owner and mode decide, wherever the writer is. It is no way out: the group is his own making, below one whose limits hold.
#[test]
fn through_a_mount_the_owner_of_a_file_writes_it_from_inside_too_as_on_v1() {
    let Some(mut daemon) = realm("none,name=x:cg") else { return };
    let mut root = Shell::of_user_at_mounts(&daemon, BOB, "/bob");
    root.run(&format!("cd {}", daemon.dir.display()));
    root.enter("unshare --user --map-root-user --pid --fork --kill-child --mount-proc");
    for (command, is) in [
        ("mkdir cg/bob/web", true),
        // The writer.
        ("echo 0 > cg/bob/web/tasks", true),
        ("echo 1 > cg/bob/web/notify_on_release", true),
        ("echo 1 > cg/bob/notify_on_release", false),
    ] {
        let said = root.run(command);
        assert_eq!(said.status == 0, is, "{command}: {}", said.text);
    }
    root.refused("set . notify_on_release=0", "EPERM");
    assert_eq!(daemon.read("cg/bob/web/notify_on_release"), "1\n");
    root.ok("create below");
    root.ok("set below notify_on_release=1");
    root.leave();
    drop(root);
    daemon.ok(&["rm", "-r", "/bob"]);
    daemon.down();
}
