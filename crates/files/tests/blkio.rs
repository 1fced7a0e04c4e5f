//! blkio-controller.rst, block/blk-throttle.c and block/blk-cgroup.c. What is refused without a disk was seen on Linux 6.1
//! (differential/blkio.script).

use pinfold_files::{Change, Request, named};

use crate::stage::{Stage, check};

#[test]
fn a_limit_is_one_of_a_disk() {
    check(
        r"
        mkdir /a
        /a/blkio.throttle.read_bps_device = ''
        /a/blkio.throttle.read_bps_device < 254:0\s1048576\n = ok
        /a/blkio.throttle.read_bps_device < \s8:16\s\s5x = ok
        /a/blkio.throttle.read_bps_device = 8:16\s5\n254:0\s1048576\n
        /a/blkio.throttle.read_bps_device < 8:16\s0 = ok
        /a/blkio.throttle.read_bps_device = 254:0\s1048576\n
        /a/blkio.throttle.read_bps_device < 254:0\s18446744073709551615 = ok
        /a/blkio.throttle.read_bps_device = ''
        /a/blkio.throttle.write_iops_device < 254:0\s99999999999 = ok
        /a/blkio.throttle.write_iops_device = 254:0\s1215752191\n
        /a/blkio.throttle.write_iops_device < 254:0\s4294967295 = ok
        /a/blkio.throttle.write_iops_device = ''
        /a/blkio.throttle.read_bps_device < abc = EINVAL
        /a/blkio.throttle.read_bps_device < 254:0 = EINVAL
        /a/blkio.throttle.read_bps_device < 254\s5 = EINVAL
        /a/blkio.throttle.read_bps_device < 254:0:\s5 = EINVAL
        /a/blkio.throttle.read_bps_device < -1:0\s5 = EINVAL
        /a/blkio.throttle.read_bps_device < 0x10:0\s5 = EINVAL
        /a/blkio.throttle.read_bps_device < 254:0\sabc = EINVAL
        /a/blkio.throttle.read_bps_device < 254:0\s-1 = EINVAL
        /blkio.throttle.read_bps_device < 254:0\s5 = EINVAL
        mkdir /a/b
        /a/b/blkio.throttle.write_iops_device = ''
        ",
    );
}

/// The disk is looked for first: that it is there is asked of v2, before the number is refused.
#[test]
fn the_kernel_below_is_asked_for_the_disk_before_the_number_is_looked_at() {
    let mut stage = Stage::new();
    stage.mkdir("/a");
    let id = named("blkio.throttle.write_bps_device").unwrap();
    for (text, is_refused_then) in [("250:7 1024", false), ("250:7 abc", true)] {
        let Ok(Request::Change(Change::IfTaken { file, entry, then })) =
            stage.parse(stage.group("/a"), id, text.as_bytes())
        else {
            panic!("{text} is refused at once")
        };
        assert_eq!((file, &*entry), ("io.max", "250:7 rbps=max wbps=max riops=max wiops=max"));
        assert_eq!(then.is_err(), is_refused_then, "{text}");
    }
}

#[test]
fn v2_is_told_all_limits_of_a_disk_in_one_line_and_which_are_no_more() {
    let mut stage = Stage::new();
    stage.mkdir("/a");
    for (file, text) in [
        ("read_bps", "254:0 1000"),
        ("write_iops", "254:0 7"),
        ("write_bps", "8:0 5"),
        ("read_bps", "254:0 0"),
        ("read_iops", "254:0 9"),
    ] {
        let path = format!("/a/blkio.throttle.{file}_device");
        assert_eq!(stage.write(&path, text.as_bytes()), "ok");
    }
    let setting = pinfold_files::setting_by_key("blkio.throttle.read_bps_device").unwrap();
    let pinfold_files::Carry::Entries(v2) = setting.carry else { panic!("v2 has an entry for each disk") };
    let settings = stage.forest.group(stage.group("/a")).unwrap().settings().clone();
    assert_eq!(
        (v2.entries)(&settings),
        ["8:0 rbps=max wbps=5 riops=max wiops=max", "254:0 rbps=max wbps=max riops=9 wiops=7"]
    );
}

