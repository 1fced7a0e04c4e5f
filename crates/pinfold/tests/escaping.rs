//! A tenant tries every way out of the limits that somebody above it has set, at every door; then they still hold in fact.
//! Only where the v2 tree has controllers.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use pinfold_dbus::cgmanager;

use crate::container::inside::{self, group, result};
use crate::container::{FIRST, Shell};
use crate::daemon::{Daemon, PYTHON, eventually, in_guest, text};

/// Users of the host's: one who is a tenant, and one whose group is beside the tenant's.
const BOB: u32 = 54_360;
const OTHER: u32 = 54_361;

/// What a tenant is given.
const MEMORY: u64 = 64 << 20;
const TASKS: usize = 24;
const QUOTA: u64 = 100_000;

/// Where a tenant is in the hierarchies of memory, pids and cpu: each group's name, and its directory.
type Place = [(&'static str, &'static str); 3];

/// In one group of one hierarchy, as most containers are.
const TOGETHER: Place = [("memory:/t", "cg/t"), ("pids:/t", "cg/t"), ("cpu:/t", "cg/t")];

/// In each in another, so that no v2 directory is that of all three.
const APART: Place = [("memory:/t", "m/t"), ("pids:/jobs/t", "p/jobs/t"), ("cpu:/x/y/t", "c/x/y/t")];

/// A realm with a group for a tenant, with limits, and one beside it that is another's.
fn realm(place: &Place, owner: u32) -> Option<Daemon> {
    let mut daemon = Daemon::new()?;
    let mounts: &[(&str, &str)] = if place[0].1 == place[1].1 {
        &[("memory,pids,cpu,cpuacct", "cg")]
    } else {
        &[("memory", "m"), ("pids", "p"), ("cpu,cpuacct", "c")]
    };
    let dir = daemon.dir.display().to_string();
    let mut arguments: Vec<_> =
        mounts.iter().map(|(options, below)| format!("--mount={options}:{dir}/{below}")).collect();
    arguments.push(format!("--cgmanager={}", manager(&daemon).display()));
    if let Err(output) = daemon.try_serve(&arguments) {
        panic!("the daemon did not start: {}", text(&output.stderr));
    }
    // What tenants write is here.
    assert!(daemon.script("mkdir -m 1777 shared").status.success());
    let limits = [
        format!("memory.limit_in_bytes={MEMORY}"),
        format!("pids.max={TASKS}"),
        format!("cpu.cfs_quota_us={QUOTA}"),
    ];
    for ((group, dir), limit) in place.iter().zip(&limits) {
        let beside = beside(group);
        if !daemon.path(dir).exists() {
            daemon.ok(&["create", "-p", group]);
            daemon.ok(&["create", &beside]);
        }
        daemon.ok(&["chown", &format!("{owner}:{owner}"), group]);
        daemon.ok(&["chown", &format!("{OTHER}:{OTHER}"), &beside]);
        daemon.ok(&["set", group, limit]);
    }
    Some(daemon)
}

/// The socket of cgmanager's clients.
fn manager(daemon: &Daemon) -> PathBuf {
    daemon.dir.join("cgmanager.sock")
}

/// Has a shell know where things are.
fn ready(daemon: &Daemon, shell: &mut Shell, [(_, m), (_, p), (_, c)]: [(&str, &str); 3]) {
    let dir = daemon.dir.display();
    let said = shell.run(&format!("cd {dir}/shared; m={dir}/{m} p={dir}/{p} c={dir}/{c}; export m p c"));
    assert_eq!((said.text.as_str(), said.status), ("", 0));
}

