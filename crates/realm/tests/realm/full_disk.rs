//! A state directory on a file system without room: every change is refused with ENOSPC and changes nothing.

use std::ffi::OsStr;
use std::fs;
use std::process::Command;

use crate::support::{eventually, fixture_in, root, skip};
use pinfold_model::Errno;

/// Set in the private mount namespace that the test runs in: to the directory that has a file system of its own.
const INSIDE: &str = "PINFOLD_TEST_FULL_DISK";

#[test]
fn a_full_state_directory_refuses_changes_and_loses_nothing() {
    let Some(small) = std::env::var_os(INSIDE) else { return run_inside() };
    let small = std::path::PathBuf::from(small);
    let Some(mut f) = fixture_in(&small.join("state")) else { return };
    let h = f.mount("freezer");
    let (a, b) = (f.group(h, "/a"), f.group(h, "/b"));
    let pid = f.sleeper();
    f.write(a, "tasks", &pid.to_string()).expect("there is room yet");
    let fillers = fill(&small);

    let root_group = f.realm().root(h).expect("mounted");
    let error = f.realm().make(&root(), root_group, OsStr::new("c"), 0o755).expect_err("no room");
    assert_eq!(error.errno(), Errno::ENOSPC);
    assert!(f.realm().resolve(h, OsStr::new("/c")).is_err());
    let error = f.write(b, "tasks", &pid.to_string()).expect_err("no room for a new cell");
    assert_eq!(error.errno(), Errno::ENOSPC);
    assert_eq!(f.read(a, "tasks"), format!("{pid}\n"));
    assert_eq!(f.read(b, "tasks"), "");
    let error = f.write(b, "freezer.state", "FROZEN").expect_err("no room for a setting");
    assert_eq!(error.errno(), Errno::ENOSPC);
    assert_eq!(f.read(b, "freezer.state"), "THAWED\n");

    for filler in fillers {
        fs::remove_file(filler).expect("an own file");
    }
    f.write(b, "freezer.state", "FROZEN").expect("there is room again");
    f.write(b, "tasks", &pid.to_string()).expect("there is room again");
    eventually("frozen", || f.read(b, "freezer.state") == "FROZEN\n");
    f.crash_and_restart();
    let b = f.realm().resolve(h, OsStr::new("/b")).expect("kept");
    assert_eq!(f.read(b, "tasks"), format!("{pid}\n"));
    f.write(b, "freezer.state", "THAWED").expect("thawed");
}

/// Takes every inode that is left.
fn fill(small: &std::path::Path) -> Vec<std::path::PathBuf> {
    let names = (0..).map(|number| small.join(format!("filler{number}")));
    names.take_while(|path| fs::File::create(path).is_ok()).collect()
}

/// Runs this test in a mount namespace of its own, where a small file system can be mounted.
fn run_inside() {
    let dir = std::env::temp_dir().join(format!("pinfold-full-disk-{}", std::process::id()));
    fs::create_dir(&dir).expect("a fresh name");
    let script =
        "mount -t tmpfs -o size=64k,nr_inodes=48,mode=700 pinfold-test \"$1\" && shift && exec \"$@\"";
    let program = std::env::current_exe().expect("this test");
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"])
        .arg(&dir)
        .arg(program)
        .args([
            "--exact",
            "full_disk::a_full_state_directory_refuses_changes_and_loses_nothing",
            "--nocapture",
        ])
        .env(INSIDE, &dir)
        .output();
    fs::remove_dir(&dir).expect("it was mounted elsewhere only");
    let output = output.expect("unshare is there");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    if !rustix::process::geteuid().is_root() {
        return skip(&format!("only root mounts a small file system\n{said}")).unwrap_or(());
    }
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}