#[test]
fn what_was_done_is_told_by_disk_and_outlives_its_directory() {
    check(
        r"
        mkdir /a
        /a/blkio.throttle.io_serviced = Total\s0\n
        v2 /a leaf io.stat 254:0\srbytes=4096\swbytes=1024\srios=3\swios=2\sdbytes=512\sdios=1\n
        v2 /a carrier io.stat 254:0\srbytes=5000\swbytes=1024\srios=4\swios=2\sdbytes=512\sdios=1\n
        /a/blkio.throttle.io_service_bytes = 254:0\sRead\s4096\n254:0\sWrite\s1024\n254:0\sSync\s5120\n254:0\sAsync\s512\n254:0\sDiscard\s512\n254:0\sTotal\s5632\nTotal\s5632\n
        /a/blkio.throttle.io_serviced = 254:0\sRead\s3\n254:0\sWrite\s2\n254:0\sSync\s5\n254:0\sAsync\s1\n254:0\sDiscard\s1\n254:0\sTotal\s6\nTotal\s6\n
        gone /a
        /a/blkio.throttle.io_serviced_recursive = 254:0\sRead\s4\n254:0\sWrite\s2\n254:0\sSync\s6\n254:0\sAsync\s1\n254:0\sDiscard\s1\n254:0\sTotal\s7\nTotal\s7\n
        v2 /a leaf io.stat 254:0\srios=1\n
        /a/blkio.throttle.io_serviced = 254:0\sRead\s4\n254:0\sWrite\s2\n254:0\sSync\s6\n254:0\sAsync\s1\n254:0\sDiscard\s1\n254:0\sTotal\s7\nTotal\s7\n
        /a/blkio.reset_stats < 1 = ok
        v2 /a leaf io.stat 254:0\srios=2\n
        /a/blkio.throttle.io_serviced = 254:0\sRead\s2\n254:0\sWrite\s0\n254:0\sSync\s2\n254:0\sAsync\s0\n254:0\sDiscard\s0\n254:0\sTotal\s2\nTotal\s2\n
        /a/blkio.reset_stats < abc = EINVAL
        /a/blkio.reset_stats < \s1 = EINVAL
        /blkio.reset_stats < 1 = ok
        ",
    );
}

#[test]
fn a_weight_has_its_range() {
    check(
        r"
        mkdir /a
        /a/blkio.weight = 500\n
        /a/blkio.weight < 9 = ERANGE
        /a/blkio.weight < 1001 = ERANGE
        /a/blkio.weight < abc = EINVAL
        /a/blkio.weight < 10 = ok
        /a/blkio.weight = 10\n
        /a/blkio.bfq.weight < 1000 = ok
        /a/blkio.bfq.weight < 0 = ERANGE
        /blkio.weight = ENOENT
        /blkio.bfq.weight = ENOENT
        ",
    );
}

/// Seen on Linux 6.1 with BFQ (differential/blkio.script).
#[test]
fn a_disk_has_a_weight_of_its_own_until_all_get_another() {
    check(
        r"
        mkdir /a
        /a/blkio.bfq.weight_device = default\s100\n
        /a/blkio.bfq.weight_device < 254:0\s200\n = ok
        /a/blkio.bfq.weight_device < \s8:16\t\s50\sx = ok
        /a/blkio.bfq.weight_device = default\s100\n8:16\s50\n254:0\s200\n
        /a/blkio.bfq.weight_device < 254:0\s0 = ERANGE
        /a/blkio.bfq.weight_device < 254:0\s1001 = ERANGE
        /a/blkio.bfq.weight_device < 254:0\s0x64 = ERANGE
        /a/blkio.bfq.weight_device < 254:0\sabc = EINVAL
        /a/blkio.bfq.weight_device < 254:0\s-1 = EINVAL
        /a/blkio.bfq.weight_device < 254:0\s+34 = EINVAL
        /a/blkio.bfq.weight_device < 254:0 = EINVAL
        /a/blkio.bfq.weight_device < 254:0\s = EINVAL
        /a/blkio.bfq.weight_device < 254:0:1\s5 = EINVAL
        /a/blkio.bfq.weight_device < 254:0\sdefault\sx = EINVAL
        /a/blkio.bfq.weight_device < 254:0\sdefault\n = ok
        /a/blkio.bfq.weight_device = default\s100\n8:16\s50\n
        /a/blkio.bfq.weight = 100\n
        /a/blkio.bfq.weight_device < default\s150\sx = ok
        /a/blkio.bfq.weight_device = default\s150\n
        /a/blkio.bfq.weight = 150\n
        /a/blkio.bfq.weight_device < 254:0\s67\x00x = ok
        /a/blkio.bfq.weight < 120 = ok
        /a/blkio.bfq.weight_device = default\s120\n
        /a/blkio.bfq.weight_device < 0x40\s = ok
        /a/blkio.bfq.weight_device < \sdefault\t61 = ok
        /a/blkio.bfq.weight_device = default\s61\n
        /a/blkio.bfq.weight_device < 0 = ERANGE
        /a/blkio.bfq.weight_device < \n = ERANGE
        /a/blkio.bfq.weight_device < 1001 = ERANGE
        /a/blkio.bfq.weight_device < default\s0 = ERANGE
        /a/blkio.bfq.weight_device < default = EINVAL
        /a/blkio.bfq.weight_device < default\sdefault = EINVAL
        /a/blkio.bfq.weight_device < abc = EINVAL
        /a/blkio.bfq.weight_device < -1 = EINVAL
        /a/blkio.bfq.weight_device < +33 = EINVAL
        /a/blkio.bfq.weight_device < 66\sx = EINVAL
        /a/blkio.bfq.weight_device = default\s61\n
        /blkio.bfq.weight_device = ENOENT
        mkdir /a/b
        /a/b/blkio.bfq.weight_device = default\s100\n
        ",
    );
}

