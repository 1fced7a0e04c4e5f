//! The schedule, held to a naive kernel: what is captured from a random history is what its steps make again.

mod naive;

use std::cell::Cell;
use std::collections::BTreeSet;

use naive::{Answer, Id, Kernel, LAUNCHER, State};
use pinfold_restart::schedule::{Action, BUILDER, OutsideGroup, Schedule, ScheduleError, schedule};
use pinfold_restart::tree::Tree;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

/// A call of a history: what, by whom (of those alive), with what else. Numbers are taken modulo what is there.
#[derive(Clone, Debug)]
struct Call {
    kind: u8,
    who: usize,
    other: usize,
}

/// Carries a history out. Calls that the kernel refuses change nothing.
fn live(calls: &[Call]) -> Kernel {
    let mut kernel = Kernel::boot();
    kernel.tasks[LAUNCHER].subreaper = true;
    for call in calls {
        let alive: Vec<Id> =
            (LAUNCHER..kernel.tasks.len()).filter(|&id| kernel.tasks[id].state == State::Alive).collect();
        let by = alive[call.who % alive.len()];
        let other = alive[call.other % alive.len()];
        // What a refusal says is the naive kernel's own matter.
        let _: Answer<()> = kernel.carry_out(call.kind, by, other);
    }
    kernel
}

/// Carries a schedule out on a fresh kernel.
fn replay(tree: &Tree, schedule: &Schedule) -> Result<Kernel, String> {
    let mut kernel = Kernel::boot();
    let mut ids = vec![None; 1 + tree.processes.len() + schedule.helpers.len()];
    ids[BUILDER] = Some(LAUNCHER);
    let mut spaces = vec![0; tree.namespaces.len()];
    let avoid: Vec<u32> = numbers(tree).into_iter().collect();
    for step in &schedule.steps {
        let by = ids[step.by].ok_or_else(|| format!("{step:?}: by nobody"))?;
        let node = |node: usize| ids[node].ok_or_else(|| format!("{step:?}: about nobody"));
        let done = match &step.action {
            Action::Fork { child, pids, new_namespace } => {
                let made = kernel.fork(by, pids, new_namespace.is_some(), &avoid);
                made.map(|id| {
                    if let Some(namespace) = new_namespace {
                        spaces[*namespace] = kernel.tasks[id].namespace;
                    }
                    ids[*child] = Some(id);
                })
            }
            Action::ChildrenIn(namespace) => kernel.children_in(by, spaces[*namespace]),
            Action::Unshare => Err("histories have no such call"),
            Action::SetSid => kernel.setsid(by),
            Action::SetPgid { process, leader } => kernel.setpgid(by, node(*process)?, node(*leader)?),
            Action::BecomeSubreaper => kernel.subreaper(by),
            Action::Exit => kernel.exit(by),
            Action::Await(child) => kernel.await_end(by, node(*child)?),
            Action::Reap(child) => kernel.reap(by, node(*child)?),
        };
        done.map_err(|why| format!("{step:?}: {why}"))?;
    }
    Ok(kernel)
}

/// Every number of the tree, at every level.
fn numbers(tree: &Tree) -> BTreeSet<u32> {
    let of = |process: &pinfold_restart::tree::Process| {
        [&process.pids, &process.session, &process.group].into_iter().flatten().copied().collect::<Vec<_>>()
    };
    tree.processes.iter().flat_map(of).collect()
}

/// Numbers of sessions and groups whose leaders are dead: each takes a process to take it.
fn dead_leaders(tree: &Tree) -> usize {
    let alive: BTreeSet<u32> = tree.processes.iter().map(|process| process.pids[0]).collect();
    let leads = |process: &pinfold_restart::tree::Process| {
        [process.session.first().copied(), process.group.first().copied()]
    };
    let wanted: BTreeSet<u32> = tree.processes.iter().flat_map(leads).flatten().collect();
    wanted.difference(&alive).count()
}

