//! Going into user namespaces: what keepers do (see [`super::users`]), what the others do, and who writes the maps.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use pinfold_sys::clone::exit_now;
use pinfold_sys::ns;
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use rustix::process::{DumpableBehavior, WaitId, WaitIdOptions, set_dumpable_behavior, waitid};
use rustix::thread::move_into_link_name_space;

use super::Options;
use super::dress::{self, Done, KINDS, NEW_MOUNTS, told};
use super::error::Failure;
use super::stage::Stage;
use super::users::{Keeper, Plan, number, parent};
use crate::image::{Image, Living, USER, users};
use crate::pids::{Cloned, Request, clone_with_pids};
use crate::schedule::Node;

/// `CLONE_NEWUSER` of linux/sched.h.
const NEW_USER: u32 = 0x1000_0000;

/// Whoever is root in a namespace that this process goes into cannot look at its memory, which is the builder's, nor at its
/// descriptors: that takes rights in the user namespace in which it began. Its program begins anew.
fn keep_to_itself() -> Done {
    told("cannot keep to itself", set_dumpable_behavior(DumpableBehavior::NotDumpable))
}

/// Everything that a process needs to go into user namespaces.
pub(super) struct Descent<'a> {
    pub image: &'a Image,
    pub plan: &'a Plan,
    pub options: &'a Options<'a>,
    pub stage: &'a Stage<'a>,
    /// The builder's /proc.
    pub proc: BorrowedFd<'a>,
}

