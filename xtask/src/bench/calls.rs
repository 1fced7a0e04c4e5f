//! What a D-Bus call costs, against a method of a plain zbus service that does nothing.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Barrier;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use rustix::process::Uid;

use super::measure::{Step, Taken, each_by_turns, median, percentile};
use super::peer::{Call, Peer};
use super::report::{Bound, Row};
use super::servers::{Ground, Sleeper};

/// Calls a round.
const COUNT: u32 = 400;
/// Moves a round. Each waits for a grace period of the kernel's, so they are few.
const MOVES: u32 = 60;
/// How many tasks are listed.
const TASKS: usize = 100;
/// How many clients there are at once, and how many calls each makes a round.
const CLIENTS: usize = 100;
const CALLS_OF_CLIENT: usize = 50;
/// Rounds with all of them.
const CROWDS: usize = 9;
/// Some user who is not root.
const SOMEBODY: u32 = 65534;

const NULL: &str = "a null method of zbus";

/// Every row about calls.
pub(super) fn measure(ground: &Ground, rounds: usize, calls: u32) -> Result<Vec<Row>> {
    let mut root = Peer::connect(&ground.owners_door())?;
    root.call(&create("/calls")?)?;
    let residents = (0..TASKS).map(|_| Sleeper::start()).collect::<Result<Vec<_>>>()?;
    for resident in &residents {
        root.call(&move_to(resident, "/calls")?)?;
    }
    let mut rows = single(ground, &mut root, rounds)?;
    rows.extend(whole_life(ground, rounds)?);
    rows.extend(crowd(ground)?);
    rows.push(memory(ground, calls)?);
    drop(residents);
    root.call(&manager("DeleteForce", &("/calls",))?)?;
    Ok(rows)
}

fn manager(method: &'static str, arguments: &(impl serde::Serialize + zbus::wire::Type)) -> Result<Call> {
    Call::new("/org/pinfold/Manager", "org.pinfold.Manager1", method, arguments)
}

fn null() -> Result<Call> {
    Call::new("/null", "org.null", "Null", &())
}

fn create(group: &str) -> Result<Call> {
    manager("Create", &(group, BTreeMap::<&str, &str>::new()))
}

/// Moves whoever calls.
fn move_self_to(group: &str) -> Result<Call> {
    manager("Move", &(0_u32, group))
}

fn move_to(process: &Sleeper, group: &str) -> Result<Call> {
    manager("Move", &(process.number(), group))
}

/// A connection of a user who is not root, at the door for everybody.
fn somebody(ground: &Ground) -> Result<Peer> {
    let user = |effective| rustix::thread::set_thread_res_uid(None, Uid::from_raw(effective), None);
    // Who connects is whom the connection belongs to, so this thread is somebody for that long.
    user(SOMEBODY)?;
    let connected = Peer::connect(&ground.public_door());
    user(0)?;
    connected
}

fn calling(mut peer: Peer, call: Call) -> Step<'static> {
    Box::new(move || peer.call(&call))
}

/// One client, one call at a time.
fn single(ground: &Ground, root: &mut Peer, rounds: usize) -> Result<Vec<Row>> {
    root.call(&create("/calls/self")?)?;
    root.call(&move_self_to("/calls/self")?)?;
    let value = |group| manager("GetValue", &(group, "notify_on_release"));
    let mut steps = [
        calling(Peer::connect(&ground.null_service())?, null()?),
        calling(Peer::connect(&ground.owners_door())?, value("/calls")?),
        calling(somebody(ground)?, value(".")?),
        calling(Peer::connect(&ground.owners_door())?, manager("ListTasks", &("/calls", false))?),
    ];
    let taken = each_by_turns(rounds, COUNT, &mut steps)?;
    let [null, by_root, by_somebody, list] =
        <[Taken; 4]>::try_from(taken).map_err(|_| anyhow!("four steps give four figures"))?;
    let mut rows = Vec::new();
    for (what, taken, bound) in [
        ("`GetValue` by the host's root", by_root, Bound::Times(2.0)),
        ("`GetValue` by another user, of its own group", by_somebody, Bound::Times(2.0)),
        ("`ListTasks` of 100 tasks", list, Bound::Told),
    ] {
        rows.extend(pair(what, &taken, NULL, &null, bound));
    }
    // Where a process is that is in no group, its file in /proc tells once for each directory.
    root.call(&move_self_to("/")?)?;
    root.call(&manager("Delete", &("/calls/self",))?)?;
    let mut steps = [
        calling(Peer::connect(&ground.null_service())?, self::null()?),
        calling(somebody(ground)?, value("calls")?),
    ];
    let taken = each_by_turns(rounds, COUNT, &mut steps)?;
    let [null, outside] = <[Taken; 2]>::try_from(taken).map_err(|_| anyhow!("two steps give two figures"))?;
    rows.extend(pair("`GetValue` by a user who is in no group", &outside, NULL, &null, Bound::Told));
    Ok(rows)
}

