//! What a process puts on once its relations stand: namespaces, limits, directories, credentials, and its program.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::fmt::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use pinfold_sys::exec;

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{Gid, Resource, Rlimit, Uid, getrlimit, setrlimit};
use rustix::thread::{self, CapabilitySet, CapabilitySets, move_into_link_name_space};

use super::error::Failure;
use super::stage::Phase;
use super::users::{self, Plan};
use super::{Options, RebuildError, terminal};
use crate::image::{Credentials, Image, Living, Text, USER};
use crate::limits::LIMITS;

/// The kinds of namespaces that are made anew, with their `CLONE_NEW*` flags. Mounts last: /proc is needed before.
pub(super) const KINDS: [(&str, u32); 5] = [
    ("uts", 0x0400_0000),
    ("ipc", 0x0800_0000),
    ("net", 0x4000_0000),
    ("cgroup", 0x0200_0000),
    ("mnt", NEW_MOUNTS),
];

/// `CLONE_NEWNS`.
pub(super) const NEW_MOUNTS: u32 = 0x0002_0000;

pub(super) type Done = Result<(), Failure>;

pub(super) fn told<T>(what: &str, result: Result<T, Errno>) -> Result<T, Failure> {
    result.map_err(|errno| (errno, format!("{what}: {errno}")))
}

/// Refuses what is not rebuilt, before anything is made.
pub(super) fn check(image: &Image, options: &Options<'_>) -> Result<(), RebuildError> {
    for process in &image.processes {
        let Some(living) = &process.living else { continue };
        let unsupported =
            |what| Err(RebuildError::Unsupported { pid: process.pids.first().copied().unwrap_or(0), what });
        if living.arguments.is_empty() && options.command.is_none() {
            return unsupported("it has no arguments to execute its program with");
        }
    }
    Ok(())
}

/// The first living process in each namespace makes it.
fn maker(image: &Image, kind: &str, namespace: usize) -> Option<usize> {
    let is_in = |process: &crate::image::Captured| {
        process.living.as_ref().is_some_and(|living| living.namespaces.get(kind) == Some(&namespace))
    };
    image.processes.iter().position(is_in)
}

/// The phases before programs are executed: namespaces only take time if there are any.
pub(super) fn phases(image: &Image, plan: &Plan) -> Vec<Phase> {
    let any = (0..image.processes.len()).any(|index| own_namespaces(image, index).next().is_some());
    let mut phases = if any { vec![Phase::Unshare, Phase::Enter] } else { Vec::new() };
    if plan.rounds() > 0 {
        phases.extend((0..plan.rounds()).map(Phase::Keep));
        phases.push(Phase::Follow);
    }
    phases.push(Phase::Dress);
    phases
}

