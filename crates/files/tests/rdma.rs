//! rdma.rst and kernel/cgroup/rdma.c. What is EINVAL, and the space at the end of each line, was seen on Linux 6.1.

use pinfold_files::{Change, Request, named};

use crate::stage::{Stage, check};

#[test]
fn every_device_is_shown_with_its_limits_and_its_use() {
    check(
        r"
        mkdir /a
        /a/rdma.max = ''
        v2 /a realm rdma.max mlx4_0\shca_handle=max\shca_object=max\s\nocrdma1\shca_handle=max\shca_object=max\s\n
        v2 /a carrier rdma.current mlx4_0\shca_handle=1\shca_object=20\s\n
        /a/rdma.max < mlx4_0\shca_handle=2\n = ok
        /a/rdma.max = mlx4_0\shca_handle=2\shca_object=max\s\nocrdma1\shca_handle=max\shca_object=max\s\n
        /a/rdma.max < mlx4_0\shca_object=0x10 = ok
        /a/rdma.max = mlx4_0\shca_handle=2\shca_object=16\s\nocrdma1\shca_handle=max\shca_object=max\s\n
        /a/rdma.max < mlx4_0\shca_handle=max = ok
        /a/rdma.max = mlx4_0\shca_handle=max\shca_object=16\s\nocrdma1\shca_handle=max\shca_object=max\s\n
        /a/rdma.current = mlx4_0\shca_handle=1\shca_object=20\s\nocrdma1\shca_handle=0\shca_object=0\s\n
        /a/rdma.current < 1 = EINVAL
        /rdma.max = ENOENT
        ",
    );
}

#[test]
fn devices_are_those_that_the_groups_own_directories_name_if_it_has_some() {
    check(
        r"
        mkdir /a
        v2 /a realm rdma.max mlx4_0\shca_handle=max\shca_object=max\s\n
        /a/rdma.current = mlx4_0\shca_handle=0\shca_object=0\s\n
        mkdir /b
        v2 /b carrier rdma.current ocrdma1\shca_handle=1\shca_object=2\s\nmlx4_0\shca_handle=0\shca_object=1\s\n
        v2 /b carrier rdma.current ocrdma1\shca_handle=4\shca_object=0\s\nmlx4_0\shca_handle=0\shca_object=1\s\n
        /b/rdma.current = ocrdma1\shca_handle=5\shca_object=2\s\nmlx4_0\shca_handle=0\shca_object=2\s\n
        ",
    );
}

#[test]
fn a_limit_is_a_number_or_the_beginning_of_max() {
    check(
        r"
        mkdir /a
        /a/rdma.max < mlx4_0\shca_handle = EINVAL
        /a/rdma.max < mlx4_0\shca_handle=-1 = EINVAL
        /a/rdma.max < mlx4_0\shca_handle=abc = EINVAL
        /a/rdma.max < mlx4_0\shca_handle=2147483648 = EINVAL
        /a/rdma.max < mlx4_0\shca_other=1 = EINVAL
        /a/rdma.max < mlx4_0\s\shca_handle=2 = EINVAL
        /a/rdma.max < mlx4_0\shca_handle= = ok
        /a/rdma.max < mlx4_0\shca_handle=2147483647 = ok
        /a/rdma.max < mlx4_0 = ok
        ",
    );
}

#[test]
fn the_kernel_below_is_asked_for_the_device_and_told_its_limits() {
    let mut stage = Stage::new();
    stage.mkdir("/a");
    let asked = stage.parse(stage.group("/a"), named("rdma.max").unwrap(), b"mlx4_0 hca_handle=2");
    let Ok(Request::Change(Change::IfTaken { file, entry, then })) = asked else {
        panic!("no device is known")
    };
    assert_eq!((file, &*entry), ("rdma.max", "mlx4_0 hca_handle=max hca_object=max"));
    let assignment = &then.unwrap()[0];
    let mut settings = pinfold_model::Settings::NONE;
    settings.replace(assignment.setting.key, Some(assignment.value.clone()));
    let pinfold_files::Carry::Entries(v2) = assignment.setting.carry else { panic!("an entry for each") };
    assert_eq!((v2.entries)(&settings), ["mlx4_0 hca_handle=2 hca_object=max"]);
}
