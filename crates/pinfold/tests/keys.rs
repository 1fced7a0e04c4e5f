//! Keys of controllers that need a v2 tree of their own, in every way in which one may set and read them: by the manager's key
//! and by the file's name, over both interfaces, and in the file itself. Whichever way a value came, all tell the same.

use std::os::unix::fs::MetadataExt;
use std::process::Command;

use pinfold_dbus::{Client, ClientError, GroupName, cgmanager};

use crate::container::{FIRST, Shell};
use crate::daemon::{Daemon, in_guest, text};

/// A key, the file that it is, and what comes of values.
struct Row {
    /// What is set: a key, and the file. Nothing if it is read only.
    set: (&'static str, &'static str),
    /// Where that is read.
    get: (&'static str, &'static str),
    /// What is set first, once, by the manager, in the group above and in the group.
    first: &'static [(&'static str, &'static str, &'static str)],
    /// A value, by the key and in the file, and what the key and the file say then. `DISK` is the guest's.
    values: &'static [[&'static str; 4]],
    /// What neither takes, and why.
    refused: &'static [[&'static str; 3]],
}

const fn row(
    set: (&'static str, &'static str),
    get: (&'static str, &'static str),
    first: &'static [(&'static str, &'static str, &'static str)],
    values: &'static [[&'static str; 4]],
    refused: &'static [[&'static str; 3]],
) -> Row {
    Row { set, get, first, values, refused }
}

#[rustfmt::skip] // a table
const ROWS: &[Row] = &[
    row(("blkio_weight", "blkio.weight"), ("blkio_weight", "blkio.weight"), &[],
        &[["700", "700", "700", "700"], ["10", "10", "10", "10"], ["0x3e8", "0x3e8", "1000", "1000"]],
        &[["9", "9", "ERANGE"], ["1001", "1001", "ERANGE"], ["x", "x", "EINVAL"], [" 10", " 10", "EINVAL"]]),
    row(("blkio_weight_device", "blkio.bfq.weight_device"), ("blkio_weight_device", "blkio.bfq.weight_device"), &[],
        &[
            ["DISK 300", "DISK 300", "default 100\nDISK 300", "default 100\nDISK 300"],
            ["default 200", "default 200", "default 200", "default 200"],
            ["DISK 1", "DISK 1", "default 200\nDISK 1", "default 200\nDISK 1"],
            ["DISK default", "DISK default", "default 200", "default 200"],
            ["default 100", "100", "default 100", "default 100"],
        ],
        &[["250:7 200", "250:7 200", "ENODEV"], ["DISK 1001", "DISK 1001", "ERANGE"], ["DISK x", "DISK x", "EINVAL"]]),
    row(("blkio_throttle_read", "blkio.throttle.read_bps_device"), ("blkio_throttle_read", "blkio.throttle.read_bps_device"), &[],
        &[["DISK 1048576", "DISK 1048576", "DISK 1048576", "DISK 1048576"], ["DISK 0", "DISK 0", "", ""]],
        &[["250:7 1024", "250:7 1024", "ENODEV"], ["DISK abc", "DISK abc", "EINVAL"], ["DISK", "DISK", "EINVAL"]]),
    row(("blkio_throttle_write", "blkio.throttle.write_bps_device"), ("blkio_throttle_write", "blkio.throttle.write_bps_device"), &[],
        &[["DISK 2097152", "DISK 2097152", "DISK 2097152", "DISK 2097152"], ["DISK 0", "DISK 0", "", ""]],
        &[["250:7 1024", "250:7 1024", "ENODEV"], ["DISK -1", "DISK -1", "EINVAL"]]),
    row(("devices_blacklist", "devices.deny"), ("devices_list", "devices.list"), &[],
        &[["c 1:3 r", "c 1:3 r", "a *:* rwm", "a *:* rwm"]],
        &[["x 1:3 r", "x 1:3 r", "EINVAL"], ["c 1:3 q", "c 1:3 q", "EINVAL"]]),
    row(("devices_whitelist", "devices.allow"), ("devices_list", "devices.list"),
        &[("", "devices_blacklist", "b 8:0 rwm"), ("/g", "devices_blacklist", "a")],
        &[["c 1:3 rwm", "c 1:3 rwm", "c 1:3 rwm", "c 1:3 rwm"]],
        &[["b 8:0 r", "b 8:0 r", "EPERM"], ["c 1", "c 1", "EINVAL"]]),
    row(("hugetlb_limit", "hugetlb.2MB.limit_in_bytes"), ("hugetlb_limit", "hugetlb.2MB.limit_in_bytes"), &[],
        &[
            ["2MB 4194304", "4194304", "2MB 4194304", "4194304"],
            ["2MB 7M", "7M", "2MB 6291456", "6291456"],
            ["2MB max", "-1", "2MB max", "9223372036852678656"],
        ],
        &[["2MB x", "x", "EINVAL"], ["2MB +1", "+1", "EINVAL"]]),
    row(("hugetlb_max_usage", "hugetlb.2MB.max_usage_in_bytes"), ("hugetlb_max_usage", "hugetlb.2MB.max_usage_in_bytes"), &[],
        &[["2MB 0", "0", "2MB 0", "0"]], &[]),
    row(("hugetlb_failcnt", "hugetlb.2MB.failcnt"), ("hugetlb_failcnt", "hugetlb.2MB.failcnt"), &[],
        &[["2MB 0", "0", "2MB 0", "0"]], &[]),
    row(("hugetlb_usage", "hugetlb.2MB.usage_in_bytes"), ("hugetlb_usage", "hugetlb.2MB.usage_in_bytes"), &[],
        &[], &[["2MB 0", "0", "EINVAL"]]),
    row(("net_classid", "net_cls.classid"), ("net_classid", "net_cls.classid"), &[],
        &[["1048577", "1048577", "1048577", "1048577"], ["0x100002", "0x100002", "1048578", "1048578"], ["0", "0", "0", "0"]],
        &[["x", "x", "EINVAL"], ["1 ", "1 ", "EINVAL"], ["18446744073709551616", "18446744073709551616", "ERANGE"]]),
    row(("net_prio_interface_map", "net_prio.ifpriomap"), ("net_prio_interface_map", "net_prio.ifpriomap"), &[],
        &[["lo 3", "lo 3", "lo 3", "lo 3"], ["lo 0", "lo 0", "lo 0", "lo 0"]],
        &[["nosuch 3", "nosuch 3", "ENODEV"], ["lo", "lo", "EINVAL"], ["lo x", "lo x", "EINVAL"]]),
    row(("net_prio_index", "net_prio.prioidx"), ("net_prio_index", "net_prio.prioidx"), &[], &[], &[["2", "2", "EINVAL"]]),
];