/// Pairs of a session and a parent who is not in it, for children who do not lead it.
fn orphans(tree: &Tree) -> usize {
    let pairs: BTreeSet<(Option<u32>, Option<usize>)> = tree
        .processes
        .iter()
        .filter(|process| process.session.first() != process.pids.first())
        .filter(|process| {
            process.session
                != process.parent.map_or(Vec::new(), |parent| tree.processes[parent].session.clone())
        })
        .map(|process| (process.session.first().copied(), process.parent))
        .collect();
    pairs.len()
}

/// Leaders of groups who are in others: two in each other's groups take a third process.
fn swapped(tree: &Tree) -> usize {
    let groups: BTreeSet<u32> =
        tree.processes.iter().filter_map(|process| process.group.first().copied()).collect();
    let leads = |process: &&pinfold_restart::tree::Process| groups.contains(&process.pids[0]);
    let elsewhere = |process: &&pinfold_restart::tree::Process| process.group.first() != process.pids.first();
    tree.processes.iter().filter(leads).filter(elsewhere).count() / 2
}

/// A tree in a line for each process: numbers, parent's number, session, group, namespace.
fn show(tree: &Tree) -> String {
    let line = |process: &pinfold_restart::tree::Process| {
        let parent = process.parent.map_or(0, |parent| tree.processes[parent].pids[0]);
        let (session, group) = (&process.session, &process.group);
        let end = if process.zombie { " zombie" } else { "" };
        format!(
            "{:?} of {parent} s{session:?} g{group:?} in {}{end} {:?}\n",
            process.pids, process.namespace, process.children_in
        )
    };
    tree.processes.iter().map(line).collect()
}

/// Schedules what a history left, and requires that the steps make the same again; or gives the scheduler's refusal.
fn check(kernel: &Kernel, outside: OutsideGroup) -> Result<Result<(), ScheduleError>, TestCaseError> {
    let (tree, _) = kernel.capture();
    let schedule = match schedule(&tree, outside) {
        Ok(schedule) => schedule,
        Err(error) => return Ok(Err(error)),
    };
    let again = replay(&tree, &schedule)
        .map_err(|why| TestCaseError::fail(format!("{why}\n{}{schedule:?}", show(&tree))))?;
    prop_assert_eq!(again.capture().0, tree.clone(), "{:?}", schedule);
    let (needed, made) = (dead_leaders(&tree), schedule.helpers.len());
    prop_assert!(made >= needed, "{} helpers for {} dead leaders", made, needed);
    prop_assert!(
        made <= needed + orphans(&tree) + swapped(&tree),
        "{} helpers: {} dead leaders, {} orphans",
        made,
        needed,
        orphans(&tree)
    );
    Ok(Ok(()))
}

/// Whether it was refused as impossible; nothing else is allowed beside what is right.
fn may_be_refused(kernel: &Kernel, outside: OutsideGroup) -> Result<bool, TestCaseError> {
    match check(kernel, outside)? {
        Ok(()) => Ok(false),
        Err(ScheduleError::Impossible { .. }) => Ok(true),
        Err(error) => Err(TestCaseError::fail(error.to_string())),
    }
}

/// As above, without a number for the builder's group: who leaves it cannot come back to it, so some histories are refused.
fn must_pass(kernel: &Kernel) -> Result<bool, TestCaseError> {
    let refused = may_be_refused(kernel, OutsideGroup::Inherited)?;
    let result = check(kernel, OutsideGroup::Numbered)?;
    result.map_err(|error| TestCaseError::fail(format!("{error}\n{}", show(&kernel.capture().0))))?;
    Ok(refused)
}

