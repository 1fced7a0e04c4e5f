//! cpusets.rst and kernel/cgroup/cpuset.c. The stage's machine has CPUs 0, 2 and 3 of four, and the nodes 0 and 1. The rules
//! were seen on Linux 6.1 (differential/cpuset.script).

use pinfold_files::{Birth, Facts, Sight, Texts, controllers, inherited, may_enter, setting_by_key};
use pinfold_model::Value;
use proptest::prelude::*;

use crate::stage::{Stage, check};

#[test]
fn a_group_starts_with_nothing_and_the_root_with_all() {
    check(
        r"
        mkdir /a
        /cpuset.cpus = 0,2-3\n
        /cpuset.mems = 0-1\n
        /cpuset.effective_cpus = 0,2-3\n
        /cpuset.cpu_exclusive = 1\n
        /cpuset.mem_exclusive = 1\n
        /cpuset.memory_pressure_enabled = 0\n
        /a/cpuset.cpus = \n
        /a/cpuset.mems = \n
        /a/cpuset.effective_cpus = \n
        /a/cpuset.cpu_exclusive = 0\n
        /a/cpuset.sched_load_balance = 1\n
        /a/cpuset.sched_relax_domain_level = -1\n
        /a/cpuset.memory_pressure = 0\n
        /a/cpuset.memory_pressure_enabled = ENOENT
        /cpuset.cpus < 0 = EACCES
        /cpuset.cpus < junk = EACCES
        /cpuset.mems < 0-1 = EACCES
        ",
    );
}

#[test]
fn a_list_is_of_what_the_machine_has() {
    check(
        r"
        mkdir /a
        /a/cpuset.cpus < \s3,2\n = ok
        /a/cpuset.cpus = 2-3\n
        /a/cpuset.effective_cpus = 2-3\n
        /a/cpuset.cpus < N = ok
        /a/cpuset.cpus = 3\n
        /a/cpuset.cpus < 1 = EINVAL
        /a/cpuset.cpus < all = EINVAL
        /a/cpuset.cpus < 4 = ERANGE
        /a/cpuset.cpus < 4294967296 = EOVERFLOW
        /a/cpuset.cpus < 3-2 = EINVAL
        /a/cpuset.cpus = 3\n
        /a/cpuset.cpus < , = ok
        /a/cpuset.cpus = \n
        /a/cpuset.mems < 0-1 = ok
        /a/cpuset.mems < 2 = EINVAL
        /a/cpuset.mems < 1024 = ERANGE
        /a/cpuset.mems = 0-1\n
        ",
    );
}

#[test]
fn a_group_has_a_part_of_what_the_group_above_has() {
    check(
        r"
        mkdir /a
        mkdir /a/b
        /a/b/cpuset.cpus < 0 = EACCES
        /a/cpuset.cpus < 0,2 = ok
        /a/b/cpuset.cpus < 3 = EACCES
        /a/b/cpuset.cpus < 0 = ok
        /a/cpuset.cpus < 2-3 = EBUSY
        /a/cpuset.cpus < \n = EBUSY
        /a/cpuset.cpus < 0,3 = ok
        /a/b/cpuset.mems < 0 = EACCES
        /a/cpuset.mems < 1 = ok
        /a/b/cpuset.mems < 1 = ok
        /a/cpuset.mems < 0 = EBUSY
        ",
    );
}

#[test]
fn an_exclusive_group_shares_with_no_neighbour() {
    check(
        r"
        mkdir /a
        mkdir /b
        /a/cpuset.cpus < 0,2 = ok
        /a/cpuset.cpu_exclusive < 1 = ok
        /b/cpuset.cpus < 2-3 = EINVAL
        /b/cpuset.cpus < 3 = ok
        /a/cpuset.cpus < 0,2-3 = EINVAL
        /a/cpuset.mems < 0 = ok
        /b/cpuset.mems < 0 = ok
        /b/cpuset.mem_exclusive < 1 = EINVAL
        /a/cpuset.mem_exclusive < 1 = EINVAL
        mkdir /b/c
        /b/c/cpuset.cpu_exclusive < 1 = EACCES
        /b/cpuset.cpu_exclusive < 7 = ok
        /b/cpuset.cpu_exclusive = 1\n
        /b/c/cpuset.cpu_exclusive < 1 = ok
        /b/cpuset.cpu_exclusive < 0 = EBUSY
        /cpuset.cpu_exclusive < 0 = EBUSY
        /b/c/cpuset.cpu_exclusive < 0 = ok
        /b/cpuset.cpu_exclusive < 0 = ok
        /a/cpuset.cpu_exclusive < 0 = ok
        /cpuset.cpu_exclusive < 0 = ok
        /cpuset.cpu_exclusive = 0\n
        /a/cpuset.cpu_exclusive < 1 = EACCES
        /cpuset.cpu_exclusive < 1 = ok
        /a/cpuset.cpu_exclusive < 1 = ok
        ",
    );
}

#[test]
fn a_clone_has_what_its_parent_has_unless_a_neighbour_is_exclusive() {
    check(
        r"
        /cgroup.clone_children < 1 = ok
        mkdir /a
        /a/cpuset.cpus = 0,2-3\n
        /a/cpuset.mems = 0-1\n
        /a/cpuset.cpus < 2 = ok
        mkdir /a/b
        /a/b/cpuset.cpus = 2\n
        /a/cpuset.cpu_exclusive < 1 = ok
        mkdir /c
        /c/cpuset.cpus = \n
        mkdir /a/d
        /a/d/cpuset.cpus = 2\n
        /a/cpuset.memory_spread_page < 1 = ok
        /a/cpuset.memory_migrate < 1 = ok
        mkdir /a/e
        /a/e/cpuset.memory_spread_page = 1\n
        /a/e/cpuset.memory_migrate = 0\n
        ",
    );
}