/// The ways to a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    ManagersKey,
    ManagersFile,
    CgmanagersKey,
    CgmanagersFile,
    File,
}

const WAYS: [Way; 5] =
    [Way::ManagersKey, Way::ManagersFile, Way::CgmanagersKey, Way::CgmanagersFile, Way::File];

impl Way {
    /// Whether it goes by the key's name, and not by the file's.
    fn is_by_key(self) -> bool {
        matches!(self, Self::ManagersKey | Self::CgmanagersKey)
    }

    /// The one of two that is meant.
    fn of<'t>(self, (key, file): (&'t str, &'t str)) -> &'t str {
        if self.is_by_key() { key } else { file }
    }
}

/// Everybody who is asked.
struct Asked<'d> {
    daemon: &'d Daemon,
    manager: Client,
    cgmanager: cgmanager::Client,
}

/// The controller that has a file.
fn controller(file: &str) -> &str {
    file.split('.').next().expect("it begins with it")
}

impl Asked<'_> {
    /// Sets a value: nothing, or the errno's name.
    fn set(&self, way: Way, group: &str, names: (&str, &str), value: &str) -> Result<(), String> {
        match way {
            Way::ManagersKey | Way::ManagersFile => {
                let set = self.manager.set_value(&name(group), way.of(names), value);
                set.map_err(|error| match error {
                    ClientError::Refused(refusal) => refusal.errno().to_owned(),
                    error => panic!("{error}"),
                })
            }
            Way::CgmanagersKey | Way::CgmanagersFile => {
                let set = self.cgmanager.set_value(controller(names.1), group, way.of(names), value);
                set.map_err(|error| match error {
                    cgmanager::CallError::Refused(why) => errno_in(&why),
                    error => panic!("{error}"),
                })
            }
            Way::File => {
                let file = format!("cg{group}/{}", names.1);
                self.daemon.write(&file, value).map_err(|error| errno_of(&error))
            }
        }
    }

    /// What is read, without the newline at its end.
    fn get(&self, way: Way, group: &str, names: (&str, &str)) -> String {
        match way {
            Way::ManagersKey | Way::ManagersFile => {
                self.manager.get_value(&name(group), way.of(names)).expect("it is readable")
            }
            Way::CgmanagersKey | Way::CgmanagersFile => {
                self.cgmanager.value(controller(names.1), group, way.of(names)).expect("it is readable")
            }
            Way::File => {
                self.daemon.read(&format!("cg{group}/{}", names.1)).trim_end_matches('\n').to_owned()
            }
        }
    }
}