/// What a tenant calls, and what comes of it; `self` is the process that calls, `shell` the one that it belongs to.
#[rustfmt::skip] // a table
const CALLS: &[(&str, &str)] = &[
    // What holds it.
    ("set . memory.limit_in_bytes -1",      "EPERM"),
    ("set . memory.limit 1073741824",       "EPERM"),
    ("set . memory.memsw.limit_in_bytes -1","EPERM"),
    ("set . memory.oom_control 1",          "EPERM"),
    ("set . memory.use_hierarchy 0",        "EPERM"),
    ("set . memory.force_empty 0",          "EPERM"),
    ("set . memory.move_charge_at_immigrate 3", "EPERM"),
    ("set . pids.max max",                  "EPERM"),
    ("set . pids.limit 10000",              "EPERM"),
    ("set . cpu.cfs_quota_us -1",           "EPERM"),
    ("set . cpu.cfs_period_us 1000",        "EPERM"),
    ("set . cpu_quota_percent 100",         "EPERM"),
    ("set . cpu.shares 262144",             "EPERM"),
    ("set / memory.limit_in_bytes -1",      "EPERM"),
    ("set /t memory.limit_in_bytes -1",     "EPERM"),
    ("set /other pids.max 1",               "EPERM"),
    // Its own group, away and made again without them.
    ("delete .",                            "EPERM"),
    ("force .",                             "EBUSY"),
    ("when-empty .",                        "EPERM"),
    ("delete /t",                           "EPERM"),
    ("force /t",                            "EPERM"),
    ("create /t",                           "EPERM"),
    ("create /new",                         "EPERM"),
    // To where they do not hold.
    ("move self /",                         "EPERM"),
    ("move shell /",                        "EPERM"),
    ("move self /other",                    "EPERM"),
    ("move shell /other",                   "EPERM"),
    ("set / tasks self",                    "EPERM"),
    ("set /other cgroup.procs shell",       "EPERM"),
    ("create /other/mine",                  "EPERM"),
    // Whose they are.
    ("chown /other self-uid",               "EPERM"),
    ("chown / self-uid",                    "EPERM"),
    ("chmod . memory.limit_in_bytes 438",   "EPERM"),
    ("chmod . pids.max 438",                "EPERM"),
    ("chmod . cpu.cfs_quota_us 438",        "EPERM"),
    ("chmod /other tasks 438",              "EPERM"),
    ("kill /other",                         "EPERM"),
    ("freeze /other",                       "EPERM"),
    ("down",                                "EPERM"),
    // The same as clients of cgmanager ask.
    ("cgm-set memory . memory.limit_in_bytes -1", "refused"),
    ("cgm-set pids . pids.max max",         "refused"),
    ("cgm-set cpu . cpu.cfs_quota_us -1",   "refused"),
    ("cgm-set memory /t memory.limit_in_bytes -1", "refused"),
    ("cgm-set pids ../t pids.max max",      "refused"),
    ("cgm-move all .. self",                "refused"),
    ("cgm-move all ../other self",          "refused"),
    ("cgm-move-abs all other self",         "refused"),
    ("cgm-move-abs pids .. shell",          "refused"),
    ("cgm-create all ../new",               "refused"),
    ("cgm-create all ../other/mine",        "refused"),
    ("cgm-remove memory .",                 "refused"),
    ("cgm-chown pids ../other self-uid",    "refused"),
    ("cgm-chmod memory . memory.limit_in_bytes 438", "refused"),
];

/// What a tenant may do with what it was given: groups of its own, whose limits mean less than those above them.
#[rustfmt::skip] // a table
const DIVIDES: &[(&str, &str)] = &[
    ("create a",                            "ok"),
    ("create a/c",                          "ok"),
    ("create b",                            "ok"),
    ("set a memory.limit_in_bytes 1073741824", "ok"),
    ("set a pids.max 1000",                 "ok"),
    ("set a/c pids.max max",                "ok"),
    ("set a cpu.shares 262144",             "ok"),
    ("set a cpu.cfs_quota_us 150000",       "EINVAL"),
    ("set a cpu.cfs_quota_us -1",           "ok"),
    ("set a memory.use_hierarchy 0",        "EINVAL"),
    ("delete b",                            "ok"),
    ("create b",                            "ok"),
    ("set b pids.max max",                  "ok"),
];

