//! Processes that stay held between requests: who asks once asks again, and a process is often attached to one hierarchy
//! after the other. Making and closing a descriptor costs as much as all that is asked of it.
//!
//! A descriptor belongs to a process, not to its number: once that process has ended, the descriptor says so, and
//! whoever has the number then is held anew.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pinfold_model::HostPid;

use crate::pids::PidMap;
use crate::process::{Identity, Pinned, ProcessError, Standing};

/// How many processes are held at most, with three descriptors each.
const MOST: usize = 32;

/// The processes that were asked about last.
#[derive(Debug, Default)]
pub struct Pins(Mutex<VecDeque<Arc<Pinned>>>);

impl Pins {
    /// Holds the process that a task belongs to and tells its standing. The task may exit while its process lives on.
    pub fn open(&self, task: HostPid) -> Result<(Arc<Pinned>, Standing), ProcessError> {
        let pinned = match self.pin(task) {
            Ok(pinned) => pinned,
            // Most numbers are those of leading tasks; by any other, a process cannot be held.
            Err(_) => self.pin(Identity::of(task)?.process)?,
        };
        let known = if pinned.process() == task { Standing::of_pinned(&pinned) } else { None };
        let standing = known.map_or_else(|| Standing::by_status(&pinned, task), Ok)?;
        Ok((pinned, standing))
    }

    /// The map for the pid namespace that a process or task is in: [`PidMap::of`], in one system call for a process of
    /// the daemon's own that is held.
    pub fn map_of(&self, reader: HostPid) -> Result<PidMap, ProcessError> {
        let pinned = self.pin(reader).ok();
        if pinned.as_ref().is_some_and(|pinned| pinned.is_neighbour()) {
            return Ok(PidMap::SAME);
        }
        let map = PidMap::of(reader)?;
        if let Some(pinned) = pinned
            && map.is_same()
            && pinned.verify().is_ok()
        {
            pinned.set_neighbour();
        }
        Ok(map)
    }

    /// Holds a process that has not ended, given by the number of its leading task.
    fn pin(&self, process: HostPid) -> Result<Arc<Pinned>, ProcessError> {
        let known = self.lock().iter().find(|pinned| pinned.process() == process).cloned();
        if let Some(pinned) = known {
            if pinned.verify().is_ok() {
                return Ok(pinned);
            }
            self.lock().retain(|other| !Arc::ptr_eq(other, &pinned));
        }
        let pinned = Arc::new(Pinned::of_process(process)?);
        pinned.verify()?;
        let mut known = self.lock();
        known.truncate(MOST - 1);
        known.push_front(Arc::clone(&pinned));
        Ok(pinned)
    }

    /// A panic in another thread leaves a list that is as good as before.
    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Pinned>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use pinfold_model::{Credentials, Uid};

    use super::*;
    use crate::proc;
    use crate::process::own_pid;

    fn pid(child: &Child) -> HostPid {
        HostPid::new(child.id()).unwrap()
    }

    /// A child that sleeps as other users. Killed and reaped by the test.
    fn other_user() -> Child {
        let users = ["--ruid", "1001", "--euid", "1002", "--clear-groups"];
        let child = Command::new("setpriv").args(users).args(["sleep", "60"]).spawn().unwrap();
        while proc::read_of(pid(&child), "comm").unwrap() != b"sleep\n" {
            std::thread::yield_now();
        }
        child
    }

    #[test]
    fn old_kernels_are_asked_another_way_and_answer_the_same() {
        let pins = Pins::default();
        let mut child = other_user();
        for task in [own_pid(), pid(&child), HostPid::new(1).unwrap()] {
            let (pinned, standing) = pins.open(task).unwrap();
            // The second time the file is open.
            for _ in 0..2 {
                let by_status = Standing::by_status(&pinned, task).unwrap();
                assert_eq!((pinned.process(), standing.credentials), (task, by_status.credentials));
            }
        }
        let (real, effective) = (Uid(1001), Uid(1002));
        let expected = Credentials { effective, real, saved: effective };
        assert_eq!(pins.open(pid(&child)).unwrap().1.credentials, expected);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_process_that_has_ended_is_gone_before_and_after_it_is_reaped() {
        let pins = Pins::default();
        let mut child = other_user();
        let (pinned, _) = pins.open(pid(&child)).unwrap();
        child.kill().unwrap();
        while pinned.verify().is_ok() {
            std::thread::yield_now();
        }
        assert!(matches!(pins.open(pid(&child)), Err(ProcessError::Gone(_))));
        assert!(matches!(Standing::by_status(&pinned, pid(&child)), Err(ProcessError::Gone(_))));
        assert!(pins.lock().is_empty(), "and is not held any longer");
        child.wait().unwrap();
        assert!(matches!(pins.open(pid(&child)), Err(ProcessError::Gone(_))));
        let other = Standing::by_status(&pinned, own_pid());
        assert!(matches!(other, Err(ProcessError::Gone(_))), "who has the number next is not taken for it");
    }

    #[test]
    fn a_process_is_held_once_however_often_it_is_asked_about() {
        let pins = Pins::default();
        for _ in 0..3 {
            assert!(pins.map_of(own_pid()).unwrap().is_same());
            pins.open(own_pid()).unwrap();
        }
        assert_eq!(pins.lock().len(), 1);
        assert!(pins.lock()[0].is_neighbour());
    }

    #[test]
    fn who_was_asked_about_first_makes_room() {
        let pins = Pins::default();
        let mut children: Vec<_> =
            (0..=MOST).map(|_| Command::new("sleep").arg("60").spawn().unwrap()).collect();
        for child in &children {
            pins.open(pid(child)).unwrap();
        }
        let held: Vec<_> = pins.lock().iter().rev().map(|pinned| pinned.process()).collect();
        assert_eq!(held, children[1..].iter().map(pid).collect::<Vec<_>>());
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    #[test]
    fn a_thread_is_asked_about_by_its_own_number() {
        let pins = Pins::default();
        let (pinned, _) = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let own = u32::try_from(rustix::thread::gettid().as_raw_pid()).unwrap();
                let own = HostPid::new(own).unwrap();
                assert!(pins.map_of(own).unwrap().is_same());
                pins.open(own).unwrap()
            });
            thread.join().unwrap()
        });
        assert_eq!(pinned.process(), own_pid());
    }
}
