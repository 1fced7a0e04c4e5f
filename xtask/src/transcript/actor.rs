//! Operations that concern the acting process itself: who it is, what it mounts, what it burns.

use super::operations::{Actor, Arguments, Operation};
use super::outcome::{Failure, Outcome, done, wrong};
use rustix::thread::{Gid, Uid, set_thread_res_gid, set_thread_res_uid};
use std::time::Duration;

/// The rows.
pub(super) const OPERATIONS: &[Operation] = &[
    Operation { name: "mount", arguments: "OPTIONS DIR", run: mount },
    Operation { name: "remount", arguments: "OPTIONS DIR", run: remount },
    Operation { name: "umount", arguments: "DIR", run: umount },
    Operation { name: "setresuid", arguments: "REAL:EFFECTIVE:SAVED", run: setresuid },
    Operation { name: "setresgid", arguments: "REAL:EFFECTIVE:SAVED", run: setresgid },
    Operation { name: "burn", arguments: "MILLISECONDS", run: burn },
];

fn mount(actor: &mut Actor, a: Arguments) -> Outcome {
    let dir = a.at(1);
    if !std::path::Path::new(dir).exists() {
        std::fs::create_dir(dir)?;
    }
    actor.mounter.mount(a.at(0), dir)
}

fn remount(actor: &mut Actor, a: Arguments) -> Outcome {
    actor.mounter.remount(a.at(0), a.at(1))
}

fn umount(actor: &mut Actor, a: Arguments) -> Outcome {
    actor.mounter.umount(a.at(0))
}

fn setresuid(_: &mut Actor, a: Arguments) -> Outcome {
    let [real, effective, saved] = three(a)?.map(Uid::from_raw);
    set_thread_res_uid(Some(real), Some(effective), Some(saved))?;
    done()
}

fn setresgid(_: &mut Actor, a: Arguments) -> Outcome {
    let [real, effective, saved] = three(a)?.map(Gid::from_raw);
    set_thread_res_gid(Some(real), Some(effective), Some(saved))?;
    done()
}

fn three(a: Arguments) -> Result<[u32; 3], Failure> {
    a.ids(0)?.try_into().or_else(|_| wrong("three ids are needed: REAL:EFFECTIVE:SAVED"))
}

/// Uses the processor until this thread has used as much more of it.
fn burn(_: &mut Actor, a: Arguments) -> Outcome {
    let used = || {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
    };
    let end = used() + Duration::from_millis(a.number(0)?);
    while used() < end {
        // Mostly in user space: asking for the time is a system call.
        (0..200_000).for_each(|_| std::hint::spin_loop());
    }
    done()
}