/// The namespaces of a process that are not the builder's, but of its user namespace.
fn own_namespaces<'a>(
    image: &'a Image,
    index: usize,
) -> impl Iterator<Item = (&'static str, u32, usize)> + 'a {
    let living = image.processes[index].living.as_ref();
    KINDS.iter().filter_map(move |&(kind, flag)| {
        let namespace = users::number(living?, kind);
        (namespace != 0 && image.owner(kind, namespace) == 0).then_some((kind, flag, namespace))
    })
}

/// Makes the namespaces that this process is the first in.
pub(super) fn unshare(image: &Image, index: usize) -> Done {
    for (kind, flag, namespace) in own_namespaces(image, index) {
        if maker(image, kind, namespace) != Some(index) {
            continue;
        }
        told("cannot make a namespace", pinfold_sys::ns::unshare(flag))?;
        if kind == "mnt" {
            make_mounts_private()?;
            if image.processes[index].pid_namespace != 0 {
                let mounted = mount("proc", "/proc", "proc", MountFlags::empty(), None::<&CStr>);
                told("cannot mount /proc", mounted)?;
            }
        }
    }
    Ok(())
}

/// Nothing that is mounted here is seen elsewhere, nor the other way round.
pub(super) fn make_mounts_private() -> Done {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    told("cannot make mounts private", mount_change("/", private))
}

/// Enters the namespaces that others have made.
pub(super) fn enter(image: &Image, index: usize, proc: BorrowedFd<'_>) -> Done {
    for (kind, _, namespace) in own_namespaces(image, index) {
        match maker(image, kind, namespace) {
            Some(maker) if maker != index => {
                let link = format!("{}/ns/{kind}", image.processes[maker].pids[0]);
                let fd = told(&link, openat(proc, &link, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()))?;
                told("cannot enter a namespace", move_into_link_name_space(fd.as_fd(), None))?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Everything that is left once a process is in its namespaces.
pub(super) fn put_on(living: &Living, options: &Options<'_>, proc: BorrowedFd<'_>) -> Done {
    let is_prepared = users::number(living, USER) != 0;
    if !is_prepared {
        prepare(living, options, proc)?;
    }
    told(&to("root", &living.root), rustix::process::chroot(living.root.as_os_str()))?;
    told(&to("directory", &living.directory), rustix::process::chdir(living.directory.as_os_str()))?;
    rustix::process::umask(Mode::from_raw_mode(living.umask));
    drop_from_bounding_set(&living.credentials)?;
    if !is_prepared {
        put_on_groups(&living.credentials)?;
        put_on_users(living.credentials.uids)?;
    }
    put_on_capabilities(&living.credentials)
}

fn to(what: &str, path: &Text) -> String {
    format!("cannot change the {what} to {}", path.as_os_str().display())
}

/// What takes rights that nobody has in a user namespace of its own.
pub(super) fn prepare(living: &Living, options: &Options<'_>, proc: BorrowedFd<'_>) -> Done {
    if living.terminal.is_none() || options.without_terminals {
        terminal::leave()?;
    }
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = told("oom_score_adj", openat(proc, "self/oom_score_adj", flags, Mode::empty()))?;
    told("cannot set oom_score_adj", rustix::io::write(&file, living.oom_score_adj.to_string().as_bytes()))?;
    told("cannot set the nice value", rustix::process::setpriority_process(None, living.nice))?;
    raise_limits(living)
}

/// Raises limits as far as they have to be, which takes a right. None is lowered: what is left to do is bound by them.
fn raise_limits(living: &Living) -> Done {
    for (name, wanted, resource) in limits(living) {
        let now = getrlimit(resource);
        let raised = Rlimit {
            current: higher(now.current, wanted.current),
            maximum: higher(now.maximum, wanted.maximum),
        };
        // One that is in place needs no right.
        if raised != now {
            told(&format!("cannot set the limit {name}"), setrlimit(resource, raised))?;
        }
    }
    Ok(())
}

/// Lowers them: the last thing before the program. Needs no memory; gives which limit could not be set.
fn lower_limits(living: &Living) -> Result<(), (&'static str, Errno)> {
    for (name, wanted, resource) in limits(living) {
        if getrlimit(resource) != wanted {
            setrlimit(resource, wanted).map_err(|errno| (name, errno))?;
        }
    }
    Ok(())
}

fn limits(living: &Living) -> impl Iterator<Item = (&'static str, Rlimit, Resource)> {
    LIMITS.iter().filter_map(|&(name, _, resource)| {
        let &(current, maximum) = living.limits.get(name)?;
        Some((name, Rlimit { current, maximum }, resource))
    })
}

/// `None` is unlimited.
fn higher(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    Some(one?.max(other?))
}

/// What the process has in its bounding set and had not when it was captured.
fn drop_from_bounding_set(credentials: &Credentials) -> Done {
    let wanted = CapabilitySet::from_bits_retain(credentials.capabilities.bounding);
    let own = told("cannot read capabilities", own_bounding_set())?;
    for capability in own.difference(wanted).iter() {
        told("cannot drop a capability", thread::remove_capability_from_bounding_set(capability))?;
    }
    Ok(())
}

/// The calling thread's bounding set, as far as its capabilities have names here.
fn own_bounding_set() -> Result<CapabilitySet, Errno> {
    let mut own = CapabilitySet::empty();
    for capability in CapabilitySet::all().iter() {
        match thread::capability_is_in_bounding_set(capability) {
            Ok(is_there) => own.set(capability, is_there),
            // One that this kernel does not know.
            Err(Errno::INVAL) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(own)
}

/// Capabilities in the bounding sets of recorded processes that the calling process has lost, and so cannot give. A user namespace
/// of their own has all.
pub(super) fn lost(image: &Image) -> Result<CapabilitySet, Errno> {
    let living = image.processes.iter().filter_map(|process| process.living.as_ref());
    let wanted = living
        .filter(|living| users::number(living, USER) == 0)
        .fold(0, |sets, living| sets | living.credentials.capabilities.bounding);
    let own = own_bounding_set()?;
    Ok(CapabilitySet::from_bits_truncate(wanted).difference(own))
}

/// Groups, by the numbers of the user namespace that the process is in.
pub(super) fn put_on_groups(credentials: &Credentials) -> Done {
    let groups: Vec<Gid> = credentials.groups.iter().map(|&gid| Gid::from_raw(gid)).collect();
    told("cannot set groups", thread::set_thread_groups(&groups))?;
    let [real, effective, saved] = credentials.gids.map(Gid::from_raw);
    told("cannot set the group id", thread::set_thread_res_gid(real, effective, saved))
}

/// Real, effective, saved user id, by the numbers of the user namespace that the process is in. What it may is permitted still, and
/// not effective any more unless it stays root.
pub(super) fn put_on_users(uids: [u32; 3]) -> Done {
    told("cannot keep capabilities", thread::set_keep_capabilities(true))?;
    let [real, effective, saved] = uids.map(Uid::from_raw);
    told("cannot set the user id", thread::set_thread_res_uid(real, effective, saved))
}

/// [`put_on_users`] of a process that goes on needing what it may.
pub(super) fn put_on_users_only(uids: [u32; 3]) -> Done {
    let own = told("cannot read capabilities", thread::capabilities(None))?;
    put_on_users(uids)?;
    told("cannot set capabilities", thread::set_capabilities(None, own))
}

/// What executing then makes of them are the kernel's rules.
fn put_on_capabilities(credentials: &Credentials) -> Done {
    let set = CapabilitySet::from_bits_retain;
    let wanted = &credentials.capabilities;
    let sets = CapabilitySets {
        effective: set(wanted.effective),
        permitted: set(wanted.permitted),
        inheritable: set(wanted.inheritable),
    };
    told("cannot set capabilities", thread::set_capabilities(None, sets))?;
    for capability in set(wanted.ambient).iter() {
        told(
            "cannot set an ambient capability",
            thread::configure_capability_in_ambient_set(capability, true),
        )?;
    }
    if credentials.no_new_privs {
        told("cannot give up new privileges", thread::set_no_new_privs(true))?;
    }
    Ok(())
}

/// Executes the command, or the recorded program with its recorded arguments; the environment is the recorded one. Returns
/// only to say why not.
pub(super) fn execute(living: &Living, command: Option<&[OsString]>) -> Failure {
    let recorded = living.arguments.iter().map(Text::as_os_str);
    let arguments: Vec<&OsStr> =
        command.map_or_else(|| recorded.collect(), |c| c.iter().map(|a| a.as_os_str()).collect());
    let file = match command {
        None => living.executable.as_os_str().to_owned(),
        Some([program, ..]) => find(program),
        Some([]) => return (Errno::INVAL, "an empty command".to_owned()),
    };
    let string = |text: &OsStr| CString::new(text.as_bytes());
    let strings = |list: Vec<&OsStr>| list.into_iter().map(string).collect::<Result<Vec<_>, _>>();
    let environment = living.environment.iter().map(Text::as_os_str).collect();
    let (Ok(path), Ok(arguments), Ok(environment)) =
        (string(&file), strings(arguments), strings(environment))
    else {
        return (Errno::INVAL, "a null byte in an argument or a variable".to_owned());
    };
    let mut limited = Ok(());
    let image = exec::Image { file: path, arguments, environment };
    // Within limits there may be no memory for words.
    let mut reason = String::with_capacity(file.len() + 100);
    let errno = exec::become_image(&image, || {
        limited = lower_limits(living);
        limited.map_err(|(_, errno)| errno)
    });
    // A String takes everything.
    let _ = match limited {
        Err((name, errno)) => write!(reason, "cannot set the limit {name}: {errno}"),
        Ok(()) => write!(reason, "cannot execute {}: {errno}", file.display()),
    };
    (errno, reason)
}

/// Where a command is, by the `PATH` of whoever asks for it: a capture file does not say what its words mean.
fn find(program: &OsStr) -> OsString {
    if program.as_bytes().contains(&b'/') {
        return program.to_owned();
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    let candidates = path
        .as_bytes()
        .split(|&byte| byte == b':')
        .map(|dir| Path::new(OsStr::from_bytes(dir)).join(program));
    let mut there = candidates.filter(|file| rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok());
    there.next().map_or_else(|| program.to_owned(), PathBuf::into_os_string)
}