/// Not a test, but what a tenant's process does: it calls what a table says, and says what came of each.
#[test]
fn calls() {
    let Some(act) = inside::told_to() else { return };
    let (table, manager) = act.split_once(' ').expect("two words");
    let (client, manager) = (inside::client(), cgmanager::Client::at(Path::new(manager)));
    let own = std::process::id();
    let shell = std::os::unix::process::parent_id();
    let user = rustix::process::geteuid().as_raw();
    for (call, _) in if table == "divides" { DIVIDES } else { CALLS } {
        let pid = |word: &str| if word == "self" { own } else { shell };
        let signed = |number: u32| i32::try_from(number).expect("a small number");
        let mode = |word: &str| word.parse::<u32>().expect("a number");
        let value = |word: &str| match word {
            "self" | "shell" => pid(word).to_string(),
            word => word.to_owned(),
        };
        let words: Vec<_> = call.split(' ').collect();
        let refused = |refused: bool| (if refused { "refused" } else { "ok" }).to_owned();
        let said = match words[..] {
            ["set", name, key, to] => result(client.set_value(&group(name), key, &value(to))),
            ["create", name] => result(client.create(&group(name))),
            ["delete", name] => result(client.delete(&group(name))),
            ["force", name] => result(client.delete_force(&group(name))),
            ["when-empty", name] => result(client.remove_on_empty(&group(name))),
            ["move", who, name] => result(client.move_process(pid(who), &group(name))),
            ["chown", name, _] => result(client.chown(&group(name), Some(user), None)),
            ["chmod", name, key, to] => result(client.chmod(&group(name), Some(key), mode(to))),
            ["kill", name] => result(client.kill(&group(name))),
            ["freeze", name] => result(client.freeze(&group(name))),
            ["down"] => result(client.down()),
            ["cgm-set", of, name, key, to] => refused(manager.set_value(of, name, key, to).is_err()),
            ["cgm-move", of, name, who] => refused(manager.move_pid(of, name, signed(pid(who))).is_err()),
            ["cgm-move-abs", of, name, who] => {
                refused(manager.move_pid_abs(of, name, signed(pid(who))).is_err())
            }
            ["cgm-create", of, name] => refused(manager.create(of, name).is_err()),
            ["cgm-remove", of, name] => refused(manager.remove(of, name, true).is_err()),
            ["cgm-chown", of, name, _] => refused(manager.chown(of, name, signed(user), -1).is_err()),
            ["cgm-chmod", of, name, key, to] => {
                refused(manager.chmod(of, name, key, signed(mode(to))).is_err())
            }
            _ => panic!("{call:?} is no call"),
        };
        inside::says(&format!("{call}: {said}"));
    }
}

/// What a tenant does at the mounts, which the kernel or the daemon refuses.
const DEEDS: &[&str] = &[
    // What holds it.
    "echo -1 > $m/memory.limit_in_bytes",
    "echo -1 > $m/memory.memsw.limit_in_bytes",
    "echo 1 > $m/memory.oom_control",
    "echo 0 > $m/memory.force_empty",
    "echo max > $p/pids.max",
    "echo 1000 > $p/pids.max",
    "echo -1 > $c/cpu.cfs_quota_us",
    "echo 1000 > $c/cpu.cfs_period_us",
    "true > $m/memory.limit_in_bytes",
    "rm $m/memory.limit_in_bytes",
    "rm -r $p",
    "rm $p/pids.max",
    "mv $p/notify_on_release $p/pids.max",
    "chmod 666 $m/memory.limit_in_bytes",
    "chmod u+w,g+w,o+w $p/pids.max",
    "chown $(id -u) $c/cpu.cfs_quota_us",
    "ln $p/pids.max mine",
    // Its own group, away and made again without them.
    "rmdir $m",
    "rmdir $p",
    "mv $m $m.old",
    "mv $m $m/../new",
    "mkdir $m/../new",
    "mkdir $p/../new",
    "mkdir $c/../new",
    // To where they do not hold.
    "echo 0 > $m/../tasks",
    "echo $$ > $p/../tasks",
    "echo $$ > $c/../cgroup.procs",
    "echo 0 > $m/../other/tasks",
    "echo $$ > $p/../other/cgroup.procs",
    "echo $$ > $c/../other/tasks",
    "mkdir $m/../other/mine",
    "rmdir $p/../other",
    "chown $(id -u) $c/../other/tasks",
    // In the kernel's own tree, and another that may be had of it.
    "echo 0 > /sys/fs/cgroup/cgroup.procs",
    "find /sys/fs/cgroup -writable | grep .",
    "unshare --cgroup --mount sh -c 'mount -t cgroup2 none /mnt && find /mnt -writable | grep .'",
    "unshare --user --map-root-user --cgroup --mount sh -c 'mount -t cgroup2 none /mnt && find /mnt -writable | grep .'",
];

