//! Where cgroup file systems are mounted, from `/proc/self/mountinfo`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::proc;

/// The magic number that statfs(2) gives for cgroup v2 (linux/magic.h).
const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;

/// A mounted cgroup v2 tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct V2Mount {
    /// Where it is mounted.
    pub point: PathBuf,
    /// What part of the tree the mount shows, as `/proc/PID/cgroup` would print it. `/` in most cases.
    pub root: OsString,
    /// The options of the tree, separated by commas: `rw,nsdelegate`.
    pub options: String,
}

/// A kernel v1 hierarchy that is still mounted; pinfold never touches it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct V1Mount {
    /// Where it is mounted.
    pub point: PathBuf,
    /// Its controllers, or its name as `name=NAME`, separated by commas.
    pub controllers: String,
}

/// Why no cgroup v2 tree was found.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    /// The mount table could not be read.
    #[error("/proc/self/mountinfo cannot be read: {0}")]
    Mountinfo(#[source] Errno),
    /// No cgroup2 file system is mounted here.
    #[error("no cgroup2 file system is mounted\nmount -t cgroup2 none DIR makes one")]
    NotMounted,
    /// The mount shows more than the cgroup namespace, so that paths in `/proc/PID/cgroup` do not lead into it.
    #[error("the cgroup2 mount at {} shows {} of this cgroup namespace\nmount cgroup2 anew in this namespace",
        point.display(), root.display())]
    Foreign {
        /// Where it is mounted.
        point: PathBuf,
        /// What it shows.
        root: OsString,
    },
}

/// Both kinds of cgroup file systems that are mounted here.
pub(crate) struct CgroupMounts {
    pub(crate) v2: Vec<V2Mount>,
    pub(crate) v1: Vec<V1Mount>,
}

/// Finds the cgroup v2 mount: the conventional place, else the hybrid layout's, else the first one.
pub(crate) fn discover() -> Result<V2Mount, DiscoverError> {
    let found = cgroup_mounts().map_err(DiscoverError::Mountinfo)?;
    choose(found.v2.into_iter().filter(|mount| is_on_top(&mount.point)).collect())
}

/// Lists the cgroup mounts of this mount namespace.
pub(crate) fn cgroup_mounts() -> Result<CgroupMounts, Errno> {
    Ok(parse(&proc::read("self/mountinfo")?))
}

/// Whether the file system that a path leads to now is cgroup v2: a later mount may cover an earlier one.
fn is_on_top(point: &Path) -> bool {
    rustix::fs::open(point, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .is_ok_and(|fd| is_cgroup2(&fd))
}

/// Whether a descriptor is in a cgroup v2 tree.
pub(crate) fn is_cgroup2(fd: impl std::os::fd::AsFd) -> bool {
    rustix::fs::fstatfs(fd).is_ok_and(|fs| u64::try_from(fs.f_type) == Ok(CGROUP2_SUPER_MAGIC))
}

fn choose(mounts: Vec<V2Mount>) -> Result<V2Mount, DiscoverError> {
    let covered = |(place, mount): &(usize, V2Mount)| {
        mounts[place + 1..].iter().any(|later| later.point == mount.point)
    };
    let open = mounts.iter().cloned().enumerate().filter(|mount| !covered(mount));
    let mut mounts: Vec<_> = open.map(|(_, mount)| mount).collect();
    // A stable sort: among equals the first in the mount table stays first.
    mounts.sort_by_key(|mount| match mount.point.to_str() {
        _ if is_foreign(mount) => 3,
        Some("/sys/fs/cgroup") => 0,
        Some("/sys/fs/cgroup/unified") => 1,
        _ => 2,
    });
    match mounts.into_iter().next() {
        None => Err(DiscoverError::NotMounted),
        Some(mount) if is_foreign(&mount) => {
            Err(DiscoverError::Foreign { point: mount.point, root: mount.root })
        }
        Some(mount) => Ok(mount),
    }
}

fn is_foreign(mount: &V2Mount) -> bool {
    mount.root.as_bytes().starts_with(b"/..")
}

fn parse(mountinfo: &[u8]) -> CgroupMounts {
    let mut found = CgroupMounts { v2: Vec::new(), v1: Vec::new() };
    for line in mountinfo.split(|byte| *byte == b'\n').filter_map(Line::parse) {
        match line.fs_type {
            b"cgroup2" => {
                let options = String::from_utf8_lossy(line.options).into_owned();
                found.v2.push(V2Mount { point: line.point, root: line.root, options });
            }
            b"cgroup" => found.v1.push(V1Mount { point: line.point, controllers: controllers(line.options) }),
            _ => {}
        }
    }
    found
}

/// One line of mountinfo (proc_pid_mountinfo(5)): `ID PARENT DEV ROOT POINT FLAGS [TAG]... - TYPE SOURCE OPTIONS`.
struct Line<'a> {
    root: OsString,
    point: PathBuf,
    fs_type: &'a [u8],
    options: &'a [u8],
}

