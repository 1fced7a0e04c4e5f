//! What this machine offers: for `pinfold doctor` and the daemon's first words.

use std::collections::BTreeSet;

use rustix::fs::{Access, AtFlags, Mode, OFlags};
use rustix::io::Errno as Raw;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, netlink};
use rustix::thread::CapabilitySet;

use crate::process::{Namespace, own_namespace};
use crate::tree::words;
use crate::{DiscoverError, V1Mount, V2Mount, beneath, mounts};

/// The oldest kernel that is supported: `cgroup.kill` came with 5.14, and 5.15 is the long-term release after it.
pub const OLDEST: Release = Release { major: 5, minor: 15 };

/// What was found.
#[derive(Debug)]
pub struct Inspection {
    /// The kernel's release as it prints it.
    pub release: String,
    /// Whether that is [`OLDEST`] or newer.
    pub is_new_enough: bool,
    /// The v2 tree.
    pub v2: Result<V2Found, DiscoverError>,
    /// Kernel v1 hierarchies that are mounted: pinfold leaves them alone, and the controllers bound there are not in
    /// the v2 tree.
    pub v1: Vec<V1Mount>,
    /// Whether `/dev/fuse` can be opened; if not, the kernel's answer.
    pub fuse: Result<(), Raw>,
    /// The daemon's effective capabilities.
    pub capabilities: Capabilities,
    /// Whether the daemon is in the first pid namespace.
    pub in_first_pid_namespace: bool,
    /// Whether the daemon is in the first user namespace.
    pub in_first_user_namespace: bool,
    /// Whether the kernel reports process events here; if not, its answer.
    pub proc_connector: Result<(), Raw>,
    /// Whether BPF programs can be attached to v2 directories; if not, the kernel's answer.
    pub programs: Result<(), Raw>,
    /// Whether CPU time can be measured by CPU; if not, the kernel's answer.
    pub switches: Result<(), Raw>,
    /// Whether resource limits of other processes can be set and raised again.
    pub resource_limits: bool,
}

/// A kernel release's first two numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Release {
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
}

/// A v2 tree, as found.
#[derive(Debug)]
pub struct V2Found {
    /// Where.
    pub mount: V2Mount,
    /// The controllers that the mount's top directory has.
    pub controllers: BTreeSet<String>,
    /// Those that it passes on to the directories below.
    pub passed_on: BTreeSet<String>,
    /// Whether directories can be made there; if not, the kernel's answer.
    pub writable: Result<(), Raw>,
}

/// Capabilities that some feature needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capabilities {
    /// All effective ones: bit N is capability N.
    pub effective: u64,
    /// CAP_SYS_ADMIN: to mount, and to pass descriptors of mounts on.
    pub sys_admin: bool,
    /// CAP_NET_ADMIN: the proc connector.
    pub net_admin: bool,
    /// CAP_SYS_PTRACE: the namespaces of other users' processes.
    pub sys_ptrace: bool,
    /// CAP_BPF: device rules.
    pub bpf: bool,
}

/// Looks at everything. Changes nothing.
pub fn inspect() -> Inspection {
    Inspection {
        is_new_enough: Release::of_kernel().is_some_and(|found| found >= OLDEST),
        release: release(),
        v2: mounts::discover().map(look_at),
        v1: mounts::cgroup_mounts().map(|found| found.v1).unwrap_or_default(),
        fuse: rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map(drop),
        capabilities: capabilities(),
        in_first_pid_namespace: is_first(Namespace::Pid),
        in_first_user_namespace: is_first(Namespace::User),
        proc_connector: proc_connector(),
        programs: programs(),
        switches: switches(),
        resource_limits: resource_limits(),
    }
}

/// What `uname -r` says.
fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

impl Release {
    /// The release of the running kernel.
    pub fn of_kernel() -> Option<Self> {
        Self::parse(&release())
    }

    /// Reads the beginning of `uname -r`.
    pub fn parse(release: &str) -> Option<Self> {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        Some(Self { major: numbers.next()?.ok()?, minor: numbers.next()?.ok()? })
    }
}