#[test]
fn a_level_is_one_of_few() {
    check(
        r"
        mkdir /a
        /a/cpuset.sched_relax_domain_level < 3 = ok
        /a/cpuset.sched_relax_domain_level = 3\n
        /a/cpuset.sched_relax_domain_level < 4 = EINVAL
        /a/cpuset.sched_relax_domain_level < -2 = EINVAL
        /a/cpuset.sched_relax_domain_level < \s1 = EINVAL
        /a/cpuset.sched_relax_domain_level < 9223372036854775808 = ERANGE
        /a/cpuset.sched_relax_domain_level < -1 = ok
        /a/cpuset.sched_relax_domain_level = -1\n
        ",
    );
}

/// What comes of putting a process into /a when these were written.
fn check_attach(cpus: &str, mems: &str, expected: Result<(), &str>) {
    let mut stage = Stage::new();
    stage.mkdir("/a");
    assert_eq!(stage.write("/a/cpuset.cpus", cpus.as_bytes()), "ok");
    assert_eq!(stage.write("/a/cpuset.mems", mems.as_bytes()), "ok");
    let entered = stage.sight(stage.group("/a"), |sight| may_enter(controllers(), sight));
    assert_eq!(entered.map_err(|refused| refused.to_string()), expected.map_err(str::to_owned));
}

#[test]
fn nobody_is_attached_to_a_group_without_cpus_or_nodes() {
    check_attach("0", "0", Ok(()));
    check_attach("\n", "0", Err("cpuset.cpus of the group is empty\nwrite it first"));
    check_attach("0", "\n", Err("cpuset.mems of the group is empty\nwrite it first"));
    let stage = Stage::new();
    assert!(stage.sight(stage.root(), |sight| may_enter(controllers(), sight)).is_ok());
}

#[test]
fn a_group_that_the_manager_makes_can_be_used() {
    let stage = Stage::new();
    let made = stage.sight(stage.root(), |sight| inherited(controllers(), sight, Birth::Ready));
    let cpus = setting_by_key("cpuset.cpus").unwrap();
    assert_eq!(cpus.of(&made), &Value::Text(b"0,2-3".to_vec()));
}

#[test]
fn a_base_that_has_less_than_the_machine_has_that() {
    let stage = Stage::new();
    let facts = Facts { cpus: vec![2], ..stage.facts.clone() };
    let root = stage.root();
    let sight = Sight { forest: &stage.forest, group: root, v2: &Texts::default(), facts: &facts };
    let made = inherited(controllers(), &sight, Birth::Ready);
    assert_eq!(setting_by_key("cpuset.cpus").unwrap().of(&made), &Value::Text(b"2".to_vec()));
}

/// What v2 is told of the lists along a path, in a directory of its own.
fn check_v2(path: &[&str], expected: &str) {
    let pinfold_files::Carry::Everywhere { show, combine, .. } = setting_by_key("cpuset.cpus").unwrap().carry
    else {
        panic!("v2 holds it in every directory")
    };
    let text = |list: &&str| Value::Text(list.as_bytes().to_vec());
    let value = path.iter().map(text).reduce(|above, own| combine(&above, &own)).unwrap();
    assert_eq!(show(&value), expected);
}

#[test]
fn v2_is_told_what_holds() {
    check_v2(&["", "0-3", "1"], "1");
    check_v2(&["", "0-3", ""], "0-3");
    check_v2(&["", "", ""], "\n");
    check_v2(&["", "0-1", "2"], "0-1");
}

proptest! {
    #[test]
    fn whatever_is_accepted_a_group_is_a_part_of_the_one_above_and_exclusive_ones_share_nothing(
        writes in prop::collection::vec((0_usize..5, 0_usize..3, 0_usize..16), 1..60),
    ) {
        const PATHS: [&str; 5] = ["/a", "/a/b", "/a/c", "/d", "/a/b/e"];
        const LISTS: [&str; 6] = ["\n", "0", "2", "3", "0,2", "0,2-3"];
        let mut stage = Stage::new();
        PATHS.iter().for_each(|path| stage.mkdir(path));
        let set = |stage: &Stage, path: &str| -> Vec<u32> {
            let text = stage.read(&format!("{path}/cpuset.effective_cpus")).unwrap();
            let text = String::from_utf8(text).unwrap();
            let ranges = text.trim().split(',').filter(|range| !range.is_empty());
            ranges.flat_map(|range| {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                first.parse::<u32>().unwrap()..=last.parse().unwrap()
            }).collect()
        };
        let exclusive = |stage: &Stage, path: &str| stage.read(&format!("{path}/cpuset.cpu_exclusive")).unwrap() == b"1\n";
        for (path, file, value) in writes {
            let path = PATHS[path];
            match file {
                0 => stage.write(&format!("{path}/cpuset.cpu_exclusive"), (value % 2).to_string().as_bytes()),
                _ => stage.write(&format!("{path}/cpuset.cpus"), LISTS[value % LISTS.len()].as_bytes()),
            };
            for (below, above) in [("/a/b", "/a"), ("/a/c", "/a"), ("/a/b/e", "/a/b")] {
                let all = set(&stage, above);
                prop_assert!(set(&stage, below).iter().all(|cpu| all.contains(cpu)));
                prop_assert!(exclusive(&stage, below) <= exclusive(&stage, above));
            }
            for (one, other) in [("/a", "/d"), ("/a/b", "/a/c")] {
                let (left, right) = (set(&stage, one), set(&stage, other));
                let shares = left.iter().any(|cpu| right.contains(cpu));
                prop_assert!(!shares || !exclusive(&stage, one) && !exclusive(&stage, other));
            }
        }
    }
}