/// A write of the default takes the others back in v2 as well, so it goes first.
#[test]
fn v2_is_told_the_weight_of_all_disks_before_that_of_one() {
    let mut stage = Stage::new();
    stage.mkdir("/a");
    let id = named("blkio.bfq.weight_device").unwrap();
    let asked = stage.parse(stage.group("/a"), id, b"250:7 abc");
    let Ok(Request::Change(Change::IfTaken { file: "io.bfq.weight", entry, then: Err(_) })) = asked else {
        panic!("the disk is not looked for first")
    };
    assert_eq!(entry, "250:7 default");
    for text in ["300", "254:0 70", "8:0 5"] {
        assert_eq!(stage.write("/a/blkio.bfq.weight_device", text.as_bytes()), "ok");
    }
    let settings = stage.forest.group(stage.group("/a")).unwrap().settings().clone();
    for key in ["blkio.bfq.weight", "blkio.bfq.weight_device"] {
        let setting = pinfold_files::setting_by_key(key).unwrap();
        let pinfold_files::Carry::Entries(v2) = setting.carry else {
            panic!("v2 has an entry for each disk")
        };
        assert_eq!((v2.entries)(&settings), ["default 300", "8:0 5", "254:0 70"]);
    }
}

/// What v2 is told for a weight of v1.
#[test]
fn weights_keep_their_ratios() {
    let setting = pinfold_files::setting_by_key("blkio.weight").unwrap();
    let pinfold_files::Carry::Limit([v2]) = setting.carry else { panic!("one v2 file") };
    for (weight, expected) in [(10, "default 2"), (500, "default 100"), (1000, "default 200")] {
        let mut settings = pinfold_model::Settings::NONE;
        settings.replace(setting.key, Some(pinfold_model::Value::Number(weight)));
        assert_eq!((v2.text)(&settings).as_deref(), Some(expected));
    }
}

/// Who waits for its part tells of it through the kernel's pressure.
#[test]
fn a_limit_is_pressed_while_somebody_waits() {
    let setting = pinfold_files::setting_by_key("blkio.throttle.write_bps_device").unwrap();
    let pinfold_files::Carry::Entries(v2) = setting.carry else { panic!("v2 has an entry for each disk") };
    let pinfold_files::EntryShare::Divided { pressed: Some(pressed), .. } = v2.share else {
        panic!("something tells")
    };
    let text = "some avg10=1.50 avg60=0.20 avg300=0.00 total=84721\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n";
    let stalled = pinfold_model::Pressure::Stalled(std::time::Duration::from_micros(84721));
    assert_eq!(pressed.figure().file, "io.pressure");
    assert_eq!(pressed.read(&[text.to_owned()], "254:0 wbps"), Some(stalled));
    assert_eq!(pressed.read(&[String::new()], "254:0 wbps"), None);
    // Of all disks, also of those without a limit: the wait may be theirs.
    assert_eq!(pressed.all("254:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n8:0 wbytes=7\n"), 4104);
}