/// How long a call takes, and how long all but one of a hundred.
fn pair(what: &str, taken: &Taken, is: &str, reference: &Taken, bound: Bound) -> [Row; 2] {
    let what = format!("D-Bus: {what} ({:.0} a second)", 1e6 / taken.typical);
    let slow = format!("{what}, p99");
    [
        Row::compared(what, taken.typical, is, reference.typical, bound),
        Row::compared(slow, taken.p99, is, reference.p99, Bound::Told),
    ]
}

/// A group is made, a process comes into it from the one before, and that is removed.
///
/// The kernel's own: the same in its v2 tree by three system calls. Its migration waits for a grace period where the last was long ago.
fn whole_life(ground: &Ground, rounds: usize) -> Result<Vec<Row>> {
    let process = Sleeper::start()?;
    let mut root = Peer::connect(&ground.owners_door())?;
    let groups = ["/calls/new", "/calls/old"];
    for call in [create(groups[1])?, move_to(&process, groups[1])?] {
        root.call(&call)?;
    }
    let mut turns = [
        [create(groups[0])?, move_to(&process, groups[0])?, manager("Delete", &(groups[1],))?],
        [create(groups[1])?, move_to(&process, groups[1])?, manager("Delete", &(groups[0],))?],
    ];
    let mut nothing = Peer::connect(&ground.null_service())?;
    let null = null()?;
    let own = Sleeper::start()?;
    let mut dirs = [ground.v2("new"), ground.v2("old")];
    let enter = |dir: &Path| -> Result<()> {
        std::fs::create_dir(dir)?;
        Ok(std::fs::write(dir.join("cgroup.procs"), own.line())?)
    };
    enter(&dirs[1])?;
    let mut steps: [Step<'_>; 3] = [
        Box::new(|| (0..3).try_for_each(|_| nothing.call(&null))),
        Box::new(|| {
            turns[0].iter().try_for_each(|call| root.call(call))?;
            turns.swap(0, 1);
            Ok(())
        }),
        Box::new(|| {
            enter(&dirs[0])?;
            std::fs::remove_dir(&dirs[1])?;
            dirs.swap(0, 1);
            Ok(())
        }),
    ];
    let taken = each_by_turns(rounds, MOVES, &mut steps)?;
    drop(steps);
    drop((process, own));
    std::fs::remove_dir(&dirs[1])?;
    let [null, life, kernel] =
        <[Taken; 3]>::try_from(taken).map_err(|_| anyhow!("three steps give three figures"))?;
    let what = "`Create` + `Move` + `Delete`";
    let mut rows = Vec::from(pair(what, &life, &format!("three times {NULL}"), &null, Bound::Told));
    let is = format!(
        "mkdir + write of cgroup.procs + rmdir in the kernel's v2 tree ({:.0} us) + that",
        kernel.typical
    );
    let reference = kernel.typical + null.typical;
    rows.push(Row::compared(format!("D-Bus: {what}"), life.typical, &is, reference, Bound::Told));
    Ok(rows)
}

/// A hundred clients at once.
fn crowd(ground: &Ground) -> Result<Vec<Row>> {
    let value = manager("GetValue", &("/calls", "notify_on_release"))?;
    let mut rates = [Vec::new(), Vec::new()];
    let mut waits = [Vec::new(), Vec::new()];
    for _ in 0..CROWDS {
        for (side, (socket, call)) in
            [(ground.null_service(), &null()?), (ground.owners_door(), &value)].iter().enumerate()
        {
            let (rate, waited) = all_at_once(socket, call)?;
            rates[side].push(rate);
            waits[side].extend(waited);
        }
    }
    let [none, ours] = rates.map(median);
    let [none_slow, ours_slow] = waits.map(|waits| percentile(waits, 99));
    let what = format!("D-Bus: `GetValue` of {CLIENTS} clients at once");
    Ok(vec![
        Row {
            what: what.clone(),
            measured: ours,
            unit: "a second",
            reference: Some((NULL.to_owned(), none)),
            bound: Bound::AtLeastTimes(0.5),
        },
        Row::compared(format!("{what}, p99"), ours_slow, NULL, none_slow, Bound::Told),
    ])
}