fn name(group: &str) -> GroupName {
    group.parse().expect("a group's name")
}

/// The errno that a message names at the end of its first line.
fn errno_in(message: &str) -> String {
    let first = message.lines().next().unwrap_or_default();
    let errno = first.rsplit_once('(').and_then(|(_, errno)| errno.strip_suffix(')'));
    errno.unwrap_or_else(|| panic!("{message}: no errno")).to_owned()
}

fn errno_of(error: &std::io::Error) -> String {
    let known = [(1, "EPERM"), (19, "ENODEV"), (22, "EINVAL"), (34, "ERANGE")];
    let number = error.raw_os_error().expect("it is the kernel's");
    let found = known.iter().find(|(of, _)| *of == number);
    found.unwrap_or_else(|| panic!("{error}: not known here")).1.to_owned()
}

/// Has the guest's disk be one that BFQ sees to, until this is dropped.
struct Weighing;

const SCHEDULER: &str = "/sys/block/vda/queue/scheduler";

impl Weighing {
    fn begin() -> Self {
        let loaded = Command::new("modprobe").arg("bfq").status().expect("modprobe runs");
        assert!(loaded.success(), "the guest's kernel has BFQ");
        std::fs::write(SCHEDULER, "bfq").expect("the guest has a disk");
        Self
    }
}

impl Drop for Weighing {
    fn drop(&mut self) {
        std::fs::write(SCHEDULER, "none").expect("every kernel has none");
    }
}

/// A realm with all of these controllers, served to everybody who is asked.
fn realm() -> Option<Daemon> {
    let mut daemon = Daemon::new()?;
    let arguments = [
        format!("--mount=blkio,devices,hugetlb,net_cls,net_prio:{}/cg", daemon.dir.display()),
        format!("--cgmanager={}/cgmanager.sock", daemon.dir.display()),
    ];
    if let Err(output) = daemon.try_serve(&arguments) {
        panic!("the daemon did not start: {}", text(&output.stderr));
    }
    Some(daemon)
}

#[test]
fn a_value_is_the_same_whichever_way_it_is_set_and_read() {
    if !in_guest() {
        return;
    }
    let _weighing = Weighing::begin();
    let disk = std::fs::read_to_string("/sys/block/vda/dev").expect("the guest has a disk");
    let Some(mut daemon) = realm() else { return };
    let asked = Asked {
        daemon: &daemon,
        manager: Client::connect(&daemon.state().join("socket")).expect("the door is open"),
        cgmanager: cgmanager::Client::at(&daemon.dir.join("cgmanager.sock")),
    };
    for (number, row) in ROWS.iter().enumerate() {
        let above = format!("/{number}");
        let group = format!("{above}/g");
        daemon.ok(&["create", "-p", &group]);
        for (below, key, value) in row.first {
            // What the group above has, the group has from the beginning.
            if below.is_empty() {
                daemon.ok(&["rm", &group]);
            }
            asked.manager.set_value(&name(&format!("{above}{below}")), key, value).expect(key);
            daemon.ok(&["create", "-p", &group]);
        }
        let says = |ways: &[Way], (key, file): (&str, &str), after: &str| {
            for way in ways {
                let said = asked.get(*way, &group, row.get);
                assert_eq!(said, way.of((key, file)), "{} by {way:?}, after {after}", row.get.0);
            }
        };
        let now = || [Way::ManagersKey, Way::File].map(|way| asked.get(way, &group, row.get));
        let [key, file] = now();
        says(&WAYS, (&key, &file), "nothing");
        for (turn, way) in WAYS.into_iter().enumerate() {
            // The file, and each of the others in turn.
            let asks = [Way::File, WAYS[(turn + 1) % WAYS.len()]];
            for [key, file, key_says, file_says] in row.values {
                let [value, key_says, file_says] =
                    [way.of((key, file)), key_says, file_says].map(|text| text.replace("DISK", disk.trim()));
                let after = format!("{value:?} by {way:?}");
                assert_eq!(asked.set(way, &group, row.set, &value), Ok(()), "{}: {after}", row.set.0);
                says(&asks, (&key_says, &file_says), &after);
            }
            let [key, file] = now();
            for [of_key, of_file, errno] in row.refused {
                let value = way.of((of_key, of_file)).replace("DISK", disk.trim());
                let answer = asked.set(way, &group, row.set, &value);
                assert_eq!(answer, Err((*errno).to_owned()), "{}: {value:?} by {way:?}", row.set.0);
            }
            says(&asks, (&key, &file), "what was refused");
        }
        let [key, file] = now();
        says(&WAYS, (&key, &file), "all");
    }
    daemon.down();
}

