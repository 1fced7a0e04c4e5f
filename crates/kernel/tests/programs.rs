//! BPF programs of directories: put there, replaced, taken back, found again by the next daemon.

use std::fs::File;
use std::process::{Command, Stdio};

use crate::ground::{Ground, dir, skip};
use pinfold_kernel::{Step, Tree, inspect};
use pinfold_model::{Dir, Errno, Hook, Instruction, Slot};
use pinfold_sys::bpf::{self, Kind};

const DEVICES: Slot = Slot { hook: Hook::Device, name: "pinfold_devices" };

/// `r0 = answer`, and the end.
fn answering(answer: i32) -> Option<Vec<Instruction>> {
    let set = Instruction { code: 0xb7, to: 0, from: 0, offset: 0, immediate: answer };
    Some(vec![set, Instruction { code: 0x95, immediate: 0, ..set }])
}

fn put(leaf: &Dir, code: Option<Vec<Instruction>>) -> Step {
    Step::Program { dir: leaf.clone(), slot: DEVICES, code }
}

/// A directory of a tree, where the machine lets programs be attached.
fn ground() -> Option<(Ground, Tree, Dir)> {
    if let Err(errno) = inspect::programs() {
        return skip(&format!("no BPF programs: {errno}"));
    }
    let ground = Ground::new()?;
    let tree = ground.open("r", &[]);
    let leaf = dir("cell.1");
    tree.carry_out(&[Step::Make(leaf.clone())]).unwrap();
    Some((ground, tree, leaf))
}

/// Whether a process in the leaf can open a device.
fn can_open(ground: &Ground) -> bool {
    let script = r#"echo 0 >"$0/pinfold.r/cell.1/cgroup.procs" && (: </dev/zero)"#;
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(&ground.base).stderr(Stdio::null());
    command.status().unwrap().success()
}

/// The names of the programs that are attached to the leaf.
fn attached(ground: &Ground) -> Vec<String> {
    let leaf = File::open(ground.base.join("pinfold.r/cell.1")).unwrap();
    let ids = bpf::attached(&leaf, Kind::Device).unwrap();
    ids.into_iter().map(|id| bpf::info(bpf::by_id(id).unwrap()).unwrap().name).collect()
}

#[test]
fn one_program_takes_the_place_of_the_other() {
    let Some((ground, tree, leaf)) = ground() else { return };
    assert!(can_open(&ground));
    for (code, may) in
        [(answering(0), false), (answering(1), true), (answering(0), false), (None, true), (None, true)]
    {
        let wanted = usize::from(code.is_some());
        tree.carry_out(&[put(&leaf, code)]).unwrap();
        assert_eq!(can_open(&ground), may);
        assert_eq!(attached(&ground), vec!["pinfold_devices"; wanted]);
    }
    tree.close().unwrap();
}

#[test]
fn a_plan_that_fails_later_leaves_the_program_that_was_there() {
    let Some((ground, tree, leaf)) = ground() else { return };
    let fails = Step::Write { dir: leaf.clone(), file: "cgroup.freeze", text: "nonsense".into() };
    tree.carry_out(&[put(&leaf, answering(0)), fails.clone()]).unwrap_err();
    assert!(can_open(&ground) && attached(&ground).is_empty());
    tree.carry_out(&[put(&leaf, answering(0))]).unwrap();
    for other in [answering(1), None] {
        let error = tree.carry_out(&[put(&leaf, other), fails.clone()]).unwrap_err();
        assert!(error.not_undone.is_empty(), "{error}");
        assert!(!can_open(&ground));
        assert_eq!(attached(&ground), ["pinfold_devices"]);
    }
    tree.close().unwrap();
}

#[test]
fn a_program_outlives_who_attached_it_and_the_next_one_replaces_it() {
    let Some((ground, tree, leaf)) = ground() else { return };
    tree.carry_out(&[put(&leaf, answering(0))]).unwrap();
    drop(tree); // as after kill -9: nothing is cleaned up
    assert!(!can_open(&ground));
    let tree = ground.open("r", &[]);
    tree.carry_out(&[put(&leaf, answering(1))]).unwrap();
    assert!(can_open(&ground));
    assert_eq!(attached(&ground), ["pinfold_devices"]);
    tree.close().unwrap();
}

#[test]
fn programs_of_others_stay_and_are_asked_too() {
    let Some((ground, tree, leaf)) = ground() else { return };
    let code = [bpf::Instruction::new(0xb7, 0, 0, 0, 0), bpf::Instruction::new(0x95, 0, 0, 0, 0)];
    let others = bpf::load(Kind::Device, "sd_devices", c"", &code).unwrap();
    let at = File::open(ground.base.join("pinfold.r/cell.1")).unwrap();
    bpf::attach(&at, Kind::Device, &others, None).unwrap();
    tree.carry_out(&[put(&leaf, answering(1))]).unwrap();
    assert!(!can_open(&ground));
    tree.carry_out(&[put(&leaf, None)]).unwrap();
    assert_eq!(attached(&ground), ["sd_devices"]);
    tree.close().unwrap();
}

#[test]
fn a_program_that_the_kernel_does_not_understand_is_refused_with_its_name() {
    let Some((_ground, tree, leaf)) = ground() else { return };
    let without_end = answering(0).map(|code| code[..1].to_vec());
    let error = tree.carry_out(&[put(&leaf, without_end)]).unwrap_err();
    assert_eq!(error.errno(), Errno::EINVAL);
    let message = error.to_string();
    assert!(
        message.contains("attach a program \"pinfold_devices\"") && message.contains("cell.1"),
        "{message}"
    );
    tree.close().unwrap();
}
