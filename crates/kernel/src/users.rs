//! The user namespace that a process is in, as seen from the daemon's.

use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use pinfold_model::{HostPid, IdMap, Uid, Users};
use rustix::fs::fstat;

use crate::proc;
use crate::process::{Namespace, NamespaceId, ProcessError, lasting_namespace, namespace};

/// Why it is not known who there is in a process's user namespace.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// The process cannot be looked at.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// Its namespace is neither the daemon's nor below it: what users are called there says nothing here.
    #[error("process {0} is in a namespace outside of the daemon's")]
    Elsewhere(HostPid),
    /// Its maps make no sense.
    #[error("the users of process {process} are not known")]
    Map {
        /// The process.
        process: HostPid,
        /// What is wrong with them.
        source: pinfold_model::IdMapError,
    },
}

/// Who there is in the user namespace of a process. The number may name another process a moment later: hold it first
/// and verify it last.
pub fn users_of(process: HostPid) -> Result<Users, UsersError> {
    let is_daemons = namespace(process, Namespace::User)? == lasting_namespace(Namespace::User)?;
    if is_daemons || path_up(process, Namespace::User)?.is_empty() {
        return Ok(Users::Daemons { owner: Uid(rustix::process::geteuid().as_raw()) });
    }
    let map = |file| -> Result<IdMap, UsersError> {
        let text = proc::read_of(process, file).map_err(|errno| ProcessError::of(process, file, errno))?;
        let map = String::from_utf8_lossy(&text).parse();
        map.map_err(|source| UsersError::Map { process, source })
    };
    Ok(Users::Below { uids: map("uid_map")?, gids: map("gid_map")? })
}

/// Whether a user's number may be the one that all have in the daemon's user namespace who have none there.
///
/// Source: user_namespaces(7), `/proc/sys/kernel/overflowuid`.
pub fn may_have_no_number(uid: Uid) -> bool {
    static NOBODYS: OnceLock<Option<u32>> = OnceLock::new();
    let read = || {
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let number = std::fs::read_to_string("/proc/sys/kernel/overflowuid").unwrap_or_default();
        (!has_everybody(&map)).then(|| number.trim().parse().unwrap_or(NOBODY))
    };
    *NOBODYS.get_or_init(read) == Some(uid.0)
}

/// The number of nobody unless the machine says otherwise.
const NOBODY: u32 = 65534;

fn has_everybody(map: &str) -> bool {
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// What a process is confined in: the outermost namespace below the daemon's that somebody of the daemon's user namespace
/// made for it, and who did. `None` if it is in the daemon's own. Everybody in there, however nested, came in by that leave.
///
/// That is a pid namespace which the daemon's user namespace owns (Docker's), whose maker had CAP_SYS_ADMIN there; else a user
/// namespace, of which the kernel knows who made it.
pub fn confinement(process: HostPid) -> Result<Option<(NamespaceId, Uid)>, UsersError> {
    let failed = |errno| ProcessError::of(process, Namespace::User.file(), errno);
    let id =
        |namespace: &OwnedFd| Ok::<_, UsersError>(NamespaceId::of_stat(&fstat(namespace).map_err(failed)?));
    if let Some(namespace) = path_up(process, Namespace::Pid)?.pop() {
        let owner = pinfold_sys::ns::owner(&namespace).map_err(failed)?;
        if id(&owner)? == lasting_namespace(Namespace::User)? {
            return Ok(Some((id(&namespace)?, Uid(0))));
        }
    }
    match path_up(process, Namespace::User)?.pop() {
        None => Ok(None),
        Some(namespace) => {
            let maker = pinfold_sys::ns::maker(&namespace).map_err(failed)?;
            Ok(Some((id(&namespace)?, Uid(maker))))
        }
    }
}

/// The namespace of a kind (users, pids) that a process is in, and those around it up to, but without, the daemon's.
fn path_up(process: HostPid, kind: Namespace) -> Result<Vec<OwnedFd>, UsersError> {
    let own = lasting_namespace(kind)?;
    let failed = |errno| ProcessError::of(process, kind.file(), errno);
    let mut at = proc::open_of(process, kind.file()).map_err(failed)?;
    let mut path = Vec::new();
    while NamespaceId::of_stat(&fstat(&at).map_err(failed)?) != own {
        let above = match pinfold_sys::ns::parent(&at) {
            Ok(above) => above,
            // It is not the daemon's to see, or there is none above.
            Err(rustix::io::Errno::PERM) => return Err(UsersError::Elsewhere(process)),
            Err(errno) => return Err(failed(errno).into()),
        };
        path.push(std::mem::replace(&mut at, above));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};

    use super::*;
    use crate::process::own_pid;

    /// A process in a user namespace of its own, killed by the test.
    fn inside(script: &str) -> (Child, HostPid) {
        let arguments = ["--user", "--map-root-user", "sh", "-c", script];
        let mut child = Command::new("unshare").args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "unshare works here");
        let pid = HostPid::new(child.id()).unwrap();
        (child, pid)
    }

    fn end(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn the_daemons_own_namespace_is_known_as_such() {
        let owner = Uid(rustix::process::geteuid().as_raw());
        assert_eq!(users_of(own_pid()).unwrap(), Users::Daemons { owner });
    }

    #[test]
    fn users_of_a_namespace_two_deep_are_known_by_the_daemons_numbers() {
        let (outer, pid) = inside("echo ready; exec sleep 600");
        let own = rustix::process::geteuid().as_raw();
        let expected = |users: Users| match users {
            Users::Below { uids, gids } => {
                assert_eq!((uids.inside(own), uids.inside(own + 1)), (Some(0), None));
                assert_eq!(gids.inside(rustix::process::getegid().as_raw()), Some(0));
            }
            Users::Daemons { .. } => panic!("another namespace"),
        };
        expected(users_of(pid).unwrap());
        end(outer);
        assert_eq!(confinement(own_pid()).unwrap(), None);
        let (nested, pid) = inside("exec unshare --user --map-root-user sh -c 'echo ready; exec sleep 600'");
        expected(users_of(pid).unwrap());
        let (namespace, maker) = confinement(pid).unwrap().unwrap();
        assert_eq!(maker.0, own);
        let innermost = crate::process::namespace(pid, Namespace::User).unwrap();
        assert_ne!(namespace, innermost, "the outermost of two");
        end(nested);
    }

    #[test]
    fn who_is_confined_by_a_pid_namespace_of_the_hosts_cannot_leave_it_by_more_namespaces() {
        if !rustix::process::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none_or(|value| value != "true"), "CI is root");
            return eprintln!("skipped: needs root");
        }
        // The child is what all others die with.
        let script = "exec unshare --pid --fork --kill-child sh -c 'unshare --user --map-root-user --pid --fork \
                      --kill-child sh -c \"echo; exec sleep 600\"'";
        let mut child = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
        let below = |of: HostPid| {
            let children = std::fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap();
            HostPid::new(children.split_whitespace().next().unwrap().parse().unwrap()).unwrap()
        };
        let mut at = HostPid::new(child.id()).unwrap();
        while confinement(at).unwrap().is_none() {
            at = below(at);
        }
        let outer = confinement(at).unwrap();
        assert_eq!(outer.unwrap().1, Uid(0));
        while users_of(at).is_ok_and(|users| matches!(users, Users::Daemons { .. })) {
            at = below(at);
        }
        assert_eq!(confinement(at).unwrap(), outer);
        assert_eq!(confinement(below(at)).unwrap(), outer);
        end(child);
    }
}
