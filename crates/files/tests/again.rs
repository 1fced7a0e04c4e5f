//! A group gets the settings of another one by the writes that `again` names.

use pinfold_files::{again, file, full_name};

use crate::stage::{Stage, bytes};

/// Writes to `/top/a`, one `FILE TEXT` a line; then the writes that make another group the same, which is tried.
fn check(script: &str, expected: &[&str]) {
    let mut stage = Stage::new();
    stage.mkdir("/top");
    mkdir(&mut stage, "/top/a");
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (file, text) = line.split_once(' ').expect("FILE TEXT");
        let path = if file.starts_with('/') { file.to_owned() } else { format!("/top/a/{file}") };
        assert_eq!(stage.write(&path, &bytes(text)), "ok", "{line}");
    }
    mkdir(&mut stage, "/top/b");
    let group = stage.group("/top/a");
    let mut seen = Vec::new();
    for id in stage.files(group) {
        let again = stage.sight(group, |sight| again(id, sight));
        for (id, text) in again.into_iter().filter(|again| again.needed).flat_map(|again| again.writes) {
            let file = full_name(id, false);
            assert_eq!(stage.write(&format!("/top/b/{file}"), text.as_bytes()), "ok", "{file} {text}");
            seen.push(format!("{file} {}", text.escape_debug()));
        }
    }
    // Lists of CPUs and nodes are written always: whether a new group has any depends on how it is made.
    seen.retain(|write| !matches!(write.as_str(), "cpuset.cpus \\n" | "cpuset.mems \\n"));
    assert_eq!(seen, expected, "{script}");
    let other = stage.group("/top/b");
    for id in stage.files(group).into_iter().filter(|id| file(*id).1.setting.is_some()) {
        assert_eq!(stage.show(other, id), stage.show(group, id), "{}: {script}", full_name(id, false));
    }
}

fn mkdir(stage: &mut Stage, path: &str) {
    stage.mkdir(path);
    stage.add_text(path, "machine", "interfaces", b"1 lo\n4 eth0\n");
    stage.add_text(path, "realm", "misc.max", b"sev max\nsev_es max\n");
    stage.add_text(path, "realm", "rdma.max", b"mlx4_0 hca_handle=max hca_object=max \n");
}

#[test]
fn a_value_of_one_line_is_written_as_it_is_shown() {
    check("", &[]);
    check("pids.max 5\nmemory.limit_in_bytes 64m\n", &["memory.limit_in_bytes 67108864", "pids.max 5"]);
    check("/top/cpuset.cpus 0,2-3\ncpuset.cpus 0", &["cpuset.cpus 0"]);
}

#[test]
fn a_file_that_takes_a_line_at_a_time_is_written_line_by_line() {
    check(
        r"net_prio.ifpriomap lo\s3
          net_prio.ifpriomap eth0\s7",
        &["net_prio.ifpriomap lo 3", "net_prio.ifpriomap eth0 7"],
    );
    check(
        r"blkio.throttle.read_bps_device 8:0\s1048576
          blkio.throttle.read_bps_device 8:16\s2097152",
        &["blkio.throttle.read_bps_device 8:0 1048576", "blkio.throttle.read_bps_device 8:16 2097152"],
    );
    check(r"misc.max sev\s5", &["misc.max sev 5", "misc.max sev_es max"]);
    check(r"rdma.max mlx4_0\shca_handle=2", &["rdma.max mlx4_0 hca_handle=2 hca_object=max "]);
}

#[test]
fn a_file_that_shows_more_than_it_takes_is_written_what_is_kept() {
    check("memory.oom_control 1", &["memory.oom_control 1"]);
    check("freezer.state FROZEN", &["freezer.state FROZEN"]);
    // Frozen by the group above: that is not its own.
    check("/top/freezer.state FROZEN", &[]);
}

#[test]
fn rules_for_devices_are_written_to_the_files_that_take_them() {
    check(
        r"devices.deny a
          devices.allow c\s1:3\srwm
          devices.allow b\s8:*\sr",
        &["devices.deny a", "devices.allow c 1:3 rwm", "devices.allow b 8:* r"],
    );
    // What devices.list does not show.
    check(r"devices.deny c\s1:3\sw", &["devices.allow a", "devices.deny c 1:3 w"]);
}

#[test]
fn what_a_group_starts_with_is_written_if_another_could_start_otherwise() {
    check("notify_on_release 1", &["notify_on_release 1"]);
    check("/top/notify_on_release 1\nnotify_on_release 1", &[]);
    check("/top/notify_on_release 1", &["notify_on_release 0"]);
    check("/notify_on_release 1\n/top/notify_on_release 1\nnotify_on_release 1", &[]);
}