impl<'a> Line<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ');
        let root = unescape(fields.nth(3)?);
        let point = PathBuf::from(unescape(fields.next()?));
        let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
        let fs_type = fields.next()?;
        let _source = fields.next()?;
        Some(Self { root, point, fs_type, options: fields.next()? })
    }
}

/// The kernel writes space, tab, newline and backslash as `\` and three octal digits.
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        match octal(rest) {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[4..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    OsString::from_vec(bytes)
}

fn octal(escape: &[u8]) -> Option<u8> {
    let (b'\\', digits) = escape.split_first().map(|(first, digits)| (*first, digits))? else { return None };
    let digits = std::str::from_utf8(digits.get(..3)?).ok()?;
    u8::from_str_radix(digits, 8).ok()
}

/// A v1 hierarchy's super block options without the flags that are not controllers.
fn controllers(options: &[u8]) -> String {
    const FLAGS: [&str; 9] = [
        "rw",
        "ro",
        "xattr",
        "noprefix",
        "clone_children",
        "cpuset_v2_mode",
        "favordynmods",
        "release_agent",
        "none",
    ];
    let options = OsStr::from_bytes(options).to_string_lossy();
    let kept =
        options.split(',').filter(|option| !FLAGS.contains(&option.split('=').next().unwrap_or_default()));
    kept.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:5 master:1 - cgroup cgroup rw,cpu,cpuacct
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/lib/agent,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
50 31 0:38 /a\\040b /mnt/two\\134words rw,relatime shared:1 - cgroup2 cgroup2 rw,nsdelegate
";

    #[test]
    fn both_versions_are_found_in_the_mount_table() {
        let found = parse(HYBRID.as_bytes());
        let v1: Vec<_> = found.v1.iter().map(|m| (m.point.to_str().unwrap(), &*m.controllers)).collect();
        assert_eq!(
            v1,
            [("/sys/fs/cgroup/cpu,cpuacct", "cpu,cpuacct"), ("/sys/fs/cgroup/systemd", "name=systemd")]
        );
        let v2: Vec<_> =
            found.v2.iter().map(|m| (m.point.to_str().unwrap(), m.root.to_str().unwrap())).collect();
        assert_eq!(v2, [("/sys/fs/cgroup/unified", "/"), ("/mnt/two\\words", "/a b")]);
        assert_eq!(found.v2[1].options, "rw,nsdelegate");
    }

    #[test]
    fn a_line_cut_short_is_passed_over() {
        for cut in 0..HYBRID.len() {
            parse(&HYBRID.as_bytes()[..cut]);
        }
        assert!(parse(b"1 2 0:3 / /x rw - cgroup2").v2.is_empty());
    }

    #[test]
    fn the_conventional_place_is_taken_first_and_a_foreign_one_never() {
        let mount = |point: &str, root: &str| V2Mount {
            point: point.into(),
            root: root.into(),
            options: "rw".to_owned(),
        };
        let chosen = |mounts: &[V2Mount]| choose(mounts.to_vec()).map(|mount| mount.point).ok();
        let other = mount("/mnt", "/");
        let hybrid = mount("/sys/fs/cgroup/unified", "/");
        let unified = mount("/sys/fs/cgroup", "/");
        let foreign = mount("/sys/fs/cgroup", "/../..");
        assert_eq!(chosen(&[other.clone(), hybrid.clone(), unified]), Some("/sys/fs/cgroup".into()));
        assert_eq!(chosen(&[other.clone(), hybrid]), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(chosen(&[foreign.clone(), other]), Some("/mnt".into()));
        let unified = mount("/sys/fs/cgroup", "/");
        assert_eq!(choose(vec![foreign.clone(), unified.clone()]).unwrap(), unified, "what covers counts");
        assert!(matches!(choose(vec![unified, foreign.clone()]), Err(DiscoverError::Foreign { .. })));
        assert!(matches!(choose(vec![foreign]), Err(DiscoverError::Foreign { .. })));
        assert!(matches!(choose(vec![]), Err(DiscoverError::NotMounted)));
    }
}