/// Has a tenant call what a table says, and compares what comes of it.
fn calls_end(daemon: &Daemon, tenant: &mut Shell, table: &str, expected: &[(&str, &str)]) {
    let what = format!("{table} {}", manager(daemon).display());
    let said = inside::act(tenant, "escaping::calls", &what);
    let expected: Vec<_> = expected.iter().map(|(call, said)| format!("{call}: {said}")).collect();
    assert_eq!(said, expected);
}

/// The group that is beside one, and another's.
fn beside(name: &str) -> String {
    let (above, _) = name.rsplit_once('/').expect("it is not the root");
    format!("{above}/other")
}

/// Everything that must not change: the limits, what is in the group, above it and beside it, and whose it is.
fn held(daemon: &Daemon, place: &Place) -> String {
    let mut all = String::new();
    for (_, dir) in place {
        let (above, _) = dir.rsplit_once('/').expect("it is not the root");
        for dir in [*dir, above, &beside(dir)] {
            let entries = std::fs::read_dir(daemon.path(dir)).expect("it is there").flatten();
            let mut lines: Vec<_> = entries
                .map(|entry| {
                    let file = entry.metadata().expect("it is there");
                    format!("{dir}/{:?} {} {} {:o}\n", entry.file_name(), file.uid(), file.gid(), file.mode())
                })
                .collect();
            lines.sort_unstable();
            all.extend(lines);
        }
        all += &daemon.read(&format!("{}/tasks", beside(dir)));
    }
    let [(_, memory), (_, pids), (_, cpu)] = place;
    for (dir, file) in [
        (memory, "memory.limit_in_bytes"),
        (memory, "memory.memsw.limit_in_bytes"),
        (pids, "pids.max"),
        (cpu, "cpu.cfs_quota_us"),
        (cpu, "cpu.cfs_period_us"),
        (cpu, "cpu.shares"),
    ] {
        all += &format!("{file} {}", daemon.read(&format!("{dir}/{file}")));
    }
    all
}

/// Every way out is tried, and nothing has changed.
fn tries_all(daemon: &Daemon, tenant: &mut Shell, place: &Place) {
    let before = held(daemon, place);
    calls_end(daemon, tenant, "escapes", CALLS);
    for deed in DEEDS {
        let said = tenant.run(deed);
        assert_ne!(said.status, 0, "{deed}: {}", said.text);
    }
    assert_eq!(held(daemon, place), before);
}

/// All processes of these users.
fn processes_of(users: std::ops::Range<u32>) -> BTreeSet<u32> {
    let all = std::fs::read_dir("/proc").expect("it is mounted").flatten();
    let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_theirs = |number: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{number}/status")).unwrap_or_default();
        let user = status
            .lines()
            .find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next()?.parse().ok());
        user.is_some_and(|user: u32| users.contains(&user))
    };
    numbers.filter(is_theirs).collect()
}

fn number(text: &str) -> u64 {
    text.trim().parse().expect("a number")
}