/// Holds that many random histories to a property that says which it refuses, and requires that these are at most so many of
/// a hundred (seen: about 1, 7 and 1).
fn hold(
    cases: u32,
    kinds: u8,
    most_calls: usize,
    most_refused: usize,
    property: fn(&Kernel) -> Result<bool, TestCaseError>,
) {
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let (refused, largest, deepest) = (Cell::new(0), Cell::new(0), Cell::new(0));
    let result = TestRunner::new(config).run(&calls(kinds, most_calls), |calls| {
        let kernel = live(&calls);
        let tree = kernel.capture().0;
        largest.set(largest.get().max(tree.processes.len()));
        let levels = tree.processes.iter().map(|process| process.pids.len()).max();
        deepest.set(deepest.get().max(levels.unwrap_or(0)));
        refused.set(refused.get() + usize::from(property(&kernel)?));
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    let seen = format!(
        "{} of {cases} refused, up to {} processes, {} levels",
        refused.get(),
        largest.get(),
        deepest.get()
    );
    assert!(refused.get() * 100 <= most_refused * cases as usize, "{seen}");
    // Four namespaces within the outermost one.
    assert!(most_calls < 450 || largest.get() > 100 && deepest.get() == 5, "{seen}");
}

fn calls(kinds: u8, most: usize) -> impl Strategy<Value = Vec<Call>> {
    let call = (0..kinds, any::<usize>(), any::<usize>());
    prop::collection::vec(call.prop_map(|(kind, who, other)| Call { kind, who, other }), 1..most)
}

/// Every kind of call but entering another process's pid namespace.
const WITHOUT_SETNS: u8 = 96;
const ALL: u8 = 100;

#[test]
fn short_histories_are_made_again() {
    hold(2000, WITHOUT_SETNS, 40, 3, must_pass);
}

#[test]
fn long_histories_are_made_again() {
    hold(150, WITHOUT_SETNS, 450, 20, must_pass);
}

#[test]
fn histories_that_enter_namespaces_are_made_again_or_refused() {
    hold(150, ALL, 450, 5, |kernel| may_be_refused(kernel, OutsideGroup::Numbered));
}

/// A process of a nested namespace cannot name a group from outside: whoever sees the group moves it, and its children are born
/// where it is at the time.
fn children_in_several_foreign_groups() -> Answer<Kernel> {
    let mut kernel = Kernel::boot();
    let start = |kernel: &mut Kernel, by, new| kernel.fork(by, &[], new, &[]);
    let leader = |kernel: &mut Kernel, by| -> Answer<Id> {
        let id = kernel.fork(by, &[], false, &[])?;
        kernel.setpgid(id, id, id).map(|()| id)
    };
    let (one, two) = (leader(&mut kernel, LAUNCHER)?, leader(&mut kernel, LAUNCHER)?);
    let outer = start(&mut kernel, LAUNCHER, true)?;
    kernel.setpgid(LAUNCHER, outer, one)?;
    start(&mut kernel, outer, false)?;
    // Born in a group that its own forker has no number for, and moved on to those that it has.
    let inner = start(&mut kernel, outer, true)?;
    start(&mut kernel, inner, false)?;
    for group in [leader(&mut kernel, outer)?, leader(&mut kernel, outer)?] {
        kernel.setpgid(outer, inner, group)?;
        start(&mut kernel, inner, false)?;
    }
    kernel.setpgid(LAUNCHER, outer, two)?;
    start(&mut kernel, outer, false)?;
    kernel.setpgid(outer, outer, outer)?;
    kernel.setpgid(inner, inner, inner)?;
    Ok(kernel)
}

#[test]
fn children_in_several_foreign_groups_are_made_again() {
    let kernel = children_in_several_foreign_groups().expect("every call is allowed");
    assert!(!must_pass(&kernel).expect("made again"));
}

/// A tree of one namespace from a text: `PID<PARENT sSESSION gGROUP [z]`, separated by `|`; parent 0, no session or group:
/// outside.
fn tree(text: &str) -> Tree {
    let rows: Vec<Vec<&str>> = text.split('|').map(|row| row.split_whitespace().collect()).collect();
    let pid = |row: &[&str]| -> u32 { row[0].split('<').next().expect("a pid").parse().expect("a number") };
    let parent =
        |row: &[&str]| -> u32 { row[0].split('<').nth(1).expect("a parent").parse().expect("a number") };
    let number = |row: &[&str], letter: char| -> Vec<u32> {
        row.iter().filter_map(|word| word.strip_prefix(letter)?.parse().ok()).collect()
    };
    let process = |row: &Vec<&str>| pinfold_restart::tree::Process {
        pids: vec![pid(row)],
        parent: rows.iter().position(|other| pid(other) == parent(row)),
        session: number(row, 's'),
        group: number(row, 'g'),
        zombie: row.contains(&"z"),
        ..Default::default()
    };
    Tree {
        namespaces: vec![pinfold_restart::tree::PidNamespace { parent: None }],
        processes: rows.iter().map(process).collect(),
    }
}

#[test]
fn helpers_are_as_few_as_can_be() {
    for (text, helpers, why) in [
        ("5<0 s5 g5 | 6<5 s5 g5", 0, "a child of its session's leader"),
        ("5<0 s5 g5 | 6<5", 0, "born before its parent's setsid"),
        ("5<0 s5 g5 | 6<5 s6 g6 | 7<6", 0, "born before, and its parent too"),
        ("5<0 s5 g5 | 6<5 | 7<5 g7", 0, "a job of the session outside"),
        ("5<0 s4 g4", 1, "a daemon whose leader is dead: its number"),
        ("5<0 s4 g4 | 6<0 s4 g4 | 7<5 s4 g4", 1, "all that a dead leader left"),
        ("4<0 s4 g4 z | 5<0 s4 g4", 0, "a zombie led it"),
        ("4<0 s4 g4 | 5<0 s4 g4", 1, "an orphan of a session that lives elsewhere"),
        ("4<0 s4 g4 | 5<0 s4 g4 | 6<0 s4 g4", 1, "two such orphans"),
        ("4<0 s4 g4 | 5<0 s4 g3", 1, "and a dead group leader, who leaves the orphan too"),
        ("4<0 s4 g4 | 5<4 s4 g4 z | 6<0 s4 g4", 0, "a zombie of the session leaves it"),
        ("4<0 s4 g3 | 5<0 s4 g4 | 6<0 s4 g4", 0, ""),
        ("5<0 g4 | 6<0 g4", 1, "a job whose first process is dead"),
        ("5<0 s3 g3 | 6<5 s6 g6 | 7<6 s3 g3", 1, "a dead session on both sides of a setsid"),
        ("5<0 s5 g5 | 6<5 s5 g7 | 7<5 s5 g6", 1, "two job leaders in each other's groups"),
        ("5<0 s5 g5 | 6<5 s5 g7 | 7<5 s5 g6 | 8<5 s5 g6", 0, "and somebody else to keep one of them"),
        ("5<0 s5 g5 | 6<5 s6 g6 | 7<0 s6 g6 | 8<5 s6 g6", 2, "orphans at two reapers"),
    ] {
        let tree = tree(text);
        let result = schedule(&tree, OutsideGroup::Numbered);
        if why.is_empty() {
            assert!(
                matches!(result, Err(ScheduleError::Malformed { .. })),
                "{text}: a leader in another group"
            );
            continue;
        }
        let schedule = result.unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(schedule.helpers.len(), helpers, "{text}: {why}\n{schedule:#?}");
        let again = replay(&tree, &schedule).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(again.capture().0, tree, "{text}: {why}");
    }
}

#[test]
fn what_no_history_makes_is_refused_by_name() {
    for (text, message) in [
        (
            "5<0 s5 g5 | 6<5 s6 g6 | 7<6 s5 g5 | 8<6",
            "process 7 cannot be rebuilt: its siblings need another session that",
        ),
        ("4<0 s4 g4 | 5<0 | 6<5 s4 g4", "process 6 cannot be rebuilt: nobody who is in its session"),
        ("5<0 s5 g5 | 6<5 s5 g5 z | 7<6 s5 g5", "process 7: its parent is a zombie"),
        ("5<0 s5 g5 | 5<0 s5 g5", "process 5: two processes have this number"),
        ("5<6 s5 g5 | 6<5 s5 g5", "process 5: it is its own ancestor"),
        ("5<0 s5 g5 | 6<0 s6 g5", "process 6: "),
    ] {
        let error = schedule(&tree(text), OutsideGroup::Numbered).map(|schedule| schedule.steps);
        let error = error.expect_err(text).to_string();
        assert!(error.starts_with(message), "{text}: {error}");
    }
}