/// Calls a second of all clients together, and how long each call took, in microseconds.
fn all_at_once(socket: &Path, call: &Call) -> Result<(f64, Vec<f64>)> {
    let barrier = Barrier::new(CLIENTS + 1);
    std::thread::scope(|scope| {
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let mut peer = Peer::connect(socket)?;
            peer.call(call)?;
            clients.push(peer);
        }
        let clients: Vec<_> = clients
            .into_iter()
            .map(|mut peer| {
                let barrier = &barrier;
                scope.spawn(move || -> Result<Vec<f64>> {
                    barrier.wait();
                    let timed = |_| {
                        let start = Instant::now();
                        peer.call(call)?;
                        Ok(start.elapsed().as_secs_f64() * 1e6)
                    };
                    (0..CALLS_OF_CLIENT).map(timed).collect()
                })
            })
            .collect();
        // Before they are let go: they may be at work when this thread is next.
        let start = Instant::now();
        barrier.wait();
        let mut waited = Vec::new();
        for client in clients {
            waited.extend(client.join().map_err(|_| anyhow!("a client panicked"))??);
        }
        let taken = start.elapsed().as_secs_f64();
        // Cast: a few thousand calls.
        Ok(((CLIENTS * CALLS_OF_CLIENT) as f64 / taken, waited))
    })
}

/// What the daemon's resident memory gains by so many calls: of those that make and remove groups, move, list, read, and are refused,
/// on connections of a thousand calls by root and another user. Of a hundred two move a process into the group that was made and out
/// of it again, so that its v2 directory comes and goes. What watching keeps is counted by a test of `signals`.
fn memory(ground: &Ground, calls: u32) -> Result<Row> {
    const OF_CONNECTION: u32 = 1000;
    let process = Sleeper::start()?;
    let value = manager("GetValue", &("calls", "notify_on_release"))?;
    let listed = manager("ListChildren", &("calls", true))?;
    let (make, remove) = (create("/calls/made")?, manager("Delete", &("/calls/made",))?);
    let (into, out) = (move_to(&process, "/calls/made")?, move_to(&process, "/calls")?);
    let refused = [
        (create("calls/theirs")?, "EACCES"),
        (move_to(&process, "calls")?, "EPERM"),
        (manager("SetValue", &("calls", "notify_on_release", "1"))?, "EPERM"),
        (manager("GetValue", &("calls/nowhere", "tasks"))?, "ENOENT"),
        (manager("Delete", &("/calls",))?, "EPERM"),
    ];
    let batch = || -> Result<()> {
        let (mut root, mut user) = (Peer::connect(&ground.owners_door())?, somebody(ground)?);
        for number in 0..OF_CONNECTION {
            let (refused, errno) = &refused[(number / 10) as usize % refused.len()];
            match (number % 100, number % 10) {
                (_, 0) => root.call(&make)?,
                (1, _) => root.call(&into)?,
                (2, _) => root.call(&out)?,
                (_, 5) => root.call(&remove)?,
                (_, 6) => user.call(&listed)?,
                (_, 7..) => user.refused(refused, errno)?,
                _ => user.call(&value)?,
            }
        }
        Ok(())
    };
    let batches = calls.div_ceil(OF_CONNECTION);
    // What is kept for good is kept by the first few.
    for _ in 0..batches.div_ceil(20) {
        batch()?;
    }
    let before = ground.memory().context("the daemon's memory")?;
    for _ in 0..batches {
        batch()?;
    }
    let after = ground.memory()?;
    Ok(Row {
        what: format!("D-Bus: memory that the daemon gains by {calls} calls"),
        measured: after - before,
        unit: "bytes",
        reference: Some(("all that it has".to_owned(), before)),
        bound: Bound::AtMost(65536.0),
    })
}