/// What v1 asks CAP_SYS_ADMIN of the first user namespace for, root of a container does in no way; what is below its own group
/// it sets otherwise, and of its own group nothing.
#[test]
fn root_of_a_container_sets_what_is_below_and_no_rules_of_devices() {
    if !in_guest() {
        return;
    }
    let _weighing = Weighing::begin();
    let disk = std::fs::read_to_string("/sys/block/vda/dev").expect("the guest has a disk");
    let disk = disk.trim();
    let Some(mut daemon) = realm() else { return };
    daemon.ok(&["create", "/t"]);
    daemon.ok(&["chown", &format!("{FIRST}:{FIRST}"), "/t"]);
    std::os::unix::fs::symlink(crate::daemon::BINARY, daemon.dir.join("cgm")).expect("a private directory");
    let mut root = Shell::of_container_at_mounts(&daemon, "/t");
    let dir = daemon.dir.display();
    root.run(&format!("cd {dir}; export CGM_SOCKET={dir}/cgmanager.sock"));
    root.ok("create g");
    for (key, file, value) in [
        ("blkio_weight", "blkio.weight", "300"),
        ("blkio_weight_device", "blkio.bfq.weight_device", &format!("{disk} 300")),
        ("blkio_throttle_read", "blkio.throttle.read_bps_device", &format!("{disk} 1048576")),
        ("blkio_throttle_write", "blkio.throttle.write_bps_device", &format!("{disk} 1048576")),
        ("hugetlb_limit", "hugetlb.2MB.limit_in_bytes", "2097152"),
        ("net_classid", "net_cls.classid", "65537"),
        ("net_prio_interface_map", "net_prio.ifpriomap", "lo 5"),
    ] {
        let by_key = if key == "hugetlb_limit" { format!("2MB {value}") } else { value.to_owned() };
        let controller = controller(file);
        let before = daemon.read(&format!("cg/t/{file}"));
        for way in [
            format!("$pinfold set GROUP '{key}={by_key}'"),
            format!("./cgm setvalue {controller} GROUP {file} '{value}'"),
            format!("env echo '{value}' > cg/t/GROUP/{file}"),
        ] {
            let said = root.run(&way.replace("GROUP", "g"));
            assert_eq!(said.status, 0, "{way}: {}", said.text);
            let said = root.run(&way.replace("GROUP", "."));
            assert_ne!(said.status, 0, "{way}: {}", said.text);
        }
        assert_eq!(daemon.read(&format!("cg/t/{file}")), before);
        assert!(daemon.read(&format!("cg/t/g/{file}")).contains(value), "{key}");
    }
    for (key, file) in [("devices_blacklist", "devices.deny"), ("devices_whitelist", "devices.allow")] {
        let owner = std::fs::metadata(daemon.path(&format!("cg/t/g/{file}"))).expect("it is there").uid();
        assert_eq!(owner, FIRST, "the file is its maker's");
        for way in [
            format!("$pinfold set g '{key}=c 1:3 r'"),
            format!("./cgm setvalue devices g {file} 'c 1:3 r'"),
            format!("env echo 'c 1:3 r' > cg/t/g/{file}"),
        ] {
            let said = root.run(&way);
            let is_why = ["EPERM", "not permitted"].iter().any(|why| said.text.contains(why));
            assert!(said.status != 0 && is_why, "{way}: {}", said.text);
        }
    }
    drop(root);
    daemon.ok(&["rm", "-r", "/t"]);
    daemon.down();
}