/// Processes that fork as fast as they can and are moved about meanwhile, and threads, are no more than their group may have;
/// nobody of the tenant's is anywhere else.
fn forks_end(daemon: &Daemon, tenant: &mut Shell, place: &Place, users: std::ops::Range<u32>, most: usize) {
    let (group, dir) = place[1];
    // Each ends when it cannot fork any more. Nobody waits for whoever it has forked.
    let forks = "until [ -e go ]; do :; done; while :; do (sleep 600 >/dev/null 2>&1 &) || exit 1; done";
    let moves = "for to in b a/c a b; do for from in a b a/c; do \
                 while read who; do echo $who > $p/$to/tasks; done < $p/$from/tasks; done; done 2>/dev/null";
    let said = tenant.run(&format!(
        "rm -f go; for g in a b a/c; do sh -c 'echo 0 > $p/$0/tasks; {forks}' $g & all=\"$all $!\"; done; : > go; {moves}; wait $all"
    ));
    assert!(said.text.contains("Cannot fork"), "{said:?}");
    let (now, all) = (daemon.numbers(&format!("{dir}/tasks")), daemon.ok(&["tasks", "-r", group]));
    let all: BTreeSet<u32> = all.lines().map(|line| line.parse().expect("a number")).collect();
    let theirs = processes_of(users);
    // Where the limit is divided, who meets his part may have had more a moment later.
    assert!(all.len() <= most && all.len() >= most / 3, "{} of {most} tasks", all.len());
    assert_eq!(theirs, all, "{now:?} are in the group itself");
    for below in ["a", "b"] {
        daemon.ok(&["kill", &format!("{group}/{below}")]);
    }
    eventually("the killed are gone", || {
        // A shell that is the first of its pid namespace takes leave of orphans while it waits for somebody else.
        tenant.run("wait; /bin/true");
        daemon.read(&format!("{dir}/pids.current")).trim() == now.len().to_string()
    });
    let threads = "import threading; over = threading.Event(); exec('try:\\n while 1: \
                   threading.Thread(target=over.wait, daemon=True).start()\\nexcept RuntimeError: print(threading.active_count())')";
    let said = tenant.run(&format!("sh -c 'echo 0 > $p/a/tasks; exec {PYTHON} -c \"$0\"' \"{threads}\""));
    let count = said.text.trim().parse::<usize>().unwrap_or_else(|_| panic!("{said:?}"));
    assert!(count < most && count >= most / 3, "{count} threads");
}

/// Neither a process gets more memory than its group may have, nor does what remains of those before it, whose groups go.
fn memory_ends(daemon: &Daemon, tenant: &mut Shell, place: &Place, most: u64) {
    const BLOCK: u64 = 4 << 20;
    const FILE: &str = "/dev/shm/pinfold-tenant";
    let (_, dir) = place[0];
    let enters = "echo 0 > $m/$0/tasks && echo 1000 > /proc/self/oom_score_adj && exec dd if=/dev/zero";
    let said = tenant.run(&format!("sh -c '{enters} of=/dev/null bs={} count=1' a", 2 * most));
    assert_eq!(said.status, 137, "{said:?}");
    // Each writes two fifths of it, and leaves them.
    let count = most * 2 / 5 / BLOCK;
    let statuses = [0, 1, 2].map(|round| {
        let writes = format!("of={FILE} bs={BLOCK} count={count} seek={} conv=notrunc", round * count);
        let said = tenant.run(&format!("sh -c '{enters} {writes}' b"));
        let again = tenant.run("rmdir $m/b && mkdir $m/b");
        assert_eq!(again.status, 0, "{again:?}");
        said.status
    });
    let file = std::fs::metadata(FILE).expect("it was made");
    let written = file.blocks() * 512;
    std::fs::remove_file(FILE).expect("it is there");
    assert_eq!(statuses, [0, 0, 137]);
    assert!(written >= 2 * count * BLOCK && written <= most, "{written} of {most} bytes");
    assert!(number(&daemon.read(&format!("{dir}/memory.max_usage_in_bytes"))) <= most);
}

/// Who burns in several groups has no more CPU time than the one above them may have.
fn burning_ends(daemon: &Daemon, tenant: &mut Shell, place: &Place, quota: u64) {
    let (group, dir) = place[2];
    let burns = "echo 0 > $c/$0/tasks; while :; do :; done";
    tenant.run(&format!("for g in a b a/c; do sh -c '{burns}' $g >/dev/null 2>&1 & done"));
    let held_back = || {
        let text = daemon.read(&format!("{dir}/cpu.stat"));
        number(text.lines().find_map(|line| line.strip_prefix("nr_throttled ")).expect("a line for each"))
    };
    let used = || number(&daemon.read(&format!("{dir}/cpuacct.usage")));
    let is_there = |below: &str| daemon.numbers(&format!("{dir}/{below}/tasks")).len() == 1;
    eventually("all three burn", || ["a", "b", "a/c"].into_iter().all(is_there));
    let (begun, before, times) = (Instant::now(), used(), held_back());
    eventually("they are held back", || held_back() >= times + 30);
    let part = (used() - before) as f64 / begun.elapsed().as_nanos() as f64;
    // As wide as a guest's clock.
    let most = quota as f64 / 100_000.0 * 1.25;
    assert!(part < most, "they use {part:.2} of a CPU, of {most:.2}");
    for below in ["a", "b"] {
        daemon.ok(&["kill", &format!("{group}/{below}")]);
    }
    tenant.run("wait");
}