fn look_at(mount: V2Mount) -> V2Found {
    let top =
        rustix::fs::open(&mount.point, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let listed = |file: &str| match &top {
        Ok(top) => beneath::read(top, file).map(|content| words(&content)).unwrap_or_default(),
        Err(_) => BTreeSet::new(),
    };
    V2Found {
        controllers: listed("cgroup.controllers"),
        passed_on: listed("cgroup.subtree_control"),
        writable: top.as_ref().map_err(|errno| *errno).and_then(|top| {
            rustix::fs::accessat(top, ".", Access::WRITE_OK, AtFlags::EACCESS)?;
            rustix::fs::accessat(top, "cgroup.procs", Access::WRITE_OK, AtFlags::EACCESS)
        }),
        mount,
    }
}

fn capabilities() -> Capabilities {
    let effective = rustix::thread::capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    Capabilities {
        effective: effective.bits(),
        sys_admin: effective.contains(CapabilitySet::SYS_ADMIN),
        net_admin: effective.contains(CapabilitySet::NET_ADMIN),
        sys_ptrace: effective.contains(CapabilitySet::SYS_PTRACE),
        bpf: effective.intersects(CapabilitySet::BPF | CapabilitySet::SYS_ADMIN),
    }
}

/// Whether BPF programs can be attached to v2 directories; if not, the kernel's answer: EPERM without the right to, EINVAL
/// without CONFIG_CGROUP_BPF, ENOSYS without bpf(2).
pub fn programs() -> Result<(), Raw> {
    crate::programs::probe()
}

/// Whether CPU time can be measured by CPU; if not, the kernel's answer: EPERM without CAP_BPF and CAP_PERFMON, EINVAL without
/// CONFIG_BPF_EVENTS, ENOSYS before Linux 6.1.
pub fn switches() -> Result<(), Raw> {
    crate::switches::probe()
}

/// Whether resource limits of other processes can be set and raised again: CAP_SYS_RESOURCE in the first user namespace.
///
/// Source: check_prlimit_permission(), do_prlimit().
pub fn resource_limits() -> bool {
    let effective = rustix::thread::capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    effective.contains(CapabilitySet::SYS_RESOURCE) && is_first(Namespace::User)
}

/// The network interfaces of the daemon's namespace: `INDEX NAME` a line, in the kernel's order. Those that go meanwhile are
/// left out.
pub fn interfaces() -> String {
    let Ok(socket) = rustix::net::socket(AddressFamily::UNIX, SocketType::DGRAM, None) else {
        return String::new();
    };
    let list = std::fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    let names = list.lines().filter_map(|line| Some(line.split_once(':')?.0.trim()));
    let line = |name| Some(format!("{} {name}\n", netdevice::name_to_index(&socket, name).ok()?));
    names.filter_map(line).collect()
}

/// What a file of /proc/sys says; the name has dots for slashes. `None`: there is none, or it cannot be read.
pub fn sysctl(name: &str) -> Option<String> {
    std::fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).ok()
}

/// The first namespaces have fixed numbers (include/linux/proc_ns.h).
fn is_first(kind: Namespace) -> bool {
    let number = match kind {
        Namespace::Pid => 0xEFFF_FFFC,
        Namespace::User => 0xEFFF_FFFD,
        Namespace::Cgroup => 0xEFFF_FFFB,
        Namespace::Time => 0xEFFF_FFFA,
        Namespace::Uts => 0xEFFF_FFFE,
        Namespace::Ipc => 0xEFFF_FFFF,
        Namespace::Mount | Namespace::Net => return false,
    };
    own_namespace(kind).is_ok_and(|id| id.inode() == number)
}

/// Joins the connector's group of process events as `events` will, and leaves it at once without asking for any.
fn proc_connector() -> Result<(), Raw> {
    /// linux/connector.h: CN_IDX_PROC, as a bit of the group mask.
    const PROC_GROUP: u32 = 1;
    if !is_first(Namespace::Pid) || !is_first(Namespace::User) {
        // cn_proc_mcast_ctl() ignores requests from elsewhere without a word.
        return Err(Raw::PERM);
    }
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(netlink::CONNECTOR),
    )?;
    rustix::net::bind(&socket, &SocketAddrNetlink::new(0, PROC_GROUP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_compared_by_its_first_two_numbers() {
        let parsed = |text| Release::parse(text).map(|r| (r.major, r.minor));
        assert_eq!(parsed("6.18.44-fc-v595"), Some((6, 18)));
        assert_eq!(parsed("5.4-rc1+"), Some((5, 4)));
        assert_eq!(parsed("6"), None);
        assert_eq!(parsed(""), None);
        assert!(
            Release::parse("5.4").unwrap() < OLDEST && Release::parse("6.1.0-18-amd64").unwrap() > OLDEST
        );
    }

    #[test]
    fn the_loopback_interface_is_the_first_of_every_namespace() {
        assert_eq!(interfaces().lines().next(), Some("1 lo"));
    }

    #[test]
    fn an_inspection_finds_the_kernel_it_runs_on() {
        let found = inspect();
        let proc = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        assert_eq!(found.release, proc.trim());
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim();
        assert_eq!(format!("{:016x}", found.capabilities.effective), effective);
    }
}