impl Descent<'_> {
    /// A keeper's round.
    pub(super) fn keep(&self, keeper: &Keeper, node: Node, held: &mut Vec<OwnedFd>) -> Done {
        let Some(living) = &self.image.processes[keeper.index].living else { return Ok(()) };
        self.enter_kept(living, |owner| !keeper.route.contains(&owner))?;
        let mut inside = parent(self.image, keeper.route[0]);
        // From in there nothing of it can be opened any more.
        let around = if inside == 0 { None } else { Some(self.open_user(inside)?) };
        dress::prepare(living, self.options, self.proc)?;
        keep_to_itself()?;
        if self.owns_mounts(keeper) && self.image.processes[keeper.index].pid_namespace != 0 {
            // Only here may this pid namespace's /proc be mounted; what is made further in has copies.
            told("cannot make a mount namespace", ns::unshare(NEW_MOUNTS))?;
            dress::make_mounts_private()?;
            told("cannot mount /proc", mount("proc", "/proc", "proc", MountFlags::empty(), None::<&CStr>))?;
        }
        dress::put_on_groups(&living.credentials)?;
        let mut uid = None;
        if let Some(around) = around {
            self.become_maker(keeper.route[0], 0, &mut uid)?;
            told("cannot enter a user namespace", move_into_link_name_space(around.as_fd(), None))?;
        }
        for &namespace in &keeper.route {
            self.become_maker(namespace, inside, &mut uid)?;
            told("cannot make a user namespace", ns::unshare(NEW_USER))?;
            self.have_mapped(namespace, node)?;
            self.make_owned(namespace, living, held)?;
            inside = namespace;
        }
        let wanted = living.credentials.uids;
        if wanted.iter().all(|&id| Some(id) == uid) {
            return Ok(());
        }
        match wanted.map(|uid| self.number_inside(inside, uid)) {
            [Some(real), Some(effective), Some(saved)] => dress::put_on_users_only([real, effective, saved]),
            _ => Err((Errno::INVAL, "its user ids have no numbers in its user namespace".to_owned())),
        }
    }

    /// Everybody else's part, when all keepers are where they belong.
    pub(super) fn follow(&self, living: &Living) -> Done {
        let user = number(living, USER);
        let own = if user == 0 { None } else { Some(self.open_user(user)?) };
        self.enter_kept(living, |_| true)?;
        let Some(own) = own else { return Ok(()) };
        dress::prepare(living, self.options, self.proc)?;
        keep_to_itself()?;
        dress::put_on_groups(&living.credentials)?;
        dress::put_on_users_only(living.credentials.uids)?;
        told("cannot enter a user namespace", move_into_link_name_space(own.as_fd(), None))
    }

    /// Enters the namespaces of this process that keepers hold, of those owners.
    fn enter_kept(&self, living: &Living, of: impl Fn(usize) -> bool) -> Done {
        for (kind, _) in KINDS {
            let number = number(living, kind);
            let owner = self.image.owner(kind, number);
            if owner == 0 || !of(owner) {
                continue;
            }
            let place = self.plan.place(kind, number);
            let (Some(place), Some(keeper)) = (place, self.plan.keeper_of(owner)) else { continue };
            let link = format!("{}/fd/{}", self.pid(keeper), self.stage.kept(place));
            let space = self.open(&link)?;
            told("cannot enter a namespace", move_into_link_name_space(space.as_fd(), None))?;
        }
        Ok(())
    }

    fn open_user(&self, namespace: usize) -> Result<OwnedFd, Failure> {
        let keeper = self.plan.keeper_of(namespace);
        let keeper = keeper.ok_or_else(|| (Errno::SRCH, "nobody keeps its user namespace".to_owned()))?;
        self.open(&format!("{}/ns/user", self.pid(keeper)))
    }

    fn pid(&self, keeper: &Keeper) -> u32 {
        self.image.processes[keeper.index].pids[0]
    }

    fn open(&self, link: &str) -> Result<OwnedFd, Failure> {
        told(link, openat(self.proc, link, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()))
    }

    fn owns_mounts(&self, keeper: &Keeper) -> bool {
        self.plan.kept.iter().any(|kept| kept.kind == "mnt" && keeper.route.contains(&kept.owner))
    }

    /// Takes the user id of who made a namespace, being in the one around it or further out.
    fn become_maker(&self, namespace: usize, inside: usize, current: &mut Option<u32>) -> Done {
        let maker = self.image.user_namespace(namespace).map_or(0, |space| space.maker);
        if *current == Some(maker) {
            return Ok(());
        }
        let number = self.number_inside(inside, maker).ok_or_else(|| {
            (Errno::INVAL, "the maker of its user namespace has no number in the one around".to_owned())
        })?;
        dress::put_on_users_only([number; 3])?;
        *current = Some(maker);
        Ok(())
    }

    /// What a user id of the capturer's is in a user namespace.
    fn number_inside(&self, namespace: usize, uid: u32) -> Option<u32> {
        match self.image.user_namespace(namespace) {
            None => Some(uid),
            Some(space) => users::inside(&space.uids, uid),
        }
    }

    /// Has the builder write the maps of the user namespace that this process has just made.
    fn have_mapped(&self, namespace: usize, node: Node) -> Done {
        self.stage.ask_for_maps(namespace);
        let mapped = || self.stage.failed() || self.stage.has_maps(namespace);
        if !self.stage.sleep(node, mapped) || self.stage.failed() {
            // Whoever failed has said why.
            exit_now(1)
        }
        Ok(())
    }

    /// Makes what a user namespace owns, and goes back into those of them that are this process's own.
    fn make_owned(&self, namespace: usize, living: &Living, held: &mut Vec<OwnedFd>) -> Done {
        let owned = self.plan.kept.iter().enumerate().filter(|(_, kept)| kept.owner == namespace);
        let mut own = Vec::new();
        for (place, kept) in owned {
            told("cannot make a namespace", ns::unshare(kept.flag))?;
            if kept.kind == "mnt" {
                dress::make_mounts_private()?;
            }
            let space = self.open(&format!("self/ns/{}", kept.kind))?;
            self.stage.keep(place, space.as_raw_fd());
            if number(living, kept.kind) == kept.number {
                own.push(held.len());
            }
            held.push(space);
        }
        for place in own {
            told("cannot go back into a namespace", move_into_link_name_space(held[place].as_fd(), None))?;
        }
        Ok(())
    }

    /// The builder's part: writes the maps of a user namespace that its keeper has made and waits in.
    pub(super) fn write_maps(&self, namespace: usize) -> Done {
        let Some(keeper) = self.plan.keeper_of(namespace) else { return Ok(()) };
        if parent(self.image, namespace) == 0 {
            return self.write_from_around(keeper, namespace);
        }
        // Only somebody in the namespace around may, so a child goes there.
        let request = Request { cgroup: self.options.helpers_in, ..Request::default() };
        let failed = |errno: Errno| (errno, format!("cannot write the maps of a user namespace: {errno}"));
        match clone_with_pids(&request).map_err(|error| failed(error.errno()))? {
            Cloned::Child => {
                let done = keep_to_itself()
                    .and_then(|()| self.go_around(keeper))
                    .and_then(|()| self.write_from_around(keeper, namespace));
                let Err((errno, reason)) = done else { exit_now(0) };
                self.stage.fail(keeper.index + 1, errno, &reason);
                exit_now(1)
            }
            Cloned::Parent { pidfd, .. } => {
                let wait = || waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
                let status = rustix::io::retry_on_intr(wait).map_err(failed)?;
                match status.and_then(|status| status.exit_status()) {
                    Some(0) => Ok(()),
                    // It has said why, unless it was killed.
                    _ => Err(failed(Errno::CHILD)),
                }
            }
        }
    }

    fn go_around(&self, keeper: &Keeper) -> Done {
        let made = self.open(&format!("{}/ns/user", self.pid(keeper)))?;
        let around = told("cannot find the user namespace around", ns::parent(&made))?;
        told("cannot enter a user namespace", move_into_link_name_space(around.as_fd(), None))
    }

    fn write_from_around(&self, keeper: &Keeper, namespace: usize) -> Done {
        let Some(space) = self.image.user_namespace(namespace) else { return Ok(()) };
        let around = self.image.user_namespace(space.parent);
        if !space.setgroups {
            self.write(keeper, "setgroups", "deny")?;
        }
        for (file, map, around) in [
            ("gid_map", &space.gids, around.map(|around| &around.gids)),
            ("uid_map", &space.uids, around.map(|around| &around.uids)),
        ] {
            let map = match around {
                None => Some(map.clone()),
                Some(around) => users::from_parent(map, around),
            };
            let map = map.ok_or_else(|| {
                (Errno::INVAL, format!("{file}: a number has none in the user namespace around"))
            })?;
            let lines: Vec<String> = map
                .iter()
                .map(|range| format!("{} {} {}\n", range.inside, range.outside, range.count))
                .collect();
            // An empty map stays unwritten, as it was.
            if !lines.is_empty() {
                self.write(keeper, file, &lines.concat())?;
            }
        }
        Ok(())
    }

    fn write(&self, keeper: &Keeper, file: &str, text: &str) -> Done {
        let name = format!("{}/{file}", self.pid(keeper));
        let fd = told(&name, openat(self.proc, &name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()))?;
        told(&format!("cannot write {file}"), rustix::io::write(&fd, text.as_bytes()).map(|_| ()))
    }
}