/// Everything above, of a tenant that is in its groups.
fn does_not_get_out(
    daemon: &Daemon,
    tenant: &mut Shell,
    place: &Place,
    users: std::ops::Range<u32>,
    part: u64,
) {
    ready(daemon, tenant, *place);
    tries_all(daemon, tenant, place);
    calls_end(daemon, tenant, "divides", DIVIDES);
    let before = held(daemon, place);
    forks_end(daemon, tenant, place, users, TASKS / usize::try_from(part).expect("a small number"));
    memory_ends(daemon, tenant, place, MEMORY / part);
    burning_ends(daemon, tenant, place, QUOTA / part);
    assert_eq!(held(daemon, place), before);
}

/// Has all who are in the first group be in the others, too.
fn complete(daemon: &Daemon, place: &Place) {
    for pid in daemon.ok(&["tasks", place[0].0]).lines() {
        for (group, _) in &place[1..] {
            daemon.ok(&["move", pid, group]);
        }
    }
}

#[test]
fn root_of_a_container_does_not_get_out_of_its_limits() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = realm(&TOGETHER, FIRST) else { return };
    let mut root = Shell::of_container_at_mounts(&daemon, "/t");
    does_not_get_out(&daemon, &mut root, &TOGETHER, FIRST..FIRST + 1000, 1);
    drop(root);
    daemon.ok(&["rm", "-r", "/t"]);
    daemon.down();
}

/// The limits that hold it there are those that root of the container set, from above it.
#[test]
fn a_user_of_a_container_and_root_of_one_in_it_does_not_get_out_of_its_limits() {
    const INNER: Place =
        [("memory:/t/inner", "cg/t/inner"), ("pids:/t/inner", "cg/t/inner"), ("cpu:/t/inner", "cg/t/inner")];
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = realm(&TOGETHER, FIRST) else { return };
    let mut shell = Shell::of_container_at_mounts(&daemon, "/t");
    shell.ok("create inner");
    shell.ok("create other");
    shell.ok("chown 9:9 other");
    shell.ok("chown 7:7 inner");
    let limits =
        format!("memory.limit_in_bytes={} pids.max={} cpu.cfs_quota_us={}", MEMORY / 2, TASKS / 2, QUOTA / 2);
    shell.ok(&format!("set inner {limits}"));
    let unshare = "unshare --user --map-root-user --pid --fork --kill-child --mount-proc";
    shell.enter(&format!("$pinfold exec -g inner -- setpriv --reuid 7 --regid 7 --clear-groups {unshare}"));
    does_not_get_out(&daemon, &mut shell, &INNER, FIRST + 7..FIRST + 8, 2);
    shell.leave();
    drop(shell);
    daemon.ok(&["rm", "-r", "/t"]);
    daemon.down();
}

/// Its limits lie in three places, and are divided among its groups.
#[test]
fn a_user_whose_groups_are_elsewhere_in_each_hierarchy_does_not_get_out_of_their_limits() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = realm(&APART, BOB) else { return };
    let mut bob = Shell::of_user_at_mounts(&daemon, BOB, APART[0].0);
    complete(&daemon, &APART);
    does_not_get_out(&daemon, &mut bob, &APART, BOB..BOB + 1, 1);
    drop(bob);
    for group in ["memory:/t", "pids:/jobs", "cpu:/x"] {
        daemon.ok(&["rm", "-r", group]);
    }
    daemon.down();
}

/// Its number is that of the host's root. It has no mount: what it could write there, it could as the host's root.
#[test]
fn root_of_a_container_with_the_hosts_users_does_not_get_out_of_its_limits_by_calls() {
    if !in_guest() {
        return;
    }
    let Some(mut daemon) = realm(&TOGETHER, 0) else { return };
    let mut root = Shell::of_container_of_host(&daemon, "/t");
    let before = held(&daemon, &TOGETHER);
    calls_end(&daemon, &mut root, "escapes", CALLS);
    assert_eq!(held(&daemon, &TOGETHER), before);
    drop(root);
    daemon.ok(&["rm", "-r", "/t"]);
    daemon.down();
}
