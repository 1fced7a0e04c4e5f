//! Mount options as mount(8) and users write them, and the move of a mount to its place.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, bail};
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags};
use rustix::mount::MountFlags;

/// Options of mount(8) that say nothing about a cgroup file system: it has no devices, programs or access times.
const IGNORED: &[&str] = &[
    "_netdev",
    "atime",
    "auto",
    "defaults",
    "dev",
    "diratime",
    "exec",
    "group",
    "iversion",
    "loud",
    "noatime",
    "noauto",
    "nodev",
    "nodiratime",
    "noexec",
    "nofail",
    "noiversion",
    "norelatime",
    "nostrictatime",
    "nosuid",
    "nosymfollow",
    "nouser",
    "owner",
    "relatime",
    "silent",
    "strictatime",
    "suid",
    "symfollow",
    "user",
    "users",
];
/// Such options with a value: `comment=...`, and what other programs keep in fstab.
const IGNORED_PREFIXES: &[&str] = &["comment=", "uhelper=", "x-", "X-"];
/// In fstab: the realm to mount from.
const REALM: &str = "x-pinfold.realm=";

/// What a list of options asks for.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Wanted {
    /// The options that choose and shape a hierarchy.
    pub hierarchy: String,
    /// Whether a mount that is there is changed.
    pub remount: bool,
    /// Whether nothing can be written through the mount.
    pub read_only: bool,
    /// The realm, if the options name one.
    pub realm: Option<String>,
}

impl Wanted {
    /// Sorts a list of options; what is wrong with one the daemon says.
    pub(crate) fn parse(options: &str) -> Self {
        let mut wanted = Self::default();
        let mut hierarchy = Vec::new();
        for option in options.split(',') {
            match option {
                "remount" => wanted.remount = true,
                "ro" => wanted.read_only = true,
                "rw" => wanted.read_only = false,
                _ if option.starts_with(REALM) => wanted.realm = Some(option[REALM.len()..].to_owned()),
                _ if IGNORED.contains(&option) => {}
                _ if IGNORED_PREFIXES.iter().any(|prefix| option.starts_with(prefix)) => {}
                _ => hierarchy.push(option),
            }
        }
        wanted.hierarchy = hierarchy.join(",");
        wanted
    }
}

/// Puts a detached mount at a directory of the caller's mount namespace.
pub(crate) fn attach(mount: OwnedFd, dir: &Path, read_only: bool) -> anyhow::Result<()> {
    pinfold_fuse::attach(mount, dir)?;
    if read_only { make_read_only(dir) } else { Ok(()) }
}

/// Lets nothing be written through the mount at a directory.
pub(crate) fn make_read_only(dir: &Path) -> anyhow::Result<()> {
    let flags = MountFlags::BIND
        | MountFlags::RDONLY
        | MountFlags::NOSUID
        | MountFlags::NODEV
        | MountFlags::NOEXEC
        | MountFlags::RELATIME;
    rustix::mount::mount_remount(dir, flags, "")
        .with_context(|| format!("{} cannot be made read-only", dir.display()))
}

/// The first column of /proc/mounts for a mount of ours: `pinfold:REALM:HIERARCHY`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Source {
    /// The realm's name.
    pub realm: String,
    /// The hierarchy's number.
    pub hierarchy: u32,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pinfold:{}:{}", self.realm, self.hierarchy)
    }
}

impl Source {
    fn parse(text: &str) -> Option<Self> {
        let (realm, hierarchy) = text.strip_prefix("pinfold:")?.rsplit_once(':')?;
        Some(Self { realm: realm.to_owned(), hierarchy: hierarchy.parse().ok()? })
    }

    /// Whether the first column is of a mount of this realm's.
    pub(crate) fn is_of(text: &str, realm: &str) -> bool {
        Self::parse(text).is_some_and(|source| source.realm == realm)
    }

    /// What is mounted at a directory; an error if that is not a mount of ours.
    pub(crate) fn at(dir: &Path) -> anyhow::Result<Self> {
        let shown = dir.display();
        let flags = AtFlags::STATX_DONT_SYNC | AtFlags::SYMLINK_NOFOLLOW;
        let stat =
            rustix::fs::statx(CWD, dir, flags, StatxFlags::MNT_ID).with_context(|| shown.to_string())?;
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").context("/proc/self/mountinfo")?;
        let found = source_of(&mounts, stat.stx_mnt_id).and_then(Self::parse);
        match found {
            Some(source) if stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) => Ok(source),
            _ => bail!("{shown} is not where pinfold has mounted something (EINVAL)"),
        }
    }
}

/// The source of the mount with this number: the second field behind the dash (proc_pid_mountinfo(5)).
fn source_of(mountinfo: &str, id: u64) -> Option<&str> {
    let line = mountinfo
        .lines()
        .find(|line| line.split(' ').next().and_then(|word| word.parse().ok()) == Some(id))?;
    line.split_once(" - ")?.1.split(' ').nth(1)
}

#[cfg(test)]
mod tests {
    use super::{Source, Wanted, source_of};

    #[test]
    fn a_mount_of_ours_is_known_by_its_source() {
        let source = Source { realm: "web".to_owned(), hierarchy: 3 };
        assert_eq!(Source::parse(&source.to_string()), Some(source));
        for other in ["none", "pinfold:web", "pinfold:web:x", "cgroup"] {
            assert_eq!(Source::parse(other), None, "{other}");
        }
        let mounts = "21 1 254:0 / / rw - ext4 /dev/vda rw\n40 21 0:39 / /a rw shared:7 - fuse.cgroup pinfold:web:3 rw\n";
        assert_eq!(source_of(mounts, 40), Some("pinfold:web:3"));
        assert_eq!(source_of(mounts, 4), None);
    }

    #[test]
    fn options_of_mount_8_are_told_from_those_of_the_hierarchy() {
        let plain = |hierarchy: &str| Wanted { hierarchy: hierarchy.to_owned(), ..Wanted::default() };
        for (options, wanted) in [
            ("pids,freezer", plain("pids,freezer")),
            ("rw,pids", plain("pids")),
            ("rw", plain("")),
            ("", plain("")),
            ("nosuid,nodev,noexec,relatime,name=systemd,none,xattr", plain("name=systemd,none,xattr")),
            ("ro,pids", Wanted { read_only: true, ..plain("pids") }),
            ("remount,rw,pids", Wanted { remount: true, ..plain("pids") }),
            (
                "all,x-pinfold.realm=web,x-systemd.automount",
                Wanted { realm: Some("web".into()), ..plain("all") },
            ),
            ("pids,nonsense", plain("pids,nonsense")),
        ] {
            assert_eq!(Wanted::parse(options), wanted, "{options:?}");
        }
    }
}
